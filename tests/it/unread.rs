//! An answer that is given before the request's body was read arrives all the same.

use std::process::Command;

use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::certificates;

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
            .args(["-d", &body, &format!("https://app.test{path}")])
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
    let (proxy, _) = Vestibule::at("http://127.0.0.1:1", crate::support::SITE).await;
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
