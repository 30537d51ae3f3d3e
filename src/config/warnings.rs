//! What deviates from the recommended values, weaker than they are (S194).

use std::time::Duration;

use crate::config::Config;
use crate::config::explain::short;
use crate::policy::access::AmbiguousPaths;
use crate::policy::admit;
use crate::policy::assertion::AssertionRules;
use crate::policy::binding::Bind;
use crate::policy::binding::OnMismatch;
use crate::policy::csrf::CsrfMode;
use crate::policy::glob::PathPattern;
use crate::policy::login::LoginRule;
use crate::policy::login::UserSource;
use crate::policy::path;
use crate::policy::relax::Relaxing;
use crate::policy::site::Site;
use crate::policy::site::UpstreamAddress;
use crate::policy::throttle::CEILING;
use crate::policy::throttle::ThrottleRules;
use crate::policy::vault::CookieMode;
use crate::secret::Secret;
use crate::store::StoreSettings;
use crate::store::redis::settings::Form;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::settings::ServerAddress;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const YEAR_SECONDS: u64 = 365 * 24 * 60 * 60;

/// One sentence each, with key and remedy.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut all = about_all(config);
    for site in &config.sites {
        let name = site.origin.to_text();
        let mut warn = |text: &str| all.push(format!("{name}: {text}"));
        about_rules(site, &mut warn);
        about_session(site, &mut warn);
        about_access(site, &mut warn);
        about_messages(site, &mut warn);
        about_headers(site, &mut warn);
        about_upstream(site, &mut warn);
        if let (StoreSettings::Redis(_), Some(AssertionRules { keys: None, .. })) =
            (&config.store, &site.identity.assertion)
        {
            warn(
                "identity.assertion has no keys, and sessions are in Redis: another Vestibule on another machine signs with keys of its own; name a directory that all of them share.",
            );
        }
    }
    all
}

fn about_redis(settings: &RedisSettings, has_key: bool, all: &mut Vec<String>) {
    if matches!(settings.password, Some(Secret::Written(_))) {
        all.push(
            "store.url has a password: whoever reads the file knows it; write password = \"file:PATH\" or \"env:NAME\"."
                .to_owned(),
        );
    }
    let is_local = settings.servers.iter().all(ServerAddress::is_local);
    // Sentinels and clusters may name other machines.
    if !settings.tls && settings.allow_plaintext && !(is_local && settings.form == Form::Single) {
        all.push(
            "store.allow_plaintext is on: anyone between here and Redis reads along and can end sessions; write rediss://."
                .to_owned(),
        );
    }
    if settings.password.is_none() && !is_local {
        all.push(
            "There is no store.password: whoever reaches Redis can end all sessions; give it a user of its own."
                .to_owned(),
        );
    }
    if !has_key && !is_local {
        all.push(
            "There is no store.key: whoever can write to Redis can log in as anybody; write key = \"file:PATH\", the same \
             for all Vestibules."
                .to_owned(),
        );
    }
}

fn about_all(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    match &config.store {
        StoreSettings::File(_) => {}
        StoreSettings::Memory => {
            let text = "store.url is \"memory:\": a restart logs everybody out; write \"file:PATH\", or nothing.";
            all.push(text.to_owned());
        }
        StoreSettings::Redis(settings) => about_redis(settings, !config.store_keys.is_empty(), &mut all),
    }
    for network in config.listen.trusted_proxies.iter().filter(|network| network.prefix_len() == 0) {
        all.push(format!(
            "listen.trusted_proxies has {network}: anyone can claim any address; name only your own proxies."
        ));
    }
    let timeouts = &config.timeouts;
    for (key, value, recommended) in [("handshake", timeouts.handshake, "10s"), ("header", timeouts.header, "10s")] {
        if value > MINUTE {
            all.push(format!(
                "timeouts.{key} is longer than a minute: slow clients can take all connections; lower it to \
                 {recommended:?}."
            ));
        }
    }
    for (key, value, recommended) in [
        ("body_idle", timeouts.body_idle, "30s"),
        ("first_byte", timeouts.first_byte, "60s"),
        ("tunnel_idle", timeouts.tunnel_idle, "15m"),
    ] {
        if value.is_none() {
            all.push(format!(
                "timeouts.{key} is off: whoever stops answering keeps a connection for ever; set it to {recommended:?}."
            ));
        }
    }
    for (place, site) in config.sites.iter().enumerate() {
        let is_same = |other: &&Site| other.origin.host == site.origin.host && other.cookie.meets(&site.cookie);
        if let Some(other) = config.sites[..place].iter().find(is_same) {
            all.push(format!(
                "{} and {} share a host, and browsers send cookies to every port of it: a login at one ends the session \
                 at the other; give one of them another session.cookie.",
                other.origin.to_text(),
                site.origin.to_text()
            ));
        }
    }
    if config.log.queries {
        all.push("log.queries is on: queries can hold tokens and passwords; switch it off.".to_owned());
    }
    all
}

fn about_rules(site: &Site, warn: &mut dyn FnMut(&str)) {
    if site.login.is_empty() {
        warn("there is no [site.login]: nobody can log in, and only public paths can be reached.");
    } else if site.logout.is_empty() {
        warn("there is no [site.logout]: a session goes on after the application's own logout; name its path.");
    }
    for (index, rule) in site.login.iter().enumerate() {
        about_login(index + 1, rule, warn);
        about_verify(index + 1, rule, site, warn);
        about_throttle(index + 1, rule, warn);
    }
    if site.logout.iter().any(|rule| rule.clear_site_data.is_empty()) {
        warn(
            "logout.clear_site_data is empty: what pages stored in the browser stays there after the logout; set it to \
             \"storage\".",
        );
    }
}

fn about_login(number: usize, rule: &LoginRule, warn: &mut dyn FnMut(&str)) {
    if rule.user.iter().any(|source| matches!(source, UserSource::Fixed(_))) {
        warn(&format!(
            "login.user of rule {number} has a fixed name: all users are one; use it only if the application has no \
             user names."
        ));
    }
    let glob = rule.path.glob.as_str();
    if glob.contains('*') {
        warn(&format!(
            "login.path of rule {number} is {glob:?}: all such paths are open without a session to what may be a \
             login; name the one path."
        ));
    }
    let verify = rule.verify.as_ref().map(|verify| &verify.criteria);
    for criteria in [&rule.failure, &rule.success].into_iter().flatten().chain(verify) {
        let locations = criteria.location.iter().chain(&criteria.location_not);
        for glob in locations.map(|location| location.glob.as_str()).filter(|glob| looks_for_a_query(glob)) {
            warn(&format!(
                "login rule {number} has the location {glob:?}: without a ? it is compared with the path alone; write \
                 the ? of the query, as in \"*?{}\".",
                glob.trim_start_matches('*')
            ));
        }
    }
}

fn about_verify(number: usize, rule: &LoginRule, site: &Site, warn: &mut dyn FnMut(&str)) {
    let Some(verify) = rule.verify.as_ref().filter(|verify| verify.criteria.is_empty()) else { return };
    let Some(path) = &verify.path else { return };
    if admit::is_for_everyone(site, &path::Target::parse(path, site.paths)) {
        warn(&format!(
            "login rule {number} verifies with {path:?}, which everyone gets, and has no criteria for it: no login will \
             be recognised; say what is different for those who are in, such as body_contains = \"Log out\"."
        ));
    }
}

fn about_throttle(number: usize, rule: &LoginRule, warn: &mut dyn FnMut(&str)) {
    let usual = ThrottleRules::default();
    for (key, limit, usual) in [
        ("per_account", rule.throttle.per_account, usual.per_account),
        ("per_address", rule.throttle.per_address, usual.per_address),
    ] {
        let usual = usual.map(|usual| format!("\"{} in {}\"", usual.count, short(usual.window))).unwrap_or_default();
        match limit {
            None => warn(&format!(
                "login.throttle.{key} of rule {number} is off: passwords can be guessed as fast as the application \
                 answers; set it to {usual}."
            )),
            Some(limit) if limit.count > CEILING => warn(&format!(
                "login.throttle.{key} of rule {number} is more than {CEILING}: a password that is easy to guess will be \
                 guessed; set it to {usual}."
            )),
            Some(_) => {}
        }
    }
}

/// Paths have slashes and seldom an equals sign.
fn looks_for_a_query(glob: &str) -> bool {
    !glob.contains('?') && (glob.contains('=') || !glob.contains('/'))
}

fn about_session(site: &Site, warn: &mut dyn FnMut(&str)) {
    let session = &site.session;
    if session.idle > HOUR {
        warn("session.idle_timeout is longer than an hour: lower it to \"30m\".");
    }
    if session.absolute > DAY {
        warn("session.absolute_timeout is longer than a day: lower it to \"8h\".");
    }
    match session.rotate_every {
        None => warn("session.rotate_every is off: a copied ID is never found out; set it to \"15m\"."),
        Some(every) if every >= session.idle => {
            warn(
                "session.rotate_every is not shorter than idle_timeout: a copied ID is found out late or never; set it \
                 to \"15m\".",
            );
        }
        Some(_) => {}
    }
    if session.rotation_grace > MINUTE {
        warn("session.rotation_grace is longer than a minute: a copied ID works that much longer; set it to \"30s\".");
    }
    if session.binding.bind == Bind::Off {
        warn("session.bind is off: a stolen ID works from anywhere; set it to \"subnet\".");
    }
    if session.binding.on_mismatch == OnMismatch::Log {
        warn("session.on_mismatch only logs: a stolen ID works from anywhere; set it to \"reauthenticate\".");
    }
}

fn about_access(site: &Site, warn: &mut dyn FnMut(&str)) {
    let access = &site.access;
    if access.default_public {
        warn(
            "access.default is \"public\": what no list names is open; set it to \"authenticated\" and list what is \
             public.",
        );
    }
    for pattern in access.public.iter().filter(|pattern| matches!(pattern.glob.as_str(), "/*" | "*")) {
        let glob = pattern.glob.as_str();
        warn(&format!("access.public has {glob:?}: every path is open; list what is public instead."));
    }
    for (key, list) in [("public", &access.public), ("protected", &access.protected), ("untouched", &access.untouched)]
    {
        about_encoding(&format!("access.{key}"), list, warn);
    }
    if access.ambiguous == AmbiguousPaths::Allow {
        warn(
            "access.ambiguous_paths is \"allow\": the application may read a path differently than it was judged; set \
             it to \"reject\".",
        );
    }
}

/// Decoded once, a path has no `%41` unless it was sent as `%2541`.
fn about_encoding(key: &str, list: &[PathPattern], warn: &mut dyn FnMut(&str)) {
    for glob in list.iter().map(|pattern| pattern.glob.as_str()) {
        let path = glob.split('?').next().unwrap_or(glob);
        let decoded = path::decoded(path);
        if decoded != path {
            warn(&format!("{key} has {glob:?}, which matches nothing: paths are compared decoded; write {decoded:?}."));
        }
    }
}

fn about_messages(site: &Site, warn: &mut dyn FnMut(&str)) {
    if site.csrf.mode != CsrfMode::Enforce {
        warn("csrf.mode is not \"enforce\": other sites can act in a user's name; set it to \"enforce\".");
    }
    if site.csrf.allow_unlabelled {
        warn("csrf.unlabelled is \"allow\": requests that do not say where they come from pass; set it to \"refuse\".");
    }
    about_encoding("csrf.exempt", &site.csrf.exempt, warn);
    for pattern in site.csrf.exempt.iter().filter(|pattern| pattern.glob.as_str().ends_with("/*")) {
        let glob = pattern.glob.as_str();
        warn(&format!("csrf.exempt has {glob:?}: whole folders are open to other sites; name single paths."));
    }
    if site.cookies.mode == CookieMode::Pass {
        warn("cookies.mode is \"pass\": the application's cookies reach browsers as they are; set it to \"auto\".");
    }
    for rule in site.relax.rules() {
        if let Relaxing::Can { passes, risk } = rule.relaxing() {
            warn(&format!(
                "relax has {:?}: {passes} pass, and {risk}; remove it if the application does without.",
                rule.name()
            ));
        }
    }
    if site.limits.body.is_none() {
        warn("limits.body is off: a request may be of any size; set it to what the application needs.");
    }
}

fn about_headers(site: &Site, warn: &mut dyn FnMut(&str)) {
    let headers = &site.headers;
    let max_age = headers.hsts.as_ref().and_then(|value| {
        let text = value.to_str().ok()?.strip_prefix("max-age=")?;
        text.split(';').next()?.parse::<u64>().ok()
    });
    match max_age {
        None if !site.origin.is_local_or_ip() => {
            warn("headers.hsts is off: the first request can be made in the clear; set it to \"2y\".");
        }
        Some(age) if age < YEAR_SECONDS => {
            warn("headers.hsts is shorter than a year: browsers forget it too soon; set it to \"2y\".");
        }
        Some(_) | None => {}
    }
    if headers.frame_ancestors.is_none() {
        warn("headers.frame_ancestors is off: any site can show the application in a frame; set it to \"self\".");
    }
}

fn about_upstream(site: &Site, warn: &mut dyn FnMut(&str)) {
    for upstream in &site.upstreams {
        if let UpstreamAddress::Http { host, port } = upstream
            && !is_loopback(host)
        {
            warn(&format!(
                "upstream http://{host}:{port} is another host without TLS: passwords and cookies cross the network in \
                 the clear; use https."
            ));
        }
    }
    let is_https = |upstream: &UpstreamAddress| matches!(upstream, UpstreamAddress::Https { .. });
    if site.upstream_tls != Default::default() && !site.upstreams.iter().any(is_https) {
        warn("upstream_tls does nothing: no upstream begins with https://.");
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    bare == "localhost" || bare.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}
