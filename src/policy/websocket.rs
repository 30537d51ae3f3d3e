//! WebSockets (RFC 6455, over HTTP/2 RFC 8441): what asks for one and what grants it, and where in the
//! bytes of one a frame of ours may stand.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Version;
use http::header;

/// How a client asks for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// `Upgrade` over HTTP/1.1 (RFC 6455 4.1).
    Upgrade,
    /// Extended CONNECT over HTTP/2 (RFC 8441 4).
    Connect,
}

/// Why it gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWebSocket {
    /// CONNECT with another `:protocol`, or where none is offered (RFC 9220 3, S123).
    #[error("nothing of the kind is offered over CONNECT")]
    Protocol,
    /// Another version than 13 (RFC 6455 4.4, S120).
    #[error("the WebSocket version is not 13")]
    Version,
}

impl Handshake {
    /// Whether the request is one, as far as its shape says (S117). `protocol` is its `:protocol`.
    pub fn of(method: &Method, version: Version, headers: &HeaderMap, protocol: Option<&str>) -> Option<Self> {
        if *method == Method::CONNECT {
            return protocol.map(|_| Self::Connect);
        }
        let asks = *method == Method::GET
            && version == Version::HTTP_11
            && has_token(headers, &header::CONNECTION, "upgrade")
            && switches(headers)
            && !headers.contains_key(header::CONTENT_LENGTH)
            && !headers.contains_key(header::TRANSFER_ENCODING);
        asks.then_some(Self::Upgrade)
    }

    /// Whether it asks for what there is. `offered`: WebSockets over HTTP/2.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(self, protocol: Option<&str>, offered: bool) -> Result<(), NoWebSocket> {
        let is_had = self == Self::Upgrade || (offered && protocol == Some("websocket"));
        if is_had { Ok(()) } else { Err(NoWebSocket::Protocol) }
    }
}

/// Whether it is the version that there is. What names none is the application's to judge.
///
/// # Errors
/// When it is another, or several.
pub fn check_version(headers: &HeaderMap) -> Result<(), NoWebSocket> {
    let mut versions = headers.get_all(header::SEC_WEBSOCKET_VERSION).iter();
    match (versions.next(), versions.next()) {
        (None, _) => Ok(()),
        (Some(version), None) if version == "13" => Ok(()),
        (Some(_), _) => Err(NoWebSocket::Version),
    }
}

/// A key that nobody used before (RFC 6455 4.1, 7).
pub fn key(random: [u8; 16]) -> String {
    STANDARD.encode(random)
}

/// Whether a switch answers the handshake with this key, and no other (RFC 6455 4.1, 4).
pub fn accepts(headers: &HeaderMap, key: &str) -> bool {
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let expected = STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes()));
    let mut answers = headers.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
    answers.next().is_some_and(|answer| *answer == expected) && answers.next().is_none()
}

/// Whether `Upgrade` names a WebSocket.
pub fn switches(headers: &HeaderMap) -> bool {
    has_token(headers, &header::UPGRADE, "websocket")
}

/// Whether a list-valued field has this token, ignoring case (RFC 9110 5.6.1).
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// Why a tunnel is closed from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// Its session has ended.
    SessionEnded,
    /// Nothing has moved for a while.
    Silent,
    /// The program stops.
    Stopping,
    /// The client did not wait for the answer to its handshake.
    TooEarly,
}

impl Farewell {
    /// A close frame for the client, with status and reason (RFC 6455 5.5.1, 7.4.1).
    pub fn frame(self) -> Bytes {
        let (code, reason): (u16, &[u8]) = match self {
            Self::SessionEnded => (1008, b"session ended"),
            Self::Silent => (1001, b"idle"),
            Self::Stopping => (1001, b"restarting"),
            Self::TooEarly => (1002, b"sent before the answer"),
        };
        let mut frame = BytesMut::new();
        frame.put_u8(FINAL | CLOSE);
        frame.put_u8(reason.len() as u8 + 2);
        frame.put_u16(code);
        frame.put_slice(reason);
        frame.freeze()
    }
}

const FINAL: u8 = 0x80;
const CLOSE: u8 = 0x08;
/// Set in the opcodes of close, ping and pong.
const CONTROL: u8 = 0x08;

/// Follows the frames in one direction: one of ours is never put into the midst of another, and what
/// somebody sends is told from what browsers send by themselves.
#[derive(Debug, Default)]
pub struct Frames {
    /// As much as was seen of a frame's header.
    header: Vec<u8>,
    /// What is left of its payload.
    left: u64,
    /// Whether it carries a message, or a part of one.
    is_data: bool,
    /// A close frame was seen: nothing may follow it.
    closed: bool,
}

impl Frames {
    /// These bytes come next. Whether any of them are of a message: pings are answered by browsers
    /// without anybody's doing (RFC 6455 5.5.3).
    pub fn follow(&mut self, mut bytes: &[u8]) -> bool {
        let mut is_data = false;
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let payload = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
                self.left -= payload as u64;
                bytes = &bytes[payload..];
                is_data |= self.is_data;
                continue;
            }
            self.header.push(first);
            bytes = rest;
            if let Some(length) = payload_length(&self.header) {
                self.closed |= self.header[0] & 0x0f == CLOSE;
                self.left = length;
                self.is_data = self.header[0] & CONTROL == 0;
                is_data |= self.is_data;
                self.header.clear();
            }
        }
        is_data
    }

    /// Whether another frame may begin here.
    pub fn may_begin(&self) -> bool {
        self.header.is_empty() && self.left == 0 && !self.closed
    }
}

/// The length of the payload, when the header is complete (RFC 6455 5.2).
fn payload_length(header: &[u8]) -> Option<u64> {
    let second = header.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let (extended, length) = match second & 0x7f {
        126 => (2, header.get(2..4)?.iter().fold(0, |length, &byte| length << 8 | u64::from(byte))),
        127 => (8, header.get(2..10)?.iter().fold(0, |length, &byte| length << 8 | u64::from(byte))),
        length => (0, u64::from(length)),
    };
    (header.len() == 2 + extended + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// A frame as RFC 6455 5.2 draws it.
    fn frame(opcode: u8, masked: bool, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![FINAL | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match payload.len() {
            length @ 0..126 => frame.push(mask | length as u8),
            length @ 126..65_536 => {
                frame.push(mask | 126);
                frame.put_u16(length as u16);
            }
            length => {
                frame.push(mask | 127);
                frame.put_u64(length as u64);
            }
        }
        if masked {
            frame.extend([1, 2, 3, 4]);
        }
        frame.extend(payload);
        frame
    }

    proptest! {
        #[test]
        fn a_frame_may_begin_exactly_where_one_ends(
            frames in vec((any::<bool>(), prop_oneof![0..200_usize, 65_500..65_600_usize]), 1..6),
            piece in 1..5000_usize,
        ) {
            let frames: Vec<_> = frames.iter().map(|(masked, length)| frame(2, *masked, &vec![0x88; *length])).collect();
            let ends: Vec<_> =
                frames.iter().scan(0, |end, frame| { *end += frame.len(); Some(*end) }).collect();
            let bytes = frames.concat();
            let mut followed = Frames::default();
            let mut at = 0;
            for piece in bytes.chunks(piece) {
                followed.follow(piece);
                at += piece.len();
                prop_assert_eq!(followed.may_begin(), ends.contains(&at), "at {}", at);
            }
        }

        #[test]
        fn no_bytes_harm(bytes in vec(any::<u8>(), 0..200)) {
            Frames::default().follow(&bytes);
        }
    }

    #[test]
    fn messages_are_told_from_what_keeps_a_connection_alive() {
        let followed = |frames: &[Vec<u8>]| -> Vec<bool> {
            let mut follower = Frames::default();
            frames.iter().map(|frame| follower.follow(frame)).collect()
        };
        let (text, binary, part) = (frame(1, true, b"x"), frame(2, true, b"x"), frame(0, true, b"x"));
        let (ping, pong) = (frame(9, true, b"x"), frame(10, true, b""));
        assert_eq!(followed(&[text, ping.clone(), binary, pong, part]), [true, false, true, false, true]);
        let long = frame(2, true, &[0; 1000]);
        assert_eq!(followed(&[long[..1].to_vec(), long[1..500].to_vec(), long[500..].to_vec()]), [false, true, true]);
        assert_eq!(followed(&[ping[..3].to_vec(), ping[3..].to_vec()]), [false, false]);
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_asks_for_a_websocket() {
        // S117, S123
        let (upgrade, websocket) = (("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket"));
        let (length, chunked) = (("content-length", "0"), ("transfer-encoding", "chunked"));
        for (method, version, lines, protocol, expected) in [
            (Method::GET, Version::HTTP_11, &[upgrade, websocket][..], None, Some(Handshake::Upgrade)),
            (Method::GET, Version::HTTP_10, &[upgrade, websocket], None, None),
            (Method::GET, Version::HTTP_2, &[upgrade, websocket], None, None),
            (Method::POST, Version::HTTP_11, &[upgrade, websocket], None, None),
            (Method::GET, Version::HTTP_11, &[websocket], None, None),
            (Method::GET, Version::HTTP_11, &[upgrade], None, None),
            (Method::GET, Version::HTTP_11, &[upgrade, ("upgrade", "h2c")], None, None),
            (Method::GET, Version::HTTP_11, &[upgrade, websocket, length], None, None),
            (Method::GET, Version::HTTP_11, &[upgrade, websocket, chunked], None, None),
            (Method::CONNECT, Version::HTTP_2, &[], Some("websocket"), Some(Handshake::Connect)),
            (Method::CONNECT, Version::HTTP_2, &[], Some("connect-udp"), Some(Handshake::Connect)),
            (Method::CONNECT, Version::HTTP_2, &[], None, None),
            (Method::CONNECT, Version::HTTP_11, &[upgrade, websocket], None, None),
        ] {
            let asked = Handshake::of(&method, version, &headers(lines), protocol);
            assert_eq!(asked, expected, "{method} {version:?} {lines:?} {protocol:?}");
        }
    }

    #[test]
    fn what_there_is_to_get() {
        // S123
        for (handshake, protocol, offered, expected) in [
            (Handshake::Upgrade, None, false, Ok(())),
            (Handshake::Connect, Some("websocket"), true, Ok(())),
            (Handshake::Connect, Some("websocket"), false, Err(NoWebSocket::Protocol)),
            (Handshake::Connect, Some("connect-udp"), true, Err(NoWebSocket::Protocol)),
        ] {
            assert_eq!(handshake.check(protocol, offered), expected, "{handshake:?} {protocol:?} {offered}");
        }
    }

    #[test]
    fn there_is_one_version() {
        // S120
        for (versions, expected) in [
            (&["13"][..], Ok(())),
            (&[], Ok(())),
            (&["8"], Err(NoWebSocket::Version)),
            (&["13, 8"], Err(NoWebSocket::Version)),
            (&["13", "13"], Err(NoWebSocket::Version)),
            (&[""], Err(NoWebSocket::Version)),
        ] {
            let mut headers = HeaderMap::new();
            for version in versions {
                headers.append(header::SEC_WEBSOCKET_VERSION, version.parse().unwrap());
            }
            assert_eq!(check_version(&headers), expected, "{versions:?}");
        }
    }

    #[test]
    fn a_switch_is_an_answer_to_one_key() {
        // The example of RFC 6455 1.3.
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        let answer = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(accepts(&headers(&[answer]), key));
        assert!(!accepts(&headers(&[answer]), &super::key([0; 16])));
        assert!(!accepts(&headers(&[]), key));
        assert!(!accepts(&headers(&[("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")]), key));
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        for bytes in [frame(CLOSE, false, b""), frame(CLOSE, true, b"\x03\xe8"), Farewell::Silent.frame().to_vec()] {
            let mut frames = Frames::default();
            frames.follow(&bytes);
            assert!(!frames.may_begin());
        }
    }

    #[test]
    fn farewells_say_why() {
        assert_eq!(&Farewell::SessionEnded.frame()[..], b"\x88\x0f\x03\xf0session ended");
        assert_eq!(&Farewell::Silent.frame()[..4], b"\x88\x06\x03\xe9");
    }
}
