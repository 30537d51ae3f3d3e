//! `Set-Cookie` as browsers read it, hardening, and cookie dates.

use std::time::Duration;

use http::HeaderValue;
use proptest::prelude::*;

use crate::clock::Timestamp;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);

fn parse(line: &[u8]) -> Option<SetCookie> {
    SetCookie::parse(&HeaderValue::from_bytes(line).unwrap(), NOW)
}

// RFC 6265bis 5.6 and 5.7.
#[test]
fn what_browsers_ignore_is_ignored() {
    let at_limit = [b"a=".as_slice(), &[b'x'; MAX_PAIR - 1]].concat();
    let over_limit = [b"a=".as_slice(), &[b'x'; MAX_PAIR]].concat();
    let table: &[(&[u8], bool)] = &[
        (b"a=1", true),
        (b"a", true),
        (b"=a", true),
        (b"a=", true),
        (b"a=\t1", true),
        (b"", false),
        (b"=", false),
        (b"; Path=/", false),
        (b"=__Host-session=x", false),
        (b"__host-session", false),
        (b" = __Secure-a=1", false),
        (&at_limit, true),
        (&over_limit, false),
    ];

    for (line, taken) in table {
        assert_eq!(parse(line).is_some(), *taken, "{}", String::from_utf8_lossy(&line[..line.len().min(40)]));
    }
}

#[test]
fn name_and_value_are_split_at_the_first_equals_sign() {
    let table: &[(&[u8], &[u8], &[u8])] = &[
        (b"a=1", b"a", b"1"),
        (b" a = 1 2 ; Path=/", b"a", b"1 2"),
        (b"a=b=c", b"a", b"b=c"),
        (b"a=\"q\"", b"a", b"\"q\""),
        (b"v", b"", b"v"),
        (b"=v", b"", b"v"),
        (b"a =", b"a", b""),
        (b"\xa0a=\xff", b"\xa0a", b"\xff"),
    ];

    for (line, name, value) in table {
        let read = parse(line).unwrap();

        assert_eq!((&read.name[..], &read.value[..], read.raw.as_bytes()), (*name, *value, *line));
    }
}

#[test]
fn the_last_attribute_of_a_kind_wins() {
    let long = [b"a=1; Path=/x; Path=/".as_slice(), &[b'y'; 1024], b"; Domain=d.test; Domain=", &[b'z'; 1025]].concat();
    type Wanted<'a> = (Option<&'a str>, Option<&'a str>, bool, bool, Option<SameSite>);
    let table: &[(&[u8], Wanted<'_>)] = &[
        (b"a=1", (None, None, false, false, None)),
        (
            b"a=1; PATH=/x; DOMAIN=.App.Example; secure=no; HttpOnly; samesite=STRICT",
            (Some("/x"), Some("app.example"), true, true, Some(SameSite::Strict)),
        ),
        (b"a=1;path = /x ;Secure;", (Some("/x"), None, true, false, None)),
        (b"a=1; Path=/x; Path=/y; Domain=a.test; Domain=b.test", (Some("/y"), Some("b.test"), false, false, None)),
        (b"a=1; Path=/x; Path=y; Domain=a.test; Domain=", (None, None, false, false, None)),
        (b"a=1; Domain=.", (None, None, false, false, None)),
        (b"a=1; SameSite=Lax; SameSite=None", (None, None, false, false, Some(SameSite::None))),
        (b"a=1; SameSite=Lax; SameSite=what", (None, None, false, false, None)),
        (b"a=1; Secured; HttpOnlyx; Partitioned; Priority=High", (None, None, false, false, None)),
        (&long, (Some("/x"), Some("d.test"), false, false, None)),
    ];

    for (line, expected) in table {
        let read = parse(line).unwrap();
        let attributes = (read.path.as_deref(), read.domain.as_deref(), read.secure, read.http_only, read.same_site);

        assert_eq!(attributes, *expected, "{}", String::from_utf8_lossy(line));
    }
}

#[test]
fn max_age_goes_before_expires_and_nothing_lives_over_400_days() {
    let after = |seconds| Some(NOW.plus(Duration::from_secs(seconds)));
    let limit = 400 * 24 * 3600;
    let past = Some(Timestamp::default());
    let table: &[(&[u8], Option<Timestamp>)] = &[
        (b"a=1", None),
        (b"a=1; Max-Age=10", after(10)),
        (b"a=1; Max-Age=10; Max-Age=20", after(20)),
        (b"a=1; Max-Age=10; Max-Age=x", after(10)),
        (b"a=1; Max-Age=0", past),
        (b"a=1; Max-Age=-1", past),
        (b"a=1; Max-Age=-", None),
        (b"a=1; Max-Age=", None),
        (b"a=1; Max-Age=+5", None),
        (b"a=1; Max-Age=1.5", None),
        (b"a=1; Max-Age=\"5\"", None),
        (b"a=1; Max-Age=99999999999999999999999999", after(limit)),
        (b"a=1; Max-Age=-99999999999999999999999999", past),
        (b"a=1; Max-Age=10; Expires=Thu, 01 Jan 1970 00:00:00 GMT", after(10)),
        (b"a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=x", past),
        (b"a=1; Expires=Fri, 31 Dec 9999 23:59:59 GMT", after(limit)),
        (b"a=1; Expires=0", None),
        (b"a=1; Expires=-1", None),
    ];

    for (line, expires) in table {
        let read = parse(line).unwrap();

        assert_eq!(read.expires, *expires, "{}", String::from_utf8_lossy(line));
        assert_eq!(read.is_deletion(NOW), *expires == past);
    }
    let end = parse(b"a=1; Max-Age=10").unwrap();
    assert!(!end.is_deletion(Timestamp::from_millis(NOW.as_millis() + 9_999)));
    assert!(end.is_deletion(Timestamp::from_millis(NOW.as_millis() + 10_000)));
}

// RFC 6265bis 5.6.1.
#[test]
fn cookie_dates_are_read_in_every_form() {
    let nov_1994 = Some(784_111_777);
    let table: &[(&str, Option<u64>)] = &[
        ("Sun, 06 Nov 1994 08:49:37 GMT", nov_1994),
        ("Sunday, 06-Nov-94 08:49:37 GMT", nov_1994),
        ("Sun, 06-Nov-1994 08:49:37 GMT", nov_1994),
        ("Sun Nov  6 08:49:37 1994", nov_1994),
        ("Sun Nov 6 08:49:37 1994 GMT", nov_1994),
        ("06 november 1994 8:49:37", nov_1994),
        ("08:49:37 1994 6nov", None),
        ("1994 6 Nov 08:49:37", nov_1994),
        ("94 6 Nov 08:49:37", None),
        ("Sun, 06 Nov 1994 08:49:37.123 +0200", nov_1994),
        ("Thu, 01-Jan-1970 00:00:01 GMT", Some(1)),
        ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
        ("Mon, 01 Jan 1601 00:00:00 GMT", Some(0)),
        ("Mon, 01 Jan 1600 00:00:00 GMT", None),
        ("Fri, 01-Jan-38 00:00:00 GMT", Some(2_145_916_800)),
        ("Thu, 01-Jan-70 00:00:10 GMT", Some(10)),
        ("Tue, 19 Jan 2038 03:14:08 GMT", Some(2_147_483_648)),
        ("29 Feb 2024 00:00:00", Some(1_709_164_800)),
        ("29 Feb 2023 00:00:00", None),
        ("31 Apr 2024 00:00:00", None),
        ("00 Jan 2024 00:00:00", None),
        ("01 Jan 2024 24:00:00", None),
        ("01 Jan 2024 00:60:00", None),
        ("01 Jan 2024 00:00:60", None),
        ("01 Jan 2024 00:00", None),
        ("01 Jan 2024 000:00:00", None),
        ("01 Jan 20245 00:00:00", None),
        ("01 Jan 2 00:00:00", None),
        ("01 Foo 2024 00:00:00", None),
        ("2024-01-01T00:00:00Z", None),
        ("", None),
        ("0", None),
    ];

    for (date, seconds) in table {
        assert_eq!(cookie_date(date.as_bytes()).map(Timestamp::as_secs), *seconds, "{date:?}");
    }
}

// Product 3.3, S13: nothing is weakened and nothing else is touched.
#[test]
fn hardening_adds_only_what_is_missing() {
    let table = [
        ("a=1", "a=1; Secure; SameSite=Lax"),
        ("a=1;", "a=1; Secure; SameSite=Lax"),
        ("a=1; secure", "a=1; secure; SameSite=Lax"),
        ("a=1; SameSite=Strict", "a=1; SameSite=Strict; Secure"),
        ("a=1; samesite=none", "a=1; samesite=none; Secure"),
        ("a=1; SameSite=None; Secure", "a=1; SameSite=None; Secure"),
        ("a=1; SameSite=what; Secure", "a=1; SameSite=what; Secure; SameSite=Lax"),
        (" a = 1 ;Path=/x;  HttpOnly; Expires=0", " a = 1 ;Path=/x;  HttpOnly; Expires=0; Secure; SameSite=Lax"),
    ];

    for (line, expected) in table {
        assert_eq!(parse(line.as_bytes()).unwrap().hardened(), expected);
    }
}

#[test]
fn many_set_cookie_lines_are_each_read() {
    for count in 4..=18 {
        let lines: Vec<_> = (0..count).map(|index| format!("c{index}=v{index}; Path=/{index}; HttpOnly")).collect();

        let read: Vec<_> = lines.iter().filter_map(|line| parse(line.as_bytes())).collect();

        assert_eq!(read.len(), count);
        for (index, (cookie, line)) in read.iter().zip(&lines).enumerate() {
            assert_eq!(
                (&cookie.name[..], &cookie.value[..]),
                (&*format!("c{index}").into_bytes(), &*format!("v{index}").into_bytes())
            );
            assert_eq!(cookie.hardened(), format!("{line}; Secure; SameSite=Lax"));
        }
    }
}

proptest! {
    #[test]
    fn hardened_cookies_read_the_same(line in "[a-c=; \t]{0,6}(; ?(Path|Secure|SameSite|Domain|HttpOnly|Expires)(=[a-zN/,:0-9 -]{0,12})?){0,5};?") {
        let Some(cookie) = parse(line.as_bytes()) else {
            return Ok(());
        };

        let hardened = cookie.hardened();
        let read = SetCookie::parse(&hardened, NOW).unwrap();

        prop_assert!(hardened.as_bytes().starts_with(line.as_bytes()));
        prop_assert!(read.secure && read.same_site.is_some());
        let expected = SetCookie {
            raw: hardened,
            secure: true,
            same_site: cookie.same_site.or(Some(SameSite::Lax)),
            ..cookie
        };
        prop_assert!(read == expected);
    }
}
