//! What time it is at the server: all that share it agree, whatever their own clocks say.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use crate::clock::Clock;
use crate::clock::Sleep;
use crate::clock::Timestamp;

/// How far the clock is moved with one word of the server, once it is set: a clock that was stepped there
/// neither ends sessions here nor keeps them alive (S39).
const STEP: i64 = 1;

/// The server's clock, carried on by our own.
pub(super) struct ServerClock {
    own: Arc<dyn Clock>,
    /// How many milliseconds the server is ahead; `None` before it has been heard.
    ahead: Mutex<Option<i64>>,
}

impl ServerClock {
    pub(super) fn new(own: Arc<dyn Clock>) -> Self {
        Self { own, ahead: Mutex::default() }
    }

    fn ahead(&self) -> i64 {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner).unwrap_or_default()
    }

    /// Our own time, to be handed to [`Self::heard`].
    pub(super) fn own(&self) -> Timestamp {
        self.own.now()
    }

    /// The server has said what time it is, at some moment since `asked`.
    pub(super) fn heard(&self, says: Timestamp, asked: Timestamp) {
        let ours = asked.plus(self.own.now().since(asked) / 2);
        let measured = says.ahead_of(ours);
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        *ahead = Some(match *ahead {
            None => measured,
            Some(known) => known + (measured - known).clamp(-STEP, STEP),
        });
    }
}

impl Clock for ServerClock {
    fn now(&self) -> Timestamp {
        self.own.now().moved(self.ahead())
    }

    /// Of this machine: it is no matter of those that share the server.
    fn time_of_day(&self) -> Timestamp {
        self.own.time_of_day()
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep<'_> {
        self.own.sleep_until(deadline.moved(-self.ahead()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_server_is_believed_once_and_followed_slowly() {
        // S39
        let at = Timestamp::from_millis;
        let own = ManualClock::at(at(1_000_000));
        let clock = ServerClock::new(Arc::new(own.clone()));
        assert_eq!(clock.now(), at(1_000_000), "nobody has said anything else");

        clock.heard(at(4_600_000), at(1_000_000));
        assert_eq!(clock.now(), at(4_600_000), "ours was an hour late");
        clock.heard(at(8_200_000), at(1_000_000));
        assert_eq!(clock.now(), at(4_600_001), "the server's was stepped");
        clock.heard(at(0), at(1_000_000));
        assert_eq!(clock.now(), at(4_600_000), "and back");

        let asked = clock.own();
        own.advance(Duration::from_millis(10));
        let late = ServerClock::new(Arc::new(own));
        late.heard(at(2_000_000), asked);
        assert_eq!(late.now(), at(2_000_005), "half of the way is the way of the answer");
    }
}
