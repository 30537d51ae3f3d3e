//! Sessions in memory: they end with the process.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::future::ready;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dashmap::DashMap;
use dashmap::Entry;

use crate::clock::Timestamp;
use crate::policy::chain::Chain;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::store::Found;
use crate::store::Judge;
use crate::store::Presence;
use crate::store::Reply;
use crate::store::SessionStore;
use crate::store::Swap;
use crate::store::TOMBSTONE;

/// Many shards: one that grows holds up only a small part of the sessions.
const SHARDS: usize = 1024;

/// Keys are SHA-256 of selectors that we minted: their first bytes are a hash already.
#[derive(Default)]
pub struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk::<8>() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

struct Entered {
    record: Record,
    /// Apart from the record, so that a touch needs no exclusive access.
    seen: AtomicU64,
}

impl Entered {
    fn new(record: Record) -> Self {
        Self { seen: AtomicU64::new(record.seen.as_millis()), record }
    }

    fn life(&self) -> Life {
        Life { seen: Timestamp::from_millis(self.seen.load(Ordering::Relaxed)), ..self.record.life() }
    }

    fn composed(&self) -> Record {
        let seen = Timestamp::from_millis(self.seen.load(Ordering::Relaxed));
        Record { seen, ..self.record.clone() }
    }
}

enum Slot {
    Session(Box<Entered>),
    /// Ended by login or logout, then.
    Tombstone(Timestamp),
}

/// What is known of sessions beside their keys. Changed only while the session's shard is held, so
/// that it never disagrees with the sessions for long.
#[derive(Default)]
struct Index {
    users: HashMap<(Arc<str>, Arc<str>), Vec<SessionKey>>,
    /// Anonymous sessions by site, oldest first.
    anonymous: HashMap<Arc<str>, BTreeSet<(Timestamp, SessionKey)>>,
}

/// Sessions in memory.
pub struct MemoryStore {
    slots: DashMap<SessionKey, Slot, BuildHasherDefault<KeyHasher>>,
    index: Mutex<Index>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            slots: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            index: Mutex::default(),
        }
    }
}

impl MemoryStore {
    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, key: SessionKey, record: &Record) {
        let mut index = self.index();
        match &record.identity {
            Some(identity) => {
                let user = (Arc::clone(&record.site), Arc::from(identity.user.as_str()));
                index.users.entry(user).or_default().push(key);
            }
            None => {
                let site = index.anonymous.entry(Arc::clone(&record.site)).or_default();
                site.insert((record.created, key));
            }
        }
    }

    fn leave(&self, key: &SessionKey, record: &Record) {
        let mut index = self.index();
        match &record.identity {
            Some(identity) => {
                let user = (Arc::clone(&record.site), Arc::from(identity.user.as_str()));
                if let Some(keys) = index.users.get_mut(&user) {
                    keys.retain(|known| known != key);
                    if keys.is_empty() {
                        index.users.remove(&user);
                    }
                }
            }
            None => {
                if let Some(site) = index.anonymous.get_mut(&record.site) {
                    site.remove(&(record.created, *key));
                }
            }
        }
    }

    fn find(&self, key: &SessionKey, now: Timestamp) -> Found {
        match self.slots.get(key).as_deref() {
            Some(Slot::Session(session)) => Found::Record(Box::new(session.composed())),
            Some(Slot::Tombstone(since)) if now.since(*since) < TOMBSTONE => Found::Tombstone,
            Some(Slot::Tombstone(_)) | None => Found::Absent,
        }
    }

    fn add(&self, key: &SessionKey, record: Record) -> Presence {
        match self.slots.entry(*key) {
            Entry::Occupied(_) => Presence::Gone,
            Entry::Vacant(vacant) => {
                self.enter(*key, &record);
                let _held_until_indexed = vacant.insert(Slot::Session(Box::new(Entered::new(record))));
                Presence::Present
            }
        }
    }

    fn end(&self, key: &SessionKey, tombstone: bool, now: Timestamp) -> Option<Record> {
        let Entry::Occupied(mut slot) = self.slots.entry(*key) else { return None };
        let Slot::Session(session) = slot.get() else { return None };
        let record = session.composed();
        self.leave(key, &record);
        if tombstone {
            slot.insert(Slot::Tombstone(now));
        } else {
            slot.remove();
        }
        Some(record)
    }

    /// Applies a change to the session of this key, if there is one.
    fn with<T>(&self, key: &SessionKey, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        match self.slots.get_mut(key).as_deref_mut() {
            Some(Slot::Session(session)) => Some(change(&mut session.record)),
            Some(Slot::Tombstone(_)) | None => None,
        }
    }

    fn moved(&self, key: &SessionKey, seen: Timestamp, idle: Duration) -> Presence {
        let slot = self.slots.get(key);
        let Some(Slot::Session(session)) = slot.as_deref() else { return Presence::Gone };
        let moved = session.seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            let lives = seen.since(Timestamp::from_millis(last)) < idle && seen < session.record.absolute_end;
            lives.then_some(last.max(seen.as_millis()))
        });
        if moved.is_ok() { Presence::Present } else { Presence::Gone }
    }

    /// The least recently used of the oldest few: an exact order would cost a write per request.
    fn least_used(&self, site: &str) -> Option<SessionKey> {
        const LOOKED_AT: usize = 16;
        let oldest: Vec<SessionKey> =
            self.index().anonymous.get(site)?.iter().take(LOOKED_AT).map(|(_, key)| *key).collect();
        oldest.into_iter().min_by_key(|key| match self.slots.get(key).as_deref() {
            Some(Slot::Session(session)) => session.seen.load(Ordering::Relaxed),
            Some(Slot::Tombstone(_)) | None => 0,
        })
    }

    fn expired(&self, judge: Judge<'_>, now: Timestamp) -> Vec<(SessionKey, Outline, EndReason)> {
        let mut ended = Vec::new();
        // The map's iterator holds one shard at a time.
        let candidates: Vec<SessionKey> = self
            .slots
            .iter()
            .filter(|slot| match slot.value() {
                Slot::Session(session) => judge(&session.record.site, session.life()).is_some(),
                Slot::Tombstone(since) => now.since(*since) >= TOMBSTONE,
            })
            .map(|slot| *slot.key())
            .collect();
        for key in candidates {
            let Entry::Occupied(slot) = self.slots.entry(key) else { continue };
            match slot.get() {
                Slot::Tombstone(since) if now.since(*since) >= TOMBSTONE => {
                    slot.remove();
                }
                Slot::Tombstone(_) => {}
                Slot::Session(session) => {
                    // Judged again: it may have been used since it was listed.
                    if let Some(reason) = judge(&session.record.site, session.life()) {
                        let outline = session.composed().outline(&key);
                        self.leave(&key, &session.record);
                        slot.remove();
                        ended.push((key, outline, reason));
                    }
                }
            }
        }
        ended
    }
}

impl SessionStore for MemoryStore {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        Box::pin(ready(Ok(self.find(handle.key(), now))))
    }

    fn peek<'a>(&'a self, key: &'a SessionKey, now: Timestamp) -> Reply<'a, Option<Outline>> {
        let outline = match self.find(key, now) {
            Found::Record(record) => Some(record.outline(key)),
            Found::Tombstone | Found::Absent => None,
        };
        Box::pin(ready(Ok(outline)))
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record) -> Reply<'a, Presence> {
        Box::pin(ready(Ok(self.add(handle.key(), record))))
    }

    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence> {
        Box::pin(ready(Ok(self.moved(key, seen, idle))))
    }

    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        let swapped = self.with(key, |record| {
            if record.revision != revision {
                return Swap::Stale;
            }
            record.chain = chain;
            record.revision += 1;
            Swap::Swapped
        });
        Box::pin(ready(Ok(swapped.unwrap_or(Swap::Gone))))
    }

    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        let changed = self.with(handle.key(), |record| {
            if let Some(vault) = record.vault.changed(changes, now) {
                record.vault = Arc::new(vault);
                record.revision += 1;
            }
        });
        Box::pin(ready(Ok(if changed.is_some() { Presence::Present } else { Presence::Gone })))
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        Box::pin(ready(Ok(self.end(handle.key(), true, now))))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        Box::pin(ready(Ok(self.end(key, tombstone, now).map(|record| record.outline(key)))))
    }

    fn by_user<'a>(&'a self, site: &'a str, user: &'a str) -> Reply<'a, Vec<SessionKey>> {
        let keys = self.index().users.get(&(Arc::from(site), Arc::from(user))).cloned();
        Box::pin(ready(Ok(keys.unwrap_or_default())))
    }

    fn anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, usize> {
        let count = self.index().anonymous.get(site).map_or(0, BTreeSet::len);
        Box::pin(ready(Ok(count)))
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        let evicted = self.least_used(site).and_then(|key| {
            let record = self.end(&key, false, Timestamp::default())?;
            Some((key, record.outline(&key)))
        });
        Box::pin(ready(Ok(evicted)))
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        Box::pin(ready(Ok(self.expired(judge, now))))
    }
}
