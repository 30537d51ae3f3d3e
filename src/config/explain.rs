//! The effective policy in plain words.

use std::fmt::Write as _;
use std::time::Duration;

use crate::config::Config;
use crate::config::ListenAddress;
use crate::config::explain_login;
use crate::policy::access::AmbiguousPaths;
use crate::policy::binding::Bind;
use crate::policy::binding::OnMismatch;
use crate::policy::csrf::CsrfMode;
use crate::policy::glob::Glob;
use crate::policy::glob::PathPattern;
use crate::policy::site::Site;
use crate::policy::site::UpstreamAddress;
use crate::policy::vault::CookieMode;

/// A paragraph for the whole, one for each site.
pub(super) fn explain(config: &Config) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "Serves https on {}.", addresses(&config.listen.https));
    if !config.listen.http.is_empty() {
        let _ = writeln!(out, "Redirects http on {} to https.", addresses(&config.listen.http));
    }
    if config.listen.proxy_protocol {
        let trusted = join(config.listen.trusted_proxies.iter().map(ToString::to_string));
        let _ = writeln!(out, "Connections from {trusted} begin with a PROXY protocol header.");
    }
    let _ = writeln!(out, "Sessions are kept in memory and end with the process.");
    for site in &config.sites {
        let _ = writeln!(out, "\nSite {} -> {}", site.origin.to_text(), join(site.upstreams.iter().map(upstream)));
        for line in lines(site) {
            let _ = writeln!(out, "  {line}");
        }
    }
    out
}

fn lines(site: &Site) -> Vec<String> {
    let mut all = Vec::new();
    if !site.aliases.is_empty() {
        all.push(format!("{} redirect here.", join(site.aliases.iter().map(|alias| alias.to_text()))));
    }
    all.extend(site.login.iter().enumerate().flat_map(|(index, rule)| explain_login::login(index + 1, rule)));
    if site.login.is_empty() {
        all.push("No login rule: nobody can log in, so only public paths can be reached.".to_owned());
    }
    all.extend(site.logout.iter().map(|rule| explain_login::logout(rule, site.login_page())));
    all.extend(access(site));
    all.extend(session(site));
    all.push(cookies(site));
    all.push(csrf(site));
    all.extend(headers(site));
    all
}

fn access(site: &Site) -> Vec<String> {
    let rules = &site.access;
    let rest = if rules.default_public { "open to everyone" } else { "for logged-in users only" };
    let mut all = Vec::new();
    for (what, list) in [
        ("Open to everyone", &rules.public),
        ("For logged-in users only", &rules.protected),
        ("Closed for everyone", &rules.deny),
        ("Polling that is no activity", &rules.untouched),
    ] {
        if !list.is_empty() {
            all.push(format!("{what}: {}.", join(list.iter().map(pattern))));
        }
    }
    all.push(format!("Everything else is {rest}."));
    if rules.ambiguous == AmbiguousPaths::Allow {
        all.push("Ambiguous paths are forwarded, but never count as public.".to_owned());
    }
    all
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
    all.push(match rules.rotate_every {
        Some(every) => format!(
            "The ID changes every {}; the old one is accepted for {} more.",
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
        format!("A session works from any address. When the browser's name changes, {agent}.")
    } else {
        let mismatch = action(rules.binding.on_mismatch);
        format!("When the client's {place} changes, {mismatch}; when the browser's name changes, {agent}.")
    });
    let same_site = if site.cookie.strict { "Strict" } else { "Lax" };
    let kept = if site.cookie.persistent { "kept as long as the session may live" } else { "gone with the browser" };
    all.push(format!("The session cookie is {}, SameSite={same_site}, {kept}.", site.cookie.name));
    all
}

fn cookies(site: &Site) -> String {
    let mut text = match site.cookies.mode {
        CookieMode::Auto => {
            "The application's HttpOnly and well-known session cookies stay here, its others are hardened"
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
    if site.csrf.allow_unlabelled {
        text.push_str("; those that do not say where they come from pass");
    }
    if !site.csrf.exempt.is_empty() {
        let _ = write!(text, "; not for {}", join(site.csrf.exempt.iter().map(pattern)));
    }
    text + "."
}

fn headers(site: &Site) -> Vec<String> {
    let mut all = vec![format!("The application gets the user's name in {}.", site.identity.user)];
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
        all.push(format!("Adds {}.", join(headers.add.iter().map(|(name, _)| name.as_str()))));
    }
    if !headers.remove.is_empty() {
        all.push(format!("Removes {}.", join(headers.remove.iter().map(http::HeaderName::as_str))));
    }
    all
}

fn addresses(list: &[ListenAddress]) -> String {
    join(list.iter().map(ToString::to_string))
}

fn upstream(upstream: &UpstreamAddress) -> String {
    match upstream {
        UpstreamAddress::Http { host, port } => format!("http://{host}:{port}"),
        UpstreamAddress::Https { host, port } => format!("https://{host}:{port}"),
        UpstreamAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn pattern(pattern: &PathPattern) -> String {
    match &pattern.method {
        Some(method) => format!("{method} {}", pattern.glob.as_str()),
        None => pattern.glob.as_str().to_owned(),
    }
}

pub(super) fn join<T: AsRef<str>>(texts: impl Iterator<Item = T>) -> String {
    texts.fold(String::new(), |mut all, text| {
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(text.as_ref());
        all
    })
}

/// In the largest unit that divides it: `15 minutes`.
pub(super) fn time(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("day", 86_400_000), ("hour", 3_600_000), ("minute", 60_000), ("second", 1000)];
    let fits = units.into_iter().find(|(_, size)| milliseconds >= *size && milliseconds.is_multiple_of(*size));
    let (unit, size) = fits.unwrap_or(("millisecond", 1));
    let count = milliseconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
