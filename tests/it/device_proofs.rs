//! Proofs of device-bound sessions: forged, repeated, at the same time, and for nobody.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::BOUND;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::device::Device;
use crate::support::device::PREFER;
use crate::support::device::REFRESH;
use crate::support::device::REGISTER;
use crate::support::device::offered;
use crate::support::device::refresh;
use crate::support::device::register;
use crate::support::device::stolen;
use crate::support::device::without_bound;
use crate::support::device::without_ours;
use crate::support::empty;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;

const SECOND: Duration = Duration::from_secs(1);

fn prefer() -> String {
    format!("{SITE}{PREFER}")
}

#[tokio::test]
async fn forged_proofs_refresh_nothing() {
    // S62
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut others = browser.clone();
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let other = Device::logged_in(&mut others, "bob").await;
    let stale = device.challenge.clone();
    assert_eq!(device.refresh(&mut browser).await.status, 200);
    proxy.advance(31 * SECOND);
    let asked = json!({ "jti": device.challenge });
    let plain = json!({ "alg": "ES256", "typ": "dbsc+jwt" });
    let unsigned = |token: String| format!("{}.", token.rsplit_once('.').unwrap().0);
    let none = json!({ "alg": "none", "typ": "dbsc+jwt" });
    let mut thief = without_bound(&browser);
    for (what, proof, status) in [
        ("another key", other.proof(&device.challenge), 401),
        ("another key, brought along", other.token(&other.with_key(), &asked), 401),
        ("its own key, brought along", device.token(&device.with_key(), &asked), 401),
        ("none", device.token(&none, &asked), 401),
        ("none, and no signature", unsigned(device.token(&none, &asked)), 401),
        ("no signature", unsigned(device.proof(&device.challenge)), 401),
        ("another type", device.token(&json!({ "alg": "ES256", "typ": "jwt" }), &asked), 401),
        (
            "another audience",
            device.token(&plain, &json!({ "jti": device.challenge, "aud": "https://evil.test/" })),
            401,
        ),
        ("no challenge", device.token(&plain, &json!({})), 401),
        ("another session's challenge", device.proof(&other.challenge), 403),
        ("a challenge that was answered", device.proof(&stale), 403),
        ("garbage", "x".to_owned(), 401),
        ("too long", "x".repeat(5000), 401),
    ] {
        let answer = thief.send(refresh(&device.identifier, Some(&proof))).await;
        assert_eq!((answer.status.as_u16(), answer.set_cookies()), (status, Vec::new()), "{what}");
        let challenge = answer.header("secure-session-challenge").is_some();
        assert_eq!(challenge, status == 403, "who may be the browser is asked again: {what}");
    }
    let another = thief.send(refresh(&other.identifier, Some(&device.proof(&device.challenge)))).await;
    assert_eq!(another.status, 401, "another session's proof");

    assert_eq!(thief.fetch("/").await.status, 401);
    assert_eq!(device.refresh(&mut browser).await.status, 200, "none of it harms its owner");
}

#[tokio::test]
async fn two_proofs_are_none() {
    // S62
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let device = Device::logged_in(&mut browser, "alice").await;
    let proof = device.proof(&device.challenge);
    let mut request = refresh(&device.identifier, Some(&proof));
    request.headers_mut().append("secure-session-response", proof.parse().unwrap());

    assert_eq!(browser.send(request).await.status, 401);
}

#[tokio::test]
async fn strings_are_taken_as_well_as_what_browsers_send() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let login = browser.log_in("alice").await;
    let device = Device::new();

    let answer = browser.send(register(&format!("\"{}\"", device.registration(&login)))).await;

    assert_eq!(answer.status, 200);
    let challenge = answer.header("secure-session-challenge").unwrap().split('"').nth(1).unwrap().to_owned();
    let identifier = serde_json::from_str::<serde_json::Value>(&answer.body).unwrap();
    let identifier = format!("\"{}\"", identifier["session_identifier"].as_str().unwrap());
    let answer = browser.send(refresh(&identifier, Some(&format!("\"{}\"", device.proof(&challenge))))).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_browser_without_a_proof_is_told_what_to_sign() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let mut challenges = BTreeSet::new();
    for _ in 0..3 {
        let answer = browser.send(refresh(&device.identifier, None)).await;
        assert_eq!((answer.status.as_u16(), answer.set_cookies()), (403, Vec::new()));
        challenges.insert(answer.header("secure-session-challenge").unwrap().to_owned());
    }
    assert_eq!(challenges.len(), 1, "nobody who knows the name pushes out what the browser is to sign");
    assert!(challenges.first().unwrap().contains(&device.challenge));

    proxy.advance(29 * 60 * SECOND);

    assert_eq!(device.refresh_once(&mut browser).await.status, 200, "a pause costs no second signature");
}

#[tokio::test]
async fn parallel_and_repeated_refreshes_are_all_good() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let device = Device::logged_in(&mut browser, "alice").await;
    proxy.advance(601 * SECOND);
    let (identifier, proof) = (device.identifier.clone(), device.proof(&device.challenge));

    let refreshing: Vec<_> = (0..20)
        .map(|_| {
            let (mut tab, request) = (without_bound(&browser), refresh(&identifier, Some(&proof)));
            tokio::spawn(async move {
                let answer = tab.send(request).await;
                let challenge = answer.header("secure-session-challenge").unwrap_or_default().to_owned();
                (answer.status.as_u16(), challenge, tab)
            })
        })
        .collect();
    let (mut challenges, mut sessions) = (BTreeSet::new(), BTreeSet::new());
    for refreshed in refreshing {
        let (status, challenge, mut tab) = refreshed.await.unwrap();
        assert_eq!(status, 200);
        challenges.insert(challenge);
        sessions.insert(tab.session().unwrap());
        assert_eq!(tab.fetch("/").await.status, 200, "each of the bound cookies is good");
    }

    assert_eq!((challenges.len(), sessions.len()), (1, 1), "one new challenge, and one rotation");
    let mut browser = without_ours(&browser);
    proxy.advance(29 * SECOND);
    assert_eq!(browser.send(refresh(&identifier, Some(&proof))).await.status, 200, "its answer may have been lost");
    proxy.advance(SECOND);
    assert_eq!(browser.send(refresh(&identifier, Some(&proof))).await.status, 403, "a captured proof is worth nothing");
}

#[tokio::test]
async fn a_registration_is_judged_whole() {
    // S62, S63
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut others = browser.clone();
    let login = browser.log_in("alice").await;
    let other = others.log_in("bob").await;
    let (device, thief) = (Device::new(), Device::new());
    let claims = |challenge: &str, authorization: &str| json!({ "jti": challenge, "authorization": authorization });
    let (challenge, authorization) = (offered(&login, "challenge"), offered(&login, "authorization"));
    let good = claims(&challenge, &authorization);
    for (what, proof) in [
        ("a key that does not sign", device.token(&thief.with_key(), &good)),
        ("no key", device.token(&json!({ "alg": "ES256", "typ": "dbsc+jwt" }), &good)),
        ("none", device.token(&json!({ "alg": "none", "typ": "dbsc+jwt" }), &good)),
        (
            "another login's challenge",
            device.token(&device.with_key(), &claims(&offered(&other, "challenge"), &authorization)),
        ),
        (
            "another login's code",
            device.token(&device.with_key(), &claims(&challenge, &offered(&other, "authorization"))),
        ),
        ("another login's offer", device.registration(&other)),
        ("no code", device.token(&device.with_key(), &json!({ "jti": challenge }))),
    ] {
        let answer = browser.send(register(&proof)).await;
        assert_eq!((answer.status.as_u16(), answer.set_cookies()), (403, Vec::new()), "{what}");
    }
    let proof = device.registration(&login);
    assert_eq!(proxy.browser().send(register(&proof)).await.status, 401, "without the session");
    let mut from_elsewhere = register(&proof);
    from_elsewhere.headers_mut().insert("sec-fetch-site", "cross-site".parse().unwrap());
    assert_eq!(browser.send(from_elsewhere).await.status, 403);
    assert_eq!(browser.send(empty(labelled("GET", REGISTER, "same-origin", "cors", "empty"))).await.status, 405);
    assert_eq!(browser.send(empty(labelled("GET", REFRESH, "same-origin", "cors", "empty"))).await.status, 405);
    assert_eq!(without_bound(&browser).fetch("/").await.status, 200, "nothing of it bound the session");

    assert_eq!(browser.send(register(&proof)).await.status, 200);
}

#[tokio::test]
async fn an_offer_lasts_a_minute() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    for (waited, status) in [(59, 200), (60, 403)] {
        let login = browser.log_in("alice").await;
        proxy.advance(waited * SECOND);
        assert_eq!(Device::new().register(&mut browser, &login).await.status, status, "after {waited} s");
    }
}

#[tokio::test]
async fn a_second_registration_is_refused_and_logged() {
    // S63
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), &prefer())).await;
    let mut browser = program.browser();
    let login = browser.log_in("alice").await;
    let mut device = Device::new();
    assert_eq!(device.register(&mut browser, &login).await.status, 200);

    let mut thief = Device::new();
    let again = browser.send(register(&thief.registration(&login))).await;

    assert_eq!((again.status.as_u16(), again.set_cookies()), (403, Vec::new()));
    let line = program.event("device.refused").await;
    assert_eq!((&line["at"], &line["reason"], &line["user"]), (&json!("register"), &json!("again"), &json!("alice")));
    assert_eq!(line["level"], "warn");
    thief.identifier.clone_from(&device.identifier);
    thief.challenge.clone_from(&device.challenge);
    assert_eq!(thief.refresh(&mut browser).await.status, 401);
    assert_eq!(device.refresh(&mut browser).await.status, 200);
    assert_eq!(stolen(&browser).fetch("/").await.status, 401);
    let line = program.event("session.refused").await;
    assert_eq!(
        (&line["reason"], &line["cookie"], &line["level"]),
        (&json!("device"), &json!("missing"), &json!("warn"))
    );
    assert_eq!(program.event("device.registered").await["algorithm"], "ES256");
    assert_eq!(program.event("device.refreshed").await["user"], "alice");
    let reasons: Vec<_> = program.events("device.refused").iter().map(|line| line["reason"].clone()).collect();
    assert_eq!(reasons, [json!("again"), json!("signature")]);
    let text = program.text();
    for secret in [&device.identifier, &device.challenge, &offered(&login, "authorization"), &browser.cookies[BOUND]] {
        assert!(!text.contains(secret.as_str()), "S161");
    }
}

#[tokio::test]
async fn of_two_registrations_at_once_one_counts() {
    // S63
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let login = browser.log_in("alice").await;
    let registering: Vec<_> = (0..10)
        .map(|_| {
            let (mut tab, request) = (browser.clone(), register(&Device::new().registration(&login)));
            tokio::spawn(async move { tab.send(request).await.status.as_u16() })
        })
        .collect();
    let mut statuses = Vec::new();
    for registered in registering {
        statuses.push(registered.await.unwrap());
    }

    statuses.sort_unstable();
    assert_eq!(statuses[..2], [200, 403], "{statuses:?}");
}

#[tokio::test]
async fn a_refresh_from_another_network_is_put_off() {
    // S54: browsers give a session up for a 401, and this one goes on where it belongs.
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let mut elsewhere = browser.clone();
    elsewhere.from = [127, 0, 9, 1].into();

    let answer = device.refresh(&mut elsewhere).await;

    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, Some("60")));
    assert_eq!(answer.set_cookies(), Vec::<&str>::new());
    assert_eq!(elsewhere.fetch("/").await.status, 401);
    assert_eq!(device.refresh(&mut browser).await.status, 200);
}

#[tokio::test]
async fn no_session_has_more_signatures_looked_at_than_a_browser_makes() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let mut device = Device::logged_in(&mut browser, "alice").await;
    let garbage = Device::new().proof(&device.challenge);
    let mut statuses = BTreeSet::new();
    for _ in 0..40 {
        statuses.insert(browser.send(refresh(&device.identifier, Some(&garbage))).await.status.as_u16());
    }

    assert_eq!(statuses, BTreeSet::from([401, 429]));
    proxy.advance(60 * SECOND);
    assert_eq!(device.refresh(&mut browser).await.status, 200);
}

#[tokio::test]
async fn what_nobody_registered_is_not_refreshed() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &prefer()).await;
    let device = Device::logged_in(&mut browser, "alice").await;
    let proof = device.proof(&device.challenge);
    for name in ["", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "\"\""] {
        assert_eq!(browser.send(refresh(name, Some(&proof))).await.status, 401, "{name}");
    }
}
