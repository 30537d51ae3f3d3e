//! What happens on a connection: one on which nothing does is closed after a while, and does not hold
//! up a stop (S172). It is looked at now and then; a wake for every request would cost more.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
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
pub(super) struct Activity(Arc<Mutex<Phase>>);

#[derive(Clone, Copy)]
enum Phase {
    /// So many exchanges are under way.
    Busy(usize),
    /// None is.
    Idle {
        since: Instant,
        /// When the client began to say something.
        heard: Option<Instant>,
    },
}

impl Phase {
    fn idle() -> Self {
        Self::Idle { since: Instant::now(), heard: None }
    }
}

/// Why no request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The client says nothing.
    Silent,
    /// It does not come to the point.
    Slow,
}

/// One exchange, from its request to the end of its response.
pub(super) struct Exchange(Activity);

impl Activity {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Phase::idle())))
    }

    /// Bytes came.
    pub(super) fn heard(&self) {
        if let Phase::Idle { heard: heard @ None, .. } = &mut *self.phase() {
            *heard = Some(Instant::now());
        }
    }

    /// A request came.
    pub(super) fn begin(&self) -> Exchange {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Busy(count) => Phase::Busy(count + 1),
            Phase::Idle { .. } => Phase::Busy(1),
        };
        Exchange(self.clone())
    }

    /// What was heard so far was no request.
    pub(super) fn restart(&self) {
        *self.phase() = Phase::idle();
    }

    fn end(&self) {
        let mut phase = self.phase();
        *phase = match *phase {
            Phase::Busy(count) if count > 1 => Phase::Busy(count - 1),
            Phase::Busy(_) | Phase::Idle { .. } => Phase::idle(),
        };
    }

    /// Completes when nothing has been under way for so long from now on.
    pub(super) async fn idle(&self, limit: Duration) {
        let begun = Instant::now();
        loop {
            let now = Instant::now();
            let deadline = match self.get() {
                Phase::Busy(_) => now + limit,
                Phase::Idle { since, .. } => since.max(begun) + limit,
            };
            if deadline <= now {
                return;
            }
            sleep_until(deadline).await;
        }
    }

    /// Completes when HTTP/1 has no request to wait for any longer: nothing is heard for `keep_alive`,
    /// or what is heard does not become a request within `header`.
    pub(super) async fn no_request(&self, keep_alive: Duration, header: Duration) -> Why {
        loop {
            let now = Instant::now();
            let (deadline, why) = match self.get() {
                Phase::Busy(_) => (now + keep_alive, Why::Silent),
                Phase::Idle { since, heard: None } => (since + keep_alive, Why::Silent),
                Phase::Idle { heard: Some(heard), .. } => (heard + header, Why::Slow),
            };
            if deadline <= now {
                return why;
            }
            // What begins after this look cannot be overdue before the next.
            sleep_until(deadline.min(now + header)).await;
        }
    }

    fn get(&self) -> Phase {
        *self.phase()
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Exchange {
    /// Goes on until the response has been sent, or given up.
    pub(super) fn until_sent(self, response: Response<Body>) -> Response<Sending> {
        response.map(|body| Sending { body, _exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of a response under way.
pub(super) struct Sending {
    body: Body,
    _exchange: Exchange,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
