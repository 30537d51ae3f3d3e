//! One session after another in the same browser: what goes along, what is left behind, and what comes
//! too late.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;

/// Sets cookies when alice logs in, none for others; echoes them.
fn app(request: &Received) -> Reply {
    match request.path() {
        "/login" if request.body.contains("alice") => Reply::redirect("/")
            .header("set-cookie", "PHPSESSID=alice; Path=/")
            .header("set-cookie", "admin=alice; Path=/admin; HttpOnly")
            .header("set-cookie", "remember=alice; Path=/; HttpOnly; Max-Age=86400"),
        "/login" if request.body.contains("carol") => {
            Reply::redirect("/").header("set-cookie", "PHPSESSID=carol; Path=/")
        }
        "/login" => Reply::redirect("/"),
        _ => Reply::text(request.header("cookie").unwrap_or("")),
    }
}

#[tokio::test]
async fn the_same_user_keeps_the_cookies() {
    let app = Upstream::start(app).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    browser.log_in("alice").await;

    assert_eq!(browser.get("/admin").await.body, "admin=alice; PHPSESSID=alice; remember=alice");
}

#[tokio::test]
async fn another_user_gets_only_the_session_that_the_application_made_theirs() {
    // S30: the login carried PHPSESSID and nothing was set, so that session is bob's now. Nothing else is.
    let app = Upstream::start(app).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    browser.log_in("bob").await;

    assert_eq!(browser.get("/admin").await.body, "PHPSESSID=alice");
    assert_eq!(app.last().header("x-forwarded-user"), Some("bob"));
}

#[tokio::test]
async fn another_user_with_a_session_of_their_own_gets_that_alone() {
    let app = Upstream::start(app).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    browser.log_in("carol").await;

    assert_eq!(browser.get("/admin").await.body, "PHPSESSID=carol");
}

#[tokio::test]
async fn exactly_one_of_two_logins_takes_the_anonymous_session() {
    // VR-19: two tabs
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/login" if request.method == "POST" => Reply::redirect("/").held(&held),
        "/login" => Reply::text("form").header("set-cookie", "PHPSESSID=anonymous; Path=/"),
        _ => Reply::text(request.header("cookie").unwrap_or("")),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.get("/login").await;
    let logins: Vec<_> = ["alice", "bob"]
        .map(|user| {
            let mut tab = browser.clone();
            tokio::spawn(async move {
                tab.log_in(user).await;
                tab
            })
        })
        .into();
    eventually("both arrive", || app.received().len() == 3).await;

    hold.notify_waiters();
    let mut kept = Vec::new();
    let mut sessions = Vec::new();
    for login in logins {
        let mut tab = login.await.unwrap();
        sessions.push(tab.session().unwrap());
        kept.push(tab.get("/").await.body);
    }

    kept.sort();
    assert_eq!(kept, ["", "PHPSESSID=anonymous"]);
    assert_ne!(sessions[0], sessions[1]);
}

#[tokio::test]
async fn for_a_minute_the_old_id_mints_nothing() {
    let app = Upstream::start(|request| match request.path() {
        "/login" | "/logout" => Reply::redirect("/"),
        _ => Reply::text("page").header("set-cookie", "PHPSESSID=new; Path=/"),
    })
    .await;
    for ended_by in ["login", "logout"] {
        let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
        browser.log_in("alice").await;
        let mut late = browser.clone();
        match ended_by {
            "login" => browser.log_in("alice").await,
            _ => browser.get("/logout").await,
        };

        for path in ["/public/x", "/login", "/private"] {
            let answer = late.get(path).await;
            assert_eq!(answer.set_cookies(), [""; 0], "{ended_by} {path}");
        }
        proxy.advance(Duration::from_secs(59));
        assert_eq!(late.get("/public/x").await.ours(), None);
        proxy.advance(Duration::from_secs(2));
        assert!(late.get("/public/x").await.ours().is_some(), "unknown now, and so absent");
    }
}

#[tokio::test]
async fn an_ended_id_still_logs_in_afresh() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut late = browser.clone();
    browser.get("/logout").await;

    late.log_in("alice").await;

    assert_eq!(late.fetch("/").await.status, 200);
}

#[tokio::test]
async fn a_late_answer_changes_nothing_after_the_login() {
    // VR-48: it was asked for in the anonymous session, and comes when that has ended.
    let hold = Arc::new(Notify::new());
    let held = Arc::clone(&hold);
    let app = Upstream::start(move |request| match (request.method.as_str(), request.path()) {
        (_, "/public/slow") => Reply::text("slow").header("set-cookie", "PHPSESSID=late; Path=/").held(&held),
        ("GET", "/login") => Reply::text("form").header("set-cookie", "PHPSESSID=first; Path=/"),
        (_, "/login") => Reply::redirect("/").header("set-cookie", "PHPSESSID=in; Path=/"),
        _ => Reply::text(request.header("cookie").unwrap_or("")),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.get("/login").await;
    let mut tab = browser.clone();
    let slow = tokio::spawn(async move { tab.get("/public/slow").await });
    eventually("it arrives", || app.last().path() == "/public/slow").await;

    browser.log_in("alice").await;
    hold.notify_one();

    assert_eq!(slow.await.unwrap().set_cookies(), [""; 0]);
    assert_eq!(browser.get("/").await.body, "PHPSESSID=in");
}

#[tokio::test]
async fn an_attackers_session_in_the_victims_browser_gains_nothing() {
    // S27, VR-20, VR-17
    let app = Upstream::legacy().await;
    let (proxy, mut attacker) = Vestibule::with(&app, SITE).await;
    attacker.get("/login").await;
    let mut victim = proxy.browser().with_session(&attacker.session().unwrap());

    victim.log_in("alice").await;

    assert_ne!(victim.session(), attacker.session());
    assert_eq!(attacker.fetch("/").await.status, 401);
    let mut logged_in_attacker = proxy.browser();
    logged_in_attacker.log_in("carol").await;
    let mut victim = proxy.browser().with_session(&logged_in_attacker.session().unwrap());
    victim.log_in("alice").await;
    assert_eq!(logged_in_attacker.fetch("/").await.status, 401, "the presented session is dead");
    victim.get("/").await;
    assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
}
