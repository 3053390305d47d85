//! Reading without a group: readers of topics and partitions, single records, positions, what is out of range.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, thread};

use tidelog::{Batch, ErrorKind, Log, Reader, Record, Start, Topic, TopicConfig};

fn topic(partitions: u32) -> Topic {
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    log.create_topic("orders", TopicConfig::with_partitions(partitions)).unwrap()
}

fn numbers(batch: &Batch) -> Vec<u32> {
    batch.iter().map(|record| std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap()).collect()
}

fn read_all(reader: &mut Reader) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        assert!(!batch.is_empty());
        all.extend(numbers(&batch));
    }
    all
}

fn append(topic: &Topic, range: std::ops::Range<u32>) {
    for i in range {
        topic.append(Record::new(format!("{i}")).partition(i % topic.partitions())).unwrap();
    }
}

#[test]
fn a_reader_gives_everything_once_and_goes_on_with_what_comes() {
    let orders = topic(3);
    append(&orders, 0..5000);
    let mut reader = orders.reader(Start::Earliest).unwrap();
    let mut all = read_all(&mut reader);
    all.sort_unstable();
    assert_eq!(all, (0..5000).collect::<Vec<_>>());
    assert!(reader.next_batch().unwrap().is_none());

    append(&orders, 5000..5100);
    let mut all = read_all(&mut reader);
    all.sort_unstable();
    assert_eq!(all, (5000..5100).collect::<Vec<_>>());
}

#[test]
fn a_partitions_records_come_in_order_of_offsets() {
    let orders = topic(3);
    append(&orders, 0..3000);
    let mut reader = orders.reader(Start::Earliest).unwrap();
    let mut next = BTreeMap::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in &batch {
            let next = next.entry(record.partition()).or_insert(0);
            assert_eq!(record.offset(), *next);
            assert_eq!(record.topic(), "orders");
            *next += 1;
        }
    }
    assert_eq!(next, [(0, 1000), (1, 1000), (2, 1000)].into());
}

#[test]
fn a_reader_starts_where_it_is_told() {
    let orders = topic(2);
    append(&orders, 0..20);
    assert_eq!(read_all(&mut orders.reader(Start::Earliest).unwrap()).len(), 20);
    assert_eq!(read_all(&mut orders.reader(Start::Offset(4)).unwrap()).len(), 12);
    assert_eq!(read_all(&mut orders.reader(Start::Offset(10)).unwrap()), [0; 0]);
    let mut latest = orders.reader(Start::Latest).unwrap();
    assert_eq!(read_all(&mut latest), [0; 0]);
    append(&orders, 20..22);
    assert_eq!(read_all(&mut latest).len(), 2);
    let mut one = orders.partition(1).unwrap().reader(Start::Offset(9)).unwrap();
    assert_eq!(read_all(&mut one), [19, 21]);
}

#[test]
fn an_offset_outside_the_log_is_an_error_that_tells_the_range() {
    let orders = topic(2);
    append(&orders, 0..7);
    let partition = orders.partition(1).unwrap();
    for error in [
        orders.reader(Start::Offset(4)).unwrap_err(),
        partition.reader(Start::Offset(4)).unwrap_err(),
        partition.read_from(4).unwrap_err(),
        partition.read_from(u64::MAX).unwrap_err(),
        partition.reader(Start::Earliest).unwrap().seek(1, 4).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
        assert_eq!(error.valid_offsets(), Some(0..3));
        assert_eq!(error.resume_offset(), Some(3));
        assert_eq!((error.topic(), error.partition()), (Some("orders"), Some(1)));
    }
}

#[test]
fn positions_can_be_told_and_set() {
    let orders = topic(2);
    append(&orders, 0..20);
    let mut reader = orders.reader(Start::Earliest).unwrap();
    assert_eq!(read_all(&mut reader).len(), 20);
    assert_eq!((reader.position(0).unwrap(), reader.position(1).unwrap()), (10, 10));
    reader.seek(1, 8).unwrap();
    assert_eq!(reader.position(1).unwrap(), 8);
    assert_eq!(read_all(&mut reader), [17, 19]);
    assert_eq!(reader.seek(2, 0).unwrap_err().kind(), ErrorKind::NotAssigned);
    let mut one = orders.partition(1).unwrap().reader(Start::Earliest).unwrap();
    assert_eq!(one.position(0).unwrap_err().kind(), ErrorKind::NotAssigned);
    assert_eq!(one.seek(0, 0).unwrap_err().kind(), ErrorKind::NotAssigned);
}

#[test]
fn single_records_are_kept_and_more_come_later() {
    let orders = topic(1);
    append(&orders, 0..2000);
    let mut records = orders.partition(0).unwrap().read_from(1998).unwrap();
    assert_eq!(records.next().unwrap().unwrap().value(), Some(&b"1998"[..]));
    assert_eq!(records.position(), 1999);
    assert_eq!(records.next().unwrap().unwrap().offset(), 1999);
    assert!(records.next().is_none());
    append(&orders, 2000..2001);
    assert_eq!(records.next().unwrap().unwrap().value(), Some(&b"2000"[..]));
    records.seek(5).unwrap();
    assert_eq!(records.next().unwrap().unwrap().offset(), 5);
    assert_eq!(orders.partition(0).unwrap().read_from(0).unwrap().count(), 2001);
}

#[test]
fn a_reader_in_the_middle_of_a_batch_gives_only_the_rest_of_it() {
    let orders = topic(1);
    orders.append_batch((0..100).map(|i| Record::new(format!("{i}")))).unwrap();
    let mut reader = orders.reader(Start::Offset(97)).unwrap();
    assert_eq!(read_all(&mut reader), [97, 98, 99]);
}

#[test]
fn no_partition_waits_for_ever_while_another_has_much() {
    let orders = topic(4);
    let value = vec![b'1'; 8 << 10];
    orders.append_batch((0..2000).map(|_| Record::new(&value).partition(0))).unwrap();
    for partition in 1..4 {
        orders.append(Record::new("1").partition(partition)).unwrap();
    }
    let mut reader = orders.reader(Start::Earliest).unwrap();
    let first: Vec<u32> = reader.next_batch().unwrap().unwrap().iter().map(|record| record.partition()).collect();
    let second: Vec<u32> = reader.next_batch().unwrap().unwrap().iter().map(|record| record.partition()).collect();
    let seen: Vec<u32> = [first, second].concat();
    assert!((0..4).all(|partition| seen.contains(&partition)), "{seen:?}");
}

#[test]
fn reading_goes_on_while_others_append() {
    let orders = topic(2);
    thread::scope(|scope| {
        for writer in 0..2 {
            let orders = &orders;
            scope.spawn(move || {
                for i in 0..5000 {
                    orders.append(Record::new(format!("{i}")).partition(writer)).unwrap();
                }
            });
        }
        let mut reader = orders.reader(Start::Earliest).unwrap();
        let mut next = [0, 0];
        while next != [5000, 5000] {
            if let Some(batch) = reader.next_batch().unwrap() {
                for record in &batch {
                    let next = &mut next[record.partition() as usize];
                    assert_eq!(record.offset(), *next);
                    assert_eq!(record.value(), Some(next.to_string().as_bytes()));
                    *next += 1;
                }
            }
        }
    });
}

#[test]
fn everything_of_a_record_comes_back() {
    let orders = topic(1);
    let record = Record::null().key("").header("a", "1").null_header("b").header("a", "").timestamp_ms(-5);
    let at = orders.append(record).unwrap();
    let read = orders.partition(0).unwrap().read_from(at.offset).unwrap().next().unwrap().unwrap();
    assert_eq!((read.key(), read.value()), (Some(&b""[..]), None));
    let headers: Vec<_> = read.headers().collect();
    assert_eq!(headers, [("a", Some(&b"1"[..])), ("b", None), ("a", Some(b""))]);
    assert_eq!((read.timestamp_ms(), read.client_timestamp_ms()), (-5, Some(-5)));
    assert!(read.append_time_ms() > 0);
}

#[test]
fn what_was_read_is_appended_elsewhere_as_it_was() {
    let log = Log::options().in_memory().open("test").unwrap();
    let orders = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
    let copies = log.create_topic("copies", TopicConfig::with_partitions(1)).unwrap();
    orders.append(Record::new("tea").key("a").header("h", "1").null_header("h").header("i", "")).unwrap();
    orders.append(Record::new("").timestamp_ms(-5).partition(2)).unwrap();
    orders.append(Record::tombstone("")).unwrap();
    orders.append(Record::null()).unwrap();

    let mut read = Vec::new();
    let mut reader = orders.reader(Start::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        copies.append_batch(batch.iter().map(Record::from)).unwrap();
        read.extend(batch.iter().map(|record| record.to_owned()));
    }
    copies.append_batch(read.iter().map(Record::from)).unwrap();
    assert_eq!(read.len(), 4);

    let copied = copies.partition(0).unwrap().read_from(0).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    assert_eq!(copied.len(), 8);
    for (copied, read) in copied.iter().zip(read.iter().chain(&read)) {
        assert_eq!((copied.key(), copied.value()), (read.key(), read.value()));
        assert_eq!(copied.headers().collect::<Vec<_>>(), read.headers().collect::<Vec<_>>());
        assert_eq!(copied.client_timestamp_ms(), read.client_timestamp_ms());
        assert_eq!(Record::from(read), Record::from(&read.as_record_ref()));
        assert_eq!(Record::from(read).explicit_partition(), None, "the key decides anew");
    }
}

#[test]
fn text_is_text_or_an_error_with_its_place() {
    let orders = topic(2);
    let append = |record: Record<'_>| {
        let at = orders.append(record.partition(1)).unwrap();
        orders.partition(1).unwrap().read_from(at.offset).unwrap().next().unwrap().unwrap()
    };
    let text = append(Record::new("Tee für zwei").key("").header("h", "1").header("h", "2").null_header("n"));
    assert_eq!((text.key_str().unwrap(), text.value_str().unwrap()), (Some(""), Some("Tee für zwei")));
    assert_eq!(text.header_str("h").unwrap(), Some("2"));
    assert_eq!((text.header_str("n").unwrap(), text.header_str("none").unwrap()), (None, None));
    let null = append(Record::null());
    assert_eq!((null.key_str().unwrap(), null.value_str().unwrap()), (None, None));

    let bytes = append(Record::new(b"caf\xe9").key(b"\xff").header("h", "fine").header("h", b"\x80"));
    for (outcome, part) in
        [(bytes.key_str(), "the key"), (bytes.value_str(), "the value"), (bytes.header_str("h"), "the header \"h\"")]
    {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Undecodable);
        assert_eq!((error.topic(), error.partition()), (Some("orders"), Some(1)));
        assert_eq!(error.resume_offset(), Some(bytes.offset() + 1));
        assert!(error.to_string().contains(&format!("{part} isn't UTF-8")), "{error}");
    }
}
