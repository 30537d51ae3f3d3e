//! Sessions in memory: they end with the process.

mod lists;
mod packed;
mod pile;
mod shard;
mod sweep;
mod table;
mod texts;

use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::policy::chain::Chain;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::store::AT_ONCE;
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
use crate::store::index::Entry;
use crate::store::index::Index;
use crate::store::memory::packed::Limits;
use crate::store::memory::packed::Open;
use crate::store::memory::packed::Packed;
use crate::store::memory::shard::Shard;
use crate::store::memory::texts::Texts;
use crate::store::sealed;
use crate::store::sealed::Sealed;
use crate::store::sealed::Unusable;
use crate::store::sealed::keys::Keys;
use crate::store::shelf;
use crate::store::shelf::MemoryShelf;
use crate::store::shelf::Name;
use crate::store::shelf::Shelf;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

/// Many shards: one that grows, or is swept, holds up only a small part of the sessions.
const SHARDS: usize = 1024;

/// Sessions in memory.
pub struct MemoryStore {
    shards: Box<[RwLock<Shard>]>,
    index: Index,
    pub(super) shelf: MemoryShelf,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            index: Index::default(),
            shelf: MemoryShelf::default(),
        }
    }
}

/// What the index goes by.
fn entry<'a>(piece: &[u8], limits: &Limits<'a>, texts: &'a Texts) -> Entry<'a> {
    let site = texts.get(limits.site).map_or("", |site| site);
    Entry { hash: shard::hash(&packed::key(piece)), site, user: limits.user, created: limits.created }
}

impl MemoryStore {
    /// The shard of a key, by bits of its hash that a shard's own table does not go by.
    fn shard(&self, hash: u64) -> &RwLock<Shard> {
        &self.shards[(hash >> 40) as usize % SHARDS]
    }

    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Shard> {
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, key: &SessionKey) -> RwLockWriteGuard<'_, Shard> {
        self.shard(shard::hash(key)).write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last activity of what is under a key, or its end: finding without reading (`benches/sessions`).
    pub fn last_activity(&self, key: &SessionKey) -> Option<Timestamp> {
        self.read(shard::hash(key)).get(key).map(packed::time)
    }

    /// What is under a key; `None` when that is sealed still.
    pub(super) fn look(&self, key: &SessionKey, now: Timestamp) -> Option<Found> {
        let shard = self.read(shard::hash(key));
        let Some(piece) = shard.get(key) else { return Some(Found::Absent) };
        Some(match packed::read(piece) {
            Some(Packed::Open(open)) => {
                open.record(piece, &shard.texts).map_or(Found::Absent, |record| Found::Record(Box::new(record)))
            }
            Some(Packed::Tombstone) if now.since(packed::time(piece)) < TOMBSTONE => Found::Tombstone,
            Some(Packed::Tombstone) | None => Found::Absent,
            Some(Packed::Sealed(_)) => return None,
        })
    }

    fn add(&self, key: &SessionKey, record: &Record) -> Presence {
        let mut shard = self.write(key);
        if shard.get(key).is_some() {
            return Presence::Gone;
        }
        let piece = packed::write_record(key, record, &mut shard.texts);
        self.put_new(&mut shard, key, &piece);
        Presence::Present
    }

    /// Adds what a store outside the process had when it was opened.
    pub(super) fn add_sealed(&self, key: &SessionKey, outline: &Outline, stored: &Sealed) {
        let mut shard = self.write(key);
        let piece = packed::write_sealed(key, outline, stored, &mut shard.texts);
        self.put_new(&mut shard, key, &piece);
    }

    fn put_new(&self, shard: &mut Shard, key: &SessionKey, piece: &[u8]) {
        shard.put(key, piece);
        if let Some(limits) = packed::limits(piece) {
            self.index.enter(&entry(piece, &limits, &shard.texts));
        }
    }

    /// Opens a record that is still sealed, for whoever presents its selector.
    ///
    /// # Errors
    /// When it is not what was sealed: it is removed then.
    pub(super) fn wake(&self, keys: &Keys, handle: &Handle) -> Result<(), Unusable> {
        let key = handle.key();
        let is_sealed = |piece: &[u8]| matches!(packed::read(piece), Some(Packed::Sealed(_)));
        if !self.read(shard::hash(key)).get(key).is_some_and(is_sealed) {
            return Ok(());
        }
        let mut shard = self.write(key);
        // Another request may have been faster.
        let Some(piece) = shard.get(key).map(<[u8]>::to_vec) else { return Ok(()) };
        let Some(sealed @ Packed::Sealed(closed)) = &packed::read(&piece) else { return Ok(()) };
        let opened = sealed::open(keys, handle, &closed.sealed(packed::time(&piece)));
        match opened {
            Ok((record, _)) => {
                let open = packed::write_record(key, &record, &mut shard.texts);
                sealed.leave(&mut shard.texts);
                shard.put(key, &open);
                Ok(())
            }
            Err(error) => {
                self.drop_piece(&mut shard, &piece);
                Err(error)
            }
        }
    }

    /// What is to be kept of a key outside the process: the record, unless it is sealed still, and
    /// the last activity; `None` when there is no session.
    pub(super) fn state(&self, key: &SessionKey) -> Option<(Option<Record>, Timestamp)> {
        let shard = self.read(shard::hash(key));
        let piece = shard.get(key)?;
        let record = match packed::read(piece)? {
            Packed::Open(open) => open.record(piece, &shard.texts),
            Packed::Sealed(..) => None,
            Packed::Tombstone => return None,
        };
        Some((record, packed::time(piece)))
    }

    /// Takes a session out of its shard and the index.
    fn drop_piece(&self, shard: &mut Shard, piece: &[u8]) {
        if let Some(limits) = packed::limits(piece) {
            self.index.leave(&entry(piece, &limits, &shard.texts));
        }
        if let Some(packed) = packed::read(piece) {
            packed.leave(&mut shard.texts);
        }
        shard.remove(&packed::key(piece));
    }

    /// Removes a session; whole if it is not sealed.
    fn end(&self, key: &SessionKey, tombstone: bool, now: Timestamp) -> Option<(Outline, Option<Record>)> {
        let mut shard = self.write(key);
        let piece = shard.get(key)?.to_vec();
        let packed = packed::read(&piece)?;
        let outline = packed.outline(&piece, &shard.texts)?;
        let record = match &packed {
            Packed::Open(open) => open.record(&piece, &shard.texts),
            Packed::Sealed(..) | Packed::Tombstone => None,
        };
        self.drop_piece(&mut shard, &piece);
        if tombstone {
            shard.put(key, &packed::write(key, now, &Packed::Tombstone));
        }
        Some((outline, record))
    }

    fn end_at(&self, key: &SessionKey, revision: u64) -> Removal {
        let mut shard = self.write(key);
        let Some(piece) = shard.get(key).map(<[u8]>::to_vec) else { return Removal::Gone };
        let Some(packed) = packed::read(&piece) else { return Removal::Gone };
        let Some(outline) = packed.outline(&piece, &shard.texts) else { return Removal::Gone };
        if packed.revision() != revision {
            return Removal::Stale;
        }
        self.drop_piece(&mut shard, &piece);
        Removal::Removed(Box::new(outline))
    }

    /// Changes a session, if there is one and it is not sealed: what is put takes its place.
    fn change<T>(
        &self,
        key: &SessionKey,
        change: impl FnOnce(Open<'_>, &mut Texts, &mut dyn FnMut(Open<'_>)) -> T,
    ) -> Option<T> {
        let mut shard = self.write(key);
        let piece = shard.get(key)?.to_vec();
        let Packed::Open(open) = packed::read(&piece)? else { return None };
        let mut changed = None;
        let answer = change(open, &mut shard.texts, &mut |open| {
            changed = Some(packed::write(key, packed::time(&piece), &Packed::Open(open)));
        });
        if let Some(piece) = changed {
            shard.put(key, &piece);
        }
        Some(answer)
    }

    fn swap(&self, key: &SessionKey, revision: u64, chain: &Chain) -> Swap {
        let swapped = self.change(key, |open, texts, put| {
            if open.revision != revision {
                return Swap::Stale;
            }
            put(open.with_chain(chain, texts));
            Swap::Swapped
        });
        swapped.unwrap_or(Swap::Gone)
    }

    fn keep(&self, key: &SessionKey, changes: &[VaultChange], now: Timestamp) -> Presence {
        let kept = self.change(key, |open, _, put| {
            if let Some(vault) = open.vault().changed(changes, now) {
                put(open.with_vault(&vault));
            }
        });
        if kept.is_some() { Presence::Present } else { Presence::Gone }
    }

    fn bound(&self, key: &SessionKey) -> Presence {
        let bound = self.change(key, |open, _, put| open.bound().map(put));
        if bound.flatten().is_some() { Presence::Present } else { Presence::Gone }
    }

    fn moved(&self, key: &SessionKey, seen: Timestamp, idle: Duration) -> Presence {
        let mut shard = self.write(key);
        let Some(piece) = shard.get_mut(key) else { return Presence::Gone };
        let last = packed::time(piece);
        let Some(limits) = packed::limits(piece) else { return Presence::Gone };
        if seen.since(last) >= idle || seen >= limits.life(last).absolute_end {
            return Presence::Gone;
        }
        packed::set_time(piece, last.max(seen));
        Presence::Present
    }

    fn outline(&self, key: &SessionKey) -> Option<Outline> {
        let shard = self.read(shard::hash(key));
        let piece = shard.get(key)?;
        packed::read(piece)?.outline(piece, &shard.texts)
    }
}

impl SessionStore for MemoryStore {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        Reply::now(Ok(self.look(handle.key(), now).unwrap_or(Found::Absent)))
    }

    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>> {
        Reply::now(Ok(self.outline(key)))
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record, _idle: Duration) -> Reply<'a, Presence> {
        Reply::now(Ok(self.add(handle.key(), &record)))
    }

    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence> {
        Reply::now(Ok(self.moved(key, seen, idle)))
    }

    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        Reply::now(Ok(self.swap(key, revision, &chain)))
    }

    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        Reply::now(Ok(self.keep(handle.key(), changes, now)))
    }

    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence> {
        Reply::now(Ok(self.bound(handle.key())))
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        Reply::now(Ok(self.end(handle.key(), true, now).and_then(|(_, record)| record)))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        Reply::now(Ok(self.end(key, tombstone, now).map(|(outline, _)| outline)))
    }

    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal> {
        Reply::now(Ok(self.end_at(key, revision)))
    }

    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>> {
        let mut keys = self.keys_of(user, site);
        keys.sort_unstable();
        Reply::now(Ok(keys.into_iter().map(|(_, key)| key).collect()))
    }

    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>> {
        let after = from.map(lists::place);
        let page = (after != Some(None)).then(|| self.page(user, after.flatten(), limit));
        Reply::now(Ok(page))
    }

    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>> {
        let mut found = None;
        self.for_each(|key| {
            if *key.session_ref() == *session_ref {
                found = Some(key);
            }
        });
        Reply::now(Ok(found))
    }

    fn ready(&self) -> Reply<'_, ()> {
        Reply::now(Ok(()))
    }

    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population> {
        Reply::now(Ok(self.index.population(site)))
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        let evicted = self.least_used(site).and_then(|key| {
            let (outline, _) = self.end(&key, false, Timestamp::default())?;
            Some((key, outline))
        });
        Reply::now(Ok(evicted))
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        Reply::later(async move {
            let mut ended = Vec::new();
            for shard in &self.shards {
                self.sweep_shard(shard, judge, now, &mut ended).await;
                if ended.len() >= AT_ONCE {
                    break;
                }
            }
            Ok(ended)
        })
    }
}

impl Shelf for MemoryStore {
    fn shelved<'a>(&'a self, name: &'a Name, now: Timestamp) -> Reply<'a, Option<Shelved>> {
        Reply::now(Ok(self.shelf.shelved(name, now)))
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
        Reply::now(measured.map(|()| self.shelf.shelve(name, expected, value, lives, now).0))
    }

    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()> {
        self.shelf.unshelve(name);
        Reply::now(Ok(()))
    }
}

#[cfg(test)]
mod tests;
