//! Looking up keys: whether one is known, and which one was meant.

use crate::config::catalogue::EXAMPLES;
use crate::config::catalogue::KEYS;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One text.
    Text,
    /// One text or a list.
    Texts,
    /// True or false.
    Flag,
    /// A whole number.
    Number,
    /// Status codes.
    Statuses,
    /// `"15m"`
    Duration,
    /// `"15m"` or `"off"`
    DurationOrOff,
    /// `"64KiB"` or a number.
    Size,
    /// The same or `"off"`.
    SizeOrOff,
    /// `"5 in 15m"` or `"off"`
    Limit,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Names of rules about messages.
    Rules,
    /// A table.
    Table,
    /// A table or an array of tables.
    Tables,
    /// A table with keys of any name.
    Free,
    /// Several kinds.
    Any,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) table: &'static str,
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// As it would be written; empty for none.
    pub(super) default: &'static str,
    pub(super) doc: &'static str,
}

/// The name under which a table's keys are listed: several tables have the same ones.
pub(super) fn listed_as(table: &str) -> &str {
    match table {
        "site.session" => "session",
        "site.csrf" => "csrf",
        "site.limits" => "limits",
        "site.login.success" | "site.login.failure" => "criteria",
        "site.login.form" | "site.logout.form" => "form",
        "site.login.success.header" | "site.login.failure.header" | "site.login.verify.header" => "header",
        "site.login.success.json" | "site.login.failure.json" | "site.login.verify.json" => "json",
        "site.headers.hsts" => "hsts",
        other => other,
    }
}

/// The keys of a table, in the order of the documentation.
pub(super) fn of(table: &str) -> impl Iterator<Item = &'static Key> {
    let listed = listed_as(table).to_owned();
    KEYS.iter().filter(move |key| key.table == listed)
}

/// A known key; every key of a table of free names is known.
pub(super) fn find(table: &str, name: &str) -> Option<&'static Key> {
    of(table).find(|key| key.key == name)
}

/// What the key is for and how it is written, for messages.
pub(super) fn help(table: &str, name: &str) -> String {
    let Some(key) = find(table, name) else { return String::new() };
    let doc = key.doc.trim_end_matches("; required.").trim_end_matches('.');
    match example(key) {
        "" => format!("{doc}."),
        example => format!("{doc}. For example: {name} = {example}"),
    }
}

/// How a value of the key is written: as its example, or its default.
pub(super) fn example(key: &Key) -> &'static str {
    let listed = EXAMPLES.iter().find(|(table, name, _)| *table == key.table && *name == key.key);
    listed.map_or(key.default, |(_, _, example)| example)
}

/// The required keys of a table as they would be written: `path = "/login" and user = "form:username"`.
pub(super) fn required(table: &str) -> String {
    let required = of(table).filter(|key| key.is_required());
    required.map(|key| format!("{} = {}", key.key, example(key))).collect::<Vec<_>>().join(" and ")
}

impl Key {
    pub(super) fn is_required(&self) -> bool {
        self.doc.ends_with("required.")
    }
}

/// Whether a value of this key could hold a password.
pub(super) fn is_secret(name: &str) -> bool {
    matches!(name, "token" | "url" | "password" | "key")
}

/// The nearest of some words, if one is near.
pub(super) fn nearest<'w>(words: impl Iterator<Item = &'w str>, text: &str) -> Option<(&'w str, f64)> {
    let text = text.to_ascii_lowercase();
    let near = words.map(|word| (word, strsim::jaro_winkler(word, &text)));
    near.max_by(|one, other| one.1.total_cmp(&other.1)).filter(|(_, closeness)| *closeness > 0.84)
}

/// What may have been meant by an unknown key.
pub(super) struct Meant {
    /// What to do about it.
    pub(super) help: String,
    /// Whether its value could be a secret: what nobody knows could be one.
    pub(super) hide: bool,
}

/// Looks for the nearest key of the table, and for the table that has the key.
pub(super) fn meant(table: &str, name: &str) -> Meant {
    let near = nearest(of(table).map(|key| key.key), name);
    let elsewhere: Vec<&Key> = KEYS.iter().filter(|key| key.key == name).collect();
    match near {
        // A slip of the finger is likelier than the right key in the wrong table.
        Some((key, closeness)) if closeness > 0.93 || elsewhere.is_empty() => {
            Meant { help: format!("did you mean {key:?}?"), hide: is_secret(key) }
        }
        Some(_) | None if !elsewhere.is_empty() => Meant { help: belongs(name, &elsewhere), hide: is_secret(name) },
        Some(_) | None => {
            let all: Vec<_> = of(table).map(|key| key.key).collect();
            Meant { help: format!("known keys: {}", all.join(", ")), hide: true }
        }
    }
}

fn belongs(name: &str, places: &[&Key]) -> String {
    if let [Key { table, kind: Kind::Table | Kind::Tables, .. }] = places
        && !table.is_empty()
    {
        return format!("write [{table}.{name}], below its [[site]]");
    }
    let places: Vec<_> = places.iter().map(|key| table_of(key)).collect();
    format!("{name:?} belongs in {}", places.join(" or "))
}

fn table_of(key: &Key) -> String {
    match key.table {
        "" => "the top of the file".to_owned(),
        "site" => "[[site]]".to_owned(),
        "tls.extra" => "[[tls.extra]]".to_owned(),
        "criteria" => "[site.login.success] or [site.login.failure]".to_owned(),
        "form" | "header" | "json" | "hsts" => format!("a {:?} table", key.table),
        table => format!("[{table}]"),
    }
}
