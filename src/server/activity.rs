//! What happens on a connection: one on which nothing does is closed after a while, and does not hold
//! up a stop (S172). It is looked at now and then; a wake for every request would cost more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::proxy::Body;

/// The exchanges that are under way on one connection, and what is heard between them.
#[derive(Clone)]
pub(super) struct Activity(Arc<Shared>);

struct Shared {
    phase: Mutex<Phase>,
    /// Whether all that was written has left.
    is_settled: AtomicBool,
}

#[derive(Clone, Copy)]
struct Phase {
    under_way: usize,
    /// Those of them for which the client takes nothing more.
    stalled: usize,
    /// When the last of them ended, stalled, or had something taken; of no meaning while others go on.
    since: Instant,
    /// When the client began to say something after the last had ended.
    heard: Option<Instant>,
    /// How many bytes it took since then.
    taken: usize,
    /// Whether the last request came with a body, which may not have ended although its exchange has.
    has_body: bool,
}

/// A client that takes less in the time that it has takes nothing: so much is said by pings.
const LEAST: usize = 1024;

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// Between two exchanges.
    pub(super) keep_alive: Duration,
    /// For the head of a request; only HTTP/1 can tell that one has begun.
    pub(super) header: Option<Duration>,
    /// To take more of a response.
    pub(super) body_idle: Option<Duration>,
}

/// What a client has taken too long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// To say anything.
    Silent,
    /// To come to the point.
    Slow,
    /// To take what it asked for.
    Stalled,
}

/// One exchange, from its request to the end of its response.
pub(super) struct Exchange {
    activity: Activity,
    is_stalled: bool,
}

impl Activity {
    pub(super) fn new() -> Self {
        let phase = Phase { under_way: 0, stalled: 0, since: Instant::now(), heard: None, taken: 0, has_body: false };
        Self(Arc::new(Shared { phase: Mutex::new(phase), is_settled: AtomicBool::new(true) }))
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        let mut phase = self.phase();
        if phase.under_way == 0 && phase.heard.is_none() {
            phase.heard = Some(Instant::now());
        }
    }

    /// Bytes left.
    pub(super) fn took(&self, bytes: usize) {
        let mut phase = self.phase();
        phase.taken += bytes;
        if phase.taken >= LEAST && phase.under_way > 0 && phase.under_way == phase.stalled {
            (phase.since, phase.taken) = (Instant::now(), 0);
        }
    }

    /// What was heard so far was no request.
    pub(super) fn restart(&self) {
        self.change(|_| {});
    }

    /// Whether all that was written has left.
    pub(super) fn settle(&self, is_settled: bool) {
        self.0.is_settled.store(is_settled, Ordering::Relaxed);
    }

    /// Since when nothing happens and nothing is left to do: no byte to read or write, also of a body that
    /// nobody waits for.
    pub(super) fn quiet_since(&self) -> Option<Instant> {
        let phase = *self.phase();
        let is_quiet = phase.under_way == 0 && phase.heard.is_none() && !phase.has_body;
        (is_quiet && self.0.is_settled.load(Ordering::Relaxed)).then_some(phase.since)
    }

    /// A request came.
    pub(super) fn begin(&self, has_body: bool) -> Exchange {
        self.change(|phase| {
            phase.under_way += 1;
            phase.has_body = has_body;
        });
        Exchange { activity: self.clone(), is_stalled: false }
    }

    /// Completes when the client has taken too long, counted from now at the earliest.
    pub(super) async fn overdue(&self, patience: Patience) -> Overdue {
        let begun = Instant::now();
        let limits = [Some(patience.keep_alive), patience.header, patience.body_idle];
        let shortest = limits.into_iter().flatten().min().unwrap_or(patience.keep_alive);
        loop {
            let now = Instant::now();
            let phase = *self.phase();
            let (from, limit, what) = match (phase.under_way, phase.heard, patience.header) {
                (0, Some(heard), Some(header)) => (heard, Some(header), Overdue::Slow),
                (0, _, _) => (phase.since, Some(patience.keep_alive), Overdue::Silent),
                (count, _, _) if count > phase.stalled => (now, None, Overdue::Stalled),
                (_, _, _) => (phase.since, patience.body_idle, Overdue::Stalled),
            };
            let deadline = limit.map(|limit| from.max(begun) + limit);
            if deadline.is_some_and(|deadline| deadline <= now) {
                return what;
            }
            // What begins after this look cannot be overdue before the next.
            let next = now + shortest;
            sleep_until(deadline.map_or(next, |deadline| deadline.min(next))).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Phase)) {
        let mut phase = self.phase();
        change(&mut phase);
        if phase.under_way == phase.stalled {
            (phase.since, phase.heard, phase.taken) = (Instant::now(), None, 0);
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Goes on until the response has been sent, or given up.
    pub(super) fn until_sent(mut self, response: Response<Body>) -> Response<Sending> {
        response.map(|body| {
            // Over HTTP/2 a body is not polled before there is a window for it.
            self.stall(!body.is_empty());
            Sending { body, exchange: self }
        })
    }

    fn stall(&mut self, is_stalled: bool) {
        if self.is_stalled != is_stalled {
            self.is_stalled = is_stalled;
            let change = |phase: &mut Phase| match is_stalled {
                true => phase.stalled += 1,
                false => phase.stalled -= 1,
            };
            self.activity.change(change);
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.stall(false);
        self.activity.change(|phase| phase.under_way -= 1);
    }
}

/// The body of a response under way.
pub(super) struct Sending {
    body: Body,
    exchange: Exchange,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        // It is polled again when the client has taken this piece.
        self.exchange.stall(matches!(frame, Poll::Ready(Some(Ok(_)))));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        keep_alive: Duration::from_secs(60),
        header: Some(Duration::from_secs(10)),
        body_idle: Some(Duration::from_secs(30)),
    };

    /// After how many seconds the client has taken too long, and for what.
    async fn overdue(activity: &Activity) -> (u64, Overdue) {
        let begun = Instant::now();
        let overdue = activity.overdue(PATIENCE).await;
        (begun.elapsed().as_secs(), overdue)
    }

    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_slow_heads_have_their_own_limits() {
        // S172
        let activity = Activity::new();
        assert_eq!(overdue(&activity).await, (60, Overdue::Silent));

        activity.heard();
        assert_eq!(overdue(&activity).await, (10, Overdue::Slow));

        activity.restart();
        let speaking = async {
            after(45).await;
            activity.heard();
            after(5).await;
            activity.heard();
        };
        assert_eq!(tokio::join!(overdue(&activity), speaking).0, (55, Overdue::Slow), "from the first byte");
    }

    #[tokio::test(start_paused = true)]
    async fn while_something_is_under_way_nobody_is_late() {
        let activity = Activity::new();
        let exchanges = async {
            let (first, second) = (activity.begin(false), activity.begin(false));
            after(500).await;
            drop(first);
            after(500).await;
            drop(second);
        };
        assert_eq!(tokio::join!(overdue(&activity), exchanges).0, (1060, Overdue::Silent));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_late_and_a_slow_one_is_not() {
        let activity = Activity::new();
        let mut exchange = activity.begin(false);
        exchange.stall(true);
        assert_eq!(overdue(&activity).await, (30, Overdue::Stalled));

        let taking = async {
            for _ in 0..10 {
                after(20).await;
                activity.took(LEAST);
            }
        };
        assert_eq!(tokio::join!(overdue(&activity), taking).0, (230, Overdue::Stalled));

        let pings = async {
            for _ in 0..10 {
                after(20).await;
                activity.took(40);
            }
        };
        assert_eq!(tokio::join!(overdue(&activity), pings).0, (30, Overdue::Stalled));

        let _other = activity.begin(false);
        let still = tokio::time::timeout(Duration::from_secs(500), overdue(&activity)).await;
        assert!(still.is_err(), "another exchange goes on");
    }
}
