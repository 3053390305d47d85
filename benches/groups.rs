//! Groups: commits a second, what a million commits cost the next open, and what a rebalance takes.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use tempfile::TempDir;
use tidelog::{Consumer, Durability, Log, Record, TopicConfig};

/// Commits in a measured round.
const COMMITS: u64 = 10_000;
/// Of those that wait for the device.
const SYNCED_COMMITS: u64 = 100;
/// Commits before an open.
const COMMITS_BEHIND: u64 = 1_000_000;
/// Members and partitions of a rebalance.
const MEMBERS: usize = 8;
const PARTITIONS: u32 = 64;

fn open(dir: &Path) -> Log {
    Log::options().durability(Durability::Written).open(dir).expect("a folder that can be opened")
}

fn consumer(log: &Log) -> Consumer {
    log.consumer("bench").topic("bench").open().expect("a consumer")
}

/// A log with a topic of one partition that has so many records.
fn log_with_records(dir: &Path, records: u64) -> Log {
    let log = open(dir);
    let topic = log.create_topic("bench", TopicConfig::with_partitions(1)).expect("a new topic");
    for _ in 0..records / 1_000 {
        topic.append_batch((0..1_000).map(|_| Record::new("x"))).expect("an append");
    }
    log
}

/// Commits one offset after the other, of one partition.
fn commit(consumer: &mut Consumer, offsets: std::ops::Range<u64>, durability: Durability) {
    for offset in offsets {
        match durability {
            Durability::Synced => {
                consumer.seek("bench", 0, offset).expect("an offset that is there");
                consumer.commit_with(durability).expect("a commit");
            }
            _ => consumer.commit_offsets([("bench", 0, offset)]).expect("a commit"),
        }
    }
}

fn commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("commit one offset");
    group.sample_size(10);
    for (durability, count) in [(Durability::Written, COMMITS), (Durability::Synced, SYNCED_COMMITS)] {
        group.throughput(Throughput::Elements(count));
        group.bench_with_input(BenchmarkId::from_parameter(format!("{durability:?}")), &count, |bencher, &count| {
            let setup = || {
                let dir = tempfile::tempdir().expect("a temporary folder");
                let log = log_with_records(dir.path(), COMMITS);
                (consumer(&log), log, dir)
            };
            let run = |(mut consumer, log, dir): (Consumer, Log, TempDir)| {
                commit(&mut consumer, 1..count + 1, durability);
                (consumer, log, dir)
            };
            bencher.iter_batched(setup, run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn open_behind_commits(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.sample_size(10);
    for behind in [0, COMMITS_BEHIND] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let log = log_with_records(dir.path(), COMMITS_BEHIND);
        commit(&mut consumer(&log), 0..behind, Durability::Written);
        log.close().expect("a clean close");
        group.bench_with_input(BenchmarkId::new("commits behind it", behind), &dir, |bencher, dir| {
            bencher.iter_custom(|rounds| {
                let mut taken = Duration::ZERO;
                for _ in 0..rounds {
                    let start = Instant::now();
                    let log = open(dir.path());
                    taken += start.elapsed();
                    log.close().expect("a clean close");
                }
                taken
            });
        });
    }
    group.finish();
}

/// Lets partitions move to where they belong.
fn settle(consumers: &mut [Consumer]) {
    for _ in 0..2 {
        for consumer in &mut *consumers {
            consumer.poll(Duration::ZERO).expect("a poll");
        }
    }
}

fn rebalance(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("8 consumers over 64 partitions");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    log.create_topic("bench", TopicConfig::with_partitions(PARTITIONS)).expect("a new topic");
    let mut consumers: Vec<Consumer> = (0..MEMBERS).map(|_| consumer(&log)).collect();
    settle(&mut consumers);
    group.bench_function("one leaves, one comes, all have what is theirs", |bencher| {
        bencher.iter(|| {
            drop(consumers.remove(0));
            consumers.push(consumer(&log));
            settle(&mut consumers);
        });
    });
    assert!(consumers.iter().all(|consumer| consumer.assignment().len() == PARTITIONS as usize / MEMBERS));
    group.finish();
}

criterion_group!(benches, commits, open_behind_commits, rebalance);
criterion_main!(benches);
