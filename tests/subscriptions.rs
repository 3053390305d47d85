//! Which topics a consumer reads: names, patterns, and what comes later.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tidelog::{Batch, Consumer, ErrorKind, Log, Record, Start, Topic, TopicConfig};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

fn log() -> Log {
    Log::options().in_memory().segment_bytes(64 << 10).open("test").unwrap()
}

fn topic(log: &Log, name: &str, partitions: u32) -> Topic {
    log.create_topic(name, TopicConfig::with_partitions(partitions)).unwrap()
}

/// Appends records, in turn to both partitions.
fn append(topic: &Topic, count: u32) {
    for i in 0..count {
        topic.append(Record::new("x").partition(i % 2)).unwrap();
    }
}

/// Topics that are assigned, each once.
fn topics_of(consumer: &Consumer) -> Vec<String> {
    let mut names: Vec<String> = consumer.assignment().into_iter().map(|(topic, _)| topic).collect();
    names.dedup();
    names
}

fn values(batch: &Batch) -> Vec<String> {
    batch.iter().map(|record| String::from_utf8(record.value().unwrap().to_vec()).unwrap()).collect()
}

#[test]
fn names_and_patterns_mix_and_a_topic_is_read_once() {
    let log = log();
    for name in ["orders", "orders.eu", "orders.us", "payments", "mails"] {
        topic(&log, name, 2).append(Record::new(name)).unwrap();
    }
    let builder = log.consumer("billing").topics(["payments", "orders.us"]).topic("payments");
    let mut consumer = builder.topic_pattern("orders.*").topic_pattern("#.us").open().unwrap();
    let expected: Vec<(String, u32)> = ["orders.eu", "orders.us", "payments"]
        .iter()
        .flat_map(|name| (0..2).map(|partition| (name.to_string(), partition)))
        .collect();
    assert_eq!(consumer.assignment(), expected);
    let mut seen = values(&consumer.poll(LONG).unwrap());
    seen.sort_unstable();
    assert_eq!(seen, ["orders.eu", "orders.us", "payments"]);
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 0);
}

#[test]
fn the_table_in_the_docs_holds() {
    let log = log();
    let names =
        ["order", "orders", "orders-eu", "orders.eu", "orders.eu.paid", "orders.paid", "orders.paid.late", "paid"];
    names.iter().for_each(|name| drop(topic(&log, name, 1)));
    for (pattern, matching) in [
        ("orders.*", &["orders.eu", "orders.paid"][..]),
        ("orders.#", &["orders", "orders.eu", "orders.eu.paid", "orders.paid", "orders.paid.late"]),
        ("*.paid", &["orders.paid"]),
        ("#.paid", &["orders.eu.paid", "orders.paid", "paid"]),
        ("orders", &["orders"]),
        ("#", &names),
        ("nothing.*", &[]),
    ] {
        let consumer = log.consumer("billing").topic_pattern(pattern).open().unwrap();
        assert_eq!(topics_of(&consumer), matching, "{pattern}");
    }
}

#[test]
fn what_is_no_pattern_is_refused_by_name() {
    let log = log();
    for pattern in ["", "or*ers", "a b", "orders.##", "orders/eu"] {
        let error = log.consumer("billing").topic_pattern(pattern).open().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidName, "{pattern:?}");
        assert!(error.to_string().contains(pattern), "{error}");
    }
    assert_eq!(log.consumer("billing").topic("orders.*").open().unwrap_err().kind(), ErrorKind::InvalidName);
    assert_eq!(log.consumer("billing").topics([""; 0]).open().unwrap_err().kind(), ErrorKind::InvalidConfig);
}

#[test]
fn a_name_has_to_be_there_and_a_pattern_has_not() {
    let log = log();
    let error = log.consumer("billing").topic("orders").open().unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("orders")));
    let mut consumer = log.consumer("billing").topic_pattern("orders").open().unwrap();
    assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
    assert_eq!(consumer.position("orders", 0).unwrap_err().kind(), ErrorKind::NotAssigned);
    consumer.commit().unwrap();
    assert_eq!(consumer.lag().total, 0);
    topic(&log, "orders", 1).append(Record::new("tea")).unwrap();
    assert_eq!(values(&consumer.poll(LONG).unwrap()), ["tea"]);
}

#[test]
fn the_logs_own_topics_are_never_matched() {
    let log = log();
    topic(&log, "orders", 1).append(Record::new("tea")).unwrap();
    for pattern in ["#", "*", "__offsets"] {
        let mut consumer = log.consumer("audit").topic_pattern(pattern).open().unwrap();
        consumer.poll(Duration::ZERO).unwrap();
        consumer.commit().unwrap(); // so that there is something to see
        assert!(consumer.poll(Duration::ZERO).unwrap().is_empty());
        assert!(topics_of(&consumer).iter().all(|name| name == "orders"), "{pattern}");
    }
}

#[test]
fn a_topic_that_comes_later_is_read_from_its_beginning_wherever_new_groups_begin() {
    let log = log();
    topic(&log, "orders.eu", 1).append(Record::new("old")).unwrap();
    for start in [Start::Latest, Start::Offset(0), Start::Time(i64::MAX)] {
        let name = format!("orders.{start:?}").replace(['(', ')'], "-");
        let open = |group: &str| log.consumer(group).topic_pattern("orders.*").start_if_new(start).open().unwrap();
        let mut consumer = open(&name);
        let known = consumer.assignment().len();
        let new = topic(&log, &name, 2);
        for partition in 0..2 {
            new.append(Record::new(format!("{name} {partition}")).partition(partition)).unwrap();
        }
        let mut seen = values(&consumer.poll(LONG).unwrap());
        seen.retain(|value| value.starts_with(&name));
        assert_eq!(seen, [format!("{name} 0"), format!("{name} 1")]);
        assert_eq!(consumer.assignment().len(), known + 2);
        consumer.rewind().unwrap();
        let mut seen = values(&consumer.poll(LONG).unwrap());
        seen.retain(|value| value.starts_with(&name));
        assert_eq!(seen.len(), 2, "the group began there");
        consumer.commit().unwrap();
        drop(consumer);
        assert!(open(&name).poll(Duration::ZERO).unwrap().is_empty(), "and goes on behind what it committed");
    }
}

#[test]
fn a_sleeping_poll_wakes_for_a_matching_topic_and_sleeps_on_for_others() {
    let log = log();
    let mut consumer = log.consumer("billing").topic_pattern("orders.#").open().unwrap();
    thread::scope(|scope| {
        let start = Instant::now();
        let polling = scope.spawn(|| values(&consumer.poll(LONG).unwrap()));
        for number in 0..20 {
            topic(&log, &format!("mails.{number}"), 1).append(Record::new("mail")).unwrap();
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!polling.is_finished());
        let orders = topic(&log, "orders.eu.paid", 3);
        thread::sleep(Duration::from_millis(5));
        assert!(!polling.is_finished(), "there is nothing in it yet");
        orders.append(Record::new("tea")).unwrap();
        assert_eq!(polling.join().unwrap(), ["tea"]);
        assert!(start.elapsed() < LONG / 2);
    });
}

#[test]
fn closing_the_log_wakes_one_that_reads_nothing_so_far() {
    let log = log();
    let mut consumer = log.consumer("billing").topic_pattern("orders.#").open().unwrap();
    thread::scope(|scope| {
        let polling = scope.spawn(|| consumer.poll(LONG).unwrap_err().kind());
        thread::sleep(Duration::from_millis(20));
        log.close().unwrap();
        assert_eq!(polling.join().unwrap(), ErrorKind::Closed);
    });
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::Closed);
}

#[test]
fn positions_stay_with_their_partitions_when_topics_come_in_between() {
    let log = log();
    for name in ["b", "d"] {
        let topic = topic(&log, name, 2);
        append(&topic, 10);
    }
    let mut consumer = log.consumer("billing").topic_pattern("*").open().unwrap();
    consumer.seek("b", 1, 3).unwrap();
    consumer.seek("d", 0, 4).unwrap();
    consumer.pause([("d", 1)]).unwrap();
    for name in ["a", "c", "e"] {
        topic(&log, name, 1).append(Record::new("x")).unwrap();
    }
    let batch = consumer.poll(LONG).unwrap();
    let mut offsets: BTreeMap<(String, u32), Vec<u64>> = BTreeMap::new();
    for record in &batch {
        offsets.entry((record.topic().to_owned(), record.partition())).or_default().push(record.offset());
    }
    let expected = [
        (("a", 0), vec![0]),
        (("b", 0), vec![0, 1, 2, 3, 4]),
        (("b", 1), vec![3, 4]),
        (("c", 0), vec![0]),
        (("d", 0), vec![4]),
        (("e", 0), vec![0]),
    ];
    let expected = expected.map(|((topic, partition), offsets)| ((topic.to_owned(), partition), offsets));
    assert_eq!(offsets, BTreeMap::from(expected));
    assert_eq!(consumer.paused(), [("d".to_owned(), 1)]);
}

/// The clients' times here go up and down.
#[test]
fn a_new_group_begins_at_a_time() {
    let log = log();
    let orders = topic(&log, "orders", 2);
    for (partition, time_ms) in [(0, 100), (0, 300), (0, 200), (0, 400), (1, 50), (1, 60)] {
        orders.append(Record::new(format!("{time_ms}")).partition(partition).timestamp_ms(time_ms)).unwrap();
    }
    for (time_ms, expected) in [
        (i64::MIN, &["100", "300", "200", "400", "50", "60"][..]),
        (100, &["100", "300", "200", "400"]),
        (101, &["300", "200", "400"]),
        (250, &["300", "200", "400"]),
        (301, &["400"]),
        (401, &[]),
        (i64::MAX, &[]),
    ] {
        let group = format!("group{time_ms}");
        let open = || log.consumer(&*group).topic("orders").start_if_new(Start::Time(time_ms)).open().unwrap();
        let mut consumer = open();
        let mut seen = values(&consumer.poll(Duration::ZERO).unwrap());
        seen.sort_by_key(|value| expected.iter().position(|other| other == value));
        assert_eq!(seen, expected, "{time_ms}");
        consumer.commit().unwrap();
        drop(consumer);
        assert!(open().poll(Duration::ZERO).unwrap().is_empty(), "only where nothing was committed");
    }
}

/// Topics come, and records to them, while the consumer polls and sleeps.
#[test]
fn nothing_of_topics_that_come_is_missed_or_read_twice() {
    const TOPICS: u32 = 60;
    let log = log();
    let done = AtomicBool::new(false);
    let mut consumer =
        log.consumer("billing").topic_pattern("t.*").start_if_new(Start::Latest).max_poll_records(7).open().unwrap();
    let waker = consumer.waker();
    thread::scope(|scope| {
        let polling = scope.spawn(|| {
            let mut seen: BTreeMap<(String, u32), u64> = BTreeMap::new();
            let mut empty = 0;
            // The wake may be what ended one of them; nothing else is left for an empty batch.
            while empty < 2 {
                let last = done.load(Ordering::SeqCst);
                let batch = consumer.poll(if last { Duration::ZERO } else { LONG }).unwrap();
                for record in &batch {
                    let next = seen.entry((record.topic().to_owned(), record.partition())).or_default();
                    assert_eq!(record.offset(), *next);
                    *next += 1;
                }
                empty = if batch.is_empty() && last { empty + 1 } else { 0 };
            }
            seen
        });
        for number in 0..TOPICS {
            let topic = topic(&log, &format!("t.{number}"), 2);
            append(&topic, 20);
        }
        done.store(true, Ordering::SeqCst);
        waker.wake();
        let seen = polling.join().unwrap();
        assert_eq!(seen.len(), 2 * TOPICS as usize);
        assert!(seen.values().all(|&count| count == 10));
    });
}

/// A topic that goes at any moment: whoever named it is told once, whoever reads a pattern just goes on.
#[test]
fn topics_come_and_go_while_they_are_read() {
    const ROUNDS: u64 = 100;
    let log = log();
    let orders = topic(&log, "orders", 2);
    let done = AtomicBool::new(false);
    let open = |builder: tidelog::ConsumerBuilder| builder.max_poll_records(3).open().unwrap();
    let mut named = open(log.consumer("named").topic("orders"));
    let mut pattern = open(log.consumer("pattern").topic_pattern("#"));
    let wakers = [named.waker(), pattern.waker()];
    let read = |consumer: &mut Consumer| {
        let (mut records, mut told, mut empty) = (0, 0, 0);
        while empty < 2 {
            let last = done.load(Ordering::SeqCst);
            match consumer.poll(if last { Duration::ZERO } else { LONG }) {
                Ok(batch) if batch.is_empty() && last => empty += 1,
                Ok(batch) => records += batch.len() as u64,
                Err(error) => {
                    assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("orders")));
                    told += 1;
                }
            }
        }
        (records, told)
    };
    thread::scope(|scope| {
        let (named, pattern) = (scope.spawn(|| read(&mut named)), scope.spawn(|| read(&mut pattern)));
        append(&orders, 4);
        for round in 0..ROUNDS {
            if round % 3 == 0 {
                thread::sleep(Duration::from_millis(1));
            }
            log.delete_topic("orders").unwrap();
            if round % 2 == 0 {
                thread::yield_now();
            }
            append(&topic(&log, "orders", 2), 4);
        }
        done.store(true, Ordering::SeqCst);
        wakers.iter().for_each(tidelog::ConsumerWaker::wake);
        let ((named, told), (pattern, none)) = (named.join().unwrap(), pattern.join().unwrap());
        assert!((1..=ROUNDS).contains(&told), "{told}");
        assert_eq!(none, 0);
        assert!(named >= 4 && pattern >= 4, "at least what is there in the end: {named} {pattern}");
    });
}

#[test]
fn a_deleted_topic_takes_no_commits_and_one_that_comes_again_is_another() {
    let log = log();
    append(&topic(&log, "orders", 2), 10);
    append(&topic(&log, "mails", 2), 10);
    let mut consumer = log.consumer("billing").topics(["orders", "mails"]).open().unwrap();
    assert_eq!(consumer.poll(LONG).unwrap().len(), 20);
    log.delete_topic("orders").unwrap();
    let error = consumer.commit_offsets([("mails", 0, 1), ("orders", 0, 1)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownTopic);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed("mails", 0).unwrap(), Some(5));
    append(&topic(&log, "orders", 3), 4);
    assert_eq!(consumer.poll(LONG).unwrap_err().kind(), ErrorKind::UnknownTopic);
    assert_eq!(consumer.assignment().len(), 5);
    assert_eq!(consumer.committed("orders", 0).unwrap(), None);
    assert_eq!(consumer.poll(LONG).unwrap().len(), 4);
}
