//! Sessions as the memory keeps them.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Waker;

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;
use crate::policy::binding::Binding;
use crate::policy::cookie::SameSite;
use crate::policy::dbsc::Device;
use crate::policy::session::Identity;
use crate::policy::session::SessionId;
use crate::policy::session::UserName;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultCookie;
use crate::store::fixtures::SITE;
use crate::store::fixtures::at;
use crate::store::fixtures::of;

const IDLE: Duration = Duration::from_secs(1800);

fn handle(number: u32) -> Handle {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    SessionId::from_random(bytes).handle()
}

fn at_once<T>(reply: Reply<'_, T>) -> T {
    reply.now_or_never().expect("memory answers at once").unwrap()
}

fn create(store: &MemoryStore, handle: &Handle, record: Record) {
    assert_eq!(at_once(store.create(handle, record, IDLE)), Presence::Present);
}

fn load(store: &MemoryStore, handle: &Handle) -> Record {
    match at_once(store.load(handle, at(1))) {
        Found::Record(record) => *record,
        other @ (Found::Tombstone | Found::Absent) => panic!("{other:?}"),
    }
}

fn times() -> impl Strategy<Value = Timestamp> {
    prop_oneof![0..2_000_000_000_000_u64, Just(u64::MAX), Just(0)].prop_map(Timestamp::from_millis)
}

fn chains() -> impl Strategy<Value = Chain> {
    let client = |place: u8| Binding::new([192, 0, 2, place].into(), Some("Firefox"));
    (any::<[u8; 16]>(), 0..4_u8, times(), times()).prop_map(move |(verifier, step, first, later)| {
        let begun = Chain::begin(&verifier, first);
        let offered = begun.offer(&verifier, &[9; 16], client(1), later);
        match step {
            0 => begun,
            1 => offered,
            2 => offered.share(&Binding::new([10, 0, 0, 1].into(), None)).unwrap(),
            _ => offered.confirm(client(2), first).unwrap(),
        }
    })
}

fn cookies() -> impl Strategy<Value = VaultCookie> {
    (("[a-zA-Z]{1,40}", "[ -~]{0,600}", "/[a-z]{0,9}", any::<Option<bool>>()), (times(), times(), times())).prop_map(
        |((name, value, path, strict), (created, used, expires))| VaultCookie {
            name: Bytes::from(name),
            value: Bytes::from(value),
            path,
            domain: strict.map(|_| "app.test".to_owned()),
            expires: strict.map(|_| expires),
            same_site: strict.map(|strict| if strict { SameSite::Strict } else { SameSite::None }),
            created,
            used,
        },
    )
}

prop_compose! {
    fn records()(
        user in proptest::option::of("[a-z\u{e9}\u{4e00}]{1,80}"),
        agent in proptest::option::of("[ -~]{0,256}"),
        (address, v4) in (any::<u128>(), any::<bool>()),
        (created, seen, end, authenticated) in (times(), times(), times(), times()),
        chain in chains(),
        cookies in proptest::collection::vec(cookies(), 0..4),
        device in proptest::option::of(any::<([u8; 32], bool)>()),
        (revision, number) in (0..u64::MAX, any::<u32>()),
    ) -> (Handle, Record) {
        let handle = handle(number);
        let address = if v4 { IpAddr::from((address as u32).to_be_bytes()) } else { IpAddr::from(address.to_be_bytes()) };
        let user = user.map(|user| UserName::parse(&user).unwrap());
        let record = Record {
            site: Arc::from(SITE),
            identity: user.map(|user| Identity { user, authenticated, session_ref: handle.key().session_ref() }),
            created,
            seen,
            absolute_end: end,
            chain,
            binding: Binding::new(address, agent.as_deref()),
            vault: Vault::of(&cookies),
            device: device.map(|(secret, is_bound)| Box::new(Device::kept(secret, is_bound))),
            revision,
        };
        (handle, record)
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_was_created((handle, record) in records()) {
        let store = MemoryStore::default();
        create(&store, &handle, record.clone());

        let found = load(&store, &handle);

        prop_assert_eq!(format!("{found:?}"), format!("{record:?}"));
        prop_assert_eq!(&found.chain, &record.chain);
        prop_assert_eq!(&found.vault, &record.vault);
        prop_assert_eq!(&found.device, &record.device);
        prop_assert_eq!(Some(found.outline()), store.outline(handle.key()));
    }
}

#[test]
fn what_has_ended_takes_no_memory() {
    let store = MemoryStore::default();
    for number in 0..50_000 {
        let binding = Binding::new([127, 0, 0, 1].into(), Some(&format!("Browser/{}", number % 100)));
        create(&store, &handle(number), Record { binding, ..of("alice") });
    }
    assert_eq!(at_once(store.population(SITE)).authenticated, 50_000);

    // In two sweeps: one does not end that many.
    let judge = |_: &str, _| Some(EndReason::Idle);
    let mut ended = 0;
    loop {
        let some = tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(store.sweep(&judge, at(9)));
        let some = some.unwrap().len();
        ended += some;
        if some < AT_ONCE {
            break;
        }
    }

    assert_eq!(ended, 50_000);
    assert_eq!(at_once(store.population(SITE)), Population::default());
    assert_eq!(at_once(store.by_user("alice", None)), []);
    for shard in &store.shards {
        assert!(shard.read().unwrap().is_empty());
    }
}

#[test]
fn a_sweep_lets_others_in_after_each_bite() {
    let (store, shard, bites) = (MemoryStore::default(), RwLock::<Shard>::default(), 4);
    for number in 0..3 * sweep::BITE as u32 {
        let (handle, mut shard) = (handle(number), shard.write().unwrap());
        let piece = packed::write_record(handle.key(), &of("alice"), &mut shard.texts);
        shard.put(handle.key(), &piece);
    }
    let mut ended = Vec::new();
    let mut sweep = Box::pin(store.sweep_shard(&shard, &|_, _| None, at(9), &mut ended));
    let mut context = Context::from_waker(Waker::noop());

    let mut pauses = 0;
    while sweep.as_mut().poll(&mut context).is_pending() {
        assert!(shard.try_write().is_ok(), "nothing is held while others are let in");
        pauses += 1;
    }

    assert_eq!(pauses, bites);
}

#[test]
fn a_user_with_very_many_sessions_logs_out_like_any_other() {
    let store = MemoryStore::default();
    for number in 0..20_000 {
        create(&store, &handle(number), of(if number % 2 == 0 { "kiosk" } else { "bob" }));
    }

    for number in 0..10_000 {
        assert!(at_once(store.remove(handle(number).key(), false, at(1))).is_some());
    }

    let left = at_once(store.by_user("kiosk", Some(SITE)));
    assert_eq!(left.len(), 5_000);
    assert!(left.iter().all(|key| store.outline(key).unwrap().user.unwrap().as_str() == "kiosk"));
    assert_eq!(at_once(store.by_user("kiosk", Some("https://other.test"))), []);
}
