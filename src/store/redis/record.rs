//! A record as the fields of a hash, and back.

use redis::Cmd;
use redis::Value;

use crate::clock::Timestamp;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::policy::vault::Vault;
use crate::store::redis::answer;
use crate::store::redis::script;
use crate::store::sealed;
use crate::store::sealed::Sealed;
use crate::store::sealed::SealedCookie;
use crate::store::sealed::Sealer;
use crate::store::sealed::Unusable;

/// What is found under the key of a record.
pub(super) enum Stored {
    Session {
        sealed: Sealed,
        /// The version of the vault.
        version: u64,
    },
    /// Since when.
    Tombstone(Timestamp),
    Absent,
}

/// Reads the fields of a hash, from a command or from a script.
///
/// # Errors
/// When some are missing.
pub(super) fn read(answer: Value) -> Result<Stored, Unusable> {
    let mut sealed = Sealed {
        readable: Vec::new(),
        identity: None,
        chain: Vec::new(),
        cookies: Vec::new(),
        revision: 0,
        seen: Timestamp::default(),
    };
    let (mut version, mut tombstone, mut is_empty) = (None, None, true);
    if answer == Value::Int(script::GONE) {
        return Ok(Stored::Absent);
    }
    let mut is_ended = false;
    for [name, value] in answer::pairs(answer).ok_or(Unusable::Damaged)? {
        is_empty = false;
        match &name[..] {
            b"o" => sealed.readable = value,
            b"i" => sealed.identity = Some(value),
            b"c" => sealed.chain = value,
            b"r" => sealed.revision = number(&value).ok_or(Unusable::Damaged)?,
            b"w" => version = Some(number(&value).ok_or(Unusable::Damaged)?),
            b"s" => sealed.seen = Timestamp::from_millis(number(&value).ok_or(Unusable::Damaged)?),
            b"q" => is_ended = true,
            b"x" => tombstone = number(&value).map(Timestamp::from_millis),
            [b'v', field @ ..] => {
                let field = field.try_into().map_err(|_| Unusable::Damaged)?;
                sealed.cookies.push(SealedCookie { field, sealed: value });
            }
            _ => {}
        }
    }
    match (tombstone, version) {
        (Some(since), _) => Ok(Stored::Tombstone(since)),
        (None, Some(version)) => Ok(Stored::Session { sealed, version }),
        (None, None) if is_empty || is_ended => Ok(Stored::Absent),
        (None, None) => Err(Unusable::Damaged),
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The arguments of `CREATE` behind its first two: fields and values.
pub(super) fn write(command: &mut Cmd, key: &SessionKey, sealed: &Sealed, absolute_end: Timestamp, idle: u64) {
    command.arg("k").arg(&key.0[..]).arg("o").arg(&sealed.readable).arg("c").arg(&sealed.chain);
    command.arg("r").arg(sealed.revision).arg("w").arg(0);
    command.arg("s").arg(sealed.seen.as_millis()).arg("e").arg(absolute_end.as_millis()).arg("d").arg(idle);
    if let Some(identity) = &sealed.identity {
        command.arg("i").arg(identity);
    }
    for cookie in &sealed.cookies {
        command.arg(field(cookie.field)).arg(&cookie.sealed);
    }
}

fn field(name: [u8; 16]) -> Vec<u8> {
    [b"v", &name[..]].concat()
}

/// The arguments of `VAULT` behind its first: what goes, and what is set, from one vault to the next.
/// `None` when the system gives no randomness.
pub(super) fn difference(sealer: &Sealer, readable: &[u8], old: &Vault, new: &Vault) -> Option<Vec<Vec<u8>>> {
    let places = |vault: &Vault| vault.cookies().iter().map(|cookie| sealer.field(cookie)).collect::<Vec<_>>();
    let (before, after) = (places(old), places(new));
    let gone: Vec<_> = before.iter().filter(|place| !after.contains(place)).collect();
    let mut arguments = vec![gone.len().to_string().into_bytes()];
    arguments.extend(gone.into_iter().map(|place| field(*place)));
    for cookie in new.cookies().iter().filter(|cookie| !old.cookies().contains(cookie)) {
        let SealedCookie { field: place, sealed } = sealed::seal_cookie(sealer, cookie, readable)?;
        arguments.extend([field(place), sealed]);
    }
    Some(arguments)
}

/// A record without what is sealed: the answer to `HMGET o s d`, with how long it may idle. `None` when there
/// is no such record.
///
/// # Errors
/// When it is not one of ours.
pub(super) fn outline(answer: Value) -> Result<Option<(Outline, u64)>, Unusable> {
    if answer == Value::Int(script::GONE) {
        return Ok(None);
    }
    let mut fields = answer::members(answer).ok_or(Unusable::Damaged)?.into_iter();
    if fields.as_slice().first() == Some(&Value::Nil) {
        return Ok(None);
    }
    let mut field = || fields.next().and_then(answer::bytes).ok_or(Unusable::Damaged);
    let (readable, seen, idle) = (field()?, field()?, field()?);
    let seen = Timestamp::from_millis(number(&seen).ok_or(Unusable::Damaged)?);
    let idle = number(&idle).ok_or(Unusable::Damaged)?;
    Ok(Some((sealed::read_outline(&readable, seen)?, idle)))
}
