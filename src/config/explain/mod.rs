//! The effective policy in plain words: everything that holds, whether it was written or is a default.

mod login;
mod site;
mod words;

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::AdminListen;
use crate::config::Config;
use crate::config::ListenAddress;

pub(super) use self::words::short;

use self::words::join;
use self::words::time;
use crate::store::StoreSettings;
use crate::store::redis::settings::Form;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::settings::ServerAddress;

/// A paragraph for the whole, one for each site.
pub(super) fn explain(config: &Config) -> String {
    let mut out = String::new();
    for line in general(config) {
        let _ = writeln!(out, "{line}");
    }
    for site in &config.sites {
        let _ = writeln!(
            out,
            "\nSite {} -> {}",
            site.origin.to_text(),
            join(site.upstreams.iter().map(ToString::to_string))
        );
        for line in site::lines(config, site) {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

fn general(config: &Config) -> Vec<String> {
    let versions = if config.tls.only_tls13 { "TLS 1.3" } else { "TLS 1.2 and 1.3" };
    let certificates = join(config.tls.pairs.iter().map(|pair| pair.certificate.display().to_string()));
    let mut all =
        vec![format!("Serves https on {}: {versions}, with {certificates}.", addresses(&config.listen.https))];
    if !config.tls.client_ca.is_empty() {
        let files = join(config.tls.client_ca.iter().map(|path| path.display().to_string()));
        all.push(format!("Clients get in only with a certificate of an authority in {files}."));
    }
    if !config.listen.http.is_empty() {
        all.push(format!("Redirects http on {} to https.", addresses(&config.listen.http)));
    }
    let trusted = &config.listen.trusted_proxies;
    if !trusted.is_empty() {
        let networks = join(trusted.iter().map(ToString::to_string));
        all.push(format!("Believes what {networks} say about the client's address."));
    }
    if config.listen.proxy_protocol {
        all.push("Connections from there begin with a PROXY protocol header.".to_owned());
    }
    all.push(match &config.store {
        StoreSettings::Memory => "Sessions are kept in memory and end with the process.".to_owned(),
        StoreSettings::File(Some(path)) => format!("Sessions are kept in {} and survive a restart.", path.display()),
        StoreSettings::File(None) => {
            "Sessions are kept in sessions.redb in the state directory and survive a restart.".to_owned()
        }
        StoreSettings::Redis(settings) => redis(settings),
    });
    if let [first, others @ ..] = &config.store_keys[..] {
        let others = join(others.iter().map(ToString::to_string));
        let too =
            if others.is_empty() { others } else { format!("; those that are sealed with {others} are opened, too") };
        all.push(format!("Sessions are sealed with the key in {first}{too}."));
    }
    all.push(administration(config));
    all.push(site::limits(&config.limits));
    all.push(waits(config));
    let (access, queries) = (config.log.access, config.log.queries);
    let requests = match (access, queries) {
        (true, true) => "every request with its query",
        (true, false) => "every request without its query",
        (false, true | false) => "no requests",
    };
    all.push(format!("Logs {requests}, and events from level {} on.", config.log.level.as_str().to_ascii_lowercase()));
    all
}

fn redis(settings: &RedisSettings) -> String {
    let servers = join(settings.servers.iter().map(ToString::to_string));
    let place = match &settings.form {
        Form::Single => format!("the Redis at {servers}"),
        Form::Sentinel { master } => format!("the Redis that the sentinels {servers} call {master:?}"),
        Form::Cluster => format!("the Redis Cluster that {servers} belong to"),
    };
    let way = match (settings.tls, settings.servers.iter().all(ServerAddress::is_local)) {
        (true, _) => ", over TLS",
        (false, true) => "",
        (false, false) => ", without TLS",
    };
    format!(
        "Sessions are kept in {place}{way}, under keys that begin with {:?}; all Vestibules there share them.",
        settings.prefix
    )
}

fn administration(config: &Config) -> String {
    let token = config.admin.token.as_ref().map_or_else(String::new, |token| format!(", with the token in {token}"));
    match (&config.admin.listen, &config.store) {
        (AdminListen::Usual, StoreSettings::File(_)) => "Is administered through admin.sock beside them.".to_owned(),
        (AdminListen::Usual, StoreSettings::Memory | StoreSettings::Redis(_)) => {
            "Is administered through a unix socket in the runtime directory.".to_owned()
        }
        (AdminListen::At(places), _) if places.is_empty() => "Cannot be administered while it runs.".to_owned(),
        (AdminListen::At(places), _) => format!("Is administered through {}{token}.", addresses(places)),
    }
}

fn waits(config: &Config) -> String {
    let timeouts = &config.timeouts;
    let or_ever = |limit: Option<Duration>| limit.map_or_else(|| "for ever".to_owned(), time);
    format!(
        "Waits {} for a TLS handshake, {} for the head of a request, {} for more of a body, {} for a connection to the \
         application, {} for its answer, {} for data in a tunnel.",
        time(timeouts.handshake),
        time(timeouts.header),
        or_ever(timeouts.body_idle),
        time(timeouts.connect),
        or_ever(timeouts.first_byte),
        or_ever(timeouts.tunnel_idle)
    )
}

fn addresses(list: &[ListenAddress]) -> String {
    join(list.iter().map(ToString::to_string))
}
