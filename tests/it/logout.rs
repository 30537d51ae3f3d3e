//! Logouts: the session is gone, whatever else happens.

use http_body_util::Full;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;
use crate::support::navigation;

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

#[tokio::test]
async fn a_logout_is_found_in_every_spelling_of_its_path() {
    // S43
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for path in
        ["/logout", "/logout/", "/%6cogout", "//logout", "/a/../logout", "/logout;x", "/logout?x=1", "/a/%2e%2e/logout"]
    {
        for method in ["GET", "POST", "HEAD"] {
            let mut browser = proxy.browser();
            browser.log_in("alice").await;
            let id = browser.session().unwrap();

            let request = navigation(method, path).body(Full::default()).unwrap();
            let answer = browser.send(request).await;

            assert!(answer.ours().unwrap().contains("Max-Age=0"), "{method} {path}");
            assert_eq!(browser.with_session(&id).fetch("/").await.status, 401, "{method} {path}");
        }
    }
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    for other in ["/logout/x", "/logoutx", "/x/logout", "/logout%2f"] {
        browser.get(other).await;
        assert_eq!(browser.fetch("/").await.status, 200, "{other}");
    }
}

#[tokio::test]
async fn a_slow_application_delays_no_logout() {
    // S42, VR-15
    let hold = std::sync::Arc::new(tokio::sync::Notify::new());
    let held = std::sync::Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/logout" => Reply::redirect("/bye").held(&held),
        "/login" => Reply::redirect("/").header("set-cookie", "PHPSESSID=1; Path=/"),
        _ => Reply::text("private"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut tab = browser.clone();
    let logout = tokio::spawn(async move { tab.get("/logout").await });
    crate::support::eventually("the application is told", || app.last().path() == "/logout").await;

    assert_eq!(browser.fetch("/").await.status, 401, "while the application thinks about it");
    assert_eq!(app.last().cookie("PHPSESSID"), Some("1"), "with the vault as it was");
    hold.notify_one();
    let answer = logout.await.unwrap();

    assert_eq!((answer.status.as_u16(), answer.location()), (302, "/bye"));
    assert!(answer.ours().unwrap().contains("Max-Age=0"));
}

#[tokio::test]
async fn a_logout_works_when_nobody_listens() {
    // S42, VR-18
    let site = SITE.replace("path = \"/logout\"", "path = \"/logout\"\nlanding = \"/bye?x\"\nclear_site_data = []");
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    let id = browser.session().unwrap();
    let mut script = browser.clone();
    proxy.reload_in_front_of("http://127.0.0.1:1", &site);

    let page = browser.get("/logout").await;
    let fetch = script.fetch("/logout").await;

    assert_eq!((page.status.as_u16(), page.location()), (303, "/bye?x"));
    assert_eq!(page.header("clear-site-data"), None);
    assert_eq!(fetch.status, 204);
    for answer in [page, fetch] {
        assert!(answer.ours().unwrap().contains("Max-Age=0"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(browser.with_session(&id).fetch("/").await.status, 401);
}

#[tokio::test]
async fn the_answer_to_a_logout_mints_and_keeps_nothing() {
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("set-cookie", "PHPSESSID=1; Path=/"),
        "/logout" => Reply::redirect("/public/bye")
            .header("set-cookie", "PHPSESSID=fresh; Path=/")
            .header("set-cookie", "flash=bye; Path=/"),
        _ => Reply::text(request.header("cookie").unwrap_or("")),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    let answer = browser.get("/logout").await;

    assert_eq!(answer.set_cookies().len(), 2, "{answer:?}");
    assert_eq!(answer.set_cookies()[0], "flash=bye; Path=/; Secure; SameSite=Lax");
    assert!(answer.ours().unwrap().starts_with("__Host-session=;"));
    assert_eq!(browser.get("/public/bye").await.body, "flash=bye");
}

#[tokio::test]
async fn logouts_from_elsewhere_change_nothing() {
    // S44: by an image, a link, a form, a prefetch, a sibling, and without any label.
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    for path in ["/logout", "/.vestibule/logout", "/.vestibule/logout?everywhere"] {
        for (method, site, mode, dest) in [
            ("GET", "cross-site", "no-cors", "image"),
            ("GET", "cross-site", "navigate", "document"),
            ("POST", "cross-site", "navigate", "document"),
            ("POST", "same-site", "navigate", "document"),
            ("GET", "cross-site", "navigate", "iframe"),
        ] {
            let request = labelled(method, path, site, mode, dest).header("sec-purpose", "prefetch");
            let answer = browser.send(request.body(Full::default()).unwrap()).await;
            assert!(matches!(answer.status.as_u16(), 403 | 405), "{method} {path} {site}: {}", answer.status);
            assert_eq!(answer.ours(), None);
        }
        let unlabelled = http::Request::post(path).body(Full::default()).unwrap();
        assert_eq!(browser.send(unlabelled).await.status, 403);
    }
    assert_eq!(browser.get("/").await.body, "private");
}
