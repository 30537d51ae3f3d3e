//! WebSockets: an application that echoes, and a client that was written by others.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use futures_util::StreamExt;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
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
            "/end/ws" => accept(request, &log).header("x-end", "session"),
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

    /// How many of its WebSockets ended without a farewell.
    pub fn ended(&self) -> usize {
        self.seen().iter().filter(|seen| *seen == "gone").count()
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

/// A connection, or a stream of one.
pub trait Duplex: AsyncRead + AsyncWrite + Debug + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Debug + Unpin + Send> Duplex for T {}

/// The client's end.
pub type Socket = WebSocketStream<Box<dyn Duplex>>;

/// An answer that opens none.
pub type Refused = Box<Response<Option<Vec<u8>>>>;

/// Opens a WebSocket as a page would; fields with an empty value are left out.
pub async fn open(browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Result<(Socket, HeaderMap), Refused> {
    let mut request = format!("wss://app.test{path}").into_client_request().unwrap();
    add_fields(&mut request, browser, fields);
    if browser.http2 {
        return open_over_http2(browser, path, request.headers()).await;
    }
    let stream: Box<dyn Duplex> = Box::new(browser.connect(b"http/1.1").await);
    match client_async(request, stream).await {
        Ok((socket, response)) => Ok((socket, response.headers().clone())),
        Err(Error::Http(response)) => Err(response),
        Err(error) => panic!("{error}"),
    }
}

fn add_fields(request: &mut Request<()>, browser: &Browser, fields: &[(&str, &str)]) {
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
}

/// A connection that says that WebSockets are offered on it.
pub async fn offering(browser: &Browser) -> http2::SendRequest<Empty<Bytes>> {
    let io = TokioIo::new(browser.connect(b"h2").await);
    let (sender, mut connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    // It is said in the first frame; nothing tells that this has come.
    let said = async {
        while !connection.is_extended_connect_protocol_enabled() {
            let _goes_on = tokio::time::timeout(Duration::from_millis(5), &mut connection).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), said).await.expect("no WebSockets are offered");
    tokio::spawn(connection);
    sender
}

/// RFC 8441 5: no key, no `Upgrade`, no `Connection`.
async fn open_over_http2(browser: &Browser, path: &str, fields: &HeaderMap) -> Result<(Socket, HeaderMap), Refused> {
    let mut request = Request::connect(format!("https://app.test{path}")).body(Empty::new()).unwrap();
    request.extensions_mut().insert(Protocol::from_static("websocket"));
    *request.headers_mut() = fields.clone();
    for name in ["host", "connection", "upgrade", "sec-websocket-key"] {
        request.headers_mut().remove(name);
    }
    let mut response = offering(browser).await.send_request(request).await.unwrap();
    if response.status() != 200 {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        return Err(Box::new(Response::from_parts(head, Some(body))));
    }
    let headers = response.headers().clone();
    for between in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!headers.contains_key(between), "{between} over HTTP/2");
    }
    let stream: Box<dyn Duplex> = Box::new(TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap()));
    Ok((WebSocketStream::from_raw_socket(stream, Role::Client, None).await, headers))
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
