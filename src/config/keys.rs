//! Looking up keys: whether one is known, and which one was meant.

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
    /// One of these words.
    Choice(&'static [&'static str]),
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
    /// Whether other values than the default do something in this version.
    pub(super) available: bool,
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

/// What the key is for.
pub(super) fn help(table: &str, name: &str) -> &'static str {
    find(table, name).map_or("", |key| key.doc)
}

/// What may have been meant by an unknown key.
pub(super) fn suggest(table: &str, name: &str) -> String {
    let closeness = |key: &Key| strsim::jaro_winkler(key.key, name);
    let nearest = of(table).max_by(|one, other| closeness(one).total_cmp(&closeness(other)));
    if let Some(key) = nearest
        && closeness(key) > 0.84
    {
        return format!("did you mean {:?}?", key.key);
    }
    if let Some(elsewhere) = KEYS.iter().find(|key| key.key == name) {
        let place = if elsewhere.table.is_empty() { "the top of the file".to_owned() } else { table_of(elsewhere) };
        return format!("{name:?} belongs in {place}");
    }
    let all: Vec<_> = of(table).map(|key| key.key).collect();
    format!("known keys: {}", all.join(", "))
}

fn table_of(key: &Key) -> String {
    match key.table {
        "criteria" => "[site.login.success] or [site.login.failure]".to_owned(),
        "form" | "header" | "json" | "hsts" => format!("a {:?} table", key.table),
        table => format!("[{table}]"),
    }
}
