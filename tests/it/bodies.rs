//! Bodies that are too large, that wait for a permission, and that must not be there.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Channel;
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::read_head;

const LIMITED: &str = "[limits]\nbody = 1000\n";

fn post(path: &str, length: usize) -> Request<Full<Bytes>> {
    Request::post(path).body(Full::from(vec![b'x'; length])).unwrap()
}

#[tokio::test]
async fn a_body_that_says_it_is_too_large_is_refused_unread() {
    // S171
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}{LIMITED}")).await;
    for http2 in [false, true] {
        browser.http2 = http2;
        assert_eq!(browser.send(post("/public/x", 1001)).await.status, 413);
        assert_eq!(browser.send(post("/public/x", 8 * 1024 * 1024)).await.status, 413);
        assert!(app.received().is_empty());
    }
    let unsent = "POST /public/x HTTP/1.1\r\nHost: app.test\r\nContent-Length: 1001\r\n\r\n";
    let mut stream = browser.connect(b"http/1.1").await;
    stream.write_all(unsent.as_bytes()).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 413 "), "not one byte of it was sent");

    browser.http2 = false;
    for length in [0, 999, 1000] {
        assert_eq!(browser.send(post("/public/x", length)).await.status, 200);
        assert_eq!(app.last().body.len(), length);
    }
}

#[tokio::test]
async fn a_body_that_turns_out_to_be_too_large_is_no_complete_one() {
    // S171: the application must not take what it got for all there is.
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::with(&app, &format!("{SITE}{LIMITED}")).await;
    for http2 in [false, true] {
        for (pieces, status) in [(10, 200), (11, 413), (2000, 413)] {
            let mut browser = browser.clone().over(http2);
            let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
            tokio::spawn(async move {
                for _ in 0..pieces {
                    if sender.send_data(Bytes::from(vec![b'x'; 100])).await.is_err() {
                        return;
                    }
                }
            });
            let asked = browser.try_open(Request::post("/public/x").body(body).unwrap());
            let response = timeout(Duration::from_secs(10), asked).await.unwrap().unwrap();
            assert_eq!(response.status(), status, "{http2} {pieces}");
        }
    }
    assert!(app.received().iter().all(|request| request.body.len() == 1000), "{:?}", app.received().len());
    assert_eq!(app.received().len(), 2);
}

/// Sends a head that waits for permission; returns what comes back first and the connection.
async fn expecting(browser: &Browser, start: &str, lines: &str) -> (String, impl AsyncReadExt + AsyncWriteExt + Unpin) {
    let mut stream = browser.connect(b"http/1.1").await;
    let head = format!("{start} HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\n{lines}\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let first = timeout(Duration::from_secs(10), read_head(&mut stream)).await.expect("no answer");
    (first, stream)
}

#[tokio::test]
async fn a_client_is_told_to_go_on_when_its_body_is_wanted() {
    // S94
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let form = "Content-Type: application/x-www-form-urlencoded\r\n";
    for (start, body, status) in [
        ("POST /public/x", "a=1", "HTTP/1.1 200 "),
        ("POST /login", "username=alice&password=secret", "HTTP/1.1 302 "),
        ("POST /login", "username=alice&password=wrong", "HTTP/1.1 200 "),
    ] {
        let lines = format!("{form}Content-Length: {}\r\n", body.len());
        let (first, mut stream) = expecting(&browser, start, &lines).await;
        assert_eq!(first, "HTTP/1.1 100 Continue", "{start}");
        stream.write_all(body.as_bytes()).await.unwrap();
        let answer = timeout(Duration::from_secs(10), read_head(&mut stream)).await.unwrap();
        assert!(answer.starts_with(status), "{answer}");
        assert_eq!(app.last().body, body);
        assert_eq!(app.last().header("expect"), None, "we have answered it");
    }
}

#[tokio::test]
async fn a_client_whose_request_is_refused_need_not_send_its_body() {
    // S94
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::with(&app, &format!("{SITE}{LIMITED}")).await;
    let page = "Sec-Fetch-Mode: navigate\r\nSec-Fetch-Site: same-origin\r\n";
    let foreign = "Sec-Fetch-Site: cross-site\r\nOrigin: https://evil.test\r\nCookie: a=b\r\n";
    for (start, lines, status) in [
        ("PUT /private", "Content-Length: 10\r\n", 401),
        ("PUT /private", "Transfer-Encoding: chunked\r\n", 401),
        ("POST /private", &format!("{page}Content-Length: 10\r\n"), 303),
        ("POST /public/x", &format!("{foreign}Content-Length: 10\r\n"), 403),
        ("POST /public/x", "Content-Length: 1001\r\n", 413),
        ("POST /login", "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 70000\r\n", 413),
        ("POST /.vestibule/none", "Content-Length: 10\r\n", 404),
    ] {
        let (first, mut stream) = expecting(&browser, start, lines).await;
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{start}: {first}");
        // What comes next on the connection must not be taken for the body, nor the body for a request.
        let next = b"GET /public/smuggled HTTP/1.1\r\nHost: app.test\r\n\r\n";
        let _closed = stream.write_all(next).await;
        let mut rest = Vec::new();
        let _reset = timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await.expect("it stays open");
        assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1 "), "{start}");
    }
    assert!(app.received().is_empty());
}

/// An application that answers whatever is asked with what the path says.
async fn framing() -> Wire {
    Wire::start(|_, mut stream: TcpStream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let answer: &[u8] = match head.split(' ').nth(1) {
                Some("/public/204") => b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                Some("/public/205") => b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
                Some("/public/304") => b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: \"1\"\r\n\r\n",
                Some("/public/both") => {
                    b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
                }
                Some("/public/twice") => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
                Some("/public/early") => b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                Some("/public/size") if head.starts_with("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n",
                Some("/public/chunks") if head.starts_with("HEAD") => {
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                }
                Some(_) => b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
                None => return,
            };
            stream.write_all(answer).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn where_no_body_may_be_there_is_none() {
    // S95, S98, S100: the next answer on the connection is read right.
    let wire = framing().await;
    let (_proxy, browser) = Vestibule::at(&wire.url(), SITE).await;
    for (start, head, body) in [
        ("GET /public/204", "HTTP/1.1 204 ", ""),
        ("GET /public/304", "HTTP/1.1 304 ", ""),
        ("GET /public/205", "HTTP/1.1 205 ", ""),
        ("HEAD /public/size", "HTTP/1.1 200 ", ""),
        ("HEAD /public/chunks", "HTTP/1.1 200 ", ""),
        ("GET /public/both", "HTTP/1.1 200 ", "5\r\nhello\r\n0\r\n\r\n"),
        ("GET /public/twice", "HTTP/1.1 200 ", "hello"),
        ("GET /public/early", "HTTP/1.1 200 ", "hello"),
    ] {
        let two = format!(
            "{start} HTTP/1.1\r\nHost: app.test\r\n\r\nGET /public/next HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
        );
        let answers = browser.raw(two.as_bytes()).await;
        let (first, second) = answers.rsplit_once("HTTP/1.1 200 OK\r\n").unwrap();
        assert!(second.ends_with("\r\n\r\nhello"), "{start}: {answers}");
        let (first, rest) = first.split_once("\r\n\r\n").unwrap();
        assert!(first.starts_with(head), "{answers}");
        assert_eq!(rest, body, "{start}");
        let lower = first.to_lowercase();
        assert!(!(lower.contains("content-length") && lower.contains("transfer-encoding")), "{first}");
        match start {
            "GET /public/204" => assert!(!lower.contains("content-length"), "{first}"),
            "HEAD /public/size" => assert!(lower.contains("content-length: 12345"), "{first}"),
            "GET /public/304" => assert!(lower.contains("etag: \"1\""), "{first}"),
            _ => {}
        }
    }
    assert_eq!(wire.connections(), 2, "the application's connection went on, but not where the end was in doubt");
}

#[tokio::test]
async fn the_same_over_http2() {
    let wire = framing().await;
    let (_proxy, browser) = Vestibule::at(&wire.url(), SITE).await;
    let mut browser = browser.over_http2();
    for (method, path, status, body, length) in [
        ("GET", "/public/204", 204, "", None),
        ("GET", "/public/304", 304, "", Some("5")),
        ("HEAD", "/public/size", 200, "", Some("12345")),
        ("HEAD", "/public/chunks", 200, "", None),
        ("GET", "/public/both", 200, "hello", None),
        ("GET", "/public/twice", 200, "hello", Some("5")),
        ("GET", "/public/early", 200, "hello", Some("5")),
    ] {
        let request = Request::builder().method(method).uri(path).body(Full::default()).unwrap();
        let answer = browser.send(request).await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, body), "{path}");
        assert_eq!(answer.header("content-length"), length, "{path}");
    }
}

#[tokio::test]
async fn clients_of_http_1_0_get_no_chunks() {
    // S95, S97
    let wire = framing().await;
    let (_proxy, browser) = Vestibule::at(&wire.url(), SITE).await;
    for path in ["/public/both", "/public/early", "/public/x"] {
        let answer = browser.raw(format!("GET {path} HTTP/1.0\r\nHost: app.test\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
        assert!(!answer.to_lowercase().contains("transfer-encoding"), "{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "no interim answers: {answer}");
    }
    let kept = "GET /public/x HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n";
    let answers = browser.raw(format!("{kept}GET /public/x HTTP/1.0\r\nHost: app.test\r\n\r\n").as_bytes()).await;
    assert_eq!(answers.matches("hello").count(), 2, "{answers}");
    let posted = "POST /public/x HTTP/1.0\r\nHost: app.test\r\nContent-Length: 3\r\n\r\na=b";
    assert!(browser.raw(posted.as_bytes()).await.starts_with("HTTP/1.0 200 "));
}

#[tokio::test]
async fn heads_are_limited_on_both_protocols() {
    // S170
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    let target = |length: usize| format!("/public/{}", "x".repeat(length - "/public/".len()));
    let get = |target: &str| Request::get(target.to_owned());
    for http2 in [false, true] {
        browser.http2 = http2;
        assert_eq!(browser.send(get(&target(8000)).body(Full::default()).unwrap()).await.status, 200);
        assert_eq!(browser.send(get(&target(8193)).body(Full::default()).unwrap()).await.status, 414);
        let many = (0..101).fold(get("/public/x"), |request, field| request.header(format!("x-{field}"), "y"));
        assert_eq!(browser.send(many.body(Full::default()).unwrap()).await.status, 431);
        let some = (0..80).fold(get("/public/x"), |request, field| request.header(format!("x-{field}"), "y"));
        assert_eq!(browser.send(some.body(Full::default()).unwrap()).await.status, 200);
        let wide = get("/public/x").header("x", "y".repeat(33_000));
        assert_eq!(browser.send(wide.body(Full::default()).unwrap()).await.status, 431);
    }
}
