//! `docs/configuration.md` against the catalogue: every key, its type, default, meaning and example.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use crate::config::Config;
use crate::config::catalogue::KEYS;
use crate::config::keys;
use crate::config::keys::Key;
use crate::config::keys::Kind;

const DOCUMENT: &str = include_str!("../../docs/configuration.md");

#[test]
fn the_reference_has_every_key() {
    let mut tables: Vec<&str> = Vec::new();
    for key in KEYS {
        if !tables.contains(&key.table) {
            tables.push(key.table);
        }
    }
    for table in tables.into_iter().map(rendered) {
        assert!(DOCUMENT.contains(&table), "docs/configuration.md must have this table as it is:\n\n{table}\n");
    }
}

#[test]
fn the_reference_has_no_other_key() {
    let known: BTreeSet<String> = KEYS.iter().map(row).collect();
    let is_row = |line: &&str| line.starts_with("| `") && line.matches(" | ").count() == 4;
    let unknown: Vec<&str> = DOCUMENT.lines().filter(is_row).filter(|line| !known.contains(*line)).collect();

    assert!(unknown.is_empty(), "not in src/config/catalogue.rs:\n{}", unknown.join("\n"));
}

#[test]
fn the_limits_are_as_the_reference_says() {
    // S6: a longer name of our cookie is refused.
    let file = "[listen]\nhttps = \"127.0.0.1:443\"\n[tls]\ncertificate = \"a\"\nkey = \"b\"\n\
                [[site]]\norigin = \"https://a.example\"\nupstream = \"http://127.0.0.1:1\"\n";
    let name = |length: usize| format!("\"__Host-{}\"", "x".repeat(length - 7));
    let (longest, too_long) = (name(128), name(129));
    for (table, key, good, bad) in [
        ("session", "cookie", longest.as_str(), too_long.as_str()),
        ("session", "cookie", "\"__Host-id\"", "\"id\""),
        ("session", "idle_timeout", "\"8h\"", "\"481m\""),
        ("session", "idle_timeout", "\"1ms\"", "\"0s\""),
        ("session", "anonymous_timeout", "\"2h\"", "\"121m\""),
        ("session", "rotation_grace", "\"899s\"", "\"15m\""),
        ("session", "rotation_grace", "\"0s\"", "\"-1s\""),
        ("session", "absolute_timeout", "\"100y\"", "\"101y\""),
        ("limits", "header_bytes", "\"8KiB\"", "8191"),
        ("limits", "header_count", "10", "9"),
        ("limits", "uri", "64", "63"),
        ("limits", "connections", "1", "0"),
        ("timeouts", "drain", "\"0s\"", "\"0\""),
        ("timeouts", "body_idle", "\"off\"", "\"0s\""),
        ("timeouts", "connect", "\"1s\"", "\"off\""),
    ] {
        let parse = |value: &str| Config::parse(Path::new("proxy.toml"), &format!("{file}[{table}]\n{key} = {value}"));
        assert!(parse(good).is_ok(), "{table}.{key} = {good}");
        assert!(parse(bad).is_err(), "{table}.{key} = {bad}");
    }
    let login = format!("{file}[site.login]\npath = \"/login\"\nuser = \"form:u\"\nsuccess = {{ status = 302 }}\n");
    for (key, good, bad) in [
        ("per_account", "300 in 1d", "301 in 1d"),
        ("per_account", "1 in 1s", "0 in 1s"),
        ("per_address", "1 in 1s", "1 in 999ms"),
        ("per_address", "off", "1 in 25h"),
    ] {
        let parse =
            |value| Config::parse(Path::new("proxy.toml"), &format!("{login}[site.login.throttle]\n{key} = {value:?}"));
        assert!(parse(good).is_ok(), "{key} = {good}");
        assert!(parse(bad).is_err(), "{key} = {bad}");
    }
    let workers = |count: u32| file.replace("[tls]", &format!("workers = {count}\n[tls]"));
    let parse = |count| Config::parse(Path::new("proxy.toml"), &workers(count)).is_ok();
    assert_eq!([0, 1, 1024, 1025].map(parse), [false, true, true, false]);
}

/// The table of a table's keys. `verify` shares all but one of its keys with `success`.
fn rendered(table: &str) -> String {
    let shared: Vec<Key> = keys::of("criteria").copied().collect();
    let is_shared = |key: &Key| {
        let same = shared.iter().find(|other| other.key == key.key);
        same.is_some_and(|other| (other.kind, other.default, other.doc) == (key.kind, key.default, key.doc))
    };
    let mut out = "| Key | Type | Default | Meaning | Example |\n|---|---|---|---|---|\n".to_owned();
    for key in KEYS.iter().filter(|key| key.table == table) {
        if table == "criteria" || !is_shared(key) {
            let _ = writeln!(out, "{}", row(key));
        }
    }
    out
}

fn row(key: &Key) -> String {
    let meaning = key.doc.replace("; required.", ".");
    let default = match key.default {
        _ if key.is_required() => "**required**".to_owned(),
        "" => String::new(),
        default => format!("`{default}`"),
    };
    let example = match keys::example(key) {
        example if example == key.default => String::new(),
        example => format!("`{example}`"),
    };
    format!("| `{}` | {} | {default} | {meaning} | {example} |", key.key, kind(key.kind))
}

fn kind(kind: Kind) -> String {
    match kind {
        Kind::Text => "text".to_owned(),
        Kind::Texts => "text, or list".to_owned(),
        Kind::Flag => "true or false".to_owned(),
        Kind::Number => "number".to_owned(),
        Kind::Statuses => "status code, or list".to_owned(),
        Kind::Duration => "duration".to_owned(),
        Kind::DurationOrOff => "duration, or `\"off\"`".to_owned(),
        Kind::Size => "size".to_owned(),
        Kind::SizeOrOff => "size, or `\"off\"`".to_owned(),
        Kind::Limit => "count in duration, or `\"off\"`".to_owned(),
        Kind::Choice(words) => words.iter().map(|word| format!("`\"{word}\"`")).collect::<Vec<_>>().join(" "),
        Kind::Rules => "rule, or list".to_owned(),
        Kind::Table | Kind::Free => "table".to_owned(),
        Kind::Tables => "table, or several".to_owned(),
        Kind::Any => "any".to_owned(),
    }
}
