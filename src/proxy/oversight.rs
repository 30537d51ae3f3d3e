//! What the admin surface sees of the sessions, and the one thing that it may do: end them.

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::clock::Timestamp;
use crate::policy::session::EndReason;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::proxy::Gate;
use crate::store::SessionStore;
use crate::store::StoreError;
use crate::telemetry::Context;

/// Sessions that end at once: enough for a durable store to commit many together.
const AT_ONCE: usize = 256;

impl Gate {
    /// Where the sessions are.
    pub fn store(&self) -> &dyn SessionStore {
        &*self.store
    }

    /// The time, as requests see it.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// When a session ends without further activity; `None` if its time is up already.
    pub fn end_of(&self, session: &Outline, now: Timestamp) -> Option<Timestamp> {
        let snapshot = self.current.load();
        if snapshot.expiry(&session.site, session.life(), now).is_some() {
            return None;
        }
        Some(snapshot.end_of(session))
    }

    /// Carries a write out although whoever asked for it may leave.
    ///
    /// # Errors
    /// When it broke off.
    pub async fn must_finish<T: Send + 'static>(
        &self,
        write: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writes.spawn(write).await.map_err(|error| StoreError::Unavailable(Box::new(error)))
    }

    /// Ends these sessions for good, closes what is open for them, and counts them.
    ///
    /// # Errors
    /// When the store cannot say that one of them has ended; the others have.
    pub async fn revoke(self: &Arc<Self>, keys: Vec<SessionKey>, ended: &mut usize) -> Result<(), StoreError> {
        let (now, mut keys) = (self.now(), keys.into_iter());
        let (mut ending, mut outcome) = (JoinSet::new(), Ok(()));
        loop {
            while ending.len() < AT_ONCE
                && let Some(key) = keys.next()
            {
                let gate = Arc::clone(self);
                ending.spawn(async move { gate.end(&key, EndReason::Revoked, false, now, &Context::default()).await });
            }
            let Some(one) = ending.join_next().await else { return outcome };
            match one.unwrap_or_else(|error| Err(StoreError::Unavailable(Box::new(error)))) {
                Ok(was_there) => *ended += usize::from(was_there),
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
    }
}
