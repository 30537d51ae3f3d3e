//! A copied ID that is used after it has retired: the session ends, for the thief and for its owner.

use std::time::Duration;

use serde_json::Value;

use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::eventually_refused;
use crate::support::file;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::stored_at;
use crate::support::redis::vestibule_at;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::next;
use crate::support::websocket::open;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// Loads pages until the ID has changed and the new one is in use; returns the old one.
async fn rotated(proxy: &Vestibule, browser: &mut Browser) -> String {
    let old = browser.session().unwrap();
    proxy.advance(15 * MINUTE);
    browser.get("/").await;
    assert_ne!(browser.session().unwrap(), old);
    assert_eq!(browser.get("/").await.status, 200);
    old
}

#[tokio::test]
async fn an_id_that_is_used_after_it_retired_ends_the_session_for_everyone() {
    // S35, S46
    let app = EchoApp::start().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app.upstream).await;
    browser.log_in("alice").await;
    let old = rotated(&proxy, &mut browser).await;
    let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();
    assert!(echoed(&mut socket, "hello").await);
    proxy.advance(30 * SECOND);

    let mut thief = browser.with_session(&old);
    assert_eq!(thief.fetch("/").await.status, 401);

    let end = tokio::time::timeout(4 * SECOND, next(&mut socket)).await;
    assert!(end.expect("still open").unwrap().is_close());
    let refused = browser.get("/").await;
    assert_eq!((refused.status.as_u16(), refused.ours()), (303, None));
    browser.log_in("alice").await;
    assert_eq!(browser.get("/").await.status, 200);
}

#[tokio::test]
async fn the_owner_of_a_session_that_ended_so_is_a_visitor_like_any_other() {
    // No tombstone: a login page that needs a cookie of its own gets one at once.
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let old = rotated(&proxy, &mut browser).await;
    proxy.advance(30 * SECOND);
    browser.with_session(&old).fetch("/").await;
    let dead = browser.session().unwrap();

    browser.get("/login").await;

    assert_ne!(browser.session().unwrap()[..21], dead[..21]);
    browser.get("/login").await;
    assert!(app.last().cookie("PHPSESSID").is_some());
}

#[tokio::test]
async fn what_has_retired_ends_the_session_from_anywhere_and_what_has_not_does_not() {
    // S35, S56
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let old = rotated(&proxy, &mut browser).await;
    proxy.advance(30 * SECOND);
    let mut thief = browser.clone();
    thief.from = [127, 0, 9, 1].into();
    assert_eq!(thief.fetch("/").await.status, 401);
    assert_eq!(browser.fetch("/").await.status, 200, "a replay of the valid one is refused, no more");

    assert_eq!(thief.with_session(&old).fetch("/").await.status, 401);

    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn an_id_that_nobody_was_given_ends_the_session_it_belongs_to() {
    // Who knows the selector has, or had, the cookie.
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut forged = browser.session().unwrap();
    forged.replace_range(30..32, if &forged[30..32] == "AA" { "BB" } else { "AA" });

    assert_eq!(browser.with_session(&forged).fetch("/").await.status, 401);

    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_slow_request_that_began_with_the_old_id_harms_nobody() {
    let hold = std::sync::Arc::new(tokio::sync::Notify::new());
    let held = std::sync::Arc::clone(&hold);
    let app = Upstream::start(move |request| match request.path() {
        "/login" => Reply::redirect("/"),
        "/slow" => Reply::text("slow").held(&held),
        _ => Reply::text("page"),
    })
    .await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let mut tab = browser.clone();
    let slow = tokio::spawn(async move { tab.get("/slow").await });
    crate::support::eventually("it arrives", || app.last().path() == "/slow").await;
    rotated(&proxy, &mut browser).await;
    rotated(&proxy, &mut browser).await;

    hold.notify_one();
    let answer = slow.await.unwrap();

    assert_eq!((answer.body.as_str(), answer.ours()), ("slow", None), "and it sets no cookie of the past");
    assert_eq!(browser.get("/").await.body, "page");
}

#[tokio::test]
async fn a_store_that_is_silent_ends_nothing_and_lets_nobody_in() {
    // S186
    let (app, store) = (Upstream::legacy().await, BrokenStore::new());
    let (proxy, mut browser) = Vestibule::with_store(configure(&app.url(), SITE), store.clone()).await;
    browser.log_in("alice").await;
    let old = rotated(&proxy, &mut browser).await;
    proxy.advance(30 * SECOND);
    let mut thief = browser.with_session(&old);

    store.keeps_everything();
    assert_eq!(thief.fetch("/").await.status, 503);
    store.works();
    assert_eq!(browser.fetch("/").await.status, 200);

    assert_eq!(thief.fetch("/").await.status, 401);
    assert_eq!(browser.fetch("/").await.status, 401);
}

#[tokio::test]
async fn a_copy_is_told_also_when_the_store_fails_while_the_session_is_ended() {
    // S35, S159: the end may have been carried out, and nobody else would say why.
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let program = Program::start(&stored_at(&redis.url(), "", &app, SITE)).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    let mut forged = browser.session().unwrap();
    forged.replace_range(30..32, if &forged[30..32] == "AA" { "BB" } else { "AA" });
    redis.say(&["ACL", "SETUSER", "default", "-evalsha"]);

    assert_eq!(browser.with_session(&forged).fetch("/").await.status, 503);

    let refused = program.event("session.refused").await;
    let said = ["reason", "user"].map(|name| refused[name].as_str().unwrap());
    assert_eq!(said, ["reuse", "alice"]);
}

#[tokio::test]
async fn what_is_open_on_another_node_closes_at_its_next_look() {
    // S35, S46
    let (app, redis) = (EchoApp::start().await, Redis::start());
    let one = vestibule_at(&redis.url(), "", &app.upstream, SITE).await;
    let two = vestibule_at(&redis.url(), "", &app.upstream, SITE).await;
    let mut browser = one.browser();
    browser.log_in("alice").await;
    let old = rotated(&one, &mut browser).await;
    one.advance(30 * SECOND);
    two.advance(15 * MINUTE + 30 * SECOND);
    let mut there = two.browser();
    there.cookies = browser.cookies.clone();
    let (mut socket, _) = open(&there, "/ws", &[]).await.unwrap();
    assert!(echoed(&mut socket, "hello").await);

    assert_eq!(browser.with_session(&old).fetch("/").await.status, 401);
    eventually_refused(&there).await;

    // The clock of a test stands still; a node looks every half second.
    two.advance(Duration::from_millis(500));
    let end = tokio::time::timeout(4 * SECOND, next(&mut socket)).await;
    assert!(end.expect("still open").unwrap().is_close());
    assert_eq!(redis.records(), Vec::<String>::new(), "and no tombstone");
}

/// Rotates soon.
fn soon(more: &str) -> String {
    format!("{SITE}\n[site.session]\nrotate_every = \"1s\"\nrotation_grace = \"100ms\"\n{more}\n")
}

async fn successor(browser: &mut Browser) -> String {
    let first = browser.session().unwrap();
    while browser.session().unwrap() == first {
        tokio::time::sleep(Duration::from_millis(50)).await;
        browser.fetch("/").await;
    }
    first
}

#[tokio::test]
async fn the_log_names_both_clients() {
    // S35, S159
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), &soon(""))).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    let session = program.event("session.authenticated").await["session"].clone();
    let old = successor(&mut browser).await;
    browser.fetch("/").await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut thief = browser.with_session(&old);
    thief.from = [127, 0, 9, 1].into();
    thief.user_agent = "Thief/2.0".into();
    thief.fetch("/").await;

    let refused = program.event("session.refused").await;
    let said = ["level", "reason", "client", "holder", "changed", "user"].map(|name| refused[name].as_str().unwrap());
    assert_eq!(said, ["warn", "reuse", "127.0.9.1", "127.0.0.1", "address user-agent", "alice"]);
    assert_eq!(refused["session"], session);
    let ended = program.event("session.ended").await;
    assert_eq!((ended["reason"].as_str(), &ended["session"]), (Some("reuse"), &session));
    assert_eq!(ended["request_id"], refused["request_id"]);
}

#[tokio::test]
async fn a_new_id_that_two_clients_are_handed_is_told_once() {
    // Product 3.2, over two nodes.
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let text = stored_at(&redis.url(), "", &app, &soon("on_mismatch = \"log\""));
    let programs = [Program::start(&text).await, Program::start(&text).await];
    let mut browser = programs[0].browser();
    browser.log_in("alice").await;
    let first = browser.session().unwrap();
    let mut elsewhere = programs[1].browser().with_session(&first);
    elsewhere.from = [127, 0, 9, 1].into();
    let mut other = programs[0].browser().with_session(&first);
    other.user_agent = "Other/2.0".into();
    successor(&mut browser).await;

    for _ in 0..2 {
        for client in [&elsewhere, &other, &programs[0].browser().with_session(&first)] {
            let mut client = client.clone();
            client.fetch("/").await;
            assert_eq!(client.session(), browser.session(), "all get the same one");
        }
    }

    programs[1].answered(2).await;
    let told: Vec<Value> = programs.iter().flat_map(|program| program.events("session.shared")).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    let said = ["level", "client", "holder", "changed", "user"].map(|name| told[0][name].as_str().unwrap());
    assert_eq!(said, ["warn", "127.0.9.1", "127.0.0.1", "address", "alice"]);
}
