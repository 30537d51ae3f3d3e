//! `[session]` and `[csrf]`, each also below a site.

use std::time::Duration;

use crate::config::explain::short;
use crate::config::section::Section;
use crate::config::value::Wrong;
use crate::config::value::wrong;
use crate::policy::binding::Bind;
use crate::policy::binding::BindingRules;
use crate::policy::binding::OnMismatch;
use crate::policy::cookie::SessionCookie;
use crate::policy::csrf::CsrfMode;
use crate::policy::csrf::CsrfRules;
use crate::policy::dbsc::DeviceBound;
use crate::policy::glob::PathPattern;
use crate::policy::session::SessionRules;

/// Nothing keeps a session that nobody logged in to any longer.
const ANONYMOUS_LIMIT: Duration = Duration::from_secs(2 * 60 * 60);

const COOKIE_NAME_LIMIT: usize = 128;

/// More are not counted in earnest.
const MOST_SESSIONS: u64 = 1_000_000;

/// Everything in `[session]`.
#[derive(Clone, Debug)]
pub(super) struct Lifetimes {
    pub(super) rules: SessionRules,
    pub(super) cookie: SessionCookie,
}

impl Default for Lifetimes {
    fn default() -> Self {
        let minutes = |count: u64| Duration::from_secs(count * 60);
        let binding = BindingRules {
            bind: Bind::Subnet,
            on_mismatch: OnMismatch::Reauthenticate,
            on_user_agent_change: OnMismatch::Log,
        };
        let rules = SessionRules {
            idle: minutes(30),
            absolute: minutes(8 * 60),
            anonymous: minutes(30),
            rotate_every: Some(minutes(15)),
            rotation_grace: Duration::from_secs(30),
            max_per_user: None,
            binding,
            device_bound: DeviceBound::Off,
        };
        let cookie = SessionCookie::new("__Host-session", false, true);
        Self { rules, cookie }
    }
}

/// `[session]`, or `[site.session]` over it.
pub(super) fn read_session(section: &Section<'_>, default: &Lifetimes) -> Lifetimes {
    let (rules, cookie) = (&default.rules, &default.cookie);
    let on_change =
        [("reauthenticate", OnMismatch::Reauthenticate), ("log", OnMismatch::Log), ("revoke", OnMismatch::Revoke)];
    let binds = [("subnet", Bind::Subnet), ("exact", Bind::Exact), ("off", Bind::Off)];
    let binding = BindingRules {
        bind: section.choice("bind", &binds, rules.binding.bind),
        on_mismatch: section.choice("on_mismatch", &on_change, rules.binding.on_mismatch),
        on_user_agent_change: section.choice("on_user_agent_change", &on_change, rules.binding.on_user_agent_change),
    };
    let devices = [("off", DeviceBound::Off), ("prefer", DeviceBound::Prefer), ("require", DeviceBound::Require)];
    let read = SessionRules {
        idle: section.duration("idle_timeout", rules.idle, false),
        absolute: section.duration("absolute_timeout", rules.absolute, false),
        anonymous: section.duration("anonymous_timeout", rules.anonymous, false),
        rotate_every: section.duration_or_off("rotate_every", rules.rotate_every),
        rotation_grace: section.duration("rotation_grace", rules.rotation_grace, true),
        max_per_user: section.number("max_per_user", 1..=MOST_SESSIONS).or(rules.max_per_user),
        binding,
        device_bound: section.choice("device_bound", &devices, rules.device_bound),
    };
    report_contradictions(section, &read);
    let name = read_cookie_name(section);
    let strict = section.choice("same_site", &[("lax", false), ("strict", true)], cookie.strict);
    let persistent = section.flag("persistent", cookie.persistent);
    let cookie = SessionCookie::new(name.as_deref().unwrap_or_else(|| cookie.name()), strict, persistent);
    Lifetimes { rules: read, cookie }
}

fn report_contradictions(section: &Section<'_>, rules: &SessionRules) {
    let first = |keys: [&'static str; 2]| keys.into_iter().find(|key| section.has(key));
    if let Some(key) = first(["idle_timeout", "absolute_timeout"])
        && rules.idle > rules.absolute
    {
        let message =
            format!("idle_timeout ({}) is longer than absolute_timeout ({})", short(rules.idle), short(rules.absolute));
        let help = "a session cannot idle longer than it lives: lower idle_timeout or raise absolute_timeout";
        section.problem(key, message, help);
    }
    if let Some(key) = first(["rotation_grace", "rotate_every"])
        && let Some(every) = rules.rotate_every
        && rules.rotation_grace >= every
    {
        let message = format!(
            "rotation_grace ({}) is not shorter than rotate_every ({})",
            short(rules.rotation_grace),
            short(every)
        );
        let help = "an old ID must be gone before the next one comes: lower rotation_grace or raise rotate_every";
        section.problem(key, message, help);
    }
    if section.has("anonymous_timeout") && rules.anonymous > ANONYMOUS_LIMIT {
        let help = "nobody has logged in to such a session: write at most \"2h\"";
        section.problem("anonymous_timeout", "anonymous_timeout is longer than 2h", help);
    }
}

fn read_cookie_name(section: &Section<'_>) -> Option<String> {
    let found = section.text("cookie")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let help = "write for example \"__Host-session\"";
    let (message, help) = match found.text.strip_prefix("__Host-") {
        None => (
            "session.cookie must begin with \"__Host-\"",
            "browsers then keep it to this host and to TLS: write for example \"__Host-session\"",
        ),
        Some("") => ("session.cookie has nothing behind \"__Host-\"", help),
        Some(rest) if !rest.bytes().all(is_token) => {
            ("session.cookie has a character that a cookie's name cannot have", help)
        }
        Some(_) if found.text.len() > COOKIE_NAME_LIMIT => ("session.cookie is too long", "at most 128 bytes"),
        Some(_) => return Some(found.text.to_owned()),
    };
    section.reader.report(found.span, message, help);
    None
}

/// What holds without `[csrf]`.
pub(super) fn csrf_defaults() -> CsrfRules {
    CsrfRules { mode: CsrfMode::Enforce, allow_unlabelled: false, exempt: Vec::new(), isolation: false }
}

/// `[csrf]`, or `[site.csrf]` over it.
pub(super) fn read_csrf(section: &Section<'_>, default: &CsrfRules) -> CsrfRules {
    let modes = [("enforce", CsrfMode::Enforce), ("report", CsrfMode::Report), ("off", CsrfMode::Off)];
    let exempt = section.parsed("exempt", exempt);
    CsrfRules {
        mode: section.choice("mode", &modes, default.mode),
        allow_unlabelled: section.choice("unlabelled", &[("refuse", false), ("allow", true)], default.allow_unlabelled),
        exempt: exempt
            .map_or_else(|| default.exempt.clone(), |all| all.into_iter().map(|(pattern, _)| pattern).collect()),
        isolation: section.flag("isolation", default.isolation),
    }
}

fn exempt(text: &str) -> Result<PathPattern, Wrong> {
    let help = "write a path, optionally with a method in front: \"POST /hook\"";
    let pattern = pattern(text)?;
    let glob = pattern.glob.as_str();
    match glob.strip_suffix("/*").unwrap_or(glob) {
        "" | "*" => wrong("this would switch the filter off everywhere", "for that, write mode = \"off\""),
        rest if rest.contains('*') => wrong(format!("{text:?} has a \"*\" elsewhere than in a final \"/*\""), help),
        _ => Ok(pattern),
    }
}

/// A path pattern with its remedy.
pub(super) fn pattern(text: &str) -> Result<PathPattern, Wrong> {
    PathPattern::parse(text).or_else(|error| {
        wrong(
            format!("{text:?}: {error}"),
            "write a path glob, optionally with a method in front: \"/static/*\", \"OPTIONS /api/*\"",
        )
    })
}
