//! Publish, and who sleeps until something is published: no wake-up is lost, and only whole frames are seen.

use std::time::Duration;

use super::{super::control, *};
use crate::waiter::Waiter;

/// What a sleeper does first.
#[derive(Clone, Copy)]
enum First {
    Watch,
    /// Wrong: what is appended in between wakes nobody.
    Look,
}

/// One thread appends; another finds the end of the log and would sleep. It has read the log's first record by then
/// (and knows its place, which it compares with the commit word), or hasn't (and compares offsets).
fn sleeper(first: First, has_read: bool, mistakes: &[(usize, Mistake)]) {
    let world = World::new();
    append(&world.partition, "first");
    let mut cursor = Cursor::new(&world.partition, if has_read { 0 } else { 1 }).expect("in range");
    if has_read {
        assert_eq!(read_on(&mut cursor), ["first"]);
    }
    let waiter = Arc::new(Waiter::default());
    weaken(&world.partition, mistakes);
    explore();
    let appender = world.spawn(|partition| append(partition, "second"));
    let mut asleep = match first {
        First::Watch => true,
        First::Look => cursor.at_end(),
    };
    let ticket = waiter.ticket();
    world.partition.watch(&waiter);
    if matches!(first, First::Watch) {
        asleep = cursor.at_end();
    }
    appender.join().expect("an append");
    assert!(!asleep || waiter.ticket() != ticket, "a lost wake-up");
    assert!(!cursor.at_end());
}

/// The same with a task in place of the thread.
fn sleeping_task(mistakes: &[(usize, Mistake)]) {
    let world = World::new();
    let cursor = Cursor::new(&world.partition, 0).expect("in range");
    let waiter = Arc::new(Waiter::default());
    let (task, waker) = Task::new();
    weaken(&world.partition, mistakes);
    explore();
    let appender = world.spawn(|partition| append(partition, "first"));
    waiter.register(&waker);
    world.partition.watch(&waiter);
    let asleep = cursor.at_end();
    appender.join().expect("an append");
    assert!(!asleep || task.is_woken(), "a lost wake-up");
}

pub(super) fn weaken(partition: &PartitionLog, mistakes: &[(usize, Mistake)]) {
    for (word, mistake) in mistakes {
        partition.control.word(*word).weaken(*mistake);
    }
}

#[test]
fn an_append_wakes_who_sleeps_at_a_place() {
    check("sleeper_at_a_place", || sleeper(First::Watch, true, &[]));
}

#[test]
fn an_append_wakes_who_sleeps_at_an_offset() {
    check("sleeper_at_an_offset", || sleeper(First::Watch, false, &[]));
}

#[test]
fn an_append_wakes_a_task() {
    check("sleeping_task", || sleeping_task(&[]));
}

/// Here the sleeper sleeps: that it is never woken would be a deadlock.
#[test]
fn a_thread_that_sleeps_is_woken() {
    check("sleeps", || {
        let world = World::new();
        let cursor = Cursor::new(&world.partition, 0).expect("in range");
        let waiter = Arc::new(Waiter::default());
        explore();
        let appender = world.spawn(|partition| append(partition, "first"));
        let mut ticket = waiter.ticket();
        world.partition.watch(&waiter);
        while cursor.at_end() {
            waiter.wait(ticket, Duration::MAX);
            ticket = waiter.ticket();
        }
        appender.join().expect("an append");
    });
}

/// What peers do: publish by a store that releases, and then load the count of sleepers.
#[test]
#[should_panic(expected = "a lost wake-up")]
fn a_publish_that_only_releases_loses_a_wake_up() {
    let mistakes = [(control::COMMIT, Mistake::AcquireRelease), (control::NEXT_OFFSET, Mistake::AcquireRelease)];
    check("mistake:publish_releases", move || sleeper(First::Watch, true, &mistakes));
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn a_count_that_only_releases_loses_a_wake_up() {
    check("mistake:count_releases", || sleeper(First::Watch, true, &[(control::SLEEPERS, Mistake::AcquireRelease)]));
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn a_look_before_the_watch_loses_a_wake_up() {
    check("mistake:look_first", || sleeper(First::Look, true, &[]));
}

/// Two threads append, a third one reads: whole frames, in order, without a gap.
fn reader(mistakes: &[(usize, Mistake)]) {
    let world = World::new();
    append(&world.partition, "first");
    weaken(&world.partition, mistakes);
    explore();
    let appender = world.spawn(|partition| append(partition, "second"));
    let mut cursor = Cursor::new(&world.partition, 0).expect("in range");
    let mut found = read_on(&mut cursor);
    appender.join().expect("an append");
    found.extend(read_on(&mut cursor));
    assert_eq!(found, ["first", "second"]);
}

#[test]
fn a_reader_sees_whole_frames() {
    check("reader", || reader(&[]));
}

#[test]
#[should_panic(expected = "Causality violation")]
fn a_publish_that_releases_nothing_shows_half_a_frame() {
    check("mistake:publish_relaxed", || reader(&[(control::COMMIT, Mistake::RelaxedStores)]));
}
