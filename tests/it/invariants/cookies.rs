//! Cookies (S11-S15, VR-05, VR-35, VR-38): no bytes break the readers, no application's cookie
//! becomes our session, and no client brings a cookie that only the vault may send.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use vestibule::clock::Timestamp;
use vestibule::policy::cookie;
use vestibule::policy::cookie::CookiePair;
use vestibule::policy::cookie::Presented;
use vestibule::policy::cookie::SessionCookie;
use vestibule::policy::cookie::SetCookie;
use vestibule::policy::cookie::Taken;
use vestibule::policy::path::PathCase;
use vestibule::policy::path::Target;
use vestibule::policy::vault;
use vestibule::policy::vault::CookieContext;
use vestibule::policy::vault::CookieRules;
use vestibule::policy::vault::Vault;
use vestibule::policy::vault::VaultChange;

use super::decode;

const NOW: Timestamp = Timestamp::from_millis(1_790_000_000_000);
const HOST: &str = "app.test";

/// A path in the first line; then lines, each read as a `Cookie` of a client and as a `Set-Cookie` of the
/// application.
pub fn check(data: &[u8]) {
    let (path, lines) = super::split_line(data);
    let target = Target::parse(&format!("/{}", String::from_utf8_lossy(path)), PathCase::Exact);
    let lines: Vec<_> =
        lines.split(|byte| *byte == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let mut pairs = Vec::new();
    for line in &lines {
        cookie::read_line(&Bytes::copy_from_slice(line.as_bytes()), &mut pairs);
    }
    are_whole(&pairs);
    is_found(&pairs);
    let mut vault = Vault::default();
    for line in &lines {
        let _ = cookie::cookie_date(line.as_bytes());
        if let Some(cookie) = SetCookie::parse(line, NOW) {
            is_hardened(&cookie);
            is_never_ours(&cookie);
            vault = kept(vault, &cookie, &target);
        }
    }
    ours().take(&mut pairs);
    reach_the_application(&pairs, &vault, &target);
}

fn ours() -> SessionCookie {
    SessionCookie::new("__Host-session", false, true)
}

/// Pairs are what lies between semicolons, and joined they read the same (VR-05).
fn are_whole(pairs: &[CookiePair]) {
    for pair in pairs {
        assert!(!pair.name.contains(&b';') && !pair.value.contains(&b';') && !pair.name.contains(&b'='));
        assert!(!pair.name.is_empty() || !pair.value.is_empty());
    }
    let mut again = Vec::new();
    if let Some(line) = cookie::join(pairs.iter().map(CookiePair::parts)) {
        cookie::read_line(&Bytes::copy_from_slice(line.as_bytes()), &mut again);
    }
    assert!(again == pairs);
}

/// Our cookie is found or refused, and gone from the rest (S11, S20, VR-35).
fn is_found(pairs: &[CookiePair]) {
    let mut rest = pairs.to_vec();
    let Taken { session: presented, bound } = ours().take(&mut rest);
    let (mine, others): (Vec<_>, Vec<_>) = pairs.iter().cloned().partition(|pair| pair.name == "__Host-session");
    let (proofs, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|pair| pair.name == "__Host-session-bound");
    assert!(rest == others);
    assert!(bound.is_some() != proofs.is_empty());
    match presented {
        Presented::None => assert!(mine.is_empty()),
        Presented::Id(id) => assert!(mine.iter().all(|pair| pair.value == id.expose()) && !mine.is_empty()),
        Presented::Malformed => assert!(!mine.is_empty()),
    }
}

/// Nothing but what was missing is added.
fn is_hardened(cookie: &SetCookie) {
    let hardened = SetCookie::parse(&cookie.hardened(), NOW).unwrap();
    assert!(hardened.raw.as_bytes().starts_with(cookie.raw.as_bytes()));
    assert!(hardened.secure && hardened.same_site.is_some());
    assert!((&hardened.name, &hardened.value, hardened.expires) == (&cookie.name, &cookie.value, cookie.expires));
    assert!((&hardened.domain, &hardened.path) == (&cookie.domain, &cookie.path));
}

/// What goes to the browser does not come back as our session (S12).
fn is_never_ours(cookie: &SetCookie) {
    if ours().is_imitated_by(cookie) {
        return;
    }
    let sent =
        if cookie.name.is_empty() { cookie.value.to_vec() } else { [&cookie.name[..], b"=", &cookie.value].concat() };
    let mut pairs = Vec::new();
    cookie::read_line(&Bytes::from(sent), &mut pairs);
    assert_eq!(ours().take(&mut pairs), Taken { session: Presented::None, bound: None });
}

/// What is kept is kept once, within bounds, and a deletion removes it.
fn kept(vault: Vault, cookie: &SetCookie, target: &Target) -> Vault {
    let Some(change) = VaultChange::of(cookie, target, HOST, NOW) else { return vault };
    let changed = vault.changed(std::slice::from_ref(&change), NOW).unwrap_or(vault);
    assert!(changed.changed(std::slice::from_ref(&change), NOW).is_none());
    let size: usize =
        changed.cookies().iter().map(|cookie| cookie.name.len() + cookie.value.len() + cookie.path.len()).sum();
    assert!(size <= 32 * 1024);
    if let VaultChange::Put(put) = &change {
        let (name, path, domain) = (put.name.clone(), put.path.clone(), put.domain.clone());
        let same = |cookie: &vault::VaultCookie| cookie.name == name && cookie.path == path && cookie.domain == domain;
        let removed = changed
            .changed(&[VaultChange::Remove { name: name.clone(), path: path.clone(), domain: domain.clone() }], NOW);
        assert!(removed.is_none_or(|removed| !removed.cookies().iter().any(same)));
        let later = NOW.plus(Duration::from_secs(500 * 24 * 3600));
        assert!(
            changed.changed(&[], later).is_none_or(|left| left.cookies().iter().all(|cookie| cookie.expires.is_none()))
        );
    }
    changed
}

/// The vault's cookies come first, and none of the client's that follow is read as one of them, or as
/// a session cookie that is kept from clients (T6).
fn reach_the_application(pairs: &[CookiePair], vault: &Vault, target: &Target) {
    let rules = CookieRules::default();
    let learned = |name: &[u8]| name == b"learned_token";
    let context = CookieContext { rules: &rules, learned: &learned, target, host: HOST, cross_site: false, now: NOW };
    let outgoing = vault::outgoing(pairs.to_vec(), Some(vault), &context);
    for name in &outgoing.expire {
        for line in cookie::expire_in_browser(name, target.raw_path()) {
            let deletion = SetCookie::parse(&line, NOW);
            assert!(deletion.is_none_or(|cookie| cookie.name == *name && cookie.is_deletion(NOW)));
        }
    }
    let kept = vault.pairs_for(target, HOST, false, NOW);
    let before = cookie::join(kept.iter().map(CookiePair::parts)).map_or(0, |line| line.len());
    let line = outgoing.header.as_ref().map_or(&b""[..], |line| line.as_bytes());
    assert!(cookie::join(kept.iter().map(CookiePair::parts)).is_none_or(|kept| line.starts_with(kept.as_bytes())));
    for name in names(&line[before..]) {
        assert!(!vault::is_well_known_session(&name) && !learned(&name), "{}", name.escape_ascii());
        assert!(!kept.iter().any(|pair| pair.name == name && !name.is_empty()), "{}", name.escape_ascii());
    }
}

/// Every name that some application reads in a `Cookie` field.
fn names(line: &[u8]) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    for pair in line.split(|byte| *byte == b';') {
        // Most: up to the first `=`, white space around it ignored.
        names.extend(first_name(pair));
        // PHP: letters that cannot stand in a variable, and encoded ones in old versions.
        names.extend(first_name(pair).map(|name| php_name(&name)));
        names.extend(first_name(pair).map(|name| php_name(&decode(&name, true))));
        // RFC 2109, as old servlet containers read it, and Python's: commas and white space separate.
        let pieces = pair.split(|byte| b", \t".contains(byte));
        let before_equals = |piece: &[u8]| piece.iter().position(|byte| *byte == b'=').map(|at| piece[..at].to_vec());
        names.extend(pieces.filter_map(before_equals).filter(|name| !name.is_empty()));
    }
    names
}

fn first_name(pair: &[u8]) -> Option<Vec<u8>> {
    let start = pair.iter().position(|byte| !b"= \t".contains(byte))?;
    let name = pair[start..].split(|byte| *byte == b'=').next().unwrap_or_default();
    Some(name.trim_ascii().to_vec())
}

fn php_name(name: &[u8]) -> Vec<u8> {
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default().trim_ascii_start();
    let whole = name.split(|byte| *byte == b'[').next().filter(|_| name.contains(&b']')).unwrap_or(name);
    whole.iter().map(|byte| if b" .[".contains(byte) { b'_' } else { *byte }).collect()
}
