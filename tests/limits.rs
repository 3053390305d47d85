//! What a process has only so many of: file descriptors, memory maps, memory. A log stays under its options, however many
//! partitions and segments it has; and where there are none left, that is an error after which nothing is lost.
//!
//! Done in child processes, which have nothing else open and can be given limits.

#![allow(clippy::unwrap_used, clippy::panic)]

#[cfg(target_os = "linux")]
mod common;

fn main() {
    #[cfg(target_os = "linux")]
    linux::main();
    #[cfg(not(target_os = "linux"))]
    println!("skipped: descriptors and maps are counted on Linux only");
}

#[cfg(target_os = "linux")]
mod linux {
    use std::{
        fs::{self, File},
        path::Path,
        sync::atomic::{AtomicBool, Ordering},
        thread,
        time::{Duration, Instant},
    };

    use libtest_mimic::{Arguments, Failed, Trial};
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use tidelog::{Durability, Error, ErrorKind, Log, LogOptions, Opening, Partition, Record, Start, TopicConfig};

    use crate::common::{
        POSITIONAL, append, check_numbers,
        process::{child_task, run_child},
    };

    type Task = (&'static str, fn(&Path));

    const TASKS: [Task; 5] = [
        ("two_thousand_partitions_with_ten_thousand_segments_stay_under_the_options", many),
        ("more_partitions_than_descriptors_are_appended_to", more_than_descriptors),
        ("many_readers_hold_one_segment_each", many_readers),
        ("without_descriptors_there_are_errors_and_nothing_is_lost", without_descriptors),
        ("without_maps_there_are_errors_and_nothing_is_lost", without_maps),
    ];

    pub(crate) fn main() {
        if let Some((task, folder)) = child_task() {
            let (_, work) = TASKS.iter().find(|(name, _)| *name == task).unwrap();
            return work(&folder);
        }
        let trials = TASKS.iter().map(|&(name, _)| Trial::test(name, move || in_child(name)));
        libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit();
    }

    fn in_child(task: &str) -> Result<(), Failed> {
        // In memory where that is offered: it is about how many files there are, and a device would be slow at syncing
        // them all.
        let memory = Path::new("/dev/shm");
        let root = tempfile::tempdir_in(memory).or_else(|_| tempfile::tempdir())?;
        Ok(run_child(task, root.path())?)
    }

    /// What the process has of each.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Held {
        descriptors: usize,
        maps: usize,
        /// Memory that isn't page cache, in bytes.
        anonymous: usize,
    }

    impl Held {
        fn now() -> Self {
            let maps = fs::read_to_string("/proc/self/maps").unwrap();
            let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
            let anonymous = rollup.lines().find_map(|line| line.strip_prefix("Anonymous:")).unwrap();
            let kib: usize = anonymous.trim().trim_end_matches(" kB").parse().unwrap();
            Self { descriptors: descriptors(), maps: maps.lines().count(), anonymous: kib << 10 }
        }

        fn max(self, other: Self) -> Self {
            Self {
                descriptors: self.descriptors.max(other.descriptors),
                maps: self.maps.max(other.maps),
                anonymous: self.anonymous.max(other.anonymous),
            }
        }
    }

    /// Open ones, without the one that this is found out with.
    fn descriptors() -> usize {
        fs::read_dir("/proc/self/fd").unwrap().count() - 1
    }

    /// Does `work` and answers the most that was held meanwhile.
    fn most_held(work: impl FnOnce()) -> Held {
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let watching = scope.spawn(|| {
                let mut most = Held::now();
                while !done.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(10));
                    most = most.max(Held::now());
                }
                most
            });
            work();
            done.store(true, Ordering::Relaxed);
            watching.join().unwrap()
        })
    }

    /// The log's lock and its spare descriptor.
    const OF_THE_LOG: usize = 2;
    /// Descriptors that one thread has for moments, when it syncs or opens something.
    const OF_A_THREAD: usize = 3;
    /// The flusher, the housekeeper, the one that counts.
    const THREADS: usize = 3;

    fn options() -> LogOptions {
        Log::options().durability(Durability::Written).segment_bytes(64 << 10)
    }

    fn segments(folder: &Path) -> usize {
        let partitions = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
        let files = partitions.flat_map(|folder| fs::read_dir(folder).unwrap());
        files.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|it| it == "log")).count()
    }

    fn many(folder: &Path) {
        const PARTITIONS: u32 = 2_000;
        const ROUNDS: u64 = 6;
        const MAX_OPEN_FILES: usize = 100;
        const MAX_OPEN_SEGMENTS: usize = 50;
        /// For each partition, and for each segment: what this takes in memory. Where appends use `pwrite`, a page for its
        /// control page, one for its index, and the frame that was encoded last are among that.
        const PARTITION_BYTES: usize = if cfg!(tidelog_positional) { 20 << 10 } else { 8 << 10 };
        const SEGMENT_BYTES: usize = 1 << 10;
        /// Segments that a batch lies in, beside one of each partition.
        const OF_A_BATCH: usize = 1024;

        let before = Held::now();
        let data = folder.join("data");
        let check = |what: &str, held: Held, readers: usize| {
            let descriptors = MAX_OPEN_FILES + OF_THE_LOG + (THREADS + 1) * OF_A_THREAD;
            let maps = 3 * PARTITIONS as usize + 2 * (MAX_OPEN_SEGMENTS + MAX_OPEN_FILES + readers) + 50;
            let memory = PARTITIONS as usize * (PARTITION_BYTES + ROUNDS as usize * SEGMENT_BYTES) + (4 << 20);
            println!("{what}: {held:?}");
            assert!(held.descriptors - before.descriptors <= descriptors, "{what}: {held:?}, {before:?} before");
            assert!(held.maps - before.maps <= maps, "{what}: {held:?}, {before:?} before");
            assert!(held.anonymous - before.anonymous <= memory, "{what}: {held:?}, {before:?} before");
        };
        let open = || {
            let options = options().segment_age(Duration::from_millis(1));
            options.max_open_files(MAX_OPEN_FILES).max_open_segments(MAX_OPEN_SEGMENTS).open(&data).unwrap()
        };
        let mut log = None;
        let held = most_held(|| {
            let opened = open();
            opened.create_topic("orders", TopicConfig::with_partitions(PARTITIONS)).unwrap();
            log = Some(opened);
        });
        check("creating", held, 0);
        let log = log.unwrap();
        let topic = log.topic("orders").unwrap();
        let held = most_held(|| {
            for round in 0..ROUNDS {
                for number in 0..PARTITIONS {
                    let value = format!("{number} {round}");
                    topic.append(Record::new(value).partition(number)).unwrap();
                }
            }
        });
        check("appending", held, 0);
        assert!(segments(&data) >= 10_000, "{} segments", segments(&data));
        let held = most_held(|| log.flush().unwrap());
        check("flushing", held, 0);

        // One consumer, of all partitions: it stands in one segment of each.
        let held = most_held(|| {
            let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open().unwrap();
            let mut records = 0;
            while records < u64::from(PARTITIONS) * ROUNDS {
                records += consumer.poll(Duration::from_secs(10)).unwrap().len() as u64;
            }
            consumer.commit().unwrap();
        });
        check("consuming", held, 2 * PARTITIONS as usize + OF_A_BATCH);
        let held = most_held(|| {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for number in 0..PARTITIONS {
                            let partition = topic.partition(number).unwrap();
                            let values = partition
                                .read_from(0)
                                .unwrap()
                                .map(|record| String::from_utf8(record.unwrap().value().unwrap().to_vec()).unwrap());
                            assert!(values.eq((0..ROUNDS).map(|round| format!("{number} {round}"))));
                        }
                    });
                }
            });
        });
        check("reading", Held { descriptors: held.descriptors - 4 * OF_A_THREAD, ..held }, 4);

        let held = most_held(|| log.close().unwrap());
        check("closing", held, 0);
        drop((topic, log));
        assert!(descriptors() <= before.descriptors, "{} are left", descriptors());
        let mut log = None;
        let held = most_held(|| log = Some(open()));
        check("opening", held, 0);
        let log = log.unwrap();
        // What runs in the background just then has one for a moment.
        let start = Instant::now();
        while descriptors() - before.descriptors > OF_THE_LOG {
            assert!(start.elapsed() < Duration::from_secs(30), "{} while nobody appends", descriptors());
            thread::yield_now();
        }
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        log.close().unwrap();
    }

    /// Lets this process have so many descriptors.
    fn limit_descriptors(count: u64) {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(count), ..limit }).unwrap();
    }

    /// As many as most systems allow, in small; no option is set.
    fn more_than_descriptors(folder: &Path) {
        const PARTITIONS: u64 = 200;
        const ROUNDS: u64 = 5;
        limit_descriptors(128);
        let before = descriptors();
        let log = Log::open(folder.join("data")).unwrap();
        let topic = log.create_topic("orders", TopicConfig::with_partitions(PARTITIONS as u32)).unwrap();
        let partitions: Vec<_> = (0..topic.partitions()).map(|number| topic.partition(number).unwrap()).collect();
        let held = most_held(|| {
            thread::scope(|scope| {
                for partitions in partitions.chunks(50) {
                    scope.spawn(|| {
                        for round in 0..ROUNDS {
                            partitions.iter().for_each(|partition| drop(append(partition, round..round + 1, 100)));
                        }
                    });
                }
            });
        });
        let allowed = 64 + 4 + OF_THE_LOG + (4 + THREADS) * OF_A_THREAD;
        assert!(held.descriptors - before <= allowed, "{held:?}");
        partitions.iter().for_each(|partition| check_numbers(partition, 0..ROUNDS, 100));
        log.close().unwrap();
        let log = Log::open(folder.join("data")).unwrap();
        assert!(
            log.recovery().is_clean() && log.recovery().partitions().iter().all(|it| it.opening() == Opening::Clean)
        );
        log.close().unwrap();
    }

    fn partition(log: &Log, number: u32) -> Partition {
        log.ensure_topic("orders", TopicConfig::with_partitions(3)).unwrap().partition(number).unwrap()
    }

    fn many_readers(folder: &Path) {
        const MAX_OPEN_SEGMENTS: usize = 4;
        const READERS: u64 = 40;
        let log = options().max_open_segments(MAX_OPEN_SEGMENTS).open(folder.join("data")).unwrap();
        let partition = partition(&log, 0);
        // Of the log's files: the allocator has maps too, as many as it likes.
        let maps = || fs::read_to_string("/proc/self/maps").unwrap().matches(folder.to_str().unwrap()).count();
        let before = (descriptors(), maps());
        // About one segment for each.
        let offsets = append(&partition, 0..READERS * 64, 1000);
        log.flush().unwrap();
        // A thread in the background may let go of some, or look into some, just now.
        let check = |what: &str, segments: usize| {
            let start = Instant::now();
            while maps() > before.1 + 2 * segments || descriptors() > before.0 + 1 {
                let held = (descriptors(), maps());
                assert!(start.elapsed() < Duration::from_secs(30), "{what}: {held:?}, {before:?} before");
                thread::yield_now();
            }
        };
        check("flushed", MAX_OPEN_SEGMENTS);
        let mut readers: Vec<_> = offsets.iter().step_by(64).map(|&at| partition.read_from(at).unwrap()).collect();
        for (number, reader) in readers.iter_mut().enumerate() {
            assert_eq!(reader.next().unwrap().unwrap().offset(), 64 * number as u64);
        }
        assert!(maps() >= before.1 + READERS as usize, "they stand in many segments");
        check("reading", MAX_OPEN_SEGMENTS + READERS as usize);
        drop(readers);
        check("done", MAX_OPEN_SEGMENTS);
        log.close().unwrap();
        check("closed", 0);
    }

    /// Takes all descriptors that are left.
    fn take_descriptors(taken: &mut Vec<File>) {
        while let Ok(file) = File::open("/dev/null") {
            taken.push(file);
        }
    }

    #[track_caller]
    fn check_limit<T: std::fmt::Debug>(outcome: Result<T, Error>) {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
        assert!(error.path().is_some(), "{error}");
    }

    fn without_descriptors(folder: &Path) {
        limit_descriptors(64);
        let open = || options().max_open_segments(1).open(folder.join("data")).unwrap();
        let log = open();
        let mut taken = Vec::new();
        // Segments that were begun since the last flush: it has to sync the folder, which takes a descriptor.
        append(&partition(&log, 0), 0..200, 1000);
        take_descriptors(&mut taken);
        partition(&log, 0).flush().unwrap();
        assert_eq!(partition(&log, 0).durable_offset(), 200);
        log.close().unwrap();
        drop(log);
        taken.clear();

        // No partition has a descriptor, and there is none to be had.
        let log = open();
        let partitions = [0, 1, 2].map(|number| partition(&log, number));
        take_descriptors(&mut taken);
        for (partition, end) in partitions.iter().zip([200, 0, 0]) {
            check_limit(partition.append(Record::new("no")));
            check_limit(partition.append_with(Record::new("no"), Durability::Synced));
            assert_eq!(partition.end_offset(), end);
        }
        check_limit(partitions[0].read_from(0).and_then(|mut records| records.next().transpose()));
        check_limit(log.create_topic("more", TopicConfig::with_partitions(1)));
        check_limit(Log::open(folder.join("other")));
        // What is mapped can be read.
        assert_eq!(partitions[0].read_from(199).unwrap().next().unwrap().unwrap().offset(), 199);
        log.flush().unwrap();

        // Few are enough: who needs one gets that of somebody else.
        // (Where appends go by `pwrite`, a new segment is mapped by a descriptor of its own.)
        drop(taken.drain(..if POSITIONAL { 4 } else { 3 }));
        let mut ends = [200, 0, 0];
        for _ in 0..100 {
            for (partition, end) in partitions.iter().zip(&mut ends) {
                append(partition, *end..*end + 1, 1000);
                *end += 1;
            }
        }
        for (partition, &end) in partitions.iter().zip(&ends) {
            check_numbers(partition, 0..end, 1000);
        }
        taken.clear();
        log.create_topic("more", TopicConfig::with_partitions(1)).unwrap();
        append(&partitions[0], ends[0]..ends[0] + 10, 1000);
        ends[0] += 10;
        // Closing gets by with what it frees, and so does flushing with the spare one.
        take_descriptors(&mut taken);
        log.close().unwrap();
        drop(taken);
        let log = open();
        assert!(log.recovery().is_clean(), "{:?}", log.recovery());
        assert!(log.recovery().partitions().iter().all(|it| it.opening() == Opening::Clean), "{:?}", log.recovery());
        for (number, &end) in ends.iter().enumerate() {
            check_numbers(&partition(&log, number as u32), 0..end, 1000);
        }
        log.close().unwrap();
    }

    /// Address space in use, in bytes.
    fn address_space() -> u64 {
        let pages = fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// A limit on address space does as well as one on the number of maps, and can be set for one process.
    fn without_maps(folder: &Path) {
        const SEGMENT: u64 = 64 << 20;
        const VALUE: usize = 1_000_000;
        let open = || Log::options().segment_bytes(SEGMENT).open(folder.join("data")).unwrap();
        let log = open();
        append(&partition(&log, 0), 0..150, VALUE);
        log.close().unwrap();
        drop(log);

        let log = open();
        let partition = partition(&log, 0);
        let unlimited = getrlimit(Resource::As);
        setrlimit(Resource::As, Rlimit { current: Some(address_space() + SEGMENT / 2), ..unlimited }).unwrap();
        let mut end = 150;
        let error = loop {
            match partition.append(Record::new(crate::common::value_of(end, VALUE))) {
                Ok(at) => assert_eq!(at.offset, end),
                Err(error) => break error,
            }
            end += 1;
            assert!(end < 300, "there is always one more");
        };
        assert_eq!(error.kind(), ErrorKind::LimitReached, "{error}");
        assert_eq!(partition.end_offset(), end);
        check_limit(partition.read_from(0).and_then(|mut records| records.next().transpose()));
        partition.flush().unwrap();
        setrlimit(Resource::As, unlimited).unwrap();
        append(&partition, end..end + 10, VALUE);
        check_numbers(&partition, 0..end + 10, VALUE);
        log.close().unwrap();
        assert!(open().recovery().is_clean());
    }
}
