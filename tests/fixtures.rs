//! The golden folder of each version of the format: every later version opens it, and finds in it what was written.
//!
//! What is in it says `tests/fixtures/v1/README.md`.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use tidelog::{ErrorKind, Log, Opening, OwnedRecord, Record, TopicConfig};

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() { copy(&entry.path(), &to) } else { drop(fs::copy(entry.path(), to)) }
    }
}

fn records(log: &Log, partition: u32) -> Vec<OwnedRecord> {
    let partition = log.topic("orders").unwrap().partition(partition).unwrap();
    partition.read_from(0).unwrap().map(|record| record.unwrap()).collect()
}

/// Key, value and headers of one of the four records of partition 0.
type Content = (Option<&'static [u8]>, Option<&'static [u8]>, &'static [(&'static str, Option<&'static [u8]>)]);

const PARTITION_0: [Content; 4] = [
    (
        Some(b"customer-42"),
        Some(b"one iPhone"),
        &[("source", Some(b"web")), ("source", Some(b"app")), ("coupon", None)],
    ),
    (Some(b"customer-7"), None, &[]),
    (None, None, &[]),
    (Some(b""), Some(b""), &[]),
];

fn check(log: &Log) {
    assert_eq!(log.topics(), ["orders"]);
    for (record, (key, value, headers)) in records(log, 0).iter().zip(PARTITION_0) {
        assert_eq!((record.key(), record.value()), (key, value));
        assert_eq!(record.headers().collect::<Vec<_>>(), headers);
    }
    assert_eq!(records(log, 0)[0].timestamp_ms(), -5);
    let many = records(log, 1);
    assert!(many.len() >= 200);
    for (i, record) in many.iter().enumerate().take(200) {
        assert_eq!((record.offset(), record.timestamp_ms()), (i as u64, 1_000 + i as i64));
        assert_eq!(record.value(), Some(format!("order {i:03}").as_bytes()));
        assert_eq!(record.key(), Some(format!("customer-{}", i % 10).as_bytes()));
    }
    // A folder of before there were time indexes.
    let by_time = |partition, time_ms| {
        log.topic("orders").unwrap().partition(partition).unwrap().offset_for_time(time_ms).unwrap()
    };
    assert_eq!([0, 1050, 1199].map(|time_ms| by_time(1, time_ms)), [Some(0), Some(50), Some(199)]);
    assert_eq!((by_time(0, -5), by_time(0, 0)), (Some(0), Some(1)));
    let committed = |group: &str| {
        let consumer = log.consumer(group).topic("orders").open().unwrap();
        [0, 1].map(|partition| consumer.committed("orders", partition).unwrap())
    };
    assert_eq!(committed("billing"), [Some(4), Some(150)]);
    assert_eq!(committed("shipping"), [Some(2), None]);
    assert_eq!(committed("mailing"), [None, None]);
}

#[test]
fn a_folder_of_version_1_is_opened_read_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/log"), dir.path());

    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    assert!(log.recovery().partitions().iter().all(|partition| partition.opening() == Opening::Clean));
    assert_eq!((records(&log, 0).len(), records(&log, 1).len()), (4, 200));
    check(&log);

    let error = log.ensure_topic("orders", TopicConfig::with_partitions(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartitionCountMismatch);
    let topic = log.topic("orders").unwrap();
    assert_eq!(topic.append(Record::new("more").partition(1)).unwrap().offset, 200);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.poll(Duration::from_secs(1)).unwrap().len(), 51, "150 to 199, and the new one");
    drop(consumer);
    log.close().unwrap();

    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    check(&log);
    assert_eq!(records(&log, 1).len(), 201);
}

#[test]
fn groups_indexes_and_deleted_records_of_version_1_are_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1/groups"), dir.path());

    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    let orders = log.topic("orders.eu").unwrap();
    let partition = orders.partition(0).unwrap();
    assert_eq!((partition.start_offset(), partition.end_offset()), (77, 1_000));
    assert_eq!(partition.read_from(77).unwrap().count(), 923);
    let by_time = |time_ms| partition.offset_for_time(time_ms).unwrap();
    assert_eq!(by_time(0), Some(77));
    // 800 has the time 1,008,000; those before it, and those behind it up to 809, are earlier.
    assert_eq!(by_time(1_007_901), Some(800));
    assert_eq!(by_time(1_009_900), Some(990));
    assert_eq!(by_time(1_009_901), None);

    let group = log.describe_group("billing").unwrap();
    assert_eq!((group.generation, group.members.len()), (2, 0), "whoever was there died with its process");
    let committed = |partition| group.committed.iter().find(|other| other.partition == partition).unwrap().offset;
    assert_eq!((committed(0), committed(1)), (500, 1));
    let mut consumer = log.consumer("billing").topic("orders.eu").max_poll_bytes(1 << 20).open().unwrap();
    assert_eq!((consumer.generation(), consumer.assignment().len()), (3, 2));
    let batch = consumer.poll(Duration::from_secs(1)).unwrap();
    assert_eq!((batch.len(), batch.iter().next().unwrap().offset()), (500, 500));
    consumer.commit().unwrap();
    drop(consumer);
    log.close().unwrap();

    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    assert_eq!(log.lag("billing").unwrap().total, 0);
}
