//! The sentences of [`SessionStore`] as tests, run against every store.

use std::any::Any;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::clock::SystemClock;
use crate::policy::binding::Binding;
use crate::policy::dbsc::Device;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultCookie;
use crate::store::fixtures::IDLE;
use crate::store::fixtures::Redis;
use crate::store::fixtures::SITE;
use crate::store::fixtures::at;
use crate::store::fixtures::handle;
use crate::store::fixtures::of;
use crate::store::fixtures::rules;

const OTHER: &str = "https://other.test";

fn key(number: u8) -> SessionKey {
    *handle(number).key()
}

fn anonymous(now: Timestamp) -> Record {
    let binding = Binding::new([127, 0, 0, 1].into(), None);
    Record::anonymous(Arc::from(SITE), binding, Chain::begin(&[0; 16], now), Vault::default(), &rules(), now)
}

fn put(name: &str) -> VaultChange {
    VaultChange::Put(VaultCookie {
        name: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::from_static(b"v"),
        path: "/".to_owned(),
        domain: None,
        expires: None,
        same_site: None,
        created: at(0),
        used: at(0),
    })
}

async fn record(store: &dyn SessionStore, number: u8) -> Option<Record> {
    match store.load(&handle(number), at(1)).await.unwrap() {
        Found::Record(record) => Some(*record),
        Found::Tombstone | Found::Absent => None,
    }
}

async fn what_was_created_is_found(store: Arc<dyn SessionStore>) {
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(record(&*store, 1).await.unwrap().identity.unwrap().user.as_str(), "alice");
    assert!(record(&*store, 2).await.is_none());
}

async fn a_taken_key_is_not_given_again(store: Arc<dyn SessionStore>) {
    // S16: set if absent.
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(1), of("bob"), IDLE).await.unwrap(), Presence::Gone);
    assert_eq!(record(&*store, 1).await.unwrap().identity.unwrap().user.as_str(), "alice");
}

async fn a_touch_moves_forward_and_revives_nothing(store: Arc<dyn SessionStore>) {
    // VR-48, VR-50
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.touch(&key(1), at(50), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.touch(&key(1), at(40), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(record(&*store, 1).await.unwrap().seen, at(50));
    assert!(store.remove(&key(1), false, at(60)).await.unwrap().is_some());
    assert_eq!(store.touch(&key(1), at(70), IDLE).await.unwrap(), Presence::Gone);
    assert_eq!(store.change_vault(&handle(1), &[put("a")], at(70)).await.unwrap(), Presence::Gone);
    assert!(record(&*store, 1).await.is_none());
}

async fn a_touch_revives_nothing_that_has_expired(store: Arc<dyn SessionStore>) {
    // VR-48, VR-50: not even before the sweeper has come.
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    let end = at(IDLE.as_secs());
    assert_eq!(store.touch(&key(1), end, IDLE).await.unwrap(), Presence::Gone);
    assert_eq!(record(&*store, 1).await.unwrap().seen, at(0));
    for seconds in (1700..8 * 3600).step_by(1700) {
        assert_eq!(store.touch(&key(1), at(seconds), IDLE).await.unwrap(), Presence::Present);
    }
    assert_eq!(store.touch(&key(1), at(8 * 3600), IDLE).await.unwrap(), Presence::Gone);
}

async fn a_chain_is_swapped_only_at_its_revision(store: Arc<dyn SessionStore>) {
    // VR-44
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    let before = record(&*store, 1).await.unwrap();
    let chain = before.chain.offer(&[0; 16], &[1; 16], before.binding.clone(), at(1));
    assert_eq!(store.swap_chain(&key(1), before.revision, chain.clone()).await.unwrap(), Swap::Swapped);
    assert_eq!(store.swap_chain(&key(1), before.revision, before.chain).await.unwrap(), Swap::Stale);
    assert_eq!(record(&*store, 1).await.unwrap().chain, chain);
    assert_eq!(store.swap_chain(&key(2), 0, chain).await.unwrap(), Swap::Gone);
}

async fn a_vault_that_changes_stands_in_no_rotations_way(store: Arc<dyn SessionStore>) {
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    let before = record(&*store, 1).await.unwrap();
    assert_eq!(store.change_vault(&handle(1), &[put("a")], at(1)).await.unwrap(), Presence::Present);
    let chain = before.chain.offer(&[0; 16], &[1; 16], before.binding.clone(), at(1));
    assert_eq!(store.swap_chain(&key(1), before.revision, chain.clone()).await.unwrap(), Swap::Swapped);
    let after = record(&*store, 1).await.unwrap();
    assert_eq!((after.chain, after.vault.cookies().len()), (chain, 1));
}

async fn a_session_is_bound_to_the_device_that_it_knows_of(store: Arc<dyn SessionStore>) {
    let offered = Device::offered([5; 32]);
    let with_device = Record { device: Some(Box::new(offered.clone())), ..of("alice") };
    assert_eq!(store.create(&handle(1), with_device, IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(2), of("bob"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.change_vault(&handle(1), &[put("a")], at(1)).await.unwrap(), Presence::Present);
    assert_eq!(record(&*store, 1).await.unwrap().device.as_deref(), Some(&offered));

    let binding = (0..5).map(|_| {
        let store = Arc::clone(&store);
        tokio::spawn(async move { store.bind(&handle(1)).await.unwrap() })
    });
    for bound in binding.collect::<Vec<_>>() {
        assert_eq!(bound.await.unwrap(), Presence::Present, "again is fine");
    }

    let bound = record(&*store, 1).await.unwrap();
    assert_eq!(bound.device.as_deref(), Some(&offered.bound()));
    assert_eq!((bound.identity.unwrap().user.as_str(), bound.vault.cookies().len()), ("alice", 1));
    assert_eq!(store.bind(&handle(2)).await.unwrap(), Presence::Gone, "it knows of no device");
    assert_eq!(store.bind(&handle(3)).await.unwrap(), Presence::Gone);
    assert!(store.remove(&key(1), true, at(2)).await.unwrap().is_some());
    assert_eq!(store.bind(&handle(1)).await.unwrap(), Presence::Gone, "nothing revives it");
}

async fn a_tombstone_lasts_a_minute(store: Arc<dyn SessionStore>) {
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert!(store.remove(&key(1), true, at(100)).await.unwrap().is_some());
    assert!(matches!(store.load(&handle(1), at(159)).await.unwrap(), Found::Tombstone));
    assert!(matches!(store.load(&handle(1), at(160)).await.unwrap(), Found::Absent));
    assert!(store.remove(&key(1), true, at(100)).await.unwrap().is_none());
    assert_eq!(store.create(&handle(1), of("bob"), IDLE).await.unwrap(), Presence::Gone);
}

async fn exactly_one_caller_gets_what_was_removed(store: Arc<dyn SessionStore>) {
    // VR-20: exactly one login can take the vault.
    assert_eq!(store.create(&handle(1), anonymous(at(0)), IDLE).await.unwrap(), Presence::Present);
    let removals: Vec<_> = (0..100)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.remove(&key(1), true, at(1)).await.unwrap().is_some() })
        })
        .collect();
    let mut takers = 0;
    for removal in removals {
        takers += usize::from(removal.await.unwrap());
    }
    assert_eq!(takers, 1);
}

async fn what_was_judged_by_an_older_chain_is_not_removed(store: Arc<dyn SessionStore>) {
    // S35: an owner whose rotation raced is nobody's thief.
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    let judged = record(&*store, 1).await.unwrap();
    let chain = judged.chain.offer(&[0; 16], &[1; 16], judged.binding.clone(), at(1));
    assert_eq!(store.swap_chain(&key(1), judged.revision, chain).await.unwrap(), Swap::Swapped);
    assert_eq!(store.remove_at(&key(1), judged.revision).await.unwrap(), Removal::Stale);
    assert_eq!(store.change_vault(&handle(1), &[put("a")], at(1)).await.unwrap(), Presence::Present);
    assert_eq!(store.touch(&key(1), at(2), IDLE).await.unwrap(), Presence::Present);

    let judged = record(&*store, 1).await.unwrap();
    let removed = store.remove_at(&key(1), judged.revision).await.unwrap();

    assert_eq!(removed, Removal::Removed(Box::new(judged.outline())), "cookies and activity change no verdict");
    assert!(matches!(store.load(&handle(1), at(2)).await.unwrap(), Found::Absent), "and no tombstone");
    assert_eq!(store.by_user("alice", Some(SITE)).await.unwrap(), []);
    assert_eq!(store.remove_at(&key(1), judged.revision).await.unwrap(), Removal::Gone);
    assert_eq!(store.touch(&key(1), at(3), IDLE).await.unwrap(), Presence::Gone);
}

async fn exactly_one_caller_gets_what_was_removed_as_judged(store: Arc<dyn SessionStore>) {
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    let removals: Vec<_> = (0..100)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.remove_at(&key(1), 0).await.unwrap() })
        })
        .collect();
    let mut removed = 0;
    for removal in removals {
        let removal = removal.await.unwrap();
        assert_ne!(removal, Removal::Stale);
        removed += usize::from(removal != Removal::Gone);
    }
    assert_eq!(removed, 1);
}

async fn parallel_cookies_are_never_lost(store: Arc<dyn SessionStore>) {
    assert_eq!(store.create(&handle(1), anonymous(at(0)), IDLE).await.unwrap(), Presence::Present);
    let writes: Vec<_> = (0..50)
        .map(|number| {
            let store = Arc::clone(&store);
            tokio::spawn(
                async move { store.change_vault(&handle(1), &[put(&format!("c{number}"))], at(1)).await.unwrap() },
            )
        })
        .collect();
    for write in writes {
        assert_eq!(write.await.unwrap(), Presence::Present);
    }
    assert_eq!(record(&*store, 1).await.unwrap().vault.cookies().len(), 50);
}

async fn the_sessions_of_a_user_are_known(store: Arc<dyn SessionStore>) {
    // VR-24: several values, pruned one by one.
    for (number, user) in [(1, "alice"), (2, "alice"), (3, "bob")] {
        let record = Record { created: at(10 - u64::from(number)), ..of(user) };
        assert_eq!(store.create(&handle(number), record, IDLE).await.unwrap(), Presence::Present);
    }
    let elsewhere = Record { site: Arc::from(OTHER), created: at(20), ..of("alice") };
    assert_eq!(store.create(&handle(4), elsewhere, IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.by_user("alice", Some(SITE)).await.unwrap(), [key(2), key(1)], "the oldest first");
    assert_eq!(store.by_user("alice", None).await.unwrap(), [key(2), key(1), key(4)]);
    assert!(store.remove(&key(1), true, at(1)).await.unwrap().is_some());
    assert_eq!(store.by_user("alice", Some(SITE)).await.unwrap(), [key(2)]);
    assert_eq!(store.by_user("alice", Some("https://third.test")).await.unwrap(), []);
}

async fn a_store_that_works_is_ready(store: Arc<dyn SessionStore>) {
    // S192
    assert!(store.ready().await.is_ok());
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert!(store.ready().await.is_ok());
}

/// All pages of a list, each of about `limit`.
async fn listed(store: &dyn SessionStore, user: Option<&str>, limit: usize) -> BTreeSet<SessionKey> {
    let mut page = store.list(user, None, limit).await.unwrap().unwrap();
    let mut keys = BTreeSet::new();
    loop {
        keys.extend(page.sessions.iter().map(|(key, _)| *key));
        let Some(next) = page.next else { return keys };
        assert!(next.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)), "{next}");
        page = store.list(user, Some(&next), limit).await.unwrap().unwrap();
    }
}

async fn a_list_has_every_session_and_nothing_else(store: Arc<dyn SessionStore>) {
    for number in 1..=9 {
        let user = if number % 2 == 0 { "alice" } else { "bob" };
        assert_eq!(store.create(&handle(number), of(user), IDLE).await.unwrap(), Presence::Present);
    }
    let elsewhere = Record { site: Arc::from(OTHER), ..of("alice") };
    assert_eq!(store.create(&handle(10), elsewhere, IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(11), anonymous(at(0)), IDLE).await.unwrap(), Presence::Present);
    assert!(store.remove(&key(1), true, at(1)).await.unwrap().is_some());
    assert_eq!(store.touch(&key(2), at(5), IDLE).await.unwrap(), Presence::Present);

    for limit in [1, 2, 3, 10, 100] {
        assert_eq!(listed(&*store, None, limit).await, (2..=11).map(key).collect(), "{limit}");
        assert_eq!(listed(&*store, Some("alice"), limit).await, BTreeSet::from([2, 4, 6, 8, 10].map(key)), "{limit}");
        assert_eq!(listed(&*store, Some("carol"), limit).await, BTreeSet::new());
    }
    let page = store.list(None, None, 100).await.unwrap().unwrap();
    let (_, touched) = page.sessions.into_iter().find(|(found, _)| *found == key(2)).unwrap();
    assert_eq!((touched.user.unwrap().as_str(), &*touched.site, touched.seen), ("alice", SITE, at(5)));
    for odd in ["nothing-that-it-said", "no-such-site.i.0", "", "."] {
        assert!(store.list(None, Some(odd), 10).await.unwrap().is_none(), "{odd}");
    }
}

async fn a_list_leaves_nothing_out_while_others_come_and_go(store: Arc<dyn SessionStore>) {
    for number in 1..=40 {
        assert_eq!(store.create(&handle(number), of("alice"), IDLE).await.unwrap(), Presence::Present);
    }
    let (mut from, mut seen, mut round) = (None, BTreeSet::new(), 0);
    loop {
        let page = store.list(None, from.as_deref(), 5).await.unwrap().unwrap();
        seen.extend(page.sessions.iter().map(|(key, _)| *key));
        round += 1;
        assert_eq!(store.create(&handle(100 + round), of("bob"), IDLE).await.unwrap(), Presence::Present);
        store.remove(&key(round), false, at(1)).await.unwrap();
        from = page.next;
        if from.is_none() {
            break;
        }
    }
    let stayed: BTreeSet<_> = (round + 1..=40).map(key).collect();
    assert!(seen.is_superset(&stayed));
}

async fn a_session_is_found_by_its_public_handle(store: Arc<dyn SessionStore>) {
    // S190
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(2), anonymous(at(0)), IDLE).await.unwrap(), Presence::Present);
    for number in [1, 2] {
        assert_eq!(store.find(&key(number).session_ref()).await.unwrap(), Some(key(number)));
    }
    assert!(store.remove(&key(1), true, at(1)).await.unwrap().is_some());
    for unknown in [&key(1).session_ref(), &key(3).session_ref(), "", "*", "ref"] {
        assert_eq!(store.find(unknown).await.unwrap(), None, "{unknown}");
    }
}

async fn sessions_are_counted_by_site_and_kind(store: Arc<dyn SessionStore>) {
    for number in 1..=3 {
        assert_eq!(store.create(&handle(number), of("alice"), IDLE).await.unwrap(), Presence::Present);
    }
    let elsewhere = Record { site: Arc::from(OTHER), ..of("bob") };
    assert_eq!(store.create(&handle(4), elsewhere, IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(5), anonymous(at(0)), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(5), anonymous(at(0)), IDLE).await.unwrap(), Presence::Gone);
    assert!(store.remove(&key(1), true, at(1)).await.unwrap().is_some());
    assert!(store.take(&handle(2), at(1)).await.unwrap().is_some());
    assert_eq!(store.population(SITE).await.unwrap(), Population { authenticated: 1, anonymous: 1 });
    assert_eq!(store.population(OTHER).await.unwrap(), Population { authenticated: 1, anonymous: 0 });
    assert!(store.evict_anonymous(SITE).await.unwrap().is_some());
    assert_eq!(store.population(SITE).await.unwrap(), Population { authenticated: 1, anonymous: 0 });
    assert_eq!(store.population("https://third.test").await.unwrap(), Population::default());
}

async fn the_least_recently_used_anonymous_session_goes(store: Arc<dyn SessionStore>) {
    // S176
    for number in 1..=3 {
        assert_eq!(
            store.create(&handle(number), anonymous(at(u64::from(number))), IDLE).await.unwrap(),
            Presence::Present
        );
    }
    assert_eq!(store.create(&handle(9), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.touch(&key(1), at(10), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.population(SITE).await.unwrap().anonymous, 3);
    assert_eq!(store.evict_anonymous(SITE).await.unwrap().map(|(evicted, _)| evicted), Some(key(2)));
    assert_eq!(store.population(SITE).await.unwrap().anonymous, 2);
    assert!(record(&*store, 9).await.is_some());
}

async fn a_sweep_frees_what_has_expired(store: Arc<dyn SessionStore>) {
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.create(&handle(2), of("bob"), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(store.touch(&key(2), at(5), IDLE).await.unwrap(), Presence::Present);
    let now = at(IDLE.as_secs());
    let judge = |_: &str, life: Life| (now.since(life.seen) >= IDLE).then_some(EndReason::Idle);
    let ended = store.sweep(&judge, now).await.unwrap();
    assert_eq!(ended.iter().map(|(key, _, reason)| (*key, *reason)).collect::<Vec<_>>(), [(key(1), EndReason::Idle)]);
    assert!(record(&*store, 2).await.is_some());
    assert_eq!(store.by_user("alice", Some(SITE)).await.unwrap(), []);
}

/// Every sentence, for every way to open an empty store.
macro_rules! contract {
    ($($sentence:ident)*) => {
        contract! { @store memory, crate::store::contract::in_memory(), $($sentence)* }
        contract! { @store file, crate::store::contract::in_a_file(), $($sentence)* }
        contract! { @store redis, crate::store::contract::in_redis(), $($sentence)* }
        contract! { @store cluster, crate::store::contract::in_a_cluster(), $($sentence)* }
    };
    (@store $store:ident, $open:expr, $($sentence:ident)*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $sentence() {
                    let (store, _place) = $open;
                    super::$sentence(store).await;
                }
            )*
        }
    };
}

/// A store, and what it stands on.
type Opened = (Arc<dyn SessionStore>, Box<dyn Any + Send>);

fn in_memory() -> Opened {
    (Arc::new(MemoryStore::default()), Box::new(()))
}

fn in_a_file() -> Opened {
    let place = tempfile::tempdir().unwrap();
    (Arc::new(FileStore::open(&place.path().join("sessions.redb"), Keys::default()).unwrap()), Box::new(place))
}

fn in_redis() -> Opened {
    let server = Redis::start();
    let (store, _) = RedisStore::open(&server.settings(), Keys::default(), Arc::new(SystemClock::start())).unwrap();
    (Arc::new(store), Box::new(server))
}

/// A node that serves all slots: it refuses what touches two of them all the same.
fn in_a_cluster() -> Opened {
    let server = Redis::cluster();
    let (store, _) = RedisStore::open(&server.settings(), Keys::default(), Arc::new(SystemClock::start())).unwrap();
    (Arc::new(store), Box::new(server))
}

contract! {
    what_was_created_is_found
    a_taken_key_is_not_given_again
    a_touch_moves_forward_and_revives_nothing
    a_touch_revives_nothing_that_has_expired
    a_chain_is_swapped_only_at_its_revision
    a_vault_that_changes_stands_in_no_rotations_way
    a_session_is_bound_to_the_device_that_it_knows_of
    a_tombstone_lasts_a_minute
    exactly_one_caller_gets_what_was_removed
    what_was_judged_by_an_older_chain_is_not_removed
    exactly_one_caller_gets_what_was_removed_as_judged
    parallel_cookies_are_never_lost
    the_sessions_of_a_user_are_known
    a_list_has_every_session_and_nothing_else
    a_list_leaves_nothing_out_while_others_come_and_go
    a_session_is_found_by_its_public_handle
    sessions_are_counted_by_site_and_kind
    a_store_that_works_is_ready
    the_least_recently_used_anonymous_session_goes
    a_sweep_frees_what_has_expired
}

mod shelf;
