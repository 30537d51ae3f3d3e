//! How a log line looks: text for people, JSON for everything else. Values are escaped, so that
//! nothing a client sends can begin a line or move a cursor (S162). A line is written straight into
//! its buffer: one is due for each request.

use std::cell::Cell;
use std::fmt::Debug;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use http::Version;
use serde::Serialize;
use time::OffsetDateTime;
use tracing::Event;
use tracing::Level;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::field::Visit;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use crate::policy::client::write_address;
use crate::telemetry;
use crate::telemetry::AccessEntry;
use crate::telemetry::sink::Sink;

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// One JSON object a line.
    Json,
    /// Time, level, event, then `name=value`.
    Text,
}

impl Style {
    /// The one that is set at present.
    pub(super) fn of(json: &AtomicBool) -> Self {
        if json.load(Ordering::Relaxed) { Self::Json } else { Self::Text }
    }
}

/// Writes each event as one line.
#[derive(Clone)]
pub(super) struct Lines {
    sink: Arc<Sink>,
    json: Arc<AtomicBool>,
}

impl Lines {
    pub(super) fn new(sink: Arc<Sink>, json: Arc<AtomicBool>) -> Self {
        Self { sink, json }
    }

    /// Writes the line of one request, as an event with these fields would be written.
    pub(super) fn access(&self, about: &telemetry::Context, entry: &AccessEntry<'_>) {
        let mut line = Line::begin(Style::of(&self.json), OffsetDateTime::now_utc(), Level::INFO);
        line.text("event", "access");
        line.request(about, entry);
        self.sink.put(&line.end("access"));
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut line = Line::begin(Style::of(&self.json), OffsetDateTime::now_utc(), *metadata.level());
        event.record(&mut line);
        self.sink.put(&line.end(metadata.target()));
    }
}

/// Says how many lines were lost.
pub(super) fn lost(lines: usize, style: Style) -> Vec<u8> {
    let mut line = Line::begin(style, OffsetDateTime::now_utc(), Level::WARN);
    line.text("event", "log.lost");
    line.value("lines", &lines);
    line.end("log.lost")
}

/// A name, with what stands before its value if that is a text that needs no escapes.
#[derive(Clone, Copy)]
struct Label {
    name: &'static str,
    json: &'static str,
    text: &'static str,
}

macro_rules! label {
    ($name:literal) => {
        Label { name: $name, json: concat!(",\"", $name, "\":\""), text: concat!(" ", $name, "=") }
    };
}

/// A line on its way: what stands in front, the event, the other fields in their order.
struct Line {
    style: Style,
    front: Vec<u8>,
    /// Text says the event first, wherever it is among the fields.
    event: Option<String>,
    fields: Vec<u8>,
    /// Whether there is nothing in the fields that may have to be escaped.
    is_plain: bool,
}

impl Line {
    fn begin(style: Style, now: OffsetDateTime, level: Level) -> Self {
        let mut front = Vec::with_capacity(512);
        let level = level.as_str();
        if style == Style::Json {
            front.extend_from_slice(b"{\"timestamp\":\"");
        }
        stamp(now, &mut front);
        match style {
            Style::Json => {
                front.extend_from_slice(b"\",\"level\":\"");
                front.extend(level.bytes().map(|letter| letter.to_ascii_lowercase()));
                front.push(b'"');
            }
            Style::Text => {
                let _infallible = write!(front, " {level:5} ");
            }
        }
        let fields = if style == Style::Json { std::mem::take(&mut front) } else { Vec::new() };
        Self { style, front, event: None, fields, is_plain: true }
    }

    fn text(&mut self, name: &str, value: &str) {
        let is_event = name == "event";
        match self.style {
            Style::Json => {
                if is_event {
                    self.event = Some(String::new());
                }
                self.is_plain &= is_plain(value);
                self.value(name, value);
            }
            Style::Text if is_event => self.event = Some(value.to_owned()),
            Style::Text => {
                let _infallible = write!(self.fields, " {name}={}", Readable(value));
            }
        }
    }

    /// Names are ours: nothing in them needs an escape.
    fn value(&mut self, name: &str, value: &(impl Serialize + ?Sized)) {
        let (before, after): (&[u8], &[u8]) = match self.style {
            Style::Json => (b",\"", b"\":"),
            Style::Text => (b" ", b"="),
        };
        for piece in [before, name.as_bytes(), after] {
            self.fields.extend_from_slice(piece);
        }
        let _infallible = serde_json::to_writer(&mut self.fields, value);
    }

    fn request(&mut self, about: &telemetry::Context, entry: &AccessEntry<'_>) {
        if let Some(id) = about.request_id {
            self.labelled(label!("request_id"), |out| id.write(out));
        }
        if let Some(site) = &about.site {
            self.labelled_text(label!("site"), site);
        }
        if let Some(client) = about.client {
            self.labelled(label!("client"), |out| write_address(out, client));
        }
        if let Some(session) = about.session_ref {
            self.labelled_text(label!("session"), &session);
        }
        if let Some(user) = &about.user {
            self.labelled_text(label!("user"), user.as_str());
        }
        self.labelled_text(label!("method"), entry.method.as_str());
        self.labelled_text(label!("path"), entry.path);
        self.labelled_text(label!("protocol"), protocol(entry.version));
        self.value("status", &entry.status.as_u16());
        self.value("duration_us", &u64::try_from(entry.duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// The same as [`Line::text`], for a name that is known beforehand.
    fn labelled_text(&mut self, label: Label, value: &str) {
        if self.style == Style::Json && is_plain(value) {
            self.labelled(label, |out| out.extend_from_slice(value.as_bytes()));
        } else {
            self.text(label.name, value);
        }
    }

    /// A text that needs neither quotes nor escapes.
    fn labelled(&mut self, label: Label, write: impl FnOnce(&mut Vec<u8>)) {
        match self.style {
            Style::Json => {
                self.fields.extend_from_slice(label.json.as_bytes());
                write(&mut self.fields);
                self.fields.push(b'"');
            }
            Style::Text => {
                self.fields.extend_from_slice(label.text.as_bytes());
                write(&mut self.fields);
            }
        }
    }

    /// The whole line. Those of libraries have no event of ours: theirs is the target.
    fn end(mut self, target: &str) -> Vec<u8> {
        match self.style {
            Style::Json => {
                if self.event.is_none() {
                    self.value("event", target);
                }
                self.fields.extend_from_slice(b"}\n");
                if self.is_plain { self.fields } else { printable(&self.fields) }
            }
            Style::Text => {
                let event = self.event.as_deref().unwrap_or(target);
                self.front.extend_from_slice(event.as_bytes());
                self.front.append(&mut self.fields);
                self.front.push(b'\n');
                self.front
            }
        }
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field.name(), &value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field.name(), &value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field.name(), &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.text(field.name(), &format!("{value:?}"));
    }
}

/// Whether a text is in JSON as it is. It is not left at the first byte that is not: many are looked at in one go.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & matches!(byte, b' '..=b'~') & (byte != b'"') & (byte != b'\\'))
}

/// JSON itself only asks for the first 32 characters to be escaped; a terminal takes orders from others, too.
fn printable(line: &[u8]) -> Vec<u8> {
    let mut escaped = String::with_capacity(line.len() * 2);
    for character in String::from_utf8_lossy(line).chars() {
        let is_printable = character.is_ascii() && character != '\u{7f}' || character.escape_debug().len() == 1;
        if is_printable {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _infallible = std::fmt::Write::write_fmt(&mut escaped, format_args!("\\u{unit:04x}"));
        }
    }
    escaped.into_bytes()
}

/// RFC 3339 in UTC with microseconds, always as long, so that lines can be sorted and read in columns (S160).
fn stamp(now: OffsetDateTime, out: &mut Vec<u8>) {
    thread_local! {
        /// Many lines are of one second.
        static LAST: Cell<(i64, [u8; 20])> = const { Cell::new((i64::MIN, [0; 20])) };
    }
    let (last, written) = LAST.get();
    let this = now.unix_timestamp();
    let second = if last == this { written } else { second(now) };
    LAST.set((this, second));
    out.extend_from_slice(&second);
    let mut fraction = *b"000000Z";
    put_digits(&mut fraction[..6], now.microsecond());
    out.extend_from_slice(&fraction);
}

fn second(now: OffsetDateTime) -> [u8; 20] {
    let (date, time) = (now.date(), now.time());
    let mut text = *b"0000-00-00T00:00:00.";
    let parts = [
        (0..4, date.year().unsigned_abs()),
        (5..7, u32::from(u8::from(date.month()))),
        (8..10, u32::from(date.day())),
        (11..13, u32::from(time.hour())),
        (14..16, u32::from(time.minute())),
        (17..19, u32::from(time.second())),
    ];
    for (place, number) in parts {
        put_digits(&mut text[place], number);
    }
    text
}

/// The last digits of a number, where there are zeros.
fn put_digits(place: &mut [u8], mut number: u32) {
    for digit in place.iter_mut().rev() {
        *digit += u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
    }
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "HTTP/2.0",
        Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// A value as it is, if nothing in it could be mistaken; else quoted and escaped.
struct Readable<'a>(&'a str);

impl std::fmt::Display for Readable<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(value) = self;
        let is_plain =
            !value.is_empty() && value.chars().all(|character| character.is_ascii_graphic() && character != '"');
        if is_plain { f.write_str(value) } else { write!(f, "{value:?}") }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn line(style: Style, write: impl FnOnce(&mut Line)) -> String {
        let mut line = Line::begin(style, datetime!(2026-02-03 04:05:06.000789 UTC), Level::INFO);
        write(&mut line);
        String::from_utf8(line.end("library")).unwrap()
    }

    fn access(line: &mut Line) {
        line.text("method", "GET");
        line.text("event", "access");
        line.text("path", "/a \"b");
        line.value("status", &200);
    }

    #[test]
    fn fields_stay_in_their_order() {
        assert_eq!(
            line(Style::Text, access),
            "2026-02-03T04:05:06.000789Z INFO  access method=GET path=\"/a \\\"b\" status=200\n"
        );
        assert_eq!(
            line(Style::Json, access),
            "{\"timestamp\":\"2026-02-03T04:05:06.000789Z\",\"level\":\"info\",\"method\":\"GET\",\"event\":\"access\",\
             \"path\":\"/a \\\"b\",\"status\":200}\n"
        );
    }

    #[test]
    fn a_request_is_written_as_an_event_would_be() {
        let about = telemetry::Context {
            request_id: Some(telemetry::RequestId { process: 0x0abc_def1, number: 0x1f }),
            client: Some("192.0.2.107".parse().unwrap()),
            site: Some("https://app.test".into()),
            ..telemetry::Context::default()
        };
        let entry = AccessEntry {
            method: &http::Method::GET,
            path: "/a\"\u{e9}\u{9b}",
            version: Version::HTTP_2,
            status: http::StatusCode::OK,
            duration: std::time::Duration::from_millis(2),
        };
        let write = |line: &mut Line| line.request(&about, &entry);
        let through_events = |line: &mut Line| {
            for (name, text) in [
                ("request_id", &about.request_id.unwrap().to_string()[..]),
                ("site", "https://app.test"),
                ("client", "192.0.2.107"),
                ("method", "GET"),
                ("path", entry.path),
                ("protocol", "HTTP/2.0"),
            ] {
                line.text(name, text);
            }
            line.value("status", &200);
            line.value("duration_us", &2000);
        };
        for style in [Style::Text, Style::Json] {
            assert_eq!(line(style, write), line(style, through_events));
        }
        assert!(
            line(Style::Text, write).contains(" library request_id=0abcdef10000001f site=https://app.test client=")
        );
    }

    proptest::proptest! {
        #[test]
        fn a_stamp_is_of_its_time_whichever_was_before(times in proptest::collection::vec((0..4_i64, 0..1_000_000_i64), 1..9)) {
            let format = time::macros::format_description!(
                "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z"
            );
            for (second, fraction) in times {
                // Over a leap day.
                let time = datetime!(2028-02-28 23:59:58 UTC) + time::Duration::microseconds(second * 40_000_000_000 + fraction);
                let mut written = Vec::new();
                stamp(time, &mut written);
                proptest::prop_assert_eq!(String::from_utf8(written).unwrap(), time.format(format).unwrap());
            }
        }

        #[test]
        fn what_is_written_by_hand_reads_as_displayed(process: u32, number: u64, narrow: u32) {
            for number in [number, u64::from(narrow)] {
                let id = telemetry::RequestId { process, number };
                let mut written = Vec::new();
                id.write(&mut written);
                proptest::prop_assert_eq!(String::from_utf8(written).unwrap(), id.to_string());
            }
        }
    }

    #[test]
    fn a_line_without_an_event_has_its_target() {
        let message = |line: &mut Line| line.text("message", "hello");
        assert_eq!(line(Style::Text, message), "2026-02-03T04:05:06.000789Z INFO  library message=hello\n");
        assert!(line(Style::Json, message).ends_with(",\"message\":\"hello\",\"event\":\"library\"}\n"));
    }

    #[test]
    fn nothing_in_a_value_ends_a_line() {
        // S162
        let readable = |value: &str| Readable(value).to_string();
        assert_eq!(readable("/plain?x=1"), "/plain?x=1");
        assert_eq!(readable("a\r\n{\"event\":\"x\"}\u{1b}[2J"), "\"a\\r\\n{\\\"event\\\":\\\"x\\\"}\\u{1b}[2J\"");
        assert_eq!(readable("two words"), "\"two words\"");
        let hostile = "a\r\n\u{1b}[2J\u{7f}\u{9b}2J\u{202e}é\u{e0001}\"";
        let json = line(Style::Json, |line| line.text("path", hostile));
        let escaped = r#","path":"a\r\n\u001b[2J\u007f\u009b2J\u202eé\udb40\udc01\"","#;
        assert!(json.contains(escaped) && json.lines().count() == 1, "{json}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["path"], hostile);
    }
}
