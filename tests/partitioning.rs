//! Where records go: by key as Kafka does it, by number, sticky without a key, by a user's own rule.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use tidelog::{ErrorKind, Log, Partitioner, Record, Start, Topic, TopicConfig};

fn topic(partitions: u32) -> Topic {
    let log = Log::options().in_memory().open("test").unwrap();
    log.create_topic("orders", TopicConfig::with_partitions(partitions)).unwrap()
}

#[test]
fn keys_land_where_kafka_puts_them() {
    // murmur2 of the key as in Kafka's own tests, without the sign bit, modulo the partition count.
    for (key, hash) in [("21", -973932308_i32), ("foobar", -790332482), ("abc", 479470107)] {
        for partitions in [1, 2, 3, 7, 10] {
            let expected = (hash as u32 & 0x7fff_ffff) % partitions;
            assert_eq!(topic(partitions).append(Record::new("tea").key(key)).unwrap().partition, expected);
        }
    }
}

#[test]
fn records_of_a_key_stay_together_and_in_order() {
    let orders = topic(5);
    for i in 0..500 {
        orders.append(Record::new(format!("{i}")).key(format!("customer-{}", i % 7))).unwrap();
    }
    let mut reader = orders.reader(Start::Earliest).unwrap();
    let mut last = [None; 7];
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in &batch {
            let number: usize = std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap();
            assert_eq!(record.key(), Some(format!("customer-{}", number % 7).as_bytes()));
            assert!(last[number % 7].replace((record.partition(), number)) < Some((record.partition(), number)));
        }
    }
    assert!(last.iter().enumerate().all(|(key, seen)| seen.unwrap().1 >= 493 && seen.unwrap().1 % 7 == key));
}

#[test]
fn keyless_records_stay_for_16_kib_then_move_on_through_all_partitions() {
    let orders = topic(3);
    let value = vec![b'x'; 1024];
    let partitions: Vec<u32> = (0..96).map(|_| orders.append(Record::new(&value)).unwrap().partition).collect();
    let runs: Vec<&[u32]> = partitions.chunk_by(|a, b| a == b).collect();
    assert!(runs.iter().all(|run| run.len() == 16), "{partitions:?}");
    assert_eq!(runs[..3].iter().map(|run| run[0]).collect::<BTreeSet<_>>(), (0..3).collect());
}

#[test]
fn handles_share_the_place_of_keyless_records() {
    let orders = topic(64);
    let other = orders.clone();
    let first = orders.append(Record::new("tea")).unwrap().partition;
    assert_eq!(other.append(Record::new("tea")).unwrap().partition, first);
}

#[test]
fn a_records_own_partition_goes_before_its_key_and_before_a_partitioner() {
    let orders = topic(4);
    for partition in 0..4 {
        assert_eq!(orders.append(Record::new("tea").key("21").partition(partition)).unwrap().partition, partition);
    }
    let orders = orders.with_partitioner(|_: &Record<'_>, _| 0);
    assert_eq!(orders.append(Record::new("tea").partition(3)).unwrap().partition, 3);
}

/// Chooses by the first byte of the value.
struct ByValue;

impl Partitioner for ByValue {
    fn partition(&self, record: &Record<'_>, partitions: u32) -> u32 {
        assert_eq!(partitions, 4);
        u32::from(record.value_bytes().unwrap()[0] - b'0')
    }
}

#[test]
fn a_users_own_partitioner_decides_for_its_handle_alone() {
    let orders = topic(4);
    let own = orders.with_partitioner(ByValue);
    for value in ["0", "3", "1", "2"] {
        let at = own.append(Record::new(value).key("21")).unwrap();
        assert_eq!(at.partition.to_string(), value);
    }
    let ranges = own.append_batch(["2", "1", "2"].map(Record::new)).unwrap();
    assert_eq!(ranges.iter().map(|range| range.partition).collect::<Vec<_>>(), [1, 2]);
    let kafkas = orders.append(Record::new("3").key("21")).unwrap().partition;
    assert_eq!(kafkas, (-973932308_i32 as u32 & 0x7fff_ffff) % 4);
}

#[test]
fn a_partition_that_is_not_there_is_an_error_and_nothing_is_appended() {
    let orders = topic(4);
    let wrong = orders.with_partitioner(|_: &Record<'_>, partitions: u32| partitions);
    for error in [
        orders.append(Record::new("tea").partition(4)).unwrap_err(),
        wrong.append(Record::new("tea")).unwrap_err(),
        orders.append_batch([Record::new("tea"), Record::new("coffee").partition(4)]).unwrap_err(),
        wrong.append_batch([Record::new("tea").partition(0), Record::new("coffee")]).unwrap_err(),
        orders.partition(4).unwrap_err(),
        orders.partition(1).unwrap().append(Record::new("tea").partition(2)).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::UnknownPartition);
        assert!(error.to_string().contains("orders"), "{error}");
        assert!(error.appended().is_empty());
    }
    assert!((0..4).all(|number| orders.partition(number).unwrap().end_offset() == 0));
}

#[test]
fn a_batch_keeps_its_order_within_partitions_and_tells_its_ranges() {
    let orders = topic(3);
    orders.append(Record::new("before").partition(1)).unwrap();
    let records = (0..300).map(|i| Record::new(format!("{i}")).partition(i % 3));
    let ranges = orders.append_batch(records).unwrap();
    let expected = [(0, 0..100), (1, 1..101), (2, 0..100)];
    assert_eq!(ranges.into_iter().map(|range| (range.partition, range.offsets)).collect::<Vec<_>>(), expected);
    for (partition, offsets) in expected {
        let records = orders.partition(partition).unwrap().read_from(offsets.start).unwrap();
        for (i, record) in records.enumerate() {
            let number = i as u32 * 3 + partition;
            assert_eq!(record.unwrap().value(), Some(number.to_string().as_bytes()));
        }
    }
    assert!(orders.append_batch([]).unwrap().is_empty());
}
