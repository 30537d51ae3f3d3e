//! A request on its way out.

use std::collections::VecDeque;
use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::pin::pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Buf;
use bytes::Bytes;
use http::Request;
use http::header;
use tokio::io::AsyncWrite;
use tokio::time::Instant;
use tokio::time::sleep;
use tokio_util::io::poll_write_buf;

use crate::http1;
use crate::http1::Framing;
use crate::policy::headers::Lines;
use crate::proxy::body::Body;
use crate::proxy::native::Fault;

/// What there is still to send of a request.
pub(super) struct Outbound {
    pieces: Pieces,
    /// The rest of the body; `None`: there is no more.
    body: Option<Body>,
    framing: Framing,
    is_flushed: bool,
    /// Whether anything was taken since this was last asked.
    has_moved: bool,
}

/// So much of a body is collected before it is written, if it is there: HTTP/2 hands it on by frames.
const MOST_GATHERED: usize = 64 * 1024;

/// What is written next: lines, and behind them a part of the body.
struct Pieces {
    lines: Vec<u8>,
    written: usize,
    data: VecDeque<Bytes>,
    /// How much that is.
    length: usize,
    /// Behind the data.
    end: &'static [u8],
}

impl Outbound {
    /// The head goes to `lines`, and out together with the beginning of the body.
    pub(super) fn begin(mut lines: Vec<u8>, request: &Request<Body>, added: &Lines, body: Body) -> Self {
        let framing = match http_body::Body::size_hint(&body).exact() {
            Some(0) if !request.headers().contains_key(header::CONTENT_LENGTH) => Framing::Absent,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        lines.clear();
        http1::write_head(&mut lines, request.method(), request.uri(), request.headers(), added.as_bytes(), framing);
        let pieces = Pieces { lines, written: 0, data: VecDeque::new(), length: 0, end: b"" };
        let body = (!matches!(framing, Framing::Absent | Framing::Length(0))).then_some(body);
        Self { pieces, body, framing, is_flushed: false, has_moved: false }
    }

    /// Whether all of it has been sent.
    pub(super) fn is_done(&self) -> bool {
        self.body.is_none() && !self.pieces.has_remaining() && self.is_flushed
    }

    /// The room that the lines had.
    pub(super) fn into_lines(self) -> Vec<u8> {
        self.pieces.lines
    }

    /// Sends as much as the application takes and the client has sent; ready when it was all.
    pub(super) fn poll(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Fault>> {
        while !self.is_done() {
            let filled = self.poll_fill(context)?;
            if self.pieces.has_remaining() {
                self.is_flushed = false;
                if ready!(poll_write_buf(Pin::new(&mut *io), context, &mut self.pieces))? == 0 {
                    return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
                }
                self.has_moved = true;
                continue;
            }
            if !self.is_flushed {
                ready!(Pin::new(&mut *io).poll_flush(context))?;
                self.is_flushed = true;
            }
            ready!(filled);
        }
        Poll::Ready(Ok(()))
    }

    /// Sends what is left behind an early answer, for which nobody waits any more. An application that has
    /// answered may never take it: it is given up when nothing of it is taken for `patience`, and that is no
    /// failure of the answer (S172).
    pub(super) async fn finish(
        mut self,
        mut io: impl AsyncWrite + Unpin,
        patience: Option<Duration>,
    ) -> Result<(), Fault> {
        let Some(patience) = patience else { return poll_fn(|context| self.poll(&mut io, context)).await };
        let mut stalled = pin!(sleep(patience));
        poll_fn(|context| {
            if let Poll::Ready(sent) = self.poll(&mut io, context) {
                return Poll::Ready(sent);
            }
            // Who sends it has deadlines of its own.
            let is_offered = self.pieces.has_remaining() || !self.is_flushed;
            if std::mem::take(&mut self.has_moved) || !is_offered {
                stalled.as_mut().reset(Instant::now() + patience);
            }
            stalled.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Takes the next part of the body, when the one before has been written, and what more of it is there already.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        loop {
            let may_gather = self.may_gather();
            let Some(body) = &mut self.body else { break };
            let frame = if self.pieces.is_spent() {
                ready!(http_body::Body::poll_frame(Pin::new(body), context))
            } else if may_gather && let Poll::Ready(frame) = body.poll_more(context) {
                frame
            } else {
                break;
            };
            match frame {
                Some(Ok(frame)) => {
                    // What is no data are trailers, which do not pass (S85).
                    if let Ok(data) = frame.into_data() {
                        self.take(data)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(Fault::Upload(error))),
                None => self.end()?,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn may_gather(&self) -> bool {
        // A chunk says beforehand how much it has.
        matches!(self.framing, Framing::Length(_)) && self.pieces.length < MOST_GATHERED
    }

    fn take(&mut self, data: Bytes) -> Result<(), Fault> {
        if data.is_empty() {
            return Ok(());
        }
        match &mut self.framing {
            Framing::Absent => return Err(Fault::Length),
            Framing::Length(left) => {
                *left = left.checked_sub(data.len() as u64).ok_or(Fault::Length)?;
                if *left == 0 {
                    self.body = None;
                }
            }
            Framing::Chunked => {
                self.pieces.add_line(format_args!("{:x}\r\n", data.len()));
                self.pieces.end = b"\r\n";
            }
        }
        self.pieces.length += data.len();
        self.pieces.data.push_back(data);
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.body = None;
        match self.framing {
            Framing::Absent | Framing::Length(0) => Ok(()),
            Framing::Length(1..) => Err(Fault::Length),
            Framing::Chunked => {
                self.pieces.add_line(format_args!("0\r\n\r\n"));
                Ok(())
            }
        }
    }
}

impl Pieces {
    /// Whether nothing of the body is left in it.
    fn is_spent(&self) -> bool {
        self.length == 0 && self.end.is_empty()
    }

    /// What is still to be written, in order, without what is empty.
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let lines = self.lines.get(self.written..).unwrap_or_default();
        let data = self.data.iter().map(|data| &data[..]);
        std::iter::once(lines).chain(data).chain([self.end]).filter(|piece| !piece.is_empty())
    }

    fn add_line(&mut self, line: std::fmt::Arguments<'_>) {
        if self.written == self.lines.len() {
            (self.written, self.lines) = (0, std::mem::take(&mut self.lines));
            self.lines.clear();
        }
        let written = io::Write::write_fmt(&mut self.lines, line);
        debug_assert!(written.is_ok(), "there is always room");
    }
}

impl Buf for Pieces {
    fn remaining(&self) -> usize {
        self.lines.len() - self.written + self.length + self.end.len()
    }

    fn chunk(&self) -> &[u8] {
        self.slices().next().unwrap_or_default()
    }

    fn advance(&mut self, mut count: usize) {
        let lines = count.min(self.lines.len() - self.written);
        self.written += lines;
        count -= lines;
        while count > 0
            && let Some(data) = self.data.front_mut()
        {
            let taken = count.min(data.len());
            data.advance(taken);
            self.length -= taken;
            count -= taken;
            if data.is_empty() {
                self.data.pop_front();
            }
        }
        self.end.advance(count);
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut used = 0;
        for (slice, piece) in slices.iter_mut().zip(self.slices()) {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_leave_in_order_however_they_are_taken(
            lengths in proptest::collection::vec(1..50_usize, 0..9),
            taken in proptest::collection::vec(1..80_usize, 0..99),
        ) {
            let data = (1..).zip(lengths).map(|(number, length)| Bytes::from(vec![number; length]));
            let data: VecDeque<Bytes> = data.collect();
            let expected = [&b"head"[..], &data.iter().flatten().copied().collect::<Vec<u8>>(), b"\r\n"].concat();
            let length = data.iter().map(Bytes::len).sum();
            let mut pieces = Pieces { lines: b"head".to_vec(), written: 0, data, length, end: b"\r\n" };
            let mut left = Vec::new();
            for count in taken {
                let mut slices = [IoSlice::new(b""); 64];
                let used = pieces.chunks_vectored(&mut slices);
                let all = slices[..used].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
                prop_assert_eq!(all.len(), pieces.remaining());
                prop_assert!(all.starts_with(pieces.chunk()));
                let count = count.min(all.len());
                left.extend_from_slice(&all[..count]);
                pieces.advance(count);
            }
            let rest = pieces.copy_to_bytes(pieces.remaining());
            left.extend_from_slice(&rest);
            prop_assert_eq!(left, expected);
            prop_assert!(pieces.is_spent());
        }
    }
}
