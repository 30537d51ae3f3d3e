//! Time, as a value that is passed in. Only this module asks the system what time it is, so that
//! every decision about a timeout can be tested one millisecond before it and one after.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering;
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

    /// How many milliseconds later this is than the other; negative when it is earlier.
    pub fn ahead_of(self, other: Self) -> i64 {
        let millis = i64::try_from(self.0.abs_diff(other.0)).unwrap_or(i64::MAX);
        if self < other { -millis } else { millis }
    }

    /// This time moved by so many milliseconds, forward or back; saturates.
    pub fn moved(self, by: i64) -> Self {
        Self(self.0.saturating_add_signed(by))
    }
}

/// A future that completes at some later time.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// Where the shell gets its time from.
pub trait Clock: Send + Sync + 'static {
    /// The current time, by which everything here lives.
    fn now(&self) -> Timestamp;
    /// What the system says now what time it is: only for what others compare with their own clocks. It can be
    /// set at any moment, forward and back.
    fn time_of_day(&self) -> Timestamp;
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
    pub fn start() -> Self {
        Self { started_at: of_the_system(), started: Instant::now() }
    }
}

#[allow(clippy::disallowed_methods)] // The one place that may.
fn of_the_system() -> Timestamp {
    Timestamp::default().plus(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        self.started_at.plus(self.started.elapsed())
    }

    fn time_of_day(&self) -> Timestamp {
        of_the_system()
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

    fn time_of_day(&self) -> Timestamp {
        self.own.time_of_day()
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
    /// How many milliseconds the time of day is ahead.
    ahead: Arc<AtomicI64>,
}

impl ManualClock {
    /// A clock that stands at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { now: Arc::new(watch::Sender::new(now)), ahead: Arc::default() }
    }

    /// Moves the clock forward and wakes everyone whose deadline was reached.
    pub fn advance(&self, by: Duration) {
        self.now.send_modify(|now| *now = now.plus(by));
    }

    /// Sets the time of day, as NTP does: no deadline moves.
    pub fn set(&self, time_of_day: Timestamp) {
        self.ahead.store(time_of_day.ahead_of(self.now()), Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    fn time_of_day(&self) -> Timestamp {
        self.now().moved(self.ahead.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, deadline: Timestamp) -> Sleep<'_> {
        let mut watch = self.now.subscribe();
        Box::pin(async move {
            // The sender lives in `self`, which the returned future borrows: it cannot be gone.
            let _reached = watch.wait_for(|now| *now >= deadline).await;
        })
    }
}
