//! Cross-site requests: Fetch Metadata, then `Origin`, then `Referer` (S136-S142, S119).

use http::HeaderMap;
use http::Method;

use crate::policy::glob::PathPattern;
use crate::policy::path::Target;
use crate::policy::site::Origin;

/// What the filter does with what it finds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CsrfMode {
    /// Refuse with 403.
    #[default]
    Enforce,
    /// Log only.
    Report,
    /// Do not look.
    Off,
}

/// `[csrf]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsrfRules {
    /// What the filter does.
    pub mode: CsrfMode,
    /// Whether a credentialed unsafe request without any of the three labels passes.
    pub allow_unlabelled: bool,
    /// Exceptions, such as webhooks.
    pub exempt: Vec<PathPattern>,
}

/// What the filter needs to know about a request.
#[derive(Clone, Copy, Debug)]
pub struct CsrfFacts<'a> {
    /// Request method.
    pub method: &'a Method,
    /// Request target.
    pub target: &'a Target,
    /// All request headers as received.
    pub headers: &'a HeaderMap,
    /// The site's configured origin.
    pub origin: &'a Origin,
    /// Whether it matches a login or logout rule: those are filtered in any method.
    pub login_or_logout: bool,
    /// Whether it presents a TLS client certificate.
    pub client_certificate: bool,
}

/// Why a request counts as cross-site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrossSite {
    /// `Sec-Fetch-Site` says so.
    FetchSite,
    /// `Origin` is another.
    Origin,
    /// `Referer` is from elsewhere.
    Referer,
    /// None of the three is there.
    Unlabelled,
}

/// `None`: the request may pass. The mode is applied by the caller.
pub fn judge(rules: &CsrfRules, facts: CsrfFacts<'_>) -> Option<CrossSite> {
    let _ = (rules, facts);
    None
}

/// Whether the `Origin` of an upgrade is the site's own; an absent one is fine only for clients
/// without cookies and Fetch Metadata (S119).
pub fn upgrade_origin_allowed(headers: &HeaderMap, origin: &Origin) -> bool {
    let _ = (headers, origin);
    true
}

/// What kind of request the browser says this is; decides between a redirect and a 401 (VR-07).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {
    /// A page load.
    Navigation,
    /// `fetch`/XHR, same-origin, or without Fetch Metadata and no navigation.
    Fetch,
    /// An image, style, script, font, frame resource or anything else.
    Subresource,
}

/// `Sec-Fetch-Mode: navigate`; without Fetch Metadata `Accept` has `text/html` and there is no
/// `X-Requested-With`. `Fetch` is a same-origin `Sec-Fetch-Dest: empty`, or no Fetch Metadata.
pub fn kind(headers: &HeaderMap) -> RequestKind {
    let _ = headers;
    RequestKind::Navigation
}
