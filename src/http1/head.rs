//! The heads of answers.

use std::mem;
use std::mem::MaybeUninit;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use http::Version;
use http::header;
use httparse::ParserConfig;
use httparse::Status;

use crate::http1::FIELD_LIMIT;
use crate::http1::HEAD_LIMIT;
use crate::http1::Malformed;
use crate::http1::names::Names;
use crate::http1::place;

/// The head of an answer that is no informational one. Its values are slices of what came.
#[derive(Debug)]
pub struct Head {
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// The status.
    pub status: StatusCode,
    /// What stands behind the status, if it is not the usual words.
    pub reason: Option<Bytes>,
    /// The fields, in their order.
    pub headers: HeaderMap,
}

/// Finds heads in what comes on one connection.
pub struct HeadReader {
    config: ParserConfig,
    /// So much has been looked through for the end of the head.
    searched: usize,
    /// Whether a head has been taken out.
    has_begun: bool,
    /// Whether a value may be on several lines.
    mends: bool,
    /// Where the fields are. Kept for the room that it has.
    places: Vec<Place>,
    names: Names,
}

/// Fields that are added on the way to the client.
const ROOM: usize = 6;

/// A field: where its name begins, and where it ends; the same of its value.
type Place = [usize; 4];

/// A head as it was understood, before it is taken out.
struct Found {
    length: usize,
    version: Version,
    status: StatusCode,
    /// Whether its words are the usual ones.
    is_usual: bool,
    reason: [usize; 2],
}

impl HeadReader {
    /// `mends` fields that are folded or have a space before their colon (RFC 9112 5.1, 5.2).
    pub fn new(mends: bool) -> Self {
        let mut config = ParserConfig::default();
        config.allow_obsolete_multiline_headers_in_responses(mends);
        config.allow_spaces_after_header_name_in_responses(mends);
        Self { config, searched: 0, has_begun: false, mends, places: Vec::new(), names: Names::default() }
    }

    /// Takes the next head out of `buffer`, if all of it is there. Informational ones are left out (S95).
    /// `headers` gives the room for its fields; what is in there stays until there is a head.
    ///
    /// # Errors
    /// When it is no head, or too large.
    pub fn read(&mut self, buffer: &mut BytesMut, headers: &mut HeaderMap) -> Result<Option<Head>, Malformed> {
        while self.may_be_whole(buffer) {
            let Some(found) = self.find(buffer)? else { break };
            self.searched = 0;
            self.has_begun = true;
            let head = self.take(&found, buffer, headers)?;
            if !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS {
                return Ok(Some(head));
            }
            *headers = head.headers;
        }
        if buffer.len() >= HEAD_LIMIT { Err(Malformed::TooLarge) } else { Ok(None) }
    }

    /// What comes from now on answers another request.
    pub fn begin(&mut self) {
        (self.searched, self.has_begun) = (0, false);
    }

    /// Whether a head has been taken out, if only an informational one.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether it is worth a try: what is no HTTP is to be seen at once, and what comes byte by byte is not
    /// to be read from its beginning each time.
    fn may_be_whole(&mut self, buffer: &[u8]) -> bool {
        let searched = mem::replace(&mut self.searched, buffer.len());
        let rest = buffer.get(searched.saturating_sub(2)..).unwrap_or_default();
        let is_end = |window: &[u8]| window.starts_with(b"\n\n") || window == b"\n\r\n";
        (searched == 0 && !buffer.is_empty()) || rest.ends_with(b"\n\n") || rest.windows(3).any(is_end)
    }

    /// Understands a head without taking it out.
    fn find(&mut self, buffer: &[u8]) -> Result<Option<Found>, Malformed> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELD_LIMIT];
        let mut answer = httparse::Response::new(&mut []);
        let length = match self.config.parse_response_with_uninit_headers(&mut answer, buffer, &mut fields) {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(error) => return Err(malformed(error)),
        };
        let (Some(version), Some(code), Some(reason)) = (answer.version, answer.code, answer.reason) else {
            return Err(Malformed::Status);
        };
        let status = StatusCode::from_u16(code).map_err(|_| Malformed::Status)?;
        self.places.clear();
        self.places.extend(answer.headers.iter().map(|field| {
            let ([begin, end], [from, to]) = (place(buffer, field.name.as_bytes()), place(buffer, field.value));
            [begin, end, from, to]
        }));
        let version = if version == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
        let is_usual = status.canonical_reason() == Some(reason);
        Ok(Some(Found { length, version, status, is_usual, reason: place(buffer, reason.as_bytes()) }))
    }

    fn take(&mut self, found: &Found, buffer: &mut BytesMut, headers: &mut HeaderMap) -> Result<Head, Malformed> {
        if found.length > HEAD_LIMIT {
            return Err(Malformed::TooLarge);
        }
        let bytes = buffer.split_to(found.length).freeze();
        headers.clear();
        headers.try_reserve(self.places.len() + ROOM).map_err(|_| Malformed::TooLarge)?;
        for (index, &[begin, end, from, to]) in self.places.iter().enumerate() {
            let name = self.names.at(index, &bytes[begin..end]).map_err(|_| Malformed::Field)?;
            let value = bytes.slice(from..to);
            let value = if self.mends { unfolded(value) } else { value };
            headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Malformed::Field)?);
        }
        let [from, to] = found.reason;
        let reason = (!found.is_usual).then(|| bytes.slice(from..to));
        Ok(Head { version: found.version, status: found.status, reason, headers: mem::take(headers) })
    }
}

impl Head {
    /// Whether another request may be sent on the connection that it came on (RFC 9112 9.3).
    pub fn keeps_open(&self) -> bool {
        let is_close = |option: &[u8]| option.trim_ascii().eq_ignore_ascii_case(b"close");
        let mut lines = self.headers.get_all(header::CONNECTION).iter();
        self.version == Version::HTTP_11
            && self.status != StatusCode::SWITCHING_PROTOCOLS
            && !lines.any(|line| line.as_bytes().split(|byte| *byte == b',').any(is_close))
    }
}

/// A value that came on several lines on one (RFC 9112 5.2).
fn unfolded(value: Bytes) -> Bytes {
    if !value.contains(&b'\n') {
        return value;
    }
    let lines: Vec<_> = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).collect();
    Bytes::from(lines.join(&b' '))
}

fn malformed(error: httparse::Error) -> Malformed {
    match error {
        httparse::Error::Version => Malformed::Version,
        httparse::Error::Status => Malformed::Status,
        httparse::Error::TooManyHeaders => Malformed::TooLarge,
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Token => Malformed::Field,
    }
}
