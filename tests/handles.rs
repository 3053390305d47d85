//! Handles: they keep the log open, and after `close` they say so.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    panic::{self, AssertUnwindSafe},
    thread,
    time::{Duration, Instant},
};

use tidelog::{
    Batch, Durability, Encoding, EncodingError, ErrorKind, Log, Rebalance, Record, Reset, Start, TopicConfig,
    TypedTopic,
};

#[test]
fn a_topic_works_when_its_log_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let topic = {
        let log = Log::open(dir.path()).unwrap();
        log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap()
    };
    topic.append_with(Record::new("tea"), Durability::Synced).unwrap();
    topic.flush().unwrap();
    let partition = topic.partition(1).unwrap();
    drop(topic);
    let at = partition.append(Record::new("coffee")).unwrap();
    assert_eq!(Log::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    let mut reader = partition.reader(Start::Offset(at.offset)).unwrap();
    drop(partition);
    assert_eq!(reader.next_batch().unwrap().unwrap().len(), 1);
    drop(reader);

    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "the last handle closed the log: {:?}", log.recovery());
    let mut reader = log.topic("orders").unwrap().reader(Start::Earliest).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().len(), 2);
}

#[test]
fn a_consumer_works_when_its_log_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let mut consumer = {
        let log = Log::open(dir.path()).unwrap();
        let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
        topic.append(Record::new("tea")).unwrap();
        log.consumer("billing").topic("orders").open().unwrap()
    };
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    consumer.commit().unwrap();
    drop(consumer);
    let log = Log::open(dir.path()).unwrap();
    let consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(1));
}

#[test]
fn handles_of_a_closed_log_say_so_and_batches_stay() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let other = log.clone();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    topic.append_batch((0..100).map(|i| Record::new(format!("{i}")))).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut reader = topic.reader(Start::Earliest).unwrap();
    let mut records = partition.read_from(0).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let batch = consumer.poll(Duration::ZERO).unwrap();
    let (builder, unknown) = (log.consumer("shipping").topic("orders"), log.consumer("shipping").topic("nothing"));
    log.close().unwrap();
    log.close().unwrap();
    other.close().unwrap();

    let first = batch.iter().next().unwrap();
    let results = [
        ("append", topic.append(Record::new("tea")).map(drop)),
        ("append_with", topic.append_with(Record::new("tea"), Durability::Synced).map(drop)),
        ("append_batch", topic.append_batch([Record::new("tea")]).map(drop)),
        ("partition append", partition.append(Record::new("tea")).map(drop)),
        ("partition append_batch", partition.append_batch_with([Record::new("tea")], Durability::Synced).map(drop)),
        ("topic flush", topic.flush()),
        ("partition flush", partition.flush()),
        ("log flush", log.flush()),
        ("create_topic", other.create_topic("more", TopicConfig::with_partitions(1)).map(drop)),
        ("create_topic again", other.create_topic("orders", TopicConfig::with_partitions(2)).map(drop)),
        ("ensure_topic", log.ensure_topic("orders", TopicConfig::with_partitions(2)).map(drop)),
        ("topic", log.topic("orders").map(drop)),
        ("topic reader", topic.reader(Start::Earliest).map(drop)),
        ("partition reader", partition.reader(Start::Earliest).map(drop)),
        ("read_from", partition.read_from(0).map(drop)),
        ("next_batch", reader.next_batch().map(drop)),
        ("reader seek", reader.seek(0, 0)),
        ("records", records.next().unwrap().map(drop)),
        ("poll", consumer.poll(Duration::ZERO).map(drop)),
        ("commit", consumer.commit()),
        ("commit_through", consumer.commit_through(&first)),
        ("commit_offsets", consumer.commit_offsets([("orders", 0, 0)])),
        ("consumer seek", consumer.seek("orders", 0, 0)),
        ("seek_to_start", consumer.seek_to_start("orders", 0)),
        ("seek_to_end", consumer.seek_to_end("orders", 0)),
        ("pause", consumer.pause([("orders", 0)])),
        ("resume", consumer.resume([("orders", 0)])),
        ("rewind", consumer.rewind()),
        ("append_if", partition.append_if(0, Record::new("tea")).map(drop)),
        ("delete_records", partition.delete_records(0).map(drop)),
        ("read_from_time", partition.read_from_time(0).map(drop)),
        ("offset_for_time", partition.offset_for_time(0).map(drop)),
        ("reader seek_to_time", reader.seek_to_time(0)),
        ("consumer seek_to_time", consumer.seek_to_time(0)),
        ("commit_with", consumer.commit_with(Durability::Synced)),
        ("enforce_retention", log.enforce_retention().map(drop)),
        ("delete_topic", log.delete_topic("orders")),
        ("increase_partitions", log.increase_partitions("orders", 3).map(drop)),
        ("alter_topic", log.alter_topic("orders", |config| config).map(drop)),
        ("describe_topic", log.describe_topic("orders").map(drop)),
        ("describe_group", log.describe_group("billing").map(drop)),
        ("lag", log.lag("billing").map(drop)),
        ("reset_offsets", log.reset_offsets("billing", "orders", Reset::Earliest).map(drop)),
        ("delete_group", log.delete_group("billing")),
        ("open a consumer", builder.open().map(drop)),
        ("open a consumer of a topic that isn't there", unknown.open().map(drop)),
    ];
    for (what, result) in results {
        assert_eq!(result.expect_err(what).kind(), ErrorKind::Closed, "{what}");
    }
    assert!(records.next().is_none());
    consumer.close().unwrap();

    // Another one has the files, and changes them; what was read stays.
    let again = Log::open(dir.path()).unwrap();
    assert!(again.recovery().is_clean(), "{:?}", again.recovery());
    let topic = again.topic("orders").unwrap();
    for i in 0..1000 {
        topic.append(Record::new(format!("later {i}"))).unwrap();
    }
    again.close().unwrap();
    assert_eq!(values(&batch), (0..100).collect::<Vec<_>>());
    drop((log, other, topic, partition));
    assert_eq!(values(&batch), (0..100).collect::<Vec<_>>());
}

fn values(batch: &Batch) -> Vec<u32> {
    batch.iter().map(|record| std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap()).collect()
}

#[test]
fn closing_wakes_a_consumer_that_sleeps() {
    let log = Log::options().in_memory().open("test").unwrap();
    log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            log.close().unwrap();
        });
        assert_eq!(consumer.poll(Duration::from_secs(60)).unwrap_err().kind(), ErrorKind::Closed);
    });
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn closing_amid_appends_loses_nothing_that_was_acknowledged() {
    for _ in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path()).unwrap();
        let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
        let appended: u64 = thread::scope(|scope| {
            let append = || {
                let mut count = 0;
                loop {
                    match topic.append(Record::new("tea")) {
                        Ok(_) => count += 1,
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
                            return count;
                        }
                    }
                }
            };
            let threads = [scope.spawn(append), scope.spawn(append)];
            thread::sleep(Duration::from_millis(10));
            log.close().unwrap();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        let log = Log::open(dir.path()).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        let topic = log.topic("orders").unwrap();
        let ends: u64 = (0..2).map(|number| topic.partition(number).unwrap().end_offset()).sum();
        assert_eq!(ends, appended);
    }
}

#[test]
fn an_in_memory_log_is_gone_when_it_is_closed() {
    let log = Log::options().in_memory().open("test").unwrap();
    log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    let other = Log::options().in_memory().open("test").unwrap();
    assert!(other.topics().is_empty(), "each has its own files");
    log.close().unwrap();
    assert!(!std::path::Path::new("test").exists());
}

/// Whatever it is asked, it panics.
struct Panicking;

impl Encoding<u32> for Panicking {
    fn encode(&self, _: &u32, _: &mut Vec<u8>) -> Result<(), EncodingError> {
        panic!("while encoding")
    }

    fn decode(&self, _: &[u8]) -> Result<u32, EncodingError> {
        panic!("while decoding")
    }
}

/// A program's own code is called amid the log's: what it leaves when it panics works, and can be dropped.
#[test]
fn a_panic_of_the_programs_own_code_breaks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    fn assert_panics<T>(code: impl FnOnce() -> T) {
        assert!(panic::catch_unwind(AssertUnwindSafe(code)).is_err());
    }

    let partitioned = orders.with_partitioner(|_: &Record<'_>, _| panic!("while choosing"));
    assert_panics(|| partitioned.append(Record::new("tea")));
    let typed: TypedTopic<u32, Panicking> = orders.typed(Panicking);
    assert_panics(|| typed.append_batch([1, 2]));
    assert_panics(|| log.alter_topic("orders", |_| panic!("while changing")));
    orders.append_batch((0..10).map(|i| Record::new(format!("{i}")).partition(i % 2))).unwrap();
    let mut reader = typed.reader(Start::Earliest).unwrap();
    assert_panics(|| reader.next());
    drop(reader);

    let (mut panics, mut calls) = (true, 0);
    let builder = log.consumer("billing").topic("orders").auto_commit(Duration::ZERO);
    let callback = move |_: &mut Rebalance<'_>| {
        assert!(!std::mem::take(&mut panics), "while partitions come");
        calls += 1;
        assert_eq!(calls, 1, "told once more, and no more then");
        Ok(())
    };
    let mut consumer = builder.on_rebalance(callback).open().unwrap();
    assert_panics(|| consumer.poll(Duration::ZERO));
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 10);
    assert_panics(move || {
        let _dropped_by_the_panic = consumer;
        panic!("of the service");
    });
    let mut other = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(other.poll(Duration::ZERO).unwrap().len(), 10, "nothing was committed, all partitions are free");
    other.close().unwrap();

    log.close().unwrap();
    assert!(Log::open(dir.path()).unwrap().recovery().is_clean());
}
