//! HTTP/2 towards the application, with or without TLS (`upstream_protocol = "h2"`).

use std::future::Future;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use http::Request;
use http::Response;
use http::Uri;
use http::Version;
use http::header;
use http::uri::Authority;
use http::uri::Scheme;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::sync::oneshot;

use crate::proxy::body::Body;
use crate::proxy::leg::Leg;
use crate::proxy::link::Fate;
use crate::proxy::link::Lost;
use crate::proxy::upstream::UpstreamError;

/// How far one answer may be ahead of its client.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The answers of slow clients must not hold up the others on their connection, however many they are:
/// only the windows of the streams count.
const CONNECTION_WINDOW: u32 = (1 << 31) - 1;
/// What an answer's head may have, as over HTTP/1.1.
const HEADER_LIST: u32 = 256 * 1024;
/// What is kept of a request that the application does not take.
const SEND_BUFFER: usize = 64 * 1024;

type Connection = http2::Connection<TokioIo<Leg>, Body, TokioExecutor>;

/// A connection on which many requests are under way at once.
pub(super) struct Http2 {
    sender: SendRequest<Body>,
    scheme: Scheme,
    streams: Arc<AtomicUsize>,
    heard: Arc<AtomicUsize>,
}

impl Http2 {
    /// Begins to speak HTTP/2; waits until the application does too, so that its limits are known before
    /// they are reached. No pings are sent: servers of gRPC take them for an attack.
    pub(super) async fn begin(mut leg: Leg, scheme: Scheme) -> Result<Self, UpstreamError> {
        let (first_word, heard) = (leg.first_word(), leg.heard());
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .max_send_buf_size(SEND_BUFFER)
            // What still comes for clients that have left is counted for good: it would cost all others
            // their connection in the end.
            .max_local_error_reset_streams(None)
            .handshake(TokioIo::new(leg))
            .await
            .map_err(UpstreamError::Exchange)?;
        let streams = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
        let (greeted, greeting) = oneshot::channel();
        tokio::spawn(drive(connection, Arc::clone(&streams), first_word, greeted));
        match greeting.await {
            Ok(Ok(())) => {}
            Ok(Err(lost)) if is_lost(&lost) => return Err(UpstreamError::Exchange(lost)),
            Ok(Err(_)) | Err(_) => return Err(UpstreamError::NotHttp2),
        }
        Ok(Self { sender, scheme, streams, heard })
    }

    /// Whether it takes no requests any more.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// How often anything has come on it.
    pub(super) fn heard(&self) -> usize {
        self.heard.load(Ordering::Relaxed)
    }

    /// How many requests the application takes at once.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Lost> {
        self.address(&mut request);
        let sent = self.sender.clone().try_send_request(request).await;
        sent.map_err(|mut lost| {
            let request = lost.take_message().map(Box::new);
            let error = lost.into_error();
            let fate = if request.is_some() { Fate::Unsent } else { fate(&error) };
            Lost { error: UpstreamError::Exchange(error), fate, request }
        })
    }

    /// `Host` becomes `:authority` (RFC 9113 8.3.1).
    fn address(&self, request: &mut Request<Body>) {
        *request.version_mut() = Version::HTTP_2;
        let host = request.headers_mut().remove(header::HOST);
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(self.scheme.clone());
        // One that was sent before, and has no `Host` any more, knows where it goes.
        if let Some(host) = host {
            parts.authority = Authority::try_from(host.as_bytes()).ok();
        }
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    }
}

/// Runs the connection to its end, and keeps an eye on how many streams it may have.
async fn drive(
    mut connection: Connection,
    streams: Arc<AtomicUsize>,
    first_word: Arc<Notify>,
    greeted: oneshot::Sender<hyper::Result<()>>,
) {
    let mut first_word = pin!(first_word.notified());
    let mut greeted = Some(greeted);
    let ended = poll_fn(|context| {
        let has_spoken = greeted.is_some() && first_word.as_mut().poll(context).is_ready();
        let polled = Pin::new(&mut connection).poll(context);
        streams.store(connection.current_max_send_streams(), Ordering::Relaxed);
        if polled.is_pending() && has_spoken {
            // Whoever waited may have left.
            let _left = greeted.take().map(|greeted| greeted.send(Ok(())));
        }
        polled
    })
    .await;
    // Later it reaches the requests that were under way, which report it.
    if let (Some(greeted), Err(error)) = (greeted, ended) {
        let _left = greeted.send(Err(error));
    }
}

/// Whether the connection itself has failed, as when TLS wants another certificate.
fn is_lost(error: &hyper::Error) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<io::Error>());
    // One that is only closed may be all that HTTP/1 has to say.
    cause.is_some_and(|cause| cause.kind() != io::ErrorKind::BrokenPipe)
}

/// What an error tells about the request it befell.
fn fate(error: &hyper::Error) -> Fate {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    match cause {
        // A GOAWAY befalls those that were sent after the last that is answered.
        Some(cause) if cause.is_remote() && cause.is_go_away() => Fate::Refused,
        Some(cause) if cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM) => Fate::Refused,
        Some(cause) if cause.is_reset() => Fate::Reset,
        Some(_) | None => Fate::Unknown,
    }
}
