//! An answer that is given before the request's body was read arrives all the same.

use std::process::Command;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::certificates;
use crate::support::read_head;

/// What curl says about the answer to this form, twenty times.
async fn curl(proxy: &Vestibule, protocol: &'static str, path: &'static str, body: String) -> Vec<String> {
    curl_expecting("expect:", proxy, protocol, path, body).await
}

async fn curl_expecting(
    expect: &'static str,
    proxy: &Vestibule,
    protocol: &'static str,
    path: &'static str,
    body: String,
) -> Vec<String> {
    let connect = format!("app.test:443:127.0.0.1:{}", proxy.https.port());
    let command = move || {
        let out = Command::new("curl")
            .args(["-s", protocol, "--connect-to", &connect, "--cacert"])
            .arg(&certificates().ca)
            .args(["-H", "origin: https://app.test", "-H", expect, "-o", "/dev/null", "-w", "%{http_code} %{errormsg}"])
            .args(["--expect100-timeout", "20", "-d", &body, &format!("https://app.test{path}")])
            .output()
            .unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    tokio::task::spawn_blocking(move || (0..20).map(|_| command()).collect()).await.unwrap()
}

#[tokio::test]
async fn a_refusal_arrives_although_the_body_is_not_read() {
    // VR-59: over HTTP/2 curl took the reset of the stream for the answer.
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for protocol in ["--http2", "--http1.1"] {
        for body in ["x=1".to_owned(), "x".repeat(100_000)] {
            assert_eq!(curl(&proxy, protocol, "/private", body).await, ["401"; 20], "{protocol}");
        }
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_failure_of_the_application_arrives_although_the_body_is_not_read() {
    let (proxy, _) = Vestibule::at("http://127.0.0.1:1", SITE).await;
    for protocol in ["--http2", "--http1.1"] {
        assert_eq!(curl(&proxy, protocol, "/public/x", "x=1".to_owned()).await, ["502"; 20], "{protocol}");
    }
}

#[tokio::test]
async fn a_refusal_arrives_before_the_body_is_sent() {
    // S94: over HTTP/2 curl took the reset of the stream for the answer here as well.
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for protocol in ["--http2", "--http1.1"] {
        for (path, status) in [("/private", "401"), ("/login", "413")] {
            let answers = curl_expecting("expect: 100-continue", &proxy, protocol, path, "x".repeat(70_000)).await;
            assert_eq!(answers, [status; 20], "{protocol} {path}");
        }
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_body_that_was_asked_for_is_read_away_after_a_refusal() {
    // S94: a connection that is closed instead can take the refusal with it.
    let wire = Wire::start(|_, mut stream: TcpStream| async move {
        while read_head(&mut stream).await.starts_with("GET ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
        }
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nno!").await.unwrap();
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&wire.url(), SITE).await;
    let mut stream = browser.connect(b"http/1.1").await;
    let body = vec![b'x'; 4 * 1024 * 1024];
    let head = format!(
        "POST /public/x HTTP/1.1\r\nHost: app.test\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );

    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(read_head(&mut stream).await, "HTTP/1.1 100 Continue");
    stream.write_all(&body[..1]).await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 413 "));
    stream.read_exact(&mut [0; 3]).await.unwrap();
    stream.write_all(&body[1..]).await.unwrap();

    stream.write_all(b"GET /public/x HTTP/1.1\r\nHost: app.test\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 200 "));
}
