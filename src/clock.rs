//! Time, as a value that is passed in. Only this module asks the system what time it is, so that
//! every decision about a timeout can be tested one millisecond before it and one after.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use serde::Deserialize;
use serde::Serialize;
use tokio::sync::watch;

/// Milliseconds since the Unix epoch, 64 bits wide (VR-40).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The time that many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whole seconds since the Unix epoch.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// This time moved forward; saturates at the end of time.
    pub fn plus(self, by: Duration) -> Self {
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was; zero when it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// A future that completes at some later time.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where the shell gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
    /// Completes when [`Clock::now`] has reached `deadline`.
    fn sleep_until(&self, deadline: Timestamp) -> Sleep<'_>;
}

/// Wall-clock time read once at the start and carried on by the monotonic clock, so that a step of
/// the system's clock neither revives nor mass-expires a session while the process lives (S39).
#[derive(Debug)]
pub struct SystemClock {
    started_at: Timestamp,
    started: Instant,
}

impl SystemClock {
    /// A clock that starts from the system's present time.
    #[allow(clippy::disallowed_methods)] // The one place that may.
    pub fn start() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started_at: Timestamp::default().plus(since_epoch), started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed())
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep<'_> {
        Box::pin(tokio::time::sleep(deadline.since(self.now())))
    }
}

/// A clock that goes on from a later time than another one shows.
struct Ahead {
    own: Arc<dyn Clock>,
    by: Duration,
}

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        self.own.now().plus(self.by)
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep<'_> {
        let by = u64::try_from(self.by.as_millis()).unwrap_or(u64::MAX);
        self.own.sleep_until(Timestamp(deadline.0.saturating_sub(by)))
    }
}

/// This clock, or one that goes on from there if it shows an earlier time: a clock that was set back between two
/// runs revives nothing (S39).
pub fn not_before(earliest: Timestamp, clock: Arc<dyn Clock>) -> Arc<dyn Clock> {
    let by = earliest.since(clock.now());
    if by.is_zero() { clock } else { Arc::new(Ahead { own: clock, by }) }
}

/// A clock that moves only when told to: for tests.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now: Arc<watch::Sender<Timestamp>>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Arc::new(watch::Sender::new(now)) }
    }

    /// Moves the clock forward and wakes everyone whose deadline was reached.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.plus(by));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep<'_> {
        let mut watch = self.now.subscribe();
        Box::pin(async move {
            // The sender lives in `self`, which the returned future borrows: it cannot be gone.
            let _reached = watch.wait_for(|now| *now >= deadline).await;
        })
    }
}
