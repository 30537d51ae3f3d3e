//! `[site.headers]` and `[site.identity]`.

use std::time::Duration;

use http::HeaderName;
use http::HeaderValue;
use toml::Spanned;
use toml::de::DeValue;

use crate::config::keys;
use crate::config::section::Section;
use crate::config::value;
use crate::config::value::Wrong;
use crate::config::value::wrong;
use crate::policy::assertion;
use crate::policy::assertion::AssertionRules;
use crate::policy::headers::IdentityHeaders;
use crate::policy::headers::SecurityHeaders;
use crate::policy::site::HeaderField;

const TWO_YEARS: u64 = 2 * 365 * 24 * 60 * 60;
const ONE_YEAR: u64 = TWO_YEARS / 2;
/// Names the user unless it is said.
const USER_HEADER: HeaderName = HeaderName::from_static("x-forwarded-user");

/// `[site.headers]`
pub(super) fn read_headers(section: &Section<'_>, is_local: bool) -> SecurityHeaders {
    let hsts = read_hsts(section).and_then(|text| HeaderValue::try_from(text).ok());
    let remove = section.parsed("remove", response_header).unwrap_or_default();
    SecurityHeaders {
        hsts: hsts.filter(|_| !is_local),
        frame_ancestors: read_frame_ancestors(section).and_then(|text| HeaderValue::try_from(text).ok()),
        add: read_added(section),
        remove: remove.into_iter().map(|(name, _)| name).collect(),
    }
}

fn read_hsts(section: &Section<'_>) -> Option<String> {
    if section.is_off("hsts") {
        return None;
    }
    let is_table = section.get("hsts").is_some_and(|value| value.get_ref().is_table());
    if !is_table {
        let age = section.duration("hsts", Duration::from_secs(TWO_YEARS), false);
        return Some(format!("max-age={}", age.as_secs()));
    }
    let table = section.section("hsts", "site.headers.hsts");
    let age = table.duration("max_age", Duration::from_secs(TWO_YEARS), true).as_secs();
    let subdomains = table.flag("include_subdomains", false);
    let preload = table.flag("preload", false);
    if preload && (!subdomains || age < ONE_YEAR) {
        let help = "preload lists ask for include_subdomains = true and max_age of at least \"1y\"";
        table.problem("preload", "site.headers.hsts.preload lacks what it needs", help);
    }
    let subdomains = if subdomains { "; includeSubDomains" } else { "" };
    let preload = if preload { "; preload" } else { "" };
    Some(format!("max-age={age}{subdomains}{preload}"))
}

fn read_frame_ancestors(section: &Section<'_>) -> Option<String> {
    if section.is_off("frame_ancestors") {
        return None;
    }
    let texts = section.texts("frame_ancestors");
    if texts.as_ref().is_some_and(|texts| matches!(texts.as_slice(), [only] if only.text == "none")) {
        return Some("frame-ancestors 'none'".to_owned());
    }
    let Some(sources) = section.parsed("frame_ancestors", value::ancestor) else {
        return Some("frame-ancestors 'self'".to_owned());
    };
    if section.items("frame_ancestors").is_some_and(|items| items.is_empty()) {
        section.problem("frame_ancestors", "site.headers.frame_ancestors is empty", "write \"none\" or \"off\"");
    }
    let sources: Vec<String> = sources.into_iter().map(|(source, _)| source).collect();
    Some(format!("frame-ancestors {}", sources.join(" ")))
}

fn read_added(section: &Section<'_>) -> Vec<HeaderField> {
    let Some(value) = section.get("add") else { return Vec::new() };
    let Some(table) = value.get_ref().as_table() else {
        section.problem("add", "site.headers.add must be a table", "write add = { \"X-Frame-Options\" = \"DENY\" }");
        return Vec::new();
    };
    let mut fields = Vec::new();
    for (name, value) in table {
        match (response_header(name.get_ref()), header_value(value)) {
            (Ok(name), Ok(value)) => fields.push((name, value)),
            (name_result, value_result) => {
                if let Err((message, help)) = name_result {
                    section.reader.report(name.span(), format!("site.headers.add: {message}"), help);
                }
                if let Err((message, help)) = value_result {
                    section.reader.report(value.span(), format!("site.headers.add: {message}"), help);
                }
            }
        }
    }
    fields
}

fn header_value(value: &Spanned<DeValue<'_>>) -> Result<HeaderValue, Wrong> {
    let help = "write visible ASCII text in quotes";
    let Some(text) = value.get_ref().as_str() else { return wrong("a header's value must be text", help) };
    let is_plain = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    match HeaderValue::try_from(text) {
        Ok(value) if is_plain && text.trim() == text => Ok(value),
        Ok(_) | Err(_) => wrong("this cannot be a header's value", help),
    }
}

/// A response header that may be added or removed.
fn response_header(text: &str) -> Result<HeaderName, Wrong> {
    let name = value::header_name(text)?;
    let is_ours = matches!(
        name.as_str(),
        "set-cookie" | "connection" | "content-length" | "transfer-encoding" | "upgrade" | "trailer" | "te" | "date"
    );
    if is_ours { wrong(format!("{text:?} cannot be added or removed"), "remove it from the list") } else { Ok(name) }
}

/// `[site.identity]`
pub(super) fn read_identity(section: &Section<'_>, client_ca: bool) -> IdentityHeaders {
    if section.has("client_certificate") && !client_ca {
        let help = "write client_ca in [tls]: whose certificates are taken";
        section.problem("client_certificate", "site.identity.client_certificate needs tls.client_ca", help);
    }
    let mut taken = if section.has("user_header") { Vec::new() } else { vec![USER_HEADER] };
    let mut read = |key| read_name(section, key, &mut taken);
    let user = read("user_header");
    let (session_ref, auth_time) = (read("session_ref"), read("auth_time"));
    let client_certificate = read("client_certificate");
    IdentityHeaders {
        user: user.unwrap_or(USER_HEADER),
        session_ref,
        auth_time,
        client_certificate,
        assertion: read_assertion(&section.section("assertion", "site.identity.assertion"), &mut taken),
    }
}

/// A header that tells the application something, and nothing that is `taken`.
fn read_name(section: &Section<'_>, key: &str, taken: &mut Vec<HeaderName>) -> Option<HeaderName> {
    let found = section.text(key)?;
    let name = match identity_header(found.text, section.name(), key) {
        Ok(name) => name,
        Err((message, help)) => {
            section.reader.report(found.span, format!("{}: {message}", section.full(key)), help);
            return None;
        }
    };
    // An application reads `X-User` and `X_User` as one (S65).
    let folded = |name: &HeaderName| name.as_str().replace('_', "-");
    if taken.iter().any(|other| folded(other) == folded(&name)) {
        let message = format!("{}: {:?} already tells something else", section.full(key), found.text);
        section.problem(key, message, "write another name");
    }
    taken.push(name.clone());
    Some(name)
}

fn read_assertion(section: &Section<'_>, taken: &mut Vec<HeaderName>) -> Option<AssertionRules> {
    if !section.is_present() {
        return None;
    }
    section.require("header");
    let lifetime = section.duration("lifetime", assertion::LONGEST, false);
    if lifetime > assertion::LONGEST || lifetime < Duration::from_secs(1) {
        let help = "nothing calls an assertion back: write \"60s\" or less, and at least \"1s\"";
        section.problem("lifetime", "site.identity.assertion.lifetime must be from 1s to 60s", help);
    }
    let keys = section.text("keys").map(|found| {
        if found.text.is_empty() {
            let help = "write the path of a directory, or nothing";
            section.problem("keys", "site.identity.assertion.keys is empty", help);
        }
        section.reader.resolve(found.text)
    });
    Some(AssertionRules { header: read_name(section, "header", taken)?, lifetime, keys })
}

/// A request header that means nothing else to HTTP or to us.
fn identity_header(text: &str, table: &str, key: &str) -> Result<HeaderName, Wrong> {
    let name = value::header_name(text)?;
    let word = name.as_str().replace('_', "-");
    let word = word.as_str();
    let means_something = matches!(
        word,
        "host"
            | "cookie"
            | "set-cookie"
            | "connection"
            | "keep-alive"
            | "authorization"
            | "proxy-authorization"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "expect"
            | "origin"
            | "referer"
            | "range"
            | "via"
            | "forwarded"
            | "date"
            | "user-agent"
            | "x-forwarded-for"
            | "x-forwarded-host"
            | "x-forwarded-proto"
            | "x-forwarded-port"
            | "x-real-ip"
            | "proxy-connection"
            | "http2-settings"
            | "location"
    );
    let families = ["content-", "accept", "if-", "sec-", "access-control-", "secure-session-", "proxy-"];
    if means_something || families.iter().any(|family| word.starts_with(family)) {
        let example = keys::find(table, key).map_or("", keys::example);
        return wrong(format!("{text:?} already means something else"), format!("write a name such as {example}"));
    }
    Ok(name)
}
