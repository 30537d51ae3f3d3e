//! Which sessions there are: of a user, of everybody, and the one that has been unused for longest.

use std::collections::BinaryHeap;
use std::sync::PoisonError;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::policy::session::SessionKey;
use crate::store::Page;
use crate::store::memory::MemoryStore;
use crate::store::memory::packed;
use crate::store::memory::packed::Limits;
use crate::store::memory::shard;
use crate::store::memory::texts::Texts;

impl MemoryStore {
    /// The keys of sessions with these hashes for which that holds.
    fn keys(&self, hashes: &[u64], is_meant: impl Fn(&Limits<'_>, &Texts) -> bool) -> Vec<(Timestamp, SessionKey)> {
        let mut found = Vec::with_capacity(hashes.len());
        for hash in hashes {
            let shard = self.read(*hash);
            for piece in shard.hashed(*hash) {
                if let Some(limits) = packed::limits(piece).filter(|limits| is_meant(limits, &shard.texts)) {
                    found.push((limits.created, packed::key(piece)));
                }
            }
        }
        found
    }

    pub(super) fn keys_of(&self, user: &str, site: Option<&str>) -> Vec<(Timestamp, SessionKey)> {
        self.keys(&self.index.of_user(user), |limits, texts| {
            limits.user == Some(user)
                && site.is_none_or(|site| texts.get(limits.site).is_some_and(|text| **text == *site))
        })
    }

    /// The least recently used of the oldest few: an exact order would cost a write per request.
    pub(super) fn least_used(&self, site: &str) -> Option<SessionKey> {
        const LOOKED_AT: usize = 16;
        let oldest = self.index.oldest_anonymous(site, LOOKED_AT);
        let keys = self.keys(&oldest, |limits, texts| {
            limits.user.is_none() && texts.get(limits.site).is_some_and(|text| **text == *site)
        });
        let keys = keys.into_iter().map(|(_, key)| key);
        keys.min_by_key(|key| self.read(shard::hash(key)).get(key).map(packed::time))
    }

    /// Says of every session what its key is, one shard after the other.
    pub(super) fn for_each(&self, mut say: impl FnMut(SessionKey)) {
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.iter().filter(|piece| packed::limits(piece).is_some()).for_each(|piece| say(packed::key(piece)));
        }
    }

    /// The first keys after that one: a total order, so that no session is left out or comes twice
    /// whatever comes and goes meanwhile.
    pub(super) fn page(&self, user: Option<&str>, after: Option<SessionKey>, limit: usize) -> Page {
        // One more than is asked for tells whether this is all.
        let mut first = BinaryHeap::new();
        let mut consider = |key: SessionKey| {
            let is_full = first.len() > limit;
            if after.is_some_and(|after| key <= after) || (is_full && first.peek() < Some(&key)) {
                return;
            }
            first.push(key);
            if is_full {
                first.pop();
            }
        };
        match user {
            Some(user) => self.keys_of(user, None).into_iter().for_each(|(_, key)| consider(key)),
            None => self.for_each(consider),
        }
        let mut keys = first.into_sorted_vec();
        let is_all = keys.len() <= limit;
        keys.truncate(limit);
        let next = keys.last().filter(|_| !is_all).map(|last| URL_SAFE_NO_PAD.encode(last.0));
        let sessions = keys.into_iter().filter_map(|key| Some((key, self.outline(&key)?))).collect();
        Page { sessions, next }
    }
}

/// The key at which a page ended.
pub(super) fn place(next: &str) -> Option<SessionKey> {
    let mut key = SessionKey([0; size_of::<SessionKey>()]);
    let length = URL_SAFE_NO_PAD.decode_slice(next, &mut key.0).ok()?;
    (length == key.0.len()).then_some(key)
}
