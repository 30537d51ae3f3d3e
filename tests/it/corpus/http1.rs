//! Cases over HTTP/1.1: bytes in, bytes out.

use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::application;
use super::application::Application;
use super::application::MARKER;
use super::application::PROBE;
use super::application::State;
use super::case::Case;
use super::case::bytes_of;
use super::case::bytes_of_all;
use super::place::Place;
use crate::invariants::strict;
use crate::invariants::strict::Message;
use crate::support::tls_client;

/// The client's end of a connection.
struct Client {
    stream: TlsStream<TcpStream>,
    /// What came and was not looked at yet.
    buffer: Vec<u8>,
    closed: bool,
    patience: Duration,
}

impl Client {
    async fn connect(place: &Place) -> Self {
        let stream = TcpStream::connect(place.proxy()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("app.test").unwrap();
        let stream = tls_client(&[b"http/1.1"]).connect(name, stream).await.unwrap();
        Self { stream, buffer: Vec::new(), closed: false, patience: place.application.patience }
    }

    /// The proxy may have closed the connection already.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    async fn read(&mut self) -> Result<(), String> {
        match tokio::time::timeout(self.patience, self.stream.read_buf(&mut self.buffer)).await {
            Err(_) => Err(format!("nothing more comes after {:?}", self.buffer.escape_ascii().to_string())),
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0) | Err(_)) => {
                self.closed = true;
                Ok(())
            }
        }
    }

    /// The next response; `None` when the connection ends before it is complete.
    async fn response(&mut self, method: &str) -> Result<Option<Message>, String> {
        loop {
            if let Some((message, used)) = strict::response(&self.buffer, method, self.closed)? {
                self.buffer.drain(..used);
                return Ok(Some(message));
            }
            if self.closed {
                return Ok(None);
            }
            self.read().await?;
        }
    }

    /// Asks the application something harmless: nothing but its answer may come.
    async fn ask(&mut self, target: &str) -> Result<(), String> {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: app.test\r\n\r\n").as_bytes()).await;
        match self.response("GET").await? {
            Some(answer) if answer.head.status() == 200 && answer.body == target.as_bytes() => Ok(()),
            other => Err(format!("the answer to {target} is {other:?}")),
        }
    }
}

/// A response that the client must see.
struct Wanted {
    status: u16,
    /// All of it, unless only the status matters.
    exact: Option<Message>,
    to_head: bool,
    /// The connection ends in its midst.
    cut: bool,
}

/// The `<` lines of a case.
fn wanted(case: &Case) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut lines = case.seen.iter().peekable();
    let mut to_head = false;
    while let Some(line) = lines.next() {
        if line == "{head}" {
            to_head = true;
        } else if let Some(status) = status(line) {
            wanted.push(Wanted { status, exact: None, to_head, cut: false });
        } else if line != "nothing" {
            let is_more = |line: &&String| !line.starts_with("HTTP/1.") && *line != "{head}" && status(line).is_none();
            let mut bytes = bytes_of(line);
            while let Some(line) = lines.next_if(is_more) {
                bytes.extend(match line.as_str() {
                    "{added}" => bytes_of_all(&added()),
                    line => bytes_of(line),
                });
            }
            let message = message(&bytes, to_head).unwrap_or_else(|error| panic!("{}: {error}", case.name));
            wanted.push(Wanted { status: message.head.status(), exact: Some(message), to_head, cut: false });
        }
        to_head &= line == "{head}";
    }
    if case.ends("cut") {
        wanted.last_mut().unwrap().cut = true;
    }
    wanted
}

/// A line that is nothing but a status.
fn status(line: &str) -> Option<u16> {
    if line.len() == 3 { line.parse().ok() } else { None }
}

/// An expected response; its body as it is written when it is cut, or after a switch of protocols.
fn message(bytes: &[u8], to_head: bool) -> Result<Message, String> {
    let method = if to_head { "HEAD" } else { "GET" };
    match strict::response(bytes, method, true)? {
        Some((message, used)) if used == bytes.len() => Ok(message),
        _ => {
            let (head, used) = strict::response_head(bytes)?.ok_or("no head")?;
            Ok(Message { head, body: bytes[used..].to_vec() })
        }
    }
}

/// What we add to every answer of the application.
pub fn added() -> [String; 5] {
    [
        "date: {date}",
        "content-security-policy: frame-ancestors 'self'",
        "referrer-policy: strict-origin-when-cross-origin",
        "strict-transport-security: max-age=63072000",
        "x-content-type-options: nosniff",
    ]
    .map(str::to_owned)
}

/// What stands for several lines of a request.
fn request_lines(line: &str) -> &str {
    match line {
        "{get}" => "GET /x HTTP/1.1\\r\\nHost: app.test",
        "{post}" => "POST /x HTTP/1.1\\r\\nHost: app.test",
        "{hidden}" => "GET /hidden HTTP/1.1\\r\\nHost: app.test\\r\\n",
        line => line,
    }
}

/// All that the client of a case sends.
pub fn sent(case: &Case) -> Vec<u8> {
    let lines = case.client.iter().filter(|line| !line.starts_with("! "));
    lines.flat_map(|line| bytes_of(request_lines(line))).collect()
}

/// The first answer of the application of a case.
pub fn answered(case: &Case) -> Vec<u8> {
    let first = case.answers.iter().take_while(|line| *line != "{next}");
    first.filter(|line| !line.starts_with('{') || line.contains('*')).flat_map(|line| bytes_of(line)).collect()
}

/// Plays one case; the difference between what it says and what happened.
pub async fn play(place: &Place, case: &Case) -> Result<(), String> {
    let application = &place.application;
    application.play(case);
    let mut client = Client::connect(place).await;
    let wanted = wanted(case);
    let mut next = wanted.iter();
    let mut waits = 0;
    let mut sent = Vec::new();
    for line in case.client.iter().chain([&"! look".to_owned()]) {
        let Some(act) = line.strip_prefix("! ") else {
            sent.extend(bytes_of(&request_lines(line).replace("{session}", &place.session)));
            continue;
        };
        if act == "bytewise" {
            for byte in std::mem::take(&mut sent) {
                client.send(&[byte]).await;
            }
        }
        client.send(&std::mem::take(&mut sent)).await;
        match act {
            "bytewise" | "pause" => tokio::task::yield_now().await,
            "look" => {}
            "finish" => client.stream.shutdown().await.unwrap_or(()),
            "see" => see(&mut client, next.next().expect("nothing more to see")).await?,
            "leave" => {
                client.stream.get_mut().0.set_zero_linger().unwrap();
                drop(client);
                ended(application, case, None).await?;
                Client::connect(place).await.ask(MARKER).await?;
                return judge(application, case);
            }
            "reached" => {
                waits += 1;
                application.until("it reaches the application", |state| state.heads >= waits).await?;
            }
            other => panic!("{}: {other:?}", case.name),
        }
    }
    for wanted in next {
        see(&mut client, wanted).await?;
    }
    ended(application, case, Some(client)).await?;
    Client::connect(place).await.ask(MARKER).await?;
    judge(application, case)
}

/// Reads one response and compares it.
async fn see(client: &mut Client, wanted: &Wanted) -> Result<(), String> {
    let method = if wanted.to_head { "HEAD" } else { "GET" };
    if wanted.cut {
        return see_cut(client, wanted).await;
    }
    let Some(mut found) = client.response(method).await? else {
        let rest = client.buffer.escape_ascii();
        return Err(format!("the connection ended before a response {}, after \"{rest}\"", wanted.status));
    };
    if let (101, Some(exact)) = (found.head.status(), &wanted.exact) {
        while client.buffer.len() < exact.body.len() && !client.closed {
            client.read().await?;
        }
        found.body = std::mem::take(&mut client.buffer);
    }
    compare(wanted, &found)
}

fn compare(wanted: &Wanted, found: &Message) -> Result<(), String> {
    let text = |message: &Message| format!("{}\n\n{}", message.head.sorted(), message.body.escape_ascii());
    let Some(exact) = &wanted.exact else {
        // Without any word about it, it is the application's usual answer.
        let is_usual = wanted.status != 200 || wanted.to_head || found.body == b"ok";
        return match found.head.status() == wanted.status && is_usual {
            true => Ok(()),
            false => Err(format!("the client saw\n{}\n--- instead of {}", text(found), wanted.status)),
        };
    };
    let (wanted, found) = (text(exact), text(&dateless(exact, found.clone())));
    if wanted == found { Ok(()) } else { Err(format!("the client saw\n{found}\n--- instead of\n{wanted}")) }
}

/// The time is whatever it is, if it looks like one (RFC 9110 5.6.7).
fn dateless(wanted: &Message, mut found: Message) -> Message {
    let is_any = wanted.head.all("date").any(|date| date == "{date}");
    for (_, value) in found.head.fields.iter_mut().filter(|(name, _)| name == "date" && is_any) {
        let shape: String = value.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        if shape.len() == 29 && shape.ends_with(" 0000 00:00:00 GMT") {
            "{date}".clone_into(value);
        }
    }
    found
}

/// A response whose end never comes (S99): neither a reader of lengths nor one of chunks takes it for whole.
async fn see_cut(client: &mut Client, wanted: &Wanted) -> Result<(), String> {
    while !client.closed {
        client.read().await?;
    }
    let bytes = std::mem::take(&mut client.buffer);
    let Some((head, used)) = strict::response_head(&bytes)? else { return Ok(()) };
    if strict::response(&bytes, "GET", true)?.is_some() {
        return Err(format!("a whole response: {:?}", bytes.escape_ascii().to_string()));
    }
    let found = Message { head, body: Vec::new() };
    let exact = wanted.exact.as_ref().expect("what breaks off is written out");
    compare(&Wanted { exact: Some(Message { body: Vec::new(), ..exact.clone() }), ..*wanted }, &found)?;
    match exact.body.starts_with(&bytes[used..]) {
        true => Ok(()),
        false => Err(format!("the body was {:?}", bytes[used..].escape_ascii().to_string())),
    }
}

/// The end of the client's connection, and then of the application's.
async fn ended(application: &Application, case: &Case, client: Option<Client>) -> Result<(), String> {
    if let Some(mut client) = client {
        if case.ends("kept") {
            client.ask(PROBE).await?;
        } else if case.ends("tunnel") {
            client.stream.shutdown().await.unwrap_or(());
        } else {
            assert!(case.ends("closed") || case.ends("cut"), "{}: how does it end?", case.name);
        }
        while !case.ends("kept") && !client.closed {
            client.read().await?;
        }
        if !client.buffer.is_empty() {
            return Err(format!("more came: {:?}", client.buffer.escape_ascii().to_string()));
        }
    }
    if case.ends("upstream closed") || case.ends("tunnel") {
        let is_over = |state: &State| state.received.last().is_some_and(|(last, _)| !state.open.contains(last));
        application.until("the connection to the application ends", is_over).await?;
    }
    if case.received.iter().any(|line| line == "{cut}") {
        let is_over = |state: &State| state.open.iter().all(|open| state.probes.iter().any(|(probe, _)| probe == open));
        application.until("the application sees what broke off", is_over).await?;
    }
    Ok(())
}

fn judge(application: &Application, case: &Case) -> Result<(), String> {
    let state = application.state();
    application::compare(&application::expected(case, "1.1"), &state, false)?;
    let probes: Vec<_> = state.probes.iter().map(|(_, probe)| probe.head.target()).collect();
    let wanted = if case.ends("kept") { &[PROBE, MARKER][..] } else { &[MARKER] };
    if probes != wanted {
        return Err(format!("the application was asked for {probes:?}"));
    }
    let last = state.received.last().map(|(number, _)| *number);
    if case.ends("upstream kept") && state.probes.iter().any(|(number, _)| Some(*number) != last) {
        return Err("the connection to the application was not used again".into());
    }
    Ok(())
}
