//! The body of every message that passes: nothing, bytes we wrote ourselves, or a stream from the
//! other side, polled only when there is room (back-pressure) and never collected.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use http::HeaderMap;
use http::Version;
use http::header;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::Sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::proxy::pool::Lease;
use crate::proxy::sending::Reporter;
use crate::proxy::sending::Sending;
use crate::proxy::streams::Bound;
use crate::telemetry;
use crate::telemetry::Audit;

/// How much of a refused body is read away, and for how long.
const DRAIN_LIMIT: usize = 10 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// The body of a request to the application or of a response to the client.
pub struct Body {
    kind: Kind,
}

enum Kind {
    Bytes(Bytes),
    Stream(Box<Stream>),
}

/// Why a body ended before its end. The peer sees a broken message, never a clean end (S99).
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The sending side broke off.
    #[error("the sender broke off")]
    Broken(#[from] hyper::Error),
    /// Nothing came for the `body_idle` timeout.
    #[error("the sender paused for longer than the body_idle timeout")]
    Idle,
    /// More than the `body` limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The session that it belongs to has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The program stops, and the body has no end that could be waited for.
    #[error("the program stops")]
    Stopping,
}

/// A body that comes from the other side of the proxy.
pub(super) struct Stream {
    /// What was read ahead to look at it.
    prefix: Bytes,
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

    fn release_at_end(&mut self) {
        if http_body::Body::is_end_stream(&self.inner)
            && let Some(lease) = self.lease.take()
        {
            lease.give_back();
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
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
        loop {
            match http_body::Body::poll_frame(Pin::new(&mut self.inner), context) {
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

impl Body {
    /// No body.
    pub fn empty() -> Self {
        Self { kind: Kind::Bytes(Bytes::new()) }
    }

    /// Exactly these bytes.
    pub fn bytes(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Bytes(bytes.into()) }
    }

    /// A stream.
    pub(super) fn stream(stream: Stream) -> Self {
        Self { kind: Kind::Stream(Box::new(stream)) }
    }

    /// Says from now on how the sending gets on.
    pub(super) fn report_to(&mut self, sending: &Arc<Sending>) {
        match &mut self.kind {
            Kind::Bytes(_) => {}
            Kind::Stream(stream) => stream.reporter = Some(Reporter::new(sending)),
        }
    }

    /// Whether there is nothing (more) to send.
    pub fn is_empty(&self) -> bool {
        http_body::Body::is_end_stream(self)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Bytes(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Bytes(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(stream) => stream.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.prefix.is_empty() && stream.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => {
                let ahead = stream.prefix.len() as u64;
                let inner = stream.inner.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(inner.lower().saturating_add(ahead));
                if let Some(upper) = inner.upper() {
                    hint.set_upper(upper.saturating_add(ahead));
                }
                hint
            }
        }
    }
}

/// A body that was read up to a limit in order to be judged.
pub(super) struct ReadAhead {
    /// What was read.
    pub bytes: Bytes,
    /// The rest, when there is more than the limit.
    pub rest: Option<Source>,
}

/// Reads at most `limit` bytes; what is beyond stays in `rest`.
///
/// # Errors
/// When the sender breaks off or pauses for longer than `idle`.
pub(super) async fn read_ahead(
    body: impl Into<Source>,
    limit: usize,
    idle: Option<Duration>,
) -> Result<ReadAhead, BodyError> {
    use http_body_util::BodyExt;
    let mut body = body.into();
    let mut bytes = bytes::BytesMut::new();
    loop {
        let frame = match idle {
            Some(idle) => tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Idle)?,
            None => body.frame().await,
        };
        let Some(frame) = frame else { return Ok(ReadAhead { bytes: bytes.freeze(), rest: None }) };
        let Ok(data) = frame?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if bytes.len() > limit {
            return Ok(ReadAhead { bytes: bytes.freeze(), rest: Some(body) });
        }
    }
}

/// What comes from the other side.
pub(super) enum Source {
    /// A request's body.
    Client(Upload),
    /// A response's body.
    Application(Incoming),
}

impl From<Upload> for Source {
    fn from(upload: Upload) -> Self {
        Self::Client(upload)
    }
}

impl From<Incoming> for Source {
    fn from(body: Incoming) -> Self {
        Self::Application(body)
    }
}

impl Source {
    fn incoming(&self) -> Option<&Incoming> {
        match self {
            Self::Client(upload) => upload.body.as_ref(),
            Self::Application(body) => Some(body),
        }
    }
}

impl http_body::Body for Source {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let body = match self.get_mut() {
            Self::Client(upload) => upload.body.as_mut(),
            Self::Application(body) => Some(body),
        };
        body.map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

/// A client's body. What nobody has read of it when it is dropped is read away: a stream that is reset
/// or a connection that is closed before the client has sent all can take the answer with it (RFC 9112
/// 9.6).
pub(super) struct Upload {
    body: Option<Incoming>,
    /// Whether the client sends it only when it is asked to: then it is not, and there is nothing to
    /// read (RFC 9110 10.1.1, S94).
    held_back: bool,
}

impl Upload {
    /// The body of a request of this version with these headers. Over HTTP/2, where nobody is asked for
    /// it, the client sends it after a while.
    pub(super) fn new(body: Incoming, version: Version, headers: &HeaderMap) -> Self {
        Self { body: Some(body), held_back: version < Version::HTTP_2 && headers.contains_key(header::EXPECT) }
    }

    /// Its length, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.as_ref().map_or(Some(0), |body| http_body::Body::size_hint(body).exact())
    }

    /// How many bytes it has at least.
    pub(super) fn declared(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| http_body::Body::size_hint(body).lower())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !self.held_back && !http_body::Body::is_end_stream(body));
        // Without a runtime there is no connection left to care for.
        if let (Some(body), Ok(runtime)) = (unread, Handle::try_current()) {
            // Whatever comes of it, the answer is on its way.
            runtime.spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
        }
    }
}

/// Reads a body away, within bounds.
async fn drain(mut body: Incoming) {
    use http_body_util::BodyExt;
    let mut left = DRAIN_LIMIT;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
