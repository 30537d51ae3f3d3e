//! The application's cookies: which are kept in the session (the *vault*), which are hardened,
//! passed or dropped, and which go with a request (product 3.3).

mod change;
mod held;
mod outgoing;
mod rules;

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::SameSite;
use crate::policy::path::Target;
use crate::policy::vault::held::Held;

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
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

/// The application's cookies of one session: at most 32 KiB. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Vault(Option<Arc<[u8]>>);

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.cookies()).finish()
    }
}

impl Vault {
    /// One with these cookies.
    pub fn of(cookies: &[VaultCookie]) -> Self {
        Self::from_bytes(&held::write(cookies))
    }

    /// What [`Vault::as_bytes`] gave to a store that keeps it within the process.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self((!bytes.is_empty()).then(|| Arc::from(bytes)))
    }

    /// What [`Vault::from_bytes`] makes the same vault of.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The cookies.
    pub fn cookies(&self) -> Vec<VaultCookie> {
        self.held().map(|held| held.cookie()).collect()
    }

    fn held(&self) -> impl Iterator<Item = Held<'_>> {
        held::read(self.as_bytes())
    }

    /// The vault after the changes, expired ones removed, cut to 32 KiB; `None` when nothing would
    /// change (an equal value is not written again).
    pub fn changed(&self, changes: &[VaultChange], now: Timestamp) -> Option<Self> {
        let cookies = self.cookies();
        change::is_effective(&cookies, changes, now).then(|| Self::of(&change::apply(cookies, changes, now).0))
    }

    /// Names of the cookies for which [`Vault::changed`] with the same arguments has no room: the
    /// least recently used.
    pub fn overflow(&self, changes: &[VaultChange], now: Timestamp) -> Vec<Bytes> {
        let cookies = self.cookies();
        if !change::is_effective(&cookies, changes, now) {
            return Vec::new();
        }
        change::apply(cookies, changes, now).1
    }

    /// Only the cookies for which `keep` holds.
    pub fn filtered(&self, keep: &dyn Fn(&VaultCookie) -> bool) -> Self {
        let mut cookies = self.cookies();
        cookies.retain(keep);
        Self::of(&cookies)
    }

    /// Only the cookies that go with a request for `target`: those of [`Vault::pairs_for`].
    pub fn carried(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Self {
        let sent = self.sent_with(target, host, cross_site, now);
        Self::of(&sent.iter().map(Held::cookie).collect::<Vec<_>>())
    }

    /// The pairs that go with a request for `target` (longer paths first, then older first; not
    /// expired; `SameSite=Strict` ones not when `cross_site`). The leg to the app counts as secure.
    /// `host` is in lower case and without port.
    pub fn pairs_for(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<CookiePair> {
        self.sent_with(target, host, cross_site, now).iter().map(Held::pair).collect()
    }

    /// What is to be noted with the next real change, when the cookies of [`Vault::pairs_for`] were
    /// sent: that they are in use. Alone these changes do nothing.
    pub fn uses_for(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<VaultChange> {
        let used = |held: &Held<'_>| {
            let VaultCookie { name, path, domain, .. } = held.cookie();
            VaultChange::Used { name, path, domain }
        };
        self.sent_with(target, host, cross_site, now).iter().map(used).collect()
    }

    fn sent_with(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<Held<'_>> {
        let path = target.raw_path();
        let mut sent: Vec<_> = self.held().filter(|held| held.goes_with(path, host, cross_site, now)).collect();
        sent.sort_by_key(|held| (Reverse(held.path.len()), held.created()));
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
