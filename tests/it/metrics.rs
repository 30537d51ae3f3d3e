//! What Prometheus is told.

use std::collections::BTreeMap;
use std::collections::BTreeSet;

use http::Request;
use regex::Regex;
use tempfile::TempDir;
use vestibule::config::ListenAddress;

use crate::documents::code;
use crate::documents::read;
use crate::documents::table;
use crate::support::BrokenStore;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::desk::Desk;
use crate::support::empty;
use crate::support::eventually;
use crate::support::file;
use crate::support::labelled;
use crate::support::parse;

/// The proxy in front of this application, and what its admin interface is asked by.
async fn measured(upstream: &str) -> (Vestibule, Browser, Desk, std::sync::Arc<BrokenStore>, TempDir) {
    let (place, store) = (TempDir::new().unwrap(), BrokenStore::new());
    let socket = place.path().join("admin.sock");
    let text = file(upstream, SITE).replace("\"off\"", &format!("\"unix:{}\"", socket.display()));
    let (proxy, browser) = Vestibule::with_store(parse(&text), store.clone()).await;
    (proxy, browser, Desk(ListenAddress::Unix(socket)), store, place)
}

/// The samples, by name and labels. Reads as strictly as the text format is written down: a family has
/// its help and its type before its samples, and stands in one piece.
fn scrape(desk: &Desk) -> BTreeMap<String, f64> {
    let said = desk.get("/metrics");
    assert_eq!(said.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let sample = Regex::new(
        r#"^(([a-z_]+)(?:\{[a-z_]+="(?:[^"\\\n]|\\[\\"n])*"(?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*\})?) ([0-9.]+)$"#,
    );
    let (sample, mut samples, mut families, mut family) = (sample.unwrap(), BTreeMap::new(), Vec::new(), "");
    for line in said.body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(family.starts_with("vestibule_") && !families.contains(&family), "{family}");
            families.push(family);
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        } else {
            let found = sample.captures(line).unwrap_or_else(|| panic!("no sample: {line}"));
            assert!(["", "_bucket", "_sum", "_count"].contains(&found[2].strip_prefix(family).unwrap()), "{line}");
            assert!(samples.insert(found[1].to_owned(), found[3].parse().unwrap()).is_none(), "{line}");
        }
    }
    samples
}

#[tokio::test]
async fn what_happens_is_counted() {
    let app = Upstream::legacy().await;
    let (proxy, mut alice, desk, _, _place) = measured(&app.url()).await;
    let before = scrape(&desk);
    assert!(before.iter().all(|(name, value)| *value == 0.0
        || name.contains("_info")
        || name.contains("_up{")
        || name.contains("store_dur")));
    alice.get("/login").await;
    alice.post("/login", &[("username", "alice"), ("password", "wrong")]).await;
    alice.log_in("alice").await;
    assert_eq!(alice.fetch("/private").await.status, 200);
    assert_eq!(proxy.browser().fetch("/private").await.status, 401);
    let forged = labelled("POST", "/private", "cross-site", "cors", "empty");
    assert_eq!(alice.send(empty(forged)).await.status, 403);
    let (mut bob, mut carol) = (proxy.browser().over_http2(), proxy.browser());
    bob.log_in("bob").await;
    bob.get("/logout").await;
    carol.log_in("carol").await;
    assert_eq!(desk.delete("/sessions?user=carol").status, 200);
    for _ in 0..6 {
        proxy.browser().post("/login", &[("username", "mallory"), ("password", "wrong")]).await;
    }

    let after = scrape(&desk);

    let grew =
        |name: &str| after.get(name).unwrap_or_else(|| panic!("no {name}: {after:?}")) - before.get(name).unwrap();
    for (name, by) in [
        ("vestibule_requests_total{site=\"https://app.test\",status=\"2xx\"}", 8.0),
        ("vestibule_requests_total{site=\"https://app.test\",status=\"3xx\"}", 4.0),
        ("vestibule_requests_total{site=\"https://app.test\",status=\"4xx\"}", 3.0),
        ("vestibule_csrf_refused_total{site=\"https://app.test\",reason=\"sec-fetch-site\",enforced=\"true\"}", 1.0),
        ("vestibule_csrf_refused_total{site=\"https://app.test\",reason=\"sec-fetch-site\",enforced=\"false\"}", 0.0),
        ("vestibule_requests_total{site=\"https://app.test\",status=\"5xx\"}", 0.0),
        ("vestibule_request_duration_seconds_count{site=\"https://app.test\"}", 15.0),
        ("vestibule_request_duration_seconds_bucket{site=\"https://app.test\",le=\"+Inf\"}", 15.0),
        ("vestibule_logins_total{outcome=\"success\"}", 3.0),
        ("vestibule_logins_total{outcome=\"failure\"}", 6.0),
        ("vestibule_logins_total{outcome=\"throttled\"}", 1.0),
        ("vestibule_sessions_started_total{state=\"authenticated\"}", 3.0),
        ("vestibule_sessions_started_total{state=\"anonymous\"}", 1.0),
        ("vestibule_sessions_ended_total{reason=\"logout\"}", 1.0),
        ("vestibule_sessions_ended_total{reason=\"login\"}", 1.0),
        ("vestibule_sessions_ended_total{reason=\"revoked\"}", 1.0),
        ("vestibule_sessions_ended_total{reason=\"reuse\"}", 0.0),
        ("vestibule_sessions{site=\"https://app.test\",state=\"authenticated\"}", 1.0),
        ("vestibule_sessions{site=\"https://app.test\",state=\"anonymous\"}", 0.0),
        ("vestibule_store_duration_seconds_count{operation=\"create\"}", 4.0),
        ("vestibule_store_errors_total{operation=\"load\"}", 0.0),
        ("vestibule_log_lines_lost_total", 0.0),
    ] {
        assert_eq!(grew(name), by, "{name}");
    }
    assert!(grew("vestibule_tls_handshakes_total{result=\"ok\"}") >= 4.0);
    assert!(grew("vestibule_store_duration_seconds_count{operation=\"load\"}") >= 4.0);
    assert!(grew("vestibule_connections_open") >= 1.0);
    assert!(after.contains_key(&format!("vestibule_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))));
    let secrets = desk.get("/metrics").body;
    for name in ["alice", "bob", "carol", "/private", "/login"] {
        assert!(!secrets.contains(name), "S192: {name}");
    }
}

#[tokio::test]
async fn counters_outlive_a_reload_and_strays_are_counted_apart() {
    let app = Upstream::legacy().await;
    let (proxy, mut visitor, desk, _, place) = measured(&app.url()).await;
    assert_eq!(visitor.fetch("/private").await.status, 401);
    let socket = place.path().join("admin.sock");
    let text = file(&app.url(), SITE).replace("\"off\"", &format!("\"unix:{}\"", socket.display()));
    proxy.remote.reload(&parse(&text)).unwrap();
    assert_eq!(visitor.fetch("/private").await.status, 401);
    let stray = Request::get("/private").header("host", "stranger.test");
    assert_eq!(visitor.send(empty(stray)).await.status, 421);

    let samples = scrape(&desk);

    assert_eq!(samples["vestibule_requests_total{site=\"https://app.test\",status=\"4xx\"}"], 2.0);
    assert_eq!(samples["vestibule_requests_total{site=\"none\",status=\"4xx\"}"], 1.0);
}

#[tokio::test]
async fn what_does_not_work_is_seen() {
    let (proxy, mut visitor, desk, store, _place) = measured("http://127.0.0.1:1 http://127.0.0.1:2").await;
    let up =
        |port: u8| format!("vestibule_upstream_up{{site=\"https://app.test\",upstream=\"http://127.0.0.1:{port}\"}}");
    let samples = scrape(&desk);
    assert_eq!((samples[&up(1)], samples[&up(2)]), (1.0, 1.0));
    assert_eq!(visitor.fetch("/public/x").await.status, 502);
    let samples = scrape(&desk);
    assert_eq!((samples[&up(1)], samples[&up(2)]), (0.0, 0.0));
    assert_eq!(samples["vestibule_upstream_failures_total{site=\"https://app.test\"}"], 1.0);
    // No TLS.
    drop(tokio::net::TcpStream::connect(proxy.https).await.unwrap());
    let failed = "vestibule_tls_handshakes_total{result=\"failed\"}";
    eventually("the handshake fails", || scrape(&desk)[failed] == 1.0).await;

    store.fails();
    visitor.cookies.insert("__Host-session".to_owned(), "A".repeat(43));
    assert_eq!(visitor.fetch("/private").await.status, 503);

    let samples = scrape(&desk);
    assert_eq!(samples["vestibule_store_errors_total{operation=\"load\"}"], 1.0);
    assert_eq!(samples["vestibule_requests_total{site=\"https://app.test\",status=\"5xx\"}"], 2.0);
    assert!(!samples.keys().any(|name| name.starts_with("vestibule_sessions{")), "unknown is not none");
}

#[tokio::test]
async fn every_metric_is_explained() {
    let app = Upstream::legacy().await;
    let (_proxy, _, desk, _, _place) = measured(&format!("{0} {0}", app.url())).await;
    let body = desk.get("/metrics").body;
    let told: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let text = read("docs/operations.md");
    let explained: Vec<&str> = table(&text, "| Metric | Labels | Is |").iter().map(|row| code(row[0])[0]).collect();

    let (told, explained): (BTreeSet<_>, BTreeSet<_>) = (told.into_iter().collect(), explained.into_iter().collect());
    assert_eq!(told, explained, "docs/operations.md has every metric and no other");
}
