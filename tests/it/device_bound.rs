//! Device-bound sessions: what is offered, how it is used, and how it ends.

use std::time::Duration;

use serde_json::Value;

use crate::support::BOUND;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::device::Device;
use crate::support::device::PREFER;
use crate::support::device::offered;
use crate::support::device::refresh;
use crate::support::device::stolen;
use crate::support::device::without_bound;
use crate::support::device::without_ours;
use crate::support::empty;
use crate::support::labelled;
use crate::support::websocket::logged_in;
use crate::support::websocket::open;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn prefer() -> String {
    format!("{SITE}{PREFER}")
}

fn require() -> String {
    prefer().replace("prefer", "require")
}

/// The browser's bound cookie, if it has one.
fn bound(browser: &crate::support::Browser) -> Option<String> {
    browser.cookies.get(BOUND).cloned()
}

#[tokio::test]
async fn a_login_offers_it_and_a_browser_registers() {
    // S10, S75
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;

    let login = browser.log_in("alice").await;

    let offer = login.header("secure-session-registration").unwrap();
    assert!(offer.starts_with("(ES256 RS256);path=\"/.vestibule/dbsc/register\";challenge=\""), "{offer}");
    assert_eq!(offered(&login, "challenge").len(), 43);
    let first = bound(&browser).expect("what the page asks for meanwhile has it already");
    assert!(!first.contains(&browser.session().unwrap()[..21]));
    let mut device = Device::new();
    let answer = device.register(&mut browser, &login).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let said: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(said["session_identifier"], device.identifier);
    assert_eq!(said["refresh_url"], "/.vestibule/dbsc/refresh");
    assert_eq!(said["scope"]["include_site"], false);
    let line = answer.set_cookies().into_iter().find(|line| line.starts_with(BOUND)).unwrap().to_owned();
    let credential = &said["credentials"][0];
    assert_eq!((&credential["type"], &credential["name"]), (&"cookie".into(), &BOUND.into()));
    for attribute in credential["attributes"].as_str().unwrap().split("; ").chain(["Max-Age=600"]) {
        assert!(line.split("; ").any(|written| written == attribute), "{attribute} in {line}");
    }
    assert!(!answer.body.contains(&browser.session().unwrap()[..21]), "it is not called by the session's ID");

    assert_eq!(browser.get("/").await.body, "private");
    let received = app.last();
    assert_eq!(received.header("x-forwarded-user"), Some("alice"));
    assert!(!received.header("cookie").unwrap_or_default().contains("__Host-"));
}

#[tokio::test]
async fn the_fields_of_the_protocol_stay_between_the_browser_and_us() {
    // S75
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("secure-session-registration", "(ES256);path=\"/theirs\""),
        _ => Reply::text("private")
            .header("secure-session-challenge", "\"theirs\"")
            .header("secure-session-registration", "(ES256);path=\"/theirs\"")
            .header("set-cookie", "__Host-session-bound=theirs; Secure; Path=/"),
    })
    .await;
    for site in [SITE.to_owned(), prefer()] {
        let (_proxy, mut browser) = Vestibule::with(&app, &site).await;
        let login = browser.log_in("alice").await;
        assert!(!login.header("secure-session-registration").unwrap_or_default().contains("theirs"));
        let before = bound(&browser);

        let request = labelled("GET", "/", "same-origin", "cors", "empty")
            .header("secure-session-response", "x")
            .header("secure-session-skipped", "unreachable")
            .header("sec-secure-session-id", "x");
        let answer = browser.send(empty(request)).await;

        assert_eq!(answer.body, "private");
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("secure-session")), "{answer:?}");
        assert_eq!(bound(&browser), before, "reserved like the session's");
        let received = app.last();
        assert!(received.headers.keys().all(|name| !name.as_str().contains("secure-session")));
    }
}

#[tokio::test]
async fn nothing_is_offered_when_it_is_off() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;

    let login = browser.log_in("alice").await;

    assert_eq!((login.header("secure-session-registration"), bound(&browser)), (None, None));
    assert_eq!(browser.send(refresh("x", None)).await.status, 404);
}

#[tokio::test]
async fn a_copied_session_cookie_is_no_session() {
    // S61
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    Device::logged_in(&mut browser, "alice").await;
    let seen = app.received().len();

    let mut thief = stolen(&browser);
    assert_eq!(thief.fetch("/").await.status, 401);
    assert_eq!(thief.fetch("/.vestibule/session").await.status, 401);
    assert_eq!(thief.clone().post("/transfer", &[("to", "thief")]).await.location(), "/login");
    assert_eq!(thief.image("/x.png").await.status, 401);
    assert_eq!(thief.get("/").await.location(), "/login", "from a page of the site");
    let skipped = labelled("GET", "/", "same-origin", "cors", "empty")
        .header("secure-session-skipped", "unreachable;session_identifier=\"x\"");
    assert_eq!(thief.send(empty(skipped)).await.status, 503, "what a browser says of itself is no proof");

    assert_eq!(app.received().len(), seen, "nothing of it reached the application");
    assert!(thief.session().is_some(), "the session goes on");
    assert_eq!(browser.get("/").await.body, "private");
}

#[tokio::test]
async fn a_bound_cookie_is_good_for_its_session_only() {
    // S61
    let app = Upstream::legacy().await;
    let (_proxy, mut alice) = Vestibule::with(&app, &prefer()).await;
    let mut bob = alice.clone();
    Device::logged_in(&mut alice, "alice").await;
    Device::logged_in(&mut bob, "bob").await;

    for forged in [bound(&bob).unwrap(), "x".to_owned(), String::new()] {
        let mut thief = stolen(&alice);
        thief.cookies.insert(BOUND.to_owned(), forged);
        assert_eq!(thief.fetch("/").await.status, 401);
        assert_eq!(bound(&thief), None, "with it no browser would refresh");
    }
}

#[tokio::test]
async fn no_websocket_opens_without_the_bound_cookie() {
    // S61
    let (_app, _proxy, mut browser) = logged_in(&prefer()).await;
    Device::logged_in(&mut browser, "alice").await;

    assert!(open(&stolen(&browser), "/ws", &[]).await.is_err());
    assert!(open(&browser, "/ws", &[]).await.is_ok());
}

#[tokio::test]
async fn a_refresh_gives_a_new_bound_cookie_and_rotates_the_id() {
    // S61, S32
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let (session, first) = (browser.session().unwrap(), bound(&browser).unwrap());
    proxy.advance(600 * SECOND + 29 * SECOND);
    assert_eq!(browser.clone().fetch("/").await.status, 200, "a grace for what is under way");
    proxy.advance(SECOND);
    assert_eq!(browser.clone().fetch("/").await.status, 401);
    let mut browser = without_bound(&browser);

    let answer = device.refresh(&mut browser).await;

    assert_eq!(answer.status, 200);
    assert_ne!(bound(&browser).unwrap(), first);
    assert_ne!(browser.session().unwrap(), session, "this is the periodic rotation");
    assert_eq!(browser.session().unwrap()[..21], session[..21]);
    assert_eq!(browser.get("/").await.body, "private");
    for _ in 0..5 {
        proxy.advance(10 * MINUTE);
        assert_eq!(device.refresh(&mut browser).await.status, 200);
        assert_eq!(browser.get("/").await.body, "private");
    }
    assert_ne!(browser.session().unwrap(), session);
}

#[tokio::test]
async fn an_id_that_was_rotated_by_a_refresh_retires_as_any_other() {
    // S35
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let first = browser.session().unwrap();
    proxy.advance(5 * MINUTE);

    device.refresh(&mut browser).await;

    let mut late = browser.clone();
    late.cookies.insert(crate::support::OURS.to_owned(), first.clone());
    assert_eq!(late.clone().fetch("/").await.status, 200, "until the successor is used");
    assert_eq!(browser.fetch("/").await.status, 200);
    proxy.advance(31 * SECOND);
    assert_eq!(late.fetch("/").await.status, 401);
}

#[tokio::test]
async fn rotation_that_is_off_stays_off() {
    let app = Upstream::legacy().await;
    let site = format!("{}rotate_every = \"off\"\n", prefer());
    let (proxy, mut browser) = Vestibule::with(&app, &site).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let session = browser.session();
    proxy.advance(9 * MINUTE);

    assert_eq!(device.refresh(&mut browser).await.status, 200);

    assert_eq!(browser.session(), session);
}

#[tokio::test]
async fn a_refresh_needs_none_of_our_cookies() {
    // As Chromium refreshes when another site asks for the page: it sends no Lax cookies then.
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let device = Device::logged_in(&mut browser, "alice").await;
    proxy.advance(10 * MINUTE + 31 * SECOND);
    let mut request = refresh(&device.identifier, Some(&device.proof(&device.challenge)));
    request.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    request.headers_mut().insert("origin", "https://evil.test".parse().unwrap());
    let mut from_elsewhere = without_ours(&browser);

    let answer = from_elsewhere.send(request).await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.ours(), None, "nothing is rotated for who does not present it");
    browser.cookies.insert(BOUND.to_owned(), bound(&from_elsewhere).unwrap());
    assert_eq!(browser.fetch("/").await.status, 200);
}

#[tokio::test]
async fn a_link_from_outside_leads_to_a_page_that_tries_again() {
    // Browsers do not refresh before what another site asks for.
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let mut browser = without_bound(&browser);
    let seen = app.received().len();
    for site in ["cross-site", "same-site", "none"] {
        let link = labelled("GET", "/inbox?m=1", site, "navigate", "document");

        let page = browser.send(empty(link)).await;

        assert_eq!((page.status.as_u16(), page.header("cache-control")), (200, Some("no-store")), "{site}");
        assert!(page.body.contains("location.reload()") && page.body.contains("href=\"/login\""), "{}", page.body);
        assert!(
            page.headers
                .get_all("content-security-policy")
                .iter()
                .any(|policy| policy.to_str().unwrap().contains("default-src 'none'"))
        );
    }
    let form = labelled("POST", "/", "cross-site", "navigate", "document");
    assert_eq!(browser.send(empty(form)).await.status, 403);
    assert_eq!(app.received().len(), seen);
    device.refresh(&mut browser).await;
    assert_eq!(browser.get("/inbox?m=1").await.body, "private");
}

#[tokio::test]
async fn the_script_of_that_page_is_the_one_that_its_policy_names() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    Device::logged_in(&mut browser, "alice").await;

    let page = without_bound(&browser).send(empty(labelled("GET", "/", "cross-site", "navigate", "document"))).await;

    let script = page.body.split_once("<script>").unwrap().1.split_once("</script>").unwrap().0;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, script.as_bytes());
    let hash = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, digest);
    let policy = page.headers.get_all("content-security-policy").iter().next().unwrap();
    assert!(policy.to_str().unwrap().contains(&format!("script-src 'sha256-{hash}'")));
}

#[tokio::test]
async fn a_session_without_proof_is_not_replaced_by_another() {
    // A public page that sets a cookie would begin an anonymous session, and its cookie end the login.
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/"),
        _ => Reply::text("page").header("set-cookie", "PHPSESSID=new; HttpOnly; Path=/"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    Device::logged_in(&mut browser, "alice").await;
    browser.get("/").await;
    let mut from_outside = without_bound(&browser);

    let answer = from_outside.send(empty(labelled("GET", "/public/x", "cross-site", "navigate", "document"))).await;

    assert_eq!((answer.body.as_str(), answer.set_cookies()), ("page", Vec::<&str>::new()));
    let received = app.last();
    assert_eq!((received.header("cookie"), received.header("x-forwarded-user")), (None, None));
    assert_eq!(browser.get("/").await.body, "page");
    assert_eq!(app.last().cookie("PHPSESSID"), Some("new"));
}

#[tokio::test]
async fn a_login_takes_nothing_of_a_session_without_proof() {
    // S26, S61
    let app = Upstream::start(|request| match (request.method.as_str(), request.path()) {
        ("POST", "/login") => Reply::redirect("/"),
        _ => Reply::text("page").header("set-cookie", "remember=alices; HttpOnly; Path=/"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    Device::logged_in(&mut browser, "alice").await;
    browser.get("/").await;

    let mut thief = stolen(&browser);
    thief.log_in("alice").await;
    thief.get("/").await;

    assert_eq!(app.last().cookie("remember"), None);
    assert_eq!(browser.fetch("/").await.status, 401, "whatever was presented is dead after a login");
}

#[tokio::test]
async fn a_logout_ends_it_for_good() {
    // S40, S61
    let app = Upstream::legacy().await;
    for path in ["/logout", "/.vestibule/logout"] {
        let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
        let mut device = Device::logged_in(&mut browser, "alice").await;
        let mut before = browser.clone();

        let answer = browser.post(path, &[]).await;

        assert_eq!(answer.header("clear-site-data"), Some("\"storage\""), "with it browsers forget the key");
        assert_eq!((browser.session(), bound(&browser)), (None, None), "{path}");
        assert_eq!(before.fetch("/").await.status, 401);
        for _ in 0..2 {
            let refreshed = device.refresh(&mut before).await;
            assert_eq!((refreshed.status.as_u16(), refreshed.set_cookies()), (401, Vec::new()));
        }
        assert_eq!(before.fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn a_logout_needs_no_proof() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    Device::logged_in(&mut browser, "alice").await;

    without_bound(&browser).post("/logout", &[]).await;

    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_logout_wins_against_refreshes_at_the_same_time() {
    // S40
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let device = Device::logged_in(&mut browser, "alice").await;
    let (identifier, proof) = (device.identifier.clone(), device.proof(&device.challenge));
    let refreshing: Vec<_> = (0..10)
        .map(|_| {
            let (mut tab, request) = (browser.clone(), refresh(&identifier, Some(&proof)));
            tokio::spawn(async move {
                tab.send(request).await;
                tab
            })
        })
        .collect();

    browser.post("/logout", &[]).await;

    for tab in refreshing {
        assert_eq!(tab.await.unwrap().fetch("/").await.status, 401);
    }
    assert_eq!(browser.send(refresh(&identifier, Some(&proof))).await.status, 401);
}

#[tokio::test]
async fn limits_end_it_whatever_is_proven() {
    // S36, S37, S61
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    proxy.advance(29 * MINUTE);
    assert_eq!(device.refresh(&mut browser).await.status, 200);
    proxy.advance(MINUTE);
    assert_eq!(device.refresh(&mut browser).await.status, 401, "a refresh is no activity");

    let mut browser = proxy.browser();
    let mut device = Device::logged_in(&mut browser, "alice").await;
    for _ in 0..23 {
        proxy.advance(20 * MINUTE);
        assert_eq!(device.refresh(&mut browser).await.status, 200);
        assert_eq!(browser.fetch("/").await.status, 200);
    }
    proxy.advance(20 * MINUTE);
    assert_eq!(device.refresh(&mut browser).await.status, 401, "eight hours after the login");
}

#[tokio::test]
async fn a_browser_that_cannot_is_not_bound_unless_it_has_to_be() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    browser.log_in("alice").await;
    proxy.advance(20 * MINUTE);
    assert_eq!(without_bound(&browser).get("/").await.body, "private");

    let (proxy, mut browser) = Vestibule::with(&app, &require()).await;
    browser.log_in("alice").await;
    proxy.advance(59 * SECOND);
    assert_eq!(browser.get("/").await.body, "private");
    proxy.advance(SECOND);
    assert_eq!(browser.get("/").await.location(), "/login");

    let mut device = Device::logged_in(&mut browser, "alice").await;
    proxy.advance(15 * MINUTE);
    assert_eq!(device.refresh(&mut browser).await.status, 200);
    assert_eq!(browser.get("/").await.body, "private");
}

#[tokio::test]
async fn what_is_bound_stays_so_until_it_is_switched_off() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    Device::logged_in(&mut browser, "alice").await;

    proxy.reload(&require());
    assert_eq!(stolen(&browser).fetch("/").await.status, 401);
    assert_eq!(browser.fetch("/").await.status, 200);
    proxy.reload(SITE);
    assert_eq!(stolen(&browser).fetch("/").await.status, 200);
}

#[tokio::test]
async fn it_works_over_http2_and_with_a_strict_cookie() {
    let app = Upstream::legacy().await;
    let site = format!("{}same_site = \"strict\"\n", prefer());
    let (proxy, browser) = Vestibule::with(&app, &site).await;
    let mut browser = browser.over_http2();
    let mut device = Device::logged_in(&mut browser, "alice").await;
    proxy.advance(11 * MINUTE);

    let answer = device.refresh(&mut browser).await;

    assert!(answer.body.contains("SameSite=Strict"), "{}", answer.body);
    assert!(answer.set_cookies().iter().all(|line| line.contains("SameSite=Strict")));
    assert_eq!(browser.fetch("/").await.status, 200);
}
