//! The request path: the pipeline and what it calls.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;

use crate::clock::Clock;
use crate::config::Config;
use crate::store::SessionStore;

/// The body of every response.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// True of every request on one connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The TCP peer; `None` on a unix socket.
    pub address: Option<SocketAddr>,
    /// The name the client asked for in the TLS handshake, lower case.
    pub server_name: Option<String>,
}

/// What all workers share: the settings, the sessions, the clock.
pub struct Gate {}

impl Gate {
    /// A gate for this configuration.
    ///
    /// # Errors
    /// When an upstream's TLS files cannot be used.
    pub fn new(config: &Config, store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>) -> Result<Arc<Self>, GateError> {
        let _ = (config, store, clock);
        Ok(Arc::new(Self {}))
    }

    /// Swaps the settings; requests under way finish under the old ones. All or nothing.
    ///
    /// # Errors
    /// When an upstream's TLS files cannot be used; nothing was changed then.
    pub fn reload(&self, config: &Config) -> Result<(), GateError> {
        let _ = config;
        Ok(())
    }

    /// Runs forever: ends sessions whose time is up and closes their streams. On the control runtime.
    pub async fn watch_sessions(self: Arc<Self>) {
        std::future::pending::<()>().await;
    }

    /// Resolves when all writes that must finish have finished.
    pub async fn settled(&self) {}

    /// One per worker thread: its own upstream connections.
    pub fn worker(self: &Arc<Self>) -> Arc<Worker> {
        Arc::new(Worker { _gate: Arc::clone(self) })
    }
}

/// Why a gate cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("upstream TLS: {0}")]
pub struct GateError(String);

/// The gate as one worker thread uses it.
pub struct Worker {
    _gate: Arc<Gate>,
}

impl Worker {
    /// Answers one request. Never fails: every failure is an answer.
    pub async fn handle(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        let _ = (peer, request);
        Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync())
    }
}
