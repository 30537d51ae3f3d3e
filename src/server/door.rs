//! How many connections there may be, in all and from one address (S173).

use std::io;
use std::io::IoSlice;
use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::task::Context;
use std::task::Poll;

use dashmap::DashMap;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::ReadBuf;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::policy::site::Limits;
use crate::server::activity::Activity;
use crate::write::poll_write_slices;

/// Counts who is in.
#[derive(Clone, Default)]
pub(super) struct Door {
    inside: Arc<Inside>,
}

#[derive(Default)]
struct Inside {
    total: AtomicUsize,
    by_address: DashMap<IpAddr, usize>,
}

/// A connection that was let in; it leaves when this is dropped.
pub(super) struct Permit {
    inside: Arc<Inside>,
    /// The client it is counted for, once that is known.
    address: Option<IpAddr>,
    /// The drain waits for it.
    _open: TaskTrackerToken,
}

/// The bytes of a connection that was let in. Whoever holds them is inside, also when HTTP has handed
/// them on to a tunnel.
pub(super) struct Admitted<S> {
    stream: S,
    activity: Activity,
    _permit: Permit,
}

impl Door {
    /// How many are in.
    pub(super) fn inside(&self) -> usize {
        self.inside.total.load(Ordering::Relaxed)
    }

    /// Lets a connection in, unless there are too many.
    pub(super) fn enter(&self, limits: &Limits, connections: &TaskTracker) -> Option<Permit> {
        if self.inside.total.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.inside.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit { inside: Arc::clone(&self.inside), address: None, _open: connections.token() })
    }
}

impl Permit {
    /// Counts the connection for this client; `false` when the client has too many.
    pub(super) fn count(&mut self, address: IpAddr, limits: &Limits) -> bool {
        let address = counted_as(address);
        let mut count = self.inside.by_address.entry(address).or_insert(0);
        *count += 1;
        self.address = Some(address);
        *count <= limits.connections_per_address
    }
}

/// Whoever has an IPv6 address has all of its /64 (RFC 8981).
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inside.total.fetch_sub(1, Ordering::Relaxed);
        let Some(address) = self.address else { return };
        self.inside.by_address.remove_if_mut(&address, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

impl<S> Admitted<S> {
    pub(super) fn new(stream: S, permit: Permit) -> Self {
        Self { stream, activity: Activity::new(), _permit: permit }
    }

    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(bytes)) = written {
            self.activity.took(*bytes);
        }
    }

    /// What happens on it.
    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Admitted<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.heard();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Admitted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = poll_write_slices(Pin::new(&mut self.stream), cx, slices);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        // S173
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let (door, connections) = (Door::default(), TaskTracker::new());
        let enter = |address: [u8; 4]| {
            let mut permit = door.enter(&limits, &connections)?;
            permit.count(IpAddr::from(address), &limits).then_some(permit)
        };
        let first = enter([10, 0, 0, 1]);
        let second = enter([10, 0, 0, 1]);
        assert!(first.is_some() && second.is_some());
        assert!(enter([10, 0, 0, 1]).is_none(), "two from one address");
        let third = enter([10, 0, 0, 2]);
        assert!(third.is_some());
        assert!(enter([10, 0, 0, 3]).is_none(), "three in all");
        drop((first, second, third));
        assert!(enter([10, 0, 0, 1]).is_some());
        assert!(door.inside.by_address.is_empty());
        assert!(connections.is_empty(), "nothing to wait for");
    }

    #[test]
    fn a_network_counts_once() {
        // S173
        for (address, counted) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            assert_eq!(counted_as(address.parse().unwrap()).to_string(), counted);
        }
    }
}
