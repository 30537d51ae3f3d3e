//! What a browser has to sign next. Each is good for one proof, as long as its session lives: after a pause
//! browsers sign what they have, and every signature that is asked for twice counts against their quota. The
//! one before it stays good for a moment, for proofs that were on their way when it was replaced.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq;

use crate::clock::Timestamp;
use crate::policy::dbsc::encoded;

/// How long the one before is good: parallel proofs, and those whose answer was lost, are repeated (S63).
const GRACE: Duration = Duration::from_secs(30);

/// A challenge and since when it stands where it stands.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenge {
    /// 256 random bits.
    pub value: [u8; 32],
    /// For the current one: when it was issued; for its predecessor: when it was replaced.
    pub since: Timestamp,
}

impl Challenge {
    fn is(&self, text: &str) -> bool {
        encoded(&self.value).as_bytes().ct_eq(text.as_bytes()).into()
    }
}

/// The last two challenges of a bound session.
#[derive(Clone, PartialEq, Eq)]
pub struct Challenges {
    /// The one that is to be signed.
    pub current: Challenge,
    /// The one before.
    pub previous: Option<Challenge>,
}

impl fmt::Debug for Challenges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Challenges(..)")
    }
}

/// What a signed challenge is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The current one: it is to be replaced.
    Current,
    /// The one before, a moment ago: nothing changes.
    Previous,
    /// Another's, or too old.
    Stale,
}

impl Challenges {
    /// The first one.
    pub fn begin(value: [u8; 32], now: Timestamp) -> Self {
        Self { current: Challenge { value, since: now }, previous: None }
    }

    /// What the challenge that was signed is (constant-time comparisons).
    pub fn answered(&self, jti: &str, now: Timestamp) -> Answered {
        if self.current.is(jti) {
            return Answered::Current;
        }
        let is_previous = |previous: &Challenge| previous.is(jti) && now.since(previous.since) < GRACE;
        if self.previous.as_ref().is_some_and(is_previous) { Answered::Previous } else { Answered::Stale }
    }

    /// With another one in its place.
    pub fn next(&self, value: [u8; 32], now: Timestamp) -> Self {
        let previous = Challenge { value: self.current.value, since: now };
        Self { current: Challenge { value, since: now }, previous: Some(previous) }
    }

    /// The current one as browsers get it.
    pub fn text(&self) -> String {
        encoded(&self.current.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn a_challenge_is_good_once_and_a_moment_longer() {
        // S62
        let first = Challenges::begin([1; 32], at(0));
        let old = first.text();
        assert_eq!(first.answered(&old, at(28_800)), Answered::Current, "as long as there is a session");

        let second = first.next([2; 32], at(100));

        assert_eq!(second.answered(&second.text(), at(100)), Answered::Current);
        assert_eq!(second.answered(&old, at(129)), Answered::Previous);
        assert_eq!(second.answered(&old, at(130)), Answered::Stale);
        let third = second.next([3; 32], at(101));
        assert_eq!(third.answered(&old, at(101)), Answered::Stale, "the last two are known");
        assert_eq!(third.answered(&second.text(), at(101)), Answered::Previous);
    }

    #[test]
    fn others_challenges_are_none() {
        let challenges = Challenges::begin([1; 32], at(0));
        for other in ["", "x", &encoded(&[2; 32]), &format!("{}A", challenges.text())] {
            assert_eq!(challenges.answered(other, at(1)), Answered::Stale, "{other}");
        }
    }
}
