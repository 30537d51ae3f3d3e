//! `[store]`: where sessions are kept.

use std::path::PathBuf;

use crate::config::section::Section;
use crate::config::section::Text;
use crate::config::value::Wrong;
use crate::config::value::wrong;
use crate::policy::path::decoded;
use crate::secret::Secret;
use crate::store::StoreSettings;
use crate::store::redis::settings::Form;
use crate::store::redis::settings::RedisSettings;
use crate::store::redis::settings::ServerAddress;

/// What all keys in Redis begin with, unless it is said.
const PREFIX: &str = "vestibule";

/// Where sessions are kept, and what they are sealed with.
pub(super) fn read_store(section: &Section<'_>) -> (StoreSettings, Vec<Secret>) {
    let url = section.text("url");
    let settings = match &url {
        None => StoreSettings::File(None),
        Some(found) => read_url(section, found.clone()),
    };
    if !matches!(settings, StoreSettings::Redis(_)) {
        for key in ["password", "ca"].into_iter().filter(|key| section.has(key)) {
            section.problem(key, format!("store.{key} is only for Redis"), "remove it, or set store.url");
        }
    }
    let keys = read_keys(section);
    if settings == StoreSettings::Memory && url.is_some_and(|found| found.text == "memory:") && section.has("key") {
        let message = "store.key is for what is kept outside the process";
        section.problem("key", message, "remove it, or set store.url to a file or to Redis");
    }
    (settings, keys)
}

fn read_keys(section: &Section<'_>) -> Vec<Secret> {
    let Some(found) = section.texts("key") else { return Vec::new() };
    let help = "write key = \"env:NAME\" or key = \"file:PATH\"; a good one comes from: openssl rand -base64 32";
    if found.is_empty() {
        section.problem("key", "store.key names no key", help);
    }
    let mut keys = Vec::with_capacity(found.len());
    for Text { text, span } in found {
        match secret(text, |path| section.reader.resolve(path)) {
            Some(key) => keys.push(key),
            None => section.reader.report_hidden(span, "store.key must not stand in the file", help),
        }
    }
    keys
}

fn read_url(section: &Section<'_>, found: Text<'_>) -> StoreSettings {
    let Text { text, span } = found;
    if text == "memory:" {
        return StoreSettings::Memory;
    }
    if let Some(path) = text.strip_prefix("file:").filter(|path| !path.is_empty()) {
        return StoreSettings::File(Some(section.reader.resolve(path)));
    }
    let read = parse(text, |path| section.reader.resolve(path));
    match read {
        Ok(settings) => complete(section, settings, span),
        Err((message, help)) => {
            // What is wrong may be a password.
            section.reader.report_hidden(span, format!("store.url: {message}"), help);
            StoreSettings::Memory
        }
    }
}

/// The keys beside the URL.
fn complete(section: &Section<'_>, url: RedisSettings, span: std::ops::Range<usize>) -> StoreSettings {
    let is_written = url.password.is_some();
    let password = section.text("password").and_then(|found| {
        let secret = secret(found.text, |path| section.reader.resolve(path));
        if secret.is_none() {
            let help = "write password = \"env:NAME\" or password = \"file:PATH\"";
            section.reader.report_hidden(found.span, "store.password must not stand in the file", help);
        } else if is_written {
            let help = "take it out of the URL";
            section.reader.report(found.span, "there is a password in store.url, and store.password", help);
        }
        secret
    });
    let ca = section.file("ca", "name a PEM file with the authorities that the servers' certificates are from");
    if ca.is_some() && !url.tls {
        section.problem("ca", "store.ca is for TLS", "write rediss:// instead of redis:// in store.url, or remove it");
    }
    let prefix = section.text("prefix").map_or(PREFIX, |found| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
        if found.text.is_empty() || found.text.len() > 64 || !found.text.bytes().all(is_plain) {
            let help = format!("write letters, digits, \"-\", \"_\", \".\" and \":\", such as prefix = {PREFIX:?}");
            section.reader.report(found.span, format!("store.prefix cannot be {:?}", found.text), help);
        }
        found.text
    });
    let allow_plaintext = section.flag("allow_plaintext", false);
    let url = RedisSettings { allow_plaintext, ..url };
    if let Some(server) = url.servers.iter().find(|server| !url.may_speak_to(server)) {
        let message =
            format!("store.url: {server} would be spoken to without TLS, so that anyone on the way reads along");
        let help = "write rediss:// (with store.ca for authorities of your own), or allow_plaintext = true";
        section.reader.report_hidden(span, message, help);
    }
    let password = password.or(url.password);
    StoreSettings::Redis(RedisSettings { password, ca, prefix: prefix.to_owned(), ..url })
}

pub(super) fn secret(text: &str, resolve: impl Fn(&str) -> PathBuf) -> Option<Secret> {
    match text.split_once(':') {
        Some(("env", name)) if !name.is_empty() => Some(Secret::Environment(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(Secret::File(resolve(path))),
        Some(_) | None => None,
    }
}

/// `redis://[user[:password]@]host[:port][/database]` and what is like it. Never repeats the text.
fn parse(text: &str, resolve: impl Fn(&str) -> PathBuf) -> Result<RedisSettings, Wrong> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let help = "write \"file:PATH\" for a durable file, \"rediss://HOST\" for Redis, or \"memory:\"";
        return wrong("this is no place where sessions can be kept", help);
    };
    // Valkey's own names for the same.
    let plain = scheme.replacen("valkey", "redis", 1);
    let (base, form) = plain.split_once('+').map_or((plain.as_str(), ""), |(base, form)| (base, form));
    let tls = match base {
        "redis" => false,
        "rediss" => true,
        _ => return wrong(format!("{scheme:?} is no scheme that is known"), SCHEMES),
    };
    let (who, rest) = match rest.rsplit_once('@') {
        Some((who, rest)) => (Some(who), rest),
        None => (None, rest),
    };
    let (user, password) =
        match who.map(|who| who.split_once(':').map_or((who, None), |(user, word)| (user, Some(word)))) {
            Some((user, password)) => ((!user.is_empty()).then(|| decoded(user)), password.map(decoded)),
            None => (None, None),
        };
    let (form, servers, database) = where_to(scheme, form, tls, rest, resolve)?;
    Ok(RedisSettings {
        form,
        servers,
        tls,
        allow_plaintext: false,
        ca: None,
        user,
        password: password.map(Secret::Written),
        database,
        prefix: PREFIX.to_owned(),
    })
}

/// What stands behind the user: hosts, and what the form wants after them.
fn where_to(
    scheme: &str,
    form: &str,
    tls: bool,
    rest: &str,
    resolve: impl Fn(&str) -> PathBuf,
) -> Result<(Form, Vec<ServerAddress>, u32), Wrong> {
    if form == "unix" && !tls {
        if rest.is_empty() || rest.contains('?') {
            return wrong(
                "there should be the path of a socket, and nothing else",
                "write \"redis+unix:///run/redis/redis.sock\"",
            );
        }
        return Ok((Form::Single, vec![ServerAddress::Unix(resolve(&decoded(rest)))], 0));
    }
    let (places, path) = rest.split_once('/').unwrap_or((rest, ""));
    let port = if form == "sentinel" { 26379 } else { 6379 };
    let servers = places.split(',').map(|place| server(place, port)).collect::<Result<Vec<_>, _>>()?;
    let number = |text: &str| match text {
        "" => Ok(0),
        text => {
            text.parse().or_else(|_| wrong("the database behind the \"/\" is no number", "write for example \"/0\""))
        }
    };
    let (first, second) = path.split_once('/').unwrap_or((path, ""));
    match form {
        "" if servers.len() > 1 => wrong("several servers need a form", SCHEMES),
        "" if path.contains('/') => wrong("there is too much behind the host", SCHEMES),
        "" => Ok((Form::Single, servers, number(path)?)),
        "cluster" if path.is_empty() => Ok((Form::Cluster, servers, 0)),
        "cluster" => wrong("a cluster has one database only", "remove what follows the last host"),
        "sentinel" if first.is_empty() => {
            wrong("the name of the master is missing", "write \"redis+sentinel://HOST1,HOST2/MASTER\"")
        }
        "sentinel" => Ok((Form::Sentinel { master: decoded(first) }, servers, number(second)?)),
        _ => wrong(format!("{scheme:?} is no scheme that is known"), SCHEMES),
    }
}

const SCHEMES: &str = "write for example \"rediss://HOST\", \"redis+unix:///PATH\", \"rediss+sentinel://HOST1,HOST2/MASTER\" or \
     \"rediss+cluster://HOST1,HOST2\" (with redis: instead of rediss: for servers without TLS)";

fn server(place: &str, port: u16) -> Result<ServerAddress, Wrong> {
    let bad = || wrong("there is a host that is none", "write host or host:port, and an IPv6 address in [brackets]");
    let (host, given) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, rest)) => match rest.strip_prefix(':') {
            Some(given) => (host, Some(given)),
            None => return bad(),
        },
        None => place.split_once(':').map_or((place, None), |(host, given)| (host, Some(given))),
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let port = given.map_or(Some(port), |given| given.parse().ok().filter(|port| *port > 0));
    match port {
        Some(port) if !host.is_empty() && host.bytes().all(is_name) => {
            Ok(ServerAddress::Tcp { host: host.to_ascii_lowercase(), port })
        }
        Some(_) | None => bad(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::redundant_closure)] // It is not general enough.
    fn read(text: &str) -> Result<RedisSettings, Wrong> {
        parse(text, |path| PathBuf::from(path))
    }

    fn at(host: &str, port: u16) -> ServerAddress {
        ServerAddress::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn urls_name_servers_in_every_form() {
        for (text, tls, form, servers, database) in [
            ("redis://localhost", false, Form::Single, vec![at("localhost", 6379)], 0),
            ("rediss://Redis.internal:6380/3", true, Form::Single, vec![at("redis.internal", 6380)], 3),
            ("valkeys://[::1]:1", true, Form::Single, vec![at("::1", 1)], 0),
            ("redis+unix:///run/r.sock", false, Form::Single, vec![ServerAddress::Unix("/run/r.sock".into())], 0),
            ("rediss+cluster://a,b:7000", true, Form::Cluster, vec![at("a", 6379), at("b", 7000)], 0),
            (
                "redis+sentinel://a,b:5/main/2",
                false,
                Form::Sentinel { master: "main".to_owned() },
                vec![at("a", 26379), at("b", 5)],
                2,
            ),
        ] {
            let found = read(text).unwrap();
            assert_eq!(
                (found.tls, found.form, found.servers, found.database),
                (tls, form, servers, database),
                "{text}"
            );
            assert_eq!((found.user, found.password), (None, None), "{text}");
        }
    }

    #[test]
    fn a_password_may_be_in_the_url_and_is_never_repeated() {
        // S181
        let found = read("rediss://me:p%40ss@host").unwrap();
        assert_eq!((found.user.as_deref(), &found.password), (Some("me"), &Some(Secret::Written("p@ss".to_owned()))));
        assert!(!format!("{found:?}").contains("p@ss"));
        assert_eq!(read("redis://:word@host").unwrap().user, None);
        for text in ["redis://u:hunter2@", "redis://u:hunter2@a b", "redisss://u:hunter2@h", "redis://u:hunter2@h/x"] {
            let (message, help) = read(text).unwrap_err();
            assert!(!message.contains("hunter2") && !help.contains("hunter2"), "{message} {help}");
        }
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "disk",
            "redis://",
            "redis://a,b",
            "redis://a:0",
            "redis://a:x",
            "redis://a/b",
            "redis://a/1/2",
            "redis+x://a",
            "redis+sentinel://a",
            "redis+sentinel://a/",
            "redis+cluster://a/1",
            "redis+unix://",
            "http://a",
            "rediss+unix:///s",
            "redis://[::1",
            "redis://[::1]x",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
