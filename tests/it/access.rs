//! Who may reach which path, and what those get who may not.

use http::Request;
use http_body_util::Full;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;

#[tokio::test]
async fn what_is_not_public_needs_a_session() {
    // S52, S169, VR-07, VR-14
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let page = browser.get("/private?x=1").await;
    assert_eq!((page.status.as_u16(), page.location()), (303, "/login"));
    let fetch = browser.fetch("/private").await;
    assert_eq!(fetch.status, 401);
    assert_eq!(fetch.header("www-authenticate"), Some("Session"));
    assert_eq!(fetch.header("content-type"), Some("application/problem+json"));
    assert_eq!(browser.post("/private", &[("a", "b")]).await.status, 303);
    assert!(app.received().is_empty());
    assert_eq!(browser.get("/public/x").await.status, 200);
    assert_eq!(app.last().header("x-forwarded-user"), None);
}

#[tokio::test]
async fn the_way_back_goes_through_the_applications_own_parameter() {
    // S154, VR-16
    let app = Upstream::legacy().await;
    let site = SITE.replace("user    =", "return_param = \"next\"\nuser    =");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    assert_eq!(browser.get("/a/b?c=d&e").await.location(), "/login?next=%2Fa%2Fb%3Fc%3Dd%26e");
    assert_eq!(browser.get("/login?next=%2Fa").await.status, 200);
    assert_eq!(browser.get("/login?other=1").await.status, 303, "exactly its query");
    assert_eq!(browser.post("/a", &[]).await.location(), "/login");
}

#[tokio::test]
async fn paths_that_can_be_read_in_two_ways_are_refused() {
    // S90, VR-12, VR-22
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for path in [
        "/public/..%2fadmin",
        "/public/..;/admin",
        "/public/%5c..%5cadmin",
        "/public/a%00",
        "/../admin",
        "/public/%252e%252e/admin",
    ] {
        assert_eq!(browser.clone().get(path).await.status, 400, "{path}");
    }
    for path in ["/public/../admin", "/public/%2e%2e/admin", "//public/x", "/%70ublic/x"] {
        assert_eq!(browser.clone().get(path).await.status, 303, "{path}");
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn the_bytes_of_the_path_reach_the_application_as_they_were() {
    // S90, VR-22
    let app = Upstream::legacy().await;
    let site = SITE.replace("public =", "ambiguous_paths = \"allow\"\npublic =");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    for target in ["/a%2Fb?x=%20y", "/%7Euser//x/./y", "/caf%C3%A9?a=b+c;d"] {
        browser.get(target).await;
        assert_eq!(app.last().target, target);
    }
}

#[tokio::test]
async fn closed_paths_are_closed_for_everyone() {
    let app = Upstream::legacy().await;
    let site = SITE.replace("public =", "deny = \"/setup*\"\npublic =");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;

    assert_eq!(browser.get("/setup.php").await.status, 403);
    assert_eq!(browser.get("/%73etup.php").await.status, 403);
}

#[tokio::test]
async fn cross_site_requests_change_nothing() {
    // S136, S138, S141, S142
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let before = app.received().len();
    for (site, origin, status) in [
        ("cross-site", "https://evil.test", 403),
        ("same-site", "https://sub.app.test", 403),
        ("same-origin", "https://app.test", 200),
    ] {
        let request = labelled("POST", "/transfer", site, "navigate", "document").header("origin", origin);
        assert_eq!(browser.send(request.body(Full::default()).unwrap()).await.status, status, "{site}");
    }
    assert_eq!(app.received().len(), before + 1);
    let link = labelled("GET", "/", "cross-site", "navigate", "document").body(Full::default()).unwrap();
    assert_eq!(browser.send(link).await.status, 200, "S139");
    let login = labelled("POST", "/login", "cross-site", "navigate", "document")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from("username=mallory&password=secret"))
        .unwrap();
    let refused = browser.send(login).await;
    assert_eq!(refused.status, 403);
    assert!(refused.header("vary").unwrap().contains("Sec-Fetch-Site"));
}

#[tokio::test]
async fn clients_that_are_no_browsers_log_in_and_work() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    let login = Request::post("/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from("username=alice&password=secret"))
        .unwrap();

    assert_eq!(browser.send(login).await.status, 302);
    assert_eq!(browser.send(Request::get("/").body(Full::default()).unwrap()).await.status, 200);
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
    assert!(page.body.contains("remember"), "{}", page.body);
}
