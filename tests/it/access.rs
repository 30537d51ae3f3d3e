//! Who may pass, and what those get who may not.

use std::time::Duration;

use http::Request;
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::support::Answer;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::empty;
use crate::support::navigation;

#[tokio::test]
async fn what_is_not_public_needs_a_session() {
    // S52, S169, VR-07, VR-14
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let page = browser.get("/private?x=1").await;
    assert_eq!((page.status.as_u16(), page.location()), (303, "/login"));
    let fetch = browser.fetch("/private").await;
    assert_eq!(fetch.status, 401);
    assert_eq!(fetch.header("www-authenticate"), Some("Session"));
    assert_eq!(fetch.header("content-type"), Some("application/problem+json"));
    assert_eq!(browser.post("/private", &[("a", "b")]).await.status, 303);
    assert!(app.received().is_empty());
    assert_eq!(browser.get("/public/x").await.status, 200);
    assert_eq!(app.last().header("x-forwarded-user"), None);
}

#[tokio::test]
async fn page_loads_are_redirected_and_nothing_else_is() {
    // S52, S156, VR-07; product 3.4
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let html = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
    for (method, lines, status) in [
        ("GET", &[("sec-fetch-mode", "navigate")][..], 303),
        ("HEAD", &[("sec-fetch-mode", "navigate")], 303),
        ("POST", &[("sec-fetch-mode", "navigate"), ("sec-fetch-site", "same-origin")], 303),
        ("DELETE", &[html], 303),
        ("GET", &[("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "iframe"), ("x-requested-with", "x")], 303),
        ("GET", &[html], 303),
        ("HEAD", &[html], 303),
        ("GET", &[html, ("x-requested-with", "XMLHttpRequest")], 401),
        ("GET", &[html, ("sec-fetch-mode", "cors"), ("sec-fetch-dest", "empty")], 401),
        ("GET", &[html, ("sec-fetch-mode", "no-cors"), ("sec-fetch-dest", "image")], 401),
        ("GET", &[("accept", "*/*")], 401),
        ("GET", &[("accept", "application/json")], 401),
        ("GET", &[], 401),
        ("HEAD", &[], 401),
        ("POST", &[("accept", "application/json")], 401),
        ("OPTIONS", &[("sec-fetch-mode", "cors"), ("access-control-request-method", "PUT")], 401),
    ] {
        let mut request = Request::builder().method(method).uri("/private");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let answer = browser.clone().send(empty(request)).await;
        assert_eq!(answer.status, status, "{method} {lines:?}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{method} {lines:?}");
        assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{method} {lines:?}");
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn the_refusal_is_the_same_for_what_exists_and_what_does_not() {
    // S58, S165, S169
    let app = Upstream::start(|request| match request.path() {
        "/exists" => Reply::text("page"),
        _ => Reply::status(404),
    })
    .await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let shown = |answer: Answer| {
        let mut lines: Vec<_> = answer.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
        lines.retain(|line| !line.starts_with("date"));
        (answer.status, lines, answer.body)
    };
    let stale = browser.with_session(&"A".repeat(43));

    let existing = shown(browser.clone().fetch("/exists").await);
    assert_eq!(shown(browser.clone().fetch("/missing").await), existing);
    assert_eq!(shown(stale.clone().fetch("/exists").await), existing);
    assert!(existing.2.len() < 200, "{}", existing.2);
    for hint in ["127.0.0.1", "vestibule", "Vestibule", "/exists", "hyper", "0.1"] {
        assert!(!existing.2.contains(hint), "{hint}");
    }
}

#[tokio::test]
async fn the_way_back_goes_through_the_applications_own_parameter() {
    // S154, VR-16
    let app = Upstream::legacy().await;
    let site = SITE.replace("user    =", "return_param = \"next\"\nuser    =");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    assert_eq!(browser.get("/a/b?c=d&e").await.location(), "/login?next=%2Fa%2Fb%3Fc%3Dd%26e");
    assert_eq!(browser.get("/login?next=%2Fa").await.status, 200);
    assert_eq!(browser.post("/a", &[]).await.location(), "/login");
}

#[tokio::test]
async fn a_refused_upload_is_answered_at_once_and_reaches_nobody() {
    // S94, VR-29, VR-59
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let head = "POST /upload HTTP/1.1\r\nHost: app.test\r\nAccept: text/html\r\nContent-Length: 4000000\r\n";

    // A client that reads only when it has sent everything.
    let upload = [format!("{head}\r\n").into_bytes(), vec![b'x'; 4_000_000]].concat();
    let next = b"GET /public/next HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
    let answers = browser.raw(&[upload, next.to_vec()].concat()).await;
    assert!(answers.starts_with("HTTP/1.1 303 "), "{answers}");
    assert!(answers.contains("HTTP/1.1 200 "), "the connection goes on: {answers}");

    // One that sends nothing, one that asks first.
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut stream = browser.connect(b"http/1.1").await;
        stream.write_all(format!("{head}{expect}\r\n").as_bytes()).await.unwrap();
        let mut status = [0; 12];
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut status)).await;
        assert!(matches!(read, Ok(Ok(_))), "{expect}");
        assert_eq!(&status, b"HTTP/1.1 303", "{expect}");
    }

    // Over HTTP/2.
    let request = navigation("POST", "/upload").body(Full::from(vec![b'x'; 4_000_000])).unwrap();
    assert_eq!(browser.clone().over_http2().send(request).await.status, 303);
    let targets: Vec<_> = app.received().into_iter().map(|received| received.target).collect();
    assert_eq!(targets, ["/public/next"]);
}

#[tokio::test]
async fn a_session_is_valid_at_its_own_site_only() {
    // VR-55
    let (app, other) = (Upstream::legacy().await, Upstream::legacy().await);
    let site = format!(
        "{SITE}\n[[site]]\norigin = \"https://app.test:8443\"\nupstream = \"{}\"\n{SITE}\n[[site]]\norigin = \
         \"https://other.test\"\nupstream = \"{}\"\n{SITE}",
        other.url(),
        other.url()
    );
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    assert_eq!(browser.get("/").await.status, 200);

    for host in ["app.test:8443", "other.test"] {
        let request = navigation("GET", "/").header("host", host);
        assert_eq!(browser.send(empty(request)).await.status, 303, "{host}");
    }
    assert!(other.received().is_empty());
    assert_eq!(browser.get("/").await.status, 200, "and it lives on");
}

#[tokio::test]
async fn a_login_page_is_open_whatever_letters_its_path_has() {
    let app = Upstream::legacy().await;
    let site = SITE
        .replace("path    = \"/login\"", "path = \"/sign in/café\"")
        .replace("[site.access]", "[site.access]\ndeny = \"/two words/*\"");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    let sent = browser.get("/private").await;

    assert_eq!(sent.location(), "/sign%20in/caf%C3%A9");
    assert_eq!(browser.get("/sign%20in/caf%C3%A9").await.status, 200);
    assert_eq!(browser.get("/two%20words/x").await.status, 403);
}
