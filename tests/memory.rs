//! What sessions take in memory, and what a look-up takes of the allocator. Counted, not timed: it is a program
//! of its own with one test, because its allocator counts for the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

use std::alloc::System;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;
use vestibule::clock::Timestamp;
use vestibule::policy::binding::Binding;
use vestibule::policy::chain::Chain;
use vestibule::policy::session::Identity;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionId;
use vestibule::policy::session::UserName;
use vestibule::policy::vault::Vault;
use vestibule::policy::vault::VaultCookie;
use vestibule::store::Found;
use vestibule::store::Presence;
use vestibule::store::Reply;
use vestibule::store::SessionStore;
use vestibule::store::memory::MemoryStore;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
/// A shard of the memory has at least a hundred.
const SESSIONS: u64 = 200_000;

fn at_once<T>(reply: Reply<'_, T>) -> T {
    reply.now_or_never().expect("memory answers at once").unwrap()
}

fn id(number: u64) -> SessionId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SessionId::from_random(bytes)
}

/// Seven users for every ten sessions.
fn record(number: u64, chain: Chain, vault: Vault) -> Record {
    let user = UserName::parse(&format!("user{}", number % (SESSIONS * 7 / 10))).unwrap();
    Record {
        site: Arc::from("https://app.example.com"),
        identity: Some(Identity { user, authenticated: NOW, session_ref: id(number).key().session_ref() }),
        created: NOW,
        seen: NOW,
        absolute_end: NOW.plus(8 * HOUR),
        chain,
        binding: binding(number),
        vault,
        device: None,
        revision: 0,
    }
}

fn binding(number: u64) -> Binding {
    let address = IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap()));
    Binding::new(address, Some("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"))
}

fn begun(number: u64) -> Chain {
    Chain::begin(id(number).verifier(), NOW)
}

fn rotated(number: u64) -> Chain {
    begun(number).offer(id(number).verifier(), &[1; 16], binding(number), NOW).confirm(binding(number), NOW).unwrap()
}

/// Cookies are read out of the bytes of a whole answer.
fn cookie(number: u64) -> Vault {
    let answer = Bytes::from(format!("PHPSESSID={number:032}{}", "x".repeat(16 * 1024)));
    Vault::of(&[VaultCookie {
        name: answer.slice(..9),
        value: answer.slice(10..42),
        path: "/".to_owned(),
        domain: None,
        expires: None,
        same_site: None,
        created: NOW,
        used: NOW,
    }])
}

fn filled(count: u64, record: impl Fn(u64) -> Record) -> MemoryStore {
    let store = MemoryStore::default();
    for number in 0..count {
        assert_eq!(at_once(store.create(&id(number).handle(), record(number), HOUR)), Presence::Present);
    }
    store
}

/// What is done with the allocator: how often it is asked for memory, and bytes that are in use afterwards.
fn measure<T>(act: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = INSTRUMENTED_SYSTEM.stats();
    let done = act();
    let used = INSTRUMENTED_SYSTEM.stats() - before;
    (done, used.allocations + used.reallocations, used.bytes_allocated - used.bytes_deallocated)
}

/// Bytes that each session takes.
fn weigh(record: impl Fn(u64) -> Record) -> usize {
    let (_store, _, bytes) = measure(|| filled(SESSIONS, record));
    bytes / usize::try_from(SESSIONS).unwrap()
}

fn a_look_up_allocates_little() {
    for (name, expected, vault) in [("without a cookie", 1, Vault::default()), ("with a cookie", 2, cookie(1))] {
        let store = filled(1, |number| record(number, begun(number), vault.clone()));
        let handle = id(0).handle();

        let ((), count, bytes) = measure(|| assert!(matches!(at_once(store.load(&handle, NOW)), Found::Record(_))));

        // The record, and what the vault holds.
        assert_eq!((count, bytes), (expected, 0), "{name}");
    }
}

fn activity_allocates_nothing() {
    let store = filled(1, |number| record(number, begun(number), Vault::default()));
    let key = id(0).key();

    let (presence, count, bytes) = measure(|| at_once(store.touch(&key, NOW.plus(HOUR / 2), HOUR)));

    assert_eq!((presence, count, bytes), (Presence::Present, 0, 0));
}

fn a_session_takes_about_a_hundred_bytes() {
    for (name, limit, bytes) in [
        ("without a cookie", 140, weigh(|number| record(number, begun(number), Vault::default()))),
        ("with a rotated ID", 170, weigh(|number| record(number, rotated(number), Vault::default()))),
        ("with a cookie", 200, weigh(|number| record(number, begun(number), cookie(number)))),
    ] {
        println!("{name}: {bytes} bytes");
        assert!(bytes <= limit, "{name}: {bytes} bytes");
    }
}

#[test]
fn sessions_take_no_more_than_they_must() {
    a_look_up_allocates_little();
    activity_allocates_nothing();
    a_session_takes_about_a_hundred_bytes();
}
