//! The program of the design page, word for word: what it leaves behind, and that a second run goes on.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, env, time::Duration};

use tidelog::{ErrorKind, Log, Start};

mod program {
    include!("program/design.rs");

    pub(crate) fn run() -> tidelog::Result<()> {
        main()
    }
}

/// Its own process may change its folder: this file holds a single test.
#[test]
fn it_leaves_what_it_appended_and_a_second_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    env::set_current_dir(dir.path()).unwrap();

    program::run().unwrap();
    let log = Log::open("data").unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    let ends = check(&log, 1);
    assert_eq!(ends.values().sum::<u64>(), 103);
    log.close().unwrap();

    program::run().unwrap();
    let log = Log::open("data").unwrap();
    let later = check(&log, 2);
    assert!(later.iter().all(|(partition, end)| *end == 2 * ends[partition]), "keys stay where they were: {later:?}");
    log.close().unwrap();
}

/// Checks everything after so many runs; answers the log end offsets.
fn check(log: &Log, runs: usize) -> BTreeMap<u32, u64> {
    assert_eq!(log.topics(), ["orders"]);
    let orders = log.topic("orders").unwrap();
    assert_eq!(orders.partitions(), 4);
    let mut records = Vec::new();
    let mut reader = orders.reader(Start::Earliest).unwrap();
    while let Some(batch) = reader.next_batch().unwrap() {
        records.extend(batch.iter().map(|record| record.to_owned()));
    }
    assert_eq!(records.len(), 103 * runs);

    let tombstones: Vec<_> = records.iter().filter(|record| record.value().is_none()).collect();
    assert_eq!(tombstones.len(), runs);
    assert!(tombstones.iter().all(|record| record.key() == Some(b"customer-7")));
    let with_header: Vec<_> = records.iter().filter(|record| record.headers().next().is_some()).collect();
    assert_eq!(with_header.len(), runs);
    for record in with_header {
        assert_eq!(record.value(), Some(&b"one iPhone"[..]));
        assert_eq!(record.headers().collect::<Vec<_>>(), [("source", Some(&b"web"[..]))]);
    }
    let of_42: Vec<_> = records.iter().filter(|record| record.key() == Some(b"customer-42")).collect();
    let values: Vec<_> = of_42.iter().filter_map(|record| record.value()).collect();
    assert_eq!(values, [&b"one iPhone"[..], b"paid", b"order 42"].repeat(runs), "a key keeps its order");
    for record in &records {
        let same_key = records.iter().filter(|other| other.key() == record.key());
        assert!(same_key.into_iter().all(|other| other.partition() == record.partition()));
    }

    // `poll` returned everything that was there, and all of it was committed.
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.lag().total, 0);
    let mut ends = BTreeMap::new();
    for number in 0..4 {
        let end = orders.partition(number).unwrap().end_offset();
        assert_eq!(consumer.committed("orders", number).unwrap(), Some(end));
        assert_eq!(orders.partition(number).unwrap().durable_offset(), end);
        ends.insert(number, end);
    }
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(log.delete_group("billing").unwrap_err().kind(), ErrorKind::GroupInUse);
    ends
}
