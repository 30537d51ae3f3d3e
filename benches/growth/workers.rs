//! More than one core: what requests cost and how many there are with more workers, and how connections that
//! stay are spread among them. Neither servers nor load are bound to a core: all share what there is.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use crate::clients;
use crate::load::Client;
use crate::load::Resume;
use crate::process::Server;
use crate::rounds;
use crate::servers::Setup;

const ROUNDS: usize = 5;
/// How often so many connections are opened.
const TIMES: usize = 40;

/// What is asked of them.
struct Workload {
    name: &'static str,
    count: u32,
    run: fn(&Client, &Server, u32),
}

const WORKLOADS: &[Workload] = &[
    Workload {
        name: "h1 1 KiB",
        count: 15_000,
        run: |client, at, count| client.requests(at, count, false, "/page").end(),
    },
    Workload {
        name: "h2 1 KiB",
        count: 15_000,
        run: |client, at, count| client.requests(at, count, true, "/page").end(),
    },
    // What the load has least to do for.
    Workload { name: "logins", count: 4_000, run: logins },
    Workload { name: "TLS resumed", count: 3_000, run: handshakes },
];

fn logins(client: &Client, at: &Server, count: u32) {
    client.logins(at, count, 32);
}

/// From several clients at once, so that both workers have something to do.
fn handshakes(client: &Client, at: &Server, count: u32) {
    const AT_ONCE: u32 = 8;
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| client.handshakes(at, count / AT_ONCE, Resume::Always));
        }
    });
}

/// CPU of a request or connection, and how many there are in a second, with one worker and with two.
pub fn throughput(client: &Client, mut setup: Setup<'_>) {
    let _application = setup.application();
    setup.cores = "0,1";
    let servers = [1, 2].map(|workers| {
        setup.workers = workers;
        setup.vestibule(if workers == 1 { "1 worker" } else { "2 workers" }, "memory:", "")
    });
    println!("with 2 workers as a ratio to 1, on 2 cores with the load: median (least to most)");
    println!("{:<12} {:>10} {:>22} {:>22}", "", "1 worker", "CPU", "in a second");
    for Workload { name, count, run } in WORKLOADS {
        let rates = RefCell::new(VecDeque::new());
        let (one, cpu) = rounds::compare(&servers, ROUNDS, |at| {
            let begun = Instant::now();
            let cost = at.cost(*count, || run(client, at, *count));
            rates.borrow_mut().push_back(f64::from(*count) / begun.elapsed().as_secs_f64());
            cost
        });
        // Seen in the same rounds.
        let (_, rate) = rounds::compare(&servers, ROUNDS, |_| rates.borrow_mut().pop_front().unwrap());
        println!("{name:<12} {one:>7.1} µs {:>22} {:>22}", cpu[0].text(), rate[0].text());
    }
    println!();
}

/// How many connections the busier of two workers has.
pub fn spread(client: &Client, mut setup: Setup<'_>) {
    setup.cores = "0,1";
    setup.workers = 2;
    let server = setup.vestibule("vestibule", "memory:", "");
    println!("connections that stay, 2 workers, {TIMES} times: part of the busier worker");
    println!("{:<12} {:>9} {:>9} {:>16}", "connections", "median", "most", "more than 70 %");
    let before = at_rest(&server);
    for count in [8, 16, 64] {
        let mut parts: Vec<f64> = (0..TIMES).map(|_| part(client, &server, &before, count)).collect();
        parts.sort_by(f64::total_cmp);
        let (median, most) = (parts[TIMES / 2] * 100.0, parts[TIMES - 1] * 100.0);
        let uneven = parts.iter().filter(|part| **part > 0.7).count() as f64 / TIMES as f64 * 100.0;
        println!("{count:<12} {median:>7.0} % {most:>7.0} % {uneven:>14.0} %");
    }
    println!();
}

/// What each worker watches while nobody is there. Whoever saw that the server has started may not have left yet.
fn at_rest(server: &Server) -> Vec<usize> {
    let mut before = server.watched();
    loop {
        std::thread::sleep(Duration::from_millis(200));
        let now = server.watched();
        if now == before {
            return now;
        }
        before = now;
    }
}

fn part(client: &Client, server: &Server, before: &[usize], count: usize) -> f64 {
    let held = clients::handshaken(client, server, count);
    let served: Vec<usize> = server.watched().iter().zip(before).map(|(now, before)| now - before).collect();
    assert_eq!(served.iter().sum::<usize>(), count, "{served:?}");
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.watched() != before {
        assert!(Instant::now() < deadline, "connections are kept");
        std::thread::sleep(Duration::from_millis(5));
    }
    *served.iter().max().unwrap() as f64 / count as f64
}
