//! Throttling of logins (S146-S153, VR-31): how many may fail, and how long the next one waits. What is counted is
//! what the login rule says, not requests: an attempt takes a place before the application is asked, keeps it as a
//! failure, and gives it back otherwise.

#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::is_combining_mark;

use crate::clock::Timestamp;

/// Failures of one account from anywhere, within a day and since its last success, after which each address gets
/// one try only (S147: at most 100).
pub const CEILING: u32 = 100;
/// The largest [`Limit::count`]: all that is known of attempts is a small value.
pub const MOST: u32 = 300;
/// The longest wait.
pub const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);
/// A place is given back by itself after so long: whoever held it is gone, and so is its Vestibule.
pub const HELD: Duration = Duration::from_secs(2 * 60);
/// How much longer the place of a client is held that leaves before the answer: the application may have judged its
/// guess.
pub const LEFT: Duration = Duration::from_secs(10);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// What a proven client may have under way at once, where every request is a login.
const PARALLEL: u32 = 32;

/// So many failures in so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// How many, from one to [`MOST`].
    pub count: u32,
    /// In how long.
    pub window: Duration,
}

/// `[site.login.throttle]`; `None` where it is off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleRules {
    /// Of one account from one address.
    pub per_account: Option<Limit>,
    /// Of one address, whatever the account.
    pub per_address: Option<Limit>,
}

impl Default for ThrottleRules {
    fn default() -> Self {
        let limit = |count, seconds| Some(Limit { count, window: Duration::from_secs(seconds) });
        Self { per_account: limit(5, 15 * 60), per_address: limit(30, 60) }
    }
}

/// How much an attempt may have under way beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Company {
    /// As many as may fail: each of them may be a guess (S152).
    Guesses,
    /// More, once one has succeeded: programs send the password with every request, many at once.
    Requests,
    /// Any number, and it takes no place: it is counted elsewhere.
    Any,
}

/// How a count is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    limit: Limit,
    /// The first wait, which doubles with each failure; `None`: until the window has moved on.
    first_wait: Option<Duration>,
    company: Company,
    /// Whether few failures are remembered for a part of the window only.
    is_brief: bool,
}

impl Pace {
    /// For an account from one address. When the account is guessed at from everywhere, a fresh address gets one
    /// try and then waits a minute: that slows those who have many, and locks nobody out who has his own (S149).
    pub fn of_account(limit: Limit, is_besieged: bool, company: Company) -> Self {
        let (count, seconds) = if is_besieged { (1, 60) } else { (limit.count, 1) };
        let first_wait = Some(Duration::from_secs(seconds));
        Self { limit: Limit { count, ..limit }, first_wait, company, is_brief: false }
    }

    /// For an address.
    pub fn of_address(limit: Limit, company: Company) -> Self {
        Self { limit, first_wait: None, company, is_brief: false }
    }

    /// For an account from everywhere: nothing waits for it, it only makes [`Self::of_account`] stricter. Made-up
    /// names fail once each, and are not remembered for a day.
    pub fn of_ceiling() -> Self {
        let limit = Limit { count: CEILING, window: DAY };
        Self { limit, first_wait: None, company: Company::Any, is_brief: true }
    }
}

/// What an attempt is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may go on, and has taken its place if it needs one.
    Admitted,
    /// It may as soon as one of those that are under way has not failed.
    Busy,
    /// Too many have failed: not before then.
    Refused(Timestamp),
}

/// The place of an attempt that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Told from those that were taken in the same moment.
    pub id: u32,
    /// When it is given back at the latest, milliseconds since the Unix epoch.
    until: u64,
}

/// What is known of the attempts that are counted together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attempts {
    /// When the latest ones failed, in order.
    failures: Vec<Timestamp>,
    /// Those that are under way.
    pending: Vec<Place>,
    /// Failures in a row since there is a wait.
    streak: u32,
    /// How long that is.
    until: Timestamp,
    /// Whether the latest outcome was the success of a [`Company::Requests`].
    proven: bool,
    /// How the names were spelt that failed, hashed, or two of those ways.
    spellings: Vec<u64>,
}

impl Place {
    /// One that is taken now.
    pub fn new(id: u32, now: Timestamp) -> Self {
        Self { id, until: now.plus(HELD).as_millis() }
    }

    fn ends(&self) -> Timestamp {
        Timestamp::from_millis(self.until)
    }
}

impl Attempts {
    /// Has an attempt take this place, if there is one.
    pub fn admit(&mut self, pace: Pace, place: Place, now: Timestamp) -> Admission {
        self.forget(pace, now);
        if let Some(until) = self.waits_until(pace, now) {
            return Admission::Refused(until);
        }
        let places = match pace.company {
            Company::Any => return Admission::Admitted,
            Company::Requests if self.proven => self.places(pace).max(PARALLEL),
            Company::Requests | Company::Guesses => self.places(pace),
        };
        if self.pending.len() >= places as usize {
            return Admission::Busy;
        }
        self.pending.push(place);
        Admission::Admitted
    }

    /// The attempt with this place has failed; says how long the next one waits, if it does.
    pub fn fail(&mut self, pace: Pace, place: Place, spelling: u64, now: Timestamp) -> Option<Duration> {
        self.forget(pace, now);
        self.release(place);
        self.proven = false;
        if self.spellings.len() < 2 && !self.spellings.contains(&spelling) {
            self.spellings.push(spelling);
        }
        let at = self.failures.partition_point(|failure| *failure <= now);
        self.failures.insert(at, now);
        let most = pace.limit.count.max(1) as usize;
        self.failures.drain(..self.failures.len().saturating_sub(most));
        if self.streak == 0 && self.failures.len() < most {
            return None;
        }
        if let Some(first) = pace.first_wait {
            self.streak = self.streak.saturating_add(1);
            let doubled = first.saturating_mul(1_u32.checked_shl(self.streak - 1).unwrap_or(u32::MAX));
            self.until = self.until.max(now.plus(doubled.min(LONGEST_WAIT)));
        }
        self.waits_until(pace, now).map(|until| until.since(now))
    }

    /// The attempt with this place has succeeded: nothing that went before counts, if it was about the same name. Who
    /// has an account whose name only looks the same to us may not reset the count of another's.
    pub fn succeed(&mut self, pace: Pace, place: Place, spelling: u64) {
        self.release(place);
        let proven = pace.company == Company::Requests;
        if self.spellings.iter().all(|failed| *failed == spelling) {
            *self = Self { pending: std::mem::take(&mut self.pending), proven, ..Self::default() };
        }
    }

    /// The attempt with this place came to nothing.
    pub fn release(&mut self, place: Place) {
        self.pending.retain(|pending| *pending != place);
    }

    /// The client with this place has left before its answer.
    pub fn leave(&mut self, place: Place, now: Timestamp) {
        let own = self.pending.iter_mut().filter(|pending| **pending == place);
        own.for_each(|place| place.until = now.plus(LEFT).as_millis());
    }

    /// Whether as many have failed as may.
    pub fn is_exhausted(&self, pace: Pace, now: Timestamp) -> bool {
        self.waits_until(pace, now).is_some()
    }

    /// How long it has to be remembered, at least a moment.
    pub fn lives(&self, pace: Pace, now: Timestamp) -> Duration {
        let window = pace.limit.window;
        let proof = self.proven.then(|| now.plus(window));
        let wait = (self.streak > 0).then(|| self.until.plus(window));
        let failed = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        let memory = if pace.is_brief { window / pace.limit.count.max(1) * failed } else { window };
        let failure = self.failures.last().map(|failure| failure.plus(memory));
        let pending = self.pending.iter().map(Place::ends).max();
        let ends = [proof, wait, failure, pending].into_iter().flatten().max();
        ends.map_or(Duration::ZERO, |ends| ends.since(now)).max(Duration::from_secs(1))
    }

    /// Drops what no longer counts. A wait counts for a window after it is over.
    fn forget(&mut self, pace: Pace, now: Timestamp) {
        let window = pace.limit.window;
        self.failures.retain(|failure| now.since(*failure) < window);
        self.pending.retain(|place| now < place.ends());
        if now >= self.until.plus(window) {
            self.streak = 0;
        }
        if self.streak == 0 && self.failures.is_empty() {
            self.spellings.clear();
        }
    }

    fn waits_until(&self, pace: Pace, now: Timestamp) -> Option<Timestamp> {
        let until = match pace.first_wait {
            Some(_) if self.streak > 0 => self.until,
            Some(_) => return None,
            None => {
                let first = self.failures.len().checked_sub(pace.limit.count.max(1) as usize)?;
                self.failures.get(first)?.plus(pace.limit.window)
            }
        };
        (now < until).then_some(until)
    }

    /// How many may be under way: as many as may still fail. After a wait it is one.
    fn places(&self, pace: Pace) -> u32 {
        let failed = u32::try_from(self.failures.len()).unwrap_or(u32::MAX);
        let left = pace.limit.count.saturating_sub(failed);
        if self.streak > 0 { 1 } else { left.max(1) }
    }

    /// As bytes. `None` never happens: there is no part that cannot be written.
    pub fn write(&self) -> Option<Vec<u8>> {
        let base = self.failures.first().copied().unwrap_or_default();
        let form = Form {
            base: base.as_millis(),
            failures: self.failures.iter().map(|failure| millis(failure.since(base))).collect(),
            pending: self.pending.clone(),
            streak: self.streak,
            until: self.until.as_millis(),
            proven: self.proven,
            spellings: self.spellings.clone(),
        };
        postcard::to_allocvec(&form).ok()
    }

    /// From bytes; `None` when they are none of ours.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let form: Form = postcard::from_bytes(bytes).ok()?;
        let base = Timestamp::from_millis(form.base);
        let time = |later: u32| base.plus(Duration::from_millis(later.into()));
        Some(Self {
            failures: form.failures.into_iter().map(time).collect(),
            pending: form.pending,
            streak: form.streak,
            until: Timestamp::from_millis(form.until),
            proven: form.proven,
            spellings: form.spellings,
        })
    }
}

/// Failures are milliseconds since the first one.
#[derive(Serialize, Deserialize)]
struct Form {
    base: u64,
    failures: Vec<u32>,
    pending: Vec<Place>,
    streak: u32,
    until: u64,
    proven: bool,
    spellings: Vec<u64>,
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

/// How an account is counted, however it is typed: what applications take for the same name is one (S151, VR-31).
/// Databases compare without accents and without what is not seen.
pub fn account(typed: &str) -> String {
    let is_seen = |letter: &char| !is_combining_mark(*letter) && !letter.is_control() && !is_format(*letter);
    let plain = typed.nfkd().filter(is_seen);
    let folded: String = plain.flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect();
    folded.nfkd().filter(is_seen).collect::<String>().trim().to_owned()
}

/// What takes no room: the general category `Cf`, and the fillers that are ignored like it.
fn is_format(letter: char) -> bool {
    matches!(letter,
        '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
        | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Where an attempt comes from. An IPv4 address is one client or one office; its neighbours are strangers. Of IPv6
/// addresses everyone has a network of 64 bits.
pub fn place_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64))),
    }
}
