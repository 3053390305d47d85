//! Consumers whose group can't be written down.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{RebalanceKind, consumer::Consumer};

fn consumer(log: &Log) -> Result<Consumer> {
    log.consumer("billing").topic("orders").open()
}

/// From now on `__offsets` gets no more space, and what it has is used up.
fn fill(storage: &SimStorage, consumer: &mut Consumer) {
    storage.fail_if(|operation, path| {
        let is_offsets = path.to_str().unwrap().contains("__offsets");
        let takes_space = match operation {
            Operation::Reserve => true,
            // Nothing is reserved there.
            Operation::Write => cfg!(tidelog_positional) && path.extension().is_some_and(|it| it == "log"),
            _ => false,
        };
        (takes_space && is_offsets).then_some(io::ErrorKind::StorageFull)
    });
    let error = (0..).find_map(|i| consumer.commit_offsets([("orders", 0, i % 2)]).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
}

fn poll(consumer: &mut Consumer) -> Result<usize> {
    consumer.poll(Duration::ZERO).map(|batch| batch.len())
}

#[test]
fn what_can_not_be_written_down_is_told_and_tried_again() {
    let storage = SimStorage::default();
    let log = open(&storage).unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for partition in 0..2 {
        orders.append(Record::new("tea").partition(partition)).unwrap();
    }
    let revoked = Arc::new(AtomicUsize::new(0));
    let count = revoked.clone();
    let first = log.consumer("billing").topic("orders").on_rebalance(move |rebalance| {
        count.fetch_add(usize::from(rebalance.kind() == RebalanceKind::Revoked), Ordering::SeqCst);
        Ok(())
    });
    let mut first = first.open().unwrap();
    assert_eq!(poll(&mut first).unwrap(), 2);
    let mut second = consumer(&log).unwrap();
    fill(&storage, &mut first);

    for _ in 0..3 {
        assert_eq!(poll(&mut first).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(first.assignment().len(), 1, "let go of, and not given away yet");
        assert_eq!((poll(&mut second).unwrap(), second.assignment().len()), (0, 0));
    }
    assert_eq!(revoked.load(Ordering::SeqCst), 1, "told once");
    assert_eq!(consumer(&log).unwrap_err().kind(), ErrorKind::StorageFull);
    storage.heal();
    assert_eq!(poll(&mut first).unwrap(), 0);
    assert_eq!((poll(&mut second).unwrap(), second.assignment().len()), (1, 1));
    assert_eq!(revoked.load(Ordering::SeqCst), 1);

    // Nor does a consumer that goes wait for it.
    fill(&storage, &mut first);
    drop(first);
    assert_eq!((poll(&mut second).unwrap(), second.assignment().len()), (0, 1));
    storage.heal();
    let start = Instant::now();
    while second.assignment().len() < 2 {
        assert!(start.elapsed() < Duration::from_secs(60), "never made up for");
        poll(&mut second).unwrap();
        thread::yield_now();
    }
    log.close().unwrap();
}

/// Waking a task may run the executor's code, which may do anything: here it drops the consumer.
#[test]
fn a_task_may_drop_its_consumer_as_it_is_woken() {
    use std::{future::Future, pin::Pin, task};

    struct Drops(Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>);

    impl task::Wake for Drops {
        fn wake(self: Arc<Self>) {
            let future = self.0.lock().take();
            drop(future);
        }
    }

    let storage = SimStorage::default();
    let log = open(&storage).unwrap();
    log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    let mut sleeper = consumer(&log).unwrap();
    let future: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move { sleeper.ready().await });
    let drops = Arc::new(Drops(Mutex::new(Some(future))));
    let waker = task::Waker::from(drops.clone());
    let mut future = drops.0.lock().take().unwrap();
    assert!(future.as_mut().poll(&mut task::Context::from_waker(&waker)).is_pending());
    *drops.0.lock() = Some(future);

    let mut other = consumer(&log).unwrap();
    assert!(drops.0.lock().is_none(), "it was woken");
    poll(&mut other).unwrap();
    assert_eq!(other.assignment().len(), 2, "what it had was free at once");
    log.close().unwrap();
}
