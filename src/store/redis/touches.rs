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

/// How long activity waits that could not be written.
const AGAIN: Duration = Duration::from_secs(1);

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

impl Touch {
    /// Activity that does not wait.
    pub(super) fn now(seen: Timestamp, idle: Duration) -> Self {
        Self { first: seen, last: seen, idle, due: Instant::now() }
    }
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
        let touch = waiting.entry(name).or_insert_with(|| {
            let due = Instant::now() + LONGEST.min(idle / 20);
            Touch { due, ..Touch::now(seen, idle) }
        });
        touch.last = touch.last.max(seen);
        touch.idle = idle;
    }

    /// The last activity of a session that was read with this one.
    pub(super) fn latest(&self, name: &Ref, read: Timestamp) -> Timestamp {
        self.waiting().get(name).map_or(read, |touch| touch.last.max(read))
    }

    /// Whose activity is due to be written; everybody's at the end.
    pub(super) fn due(&self, is_end: bool) -> Vec<Ref> {
        let now = Instant::now();
        let waiting = self.waiting();
        waiting.iter().filter(|(_, touch)| is_end || touch.due <= now).map(|(name, _)| *name).collect()
    }

    /// What is to be written of a session.
    pub(super) fn of(&self, name: &Ref) -> Option<Touch> {
        self.waiting().get(name).copied()
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

    /// It cannot be written at the moment.
    pub(super) fn postpone(&self, name: &Ref) {
        if let Some(touch) = self.waiting().get_mut(name) {
            touch.due = Instant::now() + AGAIN;
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
    fn what_cannot_be_written_waits_and_is_not_forgotten() {
        let touches = Touches::default();
        touches.note([1; 16], Timestamp::from_millis(1), Duration::ZERO);
        touches.postpone(&[1; 16]);
        touches.postpone(&[2; 16]);
        assert_eq!(touches.due(false), [[0; 16]; 0]);
        assert_eq!(touches.due(true), [[1; 16]]);
    }

    #[test]
    fn what_comes_while_it_is_written_is_written_next() {
        let touches = Touches::default();
        let at = |seconds: u64| Timestamp::from_millis(seconds * 1000);
        let name = [1; 16];
        touches.note(name, at(10), Duration::ZERO);
        touches.note(name, at(12), Duration::ZERO);
        touches.note(name, at(11), Duration::ZERO);
        assert_eq!(touches.due(false), [name]);
        let touch = touches.of(&name).unwrap();
        assert_eq!((touch.first, touch.last), (at(10), at(12)));
        assert_eq!(touches.latest(&name, at(5)), at(12));
        touches.note(name, at(13), Duration::ZERO);
        touches.written(&name, touch);
        assert_eq!(touches.latest(&name, at(5)), at(13));
        touches.written(&name, touches.of(&name).unwrap());
        assert_eq!(touches.latest(&name, at(5)), at(5));
    }
}
