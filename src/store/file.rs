//! Sessions in an embedded durable file: the live set is in memory, so that no read touches the
//! disk; logins, rotations, vault changes and ends are on the disk before they are answered, touches
//! a second later. After a restart a record stays sealed until someone presents its selector.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::clock;
use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::policy::chain::Chain;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::store::Found;
use crate::store::Judge;
use crate::store::Page;
use crate::store::Population;
use crate::store::Presence;
use crate::store::Removal;
use crate::store::Reply;
use crate::store::SessionStore;
use crate::store::StoreError;
use crate::store::Swap;
use crate::store::journal::Journal;
use crate::store::journal::OpenError;
use crate::store::memory::MemoryStore;
use crate::store::sealed::keys::Keys;
use crate::store::shelf;
use crate::store::shelf::Name;
use crate::store::shelf::Shelf;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

/// Sessions in a file.
pub struct FileStore {
    keys: Keys,
    memory: Arc<MemoryStore>,
    journal: Journal,
}

impl FileStore {
    /// Opens the file, or makes it.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn open(path: &Path, keys: Keys) -> Result<Self, OpenError> {
        let memory = Arc::new(MemoryStore::default());
        let journal = Journal::open(path, keys.clone(), &memory)?;
        Ok(Self { keys, memory, journal })
    }

    /// The same, and the time that goes with it: `clock`, but never earlier than what was written in former runs.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn with_clock(path: &Path, keys: Keys, clock: Arc<dyn Clock>) -> Result<(Self, Arc<dyn Clock>), OpenError> {
        let store = Self::open(path, keys)?;
        let behind = store.journal.latest().since(clock.now());
        if behind >= Duration::from_secs(1) {
            let (file, seconds) = (path.display(), behind.as_secs());
            tracing::warn!(event = "store.clock_behind", file = %file, seconds, help = "sessions were used later than the system's clock says it is: time goes on from there until the next start");
        }
        let clock = clock::not_before(store.journal.latest(), clock);
        Ok((store, clock))
    }

    /// Opens a record that is still sealed. One that was changed behind our back is no session.
    fn wake(&self, handle: &Handle) {
        if let Err(error) = self.memory.wake(&self.keys, handle) {
            tracing::error!(event = "store.record_unusable", session = &*handle.key().session_ref(), error = %error);
            self.journal.write_later(handle.key());
        }
    }

    async fn add(&self, handle: &Handle, record: Record, idle: Duration) -> Result<Presence, StoreError> {
        let presence = self.memory.create(handle, record, idle).await?;
        if presence == Presence::Gone {
            return Ok(presence);
        }
        let written = self.journal.write(handle.key(), Some(handle)).await;
        if written.is_err() {
            // Nobody was told of it, and a restart must not bring it back either.
            let _removed = self.memory.remove(handle.key(), false, Timestamp::default()).await?;
            self.journal.write_later(handle.key());
        }
        written.map(|()| presence)
    }
}

impl SessionStore for FileStore {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        match self.memory.look(handle.key(), now) {
            Some(found) => Reply::now(Ok(found)),
            None => {
                self.wake(handle);
                self.memory.load(handle, now)
            }
        }
    }

    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>> {
        self.memory.peek(key)
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record, idle: Duration) -> Reply<'a, Presence> {
        Reply::later(self.add(handle, record, idle))
    }

    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence> {
        Reply::later(async move {
            let presence = self.memory.touch(key, seen, idle).await?;
            if presence == Presence::Present {
                self.journal.touch(key);
            }
            Ok(presence)
        })
    }

    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        Reply::later(async move {
            let swap = self.memory.swap_chain(key, revision, chain).await?;
            if swap == Swap::Swapped {
                self.journal.write(key, None).await?;
            }
            Ok(swap)
        })
    }

    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        Reply::later(async move {
            self.wake(handle);
            let presence = self.memory.change_vault(handle, changes, now).await?;
            if presence == Presence::Present {
                self.journal.write(handle.key(), Some(handle)).await?;
            }
            Ok(presence)
        })
    }

    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence> {
        Reply::later(async move {
            self.wake(handle);
            let presence = self.memory.bind(handle).await?;
            if presence == Presence::Present {
                self.journal.write(handle.key(), Some(handle)).await?;
            }
            Ok(presence)
        })
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        Reply::later(async move {
            self.wake(handle);
            let taken = self.memory.take(handle, now).await?;
            if taken.is_some() {
                self.journal.write(handle.key(), None).await?;
            }
            Ok(taken)
        })
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        Reply::later(async move {
            let removed = self.memory.remove(key, tombstone, now).await?;
            // Also when it was gone already: another caller's removal may not be on the disk yet.
            self.journal.write(key, None).await?;
            Ok(removed)
        })
    }

    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal> {
        Reply::later(async move {
            let removal = self.memory.remove_at(key, revision).await?;
            // Also when it was gone already, as above.
            if removal != Removal::Stale {
                self.journal.write(key, None).await?;
            }
            Ok(removal)
        })
    }

    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>> {
        self.memory.by_user(user, site)
    }

    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>> {
        self.memory.list(user, from, limit)
    }

    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>> {
        self.memory.find(session_ref)
    }

    fn ready(&self) -> Reply<'_, ()> {
        Reply::now(self.journal.ready())
    }

    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population> {
        self.memory.population(site)
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        Reply::later(async move {
            let evicted = self.memory.evict_anonymous(site).await?;
            evicted.iter().for_each(|(key, _)| self.journal.write_later(key));
            Ok(evicted)
        })
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        Reply::later(async move {
            let ended = self.memory.sweep(judge, now).await?;
            ended.iter().for_each(|(key, _, _)| self.journal.write_later(key));
            Ok(ended)
        })
    }
}

impl Shelf for FileStore {
    fn shelved<'a>(&'a self, name: &'a Name, now: Timestamp) -> Reply<'a, Option<Shelved>> {
        Shelf::shelved(&*self.memory, name, now)
    }

    fn shelve<'a>(
        &'a self,
        name: &'a Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        now: Timestamp,
    ) -> Reply<'a, Swap> {
        Reply::later(async move {
            shelf::measure(&value)?;
            let (swap, gone) = self.memory.shelf.shelve(name, expected, value, lives, now);
            if name.is_durable() {
                gone.iter().for_each(|name| self.journal.shelve_later(name));
                if swap == Swap::Swapped {
                    self.journal.shelve(name).await?;
                }
            }
            Ok(swap)
        })
    }

    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()> {
        Reply::later(async move {
            self.memory.shelf.unshelve(name);
            // Also when it was gone already: that may not be on the disk yet.
            if name.is_durable() { self.journal.shelve(name).await } else { Ok(()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::clock::ManualClock;
    use crate::policy::session::SessionId;
    use crate::store::fixtures::SITE;
    use crate::store::fixtures::at;
    use crate::store::fixtures::handle;
    use crate::store::fixtures::of;
    use crate::store::fixtures::put;
    use crate::store::shelf::Kind;

    const HALF_HOUR: Duration = Duration::from_secs(1800);

    async fn record(store: &FileStore, number: u8) -> Option<Record> {
        match store.load(&handle(number), at(100)).await.unwrap() {
            Found::Record(record) => Some(*record),
            Found::Tombstone | Found::Absent => None,
        }
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_a_restart() {
        // VR-27
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state/sessions.redb");
        let store = FileStore::open(&path, Keys::default()).unwrap();
        for (number, user) in [(1, "alice"), (2, "bob"), (3, "alice")] {
            assert_eq!(store.create(&handle(number), of(user), HALF_HOUR).await.unwrap(), Presence::Present);
        }
        assert_eq!(store.change_vault(&handle(1), &[put("one")], at(1)).await.unwrap(), Presence::Present);
        let offered = record(&store, 1).await.unwrap();
        let chain = offered.chain.offer(&[0; 16], &[9; 16], offered.binding.clone(), at(2));
        assert_eq!(store.swap_chain(handle(1).key(), offered.revision, chain.clone()).await.unwrap(), Swap::Swapped);
        assert_eq!(store.touch(handle(1).key(), at(50), HALF_HOUR).await.unwrap(), Presence::Present);
        assert!(store.remove(handle(2).key(), true, at(3)).await.unwrap().is_some());
        let copied = record(&store, 3).await.unwrap();
        assert!(matches!(store.remove_at(handle(3).key(), copied.revision).await.unwrap(), Removal::Removed(_)));
        drop(store);

        let store = FileStore::open(&path, Keys::default()).unwrap();

        let outline = store.peek(handle(1).key()).await.unwrap().expect("its outline is known before it is opened");
        assert_eq!((outline.user.unwrap().as_str(), outline.seen), ("alice", at(50)));
        assert_eq!(store.by_user("alice", Some(SITE)).await.unwrap().len(), 1);
        let found = record(&store, 1).await.unwrap();
        assert_eq!(found.identity.unwrap().user.as_str(), "alice");
        assert_eq!((found.chain, found.seen, found.vault.cookies().len()), (chain, at(50), 1));
        assert!(record(&store, 2).await.is_none(), "no logout is undone");
        assert!(record(&store, 3).await.is_none(), "and no thief let in again");
    }

    #[tokio::test]
    async fn what_was_acknowledged_on_the_shelf_is_there_after_a_restart() {
        // VR-27
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        let [device, gone, attempt] = [(Kind::Devices, "a"), (Kind::Learned, "b"), (Kind::Attempts, "c")]
            .map(|(kind, name)| Name::of(kind, &[name.as_bytes()]));
        let store = FileStore::open(&path, Keys::default()).unwrap();
        for name in [device, gone, attempt] {
            let put = store.shelve(&name, None, Bytes::from("one"), HALF_HOUR, at(1)).await.unwrap();
            assert_eq!(put, Swap::Swapped);
        }
        let first = store.shelved(&device, at(1)).await.unwrap().unwrap();
        let put = store.shelve(&device, Some(first.version), Bytes::from("two"), HALF_HOUR, at(2)).await.unwrap();
        assert_eq!(put, Swap::Swapped);
        let second = store.shelved(&device, at(2)).await.unwrap();
        store.unshelve(&gone).await.unwrap();
        drop(store);

        let store = FileStore::open(&path, Keys::default()).unwrap();

        assert_eq!(store.shelved(&device, at(3)).await.unwrap(), second);
        assert_eq!(store.shelved(&device, at(2).plus(HALF_HOUR)).await.unwrap(), None, "it lives as long as was said");
        assert_eq!(store.shelved(&gone, at(3)).await.unwrap(), None);
        assert_eq!(store.shelved(&attempt, at(3)).await.unwrap(), None, "attempts are forgiven");
    }

    #[tokio::test]
    async fn keys_are_changed_over_restarts_and_nobody_without_one_is_believed() {
        // S184
        const NEW: &str = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=";
        const OLD: &str = "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=";
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        let open = |secrets: &[&str]| FileStore::open(&path, Keys::of(secrets)).unwrap();
        let invented = FileStore::open(&path, Keys::default()).unwrap();
        assert_eq!(invented.create(&handle(3), of("admin"), HALF_HOUR).await.unwrap(), Presence::Present);
        drop(invented);
        let store = open(&[OLD]);
        for number in [1, 2] {
            assert_eq!(store.create(&handle(number), of("alice"), HALF_HOUR).await.unwrap(), Presence::Present);
        }
        drop(store);

        let store = open(&[NEW, OLD]);
        assert!(record(&store, 1).await.is_some() && record(&store, 2).await.is_some());
        assert_eq!(store.change_vault(&handle(1), &[put("one")], at(1)).await.unwrap(), Presence::Present);
        drop(store);

        let store = open(&[NEW]);
        assert_eq!(record(&store, 1).await.unwrap().vault.cookies().len(), 1, "it was written with the new key");
        assert!(record(&store, 2).await.is_none(), "of the old one nothing is left");
        assert!(record(&store, 3).await.is_none(), "and admin was never there");
    }

    #[tokio::test]
    async fn time_does_not_go_back_over_a_restart() {
        // S39, VR-50: the clock was set back by an hour meanwhile.
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        let open =
            |seconds| FileStore::with_clock(&path, Keys::default(), Arc::new(ManualClock::at(at(seconds)))).unwrap();
        let (store, clock) = open(7200);
        assert_eq!(clock.now(), at(7200));
        let record = Record { seen: at(7200), absolute_end: at(8 * 3600), ..of("alice") };
        assert_eq!(store.create(&handle(1), record, HALF_HOUR).await.unwrap(), Presence::Present);
        drop(store);

        let (store, clock) = open(3600);

        assert_eq!(clock.now(), at(7200), "it goes on where it was");
        assert_eq!(store.touch(handle(1).key(), clock.now(), HALF_HOUR).await.unwrap(), Presence::Present);
        drop(store);
        let own = ManualClock::at(at(3600));
        let (_store, clock) = FileStore::with_clock(&path, Keys::default(), Arc::new(own.clone())).unwrap();
        let woken = clock.sleep_until(at(7200 + 1800));
        own.advance(HALF_HOUR);
        woken.await;
        assert_eq!(clock.now(), at(7200 + 1800), "and its hands move");
        assert_eq!(clock::not_before(at(1), Arc::new(own)).now(), at(5400), "a right one is as it was");
    }

    #[tokio::test]
    async fn a_sealed_record_is_ended_touched_and_taken_like_any_other() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        let store = FileStore::open(&path, Keys::default()).unwrap();
        for number in 1..=4 {
            assert_eq!(store.create(&handle(number), of("alice"), HALF_HOUR).await.unwrap(), Presence::Present);
        }
        drop(store);

        let store = FileStore::open(&path, Keys::default()).unwrap();
        assert_eq!(store.touch(handle(1).key(), at(60), HALF_HOUR).await.unwrap(), Presence::Present);
        assert_eq!(store.remove(handle(2).key(), false, at(60)).await.unwrap().unwrap().site.as_ref(), SITE);
        assert!(store.take(&handle(3), at(60)).await.unwrap().is_some());
        let over = |_: &str, life: crate::policy::session::Life| (life.seen < at(10)).then_some(EndReason::Idle);
        assert_eq!(store.sweep(&over, at(60)).await.unwrap().len(), 1);
        drop(store);

        let store = FileStore::open(&path, Keys::default()).unwrap();
        assert_eq!(store.by_user("alice", Some(SITE)).await.unwrap(), [*handle(1).key()]);
        assert_eq!(record(&store, 1).await.unwrap().seen, at(60));
    }

    #[tokio::test]
    async fn the_file_is_for_its_owner_and_for_one_process() {
        // S23, S187
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        drop(FileStore::open(&path, Keys::default()).unwrap());
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();

        let _first = FileStore::open(&path, Keys::default()).unwrap();

        assert_eq!(mode(), 0o600);
        let second = FileStore::open(&path, Keys::default()).map(|_| ()).unwrap_err().to_string();
        assert!(second.contains("in use by another process"), "{second}");
    }

    #[tokio::test]
    async fn damage_is_told_and_opens_nothing() {
        // S187
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        std::fs::write(&path, b"this is no session store, and it is longer than nothing").unwrap();
        let error = FileStore::open(&path, Keys::default()).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("cannot be read: restore it from a backup, or move it away"), "{error}");
        let nowhere = FileStore::open(&place.path().join("sessions.redb/x"), Keys::default())
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(nowhere.contains("cannot"), "{nowhere}");
    }

    #[tokio::test]
    async fn the_file_tells_no_secret() {
        // S18, S25
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("sessions.redb");
        let store = FileStore::open(&path, Keys::default()).unwrap();
        let id = SessionId::from_random([0x5a; 32]);
        assert_eq!(store.create(&id.handle(), of("alice"), HALF_HOUR).await.unwrap(), Presence::Present);
        let change = [put("the-cookies-secret-value")];
        assert_eq!(store.change_vault(&id.handle(), &change, at(1)).await.unwrap(), Presence::Present);
        drop(store);

        let bytes = std::fs::read(&path).unwrap();

        let has = |text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
        assert!(has(b"alice"), "names are readable, for lists");
        for secret in [&b"the-cookies-secret-value"[..], id.expose().as_bytes(), &[0x5a; 16]] {
            assert!(!has(secret));
        }
    }
}
