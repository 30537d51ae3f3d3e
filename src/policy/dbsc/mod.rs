//! Device bound sessions (W3C Device Bound Session Credentials, DBSC): the browser proves again and
//! again that it holds a key that does not leave its device, and gets a short-lived cookie for it.
//! Whoever copies the session's cookie has not got that one for long.
//!
//! A session is *offered* when its user has logged in, and *bound* once the browser has registered a
//! key. Everything that is issued for it comes from one secret, which is sealed in the record.

mod bound;
mod challenge;
mod fields;
mod possession;
mod proof;
mod refused;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::policy::session::SessionKey;

pub use self::bound::BOUND_LIFETIME;
pub use self::bound::BoundKey;
pub use self::challenge::Answered;
pub use self::challenge::Challenge;
pub use self::challenge::Challenges;
pub use self::fields::CHALLENGE;
pub use self::fields::Endpoint;
pub use self::fields::REGISTRATION;
pub use self::fields::RESPONSE;
pub use self::fields::SESSION_ID;
pub use self::fields::SKIPPED;
pub use self::fields::challenge;
pub use self::fields::instructions;
pub use self::fields::is_scripts;
pub use self::fields::registration;
pub use self::fields::skipped;
pub use self::fields::text;
pub use self::possession::Lack;
pub use self::possession::Possession;
pub use self::possession::can_try_again;
pub use self::possession::possession;
pub use self::proof::Answer;
pub use self::proof::BadProof;
pub use self::proof::PublicKey;
pub use self::proof::answer;
pub use self::proof::signed;
pub use self::refused::RefusedDevice;

/// A browser registers at once when it is told to; after this it does not register any more.
pub const OFFER_LIFETIME: Duration = Duration::from_secs(60);

/// `[session] device_bound`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceBound {
    /// Nothing is offered, and nobody is asked.
    #[default]
    Off,
    /// Browsers that can are bound; others are not.
    Prefer,
    /// Who has not registered a minute after the login logs in again.
    Require,
}

/// What a record knows of the device that its session is bound to, or may be.
#[derive(Clone, PartialEq, Eq)]
pub struct Device {
    secret: [u8; 32],
    is_bound: bool,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_bound { "Device(bound)" } else { "Device(offered)" })
    }
}

impl Device {
    /// From 32 random bytes: nobody has registered yet.
    pub fn offered(secret: [u8; 32]) -> Self {
        Self { secret, is_bound: false }
    }

    /// As it was kept.
    pub fn kept(secret: [u8; 32], is_bound: bool) -> Self {
        Self { secret, is_bound }
    }

    /// The same with a key registered.
    pub fn bound(&self) -> Self {
        Self { secret: self.secret, is_bound: true }
    }

    /// Whether a key is registered.
    pub fn is_bound(&self) -> bool {
        self.is_bound
    }

    /// The secret. One caller: what seals it.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// What a registration has to answer.
    pub fn offer(&self) -> Offer {
        Offer { challenge: encoded(&self.derive(b"challenge")), authorization: encoded(&self.derive(b"authorization")) }
    }

    /// What the browser calls the session by; tells nothing about its ID.
    pub fn identifier(&self) -> Identifier {
        Identifier(self.derive(b"identifier"))
    }

    /// What its bound cookies are made with.
    pub fn bound_key(&self) -> BoundKey {
        BoundKey::of(self.derive(b"bound cookie"))
    }

    fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.secret));
        context.update(b"vestibule dbsc ");
        context.update(purpose);
        let mut bytes = [0; 32];
        bytes.copy_from_slice(context.sign().as_ref());
        bytes
    }
}

/// What a registration has to answer: both are good for one, and for a minute.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// To be signed.
    pub challenge: String,
    /// Says which login it comes from.
    pub authorization: String,
}

/// What is kept beside the sessions of a browser that has registered: found and opened by the identifier
/// alone, since browsers refresh without any cookie when another site asks for the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The session that is bound. Without it this is worth nothing.
    pub session: SessionKey,
    /// Which site it is of: valid only there.
    pub site: Arc<str>,
    /// What the browser signs with.
    pub key: PublicKey,
    /// What bound cookies are made with.
    pub bound: BoundKey,
    /// What it has to sign.
    pub challenges: Challenges,
    /// When the session ends in any case.
    pub absolute_end: Timestamp,
}

/// What the browser calls a bound session by. The record of the device is kept under its hash, and sealed
/// under itself: it is a secret between the browser and us, though it opens nothing without the key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Identifier([u8; 32]);

impl fmt::Debug for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identifier(..)")
    }
}

impl Identifier {
    /// Canonical base64url of 32 bytes, else `None` and no store access (S20).
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then_some(Self(bytes))
    }

    /// What the browser is told. One caller: the writer of its instructions.
    pub fn expose(&self) -> String {
        encoded(&self.0)
    }

    /// The bytes. One caller: what derives the name and the key of the device's record from them.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_issued_differs_and_says_nothing_about_the_secret() {
        let device = Device::offered([7; 32]);
        let Offer { challenge, authorization } = device.offer();
        let issued = [challenge, authorization, device.identifier().expose(), encoded(device.secret())];
        assert_eq!(BTreeSet::from(issued.clone()).len(), 4);
        assert!(issued.iter().all(|text| text.len() == 43));
        assert_eq!(device.bound().identifier(), device.identifier());
        assert_ne!(Device::offered([8; 32]).identifier(), device.identifier());
    }

    #[test]
    fn nothing_of_it_is_printed() {
        let device = Device::offered([7; 32]);
        let printed = format!("{device:?} {:?} {:?}", device.bound(), device.identifier());
        assert_eq!(printed, "Device(offered) Device(bound) Identifier(..)");
    }

    #[test]
    fn only_canonical_texts_are_identifiers() {
        let good = Device::offered([7; 32]).identifier();
        assert_eq!(Identifier::parse(&good.expose()), Some(good));
        for bad in ["", "x", &format!("{}=", good.expose()), &good.expose()[..42], &format!("{}A", good.expose())] {
            assert_eq!(Identifier::parse(bad), None, "{bad}");
        }
    }
}
