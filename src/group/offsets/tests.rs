use std::{collections::BTreeMap, path::Path};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    group::{
        PartitionId, Subscription,
        membership::{Committed, Group, MemberInfo, Ownership},
    },
    partition::{Environment, Flusher, OpenFiles, PartitionSpec, Settings, SettingsValues},
    pattern::TopicPattern,
    storage::{OpenMode, Storage, sim::SimStorage},
};

/// The least that a segment can have: a snapshot every few hundred commits.
const SEGMENT_BYTES: u64 = 64 << 10;

type Model = BTreeMap<(String, u128, u32), u64>;

/// A partition of commits on a disk of its own.
struct Bench {
    storage: SimStorage,
    flusher: Arc<Flusher>,
    offsets: Offsets,
}

impl Bench {
    fn new() -> Self {
        let (storage, flusher) = (SimStorage::default(), Flusher::new(Default::default()));
        let partition = open_partition(&storage, &flusher);
        let (offsets, damage) = Offsets::open(partition).unwrap();
        assert!(damage.is_empty());
        Self { storage, flusher, offsets }
    }

    fn partition(&self) -> &Arc<PartitionLog> {
        &self.offsets.partition
    }

    /// Closes and opens; answers what opening told.
    fn reopen(&mut self) -> Result<Vec<Error>> {
        self.partition().close().unwrap();
        let (offsets, damage) = Offsets::open(open_partition(&self.storage, &self.flusher))?;
        self.offsets = offsets;
        Ok(damage)
    }

    fn commit(&mut self, group: &str, topic_id: u128, partition: u32, offset: u64) {
        self.commit_all(group, [(topic_id, partition, offset)]);
    }

    fn commit_all(&mut self, group: &str, offsets: impl IntoIterator<Item = (u128, u32, u64)>) {
        let commits = offsets.into_iter().map(|(topic_id, partition, offset)| commit(topic_id, partition, offset));
        self.change(group, commits.collect());
    }

    fn change(&mut self, group: &str, changes: Vec<Change>) {
        self.offsets.append(group, changes, Durability::Written).unwrap();
        if let Some(obsolete) = self.offsets.take_obsolete() {
            obsolete.remove();
        }
    }

    fn committed(&self, group: &str, topic_id: u128, partition: u32) -> Option<u64> {
        self.offsets.table().group(group)?.committed(PartitionId { topic_id, partition })
    }

    fn append(&self, key: &[u8], value: &[u8]) {
        self.partition().append(&Record::new(value).key(key), None).unwrap();
    }

    fn append_encoded(&self, encoded: &Encoded) {
        self.partition().append(&record(encoded), None).unwrap();
    }

    /// What was committed.
    fn table(&self) -> Model {
        let groups = self.offsets.table().groups();
        let commits = groups.flat_map(|(name, group)| group.commits().map(move |commit| (name.to_string(), commit)));
        commits.map(|(name, (place, offset))| ((name, place.topic_id, place.partition), offset)).collect()
    }

    /// Commits until a new segment is begun.
    fn fill_segment(&mut self, model: &mut Model) {
        let before = self.partition().segment_base_offsets().last().copied();
        for offset in 1.. {
            for partition in 0..100 {
                self.commit("filler", 1, partition, offset);
                model.insert(("filler".into(), 1, partition), offset);
                if self.partition().segment_base_offsets().last().copied() != before {
                    return;
                }
            }
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.flusher.stop();
    }
}

fn commit(topic_id: u128, partition: u32, offset: u64) -> Change {
    Change::Commit(PartitionId { topic_id, partition }, Some(Committed { offset, epoch: 0 }))
}

fn open_partition(storage: &SimStorage, flusher: &Arc<Flusher>) -> Arc<PartitionLog> {
    let env = Environment {
        storage: Arc::new(storage.clone()),
        clock: Clock::System,
        flusher: flusher.clone(),
        prefaulter: Arc::default(),
        recent_segments: Arc::default(),
        open_files: OpenFiles::bounded(1000, storage.clone()),
        figures: Default::default(),
        positional_appends: false,
        mapped_after: 0,
    };
    let spec = PartitionSpec {
        topic: "__offsets".into(),
        topic_id: 77,
        number: 0,
        settings: Arc::new(Settings::new(SettingsValues {
            durability: Durability::Written,
            segment_bytes: SEGMENT_BYTES,
            segment_ms: None,
            max_record_bytes: 4 << 10,
            retention_ms: None,
            retention_bytes: None,
        })),
    };
    PartitionLog::open(&env, Path::new("/log/__offsets-0"), spec).unwrap().0
}

/// Panics unless every segment begins with a whole snapshot.
fn assert_every_segment_begins_with_a_snapshot(partition: &Arc<PartitionLog>) {
    for base in partition.segment_base_offsets() {
        let fold = Fold::read(partition, base).unwrap();
        assert_eq!(fold.snapshot, Snapshot::Whole, "segment {base}");
    }
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let mut bench = Bench::new();
    bench.commit_all("billing", [(1, 0, 10), (1, 1, 20), (2, 0, 30)]);
    bench.commit("billing", 1, 0, 11);
    bench.commit("shipping", 1, 0, 5);
    for _ in 0..3 {
        assert_eq!(bench.committed("billing", 1, 0), Some(11));
        assert_eq!(bench.committed("billing", 1, 1), Some(20));
        assert_eq!(bench.committed("billing", 2, 0), Some(30));
        assert_eq!(bench.committed("shipping", 1, 0), Some(5));
        assert_eq!(bench.committed("shipping", 1, 1), None);
        assert_eq!(bench.committed("billing", 3, 0), None, "another topic id is another topic");
        assert!(bench.reopen().unwrap().is_empty());
    }
}

#[test]
fn an_offset_may_be_committed_that_is_lower() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.commit("billing", 1, 0, 3);
    bench.reopen().unwrap();
    assert_eq!(bench.committed("billing", 1, 0), Some(3));
}

/// A topic can have more partitions than a frame has records.
#[test]
fn any_number_of_partitions_is_committed_at_once() {
    let mut bench = Bench::new();
    for offset in [7, 8, 9] {
        bench.commit_all("billing", (0..100_000).map(|partition| (1, partition, offset)));
    }
    assert!(bench.reopen().unwrap().is_empty());
    assert_eq!(bench.table().len(), 100_000);
    assert!(bench.table().values().all(|committed| *committed == 9));
}

#[test]
fn every_segment_begins_with_a_snapshot_and_old_ones_go() {
    let mut bench = Bench::new();
    let mut model = Model::new();
    for round in 1..=5 {
        bench.commit(&format!("group-{round}"), round, 0, 1);
        model.insert((format!("group-{round}"), round, 0), 1);
        bench.fill_segment(&mut model);
        assert_every_segment_begins_with_a_snapshot(bench.partition());
        assert_eq!(bench.partition().segment_base_offsets().len(), 2, "the active one and the one before");
    }
    assert!(bench.partition().start_offset() > 0);
    assert!(bench.reopen().unwrap().is_empty());
    assert_eq!(bench.table(), model);
}

#[test]
fn a_crash_inside_a_snapshot_is_recovered_from_the_segment_before() {
    for entries in [0, 1, 50] {
        let mut bench = Bench::new();
        let mut model = Model::new();
        bench.fill_segment(&mut model);
        bench.commit("filler", 1, 7, 1_000_000);
        model.insert(("filler".into(), 1, 7), 1_000_000);
        let good = bench.partition().segment_base_offsets();

        // What a process leaves that is killed after so many entries of the next snapshot.
        bench.partition().roll().unwrap();
        for (group, entry) in bench.offsets.table().entries().take(entries) {
            bench.append_encoded(&codec::encode_entry(group, &entry));
        }

        assert!(bench.reopen().unwrap().is_empty(), "a crash is no damage");
        assert_eq!(bench.table(), model);
        bench.commit("late", 1, 0, 5);
        model.insert(("late".into(), 1, 0), 5);
        let bases = bench.partition().segment_base_offsets();
        let last = *bases.last().unwrap();
        assert_eq!(Fold::read(bench.partition(), last).unwrap().snapshot, Snapshot::Whole);
        assert!(bases.contains(good.last().unwrap()), "the last whole snapshot before is kept");
        assert!(bench.reopen().unwrap().is_empty());
        assert_eq!(bench.table(), model);
    }
}

#[test]
fn a_snapshot_that_lost_entries_is_not_begun_at() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.commit("billing", 1, 1, 20);
    // A snapshot of two entries, of which one can't be read.
    bench.partition().roll().unwrap();
    bench.append_encoded(&codec::encode_entry("billing", &commit(1, 0, 10)));
    bench.append_encoded(&codec::encode_end(2));
    bench.reopen().unwrap();
    assert_eq!(bench.committed("billing", 1, 1), Some(20));
}

#[test]
fn commits_before_an_end_are_no_snapshot() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.commit("billing", 1, 1, 20);
    bench.partition().roll().unwrap();
    bench.append_encoded(&codec::encode("billing", &commit(1, 0, 11)));
    bench.append_encoded(&codec::encode_end(1));
    bench.reopen().unwrap();
    assert_eq!(bench.committed("billing", 1, 0), Some(11));
    assert_eq!(bench.committed("billing", 1, 1), Some(20));
}

#[test]
fn a_null_value_makes_the_table_forget() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.change("billing", vec![Change::Commit(PartitionId { topic_id: 1, partition: 0 }, None)]);
    assert!(bench.reopen().unwrap().is_empty());
    assert_eq!(bench.table(), Model::new());
}

#[test]
fn a_record_of_a_newer_version_is_an_error_that_names_it() {
    for (key, value, named) in [(&b"\x0anew"[..], &b"\x01"[..], "kind 10"), (b"\x03", b"\x02", "kind 3 in version 2")] {
        let mut bench = Bench::new();
        bench.commit("billing", 1, 0, 10);
        bench.append(key, value);
        let error = bench.reopen().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
        let message = error.to_string();
        assert!(message.contains(named) && message.contains("__offsets-0"), "{message}");
    }
}

#[test]
fn a_record_that_is_of_no_group_is_told_and_the_others_count() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.append(b"\x01\xff", b"\x01");
    bench.commit("billing", 1, 1, 20);
    let damage = bench.reopen().unwrap();
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].kind(), ErrorKind::Corruption);
    assert_eq!(bench.committed("billing", 1, 0), Some(10));
    assert_eq!(bench.committed("billing", 1, 1), Some(20));
}

#[test]
fn a_table_larger_than_a_segment_is_kept_all_the_same() {
    let mut bench = Bench::new();
    let mut model = Model::new();
    for round in 1..=4 {
        for group in 0..10 {
            let group = format!("group-{group}");
            let offsets = (0..400).map(|partition| (1, partition, round));
            bench.commit_all(&group, offsets);
            model.extend((0..400).map(|partition| ((group.clone(), 1, partition), round)));
        }
        assert!(bench.reopen().unwrap().is_empty());
        assert_eq!(bench.table(), model);
    }
}

/// A group with members, of which one waits for what the other has.
fn change_membership(bench: &mut Bench) {
    let member = |name: &str| {
        let subscription = Subscription::new([TopicPattern::parse(name).unwrap()]).unwrap();
        Some(MemberInfo { process: 5, subscription })
    };
    let ownership = Ownership { generation: 2, epoch: 1, owner: 7, next: 8, start: 3 };
    bench.change(
        "billing",
        vec![
            Change::Member(7, member("orders")),
            Change::Member(8, member("orders.#")),
            Change::Generation(Some(2)),
            Change::Ownership(PartitionId { topic_id: 1, partition: 0 }, Some(ownership)),
            Change::Commit(PartitionId { topic_id: 1, partition: 0 }, Some(Committed { offset: 9, epoch: 1 })),
        ],
    );
}

#[test]
fn members_generations_and_ownerships_are_there_after_reopening_and_in_snapshots() {
    let mut bench = Bench::new();
    change_membership(&mut bench);
    let group: Group = bench.offsets.table().group("billing").unwrap().clone();
    assert_eq!(group.generation(), 2);
    for _ in 0..3 {
        assert!(bench.reopen().unwrap().is_empty());
        assert_eq!(bench.offsets.table().group("billing"), Some(&group));
        bench.fill_segment(&mut Model::new());
        assert_every_segment_begins_with_a_snapshot(bench.partition());
    }
    assert_eq!(bench.partition().segment_base_offsets().len(), 2);
    assert!(bench.partition().start_offset() > 0, "the records themselves are gone");
}

#[test]
fn a_group_that_was_forgotten_stays_so() {
    let mut bench = Bench::new();
    change_membership(&mut bench);
    bench.commit("shipping", 1, 0, 1);
    bench.change("billing", vec![Change::Generation(None)]);
    assert!(bench.reopen().unwrap().is_empty());
    assert_eq!(bench.offsets.table().groups().count(), 1);
}

/// Where an append fails midway, the table holds what a reopen folds: nothing more, nothing less.
#[test]
fn a_change_that_fails_on_the_way_is_applied_as_far_as_it_was_appended() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 1);
    let space = bench.storage.used_space();
    bench.storage.limit_space(Some(space + (2 << 20)));
    let commits = (0..100_000).map(|partition| commit(1, partition, 2)).collect();
    let error = bench.offsets.append("billing", commits, Durability::Written).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    bench.storage.limit_space(None);
    let table = bench.offsets.table().clone();
    let committed = table.group("billing").unwrap().commits().filter(|(_, offset)| *offset == 2).count();
    assert!(0 < committed && committed < 100_000, "{committed}");
    bench.reopen().unwrap();
    assert_eq!(*bench.offsets.table(), table);
}

#[derive(Debug, Clone)]
enum Step {
    /// Group, topic id, first partition, partitions, offset.
    Commit(u8, u128, u32, u32, u64),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        9 => (0..3u8, 1..3u128, 0..60u32, 1..60u32, 0..50u64)
            .prop_map(|(group, id, first, count, offset)| Step::Commit(group, id, first, count, offset)),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn folding_gives_what_was_committed(steps in prop::collection::vec(step(), 1..80)) {
        let mut bench = Bench::new();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Commit(group, topic_id, first, count, offset) => {
                    let group = format!("group-{group}");
                    let partitions = first..first + count;
                    let offsets = partitions.clone().map(|partition| (topic_id, partition, offset));
                    bench.commit_all(&group, offsets);
                    model.extend(partitions.map(|partition| ((group.clone(), topic_id, partition), offset)));
                }
                Step::Reopen => prop_assert!(bench.reopen().unwrap().is_empty()),
            }
            prop_assert_eq!(&bench.table(), &model);
        }
        bench.reopen().unwrap();
        prop_assert_eq!(bench.table(), model);
        if bench.partition().end_offset() > 0 {
            assert_every_segment_begins_with_a_snapshot(bench.partition());
        }
        prop_assert!(bench.partition().segment_base_offsets().len() <= 2);
    }
}

/// Bytes of a segment to change, and into what.
fn harms(len: usize) -> Vec<(std::ops::Range<usize>, u8)> {
    let bits = (0..len).step_by(1499).map(|at| (at..at + 1, 1 << (at % 8)));
    bits.chain([(0..8192, 0), (4096..len, 0), (len / 2..len, 0xa5), (0..len, 0x5a)]).collect()
}

/// Changes the segment's file; answers whether that changed anything.
fn damage(storage: &SimStorage, base: u64, (range, value): &(std::ops::Range<usize>, u8)) -> bool {
    let path = Path::new("/log/__offsets-0").join(format!("{base:020}.log"));
    let file = storage.open(&path, OpenMode::ReadWrite).unwrap();
    let before = storage.read(&path, u64::MAX).unwrap();
    let range = range.start.min(before.len())..range.end.min(before.len());
    // A bit is flipped, a range is filled.
    let after: Vec<u8> = match range.len() {
        1 => vec![before[range.start] ^ value],
        bytes => vec![*value; bytes],
    };
    file.write_all_at(&after, range.start as u64).unwrap();
    before[range] != after[..]
}

#[test]
fn whatever_is_damaged_in_whichever_segments_what_is_lost_is_told() {
    let (mut whole, mut earlier, mut none) = (0, 0, 0);
    for harm in harms(SEGMENT_BYTES as usize) {
        for (old, new) in [(true, false), (false, true), (true, true)] {
            let mut bench = Bench::new();
            let mut model = Model::new();
            let mut history = Vec::new();
            while bench.partition().segment_base_offsets().len() < 2 || history.len() < 3 {
                history.push(history.len() as u64 + 10);
                bench.commit("billing", 2, 0, history[history.len() - 1]);
                bench.fill_segment(&mut model);
            }
            history.push(1000);
            bench.commit("billing", 2, 0, 1000);
            model.insert(("billing".into(), 2, 0), 1000);
            let bases = bench.partition().segment_base_offsets();
            assert_eq!(bases.len(), 2, "the last one, and the one before");
            bench.partition().close().unwrap();
            let [old_changed, new_changed] =
                [(old, bases[0]), (new, bases[1])].map(|(is_hit, base)| is_hit && damage(&bench.storage, base, &harm));
            let opened = Offsets::open(open_partition(&bench.storage, &bench.flusher));
            let (offsets, told) = opened.unwrap();
            bench.offsets = offsets;
            let committed = bench.committed("billing", 2, 0);
            let case = format!("{harm:?} {old_changed} {new_changed}: {committed:?}, told {told:?}");
            match committed {
                Some(1000) => whole += 1,
                Some(offset) => {
                    assert!(history.contains(&offset) && !told.is_empty(), "{case}");
                    earlier += 1;
                }
                None => {
                    assert!(old_changed && new_changed && !told.is_empty(), "{case}");
                    none += 1;
                }
            }
            if bench.table() != model {
                assert!(!told.is_empty(), "{case}");
            }
            // Commits go on, and are there.
            bench.commit("billing", 2, 0, 2000);
            bench.reopen().unwrap();
            assert_eq!(bench.committed("billing", 2, 0), Some(2000), "{case}");
        }
    }
    assert!(whole > 100 && earlier > 0 && none > 0, "{whole} {earlier} {none}");
}

#[test]
fn seeds_of_offsets_open() {
    let commit = |offset: u8, epoch: u8| vec![0, 5, offset, epoch];
    let entry = |offset: u8| vec![6, 5, offset, 0];
    let of = |how: u8, pieces: &[&[u8]]| [&[how][..], &pieces.concat()].concat();
    let frame = |key: u8| [0, 0, 9, 1, 1, 0, 0, 0, 0, 0, 0, 0, 1, key];
    let made = [
        ("nothing", of(0, &[])),
        ("commits", of(2, &[&commit(1, 0), &commit(2, 0), &[0x80, 5]])),
        ("ownership-and-old-commit", of(0, &[&[5, 5, 1, 3, 1, 0, 0], &commit(7, 2), &commit(6, 3)])),
        ("members", of(4, &[&[3, 0, 1, 2], &[5, 5, 1, 1, 2, 0, 0], &[0x83, 0, 1]])),
        ("generations", of(0, &[&[4, 0, 3], &[4, 0, 2], &[0x84, 0]])),
        ("whole-snapshot", of(0, &[&commit(1, 0), &[12], &entry(3), &[13], &commit(4, 0)])),
        ("torn-snapshot", of(0, &[&commit(1, 0), &[12], &entry(3), &entry(4)])),
        ("short-snapshot", of(0, &[&commit(1, 0), &[12], &entry(3), &[14, 2], &[12], &entry(4), &[13]])),
        ("empty-entry", of(0, &[&[10, 0, 0], &[13]])),
        ("newer", of(0, &[&[15, 1, 0, 10]])),
        ("malformed", of(0, &[&[15, 2, 255, 1, 1], &commit(1, 0)])),
        ("segment", of(1, &[&frame(3), &frame(3)])),
        ("damaged-segment", of(1, &[&frame(3), &frame(3), &[5, 70, 0, 1], &frame(3)])),
        ("torn-segment", of(1, &[&frame(3), &[3, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], &frame(3)])),
    ];
    crate::partition::fuzzing::tests::feed("offsets_open", super::fuzzing::offsets_open, &made);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_is_fuzzed_holds(data in prop::collection::vec(any::<u8>(), 0..200)) {
        super::fuzzing::offsets_open(&data);
    }
}
