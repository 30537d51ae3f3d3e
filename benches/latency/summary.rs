//! What many requests took.

use std::time::Duration;

use crate::rounds::median;
use crate::visitors::Sample;

/// Times in microseconds.
#[derive(Clone, Copy)]
pub struct Summary {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub most: f64,
    /// How late the client itself was: of a hundred requests all but one were sooner.
    pub late: f64,
    /// Answers that were not the page.
    pub failed: usize,
    /// When the last of those was over, counted from the start.
    pub failed_until: Duration,
}

impl Summary {
    /// # Panics
    /// When there are none.
    pub fn of<'a>(samples: impl Iterator<Item = &'a Sample> + Clone) -> Self {
        let took = sorted(samples.clone().map(|sample| sample.took));
        let late = sorted(samples.clone().map(|sample| sample.late));
        let failed = samples.filter(|sample| sample.status != 200).map(|sample| sample.due + sample.took);
        Self {
            p50: quantile(&took, 0.5),
            p99: quantile(&took, 0.99),
            p999: quantile(&took, 0.999),
            most: quantile(&took, 1.0),
            late: quantile(&late, 0.99),
            failed: failed.clone().count(),
            failed_until: failed.max().unwrap_or_default(),
        }
    }

    /// Of several rounds: the medians, and what was worst.
    pub fn over(rounds: &[Self]) -> Self {
        let all = |part: fn(&Self) -> f64| rounds.iter().map(part).collect::<Vec<_>>();
        Self {
            p50: median(&mut all(|round| round.p50)),
            p99: median(&mut all(|round| round.p99)),
            p999: median(&mut all(|round| round.p999)),
            most: all(|round| round.most).into_iter().fold(0.0, f64::max),
            late: median(&mut all(|round| round.late)),
            failed: rounds.iter().map(|round| round.failed).max().unwrap_or(0),
            failed_until: rounds.iter().map(|round| round.failed_until).max().unwrap_or_default(),
        }
    }
}

fn sorted(times: impl Iterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times
}

/// The least that so large a part does not exceed.
fn quantile(sorted: &[Duration], part: f64) -> f64 {
    let place = (sorted.len() as f64 * part).ceil() as usize;
    sorted[place.max(1) - 1].as_secs_f64() * 1e6
}
