//! Logs: the subscriber, the access-log entry, audit events.
#![allow(missing_docs, dead_code)]
use http::*;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
#[derive(Default)]
pub struct RequestIds;
impl RequestIds {
    pub fn next(&self) -> Option<Arc<str>> {
        None
    }
}
#[derive(Default, Clone)]
pub struct Context {
    pub request_id: Option<Arc<str>>,
    pub site: Option<Arc<str>>,
    pub client: Option<IpAddr>,
    pub session_ref: Option<Arc<str>>,
}
impl Context {
    pub fn of_session(_k: &crate::policy::session::SessionKey, _r: &crate::policy::session::Record) -> Self {
        Self::default()
    }
}
pub enum RefusedSession {
    Malformed,
    Ended,
    Unknown,
    Expired(crate::policy::session::EndReason),
    Binding,
    Reuse,
    Foreign,
}
pub enum Audit<'a> {
    SessionEnded {
        reason: crate::policy::session::EndReason,
    },
    StoreFailed {
        error: &'a crate::store::StoreError,
    },
    RequestRefused {
        error: &'a dyn std::error::Error,
    },
    ExchangeFailed {
        error: &'a dyn std::error::Error,
    },
    CsrfRefused {
        reason: crate::policy::csrf::CrossSite,
        enforced: bool,
        method: &'a Method,
        path: &'a str,
    },
    AccessDenied {
        path: &'a str,
    },
    PublicHint {
        path: &'a str,
        pattern: &'a str,
    },
    BindingSignal {
        mismatch: crate::policy::binding::Mismatch,
    },
    SessionRefused {
        reason: RefusedSession,
    },
    SessionAuthenticated {
        user: &'a str,
    },
    SessionCreated,
    SessionRotated,
    CookieDropped {
        name: &'a str,
    },
    LoginLoop {
        cookies: &'a [String],
    },
    LoginUnwatched {
        cookie: &'a str,
    },
    LogoutForwarded {
        status: StatusCode,
    },
    UserSwitch {
        from: &'a str,
        to: &'a str,
    },
    LoginAttempt {
        rule: usize,
        outcome: crate::policy::login::Outcome,
        criteria: &'a [crate::policy::login::Criterion],
        user: Option<&'a str>,
    },
}
pub fn audit(_c: &Context, _a: &Audit<'_>) {}
pub struct AccessEntry<'a> {
    pub method: &'a Method,
    pub path: &'a str,
    pub version: Version,
    pub status: StatusCode,
    pub duration: Duration,
    pub user: Option<&'a str>,
}
pub fn access(_c: &Context, _e: &AccessEntry<'_>) {}
