use std::{io, sync::atomic::AtomicBool};

use super::*;
use crate::{
    partition::{Opening, RecoveryEvent},
    segment_header::DATA_START,
    storage::sim::faults::{Operation, Reading},
};

/// What a machine can do between two opens.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Between {
    Close,
    Kill,
    Reboot,
    Remount,
}

fn end(machine: &Machine, partition: Arc<PartitionLog>, between: Between) {
    if between == Between::Close {
        partition.close().unwrap();
    }
    drop(partition);
    match between {
        Between::Reboot => machine.storage.reboot(),
        Between::Remount => machine.storage.remount(),
        Between::Close | Between::Kill => {}
    }
}

/// A look-up that began before its handle was closed may still be making an index.
#[test]
fn a_temporary_file_that_goes_by_itself_is_no_error() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..10);
    partition.close().unwrap();
    let temporary = machine.dir.join("00000000000000000000.timeindex.tmp");
    machine.storage.open(&temporary, OpenMode::CreateNew).unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    machine.storage.fail_if({
        let gone = gone.clone();
        move |operation, path| {
            let is_it = operation == Operation::RemoveFile && path == temporary;
            gone.fetch_or(is_it, Ordering::Relaxed);
            is_it.then_some(io::ErrorKind::NotFound)
        }
    });
    let (partition, _) = machine.open();
    assert!(gone.load(Ordering::Relaxed), "nobody has looked at it");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

#[test]
fn every_way_to_end_is_told_apart_and_loses_nothing() {
    for positional_appends in [false, true] {
        for (between, opening) in [
            (Between::Close, Opening::Clean),
            (Between::Kill, if positional_appends { Opening::Scanned } else { Opening::Resumed }),
            (Between::Reboot, Opening::Scanned),
            (Between::Remount, Opening::Scanned),
        ] {
            let machine = Machine { positional_appends, ..Machine::new() };
            let (partition, report) = machine.open();
            assert_eq!(report.opening(), Opening::Created);
            let mut expected = append_numbers(&partition, 0..3000);
            end(&machine, partition, between);

            let (partition, report) = machine.open();
            assert_eq!((report.opening(), report.events()), (opening, &[][..]), "{between:?}");
            assert_eq!(read_all(&partition, 0).unwrap(), expected);
            assert_eq!(partition.durable_offset(), partition.end_offset());
            expected.extend(append_numbers(&partition, 3000..3010));
            assert_eq!(read_all(&partition, 0).unwrap(), expected);
            // After a reboot nobody knows what was assigned and lost, so offsets go on at the ceiling.
            let contiguous = opening != Opening::Scanned;
            assert_eq!(expected[3000].0 == 3000, contiguous, "{between:?}: {}", expected[3000].0);
            for start in [2999, 3000, 3001] {
                assert_eq!(read_all(&partition, start).unwrap().last(), expected.last());
            }
        }
    }
}

#[test]
fn times_dont_fall_over_an_unclean_end_however_the_clock_jumps() {
    for between in [Between::Close, Between::Kill, Between::Reboot] {
        for damaged in [false, true] {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            append_numbers(&partition, 0..10);
            machine.advance_ms(60_000);
            append_numbers(&partition, 10..20);
            partition.flush().unwrap();
            let end_position = partition.control.committed().file_position();
            // A checkpoint whose mark lies behind them all, so that nothing of them is scanned.
            partition
                .update_checkpoint(|state| {
                    (state.durable, state.durable_offset) = (partition.control.durable(), 20);
                })
                .unwrap();
            end(&machine, partition, between);
            if damaged {
                machine.write_file(&machine.segments()[0], &[0xff; 8], end_position - 8);
            }
            machine.advance_ms(-30_000);
            let (partition, _) = machine.open();
            let offset = partition.append(&Record::new("later"), None).unwrap();
            let run = Cursor::new(&partition, offset).unwrap().next_run(1).unwrap().unwrap();
            let time = Batch::new(vec![run]).iter().next().unwrap().append_time_ms();
            let least = 1_700_000_000_000 + if damaged { 30_000 } else { 60_000 };
            assert!(time >= least, "{between:?} {damaged}: {}", time - 1_700_000_000_000);
        }
    }
}

#[test]
fn an_offset_is_never_used_twice_however_often_it_ends() {
    use Between::{Close, Kill, Reboot};
    for ends in [[Reboot, Kill, Kill], [Kill, Reboot, Close], [Close, Reboot, Kill], [Reboot, Close, Reboot]] {
        let machine = Machine::new();
        let mut greatest = None;
        for (round, between) in ends.into_iter().cycle().take(9).enumerate() {
            let (partition, _) = machine.open();
            assert!(Some(partition.end_offset()) > greatest, "{ends:?}, round {round}");
            if round % 2 == 0 {
                greatest = Some(append_numbers(&partition, 0..3).last().unwrap().0);
            }
            end(&machine, partition, between);
        }
    }
}

#[test]
fn a_clean_open_reads_no_frames_and_a_killed_one_only_the_last() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1000);
    end(&machine, partition, Between::Close);
    // The body of the first frame; the length says nothing.
    let path = machine.segments().remove(0);
    machine.write_file(&path, b"damage", DATA_START + 40);
    let (partition, report) = machine.open();
    assert_eq!(report.opening(), Opening::Clean);
    append_numbers(&partition, 0..1);
    drop(partition);
    let (partition, report) = machine.open();
    assert_eq!(report.opening(), Opening::Resumed);
    // It is told to whoever reads it.
    let (found, damaged) = read_around_damage(&partition);
    assert_eq!((found.len(), damaged), (1000, vec![0..1]));
}

#[test]
fn a_killed_writers_unpublished_frame_is_zeroed_durably_before_anything_else() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    let end = partition.control.committed().file_position();
    let path = machine.segments().remove(0);
    // What a killed encoder leaves: a valid frame that was never published, and more.
    let bytes = machine.read_file(&path);
    machine.write_file(&path, &bytes[DATA_START as usize..DATA_START as usize + 500], end + 1000);
    machine.write_file(&path, b"half a frame", end);
    drop(partition);
    machine.storage.take_trace();
    let (partition, report) = machine.open();
    assert_eq!((report.opening(), report.is_clean()), (Opening::Resumed, true));
    assert!(machine.read_file(&path)[end as usize..].iter().all(|&byte| byte == 0));
    let trace = machine.storage.take_trace();
    let last_write = trace.iter().rposition(|it| it.operation == Operation::Write && it.path == path).unwrap();
    let sync = trace.iter().rposition(|it| it.operation == Operation::SyncData && it.path == path).unwrap();
    let epoch = trace.iter().rposition(|it| it.path.ends_with("partition.checkpoint")).unwrap();
    assert!(last_write < sync && sync < epoch, "{trace:?}");
    assert_eq!(append_numbers(&partition, 10..11)[0].0, 10);
}

#[test]
fn a_kill_between_the_rename_and_the_publication_of_a_roll_is_gone_on_from() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..10);
    let page = machine.dir.join("partition.state");
    let before = machine.read_file(&page);
    partition.roll().unwrap();
    drop(partition);
    // The page as it was when the new segment had its name already.
    machine.write_file(&page, &before, 0);
    let (partition, report) = machine.open();
    assert_eq!((report.opening(), report.is_clean()), (Opening::Resumed, true));
    expected.extend(append_numbers(&partition, 10..20));
    assert_eq!(expected[10].0, 10);
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    assert_eq!(machine.segments().len(), 2);
}

#[test]
fn caches_that_are_deleted_zeroed_cut_or_noise_are_made_anew() {
    let noise: Vec<u8> = (0..200_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for between in [Between::Close, Between::Kill, Between::Reboot] {
        for damage in ["delete", "zero", "noise", "cut", "half"] {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            let expected = append_numbers(&partition, 0..4000);
            end(&machine, partition, between);
            let caches: Vec<_> = machine
                .files()
                .into_iter()
                .filter(|name| name.ends_with(".index") || name == "partition.state")
                .map(|name| machine.dir.join(name))
                .collect();
            assert!(caches.len() >= 5, "{caches:?}");
            for path in &caches {
                let len = machine.read_file(path).len();
                match damage {
                    "delete" => machine.storage.remove_file(path).unwrap(),
                    "zero" => machine.write_file(path, &vec![0; len], 0),
                    "noise" => machine.write_file(path, &noise[..len], 0),
                    "cut" => machine.cut_file(path, 10),
                    _ => machine.write_file(path, &noise[..len / 2], (len - len / 2) as u64),
                }
            }
            let (partition, report) = machine.open();
            let what = format!("{between:?}, {damage}");
            assert!(report.is_clean(), "{what}: {report:?}");
            assert_eq!(read_all(&partition, 0).unwrap(), expected, "{what}");
            for start in (0..4000).step_by(7) {
                let mut cursor = Cursor::new(&partition, start).unwrap();
                let run = cursor.next_run(1).unwrap().unwrap();
                assert_eq!(Batch::new(vec![run]).iter().next().unwrap().offset(), start, "{what}");
            }
            append_numbers(&partition, 0..1);
            partition.close().unwrap();
            // And they are as good as new.
            drop(partition);
            let (partition, report) = machine.open();
            assert_eq!((report.opening(), report.is_clean()), (Opening::Clean, true), "{what}");
            assert_eq!(read_all(&partition, 3999).unwrap().len(), 2, "{what}");
        }
    }
}

/// What a device doesn't give is an error where it is read, and the end of the process where it is mapped.
#[test]
fn an_open_looks_at_no_frame_through_the_map() {
    for index_is_lost in [false, true] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let mut expected = append_numbers(&partition, 0..500);
        end(&machine, partition, Between::Close);
        let segment = machine.segments().remove(0);
        if index_is_lost {
            machine.storage.remove_file(&segment.with_extension("index")).unwrap();
        }
        // All but the two copies of the segment's header.
        let (mut headers, path) = (2, segment.clone());
        machine.storage.fail_readings_if(move |reading, at| {
            if (reading, at) != (Reading::ReadAt, &*path) {
                return None;
            }
            let is_header = headers > 0;
            headers = if is_header { headers - 1 } else { 0 };
            (!is_header).then_some(std::io::ErrorKind::Other)
        });
        let (partition, report) = machine.open();
        machine.storage.heal();
        assert_eq!(report.opening(), Opening::Clean);
        let index = partition.writer().unwrap().segment().index().unwrap();
        assert_eq!(index.last().is_none(), index_is_lost, "no entry for what nobody read");
        expected.extend(append_numbers(&partition, 500..600));
        for start in [0, 100, 499, 500, 599] {
            assert_eq!(read_all(&partition, start).unwrap(), expected[start as usize..]);
        }
    }
}

#[test]
fn hints_of_the_control_page_that_cant_be_are_not_believed() {
    // Log end offset, reserved end, durable mark.
    for word in [33, 34, 48] {
        for value in [u64::MAX >> 1, 1 << 40] {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            let expected = append_numbers(&partition, 0..100);
            drop(partition);
            machine.write_file(&machine.dir.join("partition.state"), &u64::to_le_bytes(value), word * 8);
            let (partition, _) = machine.open();
            assert_eq!(read_all(&partition, 0).unwrap(), expected, "word {word}");
            assert!(append_numbers(&partition, 0..1)[0].0 < 1 << 30, "word {word}");
        }
    }
}

#[test]
fn a_control_page_that_is_older_than_the_segment_takes_nothing_away() {
    for appended_since in [1, 2, 30] {
        for rolled in [false, true] {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            let mut expected = append_numbers(&partition, 0..10);
            let page = machine.dir.join("partition.state");
            let before = machine.read_file(&page);
            if rolled {
                partition.roll().unwrap();
            }
            expected.extend(append_numbers(&partition, 10..10 + appended_since));
            drop(partition);
            machine.write_file(&page, &before, 0);
            let (partition, report) = machine.open();
            assert!(report.is_clean(), "{report:?}");
            assert_eq!(read_all(&partition, 0).unwrap(), expected, "{appended_since}, {rolled}");
            // It takes no scan to find the one frame that a killed writer may have stored and not published.
            assert_eq!(report.opening() == Opening::Resumed, appended_since == 1);
            expected.extend(append_numbers(&partition, 50..53));
            assert_eq!(read_all(&partition, 0).unwrap(), expected);
        }
    }
}

#[test]
fn a_control_page_whose_end_lies_before_the_durable_mark_is_not_believed() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..10);
    let page = machine.dir.join("partition.state");
    let (before, end) = (machine.read_file(&page), partition.control.committed().file_position());
    append_numbers(&partition, 10..20);
    partition.flush().unwrap();
    partition
        .update_checkpoint(|state| {
            (state.durable, state.durable_offset) = (partition.control.durable(), 20);
        })
        .unwrap();
    drop(partition);
    machine.write_file(&machine.segments()[0], &[0xff; 8], end);
    machine.write_file(&page, &before, 0);
    let (partition, _) = machine.open();
    let (found, damaged) = read_around_damage(&partition);
    assert_eq!((&found[..10], found.len(), damaged), (&expected[..], 19, vec![10..11]));
}

#[test]
fn one_good_slot_of_the_checkpoint_is_enough() {
    for slot in [0, 4096] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..100);
        partition.flush().unwrap();
        partition.roll().unwrap();
        append_numbers(&partition, 0..1);
        partition.flush().unwrap();
        end(&machine, partition, Between::Reboot);
        let checkpoint = machine.dir.join("partition.checkpoint");
        machine.write_file(&checkpoint, &[0xff; 100], slot);
        let (partition, report) = machine.open();
        let [RecoveryEvent::CheckpointSlotLost { file, detail }] = report.events() else { panic!("{report:?}") };
        assert_eq!((file, detail.as_str()), (&checkpoint, &*format!("slot {} is damaged", slot / 4096)));
        assert_eq!(read_all(&partition, 0).unwrap()[..100], expected);
        drop(partition);
        assert!(machine.open().1.is_clean(), "both were written anew");
    }
}

#[test]
fn without_a_checkpoint_appends_go_on_far_behind_and_it_is_told() {
    for between in [Between::Close, Between::Kill, Between::Reboot] {
        for damage in ["delete", "zero"] {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            let mut expected = append_numbers(&partition, 0..3000);
            end(&machine, partition, between);
            let path = machine.dir.join("partition.checkpoint");
            match damage {
                "delete" => machine.storage.remove_file(&path).unwrap(),
                _ => machine.write_file(&path, &[0; 8192], 0),
            }
            let (partition, report) = machine.open();
            let next_offset = 3000 + (1 << 32);
            assert_eq!(report.events(), [RecoveryEvent::CheckpointLost { next_offset }], "{between:?}, {damage}");
            assert_eq!(read_all(&partition, 0).unwrap(), expected);
            expected.extend(append_numbers(&partition, 3000..3001));
            assert_eq!(expected[3000].0, next_offset);
            assert_eq!(read_all(&partition, 0).unwrap(), expected, "reading goes on over the gap");
            partition.close().unwrap();
            drop(partition);
            assert!(machine.open().1.is_clean());
        }
    }
}

#[test]
fn a_deletion_that_was_interrupted_is_finished() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..4000);
    let bases = partition.segment_base_offsets();
    machine.storage.fail_if(|operation, _| (operation == Operation::RemoveFile).then_some(std::io::ErrorKind::Other));
    partition.delete_segments_before(bases[2]).unwrap_err();
    drop(partition);
    machine.storage.heal();
    let (partition, report) = machine.open();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(partition.segment_base_offsets(), bases[2..]);
    assert_eq!(partition.start_offset(), bases[2]);
    assert!(!machine.files().iter().any(|name| name.ends_with(".tmp")));
}

#[test]
fn an_interrupted_deletion_is_finished_only_behind_a_checkpoint_that_is_on_the_device() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..4000);
    let bases = partition.segment_base_offsets();
    machine.storage.fail_if(|operation, _| (operation == Operation::Rename).then_some(std::io::ErrorKind::Other));
    partition.delete_segments_before(bases[2]).unwrap_err();
    assert!(partition.durable_offset() >= bases[2], "what is kept is durable before anything goes");
    drop(partition);
    machine.storage.heal();
    machine.storage.take_trace();
    machine.open();
    let trace = machine.storage.take_trace();
    let renamed = trace.iter().position(|it| it.operation == Operation::Rename).unwrap();
    let is_settled = |it: &crate::storage::sim::Performed| {
        it.operation == Operation::SyncData && it.path.ends_with("partition.checkpoint")
    };
    assert!(trace[..renamed].iter().any(is_settled), "{trace:?}");
}

#[test]
fn files_of_another_partition_are_refused_by_name() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    partition.close().unwrap();
    drop(partition);
    let mut other = Machine { storage: machine.storage.clone(), ..Machine::new() };
    other.spec.number = 4;
    let error = other.try_open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("partition.checkpoint"), "{error}");
    machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
    let (partition, report) = other.try_open().unwrap();
    assert!(!report.is_clean(), "{report:?}");
    assert_eq!(read_all(&partition, partition.end_offset()).unwrap(), []);
}

#[test]
fn a_kill_amid_opening_or_closing_costs_no_offset() {
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
    for amid_closing in [true, false] {
        for nth in 0.. {
            let machine = Machine::new();
            let (partition, _) = machine.open();
            append_numbers(&partition, 0..10);
            partition.flush().unwrap();
            let partition = amid_closing.then_some(partition);
            let mut operations = 0..nth;
            machine.storage.fail_if(move |_, _| match operations.next() {
                Some(_) => None,
                None => resume_unwind(Box::new("killed")),
            });
            let outcome = catch_unwind(AssertUnwindSafe(|| match &partition {
                Some(partition) => partition.close().unwrap(),
                None => drop(machine.open()),
            }));
            drop(partition);
            machine.storage.heal();
            let (partition, report) = machine.open();
            assert_eq!(report.events(), [], "closing: {amid_closing}, operation {nth}");
            assert_eq!(append_numbers(&partition, 10..11)[0].0, 10, "closing: {amid_closing}, operation {nth}");
            if outcome.is_ok() {
                assert!(nth > 2, "nothing was interrupted");
                break;
            }
        }
    }
}

#[test]
fn a_damaged_slot_of_the_checkpoint_may_have_had_the_higher_ceiling() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let batch: Vec<_> = (0..60_000).map(|_| Record::new("")).collect();
    let path = machine.dir.join("partition.checkpoint");
    let slots = |bytes: &[u8]| [bytes[..124].to_vec(), bytes[4096..4220].to_vec()];
    // Up to offsets that only the newer slot allows.
    let newer = loop {
        let before = slots(&machine.read_file(&path));
        partition.append_batch(&batch, None, &mut Vec::new()).unwrap();
        partition.maintain(std::time::Instant::now()).unwrap();
        let after = slots(&machine.read_file(&path));
        let changed = (0..2).find(|&slot| before[slot] != after[slot]);
        if let Some(slot) = changed.filter(|_| partition.end_offset() > 2_200_000) {
            break slot as u64;
        }
    };
    while partition.end_offset() < 4_400_000 {
        partition.append_batch(&batch, None, &mut Vec::new()).unwrap();
    }
    let used = partition.end_offset();
    drop(partition);
    machine.reboot();
    // Power took all that was appended since the flush, and the newer slot is damaged.
    machine.write_file(&path, &[0xff; 50], newer * 4096 + 40);
    for segment in machine.segments().iter().skip(1) {
        machine.storage.remove_file(segment).unwrap();
    }
    let (partition, _) = machine.open();
    assert!(append_numbers(&partition, 0..1)[0].0 >= used);
}

/// Damages the last slot of the checkpoint that `step` writes.
fn lose_the_slot_that(machine: &Machine, junk: u8, step: impl FnOnce()) {
    let path = machine.dir.join("partition.checkpoint");
    let before = machine.read_file(&path);
    step();
    let after = machine.read_file(&path);
    let written = [0, 4096].into_iter().filter(|&at| before[at..at + 124] != after[at..at + 124]);
    let newer = written.max_by_key(|&at| u64::from_le_bytes(after[at + 16..at + 24].try_into().unwrap())).unwrap();
    machine.write_file(&path, &[junk; 200], newer as u64);
}

#[test]
fn a_clean_mark_beside_a_damaged_slot_may_have_been_followed_by_appends() {
    for junk in [0xff, 0] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..10);
        partition.close().unwrap();
        let closed = machine.read_file(&machine.segments()[0]);
        let (partition, _) = machine.open();
        lose_the_slot_that(&machine, junk, || drop(append_numbers(&partition, 10..15)));
        drop(partition);
        // The power took what was appended since, and the length of the file.
        let segment = machine.segments().remove(0);
        machine.cut_file(&segment, closed.len() as u64);
        machine.reboot();
        let (partition, _) = machine.open();
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        assert!(append_numbers(&partition, 0..1)[0].0 >= 15, "an offset is used twice");
    }
}

#[test]
fn a_damaged_slot_may_have_had_the_highest_ceiling_that_can_be_twice_in_a_row() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let records = vec![Record::new(""); 65_000];
    let fill = |partition: &Arc<PartitionLog>, end: u64| {
        // Nobody raises the ceiling ahead of need.
        partition.env.flusher.stop();
        while partition.end_offset() < end {
            let count = (end - partition.end_offset()).min(65_000) as usize;
            partition.append_batch(&records[..count], None, &mut Vec::new()).unwrap();
        }
    };
    lose_the_slot_that(&machine, 0xff, || fill(&partition, 8_415_000));
    drop(partition);
    let power_cut = || {
        machine.reboot();
        machine.segments().iter().skip(1).for_each(|segment| machine.storage.remove_file(segment).unwrap());
    };
    power_cut();
    let path = machine.dir.join("partition.checkpoint");
    let before = machine.read_file(&path);
    let (partition, _) = machine.open();
    let first = append_numbers(&partition, 0..1)[0].0;
    assert!(first >= 8_415_000, "{first} is used twice");
    let after = machine.read_file(&path);
    let newer = [0, 4096].into_iter().max_by_key(|&at| u64::from_le_bytes(after[at + 16..at + 24].try_into().unwrap()));
    assert_ne!(before, after);
    fill(&partition, first + 4_000_000);
    drop(partition);
    machine.write_file(&path, &[0xff; 50], newer.unwrap() as u64);
    power_cut();
    let (partition, _) = machine.open();
    let next = append_numbers(&partition, 0..1)[0].0;
    assert!(next >= first + 4_000_000, "{next} is used twice");
}

#[test]
fn a_sync_that_failed_in_an_open_that_failed_behind_it_is_not_trusted_later() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..10);
    drop(partition);
    // Neither the checkpoint nor the control page can be made behind the sync.
    machine.storage.fail_if(|operation, path| {
        let checkpoint = operation == Operation::Write && path.ends_with("partition.checkpoint");
        let page = operation == Operation::Map && path.ends_with("partition.state");
        (operation == Operation::SyncData || checkpoint || page).then_some(std::io::ErrorKind::Other)
    });
    machine.try_open().unwrap_err();
    machine.storage.heal();
    let (partition, report) = machine.open();
    let rewritten = |event: &RecoveryEvent| matches!(event, RecoveryEvent::Rewritten { .. });
    assert!(report.events().iter().any(rewritten), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}
