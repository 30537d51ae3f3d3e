//! Login watching: which requests are attempts, what their answer means, and who logged in
//! (product 3.5). All pure: the shell brings heads and bodies.

mod alias;
pub mod body;
pub mod criteria;
pub mod fields;
mod multipart;
mod outcome;
mod path_rule;
#[cfg(test)]
mod tests;
mod user;

use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::header;

use crate::policy::glob::Glob;
use crate::policy::login::body::Body;
use crate::policy::login::fields::Fields;
use crate::policy::login::fields::Met;
use crate::policy::login::fields::Place;
use crate::policy::path::Target;
use crate::policy::path::parameters;
use crate::policy::throttle::ThrottleRules;

pub use self::criteria::Criteria;
pub use self::criteria::LocationRule;
pub use self::outcome::Answer;
pub use self::outcome::Criterion;
pub use self::outcome::Outcome;
pub use self::outcome::Trial;
pub use self::outcome::judge;
pub use self::outcome::judge_verify;
pub use self::outcome::verify_target;
pub use self::path_rule::Opening;
pub use self::path_rule::PathRule;
pub use self::user::Account;
pub use self::user::account;
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
    pub page: Target,
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
    /// How many may fail.
    pub throttle: ThrottleRules,
}

impl LoginRule {
    /// Method and target match.
    pub fn matches_head(&self, method: &Method, target: &Target) -> bool {
        self.methods.contains(method) && self.path.matches(target)
    }

    /// The same but for parameters of the path, which an application may find elsewhere than in the query.
    pub fn nearly_matches_head(&self, method: &Method, target: &Target) -> bool {
        self.methods.contains(method) && self.path.matches_but_for_parameters(target)
    }

    /// How far the rule opens this request to visitors without a session.
    pub fn opens(&self, method: &Method, target: &Target) -> Opening {
        if self.methods.contains(method) { self.path.opens(target) } else { Opening::None }
    }

    /// Whether a GET or HEAD of this target is one of the rule's page: its path, and exactly its query
    /// plus our `return_param`.
    pub fn is_page(&self, target: &Target) -> bool {
        let ours = |name: &str| self.return_param.as_deref() == Some(name);
        let sent = || parameters(target.query().unwrap_or(""));
        target.is_certainly(&self.page)
            && sent().filter(|(name, _)| ours(name)).count() <= 1
            && sent().filter(|(name, _)| !ours(name)).eq(parameters(self.page.query().unwrap_or("")))
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

    /// Whether an attempt can say which account it is about.
    pub fn knows_account(&self) -> bool {
        self.user.iter().any(|source| match source {
            UserSource::Form(_)
            | UserSource::Json(_)
            | UserSource::Query(_)
            | UserSource::Basic
            | UserSource::Fixed(_) => true,
            UserSource::ResponseHeader(_)
            | UserSource::ResponseJson(_)
            | UserSource::SetCookie(_)
            | UserSource::VerifyHeader(_)
            | UserSource::VerifyJson(_) => false,
        })
    }

    /// Whether programs send name and password with every request, many at once.
    pub fn takes_basic(&self) -> bool {
        self.user.contains(&UserSource::Basic)
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
    /// The user field, or one that the rule requires, is not where the rule looks for it, but where some application
    /// finds it as well: such a login would be neither counted nor watched.
    #[error("the user field, or one that is required, is in another place or spelling than the login rule says")]
    Elsewhere,
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
    /// Whether there is nothing in which a login could be read as the rule says: from an authenticated session that is
    /// ordinary traffic, such as an upload to an application that has one path for everything.
    pub fn is_no_form(self) -> bool {
        match self {
            Self::Type | Self::Encoding | Self::Malformed | Self::Elsewhere => true,
            Self::DuplicateField | Self::Path => false,
        }
    }
}

/// Which rule, if any, this request is an attempt under: the first whose method, path and conditions
/// match and whose user field is there (rules whose name comes from the response: the conditions).
///
/// # Errors
/// When a matching rule's user field, or what makes the rule match, cannot be read without doubt; or when no rule
/// matches, and one would if it looked elsewhere.
pub fn attempt<'a>(rules: &'a [LoginRule], request: LoginRequest<'_>) -> Result<Option<Attempt<'a>>, Unreadable> {
    let (mut body, mut is_elsewhere) = (None, false);
    for (place, rule) in rules.iter().enumerate() {
        let matches = rule.matches_head(request.method, request.target);
        if !matches && !rule.nearly_matches_head(request.method, request.target) {
            continue;
        }
        if rule.needs_request_body() && body.is_none() {
            body = match Body::read(request.headers, request.body.unwrap_or_default()) {
                // No form: nothing in it contradicts the query, or is in its place.
                Err(Unreadable::Type) if !matches || !rule.is_told_by_body() => None,
                read => Some(read?),
            };
        }
        let body = body.as_ref().unwrap_or(&Body::Empty);
        match are_met(rule, &Fields::of(request.target, body))? {
            Met::Yes => {}
            Met::Elsewhere => {
                is_elsewhere |= names_somebody(rule, request, body);
                continue;
            }
            Met::No => continue,
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
    if is_elsewhere { Err(Unreadable::Elsewhere) } else { Ok(None) }
}

/// Whether a request nearly matches a rule. Where it would pass it has to be asked whether it is an attempt to some
/// application.
pub fn is_near(rules: &[LoginRule], method: &Method, target: &Target) -> bool {
    rules.iter().any(|rule| rule.nearly_matches_head(method, target))
}

/// Whether the conditions of a rule hold, those of its path included.
fn are_met(rule: &LoginRule, fields: &Fields<'_>) -> Result<Met, Unreadable> {
    let mut met = Met::Yes;
    for (name, value) in &rule.path.parameters {
        let condition = FieldCondition { name: name.clone(), value: value.clone() };
        met = met.max(fields.meets(&[Place::Query], &condition)?);
    }
    if let Some(condition) = rule.form.as_ref().filter(|_| met != Met::No) {
        met = met.max(fields.meets(&[Place::Form, Place::Json], condition)?);
    }
    Ok(met)
}

/// Whether it says who logs in, as far as the rule asks the request for that.
fn names_somebody(rule: &LoginRule, request: LoginRequest<'_>, body: &Body) -> bool {
    let typed = user::typed(rule, request, body);
    !rule.is_told_by_request() || typed.map_or(true, |typed| typed.iter().any(Option::is_some))
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
