//! Who is at the other end of a connection, before anything is read for them: the peer, or the
//! client for whom a trusted balancer speaks (S53); and whether there is room for them (S173).

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::config::Config;
use crate::server::Shared;
use crate::server::door::Permit;
use crate::server::listen::Connection;
use crate::server::proxy_protocol;

/// What the entrance goes by.
pub(super) struct Entrance {
    proxy_protocol: bool,
    trusted: Vec<IpNet>,
}

impl Entrance {
    pub(super) fn new(config: &Config) -> Self {
        Self { proxy_protocol: config.listen.proxy_protocol, trusted: config.listen.trusted_proxies.clone() }
    }

    /// A peer on a unix socket counts as one on the loopback address.
    fn trusts(&self, peer: Option<SocketAddr>) -> bool {
        let address = peer.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |peer| peer.ip().to_canonical());
        self.trusted.iter().any(|network| network.contains(&address))
    }
}

/// The client's address (`None` on a unix socket), and its place among those inside; `None` when it
/// is not let in. Connections of trusted proxies that carry many clients are not counted by address.
pub(super) async fn admit(
    shared: &Shared,
    stream: &mut Connection,
    peer: Option<SocketAddr>,
    permit: &mut Permit,
) -> Option<Option<SocketAddr>> {
    let entrance = shared.entrance.load_full();
    let limits = shared.limits.load_full();
    let is_trusted = entrance.trusts(peer);
    let mut client = peer;
    if entrance.proxy_protocol && is_trusted {
        let header = proxy_protocol::read_header(stream);
        let handshake = shared.timeouts.load().handshake;
        let read = tokio::select! {
            read = tokio::time::timeout(handshake, header) => read,
            // Nothing was asked yet.
            () = shared.stop.cancelled() => return None,
        };
        match read {
            Ok(Ok(Some(source))) => client = Some(source),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => {
                tracing::warn!(event = "proxy_protocol.refused", peer = ?peer, error = %crate::telemetry::ErrorChain(&error));
                return None;
            }
            Err(_) => {
                tracing::debug!(event = "proxy_protocol.timeout", peer = ?peer);
                return None;
            }
        }
    }
    let is_many = is_trusted && client == peer;
    let counted = client.filter(|_| !is_many);
    if counted.is_some_and(|client| !permit.count(client.ip(), &limits)) {
        tracing::debug!(event = "connection.refused", client = ?client);
        return None;
    }
    Some(client)
}
