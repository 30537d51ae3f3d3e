//! The stream of a client, as HTTP/1.1 reads and writes it.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use bytes::Bytes;
use tokio::io::AsyncBufRead;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

use crate::server::activity::Activity;

/// What a line is drawn over: TLS, which holds what it has decrypted.
pub(in crate::server) trait Stream: AsyncBufRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncBufRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// The stream of a client, with what hyper has read of it and given back.
pub(super) struct Line<T> {
    stream: T,
    unread: Bytes,
    activity: Activity,
}

impl<T> Line<T> {
    pub(super) fn new(stream: T, activity: Activity) -> Self {
        Self { stream, unread: Bytes::new(), activity }
    }

    /// Puts back what was read last; whether that was anything.
    pub(super) fn put_back(&mut self, unread: Bytes) -> bool {
        // Empty bytes may still hold the memory that they are the end of.
        self.unread = if unread.is_empty() { Bytes::new() } else { unread };
        !self.unread.is_empty()
    }
}

impl<T: Stream> AsyncRead for Line<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let length = self.unread.len().min(buffer.remaining());
        let mut unread = self.unread.clone();
        buffer.put_slice(&unread.split_to(length));
        self.put_back(unread);
        Poll::Ready(Ok(()))
    }
}

impl<T: Stream> AsyncBufRead for Line<T> {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        match this.unread.is_empty() {
            true => Pin::new(&mut this.stream).poll_fill_buf(cx),
            false => Poll::Ready(Ok(&this.unread)),
        }
    }

    fn consume(mut self: Pin<&mut Self>, amount: usize) {
        match self.unread.is_empty() {
            true => Pin::new(&mut self.stream).consume(amount),
            false => {
                let unread = self.unread.slice(amount..);
                self.put_back(unread);
            }
        }
    }
}

impl<T: Stream> AsyncWrite for Line<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.activity.settle(false);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.activity.settle(false);
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.settle(true);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // There is no way back from here.
        self.activity.settle(false);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
