//! HTTP/2 frame by frame: what no HTTP library would send.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::io::ReadHalf;
use tokio::io::WriteHalf;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::tls::BOTH;
use super::tls::client;
use super::tls::handshake;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// A frame (RFC 9113 4.1).
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    /// A whole GET, or the head of a POST.
    pub fn request(stream: u32, method: &str, path: &str) -> Self {
        let flags = if method == "GET" { END_STREAM | END_HEADERS } else { END_HEADERS };
        Self::new(HEADERS, flags, stream, request(method, path))
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = (self.payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }
}

/// A field that is not remembered (RFC 7541 6.2.2), in full.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        assert!(text.len() < 127);
        bytes.push(text.len() as u8);
        bytes.extend(text.bytes());
    }
    bytes
}

/// The fields that every request has.
pub fn request(method: &str, path: &str) -> Vec<u8> {
    [(":method", method), (":scheme", "https"), (":path", path), (":authority", "app.test")]
        .into_iter()
        .flat_map(|(name, value)| field(name, value))
        .collect()
}

/// A connection that has said hello.
pub struct Raw {
    reading: ReadHalf<TlsStream<TcpStream>>,
    writing: WriteHalf<TlsStream<TcpStream>>,
}

impl Raw {
    /// Connects and sends these settings.
    pub async fn connect(proxy: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = handshake(proxy, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();
        stream.get_ref().0.set_nodelay(true).unwrap();
        let (reading, writing) = tokio::io::split(stream);
        let mut raw = Self { reading, writing };
        let settings: Vec<u8> =
            settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect();
        raw.writing.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        raw.send(&Frame::new(SETTINGS, 0, 0, settings)).await.unwrap();
        raw
    }

    pub async fn send(&mut self, frame: &Frame) -> std::io::Result<()> {
        self.send_bytes(&frame.bytes()).await
    }

    async fn send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.writing.write_all(bytes).await?;
        self.writing.flush().await
    }

    /// The next frame; `None` when the connection has ended.
    pub async fn receive(&mut self) -> Option<Frame> {
        receive(&mut self.reading).await
    }

    /// The next frame of a kind on a stream.
    pub async fn next(&mut self, kind: u8, stream: u32) -> Option<Frame> {
        loop {
            let frame = self.receive().await?;
            if frame.kind == kind && frame.stream == stream {
                return Some(frame);
            }
        }
    }

    /// Sends frames until the connection has ended, and takes in all that comes back; how many were
    /// sent. Fails when it is open after all of them.
    pub async fn flood(self, frames: impl Iterator<Item = Frame>) -> usize {
        let Self { mut reading, mut writing } = self;
        let taking = tokio::spawn(async move { while receive(&mut reading).await.is_some() {} });
        let mut sent = 0;
        let mut frames = frames.peekable();
        while frames.peek().is_some() && !taking.is_finished() {
            let some: Vec<_> = frames.by_ref().take(50).collect();
            let bytes: Vec<u8> = some.iter().flat_map(Frame::bytes).collect();
            if writing.write_all(&bytes).await.is_err() || writing.flush().await.is_err() {
                break;
            }
            sent += some.len();
        }
        tokio::time::timeout(Duration::from_secs(10), taking).await.expect("it is still open").unwrap();
        sent
    }
}

async fn receive(reading: &mut ReadHalf<TlsStream<TcpStream>>) -> Option<Frame> {
    let mut header = [0; 9];
    reading.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([0, header[0], header[1], header[2]]) as usize;
    let mut payload = vec![0; length];
    reading.read_exact(&mut payload).await.ok()?;
    let stream = u32::from_be_bytes(header[5..9].try_into().unwrap());
    Some(Frame { kind: header[3], flags: header[4], stream, payload })
}
