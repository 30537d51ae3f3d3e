//! Sessions in memory: they end with the process.

use std::collections::BinaryHeap;
use std::future::ready;
use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
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
use crate::store::Page;
use crate::store::Population;
use crate::store::Presence;
use crate::store::Removal;
use crate::store::Reply;
use crate::store::SessionStore;
use crate::store::Swap;
use crate::store::TOMBSTONE;
use crate::store::index::Index;
use crate::store::sealed;
use crate::store::sealed::Sealed;
use crate::store::sealed::Unusable;
use crate::store::shelf;
use crate::store::shelf::MemoryShelf;
use crate::store::shelf::Name;
use crate::store::shelf::Shelf;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

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
    kept: Kept,
    /// Apart from the record, so that a touch needs no exclusive access.
    seen: AtomicU64,
}

enum Kept {
    Open(Record),
    /// As it was read from a store outside the process; nobody has presented its selector yet.
    Sealed(Outline, Sealed),
}

impl Entered {
    fn new(kept: Kept, seen: Timestamp) -> Self {
        Self { seen: AtomicU64::new(seen.as_millis()), kept }
    }

    fn seen(&self) -> Timestamp {
        Timestamp::from_millis(self.seen.load(Ordering::Relaxed))
    }

    fn site(&self) -> &str {
        match &self.kept {
            Kept::Open(record) => &record.site,
            Kept::Sealed(outline, _) => &outline.site,
        }
    }

    fn life(&self) -> Life {
        let life = match &self.kept {
            Kept::Open(record) => record.life(),
            Kept::Sealed(outline, _) => outline.life(),
        };
        Life { seen: self.seen(), ..life }
    }

    fn revision(&self) -> u64 {
        match &self.kept {
            Kept::Open(record) => record.revision,
            Kept::Sealed(_, stored) => stored.revision,
        }
    }

    fn outline(&self, key: &SessionKey) -> Outline {
        let outline = match &self.kept {
            Kept::Open(record) => record.outline(key),
            Kept::Sealed(outline, _) => outline.clone(),
        };
        Outline { seen: self.seen(), ..outline }
    }

    /// `None` while it is sealed.
    fn record(&self) -> Option<Record> {
        match &self.kept {
            Kept::Open(record) => Some(Record { seen: self.seen(), ..record.clone() }),
            Kept::Sealed(..) => None,
        }
    }
}

enum Slot {
    Session(Box<Entered>),
    /// Ended by login or logout, then.
    Tombstone(Timestamp),
}

impl Slot {
    fn is_session(&self) -> bool {
        match self {
            Self::Session(_) => true,
            Self::Tombstone(_) => false,
        }
    }
}

/// Sessions in memory.
pub struct MemoryStore {
    slots: DashMap<SessionKey, Slot, BuildHasherDefault<KeyHasher>>,
    index: Index,
    pub(super) shelf: MemoryShelf,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            slots: DashMap::with_hasher_and_shard_amount(BuildHasherDefault::default(), SHARDS),
            index: Index::default(),
            shelf: MemoryShelf::default(),
        }
    }
}

impl MemoryStore {
    fn found(&self, key: &SessionKey, now: Timestamp) -> Found {
        match self.slots.get(key).as_deref() {
            Some(Slot::Session(session)) => {
                session.record().map_or(Found::Absent, |record| Found::Record(Box::new(record)))
            }
            Some(Slot::Tombstone(since)) if now.since(*since) < TOMBSTONE => Found::Tombstone,
            Some(Slot::Tombstone(_)) | None => Found::Absent,
        }
    }

    fn add(&self, key: &SessionKey, record: Record) -> Presence {
        match self.slots.entry(*key) {
            Entry::Occupied(_) => Presence::Gone,
            Entry::Vacant(vacant) => {
                self.index.enter(*key, &record.outline(key));
                let seen = record.seen;
                let _held_until_indexed =
                    vacant.insert(Slot::Session(Box::new(Entered::new(Kept::Open(record), seen))));
                Presence::Present
            }
        }
    }

    /// Adds what a store outside the process had when it was opened.
    pub(super) fn add_sealed(&self, key: SessionKey, outline: Outline, stored: Sealed) {
        self.index.enter(key, &outline);
        let seen = stored.seen;
        self.slots.insert(key, Slot::Session(Box::new(Entered::new(Kept::Sealed(outline, stored), seen))));
    }

    /// Opens a record that is still sealed, for whoever presents its selector.
    ///
    /// # Errors
    /// When it is not what was sealed: it is removed then.
    pub(super) fn wake(&self, handle: &Handle) -> Result<(), Unusable> {
        let is_sealed = |slot: &Slot| matches!(slot, Slot::Session(session) if session.record().is_none());
        if !self.slots.get(handle.key()).as_deref().is_some_and(is_sealed) {
            return Ok(());
        }
        let Entry::Occupied(mut slot) = self.slots.entry(*handle.key()) else { return Ok(()) };
        let Slot::Session(session) = slot.get_mut() else { return Ok(()) };
        let Kept::Sealed(outline, stored) = &session.kept else { return Ok(()) };
        match sealed::open(handle, stored) {
            Ok(record) => {
                session.kept = Kept::Open(record);
                Ok(())
            }
            Err(error) => {
                self.index.leave(handle.key(), outline);
                slot.remove();
                Err(error)
            }
        }
    }

    /// What is to be kept of a key outside the process: the record, unless it is sealed still, and
    /// the last activity; `None` when there is no session.
    pub(super) fn state(&self, key: &SessionKey) -> Option<(Option<Record>, Timestamp)> {
        match self.slots.get(key).as_deref() {
            Some(Slot::Session(session)) => Some((session.record(), session.seen())),
            Some(Slot::Tombstone(_)) | None => None,
        }
    }

    /// Removes a session; whole if it is not sealed.
    fn end(&self, key: &SessionKey, tombstone: bool, now: Timestamp) -> Option<(Outline, Option<Record>)> {
        let Entry::Occupied(mut slot) = self.slots.entry(*key) else { return None };
        let Slot::Session(session) = slot.get() else { return None };
        let (outline, record) = (session.outline(key), session.record());
        self.index.leave(key, &outline);
        if tombstone {
            slot.insert(Slot::Tombstone(now));
        } else {
            slot.remove();
        }
        Some((outline, record))
    }

    fn end_at(&self, key: &SessionKey, revision: u64) -> Removal {
        let Entry::Occupied(slot) = self.slots.entry(*key) else { return Removal::Gone };
        let Slot::Session(session) = slot.get() else { return Removal::Gone };
        if session.revision() != revision {
            return Removal::Stale;
        }
        let outline = session.outline(key);
        self.index.leave(key, &outline);
        slot.remove();
        Removal::Removed(Box::new(outline))
    }

    /// Applies a change to the session of this key, if there is one.
    fn with<T>(&self, key: &SessionKey, change: impl FnOnce(&mut Record) -> T) -> Option<T> {
        match self.slots.get_mut(key).as_deref_mut() {
            Some(Slot::Session(session)) => match &mut session.kept {
                Kept::Open(record) => Some(change(record)),
                Kept::Sealed(..) => None,
            },
            Some(Slot::Tombstone(_)) | None => None,
        }
    }

    fn moved(&self, key: &SessionKey, seen: Timestamp, idle: Duration) -> Presence {
        let slot = self.slots.get(key);
        let Some(Slot::Session(session)) = slot.as_deref() else { return Presence::Gone };
        let absolute_end = session.life().absolute_end;
        let moved = session.seen.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| {
            let lives = seen.since(Timestamp::from_millis(last)) < idle && seen < absolute_end;
            lives.then_some(last.max(seen.as_millis()))
        });
        if moved.is_ok() { Presence::Present } else { Presence::Gone }
    }

    /// The least recently used of the oldest few: an exact order would cost a write per request.
    fn least_used(&self, site: &str) -> Option<SessionKey> {
        const LOOKED_AT: usize = 16;
        self.index.oldest_anonymous(site, LOOKED_AT).into_iter().min_by_key(|key| {
            match self.slots.get(key).as_deref() {
                Some(Slot::Session(session)) => session.seen.load(Ordering::Relaxed),
                Some(Slot::Tombstone(_)) | None => 0,
            }
        })
    }

    fn outline(&self, key: &SessionKey) -> Option<Outline> {
        match self.slots.get(key).as_deref() {
            Some(Slot::Session(session)) => Some(session.outline(key)),
            Some(Slot::Tombstone(_)) | None => None,
        }
    }

    /// The first keys after that one: a total order, so that no session is left out or comes twice
    /// whatever comes and goes meanwhile.
    fn page(&self, user: Option<&str>, after: Option<SessionKey>, limit: usize) -> Page {
        // One more than is asked for tells whether this is all.
        let mut first = BinaryHeap::new();
        let mut consider = |key: SessionKey| {
            let is_full = first.len() > limit;
            if after.is_some_and(|after| key <= after) || (is_full && first.peek() < Some(&key)) {
                return;
            }
            first.push(key);
            if is_full {
                first.pop();
            }
        };
        match user {
            Some(user) => self.index.keys_of(user).into_iter().for_each(consider),
            None => self.slots.iter().filter(|slot| slot.is_session()).for_each(|slot| consider(*slot.key())),
        }
        let mut keys = first.into_sorted_vec();
        let is_all = keys.len() <= limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| !is_all).map(|last| URL_SAFE_NO_PAD.encode(last.0));
        let sessions = keys.into_iter().filter_map(|key| Some((key, self.outline(&key)?))).collect();
        Page { sessions, next }
    }

    fn expired(&self, judge: Judge<'_>, now: Timestamp) -> Vec<(SessionKey, Outline, EndReason)> {
        let mut ended = Vec::new();
        // The map's iterator holds one shard at a time.
        let candidates: Vec<SessionKey> = self
            .slots
            .iter()
            .filter(|slot| match slot.value() {
                Slot::Session(session) => judge(session.site(), session.life()).is_some(),
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
                    if let Some(reason) = judge(session.site(), session.life()) {
                        let outline = session.outline(&key);
                        self.index.leave(&key, &outline);
                        slot.remove();
                        ended.push((key, outline, reason));
                    }
                }
            }
        }
        ended
    }
}

/// The key at which a page ended.
fn place(next: &str) -> Option<SessionKey> {
    let mut key = [0; 32];
    let length = URL_SAFE_NO_PAD.decode_slice(next, &mut key).ok()?;
    (length == key.len()).then_some(SessionKey(key))
}

impl SessionStore for MemoryStore {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        Box::pin(ready(Ok(self.found(handle.key(), now))))
    }

    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>> {
        Box::pin(ready(Ok(self.outline(key))))
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record, _idle: Duration) -> Reply<'a, Presence> {
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
            }
        });
        Box::pin(ready(Ok(if changed.is_some() { Presence::Present } else { Presence::Gone })))
    }

    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence> {
        let bound = self.with(handle.key(), |record| match &mut record.device {
            Some(device) => {
                **device = device.bound();
                Presence::Present
            }
            None => Presence::Gone,
        });
        Box::pin(ready(Ok(bound.unwrap_or(Presence::Gone))))
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        Box::pin(ready(Ok(self.end(handle.key(), true, now).and_then(|(_, record)| record))))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        Box::pin(ready(Ok(self.end(key, tombstone, now).map(|(outline, _)| outline))))
    }

    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal> {
        Box::pin(ready(Ok(self.end_at(key, revision))))
    }

    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>> {
        let mut outlines: Vec<_> = self
            .index
            .keys_of(user)
            .into_iter()
            .filter_map(|key| Some((self.outline(&key)?, key)))
            .filter(|(outline, _)| site.is_none_or(|site| *outline.site == *site))
            .map(|(outline, key)| (outline.created, key))
            .collect();
        outlines.sort_unstable();
        Box::pin(ready(Ok(outlines.into_iter().map(|(_, key)| key).collect())))
    }

    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>> {
        let after = from.map(place);
        let page = (after != Some(None)).then(|| self.page(user, after.flatten(), limit));
        Box::pin(ready(Ok(page)))
    }

    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>> {
        let found = self.slots.iter().find(|slot| slot.is_session() && slot.key().is_called(session_ref));
        Box::pin(ready(Ok(found.map(|slot| *slot.key()))))
    }

    fn ready(&self) -> Reply<'_, ()> {
        Box::pin(ready(Ok(())))
    }

    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population> {
        Box::pin(ready(Ok(self.index.population(site))))
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        let evicted = self.least_used(site).and_then(|key| {
            let (outline, _) = self.end(&key, false, Timestamp::default())?;
            Some((key, outline))
        });
        Box::pin(ready(Ok(evicted)))
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        Box::pin(ready(Ok(self.expired(judge, now))))
    }
}

impl Shelf for MemoryStore {
    fn shelved<'a>(&'a self, name: &'a Name, now: Timestamp) -> Reply<'a, Option<Shelved>> {
        Box::pin(ready(Ok(self.shelf.shelved(name, now))))
    }

    fn shelve<'a>(
        &'a self,
        name: &'a Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        now: Timestamp,
    ) -> Reply<'a, Swap> {
        let measured = shelf::measure(&value);
        Box::pin(ready(measured.map(|()| self.shelf.shelve(name, expected, value, lives, now).0)))
    }

    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()> {
        self.shelf.unshelve(name);
        Box::pin(ready(Ok(())))
    }
}
