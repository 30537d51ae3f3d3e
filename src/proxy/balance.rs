//! Several upstreams of one site: which is asked first, and what becomes of its answer.

use std::sync::Arc;

use http::Request;
use http::Response;
use http::StatusCode;

use crate::clock::Timestamp;
use crate::policy::headers::Lines;
use crate::policy::health;
use crate::policy::site::Timeouts;
use crate::proxy::body::Body;
use crate::proxy::pool::Attempt;
use crate::proxy::pool::Lease;
use crate::proxy::pool::Pool;
use crate::proxy::source::Source;
use crate::proxy::upstream::Load;
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::UpstreamError;
use crate::proxy::upstream::UpstreamFailure;
use crate::telemetry;

impl Pool {
    /// Sends a request, with these fields beside its own, to the upstream that is up and has the fewest under
    /// way, or in its place to the next that can be connected to. One that is down is asked last, but it is asked.
    ///
    /// # Errors
    /// When no upstream answers in time.
    pub(super) async fn send(
        self: &Arc<Self>,
        upstreams: &[Arc<Upstream>],
        first: usize,
        request: Box<Request<Body>>,
        lines: &Lines,
        timeouts: &Timeouts,
        context: &telemetry::Context,
    ) -> Result<(Response<Source>, Lease), UpstreamFailure> {
        let mut attempt = Attempt::first(request);
        if let [upstream] = upstreams {
            return self
                .send_to(upstream, attempt, lines, timeouts)
                .await
                .map_err(|(cause, _)| upstream.failure(cause));
        }
        let mut order = in_order(upstreams, first, self.now());
        loop {
            let upstream = order.remove(0);
            let load = Load::begin(upstream);
            let (cause, unsent) = match self.send_to(upstream, attempt, lines, timeouts).await {
                Ok((response, lease)) => {
                    answered(upstream, response.status(), self.now(), context);
                    return Ok((response, lease.with_load(load)));
                }
                Err(failed) => failed,
            };
            let failure = upstream.failure(cause);
            failed(upstream, &failure, unsent.is_some(), self.now(), context);
            match unsent {
                Some(unsent) if !order.is_empty() => attempt = unsent,
                Some(_) | None => return Err(failure),
            }
        }
    }
}

fn in_order(upstreams: &[Arc<Upstream>], first: usize, now: Timestamp) -> Vec<&Arc<Upstream>> {
    let state: Vec<_> = upstreams.iter().map(|upstream| (upstream.is_up(now), upstream.under_way())).collect();
    health::order(&state, first).into_iter().filter_map(|index| upstreams.get(index)).collect()
}

/// What says that an application behind it is not there is no better than none.
fn answered(upstream: &Upstream, status: StatusCode, now: Timestamp, context: &telemetry::Context) {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            let failure = upstream.failure(UpstreamError::Unwell(status));
            let news = upstream.note(|health| health.failed(now));
            upstream.tell(news, Some(&failure), context);
        }
        _ if upstream.is_spotless() => {}
        _ => {
            let news = upstream.note(health::Health::answered);
            upstream.tell(news, None, context);
        }
    }
}

fn failed(
    upstream: &Upstream,
    failure: &UpstreamFailure,
    is_unsent: bool,
    now: Timestamp,
    context: &telemetry::Context,
) {
    let news = match failure.cause {
        // That it has much to do, or that a client left, is no sign of bad health.
        UpstreamError::Busy | UpstreamError::Upload(_) => return,
        UpstreamError::Connect(_)
        | UpstreamError::Tls(_)
        | UpstreamError::ConnectTimeout
        | UpstreamError::NotHttp2
        | UpstreamError::Exchange(_)
        | UpstreamError::Fault(_)
        | UpstreamError::Answer(_)
        | UpstreamError::FirstByteTimeout
        | UpstreamError::UnaskedUpgrade
        | UpstreamError::Unwell(_)
        | UpstreamError::Status(_)
        | UpstreamError::Coding
        | UpstreamError::CheckTimeout => {
            upstream.note(|health| if is_unsent { health.unreachable(now) } else { health.failed(now) })
        }
    };
    upstream.tell(news, Some(failure), context);
}
