//! Waiting as a future: on a bare executor, under tokio, a thousand at once, and as a stream.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, RawWaker, RawWakerVTable, Wake, Waker},
    thread,
    time::{Duration, Instant},
};

use common::executor::{Counting, Executor, block_on, poll_once};
use tidelog::{Consumer, ErrorKind, Log, Record, Topic, TopicConfig};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn log(partitions: u32) -> (Log, Topic) {
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(partitions)).unwrap();
    (log, topic)
}

fn open(log: &Log, group: &str) -> Consumer {
    log.consumer(group).topic("orders").open().unwrap()
}

/// Reads until `count` records were seen.
async fn read(consumer: &mut Consumer, count: usize) {
    let mut seen = 0;
    while seen < count {
        consumer.ready().await;
        seen += consumer.poll(Duration::ZERO).unwrap().len();
    }
    assert_eq!(seen, count);
}

#[test]
fn it_is_ready_when_there_is_something_and_wakes_once_when_something_comes() {
    let (log, orders) = log(2);
    let mut consumer = open(&log, "billing");
    let woken = Arc::new(Counting::default());
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    assert!(poll_once(&mut ready, &woken).is_pending());
    orders.append(Record::new("tea").partition(0)).unwrap();
    orders.append(Record::new("tea").partition(1)).unwrap();
    assert_eq!(woken.wakes(), 1);
    assert!(poll_once(&mut ready, &woken).is_ready());
    drop(ready);
    assert!(poll_once(&mut consumer.ready(), &woken).is_ready(), "still: nothing was taken");
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 2);
    assert!(poll_once(&mut consumer.ready(), &woken).is_pending());
}

#[test]
fn one_that_is_dropped_or_forgotten_leaves_nothing_and_loses_nothing() {
    let (log, orders) = log(1);
    let mut consumer = open(&log, "billing");
    let woken = Arc::new(Counting::default());
    for _ in 0..3 {
        assert!(poll_once(&mut consumer.ready(), &woken).is_pending());
    }
    assert_eq!(Arc::strong_count(&woken), 1, "no waker is left behind");
    orders.append(Record::new("tea")).unwrap();
    assert_eq!(woken.wakes(), 0);

    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    std::mem::forget(ready);
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(Arc::strong_count(&woken), 1);
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    std::mem::forget(ready);
    drop(consumer);
    assert_eq!(Arc::strong_count(&woken), 1);
}

#[test]
fn errors_topics_and_the_end_make_it_ready() {
    let (log, _orders) = log(1);
    let mut consumer = log.consumer("billing").topic_pattern("orders.#").open().unwrap();
    let woken = Arc::new(Counting::default());
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    log.create_topic("orders.eu", TopicConfig::with_partitions(1)).unwrap();
    assert!(poll_once(&mut ready, &woken).is_ready());
    drop(ready);
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(consumer.assignment().len(), 2);
    let mut ready = consumer.ready();
    assert!(poll_once(&mut ready, &woken).is_pending());
    log.close().unwrap();
    assert_eq!(woken.wakes(), 2);
    block_on(&mut ready);
    drop(ready);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap_err().kind(), ErrorKind::Closed);
}

/// A waker that, woken, drops the task in the middle of it: executors that are shut down do.
struct DropsTask(std::sync::Mutex<Option<Box<dyn Send>>>);

impl Wake for DropsTask {
    fn wake(self: Arc<Self>) {
        let task = self.0.lock().unwrap().take();
        drop(task);
    }
}

#[test]
fn a_task_may_be_dropped_by_its_own_wake() {
    for end in ["append", "create", "wake", "close", "commit"] {
        let (log, orders) = log(1);
        let mut consumer = log.consumer("billing").topic("orders").auto_commit(Duration::ZERO).open().unwrap();
        if end != "commit" {
            consumer.poll(Duration::ZERO).unwrap();
        }
        let waker = consumer.waker();
        let mut task = Box::pin(async move {
            loop {
                consumer.ready().await;
                consumer.poll(Duration::ZERO).unwrap();
            }
        });
        let drops = Arc::new(DropsTask(std::sync::Mutex::new(None)));
        let std_waker = Waker::from(drops.clone());
        assert!(task.as_mut().poll(&mut Context::from_waker(&std_waker)).is_pending());
        *drops.0.lock().unwrap() = Some(Box::new(task));
        match end {
            "append" => assert_eq!(orders.append(Record::new("tea")).unwrap().offset, 0),
            "create" => drop(log.create_topic("more", TopicConfig::with_partitions(1)).unwrap()),
            "wake" => waker.wake(),
            _ => log.close().unwrap(),
        }
        assert!(drops.0.lock().unwrap().is_none(), "{end}");
        if end != "close" && end != "commit" {
            open(&log, "billing"); // it has left
        }
    }
}

/// In `/proc/self/task`.
#[cfg(target_os = "linux")]
fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").unwrap().count()
}

#[cfg(target_os = "linux")]
#[test]
fn a_thousand_asleep_take_no_threads_and_one_append_wakes_them_all() {
    const CONSUMERS: usize = 1000;
    const ROUNDS: usize = 3;
    let (log, orders) = log(4);
    let seen = Cell::new(0);
    let mut executor = Executor::default();
    for number in 0..CONSUMERS {
        let (mut consumer, seen) = (open(&log, &format!("group-{number}")), &seen);
        executor.spawn(async move {
            for _ in 0..ROUNDS {
                read(&mut consumer, 1).await;
                seen.set(seen.get() + 1);
            }
        });
    }
    // Other tests of this file run beside it, and start and end threads of theirs; so it is asked of a child.
    if std::env::var_os("TIDELOG_COUNT_THREADS").is_none() {
        let status = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_thousand_asleep_take_no_threads_and_one_append_wakes_them_all"])
            .env("TIDELOG_COUNT_THREADS", "1")
            .status();
        assert!(status.unwrap().success());
        return;
    }
    let before = threads();
    for round in 0..ROUNDS {
        assert_eq!(executor.run(Duration::ZERO), CONSUMERS, "all sleep");
        assert_eq!(seen.get(), round * CONSUMERS);
        assert_eq!(threads(), before);
        orders.append(Record::new("tea")).unwrap();
        executor.run(Duration::ZERO);
        assert_eq!(seen.get(), (round + 1) * CONSUMERS);
    }
    assert_eq!(executor.run(LONG), 0);
    assert_eq!(threads(), before);
}

/// Appends from several threads while tasks on one sleep and wake.
#[test]
fn no_wake_up_is_lost() {
    const CONSUMERS: usize = 20;
    const RECORDS: usize = 2000;
    let (log, orders) = log(3);
    let mut consumers: Vec<_> = (0..CONSUMERS).map(|number| open(&log, &format!("group-{number}"))).collect();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for number in 0..RECORDS / 2 {
                    orders.append(Record::new("tea").partition(number as u32 % 3)).unwrap();
                    if number % 16 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut executor = Executor::default();
        consumers.iter_mut().for_each(|consumer| executor.spawn(read(consumer, RECORDS)));
        assert_eq!(executor.run(LONG), 0, "a wake-up was lost");
    });
}

/// Each append comes as the task, which has seen the one before it, is about to sleep.
#[test]
fn ping_and_pong() {
    const ROUNDS: usize = 3000;
    let (log, orders) = log(2);
    let pong = AtomicUsize::new(0);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut consumer = open(&log, "ping");
            block_on(async {
                for round in 1..=ROUNDS {
                    read(&mut consumer, 1).await;
                    pong.store(round, Ordering::SeqCst);
                    // About as long as an append takes, so that it meets every moment of falling asleep.
                    (0..round * 37 % 3000).for_each(|_| std::hint::spin_loop());
                }
            });
        });
        let start = Instant::now();
        for round in 0..ROUNDS {
            orders.append(Record::new("ping").partition(round as u32 % 2)).unwrap();
            while pong.load(Ordering::SeqCst) <= round {
                if start.elapsed() > LONG {
                    log.close().unwrap(); // so that the other thread ends
                    panic!("a wake-up was lost");
                }
            }
        }
    });
}

/// A waker that does something when it is cloned, which a future does as it falls asleep.
struct OnClone<F>(F, Counting);

impl<F: Fn() + Send + Sync + 'static> OnClone<F> {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(Self::clone, Self::wake, Self::wake_by_ref, Self::release);

    fn waker(on_clone: Arc<Self>) -> Waker {
        // SAFETY: each waker owns a count of the `Arc`, which is thread-safe, as what is in it is.
        unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(on_clone).cast(), &Self::VTABLE)) }
    }

    unsafe fn clone(this: *const ()) -> RawWaker {
        // SAFETY: `this` is what `waker` made of an `Arc` that is still counted.
        unsafe {
            ((*this.cast::<Self>()).0)();
            Arc::increment_strong_count(this.cast::<Self>());
        }
        RawWaker::new(this, &Self::VTABLE)
    }

    unsafe fn wake(this: *const ()) {
        // SAFETY: as in `clone`; the count goes with it.
        unsafe {
            Self::wake_by_ref(this);
            Self::release(this);
        }
    }

    unsafe fn wake_by_ref(this: *const ()) {
        // SAFETY: as in `clone`.
        unsafe { (*this.cast::<Self>()).1.count() }
    }

    unsafe fn release(this: *const ()) {
        // SAFETY: as in `clone`; the count is this waker's.
        unsafe { drop(Arc::from_raw(this.cast::<Self>())) }
    }
}

#[test]
fn what_comes_in_the_middle_of_falling_asleep_is_not_missed() {
    for what in ["append", "create", "wake", "close"] {
        let (log, orders) = log(1);
        let mut consumer = log.consumer("billing").topic_pattern("#").open().unwrap();
        let waker = consumer.waker();
        let happen = move || match what {
            "append" => assert_eq!(orders.append(Record::new("tea")).unwrap().offset, 0),
            "create" => assert_eq!(log.create_topic("mails", TopicConfig::with_partitions(1)).unwrap().partitions(), 1),
            "wake" => waker.wake(),
            _ => log.close().unwrap(),
        };
        let on_clone = Arc::new(OnClone(happen, Counting::default()));
        let task = OnClone::waker(on_clone.clone());
        let mut ready = consumer.ready();
        let is_ready = Pin::new(&mut ready).poll(&mut Context::from_waker(&task)).is_ready();
        assert!(is_ready || on_clone.1.wakes() > 0, "{what}");
    }
}

#[test]
fn under_tokio() {
    const CONSUMERS: usize = 50;
    const RECORDS: usize = 500;
    let (log, orders) = log(4);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    let cancelled = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..CONSUMERS)
        .map(|number| {
            let (mut consumer, cancelled) = (open(&log, &format!("group-{number}")), cancelled.clone());
            runtime.spawn(async move {
                let mut seen = 0;
                while seen < RECORDS {
                    // Given up again and again, so that some are dropped as they wake.
                    match tokio::time::timeout(Duration::from_micros(200), consumer.ready()).await {
                        Ok(()) => seen += consumer.poll(Duration::ZERO).unwrap().len(),
                        Err(_) => drop(cancelled.fetch_add(1, Ordering::Relaxed)),
                    }
                }
                seen
            })
        })
        .collect();
    for number in 0..RECORDS {
        if number % 50 == 0 {
            // All who sleep give up in between, for there is nothing to read.
            let before = cancelled.load(Ordering::Relaxed);
            while cancelled.load(Ordering::Relaxed) < before + CONSUMERS {
                thread::yield_now();
            }
        }
        orders.append(Record::new("tea").partition(number as u32 % 4)).unwrap();
    }
    for task in tasks {
        let seen = runtime.block_on(async { tokio::time::timeout(LONG, task).await });
        assert_eq!(seen.unwrap().unwrap(), RECORDS);
    }
}

#[cfg(feature = "stream")]
mod stream {
    use std::sync::atomic::AtomicBool;

    use futures_util::StreamExt;

    use super::*;

    #[test]
    fn a_stream_gives_what_comes_and_the_consumer_goes_on_behind_it() {
        let (log, orders) = log(2);
        let mut consumer = open(&log, "billing");
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..100 {
                    orders.append(Record::new("tea").partition(number % 2)).unwrap();
                }
            });
            block_on(async {
                let mut stream = consumer.stream();
                let mut seen = 0;
                while seen < 100 {
                    let batch = stream.next().await.unwrap().unwrap();
                    assert!(!batch.is_empty());
                    seen += batch.len();
                    stream.get_mut().commit().unwrap();
                }
            });
        });
        assert_eq!(consumer.lag().total, 0);
        assert_eq!(consumer.position("orders", 1).unwrap(), 50);
    }

    #[test]
    fn a_partition_that_is_resumed_while_a_stream_waits_wakes_it() {
        let (log, orders) = log(2);
        let mut stream = open(&log, "billing").into_stream();
        stream.get_mut().pause([("orders", 0)]).unwrap();
        let woken = Arc::new(Counting::default());
        assert!(poll_once(&mut stream.next(), &woken).is_pending());
        stream.get_mut().resume([("orders", 0)]).unwrap();
        assert!(poll_once(&mut stream.next(), &woken).is_pending());
        let wakes = woken.wakes();
        orders.append(Record::new("tea").partition(0)).unwrap();
        assert_eq!(woken.wakes(), wakes + 1);
        assert_eq!(block_on(stream.next()).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn an_owned_stream_is_sent_woken_and_taken_apart() {
        let (log, orders) = log(1);
        let mut stream = open(&log, "billing").into_stream();
        let waker = stream.get_ref().waker();
        let stop = Arc::new(AtomicBool::new(false));
        let task = thread::spawn({
            let stop = stop.clone();
            move || {
                let mut seen = 0;
                block_on(async {
                    while !stop.load(Ordering::SeqCst) {
                        seen += stream.next().await.unwrap().unwrap().len();
                    }
                });
                (seen, stream.into_inner())
            }
        });
        for _ in 0..10 {
            orders.append(Record::new("tea")).unwrap();
        }
        stop.store(true, Ordering::SeqCst);
        waker.wake();
        let (seen, mut consumer) = task.join().unwrap();
        let rest = std::iter::repeat_with(|| consumer.poll(Duration::ZERO).unwrap().len()).take(3);
        assert_eq!(seen + rest.sum::<usize>(), 10);
    }

    #[test]
    fn a_closed_log_ends_it_with_an_error() {
        let (log, orders) = log(1);
        orders.append(Record::new("tea")).unwrap();
        let mut stream = open(&log, "billing").into_stream();
        assert_eq!(block_on(stream.next()).unwrap().unwrap().len(), 1);
        let woken = Arc::new(Counting::default());
        assert!(poll_once(&mut stream.next(), &woken).is_pending());
        log.close().unwrap();
        assert_eq!(woken.wakes(), 1);
        assert_eq!(block_on(stream.next()).unwrap().unwrap_err().kind(), ErrorKind::Closed);
        assert!(block_on(stream.next()).is_none());
        assert!(block_on(stream.next()).is_none());
    }
}
