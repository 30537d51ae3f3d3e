//! What happened, as a closed list of events. Each has a name, a level, and only fields that may be
//! written down.

use std::error::Error;
use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::Method;
use http::StatusCode;

use crate::policy::binding::Mismatch;
use crate::policy::csrf::CrossSite;
use crate::policy::dbsc::Lack;
use crate::policy::login::Criterion;
use crate::policy::login::Outcome;
use crate::policy::relax::Rule;
use crate::policy::session::EndReason;
use crate::policy::session::UserName;
use crate::store::StoreError;
use crate::telemetry::Context;
use crate::telemetry::DeviceEvent;
use crate::telemetry::device;

/// An error and all its causes on one line.
pub struct ErrorChain<'a>(pub &'a dyn Error);

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// Why a presented session was not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedSession {
    /// No ID, or several.
    Malformed,
    /// Ended by login or logout a moment ago.
    Ended,
    /// Not known (any more).
    Unknown,
    /// Past a limit.
    Expired(EndReason),
    /// Another client.
    Binding,
    /// Bound to a device that it was not shown to come from.
    Device(Lack),
    /// The same of a page load that is tried again: honest browsers come here from other sites.
    DeviceForNow(Lack),
    /// Issued by another site.
    Foreign,
}

impl RefusedSession {
    /// The word used in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Ended => "ended",
            Self::Unknown => "unknown",
            Self::Expired(reason) => reason.as_str(),
            Self::Binding => "binding",
            Self::Device(_) | Self::DeviceForNow(_) => "device",
            Self::Foreign => "foreign",
        }
    }
}

/// Who needs what is not public.
#[derive(Clone, Copy, Debug)]
pub enum Hint {
    /// The login page, for its assets.
    LoginPage,
    /// Those whose login failed, to learn why.
    FailurePage,
}

/// What attempts to log in are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// An account, from one address.
    Account,
    /// An account, from everywhere.
    Ceiling,
    /// An address, whatever the account.
    Address,
}

impl Counting {
    fn as_str(self) -> &'static str {
        match self {
            Self::Account => "account and address",
            Self::Ceiling => "account",
            Self::Address => "address",
        }
    }
}

/// Why a cookie of the application was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It has our cookie's name.
    Reserved,
    /// No session may be begun for the request.
    NoSession,
    /// Browsers would not take it either.
    Refused,
    /// The vault has no room.
    Full,
}

impl Dropped {
    fn help(self) -> &'static str {
        match self {
            Self::Reserved => "it has the name of the session cookie: choose another with `cookie` in [session]",
            Self::NoSession => {
                "the application set it where no session can be begun: with an image, a script or the like"
            }
            Self::Refused => {
                "browsers would not take it: a Domain that is not the site's, a prefix without what it needs, more than 4096 bytes"
            }
            Self::Full => "a session keeps at most 32 KiB of cookies, and this one was not used for longest",
        }
    }
}

/// What happened.
pub enum Audit<'a> {
    /// An anonymous session began.
    SessionCreated,
    /// A login began a session.
    SessionAuthenticated,
    /// A successor was minted.
    SessionRotated,
    /// A session ended.
    SessionEnded {
        /// Why.
        reason: EndReason,
    },
    /// A presented session was not used.
    SessionRefused {
        /// Why.
        reason: RefusedSession,
    },
    /// An ID was presented that had retired: somebody has a copy of it.
    SessionReused {
        /// The client that was handed the newest one, or presented it.
        holder: IpAddr,
        /// What differs between the two clients.
        changed: &'a [&'static str],
    },
    /// The same new ID was handed to two clients.
    SessionShared {
        /// The first of them.
        holder: IpAddr,
        /// What differs between them.
        changed: &'a [&'static str],
    },
    /// Many presented IDs are no sessions.
    SessionGuessing {
        /// How many were taken for bad luck.
        count: usize,
    },
    /// Something about the client differs from when the session began.
    BindingSignal {
        /// What.
        mismatch: Mismatch,
    },
    /// Something about device-bound sessions.
    Device(DeviceEvent<'a>),
    /// Someone tried to log in.
    LoginAttempt {
        /// Place of the rule in the file, from 1.
        rule: usize,
        /// What came of it.
        outcome: Outcome,
        /// Every criterion with its verdict.
        criteria: &'a [Criterion],
        /// Who, only on success.
        user: Option<&'a UserName>,
    },
    /// Somebody may not try to log in yet.
    LoginThrottled {
        /// Place of the rule in the file, from 1.
        rule: usize,
        /// What there were too many failures of.
        per: Counting,
        /// How long the client is told to wait.
        wait: Duration,
    },
    /// So many logins failed that the next one has to wait.
    LoginCooldown {
        /// Place of the rule in the file, from 1.
        rule: usize,
        /// What there were too many failures of.
        per: Counting,
        /// How long.
        wait: Duration,
    },
    /// A session cookie that a rule waits for was set where no rule watches.
    LoginUnwatched {
        /// Its name.
        cookie: &'a str,
    },
    /// The application redirects its own login page in a circle.
    LoginLoop {
        /// Names of the cookies that were removed.
        cookies: &'a [String],
        /// The path it redirects to.
        to: &'a str,
    },
    /// Another user logged in within a session.
    UserSwitch {
        /// Before.
        from: &'a str,
        /// After.
        to: &'a str,
    },
    /// The application was told of a logout.
    LogoutForwarded {
        /// What it said.
        status: StatusCode,
    },
    /// The application's `end_header` has a value that means nothing.
    EndMisread,
    /// A cross-site request.
    CsrfRefused {
        /// What gave it away.
        reason: CrossSite,
        /// Whether it was refused, or only reported.
        enforced: bool,
        /// Its method.
        method: &'a Method,
        /// Its path.
        path: &'a str,
    },
    /// An administrator ended sessions.
    AdminRevoked {
        /// Who.
        actor: &'a str,
        /// Whose sessions: of one handle, of a user, all.
        scope: &'a str,
        /// How many there were.
        count: usize,
    },
    /// Somebody with a wrong token.
    AdminRefused,
    /// A closed path.
    AccessDenied {
        /// Which.
        path: &'a str,
    },
    /// A login page sends a form where no rule watches.
    LoginElsewhere {
        /// Where.
        path: &'a str,
    },
    /// Something that those need who are not logged in is not public.
    PublicHint {
        /// Where the request went.
        path: &'a str,
        /// What would open it.
        pattern: &'a str,
        /// Who needs it.
        hint: Hint,
    },
    /// A cookie of the application that could not be kept.
    CookieDropped {
        /// Its name.
        name: &'a str,
        /// Why.
        reason: Dropped,
    },
    /// The client's fault.
    RequestRefused {
        /// What was wrong.
        error: &'a dyn Error,
        /// The rule about messages that it broke.
        rule: Option<Rule>,
    },
    /// A rule took a header field out of a request that went on.
    HeaderDropped {
        /// Its name.
        name: &'a str,
        /// The rule.
        rule: Rule,
    },
    /// The application's fault, or that of the way to it.
    ExchangeFailed {
        /// What was wrong.
        error: &'a dyn Error,
        /// The rule about messages that the answer broke.
        rule: Option<Rule>,
    },
    /// Our own fault.
    InternalFailure {
        /// What was wrong.
        error: &'a dyn Error,
    },
    /// The application's answer broke off after its head was passed on.
    AnswerBroken {
        /// Which upstream.
        upstream: &'a str,
        /// How.
        error: &'a dyn Error,
    },
    /// A client took nothing of its answer for the `body_idle` timeout.
    ClientStalled,
    /// One of several upstreams cannot be connected to; others are asked instead.
    UpstreamDown {
        /// Which, and why.
        error: &'a dyn Error,
    },
    /// It answers again.
    UpstreamUp {
        /// Which.
        upstream: &'a str,
    },
    /// The store could not answer.
    StoreFailed {
        /// Why.
        error: &'a StoreError,
    },
    /// A new configuration is in force.
    ConfigReloaded {
        /// Its file.
        path: &'a Path,
    },
    /// A new configuration was refused, the old one stays.
    ConfigRefused {
        /// Its file.
        path: &'a Path,
        /// What is wrong with it.
        error: &'a dyn Error,
    },
    /// A new certificate serves new connections.
    CertificateReloaded {
        /// Its file.
        path: &'a Path,
    },
    /// A new certificate was refused, the old one stays.
    CertificateRefused {
        /// Its file.
        path: &'a Path,
        /// What is wrong with it.
        error: &'a dyn Error,
    },
}

/// One event with what all events of a request have.
macro_rules! emit {
    ($level:ident, $context:ident, $event:literal $(, $field:ident = $value:expr)*) => {
        tracing::$level!(
            event = $event,
            request_id = $context.request_id.map(tracing::field::display),
            site = $context.site.as_deref(),
            client = $context.client.map(tracing::field::display),
            session = $context.session_ref.as_deref(),
            user = $context.user.as_ref().map(UserName::as_str)
            $(, $field = $value)*
        )
    };
}

pub(super) use emit;

/// Writes an event.
pub fn audit(context: &Context, event: &Audit<'_>) {
    match event {
        Audit::SessionCreated
        | Audit::SessionAuthenticated
        | Audit::SessionRotated
        | Audit::SessionEnded { .. }
        | Audit::SessionRefused { .. }
        | Audit::SessionReused { .. }
        | Audit::SessionShared { .. }
        | Audit::SessionGuessing { .. }
        | Audit::BindingSignal { .. } => session_event(context, event),
        Audit::LoginAttempt { .. }
        | Audit::LoginThrottled { .. }
        | Audit::LoginCooldown { .. }
        | Audit::LoginUnwatched { .. }
        | Audit::LoginElsewhere { .. }
        | Audit::LoginLoop { .. } => login_event(context, event),
        Audit::Device(event) => device::write(context, event),
        Audit::UserSwitch { from, to } => emit!(info, context, "session.user_switch", from = from, to = to),
        Audit::LogoutForwarded { status } => emit!(info, context, "logout.forwarded", status = status.as_u16()),
        Audit::CsrfRefused { reason, enforced, method, path } => emit!(
            warn,
            context,
            "csrf.refused",
            reason = reason.as_str(),
            enforced = enforced,
            method = method.as_str(),
            path = path
        ),
        Audit::AccessDenied { path } => emit!(info, context, "access.denied", path = path),
        Audit::PublicHint { path, pattern, hint } => public_hint(context, path, pattern, *hint),
        Audit::CookieDropped { name, reason } => {
            emit!(warn, context, "cookie.dropped", cookie = name, help = reason.help())
        }
        Audit::EndMisread
        | Audit::HeaderDropped { .. }
        | Audit::RequestRefused { .. }
        | Audit::ExchangeFailed { .. }
        | Audit::InternalFailure { .. }
        | Audit::AnswerBroken { .. }
        | Audit::ClientStalled
        | Audit::UpstreamDown { .. }
        | Audit::UpstreamUp { .. }
        | Audit::StoreFailed { .. } => service_event(context, event),
        Audit::AdminRevoked { .. }
        | Audit::AdminRefused
        | Audit::ConfigReloaded { .. }
        | Audit::ConfigRefused { .. }
        | Audit::CertificateReloaded { .. }
        | Audit::CertificateRefused { .. } => operator_event(context, event),
    }
}

#[allow(clippy::wildcard_enum_match_arm)] // The caller's match is the exhaustive one.
fn session_event(context: &Context, event: &Audit<'_>) {
    match event {
        Audit::SessionCreated => emit!(info, context, "session.created"),
        Audit::SessionAuthenticated => emit!(info, context, "session.authenticated"),
        Audit::SessionRotated => emit!(info, context, "session.rotated"),
        Audit::SessionEnded { reason } => emit!(info, context, "session.ended", reason = reason.as_str()),
        Audit::SessionRefused { reason: reason @ (RefusedSession::Ended | RefusedSession::Binding) } => {
            emit!(warn, context, "session.refused", reason = reason.as_str());
        }
        Audit::SessionRefused { reason: reason @ RefusedSession::Device(lack) } => {
            emit!(warn, context, "session.refused", reason = reason.as_str(), cookie = lack.as_str());
        }
        Audit::SessionRefused { reason: reason @ RefusedSession::DeviceForNow(lack) } => {
            emit!(info, context, "session.refused", reason = reason.as_str(), cookie = lack.as_str());
        }
        Audit::SessionRefused { reason } => emit!(info, context, "session.refused", reason = reason.as_str()),
        Audit::SessionReused { holder, changed } => emit!(
            warn,
            context,
            "session.refused",
            reason = "reuse",
            holder = tracing::field::display(holder),
            changed = listed(changed)
        ),
        Audit::SessionShared { holder, changed } => {
            emit!(warn, context, "session.shared", holder = tracing::field::display(holder), changed = listed(changed))
        }
        Audit::SessionGuessing { count } => emit!(
            warn,
            context,
            "session.guessing",
            count = count,
            help = "more IDs than this that are no sessions came from one network within a minute: guesses, or the sessions were lost"
        ),
        Audit::BindingSignal { mismatch } => {
            emit!(warn, context, "session.client_changed", changed = mismatch.as_str());
        }
        _ => {}
    }
}

/// Left out when there is nothing.
fn listed(words: &[&str]) -> Option<String> {
    (!words.is_empty()).then(|| words.join(" "))
}

#[allow(clippy::wildcard_enum_match_arm)] // The caller's match is the exhaustive one.
fn login_event(context: &Context, event: &Audit<'_>) {
    match event {
        Audit::LoginAttempt { rule, outcome, criteria, user } => {
            login_attempt(context, *rule, *outcome, criteria, *user)
        }
        Audit::LoginThrottled { rule, per, wait } => emit!(
            info,
            context,
            "login.attempt",
            rule = rule,
            outcome = "throttled",
            per = per.as_str(),
            retry_after = wait.as_secs()
        ),
        Audit::LoginCooldown { rule, per, wait } => {
            emit!(warn, context, "login.cooldown", rule = rule, per = per.as_str(), seconds = wait.as_secs())
        }
        Audit::LoginUnwatched { cookie } => emit!(
            warn,
            context,
            "login.unwatched",
            cookie = cookie,
            help = "the application set this session cookie where no login rule watches: is a [[site.login]] missing?"
        ),
        Audit::LoginLoop { cookies, to } => emit!(warn, context, "login.loop", cookies = cookies.join(" "), to = to),
        Audit::LoginElsewhere { path } => login_elsewhere(context, path),
        _ => {}
    }
}

/// What an operator can do about a broken rule, if it is a site's.
fn remedy(context: &Context, rule: Option<Rule>) -> Option<String> {
    context.site.as_ref().and(rule?.remedy())
}

#[allow(clippy::wildcard_enum_match_arm)] // The caller's match is the exhaustive one.
fn service_event(context: &Context, event: &Audit<'_>) {
    match event {
        Audit::EndMisread => {
            emit!(warn, context, "logout.misread", help = "the value of end_header is \"session\" or \"user\"");
        }
        Audit::HeaderDropped { name, rule } => emit!(
            warn,
            context,
            "header.dropped",
            header = name,
            rule = rule.name(),
            help = remedy(context, Some(*rule))
        ),
        Audit::RequestRefused { error, rule } => emit!(
            info,
            context,
            "request.refused",
            error = ErrorChain(*error).to_string(),
            rule = rule.map(Rule::name),
            help = remedy(context, *rule)
        ),
        Audit::ExchangeFailed { error, rule } => emit!(
            warn,
            context,
            "upstream.failed",
            error = ErrorChain(*error).to_string(),
            rule = rule.map(Rule::name),
            help = remedy(context, *rule)
        ),
        Audit::InternalFailure { error } => {
            emit!(error, context, "internal.failed", error = ErrorChain(*error).to_string());
        }
        Audit::AnswerBroken { upstream, error } => {
            let error = format!("upstream {upstream}: its answer broke off: {}", ErrorChain(*error));
            emit!(warn, context, "upstream.failed", error = error);
        }
        Audit::ClientStalled => emit!(info, context, "client.stalled"),
        Audit::UpstreamDown { error } => {
            emit!(warn, context, "upstream.down", error = ErrorChain(*error).to_string());
        }
        Audit::UpstreamUp { upstream } => emit!(info, context, "upstream.up", upstream = upstream),
        Audit::StoreFailed { error } => emit!(error, context, "store.failed", error = ErrorChain(*error).to_string()),
        _ => {}
    }
}

/// What operators did, or tried.
#[allow(clippy::wildcard_enum_match_arm)] // The caller's match is the exhaustive one.
fn operator_event(context: &Context, event: &Audit<'_>) {
    match event {
        Audit::AdminRevoked { actor, scope, count } => {
            emit!(warn, context, "admin.revoked", actor = actor, scope = scope, count = count);
        }
        Audit::AdminRefused => emit!(warn, context, "admin.refused", help = "a wrong token for the admin interface"),
        Audit::ConfigReloaded { path } => emit!(info, context, "config.reloaded", file = path.display().to_string()),
        Audit::ConfigRefused { path, error } => emit!(
            error,
            context,
            "config.refused",
            file = path.display().to_string(),
            error = ErrorChain(*error).to_string()
        ),
        Audit::CertificateReloaded { path } => {
            emit!(info, context, "tls.reloaded", file = path.display().to_string());
        }
        Audit::CertificateRefused { path, error } => emit!(
            error,
            context,
            "tls.refused",
            file = path.display().to_string(),
            error = ErrorChain(*error).to_string()
        ),
        _ => {}
    }
}

fn login_elsewhere(context: &Context, path: &str) {
    let help = format!(
        "the login page posts to this path: if that is the login, it needs a [[site.login]] with path = {path:?}"
    );
    emit!(warn, context, "login.unwatched", path = path, help = help);
}

fn public_hint(context: &Context, path: &str, pattern: &str, hint: Hint) {
    let what = match hint {
        Hint::LoginPage => "the login page wants this path",
        Hint::FailurePage => "a failed login leads to the login page with a parameter, which needs a session",
    };
    let help = format!("{what}: public = [\"{pattern}\"] in [site.access] would let it through");
    emit!(warn, context, "access.hint", path = path, help = help);
}

/// One line from which an operator sees why a login was recognised or not.
fn login_attempt(context: &Context, rule: usize, outcome: Outcome, criteria: &[Criterion], user: Option<&UserName>) {
    // Within a session of somebody else the line is still about who logs in.
    let context = &Context { user: user.cloned(), ..context.clone() };
    let outcome = match outcome {
        Outcome::Success => "success",
        Outcome::Failure => "failure",
        Outcome::Undetermined | Outcome::Ask => "undetermined",
    };
    let verdicts: Vec<_> = criteria
        .iter()
        .map(|noted| format!("{}={}({})", noted.name, if noted.matched { "yes" } else { "no" }, noted.found))
        .collect();
    emit!(info, context, "login.attempt", rule = rule, outcome = outcome, criteria = verdicts.join(" "));
}
