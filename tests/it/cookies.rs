//! The application's cookies: in the vault, or hardened, and never lost.

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::empty;
use crate::support::labelled;

fn setting(cookies: &'static [&'static str]) -> impl Fn(&crate::support::Received) -> Reply {
    move |request| match request.path() {
        "/login" => Reply::redirect("/"),
        "/set" => cookies.iter().fold(Reply::text("set"), |reply, cookie| reply.header("set-cookie", cookie)),
        _ => Reply::text("page"),
    }
}

#[tokio::test]
async fn session_cookies_stay_inside_and_others_are_hardened() {
    // S13, VR-05
    let app = Upstream::start(setting(&["JSESSIONID=j; Path=/", "theme=dark", "secret=s; HttpOnly; Path=/"])).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    let answer = browser.get("/set").await;
    browser.get("/").await;

    assert_eq!(answer.set_cookies(), ["theme=dark; Secure; SameSite=Lax"]);
    let received = app.last();
    for (name, value) in [("JSESSIONID", "j"), ("secret", "s"), ("theme", "dark")] {
        assert_eq!(received.cookie(name), Some(value), "{:?}", received.header("cookie"));
    }
    assert!(!received.header("cookie").unwrap().contains("__Host-session"), "S10");
}

#[tokio::test]
async fn a_client_cannot_bring_a_vaulted_cookie() {
    let app = Upstream::start(setting(&["JSESSIONID=j; Path=/"])).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    browser.get("/set").await;
    browser.cookies.insert("JSESSIONID".into(), "planted".into());

    let answer = browser.get("/").await;

    assert_eq!(app.last().header("cookie"), Some("JSESSIONID=j"));
    assert!(answer.set_cookies().iter().any(|line| line.starts_with("JSESSIONID=;")), "{answer:?}");
}

#[tokio::test]
async fn a_deleted_cookie_is_deleted_inside() {
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("set-cookie", "sid=1; HttpOnly"),
        "/forget" => Reply::text("x").header("set-cookie", "sid=; expires=Thu, 01 Jan 1970 00:00:00 GMT"),
        _ => Reply::text("page"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    browser.get("/").await;
    assert_eq!(app.last().cookie("sid"), Some("1"));
    assert!(browser.get("/forget").await.set_cookies().is_empty());
    browser.get("/").await;

    assert_eq!(app.last().header("cookie"), None);
}

#[tokio::test]
async fn modes_and_lists_decide() {
    let cookies: &[&str] = &["a=1", "b=1; HttpOnly", "c=1"];
    for (rules, expected) in [
        ("mode = \"pass\"", &["a=1", "b=1; HttpOnly", "c=1"][..]),
        ("mode = \"vault\"\nrelay = \"a\"", &["a=1; Secure; SameSite=Lax"]),
        ("mode = \"harden\"\ndrop = [\"a\", \"c*\"]", &["b=1; HttpOnly; Secure; SameSite=Lax"]),
    ] {
        let app = Upstream::start(setting(cookies)).await;
        let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n[site.cookies]\n{rules}")).await;
        browser.log_in("alice").await;
        assert_eq!(browser.get("/set").await.set_cookies(), expected, "{rules}");
    }
}

#[tokio::test]
async fn our_cookies_name_is_ours() {
    // S12
    let app = Upstream::start(setting(&["__host-SESSION=x; Secure; Path=/"])).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    assert!(browser.get("/set").await.set_cookies().is_empty());
}

#[tokio::test]
async fn strange_cookie_headers_are_no_session() {
    // S11, S14, S15, VR-35, VR-38
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let id = browser.session().unwrap();
    let other = "B".repeat(43);
    for cookie in [
        format!("__Host-session={id}; __Host-session={other}"),
        format!("__host-session={id}"),
        format!("__Host-session=\"{id}\""),
        format!("__Host-session={id}="),
        format!("$Version=1; __Host-session =; x={id}"),
        ";;; =; =x; foo=1; ; bar=2".to_owned(),
        "x".repeat(20_000),
    ] {
        let request = http::Request::builder().uri("/").header("cookie", &cookie);
        let answer = browser.send(request.body(http_body_util::Full::default()).unwrap()).await;
        assert_eq!(answer.status, 401, "{}", &cookie[..cookie.len().min(60)]);
    }
    for place in [format!("/?__Host-session={id}"), format!("/;__Host-session={id}")] {
        assert_eq!(browser.with_session(&other).fetch(&place).await.status, 401);
    }
}

#[tokio::test]
async fn crumbs_are_joined_for_the_application() {
    // S108
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let mut browser = browser.over_http2();
    browser.log_in("alice").await;
    let request = http::Request::builder()
        .uri("/")
        .header("cookie", format!("__Host-session={}", browser.session().unwrap()))
        .header("cookie", "a=1")
        .header("cookie", "b=2");

    let answer = browser.send(request.body(http_body_util::Full::default()).unwrap()).await;

    assert_eq!(answer.status, 200);
    let received = app.last();
    assert_eq!(received.headers.get_all("cookie").iter().count(), 1);
    assert!(received.header("cookie").unwrap().ends_with("a=1; b=2"));
}

#[tokio::test]
async fn our_cookie_is_as_the_file_says() {
    // S1, S3, S5, S8, VR-51
    let app = Upstream::legacy().await;
    let session = "\n[site.session]\ncookie = \"__Host-app\"\nsame_site = \"strict\"\npersistent = false";
    let (proxy, browser) = Vestibule::with(&app, &format!("{SITE}{session}")).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        let login = browser.post("/login", &[("username", "alice"), ("password", "secret")]).await;
        let line = login.set_cookies()[0].to_owned();
        let value = browser.cookies["__Host-app"].clone();
        let attributes = "; HttpOnly; SameSite=Strict; Secure; Path=/";
        assert_eq!(line, format!("__Host-app={value}{attributes}"), "no Max-Age");
        assert_eq!(value.len(), 43);
        assert_eq!(browser.fetch("/").await.status, 200);
        assert!(!app.last().header("cookie").unwrap().contains("__Host-"), "S10");

        let logout = browser.get("/logout").await;

        let line = logout.set_cookies()[0].to_owned();
        assert_eq!(
            line,
            format!("__Host-app={attributes}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
            "VR-49: identical but for its end"
        );
        assert!(!browser.cookies.contains_key("__Host-app"));
    }
}

#[tokio::test]
async fn a_link_on_another_site_replaces_no_strict_cookie() {
    // VR-21: such a request brings no cookie although somebody is logged in.
    let app = Upstream::start(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") => Reply::redirect("/"),
        _ => Reply::text("page").header("set-cookie", "PHPSESSID=1; Path=/"),
    })
    .await;
    let strict = "[site.session]\nsame_site = \"strict\"\n[site.csrf]\nexempt = \"/public/hook\"";
    let (proxy, _) = Vestibule::with(&app, &format!("{SITE}{strict}")).await;
    for http2 in [false, true] {
        let mut browser = proxy.browser().over(http2);
        browser.log_in("alice").await;
        let seen = app.received().len();
        let mut outside = proxy.browser().over(http2);
        for path in ["/inbox?m=1", "/login", "/public/x"] {
            let page = outside.send(empty(labelled("GET", path, "cross-site", "navigate", "document"))).await;

            assert_eq!((page.status.as_u16(), page.header("cache-control")), (200, Some("no-store")), "{path}");
            assert!(page.body.contains(path.split('?').next().unwrap()), "{}", page.body);
            assert!(page.body.contains("<a href=\"\">") && !page.body.contains("<script"), "{}", page.body);
            let policy = page.headers.get_all("content-security-policy").iter().next().unwrap().to_str().unwrap();
            assert!(policy.contains("frame-ancestors"), "a click on it is meant: {policy}");
            assert_eq!(page.set_cookies(), Vec::<&str>::new(), "{path}");
        }
        assert_eq!(app.received().len(), seen, "the application is not asked");
        for (method, path, dest) in [("POST", "/public/hook", "document"), ("GET", "/public/x", "iframe")] {
            let answer = outside.send(empty(labelled(method, path, "cross-site", "navigate", dest))).await;
            assert_eq!((answer.body.as_str(), answer.set_cookies()), ("page", Vec::new()), "{method} {dest}");
        }
        assert_eq!(browser.get("/inbox?m=1").await.body, "page");
        // What is asked for from our own page without a cookie comes from somebody who has none.
        assert!(outside.get("/public/x").await.ours().is_some());
    }
}
