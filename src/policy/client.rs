//! Who the client is: the TCP peer, unless it is a trusted proxy (S53, S68, S69, VR-10).

use std::net::IpAddr;
use std::net::SocketAddr;

use http::HeaderMap;
use http::HeaderValue;
use ipnet::IpNet;

/// The client as far as all decisions are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address, IPv4-mapped IPv6 unmapped.
    pub address: IpAddr,
    /// Whether the TCP peer is a trusted proxy, whose `X-Forwarded-For` is kept and extended.
    pub via_trusted: bool,
}

/// The peer, or behind trusted proxies the right-most untrusted hop of `X-Forwarded-For`. A hop that
/// is no address ends the walk: everything left of it could have been made up.
pub fn identify(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> Client {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut address = peer.to_canonical();
    if !is_trusted(&address) {
        return Client { address, via_trusted: false };
    }
    let lines = headers.get_all("x-forwarded-for").iter().rev().map(HeaderValue::as_bytes);
    for hop in lines.flat_map(|line| line.rsplit(|byte| *byte == b',')) {
        let Some(hop) = std::str::from_utf8(hop).ok().and_then(|hop| read_address(hop.trim())) else { break };
        address = hop;
        if !is_trusted(&address) {
            break;
        }
    }
    Client { address, via_trusted: true }
}

fn read_address(text: &str) -> Option<IpAddr> {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|socket| socket.ip()))?;
    Some(address.to_canonical())
}

/// Adds an address as it is displayed. Most have four small numbers, which the formatter takes its time for, and
/// each request has its client's in several places.
pub fn write_address(out: &mut Vec<u8>, address: IpAddr) {
    let IpAddr::V4(address) = address else {
        out.extend_from_slice(address.to_string().as_bytes());
        return;
    };
    for (place, octet) in address.octets().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_address_is_written_as_it_is_displayed(address: IpAddr) {
            let mut written = Vec::new();
            write_address(&mut written, address);
            proptest::prop_assert_eq!(String::from_utf8(written).unwrap(), address.to_string());
        }
    }

    fn client(peer: &str, forwarded: &[&str]) -> String {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in forwarded {
            headers.append("x-forwarded-for", line.parse().unwrap());
        }
        identify(peer.parse().unwrap(), &headers, &trusted).address.to_string()
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        // S53, VR-10
        assert_eq!(client("192.0.2.1", &["203.0.113.9"]), "192.0.2.1");
        assert_eq!(client("::ffff:192.0.2.1", &[]), "192.0.2.1");
    }

    #[test]
    fn behind_trusted_proxies_the_right_most_untrusted_hop_counts() {
        // S53, VR-10: the left-most is what the client made up.
        for (forwarded, expected) in [
            (&["203.0.113.9"][..], "203.0.113.9"),
            (&["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
            (&["6.6.6.6", "203.0.113.9, 10.1.1.1"], "203.0.113.9"),
            (&["203.0.113.9:4711"], "203.0.113.9"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["garbage, 10.2.2.2"], "10.2.2.2"),
            (&["6.6.6.6", "\u{ff}, 203.0.113.9"], "203.0.113.9"),
            (&["6.6.6.6", "\u{ff}"], "10.0.0.1"),
            (&[], "10.0.0.1"),
        ] {
            assert_eq!(client("10.0.0.1", forwarded), expected, "{forwarded:?}");
        }
    }
}
