//! `[site.login]`: what an attempt looks like, and what its answer means.

use http::HeaderName;
use http::Method;
use http::StatusCode;
use toml::Spanned;
use toml::de::DeValue;

use crate::config::keys;
use crate::config::logout::read_form;
use crate::config::logout::read_methods;
use crate::config::logout::read_path;
use crate::config::section::Section;
use crate::config::value;
use crate::config::value::Wrong;
use crate::config::value::wrong;
use crate::policy::glob::Glob;
use crate::policy::login::Criteria;
use crate::policy::login::LocationRule;
use crate::policy::login::LoginRule;
use crate::policy::login::UserSource;
use crate::policy::login::VerifyRule;
use crate::policy::path::PathCase;
use crate::policy::path::Target;
use crate::policy::session::UserName;
use crate::policy::throttle::Limit;
use crate::policy::throttle::ThrottleRules;

const SOURCES: &str = "\"form:FIELD\", \"json:/POINTER\", \"query:FIELD\", \"basic\", \"response-header:NAME\", \
                       \"response-json:/POINTER\", \"set-cookie:NAME\", \"verify-header:NAME\", \
                       \"verify-json:/POINTER\" or \"fixed:NAME\"";

const KINDS: [&str; 10] = [
    "form",
    "json",
    "query",
    "basic",
    "response-header",
    "response-json",
    "set-cookie",
    "verify-header",
    "verify-json",
    "fixed",
];

/// One login rule; `None` when it lacks something without which it means nothing.
pub(super) fn read_login(section: &Section<'_>) -> Option<LoginRule> {
    let path = read_path(section);
    let page = read_page(section, path.as_ref().map(|(_, text)| *text));
    let user = read_user(section);
    let user_match = read_user_match(section);
    let success = read_outcome(section, "success", "site.login.success");
    let failure = read_outcome(section, "failure", "site.login.failure");
    let verify = read_verify(&section.section("verify", "site.login.verify"));
    if !section.has("success") && !section.has("verify") {
        let help =
            "write what a successful login looks like: success = { status = [302, 303], location_not = \"/login*\" }";
        section.reader.report(section.span.clone(), "site.login has neither success nor verify", help);
    }
    let methods = read_methods(section, "method");
    if section.items("method").is_some_and(|items| items.is_empty()) {
        section.problem("method", "site.login.method is empty", "write for example \"POST\"");
    }
    let form = read_form(&section.section("form", "site.login.form"));
    let return_param = read_return_param(section);
    Some(LoginRule {
        path: path?.0,
        methods: methods.filter(|methods| !methods.is_empty()).unwrap_or_else(|| vec![Method::POST]),
        form,
        // How a site compares paths is asked of what is compared with it.
        page: Target::parse(&page?, PathCase::Exact),
        return_param,
        user,
        user_match,
        failure,
        success,
        verify,
        throttle: read_throttle(&section.section("throttle", "site.login.throttle")),
    })
}

fn read_throttle(section: &Section<'_>) -> ThrottleRules {
    let usual = ThrottleRules::default();
    ThrottleRules {
        per_account: read_limit(section, "per_account", usual.per_account),
        per_address: read_limit(section, "per_address", usual.per_address),
    }
}

fn read_limit(section: &Section<'_>, key: &str, usual: Option<Limit>) -> Option<Limit> {
    if section.is_off(key) {
        return None;
    }
    let Some(found) = section.text(key) else { return usual };
    match value::limit(found.text) {
        Ok(limit) => Some(limit),
        Err((message, help)) => {
            section.problem(key, format!("{} {message}", section.full(key)), help);
            usual
        }
    }
}

fn read_page(section: &Section<'_>, path: Option<&str>) -> Option<String> {
    if section.has("page") {
        return section.parsed("page", value::landing)?.pop().map(|(page, _)| page);
    }
    let path = path?;
    if path.contains('*') {
        let help = "the path has a \"*\", so a browser cannot be sent there: write page = \"/login\"";
        section.reader.report(section.span.clone(), "site.login.page is missing", help);
        return None;
    }
    match value::landing(&value::encoded(path)) {
        Ok(page) => Some(page),
        Err((message, help)) => {
            section.problem("path", format!("site.login.path: {message}"), help);
            None
        }
    }
}

fn read_return_param(section: &Section<'_>) -> Option<String> {
    let found = section.text("return_param")?;
    let is_plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '?' | '&' | '=' | '#' | '/');
    if found.text.is_empty() || !found.text.chars().all(is_plain) {
        let help = "write the name alone, as the application's own links have it: \"next\"";
        section.reader.report(found.span, format!("site.login.return_param: {:?} is no name", found.text), help);
        return None;
    }
    Some(found.text.to_owned())
}

fn read_user(section: &Section<'_>) -> Vec<UserSource> {
    section.require("user");
    let found = section.parsed("user", source).unwrap_or_default();
    if section.items("user").is_some_and(|items| items.is_empty()) {
        section.problem("user", "site.login.user is empty", format!("write one of {SOURCES}"));
    }
    for (source, span) in &found {
        let asks = matches!(source, UserSource::VerifyHeader(_) | UserSource::VerifyJson(_));
        if asks && !section.has("verify") {
            let message = "site.login.user takes the name from the verifying answer, but there is no verify";
            section.reader.report(span.clone(), message, "write verify = { path = \"/whoami\" }");
        }
    }
    found.into_iter().map(|(source, _)| source).collect()
}

fn source(text: &str) -> Result<UserSource, Wrong> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    if !KINDS.contains(&kind) || (rest.is_empty() && kind != "basic") {
        let help = match keys::nearest(KINDS.into_iter(), kind) {
            Some((near, _)) if !rest.is_empty() => format!("did you mean \"{near}:{rest}\"?"),
            None if rest.is_empty() && !text.contains(':') => {
                format!("for a field of the login form write \"form:{text}\", or one of {SOURCES}")
            }
            Some(_) | None => format!("write one of {SOURCES}"),
        };
        return wrong(format!("{text:?} does not say where the name comes from"), help);
    }
    let own = || rest.to_owned();
    match kind {
        "form" => Ok(UserSource::Form(own())),
        "json" => Ok(UserSource::Json(pointer(rest)?)),
        "query" => Ok(UserSource::Query(own())),
        "response-header" => Ok(UserSource::ResponseHeader(value::header_name(rest)?)),
        "response-json" => Ok(UserSource::ResponseJson(pointer(rest)?)),
        "set-cookie" => Ok(UserSource::SetCookie(Glob::new(rest))),
        "verify-header" => Ok(UserSource::VerifyHeader(value::header_name(rest)?)),
        "verify-json" => Ok(UserSource::VerifyJson(pointer(rest)?)),
        "fixed" => match UserName::parse(rest) {
            Ok(_) => Ok(UserSource::Fixed(own())),
            Err(error) => wrong(error.to_string(), "write a name such as \"fixed:admin\""),
        },
        _ if rest.is_empty() => Ok(UserSource::Basic),
        _ => wrong(format!("{text:?} has something behind \"basic\""), "write \"basic\""),
    }
}

fn pointer(text: &str) -> Result<String, Wrong> {
    if !text.starts_with('/') {
        let help = format!("a JSON pointer begins with \"/\": {:?}", format!("/{}", text.replace('.', "/")));
        return wrong(format!("{text:?} is no JSON pointer"), help);
    }
    // RFC 6901 3: a tilde only in these two.
    if text.replace("~0", "").replace("~1", "").contains('~') {
        let help = "in a JSON pointer \"~\" is written \"~0\", and \"/\" within a name \"~1\"";
        return wrong(format!("{text:?} is no JSON pointer"), help);
    }
    Ok(text.to_owned())
}

fn read_user_match(section: &Section<'_>) -> Option<regex::Regex> {
    let found = section.text("user_match")?;
    let help = "write a regular expression with one group, such as \"^([^@]+)@\"";
    match regex::Regex::new(found.text) {
        Ok(regex) if regex.captures_len() == 2 => Some(regex),
        Ok(regex) => {
            let message = format!("site.login.user_match has {} groups", regex.captures_len() - 1);
            section.reader.report(found.span, message, help);
            None
        }
        Err(error) => {
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            section.reader.report(found.span, format!("site.login.user_match is no regular expression: {last}"), help);
            None
        }
    }
}

fn read_outcome(section: &Section<'_>, key: &'static str, name: &'static str) -> Option<Criteria> {
    let table = section.section(key, name);
    if !table.is_present() {
        return None;
    }
    if table.entries().is_empty() {
        let help = "write for example { status = [302, 303], location_not = \"/login*\" }";
        section.problem(key, format!("{name} is empty"), help);
    }
    let (header, json) = match key {
        "success" => ("site.login.success.header", "site.login.success.json"),
        _ => ("site.login.failure.header", "site.login.failure.json"),
    };
    Some(read_criteria(&table, header, json))
}

fn read_verify(section: &Section<'_>) -> Option<VerifyRule> {
    if !section.is_present() {
        return None;
    }
    let path = section.parsed("path", value::landing).and_then(|mut all| all.pop()).map(|(path, _)| path);
    Some(VerifyRule { path, criteria: read_criteria(section, "site.login.verify.header", "site.login.verify.json") })
}

fn read_criteria(section: &Section<'_>, header: &'static str, json: &'static str) -> Criteria {
    let plain = |key: &str| -> Vec<String> {
        let read = |text: &str| match text {
            "" => wrong("an empty text", "write what is to be looked for"),
            text => Ok(text.to_owned()),
        };
        section.parsed(key, read).unwrap_or_default().into_iter().map(|(text, _)| text).collect()
    };
    let locations = |key: &str| -> Vec<LocationRule> {
        section.parsed(key, location).unwrap_or_default().into_iter().map(|(rule, _)| rule).collect()
    };
    for (key, value) in section.entries() {
        if value.get_ref().as_array().is_some_and(|list| list.is_empty()) {
            section.reader.report(
                value.span(),
                format!("{} is an empty list", section.full(key.text)),
                "write a value or remove it",
            );
        }
    }
    Criteria {
        status: section.items("status").unwrap_or_default().iter().filter_map(|item| status(section, item)).collect(),
        location: locations("location"),
        location_not: locations("location_not"),
        header: section.sections("header", header).iter().filter_map(read_header).collect(),
        set_cookie: plain("set_cookie").into_iter().map(Glob::new).collect(),
        body_contains: plain("body_contains"),
        body_omits: plain("body_omits"),
        json: section.sections("json", json).iter().filter_map(read_json).collect(),
    }
}

fn location(text: &str) -> Result<LocationRule, Wrong> {
    if ["/", "*", "http://", "https://"].iter().any(|start| text.starts_with(start)) {
        return Ok(LocationRule { glob: Glob::new(text) });
    }
    wrong(
        format!("{text:?} is no location"),
        "begin with \"/\" or \"*\", or write a full URL: \"/home\", \"/login*\", \"https://sso.example.com/*\"",
    )
}

fn status(section: &Section<'_>, item: &Spanned<DeValue<'_>>) -> Option<StatusCode> {
    let number = item.get_ref().as_integer().and_then(value::integer);
    let code = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|number| *number < 600)
        .and_then(|number| StatusCode::from_u16(number).ok());
    if code.is_none() {
        let help = "write numbers from 100 to 599, without quotes: 303, or [302, 303]";
        section.reader.report(item.span(), format!("{}: this is no status code", section.full("status")), help);
    }
    code
}

fn read_header(section: &Section<'_>) -> Option<(HeaderName, Option<Glob>)> {
    section.require("name");
    let (name, _) = section.parsed("name", value::header_name)?.pop()?;
    Some((name, section.text("value").map(|value| Glob::new(value.text))))
}

fn read_json(section: &Section<'_>) -> Option<(String, Option<serde_json::Value>)> {
    section.require("pointer");
    let (pointer, _) = section.parsed("pointer", pointer)?.pop()?;
    Some((pointer, section.get("value").map(|value| value::json(value.get_ref()))))
}
