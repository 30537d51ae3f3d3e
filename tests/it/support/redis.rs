//! Real Redis servers, alone, watched by a sentinel, or as a cluster; and Vestibules that share them.

use std::net::TcpStream;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use tempfile::TempDir;
use vestibule::clock::SystemClock;
use vestibule::store;

use super::Upstream;
use super::Vestibule;
use super::eventually;
use super::file;
use super::free_port;
use super::parse;

/// A `redis-server` that can be killed and started again where it was, with what it had.
pub struct Redis {
    child: Option<Child>,
    directory: TempDir,
    options: Vec<String>,
    pub port: u16,
}

/// `redis-server` or `redis-cli`, or what the environment names in its place (`REDIS_SERVER`, `REDIS_CLI`): a Valkey.
pub fn program(name: &str) -> Command {
    let variable = name.to_uppercase().replace('-', "_");
    Command::new(std::env::var(variable).unwrap_or_else(|_| name.to_owned()))
}

impl Redis {
    /// One that keeps everything on the disk before it answers.
    pub fn start() -> Self {
        Self::with(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// With these options. The port was free a moment before: when somebody else got it meanwhile, another
    /// one is tried.
    pub fn with(options: &[&str]) -> Self {
        Self::first_up(|| options.iter().map(|option| (*option).to_owned()).collect())
    }

    /// The same with options that are made anew for each try, as ports have to be.
    fn first_up(options: impl Fn() -> Vec<String>) -> Self {
        for _ in 0..5 {
            let mut redis = Self::new(&[], free_port());
            redis.options = options();
            if redis.comes_up() {
                return redis;
            }
        }
        panic!("redis-server does not start: {:?}", options());
    }

    /// On this port.
    pub fn on(port: u16) -> Self {
        let mut redis = Self::new(&[], port);
        assert!(redis.comes_up(), "redis-server does not start on port {port}");
        redis
    }

    fn new(options: &[&str], port: u16) -> Self {
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        Self { child: None, directory: TempDir::new().unwrap(), options, port }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where its files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Ends it without a farewell.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Starts it again.
    pub fn again(&mut self) {
        self.kill();
        assert!(self.comes_up(), "it does not start again");
    }

    /// Stops it from running, and lets it run again.
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    fn comes_up(&mut self) -> bool {
        let mut command = program("redis-server");
        if self.options.iter().any(|option| option == "--sentinel") {
            command.arg(self.directory.path().join("sentinel.conf"));
        }
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]);
        command.arg(self.directory.path()).args(&self.options);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("run tests/setup.sh first");
        let itself = format!("process_id:{}\r", child.id());
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.ask(&["PING"]).contains("PONG") {
                // It may be another one, that got the port meanwhile.
                return self.ask(&["INFO", "server"]).contains(&itself);
            }
            if self.child.as_mut().is_none_or(|child| child.try_wait().unwrap().is_some()) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }

    fn ask(&self, words: &[&str]) -> String {
        let mut command = program("redis-cli");
        let output = command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--raw"]).args(words).output();
        let output = output.expect("run tests/setup.sh first");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// What it says to a command.
    pub fn say(&self, words: &[&str]) -> String {
        let answer = self.ask(words);
        assert!(!answer.starts_with("ERR") && !answer.starts_with("NOPERM"), "{words:?}: {answer}");
        answer
    }

    /// The keys of all records.
    pub fn records(&self) -> Vec<String> {
        self.say(&["KEYS", "vestibule:s:*"]).lines().map(str::to_owned).collect()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The text of the usual file with its sessions there; `more` goes below `[store]`.
pub fn stored_at(url: &str, more: &str, upstream: &Upstream, site: &str) -> String {
    file(&upstream.url(), site).replace("url = \"memory:\"", &format!("url = \"{url}\"\n{more}"))
}

/// A Vestibule with its sessions there.
pub async fn vestibule_at(url: &str, more: &str, upstream: &Upstream, site: &str) -> Vestibule {
    let config = parse(&stored_at(url, more, upstream, site));
    // The time of a test is its own.
    let (store, _) = store::open(&config.store, &config.store_keys, Arc::new(SystemClock::start())).unwrap();
    Vestibule::with_store(config, store).await.0
}

/// Three masters that share the slots, as `redis-cli` makes them.
pub async fn cluster() -> [Redis; 3] {
    let options = || {
        let bus = free_port().to_string();
        let options = ["--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", &bus];
        options.map(str::to_owned).to_vec()
    };
    let nodes = [(); 3].map(|()| Redis::first_up(options));
    let first = &nodes[0];
    let bus = first.options.last().unwrap();
    for (number, node) in nodes.iter().enumerate() {
        let (from, to) = (number * 5461, if number == 2 { 16383 } else { (number + 1) * 5461 - 1 });
        node.say(&["CLUSTER", "ADDSLOTSRANGE", &from.to_string(), &to.to_string()]);
        node.say(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        if number > 0 {
            node.say(&["CLUSTER", "MEET", "127.0.0.1", &first.port.to_string(), bus]);
        }
    }
    eventually("the cluster is there", || {
        nodes.iter().all(|node| node.say(&["CLUSTER", "INFO"]).contains("cluster_state:ok"))
    })
    .await;
    nodes
}

/// A sentinel that watches a master which it calls `main`, and takes it for gone after longer than a busy
/// machine can hold it up.
pub fn sentinel(master: &Redis) -> Redis {
    let mut sentinel = Redis::new(&["--sentinel"], free_port());
    let settings = format!(
        "sentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 30000\n\
         sentinel failover-timeout main 5000\n",
        master.port
    );
    std::fs::write(sentinel.directory.path().join("sentinel.conf"), settings).unwrap();
    assert!(sentinel.comes_up(), "no sentinel");
    sentinel
}
