//! The demo's clock: a WebSocket that only sends (RFC 6455), one short text frame a second.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

/// What the key is joined with (RFC 6455 1.3).
const MAGIC: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Accepts the handshake and starts the clock.
pub(super) fn clock(request: &mut Request<Incoming>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(MAGIC);
    let accept = STANDARD.encode(hash.finish());
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            let _visitors_leave = tick(TokioIo::new(upgraded)).await;
        }
    });
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.extend(HeaderValue::try_from(accept).ok().map(|accept| (header::SEC_WEBSOCKET_ACCEPT, accept)));
    response
}

async fn tick(mut stream: TokioIo<Upgraded>) -> std::io::Result<()> {
    let mut ignored = [0; 256];
    loop {
        let now = OffsetDateTime::now_utc();
        let text = format!("{:02}:{:02}:{:02} UTC", now.hour(), now.minute(), now.second());
        // A final text frame; the text is always shorter than 126 bytes.
        let mut frame = vec![0x81, u8::try_from(text.len()).unwrap_or(0)];
        frame.extend_from_slice(text.as_bytes());
        stream.write_all(&frame).await?;
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            read = stream.read(&mut ignored) => if read? == 0 { return Ok(()) },
        }
    }
}
