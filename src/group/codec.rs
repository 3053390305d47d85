//! Records of `__offsets` as bytes.
//!
//! # Format
//! Byte by byte in `src/doc/offsets.md`.
//!
//! # Thread safety
//! Plain values and functions; no I/O.

use byteorder::{ByteOrder, LittleEndian};

use crate::codec::Reader;

const KIND_COMMIT: u8 = 1;
const KIND_SNAPSHOT_ENTRY: u8 = 2;
const KIND_SNAPSHOT_END: u8 = 3;

/// Of all values, so far.
const VERSION: u8 = 1;

/// Length of an entry's value: version, offset, epoch.
const VALUE_BYTES: usize = size_of::<u8>() + 2 * size_of::<u64>();
/// Length of a snapshot end's value: version, number of entries.
const END_BYTES: usize = size_of::<u8>() + size_of::<u64>();

/// What the table is indexed by, borrowed or (`G` = `Arc<str>`) owned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key<G> {
    pub(crate) group: G,
    pub(crate) topic_id: u128,
    pub(crate) partition: u32,
}

/// What the table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next offset that the group wants.
    pub(crate) offset: u64,
    /// Of the partition's ownership in the group.
    pub(crate) epoch: u64,
}

/// A decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// `None`: the table forgets the key.
    Commit(Key<&'a str>, Option<Committed>),
    SnapshotEntry(Key<&'a str>, Committed),
    /// The number of entries.
    SnapshotEnd(u64),
}

/// Why a record can't be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Undecodable {
    /// It isn't what any version writes.
    Malformed,
    /// A newer version wrote it: what it is.
    Newer(String),
}

/// Encodes a commit: key and value.
pub(crate) fn commit(key: &Key<impl AsRef<str>>, committed: Committed) -> (Vec<u8>, [u8; VALUE_BYTES]) {
    (encode_key(KIND_COMMIT, key), encode_value(committed))
}

/// Encodes an entry of a snapshot: key and value.
pub(crate) fn snapshot_entry(key: &Key<impl AsRef<str>>, committed: Committed) -> (Vec<u8>, [u8; VALUE_BYTES]) {
    (encode_key(KIND_SNAPSHOT_ENTRY, key), encode_value(committed))
}

/// Encodes the end of a snapshot of so many entries: key and value.
pub(crate) fn snapshot_end(entries: u64) -> ([u8; 1], [u8; END_BYTES]) {
    let mut value = [0; END_BYTES];
    value[0] = VERSION;
    LittleEndian::write_u64(&mut value[1..], entries);
    ([KIND_SNAPSHOT_END], value)
}

fn encode_key(kind: u8, key: &Key<impl AsRef<str>>) -> Vec<u8> {
    let group = key.group.as_ref();
    let mut bytes = Vec::with_capacity(2 + group.len() + size_of::<u128>() + size_of::<u32>());
    bytes.push(kind);
    bytes.push(group.len() as u8); // at most 249, by the rule for names
    bytes.extend_from_slice(group.as_bytes());
    bytes.extend_from_slice(&key.topic_id.to_le_bytes());
    bytes.extend_from_slice(&key.partition.to_le_bytes());
    bytes
}

fn encode_value(committed: Committed) -> [u8; VALUE_BYTES] {
    let mut value = [0; VALUE_BYTES];
    value[0] = VERSION;
    let (offset, epoch) = value[1..].split_at_mut(size_of::<u64>());
    LittleEndian::write_u64(offset, committed.offset);
    LittleEndian::write_u64(epoch, committed.epoch);
    value
}

/// Decodes a record.
pub(crate) fn decode<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<Decoded<'a>, Undecodable> {
    let mut reader = Reader::new(key.ok_or(Undecodable::Malformed)?);
    let kind = reader.u8().ok_or(Undecodable::Malformed)?;
    if !(KIND_COMMIT..=KIND_SNAPSHOT_END).contains(&kind) {
        return Err(Undecodable::Newer(format!("a record of kind {kind}")));
    }
    if let Some(version) = value.and_then(|value| value.first()).filter(|&&version| version != VERSION) {
        return Err(Undecodable::Newer(format!("a record of kind {kind} in version {version}")));
    }
    let entry = match kind {
        KIND_SNAPSHOT_END => decode_end(value).map(Decoded::SnapshotEnd),
        KIND_COMMIT if value.is_none() => decode_key(&mut reader).map(|key| Decoded::Commit(key, None)),
        kind => decode_key(&mut reader).zip(decode_value(value)).map(|(key, committed)| match kind {
            KIND_COMMIT => Decoded::Commit(key, Some(committed)),
            _ => Decoded::SnapshotEntry(key, committed),
        }),
    };
    entry.filter(|_| reader.is_empty()).ok_or(Undecodable::Malformed)
}

/// What stands behind the kind.
fn decode_key<'a>(reader: &mut Reader<'a>) -> Option<Key<&'a str>> {
    let group_length = reader.u8()?;
    let group = std::str::from_utf8(reader.bytes(group_length.into())?).ok()?;
    let topic_id = u128::from_le_bytes(*reader.array()?);
    Some(Key { group, topic_id, partition: reader.u32()? })
}

fn decode_value(value: Option<&[u8]>) -> Option<Committed> {
    let mut reader = Reader::new(value?);
    reader.u8()?; // the version, which was looked at
    let committed = Committed { offset: reader.u64()?, epoch: reader.u64()? };
    reader.is_empty().then_some(committed)
}

fn decode_end(value: Option<&[u8]>) -> Option<u64> {
    let mut reader = Reader::new(value?);
    reader.u8()?; // the version, which was looked at
    let entries = reader.u64()?;
    reader.is_empty().then_some(entries)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> Key<&'static str> {
        Key { group: "billing", topic_id: 0x0123_4567_89ab_cdef_0011_2233_4455_6677, partition: 0x0a0b_0c0d }
    }

    const KEY_BEHIND_KIND: &[u8] =
        b"\x07billing\x77\x66\x55\x44\x33\x22\x11\x00\xef\xcd\xab\x89\x67\x45\x23\x01\x0d\x0c\x0b\x0a";
    const VALUE: &[u8] = b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x02\x00\x00\x00\x00\x00\x00\x00";
    const COMMITTED: Committed = Committed { offset: 0x0102_0304_0506_0708, epoch: 2 };

    /// These bytes are on disks: a change that breaks this test needs a new version.
    #[test]
    fn golden_bytes() {
        let (bytes, value) = commit(&key(), COMMITTED);
        assert_eq!(bytes, [b"\x01", KEY_BEHIND_KIND].concat());
        assert_eq!(value, VALUE);
        let (bytes, value) = snapshot_entry(&key(), COMMITTED);
        assert_eq!(bytes, [b"\x02", KEY_BEHIND_KIND].concat());
        assert_eq!(value, VALUE);
        assert_eq!(snapshot_end(0x0203), (*b"\x03", *b"\x01\x03\x02\x00\x00\x00\x00\x00\x00"));
    }

    #[test]
    fn golden_bytes_decode() {
        let bytes = [b"\x01", KEY_BEHIND_KIND].concat();
        assert_eq!(decode(Some(&bytes), Some(VALUE)), Ok(Decoded::Commit(key(), Some(COMMITTED))));
        assert_eq!(decode(Some(&bytes), None), Ok(Decoded::Commit(key(), None)));
        let bytes = [b"\x02", KEY_BEHIND_KIND].concat();
        assert_eq!(decode(Some(&bytes), Some(VALUE)), Ok(Decoded::SnapshotEntry(key(), COMMITTED)));
        assert_eq!(decode(Some(&bytes), None), Err(Undecodable::Malformed));
        let value = b"\x01\x03\x02\x00\x00\x00\x00\x00\x00";
        assert_eq!(decode(Some(b"\x03"), Some(value)), Ok(Decoded::SnapshotEnd(0x0203)));
    }

    #[test]
    fn what_a_newer_version_wrote_is_named() {
        let newer = |key: &[u8], value: &[u8]| match decode(Some(key), Some(value)) {
            Err(Undecodable::Newer(what)) => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(newer(b"\x04whatever", b""), "a record of kind 4");
        assert_eq!(newer(b"\x00", b"\x01"), "a record of kind 0");
        assert_eq!(newer(b"\x03", b"\x02 and more"), "a record of kind 3 in version 2");
        assert_eq!(newer(b"\x01", b"\xff"), "a record of kind 1 in version 255");
    }

    #[test]
    fn every_truncation_and_extension_is_refused() {
        let key = [b"\x01", KEY_BEHIND_KIND].concat();
        for length in 0..key.len() {
            assert_eq!(decode(Some(&key[..length]), Some(VALUE)), Err(Undecodable::Malformed), "{length}");
        }
        for length in 0..VALUE.len() {
            assert_eq!(decode(Some(&key), Some(&VALUE[..length])), Err(Undecodable::Malformed), "{length}");
        }
        assert_eq!(decode(Some(&[&key[..], b"\0"].concat()), Some(VALUE)), Err(Undecodable::Malformed));
        assert_eq!(decode(Some(&key), Some(&[VALUE, b"\0"].concat())), Err(Undecodable::Malformed));
        assert_eq!(decode(None, Some(VALUE)), Err(Undecodable::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_decode_without_panic(key: Option<Vec<u8>>, value: Option<Vec<u8>>) {
            let _ = decode(key.as_deref(), value.as_deref());
        }
    }
}
