//! What holds for one site.

use std::fmt::Write as _;

use crate::config::Config;
use crate::config::ListenAddress;
use crate::config::explain::login;
use crate::config::explain::words::join;
use crate::config::explain::words::size;
use crate::config::explain::words::time;
use crate::config::explain::words::title;
use crate::policy::access::AmbiguousPaths;
use crate::policy::binding::Bind;
use crate::policy::binding::OnMismatch;
use crate::policy::csrf::CsrfMode;
use crate::policy::dbsc::DeviceBound;
use crate::policy::glob::Glob;
use crate::policy::glob::PathPattern;
use crate::policy::path::PathCase;
use crate::policy::relax::Relaxing;
use crate::policy::site::HealthCheck;
use crate::policy::site::Limits;
use crate::policy::site::Site;
use crate::policy::site::UpstreamHost;
use crate::policy::site::UpstreamProtocol;
use crate::policy::vault::CookieMode;

pub(super) fn lines(config: &Config, site: &Site) -> Vec<String> {
    let mut all = Vec::new();
    all.extend(unserved(config, site));
    if !site.aliases.is_empty() {
        all.push(format!("{} redirects here.", join(site.aliases.iter().map(|alias| alias.to_text()))));
    }
    all.extend(upstream(site));
    all.extend(site.login.iter().enumerate().flat_map(|(index, rule)| login::login(index + 1, rule)));
    all.extend(site.logout.iter().flat_map(|rule| login::logout(rule, site.login_page())));
    all.extend(access(site));
    all.extend(relaxed(site));
    all.extend(session(site));
    all.push(cookies(site));
    all.push(csrf(site));
    all.extend(headers(site));
    if site.limits != config.limits {
        all.push(limits(&site.limits));
    }
    all
}

/// The commonest slip of a first try: browsers are told a port on which nobody listens.
fn unserved(config: &Config, site: &Site) -> Option<String> {
    let mut tcp = config.listen.https.iter().filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    });
    let port = site.origin.port;
    let is_served = tcp.any(|listening| listening == port || listening == 0);
    (!is_served).then(|| {
        format!("Browsers ask for it on port {port}, where listen.https is not: something has to forward that port.")
    })
}

fn upstream(site: &Site) -> Vec<String> {
    let mut all = Vec::new();
    if site.upstreams.len() > 1 {
        all.push(
            "Each request goes to the least busy upstream: they must share the application's sessions.".to_owned(),
        );
    }
    match site.upstream_protocol {
        UpstreamProtocol::Http1 => {}
        UpstreamProtocol::Http2 => all.push(
            "The application is spoken to by HTTP/2, with trailers, as gRPC wants it; WebSockets by HTTP/1.1."
                .to_owned(),
        ),
    }
    match &site.upstream_host {
        UpstreamHost::Preserve => {}
        UpstreamHost::Upstream => all.push("The application is asked by the host name of its own URL.".to_owned()),
        UpstreamHost::Name(name) => all.push(format!("The application is asked by the host name {name}.")),
    }
    if let Some(HealthCheck { path, interval }) = &site.health {
        all.push(format!("Its health is checked every {} by a GET of {path}.", time(*interval)));
    }
    let tls = &site.upstream_tls;
    if let Some(ca) = &tls.ca {
        all.push(format!("Its certificate must come from {}.", ca.display()));
    }
    if let Some(name) = &tls.server_name {
        all.push(format!("Its certificate must name {name}."));
    }
    if let Some((certificate, _)) = &tls.client {
        all.push(format!("It is shown the client certificate {}.", certificate.display()));
    }
    if site.paths == PathCase::Ignore {
        all.push("Paths are compared ignoring case.".to_owned());
    }
    if !site.websocket_h2 {
        all.push("WebSockets are offered over HTTP/1.1 only.".to_owned());
    }
    all
}

fn access(site: &Site) -> Vec<String> {
    let rules = &site.access;
    let mut all = Vec::new();
    for (what, list) in [
        ("Open to everyone", &rules.public),
        ("For logged-in users only", &rules.protected),
        ("Closed for everyone", &rules.deny),
        ("Polling that is no activity", &rules.untouched),
    ] {
        if !list.is_empty() {
            all.push(format!("{what}: {}.", join(list.iter().map(PathPattern::to_string))));
        }
    }
    let rest = if rules.default_public { "open to everyone" } else { "for logged-in users only" };
    all.push(format!("Everything else is {rest}."));
    if rules.ambiguous == AmbiguousPaths::Allow {
        all.push("Ambiguous paths are forwarded, but never count as public.".to_owned());
    }
    all
}

fn relaxed(site: &Site) -> Option<String> {
    let passes = site.relax.rules().filter_map(|rule| match rule.relaxing() {
        Relaxing::Can { passes, .. } => Some(format!("{passes} ({})", rule.name())),
        Relaxing::Raise(_) | Relaxing::Never(_) => None,
    });
    let passes: Vec<String> = passes.collect();
    (!passes.is_empty()).then(|| format!("Refused or dropped elsewhere, but not here: {}.", passes.join("; ")))
}

fn session(site: &Site) -> Vec<String> {
    let rules = &site.session;
    let mut all = vec![format!(
        "A session ends after {} without activity, and {} after the login in any case; before the login, after {} \
         without activity.",
        time(rules.idle),
        time(rules.absolute),
        time(rules.anonymous)
    )];
    if let Some(most) = rules.max_per_user {
        let sessions = if most == 1 { "1 session".to_owned() } else { format!("{most} sessions") };
        all.push(format!("A user has at most {sessions}; the oldest ends at the next login."));
    }
    all.push(match rules.rotate_every {
        Some(every) => format!(
            "The ID changes every {}; the old one is accepted for {} more, and ends the session if it comes later.",
            time(every),
            time(rules.rotation_grace)
        ),
        None => "The ID only changes at the login.".to_owned(),
    });
    let action = |action: OnMismatch| match action {
        OnMismatch::Reauthenticate => "the user has to log in again",
        OnMismatch::Log => "it is logged",
        OnMismatch::Revoke => "the session is ended",
    };
    let place = match rules.binding.bind {
        Bind::Subnet => "network (/24 or /64)",
        Bind::Exact => "address",
        Bind::Off => "",
    };
    let agent = action(rules.binding.on_user_agent_change);
    all.push(if place.is_empty() {
        format!("A session works from any address. When the browser's User-Agent changes, {agent}.")
    } else {
        let mismatch = action(rules.binding.on_mismatch);
        format!("When the client's {place} changes, {mismatch}; when the browser's User-Agent changes, {agent}.")
    });
    all.push(
        match rules.device_bound {
            DeviceBound::Off => {
                "A copied cookie works on other devices. device_bound = \"prefer\" is recommended: browsers that can then prove \
                 which device they are."
            }
            DeviceBound::Prefer => "In browsers that can, a session only works on the device that it began on.",
            DeviceBound::Require => {
                "A session only works on the device that it began on; browsers that cannot prove it are logged out after a minute."
            }
        }
        .to_owned(),
    );
    let same_site = if site.cookie.strict { "Strict" } else { "Lax" };
    let kept = if site.cookie.persistent { "kept as long as the session may live" } else { "gone with the browser" };
    all.push(format!("The session cookie is {}, SameSite={same_site}, {kept}.", site.cookie.name()));
    all
}

fn cookies(site: &Site) -> String {
    let mut text = match site.cookies.mode {
        CookieMode::Auto => {
            "The application's HttpOnly and well-known session cookies stay here, its others go to the browser, hardened"
        }
        CookieMode::Vault => "The application's cookies stay here",
        CookieMode::Harden => "The application's cookies go to the browser, hardened",
        CookieMode::Pass => "The application's cookies go to the browser as they are",
    }
    .to_owned();
    for (what, list) in [
        ("kept here", &site.cookies.vault),
        ("sent to the browser", &site.cookies.relay),
        ("dropped", &site.cookies.drop),
    ] {
        if !list.is_empty() {
            let _ = write!(text, "; always {what}: {}", join(list.iter().map(Glob::as_str)));
        }
    }
    text + "."
}

fn csrf(site: &Site) -> String {
    let mut text = match site.csrf.mode {
        CsrfMode::Enforce => "Cross-site requests that could change something are refused",
        CsrfMode::Report => "Cross-site requests are only logged",
        CsrfMode::Off => "Cross-site requests are not looked for",
    }
    .to_owned();
    if site.csrf.isolation && site.csrf.mode != CsrfMode::Off {
        text.push_str("; so is what pages of other sites load that is not public");
    }
    if site.csrf.allow_unlabelled {
        text.push_str("; those that do not say where they come from pass");
    }
    if !site.csrf.exempt.is_empty() {
        let _ = write!(text, "; not for {}", join(site.csrf.exempt.iter().map(PathPattern::to_string)));
    }
    text + "."
}

fn headers(site: &Site) -> Vec<String> {
    let identity = &site.identity;
    let certificate = match &identity.client_certificate {
        Some(name) if name == "client-cert" => "the client's certificate",
        Some(_) | None => "the name in the client's certificate",
    };
    let further = [
        ("the session's public handle", &identity.session_ref),
        ("the time of the login", &identity.auth_time),
        (certificate, &identity.client_certificate),
    ];
    let further: Vec<_> = further
        .into_iter()
        .filter_map(|(what, name)| name.as_ref().map(|name| format!(", {what} in {}", title(name))))
        .collect();
    let mut all =
        vec![format!("The application gets the user's name in {}{}.", title(&identity.user), further.concat())];
    if let Some(rules) = &identity.assertion {
        let place = match &rules.keys {
            Some(directory) => format!("in {}", directory.display()),
            None => "beside the session store".to_owned(),
        };
        all.push(format!(
            "It gets a signed statement about the user in {}, which holds for {}; its keys are {place}, and published at \
             {}/.vestibule/jwks.json.",
            title(&rules.header),
            time(rules.lifetime),
            site.origin.to_text()
        ));
    }
    let shown = |value: &Option<http::HeaderValue>| match value {
        Some(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        None => "none".to_owned(),
    };
    let headers = &site.headers;
    all.push(format!(
        "Strict-Transport-Security: {}. Content-Security-Policy, where the application sets none: {}.",
        shown(&headers.hsts),
        shown(&headers.frame_ancestors)
    ));
    if !headers.add.is_empty() {
        all.push(format!("Adds {} to responses that lack it.", join(headers.add.iter().map(|(name, _)| title(name)))));
    }
    if !headers.remove.is_empty() {
        all.push(format!("Removes {} from responses.", join(headers.remove.iter().map(title))));
    }
    all
}

pub(super) fn limits(limits: &Limits) -> String {
    let bytes = |bytes: usize| size(u64::try_from(bytes).unwrap_or(u64::MAX));
    let body =
        limits.body.map_or_else(|| "a body of any size".to_owned(), |bytes| format!("a body of {}", size(bytes)));
    format!(
        "A request has at most {} header fields in {}, a target of {} and {body}.",
        limits.header_count,
        bytes(limits.header_bytes),
        bytes(limits.uri)
    )
}
