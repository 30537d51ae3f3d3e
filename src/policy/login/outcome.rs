//! What came of an attempt: the application's answer, and that to the verifying request, judged by the
//! criteria of the rule.

use http::HeaderMap;
use http::StatusCode;
use http::header;

use crate::clock::Timestamp;
use crate::policy::login::Criteria;
use crate::policy::login::LoginRule;
use crate::policy::login::criteria;
use crate::policy::path::Target;
use crate::policy::site::Origin;

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
    pub origin: &'a Origin,
    /// Now, to tell set from deleted cookies.
    pub now: Timestamp,
}

impl Answer<'_> {
    /// Whether the body has a content coding, although we asked for none.
    pub(super) fn is_encoded(self) -> bool {
        let mut codings = self.headers.get_all(header::CONTENT_ENCODING).iter();
        codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    }

    /// Whether all that the application has to say can be read.
    pub(super) fn is_whole(self) -> bool {
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
