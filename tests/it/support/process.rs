//! Real programs that the tests start: found below the target directory, ready when they answer, gone
//! with the test.

use std::net::TcpListener;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

/// How many ports servers are given. They end below 18443, which is in the text of an example.
const PORTS: u16 = 8_000;
/// How long a program may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where `tests/setup.sh` puts applications.
pub fn apps() -> PathBuf {
    let apps = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("apps");
    assert!(
        ["php/done", "django/requirements.txt", "grpc/requirements.txt", "jwt/requirements.txt"]
            .into_iter()
            .chain(["websockets/requirements.txt"])
            .all(|done| apps.join(done).exists()),
        "run tests/setup.sh first"
    );
    apps
}

/// A running program, and whatever it starts.
pub struct Process {
    child: Child,
    pub port: u16,
}

impl Process {
    /// Starts a server on a free port and waits until it takes connections. The port was free a moment
    /// before: when somebody else got it meanwhile, the server ends, and another port is tried.
    pub fn serve(mut command: impl FnMut(u16) -> Command) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let mut process = Self { child: start(&mut command(port)), port };
            if process.is_ready() {
                return process;
            }
        }
        panic!("{:?} does not start", command(0));
    }

    /// Starts a program that says itself when it is ready.
    pub fn start(command: &mut Command) -> Self {
        Self { child: start(command), port: 0 }
    }

    /// What it prints.
    pub fn stdout(&mut self) -> std::process::ChildStdout {
        self.child.stdout.take().unwrap()
    }

    fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                // Where it has ended, somebody else listens there.
                return self.child.try_wait().unwrap().is_none();
            }
            assert!(Instant::now() < deadline, "never ready: {:?}", self.child);
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The whole group: servers start processes of their own.
        let group = format!("-{}", self.child.id());
        Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status().ok();
        self.child.wait().ok();
    }
}

/// A port that nobody listens on at this moment, each given once: from outside the range of which the system gives ports
/// to clients, 32768 and above. One of them could have it before the server, or for a minute after.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Far from where the tests of a process that was started beside this one begin.
    let first = (std::process::id() % u32::from(PORTS) * 4943 % u32::from(PORTS)) as u16;
    let candidates = std::iter::repeat_with(|| 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS);
    candidates.take(PORTS.into()).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

fn start(command: &mut Command) -> Child {
    command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Runs a program to its end, which must be good.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}\n{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}
