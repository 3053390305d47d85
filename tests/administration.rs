//! Looking at topics and groups from outside, and setting groups back.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::BTreeSet, time::Duration};

use tidelog::{
    CommittedOffset, Consumer, Durability, ErrorKind, Log, PartitionDescription, Record, Reset, Start, Topic,
    TopicConfig,
};

use crate::common::small_segments;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn config(partitions: u32) -> TopicConfig {
    TopicConfig::with_partitions(partitions)
}

fn in_memory() -> Log {
    Log::options().in_memory().segment_bytes(1 << 20).open("test").unwrap()
}

/// Appends so many records to each partition, at client times 1000, 1001 and so on.
fn append(topic: &Topic, count: u64) {
    for number in 0..topic.partitions() {
        for n in 0..count {
            let record = Record::new(format!("{n}")).partition(number).timestamp_ms(1000 + n as i64);
            topic.append(record).unwrap();
        }
    }
}

fn open(log: &Log, group: &str) -> Consumer {
    log.consumer(group).topic("orders").start_if_new(Start::Earliest).open().unwrap()
}

/// Has the group read and commit everything.
fn catch_up(log: &Log, group: &str) {
    let mut consumer = open(log, group);
    while !consumer.poll(Duration::ZERO).unwrap().is_empty() {}
    consumer.commit().unwrap();
    consumer.close().unwrap();
}

/// Partitions and offsets.
fn offsets(committed: &[CommittedOffset]) -> Vec<(u32, u64)> {
    assert!(committed.iter().all(|commit| commit.topic == "orders"), "{committed:?}");
    committed.iter().map(|commit| (commit.partition, commit.offset)).collect()
}

#[test]
fn a_topic_is_described_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().retention_age(Duration::from_secs(3600)).open(dir.path()).unwrap();
    let topic_config = config(3).durability(Durability::Written).max_record_bytes(5000).retention_bytes(1 << 30);
    let topic = log.create_topic("orders", topic_config.clone()).unwrap();
    for _ in 0..100 {
        topic.append(Record::new("x".repeat(4000)).partition(1)).unwrap();
    }
    topic.append(Record::new("tea").partition(2)).unwrap();
    topic.partition(2).unwrap().flush().unwrap();

    let description = log.describe_topic("orders").unwrap();
    assert_eq!((&*description.name, &description.config), ("orders", &topic_config));
    let options = &description.options;
    assert_eq!((options.durability, options.segment_bytes), (Durability::Written, 64 << 10));
    assert_eq!((options.segment_age, options.max_record_bytes), (None, 5000));
    assert_eq!((options.retention_age, options.retention_bytes), (Some(Duration::from_secs(3600)), Some(1 << 30)));
    let partitions: Vec<_> =
        description.partitions.iter().map(|it| (it.number, it.start_offset, it.end_offset)).collect();
    assert_eq!(partitions, [(0, 0, 0), (1, 0, 100), (2, 0, 1)]);
    let [empty, large, small] = &description.partitions[..] else { unreachable!() };
    assert_eq!((empty.segments, small.segments, small.durable_offset), (1, 1, 1));
    assert!((6..=8).contains(&large.segments), "{large:?}");
    assert!(large.bytes > 100 * 4000 && large.bytes < 100 * 4100 + large.segments as u64 * 8192, "{large:?}");
    assert!(empty.bytes < small.bytes && small.bytes < 10_000, "{empty:?} {small:?}");
    assert_eq!(description.bytes(), empty.bytes + large.bytes + small.bytes);
    let id = description.id;
    log.close().unwrap();
    assert_eq!(log.describe_topic("orders").unwrap_err().kind(), ErrorKind::Closed);

    let log = small_segments().open(dir.path()).unwrap();
    let again = log.describe_topic("orders").unwrap();
    assert_eq!((again.id, &again.config), (id, &topic_config));
    assert_eq!(again.options.retention_age, None, "that was the log's");
    let sizes = |partitions: &[PartitionDescription]| {
        partitions.iter().map(|it| (it.number, it.segments, it.bytes, it.end_offset)).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&again.partitions), sizes(&description.partitions));
    assert_eq!(again.partitions[1].durable_offset, 100, "the close has seen to it");
    assert_eq!(log.describe_topic("nothing").unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(log.describe_topic("__offsets").unwrap_err().kind(), ErrorKind::InvalidName);
}

#[test]
fn groups_are_listed_and_described() {
    let log = in_memory();
    append(&log.create_topic("orders", config(3)).unwrap(), 5);
    append(&log.create_topic("returns", config(1)).unwrap(), 5);
    assert!(log.groups().is_empty());
    for name in ["billing", "nobody", ""] {
        let kind = if name.is_empty() { ErrorKind::InvalidName } else { ErrorKind::UnknownGroup };
        assert_eq!(log.describe_group(name).unwrap_err().kind(), kind);
        assert_eq!(log.lag(name).unwrap_err().kind(), kind);
        assert_eq!(log.delete_group(name).unwrap_err().kind(), kind);
        assert_eq!(log.reset_offsets(name, "orders", Reset::Earliest).unwrap_err().kind(), kind);
    }

    let mut consumer = log.consumer("billing").topics(["returns", "orders"]).open().unwrap();
    consumer.commit_offsets([("orders", 2, 3), ("returns", 0, 4), ("orders", 0, 5)]).unwrap();
    catch_up(&log, "audit");
    assert_eq!(log.groups(), ["audit", "billing"]);
    let described = log.describe_group("billing").unwrap();
    assert_eq!(described.name, "billing");
    let [member] = &described.members[..] else { unreachable!("{described:?}") };
    let subscription: BTreeSet<_> = member.subscription.iter().map(String::as_str).collect();
    assert_eq!(subscription, ["orders", "returns"].into());
    assert_eq!(member.assignment, consumer.assignment());
    assert_eq!(member.assignment.len(), 4);
    let committed: Vec<_> =
        described.committed.iter().map(|commit| (&*commit.topic, commit.partition, commit.offset)).collect();
    assert_eq!(committed, [("orders", 0, 5), ("orders", 2, 3), ("returns", 0, 4)]);

    drop(consumer);
    let left = log.describe_group("billing").unwrap();
    assert_eq!((left.members.len(), &left.committed), (0, &described.committed));
    let consumer = open(&log, "billing");
    assert!(log.describe_group("billing").unwrap().generation > described.generation);
    drop(consumer);
    log.close().unwrap();
    assert_eq!(log.describe_group("billing").unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn a_group_without_consumers_has_its_lag_too() {
    let log = in_memory();
    let orders = log.create_topic("orders", config(2)).unwrap();
    append(&log.create_topic("other", config(2)).unwrap(), 100);
    append(&orders, 10);
    let mut consumer = open(&log, "billing");
    let lags = |log: &Log| -> Vec<_> {
        let lag = log.lag("billing").unwrap();
        assert_eq!(lag.total, lag.partitions.iter().map(|partition| partition.lag).sum::<u64>());
        lag.partitions.iter().map(|it| (it.topic.clone(), it.partition, it.committed, it.end_offset, it.lag)).collect()
    };
    let at = |partition, committed, end, lag| ("orders".to_owned(), partition, committed, end, lag);
    assert_eq!(lags(&log), [at(0, None, 10, 10), at(1, None, 10, 10)]);
    consumer.commit_offsets([("orders", 1, 7)]).unwrap();
    assert_eq!(log.lag("billing").unwrap(), consumer.lag());
    drop(consumer);
    append(&orders, 1);
    assert_eq!(lags(&log), [at(0, None, 11, 11), at(1, Some(7), 11, 4)]);
    // Partitions that the group hasn't seen count as a whole.
    append(&log.increase_partitions("orders", 3).unwrap(), 2);
    assert_eq!(lags(&log), [at(0, None, 13, 13), at(1, Some(7), 13, 6), at(2, None, 2, 2)]);
    // One that began at the end is behind by what came since.
    drop(log.consumer("late").topic("orders").start_if_new(Start::Latest).open().unwrap());
    append(&orders, 1);
    assert_eq!(log.lag("late").unwrap().total, 3);
}

#[test]
fn the_lag_of_a_group_is_told_by_topic_too() {
    let log = in_memory();
    for (name, count) in [("orders", 10), ("mails", 4)] {
        append(&log.create_topic(name, config(2)).unwrap(), count);
    }
    let mut consumer = log.consumer("billing").topics(["orders", "mails"]).open().unwrap();
    consumer.commit_offsets([("orders", 0, 7)]).unwrap();
    let lag = consumer.lag();
    let (orders, mails) = (lag.of_topic("orders"), lag.of_topic("mails"));
    assert_eq!((lag.total, orders.total, mails.total), (21, 13, 8));
    assert_eq!(orders.bytes + mails.bytes, lag.bytes);
    assert!(orders.bytes > mails.bytes && mails.bytes > 0);
    assert_eq!(orders.time.max(mails.time), lag.time);
    assert!(mails.partitions.iter().all(|partition| partition.topic == "mails") && mails.partitions.len() == 2);
    let none = lag.of_topic("other");
    assert_eq!((none.total, none.bytes, none.partitions), (0, 0, vec![]));
}

#[test]
fn a_group_goes_on_where_it_was_set() {
    let log = in_memory();
    append(&log.create_topic("orders", config(2)).unwrap(), 10);
    for (to, expected) in [
        (Reset::Earliest, 0),
        (Reset::Latest, 10),
        (Reset::Offset(4), 4),
        (Reset::Offset(11), 10),
        (Reset::Offset(u64::MAX), 10),
        (Reset::Time(1007), 7),
        (Reset::Time(i64::MIN), 0),
        (Reset::Time(2000), 10),
        (Reset::Back(3), 7),
        (Reset::Back(0), 10),
        (Reset::Back(11), 0),
        (Reset::Back(u64::MAX), 0),
    ] {
        catch_up(&log, "billing");
        let reset = log.reset_offsets("billing", "orders", to).unwrap();
        assert_eq!(offsets(&reset), [(0, expected), (1, expected)], "{to:?}");
        assert_eq!(log.describe_group("billing").unwrap().committed, reset, "{to:?}");
        assert_eq!(log.lag("billing").unwrap().total, 2 * (10 - expected), "{to:?}");
        let mut consumer = open(&log, "billing");
        let mut polled = 0;
        loop {
            let batch = consumer.poll(Duration::ZERO).unwrap();
            if batch.is_empty() {
                break;
            }
            assert!(batch.iter().all(|record| record.offset() >= expected), "{to:?}");
            polled += batch.len() as u64;
        }
        assert_eq!(polled, 2 * (10 - expected), "{to:?}");
    }
}

#[test]
fn given_partitions_are_set_and_others_stay() {
    let log = in_memory();
    append(&log.create_topic("orders", config(3)).unwrap(), 10);
    append(&log.create_topic("other", config(1)).unwrap(), 10);
    let mut consumer = log.consumer("billing").topics(["orders", "other"]).open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 40);
    consumer.commit().unwrap();
    drop(consumer);
    let reset = log.reset_partition_offsets("billing", "orders", [2, 0, 2], Reset::Back(1)).unwrap();
    assert_eq!(offsets(&reset), [(0, 9), (2, 9)]);
    let committed = log.describe_group("billing").unwrap().committed;
    assert_eq!(committed.iter().map(|commit| commit.offset).collect::<Vec<_>>(), [9, 10, 9, 10]);
    assert_eq!(log.reset_partition_offsets("billing", "orders", [], Reset::Earliest).unwrap(), []);

    let error = log.reset_partition_offsets("billing", "orders", [0, 3], Reset::Earliest).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::UnknownPartition, Some(3)));
    let error = log.reset_offsets("billing", "nothing", Reset::Earliest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    let error = log.reset_offsets("billing", "__offsets", Reset::Earliest).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidName);
    assert_eq!(log.describe_group("billing").unwrap().committed, committed, "none of them, on an error");
}

#[test]
fn going_back_from_nothing_goes_back_from_where_the_group_began() {
    let log = in_memory();
    append(&log.create_topic("orders", config(1)).unwrap(), 10);
    drop(log.consumer("late").topic("orders").start_if_new(Start::Latest).open().unwrap());
    drop(open(&log, "early"));
    assert_eq!(offsets(&log.reset_offsets("late", "orders", Reset::Back(2)).unwrap()), [(0, 8)]);
    assert_eq!(offsets(&log.reset_offsets("early", "orders", Reset::Back(2)).unwrap()), [(0, 0)]);
}

#[test]
fn a_group_can_be_set_for_a_topic_that_it_has_never_read() {
    let log = in_memory();
    append(&log.create_topic("orders", config(1)).unwrap(), 10);
    append(&log.create_topic("other", config(1)).unwrap(), 10);
    let mut consumer = log.consumer("billing").topic("other").open().unwrap();
    consumer.commit().unwrap();
    drop(consumer);
    assert_eq!(offsets(&log.reset_offsets("billing", "orders", Reset::Offset(6)).unwrap()), [(0, 6)]);
    let mut consumer = open(&log, "billing");
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(6));
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
}

#[test]
fn a_group_in_use_is_neither_set_nor_deleted() {
    let log = in_memory();
    append(&log.create_topic("orders", config(2)).unwrap(), 10);
    catch_up(&log, "billing");
    let before = log.describe_group("billing").unwrap().committed;
    let consumer = open(&log, "billing");
    for error in [
        log.reset_offsets("billing", "orders", Reset::Earliest).unwrap_err(),
        log.reset_partition_offsets("billing", "orders", [1], Reset::Earliest).unwrap_err(),
        log.delete_group("billing").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::GroupInUse);
        assert!(error.to_string().contains("billing"), "{error}");
    }
    assert_eq!(log.describe_group("billing").unwrap().committed, before);
    drop(consumer);
    log.reset_offsets("billing", "orders", Reset::Earliest).unwrap();
    log.delete_group("billing").unwrap();
}

#[test]
fn what_was_set_and_deleted_is_so_when_the_log_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().durability(Durability::Synced).open(dir.path()).unwrap();
    append(&log.create_topic("orders", config(2)).unwrap(), 10);
    for group in ["billing", "shipping", "audit"] {
        catch_up(&log, group);
    }
    log.reset_offsets("billing", "orders", Reset::Offset(3)).unwrap();
    log.delete_group("shipping").unwrap();
    assert_eq!(log.groups(), ["audit", "billing"]);
    log.close().unwrap();

    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.groups(), ["audit", "billing"]);
    assert_eq!(offsets(&log.describe_group("billing").unwrap().committed), [(0, 3), (1, 3)]);
    assert_eq!(offsets(&log.describe_group("audit").unwrap().committed), [(0, 10), (1, 10)]);
    let shipping = open(&log, "shipping");
    assert_eq!(shipping.committed("orders", 0).unwrap(), None, "a new group of that name");
    assert_eq!(shipping.lag().total, 20);
}

#[test]
fn a_deleted_topic_is_forgotten_by_groups() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    append(&log.create_topic("orders", config(2)).unwrap(), 10);
    append(&log.create_topic("other", config(1)).unwrap(), 10);
    let mut consumer = log.consumer("billing").topics(["orders", "other"]).open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 30);
    consumer.commit().unwrap();
    log.delete_topic("orders").unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(consumer.assignment(), [("other".to_owned(), 0)]);
    consumer.commit().unwrap();
    drop(consumer);
    let check = |log: &Log| {
        let described = log.describe_group("billing").unwrap();
        assert_eq!(described.committed.iter().map(|commit| &*commit.topic).collect::<Vec<_>>(), ["other"]);
        assert_eq!(log.lag("billing").unwrap().partitions.len(), 1);
    };
    check(&log);
    append(&log.create_topic("orders", config(2)).unwrap(), 5);
    check(&log);
    log.close().unwrap();
    check(&Log::open(dir.path()).unwrap());
}
