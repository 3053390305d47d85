//! Files that aren't what was written: torn, flipped, deleted, or of a newer version. What is damaged is told, what isn't
//! is there.

#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use tidelog::{
    Cut, Durability, Error, ErrorKind, Finding, Log, LogOptions, Opening, Partition, Record, RecoveryEvent,
    RecoveryReport, Start, TopicConfig,
};

use crate::common::{append, check_numbers, snapshot, value_of};

const VALUE_BYTES: usize = 100;
/// Records that are durable, and records behind them that are not.
const DURABLE: u64 = 50;
const WRITTEN: u64 = 10;

fn open(folder: &Path) -> Log {
    options().open(folder).unwrap()
}

fn options() -> LogOptions {
    // No flush comes by itself.
    Log::options().segment_bytes(64 << 10).durability(Durability::Written)
}

fn partition(log: &Log) -> Partition {
    log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap()
}

fn segment(folder: &Path) -> PathBuf {
    folder.join("orders-0").join("00000000000000000000.log")
}

/// A copy of a folder, as a machine leaves it that stops now: the log may be open.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (path, content) in snapshot(from) {
        let target = to.join(path.strip_prefix(from).unwrap());
        match content {
            Some(bytes) => fs::write(target, bytes).unwrap(),
            None => fs::create_dir_all(target).unwrap(),
        }
    }
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// Where the bytes differ: from the first to behind the last.
fn difference(before: &[u8], after: &[u8]) -> Range<usize> {
    let differs = |at: &usize| before.get(*at) != after.get(*at);
    let (first, last) = ((0..after.len()).find(differs), (0..after.len()).rfind(differs));
    first.unwrap()..last.unwrap() + 1
}

/// A log that ended in the middle of its work, and where each of its frames lies.
struct Image {
    root: TempDir,
    frames: Vec<Range<usize>>,
}

impl Image {
    /// [`DURABLE`] records that were flushed, [`WRITTEN`] that were not.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let source = root.path().join("source");
        let log = open(&source);
        let partition = partition(&log);
        let mut frames = Vec::new();
        let mut before = fs::read(segment(&source)).unwrap();
        for number in 0..DURABLE + WRITTEN {
            append(&partition, number..number + 1, VALUE_BYTES);
            let after = fs::read(segment(&source)).unwrap();
            let changed = difference(&before, &after);
            frames.push(changed.start..changed.end.next_multiple_of(8));
            before = after;
            if number + 1 == DURABLE {
                partition.flush().unwrap();
            }
        }
        copy(&source, &root.path().join("image"));
        log.close().unwrap();
        Self { root, frames }
    }

    /// A copy of it, changed.
    fn changed(&self, change_segment: impl FnOnce(&mut Vec<u8>)) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        copy(&self.root.path().join("image"), folder.path());
        change(&segment(folder.path()), change_segment);
        folder
    }
}

/// The events of `orders-0`.
fn events(report: &RecoveryReport) -> &[RecoveryEvent] {
    report.partitions().iter().find(|partition| partition.topic() == "orders").unwrap().events()
}

/// After a cut: what is left can be read, appends go on behind everything that was ever assigned, and once that is
/// closed there is nothing more to tell.
fn check_cut(folder: &Path, log: &Log, cut: &Cut, image: &Image, left: u64) {
    assert_eq!(cut.file, segment(folder));
    assert_eq!(cut.position, image.frames[left as usize].start as u64);
    assert_eq!(cut.end_offset, left);
    let partition = partition(log);
    check_numbers(&partition, 0..left, VALUE_BYTES);
    assert!(append(&partition, left..left + 1, VALUE_BYTES)[0] >= DURABLE + WRITTEN);
    check_numbers(&partition, 0..left + 1, VALUE_BYTES);
    log.close().unwrap();
    let log = open(folder);
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    check_numbers(&self::partition(&log), 0..left + 1, VALUE_BYTES);
}

#[test]
fn a_torn_tail_is_cut_kept_and_told() {
    let image = Image::new();
    let last = image.frames.last().unwrap().clone();
    let left = DURABLE + WRITTEN - 1;
    for kept in [1, 3, 4, 8, 20, 31, 32, 33, 40, last.len() / 2, last.len() - 9] {
        let mut remains = Vec::new();
        let folder = image.changed(|bytes| {
            bytes[last.start + kept..last.end].fill(0);
            remains = bytes[last.clone()].to_vec();
        });
        let log = open(folder.path());
        let [RecoveryEvent::TornTail(cut)] = events(log.recovery()) else {
            panic!("{kept} bytes were left: {:?}", log.recovery());
        };
        let copied = fs::read(&cut.kept_in[0]).unwrap();
        assert!(!copied.is_empty() && remains.starts_with(&copied), "what was cut isn't what was kept");
        assert!(remains[copied.len()..].iter().all(|&byte| byte == 0), "not everything was kept");
        check_cut(folder.path(), &log, &cut.clone(), &image, left);
    }
}

#[test]
fn a_tail_that_is_gone_without_a_trace_is_nothing_to_tell() {
    let image = Image::new();
    let last = image.frames.last().unwrap().clone();
    let folder = image.changed(|bytes| bytes[last].fill(0));
    let log = open(folder.path());
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    let partition = partition(&log);
    check_numbers(&partition, 0..DURABLE + WRITTEN - 1, VALUE_BYTES);
    assert!(append(&partition, 0..1, VALUE_BYTES)[0] >= DURABLE + WRITTEN, "an offset was used twice");
}

#[test]
fn a_hole_in_the_tail_loses_a_suffix() {
    let image = Image::new();
    let hole = DURABLE + WRITTEN / 2;
    let folder = image.changed(|bytes| bytes[image.frames[hole as usize].clone()].fill(0));
    let log = open(folder.path());
    let [RecoveryEvent::ReorderedTail(cut)] = events(log.recovery()) else { panic!("{:?}", log.recovery()) };
    let (start, end) = (image.frames[hole as usize + 1].start, image.frames.last().unwrap().end);
    let whole = fs::read(segment(&image.root.path().join("image"))).unwrap();
    let copied = fs::read(&cut.kept_in[0]).unwrap();
    let lost = whole[start..end].strip_suffix(&[0; 8]).unwrap_or(&whole[start..end]);
    let lost = &lost[..lost.len() - lost.iter().rev().take_while(|&&byte| byte == 0).count()];
    assert!(copied.windows(lost.len()).any(|window| window == lost), "the frames behind the hole weren't kept");
    check_cut(folder.path(), &log, &cut.clone(), &image, hole);
}

#[test]
fn damage_below_what_was_durable_is_told_and_left() {
    let image = Image::new();
    let damaged = DURABLE / 2;
    let frame = image.frames[damaged as usize].clone();
    let folder = image.changed(|bytes| bytes[frame.start + 40] ^= 4);
    let before = fs::read(segment(folder.path())).unwrap();
    let log = open(folder.path());
    let [RecoveryEvent::Corruption { file, range, offsets, .. }] = events(log.recovery()) else {
        panic!("{:?}", log.recovery())
    };
    assert_eq!(*file, segment(folder.path()));
    assert_eq!(*range, frame.start as u64..frame.end as u64);
    assert_eq!(*offsets, damaged..damaged + 1);
    check_around(&partition(&log), damaged..damaged + 1, DURABLE + WRITTEN, frame.start, &segment(folder.path()));
    let after = fs::read(segment(folder.path())).unwrap();
    assert!(after[..image.frames.last().unwrap().end] == before[..image.frames.last().unwrap().end]);
}

/// Reads all records but the damaged ones, and what is told of these.
fn check_around(partition: &Partition, damaged: Range<u64>, end: u64, position: usize, path: &Path) {
    let mut records = partition.read_from(0).unwrap();
    let (mut numbers, mut errors) = (Vec::new(), 0);
    while let Some(record) = records.next() {
        match record {
            Ok(record) => {
                assert_eq!(record.value(), Some(&*value_of(record.offset(), VALUE_BYTES)));
                numbers.push(record.offset());
            }
            Err(error) => {
                check_corruption(&error, &damaged, position, path);
                errors += 1;
                assert!(records.next().is_none(), "something came behind the error by itself");
                records.seek(error.resume_offset().unwrap()).unwrap();
            }
        }
    }
    assert_eq!(errors, 1);
    assert_eq!(numbers, (0..damaged.start).chain(damaged.end..end).collect::<Vec<_>>());
}

#[track_caller]
fn check_corruption(error: &Error, damaged: &Range<u64>, position: usize, path: &Path) {
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
    assert_eq!(error.path(), Some(path));
    assert_eq!(error.file_position(), Some(position as u64));
    assert_eq!(error.damaged_offsets(), Some(damaged.clone()));
    assert_eq!(error.resume_offset(), Some(damaged.end));
    assert_eq!((error.topic(), error.partition()), (Some("orders"), Some(0)));
}

/// A closed log of `frames` batches of `records` each, and where the frames lie.
fn closed_log(frames: u64, records: u64) -> (TempDir, Vec<Range<usize>>) {
    let root = tempfile::tempdir().unwrap();
    let log = open(root.path());
    let partition = partition(&log);
    let mut places = Vec::new();
    let mut before = fs::read(segment(root.path())).unwrap();
    for frame in 0..frames {
        let numbers = frame * records..(frame + 1) * records;
        partition.append_batch(numbers.map(|number| Record::new(value_of(number, VALUE_BYTES)))).unwrap();
        let after = fs::read(segment(root.path())).unwrap();
        let changed = difference(&before, &after);
        places.push(changed.start..changed.end.next_multiple_of(8));
        before = after;
    }
    log.close().unwrap();
    (root, places)
}

#[test]
fn a_flipped_bit_after_a_clean_close_is_found_by_reading() {
    for records in [1, 5] {
        let (root, frames) = closed_log(20, records);
        let path = segment(root.path());
        let intact = fs::read(&path).unwrap();
        let frame = frames[7].clone();
        let damaged = 7 * records..8 * records;
        // In every field of the header, and in the body's first and last bytes.
        let within = [0, 1, 3, 4, 8, 12, 16, 18, 20, 24, 28, 32, 60, frame.len() - 20];
        for (bit, at) in within.into_iter().enumerate() {
            fs::write(&path, &intact).unwrap();
            change(&path, |bytes| bytes[frame.start + at] ^= 1 << (bit % 8));
            let flipped = fs::read(&path).unwrap();
            let log = open(root.path());
            assert!(log.recovery().is_clean(), "{:?}", log.recovery());
            assert!(log.recovery().partitions().iter().all(|found| found.opening() == Opening::Clean));
            check_around(&partition(&log), damaged.clone(), 20 * records, frame.start, &path);
            log.close().unwrap();
            assert!(fs::read(&path).unwrap() == flipped, "something was cut or changed");
        }
    }
}

#[test]
fn readers_and_consumers_tell_of_damage_until_they_are_moved_on() {
    let (root, frames) = closed_log(20, 1);
    let path = segment(root.path());
    change(&path, |bytes| bytes[frames[7].start + 50] ^= 1);
    let log = open(root.path());
    let position = frames[7].start;

    let mut reader = partition(&log).reader(Start::Earliest).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().len(), 7);
    for _ in 0..2 {
        check_corruption(&reader.next_batch().unwrap_err(), &(7..8), position, &path);
    }
    reader.seek(0, 8).unwrap();
    assert_eq!(reader.next_batch().unwrap().unwrap().len(), 12);

    let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
    let wait = std::time::Duration::ZERO;
    assert_eq!(consumer.poll(wait).unwrap().len(), 7);
    consumer.commit().unwrap();
    for _ in 0..2 {
        let error = consumer.poll(wait).unwrap_err();
        check_corruption(&error, &(7..8), position, &path);
    }
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(7));
    consumer.seek("orders", 0, 8).unwrap();
    assert_eq!(consumer.poll(wait).unwrap().len(), 12);
    // The log isn't closed to appends for it.
    assert_eq!(append(&partition(&log), 20..21, VALUE_BYTES), [20]);
    assert_eq!(consumer.poll(wait).unwrap().len(), 1);
}

/// A log of several segments and a committed offset, once closed and once as a machine leaves it that stops.
fn closed_and_stopped() -> [(TempDir, u64); 2] {
    let root = tempfile::tempdir().unwrap();
    let records = 3000;
    let log = open(root.path());
    // A second topic, whose turn comes first.
    log.create_topic("before", TopicConfig::with_partitions(1)).unwrap().append(Record::new("x")).unwrap();
    append(&partition(&log), 0..records, VALUE_BYTES);
    let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
    consumer.commit_offsets([("orders", 0, 1234)]).unwrap();
    drop(consumer);
    let stopped = tempfile::tempdir().unwrap();
    copy(root.path(), stopped.path());
    log.close().unwrap();
    [(root, records), (stopped, records)]
}

/// Everything is there: records, the committed offset, and space for more.
#[track_caller]
fn check_whole(folder: &Path, records: u64, what: &str) -> Log {
    let log = open(folder);
    let partition = partition(&log);
    check_numbers(&partition, 0..records, VALUE_BYTES);
    let from_the_middle = partition.read_from(2000).unwrap().next().unwrap().unwrap();
    assert_eq!(from_the_middle.offset(), 2000, "{what}");
    let time_ms = from_the_middle.timestamp_ms();
    let mut all = partition.read_from(0).unwrap().map(|record| record.unwrap());
    let first = all.find(|record| record.timestamp_ms() >= time_ms).map(|record| record.offset());
    assert_eq!(partition.offset_for_time(time_ms).unwrap(), first, "{what}");
    assert_eq!(partition.offset_for_time(time_ms + 3_600_000).unwrap(), None, "{what}");
    let consumer = log.consumer("billing").topic("orders").open().unwrap();
    assert_eq!(consumer.committed("orders", 0).unwrap(), Some(1234), "{what}");
    let end = partition.end_offset();
    assert_eq!(append(&partition, records..records + 1, VALUE_BYTES), [end], "{what}");
    log
}

fn files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = snapshot(folder).into_iter().filter(|(_, content)| content.is_some()).map(|(path, _)| path);
    files.filter(|path| wanted(path.file_name().unwrap().to_str().unwrap())).collect()
}

#[test]
fn caches_that_are_gone_or_damaged_are_made_anew() {
    type Harm = (&'static str, fn(&Path));
    let harms: [Harm; 5] = [
        ("deleted", |path| fs::remove_file(path).unwrap()),
        ("emptied", |path| fs::write(path, []).unwrap()),
        ("zeroed", |path| change(path, |bytes| bytes.fill(0))),
        ("overwritten", |path| change(path, |bytes| bytes.fill(0xa7))),
        ("doubled", |path| change(path, |bytes| bytes.extend_from_within(..))),
    ];
    for (folder, records) in &closed_and_stopped() {
        for (name, harm) in harms {
            for kind in ["index", "timeindex", "state", "all"] {
                let harmed = tempfile::tempdir().unwrap();
                copy(folder.path(), harmed.path());
                let is_cache = |file: &str| {
                    let kinds = ["index", "timeindex", "state"];
                    kinds.iter().any(|cache| (kind == *cache || kind == "all") && file.ends_with(&format!(".{cache}")))
                };
                let caches = files(harmed.path(), is_cache);
                // Those of sealed segments come with a flush, which the one that stopped may not have had. Where appends use
                // `pwrite`, all others live in memory.
                assert!(caches.len() > 1 || kind == "timeindex" || cfg!(tidelog_positional));
                caches.iter().for_each(|path| harm(path));
                let log = check_whole(harmed.path(), *records, name);
                assert!(log.recovery().is_clean(), "{kind} {name}: {:?}", log.recovery());
                log.close().unwrap();
            }
        }
    }
}

#[test]
fn one_slot_of_a_checkpoint_is_enough_and_none_is_told() {
    for (folder, records) in &closed_and_stopped() {
        let harmed = tempfile::tempdir().unwrap();
        copy(folder.path(), harmed.path());
        let checkpoint = harmed.path().join("orders-0/partition.checkpoint");
        let intact = fs::read(&checkpoint).unwrap();
        for slot in [0..intact.len() / 2, intact.len() / 2..intact.len()] {
            fs::remove_dir_all(harmed.path()).unwrap();
            copy(folder.path(), harmed.path());
            change(&checkpoint, |bytes| bytes[slot.clone()].fill(0));
            check_whole(harmed.path(), *records, "a slot").close().unwrap();
        }
        for lost in [true, false] {
            fs::remove_dir_all(harmed.path()).unwrap();
            copy(folder.path(), harmed.path());
            if lost {
                fs::remove_file(&checkpoint).unwrap();
            } else {
                change(&checkpoint, |bytes| bytes.fill(0xff));
            }
            let log = check_whole(harmed.path(), *records, "both slots");
            let told = events(log.recovery())
                .iter()
                .any(|event| matches!(event, RecoveryEvent::CheckpointLost { next_offset } if *next_offset >= 1 << 32));
            assert!(told, "{:?}", log.recovery());
            log.close().unwrap();
            assert!(open(harmed.path()).recovery().is_clean());
        }
    }
}

#[test]
fn files_of_the_log_that_are_gone_are_told() {
    for (folder, records) in &closed_and_stopped() {
        let path = folder.path().join("tidelog.meta");
        fs::remove_file(&path).unwrap();
        let log = check_whole(folder.path(), *records, "no meta");
        assert_eq!(log.recovery().findings(), [Finding::MissingMeta { path: path.clone() }]);
        log.close().unwrap();
        assert!(path.exists());

        let (json, orphan) = (folder.path().join("topics/orders.json"), folder.path().join("orders-0"));
        let content = fs::read(&json).unwrap();
        fs::remove_file(&json).unwrap();
        let log = open(folder.path());
        assert_eq!(log.recovery().findings(), [Finding::OrphanedFolder { path: orphan.clone() }]);
        assert_eq!(log.topic("orders").unwrap_err().kind(), ErrorKind::UnknownTopic);
        let error = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*orphan)), "{error}");
        log.close().unwrap();
        fs::write(&json, content).unwrap();
        check_numbers(&partition(&open(folder.path())), 0..records + 1, VALUE_BYTES);

        for text in ["", "{", "\0\0\0\0", r#"{"format_version": 1}"#] {
            let content = fs::read(&json).unwrap();
            fs::write(&json, text).unwrap();
            let error = options().open(folder.path()).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Corruption, Some(&*json)), "{error}");
            fs::write(&json, content).unwrap();
        }
        check_numbers(&partition(&open(folder.path())), 0..records + 1, VALUE_BYTES);

        fs::remove_dir_all(&orphan).unwrap();
        let log = open(folder.path());
        let [missing, beyond] = log.recovery().findings() else { panic!("{:?}", log.recovery()) };
        assert_eq!(missing, &Finding::MissingPartition { path: orphan });
        assert!(matches!(beyond, Finding::CommitsBeyondEnd { committed: 1234, end_offset: 0, .. }), "{beyond}");
        assert!(
            partition(&log).start_offset() > 1234 && partition(&log).end_offset() == partition(&log).start_offset()
        );
    }
}

/// Says that a segment was written by version 2: in both copies of the header, under a checksum that holds.
fn age_segment(path: &Path) {
    change(path, |bytes| {
        for copy in [0, 4096] {
            bytes[copy + 8..copy + 12].copy_from_slice(&2_u32.to_le_bytes());
            let checksum = crc32fast::hash(&bytes[copy..copy + 92]);
            bytes[copy + 92..copy + 96].copy_from_slice(&checksum.to_le_bytes());
        }
    });
}

#[test]
fn a_folder_of_a_newer_version_is_refused_by_name_and_not_touched() {
    let newer = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        fs::write(path, text.replace("\"format_version\": 1", "\"format_version\": 2")).unwrap();
    };
    for (folder, _) in &closed_and_stopped() {
        let last_segment = files(&folder.path().join("orders-0"), |name| name.ends_with(".log")).pop().unwrap();
        let at = |path: &str| folder.path().join(path);
        type Harm<'a> = (PathBuf, &'a dyn Fn(&Path));
        let harms: [Harm<'_>; 4] = [
            (at("tidelog.meta"), &newer),
            (at("topics/orders.json"), &newer),
            (at("topics/__offsets.json"), &newer),
            (last_segment, &age_segment),
        ];
        for (path, harm) in harms {
            let intact = tempfile::tempdir().unwrap();
            copy(folder.path(), intact.path());
            harm(&path);
            let before = snapshot(folder.path());
            for _ in 0..2 {
                let error = options().open(folder.path()).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::UnsupportedFormat, "{error}");
                assert_eq!(error.path(), Some(&*path));
            }
            let after = snapshot(folder.path());
            assert!(before.keys().eq(after.keys()), "files came or went");
            for (changed, _) in before.iter().filter(|(name, content)| after[*name] != **content) {
                // A segment is looked at when its topic's turn comes: others may have been recovered by then.
                let of_its_own = changed.starts_with(path.parent().unwrap());
                assert!(path.extension().unwrap() == "log" && !of_its_own, "{}", changed.display());
            }
            copy(intact.path(), folder.path());
            assert!(open(folder.path()).recovery().is_clean());
            copy(intact.path(), folder.path());
        }
    }
}

#[test]
fn an_older_segment_of_a_newer_version_is_refused_by_whoever_reads_it() {
    let [(folder, records), _] = closed_and_stopped();
    let first = segment(folder.path());
    age_segment(&first);
    let log = open(folder.path());
    let error = partition(&log).read_from(0).unwrap().next().unwrap().unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::UnsupportedFormat, Some(&*first)), "{error}");
    let last = partition(&log).read_from(records - 1).unwrap().next().unwrap().unwrap();
    assert_eq!(last.value(), Some(&*value_of(records - 1, VALUE_BYTES)));
}
