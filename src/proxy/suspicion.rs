//! IDs that are presented and refused: told to the log, but not with every request, and counted (S59, S60).

use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::net::IpAddr;
use std::time::Duration;

use dashmap::DashMap;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::policy::binding;
use crate::policy::guess;
use crate::policy::guess::Guess;
use crate::policy::guess::Guesses;
use crate::policy::session::Record;
use crate::policy::session::SessionKey;
use crate::proxy::exchange::Exchange;
use crate::store::shelf::Name;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Context;
use crate::telemetry::RefusedSession;

/// How long something is not said again of the same session and client.
const QUIET: Duration = Duration::from_secs(60 * 60);
/// Sayings and prefixes that are remembered at most: beyond that some things are said again, and some
/// guesses are not counted.
const MOST: usize = 16 * 1024;

/// What was said, and who guesses.
#[derive(Default)]
pub(super) struct Suspicions {
    said: DashMap<(SessionKey, u64), Timestamp>,
    guesses: DashMap<IpAddr, Guesses>,
    /// Accounts of which it was said that they are guessed at from everywhere.
    guessed: DashMap<Name, Timestamp>,
}

impl Suspicions {
    fn is_news(&self, key: &SessionKey, what: u64, now: Timestamp) -> bool {
        let place = (*key, what);
        let is_known = self.said.get(&place).is_some_and(|said| now.since(*said) < QUIET);
        if !is_known && self.said.len() < MOST {
            self.said.insert(place, now);
        }
        !is_known
    }

    fn count(&self, address: IpAddr, key: &SessionKey, now: Timestamp) -> Guess {
        let prefix = binding::prefix(address);
        if let Some(mut guesses) = self.guesses.get_mut(&prefix) {
            return guesses.count(key, now);
        }
        if self.guesses.len() < MOST {
            self.guesses.entry(prefix).or_default().count(key, now);
        }
        Guess::Few
    }

    /// Whether it was not said a while ago that an account is guessed at from everywhere.
    pub(super) fn is_news_of_guesses(&self, account: Name, now: Timestamp) -> bool {
        let is_known = self.guessed.get(&account).is_some_and(|said| now.since(*said) < QUIET);
        if !is_known && self.guessed.len() < MOST {
            self.guessed.insert(account, now);
        }
        !is_known
    }

    /// Forgets what does not count any more.
    pub(super) fn tidy(&self, now: Timestamp) {
        self.said.retain(|_, said| now.since(*said) < QUIET);
        self.guessed.retain(|_, said| now.since(*said) < QUIET);
        self.guesses.retain(|_, guesses| !guesses.is_over(now));
    }
}

impl Exchange<'_> {
    /// Whether this was not said of the session and this client a while ago.
    pub(super) fn is_news(&self, key: &SessionKey, what: &str) -> bool {
        let mut hasher = DefaultHasher::new();
        self.client.address.hash(&mut hasher);
        self.user_agent.as_ref().map(HeaderValue::as_bytes).hash(&mut hasher);
        what.hash(&mut hasher);
        self.worker.gate.suspicions.is_news(key, hasher.finish(), self.now)
    }

    /// What is presented is no session for this client.
    pub(super) fn refuse_session(&mut self, key: &SessionKey, record: Option<&Record>, reason: RefusedSession) {
        let context = self.context_of(key, record);
        self.suspect(key, &context);
        if self.throttled.is_none() && self.is_news(key, reason.as_str()) {
            telemetry::audit(&context, &Audit::SessionRefused { reason });
        }
    }

    /// Counts an ID that is refused, whatever for: what is throttled tells no dead session from one that
    /// is another client's (S58).
    pub(super) fn suspect(&mut self, key: &SessionKey, context: &Context) {
        match self.worker.gate.suspicions.count(self.client.address, key, self.now) {
            Guess::Few => {}
            Guess::First(wait) => {
                telemetry::audit(context, &Audit::SessionGuessing { count: guess::LIMIT });
                self.throttled = Some(wait);
            }
            Guess::Further(wait) => self.throttled = Some(wait),
        }
    }

    /// The line names the session also when it is gone, so that a replay is found in the log (S60).
    pub(super) fn context_of(&self, key: &SessionKey, record: Option<&Record>) -> Context {
        let identity = record.and_then(|record| record.identity.as_ref());
        Context {
            session_ref: Some(key.session_ref()),
            user: identity.map(|identity| identity.user.clone()),
            ..self.trace.context.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::store::shelf::Kind;

    use super::*;

    #[test]
    fn guesses_at_an_account_are_said_again_after_a_while_however_many_there_were_before() {
        // S159
        let (suspicions, begin) = (Suspicions::default(), Timestamp::from_millis(1_000_000));
        let account = |number: usize| Name::of(Kind::Attempts, &[&number.to_le_bytes()]);
        for number in 0..MOST {
            assert!(suspicions.is_news_of_guesses(account(number), begin));
        }
        assert!(!suspicions.is_news_of_guesses(account(0), begin.plus(QUIET / 2)));
        assert!(suspicions.is_news_of_guesses(account(MOST), begin), "rather twice than never");

        let later = begin.plus(QUIET);
        suspicions.tidy(later);
        assert!(suspicions.is_news_of_guesses(account(0), later));
        assert!(!suspicions.is_news_of_guesses(account(0), later));
    }
}
