//! A browser as far as a proxy can tell: cookies with their attributes, Fetch Metadata, no surprises.
//! It looks at every answer for what must never be wrong.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::StatusCode;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates;

/// The name of our cookie.
pub const OURS: &str = "__Host-session";
/// The cookie of bound sessions.
pub const BOUND: &str = "__Host-session-bound";

/// A client with a cookie jar.
#[derive(Clone)]
pub struct Browser {
    proxy: SocketAddr,
    pub from: IpAddr,
    pub http2: bool,
    pub user_agent: String,
    pub cookies: BTreeMap<String, String>,
}

/// What it got.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn location(&self) -> &str {
        self.header("location").expect("no location")
    }

    pub fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The `Set-Cookie` line of our cookie.
    pub fn ours(&self) -> Option<&str> {
        self.set_cookies().into_iter().find(|line| line.starts_with(&format!("{OURS}=")))
    }
}

/// A TLS client that trusts the tests' authority.
pub fn tls_client(alpn: &[&[u8]]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificates().ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

impl Browser {
    pub fn new(proxy: SocketAddr) -> Self {
        Self {
            proxy,
            from: [127, 0, 0, 1].into(),
            http2: false,
            user_agent: "Test/1.0".into(),
            cookies: BTreeMap::new(),
        }
    }

    /// The same browser over HTTP/2.
    pub fn over_http2(self) -> Self {
        self.over(true)
    }

    /// The same browser over HTTP/2, or over HTTP/1.1.
    pub fn over(mut self, http2: bool) -> Self {
        self.http2 = http2;
        self
    }

    /// The value of our cookie.
    pub fn session(&self) -> Option<String> {
        self.cookies.get(OURS).cloned()
    }

    /// A browser that only has this value of our cookie: what a thief would have.
    pub fn with_session(&self, value: &str) -> Self {
        Self { cookies: BTreeMap::from([(OURS.to_owned(), value.to_owned())]), ..self.clone() }
    }

    /// A page load.
    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(navigation("GET", path).body(Full::default()).unwrap()).await
    }

    /// A form that is sent.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form("POST", path, fields)).await
    }

    /// The same when there may be nobody to answer; only the status.
    pub async fn try_post(&mut self, path: &str, fields: &[(&str, &str)]) -> Result<StatusCode, Broken> {
        Ok(self.try_open(form("POST", path, fields)).await?.status())
    }

    /// What a script of the page asks for.
    pub async fn fetch(&mut self, path: &str) -> Answer {
        self.send(labelled("GET", path, "same-origin", "cors", "empty").body(Full::default()).unwrap()).await
    }

    /// What a page shows.
    pub async fn image(&mut self, path: &str) -> Answer {
        self.send(labelled("GET", path, "same-origin", "no-cors", "image").body(Full::default()).unwrap()).await
    }

    /// Whether a page load gets the application's page; the jar stays as it is.
    pub async fn can_reach(&self, method: &str, target: &str) -> bool {
        self.clone().send(empty(navigation(method, target))).await.status == 200
    }

    /// A login with the password that the usual application takes.
    pub async fn log_in(&mut self, user: &str) -> Answer {
        let answer = self.post("/login", &[("username", user), ("password", "secret")]).await;
        assert_eq!(answer.status, 302, "{answer:?}");
        assert!(self.session().is_some(), "no session after the login");
        answer
    }

    /// Any request; cookies and host are added.
    pub async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.open(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// Any request; returns when the head of the response is there.
    pub async fn open<B>(&mut self, request: Request<B>) -> http::Response<Incoming>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Broken>,
    {
        self.try_open(request).await.unwrap()
    }

    /// The same where it may fail.
    pub async fn try_open<B>(&mut self, mut request: Request<B>) -> Result<http::Response<Incoming>, Broken>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Into<Broken>,
    {
        let jar: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !jar.is_empty() && !request.headers().contains_key("cookie") {
            request.headers_mut().insert("cookie", jar.join("; ").parse().unwrap());
        }
        request.headers_mut().entry("user-agent").or_insert(self.user_agent.parse().unwrap());
        let stream = self.try_connect(if self.http2 { b"h2" } else { b"http/1.1" }).await?;
        let response = if self.http2 {
            let uri = format!("https://app.test{}", request.uri());
            *request.uri_mut() = uri.parse().unwrap();
            let io = TokioIo::new(stream);
            let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            request.headers_mut().entry("host").or_insert("app.test".parse().unwrap());
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection.with_upgrades());
            sender.send_request(request).await?
        };
        check(&self.cookies, response.headers());
        self.keep(response.headers());
        Ok(response)
    }

    /// A TLS connection to the proxy.
    pub async fn connect(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.try_connect(alpn).await.unwrap()
    }

    /// The same where it may fail.
    pub async fn try_connect(&self, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(self.from, 0))?;
        let stream = socket.connect(self.proxy).await?;
        tls_client(&[alpn]).connect(ServerName::try_from("app.test").unwrap(), stream).await
    }

    /// Sends bytes as they are; returns all that comes back until the connection closes.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        use tokio::io::AsyncReadExt;
        use tokio::io::AsyncWriteExt;
        let mut stream = self.connect(b"http/1.1").await;
        let mut answer = Vec::new();
        // A connection that is cut is an answer, too, also before all has been sent.
        let _ = stream.write_all(bytes).await;
        let _ = stream.flush().await;
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn keep(&mut self, headers: &HeaderMap) {
        for line in headers.get_all("set-cookie") {
            let line = line.to_str().unwrap();
            let (pair, attributes) = line.split_once(';').unwrap_or((line, ""));
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.to_ascii_lowercase().contains("max-age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }
}

/// The request without a body.
pub fn empty(request: http::request::Builder) -> Request<Full<Bytes>> {
    request.body(Full::default()).unwrap()
}

/// Why there is no answer.
pub type Broken = Box<dyn std::error::Error + Send + Sync>;

fn form(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(fields);
    let request = navigation(method, path)
        .header("origin", "https://app.test")
        .header("content-type", "application/x-www-form-urlencoded");
    request.body(Full::from(form.finish())).unwrap()
}

/// A request for a page.
pub fn navigation(method: &str, path: &str) -> http::request::Builder {
    labelled(method, path, "same-origin", "navigate", "document").header("accept", "text/html,*/*")
}

/// A request with Fetch Metadata.
pub fn labelled(method: &str, path: &str, site: &str, mode: &str, dest: &str) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header("sec-fetch-site", site)
        .header("sec-fetch-mode", mode)
        .header("sec-fetch-dest", dest)
}

/// What every answer must satisfy.
fn check(cookies: &BTreeMap<String, String>, headers: &HeaderMap) {
    let lines: Vec<_> = headers.get_all("set-cookie").iter().map(|line| line.to_str().unwrap()).collect();
    let named = |name: &str| lines.iter().filter(|line| line.starts_with(&format!("{name}="))).collect::<Vec<_>>();
    let (ours, bound) = (named(OURS), named(BOUND));
    assert!(ours.len() <= 1 && bound.len() <= 1, "each of ours is set once: {ours:?} {bound:?}");
    for line in [ours, bound].concat() {
        // S1, S2, S3, S8, S9
        for attribute in ["; Secure", "; HttpOnly", "; Path=/", "; SameSite="] {
            assert!(line.contains(attribute), "{attribute} in {line}");
        }
        assert!(!line.contains("Domain"), "{line}");
        assert_eq!(headers["cache-control"], "no-store");
    }
    for (name, value) in headers {
        if name != "set-cookie"
            && let Some(ours) = cookies.get(OURS)
        {
            assert!(!value.as_bytes().windows(43).any(|window| window == ours.as_bytes()), "S2: the ID is in {name}");
        }
    }
    for hidden in ["server", "x-powered-by", "x-forwarded-user", "keep-alive"] {
        assert!(!headers.contains_key(hidden), "{hidden} reached the client");
    }
}
