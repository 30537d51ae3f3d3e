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

/// Rounds in which each server has its turn, the first one changing, after one that does not count. The median
/// of the first server, and the ratios of the others to it.
pub fn compare(servers: &[Server], rounds: usize, turn: impl Fn(&Server) -> f64) -> (f64, Vec<Ratio>) {
    let mut results: Vec<Vec<f64>> = Vec::new();
    for round in 0..=rounds {
        let mut of_round = vec![0.0; servers.len()];
        for place in 0..servers.len() {
            let server = (place + round) % servers.len();
            of_round[server] = turn(&servers[server]);
        }
        if round > 0 {
            results.push(of_round);
        }
    }
    let ratios = (1..servers.len()).map(|server| {
        let mut ratios: Vec<f64> = results.iter().map(|round| round[server] / round[0]).collect();
        Ratio { median: median(&mut ratios), least: ratios[0], most: ratios[ratios.len() - 1] }
    });
    let base = median(&mut results.iter().map(|round| round[0]).collect::<Vec<_>>());
    (base, ratios.collect())
}

/// Sorts them, too.
fn median(values: &mut [f64]) -> f64 {
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
