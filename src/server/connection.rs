//! One TLS connection: the handshake with its deadline, then HTTP/1.1 or HTTP/2 by ALPN.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::policy::site::Limits;
use crate::policy::site::Timeouts;
use crate::proxy::Body;
use crate::proxy::Peer;
use crate::proxy::Worker;
use crate::server::Shared;
use crate::server::door::Admitted;
use crate::server::door::Permit;
use crate::server::entrance;
use crate::server::listen::Connection;

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// What serves a connection that was accepted on a TLS listener.
pub(super) fn secure(
    shared: Arc<Shared>,
    worker: Arc<Worker>,
) -> impl Fn(Connection, Option<SocketAddr>, Permit) -> Serving {
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
    let handshake = TlsAcceptor::from(shared.tls.config()).accept(Admitted::new(stream, permit));
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(timeouts.handshake, handshake) => accepted,
        // Nothing was asked yet.
        () = shared.stop.cancelled() => return,
    };
    let Ok(accepted) = accepted else {
        tracing::debug!(event = "tls.handshake_timeout", client = ?address);
        return;
    };
    let stream = match accepted {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(event = "tls.handshake_failed", client = ?address, error = %error);
            return;
        }
    };
    let (_, session) = stream.get_ref();
    let is_http2 = session.alpn_protocol() == Some(b"h2");
    let hosts = shared.tls.hosts_sharing(session.server_name());
    let peer = Arc::new(Peer { address, hosts });
    if is_http2 {
        serve_http2(worker, &shared.stop, stream, peer, &limits).await;
    } else {
        serve_http1(worker, &shared.stop, stream, peer, &timeouts, &limits).await;
    }
}

fn service(
    worker: Arc<Worker>,
    peer: Arc<Peer>,
) -> impl hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = Answering>
{
    service_fn(move |request| {
        let (worker, peer) = (Arc::clone(&worker), Arc::clone(&peer));
        // Boxed: the future of a request lives only as long as the request, not as the connection.
        let answering: Answering = Box::pin(async move { Ok(worker.handle(&peer, request).await) });
        answering
    })
}

async fn serve_http1(
    worker: Arc<Worker>,
    stop: &CancellationToken,
    stream: TlsStream<Admitted<Connection>>,
    peer: Arc<Peer>,
    timeouts: &Timeouts,
    limits: &Limits,
) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // hyper has one clock for both: waiting for the next request, and reading its head.
        .header_read_timeout(timeouts.header.max(timeouts.keep_alive))
        .max_buf_size((limits.header_bytes + limits.uri).max(64 * 1024))
        .max_headers(limits.header_count)
        .serve_connection(TokioIo::new(stream), service(worker, peer))
        .with_upgrades();
    let mut connection = pin!(connection);
    // How a connection ends is the client's business; requests report their own failures.
    let _ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}

async fn serve_http2(
    worker: Arc<Worker>,
    stop: &CancellationToken,
    stream: TlsStream<Admitted<Connection>>,
    peer: Arc<Peer>,
    limits: &Limits,
) {
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(100)
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(4 * 1024 * 1024)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        // Floods of resets end the connection (S113).
        .max_pending_accept_reset_streams(20)
        .max_local_error_reset_streams(128)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service(worker, peer));
    let mut connection = pin!(connection);
    let _ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
}
