//! What the application is told about the client, and what the client learns of the application.

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http_body_util::Channel;
use http_body_util::Full;

use crate::support::Browser;
use crate::support::OURS;
use crate::support::Received;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::certificates;
use crate::support::configure;
use crate::support::navigation;

/// Every spelling that some application takes for the user's header.
const FORGED: &str = "X-Forwarded-User: admin\r\nx-forwarded-user: root\r\nX_Forwarded_User: admin\r\n\
    X-FORWARDED_USER: admin\r\nx.forwarded.user: admin\r\nX~Forwarded~User: admin\r\n";

/// A request as it stands on the wire, forged headers included.
async fn forged(browser: &Browser, start: &str, lines: &str) -> String {
    let session = browser.session().map(|id| format!("Cookie: {OURS}={id}\r\n")).unwrap_or_default();
    let text = format!(
        "{start} HTTP/1.1\r\nHost: app.test\r\nSec-Fetch-Site: same-origin\r\nOrigin: https://app.test\r\n\
         {session}{FORGED}{lines}\r\n"
    );
    browser.raw(text.as_bytes()).await
}

fn post(body: &str) -> String {
    format!(
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn no_client_says_who_it_is() {
    // S64, S65, S66, VR-11, VR-32, VR-52, VR-54
    let app = Upstream::start(|request| match request.path() {
        "/login" if request.body.contains("secret") => Reply::redirect("/"),
        "/public/broken" => Reply::status(500),
        _ => Reply::text("page"),
    })
    .await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let close = "Connection: close, x-forwarded-user, X_Forwarded_User\r\n";
    let upgrade = "Connection: upgrade, close, x-forwarded-user\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let (wrong, right) = (post("username=alice&password=x"), post("username=alice&password=secret"));
    let anonymous = [
        ("GET /public/x", close),
        ("HEAD /public/x", close),
        ("OPTIONS /public/x", close),
        ("DELETE /public/x", close),
        ("GET /public/broken", close),
        ("GET /login", close),
        ("POST /login", &wrong),
        ("POST /login", &right),
        ("GET /public/socket", upgrade),
    ];

    for (start, lines) in anonymous {
        let before = app.received().len();
        forged(&browser, start, lines).await;
        assert_eq!(app.received().len(), before + 1, "{start}");
        assert_eq!(app.last().folded("x-forwarded-user"), Vec::<&str>::new(), "{start}");
    }

    let mut alice = browser.clone();
    alice.log_in("alice").await;
    for (start, lines) in [
        ("GET /", close),
        ("GET /public/x", close),
        ("OPTIONS /", close),
        ("POST /", &post("a=b")),
        ("GET /socket", upgrade),
        ("POST /login", &wrong),
        ("GET /logout", close),
    ] {
        let before = app.received().len();
        forged(&alice, start, lines).await;
        assert_eq!(app.received().len(), before + 1, "{start}");
        assert_eq!(app.last().folded("x-forwarded-user"), ["alice"], "{start}");
    }
}

#[tokio::test]
async fn no_client_says_who_it_is_over_http2() {
    // S65, VR-11
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let mut browser = browser.over_http2();
    let request = || {
        Request::get("/public/x")
            .header("x-forwarded-user", "admin")
            .header("x_forwarded_user", "admin")
            .header("x.forwarded-user", "admin")
            .body(Full::<Bytes>::default())
            .unwrap()
    };

    browser.send(request()).await;
    assert_eq!(app.last().folded("x-forwarded-user"), Vec::<&str>::new());
    browser.log_in("alice").await;
    browser.send(request()).await;
    assert_eq!(app.last().folded("x-forwarded-user"), ["alice"]);
}

#[tokio::test]
async fn trailers_are_not_passed_on() {
    // S65, S85
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::in_front_of(&app).await;
    let chunked = "POST /public/x HTTP/1.1\r\nHost: app.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Forwarded-User\r\n\
        Connection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Forwarded-User: admin\r\nContent-Length: 7\r\n\r\n";

    browser.raw(chunked.as_bytes()).await;
    let received = app.last();
    assert_eq!((received.body.as_str(), received.trailers.as_ref()), ("abc", None));

    let (mut sender, body) = Channel::<Bytes>::new(2);
    sender.send_data(Bytes::from("abc")).await.unwrap();
    sender
        .send_trailers(HeaderMap::from_iter([("x-forwarded-user".parse().unwrap(), "admin".parse().unwrap())]))
        .await
        .unwrap();
    drop(sender);
    browser.over_http2().open(Request::post("/public/x").body(body).unwrap()).await;
    let received = app.last();
    assert_eq!((received.body.as_str(), received.trailers.as_ref()), ("abc", None));
    assert_eq!(received.folded("x-forwarded-user"), Vec::<&str>::new());
}

/// Forwarding headers as a client makes them up.
fn pretending() -> http::request::Builder {
    Request::get("/public/x")
        .header("x-forwarded-for", "6.6.6.6")
        .header("x-real-ip", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6;host=evil.test")
        .header("x-forwarded-proto", "http")
        .header("x-forwarded-host", "evil.test")
        .header("x-forwarded-port", "80")
        .header("x-forwarded-prefix", "/evil")
        .header("x-forwarded-server", "evil.test")
        .header("x-original-url", "/admin")
        .header("x-rewrite-url", "/admin")
        .header("x-http-method-override", "DELETE")
        .header("client-cert", ":YQ==:")
        .header("remote-user", "admin")
        .header("proxy", "http://evil.test")
        .header("x-custom", "kept")
}

fn seen<'a>(received: &'a Received, names: &[&str]) -> Vec<Option<&'a str>> {
    names.iter().map(|name| received.header(name)).collect()
}

#[tokio::test]
async fn where_the_client_is_comes_from_us() {
    // S53, S68, S69, S70, S87, VR-10, VR-53
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.from = [127, 0, 0, 2].into();

    for (http2, via) in [(false, "1.1 vestibule"), (true, "2.0 vestibule")] {
        browser.http2 = http2;
        browser.send(pretending().body(Full::default()).unwrap()).await;
        let received = app.last();
        assert_eq!(
            seen(
                &received,
                &["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "via"]
            ),
            [Some("127.0.0.2"), Some("127.0.0.2"), Some("https"), Some("app.test"), Some("443"), Some(via)]
        );
        assert_eq!(received.header("forwarded"), Some("for=127.0.0.2;host=app.test;proto=https"));
        assert_eq!(received.header("x-custom"), Some("kept"));
        let gone = ["x-forwarded-prefix", "x-forwarded-server", "x-original-url", "x-rewrite-url"];
        assert_eq!(seen(&received, &gone), [None; 4]);
        assert_eq!(seen(&received, &["x-http-method-override", "client-cert", "remote-user", "proxy"]), [None; 4]);
    }
}

#[tokio::test]
async fn an_upstream_that_leads_back_here_is_noticed() {
    // S87: instead of a connection to itself for every connection there is.
    let tls = format!("[site.upstream_tls]\nca = {:?}\nserver_name = \"app.test\"\n", certificates().ca);
    let site = format!("{SITE}{tls}");
    let (proxy, mut browser) = Vestibule::at("https://127.0.0.1:1", &site).await;
    let itself = format!("https://{}", proxy.https);
    proxy.remote.reload(&configure(&itself, &site)).unwrap();

    assert_eq!(browser.get("/public/x").await.status, 508);
}

#[tokio::test]
async fn a_trusted_proxy_says_where_the_client_is() {
    // S53, S68, S69, VR-10, VR-53
    let app = Upstream::legacy().await;
    let mut config = configure(&app.url(), SITE);
    config.listen.trusted_proxies = vec!["127.0.0.2/32".parse().unwrap()];
    let (_proxy, mut browser) = Vestibule::of(config).await;
    browser.from = [127, 0, 0, 2].into();

    let request = Request::get("/public/x")
        .header("x-forwarded-for", "6.6.6.6, 203.0.113.9")
        .header("x-forwarded-user", "admin")
        .header("via", "1.1 edge")
        // Many a balancer sets only the one field, and leaves these as the client sent them.
        .header("x-real-ip", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6;host=evil.test;proto=http")
        .header("x-forwarded-host", "evil.test")
        .header("x-forwarded-port", "1")
        .header("x-forwarded-proto", "http");
    browser.send(request.body(Full::default()).unwrap()).await;

    let received = app.last();
    assert_eq!(received.header("x-forwarded-for"), Some("6.6.6.6, 203.0.113.9, 127.0.0.2"));
    assert_eq!(received.header("forwarded"), Some("for=203.0.113.9;host=app.test;proto=https, for=127.0.0.2"));
    assert_eq!(
        seen(&received, &["x-forwarded-host", "x-forwarded-port", "x-forwarded-proto"]),
        [Some("app.test"), Some("443"), Some("https")]
    );
    assert_eq!(received.header("x-real-ip"), Some("203.0.113.9"));
    assert_eq!(received.header("via"), Some("1.1 edge, 1.1 vestibule"));
    assert_eq!(received.folded("x-forwarded-user"), Vec::<&str>::new(), "identity is nobody's to forward");
}

#[tokio::test]
async fn the_client_does_not_learn_what_is_behind() {
    // S72, S75, S86, S110, S165
    let app = Upstream::start(|_| {
        Reply::text("page")
            .header("server", "Apache/1.3.9")
            .header("x-powered-by", "PHP/4.0")
            .header("x-aspnet-version", "1.1")
            .header("x-forwarded-user", "alice")
            .header("x_forwarded_user", "alice")
            .header("x-auth-name", "alice")
            .header("connection", "x-internal")
            .header("x-internal", "1")
            .header("keep-alive", "timeout=5")
            .header("proxy-authenticate", "Basic")
            .header("upgrade", "h2c")
            .header("secure-session-registration", "(ES256)")
            .header("x-own", "kept")
    })
    .await;
    let site = SITE.replace("\"form:username\"", "[\"response-header:X-Auth-Name\", \"form:username\"]");
    let (_proxy, mut browser) = Vestibule::with(&app, &site).await;

    for http2 in [false, true] {
        browser.http2 = http2;
        let answer = browser.get("/public/x").await;
        for hidden in [
            "x_forwarded_user",
            "x-auth-name",
            "x-aspnet-version",
            "x-internal",
            "proxy-authenticate",
            "upgrade",
            "secure-session-registration",
            "connection",
            "transfer-encoding",
        ] {
            assert_eq!(answer.header(hidden), None, "{hidden}");
        }
        assert_eq!(answer.header("x-own"), Some("kept"));
    }
}

#[tokio::test]
async fn cookies_of_the_browser_reach_the_application_as_they_are() {
    // S10, VR-05
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;
    let site = "a=1; b=\"x, y\"; c=d=e; %20=%zz; $Version=1; \u{e9}t\u{e9}=\u{fc}; bare; x=; A=2";
    let ours = format!("{OURS}={}", browser.session().unwrap());
    let cases = [
        (format!("{site}; {ours}"), Some(site)),
        (format!("{ours}; {site}"), Some(site)),
        (format!("a=1; {ours}; b=2"), Some("a=1; b=2")),
        (format!("{ours}; {ours}"), None),
        (ours.clone(), None),
    ];

    for (sent, expected) in cases {
        let value = http::HeaderValue::from_bytes(sent.as_bytes()).unwrap();
        let request = Request::get("/private").header("cookie", value);
        assert_eq!(browser.send(request.body(Full::default()).unwrap()).await.status, 200);
        let received = app.last();
        let mut lines = received.headers.get_all("cookie").iter();
        let expected = expected.map(|rest| format!("PHPSESSID=app-session-2; {rest}"));
        let expected = expected.unwrap_or_else(|| "PHPSESSID=app-session-2".into());
        assert_eq!(lines.next().map(|line| line.as_bytes().to_owned()), Some(expected.into_bytes()));
        assert_eq!(lines.next(), None);
    }
}

#[tokio::test]
async fn an_empty_cookie_header_is_no_header() {
    // VR-05
    let app = Upstream::start(|_| Reply::redirect("/")).await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    browser.log_in("alice").await;

    browser.get("/").await;

    assert!(!app.last().headers.contains_key("cookie"));
}

#[tokio::test]
async fn methods_targets_and_fields_pass_as_they_are() {
    // S102, S71
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::in_front_of(&app).await;
    for (method, target) in [
        ("GET", "/public/a%20b/%C3%A9?q=a+b&c=%26;d"),
        ("PROPFIND", "/public/dav/"),
        ("DELETE", "/public/x?"),
        ("PUT", "/public//double"),
    ] {
        for http2 in [false, true] {
            browser.http2 = http2;
            let request = Request::builder()
                .method(method)
                .uri(target)
                .header("authorization", "Bearer a.b.c")
                .header("accept-encoding", "gzip, br")
                .header("x-many", "1")
                .header("x-many", "2")
                .header("referer", "https://app.test/before");
            browser.send(request.body(Full::default()).unwrap()).await;
            let received = app.last();
            assert_eq!((received.method.as_str(), received.target.as_str()), (method, target));
            assert_eq!(received.headers.get_all("x-many").iter().collect::<Vec<_>>(), ["1", "2"]);
            assert_eq!(
                seen(&received, &["authorization", "accept-encoding", "referer", "host"]),
                [Some("Bearer a.b.c"), Some("gzip, br"), Some("https://app.test/before"), Some("app.test")]
            );
        }
    }
}

#[tokio::test]
async fn a_question_about_the_server_stays_one() {
    // S89
    let app = Upstream::legacy().await;
    let (_proxy, browser) = Vestibule::with(&app, &SITE.replace("public =", "default = \"public\"\npublic =")).await;

    let answer = browser.raw(b"OPTIONS * HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n").await;

    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(app.last().target, "*");
}

#[tokio::test]
async fn an_application_may_know_itself_by_another_name() {
    // S155
    let app = Upstream::start(|request| match request.target.split_once("?to=") {
        Some((_, to)) => Reply::redirect(to).header("content-location", to),
        None => Reply::text("page"),
    })
    .await;
    let address = app.address.to_string();
    for (key, host, origin) in [
        ("", "app.test", "https://app.test".to_owned()),
        ("upstream_host = \"preserve\"\n", "app.test", "https://app.test".to_owned()),
        ("upstream_host = \"upstream\"\n", address.as_str(), format!("http://{address}")),
        ("upstream_host = \"intranet.corp\"\n", "intranet.corp", "http://intranet.corp".to_owned()),
    ] {
        let (_proxy, mut browser) = Vestibule::with(&app, &format!("{key}{SITE}")).await;
        let request = navigation("POST", "/public/form")
            .header("origin", "https://app.test")
            .header("referer", "https://app.test/form?x");
        browser.send(request.body(Full::default()).unwrap()).await;
        let received = app.last();
        assert_eq!(received.headers.get_all("host").iter().collect::<Vec<_>>(), [host]);
        assert_eq!(received.header("origin"), Some(origin.as_str()), "{key}");
        assert_eq!(received.header("referer"), Some(format!("{origin}/form?x").as_str()), "{key}");
        assert_eq!(received.header("x-forwarded-host"), Some("app.test"));

        let secure = origin.replace("http://", "https://");
        for inner in
            [origin.as_str(), &secure, &format!("http://{address}"), &format!("https://{address}"), "http://app.test"]
        {
            let answer = browser.get(&format!("/public/?to={inner}/next")).await;
            assert_eq!(answer.location(), "https://app.test/next", "{key} {inner}");
            assert_eq!(answer.header("content-location"), Some("https://app.test/next"));
        }
        for other in
            ["/next", "next?x=/", "https://elsewhere.test/next", "http://intranet.corp.evil.test/", "//app.test/next"]
        {
            assert_eq!(browser.get(&format!("/public/?to={other}")).await.location(), other, "{key}");
        }
    }
}

#[tokio::test]
async fn an_inner_address_is_translated_wherever_it_is_answered() {
    // S155: the login, its verification, a login page that is asked for twice, a refused upgrade
    let app = Upstream::start(|request| {
        let inner = format!("http://{}", request.header("host").unwrap());
        match (request.method.as_str(), request.path(), request.cookie("in")) {
            ("POST", "/login", _) => Reply::redirect(&format!("{inner}/next")).header("set-cookie", "in=1"),
            (_, "/next", Some(_)) => Reply::redirect(&format!("{inner}/home")),
            (_, "/login", Some(_)) => Reply::redirect(&format!("{inner}/home")),
            (_, "/login", None) => Reply::text("<form>").header("content-location", &format!("{inner}/login")),
            _ => Reply::redirect(&format!("{inner}/login")),
        }
    })
    .await;
    let site = SITE.replace(
        "success = { status = [302, 303], location_not = \"/login*\" }",
        "verify = { status = 302, location = \"/home\" }",
    );
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("upstream_host = \"upstream\"\n{site}")).await;

    assert_eq!(browser.log_in("alice").await.location(), "https://app.test/next");
    let mut visitor = browser.with_session("");
    visitor.cookies = [("in".to_owned(), "1".to_owned())].into();
    let page = visitor.get("/login").await;
    assert_eq!((page.status.as_u16(), page.header("content-location")), (200, Some("https://app.test/login")));
    let upgrade = navigation("GET", "/socket")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("origin", "https://app.test");
    let refused = browser.send(upgrade.body(Full::default()).unwrap()).await;
    assert_eq!(refused.location(), "https://app.test/login");
}

#[tokio::test]
async fn foreign_origins_are_not_translated() {
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &format!("upstream_host = \"intranet.corp\"\n{SITE}")).await;
    let request = Request::get("/public/x")
        .header("origin", "https://app.test.evil.test")
        .header("referer", "https://elsewhere.test/?https://app.test/");

    browser.send(request.body(Full::default()).unwrap()).await;

    let received = app.last();
    assert_eq!(
        seen(&received, &["origin", "referer"]),
        [Some("https://app.test.evil.test"), Some("https://elsewhere.test/?https://app.test/")]
    );
}

#[tokio::test]
async fn a_vaulted_servlet_session_does_not_stand_in_the_target() {
    // S14, VR-12
    let app = Upstream::legacy().await;
    for (cookies, target) in [
        ("", "/public/a/b?x;jsessionid=2"),
        ("[site.cookies]\nmode = \"pass\"\n", "/public/a;jsessionid=1F/b?x;jsessionid=2"),
    ] {
        let (_proxy, mut browser) = Vestibule::with(&app, &format!("{SITE}{cookies}")).await;
        browser.get("/public/a;jsessionid=1F/b?x;jsessionid=2").await;
        assert_eq!(app.last().target, target);
    }
}
