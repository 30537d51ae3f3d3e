//! What things are called in Redis. Names of sites and users are hashed: nothing that a stranger can
//! choose is part of a key (S184).

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::policy::session::SessionKey;
use crate::store::shelf::Name;

/// Slots of a cluster.
const SLOTS: u16 = 16384;
/// Among how many proofs one is looked for: one of a single slot is among them almost surely.
const TRIED: u32 = 200_000;

/// The public handle of a session: what its record is called.
pub(super) type Ref = [u8; 16];

/// The public handle of the session with this key.
pub(super) fn ref_of(key: &SessionKey) -> Ref {
    *key.session_ref().as_bytes()
}

/// Which sessions an index of a site has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Those of users.
    Authenticated,
    /// Those of nobody.
    Anonymous,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Authenticated, Self::Anonymous];

    pub(super) fn letter(self) -> char {
        match self {
            Self::Authenticated => 'i',
            Self::Anonymous => 'n',
        }
    }
}

/// Makes keys that begin with the configured prefix.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// What all records begin with.
    pub(super) fn records(&self) -> String {
        format!("{}:s:", self.prefix)
    }

    /// A record: a hash.
    pub(super) fn record(&self, name: &Ref) -> Vec<u8> {
        [self.prefix.as_bytes(), b":s:", name].concat()
    }

    /// Never there: what a server must be allowed to change. Each number is in another part of a cluster.
    pub(super) fn proof(&self, number: u32) -> Vec<u8> {
        format!("{}:proof:{number}", self.prefix).into_bytes()
    }

    /// The number of a proof in one of these slots, `first` if it is.
    pub(super) fn proof_among(&self, first: u32, is_among: impl Fn(u16) -> bool) -> Option<u32> {
        std::iter::once(first).chain(0..TRIED).find(|number| is_among(slot(&self.proof(*number))))
    }

    /// The names of all sites: a set.
    pub(super) fn sites(&self) -> Vec<u8> {
        format!("{}:sites", self.prefix).into_bytes()
    }

    /// The sessions of a site, by when they are worth a look: a sorted set.
    pub(super) fn site(&self, site: &str, kind: Kind) -> Vec<u8> {
        self.site_hashed(&hashed(site), kind)
    }

    /// The same with the name hashed already.
    pub(super) fn site_hashed(&self, hash: &str, kind: Kind) -> Vec<u8> {
        format!("{}:{}:{hash}", self.prefix, kind.letter()).into_bytes()
    }

    /// The sessions of a user, by their absolute end: a sorted set.
    pub(super) fn user(&self, user: &str) -> Vec<u8> {
        format!("{}:u:{}", self.prefix, hashed(user)).into_bytes()
    }

    /// A value of the shelf: a hash.
    pub(super) fn value(&self, name: &Name) -> Vec<u8> {
        let (letter, hash) = (char::from(name.kind.letter()), URL_SAFE_NO_PAD.encode(name.hash));
        format!("{}:{letter}:{hash}", self.prefix).into_bytes()
    }
}

/// A name as it stands in keys: 22 characters of base64url.
pub(super) fn hashed(name: &str) -> String {
    URL_SAFE_NO_PAD.encode(&digest::digest(&digest::SHA256, name.as_bytes()).as_ref()[..16])
}

/// The slot of a key in a cluster: our keys have no hash tags.
pub(super) fn slot(key: &[u8]) -> u16 {
    crc16(key) % SLOTS
}

/// CRC-16/XMODEM, as the cluster specification wants it.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(slot(b"foo"), 12182);
    }

    #[test]
    fn every_slot_has_a_proof() {
        let names = Names::new("vestibule");
        for wanted in [0, 1, 5461, 16383] {
            let number = names.proof_among(0, |slot| slot == wanted).unwrap();
            assert_eq!(slot(&names.proof(number)), wanted);
            assert_eq!(names.proof_among(number, |slot| slot >= wanted), Some(number), "it stays");
        }
    }

    #[test]
    fn nothing_that_a_stranger_chooses_is_in_a_key() {
        // S184
        let names = Names::new("vestibule");
        for odd in ["*\r\nDEL x", "a:b", "{x}", ""] {
            for key in [names.user(odd), names.site(odd, Kind::Anonymous)] {
                let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b":-_".contains(byte);
                assert!(key.iter().all(plain) && key.starts_with(b"vestibule:"), "{odd}");
            }
        }
        assert_ne!(names.user("a"), names.user("b"));
    }
}
