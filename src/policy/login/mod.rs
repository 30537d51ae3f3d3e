//! Login watching: which requests are attempts, what their answer means, and who logged in
//! (product 3.5). All pure: the shell brings heads and bodies.

mod alias;
pub mod body;
pub mod criteria;
pub mod fields;
mod multipart;
mod path_rule;
#[cfg(test)]
mod tests;
mod user;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::StatusCode;
use http::header;

use crate::policy::glob::Glob;
use crate::policy::login::body::Body;
use crate::policy::login::fields::Fields;
use crate::policy::login::fields::Place;
use crate::policy::path::Target;
use crate::policy::path::parameters;

pub use self::criteria::Criteria;
pub use self::criteria::LocationRule;
pub use self::path_rule::Opening;
pub use self::path_rule::PathRule;
pub use self::user::user;

/// At most so many bytes of a watched request body or a judged response body are looked at.
pub const BODY_LIMIT: usize = 64 * 1024;

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
    /// Methods of the login request (default POST).
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

    /// How far the rule opens this request to visitors without a session.
    pub fn opens(&self, method: &Method, target: &Target) -> Opening {
        if self.methods.contains(method) { self.path.opens(target) } else { Opening::None }
    }

    /// Whether a GET or HEAD of this target is one of the rule's page: its path, and exactly its query
    /// plus our `return_param`.
    pub fn is_page(&self, target: &Target) -> bool {
        let page = Target::parse(&self.page, target.case());
        let ours = |name: &str| self.return_param.as_deref() == Some(name);
        let sent = || parameters(target.query().unwrap_or(""));
        target.is_certainly(&page)
            && sent().filter(|(name, _)| ours(name)).count() <= 1
            && sent().filter(|(name, _)| !ours(name)).eq(parameters(page.query().unwrap_or("")))
    }

    /// Whether a request without body, which matches method and path, can be an attempt.
    pub fn is_met_by_head(&self, target: &Target, headers: &HeaderMap) -> bool {
        let fields = Fields::of(target, &Body::Empty);
        self.form.as_ref().is_none_or(|condition| fields.is_in_query(&condition.name))
            && self.user.iter().any(|source| match source {
                // Some applications take a field of the query for one of the form.
                UserSource::Form(field) | UserSource::Query(field) => fields.is_in_query(field),
                UserSource::Json(pointer) => fields.is_in_query(&user::parameter_of(pointer)),
                UserSource::Basic => headers.contains_key(header::AUTHORIZATION),
                UserSource::ResponseHeader(_)
                | UserSource::ResponseJson(_)
                | UserSource::SetCookie(_)
                | UserSource::VerifyHeader(_)
                | UserSource::VerifyJson(_)
                | UserSource::Fixed(_) => true,
            })
    }

    /// Whether the request body has to be read to judge this rule: for what it says, or for whether it
    /// contradicts the query.
    pub fn needs_request_body(&self) -> bool {
        let asks_query = self.user.iter().any(|source| matches!(source, UserSource::Query(_)));
        self.is_told_by_body() || asks_query || !self.path.parameters.is_empty()
    }

    /// Whether something about the rule stands in the request body.
    fn is_told_by_body(&self) -> bool {
        self.form.is_some()
            || self.user.iter().any(|source| matches!(source, UserSource::Form(_) | UserSource::Json(_)))
    }

    /// Whether the response body has to be looked at.
    pub fn needs_response_body(&self) -> bool {
        let criteria = [&self.failure, &self.success].into_iter().flatten().any(Criteria::needs_body);
        criteria || self.user.iter().any(|source| matches!(source, UserSource::ResponseJson(_)))
    }

    /// Whether the body of the verifying answer has to be looked at.
    pub fn needs_verify_body(&self) -> bool {
        self.verify.as_ref().is_some_and(|verify| verify.criteria.needs_body())
            || self.user.iter().any(|source| matches!(source, UserSource::VerifyJson(_)))
    }

    /// Response headers that only tell us who logged in: no client gets to see them (S29).
    pub fn marker_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.user.iter().filter_map(|source| match source {
            UserSource::ResponseHeader(name) | UserSource::VerifyHeader(name) => Some(name),
            UserSource::Form(_)
            | UserSource::Json(_)
            | UserSource::Query(_)
            | UserSource::Basic
            | UserSource::ResponseJson(_)
            | UserSource::SetCookie(_)
            | UserSource::VerifyJson(_)
            | UserSource::Fixed(_) => None,
        })
    }

    /// Whether only the request can say who logs in: then its user field must be there.
    fn is_told_by_request(&self) -> bool {
        self.user.iter().all(|source| {
            matches!(source, UserSource::Form(_) | UserSource::Json(_) | UserSource::Query(_) | UserSource::Basic)
        })
    }
}

/// Whether some rule waits for a cookie of this name: set elsewhere, it means a login that nobody watches.
pub fn awaits_cookie(rules: &[LoginRule], name: &str) -> bool {
    let named = |criteria: &Criteria| criteria.set_cookie.iter().any(|glob| glob.matches(name));
    rules.iter().any(|rule| rule.success.as_ref().is_some_and(named))
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
pub struct Attempt<'a> {
    /// The rule.
    pub rule: &'a LoginRule,
    /// Its place in the file, from 1, for the log.
    pub number: usize,
    /// What the request says the user is called, per source: untrusted text, never logged on failure.
    typed: Vec<Option<String>>,
}

/// A request that could be an attempt but cannot be judged without doubt: 400, upstream not asked. Only
/// an authenticated session may send what is merely [not readable](Self::is_no_form).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The user field, or one that the rule requires, occurs more than once: in the body, in body and
    /// query, or under names that applications take for one another.
    #[error("the user field, or one that the login rule requires, occurs more than once")]
    DuplicateField,
    /// A path that not every application takes for that of the rule: the answer may be that of
    /// something else, and mean nothing about a login.
    #[error("the path can be read as another than that of the login rule")]
    Path,
    /// Content type that we do not read.
    #[error("the body's type is not one that can be read")]
    Type,
    /// Charset or content coding that we do not decode.
    #[error("the body's charset or coding is not one that can be read")]
    Encoding,
    /// It does not parse as what it says it is.
    #[error("the body is not what its content type says")]
    Malformed,
}

impl Unreadable {
    /// Whether the body is none in which a login could be read: from an authenticated session that is
    /// ordinary traffic, such as an upload to an application that has one path for everything.
    pub fn is_no_form(self) -> bool {
        match self {
            Self::Type | Self::Encoding | Self::Malformed => true,
            Self::DuplicateField | Self::Path => false,
        }
    }
}

/// Which rule, if any, this request is an attempt under: the first whose method, path and conditions
/// match and whose user field is there (rules whose name comes from the response: the conditions).
///
/// # Errors
/// When a matching rule's user field, or what makes the rule match, cannot be read without doubt.
pub fn attempt<'a>(rules: &'a [LoginRule], request: LoginRequest<'_>) -> Result<Option<Attempt<'a>>, Unreadable> {
    let mut body = None;
    for (place, rule) in rules.iter().enumerate() {
        if !rule.matches_head(request.method, request.target) {
            continue;
        }
        if rule.needs_request_body() && body.is_none() {
            body = match Body::read(request.headers, request.body.unwrap_or_default()) {
                // No form: nothing in it contradicts the query.
                Err(Unreadable::Type) if !rule.is_told_by_body() => None,
                read => Some(read?),
            };
        }
        let body = body.as_ref().unwrap_or(&Body::Empty);
        if !are_met(rule, &Fields::of(request.target, body))? {
            continue;
        }
        let typed = user::typed(rule, request, body)?;
        if rule.is_told_by_request() && typed.iter().all(Option::is_none) {
            continue;
        }
        if rule.opens(request.method, request.target) == Opening::None {
            return Err(Unreadable::Path);
        }
        return Ok(Some(Attempt { rule, number: place + 1, typed }));
    }
    Ok(None)
}

/// Whether the conditions of a rule hold, those of its path included.
fn are_met(rule: &LoginRule, fields: &Fields<'_>) -> Result<bool, Unreadable> {
    for (name, value) in &rule.path.parameters {
        let condition = FieldCondition { name: name.clone(), value: value.clone() };
        if !fields.meets(&[Place::Query], &condition)? {
            return Ok(false);
        }
    }
    match &rule.form {
        Some(condition) => fields.meets(&[Place::Form, Place::Json], condition),
        None => Ok(true),
    }
}

/// A response as far as a login rule looks at it.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Status.
    pub status: StatusCode,
    /// Headers as the app sent them.
    pub headers: &'a HeaderMap,
    /// The first 64 KiB of the body; `None` when it was not looked at.
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

impl Answer<'_> {
    /// Whether the body has a content coding, although we asked for none.
    fn is_encoded(self) -> bool {
        let mut codings = self.headers.get_all(header::CONTENT_ENCODING).iter();
        codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// Whether all that the application has to say can be read.
    fn is_whole(self) -> bool {
        self.body_complete && self.status != StatusCode::PARTIAL_CONTENT && !self.is_encoded()
    }
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
    pub name: String,
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

impl Trial {
    /// No answer, or none that tells anything.
    pub fn broken_off() -> Self {
        let criteria = vec![Criterion { name: "answer".into(), matched: false, found: "none".into() }];
        Self { outcome: Outcome::Undetermined, criteria }
    }

    /// What the verifying answer adds; `None` when there is none.
    pub fn add(&mut self, verified: Option<Self>) {
        let Self { outcome, criteria } = verified.unwrap_or_else(|| {
            let found = "nothing to ask for, or no answer".into();
            let criterion = Criterion { name: "verify.answer".into(), matched: false, found };
            Self { outcome: Outcome::Undetermined, criteria: vec![criterion] }
        });
        self.outcome = outcome;
        self.criteria.extend(criteria);
    }

    /// Without `status` among the criteria, what the status alone decides is noted as well.
    fn note_status(&mut self, table: &str, answer: Answer<'_>) {
        let found = answer.status.as_str().to_owned();
        self.criteria.push(Criterion { name: format!("{table}.status"), matched: false, found });
    }
}

/// Judges the app's answer: failure first, then success; without `status` only 2xx and 3xx can be
/// success; 5xx is undetermined unless a criterion names it. So is a success whose body could not be
/// searched for what means failure: it may stand where nobody looked, behind what the client sent.
pub fn judge(rule: &LoginRule, answer: Answer<'_>) -> Trial {
    let mut criteria = Vec::new();
    let failed = rule.failure.as_ref().is_some_and(|failure| criteria::any(failure, "failure", answer, &mut criteria));
    if failed {
        return Trial { outcome: Outcome::Failure, criteria };
    }
    let names_status = rule.success.as_ref().is_some_and(|success| success.status.contains(&answer.status));
    if answer.status.is_server_error() && !names_status {
        let mut trial = Trial { outcome: Outcome::Undetermined, criteria };
        trial.note_status("success", answer);
        return trial;
    }
    let wanted = rule.success.as_ref();
    let can_be = wanted.is_some_and(|success| !success.status.is_empty())
        || answer.status.is_success()
        || answer.status.is_redirection();
    let met = wanted.is_none_or(|success| criteria::all(success, "success", answer, &mut criteria));
    let is_hidden = rule.failure.as_ref().is_some_and(Criteria::needs_body) && !answer.is_whole();
    let outcome = match (met && can_be, &rule.verify) {
        (true, _) if is_hidden => Outcome::Undetermined,
        (true, Some(_)) => Outcome::Ask,
        (true, None) => Outcome::Success,
        (false, _) => Outcome::Failure,
    };
    let mut trial = Trial { outcome, criteria };
    if !can_be {
        trial.note_status("success", answer);
    }
    trial
}

/// Where to send the verifying GET: `verify.path`, or the answer's `Location` if it is same-origin.
/// Path and query.
pub fn verify_target(rule: &LoginRule, answer: Answer<'_>) -> Option<String> {
    match rule.verify.as_ref()?.path.as_ref() {
        Some(path) => Some(path.clone()),
        None => criteria::location(answer).filter(|location| location.same_origin).map(|location| location.target()),
    }
}

/// Judges the answer to the verifying GET. Without criteria, or without `status`, only 2xx is success;
/// without any criteria not even that, if everyone gets this page.
pub fn judge_verify(rule: &LoginRule, answer: Answer<'_>, is_for_everyone: bool) -> Trial {
    let mut trial = Trial { outcome: Outcome::Failure, criteria: Vec::new() };
    let Some(verify) = &rule.verify else { return trial };
    let wanted = &verify.criteria;
    let can_be = !wanted.status.is_empty() || answer.status.is_success();
    if answer.status.is_server_error() && !wanted.status.contains(&answer.status) {
        trial.outcome = Outcome::Undetermined;
    } else if is_for_everyone && wanted.is_empty() && can_be {
        let found = "a page for everyone, and no criteria".into();
        trial.criteria.push(Criterion { name: "verify.path".into(), matched: false, found });
        trial.outcome = Outcome::Undetermined;
        return trial;
    } else if criteria::all(wanted, "verify", answer, &mut trial.criteria) && can_be {
        trial.outcome = Outcome::Success;
    }
    if !can_be || trial.outcome == Outcome::Undetermined {
        trial.note_status("verify", answer);
    }
    trial
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
