//! The body of every message that passes: nothing, bytes we wrote ourselves, or a stream from the
//! other side, polled only when there is room (back-pressure) and never collected.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;

use crate::proxy::flow::Stream;
use crate::proxy::native::Fault;
use crate::proxy::sending::Sending;
use crate::proxy::stall::Watched;
use crate::telemetry;

/// The body of a request to the application or of a response to the client.
pub struct Body {
    kind: Kind,
}

enum Kind {
    Bytes(Bytes),
    Stream(Box<Stream>),
    Watched(Watched),
}

/// Why a body ended before its end. The peer sees a broken message, never a clean end (S99).
#[derive(Clone, Debug, thiserror::Error)]
pub enum BodyError {
    /// The sending side broke off.
    #[error("the sender broke off")]
    Broken(#[source] Arc<dyn Error + Send + Sync>),
    /// Nothing came for the `body_idle` timeout.
    #[error("the sender paused for longer than the body_idle timeout")]
    Idle,
    /// More than the `body` limit.
    #[error("the body is larger than the limit")]
    TooLarge,
    /// The session that it belongs to has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// The client took nothing for the `body_idle` timeout.
    #[error("the client took nothing for longer than the body_idle timeout")]
    Stalled,
    /// The program stops, and the body has no end that could be waited for.
    #[error("the program stops")]
    Stopping,
}

impl From<hyper::Error> for BodyError {
    fn from(error: hyper::Error) -> Self {
        Self::Broken(Arc::new(error))
    }
}

impl From<Fault> for BodyError {
    fn from(fault: Fault) -> Self {
        Self::Broken(Arc::new(fault))
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

    /// An answer that is given up when its client takes nothing of it for `limit`.
    pub(super) fn watched(stream: Stream, limit: Duration, context: &telemetry::Context) -> Self {
        Self { kind: Kind::Watched(Watched::new(stream, limit, context.clone())) }
    }

    /// How the sending gets on from now on; `None`: all of it goes along with the head.
    pub(super) fn report(&mut self) -> Option<Arc<Sending>> {
        match &mut self.kind {
            Kind::Bytes(_) => None,
            Kind::Stream(stream) => Some(stream.report()),
            // Requests are not watched: what an application does not take, it does not answer either.
            Kind::Watched(_) => None,
        }
    }

    /// What more there is by now, which nobody waits for: ready at the end as well.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.kind {
            Kind::Stream(stream) => stream.poll_more(context),
            Kind::Bytes(_) | Kind::Watched(_) => http_body::Body::poll_frame(Pin::new(self), context),
        }
    }

    /// The same once more, if it is at hand.
    pub(super) fn again(&self) -> Option<Self> {
        match &self.kind {
            Kind::Bytes(bytes) => Some(Self::bytes(bytes.clone())),
            Kind::Stream(_) | Kind::Watched(_) => None,
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
            Kind::Watched(watched) => watched.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Bytes(bytes) => bytes.is_empty(),
            Kind::Stream(stream) => stream.is_end(),
            Kind::Watched(watched) => watched.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Bytes(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Stream(stream) => stream.size_hint(),
            Kind::Watched(watched) => watched.size_hint(),
        }
    }
}
