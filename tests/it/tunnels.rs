//! What a tunnel lives by, and how both sides see its end.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use futures_util::SinkExt;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::file;
use crate::support::parse;
use crate::support::websocket::EchoApp;
use crate::support::websocket::Socket;
use crate::support::websocket::echoed;
use crate::support::websocket::logged_in;
use crate::support::websocket::next;
use crate::support::websocket::open;

const MINUTE: Duration = Duration::from_secs(60);

/// Says goodbye: what the client gets to see of the end.
async fn farewell(socket: &mut Socket) -> (Option<CloseFrame>, Error) {
    let ending = async {
        let first = next(socket).await;
        match first {
            Ok(Message::Close(frame)) => (frame, next(socket).await.unwrap_err()),
            Ok(message) => panic!("{message:?}"),
            Err(error) => (None, error),
        }
    };
    // At once, but a busy machine takes its time; less than any of ours.
    tokio::time::timeout(Duration::from_secs(4), ending).await.expect("still open")
}

/// Both sides see the end; so many tunnels have ended by then.
async fn assert_ended(app: &EchoApp, sockets: &mut [Socket], so_far: usize) {
    for socket in sockets {
        let (frame, end) = farewell(socket).await;
        let frame = frame.expect("no close frame");
        assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Policy, "session ended"));
        assert!(matches!(end, Error::ConnectionClosed), "no clean end: {end}");
    }
    eventually("the application hears of it", || app.ended() == so_far).await;
}

#[tokio::test]
async fn an_answer_that_ends_the_session_ends_its_own_tunnel() {
    // S46, S50
    let site = SITE.replace("path = \"/logout\"", "path = \"/logout\"\nend_header = \"X-End\"");
    let (app, _proxy, browser) = logged_in(&site).await;
    for (round, mut visitor) in [browser.clone(), browser.over_http2()].into_iter().enumerate() {
        visitor.log_in("alice").await;

        let (socket, answer) = open(&visitor, "/end/ws", &[]).await.unwrap();

        assert!(!answer.contains_key("x-end"), "{answer:?}");
        assert_ended(&app, &mut [socket], round + 1).await;
        assert_eq!(visitor.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn tunnels_end_with_their_session() {
    // S46, S124, VR-06
    let (app, proxy, mut browser) = logged_in(SITE).await;
    for (round, end) in ["logout", "login", "idle", "absolute"].into_iter().enumerate() {
        let (one, _) = open(&browser, "/ws", &[]).await.unwrap();
        let (two, _) = open(&browser, "/public/ws", &[]).await.unwrap();
        let (three, _) = open(&browser.clone().over_http2(), "/ws", &[]).await.unwrap();
        let mut sockets = [one, two, three];
        for socket in &mut sockets {
            assert!(echoed(socket, end).await);
        }
        match end {
            "logout" => assert_eq!(browser.get("/logout").await.status, 302),
            "login" => assert_eq!(browser.post("/login", &[("username", "bob")]).await.status, 302),
            "idle" => proxy.advance(30 * MINUTE),
            _ => {
                for _ in 0..48 {
                    proxy.advance(10 * MINUTE);
                    browser.fetch("/").await;
                }
            }
        }

        assert_ended(&app, &mut sockets, 3 * (round + 1)).await;
        browser.log_in("alice").await;
    }
}

#[tokio::test]
async fn a_tunnel_that_opens_after_its_session_has_ended_is_closed() {
    // S46: the application takes its time to answer the handshake.
    let (app, proxy, mut browser) = logged_in(SITE).await;
    let waiting = browser.clone();
    let opening = tokio::spawn(async move { open(&waiting, "/held/ws", &[]).await });
    eventually("the application is asked", || app.upstream.last().path() == "/held/ws").await;

    browser.get("/logout").await;
    app.release.notify_one();
    let (socket, _) = opening.await.unwrap().unwrap();
    proxy.advance(Duration::from_millis(500));

    assert_ended(&app, &mut [socket], 1).await;
}

#[tokio::test]
async fn another_users_tunnels_stay() {
    let (_app, proxy, mut browser) = logged_in(SITE).await;
    let mut other = proxy.browser();
    other.log_in("alice").await;
    let (mut stays, _) = open(&other, "/ws", &[]).await.unwrap();
    let (mut goes, _) = open(&browser, "/ws", &[]).await.unwrap();

    browser.get("/logout").await;

    farewell(&mut goes).await;
    assert!(echoed(&mut stays, "still here").await);
}

#[tokio::test]
async fn what_the_client_sends_is_activity() {
    // S124
    for http2 in [false, true] {
        let (_app, proxy, mut browser) = logged_in(SITE).await;
        let (mut socket, _) = open(&browser.clone().over(http2), "/ws", &[]).await.unwrap();

        for round in 0..4 {
            proxy.advance(20 * MINUTE);
            assert!(echoed(&mut socket, "x").await, "round {round}");
        }

        assert_eq!(browser.fetch("/").await.status, 200);
    }
}

#[tokio::test]
async fn what_browsers_send_by_themselves_is_none() {
    // S38: an application that pings keeps nobody logged in.
    let (app, proxy, mut browser) = logged_in(SITE).await;
    let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();
    for control in [Message::Ping("x".into()), Message::Pong("x".into())] {
        proxy.advance(10 * MINUTE);
        socket.send(control).await.unwrap();
    }
    while !matches!(next(&mut socket).await, Ok(Message::Pong(_))) {}
    let mut sockets = [socket];

    proxy.advance(10 * MINUTE);

    assert_ended(&app, &mut sockets, 1).await;
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn on_an_untouched_path_it_is_not() {
    // S38, S124
    let site = SITE.replace("public = [\"/public/*\"]", "untouched = \"/poll/*\"");
    let (app, proxy, mut browser) = logged_in(&site).await;
    let (socket, _) = open(&browser, "/poll/ws", &[]).await.unwrap();
    let mut sockets = [socket];

    proxy.advance(20 * MINUTE);
    assert!(echoed(&mut sockets[0], "x").await);
    proxy.advance(10 * MINUTE);

    assert_ended(&app, &mut sockets, 1).await;
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_tunnel_ends_within_a_second_of_its_session() {
    // S46: elsewhere nobody looks at the time, since a machine may be held up; it is not three times.
    let mut took = Vec::new();
    while took.iter().all(|took| *took >= Duration::from_secs(1)) {
        assert!(took.len() < 3, "{took:?}");
        let (_app, _proxy, mut browser) = logged_in(SITE).await;
        let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();
        assert!(echoed(&mut socket, "x").await);
        let begun = Instant::now();

        browser.get("/logout").await;
        farewell(&mut socket).await;

        took.push(begun.elapsed());
    }
}

#[tokio::test]
async fn a_silent_tunnel_is_closed() {
    // S125
    let app = EchoApp::start().await;
    let text = file(&app.upstream.url(), SITE);
    let config = parse(&format!("{text}\n[timeouts]\ntunnel_idle = \"2s\"\n"));
    let (_proxy, browser) = Vestibule::of(config).await;
    for http2 in [false, true] {
        let (mut socket, _) = open(&browser.clone().over(http2), "/public/ws", &[]).await.unwrap();
        assert!(echoed(&mut socket, "x").await);

        let (frame, end) = farewell(&mut socket).await;

        assert_eq!(frame.unwrap().code, CloseCode::Away);
        assert!(matches!(end, Error::ConnectionClosed));
        eventually("the application hears of it", || app.ended() == 1 + usize::from(http2)).await;
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_more_hears_the_answer() {
    // Over HTTP/2 Chromium ends its side of the stream with its close frame.
    let (app, _proxy, browser) = logged_in(SITE).await;
    for (http2, so_far) in [(false, 1), (true, 2)] {
        let (mut socket, _) = open(&browser.clone().over(http2), "/ws", &[]).await.unwrap();
        let raw = socket.get_mut();

        raw.write_all(b"\x88\x82\0\0\0\0\x0f\xa2").await.unwrap();
        raw.shutdown().await.unwrap();

        let mut answer = Vec::new();
        raw.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"\x88\x02\x0f\xa2", "4002");
        let closed = || app.seen().iter().filter(|seen| *seen == "closed").count();
        eventually("the application closes", || closed() == so_far).await;
    }
}

#[tokio::test]
async fn a_client_that_vanishes_takes_the_tunnel_with_it() {
    // S177
    for http2 in [false, true] {
        let (app, _proxy, browser) = logged_in(SITE).await;
        let (mut socket, _) = open(&browser.over(http2), "/ws", &[]).await.unwrap();
        assert!(echoed(&mut socket, "x").await);

        // No close frame, no TLS close: a process that was killed.
        drop(socket);

        app.sees("gone").await;
    }
}

#[tokio::test]
async fn no_frame_is_put_into_the_midst_of_a_message() {
    // Half a message was on its way when the session ended: the client must not take our farewell for
    // the rest of it.
    let stuck = Upstream::start(|request| match request.path() {
        "/login" | "/logout" => Reply::redirect("/"),
        _ => Reply::status(101).header("connection", "upgrade").header("upgrade", "websocket").upgrade(|upgrade| {
            drop(tokio::spawn(async move {
                let mut raw = TokioIo::new(upgrade.await.unwrap());
                raw.write_all(&[0x82, 5, b'h', b'a']).await.unwrap();
                let _ = raw.read(&mut [0; 16]).await;
            }));
        }),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&stuck).await;
    browser.log_in("alice").await;
    let mut stream = browser.connect(b"http/1.1").await;
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\nCookie: __Host-session={}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n",
        browser.session().unwrap()
    );
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"\x82\x05ha") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }

    browser.get("/logout").await;
    stream.read_to_end(&mut received).await.expect("a clean end of TLS");

    assert!(received.ends_with(b"\x82\x05ha"), "{received:?}");
}

/// So large is a message of those below, with its header (RFC 6455 5.2).
const PIECE: usize = 64 * 1024;
const HEADER: [u8; 10] = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xf6];
/// So many are sent, and so many may be on their way: sockets have room for some megabytes each.
const PIECES: usize = 2048;
const ON_THE_WAY: usize = 768;

/// An application that sends as fast as it can, and counts what it got rid of.
async fn flooding(sent: &Arc<AtomicUsize>) -> Upstream {
    let sent = Arc::clone(sent);
    Upstream::start(move |request| {
        let accept = derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
        let sent = Arc::clone(&sent);
        let switch = Reply::status(101).header("connection", "upgrade").header("upgrade", "websocket");
        switch.header("sec-websocket-accept", &accept).upgrade(|upgrade| {
            drop(tokio::spawn(async move {
                let mut raw = TokioIo::new(upgrade.await.unwrap());
                let piece = [&HEADER[..], &[0; PIECE - HEADER.len()]].concat();
                for _ in 0..PIECES {
                    raw.write_all(&piece).await.unwrap();
                    sent.fetch_add(1, Ordering::Relaxed);
                }
                let _ = raw.read(&mut [0; 16]).await;
            }));
        })
    })
    .await
}

/// The count when it has come to rest.
async fn at_rest(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = count.load(Ordering::Relaxed);
        if now == before {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_holds_the_application_back() {
    // S125
    for http2 in [false, true] {
        let sent = Arc::default();
        let app = flooding(&sent).await;
        let (_proxy, browser) = Vestibule::in_front_of(&app).await;
        let (mut socket, _) = open(&browser.over(http2), "/public/ws", &[]).await.unwrap();

        let held = at_rest(&sent).await;
        assert!(held < ON_THE_WAY, "{held} of {PIECES}");

        for _ in 0..PIECES {
            assert_eq!(next(&mut socket).await.unwrap().len(), PIECE - HEADER.len());
        }
    }
}

#[tokio::test]
async fn an_application_that_reads_nothing_holds_the_client_back() {
    // S125
    let app = Upstream::start(|request| {
        let accept = derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
        let switch = Reply::status(101).header("connection", "upgrade").header("upgrade", "websocket");
        switch.header("sec-websocket-accept", &accept).upgrade(|upgrade| {
            drop(tokio::spawn(async move {
                let _held = upgrade.await.unwrap();
                std::future::pending::<()>().await;
            }));
        })
    })
    .await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for http2 in [false, true] {
        let (mut socket, _) = open(&browser.clone().over(http2), "/public/ws", &[]).await.unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&sent);
        let sending = tokio::spawn(async move {
            for _ in 0..PIECES {
                socket.send(Message::binary(vec![0; PIECE])).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });

        let held = at_rest(&sent).await;

        assert!(held < ON_THE_WAY, "{held} of {PIECES}");
        sending.abort();
    }
}

#[tokio::test]
async fn tunnels_count_as_connections() {
    // S125, S173
    let app = EchoApp::start().await;
    let text = file(&app.upstream.url(), SITE);
    let text = format!("{text}\n[limits]\nconnections_per_address = 2\n");
    let (proxy, browser) = Vestibule::of(parse(&text)).await;
    let (mut one, _) = open(&browser, "/public/ws", &[]).await.unwrap();
    let (_two, _) = open(&browser, "/public/ws", &[]).await.unwrap();

    let mut third = TcpStream::connect(proxy.https).await.unwrap();
    let refused = tokio::time::timeout(Duration::from_secs(5), third.read(&mut [0; 1])).await;
    assert_eq!(refused.expect("one too many").unwrap_or(0), 0);
    one.close(None).await.unwrap();
    while next(&mut one).await.is_ok() {}
    drop(one);

    let is_admitted = async || {
        let connecting = tokio::time::timeout(Duration::from_secs(5), browser.try_connect(b"http/1.1"));
        connecting.await.is_ok_and(|connected| connected.is_ok())
    };
    eventually_so("the place is free again", is_admitted).await;
    eventually("both were open", || app.opened() == 2).await;
}
