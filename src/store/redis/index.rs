//! The sessions of a site and of a user. An index is a sorted set of keys; it may name sessions that are
//! gone, so each one is looked up before it is said to be there.

use std::time::Duration;

use redis::Cmd;
use redis::Value;

use crate::clock::Timestamp;
use crate::policy::session::EndReason;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::store::Judge;
use crate::store::Page;
use crate::store::Population;
use crate::store::Presence;
use crate::store::StoreError;
use crate::store::redis::answer;
use crate::store::redis::link::LinkError;
use crate::store::redis::names;
use crate::store::redis::names::Kind;
use crate::store::redis::names::ref_of;
use crate::store::redis::record;
use crate::store::redis::script;
use crate::store::redis::verbs::Shared;
use crate::store::redis::verbs::millis;

/// Sessions that are looked at together.
const BATCH: usize = 256;
/// Batches of one index in one sweep.
const BATCHES: usize = 40;
/// Anonymous sessions among which the least recently used one is looked for.
const LOOKED_AT: usize = 16;

type Listed = (SessionKey, Outline);

/// Asks for what needs no secret.
pub(super) fn outline_of(record: &[u8]) -> Cmd {
    let mut command = redis::cmd("HMGET");
    command.arg(record).arg("o").arg("s").arg("d");
    command
}

fn kind(outline: &Outline) -> Kind {
    if outline.user.is_some() { Kind::Authenticated } else { Kind::Anonymous }
}

/// Keys of sessions; with scores when `step` is two.
fn keys(answer: Value, step: usize) -> Result<Vec<SessionKey>, LinkError> {
    let members = answer::members(answer).ok_or(LinkError::Odd("an index should be a list"))?;
    let key = |member| answer::bytes(member)?.try_into().ok().map(SessionKey);
    Ok(members.into_iter().step_by(step).filter_map(key).collect())
}

/// Where a list goes on.
struct Cursor {
    site: String,
    kind: Kind,
    at: u64,
}

impl Cursor {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('.');
        let (site, letter, at) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = Kind::ALL.into_iter().find(|kind| letter == kind.letter().to_string())?;
        parts.next().is_none().then_some(Self { site: site.to_owned(), kind, at: at.parse().ok()? })
    }

    fn write(&self) -> String {
        format!("{}.{}.{}", self.site, self.kind.letter(), self.at)
    }
}

impl Shared {
    /// Sends a command about an index. What is of another type is none of ours, and makes room: nobody could log
    /// in (S186).
    async fn index(&self, key: &[u8], command: &Cmd) -> Result<Value, LinkError> {
        match self.nodes.call(key, command).await {
            Err(error) if error.is_wrong_type() => {}
            answer => return answer,
        }
        let reads = if key == self.names.sites() { "SMEMBERS" } else { "ZCARD" };
        let cleared = self.nodes.call(key, script::CLEAR.on(key).arg(reads)).await?;
        if cleared == Value::Int(1) {
            tracing::error!(event = "store.index_unusable", key = %String::from_utf8_lossy(key));
        }
        self.nodes.call(key, command).await
    }

    /// The same for several; in one go if nothing is in the way.
    async fn indexes(&self, calls: &[(Vec<u8>, Cmd)]) -> Result<Vec<Value>, LinkError> {
        match self.nodes.call_all(calls).await {
            Err(error) if error.is_wrong_type() => {}
            answers => return answers,
        }
        let mut answers = Vec::with_capacity(calls.len());
        for (key, command) in calls {
            answers.push(self.index(key, command).await?);
        }
        Ok(answers)
    }

    /// Has the indexes name a session that is about to be there.
    pub(super) async fn enter(&self, key: &SessionKey, outline: &Outline, idle: Duration) -> Result<(), StoreError> {
        let sites = self.names.sites();
        let site = self.names.site(&outline.site, kind(outline));
        let (mut known, mut entry) = (redis::cmd("SADD"), redis::cmd("ZADD"));
        known.arg(&sites).arg(outline.site.as_bytes());
        let due = outline.seen.plus(idle).min(outline.absolute_end);
        entry.arg(&site).arg(due.as_millis()).arg(&key.0[..]);
        let mut calls = vec![(sites, known), (site, entry)];
        if let Some(user) = &outline.user {
            let user = self.names.user(user.as_str());
            let mut entry = script::INDEX.on(&user);
            entry.arg(&key.0[..]).arg(outline.absolute_end.as_millis()).arg(outline.created.as_millis());
            entry.arg(millis(outline.absolute_end.since(outline.created)).saturating_add(script::MARGIN));
            calls.push((user, entry));
        }
        self.indexes(&calls).await?;
        Ok(())
    }

    /// Has the indexes no longer name a session that has ended, and what is left of it no longer say by whom.
    /// Best effort: what they name is looked up.
    pub(super) async fn leave(&self, key: &SessionKey, outline: &Outline, by: [u8; 8]) {
        let mut indexes = vec![self.names.site(&outline.site, kind(outline))];
        indexes.extend(outline.user.as_ref().map(|user| self.names.user(user.as_str())));
        let call = |index: Vec<u8>| {
            let mut command = redis::cmd("ZREM");
            command.arg(&index).arg(&key.0[..]);
            (index, command)
        };
        let mut calls: Vec<_> = indexes.into_iter().map(call).collect();
        let record = self.names.record(&ref_of(key));
        let mut told = script::TOLD.on(&record);
        told.arg(&by[..]);
        calls.push((record, told));
        let _swept_later = self.nodes.call_all(&calls).await;
    }

    /// What is there of these sessions.
    async fn outlines(&self, keys: &[SessionKey]) -> Result<Vec<(SessionKey, Option<(Outline, u64)>)>, StoreError> {
        let call = |key: &SessionKey| {
            let record = self.names.record(&ref_of(key));
            let command = outline_of(&record);
            (record, command)
        };
        let calls: Vec<_> = keys.iter().map(call).collect();
        let answers = match self.nodes.call_all(&calls).await {
            Ok(answers) => answers,
            // One of them is something else: which one is found out one by one.
            Err(error) if error.is_wrong_type() => {
                let mut answers = Vec::with_capacity(keys.len());
                for (key, (record, command)) in keys.iter().zip(&calls) {
                    answers.push(self.ask(&ref_of(key), record, command).await?);
                }
                answers
            }
            Err(error) => return Err(error.into()),
        };
        let read = |(key, answer): (&SessionKey, Value)| {
            let name = ref_of(key);
            let found = record::outline(answer).unwrap_or_else(|error| {
                self.unusable(&name, error);
                None
            });
            let latest = |seen| self.touches.latest(&name, seen);
            (*key, found.map(|(outline, idle)| (Outline { seen: latest(outline.seen), ..outline }, idle)))
        };
        Ok(keys.iter().zip(answers).map(read).collect())
    }

    async fn there(&self, keys: &[SessionKey]) -> Result<Vec<Listed>, StoreError> {
        let found = self.outlines(keys).await?.into_iter();
        Ok(found.filter_map(|(key, found)| found.map(|(outline, _)| (key, outline))).collect())
    }

    /// The sessions of a user, the oldest first.
    pub(super) async fn of_user(&self, user: &str) -> Result<Vec<Listed>, StoreError> {
        let index = self.names.user(user);
        let answer = self.index(&index, redis::cmd("ZRANGE").arg(&index).arg(0).arg(-1)).await?;
        let mut found = self.there(&keys(answer, 1)?).await?;
        // Who writes to the index could have put others there.
        found.retain(|(_, outline)| outline.user.as_ref().is_some_and(|known| known.as_str() == user));
        found.sort_by_key(|(_, outline)| outline.created);
        Ok(found)
    }

    async fn sites(&self) -> Result<Vec<String>, StoreError> {
        let sites = self.names.sites();
        let answer = self.index(&sites, redis::cmd("SMEMBERS").arg(&sites)).await?;
        let names = answer::members(answer).ok_or(LinkError::Odd("the sites should be a set"))?;
        Ok(names.into_iter().filter_map(|name| String::from_utf8(answer::bytes(name)?).ok()).collect())
    }

    pub(super) async fn list(
        &self,
        user: Option<&str>,
        from: Option<&str>,
        limit: usize,
    ) -> Result<Option<Page>, StoreError> {
        let from = match from.map(Cursor::read) {
            Some(None) => return Ok(None),
            Some(from) => from,
            None => None,
        };
        match (user, &from) {
            // They are all on one page.
            (Some(user), None) => return Ok(Some(Page { sessions: self.of_user(user).await?, next: None })),
            (Some(_), Some(_)) => return Ok(None),
            (None, _) => {}
        }
        let mut indexes: Vec<_> = self.sites().await?.iter().map(|site| names::hashed(site)).collect();
        indexes.sort();
        let mut indexes = indexes.into_iter().flat_map(|site| Kind::ALL.map(|kind| (site.clone(), kind)));
        let mut at = match from {
            None => indexes.next().map(|(site, kind)| Cursor { site, kind, at: 0 }),
            Some(from) => match indexes.find(|(site, kind)| (site, *kind) == (&from.site, from.kind)) {
                Some(_) => Some(from),
                None => return Ok(None),
            },
        };
        let mut page = Page::default();
        while let Some(cursor) = at {
            if page.sessions.len() >= limit {
                page.next = Some(cursor.write());
                break;
            }
            let index = self.names.site_hashed(&cursor.site, cursor.kind);
            let mut command = redis::cmd("ZSCAN");
            command.arg(&index).arg(cursor.at).arg("COUNT").arg(limit.min(BATCH));
            let (next, found) = scanned(self.index(&index, &command).await?)?;
            page.sessions.extend(self.there(&found).await?);
            at = match next {
                0 => indexes.next().map(|(site, kind)| Cursor { site, kind, at: 0 }),
                next => Some(Cursor { at: next, ..cursor }),
            };
        }
        Ok(Some(page))
    }

    pub(super) async fn find(&self, session_ref: &str) -> Result<Option<SessionKey>, StoreError> {
        let Ok(name) = session_ref.as_bytes().try_into() else { return Ok(None) };
        let record = self.names.record(&name);
        let answer = self.ask(&name, &record, redis::cmd("HGET").arg(&record).arg("k")).await?;
        let key = answer::bytes(answer).and_then(|key| key.try_into().ok()).map(SessionKey);
        Ok(key.filter(|key| *key.session_ref() == *session_ref))
    }

    pub(super) async fn population(&self, site: &str) -> Result<Population, StoreError> {
        let call = |kind| {
            let index = self.names.site(site, kind);
            let mut command = redis::cmd("ZCARD");
            command.arg(&index);
            (index, command)
        };
        let sizes = self.indexes(&Kind::ALL.map(call)).await?;
        let sizes: Result<Vec<_>, _> = sizes.iter().map(answer::number).collect();
        let [authenticated, anonymous] = sizes?[..] else {
            return Err(LinkError::Odd("there should be two sizes").into());
        };
        let size = |number| usize::try_from(number).unwrap_or_default();
        Ok(Population { authenticated: size(authenticated), anonymous: size(anonymous) })
    }

    /// The least recently used of the few that are due first: an exact order would cost a write per request.
    pub(super) async fn evict_anonymous(&self, site: &str) -> Result<Option<Listed>, StoreError> {
        let index = self.names.site(site, Kind::Anonymous);
        let answer = self.index(&index, redis::cmd("ZRANGE").arg(&index).arg(0).arg(LOOKED_AT - 1)).await?;
        let found = self.there(&keys(answer, 1)?).await?;
        let Some((key, _)) = found.into_iter().min_by_key(|(_, outline)| outline.seen) else { return Ok(None) };
        let ended = self.remove(&key, false, Timestamp::default()).await?;
        Ok(ended.map(|outline| (key, outline)))
    }

    /// Looks at the sessions that may be over. Every node does; one of them ends each.
    pub(super) async fn sweep(
        &self,
        judge: Judge<'_>,
        now: Timestamp,
    ) -> Result<Vec<(SessionKey, Outline, EndReason)>, StoreError> {
        let mut ended = Vec::new();
        for site in self.sites().await? {
            for kind in Kind::ALL {
                let index = self.names.site(&site, kind);
                for _ in 0..BATCHES {
                    let mut command = redis::cmd("ZRANGEBYSCORE");
                    command.arg(&index).arg("-inf").arg(now.as_millis()).arg("LIMIT").arg(0).arg(BATCH);
                    let due = keys(self.index(&index, &command).await?, 1)?;
                    self.sweep_some(&index, &due, judge, now, &mut ended).await?;
                    if due.len() < BATCH {
                        break;
                    }
                }
            }
        }
        Ok(ended)
    }

    async fn sweep_some(
        &self,
        index: &[u8],
        due: &[SessionKey],
        judge: Judge<'_>,
        now: Timestamp,
        ended: &mut Vec<(SessionKey, Outline, EndReason)>,
    ) -> Result<(), StoreError> {
        for (key, found) in self.outlines(due).await? {
            let Some((outline, idle)) = found else {
                self.nodes.call(index, redis::cmd("ZREM").arg(index).arg(&key.0[..])).await?;
                continue;
            };
            match judge(&outline.site, outline.life()) {
                Some(reason) => {
                    if self.reap(&key, &outline).await? == Presence::Present {
                        ended.push((key, outline, reason));
                    }
                }
                None => {
                    let next = outline.seen.plus(Duration::from_millis(idle)).min(outline.absolute_end);
                    // Not at once: the judge may know another limit than the record.
                    let next = next.max(now.plus(Duration::from_secs(10)));
                    let mut command = script::LATER.on(index);
                    command.arg(&key.0[..]).arg(next.as_millis());
                    self.nodes.call(index, &command).await?;
                }
            }
        }
        Ok(())
    }
}

fn scanned(answer: Value) -> Result<(u64, Vec<SessionKey>), LinkError> {
    let odd = || LinkError::Odd("a scan should be a cursor and a list");
    let mut parts = answer::members(answer).ok_or_else(odd)?.into_iter();
    let cursor = parts.next().and_then(answer::bytes).and_then(|text| String::from_utf8(text).ok()?.parse().ok());
    Ok((cursor.ok_or_else(odd)?, keys(parts.next().ok_or_else(odd)?, 2)?))
}
