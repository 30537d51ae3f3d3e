//! Whether the workers live: each counts beats on its own runtime, so that one that hangs is seen.
//! systemd's watchdog restarts the service when it no longer hears of them.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sd_notify::NotifyState;

/// Beats of all workers.
pub(crate) struct Beats {
    counts: Vec<AtomicU64>,
    every: Option<Duration>,
}

impl Beats {
    /// For so many workers; they beat only if a watchdog is waiting to hear of them.
    pub(super) fn new(workers: usize) -> Self {
        let every = sd_notify::watchdog_enabled().map(|limit| limit / 4);
        Self { counts: (0..workers).map(|_| AtomicU64::new(0)).collect(), every }
    }

    /// Beats for one worker, for ever; runs on that worker.
    pub(super) async fn beat(&self, worker: usize) {
        let (Some(every), Some(count)) = (self.every, self.counts.get(worker)) else { return };
        loop {
            count.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(every).await;
        }
    }

    /// Tells the watchdog, for ever, as long as every worker goes on beating.
    pub(crate) async fn report(&self) {
        let Some(every) = self.every else { return };
        let mut last: Vec<u64> = Vec::new();
        loop {
            tokio::time::sleep(every * 2).await;
            let now: Vec<u64> = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let all_live = last.is_empty() || last.iter().zip(&now).all(|(last, now)| last != now);
            if all_live {
                // Nobody who could listen is nobody who would restart us.
                let _unheard = sd_notify::notify(&[NotifyState::Watchdog]);
            } else {
                tracing::error!(event = "worker.stuck");
            }
            last = now;
        }
    }
}
