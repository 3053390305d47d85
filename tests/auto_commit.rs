//! Commits that come by themselves: behind the work, never before it.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use common::executor::{Counting, block_on, poll_once};
use tidelog::{Consumer, ErrorKind, Log, Record, Start, Topic, TopicConfig};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(20);

fn log() -> (Log, Topic) {
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    (log, topic)
}

fn append(topic: &Topic, count: usize) {
    topic.append_batch((0..count).map(|_| Record::new("x"))).unwrap();
}

fn open(log: &Log, interval: Duration) -> Consumer {
    log.consumer("billing").topic("orders").max_poll_records(4).auto_commit(interval).open().unwrap()
}

fn committed(log: &Log) -> Option<u64> {
    log.consumer("billing").topic("orders").open().unwrap().committed("orders", 0).unwrap()
}

#[test]
fn each_poll_commits_what_the_one_before_it_returned() {
    let (log, orders) = log();
    append(&orders, 10);
    let mut consumer = open(&log, Duration::ZERO);
    let mut before = 0;
    for expected in [4, 8, 10] {
        let last = consumer.poll(LONG).unwrap().iter().last().unwrap().offset();
        assert_eq!(last + 1, expected);
        assert_eq!(consumer.committed("orders", 0).unwrap(), Some(before), "never what is just returned");
        before = expected;
    }
    drop(consumer);
    assert_eq!(committed(&log), Some(8), "never on drop");
}

#[test]
fn closing_commits_the_rest_and_dropping_does_not() {
    let (log, orders) = log();
    append(&orders, 10);
    let mut consumer = open(&log, LONG);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
    assert_eq!(consumer.committed("orders", 0).unwrap(), None, "the interval hasn't passed");
    drop(consumer);
    assert_eq!(committed(&log), None);

    let mut consumer = open(&log, LONG);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
    consumer.close().unwrap();
    assert_eq!(committed(&log), Some(8));

    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 2);
    consumer.close().unwrap();
    assert_eq!(committed(&log), Some(8), "only who asked for it");
}

#[test]
fn a_poll_that_waits_commits_when_it_is_time() {
    let (log, orders) = log();
    append(&orders, 3);
    let mut consumer = open(&log, SHORT);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 3);
    let start = Instant::now();
    while consumer.committed("orders", 0).unwrap() != Some(3) {
        assert!(start.elapsed() < LONG);
        assert!(consumer.poll(2 * SHORT).unwrap().is_empty());
    }
}

#[test]
fn a_group_that_got_nothing_yet_misses_nothing_later() {
    let (log, orders) = log();
    append(&orders, 3);
    let open = || {
        let builder = log.consumer("billing").topic("orders").start_if_new(Start::Latest);
        builder.auto_commit(Duration::ZERO).open().unwrap()
    };
    let mut consumer = open();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    drop(consumer);
    append(&orders, 2);
    assert_eq!(open().poll(LONG).unwrap().len(), 2);
}

#[test]
fn a_commit_of_ones_own_counts_as_one() {
    let (log, orders) = log();
    append(&orders, 10);
    let mut consumer = open(&log, LONG);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
    consumer.commit_offsets([("orders", 0, 2)]).unwrap();
    consumer.close().unwrap();
    assert_eq!(committed(&log), Some(4), "given offsets aren't all of it");

    let mut consumer = open(&log, LONG);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
    consumer.commit().unwrap();
    consumer.seek("orders", 0, 1).unwrap();
    consumer.close().unwrap();
    assert_eq!(committed(&log), Some(1), "a seek moves what is committed");
}

#[test]
fn a_wake_does_not_keep_it_from_committing() {
    let (log, orders) = log();
    append(&orders, 3);
    let mut consumer = open(&log, Duration::ZERO);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 3);
    consumer.waker().wake();
    assert!(consumer.poll(LONG).unwrap().is_empty());
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(3));
}

#[test]
fn a_task_that_sleeps_is_woken_to_commit_once() {
    let (log, orders) = log();
    append(&orders, 3);
    let mut consumer = open(&log, SHORT);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 3);
    while consumer.committed("orders", 0).unwrap() != Some(3) {
        block_on(consumer.ready()); // nobody appends
        assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    }
    let woken = Arc::new(Counting::default());
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    thread::sleep(3 * SHORT);
    assert_eq!(woken.wakes(), 0, "there is nothing more to commit");
}

#[test]
fn one_that_fails_is_told_by_poll_and_by_close() {
    let (log, orders) = log();
    append(&orders, 3);
    let mut consumer = open(&log, Duration::ZERO);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 3);
    log.close().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(consumer.close().unwrap_err().kind(), ErrorKind::Closed);
}
