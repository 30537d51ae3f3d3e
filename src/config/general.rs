//! The tables that hold for all sites, and the whole file.

use std::collections::HashSet;

use toml::de::DeTable;

use crate::config::CertificatePair;
use crate::config::Config;
use crate::config::Listen;
use crate::config::ListenAddress;
use crate::config::LogFormat;
use crate::config::LogSettings;
use crate::config::TlsSettings;
use crate::config::admin::read_admin;
use crate::config::reader::Reader;
use crate::config::section::Section;
use crate::config::session::Lifetimes;
use crate::config::session::csrf_defaults;
use crate::config::session::read_csrf;
use crate::config::session::read_session;
use crate::config::site::Shared;
use crate::config::site::read_site;
use crate::config::store::read_store;
use crate::config::value;
use crate::policy::site::Limits;
use crate::policy::site::Origin;
use crate::policy::site::Site;
use crate::policy::site::Timeouts;

/// Larger numbers are slips.
const MOST: u64 = u32::MAX as u64;

/// Reads everything; what is wrong is noted in the reader, and the result then is not to be used.
pub(super) fn read_file<'a>(reader: &'a Reader<'a>, table: &'a DeTable<'a>) -> Config {
    let file = Section::whole(reader, table);
    let listen = read_listen(&file.section("listen", "listen"));
    let tls = read_tls(&file.section("tls", "tls"));
    let limits = read_limits(&file.section("limits", "limits"), &Limits::default());
    let csrf = read_csrf(&file.section("csrf", "csrf"), &csrf_defaults());
    let session = read_session(&file.section("session", "session"), &Lifetimes::default());
    let timeouts = read_timeouts(&file.section("timeouts", "timeouts"));
    let log = read_log(&file.section("log", "log"));
    let (store, store_keys) = read_store(&file.section("store", "store"));
    let admin = read_admin(&file.section("admin", "admin"));
    let shared = Shared { session, csrf, limits: limits.clone(), client_ca: !tls.client_ca.is_empty() };
    let sites = read_sites(&file, &shared);
    Config { file: reader.path(), listen, tls, sites, store, store_keys, limits, timeouts, admin, log }
}

fn read_sites(file: &Section<'_>, shared: &Shared) -> Vec<Site> {
    let tables = file.sections("site", "site");
    if tables.is_empty() {
        let help = "write [[site]] with origin = \"https://app.example.com\" and upstream = \"http://127.0.0.1:8000\"";
        file.reader.report(file.span.clone(), "there is no [[site]]", help);
    }
    let mut taken: HashSet<Origin> = HashSet::new();
    let mut sites = Vec::new();
    for table in &tables {
        let Some(site) = read_site(table, shared) else { continue };
        let mut claim = |origin: &Origin, key: &str| {
            if !taken.insert(origin.clone()) {
                let message = format!("{} is already the origin or alias of a site", origin.to_text());
                table.problem(key, message, "every origin and alias is written once");
            }
        };
        claim(&site.origin, "origin");
        site.aliases.iter().for_each(|alias| claim(alias, "aliases"));
        sites.push(site);
    }
    sites
}

fn read_listen(section: &Section<'_>) -> Listen {
    let mut taken = HashSet::new();
    let mut read = |key: &str| -> Vec<ListenAddress> {
        let addresses =
            section.parsed(key, |text| value::address(text, |path| section.reader.resolve(path))).unwrap_or_default();
        for (address, span) in &addresses {
            let is_any_port = matches!(address, ListenAddress::Tcp(address) if address.port() == 0);
            if !is_any_port && !taken.insert(address.clone()) {
                section.reader.report(span.clone(), format!("{address} is listened on twice"), "remove one of them");
            }
        }
        addresses.into_iter().map(|(address, _)| address).collect()
    };
    let (https, http) = (read("https"), read("http"));
    section.require("https");
    if section.items("https").is_some_and(|items| items.is_empty()) {
        section.problem("https", "listen.https is empty", "write an address and port, such as \"0.0.0.0:443\"");
    }
    let trusted = section.parsed("trusted_proxies", value::network).unwrap_or_default();
    let workers = section.number("workers", 1..=1024);
    let proxy_protocol = section.flag("proxy_protocol", false);
    if proxy_protocol && trusted.is_empty() {
        let help = "write the balancer's address in listen.trusted_proxies: nobody else may say for whom it connects";
        section.problem("proxy_protocol", "listen.proxy_protocol needs listen.trusted_proxies", help);
    }
    Listen {
        https,
        http,
        proxy_protocol,
        trusted_proxies: trusted.into_iter().map(|(network, _)| network).collect(),
        workers: workers.and_then(|count| usize::try_from(count).ok()),
    }
}

fn read_pair(section: &Section<'_>) -> Option<CertificatePair> {
    let remedy = "make a certificate for trying things out with: vestibule cert";
    section.require("certificate");
    section.require("key");
    let (certificate, key) = (section.file("certificate", remedy), section.file("key", remedy));
    Some(CertificatePair { certificate: certificate?, key: key? })
}

fn read_tls(section: &Section<'_>) -> TlsSettings {
    let mut pairs: Vec<_> = read_pair(section).into_iter().collect();
    pairs.extend(section.sections("extra", "tls.extra").iter().filter_map(read_pair));
    if section.items("client_ca").is_some_and(|items| items.is_empty()) {
        section.problem("client_ca", "tls.client_ca is empty", "remove it, or write the path of a PEM file");
    }
    TlsSettings {
        pairs,
        client_ca: section.files("client_ca", "write the path of a PEM file"),
        only_tls13: section.choice("min_version", &[("1.2", false), ("1.3", true)], false),
    }
}

/// `[limits]`, or `[site.limits]` over it.
pub(super) fn read_limits(section: &Section<'_>, default: &Limits) -> Limits {
    let count = |key: &str, least: u64, default: usize| {
        section.number(key, least..=MOST).and_then(|number| usize::try_from(number).ok()).unwrap_or(default)
    };
    let body = if section.is_off("body") { None } else { section.number("body", 0..=u64::MAX / 2).or(default.body) };
    Limits {
        // The HTTP/1 parser's buffer cannot be smaller.
        header_bytes: count("header_bytes", 8192, default.header_bytes),
        header_count: count("header_count", 10, default.header_count),
        uri: count("uri", 64, default.uri),
        body,
        connections: count("connections", 1, default.connections),
        connections_per_address: count("connections_per_address", 1, default.connections_per_address),
        upstream_connections: count("upstream_connections", 1, default.upstream_connections),
        anonymous_sessions: count("anonymous_sessions", 1, default.anonymous_sessions),
    }
}

fn read_timeouts(section: &Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    Timeouts {
        handshake: section.duration("handshake", default.handshake, false),
        header: section.duration("header", default.header, false),
        body_idle: section.duration_or_off("body_idle", default.body_idle),
        keep_alive: section.duration("keep_alive", default.keep_alive, false),
        connect: section.duration("connect", default.connect, false),
        first_byte: section.duration_or_off("first_byte", default.first_byte),
        tunnel_idle: section.duration_or_off("tunnel_idle", default.tunnel_idle),
        drain: section.duration("drain", default.drain, true),
    }
}

fn read_log(section: &Section<'_>) -> LogSettings {
    let formats = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    LogSettings {
        format: section.choice("format", &formats, LogFormat::Auto),
        level: section.choice("level", &levels, tracing::Level::INFO),
        access: section.flag("access", true),
        queries: section.flag("queries", false),
    }
}
