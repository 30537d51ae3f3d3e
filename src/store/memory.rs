//! Sessions in memory.

use super::*;

/// Sessions in memory; they end with the process.
#[derive(Default)]
pub struct MemoryStore {}

#[allow(unused_variables)]
impl SessionStore for MemoryStore {
    fn load<'a>(&'a self, key: &'a SessionKey, now: Timestamp) -> Reply<'a, Found> {
        Box::pin(async { Ok(Found::Absent) })
    }
    fn create<'a>(&'a self, key: &'a SessionKey, record: Record) -> Reply<'a, Presence> {
        Box::pin(async { Ok(Presence::Gone) })
    }
    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp) -> Reply<'a, Presence> {
        Box::pin(async { Ok(Presence::Gone) })
    }
    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        Box::pin(async { Ok(Swap::Gone) })
    }
    fn change_vault<'a>(
        &'a self,
        key: &'a SessionKey,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        Box::pin(async { Ok(Presence::Gone) })
    }
    fn replace<'a>(
        &'a self,
        old: &'a SessionKey,
        new: &'a SessionKey,
        record: Record,
        now: Timestamp,
    ) -> Reply<'a, Option<Record>> {
        Box::pin(async { Ok(None) })
    }
    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Record>> {
        Box::pin(async { Ok(None) })
    }
    fn by_user<'a>(&'a self, site: &'a str, user: &'a str) -> Reply<'a, Vec<SessionKey>> {
        Box::pin(async { Ok(Vec::new()) })
    }
    fn anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, usize> {
        Box::pin(async { Ok(0) })
    }
    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<SessionKey>> {
        Box::pin(async { Ok(None) })
    }
    fn sweep<'a>(
        &'a self,
        judge: &'a (dyn Fn(&Record) -> Option<EndReason> + Send + Sync),
        now: Timestamp,
    ) -> Reply<'a, Vec<(SessionKey, Record, EndReason)>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
