mod life;

use super::*;
use crate::{
    error::ErrorKind,
    record::Record,
    storage::{OpenMode, sim::Repeat},
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
