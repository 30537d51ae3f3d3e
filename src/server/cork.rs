//! Collects what an HTTP/2 connection writes and puts its flushes off a little: answers that are ready at
//! the same time leave in one write and few TLS records. What fills a record is handed to TLS from where it lies; only
//! what does not is copied, to wait for more.

use std::io;
use std::io::IoSlice;
use std::io::Write;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_rustls::server::TlsStream;

/// The most that a TLS record has (RFC 8446 5.1).
const RECORD: usize = 16 * 1024;
/// So much is encrypted at most before it is written.
const MOST: usize = 4 * RECORD;
/// Room for small answers.
const FEW: usize = 4 * 1024;
/// So many flushes are put off at most before one is carried out.
const FLUSHES: u8 = 4;

/// A stream that takes bytes some time before it sends them.
pub(super) trait Seal: AsyncWrite + Unpin {
    /// Encrypts these bytes, as far as there is room for them. They leave with the next flush.
    ///
    /// # Errors
    /// When nothing can be sent any more.
    fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize>;
}

impl<S: AsyncRead + AsyncWrite + Unpin> Seal for TlsStream<S> {
    fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.get_mut().1.writer().write_vectored(pieces)
    }
}

/// Bytes on their way to a stream below.
///
/// A flush that is put off is answered as if it had been carried out, and the task is woken: when it comes
/// again, others that were ready have had their turn. HTTP/2 flushes whenever it is polled, so nothing
/// stays behind.
pub(super) struct Corked<S> {
    stream: S,
    /// What does not fill a record.
    held: Vec<u8>,
    /// How many bytes the stream has sealed and not sent.
    sealed: usize,
    /// Whether they have begun to leave.
    leaves: bool,
    /// How many bytes there were when the last flush was put off: without news there is nothing to wait for.
    seen: usize,
    /// How many flushes were put off.
    put_off: u8,
}

impl<S> Corked<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, held: Vec::new(), sealed: 0, leaves: false, seen: 0, put_off: 0 }
    }

    /// Keeps these bytes. There is room for heads only, or for all that may be held: to grow in steps would be to copy
    /// it in each.
    fn hold(&mut self, bytes: &[u8]) {
        let needed = self.held.len() + bytes.len();
        if needed > self.held.capacity() {
            let room = if needed > FEW { RECORD } else { FEW };
            self.held.reserve_exact(room - self.held.len());
        }
        self.held.extend_from_slice(bytes);
    }

    fn may_wait(&self) -> bool {
        let waiting = self.sealed + self.held.len();
        waiting > self.seen && waiting < MOST && self.put_off < FLUSHES && !self.leaves
    }
}

impl<S: Seal> Corked<S> {
    /// Seals what fills records behind what is held, and holds the rest if it does not; how much it has taken.
    fn take(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let held = self.held.len();
        let room = MOST.saturating_sub(self.sealed);
        let whole = (held + bytes.len()).min(room) / RECORD * RECORD;
        let mut taken = 0;
        // There are more of them than are held, which never fills one.
        if whole > 0 {
            let sealed = self.stream.seal(&[IoSlice::new(&self.held), IoSlice::new(&bytes[..whole - held])])?;
            self.sealed += sealed;
            self.held.drain(..sealed.min(held));
            taken = sealed.saturating_sub(held);
        }
        let rest = &bytes[taken..];
        if self.held.len() + rest.len() < RECORD {
            self.hold(rest);
            taken = bytes.len();
        }
        Ok(taken)
    }

    /// Seals what is held, as far as there is room.
    fn seal_held(&mut self) -> io::Result<usize> {
        if self.held.is_empty() {
            return Ok(0);
        }
        let sealed = self.stream.seal(&[IoSlice::new(&self.held)])?;
        self.held.drain(..sealed);
        Ok(sealed)
    }

    /// Sends all that there is. An idle connection keeps no memory for it.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.leaves, true) {
            self.seal_held()?;
        }
        loop {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            if self.held.is_empty() {
                (self.held, self.sealed, self.leaves, self.seen, self.put_off) = (Vec::new(), 0, false, 0, 0);
                return Poll::Ready(Ok(()));
            }
            if self.seal_held()? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Corked<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: Seal> AsyncWrite for Corked<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // What has begun to leave goes first, and whole.
        if self.leaves {
            ready!(self.poll_drain(cx))?;
        }
        let mut taken = self.take(bytes)?;
        if taken == 0 {
            ready!(self.poll_drain(cx))?;
            taken = self.take(bytes)?;
        }
        Poll::Ready(if taken == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(taken) })
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.may_wait() {
            (self.seen, self.put_off) = (self.sealed + self.held.len(), self.put_off + 1);
            cx.waker().wake_by_ref();
            return Poll::Ready(Ok(()));
        }
        self.poll_drain(cx)
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

    /// What is sealed, and what of it has left.
    struct Sealed<S> {
        stream: S,
        waiting: Vec<u8>,
        /// The room for what waits.
        room: usize,
        /// How long what was sealed at once was.
        records: Vec<usize>,
    }

    impl<S: AsyncWrite + Unpin> Seal for Sealed<S> {
        fn seal(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> = pieces.iter().flat_map(|piece| piece.iter().copied()).collect();
            let taken = all.len().min(self.room - self.waiting.len());
            self.waiting.extend(&all[..taken]);
            self.records.push(taken);
            Ok(taken)
        }
    }

    impl<S: AsyncWrite + Unpin> AsyncWrite for Sealed<S> {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, _bytes: &[u8]) -> Poll<io::Result<usize>> {
            panic!("bytes are sealed");
        }

        fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            let this = self.get_mut();
            while !this.waiting.is_empty() {
                let taken = ready!(Pin::new(&mut this.stream).poll_write(cx, &this.waiting))?;
                this.waiting.drain(..taken);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.stream).poll_shutdown(cx)
        }
    }

    /// Remembers what came in one piece; takes at most `most` bytes of it, and nothing each other time if that is few.
    struct Sink {
        pieces: Vec<Vec<u8>>,
        most: usize,
        pauses: bool,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.pauses = !self.pauses && self.most < usize::MAX;
            if self.pauses {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
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
    fn flush_wakes(corked: &mut Corked<Sealed<Sink>>) -> bool {
        let flag = Arc::new(Flag(AtomicBool::new(false)));
        let waker = Waker::from(Arc::clone(&flag));
        assert!(Pin::new(corked).poll_flush(&mut Context::from_waker(&waker)).is_ready());
        flag.0.load(Ordering::Relaxed)
    }

    fn sealed<S>(stream: S, room: usize) -> Corked<Sealed<S>> {
        Corked::new(Sealed { stream, waiting: Vec::new(), room, records: Vec::new() })
    }

    fn corked(most: usize) -> Corked<Sealed<Sink>> {
        sealed(Sink { pieces: Vec::new(), most, pauses: false }, 68 * 1024)
    }

    #[tokio::test]
    async fn what_is_ready_at_the_same_time_leaves_together() {
        let mut corked = corked(usize::MAX);
        corked.write_all(b"one ").await.unwrap();
        corked.flush().await.unwrap();
        corked.write_all(b"two").await.unwrap();
        corked.flush().await.unwrap();
        assert!(corked.stream.stream.pieces.is_empty(), "more may come");

        corked.flush().await.unwrap();

        assert_eq!(corked.stream.stream.pieces, [b"one two"]);
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
        assert_eq!(corked.stream.stream.pieces, [b"one", b"two", b"end"]);
    }

    #[tokio::test]
    async fn steady_news_are_not_put_off_for_ever() {
        let mut corked = corked(usize::MAX);
        for _ in 0..10 {
            corked.write_all(b"x").await.unwrap();
            corked.flush().await.unwrap();
        }
        assert_eq!(corked.stream.stream.pieces, [b"xxxxx", b"xxxxx"]);
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_holds_the_writer_up() {
        let (near, mut far) = tokio::io::duplex(1000);
        let mut corked = sealed(near, 68 * 1024);
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

    #[tokio::test]
    async fn what_is_large_fills_records_as_it_lies() {
        let mut corked = corked(usize::MAX);
        corked.write_all(b"the head of the answer").await.unwrap();
        for _ in 0..4 {
            corked.write_all(&[1; 9]).await.unwrap();
            corked.write_all(&[2; RECORD]).await.unwrap();
            assert!(corked.held.len() < 100, "{} bytes were copied", corked.held.len());
        }
        corked.flush().await.unwrap();

        let rest = 22 + 4 * 9;
        assert_eq!(corked.stream.records, [RECORD, RECORD, RECORD, RECORD, rest]);
        assert_eq!(corked.stream.stream.pieces.len(), 1, "it has left in one piece");
        assert_eq!(corked.held.capacity(), 0);
    }

    proptest! {
        #[test]
        fn bytes_arrive_in_order_and_all_of_them(
            pieces in proptest::collection::vec((0..80_000_usize, any::<bool>()), 0..20),
            most in 1..30_000_usize,
            room in RECORD..5 * RECORD,
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut sent = Vec::new();
            let corked = runtime.block_on(async {
                let mut corked = sealed(Sink { pieces: Vec::new(), most, pauses: false }, room);
                for (number, (length, flush)) in pieces.into_iter().enumerate() {
                    // No two records are alike.
                    let piece: Vec<u8> = (0..length).map(|at| ((at % 251) ^ number) as u8).collect();
                    corked.write_all(&piece).await.unwrap();
                    sent.extend(piece);
                    if flush {
                        corked.flush().await.unwrap();
                    }
                }
                corked.shutdown().await.unwrap();
                corked
            });
            prop_assert_eq!(corked.stream.stream.pieces.concat(), sent);
        }
    }
}
