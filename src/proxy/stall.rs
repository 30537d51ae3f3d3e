//! Answers over HTTP/2 that their client does not take. A window that stays shut costs a client nothing,
//! and a body that nobody asks for more is not even looked at: without a watch of its own it would hold
//! its upstream connection for ever (S115), as long as its connection has anything else under way: a
//! connection that takes nothing at all is cut, see `server::activity`.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio::time::sleep_until;

use crate::proxy::body::BodyError;
use crate::proxy::flow::Stream;
use crate::telemetry;
use crate::telemetry::Audit;

/// What is given at once: a client that takes so much in `body_idle` is slow, not stalled.
pub(super) const PIECE: usize = 64 * 1024;

/// A body that is given up when nobody takes it.
pub(super) struct Watched {
    shared: Arc<Shared>,
    watch: AbortHandle,
}

struct Shared {
    state: Mutex<State>,
}

struct State {
    /// `None`: given up.
    stream: Option<Box<Stream>>,
    /// Since when the client has had something to take; `None`: the application is waited for.
    offered: Option<Instant>,
}

impl Watched {
    /// Gives the stream up when nothing is taken for `limit`.
    pub(super) fn new(stream: Stream, limit: Duration, context: telemetry::Context) -> Self {
        let state = State { stream: Some(Box::new(stream)), offered: Some(Instant::now()) };
        let shared = Arc::new(Shared { state: Mutex::new(state) });
        let watch = tokio::spawn(watch(Arc::clone(&shared), limit, context)).abort_handle();
        Self { shared, watch }
    }

    pub(super) fn poll(&self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut state = self.shared.lock();
        let Some(stream) = &mut state.stream else { return Poll::Ready(Some(Err(BodyError::Stalled))) };
        let polled = stream.poll_piece(context, PIECE);
        state.offered = polled.is_ready().then(Instant::now);
        polled
    }

    pub(super) fn is_end(&self) -> bool {
        self.shared.lock().stream.as_ref().is_some_and(|stream| stream.is_end())
    }

    pub(super) fn size_hint(&self) -> SizeHint {
        self.shared.lock().stream.as_ref().map_or_else(SizeHint::new, |stream| stream.size_hint())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.abort();
        self.shared.give_up();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives up what was offered too long ago; otherwise says when to look again.
    fn look(&self, limit: Duration) -> Option<Instant> {
        let now = Instant::now();
        let state = self.lock();
        let deadline = state.offered.unwrap_or(now) + limit;
        if deadline > now {
            return Some(deadline);
        }
        drop(state);
        self.give_up();
        None
    }

    fn give_up(&self) {
        let given_up = self.lock().stream.take();
        // Not while we are locked: its end is looked at by others.
        drop(given_up);
    }
}

async fn watch(shared: Arc<Shared>, limit: Duration, context: telemetry::Context) {
    while let Some(deadline) = shared.look(limit) {
        sleep_until(deadline).await;
    }
    telemetry::audit(&context, &Audit::ClientStalled);
}
