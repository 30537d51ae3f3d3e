//! Everything configurable, immutable, swapped as a whole by a reload. A request takes it once, so
//! that the rules cannot change in its midst.

use std::collections::HashMap;
use std::collections::HashSet;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use http::HeaderName;
use http::HeaderValue;
use ipnet::IpNet;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;

use crate::clock::Timestamp;
use crate::config::Config;
use crate::crypto;
use crate::policy::headers::PublicOrigin;
use crate::policy::lifecycle;
use crate::policy::location::InnerHost;
use crate::policy::relax::Relaxed;
use crate::policy::relax::Rule;
use crate::policy::session::EndReason;
use crate::policy::session::Life;
use crate::policy::session::Outline;
use crate::policy::session::SessionRules;
use crate::policy::site::Limits;
use crate::policy::site::Site;
use crate::policy::site::Timeouts;
use crate::policy::site::UpstreamAddress;
use crate::policy::site::UpstreamHost;
use crate::policy::site::UpstreamProtocol;
use crate::policy::site::UpstreamTls;
use crate::policy::trailers::TrailerRules;
use crate::proxy::assertion::Assertions;
use crate::proxy::learned::Learned;
use crate::proxy::tally::Traffic;
use crate::proxy::upstream::Tls;
use crate::proxy::upstream::Upstream;
use crate::signing::KeyPlace;
use crate::signing::Keys;
use crate::signing::KeysError;
use crate::store::StoreSettings;

/// One configuration at work.
pub(super) struct Snapshot {
    sites: HashMap<String, Place>,
    pub(super) timeouts: Timeouts,
    /// For what belongs to no site.
    limits: Limits,
    pub(super) trusted: Vec<IpNet>,
    pub(super) access_log: bool,
    pub(super) log_queries: bool,
}

/// What an authority stands for.
pub(super) enum Place {
    /// A site.
    Site(Arc<LiveSite>),
    /// Another name of one, which only redirects.
    Alias(Arc<LiveSite>),
}

/// A site with what was prepared for it.
pub(super) struct LiveSite {
    pub(super) site: Site,
    /// The origin as text: the site's name in records and logs.
    pub(super) name: Arc<str>,
    pub(super) rules: Arc<SessionRules>,
    pub(super) upstreams: Vec<Arc<Upstream>>,
    next: AtomicUsize,
    /// `Host` for the application.
    pub(super) host: HeaderValue,
    pub(super) public: PublicOrigin,
    /// How the application knows its own origin, when that is not the browser's.
    pub(super) inner_origin: Option<String>,
    /// Hosts that must not reach a browser.
    pub(super) inner_hosts: Vec<InnerHost>,
    /// Response headers that only tell us something (S29).
    pub(super) markers: Vec<HeaderName>,
    /// What passes of trailers; `None` where the application's protocol has no use for them.
    pub(super) trailers: Option<Arc<TrailerRules>>,
    /// What signs statements about its users, if the application wants them.
    pub(super) assertions: Option<Assertions>,
    pub(super) lasting: Lasting,
}

/// What a site keeps over a reload.
#[derive(Clone, Default)]
pub(super) struct Lasting {
    pub(super) learned: Arc<Learned>,
    pub(super) traffic: Arc<Traffic>,
}

impl LiveSite {
    /// Where to begin among several upstreams.
    pub(super) fn turn(&self) -> usize {
        if self.upstreams.len() == 1 { 0 } else { self.next.fetch_add(1, Ordering::Relaxed) }
    }
}

/// Why the settings cannot be put to work.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// A PEM file of `[site.upstream_tls]`.
    #[error("cannot use {path} for TLS to the upstream")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// A file without a certificate that can be read.
    #[error(
        "there is no usable certificate in {path}: `ca` of [site.upstream_tls] wants PEM certificates of authorities"
    )]
    NoAuthority {
        /// The file.
        path: PathBuf,
    },
    /// The client certificate and its key.
    #[error("the key {key} does not fit the certificate {certificate} of [site.upstream_tls]")]
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
    #[error("TLS to the upstream {upstream} cannot be set up")]
    Tls {
        /// The upstream.
        upstream: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
    /// The name to verify.
    #[error("{name:?} is not a host name that can be verified")]
    Name {
        /// The name.
        name: String,
    },
    /// No authorities at all.
    #[error("the system has no certificate authorities; name some with `ca` in [site.upstream_tls]")]
    NoAuthorities,
    /// The keys that sign assertions.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl GateError {
    /// The part of the file that it is about.
    pub fn section(&self) -> &'static str {
        match self {
            Self::Keys(_) => "[site.identity] assertion",
            Self::Pem { .. }
            | Self::NoAuthority { .. }
            | Self::Mismatch { .. }
            | Self::Tls { .. }
            | Self::Name { .. }
            | Self::NoAuthorities => "[site.upstream_tls]",
        }
    }
}

/// Gets the keys of a place.
type Opening<'a> = &'a dyn Fn(KeyPlace) -> Result<Arc<Keys>, KeysError>;

impl Snapshot {
    pub(super) fn build(
        config: &Config,
        lasting: &dyn Fn(&str) -> Lasting,
        keys: Opening<'_>,
    ) -> Result<Self, GateError> {
        let mut sites = HashMap::new();
        for site in &config.sites {
            let assertions = assertions(site, &config.store, keys)?;
            let live = Arc::new(live(site, assertions, lasting(&site.origin.to_text()))?);
            for alias in &site.aliases {
                sites.insert(alias.authority(), Place::Alias(Arc::clone(&live)));
            }
            sites.insert(site.origin.authority(), Place::Site(live));
        }
        Ok(Self {
            sites,
            timeouts: config.timeouts.clone(),
            limits: config.limits.clone(),
            trusted: config.listen.trusted_proxies.clone(),
            access_log: config.log.access,
            log_queries: config.log.queries,
        })
    }

    /// Whether a session's time is up. One whose site is no longer configured waits for its absolute end.
    pub(super) fn expiry(&self, site: &str, life: Life, now: Timestamp) -> Option<EndReason> {
        match self.session_rules(site) {
            Some(rules) => lifecycle::expiry(life, rules, now),
            None => (now >= life.absolute_end).then_some(EndReason::Absolute),
        }
    }

    /// All sites.
    pub(super) fn sites(&self) -> impl Iterator<Item = &Arc<LiveSite>> {
        self.sites.values().filter_map(|place| match place {
            Place::Site(site) => Some(site),
            Place::Alias(_) => None,
        })
    }

    /// When a session ends without further activity.
    pub(super) fn end_of(&self, session: &Outline) -> Timestamp {
        let idle = self.session_rules(&session.site).map(|rules| lifecycle::idle_limit(session.life(), rules));
        idle.map_or(session.absolute_end, |idle| session.absolute_end.min(session.seen.plus(idle)))
    }

    fn session_rules(&self, site: &str) -> Option<&SessionRules> {
        self.sites().find(|live| *live.name == *site).map(|live| &*live.rules)
    }

    /// Those of all sites.
    pub(super) fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.sites().flat_map(|site| &site.upstreams)
    }

    /// Whether a site with one of these hosts offers WebSockets over HTTP/2.
    pub(super) fn offers_websockets(&self, hosts: &HashSet<String>) -> bool {
        self.sites.values().any(|place| match place {
            Place::Site(live) => live.site.websocket_h2 && hosts.contains(&live.site.origin.host),
            Place::Alias(_) => false,
        })
    }

    pub(super) fn place(&self, authority: &str) -> Option<&Place> {
        self.sites.get(authority)
    }

    /// The limits for messages to this place, and the rules it is spared.
    pub(super) fn rules_of<'a>(&'a self, place: Option<&'a Place>) -> (&'a Limits, &'a Relaxed) {
        static STRICT: Relaxed = Relaxed::NONE;
        match place {
            Some(Place::Site(site) | Place::Alias(site)) => (&site.site.limits, &site.site.relax),
            None => (&self.limits, &STRICT),
        }
    }
}

fn assertions(site: &Site, store: &StoreSettings, keys: Opening<'_>) -> Result<Option<Assertions>, KeysError> {
    let Some(rules) = &site.identity.assertion else { return Ok(None) };
    let keys = keys(KeyPlace::of(rules.keys.as_ref(), store)?)?;
    Ok(Some(Assertions::new(&site.origin, rules, keys)))
}

fn live(site: &Site, assertions: Option<Assertions>, lasting: Lasting) -> Result<LiveSite, GateError> {
    let mut upstreams = Vec::new();
    for address in &site.upstreams {
        let tls = match address {
            UpstreamAddress::Https { host, .. } => Some(tls(host, &site.upstream_tls)?),
            UpstreamAddress::Http { .. } | UpstreamAddress::Unix(_) => None,
        };
        let connections = site.limits.upstream_connections;
        let mends = site.relax.has(Rule::AnswerLines);
        let (protocol, client) = (site.upstream_protocol, site.upstream_client);
        upstreams.push(Upstream::new(address.clone(), protocol, client, tls, connections, mends));
    }
    let own: Vec<String> = site.upstreams.iter().filter_map(authority).collect();
    let scheme = if matches!(site.upstreams.first(), Some(UpstreamAddress::Https { .. })) { "https" } else { "http" };
    let (host, inner) = match &site.upstream_host {
        UpstreamHost::Preserve => (site.origin.authority(), None),
        UpstreamHost::Name(name) => (name.clone(), Some(name)),
        UpstreamHost::Upstream => {
            let host = own.first().cloned().unwrap_or_else(|| "localhost".to_owned());
            (host, own.first())
        }
    };
    let ends = site.logout.iter().filter_map(|rule| rule.end_header.clone());
    let markers: Vec<_> = site.login.iter().flat_map(|rule| rule.marker_headers().cloned()).chain(ends).collect();
    let inner_hosts = own.iter().chain(inner).map(|host| InnerHost::new(host)).collect();
    let inner_origin = (host != site.origin.authority()).then(|| format!("{scheme}://{host}"));
    Ok(LiveSite {
        name: Arc::from(site.origin.to_text()),
        rules: Arc::new(site.session.clone()),
        upstreams,
        next: AtomicUsize::new(0),
        public: PublicOrigin::of(&site.origin),
        host: HeaderValue::from_str(&host).map_err(|_| GateError::Name { name: host })?,
        inner_origin,
        inner_hosts,
        trailers: match site.upstream_protocol {
            UpstreamProtocol::Http1 => None,
            UpstreamProtocol::Http2 => {
                let removed = markers.iter().chain(&site.headers.remove).cloned();
                Some(Arc::new(TrailerRules::new(&site.identity, removed)))
            }
        },
        markers,
        assertions,
        lasting,
        site: site.clone(),
    })
}

/// `host` or `host:port` as the application would write it.
fn authority(address: &UpstreamAddress) -> Option<String> {
    match address {
        UpstreamAddress::Http { host, port: 80 } | UpstreamAddress::Https { host, port: 443 } => Some(host.clone()),
        UpstreamAddress::Http { host, port } | UpstreamAddress::Https { host, port } => Some(format!("{host}:{port}")),
        UpstreamAddress::Unix(_) => None,
    }
}

fn tls(host: &str, settings: &UpstreamTls) -> Result<Tls, GateError> {
    let named = |source| GateError::Tls { upstream: host.to_owned(), source };
    let roots = match &settings.ca {
        Some(path) => roots_from(path)?,
        None => system_roots()?,
    };
    let provider = crypto::provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(named)?
        .with_root_certificates(roots);
    let config = match &settings.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key_path)) => {
            let pem = |path: &Path| {
                let path = path.to_owned();
                move |source| GateError::Pem { path, source }
            };
            let chain = certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key_path).map_err(pem(key_path))?;
            let (certificate, key_path) = (certificate.clone(), key_path.clone());
            let mismatch = |source| GateError::Mismatch { certificate, key: key_path, source };
            builder.with_client_auth_cert(chain, key).map_err(mismatch)?
        }
    };
    let name = settings.server_name.as_deref().unwrap_or(host).trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(name.to_owned()).map_err(|_| GateError::Name { name: name.to_owned() })?;
    let mut http2 = config.clone();
    http2.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls { http1: TlsConnector::from(Arc::new(config)), http2: TlsConnector::from(Arc::new(http2)), name })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, GateError> {
    let pem = |source| GateError::Pem { path: path.to_owned(), source };
    CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)
}

fn roots_from(path: &Path) -> Result<RootCertStore, GateError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    if roots.is_empty() { Err(GateError::NoAuthority { path: path.to_owned() }) } else { Ok(roots) }
}

fn system_roots() -> Result<RootCertStore, GateError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err(GateError::NoAuthorities) } else { Ok(roots) }
}
