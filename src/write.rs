//! How sockets are written to.

use std::io;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use tokio::io::AsyncWrite;

/// Writes these slices, as far as the stream takes them. A single one, as most heads and records are, goes by
/// `send` instead of `writev`: the system's detour over a vector costs a small request two hundredths.
pub(crate) fn poll_write_slices<S: AsyncWrite>(
    stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    match slices {
        [slice] => stream.poll_write(cx, slice),
        _ => stream.poll_write_vectored(cx, slices),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Notes how it was written to.
    #[derive(Default)]
    struct Notes(Vec<String>);

    impl AsyncWrite for Notes {
        fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(format!("send {}", bytes.len()));
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let lengths: Vec<usize> = slices.iter().map(|slice| slice.len()).collect();
            self.0.push(format!("writev {lengths:?}"));
            Poll::Ready(Ok(lengths.iter().sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn one_slice_is_sent_and_several_go_together() {
        let (mut notes, mut cx) = (Notes::default(), Context::from_waker(Waker::noop()));
        let pieces = [&b"head"[..], b"", b"body"].map(IoSlice::new);

        for (count, expected) in [(1, 4), (2, 4), (3, 8), (0, 0)] {
            let written = poll_write_slices(Pin::new(&mut notes), &mut cx, &pieces[..count]);
            assert!(matches!(written, Poll::Ready(Ok(length)) if length == expected));
        }

        assert_eq!(notes.0, ["send 4", "writev [4, 0]", "writev [4, 0, 4]", "writev []"]);
    }
}
