//! How many allocations one authenticated request costs, in the whole process: the proxy with one worker, a client
//! on a connection that stays open, and an application that needs none. They are the same each time, and must not
//! become more unnoticed. It is a program of its own because it has an allocator of its own.

#![allow(clippy::unwrap_used)] // A panic is how a test fails.

use std::alloc::System;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::RootCertStore;
use rustls::StreamOwned;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use stats_alloc::INSTRUMENTED_SYSTEM;
use stats_alloc::StatsAlloc;
use vestibule::app;
use vestibule::cert;
use vestibule::clock::ManualClock;
use vestibule::clock::Timestamp;
use vestibule::config::Config;
use vestibule::store::memory::MemoryStore;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 200;
/// Those of the client are among them, those of the log are not: nobody reads it here.
const MOST: usize = 20;
/// More for dozens of cookies: the list of them grows, and none has memory of its own.
const MORE: usize = 6;

/// Answers each request on each connection with a page of one KiB; the first with a login.
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    let page = format!(
        "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/html\r\nETag: \"1\"\r\nContent-Length: 1024\r\n\r\n{}",
        "x".repeat(1024)
    );
    let login = "HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n";
    let mut buffer = [0; 8192];
    let mut used = 0;
    loop {
        match stream.read(&mut buffer[used..]) {
            Ok(0) | Err(_) => return,
            Ok(read) => used += read,
        }
        let is_login = buffer.starts_with(b"POST");
        let end: &[u8] = if is_login { b"password=secret" } else { b"\r\n\r\n" };
        if buffer[..used].ends_with(end) {
            let answer = if is_login { login } else { &page };
            stream.write_all(answer.as_bytes()).unwrap();
            used = 0;
        }
    }
}

/// A client of one connection.
struct Client {
    stream: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

impl Client {
    fn connect(address: SocketAddr, ca: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connection = ClientConnection::new(Arc::new(config), "app.test".try_into().unwrap()).unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: StreamOwned::new(connection, stream), buffer: vec![0; 16 * 1024] }
    }

    /// The answer to a request: its head, and a body of this length.
    fn ask(&mut self, request: &str, body: usize) -> &str {
        self.stream.write_all(request.as_bytes()).unwrap();
        let mut used = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[used..]).unwrap();
            assert!(read > 0, "the connection has ended");
            used += read;
            let end = self.buffer[..used].windows(4).position(|window| window == b"\r\n\r\n");
            if end.is_some_and(|end| used == end + 4 + body) {
                return str::from_utf8(&self.buffer[..used]).unwrap();
            }
        }
    }
}

/// Allocations of a page for a session, through this client of the application, with further cookies.
fn allocations(upstream_client: &str, cookies: &str) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let made = cert::make(directory.path(), &["app.test".to_owned()]).unwrap();
    let config = format!(
        r#"
        [listen]
        https = "127.0.0.1:0"
        http = "127.0.0.1:0"
        workers = 1
        [admin]
        listen = "off"
        [tls]
        certificate = {:?}
        key = {:?}
        [[site]]
        origin = "https://app.test"
        upstream = "http://{}"
        upstream_client = "{upstream_client}"
        [site.login]
        path = "/login"
        user = "form:username"
        success = {{ status = 302 }}
        "#,
        made.certificate,
        made.key,
        application()
    );
    let config = Config::parse(Path::new("proxy.toml"), &config).unwrap_or_else(|problems| panic!("{problems}"));
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_800_000_000_000)));
    let running = app::start_with_store(&config, Arc::new(MemoryStore::default()), clock).unwrap();
    let mut client = Client::connect(running.https[0], &made.ca);
    let form = "username=alice&password=secret";
    let login = format!(
        "POST /login HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\nSec-Fetch-Site: same-origin\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        form.len()
    );
    let answer = client.ask(&login, 0);
    let (_, cookie) = answer.split_once("set-cookie: ").unwrap();
    let (cookie, _) = cookie.split_once(';').unwrap();
    let request = format!(
        "GET /page?a=b HTTP/1.1\r\nHost: app.test\r\nUser-Agent: Mozilla/5.0\r\nAccept: text/html\r\n\
         Accept-Language: en\r\nAccept-Encoding: gzip\r\nCookie: {cookie}{cookies}\r\nSec-Fetch-Site: none\r\n\
         Sec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n"
    );
    // What is done once, or seldom, is not counted: the least of several rounds.
    let counts = (0..6).map(|_| {
        let before = INSTRUMENTED_SYSTEM.stats();
        for _ in 0..REQUESTS {
            assert!(client.ask(&request, 1024).starts_with("HTTP/1.1 200 OK"));
        }
        let after = INSTRUMENTED_SYSTEM.stats();
        let count = |stats: stats_alloc::Stats| stats.allocations + stats.reallocations;
        (count(after) - count(before)) / REQUESTS
    });
    let least = counts.min().unwrap();
    running.remote().cut();
    running.stop();
    least
}

#[test]
fn a_request_of_a_session_costs_so_many_allocations_and_no_more() {
    let (native, hyper) = (allocations("native", ""), allocations("hyper", ""));
    let cookies: String = (0..48).map(|number| format!("; visitor_{number}=a%20b.c")).collect();
    let many = allocations("native", &cookies);

    println!("native: {native}, hyper: {hyper}, with 48 cookies: {many}");
    assert!(many <= native + MORE, "{many} with 48 cookies instead of {native} and {MORE}");
    assert!(native <= MOST, "{native} instead of {MOST} allocations");
    assert!(native < hyper, "{native} are not less than the {hyper} of the library's client");
}
