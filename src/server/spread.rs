//! Which worker serves a connection. The system gives each to one of the listening sockets by chance: of
//! eight, one of two workers gets six or more three times in ten, and connections of HTTP/2 stay for hours.
//! So who accepts one while another worker has clearly fewer hands it over, before anything was read.

use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use tokio::sync::mpsc;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::either::Either;
use tokio_util::task::TaskTracker;

use crate::server::door::Permit;
use crate::server::listen::Connection;

/// The connections of every worker.
pub(super) struct Spread(Vec<Place>);

#[derive(Default)]
struct Place {
    /// Those that it serves, or is about to; its drain waits for them.
    connections: TaskTracker,
    /// What others hand to it, from when it begins to run.
    queue: OnceLock<UnboundedSender<Handed>>,
}

impl Place {
    fn takes_over(&self) -> bool {
        self.queue.get().is_some_and(|queue| !queue.is_closed())
    }
}

/// A connection on its way from one worker to another. Its permit bounds how many there are.
pub(super) struct Handed {
    stream: Either<std::net::TcpStream, UnixStream>,
    peer: Option<SocketAddr>,
    permit: Permit,
}

impl Spread {
    /// Among so many workers.
    pub(super) fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| Place::default()).collect())
    }

    /// The connections of a worker.
    pub(super) fn of(&self, worker: usize) -> TaskTracker {
        self.0.get(worker).map_or_else(TaskTracker::new, |place| place.connections.clone())
    }

    /// From here on a worker is handed connections. What it has not taken when this is dropped is closed.
    pub(super) fn join(&self, worker: usize) -> UnboundedReceiver<Handed> {
        let (sender, receiver) = mpsc::unbounded_channel();
        if let Some(place) = self.0.get(worker) {
            // Each joins once: a second queue would be nobody's.
            let _first = place.queue.set(sender);
        }
        receiver
    }

    /// Who serves the next connection that a worker accepts: itself, or one that has clearly fewer.
    pub(super) fn server_for(&self, own: usize) -> usize {
        let open = |(number, place): (usize, &Place)| (place.connections.len(), number);
        let others = self.0.iter().enumerate().filter(|(number, place)| *number != own && place.takes_over());
        match (others.map(open).min(), self.0.get(own)) {
            (Some((least, other)), Some(place)) if is_too_many(place.connections.len(), least) => other,
            (_, _) => own,
        }
    }

    /// Hands a connection to another worker. One that stops meanwhile closes it.
    pub(super) fn hand_over(&self, worker: usize, handed: Handed) {
        if let Some(queue) = self.0.get(worker).and_then(|place| place.queue.get()) {
            let _taken_or_closed = queue.send(handed);
        }
    }
}

impl Handed {
    /// Takes a connection away from the worker that calls this.
    ///
    /// # Errors
    /// When the system does not let go of it.
    pub(super) fn new(stream: Connection, peer: Option<SocketAddr>, permit: Permit) -> io::Result<Self> {
        let stream = match stream {
            Either::Left(tcp) => Either::Left(tcp.into_std()?),
            Either::Right(unix) => Either::Right(unix.into_std()?),
        };
        Ok(Self { stream, peer, permit })
    }

    /// The connection as the one of the worker that calls this.
    ///
    /// # Errors
    /// When the system does not tell this worker what happens on it.
    pub(super) fn take(self) -> io::Result<(Connection, Option<SocketAddr>, Permit)> {
        let stream = match self.stream {
            Either::Left(tcp) => Either::Left(tokio::net::TcpStream::from_std(tcp)?),
            Either::Right(unix) => Either::Right(tokio::net::UnixStream::from_std(unix)?),
        };
        Ok((stream, self.peer, self.permit))
    }
}

/// Whether so many are too many beside a worker that has so few. Handing over costs a little, and among many
/// connections chance is fair enough.
fn is_too_many(own: usize, least: usize) -> bool {
    own > least + 1 + least / 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_more_are_too_many_among_few_and_not_among_many() {
        for (least, most) in [(0, 1), (1, 2), (3, 4), (15, 16), (16, 18), (100, 107), (1_000, 1_063)] {
            assert!(!is_too_many(most, least), "{most} beside {least}");
            assert!(is_too_many(most + 1, least), "{} beside {least}", most + 1);
        }
        assert!(!is_too_many(3, 1_000));
    }

    #[test]
    fn the_least_loaded_serves_unless_it_does_not_run() {
        let spread = Spread::new(4);
        let queues: Vec<_> = [0, 1, 2].into_iter().map(|worker| spread.join(worker)).collect();
        let open: Vec<_> = [0, 0, 0, 0, 1, 1, 1].into_iter().map(|worker| spread.of(worker).token()).collect();

        assert_eq!([0, 1, 2].map(|own| spread.server_for(own)), [2, 2, 2], "the last does not run");
        let _two = [spread.of(2).token(), spread.of(2).token()];
        assert_eq!([0, 1, 2].map(|own| spread.server_for(own)), [2, 1, 2]);
        drop(queues);
        assert_eq!([0, 1, 2].map(|own| spread.server_for(own)), [0, 1, 2], "nobody takes over");
        drop(open);
        assert_eq!(Spread::new(1).server_for(0), 0);
    }
}
