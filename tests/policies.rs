//! Policies: what is passed over is told, and nothing else is.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tidelog::{
    Batch, Consumer, ConsumerBuilder, CorruptionPolicy, ErrorKind, Log, OutOfRangePolicy, Record, Skipped, Start,
    TopicConfig,
};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const RECORDS: u32 = 20;

/// A log with a topic of two partitions, number `i` in partition `i % 2`, closed.
fn prepare(dir: &Path) {
    let log = Log::open(dir).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for i in 0..RECORDS {
        topic.append(Record::new(format!("order {i:03}")).partition(i % 2)).unwrap();
    }
    log.close().unwrap();
}

/// Segments of a partition, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "log")).collect();
    segments.sort();
    segments
}

/// Flips a bit where `text` stands.
fn damage(folder: &Path, text: &str) {
    let mut found = false;
    for path in segments(folder) {
        let mut bytes = fs::read(&path).unwrap();
        if let Some(at) = bytes.windows(text.len()).position(|window| window == text.as_bytes()) {
            bytes[at] ^= 0x10;
            fs::write(path, bytes).unwrap();
            found = true;
        }
    }
    assert!(found, "{text}");
}

fn builder(log: &Log) -> ConsumerBuilder {
    log.consumer("billing").topic("orders")
}

/// Partition and offset of each record, and of each place that was passed over (in the order in which they were told).
#[derive(Default, Debug)]
struct Seen {
    records: BTreeMap<u32, Vec<u64>>,
    skipped: Vec<(u32, u64, u64)>,
}

impl Seen {
    fn add(&mut self, batch: &Batch) {
        for record in batch {
            self.records.entry(record.partition()).or_default().push(record.offset());
        }
        self.skipped.extend(batch.skipped().iter().map(place));
    }
}

fn place(skipped: &Skipped) -> (u32, u64, u64) {
    assert_eq!(skipped.topic, "orders");
    assert_eq!((skipped.error.topic(), skipped.error.partition()), (Some("orders"), Some(skipped.partition)));
    (skipped.partition, skipped.offset, skipped.resume_offset)
}

/// Everything that is there.
fn drain(consumer: &mut Consumer) -> Seen {
    let mut seen = Seen::default();
    loop {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        if batch.is_empty() && batch.skipped().is_empty() {
            return seen;
        }
        seen.add(&batch);
    }
}

#[test]
fn damage_is_passed_over_and_told_with_the_error() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let folder = dir.path().join("orders-0");
    ["order 000", "order 006", "order 008", "order 014"].iter().for_each(|text| damage(&folder, text));
    let log = Log::open(dir.path()).unwrap();
    for bound in [1, 3, usize::MAX] {
        let mut consumer = builder(&log)
            .on_corruption(CorruptionPolicy::Skip)
            .max_poll_records(bound)
            .start_if_new(Start::Earliest)
            .open()
            .unwrap();
        let seen = drain(&mut consumer);
        assert_eq!(seen.records[&0], [1, 2, 5, 6, 8, 9]);
        assert_eq!(seen.records[&1], (0..10).collect::<Vec<_>>());
        assert_eq!(seen.skipped, [(0, 0, 1), (0, 3, 5), (0, 7, 8)]);
        assert_eq!(consumer.position("orders", 0).unwrap(), 10);
    }
    let mut consumer = builder(&log).on_corruption(CorruptionPolicy::Skip).open().unwrap();
    let batch = consumer.poll(LONG).unwrap();
    let skipped = &batch.skipped()[0];
    assert_eq!((skipped.error.kind(), skipped.offsets()), (ErrorKind::Corruption, 0..1));
    assert!(skipped.error.path().unwrap().starts_with(&folder));
    let copy = batch.clone();
    drop((batch, consumer));
    assert!(!copy.skipped().is_empty(), "it goes with the batch");
}

#[test]
fn what_is_skipped_is_not_read_again_behind_a_commit() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), "order 018");
    let log = Log::open(dir.path()).unwrap();
    let open = || builder(&log).on_corruption(CorruptionPolicy::Skip).open().unwrap();
    let mut consumer = open();
    assert_eq!(drain(&mut consumer).skipped, [(0, 9, 10)]);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(10));
    drop(consumer);
    let mut consumer = open();
    assert!(drain(&mut consumer).skipped.is_empty());
    log.topic("orders").unwrap().append(Record::new("more").partition(0)).unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 1);
}

#[test]
fn it_is_told_at_once_also_where_no_record_comes_with_it() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), "order 018");
    let log = Log::open(dir.path()).unwrap();
    let mut consumer = builder(&log).on_corruption(CorruptionPolicy::Skip).open().unwrap();
    consumer.seek("orders", 0, 9).unwrap();
    consumer.seek_to_end("orders", 1).unwrap();
    let start = Instant::now();
    let batch = consumer.poll(LONG).unwrap();
    assert!(start.elapsed() < LONG / 2);
    assert!(batch.is_empty());
    assert_eq!(batch.skipped().iter().map(place).collect::<Vec<_>>(), [(0, 9, 10)]);
    assert!(consumer.poll(Duration::ZERO).unwrap().skipped().is_empty(), "told once");
    consumer.rewind().unwrap();
    assert_eq!(drain(&mut consumer).skipped.len(), 1, "and again when it is met again");
}

#[test]
fn a_paused_partition_tells_nothing() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), "order 000");
    let log = Log::open(dir.path()).unwrap();
    for policy in [CorruptionPolicy::Fail, CorruptionPolicy::Skip] {
        let mut consumer = builder(&log).on_corruption(policy).open().unwrap();
        consumer.pause([("orders", 0)]).unwrap();
        let seen = drain(&mut consumer);
        assert_eq!((seen.records.len(), seen.skipped.len()), (1, 0));
        consumer.resume([("orders", 0)]).unwrap();
        match policy {
            CorruptionPolicy::Fail => {
                assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Corruption);
                consumer.pause([("orders", 0)]).unwrap();
                assert!(drain(&mut consumer).records.is_empty());
            }
            _ => assert_eq!(drain(&mut consumer).skipped, [(0, 0, 1)]),
        }
    }
    // Also one that was met, and not told yet.
    let mut consumer = builder(&log).open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 10);
    consumer.pause([("orders", 0)]).unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn whole_segments_that_are_gone_or_damaged_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().segment_bytes(64 << 10).open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    let value = vec![b'x'; 1000];
    for _ in 0..400 {
        topic.append(Record::new(&value)).unwrap();
    }
    log.close().unwrap();
    let segments = segments(&dir.path().join("orders-0"));
    let base = |at: usize| -> u64 { segments[at].file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    assert!(segments.len() > 5);
    fs::remove_file(&segments[1]).unwrap();
    let mut bytes = fs::read(&segments[3]).unwrap();
    bytes[..8192].fill(0xff); // both copies of its header
    fs::write(&segments[3], bytes).unwrap();

    let log = Log::open(dir.path()).unwrap();
    let mut consumer = builder(&log).on_corruption(CorruptionPolicy::Skip).open().unwrap();
    let seen = drain(&mut consumer);
    let readable = (0..base(1)).chain(base(2)..base(3)).chain(base(4)..400);
    assert_eq!(seen.records[&0], readable.collect::<Vec<_>>());
    assert_eq!(seen.skipped, [(0, base(1), base(2)), (0, base(3), base(4))]);
}

/// A group whose commits are of a partition that is gone, and was made anew, far behind them.
fn commits_of_a_lost_partition(dir: &Path) -> Log {
    prepare(dir);
    let log = Log::open(dir).unwrap();
    let mut consumer = builder(&log).open().unwrap();
    drain(&mut consumer);
    consumer.commit().unwrap();
    drop(consumer);
    log.close().unwrap();
    fs::remove_dir_all(dir.join("orders-1")).unwrap();
    let log = Log::open(dir).unwrap();
    let topic = log.topic("orders").unwrap();
    for _ in 0..3 {
        topic.append(Record::new("new").partition(1)).unwrap();
    }
    log
}

#[test]
fn a_position_in_a_lost_partition_goes_where_the_policy_says() {
    // So that no offset that was committed is used again.
    let (start, end) = (10 + (1 << 32), 13 + (1 << 32));
    for (policy, offsets, resume) in
        [(OutOfRangePolicy::Earliest, start..end, start), (OutOfRangePolicy::Latest, end..end, end)]
    {
        let dir = tempfile::tempdir().unwrap();
        let log = commits_of_a_lost_partition(dir.path());
        let mut consumer = builder(&log).on_out_of_range(policy).open().unwrap();
        assert_eq!(consumer.position("orders", 1).unwrap(), 10);
        let batch = consumer.poll(LONG).unwrap();
        let skipped = batch.skipped();
        assert_eq!(skipped.iter().map(place).collect::<Vec<_>>(), [(1, 10, resume)], "{policy:?}");
        assert_eq!((skipped[0].error.kind(), skipped[0].offsets()), (ErrorKind::OffsetOutOfRange, 10..resume));
        assert_eq!(batch.iter().map(|record| record.offset()).collect::<Vec<_>>(), offsets.collect::<Vec<_>>());
        consumer.commit().unwrap();
        assert_eq!(consumer.committed("orders", 1).unwrap(), Some(end));
    }
}

#[test]
fn a_position_before_the_start_goes_where_the_policy_says() {
    for (policy, resume) in [(OutOfRangePolicy::Earliest, 7), (OutOfRangePolicy::Latest, 10)] {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path());
        let log = Log::open(dir.path()).unwrap();
        let open = || builder(&log).on_out_of_range(policy).open().unwrap();
        open().commit_offsets([("orders", 0, 3)]).unwrap();
        assert_eq!(log.topic("orders").unwrap().partition(0).unwrap().delete_records(7).unwrap(), 7);
        let mut consumer = open();
        let seen = drain(&mut consumer);
        assert_eq!(seen.skipped, [(0, 3, resume)], "{policy:?}");
        assert_eq!(seen.records.get(&0).cloned().unwrap_or_default(), (resume..10).collect::<Vec<_>>());
        assert_eq!(seen.records[&1].len(), 10);
        consumer.commit().unwrap();
        assert!(drain(&mut consumer).skipped.is_empty());
    }
}

#[test]
fn each_policy_is_for_its_own_kind() {
    let dir = tempfile::tempdir().unwrap();
    let log = commits_of_a_lost_partition(dir.path());
    let mut consumer = builder(&log).on_corruption(CorruptionPolicy::Skip).open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    drop(consumer);
    log.close().unwrap();
    damage(&dir.path().join("orders-0"), "order 000");
    let log = Log::open(dir.path()).unwrap();
    let mut consumer =
        log.consumer("shipping").topic("orders").on_out_of_range(OutOfRangePolicy::Latest).open().unwrap();
    let mut kinds = Vec::new();
    for _ in 0..4 {
        match consumer.poll(Duration::ZERO) {
            Ok(batch) => assert!(batch.skipped().is_empty()),
            Err(error) => kinds.push(error.kind()),
        }
    }
    assert_eq!(kinds, [ErrorKind::Corruption; 3], "told again until somebody goes on");
}

#[test]
fn what_was_passed_over_is_told_before_the_error_of_another_partition() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), "order 018");
    let log = commits_behind_the_end_of_one(dir.path());
    let mut consumer = builder(&log).on_corruption(CorruptionPolicy::Skip).open().unwrap();
    consumer.seek("orders", 0, 9).unwrap();
    let batch = consumer.poll(LONG).unwrap();
    assert_eq!((batch.len(), batch.skipped().len()), (0, 1));
    for _ in 0..2 {
        assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    }
}

/// The second partition is made anew, and the group had committed in it.
fn commits_behind_the_end_of_one(dir: &Path) -> Log {
    let log = Log::open(dir).unwrap();
    builder(&log).open().unwrap().commit_offsets([("orders", 1, 10)]).unwrap();
    log.close().unwrap();
    fs::remove_dir_all(dir.join("orders-1")).unwrap();
    Log::open(dir).unwrap()
}

#[test]
fn readers_have_the_same_policies() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), "order 006");
    let log = Log::open(dir.path()).unwrap();
    let topic = log.topic("orders").unwrap();
    let mut reader = topic.reader(Start::Earliest).unwrap().on_corruption(CorruptionPolicy::Skip);
    let mut seen = Seen::default();
    while let Some(batch) = reader.next_batch().unwrap() {
        seen.add(&batch);
    }
    assert_eq!(seen.records[&0], [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    assert_eq!((seen.records[&1].len(), &*seen.skipped), (10, &[(0, 3, 4)][..]));
    assert_eq!(topic.reader(Start::Earliest).unwrap().next_batch().unwrap().unwrap().len(), 13);
}
