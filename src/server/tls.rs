//! TLS: protocol versions, resumption, and certificates that are exchanged while connections stay
//! (S126-S132, VR-04).

use std::collections::HashSet;
use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::ClientHello;
use rustls::server::ProducesTickets;
use rustls::server::ResolvesServerCert;
use rustls::sign::CertifiedKey;

use crate::clock::Clock;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::server::certificates::CertificateError;
use crate::server::certificates::Certificates;
use crate::server::certificates::Certified;
use crate::server::certificates::Followed;
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
    /// One for each certificate, in the same order; held while certificates are exchanged.
    followed: Mutex<Vec<Followed>>,
}

/// What a reload of the configuration would change; see [`Tls::prepare`].
pub struct Prepared {
    certificates: Certificates,
    config: ServerConfig,
    followed: Vec<Followed>,
}

impl Tls {
    /// Loads what the configuration names.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub fn new(config: &Config) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tickets = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        let (certificates, followed) = load(config, &provider)?;
        let certificates = Arc::new(ArcSwap::from_pointee(certificates));
        let server = server_config(&provider, &tickets, &certificates, config.tls.only_tls13)?;
        let (config, followed) = (ArcSwap::from_pointee(server), Mutex::new(followed));
        Ok(Arc::new(Self { provider, tickets, certificates, config, followed }))
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
        let followed = self.followed();
        let exposed = followed.iter().filter(|followed| is_exposed(&followed.pair.key)).map(|followed| {
            let key = followed.pair.key.display();
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
        let (certificates, followed) = load(config, &self.provider)?;
        let config = server_config(&self.provider, &self.tickets, &self.certificates, config.tls.only_tls13)?;
        Ok(Prepared { certificates, config, followed })
    }

    /// Puts what was prepared in force.
    pub fn apply(&self, prepared: Prepared) {
        let mut followed = self.followed();
        self.certificates.store(Arc::new(prepared.certificates));
        self.config.store(Arc::new(prepared.config));
        *followed = prepared.followed;
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
        for (place, followed) in self.followed().iter_mut().enumerate() {
            if !followed.has_settled() {
                continue;
            }
            let (context, path) = (telemetry::Context::default(), followed.pair.certificate.as_path());
            match Certified::load(&followed.pair, &self.provider) {
                Ok(certified) => {
                    let certificates = self.certificates.load().with(place, certified);
                    self.certificates.store(Arc::new(certificates));
                    telemetry::audit(&context, &Audit::CertificateReloaded { path });
                    changed = true;
                }
                Err(error) => telemetry::audit(&context, &Audit::CertificateRefused { path, error: &error }),
            }
        }
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

    fn followed(&self) -> MutexGuard<'_, Vec<Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(config: &Config, provider: &CryptoProvider) -> Result<(Certificates, Vec<Followed>), TlsError> {
    let followed = config.tls.pairs.iter().map(Followed::begin).collect();
    let load = |pair| Certified::load(pair, provider).map(Arc::new);
    let pairs = config.tls.pairs.iter().map(load).collect::<Result<_, _>>()?;
    let origins = config.sites.iter().flat_map(|site| std::iter::once(&site.origin).chain(&site.aliases));
    let hosts = origins.map(|origin| origin.host.clone()).collect();
    Ok((Certificates::new(pairs, hosts), followed))
}

/// Whether others than its owner can read a key (S132).
fn is_exposed(key: &Path) -> bool {
    std::fs::metadata(key).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
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
