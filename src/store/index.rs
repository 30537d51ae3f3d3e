//! What a store in memory knows of sessions beside their keys: whose they are, and how many there are. No
//! look-up and no activity touches it, only what begins or ends.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::hash::RandomState;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::clock::Timestamp;
use crate::store::Population;

/// Changed only while the session's shard is held, so that it never disagrees with the sessions for
/// long. Sessions stand in it by a hash of their keys: two of one user with the same one would need
/// billions of sessions.
#[derive(Default)]
pub(super) struct Index {
    known: Mutex<Known>,
    hasher: RandomState,
}

/// A user by a hash of the name, which others may share, and a session. Ordered, so that one of many
/// sessions is found and removed as fast as one of few, and small: there is one for each session.
type Mark = (u32, [u32; 2]);

#[derive(Default)]
struct Known {
    users: BTreeSet<Mark>,
    sites: HashMap<Box<str>, Site>,
}

#[derive(Default)]
struct Site {
    /// How many sessions of users.
    authenticated: usize,
    /// Anonymous sessions, oldest first.
    anonymous: BTreeSet<(Timestamp, u64)>,
}

/// What the index goes by.
pub(super) struct Entry<'a> {
    /// Of the key.
    pub(super) hash: u64,
    pub(super) site: &'a str,
    pub(super) user: Option<&'a str>,
    pub(super) created: Timestamp,
}

impl Index {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first half of a mark: the other half of the hash is not needed to tell users apart well enough.
    fn mark(&self, user: &str) -> u32 {
        self.hasher.hash_one(user) as u32
    }

    pub(super) fn enter(&self, session: &Entry<'_>) {
        let mark = session.user.map(|user| (self.mark(user), halves(session.hash)));
        let mut known = self.known();
        if !known.sites.contains_key(session.site) {
            known.sites.insert(session.site.into(), Site::default());
        }
        if let Some(mark) = mark {
            known.users.insert(mark);
        }
        let Some(site) = known.sites.get_mut(session.site) else { return };
        if mark.is_some() {
            site.authenticated += 1;
        } else {
            site.anonymous.insert((session.created, session.hash));
        }
    }

    pub(super) fn leave(&self, session: &Entry<'_>) {
        let mark = session.user.map(|user| (self.mark(user), halves(session.hash)));
        let mut known = self.known();
        if let Some(mark) = mark {
            known.users.remove(&mark);
        }
        let Some(site) = known.sites.get_mut(session.site) else { return };
        if mark.is_some() {
            site.authenticated = site.authenticated.saturating_sub(1);
        } else {
            site.anonymous.remove(&(session.created, session.hash));
        }
    }

    /// The hashes of all sessions of a user, and perhaps of some others.
    pub(super) fn of_user(&self, user: &str) -> Vec<u64> {
        let mark = self.mark(user);
        let (first, last) = ((mark, [0; 2]), (mark, [u32::MAX; 2]));
        self.known().users.range(first..=last).map(|(_, session)| whole(*session)).collect()
    }

    pub(super) fn oldest_anonymous(&self, site: &str, count: usize) -> Vec<u64> {
        let known = self.known();
        let oldest = known.sites.get(site).into_iter().flat_map(|site| &site.anonymous).take(count);
        oldest.map(|(_, hash)| *hash).collect()
    }

    pub(super) fn population(&self, site: &str) -> Population {
        let known = self.known();
        known.sites.get(site).map_or_else(Population::default, |site| Population {
            authenticated: site.authenticated,
            anonymous: site.anonymous.len(),
        })
    }
}

/// Of a hash: a whole one would have to be aligned, which takes four bytes more for each session.
fn halves(hash: u64) -> [u32; 2] {
    [(hash >> 32) as u32, hash as u32]
}

fn whole([high, low]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
