//! Clients that do not wait for each other: each request has a time at which it is due, whatever became of
//! those before it, and what it took is counted from then.
//!
//! Each connection has a thread of its own, which sleeps until its next request is due: no dispatcher and no
//! timer wheel stands between the schedule and the socket. There are so many connections that a request
//! finds its own one busy only when the one before took dozens of milliseconds; then it is sent late, and
//! what it waited counts.

use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use rustls::ClientConfig;

use crate::http1::Http1;
use crate::http2::Http2;
use crate::load::Client;
use crate::load::Resume;
use crate::process::Server;

pub const CONNECTIONS: usize = 256;
/// Until all threads are there.
const READY: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// What became of one request.
pub struct Sample {
    /// When it was due, counted from the start.
    pub due: Duration,
    /// From then until the last byte of the answer.
    pub took: Duration,
    /// How much later than it could have been sent it was: the client's own fault.
    pub late: Duration,
    /// 0 when the connection ended instead.
    pub status: u16,
}

/// What every request says, and to whom.
pub struct Visit {
    pub port: u16,
    pub authority: String,
    pub cookie: String,
    pub tls: Arc<ClientConfig>,
}

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection, on which one request at a time is made.
pub trait Ask: Send {
    /// The status, when the answer has been read to its end.
    fn ask(&mut self) -> Result<u16, Failure>;
}

impl Visit {
    fn connect(&self, protocol: Protocol) -> Result<Box<dyn Ask>, Failure> {
        Ok(match protocol {
            Protocol::Http1 => Box::new(Http1::open(self)?),
            Protocol::Http2 => Box::new(Http2::open(self)?),
        })
    }
}

/// Asks for pages when they are due, while something else goes on, which is told when it begins and gives back
/// what it likes.
pub fn visit<T>(
    client: &Client,
    server: &Server,
    protocol: Protocol,
    due: &[Duration],
    meanwhile: impl FnOnce(Instant) -> T,
) -> (Vec<Sample>, T) {
    let mut tls = ClientConfig::clone(&client.settings(Resume::Never));
    if protocol == Protocol::Http2 {
        tls.alpn_protocols = vec![b"h2".to_vec()];
    }
    let (authority, cookie) = (server.authority(), client.session(server));
    let visit = Visit { port: server.port, authority, cookie, tls: Arc::new(tls) };
    let connect = |_| {
        let mut connection = visit.connect(protocol).unwrap();
        assert_eq!(connection.ask().unwrap(), 200, "{}", server.name);
        connection
    };
    let connections: Vec<_> = (0..CONNECTIONS).map(connect).collect();
    let (visit, start) = (&visit, Instant::now() + READY);
    thread::scope(|scope| {
        let own = |number| due.iter().copied().skip(number).step_by(CONNECTIONS);
        let visitors: Vec<_> = connections
            .into_iter()
            .enumerate()
            .map(|(number, mut connection)| {
                scope.spawn(move || {
                    own(number).map(|due| keep(&mut connection, visit, protocol, start, due)).collect::<Vec<_>>()
                })
            })
            .collect();
        let met = meanwhile(start);
        (visitors.into_iter().flat_map(|visitor| visitor.join().unwrap()).collect(), met)
    })
}

/// Makes one request when it is due, on another connection if this one has ended.
fn keep(connection: &mut Box<dyn Ask>, visit: &Visit, protocol: Protocol, start: Instant, due: Duration) -> Sample {
    let (at, free) = (start + due, Instant::now());
    thread::sleep(at.saturating_duration_since(free));
    let late = at.max(free).elapsed();
    let status = connection.ask().unwrap_or(0);
    let took = at.elapsed();
    if status == 0
        && let Ok(another) = visit.connect(protocol)
    {
        *connection = another;
    }
    Sample { due, took, late, status }
}
