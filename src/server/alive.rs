//! Whether the workers live: each beats on its own runtime, so that one that hangs is seen. systemd's
//! watchdog restarts the service when it no longer hears of them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use sd_notify::NotifyState;

/// How often a worker beats, unless a watchdog wants to hear of it more often.
const EVERY: Duration = Duration::from_secs(1);
/// After this long without a beat a worker is said to hang.
const HANGS: Duration = Duration::from_secs(5);

/// Beats of all workers.
pub(crate) struct Beats {
    begun: Instant,
    /// When each worker last beat, in milliseconds from the beginning.
    last: Vec<AtomicU64>,
    watchdog: Option<Duration>,
}

impl Beats {
    /// For so many workers.
    pub(super) fn new(workers: usize) -> Self {
        let last = (0..workers).map(|_| AtomicU64::new(0)).collect();
        Self { begun: Instant::now(), last, watchdog: sd_notify::watchdog_enabled().map(|limit| limit / 4) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Beats for one worker, for ever; runs on that worker.
    pub(super) async fn beat(&self, worker: usize) {
        let Some(last) = self.last.get(worker) else { return };
        let every = self.watchdog.map_or(EVERY, |watchdog| watchdog.min(EVERY));
        loop {
            last.store(self.now(), Ordering::Relaxed);
            tokio::time::sleep(every).await;
        }
    }

    /// Whether all workers go on.
    pub(crate) fn all_live(&self) -> bool {
        self.have_beaten_within(HANGS)
    }

    fn have_beaten_within(&self, time: Duration) -> bool {
        let now = self.now();
        self.last.iter().all(|last| Duration::from_millis(now.saturating_sub(last.load(Ordering::Relaxed))) < time)
    }

    /// Tells the watchdog, for ever, as long as every worker goes on beating.
    pub(crate) async fn report(&self) {
        let Some(every) = self.watchdog else { return };
        loop {
            tokio::time::sleep(every * 2).await;
            if self.have_beaten_within(every * 2) {
                // Nobody who could listen is nobody who would restart us.
                let _unheard = sd_notify::notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(event = "worker.stuck");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_hangs_is_seen() {
        let beats = Beats::new(2);
        assert!(beats.all_live());
        // The second beats in the future, the first never again.
        beats.last[1].store(u64::MAX, Ordering::Relaxed);
        let long_ago = Instant::now().checked_sub(HANGS).unwrap();
        assert!(!Beats { begun: long_ago, ..beats }.all_live());
    }
}
