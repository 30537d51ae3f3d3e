//! The two servers and the application behind them.

use std::fs::File;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use vestibule::cert;

/// A running server. Dropping it ends it.
pub struct Server {
    pub name: &'static str,
    pub port: u16,
    process: Child,
}

impl Server {
    fn start(name: &'static str, port: u16, core: &str, command: &[&str], stderr: File) -> Self {
        let process = Command::new("taskset")
            .args(["-c", core])
            .args(command)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut server = Self { name, port, process };
        let deadline = Instant::now() + Duration::from_secs(10);
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
}

impl Drop for Server {
    fn drop(&mut self) {
        // nginx ends its workers only when it is asked to.
        let _asked = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ended = self.process.wait();
    }
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
fn time_of(thread: &Path) -> Duration {
    let text = std::fs::read_to_string(thread.join("schedstat")).unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// Where the servers find their files.
pub struct Setup<'a> {
    directory: &'a Path,
    certificate: &'a cert::Made,
    application: u16,
}

impl<'a> Setup<'a> {
    pub fn new(directory: &'a Path, certificate: &'a cert::Made) -> Self {
        Self { directory, certificate, application: free_port() }
    }

    /// One that costs next to nothing: nginx with 1 KiB in its memory.
    pub fn application(&self) -> Server {
        let port = self.application;
        let body = "x".repeat(1024);
        let server = format!(
            "access_log off; server {{ listen 127.0.0.1:{port}; location = /login {{ return 302 /; }}
             location / {{ default_type text/plain; return 200 '{body}'; }} }}"
        );
        self.start_nginx("application", port, "1", &server)
    }

    /// nginx as one would set it up for speed: connections to the application are kept, nobody is asked
    /// who they are.
    pub fn nginx(&self, logged: bool) -> Server {
        let (port, application) = (free_port(), self.application);
        let (certificate, key) = (self.certificate.certificate.display(), self.certificate.key.display());
        let log = if logged { format!("{}/{port}.log", self.directory.display()) } else { "off".to_owned() };
        let server = format!(
            "access_log {log};
             upstream application {{ server 127.0.0.1:{application}; keepalive 256; keepalive_requests 1000000000; }}
             server {{
                 listen 127.0.0.1:{port} ssl http2;
                 server_name bench.test;
                 ssl_certificate {certificate};
                 ssl_certificate_key {key};
                 ssl_protocols TLSv1.3;
                 ssl_ecdh_curve X25519;
                 location / {{
                     proxy_pass http://application;
                     proxy_http_version 1.1;
                     proxy_set_header Connection '';
                     proxy_set_header Host $http_host;
                     proxy_set_header X-Forwarded-For $remote_addr;
                     proxy_set_header X-Forwarded-Proto https;
                 }}
             }}"
        );
        self.start_nginx("nginx", port, "0", &server)
    }

    fn start_nginx(&self, name: &'static str, port: u16, core: &str, http: &str) -> Server {
        let own = self.directory.join(format!("nginx-{port}"));
        std::fs::create_dir(&own).unwrap();
        let at = own.display();
        let settings = format!(
            "daemon off; worker_processes 1; pid {at}/pid; error_log {at}/error.log;
             events {{ worker_connections 4096; }}
             http {{
                 client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
                 uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;
                 keepalive_requests 1000000000; keepalive_timeout 1h;
                 {http}
             }}"
        );
        let file = own.join("nginx.conf");
        std::fs::write(&file, settings).unwrap();
        let log = File::create(own.join("stderr.log")).unwrap();
        Server::start(name, port, core, &["nginx", "-c", &file.display().to_string(), "-p", &at.to_string()], log)
    }

    /// Vestibule with every check, but for what `session` says; its log goes to a file.
    pub fn vestibule(&self, logged: bool, session: &str) -> Server {
        let (port, application) = (free_port(), self.application);
        let (certificate, key) = (self.certificate.certificate.display(), self.certificate.key.display());
        let settings = format!(
            "[listen]
             https = '127.0.0.1:{port}'
             workers = 1
             [tls]
             certificate = '{certificate}'
             key = '{key}'
             [log]
             access = {logged}
             [store]
             url = 'memory:'
             {session}
             [[site]]
             origin = 'https://bench.test:{port}'
             upstream = 'http://127.0.0.1:{application}'
             [site.login]
             path = '/login'
             user = 'form:user'
             success = {{ status = 302 }}"
        );
        let file = self.directory.join(format!("{port}.toml"));
        std::fs::write(&file, settings).unwrap();
        let log = File::create(self.directory.join(format!("{port}.log"))).unwrap();
        let program = env!("CARGO_BIN_EXE_vestibule");
        Server::start("vestibule", port, "0", &[program, "run", "--config", &file.display().to_string()], log)
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// What was compared.
pub fn versions() -> String {
    let says = |program: &str, argument: &str| {
        let output = Command::new(program).arg(argument).output().unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).lines().next().unwrap_or_default().to_owned()
    };
    let ours = says(env!("CARGO_BIN_EXE_vestibule"), "--version");
    format!("{ours}; {}; {}; {}", says("nginx", "-v"), says("h2load", "--version"), says("uname", "-sr"))
}
