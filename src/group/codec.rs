//! Records of `__offsets` as bytes.
//!
//! # Format
//! Byte by byte in `src/doc/offsets.md`.
//!
//! # Thread safety
//! Plain values and functions; no I/O.

use super::{
    PartitionId,
    membership::{Change, Committed, MemberInfo, Ownership},
    subscription::Subscription,
};
use crate::{codec::Reader, pattern::TopicPattern};

const KIND_COMMIT: u8 = 1;
const KIND_SNAPSHOT_COMMIT: u8 = 2;
const KIND_SNAPSHOT_END: u8 = 3;
const KIND_MEMBER: u8 = 4;
const KIND_SNAPSHOT_MEMBER: u8 = 5;
const KIND_GENERATION: u8 = 6;
const KIND_SNAPSHOT_GENERATION: u8 = 7;
const KIND_OWNERSHIP: u8 = 8;
const KIND_SNAPSHOT_OWNERSHIP: u8 = 9;

/// Of all values, so far.
const VERSION: u8 = 1;

/// Key and value.
pub(crate) type Encoded = (Vec<u8>, Option<Vec<u8>>);

/// A decoded record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// Of a group.
    Change(&'a str, Change),
    /// An entry of a snapshot: the group was so.
    Entry(&'a str, Change),
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

/// Encodes a change of a group.
pub(crate) fn encode(group: &str, change: &Change) -> Encoded {
    let kind = match change {
        Change::Commit(..) => KIND_COMMIT,
        Change::Member(..) => KIND_MEMBER,
        Change::Generation(..) => KIND_GENERATION,
        Change::Ownership(..) => KIND_OWNERSHIP,
    };
    (encode_key(kind, group, change), encode_value(change))
}

/// Encodes an entry of a snapshot.
pub(crate) fn encode_entry(group: &str, change: &Change) -> Encoded {
    let kind = match change {
        Change::Commit(..) => KIND_SNAPSHOT_COMMIT,
        Change::Member(..) => KIND_SNAPSHOT_MEMBER,
        Change::Generation(..) => KIND_SNAPSHOT_GENERATION,
        Change::Ownership(..) => KIND_SNAPSHOT_OWNERSHIP,
    };
    (encode_key(kind, group, change), encode_value(change))
}

/// Encodes the end of a snapshot of so many entries.
pub(crate) fn encode_end(entries: u64) -> Encoded {
    (vec![KIND_SNAPSHOT_END], Some(words([entries])))
}

fn encode_key(kind: u8, group: &str, change: &Change) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(2 + group.len() + size_of::<u128>() + size_of::<u32>());
    bytes.push(kind);
    bytes.push(group.len() as u8); // at most 249, by the rule for names
    bytes.extend_from_slice(group.as_bytes());
    match change {
        Change::Commit(place, _) | Change::Ownership(place, _) => {
            bytes.extend_from_slice(&place.topic_id.to_le_bytes());
            bytes.extend_from_slice(&place.partition.to_le_bytes());
        }
        Change::Member(id, _) => bytes.extend_from_slice(&id.to_le_bytes()),
        Change::Generation(_) => {}
    }
    bytes
}

fn encode_value(change: &Change) -> Option<Vec<u8>> {
    match change {
        Change::Commit(_, value) => value.map(|committed| words([committed.offset, committed.epoch])),
        Change::Member(_, value) => value.as_ref().map(encode_member),
        Change::Generation(value) => value.map(|generation| words([generation])),
        Change::Ownership(_, value) => value.map(|ownership| {
            let Ownership { generation, epoch, owner, next, start } = ownership;
            words([generation, epoch, owner, next, start])
        }),
    }
}

/// The version, and words behind it.
fn words<const N: usize>(words: [u64; N]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size_of::<u8>() + N * size_of::<u64>());
    bytes.push(VERSION);
    for word in words {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

fn encode_member(member: &MemberInfo) -> Vec<u8> {
    let mut bytes = words([member.process]);
    let names = member.subscription.names();
    bytes.extend_from_slice(&(names.len() as u16).to_le_bytes()); // at most 1000
    for name in names {
        bytes.push(name.as_str().len() as u8); // at most 249
        bytes.extend_from_slice(name.as_str().as_bytes());
    }
    bytes
}

/// Decodes a record.
pub(crate) fn decode<'a>(key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Result<Decoded<'a>, Undecodable> {
    let mut key = Reader::new(key.ok_or(Undecodable::Malformed)?);
    let kind = key.u8().ok_or(Undecodable::Malformed)?;
    if !(KIND_COMMIT..=KIND_SNAPSHOT_OWNERSHIP).contains(&kind) {
        return Err(Undecodable::Newer(format!("a record of kind {kind}")));
    }
    if let Some(version) = value.and_then(|value| value.first()).filter(|&&version| version != VERSION) {
        return Err(Undecodable::Newer(format!("a record of kind {kind} in version {version}")));
    }
    let decoded = match kind {
        KIND_SNAPSHOT_END => decode_words(value).map(|[entries]| Decoded::SnapshotEnd(entries)),
        kind => decode_change(kind, &mut key, value),
    };
    decoded.filter(|_| key.is_empty()).ok_or(Undecodable::Malformed)
}

/// What stands behind the kind, and the value.
fn decode_change<'a>(kind: u8, key: &mut Reader<'a>, value: Option<&[u8]>) -> Option<Decoded<'a>> {
    let group_length = key.u8()?;
    let group = std::str::from_utf8(key.bytes(group_length.into())?).ok()?;
    let change = match kind {
        KIND_COMMIT | KIND_SNAPSHOT_COMMIT => Change::Commit(decode_place(key)?, decode_commit(value)?),
        KIND_MEMBER | KIND_SNAPSHOT_MEMBER => {
            // 0 stands for no member.
            Change::Member(key.u64().filter(|&id| id != 0)?, decode_member(value)?)
        }
        KIND_GENERATION | KIND_SNAPSHOT_GENERATION => Change::Generation(decode_generation(value)?),
        _ => Change::Ownership(decode_place(key)?, decode_ownership(value)?),
    };
    // Of each two kinds the second one is the snapshot's, where nothing is null.
    match kind {
        KIND_COMMIT | KIND_MEMBER | KIND_GENERATION | KIND_OWNERSHIP => Some(Decoded::Change(group, change)),
        _ => value.map(|_| Decoded::Entry(group, change)),
    }
}

fn decode_place(key: &mut Reader<'_>) -> Option<PartitionId> {
    let topic_id = u128::from_le_bytes(*key.array()?);
    Some(PartitionId { topic_id, partition: key.u32()? })
}

/// The words behind the version, which was looked at.
fn decode_words<const N: usize>(value: Option<&[u8]>) -> Option<[u64; N]> {
    let mut reader = Reader::new(value?);
    reader.u8()?;
    let mut words = [0; N];
    for word in &mut words {
        *word = reader.u64()?;
    }
    reader.is_empty().then_some(words)
}

fn decode_commit(value: Option<&[u8]>) -> Option<Option<Committed>> {
    if value.is_none() {
        return Some(None);
    }
    let [offset, epoch] = decode_words(value)?;
    Some(Some(Committed { offset, epoch }))
}

fn decode_generation(value: Option<&[u8]>) -> Option<Option<u64>> {
    if value.is_none() {
        return Some(None);
    }
    let [generation] = decode_words(value)?;
    Some(Some(generation))
}

fn decode_ownership(value: Option<&[u8]>) -> Option<Option<Ownership>> {
    if value.is_none() {
        return Some(None);
    }
    let [generation, epoch, owner, next, start] = decode_words(value)?;
    Some(Some(Ownership { generation, epoch, owner, next, start }))
}

fn decode_member(value: Option<&[u8]>) -> Option<Option<MemberInfo>> {
    let Some(value) = value else { return Some(None) };
    let mut reader = Reader::new(value);
    reader.u8()?; // the version, which was looked at
    let process = reader.u64()?;
    let mut names = Vec::new();
    for _ in 0..reader.u16()? {
        let length = reader.u8()?;
        let name = std::str::from_utf8(reader.bytes(length.into())?).ok()?;
        names.push(TopicPattern::parse(name).ok()?);
    }
    let subscription = Subscription::new(names).ok()?;
    reader.is_empty().then_some(Some(MemberInfo { process, subscription }))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
