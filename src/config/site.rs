//! `[[site]]` and its tables, but for login and logout.

use std::sync::Arc;
use std::time::Duration;

use crate::config::contradictions;
use crate::config::contradictions::Read;
use crate::config::general::read_limits;
use crate::config::headers::read_headers;
use crate::config::headers::read_identity;
use crate::config::login::read_login;
use crate::config::logout::read_logout;
use crate::config::rules::read_relax;
use crate::config::section::Section;
use crate::config::session::Lifetimes;
use crate::config::session::pattern;
use crate::config::session::read_csrf;
use crate::config::session::read_session;
use crate::config::value;
use crate::policy::access::AccessRules;
use crate::policy::access::AmbiguousPaths;
use crate::policy::cookie::SessionCookie;
use crate::policy::csrf::CsrfRules;
use crate::policy::glob::Glob;
use crate::policy::glob::PathPattern;
use crate::policy::path::PathCase;
use crate::policy::site::HealthCheck;
use crate::policy::site::Limits;
use crate::policy::site::Origin;
use crate::policy::site::Site;
use crate::policy::site::UpstreamAddress;
use crate::policy::site::UpstreamClient;
use crate::policy::site::UpstreamHost;
use crate::policy::site::UpstreamProtocol;
use crate::policy::site::UpstreamTls;
use crate::policy::vault::CookieMode;
use crate::policy::vault::CookieRules;

/// The tables that a site's own override.
pub(super) struct Shared {
    pub(super) session: Lifetimes,
    pub(super) csrf: CsrfRules,
    pub(super) limits: Limits,
    /// Whether clients show certificates.
    pub(super) client_ca: bool,
}

/// One site; `None` when it has no usable origin.
pub(super) fn read_site(section: &Section<'_>, shared: &Shared) -> Option<Site> {
    let origin = read_origin(section);
    let aliases = section.parsed("aliases", value::origin).unwrap_or_default();
    let upstreams = read_upstreams(section);
    let logins = rules(section.sections("login", "site.login"), read_login);
    let logouts = rules(section.sections("logout", "site.logout"), read_logout);
    let session = read_session(&section.section("session", "site.session"), &shared.session);
    let is_local = origin.as_ref().is_some_and(Origin::is_local_or_ip);
    let own_limits = section.section("limits", "site.limits");
    for key in ["connections", "connections_per_address"].into_iter().filter(|key| own_limits.has(key)) {
        let message = format!("site.limits.{key} cannot be set for one site");
        own_limits.problem(key, message, "connections are counted before the site is known: write it in [limits]");
    }
    let site = Site {
        aliases: aliases.into_iter().map(|(alias, _)| alias).collect(),
        upstreams,
        upstream_protocol: section.choice(
            "upstream_protocol",
            &[("http1", UpstreamProtocol::Http1), ("h2", UpstreamProtocol::Http2)],
            UpstreamProtocol::Http1,
        ),
        upstream_client: section.choice(
            "upstream_client",
            &[("native", UpstreamClient::Native), ("hyper", UpstreamClient::Hyper)],
            UpstreamClient::Native,
        ),
        upstream_host: read_upstream_host(section),
        upstream_tls: read_upstream_tls(&section.section("upstream_tls", "site.upstream_tls")),
        health: read_health(&section.section("health", "site.health")),
        paths: section.choice(
            "paths",
            &[("exact", PathCase::Exact), ("ignore-case", PathCase::Ignore)],
            PathCase::Exact,
        ),
        relax: read_relax(section),
        websocket_h2: section.flag("websocket_h2", true),
        login: logins.iter().filter_map(|(_, rule)| rule.clone()).collect(),
        logout: logouts.iter().filter_map(|(_, rule)| rule.clone().map(Arc::new)).collect(),
        access: read_access(&section.section("access", "site.access")),
        identity: read_identity(&section.section("identity", "site.identity"), shared.client_ca),
        cookies: read_cookies(&section.section("cookies", "site.cookies"), &session.cookie),
        headers: read_headers(&section.section("headers", "site.headers"), is_local),
        csrf: read_csrf(&section.section("csrf", "site.csrf"), &shared.csrf),
        session: session.rules,
        cookie: session.cookie,
        limits: read_limits(&own_limits, &shared.limits),
        origin: origin?,
    };
    contradictions::report(&site, &logins, &logouts);
    Some(site)
}

fn rules<'a, T>(tables: Vec<Section<'a>>, read: impl Fn(&Section<'a>) -> Option<T>) -> Vec<Read<'a, T>> {
    let pair = |table: Section<'a>| {
        let rule = read(&table);
        (table, rule)
    };
    tables.into_iter().map(pair).collect()
}

fn read_origin(section: &Section<'_>) -> Option<Origin> {
    section.require("origin");
    let found = section.text("origin")?;
    match value::origin(found.text) {
        Ok(origin) => Some(origin),
        Err((message, help)) => {
            section.reader.report(found.span, format!("site.origin: {message}"), help);
            None
        }
    }
}

fn read_upstreams(section: &Section<'_>) -> Vec<UpstreamAddress> {
    section.require("upstream");
    if section.items("upstream").is_some_and(|items| items.is_empty()) {
        section.problem("upstream", "site.upstream is empty", "write for example \"http://127.0.0.1:8000\"");
    }
    let read = |text: &str| value::upstream(text, |path| section.reader.resolve(path));
    section.parsed("upstream", read).unwrap_or_default().into_iter().map(|(upstream, _)| upstream).collect()
}

fn read_upstream_host(section: &Section<'_>) -> UpstreamHost {
    let Some(found) = section.text("upstream_host") else { return UpstreamHost::Preserve };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    match found.text {
        "preserve" => UpstreamHost::Preserve,
        "upstream" => UpstreamHost::Upstream,
        name if !name.is_empty() && name.bytes().all(is_host) => UpstreamHost::Name(name.to_owned()),
        name => {
            let help = "\"preserve\", \"upstream\" or a name such as \"app.internal\"";
            section.reader.report(found.span, format!("site.upstream_host: {name:?} is no host"), help);
            UpstreamHost::Preserve
        }
    }
}

fn read_upstream_tls(section: &Section<'_>) -> UpstreamTls {
    let certificate = section.file("client_certificate", "write the path of a PEM file");
    let key = section.file("client_key", "write the path of a PEM file");
    for (has, wants) in [("client_certificate", "client_key"), ("client_key", "client_certificate")] {
        if section.has(has) {
            section.require(wants);
        }
    }
    UpstreamTls {
        ca: section.file("ca", "write the path of a PEM file"),
        server_name: section.text("server_name").map(|name| name.text.to_owned()),
        client: certificate.zip(key),
    }
}

/// How often upstreams are checked unless it is said.
const CHECK_EVERY: Duration = Duration::from_secs(10);

fn read_health(section: &Section<'_>) -> Option<HealthCheck> {
    let interval = section.duration("interval", CHECK_EVERY, false);
    if interval < Duration::from_secs(1) {
        section.problem("interval", "site.health.interval is too short", "write at least \"1s\"");
    }
    if !section.is_present() {
        return None;
    }
    section.require("path");
    let read = |text: &str| {
        let help = "write a path, percent-encoded, such as \"/healthz\"";
        value::landing(text).or_else(|_| value::wrong(format!("{text:?} is no path to ask for"), help))
    };
    let path = section.parsed("path", read)?.pop().map(|(path, _)| path)?;
    Some(HealthCheck { path, interval })
}

fn read_access(section: &Section<'_>) -> AccessRules {
    let mut seen: Vec<(PathPattern, &str)> = Vec::new();
    let mut read = |key: &'static str| -> Vec<PathPattern> {
        let found = section.parsed(key, pattern).unwrap_or_default();
        for (pattern, span) in &found {
            let earlier = seen.iter().find(|(other, list)| other == pattern && *list != "untouched");
            if let Some((_, list)) = earlier.filter(|_| key != "untouched") {
                let message = format!("site.access.{key}: {:?} is already in {list}", pattern.glob.as_str());
                section.reader.report(span.clone(), message, "write every pattern once");
            }
            seen.push((pattern.clone(), key));
        }
        found.into_iter().map(|(pattern, _)| pattern).collect()
    };
    let (deny, protected, public) = (read("deny"), read("protected"), read("public"));
    let ambiguous = [("reject", AmbiguousPaths::Reject), ("allow", AmbiguousPaths::Allow)];
    AccessRules {
        default_public: section.choice("default", &[("authenticated", false), ("public", true)], false),
        public,
        protected,
        deny,
        untouched: read("untouched"),
        ambiguous: section.choice("ambiguous_paths", &ambiguous, AmbiguousPaths::Reject),
    }
}

fn read_cookies(section: &Section<'_>, ours: &SessionCookie) -> CookieRules {
    let mut seen: Vec<(Glob, &str)> = Vec::new();
    let mut globs = |key: &'static str| -> Vec<Glob> {
        let read = |text: &str| match text {
            "" => value::wrong("an empty name", "write the name of a cookie; \"*\" is any run of characters"),
            name if ours.is_called(name.as_bytes()) => value::wrong(
                format!("{name:?} is our own cookie"),
                "remove it: the application never sees it and cannot set it",
            ),
            name => Ok(Glob::new(name)),
        };
        let found = section.parsed(key, read).unwrap_or_default();
        for (glob, span) in &found {
            if let Some((_, list)) = seen.iter().find(|(other, _)| other == glob) {
                let message = format!("site.cookies.{key}: {:?} is already in {list}", glob.as_str());
                section.reader.report(span.clone(), message, "a cookie goes one way: write every name once");
            }
            seen.push((glob.clone(), key));
        }
        found.into_iter().map(|(glob, _)| glob).collect()
    };
    let modes = [
        ("auto", CookieMode::Auto),
        ("vault", CookieMode::Vault),
        ("harden", CookieMode::Harden),
        ("pass", CookieMode::Pass),
    ];
    CookieRules {
        vault: globs("vault"),
        relay: globs("relay"),
        drop: globs("drop"),
        mode: section.choice("mode", &modes, CookieMode::Auto),
    }
}
