//! Sessions as values: the ID (selector and verifier), the key a store sees, the record it keeps.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use crate::clock::Timestamp;
use crate::policy::binding::Binding;
use crate::policy::binding::BindingRules;
use crate::policy::chain::Chain;
use crate::policy::vault::Vault;

/// The secret in the browser's cookie: a selector that stays for the life of a chain and a verifier
/// that is new at each rotation, 16 bytes each, together 43 characters of base64url. Never stored,
/// never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId {
    selector: [u8; 16],
    verifier: [u8; 16],
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// What a store is asked for: SHA-256 of the selector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", self.session_ref())
    }
}

impl SessionKey {
    /// The public short handle of the session for logs and the admin API: 16 characters of
    /// base64url, from a second hash so that it says nothing about the key.
    pub fn session_ref(&self) -> String {
        String::new()
    }
}

impl SessionId {
    /// From 32 random bytes: selector, then verifier.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let mut id = Self { selector: [0; 16], verifier: [0; 16] };
        id.selector.copy_from_slice(&bytes[..16]);
        id.verifier.copy_from_slice(&bytes[16..]);
        id
    }

    /// Exactly 43 characters of canonical base64url, else `None` and no store access (S20).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let _ = text;
        None
    }

    /// The key under which the store keeps the record.
    pub fn key(&self) -> SessionKey {
        SessionKey([0; 32])
    }

    /// Same selector, other verifier.
    pub fn with_verifier(&self, verifier: [u8; 16]) -> Self {
        Self { selector: self.selector, verifier }
    }

    /// The verifier.
    pub fn verifier(&self) -> &[u8; 16] {
        &self.verifier
    }

    /// The selector.
    pub fn selector(&self) -> &[u8; 16] {
        &self.selector
    }

    /// The cookie's value. One caller: the cookie writer.
    pub fn expose(&self) -> String {
        String::new()
    }
}

/// A user name that may be put in a header and in a log: 1 to 256 bytes, NFC, no control
/// characters, no leading or trailing white space.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserName(Arc<str>);

/// Why a text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUserName {
    /// Nothing in it.
    #[error("the user name is empty")]
    Empty,
    /// More than 256 bytes.
    #[error("the user name is longer than 256 bytes")]
    TooLong,
    /// A control character.
    #[error("the user name has a control character")]
    Control,
}

impl UserName {
    /// Trims, normalises to NFC, checks.
    ///
    /// # Errors
    /// When nothing is left, or it is too long, or it has control characters.
    pub fn parse(text: &str) -> Result<Self, BadUserName> {
        if text.is_empty() { Err(BadUserName::Empty) } else { Ok(Self(Arc::from(text))) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a header value: printable ASCII as it is, except `%`; everything else percent-encoded
    /// UTF-8 (S67).
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_static("")
    }
}

/// Who an authenticated session belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub user: UserName,
    /// The name as a header value, prepared once.
    pub header: HeaderValue,
    /// When the user logged in.
    pub authenticated: Timestamp,
    /// The session's public handle.
    pub session_ref: Arc<str>,
}

/// What a store keeps for one chain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which site issued it: index-free name, the origin's text. Valid only there (VR-55).
    pub site: Arc<str>,
    /// `None`: anonymous, exists only to hold a vault.
    pub identity: Option<Arc<Identity>>,
    /// When the chain began.
    pub created: Timestamp,
    /// Last activity; a store may keep it apart from the rest.
    pub seen: Timestamp,
    /// Nothing extends it: authentication (or creation) plus the absolute timeout.
    pub absolute_end: Timestamp,
    /// Current and previous verifier, successor.
    pub chain: Chain,
    /// The client at creation.
    pub binding: Binding,
    /// The application's cookies.
    pub vault: Arc<Vault>,
    /// Grows with each change but `seen`: for compare-and-swap.
    pub revision: u64,
}

/// `[session]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// [30m]
    pub idle: Duration,
    /// [8h]
    pub absolute: Duration,
    /// [30m], at most 2h
    pub anonymous: Duration,
    /// [15m], `None` is off
    pub rotate_every: Option<Duration>,
    /// [30s]
    pub rotation_grace: Duration,
    /// unlimited when `None`
    pub max_per_user: Option<u32>,
    /// Address and user-agent binding.
    pub binding: BindingRules,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The user logged out.
    Logout,
    /// No activity.
    Idle,
    /// Too old.
    Absolute,
    /// Ended by an administrator.
    Revoked,
    /// Pushed out by a newer one.
    Displaced,
    /// A copied ID was used.
    Reuse,
    /// Another client presented it.
    Binding,
    /// Replaced by a login.
    Login,
    /// The store lost it.
    Store,
}

impl EndReason {
    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Idle => "idle",
            Self::Absolute => "absolute",
            Self::Revoked => "revoked",
            Self::Displaced => "displaced",
            Self::Reuse => "reuse",
            Self::Binding => "binding",
            Self::Login => "login",
            Self::Store => "store",
        }
    }
}
