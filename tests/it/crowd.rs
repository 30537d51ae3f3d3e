//! The sessions of one user together: how many there may be, and what the application ends.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::BodyExt;
use http_body_util::Full;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::Browser;
use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::empty;
use crate::support::labelled;
use crate::support::program::Program;
use crate::support::read_head;

const MINUTE: Duration = Duration::from_secs(60);

async fn logged_in(proxy: &Vestibule, user: &str) -> Browser {
    let mut browser = proxy.browser();
    browser.log_in(user).await;
    proxy.advance(Duration::from_secs(1));
    browser
}

async fn statuses(browsers: &mut [Browser]) -> Vec<u16> {
    let mut all = Vec::new();
    for browser in browsers {
        all.push(browser.fetch("/").await.status.as_u16());
    }
    all
}

fn at_most(most: u32) -> String {
    format!("{SITE}\n[site.session]\nmax_per_user = {most}")
}

#[tokio::test]
async fn the_oldest_session_of_a_user_goes() {
    // S47
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::with(&app, &at_most(2)).await;
    let mut browsers = Vec::new();
    for user in ["alice", "bob", "alice", "alice", "bob"] {
        browsers.push(logged_in(&proxy, user).await);
    }
    assert_eq!(statuses(&mut browsers).await, [401, 200, 200, 200, 200]);

    // A login within a session of one's own replaces that one.
    browsers[2].log_in("alice").await;

    assert_eq!(statuses(&mut browsers).await, [401, 200, 200, 200, 200]);
}

#[tokio::test]
async fn what_has_expired_pushes_nobody_out() {
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::with(&app, &at_most(2)).await;
    let mut browsers = vec![logged_in(&proxy, "alice").await, logged_in(&proxy, "alice").await];
    proxy.advance(29 * MINUTE);
    assert_eq!(browsers[0].fetch("/").await.status, 200);
    proxy.advance(2 * MINUTE);

    browsers.push(logged_in(&proxy, "alice").await);

    assert_eq!(statuses(&mut browsers).await, [200, 401, 200]);
}

#[tokio::test]
async fn logins_at_the_same_time_leave_no_more_than_there_may_be() {
    // S182
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::with(&app, &at_most(1)).await;
    let logins: Vec<_> = (0..20)
        .map(|_| {
            let mut browser = proxy.browser();
            tokio::spawn(async move {
                browser.post("/login", &[("username", "alice"), ("password", "secret")]).await;
                browser
            })
        })
        .collect();
    let mut browsers = Vec::new();
    for login in logins {
        browsers.push(login.await.unwrap());
    }

    let inside = statuses(&mut browsers).await.into_iter().filter(|status| *status == 200).count();

    assert_eq!(inside, 1);
}

#[tokio::test]
async fn a_displaced_session_is_logged_as_such() {
    let app = Upstream::legacy().await;
    let program = Program::start(&crate::support::file(&app.url(), &at_most(1))).await;
    let (mut first, mut second) = (program.browser(), program.browser());
    first.log_in("alice").await;
    second.log_in("alice").await;

    assert_eq!(program.event("session.ended").await["reason"], "displaced");
    assert_eq!(first.fetch("/").await.status, 401);
}

/// Ends what the path says, and sets a cookie that must not be kept.
fn ending(request: &Received) -> Reply {
    match request.path() {
        "/login" => match request.target.split_once("?end=") {
            Some((_, what)) => Reply::redirect("/").header("x-end", what),
            None => Reply::redirect("/"),
        },
        "/end/session" => Reply::text("bye").header("x-end", "session").header("set-cookie", "late=1; HttpOnly"),
        "/end/user" => Reply::text("bye").header("x-end", "USER"),
        "/end/nothing" => Reply::text("hm").header("x-end", "everything"),
        "/logout" => Reply::redirect("/login").header("x-end", "user"),
        _ => Reply::text("private"),
    }
}

fn with_end_header() -> String {
    SITE.replace("path = \"/logout\"", "path = \"/logout\"\nend_header = \"X-End\"")
}

#[tokio::test]
async fn the_application_ends_sessions_by_a_header() {
    // S45, S50
    let app = Upstream::start(ending).await;
    for (path, protocol, expected) in [
        ("/end/nothing", "http1", [200, 200, 200]),
        ("/end/session", "http1", [401, 200, 200]),
        ("/end/user", "http1", [401, 401, 200]),
        ("/logout", "http1", [401, 401, 200]),
        ("/end/session", "h2", [401, 200, 200]),
        ("/end/user", "h2", [401, 401, 200]),
        ("/logout", "h2", [401, 401, 200]),
    ] {
        let site = format!("upstream_protocol = {protocol:?}\n{}", with_end_header());
        let (proxy, _) = Vestibule::with(&app, &site).await;
        let mut browsers = Vec::new();
        for user in ["alice", "alice", "bob"] {
            browsers.push(logged_in(&proxy, user).await);
        }

        // What a client sends says nothing.
        let forged = labelled("GET", "/", "none", "navigate", "document").header("x-end", "user");
        assert_eq!(browsers[2].send(empty(forged)).await.status, 200);
        let answer = browsers[0].get(path).await;

        assert!(answer.header("x-end").is_none(), "{path}");
        let has_ended = expected[0] == 401;
        let cookies: BTreeSet<_> =
            answer.set_cookies().iter().map(|line| line.split('=').next().unwrap().to_owned()).collect();
        let ours: BTreeSet<_> = has_ended.then(|| "__Host-session".to_owned()).into_iter().collect();
        assert_eq!(cookies, ours, "{path}: {answer:?}");
        assert_eq!(answer.header("clear-site-data").is_some(), has_ended, "{path}");
        assert_eq!(statuses(&mut browsers).await, expected, "{path}");
    }
}

#[tokio::test]
async fn the_answer_to_a_login_may_end_what_it_begins() {
    // S50
    let app = Upstream::start(ending).await;
    for (end, expected) in [("session", [200, 200]), ("user", [401, 200])] {
        let (proxy, mut newcomer) = Vestibule::with(&app, &with_end_header()).await;
        let mut browsers = [logged_in(&proxy, "alice").await, logged_in(&proxy, "bob").await];

        let answer = newcomer.post(&format!("/login?end={end}"), &[("username", "alice")]).await;

        assert_eq!((answer.status.as_u16(), answer.header("x-end")), (302, None));
        assert!(newcomer.session().is_none(), "{answer:?}");
        assert_eq!(newcomer.fetch("/").await.status, 401);
        assert_eq!(statuses(&mut browsers).await, expected, "{end}");
    }
}

#[tokio::test]
async fn only_the_head_of_the_answer_ends_a_session() {
    // S50: neither what comes before it nor what comes after it, and no client sees those.
    let trailing = Upstream::start(|request| match request.path() {
        "/login" => Reply::redirect("/"),
        _ => {
            let sent = HeaderMap::from_iter([("x-end".parse().unwrap(), "user".parse().unwrap())]);
            let body = Full::new(Bytes::from("x")).with_trailers(async move { Some(Ok(sent)) });
            Reply::status(200).stream(body.map_err(|never| match never {}))
        }
    })
    .await;
    let hinting = Wire::start(|_, mut stream: TcpStream| async move {
        let head = read_head(&mut stream).await;
        let answer: &[u8] = match head.starts_with("POST") {
            true => b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            false => {
                b"HTTP/1.1 103 Early Hints\r\nX-End: user\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            }
        };
        stream.write_all(answer).await.unwrap();
        // What is left of the form.
        let _ = stream.read(&mut [0; 1024]).await;
    })
    .await;
    for (url, protocol) in [(trailing.url(), "h2"), (hinting.url(), "http1")] {
        let site = format!("upstream_protocol = {protocol:?}\n{}", with_end_header());
        let (_proxy, browser) = Vestibule::at(&url, &site).await;
        let mut browser = browser.over_http2();
        browser.log_in("alice").await;

        let request = labelled("GET", "/", "none", "navigate", "document").header("te", "trailers");
        let answer = browser.open(empty(request)).await;

        assert_eq!(answer.headers().get("x-end"), None);
        assert!(answer.into_body().collect().await.unwrap().trailers().is_none_or(|trailers| trailers.is_empty()));
        assert_eq!(browser.fetch("/").await.status, 200, "{protocol}");
    }
}
