//! The application: a page, a login that always succeeds, a big file, and WebSockets that say what they hear.

use std::net::TcpStream;
use std::process::Child;
use std::process::Command;

use futures_util::SinkExt;
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

/// What this program is called with to be the application.
pub const NAME: &str = "application";
/// The size of the big file.
const BIG: usize = 100 * 1024 * 1024;
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// It ends when this is dropped.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// Starts it.
pub fn start(port: u16) -> Running {
    let own = std::env::current_exe().unwrap();
    let running = Running(Command::new(own).args([NAME, &port.to_string()]).spawn().unwrap());
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    running
}

/// Serves for ever.
pub fn serve(port: u16) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                // Whoever has asked leaves when it likes.
                let _left = answer(stream).await;
            });
        }
    });
}

/// Requests one after another; their bodies are shorter than a packet.
async fn answer(mut stream: tokio::net::TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut asked = Vec::new();
    loop {
        if stream.read_buf(&mut asked).await? == 0 {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&asked).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let field = |name: &str| {
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
        };
        if body.len() < field("content-length").map_or(0, |length| length.parse().unwrap()) {
            continue;
        }
        match head.split(' ').nth(1).unwrap_or_default() {
            "/login" => stream.write_all(b"HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await?,
            "/ws" => {
                let accept = derive_accept_key(field("sec-websocket-key").unwrap_or_default().as_bytes());
                let switch = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n";
                stream.write_all(format!("{switch}sec-websocket-accept: {accept}\r\n\r\n").as_bytes()).await?;
                return echo(stream).await;
            }
            "/big/slow" => {
                stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {BIG}\r\n\r\n").as_bytes()).await?;
                for _ in 0..BIG / PIECE.len() {
                    stream.write_all(&PIECE).await?;
                }
            }
            _ => {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1024\r\n\r\n").await?;
                stream.write_all(&PIECE[..1024]).await?;
            }
        }
        asked.clear();
    }
}

async fn echo(stream: tokio::net::TcpStream) -> std::io::Result<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if socket.send(message).await.is_err() {
            break;
        }
    }
    Ok(())
}
