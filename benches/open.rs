//! Opening and closing logs of many partitions that nobody appends to, and creating and deleting topics of many.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidelog::{Durability, Log, Record, TopicConfig};

mod common;
use common::{BATCH, empty_topic, payload};

const PARTITIONS: [u32; 2] = [1000, 2000];

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("partitions");
    group.sample_size(10).measurement_time(Duration::from_secs(5)).warm_up_time(Duration::from_secs(1));
    for partitions in PARTITIONS {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = Log::open(dir.path()).expect("a new log");
        log.create_topic("bench", TopicConfig::with_partitions(partitions)).expect("a new topic");
        log.close().expect("a log that can be closed");
        group.bench_function(BenchmarkId::new("open", partitions), |bencher| {
            bencher
                .iter_custom(|rounds| timed(rounds, || Log::open(dir.path()).expect("a log"), |log| drop(log.close())));
        });
        group.bench_function(BenchmarkId::new("close", partitions), |bencher| {
            bencher.iter_custom(|rounds| {
                let open = || Log::open(dir.path()).expect("a log");
                let total = timed(rounds, || open().close(), drop);
                total.saturating_sub(timed(rounds, open, |log| drop(log.close())))
            });
        });
    }
    group.finish();
}

/// A log of one partition that was closed, beside what the system takes to open and map one file and to read a page of it.
/// Whether it has few records or many makes no difference.
fn open_one(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open one partition");
    let payload = payload(100);
    for records in [10_000, 1_000_000] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let (log, topic) = empty_topic(dir.path());
        for _ in 0..records / BATCH {
            topic.append_batch((0..BATCH).map(|_| Record::new(&payload))).expect("an append");
        }
        log.close().expect("a log that can be closed");
        drop(topic);
        let segment = dir.path().join("bench-0").join("00000000000000000000.log");
        group.bench_function(BenchmarkId::new("limit", records), |bencher| {
            bencher.iter(|| {
                let file = std::fs::File::open(&segment).expect("a file");
                // SAFETY: nobody has the log open.
                let map = unsafe { memmap2::Mmap::map(&file) }.expect("a map");
                std::hint::black_box(map[4096])
            });
        });
        let open = || Log::options().durability(Durability::Written).segment_bytes(1 << 30).open(dir.path());
        group.bench_function(BenchmarkId::new("tidelog", records), |bencher| {
            bencher.iter_custom(|rounds| timed(rounds, || open().expect("a log"), |log| drop(log.close())));
        });
    }
    group.finish();
}

/// What a thousand open partitions take of memory, beyond the files that they map.
#[cfg(target_os = "linux")]
fn memory(_: &mut Criterion) {
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/status").expect("a process");
        let line = status.lines().find(|line| line.starts_with("RssAnon")).expect("a figure");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number")
    };
    let dir = tempfile::tempdir().expect("a temporary folder");
    let before = resident();
    let log = Log::open(dir.path()).expect("a new log");
    let topic = log.create_topic("bench", TopicConfig::with_partitions(1000)).expect("a new topic");
    for number in 0..1000 {
        topic.append(Record::new("x").partition(number)).expect("an append");
    }
    println!("partitions=1000 resident_kib={}", resident().saturating_sub(before));
    log.close().expect("a log that can be closed");
}

#[cfg(not(target_os = "linux"))]
fn memory(_: &mut Criterion) {}

fn life(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("topic of 1000 partitions");
    group.sample_size(10).measurement_time(Duration::from_secs(10)).warm_up_time(Duration::from_secs(1));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = Log::open(dir.path()).expect("a new log");
    let create = || log.create_topic("bench", TopicConfig::with_partitions(1000)).expect("a new topic");
    let delete = || log.delete_topic("bench").expect("a topic that goes");
    group.bench_function("create", |bencher| bencher.iter_custom(|rounds| timed(rounds, create, |_| delete())));
    group.bench_function("delete", |bencher| {
        bencher.iter_custom(|rounds| {
            (0..rounds)
                .map(|_| {
                    drop(create());
                    timed(1, delete, |()| ())
                })
                .sum()
        });
    });
    group.finish();
}

/// What `body` takes, so many times; what comes `behind` it isn't counted.
fn timed<T>(rounds: u64, body: impl Fn() -> T, behind: impl Fn(T)) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..rounds {
        let start = Instant::now();
        let made = body();
        total += start.elapsed();
        behind(made);
    }
    total
}

// Memory first, while the process has none that it could use again.
criterion_group!(benches, memory, open, open_one, life);
criterion_main!(benches);
