//! A session store that breaks when it is told to.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Barrier;
use vestibule::clock::Timestamp;
use vestibule::policy::chain::Chain;
use vestibule::policy::session::EndReason;
use vestibule::policy::session::Handle;
use vestibule::policy::session::Outline;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionKey;
use vestibule::policy::vault::VaultChange;
use vestibule::store::Found;
use vestibule::store::Judge;
use vestibule::store::Page;
use vestibule::store::Population;
use vestibule::store::Presence;
use vestibule::store::Removal;
use vestibule::store::Reply;
use vestibule::store::SessionStore;
use vestibule::store::StoreError;
use vestibule::store::Swap;
use vestibule::store::memory::MemoryStore;
use vestibule::store::shelf::Name;
use vestibule::store::shelf::Shelf;
use vestibule::store::shelf::Shelved;
use vestibule::store::shelf::Version;

const WORKS: u8 = 0;
const FAILS: u8 = 1;
const PANICS: u8 = 2;
const SWEEPS: u8 = 3;
const KEEPS: u8 = 4;
const GATHERS: u8 = 5;

/// So many questions are asked together.
pub const TOGETHER: usize = 8;

/// A memory store with a switch.
pub struct BrokenStore {
    inner: MemoryStore,
    state: AtomicU8,
    together: Barrier,
}

impl Default for BrokenStore {
    fn default() -> Self {
        Self { inner: MemoryStore::default(), state: AtomicU8::default(), together: Barrier::new(TOGETHER) }
    }
}

impl BrokenStore {
    /// One that works, for now.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn works(&self) {
        self.state.store(WORKS, Ordering::Relaxed);
    }

    /// Every call fails from now on.
    pub fn fails(&self) {
        self.state.store(FAILS, Ordering::Relaxed);
    }

    /// Every call panics from now on.
    pub fn panics(&self) {
        self.state.store(PANICS, Ordering::Relaxed);
    }

    /// Works, but fails to remove anything.
    pub fn keeps_everything(&self) {
        self.state.store(KEEPS, Ordering::Relaxed);
    }

    /// Works, but ends no sweep.
    pub fn sweeps_forever(&self) {
        self.state.store(SWEEPS, Ordering::Relaxed);
    }

    /// Works, but says nothing of a session by its key before it is asked for so many at once.
    pub fn gathers(&self) {
        self.state.store(GATHERS, Ordering::Relaxed);
    }

    fn answer<'a, T>(&'a self, reply: impl FnOnce() -> Reply<'a, T>) -> Reply<'a, T> {
        match self.state.load(Ordering::Relaxed) {
            WORKS | SWEEPS | KEEPS | GATHERS => reply(),
            PANICS => panic!("the store was told to panic"),
            _ => failed(),
        }
    }

    fn removal<'a, T>(&'a self, reply: impl FnOnce() -> Reply<'a, T>) -> Reply<'a, T> {
        if self.state.load(Ordering::Relaxed) == KEEPS { failed() } else { self.answer(reply) }
    }
}

fn failed<'a, T>() -> Reply<'a, T> {
    Reply::later(async { Err(StoreError::Unavailable("the store was told to fail".into())) })
}

impl SessionStore for BrokenStore {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        self.answer(|| self.inner.load(handle, now))
    }

    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>> {
        if self.state.load(Ordering::Relaxed) == GATHERS {
            return Reply::later(async move {
                self.together.wait().await;
                self.inner.peek(key).await
            });
        }
        self.answer(|| self.inner.peek(key))
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record, idle: Duration) -> Reply<'a, Presence> {
        self.answer(|| self.inner.create(handle, record, idle))
    }

    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence> {
        self.answer(|| self.inner.touch(key, seen, idle))
    }

    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        self.answer(|| self.inner.swap_chain(key, revision, chain))
    }

    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        self.answer(|| self.inner.change_vault(handle, changes, now))
    }

    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence> {
        self.answer(|| self.inner.bind(handle))
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        self.removal(|| self.inner.take(handle, now))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        self.removal(|| self.inner.remove(key, tombstone, now))
    }

    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal> {
        self.removal(|| self.inner.remove_at(key, revision))
    }

    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>> {
        self.answer(|| self.inner.by_user(user, site))
    }

    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>> {
        self.answer(|| self.inner.list(user, from, limit))
    }

    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>> {
        self.answer(|| self.inner.find(session_ref))
    }

    fn ready(&self) -> Reply<'_, ()> {
        self.answer(|| self.inner.ready())
    }

    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population> {
        self.answer(|| self.inner.population(site))
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        self.answer(|| self.inner.evict_anonymous(site))
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        if self.state.load(Ordering::Relaxed) == SWEEPS {
            return Reply::later(std::future::pending());
        }
        self.answer(|| self.inner.sweep(judge, now))
    }
}

impl Shelf for BrokenStore {
    fn shelved<'a>(&'a self, name: &'a Name, now: Timestamp) -> Reply<'a, Option<Shelved>> {
        self.answer(|| self.inner.shelved(name, now))
    }

    fn shelve<'a>(
        &'a self,
        name: &'a Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        now: Timestamp,
    ) -> Reply<'a, Swap> {
        self.answer(|| self.inner.shelve(name, expected, value, lives, now))
    }

    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()> {
        self.answer(|| self.inner.unshelve(name))
    }
}
