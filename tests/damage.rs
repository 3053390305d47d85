//! Records that can't be read are told, with the place to go on at; nothing else is lost for them.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use tidelog::{ErrorKind, Finding, Log, Record, Start, TopicConfig};

const RECORDS: u32 = 20;

/// A log with a topic of two partitions, number `i` in partition `i % 2`, closed.
fn prepare(dir: &Path) {
    let log = Log::open(dir).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap();
    for i in 0..RECORDS {
        topic.append(Record::new(format!("order {i:03}")).partition(i % 2)).unwrap();
    }
    log.close().unwrap();
}

/// Flips a bit of every place in the folder's segments where `text` stands.
fn damage(folder: &Path, text: &[u8]) {
    let mut found = false;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let mut bytes = fs::read(&path).unwrap();
            let places: Vec<usize> =
                (0..=bytes.len() - text.len()).filter(|&at| bytes[at..].starts_with(text)).collect();
            found |= !places.is_empty();
            places.into_iter().for_each(|at| bytes[at] ^= 0x10);
            fs::write(path, bytes).unwrap();
        }
    }
    assert!(found);
}

#[test]
fn a_reader_tells_it_reads_the_other_partitions_and_can_go_on() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), b"order 006");
    let log = Log::open(dir.path()).unwrap();
    let mut reader = log.topic("orders").unwrap().reader(Start::Earliest).unwrap();
    let (mut offsets, mut errors) = (Vec::new(), 0);
    loop {
        match reader.next_batch() {
            Ok(None) => break,
            Ok(Some(batch)) => offsets.extend(batch.iter().map(|record| (record.partition(), record.offset()))),
            Err(error) => {
                errors += 1;
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert_eq!((error.topic(), error.partition()), (Some("orders"), Some(0)));
                assert_eq!(error.damaged_offsets(), Some(3..4));
                assert!(error.path().unwrap().starts_with(dir.path().join("orders-0")));
                assert!(error.file_position().is_some());
                if errors == 3 {
                    reader.seek(0, error.resume_offset().unwrap()).unwrap();
                }
            }
        }
    }
    assert_eq!(errors, 3, "told again until somebody goes on");
    offsets.sort_unstable();
    let expected: Vec<(u32, u64)> =
        (0..2).flat_map(|partition| (0..10).map(move |offset| (partition, offset))).collect();
    assert_eq!(offsets, expected.into_iter().filter(|place| *place != (0, 3)).collect::<Vec<_>>());
}

#[test]
fn single_records_end_at_it_until_somebody_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-1"), b"order 001");
    let log = Log::open(dir.path()).unwrap();
    let mut records = log.topic("orders").unwrap().partition(1).unwrap().read_from(0).unwrap();
    let error = records.next().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(records.next().is_none());
    records.seek(error.resume_offset().unwrap()).unwrap();
    assert_eq!(records.map(|record| record.unwrap().offset()).collect::<Vec<_>>(), (1..10).collect::<Vec<_>>());
}

#[test]
fn a_consumer_loses_nothing_of_the_other_partitions() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    damage(&dir.path().join("orders-0"), b"order 006");
    let log = Log::open(dir.path()).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    let batch = consumer.poll(Duration::ZERO).unwrap();
    let readable = batch.iter().filter(|record| record.partition() == 0).count();
    assert_eq!((readable, batch.len()), (3, 13), "what is readable comes first");
    consumer.commit().unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(3), "no commit goes past what wasn't returned");
    // The error comes next, also where another partition always has more.
    log.topic("orders").unwrap().append(Record::new("more").partition(1)).unwrap();
    let error = consumer.poll(Duration::from_secs(60)).unwrap_err();
    assert_eq!((error.kind(), error.partition()), (ErrorKind::Corruption, Some(0)));
    let mut seen = Vec::new();
    for _ in 0..3 {
        match consumer.poll(Duration::ZERO) {
            Ok(batch) => seen.extend(batch.iter().map(|record| record.to_owned())),
            Err(error) => consumer.seek("orders", 0, error.resume_offset().unwrap()).unwrap(),
        }
    }
    assert_eq!(seen.iter().filter(|record| record.partition() == 1).count(), 1);
    let offsets: Vec<u64> =
        seen.iter().filter(|record| record.partition() == 0).map(|record| record.offset()).collect();
    assert_eq!(offsets, (4..10).collect::<Vec<_>>());
}

/// A log whose group has read and committed all, closed.
fn prepare_committed(dir: &Path) {
    prepare(dir);
    let log = Log::open(dir).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), RECORDS as usize);
    consumer.commit().unwrap();
    drop(consumer);
    log.close().unwrap();
}

fn finding_of_passed(path: PathBuf, end_offset: u64) -> Finding {
    let detail = format!("appends go on at offset {PASSED}");
    Finding::CommitsBeyondEnd { path, committed: 10, end_offset, detail }
}

/// Where appends go on in a partition that was lost, and of which offset 10 was committed.
const PASSED: u64 = (1 << 32) + 10;

#[test]
fn a_lost_partition_uses_no_offset_again_that_a_group_has_committed_and_its_group_is_told() {
    // Also where so many records are appended first that they reach beyond the commit.
    for appended_first in [0, 3 * RECORDS] {
        let dir = tempfile::tempdir().unwrap();
        prepare_committed(dir.path());
        fs::remove_dir_all(dir.path().join("orders-1")).unwrap();

        let log = Log::open(dir.path()).unwrap();
        let path = dir.path().join("orders-1");
        let missing = Finding::MissingPartition { path: path.clone() };
        assert_eq!(log.recovery().findings(), [missing, finding_of_passed(path, 0)]);
        let topic = log.topic("orders").unwrap();
        for number in 0..appended_first {
            let at = topic.append(Record::new(format!("new {number}")).partition(1)).unwrap();
            assert_eq!(at.offset, PASSED + u64::from(number));
        }
        let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
        assert_eq!(consumer.position("orders", 1).unwrap(), 10);
        for _ in 0..2 {
            let error = consumer.poll(Duration::from_secs(60)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OffsetOutOfRange);
            let told = (error.topic(), error.partition(), error.resume_offset());
            assert_eq!(told, (Some("orders"), Some(1), Some(PASSED)));
        }
        consumer.commit().unwrap();
        assert_eq!(consumer.committed("orders", 1).unwrap(), Some(10));
        topic.append(Record::new("new").partition(1)).unwrap();
        consumer.seek("orders", 1, PASSED).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), appended_first as usize + 1);
        consumer.commit().unwrap();
        let end = PASSED + u64::from(appended_first) + 1;
        assert_eq!(consumer.committed("orders", 1).unwrap(), Some(end));
        drop(consumer);
        log.close().unwrap();
        let log = Log::open(dir.path()).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        assert_eq!(log.topic("orders").unwrap().partition(1).unwrap().start_offset(), PASSED);
    }
}

#[test]
fn an_older_copy_of_a_partition_uses_no_offset_again_that_a_group_has_committed() {
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join("backup");
    let data = dir.path().join("data");
    let log = Log::open(&data).unwrap();
    let topic = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap();
    topic.append_batch((0..4).map(|_| Record::new("early"))).unwrap();
    log.close().unwrap();
    fs::create_dir(&backup).unwrap();
    for entry in fs::read_dir(data.join("orders-0")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, backup.join(path.file_name().unwrap())).unwrap();
    }
    let log = Log::open(&data).unwrap();
    let topic = log.topic("orders").unwrap();
    topic.append_batch((4..12).map(|_| Record::new("late"))).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    consumer.commit_offsets([("orders", 0, 10)]).unwrap();
    drop(consumer);
    log.close().unwrap();
    fs::remove_dir_all(data.join("orders-0")).unwrap();
    fs::rename(backup, data.join("orders-0")).unwrap();

    let log = Log::open(&data).unwrap();
    assert_eq!(log.recovery().findings(), [finding_of_passed(data.join("orders-0"), 4)]);
    let partition = log.topic("orders").unwrap().partition(0).unwrap();
    assert_eq!(partition.append(Record::new("on")).unwrap().offset, PASSED);
    let values = partition.read_from(0).unwrap().map(|record| record.unwrap().value().unwrap().to_vec());
    assert_eq!(values.collect::<Vec<_>>(), [&b"early"[..], b"early", b"early", b"early", b"on"]);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), 1);
    drop(consumer);
    log.close().unwrap();
    assert!(Log::open(&data).unwrap().recovery().is_clean());
}

#[test]
fn a_lost_file_of_the_topic_of_commits_is_made_anew_and_told() {
    let dir = tempfile::tempdir().unwrap();
    prepare_committed(dir.path());
    let file = dir.path().join("topics/__offsets.json");
    let before = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    for round in 0..2 {
        let log = Log::open(dir.path()).unwrap();
        let told = [Finding::MissingTopicFile { path: file.clone() }];
        assert_eq!(log.recovery().findings(), &told[round..], "told once");
        let consumer = log.consumer("billing").topic("orders").open().unwrap();
        assert_eq!(consumer.committed("orders", 0).unwrap(), Some(10));
        drop(consumer);
        log.close().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), before);
    }
}

#[test]
fn commits_that_are_gone_altogether_are_told() {
    let offsets = |dir: &Path| dir.join("__offsets-0");
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 4] = [
        ("the folder", |dir| fs::remove_dir_all(dir.join("__offsets-0")).unwrap()),
        ("the folder's files", |dir| {
            fs::remove_dir_all(dir.join("__offsets-0")).unwrap();
            fs::create_dir(dir.join("__offsets-0")).unwrap();
        }),
        ("the segments", |dir| {
            for entry in fs::read_dir(dir.join("__offsets-0")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    fs::remove_file(path).unwrap();
                }
            }
        }),
        ("the headers", |dir| {
            for entry in fs::read_dir(dir.join("__offsets-0")).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "log") {
                    fs::write(&path, vec![0; fs::metadata(&path).unwrap().len() as usize]).unwrap();
                }
            }
        }),
    ];
    for (what, harm) in harms {
        for loses_topic in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            prepare_committed(dir.path());
            harm(dir.path());
            if loses_topic {
                fs::remove_file(dir.path().join("topics/__offsets.json")).unwrap();
            }
            let log = match Log::open(dir.path()) {
                Ok(log) => log,
                Err(error) => {
                    assert!(loses_topic, "{what}: {error}");
                    assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*offsets(dir.path()))));
                    continue;
                }
            };
            let is_told = |finding: &Finding| match finding {
                Finding::DamagedCommits { .. } => true,
                Finding::MissingPartition { path } => *path == offsets(dir.path()),
                _ => false,
            };
            assert!(log.recovery().findings().iter().any(is_told), "{what} {loses_topic}: {:?}", log.recovery());
            let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
            assert_eq!(consumer.committed("orders", 0).unwrap(), None);
            consumer.commit_offsets([("orders", 0, 3)]).unwrap();
        }
    }
}

#[test]
fn a_damaged_commit_is_told_and_others_count() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let log = Log::open(dir.path()).unwrap();
    for group in ["billing", "shipping", "mailing"] {
        let mut consumer = log.consumer(group).topic("orders").open().unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), RECORDS as usize);
        consumer.commit().unwrap();
    }
    log.close().unwrap();
    damage(&dir.path().join("__offsets-0"), b"shipping");

    let log = Log::open(dir.path()).unwrap();
    assert!(matches!(log.recovery().findings(), [Finding::DamagedCommits { .. }]), "{:?}", log.recovery());
    let committed = |group: &str| {
        let consumer = log.consumer(group).topic("orders").open().unwrap();
        consumer.committed("orders", 0).unwrap()
    };
    assert_eq!(["billing", "shipping", "mailing"].map(committed), [Some(10), None, Some(10)]);
    let mut consumer = log.consumer("shipping").topic("orders").open().unwrap();
    assert_eq!(consumer.poll(Duration::ZERO).unwrap().len(), RECORDS as usize, "it sees records again and misses none");
}

/// The only segment of a partition, or its last one, with its end cut off.
fn cut(folder: &Path, bytes: u64) {
    let segments = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let last = segments.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max().unwrap();
    let file = fs::OpenOptions::new().write(true).open(last).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[test]
fn an_end_that_is_gone_is_told_once_and_what_comes_later_is_read() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    cut(&dir.path().join("orders-0"), 100);
    let log = Log::open(dir.path()).unwrap();
    let topic = log.topic("orders").unwrap();
    let partition = topic.partition(0).unwrap();
    let mut reader = partition.reader(Start::Earliest).unwrap();
    let readable = reader.next_batch().unwrap().unwrap().len() as u64;
    let error = reader.next_batch().unwrap_err();
    assert_eq!((error.kind(), error.damaged_offsets()), (ErrorKind::Corruption, Some(readable..10)));
    reader.seek(0, error.resume_offset().unwrap()).unwrap();
    assert!(reader.next_batch().unwrap().is_none(), "there is nothing more to tell");
    let latest = || partition.reader(Start::Latest).unwrap();
    assert!(latest().next_batch().unwrap().is_none());

    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Latest).open().unwrap();
    assert!(consumer.poll(Duration::from_millis(1)).unwrap().is_empty());
    let mut at_end = latest();
    let at = partition.append(Record::new("more")).unwrap();
    for reader in [&mut reader, &mut at_end] {
        let batch = reader.next_batch().unwrap().unwrap();
        assert_eq!(batch.iter().map(|record| record.offset()).collect::<Vec<_>>(), [at.offset]);
    }
    assert_eq!(consumer.poll(Duration::from_secs(60)).unwrap().len(), 1);
}

#[test]
fn commits_whose_end_is_gone_are_told_and_the_log_opens() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let log = Log::open(dir.path()).unwrap();
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    for offset in 1..=10 {
        consumer.commit_offsets([("orders", 0, offset)]).unwrap();
    }
    drop(consumer);
    log.close().unwrap();
    cut(&dir.path().join("__offsets-0"), 200);

    for run in 0..3 {
        let log = Log::open(dir.path()).unwrap();
        let told = log.recovery().findings().iter().any(|finding| matches!(finding, Finding::DamagedCommits { .. }));
        let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
        let committed = consumer.committed("orders", 0).unwrap();
        match run {
            0 => assert!(told && committed.is_some_and(|offset| offset < 10), "{committed:?} {:?}", log.recovery()),
            _ => assert_eq!(committed, Some(run)),
        }
        consumer.commit_offsets([("orders", 0, run + 1)]).unwrap();
        drop(consumer);
        log.close().unwrap();
    }
}

#[test]
fn a_topic_whose_file_is_gone_is_told_and_keeps_its_records() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let file = dir.path().join("topics/orders.json");
    let text = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let log = Log::open(dir.path()).unwrap();
    assert_eq!(log.topics(), [""; 0]);
    let folders = ["orders-0", "orders-1"].map(|name| Finding::OrphanedFolder { path: dir.path().join(name) });
    assert_eq!(log.recovery().findings(), folders);
    let error = log.create_topic("orders", TopicConfig::with_partitions(2)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corruption);
    assert!(error.to_string().contains("orphaned"), "{error}");
    log.close().unwrap();

    fs::write(&file, text).unwrap();
    let log = Log::open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    assert_eq!(log.topic("orders").unwrap().partition(1).unwrap().end_offset(), 10);
}
