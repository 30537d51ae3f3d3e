//! Work that nobody waits for, on a core that requests may need.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::pin::pin;
use std::task::ready;
use std::time::Duration;
use std::time::Instant;

use tokio::time::Sleep;

/// How many times longer than it worked it rests: it takes a twentieth of a core at most, and less of one that
/// is busy, where its work takes longer.
const REST: u32 = 19;
/// Shorter rests are put together: the timer knows none below a millisecond.
const SHORTEST: Duration = Duration::from_millis(1);
/// On a busy core a moment's work takes long, since others take their turns meanwhile. Whoever rests for that, too,
/// does not get on.
const LONGEST: Duration = Duration::from_millis(20);

/// Does what computes for long, with a rest each time it lets others in. The system shares a core evenly between
/// its threads: without rests a sweep has half of it, and a worker that needs more falls behind.
pub(super) async fn at_leisure<F: Future>(work: F) -> F::Output {
    let mut work = pin!(work);
    let mut owed = Duration::ZERO;
    let mut resting: Option<Pin<Box<Sleep>>> = None;
    poll_fn(|context| {
        if let Some(rest) = &mut resting {
            ready!(rest.as_mut().poll(context));
            resting = None;
        }
        let started = Instant::now();
        let polled = work.as_mut().poll(context);
        owed += started.elapsed() * REST;
        if polled.is_pending() && owed >= SHORTEST {
            let mut rest = Box::pin(tokio::time::sleep(std::mem::take(&mut owed).min(LONGEST)));
            resting = rest.as_mut().poll(context).is_pending().then_some(rest);
        }
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keeps the thread for a while, so many times.
    async fn work(times: u32, each: Duration) {
        for turn in 0..times {
            if turn > 0 {
                tokio::task::yield_now().await;
            }
            std::thread::sleep(each);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_works_for_long_rests_for_longer() {
        let (each, started) = (Duration::from_millis(1), tokio::time::Instant::now());

        at_leisure(work(5, each)).await;

        // The time of the test goes on only while everything rests.
        assert!(started.elapsed() >= 4 * each * REST, "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_rests_for_ever() {
        let started = tokio::time::Instant::now();

        at_leisure(work(3, Duration::from_millis(30))).await;

        assert_eq!(started.elapsed(), 2 * LONGEST);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_done_is_done_at_once() {
        let started = tokio::time::Instant::now();

        at_leisure(work(1, Duration::from_millis(2))).await;

        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
