use super::*;
use crate::{
    partition::{Cut, Opening, RecoveryEvent, scan::Scan, segment::base_offset_of},
    segment_header::{DATA_START, SEGMENT_HEADER_BYTES, SegmentHeader},
    storage::sim::{Repeat, faults::Operation},
};

/// Positions of the frames in a segment's file, and behind the last.
pub(super) fn frame_positions(machine: &Machine, segment: &Path) -> Vec<u64> {
    let bytes = machine.read_file(segment);
    let header = SegmentHeader::decode(&bytes[..SEGMENT_HEADER_BYTES]).unwrap();
    let mut scan = Scan::headers(header.frame_seed(), DATA_START);
    let mut positions = vec![DATA_START];
    while let Some((position, frame)) = scan.next_frame_in(&bytes) {
        positions.push(position + frame.frame_bytes() as u64);
    }
    positions
}

/// A partition that lost power with `durable` flushed records and `written` more that weren't, all of which happen to
/// be on the device.
fn after_power_loss(durable: u64, written: u64) -> (Machine, Vec<(u64, String)>) {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..durable);
    partition.flush().unwrap();
    expected.extend(append_numbers(&partition, durable..durable + written));
    drop(partition);
    machine.reboot();
    (machine, expected)
}

#[test]
fn a_tail_torn_at_any_byte_loses_the_torn_record_and_what_is_cut_is_kept() {
    let (machine, expected) = after_power_loss(3, 3);
    let segment = machine.segments().remove(0);
    let positions = frame_positions(&machine, &segment);
    let whole = machine.read_file(&segment);
    let last = positions[positions.len() - 1];
    drop(machine);
    for fill in [0_u8, 0xa5] {
        for torn_at in positions[3]..last {
            let (machine, _) = after_power_loss(3, 3);
            let segment = machine.segments().remove(0);
            let own = machine.read_file(&segment);
            assert_eq!(own.len(), whole.len());
            machine.write_file(&segment, &vec![fill; (last - torn_at) as usize], torn_at);
            let torn = machine.read_file(&segment);
            let (partition, report) = machine.open();
            assert_eq!(report.opening(), Opening::Scanned);
            // Zeros that replace zeros (padding, say) change nothing.
            let intact = positions.iter().rposition(|&at| own[..at as usize] == torn[..at as usize]).unwrap();
            assert_eq!(read_all(&partition, 0).unwrap(), expected[..intact], "torn at {torn_at}");
            let from = positions[intact] as usize;
            let left = torn[from..].iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
            match report.events() {
                [] => assert_eq!(left, 0, "torn at {torn_at}"),
                [RecoveryEvent::TornTail(Cut { file, position, end_offset, kept_in })] => {
                    assert_eq!((file, *position, *end_offset), (&segment, from as u64, intact as u64));
                    assert_eq!(kept_in.len(), 1);
                    let kept = machine.read_file(&kept_in[0]);
                    assert_eq!(kept, torn[from..from + left.next_multiple_of(8).min(kept.len())]);
                    assert!(kept.len() >= left);
                }
                events => panic!("torn at {torn_at}: {events:?}"),
            }
            let on = append_numbers(&partition, 100..101);
            assert!(on[0].0 >= expected.len() as u64, "offset {} was used before", on[0].0);
            assert_eq!(read_all(&partition, 0).unwrap().len(), intact + 1);
        }
    }
}

#[test]
fn valid_frames_behind_a_hole_go_with_the_tail() {
    let (machine, expected) = after_power_loss(3, 6);
    let segment = machine.segments().remove(0);
    let positions = frame_positions(&machine, &segment);
    machine.write_file(&segment, &vec![0; (positions[6] - positions[5]) as usize], positions[5]);
    let (partition, report) = machine.open();
    let [RecoveryEvent::ReorderedTail(cut)] = report.events() else { panic!("{report:?}") };
    assert_eq!((cut.position, cut.end_offset), (positions[5], 5));
    assert_eq!(read_all(&partition, 0).unwrap(), expected[..5]);
    let bytes = machine.read_file(&segment);
    assert!(bytes[positions[5] as usize..].iter().all(|&byte| byte == 0));
    append_numbers(&partition, 0..1);
    drop(partition);
    machine.reboot();
    assert!(machine.open().1.is_clean(), "the cut is done");
}

#[test]
fn damage_below_what_was_durable_is_corruption_and_nothing_is_cut() {
    // Flushed in between: frames say what was durable when they were written.
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..10);
    partition.flush().unwrap();
    expected.extend(append_numbers(&partition, 10..20));
    partition.flush().unwrap();
    expected.extend(append_numbers(&partition, 20..30));
    drop(partition);
    machine.reboot();
    let segment = machine.segments().remove(0);
    let positions = frame_positions(&machine, &segment);
    let before = machine.read_file(&segment);
    // One frame's body, another one's header.
    machine.write_file(&segment, &[before[positions[12] as usize + 45] ^ 1], positions[12] + 45);
    machine.write_file(&segment, &[before[positions[15] as usize + 8] ^ 1], positions[15] + 8);
    let damaged = machine.read_file(&segment);

    let (partition, report) = machine.open();
    let found: Vec<_> = report
        .events()
        .iter()
        .map(|event| match event {
            RecoveryEvent::Corruption { file, range, offsets, .. } => {
                assert_eq!(file, &segment);
                (range.clone(), offsets.clone())
            }
            event => panic!("{event}"),
        })
        .collect();
    let range = |at: usize| positions[at]..positions[at + 1];
    assert_eq!(found, [(range(12), 12..13), (range(15), 15..16)]);
    assert_eq!(machine.read_file(&segment), damaged);
    let (records, gaps) = read_around_damage(&partition);
    assert_eq!(gaps, [12..13, 15..16]);
    expected.remove(15);
    expected.remove(12);
    assert_eq!(records, expected);
    let error = read_all(&partition, 0).unwrap_err();
    assert_eq!((error.path(), error.file_position()), (Some(&*segment), Some(positions[12])));
    append_numbers(&partition, 30..31);
    assert_eq!(read_around_damage(&partition).0.len(), 29);
}

#[test]
fn a_file_cut_below_its_durable_mark_is_corruption_and_appends_go_on_behind() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..20);
    partition.close().unwrap();
    drop(partition);
    let segment = machine.segments().remove(0);
    let positions = frame_positions(&machine, &segment);
    machine.cut_file(&segment, positions[12] + 13);
    let (partition, report) = machine.open();
    let [RecoveryEvent::Corruption { range, offsets, .. }] = report.events() else { panic!("{report:?}") };
    assert_eq!((range.clone(), offsets.clone()), (positions[12]..positions[20], 12..20));
    let on = append_numbers(&partition, 20..21);
    assert!(on[0].0 >= 20);
    let (records, gaps) = read_around_damage(&partition);
    assert_eq!(records.len(), 13);
    assert_eq!((gaps.len(), gaps[0].start, gaps[0].end), (1, 12, on[0].0));
}

#[test]
fn a_tail_over_two_segments_goes_whole() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..10);
    partition.flush().unwrap();
    expected.extend(append_numbers(&partition, 10..20));
    partition.roll().unwrap();
    append_numbers(&partition, 20..30);
    drop(partition);
    machine.reboot();
    let segments = machine.segments();
    let positions = frame_positions(&machine, &segments[0]);
    machine.write_file(&segments[0], &[0; 64], positions[15]);
    let second = machine.read_file(&segments[1]);
    let (partition, report) = machine.open();
    let [RecoveryEvent::ReorderedTail(cut)] = report.events() else { panic!("{report:?}") };
    assert_eq!((cut.position, cut.end_offset, cut.kept_in.len()), (positions[15], 15, 2));
    assert_eq!(machine.read_file(&cut.kept_in[1]), second);
    assert_eq!(read_all(&partition, 0).unwrap(), expected[..15]);
    assert_eq!(machine.segments().len(), 1);
    append_numbers(&partition, 0..3000);
    assert_eq!(read_all(&partition, 0).unwrap().len(), 3015);
}

#[test]
fn a_new_segment_that_never_reached_the_device_is_no_loss() {
    for damage in ["missing", "zeros", "half a header"] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..10);
        partition.flush().unwrap();
        partition.roll().unwrap();
        append_numbers(&partition, 10..20);
        drop(partition);
        machine.reboot();
        let second = machine.segments().remove(1);
        match damage {
            "missing" => machine.storage.remove_file(&second).unwrap(),
            "zeros" => machine.write_file(&second, &vec![0; machine.read_file(&second).len()], 0),
            _ => {
                machine.write_file(&second, &[0; 50], 46);
                machine.write_file(&second, &[0; 4096], 4096);
            }
        }
        let (partition, report) = machine.open();
        assert!(
            matches!(report.events(), [] | [RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_)]),
            "{damage}: {report:?}"
        );
        assert_eq!(read_all(&partition, 0).unwrap(), expected, "{damage}");
        assert!(append_numbers(&partition, 20..21)[0].0 >= 20, "{damage}");
        assert_eq!(read_all(&partition, 0).unwrap().len(), 11, "{damage}");
    }
}

#[test]
fn one_good_header_copy_is_enough_and_without_any_the_segment_is_told() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..4000);
    let bases = partition.segment_base_offsets();
    partition.close().unwrap();
    drop(partition);
    let segments = machine.segments();
    machine.write_file(&segments[0], &[0; 96], 0);
    machine.write_file(&segments[1], &[0; 96], 4096);
    {
        let (partition, report) = machine.open();
        assert!(report.is_clean());
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        partition.close().unwrap();
    }
    machine.write_file(&segments[1], &[0; 96], 0);
    let (partition, _) = machine.open();
    let (records, gaps) = read_around_damage(&partition);
    assert_eq!(gaps, [bases[1]..bases[2]]);
    assert_eq!(records.len() as u64, 4000 - (bases[2] - bases[1]));
    assert!(Cursor::new(&partition, bases[1] + 5).unwrap().next_run(1).is_err());
}

#[test]
fn a_missing_segment_is_told_wherever_it_was() {
    for missing in [0, 1, 2] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..4000);
        let bases = partition.segment_base_offsets();
        partition.close().unwrap();
        drop(partition);
        machine.storage.remove_file(&machine.segments()[missing]).unwrap();
        let (partition, report) = machine.open();
        assert_eq!(report.is_clean(), missing != 0, "{report:?}");
        let (records, gaps) = read_around_damage(&partition);
        assert_eq!(gaps, [bases[missing]..bases[missing + 1]], "segment {missing}");
        assert_eq!(records.len() as u64, 4000 - (bases[missing + 1] - bases[missing]));
    }
}

#[test]
fn a_missing_active_segment_is_told_and_appends_go_on_in_a_new_one() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..4000);
    let last = *partition.segment_base_offsets().last().unwrap();
    partition.close().unwrap();
    drop(partition);
    machine.storage.remove_file(machine.segments().last().unwrap()).unwrap();
    let (partition, report) = machine.open();
    assert_eq!(report.events(), [RecoveryEvent::SegmentsMissing { offsets: last..4000 }]);
    let on = append_numbers(&partition, 4000..4001);
    assert!(on[0].0 >= 4000);
    let (records, gaps) = read_around_damage(&partition);
    assert_eq!(gaps, [last..partition.segment_base_offsets().last().copied().unwrap()]);
    assert_eq!(records.len() as u64, last + 1);
}

#[test]
fn a_lost_header_of_the_active_segment_is_all_that_is_told() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..4000);
    partition.flush().unwrap();
    let last = *partition.segment_base_offsets().last().unwrap();
    drop(partition);
    machine.reboot();
    let segment = machine.segments().pop().unwrap();
    machine.write_file(&segment, &[0; DATA_START as usize], 0);
    let (partition, report) = machine.open();
    match report.events() {
        [RecoveryEvent::Corruption { file, offsets, .. }] => assert_eq!((file, offsets.start), (&segment, last)),
        events => panic!("{events:?}"),
    }
    assert_eq!(read_around_damage(&partition).0.len() as u64, last);
}

#[test]
fn damage_in_the_last_frame_is_told_once_and_reading_goes_on_behind() {
    // A header and a body; the one loses the frame's length.
    for at in [8, 45] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let mut expected = append_numbers(&partition, 0..10);
        partition.close().unwrap();
        drop(partition);
        let segment = machine.segments().remove(0);
        let position = frame_positions(&machine, &segment)[9] + at;
        let byte = machine.read_file(&segment)[position as usize];
        machine.write_file(&segment, &[byte ^ 1], position);
        let (partition, _) = machine.open();
        expected.pop();
        assert_eq!(read_around_damage(&partition), (expected.clone(), vec![9..10]));
        let mut waiting = Cursor::new(&partition, 10).unwrap();
        assert!(waiting.next_run(1).unwrap().is_none() && waiting.at_end());
        expected.extend(append_numbers(&partition, 10..11));
        assert_eq!(waiting.next_run(1).unwrap().unwrap().last_offset, 10);
        assert_eq!(read_around_damage(&partition), (expected, vec![9..10]));
    }
}

#[test]
fn what_was_appended_behind_a_missing_segment_outlives_the_checkpoint() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..4000);
    let last = *partition.segment_base_offsets().last().unwrap();
    partition.close().unwrap();
    drop(partition);
    machine.storage.remove_file(machine.segments().last().unwrap()).unwrap();
    let (partition, _) = machine.open();
    let on = append_numbers(&partition, 0..100);
    partition.close().unwrap();
    drop(partition);
    machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::CheckpointLost { .. }]), "{report:?}");
    let (records, gaps) = read_around_damage(&partition);
    assert_eq!(gaps, [last..on[0].0]);
    assert_eq!(records[last as usize..], on);
}

#[test]
fn without_a_checkpoint_a_missing_segment_takes_none_with_it() {
    for missing in [1, 2] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..4000);
        let bases = partition.segment_base_offsets();
        let count = bases.len();
        partition.close().unwrap();
        drop(partition);
        let gone = if missing == 1 { 1 } else { count - 2 };
        machine.storage.remove_file(&machine.segments()[gone]).unwrap();
        machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
        let (partition, report) = machine.open();
        let offsets = bases[gone]..bases[gone + 1];
        match report.events() {
            [RecoveryEvent::SegmentsMissing { offsets: told }, RecoveryEvent::CheckpointLost { .. }] => {
                assert_eq!(told, &offsets);
            }
            events => panic!("{events:?}"),
        }
        let (records, gaps) = read_around_damage(&partition);
        assert_eq!(gaps, [offsets]);
        assert_eq!(records.last().unwrap().0, 3999);
    }
}

#[test]
fn beginning_anew_can_be_interrupted_anywhere() {
    for n in 1.. {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..4000);
        let last = *partition.segment_base_offsets().last().unwrap();
        partition.close().unwrap();
        drop(partition);
        machine.storage.remove_file(machine.segments().last().unwrap()).unwrap();
        let before = machine.storage.operations();
        machine.storage.fail_nth(n, std::io::ErrorKind::Interrupted, Repeat::Forever);
        let enough = machine.try_open().is_ok() && machine.storage.operations() - before < n;
        machine.storage.heal();
        machine.reboot();
        let (partition, report) = machine.open();
        let cut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_));
        assert!(!report.events().iter().any(cut), "interrupted at operation {n}: {report:?}");
        append_numbers(&partition, 0..1);
        let (records, gaps) = read_around_damage(&partition);
        assert_eq!((records.len() as u64, gaps), (last + 1, vec![last..4000]), "interrupted at operation {n}");
        if enough {
            assert!(n > 5, "only {n} operations");
            break;
        }
    }
}

#[test]
fn a_sync_of_a_segment_that_fails_in_a_recovery_poisons() {
    for n in 0.. {
        let (machine, expected) = after_power_loss(3, 6);
        let segment = machine.segments().remove(0);
        let positions = frame_positions(&machine, &segment);
        machine.write_file(&segment, &vec![0; (positions[6] - positions[5]) as usize], positions[5]);
        machine.storage.take_trace();
        let mut left: u32 = n;
        machine.storage.fail_if(move |operation, path| {
            let counts = operation == Operation::SyncData && path.extension().is_some_and(|it| it == "log");
            if counts {
                left = left.wrapping_sub(1);
            }
            (counts && left == u32::MAX).then_some(std::io::ErrorKind::Other)
        });
        let first = machine.try_open().map(|(partition, _)| partition.append(&Record::new("no"), None));
        let failed = machine.storage.take_trace().iter().any(|it| !it.succeeded);
        machine.storage.heal();
        if !failed {
            assert!(n > 0, "no sync at all");
            break;
        }
        assert_eq!(first.unwrap().unwrap_err().kind(), ErrorKind::Poisoned, "sync {n}");
        let (partition, report) = machine.open();
        let rewritten = |event: &RecoveryEvent| matches!(event, RecoveryEvent::Rewritten { .. });
        assert!(report.events().iter().any(rewritten), "sync {n}: {report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected[..5]);
    }
}

#[test]
fn all_segments_missing_is_told() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    drop(partition);
    machine.storage.remove_file(&machine.segments()[0]).unwrap();
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::SegmentsMissing { offsets }] if offsets.start == 0));
    let on = append_numbers(&partition, 0..1);
    assert!(on[0].0 >= 10);
    assert_eq!(read_around_damage(&partition).0, on);
}

#[test]
fn recovery_that_is_interrupted_anywhere_ends_the_same() {
    let damaged = || {
        let (machine, expected) = after_power_loss(5, 10);
        let segment = machine.segments().remove(0);
        let positions = frame_positions(&machine, &segment);
        machine.write_file(&segment, &[0x11; 20], positions[8]);
        (machine, expected)
    };
    for n in 1.. {
        let (machine, expected) = damaged();
        let before = machine.storage.operations();
        machine.storage.fail_nth(n, std::io::ErrorKind::Interrupted, Repeat::Forever);
        let enough = machine.try_open().is_ok() && machine.storage.operations() - before < n;
        machine.storage.heal();
        machine.reboot();
        let (partition, _) = machine.open();
        assert_eq!(read_all(&partition, 0).unwrap(), expected[..8], "interrupted at operation {n}");
        assert!(append_numbers(&partition, 0..1)[0].0 >= 15, "interrupted at operation {n}");
        let kept: Vec<_> = machine.files().into_iter().filter(|name| name.contains("torn")).collect();
        assert_eq!(kept.len(), 1, "interrupted at operation {n}: {kept:?}");
        assert!(kept.iter().all(|name| base_offset_of(name).is_none()));
        if enough {
            assert!(n > 5, "only {n} operations");
            break;
        }
    }
}

#[test]
fn a_recovery_without_a_checkpoint_that_poisons_cuts_nothing_when_it_is_done_again() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = Vec::new();
    for segment in 0..5 {
        expected.push(append_numbers(&partition, segment * 10..segment * 10 + 10));
        partition.roll().unwrap();
    }
    partition.flush().unwrap();
    drop(partition);
    machine.reboot();
    expected.remove(3);
    machine.storage.remove_file(&machine.segments()[3]).unwrap();
    machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
    machine.storage.fail_syncs(1);
    let (partition, _) = machine.open();
    assert_eq!(partition.append(&Record::new(""), None).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(read_around_damage(&partition).0, expected.concat());
    drop(partition);
    machine.storage.heal();
    let (partition, report) = machine.open();
    assert_eq!(read_around_damage(&partition).0, expected.concat(), "{report:?}");
    let cut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_));
    assert!(!report.events().iter().any(cut), "{report:?}");
    assert!(report.events().iter().any(|event| matches!(event, RecoveryEvent::SegmentsMissing { .. })), "{report:?}");
    partition.append(&Record::new("on"), None).unwrap();
}

#[test]
fn no_handle_is_closed_before_what_a_recovery_zeroed_is_synced() {
    for checkpoint in [true, false] {
        let (machine, _) = after_power_loss(5, 5);
        let segment = machine.segments().remove(0);
        let positions = frame_positions(&machine, &segment);
        machine.write_file(&segment, b"torn", positions[9] + 30);
        if !checkpoint {
            machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
        }
        machine.storage.take_closed_unsynced();
        let (_partition, report) = machine.open();
        assert!(report.events().iter().any(|event| matches!(event, RecoveryEvent::TornTail(_))), "{report:?}");
        // The control page is a cache.
        let closed =
            machine.storage.take_closed_unsynced().into_iter().filter(|path| !path.ends_with("partition.state"));
        assert_eq!(closed.collect::<Vec<_>>(), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_sync_that_failed_in_an_open_that_failed_is_not_trusted_later() {
    for checkpoint in [true, false] {
        let (machine, expected) = after_power_loss(5, 5);
        let dropped = machine.dir.join("partition.checkpoint");
        if !checkpoint {
            machine.storage.remove_file(&dropped).unwrap();
        }
        // A later step of the open fails too.
        machine.storage.fail_if(|operation, _| {
            let fails = matches!(operation, Operation::SyncData | Operation::SyncAll | Operation::Map);
            fails.then_some(std::io::ErrorKind::Other)
        });
        machine.try_open().unwrap_err();
        machine.storage.heal();
        let (partition, report) = machine.open();
        let rewritten = |event: &RecoveryEvent| matches!(event, RecoveryEvent::Rewritten { .. });
        assert!(report.events().iter().any(rewritten), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        partition.append(&Record::new("on"), None).unwrap();
    }
}

#[test]
fn all_segments_missing_is_told_also_behind_a_recovery_without_a_checkpoint_that_poisoned() {
    let (machine, _) = after_power_loss(5, 5);
    machine.storage.remove_file(&machine.dir.join("partition.checkpoint")).unwrap();
    machine.storage.fail_syncs(1);
    let (partition, _) = machine.open();
    let end = partition.end_offset();
    drop(partition);
    machine.storage.heal();
    for segment in machine.segments() {
        machine.storage.remove_file(&segment).unwrap();
    }
    let (partition, report) = machine.open();
    let told = |event: &RecoveryEvent| matches!(event, RecoveryEvent::SegmentsMissing { .. });
    assert!(report.events().iter().any(told), "{report:?}");
    assert!(partition.append(&Record::new("on"), None).unwrap() >= end);
}

/// The frame that tells what was durable lies behind the tear, and goes; the one before its end has rotted.
#[test]
fn damage_below_what_was_durable_stays_damage_however_the_recovery_that_cuts_ends() {
    // What fails: nothing, the recovery's own sync of the segment, or the checkpoint that settles its end (behind the slot
    // that is made sure of, and the one that keeps the mark).
    for (operation, name, nth) in
        [(None, "", 0), (Some(Operation::SyncData), ".log", 0), (Some(Operation::Write), ".checkpoint", 2)]
    {
        let (machine, expected) = after_power_loss(20, 22);
        let segment = machine.segments().remove(0);
        let positions = frame_positions(&machine, &segment);
        machine.write_file(&segment, &[0xff], positions[10] + 40);
        machine.write_file(&segment, &vec![0; (positions[21] - positions[20]) as usize], positions[20]);
        let mut left = nth;
        machine.storage.fail_if(move |what, path| {
            let meant = Some(what) == operation && path.to_string_lossy().ends_with(name);
            let fails = meant && left == 0;
            left -= u32::from(meant && left > 0);
            fails.then_some(std::io::ErrorKind::Other)
        });
        let first = machine.try_open().map(drop);
        machine.storage.heal();
        machine.reboot();
        let (partition, report) = machine.open();
        let cut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::TornTail(_) | RecoveryEvent::ReorderedTail(_));
        assert!(!report.events().iter().any(cut), "{operation:?}: {first:?}, {report:?}");
        let (records, gaps) = read_around_damage(&partition);
        assert_eq!(records, [&expected[..10], &expected[11..20]].concat(), "{operation:?}");
        assert_eq!((gaps.len(), gaps[0].start, gaps[0].end), (1, 10, 11), "{operation:?}");
    }
}
