//! Ending a poll from another thread.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::executor::{Counting, poll_once};
use tidelog::{Log, Record, Topic, TopicConfig};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn log() -> (Log, Topic) {
    let log = Log::options().in_memory().segment_bytes(1 << 20).open("test").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    (log, topic)
}

#[test]
fn a_wake_ends_the_next_poll_and_takes_no_record() {
    let (log, orders) = log();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let waker = consumer.waker();
    let start = Instant::now();
    waker.wake();
    assert!(consumer.poll(LONG).unwrap().is_empty());
    assert!(start.elapsed() < LONG / 2);

    orders.append(Record::new("tea")).unwrap();
    waker.wake();
    waker.clone().wake();
    assert!(consumer.poll(LONG).unwrap().is_empty(), "also where records are there");
    assert_eq!(consumer.poll(LONG).unwrap().len(), 1, "several count as one, and nothing is lost");
}

#[test]
fn a_wake_ends_the_poll_that_runs() {
    let (log, orders) = log();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let waker = consumer.waker();
    thread::scope(|scope| {
        let polling = scope.spawn(|| {
            let start = Instant::now();
            assert!(consumer.poll(LONG).unwrap().is_empty());
            assert!(start.elapsed() < LONG / 2);
            consumer
        });
        thread::sleep(Duration::from_millis(20));
        waker.wake();
        let mut consumer = polling.join().unwrap();
        orders.append(Record::new("tea")).unwrap();
        assert_eq!(consumer.poll(LONG).unwrap().len(), 1, "one wake ends one poll");
        drop(consumer);
        waker.wake(); // nobody is there
    });
}

#[test]
fn a_wake_ends_a_future_and_is_still_there_for_the_poll_behind_it() {
    let (log, _orders) = log();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let (waker, woken) = (consumer.waker(), Arc::new(Counting::default()));
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    waker.wake();
    assert_eq!(woken.wakes(), 1);
    assert!(poll_once(&mut ready, &woken).is_ready());
    drop(ready);
    let start = Instant::now();
    assert!(consumer.poll(LONG).unwrap().is_empty());
    assert!(start.elapsed() < LONG / 2);
    assert!(poll_once(&mut consumer.ready(), &woken).is_pending());
}

/// However wakes, appends and polls meet: no wake is lost, and no record.
#[test]
fn no_wake_is_lost() {
    const ROUNDS: u64 = 3000;
    let (log, orders) = log();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let waker = consumer.waker();
    let (asked, done) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let polling = scope.spawn(|| {
            let mut records = 0;
            loop {
                let batch = consumer.poll(LONG).unwrap();
                records += batch.len();
                if batch.is_empty() {
                    if stop.load(Ordering::SeqCst) {
                        return records + consumer.poll(Duration::ZERO).unwrap().len();
                    }
                    done.store(asked.load(Ordering::SeqCst), Ordering::SeqCst);
                }
            }
        });
        let appending = scope.spawn(|| {
            for _ in 0..ROUNDS {
                orders.append(Record::new("tea")).unwrap();
                thread::yield_now();
            }
        });
        let start = Instant::now();
        for round in 1..=ROUNDS {
            asked.store(round, Ordering::SeqCst);
            waker.wake();
            while done.load(Ordering::SeqCst) < round {
                assert!(start.elapsed() < LONG, "a wake was lost");
                thread::yield_now();
            }
        }
        appending.join().unwrap();
        stop.store(true, Ordering::SeqCst);
        waker.wake();
        assert_eq!(polling.join().unwrap(), ROUNDS as usize);
    });
}
