//! Changes to a vault: what a `Set-Cookie` does to it, and which cookies go when it is full.

use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::policy::cookie::SetCookie;
use crate::policy::cookie::set::HOST_PREFIX;
use crate::policy::cookie::set::SECURE_PREFIX;
use crate::policy::cookie::set::default_path;
use crate::policy::cookie::set::has_prefix;
use crate::policy::path::Target;
use crate::policy::vault::VaultCookie;
use crate::policy::vault::domain_matches;

/// One change to a vault: identity is name, domain and path (RFC 6265bis 5.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VaultChange {
    /// Set or replace.
    Put(VaultCookie),
    /// Remove.
    Remove {
        /// Name.
        name: Bytes,
        /// Path.
        path: String,
        /// Domain.
        domain: Option<String>,
    },
    /// Sent with a request: what was used lately stays longest. Never written for its own sake.
    Used {
        /// Name.
        name: Bytes,
        /// Path.
        path: String,
        /// Domain.
        domain: Option<String>,
    },
}

impl VaultChange {
    /// What this `Set-Cookie`, received for `target` on `host` (lower case, without port), does to a
    /// vault. `None` when a browser would refuse it for that host (foreign `Domain`, broken prefix
    /// rules).
    pub fn of(cookie: &SetCookie, target: &Target, host: &str, now: Timestamp) -> Option<Self> {
        let domain = accepted_domain(cookie, host)?;
        let path = cookie.path.clone().unwrap_or_else(|| default_path(target.raw_path()).to_owned());
        if !keeps_prefix_rules(cookie) {
            return None;
        }
        if cookie.is_deletion(now) {
            return Some(Self::Remove { name: cookie.name.clone(), path, domain });
        }
        Some(Self::Put(VaultCookie {
            name: cookie.name.clone(),
            value: cookie.value.clone(),
            path,
            domain,
            expires: cookie.expires,
            same_site: cookie.same_site,
            created: now,
            used: now,
        }))
    }

    fn is_for(&self, cookie: &VaultCookie) -> bool {
        match self {
            Self::Put(new) => new.name == cookie.name && new.path == cookie.path && new.domain == cookie.domain,
            Self::Remove { name, path, domain } | Self::Used { name, path, domain } => {
                *name == cookie.name && *path == cookie.path && *domain == cookie.domain
            }
        }
    }
}

/// The domain to store: `Some(None)` is host-only, `None` is refused.
fn accepted_domain(cookie: &SetCookie, host: &str) -> Option<Option<String>> {
    let Some(domain) = cookie.domain.as_deref() else {
        return Some(None);
    };
    if !domain_matches(host, domain) {
        return None;
    }
    // Without the list of public suffixes, a name without a dot is taken for one: the host itself
    // may have such a name and then keeps the cookie to itself, nobody else may set one for it.
    if domain.contains('.') {
        return Some(Some(domain.to_owned()));
    }
    (domain == host).then_some(None)
}

fn keeps_prefix_rules(cookie: &SetCookie) -> bool {
    if has_prefix(&cookie.name, HOST_PREFIX) {
        return cookie.secure && cookie.domain.is_none() && cookie.path.as_deref() == Some("/");
    }
    cookie.secure || !has_prefix(&cookie.name, SECURE_PREFIX)
}

/// Bytes of names, values and paths that a vault holds.
const CAPACITY: usize = 32 * 1024;

/// Whether anything but the time of use would be different afterwards.
pub(super) fn is_effective(cookies: &[VaultCookie], changes: &[VaultChange], now: Timestamp) -> bool {
    cookies.iter().any(|cookie| cookie.is_expired(now))
        || changes.iter().any(|change| {
            let old = cookies.iter().find(|cookie| change.is_for(cookie));
            match (change, old) {
                (VaultChange::Put(new), Some(old)) => !is_same(old, new, now),
                (VaultChange::Put(new), None) => !new.is_expired(now),
                (VaultChange::Remove { .. }, old) => old.is_some(),
                (VaultChange::Used { .. }, _) => false,
            }
        })
}

/// Whether a cookie need not be written again. An end that the application moves on with each
/// answer counts as the same until it moved by a twentieth of what is left, at most a minute:
/// otherwise each request of a sliding session would write to the store.
fn is_same(old: &VaultCookie, new: &VaultCookie, now: Timestamp) -> bool {
    let same_end = match (old.expires, new.expires) {
        (Some(old), Some(new)) => {
            let moved = old.since(new).max(new.since(old));
            moved <= (new.since(now) / 20).min(Duration::from_secs(60))
        }
        (old, new) => old == new,
    };
    same_end && old.value == new.value && old.same_site == new.same_site
}

/// The cookies after the changes, and the names that had to go for lack of room.
pub(super) fn apply(
    mut cookies: Vec<VaultCookie>,
    changes: &[VaultChange],
    now: Timestamp,
) -> (Vec<VaultCookie>, Vec<Bytes>) {
    for change in changes {
        let old = cookies.iter().position(|cookie| change.is_for(cookie));
        match (change, old) {
            (VaultChange::Put(new), Some(at)) => {
                let created = cookies[at].created;
                cookies[at] = VaultCookie { created, ..new.clone() };
            }
            (VaultChange::Put(new), None) => cookies.push(new.clone()),
            (VaultChange::Remove { .. }, Some(at)) => drop(cookies.remove(at)),
            (VaultChange::Used { .. }, Some(at)) => cookies[at].used = cookies[at].used.max(now),
            (VaultChange::Remove { .. } | VaultChange::Used { .. }, None) => {}
        }
    }
    cookies.retain(|cookie| !cookie.is_expired(now));
    let dropped = make_room(&mut cookies);
    (cookies, dropped)
}

fn make_room(cookies: &mut Vec<VaultCookie>) -> Vec<Bytes> {
    let mut size: usize = cookies.iter().map(size_of_cookie).sum();
    let mut dropped = Vec::new();
    while size > CAPACITY {
        let oldest = cookies.iter().enumerate().min_by_key(|(_, cookie)| (cookie.used, cookie.created));
        let Some((at, _)) = oldest else {
            break;
        };
        let cookie = cookies.remove(at);
        size -= size_of_cookie(&cookie);
        dropped.push(cookie.name);
    }
    dropped
}

fn size_of_cookie(cookie: &VaultCookie) -> usize {
    cookie.name.len() + cookie.value.len() + cookie.path.len()
}
