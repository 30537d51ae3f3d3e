//! What a store in memory knows of sessions beside their keys: whose they are, and how many there are.

use std::collections::BTreeSet;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

use crate::clock::Timestamp;
use crate::policy::session::Outline;
use crate::policy::session::SessionKey;
use crate::policy::session::UserName;
use crate::store::Population;

/// Changed only while the session's shard is held, so that it never disagrees with the sessions for
/// long.
#[derive(Default)]
pub(super) struct Index(Mutex<Known>);

#[derive(Default)]
struct Known {
    users: HashMap<UserName, Vec<SessionKey>>,
    /// How many sessions of users a site has.
    authenticated: HashMap<Arc<str>, usize>,
    /// Anonymous sessions by site, oldest first.
    anonymous: HashMap<Arc<str>, BTreeSet<(Timestamp, SessionKey)>>,
}

impl Index {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enter(&self, key: SessionKey, outline: &Outline) {
        let mut known = self.known();
        match &outline.user {
            Some(user) => {
                known.users.entry(user.clone()).or_default().push(key);
                *known.authenticated.entry(Arc::clone(&outline.site)).or_default() += 1;
            }
            None => {
                let site = known.anonymous.entry(Arc::clone(&outline.site)).or_default();
                site.insert((outline.created, key));
            }
        }
    }

    pub(super) fn leave(&self, key: &SessionKey, outline: &Outline) {
        let mut known = self.known();
        match &outline.user {
            Some(user) => {
                if let Some(keys) = known.users.get_mut(user) {
                    keys.retain(|known| known != key);
                    if keys.is_empty() {
                        known.users.remove(user);
                    }
                }
                if let Some(count) = known.authenticated.get_mut(&outline.site) {
                    *count = count.saturating_sub(1);
                }
            }
            None => {
                if let Some(site) = known.anonymous.get_mut(&outline.site) {
                    site.remove(&(outline.created, *key));
                }
            }
        }
    }

    pub(super) fn keys_of(&self, user: &str) -> Vec<SessionKey> {
        self.known().users.get(user).cloned().unwrap_or_default()
    }

    pub(super) fn oldest_anonymous(&self, site: &str, count: usize) -> Vec<SessionKey> {
        let known = self.known();
        let oldest = known.anonymous.get(site).into_iter().flatten().take(count);
        oldest.map(|(_, key)| *key).collect()
    }

    pub(super) fn population(&self, site: &str) -> Population {
        let known = self.known();
        Population {
            authenticated: known.authenticated.get(site).copied().unwrap_or(0),
            anonymous: known.anonymous.get(site).map_or(0, BTreeSet::len),
        }
    }
}
