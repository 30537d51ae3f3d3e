//! What a server has in memory while connections are open, and after they are gone.

use std::io::Read;
use std::time::Duration;
use std::time::Instant;

use crate::clients;
use crate::load::Client;
use crate::load::Held;
use crate::process::Server;

const KIB: f64 = 1024.0;
const MIB: f64 = 1024.0 * 1024.0;

/// How often a slow client reads, and how much.
const EVERY: Duration = Duration::from_millis(250);
const READ: usize = 1024;

/// Idle TLS connections on each of which a page was asked for.
pub fn idle(client: &Client, servers: &[Server; 2], most: usize) {
    println!("idle connections: KiB of each");
    let open = |server: &Server, count: usize| client.idle(server, u32::try_from(count).unwrap());
    curve(servers, &[100, 1_000, 5_000, 10_000], most, open);
}

/// WebSockets over which something has been said.
pub fn websockets(client: &Client, servers: &[Server; 2], most: usize) {
    println!("open WebSockets: KiB of each, both sides");
    curve(servers, &[100, 1_000, 10_000], most, |server, count| clients::websockets(client, server, count));
}

fn curve(servers: &[Server], steps: &[usize], most: usize, open: impl Fn(&Server, usize) -> Vec<Held>) {
    let mut steps: Vec<usize> = steps.iter().map(|step| *step.min(&most)).collect();
    steps.dedup();
    print!("{:<12}", "");
    steps.iter().for_each(|step| print!(" {step:>9}"));
    println!(" {:>9} {:>24} {:>12}", "again", "kept when all have left", "the 2nd time");
    for server in servers {
        // The first pages, and what is set up once.
        drop(open(server, 10));
        let (before, descriptors) = (server.memory(), server.descriptors());
        print!("{:<12}", server.name);
        let mut kept = Vec::new();
        for wave in [&steps[..], &steps[steps.len() - 1..]] {
            let mut held = Vec::new();
            for step in wave {
                held.extend(open(server, step - held.len()));
                print!(" {:>9.1}", since(before, server) / KIB / *step as f64);
            }
            drop(held);
            wait_for(server, descriptors);
            kept.push(since(before, server) / MIB);
        }
        println!(" {:>20.1} MiB {:>8.1} MiB", kept[0], kept[1]);
    }
    println!();
}

/// Clients that read 100 MiB slowly.
pub fn slow(client: &Client, servers: &[Server; 2]) {
    let moments = [0, 5, 10, 15].map(Duration::from_secs);
    let rate = READ as f64 / KIB / EVERY.as_secs_f64();
    println!("slow readers of a file of 100 MiB, {rate:.0} KiB/s each: KiB of each after so long");
    print!("{:<12} {:>8}", "", "readers");
    moments.iter().for_each(|moment| print!(" {:>9}", format!("{} s", moment.as_secs())));
    println!(" {:>24}", "kept when all have left");
    for server in servers {
        drop(clients::readers(client, server, 1));
        for count in [1, 10, 100] {
            let (before, descriptors) = (server.memory(), server.descriptors());
            let mut held = clients::readers(client, server, count);
            print!("{:<12} {count:>8}", server.name);
            let begun = Instant::now();
            for moment in moments {
                while begun.elapsed() < moment {
                    held.iter_mut().for_each(|stream| stream.read_exact(&mut [0; READ]).unwrap());
                    std::thread::sleep(EVERY);
                }
                print!(" {:>9.1}", since(before, server) / KIB / count as f64);
            }
            drop(held);
            wait_for(server, descriptors);
            println!(" {:>20.1} MiB", since(before, server) / MIB);
        }
    }
    println!();
}

fn since(before: u64, server: &Server) -> f64 {
    server.memory() as f64 - before as f64
}

/// Until the server has noticed that its clients have left. It may keep a connection to the application.
fn wait_for(server: &Server, descriptors: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while server.descriptors() > descriptors + 1 {
        assert!(Instant::now() < deadline, "{} keeps connections", server.name);
        std::thread::sleep(Duration::from_millis(50));
    }
}
