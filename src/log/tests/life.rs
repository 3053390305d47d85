//! The life of topics on a machine that fails, stops, and loses its power at every step.

use super::*;
use crate::{
    config::{Durability, Start},
    storage::sim::power::PowerStorage,
    topic::Partition,
};

const RECORDS: u64 = 5;

/// Which folders lose what wasn't synced there, at a power cut.
const LOSSES: [fn(&Path) -> bool; 4] =
    [|_| false, |_| true, |dir| dir.ends_with(TOPICS_DIR), |dir| !dir.ends_with(TOPICS_DIR)];

fn open_on(storage: &(impl Storage + Clone + 'static)) -> Result<Log> {
    let options = Log::options().durability(Durability::Written).segment_bytes(64 << 10);
    options.open_on(Path::new(DIR), Arc::new(storage.clone()), Clock::default())
}

/// A log with a topic `orders` of two partitions, with records and commits, and another one whose folders are named
/// much like its.
fn begin(storage: &(impl Storage + Clone + 'static)) -> Log {
    let log = open_on(storage).unwrap();
    for name in ["orders", "orders-1"] {
        let topic = log.create_topic(name, TopicConfig::with_partitions(2)).unwrap();
        fill(&topic);
        let mut consumer = log.consumer("billing").topic(name).open().unwrap();
        consumer.commit_offsets([(name, 0, 3), (name, 1, 4)]).unwrap();
    }
    log.flush().unwrap();
    log
}

fn fill(topic: &Topic) {
    for number in 0..topic.partitions() {
        for value in 0..RECORDS {
            topic.append(Record::new(format!("{} {number} {value}", topic.name())).partition(number)).unwrap();
        }
    }
}

fn values(partition: &Partition) -> Vec<String> {
    let records = partition.read_from(partition.start_offset()).unwrap();
    records.map(|record| String::from_utf8(record.unwrap().value().unwrap().to_vec()).unwrap()).collect()
}

fn committed(log: &Log, topic: &str, partition: u32) -> Option<u64> {
    let consumer = log.consumer("billing").topic(topic).start_if_new(Start::Earliest).open().unwrap();
    consumer.committed(topic, partition).unwrap()
}

/// Everything of the topic is there.
fn check_whole(log: &Log, name: &str, case: &str) {
    let topic = log.topic(name).unwrap();
    for number in 0..2 {
        let expected: Vec<_> = (0..RECORDS).map(|value| format!("{name} {number} {value}")).collect();
        assert_eq!(values(&topic.partition(number).unwrap()), expected, "{case}");
        assert_eq!(committed(log, name, number), Some(3 + u64::from(number)), "{case}");
    }
}

/// Nothing is left of `orders`, and a new one inherits nothing.
fn check_gone(log: &Log, storage: &dyn Storage, case: &str) {
    assert_eq!(log.topic("orders").unwrap_err().kind(), ErrorKind::UnknownTopic, "{case}");
    let topic = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap_or_else(|e| panic!("{case}: {e}"));
    let names: Vec<_> = storage.list(Path::new(DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
    let ours = ["orders-0", "orders-1", "orders-1-0", "orders-1-1", "orders-2", "processes", "tidelog.meta", "topics"];
    assert_eq!(names, [&["__offsets-0"][..], &ours].concat(), "{case}");
    let names: Vec<_> =
        storage.list(&Path::new(DIR).join(TOPICS_DIR)).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(names, ["__offsets.json", "orders-1.json", "orders.json"], "{case}");
    for number in 0..3 {
        assert_eq!(topic.partition(number).unwrap().end_offset(), 0, "{case}");
        assert_eq!(committed(log, "orders", number), None, "{case}");
    }
    // Nor is anything kept of the old one that nobody would ever ask for.
    let kept = log.shared.groups.describe("billing").unwrap();
    let ids = ["orders", "orders-1"].map(|name| log.topic(name).unwrap().state().id);
    assert!(
        kept.committed.iter().chain(&kept.starts).all(|(place, _)| ids.contains(&place.topic_id)),
        "{case}: {kept:?}"
    );
    fill(&topic);
    check_whole(log, "orders-1", case);
}

/// Closes and opens once more: what was checked stays so.
fn check_again(log: Log, storage: &(impl Storage + Clone + 'static), case: &str) {
    log.close().unwrap();
    let log = open_on(storage).unwrap();
    assert!(log.recovery().is_clean(), "{case}: {:?}", log.recovery());
    assert_eq!(values(&log.topic("orders").unwrap().partition(1).unwrap()).len() as u64, RECORDS, "{case}");
    check_whole(&log, "orders-1", case);
}

#[test]
fn a_deletion_that_is_stopped_anywhere_leaves_the_topic_whole_or_gone() {
    let (mut whole, mut gone) = (0, 0);
    for loses in LOSSES {
        for n in 0.. {
            let storage = PowerStorage::default();
            let log = begin(&storage);
            storage.stop_after(n);
            let outcome = log.delete_topic("orders");
            let stopped = storage.is_stopped();
            drop(log);
            storage.cut_power(loses);

            let case = format!("{n}: {outcome:?}");
            let log = open_on(&storage).unwrap_or_else(|error| panic!("{case}: {error}"));
            let findings = log.recovery().findings();
            if log.topic("orders").is_ok() {
                whole += 1;
                assert!(outcome.is_err(), "{case}: what was answered is durable");
                assert_eq!(findings, [], "{case}");
                check_whole(&log, "orders", &case);
                log.delete_topic("orders").unwrap();
            } else {
                gone += 1;
                let finished = Finding::DeletionFinished { topic: "orders".into() };
                assert!(findings.iter().all(|finding| *finding == finished), "{case}: {findings:?}");
                assert!(findings.is_empty() || outcome.is_err(), "{case}");
            }
            check_gone(&log, &storage, &case);
            check_again(log, &storage, &case);
            if !stopped {
                outcome.unwrap();
                break;
            }
        }
    }
    assert!(whole >= 3 && gone >= 12, "{whole} {gone}");
}

#[test]
fn a_deletion_that_is_finished_by_an_open_may_be_stopped_there_too() {
    for loses in &LOSSES[1..] {
        for n in 0.. {
            let storage = PowerStorage::default();
            let log = begin(&storage);
            // Behind the marker: some folders have their last names, some don't.
            storage.stop_after(4);
            log.delete_topic("orders").unwrap_err();
            drop(log);
            storage.cut_power(|_| false);
            storage.stop_after(n);
            let outcome = open_on(&storage);
            let stopped = storage.is_stopped();
            drop(outcome);
            storage.cut_power(loses);
            let log = open_on(&storage).unwrap_or_else(|error| panic!("{n}: {error}"));
            check_gone(&log, &storage, &format!("{n}"));
            check_again(log, &storage, &format!("{n}"));
            if !stopped {
                break;
            }
        }
    }
}

#[test]
fn a_deletion_that_fails_anywhere_is_told_and_can_be_gone_on_with() {
    for repeat in [Repeat::Once, Repeat::Forever] {
        for how in 0..3 {
            for n in 1.. {
                let storage = SimStorage::default();
                let log = begin(&storage);
                let topic = log.topic("orders").unwrap();
                storage.fail_nth(n, io::ErrorKind::Other, repeat);
                let outcome = log.delete_topic("orders");
                storage.heal();
                let case = format!("{repeat:?} {how} {n}: {outcome:?}");
                if log.topic("orders").is_ok() {
                    outcome.unwrap_err();
                    fill(&topic);
                    log.delete_topic("orders").unwrap();
                    continue;
                }
                assert_eq!(topic.append(Record::new("tea")).unwrap_err().kind(), ErrorKind::UnknownTopic, "{case}");
                // What groups have committed couldn't be synced: nothing goes on there until the log is opened again.
                let poisoned = log.shared.groups.forget_topic(0).is_err();
                let log = match (&outcome, how) {
                    (Err(_), 0) if !poisoned => {
                        log.delete_topic("orders").unwrap();
                        assert_eq!(log.delete_topic("orders").unwrap_err().kind(), ErrorKind::UnknownTopic);
                        log
                    }
                    (_, 1) if !poisoned => log,
                    _ => {
                        assert_eq!(log.close().is_err(), poisoned, "{case}");
                        open_on(&storage).unwrap()
                    }
                };
                check_gone(&log, &storage, &case);
                check_again(log, &storage, &case);
                if outcome.is_ok() {
                    assert!(n > 5, "nothing failed");
                    break;
                }
            }
        }
    }
}

#[test]
fn more_partitions_come_all_or_none_wherever_it_is_stopped() {
    for loses in &LOSSES[1..3] {
        for n in 0.. {
            let storage = PowerStorage::default();
            let log = begin(&storage);
            storage.stop_after(n);
            let outcome = log.increase_partitions("orders", 4);
            let stopped = storage.is_stopped();
            drop((log, outcome.as_ref().is_ok()));
            let (succeeded, case) = (outcome.is_ok(), format!("{n}: {outcome:?}"));
            drop(outcome);
            storage.cut_power(loses);

            let log = open_on(&storage).unwrap_or_else(|error| panic!("{case}: {error}"));
            let count = log.topic("orders").unwrap().partitions();
            assert!(count == 4 || (count == 2 && !succeeded), "{case}");
            let orphans_alone =
                log.recovery().findings().iter().all(|finding| matches!(finding, Finding::OrphanedFolder { .. }));
            assert!(orphans_alone, "{case}: {:?}", log.recovery());
            check_whole(&log, "orders", &case);
            let topic = log.increase_partitions("orders", 4).unwrap_or_else(|error| panic!("{case}: {error}"));
            for number in 2..4 {
                topic.append(Record::new("tea").partition(number)).unwrap();
                assert_eq!(values(&topic.partition(number).unwrap()), ["tea"], "{case}");
            }
            drop(topic);
            check_again(log, &storage, &case);
            if !stopped {
                assert!(succeeded && n > 5, "{case}");
                break;
            }
        }
    }
}

#[test]
fn more_partitions_that_fail_anywhere_leave_those_that_were_there() {
    for n in 1.. {
        let storage = SimStorage::default();
        let log = begin(&storage);
        let topic = log.topic("orders").unwrap();
        storage.fail_nth(n, io::ErrorKind::Other, Repeat::Once);
        let outcome = log.increase_partitions("orders", 4);
        storage.heal();
        let case = format!("{n}: {outcome:?}");
        if outcome.is_ok() {
            assert_eq!(topic.partitions(), 4);
            assert!(n > 5, "nothing failed");
            return;
        }
        assert_eq!((topic.partitions(), topic.config().partitions()), (2, 2), "{case}");
        check_whole(&log, "orders", &case);
        // Whatever the file says by now, it can be done again, or left at that.
        if n % 2 == 0 {
            log.increase_partitions("orders", 4).unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        log.close().unwrap();
        let log = open_on(&storage).unwrap();
        assert!(log.recovery().findings().is_empty(), "{case}: {:?}", log.recovery());
        check_whole(&log, "orders", &case);
    }
}

#[test]
fn options_are_the_old_or_the_new_ones_wherever_a_change_is_stopped() {
    let (old, new) = (1 << 20, 100);
    for loses in LOSSES {
        for n in 0.. {
            let storage = PowerStorage::default();
            let log = begin(&storage);
            storage.stop_after(n);
            let outcome = log.alter_topic("orders", |config| config.max_record_bytes(new));
            let stopped = storage.is_stopped();
            let topic = log.topic("orders").unwrap();
            let in_use = if outcome.is_ok() { new } else { old };
            assert_eq!(topic.state().settings.max_record_bytes(), in_use, "{n}");
            drop((log, topic));
            storage.cut_power(loses);
            let log = open_on(&storage).unwrap();
            let found = log.topic("orders").unwrap().state().settings.max_record_bytes();
            assert!(found == new || (found == old && outcome.is_err()), "{n}: {found}");
            check_whole(&log, "orders", &format!("{n}"));
            if !stopped {
                outcome.unwrap();
                break;
            }
        }
    }
}

#[test]
fn a_creation_that_is_stopped_anywhere_can_be_done_again() {
    for loses in &LOSSES[1..3] {
        for n in 0.. {
            let storage = PowerStorage::default();
            let log = begin(&storage);
            storage.stop_after(n);
            let outcome = log.create_topic("new", TopicConfig::with_partitions(2)).map(drop);
            let stopped = storage.is_stopped();
            drop(log);
            storage.cut_power(loses);
            let log = open_on(&storage).unwrap();
            if outcome.is_ok() {
                log.topic("new").unwrap();
            }
            let topic = log.ensure_topic("new", TopicConfig::with_partitions(2)).unwrap();
            topic.append(Record::new("tea").partition(1)).unwrap();
            assert_eq!(values(&topic.partition(1).unwrap()), ["tea"]);
            drop(topic);
            log.close().unwrap();
            let log = open_on(&storage).unwrap();
            assert!(log.recovery().is_clean(), "{n}: {:?}", log.recovery());
            check_whole(&log, "orders", &format!("{n}"));
            if !stopped {
                outcome.unwrap();
                break;
            }
        }
    }
}
