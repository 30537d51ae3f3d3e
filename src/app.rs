//! The composition root: parts are built here, in one readable function, from one `Config`; parts do
//! not find each other.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::runtime::Runtime;

use crate::admin;
use crate::admin::Admin;
use crate::admin::AdminError;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::AdminSettings;
use crate::config::Config;
use crate::config::Listen;
use crate::config::ListenAddress;
use crate::proxy::Gate;
use crate::proxy::GateError;
use crate::secret::Secret;
use crate::server;
use crate::server::BadSocket;
use crate::server::BindError;
use crate::server::Inherited;
use crate::server::Shared;
use crate::server::Sockets;
use crate::server::tls::Tls;
use crate::server::tls::TlsError;
use crate::store;
use crate::store::OpenError;
use crate::store::SessionStore;
use crate::store::StoreSettings;
use crate::store::measured::Measured;

/// A running Vestibule.
pub struct Running {
    /// Where TLS is served (ports resolved).
    pub https: Vec<SocketAddr>,
    /// Where plain HTTP is redirected (ports resolved).
    pub http: Vec<SocketAddr>,
    /// Where the admin interface listens (ports resolved).
    pub admin: Vec<ListenAddress>,
    parts: Arc<Parts>,
    workers: Vec<JoinHandle<()>>,
    control: Runtime,
    /// Kept for the files of its sockets, which go with it.
    _admin: Admin,
}

struct Parts {
    gate: Arc<Gate>,
    tls: Arc<Tls>,
    shared: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// What cannot change without a restart.
    listen: Listen,
    store: StoreSettings,
    store_keys: Vec<Secret>,
    admin: AdminSettings,
    reloading: Mutex<()>,
}

/// Why it does not start, or does not take a new configuration.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The session store cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// A socket that systemd passed cannot be used.
    #[error(transparent)]
    Inherited(#[from] BadSocket),
    /// A certificate cannot be used.
    #[error("[tls]")]
    Tls(#[from] TlsError),
    /// An upstream, or what signs assertions, cannot be used.
    #[error("{}", .0.section())]
    Gate(#[from] GateError),
    /// The admin interface cannot be had as the file says.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The system gives no thread or runtime.
    #[error("the system gives no thread")]
    Thread(#[source] std::io::Error),
    /// A key that a reload cannot change.
    #[error("{keys} changed, which needs a restart; nothing was reloaded")]
    NeedsRestart {
        /// The keys, joined.
        keys: String,
    },
}

impl StartError {
    /// Whether the configuration has to be mended, or a file that it names.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Tls(_) | Self::Gate(_) => true,
            Self::Store(error) => error.is_configuration(),
            Self::Admin(error) => !matches!(error, AdminError::Listen(_)),
            Self::Bind(_) | Self::Inherited(_) | Self::Thread(_) | Self::NeedsRestart { .. } => false,
        }
    }
}

/// Reads the files that a configuration names, as a start would. Returns what is wrong with them
/// although they can be used.
///
/// # Errors
/// When one of them cannot be used.
pub fn check(config: &Config, now: Timestamp) -> Result<Vec<String>, StartError> {
    let warnings = Tls::new(config)?.warnings(now);
    Gate::check(config)?;
    store::check(&config.store, &config.store_keys)?;
    admin::check(config)?;
    Ok(warnings)
}

/// Starts everything: workers on their own threads, the control runtime on another.
///
/// # Errors
/// When something the configuration names cannot be used.
pub fn start(config: &Config, clock: Arc<dyn Clock>) -> Result<Running, StartError> {
    if let Some(warning) = server::descriptors::take_all(config) {
        tracing::warn!(event = "descriptors.few", help = warning);
    }
    server::heap::keep_some();
    let (store, clock) = store::open(&config.store, &config.store_keys, clock)?;
    start_with_store(config, store, clock)
}

/// The same with a store that is open already.
///
/// # Errors
/// When something the configuration names cannot be used.
pub fn start_with_store(
    config: &Config,
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
) -> Result<Running, StartError> {
    let tls = Tls::new(config)?;
    tls.say_warnings(clock.now());
    let store = Measured::new(store);
    let gate = Gate::new(config, Arc::<Measured>::clone(&store), Arc::clone(&clock))?;
    let count = config.listen.workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
    let shared = Shared::new(config, Arc::clone(&gate), Arc::clone(&tls), count);
    let mut inherited = Inherited::from_environment()?;
    let https = server::bind(&config.listen.https, count, &mut inherited)?;
    let http = server::bind(&config.listen.http, count, &mut inherited)?;
    inherited.finish()?;
    let admin = Admin::open(config, Arc::clone(&gate), Arc::clone(&shared), store)?;
    let sockets: Vec<Sockets> = https.into_iter().zip(http).map(|(https, http)| Sockets { https, http }).collect();
    let https = sockets.first().map_or_else(Vec::new, |sockets| server::addresses(&sockets.https));
    let http = sockets.first().map_or_else(Vec::new, |sockets| server::addresses(&sockets.http));
    let control = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("control")
        .enable_all()
        .build()
        .map_err(StartError::Thread)?;
    // Before the first request, so that it is treated as it was before a restart.
    control.block_on(gate.share_learned());
    control.spawn(Arc::clone(&gate).watch_sessions());
    control.spawn(Arc::clone(&gate).watch_upstreams());
    control.spawn(Arc::clone(&gate).watch_keys());
    control.spawn(Arc::clone(&tls).follow_files(Arc::clone(&clock)));
    let watched = Arc::clone(&shared);
    control.spawn(async move { watched.beats.report().await });
    control.block_on(async { admin.serve() }).map_err(StartError::Thread)?;
    let mut workers = Vec::new();
    for (number, sockets) in sockets.into_iter().enumerate() {
        workers.push(server::start_worker(&shared, number, sockets).map_err(StartError::Thread)?);
    }
    let parts = Arc::new(Parts {
        gate,
        tls,
        shared,
        clock,
        listen: config.listen.clone(),
        store: config.store.clone(),
        store_keys: config.store_keys.clone(),
        admin: config.admin.clone(),
        reloading: Mutex::default(),
    });
    Ok(Running { https, http, admin: admin.places(), parts, workers, control, _admin: admin })
}

/// Tells a running Vestibule from another thread to take a new configuration or to stop.
#[derive(Clone)]
pub struct Remote {
    parts: Arc<Parts>,
}

impl Remote {
    /// Takes a new configuration, all or nothing; sessions and connections stay.
    ///
    /// # Errors
    /// When it cannot be used; nothing was changed then.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        let parts = &self.parts;
        let _one_at_a_time = parts.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = [
            ("listen.https", parts.listen.https != config.listen.https),
            ("listen.http", parts.listen.http != config.listen.http),
            ("listen.workers", parts.listen.workers != config.listen.workers),
            ("store.url", parts.store != config.store),
            ("store.key", parts.store_keys != config.store_keys),
            ("admin.listen", parts.admin.listen != config.admin.listen),
            ("admin.token", parts.admin.token != config.admin.token),
        ];
        let changed: Vec<_> = fixed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect();
        if !changed.is_empty() {
            return Err(StartError::NeedsRestart { keys: changed.join(", ") });
        }
        let prepared = parts.tls.prepare(config)?;
        parts.gate.reload(config)?;
        parts.tls.apply(prepared);
        parts.tls.say_warnings(parts.clock.now());
        parts.shared.reload(config);
        Ok(())
    }

    /// Looks at the certificate files at once.
    pub fn look_at_certificates(&self) {
        self.parts.tls.look(self.parts.clock.now());
    }

    /// Stops accepting; requests under way may finish within the `drain` timeout.
    pub fn stop(&self) {
        self.parts.shared.stop();
    }

    /// Ends what is still under way.
    pub fn cut(&self) {
        self.parts.shared.cut();
    }
}

impl Running {
    /// A handle for other threads.
    pub fn remote(&self) -> Remote {
        Remote { parts: Arc::clone(&self.parts) }
    }

    /// Returns when it has been told to stop and everything has ended.
    pub fn wait(self) {
        for worker in self.workers {
            // A worker that panicked has said so; the others are still waited for.
            let _panicked = worker.join();
        }
        // Unless it is told twice, nothing that must be written is left unwritten.
        self.control.block_on(async {
            tokio::select! {
                () = self.parts.gate.settled() => {}
                () = self.parts.shared.cut_short() => {}
            }
        });
        self.control.shutdown_background();
    }

    /// Stops and waits until everything has ended.
    pub fn stop(self) {
        self.parts.shared.stop();
        self.wait();
    }
}
