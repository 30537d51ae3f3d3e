//! `vestibule demo`, as a newcomer tries it.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use tempfile::NamedTempFile;
use tempfile::TempDir;
use vestibule::config::Config;

use crate::support::program::BINARY;
use crate::support::run;

/// A running demo, and what it printed.
struct Demo {
    child: Child,
    /// Where it makes its directory.
    scratch: TempDir,
    says: String,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let scratch = TempDir::new().unwrap();
        let mut child = command(&scratch, arguments).spawn().unwrap();
        let mut says = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            says.push_str(&line);
            says.push('\n');
            if line.contains("Stop with Ctrl-C") {
                return Self { child, scratch, says };
            }
        }
        panic!("it ended: {says} {:?}", child.wait_with_output());
    }

    /// The first word of what it says that begins like this.
    fn word(&self, start: &str) -> &str {
        self.says.split_whitespace().find(|word| word.starts_with(start)).unwrap_or_else(|| panic!("{}", self.says))
    }

    fn url(&self) -> &str {
        self.word("https://localhost:")
    }

    fn ca(&self) -> &str {
        self.says.split_whitespace().find(|word| word.ends_with("ca.pem")).unwrap()
    }

    fn end(mut self, signal: &str) -> (Option<i32>, String, TempDir) {
        run(Command::new("kill").args(["-s", signal, &self.child.id().to_string()]));
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let status = self.child.wait().unwrap();
        (status.code(), log, self.scratch)
    }
}

fn command(scratch: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("demo").args(arguments).env("TMPDIR", scratch.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().next().is_none()
}

/// curl with a cookie jar.
struct Curl<'a> {
    demo: &'a Demo,
    jar: NamedTempFile,
}

impl<'a> Curl<'a> {
    fn new(demo: &'a Demo) -> Self {
        Self { demo, jar: NamedTempFile::new().unwrap() }
    }

    fn command(&self, path: &str, more: &[&str]) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--max-time", "20", "--include", "--cacert", self.demo.ca()]);
        curl.arg("--cookie").arg(self.jar.path()).arg("--cookie-jar").arg(self.jar.path());
        curl.args(["--header", &format!("Origin: {}", self.demo.url())]).args(more);
        curl.arg(format!("{}{path}", self.demo.url()));
        curl
    }

    /// Head and body of the answer.
    fn ask(&self, path: &str, more: &[&str]) -> (String, String) {
        let answer = run(&mut self.command(path, more)).replace("\r\n", "\n");
        let (head, body) = answer.split_once("\n\n").unwrap();
        (head.to_lowercase(), body.to_owned())
    }

    fn session(&self) -> String {
        let jar = fs::read_to_string(self.jar.path()).unwrap();
        let line = jar.lines().find(|line| line.contains("__Host-session")).unwrap_or_else(|| panic!("{jar}"));
        line.rsplit('\t').next().unwrap().to_owned()
    }
}

const HTML: [&str; 2] = ["--header", "Accept: text/html"];

#[test]
fn a_newcomer_sees_what_it_does() {
    let demo = Demo::start(&[]);
    for expected in ["alice / wonderland", "bob / builder", "What to try", "X-Forwarded-User: admin", "[site.login]"] {
        assert!(demo.says.contains(expected), "{expected} in {}", demo.says);
    }
    let curl = Curl::new(&demo);

    let (head, _) = curl.ask("/", &HTML);
    assert!(head.contains(" 303") && head.contains("location: /login"), "{head}");
    let (head, page) = curl.ask("/login", &HTML);
    assert!(page.contains("type=password") && !head.contains("phpsessid"), "{head}");
    let (_, page) = curl.ask("/login", &["--data", "username=alice&password=wrong"]);
    assert!(page.contains("Wrong user name or password."));
    let anonymous = curl.session();
    let (head, _) = curl.ask("/login", &["--data", "username=alice&password=wonderland"]);
    assert!(head.contains(" 302") && !head.contains("phpsessid"), "{head}");
    for attribute in ["__host-session=", "; secure", "; httponly", "; samesite=lax", "; path=/"] {
        assert!(head.contains(attribute), "{attribute} in {head}");
    }
    let session = curl.session();
    assert_ne!(session, anonymous, "a new ID");

    let (head, page) = curl.ask("/", &["--header", "X-Forwarded-User: admin", "--header", "X_Forwarded_User: admin"]);
    assert!(page.contains("<tr id=x-forwarded-user class=ours><td>x-forwarded-user</td><td>alice</td>"), "{page}");
    assert!(!page.contains("admin") && page.contains("PHPSESSID=") && !head.contains("phpsessid"), "{page}");

    let upgrade = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"];
    let mut clock = curl.command("/clock", &["--http1.1", "--no-buffer", "--header", "Sec-WebSocket-Key: dGVzdA=="]);
    upgrade.iter().for_each(|field| {
        clock.args(["--header", field]);
    });
    let mut clock = clock.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut ticks = clock.stdout.take().unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b" UTC") {
        let mut byte = [0];
        assert_eq!(ticks.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&seen));
        seen.push(byte[0]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101"));

    let (head, _) = curl.ask("/logout", &["--request", "POST"]);
    assert!(head.contains("location: /login") && head.contains("max-age=0"), "{head}");
    assert_ne!(clock.wait().unwrap().code(), Some(28), "it was closed, and not given up by curl");
    let (head, _) = Curl::new(&demo).ask("/", &["--cookie", &format!("__Host-session={session}")]);
    assert!(head.contains(" 401"), "a copied ID opens nothing: {head}");

    let (code, log, scratch) = demo.end("INT");
    assert_eq!(code, Some(0), "{log}");
    assert!(is_empty(scratch.path()), "its directory is gone");
    assert!(log.contains("\"outcome\":\"failure\"") && log.contains("\"outcome\":\"success\""), "{log}");
    for secret in [session.as_str(), anonymous.as_str(), "wonderland", "PHPSESSID="] {
        assert!(!log.contains(secret), "S161: {secret} in {log}");
    }
}

#[test]
fn it_cleans_up_however_it_is_ended() {
    for signal in ["TERM", "HUP"] {
        let demo = Demo::start(&[]);
        assert!(!is_empty(demo.scratch.path()));
        let (code, log, scratch) = demo.end(signal);
        assert_eq!(code, Some(0), "{signal}: {log}");
        assert!(is_empty(scratch.path()), "{signal}");
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let scratch = TempDir::new().unwrap();

    let Output { status, stdout, stderr } = command(&scratch, &["--port", &port]).output().unwrap();

    let says = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(says.contains(&format!("port {port} cannot be used: name another one with --port")), "{says}");
    assert!(says.contains("another program listens there"), "{says}");
    assert!(stdout.is_empty() && is_empty(scratch.path()));
}

#[test]
fn what_it_shows_is_a_configuration_without_warnings() {
    let text = vestibule::demo::configuration(8443, 8000);
    let config = Config::parse(Path::new("proxy.toml"), &text).unwrap();
    assert_eq!(config.warnings(), Vec::<String>::new());
}
