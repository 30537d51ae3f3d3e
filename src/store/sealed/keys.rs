//! What stands in the key of a seal beside the selector: a secret that no store has. Without one, whoever
//! writes to a store invents sessions, with selectors of their own (S184).

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use aws_lc_rs::digest;

use crate::secret::Secret;

/// What secrets are hashed with, so that they are used for nothing else.
const PURPOSE: &[u8] = b"vestibule store key ";
/// In place of a secret.
const NONE: &[u8] = b"vestibule record";
/// 256 bits are 64 hexadecimal digits, or 44 characters of base64; what is shorter than this is no such thing.
const SHORTEST: usize = 32;
/// Of the characters of a random text many are different.
const FEWEST: usize = 8;

/// Why `store.key` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It is not where it should be.
    #[error("store.key: {place} cannot be read")]
    Unread {
        /// Where it should be.
        place: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could be guessed.
    #[error("store.key: what {place} has can be guessed; make one with: openssl rand -base64 32")]
    Weak {
        /// Where it is.
        place: String,
    },
}

/// The keys of a store, which is never empty: the first seals, all of them open, so that they can be changed.
#[derive(Clone)]
pub struct Keys(Arc<[Vec<u8>]>);

/// Which one of the keys a record is sealed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyNumber(usize);

/// Without a secret: records are sealed under their selector alone.
impl Default for Keys {
    fn default() -> Self {
        Self(Arc::new([NONE.to_vec()]))
    }
}

impl Keys {
    /// Looks the secrets up; without any it is [`Keys::default`].
    ///
    /// # Errors
    /// When one of them is not there, or could be guessed.
    pub fn read(secrets: &[Secret]) -> Result<Self, KeyError> {
        if secrets.is_empty() {
            return Ok(Self::default());
        }
        let one = |secret: &Secret| {
            let place = secret.to_string();
            match secret.read() {
                Err(source) => Err(KeyError::Unread { place, source }),
                Ok(text) => salt(text.trim()).ok_or(KeyError::Weak { place }),
            }
        };
        Ok(Self(secrets.iter().map(one).collect::<Result<_, _>>()?))
    }

    /// All of them, the one that seals first.
    pub(super) fn numbers(&self) -> impl Iterator<Item = KeyNumber> {
        (0..self.0.len()).map(KeyNumber)
    }

    pub(super) fn salt(&self, KeyNumber(number): KeyNumber) -> Option<&[u8]> {
        self.0.get(number).map(Vec::as_slice)
    }
}

/// `None` when the secret could be guessed.
fn salt(secret: &str) -> Option<Vec<u8>> {
    if secret.len() < SHORTEST || secret.bytes().collect::<HashSet<_>>().len() < FEWEST {
        return None;
    }
    Some(digest::digest(&digest::SHA256, &[PURPOSE, secret.as_bytes()].concat()).as_ref().to_vec())
}

#[cfg(test)]
impl Keys {
    /// Of these secrets.
    pub(crate) fn of(secrets: &[&str]) -> Self {
        Self(secrets.iter().map(|secret| salt(secret).unwrap()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_guessed_is_no_key() {
        for (secret, is_good) in [
            ("", false),
            ("hunter2", false),
            ("x8Zp0v7Qk2mN4rT6wY1sB3dF5gH9jK", false),
            ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("x8Zp0v7Qk2mN4rT6wY1sB3dF5gH9jKcL", true),
            ("0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0", true),
        ] {
            let read = Keys::read(&[Secret::Written(secret.to_owned())]);
            match read {
                Ok(_) => assert!(is_good, "{secret}"),
                Err(error) => {
                    assert!(!is_good && (secret.is_empty() || !error.to_string().contains(secret)), "{error}");
                }
            }
        }
        let nowhere = Keys::read(&[Secret::File("/nowhere/at/all".into())]).map(|_| ()).unwrap_err();
        assert_eq!(nowhere.to_string(), "store.key: file:/nowhere/at/all cannot be read");
    }
}
