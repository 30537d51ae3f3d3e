//! The command line, as an operator types it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::process::Output;
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::Upstream;
use crate::support::eventually;
use crate::support::program::BINARY;
use crate::support::run;

/// A directory in which the program is run.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(BINARY);
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        // Where sessions are kept without `[store]`.
        command.env("XDG_STATE_HOME", self.path());
        command
    }

    /// Exit code, standard output, standard error.
    fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let Output { status, stdout, stderr } = self.command(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (status.code().unwrap(), text(stdout), text(stderr))
    }
}

/// Ten lines protect an application.
fn ten_lines(upstream: &str) -> String {
    format!(
        r#"[listen]
https = "unix:https.sock"
[tls]
certificate = "certs/server.pem"
key = "certs/server.key"
[[site]]
origin = "https://localhost:8443"
upstream = "{upstream}"
login = {{ path = "/login", user = "form:username", success = {{ status = 302, location_not = "/login*" }} }}
logout = {{ path = "/logout" }}
"#
    )
}

fn curl(place: &Place, path: &str, more: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--include", "--max-time", "20", "--cacert", "certs/ca.pem"]);
    curl.args(["--unix-socket", "https.sock", "--cookie", "jar", "--cookie-jar", "jar"]);
    curl.args(["--header", "Origin: https://localhost:8443", "--header", "Accept: text/html"]).args(more);
    run(curl.arg(format!("https://localhost:8443{path}")).current_dir(place.path()))
}

/// Ends a program and waits for it.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_lines_protect_an_application() {
    let app = Upstream::legacy().await;
    let place = Place::new();
    let text = ten_lines(&app.url());
    assert_eq!(text.lines().count(), 10);
    place.write("proxy.toml", &text);
    assert_eq!(place.run(&["cert"]).0, 0);
    assert_eq!(place.run(&["check"]).0, 0, "{:?}", place.run(&["check"]));

    // Without a subcommand it runs. Its log goes to a full disk, which stops nothing (S164).
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let _running = Running(place.command(&[]).stderr(full).spawn().unwrap());
    eventually("it listens", || UnixStream::connect(place.path().join("https.sock")).is_ok()).await;

    assert!(curl(&place, "/", &[]).contains("location: /login"));
    assert!(curl(&place, "/login", &["--data", "username=alice&password=wrong"]).contains("<form> wrong"));
    assert!(curl(&place, "/login", &["--data", "username=alice&password=secret"]).contains("location: /\r\n"));
    assert!(curl(&place, "/", &[]).ends_with("private"));
    assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
    assert!(curl(&place, "/logout", &["--data", ""]).contains("location: /login"));
    assert!(curl(&place, "/", &[]).contains("location: /login"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_of_the_repository_works_after_cert() {
    let app = Upstream::legacy().await;
    let place = Place::new();
    // Its own ports may be taken here.
    let text = include_str!("../../proxy.toml")
        .replace("127.0.0.1:8443", "unix:https.sock")
        .replace("http = \"127.0.0.1:8080\"", "")
        .replace("http://127.0.0.1:8000", &app.url());
    place.write("proxy.toml", &text);
    let (code, _, says) = place.run(&["check"]);
    assert_eq!(code, 2);
    assert!(says.contains("make a certificate for trying things out with: vestibule cert"), "{says}");
    assert_eq!(place.run(&["cert"]).0, 0);
    let _running = Running(place.command(&["run"]).stderr(Stdio::null()).spawn().unwrap());
    eventually("it listens", || UnixStream::connect(place.path().join("https.sock")).is_ok()).await;

    curl(&place, "/login", &["--data", "username=alice&password=secret"]);

    assert!(curl(&place, "/", &[]).ends_with("private"));
    assert!(curl(&place, "/static/style.css", &["--cookie", ""]).contains(" 200"));
}

#[test]
fn check_tells_clean_weak_and_invalid_apart() {
    // S194
    let place = Place::new();
    place.run(&["cert"]);
    let text = ten_lines("http://127.0.0.1:8000");

    place.write("proxy.toml", &text);
    let (code, says, complains) = place.run(&["check"]);
    assert_eq!((code, complains.as_str()), (0, ""));
    for sentence in [
        "Site https://localhost:8443 -> http://127.0.0.1:8000\n",
        "  Login rule 1: POST /login is an attempt to log in.\n",
        "    It succeeded if the status is 302 and it redirects elsewhere than to /login*.\n",
        "  Logout: /logout ends the session, then the application is told.\n",
        "\nproxy.toml is valid.\n",
    ] {
        assert!(says.contains(sentence), "{sentence} in {says}");
    }

    place.write("weak.toml", &format!("{text}[session]\nidle_timeout = \"2h\"\nbind = \"off\"\n"));
    let (code, says, _) = place.run(&["check", "--config", "weak.toml"]);
    assert_eq!(code, 1);
    assert!(says.contains("\nWarnings:\n  - https://localhost:8443: session.idle_timeout is longer"), "{says}");
    assert!(says.ends_with("\nweak.toml is valid, with 2 warnings.\n"), "{says}");

    place.write("bad.toml", &text.replace("origin", "orign").replace("\"/login\"", "7"));
    let (code, says, complains) = place.run(&["check", "-c", "bad.toml"]);
    assert_eq!((code, says.as_str()), (2, ""));
    assert!(complains.contains("bad.toml:7:1: unknown key \"orign\" in [site]\n  | orign = "), "{complains}");
    assert!(complains.ends_with("\n\nbad.toml is invalid: 3 problems.\n"), "{complains}");
}

#[test]
fn run_without_a_good_file_starts_nothing() {
    let place = Place::new();
    for arguments in [&[][..], &["run"], &["run", "--config", "proxy.toml"], &["--config", "proxy.toml", "run"]] {
        let (code, _, says) = place.run(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        let expected = "proxy.toml: there is no such file\n  = help: write it, or name another one: --config FILE";
        assert!(says.starts_with(expected) && says.ends_with("Nothing was started.\n"), "{says}");
    }
}

#[test]
fn help_says_where_to_start_and_typos_are_named() {
    let place = Place::new();
    let (code, help, _) = place.run(&["--help"]);
    assert_eq!(code, 0);
    for command in ["run", "check", "demo", "cert", "schema", "completions"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}");
        assert_eq!(place.run(&[command, "--help"]).0, 0, "{command}");
    }
    assert!(help.contains("Start here:") && !help.contains("  watch"), "{help}");
    let (code, _, says) = place.run(&["chek"]);
    assert_eq!(code, 2);
    assert!(says.contains("unrecognized subcommand 'chek'") && says.contains("'check'"), "{says}");
    assert_eq!(place.run(&["--nonsense"]).0, 2);
    assert_eq!(place.run(&["--version"]).1, format!("vestibule {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn cert_makes_what_development_needs() {
    // S132
    let place = Place::new();
    let (code, says, _) = place.run(&["cert", "app.test", "127.0.0.1"]);
    assert_eq!(code, 0);
    assert!(says.contains("certs/server.pem") && says.contains("certs/ca.pem") && says.contains("app.test"), "{says}");
    let mode = |name: &str| fs::metadata(place.path().join("certs").join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("server.key"), mode("ca.key")), (0o600, 0o600));
    let authority = fs::read(place.path().join("certs/ca.pem")).unwrap();
    assert_eq!(place.run(&["cert"]).0, 0, "again");
    assert_eq!(fs::read(place.path().join("certs/ca.pem")).unwrap(), authority, "trusted once is enough");
    let shown = run(Command::new("openssl")
        .args(["x509", "-noout", "-ext", "subjectAltName", "-in", "certs/server.pem"])
        .current_dir(place.path()));
    for name in ["DNS:localhost", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1"] {
        assert!(shown.contains(name), "{shown}");
    }
    let verified = ["verify", "-CAfile", "certs/ca.pem", "-verify_hostname", "localhost", "certs/server.pem"];
    run(Command::new("openssl").args(verified).current_dir(place.path()));
    assert_eq!(place.run(&["cert", "--out", "other"]).0, 0);
    assert!(place.path().join("other/server.pem").exists());
    let (code, _, says) = place.run(&["cert", "https://app.test"]);
    assert_eq!(code, 1);
    assert!(says.contains("\"https://app.test\" is no host name or IP address"), "{says}");
}

#[test]
fn editors_and_shells_get_what_they_need() {
    let place = Place::new();
    let (code, schema, _) = place.run(&["schema"]);
    let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
    assert_eq!((code, &schema["$schema"]), (0, &"https://json-schema.org/draft/2020-12/schema".into()));
    assert_eq!(schema["properties"]["listen"]["properties"]["https"]["examples"][0], "0.0.0.0:443");
    assert_eq!(schema["required"], serde_json::json!(["listen", "tls", "site"]));
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, script, _) = place.run(&["completions", shell]);
        assert!(code == 0 && script.contains("vestibule") && script.contains("check"), "{shell}");
    }
    assert_eq!(place.run(&["completions"]).0, 2);
}

#[test]
fn a_reader_that_leaves_and_a_full_disk_are_no_panic() {
    let place = Place::new();
    let pipe = format!("{BINARY} schema | head -n 1; {BINARY} completions bash | true");
    let output = Command::new("sh").args(["-c", &pipe]).current_dir(place.path()).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "{\n");
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = place.command(&["schema"]).stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("No space left on device"));
    assert_eq!(place.command(&["check"]).stderr(full()).status().unwrap().code(), Some(2));
}
