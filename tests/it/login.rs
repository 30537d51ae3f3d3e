//! Logins: what makes a session, and what never does.

use http::Request;
use http_body_util::Full;

use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;

#[tokio::test]
async fn a_login_gives_a_new_id_and_kills_the_old_one() {
    // S26, S27, VR-20
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    assert_eq!(browser.get("/login").await.status, 200);
    let anonymous = browser.session().expect("an application cookie is kept");
    let answer = browser.log_in("alice").await;

    let first = browser.session().unwrap();
    assert_ne!(anonymous, first);
    assert_eq!(answer.location(), "/");
    assert_eq!(browser.get("/").await.body, "private");
    assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
    browser.log_in("alice").await;
    assert_ne!(browser.session().unwrap(), first);
    for dead in [anonymous, first] {
        assert_eq!(browser.with_session(&dead).fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn a_failed_login_makes_no_user() {
    // S28
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let answer = browser.post("/login", &[("username", "alice"), ("password", "wrong")]).await;

    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "<form> wrong"));
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn the_application_gets_exactly_what_was_sent() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    browser.post("/login?next=%2Fx", &[("username", "alice"), ("password", "se cret&")]).await;

    let received = app.last();
    assert_eq!(received.target, "/login?next=%2Fx");
    assert_eq!(received.body, "username=alice&password=se+cret%26");
    assert_eq!(received.header("content-length"), Some("34"));
}

#[tokio::test]
async fn a_cookie_of_ours_that_says_nothing_is_overwritten() {
    // VR-19: it is in nobody's way.
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    let (short, unknown) = ("A".repeat(42), "A".repeat(43));
    for value in ["x", &short, &format!("\"{unknown}\""), &unknown] {
        let mut browser = proxy.browser();
        browser.cookies.insert("__Host-session".into(), value.to_owned());

        let page = browser.get("/login").await;

        assert!(page.status == 200 && page.ours().is_some(), "{value}: {page:?}");
        browser.log_in("alice").await;
        assert_eq!(browser.fetch("/").await.status, 200, "{value}");
    }
}

#[tokio::test]
async fn an_unknown_id_is_never_adopted() {
    // S17, VR-19
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    let planted = "A".repeat(43);
    browser.cookies.insert("__Host-session".into(), planted.clone());

    browser.log_in("alice").await;

    assert_ne!(browser.session().unwrap(), planted);
    assert_eq!(browser.with_session(&planted).fetch("/").await.status, 401);
}

#[tokio::test]
async fn another_user_in_the_same_browser_starts_afresh() {
    // S30
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let alice = browser.session().unwrap();

    browser.log_in("bob").await;
    browser.get("/").await;

    assert_eq!(app.last().header("x-forwarded-user"), Some("bob"));
    assert_eq!(browser.with_session(&alice).fetch("/").await.status, 401);
}

#[tokio::test]
async fn doubtful_user_fields_are_refused_before_the_application_is_asked() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let twice = browser.post("/login", &[("username", "alice"), ("username", "bob"), ("password", "secret")]).await;
    let both = browser.post("/login?username=bob", &[("username", "alice"), ("password", "secret")]).await;
    let large = browser.post("/login", &[("username", "alice"), ("x", &"y".repeat(70_000))]).await;

    assert_eq!([twice.status.as_u16(), both.status.as_u16(), large.status.as_u16()], [400, 400, 413]);
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn nobody_is_one_user_here_and_another_to_the_application() {
    // product 3.5: PHP takes the last, and both names for one variable.
    let app = Upstream::start(|request| match request.body.as_str() {
        "user_name=admin&user.name=mallory" => Reply::redirect("/home"),
        _ => Reply::text("page"),
    })
    .await;
    let rule = "[site.login]\npath = '/login'\nuser = 'form:user_name'\nsuccess = { status = 302 }";
    let (_proxy, mut browser) = Vestibule::with(&app, rule).await;

    let answer = browser.post("/login", &[("user_name", "admin"), ("user.name", "mallory")]).await;

    assert_eq!(answer.status, 400);
    assert!(app.received().is_empty());
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_path_that_only_resolves_to_the_login_is_not_open() {
    // VR-13: an application that resolves nothing would see /admin/…
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for path in ["/admin/../login", "/admin/%2e%2e/login", "//login"] {
        let body = "username=alice&password=secret";
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        let answer = browser
            .raw(format!("{head}content-type: application/x-www-form-urlencoded\r\n\r\n{body}").as_bytes())
            .await;

        assert!(answer.starts_with("HTTP/1.1 401"), "{path} {answer}");
    }
    assert!(app.received().is_empty());
}

/// A site with one login rule, and an application with one way to answer a login.
async fn style(
    rule: &str,
    script: impl Fn(&str) -> Reply + Send + Sync + 'static,
) -> (Vestibule, crate::support::Browser, Upstream) {
    let app = Upstream::start(move |request| match request.path() {
        "/auth" if request.body.contains("right") => script("right"),
        "/auth" => script("wrong"),
        _ => Reply::text("page"),
    })
    .await;
    let (proxy, browser) =
        Vestibule::with(&app, &format!("[site.login]\npath = \"/auth\"\npage = \"/form\"\n{rule}")).await;
    (proxy, browser, app)
}

#[tokio::test]
async fn success_without_a_name_is_no_session() {
    let rule = "user = \"response-json:/user\"\nsuccess = { status = 200 }";
    let script = |_: &str| Reply::text("{}").header("set-cookie", "sid=1; HttpOnly");
    let (_proxy, mut browser, _app) = style(rule, script).await;

    let answer = browser.post("/auth", &[("p", "right")]).await;

    assert_eq!(answer.status, 502);
    assert!(answer.set_cookies().is_empty());
    assert_eq!(browser.fetch("/x").await.status, 401);
}

#[tokio::test]
async fn a_marker_header_works_one_way_only() {
    // S29
    let rule = "user = \"response-header:X-Who\"\nsuccess = { header = { name = \"X-Who\" } }";
    let (_proxy, mut browser, _app) = style(rule, |_| Reply::text("form")).await;
    let forged = Request::builder().method("POST").uri("/auth").header("x-who", "admin");

    let answer = browser.send(forged.body(Full::from("right")).unwrap()).await;

    assert_eq!(answer.status, 200);
    assert_eq!(browser.fetch("/x").await.status, 401);
}

#[tokio::test]
async fn an_application_that_fails_decides_nothing() {
    let rule = "user = \"form:u\"\nsuccess = { location_not = \"/auth*\" }";
    let (_proxy, mut browser, _app) = style(rule, |_| Reply::status(503).header("location", "/")).await;

    assert_eq!(browser.post("/auth", &[("u", "alice"), ("p", "right")]).await.status, 503);
    assert_eq!(browser.fetch("/x").await.status, 401);
}
