use std::{io, ops::Range, thread};

use super::*;
use crate::{
    partition::{Opening, RecoveryEvent},
    storage::sim::{Performed, Repeat, faults::Operation, power::PowerStorage},
};

/// How a partition comes to be opened again.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Between {
    Close,
    Kill,
    Reboot,
}

impl Between {
    const ALL: [Self; 3] = [Self::Close, Self::Kill, Self::Reboot];

    fn reopen(self, machine: &Machine, partition: Arc<PartitionLog>) -> Arc<PartitionLog> {
        if self == Self::Close {
            partition.close().unwrap();
        }
        drop(partition);
        if self == Self::Reboot {
            machine.reboot();
        }
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{self:?}: {report:?}");
        partition
    }
}

/// Appends `frames` batches of `each` records, a segment every five of them.
fn append_frames(partition: &Arc<PartitionLog>, frames: u64, each: u64) -> Vec<(u64, String)> {
    let mut expected: Vec<(u64, String)> = Vec::new();
    for frame in 0..frames {
        if frame % 5 == 4 {
            partition.roll().unwrap();
        }
        let values: Vec<_> = (0..each).map(|record| format!("record {record} of {frame}")).collect();
        let records: Vec<_> = values.iter().map(|value| Record::new(value.as_str())).collect();
        let mut ranges: Vec<Range<u64>> = Vec::new();
        partition.append_batch(&records, None, &mut ranges).unwrap();
        expected.extend(ranges.into_iter().flatten().zip(values));
    }
    expected
}

/// Checks that the log begins at `start`, whoever looks.
fn check_start(partition: &Arc<PartitionLog>, start: u64, expected: &[(u64, String)], what: &str) {
    assert_eq!(partition.start_offset(), start, "{what}");
    let from = |offset: u64| expected.iter().filter(|record| record.0 >= offset).cloned().collect::<Vec<_>>();
    for offset in [start, start + 1, start + 7, start + 40, partition.end_offset()] {
        if offset <= partition.end_offset() {
            assert_eq!(read_all(partition, offset).unwrap(), from(offset), "{what}: from {offset}");
        }
    }
    for offset in [0, start / 2, start.wrapping_sub(1)].into_iter().filter(|&offset| offset < start) {
        let error = Cursor::new(partition, offset).unwrap_err();
        assert_eq!((error.kind(), error.resume_offset()), (ErrorKind::OffsetOutOfRange, Some(start)), "{what}");
    }
}

#[test]
fn any_offset_can_become_the_first_one_and_stays_it() {
    for positional_appends in [false, true] {
        for between in Between::ALL {
            let machine = Machine { positional_appends, ..Machine::new() };
            let (mut partition, _) = machine.open();
            let mut expected = append_frames(&partition, 12, 7);
            let bases = partition.segment_base_offsets();
            assert!(bases.len() == 3 && partition.end_offset() == 84, "{bases:?}");
            // Each place in a frame, and the borders of segments.
            for before in (1..30).chain([34, 35, 36, 62, 63, 64, 83, 84]) {
                let what = format!("{positional_appends} {between:?} {before}");
                assert_eq!(partition.delete_records(before).unwrap(), before, "{what}");
                check_start(&partition, before, &expected, &what);
                partition = between.reopen(&machine, partition);
                check_start(&partition, before, &expected, &what);
                let kept = bases.windows(2).filter(|pair| pair[1] > before).count() + 1;
                assert_eq!(machine.segments().len(), kept, "{what}");
            }
            assert!(partition.end_offset() == 84 || between != Between::Close);
            expected.extend(append_numbers(&partition, 0..3));
            check_start(&partition, 84, &expected, "and on");
            partition = between.reopen(&machine, partition);
            check_start(&partition, 84, &expected, "and on");
        }
    }
}

#[test]
fn all_records_can_go_and_with_them_their_files() {
    for between in Between::ALL {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        assert_eq!(partition.delete_records(0).unwrap(), 0);
        append_frames(&partition, 12, 7);
        assert_eq!(partition.delete_records(84).unwrap(), 84);
        assert_eq!((partition.end_offset(), partition.durable_offset()), (84, 84), "no offset is used up");
        assert_eq!(machine.segments().len(), 1);
        assert_eq!(partition.stats().unwrap().bytes, crate::segment_header::DATA_START);
        assert_eq!(partition.delete_records(84).unwrap(), 84);
        let partition = between.reopen(&machine, partition);
        let (start, end) = (partition.start_offset(), partition.end_offset());
        assert!(start == 84 && end >= 84);
        // The gap that an unclean end leaves can go too.
        assert_eq!(partition.delete_records(end).unwrap(), end);
        let expected = append_numbers(&partition, 0..3);
        check_start(&between.reopen(&machine, partition), end, &expected, "and on");
    }
}

#[test]
fn an_offset_that_is_out_of_range_changes_nothing() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_frames(&partition, 2, 7);
    partition.delete_records(5).unwrap();
    machine.storage.take_trace();
    let error = partition.delete_records(15).unwrap_err();
    assert_eq!((error.kind(), error.valid_offsets()), (ErrorKind::OffsetOutOfRange, Some(5..14)));
    assert_eq!((error.offset(), error.resume_offset()), (Some(15), Some(14)));
    // What is gone already is no error.
    assert_eq!(partition.delete_records(3).unwrap(), 5);
    assert_eq!(machine.storage.take_trace(), []);
    partition.close().unwrap();
    assert_eq!(partition.delete_records(6).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn the_log_start_is_durable_before_anything_goes_and_only_behind_what_it_leads_to() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_frames(&partition, 12, 7);
    machine.storage.take_trace();
    partition.delete_records(70).unwrap();
    let trace = machine.storage.take_trace();
    let is = |it: &&Performed, operation, name: &str| {
        it.operation == operation && it.path.file_name().is_some_and(|file| file.to_str().unwrap().contains(name))
    };
    let at = |operation, name| trace.iter().position(|it| is(&it, operation, name)).unwrap();
    let last = |operation, name| trace.iter().rposition(|it| is(&it, operation, name)).unwrap();
    assert!(last(Operation::SyncData, ".log") < last(Operation::Write, "checkpoint"));
    assert!(last(Operation::Write, "checkpoint") < last(Operation::SyncData, "checkpoint"));
    assert!(last(Operation::SyncData, "checkpoint") < at(Operation::Rename, ".tmp"));
    assert_eq!(trace.last().unwrap().operation, Operation::SyncDir);
}

#[test]
fn a_start_inside_of_a_segment_survives_damage_around_it() {
    let place = |machine: &Machine, offset: u64| {
        let (partition, _) = machine.open();
        let segment = partition.open_segment(&partition.segments.load(), 0).unwrap();
        let mut scan = crate::partition::scan::Scan::headers(segment.seed, crate::segment_header::DATA_START);
        let bytes = machine.read_file(&segment.path);
        let found = std::iter::from_fn(|| scan.next_frame_in(&bytes))
            .find(|(_, frame)| segment.header.base_offset + u64::from(frame.relative_offset) == offset);
        partition.close().unwrap();
        found.unwrap().0
    };
    // Frames begin at multiples of 7; the log begins at 17, in the third one.
    for (damaged, lost) in [(0, None), (7, None), (14, Some(17..21)), (21, Some(21..28))] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let expected = append_frames(&partition, 5, 7);
        partition.delete_records(17).unwrap();
        partition.close().unwrap();
        drop(partition);
        let position = place(&machine, damaged);
        machine.write_file(&machine.segments()[0], &[0xff; 8], position + 40);
        // So that the clean mark doesn't count, and everything behind the durable mark is read.
        machine.write_file(&machine.dir.join("partition.checkpoint"), &[0xff; 8], 0);
        let (partition, report) = machine.open();
        assert_eq!((report.opening(), partition.start_offset()), (Opening::Scanned, 17), "{damaged}: {report:?}");
        let (found, told) = read_around_damage(&partition);
        assert_eq!(told, lost.iter().cloned().collect::<Vec<_>>(), "{damaged}");
        let kept = |offset: &u64| *offset >= 17 && !lost.as_ref().is_some_and(|lost| lost.contains(offset));
        let kept: Vec<_> = expected.into_iter().filter(|record| kept(&record.0)).collect();
        assert_eq!(found, kept, "{damaged}");
    }
}

#[test]
fn without_a_checkpoint_the_log_begins_at_its_oldest_segment() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_frames(&partition, 7, 7);
    partition.delete_records(40).unwrap();
    drop(partition);
    machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::CheckpointLost { .. }]), "{report:?}");
    check_start(&partition, 28, &expected, "the segment's");
    partition.delete_records(40).unwrap();
    check_start(&Between::Kill.reopen(&machine, partition), 40, &expected, "again");
}

#[test]
fn a_torn_tail_behind_the_log_start_is_cut_and_the_start_stays() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_frames(&partition, 3, 7);
    partition.delete_records(17).unwrap();
    append_frames(&partition, 1, 7);
    let end = partition.control.committed().file_position();
    drop(partition);
    machine.reboot();
    machine.write_file(&machine.segments()[0], &[0xff; 8], end - 16);
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::TornTail(_)]), "{report:?}");
    expected.extend(append_numbers(&partition, 0..2));
    check_start(&partition, 17, &expected, "cut");
}

#[test]
fn whatever_fails_the_log_start_is_the_old_one_or_the_new_one_and_no_other_record_is_lost() {
    // Inside of the first segment, of the last one, at the end.
    for before in [10, 70, 84] {
        for n in 1.. {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            let mut expected = append_frames(&partition, 12, 7);
            let what = format!("{before}, operation {n}");
            let operations = machine.storage.operations();
            machine.storage.fail_nth(n, io::ErrorKind::Other, Repeat::Once);
            let outcome = partition.delete_records(before);
            let enough = machine.storage.operations() - operations < n;
            assert!(outcome.is_ok() || !enough, "{what}");
            machine.storage.heal();
            let start = partition.start_offset();
            assert!(if outcome.is_ok() { start == before } else { start == 0 || start == before }, "{what}: {start}");
            check_start(&partition, start, &expected, &what);
            if partition.check_poison().is_ok() {
                expected.extend(append_numbers(&partition, 84..85));
            }
            drop(partition);
            if n % 2 == 0 {
                machine.reboot();
            }
            let (partition, report) = machine.open();
            // A sync that failed doesn't say which of the two is on the device.
            let found = partition.start_offset();
            assert!(found == start || report.events().len() == 1 && found == before, "{what}: {found} {report:?}");
            check_start(&partition, found, &expected, &what);
            assert_eq!(partition.delete_records(before).unwrap(), before, "{what}");
            check_start(&partition, before, &expected, &what);
            if enough {
                assert!(n > 4, "only {n} operations failed");
                break;
            }
        }
    }
}

#[test]
fn a_power_cut_amid_a_deletion_takes_nothing_else() {
    let machine = Machine::new();
    for before in [10, 70, 84] {
        for lost in [false, true] {
            for n in 0.. {
                let what = format!("{before} {lost} {n}");
                let storage = PowerStorage::default();
                let open = || {
                    let env = Environment {
                        storage: Arc::new(storage.clone()),
                        clock: Clock::Manual(machine.now_ms.clone()),
                        flusher: Flusher::new(Default::default()),
                        prefaulter: Arc::default(),
                        recent_segments: Arc::default(),
                        open_files: OpenFiles::bounded(1000, storage.clone()),
                        figures: Default::default(),
                        positional_appends: false,
                        mapped_after: 0,
                    };
                    PartitionLog::open(&env, &machine.dir, machine.spec.clone()).unwrap()
                };
                let (partition, _) = open();
                let expected = append_frames(&partition, 12, 7);
                partition.flush().unwrap();
                storage.stop_after(n);
                let outcome = partition.delete_records(before);
                let stopped = storage.is_stopped();
                assert!(outcome.is_ok() || stopped, "{what}");
                drop(partition);
                storage.cut_power(|_| lost);

                let (partition, report) = open();
                // A process that is stopped takes it for a failed sync, and says so.
                let rewritten = |event: &RecoveryEvent| matches!(event, RecoveryEvent::Rewritten { .. });
                assert!(report.events().iter().all(rewritten), "{what}: {report:?}");
                let start = partition.start_offset();
                assert!(start == before || start == 0 && outcome.is_err(), "{what}: {start}");
                check_start(&partition, start, &expected, &what);
                partition.delete_records(before).unwrap();
                check_start(&partition, before, &expected, &what);
                if !stopped {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_full_disk_keeps_no_record_from_going() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_frames(&partition, 12, 7);
    partition.flush().unwrap();
    machine.storage.limit_space(Some(machine.storage.used_space()));
    assert_eq!(partition.delete_records(84).unwrap(), 84);
    assert_eq!(machine.segments().len(), 1);
    check_start(&Between::Kill.reopen(&machine, partition), 84, &[], "full");
}

#[test]
fn many_delete_while_others_append_and_read() {
    let machine = Machine::new();
    machine.change(|settings| settings.retention_bytes = Some(0));
    let (partition, _) = machine.open();
    thread::scope(|scope| {
        scope.spawn(|| append_numbers(&partition, 0..20_000));
        for step in [97, 513, 4099] {
            let partition = &partition;
            scope.spawn(move || {
                while partition.end_offset() < 20_000 {
                    let (start, end) = (partition.start_offset(), partition.end_offset());
                    let before = end.min(start + step);
                    let answered = partition.delete_records(before).unwrap();
                    assert!(answered >= before && partition.start_offset() >= answered);
                    partition.enforce_retention().unwrap();
                    let mut cursor = match Cursor::new(partition, before) {
                        Ok(cursor) => cursor,
                        Err(error) => {
                            assert!(error.resume_offset() > Some(before), "{error}");
                            continue;
                        }
                    };
                    match cursor.next_run(1 << 12) {
                        Ok(Some(run)) => assert_eq!(Batch::new(vec![run]).iter().next().unwrap().offset(), before),
                        Ok(None) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}"),
                    }
                }
            });
        }
    });
    let start = partition.start_offset();
    let found = read_all(&partition, start).unwrap();
    assert_eq!(found.first().map(|record| record.0), Some(start).filter(|start| *start < 20_000));
    check_start(&Between::Kill.reopen(&machine, partition), start, &found, "at the end");
}

#[test]
fn no_segment_goes_before_the_one_behind_it_is_durable() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_frames(&partition, 3, 7);
    let is_log = |path: &Path| path.extension().is_some_and(|it| it == "log");
    // The segment can't be ended: it stays, though nothing in it is a part of the log any more.
    machine.storage.fail_if(move |operation, path| {
        (operation == Operation::Rename && is_log(path)).then_some(io::ErrorKind::StorageFull)
    });
    assert_eq!(partition.delete_records(21).unwrap(), 21);
    machine.storage.heal();
    assert_eq!(machine.segments().len(), 1);
    partition.roll().unwrap();
    machine.storage.take_trace();
    // Now it can go, and the log start is what it was.
    assert_eq!(partition.delete_records(21).unwrap(), 21);
    let trace = machine.storage.take_trace();
    let kept = machine.segments();
    assert_eq!(kept.len(), 1);
    let synced = trace.iter().position(|it| it.operation == Operation::SyncData && it.path == kept[0]);
    let removed = trace.iter().position(|it| it.operation == Operation::Rename).unwrap();
    assert!(synced.is_some_and(|synced| synced < removed), "a power cut would leave nothing: {trace:?}");
}

/// The log start is where the log ends, and the first segment is empty. The next append begins a new one, by its age, whose
/// header the power takes.
#[test]
fn a_new_segment_at_the_log_start_that_never_reached_the_device_is_no_damage() {
    let machine = Machine::new();
    drop(machine.open());
    machine.reboot();
    let (partition, _) = machine.open();
    let end = partition.end_offset();
    assert!(end > 0, "nothing was appended, and offsets were skipped");
    assert_eq!(partition.delete_records(end).unwrap(), end);
    machine.advance_ms(i64::from(u32::MAX) + 1);
    append_numbers(&partition, 0..1);
    drop(partition);
    machine.reboot();
    let segments = machine.segments();
    assert_eq!(segments.len(), 2);
    machine.write_file(&segments[1], &vec![0; machine.read_file(&segments[1]).len()], 0);
    let (partition, report) = machine.open();
    let told = report.events().iter().all(|event| matches!(event, RecoveryEvent::TornTail(_)));
    assert!(told, "{report:?}");
    let on = append_numbers(&partition, 1..2);
    assert!(on[0].0 > end);
    assert_eq!(read_all(&partition, end).unwrap(), on);
}
