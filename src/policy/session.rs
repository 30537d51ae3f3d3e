//! Sessions as values: the ID (selector and verifier), the key a store sees, the record it keeps.

use std::borrow::Borrow;
use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderValue;
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::is_nfc;

use crate::clock::Timestamp;
use crate::policy::binding::Binding;
use crate::policy::binding::BindingRules;
use crate::policy::chain::Chain;
use crate::policy::dbsc::Device;
use crate::policy::dbsc::DeviceBound;
use crate::policy::vault::Vault;

/// Characters of base64url that 32 bytes take.
const TEXT_LENGTH: usize = 43;
/// Bytes that a user name may have.
const USER_NAME_LIMIT: usize = 256;
/// Nothing keeps an anonymous session longer.
const ANONYMOUS_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

/// The secret in the browser's cookie: a selector that stays for the life of a chain and a verifier
/// that is new at each rotation, 16 bytes each, together 43 characters of base64url. Never stored,
/// never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionId {
    selector: [u8; 16],
    verifier: [u8; 16],
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// What a store is asked for: SHA-256 of the selector.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub [u8; 32]);

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", self.session_ref())
    }
}

impl SessionKey {
    /// The public short handle of the session: the last 12 bytes of the hash, which say nothing about the
    /// others, nor about the selector.
    pub fn session_ref(&self) -> SessionRef {
        let mut text = [0; SessionRef::LENGTH];
        // 12 bytes are 16 characters: they fit.
        let _length = URL_SAFE_NO_PAD.encode_slice(&self.0[20..], &mut text);
        SessionRef(text)
    }
}

/// The public short handle of a session, for logs, the admin API and the application: 16 characters of
/// base64url.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionRef([u8; Self::LENGTH]);

impl SessionRef {
    const LENGTH: usize = 16;

    /// A text that may be one.
    pub fn parse(text: &str) -> Option<Self> {
        let text: [u8; Self::LENGTH] = text.as_bytes().try_into().ok()?;
        let is_ours = text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(byte));
        is_ours.then_some(Self(text))
    }

    /// Its characters.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl std::ops::Deref for SessionRef {
    type Target = str;

    fn deref(&self) -> &str {
        // Only ASCII is in it: this cannot fail.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for SessionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// What a store is asked by on behalf of someone who presented an ID: the key of the record, and the
/// selector that its sealed fields are under. It opens no session: that takes the verifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Handle {
    key: SessionKey,
    selector: [u8; 16],
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({})", self.key.session_ref())
    }
}

impl Handle {
    /// The key of the record.
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// The selector. One caller: what derives the key of sealed fields from it.
    pub fn selector(&self) -> &[u8; 16] {
        &self.selector
    }
}

impl SessionId {
    /// From 32 random bytes: selector, then verifier.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        let mut id = Self { selector: [0; 16], verifier: [0; 16] };
        id.selector.copy_from_slice(&bytes[..16]);
        id.verifier.copy_from_slice(&bytes[16..]);
        id
    }

    /// Exactly 43 characters of canonical base64url, else `None` and no store access (S20).
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text: &[u8; TEXT_LENGTH] = text.try_into().ok()?;
        let mut bytes = [0; 32];
        // The engine refuses padding and bits that do not belong to the value: one text per ID.
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        (length == bytes.len()).then(|| Self::from_random(bytes))
    }

    /// The key under which the store keeps the record.
    pub fn key(&self) -> SessionKey {
        let mut key = [0; 32];
        key.copy_from_slice(digest::digest(&digest::SHA256, &self.selector).as_ref());
        SessionKey(key)
    }

    /// Key and selector.
    pub fn handle(&self) -> Handle {
        Handle { key: self.key(), selector: self.selector }
    }

    /// Same selector, other verifier.
    pub fn with_verifier(&self, verifier: [u8; 16]) -> Self {
        Self { selector: self.selector, verifier }
    }

    /// The verifier.
    pub fn verifier(&self) -> &[u8; 16] {
        &self.verifier
    }

    /// The cookie's value. One caller: the cookie writer.
    pub fn expose(&self) -> String {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&self.selector);
        bytes[16..].copy_from_slice(&self.verifier);
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

/// A user name that may be put in a header and in a log: 1 to 256 bytes, NFC, no control characters, no
/// space in front or behind, which a header would lose. Other white space stays: to an application
/// `alice` and `alice` with a no-break space may be two users.
#[derive(Clone)]
pub struct UserName(Name);

/// A record is made anew with each request: most names are short and take no allocation.
#[derive(Clone)]
enum Name {
    /// The first so many bytes.
    Short(u8, [u8; Name::SHORT]),
    Long(Arc<str>),
}

impl Name {
    /// As much as fits where the other variant needs as much.
    const SHORT: usize = 22;

    fn new(text: &str) -> Self {
        let mut bytes = [0; Self::SHORT];
        match (bytes.get_mut(..text.len()), u8::try_from(text.len())) {
            (Some(start), Ok(length)) => {
                start.copy_from_slice(text.as_bytes());
                Self::Short(length, bytes)
            }
            _ => Self::Long(Arc::from(text)),
        }
    }
}

/// Why a text is no user name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUserName {
    /// Nothing in it.
    #[error("the user name is empty")]
    Empty,
    /// More than 256 bytes.
    #[error("the user name is longer than 256 bytes")]
    TooLong,
    /// A control character.
    #[error("the user name has a control character")]
    Control,
}

impl UserName {
    /// Takes spaces off both ends, normalises to NFC, checks.
    ///
    /// # Errors
    /// When nothing is left, or it is too long, or it has control characters.
    pub fn parse(text: &str) -> Result<Self, BadUserName> {
        let text = text.trim_matches([' ', '\t']);
        let name = if is_nfc(text) { Cow::Borrowed(text) } else { Cow::Owned(text.nfc().collect()) };
        if name.is_empty() {
            return Err(BadUserName::Empty);
        }
        if name.len() > USER_NAME_LIMIT {
            return Err(BadUserName::TooLong);
        }
        if name.chars().any(is_control) {
            return Err(BadUserName::Control);
        }
        Ok(Self(Name::new(&name)))
    }

    /// A name that was one before, and has been in our own memory since.
    pub(crate) fn kept(name: &str) -> Self {
        Self(Name::new(name))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            // A whole text was put in: this cannot fail.
            Name::Short(length, bytes) => {
                bytes.get(..usize::from(*length)).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
            }
            Name::Long(name) => name,
        }
    }

    /// As it is written in a header: printable ASCII as it is, except `%`; everything else
    /// percent-encoded UTF-8 (S67).
    pub fn in_header(&self) -> impl fmt::Display + '_ {
        InHeader(self.as_str())
    }

    /// The same where it is no other than the name.
    pub fn plain(&self) -> Option<&[u8]> {
        let bytes = self.as_str().as_bytes();
        bytes.iter().all(is_plain).then_some(bytes)
    }

    /// The same as a header value.
    pub fn header_value(&self) -> HeaderValue {
        // Only visible ASCII and spaces are left: this cannot fail, and if it did, nobody is nobody.
        HeaderValue::try_from(self.in_header().to_string()).unwrap_or(HeaderValue::from_static(""))
    }
}

struct InHeader<'a>(&'a str);

impl fmt::Display for InHeader<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for run in self.0.as_bytes().chunk_by(|one, next| is_plain(one) && is_plain(next)) {
            match run {
                [byte] if !is_plain(byte) => write!(f, "%{byte:02X}")?,
                // Only ASCII is in it: this cannot fail.
                plain => f.write_str(std::str::from_utf8(plain).unwrap_or_default())?,
            }
        }
        Ok(())
    }
}

/// Whether it is written in a header as it is.
fn is_plain(byte: &u8) -> bool {
    matches!(byte, b' '..=b'~') && *byte != b'%'
}

/// Equal names are equal texts: an index may be asked by text.
impl Borrow<str> for UserName {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UserName").field(&self.as_str()).finish()
    }
}

impl PartialEq for UserName {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for UserName {}

impl Hash for UserName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

/// Characters that end lines, hide or turn text round: none of them belongs in a name that is logged.
fn is_control(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Who an authenticated session belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The name.
    pub user: UserName,
    /// When the user logged in.
    pub authenticated: Timestamp,
    /// The session's public handle.
    pub session_ref: SessionRef,
}

/// What a store keeps for one chain. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which site issued it: index-free name, the origin's text. Valid only there (VR-55).
    pub site: Arc<str>,
    /// `None`: anonymous, exists only to hold a vault.
    pub identity: Option<Identity>,
    /// When the chain began.
    pub created: Timestamp,
    /// Last activity; a store may keep it apart from the rest.
    pub seen: Timestamp,
    /// Nothing extends it: authentication (or creation) plus the absolute timeout.
    pub absolute_end: Timestamp,
    /// Current and previous verifier, successor.
    pub chain: Chain,
    /// The client at creation.
    pub binding: Binding,
    /// The application's cookies.
    pub vault: Vault,
    /// The device that the session is bound to, or may be; fixed at the login but for that.
    pub device: Option<Box<Device>>,
    /// Grows with each change of the chain: for compare-and-swap.
    pub revision: u64,
}

impl Record {
    /// A session that only holds a vault: it may idle for `anonymous`, and lives for two hours at most.
    pub fn anonymous(
        site: Arc<str>,
        binding: Binding,
        chain: Chain,
        vault: Vault,
        rules: &SessionRules,
        now: Timestamp,
    ) -> Self {
        let absolute_end = now.plus(ANONYMOUS_LIMIT.min(rules.absolute));
        let (identity, device) = (None, None);
        Self { site, identity, created: now, seen: now, absolute_end, chain, binding, vault, device, revision: 0 }
    }

    /// The session of a user who has just logged in.
    pub fn authenticated(
        site: Arc<str>,
        identity: Identity,
        binding: Binding,
        chain: Chain,
        vault: Vault,
        rules: &SessionRules,
        now: Timestamp,
    ) -> Self {
        let absolute_end = now.plus(rules.absolute);
        let (identity, device) = (Some(identity), None);
        Self { site, identity, created: now, seen: now, absolute_end, chain, binding, vault, device, revision: 0 }
    }
}

impl Record {
    /// What needs no secret to be known.
    pub fn outline(&self) -> Outline {
        let identity = self.identity.as_ref();
        Outline {
            site: Arc::clone(&self.site),
            user: identity.map(|identity| identity.user.clone()),
            created: self.created,
            authenticated: identity.map(|identity| identity.authenticated),
            seen: self.seen,
            absolute_end: self.absolute_end,
            binding: self.binding.clone(),
        }
    }

    /// What its limits are judged by.
    pub fn life(&self) -> Life {
        Life { authenticated: self.identity.is_some(), seen: self.seen, absolute_end: self.absolute_end }
    }
}

/// The readable part of a record: for lists, indexes and limits. Nobody is let in on its word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// As [`Record::site`].
    pub site: Arc<str>,
    /// Whose session it is said to be.
    pub user: Option<UserName>,
    /// When the chain began.
    pub created: Timestamp,
    /// When the user logged in; `None` for an anonymous session.
    pub authenticated: Option<Timestamp>,
    /// Last activity.
    pub seen: Timestamp,
    /// Nothing extends it.
    pub absolute_end: Timestamp,
    /// The client at creation.
    pub binding: Binding,
}

impl Outline {
    /// What the limits are judged by.
    pub fn life(&self) -> Life {
        Life { authenticated: self.authenticated.is_some(), seen: self.seen, absolute_end: self.absolute_end }
    }
}

/// What the limits of a session are judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// Whether somebody logged in.
    pub authenticated: bool,
    /// Last activity.
    pub seen: Timestamp,
    /// Nothing extends it.
    pub absolute_end: Timestamp,
}

/// `[session]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRules {
    /// Without activity a session ends after this (default 30m).
    pub idle: Duration,
    /// A session ends this long after the login in any case (default 8h).
    pub absolute: Duration,
    /// As `idle`, for anonymous sessions (default 30m, at most 2h).
    pub anonymous: Duration,
    /// Age at which an ID gets a successor (default 15m); `None` is off.
    pub rotate_every: Option<Duration>,
    /// How long a predecessor is accepted after its successor was presented (default 30s).
    pub rotation_grace: Duration,
    /// Sessions a user may have on a site; unlimited when `None`.
    pub max_per_user: Option<u64>,
    /// Address and user-agent binding.
    pub binding: BindingRules,
    /// Whether sessions are bound to devices.
    pub device_bound: DeviceBound,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The user logged out.
    Logout,
    /// No activity.
    Idle,
    /// Too old.
    Absolute,
    /// Ended by an administrator.
    Revoked,
    /// Pushed out by a newer one.
    Displaced,
    /// A copied ID was used.
    Reuse,
    /// Another client presented it.
    Binding,
    /// Replaced by a login.
    Login,
    /// The store lost it.
    Store,
}

impl EndReason {
    /// All of them, in their order.
    pub const ALL: [Self; 9] = [
        Self::Logout,
        Self::Idle,
        Self::Absolute,
        Self::Revoked,
        Self::Displaced,
        Self::Reuse,
        Self::Binding,
        Self::Login,
        Self::Store,
    ];

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Idle => "idle",
            Self::Absolute => "absolute",
            Self::Revoked => "revoked",
            Self::Displaced => "displaced",
            Self::Reuse => "reuse",
            Self::Binding => "binding",
            Self::Login => "login",
            Self::Store => "store",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_43_characters_and_read_back() {
        // S4, S16
        let id = SessionId::from_random([0xa5; 32]);
        assert_eq!(id.expose().len(), 43);
        assert_eq!(SessionId::parse(id.expose().as_bytes()), Some(id));
    }

    #[test]
    fn only_canonical_texts_are_ids() {
        // S20: everything else is refused before a store is asked.
        let good = SessionId::from_random([7; 32]).expose();
        let mut last_bit = good.clone();
        last_bit.replace_range(42.., "d");
        for bad in ["", "x", &format!("{good}="), &good[..42], &good.replace('B', "+"), &last_bit, &format!("{good}A")]
        {
            assert_eq!(SessionId::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_key_depends_on_the_selector_only() {
        // S18, S19: it is the SHA-256 digest, so that no look-up compares what a client chose.
        let id = SessionId::from_random([1; 32]);
        assert_eq!(id.key().0[..8], [0xcc, 0x8c, 0xd4, 0x1c, 0xef, 0x90, 0x7c, 0x4d]);
        assert_eq!(id.key(), id.with_verifier([9; 16]).key());
        assert_ne!(id.key(), SessionId::from_random([2; 32]).key());
        let session_ref = id.key().session_ref();
        assert_eq!((session_ref.len(), SessionRef::parse(&session_ref)), (16, Some(session_ref)));
        assert_ne!(session_ref, SessionId::from_random([2; 32]).key().session_ref());
        for other in ["", "x", "0123456789abcde*", "0123456789abcdef0", &id.expose()] {
            assert_eq!(SessionRef::parse(other), None, "{other}");
        }
    }

    #[test]
    fn nothing_secret_is_printed() {
        // S161, VR-39
        let id = SessionId::from_random([0x41; 32]);
        let printed = format!("{id:?} {:?}", id.key());
        assert!(!printed.contains(&id.expose()) && !printed.contains("65, 65"), "{printed}");
    }

    #[test]
    fn user_names_are_trimmed_composed_and_checked() {
        // S67
        assert_eq!(UserName::parse(" e\u{301}mile ").unwrap().as_str(), "\u{e9}mile");
        assert_eq!(UserName::parse("admin\u{a0}").unwrap().as_str(), "admin\u{a0}");
        for (text, error) in [
            ("", BadUserName::Empty),
            (" \t ", BadUserName::Empty),
            ("a\r\nX: y", BadUserName::Control),
            ("a\u{202e}b", BadUserName::Control),
            (&"x".repeat(257), BadUserName::TooLong),
        ] {
            assert_eq!(UserName::parse(text), Err(error));
        }
    }

    #[test]
    fn header_values_are_visible_ascii() {
        // S67
        let value = |text| UserName::parse(text).unwrap().header_value();
        assert_eq!(value("alice smith"), "alice smith");
        assert_eq!(value("50%"), "50%25");
        assert_eq!(value("a\u{e9}%b"), "a%C3%A9%25b");
        assert_eq!(value("\u{e9}"), "%C3%A9");
    }

    #[test]
    fn every_reason_stands_at_its_place() {
        for (place, reason) in EndReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place, "{}", reason.as_str());
        }
    }

    proptest! {
        #[test]
        fn reading_an_id_never_panics(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Some(id) = SessionId::parse(&text) {
                prop_assert_eq!(id.expose().into_bytes(), text);
            }
        }

        #[test]
        fn every_user_name_is_a_header_value(text in "\\PC{0,80}") {
            if let Ok(name) = UserName::parse(&text) {
                prop_assert!(!name.header_value().is_empty());
            }
        }
    }
}
