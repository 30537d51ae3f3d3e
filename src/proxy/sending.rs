//! How far the sending of a request has got, as seen by who waits for its answer.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::OnceLock;
use std::sync::PoisonError;

use tokio::time::Instant;

use crate::proxy::body::BodyError;

/// One request on its way to the application, with a body that does not go along with its head.
pub(super) struct Sending {
    state: Mutex<State>,
    /// Why it never will be done, which HTTP/2 keeps to itself.
    failure: OnceLock<BodyError>,
}

#[derive(Clone, Copy)]
enum State {
    /// All that there is to send has been taken, at this time.
    Done(Instant),
    /// The application took the last piece at this time.
    Moving(Instant),
    /// The client has not sent the next piece yet.
    Waiting,
}

impl Sending {
    /// A request whose body is yet to come, and what says how it gets on.
    pub(super) fn begin() -> (Arc<Self>, Reporter) {
        let sending = Arc::new(Self { state: Mutex::new(State::Moving(Instant::now())), failure: OnceLock::new() });
        (Arc::clone(&sending), Reporter(sending))
    }

    /// Whether everything has been sent.
    pub(super) fn is_done(&self) -> bool {
        matches!(self.state(), State::Done(_))
    }

    /// Since when it is the application that everybody waits for.
    pub(super) fn quiet_since(&self) -> Instant {
        match self.state() {
            State::Done(at) | State::Moving(at) => at,
            State::Waiting => Instant::now(),
        }
    }

    /// How the body broke off, if it did.
    pub(super) fn failure(&self) -> Option<BodyError> {
        self.failure.get().cloned()
    }

    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// Held by the body: says how it gets on, and that it is done when it is dropped.
pub(super) struct Reporter(Arc<Sending>);

impl Reporter {
    /// The application took a piece.
    pub(super) fn moved(&self) {
        self.0.set(State::Moving(Instant::now()));
    }

    /// The body has broken off.
    pub(super) fn fails(&self, error: &BodyError) {
        self.0.failure.get_or_init(|| error.clone());
    }

    /// The client lets us wait for the next piece.
    pub(super) fn waits(&self) {
        self.0.set(State::Waiting);
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.0.set(State::Done(Instant::now()));
    }
}
