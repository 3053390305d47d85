//! Retention and deletion of records, as a program sees them.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use common::{append, check_numbers};
use tidelog::{ErrorKind, Log, LogOptions, OutOfRangePolicy, Record, Removed, Start, TopicConfig};

const VALUE_BYTES: usize = 1000;

fn small_segments() -> LogOptions {
    // Nothing is checked in the background but when the log is opened.
    common::small_segments().retention_check_interval(Duration::from_secs(3600))
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// The sizes of a partition's segments, oldest first.
fn segment_files(folder: &Path) -> Vec<u64> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().extension().is_some_and(|it| it == "log"))
        .map(|entry| (entry.file_name(), entry.metadata().unwrap().len()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, len)| len).collect()
}

#[test]
fn size_is_kept_per_partition_and_readers_go_on() {
    const KEPT: u64 = 300 << 10;
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2).retention_bytes(KEPT)).unwrap();
    let (first, second) = (topic.partition(0).unwrap(), topic.partition(1).unwrap());
    append(&first, 0..2000, VALUE_BYTES);
    append(&second, 0..100, VALUE_BYTES);
    let mut reader = first.reader(Start::Earliest).unwrap();
    let batch = reader.next_batch().unwrap().unwrap();
    let mut slow = first.reader(Start::Earliest).unwrap();
    let mut skipping = first.reader(Start::Earliest).unwrap().on_out_of_range(OutOfRangePolicy::Earliest);

    let removed = log.enforce_retention().unwrap();
    log.flush().unwrap();
    let kept: u64 = segment_files(&dir.path().join("orders-0")).iter().rev().skip(1).sum();
    assert!(removed.segments > 20 && removed.bytes > removed.segments * (60 << 10), "{removed:?}");
    assert!((KEPT - (70 << 10)..KEPT + (70 << 10)).contains(&kept), "{kept}");
    assert_eq!(log.retention_status().removed, removed);
    let start = first.start_offset();
    assert!(start > 1500 && start < 2000);
    check_numbers(&first, start..2000, VALUE_BYTES);
    check_numbers(&second, 0..100, VALUE_BYTES);
    assert_eq!(log.enforce_retention().unwrap(), Removed::default());

    // What was read stays, and so does what is mapped.
    assert_eq!(batch.iter().next().unwrap().value(), Some(&*common::value_of(0, VALUE_BYTES)));
    let error = std::iter::repeat_with(|| reader.next_batch()).find_map(Result::err).unwrap();
    assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::OffsetOutOfRange, Some(start)));
    let error = slow.next_batch().unwrap_err();
    assert_eq!((error.kind(), error.valid_offsets()), (ErrorKind::OffsetOutOfRange, Some(start..2000)));
    slow.seek(0, error.resume_offset().unwrap()).unwrap();
    assert_eq!(slow.next_batch().unwrap().unwrap().iter().next().unwrap().offset(), start);
    let batch = skipping.next_batch().unwrap().unwrap();
    assert_eq!(batch.skipped()[0].offsets(), 0..start);
    log.close().unwrap();
    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean());
    check_numbers(&log.topic("orders").unwrap().partition(0).unwrap(), start..2000, VALUE_BYTES);
}

#[test]
fn a_topic_that_nobody_writes_to_forgets_by_itself_and_groups_forget_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
    let kept = TopicConfig::with_partitions(1).retention_age(Duration::from_secs(3600));
    append(&log.create_topic("kept", kept).unwrap().partition(0).unwrap(), 0..10, 8);
    for number in 0..30 {
        // A time of the client's, long ago or far ahead, is no reason to go or to stay.
        let time = if number % 2 == 0 { 0 } else { i64::MAX };
        topic.append(Record::new("x").partition(number % 3).timestamp_ms(time)).unwrap();
    }
    let mut consumer = log.consumer("billing").topic("orders").topic("kept").open().unwrap();
    let mut read = 0;
    while read < 40 {
        read += consumer.poll(Duration::from_secs(60)).unwrap().len();
    }
    consumer.commit().unwrap();
    drop(consumer);
    log.close().unwrap();

    let options = Log::options().retention_age(Duration::from_millis(20));
    let log = options.retention_check_interval(Duration::from_millis(5)).open(dir.path()).unwrap();
    let topic = log.topic("orders").unwrap();
    let partitions = [0, 1, 2].map(|number| topic.partition(number).unwrap());
    wait_until("all go", || partitions.iter().all(|partition| partition.start_offset() == 10));
    wait_until("it is told", || log.retention_status().removed.segments == 3);
    // Again and again.
    topic.append(Record::new("x").partition(1)).unwrap();
    wait_until("it goes", || partitions[1].start_offset() == 11);
    check_numbers(&log.topic("kept").unwrap().partition(0).unwrap(), 0..10, 8);
    assert_eq!(log.retention_status().failures, 0);
    let consumer = log.consumer("billing").topic("orders").topic("kept").open().unwrap();
    assert_eq!(consumer.committed("kept", 0).unwrap(), Some(10));
    assert_eq!(consumer.committed("orders", 2).unwrap(), Some(10));
}

#[test]
fn after_a_close_nothing_is_checked() {
    let log = Log::options().in_memory().open("test").unwrap();
    log.close().unwrap();
    assert_eq!(log.enforce_retention().unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn deleted_records_are_gone_for_all_who_come_later() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    let partition = topic.partition(0).unwrap();
    // One frame, and some segments.
    partition.append_batch((0..50).map(|number| Record::new(common::value_of(number, 8)))).unwrap();
    append(&partition, 50..60, 8);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let mut behind = log.consumer("shipping").topic("orders").max_poll_records(5).open().unwrap();
    assert_eq!(behind.poll(Duration::ZERO).unwrap().len(), 5);
    behind.commit().unwrap();

    assert_eq!(partition.delete_records(20).unwrap(), 20);
    assert_eq!(partition.delete_records(10).unwrap(), 20);
    assert_eq!((partition.start_offset(), partition.end_offset()), (20, 60));
    check_numbers(&partition, 20..60, 8);
    assert_eq!(topic.reader(Start::Earliest).unwrap().next_batch().unwrap().unwrap().len(), 40);
    assert_eq!(partition.read_from(19).unwrap_err().resume_offset(), Some(20));
    assert_eq!(topic.reader(Start::Offset(20)).unwrap().next_batch().unwrap().unwrap().len(), 40);
    assert_eq!(topic.reader(Start::Time(0)).unwrap().next_batch().unwrap().unwrap().len(), 40);
    let error = partition.delete_records(61).unwrap_err();
    assert_eq!((error.kind(), error.valid_offsets()), (ErrorKind::OffsetOutOfRange, Some(20..60)));

    // A group that has committed nothing, and one that is behind.
    let error = consumer.poll(Duration::ZERO).unwrap_err();
    assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::OffsetOutOfRange, Some(20)));
    consumer.rewind().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 40);
    consumer.commit().unwrap();
    assert_eq!((consumer.lag().total, behind.lag().total), (0, 55));
    drop((consumer, behind));
    let mut behind = log.consumer("shipping").topic("orders").open().unwrap();
    assert_eq!(behind.poll(Duration::ZERO).unwrap_err().resume_offset(), Some(20));
    behind.seek("orders", 0, 20).unwrap();
    assert_eq!(behind.poll(Duration::ZERO).unwrap().len(), 40);
    behind.commit().unwrap();
    drop(behind);

    assert_eq!(partition.delete_records(60).unwrap(), 60);
    check_numbers(&partition, 60..60, 8);
    assert_eq!(segment_files(&dir.path().join("orders-0")).len(), 1);
    append(&partition, 60..70, 8);
    log.close().unwrap();
    assert_eq!(partition.delete_records(60).unwrap_err().kind(), ErrorKind::Closed);
    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean());
    let partition = log.topic("orders").unwrap().partition(0).unwrap();
    assert_eq!(partition.start_offset(), 60);
    check_numbers(&partition, 60..70, 8);
}
