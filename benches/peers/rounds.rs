//! How servers are compared.

use std::process::Command;
use std::time::Duration;

use crate::load::Load;
use crate::process::Server;

/// How long one server is asked before it is the next one's turn. What neighbours of the machine do lasts longer, and
/// so meets all alike.
const TURN: Duration = Duration::from_millis(100);

/// How a server's results are to those of the first one: the median over all rounds, and how far they lay apart.
pub struct Ratio {
    pub median: f64,
    pub least: f64,
    pub most: f64,
}

impl Ratio {
    /// As the tables show it.
    pub fn text(&self) -> String {
        let Self { median, least, most } = self;
        format!("{median:.2} ({least:.2} to {most:.2})")
    }
}

/// The median of the first server, and the ratios of the others to it.
pub fn compare(servers: &[Server], rounds: usize, turn: impl Fn(&Server) -> f64) -> (f64, Vec<Ratio>) {
    ratios(&interleave(servers, rounds, turn))
}

/// The same of what a request of a load costs; `start` tells how many a load has. In each round the loads of all
/// servers have their turns until they are over, one at a time.
pub fn compare_loads(servers: &[Server], rounds: usize, start: impl Fn(&Server) -> (Load, u32)) -> (f64, Vec<Ratio>) {
    by_turns(servers, &start);
    let results: Vec<_> = (0..rounds).map(|_| by_turns(servers, &start)).collect();
    ratios(&results)
}

fn by_turns(servers: &[Server], start: &impl Fn(&Server) -> (Load, u32)) -> Vec<f64> {
    let before: Vec<Duration> = servers.iter().map(Server::cpu).collect();
    let begin = |server| {
        let (load, count) = start(server);
        load.pause();
        (load, count)
    };
    let mut loads: Vec<(Load, u32)> = servers.iter().map(begin).collect();
    let mut is_over = false;
    while !is_over {
        is_over = true;
        for (load, _) in &mut loads {
            if !load.is_over() {
                load.go_on();
                std::thread::sleep(TURN);
                is_over = false;
            }
            if !load.is_over() {
                load.pause();
            }
        }
    }
    let cost = |((server, before), (load, count)): ((&Server, Duration), (Load, u32))| {
        load.end();
        (server.cpu() - before).as_secs_f64() * 1e6 / f64::from(count)
    };
    servers.iter().zip(before).zip(loads).map(cost).collect()
}

/// Rounds in which each server has its turn, the first one changing, after one that does not count: for each
/// round the results in the order of the servers.
pub fn interleave<T>(servers: &[Server], rounds: usize, turn: impl Fn(&Server) -> T) -> Vec<Vec<T>> {
    let run = |round: usize| {
        let mut results: Vec<T> =
            (0..servers.len()).map(|place| turn(&servers[(place + round) % servers.len()])).collect();
        results.rotate_right(round % servers.len());
        results
    };
    run(0);
    (1..=rounds).map(run).collect()
}

/// Of such rounds the median of the first server, and the ratios of the others to it.
pub fn ratios(results: &[Vec<f64>]) -> (f64, Vec<Ratio>) {
    let ratios = (1..results[0].len()).map(|server| {
        let mut ratios: Vec<f64> = results.iter().map(|round| round[server] / round[0]).collect();
        Ratio { median: median(&mut ratios), least: ratios[0], most: ratios[ratios.len() - 1] }
    });
    let base = median(&mut results.iter().map(|round| round[0]).collect::<Vec<_>>());
    (base, ratios.collect())
}

/// Sorts them, too.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Everything but the servers stays off their core.
pub fn run_beside_the_servers() {
    let own = std::process::id().to_string();
    let moved = Command::new("taskset").args(["-cp", "1", &own]).output().expect("taskset, of util-linux");
    assert!(moved.status.success(), "two cores are needed: {}", String::from_utf8_lossy(&moved.stderr));
}
