//! Messages that could be read in two ways are refused before anything else looks at them
//! (S76-S92, S103-S108).

use http::HeaderMap;
use http::Method;
use http::Uri;
use http::Version;

/// The rule a message broke. Its name is what an operator finds in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// No `Host`, several, or an invalid one (RFC 9112 3.2, S76).
    #[error("host")]
    Host,
    /// `Host` differs from the authority of the target (S78, S106).
    #[error("authority")]
    Authority,
    /// Anything but exactly one `chunked` (S79, S80).
    #[error("transfer-encoding")]
    TransferEncoding,
    /// The target has characters that may not occur in one (S91, S107).
    #[error("target")]
    Target,
    /// `TRACE`, `CONNECT` or a method that is no known token (S88, S92).
    #[error("method")]
    Method,
    /// Too many header fields (S170).
    #[error("header-count")]
    HeaderCount,
    /// Header section too large (S170).
    #[error("header-bytes")]
    HeaderBytes,
    /// Target too long (S170).
    #[error("uri")]
    UriLength,
}

/// The authority the request is for: lower case, without default port or trailing dot.
///
/// # Errors
/// When the message is ambiguous about its host.
pub fn authority(version: Version, uri: &Uri, headers: &HeaderMap) -> Result<String, Malformed> {
    let _ = (version, uri, headers);
    Err(Malformed::Host)
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
    limits: &crate::policy::site::Limits,
) -> Result<(), Malformed> {
    let _ = (method, version, uri, headers, limits);
    Ok(())
}

impl Malformed {
    /// x
    pub fn status(self) -> http::StatusCode {
        http::StatusCode::BAD_REQUEST
    }
}
