//! Consumers of one group share its partitions: who has what, how it moves, and what that does to records and commits.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod delivery;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    future::Future,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use tidelog::{
    Batch, Consumer, ConsumerBuilder, Error, ErrorKind, Log, Rebalance, RebalanceKind, Record, Start, Topic,
    TopicConfig,
};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

type Places = Vec<(String, u32)>;

fn log() -> Log {
    Log::options().in_memory().segment_bytes(1 << 20).open("test").unwrap()
}

fn topic(log: &Log, name: &str, partitions: u32) -> Topic {
    log.create_topic(name, TopicConfig::with_partitions(partitions)).unwrap()
}

fn append(topic: &Topic, partition: u32, count: u64) {
    for _ in 0..count {
        topic.append(Record::new("x").partition(partition)).unwrap();
    }
}

fn builder(log: &Log) -> ConsumerBuilder {
    log.consumer("billing").topic("orders")
}

fn open(log: &Log) -> Consumer {
    builder(log).open().unwrap()
}

fn numbers(consumer: &Consumer) -> BTreeSet<u32> {
    consumer.assignment().into_iter().map(|(_, number)| number).collect()
}

/// What is polled, without waiting, until nothing comes any more: partition and offset.
fn drain(consumer: &mut Consumer) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    loop {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            return all;
        }
        all.extend(batch.iter().map(|record| (record.partition(), record.offset())));
    }
}

/// Lets partitions move to where they belong: whoever has to give some away does so, then the others take them.
fn settle(consumers: &mut [Consumer]) {
    for _ in 0..2 {
        for consumer in &mut *consumers {
            assert!(consumer.poll(Duration::ZERO).unwrap().is_empty(), "there are no records");
        }
    }
}

/// Panics unless the partitions are shared evenly, and all of them are.
fn assert_shared(consumers: &[Consumer], partitions: usize) {
    let sizes: Vec<usize> = consumers.iter().map(|consumer| consumer.assignment().len()).collect();
    assert_eq!(sizes.iter().sum::<usize>(), partitions, "{sizes:?}");
    assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
    let all: BTreeSet<_> = consumers.iter().flat_map(Consumer::assignment).collect();
    assert_eq!(all.len(), partitions, "some partitions have two owners");
    let generations: BTreeSet<u64> = consumers.iter().map(Consumer::generation).collect();
    assert_eq!(generations.len(), 1);
    let members: BTreeSet<u64> = consumers.iter().map(Consumer::member_id).collect();
    assert_eq!(members.len(), consumers.len());
}

/// What a callback was told.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(RebalanceKind, Places)>>>);

impl Told {
    fn note(&self, rebalance: &Rebalance<'_>) {
        self.0.lock().unwrap().push((rebalance.kind(), rebalance.partitions().to_vec()));
    }

    fn take(&self) -> Vec<(RebalanceKind, Places)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// A callback that notes what it is told, and does no more.
    fn callback(&self) -> impl FnMut(&mut Rebalance<'_>) -> tidelog::Result<()> + Send + 'static {
        let told = self.clone();
        move |rebalance| {
            told.note(rebalance);
            Ok(())
        }
    }
}

fn places(numbers: impl IntoIterator<Item = u32>) -> Places {
    numbers.into_iter().map(|number| ("orders".to_owned(), number)).collect()
}

#[test]
fn partitions_are_shared_evenly_as_consumers_come_and_go() {
    let log = log();
    topic(&log, "orders", 64);
    let mut consumers: Vec<Consumer> = Vec::new();
    for count in 1..=8 {
        let before: Vec<BTreeSet<u32>> = consumers.iter().map(numbers).collect();
        consumers.push(open(&log));
        settle(&mut consumers);
        assert_shared(&consumers, 64);
        assert_eq!(consumers[0].generation(), count);
        for (before, consumer) in before.iter().zip(&consumers) {
            assert!(numbers(consumer).is_subset(before), "only the newcomer gets something");
        }
    }
    // In an order that isn't theirs.
    for at in [3, 0, 5, 1, 1, 2, 0] {
        drop(consumers.remove(at));
        let before: Vec<BTreeSet<u32>> = consumers.iter().map(numbers).collect();
        settle(&mut consumers);
        assert_shared(&consumers, 64);
        for (before, consumer) in before.iter().zip(&consumers) {
            assert!(numbers(consumer).is_superset(before), "nobody gives anything away");
        }
    }
    assert_eq!(consumers[0].assignment(), places(0..64));
}

#[test]
fn open_takes_what_is_free_and_waits_for_the_rest() {
    let log = log();
    topic(&log, "orders", 4);
    let mut first = open(&log);
    assert_eq!(first.assignment(), places(0..4));
    let mut second = open(&log);
    assert!(second.assignment().is_empty());
    assert!(second.poll(Duration::ZERO).unwrap().is_empty());
    assert!(second.assignment().is_empty(), "nothing is taken from one that hasn't given it away");
    assert!(first.poll(Duration::ZERO).unwrap().is_empty());
    assert!(second.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!((first.assignment(), second.assignment()), (places(0..2), places(2..4)));
    drop(first);
    let third = open(&log);
    assert_eq!(third.assignment().len(), 0, "the second one was there first");
    assert_eq!(second.poll(Duration::ZERO).unwrap().len(), 0);
}

/// What stays is read on in every poll, is never named to the callback, and keeps its position.
#[test]
fn partitions_that_stay_are_never_interrupted() {
    let log = log();
    let orders = topic(&log, "orders", 8);
    let told = Told::default();
    let mut first = builder(&log).on_rebalance(told.callback()).open().unwrap();
    assert!(told.take().is_empty(), "only a poll calls back");
    first.poll(Duration::ZERO).unwrap();
    assert_eq!(told.take(), [(RebalanceKind::Assigned, places(0..8))]);
    let mut others: Vec<Consumer> = Vec::new();
    for round in 1..=3 {
        others.push(open(&log));
        for partition in 0..8 {
            append(&orders, partition, 2);
        }
        // The very poll in which partitions go reads what stays.
        let polled: Vec<_> =
            first.poll(Duration::ZERO).unwrap().iter().map(|it| (it.partition(), it.offset())).collect();
        let (kept, offset) = (numbers(&first), 2 * (round - 1));
        let expected: Vec<(u32, u64)> = kept.iter().flat_map(|it| [(*it, offset), (*it, offset + 1)]).collect();
        assert_eq!(polled.iter().copied().collect::<BTreeSet<_>>(), expected.into_iter().collect());
        match &told.take()[..] {
            [(RebalanceKind::Revoked, revoked)] => {
                assert!(revoked.iter().all(|(_, number)| !kept.contains(number)), "{revoked:?}");
            }
            [] => assert!(round > 1, "half of it has to go"),
            told => panic!("{told:?}"),
        }
        others.iter_mut().for_each(|other| drop(drain(other)));
    }
}

#[test]
fn what_is_committed_as_partitions_go_is_where_the_next_owner_begins() {
    let log = log();
    let orders = topic(&log, "orders", 4);
    (0..4).for_each(|partition| append(&orders, partition, 10));
    let commit = |rebalance: &mut Rebalance<'_>| match rebalance.kind() {
        RebalanceKind::Revoked => rebalance.commit(),
        _ => Ok(()),
    };
    let mut first = builder(&log).on_rebalance(commit).open().unwrap();
    assert_eq!(drain(&mut first).len(), 40);
    let mut second = open(&log);
    first.poll(Duration::ZERO).unwrap();
    assert_eq!(drain(&mut second), []);
    assert_eq!(second.position("orders", 3).unwrap(), 10);
    assert_eq!(second.committed("orders", 3).unwrap(), Some(10));
    assert_eq!(first.committed("orders", 0).unwrap(), None, "what stays isn't committed");

    // Without a commit, what was polled comes again.
    append(&orders, 3, 5);
    assert_eq!(drain(&mut second).len(), 5);
    drop(second);
    let again = drain(&mut first);
    assert_eq!(again, (10..15).map(|offset| (3, offset)).collect::<Vec<_>>());
}

#[test]
fn an_auto_commit_comes_before_partitions_go() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    (0..2).for_each(|partition| append(&orders, partition, 10));
    let mut first = builder(&log).auto_commit(LONG).open().unwrap();
    assert_eq!(drain(&mut first).len(), 20);
    let mut second = open(&log);
    first.poll(Duration::ZERO).unwrap();
    assert_eq!(drain(&mut second), []);
    assert_eq!(second.committed("orders", 1).unwrap(), Some(10));
    assert_eq!(first.committed("orders", 0).unwrap(), None, "the others have their own time");
    first.close().unwrap();
    assert_eq!(drain(&mut second), []);
    assert_eq!(second.committed("orders", 0).unwrap(), Some(10));
}

#[test]
fn a_callback_says_where_to_begin() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    (0..2).for_each(|partition| append(&orders, partition, 10));
    let seek = |rebalance: &mut Rebalance<'_>| {
        assert!(rebalance.generation() > 0);
        for (topic, partition) in rebalance.partitions().to_vec() {
            assert_eq!(rebalance.committed(&topic, partition)?, None);
            rebalance.seek(&topic, partition, 7 + u64::from(partition))?;
        }
        Ok(())
    };
    let mut consumer = builder(&log).on_rebalance(seek).open().unwrap();
    assert_eq!(consumer.position("orders", 1).unwrap(), 0, "not before the first poll");
    assert_eq!(drain(&mut consumer), [(0, 7), (0, 8), (0, 9), (1, 8), (1, 9)]);
}

#[test]
fn an_error_of_a_callback_comes_out_of_poll_and_the_step_is_completed() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    append(&orders, 0, 1);
    let told = Told::default();
    let callback = {
        let told = told.clone();
        move |rebalance: &mut Rebalance<'_>| {
            told.note(rebalance);
            rebalance.seek("orders", 0, 99)
        }
    };
    let mut first = builder(&log).on_rebalance(callback).open().unwrap();
    assert_eq!(first.poll(LONG).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!(first.poll(LONG).unwrap().len(), 1, "told once");
    let mut second = open(&log);
    assert_eq!(first.poll(LONG).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!(drain(&mut second), []);
    assert_eq!((first.assignment(), second.assignment()), (places([0]), places([1])));
    assert_eq!(first.close().unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    second.poll(Duration::ZERO).unwrap();
    assert_eq!(second.assignment().len(), 2, "the group was left all the same");
    let kinds: Vec<_> = told.take().into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(kinds, [RebalanceKind::Assigned, RebalanceKind::Revoked, RebalanceKind::Revoked]);
}

#[test]
fn closing_tells_the_callback_and_dropping_does_not() {
    let log = log();
    topic(&log, "orders", 2);
    for close in [true, false] {
        let told = Told::default();
        let mut consumer = builder(&log).on_rebalance(told.callback()).open().unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        if close {
            consumer.close().unwrap();
        } else {
            drop(consumer);
        }
        let mut expected = vec![(RebalanceKind::Assigned, places(0..2))];
        expected.extend(close.then(|| (RebalanceKind::Revoked, places(0..2))));
        assert_eq!(told.take(), expected);
    }
    // One that was never told of partitions isn't told that they go.
    let told = Told::default();
    builder(&log).on_rebalance(told.callback()).open().unwrap().close().unwrap();
    assert!(told.take().is_empty());
}

fn fenced(error: &Error) -> (ErrorKind, Option<&str>) {
    (error.kind(), error.topic())
}

#[test]
fn a_consumer_that_does_not_poll_is_expelled_and_its_commits_are_fenced() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    (0..2).for_each(|partition| append(&orders, partition, 10));
    let told = Told::default();
    let lazy = builder(&log).max_poll_interval(Duration::from_millis(1)).max_poll_records(12);
    let mut lazy = lazy.on_rebalance(told.callback()).open().unwrap();
    let batch = lazy.poll(LONG).unwrap();
    let (id, generation) = (lazy.member_id(), lazy.generation());
    told.take();
    // Its partitions come without anybody being asked for them.
    let mut busy = open(&log);
    let start = Instant::now();
    while busy.assignment().len() < 2 {
        assert!(start.elapsed() < LONG, "never expelled");
        busy.poll(Duration::from_millis(1)).unwrap();
    }
    assert_eq!(busy.lag().total, 20);
    busy.commit_offsets([("orders", 0, 3)]).unwrap();
    for record in &batch {
        let error = lazy.commit_through(&record).unwrap_err();
        assert_eq!(fenced(&error), (ErrorKind::Fenced, Some("orders")));
    }
    assert_eq!(lazy.commit().unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(lazy.commit_offsets([("orders", 1, 1)]).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(busy.committed("orders", 0).unwrap(), Some(3), "nothing of it counts");
    assert_eq!(busy.committed("orders", 1).unwrap(), None);
    assert!(told.take().is_empty(), "told by the next poll");

    lazy.poll(Duration::ZERO).unwrap();
    assert_eq!(told.take(), [(RebalanceKind::Lost, places(0..2))]);
    assert_ne!(lazy.member_id(), id);
    assert!(lazy.generation() > generation);
    assert!(lazy.assignment().is_empty(), "it is back, and waits for its share");
    let error = lazy.commit_offsets([("orders", 1, 1)]).unwrap_err();
    assert_eq!(fenced(&error), (ErrorKind::Fenced, Some("orders")), "it was its own once");
    assert_eq!(lazy.commit_offsets([("other", 1, 1)]).unwrap_err().kind(), ErrorKind::NotAssigned);
}

#[test]
fn what_was_given_away_can_not_be_committed_any_more() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    (0..2).for_each(|partition| append(&orders, partition, 10));
    let mut first = open(&log);
    let batch = first.poll(LONG).unwrap();
    let mut second = open(&log);
    first.poll(Duration::ZERO).unwrap();
    second.poll(Duration::ZERO).unwrap();
    let record = batch.iter().find(|record| record.partition() == 1).unwrap();
    let error = first.commit_through(&record).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::Fenced, Some(1)));
    assert_eq!(first.commit_offsets([("orders", 0, 5), ("orders", 1, 5)]).unwrap_err().kind(), ErrorKind::Fenced);
    assert_eq!(first.committed("orders", 0).unwrap(), None, "all or nothing");
    first.commit().unwrap();
    assert_eq!(second.committed("orders", 1).unwrap(), None);
    drop(second);
    first.poll(Duration::ZERO).unwrap();
    first.commit_offsets([("orders", 1, 5)]).unwrap();
}

#[test]
fn time_inside_a_poll_or_a_pending_future_does_not_count() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    let interval = Duration::from_millis(50);
    let mut consumer = builder(&log).max_poll_interval(interval).open().unwrap();
    let id = consumer.member_id();
    assert!(consumer.poll(4 * interval).unwrap().is_empty());
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!((consumer.member_id(), consumer.generation()), (id, 1));
    {
        let mut ready = std::pin::pin!(consumer.ready());
        let mut context = Context::from_waker(Waker::noop());
        assert!(ready.as_mut().poll(&mut context).is_pending());
        thread::sleep(4 * interval);
        append(&orders, 0, 1);
        assert_eq!(ready.as_mut().poll(&mut context), Poll::Ready(()));
    }
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    assert_eq!((consumer.member_id(), consumer.generation()), (id, 1));
}

#[test]
fn a_sleeping_consumer_wakes_to_give_away_and_to_take() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    thread::scope(|scope| {
        let mut first = open(&log);
        let waker = first.waker();
        scope.spawn(move || {
            assert!(first.poll(Duration::from_secs(3600)).unwrap().is_empty());
            assert_eq!(first.assignment(), places([0]));
            drop(first);
        });
        let mut second = open(&log);
        append(&orders, 1, 1);
        let start = Instant::now();
        assert_eq!(second.poll(LONG).unwrap().len(), 1, "the other one sleeps, and gives it away all the same");
        assert!(start.elapsed() < LONG / 2);
        append(&orders, 0, 0);
        waker.wake();
        while second.assignment().len() < 2 {
            assert!(start.elapsed() < LONG, "never given away");
            second.poll(Duration::from_millis(1)).unwrap();
        }
    });
}

#[test]
fn partitions_and_topics_that_come_later_are_shared_and_begin_at_their_start() {
    let log = log();
    topic(&log, "orders.eu", 2);
    let open = || log.consumer("billing").topic_pattern("orders.*").start_if_new(Start::Latest).open().unwrap();
    let mut consumers = vec![open(), open()];
    settle(&mut consumers);
    assert_shared(&consumers, 2);
    let eu = log.increase_partitions("orders.eu", 6).unwrap();
    let us = topic(&log, "orders.us", 4);
    topic(&log, "other", 4);
    (2..6).for_each(|partition| append(&eu, partition, 3));
    (0..4).for_each(|partition| append(&us, partition, 3));
    let mut polled = 0;
    for _ in 0..2 {
        polled += consumers.iter_mut().map(|consumer| drain(consumer).len()).sum::<usize>();
    }
    assert_eq!(polled, 24, "a group can't skip what it hasn't seen");
    assert_shared(&consumers, 10);
    for consumer in &consumers {
        assert_eq!(consumer.assignment().iter().filter(|(topic, _)| topic == "orders.eu").count(), 3);
    }
}

#[test]
fn a_group_moves_on_from_where_it_began_and_not_from_what_is_latest_now() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    let open = || builder(&log).start_if_new(Start::Latest).open().unwrap();
    let first = open();
    append(&orders, 1, 5);
    let mut second = open();
    drop(first);
    assert_eq!(drain(&mut second).len(), 5, "they came while the group was there");
}

#[test]
fn a_consumer_goes_on_where_another_one_let_the_group_begin() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    append(&orders, 1, 5);
    let first = builder(&log).start_if_new(Start::Latest).open().unwrap();
    append(&orders, 1, 2);
    let mut second = open(&log); // which would begin at the log start
    drop(first);
    assert_eq!(drain(&mut second), [(1, 5), (1, 6)]);
    second.rewind().unwrap();
    assert_eq!(second.position("orders", 1).unwrap(), 5);
}

/// Opens a consumer of patterns that begins at the end, and waits until it is expelled.
fn open_expelled(log: &Log) -> Consumer {
    let lazy = log.consumer("billing").topic_pattern("orders.#").start_if_new(Start::Latest);
    let lazy = lazy.max_poll_interval(Duration::from_millis(1)).open().unwrap();
    wait_until_expelled(log);
    lazy
}

fn wait_until_expelled(log: &Log) {
    let start = Instant::now();
    while !log.describe_group("billing").unwrap().members.is_empty() {
        assert!(start.elapsed() < LONG, "never expelled");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn what_comes_while_all_consumers_are_expelled_is_read_from_its_beginning() {
    for others in [false, true] {
        let log = log();
        let old = topic(&log, "orders.old", 1);
        append(&old, 0, 5);
        let mut lazy = open_expelled(&log);
        append(&topic(&log, "orders.new", 1), 0, 3);
        if others {
            let other = log.consumer("billing").topic_pattern("#").start_if_new(Start::Latest);
            assert_eq!(drain(&mut other.open().unwrap()).len(), 3, "the group has been there");
        }
        assert_eq!(lazy.poll(LONG).unwrap().len(), 3);
    }
    // A group that is forgotten begins anew.
    let log = log();
    append(&topic(&log, "orders.old", 1), 0, 5);
    let mut lazy = open_expelled(&log);
    log.delete_group("billing").unwrap();
    append(&topic(&log, "orders.new", 1), 0, 3);
    assert!(lazy.poll(Duration::ZERO).unwrap().is_empty());
}

#[test]
fn a_topic_that_is_deleted_while_its_consumer_is_expelled_is_told() {
    let log = log();
    topic(&log, "orders", 1);
    let mut lazy = builder(&log).max_poll_interval(Duration::from_millis(1)).open().unwrap();
    wait_until_expelled(&log);
    log.delete_topic("orders").unwrap();
    assert_eq!(lazy.poll(Duration::ZERO).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert!(lazy.poll(Duration::ZERO).unwrap().is_empty(), "told once");
}

#[test]
fn one_that_was_expelled_is_told_so_when_it_closes() {
    let log = log();
    topic(&log, "orders", 1);
    let told = Told::default();
    let mut lazy =
        builder(&log).max_poll_interval(Duration::from_millis(1)).on_rebalance(told.callback()).open().unwrap();
    lazy.poll(Duration::ZERO).unwrap();
    wait_until_expelled(&log);
    told.take();
    lazy.close().unwrap();
    assert_eq!(told.take(), [(RebalanceKind::Lost, places(0..1))]);
}

#[test]
fn subscriptions_of_one_group_may_differ() {
    let log = log();
    topic(&log, "orders", 4);
    topic(&log, "payments", 3);
    let mut both = builder(&log).topic("payments").open().unwrap();
    assert_eq!(both.assignment().len(), 7);
    let mut consumers = vec![open(&log), open(&log)];
    both.poll(Duration::ZERO).unwrap();
    settle(&mut consumers);
    let of_orders = |consumer: &Consumer| consumer.assignment().iter().filter(|it| it.0 == "orders").count();
    assert_eq!(both.assignment().len() - of_orders(&both), 3, "nobody else wants payments");
    let mut sizes = [of_orders(&both), of_orders(&consumers[0]), of_orders(&consumers[1])];
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 2]);
    drop(consumers);
    both.poll(Duration::ZERO).unwrap();
    assert_eq!(both.assignment().len(), 7);
    drop(both);
    assert_eq!(open(&log).assignment().len(), 4);
}

#[test]
fn a_deleted_topic_is_lost() {
    let log = log();
    topic(&log, "orders", 2);
    topic(&log, "payments", 1);
    let told = Told::default();
    let mut consumer = builder(&log).topic("payments").on_rebalance(told.callback()).open().unwrap();
    consumer.poll(Duration::ZERO).unwrap();
    told.take();
    log.delete_topic("orders").unwrap();
    consumer.commit().unwrap();
    assert_eq!(consumer.commit_offsets([("orders", 0, 0)]).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(told.take(), [(RebalanceKind::Lost, places(0..2))]);
    consumer.poll(Duration::ZERO).unwrap();
    assert_eq!(consumer.assignment(), [("payments".to_owned(), 0)]);
}

#[test]
fn a_record_of_a_deleted_topic_commits_nothing_in_its_successor() {
    let log = log();
    append(&topic(&log, "orders", 1), 0, 5);
    let mut consumer = open(&log);
    let batch = consumer.poll(LONG).unwrap();
    log.delete_topic("orders").unwrap();
    append(&topic(&log, "orders", 1), 0, 5);
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::UnknownTopic);
    let of_successor = consumer.poll(LONG).unwrap();
    for record in &batch {
        assert_eq!(consumer.commit_through(&record).unwrap_err().kind(), ErrorKind::UnknownTopic);
        assert_eq!(
            consumer.commit_through(&record.to_owned().as_record_ref()).unwrap_err().kind(),
            ErrorKind::UnknownTopic
        );
    }
    assert_eq!(consumer.committed("orders", 0).unwrap(), None);
    consumer.commit_through(&of_successor.iter().next().unwrap()).unwrap();
}

#[test]
fn a_record_of_a_topic_that_was_deleted_in_other_hands_commits_nothing_in_its_successor() {
    let log = log();
    let names = ["orders", "payments"];
    names.iter().for_each(|name| append(&topic(&log, name, 1), 0, 5));
    let join = || log.consumer("billing").topics(names).open().unwrap();
    let mut consumer = join();
    let batch = consumer.poll(LONG).unwrap();
    let mut other = join();
    for _ in 0..2 {
        drain(&mut consumer);
        drain(&mut other);
    }
    // The other consumer has the whole topic when that is deleted.
    let [(given, 0)] = &other.assignment()[..] else { panic!("one partition each") };
    let record = batch.iter().find(|record| record.topic() == given).unwrap().to_owned();
    let record = record.as_record_ref();
    assert_eq!(consumer.commit_through(&record).unwrap_err().kind(), ErrorKind::Fenced);
    log.delete_topic(given).unwrap();
    assert_eq!(consumer.commit_through(&record).unwrap_err().kind(), ErrorKind::UnknownTopic);
    append(&topic(&log, given, 1), 0, 10);
    drop(other);
    let of_successor = consumer.poll(LONG).unwrap();
    assert_eq!(of_successor.len(), 10);
    assert_eq!(consumer.commit_through(&record).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(consumer.committed(given, 0).unwrap(), None);
    consumer.commit_through(&of_successor.iter().next().unwrap()).unwrap();
    // Also one that a reader had.
    let reader = log.topic(given).unwrap().partition(0).unwrap();
    consumer.commit_through(&reader.read_from(3).unwrap().next().unwrap().unwrap().as_record_ref()).unwrap();
    assert_eq!(consumer.committed(given, 0).unwrap(), Some(4));
}

/// Copies a folder as it lies there, which is what a killed process leaves.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_group_goes_on_after_its_process_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let (lives, killed) = (dir.path().join("lives"), dir.path().join("killed"));
    let log = Log::open(&lives).unwrap();
    let orders = topic(&log, "orders", 4);
    (0..4).for_each(|partition| append(&orders, partition, 10));
    let mut consumers = [open(&log), open(&log)];
    for _ in 0..2 {
        consumers.iter_mut().for_each(|consumer| drop(drain(consumer)));
    }
    consumers[0].commit().unwrap();
    let committed = numbers(&consumers[0]);
    let generation = consumers[0].generation();
    copy(&lives, &killed);

    let log = Log::open(&killed).unwrap();
    let mut consumer = open(&log);
    assert_eq!(consumer.assignment(), places(0..4), "nobody is asked to give anything away");
    assert_eq!(consumer.generation(), generation + 1);
    let again: BTreeSet<u32> = drain(&mut consumer).into_iter().map(|(partition, _)| partition).collect();
    assert_eq!(again, (0..4).filter(|partition| !committed.contains(partition)).collect());
    log.close().unwrap();
}

#[test]
fn a_closed_log_ends_all_consumers_of_a_group() {
    let log = log();
    topic(&log, "orders", 4);
    let mut consumers = vec![open(&log), open(&log)];
    settle(&mut consumers);
    log.close().unwrap();
    for mut consumer in consumers {
        assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Closed);
        assert_eq!(consumer.commit().unwrap_err().kind(), ErrorKind::Closed);
        drop(consumer);
    }
}
