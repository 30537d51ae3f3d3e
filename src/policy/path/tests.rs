use proptest::prelude::*;

use super::*;

fn normal(raw: &str) -> String {
    Target::parse(raw, PathCase::Exact).path().to_owned()
}

#[test]
fn paths_are_normalised_for_the_rules_and_kept_for_the_application() {
    // S90, VR-12, VR-54
    for (raw, path) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a?b/../c", "/a"),
        ("/%61dmin", "/admin"),
        ("/a/../b", "/b"),
        ("/a/./b/.", "/a/b/"),
        ("/a/%2e%2e/b", "/b"),
        ("//admin", "/admin"),
        ("/a//b", "/a/b"),
        ("/admin;x=1/y;z", "/admin/y"),
        ("/login;jsessionid=1F", "/login"),
        ("/caf%C3%A9", "/caf\u{e9}"),
        ("/%ff", "/%ff"),
        ("/%61dmin%ff", "/admin%ff"),
        ("/admin%3bx/y", "/admin/y"),
        ("/.hidden", "/.hidden"),
        ("/a/..", "/"),
    ] {
        assert_eq!(normal(raw), path, "{raw}");
        let target = Target::parse(raw, PathCase::Exact);
        assert_eq!(target.raw(), raw);
        assert_eq!(target.ambiguity(), None, "{raw}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_ambiguous() {
    // S90, VR-12, VR-22
    for (raw, ambiguity) in [
        ("/public/..%2fadmin", Ambiguity::EncodedSlash),
        ("/a%2Fb", Ambiguity::EncodedSlash),
        ("/a\\b", Ambiguity::Backslash),
        ("/a%5cb", Ambiguity::Backslash),
        ("/a%00.css", Ambiguity::Nul),
        ("/a%0d%0aX", Ambiguity::Control),
        ("/../etc", Ambiguity::Escape),
        ("/a/../../b", Ambiguity::Escape),
        ("/%2e%2e/x", Ambiguity::Escape),
        ("/public/..;/admin", Ambiguity::DotParameter),
        ("/a/.;x/b", Ambiguity::DotParameter),
        ("/a%", Ambiguity::BadEncoding),
        ("/a%zz", Ambiguity::BadEncoding),
        ("/a/%252e%252e/b", Ambiguity::DoubleEncoding),
        ("/a%252fb", Ambiguity::DoubleEncoding),
        ("/%2561dmin", Ambiguity::DoubleEncoding),
        ("/a;x=%2f", Ambiguity::EncodedSlash),
        ("/public/..%3b/admin", Ambiguity::DotParameter),
        ("/public/%25%32%65%25%32%65/admin", Ambiguity::DoubleEncoding),
        ("/public/%c0%ae%c0%ae/admin", Ambiguity::Overlong),
        ("/public/%e0%80%af", Ambiguity::Overlong),
        ("/public/../admin.php//../public/x", Ambiguity::EmptySegment),
    ] {
        assert_eq!(Target::parse(raw, PathCase::Exact).ambiguity(), Some(ambiguity), "{raw}");
    }
}

#[test]
fn every_doubt_is_told() {
    // VR-22: a site that takes the one does not take the other.
    for (raw, doubts) in [
        ("/a%2f..;/b", &[Ambiguity::EncodedSlash, Ambiguity::DotParameter][..]),
        ("/a%2f%00%0a", &[Ambiguity::EncodedSlash, Ambiguity::Nul, Ambiguity::Control]),
        ("/..%2f..%5c%zz", &[Ambiguity::EncodedSlash, Ambiguity::Backslash, Ambiguity::BadEncoding, Ambiguity::Escape]),
        ("/a/b", &[]),
    ] {
        assert_eq!(Target::parse(raw, PathCase::Exact).doubts(), doubts, "{raw}");
    }
}

#[test]
fn what_cannot_be_sent_plainly_is_written_in_one_way_only() {
    for (raw, written) in [
        ("/caf%C3%A9/%7Bx%7D%20y", "/caf\u{e9}/{x} y"),
        ("/%70ublic/%2e%2e;x", "/%70ublic/%2e%2e;x"),
        ("/a%25b", "/a%25b"),
    ] {
        assert_eq!(Target::parse(raw, PathCase::Exact).written_path(), written, "{raw}");
    }
}

#[test]
fn doubtful_targets_are_read_as_the_most_eager_application_would() {
    for (raw, path) in [("/a%2f..%2fsetup", "/setup"), ("/a%5c..\\setup", "/setup"), ("/a/..;/setup", "/setup")] {
        assert_eq!(normal(raw), path, "{raw}");
    }
}

#[test]
fn a_path_with_detours_is_not_direct() {
    // VR-13
    for (raw, direct) in [
        ("/login", true),
        ("/login/", true),
        ("/log%69n;jsessionid=1;JSESSIONID=2", true),
        ("/login;x", false),
        ("/login;jsessionid=1;x=2", false),
        ("/login%3Bjsessionid=1", false),
        ("/x/../login", false),
        ("/x/%2e%2e/login", false),
        ("//login", false),
        ("/x//login", false),
        ("/./login", false),
        ("/login/.", false),
    ] {
        assert_eq!(Target::parse(raw, PathCase::Exact).is_direct(), direct, "{raw}");
    }
}

#[test]
fn the_query_is_never_part_of_the_path() {
    let target = Target::parse("/a?x=%2f%00&y=;..", PathCase::Exact);
    assert_eq!((target.path(), target.query(), target.ambiguity()), ("/a", Some("x=%2f%00&y=;.."), None));
}

proptest! {
    #[test]
    fn normalising_never_panics_and_happens_once(raw in "/[a-c%./;2efEF\\\\]{0,24}") {
        let target = Target::parse(&raw, PathCase::Exact);
        prop_assert!(target.path().starts_with('/') || target.ambiguity().is_some());
        if target.ambiguity().is_none() && !target.path().contains(['%', ';']) {
            prop_assert_eq!(normal(target.path()), target.path());
        }
    }
}

proptest! {
    /// VR-12: what is not looked at twice has nothing to be looked at.
    #[test]
    fn a_plain_path_is_its_own_normal_form(path in "/[a/.%;\\\\\u{1}]{0,8}") {
        let is_unusual = |byte: u8| matches!(byte, b'%' | b'\\' | b';') || byte.is_ascii_control();
        let has_detour = path.contains("//") || path.contains("/.");
        prop_assert_eq!(is_plain(&path), !has_detour && !path.bytes().any(is_unusual));
    }
}
