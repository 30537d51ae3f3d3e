//! The `Cookie` field that the application gets: the vault's cookies in front of the browser's own.

use bytes::Bytes;
use http::HeaderValue;

use crate::clock::Timestamp;
use crate::policy::cookie::CookiePair;
use crate::policy::cookie::join;
use crate::policy::path::Target;
use crate::policy::vault::CookieRules;
use crate::policy::vault::Vault;
use crate::policy::vault::VaultCookie;

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
    sent.retain(|cookie| rules.is_sent_from_vault(&cookie.name));
    let mut expire: Vec<Bytes> = Vec::new();
    pairs.retain(|pair| {
        let is_shadowed = sent.iter().any(|cookie| cookie.name == pair.name);
        let is_ours = is_shadowed || rules.is_vaulted_name(shown_name(pair), learned);
        if is_ours && !pair.name.is_empty() && !expire.contains(&pair.name) {
            expire.push(pair.name.clone());
        }
        !is_ours
    });
    if !sent.is_empty() {
        pairs.splice(0..0, sent.into_iter().map(VaultCookie::pair));
    }
    let mut header = join(&pairs);
    if let Some(value) = header.as_mut() {
        value.set_sensitive(true);
    }
    Outgoing { header, expire }
}

/// The name that a lenient application may see: a nameless pair keeps what `=` it came with, and
/// `==JSESSIONID=1` must not carry a session past us.
fn shown_name(pair: &CookiePair) -> &[u8] {
    if !pair.name.is_empty() {
        return &pair.name;
    }
    let is_filler = |byte: &u8| matches!(byte, b'=' | b' ' | b'\t');
    let start = pair.value.iter().position(|byte| !is_filler(byte)).unwrap_or(pair.value.len());
    let shown = &pair.value[start..];
    shown.split(is_filler).next().unwrap_or_default()
}
