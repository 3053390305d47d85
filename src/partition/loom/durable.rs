//! Waiting for the device: who waits is woken once the record is there, and a flush is asked for.

use std::{task::Poll, time::Duration};

use super::{
    super::{DurableWait, control},
    publish::weaken,
    *,
};

/// One thread appends what another waits for. Whoever comes last asks for the flush.
fn wait_ahead(mistakes: &[(usize, Mistake)]) {
    let world = World::new();
    weaken(&world.partition, mistakes);
    let (task, waker) = Task::new();
    explore();
    let appender = world.spawn(|partition| append(partition, "first"));
    let mut wait = DurableWait::new(world.partition.clone(), 0);
    let pending = wait.poll(&waker).is_pending();
    appender.join().expect("an append");
    assert!(pending, "nobody has flushed");
    world.flusher.step();
    assert!(task.is_woken(), "a flush that nobody asked for");
    assert!(matches!(wait.poll(&waker), Poll::Ready(Ok(()))));
    drop(wait);
    assert!(!world.partition.control.has_sleepers(), "a sleeper that is gone");
}

#[test]
fn an_append_that_is_awaited_is_flushed() {
    check("wait_ahead", || wait_ahead(&[]));
}

#[test]
#[should_panic(expected = "a flush that nobody asked for")]
fn a_count_that_only_releases_loses_a_flush() {
    check("mistake:awaited_count_releases", || wait_ahead(&[(control::SLEEPERS, Mistake::AcquireRelease)]));
}

/// One thread syncs what another begins to wait for.
#[test]
fn a_sync_wakes_who_waits() {
    check("wait_while_syncing", || {
        let world = World::new();
        append(&world.partition, "first");
        let (task, waker) = Task::new();
        explore();
        let syncing = world.spawn(|partition| partition.flush().expect("a flush"));
        let mut wait = DurableWait::new(world.partition.clone(), 0);
        let pending = wait.poll(&waker).is_pending();
        syncing.join().expect("a flush");
        assert!(!pending || task.is_woken(), "a lost wake-up");
        assert!(matches!(wait.poll(&waker), Poll::Ready(Ok(()))));
    });
}

/// One thread syncs while another reads how far that has come, as who raises the log start does, for the checkpoint.
fn mark(mistaken: bool) {
    let world = World::new();
    let before = world.partition.durable_mark();
    append(&world.partition, "first");
    explore();
    let syncing = world.spawn(|partition| partition.flush().expect("a flush"));
    let found = if mistaken {
        let offset = world.partition.durable_offset();
        (world.partition.control.durable(), offset)
    } else {
        world.partition.durable_mark()
    };
    syncing.join().expect("a flush");
    let after = world.partition.durable_mark();
    assert!(before.1 < after.1 && before.0 < after.0);
    assert!(found == before || found == after, "an offset that isn't the place's");
}

#[test]
fn the_durable_place_and_its_offset_belong_together() {
    check("durable_mark", || mark(false));
}

#[test]
#[should_panic(expected = "an offset that isn't the place's")]
fn read_without_the_lock_they_may_not() {
    check("mistake:durable_mark_without_lock", || mark(true));
}

/// Two waits for the same flush, one of which is given up meanwhile.
#[test]
fn who_gives_up_takes_no_wake_up_along() {
    check("wait_given_up", || {
        let world = World::new();
        let (task, waker) = Task::new();
        let mut other = DurableWait::new(world.partition.clone(), 0);
        let (_, other_waker) = Task::new();
        assert!(other.poll(&other_waker).is_pending());
        explore();
        let appender = world.spawn(|partition| append(partition, "first"));
        let giving_up = spawn(move || drop(other));
        let mut wait = DurableWait::new(world.partition.clone(), 0);
        assert!(wait.poll(&waker).is_pending());
        appender.join().expect("an append");
        giving_up.join().expect("a wait that is dropped");
        world.flusher.step();
        assert!(task.is_woken(), "a flush that nobody asked for");
    });
}

/// One record is synced while what another wait is for is appended: who wakes the first takes nothing from the second.
#[test]
fn who_is_woken_takes_no_flush_along() {
    check("wait_behind_a_sync", || {
        let world = World::new();
        append(&world.partition, "first");
        let (first, first_waker) = Task::new();
        let (second, second_waker) = Task::new();
        let mut wait = DurableWait::new(world.partition.clone(), 0);
        let mut ahead = DurableWait::new(world.partition.clone(), 1);
        assert!(wait.poll(&first_waker).is_pending() && ahead.poll(&second_waker).is_pending());
        explore();
        let appender = world.spawn(|partition| append(partition, "second"));
        world.flusher.step();
        appender.join().expect("an append");
        assert!(first.is_woken(), "a lost wake-up");
        world.flusher.step();
        assert!(second.is_woken(), "a flush that nobody asked for");
    });
}

/// A group of two: one syncs, and the other waits for it, or syncs what the first one missed.
#[test]
fn synced_appends_wait_for_each_other() {
    check("group_commit", || {
        let world = World::with(|values| values.durability = Durability::Synced);
        explore();
        let one = world.spawn(|partition| {
            let offset = append(partition, "one");
            assert!(partition.durable_offset() > offset);
        });
        let offset = append(&world.partition, "two");
        assert!(world.partition.durable_offset() > offset);
        one.join().expect("an append");
    });
}

/// A flush is due for each append, whether one is pending already or its visit is just beginning.
fn flush_is_due(mistaken: bool) {
    let world = World::with(|values| values.durability = Durability::Interval(Duration::ZERO));
    append(&world.partition, "first");
    world.partition.flush().expect("a flush");
    assert_eq!(world.flusher.visits(), 1);
    if mistaken {
        world.partition.pending_interval.weaken(Mistake::AcquireRelease);
    }
    explore();
    let appender = world.spawn(|partition| append(partition, "second"));
    world.flusher.step();
    appender.join().expect("an append");
    let durable = world.partition.durable_offset() == 2;
    assert!(durable || world.flusher.visits() > 0, "an append that is never flushed");
}

#[test]
fn every_append_has_a_flush_due() {
    check("flush_is_due", || flush_is_due(false));
}

#[test]
#[should_panic(expected = "an append that is never flushed")]
fn a_reset_that_only_releases_loses_a_flush() {
    check("mistake:reset_releases", || flush_is_due(true));
}
