//! What the program is told about its Redis.

use std::fmt;
use std::path::PathBuf;

use crate::secret::Secret;

/// `[store]` with the URL of a Redis or Valkey.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisSettings {
    /// How its servers work together.
    pub form: Form,
    /// The server, the sentinels, or some nodes of the cluster.
    pub servers: Vec<ServerAddress>,
    /// Whether connections are TLS, verified.
    pub tls: bool,
    /// Whether servers on other machines may be spoken to without.
    pub allow_plaintext: bool,
    /// The authorities that certificates are verified by, instead of the system's.
    pub ca: Option<PathBuf>,
    /// The ACL user; `default` when `None`.
    pub user: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: u32,
    /// What all keys begin with.
    pub prefix: String,
}

impl RedisSettings {
    /// Whether nobody reads along who should not, or the file says that it does not matter (S180).
    pub fn may_speak_to(&self, server: &ServerAddress) -> bool {
        self.tls || self.allow_plaintext || server.is_local()
    }
}

/// How servers work together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// There is one.
    Single,
    /// Sentinels know which one is the master.
    Sentinel {
        /// What they call it.
        master: String,
    },
    /// Redis Cluster.
    Cluster,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServerAddress {
    /// `host:port`
    Tcp {
        /// Name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A socket in the file system.
    Unix(PathBuf),
}

impl ServerAddress {
    /// Whether nobody but this machine can listen in.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Unix(_) => true,
            Self::Tcp { host, .. } => {
                host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
