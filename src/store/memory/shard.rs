//! One of the many parts of the memory: the sessions whose keys begin in the same way.

use hashbrown::HashTable;

use crate::policy::session::SessionKey;
use crate::store::memory::packed;
use crate::store::memory::pile::Pile;
use crate::store::memory::pile::Place;
use crate::store::memory::texts::Texts;

/// Keys are SHA-256 of selectors that we minted: their first bytes are a hash already.
pub(super) fn hash(key: &SessionKey) -> u64 {
    key.0.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

/// Where the sessions of a shard lie, and the texts that they name.
#[derive(Default)]
pub(super) struct Shard {
    places: HashTable<Place>,
    pile: Pile,
    pub(super) texts: Texts,
}

impl Shard {
    /// What is under a key.
    pub(super) fn get(&self, key: &SessionKey) -> Option<&[u8]> {
        let place = self.places.find(hash(key), |place| packed::has_key(self.pile.get(*place), key))?;
        Some(self.pile.get(*place))
    }

    /// The same, to change it in place.
    pub(super) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut [u8]> {
        let pile = &self.pile;
        let place = *self.places.find(hash(key), |place| packed::has_key(pile.get(*place), key))?;
        Some(self.pile.get_mut(place))
    }

    /// All pieces whose keys have this hash: hardly ever more than one.
    pub(super) fn hashed(&self, wanted: u64) -> impl Iterator<Item = &[u8]> {
        let pieces = self.places.iter_hash(wanted).map(|place| self.pile.get(*place));
        pieces.filter(move |piece| hash(&packed::key(piece)) == wanted)
    }

    /// All pieces.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.places.iter().map(|place| self.pile.get(*place))
    }

    /// Some of the pieces, from this place of the table, and where to go on. What is added or removed in
    /// between may move others: some may be left out, or come twice.
    pub(super) fn some(&self, from: usize, count: usize) -> (impl Iterator<Item = &[u8]>, Option<usize>) {
        let to = (from + count).min(self.places.num_buckets());
        let pieces = (from..to).filter_map(|bucket| self.places.get_bucket(bucket)).map(|place| self.pile.get(*place));
        (pieces, (to < self.places.num_buckets()).then_some(to))
    }

    /// Puts a piece under its key, in the place of what was there.
    pub(super) fn put(&mut self, key: &SessionKey, piece: &[u8]) {
        self.remove(key);
        let (place, pile) = (self.pile.put(piece), &self.pile);
        self.places.insert_unique(hash(key), place, |place| hash(&packed::key(pile.get(*place))));
    }

    /// Removes what is under a key.
    pub(super) fn remove(&mut self, key: &SessionKey) {
        let pile = &self.pile;
        if let Ok(found) = self.places.find_entry(hash(key), |place| packed::has_key(pile.get(*place), key)) {
            let (place, _) = found.remove();
            self.pile.remove(place);
        }
    }

    /// Gives memory back when most of what is held is held for nothing.
    pub(super) fn tidy(&mut self) {
        if self.pile.free() <= self.places.len() {
            return;
        }
        let mut kept = Pile::default();
        for place in &mut self.places {
            *place = kept.put(self.pile.get(*place));
        }
        self.pile = kept;
        let pile = &self.pile;
        self.places.shrink_to_fit(|place| hash(&packed::key(pile.get(*place))));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.places.capacity() == 0 && self.pile.free() == 0 && self.texts.is_empty()
    }
}
