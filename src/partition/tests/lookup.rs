//! Records are found by their offsets, wherever the search for them begins.

use super::*;
use crate::random::Sequence;

/// Offset and value of the record that a cursor at `offset` comes to first.
fn look_up(partition: &Arc<PartitionLog>, offset: u64) -> Result<(u64, Vec<u8>)> {
    let run = Cursor::new(partition, offset)?.next_run_of(1, 1)?.expect("a record");
    let batch = Batch::new(vec![run]);
    let record = batch.iter().next().unwrap();
    Ok((record.offset(), record.value().unwrap().to_vec()))
}

/// Appends values, so many to a frame as `together` says; they fill some segments.
fn filled(values: &[Vec<u8>], mut together: impl FnMut() -> usize) -> Arc<PartitionLog> {
    let partition = Machine::new().open().0;
    let mut rest = values;
    while !rest.is_empty() {
        let (now, behind) = rest.split_at(together().clamp(1, rest.len()));
        let records: Vec<_> = now.iter().map(Record::new).collect();
        partition.append_batch(&records, None, &mut Vec::new()).unwrap();
        rest = behind;
    }
    assert!(partition.segments.load().len() > 2);
    partition
}

#[test]
fn every_record_is_found_by_its_offset_whatever_the_sizes_of_frames() {
    let mut choices = Sequence::new(5);
    let mut values = |count: usize, mut bytes: Box<dyn FnMut(u64) -> u64>| -> Vec<Vec<u8>> {
        let value = |number: usize| {
            let bytes = bytes(choices.next()) as usize;
            let mut value = format!("record {number} ").into_bytes();
            value.resize(bytes.max(value.len()), b'x');
            value
        };
        (0..count).map(value).collect()
    };
    let mut drawn = Sequence::new(6);
    for (values, most) in [
        (values(3000, Box::new(|_| 100)), 1),
        (values(3000, Box::new(|random| 20 + random % 200)), 1),
        // Small ones on one side of a large one: nothing lies where it would if all were of one size.
        (values(2000, Box::new(|random| if random % 20 == 0 { 3000 } else { 20 })), 1),
        (values(300, Box::new(|random| random % 9000)), 1),
        (values(5000, Box::new(|random| random % 100)), 40),
        (values(5000, Box::new(|_| 100)), 3),
    ] {
        let partition = filled(&values, || 1 + drawn.next() as usize % most);
        for (offset, value) in (0..).zip(&values) {
            assert_eq!(look_up(&partition, offset).unwrap(), (offset, value.clone()));
        }
    }
}

/// A payload that holds frames of the log itself, at all places where one could be looked for.
#[test]
fn what_looks_like_a_frame_in_a_payload_is_not_found() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    append_numbers(&partition, 0..100);
    partition.flush().unwrap();
    let segment = machine.read_file(&machine.segments()[0]);
    let frames =
        &segment[crate::segment_header::DATA_START as usize..partition.control.committed().file_position() as usize];
    let mut values = Vec::new();
    for number in 0..2000 {
        // A frame each, moved on by a word from one record to the next.
        let at = number % 100 * 8;
        values.push(frames[at..at + 120 + number % 7 * 8].to_vec());
        partition.append(&Record::new(&*values[number]), None).unwrap();
    }
    assert!(machine.segments().len() > 2);
    for (offset, value) in (100..).zip(&values) {
        assert_eq!(look_up(&partition, offset).unwrap(), (offset, value.clone()));
    }
}

/// Headers damaged, one at a time: its own record is told as damaged, and no other.
#[test]
fn a_damaged_frame_is_told_to_who_looks_it_up_and_to_nobody_else() {
    let machine = Machine::new();
    let (partition, _) = machine.open();
    let records = append_numbers(&partition, 0..200);
    partition.flush().unwrap();
    let path = &machine.segments()[0];
    for damaged in [1, 57, 58, 59, 120, 198] {
        let (_, position) = Cursor::new(&partition, damaged).unwrap().place().unwrap();
        let byte = machine.read_file(path)[position as usize];
        machine.write_file(path, &[byte ^ 1], position);
        for (offset, value) in &records {
            match look_up(&partition, *offset) {
                Ok(found) => {
                    assert_ne!(*offset, damaged);
                    assert_eq!(found, (*offset, value.clone().into_bytes()));
                }
                Err(error) => {
                    assert_eq!(*offset, damaged, "{error}");
                    assert_eq!(error.damaged_offsets(), Some(damaged..damaged + 1));
                }
            }
        }
        machine.write_file(path, &[byte], position);
    }
}
