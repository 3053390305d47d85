use std::{
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    partition::{RecentSegments, control::LogPosition, writer::SCRATCH_BYTES},
    segment_header::DATA_START,
    storage::sim::faults::Operation,
};

#[test]
fn records_come_back_in_order_over_many_segments() {
    for positional_appends in [false, true] {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..5000);
        assert!(machine.segments().len() >= 5, "{:?}", machine.segments());
        assert_eq!(expected.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..5000).collect::<Vec<_>>());
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        for start in [1, 63, 64, 999, 2500, 4999] {
            assert_eq!(read_all(&partition, start).unwrap(), expected[start as usize..]);
        }
        assert_eq!(read_all(&partition, 5000).unwrap(), []);
    }
}

#[test]
fn a_partition_keeps_no_memory_of_its_largest_frame() {
    let machine = Machine { positional_appends: true, ..Machine::new() };
    let (partition, _) = machine.open();
    let value = vec![b'x'; 1 << 20];
    partition.append(&Record::new(&value[..1000]), None).unwrap();
    let kept = || partition.writer().unwrap().scratch.capacity();
    assert!((1000..SCRATCH_BYTES).contains(&kept()), "small frames don't allocate each time");
    partition.append(&Record::new(&*value).key("x"), None).unwrap_err();
    partition.append(&Record::new(&value[1..]), None).unwrap();
    assert!(kept() <= SCRATCH_BYTES, "{} bytes", kept());
    // Nor of one that couldn't be written.
    machine.storage.fail_if(|operation, path| {
        let is_frame = operation == Operation::Write && path.extension().is_some_and(|it| it == "log");
        is_frame.then_some(std::io::ErrorKind::Other)
    });
    partition.append(&Record::new(&value[1..]), None).unwrap_err();
    machine.storage.heal();
    assert!(kept() <= SCRATCH_BYTES, "{} bytes", kept());
    partition.append(&Record::new("y"), None).unwrap();
}

#[test]
fn a_cursor_that_waits_at_the_end_goes_on_over_a_roll() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut cursor = Cursor::new(&partition, 0).unwrap();
    assert!(cursor.at_end());
    assert!(cursor.next_run(1).unwrap().is_none());
    append_numbers(&partition, 0..1);
    assert!(!cursor.at_end());
    assert_eq!(cursor.next_run(1).unwrap().unwrap().last_offset, 0);
    partition.roll().unwrap();
    assert!(cursor.next_run(1).unwrap().is_none());
    append_numbers(&partition, 1..2);
    assert_eq!(cursor.next_run(1).unwrap().unwrap().last_offset, 1);
    assert!(cursor.at_end());
}

#[test]
fn offsets_outside_the_log_are_refused_with_its_range() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3);
    let error = Cursor::new(&partition, 4).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!(error.valid_offsets(), Some(0..3));
}

#[test]
fn a_batch_is_split_into_frames_and_its_ranges_are_one() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let value = "x".repeat(900_000);
    let records: Vec<_> = (0..5).map(|_| Record::new(&*value)).collect();
    let mut appended = Vec::new();
    partition.append_batch(&records, None, &mut appended).unwrap();
    // Each frame is larger than a segment is to be, and so has one of its own.
    assert_eq!(appended, [0..5]);
    assert_eq!(read_all(&partition, 0).unwrap().len(), 5);
    assert_eq!(read_all(&partition, 0).unwrap()[4].1, value);

    let small: Vec<_> = (0..70_000).map(|_| Record::new("")).collect();
    appended.clear();
    partition.append_batch(&small, None, &mut appended).unwrap();
    assert_eq!(appended, [5..70_005]);
}

#[test]
fn a_record_above_the_limit_is_refused_and_nothing_of_its_batch_is_appended() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let long = "x".repeat((1 << 20) + 1);
    assert_eq!(partition.append(&Record::new(&*long), None).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    let mut appended = Vec::new();
    let batch = [Record::new("fits"), Record::new(&*long)];
    assert_eq!(partition.append_batch(&batch, None, &mut appended).unwrap_err().kind(), ErrorKind::RecordTooLarge);
    assert_eq!((appended.len(), partition.end_offset()), (0, 0));
}

#[test]
fn times_never_fall_and_age_begins_a_new_segment() {
    let machine = Machine::new();
    machine.change(|settings| settings.segment_ms = Some(1000));
    let (partition, _) = machine.open();
    let times = || -> Vec<i64> {
        let mut cursor = Cursor::new(&partition, 0).unwrap();
        let runs = std::iter::from_fn(|| cursor.next_run(1 << 20).unwrap()).collect();
        Batch::new(runs).iter().map(|record| record.append_time_ms()).collect()
    };
    append_numbers(&partition, 0..1);
    machine.advance_ms(-5000);
    append_numbers(&partition, 1..2);
    machine.advance_ms(5999);
    append_numbers(&partition, 2..3);
    assert_eq!(machine.segments().len(), 1);
    machine.advance_ms(1);
    append_numbers(&partition, 3..4);
    assert_eq!(machine.segments().len(), 2);
    let start = 1_700_000_000_000;
    assert_eq!(times(), [start, start, start + 999, start + 1000]);
}

#[test]
fn a_time_that_32_bits_cant_hold_begins_a_new_segment() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    machine.advance_ms(10 * 365 * 86_400_000);
    append_numbers(&partition, 1..2);
    assert_eq!(machine.segments().len(), 2);
    assert_eq!(read_all(&partition, 0).unwrap().len(), 2);
}

#[test]
fn an_interval_is_flushed_in_the_background() {
    let machine = Machine::new();
    machine.change(|settings| settings.durability = Durability::Interval(Duration::from_millis(2)));
    let (partition, _) = machine.open();
    for number in 0..20 {
        append_numbers(&partition, number..number + 1);
        let start = Instant::now();
        while partition.durable_offset() < number + 1 {
            assert!(start.elapsed() < Duration::from_secs(30), "no flush came");
            thread::yield_now();
        }
    }
}

#[test]
fn a_shorter_interval_is_not_held_up_by_a_longer_one() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    partition.append(&Record::new("later"), Some(Durability::Interval(Duration::from_secs(3600)))).unwrap();
    partition.append(&Record::new("soon"), Some(Durability::Interval(Duration::from_millis(1)))).unwrap();
    let start = Instant::now();
    while partition.durable_offset() < 2 {
        assert!(start.elapsed() < Duration::from_secs(30), "no flush came");
        thread::yield_now();
    }
}

#[test]
fn synced_means_that_a_sync_came_behind_the_record() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    partition.append(&Record::new("written"), None).unwrap();
    assert_eq!(partition.durable_offset(), 0);
    machine.storage.take_trace();
    partition.append(&Record::new("synced"), Some(Durability::Synced)).unwrap();
    assert_eq!(partition.durable_offset(), 2);
    let synced = |machine: &Machine| {
        let trace = machine.storage.take_trace();
        trace
            .iter()
            .filter(|it| it.operation == crate::storage::sim::faults::Operation::SyncData && it.succeeded)
            .count()
    };
    assert_eq!(synced(&machine), 1);
    partition.flush().unwrap();
    assert_eq!(synced(&machine), 0, "everything was on the device already");
}

#[test]
fn a_roll_syncs_nothing_and_the_next_flush_syncs_both_segments_and_the_folder() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    machine.storage.take_trace();
    partition.roll().unwrap();
    append_numbers(&partition, 10..20);
    let syncs = |trace: &[_]| {
        let names: Vec<_> = trace
            .iter()
            .filter(|it: &&crate::storage::sim::Performed| {
                matches!(it.operation, Operation::SyncData | Operation::SyncAll | Operation::SyncDir)
            })
            .map(|it| it.path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        names
    };
    assert_eq!(syncs(&machine.storage.take_trace()), Vec::<String>::new());
    partition.flush().unwrap();
    assert_eq!(
        syncs(&machine.storage.take_trace()),
        ["00000000000000000000.log", "00000000000000000010.log", "orders-3", "partition.checkpoint"]
    );
    // The sealed one was trimmed to its end.
    let expected = read_all(&partition, 0).unwrap();
    assert!(machine.read_file(&machine.segments()[0]).len() < 4096 + 2048);
    assert_eq!(expected.len(), 20);
}

#[test]
fn many_threads_append_and_wait_together() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    thread::scope(|scope| {
        for thread in 0..8 {
            let partition = &partition;
            scope.spawn(move || {
                for number in 0..200 {
                    let value = format!("{thread} {number}");
                    let level = if number % 3 == 0 { Durability::Synced } else { Durability::Written };
                    let offset = partition.append(&Record::new(&*value), Some(level)).unwrap();
                    assert!(level == Durability::Written || partition.durable_offset() > offset);
                }
            });
        }
    });
    let found = read_all(&partition, 0).unwrap();
    assert_eq!(found.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(), (0..1600).collect::<Vec<_>>());
    for thread in 0..8 {
        let own = found.iter().filter(|(_, value)| value.starts_with(&format!("{thread} ")));
        let numbers: Vec<u32> = own.map(|(_, value)| value[2..].parse().unwrap()).collect();
        assert_eq!(numbers, (0..200).collect::<Vec<_>>(), "order of thread {thread}");
    }
}

#[test]
fn those_who_wait_for_the_device_share_a_sync_and_others_append_meanwhile() {
    use std::sync::{Condvar, Mutex};
    let machine = Machine::new();
    let (partition, _) = machine.open();
    // The first sync of the segment ends when it is told to, as on a slow device.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let (began, syncs) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
    machine.storage.fail_if({
        let (gate, began, syncs) = (gate.clone(), began.clone(), syncs.clone());
        move |operation, path| {
            if operation == crate::storage::sim::faults::Operation::SyncData
                && path.extension().is_some_and(|it| it == "log")
            {
                syncs.fetch_add(1, Ordering::SeqCst);
                began.store(1, Ordering::SeqCst);
                let open = gate.1.wait_while(gate.0.lock().unwrap(), |open| !*open);
                drop(open.unwrap());
            }
            None
        }
    });
    thread::scope(|scope| {
        let synced = |value: &'static str| {
            let partition = &partition;
            scope.spawn(move || partition.append(&Record::new(value), Some(Durability::Synced)).unwrap())
        };
        let first = synced("first");
        while began.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
        let others: Vec<_> = (0..8).map(|_| synced("other")).collect();
        // They append, all of them, while the first one's sync is under way; and so does who doesn't wait at all.
        partition.append(&Record::new("written"), None).unwrap();
        while partition.end_offset() < 10 {
            thread::yield_now();
        }
        assert_eq!(read_all(&partition, 0).unwrap().len(), 10);
        assert!(!first.is_finished() && others.iter().all(|other| !other.is_finished()));
        *gate.0.lock().unwrap() = true;
        gate.1.notify_all();
        first.join().unwrap();
        others.into_iter().for_each(|other| assert!(other.join().unwrap() > 0));
    });
    assert_eq!(syncs.load(Ordering::SeqCst), 2, "one for the first, one for all the others");
}

#[test]
fn readers_never_see_half_a_frame() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    thread::scope(|scope| {
        let writer = scope.spawn(|| append_numbers(&partition, 0..20_000));
        for _ in 0..3 {
            scope.spawn(|| {
                let mut cursor = Cursor::new(&partition, 0).unwrap();
                let mut next = 0;
                while next < 20_000 {
                    while let Some(run) = cursor.next_run(1 << 16).unwrap() {
                        for record in &Batch::new(vec![run]) {
                            assert_eq!(record.offset(), next);
                            assert_eq!(record.value().unwrap(), format!("record {next}").as_bytes());
                            next += 1;
                        }
                    }
                    thread::yield_now();
                }
            });
        }
        writer.join().unwrap();
    });
}

#[test]
fn offsets_are_assigned_only_below_the_durable_ceiling() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let batch: Vec<_> = (0..60_000).map(|_| Record::new("")).collect();
    for _ in 0..150 {
        partition.append_batch(&batch, None, &mut Vec::new()).unwrap();
        let bytes = machine.read_file(&machine.dir.join("partition.checkpoint"));
        let slots = [&bytes[..4096], &bytes[4096..]].map(|slot| {
            let at = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().unwrap());
            (at(16), at(72))
        });
        let ceiling = slots.iter().max().unwrap().1;
        assert!(partition.end_offset() <= ceiling, "{} {slots:?}", partition.end_offset());
    }
    assert_eq!(partition.end_offset(), 9_000_000);
}

#[test]
fn a_publish_by_somebody_else_is_never_overwritten() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    let end = partition.control.committed();
    assert!(partition.control.publish(end, LogPosition::new(0, DATA_START).unwrap()));
    let error = partition.append(&Record::new("lost"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert_eq!(partition.control.committed(), LogPosition::new(0, DATA_START).unwrap());
}

#[test]
fn a_reader_whose_next_segment_was_deleted_is_out_of_range_and_nothing_is_damaged() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..5000);
    let bases = partition.segment_base_offsets();
    let mut slow = Cursor::new(&partition, 0).unwrap();
    slow.next_run(1).unwrap().unwrap();
    partition.delete_segments_before(bases[2]).unwrap();
    // The segment that it reads in is still mapped, the one behind it is not.
    let error = std::iter::repeat_with(|| slow.next_run(1 << 20)).find_map(Result::err).unwrap();
    assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::OffsetOutOfRange, Some(bases[2])));
    assert_eq!(slow.position(), bases[1]);
    slow.seek(bases[2]).unwrap();
    assert_eq!(slow.next_run(1).unwrap().unwrap().last_offset, expected[bases[2] as usize].0);
}

#[test]
fn deleted_segments_go_and_who_reads_in_them_reads_on() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..5000);
    let bases = partition.segment_base_offsets();
    let mut slow = Cursor::new(&partition, 0).unwrap();
    let kept = slow.next_run(4096).unwrap().unwrap();
    partition.delete_segments_before(bases[2] + 1).unwrap();
    assert_eq!(partition.start_offset(), bases[2]);
    assert_eq!(machine.segments().len(), bases.len() - 2);
    assert_eq!(Batch::new(vec![kept.clone()]).iter().count() as u64, kept.records());
    assert_eq!(read_all(&partition, bases[2]).unwrap(), expected[bases[2] as usize..]);
    assert_eq!(Cursor::new(&partition, 0).unwrap_err().resume_offset(), Some(bases[2]));
    drop((partition, slow));
    let (partition, report) = machine.open();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(partition.start_offset(), bases[2]);
    machine.now_ms.fetch_add(1, Ordering::Relaxed);
    assert_eq!(read_all(&partition, bases[2]).unwrap(), expected[bases[2] as usize..]);
}

#[test]
fn a_segment_that_makes_way_unused_is_no_conflict() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let append_if = |end, value: &str| partition.append_if(end, &[Record::new(value)], None).map(|range| range.start);
    // Nothing that large fits the file that is there, and the next one needs another name.
    machine.change(|settings| settings.max_record_bytes = 4 << 20);
    let large = "x".repeat(3 << 20);
    // It comes to the roll, but no further: the ceiling has to be raised first, and then again there is no space.
    partition.offset_ceiling.store(0, Ordering::SeqCst);
    machine.storage.fail_if(|operation, path| {
        let checkpoint = operation == Operation::Write && path.ends_with("partition.checkpoint");
        checkpoint.then_some(std::io::ErrorKind::StorageFull)
    });
    assert_eq!(append_if(0, &large).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(partition.end_offset(), 1, "the end has moved");
    machine.storage.heal();
    assert_eq!(append_if(2, "no").unwrap_err().end_offset(), Some(1));
    // Both ends hold: nothing was appended.
    assert_eq!(partition.append_if(0, &[], None).unwrap(), 1..1);
    assert_eq!(partition.append_if(1, &[], None).unwrap(), 1..1);
    assert_eq!(append_if(0, &large).unwrap(), 1);
    for stale in [0, 1] {
        assert_eq!(append_if(stale, "no").unwrap_err().end_offset(), Some(2));
    }
    assert_eq!(append_if(2, "yes").unwrap(), 2);
    // A roll of what has records moves nothing.
    partition.roll().unwrap();
    assert_eq!(append_if(3, "yes").unwrap(), 3);
}

#[test]
fn an_end_from_before_an_unclean_boot_is_a_conflict_and_the_new_one_holds() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3);
    drop(partition);
    machine.reboot();
    let (partition, _) = machine.open();
    let end = partition.end_offset();
    assert!(end > 3);
    let record = [Record::new("x")];
    assert_eq!(partition.append_if(3, &record, None).unwrap_err().end_offset(), Some(end));
    let mut cursor = Cursor::new(&partition, 0).unwrap();
    while cursor.next_run(1 << 20).unwrap().is_some() {}
    assert_eq!(cursor.position(), end, "who has read everything stands there");
    assert_eq!(partition.append_if(end, &record, None).unwrap(), end..end + 1);
}

/// Files below `root` that this process has open or mapped.
#[cfg(target_os = "linux")]
pub(super) fn held_files(root: &Path) -> (usize, usize) {
    let open =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (open.filter(|path| path.starts_with(root)).count(), maps.matches(root.to_str().unwrap()).count())
}

#[cfg(target_os = "linux")]
#[test]
fn neither_writing_nor_reading_many_segments_holds_their_files() {
    use crate::storage::fs::FsStorage;
    for positional_appends in [false, true] {
        let root = tempfile::tempdir().unwrap();
        let machine = Machine::new();
        let env = Environment {
            storage: Arc::new(FsStorage),
            clock: crate::clock::Clock::System,
            flusher: Flusher::new(Default::default()),
            prefaulter: Arc::default(),
            recent_segments: Arc::new(RecentSegments::with_capacity(5)),
            open_files: OpenFiles::bounded(16, FsStorage),
            figures: Default::default(),
            positional_appends,
            mapped_after: 0,
        };
        let (partition, _) = PartitionLog::open(&env, root.path(), machine.spec.clone()).unwrap();
        let mut expected = Vec::new();
        for number in 0..60 {
            expected.extend(append_numbers(&partition, number..number + 1));
            partition.roll().unwrap();
        }
        // Nobody asked for a flush. The next append finds too much unsynced.
        expected.extend(append_numbers(&partition, 60..61));
        let start = Instant::now();
        // A sync lets go of its segments behind what it tells.
        let wait_until = |holds: fn((usize, usize)) -> bool| {
            while !holds(held_files(root.path())) {
                assert!(start.elapsed() < Duration::from_secs(30), "{:?}", held_files(root.path()));
                thread::yield_now();
            }
        };
        wait_until(|(open, _)| open <= 30);
        partition.flush().unwrap();
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        wait_until(|(open, mapped)| open < 15 && mapped < 20);
        partition.close().unwrap();
        assert!(held_files(root.path()).0 < 5, "{:?}", held_files(root.path()));
    }
}

#[test]
fn no_segment_is_kept_open_that_is_deleted_or_whose_partition_is_closed() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    for segment in 0..4 {
        append_numbers(&partition, segment * 10..segment * 10 + 10);
        partition.roll().unwrap();
    }
    let kept = || {
        let bases = std::cell::RefCell::new(Vec::new());
        partition.env.recent_segments.forget(|segment| {
            bases.borrow_mut().push(segment.header.base_offset);
            false
        });
        bases.into_inner()
    };
    partition.flush().unwrap();
    assert_eq!(kept(), [0, 10, 20, 30]);

    // A reader that found a segment in the list before the deletion, and opens it behind it.
    let segments = partition.segments.load_full();
    machine.storage.fail_if(|operation, path| {
        let rename = operation == Operation::Rename && path.extension().is_some_and(|it| it == "tmp");
        rename.then_some(std::io::ErrorKind::Other)
    });
    partition.delete_segments_before(20).unwrap_err();
    assert_eq!(kept(), [20, 30]);
    assert_eq!(partition.open_segment(&segments, 0).unwrap().header.base_offset, 0);
    assert_eq!(kept(), [20, 30]);
    machine.storage.heal();

    // A sync that ends behind the deletion.
    let late = partition.open_segment(&segments, 1).unwrap();
    partition.release(&[&late]);
    assert_eq!(kept(), [20, 30]);

    append_numbers(&partition, 40..50);
    partition.roll().unwrap();
    partition.close().unwrap();
    assert_eq!(kept(), [] as [u64; 0]);
}
