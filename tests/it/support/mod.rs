//! The harness: [`Vestibule`] in front of a scripted [`Upstream`], visited by a [`Browser`].

mod browser;
pub mod desk;
pub mod device;
mod form;
pub mod frames;
mod process;
pub mod program;
pub mod redis;
mod relay;
mod store;
pub mod tls;
mod upstream;
mod webdriver;
pub mod websocket;
mod wire;

use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use tempfile::TempDir;
use tokio::net::TcpSocket;
use vestibule::app;
use vestibule::app::Remote;
use vestibule::app::Running;
use vestibule::cert;
use vestibule::clock::Clock;
use vestibule::clock::ManualClock;
use vestibule::clock::SystemClock;
use vestibule::clock::Timestamp;
use vestibule::config::Config;
use vestibule::config::ListenAddress;
use vestibule::store::SessionStore;
use vestibule::store::memory::MemoryStore;

pub use self::browser::Answer;
pub use self::browser::BOUND;
pub use self::browser::Broken;
pub use self::browser::Browser;
pub use self::browser::OURS;
pub use self::browser::empty;
pub use self::browser::labelled;
pub use self::browser::navigation;
pub use self::browser::tls_client;
pub use self::form::Form;
pub use self::form::link;
pub use self::process::Process;
pub use self::process::apps;
pub use self::process::free_port;
pub use self::process::run;
pub use self::relay::Line;
pub use self::relay::Relay;
pub use self::store::BrokenStore;
pub use self::store::TOGETHER;
pub use self::upstream::Received;
pub use self::upstream::Reply;
pub use self::upstream::Upstream;
pub use self::webdriver::Chromium;
pub use self::wire::Wire;
pub use self::wire::read_head;

/// What most tests run with.
pub const SITE: &str = r#"
[site.login]
path    = "/login"
user    = "form:username"
success = { status = [302, 303], location_not = "/login*" }

[site.logout]
path = "/logout"

[site.access]
public = ["/public/*"]
"#;

/// Certificates of this test run.
pub struct Certificates {
    directory: TempDir,
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Made once for all tests.
pub fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let directory = TempDir::new().unwrap();
        let names = ["app.test", "other.test", "localhost", "127.0.0.1"].map(str::to_owned);
        let made = cert::make(directory.path(), &names).unwrap();
        Certificates { ca: made.ca, certificate: made.certificate, key: made.key, directory }
    })
}

/// A running proxy.
pub struct Vestibule {
    running: Option<Running>,
    pub remote: Remote,
    pub clock: ManualClock,
    pub https: SocketAddr,
    pub http: SocketAddr,
    pub admin: Vec<ListenAddress>,
    upstream: String,
}

impl Vestibule {
    /// With the usual site in front of this application, and a browser that has not been there yet.
    pub async fn in_front_of(upstream: &Upstream) -> (Self, Browser) {
        Self::with(upstream, SITE).await
    }

    /// With these tables of the site.
    pub async fn with(upstream: &Upstream, site: &str) -> (Self, Browser) {
        Self::at(&upstream.url(), site).await
    }

    /// In front of whatever listens at this URL, or at these, separated by spaces.
    pub async fn at(upstream: &str, site: &str) -> (Self, Browser) {
        let (mut proxy, browser) = Self::of(configure(upstream, site)).await;
        upstream.clone_into(&mut proxy.upstream);
        (proxy, browser)
    }

    /// With these settings.
    pub async fn of(config: Config) -> (Self, Browser) {
        Self::with_store(config, Arc::new(MemoryStore::default())).await
    }

    /// With these settings and its sessions in this store.
    pub async fn with_store(config: Config, store: Arc<dyn SessionStore>) -> (Self, Browser) {
        Self::starting(config, store, Timestamp::from_millis(1_800_000_000_000)).await
    }

    /// In front of an application that knows what time it is.
    pub async fn today(upstream: &str, site: &str) -> (Self, Browser) {
        Self::ago(Duration::ZERO, upstream, site).await
    }

    /// In front of an application that knows how late this clock is.
    pub async fn ago(late: Duration, upstream: &str, site: &str) -> (Self, Browser) {
        let store = Arc::new(MemoryStore::default());
        let now = Timestamp::default().plus(SystemClock::start().now().since(Timestamp::default().plus(late)));
        Self::starting(configure(upstream, site), store, now).await
    }

    async fn starting(config: Config, store: Arc<dyn SessionStore>, now: Timestamp) -> (Self, Browser) {
        let clock = ManualClock::at(now);
        let shared = Arc::new(clock.clone());
        let starting = move || app::start_with_store(&config, store, shared).unwrap();
        let running = tokio::task::spawn_blocking(starting).await.unwrap();
        let (https, http) = (running.https[0], running.http[0]);
        let browser = Browser::new(https);
        let (remote, admin) = (running.remote(), running.admin.clone());
        let proxy = Self { remote, running: Some(running), clock, https, http, admin, upstream: String::new() };
        (proxy, browser)
    }

    /// A browser that has not been there yet.
    pub fn browser(&self) -> Browser {
        Browser::new(self.https)
    }

    /// Takes a new configuration.
    pub fn reload(&self, site: &str) {
        self.remote.reload(&configure(&self.upstream, site)).unwrap();
    }

    /// Takes a configuration with the application somewhere else.
    pub fn reload_in_front_of(&self, upstream: &str, site: &str) {
        self.remote.reload(&configure(upstream, site)).unwrap();
    }

    /// Moves the clock.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Tells it to stop; completes when it has.
    pub async fn stop(mut self) {
        let running = self.running.take().unwrap();
        tokio::task::spawn_blocking(move || running.stop()).await.unwrap();
    }
}

impl Drop for Vestibule {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.remote().cut();
            std::thread::spawn(move || running.wait());
        }
    }
}

/// The finished settings of the usual file with these tables of the site.
pub fn configure(upstream: &str, site: &str) -> Config {
    parse(&file(upstream, site))
}

/// The text of the usual file with these tables of the site.
pub fn file(upstream: &str, site: &str) -> String {
    let upstreams: Vec<_> = upstream.split(' ').collect();
    let Certificates { certificate, key, .. } = certificates();
    format!(
        r#"
{LISTEN}
[tls]
certificate = {certificate:?}
key         = {key:?}

[store]
url = "memory:"

[[site]]
origin   = "https://app.test"
upstream = {upstreams:?}
{site}"#
    )
}

/// Free ports, and one worker.
pub const LISTEN: &str = r#"
[listen]
https   = "127.0.0.1:0"
http    = "127.0.0.1:0"
workers = 1

[admin]
listen = "off"
"#;

/// The finished settings of a whole file.
pub fn parse(text: &str) -> Config {
    Config::parse(Path::new("proxy.toml"), text).unwrap_or_else(|problems| panic!("{problems}"))
}

/// Waits until a condition holds; fails after half a minute.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    eventually_so(what, async || condition()).await;
}

/// The same for a condition that somebody has to be asked for.
pub async fn eventually_so(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !condition().await {
        assert!(tokio::time::Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a node knows that a session has ended: the store's word is on its way for a moment, and is there long
/// before the second that is allowed.
pub async fn eventually_refused(browser: &Browser) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    loop {
        let asked = tokio::time::Instant::now();
        if browser.clone().fetch("/").await.status == 401 {
            return;
        }
        assert!(asked < deadline, "a session that has ended is still used");
    }
}

/// Where nobody listens, and nobody else will, as long as the socket lives.
pub fn unheard() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}
