//! Upgraded connections: bytes both ways until one side closes, nothing moves for `tunnel_idle`, or
//! the session ends.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

use crate::proxy::pool::Lease;
use crate::proxy::streams::Pulse;
use crate::proxy::streams::StreamGuard;

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
}

impl Tunnel {
    /// Runs until it is over. Every way it ends is an ordinary one: both sides are closed.
    pub(super) async fn run(self) {
        let (Ok(client), Ok(upstream)) = tokio::join!(self.client, self.upstream) else { return };
        let (client_read, client_write) = tokio::io::split(TokioIo::new(client));
        let (upstream_read, upstream_write) = tokio::io::split(TokioIo::new(upstream));
        let moved = watch::Sender::new(());
        let idle = wait_idle(moved.subscribe(), self.idle);
        let ended = async {
            match &self.guard {
                Some(guard) => guard.ended().await,
                None => std::future::pending().await,
            }
        };
        let up = copy(client_read, upstream_write, &moved, self.pulse);
        let down = copy(upstream_read, client_write, &moved, None);
        tokio::select! {
            _ = async { tokio::join!(up, down) } => {}
            () = idle => {}
            () = ended => {}
        }
        drop(self.lease);
    }
}

/// Completes when nothing has moved for `limit`.
async fn wait_idle(mut moved: watch::Receiver<()>, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    while let Ok(Ok(())) = tokio::time::timeout(limit, moved.changed()).await {}
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &watch::Sender<()>,
    mut pulse: Option<Pulse>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        moved.send_replace(());
        if let Some(pulse) = &mut pulse {
            pulse.beat();
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
    }
}
