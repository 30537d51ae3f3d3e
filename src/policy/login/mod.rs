//! Login watching: which requests are attempts, what their answer means, and who logged in
//! (product 3.5). All pure: the shell brings heads and bodies.

pub mod body;
pub mod criteria;
pub mod user;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;

use crate::policy::glob::Glob;
use crate::policy::path::Target;

pub use self::criteria::Criteria;
pub use self::criteria::LocationRule;

/// At most so many bytes of a watched request body or a judged response body are looked at.
pub const BODY_LIMIT: usize = 64 * 1024;

/// A path glob that may end in `?name=value&…`: all those decoded parameters must be present, others
/// are ignored. A path that ends in a file extension also matches below it (PATH_INFO).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// Over the normalised path.
    pub glob: Glob,
    /// Required decoded parameters.
    pub parameters: Vec<(String, String)>,
}

impl PathRule {
    /// Reads `/path` or `/path?name=value&…`.
    pub fn parse(text: &str) -> Self {
        Self { glob: Glob::new(text), parameters: Vec::new() }
    }

    /// Whether the normalised target matches.
    pub fn matches(&self, target: &Target) -> bool {
        self.glob.matches(target.path())
    }
}

/// A further condition on a request's form: field `name` is there, and has `value` if one is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldCondition {
    /// Field name.
    pub name: String,
    /// Required value.
    pub value: Option<String>,
}

/// Where the name of the user comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSource {
    /// `form:FIELD`, urlencoded or multipart.
    Form(String),
    /// `json:/POINTER` in the request (RFC 6901).
    Json(String),
    /// `query:FIELD`
    Query(String),
    /// `basic`: an `Authorization: Basic` login.
    Basic,
    /// `response-header:NAME`, stripped before the client sees it.
    ResponseHeader(HeaderName),
    /// `response-json:/POINTER`
    ResponseJson(String),
    /// `set-cookie:GLOB`: the (percent-decoded) value.
    SetCookie(Glob),
    /// `verify-header:NAME`
    VerifyHeader(HeaderName),
    /// `verify-json:/POINTER`
    VerifyJson(String),
    /// `fixed:NAME`
    Fixed(String),
}

/// `[site.login.verify]`
#[derive(Clone, Debug)]
pub struct VerifyRule {
    /// Where to ask; the response's same-origin `Location` when `None`.
    pub path: Option<String>,
    /// What the answer must satisfy.
    pub criteria: Criteria,
}

/// One `[[site.login]]`.
#[derive(Clone, Debug)]
pub struct LoginRule {
    /// Path and required parameters.
    pub path: PathRule,
    /// [POST]
    pub methods: Vec<Method>,
    /// Further condition on the form.
    pub form: Option<FieldCondition>,
    /// Path and query of the page where a browser logs in.
    pub page: String,
    /// The app's own "next" parameter.
    pub return_param: Option<String>,
    /// First source that yields a name wins.
    pub user: Vec<UserSource>,
    /// One group cuts the name out.
    pub user_match: Option<regex::Regex>,
    /// Evaluated first; any match is failure.
    pub failure: Option<Criteria>,
    /// All given keys must match.
    pub success: Option<Criteria>,
    /// For apps whose answer is the same either way.
    pub verify: Option<VerifyRule>,
}

impl LoginRule {
    /// Method and target match.
    pub fn matches_head(&self, method: &Method, target: &Target) -> bool {
        self.methods.contains(method) && self.path.matches(target)
    }

    /// Whether the request body has to be read to judge this rule.
    pub fn needs_request_body(&self) -> bool {
        self.form.is_some()
            || self.user.iter().any(|source| matches!(source, UserSource::Form(_) | UserSource::Json(_)))
    }

    /// Whether the response body has to be looked at.
    pub fn needs_response_body(&self) -> bool {
        false
    }
}

/// A request that matches a rule's method and path, with its body if that had to be read.
#[derive(Clone, Copy, Debug)]
pub struct LoginRequest<'a> {
    /// Method.
    pub method: &'a Method,
    /// Target.
    pub target: &'a Target,
    /// Headers as received.
    pub headers: &'a HeaderMap,
    /// Body; `None` when no candidate needs it.
    pub body: Option<&'a [u8]>,
}

/// A request that is an attempt to log in under one rule.
#[derive(Clone)]
pub struct Attempt<'a> {
    /// The rule.
    pub rule: &'a LoginRule,
    /// Its place in the file, from 1, for the log.
    pub number: usize,
    /// What the request says the user is called: untrusted text, never logged on failure.
    pub typed: Option<String>,
}

/// A request that could be an attempt but cannot be judged without doubt: 400, upstream not asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The user field occurs more than once (in the body, or in body and query).
    #[error("the user field occurs more than once")]
    DuplicateField,
    /// Content type, charset or content coding that we do not decode.
    #[error("the body's type, charset or coding is not one that can be read")]
    Encoding,
    /// It does not parse as what it says it is.
    #[error("the body is not what its content type says")]
    Malformed,
}

/// Which rule, if any, this request is an attempt under: the first whose method, path and conditions
/// match and whose user field is there (rules whose name comes from the response: the conditions).
///
/// # Errors
/// When a matching rule's user field cannot be read without doubt.
pub fn attempt<'a>(rules: &'a [LoginRule], request: LoginRequest<'_>) -> Result<Option<Attempt<'a>>, Unreadable> {
    let _ = (rules, request);
    Ok(None)
}

/// A response as far as a login rule looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Status.
    pub status: StatusCode,
    /// Headers as the app sent them.
    pub headers: &'a HeaderMap,
    /// The first 64 KiB of the body; `None` when it was not looked at (or is encoded).
    pub body: Option<&'a [u8]>,
    /// Whether `body` is the whole body.
    pub body_complete: bool,
    /// The request's target, against which `Location` is resolved.
    pub target: &'a Target,
    /// The site's origin, likewise.
    pub origin: &'a crate::policy::site::Origin,
    /// Now, to tell set from deleted cookies.
    pub now: crate::clock::Timestamp,
}

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The user is logged in.
    Success,
    /// The user is not.
    Failure,
    /// Nobody can tell (5xx, timeout, abort): never counts, never makes a session.
    Undetermined,
    /// The rule has `verify`: ask the app, then call [`judge_verify`].
    Ask,
}

/// One criterion and whether it matched, for the audit event: `success.status=yes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criterion {
    /// e.g. `success.status`, `failure.body_contains`, `verify.json`.
    pub name: &'static str,
    /// Whether it matched.
    pub matched: bool,
    /// What was found, short, without secrets (status code, resolved location path without query, cookie names, "encoded body").
    pub found: String,
}

/// The outcome and how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// What came of it.
    pub outcome: Outcome,
    /// Every criterion that was looked at.
    pub criteria: Vec<Criterion>,
}

/// Judges the app's answer: failure first, then success; without `status` only 2xx and 3xx can be
/// success; 5xx is undetermined unless a criterion names it.
pub fn judge(rule: &LoginRule, answer: Answer<'_>) -> Trial {
    let _ = (rule, answer);
    Trial { outcome: Outcome::Undetermined, criteria: Vec::new() }
}

/// Where to send the verifying GET: `verify.path`, or the answer's `Location` if it is same-origin.
/// Path and query.
pub fn verify_target(rule: &LoginRule, answer: Answer<'_>) -> Option<String> {
    let _ = (rule, answer);
    None
}

/// Judges the answer to the verifying GET.
pub fn judge_verify(rule: &LoginRule, answer: Answer<'_>) -> Trial {
    let _ = (rule, answer);
    Trial { outcome: Outcome::Undetermined, criteria: Vec::new() }
}

/// Who logged in: the first source that yields a name, cut out by `user_match`.
///
/// # Errors
/// When no source yields one, or what it yields is no usable name.
pub fn user(
    attempt: &Attempt<'_>,
    answer: Answer<'_>,
    verified: Option<Answer<'_>>,
) -> Result<crate::policy::session::UserName, NoUser> {
    let _ = (attempt, answer, verified);
    Err(NoUser::Missing)
}

/// Why a successful login has no usable name: 502 (product 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoUser {
    /// No source yields one.
    #[error("no source of `user` yields a name")]
    Missing,
    /// `user_match` does not match it.
    #[error("`user_match` does not match the name")]
    NoMatch,
    /// It is no usable name.
    #[error("the name is not usable")]
    Bad(#[from] crate::policy::session::BadUserName),
}

/// x
pub fn awaits_cookie(_: &[LoginRule], _: &str) -> bool {
    false
}
impl LoginRule {
    /// x
    pub fn needs_verify_body(&self) -> bool {
        false
    }
    /// x
    pub fn marker_headers(&self) -> impl Iterator<Item = &HeaderName> {
        [].into_iter()
    }
}
