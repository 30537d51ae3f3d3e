//! Health checks: upstreams are asked for a page of their own now and then (`[site.health]`). On the
//! control runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::Request;
use http::StatusCode;
use http::header;

use crate::policy::headers::FORWARDED_PROTO;
use crate::policy::headers::Lines;
use crate::policy::site::HealthCheck;
use crate::policy::site::UpstreamProtocol;
use crate::proxy::Gate;
use crate::proxy::body::Body;
use crate::proxy::link::Link;
use crate::proxy::snapshot::LiveSite;
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::UpstreamError;
use crate::proxy::upstream::UpstreamFailure;
use crate::telemetry::Context;

/// How often it is looked at which are due.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long one may take, connecting included.
const PATIENCE: Duration = Duration::from_secs(5);

/// An upstream that failed its check.
#[derive(Debug, thiserror::Error)]
#[error("the health check failed")]
struct CheckFailed(#[source] UpstreamFailure);

impl Gate {
    /// Runs forever: checks the upstreams of all sites that want it. The first check comes at once.
    pub async fn watch_upstreams(self: Arc<Self>) {
        let mut due = HashMap::new();
        loop {
            let now = self.clock.now();
            let snapshot = self.current.load_full();
            let mut next = HashMap::new();
            for (site, check) in snapshot.sites().filter_map(|site| Some((site, site.site.health.as_ref()?))) {
                for upstream in &site.upstreams {
                    let at = due.get(&upstream.id).copied().unwrap_or(now);
                    if at > now {
                        next.insert(upstream.id, at);
                        continue;
                    }
                    next.insert(upstream.id, now.plus(check.interval));
                    tokio::spawn(judge(Arc::clone(site), Arc::clone(upstream), check.clone()));
                }
            }
            due = next;
            self.clock.sleep_until(now.plus(LOOK_EVERY)).await;
        }
    }
}

/// One check, and what follows from it.
async fn judge(site: Arc<LiveSite>, upstream: Arc<Upstream>, check: HealthCheck) {
    let patience = PATIENCE.min(check.interval);
    let answer = tokio::time::timeout(patience, ask(&site, &upstream, &check.path, patience)).await;
    let context = Context { site: Some(Arc::clone(&site.name)), ..Context::default() };
    let cause = match answer.unwrap_or(Err(UpstreamError::CheckTimeout)) {
        Ok(status) if status.is_success() || status.is_redirection() => None,
        Ok(status) => Some(UpstreamError::Unwell(status)),
        Err(error) => Some(error),
    };
    let failure = cause.map(|cause| CheckFailed(upstream.failure(cause)));
    let news = upstream.note(|health| health.checked(failure.is_none()));
    upstream.tell(news, failure.as_ref().map(|failure| failure as _), &context);
}

/// Asks for the page on a connection of its own, beyond `upstream_connections`: that all are busy is no
/// sign of bad health.
async fn ask(site: &LiveSite, upstream: &Upstream, path: &str, limit: Duration) -> Result<StatusCode, UpstreamError> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::HOST, site.host.clone());
    headers.insert(header::USER_AGENT, HeaderValue::from_static("vestibule"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    let answer = match upstream.protocol {
        UpstreamProtocol::Http1 => {
            let mut link = Link::Http1(Some(upstream.connect_http1(None, limit).await?));
            link.send(Box::new(request), &Lines::default(), None).await
        }
        UpstreamProtocol::Http2 => {
            let http2 = upstream.connect_http2(None, limit).await?;
            http2.send(request).await.map(|response| response.map(Into::into))
        }
    };
    answer.map(|response| response.status()).map_err(|lost| lost.error)
}
