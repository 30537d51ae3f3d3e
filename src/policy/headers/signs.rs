//! What the names of an answer's fields show.

use http::HeaderMap;
use http::HeaderName;
use http::header;

pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Which fields an answer has that something is done about, found in one look at all of them: to ask a map for one
/// that is not there costs as much as to find it. What is added later is not seen. That is why cookies are none of
/// them: the answer to a login is given those of another answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// There is a `Connection`.
    pub options: bool,
    /// There is a `Keep-Alive`.
    pub keeps_alive: bool,
    /// There is a `Transfer-Encoding`.
    pub coding: bool,
    /// There is a `Content-Length`.
    pub length: bool,
    /// There is a `Location` or `Content-Location`.
    pub location: bool,
}

impl Signs {
    /// Of these fields.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut signs = Self::default();
        for name in headers.keys() {
            signs.options |= *name == header::CONNECTION;
            signs.keeps_alive |= *name == KEEP_ALIVE;
            signs.coding |= *name == header::TRANSFER_ENCODING;
            signs.length |= *name == header::CONTENT_LENGTH;
            signs.location |= *name == header::LOCATION || *name == header::CONTENT_LOCATION;
        }
        signs
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    const NAMES: [&str; 9] = [
        "connection",
        "keep-alive",
        "transfer-encoding",
        "content-length",
        "location",
        "content-location",
        "content-type",
        "x-own",
        "te",
    ];

    proptest! {
        #[test]
        fn it_sees_what_the_map_has(names in prop::collection::vec(select(&NAMES), 0..12)) {
            let mut headers = HeaderMap::new();
            for name in names {
                headers.append(name, HeaderValue::from_static("value"));
            }
            let has = |name: &str| headers.contains_key(name);
            prop_assert_eq!(Signs::of(&headers), Signs {
                options: has("connection"),
                keeps_alive: has("keep-alive"),
                coding: has("transfer-encoding"),
                length: has("content-length"),
                location: has("location") || has("content-location"),
            });
        }
    }
}
