//! How a log line looks: text for people, JSON for everything else. Values are escaped, so that
//! nothing a client sends can begin a line or move a cursor (S162).

use std::fmt::Debug;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Map;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// RFC 3339 in UTC, always as long, so that lines can be sorted and read in columns (S160).
const TIMESTAMP: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Writes each event as one line.
pub(super) struct Lines {
    writer: Mutex<NonBlocking>,
    json: Arc<AtomicBool>,
}

impl Lines {
    pub(super) fn new(writer: NonBlocking, json: Arc<AtomicBool>) -> Self {
        Self { writer: Mutex::new(writer), json }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = line(event, self.json.load(Ordering::Relaxed));
        // A log that cannot be written stops nothing (S164).
        let _dropped_and_counted =
            self.writer.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

/// The fields of an event in their order, as JSON values.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}").into());
    }
}

fn line(event: &Event<'_>, json: bool) -> String {
    let mut fields = Fields::default();
    event.record(&mut fields);
    let metadata = event.metadata();
    compose(metadata.level(), metadata.target(), fields.0, json)
}

/// A line with these fields. Lines of libraries have no event of ours: their module takes its place.
fn compose(level: &Level, target: &str, fields: Map<String, Value>, json: bool) -> String {
    let now = OffsetDateTime::now_utc().format(TIMESTAMP).unwrap_or_default();
    if json {
        json_line(&now, level.as_str(), target, fields)
    } else {
        text_line(&now, level.as_str(), target, &fields)
    }
}

fn json_line(now: &str, level: &str, target: &str, fields: Map<String, Value>) -> String {
    let mut object = Map::new();
    object.insert("timestamp".to_owned(), now.into());
    object.insert("level".to_owned(), level.to_ascii_lowercase().into());
    object.extend(fields);
    object.entry("event").or_insert_with(|| target.into());
    let line = Value::Object(object).to_string();
    if line.bytes().all(|byte| byte.is_ascii() && byte != 0x7f) { line + "\n" } else { printable(&line) + "\n" }
}

/// JSON itself only asks for the first 32 characters to be escaped; a terminal takes orders from others, too.
fn printable(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for character in json.chars() {
        let is_printable = character.is_ascii() && character != '\u{7f}' || character.escape_debug().len() == 1;
        if is_printable {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _infallible = write!(escaped, "\\u{unit:04x}");
        }
    }
    escaped
}

fn text_line(now: &str, level: &str, target: &str, fields: &Map<String, Value>) -> String {
    let event = fields.get("event").and_then(Value::as_str).unwrap_or(target);
    let mut text = format!("{now} {level:5} {event}");
    for (name, value) in fields.iter().filter(|(name, _)| *name != "event") {
        let value = match value {
            Value::String(value) => readable(value),
            value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => {
                value.to_string()
            }
        };
        let _infallible = write!(text, " {name}={value}");
    }
    text.push('\n');
    text
}

/// A value as it is, if nothing in it could be mistaken; else quoted and escaped.
fn readable(value: &str) -> String {
    let is_plain = !value.is_empty() && value.chars().all(|character| character.is_ascii_graphic() && character != '"');
    if is_plain { value.to_owned() } else { format!("{value:?}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stay_in_their_order() {
        let fields = serde_json::json!({ "event": "access", "method": "GET", "path": "/a b", "status": 200 });
        let line = text_line("now", "INFO", "library", fields.as_object().unwrap());
        assert_eq!(line, "now INFO  access method=GET path=\"/a b\" status=200\n");
    }

    #[test]
    fn nothing_in_a_value_ends_a_line() {
        // S162
        assert_eq!(readable("/plain?x=1"), "/plain?x=1");
        assert_eq!(readable("a\r\n{\"event\":\"x\"}\u{1b}[2J"), "\"a\\r\\n{\\\"event\\\":\\\"x\\\"}\\u{1b}[2J\"");
        assert_eq!(readable("two words"), "\"two words\"");
        let fields = Map::from_iter([("path".to_owned(), "a\r\n\u{1b}[2J\u{7f}\u{9b}2J\u{202e}é\u{e0001}\"".into())]);
        let line = json_line("now", "WARN", "library", fields);
        let expected = r#"{"timestamp":"now","level":"warn","path":"a\r\n\u001b[2J\u007f\u009b2J\u202eé\udb40\udc01\"","event":"library"}"#;
        assert_eq!(line, format!("{expected}\n"));
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["path"], "a\r\n\u{1b}[2J\u{7f}\u{9b}2J\u{202e}é\u{e0001}\"");
    }
}
