//! Who may ask: whoever could open the unix socket, or has the token (S189); and no browser on behalf
//! of a page (S191).

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use http::HeaderMap;
use http::Method;
use http::header;
use subtle::ConstantTimeEq;

use crate::clock::Timestamp;

/// Wrong tokens that are answered in one minute.
const WRONG_TOKENS: u32 = 10;
const MINUTE: Duration = Duration::from_secs(60);

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// A user of this machine, by a socket that only those may open who are meant to.
    Local(u32),
    /// Somebody by TCP.
    Remote(IpAddr),
}

/// For the audit log.
impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(user) => write!(f, "uid {user}"),
            Self::Remote(_) => f.write_str("token"),
        }
    }
}

/// The digest of the token: equal lengths compare in constant time.
pub(super) struct Token([u8; 32]);

impl Token {
    /// `None` when it has less than 128 bits.
    pub(super) fn new(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        // 128 bits are 32 hexadecimal digits, or 22 characters of base64.
        let is_long = text.len() >= if is_hex { 32 } else { 22 };
        (is_long && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(sha256(text.as_bytes())))
    }

    fn is(&self, presented: &[u8]) -> bool {
        self.0.ct_eq(&sha256(presented)).into()
    }
}

fn sha256(text: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, text).as_ref());
    hash
}

/// What a presented token is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Allowed,
    /// No token.
    Missing,
    Wrong,
    /// One wrong token too many.
    Throttled,
}

/// Counts wrong tokens. The right one always passes: 128 bits are not found by guessing, and nobody
/// who guesses may lock its owner out.
#[derive(Default)]
pub(super) struct Throttle {
    since: Timestamp,
    wrong: u32,
}

impl Throttle {
    pub(super) fn judge(&mut self, token: Option<&Token>, headers: &HeaderMap, now: Timestamp) -> Standing {
        let mut presented = headers.get_all(header::AUTHORIZATION).iter();
        let (first, second) = (presented.next(), presented.next());
        let Some(value) = first else { return Standing::Missing };
        let bearer = value.as_bytes().split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let is_right = bearer.zip(token).is_some_and(|((_, presented), token)| token.is(presented));
        if is_right && second.is_none() {
            return Standing::Allowed;
        }
        if now.since(self.since) >= MINUTE {
            (self.since, self.wrong) = (now, 0);
        }
        self.wrong = self.wrong.saturating_add(1);
        if self.wrong > WRONG_TOKENS { Standing::Throttled } else { Standing::Wrong }
    }
}

/// Whether a browser sends this for a page: nothing changes then. What administers has no labels.
pub(super) fn is_from_a_page(method: &Method, headers: &HeaderMap) -> bool {
    let labelled = headers.get_all("sec-fetch-site").iter().any(|site| site != "none");
    !method.is_safe() && (labelled || headers.contains_key(header::ORIGIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "0123456789abcdef0123456789abcdef";

    fn with(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_has_128_bits() {
        // S189
        for (text, good) in [
            (TOKEN, true),
            ("0123456789abcdef0123456789abcde", false),
            ("kq3JmZ0b8cR1yTnX5wVu2A", true),
            ("kq3JmZ0b8cR1yTnX5wVu2", false),
            ("hunter2", false),
            ("", false),
            ("a sentence that is long enough", false),
        ] {
            assert_eq!(Token::new(text).is_some(), good, "{text}");
        }
    }

    #[test]
    fn only_the_token_itself_is_right() {
        // S189
        let token = Token::new(TOKEN);
        let judge = |fields: &[(&'static str, &str)]| {
            Throttle::default().judge(token.as_ref(), &with(fields), Timestamp::default())
        };
        assert_eq!(judge(&[]), Standing::Missing);
        for value in [&format!("Bearer {TOKEN}"), &format!("bearer {TOKEN}")] {
            assert_eq!(judge(&[("authorization", value)]), Standing::Allowed);
        }
        for value in ["", "Bearer", "Bearer ", &format!("Bearer {TOKEN}0"), &format!("Basic {TOKEN}"), TOKEN] {
            assert_eq!(judge(&[("authorization", value)]), Standing::Wrong, "{value}");
        }
        let mut twice = with(&[("authorization", &format!("Bearer {TOKEN}"))]);
        twice.append("authorization", "Bearer x".parse().unwrap());
        assert_eq!(Throttle::default().judge(token.as_ref(), &twice, Timestamp::default()), Standing::Wrong);
        let without = Throttle::default().judge(None, &with(&[("authorization", "Bearer ")]), Timestamp::default());
        assert_eq!(without, Standing::Wrong, "no token is no empty token");
    }

    #[test]
    fn who_guesses_is_slowed_down_and_locks_nobody_out() {
        // S189
        let token = Token::new(TOKEN);
        let mut throttle = Throttle::default();
        let now = Timestamp::from_millis(1_800_000_000_000);
        let wrong = with(&[("authorization", "Bearer guess")]);
        for _ in 0..WRONG_TOKENS {
            assert_eq!(throttle.judge(token.as_ref(), &wrong, now), Standing::Wrong);
        }
        assert_eq!(throttle.judge(token.as_ref(), &wrong, now), Standing::Throttled);
        let right = with(&[("authorization", &format!("Bearer {TOKEN}"))]);
        assert_eq!(throttle.judge(token.as_ref(), &right, now), Standing::Allowed);
        assert_eq!(throttle.judge(token.as_ref(), &wrong, now.plus(MINUTE)), Standing::Wrong);
    }

    #[test]
    fn a_page_changes_nothing() {
        // S191
        for (method, fields, refused) in [
            (Method::DELETE, &[][..], false),
            (Method::DELETE, &[("sec-fetch-site", "none")], false),
            (Method::DELETE, &[("sec-fetch-site", "same-origin")], true),
            (Method::DELETE, &[("sec-fetch-site", "cross-site")], true),
            (Method::DELETE, &[("origin", "https://evil.test")], true),
            (Method::DELETE, &[("origin", "null")], true),
            (Method::GET, &[("sec-fetch-site", "cross-site")], false),
        ] {
            assert_eq!(is_from_a_page(&method, &with(fields)), refused, "{method} {fields:?}");
        }
    }
}
