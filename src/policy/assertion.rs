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
    /// ends at `session_end` at the latest.
    pub fn claims(&self, identity: &Identity, session_end: Timestamp, now: Timestamp) -> String {
        let expires = now.plus(self.lifetime).min(session_end);
        json!({
            "iss": self.issuer,
            "aud": self.audience,
            "sub": identity.user.as_str(),
            "iat": now.as_secs(),
            "exp": expires.as_secs(),
            "sid": &*identity.session_ref,
            "auth_time": identity.authenticated.as_secs(),
        })
        .to_string()
    }

    /// Whether one that was made then may be sent once more: whoever gets it has half its time left.
    pub fn may_repeat(&self, made: Timestamp, now: Timestamp) -> bool {
        made <= now && now.since(made) < self.lifetime / 2
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::policy::session::SessionRef;
    use crate::policy::session::UserName;

    const NOW: Timestamp = Timestamp::from_millis(1_000_900);

    fn issuer(lifetime: Duration) -> Issuer {
        let origin = Origin { host: "app.example.com".to_owned(), port: 8443 };
        Issuer::of(&origin, &AssertionRules { header: HeaderName::from_static("x-assertion"), lifetime, keys: None })
    }

    fn claims(lifetime: Duration, session_end: Timestamp) -> Value {
        let user = UserName::parse("Åsa \"q\"").unwrap();
        let session_ref = SessionRef::parse("handle-of-asas-s").unwrap();
        let identity = Identity { user, authenticated: Timestamp::from_millis(900_000), session_ref };
        serde_json::from_str(&issuer(lifetime).claims(&identity, session_end, NOW)).unwrap()
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
        for (millis, repeats) in [(0, true), (29_999, true), (30_000, false), (60_000, false)] {
            assert_eq!(issuer.may_repeat(NOW, NOW.plus(Duration::from_millis(millis))), repeats, "{millis}");
        }
        assert!(!issuer.may_repeat(NOW.plus(Duration::from_millis(1)), NOW), "the clock was set back");
    }
}
