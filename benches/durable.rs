//! Appends that wait for the device, beside a store into a bare mapped file and an `fdatasync` in the same run. All of that
//! file was written before, so that the sync has nothing to note of blocks.
//!
//! Anything else that uses the disk meanwhile is measured as well: let the machine be quiet. The last lines tell what one
//! append writes to the device, as the device counts it.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use tidelog::{Durability, Log, Record, Start, Topic, TopicConfig};

mod common;
use common::{BATCH, MappedFile, payload};

/// Bytes of a payload.
const BYTES: usize = 100;
/// Threads that wait for the device together.
const THREADS: usize = 8;
/// Records that the log and the bare file have room for: more than a benchmark appends.
const ROOM: usize = 4_000_000;
/// Records that are there before a reopen: more than the system reads ahead.
const THERE: usize = 200_000;

fn durable(criterion: &mut Criterion) {
    one_by_one(criterion);
    in_batches(criterion);
    by_threads(criterion);
    #[cfg(target_os = "linux")]
    device::bytes_of_an_append();
}

fn group<'c>(criterion: &'c mut Criterion, name: &str, records: usize) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(records as u64)).sample_size(20);
    group.measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));
    group
}

fn one_by_one(criterion: &mut Criterion) {
    let mut group = group(criterion, "durable one by one", 1);
    let payload = payload(BYTES);
    {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut limit = MappedFile::written(dir.path(), ROOM, BYTES);
        group.bench_function("limit", |bencher| bencher.iter(|| limit.append_durably(&payload, 1)));
    }
    for state in State::ALL {
        with_topic(state, |topic| {
            group.bench_function(BenchmarkId::new("tidelog", state.name()), |bencher| {
                bencher.iter(|| append(topic, &payload));
            });
        });
    }
    group.finish();
}

fn in_batches(criterion: &mut Criterion) {
    let mut group = group(criterion, "durable batches of 100", BATCH);
    let payload = payload(BYTES);
    {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut limit = MappedFile::written(dir.path(), ROOM, BYTES);
        group.bench_function("limit", |bencher| bencher.iter(|| limit.append_durably(&payload, BATCH)));
    }
    with_topic(State::Fresh, |topic| {
        group.bench_function("tidelog", |bencher| {
            bencher.iter(|| {
                let batch = (0..BATCH).map(|_| Record::new(&payload));
                topic.append_batch_with(batch, Durability::Synced).expect("an append")
            });
        });
    });
    group.finish();
}

/// Eight at a time at most share a sync, so eight times the rate of one is what there is to gain.
fn by_threads(criterion: &mut Criterion) {
    let mut group = group(criterion, "durable by 8 threads", 1);
    let payload = payload(BYTES);
    with_topic(State::Fresh, |topic| {
        group.bench_function("tidelog", |bencher| {
            bencher.iter_custom(|rounds| {
                let start = Instant::now();
                thread::scope(|scope| {
                    for number in 0..THREADS as u64 {
                        let (topic, payload) = (topic, &payload);
                        let share = rounds / THREADS as u64 + u64::from(number < rounds % THREADS as u64);
                        scope.spawn(move || (0..share).for_each(|_| append(topic, payload)));
                    }
                });
                start.elapsed()
            });
        });
    });
    group.finish();
}

fn append(topic: &Topic, payload: &[u8]) {
    topic.append_with(Record::new(payload), Durability::Synced).expect("an append");
}

/// What was before the appends that are measured.
#[derive(Clone, Copy)]
enum State {
    /// Nothing.
    Fresh,
    /// A log that was closed, fell out of the page cache, and was read.
    Reopened,
    /// The same, and somebody reads what is appended.
    Tailed,
}

impl State {
    const ALL: [Self; 3] = [Self::Fresh, Self::Reopened, Self::Tailed];

    fn name(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Reopened => "reopened",
            Self::Tailed => "tailed",
        }
    }
}

/// Calls `body` with a topic of one partition in that state.
fn with_topic(state: State, body: impl FnOnce(&Topic)) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let open = || {
        let options = Log::options().durability(Durability::Written).segment_bytes(1 << 30);
        let log = options.open(dir.path()).expect("a folder that can be opened");
        let topic = log.ensure_topic("bench", TopicConfig::with_partitions(1)).expect("a topic");
        (log, topic)
    };
    let (mut log, mut topic) = open();
    if !matches!(state, State::Fresh) {
        let payload = payload(BYTES);
        for _ in 0..THERE / BATCH {
            topic.append_batch((0..BATCH).map(|_| Record::new(&payload))).expect("an append");
        }
        log.close().expect("a log that can be closed");
        drop(topic);
        forget_cached(&dir.path().join("bench-0"));
        (log, topic) = open();
        let read = topic.partition(0).and_then(|partition| partition.read_from(0)).expect("records").count();
        assert_eq!(read, THERE);
    }
    let stop = AtomicBool::new(!matches!(state, State::Tailed));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut reader = topic.reader(Start::Latest).expect("a reader");
            while !stop.load(Ordering::Relaxed) {
                if reader.next_batch().expect("a batch").is_none() {
                    thread::sleep(Duration::from_micros(200));
                }
            }
        });
        body(&topic);
        stop.store(true, Ordering::Relaxed);
    });
    log.close().expect("a log that can be closed");
}

/// Drops the folder's files from the page cache, where the system can do that.
fn forget_cached(dir: &Path) {
    #[cfg(target_os = "linux")]
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let file = std::fs::File::open(entry.expect("a file").path()).expect("a file");
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).expect("an advice");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = dir;
}

/// What the device is told to write.
#[cfg(target_os = "linux")]
mod device {
    use std::os::unix::fs::MetadataExt;

    use super::{BYTES, State, append, payload, with_topic};

    /// Appends in a round, and rounds.
    const APPENDS: u64 = 50;
    const ROUNDS: usize = 11;

    /// Bytes written to the device that temporary files lie on, ever; `None` where there is none (in memory, say).
    fn written() -> Option<u64> {
        let device = std::fs::metadata(std::env::temp_dir()).ok()?.dev();
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let figures = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
        // Documented in the kernel's `Documentation/block/stat.rst`: sectors of 512 bytes, whatever the device's are.
        figures.split_whitespace().nth(6)?.parse::<u64>().ok().map(|sectors| sectors * 512)
    }

    pub(super) fn bytes_of_an_append() {
        let payload = payload(BYTES);
        for state in State::ALL {
            with_topic(state, |topic| {
                let round = || {
                    let before = written()?;
                    (0..APPENDS).for_each(|_| append(topic, &payload));
                    Some((written()? - before) / APPENDS)
                };
                let Some(mut rounds) = (0..ROUNDS).map(|_| round()).collect::<Option<Vec<_>>>() else { return };
                rounds.sort_unstable();
                println!("state={} device_bytes_an_append={}", state.name(), rounds[ROUNDS / 2]);
            });
        }
    }
}

criterion_group!(benches, durable);
criterion_main!(benches);
