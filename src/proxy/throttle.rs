//! Carries the throttling of logins out: an attempt takes its places in the store before the application is asked,
//! and what came of it is noted there before its answer leaves.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::clock::Timestamp;
use crate::policy::csrf::RequestKind;
use crate::policy::login;
use crate::policy::login::Attempt;
use crate::policy::login::Outcome;
use crate::policy::throttle;
use crate::policy::throttle::Admission;
use crate::policy::throttle::Attempts;
use crate::policy::throttle::Company;
use crate::policy::throttle::Pace;
use crate::policy::throttle::Place;
use crate::proxy::Gate;
use crate::proxy::body::Body;
use crate::proxy::exchange::Exchange;
use crate::proxy::failure::Failure;
use crate::proxy::reply;
use crate::store::StoreError;
use crate::store::Swap;
use crate::store::shelf::Kind;
use crate::store::shelf::Name;
use crate::store::shelf::Version;
use crate::telemetry;
use crate::telemetry::Audit;
use crate::telemetry::Counting;

/// How long an attempt waits for others to come to something, when each of them might be a guess.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it looks: other nodes do not say when.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// And not more often.
const LOOK_AFTER: Duration = Duration::from_millis(100);
/// How many may wait: each of them costs the store something.
const WAITING: usize = 500;
/// How often a change is made again because another one came first.
const ATTEMPTS: usize = 500;

/// Where attempts wait for places.
pub(super) struct Waiting {
    /// Told when others have come to something.
    freed: Notify,
    seats: Semaphore,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { freed: Notify::new(), seats: Semaphore::new(WAITING) }
    }
}

/// A count that an attempt takes part in.
#[derive(Clone, Copy)]
struct Count {
    what: Counting,
    name: Name,
    pace: Pace,
    spelling: u64,
}

/// An attempt that may go on. Whatever becomes of it, its places are given back.
pub(super) struct Permit {
    gate: Arc<Gate>,
    pair: Option<Count>,
    address: Option<Count>,
    ceiling: Option<Count>,
    place: Place,
    is_settled: bool,
}

/// Why an attempt may not go on.
struct NoPlace {
    what: Counting,
    /// `None`: others are under way.
    until: Option<Timestamp>,
}

impl NoPlace {
    fn told(what: Counting, admission: Admission) -> Result<(), Self> {
        match admission {
            Admission::Admitted => Ok(()),
            Admission::Busy => Err(Self { what, until: None }),
            Admission::Refused(until) => Err(Self { what, until: Some(until) }),
        }
    }
}

/// What is there of a count.
#[derive(Clone, Default)]
struct Known {
    version: Option<Version>,
    attempts: Attempts,
}

impl Exchange<'_> {
    /// Whether an attempt may go on, after those beside it have come to something; else the answer.
    pub(super) async fn permit(&mut self, attempt: &Attempt<'_>) -> Result<Result<Permit, Response<Body>>, Failure> {
        let gate = Arc::clone(&self.worker.gate);
        let (patience, mut seat) = (Instant::now() + PATIENCE, None);
        loop {
            let mut freed = pin!(gate.waiting.freed.notified());
            freed.as_mut().enable();
            let now = gate.clock.now();
            let NoPlace { what, until } = match self.try_permit(attempt, now).await? {
                Ok(permit) => return Ok(Ok(permit)),
                Err(none) => none,
            };
            if until.is_none() && Instant::now() < patience {
                seat = seat.or_else(|| gate.waiting.seats.try_acquire().ok());
                if seat.is_some() {
                    tokio::time::sleep(LOOK_AFTER).await;
                    let _looks_again = tokio::time::timeout(LOOK_EVERY, freed).await;
                    continue;
                }
            }
            return Ok(Err(self.refuse_attempt(attempt, what, until.map(|until| until.since(now)))));
        }
    }

    async fn try_permit(&self, attempt: &Attempt<'_>, now: Timestamp) -> Result<Result<Permit, NoPlace>, Failure> {
        let (gate, rules) = (&self.worker.gate, attempt.rule.throttle);
        let account = login::account(attempt);
        let counted = account.as_ref().filter(|_| rules.per_account.is_some());
        let place = throttle::place_of(self.client.address).to_string();
        let named = |parts: [&str; 4]| {
            let [what, limit, account, place] = parts.map(str::as_bytes);
            Name::of(Kind::Attempts, &[b"2", self.site.name.as_bytes(), what, limit, account, place])
        };
        // Rules of the same limits count together; under others the history that is kept is another.
        let [of_pair, of_each] = [rules.per_account, rules.per_address].map(|limit| format!("{limit:?}"));
        let pair = counted.map(|account| named(["pair", &of_pair, &account.counted, &place]));
        let address = rules.per_address.map(|_| named(["address", &of_each, "", &place]));
        let ceiling = counted.map(|account| named(["account", "", &account.counted, ""]));
        let spelling = account.as_ref().map_or(0, |account| named(["spelling", "", account.typed, ""]).short());
        let (pair_is, address_is, ceiling_is) =
            tokio::try_join!(gate.known(pair, now), gate.known(address, now), gate.known(ceiling, now))?;

        let is_besieged = ceiling_is.attempts.is_exhausted(Pace::of_ceiling(), now);
        let company = if attempt.rule.takes_basic() { Company::Requests } else { Company::Guesses };
        // What programs send with a session of their own is bounded by its account.
        let is_own = counted.is_some_and(|account| self.is_own(&account.counted)) && company == Company::Requests;
        let count =
            |what, name: Option<Name>, pace: Option<Pace>| Some(Count { what, name: name?, pace: pace?, spelling });
        let of_account = rules.per_account.map(|limit| Pace::of_account(limit, is_besieged, company));
        let of_address =
            rules.per_address.map(|limit| Pace::of_address(limit, if is_own { Company::Any } else { company }));
        let permit = Permit {
            gate: Arc::clone(gate),
            pair: count(Counting::Account, pair, of_account),
            address: count(Counting::Address, address, of_address),
            ceiling: count(Counting::Ceiling, ceiling, Some(Pace::of_ceiling())),
            place: Place::new(new_id()?, now),
            is_settled: false,
        };
        Ok(permit.take(pair_is, address_is, now).await?)
    }

    /// Whether the session is that of this account.
    fn is_own(&self, account: &str) -> bool {
        self.session.identity().is_some_and(|identity| throttle::account(identity.user.as_str()) == account)
    }

    /// The same for a right password, a wrong one, and an account that is not there (S148).
    fn refuse_attempt(&self, attempt: &Attempt<'_>, per: Counting, wait: Option<Duration>) -> Response<Body> {
        let cause = if wait.is_some() { "Too many failed logins" } else { "Too many logins at once" };
        let wait = in_seconds(wait.unwrap_or_default());
        self.worker.gate.tally.login_throttled();
        telemetry::audit(&self.trace.context, &Audit::LoginThrottled { rule: attempt.number, per, wait });
        let page = Some(attempt.rule.page.raw()).filter(|_| self.kind == RequestKind::Navigation);
        reply::too_many_attempts(cause, wait, page)
    }

    /// Notes what came of an attempt, whether its client is still there or not.
    pub(super) async fn settle(&self, permit: Permit, rule: usize, outcome: Outcome) -> Result<(), Failure> {
        let now = self.now;
        for (what, wait) in self.must_finish(permit.settle(Some(outcome), now)).await?? {
            let wait = in_seconds(wait);
            telemetry::audit(&self.trace.context, &Audit::LoginCooldown { rule, per: what, wait });
        }
        Ok(())
    }
}

/// Whole ones, rounded up, at least one.
fn in_seconds(wait: Duration) -> Duration {
    Duration::from_secs((wait + Duration::from_nanos(999_999_999)).as_secs().max(1))
}

fn new_id() -> Result<u32, Failure> {
    let mut id = [0; 4];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| Failure::NoId)?;
    Ok(u32::from_le_bytes(id))
}

impl Permit {
    /// Takes its place in each count, or in none.
    async fn take(mut self, pair: Known, address: Known, now: Timestamp) -> Result<Result<Self, NoPlace>, StoreError> {
        let (gate, place) = (Arc::clone(&self.gate), self.place);
        let counts = || self.pair.iter().zip([&pair]).chain(self.address.iter().zip([&address]));
        // Nothing is written for those who have to wait or are refused.
        let seen = counts().try_for_each(|(count, known)| {
            NoPlace::told(count.what, known.attempts.clone().admit(count.pace, place, now))
        });
        if let Err(none) = seen {
            self.is_settled = true;
            return Ok(Err(none));
        }
        for (count, known) in counts() {
            let taken =
                gate.change(count, known.clone(), now, |attempts| attempts.admit(count.pace, place, now)).await?;
            if let Err(none) = NoPlace::told(count.what, taken) {
                self.note(Some(Outcome::Undetermined), now).await?;
                self.is_settled = true;
                return Ok(Err(none));
            }
        }
        Ok(Ok(self))
    }

    /// Says which waits have begun. Without an outcome the client has left before there was one.
    async fn settle(
        mut self,
        outcome: Option<Outcome>,
        now: Timestamp,
    ) -> Result<Vec<(Counting, Duration)>, StoreError> {
        self.is_settled = true;
        let mut waits = self.note(outcome, now).await?;
        waits.retain(|(what, _)| *what != Counting::Ceiling || self.is_news(now));
        self.gate.waiting.freed.notify_waiters();
        Ok(waits)
    }

    /// That an account is guessed at from everywhere is not said each time.
    fn is_news(&self, now: Timestamp) -> bool {
        self.ceiling.is_some_and(|ceiling| self.gate.suspicions.is_news_of_guesses(ceiling.name, now))
    }

    async fn note(&self, outcome: Option<Outcome>, now: Timestamp) -> Result<Vec<(Counting, Duration)>, StoreError> {
        let note = |count| self.gate.note(count, outcome, self.place, now);
        let (pair, address, ceiling) = tokio::try_join!(note(self.pair), note(self.address), note(self.ceiling))?;
        Ok([pair, address, ceiling].into_iter().flatten().collect())
    }
}

/// The client has left.
impl Drop for Permit {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        // Without a runtime the process ends; others forget the places after a while.
        let Ok(runtime) = Handle::try_current() else { return };
        let (gate, writes) = (Arc::clone(&self.gate), self.gate.writes.clone());
        let given_back = Self { gate, is_settled: true, ..*self };
        let settled = async move {
            let now = given_back.gate.clock.now();
            let _forgotten_later = given_back.settle(None, now).await;
        };
        writes.spawn_on(settled, &runtime);
    }
}

impl Gate {
    /// Notes what came of the attempt with this place; says whether a wait has begun.
    async fn note(
        &self,
        count: Option<Count>,
        outcome: Option<Outcome>,
        place: Place,
        now: Timestamp,
    ) -> Result<Option<(Counting, Duration)>, StoreError> {
        let Some(count) = count else { return Ok(None) };
        let known = self.known(Some(count.name), now).await?;
        let noted = self.change(&count, known, now, |attempts| match (outcome, count.what) {
            (Some(Outcome::Failure), _) => attempts.fail(count.pace, place, count.spelling, now),
            (Some(Outcome::Success), Counting::Account | Counting::Ceiling) => {
                attempts.succeed(count.pace, place, count.spelling);
                None
            }
            // Whoever has an account of his own may not reset the count of his address.
            (Some(Outcome::Success), Counting::Address) | (Some(Outcome::Undetermined | Outcome::Ask), _) => {
                attempts.release(place);
                None
            }
            (None, _) => {
                attempts.leave(place, now);
                None
            }
        });
        Ok(noted.await?.map(|wait| (count.what, wait)))
    }

    async fn known(&self, name: Option<Name>, now: Timestamp) -> Result<Known, StoreError> {
        let Some(name) = name else { return Ok(Known::default()) };
        match self.store.shelved(&name, now).await? {
            Some(shelved) => {
                let damaged = || StoreError::Corrupt("a count of attempts to log in is damaged".into());
                let attempts = Attempts::read(&shelved.value).ok_or_else(damaged)?;
                Ok(Known { version: Some(shelved.version), attempts })
            }
            None => Ok(Known::default()),
        }
    }

    /// Compare-and-swap until it was this change that was made (S152).
    async fn change<T>(
        &self,
        count: &Count,
        mut known: Known,
        now: Timestamp,
        change: impl Fn(&mut Attempts) -> T,
    ) -> Result<T, StoreError> {
        for _ in 0..ATTEMPTS {
            let mut attempts = known.attempts.clone();
            let result = change(&mut attempts);
            if attempts == known.attempts {
                return Ok(result);
            }
            let value = attempts.write().ok_or_else(|| StoreError::Corrupt("attempts cannot be written".into()))?;
            let lives = attempts.lives(count.pace, now);
            match self.store.shelve(&count.name, known.version, Bytes::from(value), lives, now).await? {
                Swap::Swapped => return Ok(result),
                Swap::Stale | Swap::Gone => known = self.known(Some(count.name), now).await?,
            }
        }
        Err(StoreError::Unavailable("a count of attempts to log in is changed all the time".into()))
    }
}
