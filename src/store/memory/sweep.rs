//! Freeing what is over, without holding anybody up.

use std::sync::PoisonError;
use std::sync::RwLock;

use crate::clock::Timestamp;
use crate::policy::session::EndReason;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::store::AT_ONCE;
use crate::store::Judge;
use crate::store::TOMBSTONE;
use crate::store::memory::MemoryStore;
use crate::store::memory::packed;
use crate::store::memory::shard::Shard;
use crate::store::memory::texts::Texts;

/// Places of a shard that a sweep looks at before it lets others in.
pub(super) const BITE: usize = 1024;

impl MemoryStore {
    /// Frees what is over in one shard, a bite at a time: nobody waits for longer, neither for the
    /// shard nor for the thread.
    pub(super) async fn sweep_shard(
        &self,
        shard: &RwLock<Shard>,
        judge: Judge<'_>,
        now: Timestamp,
        ended: &mut Vec<(SessionKey, Outline, EndReason)>,
    ) {
        let mut from = Some(0);
        while let Some(start) = from
            && ended.len() < AT_ONCE
        {
            let over: Vec<SessionKey>;
            (over, from) = {
                let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
                let (pieces, next) = shard.some(start, BITE);
                let over = pieces.filter(|piece| is_over(piece, &shard.texts, judge, now).is_some());
                (over.map(packed::key).collect(), next)
            };
            for key in over {
                // Judged again: it may have been used since it was listed.
                ended.extend(self.free(&key, judge, now));
            }
            // Others on this thread, and on this core, have waited for long enough.
            tokio::task::yield_now().await;
        }
        let mut shard = shard.write().unwrap_or_else(PoisonError::into_inner);
        shard.tidy();
    }

    fn free(&self, key: &SessionKey, judge: Judge<'_>, now: Timestamp) -> Option<(SessionKey, Outline, EndReason)> {
        let mut shard = self.write(key);
        let piece = shard.get(key)?.to_vec();
        match is_over(&piece, &shard.texts, judge, now)? {
            Over::Tombstone => {
                shard.remove(key);
                None
            }
            Over::Session(reason) => {
                let outline = packed::read(&piece)?.outline(&piece, &shard.texts);
                self.drop_piece(&mut shard, &piece);
                Some((*key, outline?, reason))
            }
        }
    }
}

/// What a sweep frees.
enum Over {
    Tombstone,
    Session(EndReason),
}

fn is_over(piece: &[u8], texts: &Texts, judge: Judge<'_>, now: Timestamp) -> Option<Over> {
    let time = packed::time(piece);
    match packed::limits(piece) {
        Some(limits) => judge(texts.get(limits.site)?, limits.life(time)).map(Over::Session),
        None => (now.since(time) >= TOMBSTONE).then_some(Over::Tombstone),
    }
}
