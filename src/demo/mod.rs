//! `vestibule demo`: a small old-fashioned application and the proxy in front of it.

pub mod app;
mod pages;
mod socket;

use std::error::Error;
use std::io::ErrorKind;
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::signal::unix::Signal;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;

use crate::app as vestibule;
use crate::app::StartError;
use crate::cert;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::telemetry;

/// Where the demo listens if nobody says otherwise and nobody else does.
const PORT: u16 = 8443;

/// The port that was asked for cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("port {port} cannot be used: name another one with --port, or none for any that is free")]
struct PortTaken {
    port: u16,
    #[source]
    source: StartError,
}

/// Runs until it is told to end.
///
/// # Errors
/// When no port is free, or a temporary directory cannot be written.
pub fn run(port: Option<u16>) -> Result<(), Box<dyn Error>> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // From here on a signal no longer leaves the directory behind.
    let mut signals = runtime.block_on(async { Signals::listen() })?;
    let scratch = Scratch::make()?;
    let made = cert::make(&scratch.0, &[])?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let upstream = listener.local_addr()?;
    runtime.spawn(app::serve(listener));
    let configure = |port| {
        let text = configuration(port, upstream.port());
        let config = Config::parse(&scratch.0.join("proxy.toml"), &text)?.in_memory();
        Ok::<_, Box<dyn Error>>((text, config))
    };
    let mut wanted = match port {
        Some(port) => port,
        None => free_port()?,
    };
    let (mut text, mut config) = configure(wanted)?;
    let _guard = telemetry::init(&config.log)?;
    let mut started = vestibule::start(&config, Arc::new(SystemClock::start()));
    if matches!(started, Err(StartError::Bind(_))) && port.is_none() {
        // Somebody else took it after it was seen to be free.
        wanted = free_port()?;
        (text, config) = configure(wanted)?;
        started = vestibule::start(&config, Arc::new(SystemClock::start()));
    }
    let running = started.map_err(|source| PortTaken { port: wanted, source })?;
    let port = running.https.first().map_or(wanted, |address| address.port());
    // It runs as well when nobody reads this to the end.
    let _unread = writeln!(std::io::stdout(), "{}", introduction(port, upstream.port(), &made.ca, &text));
    runtime.block_on(signals.wait());
    running.remote().cut();
    running.wait();
    Ok(())
}

/// Ctrl-C, a stop from elsewhere, and the end of the terminal.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

/// A directory of our own that goes when the demo ends.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Self> {
        // The name of a demo that was killed may be taken for as long as the machine runs.
        let mut taken = None;
        for number in 0..100 {
            let path = std::env::temp_dir().join(format!("vestibule-demo-{}-{number}", std::process::id()));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => taken = Some(error),
                Err(error) => return Err(error),
            }
        }
        Err(taken.unwrap_or_else(|| ErrorKind::AlreadyExists.into()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left of it is a certificate for localhost that nobody trusts.
        let _left_behind = std::fs::remove_dir_all(&self.0);
    }
}

fn free_port() -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", PORT)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)))?;
    Ok(listener.local_addr()?.port())
}

/// The proxy's configuration for the demo's application.
pub fn configuration(port: u16, upstream: u16) -> String {
    format!(
        r#"[listen]
https = "127.0.0.1:{port}"

[tls]
certificate = "server.pem"
key         = "server.key"

[[site]]
origin   = "https://localhost:{port}"
upstream = "http://127.0.0.1:{upstream}"

[site.login]
path    = "/login"
user    = "form:username"
success = {{ status = 302, location_not = "/login*" }}

[site.logout]
path = "/logout"

[site.access]
public = ["/static/*"]
"#
    )
}

fn introduction(port: u16, upstream: u16, ca: &Path, configuration: &str) -> String {
    let url = format!("https://localhost:{port}");
    let ca = ca.display();
    let users: String = app::USERS.iter().map(|(user, password)| format!("      {user} / {password}\n")).collect();
    let indent = |line: &str| if line.is_empty() { "\n".to_owned() } else { format!("      {line}\n") };
    let configuration: String = configuration.lines().map(indent).collect();
    format!(
        r"
  An old-fashioned application listens on http://127.0.0.1:{upstream}. It cannot be changed, its session cookie is
  insecure, and the login does not renew it. Vestibule stands in front of it. Open

      {url}

  The certificate was made a moment ago, so the browser asks whether you trust it. The users are

{users}
  What to try

   1. Open the page: you are sent to the application's own login form.
   2. Log in with a wrong password, then with the right one. The log below says how each was judged, and why. After five
      wrong ones in a row the next has to wait, twice as long each time.
   3. Look at the cookies in the browser's tools: there is __Host-session, Secure and HttpOnly. The application's
      PHPSESSID is not there: it stays in the session, on the server.
   4. The page shows what the application received: X-Forwarded-User says who you are. Try to forge it:
         curl --cacert {ca} -c jar -d username=alice -d password=wonderland {url}/login
         curl --cacert {ca} -b jar -H 'X-Forwarded-User: admin' {url}/
   5. Open the page in two tabs and log out in one: the clock (a WebSocket) stops in the other.
   6. Copy the value of __Host-session, log out, and use it: it opens nothing.
         curl -i --cacert {ca} --cookie '__Host-session=VALUE' {url}/

  This is the whole configuration

{configuration}
  Stop with Ctrl-C. The log:
"
    )
}
