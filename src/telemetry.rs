//! Logs: who is told what, as readable text or as one JSON object a line, never a secret (S159-S162).
//!
//! Every line has an `event`. The lines are written by another thread; when it cannot keep up they
//! are dropped and counted, and no request waits for them (S164).

mod audit;
mod device;
mod format;
mod sink;

use std::io;
use std::io::IsTerminal;
use std::net::IpAddr;
use std::panic::Location;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use http::StatusCode;
use http::Version;
use tracing_subscriber::Registry;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::config::LogSettings;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::policy::session::SessionRef;
use crate::policy::session::UserName;

use self::format::Style;
use self::sink::Sink;
use self::sink::Writer;

pub use self::audit::Audit;
pub use self::audit::Counting;
pub use self::audit::Dropped;
pub use self::audit::ErrorChain;
pub use self::audit::Hint;
pub use self::audit::RefusedSession;
pub use self::audit::audit;
pub use self::device::DeviceEvent;
pub use self::sink::lines_lost;

/// Keeps the writer going; what is waiting is written when it is dropped.
pub struct Guard {
    levels: Levels,
    _writer: Writer,
}

impl Guard {
    /// A handle for other threads.
    pub fn levels(&self) -> Levels {
        self.levels.clone()
    }
}

/// What is written, and how; to be changed while lines are written.
#[derive(Clone)]
pub struct Levels {
    level: reload::Handle<LevelFilter, Registry>,
    json: Arc<AtomicBool>,
}

impl Levels {
    /// From now on as these settings say.
    pub fn set(&self, settings: &LogSettings) {
        self.json.store(is_json(settings), Ordering::Relaxed);
        // It fails only when the subscriber is gone, and with it all logs.
        let _nobody_listens = self.level.reload(LevelFilter::from_level(settings.level));
    }
}

fn is_json(settings: &LogSettings) -> bool {
    match settings.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !io::stderr().is_terminal(),
    }
}

/// Sends logs to standard error, panics too. A second call changes nothing.
///
/// # Errors
/// When the system has no thread left for the writer.
pub fn init(settings: &LogSettings) -> io::Result<Guard> {
    let json = Arc::new(AtomicBool::new(is_json(settings)));
    let style = Arc::clone(&json);
    let (sink, writer) = Sink::start(io::stderr(), move |lines| format::lost(lines, Style::of(&style)))?;
    let (filter, level) = reload::Layer::new(LevelFilter::from_level(settings.level));
    let lines = format::Lines::new(sink, Arc::clone(&json));
    if tracing_subscriber::registry().with(filter).with(lines.clone()).try_init().is_ok() {
        // Nobody was faster: there is one subscriber.
        let _first = ACCESS.set(lines);
        std::panic::set_hook(Box::new(|panic| say_panic(panic.location())));
    }
    Ok(Guard { levels: Levels { level, json }, _writer: writer })
}

/// A line like all others instead of several that no log reader understands. The message stays out:
/// it can quote what was being read, a cookie or a password (S161).
fn say_panic(place: Option<&Location<'_>>) {
    tracing::error!(event = "panic", place = place.map(tracing::field::display));
}

/// What a log line says about the request it belongs to.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// Names the request in all its lines.
    pub request_id: Option<RequestId>,
    /// The site's origin.
    pub site: Option<Arc<str>>,
    /// The client's address.
    pub client: Option<IpAddr>,
    /// The session's public handle.
    pub session_ref: Option<SessionRef>,
    /// Whose session it is.
    pub user: Option<UserName>,
}

impl Context {
    /// For what happens to a session, by this request or outside any.
    pub fn about(&self, key: &SessionKey, session: &Outline) -> Self {
        Self {
            request_id: self.request_id,
            site: Some(Arc::clone(&session.site)),
            client: self.client.or(Some(session.binding.address)),
            session_ref: Some(key.session_ref()),
            user: session.user.clone(),
        }
    }
}

/// Names a request: eight random characters of the process, then a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId {
    process: u32,
    number: u64,
}

impl RequestId {
    /// As it is displayed, without the formatter's help: it is in every line of the access log.
    fn write(self, out: &mut Vec<u8>) {
        if self.number > u64::from(u32::MAX) {
            out.extend_from_slice(self.to_string().as_bytes());
            return;
        }
        let whole = u64::from(self.process) << 32 | self.number;
        let digit = |place: u32| b"0123456789abcdef"[(whole >> (60 - 4 * place) & 15) as usize];
        out.extend((0..16).map(digit));
    }
}

impl std::fmt::Display for RequestId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08x}{:08x}", self.process, self.number)
    }
}

/// Numbers requests.
pub struct RequestIds {
    process: u32,
    next: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        let mut bytes = [0; 4];
        // Without randomness the IDs are still unique within the process.
        let process =
            aws_lc_rs::rand::fill(&mut bytes).map_or_else(|_| std::process::id(), |()| u32::from_le_bytes(bytes));
        Self { process, next: AtomicU64::new(1) }
    }
}

impl RequestIds {
    /// The next one.
    pub fn next(&self) -> RequestId {
        RequestId { process: self.process, number: self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// One line of the access log.
#[derive(Debug)]
pub struct AccessEntry<'a> {
    /// Request method.
    pub method: &'a Method,
    /// Path, with the query only if that is configured.
    pub path: &'a str,
    /// The client's HTTP version.
    pub version: Version,
    /// Status of the response.
    pub status: StatusCode,
    /// From the request's head to the response's head.
    pub duration: Duration,
}

/// Where lines of the access log go, once there is a log: one is due for each request, and on its way through
/// the subscriber it would cost more than it takes to write it.
static ACCESS: OnceLock<format::Lines> = OnceLock::new();

/// Writes a line of the access log.
pub fn access(context: &Context, entry: &AccessEntry<'_>) {
    if LevelFilter::current() >= LevelFilter::INFO
        && let Some(lines) = ACCESS.get()
    {
        lines.access(context, entry);
    }
}
