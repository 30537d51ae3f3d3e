use std::time::Duration;

use http::HeaderValue;
use proptest::prelude::*;

use crate::policy::cookie::SetCookie;
use crate::policy::glob::Glob;
use crate::policy::path::PathCase;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOST: &str = "app.example.test";

fn after(seconds: u64) -> Timestamp {
    NOW.plus(Duration::from_secs(seconds))
}

fn target(raw: &str) -> Target {
    Target::parse(raw, PathCase::Exact)
}

fn set_cookie(line: &str) -> SetCookie {
    SetCookie::parse(&HeaderValue::from_str(line).unwrap(), NOW).unwrap()
}

fn change_at(line: &str, path: &str, now: Timestamp) -> VaultChange {
    let cookie = SetCookie::parse(&HeaderValue::from_str(line).unwrap(), now).unwrap();
    VaultChange::of(&cookie, &target(path), HOST, now).unwrap()
}

fn change(line: &str) -> VaultChange {
    change_at(line, "/", NOW)
}

fn vault(lines: &[&str]) -> Vault {
    let changes: Vec<_> = lines.iter().map(|line| change(line)).collect();
    Vault::default().changed(&changes, NOW).unwrap_or_default()
}

fn shown(pairs: &[CookiePair]) -> String {
    crate::policy::cookie::join(pairs.iter().map(CookiePair::parts))
        .map_or_else(String::new, |line| line.to_str().unwrap().to_owned())
}

fn learned(name: &[u8]) -> bool {
    name == b"learned"
}

// RFC 6265bis 5.7.
#[test]
fn a_cookie_is_stored_only_when_a_browser_would() {
    type Stored<'a> = Option<(&'a str, Option<&'a str>)>;
    let table: &[(&str, &str, Stored<'_>)] = &[
        ("a=1", HOST, Some(("/dir", None))),
        ("a=1; Path=/x", HOST, Some(("/x", None))),
        ("a=1; Path=x", HOST, Some(("/dir", None))),
        ("a=1; Domain=.app.example.test", HOST, Some(("/dir", Some(HOST)))),
        ("a=1; Domain=Example.test", HOST, Some(("/dir", Some("example.test")))),
        ("a=1; Domain=test", HOST, None),
        ("a=1; Domain=ample.test", HOST, None),
        ("a=1; Domain=sub.app.example.test", HOST, None),
        ("a=1; Domain=other.test", HOST, None),
        ("a=1; Domain=localhost", "localhost", Some(("/dir", None))),
        ("a=1; Domain=localhost", "app.localhost", None),
        ("a=1; Domain=192.0.2.1", "192.0.2.1", Some(("/dir", Some("192.0.2.1")))),
        ("a=1; Domain=2.1", "192.0.2.1", None),
        ("__Host-a=1; Secure; Path=/", HOST, Some(("/", None))),
        ("__Host-a=1; Path=/", HOST, None),
        ("__Host-a=1; Secure", HOST, None),
        ("__Host-a=1; Secure; Path=/x", HOST, None),
        ("__host-a=1; Secure; Path=/; Domain=app.example.test", HOST, None),
        ("__Secure-a=1; Secure", HOST, Some(("/dir", None))),
        ("__SECURE-a=1", HOST, None),
        ("a=1; SameSite=None", HOST, Some(("/dir", None))),
    ];

    for (line, host, expected) in table {
        let stored = VaultChange::of(&set_cookie(line), &target("/dir/page?x=/y/"), host, NOW);
        let stored = stored.as_ref().map(|change| match change {
            VaultChange::Put(cookie) => (cookie.path.as_str(), cookie.domain.as_deref()),
            VaultChange::Remove { path, domain, .. } | VaultChange::Used { path, domain, .. } => {
                (path.as_str(), domain.as_deref())
            }
        });

        assert_eq!(stored, *expected, "{line} on {host}");
    }
}

// RFC 6265bis 5.1.4.
#[test]
fn the_default_path_is_the_directory_of_the_raw_path() {
    for (request, path) in
        [("/", "/"), ("/a", "/"), ("/a/", "/a"), ("/a/b", "/a"), ("/a/b/?q=/", "/a/b"), ("*", "/"), ("", "/")]
    {
        let VaultChange::Put(cookie) = change_at("a=1", request, NOW) else { panic!("{request}") };

        assert_eq!(cookie.path, path, "{request}");
    }
}

#[test]
fn what_expires_is_removed_and_an_empty_value_is_not() {
    let vault = vault(&["a=1", "b=2; Path=/x"]);

    assert!(matches!(change("a="), VaultChange::Put(_)));
    assert!(matches!(change("a=1; Max-Age=0"), VaultChange::Remove { .. }));
    let left = vault.changed(&[change("a=; Max-Age=0"), change("b=; Max-Age=0")], NOW).unwrap();
    assert_eq!(left.cookies().len(), 1, "the path is part of the identity");
    assert_eq!(left.cookies()[0].name, "b");
    assert!(left.changed(&[change("b=; Path=/x; Max-Age=0")], NOW).unwrap().is_empty());
}

#[test]
fn identity_is_name_domain_and_path() {
    let vault = vault(&["a=1", "a=2; Path=/x", "a=3; Domain=app.example.test", "A=4", "a=5"]);

    let values: Vec<_> = vault.cookies().into_iter().map(|cookie| cookie.value).collect();

    assert_eq!(values, ["5", "2", "3", "4"]);
}

// Product 3.3: an equal value is not written again.
#[test]
fn nothing_is_written_when_nothing_changes() {
    let vault = vault(&["a=1; SameSite=Lax", "b=2; Max-Age=3600"]);
    let table = [
        (change_at("a=1; SameSite=Lax", "/", after(9)), false),
        (change_at("a=2; SameSite=Lax", "/", after(9)), true),
        (change_at("a=1", "/", after(9)), true),
        (change_at("a=1; SameSite=Lax; Max-Age=60", "/", after(9)), true),
        (change_at("c=1", "/", after(9)), true),
        (change_at("c=; Max-Age=0", "/", after(9)), false),
        // A sliding end is written once a minute, a short one more often.
        (change_at("b=2; Max-Age=3600", "/", after(60)), false),
        (change_at("b=2; Max-Age=3600", "/", after(61)), true),
        (change_at("b=2; Max-Age=10", "/", after(9)), true),
    ];

    for (change, written) in table {
        let changed = vault.changed(std::slice::from_ref(&change), after(9));

        assert_eq!(changed.is_some(), written, "{change:?}");
    }
    assert_eq!(vault.changed(&[], NOW), None);
    assert_eq!(vault.changed(&vault.uses_for(&target("/"), HOST, false, after(9)), after(9)), None);
    assert_eq!(vault.changed(&[], after(3600)).unwrap().cookies().len(), 1, "expired ones go");
}

#[test]
fn a_replaced_cookie_keeps_its_age() {
    let vault = vault(&["a=1", "b=2"]);

    let changed = vault.changed(&[change_at("a=3", "/", after(5))], after(5)).unwrap();

    let first = &changed.cookies()[0];
    assert_eq!((&first.value[..], first.created, first.used), (b"3".as_slice(), NOW, after(5)));
    assert_eq!(shown(&changed.pairs_for(&target("/"), HOST, false, after(5))), "a=3; b=2");
}

// Product 3.3: 32 KiB a session, least recently used goes.
#[test]
fn a_full_vault_loses_what_was_not_used_for_longest() {
    let big = "x".repeat(4000);
    let first: Vec<_> = (0..8).map(|index| change_at(&format!("c{index}={big}"), "/", after(index))).collect();
    let full = Vault::default().changed(&first, after(8)).unwrap();
    assert_eq!(full.cookies().len(), 8);
    let mut changes: Vec<_> =
        full.uses_for(&target("/"), HOST, false, after(9)).into_iter().filter(|used| names(used, b"c0")).collect();
    changes.push(change_at(&format!("new={big}"), "/", after(9)));

    let changed = full.changed(&changes, after(9)).unwrap();

    let left: Vec<_> = changed.cookies().into_iter().map(|cookie| cookie.name).collect();
    assert_eq!(left, ["c0", "c2", "c3", "c4", "c5", "c6", "c7", "new"]);
    assert_eq!(full.overflow(&changes, after(9)), ["c1"]);
    assert_eq!(full.overflow(&[], after(9)), Vec::<Bytes>::new());
}

fn names(change: &VaultChange, wanted: &[u8]) -> bool {
    matches!(change, VaultChange::Used { name, .. } if name == wanted)
}

// Product 3.3: matching follows RFC 6265bis 5.1.3, 5.1.4 and 5.8.3.
#[test]
fn only_matching_cookies_go_with_a_request() {
    let table = [
        ("a=1; Path=/", "/", true),
        ("a=1; Path=/", "/x/y?z", true),
        ("a=1; Path=/x", "/x", true),
        ("a=1; Path=/x", "/x?y", true),
        ("a=1; Path=/x", "/x/y", true),
        ("a=1; Path=/x", "/xy", false),
        ("a=1; Path=/x", "/X", false),
        ("a=1; Path=/x", "/", false),
        ("a=1; Path=/x/", "/x", false),
        ("a=1; Path=/x/", "/x/y", true),
        ("a=1; Path=/a%2fb", "/a%2Fb", false),
        ("a=1; Path=/x; Domain=example.test", "/x", true),
        ("a=1; Path=/; Max-Age=10", "/", true),
        ("a=1; Path=/; Max-Age=9", "/", false),
        ("a=1; Path=/; Secure; SameSite=Strict", "/", true),
    ];

    for (line, path, sent) in table {
        let pairs = vault(&[line]).pairs_for(&target(path), HOST, false, after(9));

        assert_eq!(pairs.len(), usize::from(sent), "{line} for {path}");
    }
    let parent = vault(&["a=1; Domain=example.test"]);
    assert!(parent.pairs_for(&target("/"), "another.test", false, NOW).is_empty());
}

#[test]
fn strict_cookies_stay_when_another_site_asks() {
    let vault = vault(&["a=1; SameSite=Strict", "b=2; SameSite=Lax", "c=3; SameSite=None", "d=4"]);

    assert_eq!(shown(&vault.pairs_for(&target("/"), HOST, true, NOW)), "b=2; c=3; d=4");
    assert_eq!(shown(&vault.pairs_for(&target("/"), HOST, false, NOW)), "a=1; b=2; c=3; d=4");
}

#[test]
fn longer_paths_go_first_then_older_cookies() {
    let changes = [
        change_at("new=1; Path=/", "/", after(2)),
        change_at("old=2; Path=/", "/", after(1)),
        change_at("deep=3; Path=/x/y", "/", after(3)),
        change_at("mid=4; Path=/x", "/", after(4)),
    ];
    let vault = Vault::default().changed(&changes, after(5)).unwrap();

    let pairs = vault.pairs_for(&target("/x/y/z"), HOST, false, after(5));

    assert_eq!(shown(&pairs), "deep=3; mid=4; old=2; new=1");
}

// VR-05, product 3.3.
#[test]
fn the_application_gets_the_vault_in_front_of_the_browsers_cookies() {
    let lines = ["JSESSIONID=mine; HttpOnly", "learned=l; HttpOnly"];
    let table: &[(&str, &[&str], &str, &[&str])] = &[
        ("", &[], "", &[]),
        ("theme=dark; a=\"1\"", &[], "theme=dark; a=\"1\"", &[]),
        ("", &lines, "JSESSIONID=mine; learned=l", &[]),
        ("theme=dark", &lines, "JSESSIONID=mine; learned=l; theme=dark", &[]),
        ("JSESSIONID=old; theme=dark; learned=x; JSESSIONID=b", &[], "theme=dark", &["JSESSIONID", "learned"]),
        ("JSESSIONID=old; theme=dark", &lines, "JSESSIONID=mine; learned=l; theme=dark", &["JSESSIONID"]),
        // The vault's cookie shadows whatever else has its name.
        ("plain=evil; a=1", &["plain=mine"], "plain=mine; a=1", &["plain"]),
        // A nameless pair is no way round.
        ("=JSESSIONID=evil; ==PHPSESSID = x; JSESSIONID; =ok", &[], "=ok", &[]),
        // Nor is what PHP, old servlet containers or Python read as such a name (T6).
        ("laravel.session=evil; laravel%5Fsession=evil; a=1", &[], "a=1", &["laravel.session", "laravel%5Fsession"]),
        ("a=1,JSESSIONID=evil; b=2 sessionid=evil; c=3, x=y", &[], "c=3, x=y", &["a", "b"]),
        ("a=1\tPHPSESSID=evil; b JSESSIONID=evil; c d=4", &[], "c d=4", &["a", "b JSESSIONID"]),
    ];

    for (sent, kept, header, expire) in table {
        let mut pairs = Vec::new();
        crate::policy::cookie::read_line(&Bytes::copy_from_slice(sent.as_bytes()), &mut pairs);
        let vault = vault(kept);
        let (rules, target) = (CookieRules::default(), target("/"));
        let context = CookieContext {
            rules: &rules,
            learned: &learned,
            target: &target,
            host: HOST,
            cross_site: false,
            now: NOW,
        };

        let outgoing = outgoing(pairs, (!kept.is_empty()).then_some(&vault), &context);

        let line = outgoing.header.as_ref().map_or("", |line| line.to_str().unwrap());
        assert_eq!(
            (line, outgoing.expire),
            (*header, expire.iter().map(|name| Bytes::from(*name)).collect()),
            "{sent}"
        );
    }
}

#[test]
fn what_the_rules_now_drop_or_relay_does_not_come_from_the_vault() {
    let vault = vault(&["gone=1", "passed=2", "kept=3", "other=4"]);
    let rules =
        CookieRules { relay: vec![Glob::new("passed")], drop: vec![Glob::new("gone")], ..CookieRules::default() };
    let target = target("/");
    let context =
        CookieContext { rules: &rules, learned: &learned, target: &target, host: HOST, cross_site: false, now: NOW };

    let outgoing = outgoing(Vec::new(), Some(&vault), &context);

    assert_eq!(outgoing.header.unwrap(), "kept=3; other=4");
}

#[test]
fn a_vault_can_be_cut_down_to_what_an_answer_set() {
    let vault = vault(&["a=1", "b=2"]);

    assert_eq!(vault.filtered(&|cookie| cookie.name == "b").cookies().len(), 1);
    assert!(!format!("{vault:?}").contains('1'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_vault_never_exceeds_its_size(lines in proptest::collection::vec("[a-e]{1,2}=x{0,3000}(; Path=/[a-c]{0,2})?", 1..30)) {
        let changes: Vec<_> = lines.iter().map(|line| change(line)).collect();

        let vault = Vault::default().changed(&changes, NOW).unwrap();

        let size: usize = vault.cookies().iter().map(|cookie| cookie.name.len() + cookie.value.len() + cookie.path.len()).sum();
        prop_assert!(size <= 32 * 1024);
        prop_assert!(vault.changed(&[], NOW).is_none());
    }
}
