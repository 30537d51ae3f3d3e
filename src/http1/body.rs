//! The bodies of answers.

use bytes::Buf;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::Method;
use http::StatusCode;
use http::Version;
use http::header;

use crate::http1::EXTRA_LIMIT;
use crate::http1::FIELD_LIMIT;
use crate::http1::Head;
use crate::http1::Malformed;

/// Finds the body of one answer in what comes, and its end.
#[derive(Debug)]
pub struct Decoder(Kind);

#[derive(Debug)]
enum Kind {
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks.
    Chunked(Chunks),
    /// All that comes until the connection ends.
    UntilClose,
    /// Nothing more.
    Ended,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A part of the body, not empty.
    Data(Bytes),
    /// The body is complete; what is left in the buffer is not its.
    End,
    /// Nothing can be said before more has come.
    More,
}

impl Decoder {
    /// For the body of the answer with this head to a request with this method (RFC 9112 6.3).
    ///
    /// # Errors
    /// When it can be told in two ways how long it is, or not at all.
    pub fn of(head: &Head, method: &Method) -> Result<Self, Malformed> {
        let has_none = [StatusCode::SWITCHING_PROTOCOLS, StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
        if has_none.contains(&head.status) || *method == Method::HEAD {
            return Ok(Self(Kind::Ended));
        }
        let mut codings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
        if let Some(coding) = codings.next() {
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            let is_known = is_chunked && head.version == Version::HTTP_11;
            return if is_known { Ok(Self(Kind::Chunked(Chunks::default()))) } else { Err(Malformed::Coding) };
        }
        Ok(Self(match length(&head.headers)? {
            Some(0) => Kind::Ended,
            Some(length) => Kind::Length(length),
            None => Kind::UntilClose,
        }))
    }

    /// Takes the next piece out of `buffer`.
    ///
    /// # Errors
    /// When the chunks are none. Nothing can be read after that.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        match &mut self.0 {
            Kind::Ended => Ok(Piece::End),
            Kind::UntilClose if buffer.is_empty() => Ok(Piece::More),
            Kind::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
            Kind::Length(left) => {
                let Some(data) = at_most(buffer, left) else { return Ok(Piece::More) };
                if *left == 0 {
                    self.0 = Kind::Ended;
                }
                Ok(Piece::Data(data))
            }
            Kind::Chunked(chunks) => {
                let piece = chunks.decode(buffer)?;
                if piece == Piece::End {
                    self.0 = Kind::Ended;
                }
                Ok(piece)
            }
        }
    }

    /// The connection has ended; whether the body has as well.
    pub fn close(&mut self) -> bool {
        let is_end = matches!(self.0, Kind::Ended | Kind::UntilClose);
        if is_end {
            self.0 = Kind::Ended;
        }
        is_end
    }

    /// Whether the body is complete.
    pub fn is_end(&self) -> bool {
        matches!(self.0, Kind::Ended)
    }

    /// How much is still to come, if that is known.
    pub fn left(&self) -> Option<u64> {
        match self.0 {
            Kind::Ended => Some(0),
            Kind::Length(left) => Some(left),
            Kind::Chunked(_) | Kind::UntilClose => None,
        }
    }

    /// Whether it ends with the connection.
    pub fn is_until_close(&self) -> bool {
        matches!(self.0, Kind::UntilClose)
    }
}

/// A longer body is none.
const MOST_BYTES: u64 = u64::MAX >> 1;

/// The one length that all fields and all of their elements agree on, if there are any (RFC 9110 8.6).
fn length(headers: &HeaderMap) -> Result<Option<u64>, Malformed> {
    let mut agreed = None;
    for line in headers.get_all(header::CONTENT_LENGTH) {
        for element in line.as_bytes().split(|byte| *byte == b',') {
            let digits = str::from_utf8(element.trim_ascii()).map_err(|_| Malformed::Length)?;
            // It may have a sign for `parse`, and more than 63 bits, which few readers have.
            let is_sound = |length: &u64| *length <= MOST_BYTES && digits.bytes().all(|byte| byte.is_ascii_digit());
            let length: u64 = digits.parse().ok().filter(is_sound).ok_or(Malformed::Length)?;
            if *agreed.get_or_insert(length) != length {
                return Err(Malformed::Length);
            }
        }
    }
    Ok(agreed)
}

/// Takes out what is there, and no more than `left`, which it is counted from.
fn at_most(buffer: &mut BytesMut, left: &mut u64) -> Option<Bytes> {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left = left.saturating_sub(length as u64);
    (length > 0).then(|| buffer.split_to(length).freeze())
}

/// Where in a chunked body it is (RFC 9112 7.1).
#[derive(Debug, Default)]
struct Chunks {
    at: At,
    /// Of the chunk.
    left: u64,
    /// Bytes of the extensions of all chunks.
    extras: usize,
}

#[derive(Clone, Copy, Debug)]
enum At {
    /// The size, of which so many digits have been read.
    Size(u8),
    /// Behind it, so many spaces: servers pad sizes to their most digits.
    Spaces(usize),
    /// An extension.
    Extension,
    /// The line feed behind the size.
    SizeEnd,
    Data,
    /// The line end behind the data.
    DataEnd,
    /// Its line feed.
    DataEndFeed,
    /// Behind the last chunk; so much was searched for the end.
    Trailers(usize),
}

impl Default for At {
    fn default() -> Self {
        Self::Size(0)
    }
}

/// As many as a 64-bit number has.
const MOST_DIGITS: u8 = 16;

impl Chunks {
    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Piece, Malformed> {
        loop {
            match self.at {
                At::Data => {
                    let Some(data) = at_most(buffer, &mut self.left) else { return Ok(Piece::More) };
                    if self.left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok(Piece::Data(data));
                }
                At::Trailers(searched) => {
                    let found = trailers(buffer, searched)?;
                    self.at = At::Trailers(buffer.len());
                    return Ok(found.map_or(Piece::More, |length| {
                        buffer.advance(length);
                        Piece::End
                    }));
                }
                At::Size(_) | At::Spaces(_) | At::Extension | At::SizeEnd | At::DataEnd | At::DataEndFeed => {
                    let Some(byte) = buffer.first().copied() else { return Ok(Piece::More) };
                    buffer.advance(1);
                    self.at = self.next(byte)?;
                }
            }
        }
    }

    /// Where one byte between the data leads to.
    fn next(&mut self, byte: u8) -> Result<At, Malformed> {
        match (self.at, byte) {
            (At::Size(digits), _) if byte.is_ascii_hexdigit() && digits < MOST_DIGITS => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default();
                self.left = self.left << 4 | u64::from(digit);
                Ok(At::Size(digits + 1))
            }
            (At::Size(1..), b' ' | b'\t') => Ok(At::Spaces(1)),
            (At::Spaces(before), b' ' | b'\t') if before < EXTRA_LIMIT => Ok(At::Spaces(before + 1)),
            (At::Size(1..) | At::Spaces(_), b';') => self.extension(),
            (At::Size(1..) | At::Spaces(_) | At::Extension, b'\r') => Ok(At::SizeEnd),
            (At::Extension, b'\t' | b' '..=b'~' | 0x80..) => self.extension(),
            (At::SizeEnd, b'\n') if self.left == 0 => Ok(At::Trailers(0)),
            (At::SizeEnd, b'\n') => Ok(At::Data),
            (At::DataEnd, b'\r') => Ok(At::DataEndFeed),
            (At::DataEndFeed, b'\n') => Ok(At::Size(0)),
            (
                At::Size(_)
                | At::Spaces(_)
                | At::Extension
                | At::SizeEnd
                | At::Data
                | At::DataEnd
                | At::DataEndFeed
                | At::Trailers(_),
                _,
            ) => Err(Malformed::Chunk),
        }
    }

    /// What nobody needs is bounded.
    fn extension(&mut self) -> Result<At, Malformed> {
        self.extras += 1;
        if self.extras < EXTRA_LIMIT { Ok(At::Extension) } else { Err(Malformed::Chunk) }
    }
}

/// How long the trailers are, with the empty line that ends them, if all of them are there. They are judged, and
/// nobody gets them (S85).
fn trailers(buffer: &[u8], searched: usize) -> Result<Option<usize>, Malformed> {
    match buffer {
        [] | [b'\r'] => return Ok(None),
        [b'\r', b'\n', ..] => return Ok(Some(2)),
        _ => {}
    }
    let from = searched.saturating_sub(3);
    let end = buffer.get(from..).unwrap_or_default().windows(4).position(|window| window == b"\r\n\r\n");
    let Some(length) = end.map(|end| from + end + 4) else {
        return if buffer.len() < EXTRA_LIMIT { Ok(None) } else { Err(Malformed::Trailers) };
    };
    let section = buffer.get(..length).filter(|_| length < EXTRA_LIMIT).ok_or(Malformed::Trailers)?;
    let is_bare = |line: &[u8]| !line.ends_with(b"\r\n");
    let mut fields = [httparse::EMPTY_HEADER; FIELD_LIMIT];
    match httparse::parse_headers(section, &mut fields) {
        Ok(httparse::Status::Complete((used, _)))
            if used == length && !section.split_inclusive(|byte| *byte == b'\n').any(is_bare) =>
        {
            Ok(Some(length))
        }
        Ok(_) | Err(_) => Err(Malformed::Trailers),
    }
}
