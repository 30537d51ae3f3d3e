//! Answers of the application that no HTTP library would send, byte by byte (security.md 1.6): what the client
//! gets of them, and what becomes of the connection that they came on.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::eventually;
use crate::support::read_head;

/// An application that gives every request this answer.
async fn answering(answer: &'static str) -> Wire {
    Wire::start(move |_, mut stream: TcpStream| async move {
        // It may be cut before it has said all.
        while !read_head(&mut stream).await.is_empty() && stream.write_all(answer.as_bytes()).await.is_ok() {}
    })
    .await
}

/// What comes back for one request with this line, head and body as they are on the wire.
async fn wire(browser: &Browser, line: &str) -> (String, String) {
    let answer = browser.raw(format!("{line}\r\nHost: app.test\r\nConnection: close\r\n\r\n").as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer}"));
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn informational_answers_end_here() {
    // S95, S100: hyper's server cannot send them; browsers do without.
    let app = answering(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n\
         HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nSet-Cookie: early=1\r\n\r\n\
         HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
    for version in ["HTTP/1.0", "HTTP/1.1"] {
        let (head, body) = wire(&browser, &format!("GET /public/x {version}")).await;
        assert!(head.starts_with(&format!("{version} 200 ")) && body == "ok", "{head}\r\n\r\n{body}");
        assert!(!head.contains("early") && !head.contains("preload"), "{head}");
    }
    let answer = browser.over_http2().get("/public/x").await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok"));
    assert_eq!((answer.header("link"), answer.header("set-cookie")), (None, None));
}

#[tokio::test]
async fn a_client_of_http_1_0_is_not_told_to_continue() {
    // S95, S97 (RFC 9110 10.1.1)
    let app = Wire::start(|_, mut stream| async move {
        let head = read_head(&mut stream).await;
        assert!(!head.to_lowercase().contains("expect:"), "{head}");
        let mut body = [0; 5];
        stream.read_exact(&mut body).await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        stream.write_all(&body).await.unwrap();
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
    let request = "PUT /public/x HTTP/1.0\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello";
    let answer = browser.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200 ") && answer.ends_with("\r\n\r\nhello"), "{answer}");
}

#[tokio::test]
async fn an_answer_has_one_framing_or_is_none() {
    // S98
    for (answer, expected) in [
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "200"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", "200"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nX-Trailer: x\r\n\r\n", "200"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "502"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nok", "502"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "502",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", "502"),
    ] {
        let app = answering(answer).await;
        let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
        let (head, body) = wire(&browser, "GET /public/x HTTP/1.1").await;
        assert_eq!(head.split(' ').nth(1), Some(expected), "{answer:?}");
        let lower = head.to_lowercase();
        let framings = lower.matches("\r\ncontent-length:").count() + lower.matches("\r\ntransfer-encoding:").count();
        assert_eq!(framings, 1, "{answer:?} {head}");
        assert!(!head.contains("9") || !lower.contains("content-length: 9"), "{head}");
        if expected == "200" {
            assert!(["ok", "2\r\nok\r\n0\r\n\r\n"].contains(&body.as_str()), "{answer:?} {body}");
            let answer = browser.over_http2().get("/public/x").await;
            assert_eq!((answer.status.as_u16(), answer.header("transfer-encoding")), (200, None));
        }
    }
}

#[tokio::test]
async fn a_bad_answer_ends_its_connection() {
    // S98
    for nonsense in [
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 700 Odd\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "<html>HTTP/0.9</html>",
    ] {
        let ended: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&ended);
        let app = Wire::start(move |_, mut stream: TcpStream| {
            let count = Arc::clone(&count);
            async move {
                read_head(&mut stream).await;
                stream.write_all(nonsense.as_bytes()).await.unwrap();
                // However it ends: closed in order, or reset for what was not read.
                let _ = stream.read_to_end(&mut Vec::new()).await;
                count.fetch_add(1, Ordering::Relaxed);
            }
        })
        .await;
        let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
        for number in 1..=2 {
            assert!(wire(&browser, "POST /public/x HTTP/1.1").await.0.starts_with("HTTP/1.1 502 "), "{nonsense:?}");
            eventually("the connection ends", || ended.load(Ordering::Relaxed) == number).await;
            assert_eq!(app.connections(), number, "{nonsense:?}");
        }
    }
}

#[tokio::test]
async fn what_may_have_no_body_has_none_and_poisons_no_other() {
    // S98, S100, VR-59: bytes behind such an answer would be the answer to whoever gets the connection next.
    const POISON: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
    for (method, head, status) in [
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n", "204"),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", "204"),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", "204"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 44\r\n\r\n", "304"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", "304"),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n", "200"),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200"),
    ] {
        let answer: &'static str = format!("{head}{POISON}").leak();
        for http2 in [false, true] {
            let app = answering(answer).await;
            let (_proxy, mut browser) = Vestibule::at(&app.url(), SITE).await;
            let (first, body) = wire(&browser, &format!("{method} /public/x HTTP/1.1")).await;
            assert_eq!(first.split(' ').nth(1), Some(status), "{head:?}");
            assert_eq!(body, "", "{head:?}");
            let lower = first.to_lowercase();
            assert!(status != "204" || !lower.contains("content-length") && !lower.contains("transfer-encoding"));
            browser.http2 = http2;
            let request =
                crate::support::navigation(method, "/public/x").body(http_body_util::Full::default()).unwrap();
            let answer = browser.send(request).await;
            assert_eq!((answer.status.as_str(), answer.body.as_str()), (status, ""), "{head:?}");
            assert_eq!(app.connections(), 2, "the connection was used again: {head:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    // S97, VR-59
    let app = Wire::start(|_, mut stream| async move {
        read_head(&mut stream).await;
        stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nas long ").await.unwrap();
        stream.write_all(b"as it takes").await.unwrap();
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
    let (head, body) = wire(&browser, "GET /public/x HTTP/1.0").await;
    assert!(!head.to_lowercase().contains("transfer-encoding") && body == "as long as it takes", "{head} {body}");
    let kept = b"GET /public/x HTTP/1.0\r\nHost: app.test\r\nConnection: keep-alive\r\n\r\n";
    assert!(browser.raw(kept).await.ends_with("\r\n\r\nas long as it takes"));
    for http2 in [false, true] {
        let answer = browser.clone().over(http2).get("/public/x").await;
        assert_eq!(answer.body, "as long as it takes");
    }
}

#[tokio::test]
async fn lines_of_one_name_keep_their_order_and_a_date_is_added() {
    // S7, S102
    let date = "Date: Thu, 01 Jan 1998 00:00:00 GMT\r\n";
    for (sent, expected) in [("", None), (date, Some("Thu, 01 Jan 1998 00:00:00 GMT"))] {
        let lines =
            "Link: <b>\r\nX-Own: 2\r\nLink: <a>\r\nX-Own: 1\r\nSet-Cookie: z=1\r\nSet-Cookie: a=1\r\nLink: <c>\r\n";
        let answer: &'static str = format!("HTTP/1.1 200 OK\r\n{sent}{lines}Content-Length: 0\r\n\r\n").leak();
        for http2 in [false, true] {
            let app = answering(answer).await;
            let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
            let answer = browser.over(http2).get("/public/x").await;
            let values = |name| {
                answer.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            assert_eq!(values("link"), ["<b>", "<a>", "<c>"]);
            assert_eq!(values("x-own"), ["2", "1"]);
            assert!(values("set-cookie")[0].starts_with("z=1") && values("set-cookie")[1].starts_with("a=1"));
            let dates = values("date");
            assert!(dates.len() == 1 && expected.is_none_or(|date| dates[0] == date), "{dates:?}");
        }
    }
}

#[tokio::test]
async fn an_end_that_is_none_is_no_end_for_http_1_0_either() {
    // S99: nothing but the end of the connection tells these clients that it was all.
    let part = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n";
    for (answer, is_whole) in [(part.to_owned(), false), (format!("{part}0\r\n\r\n"), true)] {
        let app = Wire::start(move |_, mut stream| {
            let answer = answer.clone();
            async move {
                read_head(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        })
        .await;
        let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
        let mut stream = browser.connect(b"http/1.1").await;
        stream.write_all(b"GET /public/x HTTP/1.0\r\nHost: app.test\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).await;
        assert_eq!(ended.is_ok(), is_whole, "{}", String::from_utf8_lossy(&answer));
    }
}

#[tokio::test]
async fn a_switch_of_protocols_has_no_length() {
    // S100 (RFC 9110 8.6)
    let app = answering(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n",
    )
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url(), SITE).await;
    let mut stream = browser.connect(b"http/1.1").await;
    let handshake = "GET /public/x HTTP/1.1\r\nHost: app.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
                     Origin: https://app.test\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let head = read_head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.to_lowercase().contains("content-length"), "{head}");
}
