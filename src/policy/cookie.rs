//! Cookies on the wire: reading `Cookie`, reading the application's `Set-Cookie` as RFC 6265bis
//! says browsers do, and writing our own.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::policy::session::SessionId;

/// One `name=value` of a `Cookie` header, as bytes (VR-61): only SP and HTAB are trimmed. A pair
/// without `=` has an empty name, as in browsers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookiePair {
    /// The name.
    pub name: Bytes,
    /// The value, quotes included.
    pub value: Bytes,
}

/// All pairs of all `Cookie` fields in order (HTTP/2 crumbs included), empty pairs skipped. Never
/// fails, whatever is in there (S15, VR-38).
pub fn pairs(headers: &HeaderMap) -> Vec<CookiePair> {
    let _ = headers;
    Vec::new()
}

/// The `Cookie` value made of these pairs, joined with `; `; `None` when there are none (VR-05).
pub fn join(pairs: &[CookiePair]) -> Option<HeaderValue> {
    let _ = pairs;
    None
}

/// What a request presents under our cookie's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    None,
    /// One well-formed ID.
    Id(SessionId),
    /// One value that is no ID, or several that differ (S11, VR-35).
    Malformed,
}

/// Our cookie, its name and attributes prepared. Secure, HttpOnly and Path=/ are no options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name, with the `__Host-` prefix.
    pub name: String,
    /// `SameSite=Strict` instead of `Lax`.
    pub strict: bool,
    /// Whether it has a `Max-Age`.
    pub persistent: bool,
}

impl SessionCookie {
    /// Takes our cookie out of the pairs (name compared case-sensitively, as bytes) and reads it.
    pub fn take(&self, pairs: &mut Vec<CookiePair>) -> Presented {
        let _ = pairs;
        Presented::None
    }

    /// `Set-Cookie` for an ID; `remaining` is what is left of the absolute lifetime (S5).
    pub fn set(&self, id: &SessionId, remaining: Duration) -> HeaderValue {
        let _ = (id, remaining);
        HeaderValue::from_static("")
    }

    /// `Set-Cookie` that deletes it, with identical attributes (S8).
    pub fn clear(&self) -> HeaderValue {
        HeaderValue::from_static("")
    }
}

/// `SameSite` of an application's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// `Strict`
    Strict,
    /// `Lax`
    Lax,
    /// `None`
    None,
}

/// An application's `Set-Cookie`, read as browsers read it (RFC 6265bis 5.6).
#[derive(Clone, PartialEq, Eq)]
pub struct SetCookie {
    /// The whole field value as sent.
    pub raw: HeaderValue,
    /// Cookie name.
    pub name: Bytes,
    /// Cookie value.
    pub value: Bytes,
    /// When it ends: from `Max-Age`, else `Expires`; `None` is with the session.
    pub expires: Option<Timestamp>,
    /// `Domain`, lower case, without leading dot.
    pub domain: Option<String>,
    /// `Path`, if it begins with `/`.
    pub path: Option<String>,
    /// `Secure`
    pub secure: bool,
    /// `HttpOnly`
    pub http_only: bool,
    /// `SameSite`
    pub same_site: Option<SameSite>,
}

impl std::fmt::Debug for SetCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetCookie({})", String::from_utf8_lossy(&self.name))
    }
}

impl SetCookie {
    /// Reads a field value; `None` when browsers would ignore it.
    pub fn parse(raw: &HeaderValue, now: Timestamp) -> Option<Self> {
        let _ = (raw, now);
        None
    }

    /// Whether it deletes: expired, at `now`.
    pub fn is_deletion(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The value with `Secure` and `SameSite=Lax` appended where missing; all else byte-identical.
    pub fn hardened(&self) -> HeaderValue {
        self.raw.clone()
    }
}

/// `Set-Cookie` that expires an application's cookie in the browser: name, `Path=/`, and the path
/// of the request's directory are both covered, so several values may result.
pub fn expire_in_browser(name: &[u8], request_path: &str) -> Vec<HeaderValue> {
    let _ = (name, request_path);
    Vec::new()
}
