//! What needs a disk that fails, or segments that go at a given moment.

use std::{path::Path, sync::Arc, time::Duration};

use super::*;
use crate::{
    clock::Clock,
    config::{Durability, LogOptions, Start, TopicConfig},
    error::ErrorKind,
    log::Log,
    reader::{CorruptionPolicy, OutOfRangePolicy},
    record::Record,
    storage::sim::SimStorage,
    topic::Topic,
};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn log(storage: &SimStorage, options: LogOptions) -> Log {
    options.open_on(Path::new("/log"), Arc::new(storage.clone()), Clock::System).unwrap()
}

/// A topic of one partition with some segments, and their base offsets.
fn segments(log: &Log) -> (Topic, Vec<u64>) {
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    let value = vec![b'x'; 1000];
    for _ in 0..300 {
        topic.append(Record::new(&value)).unwrap();
    }
    let bases = topic.partition(0).unwrap().log().segment_base_offsets();
    assert!(bases.len() > 3);
    (topic, bases)
}

fn offsets(batch: &Batch) -> Vec<u64> {
    batch.iter().map(|record| record.offset()).collect()
}

fn skipped(batch: &Batch) -> Vec<(u64, u64, ErrorKind)> {
    batch.skipped().iter().map(|skipped| (skipped.offset, skipped.resume_offset, skipped.error.kind())).collect()
}

#[test]
fn where_retention_was_faster_the_policy_says_where_to_go_on() {
    for policy in [OutOfRangePolicy::Fail, OutOfRangePolicy::Earliest, OutOfRangePolicy::Latest] {
        let log = log(&SimStorage::default(), Log::options().segment_bytes(64 << 10));
        let (topic, bases) = segments(&log);
        let open = |group: &str| log.consumer(group).topic("orders").on_out_of_range(policy).max_poll_records(10);
        let mut reading = open("reading").open().unwrap();
        assert_eq!(offsets(&reading.poll(LONG).unwrap()), (0..10).collect::<Vec<_>>());
        open("committed").open().unwrap().commit_offsets([("orders", 0, 3)]).unwrap();
        let mut reader = topic.reader(Start::Offset(3)).unwrap().on_out_of_range(policy);
        let partition = topic.partition(0).unwrap();
        partition.log().delete_segments_before(bases[2]).unwrap();

        let resume = match policy {
            OutOfRangePolicy::Earliest => bases[2],
            _ => 300,
        };
        let mut committed = open("committed").open().unwrap();
        for outcome in [committed.poll(LONG), reader.next_batch().map(Option::unwrap_or_default)] {
            if policy == OutOfRangePolicy::Fail {
                let error = outcome.unwrap_err();
                assert_eq!((error.kind(), error.valid_offsets()), (ErrorKind::OffsetOutOfRange, Some(bases[2]..300)));
                continue;
            }
            let batch = outcome.unwrap();
            assert_eq!(skipped(&batch), [(3, resume, ErrorKind::OffsetOutOfRange)]);
            assert_eq!(batch.skipped()[0].offsets(), 3..resume);
            assert_eq!(batch.is_empty(), policy == OutOfRangePolicy::Latest);
            assert!(offsets(&batch).iter().zip(resume..).all(|(&offset, expected)| offset == expected));
        }

        // Who is in the segment goes on with what is mapped, and meets the gap behind it.
        let (mut seen, mut told) = (Vec::new(), Vec::new());
        let error = loop {
            match reading.poll(Duration::ZERO) {
                Ok(batch) if batch.is_empty() && batch.skipped().is_empty() => break None,
                Ok(batch) => {
                    seen.extend(offsets(&batch));
                    told.extend(skipped(&batch));
                }
                Err(error) => break Some(error.kind()),
            }
        };
        if policy == OutOfRangePolicy::Fail {
            assert_eq!(seen, (10..bases[1]).collect::<Vec<_>>());
            assert_eq!((error, told.len()), (Some(ErrorKind::OffsetOutOfRange), 0));
        } else {
            assert_eq!(seen, (10..bases[1]).chain(resume..300).collect::<Vec<_>>());
            assert_eq!((error, &*told), (None, &[(bases[1], resume, ErrorKind::OffsetOutOfRange)][..]));
        }
    }
}

#[test]
fn a_start_that_moves_is_followed() {
    let log = log(&SimStorage::default(), Log::options().segment_bytes(64 << 10));
    let (topic, bases) = segments(&log);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    topic.partition(0).unwrap().log().delete_segments_before(bases[1]).unwrap();
    consumer.rewind().unwrap();
    assert_eq!(consumer.position("orders", 0).unwrap(), bases[1], "the earliest is another one now");
    topic.partition(0).unwrap().log().delete_segments_before(bases[2]).unwrap();
    consumer.seek_to_start("orders", 0).unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().iter().next().unwrap().offset(), bases[2]);
}

#[test]
fn a_commit_that_fails_is_told_before_anything_is_read() {
    let storage = SimStorage::default();
    let log = log(&storage, Log::options().durability(Durability::Synced));
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1).durability(Durability::Written)).unwrap();
    topic.append_batch((0..10).map(|_| Record::new("x"))).unwrap();
    let builder = log.consumer("billing").topic("orders").max_poll_records(4).auto_commit(Duration::ZERO);
    let mut consumer = builder.on_corruption(CorruptionPolicy::Skip).open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
    storage.fail_syncs(1);
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(consumer.position("orders", 0).unwrap(), 4);
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Poisoned, "and again, until it is mended");
    assert_eq!(consumer.close().unwrap_err().kind(), ErrorKind::Poisoned);
    assert!(log.describe_group("billing").unwrap().members.is_empty(), "it has left all the same");
    let error = log.consumer("billing").topic("orders").open().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned, "that there is another one can't be recorded");
}

/// A disk that can't be read isn't damage: what it holds may be read next time.
#[test]
fn no_policy_passes_over_what_the_system_refuses() {
    let storage = SimStorage::default();
    let open = || log(&storage, Log::options().segment_bytes(64 << 10));
    let first = open();
    let (_, bases) = segments(&first);
    first.close().unwrap();
    let log = open();
    let builder = log.consumer("billing").topic("orders").on_corruption(CorruptionPolicy::Skip);
    let mut consumer = builder.on_out_of_range(OutOfRangePolicy::Latest).open().unwrap();
    let name = format!("{:020}.log", bases[1]);
    let path = Path::new("/log/orders-0").join(&name);
    let aside = Path::new("/log/aside");
    crate::storage::Storage::rename(&storage, &path, aside).unwrap();
    let mut seen = Vec::new();
    let error = loop {
        match consumer.poll(Duration::ZERO) {
            Ok(batch) => {
                assert!(!batch.is_empty() && batch.skipped().is_empty());
                seen.extend(offsets(&batch));
            }
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    crate::storage::Storage::rename(&storage, aside, &path).unwrap();
    seen.extend(std::iter::repeat_with(|| offsets(&consumer.poll(Duration::ZERO).unwrap())).take(3).flatten());
    assert_eq!(seen, (0..300).collect::<Vec<_>>());
}
