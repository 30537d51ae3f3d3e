//! Device-bound sessions with a real browser: Chromium, with keys in software.

use std::time::Duration;

use serde_json::Value;

use crate::support::BOUND;
use crate::support::Browser;
use crate::support::Chromium;
use crate::support::OURS;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::device::PREFER;
use crate::support::eventually_so;
use crate::support::websocket::EchoApp;

pub(super) const ORIGIN: &str = "https://app.test";

/// An application with a login form, and one page that has many addresses.
pub(super) async fn app() -> Upstream {
    Upstream::start(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") => Reply::status(303).header("location", "/"),
        (_, "/login") => Reply::text("<form method=post><input name=username value=alice><input type=submit></form>")
            .header("content-type", "text/html"),
        (_, "/logout") => Reply::redirect("/login"),
        _ => Reply::text("private <a href=/next>next</a> <a id=out href=/logout>log out</a>")
            .header("content-type", "text/html"),
    })
    .await
}

/// Another site, which links to it.
pub(super) async fn evil() -> Upstream {
    Upstream::start(|_| {
        Reply::text("<a href='https://app.test/inbox?m=1#top'>look</a>").header("content-type", "text/html")
    })
    .await
}

/// A browser that binds, in front of the proxy in front of an application.
struct Desk {
    app: Upstream,
    proxy: Vestibule,
    chromium: Chromium,
}

impl Desk {
    async fn new() -> Self {
        let app = app().await;
        let (proxy, _) = Vestibule::today(&app.url(), &format!("{SITE}{PREFER}")).await;
        let evil = evil().await;
        let chromium = Chromium::binding(&[("app.test", proxy.https), ("evil.test", evil.address)]).await;
        Self { app, proxy, chromium }
    }

    /// Logs in by the form; returns when the browser has registered.
    async fn log_in(&self) {
        self.chromium.open(&format!("{ORIGIN}/login")).await;
        self.chromium.click("[type=submit]").await;
        assert!(self.chromium.text().await.contains("private"));
        bound(&self.chromium, &self.proxy).await;
    }

    async fn shows_it(&self) -> bool {
        self.chromium.text().await.contains("private")
    }
}

/// What somebody has who copied the session's cookie out of the browser.
pub(super) async fn stolen(chromium: &Chromium, proxy: &Vestibule) -> Browser {
    proxy.browser().with_session(&chromium.cookie(OURS).await.expect("no session"))
}

/// Waits until the session is bound: a copied cookie is worth nothing then (S61).
pub(super) async fn bound(chromium: &Chromium, proxy: &Vestibule) {
    let is_bound = async || stolen(chromium, proxy).await.fetch("/").await.status == 401;
    eventually_so("the browser registers", is_bound).await;
    is_kept(chromium).await;
}

/// Waits until the browser has the answer to its registration, which the proxy knows of before.
pub(super) async fn is_kept(chromium: &Chromium) {
    eventually_so("the cookie is in the jar", async || chromium.cookie(BOUND).await.is_some()).await;
}

/// What a script of the page gets.
pub(super) async fn status(chromium: &Chromium, path: &str, init: &str) -> Value {
    let script = format!("return fetch('{path}', {init}).then(r => r.status)");
    chromium.run(&script).await
}

#[tokio::test]
async fn chromium_registers_and_refreshes_before_what_it_holds() {
    // S61
    let desk = Desk::new().await;
    desk.log_in().await;
    let session = desk.chromium.cookie(OURS).await;

    desk.chromium.lose_cookie(BOUND).await;
    desk.chromium.click("a").await;
    assert!(desk.shows_it().await);
    assert!(desk.chromium.cookie(BOUND).await.is_some());
    assert_ne!(desk.chromium.cookie(OURS).await, session, "a refresh is the periodic rotation");

    desk.chromium.lose_cookie(BOUND).await;
    assert_eq!(status(&desk.chromium, "/save", "{method: 'POST', body: 'what was typed'}").await, 200);
    assert_eq!(desk.app.last().body, "what was typed");
    assert!(desk.chromium.cookie(BOUND).await.is_some());

    assert_eq!(stolen(&desk.chromium, &desk.proxy).await.fetch("/").await.status, 401);
    desk.proxy.advance(Duration::from_secs(15 * 60));
    assert_eq!(status(&desk.chromium, "/old", "{}").await, 401, "its clock is another");
    assert_eq!(status(&desk.chromium, "/new", "{}").await, 200, "it was told that its cookie is worth nothing");
}

#[tokio::test]
async fn chromium_holds_a_websocket_until_it_has_refreshed() {
    let app = EchoApp::start().await;
    let (proxy, _) = Vestibule::today(&app.upstream.url(), &format!("{SITE}{PREFER}")).await;
    let chromium = Chromium::binding(&[("app.test", proxy.https)]).await;
    chromium.open(&format!("{ORIGIN}/public/x")).await;
    let login = "{method: 'POST', body: new URLSearchParams({username: 'alice'})}";
    assert_eq!(status(&chromium, "/login", login).await, 200);
    bound(&chromium, &proxy).await;
    chromium.lose_cookie(BOUND).await;

    chromium.run("s = new WebSocket('wss://app.test/ws'); s.onopen = () => s.send('hello'); s.onmessage = m => { window.heard = m.data }").await;

    chromium.wait("return window.heard == 'hello'").await;
    assert!(chromium.cookie(BOUND).await.is_some());
}

#[tokio::test]
async fn a_link_from_another_site_is_followed() {
    let desk = Desk::new().await;
    desk.log_in().await;
    desk.chromium.open("http://evil.test/").await;
    desk.chromium.lose_cookie(BOUND).await;

    desk.chromium.click("a").await;

    desk.chromium.wait("return document.body?.innerText.includes('private')").await;
    assert_eq!(desk.chromium.url().await, format!("{ORIGIN}/inbox?m=1#top"));
    let how = desk.chromium.run("return performance.getEntriesByType('navigation')[0].type").await;
    assert_eq!(how, "reload", "not before the page that has the browser refresh");
    assert_eq!(desk.app.received().iter().filter(|request| request.path() == "/inbox").count(), 1);
}

#[tokio::test]
async fn a_device_that_lost_its_key_logs_in_again() {
    // The copied profile of a browser, as far as a thief gets: cookies, and no key.
    let desk = Desk::new().await;
    desk.log_in().await;
    let session = desk.chromium.cookie(OURS).await.unwrap();
    let other = Chromium::knowing(&[("app.test", desk.proxy.https)]).await;
    other.open(&format!("{ORIGIN}/public/x")).await;
    other.put_cookie(OURS, &session).await;

    other.open(&format!("{ORIGIN}/inbox")).await;

    other.wait("return location.pathname == '/login'").await;
    desk.chromium.click("a").await;
    assert!(desk.shows_it().await);
}

#[tokio::test]
async fn a_logout_ends_it_in_the_browser_as_well() {
    // S40
    let desk = Desk::new().await;
    desk.log_in().await;
    let mut thief = stolen(&desk.chromium, &desk.proxy).await;

    desk.chromium.click("#out").await;

    assert_eq!((desk.chromium.cookie(OURS).await, desk.chromium.cookie(BOUND).await), (None, None));
    assert_eq!(thief.fetch("/").await.status, 401);
    desk.chromium.open(&format!("{ORIGIN}/")).await;
    assert_eq!(desk.chromium.url().await, format!("{ORIGIN}/login"));
    assert_eq!(status(&desk.chromium, "/.vestibule/session", "{}").await, 401);
    assert_eq!(desk.chromium.cookie(BOUND).await, None, "nothing is refreshed any more");
    desk.log_in().await;
    assert!(desk.shows_it().await);
}

#[tokio::test]
async fn the_key_outlives_the_browser() {
    let mut desk = Desk::new().await;
    desk.log_in().await;
    desk.chromium.lose_cookie(BOUND).await;

    desk.chromium.restart().await;

    desk.chromium.open(&format!("{ORIGIN}/next")).await;
    desk.chromium.wait("return document.body?.innerText.includes('private')").await;
    assert!(desk.chromium.cookie(BOUND).await.is_some());
}
