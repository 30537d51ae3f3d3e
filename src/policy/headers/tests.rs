use std::collections::BTreeSet;

use http::Version;
use proptest::prelude::*;

use super::*;
use crate::clock::Timestamp;
use crate::policy::assertion;
use crate::policy::session::Identity;
use crate::policy::session::SessionRef;
use crate::policy::session::UserName;
use crate::policy::site::Origin;

fn names() -> IdentityHeaders {
    IdentityHeaders {
        user: HeaderName::from_static("x-auth-user"),
        session_ref: Some(HeaderName::from_static("x-auth-session")),
        auth_time: Some(HeaderName::from_static("x-auth-time")),
        client_certificate: None,
        assertion: Some(AssertionRules {
            header: HeaderName::from_static("x-assertion"),
            lifetime: assertion::LONGEST,
            keys: None,
        }),
    }
}

fn client(via_trusted: bool) -> Client {
    Client { address: [203, 0, 113, 9].into(), via_trusted }
}

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    headers
}

fn alice() -> Identity {
    Identity {
        user: UserName::parse("alice").unwrap(),
        authenticated: Timestamp::from_millis(5000),
        session_ref: SessionRef::parse("handle-of-alices").unwrap(),
    }
}

fn forwarded(lines: &[(&str, &str)], trusted: bool, identity: Option<&Identity>) -> HeaderMap {
    let (mut headers, ours) = outgoing(lines, trusted, identity);
    ours.put_into(&mut headers);
    headers
}

/// What is left of the client's fields, and what is added to them.
fn outgoing(lines: &[(&str, &str)], trusted: bool, identity: Option<&Identity>) -> (HeaderMap, Lines) {
    let mut headers = headers(lines);
    let origin = Origin { host: "app.test".into(), port: 443 };
    clean_request(&mut headers, &names(), client(trusted), &Relaxed::NONE);
    let peer = if trusted { [10, 0, 0, 1].into() } else { client(trusted).address };
    let public = PublicOrigin::of(&origin);
    let signed = HeaderValue::from_static("a.b.c");
    let forwarding = Forwarding {
        client: client(trusted),
        peer,
        public: &public,
        version: Version::HTTP_2,
        certificate: None,
        identity,
        assertion: identity.map(|_| &signed),
    };
    let lines = forward_request(&mut headers, &names(), forwarding);
    (headers, lines)
}

fn text_of(lines: &Lines) -> &str {
    str::from_utf8(lines.as_bytes()).unwrap()
}

#[test]
fn what_a_client_says_about_itself_is_gone() {
    // S64, S65, S68, S70, S75, VR-11, VR-53
    let cleaned = forwarded(
        &[
            ("X-Auth-User", "admin"),
            ("x_auth_user", "admin"),
            ("X-Auth_User", "admin"),
            ("x.auth.user", "admin"),
            ("X-Assertion", "x.y.z"),
            ("x_assertion", "x.y.z"),
            ("X-Forwarded-User", "admin"),
            ("Remote-User", "admin"),
            ("X-Original-URL", "/admin"),
            ("X-Rewrite-URL", "/admin"),
            ("Client-Cert", ":x:"),
            ("SSL_CLIENT_S_DN", "x"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("Proxy", "http://evil"),
            ("Secure-Session-Response", "x"),
            ("Sec-Secure-Session-Id", "x"),
            ("X-Forwarded-Prefix", "/x"),
            ("X-App-Own", "kept"),
        ],
        false,
        None,
    );
    let mut left: Vec<_> = cleaned.keys().map(HeaderName::as_str).collect();
    left.sort_unstable();
    assert_eq!(
        left,
        [
            "forwarded",
            "via",
            "x-app-own",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-real-ip"
        ]
    );
}

#[test]
fn identity_is_set_last_and_only_for_users() {
    // S64, S66, VR-54
    let user = alice();
    let lines = [("connection", "x-auth-user, close"), ("x-auth-user", "admin")];
    assert_eq!(forwarded(&lines, false, Some(&user))["x-auth-user"], "alice");
    assert_eq!(forwarded(&lines, false, Some(&user))["x-auth-time"], "5");
    assert_eq!(forwarded(&lines, false, Some(&user))["x-assertion"], "a.b.c");
    let anonymous = forwarded(&lines, false, None);
    assert!(!anonymous.contains_key("x-auth-user") && !anonymous.contains_key("x-assertion"));
}

#[test]
fn a_site_that_takes_odd_names_takes_no_aliases() {
    // S64, S65, S66, S70, VR-11, VR-22
    let own = [("x_token", "1"), ("app.id", "2"), ("x-method-override", "PUT")];
    let aliases = [
        ("x_auth_user", "admin"),
        ("x-forwarded_for", "6.6.6.6"),
        ("remote_user", "admin"),
        ("ssl_client_s_dn", "x"),
        ("content_length", "5"),
        ("transfer_encoding", "chunked"),
        ("cookie_", "kept"),
        ("host_", "kept"),
        ("x_plain", "there is another"),
        ("x-plain", "0"),
        ("x_twin", "1"),
        ("x.twin", "2"),
        ("authorization", "Basic x"),
        ("secure_session_response", "x"),
    ];
    let all: Vec<_> = own.into_iter().chain(aliases).collect();
    let always = ["authorization", "x-plain"];
    for (rules, kept, told) in [
        (vec![], &[][..], &["app.id", "x-method-override", "x_token"][..]),
        (vec![Rule::HeaderName], &["app.id", "cookie_", "host_", "x_token"], &["x-method-override"]),
        (vec![Rule::MethodOverride], &["x-method-override"], &["app.id", "x_token"]),
    ] {
        for trusted in [false, true] {
            let mut found = headers(&all);
            let dropped = clean_request(&mut found, &names(), client(trusted), &Relaxed::new(rules.clone()));
            let left: BTreeSet<_> = found.keys().map(HeaderName::as_str).collect();
            assert_eq!(left, kept.iter().chain(&always).copied().collect(), "{rules:?}");
            assert!(told.iter().all(|name| dropped.iter().any(|(_, dropped)| dropped == name)), "{dropped:?}");
            assert!(dropped.iter().all(|(rule, _)| !rules.contains(rule)), "{dropped:?}");
        }
    }
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    // S86, VR-52
    let cleaned = forwarded(
        &[
            ("connection", "close, X-Foo, cookie"),
            ("connection", "x-bar"),
            ("x-foo", "1"),
            ("x-bar", "1"),
            ("cookie", "a=b"),
            ("te", "trailers"),
            ("trailer", "x"),
            ("upgrade", "h2c"),
            ("keep-alive", "1"),
            ("proxy-authorization", "x"),
        ],
        false,
        None,
    );
    for gone in ["connection", "x-foo", "x-bar", "te", "trailer", "upgrade", "keep-alive", "proxy-authorization"] {
        assert!(!cleaned.contains_key(gone), "{gone}");
    }
    assert_eq!(cleaned["cookie"], "a=b");
}

#[test]
fn forwarding_headers_are_ours_whoever_sent_others() {
    // S66, S68, S69, VR-52, VR-53
    let nominated = ("connection", "x-forwarded-for, x-real-ip, forwarded");
    let lines =
        [nominated, ("x-forwarded-for", "6.6.6.6"), ("x-forwarded-proto", "http"), ("forwarded", "for=6.6.6.6")];
    let ours = forwarded(&lines, false, None);
    assert_eq!(ours["x-forwarded-for"], "203.0.113.9");
    assert_eq!(ours["x-forwarded-proto"], "https");
    assert_eq!(ours["forwarded"], "for=203.0.113.9;host=app.test;proto=https");
    assert_eq!(ours["via"], "2.0 vestibule");
    let theirs = forwarded(&lines, true, None);
    assert_eq!(theirs["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
    assert_eq!(theirs["forwarded"], "for=203.0.113.9;host=app.test;proto=https, for=10.0.0.1");
    assert_eq!(theirs["x-forwarded-proto"], "https");
    assert_eq!(theirs["x-real-ip"], "203.0.113.9");
}

#[test]
fn ipv6_nodes_are_quoted() {
    // S69
    let mut lines = Lines::default();
    lines.begin("forwarded").text(b"for=").node("2001:db8::1".parse().unwrap()).end();
    assert_eq!(lines.as_bytes(), b"forwarded: for=\"[2001:db8::1]\"\r\n");
}

#[test]
fn responses_lose_what_is_between_us_and_the_application() {
    // S66, S72, S110, S165
    let mut cleaned = headers(&[
        ("connection", "Keep-Alive"),
        ("connection", "keep-alive, X-Hop"),
        ("keep-alive", "timeout=5"),
        ("x-hop", "1"),
        ("transfer-encoding", "chunked"),
        ("server", "Apache/2.2"),
        ("x-powered-by", "PHP/5"),
        ("x-auth-user", "alice"),
        ("secure-session-registration", "x"),
        ("www-authenticate", "Basic"),
    ]);
    let signs = Signs::of(&cleaned);
    clean_response(&mut cleaned, signs, &names(), &[]);
    assert_eq!(cleaned.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["www-authenticate"]);
}

#[test]
fn security_headers_are_added_where_the_application_set_none() {
    // S51, S133, S145
    let rules = SecurityHeaders {
        hsts: Some(HeaderValue::from_static("max-age=1")),
        frame_ancestors: Some(HeaderValue::from_static("frame-ancestors 'self'")),
        add: vec![(HeaderName::from_static("x-added"), HeaderValue::from_static("1"))],
        remove: vec![HeaderName::from_static("referrer-policy")],
    };
    let mut bare = HeaderMap::new();
    secure_response(&mut bare, &rules, true);
    assert_eq!(bare["strict-transport-security"], "max-age=1");
    assert_eq!(bare["content-security-policy"], "frame-ancestors 'self'");
    assert_eq!(bare["cache-control"], "no-store");
    assert_eq!(bare["x-added"], "1");
    assert!(!bare.contains_key("referrer-policy"));
    let own = [
        ("strict-transport-security", "max-age=9"),
        ("x-frame-options", "DENY"),
        ("cache-control", "private"),
        ("x-added", "own"),
    ];
    let mut set = headers(&own);
    secure_response(&mut set, &rules, true);
    for (name, value) in own {
        assert_eq!(set.get_all(name).iter().collect::<Vec<_>>(), [value]);
    }
    assert!(!set.contains_key("content-security-policy"));
}

#[test]
fn pages_that_are_to_be_asked_for_again_are_not_kept() {
    // S51
    let rules = SecurityHeaders { hsts: None, frame_ancestors: None, add: Vec::new(), remove: Vec::new() };
    for (content_type, policy, expected) in [
        ("text/html; charset=utf-8", "private", "private, no-store"),
        ("text/html", "max-age=0, private, must-revalidate", "max-age=0, private, must-revalidate, no-store"),
        ("text/html", "No-Store", "No-Store"),
        ("text/html", "private, max-age=60", "private, max-age=60"),
        ("text/html", "public", "public"),
        ("text/css", "no-cache", "no-cache"),
    ] {
        let mut page = headers(&[("content-type", content_type), ("cache-control", policy)]);
        let mut public = page.clone();
        secure_response(&mut page, &rules, true);
        secure_response(&mut public, &rules, false);
        assert_eq!(
            (&page["cache-control"], &public["cache-control"]),
            (&expected.parse().unwrap(), &policy.parse().unwrap())
        );
    }
}

#[test]
fn what_the_operator_adds_goes_before_what_we_would_add() {
    let own = [
        ("strict-transport-security", "max-age=7"),
        ("content-security-policy", "default-src 'self'; frame-ancestors 'none'"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "private"),
    ];
    let add = own.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let rules = SecurityHeaders {
        hsts: Some(HeaderValue::from_static("max-age=1")),
        frame_ancestors: Some(HeaderValue::from_static("frame-ancestors 'self'")),
        add: add.to_vec(),
        remove: Vec::new(),
    };
    let mut bare = HeaderMap::new();
    secure_response(&mut bare, &rules, true);
    for (name, value) in own {
        assert_eq!(bare.get_all(name).iter().collect::<Vec<_>>(), [value]);
    }
}

proptest! {
    #[test]
    fn addresses_and_names_are_written_as_they_are_shown(address in any::<std::net::IpAddr>(), name in "[ -~é]{1,9}") {
        // S67
        let mut lines = Lines::default();
        lines.begin("a").address(address).end();
        prop_assert_eq!(text_of(&lines), format!("a: {address}\r\n"));
        if let Ok(user) = UserName::parse(&name) {
            let mut lines = Lines::default();
            lines.begin("u").user(&user).end();
            prop_assert_eq!(text_of(&lines), format!("u: {}\r\n", user.in_header()));
        }
    }

    /// However the application is spoken to, it is told the same, and nothing twice.
    #[test]
    fn lines_say_what_they_put_into_a_map(
        own in proptest::collection::vec(("x-[ab]|via|x-forwarded-for|x-auth-user|accept", "[!-~]{0,5}"), 0..6),
        (trusted, logged_in) in any::<(bool, bool)>(),
    ) {
        let own: Vec<_> = own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let user = alice();
        let (mut sent, lines) = outgoing(&own, trusted, logged_in.then_some(&user));
        let mut head = b"GET / HTTP/1.1\r\n".to_vec();
        for (name, value) in &sent {
            head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
        }
        head.extend_from_slice(lines.as_bytes());
        head.extend_from_slice(b"\r\n");
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut fields);
        prop_assert!(request.parse(&head).unwrap().is_complete());
        let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap();
        let mut read: Vec<_> = request.headers.iter().map(|it| (it.name.to_owned(), text(it.value))).collect();

        lines.put_into(&mut sent);

        let mut put: Vec<_> = sent.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
        read.sort_unstable();
        put.sort_unstable();
        prop_assert_eq!(read, put);
    }

    /// S64, S65, S66: no client chooses its identity, whatever it sends, and no trusted proxy does either.
    #[test]
    fn no_client_chooses_its_identity(
        fields in proptest::collection::vec((
            "[xX][-_.]?[aA]uth[-_.~]([uU]ser|[sS]ession|time)|[a-z_-]{1,14}|connection",
            "[ -~]{0,30}|x-auth-user|x-auth-session, x-auth-time",
        ), 0..12),
        logged_in in any::<bool>(),
        trusted in any::<bool>(),
    ) {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.trim())).collect();
        let user = alice();

        let sent = forwarded(&fields, trusted, logged_in.then_some(&user));

        for (ours, ourselves) in [("x-auth-user", "alice"), ("x-auth-session", "handle-of-alices"), ("x-auth-time", "5")] {
            let known: Vec<_> = sent.iter().filter(|(name, _)| folds_to(name.as_str(), ours)).collect();
            prop_assert_eq!(known.len(), usize::from(logged_in));
            prop_assert!(known.iter().all(|(_, value)| *value == ourselves));
        }
    }
}
