//! Where problems are collected, and how each is printed: place, what is wrong, the line, the remedy.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::path::PathBuf;

use crate::config::Problems;

/// Longer source lines are not repeated.
const LINE_LIMIT: usize = 200;

struct Problem {
    span: Range<usize>,
    message: String,
    help: String,
    /// Whether the line may hold a secret: nothing behind its `=` is printed.
    hide: bool,
}

/// The text that is read, and everything found wrong with it so far.
pub(super) struct Reader<'a> {
    path: PathBuf,
    text: &'a str,
    directory: PathBuf,
    /// Whether files that are named must exist.
    looks_at_files: bool,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(path: &Path, text: &'a str, looks_at_files: bool) -> Self {
        let directory = path.parent().unwrap_or_else(|| Path::new("")).to_owned();
        Self { path: path.to_owned(), text, directory, looks_at_files, problems: RefCell::new(Vec::new()) }
    }

    /// Notes a problem; `help` may be empty.
    pub(super) fn report(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem { span, message: message.into(), help: help.into(), hide: false };
        self.problems.borrow_mut().push(problem);
    }

    /// Notes a problem on a line of which only the key may be shown.
    pub(super) fn report_hidden(&self, span: Range<usize>, message: impl Into<String>, help: impl Into<String>) {
        let problem = Problem { span, message: message.into(), help: help.into(), hide: true };
        self.problems.borrow_mut().push(problem);
    }

    /// The file that is read, as it was named.
    pub(super) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Relative paths are relative to the directory of the file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.directory.join(path)
    }

    /// Whether the file has to exist and does not.
    pub(super) fn misses(&self, path: &Path) -> bool {
        self.looks_at_files && !path.is_file()
    }

    /// All problems in the order of the file; `None` when there are none.
    pub(super) fn into_problems(self) -> Option<Problems> {
        let mut problems = self.problems.take();
        problems.sort_by_key(|problem| problem.span.start);
        let mut pieces: Vec<String> = problems.iter().map(|problem| self.print(problem)).collect();
        pieces.dedup();
        let count = pieces.len();
        (count > 0).then(|| Problems { text: pieces.join("\n\n"), count })
    }

    fn print(&self, problem: &Problem) -> String {
        let start = floor(self.text, problem.span.start);
        let end = floor(self.text, problem.span.end).max(start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |at| start + at);
        let line = self.text[..line_start].matches('\n').count() + 1;
        let column = self.text[line_start..start].chars().count() + 1;
        let mut out = format!("{}:{line}:{column}: {}", self.path.display(), problem.message);
        let source = self.text[line_start..line_end].trim_end();
        // What is wrong with the file as a whole has no line.
        let has_place = problem.span != (0..0);
        if has_place && !source.is_empty() && source.chars().count() <= LINE_LIMIT {
            let width = self.text[start..end.min(line_end)].trim_end().chars().count().max(1);
            let _ = write!(out, "\n  | {}", printable(source, problem.hide));
            let _ = write!(out, "\n  | {}{}", " ".repeat(column - 1), "^".repeat(width));
        }
        if !problem.help.is_empty() {
            let _ = write!(out, "\n  = help: {}", problem.help);
        }
        out
    }
}

/// The next character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The line without control characters and secrets, as many characters as before.
fn printable(line: &str, hide: bool) -> String {
    let mut shown: Vec<char> = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let secret_from = if hide { line.find('=') } else { after_token(line) };
    if let Some(at) = secret_from {
        mask(&mut shown, line, at + 1..line.len());
    }
    for (at, _) in line.match_indices("://") {
        let authority = &line[at + 3..];
        let end = authority.find(['/', '"', '\'', ',', ' ']).unwrap_or(authority.len());
        if let Some(user) = authority[..end].rfind('@') {
            mask(&mut shown, line, at + 3..at + 3 + user);
        }
    }
    shown.into_iter().collect()
}

/// Where the value of `token =`, `password =` and the like begins.
fn after_token(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    ["token", "password", "secret"].iter().find_map(|word| {
        let at = lower.find(word)?;
        let rest = lower[at + word.len()..].trim_start_matches(['"', '\'', ' ', '\t']);
        rest.starts_with('=').then(|| lower.len() - rest.len())
    })
}

fn mask(shown: &mut [char], line: &str, bytes: Range<usize>) {
    let from = line[..bytes.start].chars().count();
    let to = line[..bytes.end].chars().count();
    for shown in shown.iter_mut().take(to).skip(from).filter(|c| !matches!(c, ' ' | '"' | '\'')) {
        *shown = '*';
    }
}
