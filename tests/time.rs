//! Reading from a time on: by the client's timestamps, in order or not, else by the log's.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use tidelog::{Batch, ErrorKind, Log, Partition, Record, Start, TopicConfig};

mod common;

use common::{Random, small_segments};

/// Values are so long that a few dozen fill a segment of 64 KiB.
const VALUE_BYTES: usize = 2000;

fn partition(log: &Log) -> Partition {
    log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap()
}

fn append(partition: &Partition, times: impl IntoIterator<Item = i64>) {
    let value = [b'x'; VALUE_BYTES];
    for time in times {
        partition.append(Record::new(&value).timestamp_ms(time)).unwrap();
    }
}

/// Offset and timestamp of every record.
fn records(partition: &Partition) -> Vec<(u64, i64)> {
    let records = partition.read_from(partition.start_offset()).unwrap().map(|record| record.unwrap());
    records.map(|record| (record.offset(), record.timestamp_ms())).collect()
}

#[track_caller]
fn check(partition: &Partition, times: impl IntoIterator<Item = i64>) {
    let records = records(partition);
    for time_ms in times {
        let expected = records.iter().find(|&&(_, time)| time >= time_ms).map(|&(offset, _)| offset);
        assert_eq!(partition.offset_for_time(time_ms).unwrap(), expected, "time {time_ms}");
    }
}

fn times(batch: &Batch) -> Vec<i64> {
    batch.iter().map(|record| record.timestamp_ms()).collect()
}

fn segments(folder: &Path) -> usize {
    let names = fs::read_dir(folder.join("orders-0")).unwrap().map(|entry| entry.unwrap().path());
    names.filter(|path| path.extension().is_some_and(|extension| extension == "log")).count()
}

#[test]
fn the_first_record_at_or_behind_a_time_is_found_also_after_a_reopen() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = Random(7);
    let every_tenth: Vec<_> = (-5..3000).step_by(10).chain([i64::MIN, i64::MAX]).collect();
    for round in 0..3 {
        let log = small_segments().open(folder.path()).unwrap();
        let partition = partition(&log);
        // In order, then any, then falling.
        append(&partition, (0..100).map(|i| round * 1000 + i));
        append(&partition, (0..100).map(|_| random.below(3000) as i64));
        append(&partition, (0..20).map(|i| 500 - i));
        check(&partition, every_tenth.iter().copied());
        log.close().unwrap();
    }
    assert!(segments(folder.path()) > 10);
    for kind in ["timeindex", "index"] {
        let log = small_segments().open(folder.path()).unwrap();
        check(&partition(&log), every_tenth.iter().copied());
        log.close().unwrap();
        for entry in fs::read_dir(folder.path().join("orders-0")).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.extension().is_some_and(|extension| extension == kind) {
                fs::remove_file(entry).unwrap();
            }
        }
    }
    let log = small_segments().open(folder.path()).unwrap();
    check(&partition(&log), every_tenth.iter().copied());
}

#[test]
fn records_without_a_clients_time_have_the_logs() {
    let log = small_segments().in_memory().open("shop").unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap();
    assert_eq!(orders.offset_for_time(0).unwrap(), None);
    orders.append_batch((0..10).map(|i| Record::new(format!("{i}")))).unwrap();
    let now_ms = orders.read_from(0).unwrap().next().unwrap().unwrap().append_time_ms();
    assert_eq!(orders.offset_for_time(now_ms).unwrap(), Some(0));
    assert_eq!(orders.offset_for_time(now_ms + 60_000).unwrap(), None);
    assert_eq!(orders.read_from_time(0).unwrap().count(), 10);
    assert_eq!(orders.read_from_time(now_ms + 60_000).unwrap().count(), 0);
}

#[test]
fn a_time_far_off_is_kept_and_disturbs_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let far = [i64::MAX, 0, i64::MIN, -1, 5_000_000_000_000_000];
    let log = small_segments().open(folder.path()).unwrap();
    let partition = partition(&log);
    append(&partition, 1000..1100);
    append(&partition, far);
    append(&partition, 1100..1200);
    let before = records(&partition);
    assert_eq!(before[100..105].iter().map(|&(_, time)| time).collect::<Vec<_>>(), far);
    // Before the far ones all is as ever; behind them the first one that is late enough is the far one.
    assert_eq!(partition.offset_for_time(1050).unwrap(), Some(50));
    assert_eq!(partition.offset_for_time(1150).unwrap(), Some(100));
    assert_eq!(partition.offset_for_time(i64::MAX).unwrap(), Some(100));
    check(&partition, (990..1210).chain(far));
    log.close().unwrap();
    let log = small_segments().open(folder.path()).unwrap();
    let partition = self::partition(&log);
    assert_eq!(records(&partition), before);
    check(&partition, (990..1210).chain(far));
    // The log's own time goes on as if nothing had been.
    let appended = partition.append(Record::new("now")).unwrap();
    let record = partition.read_from(appended.offset).unwrap().next().unwrap().unwrap();
    assert!((1_700_000_000_000..4_000_000_000_000).contains(&record.append_time_ms()));
    assert_eq!(record.timestamp_ms(), record.append_time_ms());
}

#[test]
fn readers_begin_at_and_go_to_a_time_in_all_their_partitions() {
    let log = small_segments().in_memory().open("shop").unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
    for i in 0..300_u32 {
        orders.append(Record::new(format!("{i}")).partition(i % 3).timestamp_ms(i64::from(i / 3) * 10)).unwrap();
    }
    // Partition 2 has nothing that late.
    orders.append(Record::new("late").partition(0).timestamp_ms(10_000)).unwrap();
    orders.append(Record::new("late").partition(1).timestamp_ms(10_000)).unwrap();
    let mut reader = orders.reader(Start::Time(981)).unwrap();
    assert_eq!([0, 1, 2].map(|partition| reader.position(partition).unwrap()), [99, 99, 99]);
    let mut found = times(&reader.next_batch().unwrap().unwrap());
    found.sort_unstable();
    assert_eq!(found, [990, 990, 990, 10_000, 10_000]);

    reader.seek_to_time(5).unwrap();
    assert_eq!([0, 1, 2].map(|partition| reader.position(partition).unwrap()), [1, 1, 1]);
    reader.seek_to_time(9_999).unwrap();
    assert_eq!([0, 1, 2].map(|partition| reader.position(partition).unwrap()), [100, 100, 100]);
    assert_eq!(times(&reader.next_batch().unwrap().unwrap()), [10_000, 10_000]);
    orders.append(Record::new("later").partition(2).timestamp_ms(3)).unwrap();
    assert_eq!(times(&reader.next_batch().unwrap().unwrap()), [3], "from the end on, whatever its time");

    let first = orders.partition(1).unwrap().read_from_time(985).unwrap().next().unwrap().unwrap();
    assert_eq!((first.offset(), first.timestamp_ms()), (99, 990));
}

#[test]
fn consumers_begin_at_and_go_to_a_time() {
    let log = small_segments().in_memory().open("shop").unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for i in 0..200_u32 {
        orders.append(Record::new(format!("{i}")).partition(i % 2).timestamp_ms(i64::from(i / 2))).unwrap();
    }
    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Time(95)).open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 10);
    consumer.commit().unwrap();
    consumer.seek_to_time(97).unwrap();
    assert_eq!([0, 1].map(|partition| consumer.position("orders", partition).unwrap()), [97, 97]);
    assert_eq!([0, 1].map(|partition| consumer.committed("orders", partition).unwrap()), [Some(100); 2]);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 6);
    consumer.pause([("orders", 0)]).unwrap();
    consumer.seek_to_time(98).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 2, "what is paused is moved, and stays paused");
    consumer.resume([("orders", 0)]).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 2);
    consumer.seek_to_time(1000).unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 0);
    log.close().unwrap();
    assert_eq!(consumer.seek_to_time(0).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(orders.partition(0).unwrap().offset_for_time(0).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(orders.partition(0).unwrap().read_from_time(0).err().map(|error| error.kind()), Some(ErrorKind::Closed));
}

#[test]
fn a_damaged_record_that_may_be_the_one_is_told_and_positions_stay() {
    let folder = tempfile::tempdir().unwrap();
    let log = small_segments().open(folder.path()).unwrap();
    append(&partition(&log), 0..40);
    log.close().unwrap();
    let path = folder.path().join("orders-0/00000000000000000000.log");
    let mut bytes = fs::read(&path).unwrap();
    // The tenth frame: a header, two length words, the client's time, the value.
    let frame_bytes = 32 + 8 + 8 + VALUE_BYTES;
    bytes[4192 + 10 * frame_bytes + 100] ^= 1;
    fs::write(&path, bytes).unwrap();

    let log = small_segments().open(folder.path()).unwrap();
    let orders = log.topic("orders").unwrap();
    let partition = orders.partition(0).unwrap();
    let mut reader = orders.reader(Start::Time(5)).unwrap();
    assert_eq!(reader.position(0).unwrap(), 5);
    for error in [partition.offset_for_time(10).unwrap_err(), reader.seek_to_time(10).unwrap_err()] {
        assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::Corruption, Some(11)));
        assert_eq!((error.topic(), error.partition(), error.path()), (Some("orders"), Some(0), Some(&*path)));
    }
    assert_eq!(reader.position(0).unwrap(), 5);
    reader.seek(0, 11).unwrap();
    assert_eq!(times(&reader.next_batch().unwrap().unwrap())[0], 11);
}

#[test]
fn lag_is_told_in_bytes_and_time_too() {
    let log = small_segments().in_memory().open("shop").unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
    let lag = consumer.lag();
    assert_eq!((lag.total, lag.bytes, lag.time), (0, 0, Duration::ZERO));

    let value = [b'x'; VALUE_BYTES];
    // A client's time says nothing of how long a record has been waiting.
    for i in 0..100 {
        orders.append(Record::new(&value).partition(i % 2).timestamp_ms(i64::from(i) - 50)).unwrap();
    }
    let frame_bytes = (32 + 8 + 8 + VALUE_BYTES) as u64;
    let lag = consumer.lag();
    assert_eq!((lag.total, lag.bytes), (100, 100 * frame_bytes));
    assert_eq!([0, 1].map(|i| lag.partitions[i].bytes), [50 * frame_bytes; 2]);
    assert!(lag.time < Duration::from_secs(3600), "{:?}", lag.time);
    assert_eq!(lag.time, lag.partitions[0].time.max(lag.partitions[1].time));

    let waited = |consumer: &tidelog::Consumer| consumer.lag().partitions[0].time;
    while waited(&consumer) == Duration::ZERO {
        std::thread::yield_now(); // until the clock shows another millisecond
    }
    consumer.commit_offsets([("orders", 0, 50), ("orders", 1, 49)]).unwrap();
    let lag = consumer.lag();
    assert_eq!([0, 1].map(|i| (lag.partitions[i].lag, lag.partitions[i].bytes)), [(0, 0), (1, frame_bytes)]);
    assert_eq!((lag.partitions[0].time, lag.bytes), (Duration::ZERO, frame_bytes));
}

#[test]
fn what_was_deleted_isnt_found_and_far_off_times_keep_nothing_from_going() {
    let folder = tempfile::tempdir().unwrap();
    let log = small_segments().retention_bytes(200_000).open(folder.path()).unwrap();
    let partition = partition(&log);
    // Whatever the clients say, the oldest go.
    append(&partition, [i64::MAX, 0, i64::MIN]);
    append(&partition, 0..300);
    assert_eq!(partition.offset_for_time(i64::MAX).unwrap(), Some(0));
    assert!(log.enforce_retention().unwrap().segments > 0);
    let oldest = partition.start_offset();
    assert!((3..250).contains(&oldest), "{oldest}");
    assert_eq!(partition.offset_for_time(i64::MAX).unwrap(), None);
    assert_eq!(partition.offset_for_time(0).unwrap(), Some(oldest));
    check(&partition, 0..310);

    // Into the middle of a segment, behind a record that is later than all that is left.
    append(&partition, [9_000]);
    append(&partition, 300..310);
    partition.delete_records(304).unwrap();
    for _ in 0..2 {
        assert_eq!(partition.offset_for_time(9_001).unwrap(), None);
        assert_eq!(partition.offset_for_time(0).unwrap(), Some(304));
        assert_eq!(partition.offset_for_time(305).unwrap(), Some(309));
        assert_eq!(partition.read_from_time(305).unwrap().position(), 309);
        partition.append(Record::new("x").timestamp_ms(0)).unwrap();
    }
    log.close().unwrap();
    let log = small_segments().open(folder.path()).unwrap();
    let partition = self::partition(&log);
    assert_eq!(partition.start_offset(), 304);
    check(&partition, (295..310).chain([i64::MIN, 9_000, 9_001]));

    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Time(307)).open().unwrap();
    assert_eq!(consumer.position("orders", 0).unwrap(), 311);
    consumer.commit().unwrap();
    let (before, frame_bytes) = (consumer.lag(), (32 + 8 + 8 + VALUE_BYTES) as u64);
    partition.delete_records(313).unwrap();
    let after = consumer.lag();
    assert_eq!((before.total, after.total), (5, 5), "in offsets");
    assert_eq!(before.bytes - after.bytes, 2 * frame_bytes, "what was deleted isn't to be read");
}
