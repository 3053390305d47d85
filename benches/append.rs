//! Appends to the page cache, beside a bare mapped file with the same checksum work in the same run.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidelog::Record;

mod common;
use common::{BATCH, MappedFile, RECORDS, SIZES, empty_topic, payload};

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

criterion_group!(benches, append);
criterion_main!(benches);
