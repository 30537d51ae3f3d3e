//! What fields are by their names.

use std::borrow::Cow;

/// Fields between two neighbours, beside those that `Connection` nominates (RFC 9110 7.6.1).
pub(super) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-authentication-info"
            | "http2-settings"
    )
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
    matches!(
        name,
        "forwarded"
            | "x-real-ip"
            | "client-cert"
            | "client-cert-chain"
            | "remote-user"
            | "remote-addr"
            | "proxy"
            | "session"
            | "x-forwarded"
            | "forwarded-for"
            | "x-host"
            | "x-client-ip"
            | "x-client-cert"
            | "x-cluster-client-ip"
            | "true-client-ip"
            | "cf-connecting-ip"
            | "fastly-client-ip"
    ) || ["x-forwarded-", "x-original-", "x-originating-", "x-rewrite-", "x-remote-", "x-ssl-", "ssl-client-"]
        .iter()
        .any(|prefix| name.starts_with(prefix))
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
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect())
}

pub(super) fn folds_to(name: &str, ours: &str) -> bool {
    name.len() == ours.len() && folded(name).eq_ignore_ascii_case(&folded(ours))
}
