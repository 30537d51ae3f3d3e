//! How long requests take that come at half load, and what holds them up.
//!
//! What is asked of all servers is the same: a kilobyte at random times (Poisson, with a fixed seed), at half of
//! the rate at which these clients saturate the slowest of them. Time is counted from the moment at which a request was
//! due, not from when it was sent, so that what waits behind a slow answer counts as well (no coordinated
//! omission). Half load on a machine of one's own says more about a proxy than saturation: at saturation it
//! is the queue that is measured.
//!
//! The servers run on the first core, one worker each; the client and the application on the second. The client
//! (`visitors`) says how late it was itself. Its own work and that of the application are in all figures, and
//! so is the waiting of either for the other.
//!
//! Then Vestibule alone, at the same rate, while something happens, beside the same without it:
//!
//! - a sweep of ten million sessions in memory, which a process of this benchmark with the same parts has
//!   (`crowded`). All its threads share the first core, which is as bad as it gets;
//! - reloads (SIGHUP), four a second;
//! - a change of the certificate files, which is noticed by itself;
//! - a restart of the Redis that has the sessions: what is waited for, and what is refused.
//!
//! `make bench`, or `cargo bench --bench latency -- [ROUNDS] [PART] [RATE]`: of the parts `h1`, `h2`, and those of the
//! second table, those whose name has this in it; the rate instead of half load, in requests a second. Each
//! disturbance has half as many rounds.

#![allow(unreachable_pub)] // A benchmark has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

mod crowded;
mod disturbances;
mod http1;
mod http2;
#[path = "../peers/load.rs"]
#[allow(dead_code)] // What the other benchmarks need.
mod load;
#[path = "../peers/process.rs"]
#[allow(dead_code)]
mod process;
#[path = "../peers/rounds.rs"]
#[allow(dead_code)]
mod rounds;
mod schedule;
#[path = "../peers/servers.rs"]
#[allow(dead_code)]
mod servers;
mod summary;
mod visitors;

use std::path::Path;
use std::time::Duration;

use disturbances::DISTURBANCES;
use disturbances::Stage;
use load::Client;
use process::Server;
use servers::Setup;
use summary::Summary;
use vestibule::cert;
use visitors::Protocol;

/// Of one turn.
const LASTS: Duration = Duration::from_secs(2);
/// Requests that show how many a second are saturation, all due at once.
const SATURATING: usize = 20_000;
const PROTOCOLS: [(&str, Protocol); 2] = [("h1 1 KiB", Protocol::Http1), ("h2 1 KiB", Protocol::Http2)];
const PEERS: &str = "vestibule,auth_request,haproxy";

/// Reads one of the times.
type Part = (&'static str, fn(&Summary) -> f64);

/// What of the times is shown.
const PARTS: [Part; 3] = [("p50", |times| times.p50), ("p99", |times| times.p99), ("p99.9", |times| times.p999)];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let [command, count, config] = &arguments[..]
        && command == crowded::COMMAND
    {
        return crowded::serve(count.parse().unwrap(), Path::new(config));
    }
    let rounds: usize = arguments.first().map_or(5, |rounds| rounds.parse().expect("the number of rounds"));
    let wanted = arguments.get(1).map_or("", String::as_str);
    let rate: Option<u32> = arguments.get(2).map(|rate| rate.parse().expect("requests a second"));
    rounds::run_beside_the_servers();
    let _as_many_as_may_be = rlimit::increase_nofile_limit(u64::MAX);
    // Sleeping ends when it should. Where that cannot be had the client is late, and says so.
    let _to_a_nanosecond = std::fs::write("/proc/self/timerslack_ns", "1");

    let directory = tempfile::tempdir().unwrap();
    let certificate = cert::make(directory.path(), &["bench.test".to_owned()]).unwrap();
    let setup = Setup::new(directory.path(), &certificate);
    let _application = setup.application();
    let client = Client::new(&certificate, directory.path());
    let rate = compare(&setup, &client, rounds, wanted, rate);
    let stage = Stage { setup: &setup, client: &client, directory: directory.path(), rate, rounds: rounds.div_ceil(2) };
    disturb(&stage, wanted);
}

/// The servers beside each other; returns the rate.
fn compare(setup: &Setup<'_>, client: &Client, rounds: usize, wanted: &str, rate: Option<u32>) -> u32 {
    let protocols = PROTOCOLS.into_iter().filter(|(name, _)| name.contains(wanted));
    if let (Some(rate), None) = (rate, protocols.clone().next()) {
        return rate;
    }
    let servers = setup.servers(Some(PEERS));
    println!("{}", servers::versions());
    let rate = rate.unwrap_or_else(|| half_load(client, &servers));
    let due = schedule::arrivals(rate, LASTS);
    println!("\n{rate} requests a second at random times; {rounds} rounds of {} s", LASTS.as_secs());
    println!("nginx in µs, then ratios to it: median (least to most); late: the client itself, p99, in µs\n");
    print!("{:<15} {:>9}", "", servers[0].name);
    servers[1..].iter().for_each(|server| print!(" {:>22}", server.name));
    println!();
    for (name, protocol) in protocols {
        let turn = |server: &Server| Summary::of(visitors::visit(client, server, protocol, &due, |_| ()).0.iter());
        let results = rounds::interleave(&servers, rounds, turn);
        assert!(results.iter().flatten().all(|times| times.failed == 0), "{name}: other answers than the page");
        for (part, of) in PARTS {
            let times: Vec<Vec<f64>> = results.iter().map(|round| round.iter().map(of).collect()).collect();
            let (nginx, ratios) = rounds::ratios(&times);
            print!("{:<15} {nginx:>6.0} µs", format!("{name}, {part}"));
            ratios.iter().for_each(|ratio| print!(" {:>22}", ratio.text()));
            println!();
        }
        let late =
            |server: usize| rounds::median(&mut results.iter().map(|round| round[server].late).collect::<Vec<_>>());
        print!("{:<15} {:>6.0} µs", format!("{name}, late"), late(0));
        (1..servers.len()).for_each(|server| print!(" {:>19.0} µs", late(server)));
        println!();
    }
    rate
}

/// Half of what the slowest can, asked by the same clients: they and the application have a core to share, and are
/// at an end sooner than a proxy that has one of its own.
fn half_load(client: &Client, servers: &[Server]) -> u32 {
    let mut slowest = f64::INFINITY;
    for (name, protocol) in PROTOCOLS {
        for server in servers {
            let (samples, ()) = visitors::visit(client, server, protocol, &[Duration::ZERO; SATURATING], |_| ());
            assert!(samples.iter().all(|sample| sample.status == 200), "{name}: other answers than the page");
            let took = samples.iter().map(|sample| sample.took).max().unwrap_or_default();
            let rate = SATURATING as f64 / took.as_secs_f64();
            println!("saturated, {name}: {:<12} {rate:>6.0} requests a second", server.name);
            slowest = slowest.min(rate);
        }
    }
    (slowest / 200.0) as u32 * 100
}

/// Vestibule alone, while something happens.
fn disturb(stage: &Stage<'_>, wanted: &str) {
    println!(
        "\nVestibule, h1 1 KiB, {} requests a second, in µs: medians of {} rounds, and the slowest of all",
        stage.rate, stage.rounds
    );
    println!("late: the client itself, p99; other: answers that were not the page, in the worst round\n");
    println!("{:<38} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "p50", "p99", "p99.9", "slowest", "late", "other");
    for (name, run) in DISTURBANCES.into_iter().filter(|(name, _)| name.contains(wanted)) {
        let pair = run(stage);
        for (kind, times) in [("without", pair.without), ("with", pair.with)] {
            let Summary { p50, p99, p999, most, late, failed, .. } = times;
            let name = format!("{name}, {kind}");
            println!("{name:<38} {p50:>8.0} {p99:>8.0} {p999:>8.0} {most:>8.0} {late:>8.0} {failed:>8}");
        }
        if !pair.remark.is_empty() {
            println!("  {}", pair.remark);
        }
    }
}
