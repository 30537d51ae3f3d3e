//! Applications that speak HTTP/2: connections that many requests share, streams that are refused,
//! trailers, and all that must hold as over HTTP/1.1.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::RecvStream;
use h2::server::Connection;
use h2::server::SendResponse;
use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::StatusCode;
use http::Version;
use http_body_util::BodyExt;
use http_body_util::Channel;
use http_body_util::Full;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::Browser;
use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::certificates;
use crate::support::empty;
use crate::support::eventually;
use crate::support::file;
use crate::support::navigation;
use crate::support::parse;
use crate::support::program::Program;
use crate::support::websocket::EchoApp;
use crate::support::websocket::echoed;
use crate::support::websocket::open;

const SOON: Duration = Duration::from_secs(5);

/// The usual site in front of an application that speaks HTTP/2.
fn site() -> String {
    format!("upstream_protocol = \"h2\"\n{SITE}")
}

fn page(_: &Received) -> Reply {
    Reply::text("page")
}

/// TLS as an application serves it that offers these protocols.
fn serving(alpn: &[&[u8]]) -> ServerConfig {
    let ours = certificates();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let chain = CertificateDer::pem_file_iter(&ours.certificate).unwrap().map(Result::unwrap).collect();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(&ours.key).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

#[tokio::test]
async fn all_there_is_to_a_site_holds_over_http_2() {
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::with(&app, &site()).await;
    for http2 in [false, true] {
        let mut browser = browser.clone().over(http2);
        assert_eq!(browser.get("/").await.status, 303, "a session is needed");
        browser.get("/login").await;
        browser.log_in("alice").await;
        assert!(!browser.cookies.contains_key("PHPSESSID"), "the application's cookie is in the vault");

        assert_eq!(browser.get("/a?b=c").await.body, "private");

        let received = app.last();
        assert_eq!((received.version, received.target.as_str()), (Version::HTTP_2, "/a?b=c"));
        assert_eq!(received.header("host"), Some("app.test"));
        assert_eq!(received.header("x-forwarded-user"), Some("alice"));
        assert_eq!(received.cookie("PHPSESSID"), Some("app-session-2"));
        browser.get("/logout").await;
        assert_eq!(browser.get("/").await.status, 303);
    }
    assert_eq!(app.connections(), 1, "one connection is enough");
}

#[tokio::test]
async fn it_is_agreed_by_alpn_over_tls_and_known_before_on_a_socket() {
    let ca = format!("[site.upstream_tls]\nca = {:?}\n", certificates().ca);
    for alpn in [&[&b"h2"[..]][..], &[b"http/1.1", b"h2"]] {
        let app = Upstream::over_tls("localhost", serving(alpn), page).await;
        let (_proxy, mut browser) = Vestibule::with(&app, &format!("{}{ca}", site())).await;
        assert_eq!(browser.get("/public/x").await.status, 200);
        assert_eq!(app.last().version, Version::HTTP_2);
    }
    let directory = TempDir::new().unwrap();
    let app = Upstream::on_socket(&directory.path().join("app.sock"), true, page).await;
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("upstream_host = \"inner.test\"\n{}", site())).await;
    assert_eq!(browser.post("/public/x", &[("a", "b")]).await.status, 200);
    assert_eq!((app.last().header("host"), app.last().body.as_str()), (Some("inner.test"), "a=b"));
}

#[tokio::test]
async fn an_application_that_speaks_only_http_1_is_a_bad_gateway_and_the_log_says_why() {
    let app = Upstream::over_tls("localhost", serving(&[]), page).await;
    let other = Upstream::over_tls("localhost", serving(&[b"http/1.1"]), page).await;
    let plain = crate::support::Wire::start(|_, mut stream: TcpStream| async move {
        crate::support::read_head(&mut stream).await;
        let answer = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
    })
    .await;
    for (url, cause) in
        [(app.url(), "does not speak HTTP/2"), (other.url(), "TLS failed"), (plain.url(), "does not speak HTTP/2")]
    {
        let ca = format!("[site.upstream_tls]\nca = {:?}\n", certificates().ca);
        let program = Program::start(&file(&url, &format!("{}{ca}", site()))).await;

        assert_eq!(program.browser().get("/public/x").await.status, 502, "{url}");

        program.answered(1).await;
        let failures = program.events("upstream.failed");
        assert!(failures[0]["error"].as_str().unwrap().contains(cause), "{url}: {failures:?}");
    }
}

fn trailers(names: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    names.iter().map(field).collect()
}

#[tokio::test]
async fn trailers_pass_when_they_mean_nothing_to_anybody_on_the_way() {
    // S85
    let app = Upstream::start(|_| {
        let sent = trailers(&[
            ("grpc-status", "0"),
            ("x-forwarded-user", "admin"),
            ("set-cookie", "a=b"),
            ("content-length", "7"),
            ("x-user", "alice"),
        ]);
        let body = Full::new(Bytes::from("answer")).with_trailers(async move { Some(Ok(sent)) });
        Reply::status(200).stream(body.map_err(|never| match never {}))
    })
    .await;
    let marker = SITE.replace("form:username", "response-header:X-User");
    let (_proxy, browser) = Vestibule::with(&app, &format!("upstream_protocol = \"h2\"\n{marker}")).await;
    let (mut sender, body) = Channel::<Bytes>::new(2);
    sender.send_data(Bytes::from("abc")).await.unwrap();
    sender.send_trailers(trailers(&[("x-checksum", "1"), ("x_forwarded_user", "admin"), ("host", "b")])).await.unwrap();
    drop(sender);
    let request = Request::post("/public/x").header("te", "trailers").body(body).unwrap();

    let answer = browser.over_http2().open(request).await.into_body().collect().await.unwrap();

    assert_eq!(answer.trailers(), Some(&trailers(&[("grpc-status", "0")])));
    assert_eq!(answer.to_bytes(), "answer");
    let received = app.last();
    assert_eq!(received.body, "abc");
    assert_eq!(received.trailers, Some(trailers(&[("x-checksum", "1")])));
    assert_eq!(received.header("te"), Some("trailers"));
}

/// A request as the script of an application gets it: the connection's number, its own on it, itself.
type Stream = (usize, usize, Request<RecvStream>, SendResponse<Bytes>);

/// An application that can do what no HTTP library would.
struct Scripted {
    url: String,
    streams: mpsc::UnboundedReceiver<Stream>,
    connections: Arc<AtomicUsize>,
}

impl Scripted {
    /// `tune` sets up the connection; `after` is called with each accepted stream's number.
    async fn start(limit: u32, after: fn(usize, usize, &mut Connection<TcpStream, Bytes>)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (seen, streams) = mpsc::unbounded_channel();
        let connections: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = count.fetch_add(1, Ordering::Relaxed);
                let seen = seen.clone();
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    let Ok(mut connection) = builder.max_concurrent_streams(limit).handshake(stream).await else {
                        return;
                    };
                    for index in 0.. {
                        let Some(Ok((request, respond))) = connection.accept().await else { return };
                        after(number, index, &mut connection);
                        seen.send((number, index, request, respond)).unwrap();
                    }
                });
            }
        });
        Self { url, streams, connections }
    }

    async fn next(&mut self) -> Stream {
        soon("a request", self.streams.recv()).await.unwrap()
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

fn answer(respond: &mut SendResponse<Bytes>, status: u16) {
    respond.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
}

/// A request that goes on while the test looks at what the application gets.
fn ask(browser: &Browser, method: &'static str, path: &'static str) -> tokio::task::JoinHandle<StatusCode> {
    let mut browser = browser.clone();
    tokio::spawn(async move { browser.send(empty(navigation(method, path))).await.status })
}

#[tokio::test]
async fn a_refused_stream_is_asked_for_once_more_and_never_twice() {
    // S101: the application has not looked at it, whatever it is.
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    for method in ["GET", "POST"] {
        let asking = ask(&browser, method, "/public/once");
        app.next().await.3.send_reset(Reason::REFUSED_STREAM);
        let (.., request, mut respond) = app.next().await;
        assert_eq!((request.method().as_str(), request.uri().path()), (method, "/public/once"));
        answer(&mut respond, 204);
        assert_eq!(asking.await.unwrap(), 204);
    }
    let asking = ask(&browser, "GET", "/public/twice");
    app.next().await.3.send_reset(Reason::REFUSED_STREAM);
    app.next().await.3.send_reset(Reason::REFUSED_STREAM);
    assert_eq!(asking.await.unwrap(), 502);
    assert!(app.streams.try_recv().is_err(), "asked for twice more");
}

#[tokio::test]
async fn a_stream_that_is_reset_may_have_been_read() {
    // S101
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::HTTP_1_1_REQUIRED] {
        for method in ["GET", "POST"] {
            let asking = ask(&browser, method, "/public/x");
            app.next().await.3.send_reset(reason);
            assert_eq!(asking.await.unwrap(), 502);
        }
    }
    assert!(app.streams.try_recv().is_err(), "asked for once more");
    assert_eq!(app.connections(), 1, "the others' connection goes on");
}

/// Asks for something; the connection on which the application got it.
async fn later(browser: &Browser, method: &'static str, app: &mut Scripted) -> usize {
    let asking = ask(browser, method, "/public/later");
    let (connection, .., mut respond) = app.next().await;
    answer(&mut respond, 200);
    assert_eq!(asking.await.unwrap(), 200);
    connection
}

#[tokio::test]
async fn after_a_goodbye_requests_go_elsewhere_and_those_under_way_are_answered() {
    let mut app = Scripted::start(100, |connection, index, says| {
        if (connection, index) == (0, 0) {
            says.graceful_shutdown();
        }
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    let first = ask(&browser, "POST", "/public/first");
    let (.., mut respond) = app.next().await;

    for method in ["GET", "POST"] {
        // What is sent before the goodbye has arrived is still answered there.
        while later(&browser, method, &mut app).await == 0 {}
        assert_eq!(later(&browser, method, &mut app).await, 1);
    }

    answer(&mut respond, 204);
    assert_eq!(first.await.unwrap(), 204);
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn a_connection_that_dies_is_replaced_and_only_what_is_safe_is_asked_again() {
    // S101
    let mut app = Scripted::start(100, |_, index, connection| {
        if index == 1 {
            connection.abrupt_shutdown(Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    for (method, status, requests) in [("GET", 204, 2), ("POST", 502, 1)] {
        let first = ask(&browser, "GET", "/public/first");
        answer(&mut app.next().await.3, 200);
        assert_eq!(first.await.unwrap(), 200);

        let asking = ask(&browser, method, "/public/x");
        let (before, ..) = app.next().await;
        if requests == 2 {
            let (after, .., mut respond) = app.next().await;
            assert_ne!(before, after, "on another connection");
            answer(&mut respond, 204);
            // So that the next round finds a connection with one request on it.
            assert_eq!(asking.await.unwrap(), status);
            assert_eq!(ask(&browser, "POST", "/public/x").await.unwrap(), 502);
            app.next().await;
        } else {
            assert_eq!(asking.await.unwrap(), status);
        }
        assert!(app.streams.try_recv().is_err(), "{method} is asked once more");
    }
}

#[tokio::test]
async fn the_application_says_how_many_requests_it_takes_at_once() {
    let mut app = Scripted::start(2, |_, _, _| {}).await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    let asking: Vec<_> = (0..5).map(|_| ask(&browser, "GET", "/public/x")).collect();

    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(app.next().await);
    }

    assert_eq!(app.connections(), 3);
    for (.., mut respond) in streams {
        answer(&mut respond, 204);
    }
    for asking in asking {
        assert_eq!(asking.await.unwrap(), 204);
    }
}

#[tokio::test]
async fn who_finds_no_room_waits_a_little_and_then_gets_503() {
    // S174
    let mut app = Scripted::start(1, |_, _, _| {}).await;
    let few = format!("{}[limits]\nupstream_connections = 1\n", site());
    let text = format!("{}[timeouts]\nconnect = \"2s\"\n", file(&app.url, &few));
    let (_proxy, browser) = Vestibule::of(parse(&text)).await;
    let first = ask(&browser, "GET", "/public/first");
    let (.., mut respond) = app.next().await;

    assert_eq!(ask(&browser, "GET", "/public/late").await.unwrap(), 503);

    let second = ask(&browser, "GET", "/public/second");
    answer(&mut respond, 204);
    assert_eq!(first.await.unwrap(), 204);
    let (_, _, request, mut respond) = app.next().await;
    assert_eq!(request.uri().path(), "/public/second");
    answer(&mut respond, 204);
    assert_eq!(second.await.unwrap(), 204);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn nobody_works_for_a_client_that_has_left_and_the_others_go_on() {
    // S177
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    let other = ask(&browser, "GET", "/public/other");
    let (.., mut respond) = app.next().await;
    for (http2, begun) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut leaving = browser.clone().over(http2);
        let heard = Arc::new(Notify::new());
        let asking = tokio::spawn({
            let heard = Arc::clone(&heard);
            async move {
                let mut response =
                    leaving.open(navigation("GET", "/public/x").body(Full::<Bytes>::default()).unwrap()).await;
                response.body_mut().frame().await.unwrap().unwrap();
                heard.notify_one();
                std::future::pending::<()>().await;
            }
        });
        let (.., mut stream) = app.next().await;
        let mut body = None;
        if begun {
            let mut sending = stream.send_response(Response::new(()), false).unwrap();
            sending.send_data(Bytes::from("part"), false).unwrap();
            soon("the beginning arrives", heard.notified()).await;
            body = Some(sending);
        }

        asking.abort();

        let reset = match &mut body {
            Some(sending) => soon("reset", std::future::poll_fn(|context| sending.poll_reset(context))).await,
            None => soon("reset", std::future::poll_fn(|context| stream.poll_reset(context))).await,
        };
        assert_eq!(reset.unwrap(), Reason::CANCEL, "{http2} {begun}");
    }
    answer(&mut respond, 204);
    assert_eq!(other.await.unwrap(), 204);
    assert_eq!(app.connections(), 1);
}

#[tokio::test]
async fn both_sides_may_speak_at_once() {
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(1);
    let mut client = browser.over_http2();
    let asking = tokio::spawn(async move { client.open(Request::post("/public/x").body(body).unwrap()).await });
    let (.., request, mut respond) = app.next().await;
    let mut heard = request.into_body();
    let mut says = respond.send_response(Response::new(()), false).unwrap();
    let mut response = soon("the head, while the request goes on", asking).await.unwrap();

    for round in ["one", "two", "three"] {
        sender.send_data(Bytes::from(round)).await.unwrap();
        let data = soon("the client's word", heard.data()).await.unwrap().unwrap();
        heard.flow_control().release_capacity(data.len()).unwrap();
        assert_eq!(data, round);
        says.send_data(data, false).unwrap();
        let frame = soon("its echo", response.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), round);
    }

    drop(sender);
    let rest = soon("the client's end", heard.data()).await;
    assert!(rest.is_none_or(|rest| rest.unwrap().is_empty()) && heard.is_end_stream());
    says.send_trailers(trailers(&[("grpc-status", "0")])).unwrap();
    let last = soon("the end", response.body_mut().frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_on_the_way() {
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let limited = format!("{}[site.limits]\nbody = \"1KiB\"\n", site());
    let (_proxy, browser) = Vestibule::at(&app.url, &limited).await;
    let (mut sender, body) = Channel::<Bytes, io::Error>::new(4);
    let mut client = browser.over_http2();
    let asking = tokio::spawn(async move { client.open(Request::post("/public/x").body(body).unwrap()).await });
    sender.send_data(Bytes::from(vec![b'a'; 1000])).await.unwrap();
    let (.., mut respond) = app.next().await;

    sender.send_data(Bytes::from(vec![b'a'; 1000])).await.unwrap();

    assert_eq!(soon("the answer", asking).await.unwrap().status(), 413);
    let reset = soon("reset", std::future::poll_fn(|context| respond.poll_reset(context))).await;
    assert!(reset.is_ok(), "what has begun is broken off");
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_not_waited_for_and_loses_the_connection() {
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let text = format!("{}[timeouts]\nfirst_byte = \"3s\"\n", file(&app.url, &site()));
    let (_proxy, browser) = Vestibule::of(parse(&text)).await;
    // The application acknowledges our settings before its first answer: later it would count as something heard.
    let greeted = ask(&browser, "GET", "/public/x");
    let (.., mut respond) = app.next().await;
    answer(&mut respond, 204);
    assert_eq!(greeted.await.unwrap(), 204);

    let silent = ask(&browser, "GET", "/public/x");
    let (.., mut respond) = app.next().await;
    assert_eq!(silent.await.unwrap(), 504);
    let reset = soon("reset", std::future::poll_fn(|context| respond.poll_reset(context))).await;
    assert_eq!(reset.unwrap(), Reason::CANCEL);

    let asking = ask(&browser, "GET", "/public/x");
    let (connection, .., mut respond) = app.next().await;
    answer(&mut respond, 204);
    assert_eq!((asking.await.unwrap().as_u16(), connection), (204, 1));
}

#[tokio::test]
async fn a_slow_answer_takes_the_connection_from_nobody_who_gets_one() {
    // S174: its slot is taken as long as the other answer goes on, and there is no further one.
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let few = format!("{}[limits]\nupstream_connections = 1\n[timeouts]\nfirst_byte = \"3s\"\n", site());
    let (_proxy, browser) = Vestibule::of(parse(&file(&app.url, &few))).await;
    let mut client = browser.clone();
    let other = tokio::spawn(async move { client.open(empty(navigation("GET", "/public/other"))).await });
    let (.., mut respond) = app.next().await;
    let mut sending = respond.send_response(Response::new(()), false).unwrap();
    let _other = soon("the head", other).await.unwrap();

    let slow = ask(&browser, "GET", "/public/slow");
    let _slow = app.next().await;
    sending.send_data(Bytes::from("piece"), false).unwrap();
    assert_eq!(slow.await.unwrap(), 504);

    let asking = ask(&browser, "GET", "/public/x");
    let (connection, .., mut respond) = app.next().await;
    answer(&mut respond, 204);
    assert_eq!((asking.await.unwrap().as_u16(), connection), (204, 0));
}

#[tokio::test]
async fn an_answer_that_breaks_off_does_not_end_well() {
    // S99
    let mut app = Scripted::start(100, |_, _, _| {}).await;
    let (_proxy, browser) = Vestibule::at(&app.url, &site()).await;
    for http2 in [false, true] {
        let mut client = browser.clone().over(http2);
        let asking = tokio::spawn(async move { client.open(empty(navigation("GET", "/public/x"))).await });
        let (.., mut respond) = app.next().await;
        let mut sending = respond.send_response(Response::new(()), false).unwrap();
        sending.send_data(Bytes::from("part"), false).unwrap();
        let mut response = soon("the head", asking).await.unwrap();
        assert!(response.body_mut().frame().await.unwrap().is_ok());

        sending.send_reset(Reason::INTERNAL_ERROR);

        assert!(soon("the end", response.into_body().collect()).await.is_err());
    }
}

#[tokio::test]
async fn idle_connections_are_given_up_and_a_reload_lets_go_of_them() {
    let app = Upstream::start(page).await;
    let (proxy, mut browser) = Vestibule::with(&app, &site()).await;
    browser.get("/public/x").await;
    assert_eq!(app.open_connections(), 1);
    proxy.advance(Duration::from_secs(61));
    eventually("the idle connection is closed", || app.open_connections() == 0).await;

    browser.get("/public/x").await;
    proxy.reload(&site());
    eventually("the old connection is closed", || app.open_connections() == 0).await;
}

#[tokio::test]
async fn websockets_begin_on_http_1_1() {
    let app = EchoApp::start().await;
    let (_proxy, mut browser) = Vestibule::with(&app.upstream, &site()).await;
    browser.log_in("alice").await;

    let (mut socket, _) = open(&browser, "/ws", &[]).await.unwrap();

    assert!(echoed(&mut socket, "hello").await);
    assert_eq!(app.upstream.last().version, Version::HTTP_11);
}

#[tokio::test]
async fn what_a_slow_client_has_not_taken_is_in_nobodys_way() {
    // S115: the windows of streams count, not that of the connection.
    let big = Bytes::from(vec![b'a'; 4 * 1024 * 1024]);
    let app = Upstream::start(move |request| match request.path() {
        "/public/big" => Reply::status(200).body(big.clone()),
        _ => Reply::text("page"),
    })
    .await;
    // The first of them waits until the last is read.
    let (_proxy, browser) = Vestibule::with(&app, &format!("{}[timeouts]\nbody_idle = \"off\"\n", site())).await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        let mut browser = browser.clone().over_http2();
        slow.push(browser.open(empty(navigation("GET", "/public/big"))).await);
    }

    let mut browser = browser.clone();
    let answer = timeout(Duration::from_secs(60), browser.get("/public/x")).await.expect("another answer");

    assert_eq!(answer.body, "page");
    assert_eq!(app.connections(), 1);
    for response in slow {
        let rest = timeout(Duration::from_secs(60), response.into_body().collect()).await.expect("it stands still");
        assert_eq!(rest.unwrap().to_bytes().len(), 4 * 1024 * 1024);
    }
}

#[tokio::test]
async fn the_head_may_be_large() {
    let app = Upstream::start(|_| Reply::text("page").header("x-large", &"a".repeat(40_000))).await;
    let (_proxy, mut browser) = Vestibule::with(&app, &site()).await;
    assert_eq!(browser.get("/public/x").await.headers["x-large"], HeaderValue::from_str(&"a".repeat(40_000)).unwrap());
}
