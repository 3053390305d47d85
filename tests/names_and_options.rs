//! Bad input is refused by name, and nothing is lost for it.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path, time::Duration};

use tidelog::{Durability, Error, ErrorKind, Log, LogOptions, MAX_PARTITIONS, Record, Start, TopicConfig};

fn config(partitions: u32) -> TopicConfig {
    TopicConfig::with_partitions(partitions)
}

fn in_memory() -> Log {
    Log::options().in_memory().open("test").unwrap()
}

#[test]
fn names_of_topics_keep_to_the_rule() {
    let log = in_memory();
    let longest = "x".repeat(249);
    for name in ["a", "Orders.v2_old-1", "...", "_", "-", "0", longest.as_str()] {
        log.create_topic(name, config(2)).unwrap().append(Record::new("tea")).unwrap();
    }
    let mut names = log.topics();
    assert!(names.is_sorted());
    names.retain(|name| name.len() < 249);
    assert_eq!(names, ["-", "...", "0", "Orders.v2_old-1", "_", "a"]);

    let too_long = "x".repeat(250);
    for name in ["", ".", "..", "/", "a/b", "../a", "a\0b", "ü", "a b", "a\n", "__offsets", "__mine", too_long.as_str()]
    {
        for error in [
            log.create_topic(name, config(1)).unwrap_err(),
            log.ensure_topic(name, config(1)).unwrap_err(),
            log.topic(name).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::InvalidName, "{name:?}");
            assert!(error.to_string().contains("topic"), "{error}");
        }
    }
    assert_eq!(log.topics().len(), 7);
}

#[test]
fn the_longest_name_is_possible_on_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let name = "x".repeat(249);
    let log = Log::open(dir.path()).unwrap();
    log.create_topic(&name, config(12)).unwrap();
    log.close().unwrap();
    assert_eq!(Log::open(dir.path()).unwrap().topics(), [name]);
}

#[test]
fn topics_are_created_once() {
    let log = in_memory();
    log.create_topic("orders", config(2)).unwrap();
    let error = log.create_topic("orders", config(2)).unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::TopicExists, Some("orders")));
    assert_eq!(log.ensure_topic("orders", config(2)).unwrap().partitions(), 2);
    let error = log.ensure_topic("orders", config(3)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PartitionCountMismatch);
    assert!(["orders", "2", "3"].iter().all(|part| error.to_string().contains(part)), "{error}");
    let error = log.topic("nothing").unwrap_err();
    assert_eq!((error.kind(), error.topic()), (ErrorKind::UnknownTopic, Some("nothing")));
    assert_eq!(log.topic("orders").unwrap().name(), "orders");
}

#[test]
fn options_have_bounds() {
    let log = in_memory();
    for wrong in [
        config(0),
        config(MAX_PARTITIONS + 1),
        config(1).segment_bytes(1),
        config(1).segment_age(Duration::ZERO),
        config(1).max_record_bytes(0),
        config(1).durability(Durability::Interval(Duration::ZERO)),
    ] {
        for result in [log.create_topic("orders", wrong.clone()), log.ensure_topic("orders", wrong.clone())] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidConfig, "{wrong:?}");
        }
    }
    assert!(log.topics().is_empty());

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    let options: [fn(LogOptions) -> LogOptions; 4] = [
        |options| options.segment_bytes(1),
        |options| options.segment_age(Duration::from_micros(1)),
        |options| options.max_record_bytes(u64::MAX),
        |options| options.durability(Durability::Interval(Duration::from_micros(999))),
    ];
    for wrong in options {
        assert_eq!(wrong(Log::options()).open(&path).unwrap_err().kind(), ErrorKind::InvalidConfig);
        assert!(!path.exists(), "nothing is created for it");
    }
    let topic = log.create_topic("orders", config(1)).unwrap();
    let level = Durability::Interval(Duration::from_nanos(1));
    for error in [
        topic.append_with(Record::new("tea"), level).unwrap_err(),
        topic.append_batch_with([Record::new("tea")], level).unwrap_err(),
        topic.partition(0).unwrap().append_with(Record::new("tea"), level).unwrap_err(),
        topic.partition(0).unwrap().append_batch_with([Record::new("tea")], level).unwrap_err(),
        log.consumer("billing").topic("orders").open().unwrap().commit_with(level).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    }
}

#[test]
fn a_record_above_the_limit_is_refused_and_so_is_its_batch() {
    let log = Log::options().in_memory().max_record_bytes(100).open("test").unwrap();
    let topic = log.create_topic("orders", config(1)).unwrap();
    let large = vec![b'x'; 101];
    topic.append(Record::new(&large[..100])).unwrap();
    topic.append(Record::new(&large[..60]).key(&large[..40])).unwrap();
    let refused = || {
        [
            Record::new(&large),
            Record::new(&large[..60]).key(&large[..41]),
            Record::null().key(&large),
            Record::new("").header("h", &large[..100]),
            Record::null().null_header("x".repeat(101)),
        ]
    };
    for record in refused() {
        for error in [
            topic.append(record.clone()).unwrap_err(),
            topic.partition(0).unwrap().append(record.clone()).unwrap_err(),
            topic.append_batch([Record::new("tea"), record.clone(), Record::new("tea")]).unwrap_err(),
            topic.partition(0).unwrap().append_batch([Record::new("tea"), record]).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::RecordTooLarge);
            assert!(error.to_string().contains("100"), "{error}");
            assert!(error.appended().is_empty());
        }
    }
    assert_eq!(topic.partition(0).unwrap().end_offset(), 2);

    let large = log.create_topic("large", config(1).max_record_bytes(200)).unwrap();
    large.append(Record::new(vec![0; 200])).unwrap();
    assert_eq!(large.append(Record::new(vec![0; 201])).unwrap_err().kind(), ErrorKind::RecordTooLarge);
}

#[test]
fn a_small_limit_for_records_is_none_for_commits() {
    let log =
        Log::options().in_memory().max_record_bytes(1).segment_age(Duration::from_millis(1)).open("test").unwrap();
    let topic = log.create_topic("orders", config(1)).unwrap();
    topic.append(Record::new("x")).unwrap();
    let mut consumer = log.consumer("x".repeat(249)).topic("orders").open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    consumer.commit().unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(1));
}

#[test]
fn offsets_out_of_range_are_refused() {
    let log = in_memory();
    let topic = log.create_topic("orders", config(2)).unwrap();
    topic.append(Record::new("tea").partition(0)).unwrap();
    let error = topic.reader(Start::Offset(1)).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::OffsetOutOfRange, Some(1)));
    let open = || log.consumer("billing").topic("orders").start_if_new(Start::Offset(1)).open();
    assert_eq!(open().unwrap_err().kind(), ErrorKind::OffsetOutOfRange);
    topic.append(Record::new("tea").partition(1)).unwrap();
    open().unwrap();
}

/// Opens a folder that ought not to open; what is in it stays as it is.
fn refused(path: &Path) -> Error {
    let before = files(path);
    let error = Log::open(path).unwrap_err();
    assert_eq!(files(path), before);
    error
}

/// All files below, with their contents.
fn files(path: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path) else { return found };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push((path.clone(), fs::read(path).unwrap()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_file_where_the_folder_should_be_is_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data");
    fs::write(&path, "hello").unwrap();
    for path in [path.clone(), path.join("below")] {
        let error = refused(&path);
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
        assert_eq!(error.path(), Some(&*path));
    }
    assert_eq!(fs::read(&path).unwrap(), b"hello");
}

#[test]
fn a_path_that_is_none_is_refused_by_name() {
    let error = Log::open("").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("path"), "{error}");
    let error = Log::open("a\0b").unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(Path::new("a\0b"))));
}

#[test]
fn missing_folders_are_created() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b/c");
    let log = Log::open(&path).unwrap();
    assert_eq!(log.path(), path);
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    assert!(path.join("tidelog.meta").is_file());
}

/// Permissions don't stop the superuser, but `/proc` takes no folders from anybody.
#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let path = Path::new("/proc/tidelog-data");
    let error = Log::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("/proc/tidelog-data"), "{error}");
}

/// `/proc` is a file system that nobody keeps data on.
#[cfg(target_os = "linux")]
#[test]
fn an_unknown_file_system_is_told() {
    let path = Path::new("/proc/self");
    let error = Log::open(path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnsupportedFileSystem);
    assert!(error.to_string().contains("/proc/self"), "{error}");
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tidelog.meta"), r#"{"format_version": 1000, "created_ms": "a different shape"}"#)
        .unwrap();
    let error = refused(dir.path());
    assert_eq!(error.kind(), ErrorKind::UnsupportedFormat);
    assert!(["1000", "tidelog.meta"].iter().all(|part| error.to_string().contains(part)), "{error}");
}

#[test]
fn a_damaged_meta_file_is_told() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["", "garbage", "{}", r#"{"format_version": 1}"#] {
        fs::write(dir.path().join("tidelog.meta"), text).unwrap();
        let error = refused(dir.path());
        assert_eq!(error.kind(), ErrorKind::Corruption, "{text}");
        assert_eq!(error.path(), Some(&*dir.path().join("tidelog.meta")));
    }
}

#[test]
fn a_damaged_topic_file_is_told_and_the_rest_is_there_when_it_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path()).unwrap();
    log.create_topic("orders", config(1)).unwrap().append(Record::new("tea")).unwrap();
    log.close().unwrap();
    let path = dir.path().join("topics/orders.json");
    let good = fs::read_to_string(&path).unwrap();
    for (text, kind) in [
        (good.replace("topic_id", "topicid"), ErrorKind::Corruption),
        (good[..good.len() / 2].to_owned(), ErrorKind::Corruption),
        (good.replace("\"format_version\": 1", "\"format_version\": 7"), ErrorKind::UnsupportedFormat),
    ] {
        assert_ne!(text, good);
        fs::write(&path, text).unwrap();
        let error = Log::open(dir.path()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (kind, Some(&*path)));
    }
    fs::write(&path, good).unwrap();
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.topic("orders").unwrap().partition(0).unwrap().end_offset(), 1);
}

#[test]
fn a_record_above_the_limit_is_refused_with_its_batch_over_several_partitions_too() {
    let log = Log::options().in_memory().max_record_bytes(100).open("test").unwrap();
    let topic = log.create_topic("orders", config(3)).unwrap();
    let large = [b'x'; 101];
    for too_large in 0..3 {
        let records = (0..3).map(|number| {
            let value = if number == too_large { &large[..] } else { b"tea" };
            Record::new(value).partition(number)
        });
        let error = topic.append_batch(records).unwrap_err();
        assert_eq!((error.kind(), error.appended()), (ErrorKind::RecordTooLarge, &[][..]));
        for number in 0..3 {
            assert_eq!(topic.partition(number).unwrap().end_offset(), 0, "{too_large} is too large");
        }
    }
}
