//! Our own endpoints below `/.vestibule/`.

use http::Request;
use http_body_util::Full;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::labelled;
use crate::support::navigation;

#[tokio::test]
async fn a_page_can_ask_about_its_session() {
    let app = Upstream::legacy().await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        let nobody = browser.fetch("/.vestibule/session").await;
        assert_eq!((nobody.status.as_u16(), nobody.header("www-authenticate")), (401, Some("Session")));
        browser.get("/login").await;
        assert_eq!(browser.get("/.vestibule/session").await.status, 401, "an anonymous session is nobody's");
        browser.log_in("alice").await;
        let before = app.received().len();

        let answer = browser.fetch("/.vestibule/session").await;

        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let session: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            session,
            serde_json::json!({ "user": "alice", "idle_expires_in": 1800, "absolute_expires_in": 28_800 })
        );
        assert_eq!(app.received().len(), before, "the application is not asked");
        for method in ["HEAD", "GET"] {
            let plain = Request::builder().method(method).uri("/.vestibule/session").body(Full::default()).unwrap();
            assert_eq!(browser.send(plain).await.status, 200, "{method} without labels");
        }
        for (method, path, allow) in [
            ("POST", "/.vestibule/session", "GET, HEAD"),
            ("DELETE", "/.vestibule/session", "GET, HEAD"),
            ("GET", "/.vestibule/logout", "POST"),
            ("OPTIONS", "/.vestibule/logout", "POST"),
        ] {
            let request = labelled(method, path, "same-origin", "cors", "empty").body(Full::default()).unwrap();
            let answer = browser.send(request).await;
            assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some(allow)), "{method} {path}");
        }
        assert_eq!(browser.fetch("/.vestibule/").await.status, 404);
        assert_eq!(browser.fetch("/.vestibule/../x").await.status, 404, "never the application's");
        assert_eq!(app.received().len(), before);
    }
}

#[tokio::test]
async fn they_are_there_whatever_the_rules_for_paths_say() {
    let app = Upstream::legacy().await;
    for access in
        ["deny = \"/.vestibule/*\"\npublic =", "default = \"public\"\npublic =", "protected = \"*\"\npublic ="]
    {
        let (_proxy, mut browser) = Vestibule::with(&app, &SITE.replace("public =", access)).await;
        browser.log_in("alice").await;

        assert_eq!(browser.fetch("/.vestibule/session").await.status, 200, "{access}");
        assert_eq!(browser.post("/.vestibule/logout", &[]).await.status, 303, "{access}");
        assert_eq!(browser.fetch("/.vestibule/session").await.status, 401, "{access}");
    }
}

#[tokio::test]
async fn a_script_logs_out_without_a_redirect() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let logout =
        || labelled("POST", "/.vestibule/logout", "same-origin", "cors", "empty").body(Full::default()).unwrap();

    let answer = browser.send(logout()).await;

    assert_eq!((answer.status.as_u16(), answer.header("clear-site-data")), (204, Some("\"storage\"")));
    assert!(answer.ours().unwrap().contains("Max-Age=0"));
    let again = browser.send(logout()).await;
    assert_eq!(again.status, 204);
    assert!(again.ours().is_some(), "S41: also without a session");
    let by_form = browser.send(navigation("POST", "/.vestibule/logout").body(Full::default()).unwrap()).await;
    assert_eq!((by_form.status.as_u16(), by_form.location()), (303, "/login"));
}

#[tokio::test]
async fn everywhere_is_every_session_of_that_user_and_no_other() {
    // S48, VR-02
    let app = Upstream::legacy().await;
    let (proxy, mut first) = Vestibule::in_front_of(&app).await;
    let mut others: Vec<_> = (0..3).map(|_| proxy.browser()).collect();
    first.log_in("alice").await;
    for (browser, user) in others.iter_mut().zip(["alice", "alice", "bob"]) {
        browser.log_in(user).await;
    }

    first.post("/.vestibule/logout?everywhere", &[]).await;

    let mut left = Vec::new();
    for browser in &mut others {
        left.push(browser.fetch("/").await.status.as_u16());
    }
    assert_eq!(left, [401, 401, 200]);
}

#[tokio::test]
async fn what_we_answer_to_head_has_no_content() {
    // RFC 9110 9.3.2: over HTTP/2 content would be an error of the protocol.
    let app = Upstream::legacy().await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        let head = |path: &str| labelled("HEAD", path, "same-origin", "cors", "empty").body(Full::default()).unwrap();
        for (path, status) in [("/private", 401), ("/.vestibule/x", 404), ("/a%00", 400)] {
            let answer = browser.send(head(path)).await;
            let with_content = browser.fetch(path).await;
            assert_eq!((answer.status.as_u16(), answer.body.as_str()), (status, ""), "{path}");
            assert_eq!(answer.header("content-length"), Some(with_content.body.len().to_string().as_str()), "{path}");
        }
    }
}
