//! The seam between the pool and the protocols that applications speak: a connection takes a request,
//! and gives an answer or says what became of the request.

use std::time::Duration;

use http::Request;
use http::Response;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use crate::policy::headers::Lines;
use crate::policy::site::UpstreamClient;
use crate::proxy::body::Body;
use crate::proxy::leg::Leg;
use crate::proxy::native::Connection;
use crate::proxy::shared::Seat;
use crate::proxy::source::Source;
use crate::proxy::upstream::UpstreamError;

/// A connection as one request has it.
pub(super) enum Link {
    /// HTTP/1.1: nobody else's until the answer is complete. `None`: the answer has it.
    Http1(Option<Http1>),
    /// HTTP/2: one of many.
    Http2(Seat),
}

/// A connection for one request at a time.
pub(super) enum Http1 {
    /// Spoken by our own client.
    Native(Box<Connection>),
    /// Spoken by the library's.
    Hyper(SendRequest<Body>),
}

/// A request without an answer.
pub(super) struct Lost {
    pub(super) error: UpstreamError,
    pub(super) fate: Fate,
    /// The request, if it is at hand.
    pub(super) request: Option<Box<Request<Body>>>,
}

/// What is known of it.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    /// Nothing of it has been written.
    Unsent,
    /// The application says that it has not looked at it (RFC 9113 8.7).
    Refused,
    /// The application has given up this request alone.
    Reset,
    /// It has been read: something came, whole or not.
    Read,
    /// It may have been read, or not.
    Unknown,
}

impl Link {
    /// Whether it can still be used; waits no longer than `limit` for one that has not finished yet.
    pub(super) async fn is_ready(&mut self, limit: Duration) -> bool {
        match self {
            Self::Http1(Some(Http1::Hyper(sender))) => {
                matches!(tokio::time::timeout(limit, sender.ready()).await, Ok(Ok(())))
            }
            // The pool has just looked.
            Self::Http1(Some(Http1::Native(_))) => true,
            Self::Http1(None) => false,
            Self::Http2(seat) => !seat.http2().is_closed(),
        }
    }

    /// Whether a request that is lost is at hand afterwards, if it has no body.
    pub(super) fn hands_back(&self) -> bool {
        match self {
            Self::Http1(Some(Http1::Native(_))) => true,
            Self::Http1(Some(Http1::Hyper(_)) | None) | Self::Http2(_) => false,
        }
    }

    /// Sends a request, with these fields beside its own, and waits for the head of its answer. Dropping the
    /// future cancels the request. After the answer an application may take nothing of the rest for as long as
    /// `patience`.
    pub(super) async fn send(
        &mut self,
        mut request: Box<Request<Body>>,
        lines: &Lines,
        patience: Option<Duration>,
    ) -> Result<Response<Source>, Lost> {
        match self {
            Self::Http1(connection) => match connection.take() {
                Some(Http1::Native(native)) => {
                    native.send(request, lines, patience).await.map(answer).map_err(|lost| {
                        let fate = if lost.is_answered { Fate::Read } else { Fate::Unknown };
                        Lost { error: lost.fault.into(), fate, request: lost.request }
                    })
                }
                Some(Http1::Hyper(mut sender)) => {
                    lines.put_into(request.headers_mut());
                    let sent = sender.try_send_request(*request).await;
                    *connection = Some(Http1::Hyper(sender));
                    sent.map(answer).map_err(|mut lost| {
                        let request = lost.take_message().map(Box::new);
                        let fate = match &request {
                            Some(_) => Fate::Unsent,
                            None if lost.error().is_parse() => Fate::Read,
                            None => Fate::Unknown,
                        };
                        Lost { error: UpstreamError::Exchange(lost.into_error()), fate, request }
                    })
                }
                None => Err(Lost { error: UpstreamError::Busy, fate: Fate::Unsent, request: Some(request) }),
            },
            Self::Http2(seat) => {
                lines.put_into(request.headers_mut());
                seat.http2().send(*request).await.map(answer)
            }
        }
    }

    /// How often anything has come on a connection that is others', too.
    pub(super) fn heard(&self) -> usize {
        match self {
            Self::Http1(_) => 0,
            Self::Http2(seat) => seat.http2().heard(),
        }
    }

    /// No further request may be sent on it.
    pub(super) fn retire(&self) {
        match self {
            // It goes with the one request that it has.
            Self::Http1(_) => {}
            Self::Http2(seat) => seat.retire(),
        }
    }

    /// The connection for the next request, if this answer on it is complete.
    pub(super) fn free(self, answer: Source) -> Option<Http1> {
        match (self, answer) {
            (Self::Http1(None), Source::Native(answer)) => answer.into_connection().map(Http1::Native),
            (Self::Http1(connection), Source::Application(_)) => connection,
            // Of the latter there is nothing to give back but the place.
            (Self::Http1(_), Source::Native(_) | Source::Client(_)) | (Self::Http2(_), _) => None,
        }
    }
}

fn answer(response: Response<impl Into<Source>>) -> Response<Source> {
    response.map(Into::into)
}

impl Http1 {
    /// Begins to speak HTTP/1.1. `mends` field lines that are folded or have a space before their colon
    /// (RFC 9112 5.1, 5.2).
    pub(super) async fn begin(leg: Leg, client: UpstreamClient, mends: bool) -> Result<Self, UpstreamError> {
        match client {
            UpstreamClient::Native => Ok(Self::Native(Connection::new(leg, mends))),
            UpstreamClient::Hyper => hyper(leg, mends).await.map(Self::Hyper),
        }
    }

    /// Whether it takes a request, as far as is known.
    pub(super) fn is_alive(&mut self) -> bool {
        match self {
            Self::Native(connection) => connection.is_alive(),
            Self::Hyper(sender) => !sender.is_closed(),
        }
    }
}

async fn hyper(leg: Leg, mends: bool) -> Result<SendRequest<Body>, UpstreamError> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(256 * 1024)
        .max_headers(200)
        .allow_obsolete_multiline_headers_in_responses(mends)
        .allow_spaces_after_header_name_in_responses(mends)
        .handshake(TokioIo::new(leg))
        .await
        .map_err(UpstreamError::Exchange)?;
    tokio::spawn(async move {
        // Its error also reaches the request that was under way, which reports it.
        let _reported_there = connection.with_upgrades().await;
    });
    Ok(sender)
}
