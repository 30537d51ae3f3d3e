//! Peers that have left without a word: a machine that lost its power or its network says no goodbye, and a
//! connection on which nothing has to be written would wait for it for ever (S172). TCP asks (RFC 9293 3.8.4).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::SockRef;
use socket2::TcpKeepalive;

/// How long nothing may come before TCP asks.
const SILENT_FOR: Duration = Duration::from_secs(60);
/// Between two questions; how many of them in a row the system may have unanswered is its own setting (Linux: 9).
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Has TCP ask whether the peer of a connection, or of those that will be accepted on a listening socket, is still
/// there.
///
/// # Errors
/// When the system refuses it.
pub fn probe_silent(socket: &impl AsFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new().with_time(SILENT_FOR).with_interval(ASK_EVERY);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}
