//! Clients that take their time: each kind meets its deadline, however much it says meanwhile (S172),
//! and a thousand of them are in nobody's way.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::Browser;
use crate::support::LISTEN;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::file;
use crate::support::frames::END_STREAM;
use crate::support::frames::Frame;
use crate::support::frames::HEADERS;
use crate::support::frames::PING;
use crate::support::frames::Raw;
use crate::support::frames::request;
use crate::support::parse;
use crate::support::program::Program;

const SHORT: Duration = Duration::from_millis(400);

/// With only those timeouts that are waited for: others would end what a busy machine holds up.
async fn start(timeouts: &str) -> (Upstream, Vestibule) {
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::of(parse(&format!("{}\n[timeouts]\n{timeouts}", file(&app.url(), SITE)))).await;
    (app, proxy)
}

/// Connects, and sends a byte every now and then until the other side ends it.
async fn drip_into(address: SocketAddr, bytes: &[u8]) -> String {
    let begun = Instant::now();
    drip(TcpStream::connect(address).await.unwrap(), begun, bytes).await.0
}

/// Sends a byte every now and then until the other side ends it, which must be neither at once nor
/// never; returns what came back, and the longest pause there was.
async fn drip(mut stream: impl AsyncRead + AsyncWrite + Unpin, begun: Instant, bytes: &[u8]) -> (String, Duration) {
    let (mut last, mut pause) = (begun, Duration::ZERO);
    let mut answer = Vec::new();
    let mut bytes = bytes.iter().cycle();
    loop {
        let mut buffer = [0; 1024];
        match timeout(Duration::from_millis(20), stream.read(&mut buffer)).await {
            Ok(Ok(0) | Err(_)) => break,
            Ok(Ok(read)) => answer.extend_from_slice(&buffer[..read]),
            // It may be cut at this moment.
            Err(_) => {
                drop(stream.write_all(&[*bytes.next().unwrap()]).await);
                pause = pause.max(last.elapsed());
                last = Instant::now();
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "still open");
    }
    pause = pause.max(last.elapsed());
    assert!(begun.elapsed() >= SHORT.mul_f32(0.9), "{:?}", begun.elapsed());
    (String::from_utf8_lossy(&answer).into_owned(), pause)
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), future).await.expect("still open")
}

#[tokio::test]
async fn a_handshake_that_drips_in_is_cut() {
    // S172
    let (_app, proxy) = start("handshake = '400ms'\n").await;
    // A record that is announced and does not come.
    let mut hello = vec![22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    hello.extend([7; 400]);
    assert_eq!(drip_into(proxy.https, &hello).await, "");
}

#[tokio::test]
async fn a_proxy_header_that_drips_in_is_cut() {
    // S53, S172
    let app = Upstream::legacy().await;
    let listen = LISTEN.replace("workers", "trusted_proxies = \"127.0.0.1\"\nproxy_protocol = true\nworkers");
    let short = "[timeouts]\nhandshake = '400ms'\nheader = '400ms'\n";
    let text = format!("{}\n{short}", file(&app.url(), SITE).replace(LISTEN, &listen));
    let (proxy, _) = Vestibule::of(parse(&text)).await;
    for address in [proxy.https, proxy.http] {
        let header = [b"PROXY TCP6 ".as_slice(), &[b'1'; 90]].concat();
        assert_eq!(drip_into(address, &header).await, "");
    }
}

#[tokio::test]
async fn a_plain_head_that_drips_in_is_cut() {
    // S134, S172
    let (_app, proxy) = start("header = '400ms'\nkeep_alive = '400ms'\n").await;
    drip_into(proxy.http, b"GET / HTTP/1.1\r\nX: ").await;
    soon(TcpStream::connect(proxy.http).await.unwrap().read(&mut [0; 1])).await.expect("who says nothing is left");
}

#[tokio::test]
async fn a_head_in_frames_that_does_not_end_is_cut() {
    // S113, S172: one that waits for its CONTINUATION, one that only pings, one that says nothing.
    let (app, proxy) = start("keep_alive = '2s'\n").await;
    let begun = Instant::now();
    let mut unfinished = Raw::connect(proxy.https, &[]).await;
    unfinished.send(&Frame::new(HEADERS, END_STREAM, 1, request("GET", "/public/x"))).await.unwrap();
    let mut silent = Raw::connect(proxy.https, &[]).await;
    let mut pinging = Raw::connect(proxy.https, &[]).await;

    soon(async {
        while unfinished.receive().await.is_some() {}
        while silent.receive().await.is_some() {}
        while pinging.send(&Frame::new(PING, 0, 0, [0; 8])).await.is_ok() && pinging.receive().await.is_some() {}
    })
    .await;

    assert!(begun.elapsed() >= Duration::from_millis(1800), "{:?}", begun.elapsed());
    assert!(app.received().is_empty());
}

/// Drips a body without a pause that is too long, until all of it has taken longer than several of them.
async fn drip_body(browser: Browser, head: String) {
    let mut held_up = 0;
    loop {
        let mut stream = browser.connect(b"http/1.1").await;
        let begun = Instant::now();
        stream.write_all(head.as_bytes()).await.unwrap();
        let (answer, pause) = drip(stream, begun, b"1\r\nx\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{head} {answer}");
        let took = begun.elapsed();
        if took > SHORT * 8 {
            return;
        }
        // Then the machine has made a pause that this client does not make.
        held_up += 1;
        assert!(pause >= SHORT / 2 && held_up < 5, "{took:?}, with a pause of {pause:?}");
    }
}

#[tokio::test]
async fn a_body_that_drips_in_is_refused() {
    // S172: to the application, and where it is judged first.
    let (app, proxy) = start("body_idle = '400ms'\n").await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    let mut dripping = JoinSet::new();
    for (start, lines) in [("POST /public/x", ""), ("POST /login", form)] {
        for framing in ["Content-Length: 2000\r\n", "Transfer-Encoding: chunked\r\n"] {
            let head = format!("{start} HTTP/1.1\r\nHost: app.test\r\n{lines}{framing}\r\n");
            dripping.spawn(drip_body(proxy.browser(), head));
        }
    }
    while let Some(dripped) = dripping.join_next().await {
        dripped.unwrap();
    }
    assert!(app.received().is_empty());
    eventually("the application is left alone", || app.open_connections() == 0).await;
}

#[tokio::test]
async fn a_body_that_comes_in_small_pieces_in_time_is_taken() {
    let (app, proxy) = start("body_idle = '2s'\n").await;
    let mut stream = proxy.browser().connect(b"http/1.1").await;
    let head = "POST /public/x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\nContent-Length: 40000\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let begun = Instant::now();
    let mut sent = 0;
    while sent < 40_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        // As much as is due, however long the sleep was.
        let due = 40_000.min(begun.elapsed().as_millis() as usize * 10);
        stream.write_all(&vec![b'x'; due - sent]).await.unwrap();
        sent = due;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(app.last().body.len(), 40_000);
}

const CROWD: usize = 1000;
/// What one of them may cost, in KiB, before optimisation.
const EACH: u64 = 80;

/// One of the crowd, in one of four ways of being slow.
async fn slow_client(browser: &Browser, proxy: SocketAddr, kind: usize) -> Box<dyn Stream> {
    match kind {
        0 => Box::new(TcpStream::connect(proxy).await.unwrap()),
        1 => {
            let mut stream = TcpStream::connect(proxy).await.unwrap();
            stream.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
            Box::new(stream)
        }
        2 => {
            let mut stream = browser.connect(b"http/1.1").await;
            stream.write_all(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\nX: ").await.unwrap();
            Box::new(stream)
        }
        _ => {
            let mut stream = browser.connect(b"http/1.1").await;
            let head = b"POST /login HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2000\r\n\
                         Content-Type: application/x-www-form-urlencoded\r\n\r\n";
            stream.write_all(head).await.unwrap();
            Box::new(stream)
        }
    }
}

/// Says a little now and then until it is cut.
async fn drip_on(mut stream: Box<dyn Stream>) {
    let mut answer = Vec::new();
    loop {
        match timeout(Duration::from_millis(500), stream.read_buf(&mut answer)).await {
            Ok(Ok(0) | Err(_)) => return,
            Ok(Ok(_)) => {}
            Err(_) => drop(stream.write_all(b"x").await),
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

#[tokio::test]
async fn a_thousand_slow_clients_are_in_nobodys_way() {
    // S172, S173, S175: every kind of slowness at once, and each of them ends.
    let files = rlimit::increase_nofile_limit(u64::MAX).unwrap();
    assert!(files > 2 * CROWD as u64, "this test needs more file descriptors than {files}: raise ulimit -Hn");
    let app = Upstream::legacy().await;
    let timeouts = "[timeouts]\nhandshake = \"4s\"\nheader = \"4s\"\nbody_idle = \"4s\"\n";
    let limits = format!("[limits]\nconnections_per_address = {}\n", CROWD + 10);
    let program = Program::start(&format!("{}\n{timeouts}{limits}", file(&app.url(), SITE))).await;
    let mut other = program.browser().over_http2();
    assert_eq!(other.fetch("/public/x").await.status, 200, "everything was used once");
    let before = program.peak_memory();

    let browser = program.browser();
    let mut crowd = Vec::with_capacity(CROWD);
    for number in 0..CROWD {
        crowd.push(slow_client(&browser, program.https, number % 4).await);
    }
    assert_eq!(other.fetch("/public/x").await.status, 200);
    let full = program.peak_memory();
    let asked = app.received().len();
    let mut waiting: JoinSet<()> = crowd.into_iter().map(drip_on).collect();
    let mut served = 0;
    let all_cut = async {
        while waiting.join_next().await.is_some() {
            if waiting.len().is_multiple_of(50) {
                assert_eq!(other.fetch("/public/x").await.status, 200);
                served += 1;
            }
        }
    };
    timeout(Duration::from_secs(60), all_cut).await.expect("some are still open");

    assert!(full < before + EACH * CROWD as u64, "{before} KiB before, {full} KiB with all of them");
    let after = program.peak_memory();
    assert!(after < full + 2048, "{full} KiB with all of them, {after} KiB later");
    assert_eq!(app.received().len(), asked + served, "nobody else was");
}
