//! The life of topics: deleted, created again, given more partitions, other options.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use tidelog::{
    Batch, Durability, ErrorKind, Finding, Log, MAX_PARTITIONS, Record, Reset, Start, Topic, TopicConfig, murmur2,
};

use crate::common::small_segments;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn config(partitions: u32) -> TopicConfig {
    TopicConfig::with_partitions(partitions)
}

fn in_memory() -> Log {
    Log::options().in_memory().segment_bytes(1 << 20).open("test").unwrap()
}

/// Appends numbers, in turn to all partitions.
fn append(topic: &Topic, numbers: std::ops::Range<u32>) {
    for number in numbers {
        topic.append(Record::new(format!("{number}")).partition(number % topic.partitions())).unwrap();
    }
}

fn numbers(batch: &Batch) -> Vec<u32> {
    batch.iter().map(|record| std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap()).collect()
}

/// Everything in the topic, sorted.
fn read(topic: &Topic) -> Vec<u32> {
    let (mut reader, mut all) = (topic.reader(Start::Earliest).unwrap(), Vec::new());
    while let Some(batch) = reader.next_batch().unwrap() {
        all.extend(numbers(&batch));
    }
    all.sort_unstable();
    all
}

/// Names of what is in the folder, but for what every log has.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().chain(fs::read_dir(folder.join("topics")).unwrap());
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !["topics", "processes", "tidelog.meta", "__offsets-0", "__offsets.json"].contains(&&**name))
        .collect()
}

#[test]
fn a_deleted_topic_is_gone_with_its_files_and_other_topics_stay() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for name in ["orders", "orders-0", "order", "orders2"] {
        append(&log.create_topic(name, config(2)).unwrap(), 0..10);
    }
    log.delete_topic("orders").unwrap();
    assert_eq!(log.topics(), ["order", "orders-0", "orders2"]);
    let left = ["order-0", "order-1", "orders-0-0", "orders-0-1", "orders2-0", "orders2-1"];
    let files = ["order.json", "orders-0.json", "orders2.json"];
    assert_eq!(names(dir.path()), left.iter().chain(&files).map(ToString::to_string).collect());
    for error in [log.delete_topic("orders").unwrap_err(), log.topic("orders").unwrap_err()] {
        assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("orders")));
    }
    for name in ["", "..", "../orders2", "__offsets"] {
        assert_eq!(log.delete_topic(name).unwrap_err().kind(), ErrorKind::InvalidName, "{name}");
    }
    for name in ["orders-0", "order", "orders2"] {
        assert_eq!(read(&log.topic(name).unwrap()), (0..10).collect::<Vec<_>>());
    }
    log.close().unwrap();
    assert_eq!(log.delete_topic("order").unwrap_err().kind(), ErrorKind::Closed);
    let log = small_segments().open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    assert_eq!(log.topics(), ["order", "orders-0", "orders2"]);
}

#[test]
fn handles_of_a_deleted_topic_say_so_and_batches_stay() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    let topic = log.create_topic("orders", config(2)).unwrap();
    // Some segments: what is read lies in several files.
    let value = "x".repeat(1000);
    let records: Vec<_> = (0..500).map(|number| format!("{number} {value}")).collect();
    topic.append_batch(records.iter().map(|record| Record::new(record).partition(0))).unwrap();
    let partition = topic.partition(0).unwrap();
    let mut reader = topic.reader(Start::Earliest).unwrap();
    let mut unread = topic.reader(Start::Earliest).unwrap();
    let mut records_of = partition.read_from(0).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let (batch, polled) = (reader.next_batch().unwrap().unwrap(), consumer.poll(LONG).unwrap());
    log.delete_topic("orders").unwrap();

    let results = [
        ("append", topic.append(Record::new("tea")).map(drop)),
        ("append_with", topic.append_with(Record::new("tea"), Durability::Synced).map(drop)),
        ("append_batch", topic.append_batch([Record::new("tea")]).map(drop)),
        ("partition append", partition.append(Record::new("tea")).map(drop)),
        ("partition append_batch", partition.append_batch_with([Record::new("tea")], Durability::Synced).map(drop)),
        ("topic flush", topic.flush()),
        ("partition flush", partition.flush()),
        ("topic reader", topic.reader(Start::Earliest).map(drop)),
        ("partition reader", partition.reader(Start::Earliest).map(drop)),
        ("read_from", partition.read_from(0).map(drop)),
        ("next_batch", reader.next_batch().map(drop)),
        ("next_batch of another", unread.next_batch().map(drop)),
        ("reader seek", reader.seek(0, 0)),
        ("records", records_of.next().unwrap().map(drop)),
        ("poll", consumer.poll(Duration::ZERO).map(drop)),
        ("describe", log.describe_topic("orders").map(drop)),
        ("alter", log.alter_topic("orders", |config| config).map(drop)),
        ("raise", log.increase_partitions("orders", 3).map(drop)),
    ];
    for (what, result) in results {
        let error = result.expect_err(what);
        assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("orders")), "{what}");
    }
    assert_eq!((topic.name(), topic.partitions(), topic.config()), ("orders", 2, config(2)));
    log.flush().unwrap();

    // Others of that name change nothing for them, nor for what was read.
    append(&log.create_topic("orders", config(2)).unwrap(), 0..100);
    assert_eq!(topic.append(Record::new("tea")).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(reader.next_batch().unwrap_err().kind(), ErrorKind::UnknownTopic);
    log.close().unwrap();
    for batch in [batch, polled] {
        assert!(!batch.is_empty());
        for (record, expected) in batch.iter().zip(&records) {
            assert_eq!(record.value(), Some(expected.as_bytes()));
        }
    }
}

#[test]
fn a_deletion_wakes_who_sleeps_for_the_topic() {
    let log = in_memory();
    log.create_topic("orders", config(3)).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    // Nobody has named it: there is nothing to tell, but for what may come later.
    let mut others = log.consumer("audit").topic_pattern("#").open().unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(30));
            log.delete_topic("orders").unwrap();
            append(&log.create_topic("later", config(1)).unwrap(), 7..8);
        });
        let error = consumer.poll(LONG).unwrap_err();
        assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("orders")));
        assert_eq!(numbers(&others.poll(LONG).unwrap()), [7]);
    });
}

#[test]
fn a_topic_that_is_created_again_inherits_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut ids = BTreeSet::new();
    for round in 0..3 {
        let log = Log::open(dir.path()).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        if round > 0 {
            log.delete_topic("orders").unwrap();
        }
        let orders = log.create_topic("orders", config(3 - round)).unwrap();
        assert_eq!(read(&orders), [0; 0]);
        assert!(ids.insert(log.describe_topic("orders").unwrap().id));
        append(&orders, 0..10);
        let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
        for number in 0..orders.partitions() {
            assert_eq!(consumer.committed("orders", number).unwrap(), None, "{round}");
        }
        assert_eq!(consumer.poll(LONG).unwrap().len(), 10);
        consumer.commit_with(Durability::Synced).unwrap();
        drop(consumer);
        log.close().unwrap();
    }
}

#[test]
fn a_deletion_that_a_killed_process_began_is_finished_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    for name in ["orders", "other"] {
        append(&log.create_topic(name, config(2)).unwrap(), 0..10);
    }
    log.close().unwrap();
    fs::rename(dir.path().join("topics/orders.json"), dir.path().join("topics/orders.gone")).unwrap();
    fs::remove_file(dir.path().join("orders-1/partition.checkpoint")).unwrap();
    let log = Log::open(dir.path()).unwrap();
    let finished = Finding::DeletionFinished { topic: "orders".into() };
    assert_eq!(log.recovery().findings(), std::slice::from_ref(&finished));
    assert!(finished.to_string().contains("orders"), "{finished}");
    assert!(!log.recovery().is_clean());
    assert_eq!(log.topics(), ["other"]);
    assert_eq!(names(dir.path()), ["other-0", "other-1", "other.json"].map(String::from).into());
    log.close().unwrap();
    assert!(Log::open(dir.path()).unwrap().recovery().is_clean());
}

#[test]
fn deleting_amid_appends_and_reads_ends_them_with_the_one_error() {
    let dir = tempfile::tempdir().unwrap();
    let log = small_segments().open(dir.path()).unwrap();
    for round in 0..5 {
        let topic = log.create_topic("orders", config(2)).unwrap();
        let begun = AtomicBool::new(false);
        thread::scope(|scope| {
            let append = |durability| {
                let (topic, begun) = (topic.clone(), &begun);
                scope.spawn(move || {
                    let error = loop {
                        match topic.append_with(Record::new("x".repeat(500)), durability) {
                            Ok(_) => begun.store(true, Ordering::Relaxed),
                            Err(error) => break error,
                        }
                    };
                    assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
                });
            };
            append(Durability::Written);
            append(Durability::Interval(Duration::from_millis(1)));
            append(Durability::Synced);
            let mut reader = topic.reader(Start::Earliest).unwrap();
            scope.spawn(move || {
                let error = loop {
                    match reader.next_batch() {
                        Ok(_) => {}
                        Err(error) => break error,
                    }
                };
                assert_eq!(error.kind(), ErrorKind::UnknownTopic, "{error}");
            });
            while !begun.load(Ordering::Relaxed) {
                thread::yield_now();
            }
            log.delete_topic("orders").unwrap();
        });
        assert_eq!(names(dir.path()), BTreeSet::new(), "{round}");
    }
    log.close().unwrap();
}

#[test]
fn more_partitions_are_seen_by_all_handles_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    let topic = log.create_topic("orders", config(2)).unwrap();
    append(&topic, 0..10);
    let mut reader = topic.reader(Start::Latest).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Latest).open().unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());

    assert_eq!(log.increase_partitions("orders", 5).unwrap().partitions(), 5);
    assert_eq!((topic.partitions(), topic.config()), (5, config(5)));
    append(&topic, 10..20);
    // What comes to new partitions isn't skipped, wherever one began.
    reader.seek(4, 0).unwrap();
    for batch in [reader.next_batch().unwrap().unwrap(), consumer.poll(LONG).unwrap()] {
        let mut found = numbers(&batch);
        found.sort_unstable();
        assert_eq!(found, (10..20).collect::<Vec<_>>());
    }
    drop((reader, consumer, topic));
    log.close().unwrap();

    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    let topic = log.ensure_topic("orders", config(5)).unwrap();
    assert_eq!(read(&topic), (0..20).collect::<Vec<_>>());
    let error = log.ensure_topic("orders", config(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartitionCountMismatch, "it was raised since");
}

#[test]
fn as_many_partitions_as_there_are_change_nothing_and_fewer_are_refused() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(3)).unwrap();
    assert_eq!(log.increase_partitions("orders", 3).unwrap().partitions(), 3);
    let error = log.increase_partitions("orders", 2).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::PartitionCountMismatch, Some("orders")));
    for wrong in [0, MAX_PARTITIONS + 1, u32::MAX] {
        assert_eq!(log.increase_partitions("orders", wrong).unwrap_err().kind(), ErrorKind::InvalidConfig, "{wrong}");
    }
    assert_eq!(log.increase_partitions("nothing", 3).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(log.increase_partitions("__offsets", 3).unwrap_err().kind(), ErrorKind::InvalidName);
    assert_eq!(topic.partitions(), 3);
    // Step by step, too.
    for count in 4..10 {
        assert_eq!(log.increase_partitions("orders", count).unwrap().partitions(), count);
        topic.append(Record::new("tea").partition(count - 1)).unwrap();
    }
}

/// As documented: a key's records are where their partition was when they were appended.
#[test]
fn keys_go_to_other_partitions_behind_a_raise_and_keep_their_order_before_and_behind() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(2)).unwrap();
    let keys: Vec<_> = (0..50).map(|number| format!("customer-{number}")).collect();
    let append_round = |round: u32| {
        for key in &keys {
            topic.append(Record::new(format!("{round}")).key(key)).unwrap();
        }
    };
    (0..3).for_each(append_round);
    log.increase_partitions("orders", 7).unwrap();
    (3..6).for_each(append_round);

    let mut reader = topic.reader(Start::Earliest).unwrap();
    let mut found: BTreeMap<(String, u32), Vec<u32>> = BTreeMap::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        for record in &batch {
            let key = std::str::from_utf8(record.key().unwrap()).unwrap().to_owned();
            let round = std::str::from_utf8(record.value().unwrap()).unwrap().parse().unwrap();
            found.entry((key, record.partition())).or_default().push(round);
        }
    }
    for key in &keys {
        let hash = murmur2(key.as_bytes()) & 0x7fff_ffff;
        let (before, behind) = (hash % 2, hash % 7);
        let rounds = |partition: u32| found.get(&(key.clone(), partition)).cloned().unwrap_or_default();
        if before == behind {
            assert_eq!(rounds(before), [0, 1, 2, 3, 4, 5], "{key}");
        } else {
            assert_eq!((rounds(before), rounds(behind)), (vec![0, 1, 2], vec![3, 4, 5]), "{key}");
        }
    }
}

#[test]
fn appends_go_on_while_partitions_come() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(1)).unwrap();
    let done = AtomicBool::new(false);
    let appended: usize = thread::scope(|scope| {
        let threads = [0, 1].map(|thread| {
            let (topic, done) = (topic.clone(), &done);
            scope.spawn(move || {
                let mut count = 0;
                while !done.load(Ordering::Relaxed) {
                    let keyed = Record::new("tea").key(format!("{thread} {count}"));
                    topic.append_batch([keyed, Record::new("coffee")]).unwrap();
                    count += 2;
                }
                count
            })
        });
        for count in 2..20 {
            log.increase_partitions("orders", count).unwrap();
        }
        done.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    let ends: u64 = (0..19).map(|number| topic.partition(number).unwrap().end_offset()).sum();
    assert_eq!(ends, appended as u64);
}

#[test]
fn changed_options_are_in_use_at_once_and_stay() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Log::options().max_record_bytes(100).open(dir.path()).unwrap();
    let log = open();
    let topic = log.create_topic("orders", config(2).max_record_bytes(10)).unwrap();
    let partition = topic.partition(1).unwrap();
    let large = || Record::new("x".repeat(50)).partition(1);
    assert_eq!(topic.append(large()).unwrap_err().kind(), ErrorKind::RecordTooLarge);

    let changed = log.alter_topic("orders", |config| config.max_record_bytes(50).segment_bytes(64 << 10)).unwrap();
    assert_eq!(changed, config(2).max_record_bytes(50).segment_bytes(64 << 10));
    topic.append(large()).unwrap();
    partition.append(large()).unwrap();
    assert_eq!(topic.config(), changed);
    // More partitions have them as well.
    log.increase_partitions("orders", 3).unwrap();
    topic.append(large().partition(2)).unwrap();
    topic.append(Record::new("x".repeat(51)).partition(2)).unwrap_err();
    // Back to the log's own, which is another one.
    log.alter_topic("orders", |config| config.max_record_bytes(None)).unwrap();
    topic.append(Record::new("x".repeat(100))).unwrap();
    drop((topic, partition));
    log.close().unwrap();

    let log = open();
    let topic = log.topic("orders").unwrap();
    assert_eq!(topic.config(), config(3).segment_bytes(64 << 10));
    topic.append(Record::new("x".repeat(100))).unwrap();
    assert_eq!(topic.append(Record::new("x".repeat(101))).unwrap_err().kind(), ErrorKind::RecordTooLarge);
}

#[test]
fn a_durability_that_is_changed_counts_for_the_next_append() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(1).durability(Durability::Written)).unwrap();
    let partition = topic.partition(0).unwrap();
    topic.append(Record::new("tea")).unwrap();
    assert_eq!(partition.durable_offset(), 0);
    log.alter_topic("orders", |config| config.durability(Durability::Synced)).unwrap();
    topic.append(Record::new("tea")).unwrap();
    assert_eq!(partition.durable_offset(), 2);
}

#[test]
fn a_segment_size_that_is_changed_counts_for_the_next_segment() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(1)).unwrap();
    let fill = || {
        for _ in 0..200 {
            topic.append(Record::new("x".repeat(1000))).unwrap();
        }
    };
    fill();
    assert_eq!(log.describe_topic("orders").unwrap().partitions[0].segments, 1);
    log.alter_topic("orders", |config| config.segment_bytes(64 << 10)).unwrap();
    fill();
    let description = log.describe_topic("orders").unwrap();
    assert!((4..=5).contains(&description.partitions[0].segments), "{description:?}");
}

#[test]
fn options_out_of_bounds_and_another_count_change_nothing() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(2).max_record_bytes(10)).unwrap();
    let wrong: [fn(TopicConfig) -> TopicConfig; 4] = [
        |config| config.max_record_bytes(0),
        |config| config.segment_bytes(1),
        |config| config.segment_age(Duration::ZERO),
        |config| config.durability(Durability::Interval(Duration::ZERO)),
    ];
    for change in wrong {
        assert_eq!(log.alter_topic("orders", change).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
    for count in [1, 3] {
        let error = log.alter_topic("orders", |_| config(count)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PartitionCountMismatch);
    }
    assert_eq!(topic.config(), config(2).max_record_bytes(10));
    assert_eq!(log.alter_topic("nothing", |config| config).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(log.alter_topic("__offsets", |config| config).unwrap_err().kind(), ErrorKind::InvalidName);
    log.close().unwrap();
    assert_eq!(log.alter_topic("orders", |config| config).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn changes_that_are_made_at_the_same_time_all_count() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(1)).unwrap();
    thread::scope(|scope| {
        let alter = |change: fn(TopicConfig, u64) -> TopicConfig| {
            let log = &log;
            scope.spawn(move || {
                for n in 1..=50 {
                    log.alter_topic("orders", |config| change(config, n)).unwrap();
                }
            });
        };
        alter(|config, n| config.max_record_bytes(n));
        alter(|config, n| config.segment_age(Duration::from_millis(n)));
        alter(|config, n| config.retention_bytes(n));
        scope.spawn(|| (2..=5).for_each(|count| drop(log.increase_partitions("orders", count).unwrap())));
    });
    let expected = config(5).max_record_bytes(50).segment_age(Duration::from_millis(50)).retention_bytes(50);
    assert_eq!(topic.config(), expected);
    let description = log.describe_topic("orders").unwrap();
    assert_eq!(description.config, expected);
    assert_eq!(description.options.max_record_bytes, 50);
}

/// What `change` does with the log meets no lock.
#[test]
fn the_change_of_options_may_use_the_log() {
    let log = in_memory();
    log.create_topic("orders", config(1)).unwrap();
    log.alter_topic("orders", |config| {
        log.ensure_topic("other", TopicConfig::with_partitions(1)).unwrap();
        config.max_record_bytes(log.topics().len() as u64)
    })
    .unwrap();
    assert_eq!(log.topic("orders").unwrap().config(), config(1).max_record_bytes(2));
}

/// Whatever meets whatever: one of the expected errors comes of it, and nobody waits for ever.
#[test]
fn a_topic_that_comes_and_goes_is_there_or_not_for_everybody_else() {
    let log = Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap();
    let done = AtomicBool::new(false);
    let check = |what: &str, outcome: tidelog::Result<()>| {
        use ErrorKind::{
            Conflict, Fenced, GroupInUse, PartitionCountMismatch, TopicExists, UnknownGroup, UnknownTopic,
        };
        let expected = [Conflict, Fenced, GroupInUse, PartitionCountMismatch, TopicExists, UnknownGroup, UnknownTopic];
        if let Err(error) = outcome {
            assert!(expected.contains(&error.kind()), "{what}: {error}");
        }
    };
    thread::scope(|scope| {
        let until_done = |what: &'static str, body: &(dyn Fn() -> tidelog::Result<()> + Sync)| {
            while !done.load(Ordering::Relaxed) {
                check(what, body());
            }
        };
        let log = &log;
        let run = |what: &'static str, body: Box<dyn Fn() -> tidelog::Result<()> + Send + Sync>| {
            scope.spawn(move || until_done(what, &*body));
        };
        let others = log.clone();
        run("append", {
            let log = others.clone();
            Box::new(move || log.topic("orders")?.append(Record::new("x".repeat(1000)).key("k")).map(drop))
        });
        run("read", {
            let log = others.clone();
            Box::new(move || {
                let mut reader = log.topic("orders")?.reader(Start::Earliest)?;
                while reader.next_batch()?.is_some() {}
                Ok(())
            })
        });
        for (group, topic) in [("billing", "orders"), ("billing", "orders"), ("audit", "#")] {
            let log = others.clone();
            run("consume", {
                Box::new(move || {
                    let builder = log.consumer(group).start_if_new(Start::Earliest);
                    let mut consumer = match topic {
                        "#" => builder.topic_pattern(topic).open()?,
                        name => builder.topic(name).open()?,
                    };
                    for _ in 0..3 {
                        consumer.poll(Duration::from_millis(1))?;
                        consumer.commit()?;
                    }
                    consumer.close()
                })
            });
        }
        run("administer", {
            let log = others.clone();
            Box::new(move || {
                let _ = log.lag("billing")?;
                log.reset_offsets("billing", "orders", Reset::Back(1))?;
                log.describe_topic("orders")?;
                log.delete_group("billing")
            })
        });
        run("change", {
            let log = others.clone();
            Box::new(move || {
                log.increase_partitions("orders", 3)?;
                log.alter_topic("orders", |config| config.max_record_bytes(2000)).map(drop)
            })
        });
        for _ in 0..30 {
            check("create", log.create_topic("orders", config(2)).map(drop));
            thread::sleep(Duration::from_millis(2));
            check("delete", log.delete_topic("orders"));
        }
        done.store(true, Ordering::Relaxed);
    });
    // What is left of it is what the last one left: nothing.
    assert_eq!(log.topics(), [""; 0]);
    log.create_topic("orders", config(2)).unwrap();
    let consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
    assert!((0..2).all(|number| consumer.committed("orders", number).unwrap().is_none()));
    drop(consumer);
    log.close().unwrap();
}
