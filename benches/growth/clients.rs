//! Connections that are held open.

use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::StreamOwned;
use socket2::Domain;
use socket2::Socket;
use socket2::Type;

use crate::load::Client;
use crate::load::Held;
use crate::load::Resume;
use crate::process::Server;

/// What a client with little room has for what comes.
const LITTLE: usize = 16 * 1024;
/// A text frame with two letters, masked with zeros, and the same as a server sends it (RFC 6455 5.2).
const SAID: [u8; 8] = [0x81, 0x82, 0, 0, 0, 0, b'h', b'i'];
const HEARD: [u8; 4] = [0x81, 0x02, b'h', b'i'];

/// WebSockets over which something has been said.
pub fn websockets(client: &Client, server: &Server, count: usize) -> Vec<Held> {
    let (settings, authority) = (client.settings(Resume::Never), server.authority());
    let (cookie, port) = (client.session(server), server.port);
    let ask = format!(
        "GET /ws HTTP/1.1\r\nhost: {authority}\r\norigin: https://{authority}\r\ncookie: {cookie}\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let open = |_| {
        let mut stream = connect(&settings, port);
        stream.write_all(ask.as_bytes()).unwrap();
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 101 "), "{}: {answer}", server.name);
        stream.write_all(&SAID).unwrap();
        let mut heard = HEARD.map(|_| 0);
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, HEARD, "{}", server.name);
        stream
    };
    (0..count).map(open).collect()
}

/// Clients that have asked for the big file.
pub fn readers(client: &Client, server: &Server, count: usize) -> Vec<Held> {
    let (settings, cookie) = (client.settings(Resume::Never), client.session(server));
    let ask = format!("GET /big/slow HTTP/1.1\r\nhost: {}\r\ncookie: {cookie}\r\n\r\n", server.authority());
    let open = |_| {
        let mut stream = connect(&settings, server.port);
        stream.write_all(ask.as_bytes()).unwrap();
        let answer = head(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{}: {answer}", server.name);
        stream
    };
    (0..count).map(open).collect()
}

/// Connections whose handshake is over.
pub fn handshaken(client: &Client, server: &Server, count: usize) -> Vec<Held> {
    let settings = client.settings(Resume::Never);
    let open = |_| {
        let mut stream = connect(&settings, server.port);
        // The server's ticket is the last of it.
        while stream.conn.tls13_tickets_received() == 0 {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        stream
    };
    (0..count).map(open).collect()
}

fn connect(settings: &Arc<ClientConfig>, port: u16) -> Held {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    // Before it connects: later the other side has been told already.
    socket.set_recv_buffer_size(LITTLE).unwrap();
    socket.connect(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
    let connection = ClientConnection::new(Arc::clone(settings), "bench.test".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, TcpStream::from(socket))
}

fn head(stream: &mut Held) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}
