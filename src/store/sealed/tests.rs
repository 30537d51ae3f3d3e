//! Sealed records: what can be read, opened and forged.

use proptest::prelude::*;

use super::*;
use crate::store::fixtures::SITE;
use crate::store::fixtures::at;
use crate::store::fixtures::handle;
use crate::store::fixtures::rules;

fn cookie(name: &str, value: &str) -> VaultCookie {
    VaultCookie {
        name: Bytes::copy_from_slice(name.as_bytes()),
        value: Bytes::copy_from_slice(value.as_bytes()),
        path: "/app".into(),
        domain: Some("app.test".into()),
        expires: Some(at(9_000_000)),
        same_site: Some(SameSite::Strict),
        created: at(5),
        used: at(6),
    }
}

fn record(user: Option<&str>, cookies: &[VaultCookie]) -> Record {
    let binding = Binding::new([192, 0, 2, 1].into(), Some("Test/1.0"));
    let chain = Chain::begin(&[1; 16], at(0)).offer(&[1; 16], &[2; 16], binding.clone(), at(1));
    let vault = Vault::of(cookies);
    let site = Arc::from(SITE);
    match user {
        Some(user) => {
            let user = UserName::parse(user).unwrap();
            let identity = Identity { user, authenticated: at(7), session_ref: handle(1).key().session_ref() };
            Record::authenticated(site, identity, binding, chain, vault, &rules(), at(7))
        }
        None => Record::anonymous(site, binding, chain, vault, &rules(), at(7)),
    }
}

fn stored(user: Option<&str>) -> Sealed {
    seal(&Keys::default(), &handle(1), &record(user, &[cookie("sid", "secret-one"), cookie("other", "secret-two")]))
        .unwrap()
}

fn refused(stored: &Sealed) -> Unusable {
    open(&Keys::default(), &handle(1), stored).map(|_| ()).unwrap_err()
}

#[test]
fn what_was_sealed_is_opened() {
    for user in [Some("alice"), None] {
        let before = record(user, &[cookie("sid", "v")]);
        let after =
            open(&Keys::default(), &handle(1), &seal(&Keys::default(), &handle(1), &before).unwrap()).unwrap().0;
        assert_eq!(after.identity, before.identity);
        assert_eq!(after.vault, before.vault);
        assert_eq!(after.chain, before.chain);
        assert_eq!(after.outline(), before.outline());
    }
}

#[test]
fn a_device_is_sealed_with_the_user() {
    let offered = Device::offered([0x5d; 32]);
    for device in [offered.clone(), offered.bound()] {
        let before = Record { device: Some(Box::new(device)), ..record(Some("alice"), &[cookie("sid", "v")]) };
        let stored = seal(&Keys::default(), &handle(1), &before).unwrap();
        let after = open(&Keys::default(), &handle(1), &stored).unwrap().0;
        assert_eq!((&after.identity, &after.device), (&before.identity, &before.device));
        assert_eq!(stored.readable[0], WITH_DEVICE, "an earlier version of the program refuses it");
        assert!(!stored.identity.unwrap().windows(4).any(|window| window == [0x5d; 4]));
    }
}

#[test]
fn nobody_takes_a_session_off_its_device() {
    // S184: the same user's session without a device, and the same record without the mark.
    let bound = Some(Box::new(Device::offered([0x5d; 32]).bound()));
    let bound = seal(&Keys::default(), &handle(1), &Record { device: bound, ..record(Some("alice"), &[]) }).unwrap();
    let free = seal(&Keys::default(), &handle(1), &record(Some("alice"), &[])).unwrap();
    assert_eq!(refused(&Sealed { identity: free.identity.clone(), ..bound.clone() }), Unusable::Forged);
    assert_eq!(refused(&Sealed { readable: free.readable, ..bound.clone() }), Unusable::Forged);
    let mut unmarked = bound;
    unmarked.readable[0] = VERSION;
    assert_eq!(refused(&unmarked), Unusable::Forged);
}

#[test]
fn nothing_secret_can_be_read() {
    // S18, S25
    let sealed = stored(Some("alice"));
    let cookies = sealed.cookies.iter().flat_map(|cookie| [&cookie.field[..], &cookie.sealed].concat());
    let bytes: Vec<u8> = sealed
        .readable
        .iter()
        .chain(&sealed.chain)
        .chain(sealed.identity.iter().flatten())
        .copied()
        .chain(cookies)
        .collect();
    for secret in [&b"secret-one"[..], b"secret-two", b"sid", handle(1).selector(), &[2; 16]] {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
}

#[test]
fn only_the_selector_opens_it() {
    assert_eq!(open(&Keys::default(), &handle(2), &stored(Some("alice"))).map(|_| ()), Err(Unusable::Forged));
}

#[test]
fn nobody_forges_a_user() {
    // S184: with every field of other records at hand.
    let (alice, bob) = (stored(Some("alice")), stored(Some("bob")));
    let other = seal(&Keys::default(), &handle(2), &record(Some("root"), &[])).unwrap();
    assert_eq!(refused(&Sealed { readable: bob.readable.clone(), ..alice.clone() }), Unusable::Forged);
    assert_eq!(refused(&Sealed { identity: other.identity, ..alice.clone() }), Unusable::Forged);
    assert_eq!(refused(&Sealed { identity: bob.identity, ..alice.clone() }), Unusable::Forged);
    assert_eq!(refused(&Sealed { identity: None, ..alice.clone() }), Unusable::Forged);
    assert_eq!(refused(&Sealed { identity: alice.identity, ..stored(None) }), Unusable::Forged);
}

const NEW: &str = "bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3IG5ldyE=";
const OLD: &str = "b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZCE=";

#[test]
fn who_has_no_key_invents_nobody() {
    // S184, VR-60: a selector of their own, and everything that is in this file.
    let record = record(Some("admin"), &[cookie("sid", "v")]);
    let invented = [Keys::default(), Keys::of(&[OLD])].map(|theirs| seal(&theirs, &handle(1), &record).unwrap());
    for invented in invented {
        let opened = open(&Keys::of(&[NEW]), &handle(1), &invented);
        assert_eq!(opened.map(|_| ()), Err(Unusable::Forged));
    }
    let ours = seal(&Keys::of(&[NEW]), &handle(1), &record).unwrap();
    assert_eq!(refused(&ours), Unusable::Forged, "and whoever has lost the key opens nothing");
}

#[test]
fn the_first_key_seals_and_all_open() {
    // S184
    let record = record(Some("alice"), &[cookie("sid", "v")]);
    let both = Keys::of(&[NEW, OLD]);
    for (keys, openers, closed) in
        [(Keys::of(&[OLD]), [&both, &Keys::of(&[OLD])], NEW), (both.clone(), [&both, &Keys::of(&[NEW])], OLD)]
    {
        let sealed = seal(&keys, &handle(1), &record).unwrap();
        for opener in openers {
            let (opened, number) = open(opener, &handle(1), &sealed).unwrap();
            assert_eq!((&opened.identity, &opened.vault), (&record.identity, &record.vault));
            let identity = seal_identity(
                &Sealer::new(opener, number, &handle(1)).unwrap(),
                &opened.identity.unwrap().user,
                None,
                &sealed.readable,
            );
            let rewritten = Sealed { identity, ..sealed.clone() };
            assert!(open(opener, &handle(1), &rewritten).is_ok(), "what is put beside the rest fits to it");
        }
        assert_eq!(open(&Keys::of(&[closed]), &handle(1), &sealed).map(|_| ()), Err(Unusable::Forged));
    }
}

#[test]
fn cookies_stay_in_their_place() {
    let mut swapped = stored(Some("alice"));
    let first = swapped.cookies[0].sealed.clone();
    swapped.cookies[0].sealed = std::mem::replace(&mut swapped.cookies[1].sealed, first);
    assert_eq!(refused(&swapped), Unusable::Forged);
}

#[test]
fn another_version_is_told_from_damage() {
    // VR-28, VR-60
    let mut newer = stored(Some("alice"));
    newer.readable[0] = WITH_DEVICE + 1;
    assert_eq!(refused(&newer), Unusable::Version);
    assert_eq!(read_outline(&[], at(0)), Err(Unusable::Damaged));
}

proptest! {
    #[test]
    fn every_changed_bit_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut edited = stored(Some("alice"));
        let readable = edited.readable.len();
        let identity = edited.identity.as_ref().map_or(0, Vec::len);
        let at = at.index(readable + identity);
        let byte = match at.checked_sub(readable) {
            None => &mut edited.readable[at],
            Some(at) => &mut edited.identity.as_mut().unwrap()[at],
        };
        *byte ^= 1_u8 << bit;
        prop_assert!(open(&Keys::default(), &handle(1), &edited).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(readable in any::<Vec<u8>>(), chain in any::<Vec<u8>>(), sealed in any::<Vec<u8>>()) {
        let identity = Some(sealed.clone());
        let cookies = vec![SealedCookie { field: [0; 16], sealed }];
        let garbage = Sealed { readable: [vec![VERSION], readable].concat(), identity, chain, cookies, revision: 0, seen: at(0) };
        prop_assert!(open(&Keys::default(), &handle(1), &garbage).is_err());
    }
}
