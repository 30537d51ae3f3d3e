//! Our own cookie: found among the client's, set, and cleared.

use std::time::Duration;

use cookie::Cookie;
use cookie::CookieBuilder;
use http::HeaderValue;
use time::OffsetDateTime;

use crate::policy::cookie::CookiePair;
use crate::policy::cookie::SetCookie;
use crate::policy::session::SessionId;

/// What a request presents under our cookie's name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// Nothing.
    None,
    /// One well-formed ID.
    Id(SessionId),
    /// One value that is no ID, or several that differ (S11, VR-35).
    Malformed,
}

/// Our cookie, its name and attributes prepared. Secure, HttpOnly and Path=/ are no options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name, with the `__Host-` prefix.
    pub name: String,
    /// `SameSite=Strict` instead of `Lax`.
    pub strict: bool,
    /// Whether it has a `Max-Age`.
    pub persistent: bool,
}

impl SessionCookie {
    /// Takes our cookie out of the pairs (name compared case-sensitively, as bytes) and reads it.
    /// Equal duplicates count as one.
    pub fn take(&self, pairs: &mut Vec<CookiePair>) -> Presented {
        let mut found = None;
        let mut differ = false;
        pairs.retain(|pair| {
            if pair.name != self.name.as_bytes() {
                return true;
            }
            let first = found.get_or_insert_with(|| pair.value.clone());
            differ |= *first != pair.value;
            false
        });
        let Some(value) = found else {
            return Presented::None;
        };
        if differ {
            return Presented::Malformed;
        }
        SessionId::parse(&value).map_or(Presented::Malformed, Presented::Id)
    }

    /// Whether an application's cookie would pass for ours: such a one goes nowhere (S12). Browsers send
    /// a nameless cookie as its bare value, so that counts as well; letter case does not matter,
    /// because it does not for the `__Host-` prefix either.
    pub fn is_imitated_by(&self, cookie: &SetCookie) -> bool {
        let shown = if cookie.name.is_empty() { &cookie.value } else { &cookie.name };
        let name = self.name.as_bytes();
        let same_start = shown.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
        same_start && (cookie.name.is_empty() || shown.len() == name.len())
    }

    /// `Set-Cookie` for an ID; `remaining` is what is left of the absolute lifetime (S5), in whole
    /// seconds, rounded down.
    pub fn set(&self, id: &SessionId, remaining: Duration) -> HeaderValue {
        let mut cookie = self.with_value(id.expose());
        if self.persistent {
            let seconds = i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX);
            cookie = cookie.max_age(time::Duration::seconds(seconds));
        }
        field(cookie)
    }

    /// `Set-Cookie` that deletes it, with identical attributes (S8, VR-49).
    pub fn clear(&self) -> HeaderValue {
        let cookie = self.with_value(String::new());
        field(cookie.max_age(time::Duration::ZERO).expires(OffsetDateTime::UNIX_EPOCH))
    }

    fn with_value(&self, value: String) -> CookieBuilder<'_> {
        let same_site = if self.strict { cookie::SameSite::Strict } else { cookie::SameSite::Lax };
        Cookie::build((self.name.as_str(), value)).path("/").secure(true).http_only(true).same_site(same_site)
    }
}

/// The field value, kept out of `Debug` and of HPACK's dynamic table.
fn field(cookie: CookieBuilder<'_>) -> HeaderValue {
    // The name was checked with the configuration and the value is base64url. Were it otherwise, an
    // empty `Set-Cookie`, which browsers ignore, gives nothing away.
    let mut value = HeaderValue::try_from(cookie.build().to_string()).unwrap_or_else(|_| HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}
