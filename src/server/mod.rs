//! Listeners and connections: one thread per worker, each with its own runtime, its own listening
//! sockets and its own upstream connections, so that nothing on the path is shared.

mod activity;
mod alive;
mod certificates;
mod clients;
mod connection;
mod cork;
pub mod descriptors;
mod door;
mod entrance;
mod frames;
pub mod heap;
mod http1;
mod listen;
mod proxy_protocol;
mod redirect;
mod seldom;
mod spread;
pub mod tls;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::metrics::Counters;
use crate::metrics::Kind;
use crate::metrics::Text;
use crate::policy::site::Limits;
use crate::policy::site::Origin;
use crate::policy::site::Timeouts;
use crate::proxy::Gate;

pub use self::listen::BadSocket;
pub use self::listen::BindError;
pub use self::listen::Inherited;
pub use self::listen::Socket;
pub use self::listen::bind;
pub(crate) use self::listen::is_left_over;

use self::alive::Beats;
use self::door::Door;
use self::entrance::Entrance;
use self::listen::Acceptor;
use self::spread::Handed;
use self::spread::Spread;
use self::tls::Tls;

/// How a handshake can end.
const HANDSHAKES: [&str; 3] = ["ok", "failed", "timeout"];
const OK: usize = 0;
const FAILED: usize = 1;
const TIMEOUT: usize = 2;

/// What all connections share; the parts that a reload may change are swapped.
pub struct Shared {
    gate: Arc<Gate>,
    tls: Arc<Tls>,
    door: Door,
    spread: Spread,
    entrance: ArcSwap<Entrance>,
    timeouts: ArcSwap<Timeouts>,
    limits: ArcSwap<Limits>,
    /// Where plain HTTP is sent, by host name.
    origins: ArcSwap<HashMap<String, Origin>>,
    /// For the watchdog.
    pub(crate) beats: Beats,
    handshakes: Counters<{ HANDSHAKES.len() }>,
    stop: CancellationToken,
    /// Ends the drain at once.
    cut: CancellationToken,
}

impl Shared {
    /// What connections share under this configuration.
    pub fn new(config: &Config, gate: Arc<Gate>, tls: Arc<Tls>, workers: usize) -> Arc<Self> {
        Arc::new(Self {
            stop: gate.stopping().clone(),
            gate,
            tls,
            door: Door::default(),
            spread: Spread::new(workers),
            entrance: ArcSwap::from_pointee(Entrance::new(config)),
            timeouts: ArcSwap::from_pointee(config.timeouts.clone()),
            limits: ArcSwap::from_pointee(config.connection_limits()),
            origins: ArcSwap::from_pointee(origins(config)),
            beats: Beats::new(workers),
            handshakes: Counters::default(),
            cut: CancellationToken::new(),
        })
    }

    /// Applies what a reload may change; new connections see it.
    pub fn reload(&self, config: &Config) {
        self.entrance.store(Arc::new(Entrance::new(config)));
        self.timeouts.store(Arc::new(config.timeouts.clone()));
        self.limits.store(Arc::new(config.connection_limits()));
        self.origins.store(Arc::new(origins(config)));
    }

    /// What was counted of connections.
    pub fn write_metrics(&self, text: &mut Text) {
        let name = "vestibule_tls_handshakes_total";
        text.family(name, Kind::Counter, "TLS handshakes with clients.");
        for (result, count) in HANDSHAKES.iter().zip(self.handshakes.read()) {
            text.sample(name, &[("result", result)], count);
        }
        let name = "vestibule_connections_open";
        text.family(name, Kind::Gauge, "Connections of clients, tunnels among them.");
        text.sample(name, &[], self.door.inside());
    }

    /// Stops accepting; requests under way may finish within the `drain` timeout.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Completes when even the drain is to end.
    pub async fn cut_short(&self) {
        self.cut.cancelled().await;
    }

    /// Ends what is still under way.
    pub fn cut(&self) {
        self.stop.cancel();
        self.cut.cancel();
    }
}

/// Host names, of origins and aliases, and the origin that each belongs to.
fn origins(config: &Config) -> HashMap<String, Origin> {
    let mut origins = HashMap::new();
    for site in &config.sites {
        origins.entry(site.origin.host.clone()).or_insert_with(|| site.origin.clone());
        for alias in &site.aliases {
            origins.entry(alias.host.clone()).or_insert_with(|| site.origin.clone());
        }
    }
    origins
}

/// Starts a worker on a thread of its own.
///
/// # Errors
/// When the system gives no thread.
pub fn start_worker(shared: &Arc<Shared>, number: usize, sockets: Sockets) -> std::io::Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    // Here, so that they all take part before the first of them is said to run.
    let handed = shared.spread.join(number);
    thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(event = "worker.failed", error = %error);
                return;
            }
        };
        runtime.block_on(work(shared, number, sockets, handed));
        // Tunnels and other tasks that are left are cut here.
        runtime.shutdown_timeout(Duration::from_millis(100));
    })
}

/// The listening sockets of one worker.
pub struct Sockets {
    /// TLS.
    pub https: Vec<Socket>,
    /// Plain HTTP, for redirects.
    pub http: Vec<Socket>,
}

async fn work(shared: Arc<Shared>, number: usize, sockets: Sockets, handed: UnboundedReceiver<Handed>) {
    let beating = Arc::clone(&shared);
    tokio::spawn(async move { beating.beats.beat(number).await });
    let worker = shared.gate.worker();
    tokio::spawn(Arc::clone(&worker).tidy());
    let connections = shared.spread.of(number);
    let mut accepting = JoinSet::new();
    let serve = connection::secure(Arc::clone(&shared), worker);
    accepting.spawn(listen::take_over(handed, Arc::clone(&shared), serve.clone()));
    for socket in sockets.https {
        let by = Acceptor { worker: number, hands_over: true };
        accepting.spawn(listen::accept(socket, Arc::clone(&shared), by, serve.clone()));
    }
    for socket in sockets.http {
        let serve = redirect::plain(Arc::clone(&shared));
        // They do not stay.
        let by = Acceptor { worker: number, hands_over: false };
        accepting.spawn(listen::accept(socket, Arc::clone(&shared), by, serve));
    }
    while accepting.join_next().await.is_some() {}
    let drain = shared.timeouts.load().drain;
    connections.close();
    tokio::select! {
        () = connections.wait() => {}
        () = tokio::time::sleep(drain) => tracing::warn!(event = "drain.cut", after_s = drain.as_secs()),
        () = shared.cut.cancelled() => {}
    }
}

/// The addresses that sockets listen on.
pub fn addresses(sockets: &[Socket]) -> Vec<SocketAddr> {
    sockets.iter().filter_map(Socket::address).collect()
}
