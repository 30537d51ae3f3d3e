//! Listening sockets and the accept loop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener as Socket;
use std::sync::Arc;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use crate::server::Shared;
use crate::server::door::Permit;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", remedy(.source, .address))]
pub struct BindError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

#[allow(clippy::wildcard_enum_match_arm)] // The list of kinds is the standard library's and grows.
fn remedy(error: &io::Error, address: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied if address.port() < 1024 => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE: setcap, AmbientCapabilities in the unit file, or a higher port)"
                .to_owned()
        }
        io::ErrorKind::AddrInUse => " (another program listens there)".to_owned(),
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)".to_owned(),
        _ => String::new(),
    }
}

/// One socket per worker on the same address.
pub type Bound = Vec<Socket>;

/// Opens `count` sockets on an address; port 0 is the same free port for all of them.
///
/// # Errors
/// When the address cannot be listened on.
pub fn bind(address: SocketAddr, count: usize) -> Result<Bound, BindError> {
    let mut address = address;
    // Without this look, a second program with the same setting would silently share the port.
    let probe = open(address, false).map_err(|source| BindError { address, source })?;
    address = probe.local_addr().map_err(|source| BindError { address, source })?;
    drop(probe);
    (0..count.max(1)).map(|_| open(address, true).map_err(|source| BindError { address, source })).collect()
}

fn open(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until it is told to stop. Errors such as a lack of file descriptors pass: it waits a
/// little, and longer each time, and goes on.
pub(super) async fn accept<F, S>(listener: TcpListener, shared: Arc<Shared>, connections: TaskTracker, serve: F)
where
    F: Fn(TcpStream, SocketAddr, Permit) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let mut pause = Duration::from_millis(5);
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Duration::from_millis(5);
                let limits = shared.limits.load();
                if let Some(permit) = shared.door.enter(peer, &limits) {
                    connections.spawn(serve(stream, peer, permit));
                } else {
                    tracing::debug!(event = "connection.refused", client = %peer.ip());
                }
            }
            Err(error) => {
                tracing::warn!(event = "accept.failed", error = %error, pause_ms = pause.as_millis() as u64);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }
}
