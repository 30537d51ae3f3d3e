//! WebSockets over HTTP/2 (RFC 8441): where they are offered, and what is none. What they have in common
//! with those over HTTP/1.1 is tested there.

use std::collections::BTreeSet;
use std::future::Future;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http::Response;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::file;
use crate::support::parse;
use crate::support::tls::BOTH;
use crate::support::tls::Pair;
use crate::support::tls::client;
use crate::support::tls::handshake;
use crate::support::tls::two_sites_file;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::logged_in;
use crate::support::websocket::offering;
use crate::support::websocket::open;

/// A CONNECT with what pages send along.
fn connect(browser: &Browser, target: &str, protocol: Option<&'static str>) -> Request<Empty<Bytes>> {
    let cookies: Vec<_> = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut request = Request::connect(target)
        .header("origin", "https://app.test")
        .header("sec-websocket-version", "13")
        .header("cookie", cookies.join("; "))
        .header("user-agent", &browser.user_agent)
        .body(Empty::new())
        .unwrap();
    if let Some(word) = protocol {
        request.extensions_mut().insert(Protocol::from_static(word));
    }
    request
}

/// Asks for a tunnel on a new connection.
async fn ask(browser: &Browser, target: &str, protocol: Option<&'static str>) -> Response<Incoming> {
    offering(browser).await.send_request(connect(browser, target, protocol)).await.unwrap()
}

/// Whether a connection for this name says that WebSockets are offered, and what a request for one at
/// that host gets.
async fn offered(proxy: &Vestibule, name: &str, host: &str) -> (bool, Option<u16>) {
    let stream = handshake(proxy.https, &Arc::new(client(BOTH, &[b"h2"])), name).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut connection = pin!(connection);
    let ask = async {
        // Its answer comes after the settings.
        let page = Request::get(format!("https://{name}/public/x")).body(Empty::<Bytes>::new()).unwrap();
        assert_eq!(sender.send_request(page).await.unwrap().status(), 200);
        let socket = Request::connect(format!("https://{host}/public/ws"))
            .extension(Protocol::from_static("websocket"))
            .header("origin", format!("https://{host}"))
            .header("sec-websocket-version", "13");
        // A client that was not offered it does not ask.
        let answer = sender.send_request(socket.body(Empty::new()).unwrap()).await;
        answer.ok().map(|answer| answer.status().as_u16())
    };
    let mut ask = pin!(ask);
    poll_fn(|context| {
        let _goes_on = connection.as_mut().poll(context);
        ask.as_mut().poll(context).map(|status| (connection.is_extended_connect_protocol_enabled(), status))
    })
    .await
}

#[tokio::test]
async fn they_are_offered_where_a_site_that_shares_the_certificate_wants_them() {
    // S123
    let legacy = Upstream::legacy().await;
    let off = |text: String, name: &str| {
        let origin = format!("origin = \"https://{name}\"");
        text.replace(&origin, &format!("{origin}\nwebsocket_h2 = false"))
    };
    let (shared, own) = (Pair::issue(&["app.test", "other.test"]), Pair::issue(&["other.test"]));

    let one = two_sites_file(&legacy, &[&shared], "");
    let (proxy, _) = Vestibule::of(parse(&off(one.clone(), "app.test"))).await;
    // Without an application that switches, what is asked for is none.
    assert_eq!(offered(&proxy, "app.test", "app.test").await, (true, Some(501)));
    assert_eq!(offered(&proxy, "app.test", "other.test").await, (true, Some(502)));

    let (proxy, _) = Vestibule::of(parse(&off(off(one, "app.test"), "other.test"))).await;
    assert_eq!(offered(&proxy, "app.test", "app.test").await, (false, None));

    let apart = off(two_sites_file(&legacy, &[&shared, &own], ""), "other.test");
    let (proxy, _) = Vestibule::of(parse(&apart)).await;
    assert!(offered(&proxy, "app.test", "app.test").await.0, "the certificate of both");
}

#[tokio::test]
async fn a_reload_changes_what_is_offered() {
    let (app, proxy, browser) = logged_in(SITE).await;
    let browser = browser.over_http2();
    let mut before = offering(&browser).await;

    let off = configure(&app.upstream.url(), &format!("websocket_h2 = false\n{SITE}"));
    proxy.remote.reload(&off).unwrap();

    let asked = before.send_request(connect(&browser, "https://app.test/ws", Some("websocket"))).await.unwrap();
    assert_eq!(asked.status(), 501, "on a connection that it was offered on");
    assert_eq!(offered(&proxy, "app.test", "app.test").await, (false, None));
}

#[tokio::test]
async fn what_is_no_websocket_gets_no_tunnel() {
    // S88, S117, S123: success would be one (RFC 9113 8.5).
    let (app, _proxy, browser) = logged_in(SITE).await;
    let at = |path: &str| format!("https://app.test{path}");
    for (target, protocol, expected) in [
        ("app.test:443".to_owned(), None, 405),
        ("other.test:22".to_owned(), None, 405),
        (at("/ws"), Some("connect-udp"), 501),
        (at("/ws"), Some("WebSocket"), 501),
        ("https://unknown.test/ws".to_owned(), Some("websocket"), 421),
        ("http://app.test/ws".to_owned(), Some("websocket"), 400),
        (at("/public/..%2fws"), Some("websocket"), 400),
        (at("/.vestibule/session"), Some("websocket"), 502),
        (at("/"), Some("websocket"), 502),
        (at("/not/found"), Some("websocket"), 404),
        (at("/moved"), Some("websocket"), 302),
        (at("/ws"), Some("websocket"), 200),
    ] {
        let answer = ask(&browser, &target, protocol).await;
        assert_eq!(answer.status(), expected, "{target} {protocol:?}");
        assert!(!answer.headers().contains_key("set-cookie"), "vaulted: {answer:?}");
    }
    let asked: Vec<_> = app.upstream.received().into_iter().map(|request| request.target).collect();
    assert_eq!(asked, ["/login", "/", "/not/found", "/moved", "/ws"]);
}

#[tokio::test]
async fn the_key_is_ours_and_the_answer_must_be_to_it() {
    // S121, S123
    let app = Upstream::start(|request| {
        let key = request.header("sec-websocket-key").unwrap_or_default();
        let switch = Reply::status(101).header("connection", "upgrade").header("upgrade", "websocket");
        match request.path() {
            "/public/wrong" => switch.header("sec-websocket-accept", &derive_accept_key(b"another")),
            "/public/none" => switch,
            _ => switch.header("sec-websocket-accept", &derive_accept_key(key.as_bytes())),
        }
    })
    .await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for (path, expected) in [("/public/wrong", 502), ("/public/none", 502), ("/public/ws", 200), ("/public/ws", 200)] {
        let mut request = connect(&browser, &format!("https://app.test{path}"), Some("websocket"));
        request.headers_mut().insert("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        request.headers_mut().remove("cookie");
        let answer = offering(&browser).await.send_request(request).await.unwrap();
        assert_eq!(answer.status(), expected, "{path}");
    }

    let keys: Vec<_> =
        app.received().iter().map(|asked| asked.header("sec-websocket-key").unwrap().to_owned()).collect();
    let distinct: BTreeSet<_> = keys.iter().collect();
    assert_eq!(distinct.len(), 4, "{keys:?}");
    assert!(keys.iter().all(|key| key.len() == 24 && key != "dGhlIHNhbXBsZSBub25jZQ=="));
}

#[tokio::test]
async fn a_connection_is_in_use_as_long_as_there_is_a_tunnel_on_it() {
    // S172
    let app = EchoApp::start().await;
    let text = file(&app.upstream.url(), SITE);
    let config = parse(&format!("{text}\n[timeouts]\nkeep_alive = \"2s\"\n"));
    let (_proxy, browser) = Vestibule::of(config).await;
    let browser = browser.over_http2();
    let (mut socket, _) = open(&browser, "/public/ws", &[]).await.unwrap();
    assert!(echoed(&mut socket, "x").await);

    // One that was opened later, and on which nothing happens, is closed before and after.
    for _ in 0..2 {
        let stream = browser.connect(b"h2").await;
        let handshake = http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(stream));
        let (_sender, connection) = handshake.await.unwrap();
        connection.await.unwrap();
    }

    assert!(echoed(&mut socket, "still here").await);
}
