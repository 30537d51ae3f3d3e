//! WebSockets: judged like any request, then bytes both ways for as long as the session lives.

use std::time::Duration;

use futures_util::SinkExt;
use http::StatusCode;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::frame::coding::Data;
use tokio_tungstenite::tungstenite::protocol::frame::coding::OpCode;

use crate::support::SITE;
use crate::support::Vestibule;
use crate::support::websocket::EchoApp;
use crate::support::websocket::Socket;
use crate::support::websocket::echoed;
use crate::support::websocket::logged_in;
use crate::support::websocket::next;
use crate::support::websocket::open;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn messages_pass_both_ways_unchanged() {
    // S123
    for http2 in [false, true] {
        let (app, _proxy, browser) = logged_in(SITE).await;
        let (socket, _) = open(&browser.over(http2), "/ws", &[]).await.unwrap();
        converse(socket, &app).await;
    }
}

async fn converse(mut socket: Socket, app: &EchoApp) {
    assert!(echoed(&mut socket, "hello \u{1f30d}").await);
    for size in [0, 125, 126, 65_535, 65_536, 1 << 20] {
        let message = Message::binary((0..size).map(|byte: u32| byte as u8).collect::<Vec<_>>());
        socket.send(message.clone()).await.unwrap();
        assert!(next(&mut socket).await.unwrap() == message, "{size} bytes");
    }
    socket.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), Message::Pong("are you there".into()));
    // A message in pieces, and a ping between them (RFC 6455 5.4).
    let piece = |text: &str, opcode, last| Message::Frame(Frame::message(text.to_owned(), opcode, last));
    socket.send(piece("in ", OpCode::Data(Data::Text), false)).await.unwrap();
    socket.send(Message::Ping("between".into())).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), Message::Pong("between".into()));
    socket.send(piece("pieces", OpCode::Data(Data::Continue), true)).await.unwrap();
    assert_eq!(next(&mut socket).await.unwrap(), Message::text("in pieces"));
    let frame = CloseFrame { code: CloseCode::Library(4321), reason: "enough".into() };
    socket.close(Some(frame.clone())).await.unwrap();

    assert_eq!(next(&mut socket).await.unwrap(), Message::Close(Some(frame)));
    assert!(matches!(next(&mut socket).await, Err(Error::ConnectionClosed)));
    app.sees("close 4321").await;
    app.sees("closed").await;
}

#[tokio::test]
async fn the_application_can_close() {
    for http2 in [false, true] {
        let (app, _proxy, browser) = logged_in(SITE).await;
        let (mut socket, _) = open(&browser.over(http2), "/ws", &[]).await.unwrap();

        socket.send(Message::text("finish")).await.unwrap();

        assert_eq!(next(&mut socket).await.unwrap(), Message::Close(None));
        assert!(matches!(next(&mut socket).await, Err(Error::ConnectionClosed)));
        app.sees("closed").await;
    }
}

#[tokio::test]
async fn the_handshake_says_who_it_is_and_keeps_what_is_between_the_two_ends() {
    // S64, S66, S120
    for http2 in [false, true] {
        assert_handshake(http2).await;
    }
}

async fn assert_handshake(http2: bool) {
    let (app, _proxy, browser) = logged_in(SITE).await;
    let mut browser = browser.over(http2);
    let fields = [
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("x-forwarded-user", "admin"),
        ("connection", "keep-alive, Upgrade, x-forwarded-user"),
    ];
    let (_socket, answer) = open(&browser, "/ws?x=%2F", &fields).await.unwrap();

    let asked = app.upstream.last();
    assert_eq!(asked.target, "/ws?x=%2F");
    for (name, expected) in [
        ("sec-websocket-protocol", "chat, superchat"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
        ("sec-websocket-version", "13"),
        ("x-forwarded-user", "alice"),
        ("x-forwarded-proto", "https"),
        ("host", "app.test"),
        ("via", if http2 { "2.0 vestibule" } else { "1.1 vestibule" }),
        ("origin", "https://app.test"),
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
    ] {
        assert_eq!(asked.header(name), Some(expected), "{name}");
    }
    assert_eq!(asked.header("cookie"), None, "ours is not for the application");
    assert_eq!(answer["sec-websocket-protocol"], "chat");
    assert_eq!(answer["x-of-the-app"], "kept");
    assert!(!answer.contains_key("set-cookie"), "the application's cookie is in the session: {answer:?}");
    browser.fetch("/").await;
    assert_eq!(app.upstream.last().cookie("PHPSESSID"), Some("from-the-socket"));
}

#[tokio::test]
async fn without_a_session_the_application_is_not_asked() {
    // S118, VR-06
    let app = EchoApp::start().await;
    let (proxy, browser) = Vestibule::in_front_of(&app.upstream).await;
    let forged = browser.with_session("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");

    for browser in [browser, forged] {
        for http2 in [false, true] {
            assert_eq!(open(&browser.clone().over(http2), "/ws", &[]).await.unwrap_err().status(), 401);
        }
    }
    let mut other = proxy.browser();
    other.log_in("alice").await;
    other.get("/logout").await;

    assert_eq!(open(&other, "/ws", &[]).await.unwrap_err().status(), 401);
    assert!(!app.upstream.received().iter().any(|request| request.path() == "/ws"));
}

#[tokio::test]
async fn other_origins_are_refused_even_where_everyone_may_go() {
    // S119, VR-06
    let (app, _proxy, browser) = logged_in(&format!("{SITE}\n[site.csrf]\nmode = \"off\"")).await;
    let mut stranger = browser.clone();
    stranger.cookies.clear();
    for path in ["/ws", "/public/ws"] {
        for origin in ["https://evil.test", "http://app.test", "https://app.test:8443", "https://app.test.evil", "null"]
        {
            for who in [&browser, &stranger, &browser.clone().over_http2()] {
                assert_eq!(open(who, path, &[("origin", origin)]).await.unwrap_err().status(), 403, "{origin}");
            }
        }
        for who in [&browser, &browser.clone().over_http2()] {
            assert_eq!(open(who, path, &[("origin", "")]).await.unwrap_err().status(), 403, "{path} without Origin");
        }
    }
    let labelled = [("origin", ""), ("sec-fetch-mode", "websocket")];
    assert_eq!(open(&stranger, "/public/ws", &labelled).await.unwrap_err().status(), 403, "a browser sends it");
    assert_eq!(app.opened(), 0);

    // No browser, no cookies: nobody's authority is abused.
    let (mut socket, _) = open(&stranger, "/public/ws", &[("origin", "")]).await.unwrap();
    assert!(echoed(&mut socket, "x").await);
}

#[tokio::test]
async fn a_refused_origin_is_no_activity() {
    // S119
    let (_app, proxy, mut browser) = logged_in(SITE).await;
    proxy.advance(20 * MINUTE);
    open(&browser, "/ws", &[("origin", "https://evil.test")]).await.unwrap_err();
    proxy.advance(20 * MINUTE);

    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_refused_handshake_is_an_ordinary_answer() {
    // S122
    let (app, _proxy, browser) = logged_in(SITE).await;
    for (path, status) in [("/", 200), ("/not/found", 404), ("/moved", 302)] {
        let refused = open(&browser, path, &[]).await.unwrap_err();
        assert_eq!(refused.status(), status, "{path}");
        assert!(!refused.headers().contains_key("upgrade"));
        assert!(!refused.headers().contains_key("set-cookie"), "vaulted: {refused:?}");
    }
    assert_eq!(app.upstream.last().cookie("PHPSESSID"), None);

    // What follows on the connection is the next request, not the tunnel's.
    let handshake = format!(
        "GET /not/found HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\nCookie: __Host-session={}\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n\
         GET /public/next HTTP/1.1\r\nHost: app.test\r\nX-Forwarded-User: admin\r\nConnection: close\r\n\r\n",
        browser.session().unwrap()
    );
    let answers = browser.raw(handshake.as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 404 ") && answers.contains("HTTP/1.1 200 OK"), "{answers}");
    let next = app.upstream.last();
    assert_eq!((next.target.as_str(), next.header("x-forwarded-user")), ("/public/next", None));
}

#[tokio::test]
async fn nothing_sent_before_the_switch_reaches_the_tunnel() {
    // S122, VR-59: RFC 6455 4.1.
    let (app, _proxy, browser) = logged_in(SITE).await;
    let cookie = format!("Cookie: __Host-session={}", browser.session().unwrap());
    let handshake = format!(
        "GET /ws HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\n{cookie}\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    );
    for ahead in [&b"\x81\x85\0\0\0\0hello"[..], b"GET /hidden HTTP/1.1\r\nHost: app.test\r\n\r\n"] {
        let mut stream = browser.connect(b"http/1.1").await;
        stream.write_all(&[handshake.as_bytes(), ahead].concat()).await.unwrap();

        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("a clean end of TLS");

        let answer = String::from_utf8_lossy(&answer).into_owned();
        let (head, rest) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(rest.ends_with("sent before the answer"), "a close frame and no echo: {rest:?}");
    }
    assert!(app.upstream.received().iter().all(|request| request.target != "/hidden"));
}

#[tokio::test]
async fn a_connection_that_ends_with_a_refusal_ends_in_order() {
    // S122
    let (_app, _proxy, browser) = logged_in(SITE).await;
    let cookie = format!("Cookie: __Host-session={}\r\n", browser.session().unwrap());
    for (cookie, path, expected) in [("", "/ws", "401"), (cookie.as_str(), "/not/found", "404")] {
        let mut stream = browser.connect(b"http/1.1").await;
        let handshake = format!(
            "GET {path} HTTP/1.1\r\nHost: app.test\r\nOrigin: https://app.test\r\n{cookie}Connection: Upgrade, close\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n\r\n"
        );
        stream.write_all(handshake.as_bytes()).await.unwrap();

        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("a clean end of TLS");

        assert_eq!(&answer[9..12], expected.as_bytes());
    }
}

#[tokio::test]
async fn a_switch_that_was_not_asked_for_is_a_bad_gateway() {
    // S121
    let (_app, _proxy, mut browser) = logged_in(SITE).await;

    for http2 in [false, true] {
        let refused = open(&browser.clone().over(http2), "/other/protocol", &[]).await.unwrap_err();
        assert_eq!(refused.status(), StatusCode::BAD_GATEWAY);
    }
    assert_eq!(browser.fetch("/ws").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(browser.fetch("/other/protocol").await.status, StatusCode::BAD_GATEWAY);
    assert_eq!(browser.clone().over_http2().fetch("/ws").await.status, StatusCode::BAD_GATEWAY);
}

#[tokio::test]
async fn there_is_one_version() {
    // S120: RFC 6455 4.4. Who may not pass is not told (S118).
    let (app, _proxy, browser) = logged_in(SITE).await;
    for http2 in [false, true] {
        let browser = browser.clone().over(http2);
        for version in ["8", "12", "13, 8"] {
            let refused = open(&browser, "/ws", &[("sec-websocket-version", version)]).await.unwrap_err();
            assert_eq!(refused.status(), 426, "{version:?}");
            assert_eq!(refused.headers()["sec-websocket-version"], "13");
            // RFC 9110 15.5.22; over HTTP/2 there is no such field.
            assert_eq!(refused.headers().contains_key("upgrade"), !http2);
        }
    }
    let stranger =
        browser.raw(b"GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n");
    assert!(stranger.await.starts_with("HTTP/1.1 401 "));
    let old = "GET /public/ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Version: 8\r\n\r\n\
               GET /public/next HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let answers = browser.raw(old.as_bytes()).await;
    assert!(answers.starts_with("HTTP/1.1 426 ") && answers.contains("HTTP/1.1 200 OK"), "S122: {answers}");

    let asked = app.upstream.received().into_iter().map(|request| request.target);
    assert_eq!(asked.collect::<Vec<_>>(), ["/login", "/public/next"]);
}

#[tokio::test]
async fn what_is_no_handshake_is_an_ordinary_request() {
    // S112, S117
    let (app, _proxy, browser) = logged_in(SITE).await;
    let cookie = format!("__Host-session={}", browser.session().unwrap());
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n";
    for (line, fields) in [
        ("POST / HTTP/1.1", format!("{upgrade}Content-Length: 0\r\n")),
        ("GET / HTTP/1.1", format!("{upgrade}Content-Length: 2\r\n\r\nhi")),
        ("GET / HTTP/1.0", upgrade.to_owned()),
        ("GET / HTTP/1.1", "Upgrade: websocket\r\n".to_owned()),
        ("GET / HTTP/1.1", "Connection: Upgrade\r\nUpgrade: foo\r\n".to_owned()),
        ("GET / HTTP/1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n".to_owned()),
    ] {
        let (fields, body) = fields.split_once("\r\n\r\n").map_or((fields.as_str(), ""), |split| split);
        let request = format!(
            "{line}\r\nHost: app.test\r\nOrigin: https://app.test\r\nCookie: {cookie}\r\n{}\r\nConnection: close\r\n\r\n{body}",
            fields.trim_end()
        );
        let answer = browser.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK"), "{line} {fields}: {answer}");
        for field in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(app.upstream.last().header(field), None, "{line} {fields}");
        }
    }
}
