use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Method;
use http::Uri;
use http::header;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// What becomes of bytes after which the connection ends.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// There is no head.
    None,
    /// A head, a body that broke off.
    Cut(String, Vec<u8>),
    /// A head, a body, and what was left.
    Whole(String, Vec<u8>, Vec<u8>),
}

/// Feeds it these pieces, one after the other.
fn read(pieces: &[&[u8]], method: &Method, mends: bool) -> Outcome {
    let mut pieces = pieces.iter();
    let (mut buffer, mut headers) = (BytesMut::new(), HeaderMap::new());
    let mut heads = HeadReader::new(mends);
    let head = loop {
        match heads.read(&mut buffer, &mut headers) {
            Ok(Some(head)) => break head,
            Ok(None) => {}
            Err(_) => return Outcome::None,
        }
        let Some(piece) = pieces.next() else { return Outcome::None };
        buffer.extend_from_slice(piece);
    };
    let fields: Vec<_> = head.headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect();
    let text = format!("{:?} {} {:?}\n{}", head.version, head.status, head.reason, fields.join("\n"));
    let Ok(mut decoder) = Decoder::of(&head, method) else { return Outcome::None };
    let mut body = Vec::new();
    loop {
        match decoder.decode(&mut buffer) {
            Ok(Piece::Data(data)) => {
                assert!(!data.is_empty());
                body.extend_from_slice(&data);
            }
            Ok(Piece::End) => break,
            Ok(Piece::More) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None if decoder.close() => break,
                None => return Outcome::Cut(text, body),
            },
            Err(_) => return Outcome::Cut(text, body),
        }
    }
    assert!(decoder.is_end() && decoder.left() == Some(0));
    let rest = [&buffer[..], &pieces.copied().collect::<Vec<_>>().concat()].concat();
    Outcome::Whole(text, body, rest)
}

fn whole(bytes: &[u8]) -> Outcome {
    read(&[bytes], &Method::GET, false)
}

/// Why there is no head.
fn refusal(bytes: &[u8]) -> Option<Malformed> {
    let (mut buffer, mut headers) = (BytesMut::from(bytes), HeaderMap::new());
    match HeadReader::new(false).read(&mut buffer, &mut headers) {
        Ok(Some(head)) => Decoder::of(&head, &Method::GET).err(),
        Ok(None) => None,
        Err(malformed) => Some(malformed),
    }
}

#[test]
fn what_is_no_head() {
    for (lines, why) in [
        ("SSH-2.0-OpenSSH_9.2p1\r\n", Malformed::Version),
        ("HTTP/2.0 200 OK\r\n\r\n", Malformed::Version),
        ("HTTP/1.1 20 OK\r\n\r\n", Malformed::Status),
        ("HTTP/1.1 2000 OK\r\n\r\n", Malformed::Status),
        ("HTTP/1.1 099 No\r\n\r\n", Malformed::Status),
        ("HTTP/1.1 200 OK\r\nX-Name : a\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\nX-Name: a\r\n b\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\nX-Name\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\n: a\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\nX-Name: a\rb\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\nX-Name: a\0b\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\nX-N\u{e4}me: a\r\n\r\n", Malformed::Field),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2,\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775808\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Malformed::Coding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::Coding),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", Malformed::Coding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Malformed::Coding),
    ] {
        // S98
        assert_eq!(refusal(lines.as_bytes()), Some(why), "{lines}");
    }
}

#[test]
fn a_head_has_so_many_fields_and_bytes() {
    // S98
    let fields = |count| format!("HTTP/1.1 200 OK\r\n{}\r\n", "X-Name: a\r\n".repeat(count));
    assert_eq!(refusal(fields(FIELD_LIMIT).as_bytes()), None);
    assert_eq!(refusal(fields(FIELD_LIMIT + 1).as_bytes()), Some(Malformed::TooLarge));
    let filled = |bytes: usize, end| format!("HTTP/1.1 200 OK\r\nX: {}{end}", "x".repeat(bytes - 20 - 4));
    assert_eq!(refusal(filled(HEAD_LIMIT, "\r\n\r\n").as_bytes()), None);
    assert_eq!(refusal(filled(HEAD_LIMIT + 1, "\r\n\r\n").as_bytes()), Some(Malformed::TooLarge));
    assert_eq!(refusal(filled(HEAD_LIMIT + 4, "").as_bytes()), Some(Malformed::TooLarge));
}

#[test]
fn folds_and_spaces_are_mended_where_they_may_be() {
    let bytes = b"HTTP/1.1 200 OK\r\nX-Name : a \r\n\t b\r\n c\r\nContent-Length: 0\r\n\r\n";
    let Outcome::Whole(head, ..) = read(&[bytes], &Method::GET, true) else { panic!("no head") };
    assert!(head.contains("x-name: \"a b c\"\ncontent-length: \"0\""), "{head}");
}

#[test]
fn the_length_of_an_answer() {
    let text = "HTTP/1.1 200 OK\r\n";
    for (method, status, fields, body, rest) in [
        ("GET", "200", "Content-Length: 3\r\n", "abc", "de"),
        ("GET", "200", "Content-Length: 3, 3\r\nContent-Length: 003\r\n", "abc", "de"),
        ("GET", "200", "Content-Length: 0\r\n", "", "abcde"),
        ("GET", "200", "", "abcde", ""),
        ("HEAD", "200", "Content-Length: 3\r\n", "", "abcde"),
        ("HEAD", "200", "Transfer-Encoding: chunked\r\n", "", "abcde"),
        ("GET", "204", "Content-Length: 3\r\n", "", "abcde"),
        ("GET", "304", "Content-Length: 3\r\n", "", "abcde"),
        ("GET", "304", "Transfer-Encoding: chunked\r\n", "", "abcde"),
        ("GET", "101", "Content-Length: 3\r\n", "", "abcde"),
    ] {
        // S100
        let bytes = format!("{}{fields}\r\nabcde", text.replace("200", status));
        let outcome = read(&[bytes.as_bytes()], &method.parse().unwrap(), false);
        let Outcome::Whole(_, found, left) = outcome else { panic!("{bytes}: {outcome:?}") };
        assert_eq!((found, left), (body.into(), rest.into()), "{method} {bytes}");
    }
}

#[test]
fn informational_answers_are_left_out() {
    // S95
    let bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 201 Created\r\nX: y\r\nContent-Length: 0\r\n\r\n";
    let Outcome::Whole(head, body, rest) = whole(bytes) else { panic!("no head") };
    assert_eq!(head, "HTTP/1.1 201 Created None\nx: \"y\"\ncontent-length: \"0\"");
    assert!(body.is_empty() && rest.is_empty());
}

#[test]
fn chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (chunks, body, rest) in [
        ("3\r\nabc\r\n0\r\n\r\n", "abc", ""),
        ("3\r\nabc\r\n0\r\n\r\nmore", "abc", "more"),
        ("0000000000000003\r\nabc\r\n00\r\n\r\n", "abc", ""),
        ("3 \t;a=\"b\u{e9}\"; c\r\nabc\r\n0;x\r\n\r\n", "abc", ""),
        ("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a", ""),
        ("0\r\nX-Trailer: a\r\nSet-Cookie: a=b\r\n\r\nmore", "", "more"),
    ] {
        let outcome = whole(format!("{head}{chunks}").as_bytes());
        let Outcome::Whole(_, found, left) = outcome else { panic!("{chunks}: {outcome:?}") };
        assert_eq!((found, left), (body.into(), rest.into()), "{chunks}");
    }
    for chunks in [
        "",
        "3",
        "3\r\nab",
        "3\r\nabc",
        "3\r\nabc\r\n",
        "3\r\nabc\r\n0\r\n",
        "3\nabc\n0\n\n",
        "3\rabc",
        "3\r\nabcd\r\n0\r\n\r\n",
        "3\r\nabc\n0\r\n\r\n",
        "\r\n\r\n",
        " 3\r\nabc\r\n0\r\n\r\n",
        "-3\r\nabc",
        "+3\r\nabc",
        "0x3\r\nabc",
        "3 3\r\nabc\r\n0\r\n\r\n",
        "3;a\nabc\r\n0\r\n\r\n",
        "3;a\rb\r\nabc\r\n0\r\n\r\n",
        "3;a\0\r\nabc\r\n0\r\n\r\n",
        "00000000000000003\r\nabc\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        "0\r\n\n",
        "0\r\nX\r\n\r\n",
        "0\r\nX : a\r\n\r\n",
        "0\r\nX: a\n\r\n\r\n",
        "0\r\nX: a\r\n b\r\n\r\n",
        "0\r\n\rX: a\r\n\r\n",
        "0\r\nX: a\r\n\n\r\n\r\n",
    ] {
        // S98, S99
        let outcome = whole(format!("{head}{chunks}").as_bytes());
        assert!(matches!(outcome, Outcome::Cut(..)), "{chunks:?}: {outcome:?}");
    }
}

#[test]
fn what_nobody_needs_of_chunks_is_bounded() {
    // S84
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extended = |bytes| format!("{head}1;{}\r\na\r\n0;{}\r\n\r\n", "x".repeat(8000), "x".repeat(bytes));
    assert!(matches!(whole(extended(8000).as_bytes()), Outcome::Whole(..)));
    assert!(matches!(whole(extended(9000).as_bytes()), Outcome::Cut(..)));
    let trailed = |bytes| format!("{head}0\r\nX: {}\r\n\r\n", "x".repeat(bytes));
    assert!(matches!(whole(trailed(16_000).as_bytes()), Outcome::Whole(..)));
    assert!(matches!(whole(trailed(17_000).as_bytes()), Outcome::Cut(..)));
    let many = |count| format!("{head}0\r\n{}\r\n", "X: x\r\n".repeat(count));
    assert!(matches!(whole(many(FIELD_LIMIT).as_bytes()), Outcome::Whole(..)));
    assert!(matches!(whole(many(FIELD_LIMIT + 1).as_bytes()), Outcome::Cut(..)));
}

#[test]
fn sizes_of_chunks_are_padded_as_often_as_a_server_likes() {
    // Apache 1.3 pads each, and others since.
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let padded = [&head[..], &b"1 \t \r\nx\r\n".repeat(EXTRA_LIMIT), b"0  \r\n\r\n"].concat();
    assert!(matches!(whole(&padded), Outcome::Whole(_, body, _) if body.len() == EXTRA_LIMIT));
    let too_long = [&head[..], b"1", &b" ".repeat(EXTRA_LIMIT + 1), b"\r\nx\r\n0\r\n\r\n"].concat();
    assert!(matches!(whole(&too_long), Outcome::Cut(..)));
}

#[test]
fn which_connections_stay_open() {
    for (lines, keeps_open) in [
        ("HTTP/1.1 200 OK\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: x-close\r\n", true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\n", false),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nConnection: x,\tClose\r\n", false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n", false),
        ("HTTP/1.1 101 Switching Protocols\r\n", false),
    ] {
        let (mut buffer, mut headers) = (BytesMut::from(&format!("{lines}\r\n")[..]), HeaderMap::new());
        let head = HeadReader::new(false).read(&mut buffer, &mut headers).unwrap().unwrap();
        assert_eq!(head.keeps_open(), keeps_open, "{lines}");
    }
}

#[test]
fn heads_of_requests() {
    let mut headers = HeaderMap::new();
    headers.append(header::HOST, HeaderValue::from_static("app.test"));
    headers.append(header::CONTENT_LENGTH, HeaderValue::from_static("007"));
    headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static("gzip"));
    headers.append("x-name", HeaderValue::from_static("a"));
    headers.append("x-name", HeaderValue::from_bytes(b"\xe9").unwrap());
    for (target, written, framing, framed) in [
        ("/a%2fb?c=d&e", "/a%2fb?c=d&e", Framing::Absent, ""),
        ("/?", "/?", Framing::Length(7), "content-length: 7\r\n"),
        ("*", "*", Framing::Chunked, "transfer-encoding: chunked\r\n"),
    ] {
        let mut lines = Vec::new();
        write_head(&mut lines, &Method::POST, &target.parse().unwrap(), &headers, b"x-further: b\r\n", framing);
        let fields = "host: app.test\r\nx-name: a\r\nx-name: \u{e9}\r\nx-further: b\r\n";
        let expected = format!("POST {written} HTTP/1.1\r\n{fields}{framed}\r\n");
        assert_eq!(lines.iter().map(|byte| char::from(*byte)).collect::<String>(), expected);
    }
}

const PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 10\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "X-Name: a\r\n",
    "X-Name: a\n",
    " b\r\n",
    "\r\n",
    "\n",
    "\r",
    "abc",
    "3\r\nabc\r\n",
    "3;x\r\nabc\r\n",
    "0\r\n\r\n",
    "0\r\nX: y\r\n\r\n",
    "0",
    ":",
    ";",
    "\0",
];

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let rest = proptest::collection::vec(select(PIECES), 0..9).prop_map(|pieces| pieces.concat().into_bytes());
    let framed = (select(&["Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"]), rest.clone());
    let likely = framed.prop_map(|(field, rest)| [b"HTTP/1.1 200 OK\r\n", field.as_bytes(), b"\r\n", &rest].concat());
    prop_oneof![rest, likely]
}

proptest! {
    /// Where it is cut makes no difference.
    #[test]
    fn bytes_mean_the_same_however_they_come(bytes in answers(), mends in any::<bool>()) {
        for method in [Method::GET, Method::HEAD] {
            let together = read(&[&bytes], &method, mends);
            for at in 0..=bytes.len() {
                let (first, second) = bytes.split_at(at);
                prop_assert_eq!(&read(&[first, second], &method, mends), &together, "cut at {}", at);
            }
            let one_by_one: Vec<_> = bytes.chunks(1).collect();
            prop_assert_eq!(&read(&one_by_one, &method, mends), &together);
        }
    }

    /// A request has one head, whatever is in it.
    #[test]
    fn nothing_gets_into_a_request(
        name in "[a-zA-Z0-9!#$%&'*+.^_`|~-]{1,8}",
        value in proptest::collection::vec(any::<u8>(), 0..12),
        target in "/[ -~]{0,12}",
    ) {
        let (Ok(value), Ok(uri)) = (HeaderValue::from_bytes(&value), target.parse::<Uri>()) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        headers.append(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
        let mut lines = Vec::new();
        write_head(&mut lines, &Method::GET, &uri, &headers, b"", Framing::Absent);
        let ends = lines.windows(2).filter(|window| window == b"\r\n").count();
        let is_bare = |byte: &&u8| matches!(byte, b'\r' | b'\n' | 0);
        prop_assert!(lines.ends_with(b"\r\n\r\n"));
        let framing = headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING);
        prop_assert_eq!(ends, if framing { 2 } else { 3 });
        prop_assert_eq!(lines.iter().filter(is_bare).count(), 2 * ends);
        prop_assert_eq!(lines.split(|byte| *byte == b'\r').next().unwrap().iter().filter(|byte| **byte == b' ').count(), 2);
    }
}
