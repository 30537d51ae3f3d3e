//! Connections to the application: one pool per worker thread, so that nothing on the path is
//! shared or locked by others.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::Weak;
use std::time::Duration;

use http::HeaderMap;
use http::Method;
use http::Request;
use http::Response;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::policy::headers;
use crate::policy::site::Timeouts;
use crate::proxy::body::Body;
use crate::proxy::sending::Sending;
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::UpstreamError;
use crate::proxy::upstream::UpstreamFailure;
use crate::telemetry;
use crate::telemetry::Audit;

/// An idle connection older than this is closed: applications close theirs after a while, and a request
/// sent into a closing connection is lost; and some have one process per connection.
const IDLE_LIFETIME: Duration = Duration::from_secs(60);
/// How often that is looked at.
const TIDY_EVERY: Duration = Duration::from_secs(5);
/// Idle connections kept per upstream and worker.
const IDLE_LIMIT: usize = 64;

struct Idle {
    sender: SendRequest<Body>,
    until: Timestamp,
}

/// The idle connections of one worker.
pub(super) struct Pool {
    idle: Mutex<HashMap<usize, Vec<Idle>>>,
    all: Arc<Pools>,
    clock: Arc<dyn Clock>,
}

/// Those of all workers.
#[derive(Default)]
pub(super) struct Pools(Mutex<Vec<Weak<Pool>>>);

impl Pools {
    /// One more, empty.
    pub(super) fn add(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Arc<Pool> {
        let pool = Arc::new(Pool { idle: Mutex::default(), all: Arc::clone(self), clock });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pool));
        pool
    }

    /// Closes one idle connection to this upstream, on whichever worker it is: it was in nobody's way
    /// until there were too many.
    fn make_room(&self, upstream: usize) {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _closed_one = pools.iter().filter_map(Weak::upgrade).any(|pool| pool.take(upstream).is_some());
    }

    /// Closes all that idle, and keeps no further ones, to upstreams that are no more.
    pub(super) fn forget<'a>(&self, upstreams: impl Iterator<Item = &'a Arc<Upstream>>) {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for upstream in upstreams {
            upstream.retire();
            pools.iter().filter_map(Weak::upgrade).for_each(|pool| pool.drop_all(upstream.id));
        }
    }
}

/// A connection that is in use. Dropping it closes the connection and so cancels the request (S177).
pub(super) struct Lease {
    pool: Arc<Pool>,
    pub(super) upstream: Arc<Upstream>,
    sender: SendRequest<Body>,
    /// Whether the application knows the connection, not only the request, as some user's.
    personal: bool,
    /// How long it may idle.
    lifetime: Duration,
    sending: Option<Arc<Sending>>,
}

impl Lease {
    /// The response is complete: the connection can carry the next request, unless this one is still
    /// being sent. Then it is left to end by itself: nobody may have to wait for a slow upload.
    pub(super) fn give_back(self) {
        if self.sending.is_none_or(|sending| sending.is_done()) && !self.personal {
            self.pool.put(&self.upstream, self.sender, self.lifetime);
        }
    }
}

/// A request that found no connection, to be sent elsewhere.
type Unsent = Option<Box<Request<Body>>>;

impl Pool {
    /// Runs forever: closes connections that have been idle for too long.
    pub(super) async fn tidy(self: Arc<Self>) {
        loop {
            let now = self.clock.now();
            self.clock.sleep_until(now.plus(TIDY_EVERY)).await;
            let now = self.clock.now();
            let mut idle = self.lock();
            for connections in idle.values_mut() {
                connections.retain(|idle| idle.is_usable(now));
            }
            idle.retain(|_, connections| !connections.is_empty());
        }
    }

    fn put(&self, upstream: &Upstream, sender: SendRequest<Body>, lifetime: Duration) {
        let mut idle = self.lock();
        // Asked under the lock, so that whoever waits finds it here or is seen to wait.
        if sender.is_closed() || !upstream.may_idle() {
            return;
        }
        let idle = idle.entry(upstream.id).or_default();
        if idle.len() < IDLE_LIMIT {
            idle.push(Idle { sender, until: self.clock.now().plus(lifetime) });
        }
    }

    fn take(&self, upstream: usize) -> Option<SendRequest<Body>> {
        let now = self.clock.now();
        let mut idle = self.lock();
        let idle = idle.get_mut(&upstream)?;
        std::iter::from_fn(|| idle.pop()).find(|idle| idle.is_usable(now)).map(|idle| idle.sender)
    }

    fn drop_all(&self, upstream: usize) {
        self.lock().remove(&upstream);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Vec<Idle>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request to the first upstream that can be connected to, in the order given; those that
    /// could not be a moment ago come last.
    ///
    /// A request whose head was not written is sent again on another connection; one that may have
    /// been read is repeated once only if it is a GET or HEAD without body on a connection that had
    /// been idle (S101).
    ///
    /// # Errors
    /// When no upstream answers in time.
    pub(super) async fn send(
        self: &Arc<Self>,
        upstreams: &[Arc<Upstream>],
        first: usize,
        mut request: Request<Body>,
        timeouts: &Timeouts,
        context: &telemetry::Context,
    ) -> Result<(Response<Incoming>, Lease), UpstreamFailure> {
        if let [upstream] = upstreams {
            return self.send_to(upstream, request, timeouts).await.map_err(|(cause, _)| upstream.failure(cause));
        }
        let mut order = in_turn(upstreams, first, self.clock.now());
        loop {
            let upstream = order.remove(0);
            let (cause, unsent) = match self.send_to(upstream, request, timeouts).await {
                Ok(answer) => {
                    if upstream.is_back() {
                        telemetry::audit(context, &Audit::UpstreamUp { upstream: &upstream.name });
                    }
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            let failure = upstream.failure(cause);
            match unsent {
                Some(unsent) if !order.is_empty() => request = *unsent,
                Some(_) | None => return Err(failure),
            }
            let is_full = matches!(failure.cause, UpstreamError::Busy);
            if !is_full && upstream.went_down(self.clock.now()) {
                telemetry::audit(context, &Audit::UpstreamDown { error: &failure });
            }
        }
    }

    async fn send_to(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        mut request: Request<Body>,
        timeouts: &Timeouts,
    ) -> Result<(Response<Incoming>, Lease), (UpstreamError, Unsent)> {
        let personal = headers::authenticates_connection(request.headers());
        let sending = request.body_mut().report();
        let mut reuse = true;
        loop {
            let reused = if reuse { self.take(upstream.id) } else { None };
            let was_idle = reused.is_some();
            let mut sender = match reused {
                Some(sender) => sender,
                None => match upstream.connect(timeouts.connect, || self.all.make_room(upstream.id)).await {
                    Ok(sender) => sender,
                    Err(error) => return Err((error, Some(Box::new(request)))),
                },
            };
            let repeat = if was_idle { repeatable(&request) } else { None };
            if was_idle && !is_ready(&mut sender, timeouts.connect).await {
                continue;
            }
            let answer = first_byte(sender.try_send_request(request), sending.as_deref(), timeouts.first_byte).await;
            let mut error = match answer.ok_or((UpstreamError::FirstByteTimeout, None))? {
                Ok(response) => {
                    let (pool, upstream) = (Arc::clone(self), Arc::clone(upstream));
                    let lifetime = lifetime(response.headers());
                    return Ok((response, Lease { pool, upstream, sender, personal, lifetime, sending }));
                }
                Err(error) => error,
            };
            request = match (error.take_message(), repeat) {
                (Some(unwritten), _) if was_idle => unwritten,
                (None, Some(repeat)) => {
                    reuse = false;
                    repeat
                }
                (Some(_) | None, _) => return Err((UpstreamError::Exchange(error.into_error()), None)),
            };
        }
    }
}

impl Idle {
    fn is_usable(&self, now: Timestamp) -> bool {
        now < self.until && !self.sender.is_closed()
    }
}

fn in_turn(upstreams: &[Arc<Upstream>], first: usize, now: Timestamp) -> Vec<&Arc<Upstream>> {
    let mut order: Vec<_> =
        upstreams.iter().cycle().skip(first % upstreams.len().max(1)).take(upstreams.len()).collect();
    order.sort_by_key(|upstream| !upstream.is_likely_up(now));
    order
}

async fn is_ready(sender: &mut SendRequest<Body>, limit: Duration) -> bool {
    matches!(tokio::time::timeout(limit, sender.ready()).await, Ok(Ok(())))
}

/// Waits for the answer; `None` when nothing has come `limit` after the request went out, or after
/// the application stopped taking it.
async fn first_byte<T>(
    answer: impl Future<Output = T>,
    sending: Option<&Sending>,
    limit: Option<Duration>,
) -> Option<T> {
    let Some(limit) = limit else { return Some(answer.await) };
    let begun = Instant::now();
    let deadline = || sending.map_or(begun, Sending::quiet_since) + limit;
    let mut answer = pin!(answer);
    loop {
        if let Ok(answer) = tokio::time::timeout_at(deadline(), answer.as_mut()).await {
            return Some(answer);
        }
        if deadline() <= Instant::now() {
            return None;
        }
    }
}

/// How long a connection may idle: a second less than the application says it keeps it, or a form could
/// be sent into a connection that is just being closed.
fn lifetime(headers: &HeaderMap) -> Duration {
    let Some(line) = headers.get("keep-alive").and_then(|value| value.to_str().ok()) else { return IDLE_LIFETIME };
    let timeout = line.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok());
    let timeout = timeout.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(1)));
    timeout.map_or(IDLE_LIFETIME, |timeout| timeout.min(IDLE_LIFETIME))
}

/// A copy of the request, if it may be sent twice.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || !request.body().is_empty() {
        return None;
    }
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_says_how_long_it_keeps_a_connection() {
        for (line, seconds) in [
            ("timeout=5", 4),
            ("timeout=5, max=100", 4),
            ("max=100,timeout=15", 14),
            ("timeout=1", 0),
            ("timeout=0", 0),
            ("timeout=600", 60),
            ("timeout=x", 60),
            ("max=100", 60),
        ] {
            let headers = HeaderMap::from_iter([("keep-alive".parse().unwrap(), line.parse().unwrap())]);
            assert_eq!(lifetime(&headers), Duration::from_secs(seconds), "{line}");
        }
        assert_eq!(lifetime(&HeaderMap::new()), IDLE_LIFETIME);
    }
}
