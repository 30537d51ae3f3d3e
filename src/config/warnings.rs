//! What deviates from the recommended values (S194).

use std::time::Duration;

use crate::config::Config;
use crate::policy::access::AmbiguousPaths;
use crate::policy::binding::Bind;
use crate::policy::binding::OnMismatch;
use crate::policy::csrf::CsrfMode;
use crate::policy::login::UserSource;
use crate::policy::site::Site;
use crate::policy::site::UpstreamAddress;
use crate::policy::vault::CookieMode;
use crate::store::StoreSettings;

const LONG_IDLE: Duration = Duration::from_secs(60 * 60);
const LONG_ABSOLUTE: Duration = Duration::from_secs(24 * 60 * 60);

/// One sentence each, with key and remedy.
pub(super) fn warnings(config: &Config) -> Vec<String> {
    let mut all = Vec::new();
    match config.store {
        StoreSettings::Memory => all.push(
            "store.url is \"memory:\": sessions end when the process ends; plan restarts for quiet hours.".to_owned(),
        ),
    }
    for network in config.listen.trusted_proxies.iter().filter(|network| network.prefix_len() == 0) {
        all.push(format!(
            "listen.trusted_proxies has {network}: anyone can claim any address; name only your own proxies."
        ));
    }
    for site in &config.sites {
        let name = site.origin.to_text();
        let mut warn = |text: String| all.push(format!("{name}: {text}"));
        about_session(site, &mut warn);
        about_logins(site, &mut warn);
        about_access(site, &mut warn);
        about_messages(site, &mut warn);
        about_upstream(site, &mut warn);
    }
    all
}

fn about_session(site: &Site, warn: &mut dyn FnMut(String)) {
    let session = &site.session;
    if session.idle > LONG_IDLE {
        warn("session.idle_timeout is longer than an hour: lower it to \"30m\".".to_owned());
    }
    if session.absolute > LONG_ABSOLUTE {
        warn("session.absolute_timeout is longer than a day: lower it to \"8h\".".to_owned());
    }
    if session.rotate_every.is_none() {
        warn("session.rotate_every is off: a copied ID is never found out; set it to \"15m\".".to_owned());
    }
    if session.binding.bind == Bind::Off {
        warn("session.bind is off: a stolen ID works from anywhere; set it to \"subnet\".".to_owned());
    }
    if session.binding.on_mismatch == OnMismatch::Log {
        let text = "session.on_mismatch only logs: a stolen ID works from anywhere; set it to \"reauthenticate\".";
        warn(text.to_owned());
    }
}

fn about_logins(site: &Site, warn: &mut dyn FnMut(String)) {
    for (index, rule) in site.login.iter().enumerate() {
        let number = index + 1;
        if rule.user.iter().any(|source| matches!(source, UserSource::Fixed(_))) {
            warn(format!(
                "login.user of rule {number} has a fixed name: all users are one; use it only if the application has \
                 no user names."
            ));
        }
        let verify = rule.verify.as_ref().map(|verify| &verify.criteria);
        for criteria in [&rule.failure, &rule.success].into_iter().flatten().chain(verify) {
            let locations = criteria.location.iter().chain(&criteria.location_not);
            for glob in locations.map(|location| location.glob.as_str()).filter(|glob| looks_for_a_query(glob)) {
                warn(format!(
                    "login rule {number} has the location {glob:?}: without a ? it is compared with the path alone; \
                     write the ? of the query, as in \"*?{}\".",
                    glob.trim_start_matches('*')
                ));
            }
        }
    }
}

fn looks_for_a_query(glob: &str) -> bool {
    glob.contains('=') && !glob.contains('?')
}

fn about_access(site: &Site, warn: &mut dyn FnMut(String)) {
    let access = &site.access;
    if access.default_public {
        let text = "access.default is \"public\": what no list names is open; set it to \"authenticated\" and list \
                    what is public.";
        warn(text.to_owned());
    }
    for pattern in access.public.iter().filter(|pattern| matches!(pattern.glob.as_str(), "/*" | "*")) {
        let glob = pattern.glob.as_str();
        warn(format!("access.public has {glob:?}: every path is open; list what is public instead."));
    }
    if access.ambiguous == AmbiguousPaths::Allow {
        let text = "access.ambiguous_paths is \"allow\": the application may read a path differently than it was \
                    judged; set it to \"reject\".";
        warn(text.to_owned());
    }
}

fn about_messages(site: &Site, warn: &mut dyn FnMut(String)) {
    if site.csrf.mode != CsrfMode::Enforce {
        warn("csrf.mode is not \"enforce\": other sites can act in a user's name; set it to \"enforce\".".to_owned());
    }
    if site.csrf.allow_unlabelled {
        let text = "csrf.unlabelled is \"allow\": requests that do not say where they come from pass; set it to \
                    \"refuse\".";
        warn(text.to_owned());
    }
    for pattern in site.csrf.exempt.iter().filter(|pattern| pattern.glob.as_str().ends_with("/*")) {
        let glob = pattern.glob.as_str();
        warn(format!("csrf.exempt has {glob:?}: whole folders are open to other sites; name single paths."));
    }
    if site.headers.hsts.is_none() && !site.origin.is_local_or_ip() {
        warn("headers.hsts is off: the first request can be made in the clear; set it to \"2y\".".to_owned());
    }
    if site.cookies.mode == CookieMode::Pass {
        let text =
            "cookies.mode is \"pass\": the application's cookies reach browsers as they are; set it to \"auto\".";
        warn(text.to_owned());
    }
}

fn about_upstream(site: &Site, warn: &mut dyn FnMut(String)) {
    for upstream in &site.upstreams {
        if let UpstreamAddress::Http { host, port } = upstream
            && !is_loopback(host)
        {
            warn(format!(
                "upstream http://{host}:{port} is another host without TLS: passwords and cookies cross the network in \
                 the clear; use https."
            ));
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse::<std::net::IpAddr>();
    bare == "localhost" || bare.ends_with(".localhost") || address.is_ok_and(|address| address.is_loopback())
}
