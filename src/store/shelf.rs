//! The shelf: small values beside the sessions, that all who share the store know. A value has a name, lives for
//! as long as was said, and is changed by compare-and-swap alone.

mod memory;

use std::time::Duration;

use aws_lc_rs::digest;
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::store::Reply;
use crate::store::StoreError;
use crate::store::Swap;

pub(in crate::store) use self::memory::Kept;
pub(in crate::store) use self::memory::MemoryShelf;

/// The longest value.
pub const LONGEST: usize = 8 * 1024;

/// What values are about. Each kind has a room of its own: a flood of one pushes out none of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Attempts to log in.
    Attempts,
    /// The keys of browsers.
    Devices,
    /// What the application's cookies are called.
    Learned,
}

impl Kind {
    pub(in crate::store) const ALL: [Self; 3] = [Self::Attempts, Self::Devices, Self::Learned];

    /// What stands for it in keys.
    pub(in crate::store) fn letter(self) -> u8 {
        match self {
            Self::Attempts => b't',
            Self::Devices => b'd',
            Self::Learned => b'l',
        }
    }

    /// Whether its values are on the disk before the answer, where the sessions are. Attempts are not: a restart
    /// forgives them, and no stranger makes the disk busy.
    fn is_durable(self) -> bool {
        match self {
            Self::Attempts => false,
            Self::Devices | Self::Learned => true,
        }
    }

    /// How many values, of how many bytes together, are kept in memory. When there are more, those whose time is
    /// up go first, then the ones that were written the longest ago.
    fn room(self) -> (usize, usize) {
        const MIB: usize = 1024 * 1024;
        match self {
            Self::Attempts => (100_000, 16 * MIB),
            Self::Devices => (1_000_000, 512 * MIB),
            Self::Learned => (10_000, 16 * MIB),
        }
    }
}

/// What a value is called: a hash of its parts, so that nothing that a stranger can choose, and nothing secret, is
/// part of a key (S151, S184).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    pub(in crate::store) kind: Kind,
    pub(in crate::store) hash: [u8; 32],
}

impl Name {
    /// The name that is made of these parts, in this order.
    pub fn of(kind: Kind, parts: &[&[u8]]) -> Self {
        let mut hasher = digest::Context::new(&digest::SHA256);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(hasher.finish().as_ref());
        Self { kind, hash }
    }

    /// Its beginning: enough to tell a few from one another.
    pub fn short(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.hash;
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    }

    pub(in crate::store) fn is_durable(&self) -> bool {
        self.kind.is_durable()
    }

    pub(in crate::store) fn to_bytes(self) -> [u8; 33] {
        let mut bytes = [self.kind.letter(); 33];
        bytes[1..].copy_from_slice(&self.hash);
        bytes
    }

    pub(in crate::store) fn from_bytes(bytes: [u8; 33]) -> Option<Self> {
        let kind = Kind::ALL.into_iter().find(|kind| kind.letter() == bytes[0])?;
        let mut hash = [0; 32];
        hash.copy_from_slice(&bytes[1..]);
        Some(Self { kind, hash })
    }
}

/// Which of the values that a name had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub(in crate::store) u64);

/// What is found on the shelf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelved {
    /// To be said when it is replaced.
    pub version: Version,
    /// The value.
    pub value: Bytes,
}

/// A shelf. Times are those of the store, as for sessions. An error never means "no such value".
pub trait Shelf: Send + Sync + 'static {
    /// What is there now, whatever was known before; `None` also when its time is up.
    fn shelved<'a>(&'a self, name: &'a Name, now: Timestamp) -> Reply<'a, Option<Shelved>>;
    /// Puts a value there that lives for so long from now on, in the place of the `expected` one: `Stale` when there
    /// is another one, `Gone` when there is none. Without an expected one it is put only where none is: `Stale`
    /// when one is. Nothing revives a value.
    fn shelve<'a>(
        &'a self,
        name: &'a Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        now: Timestamp,
    ) -> Reply<'a, Swap>;
    /// Takes a value away, whichever it is; fine when there is none.
    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()>;
}

/// What is too long is not kept.
pub(in crate::store) fn measure(value: &[u8]) -> Result<(), StoreError> {
    if value.len() <= LONGEST { Ok(()) } else { Err(StoreError::Unavailable("a value is too long to be kept".into())) }
}
