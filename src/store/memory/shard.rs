//! One of the many parts of the memory: the sessions whose keys begin in the same way.

use crate::policy::session::SessionKey;
use crate::store::memory::packed;
use crate::store::memory::pile::Pile;
use crate::store::memory::pile::Place;
use crate::store::memory::table::Table;
use crate::store::memory::texts::Texts;

/// Keys are SHA-256 of selectors that we minted: their first bytes are a hash already.
pub(super) fn hash(key: &SessionKey) -> u64 {
    key.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Where the sessions of a shard lie, and the texts that they name.
#[derive(Default)]
pub(super) struct Shard {
    places: Table,
    pile: Pile,
    pub(super) texts: Texts,
}

impl Shard {
    /// What is under a key.
    pub(super) fn get(&self, key: &SessionKey) -> Option<&[u8]> {
        let mut pieces = self.places.hashed(hash(key)).map(|place| self.pile.get(place));
        pieces.find(|piece| packed::has_key(piece, key))
    }

    /// The same, to change it in place.
    pub(super) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut [u8]> {
        let mut places = self.places.hashed(hash(key));
        let place = places.find(|place| packed::has_key(self.pile.get(*place), key))?;
        Some(self.pile.get_mut(place))
    }

    /// All pieces whose keys have this hash: hardly ever more than one.
    pub(super) fn hashed(&self, wanted: u64) -> impl Iterator<Item = &[u8]> {
        let pieces = self.places.hashed(wanted).map(|place| self.pile.get(place));
        pieces.filter(move |piece| hash(&packed::key(piece)) == wanted)
    }

    /// All pieces.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| self.pile.get(place))
    }

    /// Some of the pieces, from this place of the table, and where to go on. What is added or removed in
    /// between may move others: some may be left out, or come twice.
    pub(super) fn some(&self, from: usize, count: usize) -> (impl Iterator<Item = &[u8]>, Option<usize>) {
        let to = (from + count).min(self.places.slots());
        let pieces = (from..to).filter_map(|slot| self.places.slot(slot)).map(|place| self.pile.get(place));
        (pieces, (to < self.places.slots()).then_some(to))
    }

    /// Puts a piece under its key, in the place of what was there.
    pub(super) fn put(&mut self, key: &SessionKey, piece: &[u8]) {
        self.remove(key);
        let place = self.pile.put(piece);
        self.places.insert(place, hashes(&self.pile));
    }

    /// Removes what is under a key.
    pub(super) fn remove(&mut self, key: &SessionKey) {
        let pile = &self.pile;
        if let Some(place) = self.places.remove(hash(key), |place| packed::has_key(pile.get(place), key)) {
            self.pile.remove(place);
        }
    }

    /// Gives memory back when most of what is held is held for nothing.
    pub(super) fn tidy(&mut self) {
        if self.pile.free() <= self.places.len() {
            return;
        }
        let mut kept = Pile::default();
        for place in self.places.iter_mut() {
            *place = kept.put(self.pile.get(*place));
        }
        self.pile = kept;
        self.places.shrink(hashes(&self.pile));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.slots() == 0 && self.pile.free() == 0 && self.texts.is_empty()
    }
}

/// The hash of what lies in a place.
fn hashes(pile: &Pile) -> impl Fn(Place) -> u64 {
    |place| hash(&packed::key(pile.get(place)))
}
