//! Header fields: what is taken out of messages, what is added, and in which order (S64-S75, S86,
//! S110, S133, S145, S165).

use http::HeaderMap;
use http::HeaderValue;
use http::Version;
use http::header::HeaderName;

use crate::policy::client::Client;
use crate::policy::session::Identity;
use crate::policy::site::HeaderField;
use crate::policy::site::Origin;

/// `[site.identity]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// Header that names the user [`X-Forwarded-User`].
    pub user: HeaderName,
    /// Header with the session ref.
    pub session_ref: Option<HeaderName>,
    /// Header with the authentication time, Unix seconds.
    pub auth_time: Option<HeaderName>,
}

/// HSTS as sent, `None` is off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityHeaders {
    /// Value of `Strict-Transport-Security`, `None` when off or the origin is local.
    pub hsts: Option<HeaderValue>,
    /// Value of `Content-Security-Policy` added where the app set none: `frame-ancestors …`.
    pub frame_ancestors: Option<HeaderValue>,
    /// Set on every response of the app.
    pub add: Vec<HeaderField>,
    /// Removed from every response of the app.
    pub remove: Vec<HeaderName>,
}

/// What goes into the forwarding and identity headers of one request.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'a> {
    /// The client.
    pub client: Client,
    /// The TCP peer, appended to `X-Forwarded-For`.
    pub peer: std::net::IpAddr,
    /// The site's origin: `X-Forwarded-Proto`, `-Host`, `-Port`.
    pub origin: &'a Origin,
    /// The request's version, for `Via`.
    pub version: Version,
    /// The user, if any, with session ref and authentication time.
    pub identity: Option<&'a Identity>,
}

/// Takes out of a request: hop-by-hop fields and all that `Connection` nominates, every identity or
/// forwarding header in any spelling (case and `_`/`-` folded), every name with `_`,
/// `Secure-Session-*`. Forwarding headers of a trusted proxy stay. `Upgrade` is removed too; a
/// permitted one is put back by the caller. `Cookie` crumbs are joined by the caller.
pub fn clean_request(headers: &mut HeaderMap, identity: &IdentityHeaders, client: Client) {
    let _ = (headers, identity, client);
}

/// Sets `X-Forwarded-*`, `Forwarded`, `Via` and, last, the identity headers (absent for anonymous).
pub fn forward_request(headers: &mut HeaderMap, identity: &IdentityHeaders, forwarding: Forwarding<'_>) {
    let _ = (headers, identity, forwarding);
}

/// Takes out of a response: hop-by-hop fields, nominated fields, identity and marker headers,
/// `Secure-Session-*`, `Server`, `X-Powered-By`.
pub fn clean_response(headers: &mut HeaderMap, identity: &IdentityHeaders) {
    let _ = (headers, identity);
}

/// Adds what the app did not set itself; `authenticated` decides about `Cache-Control: no-store`.
pub fn secure_response(headers: &mut HeaderMap, rules: &SecurityHeaders, authenticated: bool) {
    let _ = (headers, rules, authenticated);
}
