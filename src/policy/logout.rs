//! Which requests end a session (product 3.6).

use http::HeaderMap;
use http::Method;
use http::header::HeaderName;

use crate::policy::login::FieldCondition;
use crate::policy::login::PathRule;
use crate::policy::path::Target;

/// One `[[site.logout]]`.
#[derive(Clone, Debug)]
pub struct LogoutRule {
    /// Path and required parameters.
    pub path: PathRule,
    /// Any when empty.
    pub methods: Vec<Method>,
    /// A form field that must be there.
    pub form: Option<FieldCondition>,
    /// Where to send the browser when the app gives no answer; the login page when `None`.
    pub landing: Option<String>,
    /// Directives of `Clear-Site-Data`, e.g. `storage`.
    pub clear_site_data: Vec<String>,
    /// Response header by which the app ends a session.
    pub end_header: Option<HeaderName>,
}

/// What is known of a request before its body was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutMatch<'a> {
    /// No rule can match.
    No,
    /// A rule matches.
    Yes(&'a LogoutRule),
    /// Depends on a form field: read the body, then ask [`by_form`].
    NeedsBody,
}

/// Judges method and target.
pub fn by_head<'a>(rules: &'a [LogoutRule], method: &Method, target: &Target) -> LogoutMatch<'a> {
    let _ = (rules, method, target);
    LogoutMatch::No
}

/// Judges with the body: the first rule whose conditions all hold. A body that cannot be decoded
/// matches no `form` rule.
pub fn by_form<'a>(
    rules: &'a [LogoutRule],
    method: &Method,
    target: &Target,
    headers: &HeaderMap,
    body: &[u8],
) -> Option<&'a LogoutRule> {
    let _ = (rules, method, target, headers, body);
    None
}

impl PartialEq for LogoutRule {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for LogoutRule {}
