//! TLS: protocol versions, resumption, and certificates that are exchanged while connections stay
//! (S126-S132, VR-04).

use std::collections::HashSet;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::server::NoServerSessionStorage;
use rustls::server::ProducesTickets;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::CertificatePair;
use crate::config::Config;
use crate::crypto;
use crate::server::certificates::CertificateError;
use crate::server::certificates::Certificates;
use crate::server::certificates::Certified;
use crate::server::certificates::Followed;
use crate::server::clients;
use crate::telemetry;
use crate::telemetry::Audit;

/// How often certificate files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often it is said again what is wrong with certificates: some only expire with time.
const SAY_EVERY: Duration = Duration::from_secs(24 * 60 * 60);

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TLS library refuses the settings.
    #[error("TLS cannot be set up")]
    Settings(#[from] rustls::Error),
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
    /// Held while certificates are exchanged.
    sources: Mutex<Sources>,
}

/// What a reload of the configuration would change; see [`Tls::prepare`].
pub struct Prepared {
    certificates: Certificates,
    config: ServerConfig,
    sources: Sources,
}

/// Where certificates come from, and what else a handshake depends on.
struct Sources {
    /// One for each certificate, in the same order.
    pairs: Vec<Followed<CertificatePair>>,
    /// The authorities of clients.
    authorities: Followed<Vec<PathBuf>>,
    only_tls13: bool,
}

impl Tls {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn new(config: &Config) -> Result<Arc<Self>, TlsError> {
        let provider = crypto::provider();
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let (certificates, sources) = load(config, &provider)?;
        let certificates = Arc::new(ArcSwap::from_pointee(certificates));
        let server = server_config(&provider, &tickets, &certificates, &sources)?;
        let (config, sources) = (ArcSwap::from_pointee(server), Mutex::new(sources));
        Ok(Arc::new(Self { provider, tickets, certificates, config, sources }))
    }

    /// The settings for the next handshake.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Whether there is a certificate for a name (S129).
    pub(super) fn serves(&self, name: &str) -> bool {
        self.certificates.load().choose(Some(name)).is_some()
    }

    /// The hosts of sites that share the certificate for a name (S111).
    pub(super) fn hosts_sharing(&self, name: Option<&str>) -> Arc<HashSet<String>> {
        self.certificates.load().sharing(name)
    }

    /// What is wrong with the certificates although they can be served.
    pub fn warnings(&self, now: Timestamp) -> Vec<String> {
        let sources = self.sources();
        let exposed = sources.pairs.iter().filter(|pair| is_exposed(&pair.files.key)).map(|pair| {
            let key = pair.files.key.display();
            format!("tls.key: others on this machine can read {key}: chmod 600 {key}")
        });
        let certificates = self.certificates.load();
        let unnamed = certificates.unnamed_hosts().into_iter().map(|host| {
            format!("tls.certificate: no certificate has the name {host}: browsers will refuse it; get one that has it")
        });
        exposed.chain(unnamed).chain(certificates.dates(now)).collect()
    }

    /// Loads everything that a new configuration names, without changing anything.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn prepare(&self, config: &Config) -> Result<Prepared, TlsError> {
        let (certificates, sources) = load(config, &self.provider)?;
        let config = server_config(&self.provider, &self.tickets, &self.certificates, &sources)?;
        Ok(Prepared { certificates, config, sources })
    }

    /// Puts what was prepared in force.
    pub fn apply(&self, prepared: Prepared) {
        let mut sources = self.sources();
        self.certificates.store(Arc::new(prepared.certificates));
        self.config.store(Arc::new(prepared.config));
        *sources = prepared.sources;
    }

    /// Follows the certificate files for ever.
    pub async fn follow_files(self: Arc<Self>, clock: Arc<dyn Clock>) {
        let mut said = clock.now();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = clock.now();
            self.look(now);
            if now.since(said) >= SAY_EVERY {
                said = now;
                self.say_warnings(now);
            }
        }
    }

    /// Looks at the files once. Each pair is taken or refused by itself, so that a broken one does
    /// not keep the others from being renewed.
    pub fn look(&self, now: Timestamp) {
        let mut changed = false;
        let mut sources = self.sources();
        for (place, pair) in sources.pairs.iter_mut().enumerate() {
            if !pair.has_settled() {
                continue;
            }
            let renewed = Certified::load(&pair.files, &self.provider).map(|certified| {
                let certificates = self.certificates.load().with(place, certified);
                self.certificates.store(Arc::new(certificates));
            });
            changed |= renewed.is_ok();
            say(&pair.files.certificate, renewed.map_err(TlsError::from));
        }
        if sources.authorities.has_settled() {
            let renewed = server_config(&self.provider, &self.tickets, &self.certificates, &sources)
                .map(|config| self.config.store(Arc::new(config)));
            say(sources.authorities.files.first().map_or_else(|| Path::new(""), PathBuf::as_path), renewed);
        }
        drop(sources);
        if changed {
            self.say_warnings(now);
        }
    }

    /// Logs what is wrong with the certificates although they are served.
    pub fn say_warnings(&self, now: Timestamp) {
        for warning in self.warnings(now) {
            tracing::warn!(event = "tls.warning", help = warning);
        }
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs what became of a file that has changed.
fn say(path: &Path, renewed: Result<(), TlsError>) {
    let context = telemetry::Context::default();
    match renewed {
        Ok(()) => telemetry::audit(&context, &Audit::CertificateReloaded { path }),
        Err(error) => telemetry::audit(&context, &Audit::CertificateRefused { path, error: &error }),
    }
}

fn load(config: &Config, provider: &CryptoProvider) -> Result<(Certificates, Sources), TlsError> {
    let sources = Sources {
        pairs: config.tls.pairs.iter().map(Followed::begin).collect(),
        authorities: Followed::begin(&config.tls.client_ca),
        only_tls13: config.tls.only_tls13,
    };
    let load = |pair| Certified::load(pair, provider).map(Arc::new);
    let pairs = config.tls.pairs.iter().map(load).collect::<Result<_, _>>()?;
    let origins = config.sites.iter().flat_map(|site| std::iter::once(&site.origin).chain(&site.aliases));
    let hosts = origins.map(|origin| origin.host.clone()).collect();
    Ok((Certificates::new(pairs, hosts), sources))
}

/// Whether others than its owner can read a key (S132).
fn is_exposed(key: &Path) -> bool {
    std::fs::metadata(key).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    tickets: &Arc<dyn ProducesTickets>,
    certificates: &Arc<ArcSwap<Certificates>>,
    sources: &Sources,
) -> Result<ServerConfig, TlsError> {
    let versions: &[&rustls::SupportedProtocolVersion] = if sources.only_tls13 {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(versions)?;
    let resolver = Arc::new(Resolver(Arc::clone(certificates)));
    let mut config = match clients::verifier(&sources.authorities.files, provider)? {
        Some(verifier) => {
            let mut config = builder.with_client_cert_verifier(verifier).with_cert_resolver(resolver);
            // A resumed session has the certificate of an earlier handshake, which nobody verifies again:
            // it may have expired, or its authority may be gone.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
            config
        }
        None => {
            let mut config = builder.with_no_client_auth().with_cert_resolver(resolver);
            // Stateless tickets whose keys rotate by themselves (S130); early data stays off (S131).
            config.ticketer = Arc::clone(tickets);
            config.send_tls13_tickets = 1;
            config
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}
