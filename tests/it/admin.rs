//! The admin interface: who may ask, what is listed, what ends; and `vestibule sessions` on top of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use vestibule::app::StartError;
use vestibule::config::Config;
use vestibule::config::ListenAddress;

use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::desk::Desk;
use crate::support::eventually;
use crate::support::file;
use crate::support::parse;
use crate::support::program::Program;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::next;
use crate::support::websocket::open;

const MINUTE: Duration = Duration::from_secs(60);
const TOKEN: &str = "6d1f3e0a9b7c4d528e16f0a3b5c7d9e1";

/// The usual file with its admin interface in this directory.
fn administered(upstream: &str, place: &TempDir) -> Config {
    let socket = format!("listen = \"unix:{}\"", place.path().join("admin.sock").display());
    parse(&file(upstream, SITE).replace("listen = \"off\"", &socket))
}

fn desk(place: &TempDir) -> Desk {
    Desk(ListenAddress::Unix(place.path().join("admin.sock")))
}

/// Browsers of these users.
async fn logged_in(proxy: &Vestibule, users: &[&str]) -> Vec<Browser> {
    let mut browsers = Vec::new();
    for user in users {
        let mut browser = proxy.browser();
        browser.log_in(user).await;
        browsers.push(browser);
    }
    browsers
}

async fn statuses(browsers: &mut [Browser]) -> Vec<u16> {
    let mut all = Vec::new();
    for browser in browsers {
        all.push(browser.fetch("/").await.status.as_u16());
    }
    all
}

#[tokio::test]
async fn sessions_are_listed_shown_and_ended() {
    // S190
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (proxy, mut visitor) = Vestibule::of(administered(&app.url(), &place)).await;
    let desk = desk(&place);
    visitor.get("/login").await;
    let mut browsers = logged_in(&proxy, &["alice", "alice", "bob", "carol"]).await;
    proxy.advance(MINUTE);
    assert_eq!(browsers[0].fetch("/").await.status, 200);

    let all = desk.sessions("");

    let users: Vec<_> = all.iter().map(|session| session["user"].as_str()).collect();
    assert_eq!(users, [Some("alice"), Some("alice"), Some("bob"), Some("carol"), None], "and a visitor");
    let alices = desk.sessions("?user=alice");
    let used = alices.iter().find(|session| session["last_seen"] != session["created"]).unwrap();
    let expected = serde_json::json!({
        "ref": used["ref"], "user": "alice", "site": "https://app.test", "created": "2027-01-15T08:00:00Z",
        "authenticated": "2027-01-15T08:00:00Z", "last_seen": "2027-01-15T08:01:00Z",
        "expires": "2027-01-15T08:31:00Z", "address": "127.0.0.1", "user_agent": browsers[0].user_agent
    });
    assert_eq!(*used, expected);
    let session_ref = used["ref"].as_str().unwrap();
    let shown = desk.get(&format!("/sessions/{session_ref}"));
    assert_eq!((shown.status, shown.header("content-type"), shown.json()), (200, Some("application/json"), expected));
    assert_eq!(shown.header("cache-control"), Some("no-store"));
    let mut thief = proxy.browser();
    thief.cookies.insert("__Host-session".to_owned(), session_ref.to_owned());
    assert_eq!(thief.fetch("/").await.status, 401, "what is listed opens nothing");

    assert_eq!(desk.delete(&format!("/sessions/{session_ref}")).json(), serde_json::json!({ "revoked": 1 }));
    assert_eq!(statuses(&mut browsers).await, [401, 200, 200, 200]);
    let gone = desk.delete(&format!("/sessions/{session_ref}"));
    assert_eq!((gone.status, gone.header("content-type")), (404, Some("application/problem+json")));
    assert_eq!(gone.json()["status"], 404);
    assert_eq!(desk.delete("/sessions?user=alice").json()["revoked"], 1);
    assert_eq!(statuses(&mut browsers).await, [401, 401, 200, 200]);
    assert_eq!(desk.delete("/sessions?user=nobody").json()["revoked"], 0);
    assert_eq!(desk.delete("/sessions?all=true").json()["revoked"], 3);
    assert_eq!(statuses(&mut browsers).await, [401, 401, 401, 401]);
    assert_eq!(desk.sessions(""), Vec::<Value>::new());
}

#[tokio::test]
async fn a_long_list_comes_in_pages_and_without_what_has_expired() {
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (proxy, _) = Vestibule::of(administered(&app.url(), &place)).await;
    let desk = desk(&place);
    logged_in(&proxy, &["carol"]).await;
    proxy.advance(29 * MINUTE);
    logged_in(&proxy, &["alice", "alice", "alice", "bob", "bob"]).await;
    proxy.advance(2 * MINUTE);

    let (mut pages, mut users, mut target) = (0, BTreeMap::new(), "/sessions?limit=2".to_owned());
    loop {
        let page = desk.get(&target).json();
        let sessions = page["sessions"].as_array().unwrap();
        assert!(sessions.len() <= 2);
        users.extend(sessions.iter().map(|session| (session["ref"].to_string(), session["user"].to_string())));
        pages += 1;
        let Some(next) = page["next"].as_str() else { break };
        target = format!("/sessions?limit=2&cursor={next}");
    }

    let mut users: Vec<_> = users.into_values().collect();
    users.sort_unstable();
    assert_eq!(users, ["\"alice\"", "\"alice\"", "\"alice\"", "\"bob\"", "\"bob\""]);
    assert!((3..=4).contains(&pages), "{pages}");
    for wrong in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=x", "?all=true", "?user=", "?user=a&user=b"] {
        let said = desk.get(&format!("/sessions{wrong}"));
        assert_eq!((said.status, said.header("content-type")), (400, Some("application/problem+json")), "{wrong}");
    }
}

#[tokio::test]
async fn what_is_open_ends_with_the_session_that_is_revoked() {
    // S46, S49
    let (app, place) = (EchoApp::start().await, TempDir::new().unwrap());
    let (proxy, mut browser) = Vestibule::of(administered(&app.upstream.url(), &place)).await;
    browser.log_in("alice").await;
    let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();
    assert!(echoed(&mut socket, "hello").await);

    // The clock stands still: nothing but the revocation closes it.
    assert_eq!(desk(&place).delete("/sessions?user=alice").json()["revoked"], 1);

    let closed = tokio::time::timeout(Duration::from_secs(10), async { while next(&mut socket).await.is_ok() {} });
    assert!(closed.await.is_ok());
    drop(proxy);
}

#[tokio::test]
async fn only_delete_ends_sessions_and_no_page_does() {
    // S191
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (proxy, _) = Vestibule::of(administered(&app.url(), &place)).await;
    let desk = desk(&place);
    let mut browsers = logged_in(&proxy, &["alice"]).await;
    let one = format!("/sessions/{}", desk.sessions("")[0]["ref"].as_str().unwrap());
    for target in [one.as_str(), "/sessions?all=true", "/sessions?user=alice"] {
        for method in ["POST", "PUT", "PATCH"] {
            let said = desk.curl(target, &["--request", method]);
            assert_eq!((said.status, said.header("allow")), (405, Some("GET, HEAD, DELETE")), "{method} {target}");
        }
        for label in ["Origin: https://evil.test", "Origin: null", "Sec-Fetch-Site: cross-site"] {
            let said = desk.curl(target, &["--request", "DELETE", "--header", label]);
            assert_eq!(said.status, 403, "{label} {target}");
        }
        desk.get(target);
    }
    for target in ["/sessions", "/sessions?all=1", "/sessions?all=true&user=alice", "/sessions?users=alice"] {
        assert_eq!(desk.delete(target).status, 400, "{target}");
    }
    assert_eq!(desk.get("/sessions/x/revoke").status, 404);

    assert_eq!(statuses(&mut browsers).await, [200]);
}

#[tokio::test]
async fn by_tcp_it_takes_the_token() {
    // S188, S189
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let token = place.path().join("token");
    fs::write(&token, format!("{TOKEN}\n")).unwrap();
    let admin = format!("listen = \"127.0.0.1:0\"\ntoken = \"file:{}\"", token.display());
    let text = file(&app.url(), SITE).replace("listen = \"off\"", &admin);
    let (proxy, _) = Vestibule::of(parse(&text)).await;
    logged_in(&proxy, &["alice"]).await;
    let desk = Desk(proxy.admin[0].clone());
    let right = format!("Authorization: Bearer {TOKEN}");

    assert_eq!(desk.curl("/sessions", &["--header", &right]).json()["sessions"][0]["user"], "alice");
    for open in ["/healthz", "/readyz"] {
        assert_eq!(desk.get(open).status, 200, "S192");
    }
    for target in ["/sessions", "/openapi.json", "/nothing"] {
        let said = desk.get(target);
        assert_eq!((said.status, said.header("www-authenticate")), (401, Some("Bearer")), "{target}");
        assert!(!said.body.contains("alice"));
    }
    let mut wrong = Vec::new();
    for _ in 0..12 {
        wrong.push(desk.curl("/sessions", &["--header", "Authorization: Bearer guess"]).status);
    }
    assert_eq!(wrong, [vec![401; 10], vec![429; 2]].concat());
    assert_eq!(desk.curl("/sessions", &["--header", &right]).status, 200, "its owner is not locked out");
}

#[tokio::test]
async fn who_fills_one_socket_keeps_nobody_from_another() {
    // S173
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (token, socket) = (place.path().join("token"), place.path().join("admin.sock"));
    fs::write(&token, TOKEN).unwrap();
    let listen = format!("listen = [\"127.0.0.1:0\", \"unix:{}\"]", socket.display());
    let admin = format!("{listen}\ntoken = \"file:{}\"", token.display());
    let (proxy, _) = Vestibule::of(parse(&file(&app.url(), SITE).replace("listen = \"off\"", &admin))).await;
    let ListenAddress::Tcp(tcp) = proxy.admin[0] else { panic!("{:?}", proxy.admin) };
    let mut held = Vec::new();
    for _ in 0..40 {
        held.push(tokio::net::TcpStream::connect(tcp).await.unwrap());
    }
    // Those that are in are answered; the others wait.
    for stream in &mut held[..32] {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'H');
    }

    for _ in 0..3 {
        assert_eq!(desk(&place).get("/healthz").status, 200);
    }
}

#[tokio::test]
async fn a_token_that_cannot_be_used_is_told_at_the_start() {
    // S189
    let place = TempDir::new().unwrap();
    let token = place.path().join("token");
    let admin = format!("listen = \"127.0.0.1:0\"\ntoken = \"file:{}\"", token.display());
    let text = file("http://127.0.0.1:1", SITE).replace("listen = \"off\"", &admin);
    for (content, expected) in
        [(None, "there is nothing to read at file:"), (Some("hunter2"), "shorter than 128 bits"), (Some(""), "128")]
    {
        if let Some(content) = content {
            fs::write(&token, content).unwrap();
        }
        let (code, says) = Program::fail(&text).await;
        assert_eq!(code, 2, "{says}");
        assert!(says.contains("admin.token: ") && says.contains(expected) && !says.contains("hunter2"), "{says}");
    }
}

#[tokio::test]
async fn nothing_of_it_is_on_the_public_port() {
    // S188
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (proxy, mut visitor) = Vestibule::of(administered(&app.url(), &place)).await;
    let mut browsers = logged_in(&proxy, &["alice"]).await;
    for path in ["/sessions", "/metrics", "/healthz", "/readyz", "/openapi.json", "/.vestibule/sessions"] {
        let expected = if path.starts_with("/.vestibule") { 404 } else { 401 };
        assert_eq!(visitor.fetch(path).await.status, expected, "{path}");
        let said = browsers[0].fetch(path).await;
        assert!(!said.body.contains("sessions\""), "{path}: {}", said.body);
    }
}

#[tokio::test]
async fn readiness_is_that_of_the_store() {
    // S192
    let (app, place, store) = (Upstream::legacy().await, TempDir::new().unwrap(), BrokenStore::new());
    let (proxy, _) = Vestibule::with_store(administered(&app.url(), &place), store.clone()).await;
    let desk = desk(&place);
    assert_eq!((desk.get("/readyz").status, desk.get("/healthz").body.as_str()), (200, "ok\n"));

    store.fails();

    let said = desk.get("/readyz");
    assert_eq!((said.status, said.header("retry-after")), (503, Some("5")));
    assert_eq!(desk.get("/healthz").status, 200);
    assert_eq!((desk.get("/sessions").status, desk.delete("/sessions?all=true").status), (503, 503));
    store.works();
    assert_eq!(desk.get("/readyz").status, 200);
    drop(proxy);
}

#[tokio::test]
async fn its_description_is_served() {
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (_proxy, _) = Vestibule::of(administered(&app.url(), &place)).await;

    let said = desk(&place).get("/openapi.json");

    assert_eq!((said.status, said.header("content-type")), (200, Some("application/json")));
    assert_eq!(said.json()["openapi"], "3.1.0");
}

#[tokio::test]
async fn another_place_needs_a_restart() {
    let (app, place) = (Upstream::legacy().await, TempDir::new().unwrap());
    let (proxy, _) = Vestibule::of(administered(&app.url(), &place)).await;

    let refused = proxy.remote.reload(&parse(&file(&app.url(), SITE))).unwrap_err();

    assert!(matches!(&refused, StartError::NeedsRestart { keys } if keys == "admin.listen"), "{refused}");
    assert_eq!(desk(&place).get("/healthz").status, 200);
}

/// The usual file, its sessions and its admin interface where they usually are.
fn usual(upstream: &str) -> String {
    file(upstream, SITE).replace("[store]\nurl = \"memory:\"", "").replace("[admin]\nlisten = \"off\"", "")
}

#[tokio::test]
async fn the_command_line_does_it_through_the_socket_beside_the_store() {
    // S188, S189, S191
    let app = Upstream::legacy().await;
    let mut program = Program::start(&usual(&app.url())).await;
    let socket = program.file().with_file_name("vestibule").join("admin.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(program.event("started").await["admin"], format!("unix:{}", socket.display()));
    let mut browsers = Vec::new();
    for user in ["alice", "alice", "bob"] {
        let mut browser = program.browser();
        browser.log_in(user).await;
        browsers.push(browser);
    }

    let (code, table, _) = program.ask(&["sessions", "list"]);

    let rows: Vec<_> = table.lines().map(|line| line.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!((code, rows.len(), rows[0]), (0, 4, "USER"), "{table}");
    let listed = |arguments: &[&str]| -> Vec<Value> {
        let (code, text, says) = program.ask(arguments);
        assert_eq!(code, 0, "{says}");
        serde_json::from_str(&text).unwrap()
    };
    let alices = listed(&["sessions", "list", "--user", "alice", "--json"]);
    assert_eq!((listed(&["sessions", "list", "--json"]).len(), alices.len()), (3, 2));
    let session_ref = alices[0]["ref"].as_str().unwrap();
    let (code, shown, _) = program.ask(&["sessions", "show", session_ref]);
    assert_eq!(code, 0);
    assert!(shown.contains("user           alice\n") && shown.contains("address        127.0.0.1\n"), "{shown}");
    assert_eq!(program.says(&["sessions", "revoke", session_ref]), (0, "1 session ended.\n".to_owned()));
    assert_eq!(
        program.says(&["sessions", "revoke", session_ref]),
        (1, "vestibule: There is no such session.\n".to_owned())
    );
    assert_eq!(program.says(&["sessions", "show", "nonsense"]).0, 1);
    let with_file = ["sessions", "revoke", "--user", "bob", "--config", "proxy.toml"];
    assert_eq!(program.says(&with_file), (0, "1 session ended.\n".to_owned()));
    assert_eq!(program.says(&["sessions", "revoke", "--user", "nobody"]), (0, "0 sessions ended.\n".to_owned()));
    assert_eq!(statuses(&mut browsers).await.iter().filter(|status| **status == 200).count(), 1);
    assert_eq!(program.says(&["sessions", "revoke", "--all"]), (0, "1 session ended.\n".to_owned()));
    assert_eq!(program.says(&["sessions", "list"]), (0, "There are no sessions.\n".to_owned()));
    for unclear in [&["revoke"][..], &["revoke", "--all", "--user", "alice"], &["revoke", session_ref, "--all"], &[]] {
        assert_eq!(program.says(&[&["sessions"], unclear].concat()).0, 2, "{unclear:?}");
    }
    eventually("all is written", || program.events("admin.revoked").len() == 4).await;
    let revoked = program.events("admin.revoked");
    let owner = format!("uid {}", std::os::unix::fs::MetadataExt::uid(&fs::metadata(&socket).unwrap()));
    assert!(revoked.iter().all(|line| line["actor"] == owner), "{revoked:?}");
    let scopes: Vec<_> = revoked.iter().map(|line| (line["scope"].as_str().unwrap(), line["count"].as_u64())).collect();
    assert_eq!(scopes, [("session", Some(1)), ("user", Some(1)), ("user", Some(0)), ("all", Some(1))]);
    assert_eq!((&revoked[0]["session"], &revoked[1]["user"]), (&alices[0]["ref"], &"bob".into()));
    let ended = program.events("session.ended");
    assert_eq!(ended.iter().filter(|line| line["reason"] == "revoked").count(), 3);

    program.signal("TERM");
    program.ended().await;

    assert!(!socket.exists(), "it leaves nothing behind");
    let (code, says) = program.says(&["sessions", "list"]);
    assert_eq!(code, 1);
    assert!(says.starts_with("vestibule: nobody answers at unix:") && says.contains("is vestibule running"), "{says}");
}

#[tokio::test]
async fn who_ended_sessions_is_written_down_although_they_left() {
    // S191
    let app = Upstream::legacy().await;
    let program = Program::start(&usual(&app.url())).await;
    let socket = program.file().with_file_name("vestibule").join("admin.sock");
    let mut browsers = Vec::new();
    for user in ["alice", "bob"] {
        let mut browser = program.browser();
        browser.log_in(user).await;
        browsers.push(browser);
    }

    // Who has left before the request was read has asked for nothing.
    eventually("both ends are written down", || {
        let mut caller = UnixStream::connect(&socket).unwrap();
        caller.write_all(b"DELETE /sessions?all=true HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        drop(caller);
        let lines = program.events("admin.revoked");
        assert!(lines.iter().all(|line| line["scope"] == "all"), "{lines:?}");
        lines.iter().filter_map(|line| line["count"].as_u64()).sum::<u64>() == 2
    })
    .await;

    assert_eq!(statuses(&mut browsers).await, [401, 401]);
}

#[tokio::test]
async fn without_a_usable_place_it_runs_and_says_so() {
    let app = Upstream::legacy().await;
    let place = TempDir::new().unwrap();
    let store = place.path().join("x".repeat(120)).join("sessions.redb");
    let text = usual(&app.url()) + &format!("[store]\nurl = \"file:{}\"\n", store.display());
    let program = Program::start(&text).await;

    let line = program.event("admin.unavailable").await;

    assert!(line["error"].as_str().unwrap().contains("too long for a socket"), "{line}");
    assert!(program.event("started").await["admin"].is_null());
    let mut browser = program.browser();
    browser.log_in("alice").await;
    assert_eq!(browser.fetch("/").await.status, 200);
}

#[tokio::test]
async fn after_a_crash_it_is_there_again() {
    let app = Upstream::legacy().await;
    let place = TempDir::new().unwrap();
    let text = usual(&app.url()) + &format!("[store]\nurl = \"file:{}\"\n", place.path().join("s.redb").display());
    let first = Program::start(&text).await;
    first.signal("KILL");
    drop(first);
    assert!(desk(&place).0.to_string().ends_with("admin.sock") && place.path().join("admin.sock").exists());

    let _second = Program::start(&text).await;

    assert_eq!(desk(&place).get("/readyz").status, 200);
}
