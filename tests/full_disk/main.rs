//! A disk that fills up, and is freed: small file systems, mounted for the test. Work is done in child processes, so that a
//! store into a page that the disk has no room for (`SIGBUS`) is seen. The last line counts the points of the
//! [`sweep`] over stages and amounts of space.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod sweep;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: a small file system is mounted on Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{fs, os::unix::fs::MetadataExt as _, path::Path, process::Command, time::Duration};

    use libtest_mimic::{Arguments, Failed, Trial};
    use tidelog::{
        Consumer, Durability, Error, ErrorKind, Log, LogOptions, Opening, Partition, Record, Start, TopicConfig,
    };

    use crate::{
        common::{
            POSITIONAL, append, check_numbers,
            mount::{Ballast, Mount, skip},
            process::{child_task, kill_myself, run_child, run_killed_child},
            value_of,
        },
        sweep,
    };

    /// Bytes of a record's value.
    const VALUE_BYTES: usize = 1000;
    pub(crate) const LEVELS: [Durability; 3] =
        [Durability::Written, Durability::Interval(Duration::from_millis(1)), Durability::Synced];

    type Task = (&'static str, fn(&Path));

    /// What children do, by the name of the test.
    const TASKS: [Task; 7] = [
        ("records", records),
        ("rolls", rolls),
        ("topics", topics),
        ("commits", commits),
        ("opening", opening),
        ("inodes", inodes),
        ("reopening", reopening),
    ];

    pub(crate) fn main() {
        if let Some((task, folder)) = child_task() {
            if let Some(stage) = task.strip_prefix("sweep ") {
                return sweep::sweep(stage, &folder);
            }
            match task.as_str() {
                "die full" => return die_full(&folder),
                "large pages" => return large_pages(&folder),
                "sweep-die" => return sweep::die(&folder),
                _ => {}
            }
            let (_, work) = TASKS.iter().find(|(name, _)| *name == task).unwrap();
            return work(&folder);
        }
        let trials = TASKS.iter().map(|&(name, _)| {
            let options = if name == "inodes" { "size=4m,nr_inodes=40" } else { "size=4m" };
            Trial::test(format!("a_full_disk_is_an_error_for_{name}"), move || on_small_disk(name, options))
        });
        let sweeps = sweep::FILE_SYSTEMS.iter().map(|&kind| {
            Trial::test(format!("no_space_at_any_stage_costs_nothing_on_{}", kind.0), move || sweep::on(kind))
        });
        let large_pages = Trial::test("a_full_disk_is_an_error_where_files_are_cached_in_large_pages", on_large_pages);
        let trials = trials.chain([large_pages]).chain(sweeps).collect();
        let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
        println!("{}", sweep::figures());
        conclusion.exit();
    }

    fn on_small_disk(task: &'static str, options: &str) -> Result<(), Failed> {
        let disk = match Mount::new("tmpfs", options) {
            Ok(disk) => disk,
            Err(reason) => return skip("mount", &reason),
        };
        if task == "reopening" {
            run_killed_child("die full", disk.path())?;
        }
        Ok(run_child(task, disk.path())?)
    }

    /// On ext4, whose files are cached in pages of megabytes if much is read ahead.
    fn on_large_pages() -> Result<(), Failed> {
        let make = &mut Command::new("mkfs.ext4");
        let disk = match Mount::in_memory(make.args(["-q", "-F", "-m", "0", "-b", "4096"]), "ext4", 64 << 20) {
            Ok(disk) => disk,
            Err(reason) => return skip("mount", &reason),
        };
        let device = fs::metadata(disk.path())?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        fs::write(format!("/sys/dev/block/{major}:{minor}/bdi/read_ahead_kb"), "8192")?;
        Ok(run_child("large pages", disk.path())?)
    }

    /// A store into such a page takes space for all of it. Each round finds the end of the log in one that was read, with
    /// another amount of space.
    fn large_pages(folder: &Path) {
        let data = folder.join("data");
        let mut end = 0;
        for round in 0..8 {
            let log = options().open(&data).unwrap();
            let partition = partition(&log);
            if round == 0 {
                end = 24_000;
                append(&partition, 0..end, VALUE_BYTES);
            }
            let all: usize = partition.read_from(0).unwrap().map(|record| record.unwrap().value().unwrap().len()).sum();
            assert!(all as u64 >= end * VALUE_BYTES as u64);
            let rest = Ballast::all_but(folder, round * 7 * 4096);
            end = fill(&partition, end, VALUE_BYTES);
            rest.remove();
            log.close().unwrap();
            for entry in fs::read_dir(data.join("orders-0")).unwrap() {
                let file = fs::File::open(entry.unwrap().path()).unwrap();
                rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
            }
        }
    }

    /// Segments that are much larger than the disk, and never full.
    fn options() -> LogOptions {
        Log::options().segment_bytes(64 << 20)
    }

    fn partition(log: &Log) -> Partition {
        log.ensure_topic("orders", TopicConfig::with_partitions(1)).unwrap().partition(0).unwrap()
    }

    /// Appends until the disk is full; answers how many records there are then.
    fn fill(partition: &Partition, mut number: u64, bytes: usize) -> u64 {
        loop {
            let level = LEVELS[number as usize % LEVELS.len()];
            match partition.append_with(Record::new(value_of(number, bytes)), level) {
                Ok(at) => assert_eq!(at.offset, number, "offsets aren't contiguous"),
                Err(error) => {
                    check_full(&error);
                    return number;
                }
            }
            number += 1;
            assert!(number < 1_000_000, "the disk doesn't get full");
        }
    }

    /// Kind and words of the error.
    #[track_caller]
    pub(crate) fn check_full(error: &Error) {
        assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
        assert!(error.path().is_some() && error.to_string().contains("no space left"), "{error}");
    }

    /// Fills the disk, finds everything readable, frees it, goes on; twice.
    fn fill_and_free(folder: &Path, options: &LogOptions) {
        let log = options.clone().open(folder.join("data")).unwrap();
        let partition = partition(&log);
        let mut end = 0;
        for kept_away in [1 << 20, 400 << 10] {
            let ballast = Ballast::new(folder, kept_away);
            end = fill(&partition, end, VALUE_BYTES);
            for level in LEVELS {
                check_full(&partition.append_with(Record::new(vec![7; 70_000]), level).unwrap_err());
            }
            let batch = (0..200).map(|_| Record::new(vec![7; 1000]));
            let error = partition.append_batch(batch).unwrap_err();
            check_full(&error);
            assert!(error.appended().is_empty(), "a frame that didn't fit was appended");
            assert_eq!(partition.end_offset(), end);
            check_numbers(&partition, 0..end, VALUE_BYTES);
            partition.flush().unwrap();
            assert_eq!(partition.durable_offset(), end);

            ballast.remove();
            assert_eq!(append(&partition, end..end + 200, VALUE_BYTES), (end..end + 200).collect::<Vec<_>>());
            end += 200;
            check_numbers(&partition, 0..end, VALUE_BYTES);
        }
        let spare = folder.join("spare");
        fs::write(&spare, vec![0x55; 128 << 10]).unwrap();
        end = fill(&partition, end, VALUE_BYTES);
        log.close().unwrap();

        // As full as can be, also for the open.
        let rest = Ballast::all_but(folder, 0);
        let log = options.clone().open(folder.join("data")).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        assert!(log.recovery().partitions().iter().all(|partition| partition.opening() == Opening::Clean));
        let partition = self::partition(&log);
        check_numbers(&partition, 0..end, VALUE_BYTES);
        end = fill(&partition, end, VALUE_BYTES);
        rest.remove();
        fs::remove_file(spare).unwrap();
        append(&partition, end..end + 1, VALUE_BYTES);
        check_numbers(&partition, 0..end + 1, VALUE_BYTES);
        log.close().unwrap();
    }

    /// In one large segment.
    fn records(folder: &Path) {
        fill_and_free(folder, &options());
    }

    /// In small ones, so that it is the next segment that doesn't fit.
    fn rolls(folder: &Path) {
        fill_and_free(folder, &Log::options().segment_bytes(64 << 10));
    }

    fn topics(folder: &Path) {
        let log = options().open(folder.join("data")).unwrap();
        let ballast = Ballast::new(folder, 3 << 20);
        let config = || TopicConfig::with_partitions(2);
        let mut made = Vec::new();
        let refused = loop {
            let name = format!("topic-{}", made.len());
            match log.create_topic(&name, config()) {
                Ok(topic) => made.push(topic),
                Err(error) => {
                    check_full(&error);
                    break name;
                }
            }
            assert!(made.len() < 1000, "the disk doesn't get full");
        };
        assert!(!made.is_empty());
        assert_eq!(log.topic(&refused).unwrap_err().kind(), ErrorKind::UnknownTopic);
        check_full(&log.create_topic(&refused, config()).unwrap_err());
        assert_eq!(log.topics().len(), made.len());
        for topic in &made {
            assert_eq!(topic.append(Record::new("in what was set aside").partition(1)).unwrap().offset, 0);
        }
        ballast.remove();
        let topic = log.create_topic(&refused, config()).unwrap();
        assert_eq!(topic.append(Record::new("first").partition(0)).unwrap().offset, 0);
        log.close().unwrap();

        let log = options().open(folder.join("data")).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        assert_eq!(log.topics().len(), made.len() + 1);
        for topic in log.topics() {
            let records: usize = (0..2)
                .map(|number| log.topic(&topic).unwrap().partition(number).unwrap().read_from(0).unwrap().count())
                .sum();
            assert_eq!(records, 1, "{topic}");
        }
        log.close().unwrap();
    }

    fn consumer(log: &Log) -> Consumer {
        log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap()
    }

    fn commits(folder: &Path) {
        let log = options().open(folder.join("data")).unwrap();
        let partition = partition(&log);
        append(&partition, 0..10_000, 8);
        let rest = Ballast::all_but(folder, 100 << 10);
        let mut consumer = consumer(&log);
        let mut committed = 0;
        let error = loop {
            // To and fro, so that there is always something to commit.
            let offset = 1 + (committed + 1) % 9_999;
            match consumer.commit_offsets([("orders", 0, offset)]) {
                Ok(()) => committed = offset,
                Err(error) => break error,
            }
        };
        check_full(&error);
        assert_eq!(consumer.committed("orders", 0).unwrap(), Some(committed));
        check_full(&consumer.commit_offsets([("orders", 0, 1)]).unwrap_err());
        assert_eq!(consumer.committed("orders", 0).unwrap(), Some(committed));
        // Reading goes on, and so do appends where space was set aside.
        consumer.seek("orders", 0, 0).unwrap();
        assert_eq!(consumer.poll(Duration::ZERO).unwrap().iter().next().unwrap().offset(), 0);
        check_full(&consumer.commit_with(Durability::Synced).unwrap_err());
        drop(consumer);
        log.close().unwrap();

        let log = options().open(folder.join("data")).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        let mut rest = Some(rest);
        if POSITIONAL {
            // Nothing was set aside for the record that there is another consumer.
            let error = log.consumer("billing").topic("orders").open().unwrap_err();
            check_full(&error);
            rest.take().unwrap().remove();
        }
        let mut consumer = self::consumer(&log);
        assert_eq!(consumer.committed("orders", 0).unwrap(), Some(committed));
        rest.into_iter().for_each(Ballast::remove);
        consumer.commit_offsets([("orders", 0, 7)]).unwrap();
        drop(consumer);
        log.close().unwrap();
        let log = options().open(folder.join("data")).unwrap();
        assert_eq!(self::consumer(&log).committed("orders", 0).unwrap(), Some(7));
        log.close().unwrap();
    }

    /// Opens a new log with less and less space, down to none.
    fn opening(folder: &Path) {
        let work = |folder: &Path| -> tidelog::Result<()> {
            let log = options().open(folder)?;
            let topic = log.ensure_topic("orders", TopicConfig::with_partitions(1))?;
            topic.append_with(Record::new("there"), Durability::Synced)?;
            let mut consumer = log.consumer("billing").topic("orders").open()?;
            consumer.poll(Duration::ZERO)?;
            consumer.commit()?;
            log.close()
        };
        let (mut refused, mut served) = (0, 0);
        for pages in 0..80 {
            let data = folder.join(format!("data-{pages}"));
            let ballast = Ballast::all_but(folder, pages * 4096);
            let outcome = work(&data);
            ballast.remove();
            match outcome {
                Ok(()) => served += 1,
                Err(error) => {
                    check_full(&error);
                    refused += 1;
                }
            }
            let before = refused;
            work(&data).unwrap();
            assert_eq!(before, refused);
            let log = options().open(&data).unwrap();
            assert!(log.recovery().is_clean(), "{pages} pages: {:?}", log.recovery());
            let partition = partition(&log);
            assert!((1..=2).contains(&partition.read_from(0).unwrap().map(Result::unwrap).count()));
            log.close().unwrap();
            fs::remove_dir_all(&data).unwrap();
        }
        assert!(refused > 10 && served > 10, "{refused} opens were refused, {served} served");
    }

    /// There is space, but no more files can be made.
    fn inodes(folder: &Path) {
        let options = Log::options().segment_bytes(64 << 10);
        let log = options.clone().open(folder.join("data")).unwrap();
        let partition = partition(&log);
        let end = fill(&partition, 0, VALUE_BYTES);
        check_numbers(&partition, 0..end, VALUE_BYTES);
        check_full(&log.create_topic("another", TopicConfig::with_partitions(1)).unwrap_err());
        log.close().unwrap();
        let log = options.open(folder.join("data")).unwrap();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        let partition = self::partition(&log);
        check_numbers(&partition, 0..end, VALUE_BYTES);
        assert_eq!(fill(&partition, end, VALUE_BYTES), end);
        log.close().unwrap();
    }

    /// Fills the disk to the last page, and is killed. How many records there are the committed offset tells.
    fn die_full(folder: &Path) {
        let log = options().open(folder.join("data")).unwrap();
        let partition = partition(&log);
        let ballast = Ballast::new(folder, 1 << 20);
        let end = fill(&partition, 0, VALUE_BYTES);
        consumer(&log).commit_offsets([("orders", 0, end)]).unwrap();
        ballast.remove();
        // For records that a consumer has come; where appends don't use `pwrite` space was set aside for those.
        Ballast::all_but(folder, if POSITIONAL { 40 << 10 } else { 0 });
        kill_myself();
    }

    /// Opens what a process left that was killed on a full disk, while it is still full.
    fn reopening(folder: &Path) {
        for _ in 0..3 {
            let log = options().open(folder.join("data")).unwrap();
            assert!(log.recovery().is_clean(), "{:?}", log.recovery());
            let partition = partition(&log);
            let consumer = consumer(&log);
            let end = consumer.committed("orders", 0).unwrap().unwrap();
            // Without a control page offsets go on behind a gap.
            assert!(partition.end_offset() == end || POSITIONAL);
            check_numbers(&partition, 0..end, VALUE_BYTES);
            check_full(&partition.append(Record::new(vec![7; 70_000])).unwrap_err());
            log.close().unwrap();
        }
        fs::remove_file(folder.join("ballast")).unwrap();
        let log = options().open(folder.join("data")).unwrap();
        let partition = partition(&log);
        let end = consumer(&log).committed("orders", 0).unwrap().unwrap();
        append(&partition, end..end + 100, VALUE_BYTES);
        check_numbers(&partition, 0..end + 100, VALUE_BYTES);
        log.close().unwrap();
    }
}
