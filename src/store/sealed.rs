//! How a record looks outside the process (S18, S184, product 3.1): a readable part that is never
//! believed, and sealed fields that only the holder of the selector can open or make. Who reads a
//! store learns names and times; who writes to it can end sessions, and change none into another's. To
//! invent one, with a selector of their own, they need the store's key as well; without such a key, the right
//! to write is all that this rests on.
//!
//! Each sealed field is AES-256-GCM under HKDF-SHA256(key, selector) with a random nonce; the readable
//! part and the field's own name are its associated data, so that no field works in another record,
//! in another place, or beside other facts.

pub mod device;
pub mod keys;

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::aead::AES_256_GCM;
use aws_lc_rs::aead::Aad;
use aws_lc_rs::aead::NONCE_LEN;
use aws_lc_rs::aead::Nonce;
use aws_lc_rs::aead::RandomizedNonceKey;
use aws_lc_rs::digest;
use aws_lc_rs::hkdf;
use bytes::Bytes;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::policy::binding::Binding;
use crate::policy::chain::Chain;
use crate::policy::chain::Turn;
use crate::policy::chain::VerifierDigest;
use crate::policy::cookie::SameSite;
use crate::policy::dbsc::Device;
use crate::policy::session::Handle;
use crate::policy::session::Identity;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::session::UserName;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultCookie;
use crate::store::sealed::keys::KeyNumber;
use crate::store::sealed::keys::Keys;

/// The first byte of every readable part. Another one is from a version that we cannot read.
const VERSION: u8 = 3;
/// The same where a device is sealed with the identity. Since the readable part is fixed and sealed fields
/// are tied to it, nobody takes a device out.
const WITH_DEVICE: u8 = 4;

/// What the name of a sealed field is derived from; also keeps fields of different kinds apart.
const IDENTITY: &[u8] = b"identity";

/// Why stored bytes are not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Written by another version: its owner logs in again (VR-28).
    #[error("the record was written by another version")]
    Version,
    /// Bytes are missing or wrong.
    #[error("the record is damaged")]
    Damaged,
    /// Somebody changed it, or put it where it does not belong (S184).
    #[error("the record was changed by somebody else")]
    Forged,
    /// It is no record at all: somebody put it there by mistake.
    #[error("there is something else in the place of the record")]
    Foreign,
}

/// One cookie of the vault, sealed, under a name that tells nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedCookie {
    /// From the cookie's name, domain and path, under the session's key.
    pub field: [u8; 16],
    /// Nonce, ciphertext and tag.
    pub sealed: Vec<u8>,
}

/// A record, ready to be stored. What changes often stands apart, so that it can be changed alone.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Version and outline; fixed for the life of the record.
    pub readable: Vec<u8>,
    /// `None` for an anonymous session.
    pub identity: Option<Vec<u8>>,
    /// The chain; digests and what is sealed under verifiers.
    pub chain: Vec<u8>,
    /// The vault.
    pub cookies: Vec<SealedCookie>,
    /// As [`Record::revision`].
    pub revision: u64,
    /// As [`Record::seen`].
    pub seen: Timestamp,
}

#[derive(Serialize, Deserialize)]
struct ReadableForm<'a> {
    site: &'a str,
    user: Option<&'a str>,
    session_ref: &'a str,
    created: u64,
    authenticated: Option<u64>,
    absolute_end: u64,
    address: IpAddr,
    user_agent: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct ChainForm<'a> {
    current: VerifierDigest,
    minted: u64,
    turn: TurnForm,
    #[serde(borrow)]
    holder: Option<(IpAddr, Option<&'a str>)>,
}

#[derive(Serialize, Deserialize)]
enum TurnForm {
    Steady,
    Offered { successor: VerifierDigest, sealed: [u8; 16], minted: u64, shared: bool },
    Confirmed { predecessor: VerifierDigest, at: u64 },
}

#[derive(Serialize, Deserialize)]
struct CookieForm<'a> {
    name: &'a [u8],
    value: &'a [u8],
    path: &'a str,
    domain: Option<&'a str>,
    expires: Option<u64>,
    same_site: Option<u8>,
    created: u64,
    used: u64,
}

/// The key of one session's sealed fields.
pub struct Sealer {
    key: RandomizedNonceKey,
    /// For the names of fields.
    names: [u8; 32],
}

impl Sealer {
    /// Derived from the selector and one of the keys, which no store has.
    pub fn new(keys: &Keys, number: KeyNumber, handle: &Handle) -> Option<Self> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, keys.salt(number)?).extract(handle.selector());
        let derive = |purpose: &[&[u8]]| {
            let mut bytes = [0; 32];
            secret.expand(purpose, hkdf::HKDF_SHA256).ok()?.fill(&mut bytes).ok()?;
            Some(bytes)
        };
        let (key, names) = (derive(&[b"seal"])?, derive(&[b"names"])?);
        Some(Self { key: RandomizedNonceKey::new(&AES_256_GCM, &key).ok()?, names })
    }

    fn seal(&self, text: &[u8], readable: &[u8], field: &[u8]) -> Option<Vec<u8>> {
        let mut sealed = text.to_vec();
        let nonce = self.key.seal_in_place_append_tag(Aad::from(associated(readable, field)), &mut sealed).ok()?;
        Some([nonce.as_ref(), sealed.as_slice()].concat())
    }

    fn open(&self, sealed: &[u8], readable: &[u8], field: &[u8]) -> Result<Vec<u8>, Unusable> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unusable::Damaged)?;
        let mut text = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = self.key.open_in_place(nonce, Aad::from(associated(readable, field)), &mut text);
        let length = opened.map_err(|_| Unusable::Forged)?.len();
        text.truncate(length);
        Ok(text)
    }

    /// A cookie's place in the record: stable, so that setting it again replaces it.
    pub fn field(&self, cookie: &VaultCookie) -> [u8; 16] {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(&self.names);
        for part in [&cookie.name[..], cookie.path.as_bytes(), cookie.domain.as_deref().unwrap_or("").as_bytes()] {
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let mut field = [0; 16];
        field.copy_from_slice(&hash.finish().as_ref()[..16]);
        field
    }
}

/// What a sealed field is tied to.
fn associated(readable: &[u8], field: &[u8]) -> Vec<u8> {
    [&(readable.len() as u64).to_le_bytes()[..], readable, field].concat()
}

/// Seals a record with the first key. `None` when the system gives no randomness.
pub fn seal(keys: &Keys, handle: &Handle, record: &Record) -> Option<Sealed> {
    let sealer = Sealer::new(keys, KeyNumber::default(), handle)?;
    let version = if record.device.is_some() { WITH_DEVICE } else { VERSION };
    let readable = write_outline(version, handle.key(), &record.outline())?;
    let identity = match &record.identity {
        Some(identity) => Some(seal_identity(&sealer, &identity.user, record.device.as_deref(), &readable)?),
        None => None,
    };
    let cookies = record.vault.cookies().into_iter().map(|cookie| seal_cookie(&sealer, &cookie, &readable));
    Some(Sealed {
        identity,
        chain: write_chain(&record.chain)?,
        cookies: cookies.collect::<Option<_>>()?,
        revision: record.revision,
        seen: record.seen,
        readable,
    })
}

/// Seals who it is, and what the session is bound to.
pub fn seal_identity(sealer: &Sealer, user: &UserName, device: Option<&Device>, readable: &[u8]) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    if let Some(device) = device {
        text.push(u8::from(device.is_bound()));
        text.extend_from_slice(device.secret());
    }
    text.extend_from_slice(user.as_str().as_bytes());
    sealer.seal(&text, readable, IDENTITY)
}

/// Seals one cookie, as a field beside the others.
pub fn seal_cookie(sealer: &Sealer, cookie: &VaultCookie, readable: &[u8]) -> Option<SealedCookie> {
    let form = CookieForm {
        name: &cookie.name,
        value: &cookie.value,
        path: &cookie.path,
        domain: cookie.domain.as_deref(),
        expires: cookie.expires.map(Timestamp::as_millis),
        same_site: cookie.same_site.map(|same_site| match same_site {
            SameSite::Strict => 0,
            SameSite::Lax => 1,
            SameSite::None => 2,
        }),
        created: cookie.created.as_millis(),
        used: cookie.used.as_millis(),
    };
    let field = sealer.field(cookie);
    let sealed = sealer.seal(&postcard::to_allocvec(&form).ok()?, readable, &field)?;
    Some(SealedCookie { field, sealed })
}

/// Opens a record for whoever presented its selector. Says which key it is sealed with: what is put beside
/// the rest later is sealed with the same one.
///
/// # Errors
/// When it was not written by us, for this session, as it stands.
pub fn open(keys: &Keys, handle: &Handle, stored: &Sealed) -> Result<(Record, KeyNumber), Unusable> {
    let mut unusable = Unusable::Forged;
    for number in keys.numbers() {
        let sealer = Sealer::new(keys, number, handle).ok_or(Unusable::Damaged)?;
        match open_with(&sealer, handle, stored) {
            Ok(record) => return Ok((record, number)),
            // Another key may fit.
            Err(error) => unusable = error,
        }
    }
    Err(unusable)
}

fn open_with(sealer: &Sealer, handle: &Handle, stored: &Sealed) -> Result<Record, Unusable> {
    let outline = read_outline(&stored.readable, stored.seen)?;
    let (identity, device) = match (&stored.identity, outline.authenticated) {
        (Some(sealed), Some(authenticated)) => {
            let text = sealer.open(sealed, &stored.readable, IDENTITY)?;
            let (device, user) = read_device(&stored.readable, &text)?;
            let user = std::str::from_utf8(user).ok().and_then(|user| UserName::parse(user).ok());
            let user = user.ok_or(Unusable::Damaged)?;
            (Some(Identity { user, authenticated, session_ref: handle.key().session_ref() }), device)
        }
        (None, None) => (None, None),
        // A user without proof, or proof without the time it is about.
        (Some(_), None) | (None, Some(_)) => return Err(Unusable::Forged),
    };
    let mut cookies = Vec::with_capacity(stored.cookies.len());
    for cookie in &stored.cookies {
        cookies.push(open_cookie(sealer, cookie, &stored.readable)?);
    }
    cookies.sort_by_key(|cookie| cookie.created);
    Ok(Record {
        site: outline.site,
        identity,
        created: outline.created,
        seen: stored.seen,
        absolute_end: outline.absolute_end,
        chain: read_chain(&stored.chain)?,
        binding: outline.binding,
        vault: Vault::of(&cookies),
        device,
        revision: stored.revision,
    })
}

/// What is in front of the user's name.
fn read_device<'t>(readable: &[u8], text: &'t [u8]) -> Result<(Option<Box<Device>>, &'t [u8]), Unusable> {
    if readable.first() != Some(&WITH_DEVICE) {
        return Ok((None, text));
    }
    let ([is_bound], text) = text.split_first_chunk().ok_or(Unusable::Damaged)?;
    let (secret, user) = text.split_first_chunk().ok_or(Unusable::Damaged)?;
    Ok((Some(Box::new(Device::kept(*secret, *is_bound != 0))), user))
}

fn open_cookie(sealer: &Sealer, cookie: &SealedCookie, readable: &[u8]) -> Result<VaultCookie, Unusable> {
    let text = sealer.open(&cookie.sealed, readable, &cookie.field)?;
    let form: CookieForm<'_> = postcard::from_bytes(&text).map_err(|_| Unusable::Damaged)?;
    Ok(VaultCookie {
        name: Bytes::copy_from_slice(form.name),
        value: Bytes::copy_from_slice(form.value),
        path: form.path.to_owned(),
        domain: form.domain.map(str::to_owned),
        expires: form.expires.map(Timestamp::from_millis),
        same_site: match form.same_site {
            None => None,
            Some(0) => Some(SameSite::Strict),
            Some(1) => Some(SameSite::Lax),
            Some(_) => Some(SameSite::None),
        },
        created: Timestamp::from_millis(form.created),
        used: Timestamp::from_millis(form.used),
    })
}

fn write_outline(version: u8, key: &SessionKey, outline: &Outline) -> Option<Vec<u8>> {
    let form = ReadableForm {
        site: &outline.site,
        user: outline.user.as_ref().map(UserName::as_str),
        session_ref: &key.session_ref(),
        created: outline.created.as_millis(),
        authenticated: outline.authenticated.map(Timestamp::as_millis),
        absolute_end: outline.absolute_end.as_millis(),
        address: outline.binding.address,
        user_agent: outline.binding.user_agent.as_deref(),
    };
    postcard::to_extend(&form, vec![version]).ok()
}

/// Reads the part that needs no secret.
///
/// # Errors
/// When it is not one of ours.
pub fn read_outline(readable: &[u8], seen: Timestamp) -> Result<Outline, Unusable> {
    let (version, form) = readable.split_first().ok_or(Unusable::Damaged)?;
    if ![VERSION, WITH_DEVICE].contains(version) {
        return Err(Unusable::Version);
    }
    let form: ReadableForm<'_> = postcard::from_bytes(form).map_err(|_| Unusable::Damaged)?;
    Ok(Outline {
        site: Arc::from(form.site),
        user: form.user.map(UserName::parse).transpose().map_err(|_| Unusable::Damaged)?,
        created: Timestamp::from_millis(form.created),
        authenticated: form.authenticated.map(Timestamp::from_millis),
        seen,
        absolute_end: Timestamp::from_millis(form.absolute_end),
        binding: Binding::new(form.address, form.user_agent),
    })
}

/// The chain as bytes; `None` never happens, since the form has no part that cannot be written.
pub fn write_chain(chain: &Chain) -> Option<Vec<u8>> {
    let turn = match &chain.turn {
        Turn::Steady => TurnForm::Steady,
        Turn::Offered { successor, sealed, minted, shared } => {
            TurnForm::Offered { successor: *successor, sealed: *sealed, minted: minted.as_millis(), shared: *shared }
        }
        Turn::Confirmed { predecessor, at } => TurnForm::Confirmed { predecessor: *predecessor, at: at.as_millis() },
    };
    let holder = chain.holder.as_ref().map(|holder| (holder.address, holder.user_agent.as_deref()));
    postcard::to_allocvec(&ChainForm { current: chain.current, minted: chain.minted.as_millis(), turn, holder }).ok()
}

/// Reads a chain.
///
/// # Errors
/// When the bytes are none.
pub fn read_chain(bytes: &[u8]) -> Result<Chain, Unusable> {
    let form: ChainForm<'_> = postcard::from_bytes(bytes).map_err(|_| Unusable::Damaged)?;
    let turn = match form.turn {
        TurnForm::Steady => Turn::Steady,
        TurnForm::Offered { successor, sealed, minted, shared } => {
            Turn::Offered { successor, sealed, minted: Timestamp::from_millis(minted), shared }
        }
        TurnForm::Confirmed { predecessor, at } => Turn::Confirmed { predecessor, at: Timestamp::from_millis(at) },
    };
    let holder = form.holder.map(|(address, user_agent)| Binding::new(address, user_agent));
    Ok(Chain { current: form.current, minted: Timestamp::from_millis(form.minted), holder, turn })
}

#[cfg(test)]
mod tests;
