//! Several Vestibules that share their sessions in a Redis: what one of them does holds at all of them.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use vestibule::clock::Clock;
use vestibule::clock::SystemClock;
use vestibule::clock::Timestamp;
use vestibule::policy::binding::Binding;
use vestibule::policy::chain::Chain;
use vestibule::policy::session::Identity;
use vestibule::policy::session::Record;
use vestibule::policy::session::SessionId;
use vestibule::policy::session::UserName;
use vestibule::policy::vault::Vault;
use vestibule::store;
use vestibule::store::Presence;

use crate::support::Browser;
use crate::support::Line;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::eventually;
use crate::support::eventually_refused;
use crate::support::eventually_so;
use crate::support::parse;
use crate::support::program::BINARY;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::stored_at;
use crate::support::redis::vestibule_at;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::next;
use crate::support::websocket::open;

const MINUTE: Duration = Duration::from_secs(60);

/// An application, and two Vestibules in front of it.
async fn two() -> (Upstream, Redis, [Vestibule; 2]) {
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let (one, two) = (at(&redis, &app).await, at(&redis, &app).await);
    (app, redis, [one, two])
}

async fn at(redis: &Redis, app: &Upstream) -> Vestibule {
    vestibule_at(&redis.url(), "", app, SITE).await
}

/// The same browser at another Vestibule.
fn moved(browser: &Browser, to: &Vestibule) -> Browser {
    let mut moved = to.browser();
    moved.cookies = browser.cookies.clone();
    moved
}

#[tokio::test]
async fn a_session_is_the_same_on_every_node() {
    let (app, redis, [one, two]) = two().await;
    let mut here = one.browser();
    here.get("/login").await;
    here.log_in("alice").await;
    let mut there = moved(&here, &two);

    assert_eq!(there.get("/").await.body, "private");
    let received = app.last();
    assert_eq!(received.header("x-forwarded-user"), Some("alice"));
    assert_eq!(received.cookie("PHPSESSID"), Some("app-session-2"));
    assert_eq!(here.get("/").await.body, "private");

    let records = redis.records();
    assert_eq!(records.len(), 2, "a session, and the tombstone of the one before the login: {records:?}");
    let left = records.iter().map(|record| redis.say(&["PTTL", record]).parse::<u64>().unwrap());
    let limits = [60_000, 31 * 60_000];
    for (left, limit) in left.collect::<BTreeSet<_>>().into_iter().zip(limits) {
        // S183
        assert!(left > limit - 30_000 && left <= limit, "{left} of {limit}");
    }
}

#[tokio::test]
async fn what_ends_on_one_node_has_ended_on_the_others() {
    // S182, S185: what another node knows of a session is worth nothing once it has ended.
    let (_app, _redis, [one, two]) = two().await;
    for round in 0..20 {
        let mut here = one.browser();
        here.log_in("alice").await;
        let mut there = moved(&here, &two);
        assert_eq!(there.fetch("/").await.status, 200, "{round}");
        let dead = here.session().unwrap();
        here.get("/logout").await;

        let mut ghost = there.with_session(&dead);
        eventually_refused(&ghost).await;
        assert_eq!(ghost.post("/login", &[("username", "bob"), ("password", "secret")]).await.status, 302);
    }
}

#[tokio::test]
async fn a_logout_closes_what_is_open_on_other_nodes() {
    // S46, VR-06
    let (app, redis) = (EchoApp::start().await, Redis::start());
    let (one, two) = (at(&redis, &app.upstream).await, at(&redis, &app.upstream).await);
    let mut here = one.browser();
    here.log_in("alice").await;
    let there = moved(&here, &two);
    let (mut socket, _) = open(&there, "/ws", &[]).await.unwrap();
    assert!(echoed(&mut socket, "hello").await);

    here.get("/logout").await;
    eventually_refused(&there).await;

    // The clock of a test stands still; a node looks every half second, and this one knows.
    two.advance(Duration::from_millis(500));
    let end = tokio::time::timeout(Duration::from_secs(4), next(&mut socket)).await;
    assert!(end.expect("still open").unwrap().is_close());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ended_while_a_node_was_cut_off_is_closed_there_when_it_is_back() {
    // S46, S167, VR-06: until then it stays open, and nobody gets in.
    let (app, redis) = (EchoApp::start().await, Redis::start());
    let line = Line::to(redis.port).await;
    let one = at(&redis, &app.upstream).await;
    let two = vestibule_at(&format!("redis://127.0.0.1:{}", line.port), "", &app.upstream, SITE).await;
    let mut here = one.browser();
    here.log_in("alice").await;
    let there = moved(&here, &two);
    let (mut socket, _) = open(&there, "/ws", &[]).await.unwrap();
    line.cut();
    while there.clone().fetch("/").await.status != 503 {}
    here.get("/logout").await;
    two.advance(Duration::from_secs(1));
    assert!(echoed(&mut socket, "hello").await);

    line.mend();

    let end = async {
        loop {
            two.advance(Duration::from_millis(500));
            if let Ok(end) = tokio::time::timeout(Duration::from_millis(50), next(&mut socket)).await {
                return end;
            }
        }
    };
    let end = tokio::time::timeout(Duration::from_secs(15), end).await;
    assert!(end.expect("still open").unwrap().is_close());
}

#[tokio::test]
async fn fifty_parallel_requests_over_two_processes_are_one_rotation() {
    // VR-01
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let site = format!("{SITE}\n[site.session]\nrotate_every = \"1s\"\nrotation_grace = \"500ms\"\n");
    let text = stored_at(&redis.url(), "", &app, &site);
    let mut programs = [Program::start(&text).await, Program::start(&text).await];
    let mut browser = programs[0].browser();
    browser.log_in("alice").await;
    eventually_so("its ID is a second old", async || {
        let session = browser.clone().fetch("/.vestibule/session").await.body;
        let session: serde_json::Value = serde_json::from_str(&session).unwrap();
        session["absolute_expires_in"].as_u64().unwrap() < 8 * 60 * 60 - 1
    })
    .await;

    let requests: Vec<_> = (0..50)
        .map(|number| {
            let mut tab = programs[number % 2].browser();
            tab.cookies = browser.cookies.clone();
            tokio::spawn(async move { (tab.fetch("/").await.status, tab.session().unwrap()) })
        })
        .collect();
    let mut sessions = BTreeSet::new();
    for request in requests {
        let (status, session) = request.await.unwrap();
        assert_eq!(status, 200);
        sessions.insert(session);
    }

    sessions.remove(&browser.session().unwrap());
    assert_eq!(sessions.len(), 1, "one rotation");
    let mut successor = programs[1].browser().with_session(&sessions.pop_first().unwrap());
    // Asked of us, who rotate nothing for it: by now it may be due again.
    assert_eq!(successor.fetch("/.vestibule/session").await.status, 200);
    for program in &mut programs {
        // Then all has been written.
        program.signal("TERM");
        program.ended().await;
    }
    let rotated: usize = programs.iter().map(|program| program.events("session.rotated").len()).sum();
    assert_eq!(rotated, 1);
}

#[tokio::test]
async fn cookies_that_are_set_at_once_over_two_nodes_are_all_kept() {
    // VR-44
    let app = Upstream::start(|request| match request.target.strip_prefix("/set?") {
        Some(name) => {
            let cookie = format!("{name}=1; HttpOnly; Path=/");
            Reply::text("set").header("set-cookie", &cookie)
        }
        None => Reply::redirect("/"),
    })
    .await;
    let redis = Redis::start();
    let nodes = [at(&redis, &app).await, at(&redis, &app).await];
    let mut browser = nodes[0].browser();
    browser.log_in("alice").await;

    let requests: Vec<_> = (0..30)
        .map(|number| {
            let mut tab = moved(&browser, &nodes[number % 2]);
            tokio::spawn(async move { tab.fetch(&format!("/set?c{number}")).await.status })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), 200);
    }

    // What the other node has just written may be news here.
    let has_all = async || {
        browser.clone().get("/").await;
        app.last().header("cookie").unwrap().split("; ").count() == 30
    };
    eventually_so("all are kept", has_all).await;
}

#[tokio::test]
async fn activity_on_one_node_keeps_a_session_alive_for_all() {
    // VR-48, VR-50: and nothing keeps it longer than its limits.
    let (_app, redis, [one, two]) = two().await;
    let mut here = one.browser();
    here.log_in("alice").await;
    let mut there = moved(&here, &two);
    assert_eq!(there.fetch("/").await.status, 200);
    for _ in 0..3 {
        one.advance(20 * MINUTE);
        two.advance(20 * MINUTE);
        assert_eq!(here.fetch("/").await.status, 200);
    }
    let record = redis.records().remove(0);
    let written = || redis.say(&["HGET", &record, "s"]) == (1_800_000_000_000u64 + 3_600_000).to_string();
    eventually("activity is written", written).await;
    let mut there = moved(&here, &two);
    assert_eq!(there.fetch("/").await.status, 200, "the other node knows of it");

    // S183: whatever Redis thinks of it.
    redis.say(&["PERSIST", &record]);
    for node in [&one, &two] {
        node.advance(30 * MINUTE);
    }
    assert_eq!(there.fetch("/").await.status, 401);
    eventually("the record is gone", || redis.records().is_empty()).await;
}

#[tokio::test]
async fn a_session_that_idles_is_swept_by_one_node_and_logged_once() {
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let site = format!("{SITE}\n[site.session]\nidle_timeout = \"1s\"\n");
    let text = stored_at(&redis.url(), "", &app, &site);
    let programs = [Program::start(&text).await, Program::start(&text).await];
    programs[0].browser().log_in("alice").await;

    // A sweep comes every ten seconds.
    let ends = || programs.iter().map(|program| program.events("session.ended").len()).sum::<usize>();
    eventually("it is swept", || ends() > 0).await;

    let end = programs.iter().flat_map(|program| program.events("session.ended")).next().unwrap();
    assert_eq!((end["reason"].as_str(), end["user"].as_str()), (Some("idle"), Some("alice")));
    assert_eq!(redis.records(), Vec::<String>::new());
    assert_eq!(ends(), 1);
}

#[tokio::test]
async fn the_time_is_the_servers_whatever_a_nodes_clock_says() {
    // S39
    let (app, redis) = (Upstream::legacy().await, Redis::start());
    let text = stored_at(&redis.url(), "", &app, SITE);
    let right = Program::start(&text).await;
    let mut faked = Vec::new();
    for by in ["+1h", "-1h"] {
        let mut command = Command::new(BINARY);
        // A clock that is set moves no timer.
        command.env("FAKETIME", by).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1");
        faked.push(Program::start_by(command, &text).await);
    }
    let logged = faked[0].event("started").await["timestamp"].as_str().unwrap().to_owned();
    assert_ne!(logged[..13], right.event("started").await["timestamp"].as_str().unwrap()[..13], "its clock is wrong");

    for (from, to) in [(&right, &faked[0]), (&right, &faked[1]), (&faked[0], &faked[1]), (&faked[1], &right)] {
        let mut browser = from.browser();
        browser.log_in("alice").await;
        assert_eq!(browser.fetch("/").await.status, 200);
        let mut there = to.browser();
        there.cookies = browser.cookies.clone();
        assert_eq!(there.fetch("/").await.status, 200);
        let lives = there.fetch("/.vestibule/session").await.body;
        assert!(lives.contains("\"user\":\"alice\""), "{lives}");
    }
}

#[tokio::test]
async fn whoever_reads_redis_learns_no_secret_and_no_record_is_changed_unnoticed() {
    // S18, S25, S184
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("set-cookie", "PHPSESSID=app-secret; HttpOnly"),
        _ => Reply::text("private"),
    })
    .await;
    let redis = Redis::start();
    let (one, two) = (at(&redis, &app).await, at(&redis, &app).await);
    let mut browser = one.browser();
    browser.log_in("alice*{x}").await;
    assert_eq!(browser.get("/").await.body, "private");
    let id = browser.session().unwrap();
    let secret = app.last().cookie("PHPSESSID").unwrap().to_owned();
    let record = redis.records().remove(0);
    let dump = format!("{}\n{}", redis.say(&["KEYS", "*"]), redis.say(&["HGETALL", &record]));
    assert!(dump.contains("alice*"), "names are readable, for lists");
    for hidden in [&id, &id[..21], &secret] {
        assert!(!dump.contains(hidden));
    }
    let keys = redis.say(&["KEYS", "*"]);
    assert!(!keys.contains("alice") && !keys.contains('*'), "{keys}");

    let told = redis.say(&["EVAL", FORGE, "1", &record]);
    assert_eq!(told, "1", "somebody made alice root");

    for node in [&one, &two] {
        eventually_refused(&moved(&browser, node)).await;
    }
}

/// Replaces the name in the readable part.
const FORGE: &str = "local kept = redis.call('HGET', KEYS[1], 'o')
    local forged, count = string.gsub(kept, 'alice', 'roote', 1)
    redis.call('HSET', KEYS[1], 'o', forged)
    return count";

#[tokio::test]
async fn whoever_writes_to_redis_invents_nobody_without_the_key() {
    // S184: a record for a user who never logged in, under an ID that its maker has.
    let (app, redis, place) = (Upstream::legacy().await, Redis::start(), tempfile::tempdir().unwrap());
    let key = |name: &str, secret: &str| {
        let path = place.path().join(name);
        std::fs::write(&path, format!("{secret}\n")).unwrap();
        format!("file:{}", path.display())
    };
    let first = key("first", "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=");
    let second = key("second", "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=");
    let open = vestibule_at(&redis.url(), "", &app, SITE).await;
    let old = vestibule_at(&redis.url(), &format!("key = {first:?}"), &app, SITE).await;
    let new = vestibule_at(&redis.url(), &format!("key = [{second:?}, {first:?}]"), &app, SITE).await;
    let invented = invent("admin", &redis, &app, open.clock.now()).await;

    assert_eq!(open.browser().with_session(&invented).fetch("/").await.status, 200, "the record is as good as ours");
    assert_eq!(app.last().header("x-forwarded-user"), Some("admin"));
    for node in [&old, &new] {
        assert_eq!(node.browser().with_session(&invented).fetch("/").await.status, 401);
    }

    let mut here = old.browser();
    here.log_in("alice").await;
    assert_eq!(moved(&here, &new).fetch("/").await.status, 200, "the old key opens");
    let mut there = new.browser();
    there.log_in("bob").await;
    assert_eq!(there.fetch("/").await.status, 200);
    assert_eq!(moved(&there, &old).fetch("/").await.status, 401, "the new one is not known there");
}

/// Writes a session of this user without having logged in; returns its ID.
async fn invent(user: &str, redis: &Redis, app: &Upstream, now: Timestamp) -> String {
    let config = parse(&stored_at(&redis.url(), "", app, SITE));
    let (store, _) = store::open(&config.store, &[], Arc::new(SystemClock::start())).unwrap();
    let (id, site) = (SessionId::from_random([0x5a; 32]), &config.sites[0]);
    let user = UserName::parse(user).unwrap();
    let identity = Identity { user, authenticated: now, session_ref: id.key().session_ref() };
    let (binding, chain) = (Binding::new([127, 0, 0, 1].into(), Some("Test/1.0")), Chain::begin(id.verifier(), now));
    let name = Arc::from(site.origin.to_text());
    let record = Record::authenticated(name, identity, binding, chain, Vault::default(), &site.session, now);
    assert_eq!(store.create(&id.handle(), record, MINUTE).await.unwrap(), Presence::Present);
    id.expose()
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_told_at_the_start() {
    let (app, place) = (Upstream::legacy().await, tempfile::tempdir().unwrap());
    let short = place.path().join("short");
    std::fs::write(&short, "hunter2").unwrap();
    for (key, expected) in [
        (format!("file:{}", short.display()), "can be guessed; make one with: openssl rand -base64 32"),
        ("file:/nowhere/at/all".to_owned(), "store.key: file:/nowhere/at/all cannot be read"),
        ("env:VESTIBULE_NO_SUCH_KEY".to_owned(), "the variable VESTIBULE_NO_SUCH_KEY is not set"),
    ] {
        let file = stored_at("redis://127.0.0.1:1", &format!("key = {key:?}"), &app, SITE);
        let (code, said) = Program::fail(&file).await;
        assert!(code == 2 && said.contains(expected) && !said.contains("hunter2"), "{said}");
    }
}
