//! HTTP/1.1 as its grammar is written (RFC 9112), and nothing beyond: what is tolerated by real readers
//! is an error here. It shares no code with the program, so that it can judge what the program sends.

use std::fmt::Write;

/// The head of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The request line or status line.
    pub start: String,
    /// Names in lower case, in the order in which they came.
    pub fields: Vec<(String, String)>,
}

/// A whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub head: Head,
    pub body: Vec<u8>,
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Length(usize),
    Chunked,
    /// With the connection; only responses may.
    Close,
}

/// What was found at the beginning of some bytes: `None` when it is not complete yet; otherwise it and
/// its length.
pub type Found<T> = Result<Option<(T, usize)>, String>;

impl Head {
    /// All values of a field.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(move |(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The value of a field that there may be only one of.
    pub fn one<'a>(&'a self, name: &'a str) -> Result<Option<&'a str>, String> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(format!("several {name}")),
            (value, None) => Ok(value),
        }
    }

    /// The target of a request.
    pub fn target(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.start.get(9..12).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// How the body of this request ends (RFC 9112 6.3).
    pub fn request_framing(&self) -> Result<Framing, String> {
        Ok(self.declared_framing()?.unwrap_or(Framing::Length(0)))
    }

    /// How the body of this answer to such a request ends.
    pub fn response_framing(&self, method: &str) -> Result<Framing, String> {
        let declared = self.declared_framing()?;
        let status = self.status();
        if status < 200 || status == 204 {
            return match declared {
                None => Ok(Framing::Length(0)),
                Some(_) => Err(format!("{status} with a body")),
            };
        }
        if method == "HEAD" || status == 304 {
            return Ok(Framing::Length(0));
        }
        Ok(declared.unwrap_or(Framing::Close))
    }

    fn declared_framing(&self) -> Result<Option<Framing>, String> {
        match (self.one("content-length")?, self.one("transfer-encoding")?) {
            (Some(_), Some(_)) => Err("content-length beside transfer-encoding".into()),
            (None, Some("chunked")) => Ok(Some(Framing::Chunked)),
            (None, Some(coding)) => Err(format!("transfer-encoding {coding:?}")),
            (Some(length), None) if !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().map(|length| Some(Framing::Length(length))).map_err(|_| format!("length {length}"))
            }
            (Some(length), None) => Err(format!("content-length {length:?}")),
            (None, None) => Ok(None),
        }
    }

    /// The head in one order whatever the order in which it came: only that of equal names means something.
    pub fn sorted(&self) -> String {
        let mut fields = self.fields.clone();
        fields.sort_by(|one, other| one.0.cmp(&other.0));
        let mut text = self.start.clone();
        for (name, value) in fields {
            write!(text, "\n{name}: {value}").unwrap();
        }
        text
    }
}

/// A request at the beginning of these bytes.
pub fn request(bytes: &[u8]) -> Found<Message> {
    let Some((head, used)) = request_head(bytes)? else { return Ok(None) };
    with_body(head.request_framing()?, head, used, bytes)
}

/// The head of a request at the beginning of these bytes.
pub fn request_head(bytes: &[u8]) -> Found<Head> {
    let Some((head, used)) = head(bytes)? else { return Ok(None) };
    let parts: Vec<_> = head.start.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("request line {:?}", head.start)) };
    if method.is_empty() || !method.bytes().all(is_token) {
        return Err(format!("method {method:?}"));
    }
    let is_target = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    if target.is_empty() || !target.bytes().all(is_target) {
        return Err(format!("target {target:?}"));
    }
    match head.one("host")? {
        Some(host) if !host.is_empty() => {}
        host => return Err(format!("host {host:?}")),
    }
    Ok(Some((head, used)))
}

/// A response to a request of this method at the beginning of these bytes; `closed`: nothing follows them.
pub fn response(bytes: &[u8], method: &str, closed: bool) -> Found<Message> {
    let Some((head, used)) = response_head(bytes)? else { return Ok(None) };
    match head.response_framing(method)? {
        Framing::Close if !closed => Ok(None),
        Framing::Close => Ok(Some((Message { head, body: bytes[used..].to_vec() }, bytes.len()))),
        framing @ (Framing::Length(_) | Framing::Chunked) => with_body(framing, head, used, bytes),
    }
}

/// The head of a response at the beginning of these bytes.
pub fn response_head(bytes: &[u8]) -> Found<Head> {
    let Some((head, used)) = head(bytes)? else { return Ok(None) };
    let line = head.start.as_bytes();
    let is_version = line.starts_with(b"HTTP/1.1 ") || line.starts_with(b"HTTP/1.0 ");
    let status = line.get(9..12).unwrap_or_default();
    if !is_version || !status.iter().all(u8::is_ascii_digit) || !(100..1000).contains(&head.status()) {
        return Err(format!("status line {:?}", head.start));
    }
    match line.get(12) {
        Some(b' ') => Ok(Some((head, used))),
        _ => Err(format!("status line {:?}", head.start)),
    }
}

fn with_body(framing: Framing, head: Head, used: usize, bytes: &[u8]) -> Found<Message> {
    let Some((body, length)) = body(framing, &bytes[used..])? else { return Ok(None) };
    Ok(Some((Message { head, body }, used + length)))
}

/// A body that is framed like this at the beginning of these bytes.
pub fn body(framing: Framing, bytes: &[u8]) -> Found<Vec<u8>> {
    match framing {
        Framing::Length(length) => Ok(bytes.get(..length).map(|body| (body.to_vec(), length))),
        Framing::Chunked => chunks(bytes),
        Framing::Close => Ok(Some((bytes.to_vec(), bytes.len()))),
    }
}

/// Chunks without extensions, and no trailers (RFC 9112 7.1).
fn chunks(bytes: &[u8]) -> Found<Vec<u8>> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let Some((size, used)) = line(&bytes[at..])? else { return Ok(None) };
        let is_size = (1..=15).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(&size, 16).ok().filter(|_| is_size);
        let size = size.ok_or_else(|| format!("chunk size at {at}"))?;
        at += used;
        let Some(data) = bytes.get(at..).and_then(|rest| rest.get(..size)) else { return Ok(None) };
        body.extend_from_slice(data);
        at += size;
        match bytes.get(at..at + 2) {
            Some(b"\r\n") => at += 2,
            Some(_) => return Err(format!("no end of the chunk at {at}")),
            None => return Ok(None),
        }
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

/// The lines up to the empty one.
fn head(bytes: &[u8]) -> Found<Head> {
    let Some((start, mut at)) = line(bytes)? else { return Ok(None) };
    let mut fields = Vec::new();
    loop {
        let Some((text, used)) = line(&bytes[at..])? else { return Ok(None) };
        at += used;
        if text.is_empty() {
            return Ok(Some((Head { start, fields }, at)));
        }
        let (name, value) = text.split_once(':').ok_or_else(|| format!("no field: {text:?}"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(format!("field name {name:?}"));
        }
        let value = value.trim_matches([' ', '\t']);
        fields.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}

/// One line without its end. Bytes beyond ASCII become characters one by one.
fn line(bytes: &[u8]) -> Found<String> {
    let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')) else { return Ok(None) };
    match bytes.get(end..end + 2) {
        Some(b"\r\n") => {}
        None if bytes[end] == b'\r' => return Ok(None),
        Some(_) | None => return Err(format!("half a line end after {:?}", String::from_utf8_lossy(&bytes[..end]))),
    }
    match bytes[..end].iter().find(|byte| (**byte < b' ' && **byte != b'\t') || **byte == 0x7f) {
        Some(byte) => Err(format!("control character {byte:#x}")),
        None => Ok(Some((bytes[..end].iter().map(|byte| char::from(*byte)).collect(), end + 2))),
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
