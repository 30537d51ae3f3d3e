mod mistakes;
mod words;

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::Config;
use crate::config::catalogue::EXAMPLES;
use crate::config::catalogue::KEYS;
use crate::config::keys;

const BASE: &str = include_str!("tests/base.toml");
const MAXIMAL: &str = include_str!("tests/maximal.toml");

fn parse(text: &str) -> Config {
    Config::parse(Path::new("proxy.toml"), text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn problems(text: &str) -> String {
    match Config::parse(Path::new("proxy.toml"), text) {
        Ok(_) => String::new(),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn the_example_in_the_repository_is_good() {
    let config = parse(include_str!("../../proxy.toml"));
    assert_eq!(config.sites.len(), 1);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn every_key_is_in_the_schema_and_in_the_file_that_has_them_all() {
    let listed: BTreeSet<_> = KEYS.iter().map(|key| (key.table.to_owned(), key.key.to_owned())).collect();

    let mut in_schema = BTreeSet::new();
    collect_schema("", &crate::config::schema(), &mut in_schema);
    let table = DeTable::parse(MAXIMAL).unwrap();
    let mut written = BTreeSet::new();
    collect_table("", table.get_ref(), &mut written);

    assert_eq!(in_schema, listed);
    let is_missing = |key: &&keys::Key| !written.contains(&(key.table.to_owned(), key.key.to_owned()));
    let missing: Vec<_> = KEYS.iter().filter(is_missing).map(|key| format!("{}.{}", key.table, key.key)).collect();
    assert_eq!(missing, Vec::<String>::new());
}

fn collect_schema(table: &str, schema: &serde_json::Value, found: &mut BTreeSet<(String, String)>) {
    let one_of = schema["anyOf"].as_array().into_iter().flatten();
    one_of.for_each(|schema| collect_schema(table, schema, found));
    for (key, inner) in schema["properties"].as_object().into_iter().flatten() {
        found.insert((keys::listed_as(table).to_owned(), key.clone()));
        collect_schema(&below(table, key), inner, found);
    }
}

fn collect_table(table: &str, values: &DeTable<'_>, found: &mut BTreeSet<(String, String)>) {
    for (key, value) in values {
        found.insert((keys::listed_as(table).to_owned(), key.get_ref().to_string()));
        let inner = below(table, key.get_ref());
        match value.get_ref() {
            DeValue::Table(values) => collect_table(&inner, values, found),
            DeValue::Array(list) => {
                let tables = list.iter().filter_map(|item| item.get_ref().as_table());
                tables.for_each(|values| collect_table(&inner, values, found));
            }
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_) => {}
        }
    }
}

fn below(table: &str, key: &str) -> String {
    if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") }
}

#[test]
fn every_documented_default_is_what_holds_without_the_key() {
    // VR-21
    for key in KEYS.iter().filter(|key| !matches!(key.default, "" | "path") && !key.table.contains("verify")) {
        let table = match key.table {
            "hsts" => "[site.headers.hsts]".to_owned(),
            "" => continue,
            "site" => "[[site]]".to_owned(),
            "site.login" | "site.logout" | "site.access" => format!("[{}]", key.table),
            table => format!("[{table}]"),
        };
        // A table that is nothing without its required key.
        let needs = match key.table {
            "site.health" => format!("{table}\npath = \"/\"\n"),
            "site.identity.assertion" => format!("{table}\nheader = \"X-Assertion\"\n"),
            _ => String::new(),
        };
        let base = format!("{BASE}{needs}");
        let written = if base.contains(&table) {
            let lines = base.lines().filter(|line| !line.starts_with(&format!("{} ", key.key)));
            lines.collect::<Vec<_>>().join("\n").replace(&table, &format!("{table}\n{} = {}", key.key, key.default))
        } else {
            format!("{base}\n{table}\n{} = {}", key.key, key.default)
        };
        let without = base.lines().filter(|line| !base.contains(&table) || !line.starts_with(&format!("{} ", key.key)));
        let without = without.collect::<Vec<_>>().join("\n");
        assert_eq!(format!("{:?}", parse(&written)), format!("{:?}", parse(&without)), "{table} {}", key.key);
    }
}

#[test]
fn every_example_is_toml_for_a_known_key() {
    for (table, key, example) in EXAMPLES {
        assert!(keys::of(table).any(|known| known.key == *key), "{table}.{key}");
        assert!(DeTable::parse(&format!("{key} = {example}")).is_ok(), "{key} = {example}");
    }
    for key in KEYS.iter().filter(|key| key.is_required()) {
        assert_ne!(keys::example(key), "", "{}.{} is required", key.table, key.key);
    }
}

#[test]
fn patterns_that_match_nothing_are_warned_of() {
    let with = |key: &str, value: &str| {
        let text =
            format!("{}\n[site.{key}", include_str!("../../proxy.toml").split("\n[site.access]").next().unwrap());
        let text = format!("{text} = {value}");
        Config::parse(Path::new("proxy.toml"), &text).unwrap().warnings().join("\n")
    };
    assert!(with("access]\npublic", "\"/a%20b/*\"").contains("access.public has \"/a%20b/*\", which matches nothing"));
    assert!(with("csrf]\nexempt", "\"POST /h%6Fok\"").contains("write \"/hook\""));
    for fine in ["\"/a b/*\"", "\"/100%\"", "\"/i.php?a=%20\""] {
        assert!(!with("access]\npublic", fine).contains("nothing"), "{fine}");
    }
}

#[test]
fn sites_that_share_their_cookies_are_warned_of() {
    let text = include_str!("../../proxy.toml");
    let second = |keys: &str| {
        let site = "[[site]]\norigin = \"https://localhost\"\nupstream = \"http://127.0.0.1:1\"";
        let text = format!("{text}\n{site}\n{keys}");
        Config::parse(Path::new("proxy.toml"), &text).unwrap().warnings().join("\n")
    };
    assert!(second("").contains("https://localhost:8443 and https://localhost share a host"));
    assert!(!second("[site.session]\ncookie = \"__Host-other\"").contains("share a host"));
}

#[test]
fn rules_that_mean_something_else_are_warned_of() {
    let with = |old: &str, new: &str| {
        let text = include_str!("../../proxy.toml").replace(old, new);
        Config::parse(Path::new("proxy.toml"), &text).unwrap().warnings().join("\n")
    };
    for (glob, is_warned_of) in [
        ("*failed=1", Some("as in \"*?failed=1\"")),
        ("*error*", Some("as in \"*?error*\"")),
        ("*?failed=1", None),
        ("*/login", None),
    ] {
        let warnings = with("location_not = \"/login*\"", &format!("location = {glob:?}"));
        assert_eq!(warnings.contains("has the location"), is_warned_of.is_some(), "{glob}");
        assert!(warnings.contains(is_warned_of.unwrap_or_default()), "{warnings}");
    }
    assert!(with("path = \"/login\"", "path = \"/*\"\npage = \"/login\"").contains("name the one path"));
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "\\PC*") {
        let _ = problems(&text);
    }

    #[test]
    fn a_file_cut_off_anywhere_is_read_without_panic(at in 0..MAXIMAL.len()) {
        let _ = problems(&MAXIMAL[..at]);
    }

    #[test]
    fn any_value_in_place_of_another_is_read_without_panic(line in 0..200_usize, value in "[a-z0-9\"\\[\\]{}=:/*.é-]{0,20}") {
        let replace = |(at, text): (usize, &str)| match text.split_once('=') {
            Some((key, _)) if at == line => format!("{key}= {value}"),
            _ => text.to_owned(),
        };
        let lines: Vec<String> = MAXIMAL.lines().enumerate().map(replace).collect();
        let _ = problems(&lines.join("\n"));
    }
}
