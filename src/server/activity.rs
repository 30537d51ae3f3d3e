//! What happens on a connection: one on which nothing does is closed after a while, and does not hold
//! up a stop (S172).

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body::Frame;
use http_body::SizeHint;
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::proxy::Body;

/// The exchanges that are under way, and whether the client says anything between them.
#[derive(Clone)]
pub(super) struct Activity {
    exchanges: watch::Sender<usize>,
    heard: Arc<Notify>,
}

/// One exchange, from its request to the end of its response.
pub(super) struct Exchange(watch::Sender<usize>);

/// Why no request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The client says nothing.
    Silent,
    /// It does not come to the point.
    Slow,
}

impl Activity {
    /// `heard` is notified whenever bytes come.
    pub(super) fn new(heard: Arc<Notify>) -> Self {
        Self { exchanges: watch::Sender::new(0), heard }
    }

    pub(super) fn begin(&self) -> Exchange {
        self.exchanges.send_modify(|count| *count += 1);
        Exchange(self.exchanges.clone())
    }

    /// Completes when nothing has been under way for so long.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            self.until(|count| count == 0).await;
            if timeout(limit, self.until(|count| count > 0)).await.is_err() {
                return;
            }
        }
    }

    /// Completes when HTTP/1 has no request to wait for any longer: nothing is heard for `keep_alive`,
    /// or what is heard does not become a request within `header`.
    pub(super) async fn no_request(&self, keep_alive: Duration, header: Duration) -> Why {
        loop {
            self.until(|count| count == 0).await;
            // What was heard so far belongs to earlier requests.
            let _earlier = timeout(Duration::ZERO, self.heard.notified()).await;
            if timeout(keep_alive, self.heard.notified()).await.is_err() {
                return Why::Silent;
            }
            if timeout(header, self.until(|count| count > 0)).await.is_err() {
                return Why::Slow;
            }
        }
    }

    async fn until(&self, reached: impl Fn(usize) -> bool) {
        // The sender is in `self`: it cannot be gone.
        let _reached = self.exchanges.subscribe().wait_for(|count| reached(*count)).await.is_ok();
    }
}

impl Exchange {
    /// Goes on until the response has been sent, or given up.
    pub(super) fn until_sent(self, response: Response<Body>) -> Response<Sending> {
        response.map(|body| Sending { body, _exchange: self })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The body of a response under way.
pub(super) struct Sending {
    body: Body,
    _exchange: Exchange,
}

impl http_body::Body for Sending {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
