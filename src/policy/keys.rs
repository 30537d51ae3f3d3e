//! When a key signs, when the next one is made, and until when one is published. Whoever verifies keeps
//! what was published for a while: a key is known a day before it signs, and an hour after it has. All of it
//! is by the time of day: processes that share keys know it from the same source, also after one of them was
//! suspended for days.

use std::time::Duration;

use crate::clock::Timestamp;

/// How long a key signs.
const PERIOD: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long before that it is published.
const AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
/// How long after that; longer than any statement holds.
const BEHIND: Duration = Duration::from_secs(60 * 60);

/// Which of the keys that begin to sign then (in order) signs now. When the clock was set back behind all of
/// them, the first does: it is published.
pub fn signer(begins: &[Timestamp], now: Timestamp) -> Option<usize> {
    begins.iter().rposition(|begin| *begin <= now).or_else(|| (!begins.is_empty()).then_some(0))
}

/// From when on a new key is to sign, if it is time to make one.
pub fn due(begins: &[Timestamp], now: Timestamp) -> Option<Timestamp> {
    // One that was made under a clock that was far ahead keeps no other from being made.
    let Some(last) = begins.iter().rfind(|begin| **begin <= now.plus(AHEAD)) else { return Some(now) };
    (last.plus(PERIOD) <= now.plus(AHEAD)).then(|| now.plus(AHEAD))
}

/// Whether the key at this place has been replaced for so long that nothing needs it any more.
pub fn is_over(begins: &[Timestamp], place: usize, now: Timestamp) -> bool {
    begins.get(place + 1).is_some_and(|next| next.plus(BEHIND) <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(1000 * DAY + millis)
    }

    fn all<const N: usize>(begins: [u64; N]) -> [Timestamp; N] {
        begins.map(at)
    }

    #[test]
    fn the_latest_that_has_begun_signs() {
        let keys = all([0, 30 * DAY]);
        for (now, signs) in [(0, Some(0)), (30 * DAY - 1, Some(0)), (30 * DAY, Some(1)), (90 * DAY, Some(1))] {
            assert_eq!(signer(&keys, at(now)), signs, "{now}");
        }
        assert_eq!((signer(&keys[1..], at(0)), signer(&[], at(0))), (Some(0), None));
    }

    #[test]
    fn the_next_is_made_a_day_before_it_signs() {
        assert_eq!(due(&[], at(0)), Some(at(0)));
        assert_eq!(due(&all([0]), at(29 * DAY - 1)), None);
        assert_eq!(due(&all([0]), at(29 * DAY)), Some(at(30 * DAY)));
        assert_eq!(due(&all([0, 30 * DAY]), at(29 * DAY)), None);
        // Nothing was there to make it in time: whoever verifies is to know it all the same.
        assert_eq!(due(&all([0]), at(80 * DAY)), Some(at(81 * DAY)));
    }

    #[test]
    fn a_clock_that_was_wrong_stops_nothing() {
        let far = all([500 * DAY]);
        assert_eq!(due(&far, at(0)), Some(at(0)));
        let both = all([0, 500 * DAY]);
        assert_eq!(due(&both, at(29 * DAY)), Some(at(30 * DAY)));
        assert_eq!(signer(&both, at(29 * DAY)), Some(0));
        assert_eq!(due(&all([5 * DAY]), at(0)), Some(at(0)));
        assert_eq!((due(&all([DAY]), at(0)), signer(&all([DAY]), at(0))), (None, Some(0)));
    }

    #[test]
    fn one_is_published_an_hour_longer_than_it_signs() {
        let (keys, hour) = (all([0, 30 * DAY]), 60 * 60 * 1000);
        assert!(!is_over(&keys, 0, at(30 * DAY + hour - 1)));
        assert!(is_over(&keys, 0, at(30 * DAY + hour)));
        assert!(!is_over(&keys, 1, at(400 * DAY)));
    }
}
