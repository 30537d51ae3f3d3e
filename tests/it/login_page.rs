//! Login paths and pages: what of them is open, and what happens when they lead nowhere.

use std::time::Duration;

use http::Request;
use http_body_util::Full;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::empty;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;

#[tokio::test]
async fn only_the_page_itself_is_open() {
    // Product 2, [site.access]: "with exactly its query, plus our return_param"
    let app = Upstream::plain().await;
    let rule = "page = \"/index.php?p=log%69n&x\"\nreturn_param = \"next\"\nuser    =";
    let site = SITE.replace("/login\"", "/session\"").replace("user    =", rule);
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for (method, target, expected) in [
        ("GET", "/index.php?p=login&x", true),
        ("HEAD", "/index.php?p=login&x", true),
        ("GET", "/index.php?p=log%69n&x", true),
        ("GET", "/index.php?p=login&x&next=%2Fa", true),
        ("GET", "/index.php?next=%2Fa&p=login&x=", true),
        ("GET", "/index.php?next=a&p=login&x&next=b", false),
        ("GET", "/index.php?x&p=login", false),
        ("GET", "/index.php?p=login", false),
        ("GET", "/index.php", false),
        ("GET", "/index.php?p=login&x&y", false),
        ("GET", "/index.php?p=login&p=login&x", false),
        ("GET", "/index.php?p=login&x&p=admin", false),
        ("GET", "/index.php?p=login;p=admin&x", false),
        ("GET", "/index.php?P=login&x", false),
        ("GET", "/index.php/?p=login&x", false),
        ("GET", "/index.php/admin?p=login&x", false),
        ("GET", "//index.php?p=login&x", false),
        ("GET", "/%69ndex.php?p=login&x", false),
        ("GET", "/admin/../index.php?p=login&x", false),
        ("GET", "/INDEX.php?p=login&x", false),
        ("POST", "/index.php?p=login&x", false),
        ("PUT", "/index.php?p=login&x", false),
        ("OPTIONS", "/index.php?p=login&x", false),
        ("POST", "/session", true),
        ("POST", "/session?anything", true),
        ("GET", "/session", false),
        ("PUT", "/session", false),
        ("POST", "/session/", false),
        ("POST", "//session", false),
        ("POST", "/%73ession", false),
        ("POST", "/admin/../session", false),
    ] {
        assert_eq!(browser.can_reach(method, target).await, expected, "{method} {target}");
    }
    assert_eq!(browser.clone().get("/x").await.location(), "/index.php?p=log%69n&x&next=%2Fx");
}

#[tokio::test]
async fn a_page_is_open_in_the_spelling_in_which_browsers_are_sent_there() {
    let app = Upstream::plain().await;
    for (path, page, case) in [
        ("/caf\u{e9}/login", "/caf%C3%A9/login", "exact"),
        ("/login", "/%6Cogin", "exact"),
        ("/Login", "/Login", "ignore-case"),
    ] {
        let rule = format!("path    = \"{path}\"\npage = \"{page}\"");
        let site = format!("paths = \"{case}\"\n{}", SITE.replacen("path    = \"/login\"", &rule, 1));
        let (_proxy, browser) = Vestibule::with(&app, &site).await;
        let page = browser.clone().get("/").await.location().to_owned();
        assert!(browser.can_reach("GET", &page).await, "GET {page}");
        assert!(browser.can_reach("GET", &page.to_uppercase()).await == (case == "ignore-case"), "GET {page}");
        let action = page.replace("%6C", "l");
        assert!(browser.can_reach("POST", &action).await, "POST {action}");
    }
}

#[tokio::test]
async fn what_a_required_parameter_opens_is_open_for_that_value_only() {
    let app = Upstream::plain().await;
    let site = SITE.replacen("path    = \"/login\"", "path    = \"/doku.php?do=login\"", 1);
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for (target, expected) in [
        ("/doku.php?do=login", true),
        ("/doku.php?id=start&do=log%69n", true),
        ("/doku.php?do=login&do=admin", false),
        ("/doku.php?do=admin&do=login", false),
        ("/doku.php?do=login&d%6f=admin", false),
        ("/doku.php?do=LOGIN", false),
        ("/doku.php", false),
        ("/doku.php/admin?do=login", false),
    ] {
        assert_eq!(browser.can_reach("POST", target).await, expected, "{target}");
    }
}

#[tokio::test]
async fn a_login_below_a_script_is_watched_and_opens_nothing_else() {
    let app = Upstream::start(|request| match request.field("username") {
        Some(_) => Reply::redirect("/home"),
        None => Reply::text("page"),
    })
    .await;
    let site = SITE.replacen("path    = \"/login\"", "path    = \"/index.php\"", 1);
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    assert_eq!(browser.post("/index.php/admin/delete", &[("id", "1")]).await.status, 303);
    assert!(app.received().is_empty());
    let login = browser.post("/index.php/login", &[("username", "alice")]).await;
    assert_eq!((login.status.as_u16(), login.ours().is_some()), (302, true));
}
#[tokio::test]
async fn a_login_page_that_redirects_in_a_circle_is_asked_without_cookies() {
    // VR-08
    let app = Upstream::start(|request| match (request.path(), request.cookie("remember")) {
        ("/login", Some(_)) => Reply::redirect("/home"),
        ("/login", None) => Reply::text("<form>"),
        _ => Reply::text("page"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.cookies.insert("remember".into(), "me".into());

    let answer = browser.get("/login").await;

    assert_eq!(answer.body, "<form>");
    assert!(!browser.cookies.contains_key("remember"));
    let stubborn = Upstream::start(|_| Reply::redirect("/home")).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&stubborn).await;
    browser.cookies.insert("remember".into(), "me".into());
    let page = browser.get("/login").await;
    assert_eq!(page.status, 502);
    assert_eq!(page.header("cache-control"), Some("no-store"));
    assert!(page.body.contains("remember"), "{}", page.body);
    assert!(!page.body.contains("me<"), "no value: {}", page.body);
}

#[tokio::test]
async fn the_log_says_where_a_login_page_redirects_to() {
    // VR-08: whoever writes the rules sees which page would have to be named.
    let app = Upstream::start(|_| Reply::redirect("/login/step1?token=s3cret")).await;
    let text = file(&app.url(), &format!("{SITE}\n[log]\nformat = \"json\""));
    let program = Program::start(&text).await;
    let mut browser = program.browser();
    browser.cookies.insert("remember".into(), "me".into());

    assert_eq!(browser.get("/login").await.status, 502);
    let line = program.event("login.loop").await;
    assert_eq!((&line["cookies"], &line["to"]), (&"remember".into(), &"/login/step1".into()), "{line}");
}

#[tokio::test]
async fn a_login_page_may_redirect_to_where_nobody_has_to_log_in() {
    for location in ["/public/login", "/login?next=%2Fa", "https://sso.test/", "https://app.test:8443/home", "/login"] {
        let app = Upstream::start(move |_| Reply::redirect(location)).await;
        let site = SITE.replace("user    =", "return_param = \"next\"\nuser    =");
        let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
        assert_eq!(browser.get("/login").await.location(), location);
        assert_eq!(app.received().len(), 1, "{location}");
    }
}

#[tokio::test]
async fn asking_again_for_a_login_page_sends_no_body_that_is_not_there() {
    // S93: a length without its bytes would take them from the next request on the connection.
    let app = Upstream::start(|_| Reply::redirect("/home")).await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let request = Request::get("/login").body(Full::from("hello")).unwrap();

    let answer = tokio::time::timeout(Duration::from_secs(5), browser.clone().send(request)).await.unwrap();

    assert_eq!(answer.status, 502);
    let received = app.received();
    assert_eq!((received.len(), received[0].body.as_str(), received[1].body.as_str()), (2, "hello", ""));
    assert_eq!(received[1].header("content-length"), None);
}

#[tokio::test]
async fn what_a_login_page_needs_is_said_once() {
    // Issue "Seeing it": one line for each pattern that would let it through.
    let app = Upstream::plain().await;
    let second =
        "[[site.login]]\npath = \"/staff/login\"\nuser = \"form:u\"\nsuccess = { status = 302 }\n[site.logout]";
    let site = SITE.replace("[site.login]", "[[site.login]]").replace("[site.logout]", second);
    let log = "\n[log]\nformat = \"json\"";
    let program = Program::start(&file(&app.url(), &format!("{site}{log}"))).await;
    let browser = program.browser();
    for (path, dest, referer) in [
        ("/assets/a.css", "style", "https://app.test/login"),
        ("/assets/b.js", "script", "https://app.test/login?next=%2F#top"),
        ("/favicon.ico", "image", "https://app.test/staff/login"),
        ("/other/x.css", "style", "https://app.test/home"),
        ("/other/y.css", "style", "https://evil.test/login"),
        ("/other/page", "document", "https://app.test/login"),
        ("/public/z.css", "style", "https://app.test/login"),
    ] {
        let mode = if dest == "document" { "navigate" } else { "no-cors" };
        let request = labelled("GET", path, "same-origin", mode, dest).header("referer", referer);
        browser.clone().send(empty(request)).await;
    }
    program.answered(7).await;
    let help: Vec<_> = program.events("access.hint").into_iter().map(|line| line["help"].to_string()).collect();
    assert_eq!(help.len(), 2, "{help:?}");
    assert!(help[0].contains("/assets/*") && help[1].contains("/favicon.ico"), "{help:?}");
}
