//! What an answer must look like: the keys of `success`, `failure` and `verify`.

use http::HeaderName;
use http::StatusCode;
use http::header;

use crate::policy::cookie::SetCookie;
use crate::policy::glob::Glob;
use crate::policy::login::Answer;
use crate::policy::login::Criterion;
use crate::policy::path::Target;

/// A glob over a resolved `Location`: a path glob (same origin only), or with a full URL in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationRule {
    /// Over path (and query, when it contains `?`) of a same-origin location; over the whole URL
    /// when it begins with `http://` or `https://`.
    pub glob: Glob,
}

impl LocationRule {
    /// Whether it is about whole URLs.
    pub fn is_url(&self) -> bool {
        self.glob.as_str().starts_with("http://") || self.glob.as_str().starts_with("https://")
    }

    fn matches(&self, location: &Location) -> bool {
        if self.is_url() {
            return self.glob.matches(&location.url);
        }
        if !location.same_origin {
            return false;
        }
        if self.glob.has_question() {
            return self.glob.matches(&format!("{}?{}", location.path, location.query.as_deref().unwrap_or("")));
        }
        self.glob.matches(&location.path)
    }
}

/// All given keys; a list within one key is "any of".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Criteria {
    /// Any of these.
    pub status: Vec<StatusCode>,
    /// Any of these globs matches the resolved `Location`.
    pub location: Vec<LocationRule>,
    /// None of these globs matches; there must be a `Location`, and a same-origin one unless a full
    /// URL is written here.
    pub location_not: Vec<LocationRule>,
    /// Header present, with this value (glob) if one is given: each of them.
    pub header: Vec<(HeaderName, Option<Glob>)>,
    /// Cookie names (globs) that must be set, not deleted: each of them.
    pub set_cookie: Vec<Glob>,
    /// Any of these texts is in the first 64 KiB.
    pub body_contains: Vec<String>,
    /// None of these texts is in the whole body.
    pub body_omits: Vec<String>,
    /// JSON pointer and value, each of them; without a value it only has to be there and be neither
    /// null nor false.
    pub json: Vec<(String, Option<serde_json::Value>)>,
}

impl Criteria {
    /// Whether the body has to be looked at.
    pub fn needs_body(&self) -> bool {
        !self.body_contains.is_empty() || !self.body_omits.is_empty() || !self.json.is_empty()
    }

    /// Whether no key is given.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A resolved `Location`.
pub(super) struct Location {
    url: String,
    path: String,
    raw: String,
    query: Option<String>,
    pub(super) same_origin: bool,
}

impl Location {
    /// Path and query, as a request would be sent for it.
    pub(super) fn target(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.raw),
            None => self.raw.clone(),
        }
    }
}

/// The `Location` of an answer, resolved against the request as browsers do (RFC 9110 10.2.2).
pub(super) fn location(answer: Answer<'_>) -> Option<Location> {
    let mut lines = answer.headers.get_all(header::LOCATION).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else { return None };
    let text = std::str::from_utf8(line.as_bytes()).ok()?;
    let base = url::Url::parse(&format!("{}{}", answer.origin.to_text(), answer.target.raw())).ok()?;
    let mut url = base.join(text).ok()?;
    url.set_fragment(None);
    // Many applications behind a TLS proxy still write http: to the browser it is the same place,
    // since it is rewritten on the way.
    let is_web = matches!(url.scheme(), "http" | "https");
    let port = url.port().unwrap_or(443);
    let same_origin = is_web && url.host_str() == Some(answer.origin.host.as_str()) && port == answer.origin.port;
    let path = Target::parse(url.path(), answer.target.case()).path().to_owned();
    Some(Location {
        path,
        raw: url.path().to_owned(),
        query: url.query().map(str::to_owned),
        same_origin,
        url: url.into(),
    })
}

/// Whether every given key matches; each is noted.
pub(super) fn all(criteria: &Criteria, table: &str, answer: Answer<'_>, noted: &mut Vec<Criterion>) -> bool {
    evaluate(criteria, table, answer, noted).iter().all(|matched| *matched)
}

/// Whether some given key matches; each is noted.
pub(super) fn any(criteria: &Criteria, table: &str, answer: Answer<'_>, noted: &mut Vec<Criterion>) -> bool {
    evaluate(criteria, table, answer, noted).iter().any(|matched| *matched)
}

fn evaluate(criteria: &Criteria, table: &str, answer: Answer<'_>, noted: &mut Vec<Criterion>) -> Vec<bool> {
    let mut verdicts = Vec::new();
    let mut note = |given: bool, key: &str, verdict: &dyn Fn() -> (bool, String)| {
        if given {
            let (matched, found) = verdict();
            verdicts.push(matched);
            noted.push(Criterion { name: format!("{table}.{key}"), matched, found });
        }
    };
    let status = || (criteria.status.contains(&answer.status), answer.status.as_str().to_owned());
    note(!criteria.status.is_empty(), "status", &status);
    note(!criteria.location.is_empty(), "location", &|| {
        judge_location(answer, |location| criteria.location.iter().any(|rule| rule.matches(location)))
    });
    note(!criteria.location_not.is_empty(), "location_not", &|| {
        judge_location(answer, |location| {
            let elsewhere_is_named = criteria.location_not.iter().any(LocationRule::is_url);
            (location.same_origin || elsewhere_is_named)
                && !criteria.location_not.iter().any(|rule| rule.matches(location))
        })
    });
    note(!criteria.header.is_empty(), "header", &|| judge_headers(&criteria.header, answer));
    note(!criteria.set_cookie.is_empty(), "set_cookie", &|| judge_cookies(&criteria.set_cookie, answer));
    note(!criteria.body_contains.is_empty(), "body_contains", &|| {
        judge_body(answer, |body| criteria.body_contains.iter().any(|text| contains(body, text)))
    });
    note(!criteria.body_omits.is_empty(), "body_omits", &|| {
        judge_body(answer, |body| answer.is_whole() && !criteria.body_omits.iter().any(|text| contains(body, text)))
    });
    note(!criteria.json.is_empty(), "json", &|| judge_json(&criteria.json, answer));
    verdicts
}

fn judge_location(answer: Answer<'_>, matches: impl Fn(&Location) -> bool) -> (bool, String) {
    match location(answer) {
        // Queries can carry tokens: they are not written down.
        Some(location) if location.same_origin => (matches(&location), location.path.clone()),
        Some(location) => (matches(&location), format!("another origin, path {}", location.path)),
        None => (false, "no location".to_owned()),
    }
}

fn judge_headers(wanted: &[(HeaderName, Option<Glob>)], answer: Answer<'_>) -> (bool, String) {
    let has = |(name, value): &(HeaderName, Option<Glob>)| {
        answer.headers.get_all(name).iter().any(|sent| {
            value.as_ref().is_none_or(|glob| std::str::from_utf8(sent.as_bytes()).is_ok_and(|text| glob.matches(text)))
        })
    };
    let missing: Vec<_> = wanted.iter().filter(|wanted| !has(wanted)).map(|(name, _)| name.as_str()).collect();
    if missing.is_empty() { (true, "present".to_owned()) } else { (false, format!("not {}", missing.join(" "))) }
}

fn judge_cookies(wanted: &[Glob], answer: Answer<'_>) -> (bool, String) {
    let lines = answer.headers.get_all(header::SET_COOKIE).iter();
    let set: Vec<String> = lines
        .filter_map(|line| SetCookie::parse(line, answer.now))
        .filter(|cookie| !cookie.is_deletion(answer.now) && !cookie.value.is_empty())
        .map(|cookie| String::from_utf8_lossy(&cookie.name).into_owned())
        .collect();
    let matched = wanted.iter().all(|glob| set.iter().any(|name| glob.matches(name)));
    (matched, if set.is_empty() { "none set".to_owned() } else { set.join(" ") })
}

/// An encoded or empty body matches nothing.
fn judge_body(answer: Answer<'_>, matches: impl Fn(&[u8]) -> bool) -> (bool, String) {
    match answer.body {
        _ if answer.is_encoded() => (false, "encoded body".to_owned()),
        Some([]) => (false, "empty body".to_owned()),
        Some(body) if answer.is_whole() => (matches(body), format!("{} bytes", body.len())),
        Some(body) => (matches(body), "the first 64 KiB of a longer body".to_owned()),
        None => (false, "no body".to_owned()),
    }
}

fn contains(body: &[u8], text: &str) -> bool {
    !text.is_empty() && body.windows(text.len()).any(|window| window == text.as_bytes())
}

fn judge_json(wanted: &[(String, Option<serde_json::Value>)], answer: Answer<'_>) -> (bool, String) {
    judge_body(answer, |body| {
        let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
        wanted.iter().all(|(pointer, value)| match (document.pointer(pointer), value) {
            (Some(found), Some(value)) => found == value,
            (Some(found), None) => !found.is_null() && *found != serde_json::Value::Bool(false),
            (None, _) => false,
        })
    })
}
