//! The load: a shop that takes orders and payments, and services that read them.

use std::{
    thread,
    time::{Duration, Instant},
};

use tidelog::{Consumer, Durability, Log, Record, Topic, TopicConfig};

use crate::Result;

/// How long a service of the shop waits for something to do.
const PATIENCE: Duration = Duration::from_millis(100);

/// Runs the shop until `end`, and `meanwhile` beside it.
pub(crate) fn run(log: &Log, end: Instant, meanwhile: impl FnOnce() + Send) -> Result<()> {
    let orders = log.ensure_topic("orders", TopicConfig::with_partitions(4))?;
    let payments = log.ensure_topic("payments", TopicConfig::with_partitions(2).durability(Durability::Synced))?;
    thread::scope(|scope| {
        let services = [
            scope.spawn(|| take_orders(&orders, end)),
            scope.spawn(|| take_payments(log, &payments, end)),
            scope.spawn(|| ship(log, end, Duration::ZERO)),
            // Two members that share the work.
            scope.spawn(|| ship(log, end, Duration::ZERO)),
            // One that can't keep up: its lag grows.
            scope.spawn(|| analyze(log, end)),
        ];
        scope.spawn(meanwhile);
        services.into_iter().try_for_each(|service| service.join().map_err(|_| "a service panicked")?)
    })
}

/// Customers order, a few at a time; now and then one orders too much at once.
fn take_orders(orders: &Topic, end: Instant) -> Result<()> {
    let mut number = 0_u64;
    while Instant::now() < end {
        let values: Vec<_> =
            (number..number + 20).map(|number| format!("order {number}: {}", "tea ".repeat(20))).collect();
        let keys: Vec<_> = (number..number + 20).map(|number| format!("customer-{}", number % 97)).collect();
        let records = values.iter().zip(&keys).map(|(value, key)| Record::new(value.as_str()).key(key.as_str()));
        orders.append_batch(records)?;
        number += 20;
        if number % 400 == 0 {
            // Refused, and counted as an error.
            let _ = orders.append(Record::new(vec![b'x'; 2 << 20]));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Every order is paid for: on the device before the customer is told.
fn take_payments(log: &Log, payments: &Topic, end: Instant) -> Result<()> {
    let mut consumer = log.consumer("billing").topic("orders").open()?;
    while Instant::now() < end {
        let batch = consumer.poll(PATIENCE)?;
        let paid: Vec<_> = batch.iter().filter_map(|record| Some(record.key()?.to_vec())).collect();
        payments.append_batch(paid.iter().map(|key| Record::new("paid").key(key.as_slice())))?;
        consumer.commit()?;
    }
    Ok(consumer.close()?)
}

fn ship(log: &Log, end: Instant, pause: Duration) -> Result<()> {
    let consumer = log.consumer("shipping").topic("orders").topic("payments").open()?;
    work(consumer, end, pause)
}

fn analyze(log: &Log, end: Instant) -> Result<()> {
    let consumer = log.consumer("analytics").topic("orders").max_poll_bytes(4 << 10).open()?;
    work(consumer, end, Duration::from_millis(100))
}

/// Reads and commits.
fn work(mut consumer: Consumer, end: Instant, pause: Duration) -> Result<()> {
    while Instant::now() < end {
        consumer.poll(PATIENCE)?;
        consumer.commit()?;
        thread::sleep(pause);
    }
    Ok(consumer.close()?)
}
