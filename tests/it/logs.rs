//! The log: what each event says, and what no line ever says.

use std::fs;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::Full;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::eventually;
use crate::support::file;
use crate::support::labelled;
use crate::support::program::Program;
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
    while browser.session() == first {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(send(&mut browser, laden("POST", "/notes?token=canary"), "note=canary-note").await, 200);
    }
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
    program.answered(34).await;

    let log = program.text();
    let libraries = program.lines().iter().filter(|line| line["level"] == "trace").count();
    assert!(libraries > 20, "lines of libraries are looked at, too: {libraries}");
    assert_eq!(program.events("session.rotated").len(), 2);
    holds_no_secret(&log, &ids);

    // The same as readable text.
    let already = log.lines().count();
    fs::write(program.file(), talkative(&app, "text")).unwrap();
    program.signal("HUP");
    let written = || program.text().lines().skip(already).collect::<Vec<_>>().join("\n");
    eventually("text", || written().contains(" config.reloaded ")).await;
    let ids = story(program.browser().over_http2()).await;
    eventually("the end", || written().matches(" session.refused ").count() >= 4).await;
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
