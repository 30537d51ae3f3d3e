//! HTTP/1.1 from clients. Plain requests are answered from here; whatever else comes is hyper's, from its
//! first byte, until the connection has been quiet for a moment. So most requests take the short way, most
//! idle connections have nothing but their TLS, and there is one reader for all that is unusual.

mod date;
mod line;
mod plain;

use std::cell::Cell;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::server::conn::http1::Connection;
use hyper::service::HttpService;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWrite;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio::time::Sleep;
use tokio::time::sleep;

use crate::clock::Timestamp;
use crate::proxy::Opened;
use crate::server::activity::Activity;

use self::line::Line;
use self::line::Stream;
use self::plain::Outcome;
use self::plain::Plain;

/// After so long without a word hyper has to let go of a connection: it keeps two buffers of 8 KiB for each. One
/// whose last request had a body stays, since hyper does not say whether it has read all of it.
const QUIET: Duration = Duration::from_millis(200);
/// While something goes on, it is looked at less and less often.
const LONGEST: Duration = Duration::from_secs(4);

/// Answers requests.
pub(super) trait Serve: HttpService<Incoming, ResBody: Sent, Error = Infallible, Future: Unpin> + Unpin {
    /// Answers one without hyper.
    fn answer(&self, request: Request<Option<Incoming>>) -> Self::Future;

    /// What time to give to an answer that has none.
    fn time_of_day(&self) -> Timestamp;

    /// Who waits for the connection that its last request asked to be upgraded.
    fn heir(&self) -> &Heir;
}

/// A body that is sent.
pub(super) trait Sent: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin + 'static {}
impl<B: Body<Data = Bytes, Error: Error + Send + Sync + 'static> + Unpin + 'static> Sent for B {}

/// What a service leaves for its connection when a request asks for an upgrade: where the connection goes,
/// should it be granted.
pub(super) type Heir = Cell<Option<oneshot::Sender<Opened>>>;

/// A connection of a client, from its handshake to its end. Its output is what hyper ended with.
pub(super) struct Http1<T: Stream, S: Serve> {
    builder: Builder,
    field_limit: usize,
    activity: Activity,
    state: State<T, S>,
}

enum State<T: Stream, S: Serve> {
    Plain(Line<T>, S, Plain<S>),
    /// Without a nap it stays hyper's to its end.
    Hyper(Box<Connection<TokioIo<Line<T>>, S>>, Option<Nap>),
    /// Says goodbye.
    Leaving(Line<T>),
    /// Has ended like this, or has become a tunnel. Also what stands here while one state becomes another.
    Left(hyper::Result<()>),
}

/// When to look whether hyper is still needed.
struct Nap {
    sleep: Pin<Box<Sleep>>,
    pause: Duration,
}

impl Nap {
    fn new() -> Self {
        Self { sleep: Box::pin(sleep(QUIET)), pause: QUIET }
    }

    /// Completes when nothing has happened for long enough.
    fn poll(&mut self, activity: &Activity, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            let next = match activity.quiet_since() {
                Some(since) if since + QUIET <= now => return Poll::Ready(()),
                Some(since) => since + QUIET,
                None => {
                    self.pause = (self.pause * 2).min(LONGEST);
                    now + self.pause
                }
            };
            self.sleep.as_mut().reset(next);
        }
    }
}

impl<T: Stream, S: Serve> Http1<T, S> {
    /// Serves a stream on which nothing was read yet. Requests may have so many fields; `activity` hears of
    /// the stream's bytes and of the requests.
    pub(super) fn new(builder: Builder, field_limit: usize, stream: T, activity: Activity, service: S) -> Self {
        let line = Line::new(stream, activity.clone());
        Self { builder, field_limit, activity, state: State::Plain(line, service, Plain::new()) }
    }

    /// Ends the connection after the answer that is under way, if there is one.
    pub(super) fn leave(self: Pin<&mut Self>) {
        match &mut self.get_mut().state {
            State::Plain(_, _, plain) => plain.close(),
            State::Hyper(connection, nap) => {
                Pin::new(&mut **connection).graceful_shutdown();
                *nap = None;
            }
            State::Leaving(_) | State::Left(_) => {}
        }
    }

    fn hyper(&self, line: Line<T>, service: S) -> State<T, S> {
        let connection = self.builder.serve_connection(TokioIo::new(line), service);
        State::Hyper(Box::new(connection), Some(Nap::new()))
    }

    /// Takes the stream back from hyper, which has nothing to do with it at present.
    fn take_back(&self, connection: Connection<TokioIo<Line<T>>, S>) -> State<T, S> {
        let parts = connection.into_parts();
        let mut line = parts.io.into_inner();
        if line.put_back(parts.read_buf) {
            // The beginning of a request, which came along with the one before.
            self.activity.heard();
        }
        State::Plain(line, parts.service, Plain::new())
    }
}

/// What becomes of a stream that hyper is through with: a tunnel, if somebody waits for one.
fn end<T: Stream, S: Serve>(connection: Connection<TokioIo<Line<T>>, S>, ended: hyper::Result<()>) -> State<T, S> {
    let parts = connection.into_parts();
    let line = parts.io.into_inner();
    match (parts.service.heir().take(), ended) {
        (Some(heir), Ok(())) if !heir.is_closed() => {
            // hyper reads nothing between the answer and its end: what it has came before.
            let opened = Opened { stream: Box::new(line), is_early: !parts.read_buf.is_empty() };
            // Who has just left does not mind.
            let _unwanted = heir.send(opened);
            State::Left(Ok(()))
        }
        // hyper takes no leave of a connection that might have become a tunnel; of others twice does not hurt.
        (_, Ok(())) => State::Leaving(line),
        // What broke off must not look as if it had ended (S99).
        (_, Err(error)) => State::Left(Err(error)),
    }
}

impl<T: Stream, S: Serve> Future for Http1<T, S> {
    type Output = hyper::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Plain(line, service, plain) => {
                    let outcome = ready!(plain.poll(line, service, this.field_limit, cx));
                    let State::Plain(line, service, _) = mem::replace(&mut this.state, State::Left(Ok(()))) else {
                        continue;
                    };
                    this.state = match outcome {
                        Outcome::NotPlain => this.hyper(line, service),
                        Outcome::Done => State::Leaving(line),
                        Outcome::Broken => State::Left(Ok(())),
                    };
                }
                State::Hyper(connection, nap) => {
                    let ended = Pin::new(&mut **connection).poll(cx);
                    if ended.is_pending() {
                        let Some(nap) = nap else { return Poll::Pending };
                        ready!(nap.poll(&this.activity, cx));
                    }
                    let State::Hyper(connection, _) = mem::replace(&mut this.state, State::Left(Ok(()))) else {
                        continue;
                    };
                    this.state = match ended {
                        Poll::Ready(ended) => end(*connection, ended),
                        Poll::Pending => this.take_back(*connection),
                    };
                }
                State::Leaving(line) => {
                    // Whoever is gone already does not hear it.
                    let _unheard = ready!(Pin::new(line).poll_shutdown(cx));
                    this.state = State::Left(Ok(()));
                }
                State::Left(ended) => return Poll::Ready(mem::replace(ended, Ok(()))),
            }
        }
    }
}

#[cfg(test)]
mod tests;
