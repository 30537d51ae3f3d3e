//! The program itself, as an operator runs it: started with a file, told what to do by signals, seen
//! by its log.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::ExitStatus;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::thread::JoinHandle;

use serde_json::Value;
use tempfile::TempDir;

use super::Browser;
use super::eventually;

/// A running program; it is killed when dropped.
pub struct Program {
    child: Child,
    directory: TempDir,
    log: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
    pub https: SocketAddr,
    pub http: SocketAddr,
}

impl Program {
    /// Runs until it says that it has started.
    pub async fn start(text: &str) -> Self {
        let mut command = Command::new(BINARY);
        command.stdin(Stdio::null());
        Self::start_by(command, text).await
    }

    /// The same by a command that the program's arguments are added to.
    pub async fn start_by(command: Command, text: &str) -> Self {
        let mut program = Self::spawn(command, text);
        program.event("started").await;
        let line = program.lines().into_iter().find(|line| line["event"] == "started").unwrap();
        let address = |key: &str| line[key].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        (program.https, program.http) = (address("https"), address("http"));
        program
    }

    /// Runs a file with which it cannot start; how it ended and all that it said.
    pub async fn fail(text: &str) -> (i32, String) {
        Self::fail_by(Command::new(BINARY), text).await
    }

    /// The same by a command that the program's arguments are added to.
    pub async fn fail_by(command: Command, text: &str) -> (i32, String) {
        let mut program = Self::spawn(command, text);
        let status = program.ended().await;
        (status.code().unwrap(), program.log.lock().unwrap().join("\n"))
    }

    fn spawn(mut command: Command, text: &str) -> Self {
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("proxy.toml"), text).unwrap();
        // Without `[store]`, sessions of this run only.
        let command = command.arg("run").current_dir(directory.path()).env("XDG_STATE_HOME", directory.path());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let written = Arc::clone(&log);
        let reader = std::thread::spawn(move || lines.for_each(|line| written.lock().unwrap().push(line.unwrap())));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        Self { child, directory, log, reader: Some(reader), https: nowhere, http: nowhere }
    }

    /// The file that it reads.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("proxy.toml")
    }

    /// Its process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Runs the program once more, with these arguments and the same file; exit code, standard output,
    /// standard error.
    pub fn ask(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(BINARY);
        let place = self.directory.path();
        let output = command.args(arguments).current_dir(place).env("XDG_STATE_HOME", place).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The same; exit code, and all that it said.
    pub fn says(&self, arguments: &[&str]) -> (i32, String) {
        let (code, out, complaints) = self.ask(arguments);
        (code, out + &complaints)
    }

    /// Sends a signal.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.id().to_string()]).status().unwrap();
        assert!(sent.success(), "the program is gone");
    }

    /// Everything that it logged, as it wrote it.
    pub fn text(&self) -> String {
        self.log.lock().unwrap().join("\n")
    }

    /// Everything that it logged.
    pub fn lines(&self) -> Vec<Value> {
        let log = self.log.lock().unwrap();
        log.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"))).collect()
    }

    /// Waits for an event in its log and returns the last line with it.
    pub async fn event(&self, name: &str) -> Value {
        let last = || self.lines().into_iter().rfind(|line| line["event"] == name);
        eventually(name, || last().is_some()).await;
        last().unwrap()
    }

    /// The lines of one event so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.lines().into_iter().filter(|line| line["event"] == name).collect()
    }

    /// Waits until so many requests have been answered: what was logged of them before is there.
    pub async fn answered(&self, requests: usize) {
        eventually("requests are answered", || self.events("access").len() >= requests).await;
    }

    /// A browser that has not been there yet.
    pub fn browser(&self) -> Browser {
        Browser::new(self.https)
    }

    /// The most memory that it ever used, in KiB.
    pub fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status.unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program.
pub const BINARY: &str = env!("CARGO_BIN_EXE_vestibule");
