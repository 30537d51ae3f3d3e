//! What a worker has of an upstream: its idle connections, and the requests that wait for one.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::proxy::link::Http1;

/// More than so many idle for no longer than this. A crowd comes in bursts, and may find open what the last one
/// needed; but afterwards nothing is left of it.
const FEW: usize = 64;
const CROWD_LIFETIME: Duration = Duration::from_secs(10);

/// What there is, and who lacks it.
#[derive(Default)]
pub(super) struct Shelf {
    idle: Vec<Idle>,
    /// Requests that wait for room for one more connection, and take one that is given back as well.
    waiting: VecDeque<oneshot::Sender<Http1>>,
    /// Whether the last one that was given back was closed, for whoever had waited longest on whichever worker.
    was_closed: bool,
}

/// A connection that nobody uses.
struct Idle {
    connection: Http1,
    until: Timestamp,
}

impl Shelf {
    /// Whether there is nothing here, and nobody.
    pub(super) fn is_empty(&self) -> bool {
        self.idle.is_empty() && self.waiting.iter().all(oneshot::Sender::is_closed)
    }

    /// Keeps a connection that was given back, for so long at most.
    pub(super) fn keep(&mut self, connection: Http1, lifetime: Duration, now: Timestamp) {
        let lifetime = if self.idle.len() < FEW { lifetime } else { lifetime.min(CROWD_LIFETIME) };
        self.idle.push(Idle { connection, until: now.plus(lifetime) });
    }

    /// The one that was kept last, of those that can still be used.
    pub(super) fn take(&mut self, now: Timestamp) -> Option<Http1> {
        std::iter::from_fn(|| self.idle.pop()).find_map(|mut idle| idle.is_usable(now).then_some(idle.connection))
    }

    /// Closes those that cannot be used any more.
    pub(super) fn tidy(&mut self, now: Timestamp) {
        self.idle.retain_mut(|idle| idle.is_usable(now));
    }

    /// Gets one that is handed on.
    pub(super) fn wait(&mut self) -> oneshot::Receiver<Http1> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.push_back(sender);
        receiver
    }

    /// Gives it to who waits here: a new connection for each request costs an application the more, the less it can
    /// bear it. If others wait elsewhere, of the `awaited` in all, every second one is closed instead, which gives whoever
    /// has waited longest the room for a new one: another worker may have none to hand on.
    pub(super) fn hand_on(&mut self, mut connection: Http1, awaited: usize) {
        // Those that got room leave in about the order in which they came.
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        self.was_closed = awaited > self.waiting.len() && !self.was_closed;
        if self.was_closed {
            return;
        }
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting.send(connection) {
                Ok(()) => return,
                Err(refused) => connection = refused,
            }
        }
    }
}

impl Idle {
    fn is_usable(&mut self, now: Timestamp) -> bool {
        now < self.until && self.connection.is_alive()
    }
}
