//! URLs that name the application's inner address are turned into what browsers see, and the other
//! way round for an application that is asked under another name (S155).

use http::HeaderValue;

use crate::policy::site::Origin;

/// A `Location` or the like that points at one of the `inner` origins (`http://host[:port]`), or at
/// the public host over plain HTTP, with the public origin in its place; `None` to leave it alone.
pub fn to_public(value: &HeaderValue, inner: &[String], origin: &Origin) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let plain = format!("http://{}", origin.authority());
    let rest = inner.iter().chain(std::iter::once(&plain)).find_map(|prefix| strip_origin(text, prefix))?;
    HeaderValue::from_str(&format!("{}{rest}", origin.to_text())).ok()
}

/// An `Origin` or `Referer` of ours as the application expects it when it knows itself by another name.
pub fn to_inner(value: &HeaderValue, inner: &str, origin: &Origin) -> Option<HeaderValue> {
    let rest = strip_origin(value.to_str().ok()?, &origin.to_text())?;
    HeaderValue::from_str(&format!("{inner}{rest}")).ok()
}

/// The target without `;jsessionid=…` in its path: the servlet's session is in the vault, and an ID in
/// the URL is never accepted (S14).
pub fn without_session_parameter(target: &str) -> String {
    let (path, query) = target.split_at(target.find('?').unwrap_or(target.len()));
    let mut kept = String::with_capacity(target.len());
    for segment in path.split_inclusive('/') {
        let (segment, slash) = segment.strip_suffix('/').map_or((segment, ""), |segment| (segment, "/"));
        for (place, part) in segment.split(';').enumerate() {
            let name = part.split('=').next().unwrap_or(part);
            if place > 0 && name.eq_ignore_ascii_case("jsessionid") {
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
    kept
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

    fn origin() -> Origin {
        Origin { host: "app.example.com".into(), port: 443 }
    }

    fn public(location: &str) -> Option<String> {
        let inner = ["http://127.0.0.1:8000".to_owned(), "http://backend".to_owned()];
        let value = HeaderValue::from_str(location).unwrap();
        to_public(&value, &inner, &origin()).map(|value| value.to_str().unwrap().to_owned())
    }

    #[test]
    fn inner_origins_become_the_public_one() {
        // S155
        assert_eq!(public("http://127.0.0.1:8000/a?b").as_deref(), Some("https://app.example.com/a?b"));
        assert_eq!(public("HTTP://Backend").as_deref(), Some("https://app.example.com"));
        assert_eq!(public("http://app.example.com/x").as_deref(), Some("https://app.example.com/x"));
    }

    #[test]
    fn other_locations_are_left_alone() {
        for other in ["/a", "http://127.0.0.1:80001/", "http://backend.evil/", "https://app.example.com/", ""] {
            assert_eq!(public(other), None, "{other}");
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
