//! One address of the application: how it is connected to, and what can go wrong there.

use std::io;
use std::io::IoSlice;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::clock::Timestamp;
use crate::policy::site::UpstreamAddress;
use crate::proxy::body::Body;
use crate::proxy::body::BodyError;

/// For how long one of several addresses is asked last after it could not be connected to.
const DOWN: Duration = Duration::from_secs(10);

/// One address of the application, shared by all workers.
pub(super) struct Upstream {
    pub(super) id: usize,
    /// As it is written in the file, for the log.
    pub(super) name: Arc<str>,
    address: UpstreamAddress,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// One for each connection that there may be.
    slots: Arc<Semaphore>,
    /// Requests that wait for one.
    waiting: AtomicUsize,
    /// Whether a reload has put another in its place.
    is_retired: AtomicBool,
    down_until: AtomicU64,
    is_down: AtomicBool,
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

impl Upstream {
    /// An upstream with at most `connections` connections.
    pub(super) fn new(
        address: UpstreamAddress,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        connections: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: Arc::from(address.to_string()),
            address,
            tls,
            slots: Arc::new(Semaphore::new(connections)),
            waiting: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
            down_until: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
        })
    }

    /// Room for one connection. When there is none, `make_room` is to close one that idles; it is waited
    /// for no longer than `limit`.
    async fn slot(&self, limit: Duration, make_room: impl FnOnce()) -> Result<OwnedSemaphorePermit, UpstreamError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        // Before the look at what idles: what is given back afterwards is closed, see `may_idle`.
        let _waiting = Waiting::begin(&self.waiting);
        make_room();
        let slot = Arc::clone(&self.slots).acquire_owned();
        match tokio::time::timeout(limit, slot).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }

    /// A new connection, made no later than `limit`.
    pub(super) async fn connect(
        &self,
        limit: Duration,
        make_room: impl FnOnce(),
    ) -> Result<SendRequest<Body>, UpstreamError> {
        let slot = self.slot(limit, make_room).await?;
        tokio::time::timeout(limit, self.open(slot)).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }

    async fn open(&self, slot: OwnedSemaphorePermit) -> Result<SendRequest<Body>, UpstreamError> {
        match &self.address {
            UpstreamAddress::Http { host, port } => handshake(tcp(host, *port).await?, slot).await,
            UpstreamAddress::Unix(path) => handshake(unix(path).await?, slot).await,
            UpstreamAddress::Https { host, port } => {
                let stream = tcp(host, *port).await?;
                let Some((connector, name)) = &self.tls else {
                    return Err(UpstreamError::Connect(io::Error::other("no TLS settings for an https upstream")));
                };
                let stream = connector.connect(name.clone(), stream).await.map_err(UpstreamError::Tls)?;
                handshake(stream, slot).await
            }
        }
    }

    /// Whether a connection may be kept for later: not while somebody waits for one, perhaps on another
    /// worker.
    pub(super) fn may_idle(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0 && !self.is_retired.load(Ordering::SeqCst)
    }

    /// Another has taken its place.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// Whether it is worth asking before those that are not.
    pub(super) fn is_likely_up(&self, now: Timestamp) -> bool {
        self.down_until.load(Ordering::Relaxed) <= now.as_millis()
    }

    /// It could not be connected to; `true` when that is news.
    pub(super) fn went_down(&self, now: Timestamp) -> bool {
        self.down_until.store(now.plus(DOWN).as_millis(), Ordering::Relaxed);
        !self.is_down.swap(true, Ordering::Relaxed)
    }

    /// It answered; `true` when that is news.
    pub(super) fn is_back(&self) -> bool {
        self.is_down.load(Ordering::Relaxed) && {
            self.down_until.store(0, Ordering::Relaxed);
            self.is_down.swap(false, Ordering::Relaxed)
        }
    }

    /// This upstream's failure.
    pub(super) fn failure(&self, cause: UpstreamError) -> UpstreamFailure {
        UpstreamFailure { upstream: Arc::clone(&self.name), cause }
    }
}

/// Somebody waits for a slot.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn tcp(host: &str, port: u16) -> Result<TcpStream, UpstreamError> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, port)).await.map_err(UpstreamError::Connect)?;
    // Without it a small request can wait for the delayed acknowledgement of the one before.
    stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
    Ok(stream)
}

async fn unix(path: &Path) -> Result<UnixStream, UpstreamError> {
    UnixStream::connect(path).await.map_err(UpstreamError::Connect)
}

async fn handshake<S>(stream: S, slot: OwnedSemaphorePermit) -> Result<SendRequest<Body>, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let leg = Leg { stream, deaf: false, _slot: slot };
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(256 * 1024)
        .max_headers(200)
        .handshake(TokioIo::new(leg))
        .await
        .map_err(UpstreamError::Exchange)?;
    tokio::spawn(async move {
        // Its error also reaches the request that was under way, which reports it.
        let _reported_there = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// A connection on which a failed write is not the end: an application that refuses a request before
/// it has read all of it often closes at once, and its answer is still there to be read.
struct Leg<S> {
    stream: S,
    /// Nothing that is written arrives any more.
    deaf: bool,
    /// Taken as long as there is the connection: in use, idle, or become a tunnel.
    _slot: OwnedSemaphorePermit,
}

impl<S: AsyncRead + Unpin> AsyncRead for Leg<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S> Leg<S> {
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

impl<S: AsyncWrite + Unpin> AsyncWrite for Leg<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(data.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(context, data);
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
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, data);
        self.hear(written, length)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.hear(flushed.map_ok(|()| 0), 0).map_ok(|_| ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Which address of the application gave no answer, and why.
#[derive(Debug, thiserror::Error)]
#[error("upstream {upstream}")]
pub(super) struct UpstreamFailure {
    pub(super) upstream: Arc<str>,
    #[source]
    pub(super) cause: UpstreamError,
}

/// Why the application gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] io::Error),
    /// Its certificate cannot be verified, or TLS failed otherwise (S135).
    #[error("TLS failed")]
    Tls(#[source] io::Error),
    /// No connection in time.
    #[error("connecting took longer than the connect timeout")]
    ConnectTimeout,
    /// It broke off or did not speak HTTP.
    #[error("it broke off or sent no valid HTTP response")]
    Exchange(#[source] hyper::Error),
    /// Its answer broke off while it was being judged.
    #[error("its answer broke off")]
    Answer(#[source] BodyError),
    /// It does not answer.
    #[error("it sent no response within the first_byte timeout")]
    FirstByteTimeout,
    /// All connections are in use.
    #[error("all upstream_connections are in use")]
    Busy,
    /// It switched protocols without being asked, or to another (S121).
    #[error("it switched protocols without being asked to")]
    UnaskedUpgrade,
    /// Its status is none (RFC 9110 15).
    #[error("its answer has the status {0}, and 599 is the highest")]
    Status(u16),
}
