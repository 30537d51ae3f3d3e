//! One place that commands are sent to, and the connection to whoever is there at the moment.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use redis::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::store::redis::answer;
use crate::store::redis::cache::Cache;
use crate::store::redis::link::Dialer;
use crate::store::redis::link::Link;
use crate::store::redis::link::LinkError;
use crate::store::redis::settings::ServerAddress;

/// How long a request waits for a connection that has just been lost; later ones fail at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// Pauses between attempts to connect: from, to.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// How often the sentinels are asked whether it is still the same.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A master that no sentinel has named for so long may be a former one.
const UNVOUCHED: Duration = Duration::from_secs(5);

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
    /// The number of the proof that is asked of it: of a cluster's node one in a slot that it serves, since others
    /// say of their slots only where they are.
    proof: Arc<AtomicU32>,
    state: Arc<watch::Sender<State>>,
    /// Ends what keeps it connected.
    _stops: DropGuard,
}

impl Node {
    /// A node that is kept connected from now on. On the store's own runtime.
    pub(super) fn start(place: Place, proof: u32, dialer: Arc<Dialer>, cache: Arc<Cache>) -> Arc<Self> {
        let proof = Arc::new(AtomicU32::new(proof));
        let state = Arc::new(watch::Sender::new(State::Down(Instant::now())));
        let stop = CancellationToken::new();
        let keeper =
            Keeper { place: place.clone(), proof: Arc::clone(&proof), dialer, cache, state: Arc::clone(&state) };
        tokio::spawn(stop.clone().run_until_cancelled_owned(keeper.keep()));
        Arc::new(Self { place, proof, state, _stops: stop.drop_guard() })
    }

    /// The number of the proof that is asked of it.
    pub(super) fn proof(&self) -> u32 {
        self.proof.load(Ordering::Relaxed)
    }

    /// Has another proof asked of it.
    pub(super) fn prove_by(&self, number: u32) {
        self.proof.store(number, Ordering::Relaxed);
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
    proof: Arc<AtomicU32>,
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
            Place::Master(name) => self.master(name, None).await?,
        };
        Link::open(&self.dialer, address, &self.cache, &self.proof).await
    }

    /// Lets requests use the connection until it is of no use any more.
    async fn serve(&self, link: Arc<Link>) -> LinkError {
        // What was read before the server said what changes.
        self.cache.forget_all();
        let error = tokio::select! {
            error = self.offer(&link) => error,
            error = self.replaced(&link.address) => error,
        };
        self.state.send_replace(State::Down(Instant::now()));
        link.close();
        error
    }

    /// The same, but for times when the server has too few replicas to change anything. It goes on saying what
    /// changes, so that what is known is as exact as before when its replicas are heard from again.
    async fn offer(&self, link: &Arc<Link>) -> LinkError {
        loop {
            self.state.send_replace(State::Up(Arc::clone(link)));
            tracing::info!(event = "store.connected", server = %link.address);
            let error = link.watch().await;
            if !error.is_lack_of_replicas() {
                return error;
            }
            tracing::warn!(event = "store.lost", server = self.place.name(), error = chain(&error));
            self.state.send_replace(State::Down(Instant::now()));
            if let Err(error) = link.replicated().await {
                return error;
            }
        }
    }

    /// Completes when the sentinels name another master, or none of them says anything any more: the old one
    /// may know nothing of that, and still answer (S185).
    async fn replaced(&self, address: &ServerAddress) -> LinkError {
        let Place::Master(name) = &self.place else { return std::future::pending().await };
        let mut vouched = Instant::now();
        loop {
            tokio::time::sleep(ASK_EVERY).await;
            match self.master(name, Some(address)).await {
                Ok(by) if by == *address => vouched = Instant::now(),
                Ok(by) => return LinkError::Replaced { address: address.clone(), by },
                Err(error) if vouched.elapsed() >= UNVOUCHED => return error,
                Err(_) => {}
            }
        }
    }

    /// Asks the sentinels, all at once, until more than half of them have named it and agree: one that was cut
    /// off from the others still names the former master, and one that is new may know nothing.
    async fn master(&self, name: &str, current: Option<&ServerAddress>) -> Result<ServerAddress, LinkError> {
        let sentinels = &self.dialer.settings.servers;
        let mut asking = JoinSet::new();
        for sentinel in sentinels {
            let (dialer, sentinel, name) = (Arc::clone(&self.dialer), sentinel.clone(), name.to_owned());
            asking.spawn(async move { named_by(&dialer, &sentinel, &name).await });
        }
        let (mut named, mut failure) = (Vec::with_capacity(sentinels.len()), None);
        while (named.len() <= sentinels.len() / 2 || !is_agreed(&named))
            && let Some(answer) = asking.join_next().await
        {
            match answer {
                Ok(Ok(found)) => named.extend(found),
                Ok(Err(error)) => failure = Some(Box::new(error)),
                // It panicked: it has not answered.
                Err(_) => {}
            }
        }
        let unknown = || LinkError::NoMaster { master: name.to_owned(), source: failure };
        elected(&named, current).cloned().ok_or_else(unknown)
    }
}

/// A master, and since which change of masters.
type Named = (u64, ServerAddress);

/// Whether those who know the latest change name the same.
fn is_agreed(named: &[Named]) -> bool {
    let latest = named.iter().map(|(epoch, _)| *epoch).max();
    let mut latest = named.iter().filter(|(epoch, _)| Some(*epoch) == latest);
    let first = latest.next();
    latest.all(|other| Some(other) == first)
}

/// Who is master: of the latest change what most say; as long as they are as many, nothing changes. They do not
/// all call it the same, or may not say since which change.
fn elected<'a>(named: &'a [Named], current: Option<&ServerAddress>) -> Option<&'a ServerAddress> {
    let votes = |one: &Named| named.iter().filter(|other| *other == one).count();
    let best = named.iter().max_by_key(|one| (one.0, votes(one), Some(&one.1) == current, &one.1));
    best.map(|(_, address)| address)
}

/// Who is master according to a sentinel, if it knows.
async fn named_by(dialer: &Dialer, sentinel: &ServerAddress, name: &str) -> Result<Option<Named>, LinkError> {
    let asked = dialer.ask(sentinel, true).await?;
    let known = asked.ask(redis::cmd("SENTINEL").arg("MASTER").arg(name)).await;
    let epoch = known.ok().and_then(answer::pairs).into_iter().flatten().find(|[field, _]| field == b"config-epoch");
    let epoch = epoch.and_then(|[_, epoch]| std::str::from_utf8(&epoch).ok()?.parse().ok()).unwrap_or_default();
    let place = asked.ask(redis::cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name)).await?;
    let Value::Array(place) = place else { return Ok(None) };
    let mut words = place.into_iter().map(|word| String::from_utf8(answer::bytes(word)?).ok());
    let (Some(Some(host)), Some(Some(port))) = (words.next(), words.next()) else { return Ok(None) };
    Ok(port.parse().ok().map(|port| (epoch, ServerAddress::Tcp { host, port })))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said, who it is, who it is then, and whether all say so.
    type Case = (&'static [(u64, &'static str)], &'static str, Option<&'static str>, bool);

    #[test]
    fn of_those_who_name_a_master_the_latest_count_then_the_most_then_who_it_is() {
        // S185
        let at = |host: &str| ServerAddress::Tcp { host: host.to_owned(), port: 6379 };
        let cases: [Case; 8] = [
            (&[], "a", None, true),
            (&[(1, "a")], "b", Some("a"), true),
            (&[(1, "a"), (2, "b")], "a", Some("b"), true),
            (&[(2, "b"), (1, "a"), (1, "a")], "a", Some("b"), true),
            (&[(0, "a"), (0, "b"), (0, "b")], "a", Some("b"), false),
            (&[(0, "a"), (0, "b")], "a", Some("a"), false),
            (&[(0, "b"), (0, "a")], "b", Some("b"), false),
            (&[(0, "a"), (0, "b")], "c", Some("b"), false),
        ];
        for (named, current, expected, is_said_by_all) in cases {
            let said: Vec<Named> = named.iter().map(|(epoch, host)| (*epoch, at(host))).collect();
            assert_eq!(elected(&said, Some(&at(current))), expected.map(at).as_ref(), "{named:?}");
            assert_eq!(is_agreed(&said), is_said_by_all, "{named:?}");
        }
    }
}
