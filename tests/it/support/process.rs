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
use std::time::Duration;
use std::time::Instant;

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
                return true;
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

/// A port that nobody listens on at this moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
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
