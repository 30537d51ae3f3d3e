//! Sessions in Redis or Valkey, for several Vestibules at once. A record is one key, changed by scripts
//! that run as one step on the server that is its master; indexes name more sessions than there may be,
//! never fewer. What this process knows of records is exact: the server says which ones change, and as
//! soon as it is not heard from, nothing is known.

mod answer;
mod cache;
mod clock;
mod ends;
mod index;
mod link;
mod names;
mod node;
mod nodes;
mod record;
mod script;
pub mod settings;
mod shelf;
#[cfg(test)]
mod tests;
mod touches;
mod verbs;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::runtime::Builder;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::crypto;
use crate::policy::chain::Chain;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::store::Found;
use crate::store::Judge;
use crate::store::Page;
use crate::store::Population;
use crate::store::Presence;
use crate::store::Removal;
use crate::store::Reply;
use crate::store::SessionStore;
use crate::store::StoreError;
use crate::store::Swap;
use crate::store::redis::cache::Cache;
use crate::store::redis::clock::ServerClock;
use crate::store::redis::link::Dialer;
use crate::store::redis::link::LinkError;
use crate::store::redis::names::Names;
use crate::store::redis::nodes::Nodes;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::verbs::Shared;
use crate::store::sealed::keys::Keys;
use crate::store::shelf::Name;
use crate::store::shelf::Shelf;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

/// How long a start waits for the first connection; then it goes on without.
const START: Duration = Duration::from_secs(2);
/// How long the end waits for activity to be written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Why Redis cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    /// The authorities.
    #[error("cannot read the certificate authorities in {path} for the session store")]
    Authorities {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There are none.
    #[error("there are no certificate authorities for the session store: name some with store.ca")]
    NoAuthorities,
    /// TLS.
    #[error("TLS to the session store cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The password.
    #[error("the password of the session store cannot be read")]
    Password(#[source] io::Error),
    /// No thread.
    #[error("the system gives no thread for the session store")]
    Thread(#[source] io::Error),
}

impl RedisError {
    /// Whether the configuration has to be mended, or a file that it names.
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Authorities { .. } | Self::NoAuthorities | Self::Tls(_) | Self::Password(_) => true,
            Self::Thread(_) => false,
        }
    }
}

impl From<LinkError> for StoreError {
    fn from(error: LinkError) -> Self {
        Self::Unavailable(Box::new(error))
    }
}

/// Sessions in Redis.
pub struct RedisStore {
    shared: Arc<Shared>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl RedisStore {
    /// Connects, if that is possible; goes on trying otherwise. Returns the clock that all who share the
    /// sessions go by as well: the server's, carried on by `clock`.
    ///
    /// # Errors
    /// When a file that is named cannot be used.
    pub fn open(
        settings: &RedisSettings,
        keys: Keys,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Arc<dyn Clock>), RedisError> {
        let clock = Arc::new(ServerClock::new(clock));
        let dialer = Dialer { tls: check(settings)?, settings: settings.clone(), clock: Arc::clone(&clock) };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(RedisError::Thread)?;
        let names = Names::new(&settings.prefix);
        let stop = CancellationToken::new();
        let (started, start) = mpsc::sync_channel(1);
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            runtime.block_on(async {
                let cache = Arc::<Cache>::default();
                let nodes = Nodes::start(dialer, &cache);
                let shared = Arc::new(Shared::new(nodes, names, cache, keys));
                let _slow = tokio::time::timeout(START, shared.nodes.connected()).await;
                // Who opened it is waiting.
                let _gone = started.send(Arc::clone(&shared));
                stopped.run_until_cancelled(shared.keep()).await;
                let _late = tokio::time::timeout(LAST_WORDS, shared.write_touches(true)).await;
            });
        });
        let thread = thread.map_err(RedisError::Thread)?;
        let shared = start.recv().map_err(|error| RedisError::Thread(io::Error::other(error)))?;
        Ok((Self { shared, stop, thread: Some(thread) }, clock))
    }
}

impl Drop for RedisStore {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Reads the files that are named; returns how TLS is spoken, if it is.
///
/// # Errors
/// When one of them cannot be used.
pub fn check(settings: &RedisSettings) -> Result<Option<TlsConnector>, RedisError> {
    if let Some(password) = &settings.password {
        password.read().map_err(RedisError::Password)?;
    }
    if !settings.tls {
        return Ok(None);
    }
    let mut roots = rustls::RootCertStore::empty();
    match &settings.ca {
        Some(path) => {
            let pem = |source| RedisError::Authorities { path: path.clone(), source };
            let found = CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<Vec<_>, _>>();
            roots.add_parsable_certificates(found.map_err(pem)?);
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(RedisError::NoAuthorities);
    }
    let provider = crypto::provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = builder.map_err(RedisError::Tls)?.with_root_certificates(roots).with_no_client_auth();
    Ok(Some(TlsConnector::from(Arc::new(config))))
}

impl SessionStore for RedisStore {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        Reply::later(self.shared.load(handle, now))
    }

    fn reload<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        Reply::later(self.shared.reload(handle, now))
    }

    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>> {
        Reply::later(self.shared.peek(key))
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record, idle: Duration) -> Reply<'a, Presence> {
        Reply::later(async move { self.shared.create(handle, &record, idle).await })
    }

    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence> {
        Reply::later(self.shared.touched(key, seen, idle))
    }

    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        Reply::later(async move { self.shared.swap_chain(key, revision, &chain).await })
    }

    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        Reply::later(self.shared.change_vault(handle, changes, now))
    }

    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence> {
        Reply::later(self.shared.bind(handle))
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        Reply::later(self.shared.take(handle, now))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        Reply::later(self.shared.remove(key, tombstone, now))
    }

    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal> {
        Reply::later(self.shared.remove_at(key, revision))
    }

    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>> {
        Reply::later(async move {
            let mut found = self.shared.of_user(user).await?;
            found.retain(|(_, outline)| site.is_none_or(|site| *outline.site == *site));
            Ok(found.into_iter().map(|(key, _)| key).collect())
        })
    }

    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>> {
        Reply::later(self.shared.list(user, from, limit))
    }

    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>> {
        Reply::later(self.shared.find(session_ref))
    }

    fn ready(&self) -> Reply<'_, ()> {
        Reply::later(async move {
            let proofs = |number| {
                let key = self.shared.names.proof(number);
                // Adds nothing, and is refused by a server that is full.
                let mut command = ::redis::cmd("ZADD");
                command.arg(&key).arg("XX").arg(0).arg("x");
                (key, command)
            };
            Ok(self.shared.nodes.call_each(proofs).await?)
        })
    }

    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population> {
        Reply::later(self.shared.population(site))
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        Reply::later(self.shared.evict_anonymous(site))
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        Reply::later(self.shared.sweep(judge, now))
    }
}

impl Shelf for RedisStore {
    fn shelved<'a>(&'a self, name: &'a Name, _now: Timestamp) -> Reply<'a, Option<Shelved>> {
        Reply::later(self.shared.shelved(name))
    }

    fn shelve<'a>(
        &'a self,
        name: &'a Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        _now: Timestamp,
    ) -> Reply<'a, Swap> {
        Reply::later(self.shared.shelve(name, expected, value, lives))
    }

    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()> {
        Reply::later(self.shared.unshelve(name))
    }
}
