//! The application's answers as our own client reads them: the same however they are cut, and the same as hyper
//! reads them, or stricter where `docs/http.md` says so.

use bytes::BytesMut;
use http::HeaderMap;
use http::Method;
use http::Request;
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use vestibule::http1::Decoder;
use vestibule::http1::HeadReader;
use vestibule::http1::Malformed;
use vestibule::http1::Piece;

/// What an answer was taken for.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Answered { status: u16, headers: HeaderMap, body: Vec<u8>, is_whole: bool },
}

/// An application's answer, after a byte that says what was asked, and whether odd lines are mended (S98 to S100).
pub fn check(data: &[u8]) {
    let Some((&how, bytes)) = data.split_first() else { return };
    let method = if how & 1 == 0 { Method::GET } else { Method::HEAD };
    let mends = how & 2 != 0;
    let (ours, why) = read(&[bytes], &method, mends);
    for at in 0..=bytes.len() {
        let (first, second) = bytes.split_at(at);
        assert_eq!(read(&[first, second], &method, mends).0, ours, "cut at {at}");
    }
    let one_by_one: Vec<_> = bytes.chunks(1).collect();
    assert_eq!(read(&one_by_one, &method, mends).0, ours, "byte by byte");
    let theirs = of_hyper(bytes, &method, mends);
    if ours == theirs {
        return;
    }
    let is_stricter = match (&ours, &theirs) {
        (Outcome::Refused, _) => why == Some(Malformed::Length) || why == Some(Malformed::Coding),
        (Outcome::Answered { body, is_whole, .. }, Outcome::Answered { body: all, .. }) => {
            let is_known = matches!(why, Some(Malformed::Chunk | Malformed::Trailers));
            all.starts_with(body) && !is_whole && is_known
        }
        (Outcome::Answered { .. }, Outcome::Refused) => false,
    };
    assert!(is_stricter, "{ours:?} for {why:?} instead of {theirs:?}");
}

/// What these pieces are taken for if the connection ends after them, and what is wrong with them.
fn read(pieces: &[&[u8]], method: &Method, mends: bool) -> (Outcome, Option<Malformed>) {
    let mut pieces = pieces.iter();
    let (mut buffer, mut headers) = (BytesMut::new(), HeaderMap::new());
    let mut heads = HeadReader::new(mends);
    let head = loop {
        match heads.read(&mut buffer, &mut headers) {
            Ok(Some(head)) => break head,
            Ok(None) => {}
            Err(why) => return (Outcome::Refused, Some(why)),
        }
        let Some(piece) = pieces.next() else { return (Outcome::Refused, None) };
        buffer.extend_from_slice(piece);
    };
    if is_coded(&head.headers) {
        return (Outcome::Refused, Some(Malformed::Coding));
    }
    let mut decoder = match Decoder::of(&head, method) {
        Ok(decoder) => decoder,
        Err(why) => return (Outcome::Refused, Some(why)),
    };
    let mut body = Vec::new();
    let (is_whole, why) = loop {
        match decoder.decode(&mut buffer) {
            Ok(Piece::Data(data)) => body.extend_from_slice(&data),
            Ok(Piece::End) => break (true, None),
            Ok(Piece::More) => match pieces.next() {
                Some(piece) => buffer.extend_from_slice(piece),
                None => break (decoder.close(), None),
            },
            Err(why) => break (false, Some(why)),
        }
    };
    (Outcome::Answered { status: head.status.as_u16(), headers: head.headers, body, is_whole }, why)
}

/// As the proxy judges what the one client or the other has understood.
fn is_coded(headers: &HeaderMap) -> bool {
    !vestibule::policy::message::is_chunked_or_plain(headers)
}

/// What hyper's client takes them for.
fn of_hyper(bytes: &[u8], method: &Method, mends: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (ours, mut application) = tokio::io::duplex(64 * 1024);
        let bytes = bytes.to_vec();
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(application.read_u8().await.unwrap());
            }
            // It may have given up before it has read all.
            let _ = application.write_all(&bytes).await;
        });
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(256 * 1024)
            .max_headers(200)
            .allow_obsolete_multiline_headers_in_responses(mends)
            .allow_spaces_after_header_name_in_responses(mends)
            .handshake(TokioIo::new(ours))
            .await
            .unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri("/").body(Empty::<bytes::Bytes>::new()).unwrap();
        let Ok(answer) = sender.send_request(request).await else { return Outcome::Refused };
        let (head, mut incoming) = answer.into_parts();
        if is_coded(&head.headers) {
            return Outcome::Refused;
        }
        let (mut body, mut is_whole) = (Vec::new(), true);
        while let Some(frame) = incoming.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) => body.extend_from_slice(&data),
                Ok(Err(_)) => {}
                Err(_) => is_whole = false,
            }
        }
        Outcome::Answered { status: head.status.as_u16(), headers: head.headers, body, is_whole }
    })
}
