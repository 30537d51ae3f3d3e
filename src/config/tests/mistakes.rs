//! Mistakes, and word for word what is said about each.

use super::BASE;
use super::problems;
use crate::config::Config;

const MISTAKES: &str = include_str!("mistakes.txt");

struct Case {
    title: &'static str,
    text: String,
    expected: String,
}

/// `mistakes.txt`: a title, edits of `base.toml`, then the whole message.
fn cases() -> Vec<Case> {
    let pieces = MISTAKES.split("\n# ").skip(1);
    pieces
        .map(|piece| {
            let (title, rest) = piece.split_once('\n').unwrap();
            let is_edit = |line: &&str| line.starts_with("- ") || line.starts_with("+ ");
            let edits: Vec<&str> = rest.lines().take_while(is_edit).collect();
            let expected: Vec<&str> = rest.lines().skip(edits.len()).collect();
            Case { title, text: edited(&edits), expected: expected.join("\n").trim_end().to_owned() }
        })
        .collect()
}

fn edited(edits: &[&str]) -> String {
    let mut lines: Vec<&str> = BASE.lines().collect();
    let mut at = lines.len();
    for edit in edits {
        let (sign, line) = edit.split_at(2);
        if sign == "- " {
            at = lines.iter().position(|known| *known == line).unwrap_or_else(|| panic!("no {line:?} in base.toml"));
            lines.remove(at);
        } else {
            lines.insert(at, line);
            at += 1;
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn every_mistake_is_named_with_its_place_and_remedy() {
    // S194, VR-36
    let cases = cases();
    assert!(cases.len() > 60, "{}", cases.len());
    for case in cases {
        let found = problems(&case.text);
        assert!(found == case.expected, "# {}\n{found}\n\nbut expected:\n{}", case.title, case.expected);
    }
}

#[test]
fn no_message_shows_a_secret() {
    // S161
    for case in cases() {
        assert!(!case.expected.contains("hunter2"), "{}", case.title);
    }
    for line in [
        "tokn = \"hunter2\"",
        "[admin]\nTOKEN = \"hunter2\"",
        "[store]\nurl = \"redis://host?password=hunter2\"\nurll = \"redis://u:hunter2@host\"",
        "[store]\nurl = redis://hunter2",
        "[admin]\ntoken = 'hunter2",
        "[store]\npasswort = \"hunter2\"\nkeys = \"hunter2\"",
        "password = \"hunter2\" x",
        "[log]\nlevel = { password = \"hunter2\" }",
        "[session]\ncookie = { secret = \"hunter2\", cookie = 1 }",
    ] {
        let found = problems(&format!("{BASE}{line}\n"));
        assert!(!found.is_empty() && !found.contains("hunter2"), "{line}\n{found}");
    }
}

#[test]
fn everything_wrong_is_said_at_once_in_the_order_of_the_file() {
    let text = BASE
        .replace("origin   =", "orign    =")
        .replace("\"/login\"", "\"login\"")
        .replace("\"form:username\"", "7")
        .replace("\"/static/*\"", "\"static\"");
    let problems = Config::parse(std::path::Path::new("proxy.toml"), &text).unwrap_err();

    let found = problems.to_string();
    let places = found.lines().filter_map(|line| line.strip_prefix("proxy.toml:")?.split(':').next());
    assert_eq!(places.collect::<Vec<_>>(), ["9", "10", "14", "15", "22"], "{found}");
    assert_eq!(problems.count(), 5);
}

#[test]
fn files_must_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("proxy.toml");
    let load = || Config::load(&path).unwrap_err().to_string();

    assert!(load().contains("proxy.toml: there is no such file\n  = help: write it, or name another one"));
    std::fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(load().contains("proxy.toml: this is no text\n  = help: save the file as UTF-8"));
    std::fs::write(&path, BASE).unwrap();
    std::fs::create_dir_all(directory.path().join("certs/app.key")).unwrap();
    let found = load();
    for (place, file) in [("6:15: tls.certificate", "certs/app.pem"), ("7:15: tls.key", "certs/app.key")] {
        let file = directory.path().join(file);
        let expected = format!("proxy.toml:{place}: there is no file {}", file.display());
        assert!(found.contains(&expected), "{found}");
    }
    assert!(found.contains("= help: make a certificate for trying things out with: vestibule cert"));
    assert!(Config::load(directory.path()).unwrap_err().to_string().contains("make it a file that may be read"));
}
