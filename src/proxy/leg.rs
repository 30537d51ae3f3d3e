//! One connection to the application as bytes: a socket, perhaps with TLS on it.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::task::Waker;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use crate::write::poll_write_slices;

/// What there is to connect by.
pub(super) type Socket = Either<TcpStream, Either<UnixStream, TlsStream<TcpStream>>>;

/// A connection on which a failed write is not the end: an application that refuses a request before
/// it has read all of it often closes at once, and its answer is still there to be read.
pub(super) struct Leg {
    socket: Socket,
    /// Nothing that is written arrives any more.
    deaf: bool,
    /// Told when the application says its first word.
    first_word: Option<Arc<Notify>>,
    /// Counts how often it has said something.
    heard: Option<Arc<AtomicUsize>>,
    /// Taken as long as there is the connection: in use, idle, or become a tunnel. Health checks have none.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Leg {
    pub(super) fn new(socket: Socket, slot: Option<OwnedSemaphorePermit>) -> Self {
        Self { socket, deaf: false, first_word: None, heard: None, _slot: slot }
    }

    /// Notified when the application has said something.
    pub(super) fn first_word(&mut self) -> Arc<Notify> {
        Arc::clone(self.first_word.get_or_insert_default())
    }

    /// How often the application has said something.
    pub(super) fn heard(&mut self) -> Arc<AtomicUsize> {
        Arc::clone(self.heard.get_or_insert_default())
    }

    fn hear(&mut self, written: Poll<io::Result<usize>>, length: usize) -> Poll<io::Result<usize>> {
        written.map(|written| {
            written.or_else(|_| {
                // Reading tells what there is to tell: an answer, or why there is none.
                self.deaf = true;
                Ok(length)
            })
        })
    }
}

/// Who speaks TLS hears that it was no accident (RFC 8446 6.1).
impl Drop for Leg {
    fn drop(&mut self) {
        if let Either::Right(Either::Right(tls)) = &mut self.socket {
            // There is nobody to wait until it has left.
            let _left_or_not = Pin::new(tls).poll_shutdown(&mut Context::from_waker(Waker::noop()));
        }
    }
}

impl AsyncRead for Leg {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.socket).poll_read(context, buffer);
        if polled.is_ready() {
            self.first_word.take().iter().for_each(|first_word| first_word.notify_one());
            if let Some(heard) = &self.heard {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        }
        polled
    }
}

impl AsyncWrite for Leg {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut self.socket).poll_write(context, data);
        self.hear(written, data.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = data.iter().map(|slice| slice.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(length));
        }
        let written = poll_write_slices(Pin::new(&mut self.socket), context, data);
        self.hear(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.hear(flushed.map_ok(|()| 0), 0).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}
