//! The clock of the machine is set: an hour forward, an hour back, while the program runs and between two runs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tempfile::TempDir;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::program::BINARY;
use crate::support::program::Program;
use crate::support::redis::Redis;
use crate::support::redis::stored_at;

/// The program with a clock that is set by what is written there.
async fn started(clock: &Path, text: &str) -> Program {
    let mut command = Command::new(BINARY);
    command.stdin(Stdio::null()).env("LD_PRELOAD", "/usr/$LIB/faketime/libfaketime.so.1");
    // A clock that is set moves no timer.
    command
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Program::start_by(command, text).await
}

/// The minute of the day in which the last request was logged.
async fn minute(program: &Program, requests: usize) -> i32 {
    program.answered(requests).await;
    let line = program.event("access").await;
    let time = line["timestamp"].as_str().unwrap();
    time[11..13].parse::<i32>().unwrap() * 60 + time[14..16].parse::<i32>().unwrap()
}

#[tokio::test]
async fn a_clock_that_is_set_while_it_runs_changes_nothing() {
    // S39
    let (app, place, redis) = (Upstream::legacy().await, TempDir::new().unwrap(), Redis::start());
    let clock = place.path().join("clock");
    for url in [format!("file:{}", place.path().join("sessions.redb").display()), redis.url(), "memory:".to_owned()] {
        fs::write(&clock, "+0").unwrap();
        let program = started(&clock, &stored_at(&url, "", &app, SITE)).await;
        let mut browser = program.browser();
        browser.log_in("alice").await;
        let mut gone = program.browser();
        gone.log_in("bob").await;
        let dead = gone.session().unwrap();
        gone.get("/logout").await;
        let (right, mut requests) = (minute(&program, 3).await, 3);

        for step in ["+1h", "-1h"] {
            fs::write(&clock, step).unwrap();
            for _ in 0..2 {
                assert_eq!(browser.fetch("/").await.status, 200, "{url} {step}");
            }
            assert_eq!(gone.with_session(&dead).fetch("/").await.status, 401, "{url} {step}");
            let mut next = program.browser();
            next.log_in("carol").await;
            assert_eq!(next.fetch("/").await.status, 200, "{url} {step}");
            requests += 5;
            let off = (minute(&program, requests).await - right).rem_euclid(24 * 60);
            assert!((30..23 * 60 + 30).contains(&off), "{url}: the clock was set");
        }
    }
}

#[tokio::test]
async fn what_is_signed_is_dated_by_the_clock_as_it_was_set() {
    // S39, S73
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (clock, rules) = (place.path().join("clock"), "\n[site.identity]\nassertion = { header = \"X-Assertion\" }\n");
    fs::write(&clock, "-1h").unwrap();
    let program = started(&clock, &stored_at("memory:", "", &app, &format!("{SITE}{rules}"))).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    let mut issued = Vec::new();

    for set_to in ["-1h", "+0"] {
        fs::write(&clock, set_to).unwrap();
        assert_eq!(browser.fetch("/").await.status, 200);
        let token = app.last().header("x-assertion").unwrap().to_owned();
        let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        issued.push(serde_json::from_slice::<serde_json::Value>(&claims).unwrap()["iat"].as_u64().unwrap());
    }

    assert!(issued[1] - issued[0] >= 3600, "{issued:?}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_before_a_start_revives_nobody() {
    // S39, VR-50
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (clock, file) = (place.path().join("clock"), place.path().join("sessions.redb"));
    let text = stored_at(&format!("file:{}", file.display()), "", &app, SITE);
    fs::write(&clock, "+0").unwrap();
    let mut program = started(&clock, &text).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    let mut gone = program.browser();
    gone.log_in("bob").await;
    let dead = gone.session().unwrap();
    gone.get("/logout").await;
    program.signal("TERM");
    program.ended().await;

    fs::write(&clock, "-1h").unwrap();
    let program = started(&clock, &text).await;

    let said = program.event("store.clock_behind").await;
    assert!(said["seconds"].as_u64().unwrap() > 3500, "{said}");
    let mut again = program.browser().with_session(&browser.session().unwrap());
    assert_eq!(again.fetch("/").await.status, 200);
    assert_eq!(again.with_session(&dead).fetch("/").await.status, 401);
    let told: serde_json::Value = serde_json::from_str(&again.fetch("/.vestibule/session").await.body).unwrap();
    assert!(told["absolute_expires_in"].as_u64().unwrap() <= 8 * 3600, "no more than it began with: {told}");
}
