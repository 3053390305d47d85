//! Reading typed events one at a time, without a group.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs};

use tidelog::{
    Encoding, ErrorKind, Json, Log, OwnedRecord, Record, Start, Topic, TopicConfig, TypedReader, TypedTopic,
};

fn topic(partitions: u32) -> Topic {
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    log.create_topic("numbers", TopicConfig::with_partitions(partitions)).unwrap()
}

/// Number `i` at offset `i / partitions` of partition `i % partitions`.
fn append(topic: &Topic, numbers: std::ops::Range<u32>) {
    let partitions = topic.partitions();
    topic.append_batch(numbers.map(|i| Record::new(i.to_string()).partition(i % partitions))).unwrap();
}

/// What is there, by partition.
fn rest<E: Encoding<u32>>(reader: &mut TypedReader<'_, u32, E>) -> BTreeMap<u32, Vec<u32>> {
    let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for item in reader {
        let (record, number) = item.unwrap();
        found.entry(record.partition()).or_default().push(number.unwrap());
    }
    found
}

#[test]
fn every_event_comes_once_in_order_and_more_come_later() {
    let numbers: TypedTopic<u32> = topic(3).typed(Json);
    append(numbers.topic(), 0..30_000); // several copies of several segments
    let mut reader = numbers.reader(Start::Earliest).unwrap();
    for (begin, end) in [(0, 30_000), (30_000, 30_300)] {
        let found = rest(&mut reader);
        assert_eq!(found.len(), 3);
        for (partition, found) in found {
            assert!(found.into_iter().eq((begin..end).skip(partition as usize).step_by(3)));
        }
        assert!(reader.next().is_none());
        append(numbers.topic(), 30_000..30_300);
    }
    assert_eq!(rest(&mut numbers.reader(Start::Latest).unwrap()), BTreeMap::new());
    let found = rest(&mut numbers.partition_reader(1, Start::Offset(9_998)).unwrap());
    assert_eq!(found[&1][..3], [29_995, 29_998, 30_001]);
    assert_eq!(found.len(), 1);
}

#[test]
fn nulls_are_told_and_what_cant_be_decoded_stands_in_nobodys_way() {
    let numbers: TypedTopic<u32> = topic(1).typed(Json);
    numbers.append_keyed("a", &1).unwrap();
    numbers.append_tombstone("a").unwrap();
    numbers.topic().append(Record::new("two").key("a")).unwrap();
    numbers.append_keyed("a", &3).unwrap();

    let mut told = Vec::new();
    for item in numbers.reader(Start::Earliest).unwrap() {
        match item {
            Ok((record, number)) => {
                assert_eq!(record.key_str().unwrap(), Some("a"));
                assert_eq!(record.is_tombstone(), number.is_none());
                told.push(Ok((record.offset(), number)));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Undecodable);
                told.push(Err((error.topic().unwrap().to_owned(), error.partition(), error.resume_offset())));
            }
        }
    }
    let undecodable = ("numbers".to_owned(), Some(0), Some(3));
    assert_eq!(told, [Ok((0, Some(1))), Ok((1, None)), Err(undecodable), Ok((3, Some(3)))]);
}

#[test]
fn positions_are_those_of_what_was_handed_out_and_can_be_moved() {
    let numbers: TypedTopic<u32> = topic(2).typed(Json);
    append(numbers.topic(), 0..2_000);
    let mut reader = numbers.reader(Start::Earliest).unwrap();
    let positions = |reader: &TypedReader<'_, u32>| [0, 1].map(|number| reader.position(number).unwrap());
    assert_eq!(positions(&reader), [0, 0]);
    let mut expected = [0, 0];
    for _ in 0..1_100 {
        let (record, _) = reader.next().unwrap().unwrap();
        expected[record.partition() as usize] = record.offset() + 1;
        assert_eq!(positions(&reader), expected);
    }

    reader.seek(0, 990).unwrap();
    assert_eq!(positions(&reader), [990, expected[1]]);
    let found = rest(&mut reader);
    assert!(found[&0].iter().copied().eq((1_980..2_000).step_by(2)));
    assert!(found.get(&1).into_iter().flatten().copied().eq((0..1_000).map(|i| 2 * i + 1).skip(expected[1] as usize)));

    assert_eq!(reader.seek(0, 1_001).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    assert_eq!(reader.seek(2, 0).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(reader.position(2).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(positions(&reader), [1_000, 1_000]);
    assert_eq!(numbers.partition_reader(2, Start::Earliest).unwrap_err().kind(), ErrorKind::UnknownPartition);
    assert_eq!(numbers.reader(Start::Offset(1_001)).unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
}

/// An error that stays would be told for ever.
#[test]
fn behind_an_error_of_reading_it_ends_until_it_is_set_on_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let texts: TypedTopic<String> = log.create_topic("texts", TopicConfig::with_partitions(2)).unwrap().typed(Json);
    for i in 0..40 {
        let text = format!("text {i:03}");
        texts.topic().append(texts.record(&text).unwrap().partition(i % 2)).unwrap();
    }
    log.close().unwrap();
    let segment = dir.path().join("texts-0/00000000000000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.windows(8).position(|window| window == b"text 020").unwrap();
    bytes[at] ^= 0x10;
    fs::write(segment, bytes).unwrap();

    let log = Log::open(dir.path()).unwrap();
    let texts: TypedTopic<String> = log.topic("texts").unwrap().typed(Json);
    let mut reader = texts.reader(Start::Earliest).unwrap();
    let (mut read, mut errors) = (Vec::<OwnedRecord>::new(), Vec::new());
    let read_on = |reader: &mut TypedReader<'_, String>, read: &mut Vec<OwnedRecord>| {
        for item in reader {
            read.push(match item {
                Ok((record, _)) => record,
                Err(error) => return Some(error),
            });
        }
        None
    };
    while let Some(error) = read_on(&mut reader, &mut read) {
        assert!(reader.next().is_none());
        reader.seek(error.partition().unwrap(), error.resume_offset().unwrap()).unwrap();
        errors.push((error.kind(), error.partition(), error.resume_offset()));
    }
    assert_eq!(errors, [(ErrorKind::Corruption, Some(0), Some(11))]);
    let offsets = |partition| {
        let of_it = read.iter().filter(move |record| record.partition() == partition);
        of_it.map(OwnedRecord::offset).collect::<Vec<_>>()
    };
    assert_eq!(offsets(0), (0..20).filter(|offset| *offset != 10).collect::<Vec<_>>());
    assert_eq!(offsets(1), (0..20).collect::<Vec<_>>());

    let mut reader = texts.reader(Start::Earliest).unwrap();
    log.close().unwrap();
    assert_eq!(reader.next().unwrap().unwrap_err().kind(), ErrorKind::Closed);
    assert!(reader.next().is_none());
}
