//! Activity that is not in Redis yet: a session that is used all the time is written now and then.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

use crate::clock::Timestamp;
use crate::store::redis::names::Ref;

/// The longest that activity waits to be written.
const LONGEST: Duration = Duration::from_secs(5);

/// Activity of one session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    /// The first that is not written: the session was alive then.
    pub(super) first: Timestamp,
    /// The last.
    pub(super) last: Timestamp,
    /// How long it may idle.
    pub(super) idle: Duration,
    due: Instant,
}

/// All activity that is to be written.
#[derive(Default)]
pub(super) struct Touches {
    waiting: Mutex<HashMap<Ref, Touch>>,
}

impl Touches {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Ref, Touch>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes activity of a session that lives.
    pub(super) fn note(&self, name: Ref, seen: Timestamp, idle: Duration) {
        let mut waiting = self.waiting();
        let due = || Instant::now() + LONGEST.min(idle / 20);
        let touch = waiting.entry(name).or_insert_with(|| Touch { first: seen, last: seen, idle, due: due() });
        touch.last = touch.last.max(seen);
        touch.idle = idle;
    }

    /// The last activity of a session that was read with this one.
    pub(super) fn latest(&self, name: &Ref, read: Timestamp) -> Timestamp {
        self.waiting().get(name).map_or(read, |touch| touch.last.max(read))
    }

    /// What is due to be written; everything at the end.
    pub(super) fn due(&self, is_end: bool) -> Vec<(Ref, Touch)> {
        let now = Instant::now();
        let waiting = self.waiting();
        waiting.iter().filter(|(_, touch)| is_end || touch.due <= now).map(|(name, touch)| (*name, *touch)).collect()
    }

    /// It is written, up to there.
    pub(super) fn written(&self, name: &Ref, upto: Touch) {
        let mut waiting = self.waiting();
        if let Some(touch) = waiting.get_mut(name) {
            if touch.last <= upto.last {
                waiting.remove(name);
            } else {
                touch.first = upto.last;
                touch.due = Instant::now() + LONGEST.min(touch.idle / 20);
            }
        }
    }

    /// The session is gone.
    pub(super) fn drop(&self, name: &Ref) {
        self.waiting().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_it_is_written_is_written_next() {
        let touches = Touches::default();
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let name = [1; 16];
        touches.note(name, at(10), Duration::ZERO);
        touches.note(name, at(12), Duration::ZERO);
        touches.note(name, at(11), Duration::ZERO);
        let due = touches.due(false);
        assert_eq!((due[0].1.first, due[0].1.last), (at(10), at(12)));
        assert_eq!(touches.latest(&name, at(5)), at(12));
        touches.note(name, at(13), Duration::ZERO);
        touches.written(&name, due[0].1);
        assert_eq!(touches.latest(&name, at(5)), at(13));
        touches.written(&name, touches.due(true)[0].1);
        assert_eq!(touches.latest(&name, at(5)), at(5));
    }
}
