//! Which node serves a key, and the way of a command to it and back.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::Cmd;
use redis::ErrorKind;
use redis::RedisError;
use redis::ServerErrorKind;
use redis::Value;
use tokio::sync::Notify;
use tokio::sync::watch;

use crate::store::redis::cache::Cache;
use crate::store::redis::link::Dialer;
use crate::store::redis::link::LinkError;
use crate::store::redis::names;
use crate::store::redis::names::Names;
use crate::store::redis::node::Node;
use crate::store::redis::node::Place;
use crate::store::redis::node::chain;
use crate::store::redis::settings::Form;
use crate::store::redis::settings::ServerAddress;

/// How often a command is sent at most: again on a new connection, or where a cluster sends it to.
const ATTEMPTS: usize = 4;
/// How often the nodes of a cluster are asked who serves what.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// How long a command waits for a new division of a cluster.
const REDIVIDE: Duration = Duration::from_millis(500);

/// First and last slot, and who serves them.
type Range<T> = (u16, u16, T);

/// Whether somebody serves a slot.
fn is_served<T>(ranges: &[Range<T>], slot: u16) -> bool {
    ranges.iter().any(|(first, last, _)| (*first..=*last).contains(&slot))
}

fn nobody() -> LinkError {
    LinkError::Odd("no node of the cluster is known")
}

/// The nodes, and which slots they serve.
#[derive(Clone, Default)]
struct Division {
    nodes: Vec<Arc<Node>>,
    /// The place in `nodes`; none when one node serves everything.
    slots: Vec<Range<usize>>,
}

impl Division {
    /// Where the node is that serves a key of a cluster.
    fn place(&self, key: &[u8]) -> Result<usize, LinkError> {
        let slot = names::slot(key);
        let found = self.slots.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        found.map(|(_, _, place)| *place).ok_or(LinkError::Slot { slot })
    }

    fn node(&self, address: &ServerAddress) -> Option<&Arc<Node>> {
        self.nodes.iter().find(|node| matches!(&node.place, Place::Fixed(at) if at == address))
    }
}

/// All nodes.
pub(super) struct Nodes {
    division: ArcSwap<Division>,
    dialer: Arc<Dialer>,
    names: Names,
    cache: Arc<Cache>,
    /// Somebody was sent elsewhere: the division is to be asked for again.
    is_doubted: Notify,
    /// Counts divisions.
    divided: watch::Sender<u64>,
}

impl Nodes {
    /// On the store's own runtime.
    pub(super) fn start(dialer: Dialer, cache: &Arc<Cache>) -> Arc<Self> {
        let dialer = Arc::new(dialer);
        let place = match &dialer.settings.form {
            Form::Single => dialer.settings.servers.first().cloned().map(Place::Fixed),
            Form::Sentinel { master } => Some(Place::Master(master.clone())),
            Form::Cluster => None,
        };
        let one = |place| Node::start(place, 0, Arc::clone(&dialer), Arc::clone(cache));
        let division = Division { nodes: place.map(one).into_iter().collect(), slots: Vec::new() };
        let nodes = Arc::new(Self {
            division: ArcSwap::from_pointee(division),
            is_doubted: Notify::new(),
            divided: watch::Sender::new(0),
            cache: Arc::clone(cache),
            names: Names::new(&dialer.settings.prefix),
            dialer,
        });
        if nodes.is_cluster() {
            tokio::spawn(follow(Arc::clone(&nodes)));
        }
        nodes
    }

    fn is_cluster(&self) -> bool {
        self.dialer.settings.form == Form::Cluster
    }

    /// Completes when all nodes are connected.
    pub(super) async fn connected(&self) {
        if self.is_cluster() {
            let mut divided = self.divided.subscribe();
            // The sender lives in `self`.
            let _divided = divided.wait_for(|count| *count > 0).await;
        }
        let division = self.division.load_full();
        for node in &division.nodes {
            node.connected().await;
        }
    }

    fn serving(&self, key: &[u8]) -> Result<Arc<Node>, LinkError> {
        let division = self.division.load();
        if !self.is_cluster() {
            return division.nodes.first().cloned().ok_or(LinkError::Slot { slot: 0 });
        }
        let place = division.place(key)?;
        division.nodes.get(place).cloned().ok_or_else(|| LinkError::Slot { slot: names::slot(key) })
    }

    /// Whether what is known of the record under this key is exact.
    pub(super) fn is_trusted(&self, key: &[u8]) -> bool {
        self.serving(key).is_ok_and(|node| node.is_trusted())
    }

    /// Sends a command about a key to the node that serves it. All of our commands may be sent twice.
    pub(super) async fn call(&self, key: &[u8], command: &Cmd) -> Result<Value, LinkError> {
        let mut sent = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let answer = self.attempt(key, command, sent.take()).await;
            let error = match answer {
                Ok(value) => return Ok(value),
                Err(error) if attempt >= ATTEMPTS => return Err(error),
                Err(error) => error,
            };
            match remedy(&error) {
                Remedy::None => return Err(error),
                Remedy::Again if attempt > 1 => return Err(error),
                Remedy::Again => {}
                Remedy::Scripts => self.serving(key)?.link().await?.announce().await?,
                Remedy::Wait => tokio::time::sleep(REDIVIDE / 5).await,
                Remedy::Divide => self.redivided().await,
                Remedy::Elsewhere(place) => {
                    self.is_doubted.notify_one();
                    sent = Some(place);
                }
            }
        }
    }

    async fn attempt(&self, key: &[u8], command: &Cmd, sent: Option<Elsewhere>) -> Result<Value, LinkError> {
        let Some(place) = sent else {
            if self.is_cluster() && !self.serving(key)?.is_up() {
                // Somebody else may have taken over.
                self.redivided().await;
            }
            return self.serving(key)?.link().await?.send(command).await;
        };
        let link = self.at(&place.address).link().await?;
        if !place.is_asking {
            return link.send(command).await;
        }
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(command.clone());
        link.send_all(&both, 0).await?.pop().ok_or(LinkError::Odd("ASKING has no answer"))
    }

    /// Several commands, each about its key; in one go where the same node serves them.
    pub(super) async fn call_all(&self, calls: &[(Vec<u8>, Cmd)]) -> Result<Vec<Value>, LinkError> {
        if !self.is_cluster()
            && let Some((key, _)) = calls.first()
        {
            let mut all = redis::pipe();
            calls.iter().for_each(|(_, command)| {
                all.add_command(command.clone());
            });
            if let Ok(answers) = self.serving(key)?.link().await?.send_all(&all, 0).await {
                return Ok(answers);
            }
        }
        let mut answers = Vec::with_capacity(calls.len());
        for (key, command) in calls {
            answers.push(self.call(key, command).await?);
        }
        Ok(answers)
    }

    /// Sends every node what `make` makes of the number of its proof.
    pub(super) async fn call_each(&self, make: impl Fn(u32) -> (Vec<u8>, Cmd)) -> Result<(), LinkError> {
        let division = self.division.load_full();
        if division.nodes.is_empty() {
            return Err(nobody());
        }
        for node in &division.nodes {
            let (key, command) = make(node.proof());
            self.call(&key, &command).await?;
        }
        Ok(())
    }

    /// The node at an address that a cluster sent us to, also before the division has it.
    fn at(&self, address: &ServerAddress) -> Arc<Node> {
        if let Some(node) = self.division.load().node(address) {
            return Arc::clone(node);
        }
        self.is_doubted.notify_one();
        // What it serves is not known yet: a slot that somebody serves.
        let known = self.division.load_full();
        let new = self.node(address, self.names.proof_among(0, |slot| is_served(&known.slots, slot)));
        self.division.rcu(|division| {
            let mut division = Division::clone(division);
            if division.node(address).is_none() {
                division.nodes.push(Arc::clone(&new));
            }
            division
        });
        self.division.load().node(address).map_or(new, Arc::clone)
    }

    fn node(&self, address: &ServerAddress, proof: Option<u32>) -> Arc<Node> {
        let (dialer, cache) = (Arc::clone(&self.dialer), Arc::clone(&self.cache));
        Node::start(Place::Fixed(address.clone()), proof.unwrap_or_default(), dialer, cache)
    }

    /// The node at an address, which proves itself by one of its slots.
    fn serving_there(
        &self,
        known: Option<&Arc<Node>>,
        address: &ServerAddress,
        ranges: &[Range<ServerAddress>],
    ) -> Arc<Node> {
        let its: Vec<_> = ranges.iter().filter(|(_, _, by)| by == address).cloned().collect();
        let proof = self.names.proof_among(known.map_or(0, |node| node.proof()), |slot| is_served(&its, slot));
        let Some(node) = known else { return self.node(address, proof) };
        node.prove_by(proof.unwrap_or_default());
        Arc::clone(node)
    }

    /// Waits a moment for a new division.
    async fn redivided(&self) {
        let mut divided = self.divided.subscribe();
        divided.mark_unchanged();
        self.is_doubted.notify_one();
        let _in_time = tokio::time::timeout(REDIVIDE, divided.changed()).await;
    }

    /// Asks one of the nodes who serves what.
    async fn divide(&self) -> Result<(), LinkError> {
        let known = self.division.load_full();
        let places = known.nodes.iter().filter_map(|node| match &node.place {
            Place::Fixed(address) => Some(address.clone()),
            Place::Master(_) => None,
        });
        let mut failure = nobody();
        for address in places.chain(self.dialer.settings.servers.iter().cloned()) {
            match self.division_by(&address).await {
                Ok(ranges) => {
                    self.take(&known, &ranges);
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn division_by(&self, address: &ServerAddress) -> Result<Vec<Range<ServerAddress>>, LinkError> {
        let asked = self.dialer.ask(address, false).await?;
        let answer = asked.ask(redis::cmd("CLUSTER").arg("SLOTS")).await?;
        let ranges = ranges(&answer, address).ok_or(LinkError::Odd("CLUSTER SLOTS is answered with something odd"))?;
        // One that the others have left knows only how it was before.
        let proof = self.names.proof_among(0, |slot| is_served(&ranges, slot));
        asked.prove(&self.names, proof.unwrap_or_default()).await?;
        Ok(ranges)
    }

    fn take(&self, known: &Division, ranges: &[Range<ServerAddress>]) {
        let mut division = Division::default();
        for (first, last, address) in ranges {
            let place = division.nodes.iter().position(|node| node.place == Place::Fixed(address.clone()));
            let place = place.unwrap_or_else(|| {
                division.nodes.push(self.serving_there(known.node(address), address, ranges));
                division.nodes.len() - 1
            });
            division.slots.push((*first, *last, place));
        }
        let is_same = known.slots == division.slots
            && known.nodes.iter().map(|node| &node.place).eq(division.nodes.iter().map(|node| &node.place));
        if !is_same {
            self.division.store(Arc::new(division));
            self.cache.forget_all();
        }
        self.divided.send_modify(|count| *count += 1);
    }
}

/// Keeps the division of a cluster up to date.
async fn follow(nodes: Arc<Nodes>) {
    let mut is_said = false;
    loop {
        match nodes.divide().await {
            Ok(()) => is_said = false,
            Err(error) if !is_said => {
                is_said = true;
                tracing::error!(event = "store.unreachable", server = "cluster", error = chain(&error));
            }
            Err(_) => {}
        }
        let _sooner = tokio::time::timeout(ASK_EVERY, nodes.is_doubted.notified()).await;
    }
}

/// Slots and their masters, from the answer to `CLUSTER SLOTS`.
fn ranges(answer: &Value, asked: &ServerAddress) -> Option<Vec<Range<ServerAddress>>> {
    let Value::Array(rows) = answer else { return None };
    let mut ranges = Vec::with_capacity(rows.len());
    for row in rows {
        let Value::Array(row) = row else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = &row[..] else { return None };
        let [host, Value::Int(port), ..] = &master[..] else { return None };
        let host = match (host, asked) {
            (Value::BulkString(host), _) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
            // It does not know its own name: the one that it was found under.
            (_, ServerAddress::Tcp { host, .. }) => host.clone(),
            (_, ServerAddress::Unix(_)) => return None,
        };
        let address = ServerAddress::Tcp { host, port: u16::try_from(*port).ok()? };
        ranges.push((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, address));
    }
    Some(ranges)
}

/// Where a node sends us for a key.
struct Elsewhere {
    address: ServerAddress,
    /// The key is on its way to there: it has to be asked for expressly.
    is_asking: bool,
}

fn elsewhere(error: &RedisError, asked: &ServerAddress, is_asking: bool) -> Remedy {
    let found = redirected(error, asked);
    found.map_or(Remedy::Divide, |address| Remedy::Elsewhere(Elsewhere { address, is_asking }))
}

enum Remedy {
    None,
    /// Once more, on a new connection.
    Again,
    /// Once more, when it knows our scripts: it was told to forget them, or a replica became master.
    Scripts,
    /// Once more, a little later.
    Wait,
    /// Once more, when it is known who serves what.
    Divide,
    /// Once more, there.
    Elsewhere(Elsewhere),
}

#[allow(clippy::wildcard_enum_match_arm)] // The list of errors is the library's and grows.
fn remedy(error: &LinkError) -> Remedy {
    match error {
        LinkError::Redis { error, address } => match error.kind() {
            ErrorKind::Server(ServerErrorKind::NoScript) => Remedy::Scripts,
            ErrorKind::Server(ServerErrorKind::Moved) => elsewhere(error, address, false),
            ErrorKind::Server(ServerErrorKind::Ask) => elsewhere(error, address, true),
            ErrorKind::Server(
                ServerErrorKind::TryAgain
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ReadOnly
                | ServerErrorKind::BusyLoading,
            ) => Remedy::Wait,
            ErrorKind::Io => Remedy::Again,
            _ => Remedy::None,
        },
        LinkError::Slot { .. } => Remedy::Divide,
        LinkError::Connect { .. }
        | LinkError::Silent { .. }
        | LinkError::Password(_)
        | LinkError::Plaintext { .. }
        | LinkError::Replica { .. }
        | LinkError::Replaced { .. }
        | LinkError::NoMaster { .. }
        | LinkError::Down { .. }
        | LinkError::Odd(_) => Remedy::None,
    }
}

/// Where `MOVED` or `ASK` sends us: `host:port`, or `:port` for the host that was asked.
fn redirected(error: &RedisError, asked: &ServerAddress) -> Option<ServerAddress> {
    let (place, _) = error.redirect_node()?;
    let (host, port) = place.rsplit_once(':')?;
    let host = match (host, asked) {
        ("", ServerAddress::Tcp { host, .. }) => host.clone(),
        (host, _) => host.trim_matches(['[', ']']).to_owned(),
    };
    Some(ServerAddress::Tcp { host, port: port.parse().ok()? })
}
