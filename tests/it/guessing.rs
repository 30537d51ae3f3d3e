//! Who presents IDs that are no sessions: many of them are told and slowed, a dead one is told once.

use std::collections::BTreeSet;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::file;
use crate::support::program::Program;

/// What IDs are made of.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// An ID that nobody was given.
fn made_up(number: usize) -> String {
    let mut id = vec![b'A'; 43];
    for (place, letter) in id.iter_mut().take(8).enumerate() {
        *letter = LETTERS[number / LETTERS.len().pow(u32::try_from(place).unwrap()) % LETTERS.len()];
    }
    String::from_utf8(id).unwrap()
}

async fn guesses(browser: &Browser, numbers: std::ops::Range<usize>) -> Vec<Answer> {
    let mut answers = Vec::new();
    for number in numbers {
        answers.push(browser.with_session(&made_up(number)).fetch("/").await);
    }
    answers
}

#[tokio::test]
async fn who_presents_many_ids_that_are_no_sessions_is_slowed_and_told() {
    // S59
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut alice = program.browser();
    alice.log_in("alice").await;

    let answers = guesses(&alice, 0..200).await;

    assert!(answers[..190].iter().all(|answer| answer.status == 401));
    for answer in &answers[190..] {
        assert_eq!(answer.status, 429);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait), "{wait}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    program.answered(201).await;
    let told = program.events("session.guessing");
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((told[0]["level"].as_str(), told[0]["client"].as_str()), (Some("warn"), Some("127.0.0.1")));
    assert_eq!(program.events("session.refused").len(), 190, "and no line for each further one");
    assert_eq!(alice.fetch("/").await.status, 200, "who has a session is not concerned");
}

#[tokio::test]
async fn where_guesses_come_from_everybody_else_gets_on() {
    // S59: people whose sessions were lost share an address with others, and with each other.
    let app = Upstream::legacy().await;
    let (proxy, mut alice) = Vestibule::in_front_of(&app).await;
    alice.log_in("alice").await;
    let mut neighbour = proxy.browser().with_session(&made_up(0));
    assert_eq!(neighbour.get("/").await.status, 303);
    guesses(&proxy.browser(), 0..190).await;
    let mut late = proxy.browser().with_session(&made_up(190));

    let page = late.get("/").await;
    assert_eq!(page.status, 429);
    assert!(page.body.contains("<a href=\"/login\">"), "{}", page.body);
    assert_eq!(late.fetch("/.vestibule/session").await.status, 429, "nobody finds out there either");
    assert_eq!(late.get("/public/x").await.status, 200);
    assert_eq!(late.clone().get("/login").await.status, 200);
    late.log_in("bob").await;
    assert_eq!(late.get("/").await.body, "private");

    assert_eq!(neighbour.get("/").await.status, 303, "a dead one counts once");
    assert_eq!(proxy.browser().get("/").await.status, 303, "none is no guess");
    assert_eq!(alice.get("/").await.body, "private");
    let mut elsewhere = proxy.browser().with_session(&made_up(191));
    elsewhere.from = [127, 0, 9, 1].into();
    assert_eq!(elsewhere.get("/").await.status, 303, "another network");
    elsewhere.from = [127, 0, 0, 9].into();
    assert_eq!(elsewhere.get("/").await.status, 429, "the same one");
    proxy.advance(std::time::Duration::from_secs(60));
    assert_eq!(elsewhere.get("/").await.status, 303);
}

#[tokio::test]
async fn who_is_slowed_cannot_tell_a_dead_session_from_another_clients() {
    // S58
    let app = Upstream::legacy().await;
    let (proxy, mut alice) = Vestibule::in_front_of(&app).await;
    alice.log_in("alice").await;
    let mut thief = proxy.browser();
    thief.from = [127, 0, 9, 1].into();
    guesses(&thief, 0..190).await;

    let mut seen = BTreeSet::new();
    for id in [alice.session().unwrap(), made_up(190)] {
        let answer = thief.with_session(&id).fetch("/").await;
        let wait = answer.header("retry-after").unwrap().to_owned();
        seen.insert((answer.status.as_u16(), wait, answer.body));
    }

    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(alice.fetch("/").await.status, 200);
}

#[tokio::test]
async fn a_replay_of_an_ended_id_is_told_once_for_each_client() {
    // S60
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;
    let session = program.event("session.authenticated").await["session"].clone();
    let dead = browser.session().unwrap();
    browser.get("/logout").await;

    let mut thief = browser.with_session(&dead);
    for user_agent in ["Thief/2.0", "Thief/2.0", "Test/1.0", "Thief/2.0", "Test/1.0"] {
        thief.user_agent = user_agent.into();
        thief.fetch("/").await;
    }
    program.answered(7).await;

    let refused = program.events("session.refused");
    assert_eq!(refused.len(), 2, "{refused:?}");
    for line in refused {
        assert_eq!((line["reason"].as_str(), line["level"].as_str()), (Some("ended"), Some("warn")));
        assert_eq!(line["session"], session);
    }
}
