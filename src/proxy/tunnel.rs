//! Upgraded connections: bytes both ways until one side closes, nothing moves for `tunnel_idle`, the
//! session ends, or the program stops. Both sides then see an end, not a loss.

use std::io;
use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::policy::websocket::Farewell;
use crate::policy::websocket::Frames;
use crate::proxy::pool::Lease;
use crate::proxy::streams::Pulse;
use crate::proxy::streams::StreamGuard;

/// How long a side may take to hear of the end.
const CLOSE_TIME: Duration = Duration::from_millis(500);

/// Two upgrades that are about to happen, and what they live by.
pub(super) struct Tunnel {
    pub(super) client: OnUpgrade,
    pub(super) upstream: OnUpgrade,
    /// Keeps the upstream slot taken as long as the tunnel is open.
    pub(super) lease: Lease,
    /// The session, if it is open on behalf of one.
    pub(super) guard: Option<StreamGuard>,
    /// Client data is activity, unless the path is `untouched`.
    pub(super) pulse: Option<Pulse>,
    pub(super) idle: Option<Duration>,
    /// A tunnel has no natural end that a drain could wait for.
    pub(super) stopping: CancellationToken,
}

impl Tunnel {
    /// Runs until it is over. Every way it ends is an ordinary one.
    pub(super) async fn run(self) {
        let Self { lease, guard, mut pulse, idle, stopping, .. } = self;
        let (Ok(client), Ok(upstream)) = tokio::join!(self.client, self.upstream) else { return };
        let (mut client_read, mut client_write) = tokio::io::split(TokioIo::new(client));
        let (mut upstream_read, mut upstream_write) = tokio::io::split(TokioIo::new(upstream));
        let (mut up, mut down) = (Progress::default(), Progress::default());
        let moved = watch::Sender::new(());
        let session_ended = async {
            match &guard {
                Some(guard) => guard.ended().await,
                None => std::future::pending().await,
            }
        };
        let farewell = tokio::select! {
            // A half-closed WebSocket is a closed one: nobody answers on it any more.
            _ = copy(&mut client_read, &mut upstream_write, &mut up, &moved, pulse.as_mut()) => None,
            _ = copy(&mut upstream_read, &mut client_write, &mut down, &moved, None) => None,
            () = wait_idle(moved.subscribe(), idle) => Some(Farewell::Silent),
            () = session_ended => Some(Farewell::SessionEnded),
            () = stopping.cancelled() => Some(Farewell::Stopping),
        };
        let frame = farewell.filter(|_| down.may_begin()).map(Farewell::frame).unwrap_or_default();
        tokio::join!(close(client_read, client_write, &frame), close(upstream_read, upstream_write, &[]));
        drop(lease);
    }
}

/// Completes when nothing has moved for `limit`.
async fn wait_idle(mut moved: watch::Receiver<()>, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    while let Ok(Ok(())) = tokio::time::timeout(limit, moved.changed()).await {}
}

/// How far one direction has got.
#[derive(Default)]
struct Progress {
    frames: Frames,
    /// Some bytes may be written and others not.
    is_writing: bool,
}

impl Progress {
    /// Whether a frame of ours may be sent.
    fn may_begin(&self) -> bool {
        !self.is_writing && self.frames.may_begin()
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    progress: &mut Progress,
    moved: &watch::Sender<()>,
    mut pulse: Option<&mut Pulse>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        moved.send_replace(());
        if let Some(pulse) = &mut pulse {
            pulse.beat();
        }
        progress.is_writing = true;
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        progress.frames.follow(&buffer[..read]);
        progress.is_writing = false;
    }
}

/// Says the last thing, and that nothing follows. What still comes is read away: a connection that is
/// closed with unread bytes is reset, and what was just sent may be lost with it.
async fn close(mut read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin, last: &[u8]) {
    let closing = async {
        write.write_all(last).await?;
        write.shutdown().await?;
        tokio::io::copy(&mut read, &mut tokio::io::sink()).await
    };
    let _gone_or_too_slow = tokio::time::timeout(CLOSE_TIME, closing).await;
}
