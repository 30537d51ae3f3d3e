//! What can go wrong with an exchange, whose fault it is, and what the client is told. The client
//! learns the status, the operator the cause (once, in the log).

use std::error::Error;

use http::HeaderValue;
use http::Response;
use http::StatusCode;
use http::header;

use crate::policy::login::NoUser;
use crate::policy::login::Unreadable;
use crate::policy::message::Malformed;
use crate::policy::path::Ambiguity;
use crate::policy::relax::Rule;
use crate::policy::websocket::NoWebSocket;
use crate::proxy::body::Body;
use crate::proxy::body::BodyError;
use crate::proxy::reply;
use crate::proxy::upstream::UpstreamError;
use crate::proxy::upstream::UpstreamFailure;
use crate::store::StoreError;

/// Why an exchange ended without the application's answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The message could be read in two ways.
    #[error("the request is refused by a rule for messages")]
    Malformed(#[from] Malformed),
    /// The target could be read in two ways.
    #[error("the request target is ambiguous: {}", .0.name())]
    Ambiguous(Ambiguity),
    /// A WebSocket that cannot be had.
    #[error("no WebSocket")]
    NoWebSocket(#[from] NoWebSocket),
    /// An answer that is good, but no tunnel: over HTTP/2 it would be taken for one (RFC 8441 5).
    #[error("what was asked for over CONNECT is no WebSocket")]
    NoTunnel,
    /// No site has this authority.
    #[error("no site is configured for this authority")]
    Misdirected,
    /// The login request cannot be judged without doubt.
    #[error("the login request cannot be judged")]
    Unreadable(#[from] Unreadable),
    /// More than the body limit, or a login request that is too large to be judged.
    #[error("the request body is too large")]
    TooLarge,
    /// The client broke off while sending its body.
    #[error("the client's request body did not arrive")]
    Body(#[source] Box<dyn Error + Send + Sync>),
    /// The client broke off while sending a login, which cannot be judged then.
    #[error("the login request broke off before it could be judged")]
    Truncated(#[source] BodyError),
    /// The client paused while sending its body.
    #[error("the client's request body paused for longer than the body_idle timeout")]
    Paused,
    /// The session ended while the body was on its way.
    #[error("the session ended while the request's body was on its way")]
    SessionEnded,
    /// The store could not answer.
    #[error("session store")]
    Store(#[from] StoreError),
    /// No randomness for a new ID or a key, or the ID was taken.
    #[error("no new session ID could be made")]
    NoId,
    /// No randomness to sign, or no key yet.
    #[error("what the application is told of the user could not be signed")]
    Unsigned,
    /// A write that had to finish did not.
    #[error("a session change was not carried out")]
    Unfinished,
    /// A bug of ours.
    #[error("the request panicked")]
    Panicked,
    /// The application did not answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamFailure),
    /// The login succeeded, but nobody can say whose it is.
    #[error("the login succeeded, but has no usable user name")]
    NoUser(#[from] NoUser),
}

/// Whose fault a failure is; decides about the log level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The client's.
    Client,
    /// The application's, or of the way to it.
    Upstream,
    /// Ours, or the store's.
    Us,
}

impl Failure {
    /// The status that the client gets.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(rule) => rule.status(),
            Self::Ambiguous(_) | Self::Unreadable(_) | Self::Body(_) => StatusCode::BAD_REQUEST,
            Self::NoWebSocket(NoWebSocket::Version) => StatusCode::UPGRADE_REQUIRED,
            Self::NoWebSocket(NoWebSocket::Protocol) => StatusCode::NOT_IMPLEMENTED,
            Self::NoTunnel => StatusCode::BAD_GATEWAY,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::SessionEnded => StatusCode::UNAUTHORIZED,
            Self::TooLarge | Self::Truncated(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Store(_) | Self::NoId | Self::Unsigned | Self::Unfinished => StatusCode::SERVICE_UNAVAILABLE,
            Self::Paused => StatusCode::REQUEST_TIMEOUT,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Upstream(failure) => match failure.cause {
                UpstreamError::FirstByteTimeout | UpstreamError::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
                UpstreamError::Busy => StatusCode::SERVICE_UNAVAILABLE,
                UpstreamError::Connect(_)
                | UpstreamError::Tls(_)
                | UpstreamError::NotHttp2
                | UpstreamError::Exchange(_)
                | UpstreamError::Fault(_)
                | UpstreamError::Upload(_)
                | UpstreamError::Answer(_)
                | UpstreamError::Unwell(_)
                | UpstreamError::CheckTimeout
                | UpstreamError::UnaskedUpgrade
                | UpstreamError::Coding
                | UpstreamError::Status(_) => StatusCode::BAD_GATEWAY,
            },
            Self::NoUser(_) => StatusCode::BAD_GATEWAY,
        }
    }

    /// Whose fault it is.
    pub(super) fn blame(&self) -> Blame {
        match self {
            Self::Malformed(_)
            | Self::Ambiguous(_)
            | Self::NoWebSocket(_)
            | Self::NoTunnel
            | Self::Misdirected
            | Self::SessionEnded
            | Self::Unreadable(_)
            | Self::TooLarge
            | Self::Truncated(_)
            | Self::Body(_)
            | Self::Paused => Blame::Client,
            Self::Upstream(_) | Self::NoUser(_) => Blame::Upstream,
            Self::Store(_) | Self::NoId | Self::Unsigned | Self::Unfinished | Self::Panicked => Blame::Us,
        }
    }

    /// The rule about messages that was broken, if that is why.
    pub(super) fn rule(&self) -> Option<Rule> {
        match self {
            Self::Malformed(rule) => Some(Rule::Head(*rule)),
            Self::Ambiguous(ambiguity) => Some(Rule::Path(*ambiguity)),
            Self::Upstream(failure) => failure.cause.rule(),
            Self::NoWebSocket(_)
            | Self::NoTunnel
            | Self::Misdirected
            | Self::Unreadable(_)
            | Self::TooLarge
            | Self::Body(_)
            | Self::Truncated(_)
            | Self::Paused
            | Self::SessionEnded
            | Self::Store(_)
            | Self::NoId
            | Self::Unsigned
            | Self::Unfinished
            | Self::Panicked
            | Self::NoUser(_) => None,
        }
    }

    /// What became of the client's body.
    pub(super) fn of_request_body(error: BodyError) -> Self {
        match error {
            BodyError::Idle => Self::Paused,
            BodyError::TooLarge => Self::TooLarge,
            BodyError::SessionEnded => Self::SessionEnded,
            BodyError::Broken(_) | BodyError::Stalled | BodyError::Stopping => Self::Body(Box::new(error)),
        }
    }

    /// The same of the body of a login request.
    pub(super) fn of_login_body(error: BodyError) -> Self {
        match error {
            BodyError::Broken(_) => Self::Truncated(error),
            BodyError::Idle
            | BodyError::TooLarge
            | BodyError::SessionEnded
            | BodyError::Stalled
            | BodyError::Stopping => Self::of_request_body(error),
        }
    }

    /// Why the application gave no answer, which may be the client's fault.
    pub(super) fn of_exchange(failure: UpstreamFailure) -> Self {
        let mut source = failure.source();
        while let Some(cause) = source {
            match cause.downcast_ref::<BodyError>() {
                Some(BodyError::Idle) => return Self::Paused,
                Some(BodyError::TooLarge) => return Self::TooLarge,
                Some(BodyError::SessionEnded) => return Self::SessionEnded,
                Some(BodyError::Broken(_) | BodyError::Stalled | BodyError::Stopping) => {
                    return Self::Body(Box::new(failure));
                }
                None => source = cause.source(),
            }
        }
        Self::Upstream(failure)
    }

    /// What the client is told: fixed texts, nothing of the cause.
    pub(super) fn response(&self) -> Response<Body> {
        let status = self.status();
        if status == StatusCode::UNAUTHORIZED {
            return reply::unauthorized();
        }
        let says = match status {
            StatusCode::BAD_REQUEST => "The request was not understood.",
            StatusCode::MISDIRECTED_REQUEST => "No such site here.",
            StatusCode::REQUEST_TIMEOUT => "The request did not arrive in time.",
            StatusCode::PAYLOAD_TOO_LARGE => "The request is too large, or not complete.",
            StatusCode::INTERNAL_SERVER_ERROR => "Something went wrong. Try again later.",
            StatusCode::BAD_GATEWAY => "The application did not answer properly. Try again later.",
            StatusCode::GATEWAY_TIMEOUT => "The application did not answer in time. Try again later.",
            StatusCode::SERVICE_UNAVAILABLE => "The service is not available at the moment. Try again later.",
            _ => "The request was refused.",
        };
        let mut response = reply::text(status, says);
        if status == StatusCode::METHOD_NOT_ALLOWED {
            reply::allow(&mut response);
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            let headers = response.headers_mut();
            headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
