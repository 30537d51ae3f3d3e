//! Where sessions are kept. A store holds records and changes them atomically; what they mean is
//! decided elsewhere. One verb per meaning (lessons VR-44, VR-48): nothing here creates a record by
//! updating it, and no write revives what is gone.

#[cfg(test)]
mod contract;
pub mod file;
#[cfg(test)]
mod fixtures;
mod index;
mod journal;
pub mod measured;
pub mod memory;
#[cfg(test)]
mod races;
pub mod redis;
mod reply;
pub mod sealed;
pub mod shelf;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::policy::chain::Chain;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::secret::Secret;
use crate::store::file::FileStore;
use crate::store::memory::MemoryStore;
use crate::store::redis::RedisStore;
use crate::store::redis::settings::RedisSettings;
use crate::store::sealed::keys::Keys;
use crate::store::shelf::Shelf;

pub use self::journal::OpenError;
pub use self::reply::Reply;

/// Why a store could not answer. Never means "no such session" (VR-34).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or did not answer in time.
    #[error("the session store is unavailable")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What it holds cannot be read.
    #[error("the session store holds a record that cannot be read")]
    Corrupt(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What is found under a key.
#[derive(Clone, Debug)]
pub enum Found {
    /// A record, expired or not: judging it is not the store's work.
    Record(Box<Record>),
    /// It was ended by login or logout less than 60 s ago.
    Tombstone,
    /// Nothing.
    Absent,
}

/// Whether the thing that was to be changed was there.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It was, and was changed.
    Present,
    /// It was not (any more); nothing was changed.
    Gone,
}

/// How a compare-and-swap went.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swap {
    /// Done.
    Swapped,
    /// The record has changed since: load again and decide again.
    Stale,
    /// There is no such record.
    Gone,
}

/// How a removal went that was to take a record only as it was judged.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Removal {
    /// Done; what it was.
    Removed(Box<Outline>),
    /// The record has changed since: load again and judge again.
    Stale,
    /// There is no such record.
    Gone,
}

/// A part of a list of sessions.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Expired ones among them: judging them is not the store's work.
    pub sessions: Vec<(SessionKey, Outline)>,
    /// Where the list goes on: letters, digits, `-`, `_` and `.`, which only the store reads. `None` when
    /// this was all.
    pub next: Option<String>,
}

/// How many sessions a site has, those included that have expired and were not freed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Population {
    /// Of users.
    pub authenticated: usize,
    /// Of nobody.
    pub anonymous: usize,
}

/// How long an ended selector is remembered.
pub const TOMBSTONE: Duration = Duration::from_secs(60);

/// Sessions that a sweep ends, about, before it stops to tell of them: there may be more.
pub const AT_ONCE: usize = 20_000;

/// Says why a session is over, if it is: its site, and what its limits are judged by.
pub type Judge<'a> = &'a (dyn Fn(&str, Life) -> Option<EndReason> + Send + Sync);

/// One session store, with a shelf. A store is given selectors, never verifiers: nothing that it holds or was
/// given opens a session.
pub trait SessionStore: Shelf {
    /// What is there for someone who presented an ID.
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found>;
    /// The same as it is at this moment, whatever was known before: for what ends something, or tells a
    /// thief from an owner.
    fn reload<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        self.load(handle, now)
    }
    /// The readable part of a record that is there.
    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>>;
    /// Adds a record that may be without activity for `idle`; `Gone` when the key is taken (by a record or a
    /// tombstone).
    fn create<'a>(&'a self, handle: &'a Handle, record: Record, idle: Duration) -> Reply<'a, Presence>;
    /// Moves `seen` forward, never back, and only if the record is there and has neither been without
    /// activity for `idle` nor reached its absolute end at `seen`: nothing revives it.
    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence>;
    /// Replaces the chain if the record still has this revision. Only that makes a new revision: changes
    /// to the vault, of which there may be many at once, stand in no rotation's way.
    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap>;
    /// Applies changes to the vault of whatever the record then is; parallel changes are never lost.
    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence>;
    /// Says that the session is bound from now on to the device that its record knows of; `Gone` when there is
    /// no such record, or it knows of none.
    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence>;
    /// Removes a record, leaves a tombstone, and returns the record whole, to exactly one caller.
    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>>;
    /// Removes a record; `tombstone` leaves one in its place. Exactly one caller is told what it was;
    /// removing what is not there is fine.
    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>>;
    /// Removes a record if its chain still has this revision, and leaves no tombstone: who is taken for a
    /// thief is taken for one by the chain as it is. Exactly one caller is told what it was.
    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal>;
    /// The keys of all sessions of a user, on one site or on all, the oldest first.
    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>>;
    /// About `limit` sessions of a user, or of everybody, on all sites, in an order that means nothing; from
    /// the start, or from where a former page said that the list goes on. A session that is there from the
    /// first page to the last is on one of them at least. `None` when `from` is nothing that this store
    /// said. May look at all sessions: never on the way of a request.
    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>>;
    /// The key of the session with this public handle. May look at all keys: never on the way of a request.
    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>>;
    /// Whether it answers, and lately could keep what it was given; cheap.
    fn ready(&self) -> Reply<'_, ()>;
    /// How many sessions a site has; cheap.
    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population>;
    /// Removes the least recently used anonymous session of a site and says what it was.
    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>>;
    /// Frees the records that `judge` says are over, and old tombstones; returns what ended: fewer than
    /// [`AT_ONCE`] when that was all. Correctness never depends on it.
    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>>;
}

/// `[store]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// `memory:`
    Memory,
    /// `file:PATH`; the place that the environment names when `None`.
    File(Option<PathBuf>),
    /// `redis:`, `rediss:` and what is like them.
    Redis(RedisSettings),
}

/// A store, and the clock that it goes by.
pub type Opened = (Arc<dyn SessionStore>, Arc<dyn Clock>);

/// Opens the configured store, whose records are sealed with the first of `keys`, and says what time goes
/// with it: `clock`, unless the store knows better.
///
/// # Errors
/// When it cannot be used.
pub fn open(settings: &StoreSettings, keys: &[Secret], clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
    let keys = Keys::read(keys)?;
    match settings {
        StoreSettings::Memory => Ok((Arc::new(MemoryStore::default()), clock)),
        StoreSettings::File(path) => {
            let usual = || usual_directory().map(|directory| directory.join("sessions.redb"));
            let path = path.clone().or_else(usual).ok_or(OpenError::NoPlace)?;
            let (store, clock) = FileStore::with_clock(&path, keys, clock)?;
            Ok((Arc::new(store), clock))
        }
        StoreSettings::Redis(settings) => {
            let (store, clock) = RedisStore::open(settings, keys, clock)?;
            Ok((Arc::new(store), clock))
        }
    }
}

/// Reads the files that the settings name.
///
/// # Errors
/// When one of them cannot be used.
pub fn check(settings: &StoreSettings, keys: &[Secret]) -> Result<(), OpenError> {
    Keys::read(keys)?;
    match settings {
        StoreSettings::Memory | StoreSettings::File(_) => Ok(()),
        StoreSettings::Redis(settings) => Ok(redis::check(settings).map(drop)?),
    }
}

/// Where a service keeps its state: what systemd says, else the XDG base directories.
pub fn usual_directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("STATE_DIRECTORY")
        .or_else(|| variable("XDG_STATE_HOME").map(|directory| directory.join("vestibule")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/state/vestibule")))
}
