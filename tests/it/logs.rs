//! The log: what each event says, and what no line ever says.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;
use regex::Regex;
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Wire;
use crate::support::eventually;
use crate::support::eventually_so;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;
use crate::support::read_head;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::open;

/// What no line may hold: everything secret in the story has it.
const CANARY: &str = "canary";

/// An application whose cookies, fields and bodies all sing.
async fn singing_app() -> Upstream {
    Upstream::start(|request| match (request.method.as_str(), request.path()) {
        ("GET", "/login") => Reply::text("<form>canary-page")
            .header("set-cookie", "PHPSESSID=canary-anonymous; path=/")
            .header("set-cookie", "theme=canary-theme; path=/")
            .header("set-cookie", "__Host-session=canary-imitation; path=/; secure"),
        ("POST", "/login") if request.field("password").as_deref() == Some("canary-password") => {
            Reply::redirect("/?ticket=canary-ticket")
                .header("set-cookie", "PHPSESSID=canary-session; path=/; HttpOnly")
                .header("www-authenticate", "Digest canary-nonce")
        }
        ("POST", "/login") => Reply::text("<form>canary-wrong"),
        (_, "/logout") => Reply::redirect("/login").header("set-cookie", "PHPSESSID=canary-gone; Max-Age=0"),
        _ => Reply::text("canary-private").header("set-cookie", "PHPSESSID=canary-later; path=/; HttpOnly"),
    })
    .await
}

/// Everything that can be secret in a request.
fn laden(method: &str, target: &str) -> http::request::Builder {
    let basic = format!("Basic {}", STANDARD.encode("alice:canary-basic"));
    labelled(method, target, "same-origin", "cors", "empty")
        .header("origin", "https://app.test")
        .header("referer", "https://app.test/x?canary-referer")
        .header("authorization", basic)
        .header("x-api-key", "canary-key")
        .header("content-type", "application/x-www-form-urlencoded")
}

async fn send(browser: &mut Browser, request: http::request::Builder, body: &'static str) -> u16 {
    browser.send(request.body(Full::from(body)).unwrap()).await.status.as_u16()
}

/// A login, wrong and right, work, rotation, a logout and a replay; the session IDs that were seen.
async fn story(mut browser: Browser) -> Vec<String> {
    let mut ids = Vec::new();
    send(&mut browser, laden("GET", "/login"), "").await;
    ids.push(browser.session().expect("an anonymous session"));
    send(&mut browser, laden("POST", "/login?token=canary"), "username=canary-typed&password=canary-mistyped").await;
    send(&mut browser, laden("POST", "/login?token=canary"), "username=a&username=canary-twice&password=x").await;
    assert_eq!(
        send(&mut browser, laden("POST", "/login?token=canary"), "username=alice&password=canary-password").await,
        302
    );
    ids.extend(browser.session());
    let first = browser.session();
    eventually_so("the ID is rotated", async || {
        assert_eq!(send(&mut browser, laden("POST", "/notes?token=canary"), "note=canary-note").await, 200);
        browser.session() != first
    })
    .await;
    ids.extend(browser.session());
    let cross = labelled("POST", "/x?canary-cross", "cross-site", "navigate", "document");
    assert_eq!(send(&mut browser, cross.header("origin", "https://evil.test"), "canary-crossed").await, 403);
    assert_eq!(send(&mut browser, laden("POST", "/logout?token=canary"), "canary-logout").await, 302);
    for id in ids.clone() {
        assert_eq!(browser.with_session(&id).fetch("/").await.status, 401);
    }
    assert_eq!(browser.with_session("canary-malformed").fetch("/").await.status, 401);
    ids
}

/// The usual site with a rotation that is soon, and everything logged.
fn talkative(upstream: &Upstream, format: &str) -> String {
    let session = "[site.session]\nrotate_every = \"1s\"\nrotation_grace = \"100ms\"\n";
    let log = format!("[log]\nlevel = \"trace\"\nformat = \"{format}\"\n");
    file(&upstream.url(), &format!("{SITE}{session}{log}"))
}

/// Fails if a secret is in the text, as it is or in the ways in which programs print bytes.
fn holds_no_secret(log: &str, ids: &[String]) {
    let bytes: Vec<_> = CANARY.bytes().map(|byte| byte.to_string()).collect();
    let hex: String = CANARY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let base64 = STANDARD.encode("alice:canary-basic");
    let mut secrets = vec![CANARY.to_owned(), bytes.join(", "), hex, base64];
    // Selector and verifier are half of it each.
    secrets.extend(ids.iter().flat_map(|id| [id[..20].to_owned(), id[23..].to_owned()]));
    for line in log.lines() {
        let secret = secrets.iter().find(|secret| line.contains(secret.as_str()));
        assert!(secret.is_none(), "{secret:?} in {line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_line_holds_a_secret_not_even_at_trace() {
    // S161, VR-39
    let app = singing_app().await;
    let program = Program::start(&talkative(&app, "json")).await;

    let mut ids = story(program.browser()).await;
    ids.extend(story(program.browser().over_http2()).await);
    program
        .browser()
        .raw(b"GET / HTTP/1.1\r\nhost: app.test\r\nx-canary: \x00canary\r\nconnection: close\r\n\r\n")
        .await;
    program.browser().raw(b"GET /%63anary?canary HTTP/1.1\r\nhost: canary.test\r\nconnection: close\r\n\r\n").await;
    let is_last = |line: &Value| line["status"] == 421;
    eventually("the last line", || program.events("access").iter().any(is_last)).await;

    let log = program.text();
    let libraries = program.lines().iter().filter(|line| line["level"] == "trace").count();
    assert!(libraries > 20, "lines of libraries are looked at, too: {libraries}");
    // On a slow machine also those of nobody yet.
    let rotated = program.events("session.rotated");
    assert_eq!(rotated.iter().filter(|line| line["user"] == "alice").count(), 2);
    holds_no_secret(&log, &ids);

    // The same as readable text.
    let already = log.lines().count();
    fs::write(program.file(), talkative(&app, "text")).unwrap();
    program.signal("HUP");
    let written = || program.text().lines().skip(already).collect::<Vec<_>>().join("\n");
    eventually("text", || written().contains(" config.reloaded ")).await;
    let ids = story(program.browser().over_http2()).await;
    eventually("the end", || written().contains(" reason=malformed")).await;
    assert!(written().contains(" login.attempt ") && written().contains(" outcome=success "), "{}", written());
    holds_no_secret(&written(), &ids);
}

#[tokio::test]
async fn what_passes_through_a_websocket_is_not_logged() {
    // S161, VR-39
    let app = EchoApp::start().await;
    let program = Program::start(&talkative(&app.upstream, "json")).await;
    let mut browser = program.browser();
    browser.log_in("alice").await;

    let (mut socket, _) = open(&browser, "/ws?token=canary", &[]).await.unwrap();
    assert!(echoed(&mut socket, "canary").await);
    let ids = [browser.session().unwrap()];
    browser.get("/logout?token=canary").await;
    app.sees("gone").await;

    program.answered(3).await;
    holds_no_secret(&program.text(), &ids);
}

/// The first line of this event with these values.
fn line(program: &Program, event: &str, with: &[(&str, &str)]) -> Value {
    let has = |line: &Value| with.iter().all(|(name, value)| line[*name].as_str() == Some(*value));
    let found = program.events(event).into_iter().find(has);
    found.unwrap_or_else(|| panic!("no {event} with {with:?} in\n{}", program.text()))
}

/// An application with a login, in front of it a rotation that is soon; beside it one that shows a
/// certificate which nobody trusts.
async fn eventful(app: &Upstream, stranger: &str) -> Program {
    let session = "[site.session]\nrotate_every = \"1s\"\nrotation_grace = \"100ms\"\n";
    let site = SITE.replace("public =", "deny = \"/closed\"\npublic =");
    let other =
        format!("[[site]]\norigin = \"https://other.test\"\nupstream = \"{stranger}\"\naccess.public = \"/*\"\n");
    Program::start(&file(&app.url(), &format!("{site}{session}{other}"))).await
}

/// Something of everything that is logged about sessions and requests.
async fn eventful_story(program: &Program) {
    let mut browser = program.browser();
    browser.get("/login").await;
    browser.post("/login", &[("username", "mallory"), ("password", "wrong")]).await;
    browser.log_in("alice").await;
    let first = browser.session().unwrap();
    eventually_so("the ID is rotated", async || {
        browser.fetch("/").await;
        browser.session().as_ref() != Some(&first)
    })
    .await;
    let mut elsewhere = browser.clone();
    elsewhere.from = [127, 9, 9, 9].into();
    elsewhere.fetch("/").await;
    browser.with_session("nonsense").fetch("/").await;
    browser.with_session(&"A".repeat(43)).fetch("/").await;
    browser.get("/closed").await;
    let cross = labelled("POST", "/x", "cross-site", "navigate", "document").header("origin", "https://evil.test");
    browser.send(cross.body(Full::default()).unwrap()).await;
    program.browser().raw(b"GET / HTTP/1.1\r\nhost: other.test\r\nconnection: close\r\n\r\n").await;
    program.browser().raw(b"GET / HTTP/1.1\r\nhost: nobody.test\r\nconnection: close\r\n\r\n").await;
    eventually_so("the ID before has retired", async || {
        browser.fetch("/").await;
        browser.with_session(&first).fetch("/").await.status == 401
    })
    .await;
    browser.log_in("alice").await;
    browser.get("/logout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_says_when_what_whose_and_in_which_request() {
    // S159, S160
    let app = Upstream::legacy().await;
    let stranger = Upstream::legacy().await;
    let program = eventful(&app, &stranger.url().replace("http:", "https:")).await;

    eventful_story(&program).await;
    program.signal("HUP");
    program.event("config.reloaded").await;
    fs::write(program.file(), "nonsense").unwrap();
    program.signal("HUP");
    program.event("config.refused").await;

    let time = Regex::new(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$").unwrap();
    for line in program.lines() {
        assert!(time.is_match(line["timestamp"].as_str().unwrap()) && line["level"].is_string(), "{line}");
        assert!(line["event"].is_string(), "{line}");
    }
    let alice = ("user", "alice");
    for (event, with, names_session) in [
        ("session.created", &[][..], true),
        ("login.attempt", &[("outcome", "failure")], true),
        ("login.attempt", &[("outcome", "success"), alice], true),
        ("session.ended", &[("reason", "login")], true),
        ("session.authenticated", &[alice], true),
        ("session.rotated", &[alice], true),
        ("session.client_changed", &[("changed", "address"), ("client", "127.9.9.9"), alice], true),
        ("session.refused", &[("reason", "binding"), ("client", "127.9.9.9"), alice], true),
        ("session.refused", &[("reason", "reuse"), ("holder", "127.0.0.1"), alice], true),
        ("session.ended", &[("reason", "reuse"), alice], true),
        ("session.refused", &[("reason", "malformed")], false),
        ("session.refused", &[("reason", "unknown")], true),
        ("csrf.refused", &[("reason", "sec-fetch-site"), ("path", "/x"), alice], true),
        ("access.denied", &[("path", "/closed"), alice], true),
        ("session.ended", &[("reason", "logout"), alice], true),
        ("logout.forwarded", &[alice], true),
        ("access", &[("method", "GET"), ("path", "/logout"), alice], true),
        ("upstream.failed", &[("site", "https://other.test")], false),
        ("request.refused", &[], false),
    ] {
        let line = line(&program, event, with);
        assert!(line["request_id"].as_str().is_some_and(|id| id.len() == 16), "{line}");
        assert!(line["client"].as_str().is_some_and(|client| client.starts_with("127.")), "{line}");
        assert_eq!(line["session"].as_str().map(str::len), names_session.then_some(16), "{line}");
    }
    let refused = line(&program, "config.refused", &[("level", "error")]);
    assert!(refused["error"].as_str().unwrap().contains("proxy.toml:1:"), "{refused}");
    let failed = line(&program, "login.attempt", &[("outcome", "failure")]);
    assert_eq!(failed["criteria"], "success.status=no(200) success.location_not=no(no location)");
    assert!(!program.text().contains("mallory"), "never the typed name of a failed attempt");
    let [ended, asked] = [("session.ended", ("reason", "logout")), ("access", ("path", "/logout"))]
        .map(|(event, with)| line(&program, event, &[with])["request_id"].clone());
    assert_eq!(ended, asked, "the lines of one request have one number");
}

#[tokio::test]
async fn nothing_that_a_client_sends_forges_a_line() {
    // S162
    let app = Upstream::legacy().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let forged = "alice\r\n{\"event\":\"session.ended\",\"reason\":\"logout\"}\u{9b}2J\u{202e}";

    let mut browser = program.browser();
    browser.get("/public/%0a%0d{\"event\":\"forged\"}%1b%5b2J").await;
    browser.get("/public/a%0d%0a%7b%22event%22:%22forged%22%7d").await;
    browser.post("/login", &[("username", forged), ("password", "secret")]).await;
    let mut raw = b"GET /public/x HTTP/1.1\r\nhost: app.test\r\nconnection: close\r\ncookie: __Host-session=".to_vec();
    raw.extend(b"\xff\x9b2J\r\nuser-agent: \x9b31m\xc2\x9b\r\nx-forwarded-for: \x1b[2J\r\n\r\n");
    program.browser().raw(&raw).await;
    program.answered(3).await;
    eventually("the last is refused as well", || program.events("request.refused").len() == 3).await;

    let text = program.text();
    assert!(text.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|line| line.is_object())));
    assert!(program.events("forged").is_empty() && program.events("session.ended").is_empty());
    let is_plain = |character: char| !character.is_control() && character != '\u{202e}';
    assert!(text.lines().all(|line| line.chars().all(is_plain)), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_application_says_to_a_logout_is_in_the_log() {
    // VR-09: also when it says nothing.
    let wire = Wire::start(|_, mut stream: TcpStream| async move {
        loop {
            let head = read_head(&mut stream).await;
            let status = match head.split_once("/logout?").map(|(_, rest)| &rest[..3]) {
                None if head.is_empty() => return,
                None => "302 Found\r\nLocation: /",
                Some("302") => "302 Found\r\nLocation: /login",
                Some("500") => "500 Internal Server Error",
                Some(_) => return,
            };
            stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes()).await.unwrap();
        }
    })
    .await;
    let program = Program::start(&file(&wire.url(), SITE)).await;
    for how in ["302", "500", "cut"] {
        let mut browser = program.browser();
        browser.log_in("alice").await;
        browser.fetch(&format!("/logout?{how}")).await;
    }
    program.event("upstream.failed").await;

    let (ended, told) = (program.events("session.ended"), program.events("logout.forwarded"));
    assert_eq!(told.iter().map(|line| line["status"].as_u64()).collect::<Vec<_>>(), [Some(302), Some(500)]);
    let failed = program.events("upstream.failed");
    let requests = |lines: &[Value]| lines.iter().map(|line| line["request_id"].clone()).collect::<Vec<_>>();
    assert_eq!(requests(&ended), requests(&[told, failed].concat()));
    assert_eq!(ended.len(), 3);
}
