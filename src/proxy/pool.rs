//! Connections to the application: one pool per worker thread, so that nothing on the path is
//! shared or locked by others.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::future::Future;
use std::future::pending;
use std::pin::Pin;
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
use http::Version;
use http::header;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::policy::headers;
use crate::policy::headers::Lines;
use crate::policy::headers::Signs;
use crate::policy::site::Timeouts;
use crate::policy::site::UpstreamProtocol;
use crate::proxy::body::Body;
use crate::proxy::link::Fate;
use crate::proxy::link::Http1;
use crate::proxy::link::Link;
use crate::proxy::sending::Sending;
use crate::proxy::shared::Found;
use crate::proxy::shared::Group;
use crate::proxy::shelf::Shelf;
use crate::proxy::source::Source;
use crate::proxy::upstream::Load;
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::UpstreamError;

/// An idle connection older than this is closed: applications close theirs after a while, and a request
/// sent into a closing connection is lost; and some have one process per connection.
const IDLE_LIFETIME: Duration = Duration::from_secs(60);
/// How often that is looked at.
const TIDY_EVERY: Duration = Duration::from_secs(5);

/// The connections of one worker that can take a request.
pub(super) struct Pool {
    shelves: Mutex<BTreeMap<usize, Shelf>>,
    /// Those that many requests share.
    shared: Mutex<HashMap<usize, Arc<Group>>>,
    all: Arc<Pools>,
    clock: Arc<dyn Clock>,
}

/// Those of all workers.
#[derive(Default)]
pub(super) struct Pools(Mutex<Vec<Weak<Pool>>>);

impl Pools {
    /// One more, empty.
    pub(super) fn add(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Arc<Pool> {
        let pool = Arc::new(Pool { shelves: Mutex::default(), shared: Mutex::default(), all: Arc::clone(self), clock });
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pool));
        pool
    }

    /// Closes one idle connection to this upstream, on whichever worker it is: it was in nobody's way
    /// until there were too many.
    fn make_room(&self, upstream: usize) {
        let pools = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let _closed_one = pools.iter().filter_map(Weak::upgrade).any(|pool| pool.close_idle(upstream));
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

/// A connection that is in use. Dropping it ends what this request has of the connection, and so cancels
/// the request (S177).
pub(super) struct Lease {
    pool: Arc<Pool>,
    pub(super) upstream: Arc<Upstream>,
    /// What the head of the answer on it had.
    pub(super) signs: Signs,
    link: Link,
    /// Whether it carries no other request: the application knows it as some user's, or what comes next may be
    /// no answer, or it speaks HTTP/1.0 on it, which the library would do from then on as well, without chunks
    /// (S87).
    single: bool,
    /// How long it may idle.
    lifetime: Duration,
    sending: Option<Arc<Sending>>,
    /// Counted where there are several to choose from.
    _load: Option<Load>,
}

impl Lease {
    pub(super) fn with_load(self, load: Load) -> Self {
        Self { _load: Some(load), ..self }
    }

    /// The response is complete: the connection can carry the next request, unless this one is still
    /// being sent. Then it is left to end by itself: nobody may have to wait for a slow upload.
    pub(super) fn give_back(self, answer: Source) {
        let is_sent = self.sending.is_none_or(|sending| sending.is_done());
        if let Some(connection) = self.link.free(answer).filter(|_| is_sent && !self.single) {
            self.pool.put(&self.upstream, connection, self.lifetime);
        }
    }
}

/// A request that is to be sent, perhaps not for the first time. Boxed: many futures hand it on.
pub(super) struct Attempt {
    request: Box<Request<Body>>,
    /// Whether it was sent once and lost: then it is not sent another time if it could be lost again.
    repeated: bool,
}

impl Attempt {
    pub(super) fn first(request: Box<Request<Body>>) -> Self {
        Self { request, repeated: false }
    }
}

/// A connection for one request.
struct Hold {
    link: Link,
    /// Whether others were sent on it before.
    was_used: bool,
}

impl Pool {
    /// Runs forever: closes connections that have been idle for too long.
    pub(super) async fn tidy(self: Arc<Self>) {
        let mut now = self.clock.now();
        loop {
            self.clock.sleep_until(now.plus(TIDY_EVERY)).await;
            now = self.clock.now();
            let mut shelves = self.lock();
            shelves.values_mut().for_each(|shelf| shelf.tidy(now));
            shelves.retain(|_, shelf| !shelf.is_empty());
            drop(shelves);
            let mut shared = self.groups();
            shared.values().for_each(|group| group.tidy(now, IDLE_LIFETIME));
            shared.retain(|_, group| !group.is_empty());
        }
    }

    fn put(&self, upstream: &Upstream, mut connection: Http1, lifetime: Duration) {
        let mut shelves = self.lock();
        if !connection.is_alive() || upstream.is_retired() {
            return;
        }
        let shelf = shelves.entry(upstream.id).or_default();
        // Asked under the lock, so that whoever waits finds it here or is seen to wait.
        match upstream.awaited() {
            0 => shelf.keep(connection, lifetime, self.clock.now()),
            awaited => shelf.hand_on(connection, awaited),
        }
    }

    fn take(&self, upstream: usize) -> Option<Http1> {
        let now = self.clock.now();
        self.lock().get_mut(&upstream)?.take(now)
    }

    /// What another request gives back.
    async fn given_back(&self, upstream: usize) -> Http1 {
        let given_back = self.lock().entry(upstream).or_default().wait();
        match given_back.await {
            Ok(connection) => connection,
            // Nobody gives anything back to an upstream that is no more.
            Err(_) => pending().await,
        }
    }

    fn close_idle(&self, upstream: usize) -> bool {
        let group = self.groups().get(&upstream).cloned();
        self.take(upstream).is_some() || group.is_some_and(|group| group.close_idle())
    }

    fn drop_all(&self, upstream: usize) {
        self.lock().remove(&upstream);
        let group = self.groups().remove(&upstream);
        while group.as_ref().is_some_and(|group| group.close_idle()) {}
    }

    fn group(&self, upstream: &Arc<Upstream>) -> Arc<Group> {
        let group = || Group::new(Arc::clone(upstream), Arc::clone(&self.clock));
        Arc::clone(self.groups().entry(upstream.id).or_insert_with(group))
    }

    fn groups(&self) -> MutexGuard<'_, HashMap<usize, Arc<Group>>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time it is for this worker.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Sends a request to one upstream, with these fields beside its own.
    ///
    /// A request whose head was not written is sent again on another connection. One that may have been
    /// read is repeated once, and only if it is a GET or HEAD without body on a connection that had been
    /// used before; whatever its method, if the application says that it has not looked at it and its
    /// body is still at hand (S101).
    ///
    /// # Errors
    /// When it does not answer in time; with the request, if it may be sent elsewhere.
    pub(super) async fn send_to(
        self: &Arc<Self>,
        upstream: &Arc<Upstream>,
        attempt: Attempt,
        lines: &Lines,
        timeouts: &Timeouts,
    ) -> Result<(Response<Source>, Lease), (UpstreamError, Option<Attempt>)> {
        let Attempt { mut request, mut repeated } = attempt;
        let personal = headers::authenticates_connection(request.headers());
        let protocol = protocol_for(upstream, &request);
        let sending = request.body_mut().report();
        let is_idempotent = matches!(*request.method(), Method::GET | Method::HEAD) && request.body().is_empty();
        loop {
            let Hold { mut link, was_used } = match self.hold(upstream, protocol, !repeated, timeouts).await {
                Ok(hold) => hold,
                Err(error) => return Err((error, Some(Attempt { request, repeated }))),
            };
            let may_repeat = was_used && is_idempotent || protocol == UpstreamProtocol::Http2;
            let may_copy = may_repeat && !repeated && !link.hands_back();
            let copy = if may_copy { copy_of(&request) } else { None };
            if was_used && !link.is_ready(timeouts.connect).await {
                link.retire();
                continue;
            }
            let heard = link.heard();
            let (limit, patience) = (timeouts.first_byte, timeouts.body_idle);
            let answer = first_byte(pin!(link.send(request, lines, patience)), sending.as_deref(), limit).await;
            let lost = match answer {
                Some(Ok(response)) => {
                    let (pool, upstream) = (Arc::clone(self), Arc::clone(upstream));
                    let signs = Signs::of(response.headers());
                    let lifetime = if signs.keeps_alive { lifetime(response.headers()) } else { IDLE_LIFETIME };
                    let single = personal || response.version() < Version::HTTP_11 || is_doubtful(signs);
                    let lease = Lease { pool, upstream, signs, link, single, lifetime, sending, _load: None };
                    return Ok((response, lease));
                }
                Some(Err(lost)) => lost,
                None => {
                    // It may be that nothing arrives any more; where anything does it is this request alone.
                    if link.heard() == heard {
                        link.retire();
                    }
                    return Err((UpstreamError::FirstByteTimeout, None));
                }
            };
            if !matches!(lost.fate, Fate::Reset) {
                link.retire();
            }
            let may_repeat = may_repeat && !repeated;
            let again = match lost.fate {
                Fate::Unsent if was_used => lost.request,
                Fate::Refused => copy,
                Fate::Unknown if was_used && is_idempotent && may_repeat => copy.or(lost.request),
                Fate::Unsent | Fate::Reset | Fate::Read | Fate::Unknown => None,
            };
            let Some(again) = again else {
                let upload = sending.and_then(|sending| sending.failure());
                return Err((upload.map_or(lost.error, UpstreamError::Upload), None));
            };
            request = again;
            repeated = true;
        }
    }

    /// A connection for one request, used before if that may be. Boxed is what most requests have no need of: they
    /// are moved about with room for it.
    async fn hold(
        &self,
        upstream: &Arc<Upstream>,
        protocol: UpstreamProtocol,
        reuse: bool,
        timeouts: &Timeouts,
    ) -> Result<Hold, UpstreamError> {
        let limit = timeouts.connect;
        match protocol {
            UpstreamProtocol::Http1 => {
                if reuse && let Some(connection) = self.take(upstream.id) {
                    return Ok(Hold { link: Link::Http1(Some(connection)), was_used: true });
                }
                Box::pin(self.wait_or_open(upstream, reuse, limit)).await
            }
            UpstreamProtocol::Http2 => {
                let make_room = || self.all.make_room(upstream.id);
                Ok(match self.group(upstream).seat(limit, make_room).await? {
                    Found::Seat(seat) => Hold { link: Link::Http2(seat), was_used: true },
                    Found::Opened(seat) => Hold { link: Link::Http2(seat), was_used: false },
                })
            }
        }
    }

    /// A new connection, as soon as there is room for one more; or, if it may be used before, one that is given back
    /// meanwhile.
    async fn wait_or_open(
        &self,
        upstream: &Arc<Upstream>,
        reuse: bool,
        limit: Duration,
    ) -> Result<Hold, UpstreamError> {
        let slot = tokio::select! {
            // First who waits is counted, then it waits.
            biased;
            slot = upstream.slot(limit, || self.all.make_room(upstream.id)) => slot?,
            connection = self.given_back(upstream.id), if reuse => {
                return Ok(Hold { link: Link::Http1(Some(connection)), was_used: true });
            }
        };
        let connection = upstream.connect_http1(Some(slot), limit).await?;
        Ok(Hold { link: Link::Http1(Some(connection)), was_used: false })
    }
}

/// WebSockets begin on HTTP/1.1 everywhere: few applications know how to begin them on HTTP/2 (RFC 8441).
fn protocol_for(upstream: &Upstream, request: &Request<Body>) -> UpstreamProtocol {
    match upstream.protocol {
        UpstreamProtocol::Http2 if !request.headers().contains_key(header::UPGRADE) => UpstreamProtocol::Http2,
        UpstreamProtocol::Http2 | UpstreamProtocol::Http1 => UpstreamProtocol::Http1,
    }
}

/// Waits for the answer; `None` when nothing has come `limit` after the request went out, or after
/// the application stopped taking it.
async fn first_byte<T>(
    mut answer: Pin<&mut impl Future<Output = T>>,
    sending: Option<&Sending>,
    limit: Option<Duration>,
) -> Option<T> {
    let Some(limit) = limit else { return Some(answer.await) };
    let begun = Instant::now();
    let deadline = || sending.map_or(begun, Sending::quiet_since) + limit;
    loop {
        if let Ok(answer) = tokio::time::timeout_at(deadline(), answer.as_mut()).await {
            return Some(answer);
        }
        if deadline() <= Instant::now() {
            return None;
        }
    }
}

/// Whether others may see the end of the answer elsewhere: it has chunks, and a length beside them, as where an
/// attacker splits answers (RFC 9112 6.3).
fn is_doubtful(signs: Signs) -> bool {
    signs.coding && signs.length
}

/// How long a connection may idle: a second less than the application says it keeps it, or a form could
/// be sent into a connection that is just being closed.
fn lifetime(headers: &HeaderMap) -> Duration {
    let Some(line) = headers.get("keep-alive").and_then(|value| value.to_str().ok()) else { return IDLE_LIFETIME };
    let timeout = line.split(',').find_map(|part| part.trim().strip_prefix("timeout=")?.parse().ok());
    let timeout = timeout.map(|seconds: u64| Duration::from_secs(seconds.saturating_sub(1)));
    timeout.map_or(IDLE_LIFETIME, |timeout| timeout.min(IDLE_LIFETIME))
}

/// A copy of the request, if its body is at hand.
fn copy_of(request: &Request<Body>) -> Option<Box<Request<Body>>> {
    let mut copy = Box::new(Request::new(request.body().again()?));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}
