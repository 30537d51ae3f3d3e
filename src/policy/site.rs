//! The finished, validated settings of one site: what all decisions about an exchange are made from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::HeaderName;

use crate::policy::access::AccessRules;
use crate::policy::cookie::SessionCookie;
use crate::policy::csrf::CsrfRules;
use crate::policy::headers::IdentityHeaders;
use crate::policy::headers::SecurityHeaders;
use crate::policy::login::LoginRule;
use crate::policy::logout::LogoutRule;
use crate::policy::path::PathCase;
use crate::policy::relax::Relaxed;
use crate::policy::session::SessionRules;
use crate::policy::vault::CookieRules;

/// An `https` origin that browsers see (RFC 6454): lower-case host, port made explicit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Host name or bracketed IPv6 address, lower case, without trailing dot.
    pub host: String,
    /// Port; 443 when the URL names none.
    pub port: u16,
}

impl Origin {
    /// The serialised origin, default port omitted: `https://app.example.com`.
    pub fn to_text(&self) -> String {
        format!("https://{}", self.authority())
    }

    /// `host` or `host:port`, default port omitted.
    pub fn authority(&self) -> String {
        if self.port == 443 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// Whether the host is `localhost`, below it, or an IP address: no HSTS for those.
    pub fn is_local_or_ip(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost" || self.host.ends_with(".localhost") || bare.parse::<std::net::IpAddr>().is_ok()
    }
}

/// Where the application listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamAddress {
    /// `http://host:port`
    Http {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `https://host:port`, certificate verified.
    Https {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
    /// `unix:/path/to/socket`
    Unix(PathBuf),
}

/// As a URL, the default port left out.
impl fmt::Display for UpstreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port: 80 } => write!(f, "http://{host}"),
            Self::Http { host, port } => write!(f, "http://{host}:{port}"),
            Self::Https { host, port: 443 } => write!(f, "https://{host}"),
            Self::Https { host, port } => write!(f, "https://{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How the application is spoken to (`upstream_protocol`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge (RFC 9113 3.3).
    Http2,
}

/// What speaks HTTP/1.1 to the application (`upstream_client`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamClient {
    /// Our own client.
    Native,
    /// hyper's.
    Hyper,
}

/// What the application gets as `Host` (`upstream_host`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost {
    /// The browser's.
    Preserve,
    /// The upstream's own name.
    Upstream,
    /// This name.
    Name(String),
}

/// `[site.health]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is asked for.
    pub path: String,
    /// How often (default 10s).
    pub interval: Duration,
}

/// `[site.upstream_tls]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// PEM file with the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Name to verify instead of the URL's host.
    pub server_name: Option<String>,
    /// Client certificate and key presented to the application.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Everything configurable about one site.
#[derive(Clone, Debug)]
pub struct Site {
    /// What browsers see.
    pub origin: Origin,
    /// Further origins, which only redirect to `origin`.
    pub aliases: Vec<Origin>,
    /// At least one.
    pub upstreams: Vec<UpstreamAddress>,
    /// How they are spoken to.
    pub upstream_protocol: UpstreamProtocol,
    /// What speaks HTTP/1.1 to them.
    pub upstream_client: UpstreamClient,
    /// What `Host` the application gets.
    pub upstream_host: UpstreamHost,
    /// TLS towards an `https` upstream.
    pub upstream_tls: UpstreamTls,
    /// How they are checked, if they are.
    pub health: Option<HealthCheck>,
    /// Whether paths are compared ignoring case.
    pub paths: PathCase,
    /// Rules about messages that it is spared.
    pub relax: Relaxed,
    /// Whether WebSockets are offered over HTTP/2.
    pub websocket_h2: bool,
    /// `[site.login]`, in the order of the file.
    pub login: Vec<LoginRule>,
    /// `[site.logout]`, in the order of the file.
    pub logout: Vec<Arc<LogoutRule>>,
    /// `[site.access]`
    pub access: AccessRules,
    /// `[site.identity]`
    pub identity: IdentityHeaders,
    /// `[site.cookies]`
    pub cookies: CookieRules,
    /// `[site.headers]`
    pub headers: SecurityHeaders,
    /// `[site.csrf]` over `[csrf]`
    pub csrf: CsrfRules,
    /// `[site.session]` over `[session]`
    pub session: SessionRules,
    /// Our cookie, prepared.
    pub cookie: SessionCookie,
    /// `[site.limits]` over `[limits]`
    pub limits: Limits,
}

impl Site {
    /// The path (and query) browsers are sent to to log in: the first rule's page.
    pub fn login_page(&self) -> &str {
        self.login.first().map_or("/", |rule| rule.page.raw())
    }
}

/// `[limits]`: bytes and counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Header section, bytes (default 32 KiB).
    pub header_bytes: usize,
    /// Header fields (default 100).
    pub header_count: usize,
    /// Request target, bytes (default 8 KiB).
    pub uri: usize,
    /// Request body, bytes (default 10 MiB); `None` is no limit.
    pub body: Option<u64>,
    /// Connections in all (default 10000).
    pub connections: usize,
    /// Connections per client address (default 256).
    pub connections_per_address: usize,
    /// Connections to one upstream (default 512).
    pub upstream_connections: usize,
    /// Anonymous sessions a site (default 100000).
    pub anonymous_sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes: 32 * 1024,
            header_count: 100,
            uri: 8 * 1024,
            body: Some(10 * 1024 * 1024),
            connections: 10_000,
            connections_per_address: 256,
            upstream_connections: 512,
            anonymous_sessions: 100_000,
        }
    }
}

/// `[timeouts]`; `None` is `"off"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TLS handshake (default 10s).
    pub handshake: Duration,
    /// Request head (default 10s).
    pub header: Duration,
    /// Pause between two pieces of a body (default 30s).
    pub body_idle: Option<Duration>,
    /// Idle client connection (default 60s).
    pub keep_alive: Duration,
    /// Connecting to the upstream, TLS included (default 3s).
    pub connect: Duration,
    /// From request sent to the upstream's response head (default 60s).
    pub first_byte: Option<Duration>,
    /// Tunnel without data in either direction (default 15m).
    pub tunnel_idle: Option<Duration>,
    /// From the stop signal to cutting what is left (default 30s).
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body_idle: Some(Duration::from_secs(30)),
            keep_alive: Duration::from_secs(60),
            connect: Duration::from_secs(3),
            first_byte: Some(Duration::from_secs(60)),
            tunnel_idle: Some(Duration::from_secs(15 * 60)),
            drain: Duration::from_secs(30),
        }
    }
}

/// A header to add to responses.
pub type HeaderField = (HeaderName, HeaderValue);
