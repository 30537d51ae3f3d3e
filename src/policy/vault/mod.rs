//! The application's cookies: which are kept in the session (the *vault*), which are hardened,
//! passed or dropped, and which go with a request (product 3.3).

mod change;
mod outgoing;
mod rules;

use std::cmp::Reverse;
use std::net::IpAddr;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::SameSite;
use crate::policy::path::Target;

pub use change::VaultChange;
pub use outgoing::CookieContext;
pub use outgoing::Outgoing;
pub use outgoing::outgoing;
pub use rules::CookieMode;
pub use rules::CookieRules;
pub use rules::Fate;
pub use rules::is_well_known_session;

/// One cookie of the application, kept for it.
#[derive(Clone, PartialEq, Eq)]
pub struct VaultCookie {
    /// Name.
    pub name: Bytes,
    /// Value.
    pub value: Bytes,
    /// `Path`, or the default path of the request that set it.
    pub path: String,
    /// `Domain`, `None` is host-only.
    pub domain: Option<String>,
    /// When it ends.
    pub expires: Option<Timestamp>,
    /// `SameSite`
    pub same_site: Option<SameSite>,
    /// When it was first set: order of sending.
    pub created: Timestamp,
    /// When it was last sent or set: the least recently used goes when the vault is full.
    pub used: Timestamp,
}

impl std::fmt::Debug for VaultCookie {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VaultCookie({})", String::from_utf8_lossy(&self.name))
    }
}

impl VaultCookie {
    fn pair(&self) -> CookiePair {
        CookiePair { name: self.name.clone(), value: self.value.clone() }
    }

    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }

    fn goes_with(&self, path: &str, host: &str, cross_site: bool, now: Timestamp) -> bool {
        let is_withheld = cross_site && self.same_site == Some(SameSite::Strict);
        !is_withheld
            && !self.is_expired(now)
            && path_matches(path, &self.path)
            && self.domain.as_deref().is_none_or(|domain| domain_matches(host, domain))
    }
}

/// The application's cookies of one session: at most 32 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vault {
    cookies: Vec<VaultCookie>,
}

impl Vault {
    /// What a store kept of one.
    pub fn of(cookies: Vec<VaultCookie>) -> Self {
        Self { cookies }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.cookies.is_empty()
    }

    /// The cookies.
    pub fn cookies(&self) -> &[VaultCookie] {
        &self.cookies
    }

    /// The vault after the changes, expired ones removed, cut to 32 KiB; `None` when nothing would
    /// change (an equal value is not written again).
    pub fn changed(&self, changes: &[VaultChange], now: Timestamp) -> Option<Self> {
        change::is_effective(self, changes, now).then(|| change::apply(self, changes, now).0)
    }

    /// Names of the cookies for which [`Vault::changed`] with the same arguments has no room: the
    /// least recently used.
    pub fn overflow(&self, changes: &[VaultChange], now: Timestamp) -> Vec<Bytes> {
        if !change::is_effective(self, changes, now) {
            return Vec::new();
        }
        change::apply(self, changes, now).1
    }

    /// Only the cookies for which `keep` holds.
    pub fn filtered(&self, keep: &dyn Fn(&VaultCookie) -> bool) -> Self {
        Self { cookies: self.cookies.iter().filter(|cookie| keep(cookie)).cloned().collect() }
    }

    /// Only the cookies that go with a request for `target`: those of [`Vault::pairs_for`].
    pub fn carried(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Self {
        Self { cookies: self.sent_with(target, host, cross_site, now).into_iter().cloned().collect() }
    }

    /// The pairs that go with a request for `target` (longer paths first, then older first; not
    /// expired; `SameSite=Strict` ones not when `cross_site`). The leg to the app counts as secure.
    /// `host` is in lower case and without port.
    pub fn pairs_for(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<CookiePair> {
        let sent = self.sent_with(target, host, cross_site, now);
        sent.into_iter().map(VaultCookie::pair).collect()
    }

    /// What is to be noted with the next real change, when the cookies of [`Vault::pairs_for`] were
    /// sent: that they are in use. Alone these changes do nothing.
    pub fn uses_for(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<VaultChange> {
        let sent = self.sent_with(target, host, cross_site, now).into_iter();
        let used = |cookie: &VaultCookie| VaultChange::Used {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            domain: cookie.domain.clone(),
        };
        sent.map(used).collect()
    }

    fn sent_with(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<&VaultCookie> {
        let path = target.raw_path();
        let mut sent: Vec<_> =
            self.cookies.iter().filter(|cookie| cookie.goes_with(path, host, cross_site, now)).collect();
        sent.sort_by_key(|cookie| (Reverse(cookie.path.len()), cookie.created));
        sent
    }
}

/// Whether a host is within a cookie's domain (RFC 6265bis 5.1.3): the same, or a subdomain and no
/// IP address.
fn domain_matches(host: &str, domain: &str) -> bool {
    if host == domain {
        return true;
    }
    let is_below = host.strip_suffix(domain).is_some_and(|front| front.ends_with('.'));
    is_below && host.parse::<IpAddr>().is_err()
}

/// Whether a request path is within a cookie's path (RFC 6265bis 5.1.4).
fn path_matches(request: &str, cookie: &str) -> bool {
    let Some(rest) = request.strip_prefix(cookie) else {
        return false;
    };
    rest.is_empty() || cookie.ends_with('/') || rest.starts_with('/')
}

#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod tests;
