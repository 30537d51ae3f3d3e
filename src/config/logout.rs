//! `[site.logout]`, and what it shares with `[site.login]`.

use http::Method;

use crate::config::section::Section;
use crate::config::value;
use crate::config::value::Wrong;
use crate::config::value::wrong;
use crate::policy::login::FieldCondition;
use crate::policy::login::PathRule;
use crate::policy::logout::LogoutRule;
use crate::policy::path::PathCase;
use crate::policy::path::Target;

/// One logout rule; `None` when it has no usable path.
pub(super) fn read_logout(section: &Section<'_>) -> Option<LogoutRule> {
    let path = read_path(section);
    let methods = read_methods(section, "methods");
    let form = read_form(&section.section("form", "site.logout.form"));
    let landing = section.parsed("landing", value::landing).and_then(|mut all| all.pop());
    let end_header = section.parsed("end_header", value::header_name).and_then(|mut all| all.pop());
    let directives = section.parsed("clear_site_data", directive);
    Some(LogoutRule {
        path: path?.0,
        methods: methods.unwrap_or_default(),
        form,
        landing: landing.map(|(landing, _)| landing),
        clear_site_data: directives
            .map_or_else(|| vec!["storage".to_owned()], |all| all.into_iter().map(|(text, _)| text).collect()),
        end_header: end_header.map(|(name, _)| name),
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
pub(super) fn read_path<'a>(section: &Section<'a>) -> Option<(PathRule, &'a str)> {
    section.require("path");
    if section.get("path").is_some_and(|value| value.get_ref().is_array()) {
        let message = format!("{} is one path", section.full("path"));
        section.problem("path", message, format!("write one [[{}]] table for each path", section.name()));
        return None;
    }
    let found = section.text("path")?;
    match path_rule(found.text) {
        Ok(rule) => Some((rule, found.text)),
        Err((message, help)) => {
            section.reader.report(found.span, format!("{}: {message}", section.full("path")), help);
            None
        }
    }
}

/// A path glob with parameters. It is compared with paths in their normalised form, so that in any
/// other form it would never match.
fn path_rule(text: &str) -> Result<PathRule, Wrong> {
    let is_clean = text.chars().all(|c| !c.is_control() && c != '#');
    if !text.starts_with(['/', '*']) || !is_clean {
        let help = match text.find("://").and_then(|at| text[at + 3..].find('/').map(|end| at + 3 + end)) {
            Some(at) => format!("without scheme and host: {:?}", &text[at..]),
            None => format!("a path begins with \"/\": {:?}", format!("/{}", text.trim_matches(['/', ' ']))),
        };
        return wrong(format!("{text:?} is no path"), help);
    }
    let (path, query) = text.split_at(text.find('?').unwrap_or(text.len()));
    let absolute = format!("/{}", path.trim_start_matches('/'));
    let normal = Target::parse(&absolute, PathCase::Exact).path().to_owned();
    if normal != absolute {
        let normal = if path.starts_with('/') { normal.as_str() } else { normal.trim_start_matches('/') };
        let message =
            format!("{text:?} never matches: paths are compared decoded and without \"..\", \"//\" and \";\"");
        return wrong(message, format!("write {:?}", format!("{normal}{query}")));
    }
    Ok(PathRule::parse(text))
}

/// Methods, in upper case.
pub(super) fn read_methods(section: &Section<'_>, key: &str) -> Option<Vec<Method>> {
    let read = |text: &str| match Method::from_bytes(text.as_bytes()) {
        Ok(method) if text.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(method),
        Ok(method) => {
            wrong(format!("{text:?} is no HTTP method"), format!("write {:?}", method.as_str().to_ascii_uppercase()))
        }
        Err(_) => wrong(format!("{text:?} is no HTTP method"), "write for example \"POST\""),
    };
    Some(section.parsed(key, read)?.into_iter().map(|(method, _)| method).collect())
}

/// `form = { name, value }`.
pub(super) fn read_form(section: &Section<'_>) -> Option<FieldCondition> {
    if !section.is_present() {
        return None;
    }
    section.require("name");
    let name = section.text("name")?.text.to_owned();
    Some(FieldCondition { name, value: section.text("value").map(|value| value.text.to_owned()) })
}
