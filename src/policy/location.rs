//! URLs that name the application's inner address are turned into what browsers see, and the other
//! way round for an application that is asked under another name (S155).

use std::borrow::Cow;

use http::HeaderValue;

use crate::policy::path::Target;
use crate::policy::path::is_session_parameter;
use crate::policy::site::Origin;

/// A host that browsers must not be sent to. Whether the application believes that it is asked over
/// TLS or not, and which default port it writes, makes no difference: it is the same application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InnerHost {
    host: String,
    port: Option<u16>,
}

impl InnerHost {
    /// From `host` or `host:port`.
    pub fn new(authority: &str) -> Self {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => (host, port.parse().ok()),
            Some(_) | None => (authority, None),
        };
        Self { host: host.to_ascii_lowercase(), port: port.filter(|port| !matches!(port, 80 | 443)) }
    }
}

/// A `Location` or the like that points at one of the `inner` hosts, or at the public host over plain
/// HTTP, with the public origin in its place; `None` to leave it alone.
pub fn to_public(value: &HeaderValue, inner: &[InnerHost], origin: &Origin) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let (scheme, rest) = text.split_once("//")?;
    let is_plain = scheme.eq_ignore_ascii_case("http:");
    if !is_plain && !scheme.eq_ignore_ascii_case("https:") && !scheme.is_empty() {
        return None;
    }
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let named = InnerHost::new(authority);
    let public = InnerHost::new(&origin.authority());
    let is_public = is_plain && named.host == public.host && (named.port.is_none() || named.port == public.port);
    if !is_public && !inner.contains(&named) {
        return None;
    }
    HeaderValue::from_str(&format!("{}{rest}", origin.to_text())).ok()
}

/// An `Origin` or `Referer` of ours as the application expects it when it knows itself by another name.
pub fn to_inner(value: &HeaderValue, inner: &str, origin: &Origin) -> Option<HeaderValue> {
    let rest = strip_origin(value.to_str().ok()?, &origin.to_text())?;
    HeaderValue::from_str(&format!("{inner}{rest}")).ok()
}

/// The longest target that is handed to an application as the way back: encoded once more, it must
/// still fit into the next request.
const LONGEST_WAY_BACK: usize = 2048;

/// The target, if an application may be told to return to it after the login: it must be a path of this
/// origin to whoever reads it (S154, VR-16).
pub fn way_back(target: &Target) -> Option<&str> {
    let raw = target.raw();
    let base = url::Url::parse("https://origin.invalid").ok()?;
    let read = base.join(raw).ok()?;
    let is_path = read.origin() == base.origin() && read.path().starts_with('/') && !read.path().starts_with("//");
    let is_safe = is_path && raw.starts_with('/') && !raw.starts_with("//") && target.ambiguity().is_none();
    (is_safe && raw.len() <= LONGEST_WAY_BACK).then_some(raw)
}

/// The target without `;jsessionid=…` in its path: the servlet's session is in the vault, and an ID in
/// the URL is never accepted (S14).
pub fn without_session_parameter(target: &str) -> Cow<'_, str> {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    if !path.contains(';') {
        return Cow::Borrowed(target);
    }
    let mut kept = String::with_capacity(target.len());
    for segment in path.split_inclusive('/') {
        let (segment, slash) = segment.strip_suffix('/').map_or((segment, ""), |segment| (segment, "/"));
        for (place, part) in segment.split(';').enumerate() {
            if place > 0 && is_session_parameter(part) {
                continue;
            }
            if place > 0 {
                kept.push(';');
            }
            kept.push_str(part);
        }
        kept.push_str(slash);
    }
    kept.push_str(query);
    Cow::Owned(kept)
}

/// What follows the origin, if `text` is a URL of exactly this origin.
fn strip_origin<'a>(text: &'a str, origin: &str) -> Option<&'a str> {
    let head = text.get(..origin.len())?;
    let rest = &text[origin.len()..];
    let ends = rest.is_empty() || rest.starts_with(['/', '?', '#']);
    (head.eq_ignore_ascii_case(origin) && ends).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::path::PathCase;

    fn origin() -> Origin {
        Origin { host: "app.example.com".into(), port: 443 }
    }

    fn public(location: &str) -> Option<String> {
        let inner = ["127.0.0.1:8000", "backend", "[::1]:8000"].map(InnerHost::new);
        let value = HeaderValue::from_str(location).unwrap();
        to_public(&value, &inner, &origin()).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn inner_origins_become_the_public_one() {
        // S155
        for (inner, path) in [
            ("http://127.0.0.1:8000/a?b", "/a?b"),
            ("https://127.0.0.1:8000/a", "/a"),
            ("//127.0.0.1:8000/a", "/a"),
            ("HTTP://Backend", ""),
            ("http://backend:80?x=//y", "?x=//y"),
            ("https://backend:443/", "/"),
            ("http://[::1]:8000/#top", "/#top"),
            ("http://app.example.com/x", "/x"),
            ("http://app.example.com:80/x", "/x"),
            ("http://app.example.com:443/x", "/x"),
        ] {
            assert_eq!(public(inner), Some(format!("https://app.example.com{path}")), "{inner}");
        }
    }

    #[test]
    fn other_locations_are_left_alone() {
        for other in [
            "/a",
            "a//backend/",
            "/a//backend/",
            "ftp://backend/",
            "http://127.0.0.1:80001/",
            "http://127.0.0.1/",
            "http://user@backend/",
            "http://backend.evil/",
            "https://app.example.com/",
            "https://app.example.com:8443/",
            "http://app.example.com:8080/",
            "",
        ] {
            assert_eq!(public(other), None, "{other}");
        }
    }

    #[test]
    fn a_public_port_stays() {
        let origin = Origin { host: "app.test".into(), port: 8443 };
        for plain in ["http://app.test:8443/x", "http://app.test/x"] {
            let value = to_public(&HeaderValue::from_static(plain), &[], &origin).unwrap();
            assert_eq!(value, "https://app.test:8443/x");
        }
    }

    #[test]
    fn the_way_back_is_a_path_of_ours_to_whoever_reads_it() {
        // S154, VR-16
        for raw in ["/", "/a/b?c=d&e", "/a//b", "/@evil.test", "/a?next=//evil.test", "/a?x=%0d%0a", "/caf%C3%A9"] {
            assert_eq!(way_back(&Target::parse(raw, PathCase::Exact)), Some(raw));
        }
        let long = format!("/{}", "%20".repeat(700));
        for raw in [
            "//evil.test",
            "//evil.test/%2e%2e",
            "///evil.test",
            "/.//evil.test",
            "/a/..//evil.test",
            "/a/%2e%2e//evil.test",
            "/\\evil.test",
            "/%5cevil.test",
            "/%2f/evil.test",
            "/%2Fevil.test",
            "/%09/evil.test",
            "/%0d%0aSet-Cookie:x",
            "/%00",
            "/..//evil.test",
            "/..;/evil.test",
            "/%252f/evil.test",
            "/%e0%80%af/evil.test",
            "*",
            long.as_str(),
        ] {
            assert_eq!(way_back(&Target::parse(raw, PathCase::Exact)), None, "{raw}");
        }
    }

    #[test]
    fn the_servlet_session_leaves_the_target() {
        // S14
        assert_eq!(
            without_session_parameter("/a;jsessionid=1F/b;v=1;JSESSIONID=2?x;jsessionid=3"),
            "/a/b;v=1?x;jsessionid=3"
        );
        assert_eq!(without_session_parameter("/plain?q"), "/plain?q");
    }

    #[test]
    fn our_origin_is_translated_for_the_application() {
        let referer = HeaderValue::from_static("https://app.example.com/form");
        assert_eq!(to_inner(&referer, "http://intranet", &origin()).unwrap(), "http://intranet/form");
        let foreign = HeaderValue::from_static("https://app.example.com.evil");
        assert_eq!(to_inner(&foreign, "http://intranet", &origin()), None);
    }
}
