//! The keys that sign what applications are told about users: made at the first start, kept in a directory,
//! replaced in time. Neither half of one is ever in the session store: whoever writes to that must not be
//! able to say who anybody is (product 3.1).

mod directory;
mod key;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::TryLockError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use arc_swap::ArcSwap;
use dashmap::DashMap;
use serde_json::json;

use crate::clock::Timestamp;
use crate::policy::keys;
use crate::store;
use crate::store::StoreSettings;

use self::directory::Directory;

pub use self::key::Key;

/// Where keys are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyPlace {
    /// In the memory of the process: they end with it, as sessions in `memory:` do.
    Memory,
    /// In this directory.
    Directory(PathBuf),
}

impl KeyPlace {
    /// What the file says, else beside the sessions.
    ///
    /// # Errors
    /// When it says nothing, and the environment names no place for sessions either.
    pub fn of(given: Option<&PathBuf>, store: &StoreSettings) -> Result<Self, KeysError> {
        if let Some(directory) = given {
            return Ok(Self::Directory(directory.clone()));
        }
        match store {
            StoreSettings::Memory => Ok(Self::Memory),
            StoreSettings::File(Some(path)) => Ok(Self::Directory(path.with_file_name(NAME))),
            StoreSettings::File(None) | StoreSettings::Redis(_) => {
                let state = store::usual_directory().ok_or(KeysError::NoPlace)?;
                Ok(Self::Directory(state.join(NAME)))
            }
        }
    }
}

/// Of the directory, where nothing else is said.
const NAME: &str = "assertion-keys";

/// How often a start tries when another process is at the keys, and how long it waits between: five seconds
/// in all.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(50);

/// Why there are no keys to sign with.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No place is known for them.
    #[error("neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set: name a directory with `keys`")]
    NoPlace,
    /// A file or directory.
    #[error("cannot read or write {path}: it must be a directory for keys that is this user's own")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory that is not only this user's.
    #[error(
        "others can put keys into {path}: it must be owned as the files in it are, or by root, and writable for nobody else (chown, chmod go-w)"
    )]
    Exposed {
        /// Which.
        path: PathBuf,
    },
    /// Another process does not let go of the directory.
    #[error("there is no key in {path}, and another process keeps the lock without making one: end that process")]
    Busy {
        /// Which.
        path: PathBuf,
    },
    /// A file that holds no key.
    #[error("{path} is no key of ours: remove it, and a new one is made")]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// The system's generator.
    #[error("no randomness for a new key")]
    NoRandomness,
}

/// The keys of one place.
pub struct Keys {
    place: KeyPlace,
    ring: ArcSwap<Ring>,
    /// One at a time changes them.
    tending: Mutex<()>,
    /// What keeps failing is said once.
    fails: AtomicBool,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({:?})", self.place)
    }
}

impl Keys {
    /// Those that are there; none is made.
    ///
    /// # Errors
    /// When a file cannot be read, or is none of ours.
    pub fn existing(place: KeyPlace) -> Result<Self, KeysError> {
        let keys = match &place {
            KeyPlace::Memory => Vec::new(),
            KeyPlace::Directory(path) => Directory::at(path).read()?,
        };
        let ring = ArcSwap::from_pointee(Ring::of(keys));
        Ok(Self { place, ring, tending: Mutex::default(), fails: AtomicBool::default() })
    }

    /// The one that signs now; `None` only while there is none at all.
    pub fn signer(&self, now: Timestamp) -> Option<Arc<Key>> {
        let ring = self.ring.load();
        keys::signer(&ring.begins, now).and_then(|place| ring.keys.get(place).cloned())
    }

    /// The public halves of those that sign, will soon, or did until lately: a JWK Set (RFC 7517).
    pub fn published(&self, now: Timestamp) -> serde_json::Value {
        let ring = self.ring.load();
        json!({ "keys": ring.needed(now).map(|key| key.jwk().clone()).collect::<Vec<_>>() })
    }

    /// Takes what others have put there or removed, makes the next key when it is time, removes what nothing
    /// needs any more. What another one is at is left to it. Blocks as long as the file system does: never on
    /// the way of a request.
    ///
    /// # Errors
    /// When the directory cannot be used; what was known stays.
    pub fn tend(&self, now: Timestamp) -> Result<(), KeysError> {
        let Some(_one_at_a_time) = self.alone() else { return Ok(()) };
        let known = self.ring.load();
        let ring = match &self.place {
            KeyPlace::Memory => known.replaced(now, |_| Ok(()))?,
            KeyPlace::Directory(path) => match Directory::at(path).tend(&known, now)? {
                Some(changed) => changed,
                None => return Ok(()),
            },
        };
        self.ring.store(Arc::new(ring));
        Ok(())
    }

    fn alone(&self) -> Option<MutexGuard<'_, ()>> {
        match self.tending.try_lock() {
            Ok(alone) => Some(alone),
            Err(TryLockError::Poisoned(alone)) => Some(alone.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The same, for whom there is nobody to tell: the log is told, once.
    pub fn keep(&self, now: Timestamp) {
        match self.tend(now) {
            Ok(()) => self.fails.store(false, Ordering::Relaxed),
            Err(error) if !self.fails.swap(true, Ordering::Relaxed) => {
                tracing::error!(event = "assertion.keys_failed", error = &error as &dyn std::error::Error);
            }
            Err(_said_before) => {}
        }
    }
}

/// All places that are in use.
#[derive(Default)]
pub struct Rings {
    open: DashMap<KeyPlace, Arc<Keys>>,
}

impl Rings {
    /// The keys of this place, with one that signs.
    ///
    /// # Errors
    /// When the place cannot be used.
    pub fn open(&self, place: KeyPlace, now: Timestamp) -> Result<Arc<Keys>, KeysError> {
        let keys = match self.open.get(&place) {
            Some(keys) => Arc::clone(&keys),
            None => Arc::new(Keys::existing(place.clone())?),
        };
        let mut tries = 0;
        while let Err(error) = keys.tend(now) {
            tries += 1;
            if tries > TRIES || !matches!(error, KeysError::Busy { .. }) {
                return Err(error);
            }
            thread::sleep(PAUSE);
        }
        self.open.insert(place, Arc::clone(&keys));
        Ok(keys)
    }
}

/// Keys in the order in which they begin to sign.
struct Ring {
    begins: Vec<Timestamp>,
    keys: Vec<Arc<Key>>,
}

impl Ring {
    fn of(mut keys: Vec<Arc<Key>>) -> Self {
        keys.sort_by_key(|key| key.begins);
        Self { begins: keys.iter().map(|key| key.begins).collect(), keys }
    }

    fn signs(&self, now: Timestamp) -> bool {
        keys::signer(&self.begins, now).is_some()
    }

    /// Those that are not over.
    fn needed(&self, now: Timestamp) -> impl Iterator<Item = &Arc<Key>> {
        let all = self.keys.iter().enumerate();
        all.filter(move |(place, _)| !keys::is_over(&self.begins, *place, now)).map(|(_, key)| key)
    }

    /// Those, and the one that is due, which `keep` is given first.
    fn replaced(&self, now: Timestamp, keep: impl Fn(&Key) -> Result<(), KeysError>) -> Result<Self, KeysError> {
        let mut keys: Vec<_> = self.needed(now).map(Arc::clone).collect();
        if let Some(begins) = keys::due(&self.begins, now) {
            let key = Key::generate(begins)?;
            keep(&key)?;
            tracing::info!(event = "assertion.key_made", kid = key.id(), signs_from = key.begins.as_secs());
            keys.push(Arc::new(key));
        }
        Ok(Self::of(keys))
    }
}

#[cfg(test)]
mod tests;
