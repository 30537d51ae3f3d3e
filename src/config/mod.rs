//! `proxy.toml`: the only road from text to finished values.

mod admin;
mod catalogue;
mod contradictions;
mod explain;
mod general;
mod headers;
mod keys;
mod login;
mod logout;
mod reader;
#[cfg(test)]
mod reference_tests;
mod rules;
mod schema;
mod section;
mod session;
mod site;
mod store;
mod syntax;
#[cfg(test)]
mod tests;
mod value;
mod warnings;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;

use ipnet::IpNet;

pub use self::admin::AdminListen;
pub use self::admin::AdminSettings;

use crate::config::reader::Reader;
use crate::policy::site::Limits;
use crate::policy::site::Site;
use crate::policy::site::Timeouts;
use crate::secret::Secret;
use crate::store::StoreSettings;

/// A place to listen on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

/// As it is written in the file.
impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[listen]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// TLS listeners, at least one.
    pub https: Vec<ListenAddress>,
    /// Plain listeners, which only redirect.
    pub http: Vec<ListenAddress>,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether connections of those peers begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Worker threads; one per core when `None`.
    pub workers: Option<usize>,
}

/// A certificate chain and its key, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificatePair {
    /// Chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// `[tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// The first is the default; the others are chosen by SNI.
    pub pairs: Vec<CertificatePair>,
    /// Files with the authorities of client certificates; when there are any, every client needs one.
    pub client_ca: Vec<PathBuf>,
    /// `min_version = "1.3"`.
    pub only_tls13: bool,
}

/// `[log] format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, else JSON.
    Auto,
    /// Readable text.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Format.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace` (default info).
    pub level: tracing::Level,
    /// Access log (default on).
    pub access: bool,
    /// Whether paths are logged with their query (default off).
    pub queries: bool,
}

/// The whole file, finished: everything in it is valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file, as it was named.
    pub file: PathBuf,
    /// `[listen]`
    pub listen: Listen,
    /// `[tls]`
    pub tls: TlsSettings,
    /// At least one, with distinct origins.
    pub sites: Vec<Site>,
    /// `[store]`
    pub store: StoreSettings,
    /// `store.key`: the first seals, all of them open.
    pub store_keys: Vec<Secret>,
    /// `[limits]`
    pub limits: Limits,
    /// `[timeouts]`
    pub timeouts: Timeouts,
    /// `[admin]`
    pub admin: AdminSettings,
    /// `[log]`
    pub log: LogSettings,
}

/// Everything that is wrong with a file, ready to print.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct Problems {
    text: String,
    count: usize,
}

impl Problems {
    /// How many there are, at least one.
    pub fn count(&self) -> usize {
        self.count
    }

    fn of_unread(path: &Path, error: &io::Error) -> Self {
        let kind = error.kind();
        let (what, help) = if kind == io::ErrorKind::NotFound {
            ("there is no such file".to_owned(), "write it, or name another one: --config FILE")
        } else if kind == io::ErrorKind::InvalidData {
            ("this is no text".to_owned(), "save the file as UTF-8")
        } else {
            (error.to_string(), "make it a file that may be read")
        };
        Self { text: format!("{}: {what}\n  = help: {help}", path.display()), count: 1 }
    }
}

impl Config {
    /// Reads and parses a file; relative paths in it are relative to its directory, and the files it
    /// names must be there.
    ///
    /// # Errors
    /// All problems at once, each with its place and remedy.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        let text = std::fs::read_to_string(path).map_err(|error| Problems::of_unread(path, &error))?;
        read(Reader::new(path, &text, true), &text)
    }

    /// Parses the text of a file that is called `path`. Looks at no file.
    ///
    /// # Errors
    /// All problems at once, each with its place and remedy.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Problems> {
        read(Reader::new(path, text, false), text)
    }

    /// What a connection has to let through before its site is known: the widest head that some site
    /// takes.
    pub fn connection_limits(&self) -> Limits {
        let widest = |limits: Limits, site: &Site| Limits {
            header_bytes: limits.header_bytes.max(site.limits.header_bytes),
            header_count: limits.header_count.max(site.limits.header_count),
            uri: limits.uri.max(site.limits.uri),
            ..limits
        };
        self.sites.iter().fold(self.limits.clone(), widest)
    }

    /// The same with sessions that end with the process and nobody to administer them, whatever the file
    /// says: for the demo.
    #[must_use]
    pub fn in_memory(self) -> Self {
        let admin = AdminSettings { listen: AdminListen::At(Vec::new()), token: None };
        Self { store: StoreSettings::Memory, store_keys: Vec::new(), admin, ..self }
    }

    /// The effective policy in plain words, for `check`.
    pub fn explain(&self) -> String {
        explain::explain(self)
    }

    /// Every deviation from the recommended values, one sentence each (S194).
    pub fn warnings(&self) -> Vec<String> {
        warnings::warnings(self)
    }
}

fn read(reader: Reader<'_>, text: &str) -> Result<Config, Problems> {
    let (document, errors) = toml::de::DeTable::parse_recoverable(text);
    // Of a text that is only half understood, the other half would be called missing.
    let config = errors.is_empty().then(|| general::read_file(&reader, document.get_ref()));
    for error in &errors {
        syntax::report(&reader, text, error);
    }
    let unread = || Problems { text: "the file cannot be read".to_owned(), count: 1 };
    match reader.into_problems() {
        Some(problems) => Err(problems),
        None => config.ok_or_else(unread),
    }
}

/// JSON Schema (2020-12) of `proxy.toml`.
pub fn schema() -> serde_json::Value {
    schema::schema()
}
