//! The invariants of everything that reads what a stranger sends, on generated input and on the
//! inputs that were once in doubt.

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::select;

use crate::invariants::codec;
use crate::invariants::connections;
use crate::invariants::cookies;
use crate::invariants::logins;
use crate::invariants::paths;

/// Feeds it what fuzzing or thinking once found.
fn replay(name: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut inputs = 0;
    for file in std::fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let input = std::fs::read(&path).unwrap();
        println!("{}", path.display());
        check(&input);
        inputs += 1;
    }
    assert!(inputs > 0);
}

#[test]
fn cookies_of_the_corpus_hold() {
    replay("cookies", cookies::check);
}

#[test]
fn logins_of_the_corpus_hold() {
    replay("logins", logins::check);
}

#[test]
fn paths_of_the_corpus_hold() {
    replay("paths", paths::check);
}

#[test]
fn requests_of_the_corpus_hold() {
    replay("requests", connections::check_requests);
}

#[test]
fn answers_of_the_corpus_hold() {
    replay("answers", connections::check_answers);
}

#[test]
fn codec_of_the_corpus_holds() {
    replay("codec", codec::check);
    replay("answers", codec::check);
}

/// Pieces in any order and number.
fn pieces(from: &'static [&'static str], most: usize) -> impl Strategy<Value = String> {
    proptest::collection::vec(select(from), 0..most).prop_map(|pieces| pieces.concat())
}

const COOKIE_PIECES: &[&str] = &[
    "a",
    "b=",
    "=",
    ";",
    "; ",
    " ",
    "\t",
    ",",
    "\"",
    "\n",
    "__Host-session",
    "__host-session",
    "JSESSIONID",
    "laravel_session",
    "laravel.session",
    "learned_token",
    "%5f",
    "[",
    "]",
    "$Version=1",
    "Path=/",
    "Max-Age=0",
    "Max-Age=9",
    "HttpOnly",
    "Secure",
    "SameSite=None",
    "Domain=app.test",
    "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
];
const PATH_PIECES: &[&str] = &[
    "/",
    "/",
    "admin",
    "secret",
    "static",
    "open",
    "login",
    "x",
    ".",
    "..",
    ";",
    ";jsessionid=1",
    "%",
    "%2e",
    "%2f",
    "%5c",
    "%3b",
    "%25",
    "%00",
    "%ff",
    "%61",
    "%73",
    "\\",
    "?",
    "*",
    "\n",
];
const NAME_PIECES: &[&str] =
    &["user", "USER", "name", "login", "_", ".", "%20", "+", "[", "]", "%5B", "%00", "u%73er", "do", "\u{17f}"];
const FORM_PIECES: &[&str] = &[
    "user",
    "user_name",
    "user.name",
    "User",
    "user[login]",
    "user[]",
    "do",
    "=",
    "=",
    "=a",
    "=b",
    "=login",
    "&",
    "&",
    ";",
    "+",
    "%00",
    "%5B",
    "x",
];
const PART_PIECES: &[&str] = &[
    "--b",
    "--b",
    "--",
    "\r\n",
    "\r\n",
    "\n",
    "\r\n\r\n",
    "Content-Disposition: form-data",
    "; name=\"user\"",
    "; name='user'",
    ";name=user",
    "; filename=x",
    "; filename*=x",
    ": ",
    " ",
    "\\",
    "a",
    "b",
    "X-Y: z",
];
const JSON_NAMES: &[&str] = &["user", "USER", "u\u{17f}er", "\\u0000", "\\u017f", "us", "er", ".", " "];
const JSON_PIECES: &[&str] =
    &["{", "}", "\"user\":", "\"User\":", "\"u\u{17f}er\":", "\"user\\u0000\":", "\"a\"", "\"b\"", ",", "[", "]", "1"];

const ANSWER_PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 Fine\r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "HTTP/1.1 599 \u{e9}\r\n",
    "HTTP/1.1 099 No\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 003, 3\r\n",
    "Content-Length: 10\r\n",
    "Content-Length: +3\r\n",
    "Content-Length: 9223372036854775808\r\n",
    "Transfer-Encoding: Chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: close\r\n",
    "X-Name: a\n",
    "X-Name : a\r\n",
    "X-Empty:\r\n",
    "X-B\u{e9}d: a\r\n",
    " b\r\n",
    "\tc\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "3\r\nabc\r\n",
    "3;x=\"y\"\r\nabc\r\n",
    "3 \t\r\nabc\r\n",
    "00000000000000003\r\nabc\r\n",
    "0\r\n\r\n",
    "0;\0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "0\r\nX: y\n\r\n\r\n",
    "0\r\nX y\r\n\r\n",
    "0\r\n",
    "fffffffffffffffff\r\n",
    ":",
    ";",
    "\0",
];

/// A part of a form that every reader understands, or nearly.
fn part() -> impl Strategy<Value = String> {
    (pieces(PART_PIECES, 6), select(&["a", "b", "a\n--b\nContent-Disposition: form-data; name=\"user\"\n\nb"][..]))
        .prop_map(|(odd, value)| {
            format!("--b\r\nContent-Disposition: form-data; name=\"user\"{odd}\r\n\r\n{value}\r\n")
        })
}

/// A form with one field that every reader finds, among others.
fn form() -> impl Strategy<Value = String> {
    let other = || (pieces(NAME_PIECES, 4), select(&["a", "b", "login", ""][..]), select(&["&", ";"][..]));
    let others = || proptest::collection::vec(other(), 0..3);
    let field = select(&["user", "user_name", "user[login]", "do"][..]);
    (others(), field, others(), pieces(FORM_PIECES, 4)).prop_map(|(before, field, after, tail)| {
        let written = |fields: Vec<(String, &str, &str)>| -> String {
            fields.into_iter().map(|(name, value, end)| format!("{name}={value}{end}")).collect()
        };
        format!("{}{field}=login&{}{tail}", written(before), written(after))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// S15, VR-38
    #[test]
    fn any_cookies_hold(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in pieces(COOKIE_PIECES, 24)) {
        cookies::check(&bytes);
        cookies::check(text.as_bytes());
    }

    /// S90, VR-12
    #[test]
    fn any_paths_hold(bytes in "/[ -~]{0,40}", text in pieces(PATH_PIECES, 12)) {
        paths::check(bytes.as_bytes());
        paths::check(format!("/{text}").as_bytes());
    }

    /// S98, S99, S100
    #[test]
    fn any_answers_hold(
        how in 0_u8..4,
        field in select(&["Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n", "X-Name: a\r\n", ""][..]),
        rest in pieces(ANSWER_PIECES, 9),
    ) {
        codec::check(&[&[how], rest.as_bytes()].concat());
        codec::check(&[&[how], format!("HTTP/1.1 200 OK\r\n{field}\r\n{rest}").as_bytes()].concat());
    }

    /// product 3.5
    #[test]
    fn any_forms_hold(query in pieces(FORM_PIECES, 4), body in form()) {
        logins::check(format!("application/x-www-form-urlencoded\n{query}\n{body}").as_bytes());
    }

    /// product 3.5
    #[test]
    fn any_multipart_holds(
        kind in select(&["boundary=b", "boundary=\"b\"", "xboundary=c; boundary=b", "boundary=b,c"][..]),
        parts in proptest::collection::vec(part(), 1..3),
        end in select(&["--b--", "--b--\r\n", "--b--\r\n--b\r\nContent-Disposition: form-data; name=\"user\"\r\n\r\nb\r\n--b--"][..]),
    ) {
        logins::check(format!("multipart/form-data; {kind}\n\n{}{end}", parts.concat()).as_bytes());
    }

    /// product 3.5
    #[test]
    fn any_json_holds(body in pieces(JSON_PIECES, 14), name in pieces(JSON_NAMES, 3)) {
        logins::check(format!("application/json\n\n{body}").as_bytes());
        logins::check(format!("application/json\n\n{{\"user\":\"a\",\"{name}\":\"b\"}}").as_bytes());
    }
}
