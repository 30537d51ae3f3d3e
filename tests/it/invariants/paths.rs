//! Paths (S90, VR-12, VR-13): what we open is open however the application reads the target.

use std::sync::OnceLock;

use http::Method;
use vestibule::policy::access::Access;
use vestibule::policy::admit;
use vestibule::policy::csrf::RequestKind;
use vestibule::policy::glob::Glob;
use vestibule::policy::location;
use vestibule::policy::path::PathCase;
use vestibule::policy::path::Target;
use vestibule::policy::route::Route;
use vestibule::policy::site::Site;

use super::decode;

const LOGIN: &str = "[site.login]\npath = '/login'\nuser = 'form:user'\nsuccess = { status = 302 }\n[site.access]\n";

/// Everything closed but these.
const OPEN: [&str; 2] = ["/static/*", "/open"];
/// Everything open but these.
const CLOSED: [&str; 3] = ["/admin", "/admin/*", "/secret*"];

fn closed_site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| super::site(&format!("{LOGIN}public = {OPEN:?}")))
}

fn open_site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| super::site(&format!("{LOGIN}default = 'public'\nprotected = {CLOSED:?}")))
}

/// A target in the first line, a glob in the second, a text for it in the third.
pub fn check(data: &[u8]) {
    let (raw, rest) = super::split_line(data);
    let (glob, text) = super::split_line(rest);
    if let (Ok(glob), Ok(text)) = (std::str::from_utf8(glob), std::str::from_utf8(text)) {
        assert_eq!(Glob::new(glob).matches(text), matches(glob.as_bytes(), text.as_bytes()), "{glob} {text}");
    }
    // What else is no target is refused before (S91).
    let is_target = |byte: &u8| byte.is_ascii_graphic() && *byte != b'#';
    let Ok(raw) = std::str::from_utf8(raw) else { return };
    if !raw.starts_with('/') || !raw.as_bytes().iter().all(is_target) {
        return;
    }
    let target = Target::parse(raw, PathCase::Exact);
    assert_eq!(target.raw(), raw);
    assert!(target.path().starts_with('/'), "{}", target.path());
    if target.ambiguity().is_none() {
        is_normal(target.path());
        is_stable(target.path());
        let without = location::without_session_parameter(raw);
        assert_eq!(Target::parse(&without, PathCase::Exact).path(), target.path(), "{without}");
    }
    is_open_to_all_readers(&target);
}

/// Nothing in it leads elsewhere.
fn is_normal(path: &str) {
    assert!(!path.contains("//") && !path.contains(['\\', '\0']), "{path}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path}");
}

/// Written as a target again, it is the same path.
fn is_stable(path: &str) {
    let encode = |byte: u8| match byte {
        b'/' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    let written: String = path.bytes().map(encode).collect();
    let again = Target::parse(&written, PathCase::Exact);
    // What decodes again to something dangerous is noted on the way, not lost.
    if again.ambiguity().is_none() {
        assert_eq!(again.path(), path);
    }
}

fn is_open_to_all_readers(target: &Target) {
    let readings = readings(target.raw_path().as_bytes());
    let any = |globs: &[&str], path: &[u8]| globs.iter().any(|glob| matches(glob.as_bytes(), path));
    for (method, closed) in [(Method::GET, true), (Method::GET, false), (Method::POST, true)] {
        let site = if closed { closed_site() } else { open_site() };
        let route = Route::of(site, &method, target);
        let refused = admit::admit(site, &route, &method, target, RequestKind::Navigation, false).is_some();
        if refused || target.ambiguity().is_some() && site.access.ambiguous == Default::default() {
            continue;
        }
        for path in &readings {
            let is_open = if closed { any(&OPEN, path) } else { !any(&CLOSED, path) };
            let is_login = without_parameters(path) == b"/login";
            assert!(is_open || (is_login && route.access == Access::Protected), "{}", path.escape_ascii());
        }
    }
}

/// How applications read a path: with and without decoding, path parameters, dot segments.
fn readings(raw: &[u8]) -> Vec<Vec<u8>> {
    let decoded = decode(raw, false);
    vec![
        without_parameters(raw),
        resolve(&without_parameters(raw)),
        without_parameters(&decoded),
        resolve(&without_parameters(&decoded)),
        decode(&resolve(&without_parameters(raw)), false),
        resolve(&decode(&without_parameters(raw), false)),
    ]
    .into_iter()
    // Routers that match the undecoded path find nothing at an encoded one.
    .filter(|path| !path.contains(&b'%'))
    .collect()
}

fn without_parameters(path: &[u8]) -> Vec<u8> {
    let name = |segment: &[u8]| segment.split(|byte| *byte == b';').next().unwrap_or_default().to_vec();
    path.split(|byte| *byte == b'/').map(name).collect::<Vec<_>>().join(&b'/')
}

/// Dot segments and empty segments removed; `..` at the root stays there.
fn resolve(path: &[u8]) -> Vec<u8> {
    let mut kept: Vec<&[u8]> = Vec::new();
    let segments: Vec<_> = path.split(|byte| *byte == b'/').skip(1).collect();
    for segment in &segments {
        match *segment {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut resolved: Vec<u8> = kept.iter().flat_map(|segment| [b"/", *segment].concat()).collect();
    if matches!(segments.last(), Some(&b"" | &b"." | &b"..")) {
        resolved.push(b'/');
    }
    resolved
}

/// Globs by their definition: a star is nothing, or one more byte.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let mut reachable = vec![true];
    reachable.resize(text.len() + 1, false);
    for byte in glob {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = if *byte == b'*' {
                reachable[at] || (at > 0 && next[at - 1])
            } else {
                at > 0 && reachable[at - 1] && text[at - 1] == *byte
            };
        }
        reachable = next;
    }
    reachable[text.len()]
}
