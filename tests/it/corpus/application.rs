//! The application of the corpus: it reads requests as strictly as they are defined, answers with the bytes of
//! the case, and remembers everything it was sent.

use std::collections::BTreeSet;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::case::Case;
use super::case::bytes_of;
use super::case::bytes_of_all;
use crate::invariants::strict;
use crate::invariants::strict::Head;
use crate::invariants::strict::Message;
use crate::support::Wire;

/// Answers to the runner itself: a request on the same connection, one on another connection.
pub const PROBE: &str = "/probe";
pub const MARKER: &str = "/marker";

/// What the application says to one request.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    bytes: Vec<u8>,
    /// Before the body of the request was read.
    early: bool,
    /// One byte at a time.
    bytewise: bool,
    then: Then,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Then {
    /// The next request.
    #[default]
    Next,
    /// The connection ends.
    Close,
    /// It ends in this direction only.
    Finish,
    /// It is reset.
    Reset,
    /// There is no answer; the connection is left to the other side.
    Hold,
}

/// What it was sent.
#[derive(Default)]
pub struct State {
    answers: VecDeque<Answer>,
    /// Whole requests of the case, and the connection each came on, in the order in which they began.
    pub received: Vec<(usize, Message)>,
    /// The head of each among all heads.
    begun: Vec<usize>,
    /// The same of the runner.
    pub probes: Vec<(usize, Message)>,
    /// Heads of requests, whole or not.
    pub heads: usize,
    /// Incomplete requests on connections that have ended.
    pub cut: Vec<(usize, Vec<u8>)>,
    /// What came after a switch of protocols.
    pub tunnelled: Vec<u8>,
    /// What no strict reader understands.
    pub faults: Vec<String>,
    pub open: BTreeSet<usize>,
}

/// A running one.
pub struct Application {
    wire: Wire,
    shared: Arc<Shared>,
    /// How long anything may take before a case has failed.
    pub patience: Duration,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

impl Shared {
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.lock().unwrap());
        self.changed.notify_waiters();
        changed
    }
}

impl Application {
    pub async fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let serving = Arc::clone(&shared);
        let wire = Wire::start(move |number, stream| serve(Arc::clone(&serving), number, stream)).await;
        Self { wire, shared, patience: Duration::from_secs(10) }
    }

    pub fn url(&self) -> String {
        self.wire.url()
    }

    /// Forgets everything, and answers as this case says from now on.
    pub fn play(&self, case: &Case) {
        let answers = answers(&case.answers);
        self.shared
            .change(|state| *state = State { answers, open: std::mem::take(&mut state.open), ..State::default() });
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Waits until it is so.
    pub async fn until(&self, what: &str, is_so: impl Fn(&State) -> bool) -> Result<(), String> {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                if is_so(&self.state()) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(self.patience, waiting).await.map_err(|_| format!("never happened: {what}"))
    }
}

/// The `<<` lines of a case.
fn answers(lines: &[String]) -> VecDeque<Answer> {
    let mut answers = VecDeque::new();
    let mut answer = Answer::default();
    for line in lines {
        match line.as_str() {
            "{next}" => answers.push_back(std::mem::take(&mut answer)),
            "{early}" => answer.early = true,
            "{bytewise}" => answer.bytewise = true,
            "{close}" => answer.then = Then::Close,
            "{finish}" => answer.then = Then::Finish,
            "{reset}" => answer.then = Then::Reset,
            "{hold}" => answer.then = Then::Hold,
            bytes => answer.bytes.extend(bytes_of(bytes)),
        }
    }
    if !lines.is_empty() {
        answers.push_back(answer);
    }
    answers
}

/// What it answers when the case does not say.
fn usual(head: &Head) -> Answer {
    let body = match head.target() {
        PROBE | MARKER => head.target(),
        _ => "ok",
    };
    // The next case begins with a connection of its own.
    let last = if head.target() == MARKER { "Connection: close\r\n" } else { "" };
    let bytes = format!("HTTP/1.1 200 OK\r\n{last}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let then = if head.target() == MARKER { Then::Close } else { Then::Next };
    Answer { bytes, then, ..Answer::default() }
}

async fn serve(shared: Arc<Shared>, number: usize, mut stream: TcpStream) {
    stream.set_nodelay(true).unwrap();
    shared.change(|state| state.open.insert(number));
    let mut buffer = Vec::new();
    let ended = converse(&shared, number, &mut stream, &mut buffer).await;
    shared.change(|state| {
        if let Err(fault) = ended {
            state.faults.push(fault);
        } else if !buffer.is_empty() {
            state.cut.push((number, buffer));
        }
        state.open.remove(&number);
    });
}

/// Reads requests and answers them until the connection ends.
async fn converse(shared: &Shared, number: usize, stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<(), String> {
    loop {
        let Some((head, used)) = next(stream, buffer, strict::request_head).await? else { return Ok(()) };
        spaced(&buffer[..used])?;
        let turn = shared.change(|state| {
            state.heads += 1;
            state.heads
        });
        let is_of_case = !matches!(head.target(), PROBE | MARKER);
        let scripted = if is_of_case { shared.change(|state| state.answers.pop_front()) } else { None };
        let answer = scripted.unwrap_or_else(|| usual(&head));
        if answer.early {
            say(stream, &answer).await;
        }
        if answer.early && answer.then == Then::Close {
            return Ok(());
        }
        let framing = head.request_framing()?;
        let body = |bytes: &[u8]| strict::body(framing, &bytes[used..]);
        let Some((body, length)) = next(stream, buffer, body).await? else { return Ok(()) };
        buffer.drain(..used + length);
        shared.change(|state| {
            let received = (number, Message { head: head.clone(), body });
            if is_of_case {
                let place = state.begun.partition_point(|begun| *begun < turn);
                state.begun.insert(place, turn);
                state.received.insert(place, received);
            } else {
                state.probes.push(received);
            }
        });
        if !answer.early {
            say(stream, &answer).await;
        }
        match answer.then {
            Then::Next if answer.bytes.starts_with(b"HTTP/1.1 101") && head.all("upgrade").next().is_some() => {
                let mut tunnelled = std::mem::take(buffer);
                let _ = stream.read_to_end(&mut tunnelled).await;
                shared.change(|state| state.tunnelled.extend(tunnelled));
                return Ok(());
            }
            Then::Next => {}
            Then::Close => return Ok(()),
            Then::Hold => {
                let _ = stream.read_to_end(buffer).await;
                return Ok(());
            }
            Then::Finish => stream.shutdown().await.unwrap_or(()),
            Then::Reset => return stream.set_zero_linger().map_err(|error| error.to_string()),
        }
    }
}

/// Readers take off the spaces around a value, but not all take the same for spaces (S104): one stands before it.
fn spaced(head: &[u8]) -> Result<(), String> {
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let value = &line[colon + 1..];
        let is_bare = value.strip_prefix(b" ").is_some_and(|value| value.trim_ascii().len() == value.len());
        if !is_bare && !value.is_empty() {
            return Err(format!("spaces around a value: {:?}", line.escape_ascii().to_string()));
        }
    }
    Ok(())
}

/// Reads until there is one; `None` when the connection ends before.
async fn next<T>(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
    find: impl Fn(&[u8]) -> strict::Found<T>,
) -> Result<Option<(T, usize)>, String> {
    loop {
        if let Some(found) = find(buffer)? {
            return Ok(Some(found));
        }
        match stream.read_buf(buffer).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return Ok(None),
        }
    }
}

/// The client of an answer may be gone before it is complete.
async fn say(stream: &mut TcpStream, answer: &Answer) {
    let piece = if answer.bytewise { 1 } else { answer.bytes.len().max(1) };
    for piece in answer.bytes.chunks(piece) {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        tokio::task::yield_now().await;
    }
}

/// The requests that a case says the application receives.
pub struct Expected {
    pub requests: Vec<Message>,
    /// Whether the last of them must never be complete.
    pub is_cut: bool,
    /// What comes after a switch of protocols.
    pub tunnelled: Vec<u8>,
}

/// What we add to a request of this version.
fn forwarding(version: &str) -> Vec<String> {
    [
        "forwarded: for=127.0.0.1;host=app.test;proto=https",
        &format!("via: {version} vestibule"),
        "x-forwarded-for: 127.0.0.1",
        "x-forwarded-host: app.test",
        "x-forwarded-port: 443",
        "x-forwarded-proto: https",
        "x-real-ip: 127.0.0.1",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The usual request as we send it on.
fn ours(method: &str, version: &str) -> Vec<u8> {
    let head = [format!("{method} /x HTTP/1.1"), "host: app.test".to_owned()];
    bytes_of_all(head.iter().chain(&forwarding(version)))
}

/// The `>>` lines of a case; `version` is the client's.
pub fn expected(case: &Case, version: &str) -> Expected {
    let (mut bytes, mut is_cut) = (Vec::new(), false);
    let (mut tunnelled, mut is_tunnel) = (Vec::new(), false);
    for line in &case.received {
        match line.as_str() {
            "nothing" => {}
            "{cut}" => is_cut = true,
            "{tunnel}" => is_tunnel = true,
            "{get}" => bytes.extend(ours("GET", version)),
            "{post}" => bytes.extend(ours("POST", version)),
            "{forwarding}" => bytes.extend(bytes_of_all(&forwarding(version))),
            "{forwarding 1.0}" => bytes.extend(bytes_of_all(&forwarding("1.0"))),
            line if is_tunnel => tunnelled.extend(bytes_of(line)),
            line => bytes.extend(bytes_of(line)),
        }
    }
    let mut requests = Vec::new();
    while !bytes.is_empty() {
        let found = match strict::request(&bytes) {
            Ok(None) if is_cut => {
                let (head, used) = strict::request_head(&bytes).unwrap().unwrap();
                let body = bytes[used..].to_vec();
                Some((Message { head, body }, bytes.len()))
            }
            found => found.unwrap_or_else(|error| panic!("{}: {error}", case.name)),
        };
        let (request, used) = found.unwrap_or_else(|| panic!("{}: an incomplete request is expected", case.name));
        requests.push(request);
        bytes.drain(..used);
    }
    Expected { requests, is_cut, tunnelled }
}

/// What the application received that it must not, or the other way round.
pub fn compare(expected: &Expected, state: &State, in_any_order: bool) -> Result<(), String> {
    if let Some(fault) = state.faults.first() {
        return Err(format!("the application was sent what is no HTTP: {fault}"));
    }
    let whole = expected.requests.len() - usize::from(expected.is_cut);
    let text = |message: &Message| format!("{}\n\n{}", message.head.sorted(), message.body.escape_ascii());
    let mut wanted: Vec<_> = expected.requests[..whole].iter().map(text).collect();
    let mut found: Vec<_> = state.received.iter().map(|(_, message)| text(message)).collect();
    if in_any_order {
        wanted.sort_unstable();
        found.sort_unstable();
    }
    if wanted != found {
        return Err(format!(
            "the application received\n{}\n--- instead of\n{}",
            found.join("\n\n"),
            wanted.join("\n\n")
        ));
    }
    if expected.tunnelled != state.tunnelled {
        return Err(format!("through the tunnel came {:?}", state.tunnelled.escape_ascii().to_string()));
    }
    match (&state.cut[..], expected.requests.get(whole)) {
        ([], _) => Ok(()),
        ([(_, cut)], Some(wanted)) => begins(wanted, cut),
        (cut, _) => Err(format!("{} requests broke off: {:?}", cut.len(), cut[0].1.escape_ascii().to_string())),
    }
}

/// Whether what broke off is the beginning of the request.
fn begins(wanted: &Message, cut: &[u8]) -> Result<(), String> {
    let Some((head, used)) = strict::request_head(cut)? else { return Ok(()) };
    if head.sorted() != wanted.head.sorted() {
        return Err(format!("what broke off was\n{}\n--- instead of\n{}", head.sorted(), wanted.head.sorted()));
    }
    match wanted.body.starts_with(&cut[used..]) {
        true => Ok(()),
        false => Err(format!("what broke off had the body {:?}", cut[used..].escape_ascii().to_string())),
    }
}
