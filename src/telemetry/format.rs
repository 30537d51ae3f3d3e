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
use time::format_description::well_known::Rfc3339;
use tracing::Event;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_appender::non_blocking::NonBlocking;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

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
    let now = OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default();
    if json {
        let mut object = Map::new();
        object.insert("timestamp".to_owned(), now.into());
        object.insert("level".to_owned(), metadata.level().as_str().to_ascii_lowercase().into());
        object.extend(fields.0);
        // Lines of libraries have no event of ours: theirs is the message.
        object.entry("event").or_insert_with(|| metadata.target().into());
        return format!("{}\n", Value::Object(object));
    }
    text(&now, metadata.level().as_str(), metadata.target(), &fields.0)
}

fn text(now: &str, level: &str, target: &str, fields: &Map<String, Value>) -> String {
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
        let line = text("now", "INFO", "library", fields.as_object().unwrap());
        assert_eq!(line, "now INFO  access method=GET path=\"/a b\" status=200\n");
    }

    #[test]
    fn nothing_in_a_value_ends_a_line() {
        // S162
        assert_eq!(readable("/plain?x=1"), "/plain?x=1");
        assert_eq!(readable("a\r\n{\"event\":\"x\"}\u{1b}[2J"), "\"a\\r\\n{\\\"event\\\":\\\"x\\\"}\\u{1b}[2J\"");
        assert_eq!(readable("two words"), "\"two words\"");
    }
}
