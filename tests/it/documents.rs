//! What README.md and docs/*.md say, held against the program.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use http::Method;
use regex::Regex;
use vestibule::config::Config;
use vestibule::policy::access::Access;
use vestibule::policy::glob::PathPattern;
use vestibule::policy::path::PathCase;
use vestibule::policy::path::Target;
use vestibule::policy::relax::Relaxing;
use vestibule::policy::relax::Rule;

use crate::layers::LAYERS;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// README.md and everything in docs/, by name.
fn documents() -> Vec<(String, String)> {
    let in_docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let names = in_docs.map(|name| format!("docs/{}", name.to_str().unwrap())).filter(|name| name.ends_with(".md"));
    let mut all = vec!["README.md".to_owned()];
    all.extend(names);
    all.into_iter().map(|name| (name.clone(), read(&name))).collect()
}

/// The contents of the fenced blocks of one language.
pub fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(fence) = line.strip_prefix("```") {
            let content: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            if fence == language {
                found.push(content.join("\n") + "\n");
            }
        }
    }
    found
}

/// The cells of the rows of the table whose head begins with this, without the head.
pub fn table<'a>(text: &'a str, head: &str) -> Vec<Vec<&'a str>> {
    let start = text.find(head).unwrap_or_else(|| panic!("there is no table {head}"));
    let rows = text[start..].lines().skip(2).take_while(|line| line.starts_with('|'));
    let rows: Vec<_> = rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect();
    assert!(!rows.is_empty(), "the table {head} is empty");
    rows
}

/// What stands in backticks.
pub fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A fragment as a whole file: what it needs and does not have is put in front.
fn whole(fragment: &str) -> String {
    let has = |table: &str| fragment.lines().any(|line| line.trim() == table);
    let mut file = String::new();
    for (table, text) in [
        ("[listen]", "https = \"127.0.0.1:443\""),
        ("[tls]", "certificate = \"a.pem\"\nkey = \"a.key\""),
        ("[[site]]", "origin = \"https://first.example\"\nupstream = \"http://127.0.0.1:1\""),
    ] {
        if !has(table) {
            file.push_str(&format!("{table}\n{text}\n"));
        }
    }
    file + fragment
}

pub fn parse(fragment: &str) -> Result<Config, String> {
    Config::parse(Path::new("proxy.toml"), &whole(fragment)).map_err(|problems| problems.to_string())
}

#[test]
fn every_example_of_configuration_is_read() {
    let mut count = 0;
    for (name, text) in documents() {
        for block in blocks(&text, "toml") {
            if let Err(problems) = parse(&block) {
                panic!("{name}:\n{block}\n{problems}");
            }
            count += 1;
        }
    }
    assert!(count > 10, "only {count} examples were found");
}

#[test]
fn the_examples_of_globs_are_right() {
    let text = read("docs/configuration.md");
    for row in table(&text, "| Glob | Matches | Does not match |") {
        let pattern = PathPattern::parse(code(row[0])[0]).unwrap();
        for (cell, expected) in [(row[1], true), (row[2], false)] {
            for path in code(cell) {
                let target = Target::parse(path, PathCase::Exact);
                assert_eq!(pattern.matches(&Method::GET, &target), expected, "{pattern:?} {path}");
            }
        }
    }
}

#[test]
fn the_examples_of_access_are_right() {
    let text = read("docs/configuration.md");
    let example = blocks(&text, "toml").into_iter().find(|block| block.starts_with("[site.access]")).unwrap();
    let rules = parse(&example).unwrap().sites[0].access.clone();
    for row in table(&text, "| Request | Verdict | Why |") {
        let (method, path) = row[0].split_once(' ').unwrap();
        let verdict = match rules.judge(&method.parse().unwrap(), &Target::parse(code(path)[0], PathCase::Exact)) {
            Access::Public => "public",
            Access::Protected => "protected",
            Access::Denied => "denied",
        };
        assert_eq!(verdict, row[1], "{}", row[0]);
    }
}

/// Every event that the sources can log, with its levels.
fn events() -> BTreeMap<String, BTreeSet<String>> {
    let direct = Regex::new(r#"tracing::(\w+)!\(\s*event = "([a-z_.]+)""#).unwrap();
    let audited = Regex::new(r#"emit!\(\s*(\w+),\s*context,\s*"([a-z_.]+)""#).unwrap();
    // What the log writes about itself, and of each request.
    let own = Regex::new(r#"Level::(WARN|INFO)\);\s*line\.text\("event", "([a-z_.]+)"\)"#).unwrap();
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (_, text) in sources() {
        for pattern in [&direct, &audited, &own] {
            for event in pattern.captures_iter(&text) {
                found.entry(event[2].to_owned()).or_default().insert(event[1].to_lowercase());
            }
        }
    }
    found
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join("src")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false => found.push((path.clone(), std::fs::read_to_string(path).unwrap())),
            }
        }
    }
    found
}

#[test]
fn every_event_is_explained() {
    let text = read("docs/configuration.md");
    let explained: BTreeMap<String, BTreeSet<String>> = table(&text, "| Event | Level | Means |")
        .into_iter()
        .map(|row| (code(row[0])[0].to_owned(), row[1].split(", ").map(str::to_owned).collect()))
        .collect();

    let logged = events();

    assert!(logged.len() > 20, "{logged:?}");
    let missing: Vec<_> = logged.iter().filter(|(event, levels)| explained.get(*event) != Some(*levels)).collect();
    let unknown: Vec<_> = explained.keys().filter(|event| !logged.contains_key(*event)).collect();
    assert!(missing.is_empty(), "write rows with these levels under \"Events\" in docs/configuration.md: {missing:?}");
    assert!(unknown.is_empty(), "nothing logs these events of docs/configuration.md: {unknown:?}");
}

#[test]
fn every_event_is_written_where_the_documents_look_for_it() {
    // An event that is not a literal would not be found by the test above.
    for (path, text) in sources() {
        let starts = |line: &&str| line.trim_start().starts_with("event = ") || line.contains("!(event = ");
        for line in text.lines().filter(starts) {
            assert!(line.contains("event = \"") || line.contains("event = $event"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_reason_is_explained() {
    let text = read("docs/configuration.md");
    let row = |event: &str| {
        let start = format!("| `{event}` |");
        text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no {event}"))
    };
    let word = Regex::new(r#"Self::\w+ => "([a-z-]+)""#).unwrap();
    for (file, of, event) in [
        ("src/policy/session.rs", "impl EndReason", "session.ended"),
        ("src/telemetry/audit.rs", "impl RefusedSession", "session.refused"),
        ("src/policy/csrf.rs", "impl CrossSite", "csrf.refused"),
    ] {
        let source = read(file);
        let start = source.find(of).unwrap_or_else(|| panic!("{file} has no {of}"));
        let end = source[start..].find("\n}\n").unwrap() + start;
        let words: Vec<_> = word.captures_iter(&source[start..end]).map(|found| found[1].to_owned()).collect();
        assert!(!words.is_empty(), "{of}");
        for word in words {
            assert!(code(row(event)).contains(&word.as_str()), "{event} does not say what {word} means");
        }
    }
}

#[test]
fn every_rule_about_messages_is_explained() {
    let text = read("docs/http.md");
    let explained: Vec<[&str; 3]> = table(&text, "| Rule | Relaxed, this passes | What may come of it |")
        .into_iter()
        .map(|row| [code(row[0])[0], row[1], row[2]])
        .collect();
    let mut can_be_relaxed = Vec::new();
    for rule in Rule::ALL {
        match rule.relaxing() {
            Relaxing::Can { passes, risk } => can_be_relaxed.push([rule.name(), passes, risk]),
            Relaxing::Raise(key) => assert!(code(&text).contains(&key), "{}", rule.name()),
            Relaxing::Never(_) => assert!(code(&text).contains(&rule.name()), "{}", rule.name()),
        }
    }
    assert_eq!(explained, can_be_relaxed);
    let operations = read("docs/operations.md");
    let unspoken = |rule: &Rule| matches!(rule, Rule::Path(_)) && !code(&operations).contains(&rule.name());
    assert_eq!(Rule::ALL.into_iter().find(unspoken), None, "docs/operations.md does not say what it means");
}

#[test]
fn log_lines_in_the_documents_are_ours() {
    let known = events();
    let mut count = 0;
    for (name, text) in documents() {
        for line in blocks(&text, "json").iter().flat_map(|block| block.lines()) {
            let line: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}"));
            let event = line["event"].as_str().unwrap_or_else(|| panic!("{name}: no event in {line}"));
            assert!(known.contains_key(event), "{name}: {event}");
            count += 1;
        }
    }
    assert!(count >= 3);
}

#[test]
fn links_and_paths_lead_somewhere() {
    let link = Regex::new(r"\]\(([^)\s]+)\)").unwrap();
    let path = Regex::new(r"`((?:src|tests|docs|benches|certs|fuzz)/[A-Za-z0-9_./-]*[A-Za-z0-9_/])`").unwrap();
    for (name, text) in documents() {
        let directory = root().join(&name);
        let directory = directory.parent().unwrap();
        for link in link.captures_iter(&text).map(|found| found[1].to_owned()) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { root().join(&name) } else { directory.join(file) };
            assert!(target.exists(), "{name} links to {link}");
            if !anchor.is_empty() {
                let text = std::fs::read_to_string(&target).unwrap();
                assert!(anchors(&text).contains(anchor), "{name} links to {link}");
            }
        }
        for path in path.captures_iter(&text).map(|found| found[1].to_owned()) {
            let is_made = path.starts_with("certs/");
            assert!(is_made || root().join(&path).exists(), "{name} names {path}");
        }
    }
}

/// The headings as GitHub makes anchors of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#'));
    let anchor = |heading: &str| {
        let kept = heading.trim().to_lowercase().replace(' ', "-");
        kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn the_table_of_modules_is_that_of_the_test() {
    let text = read("docs/architecture.md");
    let written: Vec<(String, Vec<String>)> = table(&text, "| Module | Is | May name |")
        .into_iter()
        .map(|row| (code(row[0])[0].to_owned(), code(row[2]).into_iter().map(str::to_owned).collect()))
        .collect();
    let tested: Vec<(String, Vec<String>)> = LAYERS
        .iter()
        .map(|layer| (layer.module.to_owned(), layer.may.iter().map(|may| (*may).to_owned()).collect()))
        .collect();

    assert_eq!(written, tested);
}

#[test]
fn every_file_of_the_two_halves_is_named() {
    let text = read("docs/architecture.md");
    let module = Regex::new(r"(?m)^(?:pub )?mod (\w+);").unwrap();
    for half in ["src/policy/mod.rs", "src/proxy/mod.rs"] {
        let source = read(half);
        let names = module.captures_iter(&source).map(|found| found[1].to_owned());
        let names: Vec<_> = names.filter(|name| name != "tests").collect();
        assert!(names.len() > 5, "{half}");
        for name in names {
            assert!(code(&text).contains(&name.as_str()), "docs/architecture.md does not say what {name} of {half} is");
        }
    }
}

#[test]
fn the_picture_names_functions_that_exist() {
    let picture = read("docs/request.svg");
    let named = Regex::new(r#"class="code"[^>]*>([^<]+)<"#).unwrap();
    let all: String = sources().into_iter().map(|(_, text)| text).collect();
    let mut count = 0;
    for name in named.captures_iter(&picture).map(|found| found[1].to_owned()) {
        let function = name.rsplit("::").next().unwrap();
        assert!(all.contains(&format!("fn {function}(")) || all.contains(&format!("fn {function}<")), "{name}");
        count += 1;
    }
    assert!(count > 15);
}

/// The file of a test: `module::test` is in tests/it, `src/file.rs::test` beside the code, `corpus/file.txt` has
/// cases.
fn file_of(test: &str) -> String {
    match test.rsplit_once("::") {
        Some((place, _)) if place.starts_with("src/") => place.to_owned(),
        Some((place, _)) => format!("tests/it/{}.rs", place.replace("::", "/")),
        None => format!("tests/it/{test}"),
    }
}

/// What proves something: the whole function, or the titles of cases.
fn proof(source: &str, test: &str) -> Option<String> {
    let Some((_, name)) = test.rsplit_once("::") else {
        return Some(source.lines().filter(|line| line.starts_with("=== ")).collect());
    };
    let (before, function) = source.split_once(&format!("fn {name}("))?;
    let line = before.rsplit('\n').next()?;
    let indent = &line[..line.len() - line.trim_start().len()];
    let (body, _) = function.split_once(&format!("\n{indent}}}\n"))?;
    Some(body.to_owned())
}

/// Holds the table of requirements of a document against the tests that it names.
fn assert_proven(document: &str, requirements: impl Iterator<Item = u32>) {
    let text = read(document);
    let row = Regex::new(r"(?m)^\| S(\d+) \| [^|]+ \| ([^|]+) \|$").unwrap();
    let rows: Vec<(u32, String)> =
        row.captures_iter(&text).map(|row| (row[1].parse().unwrap(), row[2].to_owned())).collect();

    let numbers: Vec<u32> = rows.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, requirements.collect::<Vec<_>>(), "{document}: each number once, in order");
    for (number, cell) in rows {
        let tests = code(&cell);
        assert!(!tests.is_empty() || cell.starts_with("not met: "), "S{number}: {cell}");
        for test in tests {
            let proof = proof(&read(&file_of(test)), test).unwrap_or_else(|| panic!("S{number}: there is no {test}"));
            let cites = Regex::new(&format!(r"\bS{number}\b")).unwrap();
            assert!(cites.is_match(&proof), "S{number}: {test} does not cite it");
        }
    }
}

#[test]
fn every_requirement_about_messages_has_its_test_or_a_reason() {
    assert_proven("docs/http.md", (76..=135).chain(154..=158).chain(165..=179));
}

#[test]
fn every_requirement_about_stores_has_its_test_or_a_reason() {
    assert_proven("docs/stores.md", [18, 24, 39].into_iter().chain(180..=192));
}

/// One threat of docs/threats.md: its number, and what is said of it.
fn threats(text: &str) -> Vec<(u32, String)> {
    let sections = text.split("\n### T").skip(1);
    let number = |section: &str| section.split_once(':').and_then(|(number, _)| number.parse().ok());
    sections
        .map(|section| {
            let end = section.find("\n## ").unwrap_or(section.len());
            (number(section).unwrap_or_else(|| panic!("no number: {section}")), section[..end].to_owned())
        })
        .collect()
}

#[test]
fn every_threat_has_its_tests_or_a_reason_and_its_limit() {
    let all = threats(&read("docs/threats.md"));

    let mut numbers: Vec<u32> = all.iter().map(|(number, _)| *number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=34).collect::<Vec<_>>(), "each threat once");
    let shown = Regex::new(r"(?m)^\*\*Shown by\*\* \(([^)]+)\): (.+)$").unwrap();
    for (number, section) in all {
        // S144, S163: what only the application can do, and what is not offered.
        let must_say: &[&str] = match number {
            21 => &["token in the application's forms", "`Sec-Fetch-Site`", "`Origin`"],
            32 => &["Not met: ", "chain of hashes"],
            _ => &[],
        };
        must_say.iter().for_each(|part| assert!(section.contains(part), "T{number} does not say: {part}"));
        let Some(found) = shown.captures(&section) else {
            assert!(section.contains("\n\nNot met: "), "T{number} names no test");
            continue;
        };
        assert!(section.contains("\n\n**Cannot:** "), "T{number} does not say what is left");
        let proofs: Vec<String> = code(&found[2])
            .into_iter()
            .map(|test| proof(&read(&file_of(test)), test).unwrap_or_else(|| panic!("T{number}: there is no {test}")))
            .collect();
        for requirement in found[1].split(", ") {
            let cites = Regex::new(&format!(r"\b{requirement}\b")).unwrap();
            assert!(proofs.iter().any(|proof| cites.is_match(proof)), "T{number}: no test cites {requirement}");
        }
    }
}
