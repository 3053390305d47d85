//! Waiting for the device: as a future, under a runtime and without one, and as a call that blocks.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use common::block_on;
use tidelog::{Appended, Durability, Durable, ErrorKind, Log, Record, Topic, TopicConfig};

fn open() -> (Log, Topic) {
    // Nobody flushes but those who wait.
    let log = Log::options().durability(Durability::Written).in_memory().open("test").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(4)).unwrap();
    (log, topic)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap()
}

/// Counts its wakes.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(future: &mut Durable, waker: &Waker) -> Poll<tidelog::Result<()>> {
    std::pin::Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn a_thousand_tasks_append_and_wait_under_a_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::options().durability(Durability::Written).segment_bytes(64 << 10).open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(4)).unwrap();
    runtime().block_on(async {
        let tasks: Vec<_> = (0..1000)
            .map(|number| {
                let topic = topic.clone();
                tokio::spawn(async move {
                    let at = topic.append(Record::new("x".repeat(300)).key(number.to_string())).unwrap();
                    topic.durable(at).await.unwrap();
                    assert!(topic.partition(at.partition).unwrap().durable_offset() > at.offset);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
    log.close().unwrap();
}

#[test]
fn a_bare_executor_is_enough() {
    let (_log, topic) = open();
    for number in 0..50 {
        let at = topic.append(Record::new("x").partition(number % 4)).unwrap();
        block_on(async {
            topic.durable(at).await.unwrap();
            let partition = topic.partition(at.partition).unwrap();
            assert!(partition.durable_offset() > at.offset);
            // At once, this time.
            partition.durable(at.offset).await.unwrap();
        });
    }
}

#[test]
fn a_record_that_comes_later_is_waited_for() {
    let (log, topic) = open();
    let partition = topic.partition(2).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(partition.durable(10)));
        let blocked = scope.spawn(|| partition.wait_durable(10, Duration::from_secs(60)));
        for _ in 0..10 {
            topic.append(Record::new("x").partition(2)).unwrap();
        }
        partition.flush().unwrap();
        assert!(!waiting.is_finished() && !blocked.is_finished());
        topic.append(Record::new("x").partition(2)).unwrap();
        waiting.join().unwrap().unwrap();
        assert!(blocked.join().unwrap().unwrap());
    });
    log.close().unwrap();
}

#[test]
fn a_wait_that_is_given_up_is_forgotten_and_the_next_one_works() {
    let (_log, topic) = open();
    runtime().block_on(async {
        let partition = topic.partition(0).unwrap();
        let late = tokio::time::timeout(Duration::from_millis(10), partition.durable(0)).await;
        assert!(late.is_err());
        let at = partition.append(Record::new("x")).unwrap();
        tokio::time::timeout(Duration::from_secs(60), topic.durable(at)).await.unwrap().unwrap();
    });
}

#[test]
fn ten_thousand_pending_futures_are_dropped_without_a_trace() {
    let (log, topic) = open();
    let partition = topic.partition(1).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let futures: Vec<_> = (0..10_000)
        .map(|number| {
            let mut future = partition.durable(number);
            assert!(poll(&mut future, &waker).is_pending());
            future
        })
        .collect();
    assert!(Arc::strong_count(&woken) > 10_000);
    drop(futures);
    assert_eq!(Arc::strong_count(&woken), 2);
    topic.append(Record::new("x").partition(1)).unwrap();
    partition.flush().unwrap();
    assert_eq!(woken.0.load(Ordering::SeqCst), 0);
    log.close().unwrap();
}

#[test]
fn closing_ends_all_waits() {
    let (log, topic) = open();
    let partition = topic.partition(3).unwrap();
    let at = partition.append(Record::new("x")).unwrap();
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let (mut never, mut later) = (partition.durable(u64::MAX), partition.durable(1));
    assert!(poll(&mut never, &waker).is_pending() && poll(&mut later, &waker).is_pending());
    let appended = topic.durable(at);
    thread::scope(|scope| {
        let start = Instant::now();
        let blocked = scope.spawn(|| partition.wait_durable(1, Duration::from_secs(60)));
        let waiting = scope.spawn(|| block_on(partition.durable(7)));
        thread::sleep(Duration::from_millis(20));
        log.close().unwrap();
        assert_eq!(blocked.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(waiting.join().unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert!(start.elapsed() < Duration::from_secs(30));
    });
    assert_eq!(woken.0.load(Ordering::SeqCst), 2);
    assert_eq!(block_on(never).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(block_on(later).unwrap_err().kind(), ErrorKind::Closed);
    // Closing has put it on the device.
    block_on(appended).unwrap();
    assert!(topic.wait_durable(at, Duration::ZERO).unwrap());
}

#[test]
fn a_partition_that_isnt_there_is_told_by_the_future() {
    let (_log, topic) = open();
    let at = Appended { partition: 4, offset: 0 };
    assert_eq!(block_on(topic.durable(at)).unwrap_err().kind(), ErrorKind::UnknownPartition);
    assert_eq!(topic.wait_durable(at, Duration::ZERO).unwrap_err().kind(), ErrorKind::UnknownPartition);
}

#[test]
fn a_thread_waits_no_longer_than_it_wants() {
    let (_log, topic) = open();
    let at = Appended { partition: 0, offset: 0 };
    assert!(!topic.wait_durable(at, Duration::ZERO).unwrap());
    assert!(!topic.wait_durable(at, Duration::from_millis(5)).unwrap());
    assert_eq!(topic.append(Record::new("x").partition(0)).unwrap(), at);
    assert!(topic.wait_durable(at, Duration::MAX).unwrap());
}

#[test]
fn a_future_keeps_its_log_open_and_can_be_sent() {
    let dir = tempfile::tempdir().unwrap();
    let future = {
        let log = Log::open(dir.path()).unwrap();
        let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
        let at = topic.append(Record::new("x")).unwrap();
        topic.durable(at)
    };
    assert_eq!(Log::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
    thread::spawn(move || block_on(future)).join().unwrap().unwrap();
    assert!(Log::open(dir.path()).unwrap().recovery().is_clean());
}
