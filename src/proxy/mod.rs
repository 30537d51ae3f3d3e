//! The request path: the gate, and the pipeline that every request goes through.
//!
//! [`Worker::handle`] does what happens exactly once per request, whatever comes of it: identity of
//! the request, failures to answers, cookies owed, security headers, the access log.
//! `Worker::exchange` is the pipeline; its order is the security argument.

mod assertion;
mod balance;
mod body;
mod checks;
mod cookies;
mod crowd;
mod device;
mod exchange;
mod failure;
mod finish;
mod flow;
mod forward;
mod http2;
mod learned;
mod leg;
mod leisure;
mod link;
mod local;
mod login;
mod logout;
mod native;
mod oversight;
mod pool;
mod refresh;
mod reply;
mod sending;
mod session;
mod shared;
mod shelf;
mod silence;
mod snapshot;
mod source;
mod stall;
mod streams;
mod suspicion;
mod tally;
mod throttle;
mod tunnel;
mod upstream;

use std::any::Any;
use std::collections::HashSet;
use std::future::Future;
use std::future::poll_fn;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use std::pin::Pin;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use dashmap::DashSet;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use hyper::body::Incoming;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::policy::admit;
use crate::policy::certificate::Certificate;
use crate::policy::headers;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::signing::Keys;
use crate::signing::Rings;
use crate::store::AT_ONCE;
use crate::store::Removal;
use crate::store::SessionStore;
use crate::store::StoreError;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;

pub use self::body::Body;
pub use self::silence::probe_silent;
pub use self::snapshot::GateError;
pub use self::tunnel::Opened;
pub use self::tunnel::Opening;

use self::exchange::Exchange;
use self::exchange::Trace;
use self::failure::Failure;
use self::pool::Pool;
use self::pool::Pools;
use self::snapshot::Lasting;
use self::snapshot::Snapshot;
use self::streams::Streams;
use self::suspicion::Suspicions;
use self::tally::Tally;
use self::throttle::Waiting;

/// How often open streams are checked against their sessions: ends are seen within a second (S46).
const WATCH_EVERY: Duration = Duration::from_millis(500);
/// Sessions that the store is asked for at once.
const ASKED_AT_ONCE: usize = 1024;
/// How often expired records are freed.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// How often the keys for assertions are looked after: others may share them.
const TEND_EVERY: Duration = Duration::from_secs(30);

/// True of every request on one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The TCP peer; `None` on a unix socket.
    pub address: Option<SocketAddr>,
    /// The sites' hosts that share the connection's certificate: requests for others do not belong
    /// on it (S111).
    pub hosts: Arc<HashSet<String>>,
    /// The certificate that the client has shown.
    pub certificate: Option<Arc<Certificate>>,
}

impl Peer {
    /// The peer's address; the loopback address stands for a unix socket.
    fn ip(&self) -> IpAddr {
        self.address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip().to_canonical())
    }
}

/// Comes with a request whose connection stays when it becomes a tunnel: as long as it is held, the
/// connection is in use.
#[derive(Clone)]
pub struct KeptOpen {
    _by: Arc<dyn Any + Send + Sync>,
}

impl KeptOpen {
    /// Until the last copy is dropped, so long is this.
    pub fn by(held: impl Send + Sync + 'static) -> Self {
        Self { _by: Arc::new(held) }
    }
}

/// Bytes both ways.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

/// What all workers share: the settings, the sessions, the clock.
pub struct Gate {
    current: ArcSwap<Snapshot>,
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    streams: Arc<Streams>,
    pools: Arc<Pools>,
    /// Writes that must finish although the client has left.
    writes: TaskTracker,
    lasting: DashMap<String, Lasting>,
    rings: Rings,
    tally: Tally,
    /// What was said once and need not be said again.
    said: DashSet<String>,
    suspicions: Suspicions,
    /// Anonymous sessions begun in the current minute, by address prefix.
    begun: DashMap<(Arc<str>, IpAddr), (u64, u32)>,
    /// Attempts to log in that wait for others.
    waiting: Waiting,
    /// Proofs looked at in the current minute, by session.
    proofs: DashMap<SessionKey, (u64, u32)>,
    request_ids: telemetry::RequestIds,
    /// Ends what has no end of its own.
    stopping: CancellationToken,
}

impl Gate {
    /// A gate for this configuration.
    ///
    /// # Errors
    /// When an upstream's TLS files or the keys for assertions cannot be used.
    pub fn new(config: &Config, store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, GateError> {
        let (lasting, rings) = (DashMap::new(), Rings::default());
        let keys = |place| rings.open(place, clock.time_of_day());
        let snapshot = Snapshot::build(config, &|site| lasting_of(&lasting, site), &keys)?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(snapshot),
            store,
            clock,
            streams: Arc::default(),
            pools: Arc::default(),
            writes: TaskTracker::new(),
            lasting,
            rings,
            tally: Tally::default(),
            said: DashSet::new(),
            suspicions: Suspicions::default(),
            begun: DashMap::new(),
            waiting: Waiting::default(),
            proofs: DashMap::new(),
            request_ids: telemetry::RequestIds::default(),
            stopping: CancellationToken::new(),
        }))
    }

    /// Reads the files that a configuration names.
    ///
    /// # Errors
    /// When one of them cannot be used.
    pub fn check(config: &Config) -> Result<(), GateError> {
        let keys = |place| Keys::existing(place).map(Arc::new);
        Snapshot::build(config, &|_| Lasting::default(), &keys).map(drop)
    }

    /// Swaps the settings; requests under way finish under the old ones. All or nothing.
    ///
    /// # Errors
    /// When an upstream's TLS files or the keys for assertions cannot be used; nothing was changed then.
    pub fn reload(&self, config: &Config) -> Result<(), GateError> {
        let keys = |place| self.rings.open(place, self.clock.time_of_day());
        let snapshot = Snapshot::build(config, &|site| lasting_of(&self.lasting, site), &keys)?;
        let before = self.current.swap(Arc::new(snapshot));
        self.pools.forget(before.upstreams());
        Ok(())
    }

    /// Runs forever: ends sessions whose time is up and closes their streams. On the control runtime, from the time of
    /// the call on.
    pub fn watch_sessions(self: Arc<Self>) -> impl Future<Output = ()> {
        let begun = self.clock.now();
        async move {
            // Side by side: a sweep of a store elsewhere may take long, and what is open ends within a second.
            let watched = async {
                let mut now = begun;
                loop {
                    now = self.wait(now, WATCH_EVERY).await;
                    self.watch_all(now).await;
                }
            };
            let swept = async {
                let mut now = begun;
                loop {
                    now = self.wait(now, SWEEP_EVERY).await;
                    self.sweep(now).await;
                    self.share_learned().await;
                }
            };
            tokio::join!(watched, swept);
        }
    }

    /// Runs forever: replaces the keys that sign assertions in time. On the control runtime, from the time of the call
    /// on.
    pub fn watch_keys(self: Arc<Self>) -> impl Future<Output = ()> {
        let mut now = self.clock.now();
        async move {
            loop {
                now = self.wait(now, TEND_EVERY).await;
                let at = assertion::moment(&*self.clock);
                for assertions in self.current.load_full().sites().filter_map(|site| site.assertions.as_ref()) {
                    assertions.forget(at);
                    let keys = Arc::clone(&assertions.keys);
                    // Nobody waits for it: a file system that does not answer holds up nothing here.
                    tokio::task::spawn_blocking(move || keys.keep(at.time_of_day));
                }
            }
        }
    }

    /// Counted from the last round, so that a clock that moved during it is seen at once.
    async fn wait(&self, last: Timestamp, pause: Duration) -> Timestamp {
        self.clock.sleep_until(last.plus(pause)).await;
        self.clock.now()
    }

    /// Looks after all that is open. A store that is elsewhere is asked for many sessions at once; what is known
    /// here costs no task.
    async fn watch_all(self: &Arc<Self>, now: Timestamp) {
        let mut asking = JoinSet::new();
        for key in self.streams.sessions() {
            let mut watch = Box::pin(Arc::clone(self).watch(key, now));
            let is_done = poll_fn(|context| Poll::Ready(watch.as_mut().poll(context).is_ready())).await;
            if !is_done {
                asking.spawn(watch);
            }
            if asking.len() >= ASKED_AT_ONCE {
                asking.join_next().await;
            }
        }
        asking.join_all().await;
    }

    /// Closes the streams of a session that is gone, ends one whose time is up.
    async fn watch(self: Arc<Self>, key: SessionKey, now: Timestamp) {
        match self.store.peek(&key).await {
            Ok(Some(session)) => {
                if let Some(reason) = self.current.load().expiry(&session.site, session.life(), now) {
                    self.end(&key, reason, false, now, &Context::default()).await.ok();
                }
            }
            Ok(None) => self.streams.end(&key),
            // It says nothing about the session: the next round asks again. But nothing outlives its time.
            Err(_) => self.streams.expire(&key, now),
        }
    }

    async fn sweep(&self, now: Timestamp) {
        let snapshot = self.current.load_full();
        let judge = |site: &str, life: Life| snapshot.expiry(site, life, now);
        let mut is_all = false;
        while !is_all {
            match leisure::at_leisure(self.store.sweep(&judge, now)).await {
                Ok(ended) => {
                    is_all = ended.len() < AT_ONCE;
                    for (key, session, reason) in ended {
                        self.ended(&key, &session, reason, &Context::default());
                    }
                }
                Err(error) => {
                    telemetry::audit(&Context::default(), &Audit::StoreFailed { error: &error });
                    break;
                }
            }
        }
        self.suspicions.tidy(now);
        let minute = now.as_secs() / 60;
        self.begun.retain(|_, (started, _)| *started == minute);
        self.proofs.retain(|_, (started, _)| *started == minute);
    }

    /// Ends a session everywhere: record, streams, audit. `tombstone` for logins and logouts; `by` is the
    /// request that ends it, if any. Whether there was one.
    async fn end(
        &self,
        key: &SessionKey,
        reason: EndReason,
        tombstone: bool,
        now: Timestamp,
        by: &Context,
    ) -> Result<bool, StoreError> {
        let ended = self.store.remove(key, tombstone, now).await?;
        self.streams.end(key);
        if let Some(session) = &ended {
            self.ended(key, session, reason, by);
        }
        Ok(ended.is_some())
    }

    /// The same for one that was copied, if its chain is still as it was judged; otherwise it is to be judged
    /// again, and this says no.
    async fn end_copied(&self, key: &SessionKey, revision: u64, by: &Context) -> Result<bool, StoreError> {
        match self.store.remove_at(key, revision).await? {
            Removal::Removed(session) => self.ended(key, &session, EndReason::Reuse, by),
            Removal::Gone => self.streams.end(key),
            Removal::Stale => return Ok(false),
        }
        Ok(true)
    }

    /// The same for a session that a login replaces: whoever gets the record gets its cookies.
    async fn take(
        &self,
        handle: &Handle,
        reason: EndReason,
        now: Timestamp,
        by: &Context,
    ) -> Result<Option<Record>, StoreError> {
        let taken = self.store.take(handle, now).await?;
        self.streams.end(handle.key());
        if let Some(record) = &taken {
            self.ended(handle.key(), &record.outline(), reason, by);
        }
        Ok(taken)
    }

    /// What is owed when a record was removed: open streams are closed, the end is logged.
    fn ended(&self, key: &SessionKey, session: &Outline, reason: EndReason, by: &Context) {
        self.streams.end(key);
        self.tally.ended(reason);
        telemetry::audit(&by.about(key, session), &Audit::SessionEnded { reason });
    }

    /// Whether a site with one of these hosts offers WebSockets over HTTP/2.
    pub fn offers_websockets(&self, hosts: &HashSet<String>) -> bool {
        self.current.load().offers_websockets(hosts)
    }

    /// Cancelled when the program is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// Resolves when all writes that must finish have finished.
    pub async fn settled(&self) {
        self.share_learned().await;
        self.writes.close();
        self.writes.wait().await;
    }

    /// One per worker thread: its own upstream connections.
    pub fn worker(self: &Arc<Self>) -> Arc<Worker> {
        let (pool, stopping) = (self.pools.add(Arc::clone(&self.clock)), self.stopping.child_token());
        Arc::new(Worker { gate: Arc::clone(self), pool, stopping })
    }

    /// Whether this is said for the first time; keeps at most 1024 sayings.
    fn says_first(&self, what: String) -> bool {
        self.said.len() < 1024 && self.said.insert(what)
    }
}

fn lasting_of(lasting: &DashMap<String, Lasting>, site: &str) -> Lasting {
    lasting.entry(site.to_owned()).or_default().clone()
}

/// The gate as one worker thread uses it.
pub struct Worker {
    gate: Arc<Gate>,
    pool: Arc<Pool>,
    /// Each connection waits for it: workers must not share its lock.
    stopping: CancellationToken,
}

impl Worker {
    /// Cancelled when the program is to stop.
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// What time it is for others.
    pub fn time_of_day(&self) -> Timestamp {
        self.gate.clock.time_of_day()
    }

    /// Runs forever, on the worker's runtime: closes upstream connections that nobody uses.
    pub async fn tidy(self: Arc<Self>) {
        Arc::clone(&self.pool).tidy().await;
    }

    /// Answers one request, boxed since several futures hand it on. Never fails: every failure is an answer.
    pub async fn handle(&self, peer: &Peer, request: Box<Request<Option<Incoming>>>) -> Response<Body> {
        let started = Instant::now();
        let (is_head, is_connect) = (request.method() == Method::HEAD, request.method() == Method::CONNECT);
        let mut trace = Trace::begin(&self.gate, peer, &request);
        let answered = caught(pin!(self.exchange(peer, request, &mut trace))).await;
        let mut response = match answered.unwrap_or(Err(Failure::Panicked)) {
            Ok(response) => response,
            Err(failure) => trace.answer(&failure),
        };
        if is_connect {
            response = over_connect(response, &trace);
        }
        trace.settled.apply(response.headers_mut());
        if let Some(site) = &trace.site {
            headers::secure_response(response.headers_mut(), &site.site.headers, trace.authenticated);
            if trace.isolated {
                headers::isolate_response(response.headers_mut(), &site.site.headers);
            }
        }
        if is_head {
            reply::leave_out_content(&mut response);
        }
        let took = started.elapsed();
        let traffic = trace.site.as_ref().map_or(&self.gate.tally.strays, |site| &site.lasting.traffic);
        traffic.answered(response.status(), took);
        trace.log(&response, took);
        response
    }

    /// The story of one request. The order of these lines is the security argument:
    ///
    /// 1. settings are taken once, so that all decisions agree, and the time twice: before and after
    ///    the application was asked, which may take its time;
    /// 2. an ambiguous message, an unknown site or path ends here, before anything was asked;
    /// 3. the session is looked up: a silent store is a 503, never "no session";
    /// 4. cross-site requests end here, before they change anything;
    /// 5. logouts and logins change the session, in that order, before and after the application;
    /// 6. what may not pass is refused;
    /// 7. what may pass is forwarded, its answer cleaned, and what it sets is stored before it leaves.
    async fn exchange(
        &self,
        peer: &Peer,
        request: Box<Request<Option<Incoming>>>,
        trace: &mut Trace,
    ) -> Result<Response<Body>, Failure> {
        let mut exchange = match Exchange::open(self, peer, request, trace)? {
            exchange::Opened::Exchange(exchange) => exchange,
            exchange::Opened::Answered(response) => return Ok(response),
        };
        exchange.find_session().await?;
        if let Some(response) = exchange.refuse_cross_site().or_else(|| exchange.led_here()) {
            return Ok(response);
        }
        if exchange.route.own {
            return exchange.answer_own().await;
        }
        if let Some(response) = exchange.watched().await? {
            return Ok(response);
        }
        if let Some(refusal) = exchange.admit() {
            return Ok(exchange.refuse(refusal));
        }
        exchange.touch().await?;
        exchange.pass().await
    }
}

/// Success is what opens a tunnel over HTTP/2; no other answer may look like it (RFC 8441 5, S123).
fn over_connect(mut response: Response<Body>, trace: &Trace) -> Response<Body> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        *response.status_mut() = StatusCode::OK;
    } else if response.status().is_success() {
        return trace.answer(&Failure::NoTunnel);
    }
    response
}

/// A request that panics ends with an answer: on a connection that only closes, browsers ask again,
/// and others' requests may be on it (S168). `None`: it panicked.
async fn caught<T>(mut request: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    // What it has broken is never seen again: it is not polled any more, and owns all that it changes
    // but the trace, which is only added to.
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| request.as_mut().poll(context))) {
        Ok(poll) => poll.map(Some),
        Err(_said_by_the_hook) => Poll::Ready(None),
    })
    .await
}

/// What a request was refused for, as a response.
fn refusal(refusal: admit::Refusal) -> Response<Body> {
    match refusal {
        admit::Refusal::Denied => reply::text(StatusCode::FORBIDDEN, "This path is closed."),
        admit::Refusal::SignIn(page) => reply::see_other(&page),
        admit::Refusal::Unauthorized => reply::unauthorized(),
    }
}

#[cfg(test)]
mod tests;
