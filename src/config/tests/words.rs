//! What `check` says: the policy in words, and what is weak in it.

use super::BASE;
use super::MAXIMAL;
use super::parse;

#[test]
fn the_policy_reads_like_plain_words() {
    // VR-03
    assert_eq!(parse(BASE).explain(), include_str!("base.words.txt"));
    assert_eq!(parse(MAXIMAL).explain(), include_str!("maximal.words.txt"));
}

#[test]
fn recommended_values_give_no_warning() {
    assert_eq!(parse(BASE).warnings(), Vec::<String>::new());
}

#[test]
fn every_weak_choice_is_warned_of() {
    // S194, VR-46: of what a restart forgets as well
    for (table, key, expected) in [
        ("[store]", "url = \"memory:\"", "store.url is \"memory:\": a restart logs everybody out"),
        ("[session]", "idle_timeout = \"61m\"", "session.idle_timeout is longer than an hour"),
        ("[session]", "absolute_timeout = \"25h\"", "session.absolute_timeout is longer than a day"),
        ("[session]", "rotate_every = \"off\"", "session.rotate_every is off"),
        ("[session]", "rotate_every = \"30m\"", "session.rotate_every is not shorter than idle_timeout"),
        ("[session]", "rotation_grace = \"2m\"", "session.rotation_grace is longer than a minute"),
        ("[session]", "bind = \"off\"", "session.bind is off"),
        ("[session]", "on_mismatch = \"log\"", "session.on_mismatch only logs"),
        ("[site.session]", "idle_timeout = \"2h\"", "session.idle_timeout is longer than an hour"),
        ("[store]", "url = \"redis://me:word@127.0.0.1\"", "store.url has a password"),
        (
            "[store]",
            "url = \"redis://10.0.0.1\"\npassword = \"env:X\"\nkey = \"env:K\"\nallow_plaintext = true",
            "store.allow_plaintext is on",
        ),
        ("[store]", "url = \"rediss://redis.internal\"\nkey = \"env:K\"", "There is no store.password"),
        ("[store]", "url = \"rediss://redis.internal\"\npassword = \"env:X\"", "There is no store.key"),
        ("[site.access]", "default = \"public\"", "access.default is \"public\""),
        ("[[site]]", "relax = \"encoded-slash\"", "relax has \"encoded-slash\": paths with %2F pass"),
        ("[site.access]", "protected = \"/x\"\nambiguous_paths = \"allow\"", "access.ambiguous_paths is \"allow\""),
        ("[site.login.throttle]", "per_account = \"off\"", "login.throttle.per_account of rule 1 is off"),
        (
            "[site.login.throttle]",
            "per_account = \"101 in 1d\"",
            "login.throttle.per_account of rule 1 is more than 100",
        ),
        ("[site.login.throttle]", "per_address = \"off\"", "login.throttle.per_address of rule 1 is off"),
        ("[csrf]", "mode = \"report\"", "csrf.mode is not \"enforce\""),
        ("[csrf]", "mode = \"off\"", "csrf.mode is not \"enforce\""),
        ("[csrf]", "unlabelled = \"allow\"", "csrf.unlabelled is \"allow\""),
        ("[csrf]", "exempt = \"POST /hooks/*\"", "csrf.exempt has \"/hooks/*\""),
        ("[site.cookies]", "mode = \"pass\"", "cookies.mode is \"pass\""),
        ("[limits]", "body = \"off\"", "limits.body is off"),
        ("[site.headers]", "hsts = \"off\"", "headers.hsts is off"),
        ("[site.headers]", "hsts = \"30d\"", "headers.hsts is shorter than a year"),
        ("[site.headers]", "frame_ancestors = \"off\"", "headers.frame_ancestors is off"),
        ("[site.upstream_tls]", "server_name = \"app.internal\"", "upstream_tls does nothing"),
        ("[timeouts]", "handshake = \"2m\"", "timeouts.handshake is longer than a minute"),
        ("[timeouts]", "header = \"2m\"", "timeouts.header is longer than a minute"),
        ("[timeouts]", "body_idle = \"off\"", "timeouts.body_idle is off"),
        ("[timeouts]", "first_byte = \"off\"", "timeouts.first_byte is off"),
        ("[timeouts]", "tunnel_idle = \"off\"", "timeouts.tunnel_idle is off"),
        ("[log]", "queries = true", "log.queries is on"),
    ] {
        let text = match BASE.contains(table) {
            true => BASE.replace(table, &format!("{table}\n{key}")),
            false => format!("{BASE}\n{table}\n{key}\n"),
        };
        let warnings = parse(&text).warnings();
        assert!(matches!(warnings.as_slice(), [only] if only.contains(expected)), "{table} {key}: {warnings:?}");
    }
}

#[test]
fn weak_rules_and_places_are_warned_of() {
    // S194
    let public_everything = BASE.replace("\"/favicon.ico\"", "\"/*\"");
    let no_logout = BASE.replace("[site.logout]\npath = \"/logout\"\n", "");
    let nothing_to_clear = BASE.replace("path = \"/logout\"", "path = \"/logout\"\nclear_site_data = []");
    let from = BASE.find("[site.login]").unwrap();
    let no_login = format!("{}{}", &BASE[..from], &BASE[BASE.find("[site.access]").unwrap()..]);
    for (text, expected) in [
        (public_everything, "access.public has \"/*\": every path is open"),
        (no_logout, "there is no [site.logout]"),
        (no_login, "there is no [site.login]"),
        (nothing_to_clear, "logout.clear_site_data is empty"),
        (BASE.replace("form:username", "fixed:admin"), "login.user of rule 1 has a fixed name"),
        (BASE.replace("127.0.0.1:8000", "10.0.0.5"), "upstream http://10.0.0.5:80 is another host without TLS"),
        (BASE.replace("http  =", "trusted_proxies = \"0.0.0.0/0\"\nhttp ="), "trusted_proxies has 0.0.0.0/0"),
    ] {
        let warnings = parse(&text).warnings();
        assert!(matches!(warnings.as_slice(), [only] if only.contains(expected)), "{expected}: {warnings:?}");
    }
}

#[test]
fn hosts_without_a_public_name_need_no_hsts() {
    let local = BASE.replace("https://app.example.com", "https://localhost");
    assert_eq!(parse(&local).warnings(), Vec::<String>::new());
    assert!(parse(&local).explain().contains("Strict-Transport-Security: none."));
}

#[test]
fn a_port_on_which_nobody_listens_is_pointed_out() {
    let text = BASE.replace("app.example.com", "app.example.com:8443");
    let expected = "Browsers ask for it on port 8443, where listen.https is not: something has to forward that port.";
    assert!(parse(&text).explain().contains(expected));
    assert!(!parse(BASE).explain().contains("Browsers ask for it on port"));
}
