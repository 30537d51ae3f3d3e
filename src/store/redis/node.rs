//! One place that commands are sent to, and the connection to whoever is there at the moment.

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use redis::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::store::redis::cache::Cache;
use crate::store::redis::link::Dialer;
use crate::store::redis::link::Link;
use crate::store::redis::link::LinkError;
use crate::store::redis::settings::ServerAddress;

/// How long a request waits for a connection that has just been lost; later ones fail at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect: from, to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// How often the sentinels are asked whether it is still the same.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// Who is in that place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Always this server.
    Fixed(ServerAddress),
    /// Whoever the sentinels name.
    Master(String),
}

impl Place {
    fn name(&self) -> String {
        match self {
            Self::Fixed(address) => address.to_string(),
            Self::Master(name) => name.clone(),
        }
    }
}

enum State {
    Down(Instant),
    Up(Arc<Link>),
}

/// A place, and the connection to it.
pub(super) struct Node {
    pub(super) place: Place,
    state: Arc<watch::Sender<State>>,
    /// Ends what keeps it connected.
    _stops: DropGuard,
}

impl Node {
    /// A node that is kept connected from now on. On the store's own runtime.
    pub(super) fn start(place: Place, dialer: Arc<Dialer>, cache: Arc<Cache>) -> Arc<Self> {
        let state = Arc::new(watch::Sender::new(State::Down(Instant::now())));
        let stop = CancellationToken::new();
        let keeper = Keeper { place: place.clone(), dialer, cache, state: Arc::clone(&state) };
        tokio::spawn(stop.clone().run_until_cancelled_owned(keeper.keep()));
        Arc::new(Self { place, state, _stops: stop.drop_guard() })
    }

    /// Whether it is connected at this moment.
    pub(super) fn is_up(&self) -> bool {
        match &*self.state.borrow() {
            State::Up(link) => !link.is_lost(),
            State::Down(_) => false,
        }
    }

    /// Whether what is known of its records is exact.
    pub(super) fn is_trusted(&self) -> bool {
        match &*self.state.borrow() {
            State::Up(link) => link.is_trusted(),
            State::Down(_) => false,
        }
    }

    /// The connection; waits a moment for one that was just lost, and for none that is lost for longer.
    pub(super) async fn link(&self) -> Result<Arc<Link>, LinkError> {
        let down = || LinkError::Down { place: self.place.name() };
        let left = match &*self.state.borrow() {
            State::Up(link) if link.is_stalled() => return Err(down()),
            State::Up(link) if !link.is_lost() => return Ok(Arc::clone(link)),
            State::Up(_) => PATIENCE,
            State::Down(since) => PATIENCE.saturating_sub(since.elapsed()),
        };
        let mut states = self.state.subscribe();
        let up = states.wait_for(|state| matches!(state, State::Up(link) if !link.is_lost()));
        match tokio::time::timeout(left, up).await {
            Ok(Ok(state)) => match &*state {
                State::Up(link) => Ok(Arc::clone(link)),
                State::Down(_) => Err(down()),
            },
            Ok(Err(_)) | Err(_) => Err(down()),
        }
    }

    /// Completes when it is connected.
    pub(super) async fn connected(&self) {
        let mut states = self.state.subscribe();
        // The sender lives in `self`.
        let _connected = states.wait_for(|state| matches!(state, State::Up(_))).await;
    }
}

/// Keeps a node connected.
struct Keeper {
    place: Place,
    dialer: Arc<Dialer>,
    cache: Arc<Cache>,
    state: Arc<watch::Sender<State>>,
}

impl Keeper {
    async fn keep(self) {
        let mut pause = PAUSES.0;
        let mut is_said = false;
        loop {
            match self.open().await {
                Ok(link) => {
                    pause = PAUSES.0;
                    is_said = false;
                    let error = self.serve(Arc::new(link)).await;
                    tracing::warn!(event = "store.lost", server = self.place.name(), error = chain(&error));
                }
                Err(error) => {
                    if !is_said {
                        tracing::error!(event = "store.unreachable", server = self.place.name(), error = chain(&error));
                        is_said = true;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    async fn open(&self) -> Result<Link, LinkError> {
        let address = match &self.place {
            Place::Fixed(address) => address.clone(),
            Place::Master(name) => self.master(name).await?,
        };
        Link::open(&self.dialer, address, &self.cache).await
    }

    /// Lets requests use the connection until it is of no use any more.
    async fn serve(&self, link: Arc<Link>) -> LinkError {
        tracing::info!(event = "store.connected", server = %link.address);
        // What was read before the server said what changes.
        self.cache.forget_all();
        self.state.send_replace(State::Up(Arc::clone(&link)));
        let error = tokio::select! {
            error = link.watch() => error,
            error = self.replaced(&link.address) => error,
        };
        self.state.send_replace(State::Down(Instant::now()));
        link.close();
        error
    }

    /// Completes when the sentinels name another master: the old one may know nothing of that, and still
    /// answer. Sentinels that do not answer depose nobody.
    async fn replaced(&self, address: &ServerAddress) -> LinkError {
        let Place::Master(name) = &self.place else { return std::future::pending().await };
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            if let Ok(by) = self.master(name).await
                && by != *address
            {
                return LinkError::Replaced { address: address.clone(), by };
            }
        }
    }

    /// Asks the sentinels, one after the other.
    async fn master(&self, name: &str) -> Result<ServerAddress, LinkError> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut failure = None;
        for sentinel in &self.dialer.settings.servers {
            let answer = match self.dialer.ask(sentinel, true).await {
                Ok(asked) => asked.ask(&command).await,
                Err(error) => Err(error),
            };
            match answer {
                Ok(Value::Array(place)) => {
                    if let [Value::BulkString(host), Value::BulkString(port)] = &place[..]
                        && let (Ok(host), Ok(port)) = (std::str::from_utf8(host), std::str::from_utf8(port))
                        && let Ok(port) = port.parse()
                    {
                        return Ok(ServerAddress::Tcp { host: host.to_owned(), port });
                    }
                }
                Ok(_) => {}
                Err(error) => failure = Some(Box::new(error)),
            }
        }
        Err(LinkError::NoMaster { master: name.to_owned(), source: failure })
    }
}

/// An error with all its causes.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
