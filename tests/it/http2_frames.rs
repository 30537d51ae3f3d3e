//! An application that speaks HTTP/2 frame by frame, as no library would.

use std::time::Duration;

use http_body_util::BodyExt;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::Browser;
use crate::support::SITE;
use crate::support::Vestibule;
use crate::support::Wire;
use crate::support::empty;
use crate::support::navigation;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
/// `:status: 200`, indexed.
const OK: &[u8] = &[0x88];

async fn write(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let mut frame = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(id.to_be_bytes());
    frame.extend(payload);
    stream.write_all(&frame).await.unwrap();
}

/// The next frame's kind and stream; settings are acknowledged.
async fn read(stream: &mut TcpStream) -> Option<(u8, u32)> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await.ok()?;
        match (head[3], head[4]) {
            (SETTINGS, ACK) => {}
            (SETTINGS, _) => write(stream, SETTINGS, ACK, 0, &[]).await,
            (kind, _) => return Some((kind, u32::from_be_bytes([head[5], head[6], head[7], head[8]]))),
        }
    }
}

async fn greet(stream: &mut TcpStream) {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.unwrap();
    write(stream, SETTINGS, 0, 0, &[]).await;
}

async fn status(browser: &Browser, path: &str) -> u16 {
    browser.clone().send(empty(navigation("GET", path))).await.status.as_u16()
}

/// Asks, and leaves when the answer has begun.
async fn leave(mut browser: Browser) {
    let mut response = browser.open(empty(navigation("GET", "/public/x"))).await;
    assert!(response.body_mut().frame().await.unwrap().is_ok());
}

#[tokio::test]
async fn what_still_comes_for_those_who_have_left_does_not_cost_the_others_their_connection() {
    // S177: an application may be slow to notice that nobody reads on.
    const LEFT: usize = 1100;
    let wire = Wire::start(|_, mut stream: TcpStream| async move {
        greet(&mut stream).await;
        let mut left = Vec::new();
        while let Some((kind, id)) = read(&mut stream).await {
            match kind {
                HEADERS if left.len() < LEFT => {
                    write(&mut stream, HEADERS, END_HEADERS, id, OK).await;
                    write(&mut stream, DATA, 0, id, b"part").await;
                }
                HEADERS => write(&mut stream, HEADERS, END_HEADERS | END_STREAM, id, OK).await,
                RST_STREAM => left.push(id),
                _ => {}
            }
            if (kind, left.len()) == (RST_STREAM, LEFT) {
                for id in &left {
                    write(&mut stream, DATA, 0, *id, b"late").await;
                }
            }
        }
    })
    .await;
    let (_proxy, browser) = Vestibule::at(&wire.url(), &format!("upstream_protocol = \"h2\"\n{SITE}")).await;
    for _ in 0..LEFT / 50 {
        let leaving: Vec<_> = (0..50).map(|_| tokio::spawn(leave(browser.clone()))).collect();
        for leaving in leaving {
            leaving.await.unwrap();
        }
    }

    for _ in 0..3 {
        assert_eq!(status(&browser, "/public/other").await, 200);
        assert_eq!(wire.connections(), 1);
    }
}

#[tokio::test]
async fn an_application_that_breaks_the_rules_of_http_2_is_a_bad_gateway() {
    // S98
    for (kind, flags, id, payload) in [
        // No status; a status that is none; an upper-case name; a field of HTTP/1.1; a frame of nobody's; pushing.
        (HEADERS, END_HEADERS | END_STREAM, None, &[0x40, 1, b'a', 1, b'b'][..]),
        (HEADERS, END_HEADERS | END_STREAM, None, &[0x48, 1, b'x']),
        (HEADERS, END_HEADERS | END_STREAM, None, &[0x88, 0x40, 1, b'A', 1, b'b']),
        (HEADERS, END_HEADERS | END_STREAM, None, b"\x88\x40\x0aconnection\x05close"),
        (DATA, 0, None, b"no head"),
        (DATA, 0, Some(2), b"no such stream"),
        (5, END_HEADERS, None, b"\0\0\0\x02\x82\x86\x84\x41\x01a"),
        (HEADERS, END_HEADERS, None, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
    ] {
        let wire = Wire::start(move |_, mut stream: TcpStream| async move {
            greet(&mut stream).await;
            while let Some((kind_of, stream_of)) = read(&mut stream).await {
                if kind_of == HEADERS {
                    write(&mut stream, kind, flags, id.unwrap_or(stream_of), payload).await;
                }
            }
        })
        .await;
        let (_proxy, browser) = Vestibule::at(&wire.url(), &format!("upstream_protocol = \"h2\"\n{SITE}")).await;
        let answer = tokio::time::timeout(Duration::from_secs(10), status(&browser, "/public/x")).await;
        assert_eq!(answer, Ok(502), "{kind} {payload:?}");
    }
}
