//! A scripted application that remembers what it received.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// A request as the application got it.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    pub target: String,
    pub headers: HeaderMap,
    pub body: String,
}

impl Received {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
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
    body: UnsyncBoxBody<Bytes, Infallible>,
    /// Held back until this is notified.
    hold: Option<Arc<Notify>>,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Full::default().boxed_unsync(), hold: None }
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
        self.body = Full::new(body.into()).boxed_unsync();
        self
    }

    pub fn stream(mut self, body: impl http_body::Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Self {
        self.body = body.boxed_unsync();
        self
    }

    pub fn held(mut self, hold: &Arc<Notify>) -> Self {
        self.hold = Some(Arc::clone(hold));
        self
    }
}

type Script = Arc<dyn Fn(&Received) -> Reply + Send + Sync>;

/// A running application.
pub struct Upstream {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Upstream {
    /// Answers every request as the script says.
    pub async fn start(script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received: Arc<Mutex<Vec<Received>>> = Arc::default();
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&received));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, log) = (Arc::clone(&script), Arc::clone(&log));
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&script), Arc::clone(&log), request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await;
                });
            }
        });
        Self { address, received }
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
        format!("http://{}", self.address)
    }

    /// Everything it received so far.
    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    pub fn last(&self) -> Received {
        self.received().pop().expect("the application received nothing")
    }
}

async fn answer(
    script: Script,
    log: Arc<Mutex<Vec<Received>>>,
    request: Request<Incoming>,
) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let received = Received {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let reply = script(&received);
    log.lock().unwrap().push(received);
    if let Some(hold) = reply.hold {
        hold.notified().await;
    }
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(reply.body).unwrap())
}
