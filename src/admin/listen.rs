//! The sockets of the admin surface. A unix socket is for its owner only (S188, S189): the kernel asks
//! for the right to write to its file.

use std::fs::DirBuilder;
use std::fs::File;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::path::PathBuf;

use socket2::Domain;
use socket2::SockAddr;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::UnixListener;
use tokio::net::UnixStream;
use tokio_util::either::Either;

use crate::admin::guard::Caller;
use crate::config::ListenAddress;
use crate::server::is_left_over;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 16;

/// A place that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {place} for the admin interface{}", remedy(.source))]
pub struct ListenError {
    place: ListenAddress,
    #[source]
    source: io::Error,
}

#[allow(clippy::wildcard_enum_match_arm)] // The list of kinds is the standard library's and grows.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            " (another program listens there, or it is no socket: choose another place with admin.listen)"
        }
        io::ErrorKind::InvalidInput => " (the path is too long for a socket: choose a shorter one with admin.listen)",
        io::ErrorKind::PermissionDenied => " (it may not be made there: choose another place with admin.listen)",
        _ => "",
    }
}

/// A listening socket; its file is removed when it is dropped.
pub(super) struct Listening {
    /// Where, with the port that the system chose.
    pub(super) place: ListenAddress,
    socket: Bound,
    file: Option<PathBuf>,
}

enum Bound {
    Tcp(std::net::TcpListener),
    Unix(StdUnixListener),
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            // Left over, it is removed by the next start.
            let _best_effort = std::fs::remove_file(file);
        }
    }
}

impl Listening {
    pub(super) fn open(place: &ListenAddress) -> Result<Self, ListenError> {
        let failed = |source| ListenError { place: place.clone(), source };
        match place {
            ListenAddress::Unix(path) => {
                let socket = Bound::Unix(open_unix(path).map_err(failed)?);
                Ok(Self { place: place.clone(), socket, file: Some(path.clone()) })
            }
            ListenAddress::Tcp(address) => {
                let socket = std::net::TcpListener::bind(address).map_err(failed)?;
                socket.set_nonblocking(true).map_err(failed)?;
                let place = ListenAddress::Tcp(socket.local_addr().map_err(failed)?);
                Ok(Self { place, socket: Bound::Tcp(socket), file: None })
            }
        }
    }

    /// Takes it to the runtime that accepts on it.
    pub(super) fn listener(&self) -> io::Result<Listener> {
        Ok(match &self.socket {
            Bound::Tcp(socket) => Listener::Tcp(TcpListener::from_std(socket.try_clone()?)?),
            Bound::Unix(socket) => Listener::Unix(UnixListener::from_std(socket.try_clone()?)?),
        })
    }
}

fn open_unix(path: &Path) -> io::Result<StdUnixListener> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty() && !directory.exists())
    {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let address = SockAddr::unix(path)?;
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Its file gets the mode of the socket: at no moment can others connect.
        let closed = File::from(OwnedFd::from(socket));
        closed.set_permissions(Permissions::from_mode(0o600))?;
        let socket = Socket::from(OwnedFd::from(closed));
        socket.bind(&address).map(|()| socket)
    };
    let socket = bind().or_else(|error| {
        if !is_left_over(path, &error) {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        bind()
    })?;
    // Where the system gives the file another mode.
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(StdUnixListener::from(OwnedFd::from(socket)))
}

pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<(Either<TcpStream, UnixStream>, Caller)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Ok((Either::Left(stream), Caller::Remote(peer.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                Ok((Either::Right(stream), Caller::Local(user)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_for_its_owner_and_replaces_only_what_nobody_answers_on() {
        // S188, S189
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("run/admin.sock");
        let at = ListenAddress::Unix(path.clone());
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let first = Listening::open(&at).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));

        let second = Listening::open(&at).map(|_| ()).unwrap_err().to_string();

        assert!(second.contains("another program listens there"), "{second}");
        drop(first);
        assert!(!path.exists());
        // As after a crash: the file is there, and nobody listens.
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(Listening::open(&at).is_ok());
        // Whatever else is there stays.
        std::fs::write(&path, "precious").unwrap();
        let error = Listening::open(&at).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("it is no socket"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let long = ListenAddress::Unix(place.path().join("x".repeat(200)));
        let error = Listening::open(&long).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("too long for a socket"), "{error}");
    }
}
