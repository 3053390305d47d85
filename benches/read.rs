//! Sequential reads with checksums verified, beside a scan of a bare mapped file with the same checksum work.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tidelog::{Record, Start, Topic};

mod common;
use common::{BATCH, MappedFile, RECORDS, SIZES, empty_topic, payload};

fn read(criterion: &mut Criterion) {
    for (name, batch) in [("read frames of one", 1), ("read frames of 100", BATCH)] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
        group.measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_secs(1));
        for bytes in SIZES {
            let payload = payload(bytes);
            let dir = tempfile::tempdir().expect("a temporary folder");
            let mut limit = MappedFile::new(dir.path(), RECORDS, bytes);
            let (_log, topic) = empty_topic(&dir.path().join("log"));
            for _ in 0..RECORDS / batch {
                limit.append_batch(&payload, batch);
                topic.append_batch((0..batch).map(|_| Record::new(&payload))).expect("an append");
            }
            let expected = RECORDS * bytes;
            group.bench_function(BenchmarkId::new("limit", bytes), |bencher| {
                bencher.iter(|| assert_eq!(limit.scan(), expected));
            });
            group.bench_function(BenchmarkId::new("tidelog next_batch", bytes), |bencher| {
                bencher.iter(|| assert_eq!(scan(&topic), expected));
            });
            group.bench_function(BenchmarkId::new("tidelog read_from", bytes), |bencher| {
                bencher.iter(|| assert_eq!(scan_owned(&topic), expected));
            });
        }
        group.finish();
    }
}

fn scan(topic: &Topic) -> usize {
    let mut reader = topic.reader(Start::Earliest).expect("a reader");
    let mut sum = 0;
    while let Some(batch) = reader.next_batch().expect("a batch") {
        sum += batch.iter().filter_map(|record| record.value().map(<[u8]>::len)).sum::<usize>();
    }
    sum
}

fn scan_owned(topic: &Topic) -> usize {
    let records = topic.partition(0).and_then(|partition| partition.read_from(0)).expect("records");
    records.filter_map(|record| record.expect("a record").value().map(<[u8]>::len)).sum()
}

criterion_group!(benches, read);
criterion_main!(benches);
