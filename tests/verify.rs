//! Verifying a log, open and closed: sound ones are sound whatever goes on, each kind of damage is found in its place,
//! and nothing is changed by looking.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{snapshot, value_of};
use proptest::prelude::*;
use tidelog::{
    CorruptionPolicy, Durability, ErrorKind, Log, OwnedRecord, Record, Start, TopicConfig, VerifyFinding, VerifyReport,
};

mod common;

const SEGMENT_BYTES: u64 = 64 << 10;

fn options() -> tidelog::LogOptions {
    Log::options().segment_bytes(SEGMENT_BYTES).durability(Durability::Interval(Duration::from_millis(5)))
}

/// Records of every shape, over three segments of one partition and one of another; a group that has committed. Closed.
fn prepare(dir: &Path) {
    let log = options().open(dir).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    fill(&topic, 0);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    while !consumer.poll(Duration::ZERO).unwrap().is_empty() {}
    consumer.commit().unwrap();
    drop(consumer);
    log.close().unwrap();
}

fn fill(topic: &tidelog::Topic, from: u64) {
    for number in from..from + 300 {
        let value = value_of(number, 300);
        topic.append(Record::new(&value[..]).key(format!("key {number}")).partition(0)).unwrap();
        match number % 60 {
            0 => drop(topic.append(Record::new(value_of(number, 6000)).partition(0).header("large", "yes")).unwrap()),
            20 => drop(topic.append(Record::tombstone(format!("key {number}")).partition(0)).unwrap()),
            40 => {
                let records = (0..20).map(|at| Record::new(format!("{number} {at}")).partition(0).timestamp_ms(at));
                topic.append_batch(records).unwrap();
            }
            _ => {}
        }
    }
    topic.append(Record::null().partition(1)).unwrap();
}

fn verify(dir: &Path) -> VerifyReport {
    options().verify(dir).unwrap()
}

/// The segments of a partition, oldest first.
fn segments(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries.filter(|path| path.extension().is_some_and(|it| it == "log")).collect();
    found.sort();
    found
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    for (path, content) in snapshot(from).into_iter().collect::<BTreeMap<_, _>>() {
        let target = to.join(path.strip_prefix(from).unwrap());
        match content {
            None => fs::create_dir_all(target).unwrap(),
            Some(bytes) => {
                fs::create_dir_all(target.parent().unwrap()).unwrap();
                fs::write(target, bytes).unwrap();
            }
        }
    }
}

#[test]
fn a_sound_log_is_sound_open_and_closed() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    assert_eq!(segments(&dir.path().join("orders-0")).len(), 3);
    let before = snapshot(dir.path());
    let closed = verify(dir.path());
    assert_eq!(closed.findings(), [], "closed");
    assert!(closed.is_sound() && closed.is_complete());
    assert_eq!(snapshot(dir.path()), before, "nothing is changed");
    assert_eq!((closed.partitions(), closed.segments(), closed.records()), (3, 5, 411));

    let log = options().open(dir.path()).unwrap();
    let report = log.verify().unwrap();
    assert_eq!(report.findings(), []);
    assert_eq!((report.segments(), report.records(), report.frames()), (5, 411, closed.frames()));
    let topic = log.topic("orders").unwrap();
    assert_eq!(topic.verify().unwrap().records(), 411);
    assert_eq!(topic.partition(1).unwrap().verify().unwrap().records(), 1);

    // While it is open nobody else verifies it, nor does anybody open it who verifies.
    let error = options().verify(dir.path()).unwrap_err();
    assert_eq!((error.kind(), error.process_id()), (ErrorKind::Locked, Some(std::process::id())));
    log.close().unwrap();
    assert_eq!(log.verify().unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(topic.verify().unwrap_err().kind(), ErrorKind::Closed);
    let report = options()
        .verify_with(dir.path(), |_| {
            assert_eq!(Log::open(dir.path()).unwrap_err().kind(), ErrorKind::Locked);
            assert_eq!(verify(dir.path()).findings(), [], "several can");
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.is_sound());
}

#[test]
fn sound_logs_of_every_shape_are_sound() {
    let dir = tempfile::tempdir().unwrap();
    let sound = |what: &str| {
        let report = options().verify(dir.path()).unwrap();
        assert!(report.is_sound(), "{what}: {:?}", report.findings());
    };
    let log = options().open(dir.path()).unwrap();
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();
    sound("nothing in it");
    let log = options().open(dir.path()).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();
    sound("empty partitions");
    for round in 0..4 {
        let log = options().open(dir.path()).unwrap();
        let topic = log.topic("orders").unwrap();
        fill(&topic, round * 1000);
        let partition = topic.partition(0).unwrap();
        assert!(log.verify().unwrap().is_sound());
        partition.delete_records(partition.start_offset() + 333).unwrap();
        assert_eq!(log.verify().unwrap().findings(), [], "a log start within a segment");
        log.flush().unwrap();
        assert!(log.verify().unwrap().is_sound());
        partition.offset_for_time(i64::MAX).unwrap();
        assert!(log.verify().unwrap().is_sound(), "indexes that were made by a lookup");
        if round == 2 {
            partition.delete_records(partition.end_offset()).unwrap();
            assert!(log.verify().unwrap().is_sound(), "nothing left");
        }
        log.close().unwrap();
        sound("gone on with");
    }
    drop(topic);
    let log = options().positional_appends(true).open(dir.path()).unwrap();
    fill(&log.topic("orders").unwrap(), 9000);
    assert_eq!(log.verify().unwrap().findings(), [], "with positional appends");
    log.close().unwrap();
    sound("after positional appends");
    let log = options().open(dir.path()).unwrap();
    log.delete_topic("orders").unwrap();
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();
    sound("a deleted topic");
}

#[test]
fn fixtures_are_sound() {
    for name in ["log", "groups"] {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(name);
        let dir = tempfile::tempdir().unwrap();
        copy(&fixture, dir.path());
        let report = verify(dir.path());
        assert_eq!(report.findings(), [], "{name}");
        assert!(report.records() > 0);
        let log = Log::open(dir.path()).unwrap();
        assert_eq!(log.verify().unwrap().findings(), [], "{name}, open");
    }
}

/// What goes on in the background for some seconds, and how often the log is verified meanwhile.
#[test]
fn a_log_that_is_in_use_is_sound() {
    let seconds = std::env::var("TIDELOG_VERIFY_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    let kept = TopicConfig::with_partitions(2).retention_bytes(4 * SEGMENT_BYTES);
    let orders = log.create_topic("orders", kept).unwrap();
    let (over, rounds, findings) = (AtomicBool::new(false), AtomicU64::new(0), parking_lot_free::Findings::default());
    thread::scope(|scope| {
        let going = || !over.load(Ordering::Relaxed);
        for partition in 0..2 {
            let orders = &orders;
            scope.spawn(move || {
                for number in (0..).take_while(|_| going()) {
                    let record = Record::new(value_of(number, 100 + (number % 7 * 300) as usize)).partition(partition);
                    orders.append(record).unwrap();
                }
            });
        }
        scope.spawn(|| {
            while going() {
                log.enforce_retention().unwrap();
                let partition = orders.partition(0).unwrap();
                partition.delete_records(partition.start_offset() + 10).unwrap();
                partition.offset_for_time(i64::MAX).unwrap();
                log.flush().unwrap();
            }
        });
        scope.spawn(|| {
            for number in (0..).take_while(|_| going()) {
                let topic = log.create_topic("passing", TopicConfig::with_partitions(1 + number % 3)).unwrap();
                fill(&topic_with_two(&log, &topic), 0);
                log.delete_topic("passing").unwrap();
            }
        });
        scope.spawn(|| {
            let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
            consumer = {
                drop(consumer);
                log.consumer("billing").topic("orders").on_corruption(CorruptionPolicy::Fail).open().unwrap()
            };
            while going() {
                match consumer.poll(Duration::from_millis(10)) {
                    Ok(_) => consumer.commit().unwrap(),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange, "{error}");
                        let (partition, offset) = (error.partition().unwrap(), error.resume_offset().unwrap());
                        consumer.seek("orders", partition, offset).unwrap();
                    }
                }
            }
        });
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < deadline {
            let report = log.verify().unwrap();
            findings.add(report.findings());
            for result in [orders.verify(), orders.partition(0).unwrap().verify()] {
                findings.add(result.unwrap().findings());
            }
            if let Ok(topic) = log.topic("passing") {
                match topic.verify() {
                    Ok(report) => findings.add(report.findings()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownTopic),
                }
            }
            rounds.fetch_add(1, Ordering::Relaxed);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(findings.all(), []);
    assert!(rounds.load(Ordering::Relaxed) > 2);
    println!("verify_rounds={} false_alarms=0", rounds.load(Ordering::Relaxed));
}
