use super::*;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, value.parse().unwrap());
    }
    headers
}

fn host(version: Version, uri: &str, hosts: &[&str]) -> Result<String, Malformed> {
    let lines: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
    authority(version, &uri.parse().unwrap(), &headers(&lines)).map(Cow::into_owned)
}

#[test]
fn http_1_needs_exactly_one_valid_host() {
    // S76, S78
    for (hosts, expected) in [
        (&["App.Test"][..], Ok("app.test")),
        (&["app.test:443"], Ok("app.test")),
        (&["app.test:8443"], Ok("app.test:8443")),
        (&["app.test."], Ok("app.test")),
        (&["[::1]:8443"], Ok("[::1]:8443")),
        (&[], Err(Malformed::Host)),
        (&["a", "a"], Err(Malformed::Host)),
        (&[""], Err(Malformed::Host)),
        (&["a/b@c"], Err(Malformed::Host)),
        (&["user@a"], Err(Malformed::Host)),
        (&["a:x"], Err(Malformed::Host)),
        (&["[::1"], Err(Malformed::Host)),
        (&["[0:0::1]"], Ok("[::1]")),
        (&["[::FFFF:127.0.0.1]"], Ok("[::ffff:7f00:1]")),
        (&["app.test:0443"], Ok("app.test")),
        (&["app.test:"], Ok("app.test")),
        (&["app.test:65536"], Err(Malformed::Host)),
        (&["app.test:443:443"], Err(Malformed::Host)),
        (&["app.test.."], Ok("app.test.")),
        (&["app.test.:8443"], Ok("app.test:8443")),
        (&["app.test:08443"], Ok("app.test:8443")),
        (&["App.Test:8443"], Ok("app.test:8443")),
        (&["app.test:0"], Ok("app.test:0")),
        (&["app.t\u{e9}st"], Err(Malformed::Host)),
        (&["a, b"], Err(Malformed::Host)),
    ] {
        assert_eq!(host(Version::HTTP_11, "/", hosts), expected.map(str::to_owned), "{hosts:?}");
    }
}

#[test]
fn the_authority_of_the_target_must_be_the_host() {
    // S78, S106, S107
    assert_eq!(host(Version::HTTP_2, "https://app.test/", &[]), Ok("app.test".into()));
    assert_eq!(host(Version::HTTP_2, "https://app.test/", &["app.test:443"]), Ok("app.test".into()));
    assert_eq!(host(Version::HTTP_2, "https://app.test/", &["evil"]), Err(Malformed::Authority));
    assert_eq!(host(Version::HTTP_2, "https://u@app.test/", &[]), Err(Malformed::Authority));
    assert_eq!(host(Version::HTTP_11, "http://evil/", &["app.test"]), Err(Malformed::Authority));
    assert_eq!(host(Version::HTTP_11, "http://app.test/", &[]), Err(Malformed::Host));
}

fn broken(method: &str, version: Version, uri: &str, lines: &[(&'static str, &str)]) -> Option<Malformed> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    check(&method, version, &uri.parse().unwrap(), &headers(lines), &Limits::default(), &Relaxed::default()).err()
}

#[test]
fn methods_targets_and_framing() {
    // S79, S80, S88, S91, S92, S170
    let long = format!("/{}", "x".repeat(8192));
    let big = "x".repeat(33_000);
    for (method, uri, lines, expected) in [
        ("GET", "/", &[][..], None),
        ("PROPFIND", "/", &[], None),
        ("OPTIONS", "*", &[], None),
        ("GET", "/", &[("via", "1.1 a, 1.1 vestibule, 2.0 vestibule"), ("via", "1.1 vestibule (x)")], None),
        (
            "GET",
            "/",
            &[("via", "1.1 vestibule, 1.1 vestibule,1.1 vestibule"), ("via", "1.1 vestibule, 1.1 vestibule")],
            Some(Malformed::Loop),
        ),
        ("GET", "*", &[], Some(Malformed::Target)),
        ("TRACE", "/", &[], Some(Malformed::Method)),
        ("CONNECT", "/", &[], Some(Malformed::Method)),
        ("get", "/", &[], Some(Malformed::Method)),
        ("FOO", "/", &[], Some(Malformed::Method)),
        ("GET", &long, &[], Some(Malformed::UriLength)),
        ("GET", "ftp://app.test/", &[], Some(Malformed::Target)),
        ("GET", "http://app.test/", &[], None),
        ("PUT", "/", &[("expect", "100-Continue")], None),
        ("PUT", "/", &[("expect", "a-miracle")], Some(Malformed::Expectation)),
        ("GET", "/", &[("x", big.as_str())], Some(Malformed::HeaderBytes)),
        ("POST", "/", &[("content-length", "005")], None),
        ("POST", "/", &[("content-length", "")], Some(Malformed::ContentLength)),
        ("POST", "/", &[("content-length", "+5")], Some(Malformed::ContentLength)),
        ("POST", "/", &[("transfer-encoding", "chunked")], None),
        ("POST", "/", &[("transfer-encoding", "gzip, chunked")], Some(Malformed::TransferEncoding)),
        (
            "POST",
            "/",
            &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            Some(Malformed::TransferEncoding),
        ),
        ("POST", "/", &[("transfer-encoding", "chunked"), ("content-length", "3")], Some(Malformed::TransferEncoding)),
    ] {
        assert_eq!(broken(method, Version::HTTP_11, uri, lines), expected, "{method} {lines:?}");
    }
    let chunked = [("transfer-encoding", "chunked")];
    assert_eq!(broken("POST", Version::HTTP_10, "/", &chunked), Some(Malformed::TransferEncoding));
    assert_eq!(broken("GET", Version::HTTP_2, "http://a/", &[]), Some(Malformed::Target));
    let many: Vec<_> = (0..101).map(|_| ("x", "y")).collect();
    assert_eq!(broken("GET", Version::HTTP_11, "/", &many), Some(Malformed::HeaderCount));
    let crumbs: Vec<_> = (0..150).map(|_| ("cookie", "a=b")).collect();
    assert_eq!(broken("GET", Version::HTTP_2, "https://a/", &crumbs), None);
}

fn spared(method: &str, uri: &str, lines: &[(&'static str, &str)], rule: Malformed) -> Option<Malformed> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let relaxed = Relaxed::new(vec![Rule::Head(rule)]);
    check(&method, Version::HTTP_11, &uri.parse().unwrap(), &headers(lines), &Limits::default(), &relaxed).err()
}

#[test]
fn a_relaxed_rule_lets_pass_what_it_is_about_and_nothing_else() {
    // S88, S91, S92, S94, VR-22
    for (method, expected) in [
        ("FOO", None),
        ("MKCALENDAR", None),
        ("M-SEARCH", None),
        ("get", Some(Malformed::Method)),
        ("Post", Some(Malformed::Method)),
        ("TRACE", Some(Malformed::Method)),
        ("trace", Some(Malformed::Method)),
        ("TRACK", Some(Malformed::Method)),
        ("CONNECT", Some(Malformed::Method)),
    ] {
        assert_eq!(spared(method, "/", &[], Malformed::Method), expected, "{method}");
    }
    assert_eq!(spared("GET", "/caf\u{e9}?\u{fc}", &[], Malformed::Target), None);
    assert_eq!(spared("GET", "/caf\u{e9}", &[], Malformed::Method), Some(Malformed::Target));
    assert_eq!(spared("GET", "*", &[], Malformed::Target), Some(Malformed::Target));
    assert_eq!(spared("GET", "/", &[("expect", "a-miracle")], Malformed::Expectation), None);
    let twice = [("transfer-encoding", "chunked"), ("content-length", "3")];
    assert_eq!(spared("POST", "/", &twice, Malformed::Target), Some(Malformed::TransferEncoding));
}

#[test]
fn characters_beyond_ascii_are_percent_encoded() {
    // S91
    for (uri, expected) in
        [("/caf\u{e9}?q=\u{fc}%20", "/caf%C3%A9?q=%C3%BC%20"), ("/a?b", "/a?b"), ("https://a", "/"), ("*", "*")]
    {
        assert_eq!(target(&uri.parse().unwrap()), expected);
    }
}

#[test]
fn values_lose_the_spaces_at_their_ends() {
    // S104
    let mut found = headers(&[("a", " x\t"), ("b", "x y"), ("c", " "), ("d", "\tx"), ("d", "y ")]);
    trim(&mut found);
    let values: Vec<_> = found.values().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(values, ["x", "x y", "", "x", "y"]);
}

#[test]
fn only_options_count_the_servers_they_pass() {
    // S89
    for (method, lines, expected) in [
        ("OPTIONS", &[("max-forwards", "0")][..], Some(0)),
        ("OPTIONS", &[("max-forwards", "12")], Some(12)),
        ("OPTIONS", &[("max-forwards", "+1")], None),
        ("OPTIONS", &[("max-forwards", "")], None),
        ("OPTIONS", &[("max-forwards", "1"), ("max-forwards", "0")], None),
        ("OPTIONS", &[], None),
        ("GET", &[("max-forwards", "0")], None),
    ] {
        assert_eq!(hops_left(&method.parse().unwrap(), &headers(lines)), expected, "{method} {lines:?}");
    }
}
