use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    task::{Poll, Wake, Waker},
    thread,
    time::Duration,
};

use super::*;
use crate::{partition::DurableWait, segment_header::DATA_START, storage::sim::faults::Operation};

/// Counts its wakes.
#[derive(Default)]
struct Woken(AtomicU64);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Waits that were polled once and are pending, all with one waker.
fn pending(partition: &Arc<PartitionLog>, offsets: impl IntoIterator<Item = u64>) -> (Vec<DurableWait>, Arc<Woken>) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let poll = |offset| {
        let mut wait = DurableWait::new(partition.clone(), offset);
        assert!(wait.poll(&waker).is_pending(), "{offset}");
        wait
    };
    (offsets.into_iter().map(poll).collect(), woken)
}

fn outcome(wait: &mut DurableWait) -> Result<()> {
    match wait.poll(Waker::noop()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => panic!("it is pending"),
    }
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "log")
}

/// Lets no sync of a segment go on before it is told to.
fn hold_syncs(machine: &Machine) -> (Arc<AtomicU64>, Arc<AtomicBool>) {
    let (began, may_end) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    machine.storage.fail_if({
        let (began, may_end) = (began.clone(), may_end.clone());
        move |operation, path| {
            if operation == Operation::SyncData && is_log(path) {
                began.fetch_add(1, Ordering::SeqCst);
                wait_until("the test goes on", || may_end.load(Ordering::SeqCst));
            }
            None
        }
    });
    (began, may_end)
}

#[test]
fn many_waits_share_one_sync_also_of_records_that_nobody_would_flush() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..500);
    machine.storage.take_trace();
    let (mut waits, woken) = pending(&partition, 0..1);
    let (mut more, woken_too) = pending_or_done(&partition, 1..500);
    wait_until("the first is woken", || woken.times() == 1);
    waits.append(&mut more);
    waits.iter_mut().for_each(|wait| outcome(wait).unwrap());
    let syncs = machine.storage.take_trace();
    assert_eq!(syncs.iter().filter(|it| it.operation == Operation::SyncData && is_log(&it.path)).count(), 1);
    assert!(woken_too.times() < 500, "each at most once");
    assert_eq!((partition.durable_offset(), partition.control.has_sleepers()), (500, false));
}

/// As [`pending`], but by then all may be on the device.
fn pending_or_done(
    partition: &Arc<PartitionLog>,
    offsets: impl IntoIterator<Item = u64>,
) -> (Vec<DurableWait>, Arc<Woken>) {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    let poll = |offset| {
        let mut wait = DurableWait::new(partition.clone(), offset);
        assert!(!matches!(wait.poll(&waker), Poll::Ready(Err(_))), "{offset}");
        wait
    };
    (offsets.into_iter().map(poll).collect(), woken)
}

#[test]
fn a_wait_ends_only_behind_the_sync_and_what_was_awaited_survives_the_power_cut() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..20);
    let (began, may_end) = hold_syncs(&machine);
    let (mut waits, woken) = pending(&partition, [0, 19]);
    wait_until("a sync begins", || began.load(Ordering::SeqCst) == 1);
    // Too late for this one.
    let synced = partition.control.committed().file_position();
    append_numbers(&partition, 20..30);
    let (mut later, woken_later) = pending(&partition, [20, 29]);
    assert!(waits.iter_mut().all(|wait| wait.poll(Waker::noop()).is_pending()));
    assert_eq!((woken.times(), partition.durable_offset()), (0, 0));
    // The waker that was given last is the one that counts.
    let last = Arc::new(Woken::default());
    assert!(waits[0].poll(&Waker::from(last.clone())).is_pending());
    may_end.store(true, Ordering::SeqCst);
    wait_until("the first are woken", || last.times() == 1);
    waits.iter_mut().for_each(|wait| outcome(wait).unwrap());
    wait_until("the others are woken", || woken_later.times() == 2);
    later.iter_mut().for_each(|wait| outcome(wait).unwrap());
    assert_eq!((began.load(Ordering::SeqCst), woken.times()), (2, 0));
    drop((waits, later));

    // What the first sync has covered, and nothing else.
    drop(partition);
    machine.storage.heal();
    machine.reboot();
    let path = machine.segments().pop().unwrap();
    let len = machine.read_file(&path).len() as u64;
    assert!(synced > DATA_START);
    machine.cut_file(&path, synced);
    machine.cut_file(&path, len);
    let (partition, _) = machine.open();
    expected.truncate(20);
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

#[test]
fn an_offset_that_isnt_appended_yet_is_waited_for_too() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3);
    let (mut waits, woken) = pending(&partition, [3, 5, 1000]);
    assert!(partition.control.has_sleepers());
    append_numbers(&partition, 3..4);
    wait_until("the first is woken", || woken.times() == 1);
    outcome(&mut waits[0]).unwrap();
    append_numbers(&partition, 4..6);
    wait_until("the second is woken", || woken.times() == 2);
    outcome(&mut waits[1]).unwrap();
    assert!(waits[2].poll(Waker::noop()).is_pending() && partition.control.has_sleepers());
    waits.pop();
    assert!(!partition.control.has_sleepers());
    // Of one whose record is there, appends know nothing.
    let (began, may_end) = hold_syncs(&machine);
    append_numbers(&partition, 6..7);
    let (wait, _) = pending(&partition, [6]);
    assert!(!partition.control.has_sleepers());
    may_end.store(true, Ordering::SeqCst);
    drop(wait);
    partition.flush().unwrap();
    assert!(began.load(Ordering::SeqCst) > 0);
}

#[test]
fn poison_ends_all_waits_but_for_what_is_durable() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..2);
    partition.flush().unwrap();
    append_numbers(&partition, 2..5);
    let (_, may_end) = hold_syncs(&machine);
    machine.storage.fail_syncs(u64::MAX);
    let (mut waits, woken) = pending(&partition, [2, 4, 5, u64::MAX]);
    may_end.store(true, Ordering::SeqCst);
    wait_until("all are woken", || woken.times() == 4);
    for wait in &mut waits {
        assert_eq!(outcome(wait).unwrap_err().kind(), ErrorKind::Poisoned);
    }
    outcome(&mut DurableWait::new(partition.clone(), 1)).unwrap();
    assert_eq!(partition.wait_durable(2, Duration::MAX).unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(!partition.control.has_sleepers());
}

#[test]
fn closing_ends_all_waits_and_those_that_it_makes_durable_well() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..5);
    let (began, may_end) = hold_syncs(&machine);
    let (mut waits, woken) = pending(&partition, [0, 4, 5, u64::MAX]);
    wait_until("a sync begins", || began.load(Ordering::SeqCst) == 1);
    thread::scope(|scope| {
        scope.spawn(|| partition.close().unwrap());
        wait_until("it is closing", || partition.is_closed());
        // It is not over yet.
        assert!(waits.iter_mut().all(|wait| wait.poll(&Waker::from(woken.clone())).is_pending()));
        may_end.store(true, Ordering::SeqCst);
    });
    assert_eq!(woken.times(), 4);
    let outcomes: Vec<_> = waits.iter_mut().map(|wait| outcome(wait).map_err(|error| error.kind())).collect();
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(ErrorKind::Closed), Err(ErrorKind::Closed)]);
    assert_eq!(partition.wait_durable(5, Duration::MAX).unwrap_err().kind(), ErrorKind::Closed);
    assert!(partition.wait_durable(4, Duration::ZERO).unwrap());
}

#[test]
fn deletion_ends_all_waits() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    let (mut waits, woken) = pending(&partition, [1, u64::MAX]);
    thread::scope(|scope| {
        let blocked = scope.spawn(|| partition.wait_durable(7, Duration::MAX));
        partition.delete();
        assert_eq!(blocked.join().unwrap().unwrap_err().kind(), ErrorKind::UnknownTopic);
    });
    assert_eq!(woken.times(), 2);
    waits.iter_mut().for_each(|wait| assert_eq!(outcome(wait).unwrap_err().kind(), ErrorKind::UnknownTopic));
}

#[test]
fn a_wait_that_is_dropped_leaves_nothing_behind() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let (waits, woken) = pending(&partition, (0..10_000).map(|number| number % 77));
    assert!(Arc::strong_count(&woken) > 10_000);
    drop(waits);
    assert_eq!((Arc::strong_count(&woken), partition.control.has_sleepers()), (1, false));
    assert_eq!(Arc::strong_count(&partition), 1);
    append_numbers(&partition, 0..100);
    assert_eq!((woken.times(), partition.durable_offset()), (0, 0), "nobody asks for a flush any more");
}

#[test]
fn a_thread_waits_no_longer_than_it_wants() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    assert!(!partition.wait_durable(0, Duration::ZERO).unwrap());
    assert!(!partition.wait_durable(0, Duration::from_millis(5)).unwrap());
    append_numbers(&partition, 0..1);
    assert!(partition.wait_durable(0, Duration::from_secs(60)).unwrap());
    thread::scope(|scope| {
        let blocked = scope.spawn(|| partition.wait_durable(1, Duration::MAX));
        wait_until("it sleeps", || partition.control.has_sleepers());
        append_numbers(&partition, 1..2);
        assert!(blocked.join().unwrap().unwrap());
    });
    assert!(!partition.control.has_sleepers());
}

#[test]
fn no_wake_up_is_lost_between_appends_syncs_rolls_and_waits() {
    for positional_appends in [false, true] {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        let partition = &partition;
        thread::scope(|scope| {
            let waiting = |thread: u64| {
                move || {
                    for number in 0..1000_u64 {
                        let at = partition.append(&Record::new("x".repeat(100)), None).unwrap();
                        if number % 300 == 17 {
                            partition.roll().unwrap();
                        }
                        // One's own record, one that will come, one that was there before.
                        let offset = at.saturating_add_signed([0, 1, -1][(number + thread) as usize % 3]);
                        assert!(partition.wait_durable(offset, Duration::from_secs(60)).unwrap(), "{offset}");
                        assert!(partition.durable_offset() > offset);
                    }
                }
            };
            let threads = [scope.spawn(waiting(0)), scope.spawn(waiting(1))];
            // Somebody appends what they wait for, when nobody else does.
            while !threads.iter().all(|thread| thread.is_finished()) {
                append_numbers(partition, 0..1);
                thread::sleep(Duration::from_micros(50));
            }
        });
        assert!(!partition.control.has_sleepers());
    }
}

/// Does something once, when it is woken.
struct Does<F>(F);

impl<F: Fn() + Send + Sync> Wake for Does<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// Runs the body in a thread of its own: whether it ends.
fn ends(body: impl FnOnce() + Send + 'static) -> bool {
    let thread = thread::spawn(body);
    let start = std::time::Instant::now();
    while !thread.is_finished() && start.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(1));
    }
    thread.is_finished() && thread.join().is_ok()
}

#[test]
fn a_task_that_is_woken_by_a_removal_may_close_or_delete_the_partition() {
    type Removal = fn(&PartitionLog);
    let (delete, close): (Removal, Removal) = (|partition| partition.delete(), |partition| drop(partition.close()));
    let more: Removal = |partition| drop(partition.delete_segments_before(3));
    for (poisoned, then) in [false, true].into_iter().flat_map(|it| [close, delete, more].map(|then| (it, then))) {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..10);
        // So that whoever removes is the one to sync.
        partition.env.flusher.stop();
        let waker = Waker::from(Arc::new(Does({
            let partition = partition.clone();
            move || then(&partition)
        })));
        let mut wait = DurableWait::new(partition.clone(), 3);
        assert!(wait.poll(&waker).is_pending());
        if poisoned {
            machine.storage.fail_syncs(1);
        }
        assert!(ends({
            let partition = partition.clone();
            move || drop(partition.delete_records(10))
        }));
    }
}

#[test]
fn a_waker_that_panics_harms_nobody_else() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    let (_, may_end) = hold_syncs(&machine);
    let mut panicking = DurableWait::new(partition.clone(), 1);
    assert!(panicking.poll(&Waker::from(Arc::new(Does(|| panic!("on purpose"))))).is_pending());
    let (mut waits, woken) = pending(&partition, [2]);
    may_end.store(true, Ordering::SeqCst);
    wait_until("the other is woken", || woken.times() == 1);
    outcome(&mut waits[0]).unwrap();
    // The thread that has called it goes on too.
    append_numbers(&partition, 10..11);
    assert!(partition.wait_durable(10, Duration::from_secs(60)).unwrap());
}

#[test]
fn who_asks_for_a_flush_at_once_leaves_the_interval_as_it_was() {
    let machine = Machine::new();
    machine.change(|settings| settings.durability = Durability::Interval(Duration::from_secs(3600)));
    let (partition, _) = machine.open();
    for number in 0..100 {
        append_numbers(&partition, number..number + 1);
        assert!(partition.wait_durable(number, Duration::from_secs(60)).unwrap());
    }
    // Each visit lets the next append ask for another: were there more than one, there would be as many for ever.
    assert_eq!(partition.env.flusher.visits(), 1);
}

#[test]
fn a_task_that_is_woken_where_room_is_made_may_need_room_itself() {
    let machine = Machine::new();
    let env = Environment {
        storage: Arc::new(machine.storage.clone()),
        clock: Clock::Manual(machine.now_ms.clone()),
        flusher: Flusher::new(Default::default()),
        prefaulter: Arc::default(),
        recent_segments: Arc::default(),
        open_files: OpenFiles::bounded(1, machine.storage.clone()),
        figures: Default::default(),
        positional_appends: false,
        mapped_after: 0,
    };
    let open = |number: u32| {
        let spec = PartitionSpec { number, ..machine.spec.clone() };
        PartitionLog::open(&env, &machine.dir.with_file_name(format!("orders-{number}")), spec).unwrap().0
    };
    let [first, second, third] = [0, 1, 2].map(open);
    env.flusher.stop();
    append_numbers(&first, 0..1);
    let waker = Waker::from(Arc::new(Does({
        let third = third.clone();
        move || drop(append_numbers(&third, 0..1))
    })));
    let mut wait = DurableWait::new(first.clone(), 0);
    assert!(wait.poll(&waker).is_pending());
    assert!(ends(move || drop(append_numbers(&second, 0..1))));
    outcome(&mut wait).unwrap();
    assert_eq!(third.end_offset(), 1);
}
