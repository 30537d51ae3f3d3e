use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::HeaderValue;
use http::header::COOKIE;
use proptest::prelude::*;

use crate::clock::Timestamp;
use crate::policy::session::SessionId;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn join(pairs: &[CookiePair]) -> Option<HeaderValue> {
    super::join(pairs.iter().map(CookiePair::parts))
}

fn request(lines: &[&[u8]]) -> HeaderMap {
    lines.iter().map(|line| (COOKIE, HeaderValue::from_bytes(line).unwrap())).collect()
}

fn parse(line: &[u8]) -> Option<SetCookie> {
    SetCookie::parse(&HeaderValue::from_bytes(line).unwrap(), NOW)
}

fn ours() -> SessionCookie {
    SessionCookie::new("__Host-session", false, true)
}

fn text(values: &[HeaderValue]) -> Vec<&str> {
    values.iter().map(|value| value.to_str().unwrap()).collect()
}

// S15, VR-38, VR-61.
#[test]
fn a_cookie_field_is_read_as_bytes() {
    type Pairs = &'static [(&'static [u8], &'static [u8])];
    let table: &[(&[&[u8]], Pairs)] = &[
        (&[], &[]),
        (&[b""], &[]),
        (&[b" ; ;;\t;"], &[]),
        (&[b"a=1; b=2"], &[(b"a", b"1"), (b"b", b"2")]),
        (&[b"foo=1; ; bar=2"], &[(b"foo", b"1"), (b"bar", b"2")]),
        (&[b"a=1", b"b=2; c=3"], &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]),
        (&[b"a=\"1", b"", b"; b", b" c=2\""], &[(b"a", b"\"1"), (b"", b"b"), (b"c", b"2\"")]),
        (&[b"a=1;b=2"], &[(b"a", b"1"), (b"b", b"2")]),
        (&[b" a\t= 1 2 "], &[(b"a", b"1 2")]),
        (&[b"a=b=c; A=2"], &[(b"a", b"b=c"), (b"A", b"2")]),
        (&[b"a=; b"], &[(b"a", b""), (b"", b"b")]),
        (&[b"=v; ="], &[(b"", b"=v"), (b"", b"=")]),
        (&[b"a=\"x; b=y\""], &[(b"a", b"\"x"), (b"b", b"y\"")]),
        // No RFC 2109: neither `$Version` nor commas mean anything.
        (&[b"$Version=1; a=1, b=2; $Path=/"], &[(b"$Version", b"1"), (b"a", b"1, b=2"), (b"$Path", b"/")]),
        // U+2000 in front of a name is a part of the name.
        (&[b"\xe2\x80\x80__Host-session=x"], &[(b"\xe2\x80\x80__Host-session", b"x")]),
        (&[b"\xa0a=\xff"], &[(b"\xa0a", b"\xff")]),
    ];

    for (lines, expected) in table {
        let read = pairs(&request(lines));
        let read: Vec<_> = read.iter().map(|pair| (&pair.name[..], &pair.value[..])).collect();

        assert_eq!(&read, expected, "{lines:?}");
    }
}

// VR-05: what is not ours reaches the application byte for byte, in order.
#[test]
fn pairs_are_joined_to_the_bytes_they_came_from() {
    let table: &[&[u8]] = &[
        b"a=1",
        b"a=1; b=2; a=3",
        b"a=; b; =c; d==; e=\"x y\"",
        b"caf\xc3\xa9=\xff\x80; {\"json\":1}; $Version=1",
        b"a=1,b=2; c=%3B",
    ];

    for line in table {
        let joined = join(&pairs(&request(&[line])));

        assert_eq!(joined.unwrap().as_bytes(), *line);
    }
    assert_eq!(join(&pairs(&request(&[b"; ;"]))), None);
    assert_eq!(join(&pairs(&request(&[b"a=1", b"b=2"]))).unwrap(), "a=1; b=2");
}

// VR-05, VR-35, VR-61, S10, S11, S12.
#[test]
fn our_cookie_is_taken_out_however_often_it_is_there() {
    let table: &[(&[u8], bool, Option<&str>)] = &[
        (b"", false, None),
        (b"a=1", false, Some("a=1")),
        (b"__Host-session=bad", true, None),
        (b"a=1; __Host-session=bad; b=2", true, Some("a=1; b=2")),
        (b"__Host-session=; b=2", true, Some("b=2")),
        (b"__Host-session=x; a=1; __Host-session=y; __Host-session=x", true, Some("a=1")),
        (b"__host-session=x", false, Some("__host-session=x")),
        (b"__Host-session2=x", false, Some("__Host-session2=x")),
        (b"__Host-session", false, Some("__Host-session")),
    ];

    for (line, malformed, rest) in table {
        let mut pairs = pairs(&request(&[line]));
        let presented = ours().take(&mut pairs).session;

        assert_eq!(presented, if *malformed { Presented::Malformed } else { Presented::None });
        assert_eq!(join(&pairs).as_ref().map(|value| value.to_str().unwrap()), *rest);
    }
}

// S11, S20, VR-35.
#[test]
fn one_well_formed_id_counts_and_equal_duplicates_are_one() {
    let (one, other) = (SessionId::from_random([7; 32]), SessionId::from_random([8; 32]));
    let (first, second) = (one.expose(), other.expose());
    let table = [
        (format!("__Host-session={first}"), Presented::Id(one.clone())),
        (format!("__Host-session={first}; __Host-session={first}"), Presented::Id(one)),
        (format!("__Host-session={first}; __Host-session={second}"), Presented::Malformed),
        (format!("__Host-session={first}; __Host-session="), Presented::Malformed),
        (format!("__Host-session=\"{first}\""), Presented::Malformed),
    ];

    for (line, expected) in table {
        assert_eq!(ours().take(&mut pairs(&request(&[line.as_bytes()]))).session, expected, "{line}");
    }
}

// S1, S4, S5, S8, VR-36, VR-49.
#[test]
fn our_cookie_is_set_and_cleared_with_the_same_attributes() {
    let id = SessionId::from_random([7; 32]);
    let value = id.expose();
    let attributes = |cookie: &SessionCookie, line: &HeaderValue| {
        let read = SetCookie::parse(line, NOW).unwrap();
        assert_eq!(read.name, cookie.name().as_bytes());
        assert!(line.is_sensitive());
        (read.path, read.domain, read.secure, read.http_only, read.same_site)
    };

    for strict in [false, true] {
        let cookie = SessionCookie::new("__Host-session", strict, true);
        let (set, clear) = (cookie.set(&id, Duration::from_millis(3999)), cookie.clear());

        let same_site = if strict { SameSite::Strict } else { SameSite::Lax };
        assert_eq!(attributes(&cookie, &set), (Some("/".to_owned()), None, true, true, Some(same_site)));
        assert_eq!(attributes(&cookie, &clear), attributes(&cookie, &set));
        let read = SetCookie::parse(&set, NOW).unwrap();
        assert_eq!((read.value.as_ref(), read.expires), (value.as_bytes(), Some(NOW.plus(Duration::from_secs(3)))));
        assert!(set.len() <= 128);
        let clear = clear.to_str().unwrap();
        assert!(clear.starts_with("__Host-session=;"), "{clear}");
        assert!(clear.contains("Max-Age=0") && clear.contains("Expires=Thu, 01 Jan 1970 00:00:00 GMT"), "{clear}");
    }
    // S6: with the longest name there is, 4096 octets for name and value, and 1024 for each attribute.
    let longest = SessionCookie::new(&format!("__Host-{}", "x".repeat(121)), true, true);
    for line in [longest.set(&id, Duration::MAX), longest.clear()] {
        let (pair, attributes) = line.to_str().unwrap().split_once("; ").unwrap();
        assert!(pair.len() <= 4096 && attributes.split("; ").all(|attribute| attribute.len() <= 1024), "{line:?}");
    }
    let transient = SessionCookie::new("__Host-session", false, false);
    let line = transient.set(&id, Duration::from_secs(60));
    assert_eq!(SetCookie::parse(&line, NOW).unwrap().expires, None);
}

#[test]
fn the_bound_cookie_is_as_browsers_are_told() {
    // DBSC: with other attributes it would be taken for another cookie.
    for strict in [false, true] {
        let cookie = SessionCookie::new("__Host-session", strict, true);
        let (set, clear) = (cookie.set_bound("x".to_owned(), Duration::from_secs(600)), cookie.clear_bound());
        let told = format!("__Host-session-bound=y; {}", cookie.bound_attributes());
        let told = SetCookie::parse(&HeaderValue::from_str(&told).unwrap(), NOW).unwrap();
        for line in [&set, &clear] {
            let read = SetCookie::parse(line, NOW).unwrap();
            assert!(line.is_sensitive());
            assert_eq!((&read.name, &read.path, read.domain), (&told.name, &told.path, None));
            assert_eq!((read.secure, read.http_only, read.same_site), (true, true, told.same_site));
        }
        assert_eq!(SetCookie::parse(&set, NOW).unwrap().expires, Some(NOW.plus(Duration::from_secs(600))));
        assert!(clear.to_str().unwrap().contains("Max-Age=0"));
    }
}

#[test]
fn the_bound_cookie_is_taken_out_as_well() {
    // S10
    for (line, expected) in [
        ("a=1; __Host-session-bound=x; b=2", Some("x")),
        ("a=1; __Host-session-bound=x; b=2; __Host-session-bound=x", Some("x")),
        ("a=1; __Host-session-bound=x; b=2; __Host-session-bound=y", Some("")),
        ("a=1; b=2", None),
    ] {
        let mut pairs = pairs(&request(&[line.as_bytes()]));
        let taken = ours().take(&mut pairs);
        assert_eq!((taken.session, taken.bound), (Presented::None, expected.map(Bytes::from)));
        assert_eq!(join(&pairs).unwrap(), "a=1; b=2");
    }
}

// S12.
#[test]
fn what_would_pass_for_our_cookie_is_recognised() {
    let table: &[(&[u8], bool)] = &[
        (b"__Host-session=x", true),
        (b"__HOST-Session=x; Path=/", true),
        (b"__Host-session-bound=x", true),
        (b"__host-SESSION-bound=x", true),
        (b"__Host-session-bound2=x", false),
        (b"__Host-session2=x", false),
        (b"session=x", false),
        (b"session=__Host-session", false),
    ];

    for (line, imitated) in table {
        assert_eq!(ours().is_imitated_by(&parse(line).unwrap()), *imitated, "{}", String::from_utf8_lossy(line));
    }
}

// S8: every path the browser could have sent the cookie for.
#[test]
fn a_cookie_is_expired_on_every_matching_path() {
    let table: &[(&str, &[&str])] = &[
        ("/", &["/"]),
        ("/index.php", &["/"]),
        ("/app/", &["/", "/app", "/app/"]),
        ("/app/admin/x", &["/", "/app", "/app/", "/app/admin", "/app/admin/"]),
        ("/a/b/c/d/e", &["/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/b/c/", "/a/b/c/d"]),
        ("/a;Domain=x/b/", &["/"]),
        ("/a/b;x/c/", &["/", "/a", "/a/"]),
        ("/caf\u{e9}/x", &["/"]),
        ("*", &["/"]),
        ("", &["/"]),
    ];

    for (path, expected) in table {
        let lines = expire_in_browser(b"JSESSIONID", path);
        let wanted: Vec<_> = expected
            .iter()
            .map(|path| format!("JSESSIONID=; Path={path}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Secure"))
            .collect();

        assert_eq!(text(&lines), wanted, "{path}");
    }
    assert_eq!(expire_in_browser(b"", "/"), Vec::<HeaderValue>::new());
    assert!(parse(expire_in_browser(b"\xff", "/")[0].as_bytes()).unwrap().is_deletion(NOW));
}

#[test]
fn values_do_not_print() {
    let shown = format!("{:?} {:?}", pairs(&request(&[b"a=secret"])), parse(b"a=secret").unwrap());

    assert!(!shown.contains("secret"), "{shown}");
}

proptest! {
    // VR-38.
    #[test]
    fn no_cookie_field_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut read = Vec::new();
        read_line(&Bytes::from(bytes.clone()), &mut read);
        ours().take(&mut read);
        let _ = join(&read);
        let _ = cookie_date(&bytes);
        if let Ok(value) = HeaderValue::from_bytes(&bytes)
            && let Some(cookie) = SetCookie::parse(&value, NOW)
        {
            let _ = (cookie.hardened(), ours().is_imitated_by(&cookie));
        }
    }

    #[test]
    fn joining_and_reading_again_changes_nothing(line in "[ -~\t]{0,80}") {
        let once = pairs(&request(&[line.as_bytes()]));
        let joined = join(&once);

        let again = joined.map_or_else(Vec::new, |line| pairs(&request(&[line.as_bytes()])));

        prop_assert_eq!(again, once);
    }

    // S1, S20: what we set is what we read.
    #[test]
    fn our_cookie_is_read_back(random in any::<[u8; 32]>(), seconds in 0_u64..1_000_000) {
        let id = SessionId::from_random(random);

        let line = ours().set(&id, Duration::from_secs(seconds));
        let sent = line.to_str().unwrap().split(';').next().unwrap();
        let presented = ours().take(&mut pairs(&request(&[sent.as_bytes()]))).session;

        prop_assert_eq!(presented, Presented::Id(id));
    }
}
