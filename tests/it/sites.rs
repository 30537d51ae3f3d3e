//! Which site a request is for (product 1, step 2).

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioExecutor;
use hyper_util::rt::TokioIo;

use crate::support::Answer;
use crate::support::Browser;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::empty;

/// A page that everyone may see, asked for under this host.
async fn ask(browser: &Browser, method: &str, host: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri("/public/x?y=%2F")
        .header("host", host)
        .header("x-forwarded-host", "evil.test")
        .header("forwarded", "host=evil.test");
    browser.clone().send(empty(request)).await
}

async fn raw(browser: &Browser, head: &str) -> String {
    let answer = browser.raw(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
    answer.split(' ').nth(1).unwrap_or("closed").to_owned()
}

/// The status of the answer to a request as it is.
async fn over_http2(browser: &Browser, request: Request<Full<Bytes>>) -> u16 {
    let io = TokioIo::new(browser.connect(b"h2").await);
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap().status().as_u16()
}

#[tokio::test]
async fn a_host_is_compared_as_browsers_write_it_and_no_other_gets_a_page() {
    // S76, S77
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for (host, status) in [
        ("app.test", 200),
        ("APP.Test", 200),
        ("app.test:443", 200),
        ("app.test:0443", 200),
        ("app.test.", 200),
        ("app.test.:443", 200),
        ("app.test:", 200),
        ("app.test:80", 421),
        ("app.test:8443", 421),
        ("app.test..", 421),
        ("www.app.test", 421),
        ("evil.test", 421),
        ("localhost", 421),
        ("127.0.0.1", 421),
        ("[::1]", 421),
        ("", 400),
        (":443", 400),
        (".", 400),
        ("app.test:443:443", 400),
        ("app.test:65536", 400),
        ("app.test:-1", 400),
        ("user@app.test", 400),
        ("app.test/", 400),
        ("app.test/x@evil.test", 400),
        ("app.test?x", 400),
        ("app.test#x", 400),
        ("app.test,evil.test", 400),
        ("app.test evil.test", 400),
        ("app%2etest", 400),
        ("[::1", 400),
        ("[app.test]", 400),
    ] {
        assert_eq!(ask(&browser, "GET", host).await.status, status, "{host}");
        if status == 200 {
            assert_eq!(app.last().header("host"), Some("app.test"));
            assert_eq!(app.last().header("x-forwarded-host"), Some("app.test"));
        }
    }
    for head in [
        "GET /public/x HTTP/1.1",
        "GET /public/x HTTP/1.1\r\nHost: app.test\r\nHost: app.test",
        "GET /public/x HTTP/1.1\r\nHost: app.test\r\nHost: evil.test",
        "GET /public/x HTTP/1.0",
        "GET https://app.test/public/x HTTP/1.1",
        "GET https://app.test/public/x HTTP/1.1\r\nHost: evil.test",
        "GET https://evil.test/public/x HTTP/1.1\r\nHost: app.test",
    ] {
        assert_eq!(raw(&browser, head).await, "400", "{head}");
    }
    assert_eq!(app.received().len(), 7);
    let misdirected = ask(&browser, "GET", "evil.test").await;
    assert_eq!(misdirected.header("cache-control"), Some("no-store"));
    assert!(!misdirected.body.contains("evil") && misdirected.body.len() < 100, "{}", misdirected.body);
}

#[tokio::test]
async fn over_http_2_the_authority_counts_and_the_host_must_not_differ() {
    // S106, S107
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    for (uri, host, status) in [
        ("https://app.test/public/x", None, 200),
        ("https://APP.test:443/public/x", None, 200),
        ("https://app.test/public/x", Some("app.test"), 200),
        ("https://app.test/public/x", Some("app.test:443"), 200),
        ("https://app.test/public/x", Some("evil.test"), 400),
        ("https://evil.test/public/x", Some("app.test"), 400),
        ("https://evil.test/public/x", None, 421),
        ("https://user@app.test/public/x", None, 400),
        ("http://app.test/public/x", None, 400),
        ("javascript://app.test/public/x", None, 400),
    ] {
        let mut request = Request::get(uri);
        request = host.into_iter().fold(request, |request, host| request.header("host", host));
        let answer = over_http2(&browser, empty(request)).await;
        assert_eq!(answer, status, "{uri} {host:?}");
    }
    assert_eq!(app.received().len(), 4);
}

#[tokio::test]
async fn an_alias_sends_page_loads_to_the_origin_and_does_nothing_else() {
    // S77, S157, VR-56
    let app = Upstream::plain().await;
    let site = format!("aliases = [\"https://other.test\", \"https://app.test:8443\"]\n{SITE}");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for alias in ["other.test", "OTHER.test.:443", "app.test:8443"] {
        for method in ["GET", "HEAD"] {
            let answer = ask(&browser, method, alias).await;
            assert_eq!(
                (answer.status.as_u16(), answer.location()),
                (308, "https://app.test/public/x?y=%2F"),
                "{alias}"
            );
            assert_eq!(answer.header("cache-control"), Some("no-store"));
            assert!(answer.header("strict-transport-security").is_some(), "S133");
        }
        for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
            assert_eq!(ask(&browser, method, alias).await.status, 421, "{method} {alias}");
        }
    }
    assert_eq!(ask(&browser, "GET", "other.test:8443").await.status, 421);
    for (target, location) in [
        ("//evil.test/x", "https://app.test//evil.test/x"),
        ("/a/../%2e%2e//b", "https://app.test/a/../%2e%2e//b"),
        ("/.vestibule/session", "https://app.test/.vestibule/session"),
    ] {
        let answer = browser.clone().send(empty(Request::get(target).header("host", "other.test"))).await;
        assert_eq!((answer.status.as_u16(), answer.location()), (308, location));
    }
    let login = Request::post("/login")
        .header("host", "other.test")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(Full::from("username=alice&password=secret"))
        .unwrap();
    assert_eq!(browser.clone().send(login).await.status, 421);
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn sites_may_differ_by_their_port() {
    let (app, other) = (Upstream::plain().await, Upstream::plain().await);
    let second = SITE.replace("/public/*", "/open/*");
    let site = format!(
        "{SITE}\n[[site]]\norigin = \"https://app.test:8443\"\nupstream = \"{}\"\n{second}\n[[site]]\n\
         origin = \"https://[0:0::1]\"\nupstream = \"{}\"\n{SITE}",
        other.url(),
        other.url()
    );
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for (host, target, status) in [
        ("app.test", "/public/x", 200),
        ("app.test", "/open/x", 401),
        ("app.test:8443", "/public/x", 401),
        ("app.test:8443", "/open/x", 200),
        ("App.Test.:8443", "/open/x", 200),
        ("[::1]", "/public/x", 200),
        ("[0000::0:1]:443", "/public/x", 200),
    ] {
        let answer = browser.clone().send(empty(Request::get(target).header("host", host))).await;
        assert_eq!(answer.status, status, "{host} {target}");
    }
    assert_eq!((app.received().len(), other.received().len()), (1, 4));
    let hosts: Vec<_> = other.received().iter().map(|received| received.header("host").unwrap().to_owned()).collect();
    assert_eq!(hosts, ["app.test:8443", "app.test:8443", "[::1]", "[::1]"]);
    let forwarded = other.received()[0].header("forwarded").unwrap().to_owned();
    assert_eq!(forwarded, "for=127.0.0.1;host=\"app.test:8443\";proto=https", "S69");
}
