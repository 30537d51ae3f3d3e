//! The clients.

use std::fs::File;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use vestibule::cert;

use crate::process::Server;
use crate::process::signal;

/// What logs in.
const LOGIN: &str = "user=alice&password=secret";
const FORM: &str = "content-type: application/x-www-form-urlencoded";

/// Whether a handshake goes on from an earlier one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Resume {
    Never,
    Always,
}

/// A connection on which nothing happens.
pub type Held = StreamOwned<ClientConnection, TcpStream>;

/// Someone with a browser who is logged in.
pub struct Client {
    roots: Arc<RootCertStore>,
    /// For what h2load reads and writes.
    directory: PathBuf,
}

impl Client {
    pub fn new(certificate: &cert::Made, directory: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        let file = BufReader::new(File::open(&certificate.ca).unwrap());
        for certificate in CertificateDer::pem_reader_iter(file) {
            roots.add(certificate.unwrap()).unwrap();
        }
        std::fs::write(directory.join("upload"), vec![b'x'; 1024 * 1024]).unwrap();
        std::fs::write(directory.join("login"), LOGIN).unwrap();
        Self { roots: Arc::new(roots), directory: directory.to_owned() }
    }

    /// GET requests on kept connections, with a session where there are sessions.
    pub fn requests(&self, server: &Server, count: u32, http2: bool, path: &str) -> Load {
        self.load(server, count, http2, path, &[])
    }

    /// POST requests with 1 MiB.
    pub fn uploads(&self, server: &Server, count: u32, http2: bool) -> Load {
        self.load(server, count, http2, "/upload", &["-d", &self.file("upload")])
    }

    fn load(&self, server: &Server, count: u32, http2: bool, path: &str, more: &[&str]) -> Load {
        let cookie = format!("cookie: {}", self.session(server));
        let connections = if http2 { &["-c", "16", "-m", "4"][..] } else { &["-c", "32", "-m", "1", "--h1"] };
        let more = [connections, &["-H", &cookie, "-H", "sec-fetch-site: same-origin"], more].concat();
        h2load(server, count, path, &format!("{count} 2xx, 0 3xx, 0 4xx"), &more)
    }

    /// Logins as from so many browsers at once; how long they took together.
    pub fn logins(&self, server: &Server, count: u32, at_once: u32) -> Duration {
        let started = Instant::now();
        let more = ["--h1", "-c", &at_once.to_string(), "-m", "1", "-H", FORM, "-d", &self.file("login")];
        h2load(server, count, "/login", &format!("0 2xx, {count} 3xx, 0 4xx"), &more).end();
        started.elapsed()
    }

    /// How long requests with a session take of which so many come in a second, in microseconds.
    pub fn latencies(&self, server: &Server, count: u32, rate: u32) -> Vec<u64> {
        const CONNECTIONS: u32 = 16;
        let log = self.file("latencies");
        let _of_the_turn_before = std::fs::remove_file(&log);
        let cookie = format!("cookie: {}", self.session(server));
        let (rate, connections) = ((rate / CONNECTIONS).to_string(), CONNECTIONS.to_string());
        let more = ["--h1", "-c", &connections, "-m", "1", "-H", &cookie, "--rps", &rate, "--log-file", &log];
        h2load(server, count, "/page", &format!("{count} 2xx, 0 3xx, 0 4xx"), &more).end();
        let lines = std::fs::read_to_string(log).unwrap();
        lines.lines().map(|line| line.split('\t').nth(2).unwrap().parse().unwrap()).collect()
    }

    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// So many connections on which a page was asked for.
    pub fn idle(&self, server: &Server, count: u32) -> Vec<Held> {
        let _as_many_as_may_be = rlimit::increase_nofile_limit(u64::MAX);
        let cookie = self.session(server);
        let settings = self.settings(Resume::Never);
        let ask = format!("GET /page HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", server.authority());
        let connect = |_| {
            let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            let name = "bench.test".try_into().unwrap();
            let mut stream = StreamOwned::new(ClientConnection::new(Arc::clone(&settings), name).unwrap(), stream);
            stream.write_all(ask.as_bytes()).unwrap();
            let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
            while !answer.ends_with(b"xxxx") {
                let read = stream.read(&mut piece).unwrap();
                assert!(read > 0, "{}: {}", server.name, String::from_utf8_lossy(&answer));
                answer.extend_from_slice(&piece[..read]);
            }
            stream
        };
        (0..count).map(connect).collect()
    }

    /// Connections up to the first ticket, which ends what a server does for a handshake.
    pub fn handshakes(&self, server: &Server, count: u32, resume: Resume) {
        let settings = self.settings(resume);
        let first = u32::from(resume == Resume::Always);
        for turn in 0..count + first {
            let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
            let mut connection =
                ClientConnection::new(Arc::clone(&settings), "bench.test".try_into().unwrap()).unwrap();
            while connection.is_handshaking() {
                connection.complete_io(&mut stream).unwrap();
            }
            while connection.tls13_tickets_received() == 0 {
                connection.read_tls(&mut stream).unwrap();
                connection.process_new_packets().unwrap();
            }
            let resumed = connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed);
            assert_eq!(resumed, resume == Resume::Always && turn > 0, "{}", server.name);
        }
    }

    /// Our cookie after a login; others have none.
    pub fn session(&self, server: &Server) -> String {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
        let connection = ClientConnection::new(self.settings(Resume::Never), "bench.test".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let length = LOGIN.len();
        let head = format!("POST /login HTTP/1.1\r\nhost: {}\r\ncontent-length: {length}\r\n", server.authority());
        let kind = format!("{FORM}\r\nuser-agent: bench\r\nconnection: close\r\n\r\n");
        stream.write_all(format!("{head}{kind}{LOGIN}").as_bytes()).unwrap();
        let mut answer = Vec::new();
        // Not everyone says goodbye in TLS.
        let _whole = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let cookie = answer.lines().filter_map(|line| line.strip_prefix("set-cookie: ")).next();
        assert_eq!(cookie.is_some(), server.has_sessions, "{answer}");
        cookie.and_then(|cookie| cookie.split(';').next()).unwrap_or("none=at-all").to_owned()
    }

    /// How it speaks TLS.
    pub fn settings(&self, resume: Resume) -> Arc<ClientConfig> {
        // The one group that all versions of nginx have.
        let provider = rustls::crypto::CryptoProvider {
            kx_groups: vec![aws_lc_rs::kx_group::X25519],
            ..aws_lc_rs::default_provider()
        };
        let mut settings = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth();
        if resume == Resume::Never {
            settings.resumption = Resumption::disabled();
        }
        Arc::new(settings)
    }
}

/// Requests under way.
#[must_use = "it is to be waited for"]
pub struct Load {
    process: Child,
    server: &'static str,
    /// What it says of itself when all were answered as they should be.
    expected: String,
}

impl Load {
    /// Asks for nothing more for now.
    pub fn pause(&self) {
        signal(self.process.id(), "STOP");
    }

    /// Goes on after a pause.
    pub fn go_on(&self) {
        signal(self.process.id(), "CONT");
    }

    /// Whether all were answered.
    pub fn is_over(&mut self) -> bool {
        self.process.try_wait().unwrap().is_some()
    }

    /// Waits until all were answered.
    pub fn end(self) {
        let output = self.process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(&self.expected), "{}: {said}", self.server);
    }
}

fn h2load(server: &Server, count: u32, path: &str, expected: &str, more: &[&str]) -> Load {
    let mut load = Command::new("h2load");
    load.args(["-n", &count.to_string(), "-t", "1", "-H", "user-agent: bench"]).args(more);
    load.args(["--connect-to", &format!("127.0.0.1:{}", server.port)]);
    load.arg(format!("https://{}{path}", server.authority())).stdout(Stdio::piped()).stderr(Stdio::null());
    let process = load.spawn().expect("h2load");
    Load { process, server: server.name, expected: format!("status codes: {expected}") }
}
