//! What a session costs in memory, and what it costs to find one: the memory store with a million and with
//! ten million of them, as logins make them, seven users for every ten sessions.
//!
//! `cargo bench --bench sessions -- [SESSIONS]`

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

use std::hash::BuildHasherDefault;
use std::hash::Hasher;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use dashmap::DashMap;
use futures_util::FutureExt;
use http::HeaderValue;
use vestibule::clock::Timestamp;
use vestibule::config::Config;
use vestibule::policy::binding::Binding;
use vestibule::policy::chain::Chain;
use vestibule::policy::cookie::SetCookie;
use vestibule::policy::lifecycle;
use vestibule::policy::lifecycle::Presenter;
use vestibule::policy::lifecycle::Verdict;
use vestibule::policy::path::PathCase;
use vestibule::policy::path::Target;
use vestibule::policy::session::Handle;
use vestibule::policy::session::Identity;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionId;
use vestibule::policy::session::SessionKey;
use vestibule::policy::session::SessionRules;
use vestibule::policy::session::UserName;
use vestibule::policy::vault::Vault;
use vestibule::policy::vault::VaultChange;
use vestibule::store::Found;
use vestibule::store::Presence;
use vestibule::store::Reply;
use vestibule::store::SessionStore;
use vestibule::store::memory::MemoryStore;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const LOOK_UPS: u64 = 1_000_000;
/// So few sessions that they stay in the cache.
const FEW: usize = 64;

/// What the sessions are like.
struct Form {
    name: &'static str,
    /// With a cookie of the application, with a value of 32 bytes.
    has_cookie: bool,
    /// Older than a rotation.
    has_rotated: bool,
}

const FORMS: [Form; 3] = [
    Form { name: "no cookie kept", has_cookie: false, has_rotated: false },
    Form { name: "no cookie kept, ID rotated", has_cookie: false, has_rotated: true },
    Form { name: "one cookie kept", has_cookie: true, has_rotated: false },
];

fn main() {
    // As the program does.
    vestibule::server::heap::keep_some();
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let counts = match arguments.first() {
        Some(count) => vec![count.parse().expect("the number of sessions")],
        None => vec![1_000_000, 10_000_000],
    };
    if let Some(name) = arguments.get(1) {
        return measure(FORMS.iter().find(|form| form.name == name).expect("a form of session"), counts[0]);
    }
    println!("sessions in memory, and what it takes to make one; to read an ID and to digest its selector; to find");
    println!("a session, and a key in a DashMap as large: in a loop, where a processor begins with the next ones");
    println!("before it has the first, and then each after the other; to find one and to read it, in a loop, and");
    println!("the same few again; to judge what was read; to go once to memory of about this size, which finding");
    println!("does twice; to look at all of them. \"beside\": the slowest of ten thousand ways from an ID to a");
    println!("session, and the slowest of all, in another thread meanwhile\n");
    let columns = ["bytes each", "created", "ID", "found", "dashmap", "in turn", "dashmap", "read", "again", "judged"];
    let more = ["memory", "swept", "beside"];
    println!("{:<40} {}", "", columns.iter().chain(&more).map(|column| format!("{column:>11}")).collect::<String>());
    for count in counts {
        for form in &FORMS {
            // In a process of its own: memory that was in use before would not be counted.
            let own = std::env::current_exe().unwrap();
            let status = Command::new(own).args([&count.to_string(), form.name]).status().unwrap();
            assert!(status.success());
        }
    }
}

fn measure(form: &Form, count: u64) {
    let memory = memory(count);
    let before = resident();
    let (store, site, rules) = (Arc::new(MemoryStore::default()), Arc::from("https://app.example.com"), rules());
    let started = Instant::now();
    for number in 0..count {
        let id = id(number);
        let record = record(&id, number, count, form, &site, &rules);
        assert_eq!(at_once(store.create(&id.handle(), record, rules.idle)), Presence::Present);
    }
    let (created, bytes) = (started.elapsed(), resident() - before);
    let finds = finds(&store, count);
    let parts = look_ups(&store, count, &rules);
    let (swept, beside) = sweep(&store, count);
    drop(store);
    let peer = peer(count);
    let name = format!("{count:>10}, {}", form.name);
    let each = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
    let [id, read, again, judged] = parts;
    let parts = [id, finds[0], peer[0], finds[1], peer[1], read, again, judged, memory];
    let parts = parts.map(|time| format!("{:>8.3} µs", each(time, LOOK_UPS)));
    println!(
        "{name:<40} {:>11} {:>8.2} µs{} {:>7.0} ms {:>8.0} µs, {:>7.0} µs",
        bytes / count,
        each(created, count),
        parts.concat(),
        swept.as_secs_f64() * 1e3,
        each(beside[beside.len() - beside.len().div_ceil(10_000)], 1),
        each(beside[beside.len() - 1], 1),
    );
}

/// A line of the cache, that tells which one comes next.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line(u32);

/// What so many ways to the memory take, each known only after the one before, as finding a session in a table is.
fn memory(count: u64) -> Duration {
    let lines = u32::try_from(2 * count).unwrap();
    let mut chain: Vec<Line> = (0..lines).map(Line).collect();
    let mut random: u64 = 1;
    // One circle through all (Sattolo's way of shuffling).
    for at in (1..chain.len()).rev() {
        // Knuth's constants.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        chain.swap(at, (random >> 32) as usize % at);
    }
    let started = Instant::now();
    let last = (0..LOOK_UPS).fold(0, |at, _| chain[at].0 as usize);
    let took = started.elapsed();
    assert!(last < chain.len());
    took
}

/// Keys are hashes already.
#[derive(Clone, Copy, Default)]
struct Itself(u64);

impl Hasher for Itself {
    fn write(&mut self, _bytes: &[u8]) {
        unreachable!("keys are numbers");
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What it takes to find sessions, without reading them: in a loop, and each after the other.
fn finds(store: &MemoryStore, count: u64) -> [Duration; 2] {
    let keys = |from| session_ids(from, count).iter().map(|id| *id.handle().key()).collect::<Vec<SessionKey>>();
    let (first, second) = (keys(0), keys(LOOK_UPS));
    let started = Instant::now();
    assert!(first.iter().all(|key| store.last_activity(key) == Some(NOW)));
    let in_a_loop = started.elapsed();
    let started = Instant::now();
    let last = second.iter().fold(NOW, |time, key| {
        // What was found has a part in which key is next.
        let difference = (time.as_millis() ^ NOW.as_millis()) as u8;
        store.last_activity(&SessionKey(key.0.map(|byte| byte ^ difference))).unwrap()
    });
    let in_turn = started.elapsed();
    assert_eq!(last, NOW);
    [in_a_loop, in_turn]
}

/// The same in a map of the library's, with as many shards, of which nothing is asked but to find.
fn peer(count: u64) -> [Duration; 2] {
    let key = |number| u128::from_le_bytes(*id(shuffled(number, count)).handle().key().0.first_chunk().unwrap());
    let map = DashMap::with_hasher_and_shard_amount(BuildHasherDefault::<Itself>::default(), 1024);
    for number in 0..count {
        map.insert(key(number), [key(number + 1), 0, 0]);
    }
    let keys: Vec<u128> = (0..LOOK_UPS).map(key).collect();
    let started = Instant::now();
    assert!(keys.iter().all(|key| map.get(key).is_some_and(|found| found[1] == 0)));
    let in_a_loop = started.elapsed();
    let started = Instant::now();
    let last = (0..LOOK_UPS).fold(key(LOOK_UPS), |key, _| map.get(&key).unwrap()[0]);
    let in_turn = started.elapsed();
    assert_eq!(last, key(2 * LOOK_UPS));
    [in_a_loop, in_turn]
}

/// The IDs of one pass of look-ups. Each pass has its own, since what was looked for lately may still be in the cache; of
/// no more sessions than there are look-ups, a pass looks for all.
fn session_ids(from: u64, count: u64) -> Vec<SessionId> {
    (from..from + LOOK_UPS).map(|number| id(shuffled(number, count))).collect()
}

/// The number of a session, in an order that no cache foresees.
fn shuffled(number: u64, count: u64) -> u64 {
    number * 7_919 % count
}

/// The whole way from what a cookie has in it to a session.
fn look_up(store: &MemoryStore, number: u64, count: u64) {
    let handle = id(shuffled(number, count)).handle();
    assert!(matches!(at_once(store.load(&handle, NOW)), Found::Record(_)));
}

/// What the parts of that way take: the ID and its digest; a session, found and read; one of the same few; what is to
/// be thought of it.
fn look_ups(store: &MemoryStore, count: u64, rules: &SessionRules) -> [Duration; 4] {
    let ids = session_ids(2 * LOOK_UPS, count);
    let texts: Vec<String> = ids.iter().map(SessionId::expose).collect();
    let started = Instant::now();
    let handles: Vec<Handle> = texts.iter().map(|text| SessionId::parse(text.as_bytes()).unwrap().handle()).collect();
    let parsed = started.elapsed();
    let find = |handle: &Handle| match at_once(store.load(handle, NOW)) {
        Found::Record(record) => record,
        Found::Tombstone | Found::Absent => panic!("it is not there"),
    };
    let started = Instant::now();
    handles.iter().for_each(|handle| drop(find(handle)));
    let read = started.elapsed();
    let started = Instant::now();
    handles[..FEW].iter().cycle().take(handles.len()).for_each(|handle| drop(find(handle)));
    let again = started.elapsed();
    let records: Vec<_> = handles[..FEW].iter().map(find).collect();
    let started = Instant::now();
    for (id, record) in ids[..FEW].iter().zip(&records).cycle().take(ids.len()) {
        let (address, user_agent) = (record.binding.address, record.binding.user_agent.as_deref());
        let presenter = Presenter { site: &record.site, address, user_agent, bound: None };
        assert!(matches!(lifecycle::judge(record, id, presenter, rules, NOW), Verdict::Live { .. }));
    }
    [parsed, read, again, started.elapsed()]
}

/// How long a sweep takes that ends nothing, and what look-ups take meanwhile, the slowest last.
fn sweep(store: &Arc<MemoryStore>, count: u64) -> (Duration, Vec<Duration>) {
    let is_over = Arc::new(AtomicBool::new(false));
    let (reader, stop) = (Arc::clone(store), Arc::clone(&is_over));
    let reading = std::thread::spawn(move || {
        let mut took = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            look_up(&reader, took.len() as u64, count);
            took.push(started.elapsed());
        }
        took.sort_unstable();
        took
    });
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let started = Instant::now();
    let ended = runtime.block_on(store.sweep(&|_, _| None, NOW)).unwrap();
    let swept = started.elapsed();
    is_over.store(true, Ordering::Relaxed);
    assert!(ended.is_empty());
    (swept, reading.join().unwrap())
}

fn at_once<T>(reply: Reply<'_, T>) -> T {
    reply.now_or_never().expect("memory answers at once").unwrap()
}

fn id(number: u64) -> SessionId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SessionId::from_random(bytes)
}

fn record(id: &SessionId, number: u64, count: u64, form: &Form, site: &Arc<str>, rules: &SessionRules) -> Record {
    let user = UserName::parse(&format!("user{}", number % (count * 7 / 10))).unwrap();
    let identity = Identity { user, authenticated: NOW, session_ref: id.key().session_ref() };
    let address = IpAddr::V4(Ipv4Addr::from(u32::try_from(number % u64::from(u32::MAX)).unwrap()));
    let binding = Binding::new(address, Some("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
    let mut chain = Chain::begin(id.verifier(), NOW);
    if form.has_rotated {
        chain = chain.offer(id.verifier(), &[1; 16], binding.clone(), NOW).confirm(binding.clone(), NOW).unwrap();
    }
    let vault = if form.has_cookie { kept(number) } else { Vault::default() };
    Record::authenticated(Arc::clone(site), identity, binding, chain, vault, rules, NOW)
}

fn kept(number: u64) -> Vault {
    let line = HeaderValue::from_str(&format!("PHPSESSID={number:032}; path=/; HttpOnly")).unwrap();
    let cookie = SetCookie::parse(&line, NOW).unwrap();
    let target = Target::parse("/login", PathCase::Exact);
    let change = VaultChange::of(&cookie, &target, "app.example.com", NOW).unwrap();
    Vault::default().changed(&[change], NOW).unwrap()
}

/// The defaults.
fn rules() -> SessionRules {
    let text = "[listen]\nhttps = '127.0.0.1:443'\n[tls]\ncertificate = 'a.pem'\nkey = 'a.key'\n[[site]]\n\
                origin = 'https://app.example.com'\nupstream = 'http://127.0.0.1:1'";
    let config = Config::parse(Path::new("proxy.toml"), text).unwrap_or_else(|problems| panic!("{problems}"));
    config.sites[0].session.clone()
}

/// Bytes of this process in memory.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
