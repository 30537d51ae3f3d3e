//! The application's cookies: which are kept in the session (the *vault*), which are hardened,
//! passed or dropped, and which go with a request (product 3.3).

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::SameSite;
use crate::policy::cookie::SetCookie;
use crate::policy::glob::Glob;
use crate::policy::path::Target;

/// `[site.cookies] mode`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieMode {
    /// Vault what scripts cannot read and the well-known session cookies, harden the rest.
    #[default]
    Auto,
    /// Vault all but `relay` and `drop`.
    Vault,
    /// Harden all but `vault` and `drop`.
    Harden,
    /// Touch nothing but `vault` and `drop`.
    Pass,
}

/// `[site.cookies]`; lists are globs over cookie names. Precedence: drop, relay, vault, mode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CookieRules {
    /// What happens to cookies that no list names.
    pub mode: CookieMode,
    /// Kept in the session.
    pub vault: Vec<Glob>,
    /// Go to the browser, hardened (except in mode `pass`).
    pub relay: Vec<Glob>,
    /// Never reach the browser nor the application again.
    pub drop: Vec<Glob>,
}

/// What becomes of one `Set-Cookie` of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Kept in the session.
    Vault,
    /// To the browser with `Secure` and `SameSite=Lax`.
    Harden,
    /// To the browser as it is.
    Pass,
    /// Nowhere.
    Drop,
}

impl CookieRules {
    /// What becomes of this cookie. `learned`: names vaulted before in mode `auto` (a deletion has
    /// no HttpOnly, but must reach the vault).
    pub fn fate(&self, cookie: &SetCookie, learned: &dyn Fn(&[u8]) -> bool) -> Fate {
        let _ = (cookie, learned);
        Fate::Pass
    }

    /// Whether a client-sent cookie of this name is to be dropped, because it could only have come
    /// from the vault (or from before Vestibule was put in front).
    pub fn is_vaulted_name(&self, name: &[u8], learned: &dyn Fn(&[u8]) -> bool) -> bool {
        let _ = (name, learned);
        false
    }

    /// Whether `;jsessionid=` and the like are to be removed from request targets.
    pub fn vaults_servlet_sessions(&self) -> bool {
        false
    }
}

/// Whether a cookie name is one of the well-known session cookies of frameworks.
pub fn is_well_known_session(name: &[u8]) -> bool {
    let _ = name;
    false
}

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

/// The application's cookies of one session: at most 32 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vault {
    cookies: Vec<VaultCookie>,
}

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
}

impl VaultChange {
    /// What this `Set-Cookie`, received for `target` on `host`, does to a vault. `None` when a
    /// browser would refuse it for that host (foreign `Domain`, broken prefix rules).
    pub fn of(cookie: &SetCookie, target: &Target, host: &str, now: Timestamp) -> Option<Self> {
        let _ = (cookie, target, host, now);
        None
    }
}

impl Vault {
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
        let _ = (changes, now);
        None
    }

    /// Only the cookies for which `keep` holds.
    pub fn filtered(&self, keep: &dyn Fn(&VaultCookie) -> bool) -> Self {
        Self { cookies: self.cookies.iter().filter(|cookie| keep(cookie)).cloned().collect() }
    }

    /// The pairs that go with a request for `target` (longer paths first, then older first; not
    /// expired; `SameSite=Strict` ones not when `cross_site`). The leg to the app counts as secure.
    pub fn pairs_for(&self, target: &Target, host: &str, cross_site: bool, now: Timestamp) -> Vec<CookiePair> {
        let _ = (target, host, cross_site, now);
        Vec::new()
    }
}
