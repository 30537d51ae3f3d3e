//! CPU per request against nginx, which forwards to the same application without asking who comes.
//!
//! The servers run on the first core, one worker each; the load and the application on the second.
//! Rounds are interleaved, so that whatever else the machine does meets both alike. What is compared is
//! processor time (all threads, from the scheduler's own count), not throughput. Both speak TLS 1.3 with
//! the same ECDSA P-256 certificate and X25519, both keep connections to the application.
//!
//! Below that, by the same means, what the rotation of IDs and the binding to clients cost: Vestibule with
//! them against Vestibule without.
//!
//! `make bench`, or `cargo bench --bench nginx -- [ROUNDS] [WORKLOAD]`.

#![allow(unreachable_pub)] // A benchmark has no public interface.
#![allow(clippy::unwrap_used, clippy::expect_used)] // A panic is how it fails.

mod load;
mod servers;

use std::process::Command;

use load::Client;
use load::Resume;
use servers::Server;
use servers::Setup;
use vestibule::cert;

/// What is asked of both servers.
struct Workload {
    name: &'static str,
    /// Requests or connections of one turn.
    count: u32,
    logged: bool,
    run: fn(&Client, &Server, u32),
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "h1 1 KiB",
        count: 30_000,
        logged: true,
        run: |client, at, count| client.requests(at, count, false),
    },
    Workload {
        name: "h2 1 KiB",
        count: 40_000,
        logged: true,
        run: |client, at, count| client.requests(at, count, true),
    },
    Workload {
        name: "h1 1 KiB, no access log",
        count: 30_000,
        logged: false,
        run: |client, at, count| client.requests(at, count, false),
    },
    Workload {
        name: "h2 1 KiB, no access log",
        count: 40_000,
        logged: false,
        run: |client, at, count| client.requests(at, count, true),
    },
    Workload {
        name: "TLS handshake, full",
        count: 1_500,
        logged: true,
        run: |client, at, count| client.handshakes(at, count, Resume::Never),
    },
    Workload {
        name: "TLS handshake, resumed",
        count: 2_500,
        logged: true,
        run: |client, at, count| client.handshakes(at, count, Resume::Always),
    },
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let rounds = arguments.first().map_or(7, |rounds| rounds.parse().expect("the number of rounds"));
    let wanted = arguments.get(1).map_or("", String::as_str);
    run_beside_the_servers();

    let directory = tempfile::tempdir().unwrap();
    let certificate = cert::make(directory.path(), &["bench.test".to_owned()]).unwrap();
    let setup = Setup::new(directory.path(), &certificate);
    let _application = setup.application();
    let pairs = [true, false].map(|logged| (logged, setup.nginx(logged), setup.vestibule(logged, "")));
    let client = Client::new(&certificate);

    println!("{}", servers::versions());
    println!("{rounds} rounds; ratio: CPU of vestibule / CPU of nginx, median (least to most)\n");
    println!("{:<26} {:>10} {:>10}   ratio", "", "nginx", "vestibule");
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(wanted)) {
        let (_, nginx, vestibule) = pairs.iter().find(|(logged, ..)| *logged == workload.logged).unwrap();
        compare(workload, &client, nginx, vestibule, rounds);
    }
    drop(pairs);

    // In the memory of one process other tables lie elsewhere, which costs more than what is compared: two
    // of each, started in turn.
    println!("\n{:<26} {:>10} {:>10}   ratio", "chains and binding", "off", "on");
    let off = "[session]\nrotate_every = 'off'\nbind = 'off'";
    let workloads = WORKLOADS.iter().filter(|workload| !workload.logged && workload.name.contains(wanted));
    for workload in workloads {
        for _ in 0..2 {
            let (without, with) = (setup.vestibule(false, off), setup.vestibule(false, ""));
            compare(workload, &client, &without, &with, rounds);
        }
    }
}

/// Rounds in which each server has its turn, the first one changing, after one that does not count.
fn compare(workload: &Workload, client: &Client, nginx: &Server, vestibule: &Server, rounds: usize) {
    let turn = |server: &Server| {
        let before = server.cpu();
        (workload.run)(client, server, workload.count);
        (server.cpu() - before).as_secs_f64() * 1e6 / f64::from(workload.count)
    };
    let mut costs = Vec::new();
    for round in 0..=rounds {
        let costs_of = |first: &Server, second: &Server| (turn(first), turn(second));
        let (theirs, ours) = if round % 2 == 0 {
            costs_of(nginx, vestibule)
        } else {
            let (ours, theirs) = costs_of(vestibule, nginx);
            (theirs, ours)
        };
        if round > 0 {
            costs.push((theirs, ours));
        }
    }
    let mut ratios: Vec<f64> = costs.iter().map(|(theirs, ours)| ours / theirs).collect();
    let theirs = median(&mut costs.iter().map(|(theirs, _)| *theirs).collect::<Vec<_>>());
    let ours = median(&mut costs.iter().map(|(_, ours)| *ours).collect::<Vec<_>>());
    let ratio = median(&mut ratios);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let name = workload.name;
    println!("{name:<26} {theirs:>7.1} µs {ours:>7.1} µs   {ratio:.2} ({least:.2} to {most:.2})");
}

/// Sorts them, too.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Everything but the servers stays off their core.
fn run_beside_the_servers() {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-cp", "1", &own]).output().expect("taskset, of util-linux");
    assert!(moved.status.success(), "two cores are needed: {}", String::from_utf8_lossy(&moved.stderr));
}
