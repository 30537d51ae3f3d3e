//! What may hold requests up, each beside the same requests without it.

use std::cell::RefCell;
use std::path::Path;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use vestibule::cert;

use crate::crowded;
use crate::load::Client;
use crate::process::Server;
use crate::rounds;
use crate::schedule;
use crate::servers::Setup;
use crate::summary::Summary;
use crate::visitors;
use crate::visitors::Protocol;
use crate::visitors::Sample;

const SESSIONS: u64 = 10_000_000;
const FEW: u64 = 10_000;
/// A sweep begins in the first half of this, and is not through at its end.
const A_SWEEP: Duration = Duration::from_secs(20);
/// How often it is looked whether one is under way.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// A pause within a sweep.
const PAUSE: Duration = Duration::from_millis(100);

const RELOAD_EVERY: Duration = Duration::from_millis(250);
const RELOADS: u32 = 8;

/// Until a change of certificate files has been noticed, and come to rest.
const A_CERTIFICATE: Duration = Duration::from_secs(5);

const A_RESTART: Duration = Duration::from_secs(4);

/// When something happens, after the start.
const SOON: Duration = Duration::from_millis(500);

/// Requests without and with a disturbance.
pub struct Pair {
    pub without: Summary,
    pub with: Summary,
    /// What else was seen.
    pub remark: String,
}

/// What a disturbance needs.
pub struct Stage<'a> {
    pub setup: &'a Setup<'a>,
    pub client: &'a Client,
    pub directory: &'a Path,
    /// Requests a second.
    pub rate: u32,
    pub rounds: usize,
}

pub type Disturbance = (&'static str, fn(&Stage<'_>) -> Pair);

pub const DISTURBANCES: [Disturbance; 4] = [
    ("sweep of 10 million sessions", sweep),
    ("reload, four a second", reload),
    ("certificate change", certificate),
    ("Redis restart", redis_restart),
];

impl Stage<'_> {
    fn visit<T>(&self, server: &Server, lasts: Duration, meanwhile: impl FnOnce(Instant) -> T) -> (Vec<Sample>, T) {
        visitors::visit(self.client, server, Protocol::Http1, &schedule::arrivals(self.rate, lasts), meanwhile)
    }

    /// The same requests without and with what happens meanwhile, which is told whether it is to disturb: it costs
    /// the second core the same in either case.
    fn compare(&self, server: &Server, lasts: Duration, happens: impl Fn(Instant, bool)) -> Pair {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            for (disturbs, summaries) in [(false, &mut without), (true, &mut with)] {
                let (samples, ()) = self.visit(server, lasts, |start| happens(start, disturbs));
                summaries.push(Summary::of(samples.iter()));
            }
        }
        Pair { without: Summary::over(&without), with: Summary::over(&with), remark: String::new() }
    }
}

fn sleep_until(at: Instant) {
    thread::sleep(at.saturating_duration_since(Instant::now()));
}

/// One sweep in each round. What was asked for while it was under way, beside the same program with few sessions.
fn sweep(stage: &Stage<'_>) -> Pair {
    let own = std::env::current_exe().unwrap().display().to_string();
    let serve = |count: u64| {
        let command = [&own, crowded::COMMAND, &count.to_string()];
        stage.setup.vestibule_by(&command, "vestibule", "memory:", "")
    };
    let (mut without, mut with, mut took) = (Vec::new(), Vec::new(), Vec::new());
    let few = serve(FEW);
    for _ in 0..stage.rounds {
        without.push(Summary::of(stage.visit(&few, A_SWEEP / 2, |_| ()).0.iter()));
    }
    drop(few);
    let server = serve(SESSIONS);
    for _ in 0..stage.rounds {
        let (samples, sweeps) = stage.visit(&server, A_SWEEP, |start| watch_sweeps(&server, start + A_SWEEP, start));
        let is_swept = |sample: &&Sample| sweeps.iter().any(|(from, to)| (from..to).contains(&&sample.due));
        with.push(Summary::of(samples.iter().filter(is_swept)));
        took.push(sweeps.iter().map(|(from, to)| (*to - *from).as_secs_f64()).fold(0.0, f64::max));
    }
    let remark = format!("{:.1} s of a sweep", rounds::median(&mut took));
    Pair { without: Summary::over(&without), with: Summary::over(&with), remark }
}

/// From when to when the thread that sweeps was at work, counted from the start.
fn watch_sweeps(server: &Server, until: Instant, start: Instant) -> Vec<(Duration, Duration)> {
    sleep_until(start);
    let mut sweeps: Vec<(Duration, Duration)> = Vec::new();
    let mut before = (Duration::ZERO, server.cpu_of("control"));
    while Instant::now() < until {
        thread::sleep(LOOK_EVERY);
        let now = (start.elapsed(), server.cpu_of("control"));
        let is_at_work = (now.1 - before.1).as_secs_f64() > 0.02 * (now.0 - before.0).as_secs_f64();
        match sweeps.last_mut() {
            // It rests in between.
            Some((_, to)) if is_at_work && before.0 < *to + PAUSE => *to = now.0,
            _ if is_at_work => sweeps.push((before.0, now.0)),
            _ => {}
        }
        before = now;
    }
    sweeps
}

fn reload(stage: &Stage<'_>) -> Pair {
    let server = stage.setup.vestibule("vestibule", "memory:", "");
    let pair = stage.compare(&server, RELOAD_EVERY * (RELOADS + 1), |start, disturbs| {
        for turn in 1..=RELOADS {
            sleep_until(start + RELOAD_EVERY * turn);
            server.signal(if disturbs { "HUP" } else { "0" });
        }
    });
    assert_eq!(stage.setup.said(&server, "config.reloaded"), RELOADS as usize * stage.rounds);
    pair
}

/// Noticed by itself, as after a renewal.
fn certificate(stage: &Stage<'_>) -> Pair {
    let server = stage.setup.vestibule("vestibule", "memory:", "");
    let elsewhere = stage.directory.join("elsewhere");
    let pair = stage.compare(&server, A_CERTIFICATE, |start, disturbs| {
        sleep_until(start + SOON);
        let place = if disturbs { stage.directory } else { &elsewhere };
        cert::make(place, &["bench.test".to_owned()]).unwrap();
    });
    assert_eq!(stage.setup.said(&server, "tls.reloaded"), stage.rounds);
    pair
}

/// Stopped and started at once, with what it had kept; without: another one, which nobody uses.
fn redis_restart(stage: &Stage<'_>) -> Pair {
    let [redis, other] = [(); 2].map(|()| RefCell::new(Some(stage.setup.lasting_redis(None))));
    let port = redis.borrow().as_ref().map(|redis| redis.port).unwrap();
    let server = stage.setup.vestibule("vestibule", &format!("redis://127.0.0.1:{port}"), "");
    let pair = stage.compare(&server, A_RESTART, |start, disturbs| {
        sleep_until(start + SOON);
        let restarted = if disturbs { &redis } else { &other };
        let port = restarted.take().map(|ended| ended.port);
        restarted.replace(Some(stage.setup.lasting_redis(port)));
    });
    let (failed, until) = (pair.with.failed, pair.with.failed_until.saturating_sub(SOON));
    let remark = match failed {
        0 => "every answer was the page".to_owned(),
        _ => format!("no other answer {:.1} s after its end", until.as_secs_f64()),
    };
    Pair { remark, ..pair }
}
