//! How servers are compared.

use std::process::Command;

use crate::process::Server;

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
