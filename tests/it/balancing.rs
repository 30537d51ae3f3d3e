//! Several upstreams of one site: who gets a request, who is passed over and for how long, health checks.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::StatusCode;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::certificates;
use crate::support::empty;
use crate::support::eventually;
use crate::support::file;
use crate::support::navigation;
use crate::support::parse;
use crate::support::program::Program;
use crate::support::read_head;
use crate::support::unheard;

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(5), future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// An application that answers with its name and this status, once it is let; health checks at once.
struct App {
    upstream: Upstream,
    status: Arc<AtomicU16>,
    health: Arc<AtomicU16>,
    checks: Arc<AtomicUsize>,
    let_go: Arc<Notify>,
}

impl App {
    async fn start(name: &'static str) -> Self {
        let (status, health) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(200)));
        let (checks, let_go): (Arc<AtomicUsize>, Arc<Notify>) = Default::default();
        let answers = (Arc::clone(&status), Arc::clone(&health), Arc::clone(&checks), Arc::clone(&let_go));
        let upstream = Upstream::start(move |request| {
            let (status, health, checks, let_go) = &answers;
            match request.path() {
                "/healthz" => {
                    checks.fetch_add(1, Ordering::SeqCst);
                    Reply::status(health.load(Ordering::SeqCst))
                }
                "/public/slow" => Reply::text(name).held(let_go),
                _ => Reply::status(status.load(Ordering::SeqCst)).body(name),
            }
        })
        .await;
        Self { upstream, status, health, checks, let_go }
    }

    /// How many requests it got, health checks aside.
    fn requests(&self) -> usize {
        self.upstream.received().iter().filter(|request| request.path() != "/healthz").count()
    }

    fn checks(&self) -> usize {
        self.checks.load(Ordering::SeqCst)
    }
}

fn ask(browser: &Browser, method: &'static str, path: &'static str) -> tokio::task::JoinHandle<(StatusCode, String)> {
    let mut browser = browser.clone();
    tokio::spawn(async move {
        let answer = browser.send(empty(navigation(method, path))).await;
        (answer.status, answer.body)
    })
}

async fn two() -> (App, App, String) {
    let (one, two) = (App::start("one").await, App::start("two").await);
    let urls = format!("{} {}", one.upstream.url(), two.upstream.url());
    (one, two, urls)
}

/// The file with health checks.
fn checked(urls: &str) -> String {
    file(urls, &format!("{SITE}[site.health]\npath = \"/healthz\"\ninterval = \"10s\"\n"))
}

#[tokio::test]
async fn the_least_busy_upstream_is_asked_whichever_worker_asks() {
    let (one, two, urls) = two().await;
    let text = file(&urls, SITE).replace("workers = 1", "workers = 2");
    let (_proxy, browser) = Vestibule::of(parse(&text)).await;
    let mut slow = Vec::new();
    for under_way in 1..=6 {
        slow.push(ask(&browser, "GET", "/public/slow"));
        eventually("it is under way", || one.requests() + two.requests() == under_way).await;
    }
    assert_eq!((one.requests(), two.requests()), (3, 3));
    for _ in 0..2 {
        one.let_go.notify_one();
    }
    eventually("two are answered", || slow.iter().filter(|asking| asking.is_finished()).count() == 2).await;

    for _ in 0..4 {
        assert_eq!(ask(&browser, "GET", "/public/x").await.unwrap().1, "one", "it has one request, the other three");
    }

    for asking in slow {
        one.let_go.notify_one();
        two.let_go.notify_one();
        assert_eq!(soon("the rest", asking).await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn one_that_fails_again_and_again_is_asked_last_for_a_while() {
    let (one, two, urls) = two().await;
    let (proxy, browser) = Vestibule::at(&urls, SITE).await;
    one.status.store(503, Ordering::SeqCst);
    let mut failed = 0;
    for _ in 0..12 {
        failed += usize::from(ask(&browser, "POST", "/public/x").await.unwrap().0 == 503);
    }
    assert_eq!((failed, one.requests(), two.requests()), (3, 3, 9));

    // Once it was out, one more failure is enough, and the time is doubled.
    for (advance, requests) in [(9, 0), (2, 1), (11, 0), (8, 0), (2, 1)] {
        let before = one.requests();
        proxy.advance(Duration::from_secs(advance));
        for _ in 0..4 {
            ask(&browser, "POST", "/public/x").await.unwrap();
        }
        assert_eq!(one.requests() - before, requests, "{advance} s later");
    }

    one.status.store(200, Ordering::SeqCst);
    proxy.advance(Duration::from_secs(60));
    let before = one.requests();
    for _ in 0..4 {
        assert_eq!(ask(&browser, "POST", "/public/x").await.unwrap().0, 200);
    }
    assert_eq!(one.requests() - before, 2, "it shares the work again");
}

/// An application that answers the first request of each connection and hangs up on the second, and what it
/// was asked. One that is `leaving` takes no connection but the first.
async fn hangs_up(leaving: bool, seen: mpsc::UnboundedSender<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let seen = seen.clone();
            tokio::spawn(async move {
                seen.send(read_head(&mut stream).await).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
                seen.send(read_head(&mut stream).await).unwrap();
            });
            if leaving {
                return;
            }
        }
    });
    url
}

#[tokio::test]
async fn a_page_that_was_lost_is_asked_for_once_more_in_all() {
    // S101: the first upstream loses it and is gone, and the second has a stale connection, too.
    let (seen, mut heads) = mpsc::unbounded_channel();
    let urls = format!("{} {}", hangs_up(true, seen.clone()).await, hangs_up(false, seen).await);
    let (_proxy, mut browser) = Vestibule::at(&urls, SITE).await;
    for _ in 0..2 {
        assert_eq!(browser.get("/public/first").await.status, 200);
    }

    assert_eq!(browser.get("/public/lost").await.status, 200);

    let asked = std::iter::from_fn(|| heads.try_recv().ok());
    assert_eq!(asked.filter(|head| head.starts_with("GET /public/lost ")).count(), 2);
}

#[tokio::test]
async fn one_that_drops_requests_is_put_out_and_nothing_is_sent_twice() {
    // S101
    let broken = Wire::start(|_, mut stream| async move {
        read_head(&mut stream).await;
    })
    .await;
    let app = App::start("two").await;
    let (_proxy, browser) = Vestibule::at(&format!("{} {}", broken.url(), app.upstream.url()), SITE).await;
    let mut statuses = Vec::new();
    for _ in 0..9 {
        statuses.push(ask(&browser, "GET", "/public/x").await.unwrap().0.as_u16());
    }
    let failed = statuses.iter().filter(|status| **status == 502).count();
    assert_eq!((failed, broken.connections(), app.requests()), (3, 3, 6), "{statuses:?}");
}

#[tokio::test]
async fn when_all_are_down_they_are_asked_all_the_same() {
    let (_socket, down) = unheard();
    let app = App::start("two").await;
    let (_proxy, browser) = Vestibule::at(&format!("http://{down} {}", app.upstream.url()), SITE).await;
    app.status.store(502, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(ask(&browser, "GET", "/public/x").await.unwrap().1, "two", "its own page, not ours");
    }
    app.status.store(200, Ordering::SeqCst);
    for _ in 0..4 {
        assert_eq!(ask(&browser, "GET", "/public/x").await.unwrap().0, 200);
    }
}

#[tokio::test]
async fn health_checks_take_an_upstream_out_and_bring_it_back() {
    let (one, two, urls) = two().await;
    let (proxy, browser) = Vestibule::of(parse(&checked(&urls))).await;
    let mut rounds = 1;
    eventually("the first check comes at once", || one.checks() == 1 && two.checks() == 1).await;
    let check = one.upstream.last();
    assert_eq!((check.method.as_str(), check.target.as_str()), ("GET", "/healthz"));
    assert_eq!((check.header("host"), check.header("x-forwarded-proto")), (Some("app.test"), Some("https")));

    for (health, checks, shares) in [(404, 2, true), (404, 1, false), (302, 1, false), (204, 1, true)] {
        one.health.store(health, Ordering::SeqCst);
        for _ in 0..checks {
            rounds += 1;
            proxy.advance(Duration::from_secs(10));
            eventually("a check", || one.checks() == rounds && two.checks() == rounds).await;
        }
        let got = || async {
            let before = one.requests();
            for _ in 0..4 {
                assert_eq!(ask(&browser, "GET", "/public/x").await.unwrap().0, 200);
            }
            one.requests() > before
        };
        // The verdict follows the answer in a moment.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        while got().await != shares {
            assert!(tokio::time::Instant::now() < deadline, "after {health}, {checks} times: {shares}");
        }
    }
}

#[tokio::test]
async fn when_no_check_passes_all_are_still_asked() {
    let (one, two, urls) = two().await;
    one.health.store(500, Ordering::SeqCst);
    two.health.store(500, Ordering::SeqCst);
    let program = Program::start(&checked(&urls)).await;
    eventually("both are down", || program.events("upstream.down").len() == 2).await;
    let said = program.events("upstream.down");
    let why = said[0]["error"].as_str().unwrap();
    assert!(why.contains("health check failed") && why.contains("it answered 500"), "{why}");
    assert_eq!(said[0]["site"], "https://app.test");

    assert_eq!(program.browser().get("/public/x").await.status, 200);

    assert_eq!(one.requests() + two.requests(), 1);
}

#[tokio::test]
async fn one_that_cannot_be_reached_is_noticed_before_any_request_and_its_return_too() {
    let (socket, address) = unheard();
    let app = App::start("two").await;
    let text = checked(&format!("http://{address} {}", app.upstream.url())).replace("\"10s\"", "\"1s\"");
    let program = Program::start(&text).await;
    eventually("it is down", || program.events("upstream.down").len() == 1).await;
    assert!(program.events("upstream.down")[0]["error"].as_str().unwrap().contains("cannot connect"));

    let listener = socket.listen(16).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });

    eventually("it is up", || program.events("upstream.up").len() == 1).await;
    assert!(program.events("upstream.up")[0]["upstream"].as_str().unwrap().contains(&address.to_string()));
}

#[tokio::test]
async fn checks_speak_as_requests_do_and_take_no_place_of_theirs() {
    // S135
    let ours = certificates();
    let app = Upstream::start(|_| Reply::text("page")).await;
    for site in ["upstream_protocol = \"h2\"\n", ""] {
        let tables = format!("{site}{SITE}[site.health]\npath = \"/healthz\"\n[limits]\nupstream_connections = 1\n");
        let before = app.received().len();
        let (_proxy, mut browser) = Vestibule::at(&app.url(), &tables).await;
        eventually("a check", || app.received().len() > before).await;
        let version = if site.is_empty() { http::Version::HTTP_11 } else { http::Version::HTTP_2 };
        assert_eq!((app.last().version, app.last().path()), (version, "/healthz"));
        assert_eq!(browser.get("/public/x").await.status, 200);
    }
    let distrusted = format!("{SITE}[site.health]\npath = \"/healthz\"\n[site.upstream_tls]\nca = {:?}\n", ours.ca);
    let made = tempfile::TempDir::new().unwrap();
    let foreign = vestibule::cert::make(made.path(), &["localhost".to_owned()]).unwrap();
    let tls = crate::upstreams::serving(&foreign.certificate, &foreign.key, None);
    let app = Upstream::over_tls("localhost", tls, |_| Reply::text("page")).await;
    let program = Program::start(&file(&app.url(), &distrusted)).await;
    eventually("it is not trusted", || program.events("upstream.down").len() == 1).await;
    assert!(program.events("upstream.down")[0]["error"].as_str().unwrap().contains("TLS failed"));
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn who_leaves_the_queue_for_a_connection_leaves_it() {
    // S174, S177
    let app = App::start("one").await;
    let text = format!(
        "{}[timeouts]\nconnect = \"30s\"\n",
        file(&app.upstream.url(), &format!("{SITE}[limits]\nupstream_connections = 1\n"))
    );
    let (_proxy, browser) = Vestibule::of(parse(&text)).await;
    let first = ask(&browser, "GET", "/public/slow");
    eventually("it is under way", || app.requests() == 1).await;
    let io = TokioIo::new(browser.connect(b"h2").await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut send = |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(format!("https://app.test{path}"));
        sender.send_request(request.body(Full::<Bytes>::default()).unwrap())
    };
    let leaving: Vec<_> = (0..5).map(|_| send("POST", "/public/left")).collect();
    // What is answered after them was read after them.
    assert_eq!(send("GET", "/.vestibule/session").await.unwrap().status(), 401);
    drop(leaving);
    assert_eq!(send("GET", "/.vestibule/session").await.unwrap().status(), 401);
    let last = ask(&browser, "GET", "/public/x");

    app.let_go.notify_one();

    assert_eq!(soon("the first", first).await.unwrap().0, 200);
    assert_eq!(soon("the last", last).await.unwrap().0, 200);
    let paths: Vec<_> = app.upstream.received().iter().map(|request| request.path().to_owned()).collect();
    assert_eq!(paths, ["/public/slow", "/public/x"]);
}
