//! Every answer of the admin surface: never cached, never taken for something else.

use bytes::Bytes;
use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::Full;
use serde_json::Value;
use serde_json::json;

pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn text(text: &'static str) -> Reply {
    answer(StatusCode::OK, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

pub(super) fn json(value: &Value) -> Reply {
    answer(StatusCode::OK, "application/json", Bytes::from(value.to_string()))
}

/// A problem document (RFC 9457).
pub(super) fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("Error");
    let value = json!({ "title": title, "status": status.as_u16(), "detail": detail });
    answer(status, "application/problem+json", Bytes::from(value.to_string()))
}

/// The same with one more field.
pub(super) fn problem_with(status: StatusCode, detail: &str, name: header::HeaderName, value: &'static str) -> Reply {
    let mut reply = problem(status, detail);
    reply.headers_mut().insert(name, HeaderValue::from_static(value));
    reply
}

pub(super) fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Reply {
    let mut reply = Response::new(Full::new(body));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    reply
}
