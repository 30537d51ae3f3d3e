//! `vestibule demo`: a small old-fashioned application and the proxy in front of it.

pub mod app;
mod pages;
mod socket;

use std::error::Error;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::runtime::Builder;

use crate::app as vestibule;
use crate::cert;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::telemetry;

/// Where the demo listens if nobody says otherwise and nobody else does.
const PORT: u16 = 8443;

/// Runs until it is interrupted.
///
/// # Errors
/// When no port is free, or a temporary directory cannot be written.
pub fn run(port: Option<u16>) -> Result<(), Box<dyn Error>> {
    let scratch = Scratch::make()?;
    let made = cert::make(&scratch.0, &[])?;
    let port = match port {
        Some(port) => port,
        None => free_port()?,
    };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))?;
    let upstream = listener.local_addr()?;
    runtime.spawn(app::serve(listener));
    let text = configuration(port, upstream.port());
    let config = Config::parse(&scratch.0.join("proxy.toml"), &text)?;
    let _guard = telemetry::init(&config.log);
    let running = vestibule::start(&config, Arc::new(SystemClock::start()))?;
    println!("{}", introduction(port, upstream.port(), &made.ca, &text));
    runtime.block_on(tokio::signal::ctrl_c())?;
    running.remote().cut();
    running.wait();
    Ok(())
}

/// A directory of our own that goes when the demo ends.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("vestibule-demo-{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
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
    let configuration: String = configuration.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        r"
  An old-fashioned application listens on http://127.0.0.1:{upstream} (its cookie is insecure and never changes).
  Vestibule stands in front of it. Open

      {url}

  and accept the certificate, which was made a moment ago. Users: alice / wonderland, bob / builder

  What to try
    1. Open the page: you are sent to the application's own login form.
    2. Log in with a wrong password, then with the right one. The log below says how each was judged.
    3. Look at the cookies in the browser's tools: there is __Host-session, Secure and HttpOnly. The
       application's PHPSESSID is not there: it stays in the session, on the server.
    4. The page shows what the application received: X-Forwarded-User, which nobody can forge.
    5. Copy the value of __Host-session, log out, and use it: it opens nothing.
           curl --cacert {ca} --cookie '__Host-session=VALUE' {url}/
    6. Open the page in two tabs and log out in one: the clock (a WebSocket) stops in the other.
    7. Without a browser:
           curl --cacert {ca} -c jar -d username=alice -d password=wonderland {url}/login
           curl --cacert {ca} -b jar -H 'X-Forwarded-User: admin' {url}/

  The whole configuration
{configuration}
  Stop with Ctrl-C.
"
    )
}
