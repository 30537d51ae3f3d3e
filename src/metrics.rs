//! Counters that every worker may move with every request, and the text in which Prometheus reads
//! them. Each thread has its own cache lines: what is counted is shared only when it is read.

use std::fmt::Display;
use std::fmt::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Threads beyond so many share, which costs them a little time and nothing else.
const SHARDS: usize = 16;

/// Upper bounds of a histogram, in microseconds.
const BOUNDS: [u64; 14] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 10_000_000];
/// The bounds, more than all of them, and the sum of all.
const HISTOGRAM: usize = BOUNDS.len() + 2;

/// The part of a thread; on its own pair of cache lines, which processors fetch together.
#[repr(align(128))]
struct Shard<const N: usize>([AtomicU64; N]);

fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS;
    }
    // A thread that is ending has no place of its own any more.
    MINE.try_with(|mine| *mine).unwrap_or(0)
}

/// So many counters.
pub struct Counters<const N: usize>(Box<[Shard<N>; SHARDS]>);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(Box::new(std::array::from_fn(|_| Shard(std::array::from_fn(|_| AtomicU64::new(0))))))
    }
}

impl<const N: usize> Counters<N> {
    /// One more.
    pub fn count(&self, which: usize) {
        self.add(which, 1);
    }

    /// So many more.
    pub fn add(&self, which: usize, many: u64) {
        if let Some(counter) = self.0[shard()].0.get(which) {
            counter.fetch_add(many, Ordering::Relaxed);
        }
    }

    /// All of them, as they are now.
    pub fn read(&self) -> [u64; N] {
        std::array::from_fn(|which| self.0.iter().map(|shard| shard.0[which].load(Ordering::Relaxed)).sum())
    }
}

/// How long things took.
#[derive(Default)]
pub struct Histogram(Counters<HISTOGRAM>);

impl Histogram {
    /// One more, that took so long.
    pub fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.count(BOUNDS.partition_point(|bound| *bound < micros));
        self.0.add(BOUNDS.len() + 1, micros);
    }
}

/// What a sample measures.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// The text format of Prometheus, version 0.0.4.
#[derive(Default)]
pub struct Text(String);

impl Text {
    /// Begins a family of samples; they follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{value}\"", if place == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// The samples of a histogram.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        let counts = histogram.0.read();
        let (mut total, bucket) = (0, format!("{name}_bucket"));
        for (count, bound) in counts.iter().zip(BOUNDS.iter().map(|bound| Some(*bound)).chain([None])) {
            total += count;
            let bound = bound.map_or_else(|| "+Inf".to_owned(), seconds);
            self.sample(&bucket, &[labels, &[("le", &bound)]].concat(), total);
        }
        self.sample(&format!("{name}_sum"), labels, seconds(counts[BOUNDS.len() + 1]));
        self.sample(&format!("{name}_count"), labels, total);
    }

    /// All that was written.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// Microseconds as a decimal number of seconds.
fn seconds(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("{whole}.{part:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_all_threads_count_is_added_up() {
        let counters = Arc::<Counters<2>>::default();
        let threads: Vec<_> = (0..40)
            .map(|_| {
                let counters = Arc::clone(&counters);
                std::thread::spawn(move || (0..1000).for_each(|number| counters.count(number % 2)))
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        counters.count(7);
        assert_eq!(counters.read(), [20_000, 20_000]);
    }

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let histogram = Histogram::default();
        for micros in [0, 100, 101, 1_500_000, 60_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let mut text = Text::default();
        text.histogram("t", &[("op", "load")], &histogram);
        let text = text.into_string();
        for line in [
            "t_bucket{op=\"load\",le=\"0.0001\"} 2",
            "t_bucket{op=\"load\",le=\"0.00025\"} 3",
            "t_bucket{op=\"load\",le=\"1\"} 3",
            "t_bucket{op=\"load\",le=\"10\"} 4",
            "t_bucket{op=\"load\",le=\"+Inf\"} 5",
            "t_sum{op=\"load\"} 61.500201",
            "t_count{op=\"load\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.family("a_total", Kind::Counter, "Things.");
        text.sample("a_total", &[], 1);
        text.sample("a_total", &[("x", "a\"b\\c\nd"), ("y", "")], 2);
        let expected =
            "# HELP a_total Things.\n# TYPE a_total counter\na_total 1\na_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 2\n";
        assert_eq!(text.into_string(), expected);
    }
}
