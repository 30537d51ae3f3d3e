//! Cross-site requests change nothing (product 3.7).

use http::Request;
use http::request::Builder;
use http_body_util::Full;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::empty;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;

const COOKIE: (&str, &str) = ("cookie", "theme=dark");
const CROSS: (&str, &str) = ("sec-fetch-site", "cross-site");
const OWN: (&str, &str) = ("origin", "https://app.test");
const FORM: &str = "username=alice&password=secret";

fn with(method: &str, path: &str, lines: &[(&str, &str)]) -> Builder {
    lines
        .iter()
        .fold(Request::builder().method(method).uri(path), |request, (name, value)| request.header(*name, *value))
}

async fn status(browser: &Browser, method: &str, path: &str, lines: &[(&str, &str)]) -> u16 {
    browser.clone().send(empty(with(method, path, lines))).await.status.as_u16()
}

/// A login form that is sent.
async fn log_in(browser: &Browser, lines: &[(&str, &str)]) -> Answer {
    let request = with("POST", "/login", lines).header("content-type", "application/x-www-form-urlencoded");
    browser.clone().send(request.body(Full::from(FORM)).unwrap()).await
}

#[tokio::test]
async fn unsafe_requests_with_a_cookie_must_be_our_own() {
    // S136, S137, S138
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for (lines, passes) in [
        (&[("sec-fetch-site", "same-origin")][..], true),
        (&[("sec-fetch-site", "none")], true),
        (&[("sec-fetch-site", "same-origin"), ("origin", "https://evil.test")], true),
        (&[CROSS], false),
        (&[("sec-fetch-site", "same-site")], false),
        (&[("sec-fetch-site", "same-site"), OWN], false),
        (&[CROSS, OWN, ("referer", "https://app.test/")], false),
        (&[("sec-fetch-site", "same-origin"), CROSS], false),
        (&[("sec-fetch-site", "same-origin, cross-site")], false),
        (&[("sec-fetch-site", "Same-Origin")], false),
        (&[("sec-fetch-site", "")], false),
        (&[("sec-fetch-site", "sideways")], false),
        (&[("sec-fetch-site", "sideways"), OWN], true),
        (&[("sec-fetch-site", "sideways"), ("origin", "https://evil.test")], false),
        (&[OWN], true),
        (&[OWN, OWN], false),
        (&[OWN, ("referer", "https://evil.test/")], true),
        (&[("origin", "https://app.test:443")], false),
        (&[("origin", "https://app.test/")], false),
        (&[("origin", "https://app.test.evil.test")], false),
        (&[("origin", "https://evil.test?https://app.test")], false),
        (&[("origin", "http://app.test")], false),
        (&[("origin", "https://sub.app.test")], false),
        (&[("origin", "null")], false),
        (&[("origin", "null"), ("referer", "https://app.test/")], false),
        (&[("origin", "")], false),
        (&[("referer", "https://app.test/form?x=1")], true),
        (&[("referer", "https://app.test")], true),
        (&[("referer", "https://app.test.evil.test/")], false),
        (&[("referer", "https://app.test@evil.test/")], false),
        (&[("referer", "https://app.test:8443/")], false),
        (&[("referer", "http://app.test/")], false),
        (&[("referer", "https://evil.test/?https://app.test/")], false),
        (&[("referer", "")], false),
        (&[], false),
        (&[("host", "app.test:443"), OWN], true),
    ] {
        let lines = [&[COOKIE], lines].concat();
        let before = app.received().len();
        assert_eq!(status(&browser, "POST", "/public/x", &lines).await, if passes { 200 } else { 403 }, "{lines:?}");
        assert_eq!(app.received().len(), before + usize::from(passes), "{lines:?}");
        assert_eq!(status(&browser, "GET", "/public/x", &lines).await, 200, "{lines:?}");
    }
}

#[tokio::test]
async fn methods_that_change_something_are_looked_at() {
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let http2 = browser.clone().over_http2();
    for (method, expected) in [
        ("PUT", 403),
        ("DELETE", 403),
        ("PATCH", 403),
        ("PROPFIND", 403),
        ("GET", 200),
        ("HEAD", 200),
        ("OPTIONS", 200),
    ] {
        for browser in [&browser, &http2] {
            assert_eq!(status(browser, method, "/public/x", &[COOKIE, CROSS]).await, expected, "{method}");
            assert_eq!(status(browser, method, "/public/x", &[COOKIE, OWN]).await, 200, "{method}");
        }
    }
}

#[tokio::test]
async fn only_credentials_that_a_browser_adds_unasked_count() {
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for (lines, expected) in [
        (&[("authorization", "Basic dTpw")][..], 403),
        (&[("authorization", "basic dTpw")], 403),
        (&[("authorization", "Digest username=\"u\"")], 403),
        (&[("authorization", "Negotiate YII=")], 403),
        (&[("authorization", "NTLM TlRM")], 403),
        (&[("authorization", "Bearer x"), ("authorization", "Basic dTpw")], 403),
        (&[("authorization", "Bearer x")], 200),
        (&[("x-api-key", "x")], 200),
        (&[], 200),
        (&[("cookie", "")], 403),
        (&[("cookie", ";")], 403),
    ] {
        assert_eq!(status(&browser, "POST", "/public/x", &[lines, &[CROSS]].concat()).await, expected, "{lines:?}");
    }
    // Neither labels nor credentials: no browser (product 3.7).
    assert_eq!(status(&browser, "POST", "/public/x", &[]).await, 200);
    assert_eq!(status(&browser, "POST", "/public/x", &[("authorization", "Basic dTpw")]).await, 403);
    assert_eq!(status(&browser, "POST", "/public/x", &[("authorization", "Bearer x")]).await, 200);
}

#[tokio::test]
async fn logins_and_logouts_are_looked_at_in_every_method_and_spelling() {
    // S44, S142
    let app = Upstream::legacy().await;
    let site = SITE.replace("user    =", "method = [\"POST\", \"GET\"]\nuser    =");
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    for method in ["GET", "POST"] {
        for path in ["/login", "/login?x", "/%6cogin", "//login", "/login;x=1"] {
            let path = &format!("{path}{}username=mallory", if path.contains('?') { "&" } else { "?" });
            assert_eq!(status(&browser, method, path, &[CROSS]).await, 403, "{method} {path}");
            assert_eq!(
                status(&browser, method, path, &[("origin", "https://evil.test")]).await,
                403,
                "{method} {path}"
            );
        }
    }
    assert_eq!(status(&browser, "POST", "/login", &[CROSS]).await, 403);
    assert!(app.received().is_empty());
    assert_eq!(status(&browser, "GET", "/login", &[CROSS]).await, 200, "a link to the form, which has the same path");
    assert_eq!(log_in(&browser, &[]).await.status, 302, "curl logs in");
    assert_eq!(log_in(&browser, &[COOKIE]).await.status, 403, "a browser says where it comes from");
    assert_eq!(log_in(&browser, &[COOKIE, OWN]).await.status, 302);

    browser.log_in("alice").await;
    for method in ["GET", "HEAD", "POST", "OPTIONS", "DELETE"] {
        for path in ["/logout", "/%6Cogout?x", "/a/../logout"] {
            for lines in [&[CROSS][..], &[("sec-fetch-site", "same-site")], &[("referer", "https://evil.test/")], &[]] {
                assert_eq!(status(&browser, method, path, lines).await, 403, "{method} {path} {lines:?}");
            }
        }
    }
    for path in ["/.vestibule/logout", "/.vestibule/logout?everywhere"] {
        assert_eq!(status(&browser, "POST", path, &[CROSS]).await, 403);
        // Lax cookies stay at home, but the answer would clear ours.
        let refused = proxy.browser().send(empty(with("POST", path, &[CROSS]))).await;
        assert_eq!((refused.status.as_u16(), refused.ours()), (403, None));
    }
    for method in ["GET", "HEAD"] {
        assert_eq!(status(&browser, method, "/.vestibule/session", &[]).await, 200, "{method}");
    }
    assert_eq!(browser.get("/").await.status, 200, "the session lives");
}

#[tokio::test]
async fn page_loads_from_elsewhere_are_no_danger() {
    // S139
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let link = labelled("GET", "/", "cross-site", "navigate", "document").header("referer", "https://mail.test/");
    assert_eq!(browser.send(empty(link)).await.status, 200);
    let page = labelled("GET", "/login", "cross-site", "navigate", "document");
    assert_eq!(browser.send(empty(page)).await.status, 200);
}

#[tokio::test]
async fn a_login_page_that_is_also_asked_for_by_links_stays_open_to_them() {
    // S139, S142: only what carries the user's name is a login.
    let app = Upstream::plain().await;
    for (user, attempt, authorization) in
        [("query:u", "/login?u=mallory", None), ("basic", "/login", Some(("authorization", "Basic bTpw")))]
    {
        let site = SITE.replace("\"form:username\"", &format!("\"{user}\"\nmethod = \"GET\""));
        let (_proxy, browser) = Vestibule::with(&app, &site).await;
        for method in ["GET", "HEAD"] {
            assert_eq!(status(&browser, method, "/login", &[CROSS, COOKIE]).await, 200, "{user}");
        }
        let lines: Vec<_> = [CROSS].into_iter().chain(authorization).collect();
        assert_eq!(status(&browser, "GET", attempt, &lines).await, 403, "{user}");
        assert_eq!(status(&browser, "GET", "/login?other=1", &[CROSS]).await, 200, "{user}");
    }
    // Every request may be the login where only the answer tells.
    let site = SITE.replace("\"form:username\"", "\"response-header:X-User\"\nmethod = \"GET\"");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    assert_eq!(status(&browser, "GET", "/login", &[CROSS]).await, 403);
}

#[tokio::test]
async fn a_logout_rule_that_needs_no_field_counts_behind_one_that_does() {
    // S44
    let app = Upstream::legacy().await;
    let first = "[[site.logout]]\npath = \"/logout\"\nform = { name = \"all\" }\n[[site.logout]]";
    let (_proxy, mut browser) = Vestibule::with(&app, &SITE.replace("[site.logout]", first)).await;
    browser.log_in("alice").await;

    assert_eq!(status(&browser, "GET", "/logout", &[CROSS]).await, 403);
    assert_eq!(browser.get("/").await.status, 200, "the session lives");
    assert!(browser.get("/logout").await.header("clear-site-data").is_some());
}

#[tokio::test]
async fn the_refusal_says_little_and_what_it_depends_on() {
    // S141, S165
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    let refused = browser.send(empty(with("POST", "/transfer", &[CROSS, ("accept", "text/html")]))).await;
    assert_eq!(refused.status, 403);
    assert_eq!(refused.header("vary"), Some("Sec-Fetch-Site, Origin, Referer"));
    assert_eq!(refused.header("cache-control"), Some("no-store"));
    assert_eq!(refused.body, "Cross-site request refused.\n");
    assert!(refused.set_cookies().is_empty());
    for (method, path, varies) in [("GET", "/", false), ("POST", "/transfer", false), ("GET", "/logout", true)] {
        let passed = browser.send(empty(with(method, path, &[OWN]))).await;
        assert_eq!(passed.header("vary").is_some(), varies, "{method} {path}");
    }
}

#[tokio::test]
async fn a_site_can_have_rules_of_its_own() {
    // S140; the site's tables override the global ones
    let (app, other) = (Upstream::plain().await, Upstream::plain().await);
    let site = format!(
        "{SITE}\n[site.csrf]\nunlabelled = \"allow\"\nexempt = [\"POST /public/hook\", \"/public/hooks/*\"]\n\
         [[site]]\norigin = \"https://other.test\"\nupstream = \"{}\"\n{SITE}\n\
         [csrf]\nmode = \"off\"\nexempt = \"/public/global\"",
        other.url()
    );
    let config = crate::support::configure(&app.url(), &site.replace("exempt = [", "mode = \"enforce\"\nexempt = ["));
    assert!(config.warnings().iter().any(|warning| warning.contains("\"/public/hooks/*\"")), "{:?}", config.warnings());
    let (_proxy, browser) = Vestibule::of(config).await;
    for (path, lines, expected) in [
        ("/public/x", &[COOKIE][..], 200),
        ("/public/x", &[COOKIE, CROSS], 403),
        ("/public/x", &[COOKIE, ("origin", "null")], 403),
        ("/public/x", &[COOKIE, ("sec-fetch-site", "sideways")], 403),
        ("/public/hook", &[COOKIE, CROSS], 200),
        ("/public/hook/", &[COOKIE, CROSS], 403),
        ("/public/hook;x", &[COOKIE, CROSS], 403),
        ("/public/%68ook", &[COOKIE, CROSS], 403),
        ("/public/x/../hook", &[COOKIE, CROSS], 403),
        ("/public/hooks/a/b", &[COOKIE, CROSS], 200),
        ("/public/hooks/../x", &[COOKIE, CROSS], 403),
        ("/public/global", &[COOKIE, CROSS], 403),
        ("/public/x", &[COOKIE, CROSS, ("host", "other.test")], 200),
    ] {
        assert_eq!(status(&browser, "POST", path, lines).await, expected, "{path} {lines:?}");
    }
    assert_eq!(status(&browser, "PUT", "/public/hook", &[COOKIE, CROSS]).await, 403);
}

#[tokio::test]
async fn upgrades_without_an_origin_follow_the_policy_for_requests_without_labels() {
    // S119: browsers always send one.
    let app = Upstream::plain().await;
    for (policy, expected) in [("refuse", 403), ("allow", 200)] {
        let site = format!("{SITE}\n[site.csrf]\nunlabelled = \"{policy}\"");
        let (_proxy, browser) = Vestibule::with(&app, &site).await;
        let version = ("sec-websocket-version", "13");
        let handshake = [("connection", "upgrade"), ("upgrade", "websocket"), version, COOKIE];
        for (lines, expected) in [
            (&[][..], expected),
            (&[OWN], 200),
            (&[("sec-fetch-mode", "websocket")], 403),
            (&[("referer", "https://app.test/")], expected),
            (&[("origin", "https://evil.test")], 403),
        ] {
            let lines = [&handshake, lines].concat();
            assert_eq!(status(&browser, "GET", "/public/ws", &lines).await, expected, "{policy} {lines:?}");
        }
    }
}

#[tokio::test]
async fn a_trial_run_only_reports() {
    // S136, S159
    let app = Upstream::plain().await;
    let exempt = "exempt = [\"POST /hook\", \"/x\"]";
    let text = file(&app.url(), &format!("{SITE}\n[csrf]\nmode = \"report\"\n{exempt}\n[log]\nformat = \"json\""));
    let program = Program::start(&text).await;
    let browser = program.browser();

    assert_eq!(program.event("started").await["csrf_exempt"], "POST /hook, /x", "S140");
    assert_eq!(status(&browser, "POST", "/public/x?token=s3cret", &[COOKIE, CROSS]).await, 200);
    let line = program.event("csrf.refused").await;
    assert_eq!((line["enforced"].as_bool(), line["reason"].as_str()), (Some(false), Some("sec-fetch-site")), "{line}");
    assert_eq!((line["method"].as_str(), line["path"].as_str()), (Some("POST"), Some("/public/x")), "{line}");
    assert_eq!(line["client"], "127.0.0.1");
}

#[tokio::test]
async fn pages_of_other_sites_load_only_what_is_public() {
    // S143
    let app = Upstream::legacy().await;
    let site = SITE.replace("public =", "protected = \"/public/mine/*\"\npublic =");
    let site = format!("{site}\n[csrf]\nisolation = true\nexempt = \"GET /shared\"");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
    browser.log_in("alice").await;
    let mut browsers = [browser.clone(), browser.over_http2()];
    let before = app.received().len();

    for (path, from, mode, dest, expected) in [
        ("/", "cross-site", "no-cors", "image", 403),
        ("/", "cross-site", "cors", "empty", 403),
        ("/", "cross-site", "navigate", "embed", 403),
        ("/login", "cross-site", "no-cors", "image", 403),
        ("/public/mine/x", "cross-site", "no-cors", "image", 403),
    ] {
        for browser in &mut browsers {
            let answer = browser.send(empty(labelled("GET", path, from, mode, dest))).await;
            assert_eq!(answer.status, expected, "{path} {mode} {dest}");
            assert_eq!(answer.body, "Cross-site request refused.\n");
        }
    }
    assert_eq!(app.received().len(), before, "the application is not asked");
    for (path, from, mode, dest, policy) in [
        ("/", "cross-site", "navigate", "document", Some("same-origin")),
        ("/", "same-site", "no-cors", "image", Some("same-origin")),
        ("/", "same-origin", "no-cors", "image", Some("same-origin")),
        ("/shared", "cross-site", "no-cors", "image", None),
        ("/public/x", "cross-site", "no-cors", "image", None),
    ] {
        for browser in &mut browsers {
            let answer = browser.send(empty(labelled("GET", path, from, mode, dest))).await;
            assert_eq!(answer.status, 200, "{path} {from} {mode} {dest}");
            assert_eq!(answer.header("cross-origin-resource-policy"), policy, "{path}");
        }
    }
    assert_eq!(status(&browsers[0], "GET", "/", &[]).await, 200, "no browser of today");
    let varies = browsers[0].fetch("/").await;
    assert_eq!(varies.header("vary"), Some("Sec-Fetch-Site, Sec-Fetch-Mode, Sec-Fetch-Dest, Origin, Referer"), "S141");
}

#[tokio::test]
async fn isolation_can_be_tried_and_leaves_what_the_application_says() {
    // S143
    let app = Upstream::start(|_| Reply::text("").header("cross-origin-resource-policy", "cross-origin")).await;
    for (rules, enforced, own) in [
        ("isolation = true", true, "cross-origin"),
        ("isolation = true\nmode = \"report\"", false, "cross-origin"),
        ("isolation = true\n[site.headers]\nremove = \"Cross-Origin-Resource-Policy\"", true, ""),
    ] {
        let site = format!(
            "{}\n[site.csrf]\n{rules}\n[log]\nformat = \"json\"",
            SITE.replace("public =", "default = \"public\"\npublic =")
        );
        let program = Program::start(&file(&app.url(), &site)).await;
        let mut browser = program.browser();

        let image = browser.send(empty(labelled("GET", "/x.png", "cross-site", "no-cors", "image"))).await;

        assert_eq!(image.status, if enforced { 403 } else { 200 });
        let line = program.event("csrf.refused").await;
        assert_eq!((line["enforced"].as_bool(), line["reason"].as_str()), (Some(enforced), Some("isolation")));
        let page = browser.get("/").await;
        assert_eq!(page.header("cross-origin-resource-policy").unwrap_or(""), own, "{rules}");
    }
}
