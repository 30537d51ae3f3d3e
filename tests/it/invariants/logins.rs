//! Logins (product 3.5): where we see an attempt, every application that sees one at all sees the
//! same user, and the same reason to take it for a login.

use std::sync::OnceLock;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::header;
use vestibule::clock::Timestamp;
use vestibule::policy::login;
use vestibule::policy::login::Answer;
use vestibule::policy::login::Attempt;
use vestibule::policy::login::LoginRequest;
use vestibule::policy::path::PathCase;
use vestibule::policy::path::Target;
use vestibule::policy::session::UserName;
use vestibule::policy::site::Site;

use super::readers;
use super::readers::Sent;

/// How the applications behind a rule find what the rule is about.
enum Told {
    Form(&'static [&'static str]),
    Query(&'static str),
    Json(&'static str),
    /// A field that says that it is a login, not who logs in.
    FormSays(&'static str, &'static str),
    QuerySays(&'static str, &'static str),
}

fn sites() -> &'static [(Site, Told)] {
    static SITES: OnceLock<Vec<(Site, Told)>> = OnceLock::new();
    SITES.get_or_init(|| {
        [
            ("user = 'form:user'", Told::Form(&["user"])),
            ("user = 'form:user_name'", Told::Form(&["user_name"])),
            ("user = 'form:user[login]'", Told::Form(&["user[login]"])),
            ("user = ['form:user_name', 'form:user']", Told::Form(&["user_name", "user"])),
            ("user = 'query:user'", Told::Query("user")),
            ("user = 'json:/user'", Told::Json("user")),
            ("user = 'fixed:x'\nform = { name = 'do', value = 'login' }", Told::FormSays("do", "login")),
            ("path = '/login?do=login'\nuser = 'fixed:x'", Told::QuerySays("do", "login")),
        ]
        .into_iter()
        .map(|(rule, told)| {
            let path = if rule.contains("path =") { "" } else { "path = '/login'" };
            (super::site(&format!("[site.login]\n{path}\n{rule}\nsuccess = {{ status = 302 }}")), told)
        })
        .collect()
    })
}

/// A content type in the first line, a query in the second, then the body.
pub fn check(data: &[u8]) {
    let (content_type, rest) = super::split_line(data);
    let (query, body) = super::split_line(rest);
    let Ok(query) = std::str::from_utf8(query) else { return };
    // What else is no request target is refused before (S91).
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return;
    }
    let Ok(value) = HeaderValue::from_bytes(content_type) else { return };
    let Ok(content_type) = value.to_str() else { return };
    let sent = Sent { content_type, query, body };
    for (site, told) in sites() {
        judge(site, told, sent, &value);
    }
}

fn judge(site: &Site, told: &Told, sent: Sent<'_>, content_type: &HeaderValue) {
    let target = Target::parse(&format!("/login?{}", sent.query), PathCase::Exact);
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, content_type.clone())]);
    let request = LoginRequest { method: &Method::POST, target: &target, headers: &headers, body: Some(sent.body) };
    let Ok(Some(attempt)) = login::attempt(&site.login, request) else { return };
    match told {
        Told::Form(fields) => {
            let Some(user) = name_of(&attempt, site, &target) else { return };
            let readings = fields.iter().map(|field| readers::form(sent, field)).reduce(or_else).unwrap_or_default();
            all_see_user(&user, readings);
        }
        Told::Query(field) => {
            let Some(user) = name_of(&attempt, site, &target) else { return };
            all_see_user(&user, readers::query(sent, field));
        }
        Told::Json(name) => {
            let Some(user) = name_of(&attempt, site, &target) else { return };
            all_see_user(&user, readers::json(sent.body, name));
        }
        Told::FormSays(field, value) => all_see(value, readers::form(sent, field)),
        Told::QuerySays(field, value) => all_see(value, readers::query(sent, field)),
    }
}

fn name_of(attempt: &Attempt<'_>, site: &Site, target: &Target) -> Option<UserName> {
    let answer = Answer {
        status: StatusCode::FOUND,
        headers: &HeaderMap::new(),
        body: None,
        body_complete: false,
        target,
        origin: &site.origin,
        now: Timestamp::default(),
    };
    login::user(attempt, answer, None).ok()
}

type Reading = (&'static str, Option<String>);

/// Applications that take the second field where the first is missing or empty.
fn or_else(first: Vec<Reading>, second: Vec<Reading>) -> Vec<Reading> {
    let either = |((family, one), (_, other)): (Reading, Reading)| {
        (family, one.filter(|text| !text.trim().is_empty()).or(other))
    };
    first.into_iter().zip(second).map(either).collect()
}

fn all_see_user(user: &UserName, readings: Vec<Reading>) {
    for (family, found) in readings {
        let Some(found) = found else { continue };
        assert_eq!(UserName::parse(&found).as_ref(), Ok(user), "{family}");
    }
}

fn all_see(value: &str, readings: Vec<Reading>) {
    for (family, found) in readings {
        assert!(found.is_none_or(|found| found == value), "{family}");
    }
}
