use std::{path::Path, thread};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::Clock,
    partition::{Environment, Flusher, OpenFiles, PartitionSpec, Settings, SettingsValues},
    storage::sim::SimStorage,
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
        let (storage, flusher) = (SimStorage::default(), Flusher::start().unwrap());
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

    fn commit(&self, group: &str, topic_id: u128, partition: u32, offset: u64) {
        self.offsets.commit(&group.into(), [(topic_id, partition, offset)], None).unwrap();
    }

    fn append(&self, key: &[u8], value: &[u8]) {
        self.partition().append(&Record::new(value).key(key), None).unwrap();
    }

    fn table(&self) -> Model {
        let state = self.offsets.state.lock();
        let owned = |key: &Key<Arc<str>>| (key.group.to_string(), key.topic_id, key.partition);
        state.table.iter().map(|(key, committed)| (owned(key), committed.offset)).collect()
    }

    /// Commits until a new segment is begun.
    fn fill_segment(&self, model: &mut Model) {
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

fn open_partition(storage: &SimStorage, flusher: &Arc<Flusher>) -> Arc<PartitionLog> {
    let env = Environment {
        storage: Arc::new(storage.clone()),
        clock: Clock::System,
        flusher: flusher.clone(),
        recent_segments: Arc::default(),
        open_files: OpenFiles::bounded(1000, storage.clone()),
        figures: Default::default(),
        positional_appends: false,
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
    let group: Arc<str> = "billing".into();
    bench.offsets.commit(&group, [(1, 0, 10), (1, 1, 20), (2, 0, 30)], None).unwrap();
    bench.commit("billing", 1, 0, 11);
    bench.commit("shipping", 1, 0, 5);
    for _ in 0..3 {
        assert_eq!(bench.offsets.committed(&group, 1, 0), Some(11));
        assert_eq!(bench.offsets.committed(&group, 1, 1), Some(20));
        assert_eq!(bench.offsets.committed(&group, 2, 0), Some(30));
        assert_eq!(bench.offsets.committed(&"shipping".into(), 1, 0), Some(5));
        assert_eq!(bench.offsets.committed(&"shipping".into(), 1, 1), None);
        assert_eq!(bench.offsets.committed(&group, 3, 0), None, "another topic id is another topic");
        assert!(bench.reopen().unwrap().is_empty());
    }
}

#[test]
fn what_is_unchanged_is_not_appended() {
    let bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    let end = bench.partition().end_offset();
    bench.commit("billing", 1, 0, 10);
    bench.offsets.commit(&"billing".into(), [], None).unwrap();
    assert_eq!(bench.partition().end_offset(), end);
    bench.offsets.commit(&"billing".into(), [(1, 0, 10), (1, 1, 7)], None).unwrap();
    assert_eq!(bench.partition().end_offset(), end + 1);
}

#[test]
fn an_offset_may_be_committed_that_is_lower() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.commit("billing", 1, 0, 3);
    bench.reopen().unwrap();
    assert_eq!(bench.offsets.committed(&"billing".into(), 1, 0), Some(3));
}

/// A topic can have more partitions than a frame has records.
#[test]
fn any_number_of_partitions_is_committed_at_once() {
    let mut bench = Bench::new();
    let group: Arc<str> = "billing".into();
    for offset in [7, 8, 9] {
        let offsets = (0..100_000).map(|partition| (1, partition, offset));
        bench.offsets.commit(&group, offsets, None).unwrap();
    }
    assert!(bench.reopen().unwrap().is_empty());
    assert_eq!(bench.table().len(), 100_000);
    assert!(bench.table().values().all(|committed| *committed == 9));
}

#[test]
fn of_several_offsets_for_one_partition_the_last_one_counts() {
    let mut bench = Bench::new();
    let group: Arc<str> = "billing".into();
    bench.commit("billing", 1, 0, 3);
    for offsets in [[5, 3], [4, 3], [3, 5], [7, 6]] {
        bench.offsets.commit(&group, offsets.map(|offset| (1, 0, offset)), None).unwrap();
        assert_eq!(bench.offsets.committed(&group, 1, 0), Some(offsets[1]), "{offsets:?}");
    }
    bench.reopen().unwrap();
    assert_eq!(bench.offsets.committed(&group, 1, 0), Some(6));
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
        let table: Vec<_> = bench.offsets.state.lock().table.clone().into_iter().take(entries).collect();
        for (key, committed) in table {
            let (key, value) = codec::snapshot_entry(&key, committed);
            bench.append(&key, &value);
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
    let key = Key { group: "billing", topic_id: 1, partition: 0 };
    let (key, value) = codec::snapshot_entry(&key, Committed { offset: 10, epoch: 0 });
    bench.append(&key, &value);
    let (key, value) = codec::snapshot_end(2);
    bench.append(&key, &value);
    bench.reopen().unwrap();
    assert_eq!(bench.offsets.committed(&"billing".into(), 1, 1), Some(20));
}

#[test]
fn commits_before_an_end_are_no_snapshot() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.commit("billing", 1, 1, 20);
    bench.partition().roll().unwrap();
    let (key, value) =
        codec::commit(&Key { group: "billing", topic_id: 1, partition: 0 }, Committed { offset: 11, epoch: 0 });
    bench.append(&key, &value);
    let (key, value) = codec::snapshot_end(1);
    bench.append(&key, &value);
    bench.reopen().unwrap();
    assert_eq!(bench.offsets.committed(&"billing".into(), 1, 0), Some(11));
    assert_eq!(bench.offsets.committed(&"billing".into(), 1, 1), Some(20));
}

#[test]
fn a_null_value_makes_the_table_forget() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    let (key, _) =
        codec::commit(&Key { group: "billing", topic_id: 1, partition: 0 }, Committed { offset: 0, epoch: 0 });
    bench.partition().append(&Record::tombstone(&key), None).unwrap();
    assert!(bench.reopen().unwrap().is_empty());
    assert_eq!(bench.table(), Model::new());
}

#[test]
fn a_record_of_a_newer_version_is_an_error_that_names_it() {
    for (key, value, named) in [(&b"\x09new"[..], &b"\x01"[..], "kind 9"), (b"\x03", b"\x02", "kind 3 in version 2")] {
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
fn a_record_that_is_no_commit_is_told_and_the_others_count() {
    let mut bench = Bench::new();
    bench.commit("billing", 1, 0, 10);
    bench.append(b"\x01\xff", b"\x01");
    bench.commit("billing", 1, 1, 20);
    let damage = bench.reopen().unwrap();
    assert_eq!(damage.len(), 1);
    assert_eq!(damage[0].kind(), ErrorKind::Corruption);
    assert_eq!(bench.offsets.committed(&"billing".into(), 1, 0), Some(10));
    assert_eq!(bench.offsets.committed(&"billing".into(), 1, 1), Some(20));
}

#[test]
fn many_threads_commit_and_none_is_lost() {
    let mut bench = Bench::new();
    thread::scope(|scope| {
        for group in 0..4 {
            let bench = &bench;
            scope.spawn(move || {
                for offset in 1..=500 {
                    bench.commit(&format!("group-{group}"), 1, (offset % 7) as u32, offset);
                }
            });
        }
    });
    let table = bench.table();
    assert_eq!(table.len(), 4 * 7);
    assert!(table.values().all(|&offset| offset > 493), "{table:?}");
    assert_every_segment_begins_with_a_snapshot(bench.partition());
    bench.reopen().unwrap();
    assert_eq!(bench.table(), table);
}

#[test]
fn a_table_larger_than_a_segment_is_kept_all_the_same() {
    let mut bench = Bench::new();
    let mut model = Model::new();
    for round in 1..=4 {
        for group in 0..10 {
            let group = format!("group-{group}");
            let offsets = (0..400).map(|partition| (1, partition, round));
            bench.offsets.commit(&group.as_str().into(), offsets, None).unwrap();
            model.extend((0..400).map(|partition| ((group.clone(), 1, partition), round)));
        }
        assert!(bench.reopen().unwrap().is_empty());
        assert_eq!(bench.table(), model);
    }
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
                    bench.offsets.commit(&group.as_str().into(), offsets, None).unwrap();
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
