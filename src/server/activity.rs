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
    /// When the last of them ended or stalled, or the client took something since; of no meaning while others go on.
    since: Instant,
    /// When the client began to say something after the last had ended.
    heard: Option<Instant>,
    /// How many bytes it took since then.
    taken: usize,
    /// Whether the last request came with a body, which may not have ended although its exchange has.
    has_body: bool,
    /// Bytes of large last pieces of responses that the client has not taken: of this period, and of those before, by
    /// turns.
    handed: [u64; 2],
    /// Which of the two are this period's.
    period: usize,
    period_began: Instant,
    /// How many bytes the client took in it.
    period_taken: u64,
}

impl Phase {
    /// Whether a period of `limit` has ended in which the client took next to nothing of what had been handed over
    /// before it. Pieces leave by turns, so many of a slow client's may be there for long.
    fn is_any_stuck(&mut self, limit: Duration, now: Instant) -> bool {
        if now < self.period_began + limit {
            return false;
        }
        let old = self.handed[1 - self.period];
        let is_stuck = self.period_taken < old / STUCK_PART;
        (self.period_began, self.period_taken) = (now, 0);
        // What is new counts where there is nothing left, or with what is still on its way.
        self.period = 1 - self.period;
        is_stuck
    }
}

/// A client that takes less in the time that it has takes nothing: so much is said by pings.
const LEAST: usize = 1024;
/// A last piece above this is watched until it has left: over HTTP/2 a client may have a hundred, and take none.
const LARGE: u64 = 16 * 1024;
/// Of what was handed over long ago a client has to take one part of so many in each period: enough for the slowest,
/// and too much for who only wants to have it held.
const STUCK_PART: u64 = 16;

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
    /// In which period its last piece was handed over, and how many bytes that is, if it is large.
    handed: Option<(usize, u64)>,
}

impl Activity {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        let phase = Phase {
            under_way: 0,
            stalled: 0,
            since: now,
            heard: None,
            taken: 0,
            has_body: false,
            handed: [0; 2],
            period: 0,
            period_began: now,
            period_taken: 0,
        };
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
        phase.period_taken += bytes as u64;
        // Also when none is under way, if the last piece of an answer still is (S116, S179). HTTP/2 cannot tell: small
        // ones have left, large ones have their exchange with them.
        let is_sending = phase.under_way > 0 || !self.0.is_settled.load(Ordering::Relaxed);
        if phase.taken >= LEAST && phase.under_way == phase.stalled && is_sending {
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
        Exchange { activity: self.clone(), is_stalled: false, handed: None }
    }

    /// Completes when the client has taken too long, counted from now at the earliest.
    pub(super) async fn overdue(&self, patience: Patience) -> Overdue {
        let begun = Instant::now();
        let limits = [Some(patience.keep_alive), patience.header, patience.body_idle];
        let shortest = limits.into_iter().flatten().min().unwrap_or(patience.keep_alive);
        loop {
            let now = Instant::now();
            // Over HTTP/1 there is one exchange, and what is taken is its.
            let limit = patience.body_idle.filter(|_| patience.header.is_none());
            if limit.is_some_and(|limit| self.phase().is_any_stuck(limit, now)) {
                return Overdue::Stalled;
            }
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
            // Over HTTP/2 nothing is taken before there is a window for it.
            self.stall(!body.is_empty());
            Sending { body, exchange: Some(self) }
        })
    }

    /// Goes on until this last piece of it has left, or was given up.
    fn until_left(mut self, data: Bytes) -> Bytes {
        self.activity.change(|phase| {
            let length = data.len() as u64;
            phase.handed[phase.period] += length;
            self.handed = Some((phase.period, length));
        });
        Bytes::from_owner(Handed { data, _exchange: self })
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
        let handed = self.handed;
        self.activity.change(|phase| {
            phase.under_way -= 1;
            if let Some((period, length)) = handed {
                phase.handed[period] -= length;
            }
        });
    }
}

/// The last piece of a response, handed over to be sent.
struct Handed {
    data: Bytes,
    _exchange: Exchange,
}

impl AsRef<[u8]> for Handed {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

/// The body of a response under way.
pub(super) struct Sending {
    body: Body,
    /// `None`: its last piece has it.
    exchange: Option<Exchange>,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let Self { body, exchange } = &mut *self;
        let polled = Pin::new(&mut *body).poll_frame(context);
        // It is polled again when the client has taken this piece.
        if let Some(exchange) = exchange {
            exchange.stall(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        let is_large = frame.data_ref().is_some_and(|data| data.len() as u64 > LARGE);
        if !is_large || !body.is_end_stream() {
            return Poll::Ready(Some(Ok(frame)));
        }
        Poll::Ready(Some(Ok(match exchange.take() {
            Some(exchange) => frame.map_data(|data| exchange.until_left(data)),
            None => frame,
        })))
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
    async fn who_takes_what_the_last_exchange_has_left_behind_is_not_silent() {
        // S116, S179
        let activity = Activity::new();
        drop(activity.begin(false));
        activity.settle(false);
        let taking = async {
            for _ in 0..10 {
                after(50).await;
                activity.took(LEAST);
            }
        };
        assert_eq!(tokio::join!(overdue(&activity), taking).0, (560, Overdue::Silent));

        activity.settle(true);
        activity.restart();
        let pings = async {
            for _ in 0..10 {
                after(50).await;
                activity.took(LEAST);
            }
        };
        assert_eq!(tokio::join!(overdue(&activity), pings).0, (60, Overdue::Silent), "whatever else it takes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_large_last_piece_that_nobody_takes_makes_its_client_late_whatever_else_goes_on() {
        // S115
        let piece = |activity: &Activity, length| {
            let body = Body::bytes(vec![0; length]);
            let mut sending = activity.begin(false).until_sent(Response::new(body)).into_body();
            let context = &mut Context::from_waker(std::task::Waker::noop());
            let polled = http_body::Body::poll_frame(Pin::new(&mut sending), context);
            let Poll::Ready(Some(Ok(frame))) = polled else { panic!("no piece") };
            frame.into_data().unwrap()
        };
        let activity = Activity::new();
        let _other = activity.begin(false);
        let (large, small) = (LARGE as usize + 1, LARGE as usize);
        let _small = piece(&activity, small);
        let taking = async {
            for _ in 0..10 {
                let piece = piece(&activity, large);
                after(25).await;
                drop(piece);
            }
        };
        let http2 = Patience { header: None, ..PATIENCE };
        let in_time = tokio::time::timeout(Duration::from_secs(500), activity.overdue(http2));
        assert!(tokio::join!(in_time, taking).0.is_err(), "all are taken in time, and small ones not watched");

        let _first = piece(&activity, large);
        let begun = Instant::now();
        assert_eq!(activity.overdue(http2).await, Overdue::Stalled);
        assert!((30..=60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());

        // Many leave by turns, and none for long.
        let _many: Vec<_> = (0..100).map(|_| piece(&activity, large)).collect();
        let taking = async {
            for _ in 0..50 {
                after(10).await;
                activity.took(100 * large / 20);
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(490), activity.overdue(http2));
        assert!(tokio::join!(in_time, taking).0.is_err(), "slow, and not stuck");
        let _one = piece(&activity, large);
        let http1 = tokio::time::timeout(Duration::from_secs(500), activity.overdue(PATIENCE));
        assert!(http1.await.is_err(), "there is one exchange, and what is taken is its");
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
