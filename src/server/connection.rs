//! One TLS connection: the handshake with its deadline, then HTTP/1.1 or HTTP/2 by ALPN.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use http::Request;
use http::Response;
use http::header;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use rustls::server::Acceptor;
use tokio::io::AsyncWriteExt;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::clock::Timestamp;
use crate::policy::message::Malformed;
use crate::policy::relax::Rule;
use crate::policy::site::Limits;
use crate::proxy::KeptOpen;
use crate::proxy::Opening;
use crate::proxy::Peer;
use crate::proxy::Worker;
use crate::server;
use crate::server::Shared;
use crate::server::activity::Activity;
use crate::server::activity::Overdue;
use crate::server::activity::Patience;
use crate::server::activity::Sending;
use crate::server::clients;
use crate::server::cork::Corked;
use crate::server::door::Admitted;
use crate::server::door::Permit;
use crate::server::entrance;
use crate::server::frames::Counted;
use crate::server::http1::Heir;
use crate::server::http1::Http1;
use crate::server::http1::Serve;
use crate::server::listen::Connection;
use crate::server::seldom::Seldom;
use crate::server::tls::Tls;

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Sending>, Infallible>> + Send>>;

/// So much is encrypted before it is written: an answer of 64 KiB with its head.
const MOST_ENCRYPTED: usize = 68 * 1024;
/// How long a client may take to leave a connection on which nothing is under way.
const LEAVE_TIME: Duration = Duration::from_secs(2);

/// What serves a connection that was accepted on a TLS listener.
pub(super) fn secure(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
) -> impl Fn(Connection, Option<SocketAddr>, Permit) -> Serving + Clone {
    move |mut stream, peer, mut permit| {
        let (shared, worker) = (Arc::clone(&shared), Arc::clone(&worker));
        Box::pin(async move {
            if let Some(client) = entrance::admit(&shared, &mut stream, peer, &mut permit).await {
                serve(shared, worker, stream, permit, client).await;
            }
        })
    }
}

async fn serve(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
    stream: Connection,
    permit: Permit,
    address: Option<SocketAddr>,
) {
    let timeouts = shared.timeouts.load_full();
    let limits = shared.limits.load_full();
    // Small answers must not wait for the acknowledgement of earlier ones; a failure costs only that.
    if let Either::Left(tcp) = &stream {
        let _only_slower = tcp.set_nodelay(true);
    }
    let Some(stream) = accept(&shared, worker.stopping(), Admitted::new(stream, permit), address).await else { return };
    let (admitted, session) = stream.get_ref();
    let activity = admitted.activity().clone();
    activity.restart();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let hosts = shared.tls.hosts_sharing(session.server_name());
    let has_websockets = is_http2 && shared.gate.offers_websockets(&hosts);
    let peer = Arc::new(Peer { address, hosts, certificate: clients::certificate(session) });
    let stop = worker.stopping().clone();
    let service = Service { worker, peer, activity: activity.clone(), heir: Heir::default() };
    let header = (!is_http2).then_some(timeouts.header);
    let patience = Patience { keep_alive: timeouts.keep_alive, header, body_idle: timeouts.body_idle };
    let stay = Stay { stop: &stop, activity: &activity, patience };
    if is_http2 {
        let mut builder = http2_builder(&limits);
        if has_websockets {
            // SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 8441 3).
            builder.enable_connect_protocol();
        }
        serve_http2(stay, stream, service, &builder, address).await;
    } else {
        serve_http1(stay, stream, service, &limits, address).await;
    }
}

/// The handshake with its deadline; `None` when nothing comes of it.
async fn accept(
    shared: &Shared,
    stop: &CancellationToken,
    stream: Admitted<Connection>,
    address: Option<SocketAddr>,
) -> Option<TlsStream<Admitted<Connection>>> {
    let limit = shared.timeouts.load().handshake;
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limit, handshake(&shared.tls, stream)) => accepted,
        // Nothing was asked yet.
        () = stop.cancelled() => return None,
    };
    shared.handshakes.count(match &accepted {
        Ok(Ok(_)) => server::OK,
        Ok(Err(_)) => server::FAILED,
        Err(_) => server::TIMEOUT,
    });
    match accepted {
        Ok(Ok(mut stream)) => {
            stream.get_mut().1.set_buffer_limit(Some(MOST_ENCRYPTED));
            return Some(stream);
        }
        Ok(Err(error)) if clients::is_refusal(&error) => {
            let client = address.map(|address| tracing::field::display(address.ip()));
            tracing::info!(event = "tls.client_refused", client, error = %error);
        }
        Ok(Err(error)) => tracing::debug!(event = "tls.handshake_failed", client = ?address, error = %error),
        Err(_) => tracing::debug!(event = "tls.handshake_timeout", client = ?address),
    }
    None
}

/// A fatal alert, unrecognized_name (RFC 6066 3), as it is written before there are keys.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Who asks for a name that nobody has here is told so (S129, RFC 9325 3.7); rustls would say
/// access_denied.
async fn handshake(tls: &Tls, stream: Admitted<Connection>) -> io::Result<TlsStream<Admitted<Connection>>> {
    let mut begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let hello = begun.client_hello();
    if let Some(name) = hello.server_name().filter(|name| !tls.serves(name)) {
        let error = io::Error::other(format!("no certificate here is for {name}"));
        begun.io.write_all(&UNRECOGNIZED_NAME).await?;
        begun.io.shutdown().await?;
        return Err(error);
    }
    begun.into_stream(tls.config()).await
}

/// Answers the requests of one connection.
struct Service {
    worker: Arc<Worker>,
    peer: Arc<Peer>,
    activity: Activity,
    heir: Heir,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Sending>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.answer(request.map(Some))
    }
}

impl Serve for Service {
    fn answer(&self, mut request: Request<Option<Incoming>>) -> Answering {
        let has_body = request.body().as_ref().is_some_and(|body| !body.is_end_stream());
        let exchange = self.activity.begin(has_body);
        if request.method() == Method::CONNECT {
            request.extensions_mut().insert(KeptOpen::by(self.activity.begin(has_body)));
        } else if request.headers().contains_key(header::UPGRADE) {
            let (heir, opening) = Opening::new();
            self.heir.set(Some(heir));
            request.extensions_mut().insert(opening);
        }
        let (worker, peer) = (Arc::clone(&self.worker), Arc::clone(&self.peer));
        let request = Box::new(request);
        // Boxed: the future of a request lives only as long as the request, not as the connection.
        Box::pin(async move { Ok(exchange.until_sent(worker.handle(&peer, request).await)) })
    }

    fn time_of_day(&self) -> Timestamp {
        self.worker.time_of_day()
    }

    fn heir(&self) -> &Heir {
        &self.heir
    }
}

/// How long a connection is served.
struct Stay<'a> {
    stop: &'a CancellationToken,
    activity: &'a Activity,
    patience: Patience,
}

impl Stay<'_> {
    /// Serves a connection until its client has left, or has to; `leave` asks it to. What it ended with, if it
    /// ended by itself.
    async fn until_end<C: Future>(self, mut connection: Pin<&mut C>, leave: fn(Pin<&mut C>)) -> Option<C::Output> {
        let signal = Seldom::new(async {
            tokio::select! {
                () = self.stop.cancelled() => Overdue::Silent,
                overdue = self.activity.overdue(self.patience) => overdue,
            }
        });
        tokio::select! {
            biased;
            ended = connection.as_mut() => return Some(ended),
            overdue = signal => if overdue != Overdue::Silent { return None },
        }
        leave(connection.as_mut());
        tokio::select! {
            _ended = connection => {}
            // A client that says neither hello nor goodbye is not waited for.
            _overdue = self.activity.overdue(Patience { keep_alive: LEAVE_TIME, ..self.patience }) => {}
        }
        None
    }
}

async fn serve_http1(
    stay: Stay<'_>,
    stream: TlsStream<Admitted<Connection>>,
    service: Service,
    limits: &Limits,
    address: Option<SocketAddr>,
) {
    let mut builder = http1::Builder::new();
    builder
        // hyper has one clock for idling and for reading a head; ours tells them apart.
        .header_read_timeout(None)
        .max_buf_size((limits.header_bytes + limits.uri).max(64 * 1024))
        .max_headers(limits.header_count);
    let connection = Http1::new(builder, limits.header_count, stream, stay.activity.clone(), service);
    // How a connection ends is the client's business; requests report their own failures.
    if let Some(ended) = stay.until_end(pin!(connection), Http1::leave).await {
        say_unread(ended, address);
    }
}

async fn serve_http2(
    stay: Stay<'_>,
    stream: TlsStream<Admitted<Connection>>,
    service: Service,
    builder: &http2::Builder<TokioExecutor>,
    address: Option<SocketAddr>,
) {
    let connection = builder.serve_connection(TokioIo::new(Counted::new(Corked::new(stream), address)), service);
    if let Some(ended) = stay.until_end(pin!(connection), |connection| connection.graceful_shutdown()).await {
        say_flood(ended, address);
    }
}

fn http2_builder(limits: &Limits) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(header_list(limits))
        // Floods of resets end the connection (S113).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// What hyper answers by itself because it is no request is in the log; nobody else has seen it.
fn say_unread(ended: hyper::Result<()>, address: Option<SocketAddr>) {
    let Err(error) = ended else { return };
    if error.is_parse() {
        let rule = if error.is_parse_too_large() { Rule::Head(Malformed::HeaderBytes) } else { Rule::Syntax };
        let client = address.map(|address| tracing::field::display(address.ip()));
        tracing::info!(event = "request.refused", client, error = %error, rule = rule.name(), help = rule.remedy());
    }
}

/// Clients that h2 has told to calm down are in the log; how others end is their business.
fn say_flood(ended: hyper::Result<()>, address: Option<SocketAddr>) {
    let Err(error) = ended else { return };
    let told = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    if let Some(flood) =
        told.filter(|error| error.reason() == Some(h2::Reason::ENHANCE_YOUR_CALM) && error.is_library())
    {
        let client = address.map(|address| tracing::field::display(address.ip()));
        tracing::warn!(event = "connection.flooded", client, error = %flood);
    }
}

/// What h2 refuses by itself, unlogged: more than our rules let pass, in its way of counting
/// (RFC 9113 6.5.2: 32 bytes more for each field).
fn header_list(limits: &Limits) -> u32 {
    u32::try_from(limits.header_bytes + limits.uri + 32 * limits.header_count).unwrap_or(u32::MAX)
}
