//! Many small pieces of bytes without an allocation for each: pieces of about the same length lie side by
//! side in chunks. An allocator would take 8 to 24 bytes more for each, and a pointer 8 to find it by.

/// Lengths differ by so much: a piece has up to seven bytes behind it that mean nothing.
const STEP: usize = 8;
/// Chunks have as many pieces as a sixteenth to a thirty-second of what lies in front of them and this many more:
/// few are held for nothing, and chunks are so few that where they lie stays in the cache.
const FIRST: usize = 256;
/// Bits of a place that number a piece among those of its length.
const BITS: u32 = 25;
/// Longer pieces have an allocation of their own.
const LONGEST: usize = STEP * ((1 << (32 - BITS)) - 1);

/// Where a piece lies: its length in steps (zero for large ones), and its number among those.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

impl Place {
    /// Stands where no piece is meant.
    pub(super) const NONE: Self = Self(0);

    pub(super) fn new(class: usize, number: usize) -> Self {
        // A shard with 2^25 sessions does not fit in the memory of a machine with a thousand of them.
        Self((class as u32) << BITS | number as u32)
    }

    fn class(self) -> usize {
        (self.0 >> BITS) as usize
    }

    pub(super) fn number(self) -> usize {
        (self.0 & ((1 << BITS) - 1)) as usize
    }

    /// The chunk, the piece in it, and how many that has.
    fn chunk(self) -> (usize, usize, usize) {
        let number = self.number() + FIRST;
        let bits = number.ilog2() - 4;
        let chunk = (bits as usize - 4) * 16 + (number >> bits) % 16;
        (chunk, number % (1 << bits), 1 << bits)
    }
}

/// The pieces of one length.
#[derive(Default)]
struct Class {
    chunks: Vec<Box<[u8]>>,
    /// Pieces that were ever handed out.
    handed: usize,
    free: Vec<u32>,
}

/// Pieces of bytes.
#[derive(Default)]
pub(super) struct Pile {
    /// By length in steps.
    classes: Vec<Class>,
    large: Vec<Box<[u8]>>,
    large_free: Vec<u32>,
}

impl Pile {
    /// Keeps these bytes, and a few zeros behind them.
    pub(super) fn put(&mut self, bytes: &[u8]) -> Place {
        if bytes.len() > LONGEST {
            return self.put_large(bytes);
        }
        let number = bytes.len().div_ceil(STEP).max(1);
        let length = number * STEP;
        if self.classes.len() <= number {
            self.classes.resize_with(number + 1, Class::default);
        }
        let class = &mut self.classes[number];
        let at = class.free.pop().map_or(class.handed, |free| free as usize);
        let place = Place::new(number, at);
        if at == class.handed {
            class.handed += 1;
            let (chunk, _, pieces) = place.chunk();
            if chunk == class.chunks.len() {
                class.chunks.push(vec![0; pieces * length].into_boxed_slice());
            }
        }
        let (piece, rest) = self.get_mut(place).split_at_mut(bytes.len());
        piece.copy_from_slice(bytes);
        rest.fill(0);
        place
    }

    fn put_large(&mut self, bytes: &[u8]) -> Place {
        let piece = Box::from(bytes);
        let at = match self.large_free.pop() {
            Some(free) => {
                self.large[free as usize] = piece;
                free as usize
            }
            None => {
                self.large.push(piece);
                self.large.len() - 1
            }
        };
        Place::new(0, at)
    }

    pub(super) fn get(&self, place: Place) -> &[u8] {
        match place.class() {
            0 => &self.large[place.number()],
            class => {
                let length = class * STEP;
                let (chunk, piece, _) = place.chunk();
                &self.classes[class].chunks[chunk][piece * length..][..length]
            }
        }
    }

    pub(super) fn get_mut(&mut self, place: Place) -> &mut [u8] {
        match place.class() {
            0 => &mut self.large[place.number()],
            class => {
                let length = class * STEP;
                let (chunk, piece, _) = place.chunk();
                &mut self.classes[class].chunks[chunk][piece * length..][..length]
            }
        }
    }

    pub(super) fn remove(&mut self, place: Place) {
        match place.class() {
            0 => {
                self.large[place.number()] = Box::default();
                self.large_free.push(place.number() as u32);
            }
            class => self.classes[class].free.push(place.number() as u32),
        }
    }

    /// Places that are held for nothing.
    pub(super) fn free(&self) -> usize {
        self.classes.iter().map(|class| class.free.len()).sum::<usize>() + self.large_free.len()
    }
}

#[cfg(test)]
mod tests {
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
    fn chunks_follow_each_other_and_grow_slowly() {
        let (mut expected, mut held) = ((0, 0), 0);
        for number in 0..100_000 {
            let (chunk, piece, pieces) = Place::new(1, number).chunk();
            assert_eq!((chunk, piece), expected, "{number}");
            expected = if piece + 1 == pieces { (chunk + 1, 0) } else { (chunk, piece + 1) };
            held += if piece == 0 { pieces } else { 0 };
            assert!(held - number <= 16 + number / 16, "{held} pieces held for {number}");
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
