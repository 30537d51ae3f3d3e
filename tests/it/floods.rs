//! HTTP/2 clients that do too much of something (S113-S115): the connection ends, memory stays flat,
//! others are served.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::channel::Channel;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::eventually;
use crate::support::file;
use crate::support::frames::CONTINUATION;
use crate::support::frames::DATA;
use crate::support::frames::END_HEADERS;
use crate::support::frames::END_STREAM;
use crate::support::frames::Frame;
use crate::support::frames::HEADERS;
use crate::support::frames::PING;
use crate::support::frames::PRIORITY;
use crate::support::frames::RST_STREAM;
use crate::support::frames::Raw;
use crate::support::frames::SETTINGS;
use crate::support::frames::WINDOW_UPDATE;
use crate::support::frames::field;
use crate::support::frames::request;
use crate::support::program::Program;

/// More than any limit, and too few to take long.
const MANY: usize = 400_000;
/// What the program may grow by under a flood, in KiB.
const GROWTH: u64 = 16 * 1024;
/// SETTINGS_INITIAL_WINDOW_SIZE
const WINDOW: u16 = 4;
/// What h2 says of a client that it has told to calm down.
const CALM: &str = "connection error detected: detected excessive load generating behavior";
/// `:status: 431` as h2 writes it.
const REFUSED: [u8; 5] = [0x48, 0x83, 0x69, 0x90, 0xff];
/// CANCEL
const CANCEL: [u8; 4] = [0, 0, 0, 8];

/// An application whose `/public/endless` goes on as long as somebody takes it.
async fn start() -> (Upstream, Program) {
    let app = Upstream::start(|request| match request.path() {
        "/public/endless" => {
            let (mut sender, body) = Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move { while sender.send_data(Bytes::from_static(&[b'x'; 65_536])).await.is_ok() {} });
            Reply::status(200).stream(body)
        }
        "/public/events" => {
            let (sender, body) = Channel::<Bytes, std::io::Error>::new(1);
            tokio::spawn(async move {
                std::future::pending::<()>().await;
                drop(sender)
            });
            Reply::status(200).header("content-type", "text/event-stream").stream(body)
        }
        "/public/large" => Reply::text(&"x".repeat(200_000)),
        // Small enough to be read at once, and too large not to be watched.
        "/public/page" => Reply::text(&"x".repeat(17_000)),
        _ => Reply::text("private"),
    })
    .await;
    let text = format!("{}\n[timeouts]\nbody_idle = \"2s\"\n", file(&app.url(), SITE));
    let program = Program::start(&text).await;
    assert_eq!(program.browser().over_http2().fetch("/public/x").await.status, 200, "everything was used once");
    (app, program)
}

/// Why the last connection that flooded was cut.
async fn cause(program: &Program) -> String {
    let flooded = program.event("connection.flooded").await;
    assert_eq!((flooded["level"].as_str(), flooded["client"].as_str()), (Some("warn"), Some("127.0.0.1")));
    flooded["error"].as_str().unwrap().to_owned()
}

async fn assert_unharmed(program: &Program, before: u64) {
    assert_eq!(program.browser().over_http2().fetch("/public/x").await.status, 200);
    let after = program.peak_memory();
    assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
}

fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

#[tokio::test]
async fn frames_that_ask_for_nothing_end_the_connection() {
    // S113: h2 itself takes as many as there are.
    let (_app, program) = start().await;
    let before = program.peak_memory();
    for (count, frame) in [
        Frame::new(PING, 0, 0, [0; 8]),
        Frame::new(SETTINGS, 0, 0, []),
        Frame::new(SETTINGS, 0, 0, [0, 1, 0, 0, 16, 0].repeat(40)),
        Frame::new(PRIORITY, 0, 1, [0, 0, 0, 0, 7]),
        Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]),
        Frame::new(0xfa, 0, 0, *b"unknown"),
    ]
    .into_iter()
    .enumerate()
    {
        let kind = frame.kind;
        let sent = Raw::connect(program.https, &[]).await.flood(std::iter::repeat_n(frame, MANY)).await;

        assert!(sent >= 10_000, "{kind}: {sent}");
        eventually("it is in the log", || program.events("connection.flooded").len() > count).await;
        assert_eq!(cause(&program).await, "more than 10000 frames that ask for nothing within ten seconds");
        assert_unharmed(&program, before).await;
    }
}

#[tokio::test]
async fn frames_that_carry_too_little_end_the_connection() {
    // S113: bounded by h2.
    let (_app, program) = start().await;
    let before = program.peak_memory();
    for (count, data) in [&b""[..], b"x"].into_iter().enumerate() {
        let mut raw = Raw::connect(program.https, &[]).await;
        raw.send(&Frame::request(1, "POST", "/public/x")).await.unwrap();
        raw.flood(std::iter::repeat_n(Frame::new(DATA, 0, 1, data), MANY)).await;

        eventually("it is in the log", || program.events("connection.flooded").len() > count).await;
        assert_eq!(cause(&program).await, CALM);
        assert_unharmed(&program, before).await;
    }
}

#[tokio::test]
async fn a_head_in_endless_pieces_ends_the_connection() {
    // S113: CONTINUATION, bounded by h2.
    let (app, program) = start().await;
    let (before, asked) = (program.peak_memory(), app.received().len());
    for (count, piece) in
        [Vec::new(), field("x", "y"), field("x", &"y".repeat(120)).repeat(100)].into_iter().enumerate()
    {
        let head = Frame::new(HEADERS, END_STREAM, 1, request("GET", "/public/x"));
        let pieces = std::iter::repeat_n(Frame::new(CONTINUATION, 0, 1, piece), MANY);
        Raw::connect(program.https, &[]).await.flood(std::iter::once(head).chain(pieces)).await;

        eventually("it is in the log", || program.events("connection.flooded").len() > count).await;
        assert_eq!(cause(&program).await, CALM);
    }
    assert_eq!(app.received().len(), asked);
    assert_unharmed(&program, before).await;
}

#[tokio::test]
async fn a_small_head_that_unfolds_is_refused() {
    // S113, S114: HPACK refers to what was said before.
    let (app, program) = start().await;
    let (before, asked) = (program.peak_memory(), app.received().len());
    let mut raw = Raw::connect(program.https, &[]).await;
    // Remembered in full (RFC 7541 6.2.1, 5.1), then named 12,000 times in a byte each.
    let remembered = [&[0x40, 1, b'x', 0x7f, 0xa1, 0x1e][..], &[b'y'; 4000]].concat();
    let bomb = [request("GET", "/public/x"), remembered.clone(), vec![0xbe; 12_000]].concat();
    let fair = [request("GET", "/public/x"), remembered, vec![0xbe; 12]].concat();

    raw.send(&Frame::new(HEADERS, END_STREAM | END_HEADERS, 1, fair)).await.unwrap();
    let answer = raw.next(HEADERS, 1).await.unwrap();
    assert!(answer.payload.starts_with(&REFUSED), "{answer:?}");
    let bombs = streams().skip(1).map(|stream| Frame::new(HEADERS, END_STREAM | END_HEADERS, stream, bomb.clone()));
    raw.flood(bombs.take(1000)).await;

    assert_eq!(cause(&program).await, CALM);
    assert_eq!(app.received().len(), asked);
    assert_unharmed(&program, before).await;
}

#[tokio::test]
async fn a_client_that_cancels_all_it_asks_for_is_cut() {
    // S113, CVE-2023-44487: in one go, and request by request as each is answered.
    let (app, program) = start().await;
    let before = program.peak_memory();
    let reset = |stream| Frame::new(RST_STREAM, 0, stream, CANCEL);
    let pairs = streams().flat_map(|stream| [Frame::request(stream, "GET", "/public/x"), reset(stream)]);
    Raw::connect(program.https, &[]).await.flood(pairs.take(MANY)).await;
    assert_eq!(cause(&program).await, CALM);

    let mut raw = Raw::connect(program.https, &[]).await;
    let mut cancelled = 0;
    for stream in streams().take(1000) {
        let asked = raw.send(&Frame::request(stream, "GET", "/public/endless")).await;
        if asked.is_err() || raw.next(HEADERS, stream).await.is_none() || raw.send(&reset(stream)).await.is_err() {
            break;
        }
        cancelled += 1;
    }

    assert!((200..=202).contains(&cancelled), "{cancelled}");
    eventually("it is in the log", || program.events("connection.flooded").len() == 2).await;
    assert_eq!(cause(&program).await, "more than 200 requests cancelled within ten seconds");
    eventually("the application is left alone", || app.open_connections() <= 2).await;
    assert_unharmed(&program, before).await;
}

#[tokio::test]
async fn a_client_that_makes_us_cancel_what_it_asks_for_is_cut() {
    // S113, CVE-2025-8671: errors of a stream, or of the whole connection.
    let (app, program) = start().await;
    let before = program.peak_memory();
    let mut floods = 0;
    for (is_of_stream, provoke) in [
        (true, (|stream| Frame::new(WINDOW_UPDATE, 0, stream, [0x7f, 0xff, 0xff, 0xff])) as fn(u32) -> Frame),
        (true, |stream| Frame::new(PRIORITY, 0, stream, [&stream.to_be_bytes()[..], &[7]].concat())),
        (false, |stream| Frame::new(WINDOW_UPDATE, 0, stream, [0; 4])),
        (false, |stream| Frame::new(DATA, 0, stream, *b"more")),
    ] {
        let pairs = streams().flat_map(|stream| [Frame::request(stream, "GET", "/public/endless"), provoke(stream)]);
        Raw::connect(program.https, &[]).await.flood(pairs.take(20_000)).await;

        floods += usize::from(is_of_stream);
        eventually("it is in the log", || program.events("connection.flooded").len() >= floods).await;
    }
    assert_eq!(cause(&program).await, CALM);
    eventually("the application is left alone", || app.open_connections() <= 2).await;
    assert_unharmed(&program, before).await;
}

#[tokio::test]
async fn a_connection_has_as_many_streams_as_it_was_told() {
    // S114
    let (app, program) = start().await;
    let already = app.received().len();
    let mut raw = Raw::connect(program.https, &[]).await;
    let said = raw.next(SETTINGS, 0).await.unwrap().payload;
    let said: Vec<_> =
        said.chunks(6).map(|entry| (entry[1], u32::from_be_bytes(entry[2..].try_into().unwrap()))).collect();
    // SETTINGS_MAX_CONCURRENT_STREAMS; SETTINGS_MAX_HEADER_LIST_SIZE: head, target, 32 bytes a field.
    for expected in [(3, 100), (6, 32 * 1024 + 8 * 1024 + 100 * 32)] {
        assert!(said.contains(&expected), "{said:?}");
    }

    for stream in streams().take(101) {
        raw.send(&Frame::request(stream, "GET", "/public/endless")).await.unwrap();
    }
    let refused = raw.next(RST_STREAM, 201).await.unwrap();

    assert_eq!(refused.payload, [0, 0, 0, 7], "REFUSED_STREAM");
    eventually("the others are asked for", || app.received().len() == already + 100).await;
}

#[tokio::test]
async fn a_client_without_a_window_holds_little_and_not_for_long() {
    // S115: a hundred large files, none of them taken.
    let (app, program) = start().await;
    let before = program.peak_memory();
    let mut raw = Raw::connect(program.https, &[(WINDOW, 0)]).await;
    for stream in streams().take(100) {
        raw.send(&Frame::request(stream, "GET", "/public/endless")).await.unwrap();
    }
    eventually("all are asked for", || app.received().len() > 100).await;
    assert_eq!(program.browser().over_http2().fetch("/public/x").await.status, 200);

    let ended = async { while raw.receive().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it is waited for");

    eventually("the application is left alone", || app.open_connections() <= 2).await;
    assert_unharmed(&program, before).await;
}

#[tokio::test]
async fn nor_does_one_with_something_else_under_way_or_hardly_a_window() {
    // S115: answers that came at once are not the application's any more, and events may be far apart.
    let (app, program) = start().await;
    let before = program.peak_memory();
    for (path, window) in [("/public/large", 0), ("/public/large", 1), ("/public/page", 0), ("/public/page", 1)] {
        let mut raw = Raw::connect(program.https, &[(WINDOW, window)]).await;
        let (seen, given_up) = (app.received().len(), program.events("client.stalled").len());
        for (number, stream) in streams().take(50).enumerate() {
            let path = if number == 0 { "/public/events" } else { path };
            raw.send(&Frame::request(stream, "GET", path)).await.unwrap();
        }
        eventually("all are asked for", || app.received().len() == seen + 50).await;

        if path == "/public/large" {
            // Each by itself: the events go on.
            eventually("they are given up", || program.events("client.stalled").len() >= given_up + 49).await;
            for stream in [0, 5] {
                raw.send(&Frame::new(WINDOW_UPDATE, 0, stream, 200_000_u32.to_be_bytes())).await.unwrap();
            }
            assert!(raw.next(RST_STREAM, 5).await.is_some(), "{window}");
        } else {
            let ended = async { while raw.receive().await.is_some() {} };
            tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it is waited for");
        }
    }
    assert_unharmed(&program, before).await;
}
