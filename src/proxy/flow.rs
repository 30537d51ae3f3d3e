//! A body on its way from one side to the other, and all that depends on how it gets on: deadlines, the
//! session it belongs to, the connection it came on.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use http_body::Frame;
use http_body::SizeHint;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::policy::trailers::TrailerRules;
use crate::proxy::body::BodyError;
use crate::proxy::pool::Lease;
use crate::proxy::sending::Reporter;
use crate::proxy::sending::Sending;
use crate::proxy::source::Pace;
use crate::proxy::source::Source;
use crate::proxy::streams::Bound;
use crate::telemetry;
use crate::telemetry::Audit;

/// A body that comes from the other side of the proxy.
pub(super) struct Stream {
    /// What was read ahead: to look at it, or for want of a reason to wait.
    ahead: Option<Result<Frame<Bytes>, BodyError>>,
    /// `None`: it has ended, and is where it came from.
    inner: Option<Source>,
    idle: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    pace: Option<Pace>,
    limit: Option<u64>,
    lease: Option<Lease>,
    bound: Option<Bound>,
    stopping: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    reporter: Option<Reporter>,
    /// What passes of trailers; `None`: nothing (S85).
    trailers: Option<Arc<TrailerRules>>,
    /// Whose answer it is, for the log.
    answers: Option<Box<telemetry::Context>>,
}

impl Stream {
    /// A stream that fails when nothing comes for `idle`.
    pub(super) fn new(inner: impl Into<Source>, idle: Option<Duration>) -> Self {
        Self { idle, inner: Some(inner.into()), ..Self::of(Bytes::new()) }
    }

    /// Exactly these bytes.
    pub(super) fn of(bytes: Bytes) -> Self {
        Self {
            ahead: (!bytes.is_empty()).then(|| Ok(Frame::data(bytes))),
            inner: None,
            idle: None,
            timer: None,
            pace: None,
            limit: None,
            lease: None,
            bound: None,
            stopping: None,
            reporter: None,
            trailers: None,
            answers: None,
        }
    }

    /// Sends these bytes, which were read ahead, first.
    pub(super) fn with_prefix(mut self, prefix: Bytes) -> Self {
        self.ahead = (!prefix.is_empty()).then(|| Ok(Frame::data(prefix)));
        self
    }

    /// Lets trailers pass, as far as these rules do.
    pub(super) fn with_trailers(mut self, rules: Option<&Arc<TrailerRules>>) -> Self {
        self.trailers = rules.cloned();
        self
    }

    /// Fails also when it does not keep up this pace.
    pub(super) fn with_pace(mut self, pace: Option<Pace>) -> Self {
        self.pace = pace;
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
    /// again, however slow the client is. Not if it has no length: it would be time that decides whether
    /// the client is told of one.
    pub(super) async fn begin(&mut self) {
        if self.size_hint().exact().is_none() {
            return;
        }
        if let Poll::Ready(ahead) = poll_fn(|context| Poll::Ready(self.poll(context))).await {
            self.ahead = ahead;
        }
    }

    /// All of it, if nothing has to be waited for.
    pub(super) fn whole(&self) -> Option<Bytes> {
        match &self.ahead {
            _ if !self.is_drained() => None,
            None => Some(Bytes::new()),
            Some(Ok(frame)) => frame.data_ref().cloned(),
            Some(Err(_)) => None,
        }
    }

    /// Whether there is nothing (more) to send.
    pub(super) fn is_end(&self) -> bool {
        self.ahead.is_none() && self.is_drained()
    }

    /// What is known of its length.
    pub(super) fn size_hint(&self) -> SizeHint {
        let ahead = match &self.ahead {
            Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
            Some(Err(_)) | None => 0,
        };
        let inner = self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(ahead));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(ahead));
        }
        hint
    }

    /// Whether no more comes from where it comes from.
    fn is_drained(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn release_at_end(&mut self) {
        if self.is_drained() {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some(lease) = self.lease.take()
            && let Some(inner) = self.inner.take()
        {
            lease.give_back(inner);
        }
    }

    /// The next piece.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut polled = self.poll_next(context);
        if let Some(reporter) = &self.reporter {
            match &polled {
                Poll::Ready(Some(Ok(_))) => reporter.moved(),
                Poll::Ready(Some(Err(_)) | None) => {}
                Poll::Pending => reporter.waits(),
            }
        }
        if polled.is_pending() {
            polled = self.poll_idle(context);
        }
        self.report_failure(&polled);
        polled
    }

    /// The next piece, if it is there, for who has not yet handed on the one before: that it is taken says nothing
    /// of the other side, and nobody pauses if it is not there.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = self.poll_next(context);
        self.report_failure(&polled);
        polled
    }

    fn report_failure(&self, polled: &Poll<Option<Result<Frame<Bytes>, BodyError>>>) {
        if let (Poll::Ready(Some(Err(error))), Some(reporter)) = (polled, &self.reporter) {
            reporter.fails(error);
        }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
        if let Some(ahead) = self.ahead.take() {
            return Poll::Ready(Some(ahead));
        }
        loop {
            let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
            match Pin::new(inner).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => {
                    self.timer = None;
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    if self.pace.as_mut().is_some_and(|pace| !pace.keeps_up(length)) {
                        return Poll::Ready(Some(Err(BodyError::Idle)));
                    }
                    self.release_at_end();
                    if let Some(passes) = self.pass(frame) {
                        return Poll::Ready(Some(passes));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(self.broke_off(error)))),
                Poll::Ready(None) => {
                    self.release();
                    return Poll::Ready(None);
                }
                Poll::Pending => return Poll::Pending,
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
        Poll::Ready(Some(Ok(match frame.into_data() {
            Ok(mut data) => {
                if data.len() > most {
                    self.ahead = Some(Ok(Frame::data(data.split_off(most))));
                }
                Frame::data(data)
            }
            Err(trailers) => trailers,
        })))
    }

    /// The head of the answer has left: nobody but the log can be told.
    fn broke_off(&mut self, error: BodyError) -> BodyError {
        if let (Some(context), Some(lease)) = (self.answers.take(), &self.lease) {
            telemetry::audit(&context, &Audit::AnswerBroken { upstream: &lease.upstream.name, error: &error });
        }
        error
    }

    /// What passes of a frame: trailers are never merged into the head, and most never pass.
    fn pass(&mut self, frame: Frame<Bytes>) -> Option<Result<Frame<Bytes>, BodyError>> {
        let frame = match frame.into_data() {
            Ok(data) => return Some(self.account(data)),
            Err(frame) => frame,
        };
        let mut trailers = frame.into_trailers().ok()?;
        self.trailers.as_ref()?.clean(&mut trailers);
        (!trailers.is_empty()).then(|| Ok(Frame::trailers(trailers)))
    }

    fn account(&mut self, data: Bytes) -> Result<Frame<Bytes>, BodyError> {
        if let Some(left) = &mut self.limit {
            *left = left.checked_sub(data.len() as u64).ok_or(BodyError::TooLarge)?;
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
