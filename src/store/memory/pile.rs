//! Many small pieces of bytes without an allocation for each: pieces of about the same length lie side by
//! side in chunks. An allocator would take 8 to 24 bytes more for each, and a pointer 8 to find it by.

use std::ops::Range;

/// Lengths differ by so much: a piece has up to seven bytes behind it that mean nothing.
const STEP: usize = 8;
/// Longer pieces have a chunk of their own.
const LONGEST: usize = 1016;
/// A new chunk has a sixteenth of the pieces of its length, and of this many more: few are held for nothing, and
/// chunks are so few that where they lie stays in the cache.
const FIRST: usize = 256;
/// Where the pieces of a chunk begin: most sessions are as long, and fill two lines of the cache that the processor
/// fetches together.
const ALIGNMENT: usize = 128;
/// Bits of a place that number a piece in its chunk.
const BITS: u32 = 12;

/// Where a piece lies: the number of its chunk, and its own in that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Place(u32);

impl Place {
    /// Stands where no piece is meant.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(chunk: usize, piece: usize) -> Self {
        // A shard with 2^20 chunks does not fit in the memory of a machine with a thousand of them.
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
struct Chunk {
    bytes: Box<[u8]>,
    /// Where the first one begins.
    start: u32,
    /// Of each piece.
    length: u32,
}

impl Chunk {
    fn new(pieces: usize, length: usize) -> Self {
        let bytes = vec![0; ALIGNMENT - 1 + pieces * length].into_boxed_slice();
        // Any start would do, but for speed.
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT - 1);
        Self { bytes, start: start as u32, length: length as u32 }
    }

    fn large(bytes: &[u8]) -> Self {
        // Sessions are limited to far less than 4 GiB.
        Self { bytes: Box::from(bytes), start: 0, length: bytes.len() as u32 }
    }

    fn range(&self, piece: usize) -> Range<usize> {
        let from = self.start as usize + piece * self.length as usize;
        from..from + self.length as usize
    }
}

/// What there is of one length.
#[derive(Default)]
struct Class {
    /// Places in its chunks.
    places: usize,
    /// Those of its newest chunk that were never handed out.
    fresh: Range<usize>,
    newest: usize,
    free: Vec<Place>,
}

/// Pieces of bytes.
#[derive(Default)]
pub(super) struct Pile {
    chunks: Vec<Chunk>,
    /// By length in steps; the first one is of large pieces.
    classes: Vec<Class>,
}

impl Pile {
    /// Keeps these bytes, and a few zeros behind them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Place {
        let class = if bytes.len() > LONGEST { 0 } else { bytes.len().div_ceil(STEP).max(1) };
        if self.classes.len() <= class {
            self.classes.resize_with(class + 1, Class::default);
        }
        if class == 0 { self.put_large(bytes) } else { self.put_small(class, bytes) }
    }

    fn put_large(&mut self, bytes: &[u8]) -> Place {
        let place = self.classes[0].free.pop().unwrap_or_else(|| {
            self.chunks.push(Chunk::large(&[]));
            Place::new(self.chunks.len() - 1, 0)
        });
        self.chunks[place.chunk()] = Chunk::large(bytes);
        place
    }

    fn put_small(&mut self, class: usize, bytes: &[u8]) -> Place {
        let length = class * STEP;
        let class = &mut self.classes[class];
        let place = class.free.pop().unwrap_or_else(|| {
            if class.fresh.is_empty() {
                let pieces = ((FIRST + class.places) / 16).min(1 << BITS);
                (class.fresh, class.newest) = (0..pieces, self.chunks.len());
                class.places += pieces;
                self.chunks.push(Chunk::new(pieces, length));
            }
            Place::new(class.newest, class.fresh.next().unwrap_or_default())
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
        let length = chunk.length as usize;
        if length > LONGEST {
            *chunk = Chunk::large(&[]);
            self.classes[0].free.push(place);
        } else {
            self.classes[length / STEP].free.push(place);
        }
    }

    /// Places that are held for nothing.
    pub(super) fn free(&self) -> usize {
        self.classes.iter().map(|class| class.free.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_put_is_there_until_it_is_removed(
            steps in proptest::collection::vec((0..3000_usize, any::<u8>(), any::<prop::sample::Index>(), any::<bool>()), 1..200)
        ) {
            let (mut pile, mut model) = (Pile::default(), Vec::<(Place, Vec<u8>)>::new());
            for (length, byte, which, removes) in steps {
                if removes && !model.is_empty() {
                    let (place, _) = model.swap_remove(which.index(model.len()));
                    pile.remove(place);
                } else {
                    // Mostly short ones.
                    let bytes = vec![byte; if length < 2000 { length % 200 } else { length }];
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
        let mut pile = Pile::default();
        let mut places = HashSet::new();
        for number in 0..100_000 {
            assert!(places.insert(pile.put(&[1; 128])), "{number}");
            let held = pile.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() - number * 128;
            assert!(held <= (16 + number / 16) * 128 + pile.chunks.len() * ALIGNMENT, "{held} bytes more for {number}");
        }
        assert!(pile.chunks.len() < 150, "{}", pile.chunks.len());
    }

    #[test]
    fn a_piece_of_two_lines_lies_in_two_lines_of_the_cache() {
        let mut pile = Pile::default();
        for _ in 0..1000 {
            let place = pile.put(&[1; 125]);
            assert_eq!(pile.get(place).as_ptr().addr() % ALIGNMENT, 0);
        }
    }

    #[test]
    fn a_place_is_used_again() {
        let mut pile = Pile::default();
        for length in [20, 2000] {
            let first = pile.put(&vec![1; length]);
            pile.put(&vec![2; length]);
            pile.remove(first);
            assert_eq!((pile.free(), pile.put(&vec![3; length]), pile.free()), (1, first, 0));
        }
    }
}
