//! Device-bound sessions wherever sessions are kept, and when that place is silent.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;

use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::device::Device;
use crate::support::device::PREFER;
use crate::support::device::refresh;
use crate::support::device::stolen;
use crate::support::device::without_ours;
use crate::support::file;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::vestibule_at;

const MINUTE: Duration = Duration::from_secs(60);

fn prefer() -> String {
    format!("{SITE}{PREFER}")
}

fn moved(browser: &Browser, to: &Vestibule) -> Browser {
    let mut moved = to.browser();
    moved.cookies = browser.cookies.clone();
    moved
}

#[tokio::test]
async fn nodes_that_share_a_redis_share_devices() {
    // S61, S62, S63
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let one = vestibule_at(&redis.url(), "", &app, &prefer()).await;
    let two = vestibule_at(&redis.url(), "", &app, &prefer()).await;
    let mut here = one.browser();
    let login = here.log_in("alice").await;
    let there = moved(&here, &two);
    assert_eq!(stolen(&there).fetch("/").await.status, 200, "known to both before it is bound");
    let mut device = Device::new();
    assert_eq!(device.register(&mut here, &login).await.status, 200);
    let mut there = moved(&here, &two);

    assert_eq!(Device::new().register(&mut there, &login).await.status, 403);
    let mut thief = stolen(&there);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while thief.fetch("/").await.status != 401 {
        assert!(std::time::Instant::now() < deadline, "never bound at the other node");
    }
    assert_eq!(there.fetch("/").await.status, 200);
    one.advance(9 * MINUTE);
    two.advance(9 * MINUTE);
    let proof = device.proof(&device.challenge);
    assert_eq!(device.refresh(&mut there).await.status, 200, "registered here, refreshed there");
    let mut here = moved(&there, &one);
    assert_eq!(here.fetch("/").await.status, 200);
    assert_eq!(here.send(refresh(&device.identifier, Some(&proof))).await.status, 200, "a repeated proof");
    assert_eq!(device.refresh(&mut here).await.status, 200);
    for key in redis.say(&["KEYS", "*"]).lines().filter(|key| !key.is_empty()) {
        let value = redis.say(&["DUMP", key]);
        assert!(!value.contains(&device.identifier) && !key.contains(&device.identifier), "S18");
    }

    there.post("/logout", &[]).await;

    assert_eq!(device.refresh(&mut without_ours(&here)).await.status, 401);
    assert_eq!(here.fetch("/").await.status, 401);
}

#[tokio::test]
async fn who_takes_the_key_away_ends_it_and_frees_nothing() {
    // S184
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let proxy = vestibule_at(&redis.url(), "", &app, &prefer()).await;
    let mut browser = proxy.browser();
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let sessions = redis.records();

    for key in redis.say(&["KEYS", "vestibule:*"]).lines() {
        let is_value = redis.say(&["TYPE", key]) != "zset" && redis.say(&["TYPE", key]) != "set";
        if is_value && !sessions.iter().any(|session| session == key) {
            redis.say(&["DEL", key]);
        }
    }

    assert_eq!(device.refresh(&mut browser).await.status, 401);
    assert_eq!(stolen(&browser).fetch("/").await.status, 401);
}

#[tokio::test]
async fn it_outlives_a_restart() {
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let url = format!("url = \"file:{}\"", place.path().join("sessions.redb").display());
    let text = file(&app.url(), &prefer()).replace("url = \"memory:\"", &url);
    let mut program = Program::start(&text).await;
    let mut browser = program.browser();
    let mut device = Device::logged_in(&mut browser, "alice").await;
    program.signal("TERM");
    program.ended().await;

    let program = Program::start(&text).await;

    let mut again = program.browser();
    again.cookies = browser.cookies;
    assert_eq!(stolen(&again).fetch("/").await.status, 401);
    assert_eq!(again.fetch("/").await.status, 200);
    assert_eq!(device.refresh(&mut again).await.status, 200);
}

#[tokio::test]
async fn a_silent_store_is_not_no_session() {
    // VR-34: browsers keep a session that they could not refresh for a 503, and give it up for a 401.
    let (app, store) = (Upstream::legacy().await, BrokenStore::new());
    let config = configure(&app.url(), &prefer());
    let (_proxy, mut browser) = Vestibule::with_store(config, Arc::<BrokenStore>::clone(&store)).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;

    store.fails();

    assert_eq!(device.refresh(&mut without_ours(&browser)).await.status, 503);
    store.works();
    assert_eq!(device.refresh(&mut browser).await.status, 200);
}
