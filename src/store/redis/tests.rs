//! Answers that are lost on their way.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;

use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::net::UnixStream;

use super::*;
use crate::clock::SystemClock;
use crate::policy::dbsc::Device;
use crate::policy::session::Life;
use crate::store::fixtures::IDLE;
use crate::store::fixtures::Redis;
use crate::store::fixtures::at;
use crate::store::fixtures::handle;
use crate::store::fixtures::of;
use crate::store::fixtures::program;
use crate::store::fixtures::put;
use crate::store::redis::script::Script;
use crate::store::redis::settings::ServerAddress;

/// What the client must have said for its connection to be cut.
type Word = Arc<Mutex<Option<String>>>;

/// A way to a server that is cut once, behind a question and before its answer.
struct Cut {
    word: Word,
    _place: TempDir,
}

impl Cut {
    /// A Redis, and a store on the other side of the cut.
    fn store() -> (Redis, RedisStore, Self) {
        let (server, place) = (Redis::start(), tempfile::tempdir().unwrap());
        let mut settings = server.settings();
        let ServerAddress::Unix(target) = settings.servers[0].clone() else { panic!("it has a socket") };
        let socket = place.path().join("cut.sock");
        let (listener, word) = (UnixListener::bind(&socket).unwrap(), Word::default());
        let armed = Arc::clone(&word);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, UnixStream::connect(&target).await.unwrap(), Arc::clone(&armed)));
            }
        });
        settings.servers = vec![ServerAddress::Unix(socket)];
        let (store, _) = RedisStore::open(&settings, Keys::default(), Arc::new(SystemClock::start())).unwrap();
        (server, store, Self { word, _place: place })
    }

    /// The answer to this script will be lost.
    fn next(&self, script: &Script) {
        *self.word.lock().unwrap() = Some(script.digest().to_owned());
    }

    fn assert_done(&self) {
        assert!(self.word.lock().unwrap().is_none(), "nothing was cut");
    }
}

async fn pass(client: UnixStream, server: UnixStream, word: Word) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
        let said = String::from_utf8_lossy(&buffer[..read]);
        let is_it = word.lock().unwrap().take_if(|word| said.contains(word.as_str())).is_some();
        if is_it {
            back.abort();
        }
        if to_server.write_all(&buffer[..read]).await.is_err() || is_it {
            // The server's side stays open until it has read everything.
            let _until_the_end = to_server.shutdown().await;
            return;
        }
    }
    back.abort();
}

/// Whether there is anything in the place of a record.
async fn left(store: &RedisStore, number: u8) -> bool {
    let record = store.shared.names.record(&names::ref_of(handle(number).key()));
    let there = store.shared.nodes.call(&record, ::redis::cmd("EXISTS").arg(&record)).await.unwrap();
    there == ::redis::Value::Int(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_ends_a_session_is_told_so_also_when_the_answer_is_lost() {
    // S182: once, and nobody else.
    let (_server, store, cut) = Cut::store();
    for number in 1..=4 {
        assert_eq!(store.create(&handle(number), of("alice"), IDLE).await.unwrap(), Presence::Present);
    }

    cut.next(&script::END);
    let removed = store.remove(handle(1).key(), false, at(1)).await.unwrap();
    cut.assert_done();
    assert_eq!(removed.unwrap().user.unwrap().as_str(), "alice");
    assert!(store.remove(handle(1).key(), false, at(1)).await.unwrap().is_none());
    assert!(!left(&store, 1).await, "nothing is left of it");

    cut.next(&script::END);
    let taken = store.take(&handle(2), at(1)).await.unwrap();
    cut.assert_done();
    assert_eq!(taken.unwrap().identity.unwrap().user.as_str(), "alice");
    assert!(store.take(&handle(2), at(1)).await.unwrap().is_none());
    assert!(matches!(store.load(&handle(2), at(2)).await.unwrap(), Found::Tombstone));

    cut.next(&script::END);
    let removed = store.remove_at(handle(4).key(), 0).await.unwrap();
    cut.assert_done();
    assert!(matches!(removed, Removal::Removed(_)));
    assert!(matches!(store.remove_at(handle(4).key(), 0).await.unwrap(), Removal::Gone));

    cut.next(&script::REAP);
    let over = |_: &str, life: Life| (life.seen == at(0)).then_some(EndReason::Idle);
    let swept = store.sweep(&over, at(IDLE.as_secs())).await.unwrap();
    cut.assert_done();
    assert_eq!(swept.iter().map(|(key, _, _)| *key).collect::<Vec<_>>(), [*handle(3).key()]);
    assert!(!left(&store, 3).await, "nothing is left of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_end_leaves_for_whoever_has_not_heard_of_it_is_no_session() {
    // S182: the caller may be gone before it can say that it was told.
    let server = Redis::start();
    let (store, _) = RedisStore::open(&server.settings(), Keys::default(), Arc::new(SystemClock::start())).unwrap();
    for (number, since) in [(1, ""), (2, "1000")] {
        assert_eq!(store.create(&handle(number), of("alice"), IDLE).await.unwrap(), Presence::Present);
        let name = names::ref_of(handle(number).key());
        let ended = store.shared.run(&script::END, name, |command| {
            command.arg("me").arg(since).arg(60_000).arg("");
        });
        ended.await.unwrap();
        assert!(left(&store, number).await);

        let found = store.reload(&handle(number), at(1)).await.unwrap();
        assert!(matches!((&found, since), (Found::Absent, "") | (Found::Tombstone, "1000")), "{found:?}");
        assert!(store.peek(handle(number).key()).await.unwrap().is_none());
        assert_eq!(store.touch(handle(number).key(), at(1), IDLE).await.unwrap(), Presence::Gone);
        assert_eq!(store.swap_chain(handle(number).key(), 0, of("alice").chain).await.unwrap(), Swap::Gone);
        assert!(store.take(&handle(number), at(1)).await.unwrap().is_none(), "it was somebody else");
    }
    assert_eq!(store.by_user("alice", None).await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_else_in_the_place_of_a_record_is_no_session() {
    // S186
    let server = Redis::start();
    let (store, _) = RedisStore::open(&server.settings(), Keys::default(), Arc::new(SystemClock::start())).unwrap();
    for number in 1..=3 {
        assert_eq!(store.create(&handle(number), of("alice"), IDLE).await.unwrap(), Presence::Present);
    }
    let ServerAddress::Unix(socket) = &server.settings().servers[0] else { panic!("it has a socket") };
    overwrite(socket, &store.shared.names.record(&names::ref_of(handle(1).key())));

    let key = *handle(1).key();
    assert!(matches!(store.reload(&handle(1), at(1)).await.unwrap(), Found::Absent));
    assert!(store.peek(&key).await.unwrap().is_none());
    assert_eq!(store.touch(&key, at(1), IDLE).await.unwrap(), Presence::Gone);
    assert_eq!(store.swap_chain(&key, 0, of("alice").chain).await.unwrap(), Swap::Gone);
    assert_eq!(store.create(&handle(1), of("alice"), IDLE).await.unwrap(), Presence::Gone);
    assert!(store.take(&handle(1), at(1)).await.unwrap().is_none());
    assert_eq!(store.find(&key.session_ref()).await.unwrap(), None);
    assert_eq!(store.by_user("alice", None).await.unwrap().len(), 2, "the others are there");
    let over = |_: &str, _: Life| Some(EndReason::Idle);
    assert_eq!(store.sweep(&over, at(IDLE.as_secs())).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_keeps_the_key_that_it_is_sealed_with() {
    // S184: while keys are changed, some nodes have the old one only, or seal with it.
    const NEW: &str = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=";
    const OLD: &str = "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=";
    let server = Redis::start();
    let open = |secrets: &[&str]| {
        RedisStore::open(&server.settings(), Keys::of(secrets), Arc::new(SystemClock::start())).unwrap().0
    };
    let (old, new) = (open(&[OLD]), open(&[NEW, OLD]));
    let device = Some(Box::new(Device::offered([7; 32])));
    let record = Record { device, ..of("alice") };
    assert_eq!(old.create(&handle(1), record.clone(), IDLE).await.unwrap(), Presence::Present);
    assert_eq!(new.create(&handle(2), record, IDLE).await.unwrap(), Presence::Present);

    assert_eq!(new.change_vault(&handle(1), &[put("one")], at(1)).await.unwrap(), Presence::Present);
    assert_eq!(new.bind(&handle(1)).await.unwrap(), Presence::Present);

    for store in [&old, &new] {
        let Found::Record(found) = store.reload(&handle(1), at(1)).await.unwrap() else { panic!("it is there") };
        assert_eq!((found.vault.cookies().len(), found.device.unwrap().is_bound()), (1, true));
    }
    assert!(matches!(old.reload(&handle(2), at(1)).await.unwrap(), Found::Absent));
    assert_eq!(old.change_vault(&handle(2), &[put("one")], at(1)).await.unwrap(), Presence::Gone);
    assert_eq!(old.bind(&handle(2)).await.unwrap(), Presence::Gone);
    assert!(new.take(&handle(1), at(1)).await.unwrap().is_some());
}

/// Writes something else there.
fn overwrite(socket: &Path, key: &[u8]) {
    let mut command = program("redis-cli");
    let output = command.arg("-s").arg(socket).args(["SET", std::str::from_utf8(key).unwrap(), "x"]).output().unwrap();
    assert_eq!(output.stdout, b"OK\n");
}
