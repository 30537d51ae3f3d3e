//! What a request takes of memory while it is under way.

use super::*;

/// A future is moved when it is made and each time that another one takes it in, with room for all that it may ever
/// wait for: what is seldom waited for, such as a new connection, is boxed.
const MOST: usize = 2600;

fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_future_of_a_request_is_small() {
    let size =
        size_of_future(|worker: &'static Worker, peer: &'static Peer, request: Box<Request<Option<Incoming>>>| {
            worker.handle(peer, request)
        });

    assert!(size <= MOST, "{size} instead of {MOST} bytes");
}
