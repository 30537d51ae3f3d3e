//! Device-bound sessions when somebody is in the browser's way, or something is lost on it.

use std::time::Duration;

use serde_json::json;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::device::Device;
use crate::support::device::PREFER;
use crate::support::device::offered;
use crate::support::device::refresh;
use crate::support::device::register;
use crate::support::device::stolen;
use crate::support::device::without_bound;
use crate::support::empty;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::vestibule_at;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::next;
use crate::support::websocket::open;

const MINUTE: Duration = Duration::from_secs(60);

fn prefer() -> String {
    format!("{SITE}{PREFER}")
}

#[tokio::test]
async fn who_has_not_seen_the_offer_does_not_keep_the_browser_from_registering() {
    // S63
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let login = browser.log_in("alice").await;
    let (mut thief, mut device) = (stolen(&browser), Device::new());
    let claims = json!({ "jti": offered(&login, "challenge"), "authorization": "guessed" });
    let guess = Device::new().token(&Device::new().with_key(), &claims);
    for _ in 0..40 {
        assert_eq!(thief.send(register(&guess)).await.status, 403);
    }

    assert_eq!(device.register(&mut browser, &login).await.status, 200);

    assert_eq!(thief.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_script_of_the_page_registers_no_key() {
    // S63
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let login = browser.log_in("alice").await;
    for mode in ["cors", "same-origin"] {
        let mut request = register(&Device::new().registration(&login));
        request.headers_mut().insert("sec-fetch-mode", mode.parse().unwrap());

        assert_eq!(browser.send(request).await.status, 403, "{mode}");
    }

    assert_eq!(Device::new().register(&mut browser, &login).await.status, 200);
}

#[tokio::test]
async fn a_registration_whose_answer_was_lost_is_answered_again() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let login = browser.log_in("alice").await;
    let mut device = Device::new();
    let first = device.register(&mut browser, &login).await;

    let again = device.register(&mut browser, &login).await;

    assert_eq!((again.status.as_u16(), &again.body), (200, &first.body));
    assert_eq!(browser.send(register(&Device::new().registration(&login))).await.status, 403, "another key");
    assert_eq!(device.refresh(&mut browser).await.status, 200);
    proxy.advance(MINUTE);
    assert_eq!(device.register(&mut browser, &login).await.status, 403, "for a minute");
}

#[tokio::test]
async fn a_binding_that_was_lost_is_made_good_by_a_refresh() {
    // S61
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let proxy = vestibule_at(&redis.url(), "", &app, &prefer()).await;
    let mut browser = proxy.browser();
    let login = browser.log_in("alice").await;
    let record = redis.records().pop().unwrap();
    redis.say(&["COPY", &record, "before"]);
    let mut device = Device::new();
    assert_eq!(device.register(&mut browser, &login).await.status, 200);
    redis.say(&["COPY", "before", &record, "REPLACE"]);
    // What knows nothing of the loss has not read the record before.
    let proxy = vestibule_at(&redis.url(), "", &app, &prefer()).await;
    let mut there = proxy.browser();
    there.cookies = browser.cookies;
    assert_eq!(stolen(&there).fetch("/").await.status, 200, "the write that binds it is lost");

    assert_eq!(device.refresh(&mut there).await.status, 200);

    assert_eq!(stolen(&there).fetch("/").await.status, 401);
    assert_eq!(there.fetch("/").await.status, 200);
}

#[tokio::test]
async fn a_registration_ends_what_was_opened_without_the_bound_cookie() {
    // S61
    let app = EchoApp::start().await;
    let (_proxy, mut browser) = Vestibule::with(&app.upstream, &prefer()).await;
    let login = browser.log_in("alice").await;
    let (mut thiefs, _) = open(&stolen(&browser), "/ws", &[]).await.unwrap();
    let (mut own, _) = open(&browser, "/ws", &[]).await.unwrap();
    assert!(echoed(&mut thiefs, "one").await && echoed(&mut own, "one").await);

    assert_eq!(Device::new().register(&mut browser, &login).await.status, 200);

    assert!(next(&mut thiefs).await.is_ok_and(|message| message.is_close()));
    assert!(echoed(&mut own, "two").await, "it was opened with the cookie");
    browser.post("/.vestibule/logout", &[]).await;
    assert!(next(&mut own).await.is_ok_and(|message| message.is_close()), "it ends with the session (S46)");
}

#[tokio::test]
async fn browsers_keep_their_keys_while_it_is_off() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let mut other = proxy.browser();
    let login = other.log_in("bob").await;

    proxy.reload(SITE);

    assert_eq!(device.refresh(&mut browser).await.status, 200);
    assert_eq!(Device::new().register(&mut other, &login).await.status, 200, "another node offered it");
    proxy.reload(&prefer());
    assert_eq!(browser.fetch("/").await.status, 200);
    for copied in [stolen(&browser), stolen(&other)] {
        assert_eq!(copied.clone().fetch("/").await.status, 401);
    }
}

#[tokio::test]
async fn who_cannot_prove_it_for_now_waits_and_gets_nothing() {
    // S61, S63: browsers say so, and anybody else may.
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), &prefer())).await;
    let mut browser = program.browser();
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let mut waiting = without_bound(&browser);
    let asks = |method, path, mode, word| {
        let destination = if mode == "navigate" { "document" } else { "empty" };
        let request = labelled(method, path, "same-origin", mode, destination);
        empty(request.header("secure-session-skipped", format!("{word};session_identifier=\"x\"")))
    };
    let seen = app.received().len();
    for word in ["quota_exceeded", "unreachable", "server_error"] {
        for (method, path, mode) in [
            ("GET", "/inbox", "navigate"),
            ("POST", "/save", "navigate"),
            ("GET", "/script", "cors"),
            ("GET", "/.vestibule/session", "cors"),
        ] {
            let answer = waiting.send(asks(method, path, mode, word)).await;

            assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("60")), "{method} {path}");
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            let kind = if mode == "navigate" { "text/html; charset=utf-8" } else { "application/problem+json" };
            assert_eq!(answer.header("content-type"), Some(kind));
            assert_eq!(answer.body.contains("href=\"/login\""), mode == "navigate", "{}", answer.body);
            assert!(answer.set_cookies().is_empty(), "{answer:?}");
        }
    }
    assert_eq!(app.received().len(), seen);
    assert_eq!(waiting.send(asks("GET", "/script", "cors", "whatever")).await.status, 401, "no word of a browser");
    assert_eq!(program.browser().send(asks("GET", "/script", "cors", "unreachable")).await.status, 401, "no session");
    assert_eq!(waiting.send(asks("GET", "/public/x", "cors", "unreachable")).await.status, 200);

    assert_eq!(device.refresh(&mut waiting).await.status, 200);

    assert_eq!(waiting.fetch("/").await.status, 200);
    program.answered(19).await;
    let skipped: Vec<_> = program.events("device.skipped").iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(skipped, [json!("quota_exceeded"), json!("unreachable"), json!("server_error")], "each once");
    let refused = program.events("session.refused");
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!((&refused[0]["reason"], &refused[0]["level"]), (&json!("device"), &json!("warn")));
}

#[tokio::test]
async fn the_log_tells_of_each_refusal_once() {
    // S60, S159
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), &prefer())).await;
    let mut browser = program.browser();
    let device = Device::logged_in(&mut browser, "alice").await;
    let garbage = Device::new().proof(&device.challenge);
    for _ in 0..5 {
        browser.send(refresh("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Some(&garbage))).await;
        browser.send(refresh("x", Some(&garbage))).await;
        browser.send(refresh(&device.identifier, Some(&garbage))).await;
        program.browser().send(register(&garbage)).await;
        let link = labelled("GET", "/", "cross-site", "navigate", "document");
        assert_eq!(stolen(&browser).send(empty(link)).await.status, 200);
    }
    assert_eq!(stolen(&browser).fetch("/").await.status, 401);

    program.answered(28).await;
    let refused: Vec<_> = program.events("device.refused").iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(refused, [json!("signature")]);
    let sessions = program.events("session.refused");
    let sessions: Vec<_> = sessions.iter().map(|line| (line["reason"].clone(), line["level"].clone())).collect();
    assert_eq!(sessions, [(json!("device"), json!("info")), (json!("device"), json!("warn"))]);
}
