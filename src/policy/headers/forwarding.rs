//! What the application is told of the client: forwarding fields, and who it is (S64-S70).

use std::net::IpAddr;

use http::HeaderMap;
use http::HeaderName;
use http::HeaderValue;
use http::Version;
use http::header;

use crate::policy::certificate::Certificate;
use crate::policy::client::Client;
use crate::policy::headers::FORWARDED_PROTO;
use crate::policy::headers::IdentityHeaders;
use crate::policy::headers::Lines;
use crate::policy::headers::joined;
use crate::policy::headers::names::is_forwarding;
use crate::policy::session::Identity;
use crate::policy::site::Origin;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");

/// What the forwarding headers say of a site's origin, prepared.
#[derive(Clone)]
pub struct PublicOrigin {
    /// `X-Forwarded-Proto`, `-Host` and `-Port`.
    lines: Lines,
    /// Follows the node in `Forwarded`.
    parameters: String,
}

impl PublicOrigin {
    /// What they say of this origin.
    pub fn of(origin: &Origin) -> Self {
        let host = origin.authority();
        let quoted = if origin.port == 443 && !host.starts_with('[') { "" } else { "\"" };
        let mut lines = Lines::default();
        lines.add(&FORWARDED_PROTO, &HeaderValue::from_static("https"));
        // A host of the configuration always is a value.
        lines.add(&FORWARDED_HOST, &HeaderValue::from_str(&host).unwrap_or(HeaderValue::from_static("")));
        lines.add(&FORWARDED_PORT, &HeaderValue::from(origin.port));
        Self { lines, parameters: format!(";host={quoted}{host}{quoted};proto=https") }
    }
}

/// What goes into the forwarding and identity headers of one request.
#[derive(Clone, Copy)]
pub struct Forwarding<'a> {
    /// The client.
    pub client: Client,
    /// The TCP peer, appended to `X-Forwarded-For`.
    pub peer: IpAddr,
    /// The site's origin: `X-Forwarded-Host`, `-Port`.
    pub public: &'a PublicOrigin,
    /// The request's version, for `Via`.
    pub version: Version,
    /// The certificate that the client has shown.
    pub certificate: Option<&'a Certificate>,
    /// The user, if any, with session ref and authentication time.
    pub identity: Option<&'a Identity>,
    /// What was signed about the user.
    pub assertion: Option<&'a HeaderValue>,
}

/// `X-Forwarded-*`, `Forwarded`, `Via` and, last, the identity headers (absent for anonymous). What the fields
/// say of these goes into them or is gone.
pub fn forward_request(headers: &mut HeaderMap, identity: &IdentityHeaders, forwarding: Forwarding<'_>) -> Lines {
    let Forwarding { client, peer, public, version, .. } = forwarding;
    let before = Before::take(headers, identity);
    let mut lines = Lines::with_room();
    match client.via_trusted {
        true => lines.begin("x-forwarded-for").text(&before.forwarded_for).address(peer).end(),
        false => lines.begin("x-forwarded-for").address(client.address).end(),
    }
    lines.begin("x-real-ip").address(client.address).end();
    lines.begin("forwarded").text(b"for=").node(client.address).text(public.parameters.as_bytes());
    if client.address != peer {
        lines.text(b", for=").node(peer);
    }
    lines.end();
    lines.add_all(&public.lines);
    let via = match version {
        Version::HTTP_2 => "2.0 vestibule",
        Version::HTTP_10 => "1.0 vestibule",
        _ => "1.1 vestibule",
    };
    lines.begin("via").text(&before.via).text(via.as_bytes()).end();
    if let Some((name, certificate)) = identity.client_certificate.as_ref().zip(forwarding.certificate)
        && let Some(value) = certificate.header_value(name)
    {
        lines.add(name, &value);
    }
    if let Some(who) = forwarding.identity {
        lines.begin(identity.user.as_str()).user(&who.user).end();
        if let Some(name) = &identity.session_ref {
            lines.begin(name.as_str()).text(who.session_ref.as_bytes()).end();
        }
        if let Some(name) = &identity.auth_time {
            lines.begin(name.as_str()).number(who.authenticated.as_secs()).end();
        }
        if let Some((rules, assertion)) = identity.assertion.as_ref().zip(forwarding.assertion) {
            lines.add(&rules.header, assertion);
        }
    }
    lines
}

/// What the lists had in them before we are added, each element with its comma.
#[derive(Default)]
struct Before {
    forwarded_for: Vec<u8>,
    via: Vec<u8>,
}

impl Before {
    /// Takes out every field that is said anew: also where there is no user, as a copy that survives then is a
    /// forged one (VR-54).
    fn take(headers: &mut HeaderMap, identity: &IdentityHeaders) -> Self {
        let is_said_anew =
            |name: &&HeaderName| is_forwarding(name.as_str()) || identity.names().any(|ours| ours == *name);
        let going: Vec<HeaderName> = headers.keys().filter(is_said_anew).cloned().collect();
        if going.is_empty() {
            return Self::default();
        }
        let before = Self { forwarded_for: joined(headers, &FORWARDED_FOR), via: joined(headers, &header::VIA) };
        for name in going {
            headers.remove(name);
        }
        before
    }
}
