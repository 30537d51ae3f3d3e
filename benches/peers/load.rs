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

/// What a browser says beside its cookies when a link is followed.
const BROWSER: [&str; 13] = [
    "accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
    "accept-encoding: gzip, deflate, br, zstd",
    "accept-language: en-GB,en;q=0.9,de;q=0.8",
    "cache-control: max-age=0",
    "priority: u=0, i",
    "referer: https://bench.test/page",
    "sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"",
    "sec-ch-ua-mobile: ?0",
    "sec-ch-ua-platform: \"Linux\"",
    "sec-fetch-dest: document",
    "sec-fetch-mode: navigate",
    "sec-fetch-user: ?1",
    "upgrade-insecure-requests: 1",
];

/// What other parts of a site have left in a browser: statistics, help, settings, none of it a session.
const COOKIES: [&str; 24] = [
    "_ga=GA1.2.1834958812.1763971200",
    "_ga_4XK2M8P0QZ=GS2.1.s1764234000$o14$g1$t1764235512$j37$l0$h0",
    "_gid=GA1.2.604192881.1764230400",
    "_gcl_au=1.1.1298430571.1763971201",
    "_fbp=fb.1.1763971201334.482019384756102938",
    "_hjSessionUser_2938475=eyJpZCI6IjZmMWRlMzJhLTFmYzUtNTU0Ny05ZGQ1LTBhMzg0NzU2MTAyOSIsImNyZWF0ZWQiOjE3NjM5NzEyMDF9",
    "__cf_bm=Zk3rW9qPnYd8sLwXhTgBvCmJ2aEoR5uIe7fN1tGx0Ys-1764235500-1.0.1.1-Jq7xWdTzLkPnRmVbYcHsAgEuFoXi3w8K2t5v9B1n4M6",
    "csrftoken=Xc8ZpQ2vLr5tNwYb7KdMhGsJ9fAeUiOx3yTzRqWnBvCmPlEk4oSgDjHa6uVt1X0Z",
    "OptanonConsent=isGpcEnabled=0&datestamp=Thu+Nov+27+2025+09%3A25%3A12+GMT%2B0000&version=202405.2.0&isIABGlobal=false&\
     hosts=&consentId=0f5d3c1e-8a7b-4d2f-9c6e-5b4a39281706&interactionCount=2&landingPath=NotLandingPage&\
     groups=C0001%3A1%2CC0002%3A1%2CC0003%3A1%2CC0004%3A0&geolocation=DE%3BBE&AwaitingReconsent=false",
    "OptanonAlertBoxClosed=2025-11-24T08:00:11.732Z",
    "intercom-id-qk3l9z7m=5e0c6a3d-7b18-4f92-a1d4-c83b20e9f657",
    "intercom-device-id-qk3l9z7m=9d41f7a2-0c5b-46e8-b3f1-e7a2c8d40b69",
    "hubspotutk=4c1f9b7a2e6d8053fa91c7b3e5d20846",
    "__hstc=184920571.4c1f9b7a2e6d8053fa91c7b3e5d20846.1763971202881.1764148211094.1764234001553.9",
    "__hssc=184920571.3.1764234001553",
    "ajs_anonymous_id=%22b7e2d1f0-3c4a-4b58-9e67-1a0d8f2c5b93%22",
    "ajs_user_id=%2248213%22",
    "mp_8f3a1c_mixpanel=%7B%22distinct_id%22%3A%20%22%24device%3A19ab4c7d2e8f01-0b3c5d7e9f1a2b-26011d51-1fa400-\
     19ab4c7d2e8f01%22%2C%22%24initial_referrer%22%3A%20%22%24direct%22%2C%22%24initial_referring_domain%22%3A%20%22\
     %24direct%22%2C%22__mps%22%3A%20%7B%7D%2C%22__mpus%22%3A%20%7B%7D%7D",
    "amplitude_id_fef1e872c952688acd962d30aa545b9e=eyJkZXZpY2VJZCI6ImE3ZDIxYjRjLTVlNmYtNDgzOS1iMGMxLWQyZTNmNGE1YjZjNyIsInVz\
     ZXJJZCI6bnVsbCwib3B0T3V0IjpmYWxzZSwibGFzdEV2ZW50VGltZSI6MTc2NDIzNTUxMjAwMCwiZXZlbnRJZCI6NDEsInNlcXVlbmNlTnVtYmVyIjo0MX0=",
    "_uetsid=3b9f6c40cb5911f0a1d2c7e8f9b01234",
    "_uetvid=7e1a2b30c9d811f0b4c5d6e7f8091a2b",
    "theme=dark",
    "locale=en-GB",
    "recently_viewed=48213|48190|47755|47002|46981|46544|46120|45987|45871|45002|44876|44123|43999|43501|43002|42876",
];

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

    /// The same with the fields of a browser that has been around for a while, and 2 KiB of cookies.
    pub fn pages(&self, server: &Server, count: u32, http2: bool, path: &str) -> Load {
        let session = self.session(server);
        let cookies = std::iter::once(session.as_str()).chain(COOKIES);
        // Over HTTP/2 browsers send each by itself (RFC 9113 8.2.3).
        let cookies: Vec<String> = match http2 {
            true => cookies.map(|cookie| format!("cookie: {cookie}")).collect(),
            false => vec![format!("cookie: {}", cookies.collect::<Vec<_>>().join("; "))],
        };
        let fields = BROWSER.into_iter().chain(cookies.iter().map(String::as_str));
        self.load_with(server, count, http2, path, &fields.flat_map(|field| ["-H", field]).collect::<Vec<_>>())
    }

    /// POST requests with 1 MiB.
    pub fn uploads(&self, server: &Server, count: u32, http2: bool) -> Load {
        self.load(server, count, http2, "/upload", &["-d", &self.file("upload")])
    }

    fn load(&self, server: &Server, count: u32, http2: bool, path: &str, more: &[&str]) -> Load {
        let cookie = format!("cookie: {}", self.session(server));
        self.load_with(server, count, http2, path, &[&["-H", &cookie], more].concat())
    }

    fn load_with(&self, server: &Server, count: u32, http2: bool, path: &str, more: &[&str]) -> Load {
        let connections = if http2 { &["-c", "16", "-m", "4"][..] } else { &["-c", "32", "-m", "1", "--h1"] };
        let more = [connections, &["-H", "sec-fetch-site: same-origin"], more].concat();
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
        // Where there are none, one as long.
        cookie.and_then(|cookie| cookie.split(';').next()).map_or_else(|| format!("none={:x<53}", ""), str::to_owned)
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
