//! The body of an answer, which has the connection that it comes on.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use http_body::SizeHint;
use tokio::io::AsyncReadExt;
use tokio::io::ReadHalf;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::http1::Decoder;
use crate::http1::Piece;
use crate::proxy::leg::Leg;
use crate::proxy::native::Connection;
use crate::proxy::native::Fault;
use crate::proxy::native::Intake;
use crate::proxy::native::Wire;
use crate::proxy::native::outbound::Outbound;

/// What follows the head of an answer.
pub(in crate::proxy) struct Answer<T: Wire = Leg> {
    decoder: Decoder,
    way: Way<T>,
    /// A failure that is told the next time.
    fault: Option<Fault>,
}

/// How it comes.
enum Way<T> {
    /// On a connection that has nothing else to do, and whether that may be used again.
    Whole(Box<Connection<T>>, bool),
    /// Before its request was complete.
    Early(Box<Early<T>>),
    /// It has failed.
    Closed,
}

/// An answer whose request is still being sent. The connection is not used again.
struct Early<T> {
    io: ReadHalf<T>,
    intake: Intake,
    /// `None`: it has been sent, or given up.
    upload: Option<JoinHandle<Result<(), Fault>>>,
}

impl<T: Wire> Answer<T> {
    pub(super) fn whole(connection: Box<Connection<T>>, decoder: Decoder, keeps_open: bool) -> Self {
        Self::new(decoder, Way::Whole(connection, keeps_open))
    }

    /// The rest of the request is sent whether somebody takes the answer or not: a client may read nothing
    /// before it has sent everything.
    pub(super) fn early(
        connection: Connection<T>,
        outbound: Outbound,
        patience: Option<Duration>,
        decoder: Decoder,
    ) -> Self {
        let Connection { io, intake, .. } = connection;
        let (io, writing) = tokio::io::split(io);
        let upload = Some(tokio::spawn(outbound.finish(writing, patience)));
        Self::new(decoder, Way::Early(Box::new(Early { io, intake, upload })))
    }

    fn new(decoder: Decoder, way: Way<T>) -> Self {
        Self { decoder, way, fault: None }
    }

    /// The next piece of the body. A failure is told a moment later, so that what came before it can leave: the
    /// library drops what it has not written.
    pub(in crate::proxy) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Some(fault) = self.fault.take() {
            return Poll::Ready(Some(Err(fault)));
        }
        match ready!(self.poll_piece(context)) {
            Some(Ok(data)) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Poll::Ready(None),
            Some(Err(fault)) => {
                self.fault = Some(fault);
                // Nothing is sent or read any more.
                self.way = Way::Closed;
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fault>>> {
        if let Way::Early(early) = &mut self.way
            && let Some(upload) = &mut early.upload
            && let Poll::Ready(sent) = Pin::new(upload).poll(context)
        {
            early.upload = None;
            if let Err(fault) = sent.unwrap_or(Err(Fault::Cut)) {
                return Poll::Ready(Some(Err(fault)));
            }
        }
        loop {
            let intake = match &mut self.way {
                Way::Whole(connection, _) => &mut connection.intake,
                Way::Early(early) => &mut early.intake,
                Way::Closed => return Poll::Ready(None),
            };
            match self.decoder.decode(&mut intake.buffer)? {
                Piece::Data(data) => return Poll::Ready(Some(Ok(data))),
                Piece::End => return Poll::Ready(None),
                Piece::More => {}
            }
            let left = self.decoder.left();
            let read = match &mut self.way {
                Way::Whole(connection, _) => {
                    let Connection { io, intake, .. } = &mut **connection;
                    ready!(intake.poll_read(io, left, context))?
                }
                Way::Early(early) => ready!(early.intake.poll_read(&mut early.io, left, context))?,
                Way::Closed => 0,
            };
            if read == 0 {
                let is_end = self.decoder.close();
                return Poll::Ready(if is_end { None } else { Some(Err(Fault::Cut)) });
            }
        }
    }

    /// The body, if it has a length and all of it came with its head: nobody has to wait for it.
    pub(in crate::proxy) fn take_whole(&mut self) -> Option<Bytes> {
        let Way::Whole(connection, _) = &mut self.way else { return None };
        let buffer = &mut connection.intake.buffer;
        if self.decoder.left()? > buffer.len() as u64 {
            return None;
        }
        match self.decoder.decode(buffer) {
            Ok(Piece::Data(data)) => Some(data),
            Ok(Piece::End | Piece::More) | Err(_) => None,
        }
    }

    /// Whether all of it has come.
    pub(in crate::proxy) fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    /// What is known of its length.
    pub(in crate::proxy) fn size_hint(&self) -> SizeHint {
        self.decoder.left().map_or_else(SizeHint::new, SizeHint::with_exact)
    }

    /// The connection, if another request may be sent on it.
    pub(in crate::proxy) fn into_connection(mut self) -> Option<Box<Connection<T>>> {
        match mem::replace(&mut self.way, Way::Closed) {
            Way::Whole(connection, true) if self.decoder.is_end() => connection.rest(),
            early @ Way::Early(_) => {
                // It ends by itself.
                self.way = early;
                None
            }
            Way::Whole(..) | Way::Closed => None,
        }
    }

    /// The connection after a switch of protocols, and what has come on it already.
    pub(in crate::proxy) fn into_tunnel(mut self) -> Option<(T, Bytes)> {
        match mem::replace(&mut self.way, Way::Closed) {
            Way::Whole(connection, _) => Some((connection.io, connection.intake.buffer.freeze())),
            Way::Early(_) | Way::Closed => None,
        }
    }
}

impl<T: Wire> Drop for Answer<T> {
    fn drop(&mut self) {
        let Way::Early(early) = mem::replace(&mut self.way, Way::Closed) else { return };
        let Early { mut io, upload, .. } = *early;
        let Some(mut upload) = upload else { return };
        let is_end = self.decoder.is_end();
        match Handle::try_current() {
            // All has been said but by the client. The application may still want to hear it, until it leaves or
            // takes nothing more.
            Ok(runtime) if is_end => drop(runtime.spawn(async move {
                tokio::select! {
                    _sent = &mut upload => {}
                    _left = io.read_u8() => upload.abort(),
                }
            })),
            Ok(_) | Err(_) => upload.abort(),
        }
    }
}
