//! The way back: the application's answer as the client gets it.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Response;
use http::Version;
use http::header;

use crate::policy::access::Access;
use crate::policy::csrf::RequestKind;
use crate::policy::headers;
use crate::policy::headers::Signs;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::flow::Stream;
use crate::proxy::forward::Answer;
use crate::proxy::forward::AnswerBody;
use crate::proxy::source::Source;
use crate::proxy::stall::PIECE;

const EVENTS: &[u8] = b"text/event-stream";

impl Exchange<'_> {
    /// Ends what it says, cleans the answer, keeps its cookies, rotates the ID if that is due, streams the body. What
    /// is set is in the store before the head leaves (VR-47).
    pub(super) async fn finish(&mut self, answer: Answer) -> Result<Response<Body>, Failure> {
        let Answer { mut head, signs, body } = answer;
        let access = self.route.access;
        // Open on purpose is the same for everyone; open for want of a rule need not be (S51).
        let site = &self.site.site;
        self.trace.authenticated &=
            access != Access::Public || !site.access.names_as_public(&self.method, &self.target);
        self.end_as_told(&head.headers).await?;
        self.clean(&mut head.headers, signs);
        self.take_cookies(&mut head.headers).await?;
        let eligible = access == Access::Protected
            && matches!(self.kind, RequestKind::Navigation | RequestKind::Fetch)
            && !self.is_untouched();
        self.rotate(&head.headers, eligible).await?;
        let body = match body {
            AnswerBody::Unread(mut body, lease) => match body.take_whole() {
                Some(bytes) => {
                    lease.give_back(body);
                    self.whole_body(bytes)
                }
                None => {
                    let mut stream = self.response_stream(body, &head.headers).with_lease(lease, &self.trace.context);
                    stream.begin().await;
                    self.response_body(stream)
                }
            },
            AnswerBody::Begun(bytes, rest, lease) => {
                let stream = self.response_stream(rest, &head.headers).with_prefix(bytes);
                self.response_body(stream.with_lease(lease, &self.trace.context))
            }
            AnswerBody::Whole(bytes) => self.whole_body(bytes),
        };
        let mut response = Response::from_parts(head, body);
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }

    fn response_body(&self, stream: Stream) -> Body {
        match (stream.whole(), self.stall_limit()) {
            (Some(bytes), _) => self.whole_body(bytes),
            (None, Some(limit)) => Body::watched(stream, limit, &self.trace.context),
            (None, None) => Body::stream(stream),
        }
    }

    /// What is more than one piece is not given over at once: nobody would see whether its client takes it.
    fn whole_body(&self, bytes: Bytes) -> Body {
        match self.stall_limit().filter(|_| bytes.len() > PIECE) {
            Some(limit) => Body::watched(Stream::of(bytes), limit, &self.trace.context),
            None => Body::bytes(bytes),
        }
    }

    /// How long a client may take nothing of a body that has to be watched for that.
    fn stall_limit(&self) -> Option<Duration> {
        self.snapshot.timeouts.body_idle.filter(|_| self.version == Version::HTTP_2)
    }

    fn response_stream(&self, body: impl Into<Source>, headers: &HeaderMap) -> Stream {
        let body = body.into();
        let content_type = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let events = content_type.get(..EVENTS.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENTS));
        // Events may be far apart, and are no activity of the user.
        let idle = if events { None } else { self.snapshot.timeouts.body_idle };
        let exact = http_body::Body::size_hint(&body).exact();
        let stream = Stream::new(body, idle).with_bound(self.bound(exact, !events));
        let stream = stream.with_trailers(self.site.trailers.as_ref());
        if events { stream.until(self.worker.stopping()) } else { stream }
    }

    /// Takes out what is between the application and us, and what would show where it is.
    pub(super) fn clean(&self, headers: &mut HeaderMap, signs: Signs) {
        let site = &self.site;
        headers::clean_response(headers, signs, &site.site.identity, &site.site.headers.remove);
        for marker in &site.markers {
            headers.remove(marker);
        }
    }
}
