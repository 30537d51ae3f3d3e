//! What keeps a session alive, and what ends with it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use http_body_util::channel::Sender;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

use crate::support::Browser;
use crate::support::OURS;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::navigation;

const MINUTE: Duration = Duration::from_secs(60);

/// How many seconds the session may idle, as a page's countdown asks.
async fn idle(browser: &Browser) -> Option<u64> {
    let answer = browser.clone().fetch("/.vestibule/session").await;
    let session: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    session["idle_expires_in"].as_u64()
}

async fn is_active(browser: &Browser) {
    eventually_so("it counts as activity", async || idle(browser).await == Some(1800)).await;
}

type Streaming = Arc<Mutex<Option<Sender<Bytes, std::io::Error>>>>;

/// An application whose answer to /stream is what the test sends.
async fn streaming(content_type: &'static str) -> (Upstream, Streaming) {
    let sender: Streaming = Arc::default();
    let kept = Arc::clone(&sender);
    let app = Upstream::start(move |request| match request.path() {
        "/login" => Reply::redirect("/"),
        "/stream" => {
            let (sender, body) = Channel::new(1);
            *kept.lock().unwrap() = Some(sender);
            Reply::status(200).header("content-type", content_type).stream(body)
        }
        _ => Reply::text("page"),
    })
    .await;
    (app, sender)
}

async fn send(streaming: &Streaming, text: &'static str) {
    let mut sender = streaming.lock().unwrap().take().unwrap();
    sender.send_data(Bytes::from_static(text.as_bytes())).await.unwrap();
    *streaming.lock().unwrap() = Some(sender);
}

#[tokio::test]
async fn the_countdown_moves_with_each_request() {
    // S36, VR-26
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    proxy.advance(10 * MINUTE);
    assert_eq!(idle(&browser).await, Some(1200));

    for path in ["/", "/public/x", "/login"] {
        proxy.advance(Duration::from_secs(2));
        browser.get(path).await;
        assert_eq!(idle(&browser).await, Some(1800), "{path}");
    }
    proxy.advance(Duration::from_secs(2));
    browser.post("/login", &[("username", "alice"), ("password", "wrong")]).await;
    assert_eq!(idle(&browser).await, Some(1800), "a failed login is a request as well");
}

#[tokio::test]
async fn a_slow_login_begins_a_whole_session() {
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |_| Reply::redirect("/").held(&held)).await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    let mut tab = browser.clone();
    let login = tokio::spawn(async move { (tab.log_in("alice").await, tab) });
    eventually("the login arrives", || !app.received().is_empty()).await;

    proxy.advance(31 * MINUTE);
    hold.notify_one();
    let (answer, tab) = login.await.unwrap();

    assert!(answer.ours().unwrap().contains("Max-Age=28800"), "{answer:?}");
    assert_eq!(idle(&tab).await, Some(1800));
}

/// The head of an upload with this browser's session.
fn upload(browser: &Browser, length: usize) -> String {
    format!(
        "POST /upload HTTP/1.1\r\nHost: app.test\r\nCookie: {OURS}={}\r\nSec-Fetch-Site: same-origin\r\n\
         User-Agent: Test/1.0\r\nContent-Type: application/octet-stream\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n",
        browser.session().unwrap()
    )
}

#[tokio::test]
async fn an_upload_that_moves_keeps_its_session() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut stream = browser.connect(b"http/1.1").await;
    let piece = vec![b'x'; 100_000];
    stream.write_all(upload(&browser, 400_000).as_bytes()).await.unwrap();
    for _ in 0..3 {
        stream.write_all(&piece).await.unwrap();
        stream.flush().await.unwrap();
        is_active(&browser).await;
        proxy.advance(20 * MINUTE);
    }
    stream.write_all(&piece).await.unwrap();
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer).await;

    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(app.last().body.len(), 400_000);
}

#[tokio::test]
async fn an_upload_ends_with_its_session() {
    // S46: closed at once, and never a complete request to the application.
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut stream = browser.connect(b"http/1.1").await;
    stream.write_all(upload(&browser, 400_000).as_bytes()).await.unwrap();
    stream.write_all(&[b'x'; 1000]).await.unwrap();
    stream.flush().await.unwrap();
    is_active(&browser).await;

    browser.get("/logout").await;
    let mut answer = Vec::new();
    let _cut = stream.read_to_end(&mut answer).await;

    assert!(answer.starts_with(b"HTTP/1.1 401"), "{}", String::from_utf8_lossy(&answer));
    assert!(app.received().iter().all(|request| request.path() != "/upload"));
}

#[tokio::test]
async fn a_download_that_moves_keeps_its_session_and_ends_with_it() {
    // S46, VR-06
    for http2 in [false, true] {
        let (app, body) = streaming("application/octet-stream").await;
        let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
        browser.http2 = http2;
        browser.log_in("alice").await;
        let mut download =
            browser.clone().open(navigation("GET", "/stream").body(http_body_util::Full::default()).unwrap()).await;
        for _ in 0..3 {
            proxy.advance(20 * MINUTE);
            send(&body, "piece").await;
            assert_eq!(download.frame().await.unwrap().unwrap().into_data().unwrap(), "piece");
            is_active(&browser).await;
        }

        browser.get("/logout").await;

        let end = tokio::time::timeout(Duration::from_secs(4), download.frame()).await.unwrap();
        assert!(end.is_none_or(|frame| frame.is_err()), "cut");
    }
}

#[tokio::test]
async fn events_are_no_activity_and_end_with_the_session() {
    // S38, S46
    for content_type in ["text/event-stream", "Text/Event-Stream; charset=utf-8"] {
        let (app, body) = streaming(content_type).await;
        let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
        browser.log_in("alice").await;
        let mut events =
            browser.clone().open(navigation("GET", "/stream").body(http_body_util::Full::default()).unwrap()).await;
        for left in [1200, 600] {
            proxy.advance(10 * MINUTE);
            send(&body, "data: x\n\n").await;
            assert_eq!(events.frame().await.unwrap().unwrap().into_data().unwrap(), "data: x\n\n");
            assert_eq!(idle(&browser).await, Some(left));
        }

        proxy.advance(10 * MINUTE);

        let end = tokio::time::timeout(Duration::from_secs(4), events.frame()).await.unwrap();
        assert!(end.is_none_or(|frame| frame.is_err()), "cut");
        assert_eq!(browser.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn what_moves_on_a_polling_path_is_no_activity() {
    // S38
    let (app, body) = streaming("application/octet-stream").await;
    let site = SITE.replace("public =", "untouched = \"/stream\"\npublic =");
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    let mut poll =
        browser.clone().open(navigation("GET", "/stream").body(http_body_util::Full::default()).unwrap()).await;
    proxy.advance(20 * MINUTE);
    send(&body, "piece").await;
    assert_eq!(poll.frame().await.unwrap().unwrap().into_data().unwrap(), "piece");

    proxy.advance(10 * MINUTE);

    let end = tokio::time::timeout(Duration::from_secs(4), poll.frame()).await.unwrap();
    assert!(end.is_none_or(|frame| frame.is_err()), "cut");
}

#[tokio::test]
async fn a_login_ends_what_was_open_for_the_session_before() {
    let (app, body) = streaming("text/event-stream").await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut events =
        browser.clone().open(navigation("GET", "/stream").body(http_body_util::Full::default()).unwrap()).await;
    send(&body, "x").await;
    events.frame().await.unwrap().unwrap();

    browser.log_in("bob").await;

    let end = tokio::time::timeout(Duration::from_secs(4), events.frame()).await.unwrap();
    assert!(end.is_none_or(|frame| frame.is_err()), "cut");
}

#[tokio::test]
async fn a_reload_with_a_shorter_limit_also_ends_what_is_open() {
    let (app, body) = streaming("text/event-stream").await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut events =
        browser.clone().open(navigation("GET", "/stream").body(http_body_util::Full::default()).unwrap()).await;
    send(&body, "x").await;
    events.frame().await.unwrap().unwrap();

    proxy.reload(&format!("{SITE}\n[site.session]\nidle_timeout = \"10m\"\nrotate_every = \"5m\""));
    proxy.advance(10 * MINUTE);

    let end = tokio::time::timeout(Duration::from_secs(4), events.frame()).await.unwrap();
    assert!(end.is_none_or(|frame| frame.is_err()), "cut");
    assert_eq!(browser.fetch("/").await.status, 401);
}
