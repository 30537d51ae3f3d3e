//! The demo's application: what a login was like in 1998. It is insecure on purpose: its session
//! cookie has no attributes, and stays the same across the login.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Request;
use http::Response;
use http::StatusCode;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::demo::pages;
use crate::demo::socket;

/// Names and passwords.
pub const USERS: [(&str, &str); 2] = [("alice", "wonderland"), ("bob", "builder")];

type Reply = Response<Full<Bytes>>;

/// What the application remembers: its sessions, and who is logged in in each.
#[derive(Default)]
struct Memory {
    sessions: Mutex<HashMap<String, Visit>>,
}

#[derive(Clone, Default)]
struct Visit {
    user: Option<String>,
    notes: Vec<String>,
}

/// Serves for ever.
pub async fn serve(listener: TcpListener) {
    let memory = Arc::new(Memory::default());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let memory = Arc::clone(&memory);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let memory = Arc::clone(&memory);
                async move { Ok::<_, Infallible>(answer(&memory, request).await) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
            let _visitors_leave = connection.await;
        });
    }
}

async fn answer(memory: &Memory, mut request: Request<Incoming>) -> Reply {
    let path = request.uri().path().to_owned();
    let known = session_of(request.headers());
    let id = known.clone().unwrap_or_else(new_id);
    let visit = memory.visit(&id);
    let mut reply = match (request.method(), path.as_str()) {
        (&Method::GET, "/static/style.css") => typed("text/css; charset=utf-8", pages::STYLE.to_owned()),
        (&Method::GET, "/login") => page(StatusCode::OK, pages::login(&id, None)),
        (&Method::POST, "/login") => log_in(memory, &id, request).await,
        (_, "/logout") => {
            memory.change(&id, |visit| *visit = Visit::default());
            redirect("/login")
        }
        _ if visit.user.is_none() => redirect("/login"),
        (&Method::GET, "/") => {
            let user = visit.user.unwrap_or_default();
            page(StatusCode::OK, pages::home(&user, &visit.notes, request.headers()))
        }
        (&Method::POST, "/notes") => {
            if let Some(note) = fields(request).await.remove("note") {
                memory.change(&id, |visit| visit.notes.push(note));
            }
            redirect("/")
        }
        (&Method::GET, "/clock") => socket::clock(&mut request),
        _ => page(StatusCode::NOT_FOUND, pages::plain("There is no such page.")),
    };
    if known.is_none() {
        let cookie = HeaderValue::try_from(format!("PHPSESSID={id}; path=/"));
        reply.headers_mut().extend(cookie.ok().map(|cookie| (header::SET_COOKIE, cookie)));
    }
    reply.headers_mut().insert(header::SERVER, HeaderValue::from_static("Apache/1.3.42 (Unix) PHP/4.4.9"));
    reply
}

async fn log_in(memory: &Memory, id: &str, request: Request<Incoming>) -> Reply {
    let mut fields = fields(request).await;
    // The form carries a token of the session: what a proxy must not break.
    if fields.remove("token").is_some_and(|token| token != pages::token(id)) {
        return page(StatusCode::OK, pages::login(id, Some("The form has expired. Try again.")));
    }
    let (user, password) = (fields.remove("username").unwrap_or_default(), fields.remove("password"));
    let is_known = USERS.iter().any(|known| known.0 == user && Some(known.1) == password.as_deref());
    if !is_known {
        return page(StatusCode::OK, pages::login(id, Some("Wrong user name or password.")));
    }
    memory.change(id, |visit| visit.user = Some(user));
    redirect("/")
}

impl Memory {
    fn visit(&self, id: &str) -> Visit {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned().unwrap_or_default()
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Visit)) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        change(sessions.entry(id.to_owned()).or_default());
    }
}

/// Any ID that a client brings is taken: this is the fixation that old applications allow.
fn session_of(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == "PHPSESSID").map(|(_, value)| value.to_owned())
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    // A demo without randomness is still a demo.
    let _zeros_then = aws_lc_rs::rand::fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn fields(request: Request<Incoming>) -> HashMap<String, String> {
    let Ok(body) = Limited::new(request.into_body(), 64 * 1024).collect().await else { return HashMap::new() };
    url::form_urlencoded::parse(&body.to_bytes()).into_owned().collect()
}

fn page(status: StatusCode, html: String) -> Reply {
    let mut reply = typed("text/html; charset=utf-8", html);
    *reply.status_mut() = status;
    reply
}

fn typed(content_type: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply
}

fn redirect(path: &'static str) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::FOUND;
    reply.headers_mut().insert(header::LOCATION, HeaderValue::from_static(path));
    reply
}
