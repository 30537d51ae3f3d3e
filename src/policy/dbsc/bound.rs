//! The bound cookie: short-lived, given for a proof. It says until when it is good, and is sealed with a
//! key that the session's record has: looking at it asks no store, and a new one changes no record.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::clock::Timestamp;
use crate::policy::dbsc::Lack;

/// `Max-Age` of the bound cookie. Browsers sign six times in nine minutes at most: with less than five
/// minutes they would run out of signatures.
pub const BOUND_LIFETIME: Duration = Duration::from_secs(600);
/// How much longer it is accepted: for what was sent while the next one was on its way.
const GRACE: Duration = Duration::from_secs(30);

const TIME: usize = 8;
const TAG: usize = 32;

/// What the bound cookies of one session are made with.
#[derive(Clone, PartialEq, Eq)]
pub struct BoundKey([u8; 32]);

impl fmt::Debug for BoundKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundKey(..)")
    }
}

impl BoundKey {
    /// From its bytes.
    pub fn of(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes. One caller: what seals them.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The value of a cookie that begins now.
    pub fn issue(&self, now: Timestamp) -> String {
        let end = now.plus(BOUND_LIFETIME + GRACE).as_millis().to_be_bytes();
        URL_SAFE_NO_PAD.encode([&end[..], hmac::sign(&self.hmac(), &end).as_ref()].concat())
    }

    /// Whether this is the value of a cookie that is good now, for the session of this key.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, value: &[u8], now: Timestamp) -> Result<(), Lack> {
        let mut bytes = [0; TIME + TAG];
        // The engine decodes canonical text only: one text per value.
        if URL_SAFE_NO_PAD.decode_slice(value, &mut bytes) != Ok(bytes.len()) {
            return Err(Lack::Wrong);
        }
        let (end, tag) = bytes.split_first_chunk::<TIME>().ok_or(Lack::Wrong)?;
        hmac::verify(&self.hmac(), end, tag).map_err(|_| Lack::Wrong)?;
        if now >= Timestamp::from_millis(u64::from_be_bytes(*end)) { Err(Lack::Expired) } else { Ok(()) }
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn it_is_good_for_its_session_until_its_end() {
        // S61
        let key = BoundKey::of([5; 32]);
        let value = key.issue(at(1000));
        let check = |now| key.check(value.as_bytes(), now);
        assert_eq!(check(at(1000)), Ok(()));
        assert_eq!(check(Timestamp::from_millis(1_629_999)), Ok(()), "Max-Age and 30 s");
        assert_eq!(check(at(1630)), Err(Lack::Expired));
        assert_eq!(BoundKey::of([6; 32]).check(value.as_bytes(), at(1000)), Err(Lack::Wrong), "another session's");
    }

    #[test]
    fn nobody_else_writes_one() {
        let key = BoundKey::of([5; 32]);
        let good = URL_SAFE_NO_PAD.decode(key.issue(at(1000))).unwrap();
        for place in 0..good.len() {
            let mut forged = good.clone();
            forged[place] ^= 1;
            let forged = URL_SAFE_NO_PAD.encode(forged);
            assert_eq!(key.check(forged.as_bytes(), at(1000)), Err(Lack::Wrong), "byte {place}");
        }
        for bad in ["", "x", &format!("{}A", key.issue(at(1000))), &URL_SAFE_NO_PAD.encode(&good[..39])] {
            assert_eq!(key.check(bad.as_bytes(), at(1000)), Err(Lack::Wrong), "{bad}");
        }
    }
}
