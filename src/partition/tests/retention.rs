use std::{io, sync::atomic::Ordering, thread};

use proptest::prelude::*;

use super::*;
use crate::{
    clock::{Apart, Clock},
    partition::{Opening, Removed, segment::SegmentSlot},
    storage::sim::{Repeat, faults::Operation},
};

const AGE_MS: i64 = 10_000;

/// A machine whose partitions keep records for ten seconds.
fn by_age() -> Machine {
    let machine = Machine::new();
    machine.change(|settings| settings.retention_ms = Some(AGE_MS as u64));
    machine
}

/// A machine whose partitions keep so many bytes.
fn by_size(bytes: u64) -> Machine {
    let machine = Machine::new();
    machine.change(|settings| settings.retention_bytes = Some(bytes));
    machine
}

fn values(partition: &Arc<PartitionLog>) -> Vec<String> {
    let start = partition.start_offset();
    read_all(partition, start).unwrap().into_iter().map(|(_, value)| value).collect()
}

#[test]
fn nothing_goes_where_nothing_is_asked() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3000);
    machine.advance_ms(i64::from(u32::MAX) * 100);
    machine.storage.take_trace();
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    assert_eq!(machine.storage.take_trace(), []);
    assert_eq!(values(&partition).len(), 3000);
}

#[test]
fn a_segment_goes_once_its_newest_record_is_older_and_not_a_moment_before() {
    let machine = by_age();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    machine.advance_ms(5000);
    append_numbers(&partition, 1..2);
    partition.roll().unwrap();
    // What comes next is late: the segment behind it doesn't tell when this one's last record came.
    machine.advance_ms(4000);
    append_numbers(&partition, 2..3);
    machine.advance_ms(AGE_MS - 4000);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    machine.advance_ms(1);
    let bytes = bytes_of(&partition, 0);
    assert_eq!(partition.enforce_retention().unwrap(), Removed { segments: 1, bytes });
    assert_eq!((partition.start_offset(), values(&partition)), (2, vec!["record 2".to_owned()]));
    assert_eq!(machine.segments().len(), 1);
}

#[test]
fn a_partition_that_nobody_writes_to_forgets_everything_once() {
    for reopened in [false, true] {
        let machine = by_age();
        let (mut partition, _) = machine.open();
        append_numbers(&partition, 0..10);
        machine.advance_ms(AGE_MS + 1);
        if reopened {
            drop(partition);
            machine.reboot();
            partition = machine.open().0;
        }
        assert_eq!(partition.enforce_retention().unwrap().segments, 1);
        let end = partition.end_offset();
        assert_eq!((partition.start_offset(), values(&partition).len()), (end, 0));
        assert_eq!(machine.segments().len(), 1);
        machine.storage.take_trace();
        machine.advance_ms(100 * AGE_MS);
        assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
        assert_eq!(machine.storage.take_trace(), [], "an empty segment stays as it is");
        assert_eq!(partition.append(&Record::new("on"), None).unwrap(), end);
        partition.close().unwrap();
        drop(partition);
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(values(&partition), ["on"]);
    }
}

#[test]
fn a_record_in_an_old_segment_is_not_as_old_as_the_segment() {
    for reboot in [false, true] {
        let machine = by_age();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..1);
        machine.advance_ms(AGE_MS * 100);
        append_numbers(&partition, 1..2);
        partition.flush().unwrap();
        // Written down as durable, so that an unclean open has no need to read it.
        let end = partition.control.durable();
        partition.update_checkpoint(|state| (state.durable, state.durable_offset) = (end, 2)).unwrap();
        drop(partition);
        if reboot {
            machine.reboot();
        }
        let (partition, _) = machine.open();
        assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
        assert_eq!(values(&partition).len(), 2);
    }
}

#[test]
fn size_keeps_at_least_what_was_asked_for_and_never_ends_the_active_segment() {
    let machine = by_size(150 << 10);
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..10_000);
    let before = partition.stats().unwrap();
    assert!(before.bytes > 500 << 10);
    let oldest = bytes_of(&partition, 0);
    let removed = partition.enforce_retention().unwrap();
    let after = partition.stats().unwrap();
    assert_eq!(after.bytes, before.bytes - removed.bytes);
    assert_eq!(after.segments as u64, before.segments as u64 - removed.segments);
    assert!((150 << 10..(150 << 10) + oldest).contains(&after.bytes), "{after:?}");
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    machine.change(|settings| settings.retention_bytes = Some(0));
    partition.enforce_retention().unwrap();
    assert_eq!(partition.stats().unwrap().segments, 1, "settings count from the next check on");
    assert!(!values(&partition).is_empty());
}

#[test]
fn a_time_that_a_client_names_is_kept_and_keeps_nothing_nor_lets_it_go() {
    let machine = by_age();
    let (partition, _) = machine.open();
    let times = [i64::MIN, 0, 1_699_999_999_999, 4_000_000_000_000, i64::MAX];
    for time in times {
        partition.append(&Record::new("x").timestamp_ms(time), None).unwrap();
    }
    machine.advance_ms(AGE_MS);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    let run = Cursor::new(&partition, 0).unwrap().next_run(1 << 20).unwrap().unwrap();
    let batch = Batch::new(vec![run]);
    assert_eq!(batch.iter().map(|record| record.timestamp_ms()).collect::<Vec<_>>(), times);
    assert!(batch.iter().all(|record| record.append_time_ms() == 1_700_000_000_000));
    machine.advance_ms(1);
    assert_eq!(partition.enforce_retention().unwrap().segments, 1);
    assert_eq!(values(&partition).len(), 0);
}

#[test]
fn a_clock_that_jumps_back_or_stands_lets_nothing_go_early() {
    const YEARS: i64 = 10 * 365 * 86_400_000;
    let machine = by_age();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    // For a moment, in which nobody looks, the clock is ten years ahead.
    machine.advance_ms(YEARS);
    append_numbers(&partition, 1..2);
    machine.advance_ms(-YEARS);
    append_numbers(&partition, 2..3);
    for _ in 0..3 {
        assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    }
    // The first record ages as if nothing had been.
    machine.advance_ms(AGE_MS);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    machine.advance_ms(1);
    assert_eq!(partition.enforce_retention().unwrap().segments, 1);
    assert_eq!(values(&partition), ["record 1", "record 2"]);
    // The others are as young as the log's time says.
    machine.advance_ms(YEARS - 1);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    machine.advance_ms(1);
    assert_eq!(partition.enforce_retention().unwrap().segments, 1);
    // Extremes of the clock are no reason to fall over.
    for time in [i64::MIN, i64::MAX, 0] {
        machine.now_ms.store(time, Ordering::Relaxed);
        append_numbers(&partition, 3..4);
        partition.enforce_retention().unwrap();
    }
}

#[test]
fn a_clock_that_leaps_ahead_while_the_log_is_open_lets_nothing_go_early() {
    const YEARS: i64 = 10 * 365 * 86_400_000;
    let (mut machine, hands) = (by_age(), Arc::new(Apart::default()));
    machine.clock = Clock::Apart(hands.clone());
    let pass = |ms: i64, leap: i64| {
        hands.now_ms.fetch_add(ms + leap, Ordering::Relaxed);
        hands.passed_ms.fetch_add(ms, Ordering::Relaxed);
    };
    let (partition, _) = machine.open();
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    append_numbers(&partition, 0..1);
    partition.roll().unwrap();
    pass(1000, YEARS);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    append_numbers(&partition, 1..2);
    partition.roll().unwrap();
    append_numbers(&partition, 2..3);
    // The first one is as old as it has to be, and the clock still can't say so. A moment later both are right.
    pass(AGE_MS - 1000, 0);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    pass(1, 0);
    // With the empty one behind it, whose times don't reach ten years.
    assert_eq!(partition.enforce_retention().unwrap().segments, 2);
    assert_eq!(values(&partition), ["record 1", "record 2"]);
    pass(999, 0);
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    pass(1, 0);
    assert_eq!(partition.enforce_retention().unwrap().segments, 2);
    assert_eq!(values(&partition).len(), 0);
}

/// The last frame can't tell when it was appended, and the clock isn't where it was: what others of the segment tell
/// counts.
#[test]
fn a_damaged_last_frame_and_a_clock_set_back_let_nothing_go_early() {
    // No more than the times of one segment's frames can span.
    const DAYS_MS: i64 = 30 * 86_400_000;
    let machine = by_age();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..1);
    machine.advance_ms(DAYS_MS);
    append_numbers(&partition, 1..10);
    partition.close().unwrap();
    drop(partition);
    // Opened and killed: the mark of the clean close isn't believed any more, what is durable is.
    drop(machine.open());
    machine.reboot();
    let segment = machine.segments().remove(0);
    let last = super::salvage::frame_positions(&machine, &segment)[9];
    machine.write_file(&segment, &[0xff; 16], last);
    machine.advance_ms(-DAYS_MS);
    let (partition, report) = machine.open();
    assert_eq!(report.opening(), Opening::Scanned);
    let next = append_numbers(&partition, 10..11)[0].0;
    assert!(time_of(&partition, next) >= time_of(&partition, 8), "times fall");
    partition.roll().unwrap();
    machine.advance_ms(DAYS_MS);
    partition.enforce_retention().unwrap();
    assert_eq!(partition.start_offset(), 0, "nothing is older than the limit");
}

#[test]
fn who_reads_in_what_goes_reads_on_and_who_comes_later_is_told_where_to() {
    let machine = by_size(0);
    let (partition, _) = machine.open();
    let partition = &partition;
    thread::scope(|scope| {
        let cursors = [(); 3].map(|()| Cursor::new(partition, 0).unwrap());
        let writer = scope.spawn(|| append_numbers(partition, 0..40_000).len());
        let readers: Vec<_> = cursors
            .into_iter()
            .map(|mut cursor| {
                scope.spawn(move || {
                    let (mut read, mut told) = (0, 0);
                    while cursor.position() < 40_000 {
                        match cursor.next_run(1 << 14) {
                            Ok(Some(run)) => {
                                for record in &Batch::new(vec![run]) {
                                    let value = format!("record {}", record.offset());
                                    assert_eq!(record.value().unwrap(), value.as_bytes());
                                    read += 1;
                                }
                            }
                            Ok(None) => thread::yield_now(),
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
                                let resume = error.resume_offset().unwrap();
                                assert!(resume > cursor.position());
                                // It may have gone on meanwhile.
                                let _ = cursor.seek(resume);
                                told += 1;
                            }
                        }
                    }
                    (read, told)
                })
            })
            .collect();
        let mut removed = 0;
        while !writer.is_finished() {
            removed += partition.enforce_retention().unwrap().segments;
        }
        assert!(removed > 10, "{removed}");
        for reader in readers {
            let (read, told) = reader.join().unwrap();
            assert!(read == 40_000 || told > 0, "{read}");
        }
    });
}

#[test]
fn ten_thousand_segments_are_looked_into_once() {
    let machine = by_size(u64::MAX >> 1);
    let (partition, _) = machine.open();
    for number in 0..200 {
        append_numbers(&partition, number..number + 1);
        partition.roll().unwrap();
    }
    partition.close().unwrap();
    drop(partition);
    let (partition, _) = machine.open();
    partition.enforce_retention().unwrap();
    // By what is known: of files that are gone nothing could be read any more.
    for path in machine.segments() {
        machine.storage.remove_file(&path).unwrap();
    }
    assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
    machine.change(|settings| settings.retention_bytes = Some(0));
    assert_eq!(partition.enforce_retention().unwrap().segments, 200);
}

#[test]
fn by_age_alone_only_the_oldest_segments_are_looked_into() {
    let machine = by_age();
    let (partition, _) = machine.open();
    for number in 0..20 {
        append_numbers(&partition, number..number + 1);
        machine.advance_ms(1000);
        partition.roll().unwrap();
    }
    machine.advance_ms(-5000);
    partition.close().unwrap();
    drop(partition);
    let (partition, _) = machine.open();
    // 15 s have passed since the first, 10 s since the one with number 5.
    assert_eq!(partition.enforce_retention().unwrap().segments, 5);
    let known = |slot: &&Arc<SegmentSlot>| slot.known_newest_ms().is_some();
    assert_eq!(partition.segments.load().iter().filter(known).count(), 1);
}

#[test]
fn a_damaged_segment_goes_when_those_around_it_do_and_counts_for_nothing() {
    let machine = by_size(1 << 40);
    let (partition, _) = machine.open();
    for number in 0..4 {
        append_numbers(&partition, number..number + 1);
        partition.roll().unwrap();
        machine.advance_ms(1000);
    }
    let whole = partition.stats().unwrap().bytes;
    let each = bytes_of(&partition, 0);
    partition.close().unwrap();
    drop(partition);
    for position in [0, 4096] {
        machine.write_file(&machine.segments()[1], &[0xff; 64], position);
    }
    let (partition, _) = machine.open();
    assert_eq!(partition.stats().unwrap().bytes, whole - each);
    assert_eq!(bytes_of(&partition, 0), each);
    machine.change(|settings| (settings.retention_bytes, settings.retention_ms) = (None, Some(3500)));
    // The first one's record is told by itself, the damaged one's by where the next segment begins.
    assert_eq!(partition.enforce_retention().unwrap().segments, 1);
    machine.advance_ms(500);
    assert_eq!(partition.enforce_retention().unwrap().segments, 0);
    machine.advance_ms(1);
    assert_eq!(partition.enforce_retention().unwrap(), Removed { segments: 1, bytes: 0 });
    assert_eq!((partition.start_offset(), values(&partition).len()), (2, 2));
}

#[test]
fn a_full_disk_keeps_nothing_from_going() {
    let machine = by_age();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..3000);
    partition.flush().unwrap();
    machine.advance_ms(AGE_MS + 1);
    machine.storage.limit_space(Some(machine.storage.used_space()));
    assert!(partition.enforce_retention().unwrap().segments > 1);
    assert!(partition.end_offset() - partition.start_offset() < 1000, "the active segment can't be ended yet");
    assert_eq!(partition.enforce_retention().unwrap().segments, 1, "now it can");
    assert_eq!(values(&partition).len(), 0);
}

#[test]
fn a_file_that_cant_be_removed_is_tried_again() {
    for failing in [Operation::Rename, Operation::RemoveFile] {
        let machine = by_size(0);
        let (partition, _) = machine.open();
        let expected = append_numbers(&partition, 0..3000);
        partition.flush().unwrap();
        machine.storage.fail_if(move |operation, path| {
            let index = path.extension().is_some_and(|it| it == "index");
            (operation == failing && !index).then_some(io::ErrorKind::PermissionDenied)
        });
        assert_eq!(partition.enforce_retention().unwrap_err().kind(), ErrorKind::Io);
        // It is out of the log all the same.
        let start = partition.start_offset();
        assert_eq!(read_all(&partition, start).unwrap(), expected[start as usize..]);
        assert!(machine.files().len() > 5);
        machine.storage.heal();
        assert_eq!(partition.enforce_retention().unwrap(), Removed::default());
        assert_eq!(machine.files().len(), 4, "{:?}", machine.files());
    }
}

#[test]
fn whatever_fails_while_segments_go_loses_nothing_else() {
    for n in 1.. {
        let machine = by_age();
        let (partition, _) = machine.open();
        append_numbers(&partition, 0..2000);
        machine.advance_ms(AGE_MS + 1);
        partition.roll().unwrap();
        let mut expected = append_numbers(&partition, 2000..2010);
        machine.advance_ms(1);
        let before = machine.storage.operations();
        machine.storage.fail_nth(n, io::ErrorKind::Other, Repeat::Once);
        let outcome = partition.enforce_retention();
        let enough = machine.storage.operations() - before < n;
        assert!(outcome.is_ok() || !enough, "{outcome:?}");
        machine.storage.heal();
        if partition.check_poison().is_ok() {
            partition.enforce_retention().unwrap();
            assert_eq!(partition.start_offset(), 2000, "operation {n}");
            expected.extend(append_numbers(&partition, 2010..2011));
        }
        drop(partition);
        if n % 2 == 0 {
            machine.reboot();
        }
        let (partition, _) = machine.open();
        let start = partition.start_offset();
        assert!(start <= 2000, "operation {n}");
        assert_eq!(read_all(&partition, 2000).unwrap(), expected, "operation {n}");
        partition.enforce_retention().unwrap();
        assert_eq!(partition.start_offset(), 2000, "operation {n}");
        assert_eq!(machine.segments().len(), 1, "operation {n}");
        if enough {
            assert!(n > 10, "only {n} operations failed");
            break;
        }
    }
}

/// What can happen to a partition over time.
#[derive(Debug, Clone)]
enum Happening {
    Append { records: u64, client_time: Option<i64> },
    Clock(i64),
    Roll,
    Check,
    Limits { age_ms: Option<u64>, bytes: Option<u64> },
    Reopen { reboot: bool },
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let limit = |most| prop::option::of(0..most);
    let happening = prop_oneof![
        4 => (1..400_u64, prop::option::of(any::<i64>()))
            .prop_map(|(records, client_time)| Happening::Append { records, client_time }),
        3 => (0..4000_i64).prop_map(Happening::Clock),
        1 => (-9000..9000_i64).prop_map(Happening::Clock),
        1 => Just(Happening::Roll),
        3 => Just(Happening::Check),
        1 => (limit(8000_u64), limit(200_000_u64))
            .prop_map(|(age_ms, bytes)| Happening::Limits { age_ms, bytes }),
        1 => any::<bool>().prop_map(|reboot| Happening::Reopen { reboot }),
    ];
    prop::collection::vec(happening, 1..40)
}

/// A record of the plain list: offset, time of the append.
type Listed = (u64, i64);

/// When the record was appended, by the log's own time, which never falls.
fn time_of(partition: &Arc<PartitionLog>, offset: u64) -> i64 {
    let run = Cursor::new(partition, offset).unwrap().next_run(1).unwrap().unwrap();
    Batch::new(vec![run]).iter().next().unwrap().append_time_ms()
}

/// Checks one enforcement against the list, and takes from the list what went.
fn check_against(list: &mut Vec<Listed>, machine: &Machine, partition: &Arc<PartitionLog>) {
    let limits = machine.spec.settings.values();
    let now_ms = machine.now_ms.load(Ordering::Relaxed);
    let expired = |&(_, time): &Listed| limits.retention_ms.is_some_and(|age| now_ms - time > age as i64);
    let before = partition.stats().unwrap();
    let removed = partition.enforce_retention().unwrap();
    let after = partition.stats().unwrap();
    let start = partition.start_offset();
    let gone = list.iter().take_while(|(offset, _)| *offset < start).count();

    let all_expired = list[..gone].iter().all(expired);
    let kept_by_size = limits.retention_bytes.is_some_and(|bytes| after.bytes >= bytes);
    assert!(all_expired || kept_by_size, "never more than asked: {gone} of {}", list.len());
    assert!(removed.segments == 0 || after.bytes + removed.bytes >= before.bytes, "{before:?} {removed:?} {after:?}");
    list.drain(..gone);
    // Nor less: what is left at the start isn't a segment that could go.
    if list.iter().all(expired) {
        assert!(list.is_empty(), "all are too old");
    }
    if let Some(bytes) = limits.retention_bytes {
        assert!(after.segments == 1 || after.bytes - bytes_of(partition, 0) < bytes);
    }
    let offsets: Vec<_> = read_all(partition, start).unwrap().into_iter().map(|(offset, _)| offset).collect();
    assert_eq!(offsets, list.iter().map(|(offset, _)| *offset).collect::<Vec<_>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn retention_removes_what_a_plain_list_would(happenings in happenings()) {
        let machine = Machine::new();
        let (mut partition, _) = machine.open();
        let mut list: Vec<Listed> = Vec::new();
        let mut last_time = i64::MIN;
        for happening in happenings {
            match happening {
                Happening::Append { records, client_time } => {
                    for _ in 0..records {
                        let record = Record::new("a value of some length, so that segments fill up");
                        let record = client_time.map_or(record.clone(), |time| record.timestamp_ms(time));
                        let offset = partition.append(&record, None).unwrap();
                        // No earlier than any of before, nor than the partition and the segment were begun.
                        let time_ms = time_of(&partition, offset);
                        assert!(time_ms >= last_time.max(machine.now_ms.load(Ordering::Relaxed)));
                        list.push((offset, time_ms));
                        last_time = time_ms;
                    }
                }
                Happening::Clock(ms) => machine.advance_ms(ms),
                Happening::Roll => partition.roll().unwrap(),
                Happening::Check => check_against(&mut list, &machine, &partition),
                Happening::Limits { age_ms, bytes } => machine.change(|settings| {
                    (settings.retention_ms, settings.retention_bytes) = (age_ms, bytes);
                }),
                Happening::Reopen { reboot } => {
                    drop(partition);
                    if reboot {
                        machine.reboot();
                    }
                    partition = machine.open().0;
                }
            }
        }
        check_against(&mut list, &machine, &partition);
    }
}
