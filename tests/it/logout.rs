//! Logouts: the session is gone, whatever else happens.

use http_body_util::Full;

use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;

#[tokio::test]
async fn a_logout_destroys_the_session_and_then_tells_the_application() {
    // S40, S41, VR-18, VR-49
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let id = browser.session().unwrap();

    let answer = browser.get("/logout").await;

    assert_eq!((answer.status.as_u16(), answer.location()), (302, "/login"));
    assert!(answer.ours().unwrap().starts_with("__Host-session=; "));
    assert_eq!(answer.header("clear-site-data"), Some("\"storage\""));
    assert_eq!(app.last().cookie("PHPSESSID"), Some("app-session-2"), "with the application's cookie");
    assert!(browser.session().is_none());
    assert_eq!(browser.with_session(&id).fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_logout_works_without_the_application() {
    // S42
    let app = Upstream::start(|request| match request.path() {
        "/logout" => Reply::status(500),
        _ => Reply::redirect("/"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let id = browser.session().unwrap();

    let answer = browser.get("/logout").await;

    assert_eq!(answer.status, 500);
    assert!(browser.session().is_none());
    assert_eq!(browser.with_session(&id).fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_logout_without_a_session_clears_the_cookie_as_well() {
    // S41
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let answer = browser.get("/logout").await;

    assert_eq!((answer.status.as_u16(), answer.location()), (303, "/login"));
    assert!(answer.ours().is_some());
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_logout_from_another_site_is_refused() {
    // S44
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    let image = labelled("GET", "/logout", "cross-site", "no-cors", "image").body(Full::default()).unwrap();

    assert_eq!(browser.send(image).await.status, 403);
    assert_eq!(browser.get("/").await.body, "private");
}

#[tokio::test]
async fn a_late_response_sets_no_cookie_after_the_logout() {
    // S45, VR-48
    let hold = std::sync::Arc::new(tokio::sync::Notify::new());
    let held = std::sync::Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/slow" => Reply::text("slow").header("set-cookie", "late=1; HttpOnly").held(&held),
        "/login" | "/logout" => Reply::redirect("/"),
        _ => Reply::text("private"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut slow = browser.clone();
    let waiting = tokio::spawn(async move { slow.get("/slow").await });
    crate::support::eventually("the slow request arrives", || app.received().iter().any(|r| r.path() == "/slow")).await;

    browser.get("/logout").await;
    hold.notify_one();
    let late = waiting.await.unwrap();

    assert_eq!(late.body, "slow");
    assert!(late.ours().is_none(), "a cookie after the logout: {late:?}");
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn our_own_logout_ends_one_session_or_all() {
    // S48, VR-02
    let app = Upstream::legacy().await;
    let (proxy, mut first) = Vestibule::in_front_of(&app).await;
    let (mut second, mut other) = (proxy.browser(), proxy.browser());
    first.log_in("alice").await;
    second.log_in("alice").await;
    other.log_in("bob").await;

    assert_eq!(first.fetch("/.vestibule/session").await.status, 200);
    let answer = first.post("/.vestibule/logout?everywhere", &[]).await;

    assert_eq!(answer.location(), "/login");
    assert_eq!(second.fetch("/").await.status, 401);
    assert_eq!(other.fetch("/").await.status, 200);
    assert_eq!(first.fetch("/.vestibule/session").await.status, 401);
}
