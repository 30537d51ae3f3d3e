//! The way to the application: plain, TLS, unix sockets; connections that are used again, that went
//! stale, that cannot be made.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rcgen::CertificateParams;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::KeyPair;
use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use vestibule::cert;
use vestibule::clock::Timestamp;

use crate::support::Certificates;
use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::certificates;
use crate::support::configure;
use crate::support::eventually;
use crate::support::file;
use crate::support::parse;
use crate::support::program::Program;
use crate::support::read_head;
use crate::support::unheard;

/// TLS as an application serves it; `clients` is the authority of the clients it wants.
pub fn serving(certificate: &Path, key: &Path, clients: Option<&Path>) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(path).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = CertificateDer::pem_file_iter(certificate).unwrap().map(Result::unwrap).collect();
    builder.with_single_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
}

fn page(_: &Received) -> Reply {
    Reply::text("page")
}

#[tokio::test]
async fn an_application_over_tls_is_verified() {
    // S135
    let ours = certificates();
    let app = Upstream::over_tls("localhost", serving(&ours.certificate, &ours.key, None), page).await;
    let address = app.url().replace("localhost", "127.0.0.1");
    let ca = format!("[site.upstream_tls]\nca = {:?}\n", ours.ca);
    for (url, tls, status) in [
        (app.url(), ca.clone(), 200),
        (address.clone(), ca.clone(), 200),
        (address.clone(), format!("{ca}server_name = \"app.test\"\n"), 200),
        (address.clone(), format!("{ca}server_name = \"another.test\"\n"), 502),
        (app.url(), String::new(), 502),
    ] {
        let (_proxy, mut browser) = Vestibule::at(&url, &format!("{SITE}{tls}")).await;
        assert_eq!(browser.get("/public/x").await.status, status, "{url} {tls}");
    }
    assert_eq!(app.received().len(), 3);
}

#[tokio::test]
async fn an_application_over_tls_hears_the_end_of_an_idle_connection() {
    // RFC 8446 6.1: otherwise it may be somebody else's doing.
    let ours = certificates();
    for client in ["native", "hyper"] {
        let acceptor = TlsAcceptor::from(Arc::new(serving(&ours.certificate, &ours.key, None)));
        let (said, mut heard) = mpsc::unbounded_channel();
        let wire = Wire::start(move |_, stream: TcpStream| {
            let (acceptor, said) = (acceptor.clone(), said.clone());
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                read_head(&mut stream).await;
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                said.send(stream.read_to_end(&mut Vec::new()).await).unwrap();
            }
        })
        .await;
        let url = wire.url().replace("http://", "https://");
        let site = format!("upstream_client = {client:?}\n{SITE}[site.upstream_tls]\nca = {:?}\n", ours.ca);
        let (proxy, mut browser) = Vestibule::at(&url, &site).await;
        assert_eq!(browser.get("/public/x").await.status, 200);

        proxy.clock.advance(Duration::from_secs(120));

        assert_eq!(heard.recv().await.unwrap().unwrap(), 0, "{client}");
    }
}

#[tokio::test]
async fn why_an_application_is_not_trusted_is_in_the_log() {
    // S135, S166
    let foreign = TempDir::new().unwrap();
    let made = cert::make(foreign.path(), &["localhost".to_owned()]).unwrap();
    let app = Upstream::over_tls("localhost", serving(&made.certificate, &made.key, None), page).await;
    let tls = format!("[site.upstream_tls]\nca = {:?}\n", certificates().ca);
    let program = Program::start(&file(&app.url(), &format!("{SITE}{tls}"))).await;

    let answer = program.browser().get("/public/x").await;

    assert_eq!(answer.status, 502);
    assert!(!answer.body.contains("localhost") && !answer.body.contains("certificate"), "{}", answer.body);
    program.answered(1).await;
    let failures = program.events("upstream.failed");
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0]["level"], "warn");
    let cause = failures[0]["error"].as_str().unwrap();
    assert!(cause.contains(&app.url()) && cause.contains("invalid peer certificate"), "{cause}");
    assert!(app.received().is_empty());
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let directory = TempDir::new().unwrap();
    let write = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let garbage = write("garbage.pem", "garbage");
    let broken = write("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let other = write("other.key", &KeyPair::generate().unwrap().serialize_pem());
    let Certificates { ca, certificate, key, .. } = certificates();
    let client = |certificate: &Path, key: &Path| {
        format!("ca = {ca:?}\nclient_certificate = {certificate:?}\nclient_key = {key:?}\n")
    };
    for (keys, expected) in [
        (format!("ca = {garbage:?}"), vec!["no usable certificate", "garbage.pem"]),
        (format!("ca = {broken:?}"), vec!["no usable certificate", "broken.pem"]),
        (format!("ca = {key:?}"), vec!["no usable certificate", "server.key"]),
        (client(certificate, &other), vec!["does not fit", "other.key", "server.pem"]),
        (client(certificate, &garbage), vec!["cannot use", "garbage.pem"]),
        (client(&garbage, key), vec!["garbage.pem"]),
    ] {
        let config = configure("https://localhost", &format!("{SITE}[site.upstream_tls]\n{keys}\n"));
        let error = vestibule::app::check(&config, Timestamp::default()).unwrap_err();
        let text = vestibule::telemetry::ErrorChain(&error).to_string();
        assert!(expected.iter().all(|word| text.contains(word)), "{text}");
    }
}

#[tokio::test]
async fn an_application_may_ask_for_our_certificate() {
    // S74, S135
    let directory = TempDir::new().unwrap();
    let (certificate, key) = (directory.path().join("client.pem"), directory.path().join("client.key"));
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["vestibule.test".to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    std::fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    let ours = certificates();
    let mut tls = serving(&ours.certificate, &ours.key, Some(&certificate));
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let app = Upstream::over_tls("localhost", tls, page).await;
    let ca = format!("{SITE}[site.upstream_tls]\nca = {:?}\n", ours.ca);

    let shown = format!("{ca}client_certificate = {certificate:?}\nclient_key = {key:?}\n");
    for protocol in ["http1", "h2"] {
        let protocol = format!("upstream_protocol = {protocol:?}\n");
        let without = Program::start(&file(&app.url(), &format!("{protocol}{ca}"))).await;
        assert_eq!(without.browser().get("/public/x").await.status, 502);
        without.answered(1).await;
        let failures = without.events("upstream.failed");
        assert!(failures[0]["error"].as_str().unwrap().contains("CertificateRequired"), "{failures:?}");
        let (_proxy, mut with) = Vestibule::at(&app.url(), &format!("{protocol}{shown}")).await;
        assert_eq!(with.get("/public/x").await.status, 200);
    }
}

#[tokio::test]
async fn an_application_may_listen_on_a_unix_socket() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("app.sock");
    let missing = directory.path().join("missing.sock");
    let app = Upstream::on_socket(&path, false, page).await;
    for (upstream_host, host) in [("", "app.test"), ("upstream_host = \"upstream\"\n", "localhost")] {
        let (_proxy, mut browser) = Vestibule::with(&app, &format!("{upstream_host}{SITE}")).await;
        assert_eq!(browser.post("/public/x", &[("a", "b")]).await.status, 200);
        assert_eq!(app.last().header("host"), Some(host));
        assert_eq!(app.last().body, "a=b");
    }

    let (_proxy, mut browser) = Vestibule::at(&format!("unix:{}", missing.display()), SITE).await;
    assert_eq!(browser.get("/public/x").await.status, 502);
}

#[tokio::test]
async fn connections_are_used_again() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    for http2 in [false, true] {
        browser.http2 = http2;
        for _ in 0..5 {
            assert_eq!(browser.get("/").await.status, 200);
            assert_eq!(browser.post("/", &[("a", "b")]).await.status, 200);
        }
    }

    assert_eq!(app.connections(), 1);
}

/// Answers one request on each connection and does with it what `then` says when the next one has
/// arrived; counts requests by their first line.
async fn fickle(then: fn(usize) -> bool) -> (Wire, mpsc::UnboundedReceiver<String>) {
    let (seen, lines) = mpsc::unbounded_channel();
    let wire = Wire::start(move |connection, mut stream| {
        let seen = seen.clone();
        async move {
            for request in 0.. {
                let head = read_head(&mut stream).await;
                if head.is_empty() {
                    return;
                }
                seen.send(head.lines().next().unwrap().to_owned()).unwrap();
                if request > 0 && then(connection) {
                    return;
                }
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
            }
        }
    })
    .await;
    (wire, lines)
}

fn drain(lines: &mut mpsc::UnboundedReceiver<String>) -> Vec<String> {
    std::iter::from_fn(|| lines.try_recv().ok()).collect()
}

#[tokio::test]
async fn a_page_that_was_lost_on_a_stale_connection_is_asked_for_once_more() {
    // S101: the application closes its connections when it reads a second request on them.
    let (wire, mut lines) = fickle(|_| true).await;
    let (_proxy, browser) = Vestibule::at(&wire.url(), SITE).await;
    // Several idle connections: one lost request must not use them all up.
    let busy: Vec<_> = (0..4).map(|_| browser.clone()).collect();
    let opened = busy.into_iter().map(|mut browser| async move { browser.get("/public/first").await.status });
    let opened: Vec<_> = opened.map(tokio::spawn).collect();
    for answer in opened {
        assert_eq!(answer.await.unwrap(), 200);
    }
    drain(&mut lines);

    let answer = browser.clone().get("/public/second").await;

    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok"));
    assert_eq!(drain(&mut lines), ["GET /public/second HTTP/1.1"; 2]);
}

#[tokio::test]
async fn a_connection_whose_answer_filled_the_buffer_is_used_again() {
    // After a read that left no room it counts as readable, though nothing is there.
    for client in ["native", "hyper"] {
        let wire = Wire::start(|_, mut stream: TcpStream| async move {
            loop {
                let head = read_head(&mut stream).await;
                let Some(kilobytes) = head.split(['/', ' ']).find_map(|word| word.parse::<usize>().ok()) else {
                    return;
                };
                let head = |length| format!("HTTP/1.1 200 OK\r\nContent-Length: {length:06}\r\n\r\n");
                let body = "x".repeat(kilobytes * 1024 - head(0).len());
                stream.write_all(format!("{}{body}", head(body.len())).as_bytes()).await.unwrap();
            }
        })
        .await;
        let (_proxy, mut browser) = Vestibule::at(&wire.url(), &format!("upstream_client = {client:?}\n{SITE}")).await;

        for kilobytes in [16, 16, 32, 48, 64, 16, 256, 512, 16] {
            let answer = browser.get(&format!("/public/{kilobytes}")).await;
            assert_eq!((answer.status.as_u16(), answer.body.len() / 1024), (200, kilobytes - 1));
        }

        assert_eq!(wire.connections(), 1, "{client}");
    }
}

#[tokio::test]
async fn a_form_is_never_sent_twice() {
    // S101
    let (wire, mut lines) = fickle(|_| true).await;
    let (_proxy, mut browser) = Vestibule::at(&wire.url(), SITE).await;
    assert_eq!(browser.get("/public/x").await.status, 200);
    for (method, status) in [("POST", 502), ("PUT", 502), ("DELETE", 502)] {
        drain(&mut lines);
        let request = http::Request::builder().method(method).uri("/public/x").body(http_body_util::Full::default());
        assert_eq!(browser.send(request.unwrap()).await.status, status, "{method}");
        assert_eq!(drain(&mut lines), [format!("{method} /public/x HTTP/1.1")]);
        assert_eq!(browser.get("/public/x").await.status, 200);
    }
}

#[tokio::test]
async fn a_connection_that_the_application_closed_is_not_used() {
    // A form is lost only when the application reads it and then gives up, not when it closed before.
    let wire = Wire::start(|_, mut stream: TcpStream| async move {
        let head = read_head(&mut stream).await;
        let mut body = vec![0; if head.starts_with("POST") { 3 } else { 0 }];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let (_proxy, mut browser) = Vestibule::at(&wire.url(), SITE).await;

    for request in 1..=20 {
        let answer = browser.post("/public/x", &[("a", "b")]).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok"), "{request}");
        assert_eq!(wire.connections(), request);
    }
}

#[tokio::test]
async fn a_verified_login_needs_one_connection() {
    // Old applications answer one connection at a time.
    let app = Upstream::start(|request| match (request.path(), request.cookie("in")) {
        ("/login", _) => Reply::redirect("/").header("set-cookie", "in=1").body("You are being redirected."),
        (_, Some(_)) => Reply::text("Welcome"),
        _ => Reply::status(403),
    })
    .await;
    let site = SITE.replace("success = {", "verify = {}\nsuccess = {");
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{site}[limits]\nupstream_connections = 1\n")).await;

    browser.log_in("alice").await;

    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn the_others_work_while_one_application_is_down() {
    let (one, two) = (Upstream::start(|_| Reply::text("one")).await, Upstream::start(|_| Reply::text("two")).await);
    let (_socket, down) = unheard();
    let upstreams = format!("{} http://{down} {}", one.url(), two.url());
    let program = Program::start(&file(&upstreams, SITE)).await;
    let mut browser = program.browser();

    for _ in 0..12 {
        assert_eq!(browser.post("/public/x", &[("a", "b")]).await.status, 200);
    }

    assert!(one.received().len() >= 4 && two.received().len() >= 4, "the others share the work");
    assert_eq!(one.received().len() + two.received().len(), 12);
    assert!(one.received().iter().chain(&two.received()).all(|request| request.body == "a=b"));
    program.answered(12).await;
    let said = program.events("upstream.down");
    assert_eq!(said.len(), 1, "it is said once, not for every request");
    assert!(said[0]["error"].as_str().unwrap().contains(&down.to_string()), "{said:?}");
}

#[tokio::test]
async fn an_application_that_returns_is_used_again() {
    let (socket, address) = unheard();
    let (_proxy, mut browser) = Vestibule::at(&format!("http://{address}"), SITE).await;
    assert_eq!(browser.get("/public/x").await.status, 502);

    let listener = socket.listen(16).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        read_head(&mut stream).await;
    });

    assert_eq!(browser.get("/public/x").await.status, 200);
}

/// One connection, for which a busy machine may have to wait long.
const ONE_BY_ONE: &str = "[limits]\nupstream_connections = 1\n[timeouts]\nconnect = \"1m\"\n";

/// An application that serves one connection until it is closed, and only then the next.
fn single_minded() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while std::io::Read::read(&mut stream, &mut byte).is_ok_and(|read| read == 1) {
                head.push(byte[0]);
                if head.ends_with(b"\r\n\r\n") {
                    head.clear();
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    std::io::Write::write_all(&mut stream, answer).unwrap();
                }
            }
        }
    });
    format!("http://{address}")
}

#[tokio::test]
async fn there_are_no_more_connections_than_allowed_not_even_idle_ones() {
    // S174, VR-43: else one worker's idle connection keeps the other worker out.
    let text = file(&single_minded(), &format!("{SITE}{ONE_BY_ONE}"));
    let (proxy, browser) = Vestibule::of(parse(&text.replace("workers = 1", "workers = 2"))).await;

    for _ in 0..20 {
        assert_eq!(browser.clone().get("/public/x").await.status, 200);
    }
    let at_once =
        (0..50).map(|_| proxy.browser()).map(|mut browser| async move { browser.get("/public/x").await.status });
    let at_once: Vec<_> = at_once.map(tokio::spawn).collect();
    for answer in at_once {
        assert_eq!(answer.await.unwrap(), 200);
    }
}

#[tokio::test]
async fn a_crowd_finds_open_what_the_one_before_needed() {
    // Whoever opens a connection for each request is slow when it matters. But a crowd leaves nothing behind.
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |_| Reply::text("at last").held(&held)).await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for crowd in 1..=3 {
        let asking: Vec<_> = (0..200)
            .map(|_| {
                let mut browser = proxy.browser();
                tokio::spawn(async move { browser.get("/public/x").await.status })
            })
            .collect();
        eventually("all are there", || app.received().len() == 200 * crowd).await;
        hold.notify_waiters();
        for answer in asking {
            assert_eq!(answer.await.unwrap(), 200);
        }
    }
    assert_eq!(app.connections(), 200);

    proxy.advance(Duration::from_secs(11));
    eventually("most of them are closed", || app.open_connections() == 64).await;
    proxy.advance(Duration::from_secs(60));
    eventually("the others as well", || app.open_connections() == 0).await;
}

#[tokio::test]
async fn who_waits_for_a_connection_gets_the_one_that_is_given_back() {
    // S174, VR-43: a new one for each request would cost an application the more, the less it can bear it.
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/public/held" => Reply::text("held").held(&held),
        _ => Reply::text("page"),
    })
    .await;
    let (_proxy, browser) = Vestibule::with(&app, &format!("{SITE}{ONE_BY_ONE}")).await;
    let mut waiting = Vec::new();
    for number in 0..=50 {
        let path = if number == 0 { "/public/held" } else { "/public/x" };
        let mut stream = browser.connect(b"http/1.1").await;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n").as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        waiting.push(stream);
        eventually("the first is asked", || !app.received().is_empty()).await;
    }
    hold.notify_one();

    for stream in &mut waiting {
        assert!(read_head(stream).await.starts_with("HTTP/1.1 200 "));
    }

    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn workers_wait_for_one_anothers_connections_over_http_2_too() {
    // S174
    let app = Upstream::plain().await;
    let text = file(&app.url(), &format!("upstream_protocol = \"h2\"\n{SITE}{ONE_BY_ONE}"));
    let (proxy, _) = Vestibule::of(parse(&text.replace("workers = 1", "workers = 2"))).await;

    let at_once =
        (0..50).map(|_| proxy.browser()).map(|mut browser| async move { browser.get("/public/x").await.status });
    let at_once: Vec<_> = at_once.map(tokio::spawn).collect();

    for answer in at_once {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert!(app.open_connections() <= 1);
}

#[tokio::test]
async fn a_reload_lets_go_of_idle_connections() {
    let url = single_minded();
    let (proxy, mut browser) = Vestibule::at(&url, SITE).await;
    assert_eq!(browser.get("/public/x").await.status, 200);

    proxy.reload(SITE);

    assert_eq!(browser.get("/public/x").await.status, 200);
}

#[tokio::test]
async fn a_connection_is_not_used_when_the_application_is_about_to_close_it() {
    let app = Upstream::start(|_| Reply::text("page").header("keep-alive", "timeout=5, max=100")).await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    for (advance, connections) in [(0, 1), (3900, 1), (4100, 2)] {
        proxy.advance(Duration::from_millis(advance));
        assert_eq!(browser.post("/public/x", &[("a", "b")]).await.status, 200);
        assert_eq!(app.connections(), connections, "after {advance} ms");
    }
}

#[tokio::test]
async fn idle_connections_are_given_up() {
    // Applications with one process per connection are starved by proxies that hold on to idle ones.
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.get("/public/x").await;
    assert_eq!(app.open_connections(), 1);

    proxy.advance(Duration::from_secs(61));

    eventually("the idle connection is closed", || app.open_connections() == 0).await;
}
