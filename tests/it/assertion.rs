//! What is signed about users: whose it is, how long it is sent, and the keys. That others can verify it is
//! shown by `apps/jwt.rs`.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Request;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;
use vestibule::clock::Timestamp;
use vestibule::store::SessionStore;
use vestibule::store::memory::MemoryStore;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::configure;
use crate::support::empty;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::labelled;
use crate::support::navigation;
use crate::support::program::Program;

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn site(more: &str) -> String {
    format!("{SITE}\n[site.identity]\nassertion = {{ header = \"X-Assertion\"{more} }}\n")
}

/// The one that the application got with its last request, as text and read.
fn last(app: &Upstream) -> (String, Value, Value) {
    let token = app.last().header("x-assertion").expect("no assertion").to_owned();
    let parts: Vec<&str> = token.split('.').collect();
    let read = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    let (head, claims) = (read(parts[0]), read(parts[1]));
    (token, head, claims)
}

async fn keys(browser: &Browser) -> Answer {
    browser.clone().send(empty(Request::builder().uri("/.vestibule/jwks.json"))).await
}

async fn kids(browser: &Browser) -> Vec<String> {
    let set: Value = serde_json::from_str(&keys(browser).await.body).unwrap();
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn it_is_about_the_user_and_no_client_brings_its_own() {
    // S64, S65, S72, S73
    let app = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/").header("x-assertion", "echoed"),
        _ => Reply::text("").header("X-Assertion", "echoed").header("x_assertion", "kept: no name of ours"),
    })
    .await;
    let (_proxy, mut browser) = Vestibule::with(&app, &site("")).await;
    let forged = |path: &str| {
        let request = navigation("GET", path).header("x-assertion", "forged").header("X_Assertion", "forged");
        empty(request.header("x-assertion", "twice").header("connection", "x-assertion"))
    };

    let anonymous = browser.send(forged("/public/x")).await;
    assert!(app.last().folded("x-assertion").is_empty());
    assert_eq!(anonymous.header("x-assertion"), None);
    assert_eq!(browser.log_in("alice").await.header("x-assertion"), None);
    for mut browser in [browser.clone(), browser.over_http2()] {
        let request = if browser.http2 { empty(navigation("GET", "/public/x")) } else { forged("/") };
        assert_eq!(browser.send(request).await.header("x-assertion"), None);

        let (token, head, claims) = last(&app);
        assert_eq!(app.last().folded("x-assertion"), [token.as_str()]);
        assert_eq!((&head["alg"], &head["kid"]), (&"ES256".into(), &kids(&browser).await[0].as_str().into()));
        for (claim, value) in [
            ("sub", "alice".into()),
            ("aud", "https://app.test".into()),
            ("iss", "https://app.test/.vestibule".into()),
            ("iat", Value::from(1_800_000_000)),
            ("exp", Value::from(1_800_000_060)),
        ] {
            assert_eq!(claims[claim], value, "{claim}");
        }
    }
}

#[tokio::test]
async fn everybody_gets_their_own_and_for_half_its_time_the_same() {
    let app = Upstream::legacy().await;
    let (proxy, mut alice) = Vestibule::with(&app, &site("")).await;
    let mut bob = proxy.browser();
    for (browser, user) in [(&mut alice, "alice"), (&mut bob, "bob")] {
        browser.log_in(user).await;
    }
    alice.fetch("/a").await;
    let (first, ..) = last(&app);

    bob.fetch("/b").await;
    assert_eq!(last(&app).2["sub"], "bob");
    proxy.advance(29 * SECOND);
    alice.fetch("/c").await;
    assert_eq!(last(&app).0, first);
    proxy.advance(SECOND);
    alice.fetch("/d").await;
    let (second, _, claims) = last(&app);
    assert_ne!(second, first);
    assert_eq!((&claims["iat"], &claims["exp"]), (&1_800_000_030.into(), &1_800_000_090.into()));

    // Another login is another session.
    let before = claims["sid"].clone();
    alice.log_in("alice").await;
    alice.fetch("/e").await;
    assert_ne!(last(&app).2["sid"], before);
}

#[tokio::test]
async fn the_keys_are_for_everybody() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &site(", lifetime = \"5s\"")).await;

    let published = keys(&browser).await;

    assert_eq!(published.status, 200);
    assert_eq!(published.header("content-type"), Some("application/jwk-set+json"));
    assert_eq!(published.header("cache-control"), Some("public, max-age=300"));
    assert!(published.ours().is_none());
    browser.log_in("alice").await;
    let same = browser.send(empty(labelled("GET", "/.vestibule/jwks.json", "cross-site", "cors", "empty"))).await;
    browser.fetch("/").await;
    assert_eq!(last(&app).2["exp"], 1_800_000_005);
    assert_eq!(same.header("cache-control"), Some("public, max-age=300"));
    assert_eq!(same.body, published.body);
    let ask = |method: &str| empty(Request::builder().method(method).uri("/.vestibule/jwks.json"));
    let head = browser.send(ask("HEAD")).await;
    assert_eq!((head.status.as_u16(), head.body.as_str()), (200, ""));
    browser.cookies.clear();
    let refused = browser.send(ask("POST")).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, Some("GET, HEAD")));
    assert!(app.received().iter().all(|request| !request.target.starts_with("/.vestibule")));
}

#[tokio::test]
async fn a_reload_keeps_the_keys_and_takes_the_rules() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::with(&app, SITE).await;
    browser.log_in("alice").await;
    browser.fetch("/").await;
    assert_eq!(app.last().header("x-assertion"), None);
    assert_eq!(keys(&browser).await.status, 404, "none where nothing is signed");

    proxy.reload(&site(""));
    let before = kids(&browser).await;
    browser.fetch("/").await;
    assert_eq!(last(&app).2["exp"], 1_800_000_060);
    proxy.reload(&site(", lifetime = \"10s\""));
    browser.fetch("/").await;

    assert_eq!(last(&app).2["exp"], 1_800_000_010);
    assert_eq!(kids(&browser).await, before);
}

#[tokio::test]
async fn keys_are_replaced_in_time() {
    let app = Upstream::legacy().await;
    let place = TempDir::new().unwrap();
    let rules = site(&format!(", keys = {:?}", place.path()));
    let (proxy, browser) = Vestibule::with(&app, &rules).await;
    let (other, _) = Vestibule::with(&app, &rules).await;
    let first = kids(&browser).await;
    assert_eq!(kids(&other.browser()).await, first, "both have the same");

    proxy.advance(29 * DAY);
    eventually_has(&browser, 2).await;
    let both = kids(&browser).await;
    assert_eq!(both[0], first[0]);
    other.advance(29 * DAY);
    eventually_has(&other.browser(), 2).await;
    assert_eq!(kids(&other.browser()).await, both);
    assert_eq!(signed_by(&app, &proxy).await, first[0]);
    proxy.advance(DAY);
    assert_eq!(signed_by(&app, &proxy).await, both[1]);
    assert_eq!(kids(&browser).await, both, "what was signed a moment ago is still verified");
    proxy.advance(Duration::from_secs(60 * 60));
    assert_eq!(kids(&browser).await, both[1..]);
    // A round is left out while another one is at the keys.
    for round in 0.. {
        proxy.advance(30 * SECOND);
        let is_gone = eventually("the old key's file is gone", || pem_files(place.path()) == 1);
        if timeout(SECOND, is_gone).await.is_ok() {
            break;
        }
        assert!(round < 10, "it is still there");
    }
}

async fn eventually_has(browser: &Browser, count: usize) {
    eventually_so(&format!("there are {count} keys"), async || kids(browser).await.len() == count).await;
}

async fn signed_by(app: &Upstream, proxy: &Vestibule) -> String {
    let mut browser = proxy.browser();
    browser.log_in("alice").await;
    browser.fetch("/").await;
    last(app).1["kid"].as_str().unwrap().to_owned()
}

fn pem_files(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "pem")).count()
}

#[tokio::test]
async fn its_times_are_those_of_the_day() {
    // S39, S73
    let app = Upstream::legacy().await;
    let rules = format!("{}[site.session]\nidle_timeout = \"45s\"\nabsolute_timeout = \"45s\"\n", site(""));
    let (proxy, mut browser) = Vestibule::with(&app, &rules).await;
    browser.log_in("alice").await;
    browser.fetch("/").await;
    let kid = last(&app).1["kid"].clone();

    // Also behind the moment when the key was made.
    for (step, set_to) in [1_800_003_600, 1_799_996_400_u64].into_iter().enumerate() {
        let age = 10 * (step as u64 + 1);
        proxy.advance(10 * SECOND);
        proxy.clock.set(Timestamp::from_millis(set_to * 1000));
        assert_eq!(browser.fetch("/").await.status, 200);

        let (_, head, claims) = last(&app);
        assert_eq!((&claims["iat"], &claims["exp"]), (&set_to.into(), &(set_to + 45 - age).into()));
        assert_eq!((&claims["auth_time"], &head["kid"]), (&(set_to - age).into(), &kid));
        assert_eq!(kids(&browser).await, [kid.as_str().unwrap()]);
    }
}

#[tokio::test]
async fn a_file_system_that_does_not_answer_holds_up_nothing_else() {
    // A key that somebody is still writing, without end, is read like one on a server that is gone.
    let (app, place, store) = (Upstream::legacy().await, TempDir::new().unwrap(), Arc::new(MemoryStore::default()));
    let rules = site(&format!(", keys = {:?}", place.path()));
    let (proxy, mut browser) = Vestibule::with_store(configure(&app.url(), &rules), store.clone()).await;
    browser.log_in("alice").await;
    let pipe = place.path().join("from-1700000000.pem");
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(&pipe).status().unwrap().success());

    proxy.advance(30 * SECOND);
    let writes = move || OpenOptions::new().write(true).open(pipe).unwrap();
    let _being_read = tokio::task::spawn_blocking(writes).await.unwrap();
    assert_eq!(browser.fetch("/").await.status, 200);
    proxy.reload_in_front_of(&app.url(), &rules);
    proxy.advance(DAY);

    let is_swept = async || store.population("https://app.test").await.unwrap().authenticated == 0;
    eventually_so("the session is swept", is_swept).await;
}

#[tokio::test]
async fn keys_lie_beside_the_sessions_and_stay_over_a_restart() {
    let app = Upstream::legacy().await;
    let place = TempDir::new().unwrap();
    let store = format!("file:{}", place.path().join("sessions.redb").display());
    let text = crate::support::file(&app.url(), &site("")).replace("memory:", &store);
    let mut all = BTreeSet::new();
    for _ in 0..2 {
        let mut program = Program::start(&text).await;
        all.extend(kids(&program.browser()).await);
        program.signal("TERM");
        program.ended().await;
    }

    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(pem_files(&place.path().join("assertion-keys")), 1);
}

#[tokio::test]
async fn keys_that_cannot_be_used_are_told_at_the_start() {
    let app = Upstream::legacy().await;
    let place = TempDir::new().unwrap();
    let file = place.path().join("from-1700000000.pem");
    std::fs::write(&file, "-----BEGIN PRIVATE KEY-----\nbroken\n-----END PRIVATE KEY-----\n").unwrap();
    let text = crate::support::file(&app.url(), &site(&format!(", keys = {:?}", place.path())));

    let (code, said) = Program::fail(&text).await;

    let expected = format!("[site.identity] assertion: {} is no key of ours: remove it", file.display());
    assert!(said.contains(&expected), "{said}");
    assert_eq!(code, 2);
    std::fs::remove_file(file).unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o770)).unwrap();
    let (code, said) = Program::fail(&text).await;
    let expected = format!("[site.identity] assertion: others can put keys into {}: ", place.path().display());
    assert!(said.contains(&expected) && said.contains("chmod go-w"), "{said}");
    assert_eq!(code, 2);
}
