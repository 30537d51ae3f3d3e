//! Collects what an HTTP/2 connection writes and puts its flushes off a little: answers that are ready at
//! the same time leave in one write and few TLS records.

use std::io;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;

/// So much is collected at most: four TLS records (RFC 8446 5.1), what rustls takes at once.
const MOST: usize = 64 * 1024;
/// Room for small answers.
const FEW: usize = 4 * 1024;
/// So many flushes are put off at most before one is carried out.
const FLUSHES: u8 = 4;

/// Bytes on their way to a stream below.
///
/// A flush that is put off is answered as if it had been carried out, and the task is woken: when it comes
/// again, others that were ready have had their turn. HTTP/2 flushes whenever it is polled, so nothing
/// stays behind.
pub(super) struct Corked<S> {
    stream: S,
    held: Vec<u8>,
    /// How many of them the stream has taken.
    taken: usize,
    /// How many there were when the last flush was put off: without news there is nothing to wait for.
    seen: usize,
    /// How many flushes were put off.
    put_off: u8,
}

impl<S> Corked<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), taken: 0, seen: 0, put_off: 0 }
    }

    /// For heads only, or for all that is collected: to grow in steps would be to copy it in each.
    fn make_room(&mut self, bytes: usize) {
        let needed = self.held.len() + bytes;
        if needed > self.held.capacity() {
            let room = if needed > FEW { MOST } else { FEW };
            self.held.reserve_exact(room - self.held.len());
        }
    }

    fn may_wait(&self) -> bool {
        self.held.len() > self.seen && self.held.len() < MOST && self.put_off < FLUSHES && self.taken == 0
    }
}

impl<S: AsyncWrite + Unpin> Corked<S> {
    /// Hands on all that is held. An idle connection keeps no memory for it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.held.get(self.taken..).filter(|rest| !rest.is_empty()) {
            let taken = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.taken += taken;
        }
        (self.held, self.taken, self.seen, self.put_off) = (Vec::new(), 0, 0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        // What the stream has begun to take goes first, and whole.
        if self.taken > 0 || self.held.len() >= MOST {
            ready!(self.poll_drain(cx))?;
        }
        let taken = bytes.len().min(MOST - self.held.len());
        self.make_room(taken);
        self.held.extend_from_slice(bytes.get(..taken).unwrap_or(bytes));
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.may_wait() {
            (self.seen, self.put_off) = (self.held.len(), self.put_off + 1);
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;
    use std::task::Wake;
    use std::task::Waker;

    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Remembers what came in one piece; takes at most `most` bytes of it.
    struct Sink {
        pieces: Vec<Vec<u8>>,
        most: usize,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let taken = bytes.len().min(self.most);
            self.pieces.push(bytes[..taken].to_vec());
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether a flush wakes its task.
    fn flush_wakes(corked: &mut Corked<Sink>) -> bool {
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        assert!(Pin::new(corked).poll_flush(&mut Context::from_waker(&waker)).is_ready());
        flag.0.load(Ordering::Relaxed)
    }

    fn corked(most: usize) -> Corked<Sink> {
        Corked::new(Sink { pieces: Vec::new(), most })
    }

    #[tokio::test]
    async fn what_is_ready_at_the_same_time_leaves_together() {
        let mut corked = corked(usize::MAX);
        corked.write_all(b"one ").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"two").await.unwrap();
        corked.flush().await.unwrap();
        assert!(corked.stream.pieces.is_empty(), "more may come");

        corked.flush().await.unwrap();

        assert_eq!(corked.stream.pieces, [b"one two"]);
    }

    #[tokio::test]
    async fn whoever_is_put_off_is_called_again() {
        let mut corked = corked(usize::MAX);
        for answer in [b"one", b"two"] {
            corked.write_all(answer).await.unwrap();
            assert!(flush_wakes(&mut corked), "put off");
            assert!(!flush_wakes(&mut corked), "carried out");
        }
        corked.write_all(b"end").await.unwrap();
        corked.shutdown().await.unwrap();
        assert_eq!(corked.stream.pieces, [b"one", b"two", b"end"]);
    }

    #[tokio::test]
    async fn steady_news_are_not_put_off_for_ever() {
        let mut corked = corked(usize::MAX);
        for _ in 0..10 {
            corked.write_all(b"x").await.unwrap();
            corked.flush().await.unwrap();
        }
        assert_eq!(corked.stream.pieces, [b"xxxxx", b"xxxxx"]);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_holds_the_writer_up() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut corked = Corked::new(near);
        let much = vec![7; 200_000];
        let written = async {
            corked.write_all(&much).await.unwrap();
            corked.shutdown().await.unwrap();
            assert!(corked.held.is_empty());
        };
        let mut read = vec![0; much.len()];
        let (_, length) = tokio::join!(written, far.read_exact(&mut read));
        assert_eq!((length.unwrap(), read), (much.len(), much.clone()));
    }

    proptest! {
        #[test]
        fn bytes_arrive_in_order_and_all_of_them(
            pieces in proptest::collection::vec((0..40_000_usize, any::<bool>()), 0..20),
            most in 1..30_000_usize,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut sent = Vec::new();
            let corked = runtime.block_on(async {
                let mut corked = corked(most);
                for (number, (length, flush)) in pieces.into_iter().enumerate() {
                    let piece = vec![number as u8; length];
                    corked.write_all(&piece).await.unwrap();
                    sent.extend(piece);
                    if flush {
                        corked.flush().await.unwrap();
                    }
                }
                corked.shutdown().await.unwrap();
                corked
            });
            prop_assert_eq!(corked.stream.pieces.concat(), sent);
        }
    }
}
