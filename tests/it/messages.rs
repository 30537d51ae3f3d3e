//! Messages that could be read in two ways, byte by byte (security.md 1.6): what is in doubt reaches nobody,
//! and what follows it on the connection is not read.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::empty;
use crate::support::read_head;

/// What follows a message on its connection.
const NEXT: &str = "GET /public/next HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";

/// The statuses of all answers to these bytes.
async fn statuses(browser: &Browser, bytes: &[u8]) -> Vec<u16> {
    let answer = tokio::time::timeout(Duration::from_secs(20), browser.raw(bytes)).await.expect("the connection ends");
    answer.split("HTTP/1.1 ").skip(1).map(|rest| rest[..3].parse().unwrap()).collect()
}

/// A request with these lines, and the next one.
fn followed(start: &str, lines: &str, body: &str) -> Vec<u8> {
    format!("{start} HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n{body}{NEXT}").into_bytes()
}

#[tokio::test]
async fn what_frames_a_message_in_two_ways_ends_the_connection() {
    // S79, S80, S81, S96
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
    let chunked = format!("0\r\n\r\n{smuggled}");
    for lines in [
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: \r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: \r\n",
        "Content-Length: five\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 6\r\nContent-Length: 5\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\r\n : 5\r\n",
    ] {
        let answers = statuses(&browser, &followed("POST /public/x", lines, &chunked)).await;
        assert!(matches!(answers[..], [400] | [501]), "{lines:?} {answers:?}");
    }
    assert!(app.received().is_empty());
    // A length beside chunks: the chunks count, and the connection ends (RFC 9112 6.3).
    for lines in
        ["Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"]
    {
        let answers = statuses(&browser, &followed("POST /public/x", lines, &chunked)).await;
        assert!(matches!(answers[..], [400] | [200]), "{lines:?} {answers:?}");
    }
    let http_10 = format!("POST /public/x HTTP/1.0\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}");
    assert_eq!(statuses(&browser, http_10.as_bytes()).await, [400]);
    for received in app.received() {
        assert_eq!((received.target.as_str(), received.body.as_str()), ("/public/x", ""));
        assert!(received.headers.contains_key("content-length") != received.headers.contains_key("transfer-encoding"));
    }
}

#[tokio::test]
async fn fields_that_are_none_end_the_connection() {
    // S82, VR-58
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for lines in [
        "X-Name : value\r\n",
        ": value\r\n",
        "X Name: value\r\n",
        "X-Name\r\n",
        "X-Name: a\r\n folded\r\n",
        "X-Name: a\r\n\tfolded\r\n",
        " X-Name: a\r\n",
        "X-Name: a\rb\r\n",
        "X-Name: a\0b\r\n",
        "X-Name: a\x01b\r\n",
        "X-Name: a\x7fb\r\n",
        "X-N\u{e4}me: a\r\n",
        "X-Name(: a\r\n",
    ] {
        assert_eq!(statuses(&browser, &followed("GET /public/x", lines, "")).await, [400], "{lines:?}");
    }
    for start in
        ["GET /public/x HTTP/1.1 ", "GET /public/x", "GET", "", "GET /public/x HTTP/2.0", "GET /public/x HTTP/1.2"]
    {
        let request = format!("{start}\r\nHost: app.test\r\n\r\n{NEXT}");
        let answers = statuses(&browser, request.as_bytes()).await;
        assert!(matches!(answers[..], [400] | [] | [505]), "{start:?} {answers:?}");
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn refused_methods_and_expectations_end_the_connection() {
    // S88, S92, S94, S96
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for (start, lines, status) in [
        ("TRACE /public/x", "", 405),
        ("CONNECT app.test:443", "", 405),
        ("CONNECT evil.test:443", "", 400),
        ("get /public/x", "", 405),
        ("FOO /public/x", "", 405),
        ("PUT /public/x", "Expect: a-miracle\r\nContent-Length: 0\r\n", 417),
        ("GET *", "", 400),
        ("GET /public/x", "Host: app.test\r\n", 400),
    ] {
        assert_eq!(statuses(&browser, &followed(start, lines, "")).await, [status], "{start}");
    }
    assert!(app.received().is_empty());
    // The tunnel that CONNECT would be: what is sent ahead is nobody's request (S122).
    let connect = format!("CONNECT app.test:443 HTTP/1.1\r\nHost: app.test:443\r\n\r\n{NEXT}");
    assert_eq!(statuses(&browser, connect.as_bytes()).await, [405]);
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn broken_chunks_never_make_a_request() {
    // S84
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for chunks in [
        "5\r\nhelloX\r\n0\r\n\r\n",
        "6\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "5g\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nhello\r\n0\r\n\r\n",
        "5;a\nb\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-T railer: x\r\n\r\n",
    ] {
        let answers = statuses(&browser, &followed("POST /public/x", "Transfer-Encoding: chunked\r\n", chunks)).await;
        assert!(matches!(answers[..], [] | [400]), "{chunks:?} {answers:?}");
    }
    assert!(app.received().is_empty(), "{:?}", app.received());
    let good = "5;name=\"value\";x\r\nhello\r\n0\r\nX-Trailer: x\r\n\r\n";
    let answers = statuses(&browser, &followed("POST /public/x", "Transfer-Encoding: chunked\r\n", good)).await;
    assert_eq!(answers, [200, 200]);
    assert_eq!(app.received()[0].body, "hello");
}

#[tokio::test]
async fn requests_are_answered_in_their_order_until_one_is_in_doubt() {
    // S93, S96
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: app.test\r\n\r\n");
    let body = "GET /public/b HTTP/1.1\r\nHost: app.test\r\nContent-Length: 2\r\n\r\nhi";
    let fine = [get("/public/a"), body.to_owned(), get("/private"), NEXT.to_owned()].concat();
    assert_eq!(statuses(&browser, fine.as_bytes()).await, [200, 200, 401, 200]);
    let targets: Vec<_> = app.received().into_iter().map(|received| (received.target, received.body)).collect();
    let expected = [("/public/a", ""), ("/public/b", "hi"), ("/public/next", "")];
    assert_eq!(targets, expected.map(|(target, body)| (target.to_owned(), body.to_owned())));

    let bad = [get("/public/a"), "GET /public/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".into(), NEXT.into()].concat();
    assert_eq!(statuses(&browser, bad.as_bytes()).await, [200, 400]);
    assert_eq!(app.last().target, "/public/a");
}

#[tokio::test]
async fn clients_of_http_1_0_are_answered_in_theirs() {
    // S87, S97
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let answer = browser.raw(b"GET /public/x HTTP/1.0\r\nHost: app.test\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && !answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    assert_eq!(app.last().header("via"), Some("1.0 vestibule"));
}

#[tokio::test]
async fn the_application_gets_a_message_of_ours() {
    // S83, S86, S87, S93: bare line feeds, odd case and hop-by-hop fields end here.
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    let app = Wire::start(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            let head = read_head(&mut stream).await;
            seen.lock().unwrap().push(head);
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.unwrap();
            assert_eq!(&body, b"hello");
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await.unwrap();
        }
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
    let request = "PUT /public/a%2e?b=%00 HTTP/1.1\nhOST: app.test\nConnection: close, X-Private, Cookie, Content-Length\n\
                   X-Private: 1\nContent-Length: 5\nTE: trailers\nKeep-Alive: 5\nProxy-Connection: close\nTrailer: x\n\
                   X-Name:   a  b  \nx-name: c\nCookie: a=b\nOrigin: https://app.test\n\nhello";

    let answer = browser.raw(request.as_bytes()).await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let head = heads.lock().unwrap().pop().unwrap();
    let lines: Vec<_> = head.split("\r\n").collect();
    assert_eq!(lines[0], "PUT /public/a%2e?b=%00 HTTP/1.1");
    assert!(!head.replace("\r\n", "").contains(['\r', '\n']), "{head:?}");
    let mut fields: Vec<_> = lines[1..].iter().map(|line| line.to_ascii_lowercase()).collect();
    fields.retain(|line| {
        !line.starts_with("x-forwarded") && !line.starts_with("forwarded") && !line.starts_with("x-real")
    });
    fields.sort_unstable();
    let expected = [
        "content-length: 5",
        "cookie: a=b",
        "host: app.test",
        "origin: https://app.test",
        "via: 1.1 vestibule",
        "x-name: a  b",
        "x-name: c",
    ];
    assert_eq!(fields, expected);
}

#[tokio::test]
async fn options_count_the_servers_they_pass() {
    // S89
    let app = Upstream::plain().await;
    let site = SITE.replace("public =", "default = \"public\"\nprotected = \"/private\"\npublic =");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    let ask = async |start: &str, hops: &str| {
        let request =
            format!("{start} HTTP/1.1\r\nHost: app.test\r\nMax-Forwards: {hops}\r\nConnection: close\r\n\r\n");
        browser.raw(request.as_bytes()).await
    };
    for start in ["OPTIONS /public/x", "OPTIONS *"] {
        let answer = ask(start, "0").await;
        assert!(answer.starts_with("HTTP/1.1 204 ") && answer.contains("allow: GET, HEAD, POST,"), "{answer}");
    }
    assert!(ask("OPTIONS /private", "0").await.starts_with("HTTP/1.1 401 "));
    assert!(app.received().is_empty());
    for (start, hops, passed) in [
        ("OPTIONS *", "1", "0"),
        ("OPTIONS /public/x", "10", "9"),
        ("GET /public/x", "0", "0"),
        ("OPTIONS *", "x", "x"),
    ] {
        assert!(ask(start, hops).await.starts_with("HTTP/1.1 200 "), "{start} {hops}");
        assert_eq!(app.last().header("max-forwards"), Some(passed), "{start} {hops}");
    }
}

#[tokio::test]
async fn spaces_around_a_value_end_here() {
    // S104: also where they would have hidden a label from the rules.
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let spaced = |name: &str, value: &'static [u8]| {
        let value = http::HeaderValue::from_bytes(value).unwrap();
        empty(http::Request::post("/public/x").header(name, value))
    };
    let answer = browser.clone().over_http2().send(spaced("x-name", b"\t a b \t")).await;
    assert_eq!((answer.status.as_u16(), app.last().header("x-name")), (200, Some("a b")));
    let mut request = spaced("sec-fetch-site", b" cross-site ");
    request.headers_mut().insert("cookie", "a=b".parse().unwrap());
    assert_eq!(browser.clone().over_http2().send(request).await.status, 403);
    assert_eq!(browser.clone().over_http2().send(spaced("expect", b" 100-continue")).await.status, 200);
    assert_eq!(app.received().len(), 2);
}

#[tokio::test]
async fn chunk_extensions_and_trailers_are_bounded() {
    // S84
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let extended = format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(100_000));
    let trailing = format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(20_000));
    for chunks in [extended, trailing] {
        let answers = statuses(&browser, &followed("POST /public/x", "Transfer-Encoding: chunked\r\n", &chunks)).await;
        assert!(matches!(answers[..], [] | [400]), "{answers:?}");
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_body_reaches_the_application_with_whatever_method() {
    // S93
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "SEARCH", "POST"] {
        for (lines, body) in
            [("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), ("Content-Length: 5\r\n", "hello")]
        {
            let answers = statuses(&browser, &followed(&format!("{method} /public/x"), lines, body)).await;
            assert_eq!(answers, [200, 200], "{method} {lines}");
            let received = app.received();
            let [.., first, second] = &received[..] else { panic!("{received:?}") };
            assert_eq!((first.method.as_str(), first.body.as_str()), (method, "hello"), "{lines}");
            assert_eq!((second.target.as_str(), second.body.as_str()), ("/public/next", ""));
        }
        let (mut sender, body) = http_body_util::channel::Channel::<bytes::Bytes>::new(2);
        sender.send_data("hello".into()).await.unwrap();
        drop(sender);
        let request = http::Request::builder().method(method).uri("/public/x").header("origin", "https://app.test");
        let answer = browser.clone().over_http2().open(request.body(body).unwrap()).await;
        assert_eq!((answer.status().as_u16(), app.last().body.as_str()), (200, "hello"), "{method} over HTTP/2");
    }
}
