//! Our own endpoints below `/.vestibule/`.

use http::HeaderValue;
use http::Method;
use http::Response;
use http::StatusCode;
use http::header;
use serde_json::json;

use crate::policy::admit::Refusal;
use crate::policy::csrf::RequestKind;
use crate::policy::path::parameters;
use crate::policy::route::OWN_PREFIX;
use crate::policy::session::EndReason;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::logout::clear_site_data;
use crate::proxy::reply;

impl Exchange<'_> {
    /// Answers a request for one of them.
    pub(super) async fn answer_own(&mut self) -> Result<Response<Body>, Failure> {
        if let Some(endpoint) = self.device_endpoint() {
            return match self.method {
                Method::POST => Box::pin(self.answer_device(endpoint)).await,
                _ => Ok(method_not_allowed("POST")),
            };
        }
        let name = self.target.path().strip_prefix(OWN_PREFIX).unwrap_or("").to_owned();
        match (name.as_str(), &self.method) {
            ("session", &Method::GET | &Method::HEAD) => Ok(self.describe_session()),
            ("session", _) => Ok(method_not_allowed("GET, HEAD")),
            ("jwks.json", method) if self.site.assertions.is_some() => Ok(self.publish_keys(method)),
            ("logout", &Method::POST) => self.own_logout().await,
            ("logout", _) => Ok(method_not_allowed("POST")),
            _ => Ok(reply::problem(StatusCode::NOT_FOUND, "There is no such endpoint.")),
        }
    }

    /// For a countdown in a page; asking is no activity.
    fn describe_session(&self) -> Response<Body> {
        let Some((live, identity)) = self.session.live().zip(self.session.identity()) else {
            if self.is_proven_later() {
                return reply::proven_later(Refusal::Unauthorized);
            }
            return self.throttled.map_or_else(reply::unauthorized, |wait| self.too_many(wait));
        };
        let idle_end = live.record.seen.plus(self.site.rules.idle);
        let body = json!({
            "user": identity.user.as_str(),
            "idle_expires_in": idle_end.since(self.now).as_secs(),
            "absolute_expires_in": live.record.absolute_end.since(self.now).as_secs(),
        });
        reply::json(StatusCode::OK, &body)
    }

    /// For whoever verifies what is signed. The next key is in it a day before it signs.
    fn publish_keys(&self, method: &Method) -> Response<Body> {
        let Some(assertions) = self.site.assertions.as_ref().filter(|_| matches!(*method, Method::GET | Method::HEAD))
        else {
            return method_not_allowed("GET, HEAD");
        };
        let mut response =
            reply::json(StatusCode::OK, &assertions.keys.published(self.worker.gate.clock.time_of_day()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
        response
    }

    /// Ends the session, or with `?everywhere` all of the user's.
    async fn own_logout(&mut self) -> Result<Response<Body>, Failure> {
        let everywhere = parameters(self.target.query().unwrap_or("")).any(|(name, _)| name == "everywhere");
        let identity = self.session.identity().cloned();
        self.end_session(EndReason::Logout).await?;
        if let Some(identity) = identity.filter(|_| everywhere) {
            self.end_everywhere(identity).await?;
        }
        self.trace.settled.clear = clear_site_data(&["storage".to_owned()]);
        if self.kind == RequestKind::Navigation {
            return Ok(reply::see_other(self.site.site.login_page()));
        }
        Ok(reply::no_content())
    }
}

fn method_not_allowed(allow: &'static str) -> Response<Body> {
    let mut response = reply::problem(StatusCode::METHOD_NOT_ALLOWED, "This endpoint has another method.");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}
