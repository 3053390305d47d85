//! Options that change while the partition is open: each counts from the next append on.

use std::time::Duration;

use super::*;

fn both(test: impl Fn(&Machine, &Arc<PartitionLog>)) {
    for positional_appends in [false, true] {
        let machine = Machine { positional_appends, ..Machine::new() };
        let (partition, _) = machine.open();
        test(&machine, &partition);
        // Whatever was changed, what is there can be read, now and later.
        let start = partition.start_offset();
        let expected = read_all(&partition, start).unwrap();
        assert_eq!(expected.len() as u64, partition.end_offset() - start);
        drop(partition);
        let (partition, report) = machine.open();
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(read_all(&partition, start).unwrap(), expected);
    }
}

#[test]
fn a_smaller_segment_size_ends_the_active_segment_and_a_greater_one_lets_it_grow() {
    both(|machine, partition| {
        machine.change(|settings| settings.segment_bytes = 1 << 20);
        append_numbers(partition, 0..2000);
        assert_eq!(machine.segments().len(), 1, "the new limit counts for the segment that is there");
        machine.change(|settings| settings.segment_bytes = 64 << 10);
        append_numbers(partition, 2000..2001);
        assert_eq!(partition.segment_base_offsets(), [0, 2000]);
        // A limit beyond what its file was made for: it is used up, and the next one is larger.
        machine.change(|settings| settings.segment_bytes = 8 << 20);
        append_numbers(partition, 2001..40_000);
        assert_eq!(machine.segments().len(), 3);
        let stats = partition.stats().unwrap();
        assert!(bytes_of(partition, 1) > 1 << 20 && stats.bytes > 2 << 20, "{stats:?}");
        machine.change(|settings| settings.segment_bytes = 64 << 10);
        append_numbers(partition, 40_000..40_001);
        assert_eq!(machine.segments().len(), 4);
    });
}

#[test]
fn a_smaller_age_ends_the_active_segment() {
    both(|machine, partition| {
        append_numbers(partition, 0..1);
        machine.advance_ms(5000);
        append_numbers(partition, 1..2);
        assert_eq!(machine.segments().len(), 1);
        machine.change(|settings| settings.segment_ms = Some(4000));
        append_numbers(partition, 2..3);
        assert_eq!(partition.segment_base_offsets(), [0, 2]);
        machine.change(|settings| settings.segment_ms = None);
        machine.advance_ms(50_000);
        append_numbers(partition, 3..4);
        assert_eq!(machine.segments().len(), 2);
    });
}

#[test]
fn the_limit_of_a_record_counts_at_once_also_beyond_what_the_file_was_made_for() {
    both(|machine, partition| {
        let append = |bytes: usize| partition.append(&Record::new("x".repeat(bytes)), None);
        append(1 << 20).unwrap();
        assert_eq!(append((1 << 20) + 1).unwrap_err().kind(), ErrorKind::RecordTooLarge);
        machine.change(|settings| settings.max_record_bytes = 3 << 20);
        append(3 << 20).unwrap();
        append(10).unwrap();
        let large = "x".repeat(2 << 20);
        let mut ranges = Vec::new();
        partition.append_batch(&[Record::new("a"), Record::new(&*large), Record::new("b")], None, &mut ranges).unwrap();
        assert_eq!(partition.append_if(6, &[Record::new(&*large)], None).unwrap(), 6..7);
        machine.change(|settings| settings.max_record_bytes = 10);
        assert_eq!(append(11).unwrap_err().kind(), ErrorKind::RecordTooLarge);
        append(10).unwrap();
    });
}

#[test]
fn the_durability_counts_from_the_next_append_on() {
    both(|machine, partition| {
        let is_flushed = || partition.durable_offset() == partition.end_offset();
        let set = |durability| machine.change(|settings| settings.durability = durability);
        append_numbers(partition, 0..1);
        set(Durability::Interval(Duration::from_secs(3600)));
        append_numbers(partition, 1..2);
        assert!(!is_flushed());
        // What waits for a long interval doesn't hold up who comes with a short one.
        set(Durability::Interval(Duration::from_millis(1)));
        append_numbers(partition, 2..3);
        wait_until("it is flushed", is_flushed);
        set(Durability::Synced);
        append_numbers(partition, 3..4);
        assert!(is_flushed());
        set(Durability::Written);
        append_numbers(partition, 4..5);
        assert!(!is_flushed());
        // The append's own comes first.
        partition.append(&Record::new("x"), Some(Durability::Synced)).unwrap();
        assert!(is_flushed());
    });
}

#[test]
fn retention_goes_by_what_is_set_when_it_looks() {
    both(|machine, partition| {
        append_numbers(partition, 0..1);
        machine.advance_ms(1000);
        assert_eq!(partition.enforce_retention().unwrap().segments, 0);
        machine.change(|settings| settings.retention_ms = Some(1000));
        assert_eq!(partition.enforce_retention().unwrap().segments, 0);
        machine.change(|settings| settings.retention_ms = Some(999));
        assert_eq!(partition.enforce_retention().unwrap().segments, 1);
        assert_eq!(partition.start_offset(), 1);
        machine.change(|settings| settings.retention_ms = None);
    });
}
