//! Opening on a full disk: whatever the last process left, and however little space there is.

use super::*;
use crate::{
    partition::{RecoveryEvent, segment::base_offset_of, tests::salvage::frame_positions},
    storage::sim::faults::Operation,
};

/// What the last process left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Closed,
    Killed,
    WithoutPower,
    /// Without power, and the last frame is torn.
    Torn,
    /// As torn, with a whole segment behind.
    TornWithMoreBehind,
    Poisoned,
    PoisonedAndTorn,
}

impl Left {
    const ALL: [Self; 7] = [
        Self::Closed,
        Self::Killed,
        Self::WithoutPower,
        Self::Torn,
        Self::TornWithMoreBehind,
        Self::Poisoned,
        Self::PoisonedAndTorn,
    ];

    /// A machine that is left so, and what is to be read there.
    fn machine(self, positional_appends: bool) -> (Machine, Vec<(u64, String)>) {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        let mut expected = append_numbers(&partition, 0..300);
        partition.flush().unwrap();
        expected.extend(append_numbers(&partition, 300..400));
        if self == Self::Closed {
            partition.close().unwrap();
        }
        if matches!(self, Self::Poisoned | Self::PoisonedAndTorn) {
            machine.storage.fail_syncs(1);
            partition.flush().unwrap_err();
        }
        if self == Self::TornWithMoreBehind {
            partition.roll().unwrap();
            append_numbers(&partition, 400..450);
        }
        drop(partition);
        if !matches!(self, Self::Closed | Self::Killed) {
            machine.reboot();
        }
        if matches!(self, Self::Torn | Self::TornWithMoreBehind | Self::PoisonedAndTorn) {
            let segment = machine.segments().remove(0);
            let at = frame_positions(&machine, &segment)[399];
            machine.write_file(&segment, &[0xa5; 50], at + 4);
            expected.truncate(399);
        }
        (machine, expected)
    }
}

fn values(records: &[(u64, String)]) -> Vec<&str> {
    records.iter().map(|(_, value)| value.as_str()).collect()
}

#[test]
fn however_little_space_there_is_a_partition_opens_is_read_and_goes_on_with_more() {
    for left in Left::ALL {
        for positional_appends in [false, true] {
            let mut waited = 0;
            for blocks in 0..24 {
                let what = format!("{left:?}, {blocks} blocks, positional: {positional_appends}");
                let (machine, mut expected) = left.machine(positional_appends);
                machine.storage.limit_space(Some(machine.storage.used_space() + blocks * 4096));
                let (partition, report) = machine.try_open().unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(read_all(&partition, 0).unwrap(), expected, "{what}");
                let still = |event: &RecoveryEvent| matches!(event, RecoveryEvent::StillPoisoned { .. });
                let poisoned = report.events().iter().any(still);
                let uncut = |event: &RecoveryEvent| matches!(event, RecoveryEvent::UncutTail { .. });
                waited += u64::from(poisoned || report.events().iter().any(uncut));
                match partition.append(&Record::new("in between"), Some(Durability::Synced)) {
                    Ok(offset) => expected.push((offset, "in between".into())),
                    Err(error) if poisoned => assert_eq!(error.kind(), ErrorKind::Poisoned, "{what}"),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::StorageFull, "{what}: {error}"),
                }
                assert!(!machine.files().iter().any(|name| name.ends_with("rewrite.tmp")), "{what}");
                // Killed once more on the full disk, then closed there: what was found is found again.
                drop(partition);
                let (partition, _) = machine.try_open().unwrap_or_else(|error| panic!("{what}, again: {error}"));
                assert_eq!(read_all(&partition, 0).unwrap(), expected, "{what}");
                assert_eq!(partition.close().is_ok(), partition.check_poison().is_ok(), "{what}");
                drop(partition);

                let (mut partition, _) = machine.open();
                machine.storage.limit_space(None);
                if partition.check_poison().is_err() {
                    drop(partition);
                    partition = machine.open().0;
                }
                expected.push((partition.append(&Record::new("on"), Some(Durability::Synced)).unwrap(), "on".into()));
                partition.close().unwrap();
                drop(partition);
                let (partition, report) = machine.open();
                assert!(report.is_clean(), "{what}: {report:?}");
                let found = read_all(&partition, 0).unwrap();
                assert_eq!(values(&found), values(&expected), "{what}");
                assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "{what}");
            }
            let waits = matches!(left, Left::Closed | Left::Killed | Left::WithoutPower);
            assert_eq!(waited == 0, waits, "{left:?}: {waited} opens had to wait for space");
            assert!(waited < 24, "{left:?}: no space was ever enough");
        }
    }
}

#[test]
fn a_tail_that_waits_for_space_is_copied_before_it_is_cut() {
    for how in ["appended to", "rolled"] {
        let (machine, expected) = Left::TornWithMoreBehind.machine(false);
        let segments = machine.segments();
        let torn = machine.read_file(&segments[0]);
        let later = machine.read_file(&segments[1]);
        machine.storage.limit_space(Some(machine.storage.used_space()));
        let (partition, report) = machine.open();
        let [RecoveryEvent::UncutTail { cut, .. }] = report.events() else { panic!("{report:?}") };
        assert_eq!((&cut.file, cut.kept_in.len(), cut.end_offset), (&segments[0], 0, 399));
        let position = cut.position as usize;
        assert_eq!(partition.roll().unwrap_err().kind(), ErrorKind::StorageFull);
        let now = machine.read_file(&segments[0]);
        assert!(now[..torn.len()] == torn, "nothing was changed");
        assert!(machine.segments() == segments, "nor set aside");
        machine.storage.limit_space(None);
        match how {
            "rolled" => partition.roll().unwrap(),
            _ => drop(append_numbers(&partition, 1..2)),
        }
        let kept = |mark: &str| {
            let name = machine.files().into_iter().find(|name| name.contains(mark)).unwrap();
            machine.read_file(&machine.dir.join(name))
        };
        let copy = kept(".torn-");
        assert!(!copy.is_empty() && torn[position..][..copy.len()] == copy);
        assert!(kept(".log.torn") == later);
        assert_eq!(read_all(&partition, 0).unwrap()[..399], expected);
        // Now the page is one to believe.
        drop(partition);
        assert_eq!(machine.open().1.opening(), crate::Opening::Resumed, "{how}");
    }
}

#[test]
fn a_partition_with_a_tail_that_waits_for_space_can_be_deleted() {
    let (machine, _) = Left::Torn.machine(false);
    machine.storage.limit_space(Some(machine.storage.used_space()));
    let (partition, _) = machine.open();
    partition.delete();
    assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::UnknownTopic);
}

/// Whoever sets the tail aside works in files by whose names a topic that is created anew has others.
#[test]
fn deleting_waits_for_whoever_sets_the_tail_aside() {
    let (machine, _) = Left::Torn.machine(false);
    machine.storage.limit_space(Some(machine.storage.used_space()));
    let (partition, _) = machine.open();
    let busy = partition.torn.lock();
    let deleting = std::thread::spawn({
        let partition = partition.clone();
        move || partition.delete()
    });
    wait_until("deleted", || partition.is_closed());
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert!(!deleting.is_finished());
    drop(busy);
    deleting.join().unwrap();
    assert!(!partition.has_torn_tail());
}

#[test]
fn a_tail_that_waits_for_space_outlives_a_close() {
    let (machine, expected) = Left::Torn.machine(false);
    let segment = machine.segments().remove(0);
    let torn = machine.read_file(&segment);
    machine.storage.limit_space(Some(machine.storage.used_space()));
    machine.open().0.close().unwrap();
    assert!(machine.read_file(&segment)[..torn.len()] == torn, "nothing was changed");
    machine.storage.limit_space(None);
    let (partition, report) = machine.open();
    let [RecoveryEvent::TornTail(cut)] = report.events() else { panic!("{report:?}") };
    let kept = machine.read_file(&cut.kept_in[0]);
    assert!(kept[..] == torn[cut.position as usize..][..kept.len()]);
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

#[test]
fn a_failed_sync_of_a_cut_that_waited_for_space_poisons() {
    let (machine, expected) = Left::Torn.machine(false);
    machine.storage.limit_space(Some(machine.storage.used_space()));
    let (partition, _) = machine.open();
    machine.storage.limit_space(None);
    machine.storage.fail_if(|operation, path| {
        let segment = path.file_name().is_some_and(|name| base_offset_of(&name.to_string_lossy()).is_some());
        (operation == Operation::SyncData && segment).then_some(std::io::ErrorKind::Other)
    });
    assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::Io);
    machine.storage.heal();
    assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(partition.close().unwrap_err().kind(), ErrorKind::Poisoned);
    drop(partition);
    let (partition, report) = machine.open();
    assert!(report.events().iter().any(|event| matches!(event, RecoveryEvent::Rewritten { .. })), "{report:?}");
    assert_eq!(read_all(&partition, 0).unwrap(), expected);
}

#[test]
fn where_a_length_takes_space_a_partition_opens_all_the_same() {
    for left in [Left::Closed, Left::Killed] {
        let (machine, expected) = left.machine(true);
        machine.storage.fail_if(|operation, _| {
            let full = matches!(operation, Operation::SetLen | Operation::Create | Operation::Write);
            full.then_some(std::io::ErrorKind::StorageFull)
        });
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(read_all(&partition, 0).unwrap(), expected);
        assert_eq!(partition.append(&Record::new("no"), None).unwrap_err().kind(), ErrorKind::StorageFull);
        machine.storage.heal();
        append_numbers(&partition, 400..402);
        partition.close().unwrap();
        drop(partition);
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(values(&read_all(&partition, 0).unwrap())[..400], values(&expected));
    }
}
