//! TLS as clients of every kind meet it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use rustls::HandshakeKind;
use rustls::NamedGroup;
use rustls::ProtocolVersion;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::run;
use crate::support::tls::BOTH;
use crate::support::tls::Pair;
use crate::support::tls::client;
use crate::support::tls::client_with;
use crate::support::tls::get;
use crate::support::tls::handshake;
use crate::support::tls::two_sites;

#[tokio::test]
async fn tls_1_2_and_1_3_are_spoken_with_forward_secrecy() {
    // S126, S127
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;

    for (versions, version, suite) in
        [(BOTH, ProtocolVersion::TLSv1_3, "TLS13_"), (&[&TLS12], ProtocolVersion::TLSv1_2, "TLS_ECDHE_ECDSA_WITH_")]
    {
        let stream = handshake(proxy.https, &Arc::new(client(versions, &[])), "app.test").await.unwrap();
        let (_, connection) = stream.get_ref();
        assert_eq!(connection.protocol_version(), Some(version));
        let negotiated = format!("{:?}", connection.negotiated_cipher_suite().unwrap().suite());
        assert!(negotiated.starts_with(suite), "{negotiated}");
    }
}

#[tokio::test]
async fn tls_1_1_is_refused() {
    // S126
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    let mut stream = TcpStream::connect(proxy.https).await.unwrap();

    stream.write_all(&client_hello([3, 2])).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();

    // A fatal alert, protocol_version (RFC 8446 6.2).
    assert_eq!((answer[0], &answer[5..]), (21, &[2, 70][..]), "{answer:?}");
}

/// A ClientHello of an old client: CBC suites, P-256, SHA-1.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    let mut hello = version.to_vec();
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 4, 0xc0, 0x13, 0xc0, 0x09]); // suites
    hello.extend([1, 0]); // no compression
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // groups
        &[0, 11, 0, 2, 1, 0],             // point formats
        &[0, 13, 0, 6, 0, 4, 2, 1, 2, 3], // signature algorithms
    ]
    .concat();
    hello.extend([0, extensions.len() as u8]);
    hello.extend(extensions);
    let mut record = vec![22, 3, 1, 0, hello.len() as u8 + 4, 1, 0, 0, hello.len() as u8];
    record.extend(hello);
    record
}

#[tokio::test]
async fn the_least_version_can_be_raised() {
    let app = Upstream::legacy().await;
    let pair = Pair::issue(&["app.test", "other.test"]);
    let mut config = two_sites(&app, &[&pair], "");
    config.tls.only_tls13 = true;
    let (proxy, _) = Vestibule::of(config).await;

    let refused = handshake(proxy.https, &Arc::new(client(&[&TLS12], &[])), "app.test").await;

    assert!(refused.unwrap_err().to_string().contains("ProtocolVersion"));
    handshake(proxy.https, &Arc::new(client(&[&TLS13], &[])), "app.test").await.unwrap();
}

#[tokio::test]
async fn the_protocol_is_agreed_by_alpn() {
    // S112, S128
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for (offered, agreed) in [
        (&[&b"h2"[..], b"http/1.1"][..], Some(&b"h2"[..])),
        (&[b"http/1.1", b"h2"], Some(b"h2")),
        (&[b"http/1.1"], Some(b"http/1.1")),
        (&[b"foo", b"http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let stream = handshake(proxy.https, &Arc::new(client(BOTH, offered)), "app.test").await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
    }

    let mut silent = handshake(proxy.https, &Arc::new(client(BOTH, &[])), "app.test").await.unwrap();
    assert_eq!(get(&mut silent, "app.test").await, 200, "HTTP/1.1 without ALPN");
    let refused = handshake(proxy.https, &Arc::new(client(BOTH, &[b"foo", b"h2c"])), "app.test").await;
    assert!(refused.unwrap_err().to_string().contains("NoApplicationProtocol"));
}

#[tokio::test]
async fn the_key_exchange_is_post_quantum_where_the_client_can() {
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for (groups, expected) in [
        (vec![kx_group::X25519MLKEM768, kx_group::X25519], NamedGroup::X25519MLKEM768),
        (vec![kx_group::X25519, kx_group::SECP256R1], NamedGroup::X25519),
        (vec![kx_group::SECP256R1], NamedGroup::secp256r1),
    ] {
        let provider = rustls::crypto::CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() };
        let config = Arc::new(client_with(provider, &[&TLS13], &[]));
        let stream = handshake(proxy.https, &config, "app.test").await.unwrap();
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, expected);
    }
}

#[tokio::test]
async fn the_certificate_is_chosen_by_name() {
    // S129
    let app = Upstream::legacy().await;
    let default = Pair::issue(&["app.test", "*.wild.test"]);
    let extra = Pair::issue(&["other.test", "exact.wild.test"]);
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&default, &extra], "")).await;
    let config = Arc::new(client(BOTH, &[]));

    for (name, pair) in [
        ("app.test", &default),
        ("APP.test", &default),
        ("other.test", &extra),
        ("any.wild.test", &default),
        ("exact.wild.test", &extra),
    ] {
        let stream = handshake(proxy.https, &config, name).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], pair.leaf(), "{name}");
    }
    for name in ["evil.test", "wild.test", "a.b.wild.test"] {
        let refused = handshake(proxy.https, &config, name).await.unwrap_err().to_string();
        assert!(refused.contains("Unrecogni"), "{name}: {refused}");
    }
    let mut nameless = client(BOTH, &[]);
    nameless.enable_sni = false;
    let stream = handshake(proxy.https, &Arc::new(nameless), "app.test").await.unwrap();
    assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], default.leaf());
}

#[tokio::test]
async fn a_connection_carries_requests_only_for_sites_that_share_its_certificate() {
    // S111
    let app = Upstream::legacy().await;
    let (first, second) = (Pair::issue(&["app.test"]), Pair::issue(&["other.test"]));
    let (apart, _) = Vestibule::of(two_sites(&app, &[&first, &second], "")).await;
    let (both, unused) = (Pair::issue(&["app.test", "other.test"]), Pair::issue(&["unused.test"]));
    let (together, _) = Vestibule::of(two_sites(&app, &[&both, &unused], "")).await;
    let config = Arc::new(client(BOTH, &[b"http/1.1"]));

    let mut stream = handshake(apart.https, &config, "app.test").await.unwrap();
    assert_eq!(get(&mut stream, "app.test").await, 200);
    assert_eq!(get(&mut stream, "other.test").await, 421);
    assert_eq!(get(&mut stream, "app.test").await, 200, "the connection stays of use");
    let mut stream = handshake(together.https, &config, "app.test").await.unwrap();
    assert_eq!(get(&mut stream, "other.test").await, 200, "browsers share connections");

    let mut nameless = client(BOTH, &[b"http/1.1"]);
    nameless.enable_sni = false;
    let mut stream = handshake(apart.https, &Arc::new(nameless), "app.test").await.unwrap();
    assert_eq!(get(&mut stream, "other.test").await, 421, "who names nobody gets the default alone");
}

#[tokio::test]
async fn http_2_requests_for_another_certificate_are_misdirected() {
    // S111
    let app = Upstream::legacy().await;
    let (first, second) = (Pair::issue(&["app.test"]), Pair::issue(&["other.test"]));
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&first, &second], "")).await;
    let stream = handshake(proxy.https, &Arc::new(client(BOTH, &[b"h2"])), "app.test").await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) = hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);

    for (host, expected) in [("app.test", 200), ("other.test", 421), ("unknown.test", 421), ("app.test", 200)] {
        let request = Request::get(format!("https://{host}/public/x")).body(Full::<Bytes>::default()).unwrap();
        assert_eq!(sender.send_request(request).await.unwrap().status(), expected, "{host}");
    }
}

#[tokio::test]
async fn sessions_resume_without_early_data() {
    // S130, S131
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    for version in [&TLS13, &TLS12] {
        let mut config = client(&[version], &[b"http/1.1"]);
        config.resumption = Resumption::in_memory_sessions(8);
        config.enable_early_data = true;
        let config = Arc::new(config);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let mut stream = handshake(proxy.https, &config, "app.test").await.unwrap();
            // A ticket of TLS 1.3 comes with the first data.
            assert_eq!(get(&mut stream, "app.test").await, 200);
            let (_, connection) = stream.get_ref();
            assert_eq!(connection.handshake_kind(), Some(kind), "{version:?}");
            assert!(!connection.is_early_data_accepted());
        }
        proxy.reload(SITE);
        let stream = handshake(proxy.https, &config, "app.test").await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed), "over a reload");
    }
}

#[tokio::test]
async fn a_handshake_has_a_deadline() {
    // S172
    let app = Upstream::legacy().await;
    let pair = Pair::issue(&["app.test"]);
    let (proxy, _) = Vestibule::of(two_sites(&app, &[&pair], "[timeouts]\nhandshake = \"300ms\"")).await;

    let mut silent = TcpStream::connect(proxy.https).await.unwrap();
    let mut slow = TcpStream::connect(proxy.https).await.unwrap();
    slow.write_all(&client_hello([3, 3])[..40]).await.unwrap();

    assert_eq!(silent.read(&mut [0; 16]).await.unwrap(), 0);
    // If what it sent has not been read, the connection is reset.
    let ended = slow.read(&mut [0; 16]).await;
    assert!(
        ended.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |read| *read == 0),
        "{ended:?}"
    );
}

#[tokio::test]
async fn plain_text_on_the_tls_port_is_cut_and_harms_nobody() {
    let app = Upstream::legacy().await;
    let (proxy, mut browser) = Vestibule::in_front_of(&app).await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: app.test\r\n\r\n"[..], &[0; 64], &[22, 3, 1, 255, 255]] {
        let mut stream = TcpStream::connect(proxy.https).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing; a reset is as good.
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.len() < 16, "{answer:?}");
    }

    assert_eq!(browser.get("/public/x").await.status, 200);
}

/// What `openssl s_client` says of a handshake, and whether it got through.
fn openssl(proxy: SocketAddr, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &proxy.to_string(), "-servername", "app.test", "-tlsextdebug"]);
    let out = command.args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = [out.stdout, out.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (out.status.success(), text)
}

/// The suites of TLS 1.2 for our kind of key that have forward secrecy and authenticated encryption.
const GOOD: [&str; 3] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"];

#[tokio::test]
async fn no_other_library_is_talked_into_less() {
    // S126, S127, S128, S129, S130: everything that OpenSSL can do, the good suites one by one.
    let app = Upstream::legacy().await;
    let (proxy, _) = Vestibule::in_front_of(&app).await;
    let listed = run(Command::new("openssl").args(["ciphers", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]));
    let suites: Vec<_> = listed.trim().split(':').filter(|suite| !suite.starts_with("TLS_")).collect();
    assert!(suites.len() > 50 && suites.contains(&"AES128-SHA"), "{suites:?}");
    let (good, bad): (Vec<&str>, Vec<&str>) = suites.into_iter().partition(|suite| GOOD.contains(suite));
    assert_eq!(good.len(), GOOD.len());
    for (suite, expected) in good.into_iter().map(|suite| (suite.to_owned(), true)).chain([(bad.join(":"), false)]) {
        let (through, text) = openssl(proxy.https, &["-tls1_2", "-cipher", &format!("{suite}:@SECLEVEL=0")]);
        assert_eq!(through, expected, "{suite}: {text}");
    }
    for version in ["-tls1", "-tls1_1"] {
        let (through, text) = openssl(proxy.https, &[version, "-cipher", "ALL:@SECLEVEL=0"]);
        assert!(!through && text.contains(" alert "), "{version}: {text}");
    }
    let (_, text) = openssl(proxy.https, &["-tls1_2"]);
    for expected in ["Extended master secret: yes", "Compression: NONE", "ticket lifetime hint: 43200 (seconds)"] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    for group in ["P-256", "X25519"] {
        assert!(openssl(proxy.https, &["-groups", group]).0, "{group}");
    }
    let (through, text) = openssl(proxy.https, &["-alpn", "foo"]);
    assert!(!through && text.contains("alert no application protocol"), "S128: {text}");
    let (through, text) = openssl(proxy.https, &["-servername", "evil.test"]);
    assert!(!through && text.contains("alert number 112"), "S129, unrecognized_name: {text}");
}
