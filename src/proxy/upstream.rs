//! One address of the application: how it is connected to, and what can go wrong there.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use http::uri::Scheme;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use crate::clock::Timestamp;
use crate::http1::Malformed;
use crate::policy::health::Health;
use crate::policy::health::News;
use crate::policy::relax::Rule;
use crate::policy::site::UpstreamAddress;
use crate::policy::site::UpstreamClient;
use crate::policy::site::UpstreamProtocol;
use crate::proxy::body::BodyError;
use crate::proxy::http2::Http2;
use crate::proxy::leg::Leg;
use crate::proxy::leg::Socket;
use crate::proxy::link::Http1;
use crate::proxy::native::Fault;
use crate::proxy::probe_silent;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;

/// One address of the application, shared by all workers.
pub(super) struct Upstream {
    pub(super) id: usize,
    /// As it is written in the file, for the log.
    pub(super) name: Arc<str>,
    pub(super) protocol: UpstreamProtocol,
    address: UpstreamAddress,
    tls: Option<Tls>,
    /// What speaks HTTP/1.1 to it.
    client: UpstreamClient,
    /// Whether odd lines of its answers are mended.
    mends: bool,
    /// One for each connection that there may be.
    slots: Arc<Semaphore>,
    /// Requests that wait for one.
    waiting: AtomicUsize,
    /// Whether a reload has put another in its place.
    is_retired: AtomicBool,
    /// Requests that it has, of all workers.
    under_way: AtomicUsize,
    health: Mutex<Health>,
    /// Saves most requests a look at it.
    is_spotless: AtomicBool,
}

/// One request that an upstream has.
pub(super) struct Load(Arc<Upstream>);

impl Load {
    pub(super) fn begin(upstream: &Arc<Upstream>) -> Self {
        upstream.under_way.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(upstream))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// TLS as it is begun with the application.
pub(super) struct Tls {
    pub(super) http1: TlsConnector,
    /// The same, but offers HTTP/2 alone.
    pub(super) http2: TlsConnector,
    /// The name to verify.
    pub(super) name: ServerName<'static>,
}

static NEXT_ID: AtomicUsize = AtomicUsize::new(0);

impl Upstream {
    /// An upstream with at most `connections` connections.
    pub(super) fn new(
        address: UpstreamAddress,
        protocol: UpstreamProtocol,
        client: UpstreamClient,
        tls: Option<Tls>,
        connections: usize,
        mends: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: Arc::from(address.to_string()),
            address,
            protocol,
            tls,
            client,
            mends,
            slots: Arc::new(Semaphore::new(connections)),
            waiting: AtomicUsize::new(0),
            is_retired: AtomicBool::new(false),
            under_way: AtomicUsize::new(0),
            health: Mutex::default(),
            is_spotless: AtomicBool::new(true),
        })
    }

    /// Room for one connection. When there is none, `make_room` is to close one that idles; it is waited
    /// for no longer than `limit`.
    pub(super) async fn slot(
        &self,
        limit: Duration,
        make_room: impl FnOnce(),
    ) -> Result<OwnedSemaphorePermit, UpstreamError> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        // Before the look at what idles: what is given back afterwards does not idle.
        let _waiting = Waiting::begin(&self.waiting);
        make_room();
        let slot = Arc::clone(&self.slots).acquire_owned();
        match tokio::time::timeout(limit, slot).await {
            Ok(Ok(slot)) => Ok(slot),
            Ok(Err(_)) | Err(_) => Err(UpstreamError::Busy),
        }
    }

    /// A new connection for one request at a time, made no later than `limit`.
    pub(super) async fn connect_http1(
        &self,
        slot: Option<OwnedSemaphorePermit>,
        limit: Duration,
    ) -> Result<Http1, UpstreamError> {
        let begin = async {
            let socket = self.dial(self.tls.as_ref().map(|tls| &tls.http1)).await?;
            Http1::begin(Leg::new(socket, slot), self.client, self.mends).await
        };
        tokio::time::timeout(limit, begin).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }

    /// A new connection for many requests at once, made no later than `limit`.
    pub(super) async fn connect_http2(
        &self,
        slot: Option<OwnedSemaphorePermit>,
        limit: Duration,
    ) -> Result<Http2, UpstreamError> {
        let begin = async {
            let socket = self.dial(self.tls.as_ref().map(|tls| &tls.http2)).await?;
            if let Either::Right(Either::Right(stream)) = &socket
                && stream.get_ref().1.alpn_protocol() != Some(b"h2")
            {
                return Err(UpstreamError::NotHttp2);
            }
            let scheme = if self.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
            Http2::begin(Leg::new(socket, slot), scheme).await
        };
        tokio::time::timeout(limit, begin).await.unwrap_or(Err(UpstreamError::ConnectTimeout))
    }

    async fn dial(&self, connector: Option<&TlsConnector>) -> Result<Socket, UpstreamError> {
        match &self.address {
            UpstreamAddress::Http { host, port } => Ok(Either::Left(tcp(host, *port).await?)),
            UpstreamAddress::Unix(path) => Ok(Either::Right(Either::Left(unix(path).await?))),
            UpstreamAddress::Https { host, port } => {
                let stream = tcp(host, *port).await?;
                let (Some(connector), Some(tls)) = (connector, &self.tls) else {
                    return Err(UpstreamError::Connect(io::Error::other("no TLS settings for an https upstream")));
                };
                let stream = connector.connect(tls.name.clone(), stream).await.map_err(UpstreamError::Tls)?;
                Ok(Either::Right(Either::Right(stream)))
            }
        }
    }

    /// How many requests wait for a connection, on all workers: while any does, none may be kept for later.
    pub(super) fn awaited(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Whether another has taken its place.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::SeqCst)
    }

    /// Another has taken its place.
    pub(super) fn retire(&self) {
        self.is_retired.store(true, Ordering::SeqCst);
    }

    /// Whether it is worth asking before those that are not.
    pub(super) fn is_up(&self, now: Timestamp) -> bool {
        self.is_spotless() || self.health().is_up(now)
    }

    /// Whether there is nothing that an answer could make good.
    pub(super) fn is_spotless(&self) -> bool {
        self.is_spotless.load(Ordering::Relaxed)
    }

    /// Notes what befell it; the news, if it is any.
    pub(super) fn note(&self, change: impl FnOnce(&mut Health) -> Option<News>) -> Option<News> {
        let mut health = self.health();
        let news = change(&mut health);
        self.is_spotless.store(health.is_spotless(), Ordering::Relaxed);
        news
    }

    /// Puts the news in the log.
    pub(super) fn tell(&self, news: Option<News>, why: Option<&dyn Error>, context: &Context) {
        match (news, why) {
            (Some(News::Down), Some(error)) => telemetry::audit(context, &Audit::UpstreamDown { error }),
            (Some(News::Up), _) => telemetry::audit(context, &Audit::UpstreamUp { upstream: &self.name }),
            (Some(News::Down), None) | (None, _) => {}
        }
    }

    /// How many requests it has at present.
    pub(super) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
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
    probe_silent(&stream).map_err(UpstreamError::Connect)?;
    Ok(stream)
}

async fn unix(path: &Path) -> Result<UnixStream, UpstreamError> {
    UnixStream::connect(path).await.map_err(UpstreamError::Connect)
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
    /// It does not speak HTTP/2 where it has to.
    #[error("it does not speak HTTP/2, which upstream_protocol = \"h2\" asks for")]
    NotHttp2,
    /// It broke off or did not speak HTTP.
    #[error("it broke off or sent no valid HTTP response")]
    Exchange(#[source] hyper::Error),
    /// The same, as our own client tells it.
    #[error("it broke off or sent no valid HTTP response")]
    Fault(#[source] Fault),
    /// The request's body did not arrive.
    #[error("the request's body broke off")]
    Upload(#[source] BodyError),
    /// Its answer broke off while it was being judged.
    #[error("its answer broke off")]
    Answer(#[source] BodyError),
    /// It does not answer.
    #[error("it sent no response within the first_byte timeout")]
    FirstByteTimeout,
    /// It says that it, or what is behind it, is not well.
    #[error("it answered {0}")]
    Unwell(StatusCode),
    /// It does not answer a health check.
    #[error("it did not answer in time")]
    CheckTimeout,
    /// All connections are in use.
    #[error("all upstream_connections are in use")]
    Busy,
    /// It switched protocols without being asked, or to another (S121).
    #[error("it switched protocols without being asked to")]
    UnaskedUpgrade,
    /// Its body is coded in a way that was not asked for and cannot be undone (RFC 9112 6.1).
    #[error("its Transfer-Encoding is not chunked alone")]
    Coding,
    /// Its status is none (RFC 9110 15).
    #[error("its answer has the status {0}, and 599 is the highest")]
    Status(u16),
}

impl From<Fault> for UpstreamError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Malformed(Malformed::Coding) => Self::Coding,
            Fault::Malformed(_) | Fault::Io(_) | Fault::Unanswered | Fault::Cut | Fault::Upload(_) | Fault::Length => {
                Self::Fault(fault)
            }
        }
    }
}

impl UpstreamError {
    /// The rule about messages that the answer broke, if that is why.
    pub(super) fn rule(&self) -> Option<Rule> {
        match self {
            Self::Status(_) => Some(Rule::Status),
            // hyper tells which part it could not read in words only.
            Self::Exchange(error) if error.is_parse() && error.to_string().contains("header") => {
                Some(Rule::AnswerLines)
            }
            Self::Exchange(error) if error.is_parse() => Some(Rule::Syntax),
            Self::Fault(Fault::Malformed(Malformed::Field)) => Some(Rule::AnswerLines),
            Self::Fault(Fault::Malformed(_)) => Some(Rule::Syntax),
            Self::Connect(_)
            | Self::Tls(_)
            | Self::ConnectTimeout
            | Self::NotHttp2
            | Self::Exchange(_)
            | Self::Fault(_)
            | Self::Upload(_)
            | Self::Answer(_)
            | Self::FirstByteTimeout
            | Self::Unwell(_)
            | Self::CheckTimeout
            | Self::Busy
            | Self::UnaskedUpgrade
            | Self::Coding => None,
        }
    }
}
