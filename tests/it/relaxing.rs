//! Strict rules about messages that one application is spared: what was refused, by which rule, and what to
//! write (VR-22).

use http::Request;
use http::header::HeaderName;
use serde_json::Value;

use crate::support::Browser;
use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::empty;
use crate::support::eventually;
use crate::support::file;
use crate::support::program::Program;
use crate::support::read_head;

/// The site, spared these rules.
fn spared(rules: &str) -> String {
    format!("relax = [{rules}]\n{SITE}")
}

/// The status of the answer to a request with this start and these lines.
async fn status(browser: &Browser, start: &str, lines: &str) -> String {
    let request = format!("{start} HTTP/1.1\r\nHost: app.test\r\n{lines}Connection: close\r\n\r\n");
    browser.raw(request.as_bytes()).await.split(' ').nth(1).unwrap_or("closed").to_owned()
}

/// What the log advises about a rule.
fn lets_pass(rule: &str, passes: &str) -> String {
    format!("relax = [\"{rule}\"] in this [[site]] lets pass: {passes}")
}

#[tokio::test]
async fn a_refusal_says_by_which_rule_and_what_to_write() {
    // VR-22
    let app = Upstream::plain().await;
    let site = format!("{SITE}[site.limits]\nheader_count = 20\n");
    let program = Program::start(&file(&app.url(), &site)).await;
    let many = "X: y\r\n".repeat(20);
    for (number, (start, lines, rule, help)) in [
        ("GET /public/a%2Fb", "", "encoded-slash", lets_pass("encoded-slash", "paths with %2F")),
        ("GET /public/..;/b", "", "dot-parameter", lets_pass("dot-parameter", "paths with ..;")),
        ("MKCALENDAR /public/x", "", "method", lets_pass("method", "methods of the application's own")),
        ("GET /public/caf\u{e9}", "", "target", lets_pass("target", "targets with characters beyond ASCII")),
        ("GET /public/x", "Expect: a-miracle\r\n", "expect", lets_pass("expect", "unknown expectations")),
        ("GET /public/x", many.as_str(), "header-count", "raise header_count in [site.limits]".to_owned()),
        ("GET http://evil.test/public/x", "", "authority", String::new()),
    ]
    .into_iter()
    .enumerate()
    {
        status(&program.browser(), start, lines).await;
        program.answered(number + 1).await;
        let refused = program.events("request.refused").pop().unwrap();
        assert_eq!(refused["rule"], rule, "{start} {refused}");
        assert_eq!(refused["help"].as_str().unwrap_or_default(), help, "{start} {refused}");
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn what_is_no_request_is_told_of_too() {
    // S82, VR-22
    let app = Upstream::plain().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    let large = format!("X: {}\r\n", "x".repeat(200_000));
    for (lines, rule, help) in [
        ("X : y\r\n", "syntax", None),
        ("Content-Length: five\r\n", "syntax", None),
        (large.as_str(), "header-bytes", Some("raise header_bytes in [site.limits]")),
    ] {
        let before = program.events("request.refused").len();
        status(&program.browser(), "GET /public/x", lines).await;
        eventually("it is told of", || program.events("request.refused").len() > before).await;
        let refused = program.events("request.refused").pop().unwrap();
        assert_eq!((refused["rule"].as_str(), refused["help"].as_str()), (Some(rule), help), "{refused}");
        assert_eq!(refused["client"], "127.0.0.1");
    }
}

#[tokio::test]
async fn an_application_may_have_slashes_in_its_names() {
    // S90, VR-22: the one kind of doubt is taken, no other, and nothing in doubt is public.
    let app = Upstream::legacy().await;
    let (_proxy, mut browser) = Vestibule::with(&app, &spared("\"encoded-slash\"")).await;
    let strangers = browser.clone();
    browser.log_in("alice").await;
    for target in ["/projects/group%2Fname?x=%2f", "/public/..%2Fadmin"] {
        assert_eq!(browser.get(target).await.status, 200, "{target}");
        assert_eq!(app.last().target, target);
        assert_eq!(status(&strangers, &format!("GET {target}"), "").await, "401", "{target}");
    }
    for target in ["/a%2F..;/b", "/a%5Cb", "/a%2F%00", "/%2F..%2F..%2Fb", "/a%252Fb"] {
        assert_eq!(browser.get(target).await.status, 400, "{target}");
    }
}

#[tokio::test]
async fn an_application_may_have_methods_of_its_own() {
    // S88, S92, VR-22
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::with(&app, &spared("\"method\"")).await;
    for (method, expected) in
        [("MKCALENDAR", "200"), ("FOO", "200"), ("get", "405"), ("TRACE", "405"), ("track", "405"), ("CONNECT", "405")]
    {
        assert_eq!(status(&browser, &format!("{method} /public/x"), "").await, expected, "{method}");
    }
    let methods: Vec<_> = app.received().into_iter().map(|received| received.method).collect();
    assert_eq!(methods, ["MKCALENDAR", "FOO"]);
    // What changes something when a page of another site asks for it is refused as ever.
    let foreign = "Cookie: a=b\r\nSec-Fetch-Site: cross-site\r\n";
    assert_eq!(status(&browser, "MKCALENDAR /public/x", foreign).await, "403");
}

#[tokio::test]
async fn targets_beyond_ascii_are_encoded_before_they_are_judged() {
    // S91, VR-22
    let app = Upstream::plain().await;
    let site = spared("\"target\"").replace("public =", "deny = \"/public/\u{fc}*\"\npublic =");
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    assert_eq!(status(&browser, "GET /public/caf\u{e9}?q=\u{fc}", "").await, "200");
    assert_eq!(app.last().target, "/public/caf%C3%A9?q=%C3%BC");
    assert_eq!(status(&browser, "GET /public/\u{fc}ber", "").await, "403");
    assert_eq!(status(&browser, "GET /public/a b", "").await, "400");
    assert_eq!(app.received().len(), 1);
}

#[tokio::test]
async fn odd_header_names_pass_where_they_are_needed_and_are_no_aliases() {
    // S64, S65, S70, VR-11, VR-22
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::with(&app, &spared("\"header-name\", \"method-override\"")).await;
    let request = Request::get("/public/x")
        .header("x_token", "1")
        .header("x-http-method-override", "PUT")
        .header("x_forwarded_user", "admin")
        .header("x_forwarded_for", "6.6.6.6")
        .header(HeaderName::from_static("content_length"), "5");
    browser.clone().send(empty(request)).await;
    let received = app.last();
    assert_eq!((received.header("x_token"), received.header("x-http-method-override")), (Some("1"), Some("PUT")));
    assert_eq!(received.folded("x-forwarded-user"), Vec::<&str>::new());
    assert_eq!(received.folded("x-forwarded-for"), ["127.0.0.1"]);
    assert!(!received.headers.contains_key("content_length"));
}

#[tokio::test]
async fn a_dropped_header_is_told_of_once() {
    // VR-22: a header that does not arrive is the hardest thing to find.
    let app = Upstream::plain().await;
    let program = Program::start(&file(&app.url(), SITE)).await;
    for number in 1..=2 {
        let request = Request::get("/public/x").header("x_token", "1").header("x-http-method", "PUT");
        program.browser().send(empty(request)).await;
        program.answered(number).await;
    }
    let told: Vec<(Value, Value, Value)> = program
        .events("header.dropped")
        .into_iter()
        .map(|line| (line["header"].clone(), line["rule"].clone(), line["help"].clone()))
        .collect();
    let expected = [
        (
            "x_token",
            "header-name",
            lets_pass("header-name", "fields with other characters in their names than letters, digits and -"),
        ),
        ("x-http-method", "method-override", lets_pass("method-override", "X-HTTP-Method-Override and the like")),
    ];
    assert_eq!(told, expected.map(|(header, rule, help)| (header.into(), rule.into(), help.into())));
}

#[tokio::test]
async fn an_unknown_expectation_may_be_let_go() {
    // S94, VR-22
    let app = Upstream::plain().await;
    let (_proxy, browser) = Vestibule::with(&app, &spared("\"expect\"")).await;
    assert_eq!(status(&browser, "GET /public/x", "Expect: a-miracle\r\n").await, "200");
    assert_eq!(app.last().header("expect"), None);
}

#[tokio::test]
async fn an_odd_status_is_a_bad_gateway_unless_it_is_wanted() {
    // S98, VR-22
    for (site, expected, connections) in [(SITE.to_owned(), "502", 2), (spared("\"status\""), "999", 1)] {
        let app = Wire::start(|_, mut stream| async move {
            while !read_head(&mut stream).await.is_empty() {
                let answer = b"HTTP/1.1 999 Request Denied\r\nContent-Length: 2\r\n\r\nno";
                tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
            }
        })
        .await;
        let (_proxy, browser) = Vestibule::at(&app.url(), &site).await;
        for _ in 0..2 {
            assert_eq!(status(&browser, "GET /public/x", "").await, expected);
        }
        assert_eq!(app.connections(), connections);
    }
}

#[tokio::test]
async fn answers_of_old_applications_may_be_mended() {
    // S98, VR-22 (RFC 9112 5.1, 5.2)
    let app = Wire::start(|_, mut stream| async move {
        while !read_head(&mut stream).await.is_empty() {
            let answer =
                b"HTTP/1.1 200 OK\r\nX-Folded: a;\r\n\tb;\r\n  c\r\nX-Spaced : d\r\nContent-Length : 2\r\n\r\nok";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        }
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&app.url(), &spared("\"answer-lines\"")).await;
    for http2 in [false, true] {
        let answer = browser.clone().over(http2).get("/public/x").await;
        assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, "ok"));
        let folded: Vec<_> = answer.header("x-folded").unwrap().split_ascii_whitespace().collect();
        assert_eq!((folded, answer.header("x-spaced")), (vec!["a;", "b;", "c"], Some("d")));
    }
    let program = Program::start(&file(&app.url(), SITE)).await;
    assert_eq!(status(&program.browser(), "GET /public/x", "").await, "502");
    let failed = program.event("upstream.failed").await;
    assert_eq!(failed["rule"], "answer-lines", "{failed}");
    assert_eq!(
        failed["help"],
        lets_pass("answer-lines", "answers with folded fields or spaces before a colon, mended")
    );
}

#[tokio::test]
async fn what_one_site_is_spared_holds_for_no_other() {
    let app = Upstream::start(|_| Reply::text("page")).await;
    let other = format!("[[site]]\norigin = \"https://other.test\"\nupstream = {:?}\n", app.url());
    let config = crate::support::parse(&format!("{}{other}", file(&app.url(), &spared("\"method\""))));
    let (_proxy, browser) = Vestibule::of(config).await;
    assert_eq!(status(&browser, "FOO /public/x", "").await, "200");
    let elsewhere = b"FOO /public/x HTTP/1.1\r\nHost: other.test\r\n\r\n";
    assert!(browser.raw(elsewhere).await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn a_target_that_is_too_long_in_ascii_is_refused() {
    // VR-13: what was judged by one name is not sent by another.
    let app = Upstream::plain().await;
    let site = format!("{}\n[site.limits]\nuri = \"64KiB\"\nheader_bytes = \"64KiB\"\n", spared("\"target\""));
    let (_proxy, browser) = Vestibule::with(&app, &site).await;
    for (length, expected) in [(1000, "200"), (30_000, "414")] {
        let path = format!("POST /public/{}", "\u{e9}".repeat(length / 2));
        assert_eq!(status(&browser, &path, "Content-Length: 0\r\n").await, expected, "{length}");
    }
    assert_eq!(app.received().len(), 1);
}
