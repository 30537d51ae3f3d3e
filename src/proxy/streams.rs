//! What is open on behalf of a session: tunnels and long responses. The end of the session, for
//! whatever reason, closes them (S46, VR-06).

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::time::Duration;

use dashmap::DashMap;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::policy::lifecycle;
use crate::policy::session::SessionKey;
use crate::store::SessionStore;

/// Everything open, by session.
#[derive(Default)]
pub(super) struct Streams {
    open: DashMap<SessionKey, Open>,
}

struct Open {
    ended: CancellationToken,
    /// For what does not go on when the session is bound to a device; cancelled with the other one.
    unproven: CancellationToken,
    holders: usize,
    /// When the session ends whatever happens.
    absolute_end: Timestamp,
}

impl Streams {
    /// Ends with the session from now on, and if it is not `proven` when that is bound to a device.
    pub(super) fn bind(self: &Arc<Self>, key: SessionKey, absolute_end: Timestamp, proven: bool) -> StreamGuard {
        let new = || {
            let ended = CancellationToken::new();
            Open { unproven: ended.child_token(), ended, holders: 0, absolute_end }
        };
        let mut open = self.open.entry(key).or_insert_with(new);
        open.holders += 1;
        let cut = if proven { open.ended.clone() } else { open.unproven.clone() };
        StreamGuard { streams: Arc::clone(self), key, ended: open.ended.clone(), cut }
    }

    /// Closes what was opened for this session without showing that it comes from its device.
    pub(super) fn end_unproven(&self, key: &SessionKey) {
        if let Some(open) = self.open.get(key) {
            open.unproven.cancel();
        }
    }

    /// Closes what is open for this session.
    pub(super) fn end(&self, key: &SessionKey) {
        // Cancelled while the entry is held: who sees it gone sees it cancelled.
        self.open.remove_if(key, |_, open| {
            open.ended.cancel();
            true
        });
    }

    /// Closes what is open for this session if its time is up, whatever the store knows.
    pub(super) fn expire(&self, key: &SessionKey, now: Timestamp) {
        self.open.remove_if(key, |_, open| {
            let is_over = now >= open.absolute_end;
            if is_over {
                open.ended.cancel();
            }
            is_over
        });
    }

    /// The sessions for which something is open.
    pub(super) fn sessions(&self) -> Vec<SessionKey> {
        self.open.iter().map(|open| *open.key()).collect()
    }
}

/// One open thing. Dropping it says that it is closed.
pub(super) struct StreamGuard {
    streams: Arc<Streams>,
    key: SessionKey,
    ended: CancellationToken,
    cut: CancellationToken,
}

impl StreamGuard {
    /// Completes when the session has ended, for this.
    pub(super) fn ended(&self) -> WaitForCancellationFutureOwned {
        self.cut.clone().cancelled_owned()
    }
}

impl Drop for StreamGuard {
    fn drop(&mut self) {
        self.streams.open.remove_if_mut(&self.key, |_, open| {
            // After `end` the entry is another's: of a response that was on its way when the session
            // ended. It waits for the next round, which closes it.
            if self.ended.is_cancelled() {
                return false;
            }
            open.holders = open.holders.saturating_sub(1);
            open.holders == 0
        });
    }
}

/// Moves the idle timer of a session while data moves, at most once in a while.
pub(super) struct Pulse {
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    key: SessionKey,
    idle: Duration,
    next: Timestamp,
}

impl Pulse {
    /// A pulse for a session that may idle so long.
    pub(super) fn new(store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>, key: SessionKey, idle: Duration) -> Self {
        let next = clock.now().plus(lifecycle::touch_every(idle));
        Self { store, clock, key, idle, next }
    }

    /// Data moved. Best effort: a lost touch can only end a session early.
    pub(super) fn beat(&mut self) {
        let now = self.clock.now();
        if now < self.next {
            return;
        }
        self.next = now.plus(lifecycle::touch_every(self.idle));
        let (store, key, idle) = (Arc::clone(&self.store), self.key, self.idle);
        tokio::spawn(async move {
            let _best_effort = store.touch(&key, now, idle).await;
        });
    }
}

/// A body that belongs to a session: ends with it, and keeps it from idling while it moves.
pub(super) struct Bound {
    _guard: StreamGuard,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    pulse: Option<Pulse>,
}

impl Bound {
    /// `pulse`: only for bodies whose movement is activity.
    pub(super) fn new(guard: StreamGuard, pulse: Option<Pulse>) -> Self {
        let ended = Box::pin(guard.ended());
        Self { _guard: guard, ended, pulse }
    }

    /// Ready when the session has ended.
    pub(super) fn poll_ended(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.ended.as_mut().poll(context)
    }

    /// Data moved.
    pub(super) fn moved(&mut self) {
        if let Some(pulse) = &mut self.pulse {
            pulse.beat();
        }
    }
}
