//! A scripted application that remembers what it received.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http::Version;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use rustls::ServerConfig;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// A request as the application got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub version: Version,
    pub method: String,
    /// As over HTTP/1.1, also where it came with scheme and authority.
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
    pub trailers: Option<HeaderMap>,
    /// Which of the connections so far it came on.
    pub connection: usize,
}

impl Received {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// What an application that folds names as CGI does takes for this header.
    pub fn folded(&self, name: &str) -> Vec<&str> {
        let fold = |name: &str| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let fields = self.headers.iter().chain(self.trailers.iter().flatten());
        let alike = fields.filter(|(found, _)| fold(found.as_str()) == fold(name));
        alike.map(|(_, value)| value.to_str().unwrap()).collect()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        let line = self.header("cookie")?;
        line.split("; ")
            .filter_map(|pair| pair.split_once('='))
            .find(|(found, _)| *found == name)
            .map(|(_, value)| value)
    }

    /// The value of a field of a urlencoded form.
    pub fn field(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.body.as_bytes())
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.into_owned())
    }
}

/// What it answers.
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: UnsyncBoxBody<Bytes, io::Error>,
    /// Held back until this is notified.
    hold: Option<Arc<Notify>>,
    /// What the connection is used for after the switch of protocols.
    upgrade: Option<Upgrade>,
}

type Upgrade = Box<dyn FnOnce(OnUpgrade) + Send>;

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: whole(Bytes::new()), hold: None, upgrade: None }
    }

    pub fn text(text: &str) -> Self {
        Self::status(200).body(text.to_owned()).header("content-type", "text/html")
    }

    pub fn redirect(location: &str) -> Self {
        Self::status(302).header("location", location)
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = whole(body.into());
        self
    }

    pub fn stream(mut self, body: impl http_body::Body<Data = Bytes, Error = io::Error> + Send + 'static) -> Self {
        self.body = body.boxed_unsync();
        self
    }

    pub fn upgrade(mut self, serve: impl FnOnce(OnUpgrade) + Send + 'static) -> Self {
        self.upgrade = Some(Box::new(serve));
        self
    }

    pub fn held(mut self, hold: &Arc<Notify>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self
    }
}

fn whole(body: Bytes) -> UnsyncBoxBody<Bytes, io::Error> {
    Full::new(body).map_err(|never: Infallible| match never {}).boxed_unsync()
}

type Script = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// What an application does with a request, and what it remembers.
#[derive(Clone)]
struct App {
    script: Script,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

/// A running application.
pub struct Upstream {
    pub address: SocketAddr,
    url: String,
    app: App,
}

impl Upstream {
    /// Answers every request as the script says, over HTTP/1.1, or HTTP/2 where that is begun with.
    pub async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = App::new(script);
        tokio::spawn({
            let app = app.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let app = app.clone();
                    tokio::spawn(async move {
                        let http2 = begins_http2(&stream).await;
                        app.serve(stream, http2).await;
                    });
                }
            }
        });
        Self { address, url: format!("http://{address}"), app }
    }

    /// The same over TLS, found under this host name.
    pub async fn over_tls(
        host: &str,
        config: ServerConfig,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = App::new(script);
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn({
            let app = app.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    let (app, acceptor) = (app.clone(), acceptor.clone());
                    tokio::spawn(async move {
                        // A client that does not trust us leaves here.
                        if let Ok(stream) = acceptor.accept(stream).await {
                            let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            app.serve(stream, http2).await;
                        }
                    });
                }
            }
        });
        Self { address, url: format!("https://{host}:{}", address.port()), app }
    }

    /// The same on a unix socket.
    pub async fn on_socket(
        path: &Path,
        http2: bool,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let app = App::new(script);
        tokio::spawn({
            let app = app.clone();
            async move {
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    tokio::spawn(app.clone().serve(stream, http2));
                }
            }
        });
        Self { address: ([127, 0, 0, 1], 0).into(), url: format!("unix:{}", path.display()), app }
    }

    /// Answers everything alike.
    pub async fn plain() -> Self {
        Self::start(|_| Reply::text("page")).await
    }

    /// An application with a login form, a session cookie that it never changes, and users alice,
    /// bob, carol with the password "secret".
    pub async fn legacy() -> Self {
        Self::start(|request| match (request.method.as_str(), request.path()) {
            ("GET", "/login") => match request.cookie("PHPSESSID") {
                Some(_) => Reply::text("<form>"),
                None => Reply::text("<form>").header("set-cookie", "PHPSESSID=app-session-1; path=/"),
            },
            ("POST", "/login") => {
                let known = ["alice", "bob", "carol"].contains(&request.field("username").unwrap_or_default().as_str());
                if known && request.field("password").as_deref() == Some("secret") {
                    Reply::redirect("/").header("set-cookie", "PHPSESSID=app-session-2; path=/; HttpOnly")
                } else {
                    Reply::text("<form> wrong")
                }
            }
            (_, "/logout") => Reply::redirect("/login").header("set-cookie", "PHPSESSID=; Max-Age=0; path=/"),
            _ => Reply::text("private"),
        })
        .await
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Everything it received so far.
    pub fn received(&self) -> Vec<Received> {
        self.app.received.lock().unwrap().clone()
    }

    pub fn last(&self) -> Received {
        self.received().pop().expect("the application received nothing")
    }

    /// How many connections it was asked for so far.
    pub fn connections(&self) -> usize {
        self.app.connections.load(Ordering::Relaxed)
    }

    /// How many of them are open.
    pub fn open_connections(&self) -> usize {
        self.app.open.load(Ordering::Relaxed)
    }
}

impl App {
    fn new(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), received: Arc::default(), connections: Arc::default(), open: Arc::default() }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, http2: bool) {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::Relaxed);
        let open = Arc::clone(&self.open);
        let service = service_fn(move |request| self.clone().answer(number, request));
        let io = TokioIo::new(stream);
        let _ = match http2 {
            true => http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await,
            false => http1::Builder::new().serve_connection(io, service).with_upgrades().await,
        };
        open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn answer(
        self,
        connection: usize,
        mut request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, io::Error>>, hyper::Error> {
        let upgrade = hyper::upgrade::on(&mut request);
        let (mut parts, body) = request.into_parts();
        let body = body.collect().await?;
        let mut target = parts.uri.to_string();
        if let (Version::HTTP_2, Some(authority)) = (parts.version, parts.uri.authority()) {
            parts.headers.insert(header::HOST, authority.as_str().parse().unwrap());
            target = parts.uri.path_and_query().unwrap().to_string();
        }
        let received = Received {
            version: parts.version,
            method: parts.method.to_string(),
            target,
            headers: parts.headers,
            trailers: body.trailers().cloned(),
            body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            connection,
        };
        let reply = (self.script)(&received);
        self.received.lock().unwrap().push(received);
        if let Some(hold) = reply.hold {
            hold.notified().await;
        }
        if let Some(serve) = reply.upgrade {
            serve(upgrade);
        }
        let mut response = Response::builder().status(reply.status);
        for (name, value) in reply.headers {
            response = response.header(name, value);
        }
        Ok(response.body(reply.body).unwrap())
    }
}

/// Whether the first bytes are those of an HTTP/2 connection.
async fn begins_http2(stream: &TcpStream) -> bool {
    let mut first = [0; 3];
    while let Ok(read @ 1..) = stream.peek(&mut first).await {
        match b"PRI".starts_with(&first[..read]) {
            true if read < 3 => tokio::task::yield_now().await,
            is_preface => return is_preface,
        }
    }
    false
}
