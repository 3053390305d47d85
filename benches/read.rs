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
        for record in &batch {
            sum += record.value().map_or(0, <[u8]>::len);
        }
    }
    sum
}

fn scan_owned(topic: &Topic) -> usize {
    let records = topic.partition(0).and_then(|partition| partition.read_from(0)).expect("records");
    records.filter_map(|record| record.expect("a record").value().map(<[u8]>::len)).sum()
}

/// One record by its offset, at random, among a million.
fn look_up(criterion: &mut Criterion) {
    const AMONG: usize = 1_000_000;
    /// Odd, so that all numbers below a power of two come once.
    const STEP: usize = 0x9e37_79b1;
    let mut group = criterion.benchmark_group("look up one record");
    group.throughput(Throughput::Elements(1)).measurement_time(Duration::from_secs(3));
    let as_large = SIZES.map(|bytes| (bytes.to_string(), bytes..=bytes));
    for (name, sizes) in as_large.into_iter().chain([("50 to 150".to_owned(), 50..=150)]) {
        let payload = payload(*sizes.end());
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut limit = MappedFile::new(dir.path(), AMONG, payload.len());
        let (_log, topic) = empty_topic(&dir.path().join("log"));
        let bytes =
            |number: usize| sizes.start() + number.wrapping_mul(STEP) / 1024 % (sizes.end() - sizes.start() + 1);
        for number in 0..AMONG {
            limit.note();
            limit.append(&payload[..bytes(number)]);
            topic.append(Record::new(&payload[..bytes(number)])).expect("an append");
        }
        let partition = topic.partition(0).expect("a partition");
        let mut turn = 0_usize;
        let mut at_random = move || {
            turn = turn.wrapping_add(STEP);
            turn % AMONG
        };
        group.bench_function(BenchmarkId::new("limit", &name), |bencher| {
            bencher.iter(|| {
                let number = at_random();
                assert_eq!(limit.look_up(number as u32), bytes(number));
            });
        });
        group.bench_function(BenchmarkId::new("tidelog read_from", &name), |bencher| {
            bencher.iter(|| {
                let number = at_random();
                let record = partition.read_from(number as u64).expect("records").next().expect("a record");
                assert_eq!(record.expect("an intact one").value().map(<[u8]>::len), Some(bytes(number)));
            });
        });
    }
    group.finish();
}

/// As a consumer of a group reads them.
fn poll(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("poll frames of 100");
    group.throughput(Throughput::Elements(RECORDS as u64)).sample_size(20);
    for bytes in SIZES {
        let payload = payload(bytes);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut limit = MappedFile::new(dir.path(), RECORDS, bytes);
        let (log, topic) = empty_topic(&dir.path().join("log"));
        for _ in 0..RECORDS / BATCH {
            limit.append_batch(&payload, BATCH);
            topic.append_batch((0..BATCH).map(|_| Record::new(&payload))).expect("an append");
        }
        let expected = RECORDS * bytes;
        group.bench_function(BenchmarkId::new("limit", bytes), |bencher| {
            bencher.iter(|| assert_eq!(limit.scan(), expected));
        });
        let mut consumer = log.consumer("bench").topic("bench").open().expect("a consumer");
        group.bench_function(BenchmarkId::new("tidelog", bytes), |bencher| {
            bencher.iter(|| {
                consumer.seek("bench", 0, 0).expect("the first offset");
                let mut sum = 0;
                while sum < expected {
                    let batch = consumer.poll(Duration::from_secs(1)).expect("a batch");
                    sum += batch.iter().filter_map(|record| record.value().map(<[u8]>::len)).sum::<usize>();
                }
                assert_eq!(sum, expected);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, read, poll, look_up);
criterion_main!(benches);
