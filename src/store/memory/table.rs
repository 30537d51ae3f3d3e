//! Where the pieces of a shard lie, by the hashes of their keys. All that a look-up needs of it lies in one line
//! of the cache: among millions of sessions each line is a way to the memory, and takes longer than all that is
//! done with it. A table for everything has its marks in one place and its entries in another.

use crate::store::memory::pile::Place;

/// Places in a bucket: with what belongs to them they fill a line.
const SLOTS: usize = 12;

#[derive(Clone, Copy)]
#[repr(align(64))]
struct Bucket {
    /// A byte of each hash; nothing is where it is zero.
    marks: [u8; SLOTS],
    /// How many were to lie here, or passed by on their way, and lie further behind because it was full.
    passed: u32,
    places: [Place; SLOTS],
}

impl Bucket {
    const EMPTY: Self = Self { marks: [0; SLOTS], passed: 0, places: [Place::NONE; SLOTS] };

    /// The slots with this mark. All are compared at once, as one number: the fewer instructions a look-up has, the
    /// more of the next ones a processor begins with while it waits for the memory.
    fn marked(&self, mark: u8) -> Marked {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = self.marks;
        let marks = u128::from_le_bytes([a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0]);
        let differences = marks ^ (LOWEST * u128::from(mark));
        // The highest bit of a byte becomes one unless the byte is zero, and nothing is carried into the next.
        let differ = ((differences & !HIGHEST) + !HIGHEST) | differences;
        Marked(!differ & HIGHEST & SLOT_BITS)
    }
}

/// The lowest and the highest bit of each byte.
const LOWEST: u128 = u128::MAX / 0xff;
const HIGHEST: u128 = LOWEST << 7;
/// The bits of bytes that stand for a slot: the others are zero, which is a mark, too.
const SLOT_BITS: u128 = (1 << (8 * SLOTS)) - 1;

/// Slots, as the highest bits of bytes.
struct Marked(u128);

impl Iterator for Marked {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let slot = self.0.trailing_zeros() / u8::BITS;
        self.0 &= self.0.checked_sub(1)?;
        Some(slot as usize)
    }
}

/// Places by hashes. It does not know the hashes themselves, nor whether two places are the same.
#[derive(Default)]
pub(super) struct Table {
    buckets: Vec<Bucket>,
    len: usize,
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Slots: all that there is lies in one of them.
    pub(super) fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    /// What is in a slot.
    pub(super) fn slot(&self, slot: usize) -> Option<Place> {
        let (bucket, slot) = (self.buckets.get(slot / SLOTS)?, slot % SLOTS);
        (bucket.marks[slot] != 0).then_some(bucket.places[slot])
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        (0..self.slots()).filter_map(|slot| self.slot(slot))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        let slots = self.buckets.iter_mut().flat_map(|bucket| bucket.places.iter_mut().zip(bucket.marks));
        slots.filter(|(_, mark)| *mark != 0).map(|(place, _)| place)
    }

    /// Every place that may be one with this hash, and perhaps some others.
    pub(super) fn hashed(&self, hash: u64) -> impl Iterator<Item = Place> {
        let slots = move |number: usize| {
            let bucket = &self.buckets[number];
            bucket.marked(mark(hash)).map(|slot| bucket.places[slot])
        };
        self.way(hash).flat_map(slots)
    }

    /// The buckets in which a hash may lie, from its own one on.
    fn way(&self, hash: u64) -> impl Iterator<Item = usize> {
        let mut next = (!self.buckets.is_empty()).then(|| self.home(hash));
        let mut left = self.buckets.len();
        std::iter::from_fn(move || {
            let number = next?;
            left -= 1;
            next = (self.buckets[number].passed > 0 && left > 0).then(|| self.after(number));
            Some(number)
        })
    }

    /// Adds a place, which `hash_of` tells the hash of like that of any other.
    pub(super) fn insert(&mut self, place: Place, hash_of: impl Fn(Place) -> u64) {
        // Fuller than this, many would lie far from home.
        if self.len >= self.slots() / 8 * 7 {
            self.resize(self.buckets.len() + self.buckets.len() / 2 + 1, &hash_of);
        }
        self.add(place, hash_of(place));
    }

    fn add(&mut self, place: Place, hash: u64) {
        let mut number = self.home(hash);
        loop {
            if let Some(slot) = self.buckets[number].marked(0).next() {
                self.buckets[number].marks[slot] = mark(hash);
                self.buckets[number].places[slot] = place;
                break;
            }
            self.buckets[number].passed += 1;
            number = self.after(number);
        }
        self.len += 1;
    }

    /// Removes the place with this hash that is meant, if there is one.
    pub(super) fn remove(&mut self, hash: u64, is_meant: impl Fn(Place) -> bool) -> Option<Place> {
        let (number, slot) = self.way(hash).find_map(|number| {
            let bucket = &self.buckets[number];
            let slot = bucket.marked(mark(hash)).find(|slot| is_meant(bucket.places[*slot]))?;
            Some((number, slot))
        })?;
        self.buckets[number].marks[slot] = 0;
        self.len -= 1;
        let mut passed = self.home(hash);
        while passed != number {
            self.buckets[passed].passed -= 1;
            passed = self.after(passed);
        }
        Some(self.buckets[number].places[slot])
    }

    /// Gives back what is held for nothing.
    pub(super) fn shrink(&mut self, hash_of: impl Fn(Place) -> u64) {
        let buckets = (self.len * 8).div_ceil(SLOTS * 7);
        if buckets < self.buckets.len() {
            self.resize(buckets, &hash_of);
        }
    }

    fn resize(&mut self, buckets: usize, hash_of: &impl Fn(Place) -> u64) {
        let old = Self { buckets: std::mem::take(&mut self.buckets), len: self.len };
        *self = Self { buckets: vec![Bucket::EMPTY; buckets], len: 0 };
        old.iter().for_each(|place| self.add(place, hash_of(place)));
    }

    /// Where a hash is to lie: any number of buckets will do, so that a table need not double.
    fn home(&self, hash: u64) -> usize {
        (((hash & u64::from(u32::MAX)) * self.buckets.len() as u64) >> 32) as usize
    }

    fn after(&self, number: usize) -> usize {
        if number + 1 == self.buckets.len() { 0 } else { number + 1 }
    }
}

/// By bits of a hash that neither a bucket nor a shard goes by.
fn mark(hash: u64) -> u8 {
    ((hash >> 32) as u8).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Few hashes, and many that are alike.
    fn hash_of(place: Place) -> u64 {
        let number = place.piece() as u64;
        match number % 3 {
            0 => number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            1 => number << 32,
            _ => u64::from(u32::MAX),
        }
    }

    proptest! {
        #[test]
        fn what_was_added_is_there_until_it_is_removed(
            steps in proptest::collection::vec((any::<prop::sample::Index>(), 0..8_u8), 1..400)
        ) {
            let (mut table, mut model) = (Table::default(), Vec::new());
            for (number, (which, what)) in steps.into_iter().enumerate() {
                match what {
                    0..3 if !model.is_empty() => {
                        let place = model.swap_remove(which.index(model.len()));
                        prop_assert_eq!(table.remove(hash_of(place), |other| other == place), Some(place));
                        prop_assert_eq!(table.remove(hash_of(place), |other| other == place), None);
                    }
                    3 => table.shrink(hash_of),
                    _ => {
                        let place = Place::new(1, number);
                        table.insert(place, hash_of);
                        model.push(place);
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                for place in &model {
                    prop_assert!(table.hashed(hash_of(*place)).any(|other| other == *place));
                }
                let mut all: Vec<usize> = table.iter().map(Place::piece).collect();
                let mut known: Vec<usize> = model.iter().map(|place| place.piece()).collect();
                all.sort_unstable();
                known.sort_unstable();
                prop_assert_eq!(all, known);
            }
        }
    }

    #[test]
    fn what_is_empty_takes_no_memory() {
        let mut table = Table::default();
        for number in 0..1000 {
            table.insert(Place::new(1, number), hash_of);
        }
        for number in 0..1000 {
            let place = Place::new(1, number);
            assert_eq!(table.remove(hash_of(place), |other| other == place), Some(place));
        }
        assert!(table.buckets.iter().all(|bucket| bucket.passed == 0 && bucket.marks == [0; SLOTS]));

        table.shrink(hash_of);

        assert_eq!((table.slots(), table.hashed(7).count()), (0, 0));
    }

    /// Often the same, or one more or less, or different in the highest bit alone.
    fn mark_of_few() -> impl Strategy<Value = u8> {
        prop_oneof![8 => prop::sample::select(&[0, 1, 2, 0x7f, 0x80, 0x81, 0xff][..]), 1 => any::<u8>()]
    }

    proptest! {
        #[test]
        fn marks_are_told_apart(marks in prop::array::uniform12(mark_of_few()), mark in mark_of_few()) {
            let found: Vec<usize> = Bucket { marks, ..Bucket::EMPTY }.marked(mark).collect();
            let expected: Vec<usize> = (0..SLOTS).filter(|slot| marks[*slot] == mark).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_bucket_is_a_line_of_the_cache() {
        assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (64, 64));
    }
}
