//! What an answer must look like: the keys of `success`, `failure` and `verify`.

use http::HeaderName;
use http::StatusCode;

use crate::policy::glob::Glob;

/// A glob over a resolved `Location`: a path glob (same origin only), or with a full URL in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocationRule {
    /// Over path (and query, when it contains `?`) of a same-origin location; over the whole URL
    /// when it begins with `http://` or `https://`.
    pub glob: Glob,
}

/// All given keys; a list within one key is "any of".
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Criteria {
    /// Any of these.
    pub status: Vec<StatusCode>,
    /// Any of these globs matches the resolved `Location`.
    pub location: Vec<LocationRule>,
    /// None of these globs matches; there must be a `Location`, and a same-origin one.
    pub location_not: Vec<LocationRule>,
    /// Header present, with this value (glob) if one is given.
    pub header: Vec<(HeaderName, Option<Glob>)>,
    /// Cookie names (globs) that must be set, not deleted: each of them.
    pub set_cookie: Vec<Glob>,
    /// Any of these texts is in the first 64 KiB.
    pub body_contains: Vec<String>,
    /// None of these texts is in the whole body.
    pub body_omits: Vec<String>,
    /// JSON pointer and value; without a value it only has to be there and not be null or false.
    pub json: Vec<(String, Option<serde_json::Value>)>,
}
