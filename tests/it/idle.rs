//! Connections on which nothing happens (S172).

use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::file;
use crate::support::parse;
use crate::support::tls::BOTH;
use crate::support::tls::client;
use crate::support::tls::get;
use crate::support::tls::handshake;

const SHORT: Duration = Duration::from_millis(400);
const IDLE: Duration = Duration::from_secs(2);

/// With this timeout for reading a head, and this for waiting for the next, which a busy machine must not need for the
/// first.
async fn start(header: &str, keep_alive: &str) -> (Upstream, Vestibule, Arc<Notify>) {
    start_with(header, keep_alive, "400ms").await
}

async fn start_with(header: &str, keep_alive: &str, body_idle: &str) -> (Upstream, Vestibule, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let app = Upstream::start(move |request| match request.path() {
        "/public/slow" => Reply::text("at last").held(&held),
        "/public/endless" => {
            let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
            let given_up = Arc::clone(&held);
            tokio::spawn(async move {
                while sender.send_data(Bytes::from_static(&[b'x'; 65_536])).await.is_ok() {}
                given_up.notify_one();
            });
            Reply::status(200).stream(body)
        }
        _ => Reply::text("private"),
    })
    .await;
    let timeouts =
        format!("[timeouts]\nbody_idle = \"{body_idle}\"\nheader = \"{header}\"\nkeep_alive = \"{keep_alive}\"\n");
    let (proxy, _) = Vestibule::of(parse(&format!("{}\n{timeouts}", file(&app.url(), SITE)))).await;
    (app, proxy, release)
}

type Http2 = (SendRequest<Full<Bytes>>, JoinHandle<hyper::Result<()>>);

async fn http2(proxy: &Vestibule) -> Http2 {
    let stream = handshake(proxy.https, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("https://app.test{path}")).body(Full::default()).unwrap()
}

#[tokio::test]
async fn http_1_connections_are_closed() {
    // S172
    let (_app, proxy, _) = start("1m", "2s").await;
    let mut stream = handshake(proxy.https, &Arc::new(client(BOTH, &[b"http/1.1"])), "app.test").await.unwrap();
    let asked = Instant::now();
    assert_eq!(get(&mut stream, "app.test").await, 200);

    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);

    assert!(asked.elapsed() >= IDLE.mul_f32(0.9), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn a_head_that_does_not_arrive_is_not_waited_for() {
    // S172, slowloris: something comes all the time, but never a request.
    let (app, proxy, _) = start("400ms", "1m").await;
    let mut first = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    let mut second = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    assert_eq!(get(&mut second, "app.test").await, 200);

    for stream in [&mut first, &mut second] {
        let begun = Instant::now();
        stream.write_all(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n").await.unwrap();
        let mut byte = [0; 1];
        while tokio::time::timeout(Duration::from_millis(20), stream.read(&mut byte)).await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(10), "still open");
            // It may be cut at this moment.
            let _ = stream.write_all(b"X: y\r\n").await;
        }
        assert!(begun.elapsed() >= SHORT.mul_f32(0.9), "{:?}", begun.elapsed());
    }
    assert_eq!(app.received().len(), 1);
}

#[tokio::test]
async fn a_connection_that_idles_is_not_held_to_the_time_for_a_head() {
    let (_app, proxy, _) = start("100ms", "1m").await;
    let mut stream = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();

    for _ in 0..2 {
        let early = tokio::time::timeout(SHORT, stream.read(&mut [0; 1])).await;
        assert!(early.is_err(), "closed already: {early:?}");
        assert_eq!(get(&mut stream, "app.test").await, 200);
    }
}

#[tokio::test]
async fn http_2_connections_are_closed() {
    // S172
    let (_app, proxy, _) = start("1m", "2s").await;
    let (mut used, connection) = http2(&proxy).await;
    let asked = Instant::now();
    used.send_request(request("/public/x")).await.unwrap().into_body().collect().await.unwrap();

    connection.await.unwrap().expect("GOAWAY, then the end");

    assert!(asked.elapsed() >= IDLE.mul_f32(0.9), "{:?}", asked.elapsed());
}

#[tokio::test]
async fn http_2_connections_without_a_preface_are_cut() {
    let (_app, proxy, _) = start("1m", "400ms").await;
    let mut silent = handshake(proxy.https, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();

    let mut rest = Vec::new();
    let reading = silent.read_to_end(&mut rest);

    assert!(tokio::time::timeout(Duration::from_secs(8), reading).await.expect("still open").is_err());
}

#[tokio::test]
async fn http_2_connections_with_something_under_way_stay() {
    let (app, proxy, release) = start("1m", "2s").await;
    let (mut sender, connection) = http2(&proxy).await;
    let slow = tokio::spawn(sender.send_request(request("/public/slow")));
    eventually("the application is asked", || !app.received().is_empty()).await;
    let (_other, idle) = http2(&proxy).await;
    idle.await.unwrap().expect("one that is idle goes");
    assert!(!connection.is_finished(), "one that waits for an answer stays");
    release.notify_one();

    let answer = slow.await.unwrap().unwrap().into_body().collect().await.unwrap();

    assert_eq!(answer.to_bytes(), "at last");
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_not_waited_for() {
    // S115, S172: the connection to the application is not held for it.
    let (_app, proxy, given_up) = start("1m", "1m").await;
    let mut http1 = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    let begun = Instant::now();
    http1.write_all(b"GET /public/endless HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), given_up.notified()).await.expect("still waiting");
    assert!(begun.elapsed() >= SHORT.mul_f32(0.9), "{:?}", begun.elapsed());

    // It reads and answers pings, but opens no window.
    let (mut http2, _connection) = http2(&proxy).await;
    let begun = Instant::now();
    let _unread = http2.send_request(request("/public/endless")).await.unwrap();
    tokio::time::timeout(Duration::from_secs(10), given_up.notified()).await.expect("still waiting");
    assert!(begun.elapsed() >= SHORT.mul_f32(0.9), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_response_that_goes_on_is_not_cut() {
    let (_app, proxy, _) = start_with("1m", "1m", "2s").await;
    let (mut sender, _connection) = http2(&proxy).await;
    let mut body = sender.send_request(request("/public/endless")).await.unwrap().into_body();

    let begun = Instant::now();
    while begun.elapsed() < IDLE.mul_f32(1.5) {
        body.frame().await.expect("ended").expect("cut");
    }
}

/// Whether TCP asks now and then whether who has this port at the other end of a connection is still there: a timer
/// that is neither for what was sent nor for a window (proc_pid_net_tcp(5)).
fn is_probed(port: u16) -> bool {
    let sockets = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    sockets.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[2].ends_with(&format!(":{port:04X}")) && fields[5].starts_with("02:")
    })
}

#[tokio::test]
async fn who_left_without_a_word_is_noticed() {
    // S172: nobody may wait for ever for a machine that is no more, however quiet the exchange may be.
    let (app, proxy, release) = start("1m", "1m").await;
    let mut client = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    client.write_all(b"GET /public/slow HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
    let own = client.get_ref().0.local_addr().unwrap().port();
    eventually("the application is asked", || !app.received().is_empty()).await;

    eventually("the client is watched", || is_probed(own)).await;
    eventually("the application is watched", || is_probed(app.address.port())).await;
    release.notify_one();
}
