//! Partitions that are paused: not read, not woken for, not forgotten.

#![allow(clippy::unwrap_used)]

mod common;

use std::{sync::Arc, thread, time::Duration};

use common::executor::{Counting, poll_once};
use tidelog::{Batch, Consumer, ErrorKind, Log, Record, Topic, TopicConfig};

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

fn open(log: &Log) -> Consumer {
    log.consumer("billing").topic("orders").open().unwrap()
}

fn numbers(batch: &Batch) -> Vec<u32> {
    let number = |value: &[u8]| std::str::from_utf8(value).unwrap().parse().unwrap();
    let mut numbers: Vec<u32> = batch.iter().map(|record| number(record.value().unwrap())).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn a_paused_partition_keeps_its_place() {
    let log = log();
    let orders = topic(&log, "orders", 3);
    append(&orders, 0..9);
    let mut consumer = open(&log);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 9);
    consumer.pause([("orders", 1), ("orders", 2)]).unwrap();
    assert_eq!(consumer.paused(), [("orders".to_owned(), 1), ("orders".to_owned(), 2)]);
    append(&orders, 9..15);
    assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [9, 12]);
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(consumer.assignment().len(), 3, "they stay assigned");
    assert_eq!(consumer.position("orders", 1).unwrap(), 3);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed("orders", 1).unwrap(), Some(3));
    assert_eq!(consumer.lag().total, 4);

    consumer.resume([("orders", 1)]).unwrap();
    assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [10, 13]);
    consumer.resume(consumer.paused()).unwrap();
    assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [11, 14]);
    assert!(consumer.paused().is_empty());
}

#[test]
fn one_that_is_not_assigned_changes_nothing() {
    let log = log();
    topic(&log, "orders", 2);
    let mut consumer = open(&log);
    consumer.pause([("orders", 0)]).unwrap();
    for wrong in [("orders", 2), ("mails", 0)] {
        assert_eq!(consumer.pause([("orders", 1), wrong]).unwrap_err().kind(), ErrorKind::NotAssigned);
        assert_eq!(consumer.resume([("orders", 0), wrong]).unwrap_err().kind(), ErrorKind::NotAssigned);
    }
    assert_eq!(consumer.paused(), [("orders".to_owned(), 0)]);
    consumer.pause([("orders", 0)]).unwrap();
    consumer.resume([("orders", 1)]).unwrap();
    assert_eq!(consumer.paused(), [("orders".to_owned(), 0)]);
}

#[test]
fn positions_of_paused_partitions_can_be_moved() {
    let log = log();
    append(&topic(&log, "orders", 1), 0..10);
    let mut consumer = open(&log);
    consumer.pause([("orders", 0)]).unwrap();
    consumer.seek("orders", 0, 7).unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    consumer.resume([("orders", 0)]).unwrap();
    assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [7, 8, 9]);
    consumer.pause([("orders", 0)]).unwrap();
    consumer.rewind().unwrap();
    assert_eq!((consumer.paused().len(), consumer.position("orders", 0).unwrap()), (1, 0));
    consumer.seek_to_end("orders", 0).unwrap();
    assert_eq!(consumer.position("orders", 0).unwrap(), 10);
    consumer.seek_to_start("orders", 0).unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    consumer.resume([("orders", 0)]).unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 10);
    assert_eq!(consumer.seek_to_end("orders", 1).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(consumer.seek_to_start("mails", 0).unwrap_err().kind(), ErrorKind::NotAssigned);
}

#[test]
fn a_paused_partition_wakes_nobody() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    let mut consumer = open(&log);
    consumer.pause([("orders", 0)]).unwrap();
    thread::scope(|scope| {
        let polling = scope.spawn(|| numbers(&consumer.poll(LONG).unwrap()));
        for _ in 0..20 {
            orders.append(Record::new("0").partition(0)).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!polling.is_finished());
        orders.append(Record::new("1").partition(1)).unwrap();
        assert_eq!(polling.join().unwrap(), [1]);
    });

    let woken = Arc::new(Counting::default());
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending(), "though much is there");
    orders.append(Record::new("0").partition(0)).unwrap();
    assert_eq!(woken.wakes(), 0);
    orders.append(Record::new("1").partition(1)).unwrap();
    assert_eq!(woken.wakes(), 1);
}

#[test]
fn all_can_be_paused() {
    let log = log();
    append(&topic(&log, "orders", 2), 0..4);
    let mut consumer = open(&log);
    consumer.pause(consumer.assignment()).unwrap();
    assert!(consumer.poll(Duration::from_millis(5)).unwrap().is_empty());
    consumer.resume(consumer.assignment()).unwrap();
    assert_eq!(numbers(&consumer.poll(LONG).unwrap()), [0, 1, 2, 3]);
}
