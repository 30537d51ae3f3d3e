//! Which cookies are kept, hardened, passed and dropped.

use http::HeaderValue;

use crate::clock::Timestamp;
use crate::policy::cookie::SetCookie;
use crate::policy::glob::Glob;

use super::*;

fn set_cookie(line: &str) -> SetCookie {
    SetCookie::parse(&HeaderValue::from_str(line).unwrap(), Timestamp::from_millis(1_790_000_000_000)).unwrap()
}

fn globs(names: &[&str]) -> Vec<Glob> {
    names.iter().map(|name| Glob::new(*name)).collect()
}

fn learned(name: &[u8]) -> bool {
    name == b"learned"
}

fn rules(mode: CookieMode) -> CookieRules {
    CookieRules {
        mode,
        vault: globs(&["kept", "both", "all"]),
        relay: globs(&["passed", "both", "all", "PHPSESSID"]),
        drop: globs(&["gone", "all"]),
    }
}

// Product 3.3.
#[test]
fn the_fate_of_a_cookie_follows_lists_then_mode() {
    use Fate::{Drop, Harden, Pass, Vault};
    // In the modes auto, vault, harden, pass.
    let table = [
        ("gone=1; HttpOnly", [Drop, Drop, Drop, Drop]),
        ("all=1", [Drop, Drop, Drop, Drop]),
        ("both=1; HttpOnly", [Harden, Harden, Harden, Pass]),
        ("passed=1; HttpOnly", [Harden, Harden, Harden, Pass]),
        ("PHPSESSID=1; HttpOnly", [Harden, Harden, Harden, Pass]),
        ("kept=1", [Vault, Vault, Vault, Vault]),
        ("other=1; HttpOnly", [Vault, Vault, Harden, Pass]),
        ("other=1", [Harden, Vault, Harden, Pass]),
        ("learned=; Max-Age=0", [Vault, Vault, Harden, Pass]),
        ("JSESSIONID=1", [Vault, Vault, Harden, Pass]),
        ("csrftoken=1; SameSite=Lax", [Harden, Vault, Harden, Pass]),
    ];

    for (line, fates) in table {
        let cookie = set_cookie(line);
        let modes = [CookieMode::Auto, CookieMode::Vault, CookieMode::Harden, CookieMode::Pass];

        assert_eq!(modes.map(|mode| rules(mode).fate(&cookie, &learned)), fates, "{line}");
    }
}

// Product 3.3: what the browser has no business to send.
#[test]
fn client_sent_cookies_are_dropped_by_the_same_precedence() {
    let table = [
        ("gone", [true, true, true, true]),
        ("all", [true, true, true, true]),
        ("both", [false, false, false, false]),
        ("PHPSESSID", [false, false, false, false]),
        ("kept", [true, true, true, true]),
        ("learned", [true, true, false, false]),
        ("JSESSIONID", [true, true, false, false]),
        ("jsessionid", [true, true, false, false]),
        ("other", [false, true, false, false]),
    ];

    for (name, expected) in table {
        let modes = [CookieMode::Auto, CookieMode::Vault, CookieMode::Harden, CookieMode::Pass];

        let vaulted = modes.map(|mode| rules(mode).is_vaulted_name(name.as_bytes(), &learned));

        assert_eq!(vaulted, expected, "{name}");
    }
}

#[test]
fn only_names_known_by_http_only_are_learned() {
    let table = [
        ("other=1; HttpOnly", CookieMode::Auto, true),
        ("other=1", CookieMode::Auto, false),
        ("other=1; HttpOnly", CookieMode::Vault, false),
        ("kept=1; HttpOnly", CookieMode::Auto, false),
        ("both=1; HttpOnly", CookieMode::Auto, false),
        ("JSESSIONID=1; HttpOnly", CookieMode::Auto, false),
    ];

    for (line, mode, expected) in table {
        assert_eq!(rules(mode).is_learned_from(&set_cookie(line)), expected, "{line}");
    }
}

#[test]
fn path_parameters_go_while_servlet_sessions_are_vaulted() {
    let relayed = CookieRules { relay: globs(&["JSESSIONID"]), ..CookieRules::default() };
    let listed = CookieRules { mode: CookieMode::Pass, vault: globs(&["JSESSIONID"]), ..CookieRules::default() };

    assert!(CookieRules::default().vaults_servlet_sessions());
    assert!(listed.vaults_servlet_sessions());
    assert!(!relayed.vaults_servlet_sessions());
    assert!(!rules(CookieMode::Harden).vaults_servlet_sessions());
}

#[test]
fn session_cookies_of_frameworks_are_known_by_name() {
    let known = [
        "JSESSIONID",
        "JSESSIONIDSSO",
        "PHPSESSID",
        "ASP.NET_SessionId",
        "asp.net_sessionid",
        "ASPSESSIONIDQADTCRBC",
        ".ASPXAUTH",
        ".AspNetCore.Cookies",
        "connect.sid",
        "sessionid",
        "session",
        "SESSION",
        "laravel_session",
        "_my_app_session",
        "__session",
        "TWISTED_SESSION",
        "CFID",
        "ci_session",
        "MoodleSessiontest",
        "SESSd41d8cd98f00b204e9800998ecf8427e",
        "SSESSd41d8cd98f00b204e9800998ecf8427e",
        "wordpress_logged_in_d41d8cd98f00b204e9800998ecf8427e",
        "DokuWiki",
        "phpMyAdmin_https",
        "SID",
    ];
    let unknown = [
        "",
        "csrftoken",
        "XSRF-TOKEN",
        "theme",
        "_session",
        "my_session_name",
        "SESSION_PREFERENCES",
        "SESSsomething",
        "sid2",
        "wordpress_test_cookie",
        "_ga",
    ];

    for name in known {
        assert!(is_well_known_session(name.as_bytes()), "{name}");
    }
    for name in unknown {
        assert!(!is_well_known_session(name.as_bytes()), "{name}");
    }
    assert!(!is_well_known_session(b"\xff\xfe"));
}
