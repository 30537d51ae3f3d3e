//! What a session costs in memory, and what it costs to find one: the memory store with a million and with
//! ten million of them, as logins make them, seven users for every ten sessions.
//!
//! `cargo bench --bench sessions -- [SESSIONS]`

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use futures_util::FutureExt;
use http::HeaderValue;
use vestibule::clock::Timestamp;
use vestibule::config::Config;
use vestibule::policy::binding::Binding;
use vestibule::policy::chain::Chain;
use vestibule::policy::cookie::SetCookie;
use vestibule::policy::path::PathCase;
use vestibule::policy::path::Target;
use vestibule::policy::session::Identity;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionId;
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
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let counts = match arguments.first() {
        Some(count) => vec![count.parse().expect("the number of sessions")],
        None => vec![1_000_000, 10_000_000],
    };
    if let Some(name) = arguments.get(1) {
        return measure(FORMS.iter().find(|form| form.name == name).expect("a form of session"), counts[0]);
    }
    println!("sessions in memory; \"found\" includes the digest of the ID; \"beside\": the slowest of ten thousand");
    println!("look-ups, and the slowest of all, of another thread while a sweep looks at every session\n");
    println!("{:<44} {:>11} {:>9} {:>9} {:>9} {:>22}", "", "bytes each", "created", "found", "swept", "beside");
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
    let before = resident();
    let (store, site, rules) = (Arc::new(MemoryStore::default()), Arc::from("https://app.example.com"), rules());
    let started = Instant::now();
    for number in 0..count {
        let id = id(number);
        let record = record(&id, number, count, form, &site, &rules);
        assert_eq!(at_once(store.create(&id.handle(), record, rules.idle)), Presence::Present);
    }
    let (created, bytes) = (started.elapsed(), resident() - before);
    let started = Instant::now();
    (0..LOOK_UPS).for_each(|number| look_up(&store, number, count));
    let found = started.elapsed();
    let (swept, beside) = sweep(&store, count);
    let name = format!("{count:>10}, {}", form.name);
    let each = |time: Duration, count: u64| time.as_secs_f64() * 1e6 / count as f64;
    println!(
        "{name:<44} {:>11} {:>6.2} µs {:>6.2} µs {:>6.0} ms {:>7.0} µs, {:>7.0} µs",
        bytes / count,
        each(created, count),
        each(found, LOOK_UPS),
        swept.as_secs_f64() * 1e3,
        each(beside[beside.len() - beside.len().div_ceil(10_000)], 1),
        each(beside[beside.len() - 1], 1),
    );
}

/// In an order that no cache foresees.
fn look_up(store: &MemoryStore, number: u64, count: u64) {
    let handle = id(number * 7_919 % count).handle();
    assert!(matches!(at_once(store.load(&handle, NOW)), Found::Record(_)));
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
