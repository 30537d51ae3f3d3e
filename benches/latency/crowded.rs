//! Vestibule with millions of sessions: the program's own parts in a process of this benchmark, put together
//! as `vestibule run` does it, but for the sessions that are in its memory before it starts. Nobody logs in ten
//! million times for a benchmark.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use futures_util::FutureExt;
use vestibule::app;
use vestibule::clock::Clock;
use vestibule::clock::SystemClock;
use vestibule::clock::Timestamp;
use vestibule::config::Config;
use vestibule::policy::binding::Binding;
use vestibule::policy::chain::Chain;
use vestibule::policy::session::Identity;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionId;
use vestibule::policy::session::UserName;
use vestibule::policy::site::Site;
use vestibule::policy::vault::Vault;
use vestibule::store::Presence;
use vestibule::store::SessionStore;
use vestibule::store::memory::MemoryStore;
use vestibule::telemetry;

/// What the command line of such a process begins with.
pub const COMMAND: &str = "serve-with-sessions";

/// Serves until it is told to stop.
pub fn serve(count: u64, config: &Path) {
    let config = Config::load(config).unwrap_or_else(|problems| panic!("{problems}"));
    let _logs = telemetry::init(&config.log).unwrap();
    let (store, clock) = (MemoryStore::default(), SystemClock::start());
    (0..count).for_each(|number| add(&store, number, count, &config.sites[0], clock.now()));
    app::start_with_store(&config, Arc::new(store), Arc::new(clock)).unwrap().wait();
}

/// Seven users for every ten sessions.
fn add(store: &MemoryStore, number: u64, count: u64, site: &Site, now: Timestamp) {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let id = SessionId::from_random(bytes);
    let user = UserName::parse(&format!("user{}", number % (count * 7 / 10).max(1))).unwrap();
    let identity = Identity { user, authenticated: now, session_ref: id.key().session_ref() };
    let address = IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()));
    let binding = Binding::new(address, Some("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
    let chain = Chain::begin(id.verifier(), now);
    let name = Arc::from(site.origin.to_text());
    let record = Record::authenticated(name, identity, binding, chain, Vault::default(), &site.session, now);
    let handle = id.handle();
    let created = store.create(&handle, record, site.session.idle).now_or_never().expect("memory answers at once");
    assert_eq!(created.unwrap(), Presence::Present);
}
