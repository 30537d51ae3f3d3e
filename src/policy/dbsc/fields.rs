//! What goes over the wire beside the cookies: header fields (RFC 9651) and the instructions as JSON.

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use serde_json::Value;
use serde_json::json;

use crate::policy::cookie::SessionCookie;
use crate::policy::dbsc::Identifier;
use crate::policy::dbsc::Offer;
use crate::policy::path::Target;
use crate::policy::route::OWN_PREFIX;

/// Offers a registration.
pub const REGISTRATION: HeaderName = HeaderName::from_static("secure-session-registration");
/// Says what is to be signed next.
pub const CHALLENGE: HeaderName = HeaderName::from_static("secure-session-challenge");
/// The browser's proof.
pub const RESPONSE: HeaderName = HeaderName::from_static("secure-session-response");
/// Which session the browser wants to refresh.
pub const SESSION_ID: HeaderName = HeaderName::from_static("sec-secure-session-id");
/// Why a browser sends a request without a refresh. Anybody can say so: it is for logs (S63).
pub const SKIPPED: HeaderName = HeaderName::from_static("secure-session-skipped");

/// Which of the two a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Registers a key.
    Register,
    /// Gets a new bound cookie.
    Refresh,
}

impl Endpoint {
    /// By the path, without readings.
    pub fn of(target: &Target) -> Option<Self> {
        let name = target.path().strip_prefix(OWN_PREFIX)?.strip_prefix("dbsc/")?;
        [Self::Register, Self::Refresh].into_iter().find(|endpoint| endpoint.as_str() == name)
    }

    /// Where it is.
    pub fn path(self) -> String {
        format!("{OWN_PREFIX}dbsc/{}", self.as_str())
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Refresh => "refresh",
        }
    }
}

/// The one value of a field as text, whether it is a string of RFC 9651 or bare, as browsers send it.
/// `None` when there is none, more than one, or one that is neither.
pub fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.trim_matches([' ', '\t']);
    let bare = match value.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => value,
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (values.next().is_none() && !bare.is_empty() && bare.bytes().all(is_plain)).then_some(bare)
}

/// Whether a page's script may have asked: browsers register without CORS, and let no script add our fields to
/// such a request. Those that say nothing of it are taken for no browsers.
pub fn is_scripts(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-mode").is_some_and(|mode| mode.as_bytes() != b"no-cors")
}

/// The word of `Secure-Session-Skipped`, if it is one of the specification's.
pub fn skipped(headers: &HeaderMap) -> Option<&'static str> {
    let value = headers.get(SKIPPED)?.to_str().ok()?;
    let word = value.split([';', ',']).next()?.trim();
    ["unreachable", "server_error", "quota_exceeded"].into_iter().find(|known| *known == word)
}

/// `Secure-Session-Registration`
pub fn registration(offer: &Offer) -> HeaderValue {
    let Offer { challenge, authorization } = offer;
    let path = Endpoint::Register.path();
    let value = format!("(ES256 RS256);path=\"{path}\";challenge=\"{challenge}\";authorization=\"{authorization}\"");
    secret(value)
}

/// `Secure-Session-Challenge`
pub fn challenge(text: &str, identifier: &Identifier) -> HeaderValue {
    secret(format!("\"{text}\";id=\"{}\"", identifier.expose()))
}

/// What a browser is told about its bound session. The attributes are those of the real cookie, or the
/// browser takes it for another one.
pub fn instructions(identifier: &Identifier, cookie: &SessionCookie) -> Value {
    json!({
        "session_identifier": identifier.expose(),
        "refresh_url": Endpoint::Refresh.path(),
        "scope": { "include_site": false, "scope_specification": [] },
        "credentials": [{
            "type": "cookie",
            "name": cookie.bound_name(),
            "attributes": cookie.bound_attributes(),
        }],
    })
}

/// Kept out of `Debug` and of HPACK's dynamic table.
fn secret(text: String) -> HeaderValue {
    // Base64url and our own words: this cannot fail, and if it did, nothing is given away.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::dbsc::Device;
    use crate::policy::path::PathCase;

    fn headers(name: &HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn strings_and_bare_words_are_both_read() {
        for (values, expected) in [
            (&["abc.d-e_f"][..], Some("abc.d-e_f")),
            (&["\"abc\""], Some("abc")),
            (&[" \"abc\" "], Some("abc")),
            (&["\"abc"], None),
            (&["abc\""], None),
            (&["\"a\\\"c\""], None),
            (&["\"\""], None),
            (&[""], None),
            (&["abc", "abc"], None),
            (&["abc, abc"], None),
            (&["abc;x=1"], None),
            (&[], None),
        ] {
            assert_eq!(text(&headers(&RESPONSE, values), &RESPONSE), expected, "{values:?}");
        }
    }

    #[test]
    fn only_known_words_are_written_down() {
        let read = |value| skipped(&headers(&SKIPPED, &[value]));
        assert_eq!(read("quota_exceeded;session_identifier=\"x\""), Some("quota_exceeded"));
        assert_eq!(read("unreachable"), Some("unreachable"));
        assert_eq!(read("<script>"), None);
    }

    #[test]
    fn the_endpoints_are_found_by_their_paths() {
        let of = |path| Endpoint::of(&Target::parse(path, PathCase::Exact));
        assert_eq!(of("/.vestibule/dbsc/register"), Some(Endpoint::Register));
        assert_eq!(of("/.vestibule/dbsc/refresh?x"), Some(Endpoint::Refresh));
        assert_eq!(of("/.vestibule/dbsc/"), None);
        assert_eq!(of("/dbsc/refresh"), None);
        assert_eq!(Endpoint::Refresh.path(), "/.vestibule/dbsc/refresh");
    }

    #[test]
    fn what_is_offered_is_a_list_of_algorithms_with_parameters() {
        let device = Device::offered([1; 32]);
        let Offer { challenge: asked, authorization } = device.offer();
        let expected = format!(
            "(ES256 RS256);path=\"/.vestibule/dbsc/register\";challenge=\"{asked}\";authorization=\"{authorization}\""
        );
        let value = registration(&device.offer());
        assert_eq!(value.to_str().unwrap(), expected);
        assert!(value.is_sensitive());
        let identifier = device.identifier();
        let expected = format!("\"abc\";id=\"{}\"", identifier.expose());
        assert_eq!(challenge("abc", &identifier).to_str().unwrap(), expected);
    }
}
