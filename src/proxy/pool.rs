//! Connections to the application: one pool per worker thread, so that nothing on the path is
//! shared or locked by others.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::policy::headers;
use crate::policy::site::Timeouts;
use crate::policy::site::UpstreamAddress;
use crate::proxy::body::Body;

/// An idle connection older than this is not used again: applications close theirs after a while,
/// and a request sent into a closing connection is lost.
const IDLE_LIFETIME: Duration = Duration::from_secs(60);
/// Idle connections kept per upstream and worker.
const IDLE_LIMIT: usize = 64;

/// One address of the application, shared by all workers.
pub(super) struct Upstream {
    id: usize,
    address: UpstreamAddress,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    slots: Arc<Semaphore>,
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

impl Upstream {
    /// An upstream with at most `connections` requests under way.
    pub(super) fn new(
        address: UpstreamAddress,
        tls: Option<(TlsConnector, ServerName<'static>)>,
        connections: usize,
    ) -> Arc<Self> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self { id, address, tls, slots: Arc::new(Semaphore::new(connections)) })
    }

    async fn connect(&self) -> Result<SendRequest<Body>, UpstreamError> {
        match &self.address {
            UpstreamAddress::Http { host, port } => handshake(tcp(host, *port).await?).await,
            UpstreamAddress::Unix(path) => handshake(unix(path).await?).await,
            UpstreamAddress::Https { host, port } => {
                let stream = tcp(host, *port).await?;
                let Some((connector, name)) = &self.tls else {
                    return Err(UpstreamError::Connect(std::io::Error::other("no TLS settings for an https upstream")));
                };
                let stream = connector.connect(name.clone(), stream).await.map_err(UpstreamError::Tls)?;
                handshake(stream).await
            }
        }
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

async fn handshake<S>(stream: S) -> Result<SendRequest<Body>, UpstreamError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(256 * 1024)
        .max_headers(200)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(UpstreamError::Exchange)?;
    tokio::spawn(async move {
        // Its error also reaches the request that was under way, which reports it.
        let _reported_there = connection.with_upgrades().await;
    });
    Ok(sender)
}

/// Why the application gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// No connection.
    #[error("cannot connect to the upstream")]
    Connect(#[source] std::io::Error),
    /// Its certificate cannot be verified, or TLS failed otherwise (S135).
    #[error("TLS to the upstream failed")]
    Tls(#[source] std::io::Error),
    /// No connection in time.
    #[error("connecting to the upstream took longer than the connect timeout")]
    ConnectTimeout,
    /// It broke off or did not speak HTTP.
    #[error("the upstream broke off or sent no valid HTTP response")]
    Exchange(#[source] hyper::Error),
    /// It does not answer.
    #[error("the upstream sent no response within the first_byte timeout")]
    FirstByteTimeout,
    /// All connections are in use.
    #[error("all upstream connections are in use")]
    Busy,
    /// It switched protocols without being asked, or to another (S121).
    #[error("the upstream switched protocols without being asked to")]
    UnaskedUpgrade,
}

impl UpstreamError {
    /// Whether the request cannot have reached the application.
    fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::Tls(_) | Self::ConnectTimeout)
    }
}

struct Idle {
    sender: SendRequest<Body>,
    since: Instant,
}

/// The idle connections of one worker.
#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<HashMap<usize, Vec<Idle>>>,
}

/// A connection that is in use. Dropping it closes the connection and so cancels the request (S177).
pub(super) struct Lease {
    pool: Arc<Pool>,
    upstream: usize,
    sender: SendRequest<Body>,
    /// Whether the application knows the connection, not only the request, as some user's.
    personal: bool,
    _slot: OwnedSemaphorePermit,
}

impl Lease {
    /// The response is complete: the connection can carry the next request.
    pub(super) fn give_back(self) {
        if !self.personal {
            self.pool.put(self.upstream, self.sender);
        }
    }
}

impl Pool {
    fn put(&self, upstream: usize, sender: SendRequest<Body>) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.entry(upstream).or_default();
        if idle.len() < IDLE_LIMIT {
            idle.push(Idle { sender, since: Instant::now() });
        }
    }

    fn take(&self, upstream: usize) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = idle.get_mut(&upstream)?;
        while let Some(candidate) = idle.pop() {
            if candidate.since.elapsed() >= IDLE_LIFETIME {
                // The newest is on top: all below are older.
                idle.clear();
                return None;
            }
            if !candidate.sender.is_closed() {
                return Some(candidate.sender);
            }
        }
        None
    }

    /// Sends a request to the first upstream that can be connected to, in the order given.
    ///
    /// A request whose head was not written is sent again on another connection; one that may have
    /// been read is repeated once only if it is a GET or HEAD without body on a connection that had
    /// been idle (S101).
    ///
    /// # Errors
    /// When no upstream answers in time.
    pub(super) async fn send(
        self: &Arc<Self>,
        upstreams: &[Arc<Upstream>],
        first: usize,
        mut request: Request<Body>,
        timeouts: &Timeouts,
    ) -> Result<(Response<Incoming>, Lease), UpstreamError> {
        let mut failure = UpstreamError::Busy;
        for turn in 0..upstreams.len() {
            let upstream = &upstreams[(first + turn) % upstreams.len()];
            match self.send_to(upstream, request, timeouts).await {
                Ok(answer) => return Ok(answer),
                Err((error, Some(unsent))) if error.is_connect() => {
                    failure = error;
                    request = *unsent;
                }
                Err((error, _)) => return Err(error),
            }
        }
        Err(failure)
    }

    async fn send_to(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        mut request: Request<Body>,
        timeouts: &Timeouts,
    ) -> Result<(Response<Incoming>, Lease), (UpstreamError, Option<Box<Request<Body>>>)> {
        let slot = Arc::clone(&upstream.slots).acquire_owned();
        let Ok(Ok(slot)) = tokio::time::timeout(timeouts.connect, slot).await else {
            return Err((UpstreamError::Busy, None));
        };
        let personal = headers::authenticates_connection(request.headers());
        loop {
            let reused = self.take(upstream.id);
            let was_idle = reused.is_some();
            let mut sender = match reused {
                Some(sender) => sender,
                None => match tokio::time::timeout(timeouts.connect, upstream.connect()).await {
                    Ok(Ok(sender)) => sender,
                    Ok(Err(error)) => return Err((error, Some(Box::new(request)))),
                    Err(_) => return Err((UpstreamError::ConnectTimeout, Some(Box::new(request)))),
                },
            };
            let repeat = if was_idle { repeatable(&request) } else { None };
            if sender.ready().await.is_err() && was_idle {
                continue;
            }
            let answer = sender.try_send_request(request);
            let answer = match timeouts.first_byte {
                Some(limit) => match tokio::time::timeout(limit, answer).await {
                    Ok(answer) => answer,
                    Err(_) => return Err((UpstreamError::FirstByteTimeout, None)),
                },
                None => answer.await,
            };
            match answer {
                Ok(response) => {
                    let lease = Lease { pool: Arc::clone(self), upstream: upstream.id, sender, personal, _slot: slot };
                    return Ok((response, lease));
                }
                Err(mut error) => match error.take_message().or(repeat) {
                    Some(unsent) if was_idle => request = unsent,
                    _ => return Err((UpstreamError::Exchange(error.into_error()), None)),
                },
            }
        }
    }
}

/// A copy of the request, if it may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_empty() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
