//! What this process knows of records, kept exact by the server: it says which ones change. A record that
//! changes while it is being read is not kept.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use dashmap::DashMap;
use dashmap::Entry;

use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::vault::VaultCookie;
use crate::store::redis::names::Ref;
use crate::store::sealed::keys::KeyNumber;

/// Bytes that are kept at most, about; what has no room is read from the server each time.
const ROOM: usize = 128 * 1024 * 1024;
/// What nobody asked for in so many seconds is not kept.
const UNUSED: usize = 120;
/// Beside its texts: the place in the map, and what the allocator adds.
const OVERHEAD: usize = 200;

/// A record as it was read.
pub(super) struct Loaded {
    pub(super) record: Record,
    /// The bytes of its readable part: sealed fields are tied to them.
    pub(super) readable: Vec<u8>,
    /// The version of the vault.
    pub(super) version: u64,
    /// What its fields are sealed with.
    pub(super) key: KeyNumber,
}

/// What is known of a record.
#[derive(Clone)]
pub(super) enum Known {
    /// All, since its selector was presented.
    Whole(Arc<Loaded>),
    /// What needs no secret.
    Outline(Arc<Outline>),
}

impl Known {
    /// About how many bytes it takes.
    fn weight(&self) -> usize {
        let texts =
            |outline: &Outline| outline.site.len() + outline.user.as_ref().map_or(0, |user| user.as_str().len());
        OVERHEAD
            + match self {
                Self::Outline(outline) => size_of::<Outline>() + texts(outline),
                Self::Whole(loaded) => {
                    let cookie = |cookie: &VaultCookie| {
                        let texts = cookie.name.len() + cookie.value.len() + cookie.path.len();
                        size_of::<VaultCookie>() + texts + cookie.domain.as_ref().map_or(0, String::len)
                    };
                    let cookies: usize = loaded.record.vault.cookies().iter().map(cookie).sum();
                    // The user's name and the site stand in the readable part, too.
                    size_of::<Loaded>() + loaded.readable.len() * 2 + cookies
                }
            }
    }

    pub(super) fn life(&self) -> Life {
        match self {
            Self::Whole(loaded) => loaded.record.life(),
            Self::Outline(outline) => outline.life(),
        }
    }
}

enum Slot {
    /// Somebody reads it, with this ticket.
    Read(u64),
    Known {
        what: Known,
        weight: usize,
        /// Seconds since the cache was made.
        used: AtomicU64,
    },
}

impl Slot {
    fn weight(&self) -> usize {
        match self {
            Self::Read(_) => 0,
            Self::Known { weight, .. } => *weight,
        }
    }

    /// For how many seconds nobody has asked for it.
    fn unused(&self, now: u64) -> usize {
        match self {
            Self::Read(_) => 0,
            Self::Known { used, .. } => {
                usize::try_from(now.saturating_sub(used.load(Ordering::Relaxed))).unwrap_or(usize::MAX)
            }
        }
    }
}

/// What is known of all records.
pub(super) struct Cache {
    slots: DashMap<Ref, Slot>,
    /// Of all slots.
    weight: AtomicUsize,
    room: usize,
    tickets: AtomicU64,
    born: Instant,
}

impl Default for Cache {
    fn default() -> Self {
        Self::with_room(ROOM)
    }
}

impl Cache {
    fn with_room(room: usize) -> Self {
        let (slots, weight) = (DashMap::new(), AtomicUsize::new(0));
        Self { slots, weight, room, tickets: AtomicU64::new(0), born: Instant::now() }
    }

    fn has_room(&self) -> bool {
        self.weight.load(Ordering::Relaxed) < self.room
    }

    fn left(&self, slot: &Slot) {
        self.weight.fetch_sub(slot.weight(), Ordering::Relaxed);
    }

    fn seconds(&self) -> u64 {
        self.born.elapsed().as_secs()
    }

    /// What is known of a record. Only exact while the server is heard from: the caller has looked.
    pub(super) fn get(&self, name: &Ref) -> Option<Known> {
        match self.slots.get(name).as_deref() {
            Some(Slot::Known { what, used, .. }) => {
                used.store(self.seconds(), Ordering::Relaxed);
                Some(what.clone())
            }
            Some(Slot::Read(_)) | None => None,
        }
    }

    /// Says that a record is about to be read: before the server is asked, so that no change is missed.
    pub(super) fn reads(self: &Arc<Self>, name: Ref) -> Reading {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        if self.has_room()
            && let Some(before) = self.slots.insert(name, Slot::Read(ticket))
        {
            self.left(&before);
        }
        Reading { cache: Arc::clone(self), name, ticket }
    }

    /// The record has changed, or may have.
    pub(super) fn forget(&self, name: &Ref) {
        if let Some((_, slot)) = self.slots.remove(name) {
            self.left(&slot);
        }
    }

    /// The same for the key of a record.
    pub(super) fn forget_named(&self, key: &[u8]) {
        if let Some(name) = key.last_chunk::<16>() {
            self.forget(name);
        }
    }

    /// Nothing that is known is sure.
    pub(super) fn forget_all(&self) {
        self.keep(|_| false);
    }

    fn keep(&self, is_kept: impl Fn(&Slot) -> bool) {
        self.slots.retain(|_, slot| {
            let is_kept = is_kept(slot);
            if !is_kept {
                self.left(slot);
            }
            is_kept
        });
    }

    /// Lets go of what nobody asks for; of what was asked for least lately when there is no room, until a
    /// quarter is free.
    pub(super) fn tidy(&self, is_time: bool) {
        if !is_time && self.has_room() {
            return;
        }
        let (now, mut weights) = (self.seconds(), [0; UNUSED]);
        for slot in &self.slots {
            if let Some(weight) = weights.get_mut(slot.unused(now)) {
                *weight += slot.weight();
            }
        }
        let (mut kept, wanted) = (0, self.room / 4 * 3);
        let fits = |weight: &&usize| {
            kept += **weight;
            kept <= wanted
        };
        let age = weights.iter().take_while(fits).count();
        self.keep(|slot| matches!(slot, Slot::Read(_)) || slot.unused(now) < age);
    }
}

/// A record is being read.
pub(super) struct Reading {
    cache: Arc<Cache>,
    name: Ref,
    ticket: u64,
}

impl Reading {
    /// What was read; kept unless the record may have changed since the reading began.
    pub(super) fn found(&self, what: Known) {
        if let Entry::Occupied(mut slot) = self.cache.slots.entry(self.name)
            && matches!(slot.get(), Slot::Read(ticket) if *ticket == self.ticket)
        {
            let weight = what.weight();
            self.cache.weight.fetch_add(weight, Ordering::Relaxed);
            slot.insert(Slot::Known { what, weight, used: AtomicU64::new(self.cache.seconds()) });
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        let ours = |_: &Ref, slot: &Slot| matches!(slot, Slot::Read(ticket) if *ticket == self.ticket);
        self.cache.slots.remove_if(&self.name, ours);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::vault::Vault;
    use crate::store::fixtures::at;
    use crate::store::fixtures::handle;
    use crate::store::fixtures::of;
    use crate::store::redis::names::ref_of;

    fn with_cookie(bytes: usize) -> Known {
        let cookie = VaultCookie {
            name: "c".into(),
            value: vec![0; bytes].into(),
            path: "/".to_owned(),
            domain: None,
            expires: None,
            same_site: None,
            created: at(0),
            used: at(0),
        };
        let record = Record { vault: Vault::of(&[cookie]), ..of("alice") };
        Known::Whole(Arc::new(Loaded { record, readable: Vec::new(), version: 0, key: KeyNumber::default() }))
    }

    fn known() -> Known {
        Known::Outline(Arc::new(of("alice").outline()))
    }

    #[test]
    fn what_changes_while_it_is_read_is_not_kept() {
        // S185
        let cache = Arc::new(Cache::default());
        let name = ref_of(handle(1).key());
        let reading = cache.reads(name);
        cache.forget(&name);
        reading.found(known());
        assert!(cache.get(&name).is_none());

        let first = cache.reads(name);
        cache.forget_all();
        let second = cache.reads(name);
        first.found(known());
        assert!(cache.get(&name).is_none(), "the first one was overtaken");
        second.found(known());
        assert!(cache.get(&name).is_some());
        cache.forget_named(&[b"vestibule:s:", &name[..]].concat());
        assert!(cache.get(&name).is_none());
    }

    #[test]
    fn a_reading_that_comes_to_nothing_leaves_nothing() {
        let cache = Arc::new(Cache::default());
        drop(cache.reads(ref_of(handle(1).key())));
        assert!(cache.slots.is_empty());
    }

    fn weight(cache: &Cache) -> usize {
        cache.slots.iter().map(|slot| slot.weight()).sum()
    }

    #[test]
    fn what_is_known_takes_so_many_bytes_and_no_more() {
        let large = known().weight() + 32 * 1024;
        let cache = Arc::new(Cache::with_room(40 * large));
        for number in 0..=255 {
            let name = ref_of(handle(number).key());
            cache.reads(name).found(with_cookie(32 * 1024));
            assert!(cache.weight.load(Ordering::Relaxed) <= 42 * large, "{number}");
            assert_eq!(cache.weight.load(Ordering::Relaxed), weight(&cache), "{number}");
            if number % 2 == 0 {
                cache.forget(&name);
            }
            cache.tidy(false);
        }
        assert!(cache.has_room(), "there is always room for the next one");
        assert!(cache.slots.len() < 64, "{}", cache.slots.len());
        cache.tidy(true);
        assert_eq!(cache.weight.load(Ordering::Relaxed), weight(&cache));
        cache.forget_all();
        assert_eq!((cache.slots.len(), cache.weight.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn what_was_asked_for_last_is_kept() {
        let cache = Arc::new(Cache::with_room(100 * known().weight()));
        let names: Vec<Ref> = (0..100).map(|number| ref_of(handle(number).key())).collect();
        for name in &names {
            cache.reads(*name).found(known());
        }
        // As if half of them had been asked for long after the others.
        let cache = Cache { born: cache.born - std::time::Duration::from_secs(60), ..Arc::into_inner(cache).unwrap() };
        names[..50].iter().for_each(|name| assert!(cache.get(name).is_some()));
        assert!(!cache.has_room());

        cache.tidy(false);

        assert!(names[..50].iter().all(|name| cache.get(name).is_some()));
        assert!(names[50..].iter().all(|name| cache.get(name).is_none()));
    }
}
