//! What fields are by their names.

use std::borrow::Cow;

/// A list of names. That one is not in it is mostly seen by its first letter and its length.
struct Names {
    list: &'static [&'static str],
    /// For each first letter the lengths that occur, as bits.
    shapes: [u64; 32],
}

impl Names {
    /// Of a list in lower case.
    const fn of(list: &'static [&'static str]) -> Self {
        let mut shapes = [0; 32];
        let mut at = 0;
        while at < list.len() {
            let name = list[at].as_bytes();
            shapes[(name[0] & 31) as usize] |= 1 << name.len();
            at += 1;
        }
        Self { list, shapes }
    }

    fn has(&self, name: &str) -> bool {
        let shape = name.bytes().next().map_or(0, |first| self.shapes[usize::from(first & 31)]);
        name.len() < 64 && shape >> name.len() & 1 == 1 && self.list.contains(&name)
    }
}

/// Fields between two neighbours, beside those that `Connection` nominates (RFC 9110 7.6.1).
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    static NAMES: Names = Names::of(&[
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-authentication-info",
        "http2-settings",
    ]);
    NAMES.has(name)
}

/// Fields in which we say who the client is and what it asked for (S68, S69).
pub(super) fn is_forwarding(name: &str) -> bool {
    static NAMES: Names = Names::of(&[
        "x-forwarded-for",
        "x-real-ip",
        "forwarded",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-port",
        "via",
    ]);
    NAMES.has(name)
}

/// Fields that `Connection` cannot take away, whatever it nominates: hiding them from us or from the
/// application would change what the message means (S86, VR-52).
pub(super) fn is_end_to_end(name: &str) -> bool {
    matches!(
        name,
        "host"
            | "cookie"
            | "set-cookie"
            | "authorization"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "origin"
            | "referer"
            | "cache-control"
            | "location"
    ) || name.starts_with("sec-")
        || is_kept_from_trusted(name)
}

/// Fields that tell an application who the client is or what it asked for: never a client's to say
/// (S68, S70, VR-53).
pub(super) fn is_trust(name: &str) -> bool {
    static NAMES: Names = Names::of(&[
        "forwarded",
        "x-real-ip",
        "client-cert",
        "client-cert-chain",
        "remote-user",
        "remote-addr",
        "proxy",
        "session",
        "x-forwarded",
        "forwarded-for",
        "x-host",
        "x-client-ip",
        "x-client-cert",
        "x-cluster-client-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "fastly-client-ip",
    ]);
    const KINDS: [&str; 6] = ["forwarded-", "original-", "originating-", "rewrite-", "remote-", "ssl-"];
    let is_kind = |rest: &str| KINDS.iter().any(|kind| rest.starts_with(kind));
    NAMES.has(name) || name.strip_prefix("x-").is_some_and(is_kind) || name.starts_with("ssl-client-")
}

/// Fields that have an application do another method than the one that is judged (S70).
pub(super) fn is_method_override(name: &str) -> bool {
    matches!(name, "x-http-method" | "x-http-method-override" | "x-method-override")
}

/// Device-bound session fields are between the browser and us (S75).
pub(super) fn is_session_protocol(name: &str) -> bool {
    name.starts_with("secure-session-") || name.starts_with("sec-secure-session-")
}

/// The forwarding field that a trusted proxy's word is taken for. Many a proxy sets no other, and leaves
/// those as its client sent them (VR-53).
pub(super) fn is_kept_from_trusted(name: &str) -> bool {
    name == "x-forwarded-for"
}

/// The name as a CGI-like application reads it: case ignored, everything but letters and digits the
/// same (VR-11).
pub(super) fn folded(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| IS_PLAIN[usize::from(byte)]) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect())
}

/// Which bytes stay as they are. Looked up, since each letter of each name is asked about.
static IS_PLAIN: [bool; 256] = {
    let mut plain = [false; 256];
    let mut byte = 0_u8;
    while byte < 128 {
        plain[byte as usize] = byte.is_ascii_alphanumeric() || byte == b'-';
        byte += 1;
    }
    plain
};

pub(super) fn folds_to(name: &str, ours: &str) -> bool {
    name.len() == ours.len() && folded(name).eq_ignore_ascii_case(&folded(ours))
}
