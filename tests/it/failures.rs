//! An application that is down, slow, or talks nonsense: the client learns the status, the log the cause.

use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::file;
use crate::support::navigation;
use crate::support::program::Program;
use crate::support::read_head;
use crate::support::unheard;

/// The one timeout that a test waits for: others would be those of a busy machine.
fn impatient(timeout: Option<&str>) -> String {
    let line = timeout.map_or_else(String::new, |timeout| format!("{timeout} = \"300ms\"\n"));
    format!("{SITE}[timeouts]\n{line}")
}

/// Where nobody listens, as long as the socket lives.
fn nowhere() -> (TcpSocket, String) {
    let (socket, address) = unheard();
    (socket, format!("http://{address}"))
}

/// Somebody who listens, and never accepts: the connections that fill the queue, and the address.
async fn crowded() -> (Vec<TcpStream>, TcpListener, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let (mut queue, mut late) = (Vec::new(), 0);
    // A busy machine may be late once.
    while late < 2 {
        match timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            Ok(connected) => {
                queue.push(connected.unwrap());
                late = 0;
            }
            Err(_) => late += 1,
        }
    }
    (queue, listener, format!("http://{address}"))
}

/// An application that reads each request and answers all of them with these bytes, then closes.
async fn saying(bytes: impl Into<Vec<u8>>) -> Wire {
    let bytes = bytes.into();
    Wire::start(move |_, mut stream: TcpStream| {
        let bytes = bytes.clone();
        async move {
            read_head(&mut stream).await;
            // It may be cut before it has said all.
            let _ = stream.write_all(&bytes).await;
        }
    })
    .await
}

/// An application that sends these bytes, and then nothing more.
async fn hanging(bytes: &'static str) -> Wire {
    Wire::start(move |_, mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let _until_closed = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

/// What every page of ours must be.
fn assert_small_and_silent(answer: &Answer, upstream: &str) {
    let address = upstream.trim_start_matches("http://");
    let text = format!("{:?} {}", answer.headers, answer.body);
    for told in [address, "127.0.0.1", env!("CARGO_PKG_VERSION"), "vestibule", "hyper", "os error"] {
        assert!(!text.to_lowercase().contains(told), "{told} in {text}");
    }
    assert!(answer.body.len() < 200, "{}", answer.body);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("strict-transport-security").is_some());
}

/// Asks once over each protocol; the log must name the cause once each time.
async fn assert_fails(upstream: &str, timeout: Option<&str>, status: u16, cause: &str) {
    let program = Program::start(&file(upstream, &impatient(timeout))).await;
    for http2 in [false, true] {
        let answer = program.browser().over(http2).get("/public/x?secret=canary").await;
        assert_eq!(answer.status.as_u16(), status, "{cause}");
        assert_small_and_silent(&answer, upstream);
        let retry = (status == 503).then_some("5");
        assert_eq!(answer.header("retry-after"), retry);
    }
    program.answered(2).await;
    let failures = program.events("upstream.failed");
    assert_eq!(failures.len(), 2, "{failures:?}");
    for (failure, access) in failures.iter().zip(program.events("access")) {
        let error = failure["error"].as_str().unwrap();
        assert!(error.contains(upstream) && error.contains(cause), "{error}");
        assert_eq!(failure["level"], "warn");
        assert_eq!(failure["request_id"], access["request_id"]);
        assert_eq!(access["status"], status);
    }
    assert!(!program.lines().iter().any(|line| line.to_string().contains("canary")), "S161");
}

#[tokio::test]
async fn an_application_that_cannot_be_reached_is_a_502_or_a_504() {
    // S165, S166
    let (_socket, address) = nowhere();
    assert_fails(&address, None, 502, "Connection refused").await;
    let (_queue, _listener, address) = crowded().await;
    assert_fails(&address, Some("connect"), 504, "connect timeout").await;
}

#[tokio::test]
async fn an_application_that_does_not_answer_is_a_504() {
    // S166
    for begins in ["", "HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
        assert_fails(&hanging(begins).await.url(), Some("first_byte"), 504, "first_byte timeout").await;
    }
}

#[tokio::test]
async fn an_application_that_talks_nonsense_is_a_502() {
    // S98, S121, S166
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1_000_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(300));
    for nonsense in [
        "",
        "220 mail.test ESMTP\r\n",
        "\r\n\r\n\r\n",
        "<html>HTTP/0.9</html>",
        "HTTP/1.1 99 Low\r\n\r\n",
        "HTTP/1.1 1000 High\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\na",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n: empty\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        &large,
        &many,
    ] {
        let wire = saying(nonsense).await;
        let (_proxy, browser) = Vestibule::at(&wire.url(), SITE).await;
        for http2 in [false, true] {
            let answer = browser.clone().over(http2).get("/public/x").await;
            assert_eq!(answer.status, 502, "{:.60}", nonsense.escape_debug().to_string());
            assert_small_and_silent(&answer, &wire.url());
        }
    }
}

#[tokio::test]
async fn what_was_nonsense_is_in_the_log_once() {
    // S166
    assert_fails(&saying("").await.url(), None, 502, "closed the connection without an answer").await;
    assert_fails(&saying("220 mail.test ESMTP\r\n").await.url(), None, 502, "does not begin as HTTP/1.1 does").await;
    let unasked = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n";
    assert_fails(&saying(unasked).await.url(), None, 502, "switched protocols").await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_in_the_log_once() {
    // S99, S166: its head has left, with its status.
    let part = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart";
    for (wire, timeout, cause) in
        [(saying(part).await, None, "the sender broke off"), (hanging(part).await, Some("body_idle"), "body_idle")]
    {
        let program = Program::start(&file(&wire.url(), &impatient(timeout))).await;
        for http2 in [false, true] {
            let request = navigation("GET", "/public/x").body(http_body_util::Full::default()).unwrap();
            let response = program.browser().over(http2).open(request).await;
            assert_eq!(response.status(), 200);
            assert!(response.into_body().collect().await.is_err(), "S99");
        }
        // Nothing else says that the log is complete.
        program.browser().get("/private").await;
        program.answered(3).await;
        let errors: Vec<Value> = program.events("upstream.failed").iter().map(|line| line["error"].clone()).collect();
        assert_eq!(errors.len(), 2, "{errors:?}");
        for error in errors {
            let error = error.as_str().unwrap();
            assert!(error.contains(&wire.url()) && error.contains(cause), "{error}");
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_is_nobodys_failure() {
    let wire = hanging("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
    let program = Program::start(&file(&wire.url(), SITE)).await;
    for http2 in [false, true] {
        let request = navigation("GET", "/public/x").body(http_body_util::Full::default()).unwrap();
        drop(program.browser().over(http2).open(request).await);
    }
    program.browser().get("/private").await;
    program.answered(3).await;
    assert_eq!(program.events("upstream.failed").len(), 0);
}

#[tokio::test]
async fn when_all_connections_are_in_use_the_next_waits_a_little_and_gets_a_503() {
    // S166, S174
    let wire = hanging("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart").await;
    let site = format!("{SITE}[limits]\nupstream_connections = 2\n[timeouts]\nconnect = \"2s\"\n");
    let program = Program::start(&file(&wire.url(), &site)).await;
    let request = || navigation("GET", "/public/x").body(http_body_util::Full::default()).unwrap();
    let first = program.browser().open(request()).await;
    let _second = program.browser().open(request()).await;

    let refused = program.browser().get("/public/x").await;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, Some("5")));
    assert_small_and_silent(&refused, &wire.url());
    assert_eq!(wire.connections(), 2);
    program.answered(3).await;
    let failures = program.events("upstream.failed");
    assert_eq!(failures.len(), 1);
    assert!(failures[0]["error"].as_str().unwrap().contains("upstream_connections"), "{failures:?}");

    let waiting = tokio::spawn({
        let mut browser = program.browser();
        async move { browser.open(request()).await.status() }
    });
    drop(first);
    assert_eq!(waiting.await.unwrap(), 200, "the slot of a client that left is free");
}

/// The same question of a stranger and of a user whose application is down.
async fn both(path: &str, ask: impl AsyncFn(&mut Browser, &str) -> Answer) -> (u16, u16) {
    let app = Upstream::legacy().await;
    let (proxy, browser) = Vestibule::with(&app, SITE).await;
    let (mut stranger, mut user) = (browser.clone(), browser);
    user.log_in("alice").await;
    let (_socket, address) = nowhere();
    proxy.remote.reload(&crate::support::configure(&address, SITE)).unwrap();
    (ask(&mut stranger, path).await.status.as_u16(), ask(&mut user, path).await.status.as_u16())
}

#[tokio::test]
async fn a_stranger_does_not_learn_that_the_application_is_down() {
    // S169
    for path in ["/private", "/missing", "/private?x=1"] {
        assert_eq!(both(path, async |browser, path| browser.get(path).await).await, (303, 502));
        assert_eq!(both(path, async |browser, path| browser.fetch(path).await).await, (401, 502));
    }
}

#[tokio::test]
async fn a_login_that_nobody_answers_is_no_login() {
    // Product 3.5: undetermined. S166
    async fn attempt(url: &str, timeout: Option<&str>, rule: &str) -> (u16, Vec<Value>) {
        let site = impatient(timeout).replace("{ status = [302, 303], location_not = \"/login*\" }", rule);
        let program = Program::start(&file(url, &site)).await;
        let mut browser = program.browser();
        let answer = browser.post("/login", &[("username", "alice"), ("password", "canary")]).await;
        assert!(answer.set_cookies().is_empty() && browser.session().is_none());
        program.answered(1).await;
        assert!(!program.lines().iter().any(|line| line.to_string().contains("canary")), "S161");
        (answer.status.as_u16(), program.events("login.attempt"))
    }
    let redirect = "{ status = 302 }";
    let welcome = "{ body_contains = \"Welcome\" }";
    let half = "HTTP/1.1 200 OK\r\nSet-Cookie: PHPSESSID=1\r\nContent-Length: 100\r\n\r\nWelcome";
    let (_socket, address) = nowhere();
    for (url, timeout, rule, status) in [
        (address, None, redirect, 502),
        (hanging("").await.url(), Some("first_byte"), redirect, 504),
        (saying("nonsense").await.url(), None, redirect, 502),
        (saying(half).await.url(), None, welcome, 502),
        (hanging(half).await.url(), Some("body_idle"), welcome, 502),
    ] {
        let (found, attempts) = attempt(&url, timeout, rule).await;
        assert_eq!(found, status, "{url} {rule}");
        assert_eq!(attempts.len(), 1, "{url} {rule}");
        assert_eq!(attempts[0]["outcome"], "undetermined");
        assert_eq!(attempts[0]["user"], Value::Null);
    }
}

#[tokio::test]
async fn a_logout_works_whatever_the_application_does() {
    // S42, VR-18
    let app = Upstream::legacy().await;
    for wire in [saying("").await, saying("nonsense").await, hanging("").await, saying("HTTP/1.1 500 No\r\n\r\n").await]
    {
        let (proxy, mut browser) = Vestibule::with(&app, SITE).await;
        browser.log_in("alice").await;
        let stolen = browser.clone();
        proxy.remote.reload(&crate::support::configure(&wire.url(), &impatient(Some("first_byte")))).unwrap();

        let answer = browser.get("/logout").await;

        assert!(answer.ours().unwrap().contains("Max-Age=0"), "{answer:?}");
        assert_eq!(stolen.clone().get("/private").await.status, 303);
    }
}

#[tokio::test]
async fn why_a_login_could_not_be_verified_is_in_the_log() {
    let wire = Wire::start(|connection, mut stream: TcpStream| async move {
        read_head(&mut stream).await;
        if connection == 0 {
            stream.write_all(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let site = SITE.replace("success = {", "verify = {}\nsuccess = {");
    let program = Program::start(&file(&wire.url(), &site)).await;
    let mut browser = program.browser();

    let answer = browser.post("/login", &[("username", "alice"), ("password", "secret")]).await;

    assert_eq!((answer.status.as_u16(), browser.session()), (302, None));
    program.answered(1).await;
    assert_eq!(program.events("login.attempt")[0]["outcome"], "undetermined");
    assert_eq!(program.events("upstream.failed").len(), 1);
}
