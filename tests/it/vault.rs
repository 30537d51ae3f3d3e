//! The vault as a browser's jar: what goes with which request, how long, and how much.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use tempfile::TempDir;
use vestibule::store::memory::MemoryStore;

use crate::support::Browser;
use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;

/// An application that sets what the query says, one cookie a parameter, and tells what it got.
async fn jar(cookies: &str) -> (Vestibule, Browser, Upstream) {
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/"),
        _ => {
            let query = request.target.split_once('?').map_or("", |(_, query)| query);
            let got = request.header("cookie").unwrap_or("").to_owned();
            url::form_urlencoded::parse(query.as_bytes())
                .fold(Reply::text(&got), |reply, (_, line)| reply.header("set-cookie", &line))
        }
    })
    .await;
    let (proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}\n[site.cookies]\n{cookies}")).await;
    browser.log_in("alice").await;
    (proxy, browser, app)
}

/// Has the application set these at this path.
async fn set(browser: &mut Browser, path: &str, lines: &[&str]) -> Vec<String> {
    let query: String = url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(lines.iter().map(|line| ("set", *line)))
        .finish();
    let answer = browser.fetch(&format!("{path}?{query}")).await;
    answer.set_cookies().into_iter().map(str::to_owned).collect()
}

#[tokio::test]
async fn paths_are_matched_as_browsers_do() {
    let (_proxy, mut browser, _app) = jar("mode = \"vault\"").await;
    set(&mut browser, "/a/b/page", &["default=1", "root=1; Path=/", "deep=1; Path=/a/b/page", "odd=1; Path=a"]).await;
    for (path, expected) in [
        ("/a/b/page", "deep=1; default=1; odd=1; root=1"),
        ("/a/b/page/x", "deep=1; default=1; odd=1; root=1"),
        ("/a/b/pages", "default=1; odd=1; root=1"),
        ("/a/b", "default=1; odd=1; root=1"),
        ("/a/bc", "root=1"),
        ("/", "root=1"),
    ] {
        assert_eq!(browser.fetch(path).await.body, expected, "{path}");
    }
}

#[tokio::test]
async fn domains_and_prefixes_are_judged_as_browsers_do() {
    let (_proxy, mut browser, _app) = jar("mode = \"vault\"").await;
    set(
        &mut browser,
        "/",
        &[
            "own=1; Domain=app.test; Path=/",
            "dot=1; Domain=.APP.test; Path=/",
            "above=1; Domain=test; Path=/",
            "foreign=1; Domain=other.test; Path=/",
            "below=1; Domain=x.app.test; Path=/",
            "__Host-good=1; Secure; Path=/",
            "__Host-no-path=1; Secure",
            "__Host-plain=1; Path=/",
            "__host-case=1; Path=/",
            "__Secure-good=1; Secure; Path=/",
            "__Secure-plain=1; Path=/",
        ],
    )
    .await;

    assert_eq!(browser.fetch("/").await.body, "own=1; dot=1; __Host-good=1; __Secure-good=1");
}

#[tokio::test]
async fn cookies_end_when_they_say() {
    let (proxy, mut browser, _app) = jar("mode = \"vault\"").await;
    let in_ten_minutes = "Fri, 15 Jan 2027 08:10:00 GMT"; // The clock of the tests begins at 08:00.
    set(
        &mut browser,
        "/",
        &["age=1; Max-Age=300", "both=1; Max-Age=600; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "session=1"],
    )
    .await;
    set(
        &mut browser,
        "/",
        &[&format!("date=1; Expires={in_ten_minutes}"), "past=1; Max-Age=-1", "odd=1; Max-Age=soon"],
    )
    .await;
    assert_eq!(browser.fetch("/").await.body, "age=1; both=1; session=1; date=1; odd=1");

    proxy.advance(Duration::from_secs(300));
    assert_eq!(browser.fetch("/").await.body, "both=1; session=1; date=1; odd=1");
    set(&mut browser, "/", &["session=; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "both=x; Max-Age=0"]).await;
    assert_eq!(browser.fetch("/").await.body, "date=1; odd=1");
    proxy.advance(Duration::from_secs(300));
    assert_eq!(browser.fetch("/").await.body, "odd=1");
    set(&mut browser, "/", &["odd="]).await;
    assert_eq!(browser.fetch("/").await.body, "odd=", "empty is not deleted");
}

#[tokio::test]
async fn strict_cookies_stay_at_home_when_another_site_links_here() {
    let (_proxy, mut browser, _app) = jar("mode = \"vault\"").await;
    set(&mut browser, "/", &["strict=1; SameSite=Strict", "lax=1; SameSite=Lax", "none=1"]).await;
    for (site, expected) in [
        ("cross-site", "lax=1; none=1"),
        ("same-site", "strict=1; lax=1; none=1"),
        ("same-origin", "strict=1; lax=1; none=1"),
        ("none", "strict=1; lax=1; none=1"),
    ] {
        let link = labelled("GET", "/", site, "navigate", "document").body(Full::default()).unwrap();
        assert_eq!(browser.send(link).await.body, expected, "{site}");
    }
}

#[tokio::test]
async fn a_full_vault_loses_what_was_not_used_for_longest() {
    let (proxy, mut browser, app) = jar("mode = \"vault\"").await;
    let value = "v".repeat(3000);
    for number in 0..10 {
        let path = if number == 0 { "; Path=/rare" } else { "; Path=/" };
        set(&mut browser, "/", &[&format!("c{number}={value}{path}")]).await;
        proxy.advance(Duration::from_secs(2));
    }
    assert_eq!(browser.fetch("/rare").await.body.split("; ").count(), 10);
    proxy.advance(Duration::from_secs(2));
    set(&mut browser, "/", &["small=1"]).await;

    set(&mut browser, "/", &[&format!("more={value}")]).await;

    browser.fetch("/rare").await;
    let received = app.last();
    assert_eq!(received.cookie("c0"), None, "it goes with few requests");
    assert!(received.cookie("c1").is_some() && received.cookie("more").is_some());
}

#[tokio::test]
async fn cookies_that_are_set_in_parallel_all_stay() {
    let (_proxy, browser, _app) = jar("mode = \"vault\"").await;
    let setting: Vec<_> = (0..40)
        .map(|number| {
            let mut tab = browser.clone();
            tokio::spawn(async move { set(&mut tab, "/", &[&format!("c{number}={number}")]).await })
        })
        .collect();
    for one in setting {
        assert!(one.await.unwrap().is_empty());
    }

    let got = browser.clone().fetch("/").await.body;
    assert_eq!(got.split("; ").count(), 40, "{got}");
}

#[tokio::test]
async fn cookies_on_every_kind_of_answer_are_kept() {
    let app = Upstream::start(|request| {
        let status = match request.path() {
            "/login" => return Reply::redirect("/"),
            "/304" => 304,
            "/404" => 404,
            "/500" => 500,
            "/204" => 204,
            "/206" => 206,
            _ => 200,
        };
        match request.path().strip_prefix('/') {
            Some(name @ ("304" | "404" | "500" | "204" | "206" | "head")) => {
                Reply::status(status).header("set-cookie", &format!("c{name}=1; HttpOnly; Path=/"))
            }
            _ => Reply::text(request.header("cookie").unwrap_or("")),
        }
    })
    .await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    for mut browser in [browser, proxy.browser().over_http2()] {
        browser.log_in("alice").await;
        for path in ["/304", "/404", "/500", "/204", "/206"] {
            assert!(browser.fetch(path).await.set_cookies().is_empty(), "{path}");
        }
        let head = labelled("HEAD", "/head", "same-origin", "cors", "empty").body(Full::default()).unwrap();
        assert!(browser.send(head).await.set_cookies().is_empty());

        assert_eq!(browser.fetch("/").await.body, "c304=1; c404=1; c500=1; c204=1; c206=1; chead=1");
    }
}

#[tokio::test]
async fn a_name_learned_from_one_answer_is_dropped_from_every_client() {
    let (_proxy, mut browser, app) = jar("mode = \"auto\"").await;
    browser.cookies.insert("odd_name".into(), "planted".into());
    browser.fetch("/").await;
    assert_eq!(app.last().cookie("odd_name"), Some("planted"), "nobody knows it yet");

    set(&mut browser, "/", &["odd_name=kept; HttpOnly; Path=/"]).await;
    let answer = browser.fetch("/a/b").await;

    assert_eq!(answer.body, "odd_name=kept");
    assert!(answer.set_cookies().iter().any(|line| line.starts_with("odd_name=; Path=/; Max-Age=0")), "{answer:?}");
    assert!(!browser.cookies.contains_key("odd_name"));
    set(&mut browser, "/", &["odd_name=; Max-Age=0; Path=/"]).await;
    assert_eq!(browser.fetch("/").await.body, "", "a deletion without HttpOnly reaches the vault");
}

/// An application that says which cookies it gets, and sets one that only its `HttpOnly` tells of.
fn odd(request: &Received) -> Reply {
    match request.path() {
        "/login" => Reply::redirect("/"),
        "/public/set" => Reply::text("").header("set-cookie", "odd_name=kept; HttpOnly; Path=/"),
        _ => Reply::text(request.header("cookie").unwrap_or("")),
    }
}

async fn planted(mut browser: Browser) -> String {
    browser.cookies = [("odd_name".to_owned(), "planted".to_owned())].into();
    browser.fetch("/public/x").await.body
}

#[tokio::test]
async fn a_learned_name_outlives_a_restart_and_check_prints_it() {
    let app = Upstream::start(odd).await;
    let place = TempDir::new().unwrap();
    let at = |name: &str| place.path().join(name).display().to_string();
    let text = file(&app.url(), SITE)
        .replace("memory:", &format!("file:{}", at("sessions.redb")))
        .replace("\"off\"", &format!("\"unix:{}\"", at("admin.sock")));
    let mut program = Program::start(&text).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    assert_eq!(planted(program.browser()).await, "odd_name=planted", "nobody knows it yet");
    assert!(!program.says(&["check"]).1.contains("vault ="));
    browser.fetch("/public/set").await;
    assert_eq!(planted(program.browser()).await, "");
    program.signal("TERM");
    program.ended().await;

    let program = Program::start(&text).await;

    assert_eq!(planted(program.browser()).await, "");
    let (_, said) = program.says(&["check"]);
    assert!(said.contains("write below [site.cookies]:\n  vault = [\"odd_name\"]\n"), "{said}");
}

#[tokio::test]
async fn whoever_shares_the_sessions_shares_the_names() {
    let app = Upstream::start(odd).await;
    let store = Arc::new(MemoryStore::default());
    let (one, mut browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
    let (other, _) = Vestibule::with_store(configure(&app.url(), SITE), store).await;
    browser.log_in("alice").await;
    assert_eq!(planted(other.browser()).await, "odd_name=planted");

    browser.fetch("/public/set").await;

    let mut rounds = 0;
    while !planted(other.browser()).await.is_empty() {
        assert!(rounds < 1000, "the other one never hears of it");
        rounds += 1;
        one.advance(Duration::from_secs(10));
        other.advance(Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_anonymous_visitor_keeps_what_a_public_page_sets() {
    // S22, S176, VR-37
    let app = Upstream::start(|request| {
        Reply::text(request.header("cookie").unwrap_or("")).header("set-cookie", "PHPSESSID=1; Path=/")
    })
    .await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for (mode, dest, site, begins) in [
        ("navigate", "document", "none", true),
        ("navigate", "iframe", "cross-site", true),
        ("cors", "empty", "same-origin", true),
        ("cors", "empty", "cross-site", false),
        ("no-cors", "image", "same-origin", false),
        ("no-cors", "style", "same-origin", false),
        ("no-cors", "script", "same-origin", false),
        ("cors", "font", "same-origin", false),
    ] {
        let mut browser = proxy.browser();
        let request = labelled("GET", "/public/x", site, mode, dest).body(Full::default()).unwrap();
        let answer = browser.send(request).await;
        assert_eq!(answer.set_cookies().len(), usize::from(begins), "{mode} {dest} {site}");
        assert_eq!(browser.fetch("/public/y").await.body, if begins { "PHPSESSID=1" } else { "" });
    }
}

#[tokio::test]
async fn a_network_begins_sixty_anonymous_sessions_a_minute() {
    // S176
    let app = Upstream::start(|_| Reply::text("x").header("set-cookie", "PHPSESSID=1; Path=/")).await;
    let (proxy, browser) = Vestibule::in_front_of(&app).await;
    let mut begun = 0;
    for number in 0..70u8 {
        let mut visitor = browser.clone();
        visitor.from = [127, 0, 0, number + 1].into();
        begun += visitor.get("/public/x").await.set_cookies().len();
    }
    assert_eq!(begun, 60);
    let mut elsewhere = browser.clone();
    elsewhere.from = [127, 0, 1, 1].into();
    assert_eq!(elsewhere.get("/public/x").await.set_cookies().len(), 1);

    proxy.advance(Duration::from_secs(60));

    assert_eq!(browser.clone().get("/public/x").await.set_cookies().len(), 1);
}

#[tokio::test]
async fn too_many_anonymous_sessions_push_out_the_least_recently_used() {
    // S176
    let app = Upstream::legacy().await;
    let (proxy, first) = Vestibule::with(&app, &format!("{SITE}\n[site.limits]\nanonymous_sessions = 2")).await;
    let mut visitors = [first, proxy.browser(), proxy.browser()];

    for visitor in [0, 1, 0, 2, 0, 1] {
        visitors[visitor].get("/login").await;
        proxy.advance(Duration::from_secs(2));
    }

    let received: Vec<_> = app.received().iter().map(|request| request.cookie("PHPSESSID").is_some()).collect();
    assert_eq!(received, [false, false, true, false, true, false]);
}
