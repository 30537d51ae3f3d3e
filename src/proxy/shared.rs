//! The HTTP/2 connections of one worker to one upstream: few, and each shared by many requests.

use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::OwnedSemaphorePermit;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::proxy::http2::Http2;
use crate::proxy::upstream::Upstream;
use crate::proxy::upstream::UpstreamError;

/// The connections that take requests.
pub(super) struct Group {
    upstream: Arc<Upstream>,
    connections: Mutex<Vec<Shared>>,
    /// Held by who opens one, so that a crowd waits for what comes of it.
    opening: tokio::sync::Mutex<()>,
    /// A request has ended.
    freed: Notify,
    clock: Arc<dyn Clock>,
}

struct Shared {
    http2: Arc<Http2>,
    under_way: usize,
    last_used: Timestamp,
}

/// One request's place on a connection.
pub(super) struct Seat {
    group: Arc<Group>,
    http2: Arc<Http2>,
}

/// What a request has found.
pub(super) enum Found {
    /// A place on a connection that has been used before.
    Seat(Seat),
    /// A place on a new one.
    Opened(Seat),
}

/// What one that waited has got.
enum Waited<'a> {
    /// Somebody else's place.
    Seat(Seat),
    /// Leave to open a connection.
    Slot(OwnedSemaphorePermit, tokio::sync::MutexGuard<'a, ()>),
}

impl Group {
    pub(super) fn new(upstream: Arc<Upstream>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let (opening, freed) = (tokio::sync::Mutex::default(), Notify::new());
        Arc::new(Self { upstream, connections: Mutex::default(), opening, freed, clock })
    }

    /// A place on a connection that has room; where none has, on a new one. Waits no longer than `limit`
    /// for one or the other.
    pub(super) async fn seat(self: &Arc<Self>, limit: Duration, make_room: impl Fn()) -> Result<Found, UpstreamError> {
        if let Some(seat) = self.take() {
            return Ok(Found::Seat(seat));
        }
        // Boxed, as most requests have no need of it, and are moved about with room for it.
        Box::pin(self.wait_or_open(limit, make_room)).await
    }

    async fn wait_or_open(self: &Arc<Self>, limit: Duration, make_room: impl Fn()) -> Result<Found, UpstreamError> {
        match tokio::time::timeout(limit, self.wait(limit, make_room)).await {
            Ok(Ok(Waited::Seat(seat))) => Ok(Found::Seat(seat)),
            Ok(Ok(Waited::Slot(slot, _turn))) => self.open(slot, limit).await.map(Found::Opened),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(UpstreamError::Busy),
        }
    }

    async fn wait(self: &Arc<Self>, limit: Duration, make_room: impl Fn()) -> Result<Waited<'_>, UpstreamError> {
        loop {
            let mut freed = pin!(self.freed.notified());
            // From here on: what is freed between the look and the wait is not missed.
            freed.as_mut().enable();
            if let Some(seat) = self.take() {
                return Ok(Waited::Seat(seat));
            }
            let turn = tokio::select! {
                turn = self.opening.lock() => turn,
                () = freed.as_mut() => continue,
            };
            if let Some(seat) = self.take() {
                return Ok(Waited::Seat(seat));
            }
            tokio::select! {
                slot = self.upstream.slot(limit, &make_room) => return Ok(Waited::Slot(slot?, turn)),
                () = freed => {}
            }
        }
    }

    async fn open(self: &Arc<Self>, slot: OwnedSemaphorePermit, limit: Duration) -> Result<Seat, UpstreamError> {
        let http2 = Arc::new(self.upstream.connect_http2(Some(slot), limit).await?);
        self.lock().push(Shared { http2: Arc::clone(&http2), under_way: 1, last_used: self.clock.now() });
        Ok(Seat { group: Arc::clone(self), http2 })
    }

    fn take(self: &Arc<Self>) -> Option<Seat> {
        let mut connections = self.lock();
        connections.retain(|shared| !shared.http2.is_closed());
        let shared = connections.iter_mut().find(|shared| shared.under_way < shared.http2.streams())?;
        shared.under_way += 1;
        Some(Seat { group: Arc::clone(self), http2: Arc::clone(&shared.http2) })
    }

    /// Closes those that have not been used for `lifetime`.
    pub(super) fn tidy(&self, now: Timestamp, lifetime: Duration) {
        self.lock().retain(|shared| {
            let is_idle = shared.under_way == 0 && now.since(shared.last_used) >= lifetime;
            !is_idle && !shared.http2.is_closed()
        });
    }

    /// Closes one that is not in use; whether there was one.
    pub(super) fn close_idle(&self) -> bool {
        let mut connections = self.lock();
        let idle = connections.iter().position(|shared| shared.under_way == 0);
        idle.map(|idle| connections.swap_remove(idle)).is_some()
    }

    /// Whether nothing is left of it but the name.
    pub(super) fn is_empty(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Shared>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    pub(super) fn http2(&self) -> &Http2 {
        &self.http2
    }

    /// Nobody else gets a place on this connection; it closes when the last has left.
    pub(super) fn retire(&self) {
        self.group.lock().retain(|shared| !Arc::ptr_eq(&shared.http2, &self.http2));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut connections = self.group.lock();
        let index = connections.iter().position(|shared| Arc::ptr_eq(&shared.http2, &self.http2));
        if let Some(index) = index
            && let Some(shared) = connections.get_mut(index)
        {
            shared.under_way = shared.under_way.saturating_sub(1);
            shared.last_used = self.group.clock.now();
            // Asked under the lock, so that whoever waits finds it here or is seen to wait.
            let upstream = &self.group.upstream;
            if shared.under_way == 0 && (upstream.awaited() > 0 || upstream.is_retired()) {
                connections.swap_remove(index);
            }
        }
        drop(connections);
        self.group.freed.notify_one();
    }
}
