//! The admin surface: lists and ends sessions, says how the service is. On sockets of its own, never
//! on the public ones (S188); on the control runtime, so that no worker waits for it.

mod guard;
mod listen;
mod metrics;
mod place;
mod reply;
mod route;
mod sessions;

use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http::header;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::Semaphore;
use tokio_util::either::Either;

use crate::config::AdminListen;
use crate::config::Config;
use crate::config::ListenAddress;
use crate::proxy::Gate;
use crate::server::Shared;
use crate::store::StoreError;
use crate::store::measured::Measured;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;
use crate::telemetry::ErrorChain;

pub use self::listen::ListenError;
pub use self::place::places;
pub use self::place::places_to_ask;

use self::guard::Caller;
use self::guard::Standing;
use self::guard::Throttle;
use self::guard::Token;
use self::listen::Listener;
use self::listen::Listening;
use self::reply::Reply;
use self::route::Asked;
use self::route::Misread;

/// Connections to a socket at once.
const CONNECTIONS: usize = 32;
/// From one request to the end of the head of the next.
const HEAD: Duration = Duration::from_secs(30);
/// After this long a connection ends with the answer that is under way.
const CONNECTION: Duration = Duration::from_secs(300);
/// Bytes of a head.
const HEAD_BYTES: usize = 16 * 1024;

/// Why there is no admin surface although the configuration wants one.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A place that was asked for cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The token is not where it should be.
    #[error("admin.token: there is nothing to read at {place}")]
    NoToken {
        /// As in the file.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token could be guessed.
    #[error("admin.token: what {place} has is shorter than 128 bits; make one with: openssl rand -hex 32")]
    WeakToken {
        /// As in the file.
        place: String,
    },
}

/// Checks what can be checked without listening.
///
/// # Errors
/// When the token cannot be used.
pub fn check(config: &Config) -> Result<(), AdminError> {
    token(config).map(drop)
}

fn token(config: &Config) -> Result<Option<Token>, AdminError> {
    let Some(secret) = &config.admin.token else { return Ok(None) };
    let place = secret.to_string();
    match secret.read() {
        Err(source) => Err(AdminError::NoToken { place, source }),
        Ok(text) => Token::new(&text).map(Some).ok_or(AdminError::WeakToken { place }),
    }
}

/// The open sockets, and what is behind them. The files of the sockets go with it.
pub struct Admin {
    desk: Arc<Desk>,
    sockets: Vec<Listening>,
}

/// What all connections share.
struct Desk {
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    store: Arc<Measured>,
    token: Option<Token>,
    throttle: Mutex<Throttle>,
}

impl Admin {
    /// Listens. At the usual place it may be that it cannot: then the log says so, and the service runs.
    ///
    /// # Errors
    /// When a place that the file names cannot be listened on, or the token cannot be used.
    pub fn open(
        config: &Config,
        gate: Arc<Gate>,
        shared: Arc<Shared>,
        store: Arc<Measured>,
    ) -> Result<Self, AdminError> {
        let token = token(config)?;
        let mut sockets = Vec::new();
        for place in places(config) {
            match Listening::open(&place) {
                Ok(socket) => sockets.push(socket),
                Err(error) if config.admin.listen == AdminListen::Usual => {
                    tracing::warn!(event = "admin.unavailable", error = %ErrorChain(&error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let throttle = Mutex::default();
        Ok(Self { desk: Arc::new(Desk { gate, shared, store, token, throttle }), sockets })
    }

    /// Where it listens (ports resolved).
    pub fn places(&self) -> Vec<ListenAddress> {
        self.sockets.iter().map(|socket| socket.place.clone()).collect()
    }

    /// Accepts on all sockets, in tasks of the runtime in which it is called.
    ///
    /// # Errors
    /// When the runtime does not take a socket.
    pub fn serve(&self) -> io::Result<()> {
        for socket in &self.sockets {
            let (listener, desk) = (socket.listener()?, Arc::clone(&self.desk));
            tokio::spawn(async move { desk.accept(&listener).await });
        }
        Ok(())
    }
}

impl Desk {
    async fn accept(self: Arc<Self>, listener: &Listener) {
        // For each socket: whoever may connect to one must not keep others from another.
        let all = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // Before accepting: who finds no room waits in the queue of the socket.
            let Ok(room) = Arc::clone(&all).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((Either::Left(stream), caller)) => drop(tokio::spawn(Arc::clone(&self).serve(stream, caller, room))),
                Ok((Either::Right(stream), caller)) => {
                    drop(tokio::spawn(Arc::clone(&self).serve(stream, caller, room)))
                }
                Err(error) => {
                    tracing::warn!(event = "accept.failed", error = %error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve<S>(self: Arc<Self>, stream: S, caller: Caller, _room: OwnedSemaphorePermit)
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(move |request| {
            let desk = Arc::clone(&self);
            async move { Ok::<_, Infallible>(desk.answer(caller, &request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        // How a connection ends is the caller's business.
        if tokio::time::timeout(CONNECTION, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _cut = tokio::time::timeout(CONNECTION, connection).await;
        }
    }

    async fn answer(&self, caller: Caller, request: &Request<Incoming>) -> Reply {
        let path = request.uri().path();
        if let (Caller::Remote(_), false) = (caller, route::is_open(path))
            && let Some(refusal) = self.refuse(caller, request)
        {
            return refusal;
        }
        let asked = match route::read(request.method(), path, request.uri().query().unwrap_or("")) {
            Ok(asked) => asked,
            Err(misread) => return explain(&misread),
        };
        if guard::is_from_a_page(request.method(), request.headers()) {
            return reply::problem(StatusCode::FORBIDDEN, "No page in a browser may do this.");
        }
        self.carry_out(asked, caller).await.unwrap_or_else(|error| {
            telemetry::audit(&Context::default(), &Audit::StoreFailed { error: &error });
            unavailable("The session store does not answer.")
        })
    }

    /// The answer to a caller who may not ask.
    fn refuse(&self, caller: Caller, request: &Request<Incoming>) -> Option<Reply> {
        let mut throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        let standing = throttle.judge(self.token.as_ref(), request.headers(), self.gate.now());
        drop(throttle);
        let (status, detail, name, value) = match standing {
            Standing::Allowed => return None,
            Standing::Missing | Standing::Wrong => {
                (StatusCode::UNAUTHORIZED, "This needs the token.", header::WWW_AUTHENTICATE, "Bearer")
            }
            Standing::Throttled => (StatusCode::TOO_MANY_REQUESTS, "Too many wrong tokens.", header::RETRY_AFTER, "60"),
        };
        if standing == Standing::Wrong {
            let context = match caller {
                Caller::Remote(address) => Context { client: Some(address), ..Context::default() },
                Caller::Local(_) => Context::default(),
            };
            telemetry::audit(&context, &Audit::AdminRefused);
        }
        Some(reply::problem_with(status, detail, name, value))
    }

    async fn carry_out(&self, asked: Asked, caller: Caller) -> Result<Reply, StoreError> {
        match asked {
            Asked::Health => Ok(reply::text("ok\n")),
            Asked::Readiness => Ok(self.readiness().await),
            Asked::Metrics => Ok(self.metrics().await),
            Asked::Description => {
                let description = Bytes::from_static(include_bytes!("openapi.json"));
                Ok(reply::answer(StatusCode::OK, "application/json", description))
            }
            Asked::Learned => {
                let sites = self.gate.learned().into_iter();
                let sites: Vec<_> = sites.map(|(site, cookies)| json!({ "site": site, "cookies": cookies })).collect();
                Ok(reply::json(&json!({ "sites": sites })))
            }
            Asked::List { user, from, limit } => {
                sessions::list(&self.gate, user.as_ref(), from.as_deref(), limit).await
            }
            Asked::Show(session_ref) => sessions::show(&self.gate, &session_ref).await,
            Asked::Revoke(whose) => sessions::revoke(&self.gate, whose, caller).await,
        }
    }

    /// Says what is wrong: whoever may ask this may know it.
    async fn readiness(&self) -> Reply {
        if self.gate.stopping().is_cancelled() {
            return unavailable("The service is stopping.");
        }
        if !self.shared.beats.all_live() {
            return unavailable("A worker does not go on.");
        }
        match self.gate.store().ready().await {
            Ok(()) => reply::text("ok\n"),
            // Not logged: whoever asks does so every few seconds.
            Err(_) => unavailable("The session store does not answer, or keeps nothing new."),
        }
    }
}

fn unavailable(detail: &str) -> Reply {
    reply::problem_with(StatusCode::SERVICE_UNAVAILABLE, detail, header::RETRY_AFTER, "5")
}

fn explain(misread: &Misread) -> Reply {
    match misread {
        Misread::NoEndpoint => reply::problem(StatusCode::NOT_FOUND, "There is no such endpoint."),
        Misread::Method(allow) => {
            let detail = "This endpoint has other methods.";
            reply::problem_with(StatusCode::METHOD_NOT_ALLOWED, detail, header::ALLOW, allow)
        }
        Misread::Query(wrong) => reply::problem(StatusCode::BAD_REQUEST, &format!("The query: {wrong}.")),
    }
}
