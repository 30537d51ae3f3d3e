//! The seam between the pool and the protocols that applications speak: a connection takes a request,
//! and gives an answer or says what became of the request.

use std::time::Duration;

use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use crate::proxy::body::Body;
use crate::proxy::leg::Leg;
use crate::proxy::shared::Seat;
use crate::proxy::upstream::UpstreamError;

/// A connection as one request has it.
pub(super) enum Link {
    /// HTTP/1.1: nobody else's until the answer is complete.
    Http1(SendRequest<Body>),
    /// HTTP/2: one of many.
    Http2(Seat),
}

/// A request without an answer.
pub(super) struct Lost {
    pub(super) error: hyper::Error,
    pub(super) fate: Fate,
}

/// What is known of it.
pub(super) enum Fate {
    /// Nothing of it has been written.
    Unsent(Box<Request<Body>>),
    /// The application says that it has not looked at it (RFC 9113 8.7).
    Refused,
    /// The application has given up this request alone.
    Reset,
    /// It has been read: something came that is no answer.
    Read,
    /// It may have been read, or not.
    Unknown,
}

impl Link {
    /// Whether it can still be used; waits no longer than `limit` for one that has not finished yet.
    pub(super) async fn is_ready(&mut self, limit: Duration) -> bool {
        match self {
            Self::Http1(sender) => matches!(tokio::time::timeout(limit, sender.ready()).await, Ok(Ok(()))),
            Self::Http2(seat) => !seat.http2().is_closed(),
        }
    }

    /// Sends a request and waits for the head of its answer. Dropping the future cancels the request.
    pub(super) async fn send(&mut self, request: Request<Body>) -> Result<Response<Incoming>, Lost> {
        match self {
            Self::Http1(sender) => sender.try_send_request(request).await.map_err(|mut lost| {
                let fate = match lost.take_message() {
                    Some(unsent) => Fate::Unsent(Box::new(unsent)),
                    None if lost.error().is_parse() => Fate::Read,
                    None => Fate::Unknown,
                };
                Lost { error: lost.into_error(), fate }
            }),
            Self::Http2(seat) => seat.http2().send(request).await,
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
}

/// Begins to speak HTTP/1.1. `mends` field lines that are folded or have a space before their colon
/// (RFC 9112 5.1, 5.2).
pub(super) async fn http1(leg: Leg, mends: bool) -> Result<SendRequest<Body>, UpstreamError> {
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
