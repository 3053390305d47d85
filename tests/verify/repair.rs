//! Repairing a log: what is damaged is set aside with a copy, all else stays where it is, and a second repair does nothing.

use super::*;

fn records(log: &Log) -> Vec<OwnedRecord> {
    let mut reader = log.topic("orders").unwrap().reader(Start::Earliest).unwrap();
    let mut records = Vec::new();
    while let Some(batch) = reader.next_batch().unwrap() {
        records.extend(batch.iter().map(|record| record.to_owned()));
    }
    records.sort_by_key(|record| (record.partition(), record.offset()));
    records
}

#[test]
fn damaged_records_are_set_aside_and_all_others_are_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let log = options().open(dir.path()).unwrap();
    let original = records(&log);
    log.close().unwrap();
    let files = segments(&dir.path().join("orders-0"));
    // The first frame, one in the middle and the one behind it, the end of a sealed segment, and the very last frame.
    let originals: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    flip(&files[0], 4192);
    for at in 9000..9500 {
        flip(&files[1], at);
    }
    flip(&files[0], originals[0].len() - 9);
    flip(&files[2], originals[2].len() - 9);
    let damaged: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    let found = verify(dir.path());
    assert_eq!(found.findings().len(), 4, "{:?}", found.findings());

    let report = options().repair(dir.path()).unwrap();
    assert!(report.after().is_sound() && !report.is_idle(), "{:?}", report.after());
    let mut lost = Vec::new();
    for action in report.actions() {
        let RepairAction::SetAside { file, range, offsets, kept_in } = action else { continue };
        let at = files.iter().position(|other| other == file).unwrap();
        let bytes = &damaged[at][range.start as usize..range.end as usize];
        assert_eq!(fs::read(kept_in.as_ref().unwrap()).unwrap(), bytes, "the copy");
        lost.push(offsets.clone());
        let mut now = fs::read(file).unwrap();
        assert_eq!(now.len(), originals[at].len());
        // All but what was damaged is what it was.
        for range in found.findings().iter().filter(|it| it.path() == Some(file)).filter_map(VerifyFinding::range) {
            let range = range.start as usize..range.end as usize;
            now[range.clone()].copy_from_slice(&originals[at][range]);
        }
        assert!(now == originals[at]);
    }
    assert_eq!(lost.len(), 4);
    let kept = |record: &&OwnedRecord| record.partition() == 1 || !lost.iter().any(|it| it.contains(&record.offset()));
    let expected: Vec<_> = original.iter().filter(kept).cloned().collect();
    assert!(expected.len() < original.len());

    let log = options().open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    assert_eq!(records(&log), expected);
    let topic = log.topic("orders").unwrap();
    let partition = topic.partition(0).unwrap();
    assert_eq!(partition.end_offset(), original.iter().filter(|record| record.partition() == 0).count() as u64);
    for record in expected.iter().filter(|record| record.partition() == 0) {
        let found = partition.read_from(record.offset()).unwrap().next().unwrap().unwrap();
        assert_eq!(&found, record);
        assert!(partition.offset_for_time(record.timestamp_ms()).unwrap().is_some());
    }
    for offsets in &lost {
        let behind = expected.iter().find(|record| record.partition() == 0 && record.offset() >= offsets.end);
        let found = partition.read_from(offsets.start).unwrap().next().map(|record| record.unwrap().offset());
        assert_eq!(found, behind.map(OwnedRecord::offset), "a lost offset is a gap");
    }
    let mut consumer = log.consumer("new").topic("orders").open().unwrap();
    let mut count = 0;
    loop {
        let batch = consumer.poll(Duration::ZERO).unwrap();
        if batch.is_empty() {
            break;
        }
        count += batch.len();
    }
    assert_eq!(count, expected.len());
    consumer.commit().unwrap();
    assert_eq!(consumer.lag().total, 0);
    drop(consumer);
    let appended = partition.append(Record::new("more")).unwrap();
    assert_eq!(appended.offset, partition.end_offset() - 1);
    assert!(log.verify().unwrap().is_sound());
    log.close().unwrap();

    let before = snapshot(dir.path());
    let again = options().repair(dir.path()).unwrap();
    assert!(again.is_idle() && again.after().is_sound(), "{again:?}");
    let segments_of = |files: &BTreeMap<PathBuf, Option<Vec<u8>>>| -> Vec<_> {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|it| it != "state");
        files.iter().filter(|(path, _)| is_segment(path)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
    };
    assert_eq!(segments_of(&snapshot(dir.path())), segments_of(&before), "the second repair does nothing");
}

#[test]
fn a_torn_tail_is_told_and_cut_by_a_repair_with_the_copy_kept() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let sight = look(dir.path()).unwrap();
    let folder = dir.path().join("orders-0");
    let last = segments(&folder).pop().unwrap();
    let sound = fs::read(&last).unwrap();
    // What a frame begins with, but not its end; the machine has stopped.
    let torn = &sound[4192..4192 + 200];
    fs::write(&last, [&sound, torn].concat()).unwrap();
    let _ = fs::remove_file(folder.join("partition.state"));

    let before = snapshot(dir.path());
    let report = verify(dir.path());
    let (position, end_offset) = (sound.len() as u64, 410);
    assert_eq!(report.findings(), [VerifyFinding::TornTail { file: last.clone(), position, end_offset }]);
    assert_eq!(report.records(), 411, "what is before it is read");
    assert_eq!(snapshot(dir.path()), before, "nothing is changed");

    let report = options().repair(dir.path()).unwrap();
    assert!(report.after().is_sound() && !report.is_idle(), "{report:?}");
    assert_eq!(report.actions(), [], "the open does it");
    let events: Vec<_> = report.recovery().partitions().iter().flat_map(|partition| partition.events()).collect();
    let [RecoveryEvent::TornTail(cut)] = events[..] else { panic!("{events:?}") };
    assert_eq!((&cut.file, cut.position, cut.end_offset), (&last, position, end_offset));
    let [copy] = &cut.kept_in[..] else { panic!("{cut:?}") };
    assert_eq!(fs::read(copy).unwrap(), torn);
    assert_eq!(fs::read(&last).unwrap(), sound);

    assert!(verify(dir.path()).is_sound());
    assert!(options().repair(dir.path()).unwrap().is_idle());
    assert_eq!(look(dir.path()).unwrap(), sight);
    assert_eq!(fs::read(copy).unwrap(), torn, "it stays");
}

#[test]
fn headers_indexes_and_cut_files_are_mended() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let original = look(dir.path()).unwrap();
    let files = segments(&dir.path().join("orders-0"));
    let whole = fs::read(&files[1]).unwrap();
    flip(&files[0], 20);
    flip(&files[1], 4100);
    flip(&files[1].with_extension("index"), 40);
    flip(&files[0].with_extension("timeindex"), 60);
    let report = options().repair(dir.path()).unwrap();
    assert!(report.after().is_sound(), "{:?}", report.after());
    assert_eq!(fs::read(&files[1]).unwrap(), whole);
    assert_eq!(look(dir.path()).unwrap(), original);

    // A file that was cut has its length again, and what is missing is told.
    cut(&files[0], 300);
    let report = options().repair(dir.path()).unwrap();
    assert!(report.after().is_sound(), "{:?}", report.after());
    assert!(options().repair(dir.path()).unwrap().is_idle());
    let sight = look(dir.path()).unwrap();
    let missing: Vec<_> = original.records.iter().filter(|record| !sight.records.contains(record)).collect();
    assert!((1..=3).contains(&missing.len()), "{missing:?}");
    assert_eq!(sight.committed, original.committed);
}

#[test]
fn what_cant_be_mended_stays_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let files = segments(&dir.path().join("orders-0"));
    flip(&files[1], 9);
    flip(&files[1], 4100);
    let damaged = fs::read(&files[1]).unwrap();
    let report = options().repair(dir.path()).unwrap();
    let names: Vec<_> = report.after().findings().iter().map(VerifyFinding::name).collect();
    assert_eq!(names, ["corruption"]);
    assert_eq!(fs::read(&files[1]).unwrap(), damaged);
    assert!(options().repair(dir.path()).unwrap().is_idle());
}

#[test]
fn damaged_commits_go_on_from_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    prepare(dir.path());
    let log = options().open(dir.path()).unwrap();
    for group in ["shipping", "mailing"] {
        let mut consumer = log.consumer(group).topic("orders").open().unwrap();
        consumer.commit_offsets([("orders", 0, 7)]).unwrap();
        consumer.commit_offsets([("orders", 0, 9)]).unwrap();
    }
    log.close().unwrap();
    let file = segments(&dir.path().join("__offsets-0")).pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    // The last commit of "shipping".
    let at = (0..bytes.len() - 8).rev().find(|&at| bytes[at..].starts_with(b"shipping")).unwrap();
    let commits: Vec<_> = (0..bytes.len() - 8).filter(|&at| bytes[at..].starts_with(b"shipping")).collect();
    assert!(commits.len() > 2 && commits.contains(&at));
    let word = 9_u64.to_le_bytes();
    let last = commits.into_iter().rfind(|&at| bytes[at..].windows(8).take(64).any(|it| it == word)).unwrap();
    flip(&file, last);
    assert!(!verify(dir.path()).is_sound());
    let report = options().repair(dir.path()).unwrap();
    assert!(report.after().is_sound(), "{:?}", report.after());
    assert!(report.recovery().findings().iter().any(|it| matches!(it, tidelog::Finding::DamagedCommits { .. })));
    let log = options().open(dir.path()).unwrap();
    assert!(log.recovery().is_clean(), "{:?}", log.recovery());
    for (group, expected) in [("shipping", 7), ("mailing", 9)] {
        let consumer = log.consumer(group).topic("orders").open().unwrap();
        assert_eq!(consumer.committed("orders", 0).unwrap(), Some(expected), "{group}");
    }
}

/// Reads partition 0, going on behind damage: the offsets that were read, and those that errors took.
fn read_around(dir: &Path) -> (Vec<u64>, Vec<std::ops::Range<u64>>) {
    let log = options().open(dir).unwrap();
    let mut records = log.topic("orders").unwrap().partition(0).unwrap().read_from(0).unwrap();
    let (mut read, mut damaged) = (Vec::new(), Vec::new());
    loop {
        match records.next() {
            None => break,
            Some(Ok(record)) => read.push(record.offset()),
            Some(Err(error)) => {
                assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
                assert!(damaged.len() < 20, "no end of it: {damaged:?}");
                damaged.push(error.damaged_offsets().unwrap());
                records.seek(error.resume_offset().unwrap()).unwrap();
            }
        }
    }
    log.close().unwrap();
    (read, damaged)
}

#[test]
fn damage_beside_what_was_set_aside_is_told_and_mended_like_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let log = options().max_record_bytes(8 << 20).open(dir.path()).unwrap();
    let partition = log.create_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap();
    for number in 0..20 {
        let bytes = if number == 10 { 3 << 20 } else { 2000 };
        partition.append(Record::new(value_of(number, bytes))).unwrap();
    }
    log.close().unwrap();
    let files = segments(&dir.path().join("orders-0"));
    let place = |number: u64| -> (PathBuf, u64) {
        let at = files.iter().rposition(|file| base_of(file) <= number).unwrap();
        let sizes = (base_of(&files[at])..number).map(|it| if it == 10 { (3 << 20) + 40 } else { 2040_u64 });
        (files[at].clone(), 4192 + sizes.map(|bytes| bytes.next_multiple_of(8)).sum::<u64>())
    };
    let damage = |number: u64, at: u64| flip(&place(number).0, (place(number).1 + at) as usize);
    let mend = || {
        let report = options().repair(dir.path()).unwrap();
        assert!(report.after().is_sound() && !report.actions().is_empty(), "{report:?}");
        report.actions().iter().filter(|action| matches!(action, RepairAction::SetAside { .. })).count()
    };
    let without = |lost: &[u64]| (0..20).filter(|offset| !lost.contains(offset)).collect::<Vec<_>>();

    // A record that takes several fillers, one amid others.
    damage(10, 2 << 20);
    damage(5, 100);
    assert_eq!(read_around(dir.path()), (without(&[5, 10]), vec![5..6, 10..11]));
    assert_eq!(mend(), 2);
    assert_eq!(read_around(dir.path()), (without(&[5, 10]), vec![]));

    // Before it, behind it, and in it, with a header that doesn't tell how long it is.
    damage(4, 100);
    damage(6, 2);
    assert_eq!(read_around(dir.path()), (without(&[4, 5, 6, 10]), vec![4..7]));
    assert_eq!(mend(), 2);
    damage(5, 2);
    damage(10, (1 << 20) + 2);
    damage(10, 1 << 19);
    let (read, damaged) = read_around(dir.path());
    assert_eq!(read, without(&[4, 5, 6, 10]));
    assert!(damaged.iter().all(|range| range.start < 12), "{damaged:?}");
    mend();
    assert_eq!(read_around(dir.path()), (without(&[4, 5, 6, 10]), vec![]));
    assert!(options().repair(dir.path()).unwrap().is_idle());

    // A recovery that scans everything steps over them as well.
    fs::remove_file(dir.path().join("orders-0/partition.checkpoint")).unwrap();
    let log = options().open(dir.path()).unwrap();
    let recovered = &log.recovery().partitions()[0];
    assert_eq!(recovered.opening(), tidelog::Opening::Scanned);
    assert!(
        matches!(recovered.events(), [tidelog::RecoveryEvent::CheckpointLost { .. }]),
        "nothing else is told: {recovered:?}"
    );
    log.close().unwrap();
    assert_eq!(read_around(dir.path()), (without(&[4, 5, 6, 10]), vec![]));
    assert!(verify(dir.path()).is_sound());
}

fn base_of(segment: &Path) -> u64 {
    segment.file_stem().unwrap().to_str().unwrap().parse().unwrap()
}
