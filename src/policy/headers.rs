//! Header fields: what is taken out of messages, what is added, and in which order (S64-S75, S86,
//! S110, S133, S145, S165).

mod names;
mod signs;

use std::borrow::Cow;
use std::fmt::Write;
use std::net::IpAddr;

use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Version;
use http::header;
use http::header::HeaderName;

use crate::policy::assertion::AssertionRules;
use crate::policy::certificate::Certificate;
use crate::policy::client::Client;
use crate::policy::relax::Relaxed;
use crate::policy::relax::Rule;
use crate::policy::session::Identity;
use crate::policy::site::HeaderField;
use crate::policy::site::Origin;

use self::names::folded;
use self::names::folds_to;
use self::names::is_end_to_end;
use self::names::is_hop_by_hop;
use self::names::is_kept_from_trusted;
use self::names::is_method_override;
use self::names::is_session_protocol;
use self::names::is_trust;
use self::signs::KEEP_ALIVE;

pub use self::signs::Signs;

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
        let optional = [&self.session_ref, &self.auth_time, &self.client_certificate];
        let assertion = self.assertion.as_ref().map(|rules| &rules.header);
        std::iter::once(&self.user).chain(optional.into_iter().flatten()).chain(assertion)
    }

    fn is_one(&self, name: &str) -> bool {
        self.names().any(|ours| folds_to(name, ours.as_str()))
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

/// What the forwarding headers say of a site's origin, prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicOrigin {
    host: HeaderValue,
    port: HeaderValue,
    /// Follows the node in `Forwarded`.
    parameters: String,
}

impl PublicOrigin {
    /// What they say of this origin.
    pub fn of(origin: &Origin) -> Self {
        let host = origin.authority();
        let quoted = if origin.port == 443 && !host.starts_with('[') { "" } else { "\"" };
        let mut text = BytesMut::new();
        Self {
            host: value(&mut text, format_args!("{host}")),
            port: HeaderValue::from(origin.port),
            parameters: format!(";host={quoted}{host}{quoted};proto=https"),
        }
    }
}

/// What goes into the forwarding and identity headers of one request.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The client.
    pub client: Client,
    /// The TCP peer, appended to `X-Forwarded-For`.
    pub peer: IpAddr,
    /// The site's origin: `X-Forwarded-Host`, `-Port`.
    pub public: &'a PublicOrigin,
    /// The request's version, for `Via`.
    pub version: Version,
    /// The certificate that the client has shown.
    pub certificate: Option<&'a Certificate>,
    /// The user, if any, with session ref and authentication time.
    pub identity: Option<&'a Identity>,
    /// What was signed about the user.
    pub assertion: Option<&'a HeaderValue>,
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Says by which scheme the client asked.
pub const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// What becomes of a field of a request.
enum Fate {
    Stays,
    Goes,
    /// It goes by a rule that a site can be spared.
    GoesBy(Rule),
}

/// Takes out of a request: hop-by-hop fields and all that `Connection` nominates, every identity or
/// forwarding header in any spelling (case and `_`/`-` folded), every name with `_`,
/// `Secure-Session-*`. Forwarding headers of a trusted proxy stay. `Upgrade` is removed too; a
/// permitted one is put back by the caller. `Cookie` crumbs are joined by the caller. Returns what went
/// by a rule that the site could be spared.
pub fn clean_request(
    headers: &mut HeaderMap,
    identity: &IdentityHeaders,
    client: Client,
    relaxed: &Relaxed,
) -> Vec<(Rule, HeaderName)> {
    remove_nominated(headers);
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
    if is_hop_by_hop(&plain) || is_session_protocol(&plain) || identity.is_one(&plain) {
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
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let mut nominated = Vec::new();
    for line in headers.get_all(header::CONNECTION) {
        for option in line.to_str().unwrap_or("").split(',').map(str::trim) {
            // It goes in any case, and is what most say.
            if option.eq_ignore_ascii_case(KEEP_ALIVE.as_str()) {
                continue;
            }
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

/// Sets `X-Forwarded-*`, `Forwarded`, `Via` and, last, the identity headers (absent for anonymous).
pub fn forward_request(headers: &mut HeaderMap, identity: &IdentityHeaders, forwarding: Forwarding<'_>) {
    let Forwarding { client, peer, public, version, .. } = forwarding;
    let mut text = BytesMut::with_capacity(192);
    let address = value(&mut text, format_args!("{}", client.address));
    let forwarded = match client.address == peer {
        true => value(&mut text, format_args!("for={}{}", Node(peer), public.parameters)),
        false => {
            value(&mut text, format_args!("for={}{}, for={}", Node(client.address), public.parameters, Node(peer)))
        }
    };
    if client.via_trusted {
        append_to(headers, &FORWARDED_FOR, ", ", value(&mut text, format_args!("{peer}")));
    } else {
        headers.insert(FORWARDED_FOR, address.clone());
    }
    headers.insert(REAL_IP, address);
    headers.insert(header::FORWARDED, forwarded);
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    headers.insert(FORWARDED_HOST, public.host.clone());
    headers.insert(FORWARDED_PORT, public.port.clone());
    let via = match version {
        Version::HTTP_2 => HeaderValue::from_static("2.0 vestibule"),
        Version::HTTP_10 => HeaderValue::from_static("1.0 vestibule"),
        _ => HeaderValue::from_static("1.1 vestibule"),
    };
    append_to(headers, &header::VIA, ", ", via);
    // Removed before they are set: a copy that survives when there is no user is a forged one (VR-54).
    for name in identity.names() {
        headers.remove(name);
    }
    if let Some((name, certificate)) = identity.client_certificate.as_ref().zip(forwarding.certificate)
        && let Some(value) = certificate.header_value(name)
    {
        headers.insert(name.clone(), value);
    }
    if let Some(who) = forwarding.identity {
        headers.insert(identity.user.clone(), value(&mut text, format_args!("{}", who.user.in_header())));
        if let Some(name) = &identity.session_ref {
            headers.insert(name.clone(), value(&mut text, format_args!("{}", who.session_ref)));
        }
        if let Some(name) = &identity.auth_time {
            headers.insert(name.clone(), value(&mut text, format_args!("{}", who.authenticated.as_secs())));
        }
        if let Some((rules, assertion)) = identity.assertion.as_ref().zip(forwarding.assertion) {
            headers.insert(rules.header.clone(), assertion.clone());
        }
    }
}

/// A node as RFC 7239 section 6 writes it: IPv6 in brackets and quotes (S69).
struct Node(IpAddr);

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "\"[{address}]\""),
        }
    }
}

/// A value written into a shared buffer. What we write there is always valid.
fn value(buffer: &mut BytesMut, text: std::fmt::Arguments<'_>) -> HeaderValue {
    let written = buffer.write_fmt(text);
    let bytes = buffer.split().freeze();
    written.ok().and_then(|()| HeaderValue::from_maybe_shared(bytes).ok()).unwrap_or(HeaderValue::from_static(""))
}

/// Adds an element to a list-valued field, which stays one line.
fn append_to(headers: &mut HeaderMap, name: &HeaderName, separator: &str, element: HeaderValue) {
    let mut joined = Vec::new();
    for line in headers.get_all(name) {
        joined.extend_from_slice(line.as_bytes());
        joined.extend_from_slice(separator.as_bytes());
    }
    if joined.is_empty() {
        headers.insert(name.clone(), element);
        return;
    }
    joined.extend_from_slice(element.as_bytes());
    headers.insert(name.clone(), HeaderValue::from_bytes(&joined).unwrap_or(element));
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
        append_to(headers, &header::CACHE_CONTROL, ", ", HeaderValue::from_static("no-store"));
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
