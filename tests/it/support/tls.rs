//! Certificates of the tests' own authority, and clients that look closely at TLS.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::ConfigBuilder;
use rustls::RootCertStore;
use rustls::SupportedProtocolVersion;
use rustls::client::WantsClientCert;
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::version::TLS12;
use rustls::version::TLS13;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use vestibule::cert;
use vestibule::config::Config;

use super::LISTEN;
use super::SITE;
use super::Upstream;
use super::certificates;
use super::parse;

/// A certificate and its key.
pub struct Pair {
    directory: TempDir,
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// A certificate for these names.
    pub fn issue(names: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        for file in ["ca.pem", "ca.key"] {
            fs::copy(certificates().directory.path().join(file), directory.path().join(file)).unwrap();
        }
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let made = cert::make(directory.path(), &names).unwrap();
        Self { directory, certificate: made.certificate, key: made.key }
    }

    /// One that nobody has renewed.
    pub fn expired(names: &[&str]) -> Self {
        let directory = TempDir::new().unwrap();
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        params.not_before = rcgen::date_time_ymd(2020, 6, 1);
        params.not_after = rcgen::date_time_ymd(2021, 6, 1);
        let made = rcgen::KeyPair::generate().unwrap();
        let (certificate, key) = (directory.path().join("server.pem"), directory.path().join("server.key"));
        fs::write(&certificate, params.self_signed(&made).unwrap().pem()).unwrap();
        fs::write(&key, made.serialize_pem()).unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        Self { directory, certificate, key }
    }

    /// What a client sees of it.
    pub fn leaf(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(&self.certificate).unwrap()
    }

    /// Where both files are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The `certificate` and `key` of a table of proxy.toml.
    pub fn toml(&self) -> String {
        format!("certificate = {:?}\nkey = {:?}\n", self.certificate, self.key)
    }

    /// Writes another pair over this one, in place.
    pub fn overwrite_with(&self, other: &Self) {
        fs::write(&self.certificate, fs::read(&other.certificate).unwrap()).unwrap();
        fs::write(&self.key, fs::read(&other.key).unwrap()).unwrap();
    }
}

/// A client that trusts the tests' authority and speaks these versions.
pub fn client(versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
    client_with(aws_lc_rs::default_provider(), versions, alpn)
}

/// The same with these algorithms.
pub fn client_with(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
) -> ClientConfig {
    let mut config = trusting(provider, versions).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// The same with a certificate of its own.
pub fn client_showing(
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&[u8]],
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> ClientConfig {
    let mut config = trusting(aws_lc_rs::default_provider(), versions).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

fn trusting(
    provider: CryptoProvider,
    versions: &[&'static SupportedProtocolVersion],
) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&certificates().ca).unwrap()).unwrap();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
}

/// TLS 1.3 and 1.2.
pub const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// Connects and asks for that name.
pub async fn handshake(
    proxy: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(proxy).await?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::clone(config)).connect(name, stream).await
}

/// One request over a connection; the status, and the connection for the next request.
pub async fn get(stream: &mut TlsStream<TcpStream>, host: &str) -> u16 {
    let request = format!("GET /public/x HTTP/1.1\r\nhost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    // The head, and as much of the body as there is: it fits into the first reads.
    while !answer.ends_with(b"private") && !answer.ends_with(b"here.\n") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&buffer[..read]);
    }
    std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap()
}

/// The sites app.test and other.test with these pairs, the first for `[tls]`, the others as `[[tls.extra]]`.
pub fn two_sites(app: &Upstream, pairs: &[&Pair], more: &str) -> Config {
    parse(&two_sites_file(app, pairs, more))
}

/// The same as text.
pub fn two_sites_file(app: &Upstream, pairs: &[&Pair], more: &str) -> String {
    let (first, others) = pairs.split_first().unwrap();
    let extra: String = others.iter().map(|pair| format!("[[tls.extra]]\n{}", pair.toml())).collect();
    let site = |name: &str| format!("[[site]]\norigin = \"https://{name}\"\nupstream = \"{}\"\n{SITE}", app.url());
    format!("{LISTEN}\n{more}\n[tls]\n{}{extra}{}{}", first.toml(), site("app.test"), site("other.test"))
}
