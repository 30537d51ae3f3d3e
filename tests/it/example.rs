//! The worked example, executed exactly as it is written: the file and every command are taken from
//! the document, the answers compared. Only its ports are exchanged for free ones.

use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use regex::Regex;
use tempfile::TempDir;

use crate::support::Process;
use crate::support::apps;
use crate::support::free_port;

const DOCUMENT: &str = include_str!("../../docs/django.md");

/// Printed after each command.
const DONE: &str = "-- done --";

/// A command, and what it prints; `...` stands for anything.
struct Step {
    command: String,
    answer: String,
}

/// The blocks of a language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<&'a str> {
    let opening = format!("```{language}\n");
    document.split(&opening).skip(1).map(|block| block.split("```").next().unwrap()).collect()
}

fn steps(document: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in blocks(document, "console").concat().lines() {
        match line.strip_prefix("$ ") {
            Some(command) => steps.push(Step { command: command.to_owned(), answer: String::new() }),
            None => steps.last_mut().unwrap().answer += &format!("{line}\n"),
        }
    }
    steps
}

/// The commands as one script, which says when each is done and waits for what listens.
fn script(steps: &[Step], ports: [u16; 2]) -> String {
    let mut ports = ports.into_iter();
    let mut script = "exec 2>&1\n".to_owned();
    for Step { command, answer } in steps {
        if let Some(what) = command.strip_prefix("grep ") {
            // A log is written a moment later.
            let lines = answer.trim().lines().count();
            script +=
                &format!("for try in {{1..300}}; do [ \"$(grep -c {what})\" -ge {lines} ] && break; sleep 0.1; done\n");
        }
        script += &format!("{command}\n");
        if command.ends_with('&') {
            let port = ports.next().unwrap();
            script += &format!(
                "for try in {{1..600}}; do (: < /dev/tcp/127.0.0.1/{port}) && break; sleep 0.1; done 2> /dev/null\n"
            );
        }
        script += &format!("printf '\\n%s\\n' '{DONE}'\n");
    }
    script
}

fn is_answer(expected: &str, found: &str) -> bool {
    let pattern = regex::escape(expected.trim()).replace(r"\.\.\.", "(?s:.*)");
    Regex::new(&format!("^{pattern}$")).unwrap().is_match(found.trim())
}

fn path_with(program: &Path) -> String {
    format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap())
}

#[test]
fn the_worked_example_works_as_written() {
    let (django, proxy) = (free_port(), free_port());
    let document = DOCUMENT.replace("8000", &django.to_string()).replace("8443", &proxy.to_string());
    let directory = TempDir::new().unwrap();
    let toml = blocks(&document, "toml");
    fs::write(directory.path().join("proxy.toml"), toml[0]).unwrap();
    let steps = steps(&document);
    let mut shell = Command::new("bash");
    shell.args(["-c", &script(&steps, [django, proxy])]).current_dir(directory.path());
    shell.env("PATH", path_with(Path::new(env!("CARGO_BIN_EXE_vestibule"))));
    // Sessions are kept in the state directory of whoever tries it.
    shell.env("XDG_STATE_HOME", directory.path());
    // The pinned wheels that tests/setup.sh has fetched.
    shell.env("PIP_NO_INDEX", "1").env("PIP_FIND_LINKS", apps().join("django/wheels"));

    let mut shell = Process::start(&mut shell);
    let mut lines = BufReader::new(shell.stdout()).lines().map(Result::unwrap);

    assert_eq!((toml.len(), steps.len()), (1, 24));
    for Step { command, answer } in &steps {
        let found: Vec<_> = lines.by_ref().take_while(|line| line != DONE).collect();
        let found = found.join("\n");
        assert!(is_answer(answer, &found), "{command}\nexpected:\n{answer}\nfound:\n{found}");
    }
}
