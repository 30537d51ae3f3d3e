//! The sentences of [`Shelf`].

use super::*;
use crate::store::shelf::Kind;
use crate::store::shelf::LONGEST;
use crate::store::shelf::Name;
use crate::store::shelf::Version;

const LONG: Duration = Duration::from_secs(3600);

fn name(number: u8) -> Name {
    Name::of(Kind::Devices, &[&[number]])
}

async fn value(store: &dyn SessionStore, name: &Name) -> Option<(Version, Bytes)> {
    store.shelved(name, at(1)).await.unwrap().map(|shelved| (shelved.version, shelved.value))
}

async fn put(store: &dyn SessionStore, name: &Name, expected: Option<Version>, value: &[u8]) -> Swap {
    store.shelve(name, expected, Bytes::copy_from_slice(value), LONG, at(1)).await.unwrap()
}

async fn a_value_is_found_under_its_name_alone(store: Arc<dyn SessionStore>) {
    let binary: Vec<u8> = (0..=255).collect();
    for (name, text) in [(name(1), &binary[..]), (name(2), b""), (Name::of(Kind::Attempts, &[&[1]]), b"other")] {
        assert_eq!(put(&*store, &name, None, text).await, Swap::Swapped);
        assert_eq!(value(&*store, &name).await.unwrap().1, text);
    }
    assert_eq!(value(&*store, &name(1)).await.unwrap().1, binary);
    for other in [name(3), Name::of(Kind::Learned, &[&[1]]), Name::of(Kind::Devices, &[&[1], &[]])] {
        assert_eq!(value(&*store, &other).await, None);
    }
}

async fn a_value_is_replaced_only_at_its_version(store: Arc<dyn SessionStore>) {
    assert_eq!(put(&*store, &name(1), None, b"one").await, Swap::Swapped);
    let (first, _) = value(&*store, &name(1)).await.unwrap();
    assert_eq!(put(&*store, &name(1), None, b"none").await, Swap::Stale);
    assert_eq!(put(&*store, &name(1), Some(first), b"two").await, Swap::Swapped);
    assert_eq!(put(&*store, &name(1), Some(first), b"three").await, Swap::Stale);
    assert_eq!(value(&*store, &name(1)).await.unwrap().1, "two");
    assert_eq!(put(&*store, &name(2), Some(first), b"three").await, Swap::Gone);
}

async fn nothing_revives_a_value(store: Arc<dyn SessionStore>) {
    // VR-48
    assert_eq!(put(&*store, &name(1), None, b"one").await, Swap::Swapped);
    let (first, _) = value(&*store, &name(1)).await.unwrap();
    store.unshelve(&name(1)).await.unwrap();
    assert_eq!(value(&*store, &name(1)).await, None);
    assert_eq!(put(&*store, &name(1), Some(first), b"two").await, Swap::Gone);
    assert_eq!(put(&*store, &name(1), None, b"one").await, Swap::Swapped);
    assert_eq!(put(&*store, &name(1), Some(first), b"two").await, Swap::Stale);
    store.unshelve(&name(2)).await.unwrap();
}

async fn a_value_lives_as_long_as_was_said(store: Arc<dyn SessionStore>) {
    let lives = Duration::from_millis(200);
    assert_eq!(store.shelve(&name(1), None, Bytes::from("one"), lives, at(1)).await.unwrap(), Swap::Swapped);
    assert_eq!(put(&*store, &name(2), None, b"two").await, Swap::Swapped);
    let first = store.shelved(&name(2), at(1)).await.unwrap().unwrap();
    // Where time is the server's, that takes its time.
    while store.shelved(&name(1), at(2)).await.unwrap().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = store.shelve(&name(1), Some(first.version), Bytes::from("one"), LONG, at(2)).await.unwrap();
    assert_eq!(late, Swap::Gone);
    assert_eq!(store.shelved(&name(2), at(2)).await.unwrap(), Some(first));
    assert_eq!(store.shelve(&name(1), None, Bytes::from("new"), LONG, at(2)).await.unwrap(), Swap::Swapped);
}

async fn parallel_changes_of_a_value_are_never_lost(store: Arc<dyn SessionStore>) {
    // S152
    let count = |store: Arc<dyn SessionStore>| async move {
        loop {
            let found = value(&*store, &name(1)).await;
            let (version, count) = found.map_or((None, 0), |(version, value)| (Some(version), value[0]));
            if put(&*store, &name(1), version, &[count + 1]).await == Swap::Swapped {
                return;
            }
        }
    };
    let counting: Vec<_> = (0..50).map(|_| tokio::spawn(count(Arc::clone(&store)))).collect();
    for counted in counting {
        counted.await.unwrap();
    }
    assert_eq!(value(&*store, &name(1)).await.unwrap().1[..], [50]);
}

async fn what_is_too_long_is_not_kept(store: Arc<dyn SessionStore>) {
    let long = |more: usize| Bytes::from(vec![b'x'; LONGEST + more]);
    assert!(store.shelve(&name(1), None, long(1), LONG, at(1)).await.is_err());
    assert_eq!(value(&*store, &name(1)).await, None);
    assert_eq!(store.shelve(&name(1), None, long(0), LONG, at(1)).await.unwrap(), Swap::Swapped);
}

contract! {
    a_value_is_found_under_its_name_alone
    a_value_is_replaced_only_at_its_version
    nothing_revives_a_value
    a_value_lives_as_long_as_was_said
    parallel_changes_of_a_value_are_never_lost
    what_is_too_long_is_not_kept
}
