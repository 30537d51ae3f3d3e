//! Which of several upstreams is worth asking first, by what befell requests and health checks. None is
//! ever given up: one that is down is asked last.

use std::time::Duration;

use crate::clock::Timestamp;

/// So many requests in a row that came to nothing put an upstream out.
pub const FAILURES: u32 = 3;
/// So many failed checks in a row do; the first check of all decides by itself.
pub const FALL: u32 = 3;
/// So many passed ones bring it back.
pub const RISE: u32 = 2;
/// For how long it is put out first; twice as long each time that it fails again at once.
pub const OUT: Duration = Duration::from_secs(10);
/// The longest.
pub const OUT_AT_MOST: Duration = Duration::from_secs(120);

/// What is known of one upstream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Requests in a row that came to nothing.
    failures: u32,
    /// How often in a row it was put out.
    outs: u32,
    out_until: Timestamp,
    checks: Checks,
    /// Whether it was said to be down.
    is_down: bool,
}

/// What checks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Checks {
    /// Nothing yet.
    #[default]
    None,
    /// It passes; so many failures in a row.
    Pass(u32),
    /// It fails; so many passes in a row.
    Fail(u32),
}

/// What is news about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is down.
    Down,
    /// It is up again.
    Up,
}

impl Health {
    /// Whether it is worth asking before those that are not.
    pub fn is_up(&self, now: Timestamp) -> bool {
        now >= self.out_until && !matches!(self.checks, Checks::Fail(_))
    }

    /// Whether there is nothing to be forgotten by an answer.
    pub fn is_spotless(&self) -> bool {
        self.failures == 0 && self.outs == 0 && !self.is_down && !matches!(self.checks, Checks::Fail(_))
    }

    /// It gave a proper answer.
    pub fn answered(&mut self) -> Option<News> {
        (self.failures, self.outs, self.out_until) = (0, 0, Timestamp::default());
        self.rises()
    }

    /// A request came to nothing.
    pub fn failed(&mut self, now: Timestamp) -> Option<News> {
        self.failures = self.failures.saturating_add(1);
        if self.failures >= FAILURES { self.goes_out(now) } else { None }
    }

    /// It cannot be connected to.
    pub fn unreachable(&mut self, now: Timestamp) -> Option<News> {
        // Once it was, the next failure of any kind is one too many.
        self.failures = self.failures.max(FAILURES - 1);
        self.goes_out(now)
    }

    /// A health check passed, or did not.
    pub fn checked(&mut self, passed: bool) -> Option<News> {
        self.checks = match (self.checks, passed) {
            (Checks::None, true) | (Checks::Pass(_), true) => Checks::Pass(0),
            (Checks::None, false) | (Checks::Fail(_), false) => Checks::Fail(0),
            (Checks::Pass(failed), false) if failed + 1 < FALL => Checks::Pass(failed + 1),
            (Checks::Pass(_), false) => Checks::Fail(0),
            (Checks::Fail(passed), true) if passed + 1 < RISE => Checks::Fail(passed + 1),
            (Checks::Fail(_), true) => return self.recovers(),
        };
        if matches!(self.checks, Checks::Fail(_)) { self.falls() } else { None }
    }

    fn recovers(&mut self) -> Option<News> {
        self.checks = Checks::Pass(0);
        self.answered()
    }

    fn goes_out(&mut self, now: Timestamp) -> Option<News> {
        // What was under way when it went out says nothing new.
        if now >= self.out_until {
            let times = 1 << self.outs.min(16);
            self.out_until = now.plus(OUT.saturating_mul(times).min(OUT_AT_MOST));
            self.outs += 1;
        }
        self.falls()
    }

    fn falls(&mut self) -> Option<News> {
        (!std::mem::replace(&mut self.is_down, true)).then_some(News::Down)
    }

    fn rises(&mut self) -> Option<News> {
        let rises = self.is_down && !matches!(self.checks, Checks::Fail(_));
        rises.then(|| {
            self.is_down = false;
            News::Up
        })
    }
}

/// In which order to ask upstreams of which it is known whether they are up and how many requests they
/// have: those that are up first, of these the least busy, among equals in turn from `first`.
pub fn order(upstreams: &[(bool, usize)], first: usize) -> Vec<usize> {
    let count = upstreams.len();
    let mut order: Vec<usize> = (0..count).map(|step| (first % count.max(1) + step) % count).collect();
    order.sort_by_key(|index| upstreams.get(*index).map(|(is_up, busy)| (!is_up, *busy)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn failures_in_a_row_put_it_out_and_an_answer_forgives_them() {
        let mut health = Health::default();
        for _ in 0..FAILURES - 1 {
            assert_eq!(health.failed(at(0)), None);
        }
        assert_eq!(health.answered(), None);
        for _ in 0..FAILURES - 1 {
            assert_eq!(health.failed(at(0)), None);
        }
        assert!(health.is_up(at(0)));
        assert_eq!(health.failed(at(0)), Some(News::Down));
        assert_eq!(health.failed(at(0)), None, "it is said once");
        assert!(!health.is_up(at(9)) && health.is_up(at(10)));
        assert_eq!(health.answered(), Some(News::Up));
        assert!(health.is_spotless() && health.is_up(at(0)));
    }

    #[test]
    fn each_time_that_it_fails_again_it_is_out_for_longer() {
        let mut health = Health::default();
        let mut now = 0;
        for seconds in [10, 20, 40, 80, 120, 120, 120] {
            let news = health.unreachable(at(now));
            assert_eq!(news, (now == 0).then_some(News::Down));
            health.unreachable(at(now + 1));
            assert!(!health.is_up(at(now + seconds - 1)), "others that were under way do not make it longer");
            now += seconds;
            assert!(health.is_up(at(now)));
        }
        health.answered();
        assert_eq!(health.unreachable(at(now)), Some(News::Down));
        assert!(health.is_up(at(now + 10)), "after an answer it begins anew");
    }

    #[test]
    fn one_failure_after_its_return_is_enough() {
        let mut health = Health::default();
        health.unreachable(at(0));
        health.failed(at(10));
        assert!(!health.is_up(at(29)) && health.is_up(at(30)));
    }

    #[test]
    fn checks_decide_when_they_agree() {
        let mut health = Health::default();
        assert_eq!(health.checked(true), None);
        for _ in 0..FALL - 1 {
            assert_eq!(health.checked(false), None);
        }
        assert_eq!(health.checked(true), None);
        for _ in 0..FALL - 1 {
            assert_eq!(health.checked(false), None);
            assert!(health.is_up(at(0)));
        }
        assert_eq!(health.checked(false), Some(News::Down));
        assert!(!health.is_up(at(1000)), "it does not return by itself");
        assert_eq!(health.answered(), None, "nor by an answer");
        for _ in 0..RISE - 1 {
            assert_eq!(health.checked(true), None);
        }
        assert_eq!(health.checked(false), None);
        for _ in 0..RISE - 1 {
            assert_eq!(health.checked(true), None);
        }
        assert!(!health.is_up(at(1000)));
        assert_eq!(health.checked(true), Some(News::Up));
        assert!(health.is_up(at(0)) && health.is_spotless());
    }

    #[test]
    fn the_first_check_decides_at_once() {
        let mut health = Health::default();
        assert_eq!(health.checked(false), Some(News::Down));
        assert!(!health.is_up(at(0)));
    }

    #[test]
    fn checks_bring_one_back_before_its_time_is_over() {
        let mut health = Health::default();
        health.checked(true);
        health.unreachable(at(0));
        for _ in 0..FALL {
            health.checked(false);
        }
        for _ in 0..RISE - 1 {
            health.checked(true);
        }
        assert_eq!(health.checked(true), Some(News::Up));
        assert!(health.is_up(at(1)));
    }

    #[test]
    fn the_least_busy_goes_first_and_who_is_down_last() {
        for (upstreams, first, expected) in [
            (&[(true, 0), (true, 0), (true, 0)][..], 0, &[0, 1, 2][..]),
            (&[(true, 0), (true, 0), (true, 0)], 4, &[1, 2, 0]),
            (&[(true, 2), (true, 1), (true, 3)], 0, &[1, 0, 2]),
            (&[(false, 0), (true, 9), (true, 9)], 0, &[1, 2, 0]),
            (&[(false, 1), (false, 0)], 0, &[1, 0]),
            (&[(true, 7)], usize::MAX, &[0]),
            (&[], 3, &[]),
        ] {
            assert_eq!(order(upstreams, first), expected, "{upstreams:?} {first}");
        }
    }
}
