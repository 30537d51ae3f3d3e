//! Which requests end a session (product 3.6).

use std::sync::Arc;

use http::HeaderMap;
use http::Method;
use http::header::HeaderName;

use crate::policy::login::FieldCondition;
use crate::policy::login::PathRule;
use crate::policy::login::body::Body;
use crate::policy::login::fields::Fields;
use crate::policy::login::fields::Place;
use crate::policy::path::Target;

/// One `[[site.logout]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogoutRule {
    /// Path and required parameters.
    pub path: PathRule,
    /// Any when empty.
    pub methods: Vec<Method>,
    /// A form field that must be there.
    pub form: Option<FieldCondition>,
    /// Where to send the browser when the app gives no answer; the login page when `None`.
    pub landing: Option<String>,
    /// Directives of `Clear-Site-Data`, e.g. `storage`.
    pub clear_site_data: Vec<String>,
    /// Response header by which the app ends a session.
    pub end_header: Option<HeaderName>,
}

/// What the application wants to end, by the header that [`LogoutRule::end_header`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// The session of this request.
    Session,
    /// All of its user's on this site.
    User,
}

/// What an answer says: the first rule whose header is there counts. `None` when nothing is, and for a
/// value that means nothing.
pub fn told<'a>(rules: &'a [Arc<LogoutRule>], headers: &HeaderMap) -> Option<(&'a Arc<LogoutRule>, Option<Told>)> {
    rules.iter().find_map(|rule| {
        let value = headers.get(rule.end_header.as_ref()?)?.as_bytes().trim_ascii();
        let told = match value.to_ascii_lowercase().as_slice() {
            b"session" => Some(Told::Session),
            b"user" => Some(Told::User),
            _ => None,
        };
        Some((rule, told))
    })
}

/// What is known of a request before its body was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogoutMatch {
    /// No rule can match.
    No,
    /// A rule matches.
    Yes(Arc<LogoutRule>),
    /// Depends on a form field: read the body, then ask [`by_form`].
    NeedsBody,
}

/// Judges method and target: the first rule that matches decides.
pub fn by_head(rules: &[Arc<LogoutRule>], method: &Method, target: &Target) -> LogoutMatch {
    let mut matching = rules.iter().filter(|rule| rule.matches_head(method, target));
    match matching.next() {
        Some(rule) if rule.is_met(&Fields::of(target, &Body::Empty)) => LogoutMatch::Yes(Arc::clone(rule)),
        Some(_) => LogoutMatch::NeedsBody,
        None => LogoutMatch::No,
    }
}

/// Judges with the body: the first rule whose conditions all hold. A body that cannot be decoded
/// matches no `form` rule.
pub fn by_form(
    rules: &[Arc<LogoutRule>],
    method: &Method,
    target: &Target,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<Arc<LogoutRule>> {
    let body = Body::read(headers, body).unwrap_or(Body::Empty);
    let fields = Fields::of(target, &body);
    let mut matching = rules.iter().filter(|rule| rule.matches_head(method, target));
    matching.find(|rule| rule.is_met(&fields)).cloned()
}

/// In doubt it is a logout: nothing is lost but the session.
const ANYWHERE: &[Place] = &[Place::Query, Place::Form, Place::Json];

impl LogoutRule {
    fn is_met(&self, fields: &Fields<'_>) -> bool {
        self.form.as_ref().is_none_or(|condition| fields.may_meet(ANYWHERE, condition))
    }

    fn matches_head(&self, method: &Method, target: &Target) -> bool {
        (self.methods.is_empty() || self.methods.contains(method)) && self.path.matches_also_with_slash(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path::PathCase;

    fn rule(path: &str, methods: &[Method], form: Option<(&str, &str)>) -> Arc<LogoutRule> {
        let form = form.map(|(name, value)| FieldCondition { name: name.into(), value: Some(value.into()) });
        Arc::new(LogoutRule {
            path: PathRule::parse(path),
            methods: methods.to_vec(),
            form,
            landing: None,
            clear_site_data: Vec::new(),
            end_header: None,
        })
    }

    #[test]
    fn an_answer_ends_what_its_header_says() {
        let rule = |name: Option<&'static str>| {
            let end_header = name.map(HeaderName::from_static);
            Arc::new(LogoutRule { end_header, ..(*rule("/logout", &[], None)).clone() })
        };
        let rules = [rule(None), rule(Some("x-end")), rule(Some("x-other"))];
        for (name, value, expected) in [
            ("x-end", "session", Some(Some(Told::Session))),
            ("x-end", " User ", Some(Some(Told::User))),
            ("x-other", "user", Some(Some(Told::User))),
            ("x-end", "everybody", Some(None)),
            ("x-end", "", Some(None)),
            ("x-unknown", "user", None),
        ] {
            let headers = [(HeaderName::from_static(name), value.parse().unwrap())].into_iter().collect();
            assert_eq!(told(&rules, &headers).map(|(_, told)| told), expected, "{name}: {value}");
        }
        assert!(told(&[rule(None)], &HeaderMap::new()).is_none());
    }

    fn head(rules: &[Arc<LogoutRule>], method: &Method, raw: &str) -> &'static str {
        match by_head(rules, method, &Target::parse(raw, PathCase::Exact)) {
            LogoutMatch::No => "no",
            LogoutMatch::Yes(_) => "yes",
            LogoutMatch::NeedsBody => "body",
        }
    }

    #[test]
    fn logouts_are_found_in_every_spelling_of_their_path() {
        // S43
        let rules = [rule("/logout", &[], None), rule("/doku.php?do=logout", &[Method::GET], None)];
        for (method, raw, expected) in [
            (Method::GET, "/logout", "yes"),
            (Method::POST, "/%6cogout", "yes"),
            (Method::GET, "//logout", "yes"),
            (Method::GET, "/a/../logout", "yes"),
            (Method::GET, "/logout;x", "yes"),
            (Method::GET, "/logout?next=/", "yes"),
            (Method::GET, "/logout/", "yes"),
            (Method::GET, "/logout/x", "no"),
            (Method::GET, "/log%256fut/", "no"),
            (Method::GET, "/doku.php?id=x&do=logout", "yes"),
            (Method::POST, "/doku.php?do=logout", "no"),
        ] {
            assert_eq!(head(&rules, &method, raw), expected, "{method} {raw}");
        }
    }

    #[test]
    fn a_field_can_tell_a_logout_from_a_login() {
        let rules = [rule("/session", &[Method::POST], Some(("action", "logout")))];
        assert_eq!(head(&rules, &Method::POST, "/session"), "body");
        assert_eq!(head(&rules, &Method::POST, "/session?action=logout"), "yes");
        let mut headers = HeaderMap::new();
        headers.insert("content-type", http::HeaderValue::from_static("application/x-www-form-urlencoded"));
        let target = Target::parse("/session", PathCase::Exact);
        let by = |body: &[u8]| by_form(&rules, &Method::POST, &target, &headers, body).is_some();
        assert!(by(b"action=logout"));
        assert!(!by(b"action=login"));
        assert!(!by(b"action=%ff"));
    }
}
