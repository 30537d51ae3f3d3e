//! `[site.logout]`, and what it shares with `[site.login]`.

use http::Method;

use crate::config::section::Section;
use crate::config::value;
use crate::config::value::Wrong;
use crate::config::value::wrong;
use crate::policy::login::FieldCondition;
use crate::policy::login::PathRule;
use crate::policy::logout::LogoutRule;

/// One logout rule; `None` when it has no usable path.
pub(super) fn read_logout(section: &Section<'_>) -> Option<LogoutRule> {
    let path = read_path(section, "\"/logout\"");
    let methods = read_methods(section, "methods");
    let form = read_form(&section.section("form", "site.logout.form"));
    let landing = section.parsed("landing", value::landing).and_then(|mut all| all.pop());
    let directives = section.parsed("clear_site_data", directive);
    Some(LogoutRule {
        path: path?.0,
        methods: methods.unwrap_or_default(),
        form,
        landing: landing.map(|(landing, _)| landing),
        clear_site_data: directives
            .map_or_else(|| vec!["storage".to_owned()], |all| all.into_iter().map(|(text, _)| text).collect()),
        end_header: None,
    })
}

fn directive(text: &str) -> Result<String, Wrong> {
    match text {
        "cache" | "cookies" | "storage" | "executionContexts" | "clientHints" | "*" => Ok(text.to_owned()),
        other => wrong(
            format!("{other:?} is nothing that browsers can clear"),
            "\"storage\", \"cache\", \"cookies\", \"executionContexts\", \"clientHints\" or \"*\"",
        ),
    }
}

/// The required `path` with its text.
pub(super) fn read_path<'a>(section: &Section<'a>, example: &str) -> Option<(PathRule, &'a str)> {
    if !section.has("path") {
        section.missing("path", example);
    }
    let found = section.text("path")?;
    let is_clean = found.text.bytes().all(|byte| byte > b' ' && byte != 0x7f && byte != b'#');
    if !found.text.starts_with(['/', '*']) || !is_clean {
        let message = format!("{:?} is no path", found.text);
        section.reader.report(found.span, message, format!("a path begins with \"/\": {example}"));
        return None;
    }
    Some((PathRule::parse(found.text), found.text))
}

/// Methods, in upper case.
pub(super) fn read_methods(section: &Section<'_>, key: &str) -> Option<Vec<Method>> {
    let read = |text: &str| match Method::from_bytes(text.as_bytes()) {
        Ok(method) if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(method),
        Ok(_) | Err(_) => wrong(format!("{text:?} is no HTTP method"), "write for example \"POST\""),
    };
    Some(section.parsed(key, read)?.into_iter().map(|(method, _)| method).collect())
}

/// `form = { name, value }`.
pub(super) fn read_form(section: &Section<'_>) -> Option<FieldCondition> {
    if !section.is_present() {
        return None;
    }
    if !section.has("name") {
        section.missing("name", "\"action\"");
    }
    let name = section.text("name")?.text.to_owned();
    Some(FieldCondition { name, value: section.text("value").map(|value| value.text.to_owned()) })
}
