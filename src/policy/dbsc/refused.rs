//! Why a browser's key is not registered, or its session not refreshed.

use crate::policy::dbsc::BadProof;

/// Why a registration or a refresh is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedDevice {
    /// There is no session for it (any more).
    NoSession,
    /// The session was not offered any.
    NotOffered,
    /// More than a minute after the login.
    Late,
    /// A key is registered already (S63).
    Again,
    /// A script of a page asks, and not the browser.
    Script,
    /// Nobody registered under this identifier.
    Unknown,
    /// What is kept of the key was changed by somebody else.
    Unusable,
    /// From where the session may not be used.
    WrongClient,
    /// More proofs in a minute than any browser signs.
    TooMany,
    /// The proof proves nothing.
    Proof(BadProof),
}

impl RefusedDevice {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSession => "no-session",
            Self::NotOffered => "not-offered",
            Self::Late => "late",
            Self::Again => "again",
            Self::Script => "script",
            Self::Unknown => "unknown",
            Self::Unusable => "unusable",
            Self::WrongClient => "binding",
            Self::TooMany => "too-many",
            Self::Proof(bad) => bad.as_str(),
        }
    }

    /// Whether it is no more than a session that has ended, or a browser that was slow.
    pub fn is_usual(self) -> bool {
        match self {
            Self::NoSession | Self::NotOffered | Self::Late | Self::Unknown | Self::WrongClient => true,
            Self::Again | Self::Script | Self::Unusable | Self::TooMany | Self::Proof(_) => false,
        }
    }
}
