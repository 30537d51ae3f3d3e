//! Texts of the file that mean something: durations, sizes, origins, upstreams.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;
use toml::de::DeInteger;
use toml::de::DeValue;
use url::Url;

use crate::config::ListenAddress;
use crate::policy::site::Origin;
use crate::policy::site::UpstreamAddress;
use crate::policy::throttle;
use crate::policy::throttle::Limit;

/// What is wrong, and what to write.
pub(super) type Wrong = (String, String);

pub(super) fn wrong<T>(message: impl Into<String>, help: impl Into<String>) -> Result<T, Wrong> {
    Err((message.into(), help.into()))
}

/// Nothing is configured to take longer than a century.
const LONGEST: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `"15m"`, `"1h30m"`; units `ms`, `s`, `m`, `h`, `d`, `w`, `y` (365 days).
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let length = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..length] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            "d" => 24 * 60 * 60 * 1000,
            "w" => 7 * 24 * 60 * 60 * 1000,
            "y" => 365 * 24 * 60 * 60 * 1000,
            _ => return None,
        };
        total = total.checked_add(number.checked_mul(unit)?)?;
        rest = &rest[length..];
    }
    (total <= LONGEST).then(|| Duration::from_millis(total))
}

/// What to write instead of something that is no duration.
pub(super) fn duration_help(text: &str) -> String {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" | "m" => "m",
        "hr" | "hrs" | "hour" | "hours" | "h" => "h",
        "day" | "days" | "d" => "d",
        _ => "",
    };
    match (&text[..digits], unit) {
        ("", _) => "write a number and a unit: \"500ms\", \"30s\", \"15m\", \"8h\", \"2d\"".to_owned(),
        (number, "") => {
            format!("write a number and a unit: \"{number}s\", \"{number}m\", \"{number}h\" or \"{number}d\"")
        }
        (number, unit) => format!("did you mean \"{number}{unit}\"?"),
    }
}

/// `"5 in 15m"`
pub(super) fn limit(text: &str) -> Result<Limit, Wrong> {
    let example = "write how many in how long, such as \"5 in 15m\", or \"off\"";
    let Some((count, window)) = text.split_once(" in ") else {
        return wrong(format!("is no limit: {text:?}"), example);
    };
    let Ok(count) = count.trim().parse::<u32>() else { return wrong(format!("is no limit: {text:?}"), example) };
    let Some(window) = duration(window) else {
        return wrong(format!("has no duration behind \"in\": {text:?}"), duration_help(window));
    };
    if !(1..=throttle::MOST).contains(&count) {
        return wrong("counts too few or too many", format!("from 1 to {}, or \"off\"", throttle::MOST));
    }
    if !(Duration::from_secs(1)..=DAY).contains(&window) {
        return wrong("counts in too short or too long a time", "from \"1s\" to \"1d\", or \"off\"");
    }
    Ok(Limit { count, window })
}

/// What to write instead of something that is no size.
pub(super) fn size_help(text: &str) -> String {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let unit = match text[digits..].trim().to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        _ => "",
    };
    match (&text[..digits], unit) {
        ("", _) | (_, "") => "write a number of bytes, or for example \"64KiB\", \"10MiB\", \"1GiB\"".to_owned(),
        (number, unit) => format!("did you mean \"{number}{unit}\"?"),
    }
}

/// `"64KiB"`, `"10MiB"`, `"512"`.
pub(super) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

pub(super) fn integer(number: &DeInteger<'_>) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

/// The same value in JSON; dates become text.
pub(super) fn json(value: &DeValue<'_>) -> serde_json::Value {
    match value {
        DeValue::String(text) => serde_json::Value::from(text.as_ref()),
        DeValue::Integer(number) => {
            integer(number).and_then(|n| i64::try_from(n).ok()).map_or(serde_json::Value::Null, Into::into)
        }
        DeValue::Float(number) => number.as_str().parse::<f64>().map_or(serde_json::Value::Null, Into::into),
        DeValue::Boolean(flag) => (*flag).into(),
        DeValue::Datetime(date) => date.to_string().into(),
        DeValue::Array(list) => list.iter().map(|item| json(item.get_ref())).collect(),
        DeValue::Table(table) => {
            table.iter().map(|(key, item)| (key.get_ref().to_string(), json(item.get_ref()))).collect()
        }
    }
}

/// `ADDRESS:PORT` or `unix:PATH`.
pub(super) fn address(text: &str, resolve: impl Fn(&str) -> PathBuf) -> Result<ListenAddress, Wrong> {
    match text.strip_prefix("unix:") {
        Some("") => wrong(
            "there is no path behind unix:",
            "write the path of the socket, such as \"unix:/run/vestibule/https.sock\"",
        ),
        Some(path) => Ok(ListenAddress::Unix(resolve(path))),
        None => text.parse().map(ListenAddress::Tcp).or_else(|_| {
            let help = match (text.parse::<IpAddr>(), text.trim_start_matches('*').strip_prefix(':')) {
                (Ok(IpAddr::V4(address)), _) => format!("the port is missing: write \"{address}:443\""),
                (Ok(IpAddr::V6(address)), _) => format!("the port is missing: write \"[{address}]:443\""),
                (Err(_), Some(port)) if port.parse::<u16>().is_ok() => {
                    format!("for every address write \"[::]:{port}\", for every IPv4 address \"0.0.0.0:{port}\"")
                }
                (Err(_), _) => {
                    "write an IP address (not a name) and a port, such as \"0.0.0.0:443\", or \"unix:PATH\"".to_owned()
                }
            };
            wrong(format!("{text:?} is no address and port"), help)
        }),
    }
}

/// A network, or an address as a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, Wrong> {
    let one = |address: IpAddr| IpNet::from(address);
    text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(one)).or_else(|_| {
        wrong(format!("{text:?} is no IP address or network"), "write for example \"10.0.0.5\" or \"10.0.0.0/8\"")
    })
}

/// A URL of nothing but scheme, host and port. Its text is not repeated: it might hold a password.
fn place(text: &str, what: &str, example: &str) -> Result<Url, Wrong> {
    let help = format!("write for example {example}");
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '\\';
    let Some((scheme, authority)) = text.split_once("://") else {
        return wrong(format!("{what} has a scheme, a host and, where it is not the usual one, a port"), help);
    };
    if text.contains('*') {
        return wrong(format!("{what} names one host, without \"*\""), help);
    }
    let Ok(url) = Url::parse(text) else { return wrong(format!("this is not {what}"), help) };
    if text.contains(odd) || url.host_str().is_none_or(|host| host.trim_matches('.').is_empty()) {
        return wrong(format!("this is not {what}"), help);
    }
    if authority.contains('@') {
        return wrong(format!("{what} has no user name or password"), help);
    }
    if let Some(end) = authority.find(['/', '?', '#']) {
        return wrong(
            format!("{what} ends after host and port"),
            format!("write \"{scheme}://{}\"", &authority[..end]),
        );
    }
    if url.port() == Some(0) {
        return wrong("there is no port 0", help);
    }
    Ok(url)
}

/// `https://host[:port]`: host in lower case, without the trailing dot.
pub(super) fn origin(text: &str) -> Result<Origin, Wrong> {
    let example = "\"https://app.example.com\"";
    let url = place(text, "an origin", example)?;
    if url.scheme() != "https" {
        return wrong("an origin begins with https://", format!("write for example {example}"));
    }
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    Ok(Origin { host, port: url.port().unwrap_or(443) })
}

/// `http://host:port`, `https://host:port` or `unix:/path`.
pub(super) fn upstream(text: &str, resolve: impl Fn(&str) -> PathBuf) -> Result<UpstreamAddress, Wrong> {
    let example = "\"http://127.0.0.1:8000\", \"https://app.internal\" or \"unix:/run/app.sock\"";
    if let Some(path) = text.strip_prefix("unix:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains('\0') {
            return wrong("the path of the socket is missing", format!("write for example {example}"));
        }
        return Ok(UpstreamAddress::Unix(resolve(path)));
    }
    // `http://127.0.0.1:8000/` means the same; a longer path would mean another.
    let url = place(text.strip_suffix('/').unwrap_or(text), "an upstream", example)?;
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_owned();
    match url.scheme() {
        "http" => Ok(UpstreamAddress::Http { host, port: url.port().unwrap_or(80) }),
        "https" => Ok(UpstreamAddress::Https { host, port: url.port().unwrap_or(443) }),
        _ => wrong("an upstream is http, https or unix", format!("write for example {example}")),
    }
}

/// A source in `frame-ancestors`: `self` or an origin.
pub(super) fn ancestor(text: &str) -> Result<String, Wrong> {
    if text == "self" {
        return Ok("'self'".to_owned());
    }
    if matches!(text, "none" | "off") {
        return wrong(format!("{text:?} stands alone"), format!("write frame_ancestors = {text:?}, or only origins"));
    }
    let url = place(text, "an origin", "\"self\" or \"https://portal.example.com\"")?;
    if !matches!(url.scheme(), "http" | "https") {
        return wrong("an origin begins with https://", "write \"self\" or \"https://portal.example.com\"");
    }
    Ok(url.origin().ascii_serialization())
}

/// A header field name.
pub(super) fn header_name(text: &str) -> Result<HeaderName, Wrong> {
    HeaderName::from_bytes(text.as_bytes())
        .or_else(|_| wrong(format!("{text:?} is no header name"), "a header name has letters, digits and \"-\""))
}

/// A path as it stands in a request: percent-encoded where that is needed.
pub(super) fn encoded(path: &str) -> String {
    let Ok(url) = Url::parse(&format!("https://host{path}")) else { return path.to_owned() };
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// A path (and query) that a browser can be sent to.
pub(super) fn landing(text: &str) -> Result<String, Wrong> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'#' | b'*' | b'"'));
    if !text.starts_with('/') || text.starts_with("//") || !is_plain {
        let help = "write a path of this site, percent-encoded and without \"*\", such as \"/login\"";
        return wrong(format!("{text:?} is no place to send a browser to"), help);
    }
    Ok(text.to_owned())
}
