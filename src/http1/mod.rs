//! HTTP/1.1 as bytes: what is said to the application and heard of it, and the plain part of what clients ask.
//! Bytes come in as they happen to be cut, and what comes out does not depend on it. Nothing here reads, writes
//! or waits.

mod body;
mod head;
mod names;
mod plain;
mod request;

pub use self::body::Decoder;
pub use self::body::Piece;
pub use self::head::Head;
pub use self::head::HeadReader;
pub use self::plain::AnswerHead;
pub use self::plain::read_plain;
pub use self::request::Framing;
pub use self::request::write_head;

/// Bytes that the head of an answer may have.
pub const HEAD_LIMIT: usize = 256 * 1024;
/// Fields that it may have, and trailers.
pub const FIELD_LIMIT: usize = 200;
/// Bytes that all trailers of an answer may have, and all extensions of its chunks.
pub const EXTRA_LIMIT: usize = 16 * 1024;

/// What makes bytes no answer (S98).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Another protocol, or another version of it.
    #[error("it does not begin as HTTP/1.1 does")]
    Version,
    /// A status line that is none.
    #[error("its status line is none")]
    Status,
    /// A line that is no field, or one with characters that may not be in it (RFC 9112 5).
    #[error("one of its header lines is no field")]
    Field,
    /// A head that is larger than [`HEAD_LIMIT`] or has more fields than [`FIELD_LIMIT`].
    #[error("its head is too large")]
    TooLarge,
    /// No number, or several (RFC 9112 6.3).
    #[error("its Content-Length is not one number")]
    Length,
    /// Anything but exactly one `chunked`, or any in HTTP/1.0 (RFC 9112 6.1).
    #[error("its Transfer-Encoding is not chunked alone")]
    Coding,
    /// The size of a chunk, or what is around it (RFC 9112 7.1).
    #[error("one of its chunks is none")]
    Chunk,
    /// Trailers that are no fields, or too many (RFC 9112 7.1.2).
    #[error("its trailers are none")]
    Trailers,
}

/// Where a part of the buffer is in it. What is not in it at all is empty.
fn place(buffer: &[u8], part: &[u8]) -> [usize; 2] {
    match (part.as_ptr() as usize).checked_sub(buffer.as_ptr() as usize) {
        Some(from) if from + part.len() <= buffer.len() => [from, from + part.len()],
        Some(_) | None => [0, 0],
    }
}

#[cfg(test)]
mod tests;
