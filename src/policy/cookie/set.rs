//! The application's `Set-Cookie`, read as browsers read it (RFC 6265bis 5.6), and hardened.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::policy::cookie::date::cookie_date;
use crate::policy::cookie::split_at_equals;
use crate::policy::cookie::trim;

/// Bytes of name and value together above which browsers ignore a cookie (VR-36).
pub const MAX_PAIR: usize = 4096;

/// Bytes of an attribute's value above which browsers ignore the attribute.
pub(super) const MAX_ATTRIBUTE: usize = 1024;

/// No cookie lives longer (RFC 6265bis 5.5).
const MAX_LIFETIME: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// `SameSite` of an application's cookie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        let line = raw.as_bytes();
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return None;
        }
        let mut parts = line.split(|byte| *byte == b';');
        let pair = trim(parts.next()?);
        let (name, value) = split_at_equals(pair).unwrap_or((&[], pair));
        if !is_storable(name, value) {
            return None;
        }
        let mut attributes = Attributes::default();
        for part in parts {
            attributes.read(part, now);
        }
        // Only the pair is copied: a cookie may be kept long after its header is gone.
        let pair = Bytes::copy_from_slice(pair);
        Some(Self {
            raw: raw.clone(),
            name: pair.slice(..name.len()),
            value: pair.slice(pair.len() - value.len()..),
            expires: attributes.max_age.or(attributes.expires),
            domain: attributes.domain,
            path: attributes.path,
            secure: attributes.secure,
            http_only: attributes.http_only,
            same_site: attributes.same_site,
        })
    }

    /// Whether it deletes: expired, at `now`.
    pub fn is_deletion(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    /// The value with the default path of a request for `path` (RFC 6265bis 5.1.4) if it names none.
    pub fn with_path(&self, path: &str) -> HeaderValue {
        if self.path.is_some() {
            return self.raw.clone();
        }
        self.appended(format!(" Path={}", default_path(path)).as_bytes())
    }

    /// The value with `Secure` and `SameSite=Lax` appended where missing; all else byte-identical.
    pub fn hardened(&self) -> HeaderValue {
        // An unknown `SameSite` is none at all; of several attributes the last one counts.
        let missing: &[u8] = match (self.secure, self.same_site) {
            (true, Some(_)) => return self.raw.clone(),
            (true, None) => b" SameSite=Lax",
            (false, Some(_)) => b" Secure",
            (false, None) => b" Secure; SameSite=Lax",
        };
        self.appended(missing)
    }

    fn appended(&self, attributes: &[u8]) -> HeaderValue {
        let raw = self.raw.as_bytes();
        let separator: &[u8] = if trim(raw).ends_with(b";") { b"" } else { b";" };
        let line = Bytes::from([raw, separator, attributes].concat());
        let mut longer = HeaderValue::from_maybe_shared(line).unwrap_or_else(|_| self.raw.clone());
        longer.set_sensitive(self.raw.is_sensitive());
        longer
    }
}

/// The directory of a request path (RFC 6265bis 5.1.4).
pub(in crate::policy) fn default_path(request: &str) -> &str {
    match request.rfind('/') {
        Some(last) if last > 0 && request.starts_with('/') => &request[..last],
        Some(_) | None => "/",
    }
}

/// What browsers take: not empty, not too long, and no bare value that would come back looking
/// like a cookie with a prefix.
fn is_storable(name: &[u8], value: &[u8]) -> bool {
    if name.len() + value.len() > MAX_PAIR {
        return false;
    }
    if !name.is_empty() {
        return true;
    }
    !value.is_empty() && ![HOST_PREFIX, SECURE_PREFIX].into_iter().any(|prefix| has_prefix(value, prefix))
}

/// Prefix of cookies that are Secure, without `Domain`, and with `Path=/`.
pub(in crate::policy) const HOST_PREFIX: &[u8] = b"__Host-";

/// Prefix of cookies that are Secure.
pub(in crate::policy) const SECURE_PREFIX: &[u8] = b"__Secure-";

/// Whether a name has a prefix, in whatever letter case (RFC 6265bis 4.1.3).
pub(in crate::policy) fn has_prefix(name: &[u8], prefix: &[u8]) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[derive(Default)]
struct Attributes {
    max_age: Option<Timestamp>,
    expires: Option<Timestamp>,
    domain: Option<String>,
    path: Option<String>,
    secure: bool,
    http_only: bool,
    same_site: Option<SameSite>,
}

impl Attributes {
    /// Takes one attribute in; the last of its kind wins (RFC 6265bis 5.6.1 to 5.6.7).
    fn read(&mut self, part: &[u8], now: Timestamp) {
        let (name, value) = split_at_equals(part).unwrap_or_else(|| (trim(part), &[]));
        if value.len() > MAX_ATTRIBUTE {
            return;
        }
        if name.eq_ignore_ascii_case(b"expires") {
            let latest = now.plus(MAX_LIFETIME);
            self.expires = cookie_date(value).map(|at| at.min(latest)).or(self.expires);
        } else if name.eq_ignore_ascii_case(b"max-age") {
            self.max_age = max_age(value, now).or(self.max_age);
        } else if name.eq_ignore_ascii_case(b"domain") {
            let domain = value.strip_prefix(b".").unwrap_or(value);
            // Bytes that are no text become U+FFFD, which matches no host.
            let domain = String::from_utf8_lossy(domain).to_ascii_lowercase();
            self.domain = Some(domain).filter(|domain| !domain.is_empty());
        } else if name.eq_ignore_ascii_case(b"path") {
            self.path = value.starts_with(b"/").then(|| String::from_utf8_lossy(value).into_owned());
        } else if name.eq_ignore_ascii_case(b"secure") {
            self.secure = true;
        } else if name.eq_ignore_ascii_case(b"httponly") {
            self.http_only = true;
        } else if name.eq_ignore_ascii_case(b"samesite") {
            self.same_site = same_site(value);
        }
    }
}

/// When a `Max-Age` ends; zero and less is the beginning of time. `None` when it is no number.
fn max_age(value: &[u8], now: Timestamp) -> Option<Timestamp> {
    let (negative, digits) = value.strip_prefix(b"-").map_or((false, value), |digits| (true, digits));
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds =
        digits.iter().fold(0_u64, |sum, digit| sum.saturating_mul(10).saturating_add(u64::from(digit - b'0')));
    if negative || seconds == 0 {
        return Some(Timestamp::default());
    }
    Some(now.plus(Duration::from_secs(seconds).min(MAX_LIFETIME)))
}

fn same_site(value: &[u8]) -> Option<SameSite> {
    const NAMES: [(&[u8], SameSite); 3] =
        [(b"strict", SameSite::Strict), (b"lax", SameSite::Lax), (b"none", SameSite::None)];
    NAMES.iter().find(|(name, _)| value.eq_ignore_ascii_case(name)).map(|(_, same_site)| *same_site)
}
