//! Consumer groups: polling, sleeping, committing, going on.

#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use tidelog::{Batch, Consumer, Durability, ErrorKind, Log, Record, Start, Topic, TopicConfig};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn log() -> Log {
    Log::options().in_memory().segment_bytes(1 << 20).open("test").unwrap()
}

fn topic(log: &Log, name: &str, partitions: u32) -> Topic {
    log.create_topic(name, TopicConfig::with_partitions(partitions)).unwrap()
}

/// Appends numbers, in turn to all partitions.
fn append(topic: &Topic, range: std::ops::Range<u32>) {
    for i in range {
        topic.append(Record::new(format!("{i}")).partition(i % topic.partitions())).unwrap();
    }
}

fn open(log: &Log, group: &str) -> Consumer {
    log.consumer(group).topic("orders").start_if_new(Start::Earliest).open().unwrap()
}

fn numbers(batch: &Batch) -> Vec<u32> {
    batch.iter().map(|record| std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap()).collect()
}

/// Everything that is there now, sorted.
fn drain(consumer: &mut Consumer) -> Vec<u32> {
    let mut all = Vec::new();
    loop {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            all.sort_unstable();
            return all;
        }
        all.extend(numbers(&batch));
    }
}

#[test]
fn a_group_goes_on_behind_its_commit() {
    let log = log();
    let orders = topic(&log, "orders", 3);
    append(&orders, 0..100);
    let mut consumer = open(&log, "billing");
    assert_eq!(drain(&mut consumer), (0..100).collect::<Vec<_>>());
    consumer.commit().unwrap();
    drop(consumer);

    append(&orders, 100..130);
    let mut consumer = open(&log, "billing");
    assert_eq!(drain(&mut consumer), (100..130).collect::<Vec<_>>());
}

#[test]
fn dropping_and_closing_commit_nothing() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..10);
    let mut consumer = open(&log, "billing");
    assert_eq!(drain(&mut consumer).len(), 10);
    drop(consumer);
    let mut consumer = open(&log, "billing");
    assert_eq!(drain(&mut consumer).len(), 10);
    assert_eq!(consumer.committed("orders", 0).unwrap(), None);
    consumer.close().unwrap();
    assert_eq!(drain(&mut open(&log, "billing")).len(), 10);
}

#[test]
fn groups_are_independent() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..10);
    let (mut billing, mut shipping) = (open(&log, "billing"), open(&log, "shipping"));
    assert_eq!(drain(&mut billing).len(), 10);
    billing.commit().unwrap();
    assert_eq!(drain(&mut shipping).len(), 10);
    assert_eq!(shipping.committed("orders", 0).unwrap(), None);
    assert_eq!(billing.committed("orders", 0).unwrap(), Some(5));
}

#[test]
fn commits_are_there_when_the_log_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3 {
        let log = Log::open(dir.path()).unwrap();
        let orders = log.ensure_topic("orders", TopicConfig::with_partitions(2)).unwrap();
        append(&orders, run * 10..run * 10 + 10);
        let mut consumer = open(&log, "billing");
        assert_eq!(drain(&mut consumer), (run * 10..run * 10 + 10).collect::<Vec<_>>());
        consumer.commit_with(Durability::Synced).unwrap();
        log.close().unwrap();
    }
}

#[test]
fn a_consumer_that_fails_to_open_is_no_member() {
    let log = log();
    topic(&log, "orders", 1);
    let start = Start::Offset(99);
    let error = log.consumer("billing").topic("orders").start_if_new(start).open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    let consumer = open(&log, "billing");
    assert_eq!((consumer.assignment().len(), consumer.generation()), (1, 1));
}

#[test]
fn a_new_group_begins_where_it_is_told_and_an_old_one_does_not() {
    let log = log();
    let orders = topic(&log, "orders", 1);
    append(&orders, 0..10);
    let open = |group: &str, start| log.consumer(group).topic("orders").start_if_new(start).open().unwrap();
    assert_eq!(drain(&mut open("a", Start::Earliest)).len(), 10);
    assert_eq!(drain(&mut open("b", Start::Offset(7))), [7, 8, 9]);
    let mut latest = open("c", Start::Latest);
    assert_eq!(drain(&mut latest), [0; 0]);
    append(&orders, 10..12);
    assert_eq!(drain(&mut latest), [10, 11]);
    latest.commit().unwrap();
    drop(latest);
    append(&orders, 12..13);
    for start in [Start::Earliest, Start::Latest, Start::Offset(0)] {
        assert_eq!(drain(&mut open("c", start)), [12]);
    }
}

#[test]
fn a_group_that_committed_an_empty_partition_misses_nothing_that_comes() {
    let log = log();
    let orders = topic(&log, "orders", 1);
    append(&orders, 0..3);
    let open = || log.consumer("billing").topic("orders").start_if_new(Start::Latest).open().unwrap();
    let mut consumer = open();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    consumer.commit().unwrap();
    drop(consumer);
    append(&orders, 3..5);
    assert_eq!(drain(&mut open()), [3, 4]);
}

#[test]
fn a_sleeping_poll_wakes_at_once() {
    let log = log();
    let orders = topic(&log, "orders", 8);
    let mut consumer = open(&log, "billing");
    for round in 0..20 {
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                append(&orders, round..round + 1);
            });
            let start = Instant::now();
            assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [round]);
            assert!(start.elapsed() < LONG / 2);
        });
    }
}

/// Nothing is lost between looking and sleeping, whatever the moment.
#[test]
fn no_wake_up_is_lost() {
    let log = log();
    let (ping, pong) = (topic(&log, "ping", 2), topic(&log, "pong", 2));
    const ROUNDS: u32 = 3000;
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut consumer = log.consumer("a").topic("ping").open().unwrap();
            for round in 0..ROUNDS {
                assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [round]);
                append(&pong, round..round + 1);
            }
        });
        let mut consumer = log.consumer("b").topic("pong").open().unwrap();
        for round in 0..ROUNDS {
            append(&ping, round..round + 1);
            assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [round]);
        }
    });
}

#[test]
fn an_unanswered_poll_ends_empty_with_its_timeout() {
    let log = log();
    topic(&log, "orders", 3);
    let mut consumer = open(&log, "billing");
    let start = Instant::now();
    assert!(consumer.poll(Duration::from_millis(30)).unwrap().is_empty());
    assert!(start.elapsed() >= Duration::from_millis(30));
}

#[test]
fn a_poll_for_ever_is_possible() {
    let log = log();
    let orders = topic(&log, "orders", 1);
    let mut consumer = open(&log, "billing");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            append(&orders, 0..1);
        });
        assert_eq!(consumer.poll(Duration::MAX).unwrap().len(), 1);
    });
}

#[test]
fn a_poll_keeps_to_its_size_and_all_partitions_have_their_turn() {
    let log = log();
    let orders = topic(&log, "orders", 4);
    let value = vec![b'x'; 1000];
    for i in 0..400 {
        orders.append(Record::new(&value).partition(i % 4)).unwrap();
    }
    let mut consumer = log.consumer("billing").topic("orders").max_poll_bytes(2500).open().unwrap();
    let mut seen = BTreeMap::new();
    for round in 0.. {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            break;
        }
        assert!(batch.len() <= 4, "{} records of 1000 bytes", batch.len());
        for record in &batch {
            *seen.entry(record.partition()).or_insert(0) += 1;
        }
        if round == 8 {
            assert_eq!(seen.len(), 4, "{seen:?}");
        }
    }
    assert_eq!(seen, (0..4).map(|partition| (partition, 100)).collect());

    let mut whole = log.consumer("shipping").topic("orders").open().unwrap();
    assert_eq!(whole.poll(Duration::ZERO).unwrap().len(), 400);
}

#[test]
fn commit_through_counts_the_record_as_done() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..20);
    let mut consumer = open(&log, "billing");
    let batch = consumer.poll(LONG).unwrap();
    assert_eq!(batch.len(), 20);
    let record = batch.iter().find(|record| record.partition() == 1 && record.offset() == 3).unwrap();
    consumer.commit_through(&record).unwrap();
    assert_eq!(consumer.committed("orders", 1).unwrap(), Some(4));
    assert_eq!(consumer.committed("orders", 0).unwrap(), None, "other partitions stay as they are");
    assert_eq!(consumer.position("orders", 1).unwrap(), 10, "and so does the position");
    drop(consumer);
    let again = drain(&mut open(&log, "billing"));
    assert_eq!(again, (0..20).filter(|i| i % 2 == 0 || *i > 7).collect::<Vec<_>>());
}

#[test]
fn given_offsets_are_committed_all_or_none() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..20);
    topic(&log, "other", 1);
    let mut consumer = open(&log, "billing");
    consumer.commit_offsets([("orders", 0, 3), ("orders", 1, 10)]).unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(3));

    let error = consumer.commit_offsets([("orders", 0, 4), ("orders", 1, 11)]).unwrap_err();
    assert_eq!((error.kind(), error.valid_offsets()), (ErrorKind::OffsetOutOfRange, Some(0..10)));
    for wrong in [("orders", 2), ("other", 0), ("nothing", 0)] {
        let error = consumer.commit_offsets([("orders", 0, 4), (wrong.0, wrong.1, 0)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotAssigned);
        assert!(error.to_string().contains(wrong.0), "{error}");
    }
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(3), "none of a refused commit counts");
    consumer.commit_offsets([("orders", 0, 1)]).unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(1), "going back is allowed");
    consumer.commit_offsets(Vec::<(String, u32, u64)>::new()).unwrap();
}

#[test]
fn seeking_and_rewinding_move_the_position_and_commit_nothing() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..20);
    let mut consumer = open(&log, "billing");
    assert_eq!(drain(&mut consumer).len(), 20);
    consumer.seek("orders", 0, 8).unwrap();
    assert_eq!(consumer.position("orders", 0).unwrap(), 8);
    assert_eq!(drain(&mut consumer), [16, 18]);
    consumer.commit_offsets([("orders", 1, 9)]).unwrap();
    consumer.rewind().unwrap();
    let expected: Vec<u32> = (0..20).filter(|i| i % 2 == 0 || *i == 19).collect();
    assert_eq!(drain(&mut consumer), expected, "to the committed offset, and to the start where there is none");

    let error = consumer.seek("orders", 0, 11).unwrap_err();
    assert_eq!((error.kind(), error.valid_offsets()), (ErrorKind::OffsetOutOfRange, Some(0..10)));
    assert_eq!(consumer.position("orders", 0).unwrap(), 10, "a refused seek moves nothing");
    assert_eq!(consumer.seek("orders", 2, 0).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(consumer.position("other", 0).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(consumer.committed("orders", 7).unwrap_err().kind(), ErrorKind::NotAssigned);
}

#[test]
fn rewinding_goes_where_a_new_group_began() {
    let log = log();
    let orders = topic(&log, "orders", 1);
    append(&orders, 0..5);
    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Latest).open().unwrap();
    append(&orders, 5..8);
    assert_eq!(drain(&mut consumer), [5, 6, 7]);
    consumer.rewind().unwrap();
    assert_eq!(drain(&mut consumer), [5, 6, 7]);
}

#[test]
fn lag_is_what_was_not_committed() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    append(&orders, 0..10);
    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Offset(2)).open().unwrap();
    assert_eq!(consumer.lag().total, 6, "nothing committed: from where the group began");
    drain(&mut consumer);
    assert_eq!(consumer.lag().total, 6, "polling isn't committing");
    consumer.commit_offsets([("orders", 1, 4)]).unwrap();
    append(&orders, 10..12);
    let lag = consumer.lag();
    assert_eq!(lag.total, 6);
    let partitions: Vec<_> = lag
        .partitions
        .iter()
        .map(|entry| (entry.topic.as_str(), entry.partition, entry.committed, entry.end_offset, entry.lag))
        .collect();
    assert_eq!(partitions, [("orders", 0, None, 6, 4), ("orders", 1, Some(4), 6, 2)]);
    drain(&mut consumer);
    consumer.commit().unwrap();
    assert_eq!(consumer.lag().total, 0);
}

#[test]
fn a_consumer_reads_several_topics() {
    let log = log();
    let (a, b) = (topic(&log, "a", 2), topic(&log, "b", 3));
    append(&a, 0..10);
    append(&b, 10..30);
    let mut consumer = log.consumer("billing").topic("a").topic("b").topic("a").open().unwrap();
    let names = ["a", "a", "b", "b", "b"].map(String::from);
    let expected: Vec<(String, u32)> = names.into_iter().zip([0, 1, 0, 1, 2]).collect();
    assert_eq!(consumer.assignment(), expected);
    assert_eq!(consumer.group(), "billing");
    let batch = consumer.poll(LONG).unwrap();
    assert_eq!(batch.iter().map(|record| record.topic()).collect::<BTreeSet<_>>(), ["a", "b"].into());
    assert_eq!(batch.len(), 30);
    assert_eq!(consumer.position("b", 2).unwrap(), 7);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed("a", 1).unwrap(), Some(5));
    assert_eq!(consumer.committed("b", 0).unwrap(), Some(6));
}

#[test]
fn batches_outlive_their_consumer_and_go_to_other_threads() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..100);
    let mut consumer = open(&log, "billing");
    let batch = consumer.poll(LONG).unwrap();
    consumer.close().unwrap();
    log.close().unwrap();
    drop(log);
    let copy = batch.clone();
    let sum: u32 = thread::spawn(move || numbers(&batch).iter().sum()).join().unwrap();
    assert_eq!(sum, numbers(&copy).iter().sum::<u32>());
    assert_eq!(sum, (0..100).sum::<u32>());
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    let log = log();
    topic(&log, "orders", 1);
    let kind = |builder: tidelog::ConsumerBuilder| builder.open().unwrap_err().kind();
    assert_eq!(kind(log.consumer("billing").topic("nothing")), ErrorKind::UnknownTopic);
    assert_eq!(kind(log.consumer("billing")), ErrorKind::InvalidConfig);
    assert_eq!(kind(log.consumer("billing").topic("orders").max_poll_bytes(0)), ErrorKind::InvalidConfig);
    let interval = Duration::from_micros(999);
    assert_eq!(kind(log.consumer("billing").topic("orders").max_poll_interval(interval)), ErrorKind::InvalidConfig);
    let many = (0..1001).map(|i| format!("orders.{i}.*"));
    let many = many.fold(log.consumer("billing"), tidelog::ConsumerBuilder::topic_pattern);
    assert_eq!(kind(many), ErrorKind::InvalidConfig);
    for group in ["", ".", "..", "a/b", "__a", "a b", &"x".repeat(250)] {
        assert_eq!(kind(log.consumer(group).topic("orders")), ErrorKind::InvalidName, "{group}");
        assert_eq!(kind(log.consumer("billing").topic(group)), ErrorKind::InvalidName, "{group}");
    }
}
