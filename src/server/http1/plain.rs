//! Plain requests, answered without hyper: one after the other, straight from what TLS has decrypted and
//! straight to where it encrypts. A connection keeps nothing between two of them.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::io::IoSlice;
use std::io::Write;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Buf;
use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body::Body;
use hyper::ext::ReasonPhrase;
use tokio::io::AsyncBufRead;
use tokio::io::AsyncWrite;

use crate::http1::AnswerHead;
use crate::http1::Framing;
use crate::http1::read_plain;
use crate::server::http1::Serve;
use crate::server::http1::date;
use crate::server::http1::line::Line;
use crate::server::http1::line::Stream;

/// Room for the head of an answer.
const HEAD_ROOM: usize = 768;

/// So many maps are kept for the fields of requests to come, if they have no more than so many.
const MAPS: usize = 64;
const MAP_FIELDS: usize = 48;

thread_local! {
    /// Room for fields: that of answers which have left is the next requests'.
    static ROOM: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

fn take_room() -> HeaderMap {
    ROOM.with_borrow_mut(Vec::pop).unwrap_or_default()
}

fn keep_room(mut fields: HeaderMap) {
    // The capacity does not count further values of the same name, which have room of their own.
    if fields.len().max(fields.capacity()) > MAP_FIELDS {
        return;
    }
    fields.clear();
    ROOM.with_borrow_mut(|maps| {
        if maps.len() < MAPS {
            maps.push(fields);
        }
    });
}

/// What is done about the request of a client.
pub(super) struct Plain<S: Serve> {
    step: Step<S>,
    /// Whether the connection ends with the answer that is under way, or else at once.
    closes: bool,
}

enum Step<S: Serve> {
    Reading,
    Answering(S::Future),
    Writing(Outgoing<S::ResBody>),
}

/// Why nothing more is done here.
pub(super) enum Outcome {
    /// What comes is not plain. None of it was taken.
    NotPlain,
    /// The connection is to end.
    Done,
    /// The connection broke, or is to look as if it did.
    Broken,
}

impl<S: Serve> Plain<S> {
    pub(super) fn new() -> Self {
        Self { step: Step::Reading, closes: false }
    }

    /// Ends the connection as soon as nothing is under way.
    pub(super) fn close(&mut self) {
        self.closes = true;
    }

    /// Answers requests until one is not plain or the connection ends.
    pub(super) fn poll<T: Stream>(
        &mut self,
        line: &mut Line<T>,
        service: &S,
        field_limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<Outcome> {
        loop {
            self.step = match &mut self.step {
                Step::Reading => match read(line, service, field_limit, cx) {
                    Poll::Ready(Ok(answering)) => Step::Answering(answering),
                    // Who comes too late may ask again elsewhere.
                    Poll::Ready(Err(Outcome::NotPlain)) | Poll::Pending if self.closes => {
                        return Poll::Ready(Outcome::Done);
                    }
                    Poll::Ready(Err(outcome)) => return Poll::Ready(outcome),
                    Poll::Pending => return Poll::Pending,
                },
                Step::Answering(answering) => match Pin::new(answering).poll(cx) {
                    Poll::Ready(Ok(response)) => Step::Writing(Outgoing::new(response, self.closes, service)),
                    Poll::Pending => return poll_left(line, cx),
                },
                Step::Writing(outgoing) => match outgoing.poll(line, cx) {
                    Poll::Ready(Ok(())) if outgoing.closes => return Poll::Ready(Outcome::Done),
                    Poll::Ready(Ok(())) => Step::Reading,
                    Poll::Ready(Err(_broken)) => return Poll::Ready(Outcome::Broken),
                    Poll::Pending => return poll_left(line, cx),
                },
            };
        }
    }
}

/// Waits for a request and hands it to the service.
fn read<T: Stream, S: Serve>(
    line: &mut Line<T>,
    service: &S,
    field_limit: usize,
    cx: &mut Context<'_>,
) -> Poll<Result<S::Future, Outcome>> {
    let mut line = Pin::new(line);
    let Ok(bytes) = ready!(line.as_mut().poll_fill_buf(cx)) else { return Poll::Ready(Err(Outcome::Broken)) };
    if bytes.is_empty() {
        return Poll::Ready(Err(Outcome::Done));
    }
    let Some((request, length)) = read_plain(bytes, field_limit, take_room) else {
        return Poll::Ready(Err(Outcome::NotPlain));
    };
    line.consume(length);
    Poll::Ready(Ok(service.answer(request.map(|()| None))))
}

/// Waits for the client to leave. Who says something more instead is no longer watched: that would take reading
/// it, and what is not read holds the client up.
fn poll_left<T: Stream>(line: &mut Line<T>, cx: &mut Context<'_>) -> Poll<Outcome> {
    match ready!(Pin::new(line).poll_fill_buf(cx)) {
        Ok(bytes) if !bytes.is_empty() => Poll::Pending,
        Ok(_) | Err(_) => Poll::Ready(Outcome::Broken),
    }
}

/// An answer on its way.
struct Outgoing<B> {
    /// What goes before the data: the head, the size of a chunk.
    before: Vec<u8>,
    data: Bytes,
    /// What goes behind it.
    behind: &'static [u8],
    /// How many bytes of `before` have gone.
    gone: usize,
    /// What is still to come.
    body: Option<B>,
    /// How it is framed; a length is what is left of it.
    framing: Framing,
    /// Whether the body ended before its end. What there was of it is sent.
    is_cut: bool,
    closes: bool,
}

/// It cannot go on.
struct Broken;

impl From<io::Error> for Broken {
    fn from(_gone: io::Error) -> Self {
        Self
    }
}

impl<B: Body<Data = Bytes> + Unpin> Outgoing<B> {
    fn new(response: Response<B>, closes: bool, service: &impl Serve) -> Self {
        let (parts, body) = response.into_parts();
        let is_bodiless = matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let body = Some(body).filter(|body| !is_bodiless && !body.is_end_stream());
        let framing = match &body {
            _ if is_bodiless => Framing::Absent,
            None => Framing::Length(0),
            Some(body) => body.size_hint().exact().map_or(Framing::Chunked, Framing::Length),
        };
        let is_close = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
        let closes = closes || parts.headers.get_all(header::CONNECTION).iter().any(is_close);
        let mut before = Vec::with_capacity(HEAD_ROOM);
        let reason = parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
        let head = AnswerHead { status: parts.status, reason, headers: &parts.headers, framing, closes };
        head.write(&mut before, |lines| date::write(lines, service.time_of_day()));
        keep_room(parts.headers);
        Self { before, data: Bytes::new(), behind: b"", gone: 0, body, framing, is_cut: false, closes }
    }

    /// Sends it, and completes when all of it has left.
    fn poll<T: Stream>(&mut self, line: &mut Line<T>, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            let has_room = self.data.is_empty() && self.behind.is_empty();
            let waits = has_room && self.poll_data(cx).is_pending();
            while !self.is_gone() {
                let before = self.before.get(self.gone..).unwrap_or_default();
                let slices = [IoSlice::new(before), IoSlice::new(&self.data), IoSlice::new(self.behind)];
                let taken = ready!(Pin::new(&mut *line).poll_write_vectored(cx, &slices))?;
                if taken == 0 {
                    return Poll::Ready(Err(Broken));
                }
                self.advance(taken);
            }
            if waits || self.body.is_none() {
                ready!(Pin::new(&mut *line).poll_flush(cx))?;
                return match &self.body {
                    Some(_) => Poll::Pending,
                    None => Poll::Ready(if self.is_cut { Err(Broken) } else { Ok(()) }),
                };
            }
        }
    }

    /// Takes what comes next of the body.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(body) = &mut self.body else { return Poll::Ready(()) };
        let taken = match ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let is_last = body.is_end_stream();
                // No client of HTTP/1.1 gets trailers (S85).
                let put = frame.into_data().map_or(Ok(()), |data| self.put(data));
                put.and_then(|()| if is_last { self.end() } else { Ok(()) })
            }
            Some(Err(_said_by_the_body)) => Err(Broken),
            None => self.end(),
        };
        if taken.is_err() {
            (self.body, self.is_cut) = (None, true);
        }
        Poll::Ready(())
    }

    fn put(&mut self, data: Bytes) -> Result<(), Broken> {
        match &mut self.framing {
            Framing::Absent => return Err(Broken),
            Framing::Length(left) => *left = left.checked_sub(data.len() as u64).ok_or(Broken)?,
            // An empty chunk would be the last.
            Framing::Chunked if data.is_empty() => {}
            Framing::Chunked => {
                // Memory takes what is written to it.
                let _written = write!(self.before, "{:x}\r\n", data.len());
                self.behind = b"\r\n";
            }
        }
        self.data = data;
        Ok(())
    }

    /// The body is complete; one that is shorter than was said must not look so (S99).
    fn end(&mut self) -> Result<(), Broken> {
        self.body = None;
        match self.framing {
            Framing::Length(1..) => return Err(Broken),
            Framing::Length(0) | Framing::Absent => {}
            Framing::Chunked if self.data.is_empty() => self.before.extend_from_slice(b"0\r\n\r\n"),
            Framing::Chunked => self.behind = b"\r\n0\r\n\r\n",
        }
        Ok(())
    }

    fn is_gone(&self) -> bool {
        self.gone == self.before.len() && self.data.is_empty() && self.behind.is_empty()
    }

    fn advance(&mut self, taken: usize) {
        let of_before = taken.min(self.before.len() - self.gone);
        self.gone += of_before;
        let of_data = (taken - of_before).min(self.data.len());
        self.data.advance(of_data);
        self.behind = self.behind.get(taken - of_before - of_data..).unwrap_or_default();
        if self.is_gone() {
            (self.gone, self.data) = (0, Bytes::new());
            self.before.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(count: usize) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for _ in 0..count {
            fields.append(header::COOKIE, HeaderValue::from_static("a=1"));
        }
        fields
    }

    #[test]
    fn what_answers_leave_is_room_for_as_many_requests_and_nothing_else() {
        // Each test has a thread of its own.
        (0..3).for_each(|_| keep_room(fields(5)));
        for _ in 0..3 {
            let room = take_room();
            assert!(room.is_empty() && room.capacity() > 0);
        }
        keep_room(fields(MAP_FIELDS + 1));
        keep_room(HeaderMap::with_capacity(MAP_FIELDS + 1));
        assert_eq!(take_room().capacity(), 0, "none is left, and large ones are not kept");
        (0..2 * MAPS).for_each(|_| keep_room(fields(1)));
        assert_eq!(ROOM.with_borrow(Vec::len), MAPS);
    }
}
