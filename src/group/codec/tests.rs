use proptest::prelude::*;

use super::*;

const GROUP: &str = "billing";
const PLACE: PartitionId = PartitionId { topic_id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677, partition: 0x0a0b_0c0d };
const COMMITTED: Committed = Committed { offset: 0x0102_0304_0506_0708, epoch: 2 };
const OWNERSHIP: Ownership = Ownership { generation: 3, epoch: 2, owner: 0x0a0b, next: 0x0c, start: 0x0100 };

fn member() -> MemberInfo {
    let names = ["orders", "paid.*"].map(|name| TopicPattern::parse(name).unwrap());
    MemberInfo { process: 0x1122_3344_5566_7788, subscription: Subscription::new(names).unwrap() }
}

/// What is on disks for each kind of change: key behind the kind, and value.
fn golden() -> [(u8, Change, Vec<u8>, Vec<u8>); 4] {
    let place = b"\x07billing\x77\x66\x55\x44\x33\x22\x11\x00\xef\xcd\xab\x89\x67\x45\x23\x01\x0d\x0c\x0b\x0a";
    [
        (
            KIND_COMMIT,
            Change::Commit(PLACE, Some(COMMITTED)),
            place.to_vec(),
            b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x02\x00\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
        (
            KIND_MEMBER,
            Change::Member(0x0807_0605_0403_0201, Some(member())),
            b"\x07billing\x01\x02\x03\x04\x05\x06\x07\x08".to_vec(),
            b"\x01\x88\x77\x66\x55\x44\x33\x22\x11\x02\x00\x06orders\x06paid.*".to_vec(),
        ),
        (
            KIND_GENERATION,
            Change::Generation(Some(0x0203)),
            b"\x07billing".to_vec(),
            b"\x01\x03\x02\x00\x00\x00\x00\x00\x00".to_vec(),
        ),
        (
            KIND_OWNERSHIP,
            Change::Ownership(PLACE, Some(OWNERSHIP)),
            place.to_vec(),
            b"\x01\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x0b\x0a\x00\x00\x00\x00\x00\x00\
              \x0c\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"
                .to_vec(),
        ),
    ]
}

fn without_value(change: &Change) -> Change {
    match change {
        Change::Commit(place, _) => Change::Commit(*place, None),
        Change::Member(id, _) => Change::Member(*id, None),
        Change::Generation(_) => Change::Generation(None),
        Change::Ownership(place, _) => Change::Ownership(*place, None),
    }
}

/// These bytes are on disks: a change that breaks this test needs a new version.
#[test]
fn golden_bytes() {
    for (kind, change, key, value) in golden() {
        assert_eq!(encode(GROUP, &change), ([&[kind], &key[..]].concat(), Some(value.clone())));
        assert_eq!(encode(GROUP, &without_value(&change)), ([&[kind], &key[..]].concat(), None));
        assert_eq!(encode_entry(GROUP, &change), ([&[kind + 1], &key[..]].concat(), Some(value)));
    }
    assert_eq!(encode_end(0x0203), (b"\x03".to_vec(), Some(b"\x01\x03\x02\x00\x00\x00\x00\x00\x00".to_vec())));
}

/// Kinds of commits, and then the others, each with its snapshot's behind it.
fn snapshot_kind(kind: u8) -> u8 {
    kind + 1
}

#[test]
fn golden_bytes_decode() {
    for (kind, change, behind, value) in golden() {
        let key = [&[kind], &behind[..]].concat();
        assert_eq!(decode(Some(&key), Some(&value)), Ok(Decoded::Change(GROUP, change.clone())));
        assert_eq!(decode(Some(&key), None), Ok(Decoded::Change(GROUP, without_value(&change))));
        let key = [&[snapshot_kind(kind)], &behind[..]].concat();
        assert_eq!(decode(Some(&key), Some(&value)), Ok(Decoded::Entry(GROUP, change)));
        assert_eq!(decode(Some(&key), None), Err(Undecodable::Malformed));
    }
    let value = b"\x01\x03\x02\x00\x00\x00\x00\x00\x00";
    assert_eq!(decode(Some(b"\x03"), Some(value)), Ok(Decoded::SnapshotEnd(0x0203)));
    assert_eq!(decode(Some(b"\x03"), None), Err(Undecodable::Malformed));
}

#[test]
fn what_a_newer_version_wrote_is_named() {
    let newer = |key: &[u8], value: &[u8]| match decode(Some(key), Some(value)) {
        Err(Undecodable::Newer(what)) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(newer(b"\x0awhatever", b""), "a record of kind 10");
    assert_eq!(newer(b"\x00", b"\x01"), "a record of kind 0");
    assert_eq!(newer(b"\x03", b"\x02 and more"), "a record of kind 3 in version 2");
    assert_eq!(newer(b"\x01", b"\xff"), "a record of kind 1 in version 255");
    assert_eq!(newer(b"\x08", b"\x02"), "a record of kind 8 in version 2");
}

#[test]
fn every_truncation_and_extension_is_refused() {
    for (kind, _, key, value) in golden() {
        let key = [&[kind], &key[..]].concat();
        for length in 0..key.len() {
            assert_eq!(decode(Some(&key[..length]), Some(&value)), Err(Undecodable::Malformed), "{kind} {length}");
        }
        for length in 0..value.len() {
            assert_eq!(decode(Some(&key), Some(&value[..length])), Err(Undecodable::Malformed), "{kind} {length}");
        }
        assert_eq!(decode(Some(&[&key[..], b"\0"].concat()), Some(&value)), Err(Undecodable::Malformed));
        assert_eq!(decode(Some(&key), Some(&[&value[..], b"\0"].concat())), Err(Undecodable::Malformed));
        assert_eq!(decode(None, Some(&value)), Err(Undecodable::Malformed));
    }
}

#[test]
fn members_without_number_or_with_names_that_are_none_are_refused() {
    let value = Some(&b"\x01\0\0\0\0\0\0\0\0\x01\x00\x01a"[..]);
    assert!(decode(Some(b"\x04\x01g\x01\0\0\0\0\0\0\0"), value).is_ok());
    assert_eq!(decode(Some(b"\x04\x01g\0\0\0\0\0\0\0\0"), value), Err(Undecodable::Malformed));
    for name in [&b"\x00"[..], b"\x01/", b"\x01\xff"] {
        let value = [&b"\x01\0\0\0\0\0\0\0\0\x01\x00"[..], name].concat();
        let decoded = decode(Some(b"\x04\x01g\x01\0\0\0\0\0\0\0"), Some(&value));
        assert_eq!(decoded, Err(Undecodable::Malformed), "{name:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_decode_without_panic(key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
        let _ = decode(key.as_deref(), value.as_deref());
    }

    #[test]
    fn bytes_that_are_nearly_right_decode_without_panic(
        which in 0..4usize, snapshot: bool, at: prop::sample::Index, byte: u8, in_key: bool,
    ) {
        let (kind, _, key, mut value) = golden()[which].clone();
        let mut key = [&[kind + u8::from(snapshot)], &key[..]].concat();
        let bytes = if in_key { &mut key } else { &mut value };
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(Some(&key), Some(&value));
    }

    #[test]
    fn what_is_encoded_decodes(
        group in "[a-z]{1,249}", topic_id: u128, partition: u32, words: [u64; 5], id in 1..u64::MAX,
        names in prop::collection::btree_set("[a-z]{1,9}(\\.[*#])?", 0..50), is_null: bool,
    ) {
        let place = PartitionId { topic_id, partition };
        let [generation, epoch, owner, next, start] = words;
        let names = names.iter().map(|name| TopicPattern::parse(name).unwrap());
        let member = MemberInfo { process: epoch, subscription: Subscription::new(names).unwrap() };
        for change in [
            Change::Commit(place, Some(Committed { offset: start, epoch })),
            Change::Member(id, Some(member)),
            Change::Generation(Some(generation)),
            Change::Ownership(place, Some(Ownership { generation, epoch, owner, next, start })),
        ] {
            let (key, value) = encode_entry(&group, &change);
            prop_assert_eq!(decode(Some(&key), value.as_deref()), Ok(Decoded::Entry(&group, change.clone())));
            let change = if is_null { without_value(&change) } else { change };
            let (key, value) = encode(&group, &change);
            prop_assert_eq!(decode(Some(&key), value.as_deref()), Ok(Decoded::Change(&group, change)));
        }
    }
}
