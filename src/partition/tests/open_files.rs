//! Handles that are closed and opened again: when, when not, and what becomes of appends where there are none.

use std::{io, sync::atomic::AtomicBool, thread, time::Duration};

use super::*;
use crate::{
    housekeeper::Chore,
    partition::{Opening, RecentSegments},
    storage::sim::{Repeat, faults::Operation},
};

/// Some partitions that share their descriptors.
struct Bench {
    machine: Machine,
    env: Environment,
}

impl Bench {
    fn new(max_open_files: usize, positional_appends: bool) -> Self {
        let machine = Machine { positional_appends, ..Machine::new() };
        let env = Environment {
            storage: Arc::new(machine.storage.clone()),
            clock: Clock::Manual(machine.now_ms.clone()),
            flusher: Flusher::new(Default::default()),
            prefaulter: Arc::default(),
            recent_segments: Arc::new(RecentSegments::with_capacity(2)),
            open_files: OpenFiles::bounded(max_open_files, machine.storage.clone()),
            figures: Default::default(),
            positional_appends,
            mapped_after: 0,
        };
        Self { machine, env }
    }

    fn open(&self, number: u32) -> (Arc<PartitionLog>, PartitionRecovery) {
        let dir = PathBuf::from(format!("/data/orders-{number}"));
        PartitionLog::open(&self.env, &dir, PartitionSpec { number, ..self.machine.spec.clone() }).unwrap()
    }

    fn partitions(&self, count: u32) -> Vec<Arc<PartitionLog>> {
        (0..count).map(|number| self.open(number).0).collect()
    }

    /// Handles of segments; those of all other files are closed whenever nobody is inside.
    fn handles(&self) -> usize {
        let all = self.machine.storage.open_handles(|_| true);
        let segments = self.machine.storage.open_handles(is_segment);
        assert_eq!((all, self.env.open_files.open()), (segments, segments));
        segments
    }

    #[track_caller]
    fn check_closed(&self, what: &str) {
        let mut closed = self.machine.storage.take_closed_unsynced();
        closed.retain(|path| is_segment(path));
        assert_eq!(closed, [] as [PathBuf; 0], "{what}");
    }
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|it| it == "log")
}

#[test]
fn an_idle_partition_has_no_handle_and_the_next_append_opens_it() {
    for positional_appends in [false, true] {
        let bench = Bench::new(10, positional_appends);
        let (partition, _) = bench.open(0);
        assert_eq!(bench.handles(), 0);
        let mut expected = append_numbers(&partition, 0..10);
        assert_eq!(bench.handles(), 1);
        for _ in 0..3 {
            assert!(bench.env.open_files.run().is_some());
        }
        assert_eq!(bench.handles(), 1, "what was appended isn't on the device");
        partition.flush().unwrap();
        assert_eq!(bench.handles(), 1, "kept for who appends next");
        expected.extend(append_numbers(&partition, 10..20));
        partition.flush().unwrap();
        bench.env.open_files.run();
        assert_eq!(bench.handles(), 1, "something was appended since the last look");
        assert_eq!(bench.env.open_files.run(), None, "nothing is left to look at");
        assert_eq!(bench.handles(), 0);

        expected.extend(append_numbers(&partition, 20..30));
        assert_eq!(bench.handles(), 1);
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        partition.append(&Record::new("synced"), Some(Durability::Synced)).unwrap();
        bench.env.open_files.run();
        bench.env.open_files.run();
        assert_eq!(bench.handles(), 0);
        partition.close().unwrap();
        assert_eq!(bench.handles(), 0);
        bench.check_closed("the end");
        drop(partition);
        let (partition, report) = bench.open(0);
        assert_eq!(report.opening(), Opening::Clean);
        assert_eq!(read_all(&partition, 0).unwrap()[..30], expected);
    }
}

#[test]
fn closing_and_opening_handles_takes_no_more_space() {
    let bench = Bench::new(10, false);
    let (partition, _) = bench.open(0);
    append_numbers(&partition, 0..1);
    let used = bench.machine.storage.used_space();
    for number in 1..20 {
        partition.flush().unwrap();
        assert!(partition.close_clean_handle());
        append_numbers(&partition, number..number + 1);
    }
    assert_eq!(bench.machine.storage.used_space(), used);
}

#[test]
fn a_partition_that_is_idle_rolls_and_goes_on() {
    let bench = Bench::new(10, false);
    let (partition, _) = bench.open(0);
    let mut expected = append_numbers(&partition, 0..10);
    partition.flush().unwrap();
    assert!(partition.close_clean_handle());
    partition.roll().unwrap();
    assert_eq!(bench.handles(), 1, "the new segment's");
    expected.extend(append_numbers(&partition, 10..20));
    partition.flush().unwrap();
    assert_eq!((bench.handles(), partition.durable_offset()), (1, 20));
    let sealed = bench
        .machine
        .storage
        .open(&bench.machine.dir.with_file_name("orders-0").join("00000000000000000000.log"), OpenMode::Read);
    assert!(sealed.unwrap().len().unwrap() < 8192, "the sealed one is trimmed though its handle was closed");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    bench.check_closed("the end");
}

#[test]
fn as_many_handles_are_open_as_the_options_say() {
    for (durability, max) in [(Durability::Written, 3), (Durability::Synced, 3), (Durability::Written, 1)] {
        let bench = Bench::new(max, false);
        bench.machine.change(|settings| settings.durability = durability);
        let partitions = bench.partitions(8);
        let mut expected = vec![Vec::new(); partitions.len()];
        for round in 0..50 {
            for (partition, expected) in partitions.iter().zip(&mut expected) {
                expected.extend(append_numbers(partition, round..round + 1));
                if round % 20 == 7 {
                    partition.roll().unwrap();
                }
                let rolled = usize::from(round % 20 == 7);
                assert!(bench.handles() <= max + rolled, "{} handles", bench.handles());
            }
        }
        for (partition, expected) in partitions.iter().zip(&expected) {
            assert_eq!(read_all(partition, 0).unwrap(), *expected);
            partition.close().unwrap();
        }
        bench.check_closed("the end");
    }
}

#[test]
fn those_that_were_idle_the_longest_go_first_and_clean_ones_before_others() {
    let bench = Bench::new(8, false);
    let partitions = bench.partitions(10);
    let has_handle = |number: usize| {
        let folder = format!("orders-{number}");
        bench.machine.storage.open_handles(|path| path.parent().is_some_and(|dir| dir.ends_with(&folder))) > 0
    };
    for partition in &partitions[..8] {
        append_numbers(partition, 0..1);
    }
    bench.env.open_files.run();
    partitions[5].flush().unwrap();
    append_numbers(&partitions[0], 1..2);
    append_numbers(&partitions[8], 0..1);
    assert_eq!((0..9).filter(|&number| !has_handle(number)).collect::<Vec<_>>(), [5]);
    append_numbers(&partitions[9], 0..1);
    assert_eq!((0..10).filter(|&number| !has_handle(number)).collect::<Vec<_>>(), [1, 5]);
    assert_eq!(partitions[1].durable_offset(), 1);
    assert_eq!(partitions[2].durable_offset(), 0);
}

/// A walk of appends, flushes, rolls and looks over several partitions, in which operations fail.
fn walk(seed: u64, positional_appends: bool) {
    let mut random = seed << 32;
    let mut below = |limit: u64| {
        random += 1;
        crate::mix::split_mix64(0x6669_6c65, random) % limit
    };
    let bench = Bench::new(1 + seed as usize % 4, positional_appends);
    let partitions = bench.partitions(5);
    let mut acknowledged = vec![Vec::new(); partitions.len()];
    for step in 0..400 {
        let what = format!("seed {seed}, positional {positional_appends}, step {step}");
        match below(12) {
            0 => bench.machine.storage.fail_nth(1 + below(6), io::ErrorKind::Other, Repeat::Once),
            1 => bench.machine.storage.run_out_of_files(true),
            2 => bench.machine.storage.heal(),
            _ => {}
        }
        let at = below(partitions.len() as u64) as usize;
        let partition = &partitions[at];
        match below(8) {
            0 => drop(partition.flush()),
            1 => drop(partition.roll()),
            2 | 3 => drop(bench.env.open_files.run()),
            4 => partition.make_room(true),
            how => {
                let value = format!("record {step}");
                let level = if how == 5 { Durability::Synced } else { Durability::Written };
                if let Ok(offset) = partition.append(&Record::new(&*value), Some(level)) {
                    acknowledged[at].push((offset, value));
                }
            }
        }
        bench.check_closed(&what);
    }
    bench.machine.storage.heal();
    for (number, (partition, acknowledged)) in partitions.into_iter().zip(&acknowledged).enumerate() {
        let sound = partition.check_poison().is_ok();
        if sound {
            partition.close().unwrap();
            bench.check_closed(&format!("seed {seed}: closing"));
        }
        let found = read_all(&partition, 0).unwrap();
        assert!(acknowledged.iter().all(|record| found.contains(record)), "seed {seed}, partition {number}");
        drop(partition);
        // A poisoned one is closed with what it has, as a killed process would.
        bench.machine.storage.take_closed_unsynced();
        let (partition, report) = bench.open(number as u32);
        assert_eq!(report.opening() == Opening::Clean, sound, "seed {seed}: {report:?}");
        let found = read_all(&partition, 0).unwrap();
        assert!(acknowledged.iter().all(|record| found.contains(record)), "seed {seed}, partition {number}");
    }
}

#[test]
fn whatever_happens_no_handle_is_closed_with_bytes_that_arent_on_the_device() {
    for seed in 0..40 {
        walk(seed, false);
        walk(seed, true);
    }
}

#[test]
fn handles_are_closed_under_the_hands_of_many_who_append() {
    let bench = Bench::new(2, false);
    let partitions = bench.partitions(4);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let appending: Vec<_> = (0..4)
            .map(|from| {
                let partitions = &partitions;
                scope.spawn(move || {
                    for number in 0..200 {
                        let level = if number % 16 == 0 { Durability::Synced } else { Durability::Written };
                        let partition = &partitions[(from + number) % 4];
                        partition.append(&Record::new(format!("{from} {number}")), Some(level)).unwrap();
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                bench.env.open_files.run();
                thread::yield_now();
            }
        });
        appending.into_iter().for_each(|thread| thread.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let found: usize = partitions.iter().map(|partition| read_all(partition, 0).unwrap().len()).sum();
    assert_eq!(found, 800);
    bench.check_closed("the end");
}

#[test]
fn a_write_that_failed_on_the_way_keeps_its_handle_open_until_a_sync() {
    let bench = Bench::new(10, true);
    let (partition, _) = bench.open(0);
    partition.append(&Record::new("first"), Some(Durability::Synced)).unwrap();
    bench.machine.storage.fail_nth(1, io::ErrorKind::Other, Repeat::Once);
    partition.append(&Record::new("no"), None).unwrap_err();
    assert_eq!(partition.durable_offset(), partition.end_offset());
    assert!(!partition.close_clean_handle());
    partition.append(&Record::new("second"), Some(Durability::Synced)).unwrap();
    assert!(partition.close_clean_handle());
    bench.check_closed("the end");
}

#[test]
fn a_poisoned_partition_keeps_its_handle() {
    let bench = Bench::new(1, false);
    let partitions = bench.partitions(2);
    append_numbers(&partitions[0], 0..1);
    bench.machine.storage.fail_syncs(1);
    partitions[0].flush().unwrap_err();
    assert!(!partitions[0].close_clean_handle());
    // The bound gives way: a partition that is sound isn't held up by one that isn't.
    append_numbers(&partitions[1], 0..1);
    assert_eq!(bench.handles(), 2);
    bench.check_closed("the end");
}

#[track_caller]
fn check_limit<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
}

#[test]
fn without_descriptors_appends_are_refused_and_nothing_is_poisoned() {
    let bench = Bench::new(10, false);
    let partitions = bench.partitions(3);
    let (active, rolled, idle) = (&partitions[0], &partitions[1], &partitions[2]);
    let mut expected = append_numbers(active, 0..10);
    append_numbers(rolled, 0..10);
    rolled.roll().unwrap();
    bench.machine.storage.run_out_of_files(true);
    // What is open takes appends, and is synced.
    expected.push((active.append(&Record::new("yes"), Some(Durability::Synced)).unwrap(), "yes".into()));
    check_limit(active.roll());
    // Behind a roll the folder has to be synced.
    check_limit(rolled.append(&Record::new("not synced"), Some(Durability::Synced)));
    check_limit(rolled.flush());
    assert_eq!(rolled.durable_offset(), 0);
    check_limit(idle.append(&Record::new("no"), None));
    assert_eq!(idle.end_offset(), 0);

    bench.machine.storage.run_out_of_files(false);
    assert_eq!(idle.append(&Record::new("yes"), None).unwrap(), 0);
    for partition in &partitions {
        partition.check_poison().unwrap();
        partition.flush().unwrap();
        assert_eq!(partition.durable_offset(), partition.end_offset());
    }
    assert_eq!(read_all(active, 0).unwrap(), expected);
    assert_eq!(read_all(rolled, 0).unwrap().len(), 11);
    bench.check_closed("the end");
}

#[test]
fn a_flush_that_was_due_comes_once_there_are_descriptors_again() {
    let bench = Bench::new(10, false);
    bench.machine.change(|settings| settings.durability = Durability::Interval(Duration::from_millis(1)));
    let (partition, _) = bench.open(0);
    partition.roll().unwrap();
    append_numbers(&partition, 0..1);
    partition.roll().unwrap();
    bench.machine.storage.run_out_of_files(true);
    partition.append(&Record::new("last"), None).unwrap();
    // Long enough for a visit in vain.
    thread::sleep(Duration::from_millis(20));
    bench.machine.storage.run_out_of_files(false);
    let start = std::time::Instant::now();
    while partition.durable_offset() < partition.end_offset() {
        assert!(start.elapsed() < Duration::from_secs(30), "never flushed");
        thread::yield_now();
    }
}

#[test]
fn closing_without_descriptors_is_an_error_that_loses_nothing() {
    for rolled in [false, true] {
        let bench = Bench::new(10, false);
        let (partition, _) = bench.open(0);
        let mut expected = append_numbers(&partition, 0..10);
        if rolled {
            partition.roll().unwrap();
            expected.extend(append_numbers(&partition, 10..20));
        }
        bench.machine.storage.run_out_of_files(true);
        check_limit(partition.close());
        drop(partition);
        bench.check_closed("closing");
        bench.machine.storage.run_out_of_files(false);
        let (partition, report) = bench.open(0);
        assert_eq!((report.opening(), report.is_clean()), (Opening::Resumed, true), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
    }
}

#[test]
fn reading_without_descriptors_is_an_error_and_goes_on_later() {
    let bench = Bench::new(10, false);
    let (partition, _) = bench.open(0);
    let mut expected = Vec::new();
    for round in 0..5 {
        expected.extend(append_numbers(&partition, round * 10..round * 10 + 10));
        partition.roll().unwrap();
    }
    partition.flush().unwrap();
    bench.env.recent_segments.forget(|_| true);
    let indexes = || bench.machine.storage.list(&partition.dir).unwrap();
    let before = indexes();
    bench.machine.storage.run_out_of_files(true);
    check_limit(read_all(&partition, 7));
    bench.machine.storage.run_out_of_files(false);
    let held = partition.open_segment(&partition.segments.load(), 1).unwrap();
    bench.machine.storage.run_out_of_files(true);
    // The segment is mapped, its index isn't: that is no reason to make a new one.
    let mut cursor = Cursor::new(&partition, 15).unwrap();
    assert_eq!(cursor.next_run(1).unwrap().unwrap().last_offset, 15);
    bench.machine.storage.run_out_of_files(false);
    assert_eq!(indexes(), before);
    drop((cursor, held));
    assert_eq!(read_all(&partition, 7).unwrap(), expected[7..]);
}

#[test]
fn opening_without_descriptors_overlooks_no_mark_of_poison() {
    let bench = Bench::new(10, false);
    let (partition, _) = bench.open(0);
    append_numbers(&partition, 0..5);
    bench.machine.storage.fail_if(|operation, path| match operation {
        Operation::SyncData => Some(io::ErrorKind::Other),
        Operation::Write if path.ends_with("partition.checkpoint") => Some(io::ErrorKind::StorageFull),
        _ => None,
    });
    partition.flush().unwrap_err();
    drop(partition);
    bench.machine.storage.heal();
    bench.machine.storage.run_out_of_files(true);
    let dir = PathBuf::from("/data/orders-0");
    check_limit(crate::partition::control::ControlPage::read_previous(&bench.machine.storage, &dir));
    let spec = PartitionSpec { number: 0, ..bench.machine.spec.clone() };
    check_limit(PartitionLog::open(&bench.env, &dir, spec));
    bench.machine.storage.run_out_of_files(false);
    let (_, report) = bench.open(0);
    assert!(format!("{report:?}").contains("Rewritten"), "{report:?}");
}

#[test]
fn an_index_that_cant_be_opened_to_grow_has_a_gap_and_holds_up_nothing() {
    let bench = Bench::new(10, false);
    bench.machine.change(|settings| settings.segment_bytes = 16 << 20);
    let (partition, _) = bench.open(0);
    let value = vec![b'x'; 4000];
    let append = |count| {
        for _ in 0..count {
            partition.append(&Record::new(&*value), None).unwrap();
        }
    };
    append(400);
    bench.machine.storage.fail_if(|operation, path| {
        let index = operation == Operation::Open && path.extension().is_some_and(|it| it == "index");
        index.then_some(io::ErrorKind::NotFound)
    });
    append(800);
    bench.machine.storage.heal();
    append(2000);
    partition.close().unwrap();
    let entries = partition.writer().unwrap().segment().index().unwrap().last().unwrap();
    assert!(entries.relative_offset > 3190, "{entries:?}");
    for offset in [0, 300, 600, 1000, 1300, 2000, 3199] {
        let run = Cursor::new(&partition, offset).unwrap().next_run(1).unwrap().unwrap();
        assert_eq!(run.last_offset, offset);
    }
    drop(partition);
    assert_eq!(read_all(&bench.open(0).0, 0).unwrap().len(), 3200);
}
