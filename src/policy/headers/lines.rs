//! Fields that we add to a request, as HTTP/1.1 writes them.

use std::fmt::Display;
use std::net::IpAddr;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;

use crate::policy::client;
use crate::policy::session::UserName;

/// What most requests get added to them, in bytes, with some to spare.
const USUAL: usize = 384;

/// Fields as lines of a head, each with its end. They are written and not looked for: as text they cost a
/// fraction of what their places in a map do.
#[derive(Clone, Default)]
pub struct Lines(Vec<u8>);

impl Lines {
    /// None yet, and room for the usual ones.
    pub(super) fn with_room() -> Self {
        Self(Vec::with_capacity(USUAL))
    }

    /// The lines as they stand in a head.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Puts the fields into a map, in the place of what has their names there.
    pub fn put_into(&self, headers: &mut HeaderMap) {
        for line in self.0.split(|byte| *byte == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii_start());
            // They were written from both, or from what is always valid.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.insert(name, value);
            }
        }
    }

    /// Adds a field.
    pub(super) fn add(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.begin(name.as_str()).text(value.as_bytes()).end();
    }

    /// Adds lines that were written before.
    pub(super) fn add_all(&mut self, lines: &Self) {
        self.0.extend_from_slice(&lines.0);
    }

    /// Begins a field, whose value is to follow, and its end.
    pub(super) fn begin(&mut self, name: &str) -> &mut Self {
        self.text(name.as_bytes()).text(b": ")
    }

    /// A part of a value, which has to be one itself.
    pub(super) fn text(&mut self, text: &[u8]) -> &mut Self {
        debug_assert!(!text.iter().any(|byte| matches!(byte, b'\r' | b'\n')), "a value has one line");
        self.0.extend_from_slice(text);
        self
    }

    /// A part of a value: an address as it is always written.
    pub(super) fn address(&mut self, address: IpAddr) -> &mut Self {
        client::write_address(&mut self.0, address);
        self
    }

    /// A part of a value: an address as RFC 7239 section 6 writes it, IPv6 in brackets and quotes (S69).
    pub(super) fn node(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(_) => self.address(address),
            IpAddr::V6(_) => self.text(b"\"[").address(address).text(b"]\""),
        }
    }

    /// A part of a value: a user's name.
    pub(super) fn user(&mut self, name: &UserName) -> &mut Self {
        match name.plain() {
            Some(plain) => self.0.extend_from_slice(plain),
            None => self.shown(name.in_header()),
        }
        self
    }

    /// A part of a value: a number.
    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.shown(number);
        self
    }

    /// Ends a field.
    pub(super) fn end(&mut self) {
        self.0.extend_from_slice(b"\r\n");
    }

    fn shown(&mut self, text: impl Display) {
        self.0.extend_from_slice(text.to_string().as_bytes());
    }
}
