//! How records end. Exactly one caller is told what a record was, also when the answer is lost on its way and
//! the question is sent again (S182).

use redis::Value;

use crate::clock::Timestamp;
use crate::policy::session::Handle;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::store::Presence;
use crate::store::Removal;
use crate::store::StoreError;
use crate::store::TOMBSTONE;
use crate::store::redis::names::ref_of;
use crate::store::redis::record;
use crate::store::redis::record::Stored;
use crate::store::redis::script;
use crate::store::redis::verbs::Shared;
use crate::store::redis::verbs::caller;
use crate::store::redis::verbs::millis;
use crate::store::redis::verbs::presence;
use crate::store::sealed;
use crate::store::sealed::Sealed;
use crate::store::sealed::Unusable;

/// What became of an end.
enum End<T> {
    /// It is over, and this caller is told what it was.
    Told(T),
    /// It has another revision.
    Stale,
    /// It was over, or nobody can tell what it was.
    Gone,
}

impl<T> End<T> {
    fn told(self) -> Option<T> {
        match self {
            Self::Told(what) => Some(what),
            Self::Stale | Self::Gone => None,
        }
    }
}

fn readable(stored: &Sealed) -> Result<(Outline, Outline), Unusable> {
    let outline = sealed::read_outline(&stored.readable, stored.seen)?;
    Ok((outline.clone(), outline))
}

impl Shared {
    /// Ends a record; `read` makes of it what the caller wants to know.
    async fn end<T>(
        &self,
        key: &SessionKey,
        tombstone: Option<Timestamp>,
        revision: Option<u64>,
        read: impl FnOnce(&Sealed) -> Result<(T, Outline), Unusable>,
    ) -> Result<End<T>, StoreError> {
        let (name, caller) = (ref_of(key), caller()?);
        let answer = self.run(&script::END, name, |command| {
            let text = |number: u64| number.to_string();
            command.arg(&caller[..]).arg(tombstone.map(|since| text(since.as_millis())).unwrap_or_default());
            command.arg(millis(TOMBSTONE)).arg(revision.map(text).unwrap_or_default());
        });
        let answer = answer.await?;
        if answer == Value::Int(0) {
            return Ok(End::Stale);
        }
        self.touches.drop(&name);
        let ended = match record::read(answer) {
            Ok(Stored::Session { sealed, .. }) => read(&sealed),
            Ok(Stored::Tombstone(_) | Stored::Absent) => return Ok(End::Gone),
            Err(error) => Err(error),
        };
        match ended {
            Ok((ended, outline)) => {
                self.leave(key, &outline, caller).await;
                Ok(End::Told(ended))
            }
            Err(error) => {
                self.unusable(&name, error);
                Ok(End::Gone)
            }
        }
    }

    pub(super) async fn take(&self, handle: &Handle, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let whole = |stored: &Sealed| {
            let (record, _) = sealed::open(&self.keys, handle, stored)?;
            let outline = record.outline();
            Ok((record, outline))
        };
        Ok(self.end(handle.key(), Some(now), None, whole).await?.told())
    }

    pub(super) async fn remove(
        &self,
        key: &SessionKey,
        tombstone: bool,
        now: Timestamp,
    ) -> Result<Option<Outline>, StoreError> {
        Ok(self.end(key, tombstone.then_some(now), None, readable).await?.told())
    }

    pub(super) async fn remove_at(&self, key: &SessionKey, revision: u64) -> Result<Removal, StoreError> {
        Ok(match self.end(key, None, Some(revision), readable).await? {
            End::Told(outline) => Removal::Removed(Box::new(outline)),
            End::Stale => Removal::Stale,
            End::Gone => Removal::Gone,
        })
    }

    /// Ends a record if it has not been used since.
    pub(super) async fn reap(&self, key: &SessionKey, outline: &Outline) -> Result<Presence, StoreError> {
        let caller = caller()?;
        let answer = self.run(&script::REAP, ref_of(key), |command| {
            command.arg(&caller[..]).arg(millis(TOMBSTONE)).arg(outline.seen.as_millis());
        });
        let presence = presence(&answer.await?)?;
        if presence == Presence::Present {
            self.leave(key, outline, caller).await;
        }
        Ok(presence)
    }
}
