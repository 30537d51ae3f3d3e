//! Cookies on the wire: reading `Cookie`, reading the application's `Set-Cookie` as RFC 6265bis
//! says browsers do, and writing our own.

mod date;
mod own;
pub(in crate::policy) mod set;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::header::COOKIE;
use memchr::memchr;

pub use date::cookie_date;
pub use own::Presented;
pub use own::SessionCookie;
pub use own::Taken;
pub use set::MAX_PAIR;
pub use set::SameSite;
pub use set::SetCookie;

/// One `name=value` of a `Cookie` header, as bytes (VR-61): only SP and HTAB are trimmed. A pair
/// without `=` has an empty name, as in browsers.
#[derive(Clone, PartialEq, Eq)]
pub struct CookiePair {
    /// The name.
    pub name: Bytes,
    /// The value, quotes included.
    pub value: Bytes,
}

impl CookiePair {
    /// Name and value.
    pub fn parts(&self) -> (&[u8], &[u8]) {
        (&self.name, &self.value)
    }
}

/// Cookie values are credentials more often than not: only the name is shown.
impl std::fmt::Debug for CookiePair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CookiePair({})", String::from_utf8_lossy(&self.name))
    }
}

/// All pairs of all `Cookie` fields in order (HTTP/2 crumbs included), empty pairs skipped. Never
/// fails, whatever is in there (S15, VR-38).
pub fn pairs(headers: &HeaderMap) -> Vec<CookiePair> {
    let lines = headers.get_all(COOKIE);
    // Over HTTP/2 each pair may have a line of its own. One piece of memory is taken for all.
    let mut all = BytesMut::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
    for line in lines {
        all.extend_from_slice(line.as_bytes());
        all.extend_from_slice(b";");
    }
    let mut pairs = Vec::new();
    read_line(&all.freeze(), &mut pairs);
    pairs
}

/// Adds the pairs of a `Cookie` field value, or of several with `;` between, which may be any bytes at all. The pairs
/// share the memory of `line`.
pub fn read_line(line: &Bytes, pairs: &mut Vec<CookiePair>) {
    let mut rest = &line[..];
    while !rest.is_empty() {
        let end = memchr(b';', rest).unwrap_or(rest.len());
        let part = trim(&rest[..end]);
        rest = rest.get(end + 1..).unwrap_or_default();
        if part.is_empty() {
            continue;
        }
        // `=value` is nameless as well; it keeps its `=`, so that `join` gives back what came.
        let pair = match split_at_equals(part) {
            Some((name, value)) if !name.is_empty() => {
                CookiePair { name: line.slice_ref(name), value: line.slice_ref(value) }
            }
            Some(_) | None => CookiePair { name: Bytes::new(), value: line.slice_ref(part) },
        };
        pairs.push(pair);
    }
}

/// The `Cookie` value made of these pairs, joined with `; `; `None` when there are none (VR-05).
pub fn join<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Option<HeaderValue> {
    let length = pairs.clone().map(|(name, value)| name.len() + value.len() + 3).reduce(|sum, length| sum + length)?;
    let mut line = BytesMut::with_capacity(length);
    for (index, (name, value)) in pairs.enumerate() {
        if index > 0 {
            line.extend_from_slice(b"; ");
        }
        if !name.is_empty() {
            line.extend_from_slice(name);
            line.extend_from_slice(b"=");
        }
        line.extend_from_slice(value);
    }
    // Pairs come from header values or from the vault, which was filled from header values.
    HeaderValue::from_maybe_shared(line.freeze()).ok()
}

/// `Set-Cookie` values that expire an application's cookie in the browser. What path it was set with
/// nobody can tell from a `Cookie` header, so each path that matches the request is covered, `/`
/// and the shallow ones first, eight at most. Empty for a nameless cookie: it cannot be addressed.
pub fn expire_in_browser(name: &[u8], request_path: &str) -> Vec<HeaderValue> {
    if name.is_empty() {
        return Vec::new();
    }
    matching_paths(request_path).filter_map(|path| deletion(name, path)).take(MAX_DELETIONS).collect()
}

const MAX_DELETIONS: usize = 8;

/// Every `Path` by which a browser would send a cookie with a request for this path: `/app` and
/// `/app/` are different cookies.
fn matching_paths(request_path: &str) -> impl Iterator<Item = &str> {
    // A `;` would end the attribute and let the request write others.
    let safe = request_path.bytes().position(|byte| byte == b';' || !byte.is_ascii_graphic());
    let until = safe.unwrap_or(request_path.len()).min(set::MAX_ATTRIBUTE);
    let slashes = request_path.bytes().enumerate().skip(1).filter(|(_, byte)| *byte == b'/').map(|(at, _)| at);
    let ends = slashes.flat_map(|at| [at, at + 1]).take_while(move |end| *end <= until);
    std::iter::once("/").chain(ends.filter_map(|end| request_path.get(..end)))
}

fn deletion(name: &[u8], path: &str) -> Option<HeaderValue> {
    let parts = [
        name,
        b"=; Path=".as_slice(),
        path.as_bytes(),
        b"; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure".as_slice(),
    ];
    HeaderValue::from_maybe_shared(Bytes::from(parts.concat())).ok()
}

/// Without leading and trailing SP and HTAB, and nothing else: no Unicode white space (VR-61).
fn trim(bytes: &[u8]) -> &[u8] {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(first) = bytes.iter().position(is_text) else {
        return &[];
    };
    let last = bytes.iter().rposition(is_text).unwrap_or(first);
    &bytes[first..=last]
}

/// Name and value around the first `=`, both trimmed.
fn split_at_equals(part: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr(b'=', part)?;
    Some((trim(&part[..at]), trim(&part[at + 1..])))
}

#[cfg(test)]
mod set_tests;
#[cfg(test)]
mod tests;
