//! What holds whatever a stranger sends: one function for everything that reads it. The fuzz targets
//! feed them mutated bytes; `properties` feeds them generated ones and the inputs in `tests/corpus`,
//! so that they are checked without fuzzing as well.

pub mod codec;
pub mod connections;
pub mod cookies;
pub mod logins;
pub mod paths;
mod readers;
mod stage;
pub mod strict;

use std::path::Path;

use vestibule::config::Config;
use vestibule::policy::site::Site;

/// A site with these tables.
fn site(tables: &str) -> Site {
    let text = format!(
        r#"
[listen]
https = "127.0.0.1:443"
[tls]
certificate = "server.pem"
key = "server.key"
[[site]]
origin = "https://app.test"
upstream = "http://127.0.0.1:1"
{tables}"#
    );
    let config = Config::parse(Path::new("proxy.toml"), &text).unwrap_or_else(|problems| panic!("{problems}"));
    config.sites.into_iter().next().unwrap()
}

/// A line of the input, and what follows it.
fn split_line(data: &[u8]) -> (&[u8], &[u8]) {
    match data.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&data[..end], &data[end + 1..]),
        None => (data, &[]),
    }
}

/// Percent-decoded once, a `%` without two digits kept; `+` is a space only in forms.
fn decode(text: &[u8], plus_is_space: bool) -> Vec<u8> {
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16)).map(|digit| digit as u8);
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 2;
            }
            (b'+', _, _) if plus_is_space => decoded.push(b' '),
            (byte, _, _) => decoded.push(byte),
        }
        at += 1;
    }
    decoded
}
