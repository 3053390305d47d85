//! Verifying a log, open and closed: sound ones are sound whatever goes on, each kind of damage is found in its place,
//! and nothing is changed by looking. And repairing it ([`repair`]).

#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(clippy::single_range_in_vec_init, reason = "lists of ranges of offsets, some with one range")]

use std::{
    collections::BTreeMap,
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use common::{append, snapshot, value_of};
use proptest::prelude::*;
use tidelog::{
    Durability, ErrorKind, Log, OwnedRecord, Record, RecoveryEvent, RepairAction, Start, TopicConfig, VerifyFinding,
    VerifyProgress, VerifyReport,
};

#[path = "../common/mod.rs"]
mod common;
mod repair;

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

/// Ends what others do, also if a check fails.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Two threads append and roll, others remove segments, create and delete topics, commit; the log is verified meanwhile,
/// for `TIDELOG_VERIFY_SECONDS`.
#[test]
fn a_log_that_is_in_use_is_sound() {
    let seconds = std::env::var("TIDELOG_VERIFY_SECONDS").map_or(3, |seconds| seconds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let log = options().open(dir.path()).unwrap();
    let kept = TopicConfig::with_partitions(2).retention_bytes(4 * SEGMENT_BYTES);
    let orders = log.create_topic("orders", kept).unwrap();
    let (over, mut rounds, mut findings) = (AtomicBool::new(false), 0, Vec::new());
    let going = || !over.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let _end = SetWhenDropped(&over);
        for partition in 0..2 {
            let (orders, going) = (&orders, &going);
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
                // The other thread may not have appended so many yet.
                let ten_more = (partition.start_offset() + 10).min(partition.end_offset());
                partition.delete_records(ten_more).unwrap();
                partition.offset_for_time(i64::MAX).unwrap();
                log.flush().unwrap();
            }
        });
        scope.spawn(|| {
            for number in (0..).take_while(|_| going()) {
                let topic = log.create_topic("passing", TopicConfig::with_partitions(1 + number % 3)).unwrap();
                append(&topic.partition(0).unwrap(), 0..300, 500);
                log.delete_topic("passing").unwrap();
            }
        });
        scope.spawn(|| {
            let mut consumer = log.consumer("billing").topic("orders").open().unwrap();
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
        let mut add = |found: &[VerifyFinding]| findings.extend_from_slice(found);
        let deadline = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < deadline {
            let report = log.verify().unwrap();
            add(report.findings());
            for result in [orders.verify(), orders.partition(0).unwrap().verify()] {
                add(result.unwrap().findings());
            }
            if let Ok(topic) = log.topic("passing") {
                match topic.verify() {
                    Ok(report) => add(report.findings()),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::UnknownTopic),
                }
            }
            rounds += 1;
        }
    });
    assert_eq!(findings, []);
    assert!(rounds > 2);
    println!("verify_rounds={rounds} false_alarms={}", findings.len());
}

/// What a program sees of a log, if it can be opened and all of it read without an error.
#[derive(Debug, PartialEq)]
struct Sight {
    records: Vec<OwnedRecord>,
    committed: Vec<Option<u64>>,
    by_time: Vec<Option<u64>>,
}

fn look(dir: &Path) -> Option<Sight> {
    let log = options().open(dir).ok().filter(|log| log.recovery().is_clean())?;
    let topic = log.topic("orders").ok()?;
    let mut reader = topic.reader(Start::Earliest).ok()?;
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch().ok()? {
        records.extend(batch.iter().map(|record| record.to_owned()));
    }
    records.sort_by_key(|record| (record.partition(), record.offset()));
    let partition = topic.partition(0).ok()?;
    for record in records.iter().filter(|record| record.partition() == 0).step_by(7) {
        let found = partition.read_from(record.offset()).ok()?.next()?.ok()?;
        assert_eq!(&found, record, "a lookup");
    }
    let mut by_time = vec![partition.offset_for_time(0).ok()?, partition.offset_for_time(i64::MAX).ok()?];
    for record in records.iter().filter(|record| record.partition() == 0).step_by(50) {
        by_time.push(partition.offset_for_time(record.append_time_ms()).ok()?);
    }
    let consumer = log.consumer("billing").topic("orders").open().ok()?;
    let committed = (0..2).map(|number| consumer.committed("orders", number).unwrap()).collect();
    drop(consumer);
    log.close().ok()?;
    Some(Sight { records, committed, by_time })
}

fn is_loss(finding: &VerifyFinding) -> bool {
    use VerifyFinding as F;
    !matches!(finding, F::Index { .. } | F::SegmentHeader { .. } | F::Checkpoint { .. })
}

/// What a bit of a file has to be told as; `None` if that is for the sight to say.
fn expected(path: &Path, at: u64, log_end: u64) -> Option<&'static [&'static str]> {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    Some(match extension {
        "log" if at >= log_end => &[],
        "log" if at >= 4192 => &["corruption"],
        "log" if !(96..4096).contains(&at) => &["segment-header"],
        "index" | "timeindex" => &["index"],
        "checkpoint" if at % 4096 < 124 => &["checkpoint"],
        "log" | "checkpoint" | "state" | "" => &[],
        _ => return None,
    })
}

fn check_flip(original: &Path, sight: &Sight, path: &Path, bit: u64) {
    let dir = tempfile::tempdir().unwrap();
    copy(original, dir.path());
    let path = dir.path().join(path.strip_prefix(original).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    let at = bit / 8;
    bytes[at as usize] ^= 1 << (bit % 8);
    fs::write(&path, &bytes).unwrap();
    let report = verify(dir.path());
    let names: Vec<_> = report.findings().iter().map(VerifyFinding::name).collect();
    let context = format!("bit {bit} of {}: {:?}", path.display(), report.findings());
    if let Some(expected) = expected(&path, at, bytes.len() as u64) {
        assert_eq!(names, expected, "{context}");
        for finding in report.findings() {
            assert_eq!(finding.path(), Some(&*path), "{context}");
            assert!(finding.range().unwrap().contains(&at), "{context}");
        }
    }
    let seen = look(dir.path());
    let affected = seen.as_ref() != Some(sight);
    assert!(!affected || !report.is_sound(), "what is lost was not told: {context}");
    assert!(affected || !report.findings().iter().any(is_loss), "a false alarm: {context}");
}

/// All files of a closed log but segments' padding, weighted so that small files are met too.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let files = snapshot(dir).into_iter().filter_map(|(path, bytes)| Some((path, bytes?.len() as u64)));
    files.filter(|(_, len)| *len > 0).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_is_told_wherever_it_matters_and_nowhere_else(
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..8u64), 1..=1),
    ) {
        static LOG: std::sync::OnceLock<(tempfile::TempDir, Sight)> = std::sync::OnceLock::new();
        let (dir, sight) = LOG.get_or_init(|| {
            let dir = tempfile::tempdir().unwrap();
            prepare(dir.path());
            // As it is when nobody writes to it any more, commits by the look included.
            look(dir.path()).unwrap();
            let sight = look(dir.path()).unwrap();
            assert!(verify(dir.path()).is_sound());
            (dir, sight)
        });
        for (file, byte, bit) in places {
            let files = files(dir.path());
            let (path, len) = &files[file.index(files.len())];
            check_flip(dir.path(), sight, path, byte.index(*len as usize) as u64 * 8 + bit);
        }
    }
}

#[test]
fn each_kind_of_damage_is_found_in_its_place() {
    let original = tempfile::tempdir().unwrap();
    prepare(original.path());
    type Damage<'a> = &'a dyn Fn(&Path, &[PathBuf]);
    let cases: [(&str, Damage<'_>, &[&str]); 13] = [
        ("a frame", &|_, segments| flip(&segments[1], 9000), &["corruption"]),
        ("two copies of a header", &|_, segments| (flip(&segments[1], 9), flip(&segments[1], 4100)).1, &["corruption"]),
        ("a segment", &|_, segments| fs::remove_file(&segments[1]).unwrap(), &["segments-missing"]),
        ("the oldest segment", &|_, segments| fs::remove_file(&segments[0]).unwrap(), &["segments-missing"]),
        ("the end of a sealed segment", &|_, segments| cut(&segments[0], 100), &["corruption"]),
        ("a topic's file", &|dir, _| fs::write(dir.join("topics/orders.json"), "{").unwrap(), &["file"]),
        (
            "no topic's file",
            &|dir, _| fs::remove_file(dir.join("topics/orders.json")).unwrap(),
            &["orphaned-folder"; 2],
        ),
        ("the meta file", &|dir, _| fs::remove_file(dir.join("tidelog.meta")).unwrap(), &["file"]),
        ("a partition", &|dir, _| fs::remove_dir_all(dir.join("orders-1")).unwrap(), &["missing-partition"]),
        (
            "a checkpoint",
            &|dir, _| fs::remove_file(dir.join("orders-1/partition.checkpoint")).unwrap(),
            &["checkpoint"],
        ),
        (
            "a segment of another partition",
            &|dir, segments| {
                fs::copy(&segments[0], dir.join("orders-1/00000000000000000000.log")).unwrap();
            },
            &["corruption"],
        ),
        ("a sealed index", &|_, segments| cut(&segments[0].with_extension("index"), 8), &["index"]),
        ("a time index", &|_, segments| cut(&segments[0].with_extension("timeindex"), 1), &["index"]),
    ];
    for (what, damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        copy(original.path(), dir.path());
        damage(dir.path(), &segments(&dir.path().join("orders-0")));
        let before = snapshot(dir.path());
        let report = verify(dir.path());
        let names: Vec<_> = report.findings().iter().map(VerifyFinding::name).collect();
        assert_eq!(names, expected, "{what}: {:?}", report.findings());
        assert_eq!(snapshot(dir.path()), before, "{what}: nothing is changed");
    }
}

fn cut(path: &Path, bytes: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - bytes).unwrap();
}

#[test]
fn progress_comes_to_its_total_and_can_end_it() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    flip(&segments(&dir.path().join("orders-0"))[1], 9000);
    cut(&segments(&dir.path().join("orders-0"))[0], 200);
    let mut told = Vec::new();
    let report = options()
        .verify_with(dir.path(), |progress| {
            told.push(progress.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    let last = told.last().unwrap();
    assert_eq!((last.bytes, last.findings), (last.total_bytes, report.findings().len() as u64));
    assert!(told.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes));
    assert!(last.total_bytes > 3 * 4096);

    let mut calls = 0;
    let report = options()
        .verify_with(dir.path(), |_| {
            calls += 1;
            ControlFlow::Break(())
        })
        .unwrap();
    assert_eq!(calls, 1);
    assert!(!report.is_complete() && !report.is_sound());
    assert!(!report.findings().iter().any(|finding| finding.name() == "index"), "{:?}", report.findings());
}

#[test]
fn progress_of_an_open_log_comes_to_its_total_and_can_end_it() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let log = options().open(dir.path()).unwrap();
    let topic = log.topic("orders").unwrap();
    let partition = topic.partition(0).unwrap();
    type Watch<'a> = &'a mut dyn FnMut(&VerifyProgress) -> ControlFlow<()>;
    type Verify<'a> = &'a dyn Fn(Watch<'_>) -> tidelog::Result<VerifyReport>;
    let cases: [(&str, Verify<'_>, u64); 3] = [
        ("log", &|watch| log.verify_with(watch), 3),
        ("topic", &|watch| topic.verify_with(watch), 2),
        ("partition", &|watch| partition.verify_with(watch), 1),
    ];
    let mut total = u64::MAX;
    for (what, verify, partitions) in cases {
        let mut told: Vec<VerifyProgress> = Vec::new();
        let report = verify(&mut |progress| {
            told.push(progress.clone());
            ControlFlow::Continue(())
        });
        let report = report.unwrap();
        assert!(report.is_sound() && report.partitions() == partitions, "{what}: {report:?}");
        let last = told.last().unwrap();
        assert_eq!((last.bytes, last.findings), (last.total_bytes, 0), "{what}");
        assert!(told.windows(2).all(|pair| pair[0].bytes <= pair[1].bytes), "{what}: {told:?}");
        assert!(told.iter().all(|it| it.total_bytes == last.total_bytes), "{what}: {told:?}");
        assert!(last.total_bytes > 2 * SEGMENT_BYTES && last.total_bytes < total, "{what}: a part of the one before");
        assert_eq!(told.iter().filter(|it| it.topic == "orders").map(|it| it.partition).min(), Some(0), "{what}");
        total = last.total_bytes;

        for end_at in 1..told.len() {
            let mut calls = 0;
            let report = verify(&mut |_| {
                calls += 1;
                if calls == end_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let report = report.unwrap();
            assert_eq!(calls, end_at, "{what}: nobody is told any more");
            assert!(!report.is_complete() && !report.is_sound() && report.findings().is_empty(), "{what}: {report:?}");
        }
    }
    log.close().unwrap();
}

#[test]
fn what_is_no_log_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing");
    assert_eq!(options().verify(&missing).unwrap_err().kind(), ErrorKind::Io);
    assert_eq!(options().repair(&missing).unwrap_err().kind(), ErrorKind::Io);
    assert!(!missing.exists());
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(options().verify(&file).unwrap_err().kind(), ErrorKind::NotADirectory);
    fs::write(dir.path().join("tidelog.meta"), r#"{"format_version": 2}"#).unwrap();
    assert_eq!(options().verify(dir.path()).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
    assert_eq!(options().repair(dir.path()).unwrap_err().kind(), ErrorKind::UnsupportedFormat);
}
