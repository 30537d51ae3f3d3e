//! Rotation: confirm before retire. A chain knows the digest of its current verifier, and either a
//! successor that was handed out but not yet presented, or the predecessor and when it retired.

use std::time::Duration;

use crate::clock::Timestamp;

/// SHA-256 of a verifier.
pub type VerifierDigest = [u8; 32];

/// Where a chain stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Digest of the verifier that was last confirmed.
    pub current: VerifierDigest,
    /// When `current` was minted.
    pub minted: Timestamp,
    /// What else is valid.
    pub turn: Turn,
}

/// What else a chain accepts beside its current verifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing.
    Steady,
    /// A successor was handed out; everyone who presents `current` gets the same one.
    Offered {
        /// Digest of the successor.
        successor: VerifierDigest,
        /// The successor's verifier, sealed under a key derived from the current verifier.
        sealed: [u8; 16],
        /// When it was minted.
        minted: Timestamp,
    },
    /// The successor was presented and is `current` now; the predecessor is still accepted for the
    /// grace period counted from then.
    Confirmed {
        /// Digest of the predecessor.
        predecessor: VerifierDigest,
        /// When the successor was first presented.
        at: Timestamp,
    },
}

/// What a presented verifier is to the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The current one.
    Current,
    /// The successor, presented for the first time: confirm it.
    Successor,
    /// The current one while a successor is offered: gets that successor's cookie.
    Superseded,
    /// The predecessor within its grace: accepted, gets no cookie.
    InGrace,
    /// Any other: a copied or ancient ID.
    Reused,
}

impl Chain {
    /// A chain that begins with this verifier.
    pub fn begin(verifier: &[u8; 16], now: Timestamp) -> Self {
        let _ = verifier;
        Self { current: [0; 32], minted: now, turn: Turn::Steady }
    }

    /// What the presented verifier is at `now` (constant-time comparisons).
    pub fn standing(&self, verifier: &[u8; 16], grace: Duration, now: Timestamp) -> Standing {
        let _ = (verifier, grace, now);
        Standing::Current
    }

    /// The chain after the successor was presented; `None` when there is none to confirm.
    pub fn confirm(&self, now: Timestamp) -> Option<Self> {
        let _ = now;
        None
    }

    /// The chain with `successor` offered to whoever presents `current`.
    pub fn offer(&self, current: &[u8; 16], successor: &[u8; 16], now: Timestamp) -> Self {
        let _ = (current, successor, now);
        self.clone()
    }

    /// The offered successor, opened with the current verifier.
    pub fn successor(&self, current: &[u8; 16]) -> Option<[u8; 16]> {
        let _ = current;
        None
    }

    /// Whether the current verifier has served its time.
    pub fn is_due(&self, rotate_every: Duration, now: Timestamp) -> bool {
        now.since(self.minted) >= rotate_every
    }
}
