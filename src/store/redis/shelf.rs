//! The shelf in Redis: a value is one key, read from whoever is master, never from what was known before.

use std::time::Duration;

use bytes::Bytes;
use redis::Value;

use crate::store::StoreError;
use crate::store::Swap;
use crate::store::redis::answer;
use crate::store::redis::link::LinkError;
use crate::store::redis::script;
use crate::store::redis::verbs::Shared;
use crate::store::redis::verbs::millis;
use crate::store::redis::verbs::no_randomness;
use crate::store::redis::verbs::swap;
use crate::store::shelf;
use crate::store::shelf::Name;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

impl Shared {
    pub(super) async fn shelved(&self, name: &Name) -> Result<Option<Shelved>, StoreError> {
        let key = self.names.value(name);
        let answer = self.nodes.call(&key, redis::cmd("HMGET").arg(&key).arg("w").arg("v")).await?;
        Ok(read(answer)?)
    }

    /// The version is drawn by whoever writes, so that a call that is sent twice is told from another's.
    pub(super) async fn shelve(
        &self,
        name: &Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
    ) -> Result<Swap, StoreError> {
        shelf::measure(&value)?;
        let mut version = [0; 8];
        aws_lc_rs::rand::fill(&mut version).map_err(|_| no_randomness())?;
        let key = self.names.value(name);
        let script = if expected.is_some() { &script::REPLACE } else { &script::SHELVE };
        let mut command = script.on(&key);
        command.arg(u64::from_le_bytes(version)).arg(&value[..]).arg(millis(lives));
        if let Some(Version(expected)) = expected {
            command.arg(expected);
        }
        Ok(swap(&self.nodes.call(&key, &command).await?)?)
    }

    pub(super) async fn unshelve(&self, name: &Name) -> Result<(), StoreError> {
        let key = self.names.value(name);
        self.nodes.call(&key, redis::cmd("DEL").arg(&key)).await?;
        Ok(())
    }
}

fn read(answer: Value) -> Result<Option<Shelved>, LinkError> {
    let odd = || LinkError::Odd("a value should have a version and bytes");
    let mut fields = answer::members(answer).ok_or_else(odd)?.into_iter();
    if fields.as_slice().first() == Some(&Value::Nil) {
        return Ok(None);
    }
    let mut field = || fields.next().and_then(answer::bytes).ok_or_else(odd);
    let (version, value) = (field()?, field()?);
    let version = std::str::from_utf8(&version).ok().and_then(|text| text.parse().ok()).ok_or_else(odd)?;
    Ok(Some(Shelved { version: Version(version), value: Bytes::from(value) }))
}
