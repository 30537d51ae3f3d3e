//! Upgraded connections: bytes both ways until one side closes, nothing moves for `tunnel_idle`, the
//! session ends, or the program stops. Both sides then see an end, not a loss.

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::io::Cursor;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;
use http::Method;
use http::header;
use http::request::Parts;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadBuf;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::policy::websocket::Farewell;
use crate::policy::websocket::Frames;
use crate::policy::websocket::Handshake;
use crate::policy::websocket::NoWebSocket;
use crate::proxy::Duplex;
use crate::proxy::KeptOpen;
use crate::proxy::leg::Leg;
use crate::proxy::pool::Lease;
use crate::proxy::source::Source;
use crate::proxy::streams::Pulse;
use crate::proxy::streams::StreamGuard;
use crate::telemetry;
use crate::telemetry::Audit;

/// How long a side may take to hear of the end.
const CLOSE_TIME: Duration = Duration::from_millis(500);
/// How long a side may still speak when the other has said all.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// A connection of a client that has become a tunnel.
pub struct Opened {
    /// Its bytes.
    pub stream: Box<dyn Duplex>,
    /// Whether the client has sent anything before it was answered (S122).
    pub is_early: bool,
}

/// Comes with a request for an upgrade over HTTP/1.1: waits for the connection, which is handed over when
/// the answer that grants it was sent. What comes with a request has to be `Clone`, which a receiver is not.
#[derive(Clone)]
pub struct Opening(Arc<Mutex<Option<oneshot::Receiver<Opened>>>>);

impl Opening {
    /// Where to hand the connection over, and who waits for it. It is not wanted when nobody does any more.
    pub fn new() -> (oneshot::Sender<Opened>, Self) {
        let (sender, receiver) = oneshot::channel();
        (sender, Self(Arc::new(Mutex::new(Some(receiver)))))
    }

    /// The connection; `None` when it broke.
    async fn opened(self) -> Option<Opened> {
        let receiver = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        receiver?.await.ok()
    }
}

/// A client that asks for a WebSocket.
pub(super) struct Asking {
    pub(super) handshake: Handshake,
    protocol: Option<Protocol>,
    switch: Switch,
    _open: Option<KeptOpen>,
}

/// A connection that may become a tunnel.
enum Switch {
    Http1(Opening),
    /// A stream of it.
    Http2(OnUpgrade),
}

impl Asking {
    /// Takes out of a request what makes it a handshake, if it is one. From here on one over HTTP/2 is
    /// the one over HTTP/1.1 that it stands for (RFC 8441 5).
    pub(super) fn take(request: &mut Parts) -> Option<Self> {
        let protocol = request.extensions.remove::<Protocol>();
        let word = protocol.as_ref().map(Protocol::as_str);
        let handshake = Handshake::of(&request.method, request.version, &request.headers, word)?;
        let switch = Switch::take(&mut request.extensions)?;
        let asking = Self { handshake, protocol, switch, _open: request.extensions.remove() };
        if handshake == Handshake::Connect {
            request.method = Method::GET;
            // What follows is the tunnel's, whatever this says.
            request.headers.remove(header::CONTENT_LENGTH);
        }
        Some(asking)
    }

    /// Whether it asks for what there is. `offered`: WebSockets over HTTP/2.
    pub(super) fn check(&self, offered: bool) -> Result<(), NoWebSocket> {
        self.handshake.check(self.protocol.as_ref().map(Protocol::as_str), offered)
    }
}

impl Switch {
    fn take(extensions: &mut Extensions) -> Option<Self> {
        // hyper has one of its own for HTTP/1.1, too, which leads nowhere.
        let http2 = extensions.remove();
        extensions.remove().map(Self::Http1).or_else(|| http2.map(Self::Http2))
    }

    /// The tunnel, once the answer that opens it has been sent.
    async fn opened(self) -> Option<Opened> {
        match self {
            Self::Http1(opening) => opening.opened().await,
            Self::Http2(switching) => {
                let upgraded = switching.await.ok()?;
                Some(Opened { stream: Box::new(TokioIo::new(upgraded)), is_early: false })
            }
        }
    }
}

/// It did not wait for the 101 (RFC 6455 4.1, S122).
#[derive(Debug, thiserror::Error)]
#[error("the client sent something before its WebSocket handshake was answered")]
struct TooEarly;

/// A connection to the application that becomes a tunnel.
pub(super) enum Upgrade {
    /// At once, and what has come through it already.
    Native(Box<Leg>, Bytes),
    /// When the library lets go of it.
    Hyper(OnUpgrade),
}

impl Upgrade {
    /// Takes it out of the answer that says so.
    pub(super) fn of(extensions: &mut Extensions, answer: Source) -> Option<Self> {
        match answer {
            Source::Native(answer) => answer.into_tunnel().map(|(leg, ahead)| Self::Native(Box::new(leg), ahead)),
            Source::Application(_) => extensions.remove().map(Self::Hyper),
            Source::Client(_) => None,
        }
    }

    /// The tunnel, and what has come through it already.
    async fn opened(self) -> Option<(Either<Box<Leg>, TokioIo<Upgraded>>, Bytes)> {
        match self {
            Self::Native(leg, ahead) => Some((Either::Left(leg), ahead)),
            Self::Hyper(upgrade) => Some((Either::Right(TokioIo::new(upgrade.await.ok()?)), Bytes::new())),
        }
    }
}

/// Two upgrades that are about to happen, and what they live by.
pub(super) struct Tunnel {
    pub(super) client: Asking,
    pub(super) upstream: Upgrade,
    /// The connection that has become the tunnel.
    pub(super) lease: Lease,
    /// The session, if it is open on behalf of one.
    pub(super) guard: Option<StreamGuard>,
    /// Messages from the client are activity, unless the path is `untouched`.
    pub(super) pulse: Option<Pulse>,
    pub(super) idle: Option<Duration>,
    /// A tunnel has no natural end that a drain could wait for.
    pub(super) stopping: CancellationToken,
    /// For the log.
    pub(super) context: telemetry::Context,
}

impl Tunnel {
    /// Runs until it is over. Every way it ends is an ordinary one.
    pub(super) async fn run(self) {
        let Self { client: Asking { switch, _open, .. }, upstream, lease, guard, mut pulse, idle, stopping, context } =
            self;
        let (Some(Opened { stream: client, is_early }), Some((upstream, ahead))) =
            tokio::join!(switch.opened(), upstream.opened())
        else {
            return;
        };
        let (mut client_read, mut client_write) = tokio::io::split(client);
        let (upstream_read, mut upstream_write) = tokio::io::split(upstream);
        let mut upstream_read = Cursor::new(ahead).chain(upstream_read);
        let (mut up, mut down) = (Progress::default(), Progress::default());
        let moved = Mutex::new(Instant::now());
        let session_ended = async {
            match &guard {
                Some(guard) => guard.ended().await,
                None => std::future::pending().await,
            }
        };
        let exchange = both(
            copy(&mut client_read, &mut upstream_write, &mut up, &moved, pulse.as_mut()),
            copy(&mut upstream_read, &mut client_write, &mut down, &moved, None),
        );
        if is_early {
            // What the client took for a tunnel may be what somebody else took for a request.
            telemetry::audit(&context, &Audit::RequestRefused { error: &TooEarly, rule: None });
        }
        drop(context);
        let farewell = tokio::select! {
            biased;
            () = async {}, if is_early => Some(Farewell::TooEarly),
            () = exchange => None,
            () = wait_idle(&moved, idle) => Some(Farewell::Silent),
            () = session_ended => Some(Farewell::SessionEnded),
            () = stopping.cancelled() => Some(Farewell::Stopping),
        };
        let frame = farewell.filter(|_| down.may_begin()).map(Farewell::frame).unwrap_or_default();
        tokio::join!(close(client_read, client_write, &frame), close(upstream_read, upstream_write, &[]));
        drop(lease);
    }
}

/// Both ways, until both sides have said all. When one has, the other answers or is cut: over HTTP/2
/// browsers say with their close frame that nothing follows, and wait for the application's.
async fn both(up: impl Future<Output = io::Result<()>>, down: impl Future<Output = io::Result<()>>) {
    let (mut up, mut down) = (pin!(up), pin!(down));
    let (ended, other) = tokio::select! {
        ended = &mut up => (ended, Either::Left(down)),
        ended = &mut down => (ended, Either::Right(up)),
    };
    if ended.is_ok() {
        let _answered_or_cut = tokio::time::timeout(ANSWER_TIME, other).await;
    }
}

/// Completes when nothing has moved for `limit`.
async fn wait_idle(moved: &Mutex<Instant>, limit: Option<Duration>) {
    let Some(limit) = limit else { return std::future::pending().await };
    loop {
        let deadline = *moved.lock().unwrap_or_else(PoisonError::into_inner) + limit;
        if deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline).await;
    }
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
    moved: &Mutex<Instant>,
    mut pulse: Option<&mut Pulse>,
) -> io::Result<()> {
    loop {
        let bytes = read(&mut from).await?;
        if bytes.is_empty() {
            return to.shutdown().await;
        }
        *moved.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        progress.is_writing = true;
        if progress.frames.follow(&bytes)
            && let Some(pulse) = &mut pulse
        {
            pulse.beat();
        }
        to.write_all(&bytes).await?;
        to.flush().await?;
        progress.is_writing = false;
    }
}

/// What comes next; nothing at the end. No buffer is held while nothing comes: most tunnels are silent
/// most of the time.
async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    poll_fn(|context| {
        let mut space = [const { MaybeUninit::uninit() }; 16 * 1024];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *from).poll_read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().to_vec()))
    })
    .await
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
