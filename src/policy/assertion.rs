//! The signed statement about the user (S73): what it says, and how long one is good for.

use std::path::PathBuf;
use std::time::Duration;

use http::header::HeaderName;
use serde_json::json;

use crate::clock::Timestamp;
use crate::policy::session::Identity;
use crate::policy::site::Origin;

/// Nothing calls a statement back: it holds no longer than this, whatever becomes of the session.
pub const LONGEST: Duration = Duration::from_secs(60);

/// `[site.identity] assertion`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionRules {
    /// Header that it stands in.
    pub header: HeaderName,
    /// How long it holds (default 60s, at most that).
    pub lifetime: Duration,
    /// Where the keys are kept; beside the session store when not given.
    pub keys: Option<PathBuf>,
}

/// One moment by two clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the one that sessions live by: it is never set, and so may go on being wrong.
    pub now: Timestamp,
    /// By the time of day, with which whoever verifies compares.
    pub time_of_day: Timestamp,
}

impl Moment {
    /// What a time in the life of a session is by the time of day. Moved by whole seconds: clocks that drift
    /// apart by less do not make two times of one.
    fn of_day(self, time: Timestamp) -> Timestamp {
        let ahead = self.time_of_day.ahead_of(self.now).saturating_add(500);
        time.moved(ahead.saturating_sub(ahead.rem_euclid(1000))).min(self.time_of_day)
    }
}

/// Who states something, to whom, and for how long it holds.
#[derive(Clone, Debug)]
pub struct Issuer {
    issuer: String,
    audience: String,
    lifetime: Duration,
}

impl Issuer {
    /// For the application of this origin. The name of the issuer is where its endpoints are: it is not
    /// the application's own, which may issue statements as well.
    pub fn of(origin: &Origin, rules: &AssertionRules) -> Self {
        let audience = origin.to_text();
        Self { issuer: format!("{audience}/.vestibule"), audience, lifetime: rules.lifetime }
    }

    /// The claims (RFC 7519, and `sid` and `auth_time` of OpenID Connect) about the user of a session that
    /// ends at `session_end` at the latest. All their times are by the time of day.
    pub fn claims(&self, identity: &Identity, session_end: Timestamp, at: Moment) -> String {
        let issued = at.time_of_day;
        let expires = issued.plus(self.lifetime.min(session_end.since(at.now)));
        json!({
            "iss": self.issuer,
            "aud": self.audience,
            "sub": identity.user.as_str(),
            "iat": issued.as_secs(),
            "exp": expires.as_secs(),
            "sid": &*identity.session_ref,
            "auth_time": at.of_day(identity.authenticated).as_secs(),
        })
        .to_string()
    }

    /// Whether one that was made then may be sent once more: whoever gets it has half its time left, by both
    /// clocks.
    pub fn may_repeat(&self, made: Moment, at: Moment) -> bool {
        let is_fresh = |made: Timestamp, now: Timestamp| made <= now && now.since(made) < self.lifetime / 2;
        is_fresh(made.now, at.now) && is_fresh(made.time_of_day, at.time_of_day)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::session::SessionRef;
    use crate::policy::session::UserName;

    const NOW: Timestamp = Timestamp::from_millis(1_000_900);
    const AUTHENTICATED: Timestamp = Timestamp::from_millis(900_000);

    fn issuer(lifetime: Duration) -> Issuer {
        let origin = Origin { host: "app.example.com".to_owned(), port: 8443 };
        Issuer::of(&origin, &AssertionRules { header: HeaderName::from_static("x-assertion"), lifetime, keys: None })
    }

    fn claims(lifetime: Duration, session_end: Timestamp) -> Value {
        claims_at(moment(0, 0), lifetime, session_end)
    }

    fn claims_at(at: Moment, lifetime: Duration, session_end: Timestamp) -> Value {
        let user = UserName::parse("Åsa \"q\"").unwrap();
        let session_ref = SessionRef::parse("handle-of-asas-s").unwrap();
        let identity = Identity { user, authenticated: AUTHENTICATED, session_ref };
        serde_json::from_str(&issuer(lifetime).claims(&identity, session_end, at)).unwrap()
    }

    /// So many milliseconds later than [`NOW`], under a clock that was set by so many.
    fn moment(later: i64, set_by: i64) -> Moment {
        let now = NOW.moved(later);
        Moment { now, time_of_day: now.moved(set_by) }
    }

    #[test]
    fn it_says_who_to_whom_and_until_when() {
        // S73
        let said = claims(LONGEST, NOW.plus(2 * LONGEST));

        let expected = json!({
            "iss": "https://app.example.com:8443/.vestibule",
            "aud": "https://app.example.com:8443",
            "sub": "Åsa \"q\"",
            "iat": 1000,
            "exp": 1060,
            "sid": "handle-of-asas-s",
            "auth_time": 900,
        });
        assert_eq!(said, expected);
    }

    #[test]
    fn it_holds_no_longer_than_the_session_may() {
        assert_eq!(claims(LONGEST, NOW.plus(Duration::from_millis(20_050)))["exp"], 1020);
        assert_eq!(claims(Duration::from_secs(5), NOW.plus(LONGEST))["exp"], 1005);
    }

    #[test]
    fn it_is_repeated_for_half_its_time() {
        let issuer = issuer(LONGEST);
        for (millis, repeats) in [(0, true), (29_999, true), (30_000, false), (60_000, false), (-1, false)] {
            assert_eq!(issuer.may_repeat(moment(0, 0), moment(millis, 0)), repeats, "{millis}");
        }
        for (set_by, repeats) in [(19_999, true), (20_000, false), (-10_000, true), (-10_001, false)] {
            assert_eq!(issuer.may_repeat(moment(0, 0), moment(10_000, set_by)), repeats, "set by {set_by}");
        }
    }

    #[test]
    fn its_times_are_those_of_whoever_verifies() {
        // S73
        let session_end = NOW.plus(Duration::from_secs(20));
        for (set_by, issued, login) in [
            (3_600_000, 4600, 4500),
            (-600_000, 400, 300),
            // A drift is no other login.
            (400, 1001, 900),
            (-400, 1000, 900),
            (-499, 1000, 900),
            (-700, 1000, 899),
            (i64::MIN, 0, 0),
        ] {
            let said = claims_at(moment(0, set_by), LONGEST, session_end);
            assert_eq!((&said["iat"], &said["auth_time"]), (&issued.into(), &login.into()), "{set_by}");
            assert!((issued + 20..=issued + 21).contains(&said["exp"].as_u64().unwrap()), "{set_by}: {said}");
        }
        let at_once = claims_at(Moment { now: AUTHENTICATED, time_of_day: AUTHENTICATED.moved(-400) }, LONGEST, NOW);
        assert_eq!(at_once["auth_time"], at_once["iat"], "nobody logs in later than it is");
    }
}
