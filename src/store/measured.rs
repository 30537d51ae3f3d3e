//! A store whose answers are timed and whose failures are counted.

use std::future::Future;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;

use crate::clock::Timestamp;
use crate::metrics::Counters;
use crate::metrics::Histogram;
use crate::metrics::Kind;
use crate::metrics::Text;
use crate::policy::chain::Chain;
use crate::policy::session::EndReason;
use crate::policy::session::Handle;
use crate::policy::session::Outline;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::policy::vault::VaultChange;
use crate::store::Found;
use crate::store::Judge;
use crate::store::Page;
use crate::store::Population;
use crate::store::Presence;
use crate::store::Removal;
use crate::store::Reply;
use crate::store::SessionStore;
use crate::store::Swap;
use crate::store::shelf::Name;
use crate::store::shelf::Shelf;
use crate::store::shelf::Shelved;
use crate::store::shelf::Version;

/// What a store is asked for, by the work that it is.
#[derive(Clone, Copy)]
enum Verb {
    Load,
    Create,
    Touch,
    Rotate,
    Vault,
    Remove,
    Shelf,
    /// What no request waits for.
    Other,
}

impl Verb {
    const ALL: [Self; 8] =
        [Self::Load, Self::Create, Self::Touch, Self::Rotate, Self::Vault, Self::Remove, Self::Shelf, Self::Other];

    fn as_str(self) -> &'static str {
        match self {
            Self::Load => "load",
            Self::Create => "create",
            Self::Touch => "touch",
            Self::Rotate => "rotate",
            Self::Vault => "vault",
            Self::Remove => "remove",
            Self::Shelf => "shelf",
            Self::Other => "other",
        }
    }
}

/// A store, and how it does.
pub struct Measured {
    inner: Arc<dyn SessionStore>,
    took: [Histogram; Verb::ALL.len()],
    failed: Counters<{ Verb::ALL.len() }>,
}

impl Measured {
    /// Measures this store from now on.
    pub fn new(inner: Arc<dyn SessionStore>) -> Arc<Self> {
        Arc::new(Self { inner, took: Default::default(), failed: Counters::default() })
    }

    /// What was measured.
    pub fn write_metrics(&self, text: &mut Text) {
        let name = "vestibule_store_duration_seconds";
        text.family(name, Kind::Histogram, "How long the session store took to answer.");
        for (verb, took) in Verb::ALL.iter().zip(&self.took) {
            text.histogram(name, &[("operation", verb.as_str())], took);
        }
        let name = "vestibule_store_errors_total";
        text.family(name, Kind::Counter, "Questions that the session store did not answer.");
        for (verb, failed) in Verb::ALL.iter().zip(self.failed.read()) {
            text.sample(name, &[("operation", verb.as_str())], failed);
        }
    }

    /// What a request is answered from memory counts as no time: to read the clock twice would take longer
    /// than the answer.
    fn timed<'a, T: Send + 'a>(&'a self, verb: Verb, mut reply: Reply<'a, T>) -> Reply<'a, T> {
        if let Some(answer) = reply.known() {
            self.count(verb, Duration::ZERO, answer.is_err());
            return reply;
        }
        let mut started = matches!(verb, Verb::Other).then(Instant::now);
        Reply::later(async move {
            let answer = poll_fn(|context| {
                let polled = Pin::new(&mut reply).poll(context);
                if polled.is_pending() {
                    started.get_or_insert_with(Instant::now);
                }
                polled
            })
            .await;
            let took = started.map_or(Duration::ZERO, |started| started.elapsed());
            self.count(verb, took, answer.is_err());
            answer
        })
    }

    fn count(&self, verb: Verb, took: Duration, failed: bool) {
        self.took[verb as usize].observe(took);
        if failed {
            self.failed.count(verb as usize);
        }
    }
}

impl SessionStore for Measured {
    fn load<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        self.timed(Verb::Load, self.inner.load(handle, now))
    }

    fn reload<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Found> {
        self.timed(Verb::Load, self.inner.reload(handle, now))
    }

    fn peek<'a>(&'a self, key: &'a SessionKey) -> Reply<'a, Option<Outline>> {
        self.timed(Verb::Other, self.inner.peek(key))
    }

    fn create<'a>(&'a self, handle: &'a Handle, record: Record, idle: Duration) -> Reply<'a, Presence> {
        self.timed(Verb::Create, self.inner.create(handle, record, idle))
    }

    fn touch<'a>(&'a self, key: &'a SessionKey, seen: Timestamp, idle: Duration) -> Reply<'a, Presence> {
        self.timed(Verb::Touch, self.inner.touch(key, seen, idle))
    }

    fn swap_chain<'a>(&'a self, key: &'a SessionKey, revision: u64, chain: Chain) -> Reply<'a, Swap> {
        self.timed(Verb::Rotate, self.inner.swap_chain(key, revision, chain))
    }

    fn change_vault<'a>(
        &'a self,
        handle: &'a Handle,
        changes: &'a [VaultChange],
        now: Timestamp,
    ) -> Reply<'a, Presence> {
        self.timed(Verb::Vault, self.inner.change_vault(handle, changes, now))
    }

    fn bind<'a>(&'a self, handle: &'a Handle) -> Reply<'a, Presence> {
        self.timed(Verb::Other, self.inner.bind(handle))
    }

    fn take<'a>(&'a self, handle: &'a Handle, now: Timestamp) -> Reply<'a, Option<Record>> {
        self.timed(Verb::Remove, self.inner.take(handle, now))
    }

    fn remove<'a>(&'a self, key: &'a SessionKey, tombstone: bool, now: Timestamp) -> Reply<'a, Option<Outline>> {
        self.timed(Verb::Remove, self.inner.remove(key, tombstone, now))
    }

    fn remove_at<'a>(&'a self, key: &'a SessionKey, revision: u64) -> Reply<'a, Removal> {
        self.timed(Verb::Remove, self.inner.remove_at(key, revision))
    }

    fn by_user<'a>(&'a self, user: &'a str, site: Option<&'a str>) -> Reply<'a, Vec<SessionKey>> {
        self.timed(Verb::Other, self.inner.by_user(user, site))
    }

    fn list<'a>(&'a self, user: Option<&'a str>, from: Option<&'a str>, limit: usize) -> Reply<'a, Option<Page>> {
        self.timed(Verb::Other, self.inner.list(user, from, limit))
    }

    fn find<'a>(&'a self, session_ref: &'a str) -> Reply<'a, Option<SessionKey>> {
        self.timed(Verb::Other, self.inner.find(session_ref))
    }

    fn ready(&self) -> Reply<'_, ()> {
        self.timed(Verb::Other, self.inner.ready())
    }

    fn population<'a>(&'a self, site: &'a str) -> Reply<'a, Population> {
        self.timed(Verb::Other, self.inner.population(site))
    }

    fn evict_anonymous<'a>(&'a self, site: &'a str) -> Reply<'a, Option<(SessionKey, Outline)>> {
        self.timed(Verb::Remove, self.inner.evict_anonymous(site))
    }

    fn sweep<'a>(&'a self, judge: Judge<'a>, now: Timestamp) -> Reply<'a, Vec<(SessionKey, Outline, EndReason)>> {
        self.timed(Verb::Other, self.inner.sweep(judge, now))
    }
}

impl Shelf for Measured {
    fn shelved<'a>(&'a self, name: &'a Name, now: Timestamp) -> Reply<'a, Option<Shelved>> {
        self.timed(Verb::Shelf, self.inner.shelved(name, now))
    }

    fn shelve<'a>(
        &'a self,
        name: &'a Name,
        expected: Option<Version>,
        value: Bytes,
        lives: Duration,
        now: Timestamp,
    ) -> Reply<'a, Swap> {
        self.timed(Verb::Shelf, self.inner.shelve(name, expected, value, lives, now))
    }

    fn unshelve<'a>(&'a self, name: &'a Name) -> Reply<'a, ()> {
        self.timed(Verb::Shelf, self.inner.unshelve(name))
    }
}
