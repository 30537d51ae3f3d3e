//! How IDs change while a session lives: one successor for all, confirmed before the predecessor
//! retires, and never at the wrong moment.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn page(request: &Received) -> Reply {
    match request.path() {
        "/login" => Reply::redirect("/"),
        "/cached" => Reply::text("page").header("cache-control", "private, max-age=60"),
        "/not-cached" => Reply::text("page").header("cache-control", "no-cache, max-age=0"),
        _ => Reply::text("page"),
    }
}

#[tokio::test]
async fn an_id_gets_a_successor_and_retires_after_it_is_used() {
    // S32, S33, S34, S35, VR-45
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let first = browser.session().unwrap();
    proxy.advance(15 * MINUTE);

    let mut successors = BTreeSet::new();
    for _ in 0..10 {
        let mut tab = browser.with_session(&first);
        tab.get("/").await;
        successors.insert(tab.session().unwrap());
    }
    assert_eq!(successors.len(), 1, "everyone gets the same successor");
    let second = successors.pop_first().unwrap();
    assert_ne!(first, second);
    assert_eq!(first[..21], second[..21], "the selector stays");

    let mut tab = browser.with_session(&second);
    assert_eq!(tab.get("/").await.body, "private");
    let mut late = browser.with_session(&first);
    let in_grace = late.get("/").await;
    assert_eq!((in_grace.body.as_str(), in_grace.ours()), ("private", None));
    proxy.advance(29 * SECOND);
    assert_eq!(browser.with_session(&first).fetch("/").await.status, 200);
    assert_eq!(browser.with_session(&second).fetch("/").await.status, 200);
    proxy.advance(SECOND);
    assert_eq!(browser.with_session(&first).fetch("/").await.status, 401);
}

#[tokio::test]
async fn fifty_parallel_requests_over_a_rotation_all_pass() {
    // S33, VR-01
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    proxy.advance(16 * MINUTE);

    let requests: Vec<_> = (0..50)
        .map(|_| {
            let mut tab = browser.clone();
            tokio::spawn(async move { (tab.fetch("/").await.status, tab.session().unwrap()) })
        })
        .collect();
    let mut successors = BTreeSet::new();
    for request in requests {
        let (status, session) = request.await.unwrap();
        assert_eq!(status, 200);
        successors.insert(session);
    }

    successors.remove(&browser.session().unwrap());
    assert_eq!(successors.len(), 1, "one rotation");
}

#[tokio::test]
async fn a_rotation_and_many_new_cookies_at_once_all_stay() {
    // VR-01, VR-44, VR-41
    let app = Upstream::start(|request| match request.target.strip_prefix("/set?") {
        Some(name) => Reply::text("set").header("set-cookie", &format!("{name}=1; HttpOnly; Path=/")),
        None => page(request),
    })
    .await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    proxy.advance(16 * MINUTE);

    let requests: Vec<_> = (0..50)
        .map(|number| {
            let mut tab = browser.clone();
            tokio::spawn(async move { (tab.fetch(&format!("/set?c{number}")).await.status, tab.session().unwrap()) })
        })
        .collect();
    let mut sessions = BTreeSet::from([browser.session().unwrap()]);
    for request in requests {
        let (status, session) = request.await.unwrap();
        assert_eq!(status, 200);
        sessions.insert(session);
    }

    assert_eq!(sessions.len(), 2, "one rotation");
    browser.get("/").await;
    assert_eq!(app.last().header("cookie").unwrap().split("; ").count(), 50);
}

#[tokio::test]
async fn a_lost_response_costs_nothing() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let first = browser.session().unwrap();
    proxy.advance(15 * MINUTE);
    browser.with_session(&first).get("/").await;

    proxy.advance(29 * MINUTE);

    assert_eq!(browser.get("/").await.body, "private", "the successor never arrived");
    assert_ne!(browser.session().unwrap(), first);
    assert_eq!(browser.get("/").await.body, "private");
}

#[tokio::test]
async fn rotation_is_for_pages_and_scripts_and_what_no_cache_keeps() {
    let app = Upstream::start(page).await;
    let site = SITE.replace("public =", "untouched = \"/poll\"\npublic =");
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    proxy.advance(16 * MINUTE);

    assert_eq!(browser.image("/x.png").await.ours(), None);
    assert_eq!(browser.get("/public/x").await.ours(), None);
    assert_eq!(browser.get("/poll").await.ours(), None);
    assert_eq!(browser.get("/cached").await.ours(), None);
    assert!(browser.clone().get("/not-cached").await.ours().is_some());
    assert!(browser.clone().fetch("/").await.ours().is_some());
    assert_eq!(browser.image("/x.png").await.ours(), None, "also not the successor that others have");
}

#[tokio::test]
async fn what_is_overdue_is_rotated_anywhere() {
    let app = Upstream::start(page).await;
    let site = SITE.replace("public =", "untouched = \"/poll\"\npublic =");
    for path in ["/x.png", "/public/x", "/poll", "/cached"] {
        let (proxy, mut browser) = Vestibule::with(&app, &site).await;
        browser.log_in("alice").await;
        proxy.advance(15 * MINUTE);
        browser.clone().get("/").await;
        browser.image("/x.png").await;
        proxy.advance(15 * MINUTE - SECOND);
        assert_eq!(browser.image(path).await.ours(), None, "{path}");

        proxy.advance(SECOND);

        let rotated = browser.image(path).await;
        assert!(rotated.ours().is_some(), "{path}");
        assert_eq!(browser.fetch("/").await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_grace_is_not_cut_short_by_the_next_rotation() {
    // Presented for the first time when it is nearly due itself: the slow request of another tab still
    // has the predecessor.
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let first = browser.session().unwrap();
    proxy.advance(15 * MINUTE);
    browser.get("/").await;
    proxy.advance(15 * MINUTE - 10 * SECOND);
    browser.get("/").await;

    proxy.advance(15 * SECOND);

    assert_eq!(browser.get("/").await.ours(), None);
    assert_eq!(browser.with_session(&first).fetch("/").await.status, 200, "within its 30 seconds");
    proxy.advance(15 * SECOND);
    assert!(browser.get("/").await.ours().is_some());
}

/// A request for /slow from another tab.
fn slow(browser: &Browser) -> JoinHandle<Answer> {
    let mut tab = browser.clone();
    tokio::spawn(async move { tab.get("/slow").await })
}

#[tokio::test]
async fn whether_a_cookie_is_due_is_decided_when_the_response_leaves() {
    // VR-42: other requests of the session are answered meanwhile.
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/slow" => Reply::text("slow").held(&held),
        _ => page(request),
    })
    .await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    proxy.advance(14 * MINUTE);

    // Not due when it came, due when it goes.
    let answer = slow(&browser);
    eventually("it arrives", || app.last().path() == "/slow").await;
    proxy.advance(MINUTE);
    hold.notify_one();
    let rotated = answer.await.unwrap();
    assert!(rotated.ours().unwrap().contains("Max-Age=27900"), "{rotated:?}");

    // Due when it came; when it goes, its ID has retired.
    browser.get("/").await;
    let answer = slow(&browser);
    eventually("it arrives", || app.last().path() == "/slow").await;
    proxy.advance(16 * MINUTE);
    browser.get("/").await;
    browser.get("/").await;
    hold.notify_one();
    assert_eq!(answer.await.unwrap().ours(), None);
}

#[tokio::test]
async fn a_session_that_ended_meanwhile_gets_no_cookie() {
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/slow" => Reply::text("slow").header("set-cookie", "sid=late; HttpOnly").held(&held),
        _ => page(request),
    })
    .await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let answer = slow(&browser);
    eventually("the slow request arrives", || app.last().path() == "/slow").await;

    proxy.advance(31 * MINUTE);
    hold.notify_one();

    assert_eq!(answer.await.unwrap().set_cookies(), [""; 0]);
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn rotation_can_be_off() {
    let app = Upstream::legacy().await;
    let site = format!("{SITE}\n[site.session]\nrotate_every = \"off\"\nidle_timeout = \"8h\"");
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;

    proxy.advance(7 * 60 * MINUTE);

    assert_eq!(browser.get("/").await.ours(), None);
}

#[tokio::test]
async fn an_anonymous_session_rotates_as_well() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.get("/login").await;
    let first = browser.session().unwrap();
    proxy.advance(16 * MINUTE);
    browser.get("/public/x").await;

    proxy.advance(15 * MINUTE);
    browser.get("/login").await;

    assert_ne!(browser.session().unwrap(), first);
    assert_eq!(app.last().cookie("PHPSESSID"), Some("app-session-1"));
}

#[tokio::test]
async fn over_http2_as_well() {
    let app = Upstream::legacy().await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    let mut browser = browser.over_http2();
    browser.log_in("alice").await;
    let first = browser.session().unwrap();

    proxy.advance(16 * MINUTE);
    browser.get("/").await;

    assert_ne!(browser.session().unwrap(), first);
    assert_eq!(browser.get("/").await.body, "private");
}
