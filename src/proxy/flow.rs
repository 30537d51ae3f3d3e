//! A body on its way from one side to the other, and all that depends on how it gets on: deadlines, the
//! session it belongs to, the connection it came on.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::proxy::body::BodyError;
use crate::proxy::pool::Lease;
use crate::proxy::sending::Reporter;
use crate::proxy::sending::Sending;
use crate::proxy::source::Source;
use crate::proxy::streams::Bound;
use crate::telemetry;
use crate::telemetry::Audit;

/// A body that comes from the other side of the proxy.
pub(super) struct Stream {
    /// What was read ahead to look at it.
    prefix: Bytes,
    /// How it broke off, to be told in its turn.
    broken: Option<BodyError>,
    inner: Source,
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    limit: Option<u64>,
    lease: Option<Lease>,
    bound: Option<Bound>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    reporter: Option<Reporter>,
    /// Whose answer it is, for the log.
    answers: Option<Box<telemetry::Context>>,
}

impl Stream {
    /// A stream that fails when nothing comes for `idle`.
    pub(super) fn new(inner: impl Into<Source>, idle: Option<Duration>) -> Self {
        Self {
            prefix: Bytes::new(),
            broken: None,
            inner: inner.into(),
            idle,
            timer: None,
            limit: None,
            lease: None,
            bound: None,
            stopping: None,
            reporter: None,
            answers: None,
        }
    }

    /// Sends these bytes, which were read ahead, first.
    pub(super) fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.prefix = prefix;
        self
    }

    /// Fails when more than `bytes` come.
    pub(super) fn with_limit(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// Gives the upstream connection back when the body is complete; if it breaks off, the log says so.
    pub(super) fn with_lease(mut self, lease: Lease, context: &telemetry::Context) -> Self {
        self.lease = Some(lease);
        self.answers = Some(Box::new(context.clone()));
        self.release_at_end();
        self
    }

    /// Ends with the session, if it belongs to one.
    pub(super) fn with_bound(mut self, bound: Option<Bound>) -> Self {
        self.bound = bound;
        self
    }

    /// Ends when the program is to stop: for bodies that have no end of their own.
    pub(super) fn until(mut self, stopping: &CancellationToken) -> Self {
        self.stopping = Some(Box::pin(stopping.clone().cancelled_owned()));
        self
    }

    /// How the sending gets on from now on.
    pub(super) fn report(&mut self) -> Arc<Sending> {
        let (sending, reporter) = Sending::begin();
        self.reporter = Some(reporter);
        sending
    }

    /// Takes what is there without waiting, which is all of most answers: then the connection is free
    /// again, however slow the client is.
    pub(super) async fn begin(mut self) -> Self {
        match poll_fn(|context| Poll::Ready(self.poll(context))).await {
            Poll::Ready(Some(Ok(frame))) => self.prefix = frame.into_data().unwrap_or_default(),
            Poll::Ready(Some(Err(error))) => self.broken = Some(error),
            Poll::Ready(None) | Poll::Pending => {}
        }
        self
    }

    /// All of it, if nothing has to be waited for.
    pub(super) fn whole(&self) -> Option<Bytes> {
        let is_whole = self.broken.is_none() && self.inner.is_end_stream();
        is_whole.then(|| self.prefix.clone())
    }

    /// Whether there is nothing (more) to send.
    pub(super) fn is_end(&self) -> bool {
        self.prefix.is_empty() && self.broken.is_none() && self.inner.is_end_stream()
    }

    /// What is known of its length.
    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = self.prefix.len() as u64;
        let inner = self.inner.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(ahead));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }

    fn release_at_end(&mut self) {
        if self.inner.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(bound) = &mut self.bound
            && bound.poll_ended(context).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::SessionEnded)));
        }
        if let Some(stopping) = &mut self.stopping
            && stopping.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(BodyError::Stopping)));
        }
        if self.prefix.has_remaining() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.prefix)))));
        }
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match Pin::new(&mut self.inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.timer = None;
                    self.release_at_end();
                    // Trailers are never merged nor passed on (S85).
                    let Ok(data) = frame.into_data() else { continue };
                    return Poll::Ready(Some(self.account(data)));
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(self.broke_off(error.into())))),
                Poll::Ready(None) => {
                    if let Some(lease) = self.lease.take() {
                        lease.give_back();
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending => {
                    if let Some(reporter) = &self.reporter {
                        reporter.waits();
                    }
                    return self.poll_idle(context);
                }
            }
        }
    }

    /// The same, at most so much at once.
    pub(super) fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        most: usize,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll(context);
        let Poll::Ready(Some(Ok(frame))) = polled else { return polled };
        let mut data = frame.into_data().unwrap_or_default();
        if data.len() > most {
            self.prefix = data.split_off(most);
        }
        Poll::Ready(Some(Ok(Frame::data(data))))
    }

    /// The head of the answer has left: nobody but the log can be told.
    fn broke_off(&mut self, error: BodyError) -> BodyError {
        if let (Some(context), Some(lease)) = (self.answers.take(), &self.lease) {
            telemetry::audit(&context, &Audit::AnswerBroken { upstream: &lease.upstream.name, error: &error });
        }
        error
    }

    fn account(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if let Some(left) = &mut self.limit {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyError::TooLarge)?;
        }
        if let Some(reporter) = &self.reporter {
            reporter.moved();
        }
        if let Some(bound) = &mut self.bound {
            bound.moved();
        }
        Ok(Frame::data(data))
    }

    fn poll_idle(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(idle) = self.idle else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
        match timer.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(self.broke_off(BodyError::Idle)))),
            Poll::Pending => Poll::Pending,
        }
    }
}
