//! What must hold of `__offsets` whatever is in it, for the fuzz target and the tests to feed.
//!
//! An input: whether it is records or a segment, and how its process ends (1 byte); then what [`Records::piece`] makes of
//! the rest, or [`Frames`]. A broken promise panics: that is how a fuzzer is told.
#![allow(clippy::unwrap_used, reason = "a broken promise panics")]
#![allow(unreachable_pub, reason = "public under `cfg(fuzzing)` alone")]

use std::collections::BTreeMap;

use super::*;
use crate::{
    group::{
        PartitionId,
        codec::{Decoded, Undecodable, decode},
        membership::{Committed, MemberInfo, Ownership},
        subscription::Subscription,
    },
    partition::fuzzing::{Bench, Ending, Frames, Input},
    pattern::TopicPattern,
};

/// `__offsets` of any records: it opens, unless a newer version has written them; it says what a plain fold says; and a
/// new snapshot of it says the same again.
pub fn offsets_open(data: &[u8]) {
    let mut input = Input::new(data);
    let how = input.u8();
    let bench = Bench::default();
    let ending = Ending::from_bits(how >> 1);
    if how & 1 == 0 {
        let records = Records::of(&bench, &mut input, ending);
        check(&bench, Some(&records), ending);
    } else {
        let frames = Frames::of(Frames::first_header(&bench, 0x5eed), &mut input);
        bench.write_segment(&frames);
        check(&bench, None, ending);
    }
}

/// What was appended, by segment.
#[derive(Default)]
struct Records {
    segments: BTreeMap<u64, Vec<Encoded>>,
    /// Since the last roll.
    entries: u64,
}

impl Records {
    fn of(bench: &Bench, input: &mut Input<'_>, ending: Ending) -> Self {
        let (partition, _) = bench.open().unwrap();
        let mut records = Self::default();
        while !input.is_empty() {
            records.piece(&partition, input);
        }
        bench.end(partition, ending);
        records
    }

    /// A record, or the beginning of a segment.
    fn piece(&mut self, partition: &Arc<PartitionLog>, input: &mut Input<'_>) {
        let kind = input.u8();
        let group = ["a", "billing"][usize::from(kind >> 6 & 1)];
        let is_null = kind & 0x80 != 0;
        let encoded = match kind % 16 {
            12 => {
                partition.roll().unwrap();
                self.entries = 0;
                return;
            }
            13 => codec::encode_end(self.entries),
            14 => codec::encode_end(input.u8().into()),
            15 => {
                let (key, value) = (input.u8() % 64, input.u8());
                let key = input.bytes(key.into()).to_vec();
                (key, (value != u8::MAX).then(|| input.bytes((value % 64).into()).to_vec()))
            }
            kind if kind < 6 => codec::encode(group, &change(kind, is_null, input)),
            kind => {
                self.entries += 1;
                codec::encode_entry(group, &change(kind, is_null, input))
            }
        };
        partition.append(&record(&encoded), None).unwrap();
        let base = partition.segment_base_offsets().pop().unwrap();
        self.segments.entry(base).or_default().push(encoded);
    }

    /// The table that they stand for, and how many of them stand for nothing; `None` if a newer version wrote one.
    fn fold(&self) -> Option<(Table, usize)> {
        let mut folded = (Table::default(), 0);
        for &base in self.segments.keys().rev() {
            let (mut table, mut malformed, mut entries, mut whole) = (Table::default(), 0, Some(0), false);
            for (key, value) in self.segments.range(base..).flat_map(|(_, records)| records) {
                match decode(Some(key), value.as_deref()) {
                    Ok(Decoded::Entry(group, entry)) => {
                        entries = entries.map(|entries| entries + 1);
                        table.restore(group, entry);
                    }
                    Ok(Decoded::Change(group, change)) => {
                        entries = None;
                        table.apply(group, change);
                    }
                    Ok(Decoded::SnapshotEnd(expected)) => whole |= entries.take() == Some(expected),
                    Err(Undecodable::Malformed) => malformed += 1,
                    Err(Undecodable::Newer(_)) => return None,
                }
            }
            folded = (table, malformed);
            if whole {
                break;
            }
        }
        Some(folded)
    }
}

/// A change with numbers that often meet.
fn change(kind: u8, is_null: bool, input: &mut Input<'_>) -> Change {
    let place = input.u8();
    let place = PartitionId { topic_id: u128::from(place / 4 % 4), partition: u32::from(place % 4) };
    let mut number = || u64::from(input.u8() % 8);
    match kind % 6 {
        0..=2 => Change::Commit(place, (!is_null).then(|| Committed { offset: number(), epoch: number() })),
        3 => {
            let names = ["orders", "paid.*"].map(|name| TopicPattern::parse(name).unwrap());
            let subscription = Subscription::new(names).unwrap();
            Change::Member(number() + 1, (!is_null).then(|| MemberInfo { process: number(), subscription }))
        }
        4 => Change::Generation((!is_null).then(number)),
        _ => {
            let mut ownership = || Ownership {
                generation: number(),
                epoch: number(),
                owner: number(),
                next: number(),
                start: number(),
            };
            Change::Ownership(place, (!is_null).then(&mut ownership))
        }
    }
}

/// Opens and folds; `None` if a newer version wrote what is there.
fn open(bench: &Bench) -> Option<(Offsets, Vec<Error>)> {
    match Offsets::open(bench.open().unwrap().0) {
        Ok(opened) => Some(opened),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
            None
        }
    }
}

fn check(bench: &Bench, records: Option<&Records>, ending: Ending) {
    let opened = open(bench);
    if let Some(records) = records {
        let expected = records.fold();
        let found = opened.as_ref().map(|(offsets, damage)| (offsets.table.clone(), damage.len()));
        assert_eq!(found, expected);
    }
    let Some((mut offsets, _)) = opened else { return };
    assert!(offsets.table.entries().count() as u64 <= offsets.partition.end_offset());

    // Whatever there was, a new segment begins with all of it.
    let commit = Change::Commit(PartitionId { topic_id: 9, partition: 9 }, Some(Committed { offset: 9, epoch: 0 }));
    let mut expected = offsets.table.clone();
    expected.apply("new", commit.clone());
    offsets.in_order = false;
    offsets.append("new", vec![commit], Durability::Written).unwrap();
    assert_eq!(offsets.table, expected);
    let snapshot_at = offsets.snapshot_at;
    assert_eq!(snapshot_at, offsets.partition.segment_base_offsets().pop());
    if let Some(obsolete) = offsets.take_obsolete() {
        obsolete.remove();
    }
    bench.end(offsets.partition.clone(), ending);
    drop(offsets);
    let (offsets, damage) = open(bench).unwrap();
    assert_eq!((offsets.table, offsets.snapshot_at, offsets.in_order), (expected, snapshot_at, true));
    assert!(damage.is_empty(), "{damage:?}");
}
