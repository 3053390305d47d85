//! Conditional appends: of those who act on the same state of a partition, one wins.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Barrier, thread, time::Duration};

use tidelog::{Durability, ErrorKind, Log, LogOptions, Partition, Record, Start, TopicConfig};

fn open(options: LogOptions) -> (Log, Partition) {
    let log = options.in_memory().open("test").unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    (log, topic.partition(1).unwrap())
}

#[test]
fn an_append_on_another_end_is_a_conflict_and_appends_nothing() {
    let (log, partition) = open(Log::options());
    assert_eq!(partition.append_if(0, Record::new("first")).unwrap().offset, 0);
    for wrong in [0, 2, u64::MAX] {
        let error = partition.append_if(wrong, Record::new("no")).unwrap_err();
        assert_eq!((error.kind(), error.end_offset()), (ErrorKind::Conflict, Some(1)), "{error}");
        assert_eq!((error.topic(), error.partition()), (Some("orders"), Some(1)));
        let error = partition.append_batch_if(wrong, []).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
    }
    assert_eq!(partition.end_offset(), 1);
    let range = partition.append_batch_if(1, ["a", "b"].map(Record::new)).unwrap();
    assert_eq!((range.partition, range.offsets), (1, 1..3));
    assert_eq!(partition.append_batch_if(3, []).unwrap().offsets, 3..3);
    assert_eq!(partition.append_if_with(3, Record::new("c"), Durability::Synced).unwrap().offset, 3);
    assert_eq!(partition.durable_offset(), 4);
    let range = partition.append_batch_if_with(4, [Record::new("d")], Durability::Synced).unwrap();
    assert_eq!((range.offsets, partition.durable_offset()), (4..5, 5));

    let refused = [
        partition.append_if_with(5, Record::new("no"), Durability::Interval(Duration::ZERO)).map(drop),
        partition.append_if(5, Record::new("no").partition(0)).map(drop),
        partition.append_batch_if(5, [Record::new("no"), Record::new("no").partition(0)]).map(drop),
        partition.append_if(5, Record::new(vec![0; 2 << 20])).map(drop),
    ];
    let kinds = refused.map(|outcome| outcome.unwrap_err().kind());
    use ErrorKind::{InvalidConfig, RecordTooLarge, UnknownPartition};
    assert_eq!(kinds, [InvalidConfig, UnknownPartition, UnknownPartition, RecordTooLarge]);
    assert_eq!(partition.end_offset(), 5);
    log.close().unwrap();
    assert_eq!(partition.append_if(5, Record::new("no")).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(partition.append_batch_if(5, []).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn what_one_frame_doesnt_hold_is_refused_and_not_split() {
    let (_log, partition) = open(Log::options());
    let large = "x".repeat(300 << 10);
    for records in [vec![Record::new(&*large); 4], vec![Record::new(""); 65_536]] {
        let error = partition.append_batch_if(0, records).unwrap_err();
        assert_eq!((error.kind(), partition.end_offset()), (ErrorKind::RecordTooLarge, 0), "{error}");
    }
    assert_eq!(partition.append_batch_if(0, vec![Record::new(&*large); 3]).unwrap().offsets, 0..3);
    assert_eq!(partition.append_batch_if(3, vec![Record::new(""); 65_535]).unwrap().offsets, 3..65_538);
    // A record that is as large as records may be fits a frame of its own.
    assert_eq!(partition.append_if(65_538, Record::new(vec![0; 1 << 20])).unwrap().offset, 65_538);
}

#[test]
fn of_racing_writers_one_wins_each_round() {
    const WRITERS: usize = 6;
    const ROUNDS: usize = 300;
    // So small that segments are rolled in between.
    let (_log, partition) = open(Log::options().segment_bytes(64 << 10));
    let barrier = Barrier::new(WRITERS);
    let value = |writer: usize| format!("{writer} {}", "x".repeat(700));
    let wins: Vec<Vec<usize>> = thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (barrier, partition) = (&barrier, &partition);
                scope.spawn(move || {
                    let mut won = Vec::new();
                    for round in 0..ROUNDS {
                        barrier.wait();
                        let end = partition.end_offset();
                        barrier.wait();
                        match partition.append_if(end, Record::new(value(writer))) {
                            Ok(_) => won.push(round),
                            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                        }
                        barrier.wait();
                    }
                    won
                })
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    let mut rounds: Vec<usize> = wins.concat();
    rounds.sort_unstable();
    assert_eq!(rounds, (0..ROUNDS).collect::<Vec<_>>());
    assert_eq!(partition.read_from(0).unwrap().count(), ROUNDS);
}

/// A counter: each record holds the sum so far.
struct Counter {
    partition: Partition,
    sum: u64,
    position: u64,
}

impl Counter {
    fn catch_up(&mut self) {
        let mut records = self.partition.read_from(self.position).unwrap();
        for record in records.by_ref() {
            self.sum = std::str::from_utf8(record.unwrap().value().unwrap()).unwrap().parse().unwrap();
        }
        self.position = records.position();
    }

    fn add_one(&mut self) {
        loop {
            self.catch_up();
            match self.partition.append_if(self.position, Record::new((self.sum + 1).to_string())) {
                Ok(_) => return,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
            }
        }
    }
}

#[test]
fn a_counter_that_many_write_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3_u64 {
        let log = Log::options().segment_bytes(64 << 10).open(dir.path()).unwrap();
        let topic = log.ensure_topic("counter", TopicConfig::with_partitions(1)).unwrap();
        let counter = || Counter { partition: topic.partition(0).unwrap(), sum: 0, position: 0 };
        thread::scope(|scope| {
            for _ in 0..4 {
                let mut counter = counter();
                scope.spawn(move || (0..500).for_each(|_| counter.add_one()));
            }
        });
        let mut last = counter();
        last.catch_up();
        assert_eq!(last.sum, 2000 * (run + 1));
        log.close().unwrap();
    }
}

#[test]
fn unconditional_appends_are_noticed_too() {
    let (log, partition) = open(Log::options());
    let topic = log.topic("orders").unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                topic.append(Record::new("other").partition(1)).unwrap();
            }
        });
        for _ in 0..500 {
            // Counts what lies before it.
            let (end, count) = loop {
                let mut reader = partition.reader(Start::Earliest).unwrap();
                let mut count = 0;
                while let Some(batch) = reader.next_batch().unwrap() {
                    count += batch.len();
                }
                let end = reader.position(1).unwrap();
                if partition.append_if(end, Record::new(count.to_string())).is_ok() {
                    break (end, count);
                }
            };
            assert_eq!(end, count as u64);
        }
    });
    let records: BTreeMap<u64, Vec<u8>> = partition
        .read_from(0)
        .unwrap()
        .map(Result::unwrap)
        .map(|it| (it.offset(), it.value().unwrap().to_vec()))
        .collect();
    let counts: Vec<_> = records.iter().filter(|(_, value)| value.as_slice() != b"other").collect();
    assert_eq!((records.len(), counts.len()), (2500, 500));
    for (offset, count) in counts {
        assert_eq!(count.as_slice(), offset.to_string().as_bytes());
    }
}
