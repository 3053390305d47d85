mod life;
mod rebalance;
mod verify;

use std::{io, sync::atomic::AtomicI64};

use super::*;
use crate::{
    background::Background,
    config::Durability,
    error::ErrorKind,
    random,
    record::Record,
    storage::{
        OpenMode,
        sim::{Repeat, SimStorage, faults::Operation},
    },
};

const DIR: &str = "/data/log";

fn open(storage: &SimStorage) -> Result<Log> {
    Log::options().open_on(Path::new(DIR), Arc::new(storage.clone()), Clock::default())
}

fn names(storage: &SimStorage, dir: &str) -> Vec<String> {
    storage.list(Path::new(dir)).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn only_fit_file_systems_are_used() {
    use FileSystemClass::*;
    for (class, allowed, fits) in [
        (Local, false, true),
        (LocalCopyOnWrite, false, true),
        (Unknown, false, false),
        (Unknown, true, true),
        (Network, false, false),
        (Network, true, false),
    ] {
        let storage = SimStorage::default();
        storage.set_file_system("strangefs", class);
        let options = Log::options().allow_unknown_file_system(allowed);
        let outcome = options.open_on(Path::new(DIR), Arc::new(storage.clone()), Clock::default());
        match outcome {
            Ok(log) => {
                assert!(fits, "{class:?}");
                let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
                topic.append(Record::new("tea")).unwrap();
                log.close().unwrap();
            }
            Err(error) => {
                assert!(!fits, "{class:?}: {error}");
                assert_eq!(error.kind(), ErrorKind::UnsupportedFileSystem);
                assert!(error.to_string().contains("strangefs"), "{error}");
                assert_eq!(names(&storage, DIR), [""; 0]);
            }
        }
    }
}

#[test]
fn a_folder_of_a_newer_version_is_not_touched() {
    let storage = SimStorage::default();
    storage.create_dir_all(Path::new(DIR)).unwrap();
    let path = Path::new(DIR).join(META_FILE);
    let file = storage.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(br#"{"format_version": 2}"#, 0).unwrap();
    let error = open(&storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
    assert_eq!(error.path(), Some(&*path));
    assert_eq!(names(&storage, DIR), [META_FILE]);
}

#[test]
fn files_that_are_not_the_logs_stay() {
    let storage = SimStorage::default();
    storage.create_dir_all(Path::new(DIR)).unwrap();
    let mine = ["metadata.tmp", "meta.tmp.bak", "notes.txt"];
    for name in mine.iter().chain(&["meta.tmp"]) {
        storage.open(&Path::new(DIR).join(name), OpenMode::CreateNew).unwrap();
    }
    open(&storage).unwrap().close().unwrap();
    let names = names(&storage, DIR);
    assert!(mine.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    assert!(!names.iter().any(|name| name == "meta.tmp"), "that one is a leftover: {names:?}");
}

#[test]
fn a_missing_meta_file_is_written_anew_and_told() {
    let storage = SimStorage::default();
    let log = open(&storage).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    log.close().unwrap();
    storage.remove_file(&Path::new(DIR).join(META_FILE)).unwrap();
    let log = open(&storage).unwrap();
    assert_eq!(log.recovery().findings(), [Finding::MissingMeta { path: Path::new(DIR).join(META_FILE) }]);
    log.close().unwrap();
    assert!(open(&storage).unwrap().recovery().is_clean());
}

#[test]
fn a_second_opener_is_told_who_has_it_open() {
    let storage = SimStorage::default();
    let log = open(&storage).unwrap();
    let error = open(&storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert_eq!(error.process_id(), Some(std::process::id()));
    assert_eq!(error.path(), Some(Path::new(DIR)));
    drop(log);
    open(&storage).unwrap();
}

#[test]
fn an_opening_that_fails_anywhere_can_be_repeated() {
    for n in 1.. {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/data")).unwrap();
        storage.fail_nth(n, io::ErrorKind::Other, Repeat::Once);
        let outcome = open(&storage);
        storage.heal();
        let Err(error) = outcome else {
            assert!(n > 10, "nothing failed");
            return;
        };
        assert_eq!(error.kind(), ErrorKind::Io, "{n}: {error}");
        let log = open(&storage).unwrap_or_else(|error| panic!("{n}: {error}"));
        log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap().append(Record::new("tea")).unwrap();
        log.close().unwrap();
    }
}

#[test]
fn the_log_closes_with_its_last_handle() {
    let storage = SimStorage::default();
    let log = open(&storage).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    drop(log);
    topic.append(Record::new("tea")).unwrap();
    assert_eq!(open(&storage).unwrap_err().kind(), ErrorKind::Locked, "a topic keeps the log open");
    let partition = topic.partition(0).unwrap();
    drop(topic);
    partition.append(Record::new("coffee")).unwrap();
    let records = partition.read_from(0).unwrap();
    drop(partition);
    assert_eq!(records.count(), 2);

    let log = open(&storage).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    let shared = Arc::downgrade(&log.shared);
    let consumer = log.consumer("billing").topic("orders").open().unwrap();
    log.close().unwrap();
    drop(log);
    assert!(shared.upgrade().is_some());
    drop(consumer);
    assert!(shared.upgrade().is_none(), "a cycle");
}

#[test]
fn what_keeps_retention_from_removing_is_told_and_tried_again() {
    let storage = SimStorage::default();
    let options = Log::options().retention_bytes(0).segment_bytes(64 << 10);
    // Often enough that it would be seen here if one failure ended it.
    let options = options.retention_check_interval(std::time::Duration::from_millis(1));
    let log = options.open_on(Path::new(DIR), Arc::new(storage.clone()), Clock::default()).unwrap();
    storage.fail_if(|operation, path| {
        let segment = operation == Operation::Rename && path.extension().is_some_and(|it| it == "tmp");
        segment.then_some(io::ErrorKind::PermissionDenied)
    });
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    let wait_until = |what: &str, holds: &dyn Fn() -> bool| {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed().as_secs() < 30, "{what}");
            std::thread::yield_now();
        }
    };
    for number in 0..4000 {
        topic.append(Record::new("x".repeat(100)).partition(number % 2)).unwrap();
    }
    wait_until("it fails more than once", &|| log.retention_status().failures > 10);
    let error = log.retention_status().last_error.unwrap();
    assert_eq!((error.kind(), error.path().is_some()), (ErrorKind::Io, true), "{error}");
    assert_eq!(log.enforce_retention().unwrap_err().kind(), ErrorKind::Io);
    let segments = |number| {
        let folder = format!("{DIR}/orders-{number}");
        names(&storage, &folder).iter().filter(|name| name.ends_with(".log")).count()
    };
    assert!(segments(0) > 1 && segments(1) > 1);
    storage.heal();
    wait_until("the files go", &|| segments(0) == 1 && segments(1) == 1);

    // One that can't be checked keeps none of the others.
    topic.partition(0).unwrap().log().poison("a test says so");
    for _ in 0..2000 {
        topic.append(Record::new("x".repeat(100)).partition(1)).unwrap();
    }
    assert_eq!(log.enforce_retention().unwrap_err().kind(), ErrorKind::Poisoned);
    wait_until("the other one is checked", &|| segments(1) == 1);
    log.close().unwrap_err();
}

/// Records of several frames in several partitions, and a disk that is full somewhere among them.
#[test]
fn a_batch_that_fails_midway_tells_what_was_appended() {
    let mut partial = 0;
    for space in (0..10).map(|step| step * (1 << 20)) {
        let storage = SimStorage::default();
        let log = open(&storage).unwrap();
        let topic = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
        let record = |i: u8| Record::new(vec![i; 200 << 10]).partition(u32::from(i) % 3);
        storage.limit_space(Some(storage.used_space() + space));
        let outcome = topic.append_batch((0..36).map(record));
        storage.limit_space(None);
        let ranges = outcome.unwrap_or_else(|error| {
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            partial += usize::from(!error.appended().is_empty());
            error.appended().to_vec()
        });

        for number in 0..3 {
            let partition = topic.partition(number).unwrap();
            let told = ranges.iter().filter(|range| range.partition == number).flat_map(|range| range.offsets.clone());
            assert_eq!(told.collect::<Vec<_>>(), (0..partition.end_offset()).collect::<Vec<_>>());
            for (i, record) in partition.read_from(0).unwrap().enumerate() {
                assert_eq!(record.unwrap().value().unwrap()[0] as usize, 3 * i + number as usize);
            }
        }
        // What wasn't appended can be appended now.
        let told: u64 = ranges.iter().map(|range| range.offsets.end - range.offsets.start).sum();
        let has = |i: &u8| {
            let ranges = ranges.iter().filter(|range| range.partition == u32::from(*i) % 3);
            ranges.fold(0, |end, range| end.max(range.offsets.end)) > u64::from(*i) / 3
        };
        let missing: Vec<u8> = (0..36).filter(|i| !has(i)).collect();
        assert_eq!(missing.len() as u64 + told, 36);
        topic.append_batch(missing.into_iter().map(record)).unwrap();
        assert!((0..3).all(|number| topic.partition(number).unwrap().end_offset() == 12));
        log.close().unwrap();
    }
    assert!(partial > 1, "no batch failed midway");
}

/// Which threads are there: the flusher, the housekeeper.
fn threads(log: &Log) -> (bool, bool) {
    (log.shared.flusher.has_begun(), log.shared.housekeeper.has_begun())
}

fn topic(log: &Log) -> Topic {
    log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap()
}

#[test]
fn who_only_reads_has_no_threads_and_the_first_append_has_both() {
    let storage = SimStorage::default();
    topic(&open(&storage).unwrap()).append(Record::new("tea")).unwrap();
    let log = open(&storage).unwrap();
    let topic = topic(&log);
    assert_eq!(topic.partition(0).unwrap().read_from(0).unwrap().count(), 1);
    assert_eq!(threads(&log), (false, cfg!(feature = "metrics")));
    topic.append(Record::new("milk")).unwrap();
    assert_eq!(threads(&log), (true, true));
    log.close().unwrap();
    assert_eq!(threads(&log), (false, false));
}

#[test]
fn a_log_has_a_housekeeper_as_soon_as_there_is_something_to_look_after() {
    type Want = fn(&Log);
    let wants: [(&str, Want); 2] = [
        ("a group", |log| drop(log.consumer("billing").topic("orders").open().unwrap())),
        ("other options", |log| {
            log.alter_topic("orders", |config| config.retention_bytes(1 << 20)).unwrap();
        }),
    ];
    for (what, want) in wants {
        let storage = SimStorage::default();
        topic(&open(&storage).unwrap());
        let log = open(&storage).unwrap();
        topic(&log);
        assert_eq!(threads(&log).1, cfg!(feature = "metrics"), "{what}");
        want(&log);
        assert!(threads(&log).1, "{what}");
    }
    // And from the start where retention may let something go.
    let storage = SimStorage::default();
    let log = open(&storage).unwrap();
    log.create_topic("orders", TopicConfig::with_partitions(1).retention_bytes(1 << 20)).unwrap();
    log.close().unwrap();
    assert_eq!(threads(&open(&storage).unwrap()), (false, true));
}

#[test]
fn without_threads_nothing_is_appended_that_relies_on_them_and_everything_can_be_read() {
    let storage = SimStorage::default();
    topic(&open(&storage).unwrap()).append(Record::new("tea")).unwrap();
    let options = LogOptions { background: Background::NoThreads, ..Log::options() };
    let log = match options.open_on(Path::new(DIR), Arc::new(storage.clone()), Clock::default()) {
        Err(error) if cfg!(feature = "metrics") => return assert_eq!(error.kind(), ErrorKind::LimitReached),
        log => log.unwrap(),
    };
    let topic = topic(&log);
    let refused = |outcome: Result<()>| assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LimitReached);
    for _ in 0..2 {
        refused(topic.append(Record::new("milk")).map(drop));
        refused(topic.append_with(Record::new("milk"), Durability::Synced).map(drop));
        refused(log.alter_topic("orders", |config| config.retention_bytes(1 << 20)).map(drop));
        refused(topic.partition(0).unwrap().wait_durable(1, std::time::Duration::from_secs(30)).map(drop));
        refused(log.consumer("billing").topic("orders").open().map(drop));
    }
    let partition = topic.partition(0).unwrap();
    assert_eq!((partition.end_offset(), partition.read_from(0).unwrap().count()), (1, 1));
    log.close().unwrap();
    let log = open(&storage).unwrap();
    assert_eq!(log.topics(), ["orders"]);
    assert_eq!(log.topic("orders").unwrap().append(Record::new("milk")).unwrap().offset, 1);
}

/// What the simulation builds on: without threads, and with ids and times given, a log does the same things twice.
#[test]
fn a_stepped_log_does_the_same_twice() {
    let run = || {
        random::seed(Some(random::Sequence::new(1)));
        let storage = SimStorage::default();
        let options = LogOptions { background: Background::Stepped, ..Log::options() };
        let clock = Clock::Manual(Arc::new(AtomicI64::new(1_000)));
        let log = options.open_on(Path::new(DIR), Arc::new(storage.clone()), clock).unwrap();
        let topic = log.create_topic("orders", TopicConfig::with_partitions(3)).unwrap();
        for number in 0..50 {
            topic.append(Record::new(format!("order {number}"))).unwrap();
            topic.append(Record::new("paid").key(format!("customer-{number}"))).unwrap();
        }
        log.step_flusher();
        let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
        consumer.poll(std::time::Duration::ZERO).unwrap();
        consumer.commit().unwrap();
        log.step_housekeeper();
        drop(consumer);
        log.close().unwrap();
        random::seed(None);
        let contents: Vec<_> = ["orders-0", "orders-1", "orders-2", "__offsets-0"]
            .map(|dir| storage.read(&Path::new(DIR).join(dir).join("00000000000000000000.log"), 1 << 30).unwrap())
            .into();
        (storage.take_trace(), contents)
    };
    let (first, second) = (run(), run());
    assert!(first.0.len() > 100, "{}", first.0.len());
    assert!(first == second);
}
