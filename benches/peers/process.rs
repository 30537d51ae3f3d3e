//! A server as a process: started, measured, ended.

use std::fs::File;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::time::Duration;
use std::time::Instant;

/// A running server. Dropping it ends it.
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    /// How many times fewer requests a turn has, so that it does not take longer than others'.
    pub slowness: u32,
    /// Whether a login makes a session.
    pub has_sessions: bool,
    process: Child,
}

impl Server {
    pub fn start(name: &'static str, port: u16, core: &str, command: &[&str], log: File) -> Self {
        let process = Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .env("GOMAXPROCS", "1")
            .env("HOME", std::env::temp_dir())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut server = Self { name, port, slowness: 1, has_sessions: false, process };
        let deadline = Instant::now() + Duration::from_secs(120);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(server.process.try_wait().unwrap().is_none() && Instant::now() < deadline, "{name} does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// What clients call it.
    pub fn authority(&self) -> String {
        format!("bench.test:{}", self.port)
    }

    /// Processor time of all its threads and workers.
    pub fn cpu(&self) -> Duration {
        family(self.process.id()).into_iter().flat_map(threads).map(|thread| time_of(&thread)).sum()
    }

    /// Processor time of its threads of this name.
    pub fn cpu_of(&self, name: &str) -> Duration {
        let is_named =
            |thread: &PathBuf| std::fs::read_to_string(thread.join("comm")).is_ok_and(|is| is.trim() == name);
        threads(self.process.id()).into_iter().filter(is_named).map(|thread| time_of(&thread)).sum()
    }

    /// Sends it a signal.
    pub fn signal(&self, name: &str) {
        signal(self.process.id(), name);
    }

    /// Processor time of one of these requests, in microseconds.
    pub fn cost(&self, count: u32, run: impl FnOnce()) -> f64 {
        let before = self.cpu();
        run();
        (self.cpu() - before).as_secs_f64() * 1e6 / f64::from(count)
    }

    /// Bytes in memory that are its own and its workers'.
    pub fn memory(&self) -> u64 {
        let resident = |process| {
            let rollup = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap();
            let line = rollup.lines().find(|line| line.starts_with("Private_Dirty:")).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
        };
        family(self.process.id()).into_iter().map(resident).sum()
    }

    /// How many files and sockets it and its workers have open.
    pub fn descriptors(&self) -> usize {
        let open = |process| std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().count();
        family(self.process.id()).into_iter().map(open).sum()
    }

    /// How many of them each of its event loops watches, always in the same order.
    pub fn watched(&self) -> Vec<usize> {
        let process = self.process.id();
        let all = (0..1000).map_while(|file| std::fs::read_to_string(format!("/proc/{process}/fdinfo/{file}")).ok());
        let mut loops: Vec<Vec<String>> = Vec::new();
        for file in all {
            let watched: Vec<_> = file.lines().filter(|line| line.starts_with("tfd:")).map(str::to_owned).collect();
            // A loop has several descriptors itself.
            if !watched.is_empty() && !loops.contains(&watched) {
                loops.push(watched);
            }
        }
        loops.iter().map(Vec::len).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers only when it is asked to, and Redis writes what is unwritten.
        let _asked = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ended = self.process.wait();
    }
}

/// Sends a process a signal.
pub fn signal(process: u32, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &process.to_string()]).status();
    assert!(sent.expect("kill, of procps").success(), "{name} to {process}");
}

/// A process and those that it started.
fn family(process: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    let children = children.split_whitespace().map(|child| child.parse().unwrap());
    std::iter::once(process).chain(children).collect()
}

fn threads(process: u32) -> Vec<PathBuf> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    threads.map(|thread| thread.unwrap().path()).collect()
}

/// The scheduler's count in nanoseconds.
fn time_of(thread: &std::path::Path) -> Duration {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}
