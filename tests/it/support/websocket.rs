//! WebSockets: an application that echoes, and a client that was written by others.

use std::sync::Arc;
use std::sync::Mutex;

use futures_util::SinkExt;
use futures_util::StreamExt;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Response;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Browser;
use super::Received;
use super::Reply;
use super::Upstream;
use super::Vestibule;
use super::eventually;

/// An application with a login and an echo at every path that ends in `/ws`.
pub struct EchoApp {
    pub upstream: Upstream,
    /// Lets the answer to a handshake at `/held/ws` go.
    pub release: Arc<Notify>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl EchoApp {
    pub async fn start() -> Self {
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let log = Arc::clone(&seen);
        let release = Arc::new(Notify::new());
        let hold = Arc::clone(&release);
        let upstream = Upstream::start(move |request| match request.path() {
            "/login" | "/logout" => Reply::redirect("/"),
            "/held/ws" => accept(request, &log).held(&hold),
            path if path.ends_with("/ws") => accept(request, &log),
            "/other/protocol" => Reply::status(101).header("connection", "upgrade").header("upgrade", "foo"),
            "/not/found" => Reply::status(404).body("no WebSocket here"),
            "/moved" => Reply::redirect("/elsewhere").header("set-cookie", "PHPSESSID=moved"),
            _ => Reply::text("private"),
        });
        Self { upstream: upstream.await, release, seen }
    }

    /// Everything that happened on its WebSockets.
    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }

    /// Waits until this happens.
    pub async fn sees(&self, what: &str) {
        eventually(what, || self.seen().iter().any(|seen| seen == what)).await;
    }

    /// How many WebSockets were opened.
    pub fn opened(&self) -> usize {
        self.seen().iter().filter(|seen| *seen == "open").count()
    }
}

/// 101, as RFC 6455 4.2.2 says, then an echo.
fn accept(request: &Received, log: &Arc<Mutex<Vec<String>>>) -> Reply {
    let accept = derive_accept_key(request.header("sec-websocket-key").unwrap_or_default().as_bytes());
    let log = Arc::clone(log);
    let mut reply = Reply::status(101)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-accept", &accept)
        .header("set-cookie", "PHPSESSID=from-the-socket; HttpOnly")
        .header("x-of-the-app", "kept")
        .upgrade(move |upgrade| drop(tokio::spawn(echo(upgrade, log))));
    if let Some(protocol) = request.header("sec-websocket-protocol") {
        reply = reply.header("sec-websocket-protocol", protocol.split(',').next().unwrap());
    }
    reply
}

async fn echo(upgrade: OnUpgrade, log: Arc<Mutex<Vec<String>>>) {
    let say = |what: &str| log.lock().unwrap().push(what.to_owned());
    let Ok(upgraded) = upgrade.await else { return say("no upgrade") };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    say("open");
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(frame))) => say(&format!("close {}", frame.map_or(0, |frame| frame.code.into()))),
            Some(Ok(Message::Text(text))) if text == "finish" => socket.close(None).await.unwrap(),
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await.unwrap(),
            Some(Ok(_)) => {}
            Some(Err(Error::Protocol(_))) => return say("gone"),
            Some(Err(error)) => return say(&format!("error {error}")),
            None => return say("closed"),
        }
    }
}

/// The client's end.
pub type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Opens a WebSocket as a page would; fields with an empty value are left out.
pub async fn open(
    browser: &Browser,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<(Socket, HeaderMap), Box<Response<Option<Vec<u8>>>>> {
    let mut request = format!("wss://app.test{path}").into_client_request().unwrap();
    let cookies: Vec<_> = browser.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let cookies = cookies.join("; ");
    let usual = [("origin", "https://app.test"), ("cookie", cookies.as_str()), ("user-agent", &browser.user_agent)];
    for (name, value) in usual.iter().chain(fields) {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().remove(&name);
        if !value.is_empty() {
            request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
    match client_async(request, browser.connect(b"http/1.1").await).await {
        Ok((socket, response)) => Ok((socket, response.headers().clone())),
        Err(Error::Http(response)) => Err(response),
        Err(error) => panic!("{error}"),
    }
}

/// The next message.
pub async fn next(socket: &mut Socket) -> Result<Message, Error> {
    socket.next().await.unwrap_or(Err(Error::ConnectionClosed))
}

/// Sends a text and waits for its echo.
pub async fn echoed(socket: &mut Socket, text: &str) -> bool {
    socket.send(Message::text(text)).await.is_ok() && next(socket).await.is_ok_and(|echo| echo == Message::text(text))
}

/// Such an application, the proxy in front of it, and a user who has logged in.
pub async fn logged_in(site: &str) -> (EchoApp, Vestibule, Browser) {
    let app = EchoApp::start().await;
    let (proxy, mut browser) = Vestibule::with(&app.upstream, site).await;
    browser.log_in("alice").await;
    (app, proxy, browser)
}
