//! One table of the file, and the typed ways to look into it. Every look reports what is wrong and
//! goes on, so that one run tells everything.

use std::ops::Range;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use crate::config::keys;
use crate::config::keys::Kind;
use crate::config::reader::Reader;
use crate::config::value;

/// A text and its place.
#[derive(Clone, Debug)]
pub(super) struct Text<'a> {
    pub(super) text: &'a str,
    pub(super) span: Range<usize>,
}

/// A table; an absent one is empty.
#[derive(Clone)]
pub(super) struct Section<'a> {
    pub(super) reader: &'a Reader<'a>,
    /// As in the file: `site.login`; empty for the whole file.
    name: &'static str,
    table: Option<&'a DeTable<'a>>,
    pub(super) span: Range<usize>,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn whole(reader: &'a Reader<'a>, table: &'a DeTable<'a>) -> Self {
        let section = Self { reader, name: "", table: Some(table), span: 0..0 };
        section.check_keys();
        section
    }

    pub(super) fn is_present(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    /// All keys and values.
    pub(super) fn entries(&self) -> Vec<(Text<'a>, &'a Spanned<DeValue<'a>>)> {
        let Some(table) = self.table else { return Vec::new() };
        table.iter().map(|(key, value)| (Text { text: key.get_ref(), span: key.span() }, value)).collect()
    }

    fn place(&self) -> String {
        if self.name.is_empty() { "the file".to_owned() } else { format!("[{}]", self.name) }
    }

    /// As in the file: `site.login`.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    /// The key with its table: `site.login.path`.
    pub(super) fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// The place of a value, or of the table where there is none.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        self.get(key).map_or_else(|| self.span.clone(), Spanned::span)
    }

    /// A problem with the value of a key.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>, help: impl Into<String>) {
        self.reader.report(self.span_of(key), message, help);
    }

    /// Reports a required key that is not there.
    pub(super) fn require(&self, key: &str) {
        if self.has(key) {
            return;
        }
        if !self.is_present() {
            let help = format!("write it with {}", keys::required(self.name));
            return self.reader.report(self.span.clone(), format!("there is no [{}]", self.name), help);
        }
        let example = keys::find(self.name, key).map_or("\"...\"", keys::example);
        let help = format!("write {key} = {example}");
        self.reader.report(self.span.clone(), format!("{} is missing", self.full(key)), help);
    }

    fn mistyped(&self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let message = format!("{} must be {wanted}, not {}", self.full(key), kind_of(value.get_ref()));
        self.reader.report(value.span(), message, keys::help(self.name, key));
    }

    fn check_keys(&self) {
        let Some(table) = self.table else { return };
        for (key, value) in table {
            if keys::find(self.name, key.get_ref()).is_none() {
                self.report_unknown(key, value.get_ref());
            }
        }
    }

    fn report_unknown(&self, key: &Spanned<toml::de::DeString<'_>>, value: &DeValue<'_>) {
        let what = if value.is_table() { "table" } else { "key" };
        let message = format!("unknown {what} {:?} in {}", key.get_ref(), self.place());
        let meant = keys::meant(self.name, key.get_ref());
        if meant.hide {
            self.reader.report_hidden(key.span(), message, meant.help);
        } else {
            self.reader.report(key.span(), message, meant.help);
        }
    }

    pub(super) fn text(&self, key: &str) -> Option<Text<'a>> {
        let value = self.get(key)?;
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.mistyped(key, value, "text in quotes");
        }
        text.map(|text| Text { text, span: value.span() })
    }

    /// One text or a list of texts.
    pub(super) fn texts(&self, key: &str) -> Option<Vec<Text<'a>>> {
        let one = |value: &'a Spanned<DeValue<'a>>| match value.get_ref().as_str() {
            Some(text) => Some(Text { text, span: value.span() }),
            None => {
                self.mistyped(key, value, "text in quotes or a list of texts");
                None
            }
        };
        Some(self.items(key)?.into_iter().filter_map(one).collect())
    }

    /// One value or a list of values.
    pub(super) fn items(&self, key: &str) -> Option<Vec<&'a Spanned<DeValue<'a>>>> {
        let value = self.get(key)?;
        Some(match value.get_ref().as_array() {
            Some(list) => list.iter().collect(),
            None => vec![value],
        })
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let Some(value) = self.get(key) else { return default };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.mistyped(key, value, "true or false");
            default
        })
    }

    /// A whole number in this range; a size such as `"64KiB"` where the key is one.
    pub(super) fn number(&self, key: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let is_size = keys::find(self.name, key).is_some_and(|key| matches!(key.kind, Kind::Size | Kind::SizeOrOff));
        let number = match value.get_ref() {
            DeValue::Integer(number) => value::integer(number),
            DeValue::String(text) if is_size => match value::size(text) {
                Some(size) => Some(i128::from(size)),
                None => {
                    let message = format!("{} is no size: {text:?}", self.full(key));
                    self.problem(key, message, value::size_help(text));
                    return None;
                }
            },
            DeValue::String(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)
            | DeValue::Table(_) => {
                self.mistyped(key, value, if is_size { "a size or a whole number" } else { "a whole number" });
                return None;
            }
        };
        let number = number.and_then(|number| u64::try_from(number).ok()).filter(|number| range.contains(number));
        if number.is_none() {
            let help = format!("a whole number from {} to {}", range.start(), range.end());
            self.problem(key, format!("{} is out of range", self.full(key)), help);
        }
        number
    }

    pub(super) fn is_off(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.get_ref().as_str() == Some("off"))
    }

    /// A duration longer than nothing, unless `zero` may be written.
    pub(super) fn duration(&self, key: &str, default: Duration, zero: bool) -> Duration {
        let Some(value) = self.get(key) else { return default };
        let Some(text) = value.get_ref().as_str() else {
            self.mistyped(key, value, "a duration in quotes");
            return default;
        };
        match value::duration(text) {
            Some(duration) if zero || !duration.is_zero() => return duration,
            Some(_) => {
                let help =
                    if self.may_be_off(key) { "to switch it off write \"off\"" } else { "write for example \"30s\"" };
                self.problem(key, format!("{} must be longer than 0", self.full(key)), help);
            }
            None if text == "off" => {
                let message = format!("{} cannot be off", self.full(key));
                self.problem(key, message, keys::help(self.name, key));
            }
            None => {
                let message = format!("{} is no duration: {text:?}", self.full(key));
                self.problem(key, message, value::duration_help(text));
            }
        }
        default
    }

    fn may_be_off(&self, key: &str) -> bool {
        keys::find(self.name, key).is_some_and(|key| !matches!(key.kind, Kind::Duration))
    }

    /// A duration or `"off"`.
    pub(super) fn duration_or_off(&self, key: &str, default: Option<Duration>) -> Option<Duration> {
        if self.is_off(key) {
            return None;
        }
        if !self.has(key) {
            return default;
        }
        Some(self.duration(key, default.unwrap_or(Duration::from_secs(60)), false))
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)], default: T) -> T {
        let Some(value) = self.get(key) else { return default };
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("{word:?}")).collect();
        let words = words.join(", ");
        let Some(text) = value.get_ref().as_str() else {
            self.mistyped(key, value, &format!("one of {words}"));
            return default;
        };
        if let Some((_, found)) = choices.iter().find(|(word, _)| *word == text) {
            return *found;
        }
        let help = match keys::nearest(choices.iter().map(|(word, _)| *word), text) {
            Some((near, _)) => format!("did you mean {near:?}? It is one of {words}"),
            None => format!("one of {words}"),
        };
        self.problem(key, format!("{} cannot be {text:?}", self.full(key)), help);
        default
    }

    /// A table within this one.
    pub(super) fn section(&self, key: &'static str, name: &'static str) -> Self {
        let Some(value) = self.get(key) else {
            return Self { reader: self.reader, name, table: None, span: self.span.clone() };
        };
        if value.get_ref().as_table().is_none() {
            self.mistyped(key, value, "a table");
        }
        self.open(value, name)
    }

    /// One table or an array of tables.
    pub(super) fn sections(&self, key: &'static str, name: &'static str) -> Vec<Self> {
        let mut found = Vec::new();
        for value in self.items(key).unwrap_or_default() {
            if value.get_ref().is_table() {
                found.push(self.open(value, name));
            } else {
                self.mistyped(key, value, "a table or an array of tables");
            }
        }
        found
    }

    fn open(&self, value: &'a Spanned<DeValue<'a>>, name: &'static str) -> Self {
        let section = Self { reader: self.reader, name, table: value.get_ref().as_table(), span: value.span() };
        section.check_keys();
        section
    }

    /// The path of a file, which must exist when files are looked at.
    pub(super) fn file(&self, key: &str, remedy: &str) -> Option<PathBuf> {
        let found = self.text(key)?;
        Some(self.path(key, &found, remedy))
    }

    /// One or several of them.
    pub(super) fn files(&self, key: &str, remedy: &str) -> Vec<PathBuf> {
        let found = self.texts(key).unwrap_or_default();
        found.iter().map(|found| self.path(key, found, remedy)).collect()
    }

    fn path(&self, key: &str, found: &Text<'_>, remedy: &str) -> PathBuf {
        let path = self.reader.resolve(found.text);
        if found.text.is_empty() || self.reader.misses(&path) {
            let message = format!("{}: there is no file {}", self.full(key), path.display());
            self.reader.report(found.span.clone(), message, remedy);
        }
        path
    }

    /// Each text, read by `parse`, whose error is the message and help.
    pub(super) fn parsed<T>(
        &self,
        key: &str,
        parse: impl Fn(&'a str) -> Result<T, (String, String)>,
    ) -> Option<Vec<(T, Range<usize>)>> {
        let mut all = Vec::new();
        for found in self.texts(key)? {
            match parse(found.text) {
                Ok(value) => all.push((value, found.span)),
                Err((message, help)) => {
                    self.reader.report(found.span, format!("{}: {message}", self.full(key)), help);
                }
            }
        }
        Some(all)
    }
}

fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
