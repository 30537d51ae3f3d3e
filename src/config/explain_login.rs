//! Login and logout rules as sentences.

use crate::config::explain::join;
use crate::policy::glob::Glob;
use crate::policy::login::Criteria;
use crate::policy::login::FieldCondition;
use crate::policy::login::LoginRule;
use crate::policy::login::PathRule;
use crate::policy::login::UserSource;
use crate::policy::logout::LogoutRule;

/// The rule, and what to keep in mind about it.
pub(super) fn login(number: usize, rule: &LoginRule) -> Vec<String> {
    let methods = join(rule.methods.iter().map(http::Method::as_str));
    let mut text = format!("Login rule {number}: {methods} {}{}", path(&rule.path), form(rule.form.as_ref()));
    text.push_str(" is an attempt to log in.");
    if let Some(failure) = &rule.failure {
        text.push_str(&format!(" It failed if {}.", criteria(failure, " or ")));
    }
    match (&rule.success, &rule.verify) {
        (Some(success), _) => text.push_str(&format!(" It succeeded if {}", criteria(success, " and "))),
        (None, Some(_)) => text.push_str(" It succeeded if the application does not refuse it"),
        (None, None) => text.push_str(" It never succeeds"),
    }
    if let Some(verify) = &rule.verify {
        let place = verify.path.as_deref().unwrap_or("the place the answer sends the browser to");
        let wanted = if verify.criteria.is_empty() {
            "the status is 2xx".to_owned()
        } else {
            criteria(&verify.criteria, " and ")
        };
        text.push_str(&format!(", and a GET of {place} then shows that {wanted}"));
    }
    text.push_str(&format!(". The user is {}", rule.user.iter().map(source).collect::<Vec<_>>().join(", else ")));
    if let Some(regex) = &rule.user_match {
        text.push_str(&format!(", of which the group in {} is taken", regex.as_str()));
    }
    text.push_str(&format!(". Browsers are sent to {} to log in", rule.page));
    match &rule.return_param {
        Some(parameter) => text.push_str(&format!(", with the way back in {parameter}.")),
        None => text.push('.'),
    }
    let mut all = vec![text];
    if rule.user.iter().any(|source| matches!(source, UserSource::Form(_))) {
        all.push(
            "  Note: form: is what the user typed, which is not necessarily what the application calls the user \
             (letter case, aliases, e-mail addresses)."
                .to_owned(),
        );
    }
    all
}

/// The rule in one sentence.
pub(super) fn logout(rule: &LogoutRule, login_page: &str) -> String {
    let methods = if rule.methods.is_empty() {
        "any method".to_owned()
    } else {
        join(rule.methods.iter().map(http::Method::as_str))
    };
    let landing = rule.landing.as_deref().unwrap_or(login_page);
    let cleared = if rule.clear_site_data.is_empty() {
        String::new()
    } else {
        format!(" The browser is asked to clear {}.", rule.clear_site_data.join(", "))
    };
    format!(
        "Logout: {methods} {}{} ends the session; without an answer of the application, browsers go to {landing}.{cleared}",
        path(&rule.path),
        form(rule.form.as_ref())
    )
}

fn path(rule: &PathRule) -> String {
    let parameters = rule.parameters.iter().map(|(name, value)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    });
    let parameters: Vec<String> = parameters.collect();
    if parameters.is_empty() {
        rule.glob.as_str().to_owned()
    } else {
        format!("{} with {}", rule.glob.as_str(), parameters.join(" and "))
    }
}

fn form(condition: Option<&FieldCondition>) -> String {
    match condition {
        Some(FieldCondition { name, value: Some(value) }) => format!(" with the form field {name}={value}"),
        Some(FieldCondition { name, value: None }) => format!(" with a form field {name}"),
        None => String::new(),
    }
}

fn source(source: &UserSource) -> String {
    match source {
        UserSource::Form(field) => format!("the form field {field}"),
        UserSource::Json(pointer) => format!("{pointer} in the request's JSON"),
        UserSource::Query(field) => format!("the query parameter {field}"),
        UserSource::Basic => "the name in Authorization: Basic".to_owned(),
        UserSource::ResponseHeader(name) => format!("the response header {name}"),
        UserSource::ResponseJson(pointer) => format!("{pointer} in the response's JSON"),
        UserSource::SetCookie(glob) => format!("the value of the cookie {} that is set", glob.as_str()),
        UserSource::VerifyHeader(name) => format!("the header {name} of the verifying answer"),
        UserSource::VerifyJson(pointer) => format!("{pointer} in the verifying answer's JSON"),
        UserSource::Fixed(name) => format!("always {name:?}"),
    }
}

fn any<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    texts.collect::<Vec<_>>().join(" or ")
}

fn quoted(texts: &[String]) -> String {
    texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(" or ")
}

fn criteria(criteria: &Criteria, glue: &str) -> String {
    let mut all = Vec::new();
    if !criteria.status.is_empty() {
        all.push(format!("the status is {}", any(criteria.status.iter().map(http::StatusCode::as_str))));
    }
    if !criteria.location.is_empty() {
        all.push(format!("it redirects to {}", any(criteria.location.iter().map(|rule| rule.glob.as_str()))));
    }
    if !criteria.location_not.is_empty() {
        let globs = any(criteria.location_not.iter().map(|rule| rule.glob.as_str()));
        all.push(format!("it redirects elsewhere than to {globs}"));
    }
    for (name, value) in &criteria.header {
        all.push(match value {
            Some(value) => format!("the header {name} is {}", value.as_str()),
            None => format!("there is a header {name}"),
        });
    }
    if !criteria.set_cookie.is_empty() {
        let names: Vec<&str> = criteria.set_cookie.iter().map(Glob::as_str).collect();
        all.push(format!("it sets the cookie {}", names.join(" and ")));
    }
    if !criteria.body_contains.is_empty() {
        all.push(format!("the body contains {}", quoted(&criteria.body_contains)));
    }
    if !criteria.body_omits.is_empty() {
        all.push(format!("the body does not contain {}", quoted(&criteria.body_omits)));
    }
    for (pointer, value) in &criteria.json {
        all.push(match value {
            Some(value) => format!("{pointer} in its JSON is {value}"),
            None => format!("{pointer} is in its JSON"),
        });
    }
    all.join(glue)
}
