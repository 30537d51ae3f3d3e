//! A Redis that is gone, silent, empty or full: nobody gets in without a session, nobody loses one that is
//! still there, and nothing has to be started again.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use tokio::task::JoinHandle;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::free_port;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::stored_at;
use crate::support::redis::vestibule_at;

async fn logged_in() -> (Upstream, Redis, Vestibule, Browser) {
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let proxy = vestibule_at(&redis.url(), "", &app, SITE).await;
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    (app, redis, proxy, browser)
}

fn assert_unavailable(answer: &Answer) {
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("5")));
    assert!(answer.set_cookies().is_empty(), "the cookie is left alone: {answer:?}");
}

/// Waits until the session cannot be used: what was known before holds for a second.
async fn fails(browser: &Browser) {
    let gone = Instant::now();
    while browser.clone().fetch("/").await.status != 503 {
        assert!(gone.elapsed() < Duration::from_secs(15), "a Redis that does not answer is believed");
    }
}

/// Waits until the session is usable again; every other answer until then is a 503.
async fn recovers(browser: &Browser) {
    eventually_so("it is usable again", async || {
        let answer = browser.clone().fetch("/").await;
        if answer.status != 200 {
            assert_unavailable(&answer);
        }
        answer.status == 200
    })
    .await;
}

#[tokio::test]
async fn a_redis_that_is_gone_is_a_503_and_comes_back() {
    // S21, S167, VR-33, VR-34
    let (app, mut redis, proxy, browser) = logged_in().await;
    assert_eq!(browser.clone().fetch("/").await.status, 200);
    redis.kill();

    fails(&browser).await;
    for path in ["/", "/public/x", "/logout", "/.vestibule/session"] {
        assert_unavailable(&browser.clone().fetch(path).await);
    }
    let mut stranger = proxy.browser();
    assert_eq!(stranger.fetch("/public/x").await.status, 200, "strangers see what is public");
    assert_eq!(stranger.fetch("/").await.status, 401);
    assert_unavailable(&stranger.post("/login", &[("username", "bob"), ("password", "secret")]).await);

    redis.again();

    recovers(&browser).await;
    assert_eq!(app.last().header("x-forwarded-user"), Some("alice"), "nobody was logged out");
    stranger.log_in("bob").await;
}

#[tokio::test]
async fn requests_fail_fast_while_redis_is_silent() {
    // S185
    let (_app, redis, _proxy, browser) = logged_in().await;
    redis.signal("STOP");
    fails(&browser).await;
    let started = Instant::now();
    for _ in 0..20 {
        assert_unavailable(&browser.clone().fetch("/").await);
    }
    let took = started.elapsed();
    redis.signal("CONT");

    assert!(took < Duration::from_secs(20), "each of them waited, together for {took:?}");
    recovers(&browser).await;
}

#[tokio::test]
async fn a_pause_of_redis_logs_nobody_out() {
    // S185
    let (_app, redis, _proxy, browser) = logged_in().await;
    redis.say(&["CLIENT", "PAUSE", "2500"]);
    recovers(&browser).await;
    let slept = std::thread::scope(|scope| {
        let sleep = scope.spawn(|| {
            redis.say(&[
                "EVAL",
                "local at = redis.call('TIME')[1] + 2
            while tonumber(redis.call('TIME')[1]) < at do end",
                "0",
            ])
        });
        sleep.join().unwrap()
    });
    assert_eq!(slept, "");
    recovers(&browser).await;
}

/// Browsers that send requests until they are told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    /// Each with how many were answered.
    browsers: Vec<(JoinHandle<Vec<u16>>, Arc<AtomicUsize>)>,
}

impl Load {
    fn of(browser: &Browser) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let asks = |_| {
            let (mut browser, stop, answered) = (browser.clone(), Arc::clone(&stop), Arc::<AtomicUsize>::default());
            let count = Arc::clone(&answered);
            let asking = tokio::spawn(async move {
                let mut seen = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    seen.push(browser.fetch("/").await.status.as_u16());
                    count.fetch_add(1, Ordering::Relaxed);
                }
                seen
            });
            (asking, answered)
        };
        let browsers = (0..4).map(asks).collect();
        Self { stop, browsers }
    }

    /// Waits until each of them was answered a few times more.
    async fn goes_on(&self) {
        for (_, answered) in &self.browsers {
            let before = answered.load(Ordering::Relaxed);
            eventually("requests are answered", || answered.load(Ordering::Relaxed) >= before + 3).await;
        }
    }

    /// What each of them was answered.
    async fn stops(self) -> Vec<Vec<u16>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for (asking, _) in self.browsers {
            seen.push(asking.await.unwrap());
        }
        seen
    }
}

#[tokio::test]
async fn connections_that_are_cut_are_made_again_before_anyone_notices() {
    // VR-33
    let (_app, redis, _proxy, browser) = logged_in().await;
    let load = Load::of(&browser);
    for _ in 0..10 {
        load.goes_on().await;
        redis.say(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    load.goes_on().await;
    for seen in load.stops().await {
        assert!(seen.len() > 10 && seen.iter().all(|status| *status == 200), "{seen:?}");
    }
}

#[tokio::test]
async fn a_flushed_redis_means_logging_in_again_and_nothing_worse() {
    // S186
    let (_app, redis, proxy, browser) = logged_in().await;
    let load = Load::of(&browser);
    load.goes_on().await;
    redis.say(&["FLUSHALL"]);
    redis.say(&["SCRIPT", "FLUSH"]);
    let mut again = proxy.browser();
    again.log_in("alice").await;
    assert_eq!(again.fetch("/").await.status, 200);
    eventually_so("it is noticed", async || browser.clone().fetch("/").await.status == 401).await;
    load.goes_on().await;
    for seen in load.stops().await {
        let flushed = seen.iter().position(|status| *status == 401).expect("still in");
        assert!(seen[..flushed].iter().all(|status| *status == 200), "{seen:?}");
        assert!(seen[flushed..].iter().all(|status| *status == 401), "{seen:?}");
    }
}

#[tokio::test]
async fn something_else_in_the_place_of_a_session_means_logging_in_again() {
    // S186, VR-34
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let program = Program::start(&stored_at(&redis.url(), "", &app, SITE)).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    assert_eq!(redis.say(&["SET", &redis.records()[0], "a mistake"]), "OK");

    // The server's word that it has changed is on its way.
    let deadline = Instant::now() + Duration::from_secs(15);
    while browser.clone().fetch("/").await.status == 200 {
        assert!(Instant::now() < deadline, "what was there before is believed");
    }
    for _ in 0..3 {
        assert_eq!(browser.clone().fetch("/").await.status, 401);
    }
    browser.log_in("alice").await;
    assert_eq!(browser.fetch("/").await.status, 200);
    eventually("it is told", || !program.events("store.record_unusable").is_empty()).await;
    let said = program.events("store.record_unusable");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0]["error"].as_str().unwrap().contains("something else"), "{said:?}");
}

#[tokio::test]
async fn something_else_in_the_place_of_an_index_makes_room() {
    // S186
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let program = Program::start(&stored_at(&redis.url(), "", &app, SITE)).await;
    program.browser().get("/login").await;
    program.browser().log_in("alice").await;
    let keys = redis.say(&["KEYS", "vestibule:*"]);
    let is_index =
        |key: &&str| ["vestibule:sites", "vestibule:u:", "vestibule:i:"].iter().any(|one| key.starts_with(one));
    let indexes: Vec<_> = keys.lines().filter(is_index).collect();
    assert_eq!(indexes.len(), 3, "{keys}");
    for (number, index) in indexes.iter().enumerate() {
        assert_eq!(redis.say(&["SET", index, "a mistake"]), "OK");

        let mut browser = program.browser();
        browser.log_in("alice").await;

        assert_eq!(browser.fetch("/").await.status, 200);
        eventually("it is said", || program.events("store.index_unusable").len() > number).await;
        assert_eq!(program.events("store.index_unusable")[number]["key"], **index);
        assert_eq!(browser.post("/.vestibule/logout?everywhere", &[]).await.status, 303);
        assert_eq!(browser.fetch("/").await.status, 401);
    }
    assert_eq!(program.events("store.index_unusable").len(), indexes.len(), "once each");
}

#[tokio::test]
async fn a_start_needs_no_redis() {
    let app = Upstream::legacy().await;
    let port = free_port();
    let program = Program::start(&stored_at(&format!("redis://127.0.0.1:{port}"), "", &app, SITE)).await;
    let said = program.event("store.unreachable").await;
    assert_eq!(said["server"], format!("127.0.0.1:{port}"));
    let mut browser = program.browser();
    assert_eq!(browser.fetch("/public/x").await.status, 200);
    assert_unavailable(&browser.post("/login", &[("username", "alice"), ("password", "secret")]).await);

    let redis = Redis::on(port);

    program.event("store.connected").await;
    browser.log_in("alice").await;
    assert_eq!(browser.fetch("/").await.status, 200);
    drop(redis);
    program.event("store.lost").await;
}

#[tokio::test]
async fn a_full_redis_refuses_logins_and_keeps_sessions() {
    // S21
    let (_app, redis, proxy, mut browser) = logged_in().await;
    redis.say(&["CONFIG", "SET", "maxmemory", "1"]);

    let refused = proxy.browser().post("/login", &[("username", "bob"), ("password", "secret")]).await;

    assert_unavailable(&refused);
    // Past a quarter of the idle timeout activity is written at once; after that the ID changes.
    for pause in [0, 10, 6] {
        proxy.advance(Duration::from_secs(pause * 60));
        let before = browser.session();
        assert_eq!(browser.get("/").await.status, 200, "after {pause} minutes");
        assert_eq!(browser.session() != before, pause == 6);
    }
    assert_eq!(browser.get("/logout").await.status, 302);
    assert_eq!(browser.fetch("/").await.status, 401);
    redis.say(&["CONFIG", "SET", "maxmemory", "0"]);
    proxy.browser().log_in("bob").await;
}

#[tokio::test]
async fn a_logout_is_done_or_refused_but_never_forgotten() {
    // S182: also when the answer to it is lost.
    let (_app, redis, proxy, browser) = logged_in().await;
    for _ in 0..10 {
        let mut alice = proxy.browser();
        alice.log_in("alice").await;
        let dead = alice.session().unwrap();
        let cut = std::thread::scope(|scope| {
            scope.spawn(|| redis.say(&["CLIENT", "KILL", "TYPE", "normal"])).join().unwrap()
        });
        assert!(!cut.is_empty());
        assert_eq!(alice.get("/logout").await.status, 302);
        assert_eq!(alice.with_session(&dead).fetch("/").await.status, 401);
    }
    eventually("records are gone", || {
        redis.records().iter().filter(|record| !redis.say(&["HGET", record, "r"]).is_empty()).count() == 1
    })
    .await;
    assert_eq!(browser.clone().fetch("/").await.status, 200);
}
