//! Messages that could be read in two ways are refused before anything else looks at them
//! (S76-S92, S103-S108).

use std::borrow::Cow;
use std::fmt::Write;
use std::net::Ipv6Addr;

use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::StatusCode;
use http::Uri;
use http::Version;
use http::header;

use crate::policy::relax::Relaxed;
use crate::policy::relax::Rule;
use crate::policy::site::Limits;

/// The rule a message broke. Its name is what an operator finds in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.name())]
pub enum Malformed {
    /// No `Host`, several, or an invalid one (RFC 9112 3.2, S76).
    Host,
    /// `Host` differs from the authority of the target (S78, S106).
    Authority,
    /// Anything but exactly one `chunked` (S79, S80).
    TransferEncoding,
    /// A length that is no number (RFC 9110 8.6, S81, S109).
    ContentLength,
    /// The target has characters that may not occur in one (S91, S107).
    Target,
    /// `TRACE`, `CONNECT` or a method that is not on the list (S88, S92).
    Method,
    /// Too many header fields (S170).
    HeaderCount,
    /// Header section too large (S170).
    HeaderBytes,
    /// Target too long (S170).
    UriLength,
    /// An expectation other than `100-continue` (RFC 9110 10.1.1, S94).
    Expectation,
    /// It has been here before: an upstream leads back here (S87).
    Loop,
}

impl Malformed {
    /// The name of the rule.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Authority => "authority",
            Self::TransferEncoding => "transfer-encoding",
            Self::ContentLength => "content-length",
            Self::Target => "target",
            Self::Method => "method",
            Self::HeaderCount => "header-count",
            Self::HeaderBytes => "header-bytes",
            Self::UriLength => "uri",
            Self::Expectation => "expect",
            Self::Loop => "loop",
        }
    }

    /// The status that says so.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Host | Self::Authority | Self::TransferEncoding | Self::ContentLength | Self::Target => {
                StatusCode::BAD_REQUEST
            }
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderCount | Self::HeaderBytes => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UriLength => StatusCode::URI_TOO_LONG,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Loop => StatusCode::LOOP_DETECTED,
        }
    }
}

/// Through how many of our kind a request may have come.
const MOST_HOPS: usize = 4;

/// Methods that pass: those of RFC 9110 and 5789, and of WebDAV (RFC 4918, 3253, 5323).
pub const METHODS: [&str; 16] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];

/// The authority the request is for: lower case, without default port or trailing dot.
///
/// # Errors
/// When the message is ambiguous about its host.
pub fn authority<'a>(version: Version, uri: &'a Uri, headers: &'a HeaderMap) -> Result<Cow<'a, str>, Malformed> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => return Err(Malformed::Host),
        (Some(host), None) => Some(canonical(host.to_str().map_err(|_| Malformed::Host)?).ok_or(Malformed::Host)?),
        (None, _) => None,
    };
    let target = match uri.authority() {
        Some(authority) => Some(canonical(authority.as_str()).ok_or(Malformed::Authority)?),
        None => None,
    };
    match (target, host) {
        (Some(target), Some(host)) if target != host => Err(Malformed::Authority),
        (Some(target), Some(_)) => Ok(target),
        // HTTP/2 names its authority in the target; HTTP/1.1 needs `Host` in any case (S76).
        (Some(target), None) if version >= Version::HTTP_2 => Ok(target),
        (None, Some(host)) => Ok(host),
        (Some(_), None) | (None, None) => Err(Malformed::Host),
    }
}

/// `host` or `host:port` in the one form that sites are found by; `None` when it is neither.
fn canonical(text: &str) -> Option<Cow<'_, str>> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            // Written as origins of the configuration are.
            let host = url::Host::<&str>::Ipv6(address).to_string();
            (Cow::Owned(host), rest.strip_prefix(':').or_else(|| rest.is_empty().then_some(""))?)
        }
        None => {
            let (host, port) = text.split_once(':').unwrap_or((text, ""));
            (Cow::Borrowed(host.strip_suffix('.').unwrap_or(host)), port)
        }
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let is_host = host.starts_with('[') || (!host.is_empty() && host.bytes().all(is_name));
    if !is_host || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let is_lower = !host.bytes().any(|byte| byte.is_ascii_uppercase());
    let host = if is_lower { host } else { Cow::Owned(host.to_ascii_lowercase()) };
    if port.is_empty() {
        return Some(host);
    }
    match (port.parse::<u16>().ok()?, host) {
        (443, host) => Some(host),
        // As it is, but for zeros in front and the rare dot behind the name.
        (_, Cow::Borrowed(host)) if !port.starts_with('0') && host.len() + 1 + port.len() == text.len() => {
            Some(Cow::Borrowed(text))
        }
        (port, host) => Some(Cow::Owned(format!("{host}:{port}"))),
    }
}

/// Every other rule about the head of a request.
///
/// # Errors
/// The first rule that was broken.
pub fn check(
    method: &Method,
    version: Version,
    uri: &Uri,
    headers: &HeaderMap,
    limits: &Limits,
    relaxed: &Relaxed,
) -> Result<(), Malformed> {
    check_method(method, relaxed)?;
    check_target(method, version, uri, limits, relaxed)?;
    let look = Look::at(headers);
    // Browsers split cookies into as many fields as they like over HTTP/2 (RFC 9113 8.2.3).
    if headers.len() - look.crumbs.saturating_sub(1) > limits.header_count {
        return Err(Malformed::HeaderCount);
    }
    if look.bytes > limits.header_bytes {
        return Err(Malformed::HeaderBytes);
    }
    let is_known = |expectation: &HeaderValue| expectation.as_bytes().eq_ignore_ascii_case(b"100-continue");
    let is_understood = !look.expects || headers.get_all(header::EXPECT).iter().all(is_known);
    if !is_understood && !relaxed.has(Rule::Head(Malformed::Expectation)) {
        return Err(Malformed::Expectation);
    }
    if look.came_far && is_loop(headers) {
        return Err(Malformed::Loop);
    }
    if look.frames { check_framing(version, headers) } else { Ok(()) }
}

/// What one look at all fields shows: to ask for one that is not there costs as much as to find it.
#[derive(Default)]
struct Look {
    /// Of all fields, as HTTP/1.1 writes them.
    bytes: usize,
    /// Fields with cookies.
    crumbs: usize,
    /// There is an `Expect`.
    expects: bool,
    /// There is a `Via`.
    came_far: bool,
    /// There is a `Content-Length` or `Transfer-Encoding`.
    frames: bool,
}

impl Look {
    fn at(headers: &HeaderMap) -> Self {
        let mut look = Self::default();
        for (name, value) in headers {
            look.bytes += name.as_str().len() + value.len() + 4;
            look.crumbs += usize::from(name == header::COOKIE);
            look.expects |= name == header::EXPECT;
            look.came_far |= name == header::VIA;
            look.frames |= name == header::CONTENT_LENGTH || name == header::TRANSFER_ENCODING;
        }
        look
    }
}

/// Whether it has come through so many of our kind that an upstream must lead back here. One behind the
/// other is a design; all have the same name in `Via`, so a few are let pass.
fn is_loop(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VIA).iter().filter_map(|value| value.to_str().ok());
    let hops = lines.flat_map(|line| line.split(','));
    hops.filter(|hop| hop.split_ascii_whitespace().nth(1) == Some("vestibule")).count() > MOST_HOPS
}

/// What is listed, however the list is relaxed, has no other spelling: an application might take it for
/// the method that a rule of the site is about.
fn check_method(method: &Method, relaxed: &Relaxed) -> Result<(), Malformed> {
    let name = method.as_str();
    if METHODS.contains(&name) {
        return Ok(());
    }
    let is_like = |known: &&str| known.eq_ignore_ascii_case(name);
    let is_own = !METHODS.iter().chain(&["TRACE", "TRACK", "CONNECT"]).any(is_like);
    if is_own && relaxed.has(Rule::Head(Malformed::Method)) { Ok(()) } else { Err(Malformed::Method) }
}

/// Path and query as they are judged and passed on: characters beyond ASCII, where a site may have them,
/// are percent-encoded (RFC 3987 3.1).
pub fn target(uri: &Uri) -> Cow<'_, str> {
    let raw = uri.path_and_query().map_or("/", |target| target.as_str());
    if raw.is_ascii() {
        return Cow::Borrowed(raw);
    }
    let mut encoded = String::with_capacity(raw.len() * 2);
    for byte in raw.bytes() {
        if byte.is_ascii() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    Cow::Owned(encoded)
}

/// Takes spaces and tabs off both ends of values: HTTP/1.1 does so by its grammar, HTTP/2 leaves them to
/// whoever reads them next (RFC 9113 8.2.1, S104).
pub fn trim(headers: &mut HeaderMap) {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    for value in headers.values_mut() {
        let bytes = value.as_bytes();
        if bytes.first().is_some_and(is_space) || bytes.last().is_some_and(is_space) {
            let trimmed = bytes.trim_ascii();
            if let Ok(trimmed) = HeaderValue::from_bytes(trimmed) {
                *value = trimmed;
            }
        }
    }
}

/// How many servers an OPTIONS may still pass (RFC 9110 7.6.2); `None` when it does not say, or not in a
/// number.
pub fn hops_left(method: &Method, headers: &HeaderMap) -> Option<u32> {
    if *method != Method::OPTIONS {
        return None;
    }
    let mut lines = headers.get_all(header::MAX_FORWARDS).iter();
    let hops = lines.next()?.to_str().ok()?;
    let is_number = hops.bytes().all(|byte| byte.is_ascii_digit());
    if is_number && lines.next().is_none() { hops.parse().ok() } else { None }
}

fn check_target(
    method: &Method,
    version: Version,
    uri: &Uri,
    limits: &Limits,
    relaxed: &Relaxed,
) -> Result<(), Malformed> {
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    if target.len() > limits.uri {
        return Err(Malformed::UriLength);
    }
    let is_web = |scheme| scheme == "https" || (scheme == "http" && version < Version::HTTP_2);
    if !uri.scheme_str().is_none_or(is_web) {
        return Err(Malformed::Target);
    }
    let is_asterisk = target == "*" && *method == Method::OPTIONS;
    let may_be_international = relaxed.has(Rule::Head(Malformed::Target));
    let may_stand = |byte: u8| (byte.is_ascii_graphic() && byte != b'#') || (byte >= 0x80 && may_be_international);
    let is_visible = target.bytes().all(may_stand);
    if is_visible && (target.starts_with('/') || is_asterisk) { Ok(()) } else { Err(Malformed::Target) }
}

fn check_framing(version: Version, headers: &HeaderMap) -> Result<(), Malformed> {
    // The library takes an empty one over HTTP/2 for 0, and the body for one of unknown length.
    let is_number = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
    if !headers.get_all(header::CONTENT_LENGTH).iter().all(is_number) {
        return Err(Malformed::ContentLength);
    }
    let is_coded = headers.contains_key(header::TRANSFER_ENCODING);
    let alone = !headers.contains_key(header::CONTENT_LENGTH) && version == Version::HTTP_11;
    if !is_coded || (alone && is_chunked_or_plain(headers)) { Ok(()) } else { Err(Malformed::TransferEncoding) }
}

/// Whether the body of a message has no transfer coding but, at most, one `chunked`: others are for
/// whoever said that it takes them, and we say so to nobody (RFC 9112 6.1, 7.4).
pub fn is_chunked_or_plain(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else { return true };
    coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none()
}

#[cfg(test)]
mod tests;
