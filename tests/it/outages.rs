//! A session store that does not answer, and requests that go wrong inside: nothing fails open, and the
//! next request is served as if nothing had been (product 3.8).

use std::sync::Arc;
use std::time::Duration;

use vestibule::clock::Timestamp;
use vestibule::store::SessionStore;

use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::OURS;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::TOGETHER;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::navigation;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::next;
use crate::support::websocket::open;

/// An application that sets a cookie of each kind on every page, a user, and a store to break.
async fn logged_in() -> (Upstream, Vestibule, Browser, Arc<BrokenStore>) {
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.method == "POST" => Reply::redirect("/").header("set-cookie", "PHPSESSID=fresh"),
        "/logout" => Reply::redirect("/login"),
        "/public/plain" => Reply::text("plain"),
        _ => Reply::text("page").header("set-cookie", "PHPSESSID=1").header("set-cookie", "theme=dark"),
    })
    .await;
    let store = BrokenStore::new();
    let (proxy, mut browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
    browser.log_in("alice").await;
    (app, proxy, browser, store)
}

#[tokio::test]
async fn a_silent_store_is_not_the_absence_of_a_session() {
    // S21, S167, VR-34, VR-30
    let (app, _proxy, alice, store) = logged_in().await;
    store.fails();
    let before = app.received().len();
    for http2 in [false, true] {
        let mut alice = alice.clone().over(http2);
        let upgrade = navigation("GET", "/socket")
            .header("origin", "https://app.test")
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        let mut answers = vec![
            alice.get("/private").await,
            alice.fetch("/private").await,
            alice.image("/public/x").await,
            alice.get("/login").await,
            alice.get("/logout").await,
            alice.post("/login", &[("username", "bob"), ("password", "secret")]).await,
            alice.get("/.vestibule/session").await,
            alice.post("/.vestibule/logout", &[]).await,
        ];
        if !http2 {
            answers.push(alice.send(upgrade.body(http_body_util::Full::default()).unwrap()).await);
        }
        for answer in answers {
            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")));
            assert!(answer.set_cookies().is_empty(), "the cookie is left alone: {answer:?}");
            assert!(!answer.body.contains("store") && answer.body.len() < 200, "{}", answer.body);
        }
    }
    assert_eq!(app.received().len(), before, "nothing was forwarded");

    store.works();
    assert_eq!(alice.clone().get("/private").await.status, 200, "the session is still there");
}

#[tokio::test]
async fn strangers_see_what_is_public_while_the_store_is_silent() {
    // S167
    let (app, proxy, _, store) = logged_in().await;
    store.fails();
    let mut stranger = proxy.browser();

    let page = stranger.get("/public/x").await;
    assert_eq!((page.status.as_u16(), page.body.as_str()), (200, "page"));
    assert_eq!(page.set_cookies(), ["theme=dark; Secure; SameSite=Lax"], "what would begin a session is dropped");
    assert_eq!(stranger.get("/login").await.status, 200);
    assert_eq!(stranger.get("/private").await.status, 303);
    assert_eq!(stranger.fetch("/private").await.status, 401);
    assert_eq!(app.last().path(), "/login");

    let login = stranger.post("/login", &[("username", "alice"), ("password", "secret")]).await;
    assert_eq!((login.status.as_u16(), login.header("retry-after")), (503, Some("5")));
    assert!(login.set_cookies().is_empty() && login.header("location").is_none(), "{login:?}");

    store.works();
    stranger.log_in("alice").await;
}

#[tokio::test]
async fn a_store_that_fails_in_the_midst_of_a_request_gives_nothing_away() {
    // S21, S26: whatever was done before it failed, no cookie and no page leaves.
    for path in ["/login", "/private"] {
        let store = BrokenStore::new();
        let broken = store.clone();
        let app = Upstream::start(move |request| {
            let answer = match request.path() {
                "/login" => Reply::redirect("/"),
                _ => Reply::text("page"),
            };
            if request.body.contains("break") {
                broken.fails();
            }
            answer.header("set-cookie", &format!("PHPSESSID={}", request.body.len()))
        })
        .await;
        let (_proxy, mut browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
        browser.log_in("alice").await;

        let answer = browser.post(path, &[("username", "alice"), ("password", "secret"), ("break", "")]).await;

        assert_eq!(answer.status, 503, "{path}");
        assert!(answer.set_cookies().is_empty() && !answer.body.contains("page"), "{answer:?}");
        store.works();
        assert_eq!(browser.get("/").await.status, 200, "{path}: the session that was is still there");
    }
}

#[tokio::test]
async fn a_request_that_panics_harms_no_other() {
    // S168
    let (app, proxy, mut alice, store) = logged_in().await;
    let cookie = format!("{OURS}={}", alice.session().unwrap());
    let two = format!(
        "GET /private HTTP/1.1\r\nHost: app.test\r\nCookie: {cookie}\r\n\r\n\
         GET /public/plain HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n"
    );
    for http2 in [false, true] {
        store.panics();
        let before = app.received().len();
        let answer = alice.clone().over(http2).get("/private").await;
        assert_eq!(answer.status, 500);
        assert!(answer.set_cookies().is_empty() && answer.body.len() < 200, "{answer:?}");
        assert!(answer.header("strict-transport-security").is_some());
        assert_eq!(app.received().len(), before);
        let answers = alice.raw(two.as_bytes()).await;
        assert!(answers.starts_with("HTTP/1.1 500 ") && answers.contains("HTTP/1.1 200 "), "{answers}");
        let login = proxy.browser().over(http2).post("/login", &[("username", "bob"), ("password", "secret")]).await;
        assert!(login.status.is_server_error() && login.set_cookies().is_empty(), "no half-made session: {login:?}");

        store.works();
        assert_eq!(alice.get("/private").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_open_ends_with_its_session_while_a_sweep_takes_long() {
    // S46, VR-06: another node ends it, which this one has to notice by itself.
    let (app, store) = (EchoApp::start().await, BrokenStore::new());
    let (proxy, mut browser) = Vestibule::with_store(configure(&app.upstream.url(), SITE), store.clone()).await;
    browser.log_in("alice").await;
    let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();
    store.sweeps_forever();
    proxy.advance(Duration::from_secs(10));
    assert!(echoed(&mut socket, "hello").await);

    let key = store.by_user("alice", None).await.unwrap()[0];
    assert!(store.remove(&key, false, Timestamp::default()).await.unwrap().is_some());
    proxy.advance(Duration::from_secs(1));

    let end = tokio::time::timeout(Duration::from_secs(10), next(&mut socket)).await;
    assert!(end.expect("still open").unwrap().is_close());
}

#[tokio::test]
async fn what_is_open_is_looked_after_all_at_once() {
    // S46: each question takes its time where the store is elsewhere.
    let (app, store) = (EchoApp::start().await, BrokenStore::new());
    let (proxy, _) = Vestibule::with_store(configure(&app.upstream.url(), SITE), store.clone()).await;
    let mut sockets = Vec::new();
    for _ in 0..TOGETHER {
        let mut browser = proxy.browser();
        browser.log_in("alice").await;
        sockets.push(open(&browser, "/ws", &[]).await.unwrap().0);
    }
    for key in store.by_user("alice", None).await.unwrap() {
        assert!(store.remove(&key, false, Timestamp::default()).await.unwrap().is_some());
    }

    store.gathers();
    proxy.advance(Duration::from_secs(1));

    for mut socket in sockets {
        let end = tokio::time::timeout(Duration::from_secs(10), next(&mut socket)).await;
        assert!(end.expect("still open").unwrap().is_close());
    }
}

#[tokio::test]
async fn what_is_open_outlives_no_absolute_end_while_the_store_is_silent() {
    // S37, S46, S167: and nothing is closed before.
    let (app, store) = (EchoApp::start().await, BrokenStore::new());
    let (proxy, mut browser) = Vestibule::with_store(configure(&app.upstream.url(), SITE), store.clone()).await;
    browser.log_in("alice").await;
    let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();
    store.fails();
    proxy.advance(Duration::from_secs(8 * 3600 - 10));
    assert!(echoed(&mut socket, "hello").await);

    proxy.advance(Duration::from_secs(10));

    let end = tokio::time::timeout(Duration::from_secs(10), next(&mut socket)).await;
    assert!(end.expect("still open").unwrap().is_close());
}
