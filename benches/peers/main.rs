//! CPU per request against what an operator would run instead: nginx, which forwards without asking who
//! comes; nginx with `auth_request` and caddy with `forward_auth`, which ask the application for every
//! request; haproxy, which asks nobody.
//!
//! The servers run on the first core, one worker each; the load and the application on the second.
//! Rounds are interleaved, so that whatever else the machine does meets all alike. What is compared is
//! processor time (all threads, from the scheduler's own count), not throughput. All speak TLS 1.3 with the
//! same ECDSA P-256 certificate and X25519, keep connections to the application, and log each request to a
//! file.
//!
//! Below that, by the same means, what the rotation of IDs and the binding to clients cost: Vestibule with
//! them against Vestibule without.
//!
//! `make bench`, or `cargo bench --bench peers -- [ROUNDS] [WORKLOAD] [PEER,...]`. A run of everything also
//! writes the chart `docs/performance.svg`.

#![allow(unreachable_pub)] // A benchmark has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

mod chart;
#[allow(dead_code)] // What the other benchmark needs.
mod load;
#[allow(dead_code)]
mod process;
mod rounds;
#[allow(dead_code)]
mod servers;

use load::Client;
use load::Resume;
use process::Server;
use rounds::Ratio;
use servers::Setup;
use vestibule::cert;

/// What is asked of all servers.
struct Workload {
    name: &'static str,
    /// Requests or connections of one turn.
    count: u32,
    run: fn(&Client, &Server, u32),
}

const WORKLOADS: &[Workload] = &[
    Workload { name: "h1 1 KiB", count: 20_000, run: |client, at, count| client.requests(at, count, false, "/page") },
    Workload { name: "h2 1 KiB", count: 30_000, run: |client, at, count| client.requests(at, count, true, "/page") },
    Workload { name: "TLS full", count: 1_500, run: |client, at, count| client.handshakes(at, count, Resume::Never) },
    Workload {
        name: "TLS resumed",
        count: 2_000,
        run: |client, at, count| client.handshakes(at, count, Resume::Always),
    },
    Workload {
        name: "h1 64 KiB",
        count: 5_000,
        run: |client, at, count| client.requests(at, count, false, "/big/64k"),
    },
    Workload { name: "h2 64 KiB", count: 5_000, run: |client, at, count| client.requests(at, count, true, "/big/64k") },
    Workload { name: "h1 1 MiB", count: 500, run: |client, at, count| client.requests(at, count, false, "/big/1m") },
    Workload { name: "h2 1 MiB", count: 500, run: |client, at, count| client.requests(at, count, true, "/big/1m") },
    Workload { name: "h1 1 MiB up", count: 300, run: |client, at, count| client.uploads(at, count, false) },
    Workload { name: "h2 1 MiB up", count: 300, run: |client, at, count| client.uploads(at, count, true) },
];

/// What one workload cost each server, as ratios to nginx.
struct Row {
    name: &'static str,
    /// Microseconds of nginx.
    base: f64,
    ratios: Vec<Ratio>,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds: usize = arguments.first().map_or(5, |rounds| rounds.parse().expect("the number of rounds"));
    let wanted = arguments.get(1).map_or("", String::as_str);
    let peers = arguments.get(2).map(String::as_str);
    rounds::run_beside_the_servers();

    let directory = tempfile::tempdir().unwrap();
    let certificate = cert::make(directory.path(), &["bench.test".to_owned()]).unwrap();
    let setup = Setup::new(directory.path(), &certificate);
    let _application = setup.application();
    let servers = setup.servers(peers);
    let client = Client::new(&certificate, directory.path());

    println!("{}", servers::versions());
    println!("{rounds} rounds; CPU of nginx in µs, then ratios to it: median (least to most)\n");
    print!("{:<12} {:>9}", "", servers[0].name);
    servers[1..].iter().for_each(|server| print!(" {:>22}", server.name));
    println!();
    let mut rows = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(wanted)) {
        let row = compare(workload, &client, &servers, rounds);
        print!("{:<12} {:>6.1} µs", row.name, row.base);
        row.ratios.iter().for_each(|ratio| print!(" {:>22}", ratio.text()));
        println!();
        rows.push(row);
    }
    print!("{:<12} {:>5.1} KiB", "idle, each", idle(&client, &servers[0]));
    servers[1..].iter().for_each(|server| print!(" {:>18.1} KiB", idle(&client, server)));
    println!();
    if wanted.is_empty() && peers.is_none() {
        let names: Vec<&str> = servers[1..].iter().map(|server| server.name).collect();
        chart::write(&names, &rows, &servers::versions());
    }
    drop(servers);
    if wanted.is_empty() {
        chains_and_binding(&setup, &client, rounds);
    }
}

/// Pairs of processes that are compared.
const PAIRS: usize = 16;

/// In the memory of one process other tables lie elsewhere, which costs more than what is compared: many pairs of
/// processes, whichever is started first. The median of the pairs, and between what the middle half of them lies.
fn chains_and_binding(setup: &Setup<'_>, client: &Client, rounds: usize) {
    println!("\nchains and binding: CPU with them on, as a ratio to off; {PAIRS} pairs, in brackets their middle half");
    for workload in WORKLOADS.iter().filter(|workload| workload.name.ends_with(" 1 KiB")) {
        let on = || setup.vestibule("vestibule", "memory:", "");
        let off = || setup.vestibule("vestibule", "memory:", "[session]\nrotate_every = 'off'\nbind = 'off'");
        let pair = |pair: usize| {
            let mut servers = if pair.is_multiple_of(2) { [off(), on()] } else { [on(), off()] };
            servers.rotate_left(pair % 2);
            compare(workload, client, &servers, rounds).ratios[0].median
        };
        let mut ratios: Vec<f64> = (0..PAIRS).map(pair).collect();
        let median = rounds::median(&mut ratios);
        println!("{:<12} {median:.3} ({:.3} to {:.3})", workload.name, ratios[PAIRS / 4], ratios[PAIRS * 3 / 4]);
    }
}

fn compare(workload: &Workload, client: &Client, servers: &[Server], rounds: usize) -> Row {
    let (base, ratios) = rounds::compare(servers, rounds, |server| {
        let count = (workload.count / server.slowness).max(100);
        server.cost(count, || (workload.run)(client, server, count))
    });
    Row { name: workload.name, base, ratios }
}

/// KiB of a connection on which a request was answered and nothing happens.
fn idle(client: &Client, server: &Server) -> f64 {
    let count = 1_000;
    let before = server.memory();
    let held = client.idle(server, count);
    let after = server.memory();
    drop(held);
    (after.saturating_sub(before)) as f64 / 1024.0 / f64::from(count)
}
