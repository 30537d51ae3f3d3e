//! Requests over HTTP/2 that no HTTP library would send, field by field (security.md 1.7): none of them
//! reaches the application.

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::frames::DATA;
use crate::support::frames::END_HEADERS;
use crate::support::frames::END_STREAM;
use crate::support::frames::Frame;
use crate::support::frames::HEADERS;
use crate::support::frames::RST_STREAM;
use crate::support::frames::Raw;
use crate::support::frames::field;

const GOAWAY: u8 = 7;

/// What comes back for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// 200
    Fine,
    /// 400
    Bad,
    /// Any other status.
    Other,
    /// The stream was reset, or the connection is gone.
    Reset,
}

/// Sends one request, on a connection of its own; without a body it ends with its head.
async fn outcome(proxy: &Vestibule, fields: &[(&str, &str)], body: Option<&str>) -> Outcome {
    let mut raw = Raw::connect(proxy.https, &[]).await;
    let head: Vec<u8> = fields.iter().flat_map(|(name, value)| field(name, value)).collect();
    let ends = if body.is_none() { END_STREAM } else { 0 };
    // A connection that has been closed by now is told of below.
    let _ = raw.send(&Frame::new(HEADERS, END_HEADERS | ends, 1, head)).await;
    if let Some(body) = body {
        let _ = raw.send(&Frame::new(DATA, END_STREAM, 1, body)).await;
    }
    while let Some(frame) = raw.receive().await {
        match (frame.kind, frame.stream) {
            (RST_STREAM, 1) | (GOAWAY, 0) => return Outcome::Reset,
            // Fields that RFC 7541 appendix A has a number for.
            (HEADERS, 1) if frame.payload[0] == 0x88 => return Outcome::Fine,
            (HEADERS, 1) if frame.payload[0] == 0x8c => return Outcome::Bad,
            (HEADERS, 1) => return Outcome::Other,
            _ => {}
        }
    }
    Outcome::Reset
}

const METHOD: (&str, &str) = (":method", "GET");
const POST: (&str, &str) = (":method", "POST");
const SCHEME: (&str, &str) = (":scheme", "https");
const PATH: (&str, &str) = (":path", "/public/x");
const AUTHORITY: (&str, &str) = (":authority", "app.test");

/// A good request with this field more.
fn with(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![METHOD, SCHEME, PATH, AUTHORITY, (name, value)]
}

/// A good request but for this pseudo-field.
fn but_for(name: &'static str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let all = [METHOD, SCHEME, PATH, AUTHORITY];
    all.into_iter().map(|(known, good)| (known, if known == name { value } else { good })).collect()
}

#[tokio::test]
async fn malformed_fields_are_never_forwarded() {
    // S103, VR-58
    let app = Upstream::plain().await;
    let (proxy, _browser) = Vestibule::in_front_of(&app).await;
    for fields in [
        with("x-name", "a\r\nb"),
        with("x-name", "a\nb"),
        with("x-name", "a\rb"),
        with("x-name", "a\0b"),
        with("x-name", "a\u{1}b"),
        with("x-name", "a\u{7f}b"),
        with("X-Name", "a"),
        with("x-Name", "a"),
        with("x name", "a"),
        with("x-name ", "a"),
        with("x:name", "a"),
        with("x\r\nname", "a"),
        with("x\u{e9}", "a"),
        with("", "a"),
        with(":path", "/public/y"),
        with(":unknown", "a"),
        with(":status", "200"),
        vec![METHOD, SCHEME, PATH, ("x-name", "a"), AUTHORITY],
        vec![METHOD, METHOD, SCHEME, PATH, AUTHORITY],
        vec![METHOD, SCHEME, SCHEME, PATH, AUTHORITY],
        vec![METHOD, SCHEME, PATH, ("", ""), AUTHORITY],
        vec![METHOD, SCHEME, PATH, PATH, AUTHORITY],
        vec![METHOD, SCHEME, PATH, AUTHORITY, AUTHORITY],
        vec![METHOD, SCHEME, PATH, AUTHORITY, (":status", "200")],
        vec![SCHEME, PATH, AUTHORITY],
        vec![METHOD, PATH, AUTHORITY],
        vec![METHOD, SCHEME, AUTHORITY],
        but_for(":method", "GE T"),
        but_for(":method", "GET / HTTP/1.1\r\nx: "),
        but_for(":method", ""),
        but_for(":path", "/public/x HTTP/1.1\r\nx: y"),
        but_for(":path", "/public/\r\n"),
        but_for(":path", "/public/\0"),
        but_for(":authority", "app.test\r\nx: y"),
        but_for(":authority", "app.test evil.test"),
    ] {
        assert_eq!(outcome(&proxy, &fields, None).await, Outcome::Reset, "{fields:?}");
    }
    assert!(app.received().is_empty());
    for (name, value) in [("x-name", "a\tb"), ("x-name", ""), ("x-n!me", "\u{e9}"), ("te", "trailers")] {
        assert_eq!(outcome(&proxy, &with(name, value), None).await, Outcome::Fine, "{name} {value}");
    }
}

#[tokio::test]
async fn fields_of_a_connection_have_no_place_there() {
    // S105
    let app = Upstream::plain().await;
    let (proxy, _browser) = Vestibule::in_front_of(&app).await;
    for (name, value) in [
        ("connection", "close"),
        ("connection", "x-name"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, gzip"),
    ] {
        for body in [None, Some("0\r\n\r\n")] {
            assert_eq!(outcome(&proxy, &with(name, value), body).await, Outcome::Reset, "{name}: {value}");
        }
    }
    assert!(app.received().is_empty());
}

#[tokio::test]
async fn a_request_names_one_host_and_a_path_on_it() {
    // S106, S107
    let app = Upstream::plain().await;
    let (proxy, _browser) = Vestibule::with(&app, &SITE.replace("public =", "default = \"public\"\npublic =")).await;
    for (fields, expected) in [
        (vec![METHOD, SCHEME, PATH], Outcome::Bad),
        (vec![METHOD, SCHEME, PATH, ("host", "app.test")], Outcome::Fine),
        (vec![METHOD, SCHEME, PATH, ("host", "app.test"), ("host", "app.test")], Outcome::Bad),
        (with("host", "app.test"), Outcome::Fine),
        (with("host", "evil.test"), Outcome::Bad),
        (with("host", ""), Outcome::Bad),
        (vec![METHOD, SCHEME, PATH, AUTHORITY, ("host", "app.test"), ("host", "evil.test")], Outcome::Bad),
        (but_for(":authority", "evil.test"), Outcome::Other),
        (but_for(":authority", "user@app.test"), Outcome::Bad),
        (but_for(":authority", "user:secret@app.test"), Outcome::Bad),
        (but_for(":authority", "app.test:443"), Outcome::Fine),
        (but_for(":authority", "app.test:80"), Outcome::Other),
        (but_for(":scheme", "http"), Outcome::Bad),
        (but_for(":scheme", "javascript"), Outcome::Bad),
        (but_for(":path", "*"), Outcome::Bad),
        (vec![(":method", "OPTIONS"), SCHEME, (":path", "*"), AUTHORITY], Outcome::Fine),
        (but_for(":path", "/public/caf\u{e9}"), Outcome::Bad),
        (but_for(":path", "/public/..%2fadmin"), Outcome::Bad),
    ] {
        assert_eq!(outcome(&proxy, &fields, None).await, expected, "{fields:?}");
    }
    for path in ["", "public/x", "evil.test/x", "https://evil.test/x", "\\public", "?x", "/public/a b"] {
        let came = outcome(&proxy, &but_for(":path", path), None).await;
        assert!(matches!(came, Outcome::Reset | Outcome::Bad), "{path:?} {came:?}");
    }
    let received = app.received();
    assert_eq!(received.len(), 4, "{received:?}");
    assert!(received.iter().all(|request| request.header("host") == Some("app.test")));
}

#[tokio::test]
async fn a_body_has_the_length_that_it_says() {
    // S109
    let app = Upstream::plain().await;
    let (proxy, _browser) = Vestibule::in_front_of(&app).await;
    let says = |lengths: &[&'static str]| {
        let lengths = lengths.iter().map(|length| ("content-length", *length));
        [POST, SCHEME, PATH, AUTHORITY].into_iter().chain(lengths).collect::<Vec<_>>()
    };
    for (lengths, body) in [
        (&["5"][..], Some("abc")),
        (&["5"], Some("")),
        (&["5"], None),
        (&["2"], Some("abc")),
        (&["3", "4"], Some("abc")),
        (&["4", "3"], Some("abc")),
        (&["+3"], Some("abc")),
        (&["3, 3"], Some("abc")),
        (&["0x3"], Some("abc")),
        (&["99999999999999999999"], Some("abc")),
    ] {
        let came = outcome(&proxy, &says(lengths), body).await;
        assert!(matches!(came, Outcome::Reset | Outcome::Bad), "{lengths:?} {body:?} {came:?}");
    }
    assert_eq!(outcome(&proxy, &says(&["3"]), Some("abc")).await, Outcome::Fine);
    // A request without a body is complete before its DATA comes.
    let came = outcome(&proxy, &says(&["0"]), Some("abc")).await;
    assert!(matches!(came, Outcome::Reset), "{came:?}");
    let bodies: Vec<_> = app.received().into_iter().map(|received| received.body).collect();
    assert!(bodies == ["abc"] || bodies == ["abc", ""], "{bodies:?}");
}
