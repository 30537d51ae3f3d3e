//! The process: what it does when it is told to stop or to reload, and how it shares its work.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use crate::support::Broken;
use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::file;
use crate::support::frames::DATA;
use crate::support::frames::Frame;
use crate::support::frames::Raw;
use crate::support::frames::WINDOW_UPDATE;
use crate::support::program::BINARY;
use crate::support::program::Program;
use crate::support::tls::BOTH;
use crate::support::tls::client;
use crate::support::tls::get;
use crate::support::tls::handshake;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::next;
use crate::support::websocket::open;

/// An application that answers `/public/slow` when it is told to, and an endless stream of events at
/// `/public/events`.
async fn slow_app() -> (Upstream, Arc<Notify>) {
    let release = Arc::new(Notify::new());
    let held = Arc::clone(&release);
    let app = Upstream::start(move |request| match request.path() {
        "/login" => Reply::redirect("/"),
        "/public/slow" => Reply::text("at last").held(&held),
        "/public/events" => {
            let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move {
                sender.send_data(Bytes::from_static(b"data: 1\n\n")).await.unwrap();
                std::future::pending::<()>().await;
            });
            Reply::status(200).header("content-type", "text/event-stream").stream(body)
        }
        _ => Reply::text("private"),
    });
    (app.await, release)
}

/// A page that is asked for and does not come yet.
async fn slow_page(app: &Upstream, browser: &Browser) -> JoinHandle<Result<(Response<()>, Bytes), Broken>> {
    let mut browser = browser.clone();
    let already = app.received().len();
    let waiting = tokio::spawn(async move {
        let request = Request::get("/public/slow").body(Full::default()).unwrap();
        let (head, body) = browser.try_open(request).await?.into_parts();
        Ok((Response::from_parts(head, ()), body.collect().await?.to_bytes()))
    });
    eventually("the application is asked", || app.received().len() > already).await;
    waiting
}

/// An idle HTTP/1.1 connection that has been used.
async fn idle(program: &Program) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = handshake(program.https, &Arc::new(client(BOTH, &[b"http/1.1"])), "app.test").await.unwrap();
    assert_eq!(get(&mut stream, "app.test").await, 200);
    stream
}

#[tokio::test]
async fn a_stop_lets_requests_finish_and_nobody_else_wait() {
    // S179
    let (app, release) = slow_app().await;
    let mut program = Program::start(&file(&app.url(), SITE)).await;
    let mut used = idle(&program).await;
    let mut unused = handshake(program.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    let mut silent = TcpStream::connect(program.https).await.unwrap();
    let mut plain = TcpStream::connect(program.http).await.unwrap();
    let slow = slow_page(&app, &Browser::new(program.https)).await;

    program.signal("TERM");
    program.event("draining").await;
    assert_eq!(used.read(&mut [0; 1]).await.unwrap(), 0, "an idle connection is closed in order");
    assert_eq!(unused.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(plain.read(&mut [0; 1]).await.unwrap(), 0);
    let nobody_new = eventually_so("nobody new", async || TcpStream::connect(program.https).await.is_err());
    tokio::time::timeout(Duration::from_secs(4), nobody_new).await.expect("long before the others have to go");
    release.notify_one();
    let (head, body) = slow.await.unwrap().unwrap();

    assert_eq!((head.status().as_u16(), &body[..]), (200, &b"at last"[..]));
    assert_eq!(head.headers()["connection"], "close");
    assert_eq!(program.ended().await.code(), Some(0));
    assert_eq!(program.lines().last().unwrap()["event"], "stopped");
}

#[tokio::test]
async fn a_balancer_that_has_said_nothing_does_not_hold_up_a_stop() {
    let (app, _) = slow_app().await;
    let balanced = "trusted_proxies = \"127.0.0.1\"\nproxy_protocol = true\nworkers = 1";
    let text = format!("{}\n[timeouts]\nhandshake = \"1m\"\n", file(&app.url(), SITE));
    let mut program = Program::start(&text.replace("workers = 1", balanced)).await;
    let mut silent = TcpStream::connect(program.https).await.unwrap();
    let mut plain = TcpStream::connect(program.http).await.unwrap();
    // Whoever came before somebody that was heard is in.
    for address in [program.https, program.http] {
        let mut later = TcpStream::connect(address).await.unwrap();
        later.write_all(b"PROXY UNKNOWN\r\nGET / HTTP/1.0\r\n\r\n").await.unwrap();
        let _answered_or_cut = later.read(&mut [0; 1]).await;
    }

    program.signal("TERM");

    assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(plain.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(program.ended().await.code(), Some(0));
    assert!(program.events("drain.cut").is_empty());
}

#[tokio::test]
async fn http_2_streams_finish_and_the_connection_says_goodbye() {
    // S116
    let (app, release) = slow_app().await;
    let mut program = Program::start(&file(&app.url(), SITE)).await;
    let stream = handshake(program.https, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = |path: &str| Request::get(format!("https://app.test{path}")).body(Full::<Bytes>::default()).unwrap();
    let slow = tokio::spawn(sender.send_request(request("/public/slow")));
    eventually("the application is asked", || !app.received().is_empty()).await;

    program.signal("INT");
    program.event("draining").await;
    // Until the last GOAWAY has come, the client does not know better.
    while sender.send_request(request("/public/x")).await.is_ok() {}
    release.notify_one();
    let response: Response<Incoming> = slow.await.unwrap().unwrap();
    let asked = app.received().len();

    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "at last");
    connection.await.unwrap().expect("a connection that was closed in order");
    assert_eq!(program.ended().await.code(), Some(0));
    assert_eq!(app.received().len(), asked);
}

#[tokio::test]
async fn an_idle_http_2_connection_does_not_hold_up_a_stop() {
    let (app, _) = slow_app().await;
    let mut program = Program::start(&file(&app.url(), SITE)).await;
    let connect = || async {
        let stream = handshake(program.https, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();
        let (sender, connection) =
            hyper::client::conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        (sender, tokio::spawn(connection))
    };
    let (mut used, _driver) = connect().await;
    used.send_request(Request::get("https://app.test/public/x").body(Full::default()).unwrap()).await.unwrap();
    let (_unused, _other_driver) = connect().await;
    let mut without_preface = handshake(program.https, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();

    program.signal("TERM");

    assert_eq!(program.ended().await.code(), Some(0));
    // Whoever says neither hello nor goodbye is cut.
    assert!(without_preface.read_to_end(&mut Vec::new()).await.is_err());
}

#[tokio::test]
async fn what_has_no_end_of_its_own_is_ended_by_a_stop() {
    let (app, _) = slow_app().await;
    let sockets = EchoApp::start().await;
    let mut program = Program::start(&file(&app.url(), SITE)).await;
    let mut events = Browser::new(program.https);
    let request = Request::get("/public/events").body(Full::default()).unwrap();
    let mut events = events.open(request).await.into_body();
    assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), "data: 1\n\n");
    let mut other = Program::start(&file(&sockets.upstream.url(), SITE)).await;
    let (one, _) = open(&Browser::new(other.https), "/public/ws", &[]).await.unwrap();
    let (two, _) = open(&Browser::new(other.https).over_http2(), "/public/ws", &[]).await.unwrap();
    let mut both = [one, two];
    for socket in &mut both {
        assert!(echoed(socket, "x").await);
    }

    program.signal("TERM");
    other.signal("TERM");

    let end = tokio::time::timeout(Duration::from_secs(5), events.frame()).await.expect("an end before the deadline");
    assert!(end.is_none_or(|frame| frame.is_err()), "never a whole answer");
    for socket in &mut both {
        let Message::Close(Some(frame)) = next(socket).await.unwrap() else { panic!("no close frame") };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1001, "restarting"));
    }
    eventually("the application hears of it", || sockets.ended() == 2).await;
    assert_eq!(program.ended().await.code(), Some(0));
    assert_eq!(other.ended().await.code(), Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let (app, _never) = slow_app().await;
    let mut program = Program::start(&file(&app.url(), SITE)).await;
    let slow = slow_page(&app, &Browser::new(program.https)).await;

    program.signal("TERM");
    program.event("draining").await;
    program.signal("INT");

    assert!(program.ended().await.code().is_some(), "it ends by itself");
    assert!(slow.await.unwrap().is_err(), "never a whole answer");
}

#[tokio::test]
async fn a_drain_has_a_deadline() {
    // S179
    let (app, _never) = slow_app().await;
    let text = format!("{}\n[timeouts]\ndrain = \"300ms\"\n", file(&app.url(), SITE));
    let mut program = Program::start(&text).await;
    let slow = slow_page(&app, &Browser::new(program.https)).await;
    let started = Instant::now();

    program.signal("TERM");

    assert_eq!(program.ended().await.code(), Some(0));
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(slow.await.unwrap().is_err());
    assert_eq!(program.event("drain.cut").await["level"], "warn");
}

#[tokio::test]
async fn a_reload_puts_new_rules_in_force_and_keeps_sessions_and_connections() {
    // S193, VR-27
    let (app, release) = slow_app().await;
    let text = file(&app.url(), SITE);
    let program = Program::start(&text).await;
    let mut browser = Browser::new(program.https);
    browser.log_in("alice").await;
    let mut kept = idle(&program).await;
    let slow = slow_page(&app, &browser).await;

    fs::write(program.file(), text.replace("/public/*", "/open/*")).unwrap();
    program.signal("HUP");
    program.event("config.reloaded").await;
    release.notify_one();

    assert_eq!(slow.await.unwrap().unwrap().1, "at last", "under the rules it began with");
    assert_eq!(Browser::new(program.https).fetch("/public/x").await.status, 401);
    assert_eq!(Browser::new(program.https).fetch("/open/x").await.status, 200);
    assert_eq!(browser.fetch("/").await.status, 200, "the session lives");
    let mut answer = Vec::new();
    AsyncWriteExt::write_all(&mut kept, b"GET /public/x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    kept.read_to_end(&mut answer).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 401 "), "the connection lives, under the new rules");
}

#[tokio::test]
async fn a_file_that_is_wrong_changes_nothing_and_all_that_is_wrong_is_logged() {
    // S193, VR-27
    let (app, _) = slow_app().await;
    let text = file(&app.url(), SITE);
    let program = Program::start(&text).await;
    let open = text.replace("/public/*", "/open/*");
    let log = |line: &serde_json::Value| line["error"].as_str().unwrap().to_owned();

    for (broken, expected) in [
        (format!("{open}\n[timeouts]\ndrian = \"1s\"\nheader = \"soon\"\n"), &["drian", "drain", "header", "soon"][..]),
        ("no TOML at all [".to_owned(), &["no TOML"]),
        (open.replace("server.pem", "missing.pem"), &["there is no file", "missing.pem"]),
        (open.replace("server.pem", "ca.pem"), &["does not fit"]),
        (open.replace("workers = 1", "workers = 2"), &["listen.workers", "restart"]),
        (open.replacen("127.0.0.1:0", "127.0.0.1:1", 1), &["listen.https", "restart"]),
        (open.replace("memory:", "file:other"), &["store.url", "restart"]),
    ] {
        let already = program.lines().len();
        fs::write(program.file(), broken).unwrap();
        program.signal("HUP");
        eventually("a refusal", || program.lines()[already..].iter().any(|line| line["event"] == "config.refused"))
            .await;
        let refused = program.event("config.refused").await;
        for word in expected {
            assert!(log(&refused).contains(word), "{word}: {refused}");
        }
        assert_eq!(Browser::new(program.https).fetch("/public/x").await.status, 200);
        assert_eq!(Browser::new(program.https).fetch("/open/x").await.status, 401);
    }
    fs::remove_file(program.file()).unwrap();
    program.signal("HUP");
    eventually("a refusal", || program.lines().iter().filter(|line| line["event"] == "config.refused").count() == 8)
        .await;
    fs::write(program.file(), &open).unwrap();
    program.signal("HUP");
    program.event("config.reloaded").await;
    assert_eq!(Browser::new(program.https).fetch("/open/x").await.status, 200);
}

#[tokio::test]
async fn a_reload_takes_the_log_settings_as_well() {
    let (app, _) = slow_app().await;
    let text = file(&app.url(), SITE);
    let program = Program::start(&text).await;

    fs::write(program.file(), format!("{text}\n[log]\nlevel = \"debug\"\nformat = \"json\"\n")).unwrap();
    program.signal("HUP");
    program.event("config.reloaded").await;
    let mut wrong = TcpStream::connect(program.https).await.unwrap();
    AsyncWriteExt::write_all(&mut wrong, b"no TLS at all").await.unwrap();

    assert_eq!(program.event("tls.handshake_failed").await["level"], "debug");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let (app, _) = slow_app().await;
    let text = file(&app.url(), SITE);
    let program = Program::start(&text).await;
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for taken in [program.https, stranger.local_addr().unwrap()] {
        let (code, said) = Program::fail(&text.replacen("127.0.0.1:0", &taken.to_string(), 1)).await;

        assert_eq!(code, 1, "{said}");
        assert!(said.contains(&format!("cannot listen on {taken} (another program listens there)")), "{said}");
    }
    let (code, said) = Program::fail(&text.replacen("127.0.0.1:0", "192.0.2.1:443", 1)).await;
    assert_eq!(code, 1);
    assert!(said.contains("192.0.2.1:443 (this machine does not have that address)"), "{said}");
}

#[tokio::test]
async fn workers_share_the_load_evenly() {
    let (app, _) = slow_app().await;
    let program = Program::start(&file(&app.url(), SITE).replace("workers = 1", "workers = 8")).await;

    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(idle(&program).await);
    }

    // Each worker keeps one connection to the application and uses it again. By chance alone, all would
    // serve about four clients in one of fifty cases.
    let mut served = [0; 8];
    app.received().iter().for_each(|request| served[request.connection] += 1);
    assert!(served.iter().all(|served| (3..=5).contains(served)), "{served:?}");
}

#[tokio::test]
async fn connections_are_limited_in_all_and_by_address() {
    // S173
    let (app, _) = slow_app().await;
    let limits = "[limits]\nconnections = 3\nconnections_per_address = 2\n";
    let program = Program::start(&format!("{}\n{limits}", file(&app.url(), SITE))).await;
    let from = |address: [u8; 4]| {
        let mut browser = Browser::new(program.https);
        browser.from = address.into();
        async move { browser.try_connect(b"http/1.1").await }
    };
    let first = from([127, 0, 0, 1]).await.unwrap();
    let second = from([127, 0, 0, 1]).await.unwrap();

    assert!(from([127, 0, 0, 1]).await.is_err(), "two from one address");
    let third = from([127, 0, 0, 2]).await.unwrap();
    assert!(from([127, 0, 0, 3]).await.is_err(), "three in all");
    drop((first, second, third));
    let mut again = from([127, 0, 0, 1]).await;
    for _ in 0..100 {
        if again.is_ok() {
            break;
        }
        again = from([127, 0, 0, 1]).await;
    }
    again.expect("there is room again");
}

#[tokio::test]
async fn a_lack_of_file_descriptors_passes() {
    // S173
    let (app, _) = slow_app().await;
    let mut shell = Command::new("sh");
    shell.args(["-c", "ulimit -n 48 && exec \"$@\"", "sh", BINARY]);
    let program = Program::start_by(shell, &file(&app.url(), SITE)).await;
    let mut crowd = Vec::new();
    for _ in 0..60 {
        crowd.push(TcpStream::connect(program.https).await.unwrap());
    }
    program.event("accept.failed").await;

    drop(crowd);

    assert_eq!(Browser::new(program.https).fetch("/public/x").await.status, 200);
}

#[tokio::test]
async fn who_takes_an_answer_slowly_gets_all_of_it_although_it_was_handed_over() {
    // S116, S179: the library has the last piece as soon as there is any room for it.
    let app = Upstream::start(|_| Reply::text(&"x".repeat(LONG))).await;
    let mut program = Program::start(&file(&app.url(), SITE)).await;
    for _ in 0..WARM {
        assert_eq!(program.browser().fetch("/public/x").await.body.len(), LONG);
    }
    let mut http2 = Raw::connect(program.https, &[]).await;
    http2.send(&Frame::request(1, "GET", "/public/x")).await.unwrap();
    let mut taken = 0;
    while taken < 65_535 {
        taken += http2.next(DATA, 1).await.unwrap().payload.len();
    }

    program.signal("TERM");

    // Longer than an idle client may take to leave.
    while taken < LONG {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let piece = (LONG - taken).min(LONG / 10);
        for stream in [0, 1] {
            http2.send(&Frame::new(WINDOW_UPDATE, 0, stream, (piece as u32).to_be_bytes())).await.unwrap();
        }
        let due = taken + piece;
        while taken < due {
            taken += http2.next(DATA, 1).await.expect("cut").payload.len();
        }
    }
    assert!(program.ended().await.success());
}

/// More than a window, and less than is read of an answer at once when answers were long before.
const LONG: usize = 200 * 1024;
/// So many are long before.
const WARM: usize = 8;
