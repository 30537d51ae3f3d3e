//! Login and logout rules as sentences.

use crate::config::explain::words::count;
use crate::config::explain::words::time;
use crate::config::explain::words::title;
use crate::policy::glob::Glob;
use crate::policy::login::Criteria;
use crate::policy::login::FieldCondition;
use crate::policy::login::LoginRule;
use crate::policy::login::PathRule;
use crate::policy::login::UserSource;
use crate::policy::logout::LogoutRule;
use crate::policy::throttle::CEILING;
use crate::policy::throttle::LONGEST_WAIT;
use crate::policy::throttle::Limit;

/// The rule, a sentence a line, and what to keep in mind about it.
pub(super) fn login(number: usize, rule: &LoginRule) -> Vec<String> {
    let methods = any(rule.methods.iter().map(http::Method::as_str));
    let (path, form) = (path(&rule.path), form(rule.form.as_ref()));
    let mut all = vec![format!("Login rule {number}: {methods} {path}{form} is an attempt to log in.")];
    if let Some(failure) = &rule.failure {
        all.push(format!("  It failed if {}.", criteria(failure, " or ")));
    }
    let asked = rule.verify.as_ref().map(|verify| {
        let place = verify.path.as_deref().unwrap_or("the place the answer sends the browser to");
        let wanted = match verify.criteria.is_empty() {
            true => "the status is 2xx".to_owned(),
            false => criteria(&verify.criteria, " and "),
        };
        format!("a GET of {place} then shows that {wanted}")
    });
    all.push(match (&rule.success, asked) {
        (Some(success), Some(asked)) => format!("  It succeeded if {}, and {asked}.", criteria(success, " and ")),
        (Some(success), None) => format!("  It succeeded if {}.", criteria(success, " and ")),
        (None, Some(asked)) => format!("  It succeeded if {asked}."),
        (None, None) => "  It never succeeds.".to_owned(),
    });
    let mut user = format!("  The user is {}", rule.user.iter().map(source).collect::<Vec<_>>().join(", else "));
    if let Some(regex) = &rule.user_match {
        user.push_str(&format!("; of that, what the group in {} matches", regex.as_str()));
    }
    all.push(user + ".");
    if rule.user.iter().any(|source| matches!(source, UserSource::Form(_))) {
        let note = "  (That is what the user typed, not necessarily what the application calls them: think of letter \
                    case, aliases, e-mail addresses.)";
        all.push(note.to_owned());
    }
    all.extend(throttle(rule));
    all.push(match &rule.return_param {
        Some(parameter) => {
            format!("  Browsers are sent to {} to log in, with the way back in {parameter}.", rule.page.raw())
        }
        None => format!("  Browsers are sent to {} to log in.", rule.page.raw()),
    });
    all
}

fn throttle(rule: &LoginRule) -> Vec<String> {
    let within = |limit: Limit| format!("{} within {}", count(limit.count.into(), "failure"), time(limit.window));
    let mut all = Vec::new();
    match rule.throttle.per_account {
        Some(_) if !rule.knows_account() => {
            all.push("  Failures are counted by address only: no request says whose login it is.".to_owned());
        }
        Some(limit) => {
            all.push(format!(
                "  After {} of an account from one address the next try waits a second, then twice as long each time, \
                 at most {}.",
                within(limit),
                time(LONGEST_WAIT)
            ));
            all.push(format!(
                "  After {CEILING} failures within a day of an account from anywhere, each address has one try, then \
                 waits a minute and more."
            ));
        }
        None => {}
    }
    if let Some(limit) = rule.throttle.per_address {
        all.push(format!("  After {} from one address its next try waits until there are fewer.", within(limit)));
    }
    all
}

/// The rule, a sentence a line.
pub(super) fn logout(rule: &LogoutRule, login_page: &str) -> Vec<String> {
    let methods = match rule.methods.is_empty() {
        true => String::new(),
        false => format!("{} ", any(rule.methods.iter().map(http::Method::as_str))),
    };
    let (path, form) = (path(&rule.path), form(rule.form.as_ref()));
    let mut all = vec![format!("Logout: {methods}{path}{form} ends the session, then the application is told.")];
    if !rule.clear_site_data.is_empty() {
        all.push(format!("  The browser is asked to clear {}.", rule.clear_site_data.join(", ")));
    }
    let landing = rule.landing.as_deref().unwrap_or(login_page);
    all.push(format!("  If the application gives no answer, browsers go to {landing}."));
    if let Some(name) = &rule.end_header {
        let name = name.as_str();
        all.push(format!(
            "  The application ends the session, or all of the user's, with the header {name} on any answer."
        ));
    }
    all
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
        UserSource::ResponseHeader(name) => format!("the response header {}", title(name)),
        UserSource::ResponseJson(pointer) => format!("{pointer} in the response's JSON"),
        UserSource::SetCookie(glob) => format!("the value of the cookie {} that is set", glob.as_str()),
        UserSource::VerifyHeader(name) => format!("the header {} of the verifying answer", title(name)),
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
            Some(value) => format!("the header {} is {}", title(name), value.as_str()),
            None => format!("there is a header {}", title(name)),
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
