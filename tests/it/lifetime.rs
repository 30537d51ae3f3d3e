//! How long sessions live, how their IDs change, and to whom they belong.

use std::time::Duration;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_session_idles_out_and_activity_keeps_it() {
    // S36, VR-26
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    for _ in 0..3 {
        proxy.advance(29 * MINUTE);
        assert_eq!(browser.fetch("/").await.status, 200);
    }
    proxy.advance(30 * MINUTE);

    assert_eq!(browser.fetch("/").await.status, 401);
    let page = browser.get("/").await;
    assert_eq!((page.status.as_u16(), page.location()), (303, "/login"), "S52");
}

#[tokio::test]
async fn nothing_keeps_a_session_past_its_absolute_end() {
    // S37
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    for _ in 0..47 {
        proxy.advance(10 * MINUTE);
        assert_eq!(browser.fetch("/").await.status, 200);
    }
    proxy.advance(10 * MINUTE);

    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn polling_is_no_activity() {
    // S38
    let app = Upstream::legacy().await;
    let site = SITE.replace("public = [\"/public/*\"]", "untouched = \"/poll\"");
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;

    for _ in 0..2 {
        proxy.advance(14 * MINUTE);
        assert_eq!(browser.fetch("/poll").await.status, 200);
    }
    proxy.advance(2 * MINUTE);

    assert_eq!(browser.fetch("/poll").await.status, 401);
}

#[tokio::test]
async fn the_cookie_lives_as_long_as_the_session() {
    // S5
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let login = browser.log_in("alice").await;
    assert!(login.ours().unwrap().contains("Max-Age=28800"));
    proxy.advance(20 * MINUTE);
    let rotated = browser.get("/").await;

    assert!(rotated.ours().unwrap().contains("Max-Age=27600"), "{rotated:?}");
}

#[tokio::test]
async fn a_session_belongs_to_its_network() {
    // S54, S56, S58
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n[site.session]\nbind = \"exact\"")).await;
    browser.log_in("alice").await;
    let mut thief = browser.clone();
    thief.from = [127, 0, 0, 2].into();

    let refused = thief.fetch("/").await;
    thief.cookies.clear();
    let without = thief.fetch("/").await;

    assert_eq!((refused.status, &refused.body), (without.status, &without.body));
    assert_eq!(browser.fetch("/").await.status, 200);
}

#[tokio::test]
async fn the_countdown_is_no_activity() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    proxy.advance(10 * MINUTE);

    let answer = browser.fetch("/.vestibule/session").await;

    let session: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(session["user"], "alice");
    assert_eq!(session["idle_expires_in"], 1200);
    assert_eq!(session["absolute_expires_in"], 28_200);
}

#[tokio::test]
async fn a_reload_keeps_sessions_and_takes_the_new_rules() {
    // S193, VR-27
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    proxy.reload(&SITE.replace("/public/*", "/open/*"));

    assert_eq!(browser.fetch("/").await.status, 200);
    assert_eq!(proxy.browser().fetch("/open/x").await.status, 200);
    assert_eq!(proxy.browser().fetch("/public/x").await.status, 401);
}

#[tokio::test]
async fn anonymous_sessions_are_begun_only_where_they_are_needed() {
    // S22, S176, VR-37
    let app = Upstream::start(|_| Reply::text("x").header("set-cookie", "PHPSESSID=1")).await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;

    assert!(browser.clone().image("/public/x.png").await.set_cookies().is_empty());
    assert!(browser.clone().fetch("/x").await.set_cookies().is_empty(), "our own refusal");
    assert_eq!(browser.clone().fetch("/public/x").await.set_cookies().len(), 1);
    assert_eq!(browser.clone().get("/login").await.set_cookies().len(), 1);
}
