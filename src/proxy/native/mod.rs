//! HTTP/1.1 towards the application, one request at a time on a connection (`upstream_client = "native"`).
//!
//! A connection is in one place only: idle in the pool, with the request that is being sent, or in the body of
//! its answer. Who drops it closes it, so nothing else is needed to cancel a request. It goes back to the pool
//! only from an answer of which nothing is left. There is no task: whoever waits for an answer reads it. Only an
//! answer that comes before its request is complete has one, which sends the rest.

mod answer;
mod outbound;

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;
use std::task::ready;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderMap;
use http::Request;
use http::Response;
use hyper::ext::ReasonPhrase;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

use crate::http1::Decoder;
use crate::http1::Head;
use crate::http1::HeadReader;
use crate::http1::Malformed;
use crate::policy::headers::Lines;
use crate::proxy::body::Body;
use crate::proxy::body::BodyError;
use crate::proxy::leg::Leg;
use crate::proxy::native::outbound::Outbound;

pub(super) use self::answer::Answer;

/// What is read at once, at least and at most; as much as there seems to be. A little more than powers of two: an
/// answer of 64 KiB comes with its head in one read.
const LEAST_READ: usize = 17 * 1024;
const MOST_READ: usize = 16 * LEAST_READ;
/// With less room than this it is not worth reading.
const LEAST_ROOM: usize = 4 * 1024;
/// What an idle connection keeps to write heads in.
const LINES_KEPT: usize = 16 * 1024;

/// What bytes go over.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Wire for T {}

/// A connection to the application.
pub(super) struct Connection<T = Leg> {
    io: T,
    intake: Intake,
    heads: HeadReader,
    /// Where heads are written. Kept for the room that it has.
    lines: Vec<u8>,
}

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// What came is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The connection has failed.
    #[error("the connection broke")]
    Io(#[from] io::Error),
    /// Nothing came.
    #[error("it closed the connection without an answer")]
    Unanswered,
    /// Not all came.
    #[error("it closed the connection in the midst of its answer")]
    Cut,
    /// The request's body broke off.
    #[error("the request's body broke off")]
    Upload(#[source] BodyError),
    /// The request's body has another length than was said of it.
    #[error("the request's body has another length than its head says")]
    Length,
}

/// A request without an answer.
pub(super) struct Lost {
    pub(super) fault: Fault,
    /// Whether something of an answer has come.
    pub(super) is_answered: bool,
    /// The request, if nothing of it is used up.
    pub(super) request: Option<Box<Request<Body>>>,
}

impl<T: Wire> Connection<T> {
    /// A connection on which nothing has been said yet. `mends` fields that are folded or have a space before
    /// their colon (RFC 9112 5.1, 5.2).
    pub(super) fn new(io: T, mends: bool) -> Box<Self> {
        let intake = Intake { buffer: BytesMut::new(), appetite: LEAST_READ };
        Box::new(Self { io, intake, heads: HeadReader::new(mends), lines: Vec::new() })
    }

    /// Whether an idle connection can take a request: nothing has come on it, and no end either. What is not
    /// known to be over is asked for it, as tokio takes a connection for readable until a read finds nothing.
    /// It is really asked: a task that has done much in one go would be told to wait, whatever has come.
    pub(super) fn is_alive(&mut self) -> bool {
        let mut byte = [0];
        let read = poll_fn(|context| Pin::new(&mut self.io).poll_read(context, &mut ReadBuf::new(&mut byte)));
        pin!(unconstrained(read)).poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    /// Sends a request, with these fields beside its own, and waits for the head of its answer. Dropping the
    /// future cancels the request. What of it is left behind an early answer is given up when nothing of that is
    /// taken for `patience`.
    pub(super) async fn send(
        mut self: Box<Self>,
        mut request: Box<Request<Body>>,
        added: &Lines,
        patience: Option<Duration>,
    ) -> Result<Response<Answer<T>>, Lost> {
        let body = mem::replace(request.body_mut(), Body::empty());
        let is_whole = body.is_empty();
        let mut outbound = Outbound::begin(mem::take(&mut self.lines), &request, added, body);
        let headers = request.headers_mut();
        let received = poll_fn(|context| self.poll_head(&mut outbound, headers, context)).await;
        match received.and_then(|head| Ok((Decoder::of(&head, request.method())?, head))) {
            Ok((decoder, head)) => Ok(self.answer(outbound, patience, decoder, head)),
            Err(fault) => {
                let is_answered = self.heads.has_begun() || !self.intake.buffer.is_empty();
                let is_left = is_whole && !is_answered;
                Err(Lost { fault, is_answered, request: is_left.then_some(request) })
            }
        }
    }

    /// Sends what there is to send and reads at the same time: an application may answer, or leave, before it
    /// has taken everything.
    fn poll_head(
        &mut self,
        outbound: &mut Outbound,
        headers: &mut HeaderMap,
        context: &mut Context<'_>,
    ) -> Poll<Result<Head, Fault>> {
        if let Poll::Ready(Err(fault)) = outbound.poll(&mut self.io, context) {
            return Poll::Ready(Err(fault));
        }
        loop {
            if let Some(head) = self.heads.read(&mut self.intake.buffer, headers)? {
                return Poll::Ready(Ok(head));
            }
            if ready!(self.intake.poll_read(&mut self.io, None, context))? == 0 {
                let has_begun = self.heads.has_begun() || !self.intake.buffer.is_empty();
                return Poll::Ready(Err(if has_begun { Fault::Cut } else { Fault::Unanswered }));
            }
        }
    }

    /// The answer, whose body has the connection from now on.
    fn answer(
        mut self: Box<Self>,
        outbound: Outbound,
        patience: Option<Duration>,
        decoder: Decoder,
        head: Head,
    ) -> Response<Answer<T>> {
        let keeps_open = head.keeps_open() && !decoder.is_until_close();
        let body = if outbound.is_done() {
            self.lines = outbound.into_lines();
            Answer::whole(self, decoder, keeps_open)
        } else {
            Answer::early(*self, outbound, patience, decoder)
        };
        let mut response = Response::new(body);
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.reason.and_then(|reason| ReasonPhrase::try_from(reason).ok()) {
            response.extensions_mut().insert(reason);
        }
        response
    }

    /// Ready for the next request, if nothing is left of the one before.
    fn rest(mut self: Box<Self>) -> Option<Box<Self>> {
        if !self.intake.buffer.is_empty() {
            return None;
        }
        self.intake.rest();
        self.heads.begin();
        if self.lines.capacity() > LINES_KEPT {
            self.lines = Vec::new();
        }
        Some(self)
    }
}

/// What comes, and how much of it is asked for at once.
struct Intake {
    buffer: BytesMut,
    appetite: usize,
}

impl Intake {
    /// Reads what is there, and takes room for no more than is `left` to come, if that is known; how much it was,
    /// nothing at the end.
    fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        left: Option<u64>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let left = left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        if self.room() < LEAST_ROOM.min(left) {
            self.make_room(self.appetite.min(left));
        }
        let room = self.room();
        let read = ready!(poll_read_buf(Pin::new(io), context, &mut self.buffer))?;
        if read == room && room >= self.appetite {
            self.appetite = (self.appetite * 2).min(MOST_READ);
        } else if read < self.appetite.min(room).min(left) / 4 {
            self.appetite = (self.appetite / 2).max(LEAST_READ);
        }
        Poll::Ready(Ok(read))
    }

    fn room(&self) -> usize {
        self.buffer.capacity() - self.buffer.len()
    }

    /// In the buffer that there is, if all that was in it has been sent; otherwise in a new one. To let the old one
    /// grow would copy what has been taken out of it, and keep room for it.
    fn make_room(&mut self, room: usize) {
        if !self.buffer.try_reclaim(room) {
            let mut roomy = BytesMut::with_capacity(self.buffer.len() + room);
            roomy.extend_from_slice(&self.buffer);
            self.buffer = roomy;
        }
    }

    /// Keeps no more than a small buffer while nothing comes. What is seen of it may be the rest of a large one.
    fn rest(&mut self) {
        if self.appetite > LEAST_READ || self.buffer.capacity() > LEAST_READ {
            self.buffer = BytesMut::new();
        }
    }
}

#[cfg(test)]
mod tests;
