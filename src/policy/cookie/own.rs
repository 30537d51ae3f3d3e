//! Our own cookie: found among the client's, set, and cleared.

use std::time::Duration;

use bytes::Bytes;
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

/// Our cookies, names and attributes prepared: the session's, and the bound one beside it. Secure, HttpOnly
/// and Path=/ are no options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    name: String,
    bound_name: String,
    /// `SameSite=Strict` instead of `Lax`.
    pub strict: bool,
    /// Whether the session's has a `Max-Age`.
    pub persistent: bool,
}

/// What a request presents under our names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The session.
    pub session: Presented,
    /// The value of the bound cookie; what nobody could have been given when there are several that differ.
    pub bound: Option<Bytes>,
}

impl SessionCookie {
    /// With this name, which has the `__Host-` prefix.
    pub fn new(name: &str, strict: bool, persistent: bool) -> Self {
        Self { name: name.to_owned(), bound_name: format!("{name}-bound"), strict, persistent }
    }

    /// The name of the session's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of the bound one.
    pub fn bound_name(&self) -> &str {
        &self.bound_name
    }

    /// Whether one of ours has this name.
    pub fn is_called(&self, name: &[u8]) -> bool {
        name == self.name.as_bytes() || name == self.bound_name.as_bytes()
    }

    /// Whether one of these is called like one of those.
    pub fn meets(&self, other: &Self) -> bool {
        self.is_called(other.name.as_bytes()) || other.is_called(self.name.as_bytes())
    }

    /// The attributes of the bound one, as browsers are told to expect them.
    pub fn bound_attributes(&self) -> &'static str {
        match self.strict {
            true => "Path=/; Secure; HttpOnly; SameSite=Strict",
            false => "Path=/; Secure; HttpOnly; SameSite=Lax",
        }
    }

    /// Takes ours out of the pairs (names compared case-sensitively, as bytes) and reads them. Equal
    /// duplicates count as one.
    pub fn take(&self, pairs: &mut Vec<CookiePair>) -> Taken {
        let (mut session, mut bound) = (None, None);
        pairs.retain(|pair| {
            let found = match &pair.name[..] {
                name if name == self.name.as_bytes() => &mut session,
                name if name == self.bound_name.as_bytes() => &mut bound,
                _ => return true,
            };
            match found {
                None => *found = Some(pair.value.clone()),
                Some(value) if *value != pair.value => *value = Bytes::new(),
                Some(_) => {}
            }
            false
        });
        let read = |value: Bytes| SessionId::parse(&value).map_or(Presented::Malformed, Presented::Id);
        Taken { session: session.map_or(Presented::None, read), bound }
    }

    /// Whether an application's cookie would pass for ours: such a one goes nowhere (S12). Browsers send
    /// a nameless cookie as its bare value, so that counts as well; letter case does not matter,
    /// because it does not for the `__Host-` prefix either.
    pub fn is_imitated_by(&self, cookie: &SetCookie) -> bool {
        let shown = if cookie.name.is_empty() { &cookie.value } else { &cookie.name };
        [&self.name, &self.bound_name].iter().any(|name| {
            let name = name.as_bytes();
            let same_start = shown.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
            same_start && (cookie.name.is_empty() || shown.len() == name.len())
        })
    }

    /// `Set-Cookie` for an ID; `remaining` is what is left of the absolute lifetime (S5), in whole
    /// seconds, rounded down.
    pub fn set(&self, id: &SessionId, remaining: Duration) -> HeaderValue {
        let mut cookie = self.with_value(&self.name, id.expose());
        if self.persistent {
            let seconds = i64::try_from(remaining.as_secs()).unwrap_or(i64::MAX);
            cookie = cookie.max_age(time::Duration::seconds(seconds));
        }
        field(cookie)
    }

    /// `Set-Cookie` that deletes it, with identical attributes (S8, VR-49).
    pub fn clear(&self) -> HeaderValue {
        self.deletion(&self.name)
    }

    /// `Set-Cookie` for the bound one.
    pub fn set_bound(&self, value: String, lifetime: Duration) -> HeaderValue {
        let seconds = i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX);
        field(self.with_value(&self.bound_name, value).max_age(time::Duration::seconds(seconds)))
    }

    /// `Set-Cookie` that deletes the bound one.
    pub fn clear_bound(&self) -> HeaderValue {
        self.deletion(&self.bound_name)
    }

    fn deletion(&self, name: &str) -> HeaderValue {
        let cookie = self.with_value(name, String::new());
        field(cookie.max_age(time::Duration::ZERO).expires(OffsetDateTime::UNIX_EPOCH))
    }

    fn with_value<'c>(&self, name: &'c str, value: String) -> CookieBuilder<'c> {
        let same_site = if self.strict { cookie::SameSite::Strict } else { cookie::SameSite::Lax };
        Cookie::build((name, value)).path("/").secure(true).http_only(true).same_site(same_site)
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
