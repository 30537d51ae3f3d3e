//! TLS: protocol versions, certificates by name, resumption, and certificate files that are followed
//! (S126-S132, VR-04).

use std::collections::HashSet;
use std::fmt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem;
use rustls::pki_types::pem::PemObject;
use rustls::server::ClientHello;
use rustls::server::ProducesTickets;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::config::CertificatePair;
use crate::config::Config;
use crate::telemetry;
use crate::telemetry::Audit;

/// How often certificate files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or has nothing of the kind in it.
    #[error("cannot read {path}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: pem::Error,
    },
    /// No certificate in the file.
    #[error("there is no certificate in {path}")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Key and certificate do not belong together, or the key is of no use.
    #[error("the key {key} does not fit the certificate {certificate}")]
    Mismatch {
        /// The certificate.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up")]
    Settings(#[from] rustls::Error),
}

/// The certificates that are served, by name.
struct Certificates {
    pairs: Vec<Certified>,
    /// Hosts of the configured sites: served even if no certificate names them.
    hosts: HashSet<String>,
}

struct Certified {
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl Certificates {
    fn load(pairs: &[CertificatePair], hosts: HashSet<String>, provider: &CryptoProvider) -> Result<Self, TlsError> {
        let pairs = pairs.iter().map(|pair| load(pair, provider)).collect::<Result<_, _>>()?;
        Ok(Self { pairs, hosts })
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let first = self.pairs.first().map(|pair| Arc::clone(&pair.key));
        let Some(name) = name else { return first };
        let name = name.to_ascii_lowercase();
        let covering = self.pairs.iter().find(|pair| pair.names.iter().any(|pattern| covers(pattern, &name)));
        match covering {
            Some(pair) => Some(Arc::clone(&pair.key)),
            None if self.hosts.contains(&name) => first,
            // A name that is nobody's here fails the handshake (S129).
            None => None,
        }
    }
}

/// Whether a certificate's name covers a host: itself, or one label for `*` (RFC 9525 6.3).
fn covers(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == parent),
        None => pattern == host,
    }
}

fn load(pair: &CertificatePair, provider: &CryptoProvider) -> Result<Certified, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&pair.certificate)
        .map_err(unreadable(&pair.certificate))?
        .collect::<Result<_, _>>()
        .map_err(unreadable(&pair.certificate))?;
    let Some(leaf) = chain.first() else { return Err(TlsError::Empty { path: pair.certificate.clone() }) };
    let names = match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        // It is served where no better one is found; clients will say what is wrong with it.
        Err(_) => Vec::new(),
    };
    let key = PrivateKeyDer::from_pem_file(&pair.key).map_err(unreadable(&pair.key))?;
    let mismatch = |source| TlsError::Mismatch { certificate: pair.certificate.clone(), key: pair.key.clone(), source };
    let key = CertifiedKey::from_der(chain, key, provider).map_err(mismatch)?;
    warn_if_readable(&pair.key);
    Ok(Certified { names, key: Arc::new(key) })
}

/// A key that others on the machine can read is worth a line (S132).
fn warn_if_readable(key: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(key).map_or(0, |metadata| metadata.permissions().mode());
    if mode & 0o077 != 0 {
        tracing::warn!(
            event = "tls.key_readable",
            file = %key.display(),
            help = "others can read this private key: chmod 600"
        );
    }
}

struct Resolver(Arc<ArcSwap<Certificates>>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.load().choose(hello.server_name())
    }
}

/// TLS as connections use it. Certificates and settings are swapped; connections stay.
pub struct Tls {
    provider: Arc<CryptoProvider>,
    tickets: Arc<dyn ProducesTickets>,
    certificates: Arc<ArcSwap<Certificates>>,
    config: ArcSwap<ServerConfig>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    pairs: Vec<CertificatePair>,
    hosts: HashSet<String>,
    /// What the files looked like when they were last taken or refused.
    known: Vec<Look>,
    /// What they looked like at the last look, if that was something new.
    changing: Option<Vec<Look>>,
}

/// Time, length and inode of a file: enough to see that it was written or replaced.
type Look = Option<(SystemTime, u64, u64)>;

/// What a reload of the configuration would change; see [`Tls::prepare`].
pub struct Prepared {
    certificates: Certificates,
    config: ServerConfig,
    watched: Watched,
}

impl Tls {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn new(config: &Config) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let hosts = hosts(config);
        let certificates = Certificates::load(&config.tls.pairs, hosts.clone(), &provider)?;
        let certificates = Arc::new(ArcSwap::from_pointee(certificates));
        let server = server_config(&provider, &tickets, &certificates, config.tls.only_tls13)?;
        let known = looks(&config.tls.pairs);
        let watched = Watched { pairs: config.tls.pairs.clone(), hosts, known, changing: None };
        let config = ArcSwap::from_pointee(server);
        Ok(Arc::new(Self { provider, tickets, certificates, config, watched: Mutex::new(watched) }))
    }

    /// The settings for the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Loads everything that a new configuration names, without changing anything.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, TlsError> {
        let hosts = hosts(config);
        let certificates = Certificates::load(&config.tls.pairs, hosts.clone(), &self.provider)?;
        let server = server_config(&self.provider, &self.tickets, &self.certificates, config.tls.only_tls13)?;
        let known = looks(&config.tls.pairs);
        let watched = Watched { pairs: config.tls.pairs.clone(), hosts, known, changing: None };
        Ok(Prepared { certificates, config: server, watched })
    }

    /// Puts what was prepared in force.
    pub fn apply(&self, prepared: Prepared) {
        self.certificates.store(Arc::new(prepared.certificates));
        self.config.store(Arc::new(prepared.config));
        *self.watched.lock().unwrap_or_else(PoisonError::into_inner) = prepared.watched;
    }

    /// Follows the certificate files for ever.
    pub async fn follow_files(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    /// Looks at the files once. A change is taken up at the first look at which it has come to rest:
    /// key and certificate are seldom written in one instant.
    pub fn look(&self) {
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        let now = looks(&watched.pairs);
        if now == watched.known {
            watched.changing = None;
            return;
        }
        if watched.changing.as_ref() != Some(&now) {
            watched.changing = Some(now);
            return;
        }
        watched.changing = None;
        watched.known = now;
        let Some(path) = watched.pairs.first().map(|pair| pair.certificate.clone()) else { return };
        let context = telemetry::Context::default();
        match Certificates::load(&watched.pairs, watched.hosts.clone(), &self.provider) {
            Ok(certificates) => {
                self.certificates.store(Arc::new(certificates));
                telemetry::audit(&context, &Audit::CertificateReloaded { path: &path });
            }
            Err(error) => telemetry::audit(&context, &Audit::CertificateRefused { path: &path, error: &error }),
        }
    }
}

fn hosts(config: &Config) -> HashSet<String> {
    let origins = config.sites.iter().flat_map(|site| std::iter::once(&site.origin).chain(&site.aliases));
    origins.map(|origin| origin.host.clone()).collect()
}

fn looks(pairs: &[CertificatePair]) -> Vec<Look> {
    use std::os::unix::fs::MetadataExt;
    let look = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    pairs.iter().flat_map(|pair| [look(&pair.certificate), look(&pair.key)]).collect()
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
    certificates: &Arc<ArcSwap<Certificates>>,
    only_tls13: bool,
) -> Result<ServerConfig, TlsError> {
    let versions: &[&rustls::SupportedProtocolVersion] =
        if only_tls13 { &[&rustls::version::TLS13] } else { &[&rustls::version::TLS13, &rustls::version::TLS12] };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver(Arc::clone(certificates))));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Stateless tickets whose keys rotate by themselves (S130); early data stays off (S131).
    config.ticketer = Arc::clone(tickets);
    config.send_tls13_tickets = 1;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_one_label() {
        for (pattern, host, expected) in [
            ("a.test", "a.test", true),
            ("*.a.test", "x.a.test", true),
            ("*.a.test", "a.test", false),
            ("*.a.test", "x.y.a.test", false),
            ("*.a.test", ".a.test", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }
}
