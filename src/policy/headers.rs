//! Header fields: what is taken out of messages, what is added, and in which order (S64-S75, S86,
//! S110, S133, S145, S165).

mod forwarding;
mod lines;
mod names;
mod signs;

use std::borrow::Cow;

use http::HeaderMap;
use http::HeaderValue;
use http::header;
use http::header::HeaderName;

use crate::policy::assertion::AssertionRules;
use crate::policy::client::Client;
use crate::policy::relax::Relaxed;
use crate::policy::relax::Rule;
use crate::policy::site::HeaderField;

pub use self::forwarding::Forwarding;
pub use self::forwarding::PublicOrigin;
pub use self::forwarding::forward_request;
pub use self::lines::Lines;
pub use self::signs::Signs;

use self::names::folded;
use self::names::folds_to;
use self::names::is_end_to_end;
use self::names::is_hop_by_hop;
use self::names::is_kept_from_trusted;
use self::names::is_method_override;
use self::names::is_session_protocol;
use self::names::is_trust;
use self::signs::KEEP_ALIVE;

/// `[site.identity]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Header that names the user (default `X-Forwarded-User`).
    pub user: HeaderName,
    /// Header with the session ref.
    pub session_ref: Option<HeaderName>,
    /// Header with the authentication time, Unix seconds.
    pub auth_time: Option<HeaderName>,
    /// Header with the client's certificate, or the name in it.
    pub client_certificate: Option<HeaderName>,
    /// The signed statement about the user.
    pub assertion: Option<AssertionRules>,
}

impl IdentityHeaders {
    fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let assertion = self.assertion.as_ref().map(|rules| &rules.header);
        let optional =
            [self.session_ref.as_ref(), self.auth_time.as_ref(), self.client_certificate.as_ref(), assertion];
        std::iter::once(&self.user).chain(optional.into_iter().flatten())
    }

    fn is_one(&self, name: &str) -> bool {
        let is = |ours: &HeaderName| folds_to(name, ours.as_str());
        is(&self.user)
            || self.session_ref.as_ref().is_some_and(is)
            || self.auth_time.as_ref().is_some_and(is)
            || self.client_certificate.as_ref().is_some_and(is)
            || self.assertion.as_ref().is_some_and(|rules| is(&rules.header))
    }
}

/// `[site.headers]`, prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityHeaders {
    /// Value of `Strict-Transport-Security`, `None` when off or the origin is local.
    pub hsts: Option<HeaderValue>,
    /// Value of `Content-Security-Policy` added where the app set none: `frame-ancestors …`.
    pub frame_ancestors: Option<HeaderValue>,
    /// Added to responses that do not have them.
    pub add: Vec<HeaderField>,
    /// Removed from the application's responses, and not added by default.
    pub remove: Vec<HeaderName>,
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
/// Says by which scheme the client asked.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What becomes of a field of a request.
enum Fate {
    Stays,
    Goes,
    /// It goes by a rule that a site can be spared.
    GoesBy(Rule),
}

/// Takes out of a request: hop-by-hop fields and all that `Connection` nominates, every identity or
/// forwarding header in any spelling (case and `_`/`-` folded), every name with `_`,
/// `Secure-Session-*`, and an expectation, which we have met. Forwarding headers of a trusted proxy stay.
/// `Upgrade` is removed too; a permitted one is put back by the caller. `Cookie` crumbs are joined by the
/// caller. Returns what went by a rule that the site could be spared.
pub fn clean_request(
    headers: &mut HeaderMap,
    identity: &IdentityHeaders,
    client: Client,
    relaxed: &Relaxed,
) -> Vec<(Rule, HeaderName)> {
    // Whether it is there at all is seen faster like this.
    if headers.keys().any(|name| name == header::CONNECTION) {
        remove_nominated(headers);
    }
    let mut going = Vec::new();
    let mut by_rule = Vec::new();
    for name in headers.keys() {
        match fate(name.as_str(), headers, identity, client, relaxed) {
            Fate::Stays => {}
            Fate::Goes => going.push(name.clone()),
            Fate::GoesBy(rule) => by_rule.push((rule, name.clone())),
        }
    }
    for name in going.iter().chain(by_rule.iter().map(|(_, name)| name)) {
        headers.remove(name);
    }
    by_rule
}

fn fate(name: &str, headers: &HeaderMap, identity: &IdentityHeaders, client: Client, relaxed: &Relaxed) -> Fate {
    let plain = folded(name);
    let is_odd = matches!(plain, Cow::Owned(_));
    if is_hop_by_hop(&plain) || plain == "expect" || is_session_protocol(&plain) || identity.is_one(&plain) {
        return Fate::Goes;
    }
    if is_trust(&plain) && (is_odd || !client.via_trusted || !is_kept_from_trusted(&plain)) {
        return Fate::Goes;
    }
    // Names of applications' own with an underscore cannot be told from aliases (S65).
    if is_odd && !relaxed.has(Rule::HeaderName) {
        return Fate::GoesBy(Rule::HeaderName);
    }
    // However that is relaxed, none stands for a field that means something to us, or that is there too.
    let is_twin = |other: &HeaderName| other != name && folds_to(other.as_str(), &plain);
    if is_odd && (is_end_to_end(&plain) || headers.keys().any(is_twin)) {
        return Fate::Goes;
    }
    if is_method_override(&plain) && !relaxed.has(Rule::MethodOverride) {
        return Fate::GoesBy(Rule::MethodOverride);
    }
    Fate::Stays
}

/// Whether a trailer of this name could pass for what is cleaned out of a head.
pub(super) fn is_unfit_for_trailers(name: &str, identity: &IdentityHeaders) -> bool {
    name.contains('_')
        || is_hop_by_hop(name)
        || is_session_protocol(name)
        || is_trust(name)
        || is_method_override(name)
        || identity.is_one(name)
        || name.bytes().any(|byte| !byte.is_ascii_alphanumeric() && byte != b'-')
}

/// Whether whoever sent this reads trailers (RFC 9110 10.1.4): gRPC wants to know.
pub fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::TE).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|token| token.trim().eq_ignore_ascii_case("trailers"))
}

/// Takes out what asks for less than the whole answer: what is not there must not decide a login.
pub fn ask_for_all(headers: &mut HeaderMap) {
    let partial = [header::RANGE, header::IF_RANGE];
    let conditional = [header::IF_MATCH, header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE];
    for name in partial.into_iter().chain(conditional) {
        headers.remove(name);
    }
}

/// What a request that verifies a login has of the login request: who asks and in which language, and
/// what a trusted proxy says of the client.
pub fn verifying_request(headers: &HeaderMap, client: Client) -> HeaderMap {
    let is_copied = |name: &HeaderName| {
        *name == header::USER_AGENT
            || *name == header::ACCEPT_LANGUAGE
            || (client.via_trusted && is_kept_from_trusted(name.as_str()))
    };
    let copied = headers.iter().filter(|(name, _)| is_copied(name));
    copied.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Removes what `Connection` nominates, on all its lines (S66, VR-52).
fn remove_nominated(headers: &mut HeaderMap) {
    let mut nominated = Vec::new();
    // What most say, and nothing else: it goes in any case.
    let is_usual = |line: &&HeaderValue| line.as_bytes().eq_ignore_ascii_case(KEEP_ALIVE.as_str().as_bytes());
    for line in headers.get_all(header::CONNECTION).iter().filter(|line| !is_usual(line)) {
        for option in line.to_str().unwrap_or("").split(',').map(str::trim) {
            if let Ok(name) = HeaderName::from_bytes(option.as_bytes())
                && !is_end_to_end(name.as_str())
            {
                nominated.push(name);
            }
        }
    }
    for name in nominated {
        headers.remove(name);
    }
}

/// Removes all fields whose name is to go; allocates only when there are any.
pub(super) fn remove_where(headers: &mut HeaderMap, goes: impl Fn(&str) -> bool) {
    let going: Vec<HeaderName> = headers.keys().filter(|name| goes(name.as_str())).cloned().collect();
    for name in going {
        headers.remove(name);
    }
}

/// Adds an element to a list-valued field, which stays one line.
fn append_to(headers: &mut HeaderMap, name: &HeaderName, element: HeaderValue) {
    let mut joined = joined(headers, name);
    if joined.is_empty() {
        headers.insert(name.clone(), element);
        return;
    }
    joined.extend_from_slice(element.as_bytes());
    headers.insert(name.clone(), HeaderValue::from_bytes(&joined).unwrap_or(element));
}

/// All lines of a list-valued field, each with the comma that goes before what is added.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    headers.get_all(name).iter().flat_map(|line| [line.as_bytes(), b", "]).flatten().copied().collect()
}

/// Takes out of the application's response: what `remove` names, hop-by-hop fields, nominated fields,
/// identity headers, `Secure-Session-*`, and what tells which software answers.
pub fn clean_response(headers: &mut HeaderMap, signs: Signs, identity: &IdentityHeaders, remove: &[HeaderName]) {
    for name in remove {
        headers.remove(name);
    }
    if signs.options {
        remove_nominated(headers);
    }
    remove_where(headers, |name| {
        is_hop_by_hop(name)
            || is_session_protocol(name)
            || identity.is_one(name)
            || matches!(name, "server" | "x-powered-by" | "x-aspnet-version" | "alt-svc")
    });
}

/// Adds to every response what it does not have: what the operator wrote first, then ours, but for what
/// is not wanted. `authenticated` decides about `Cache-Control: no-store`.
pub fn secure_response(headers: &mut HeaderMap, rules: &SecurityHeaders, authenticated: bool) {
    if authenticated && is_page_to_ask_for(headers) {
        append_to(headers, &header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    // Before ours: who writes `add` means it.
    for (name, value) in &rules.add {
        headers.entry(name.clone()).or_insert_with(|| value.clone());
    }
    let mut add = |name: HeaderName, value: HeaderValue| {
        if !rules.remove.contains(&name) {
            headers.entry(name).or_insert(value);
        }
    };
    if let Some(hsts) = &rules.hsts {
        add(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    add(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    add(header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin"));
    if authenticated {
        // What the app said about caching may have been removed; that a page is private remains.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    }
    if let Some(policy) = &rules.frame_ancestors
        && !says_who_may_frame(headers)
    {
        // Beside the app's own policy, not in it: browsers keep to all of them.
        headers.append(header::CONTENT_SECURITY_POLICY, policy.clone());
    }
}

/// Tells browsers that no page of another origin may load this into itself, unless the application or the
/// operator says otherwise (S143).
pub fn isolate_response(headers: &mut HeaderMap, rules: &SecurityHeaders) {
    if !rules.remove.contains(&RESOURCE_POLICY) {
        headers.entry(RESOURCE_POLICY).or_insert(HeaderValue::from_static("same-origin"));
    }
}

/// `X-Frame-Options` counts: a `frame-ancestors` of ours would override it (CSP 3, 6.4.2.1).
fn says_who_may_frame(headers: &HeaderMap) -> bool {
    let may_say = |name: &HeaderName| *name == header::CONTENT_SECURITY_POLICY || *name == header::X_FRAME_OPTIONS;
    if !headers.keys().any(may_say) {
        return false;
    }
    let policies = headers.get_all(header::CONTENT_SECURITY_POLICY).iter().map(HeaderValue::as_bytes);
    let mut directives = policies.flat_map(|policy| policy.split(|byte| matches!(byte, b';' | b',')));
    headers.contains_key(header::X_FRAME_OPTIONS)
        || directives.any(|directive| {
            let name = directive.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
            name.eq_ignore_ascii_case(b"frame-ancestors")
        })
}

/// Whether a login by these fields holds for the connection instead of the request (RFC 4559, NTLM):
/// whoever gets the connection next would be that user.
pub fn authenticates_connection(headers: &HeaderMap) -> bool {
    headers.get_all(header::AUTHORIZATION).iter().any(|value| {
        let scheme = value.as_bytes().split(u8::is_ascii_whitespace).next().unwrap_or_default();
        scheme.eq_ignore_ascii_case(b"negotiate") || scheme.eq_ignore_ascii_case(b"ntlm")
    })
}

/// Whether a cache may keep the answer: then it must not carry a cookie of ours.
pub fn is_cacheable(headers: &HeaderMap) -> bool {
    directives(headers).any(|directive| {
        let max_age = directive.strip_prefix("max-age=").or_else(|| directive.strip_prefix("s-maxage="));
        directive == "public" || directive == "immutable" || max_age.is_some_and(|age| age.trim_matches('"') != "0")
    })
}

/// Whether it is a page that the app does not let be reused unasked, but lets be kept (`private`,
/// `no-cache`). A browser shows those again without asking when its user goes back after the logout.
fn is_page_to_ask_for(headers: &HeaderMap) -> bool {
    let is_html = headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/html"));
    is_html
        && headers.contains_key(header::CACHE_CONTROL)
        && !is_cacheable(headers)
        && !directives(headers).any(|directive| directive == "no-store")
}

/// The directives of `Cache-Control`, in lower case.
fn directives(headers: &HeaderMap) -> impl Iterator<Item = String> {
    let lines = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(|directive| directive.trim().to_ascii_lowercase())
}

#[cfg(test)]
mod tests;
