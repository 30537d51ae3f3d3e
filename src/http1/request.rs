//! The heads of requests.

use http::HeaderMap;
use http::Method;
use http::Uri;
use http::header;

/// How the body of a request is told from what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none, and nothing is said about it.
    Absent,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

/// Writes the head of a request, with further lines behind its fields, which have their ends. The body is framed
/// as is said here, whatever the fields say of it. That no other part has a line end in it, or a space where
/// there is none, is seen to by its type.
pub fn write_head(
    lines: &mut Vec<u8>,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    further: &[u8],
    framing: Framing,
) {
    lines.extend_from_slice(method.as_str().as_bytes());
    lines.push(b' ');
    lines.extend_from_slice(uri.path().as_bytes());
    if let Some(query) = uri.query() {
        lines.push(b'?');
        lines.extend_from_slice(query.as_bytes());
    }
    lines.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in headers {
        if name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING {
            continue;
        }
        lines.extend_from_slice(name.as_str().as_bytes());
        lines.extend_from_slice(b": ");
        lines.extend_from_slice(value.as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines.extend_from_slice(further);
    match framing {
        Framing::Absent => {}
        Framing::Length(length) => {
            lines.extend_from_slice(b"content-length: ");
            lines.extend_from_slice(length.to_string().as_bytes());
            lines.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => lines.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    lines.extend_from_slice(b"\r\n");
}
