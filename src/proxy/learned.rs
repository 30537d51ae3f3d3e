//! Names of cookies that were vaulted because of an attribute that later requests and deletions do not show
//! (product 3.3). They are kept beside the sessions: a restart forgets none, and all who share the store know them.

use std::collections::BTreeSet;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::proxy::Gate;
use crate::store::StoreError;
use crate::store::Swap;
use crate::store::shelf;
use crate::store::shelf::Kind;
use crate::store::shelf::Name;

/// Names of a site.
const MOST: usize = 256;
/// Bytes of a name.
const LONGEST: usize = 128;
/// An application calls its cookies the same for years.
const LIVES: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
/// Nobody waits longer for a store.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often others may be faster.
const ATTEMPTS: usize = 8;

/// The names of one site.
#[derive(Default)]
pub(super) struct Learned {
    names: ArcSwap<BTreeSet<Bytes>>,
}

impl Learned {
    /// Whether a cookie of this name was vaulted before.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        self.names.load().contains(name)
    }

    /// Remembers a name, if there is room.
    pub(super) fn learn(&self, name: &Bytes) {
        if self.knows(name) || !is_fit(name) || self.names.load().len() >= MOST {
            return;
        }
        self.names.rcu(|names| {
            let mut names = BTreeSet::clone(names);
            names.insert(name.clone());
            names
        });
    }

    /// Those that are text, in their order.
    pub(super) fn texts(&self) -> Vec<String> {
        self.names.load().iter().filter_map(|name| String::from_utf8(name.to_vec()).ok()).collect()
    }
}

/// Names stand in lines.
fn is_fit(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= LONGEST && !name.contains(&b'\n')
}

/// What is kept when these are known as well; `None` when that changes nothing. What is there goes first: two
/// who know too much do not overwrite each other for ever.
fn merged(kept: &[u8], known: &BTreeSet<Bytes>) -> Option<Bytes> {
    let mut all = kept.to_vec();
    let there: BTreeSet<&[u8]> = lines(kept).collect();
    let mut count = there.len();
    for name in known.iter().filter(|name| !there.contains(&name[..])) {
        if count < MOST && all.len() + name.len() < shelf::LONGEST {
            all.extend_from_slice(name);
            all.push(b'\n');
            count += 1;
        }
    }
    (all.len() != kept.len()).then(|| Bytes::from(all))
}

fn lines(kept: &[u8]) -> impl Iterator<Item = &[u8]> {
    kept.split(|byte| *byte == b'\n').filter(|name| is_fit(name))
}

impl Gate {
    /// Learns what others have learned, and tells them what is known here. What a store does not answer soon is
    /// asked again with the next round.
    pub async fn share_learned(&self) {
        let snapshot = self.current.load_full();
        let shared = async {
            for site in snapshot.sites() {
                self.share(&site.name, &site.lasting.learned).await?;
            }
            Ok::<_, StoreError>(())
        };
        let _asked_again = tokio::time::timeout(PATIENCE, shared).await;
    }

    async fn share(&self, site: &str, learned: &Learned) -> Result<(), StoreError> {
        let name = Name::of(Kind::Learned, &[site.as_bytes()]);
        for _ in 0..ATTEMPTS {
            let now = self.now();
            let found = self.store.shelved(&name, now).await?;
            let (version, kept) = found.map_or((None, Bytes::new()), |found| (Some(found.version), found.value));
            lines(&kept).for_each(|name| learned.learn(&Bytes::copy_from_slice(name)));
            let Some(all) = merged(&kept, &learned.names.load()) else { return Ok(()) };
            match self.store.shelve(&name, version, all, LIVES, now).await? {
                Swap::Swapped => return Ok(()),
                Swap::Stale | Swap::Gone => {}
            }
        }
        Ok(())
    }

    /// What was learned, site by site.
    pub fn learned(&self) -> Vec<(String, Vec<String>)> {
        let snapshot = self.current.load_full();
        let mut all: Vec<_> =
            snapshot.sites().map(|site| (site.name.to_string(), site.lasting.learned.texts())).collect();
        all.sort();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<Bytes> {
        names.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
    }

    #[test]
    fn what_is_kept_grows_and_nothing_is_lost() {
        assert_eq!(merged(b"", &set(&[])), None);
        assert_eq!(merged(b"", &set(&["a", "b"])).unwrap(), "a\nb\n");
        assert_eq!(merged(b"b\nx\n", &set(&["a", "b"])).unwrap(), "b\nx\na\n");
        assert_eq!(merged(b"b\na\n", &set(&["a", "b"])), None);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let many: Vec<String> = (0..2 * MOST).map(|number| format!("name{number:03}")).collect();
        let known = many.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect();
        let kept = merged(b"first\n", &known).unwrap();
        assert_eq!(lines(&kept).count(), MOST);
        assert_eq!(merged(&kept, &known), None, "there is no room");
        let long: BTreeSet<Bytes> = (0..MOST).map(|number| Bytes::from(format!("{number:0128}"))).collect();
        assert!(merged(b"", &long).unwrap().len() <= shelf::LONGEST);

        let learned = Learned::default();
        known.iter().for_each(|name| learned.learn(name));
        ["", "a\nb", &"x".repeat(LONGEST + 1)].iter().for_each(|name| learned.learn(&Bytes::from((*name).to_owned())));
        assert_eq!(learned.texts().len(), MOST);
        assert!(learned.knows(b"name000") && !learned.knows(b"a\nb"));
    }
}
