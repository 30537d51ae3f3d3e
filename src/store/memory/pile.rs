//! Many small pieces of bytes without an allocation for each: pieces of about the same length lie side by
//! side in chunks. An allocator would take 8 to 24 bytes more for each, and a pointer 8 to find it by.

use std::ops::Range;

/// Lengths differ by so much: a piece has up to seven bytes behind it that mean nothing.
const STEP: usize = 8;
/// Longer pieces, of which there are few, have a chunk of their own.
const LONGEST: usize = 1024;
/// A new chunk has a twentieth as many places as there are for its length, counted as if there were this many more:
/// few are held for nothing, and chunks are so few that where they lie stays in the cache.
const FIRST: usize = 320;
/// Bits of a place that number a piece in its chunk.
const BITS: u32 = 10;

/// Where a piece lies: the number of its chunk, and its own in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Stands where no piece is meant. What tells that is another thing: there may be a piece in this place.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(chunk: usize, piece: usize) -> Self {
        // 2^22 chunks take more than three gigabytes, and there are a thousand shards.
        Self((chunk as u32) << BITS | piece as u32)
    }

    fn chunk(self) -> usize {
        (self.0 >> BITS) as usize
    }

    pub(super) fn piece(self) -> usize {
        (self.0 & ((1 << BITS) - 1)) as usize
    }
}

/// Pieces of one length, side by side.
#[derive(Default)]
struct Chunk {
    bytes: Box<[u8]>,
    /// Of each piece.
    length: usize,
}

impl Chunk {
    fn range(&self, piece: usize) -> Range<usize> {
        piece * self.length..(piece + 1) * self.length
    }
}

/// What there is for one length.
#[derive(Default)]
struct Class {
    /// Places in all of its chunks.
    places: usize,
    /// Those of its newest chunk that have not been used yet.
    fresh: Range<u32>,
    free: Vec<Place>,
}

/// The class of a length: in steps, and zero for all large pieces.
fn class(length: usize) -> usize {
    if length > LONGEST { 0 } else { length.div_ceil(STEP).max(1) }
}

/// Pieces of bytes.
#[derive(Default)]
pub(super) struct Pile {
    chunks: Vec<Chunk>,
    classes: Vec<Class>,
}

impl Pile {
    /// Keeps these bytes, and a few zeros behind them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Place {
        let class = class(bytes.len());
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Class::default);
        }
        if class == 0 { self.put_large(bytes) } else { self.put_small(class, bytes) }
    }

    fn put_large(&mut self, bytes: &[u8]) -> Place {
        let chunk = Chunk { bytes: Box::from(bytes), length: bytes.len() };
        match self.classes[0].free.pop() {
            Some(place) => {
                self.chunks[place.chunk()] = chunk;
                place
            }
            None => {
                self.chunks.push(chunk);
                Place::new(self.chunks.len() - 1, 0)
            }
        }
    }

    fn put_small(&mut self, class: usize, bytes: &[u8]) -> Place {
        let length = class * STEP;
        let class = &mut self.classes[class];
        let known = class.free.pop().or_else(|| class.fresh.next().map(Place));
        let place = known.unwrap_or_else(|| {
            let first = Place::new(self.chunks.len(), 0);
            let places = ((FIRST + class.places) / 20).min(1 << BITS);
            self.chunks.push(Chunk { bytes: vec![0; places * length].into_boxed_slice(), length });
            class.places += places;
            class.fresh = first.0 + 1..first.0 + places as u32;
            first
        });
        let (piece, rest) = self.get_mut(place).split_at_mut(bytes.len());
        piece.copy_from_slice(bytes);
        rest.fill(0);
        place
    }

    pub(super) fn get(&self, place: Place) -> &[u8] {
        let chunk = &self.chunks[place.chunk()];
        &chunk.bytes[chunk.range(place.piece())]
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut [u8] {
        let chunk = &mut self.chunks[place.chunk()];
        let range = chunk.range(place.piece());
        &mut chunk.bytes[range]
    }

    pub(super) fn remove(&mut self, place: Place) {
        let chunk = &mut self.chunks[place.chunk()];
        let class = class(chunk.length);
        if class == 0 {
            *chunk = Chunk::default();
        }
        self.classes[class].free.push(place);
    }

    /// Places that are held for nothing.
    pub(super) fn free(&self) -> usize {
        self.classes.iter().map(|class| class.free.len()).sum()
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    /// So few that there are several chunks for some; about the longest that shares one; long ones.
    fn lengths() -> impl Strategy<Value = usize> {
        prop_oneof![4 => 0..24_usize, 1 => LONGEST - 9..LONGEST + 9, 1 => 2000..3000_usize]
    }

    proptest! {
        #[test]
        fn what_was_put_is_there_until_it_is_removed(
            steps in proptest::collection::vec((lengths(), any::<u8>(), any::<prop::sample::Index>(), 0..3_u8), 1..300)
        ) {
            let (mut pile, mut model) = (Pile::default(), Vec::<(Place, Vec<u8>)>::new());
            for (length, byte, which, what) in steps {
                if what == 0 && !model.is_empty() {
                    let (place, _) = model.swap_remove(which.index(model.len()));
                    pile.remove(place);
                } else {
                    let bytes = vec![byte; length];
                    model.push((pile.put(&bytes), bytes));
                }
                for (place, bytes) in &model {
                    let piece = pile.get(*place);
                    prop_assert!(piece.starts_with(bytes) && piece[bytes.len()..].iter().all(|byte| *byte == 0));
                }
            }
        }
    }

    #[test]
    fn chunks_grow_slowly_and_hold_little_for_nothing() {
        let (mut pile, mut places) = (Pile::default(), HashSet::new());
        for number in 0..100_000 {
            assert!(places.insert(pile.put(&[1; 96]).0), "{number}");
            let held = pile.held() / 96 - number;
            assert!(held <= 16 + number / 20, "{held} pieces held for {number}");
        }
        assert!(pile.chunks.len() < 200, "{} chunks", pile.chunks.len());
    }

    #[test]
    fn a_place_is_used_again() {
        for (length, gives_back) in [(20, 0), (2000, 2000)] {
            let mut pile = Pile::default();
            let first = pile.put(&vec![1; length]);
            pile.put(&vec![2; length]);
            let held = pile.held();
            pile.remove(first);
            assert_eq!((pile.free(), held - pile.held()), (1, gives_back));
            assert_eq!((pile.put(&vec![3; length]), pile.free(), pile.held()), (first, 0, held));
        }
    }
}
