//! Coming, going and ending: who watches is woken whoever else stops watching, and by the partition's end.

use super::*;
use crate::{changes::Changes, waiter::Waiter};

/// One thread appends while another begins to watch and a third one stops.
#[test]
fn who_stops_watching_takes_no_wake_up_along() {
    check("unwatch", || {
        let world = World::new();
        let (gone, waiter) = (Arc::new(Waiter::default()), Arc::new(Waiter::default()));
        world.partition.watch(&gone);
        let cursor = Cursor::new(&world.partition, 0).expect("in range");
        explore();
        let appender = world.spawn(|partition| append(partition, "first"));
        let leaver = world.spawn(move |partition| partition.unwatch(&gone));
        let ticket = waiter.ticket();
        world.partition.watch(&waiter);
        let asleep = cursor.at_end();
        appender.join().expect("an append");
        leaver.join().expect("no more to watch");
        assert!(!asleep || waiter.ticket() != ticket, "a lost wake-up");
        world.partition.unwatch(&waiter);
        assert!(!world.partition.control.has_sleepers());
    });
}

/// A partition is deleted while somebody goes to sleep at its end.
fn deletion(mistaken: bool) {
    let world = World::new();
    let cursor = Cursor::new(&world.partition, 0).expect("in range");
    let waiter = Arc::new(Waiter::default());
    if mistaken {
        world.partition.life.weaken(Mistake::AcquireRelease);
        // Between the deletion and the look for sleepers it wakes those who wait for a sync, which would order the two.
        world.partition.synced.weaken(Mistake::AcquireRelease);
    }
    explore();
    let deleter = world.spawn(|partition| partition.delete());
    let ticket = waiter.ticket();
    world.partition.watch(&waiter);
    let asleep = cursor.at_end();
    deleter.join().expect("a deletion");
    assert!(!asleep || waiter.ticket() != ticket, "a lost wake-up");
}

#[test]
fn a_deletion_wakes_who_sleeps() {
    check("delete", || deletion(false));
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn a_deletion_that_only_releases_loses_a_wake_up() {
    check("mistake:deletion_releases", || deletion(true));
}

/// A partition is closed while one thread appends and another begins to wait for the device.
#[test]
fn a_close_ends_every_wait() {
    check("close", || {
        let world = World::new();
        let (task, waker) = Task::new();
        explore();
        let closer = world.spawn(|partition| partition.close().expect("a close"));
        let mut wait = super::super::DurableWait::new(world.partition.clone(), 0);
        let pending = wait.poll(&waker).is_pending();
        closer.join().expect("a close");
        assert!(!pending || task.is_woken(), "a lost wake-up");
        assert!(wait.poll(&waker).is_ready());
    });
}

/// The log is closed while a consumer goes to sleep.
fn changes(watch_first: bool) {
    let (changes, waiter) = (Arc::new(Changes::default()), Arc::new(Waiter::default()));
    explore();
    let closer = spawn({
        let changes = changes.clone();
        move || changes.close()
    });
    let ticket = waiter.ticket();
    let mut closed = !watch_first && changes.is_closed();
    changes.watch(&waiter);
    if watch_first {
        closed = changes.is_closed();
    }
    closer.join().expect("a close");
    assert!(closed || waiter.ticket() != ticket, "a lost wake-up");
}

#[test]
fn a_log_that_closes_wakes_who_sleeps() {
    check("changes", || changes(true));
}

#[test]
#[should_panic(expected = "a lost wake-up")]
fn a_look_at_changes_before_the_watch_loses_a_wake_up() {
    check("mistake:look_at_changes_first", || changes(false));
}

/// A task registers again while its first registration is being woken.
#[test]
fn a_task_that_registers_again_is_woken_again() {
    check("register_again", || {
        let waiter = Arc::new(Waiter::default());
        let told = Arc::new(crate::sync::AtomicU64::new(0));
        let (_, before) = Task::new();
        waiter.register(&before);
        explore();
        let waker = spawn({
            let (waiter, told) = (waiter.clone(), told.clone());
            move || {
                for _ in 0..2 {
                    told.fetch_add(1, Ordering::SeqCst);
                    Waiter::wake(&waiter);
                }
            }
        });
        let (task, again) = Task::new();
        waiter.register(&again);
        let seen = told.load(Ordering::SeqCst);
        waker.join().expect("two wakes");
        assert!(seen == 2 || task.is_woken(), "a lost wake-up");
    });
}
