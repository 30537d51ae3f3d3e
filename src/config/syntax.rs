//! What is wrong with a text that is no TOML, said for people who do not write TOML every day.

use toml::de::Error;

use crate::config::catalogue::KEYS;
use crate::config::keys;
use crate::config::reader::Reader;

/// Reports one error of the parser.
pub(super) fn report(reader: &Reader<'_>, text: &str, error: &Error) {
    let span = error.span().unwrap_or(0..0);
    let line = line_at(text, span.start);
    let (message, help) = explain(error.message(), line);
    if shows_no_secret(line) {
        reader.report(span, message, help);
    } else {
        reader.report_hidden(span, message, help);
    }
}

/// Message and remedy.
fn explain(message: &str, line: &str) -> (String, String) {
    let (key, value) = line.split_once('=').map_or(("", ""), |(key, value)| (key.trim(), value.trim()));
    if message == "duplicate key" {
        let help = "write every key and every [table] once; several sites, logins and logouts are [[site]], \
                    [[site.login]], [[site.logout]]";
        return ("this is already there".to_owned(), help.to_owned());
    }
    if line.contains(['\u{201c}', '\u{201d}', '\u{2018}', '\u{2019}']) {
        return ("this is no TOML: a curly quotation mark".to_owned(), "write straight ones: \"".to_owned());
    }
    let is_bare = value.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '/' | ':' | '*'));
    if is_bare && !key.is_empty() {
        let help = format!("text, times and sizes are written in quotes: {key} = \"...\"");
        return ("this is no TOML: text without quotes".to_owned(), help);
    }
    if message.ends_with("string, expected `\"`") {
        return (
            "this is no TOML: the closing quotation mark is missing".to_owned(),
            "write \" on the same line".to_owned(),
        );
    }
    (format!("this is no TOML: {message}"), "TOML is explained at https://toml.io/en/".to_owned())
}

/// Whether the line's key is one of ours that holds no password.
fn shows_no_secret(line: &str) -> bool {
    let Some((key, _)) = line.split_once('=') else { return true };
    let key = key.trim().trim_matches(['"', '\'']);
    !keys::is_secret(key) && KEYS.iter().any(|known| known.key == key)
}

fn line_at(text: &str, at: usize) -> &str {
    let at = (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline);
    &text[start..end]
}
