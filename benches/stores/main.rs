//! What the session stores cost: the same requests and logins with `memory:`, with `file:` and with a Redis.
//!
//! The servers run on the first core, one worker each, with the store's own threads; the load, the
//! application and Redis on the second. Rounds are interleaved, so that whatever else the machine does meets
//! all alike. Processor time is the scheduler's own count; Redis's own is not in it.
//!
//! `make bench`, or `cargo bench --bench stores -- [ROUNDS] [WORKLOAD] [PART]`: of each turn's requests, one in
//! so many.

#![allow(unreachable_pub)] // A benchmark has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

#[path = "../peers/load.rs"]
#[allow(dead_code)] // What the other benchmark needs.
mod load;
#[path = "../peers/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../peers/rounds.rs"]
mod rounds;
#[path = "../peers/servers.rs"]
#[allow(dead_code)]
mod servers;

use std::time::Duration;

use load::Client;
use process::Server;
use servers::Setup;
use vestibule::cert;

/// Requests a second whose latency is looked at: about a quarter of what a core takes.
const RATE: u32 = 4_000;

/// What is done with each store.
struct Workload {
    name: &'static str,
    unit: &'static str,
    /// Requests of one turn.
    count: u32,
    /// What they came to.
    run: fn(&Client, &Server, u32) -> f64,
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "CPU of a request, h1 1 KiB",
        unit: "µs",
        count: 20_000,
        run: |client, at, count| at.cost(count, || client.requests(at, count, false, "/page").end()),
    },
    Workload {
        name: "CPU of a request, h2 1 KiB",
        unit: "µs",
        count: 20_000,
        run: |client, at, count| at.cost(count, || client.requests(at, count, true, "/page").end()),
    },
    Workload {
        name: "request, p99",
        unit: "µs",
        count: RATE * 2,
        run: |client, at, count| p99(client.latencies(at, count, RATE)),
    },
    Workload { name: "request, p99, among logins", unit: "µs", count: RATE * 2, run: p99_among_logins },
    Workload {
        name: "logins, 64 at once",
        unit: "/s",
        count: 3_000,
        run: |client, at, count| f64::from(count) / client.logins(at, count, 64).as_secs_f64(),
    },
    Workload {
        name: "logins, one after another",
        unit: "/s",
        count: 300,
        run: |client, at, count| f64::from(count) / client.logins(at, count, 1).as_secs_f64(),
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds = arguments.first().map_or(5, |rounds| rounds.parse().expect("the number of rounds"));
    let wanted = arguments.get(1).map_or("", String::as_str);
    let part: u32 = arguments.get(2).map_or(1, |part| part.parse().expect("one in so many"));
    rounds::run_beside_the_servers();

    let directory = tempfile::tempdir().unwrap();
    let certificate = cert::make(directory.path(), &["bench.test".to_owned()]).unwrap();
    let setup = Setup::new(directory.path(), &certificate);
    let _application = setup.application();
    let redis = setup.redis();
    let stores = [
        setup.vestibule("memory", "memory:", ""),
        setup.vestibule("file", &format!("file:{}/sessions.redb", directory.path().display()), ""),
        setup.vestibule("redis", &format!("redis://127.0.0.1:{}", redis.port), ""),
    ];
    let client = Client::new(&certificate, directory.path());

    println!("{}; {}", servers::version("redis-server", "--version"), servers::version("uname", "-sr"));
    println!("{rounds} rounds; with memory, then ratios to it: median (least to most)\n");
    println!("{:<28} {:>11} {:>22} {:>22}", "", "memory", "file", "redis");
    for Workload { name, unit, count, run } in WORKLOADS.iter().filter(|workload| workload.name.contains(wanted)) {
        let (memory, ratios) = rounds::compare(&stores, rounds, |store| run(&client, store, (count / part).max(100)));
        print!("{name:<28} {:>11}", format!("{memory:.0} {unit}"));
        ratios.iter().for_each(|ratio| print!(" {:>22}", ratio.text()));
        println!();
    }
}

/// While a hundred others a second at most log in, one after the other.
fn p99_among_logins(client: &Client, server: &Server, count: u32) -> f64 {
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| client.latencies(server, count, RATE));
        while !measured.is_finished() {
            client.session(server);
            std::thread::sleep(Duration::from_millis(10));
        }
        p99(measured.join().unwrap())
    })
}

fn p99(mut took: Vec<u64>) -> f64 {
    took.sort_unstable();
    took[(took.len() - 1) * 99 / 100] as f64
}
