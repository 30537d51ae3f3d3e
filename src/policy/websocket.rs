//! WebSockets (RFC 6455): what asks for one, and where in the bytes of one a frame of ours may stand.

use bytes::BufMut;
use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderName;
use http::Method;
use http::Version;
use http::header;

/// Whether the request asks for a WebSocket over HTTP/1.1 (RFC 6455 4.1, S117).
pub fn is_handshake(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    *method == Method::GET
        && version == Version::HTTP_11
        && has_token(headers, &header::CONNECTION, "upgrade")
        && switches(headers)
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
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
}

impl Farewell {
    /// A close frame for the client, with status and reason (RFC 6455 5.5.1, 7.4.1).
    pub fn frame(self) -> Bytes {
        let (code, reason): (u16, &[u8]) = match self {
            Self::SessionEnded => (1008, b"session ended"),
            Self::Silent => (1001, b"idle"),
            Self::Stopping => (1001, b"restarting"),
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
