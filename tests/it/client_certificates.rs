//! Client certificates (mTLS): who gets in, what the application is told, and what stays when the files
//! change.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::BasicConstraints;
use rcgen::CertificateParams;
use rcgen::DnType;
use rcgen::ExtendedKeyUsagePurpose;
use rcgen::IsCa;
use rcgen::Issuer;
use rcgen::KeyPair;
use rcgen::KeyUsagePurpose;
use rustls::ClientConfig;
use rustls::HandshakeKind;
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tempfile::TempDir;
use time::Duration;
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;

use crate::support::Reply;
use crate::support::SITE;
use crate::support::Upstream;
use crate::support::Vestibule;
use crate::support::file;
use crate::support::parse;
use crate::support::program::Program;
use crate::support::tls::BOTH;
use crate::support::tls::client;
use crate::support::tls::client_showing;
use crate::support::tls::get;
use crate::support::tls::handshake;

/// An authority for clients.
struct Authority {
    directory: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What a client shows.
struct Shown {
    certificate: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "clients");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let directory = TempDir::new().unwrap();
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Writes another authority's certificate over this one's.
    fn overwrite_with(&self, other: &Self) {
        fs::write(self.file(), fs::read(other.file()).unwrap()).unwrap();
    }

    /// A certificate with this common name, and changes.
    fn issue_with(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Shown {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Shown { certificate: params.signed_by(&key, &self.issuer).unwrap().der().clone(), key }
    }

    fn issue(&self, name: &str) -> Shown {
        self.issue_with(name, |_| {})
    }
}

impl Shown {
    fn client(&self) -> ClientConfig {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        client_showing(BOTH, &[b"http/1.1"], vec![self.certificate.clone()], key)
    }
}

/// The usual site for clients of this authority only.
fn text(app: &Upstream, authority: &Authority, site: &str) -> String {
    file(&app.url(), site).replace("[tls]\n", &format!("[tls]\nclient_ca = {:?}\n", authority.file()))
}

/// What a client gets to a request, if it gets anything.
async fn ask(proxy: &Vestibule, config: ClientConfig, request: &str) -> Option<String> {
    let mut stream = handshake(proxy.https, &Arc::new(config), "app.test").await.ok()?;
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok()?;
    (!answer.is_empty()).then(|| String::from_utf8(answer).unwrap())
}

fn page(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n{fields}\r\n")
}

async fn gets_in(proxy: &Vestibule, config: ClientConfig) -> bool {
    ask(proxy, config, &page("/public/x", "")).await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

#[tokio::test]
async fn only_clients_with_a_certificate_get_in() {
    let app = Upstream::legacy().await;
    let (ours, others) = (Authority::new(), Authority::new());
    let (proxy, _) = Vestibule::of(parse(&text(&app, &ours, SITE))).await;
    let now = OffsetDateTime::now_utc();
    let usage = |usage| ours.issue_with("alice", |params| params.extended_key_usages = vec![usage]);
    let between = |from: i64, to: i64| {
        ours.issue_with("alice", |params| {
            (params.not_before, params.not_after) = (now + Duration::days(from), now + Duration::days(to));
        })
    };

    for version in [&TLS13, &TLS12] {
        assert!(!gets_in(&proxy, client(&[version], &[b"http/1.1"])).await, "{version:?} without");
    }
    for (what, shown, expected) in [
        ("ours", ours.issue("alice"), true),
        ("for clients", usage(ExtendedKeyUsagePurpose::ClientAuth), true),
        ("for servers", usage(ExtendedKeyUsagePurpose::ServerAuth), false),
        ("another's", others.issue("alice"), false),
        ("expired", between(-9, -1), false),
        ("not yet", between(1, 9), false),
    ] {
        assert_eq!(gets_in(&proxy, shown.client()).await, expected, "{what}");
    }
    assert_eq!(app.received().len(), 2);
}

#[tokio::test]
async fn the_application_is_told_whose_it_is_and_nobody_else_can_say_it() {
    // S64, S65, S70
    let app = Upstream::start(|_| Reply::text("private").header("x-client-name", "secret")).await;
    let ours = Authority::new();
    let site = format!("{SITE}\n[site.identity]\nclient_certificate = \"X-Client-Name\"\n");
    let (proxy, _) = Vestibule::of(parse(&text(&app, &ours, &site))).await;
    let forged = "X-Client-Name: admin\r\nX_Client_Name: admin\r\nClient-Cert: :AA==:\r\nConnection: x-client-name\r\n";

    let answer = ask(&proxy, ours.issue("Alice M\u{fc}ller").client(), &page("/public/x", forged)).await.unwrap();
    let asked = app.last();
    assert_eq!(asked.folded("x-client-name"), ["Alice M%C3%BCller"]);
    assert_eq!(asked.header("client-cert"), None);
    assert!(!answer.contains("secret"), "{answer}");

    let nameless = ours.issue_with("x", |params| params.distinguished_name = rcgen::DistinguishedName::new());
    ask(&proxy, nameless.client(), &page("/public/x", forged)).await.unwrap();
    assert_eq!(app.last().folded("x-client-name"), Vec::<&str>::new());

    // RFC 9440
    let config = parse(&text(&app, &ours, &site.replace("X-Client-Name", "Client-Cert")));
    proxy.remote.reload(&config).unwrap();
    let shown = ours.issue("alice");
    ask(&proxy, shown.client(), &page("/public/x", forged)).await.unwrap();
    let expected = format!(":{}:", STANDARD.encode(&shown.certificate));
    assert_eq!(app.last().folded("client-cert"), [expected]);
}

#[tokio::test]
async fn a_certificate_is_a_credential_that_browsers_send_by_themselves() {
    // S119, S136: product 3.7.
    let app = Upstream::legacy().await;
    let ours = Authority::new();
    let (proxy, _) = Vestibule::of(parse(&text(&app, &ours, SITE))).await;
    let websocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    for (label, expected) in [
        ("", "403"),
        ("Sec-Fetch-Site: cross-site\r\n", "403"),
        ("Origin: https://evil.test\r\n", "403"),
        ("Origin: https://app.test\r\n", "200"),
    ] {
        let post = page("/public/x", &format!("Content-Length: 0\r\n{label}")).replace("GET", "POST");
        let upgrade = page("/public/x", &format!("{websocket}{label}"));
        for request in [post, upgrade] {
            let answer =
                ask(&proxy, ours.issue("alice").client(), &request).await.unwrap_or_else(|| panic!("{request}"));
            assert_eq!(&answer[9..12], expected, "{request}");
        }
    }
}

#[tokio::test]
async fn other_authorities_are_taken_up_while_connections_stay() {
    // VR-04
    let app = Upstream::legacy().await;
    let (ours, next) = (Authority::new(), Authority::new());
    let (proxy, _) = Vestibule::of(parse(&text(&app, &ours, SITE))).await;
    let (old, new) = (ours.issue("alice"), next.issue("alice"));
    let mut open = handshake(proxy.https, &Arc::new(old.client()), "app.test").await.unwrap();
    assert_eq!(get(&mut open, "app.test").await, 200);

    for broken in ["", "no PEM", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
        fs::write(ours.file(), broken).unwrap();
        proxy.remote.look_at_certificates();
        proxy.remote.look_at_certificates();
        assert!(gets_in(&proxy, old.client()).await, "{broken:?}");
        assert!(!gets_in(&proxy, client(BOTH, &[b"http/1.1"])).await, "{broken:?}");
    }
    ours.overwrite_with(&next);
    proxy.remote.look_at_certificates();
    proxy.remote.look_at_certificates();

    assert!(gets_in(&proxy, new.client()).await);
    assert!(!gets_in(&proxy, old.client()).await);
    assert_eq!(get(&mut open, "app.test").await, 200);
}

#[tokio::test]
async fn nobody_gets_in_with_an_earlier_handshake() {
    let app = Upstream::legacy().await;
    let ours = Authority::new();
    let open = file(&app.url(), SITE);
    let closed = text(&app, &ours, SITE);
    let remembering = |mut config: ClientConfig| {
        config.resumption = Resumption::in_memory_sessions(8);
        Arc::new(config)
    };
    for version in [&TLS13, &TLS12] {
        let (proxy, _) = Vestibule::of(parse(&open)).await;
        let stranger = remembering(client(&[version], &[b"http/1.1"]));
        let mut stream = handshake(proxy.https, &stranger, "app.test").await.unwrap();
        assert_eq!(get(&mut stream, "app.test").await, 200);

        proxy.remote.reload(&parse(&closed)).unwrap();

        assert!(!gets_in(&proxy, ClientConfig::clone(&stranger)).await, "{version:?}: a ticket of a stranger");
        let guest = remembering(ours.issue("alice").client());
        for _ in 0..2 {
            let mut stream = handshake(proxy.https, &guest, "app.test").await.unwrap();
            assert_eq!(get(&mut stream, "app.test").await, 200);
            assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        }
    }
}

#[tokio::test]
async fn the_program_says_what_it_takes_and_whom_it_refuses() {
    let app = Upstream::legacy().await;
    let (ours, next) = (Authority::new(), Authority::new());
    let program = Program::start(&text(&app, &ours, SITE)).await;

    let stranger = Arc::new(client(BOTH, &[b"http/1.1"]));
    let mut stream = handshake(program.https, &stranger, "app.test").await.unwrap();
    assert!(stream.read(&mut [0; 1]).await.is_err());
    let refused = program.event("tls.client_refused").await;
    ours.overwrite_with(&next);
    let taken = program.event("tls.reloaded").await;
    fs::write(ours.file(), "broken").unwrap();
    let broken = program.event("tls.refused").await;

    assert_eq!((refused["level"].as_str(), refused["client"].as_str()), (Some("info"), Some("127.0.0.1")));
    assert!(refused["error"].as_str().unwrap().contains("certificate"), "{refused}");
    assert_eq!(taken["file"], ours.file().to_str().unwrap());
    assert!(broken["error"].as_str().unwrap().contains("no usable certificate authorities"), "{broken}");

    let (code, said) = Program::fail(&text(&app, &ours, SITE)).await;
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("ca.pem has no usable certificate authorities: it must be PEM"), "{said}");
}
