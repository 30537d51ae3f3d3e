//! CPU per request against what an operator would run instead: nginx, which forwards without asking who
//! comes; nginx with `auth_request` and caddy with `forward_auth`, which ask the application for every
//! request; haproxy, which asks nobody.
//!
//! The servers run on the first core, one worker each; the load and the application on the second.
//! In each round they have turns of a tenth of a second, so that whatever else the machine does meets all
//! alike. What is compared is processor time (all threads, from the scheduler's own count), not throughput. All
//! speak TLS 1.3 with the same ECDSA P-256 certificate and X25519, keep connections to the application, and log
//! each request to a file.
//!
//! Below that, what the rotation of IDs and the binding to clients cost: Vestibule with them against Vestibule
//! without.
//!
//! `make bench`, or `cargo bench --bench peers -- [ROUNDS] [WORKLOAD] [PEER,...]`; the workload `chains` is that
//! comparison. A run of everything also writes the chart `docs/performance.svg`. `VESTIBULE=FILE` compares that
//! program; what cargo has built then is one more peer.

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
mod turns;

use Work::Browse;
use Work::Get;
use Work::Handshakes;
use Work::Upload;
use load::Client;
use load::Load;
use load::Resume;
use process::Server;
use rounds::Ratio;
use servers::Setup;
use vestibule::cert;

/// What is asked of all servers.
struct Workload {
    name: &'static str,
    /// The most that Vestibule may cost, and what it is to cost, as ratios to nginx, if there are such goals.
    goals: Option<Goals>,
    /// Requests or connections of one turn.
    count: u32,
    work: Work,
}

/// How it is asked; whether over HTTP/2. To browse is to ask for a page of 1 KiB with the fields and cookies of a
/// browser.
#[derive(Clone, Copy)]
enum Work {
    Get(bool, &'static str),
    Browse(bool),
    Upload(bool),
    Handshakes(Resume),
}

const H1: bool = false;
const H2: bool = true;

#[derive(Clone, Copy)]
struct Goals {
    must: f64,
    aim: f64,
}

const fn goals(must: f64, aim: f64) -> Option<Goals> {
    Some(Goals { must, aim })
}

const fn workload(name: &'static str, goals: Option<Goals>, count: u32, work: Work) -> Workload {
    Workload { name, goals, count, work }
}

/// KiB of memory.
const IDLE: Goals = Goals { must: 24.0, aim: 16.0 };

const WORKLOADS: &[Workload] = &[
    workload("h1 1 KiB", goals(0.85, 0.7), 20_000, Get(H1, "/page")),
    workload("h2 1 KiB", goals(0.85, 0.6), 30_000, Get(H2, "/page")),
    workload("h1 browser", None, 15_000, Browse(H1)),
    workload("h2 browser", None, 20_000, Browse(H2)),
    workload("TLS full", goals(0.7, 0.55), 1_500, Handshakes(Resume::Never)),
    workload("TLS resumed", goals(0.65, 0.5), 2_000, Handshakes(Resume::Always)),
    workload("h1 64 KiB", goals(0.75, 0.6), 5_000, Get(H1, "/big/64k")),
    workload("h2 64 KiB", goals(0.75, 0.6), 5_000, Get(H2, "/big/64k")),
    workload("h1 1 MiB", goals(1.0, 0.85), 500, Get(H1, "/big/1m")),
    workload("h2 1 MiB", goals(0.9, 0.7), 500, Get(H2, "/big/1m")),
    workload("h1 1 MiB up", goals(0.9, 0.78), 300, Upload(H1)),
    workload("h2 1 MiB up", goals(0.9, 0.78), 300, Upload(H2)),
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
    let client = Client::new(&certificate, directory.path());
    println!("{}", servers::versions());
    if wanted != CHAINS {
        compare_peers(&setup, &client, rounds, wanted, peers);
    }
    if wanted == CHAINS || wanted.is_empty() && peers.is_none() {
        chains_and_binding(&setup, &client);
    }
}

/// What the comparison of Vestibule with itself is called.
const CHAINS: &str = "chains";

fn compare_peers(setup: &Setup<'_>, client: &Client, rounds: usize, wanted: &str, peers: Option<&str>) {
    let servers = setup.servers(peers);
    println!("{rounds} rounds; CPU of nginx in µs, then ratios to it: median (least to most)\n");
    print!("{:<12} {:>9}", "", servers[0].name);
    servers[1..].iter().for_each(|server| print!(" {:>22}", server.name));
    println!("   must  aim");
    let mut rows = Vec::new();
    let mut results = Vec::new();
    for workload in WORKLOADS.iter().filter(|workload| workload.name.contains(wanted)) {
        let row = compare(workload, client, &servers, rounds);
        print!("{:<12} {:>6.1} µs", row.name, row.base);
        row.ratios.iter().for_each(|ratio| print!(" {:>22}", ratio.text()));
        match workload.goals {
            Some(goals) => println!("   {:.2} {:.2}", goals.must, goals.aim),
            None => println!(),
        }
        results.extend(row.ratios.first().map(|ratio| ratio.median).zip(workload.goals));
        rows.push(row);
    }
    // Memory that was in use before would not be counted.
    drop(servers);
    let servers = setup.servers(peers);
    print!("{:<12} {:>5.1} KiB", "idle, each", idle(client, &servers[0]));
    let idle: Vec<f64> = servers[1..].iter().map(|server| idle(client, server)).collect();
    idle.iter().for_each(|idle| print!(" {idle:>18.1} KiB"));
    println!("   {:.0}   {:.0}", IDLE.must, IDLE.aim);
    results.extend(idle.first().map(|idle| (*idle, IDLE)));
    let met = |goal: fn(&Goals) -> f64| results.iter().filter(|(result, goals)| *result <= goal(goals)).count();
    let (musts, aims) = (met(|goals| goals.must), met(|goals| goals.aim));
    println!("\n{}: of {} musts {musts} are met, of the aims {aims}", servers[1].name, results.len());
    if wanted.is_empty() && peers.is_none() {
        let names: Vec<&str> = servers[1..].iter().map(|server| server.name).collect();
        chart::write(&names, &rows, &servers::versions());
    }
}

/// Processes, and how often each has both turns.
const PROCESSES: usize = 4;
const TURNS: usize = 16;

/// Between two processes more differs than what is compared, since their memory lies elsewhere: one process has both
/// settings in turn. The median of all turns, and between what the middle half of them lies.
fn chains_and_binding(setup: &Setup<'_>, client: &Client) {
    let all = PROCESSES * TURNS;
    println!("\nchains and binding: CPU with them on, as ratios to off; {all} pairs, in brackets their middle half");
    for (name, http2) in [("h1 1 KiB", H1), ("h2 1 KiB", H2)] {
        let count = 10_000;
        let mut ratios = Vec::new();
        for _ in 0..PROCESSES {
            let server = setup.vestibule("vestibule", "memory:", "");
            let cost = |is_on: bool| {
                let session = if is_on { "" } else { "[session]\nrotate_every = 'off'\nbind = 'off'" };
                setup.settle(&server, "memory:", session);
                server.cost(count, || client.requests(&server, count, http2, "/page").end())
            };
            cost(true);
            for turn in 0..TURNS {
                // Whichever is the first.
                let first = cost(turn % 2 == 0);
                let second = cost(turn % 2 == 1);
                ratios.push(if turn % 2 == 0 { first / second } else { second / first });
            }
        }
        let median = rounds::median(&mut ratios);
        println!("{name:<12} {median:.3} ({:.3} to {:.3})", ratios[all / 4], ratios[all * 3 / 4]);
    }
}

fn compare(workload: &Workload, client: &Client, servers: &[Server], rounds: usize) -> Row {
    let count = |server: &Server| (workload.count / server.slowness).max(100);
    let requests = |start: &dyn Fn(&Server, u32) -> Load| {
        turns::compare(servers, rounds, |server| (start(server, count(server)), count(server)))
    };
    let (base, ratios) = match workload.work {
        Get(http2, path) => requests(&|server, count| client.requests(server, count, http2, path)),
        Browse(http2) => requests(&|server, count| client.pages(server, count, http2, "/page")),
        Upload(http2) => requests(&|server, count| client.uploads(server, count, http2)),
        Handshakes(resume) => rounds::compare(servers, rounds, |server| {
            server.cost(count(server), || client.handshakes(server, count(server), resume))
        }),
    };
    Row { name: workload.name, base, ratios }
}

/// KiB of a connection on which a request was answered and nothing happens.
fn idle(client: &Client, server: &Server) -> f64 {
    let count = 1_000;
    // What is set up once.
    drop(client.idle(server, 10));
    let before = server.memory();
    let held = client.idle(server, count);
    let after = server.memory();
    drop(held);
    (after as f64 - before as f64) / 1024.0 / f64::from(count)
}
