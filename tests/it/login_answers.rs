//! What an application's answer to a login means, and what is asked when it says nothing.

use http_body_util::Full;

use crate::support::Browser;
use crate::support::Received;
use crate::support::Reply;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::navigation;

/// One login rule, and an application that answers every login in the same way.
async fn site(
    rule: &str,
    answer: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (Vestibule, Browser, Upstream) {
    let app = Upstream::start(answer).await;
    let site = format!("[site.login]\npath = \"/app/login\"\npage = \"/form\"\n{rule}");
    let (proxy, browser) = Vestibule::with(&app, &site).await;
    (proxy, browser, app)
}

async fn logs_in(rule: &str, answer: impl Fn() -> Reply + Send + Sync + 'static) -> bool {
    let rule = format!("user = \"form:u\"\n{rule}");
    let (_proxy, mut browser, app) = site(&rule, move |_| answer()).await;
    browser.post("/app/login", &[("u", "alice")]).await;
    let coding = app.received()[0].header("accept-encoding").map(str::to_owned);
    assert_eq!(coding.as_deref() == Some("identity"), rule.contains("body_") || rule.contains("json"), "{rule}");
    browser.fetch("/x").await.status != 401
}

#[tokio::test]
async fn the_first_64_kib_of_a_body_count() {
    let long =
        |start: &'static str, end: &'static str| move || Reply::text(&format!("{start}{}{end}", "x".repeat(64 * 1024)));
    assert!(logs_in("success = { body_contains = \"Welcome\" }", long("Welcome", "")).await);
    assert!(!logs_in("success = { body_contains = \"Welcome\" }", long("", "Welcome")).await);
    assert!(!logs_in("success = { body_omits = \"Wrong\" }", long("", "y")).await, "what follows is not known");
    let rule = "failure = { body_contains = \"Wrong\" }\nsuccess = { status = 200 }";
    assert!(!logs_in(rule, long("", "Wrong")).await, "the client could have made it so long");
    assert!(!logs_in(rule, || Reply::text("Welcome").header("content-encoding", "gzip")).await);
    assert!(logs_in(rule, || Reply::text("Welcome")).await);
    let whole = || Reply::text(&"x".repeat(64 * 1024));
    assert!(logs_in("success = { body_omits = \"Wrong\" }", whole).await);
}

#[tokio::test]
async fn a_long_body_reaches_the_browser_whole() {
    let rule = "user = \"form:u\"\nsuccess = { body_contains = \"Welcome\" }";
    let text = format!("Welcome{}", "x".repeat(300_000));
    let sent = text.clone();
    let (proxy, browser, _app) = site(rule, move |_| Reply::text(&sent)).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        assert_eq!(browser.post("/app/login", &[("u", "alice")]).await.body, text);
        assert!(browser.session().is_some());
    }
}

#[tokio::test]
async fn an_encoded_or_empty_body_matches_nothing() {
    for rule in [
        "success = { body_contains = \"Ok\" }",
        "success = { body_omits = \"Wrong\" }",
        "success = { json = { pointer = \"/ok\" } }",
    ] {
        let ok = "{\"ok\":\"Ok\"}";
        assert!(logs_in(rule, move || Reply::text(ok)).await, "{rule}");
        assert!(logs_in(rule, move || Reply::text(ok).header("content-encoding", "Identity")).await, "{rule}");
        assert!(!logs_in(rule, move || Reply::text(ok).header("content-encoding", "gzip")).await, "{rule}");
        assert!(!logs_in(rule, || Reply::text("")).await, "{rule}");
    }
}

#[tokio::test]
async fn a_client_cannot_ask_for_the_part_that_does_not_tell() {
    // S29: many servers give parts of any answer.
    let rule = "user = \"form:u\"\nsuccess = { body_omits = \"Wrong\" }";
    let (_proxy, mut browser, app) = site(rule, |request| match request.header("range") {
        Some(_) => Reply::status(206).body("<").header("content-range", "bytes 0-0/15"),
        None => Reply::text("<p>Wrong password"),
    })
    .await;
    let login = navigation("POST", "/app/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("range", "bytes=0-0")
        .header("if-none-match", "*")
        .body(Full::from("u=admin&p=x"))
        .unwrap();

    let answer = browser.send(login).await;

    assert_eq!((answer.status.as_u16(), answer.ours()), (200, None));
    assert_eq!(app.last().header("if-none-match"), None);
    let partial = "success = { body_omits = \"Wrong\" }";
    assert!(!logs_in(partial, || Reply::status(206).body("<")).await, "whoever asked for it");
}

#[tokio::test]
async fn a_name_in_an_encoded_body_is_no_name() {
    let rule = "user = \"response-json:/user\"\nsuccess = { status = 200 }";
    let (_proxy, mut browser, _app) = site(rule, |_| {
        Reply::text("{\"user\":\"alice\"}").header("content-encoding", "gzip").header("set-cookie", "sid=1; HttpOnly")
    })
    .await;

    let answer = browser.post("/app/login", &[("u", "alice")]).await;

    assert_eq!((answer.status.as_u16(), answer.set_cookies().len()), (502, 0));
}

#[tokio::test]
async fn without_a_status_only_an_answer_that_went_well_is_success() {
    for (status, expected) in
        [(200, true), (204, true), (302, true), (400, false), (401, false), (403, false), (503, false)]
    {
        let answer = move || Reply::status(status).header("location", "/").header("x-in", "1");
        assert_eq!(logs_in("success = { header = { name = \"X-In\" } }", answer).await, expected, "{status}");
    }
    assert!(
        logs_in("success = { status = 403, header = { name = \"X-In\" } }", || Reply::status(403).header("x-in", "1"))
            .await
    );
}

#[tokio::test]
async fn another_origin_is_not_somewhere_else_on_the_site() {
    let to = |location: &'static str| move || Reply::redirect(location);
    for (rule, location, expected) in [
        ("success = { location_not = \"/app/login*\" }", "https://sso.test/", false),
        ("success = { location_not = \"/app/login*\" }", "//app.test/", true),
        ("success = { location_not = \"/app/login*\" }", "login?error", false),
        ("success = { location_not = \"/app/login*\" }", "../app/./login", false),
        ("success = { location_not = \"/app/login*\" }", "http://app.test/", true),
        ("success = { location = \"https://sso.test/in*\" }", "https://sso.test/in?x", true),
        ("success = { location_not = \"https://sso.test/out*\" }", "https://sso.test/in", true),
        ("success = { location = \"/home\" }", "https://evil.test/home", false),
    ] {
        assert_eq!(logs_in(rule, to(location)).await, expected, "{rule} {location}");
    }
    assert!(!logs_in("success = { location_not = \"/app/login*\" }", || Reply::text("form")).await, "no location");
}

/// An application that tells nothing in its answer, and who is in at /app/me.
fn silent(request: &Received) -> Reply {
    match request.path() {
        "/app/login" => Reply::redirect("me?tab=1#top")
            .header("set-cookie", "sid=new; HttpOnly")
            .header("set-cookie", "theme=dark; Path=/")
            .header("set-cookie", "pre=; Max-Age=0; Path=/"),
        "/app/me" if request.cookie("sid") == Some("new") => {
            Reply::text("hello").header("set-cookie", "seen=1; HttpOnly")
        }
        "/app/me" => Reply::redirect("/form"),
        _ => Reply::text("page").header("set-cookie", "sid=old; HttpOnly; Path=/app"),
    }
}

#[tokio::test]
async fn the_next_page_is_asked_as_the_browser_would() {
    let rule = "user = \"form:u\"\nverify = {}";
    let (_proxy, mut browser, app) = site(rule, silent).await;
    browser.get("/form").await;
    browser.cookies.extend([("pre".into(), "1".into()), ("own".into(), "2".into()), ("theme".into(), "light".into())]);
    let login = navigation("POST", "/app/login")
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept-language", "nb")
        .header("x-custom", "1")
        .header("x-forwarded-for", "10.0.0.1")
        .body(Full::from("u=alice&p=x"))
        .unwrap();

    let answer = browser.send(login).await;

    assert_eq!(answer.status, 302);
    let asked = app.last();
    assert_eq!((asked.method.as_str(), asked.target.as_str(), asked.body.as_str()), ("GET", "/app/me?tab=1", ""));
    assert_eq!(asked.header("cookie"), Some("sid=new; own=2; theme=dark"));
    assert_eq!(asked.header("user-agent"), Some("Test/1.0"));
    assert_eq!(asked.header("accept-language"), Some("nb"));
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.header("x-forwarded-user"), None);
    assert_eq!(asked.header("x-custom"), None);
    browser.get("/app/x").await;
    assert_eq!(app.last().header("x-forwarded-user"), Some("alice"));
    assert_eq!(app.last().cookie("seen"), Some("1"), "what it set is kept, below where it was asked");
    browser.get("/other").await;
    assert_eq!(app.last().cookie("seen"), None);
}

#[tokio::test]
async fn the_next_page_is_asked_for_nobody() {
    // The user before must not vouch for the one who logs in.
    let app = |request: &Received| match (request.path(), request.header("x-forwarded-user")) {
        ("/app/login", _) => Reply::redirect("/app/me"),
        ("/app/me", None) => Reply::status(403),
        ("/app/me", Some(_)) => Reply::text("hello"),
        _ => Reply::text("page"),
    };
    let rule = "user = \"form:u\"\nform = { name = \"p\" }\nverify = {}";
    let other = "[[site.login]]\npath = \"/other\"\nuser = \"form:u\"\nsuccess = { status = 200 }";
    let app = Upstream::start(app).await;
    let text = format!("[[site.login]]\npath = \"/app/login\"\npage = \"/form\"\n{rule}\n{other}");
    let (_proxy, mut browser) = Vestibule::with(&app, &text).await;
    browser.post("/other", &[("u", "alice")]).await;
    let alice = browser.session();

    browser.post("/app/login", &[("u", "bob"), ("p", "x")]).await;

    assert_eq!(browser.session(), alice, "the application did not say that bob is in");
}

#[tokio::test]
async fn a_cookie_that_the_browser_keeps_counts_for_the_next_page() {
    for cookies in ["mode = \"harden\"", "mode = \"pass\"", "relay = \"sid\""] {
        let rule = format!("user = \"form:u\"\nverify = {{}}\n[site.cookies]\n{cookies}");
        let (_proxy, mut browser, app) = site(&rule, silent).await;
        browser.cookies.insert("sid".into(), "old".into());

        browser.post("/app/login", &[("u", "alice")]).await;

        assert_eq!(app.last().cookie("sid"), Some("new"), "{cookies}");
        assert!(browser.session().is_some(), "{cookies}");
    }
}

#[tokio::test]
async fn a_next_page_that_says_nothing_is_no_login() {
    let me = |answer: fn() -> Reply| {
        move |request: &Received| match request.path() {
            "/app/login" => Reply::redirect("/app/me"),
            "/app/me" => answer(),
            _ => Reply::text("page"),
        }
    };
    for answer in [(|| Reply::redirect("/app/home")) as fn() -> Reply, || Reply::status(500), || Reply::status(401)] {
        let (_proxy, mut browser, app) = site("user = \"form:u\"\nverify = {}", me(answer)).await;

        assert_eq!(browser.post("/app/login", &[("u", "alice")]).await.status, 302);

        assert_eq!(app.received().len(), 2, "S158: no redirect is followed");
        assert_eq!(browser.session(), None);
    }
    let (_proxy, mut browser, app) =
        site("user = \"form:u\"\nverify = {}", |_| Reply::redirect("https://evil.test/")).await;
    browser.post("/app/login", &[("u", "alice")]).await;
    assert_eq!(app.received().len(), 1, "another origin is not asked");
    assert_eq!(browser.session(), None);
}

#[tokio::test]
async fn a_failed_login_is_not_asked_about() {
    let rule =
        "user = \"form:u\"\nfailure = { status = 200 }\nsuccess = { status = 302 }\nverify = { path = \"/app/me\" }";
    let (_proxy, mut browser, app) = site(rule, |_| Reply::text("form")).await;

    browser.post("/app/login", &[("u", "alice")]).await;

    assert_eq!(app.received().len(), 1);
    assert_eq!(browser.session(), None);
}

#[tokio::test]
async fn a_page_that_everyone_gets_proves_no_login() {
    // The wrong password leads back to the form, which is there for everyone.
    let script = |request: &Received| match request.path() {
        "/app/login" if request.body.contains("right") => Reply::redirect("/home"),
        "/app/login" => Reply::redirect("/form?error=1"),
        _ => Reply::text("<form>"),
    };
    for (rule, wrong, right) in [
        ("verify = {}", false, true),
        ("verify = { path = \"/form?x\" }", false, false),
        ("verify = { path = \"/open/x\" }", false, false),
        ("verify = { path = \"/open/x\", body_contains = \"form\" }", true, true),
    ] {
        let rule = format!("user = \"form:u\"\n{rule}\n[site.access]\npublic = \"/open/*\"");
        let (_proxy, browser, _app) = site(&rule, script).await;
        for (password, expected) in [("wrong", wrong), ("right", right)] {
            let mut browser = browser.clone();
            browser.post("/app/login", &[("u", "admin"), ("p", password)]).await;
            assert_eq!(browser.session().is_some(), expected, "{rule} {password}");
        }
    }
}
