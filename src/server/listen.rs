//! Listening sockets and the accept loop.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use socket2::Domain;
use socket2::Protocol;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::either::Either;

use crate::config::ListenAddress;
use crate::proxy::probe_silent;
use crate::server::Shared;
use crate::server::door::Permit;
use crate::server::spread::Handed;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// A connection as it was accepted.
pub(super) type Connection = Either<TcpStream, UnixStream>;

/// A listening socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// `unix:PATH`
    Unix(std::os::unix::net::UnixListener),
}

impl Socket {
    /// The TCP address, with the port that the system chose.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    fn is_at(&self, wanted: &ListenAddress) -> bool {
        match (self, wanted) {
            (Self::Tcp(_), ListenAddress::Tcp(address)) => self.address() == Some(*address),
            (Self::Unix(socket), ListenAddress::Unix(path)) => {
                socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
            }
            (Self::Tcp(_), ListenAddress::Unix(_)) | (Self::Unix(_), ListenAddress::Tcp(_)) => false,
        }
    }

    fn share(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                probe_silent(socket)?;
                Self::Tcp(socket.try_clone()?)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                Self::Unix(socket.try_clone()?)
            }
        })
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}{}", remedy(.source, .address))]
pub struct BindError {
    address: ListenAddress,
    #[source]
    source: io::Error,
}

#[allow(clippy::wildcard_enum_match_arm)] // The list of kinds is the standard library's and grows.
fn remedy(error: &io::Error, address: &ListenAddress) -> String {
    let port = match address {
        ListenAddress::Tcp(address) => address.port(),
        ListenAddress::Unix(_) => u16::MAX,
    };
    match error.kind() {
        io::ErrorKind::PermissionDenied if port < 1024 => {
            " (ports below 1024 need CAP_NET_BIND_SERVICE: setcap, AmbientCapabilities in the unit file, or a higher port)"
                .to_owned()
        }
        io::ErrorKind::AddrInUse => " (another program listens there)".to_owned(),
        io::ErrorKind::AddrNotAvailable => " (this machine does not have that address)".to_owned(),
        io::ErrorKind::NotFound => " (its directory does not exist)".to_owned(),
        _ => String::new(),
    }
}

/// The sockets of each worker: those that systemd passed where it passed one for an address, opened
/// ones elsewhere. Port 0 is the same free port for all workers.
///
/// # Errors
/// When an address cannot be listened on.
pub fn bind(
    addresses: &[ListenAddress],
    workers: usize,
    inherited: &mut Inherited,
) -> Result<Vec<Vec<Socket>>, BindError> {
    let mut all: Vec<Vec<Socket>> = (0..workers.max(1)).map(|_| Vec::new()).collect();
    for address in addresses {
        let failed = |source| BindError { address: address.clone(), source };
        let shared = match (inherited.take(address), address) {
            (Some(socket), _) => Some(socket),
            (None, ListenAddress::Unix(path)) => Some(open_unix(path).map_err(failed)?),
            (None, ListenAddress::Tcp(_)) => None,
        };
        let sockets = match (shared, address) {
            (Some(socket), _) => all.iter().map(|_| socket.share()).collect::<io::Result<Vec<_>>>().map_err(failed)?,
            (None, ListenAddress::Tcp(tcp)) => {
                // Together with the IPv4 wildcard, the IPv6 one must leave IPv4 alone.
                let only_v6 = tcp.is_ipv6() && addresses.iter().any(|other| is_v4_wildcard(other, tcp.port()));
                open_tcp(*tcp, only_v6, all.len()).map_err(failed)?
            }
            (None, ListenAddress::Unix(_)) => Vec::new(),
        };
        all.iter_mut().zip(sockets).for_each(|(worker, socket)| worker.push(socket));
    }
    Ok(all)
}

fn is_v4_wildcard(address: &ListenAddress, port: u16) -> bool {
    match address {
        ListenAddress::Tcp(address) => address.is_ipv4() && address.ip().is_unspecified() && address.port() == port,
        ListenAddress::Unix(_) => false,
    }
}

/// One socket per worker, so that the kernel spreads connections without a lock between workers.
fn open_tcp(address: SocketAddr, only_v6: bool, workers: usize) -> io::Result<Vec<Socket>> {
    // The first is bound alone: otherwise a second program with the same setting, or one that was given
    // the same free port, would silently share it.
    let first = bind_tcp(address, only_v6, false)?;
    first.set_reuse_port(true)?;
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let others = (1..workers).map(|_| bind_tcp(address, only_v6, true));
    let sockets = std::iter::once(Ok(first)).chain(others).collect::<io::Result<Vec<_>>>()?;
    sockets.into_iter().map(|socket| socket.listen(BACKLOG).map(|()| Socket::Tcp(socket.into()))).collect()
}

fn bind_tcp(address: SocketAddr, only_v6: bool, share: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_port(share)?;
    socket.set_nonblocking(true)?;
    // What comes in inherits that (tcp(7)), also what waits before anybody accepts.
    probe_silent(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Whether what is in the way of a new socket is one that nobody answers on: left over from a process that
/// was killed. Connecting to a file that is no socket is refused as well.
pub(crate) fn is_left_over(path: &Path, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
        && std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|refused| refused.kind() == io::ErrorKind::ConnectionRefused)
}

fn open_unix(path: &Path) -> io::Result<Socket> {
    let bound = std::os::unix::net::UnixListener::bind(path).or_else(|error| {
        if !is_left_over(path, &error) {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        std::os::unix::net::UnixListener::bind(path)
    })?;
    Ok(Socket::Unix(bound))
}

/// Sockets that systemd opened and passed (socket activation, sd_listen_fds(3)): they stay open over
/// a restart, so that no connection is refused.
#[derive(Default)]
pub struct Inherited {
    sockets: Vec<Socket>,
}

/// What was passed that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadSocket {
    /// It does not listen, or is no stream socket.
    #[error("socket {number} that systemd passed is no listening stream socket")]
    Kind {
        /// Counted from 1, in the order of the unit file.
        number: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Nothing in `[listen]` is about it.
    #[error(
        "systemd passed a socket for {address}, which [listen] does not name: ListenStream= and proxy.toml must agree"
    )]
    Unnamed {
        /// Where it listens.
        address: String,
    },
}

impl Inherited {
    /// What the environment says was passed; nothing if it was meant for another process.
    ///
    /// # Errors
    /// When something was passed that is no listening socket.
    pub fn from_environment() -> Result<Self, BadSocket> {
        let mut passed = listenfd::ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..passed.len() {
            let number = index + 1;
            let socket = match passed.take_unix_listener(index) {
                Ok(socket) => socket.map(Socket::Unix),
                Err(_) => passed
                    .take_tcp_listener(index)
                    .map_err(|source| BadSocket::Kind { number, source })?
                    .map(Socket::Tcp),
            };
            sockets.extend(socket);
        }
        Ok(Self { sockets })
    }

    fn take(&mut self, address: &ListenAddress) -> Option<Socket> {
        let at = self.sockets.iter().position(|socket| socket.is_at(address))?;
        Some(self.sockets.remove(at))
    }

    /// What is left when all addresses were looked up must not wait for connections that nobody takes.
    ///
    /// # Errors
    /// When something is left.
    pub fn finish(self) -> Result<(), BadSocket> {
        let Some(socket) = self.sockets.first() else { return Ok(()) };
        let address = match socket {
            Socket::Tcp(_) => socket.address().map_or_else(String::new, |address| address.to_string()),
            Socket::Unix(socket) => {
                let path = socket.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
                ListenAddress::Unix(path.unwrap_or_default()).to_string()
            }
        };
        Err(BadSocket::Unnamed { address })
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn of(socket: Socket) -> io::Result<Self> {
        Ok(match socket {
            Socket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            Socket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<(Connection, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| (Either::Left(stream), Some(peer))),
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Either::Right(stream), None)),
        }
    }
}

/// Who accepts.
#[derive(Clone, Copy)]
pub(super) struct Acceptor {
    /// The number of the worker.
    pub(super) worker: usize,
    /// Whether others may have to serve what it accepts.
    pub(super) hands_over: bool,
}

/// Accepts until it is told to stop. Errors such as a lack of file descriptors pass: it waits a
/// little, and longer each time, and goes on (S173).
pub(super) async fn accept<F, S>(socket: Socket, shared: Arc<Shared>, by: Acceptor, serve: F)
where
    F: Fn(Connection, Option<SocketAddr>, Permit) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    let listener = match Listener::of(socket) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(event = "listen.failed", error = %error),
    };
    let mut pause = Duration::from_millis(5);
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = Duration::from_millis(5);
                let server = if by.hands_over { shared.spread.server_for(by.worker) } else { by.worker };
                match shared.door.enter(&shared.limits.load(), &shared.spread.of(server)) {
                    Some(permit) if server == by.worker => {
                        tokio::spawn(serve(stream, peer, permit));
                    }
                    Some(permit) => match Handed::new(stream, peer, permit) {
                        Ok(handed) => shared.spread.hand_over(server, handed),
                        Err(error) => tracing::warn!(event = "accept.failed", error = %error),
                    },
                    None => tracing::debug!(event = "connection.refused", client = ?peer),
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

/// Serves what other workers hand over, until it is told to stop.
pub(super) async fn take_over<F, S>(mut handed: UnboundedReceiver<Handed>, shared: Arc<Shared>, serve: F)
where
    F: Fn(Connection, Option<SocketAddr>, Permit) -> S,
    S: Future<Output = ()> + Send + 'static,
{
    loop {
        let taken = tokio::select! {
            () = shared.stop.cancelled() => return,
            taken = handed.recv() => taken,
        };
        match taken.map(Handed::take) {
            Some(Ok((stream, peer, permit))) => {
                tokio::spawn(serve(stream, peer, permit));
            }
            Some(Err(error)) => tracing::warn!(event = "accept.failed", error = %error),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_cannot_be_listened_on_has_a_remedy() {
        let tcp = |port| ListenAddress::Tcp(([127, 0, 0, 1], port).into());
        let unix = || ListenAddress::Unix("/run/app.sock".into());
        for (address, kind, expected) in [
            (tcp(443), io::ErrorKind::PermissionDenied, "CAP_NET_BIND_SERVICE"),
            (tcp(8443), io::ErrorKind::AddrInUse, "another program listens there"),
            (tcp(8443), io::ErrorKind::AddrNotAvailable, "does not have that address"),
            (unix(), io::ErrorKind::NotFound, "its directory does not exist"),
        ] {
            let error = BindError { address, source: kind.into() }.to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(remedy(&io::ErrorKind::PermissionDenied.into(), &unix()), "", "no port, no capability");
    }
}
