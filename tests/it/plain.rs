//! The plain listener: it only sends page loads to the configured origin.

use std::net::SocketAddr;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::LISTEN;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::certificates;
use crate::support::parse;

/// What comes back for these bytes until the connection closes: status, head in lower case, body.
async fn send(proxy: SocketAddr, request: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    // It may have been refused before it has all left.
    let _refused = stream.write_all(request.as_bytes()).await;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer to {request}"));
    (head[9..12].parse().unwrap(), head.to_ascii_lowercase(), body.to_owned())
}

async fn get(proxy: SocketAddr, host: &str, target: &str) -> (u16, Option<String>) {
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\nCookie: a=b\r\nX-Forwarded-Host: evil.test\r\n\
         X-Forwarded-Proto: http\r\nForwarded: host=evil.test;proto=http\r\nReferer: https://evil.test/\r\n\
         Connection: close\r\n\r\n"
    );
    let (status, head, body) = send(proxy, &request).await;
    assert!(!head.contains("set-cookie") && !head.contains("strict-transport-security"), "{head}");
    assert!(!body.contains("evil"), "{body}");
    (status, head.lines().find_map(|line| line.strip_prefix("location: ")).map(str::to_owned))
}

async fn start() -> (Upstream, Vestibule) {
    let app = Upstream::legacy().await;
    let pem = |file: &str| certificates().ca.with_file_name(file);
    let site = |names: &str| format!("[[site]]\n{names}\nupstream = \"{}\"\n{SITE}", app.url());
    let text = format!(
        "{LISTEN}\n[tls]\ncertificate = {:?}\nkey = {:?}\n{}{}",
        pem("server.pem"),
        pem("server.key"),
        site("origin = \"https://app.test\"\naliases = \"https://www.app.test\""),
        site("origin = \"https://other.test:8443\""),
    );
    let (proxy, _) = Vestibule::of(parse(&text)).await;
    (app, proxy)
}

#[tokio::test]
async fn page_loads_are_sent_to_the_configured_origin() {
    // S134, S157, S133, VR-56
    let (app, proxy) = start().await;
    for (host, target, location) in [
        ("app.test", "/", "https://app.test/"),
        ("APP.test.", "/a/b?c=d&e", "https://app.test/a/b?c=d&e"),
        ("app.test:80", "//evil.test/x", "https://app.test//evil.test/x"),
        ("app.test", "/?", "https://app.test/?"),
        ("app.test", "http://app.test/x", "https://app.test/x"),
        ("www.app.test", "/x", "https://app.test/x"),
        ("other.test", "/x", "https://other.test:8443/x"),
        ("other.test:8080", "/x", "https://other.test:8443/x"),
    ] {
        assert_eq!(get(proxy.http, host, target).await, (308, Some(location.to_owned())), "{host} {target}");
    }
    let (status, head, body) =
        send(proxy.http, "HEAD /x HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await;
    assert_eq!((status, body.as_str()), (308, ""));
    assert!(head.contains("location: https://app.test/x"));
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn what_a_client_names_is_never_sent_back() {
    // S77, S134, S157
    let (_app, proxy) = start().await;
    for (host, target, expected) in [
        ("evil.test", "/", 421),
        ("app.test.evil.test", "/", 421),
        ("127.0.0.1", "/", 421),
        ("app.test@evil.test", "/", 400),
        ("app.test/evil", "/", 400),
        ("", "/", 400),
        ("app.test", "http://evil.test/", 400),
        ("app.test", "*", 400),
        ("app.test", "/\u{e4}", 400),
    ] {
        assert_eq!(get(proxy.http, host, target).await, (expected, None), "{host} {target}");
    }
    let (status, _, _) = send(proxy.http, "GET / HTTP/1.1\r\nHost: app.test\r\nHost: evil.test\r\n\r\n").await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn nothing_else_is_answered_in_the_clear() {
    // S134: neither other methods nor WebSockets, and the client gets to read why.
    let (app, proxy) = start().await;
    let body = "x".repeat(300_000);
    for request in [
        "POST /login HTTP/1.1\r\nHost: app.test\r\nContent-Length: 9\r\n\r\npassword=".to_owned(),
        format!("POST /login HTTP/1.1\r\nHost: app.test\r\nContent-Length: 300000\r\n\r\n{body}"),
        "DELETE / HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned(),
        "TRACE / HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned(),
        "CONNECT app.test:443 HTTP/1.1\r\nHost: app.test\r\n\r\n".to_owned(),
        "GET /ws HTTP/1.1\r\nHost: app.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            .to_owned(),
    ] {
        let (status, head, _) = send(proxy.http, &request).await;
        assert!((400..500).contains(&status), "{status} for {:.40}", request);
        assert!(!head.contains("location") && head.contains("connection: close"), "{head}");
        for line in
            ["content-type: text/plain; charset=utf-8", "x-content-type-options: nosniff", "cache-control: no-store"]
        {
            assert!(head.contains(line), "S165: {head}");
        }
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_client_that_asks_on_and_takes_nothing_is_not_waited_for() {
    // S172: one answer for a connection.
    let (_app, proxy) = start().await;
    let requests = "GET / HTTP/1.1\r\nHost: app.test\r\n\r\n".repeat(100);

    let (status, head, body) = send(proxy.http, &requests).await;

    assert_eq!((status, body.as_str()), (308, ""), "and nothing behind it");
    assert!(head.contains("connection: close"), "{head}");
}
