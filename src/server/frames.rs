//! The frames of an HTTP/2 client, counted as they come in: those that ask for nothing cost us a
//! little each, and a client that cancels what it asked for costs the application as well. h2 bounds
//! CONTINUATION and small DATA frames, resets before a request is taken up, and resets that a
//! client's own errors provoke; the rest is bounded here (S113).

use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::time::Instant;

/// Counting begins anew after this time.
const SPAN: Duration = Duration::from_secs(10);
/// How many requests a client may cancel in it. Browsers cancel a page's at once when it is left: as
/// many as there may be streams.
const RESETS: u32 = 200;
/// How many frames it may send in it that carry nothing…
const IDLE_FRAMES: u64 = 10_000;
/// … and one more for so many bytes that it was sent: there are clients that open the window twice for
/// each frame, however small.
const BYTES_PER_IDLE_FRAME: u64 = 32;

/// What precedes the frames (RFC 9113 3.4).
const PREFACE: usize = 24;
/// Length, type, flags, stream (RFC 9113 4.1).
const HEADER: usize = 9;

/// What a client does too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Flood {
    /// It cancels requests (CVE-2023-44487).
    #[error("more than {RESETS} requests cancelled within ten seconds")]
    Resets,
    /// PING, SETTINGS, PRIORITY, WINDOW_UPDATE, frames of unknown types.
    #[error("more than {IDLE_FRAMES} frames that ask for nothing within ten seconds")]
    IdleFrames,
}

/// Follows frames through the bytes that they come in.
struct Frames {
    /// Bytes until the next header.
    skip: usize,
    header: [u8; HEADER],
    /// How much of the header is there.
    read: usize,
    since: Instant,
    resets: u32,
    idle: u64,
    sent: u64,
}

impl Frames {
    fn new() -> Self {
        let since = Instant::now();
        Self { skip: PREFACE, header: [0; HEADER], read: 0, since, resets: 0, idle: 0, sent: 0 }
    }

    /// Takes note of what came in.
    ///
    /// # Errors
    /// When it was too much.
    fn read(&mut self, mut bytes: &[u8]) -> Result<(), Flood> {
        if self.since.elapsed() >= SPAN {
            (self.since, self.resets, self.idle, self.sent) = (Instant::now(), 0, 0, 0);
        }
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = (HEADER - self.read).min(bytes.len());
            self.header[self.read..self.read + taken].copy_from_slice(&bytes[..taken]);
            self.read += taken;
            bytes = &bytes[taken..];
            if self.read == HEADER {
                self.read = 0;
                self.frame();
            }
        }
        if self.resets > RESETS {
            return Err(Flood::Resets);
        }
        let allowed = IDLE_FRAMES + self.sent / BYTES_PER_IDLE_FRAME;
        if self.idle > allowed { Err(Flood::IdleFrames) } else { Ok(()) }
    }

    /// A header is complete.
    fn frame(&mut self) {
        let [high, middle, low, kind, ..] = self.header;
        self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
        // RFC 9113 6: DATA, HEADERS, RST_STREAM, CONTINUATION.
        match kind {
            0x0 | 0x1 | 0x9 => {}
            0x3 => self.resets += 1,
            _ => self.idle += 1,
        }
    }
}

/// The bytes of an HTTP/2 connection; they end when the client floods.
pub(super) struct Counted<S> {
    stream: S,
    frames: Frames,
    client: Option<SocketAddr>,
}

impl<S> Counted<S> {
    pub(super) fn new(stream: S, client: Option<SocketAddr>) -> Self {
        Self { stream, frames: Frames::new(), client }
    }

    fn sent(&mut self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.frames.sent += *bytes as u64;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = buffer.filled().get(before..).unwrap_or_default();
        match self.frames.read(new) {
            Ok(()) => read,
            Err(flood) => {
                let client = self.client.map(|client| tracing::field::display(client.ip()));
                tracing::warn!(event = "connection.flooded", client, error = %flood);
                Poll::Ready(Err(io::Error::other(flood)))
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.sent(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [.., high, middle, low] = payload.to_be_bytes();
        let mut frame = vec![high, middle, low, kind, 0, 0, 0, 0, 1];
        // Whoever takes payload for a header sees resets.
        frame.extend(std::iter::repeat_n(3, payload));
        frame
    }

    fn connection(frames: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        frames.iter().for_each(|(kind, payload)| bytes.extend(frame(*kind, *payload)));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn so_much_and_no_more_in_ten_seconds() {
        // S113
        let mut frames = Frames::new();
        frames.read(&connection(&[(4, 18), (1, 30), (0, 70_000), (9, 5)])).unwrap();
        assert_eq!((frames.idle, frames.resets), (1, 0));

        for _ in 0..RESETS {
            frames.read(&frame(1, 10)).unwrap();
            frames.read(&frame(3, 4)).unwrap();
        }
        assert_eq!(frames.read(&frame(3, 4)), Err(Flood::Resets));
        tokio::time::advance(SPAN).await;
        frames.read(&frame(3, 4)).unwrap();

        frames.sent = 3 * BYTES_PER_IDLE_FRAME;
        for kind in [2, 4, 6, 8, 200].into_iter().cycle().take(IDLE_FRAMES as usize + 3) {
            frames.read(&frame(kind, 0)).unwrap();
        }
        assert_eq!(frames.read(&frame(6, 8)), Err(Flood::IdleFrames));
        tokio::time::advance(SPAN).await;
        frames.read(&frame(6, 8)).unwrap();
    }

    proptest! {
        #[test]
        fn frames_are_found_however_their_bytes_come(
            sent in proptest::collection::vec((0..12_u8, 0..40_usize), 0..30),
            pieces in proptest::collection::vec(1..50_usize, 1..20),
        ) {
            let bytes = connection(&sent);
            let (mut frames, mut rest) = (Frames::new(), bytes.as_slice());
            for size in pieces.into_iter().cycle() {
                let (piece, left) = rest.split_at(size.min(rest.len()));
                frames.read(piece).unwrap();
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            let count = |is: fn(u8) -> bool| sent.iter().filter(|(kind, _)| is(*kind)).count();
            prop_assert_eq!(frames.resets as usize, count(|kind| kind == 3));
            prop_assert_eq!(frames.idle as usize, count(|kind| !matches!(kind, 0 | 1 | 3 | 9)));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let _ = Frames::new().read(&bytes);
        }
    }
}
