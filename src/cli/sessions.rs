//! `vestibule sessions`: asks the running server through its admin socket.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use clap::Subcommand;
use http::Method;
use http::Request;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Empty;
use http_body_util::Limited;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::net::UnixStream;
use tokio_util::either::Either;
use url::form_urlencoded::byte_serialize;

use crate::admin;
use crate::cli::File;
use crate::cli::INVALID;
use crate::cli::complain;
use crate::cli::failed;
use crate::cli::plural;
use crate::cli::say;
use crate::config::Config;
use crate::config::ListenAddress;

/// Sessions that are asked for at once.
const PAGE: usize = 1000;
/// A server that takes longer for an answer is stuck, or stopped.
const PATIENCE: Duration = Duration::from_secs(10);
/// No answer is longer.
const LONGEST: usize = 64 * 1024 * 1024;

/// What to do with the sessions of the running server.
#[derive(Subcommand)]
pub(super) enum Sessions {
    /// List sessions, those used last first.
    List {
        #[command(flatten)]
        file: File,
        /// Only this user's.
        #[arg(long, value_name = "USER")]
        user: Option<String>,
        /// As a JSON array.
        #[arg(long)]
        json: bool,
    },
    /// Show one session.
    Show {
        #[command(flatten)]
        file: File,
        /// Its public handle, as in the list and in logs.
        #[arg(value_name = "REF", allow_hyphen_values = true)]
        session_ref: String,
        /// As a JSON object.
        #[arg(long)]
        json: bool,
    },
    /// End sessions, for good and at once.
    Revoke {
        #[command(flatten)]
        file: File,
        #[command(flatten)]
        whose: Whose,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whose {
    /// The public handle of one session.
    #[arg(value_name = "REF", allow_hyphen_values = true)]
    session_ref: Option<String>,
    /// All sessions of this user.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// All sessions of everybody.
    #[arg(long)]
    all: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("{file}: the admin interface is off, or the environment names no place for it: set admin.listen")]
    NoPlace { file: String },
    #[error("nobody answers at {places}: is vestibule running with {file}?")]
    Nobody { places: String, file: String },
    #[error("{place} may not be opened: run this as the user that vestibule runs as, or as root")]
    Denied { place: ListenAddress },
    #[error("cannot connect to {place}")]
    Connect {
        place: ListenAddress,
        #[source]
        source: io::Error,
    },
    #[error("admin.token: there is nothing to read at {place}")]
    Token {
        place: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "no answer within {} seconds from {places}: the server there is stopped, or its session store does not answer; \
         look at its log, and at /readyz",
        PATIENCE.as_secs()
    )]
    Silent { places: String },
    #[error("the system gives no runtime")]
    Runtime(#[source] io::Error),
    #[error("the server broke off")]
    Broken(#[source] hyper::Error),
    #[error("the server's answer is not one of an admin interface")]
    Strange(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("{0}")]
    Refused(String),
}

pub(super) fn run(sessions: Sessions, outer: File) -> ExitCode {
    match sessions {
        Sessions::List { file, user, json } => answer(&file.or(outer), async |server| {
            let sessions = server.list(user.as_deref()).await?;
            Ok(if json { format!("{:#}\n", Value::from(sessions)) } else { table(&sessions) })
        }),
        Sessions::Show { file, session_ref, json } => answer(&file.or(outer), async |server| {
            let session = server.ask(Method::GET, &format!("/sessions/{}", encoded(&session_ref))).await?;
            Ok(if json { format!("{session:#}\n") } else { lines(&session) })
        }),
        Sessions::Revoke { file, whose } => answer(&file.or(outer), async |server| {
            let target = match (&whose.session_ref, &whose.user) {
                (Some(session_ref), _) => format!("/sessions/{}", encoded(session_ref)),
                (None, Some(user)) => format!("/sessions?user={}", encoded(user)),
                (None, None) => "/sessions?all=true".to_owned(),
            };
            let answer = server.ask(Method::DELETE, &target).await?;
            let count = answer["revoked"].as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
            Ok(format!("{} ended.\n", plural(count, "session")))
        }),
    }
}

/// What the server that runs with this configuration has learned of the applications' cookies, site by site;
/// nothing when none answers.
pub(super) fn learned(config: &Config) -> Vec<(String, Vec<String>)> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return Vec::new() };
    let server = Server { config };
    let Ok(answer) = runtime.block_on(server.ask(Method::GET, "/learned")) else { return Vec::new() };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let sites = answer["sites"].as_array().into_iter().flatten();
    let cookies = |site: &Value| site["cookies"].as_array().into_iter().flatten().filter_map(text).collect();
    sites.filter_map(|site| Some((text(&site["site"])?, cookies(site)))).collect()
}

fn encoded(text: &str) -> String {
    byte_serialize(text.as_bytes()).collect()
}

/// Reads the file, asks, and says what came of it.
fn answer(path: &Path, ask: impl AsyncFnOnce(&Server<'_>) -> Result<String, AskError>) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(problems) => {
            complain(&problems.to_string());
            return ExitCode::from(INVALID);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AskError::Runtime);
    match runtime.and_then(|runtime| runtime.block_on(ask(&Server { config: &config }))) {
        Ok(text) => say(&text, ExitCode::SUCCESS),
        Err(error) => failed(&error),
    }
}

/// The server that runs with a configuration.
struct Server<'a> {
    config: &'a Config,
}

impl Server<'_> {
    async fn list(&self, user: Option<&str>) -> Result<Vec<Value>, AskError> {
        let user = user.map_or_else(String::new, |user| format!("&user={}", encoded(user)));
        // A session may be on two pages.
        let mut all = BTreeMap::new();
        let mut target = format!("/sessions?limit={PAGE}{user}");
        loop {
            let mut page = self.ask(Method::GET, &target).await?;
            for session in page["sessions"].as_array_mut().into_iter().flatten().map(Value::take) {
                all.insert(session["ref"].to_string(), session);
            }
            let Some(next) = page["next"].as_str() else { break };
            target = format!("/sessions?limit={PAGE}{user}&cursor={}", encoded(next));
        }
        let mut all: Vec<Value> = all.into_values().collect();
        all.sort_by(|one, other| other["last_seen"].as_str().cmp(&one["last_seen"].as_str()));
        Ok(all)
    }

    async fn ask(&self, method: Method, target: &str) -> Result<Value, AskError> {
        let asked = tokio::time::timeout(PATIENCE, self.exchange(method, target)).await;
        asked.unwrap_or_else(|_| Err(AskError::Silent { places: named(&admin::places_to_ask(self.config)) }))
    }

    async fn exchange(&self, method: Method, target: &str) -> Result<Value, AskError> {
        let (stream, is_remote) = self.connect().await?;
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, "vestibule");
        if let (true, Some(token)) = (is_remote, &self.config.admin.token) {
            let read = token.read().map_err(|source| AskError::Token { place: token.to_string(), source })?;
            request = request.header(header::AUTHORIZATION, format!("Bearer {read}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| AskError::Strange(error.into()))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(AskError::Broken)?;
        let reported_there = tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(AskError::Broken)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), LONGEST).collect().await.map_err(AskError::Strange)?;
        reported_there.abort();
        let value: Value = serde_json::from_slice(&body.to_bytes()).map_err(|error| AskError::Strange(error.into()))?;
        if status.is_success() {
            return Ok(value);
        }
        Err(AskError::Refused(value["detail"].as_str().unwrap_or(status.as_str()).to_owned()))
    }

    /// To the first place where somebody listens, and whether a token is needed there.
    async fn connect(&self) -> Result<(Either<TcpStream, UnixStream>, bool), AskError> {
        let file = || self.config.file.display().to_string();
        let places = admin::places_to_ask(self.config);
        if places.is_empty() {
            return Err(AskError::NoPlace { file: file() });
        }
        for place in &places {
            let connected = match place {
                ListenAddress::Unix(path) => {
                    UnixStream::connect(path).await.map(|stream| (Either::Right(stream), false))
                }
                ListenAddress::Tcp(address) => {
                    TcpStream::connect(address).await.map(|stream| (Either::Left(stream), true))
                }
            };
            match connected {
                Ok(connected) => return Ok(connected),
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(AskError::Denied { place: place.clone() });
                }
                Err(source) => return Err(AskError::Connect { place: place.clone(), source }),
            }
        }
        Err(AskError::Nobody { places: named(&places), file: file() })
    }
}

fn named(places: &[ListenAddress]) -> String {
    places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
}

/// A column of the table: its head, the field, whether it is a time.
const COLUMNS: [(&str, &str); 7] = [
    ("REF", "ref"),
    ("USER", "user"),
    ("SITE", "site"),
    ("ADDRESS", "address"),
    ("LOGGED IN", "authenticated"),
    ("LAST SEEN", "last_seen"),
    ("EXPIRES", "expires"),
];

fn table(sessions: &[Value]) -> String {
    if sessions.is_empty() {
        return "There are no sessions.\n".to_owned();
    }
    let head = COLUMNS.map(|(head, _)| head.to_owned());
    let rows = sessions.iter().map(|session| COLUMNS.map(|(_, field)| cell(field, &session[field])));
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..COLUMNS.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let padded: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn lines(session: &Value) -> String {
    let fields = session.as_object().into_iter().flatten();
    fields.map(|(field, value)| format!("{:<14} {}\n", field.replace('_', " "), cell(field, value))).collect()
}

/// What a client sent is not to move the cursor of a terminal (S162).
fn cell(field: &str, value: &Value) -> String {
    let text = value.as_str().unwrap_or("-");
    match (field, text.get(..19)) {
        // To the second: `2026-11-26T01:02:03.456Z`.
        ("created" | "authenticated" | "last_seen" | "expires", Some(seconds)) => {
            format!("{}Z", seconds.replace('T', " "))
        }
        _ => text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(user: Option<&str>) -> Value {
        json!({
            "ref": "Zm9vYmFyYmF6cXV4", "user": user, "site": "https://app.test",
            "created": "2026-11-26T01:02:03.456Z", "authenticated": null, "last_seen": "2026-11-26T01:02:03Z",
            "expires": "2026-11-26T01:32:03.456Z", "address": "127.0.0.1", "user_agent": "curl\u{1b}[2J"
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_says_nothing_is_not_waited_for_for_ever() {
        let place = tempfile::TempDir::new().unwrap();
        let socket = place.path().join("admin.sock");
        let _listens_and_never_accepts = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let text = format!(
            "[listen]\nhttps = \"127.0.0.1:443\"\n[tls]\ncertificate = \"a\"\nkey = \"b\"\n[admin]\nlisten = \"unix:{}\"\n\
             [[site]]\norigin = \"https://a.example\"\nupstream = \"http://127.0.0.1:1\"\n",
            socket.display()
        );
        let config = Config::parse(Path::new("proxy.toml"), &text).unwrap();

        let refused = Server { config: &config }.list(None).await.unwrap_err().to_string();

        let expected =
            format!("no answer within 10 seconds from unix:{}: the server there is stopped", socket.display());
        assert!(refused.starts_with(&expected), "{refused}");
    }

    #[test]
    fn columns_are_aligned_and_times_are_short() {
        let text = table(&[session(Some("\u{e9}mile")), session(None)]);
        let lines: Vec<_> = text.lines().collect();
        let column = |head: &str| lines[0].find(head).unwrap();
        assert_eq!(&lines[0][..column("USER")], "REF               ");
        for (row, user) in [(1, "\u{e9}mile"), (2, "-")] {
            let cells: Vec<_> = lines[row].split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect();
            let times = ["-", "2026-11-26 01:02:03Z", "2026-11-26 01:32:03Z"];
            assert_eq!(cells[..4], ["Zm9vYmFyYmF6cXV4", user, "https://app.test", "127.0.0.1"]);
            assert_eq!(cells[4..], times);
        }
        assert_eq!(table(&[]), "There are no sessions.\n");
    }

    #[test]
    fn nothing_that_a_client_sent_moves_the_cursor() {
        // S162
        let text = lines(&session(Some("alice")));
        assert!(text.contains("user agent     curl\\u{1b}[2J\n"), "{text}");
        assert!(text.contains("created        2026-11-26 01:02:03Z\n"), "{text}");
    }
}
