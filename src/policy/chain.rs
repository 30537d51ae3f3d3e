//! Rotation: confirm before retire. A chain knows the digest of its current verifier, and either a
//! successor that was handed out but not yet presented, or the predecessor and when it retired.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::policy::binding::Binding;

/// The first half of SHA-256 of a verifier, as long as the verifier: whoever finds another one with the
/// same half could as well guess the verifier.
pub type VerifierDigest = [u8; 16];

/// Where a chain stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Chain {
    /// Digest of the verifier that was last confirmed.
    pub current: VerifierDigest,
    /// When `current` was minted.
    pub minted: Timestamp,
    /// The client that was the first to be handed the newest verifier, or to present it; `None` before
    /// there was another one than the first.
    pub holder: Option<Binding>,
    /// What else is valid.
    pub turn: Turn,
}

/// What else a chain accepts beside its current verifier.
#[derive(Clone, PartialEq, Eq)]
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
        /// Whether it was handed to another client than the holder as well.
        shared: bool,
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

/// Whether a response sets our cookie.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Owed {
    /// It does not.
    Nothing,
    /// To the successor that was minted already.
    Successor([u8; 16]),
    /// To a successor that is to be minted.
    New,
}

impl fmt::Debug for Owed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "Nothing",
            Self::Successor(_) => "Successor(..)",
            Self::New => "New",
        })
    }
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

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let turn = match self.turn {
            Turn::Steady => "steady",
            Turn::Offered { .. } => "offered",
            Turn::Confirmed { .. } => "confirmed",
        };
        write!(f, "Chain({turn})")
    }
}

impl Chain {
    /// A chain that begins with this verifier.
    pub fn begin(verifier: &[u8; 16], now: Timestamp) -> Self {
        Self { current: digest_of(verifier), minted: now, holder: None, turn: Turn::Steady }
    }

    /// What the presented verifier is at `now` (constant-time comparisons).
    pub fn standing(&self, verifier: &[u8; 16], grace: Duration, now: Timestamp) -> Standing {
        let presented = digest_of(verifier);
        let is = |known: &VerifierDigest| bool::from(presented.ct_eq(known));
        match &self.turn {
            Turn::Offered { .. } if is(&self.current) => Standing::Superseded,
            Turn::Offered { successor, .. } if is(successor) => Standing::Successor,
            Turn::Steady | Turn::Confirmed { .. } if is(&self.current) => Standing::Current,
            Turn::Confirmed { predecessor, at } if is(predecessor) && now.since(*at) < grace => Standing::InGrace,
            Turn::Steady | Turn::Offered { .. } | Turn::Confirmed { .. } => Standing::Reused,
        }
    }

    /// The chain after the successor was presented by this client; `None` when there is none to confirm.
    pub fn confirm(&self, by: Binding, now: Timestamp) -> Option<Self> {
        match self.turn {
            Turn::Offered { successor, minted, .. } => {
                let turn = Turn::Confirmed { predecessor: self.current, at: now };
                Some(Self { current: successor, minted, holder: Some(by), turn })
            }
            Turn::Steady | Turn::Confirmed { .. } => None,
        }
    }

    /// The chain with `successor` offered to whoever presents `current`, of whom this client is the first.
    pub fn offer(&self, current: &[u8; 16], successor: &[u8; 16], to: Binding, now: Timestamp) -> Self {
        let digest = digest_of(successor);
        let sealed = seal(current, &digest, successor);
        let turn = Turn::Offered { successor: digest, sealed, minted: now, shared: false };
        Self { current: self.current, minted: self.minted, holder: Some(to), turn }
    }

    /// The chain after its successor was handed to this client, too; `None` when that is nothing to be
    /// remembered: the same client, or not the first other one.
    pub fn share(&self, with: &Binding) -> Option<Self> {
        let mut chain = self.clone();
        match &mut chain.turn {
            Turn::Offered { shared: shared @ false, .. } if !self.holder.as_ref()?.changes(with).is_empty() => {
                *shared = true;
                Some(chain)
            }
            Turn::Steady | Turn::Offered { .. } | Turn::Confirmed { .. } => None,
        }
    }

    /// The offered successor, opened with the current verifier; `None` when there is none, or the
    /// record was tampered with.
    pub fn successor(&self, current: &[u8; 16]) -> Option<[u8; 16]> {
        let Turn::Offered { successor, sealed, .. } = &self.turn else { return None };
        let opened = seal(current, successor, sealed);
        bool::from(digest_of(&opened).ct_eq(successor)).then_some(opened)
    }

    /// What a response to whoever presented this verifier owes. No successor is minted while a
    /// predecessor is in its grace, which would cut that short.
    pub fn owes(&self, verifier: &[u8; 16], every: Duration, grace: Duration, now: Timestamp) -> Owed {
        let is_offered = matches!(self.turn, Turn::Offered { .. });
        if !is_offered && self.age(now) < every {
            // Most responses leave long before it is time: who presented what does not matter to them.
            return Owed::Nothing;
        }
        let in_grace = matches!(self.turn, Turn::Confirmed { at, .. } if now.since(at) < grace);
        match self.standing(verifier, grace, now) {
            Standing::Superseded => self.successor(verifier).map_or(Owed::Nothing, Owed::Successor),
            Standing::Current if !in_grace && self.age(now) >= every => Owed::New,
            Standing::Current | Standing::Successor | Standing::InGrace | Standing::Reused => Owed::Nothing,
        }
    }

    /// For how long the current verifier has been in use.
    pub fn age(&self, now: Timestamp) -> Duration {
        now.since(self.minted)
    }
}

fn digest_of(verifier: &[u8; 16]) -> VerifierDigest {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest::digest(&digest::SHA256, verifier).as_ref()[..16]);
    bytes
}

/// Seals or opens 16 bytes: XOR with a pad that only the holder of `current` can compute, and that
/// no other successor shares. Its integrity is that of the successor's digest.
fn seal(current: &[u8; 16], successor: &VerifierDigest, text: &[u8; 16]) -> [u8; 16] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, current);
    let mut context = hmac::Context::with_key(&key);
    context.update(b"vestibule successor");
    context.update(successor);
    let mut sealed = *text;
    for (byte, pad) in sealed.iter_mut().zip(context.sign().as_ref()) {
        *byte ^= pad;
    }
    sealed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);
    const EVERY: Duration = Duration::from_secs(900);
    const A: [u8; 16] = [1; 16];
    const B: [u8; 16] = [2; 16];
    const C: [u8; 16] = [3; 16];

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    fn client(address: [u8; 4]) -> Binding {
        Binding::new(address.into(), Some("test"))
    }

    fn here() -> Binding {
        client([192, 0, 2, 1])
    }

    fn offered() -> Chain {
        Chain::begin(&A, at(0)).offer(&A, &B, here(), at(900))
    }

    #[test]
    fn verifiers_are_kept_and_compared_as_digests() {
        // S19: half of the SHA-256 digest, so that a comparison tells nothing of what it is compared with.
        let chain = Chain::begin(&A, at(0));
        assert_eq!(chain.current[..8], [0xcc, 0x8c, 0xd4, 0x1c, 0xef, 0x90, 0x7c, 0x4d]);
    }

    #[test]
    fn the_successor_is_handed_out_until_it_is_presented() {
        // S33, S34: everyone who presents the predecessor gets the same one.
        let offered = offered();
        assert_eq!(offered.standing(&A, GRACE, at(5000)), Standing::Superseded);
        assert_eq!(offered.successor(&A), Some(B));
        assert_eq!(offered.standing(&B, GRACE, at(5000)), Standing::Successor);
        assert_eq!(offered.standing(&C, GRACE, at(900)), Standing::Reused);
        assert_eq!(offered.owes(&A, EVERY, GRACE, at(5000)), Owed::Successor(B));
        assert_eq!(offered.owes(&C, EVERY, GRACE, at(5000)), Owed::Nothing);
    }

    #[test]
    fn the_predecessor_retires_a_grace_after_the_confirmation() {
        // S35
        let confirmed = offered().confirm(here(), at(1000)).unwrap();
        assert_eq!(confirmed.standing(&B, GRACE, at(1000)), Standing::Current);
        assert_eq!(confirmed.standing(&A, GRACE, Timestamp::from_millis(1_029_999)), Standing::InGrace);
        assert_eq!(confirmed.standing(&A, GRACE, at(1030)), Standing::Reused);
        assert_eq!(confirmed.confirm(here(), at(1000)), None);
        assert_eq!(confirmed.owes(&B, EVERY, GRACE, at(1799)), Owed::Nothing);
        assert_eq!(confirmed.owes(&B, EVERY, GRACE, at(1800)), Owed::New);
        assert_eq!(confirmed.owes(&A, EVERY, GRACE, at(1010)), Owed::Nothing);
    }

    #[test]
    fn a_grace_is_never_cut_short() {
        // Presented for the first time when it is nearly due itself.
        let confirmed = offered().confirm(here(), at(1790)).unwrap();
        assert_eq!(confirmed.owes(&B, EVERY, GRACE, at(1819)), Owed::Nothing);
        assert_eq!(confirmed.owes(&B, EVERY, GRACE, at(1820)), Owed::New);
    }

    #[test]
    fn only_the_current_verifier_opens_the_successor() {
        let offered = offered();
        assert_eq!(offered.successor(&C), None);
        let Turn::Offered { sealed, .. } = &offered.turn else { panic!("offered") };
        assert_ne!(*sealed, B);
    }

    #[test]
    fn a_successor_that_two_clients_were_handed_is_remembered_once() {
        let offered = offered();
        assert_eq!(offered.share(&client([192, 0, 2, 99])), None, "the same network");
        let shared = offered.share(&client([198, 51, 100, 1])).unwrap();
        assert_eq!(shared.share(&client([203, 0, 113, 1])), None);
        assert_eq!((shared.successor(&A), shared.holder.as_ref()), (Some(B), offered.holder.as_ref()));
        let confirmed = shared.confirm(client([203, 0, 113, 1]), at(1000)).unwrap();
        assert_eq!(confirmed.share(&here()), None);
        assert_eq!(confirmed.holder.unwrap(), client([203, 0, 113, 1]), "who presented it first");
    }

    #[test]
    fn a_chain_prints_no_digest() {
        assert_eq!(format!("{:?}", Chain::begin(&A, at(0))), "Chain(steady)");
    }

    proptest! {
        /// A client that always presents the newest ID it received, and may lose any response, is
        /// never taken for a thief; an ID that retired longer ago than the grace always is.
        #[test]
        fn honest_clients_stay_in_step(steps in proptest::collection::vec((any::<bool>(), 1u64..2000), 1..60)) {
            let (mut now, mut counter) = (at(0), 0u8);
            let mut held = [0u8; 16];
            let mut retired: Vec<([u8; 16], Timestamp)> = Vec::new();
            let mut chain = Chain::begin(&held, now);
            for (response_arrives, pause) in steps {
                now = now.plus(Duration::from_secs(pause));
                let mut standing = chain.standing(&held, GRACE, now);
                if standing == Standing::Successor {
                    chain = chain.confirm(here(), now).unwrap();
                    standing = chain.standing(&held, GRACE, now);
                }
                prop_assert!(matches!(standing, Standing::Current | Standing::Superseded));
                if chain.owes(&held, EVERY, GRACE, now) == Owed::New {
                    counter += 1;
                    chain = chain.offer(&held, &[counter; 16], here(), now);
                }
                for (old, since) in &retired {
                    if now.since(*since) >= GRACE * 2 + EVERY {
                        prop_assert_eq!(chain.standing(old, GRACE, now), Standing::Reused);
                    }
                }
                if let Some(successor) = chain.successor(&held).filter(|_| response_arrives) {
                    retired.push((held, now.plus(Duration::from_secs(2000))));
                    held = successor;
                }
            }
        }
    }
}
