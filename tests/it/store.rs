//! A session store that does not answer: that is never "no session", and never lets anyone in (product
//! 3.8).

use std::sync::Arc;

use http_body_util::Full;

use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::labelled;

/// Logged in, over a store that can be broken.
async fn logged_in() -> (Upstream, Arc<BrokenStore>, Vestibule, Browser) {
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.method == "POST" => Reply::redirect("/").header("set-cookie", "sid=in; HttpOnly"),
        path if path.starts_with("/public/") => Reply::text("public").header("set-cookie", "sid=anonymous; HttpOnly"),
        _ => Reply::text("private"),
    })
    .await;
    let store = BrokenStore::new();
    let (proxy, mut browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
    browser.log_in("alice").await;
    (app, store, proxy, browser)
}

#[tokio::test]
async fn whoever_presents_our_cookie_is_asked_to_come_back() {
    // S167, VR-30, VR-34
    let (app, store, _proxy, browser) = logged_in().await;
    let before = app.received().len();
    store.fails();

    for mut browser in [browser.clone(), browser.clone().over_http2()] {
        let kept = browser.cookies.clone();
        for path in ["/", "/public/x", "/login", "/logout", "/.vestibule/session"] {
            for answer in [browser.get(path).await, browser.fetch(path).await] {
                assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")), "{path}");
                assert_eq!(answer.header("cache-control"), Some("no-store"));
            }
        }
        for path in ["/", "/logout", "/.vestibule/logout", "/login"] {
            let answer = browser.post(path, &[("username", "bob"), ("password", "secret")]).await;
            assert_eq!(answer.status, 503, "{path}");
        }
        assert_eq!(browser.cookies, kept, "the cookie is left alone");
    }
    assert_eq!(app.received().len(), before, "and the application is not asked");

    store.works();
    let mut browser = browser;
    assert_eq!(browser.get("/").await.body, "private", "nobody was logged out");
}

#[tokio::test]
async fn without_our_cookie_public_paths_go_on_and_nobody_logs_in() {
    // S21, S167
    let (app, store, proxy, _) = logged_in().await;
    store.fails();
    let mut browser = proxy.browser();

    let public = browser.get("/public/x").await;
    assert_eq!((public.status.as_u16(), public.body.as_str()), (200, "public"));
    assert_eq!(public.set_cookies(), [""; 0], "what would begin a session is dropped");
    assert_eq!(browser.get("/").await.status, 303);
    assert_eq!(browser.fetch("/").await.status, 401);
    let login = browser.post("/login", &[("username", "alice"), ("password", "secret")]).await;
    assert_eq!((login.status.as_u16(), login.set_cookies().len()), (503, 0));
    assert_eq!(browser.fetch("/").await.status, 401);

    store.works();
    browser.log_in("alice").await;
    browser.get("/").await;
    assert_eq!(app.last().cookie("sid"), Some("in"));
}

#[tokio::test]
async fn an_answer_whose_cookies_cannot_be_kept_is_held_back() {
    // VR-47: the browser must not go on as if they were there.
    let hold = Arc::new(tokio::sync::Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/login" => Reply::redirect("/"),
        _ => Reply::text("private").header("set-cookie", "sid=new; HttpOnly").held(&held),
    })
    .await;
    let store = BrokenStore::new();
    let (_proxy, mut browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
    browser.log_in("alice").await;
    let mut tab = browser.clone();
    let answer = tokio::spawn(async move { tab.get("/set").await });
    crate::support::eventually("it arrives", || app.last().path() == "/set").await;

    store.fails();
    hold.notify_one();

    assert_eq!(answer.await.unwrap().status, 503);
}

#[tokio::test]
async fn a_panic_in_one_request_is_that_requests_alone() {
    // S168
    let (_app, store, _proxy, mut browser) = logged_in().await;
    let mut victim = browser.clone();
    store.panics();
    let request = labelled("GET", "/", "same-origin", "cors", "empty").body(Full::default()).unwrap();
    assert_eq!(victim.send(request).await.status, 500);

    store.works();

    assert_eq!(browser.get("/").await.body, "private");
}
