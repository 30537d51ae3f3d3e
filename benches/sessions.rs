//! What a session costs in memory, and what it costs to find one: the memory store with a million of
//! them, as logins make them, without and with one cookie of the application in the vault.
//!
//! `cargo bench --bench sessions -- [SESSIONS]`

#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

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
use vestibule::store::SessionStore;
use vestibule::store::memory::MemoryStore;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let count = arguments.first().map_or(1_000_000, |count| count.parse().expect("the number of sessions"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    match arguments.get(1).map(String::as_str) {
        Some("none") => runtime.block_on(measure("no vault", count, false)),
        Some("one") => runtime.block_on(measure("one cookie in the vault", count, true)),
        Some(other) => panic!("{other}: \"none\" or \"one\" cookie in the vault"),
        // Each in a process of its own: memory that was in use before would not be counted.
        None => {
            println!("{count} sessions in memory\n");
            for vault in ["none", "one"] {
                let own = std::env::current_exe().unwrap();
                let status = std::process::Command::new(own).args([&count.to_string(), vault]).status().unwrap();
                assert!(status.success());
            }
        }
    }
}

async fn measure(name: &str, count: u64, vault: bool) {
    let before = resident();
    let store = MemoryStore::default();
    let (site, rules) = (Arc::from("https://app.example.com"), rules());
    let started = Instant::now();
    for number in 0..count {
        let id = id(number);
        let record = record(&id, number, vault, &site, &rules);
        assert_eq!(store.create(&id.handle(), record, rules.idle).await.unwrap(), Presence::Present);
    }
    let (created, bytes) = (started.elapsed(), resident() - before);
    let lookups = 1_000_000;
    let started = Instant::now();
    for number in 0..lookups {
        // In an order that no cache foresees.
        let handle = id(number * 7_919 % count).handle();
        assert!(matches!(store.load(&handle, NOW).await.unwrap(), Found::Record(_)));
    }
    let found = started.elapsed();
    println!(
        "{name:<24} {:>4} bytes each, created in {:.2} µs, found in {:.2} µs (with the digest of the ID)",
        bytes / count,
        created.as_secs_f64() * 1e6 / count as f64,
        found.as_secs_f64() * 1e6 / lookups as f64,
    );
}

fn id(number: u64) -> SessionId {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    SessionId::from_random(bytes)
}

fn record(id: &SessionId, number: u64, vault: bool, site: &Arc<str>, rules: &SessionRules) -> Record {
    // Some have several sessions.
    let user = UserName::parse(&format!("user{}", number % 700_000)).unwrap();
    let identity = Arc::new(Identity::new(user, NOW, Arc::from(id.handle().key().session_ref())));
    let address = IpAddr::V4(Ipv4Addr::from(u32::try_from(number % u64::from(u32::MAX)).unwrap()));
    let binding = Binding::new(address, Some("Mozilla/5.0 (X11; Linux x86_64) Firefox/140.0"));
    let chain = Chain::begin(id.verifier(), NOW);
    let vault = if vault { kept(number) } else { Vault::default() };
    Record::authenticated(Arc::clone(site), identity, binding, chain, Arc::new(vault), rules, NOW)
}

fn kept(number: u64) -> Vault {
    let line = HeaderValue::from_str(&format!("PHPSESSID={number:026}; path=/; HttpOnly")).unwrap();
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
