//! How much a poll returns: never more than asked for, all of it in the end, and every partition in its turn.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use proptest::prelude::*;
use tidelog::{Consumer, ErrorKind, Log, Record, Topic, TopicConfig};

fn topic(log: &Log, partitions: u32) -> Topic {
    log.create_topic("orders", TopicConfig::with_partitions(partitions)).unwrap()
}

/// Appends `count` records as one piece.
fn append(topic: &Topic, partition: u32, count: usize) {
    topic.append_batch((0..count).map(|i| Record::new(format!("{i}")).partition(partition))).unwrap();
}

/// Offsets by partition, as they come.
type Seen = BTreeMap<u32, Vec<u64>>;

/// One poll: at most `bound` records, and positions behind the last ones.
fn poll(consumer: &mut Consumer, bound: usize, seen: &mut Seen) -> usize {
    let batch = consumer.poll(Duration::ZERO).unwrap();
    assert!(batch.len() <= bound, "{} of {bound}", batch.len());
    let mut count = 0;
    for record in &batch {
        seen.entry(record.partition()).or_default().push(record.offset());
        count += 1;
    }
    assert_eq!((count, batch.iter().len()), (batch.len(), batch.len()));
    for (&partition, offsets) in &*seen {
        assert_eq!(consumer.position("orders", partition).unwrap(), offsets.last().unwrap() + 1);
    }
    count
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Batches of any size, read in pieces of any size, with a restart behind a commit anywhere.
    #[test]
    fn a_bound_on_records_is_exact(
        pieces in prop::collection::vec((0u32..3, 1usize..40), 1..12),
        bound in 1usize..30,
        bytes in prop_oneof![Just(1usize), 100usize..2000, Just(1 << 20)],
        restart_after in 0usize..20,
    ) {
        let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
        let topic = topic(&log, 3);
        let mut expected = Seen::new();
        for &(partition, count) in &pieces {
            append(&topic, partition, count);
            let offsets = expected.entry(partition).or_default();
            let first = offsets.len() as u64;
            offsets.extend(first..first + count as u64);
        }
        let open = || {
            let builder = log.consumer("billing").topic("orders").max_poll_records(bound);
            builder.max_poll_bytes(bytes).open().unwrap()
        };
        let (mut consumer, mut seen) = (open(), Seen::new());
        for number in 0.. {
            let count = poll(&mut consumer, bound, &mut seen);
            if count == 0 {
                break;
            }
            if number == restart_after {
                consumer.commit().unwrap();
                drop(consumer);
                consumer = open();
            }
        }
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn nothing_is_left_where_the_bound_allows_it() {
    let log = Log::options().in_memory().open("test").unwrap();
    let topic = topic(&log, 2);
    append(&topic, 0, 50);
    append(&topic, 1, 7);
    let mut consumer = log.consumer("billing").topic("orders").max_poll_records(20).open().unwrap();
    let mut seen = Seen::new();
    let counts: Vec<usize> = (0..4).map(|_| poll(&mut consumer, 20, &mut seen)).collect();
    assert_eq!(counts, [20, 20, 17, 0]);
    assert_eq!(seen[&0].len(), 50);
}

#[test]
fn every_partition_has_its_turn_also_with_fewer_records_than_partitions() {
    let log = Log::options().in_memory().open("test").unwrap();
    let topic = topic(&log, 10);
    (0..10).for_each(|partition| append(&topic, partition, 30));
    for bound in [1, 3, 10, 15] {
        let mut consumer = log.consumer("billing").topic("orders").max_poll_records(bound).open().unwrap();
        let mut seen = Seen::new();
        let mut read = 0;
        while read < 30 {
            read += poll(&mut consumer, bound, &mut seen);
        }
        assert_eq!(seen.len(), 10, "{bound}: {seen:?}");
        let counts: Vec<usize> = seen.values().map(Vec::len).collect();
        assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 2 + bound / 10, "{bound}: {counts:?}");
    }
}

#[test]
fn a_partition_alone_among_many_gets_the_whole_of_it() {
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    let topic = topic(&log, 200);
    (0..1000).for_each(|_| append(&topic, 77, 1));
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1000);
}

#[test]
fn bounds_of_zero_are_refused() {
    let log = Log::options().in_memory().open("test").unwrap();
    topic(&log, 1);
    let builder = || log.consumer("billing").topic("orders");
    for builder in [builder().max_poll_records(0), builder().max_poll_bytes(0)] {
        assert_eq!(builder.open().unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
