//! Requests of clients that need nothing but an answer, and the heads of answers to clients.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;
use httparse::ParserConfig;
use httparse::Status;

use crate::http1::Framing;
use crate::http1::place;

/// A plain request with more fields is none.
const FIELD_LIMIT: usize = 64;
/// Fields that are added on the way.
const ROOM: usize = 4;

/// Reads the request that `bytes` begin with, if all of its head is there and it is a plain one: a `GET` over
/// HTTP/1.1 that has no body, keeps its connection and wants nothing of it. Also how many bytes it takes.
/// `room` is for its fields, and asked for when they are needed.
///
/// `None` says nothing about what it is: another reader has to look.
pub fn read_plain(bytes: &[u8], field_limit: usize, room: impl FnOnce() -> HeaderMap) -> Option<(Request<()>, usize)> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
    let mut found = httparse::Request::new(&mut []);
    let parsed = ParserConfig::default().parse_request_with_uninit_headers(&mut found, bytes, &mut fields);
    let Ok(Status::Complete(length)) = parsed else { return None };
    let is_plain = found.method? == "GET" && found.version? == 1 && found.headers.len() <= field_limit;
    if !is_plain || found.headers.iter().any(asks_more) {
        return None;
    }
    let head = Bytes::copy_from_slice(bytes.get(..length)?);
    let part = |part: &[u8]| {
        let [from, to] = place(bytes, part);
        head.slice(from..to)
    };
    let uri = Uri::from_maybe_shared(part(found.path?.as_bytes())).ok()?;
    let mut headers = room();
    headers.clear();
    headers.try_reserve(found.headers.len() + ROOM).ok()?;
    for field in &*found.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.try_append(name, HeaderValue::from_maybe_shared(part(field.value)).ok()?).ok()?;
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.version_mut() = Version::HTTP_11;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Some((request, length))
}

/// Whether a field is about a body, or about the connection (RFC 9112 6, 9; RFC 9110 7.8, 10.1.1).
fn asks_more(field: &httparse::Header<'_>) -> bool {
    let is = |name: &str| field.name.eq_ignore_ascii_case(name);
    let is_keep_alive = || field.value.eq_ignore_ascii_case(b"keep-alive");
    ["content-length", "transfer-encoding", "upgrade", "expect"].into_iter().any(is)
        || is("connection") && !is_keep_alive()
}

/// The head of an answer over HTTP/1.1.
pub struct AnswerHead<'a> {
    /// The status.
    pub status: StatusCode,
    /// What stands behind it; `None`: the usual words.
    pub reason: Option<&'a [u8]>,
    /// The fields. What they say of the body's framing, and of an end of the connection, is left out.
    pub headers: &'a HeaderMap,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the connection ends with this answer.
    pub closes: bool,
}

impl AnswerHead<'_> {
    /// Writes it. `date` gives the time of an answer that does not say its own (RFC 9110 6.6.1).
    pub fn write(&self, lines: &mut Vec<u8>, date: impl FnOnce(&mut Vec<u8>)) {
        let mut end = |parts: &[&[u8]]| {
            parts.iter().for_each(|part| lines.extend_from_slice(part));
            lines.extend_from_slice(b"\r\n");
        };
        let reason = self.reason.unwrap_or_else(|| self.status.canonical_reason().unwrap_or_default().as_bytes());
        end(&[b"HTTP/1.1 ", self.status.as_str().as_bytes(), b" ", reason]);
        let mut has_date = false;
        for (name, value) in self.headers {
            let is_close = || value.as_bytes().eq_ignore_ascii_case(b"close");
            match *name {
                header::CONTENT_LENGTH | header::TRANSFER_ENCODING => continue,
                header::CONNECTION if is_close() => continue,
                header::DATE => has_date = true,
                _ => {}
            }
            end(&[name.as_str().as_bytes(), b": ", value.as_bytes()]);
        }
        match self.framing {
            Framing::Absent => {}
            Framing::Length(length) => end(&[b"content-length: ", decimal(length, &mut [0; 20])]),
            Framing::Chunked => end(&[b"transfer-encoding: chunked"]),
        }
        if self.closes {
            end(&[b"connection: close"]);
        }
        if !has_date {
            lines.extend_from_slice(b"date: ");
            date(lines);
            lines.extend_from_slice(b"\r\n");
        }
        lines.extend_from_slice(b"\r\n");
    }
}

/// A number as it is written.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut from = digits.len();
    for digit in digits.iter_mut().rev() {
        from -= 1;
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    &digits[from..]
}
