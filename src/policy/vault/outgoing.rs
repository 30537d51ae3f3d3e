//! The `Cookie` field that the application gets: the vault's cookies in front of the browser's own.

use bytes::Bytes;
use http::HeaderValue;
use memchr::memchr3;

use crate::clock::Timestamp;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::join;
use crate::policy::path::Target;
use crate::policy::vault::CookieRules;
use crate::policy::vault::Vault;
use crate::policy::vault::held::Held;

/// What the choice of cookies for one request depends on.
#[derive(Clone, Copy)]
pub struct CookieContext<'a> {
    /// The site's rules.
    pub rules: &'a CookieRules,
    /// Names vaulted before on this site, in mode `auto`.
    pub learned: &'a dyn Fn(&[u8]) -> bool,
    /// What is asked for.
    pub target: &'a Target,
    /// The site's host, lower case, without port.
    pub host: &'a str,
    /// `Sec-Fetch-Site: cross-site`
    pub cross_site: bool,
    /// The present time.
    pub now: Timestamp,
}

/// What goes to the application, and what should leave the browser.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// The `Cookie` field; `None` when there is nothing to send (VR-05).
    pub header: Option<HeaderValue>,
    /// Names of client-sent cookies that were dropped and are to be expired in the browser.
    pub expire: Vec<Bytes>,
}

/// The cookies for the application: the vault's first, then those of the browser that are not kept
/// by us. `pairs` are the client's, without our own.
pub fn outgoing(mut pairs: Vec<CookiePair>, vault: Option<&Vault>, context: &CookieContext<'_>) -> Outgoing {
    let CookieContext { rules, learned, target, host, cross_site, now } = *context;
    let mut sent = vault.map_or_else(Vec::new, |vault| vault.sent_with(target, host, cross_site, now));
    sent.retain(|cookie| rules.is_sent_from_vault(cookie.name));
    let mut expire: Vec<Bytes> = Vec::new();
    let is_kept = |name: &[u8]| sent.iter().any(|cookie| cookie.name == name) || rules.is_vaulted_name(name, learned);
    pairs.retain(|pair| {
        let is_ours = is_shown_as(pair, &is_kept);
        if is_ours && !pair.name.is_empty() && !expire.contains(&pair.name) {
            expire.push(pair.name.clone());
        }
        !is_ours
    });
    let mut header = join(sent.iter().map(Held::parts).chain(pairs.iter().map(CookiePair::parts)));
    if let Some(value) = header.as_mut() {
        value.set_sensitive(true);
    }
    Outgoing { header, expire }
}

/// Whether some application sees the pair under such a name: nothing must carry a session past us.
fn is_shown_as(pair: &CookiePair, is_kept: &dyn Fn(&[u8]) -> bool) -> bool {
    let is_kept = |name: &[u8]| is_kept(name) || as_variable(name).is_some_and(|name| is_kept(&name));
    let nameless = pair.name.is_empty();
    let first = if nameless { leading_name(&pair.value) } else { &pair.name };
    let last = first.rsplit(is_separator).next().unwrap_or_default();
    // The value's first piece has the name in front, if there is one. Most values have no other, and may be long.
    let [comma, space, tab] = SEPARATORS;
    let is_looked_through = nameless || memchr3(comma, space, tab, &pair.value).is_some();
    let is_in_piece = || {
        let pieces = pair.value.split(is_separator).skip(usize::from(!nameless));
        pieces.filter(|piece| piece.contains(&b'=')).map(leading_name).any(is_kept)
    };
    is_kept(first) || (last.len() < first.len() && is_kept(last)) || (is_looked_through && is_in_piece())
}

/// A nameless pair keeps what `=` it came with; `==JSESSIONID=1` has a name to some.
fn leading_name(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|byte| !matches!(byte, b'=' | b' ' | b'\t')).unwrap_or(text.len());
    text[start..].split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii_end()
}

/// Between pairs to those who read RFC 2109 (old servlet containers) or allow white space (Python).
const SEPARATORS: [u8; 3] = *b", \t";

fn is_separator(byte: &u8) -> bool {
    SEPARATORS.contains(byte)
}

/// The name of PHP's variable, where it differs: encoded letters (old versions), `.`, space and `[`
/// the same as `_`, an element of it for it.
fn as_variable(name: &[u8]) -> Option<Vec<u8>> {
    if !name.iter().any(|byte| matches!(byte, b'%' | b'+' | b'.' | b' ' | b'[')) {
        return None;
    }
    let (decoded, _) = url::form_urlencoded::parse(name).next()?;
    let name = decoded.trim_start_matches(' ').split('\0').next().unwrap_or_default();
    let variable = if name.contains(']') { name.split('[').next().unwrap_or_default() } else { name };
    Some(variable.replace(['.', ' ', '['], "_").into_bytes())
}
