//! What is signed about the users of one site. A signature costs more than all the rest of a request: one is
//! sent again for half of its time.

use std::sync::Arc;

use dashmap::DashMap;
use http::HeaderValue;

use crate::clock::Clock;
use crate::policy::assertion::AssertionRules;
use crate::policy::assertion::Issuer;
use crate::policy::assertion::Moment;
use crate::policy::session::Identity;
use crate::policy::session::SessionKey;
use crate::policy::site::Origin;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::session::Live;
use crate::signing::Key;
use crate::signing::Keys;

/// So many are kept to be sent again; one takes about half a kilobyte.
const KEPT: usize = 16 * 1024;

/// The signer for one site.
pub(super) struct Assertions {
    issuer: Issuer,
    pub(super) keys: Arc<Keys>,
    made: DashMap<SessionKey, Assertion>,
}

struct Assertion {
    about: Identity,
    made: Moment,
    by: Arc<Key>,
    value: HeaderValue,
}

impl Assertions {
    pub(super) fn new(origin: &Origin, rules: &AssertionRules, keys: Arc<Keys>) -> Self {
        Self { issuer: Issuer::of(origin, rules), keys, made: DashMap::new() }
    }

    /// One about the user of this session, made now or a moment ago.
    fn about(&self, live: &Live, identity: &Identity, at: Moment) -> Result<HeaderValue, Failure> {
        let key = self.keys.signer(at.time_of_day).ok_or(Failure::Unsigned)?;
        if let Some(made) = self.made.get(live.handle.key())
            && made.about == *identity
            && Arc::ptr_eq(&made.by, &key)
            && self.issuer.may_repeat(made.made, at)
        {
            return Ok(made.value.clone());
        }
        let token = key.sign(&self.issuer.claims(identity, live.record.absolute_end, at)).ok_or(Failure::Unsigned)?;
        let value = HeaderValue::try_from(token).map_err(|_| Failure::Unsigned)?;
        if self.made.len() >= KEPT {
            self.made.clear();
        }
        let made = Assertion { about: identity.clone(), made: at, by: key, value: value.clone() };
        self.made.insert(*live.handle.key(), made);
        Ok(value)
    }

    /// Frees those that are not sent again.
    pub(super) fn forget(&self, at: Moment) {
        self.made.retain(|_, made| self.issuer.may_repeat(made.made, at));
    }
}

impl Exchange<'_> {
    /// What is signed about the user of the request; nothing where the site has no such header, or nobody
    /// is logged in.
    pub(super) fn assertion(&self) -> Result<Option<HeaderValue>, Failure> {
        let Some(assertions) = &self.site.assertions else { return Ok(None) };
        let Some(live) = self.session.live() else { return Ok(None) };
        let Some(identity) = &live.record.identity else { return Ok(None) };
        assertions.about(live, identity, moment(&*self.worker.gate.clock)).map(Some)
    }
}

pub(super) fn moment(clock: &dyn Clock) -> Moment {
    Moment { now: clock.now(), time_of_day: clock.time_of_day() }
}
