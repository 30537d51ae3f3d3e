//! The plain listener: it only sends page loads to the configured origin (S134, S165).

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;

use crate::policy::message;
use crate::policy::relax::Relaxed;
use crate::server::Shared;
use crate::server::door::Permit;
use crate::server::entrance;
use crate::server::listen::Connection;

type Serving = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What serves a connection that was accepted on a plain listener.
pub(super) fn plain(shared: Arc<Shared>) -> impl Fn(Connection, Option<SocketAddr>, Permit) -> Serving {
    move |mut stream, peer, mut permit| {
        let shared = Arc::clone(&shared);
        Box::pin(async move {
            if entrance::admit(&shared, &mut stream, peer, &mut permit).await.is_none() {
                return;
            }
            let timeouts = shared.timeouts.load_full();
            let limits = shared.limits.load_full();
            let stop = shared.stop.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let answer = redirect(&shared, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(timeouts.header)
                .max_buf_size((limits.header_bytes + limits.uri).max(64 * 1024))
                .max_headers(limits.header_count)
                .serve_connection(TokioIo::new(stream), answer);
            let mut connection = pin!(connection);
            let _ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            drop(permit);
        })
    }
}

fn redirect(shared: &Shared, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let (method, version, uri, headers) = (request.method(), request.version(), request.uri(), request.headers());
    let understood = message::check(method, version, uri, headers, &shared.limits.load(), &Relaxed::NONE);
    let authority = match understood.and_then(|()| message::authority(version, uri, headers)) {
        Ok(authority) => authority,
        Err(rule) => return refusal(rule.status(), "The request was refused.\n"),
    };
    if !matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::UPGRADE) {
        return refusal(StatusCode::FORBIDDEN, "Only https is served here.\n");
    }
    let origins = shared.origins.load();
    // Only names from the configuration are ever sent back (S157).
    let Some(origin) = origins.get(without_port(&authority)) else {
        return refusal(StatusCode::MISDIRECTED_REQUEST, "No such site here.\n");
    };
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let Ok(location) = HeaderValue::from_str(&format!("{}{target}", origin.to_text())) else {
        return refusal(StatusCode::BAD_REQUEST, "The request was refused.\n");
    };
    let mut response = refusal(StatusCode::PERMANENT_REDIRECT, "");
    // The connection is closed after it, like those of refusals: one small answer has room in any socket, but a client
    // that asks on and takes nothing would be waited for without end (S172).
    response.headers_mut().insert(header::LOCATION, location);
    response
}

fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        Some(_) | None => authority,
    }
}

fn refusal(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_no_part_of_the_name() {
        for (authority, host) in [("app.test", "app.test"), ("app.test:80", "app.test"), ("[::1]", "[::1]")] {
            assert_eq!(without_port(authority), host);
        }
        assert_eq!(without_port("[::1]:80"), "[::1]");
    }
}
