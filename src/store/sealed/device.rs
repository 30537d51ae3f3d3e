//! What is kept of a browser's key outside the process: sealed under the identifier that only the browser
//! has. Who reads a store learns nothing; who writes to it can take a browser's key away, and put none of
//! their own under an identifier that they do not know.

use std::sync::Arc;

use aws_lc_rs::aead::AES_256_GCM;
use aws_lc_rs::aead::Aad;
use aws_lc_rs::aead::NONCE_LEN;
use aws_lc_rs::aead::Nonce;
use aws_lc_rs::aead::RandomizedNonceKey;
use aws_lc_rs::hkdf;
use serde::Deserialize;
use serde::Serialize;

use crate::clock::Timestamp;
use crate::policy::dbsc::BoundKey;
use crate::policy::dbsc::Challenge;
use crate::policy::dbsc::Challenges;
use crate::policy::dbsc::Identifier;
use crate::policy::dbsc::PublicKey;
use crate::policy::dbsc::Registration;
use crate::policy::session::SessionKey;
use crate::store::sealed::Unusable;

/// The first byte. Another one is from a version that we cannot read.
const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Form<'a> {
    session: [u8; 32],
    site: &'a str,
    #[serde(borrow)]
    key: KeyForm<'a>,
    bound: [u8; 32],
    current: ([u8; 32], u64),
    previous: Option<([u8; 32], u64)>,
    absolute_end: u64,
}

#[derive(Serialize, Deserialize)]
enum KeyForm<'a> {
    Es256(&'a [u8]),
    Rs256 { n: &'a [u8], e: &'a [u8] },
}

fn key(identifier: &Identifier) -> Option<RandomizedNonceKey> {
    let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, b"vestibule device").extract(identifier.bytes());
    let mut key = [0; 32];
    secret.expand(&[b"seal"], hkdf::HKDF_SHA256).ok()?.fill(&mut key).ok()?;
    RandomizedNonceKey::new(&AES_256_GCM, &key).ok()
}

/// Seals it. `None` when the system gives no randomness.
pub fn seal(identifier: &Identifier, registration: &Registration) -> Option<Vec<u8>> {
    let form = |challenge: &Challenge| (challenge.value, challenge.since.as_millis());
    let form = Form {
        session: registration.session.0,
        site: &registration.site,
        key: match &registration.key {
            PublicKey::Es256(point) => KeyForm::Es256(point),
            PublicKey::Rs256 { n, e } => KeyForm::Rs256 { n, e },
        },
        bound: *registration.bound.bytes(),
        current: form(&registration.challenges.current),
        previous: registration.challenges.previous.as_ref().map(form),
        absolute_end: registration.absolute_end.as_millis(),
    };
    let mut sealed = postcard::to_allocvec(&form).ok()?;
    let nonce = key(identifier)?.seal_in_place_append_tag(Aad::from([VERSION]), &mut sealed).ok()?;
    Some([&[VERSION][..], nonce.as_ref(), &sealed].concat())
}

/// Opens it for whoever has the identifier.
///
/// # Errors
/// When it was not written by us, for this identifier, as it stands.
pub fn open(identifier: &Identifier, stored: &[u8]) -> Result<Registration, Unusable> {
    let ([version], sealed) = stored.split_first_chunk().ok_or(Unusable::Damaged)?;
    if *version != VERSION {
        return Err(Unusable::Version);
    }
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>().ok_or(Unusable::Damaged)?;
    let mut text = sealed.to_vec();
    let key = key(identifier).ok_or(Unusable::Damaged)?;
    let text = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from([VERSION]), &mut text);
    let text = text.map_err(|_| Unusable::Forged)?;
    let form: Form<'_> = postcard::from_bytes(text).map_err(|_| Unusable::Damaged)?;
    let challenge = |(value, since)| Challenge { value, since: Timestamp::from_millis(since) };
    Ok(Registration {
        session: SessionKey(form.session),
        site: Arc::from(form.site),
        key: match form.key {
            KeyForm::Es256(point) => PublicKey::Es256(point.try_into().map_err(|_| Unusable::Damaged)?),
            KeyForm::Rs256 { n, e } => PublicKey::Rs256 { n: n.to_vec(), e: e.to_vec() },
        },
        bound: BoundKey::of(form.bound),
        challenges: Challenges { current: challenge(form.current), previous: form.previous.map(challenge) },
        absolute_end: Timestamp::from_millis(form.absolute_end),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::dbsc::Device;
    use crate::store::fixtures::at;
    use crate::store::fixtures::handle;

    fn identifier(number: u8) -> Identifier {
        Device::offered([number; 32]).identifier()
    }

    fn registration(key: PublicKey) -> Registration {
        Registration {
            session: *handle(1).key(),
            site: Arc::from("https://app.test"),
            key,
            bound: BoundKey::of([0x7e; 32]),
            challenges: Challenges::begin([1; 32], at(5)).next([2; 32], at(6)),
            absolute_end: at(9),
        }
    }

    #[test]
    fn what_was_sealed_is_opened_by_its_identifier_alone() {
        for key in [PublicKey::Es256([4; 65]), PublicKey::Rs256 { n: vec![0xff; 512], e: vec![1, 0, 1] }] {
            let before = registration(key);
            let sealed = seal(&identifier(1), &before).unwrap();
            assert_eq!(open(&identifier(1), &sealed), Ok(before));
            assert_eq!(open(&identifier(2), &sealed), Err(Unusable::Forged));
            assert!(!sealed.windows(4).any(|window| window == [0x7e; 4]), "S18");
            let newer = [&[VERSION + 1], &sealed[1..]].concat();
            assert_eq!(open(&identifier(1), &newer), Err(Unusable::Version));
        }
        assert_eq!(open(&identifier(1), &[]), Err(Unusable::Damaged));
    }

    proptest! {
        #[test]
        fn every_changed_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut sealed = seal(&identifier(1), &registration(PublicKey::Es256([4; 65]))).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1_u8 << bit;
            prop_assert!(open(&identifier(1), &sealed).is_err());
        }
    }
}
