//! Cases over HTTP/2: frames in, streams and resets out. Frames are made by hand, as no library would
//! send most of them.

use std::collections::BTreeMap;

use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::application;
use super::application::MARKER;
use super::application::PROBE;
use super::case::Case;
use super::case::bytes_of;
use super::hpack;
use super::http1::added;
use super::place::Place;
use crate::support::tls_client;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Our settings: no dynamic table for header blocks, as we could not read them.
const SETTINGS: [u8; 15] = [0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0];
/// RFC 9113 7, from 0.
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];
/// The stream of the request that shows whether the connection still serves.
const LAST: u32 = 9999;

/// What came on a stream, or is wanted there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stream {
    status: Option<u16>,
    /// `name: value`, sorted.
    fields: Option<Vec<String>>,
    body: Option<String>,
    reset: Option<&'static str>,
    ended: bool,
}

/// All that came, or is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen {
    streams: BTreeMap<u32, Stream>,
    goaway: Option<&'static str>,
}

struct Client<'a> {
    place: &'a Place,
    stream: TlsStream<TcpStream>,
    buffer: Vec<u8>,
    seen: Seen,
    closed: bool,
}

/// A frame (RFC 9113 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

fn code(bytes: &[u8]) -> Result<&'static str, String> {
    let number = bytes.try_into().map(u32::from_be_bytes).map_err(|_| "half an error code")?;
    CODES.get(number as usize).copied().ok_or_else(|| format!("error code {number}"))
}

impl<'a> Client<'a> {
    async fn connect(place: &'a Place, preface: &[u8]) -> Self {
        let stream = TcpStream::connect(place.proxy()).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::try_from("app.test").unwrap();
        let stream = tls_client(&[b"h2"]).connect(name, stream).await.unwrap();
        let mut client = Self { place, stream, buffer: Vec::new(), seen: Seen::default(), closed: false };
        client.send(preface).await;
        client
    }

    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads until it is so, or the connection ends.
    async fn until(&mut self, what: &str, is_so: impl Fn(&Seen) -> bool) -> Result<(), String> {
        while !self.closed && !is_so(&self.seen) {
            let read = tokio::time::timeout(self.place.application.patience, self.stream.read_buf(&mut self.buffer));
            match read.await {
                Err(_) => return Err(format!("waited for {what}, saw {:?}", self.seen)),
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => self.closed = true,
            }
            while self.take_frame().await? {}
        }
        Ok(())
    }

    async fn take_frame(&mut self) -> Result<bool, String> {
        let Some(head) = self.buffer.get(..9) else { return Ok(false) };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let Some(payload) = self.buffer.get(9..9 + length).map(<[u8]>::to_vec) else { return Ok(false) };
        self.buffer.drain(..9 + length);
        match kind {
            0 => {
                let stream = self.seen.streams.entry(stream).or_default();
                let text = payload.escape_ascii().to_string();
                stream.body.get_or_insert_default().push_str(&text);
                stream.ended |= flags & END_STREAM != 0;
            }
            1 => self.take_head(stream, flags, &payload)?,
            3 => {
                let (stream, code) = (self.seen.streams.entry(stream).or_default(), code(&payload)?);
                // RFC 9113 8.1: after a whole answer it says that the rest of the request is not needed.
                if !(stream.ended && code == "NO_ERROR") {
                    stream.reset = Some(code);
                }
            }
            4 if flags & 1 == 0 => self.send(&frame(4, 1, 0, &[])).await,
            6 if flags & 1 == 0 => self.send(&frame(6, 1, 0, &payload)).await,
            7 => self.seen.goaway = Some(code(payload.get(4..8).ok_or("half a GOAWAY")?)?),
            4 | 6 | 8 => {}
            other => return Err(format!("a frame of type {other}")),
        }
        Ok(true)
    }

    fn take_head(&mut self, stream: u32, flags: u8, payload: &[u8]) -> Result<(), String> {
        let mut fields = hpack::decode(payload)?;
        let is_status = fields.first().is_some_and(|(name, _)| name == ":status");
        let stream = self.seen.streams.entry(stream).or_default();
        if flags & END_HEADERS == 0 || !is_status || stream.status.is_some() {
            return Err(format!("a second head, or half of one: {fields:?}"));
        }
        let (_, status) = fields.remove(0);
        stream.status = status.parse().ok();
        let mut lines: Vec<_> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        lines.sort_unstable();
        stream.fields = Some(lines);
        stream.ended |= flags & END_STREAM != 0;
        Ok(())
    }

    /// Asks the application something harmless.
    async fn ask(&mut self, target: &str) -> Result<(), String> {
        let fields = ["  :method: GET", "  :scheme: https", "  :authority: app.test"].map(str::to_owned);
        let mut fields: Vec<_> = fields.iter().filter_map(|line| field(line)).collect();
        fields.extend(field(&format!("  :path: {target}")));
        self.send(&frame(1, END_HEADERS | END_STREAM, LAST, &hpack::encode(&fields))).await;
        self.until("the answer to the probe", |seen| seen.streams.get(&LAST).is_some_and(|last| last.ended)).await?;
        match self.seen.streams.remove(&LAST) {
            Some(Stream { status: Some(200), body: Some(body), .. }) if body == target => Ok(()),
            other => Err(format!("the answer to {target} is {other:?}; {:?}", self.seen)),
        }
    }
}

/// A line `  name: value`; the name may begin with a colon.
fn field(line: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let text = line.strip_prefix("  ")?;
    let mut bytes = bytes_of(text);
    bytes.truncate(bytes.len() - 2);
    let colon = bytes.windows(2).position(|pair| pair == b": ").unwrap_or(bytes.len());
    let value = bytes.get(colon + 2..).unwrap_or_default().to_vec();
    bytes.truncate(colon);
    Some((bytes, value))
}

/// What stands for several lines.
fn expand(lines: &[String]) -> Vec<String> {
    let usual = |method: &str| {
        let method = format!("  :method: {method}");
        [method.as_str(), "  :scheme: https", "  :authority: app.test", "  :path: /x"].map(str::to_owned).to_vec()
    };
    let expand = |line: &String| match line.as_str() {
        "  {get}" => usual("GET"),
        "  {post}" => usual("POST"),
        _ => vec![line.clone()],
    };
    lines.iter().flat_map(expand).collect()
}

/// The frame that some lines describe; the first says its type.
fn written(lines: &[String], session: &str) -> Vec<u8> {
    let (start, text) = lines[0].split_once(": ").unwrap_or((&lines[0], ""));
    let words: Vec<_> = start.split(' ').collect();
    let stream = || words[1].parse().unwrap_or_else(|_| panic!("{start}"));
    let has = |word: &str| words[2..].contains(&word);
    let end = if has("end") { END_STREAM } else { 0 };
    match words[0] {
        "HEADERS" | "CONTINUATION" => {
            let lines = lines[1..].iter().map(|line| line.replace("{session}", session));
            let fields: Vec<_> = lines.filter_map(|line| field(&line)).collect();
            let (kind, done) = (if words[0] == "HEADERS" { 1 } else { 9 }, if has("open") { 0 } else { END_HEADERS });
            frame(kind, end | done, stream(), &hpack::encode(&fields))
        }
        "DATA" => {
            let mut bytes = bytes_of(text);
            bytes.truncate(bytes.len() - if text.ends_with('\\') { 0 } else { 2 });
            frame(0, end, stream(), &bytes)
        }
        "RST" => {
            let code = CODES.iter().position(|code| has(code)).unwrap() as u32;
            frame(3, 0, stream(), &code.to_be_bytes())
        }
        "FRAME" => {
            let number = |word: &str| u8::from_str_radix(word, 16).unwrap_or_else(|_| panic!("{start}"));
            let payload = bytes_of(&format!("{text}\\"));
            frame(number(words[1]), number(words[2]), words[3].parse().unwrap(), &payload)
        }
        "BYTES" => bytes_of(&format!("{text}\\")),
        other => panic!("{other} is no frame"),
    }
}

/// The `<` lines of a case.
fn wanted(case: &Case) -> Seen {
    let mut seen = Seen::default();
    let mut last = 0;
    let reset = |name: &str| CODES.into_iter().find(|code| *code == name).unwrap_or_else(|| panic!("{name}"));
    for line in &case.seen {
        if let Some(code) = line.strip_prefix("goaway ") {
            seen.goaway = Some(reset(code));
        } else if let Some(field) = line.strip_prefix("  ") {
            let stream = seen.streams.get_mut(&last).unwrap();
            let fields = stream.fields.get_or_insert_default();
            match field {
                "{added}" => fields.extend(added()),
                field => {
                    let bytes = bytes_of(&format!("{field}\\"));
                    fields.push(bytes.into_iter().map(char::from).collect());
                }
            }
        } else if line != "nothing" {
            let (number, what) = line.split_once(": ").unwrap_or_else(|| panic!("{line}"));
            last = number.parse().unwrap();
            let stream: &mut Stream = seen.streams.entry(last).or_default();
            if let Some(code) = what.strip_prefix("then reset ") {
                stream.reset = Some(reset(code));
                continue;
            }
            if let Some(code) = what.strip_prefix("reset ") {
                stream.reset = Some(reset(code));
                stream.ended = false;
                continue;
            }
            let (status, body) = what.split_once(' ').unwrap_or((what, ""));
            stream.status = Some(status.parse().unwrap());
            stream.body = (!body.is_empty()).then(|| body.to_owned());
            stream.ended = true;
        }
    }
    for stream in seen.streams.values_mut() {
        stream.fields.iter_mut().for_each(|fields| fields.sort_unstable());
    }
    seen
}

/// What came, without what the case says nothing about.
fn told(wanted: &Seen, mut found: Seen) -> Seen {
    for (number, stream) in &mut found.streams {
        let Some(wanted) = wanted.streams.get(number) else { continue };
        let is_ours = stream.status.is_some_and(|status| status >= 400);
        if wanted.fields.is_none() {
            stream.fields = None;
        }
        for line in
            stream.fields.iter_mut().flatten().filter(|line| line.starts_with("date: ") && line.ends_with(" GMT"))
        {
            "date: {date}".clone_into(line);
        }
        // The words of a refusal matter to nobody; what was cut may have been sent or not.
        if wanted.body.is_none() && (is_ours || stream.body.as_deref() == Some("ok")) || stream.reset.is_some() {
            stream.body.clone_from(&wanted.body);
        }
        // A whole answer before the reset is none of those that are cut.
        if stream.reset.is_some() && !stream.ended && stream.status.is_none() {
            stream.status = wanted.status;
            stream.fields.clone_from(&wanted.fields);
        }
        if stream.body.as_deref() == Some("") {
            stream.body = None;
        }
    }
    found
}

/// Plays one case; the difference between what it says and what happened.
pub async fn play(place: &Place, case: &Case) -> Result<(), String> {
    let application = &place.application;
    application.play(case);
    let wanted = wanted(case);
    let lines = expand(&case.client);
    let preface: Vec<u8> = match lines[0].as_str() {
        "! no preface" => Vec::new(),
        _ => [PREFACE, &SETTINGS].concat(),
    };
    let mut client = Client::connect(place, &preface).await;
    let mut lines = &lines[usize::from(preface.is_empty())..];
    let mut waits = 0;
    while let [first, rest @ ..] = lines {
        let more = rest.iter().take_while(|line| line.starts_with("  ")).count();
        if let Some(act) = first.strip_prefix("! ") {
            match act.split_once(' ').unwrap_or((act, "")) {
                ("reached", _) => {
                    waits += 1;
                    application.until("it reaches the application", |state| state.heads >= waits).await?;
                }
                ("see", stream) => {
                    let stream = stream.parse().unwrap();
                    client.until("a stream", |seen| seen.streams.get(&stream).is_some_and(|s| s.ended)).await?;
                }
                (other, _) => panic!("{}: {other}", case.name),
            }
        } else {
            client.send(&written(&lines[..=more], &place.session)).await;
        }
        lines = &rest[more..];
    }
    finish(case, &mut client, &wanted).await?;
    Client::connect(place, &[PREFACE, &SETTINGS].concat()).await.ask(MARKER).await?;
    let state = application.state();
    application::compare(&application::expected(case, "2.0"), &state, true)?;
    let probes: Vec<_> = state.probes.iter().map(|(_, probe)| probe.head.target()).collect();
    let wanted = if case.ends("kept") { &[PROBE, MARKER][..] } else { &[MARKER] };
    if probes == wanted { Ok(()) } else { Err(format!("the application was asked for {probes:?}")) }
}

async fn finish(case: &Case, client: &mut Client<'_>, wanted: &Seen) -> Result<(), String> {
    let is_there = |seen: &Seen| {
        wanted.streams.iter().all(|(number, wanted)| {
            let stream = seen.streams.get(number);
            stream.is_some_and(|stream| stream.reset.is_some() || (stream.ended && wanted.reset.is_none()))
        })
    };
    client.until("what the client must see", is_there).await?;
    if case.ends("kept") {
        client.ask(PROBE).await?;
    } else {
        assert!(case.ends("closed"), "{}: how does it end?", case.name);
        client.until("the end", |_| false).await?;
    }
    let found = told(wanted, client.seen.clone());
    if *wanted != found {
        return Err(format!("the client saw\n{found:#?}\n--- instead of\n{wanted:#?}"));
    }
    if case.received.iter().any(|line| line == "{cut}") {
        let is_over = |state: &application::State| {
            state.open.iter().all(|open| state.probes.iter().any(|(probe, _)| probe == open))
        };
        client.place.application.until("the application sees what broke off", is_over).await?;
    }
    Ok(())
}
