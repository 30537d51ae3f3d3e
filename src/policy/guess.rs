//! Guessing session IDs: who presents many that are no sessions here (S59). No guess ever meets a
//! session; this is about being told, and about not being asked so often.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::policy::session::SessionKey;

/// IDs that clients of one address prefix may present in a [`WINDOW`] although they are refused. Browsers
/// that share an address may all have one whose session is gone, after a restart of what keeps them.
pub const LIMIT: usize = 190;
/// What they are counted in.
pub const WINDOW: Duration = Duration::from_secs(60);

/// The refused IDs of one address prefix. Each counts once: a browser presents the same one with every
/// request.
#[derive(Debug, Default)]
pub struct Guesses {
    since: Timestamp,
    /// The first bytes of their keys, which are hashes.
    ids: Vec<[u8; 8]>,
    is_known: bool,
}

/// What is done about one more refused ID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guess {
    /// Nothing.
    Few,
    /// It is told, and the client is to wait so long.
    First(Duration),
    /// The client is to wait so long.
    Further(Duration),
}

impl Guesses {
    /// Counts an ID that was refused.
    pub fn count(&mut self, key: &SessionKey, now: Timestamp) -> Guess {
        if self.is_over(now) {
            *self = Self { since: now, ..Self::default() };
        }
        let mut id = [0; 8];
        id.copy_from_slice(&key.0[..8]);
        if self.ids.contains(&id) {
            return Guess::Few;
        }
        if self.ids.len() < LIMIT {
            self.ids.push(id);
            return Guess::Few;
        }
        let wait = self.since.plus(WINDOW).since(now);
        if std::mem::replace(&mut self.is_known, true) { Guess::Further(wait) } else { Guess::First(wait) }
    }

    /// Whether nothing that was counted counts any more; so it is when the clock ran backwards.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now < self.since || now.since(self.since) >= WINDOW
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> SessionKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_le_bytes());
        SessionKey(key)
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + seconds * 1000)
    }

    #[test]
    fn the_first_one_too_many_is_told_and_all_further_ones_wait() {
        // S59
        let mut guesses = Guesses::default();
        for number in 0..LIMIT {
            assert_eq!(guesses.count(&key(number), at(0)), Guess::Few, "{number}");
        }
        assert_eq!(guesses.count(&key(LIMIT), at(20)), Guess::First(Duration::from_secs(40)));
        assert_eq!(guesses.count(&key(LIMIT), at(30)), Guess::Further(Duration::from_secs(30)));
        assert_eq!(guesses.count(&key(LIMIT + 1), at(59)), Guess::Further(Duration::from_secs(1)));
        assert_eq!(guesses.count(&key(5), at(59)), Guess::Few, "one that was counted before");
        assert_eq!(guesses.count(&key(LIMIT + 1), at(60)), Guess::Few, "another minute");
    }

    #[test]
    fn a_browser_that_keeps_presenting_a_dead_one_guesses_nothing() {
        let mut guesses = Guesses::default();
        for _ in 0..10 * LIMIT {
            assert_eq!(guesses.count(&key(1), at(0)), Guess::Few);
        }
    }

    #[test]
    fn a_clock_that_ran_backwards_makes_nobody_wait() {
        // S39
        let mut guesses = Guesses::default();
        for number in 0..LIMIT {
            guesses.count(&key(number), at(3600));
        }
        assert_eq!(guesses.count(&key(LIMIT), at(0)), Guess::Few);
    }
}
