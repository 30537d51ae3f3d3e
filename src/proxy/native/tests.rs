//! The connection, fed by a script; and hyper's client fed the same, as the oracle.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::Mutex;

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use proptest::sample::select;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::task::coop;

use super::*;

/// The application's end of a connection.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What it says, read by read, once it has been written to.
    says: VecDeque<Vec<u8>>,
    /// Whether it stays when it has said everything.
    stays: bool,
    written: Vec<u8>,
    /// What it takes before it is not written to any more; `None`: everything.
    takes: Option<usize>,
    wakers: Vec<Waker>,
    is_dropped: bool,
}

/// Our end.
struct Wired(Script);

impl Script {
    fn saying(pieces: &[&[u8]]) -> Self {
        let script = Self::default();
        script.state(|state| state.says = pieces.iter().map(|piece| piece.to_vec()).collect());
        script
    }

    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.0.lock().unwrap();
        state.wakers.drain(..).for_each(Waker::wake);
        with(&mut state)
    }

    fn written(&self) -> String {
        self.state(|state| String::from_utf8(state.written.clone()).unwrap())
    }

    fn connect(&self) -> Box<Connection<Wired>> {
        Connection::new(Wired(self.clone()), false)
    }
}

impl Drop for Wired {
    fn drop(&mut self) {
        self.0.state(|state| state.is_dropped = true);
    }
}

impl AsyncRead for Wired {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.0.lock().unwrap();
        let next = if state.written.is_empty() { None } else { state.says.pop_front() };
        match next {
            Some(mut piece) => {
                let rest = piece.split_off(piece.len().min(buffer.remaining()));
                if !rest.is_empty() {
                    state.says.push_front(rest);
                }
                buffer.put_slice(&piece);
                Poll::Ready(Ok(()))
            }
            None if state.written.is_empty() || state.stays => {
                state.wakers.push(context.waker().clone());
                Poll::Pending
            }
            None => Poll::Ready(Ok(())),
        }
    }
}

impl AsyncWrite for Wired {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.0.lock().unwrap();
        let room = state.takes.map_or(usize::MAX, |takes| takes.saturating_sub(state.written.len()));
        let data = &data[..data.len().min(room)];
        if data.is_empty() {
            state.wakers.push(context.waker().clone());
            return Poll::Pending;
        }
        state.written.extend_from_slice(data);
        state.wakers.drain(..).for_each(Waker::wake);
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn request(method: &Method, body: Body) -> Box<Request<Body>> {
    Box::new(Request::builder().method(method).uri("/x").header("host", "app.test").body(body).unwrap())
}

fn get() -> Box<Request<Body>> {
    request(&Method::GET, Body::empty())
}

async fn read(answer: &mut Answer<Wired>) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        match poll_fn(|context| answer.poll(context)).await {
            Some(Ok(frame)) => body.extend_from_slice(frame.data_ref().unwrap()),
            Some(Err(_)) => return (body, false),
            None => return (body, true),
        }
    }
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_body_that_is_here_is_taken_whole() {
    let with = |length: &str, body: &str| format!("HTTP/1.1 200 OK\r\n{length}\r\n\r\n{body}").into_bytes();
    for (pieces, whole, is_free) in [
        (vec![OK.to_vec()], Some("ok"), true),
        (vec![with("Content-Length: 2", "ok and more")], Some("ok"), false),
        (vec![with("Connection: close\r\nContent-Length: 2", "ok")], Some("ok"), false),
        (vec![with("Content-Length: 2", "o"), b"k".to_vec()], None, false),
        (vec![with("Content-Length: 2", ""), b"ok".to_vec()], None, false),
        (vec![with("Content-Length: 0", "")], None, true),
        (vec![with("Transfer-Encoding: chunked", "2\r\nok\r\n0\r\n\r\n")], None, false),
        (vec![with("X: y", "ok")], None, false),
    ] {
        let script = Script::saying(&pieces.iter().map(Vec::as_slice).collect::<Vec<_>>());
        script.state(|state| state.stays = true);
        let answer =
            script.connect().send(get(), &Lines::default(), None).await.unwrap_or_else(|lost| panic!("{}", lost.fault));
        let mut answer = answer.into_body();

        assert_eq!(answer.take_whole().as_deref(), whole.map(str::as_bytes));
        assert_eq!(answer.take_whole(), None);
        assert_eq!(answer.into_connection().is_some(), is_free);
    }
}

#[tokio::test]
async fn a_connection_goes_on_to_the_next_request() {
    let script = Script::saying(&[OK, b"HTTP/1.1 404 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\n", b"no\r\n0\r\n\r\n"]);
    script.state(|state| state.stays = true);

    let mut answer = script
        .connect()
        .send(get(), &Lines::default(), None)
        .await
        .unwrap_or_else(|lost| panic!("{}", lost.fault))
        .into_body();
    assert_eq!(answer.size_hint().exact(), Some(2));
    assert_eq!(read(&mut answer).await, (b"ok".to_vec(), true));
    let connection = answer.into_connection().unwrap();
    let posted = request(&Method::POST, Body::bytes("hello"));
    let mut answer = connection
        .send(posted, &Lines::default(), None)
        .await
        .unwrap_or_else(|lost| panic!("{}", lost.fault))
        .into_body();
    assert_eq!(read(&mut answer).await, (b"no".to_vec(), true));
    let mut connection = answer.into_connection().unwrap();

    assert!(connection.is_alive());
    assert_eq!(
        script.written(),
        "GET /x HTTP/1.1\r\nhost: app.test\r\n\r\nPOST /x HTTP/1.1\r\nhost: app.test\r\ncontent-length: 5\r\n\r\nhello"
    );
    script.state(|state| state.says.push_back(b"x".to_vec()));
    assert!(!connection.is_alive(), "something came that nobody asked for");
    script.state(|state| state.stays = false);
    assert!(!connection.is_alive(), "it has ended");
}

/// In how many pieces, and how large ones, an answer of this length comes that is there at once, each time.
async fn pieces(length: usize, times: usize) -> Vec<Vec<usize>> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let whole = [head.as_bytes(), &vec![b'x'; length]].concat();
    let script = Script::saying(&vec![&whole[..]; times]);
    script.state(|state| state.stays = true);
    let mut connection = script.connect();
    let mut all = Vec::new();
    for _ in 0..times {
        let answer =
            connection.send(get(), &Lines::default(), None).await.unwrap_or_else(|lost| panic!("{}", lost.fault));
        let mut answer = answer.into_body();
        let mut pieces = Vec::new();
        while let Some(frame) = poll_fn(|context| answer.poll(context)).await {
            pieces.push(frame.unwrap().into_data().unwrap().len());
        }
        all.push(pieces);
        connection = answer.into_connection().unwrap();
    }
    all
}

#[tokio::test]
async fn a_connection_learns_how_large_its_answers_are() {
    let small = pieces(64 * 1024, 3).await;
    assert!(small[0].len() > 1, "nothing is known yet: {small:?}");
    assert_eq!(small[1..], [[64 * 1024], [64 * 1024]]);
}

#[tokio::test]
async fn no_more_is_held_at_once_however_much_there_is() {
    for pieces in pieces(4 * 1024 * 1024, 2).await {
        assert!(pieces.iter().all(|piece| *piece <= MOST_READ), "{pieces:?}");
        assert!(pieces.contains(&MOST_READ), "{pieces:?}");
    }
}

#[tokio::test]
async fn what_is_not_over_is_not_used_again() {
    // VR-59
    for pieces in [
        &[OK, b"x"].concat()[..],
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\n\r\nok",
        b"HTTP/1.1 204 No Content\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
    ] {
        let script = Script::saying(&[pieces]);
        let answer =
            script.connect().send(get(), &Lines::default(), None).await.unwrap_or_else(|lost| panic!("{}", lost.fault));
        let mut answer = answer.into_body();
        read(&mut answer).await;
        assert!(answer.into_connection().is_none(), "{}", pieces.escape_ascii());
        assert!(script.state(|state| state.is_dropped));
    }
    let script = Script::saying(&[b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"]);
    let unread = script
        .connect()
        .send(get(), &Lines::default(), None)
        .await
        .unwrap_or_else(|lost| panic!("{}", lost.fault))
        .into_body();
    assert!(unread.into_connection().is_none());
}

#[tokio::test]
async fn a_request_is_at_hand_until_an_answer_begins() {
    // S101
    for (pieces, method, is_answered, is_left) in [
        (&[][..], Method::GET, false, true),
        (&[][..], Method::POST, false, false),
        (&[&b"H"[..]][..], Method::GET, true, false),
        (&[&b"HTTP/1.1 200 OK\r\nContent-Le"[..]][..], Method::GET, true, false),
        (&[&b"HTTP/1.1 100 Continue\r\n\r\n"[..]][..], Method::GET, true, false),
        (&[&b"SSH-2.0\r\n"[..]][..], Method::GET, true, false),
        (&[&b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"[..]][..], Method::GET, true, false),
    ] {
        let script = Script::saying(pieces);
        let body = if method == Method::POST { Body::bytes("hello") } else { Body::empty() };
        let lost = script.connect().send(request(&method, body), &Lines::default(), None).await.err().unwrap();
        assert_eq!(lost.is_answered, is_answered, "{}", lost.fault);
        assert_eq!(lost.request.is_some(), is_left, "{}", lost.fault);
        if let Some(request) = lost.request {
            assert_eq!((request.method(), request.uri().path()), (&Method::GET, "/x"));
            assert_eq!(request.headers()["host"], "app.test");
        }
    }
}

#[tokio::test]
async fn an_answer_may_come_before_its_request_is_complete() {
    // The rest is sent however slowly the answer is read, and after it.
    for is_dropped in [false, true] {
        let script = Script::saying(&[OK]);
        script.state(|state| (state.stays, state.takes) = (true, Some(80)));
        let posted = request(&Method::POST, Body::bytes("x".repeat(100)));
        let mut answer = script
            .connect()
            .send(posted, &Lines::default(), None)
            .await
            .unwrap_or_else(|lost| panic!("{}", lost.fault))
            .into_body();
        assert_eq!(read(&mut answer).await, (b"ok".to_vec(), true));
        if is_dropped {
            drop(answer);
        } else {
            assert!(answer.into_connection().is_none());
        }

        script.state(|state| state.takes = None);
        while !script.written().ends_with(&"x".repeat(100)) || !script.state(|state| state.is_dropped) {
            tokio::task::yield_now().await;
        }
    }
}

/// An answer to a request of which the application takes no more than 80 bytes for now.
async fn early(script: &Script, body: Body, patience: Option<Duration>) -> Answer<Wired> {
    script.state(|state| (state.stays, state.takes) = (true, Some(80)));
    let answer = script.connect().send(request(&Method::POST, body), &Lines::default(), patience).await;
    answer.unwrap_or_else(|lost| panic!("{}", lost.fault)).into_body()
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

#[tokio::test(start_paused = true)]
async fn what_is_left_of_a_request_is_given_up_when_nobody_takes_it() {
    // S172
    for is_whole in [false, true] {
        let script = Script::saying(&[OK]);
        let body = "x".repeat(100);
        let mut answer = early(&script, Body::bytes(body.clone()), PATIENCE).await;
        assert_eq!(read(&mut answer).await, (b"ok".to_vec(), true));
        drop(answer);
        // So much as a byte now and then is something.
        for taken in 81..90 {
            after(29).await;
            assert!(!script.state(|state| state.is_dropped));
            script.state(|state| state.takes = Some(taken));
        }
        if is_whole {
            after(29).await;
            script.state(|state| state.takes = None);
            after(1).await;
            assert!(script.written().ends_with(&body));
        } else {
            after(29).await;
            assert!(!script.state(|state| state.is_dropped));
            after(2).await;
        }
        assert!(script.state(|state| state.is_dropped));
    }
}

#[tokio::test(start_paused = true)]
async fn that_is_no_failure_of_its_answer() {
    let script = Script::saying(&[b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok"]);
    let mut answer = early(&script, Body::bytes("x".repeat(100)), PATIENCE).await;
    let saying = async {
        after(60).await;
        script.state(|state| state.says.push_back(b"ay".to_vec()));
    };

    let (answered, ()) = tokio::join!(read(&mut answer), saying);

    assert_eq!(answered, (b"okay".to_vec(), true));
    script.state(|state| state.takes = None);
    after(1).await;
    assert_eq!(script.written().len(), 80, "it is not gone on with");
}

#[tokio::test]
async fn who_has_done_much_still_sees_that_a_connection_is_over() {
    // S98, S101: tokio lets such a task wait without a look at its socket.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for says in ["", "x"] {
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        theirs.write_all(says.as_bytes()).await.unwrap();
        drop(theirs);
        ours.readable().await.unwrap();
        let mut connection = Connection::new(ours, false);
        while coop::has_budget_remaining() {
            let _one_less = pin!(coop::consume_budget()).poll(&mut Context::from_waker(Waker::noop()));
        }

        assert!(!connection.is_alive(), "{says:?}");
    }
    let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    assert!(Connection::new(ours, false).is_alive());
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_ends_its_request() {
    // S177
    let script = Script::saying(&[b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"]);
    script.state(|state| (state.stays, state.takes) = (true, Some(80)));
    let posted = request(&Method::POST, Body::bytes("x".repeat(100)));
    let answer =
        script.connect().send(posted, &Lines::default(), None).await.unwrap_or_else(|lost| panic!("{}", lost.fault));

    drop(answer);

    while !script.state(|state| state.is_dropped) {
        tokio::task::yield_now().await;
    }
    script.state(|state| state.takes = None);
    assert!(!script.written().ends_with(&"x".repeat(100)));
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Refused,
    Answered { head: String, body: Vec<u8>, is_whole: bool },
}

fn text(response: &Response<impl Sized>) -> String {
    let reason = response.extensions().get::<ReasonPhrase>().map(|reason| reason.as_bytes().escape_ascii().to_string());
    format!("{:?} {} {reason:?} {:?}", response.version(), response.status(), response.headers())
}

/// As `forward` judges what the one client or the other has understood.
fn is_coded(response: &Response<impl Sized>) -> bool {
    !crate::policy::message::is_chunked_or_plain(response.headers())
}

async fn of_native(pieces: &[&[u8]], method: &Method, mends: bool) -> Outcome {
    let connection = Connection::new(Wired(Script::saying(pieces)), mends);
    let Ok(answer) = connection.send(request(method, Body::empty()), &Lines::default(), None).await else {
        return Outcome::Refused;
    };
    if is_coded(&answer) {
        return Outcome::Refused;
    }
    let head = text(&answer);
    let (body, is_whole) = read(&mut answer.into_body()).await;
    Outcome::Answered { head, body, is_whole }
}

async fn of_hyper(pieces: &[&[u8]], method: &Method, mends: bool) -> Outcome {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(256 * 1024)
        .max_headers(200)
        .allow_obsolete_multiline_headers_in_responses(mends)
        .allow_spaces_after_header_name_in_responses(mends)
        .handshake(TokioIo::new(Wired(Script::saying(pieces))))
        .await
        .unwrap();
    let driving = tokio::spawn(connection);
    let answered = sender.send_request(*request(method, Body::empty())).await;
    let outcome = match answered {
        Err(_) => Outcome::Refused,
        Ok(answer) if is_coded(&answer) => Outcome::Refused,
        Ok(answer) => {
            let head = text(&answer);
            let mut incoming = answer.into_body();
            let (mut body, mut is_whole) = (Vec::new(), true);
            while let Some(frame) = incoming.frame().await {
                match frame {
                    Ok(frame) => body.extend_from_slice(&frame.into_data().unwrap_or(Bytes::new())),
                    Err(_) => is_whole = false,
                }
            }
            Outcome::Answered { head, body, is_whole }
        }
    };
    driving.abort();
    outcome
}

/// Whether ours may refuse what hyper takes (`docs/http.md`).
fn may_be_stricter(bytes: &[u8]) -> bool {
    let text = bytes.escape_ascii().to_string();
    // A size of more than 16 digits; a control character in an extension; bare line feeds in trailers.
    text.contains("0000000000000000") || text.contains(";\\x00") || text.contains("y\\n")
}

const PIECES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 200 Fine\r\n",
    "HTTP/1.1 200\r\n",
    "HTTP/1.0 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n",
    "HTTP/1.1 304 Not Modified\r\n",
    "HTTP/1.1 599 \u{e9}\r\n",
    "HTTP/1.1 099 No\r\n",
    "Content-Length: 3\r\n",
    "Content-Length: 003, 3\r\n",
    "Content-Length: 10\r\n",
    "Content-Length: +3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: Chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Connection: close\r\n",
    "X-Name: a\r\n",
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

fn answers() -> impl Strategy<Value = Vec<u8>> {
    let rest = proptest::collection::vec(select(PIECES), 0..9).prop_map(|pieces| pieces.concat().into_bytes());
    let field = select(&["Content-Length: 6\r\n", "Transfer-Encoding: chunked\r\n", "", "X-Name: a\r\n"]);
    let likely = (field, rest.clone())
        .prop_map(|(field, rest)| [b"HTTP/1.1 200 OK\r\n", field.as_bytes(), b"\r\n", &rest].concat());
    prop_oneof![rest, likely]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 1 } else { 192 }))]

    /// hyper is the oracle: the same bytes, cut at any place, have the same outcome, or a documented stricter one.
    #[test]
    fn answers_mean_what_hyper_takes_them_for(bytes in answers(), mends in any::<bool>(), is_head in any::<bool>()) {
        // S98, S99, S100
        let method = if is_head { Method::HEAD } else { Method::GET };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let oracle = of_hyper(&[&bytes], &method, mends).await;
            for at in 0..=bytes.len() {
                let (first, second) = bytes.split_at(at);
                let pieces: Vec<_> = [first, second].into_iter().filter(|piece| !piece.is_empty()).collect();
                let ours = of_native(&pieces, &method, mends).await;
                if ours == oracle {
                    continue;
                }
                let is_stricter = match (&ours, &oracle) {
                    (Outcome::Refused, _) => true,
                    (Outcome::Answered { head, body, is_whole }, Outcome::Answered { head: other, body: all, .. }) => {
                        head == other && all.starts_with(body) && !is_whole
                    }
                    (Outcome::Answered { .. }, Outcome::Refused) => false,
                };
                prop_assert!(is_stricter && may_be_stricter(&bytes), "cut at {}: {:?} instead of {:?}", at, ours, oracle);
            }
            Ok(())
        })?;
    }
}
