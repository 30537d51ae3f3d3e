//! How many connections there may be, in all and from one address (S173).

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use dashmap::DashMap;

use crate::policy::site::Limits;

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
    address: IpAddr,
}

impl Door {
    /// Lets a connection in, unless there are too many.
    pub(super) fn enter(&self, peer: SocketAddr, limits: &Limits) -> Option<Permit> {
        let address = peer.ip().to_canonical();
        if self.inside.total.fetch_add(1, Ordering::Relaxed) >= limits.connections {
            self.inside.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let mut count = self.inside.by_address.entry(address).or_insert(0);
        *count += 1;
        let is_too_many = *count > limits.connections_per_address;
        drop(count);
        let permit = Permit { inside: Arc::clone(&self.inside), address };
        (!is_too_many).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.inside.total.fetch_sub(1, Ordering::Relaxed);
        self.inside.by_address.remove_if_mut(&self.address, |_, count| {
            *count = count.saturating_sub(1);
            *count == 0
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_no_more() {
        // S173
        let limits = Limits { connections: 3, connections_per_address: 2, ..Limits::default() };
        let door = Door::default();
        let enter = |address: [u8; 4]| door.enter(SocketAddr::from((address, 1)), &limits);
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
    }
}
