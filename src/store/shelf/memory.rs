//! A shelf in memory, with a bounded room for each kind.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::store::Swap;
use crate::store::shelf::Kind;
use crate::store::shelf::Name;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

/// What a value takes beside its bytes, about.
const OVERHEAD: usize = 256;

/// A value, and when its time is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Kept {
    pub(in crate::store) shelved: Shelved,
    pub(in crate::store) ends: Timestamp,
}

/// The values of one kind.
struct Room {
    most: usize,
    most_bytes: usize,
    values: HashMap<Name, Kept>,
    bytes: usize,
    /// Versions are counted up: this is also the order in which they were written.
    written: BTreeMap<Version, Name>,
    ending: BTreeSet<(Timestamp, Name)>,
}

impl Room {
    fn new((most, most_bytes): (usize, usize)) -> Self {
        Self { most, most_bytes, values: HashMap::new(), bytes: 0, written: BTreeMap::new(), ending: BTreeSet::new() }
    }

    fn live(&self, name: &Name, now: Timestamp) -> Option<&Kept> {
        self.values.get(name).filter(|kept| now < kept.ends)
    }

    fn put(&mut self, name: Name, kept: Kept) {
        self.take(&name);
        self.bytes += kept.shelved.value.len() + OVERHEAD;
        self.written.insert(kept.shelved.version, name);
        self.ending.insert((kept.ends, name));
        self.values.insert(name, kept);
    }

    fn take(&mut self, name: &Name) {
        if let Some(kept) = self.values.remove(name) {
            self.bytes -= kept.shelved.value.len() + OVERHEAD;
            self.written.remove(&kept.shelved.version);
            self.ending.remove(&(kept.ends, *name));
        }
    }

    /// Makes room: returns what went.
    fn tidy(&mut self, now: Timestamp) -> Vec<Name> {
        let mut gone = Vec::new();
        loop {
            let over = self.ending.first().filter(|(ends, _)| *ends <= now).map(|(_, name)| *name);
            let is_full = self.values.len() > self.most || self.bytes > self.most_bytes;
            let oldest = || self.written.first_key_value().filter(|_| is_full).map(|(_, name)| *name);
            let Some(name) = over.or_else(oldest) else { return gone };
            self.take(&name);
            gone.push(name);
        }
    }
}

struct Rooms {
    attempts: Room,
    devices: Room,
    learned: Room,
    last: Version,
}

impl Rooms {
    fn of(&mut self, name: &Name) -> &mut Room {
        match name.kind {
            Kind::Attempts => &mut self.attempts,
            Kind::Devices => &mut self.devices,
            Kind::Learned => &mut self.learned,
        }
    }

    fn next(&mut self) -> Version {
        self.last.0 += 1;
        self.last
    }
}

/// A shelf in memory.
pub(in crate::store) struct MemoryShelf(Mutex<Rooms>);

impl Default for MemoryShelf {
    fn default() -> Self {
        Self::with(Kind::room)
    }
}

impl MemoryShelf {
    fn with(room: impl Fn(Kind) -> (usize, usize)) -> Self {
        let [attempts, devices, learned] =
            [Kind::Attempts, Kind::Devices, Kind::Learned].map(|kind| Room::new(room(kind)));
        Self(Mutex::new(Rooms { attempts, devices, learned, last: Version(0) }))
    }

    fn rooms(&self) -> MutexGuard<'_, Rooms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What lives there.
    pub(in crate::store) fn shelved(&self, name: &Name, now: Timestamp) -> Option<Shelved> {
        self.rooms().of(name).live(name, now).map(|kept| kept.shelved.clone())
    }

    /// What is there, whether its time is up or not.
    pub(in crate::store) fn kept(&self, name: &Name) -> Option<Kept> {
        self.rooms().of(name).values.get(name).cloned()
    }

    /// Compare-and-swap; returns also what had to go to make room.
    pub(in crate::store) fn shelve(
        &self,
        name: &Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        now: Timestamp,
    ) -> (Swap, Vec<Name>) {
        let mut rooms = self.rooms();
        let version = rooms.next();
        let room = rooms.of(name);
        match (room.live(name, now).map(|kept| kept.shelved.version), expected) {
            (None, Some(_)) => return (Swap::Gone, Vec::new()),
            (found, expected) if found != expected => return (Swap::Stale, Vec::new()),
            (None, None) | (Some(_), None | Some(_)) => {}
        }
        room.put(*name, Kept { shelved: Shelved { version, value }, ends: now.plus(lives) });
        (Swap::Swapped, room.tidy(now))
    }

    /// Puts back what was kept elsewhere.
    pub(in crate::store) fn restore(&self, name: Name, kept: Kept) {
        let mut rooms = self.rooms();
        rooms.last = rooms.last.max(kept.shelved.version);
        rooms.of(&name).put(name, kept);
    }

    /// Takes a value away.
    pub(in crate::store) fn unshelve(&self, name: &Name) {
        self.rooms().of(name).take(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixtures::at;

    const MINUTE: Duration = Duration::from_secs(60);

    fn name(kind: Kind, number: u32) -> Name {
        Name::of(kind, &[&number.to_be_bytes()])
    }

    fn put(shelf: &MemoryShelf, name: &Name, lives: Duration, now: Timestamp) -> Vec<Name> {
        let version = shelf.shelved(name, now).map(|shelved| shelved.version);
        let (swap, gone) = shelf.shelve(name, version, Bytes::from_static(b"four"), lives, now);
        assert_eq!(swap, Swap::Swapped);
        gone
    }

    #[test]
    fn a_full_room_loses_what_is_over_first_and_then_what_was_written_the_longest_ago() {
        // S151
        let shelf = MemoryShelf::with(|_| (3, usize::MAX));
        let [a, b, c, d, e] = [1, 2, 3, 4, 5].map(|number| name(Kind::Attempts, number));
        assert_eq!(put(&shelf, &a, MINUTE * 10, at(0)), []);
        assert_eq!(put(&shelf, &b, MINUTE, at(1)), []);
        assert_eq!(put(&shelf, &c, MINUTE * 10, at(2)), []);
        assert_eq!(put(&shelf, &a, MINUTE * 10, at(3)), [], "in the place of another one");

        assert_eq!(put(&shelf, &d, MINUTE * 10, at(61)), [b], "its time is up");
        assert_eq!(put(&shelf, &e, MINUTE * 10, at(62)), [c], "the others were written later");
        assert!(shelf.shelved(&a, at(62)).is_some());
    }

    #[test]
    fn bytes_fill_a_room_as_well() {
        let shelf = MemoryShelf::with(|_| (usize::MAX, 10 * (OVERHEAD + 4)));
        for number in 0..1000 {
            put(&shelf, &name(Kind::Attempts, number), MINUTE, at(0));
        }
        let left = (0..1000).filter(|number| shelf.shelved(&name(Kind::Attempts, *number), at(0)).is_some());
        assert_eq!(left.collect::<Vec<_>>(), (990..1000).collect::<Vec<_>>());
    }

    #[test]
    fn a_flood_of_one_kind_pushes_out_none_of_another() {
        // S151
        let shelf = MemoryShelf::with(|_| (10, usize::MAX));
        let device = name(Kind::Devices, 1);
        put(&shelf, &device, MINUTE, at(0));
        for number in 0..1000 {
            put(&shelf, &name(Kind::Attempts, number), MINUTE, at(0));
        }
        assert!(shelf.shelved(&device, at(0)).is_some());
    }

    #[test]
    fn a_version_is_never_given_twice() {
        let shelf = MemoryShelf::default();
        let name = name(Kind::Devices, 1);
        put(&shelf, &name, MINUTE, at(0));
        let first = shelf.shelved(&name, at(0)).unwrap();
        shelf.unshelve(&name);
        put(&shelf, &name, MINUTE, at(0));
        let (swap, _) = shelf.shelve(&name, Some(first.version), first.value, MINUTE, at(0));
        assert_eq!(swap, Swap::Stale);

        let kept = shelf.kept(&name).unwrap();
        let restarted = MemoryShelf::default();
        restarted.restore(name, kept.clone());
        put(&restarted, &name, MINUTE, at(0));
        assert!(restarted.kept(&name).unwrap().shelved.version > kept.shelved.version);
    }
}
