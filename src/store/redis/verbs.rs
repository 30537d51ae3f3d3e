//! What is done with one record, for requests and for the store's own thread.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use redis::Cmd;
use redis::Value;
use tokio::task::JoinSet;

use crate::clock::Timestamp;
use crate::policy::chain::Chain;
use crate::policy::session::Handle;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::store::Found;
use crate::store::Presence;
use crate::store::StoreError;
use crate::store::Swap;
use crate::store::TOMBSTONE;
use crate::store::redis::answer;
use crate::store::redis::cache::Cache;
use crate::store::redis::cache::Known;
use crate::store::redis::cache::Loaded;
use crate::store::redis::index;
use crate::store::redis::link::LinkError;
use crate::store::redis::names::Names;
use crate::store::redis::names::Ref;
use crate::store::redis::names::ref_of;
use crate::store::redis::nodes::Nodes;
use crate::store::redis::record;
use crate::store::redis::record::Stored;
use crate::store::redis::script;
use crate::store::redis::script::Script;
use crate::store::redis::touches::Touch;
use crate::store::redis::touches::Touches;
use crate::store::sealed;
use crate::store::sealed::Sealer;
use crate::store::sealed::Unusable;
use crate::store::sealed::keys::Keys;

/// How often it is looked whether activity is to be written.
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Rounds of that, until it is looked whether known records are still asked for.
const TIDY_AFTER: u64 = 300;
/// Sessions whose activity is written at once.
const AT_ONCE: usize = 64;
/// How often a change of a vault is made again because another one came first.
const ATTEMPTS: usize = 200;
/// Records that it is remembered of that they were complained of.
const SAID: usize = 1024;

/// What requests and the store's own thread share.
pub(super) struct Shared {
    pub(super) nodes: Arc<Nodes>,
    pub(super) names: Names,
    pub(super) cache: Arc<Cache>,
    pub(super) touches: Touches,
    pub(super) keys: Keys,
    /// Records of which it was said that they cannot be used: once is enough (S186).
    said: Mutex<HashSet<Ref>>,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Shared {
    pub(super) fn new(nodes: Arc<Nodes>, names: Names, cache: Arc<Cache>, keys: Keys) -> Self {
        Self { nodes, names, cache, keys, touches: Touches::default(), said: Mutex::default() }
    }

    /// Says that a record cannot be used: for whoever asked, it is not there.
    pub(super) fn unusable(&self, name: &Ref, error: Unusable) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() >= SAID {
            said.clear();
        }
        if said.insert(*name) {
            let session = String::from_utf8_lossy(name).into_owned();
            tracing::error!(event = "store.record_unusable", session, error = %error);
        }
    }

    /// Runs forever, on the store's own thread.
    pub(super) async fn keep(self: &Arc<Self>) {
        let mut rounds = 0u64;
        loop {
            tokio::time::sleep(WRITE_EVERY).await;
            self.write_touches(false).await;
            rounds += 1;
            self.cache.tidy(rounds.is_multiple_of(TIDY_AFTER));
        }
    }

    /// Many at once: a server that is far away answers them together, and one that is gone holds up none of
    /// another's.
    pub(super) async fn write_touches(self: &Arc<Self>, is_end: bool) {
        let (mut due, mut writing) = (self.touches.due(is_end).into_iter(), JoinSet::new());
        loop {
            while writing.len() < AT_ONCE
                && let Some(name) = due.next()
            {
                let shared = Arc::clone(self);
                writing.spawn(async move {
                    if shared.write(&name).await.is_err() {
                        shared.touches.postpone(&name);
                    }
                });
            }
            if writing.join_next().await.is_none() {
                return;
            }
        }
    }

    async fn write(&self, name: &Ref) -> Result<Presence, LinkError> {
        // Somebody else has just written it.
        let Some(touch) = self.touches.of(name) else { return Ok(Presence::Present) };
        let presence = self.touch(name, touch).await?;
        match presence {
            Presence::Present => self.touches.written(name, touch),
            Presence::Gone => self.touches.drop(name),
        }
        Ok(presence)
    }

    async fn touch(&self, name: &Ref, touch: Touch) -> Result<Presence, LinkError> {
        let answer = self.run(&script::TOUCH, *name, |command| {
            command.arg(touch.first.as_millis()).arg(touch.last.as_millis());
            command.arg(millis(touch.idle)).arg(script::MARGIN);
        });
        presence(&answer.await?)
    }

    /// Runs a script on a record; afterwards nothing is known of the record.
    pub(super) async fn run(
        &self,
        script: &Script,
        name: Ref,
        arguments: impl FnOnce(&mut Cmd),
    ) -> Result<Value, LinkError> {
        let key = self.names.record(&name);
        let mut command = script.on(&key);
        arguments(&mut command);
        let answer = self.ask(&name, &key, &command).await;
        self.cache.forget(&name);
        answer
    }

    /// Sends a command about a record. What is of another type is none of ours: it is not there (S186).
    pub(super) async fn ask(&self, name: &Ref, key: &[u8], command: &Cmd) -> Result<Value, LinkError> {
        match self.nodes.call(key, command).await {
            Err(error) if error.is_wrong_type() => {
                self.unusable(name, Unusable::Foreign);
                Ok(Value::Int(script::GONE))
            }
            answer => answer,
        }
    }

    /// What is known of a record for sure.
    fn known(&self, name: &Ref) -> Option<Known> {
        if !self.nodes.is_trusted(&self.names.record(name)) {
            return None;
        }
        self.cache.get(name)
    }

    fn opened(&self, name: &Ref, loaded: &Loaded) -> Found {
        let record = loaded.record.clone();
        let seen = self.touches.latest(name, record.seen);
        Found::Record(Box::new(Record { seen, ..record }))
    }

    async fn read(&self, handle: &Handle, now: Timestamp) -> Result<Read, StoreError> {
        let name = ref_of(handle.key());
        let key = self.names.record(&name);
        let reading = self.cache.reads(name);
        let answer = self.ask(&name, &key, redis::cmd("HGETALL").arg(&key)).await?;
        let loaded = match record::read(answer) {
            Ok(Stored::Absent) => return Ok(Read::Nothing(Found::Absent)),
            Ok(Stored::Tombstone(since)) if now.since(since) < TOMBSTONE => return Ok(Read::Nothing(Found::Tombstone)),
            Ok(Stored::Tombstone(_)) => return Ok(Read::Nothing(Found::Absent)),
            Ok(Stored::Session { sealed, version }) => {
                let opened = sealed::open(&self.keys, handle, &sealed);
                opened.map(|(record, key)| Loaded { record, readable: sealed.readable, version, key })
            }
            Err(error) => Err(error),
        };
        match loaded {
            Ok(loaded) => {
                let loaded = Arc::new(loaded);
                reading.found(Known::Whole(Arc::clone(&loaded)));
                Ok(Read::Session(loaded))
            }
            Err(error) => {
                self.unusable(&name, error);
                Ok(Read::Nothing(Found::Absent))
            }
        }
    }

    pub(super) async fn load(&self, handle: &Handle, now: Timestamp) -> Result<Found, StoreError> {
        let name = ref_of(handle.key());
        if let Some(Known::Whole(loaded)) = self.known(&name) {
            return Ok(self.opened(&name, &loaded));
        }
        self.reload(handle, now).await
    }

    pub(super) async fn reload(&self, handle: &Handle, now: Timestamp) -> Result<Found, StoreError> {
        match self.read(handle, now).await? {
            Read::Session(loaded) => Ok(self.opened(&ref_of(handle.key()), &loaded)),
            Read::Nothing(found) => Ok(found),
        }
    }

    pub(super) async fn peek(&self, key: &SessionKey) -> Result<Option<Outline>, StoreError> {
        let name = ref_of(key);
        let latest = |outline: Outline| Outline { seen: self.touches.latest(&name, outline.seen), ..outline };
        match self.known(&name) {
            Some(Known::Whole(loaded)) => return Ok(Some(latest(loaded.record.outline()))),
            Some(Known::Outline(outline)) => return Ok(Some(latest(Outline::clone(&outline)))),
            None => {}
        }
        let reading = self.cache.reads(name);
        let record = self.names.record(&name);
        let answer = self.ask(&name, &record, &index::outline_of(&record)).await?;
        match record::outline(answer) {
            Ok(Some((outline, _))) => {
                reading.found(Known::Outline(Arc::new(outline.clone())));
                Ok(Some(latest(outline)))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                self.unusable(&name, error);
                Ok(None)
            }
        }
    }

    /// Indexes first: they may name what is not there, and must name what is.
    pub(super) async fn create(
        &self,
        handle: &Handle,
        record: &Record,
        idle: Duration,
    ) -> Result<Presence, StoreError> {
        let stored = sealed::seal(&self.keys, handle, record).ok_or_else(no_randomness)?;
        let maker = caller()?;
        self.enter(handle.key(), &record.outline(), idle).await?;
        let left = idle.min(record.absolute_end.since(record.seen));
        let answer = self.run(&script::CREATE, ref_of(handle.key()), |command| {
            command.arg(&maker[..]).arg(millis(left).saturating_add(script::MARGIN));
            record::write(command, handle.key(), &stored, record.absolute_end, millis(idle));
        });
        Ok(presence(&answer.await?)?)
    }

    /// Activity of a session that was active a moment ago may wait to be written. What comes after a longer
    /// pause is written at once, before another node finds the session idle.
    pub(super) async fn touched(
        &self,
        key: &SessionKey,
        seen: Timestamp,
        idle: Duration,
    ) -> Result<Presence, StoreError> {
        let name = ref_of(key);
        let Some(life) = self.known(&name).map(|known| known.life()) else {
            return Ok(self.touch(&name, Touch::now(seen, idle)).await?);
        };
        if seen.since(self.touches.latest(&name, life.seen)) >= idle || seen >= life.absolute_end {
            return Ok(Presence::Gone);
        }
        self.touches.note(name, seen, idle);
        if seen.since(life.seen) < idle / 4 {
            return Ok(Presence::Present);
        }
        Ok(self.write(&name).await?)
    }

    pub(super) async fn swap_chain(&self, key: &SessionKey, revision: u64, chain: &Chain) -> Result<Swap, StoreError> {
        let chain = sealed::write_chain(chain).ok_or(LinkError::Odd("a chain cannot be written"))?;
        let answer = self.run(&script::SWAP, ref_of(key), |command| {
            command.arg(revision).arg(chain);
        });
        Ok(swap(&answer.await?)?)
    }

    /// Compare-and-swap on the vault, whole: a change depends on what else is in it.
    pub(super) async fn change_vault(
        &self,
        handle: &Handle,
        changes: &[VaultChange],
        now: Timestamp,
    ) -> Result<Presence, StoreError> {
        let name = ref_of(handle.key());
        let mut known = self.known(&name);
        for _ in 0..ATTEMPTS {
            let loaded = match known.take() {
                Some(Known::Whole(loaded)) => loaded,
                Some(Known::Outline(_)) | None => match self.read(handle, now).await? {
                    Read::Session(loaded) => loaded,
                    Read::Nothing(_) => return Ok(Presence::Gone),
                },
            };
            let Some(vault) = loaded.record.vault.changed(changes, now) else { return Ok(Presence::Present) };
            let sealer = Sealer::new(&self.keys, loaded.key, handle).ok_or_else(no_randomness)?;
            let difference = record::difference(&sealer, &loaded.readable, &loaded.record.vault, &vault);
            let difference = difference.ok_or_else(no_randomness)?;
            let answer = self.run(&script::VAULT, name, |command| {
                command.arg(loaded.version).arg(difference);
            });
            match answer::number(&answer.await?)? {
                // Another change came first.
                0 => {}
                1.. => return Ok(Presence::Present),
                ..0 => return Ok(Presence::Gone),
            }
        }
        Err(StoreError::Unavailable("the vault of a session is changed all the time".into()))
    }

    /// Compare-and-swap on the sealed identity, which nothing else changes.
    pub(super) async fn bind(&self, handle: &Handle) -> Result<Presence, StoreError> {
        let name = ref_of(handle.key());
        let key = self.names.record(&name);
        for _ in 0..ATTEMPTS {
            let answer = self.ask(&name, &key, redis::cmd("HGETALL").arg(&key)).await?;
            let opened = match record::read(answer) {
                Ok(Stored::Session { sealed, .. }) => {
                    sealed::open(&self.keys, handle, &sealed).map(|opened| (sealed, opened))
                }
                Ok(Stored::Tombstone(_) | Stored::Absent) => return Ok(Presence::Gone),
                Err(error) => Err(error),
            };
            let (sealed, (record, number)) = match opened {
                Ok(opened) => opened,
                Err(error) => {
                    self.unusable(&name, error);
                    return Ok(Presence::Gone);
                }
            };
            let Some((identity, device)) = record.identity.zip(record.device) else { return Ok(Presence::Gone) };
            if device.is_bound() {
                return Ok(Presence::Present);
            }
            let sealer = Sealer::new(&self.keys, number, handle).ok_or_else(no_randomness)?;
            let bound = sealed::seal_identity(&sealer, &identity.user, Some(&device.bound()), &sealed.readable);
            let bound = bound.ok_or_else(no_randomness)?;
            let answer = self.run(&script::BIND, name, |command| {
                command.arg(sealed.identity).arg(bound);
            });
            if presence(&answer.await?)? == Presence::Present {
                return Ok(Presence::Present);
            }
        }
        Err(StoreError::Unavailable("the identity of a session is changed all the time".into()))
    }
}

enum Read {
    Session(Arc<Loaded>),
    Nothing(Found),
}

/// Who asks: one that has not heard the answer asks again, and is told the same.
pub(super) fn caller() -> Result<[u8; 8], StoreError> {
    let mut name = [0; 8];
    aws_lc_rs::rand::fill(&mut name).map_err(|_| no_randomness())?;
    Ok(name)
}

pub(super) fn no_randomness() -> StoreError {
    StoreError::Unavailable("the system gives no randomness".into())
}

pub(super) fn swap(answer: &Value) -> Result<Swap, LinkError> {
    Ok(match answer::number(answer)? {
        0 => Swap::Stale,
        1.. => Swap::Swapped,
        ..0 => Swap::Gone,
    })
}

pub(super) fn presence(answer: &Value) -> Result<Presence, LinkError> {
    Ok(if answer::number(answer)? == 1 { Presence::Present } else { Presence::Gone })
}
