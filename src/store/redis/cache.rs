//! What this process knows of records, kept exact by the server: it says which ones change. A record that
//! changes while it is being read is not kept.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use dashmap::DashMap;
use dashmap::Entry;

use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::store::redis::names::Ref;

/// Records that are kept at most; when there are more, they are read from the server.
const MOST: usize = 200_000;
/// What nobody asked for in so long is not kept.
const UNUSED: Duration = Duration::from_secs(120);

/// A record as it was read.
pub(super) struct Loaded {
    pub(super) record: Record,
    /// The bytes of its readable part: sealed fields are tied to them.
    pub(super) readable: Vec<u8>,
    /// The version of the vault.
    pub(super) version: u64,
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
        /// Seconds since the cache was made.
        used: AtomicU64,
    },
}

/// What is known of all records.
pub(super) struct Cache {
    slots: DashMap<Ref, Slot>,
    tickets: AtomicU64,
    born: Instant,
}

impl Default for Cache {
    fn default() -> Self {
        Self { slots: DashMap::new(), tickets: AtomicU64::new(0), born: Instant::now() }
    }
}

impl Cache {
    fn seconds(&self) -> u64 {
        self.born.elapsed().as_secs()
    }

    /// What is known of a record. Only exact while the server is heard from: the caller has looked.
    pub(super) fn get(&self, name: &Ref) -> Option<Known> {
        match self.slots.get(name).as_deref() {
            Some(Slot::Known { what, used }) => {
                used.store(self.seconds(), Ordering::Relaxed);
                Some(what.clone())
            }
            Some(Slot::Read(_)) | None => None,
        }
    }

    /// Says that a record is about to be read: before the server is asked, so that no change is missed.
    pub(super) fn reads(self: &Arc<Self>, name: Ref) -> Reading {
        let ticket = self.tickets.fetch_add(1, Ordering::Relaxed);
        if self.slots.len() < MOST {
            self.slots.insert(name, Slot::Read(ticket));
        }
        Reading { cache: Arc::clone(self), name, ticket }
    }

    /// The record has changed, or may have.
    pub(super) fn forget(&self, name: &Ref) {
        self.slots.remove(name);
    }

    /// The same for the key of a record.
    pub(super) fn forget_named(&self, key: &[u8]) {
        if let Some(name) = key.last_chunk::<16>() {
            self.forget(name);
        }
    }

    /// Nothing that is known is sure.
    pub(super) fn forget_all(&self) {
        self.slots.clear();
    }

    /// Lets go of what nobody asks for.
    pub(super) fn tidy(&self) {
        let now = self.seconds();
        self.slots.retain(|_, slot| match slot {
            Slot::Read(_) => true,
            Slot::Known { used, .. } => now.saturating_sub(used.load(Ordering::Relaxed)) < UNUSED.as_secs(),
        });
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
            slot.insert(Slot::Known { what, used: AtomicU64::new(self.cache.seconds()) });
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
    use crate::store::fixtures::handle;
    use crate::store::fixtures::of;
    use crate::store::redis::names::ref_of;

    fn known() -> Known {
        Known::Outline(Arc::new(of("alice").outline(handle(1).key())))
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
}
