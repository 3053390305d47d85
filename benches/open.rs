//! Opening and closing logs of many partitions that nobody appends to, and creating and deleting topics of many.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tidelog::{Log, TopicConfig};

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

criterion_group!(benches, open, life);
criterion_main!(benches);
