//! Where bodies come from: a client or the application. What a client sends is read in any case.

use std::pin::Pin;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Version;
use http::header;
use http_body::Frame;
use http_body::SizeHint;
use hyper::body::Incoming;
use tokio::runtime::Handle;
use tokio::time::Instant;

use crate::proxy::body::BodyError;
use crate::proxy::native::Answer;

/// How much of a refused body is read away, and for how long.
const DRAIN_LIMIT: usize = 10 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(5);

/// What a client must send at least in [`PACE_TIMES`] the time that it may pause, unless that is all.
const PACE_BYTES: usize = 1024;
const PACE_TIMES: u32 = 10;

/// Whether a sender that never pauses for long gets on at all: a byte now and then would hold what waits
/// for it for ever (S172).
pub(super) struct Pace {
    since: Instant,
    limit: Duration,
    moved: usize,
}

impl Pace {
    /// For a sender that may pause for `idle`.
    pub(super) fn of(idle: Duration) -> Self {
        Self { since: Instant::now(), limit: idle * PACE_TIMES, moved: 0 }
    }

    /// It has sent so much more; whether that is enough.
    pub(super) fn keeps_up(&mut self, bytes: usize) -> bool {
        self.moved += bytes;
        if self.moved >= PACE_BYTES {
            (self.since, self.moved) = (Instant::now(), 0);
            return true;
        }
        self.since.elapsed() <= self.limit
    }
}

/// A body that was read up to a limit in order to be judged.
pub(super) struct ReadAhead {
    /// What was read.
    pub bytes: Bytes,
    /// The rest, when there is more than the limit; otherwise nothing but where it came from.
    pub rest: Source,
    /// Whether there is no more.
    pub is_whole: bool,
}

/// Reads at most `limit` bytes; what is beyond stays in `rest`.
///
/// # Errors
/// When the sender breaks off, pauses for longer than `idle`, or does not keep up the pace.
pub(super) async fn read_ahead(
    body: impl Into<Source>,
    limit: usize,
    idle: Option<Duration>,
    mut pace: Option<Pace>,
) -> Result<ReadAhead, BodyError> {
    use http_body_util::BodyExt;
    let mut body = body.into();
    let mut bytes = bytes::BytesMut::new();
    loop {
        let frame = match idle {
            Some(idle) => tokio::time::timeout(idle, body.frame()).await.map_err(|_| BodyError::Idle)?,
            None => body.frame().await,
        };
        let Some(frame) = frame else {
            return Ok(ReadAhead { bytes: bytes.freeze(), rest: body, is_whole: true });
        };
        let Ok(data) = frame?.into_data() else { continue };
        bytes.extend_from_slice(&data);
        if pace.as_mut().is_some_and(|pace| !pace.keeps_up(data.len())) {
            return Err(BodyError::Idle);
        }
        if bytes.len() > limit {
            return Ok(ReadAhead { bytes: bytes.freeze(), rest: body, is_whole: false });
        }
    }
}

/// What comes from the other side.
pub(super) enum Source {
    /// A request's body.
    Client(Upload),
    /// A response's body.
    Native(Answer),
    /// The same, as the library reads it.
    Application(Incoming),
}

impl From<Upload> for Source {
    fn from(upload: Upload) -> Self {
        Self::Client(upload)
    }
}

impl From<Incoming> for Source {
    fn from(body: Incoming) -> Self {
        Self::Application(body)
    }
}

impl From<Answer> for Source {
    fn from(body: Answer) -> Self {
        Self::Native(body)
    }
}

impl Source {
    /// All of it, if it is here already.
    pub(super) fn take_whole(&mut self) -> Option<Bytes> {
        match self {
            Self::Native(answer) => answer.take_whole(),
            Self::Client(_) | Self::Application(_) => None,
        }
    }
}

impl http_body::Body for Source {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match self.get_mut() {
            Self::Client(upload) => {
                // Who looks for it asks the client to send it.
                upload.held_back = false;
                upload.body.as_mut()
            }
            Self::Native(answer) => return answer.poll(context).map_err(Into::into),
            Self::Application(body) => Some(body),
        };
        body.map_or(Poll::Ready(None), |body| Pin::new(body).poll_frame(context).map_err(Into::into))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Client(upload) => upload.body.as_ref().is_none_or(http_body::Body::is_end_stream),
            Self::Native(answer) => answer.is_end(),
            Self::Application(body) => http_body::Body::is_end_stream(body),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Client(upload) => {
                upload.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
            }
            Self::Native(answer) => answer.size_hint(),
            Self::Application(body) => http_body::Body::size_hint(body),
        }
    }
}

/// A client's body. What nobody has read of it when it is dropped is read away: a stream that is reset
/// or a connection that is closed before the client has sent all can take the answer with it (RFC 9112
/// 9.6).
pub(super) struct Upload {
    body: Option<Incoming>,
    /// Whether the client sends it only when it is asked to, and was not: then there is nothing to read (RFC 9110
    /// 10.1.1, S94).
    held_back: bool,
}

impl Upload {
    /// The body of a request of this version with these headers. Over HTTP/2, where nobody is asked for
    /// it, the client sends it after a while.
    pub(super) fn new(body: Option<Incoming>, version: Version, headers: &HeaderMap) -> Self {
        let expects =
            || headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        Self { body, held_back: version == Version::HTTP_11 && expects() }
    }

    /// Its length, if that is known.
    pub(super) fn length(&self) -> Option<u64> {
        self.body.as_ref().map_or(Some(0), |body| http_body::Body::size_hint(body).exact())
    }

    /// How many bytes it has at least.
    pub(super) fn declared(&self) -> u64 {
        self.body.as_ref().map_or(0, |body| http_body::Body::size_hint(body).lower())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let unread = self.body.take().filter(|body| !self.held_back && !http_body::Body::is_end_stream(body));
        // Without a runtime there is no connection left to care for.
        if let (Some(body), Ok(runtime)) = (unread, Handle::try_current()) {
            // Whatever comes of it, the answer is on its way.
            runtime.spawn(tokio::time::timeout(DRAIN_TIME, drain(body)));
        }
    }
}

/// Reads a body away, within bounds.
async fn drain(mut body: Incoming) {
    use http_body_util::BodyExt;
    let mut left = DRAIN_LIMIT;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(length) else { return };
        left = rest;
    }
}
