//! Rotation against revocation, ten thousand times: what has ended stays ended, and one caller ends it (S182).

use std::sync::Arc;

use tokio::task::JoinSet;

use super::*;
use crate::clock::SystemClock;
use crate::policy::session::SessionId;
use crate::store::fixtures::IDLE;
use crate::store::fixtures::Redis;
use crate::store::fixtures::at;
use crate::store::fixtures::of;

const ROUNDS: u32 = 10_000;
/// Races that run side by side.
const AT_ONCE: usize = 128;

/// What came of one race.
#[derive(Clone, Copy, Default)]
struct Outcome {
    rotations: usize,
    ends: usize,
}

/// One session that is rotated here and revoked there, twice, all at once.
async fn race(number: u32, here: Arc<dyn SessionStore>, there: Arc<dyn SessionStore>) -> Outcome {
    let mut bytes = [7; 32];
    bytes[..4].copy_from_slice(&number.to_be_bytes());
    let handle = SessionId::from_random(bytes).handle();
    assert_eq!(here.create(&handle, of("alice"), IDLE).await.unwrap(), Presence::Present);
    let Found::Record(before) = here.load(&handle, at(1)).await.unwrap() else { panic!("it has just been made") };
    let chain = before.chain.offer(&[0; 16], &[1; 16], before.binding.clone(), at(1));

    let (store, presented) = (Arc::clone(&here), handle.clone());
    let rotate =
        async move { store.swap_chain(presented.key(), before.revision, chain).await.unwrap() == Swap::Swapped };
    let (store, presented) = (Arc::clone(&there), handle.clone());
    let remove = async move {
        let is_told = store.remove(presented.key(), true, at(2)).await.unwrap().is_some();
        // Dead for whoever asks from now on, whatever the rotation did or is about to do.
        assert!(!matches!(store.reload(&presented, at(2)).await.unwrap(), Found::Record(_)));
        is_told
    };
    let (store, presented) = (Arc::clone(&here), handle.clone());
    let take = async move { store.take(&presented, at(2)).await.unwrap().is_some() };
    // On a busy machine what is spawned last is run first: each is that now and then.
    let (rotation, removal, taking);
    if number.is_multiple_of(2) {
        (rotation, removal, taking) = (tokio::spawn(rotate), tokio::spawn(remove), tokio::spawn(take));
    } else {
        (taking, removal, rotation) = (tokio::spawn(take), tokio::spawn(remove), tokio::spawn(rotate));
    }
    let (rotated, removed, taken) = (rotation.await.unwrap(), removal.await.unwrap(), taking.await.unwrap());

    for store in [&here, &there] {
        assert!(!matches!(store.reload(&handle, at(3)).await.unwrap(), Found::Record(_)), "it lives again");
        assert!(store.peek(handle.key()).await.unwrap().is_none());
    }
    Outcome { rotations: usize::from(rotated), ends: usize::from(removed) + usize::from(taken) }
}

async fn ten_thousand_races(here: Arc<dyn SessionStore>, there: Arc<dyn SessionStore>) {
    let (mut races, mut all) = (JoinSet::new(), Outcome::default());
    for number in 0..ROUNDS {
        if races.len() >= AT_ONCE {
            count(&mut all, races.join_next().await.unwrap().unwrap());
        }
        races.spawn(race(number, Arc::clone(&here), Arc::clone(&there)));
    }
    races.join_all().await.into_iter().for_each(|outcome| count(&mut all, outcome));
    assert_eq!(all.ends, usize::try_from(ROUNDS).unwrap(), "each was ended by one");
    assert!(all.rotations > 0, "no race was one");
    assert_eq!(here.by_user("alice", None).await.unwrap(), []);
}

fn count(all: &mut Outcome, outcome: Outcome) {
    assert_eq!(outcome.ends, 1, "one ender is told");
    all.rotations += outcome.rotations;
    all.ends += outcome.ends;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_memory() {
    // S182
    let store = Arc::new(MemoryStore::default());
    ten_thousand_races(store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_file() {
    // S182
    let place = tempfile::tempdir().unwrap();
    let store = Arc::new(FileStore::open(&place.path().join("sessions.redb"), Keys::default()).unwrap());
    ten_thousand_races(store.clone(), store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn over_two_nodes_of_one_redis() {
    // S182
    let server = Redis::start();
    let open =
        || Arc::new(RedisStore::open(&server.settings(), Keys::default(), Arc::new(SystemClock::start())).unwrap().0);
    ten_thousand_races(open(), open()).await;
}
