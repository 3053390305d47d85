//! Appends to the page cache, beside a bare mapped file with the same checksum work in the same run.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidelog::Record;

mod common;
use common::{BATCH, MappedFile, RECORDS, SIZES, empty_topic, payload, topic_of};

fn append(criterion: &mut Criterion) {
    for (name, batch) in [("append one", 1), ("append batches of 100", BATCH)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
        group.measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));
        for bytes in SIZES {
            let payload = payload(bytes);
            group.bench_with_input(BenchmarkId::new("limit", bytes), &payload, |bencher, payload| {
                let setup = || {
                    let dir = tempfile::tempdir().expect("a temporary folder");
                    (MappedFile::new(dir.path(), RECORDS, bytes), dir)
                };
                bencher.iter_batched(setup, |state| append_limit(state, payload, batch), BatchSize::PerIteration);
            });
            group.bench_with_input(BenchmarkId::new("tidelog", bytes), &payload, |bencher, payload| {
                let setup = || {
                    let dir = tempfile::tempdir().expect("a temporary folder");
                    (empty_topic(dir.path()), dir)
                };
                bencher.iter_batched(setup, |state| append_tidelog(state, payload, batch), BatchSize::PerIteration);
            });
        }
        group.finish();
    }
}

fn append_limit<D>((mut file, dir): (MappedFile, D), payload: &[u8], batch: usize) -> (MappedFile, D) {
    for _ in 0..RECORDS / batch {
        match batch {
            1 => file.append(payload),
            _ => file.append_batch(payload, batch),
        }
    }
    (file, dir)
}

fn append_tidelog<L, D>(
    ((log, topic), dir): ((L, tidelog::Topic), D),
    payload: &[u8],
    batch: usize,
) -> ((L, tidelog::Topic), D) {
    for _ in 0..RECORDS / batch {
        match batch {
            1 => drop(topic.append(Record::new(payload)).expect("an append")),
            _ => drop(topic.append_batch((0..batch).map(|_| Record::new(payload))).expect("an append")),
        }
    }
    ((log, topic), dir)
}

/// Four threads, each on a partition of its own, and all on one; the limit is one thread's.
fn by_threads(criterion: &mut Criterion) {
    const THREADS: usize = 4;
    let mut group = criterion.benchmark_group("append by 4 threads");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
    group.measurement_time(Duration::from_secs(4)).warm_up_time(Duration::from_secs(1));
    let payload = payload(100);
    group.bench_function("limit of one thread", |bencher| {
        let setup = || {
            let dir = tempfile::tempdir().expect("a temporary folder");
            (MappedFile::new(dir.path(), RECORDS, payload.len()), dir)
        };
        bencher.iter_batched(setup, |state| append_limit(state, &payload, 1), BatchSize::PerIteration);
    });
    for partitions in [THREADS, 1] {
        group.bench_function(BenchmarkId::new("tidelog partitions", partitions), |bencher| {
            let setup = || {
                let dir = tempfile::tempdir().expect("a temporary folder");
                (topic_of(dir.path(), partitions as u32), dir)
            };
            let run = |((log, topic), dir): ((tidelog::Log, tidelog::Topic), tempfile::TempDir)| {
                std::thread::scope(|scope| {
                    for number in 0..THREADS {
                        let partition = topic.partition((number % partitions) as u32).expect("a partition");
                        let payload = &payload;
                        scope.spawn(move || {
                            for _ in 0..RECORDS / THREADS {
                                partition.append(Record::new(payload)).expect("an append");
                            }
                        });
                    }
                });
                ((log, topic), dir)
            };
            bencher.iter_batched(setup, run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

criterion_group!(benches, append, by_threads);
criterion_main!(benches);
