use std::io;

use super::*;
use crate::{
    partition::{Opening, RecoveryEvent, segment::base_offset_of, tests::salvage::frame_positions},
    random::Sequence,
    segment_header::DATA_START,
    storage::sim::{Crash, Repeat, faults::Operation},
};

#[test]
fn a_failed_sync_poisons_and_the_mark_outlives_the_process() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..5);
    machine.storage.fail_syncs(1);
    // The record is published before it is synced: what is certain is that it was not acknowledged.
    let error = partition.append(&Record::new("record 5").key("key"), Some(Durability::Synced)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    expected.push((5, "record 5".into()));
    // The next sync would succeed, and is not trusted.
    assert_eq!(partition.flush().unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    assert_eq!(partition.close().unwrap_err().kind(), ErrorKind::Poisoned);
    drop(partition);

    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::Rewritten { files }] if files.len() == 1), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    let offset = partition.append(&Record::new("on"), Some(Durability::Synced)).unwrap();
    assert!(offset > 5);
    partition.close().unwrap();
    drop(partition);
    assert_eq!(machine.open().1.opening(), Opening::Clean);
}

#[test]
fn a_poisoned_partition_that_cant_be_rewritten_stays_readable_and_poisoned() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..5);
    machine.storage.fail_syncs(1);
    partition.flush().unwrap_err();
    drop(partition);
    for _ in 0..2 {
        machine.storage.fail_if(|operation, path| {
            let rewriting = operation == Operation::Create && path.ends_with("rewrite.tmp");
            rewriting.then_some(io::ErrorKind::StorageFull)
        });
        let (partition, report) = machine.open();
        assert!(matches!(report.events(), [RecoveryEvent::StillPoisoned { .. }]), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::Poisoned);
        machine.storage.heal();
    }
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::Rewritten { .. }]), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    partition.append(&Record::new("on"), Some(Durability::Synced)).unwrap();
}

#[test]
fn the_poison_mark_survives_a_reboot_or_a_lost_control_page() {
    for lost in ["reboot", "page"] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..5);
        machine.storage.fail_syncs(1);
        partition.flush().unwrap_err();
        drop(partition);
        match lost {
            "reboot" => machine.reboot(),
            _ => machine.storage.remove_file(&machine.dir.join("partition.state")).unwrap(),
        }
        let (_, report) = machine.open();
        assert!(matches!(report.events(), [RecoveryEvent::Rewritten { .. }]), "{lost}: {report:?}");
    }
}

#[test]
fn a_failed_background_flush_poisons_too() {
    let machine = Machine::new();
    machine.change(|settings| settings.durability = Durability::Interval(std::time::Duration::from_millis(1)));
    let (partition, _) = machine.open();
    machine.storage.fail_syncs(u64::MAX);
    let start = std::time::Instant::now();
    let error = loop {
        match partition.append(&Record::new("x"), None) {
            Ok(_) => assert!(start.elapsed().as_secs() < 30, "never poisoned"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Poisoned);
}

#[test]
fn writeback_that_fails_to_begin_poisons_as_a_failed_sync_does() {
    let machine = Machine::new();
    machine.change(|settings| settings.durability = Durability::Interval(std::time::Duration::from_millis(1)));
    let (partition, _) = machine.open();
    machine.storage.fail_if(|operation, _| (operation == Operation::StartWriteback).then_some(io::ErrorKind::Other));
    partition.append(&Record::new("x"), None).unwrap();
    wait_until("poisoned", || partition.check_poison().is_err());
    assert_eq!(partition.durable_offset(), 0);
    machine.storage.heal();
    drop(partition);
    let (_, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::Rewritten { .. }]), "{report:?}");
}

/// A machine whose process was killed while it synced `unsynced` records of 10 and more, in a segment of their own if `rolled`; and
/// what is to be read there.
fn killed_in_a_sync(unsynced: u64, rolled: bool) -> (Machine, Vec<(u64, String)>) {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let mut expected = append_numbers(&partition, 0..10);
    partition.flush().unwrap();
    expected.extend(append_numbers(&partition, 10..10 + unsynced));
    if rolled {
        partition.roll().unwrap();
        expected.extend(append_numbers(&partition, 10 + unsynced..12 + unsynced));
    }
    partition.control.set_syncing(true);
    drop(partition);
    (machine, expected)
}

#[test]
fn a_killed_sync_costs_nothing_where_the_device_has_it_all() {
    for rolled in [false, true] {
        let (machine, expected) = killed_in_a_sync(5, rolled);
        let (partition, report) = machine.open();
        assert_eq!((report.opening(), report.is_clean()), (Opening::Resumed, true), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        assert_eq!(append_numbers(&partition, 0..1)[0].0, expected.len() as u64);
    }
}

#[test]
fn what_a_killed_sync_has_lost_is_not_believed() {
    // The page cache let go of what it took for clean, and the device never had it.
    let (machine, expected) = killed_in_a_sync(200, false);
    let segment = machine.segments().remove(0);
    let positions = frame_positions(&machine, &segment);
    machine.write_file(&segment, &[0; 64], positions[30]);
    let (partition, report) = machine.open();
    assert_eq!(report.opening(), Opening::Scanned);
    let [RecoveryEvent::ReorderedTail(cut), RecoveryEvent::Rewritten { .. }] = report.events() else {
        panic!("{report:?}")
    };
    assert_eq!(cut.end_offset, 30);
    assert_eq!(read_all(&partition, 0).unwrap(), expected[..30]);
    partition.append(&Record::new("on"), Some(Durability::Synced)).unwrap();
}

#[test]
fn what_a_killed_sync_has_lost_is_written_anew_also_where_no_page_is_believed() {
    let (mut machine, expected) =
        (Machine::new(), Vec::from_iter((0..15).map(|number| (number, format!("record {number}")))));
    machine.storage = SimStorage::tracked();
    machine.storage.create_dir_all(&machine.dir).unwrap();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10);
    partition.flush().unwrap();
    append_numbers(&partition, 10..15);
    // A sync fails, and the process is killed before it is told: the pages count as clean.
    partition.control.set_syncing(true);
    let segment = machine.segments().remove(0);
    machine.storage.fail_syncs(1);
    machine.storage.open(&segment, OpenMode::ReadWrite).unwrap().sync_data().unwrap_err();
    machine.storage = machine.storage.crash(Crash::Kill, &mut Sequence::new(1));
    drop(partition);
    // As where the system can't tell one mount from another: the page isn't believed.
    machine.write_file(&machine.dir.join("partition.state"), &[0; 8], 0);
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::Rewritten { .. }]), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    for seed in 0..20 {
        let storage = machine.storage.crash(Crash::Power, &mut Sequence::new(seed));
        let after = Machine { storage, ..Machine::new() };
        assert_eq!(read_all(&after.open().0, 0).unwrap(), expected);
    }
}

#[test]
fn a_sync_that_fails_as_it_is_repeated_after_a_kill_poisons() {
    let (machine, expected) = killed_in_a_sync(5, false);
    machine.storage.fail_syncs(1);
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::StillPoisoned { .. }]), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
    drop(partition);
    let (partition, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::Rewritten { .. }]), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

#[test]
fn a_dead_flusher_poisons() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    // A panic inside of a sync is a panic of whoever syncs; here that is the flusher's thread.
    machine.storage.fail_if(|operation, path| match operation {
        Operation::SyncData if path.extension().is_some_and(|it| it == "log") => {
            panic!("a bug in the flusher (this message is part of a test)")
        }
        _ => None,
    });
    partition.append(&Record::new("x"), Some(Durability::Interval(std::time::Duration::from_millis(1)))).unwrap();
    let start = std::time::Instant::now();
    while partition.append(&Record::new("x"), None).is_ok() {
        assert!(start.elapsed().as_secs() < 30, "never poisoned");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_is_an_error_reads_go_on_and_so_do_appends_once_there_is_space() {
    for positional_appends in [false, true] {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        let mut expected = append_numbers(&partition, 0..10);
        // Enough for the active segment's rest but not for long, then not for one more block.
        for space in [100 << 10, 50 << 10, 0] {
            machine.storage.limit_space(Some(machine.storage.used_space() + space));
            let error = loop {
                let value = format!("record {}", expected.len());
                match partition.append(&Record::new(&*value).key("key"), None) {
                    Ok(offset) => expected.push((offset, value)),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            assert_eq!(read_all(&partition, 0).unwrap(), expected);
            assert!(!machine.files().iter().any(|name| name.ends_with(".tmp")), "{:?}", machine.files());
            machine.storage.limit_space(None);
            let from = expected.len() as u64;
            expected.extend(append_numbers(&partition, from..from + 10));
        }
        assert_eq!(expected.iter().map(|it| it.0).collect::<Vec<_>>(), (0..expected.len() as u64).collect::<Vec<_>>());
        partition.close().unwrap();
        drop(partition);
        let (partition, report) = machine.open();
        assert!(report.is_clean());
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
    }
}

#[test]
fn whatever_operation_fails_nothing_acknowledged_is_lost() {
    for n in 1.. {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let mut acknowledged = append_numbers(&partition, 0..100);
        machine.storage.fail_nth(n, io::ErrorKind::Other, Repeat::Once);
        let before = machine.storage.operations();
        for number in 100..2500 {
            let value = format!("record {number}");
            if let Ok(offset) = partition.append(&Record::new(&*value).key("key"), None) {
                acknowledged.push((offset, value));
            }
            if number % 700 == 0 {
                let _ = partition.flush();
            }
        }
        let enough = machine.storage.operations() - before < n;
        machine.storage.heal();
        let _ = partition.close();
        drop(partition);
        let (partition, _) = machine.open();
        let found = read_all(&partition, 0).unwrap();
        assert!(acknowledged.iter().all(|record| found.contains(record)), "operation {n}");
        assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "operation {n}");
        partition.append(&Record::new("on"), Some(Durability::Synced)).unwrap();
        if enough {
            assert!(n > 20, "only {n} operations failed");
            break;
        }
    }
}

#[test]
fn the_first_append_after_a_clean_close_waits_for_its_ceiling() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3);
    partition.close().unwrap();
    drop(partition);
    let (partition, _) = machine.open();
    machine.storage.fail_if(|operation, path| {
        let checkpoint = operation == Operation::Write && path.ends_with("partition.checkpoint");
        checkpoint.then_some(io::ErrorKind::StorageFull)
    });
    let error = partition.append(&Record::new("no"), None).unwrap_err();
    assert_eq!((error.kind(), partition.end_offset()), (ErrorKind::StorageFull, 3));
    machine.storage.heal();
    assert_eq!(partition.append(&Record::new("yes"), None).unwrap(), 3);
}

#[test]
fn a_closed_partition_answers_closed_and_can_be_read() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let expected = append_numbers(&partition, 0..3);
    partition.close().unwrap();
    partition.close().unwrap();
    assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(partition.flush().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(partition.roll().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

#[test]
fn a_full_disk_doesnt_keep_a_partition_from_being_opened_and_read() {
    for close in [true, false] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..3000);
        if close {
            partition.close().unwrap();
        }
        drop(partition);
        // Not even the caches are there any more.
        for name in machine.files().iter().filter(|name| name.ends_with(".index") || *name == "partition.state") {
            machine.storage.remove_file(&machine.dir.join(name)).unwrap();
        }
        machine.storage.limit_space(Some(0));
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        assert_eq!(read_all(&partition, 2000).unwrap(), expected[2000..]);
        while let Ok(offset) = partition.append(&Record::new("x"), None) {
            assert!(offset < 10_000_000, "the disk is full");
        }
        machine.storage.limit_space(None);
        partition.append(&Record::new("on"), Some(Durability::Synced)).unwrap();
        partition.close().unwrap();
    }
}

#[test]
fn a_mark_of_poison_is_kept_also_while_the_checkpoint_is_being_written() {
    // Here the control page doesn't outlive the process, so all depends on the checkpoint.
    let machine = Machine { positional_appends: true, ..Machine::new() };
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..5);
    let (writing, is_writing) = std::sync::mpsc::channel();
    machine.storage.fail_if({
        let partition = Arc::downgrade(&partition);
        move |operation, path| {
            if operation == Operation::Write && path.ends_with("partition.checkpoint") {
                let _ = writing.send(());
                let sound = || partition.upgrade().is_some_and(|partition| partition.check_poison().is_ok());
                while sound() {
                    std::thread::yield_now();
                }
                // Whoever poisons has its chance to find the checkpoint locked.
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
            None
        }
    });
    std::thread::scope(|scope| {
        scope.spawn(|| partition.raise_ceiling(10));
        is_writing.recv().unwrap();
        partition.poison("a test says so");
    });
    drop(partition);
    machine.storage.heal();
    let (_, report) = machine.open();
    assert!(matches!(report.events(), [RecoveryEvent::Rewritten { .. }]), "{report:?}");
}

#[test]
fn a_ceiling_that_cant_be_raised_holds_up_no_flush() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..5);
    machine.storage.fail_if(|operation, path| {
        let checkpoint = operation == Operation::Write && path.ends_with("partition.checkpoint");
        checkpoint.then_some(io::ErrorKind::StorageFull)
    });
    partition.ceiling_requested.store(true, Ordering::Release);
    partition.maintain(std::time::Instant::now()).unwrap_err();
    assert_eq!(partition.durable_offset(), 5);
    // Nor does one that can't be written down behind a roll: it only makes a later scan longer.
    partition.roll().unwrap();
    let offset = partition.append(&Record::new("synced"), Some(Durability::Synced)).unwrap();
    assert_eq!(partition.durable_offset(), offset + 1);
    assert_eq!(partition.append(&Record::new("on"), None).unwrap(), offset + 1);
}

#[test]
fn an_unclean_open_that_cant_write_its_checkpoint_poisons_nothing_and_appends_go_on_with_space() {
    for reboot in [false, true] {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..10);
        drop(partition);
        if reboot {
            machine.reboot();
        }
        // As on a copy-on-write file system without space: what was written once can't be written again.
        let full = |operation, path: &Path| {
            let write = operation == Operation::Write && path.ends_with("partition.checkpoint");
            write.then_some(io::ErrorKind::StorageFull)
        };
        machine.storage.fail_if(full);
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        let epoch = partition.epoch;
        assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::StorageFull);
        machine.storage.heal();
        let offset = partition.append(&Record::new("on"), None).unwrap();
        assert_eq!(offset == 10, !reboot, "offset {offset}");
        drop(partition);
        let (partition, report) = machine.open();
        assert!(report.is_clean() && partition.epoch > epoch, "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap().len(), 11);
    }
}

#[test]
fn a_mark_of_poison_outlives_a_process_whose_control_page_is_in_memory_and_whose_disk_is_full() {
    for positional_appends in [false, true] {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..10);
        machine.storage.fail_if(|operation, path| match operation {
            Operation::SyncData => Some(io::ErrorKind::Other),
            Operation::Write if path.ends_with("partition.checkpoint") => Some(io::ErrorKind::StorageFull),
            _ => None,
        });
        partition.flush().unwrap_err();
        drop(partition);
        machine.storage.heal();
        let (partition, report) = machine.open();
        let rewritten = |event: &RecoveryEvent| matches!(event, RecoveryEvent::Rewritten { .. });
        assert!(report.events().iter().any(rewritten), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        partition.append(&Record::new("on"), None).unwrap();
        drop(partition);
        let (_, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
    }
}

#[test]
fn whatever_comes_behind_a_checkpoint_that_couldnt_be_written_uses_no_offset_twice() {
    type Act = fn(&Arc<PartitionLog>);
    let acts: [Act; 5] = [
        |_| {},
        |partition| drop(partition.roll().and_then(|()| partition.flush())),
        |partition| drop(partition.delete_segments_before(20)),
        |partition| drop(partition.close()),
        |partition| partition.poison("for a test"),
    ];
    for (at, act) in acts.into_iter().enumerate() {
        for healed in [false, true] {
            for reboots in [[false, false], [false, true], [true, false], [true, true]] {
                let machine = Machine::new();
                let (partition, _) = machine.open();
                append_numbers(&partition, 0..10);
                partition.roll().unwrap();
                append_numbers(&partition, 10..20);
                partition.roll().unwrap();
                append_numbers(&partition, 20..30);
                drop(partition);
                if reboots[0] {
                    machine.reboot();
                }
                machine.storage.fail_if(|operation, path| {
                    let write = operation == Operation::Write && path.ends_with("partition.checkpoint");
                    write.then_some(io::ErrorKind::StorageFull)
                });
                let (partition, report) = machine.open();
                assert!(report.is_clean(), "{report:?}");
                let epoch = partition.epoch;
                if healed {
                    machine.storage.heal();
                }
                act(&partition);
                machine.storage.heal();
                let case = format!("{at} {healed} {reboots:?}");
                let used = match partition.append(&Record::new("on"), None) {
                    Ok(offset) => Some(offset),
                    Err(error) => {
                        assert!(matches!(error.kind(), ErrorKind::Closed | ErrorKind::Poisoned), "{case}: {error}");
                        None
                    }
                };
                drop(partition);
                if reboots[1] {
                    machine.reboot();
                    // The power took what wasn't synced.
                    if used.is_some() {
                        let last = machine.segments().pop().unwrap();
                        let len = machine.read_file(&last).len() as u64;
                        let base = base_offset_of(last.file_name().unwrap().to_str().unwrap());
                        if base.unwrap() >= 30 {
                            machine.cut_file(&last, DATA_START);
                            machine.cut_file(&last, len);
                        }
                    }
                }
                let (partition, report) = machine.open();
                let first = partition.append(&Record::new("next"), None).unwrap();
                assert!(first > used.unwrap_or(29), "{case}: {first} after {used:?}, {report:?}");
                assert!(used.is_none() || partition.epoch > epoch, "{case}");
                let read = read_all(&partition, partition.start_offset()).unwrap();
                let old = read.iter().filter(|(offset, _)| (20..30).contains(offset)).count();
                assert_eq!(old, 10, "{case}: {report:?}");
            }
        }
    }
}
