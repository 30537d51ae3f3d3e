//! Keys in memory and in a directory, over time, by one process and by several.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
use aws_lc_rs::signature::UnparsedPublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use tempfile::TempDir;

use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn opened(directory: &Path, now: Timestamp) -> Arc<Keys> {
    Rings::default().open(KeyPlace::Directory(directory.to_owned()), now).unwrap()
}

fn published(keys: &Keys, now: Timestamp) -> Vec<String> {
    let set = keys.published(now);
    set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
}

fn signer(keys: &Keys, now: Timestamp) -> String {
    keys.signer(now).unwrap().id().to_owned()
}

fn files(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_signed_is_verified_by_what_is_published() {
    // S73
    let keys = Rings::default().open(KeyPlace::Memory, NOW).unwrap();
    let token = keys.signer(NOW).unwrap().sign("{}").unwrap();

    let parts: Vec<&str> = token.split('.').collect();
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).unwrap();
    let head: Value = serde_json::from_slice(&decoded(parts[0])).unwrap();
    let jwk = keys.published(NOW)["keys"][0].clone();
    assert_eq!((&head["alg"], &head["typ"], &head["kid"]), (&"ES256".into(), &"JWT".into(), &jwk["kid"]));
    assert_eq!(decoded(parts[1]), b"{}");
    let mut point = vec![4];
    ["x", "y"].into_iter().for_each(|half| point.extend(decoded(jwk[half].as_str().unwrap())));
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &point);
    let signed = format!("{}.{}", parts[0], parts[1]);
    assert!(key.verify(signed.as_bytes(), &decoded(parts[2])).is_ok());
    assert!(key.verify(b"something else", &decoded(parts[2])).is_err());
    assert_eq!(jwk.as_object().unwrap().len(), 7, "no private half: {jwk}");
}

#[test]
fn keys_stay_over_a_restart_and_are_for_their_owner() {
    // VR-46
    let place = TempDir::new().unwrap();
    let directory = place.path().join("deep/keys");
    let first = signer(&opened(&directory, NOW), NOW);

    assert_eq!(signer(&opened(&directory, NOW.plus(DAY)), NOW.plus(DAY)), first);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(files(&directory), ["from-1800000000.pem", "lock"]);
    assert_eq!(mode(&directory), 0o700);
    let file = directory.join("from-1800000000.pem");
    assert_eq!(mode(&file), 0o600);

    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(signer(&opened(&directory, NOW), NOW), first);
    assert_eq!(mode(&file), 0o600, "closed to others again");
}

#[test]
fn the_next_key_is_published_before_it_signs_and_the_last_one_after_it_did() {
    for place in [KeyPlace::Memory, KeyPlace::Directory(TempDir::new().unwrap().keep())] {
        let keys = Rings::default().open(place.clone(), NOW).unwrap();
        let first = signer(&keys, NOW);
        let later = |days: u32, more: u64| NOW.plus(DAY * days).plus(Duration::from_secs(more));

        keys.tend(later(29, 0)).unwrap();
        let both = published(&keys, later(29, 0));
        assert_eq!((both.len(), signer(&keys, later(29, 0))), (2, first.clone()));
        assert_eq!(signer(&keys, later(30, 0)), both[1]);
        keys.tend(later(30, 3598)).unwrap();
        assert_eq!(published(&keys, later(30, 3598)), both);
        assert_eq!(published(&keys, later(30, 3600)), both[1..]);
        keys.tend(later(30, 3600)).unwrap();

        if let KeyPlace::Directory(path) = place {
            assert_eq!(files(&path), ["from-1802592000.pem", "lock"]);
            assert_eq!(published(&opened(&path, later(31, 0)), later(31, 0)), both[1..]);
            std::fs::remove_dir_all(path).unwrap();
        }
    }
}

#[test]
fn processes_that_share_a_directory_share_their_keys() {
    let place = TempDir::new().unwrap();
    let all: Vec<Arc<Keys>> = thread::scope(|scope| {
        let open = || scope.spawn(|| opened(place.path(), NOW));
        let threads: Vec<_> = (0..8).map(|_| open()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let first = signer(&all[0], NOW);
    assert!(all.iter().all(|keys| published(keys, NOW) == [first.clone()]));

    // All of them find that it is time for the next one; who comes while another is at it takes it in the next round.
    let later = NOW.plus(DAY * 29);
    for _ in 0..2 {
        thread::scope(|scope| {
            for keys in &all {
                scope.spawn(move || keys.tend(later).unwrap());
            }
        });
    }

    let both = published(&all[0], later);
    assert_eq!(both.len(), 2);
    assert!(all.iter().all(|keys| published(keys, later) == both));
}

#[test]
fn a_key_that_is_taken_away_is_replaced() {
    let place = TempDir::new().unwrap();
    let keys = opened(place.path(), NOW);
    let first = signer(&keys, NOW);

    std::fs::remove_file(place.path().join("from-1800000000.pem")).unwrap();
    keys.tend(NOW.plus(DAY)).unwrap();

    assert_eq!(published(&keys, NOW.plus(DAY)).len(), 1);
    assert_ne!(signer(&keys, NOW.plus(DAY)), first);
}

#[test]
fn what_cannot_be_used_is_named_and_what_is_known_stays() {
    let place = TempDir::new().unwrap();
    let keys = opened(place.path(), NOW);
    let first = signer(&keys, NOW);

    std::fs::write(place.path().join("from-1800000001.pem"), "no key").unwrap();
    let refused = keys.tend(NOW.plus(DAY)).unwrap_err().to_string();

    assert!(refused.ends_with("from-1800000001.pem is no key of ours: remove it, and a new one is made"), "{refused}");
    assert_eq!(signer(&keys, NOW.plus(DAY)), first);
    let file = KeyPlace::Directory(place.path().join("lock"));
    let refused = Keys::existing(file).unwrap_err().to_string();
    assert!(refused.contains("it must be a directory for keys"), "{refused}");
}

#[test]
fn a_held_lock_holds_nothing_up() {
    let place = TempDir::new().unwrap();
    let keys = opened(place.path(), NOW);
    let first = published(&keys, NOW);
    let held = std::fs::File::create(place.path().join("lock")).unwrap();
    held.lock().unwrap();

    let later = NOW.plus(DAY * 29);
    keys.tend(later).unwrap();
    assert_eq!(published(&keys, later), first, "left for the next round");
    assert_eq!(published(&opened(place.path(), later), later), first, "a start goes on with what is there");
    std::fs::remove_file(place.path().join("from-1800000000.pem")).unwrap();
    let refused = Keys::existing(keys.place.clone()).unwrap().tend(later).unwrap_err();
    assert!(matches!(refused, KeysError::Busy { .. }), "{refused}");
    assert!(matches!(keys.tend(later), Err(KeysError::Busy { .. })));
    assert_eq!(published(&keys, later), first, "what is known stays");

    held.unlock().unwrap();
    keys.tend(later).unwrap();
    assert_ne!(published(&keys, later), first);
}

#[test]
fn a_directory_that_others_can_change_is_refused() {
    let place = TempDir::new().unwrap();
    let chmod = |mode| std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(mode)).unwrap();
    let directory = || KeyPlace::Directory(place.path().to_owned());
    for mode in [0o770, 0o702, 0o1777] {
        chmod(mode);
        let refused = Rings::default().open(directory(), NOW).unwrap_err().to_string();
        assert!(refused.contains("chmod go-w"), "{mode:o}: {refused}");
        assert!(Keys::existing(directory()).is_err() && files(place.path()).is_empty(), "{mode:o}");
    }

    chmod(0o755);
    let keys = opened(place.path(), NOW);
    let first = signer(&keys, NOW);
    chmod(0o775);

    assert!(matches!(keys.tend(NOW), Err(KeysError::Exposed { .. })));
    assert_eq!(signer(&keys, NOW), first);
    for (directory, files, may) in [(1, 1, true), (0, 1, true), (0, 0, true), (1, 0, false), (1, 2, false)] {
        assert_eq!(directory::may_own(directory, files), may, "{directory} {files}");
    }
}

#[test]
fn what_was_left_behind_is_not_written_through() {
    let (place, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let target = elsewhere.path().join("file");
    std::fs::write(&target, "somebody's").unwrap();
    std::os::unix::fs::symlink(&target, place.path().join("new")).unwrap();

    opened(place.path(), NOW);

    assert_eq!(std::fs::read_to_string(&target).unwrap(), "somebody's");
    assert_eq!(files(place.path()), ["from-1800000000.pem", "lock"]);
    assert!(!place.path().join("from-1800000000.pem").is_symlink());
}

#[test]
fn names_that_we_would_not_give_are_left_alone() {
    let place = TempDir::new().unwrap();
    let odd = ["from-+5.pem", "from-007.pem", "from-18446744073709551615.pem", "from-.pem", "from-5.pem~"];
    odd.iter().for_each(|name| std::fs::write(place.path().join(name), "no key").unwrap());

    let keys = opened(place.path(), NOW);
    let known = keys.signer(NOW).unwrap();
    keys.tend(NOW).unwrap();

    assert!(Arc::ptr_eq(&known, &keys.signer(NOW).unwrap()), "nothing is read again");
    assert_eq!(files(place.path()).len(), odd.len() + 2);
}

#[test]
fn looking_makes_nothing() {
    let place = TempDir::new().unwrap();
    let directory = place.path().join("keys");
    let keys = Keys::existing(KeyPlace::Directory(directory.clone())).unwrap();

    assert!(keys.signer(NOW).is_none() && !directory.exists());
}
