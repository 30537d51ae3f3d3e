//! A vault as bytes: one piece of memory for all its cookies, which is cheap to share, and which keeps
//! nothing else alive, such as the answer that a cookie came in.

use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::SameSite;
use crate::policy::vault::VaultCookie;
use crate::policy::vault::domain_matches;
use crate::policy::vault::path_matches;

/// One cookie, where it lies in the vault.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Held<'a> {
    pub(super) name: &'a [u8],
    pub(super) value: &'a [u8],
    pub(super) path: &'a str,
    domain: Option<&'a str>,
    expires: Option<u64>,
    same_site: Option<SameSite>,
    created: u64,
    /// Counted from `created`.
    used: u64,
}

impl<'a> Held<'a> {
    fn of(cookie: &'a VaultCookie) -> Self {
        Self {
            name: &cookie.name,
            value: &cookie.value,
            path: &cookie.path,
            domain: cookie.domain.as_deref(),
            expires: cookie.expires.map(Timestamp::as_millis),
            same_site: cookie.same_site,
            created: cookie.created.as_millis(),
            used: cookie.used.as_millis().wrapping_sub(cookie.created.as_millis()),
        }
    }

    pub(super) fn created(&self) -> Timestamp {
        Timestamp::from_millis(self.created)
    }

    pub(super) fn goes_with(&self, path: &str, host: &str, cross_site: bool, now: Timestamp) -> bool {
        let is_withheld = cross_site && self.same_site == Some(SameSite::Strict);
        let is_expired = self.expires.is_some_and(|at| Timestamp::from_millis(at) <= now);
        !is_withheld
            && !is_expired
            && path_matches(path, self.path)
            && self.domain.is_none_or(|domain| domain_matches(host, domain))
    }

    /// Name and value.
    pub(super) fn parts(&self) -> (&'a [u8], &'a [u8]) {
        (self.name, self.value)
    }

    pub(super) fn pair(&self) -> CookiePair {
        CookiePair { name: Bytes::copy_from_slice(self.name), value: Bytes::copy_from_slice(self.value) }
    }

    pub(super) fn cookie(&self) -> VaultCookie {
        VaultCookie {
            name: Bytes::copy_from_slice(self.name),
            value: Bytes::copy_from_slice(self.value),
            path: self.path.to_owned(),
            domain: self.domain.map(str::to_owned),
            expires: self.expires.map(Timestamp::from_millis),
            same_site: self.same_site,
            created: self.created(),
            used: Timestamp::from_millis(self.created.wrapping_add(self.used)),
        }
    }
}

/// The cookies as bytes, one behind the other.
pub(super) fn write(cookies: &[VaultCookie]) -> Vec<u8> {
    let size = |cookie: &VaultCookie| cookie.name.len() + cookie.value.len() + cookie.path.len() + 32;
    let bytes = Vec::with_capacity(cookies.iter().map(size).sum());
    // No part of a cookie is of a kind that cannot be written.
    cookies.iter().try_fold(bytes, |bytes, cookie| postcard::to_extend(&Held::of(cookie), bytes)).unwrap_or_default()
}

/// The cookies in these bytes; they end where it is no cookie that comes next.
pub(super) fn read(bytes: &[u8]) -> impl Iterator<Item = Held<'_>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (held, left) = postcard::take_from_bytes(rest).ok()?;
        rest = left;
        Some(held)
    })
}
