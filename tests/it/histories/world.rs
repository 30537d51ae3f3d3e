//! Two nodes that share their sessions, and what is asked of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use vestibule::clock::Clock;
use vestibule::clock::SystemClock;
use vestibule::policy::binding::Binding;
use vestibule::policy::chain::Chain;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionId;
use vestibule::policy::session::SessionRules;
use vestibule::policy::vault::Vault;
use vestibule::store;
use vestibule::store::Found;
use vestibule::store::Presence;
use vestibule::store::SessionStore;
use vestibule::store::Swap;
use vestibule::store::memory::MemoryStore;

use super::model::ABSOLUTE;
use super::model::OWNER;
use crate::support::OURS;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::parse;
use crate::support::redis::Redis;
use crate::support::redis::stored_at;

/// The owner's browser, a thief beside it, and one on another network.
const ADDRESSES: [[u8; 4]; 3] = [[127, 0, 0, 1], [127, 0, 0, 2], [127, 0, 9, 1]];

/// What came back.
pub struct Got {
    pub status: u16,
    pub user: String,
    /// The value that our cookie is set to; empty when it is cleared.
    pub ours: Option<String>,
}

impl Got {
    pub fn new_id(&self) -> Option<&str> {
        self.ours.as_deref().filter(|value| !value.is_empty())
    }
}

/// Two nodes that share their sessions, and connections to them.
pub struct World {
    pub nodes: [Vestibule; 2],
    /// By node, and by where it comes from.
    pub doors: Vec<Vec<SendRequest<Full<Bytes>>>>,
    /// For pages that take their time: which arrived, and what lets them go.
    pub arrived: mpsc::UnboundedReceiver<Arc<Notify>>,
    pub stores: [Arc<dyn SessionStore>; 2],
    /// Changed by one node and looked at by the other, to know that it knows of all that came before.
    pub canary: (SessionId, Record),
    pub idle: u64,
    _app: Upstream,
    _redis: Option<Redis>,
}

impl World {
    pub async fn of(redis: Option<Redis>) -> Self {
        let (arrivals, arrived) = mpsc::unbounded_channel();
        let app = Upstream::start(move |request| match request.path() {
            "/login" | "/logout" => Reply::redirect("/"),
            "/slow" => {
                let release = Arc::new(Notify::new());
                let reply = Reply::text(request.header("x-forwarded-user").unwrap_or("nobody")).held(&release);
                arrivals.send(release).unwrap();
                reply
            }
            _ => Reply::text(request.header("x-forwarded-user").unwrap_or("nobody")),
        })
        .await;
        // In Redis the activity of a moment ago may not be written yet: with a clock that jumps, that moment
        // can be half an hour.
        let (idle, site) = if redis.is_some() {
            (ABSOLUTE, format!("{SITE}\n[site.session]\nidle_timeout = \"8h\"\n"))
        } else {
            (30 * 60, SITE.to_owned())
        };
        let (stores, config) = match &redis {
            Some(redis) => {
                let config = parse(&stored_at(&redis.url(), "", &app, &site));
                let store =
                    || store::open(&config.store, &config.store_keys, Arc::new(SystemClock::start())).unwrap().0;
                ([store(), store()], config)
            }
            None => {
                let store: Arc<dyn SessionStore> = Arc::new(MemoryStore::default());
                ([Arc::clone(&store), store], configure(&app.url(), &site))
            }
        };
        let [first, second] = stores.each_ref().map(|store| Vestibule::with_store(config.clone(), Arc::clone(store)));
        let nodes = [first.await.0, second.await.0];
        let mut doors = Vec::new();
        for node in &nodes {
            let mut of_node = Vec::new();
            for address in ADDRESSES {
                of_node.push(door(node, address.into()).await);
            }
            doors.push(of_node);
        }
        let canary = canary(&config.sites[0].session, &nodes[0]);
        let created = stores[0].create(&canary.0.handle(), canary.1.clone(), Duration::from_secs(3600)).await;
        assert_eq!(created.unwrap(), Presence::Present);
        Self { nodes, doors, arrived, stores, canary, idle, _app: app, _redis: redis }
    }

    pub fn advance(&self, seconds: u64) {
        for node in &self.nodes {
            node.advance(Duration::from_secs(seconds));
        }
    }

    /// Asks a node on one of the connections.
    pub fn ask(&self, node: usize, from: usize, id: &str, mut request: Request<Full<Bytes>>) -> JoinHandle<Got> {
        let agent = if from == OWNER { "Test/1.0" } else { "Thief/2.0" };
        request.headers_mut().insert("user-agent", agent.parse().unwrap());
        if !id.is_empty() {
            request.headers_mut().insert("cookie", format!("{OURS}={id}").parse().unwrap());
        }
        let mut door = self.doors[node][from].clone();
        tokio::spawn(async move {
            let (parts, body) = door.send_request(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            let lines = parts.headers.get_all("set-cookie").iter();
            let ours = lines.filter_map(|line| line.to_str().unwrap().strip_prefix(&format!("{OURS}=")));
            let ours: Vec<_> = ours.map(|line| line.split(';').next().unwrap().to_owned()).collect();
            assert!(ours.len() <= 1, "our cookie is set once");
            let user = String::from_utf8(body.to_vec()).unwrap();
            Got { status: parts.status.as_u16(), user, ours: ours.into_iter().next() }
        })
    }

    /// Each node knows of all that the other one did.
    pub async fn settle(&mut self) {
        for (from, to) in [(0, 1), (1, 0)] {
            let (id, record) = &mut self.canary;
            let swap = self.stores[from].swap_chain(id.handle().key(), record.revision, record.chain.clone()).await;
            assert_eq!(swap.unwrap(), Swap::Swapped);
            record.revision += 1;
            loop {
                let found = self.stores[to].load(&id.handle(), record.seen).await.unwrap();
                let Found::Record(found) = found else { panic!("the canary is gone") };
                if found.revision == record.revision {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

pub async fn door(node: &Vestibule, from: IpAddr) -> SendRequest<Full<Bytes>> {
    let mut browser = node.browser();
    browser.from = from;
    let io = TokioIo::new(browser.connect(b"h2").await);
    let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A record that no clock ends.
pub fn canary(rules: &SessionRules, node: &Vestibule) -> (SessionId, Record) {
    let (id, now) = (SessionId::from_random([7; 32]), node.clock.now());
    let chain = Chain::begin(id.verifier(), now);
    let binding = Binding::new([127, 0, 0, 1].into(), None);
    let site = Arc::from("https://canary.test");
    let record = Record::anonymous(site, binding, chain, Vault::default(), rules, now);
    let far = now.plus(Duration::from_secs(1 << 32));
    (id, Record { absolute_end: far, ..record })
}
