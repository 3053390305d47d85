//! Groups: commits a second, what a million commits cost the next open, what a rebalance takes, and what a consumer costs
//! that is asleep.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::{
    future::Future,
    path::Path,
    pin::pin,
    task::{Context, Poll, Waker},
    thread,
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

/// Consumers that are asleep.
const ASLEEP: usize = 1_000;

/// Numbers of this process: threads, resident KiB that no file backs, and clock ticks of processor time.
fn process() -> (i64, i64, i64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim_start_matches(':').split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // User and system time are the 12th and 13th field behind the name, which is in parentheses.
    let times = stat.rsplit(')').next().into_iter().flat_map(str::split_whitespace).skip(11).take(2);
    (number("Threads"), number("RssAnon"), times.filter_map(|time| time.parse::<i64>().ok()).sum())
}

/// What consumers cost that wait as futures, and what they cost who appends to a topic that they don't read.
fn asleep(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("an append, beside consumers that sleep at another topic");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    log.create_topic("bench", TopicConfig::with_partitions(4)).expect("a new topic");
    let other = log.create_topic("other", TopicConfig::with_partitions(1)).expect("a new topic");
    for count in [0, ASLEEP] {
        let before = process();
        let open_one = |number| log.consumer(format!("group-{number}")).topic("bench").open().expect("a consumer");
        let mut consumers: Vec<Consumer> = (0..count).map(open_one).collect();
        let mut futures: Vec<_> = consumers.iter_mut().map(|consumer| Box::pin(consumer.ready())).collect();
        for future in &mut futures {
            let mut context = Context::from_waker(Waker::noop());
            assert_eq!(pin!(future).as_mut().poll(&mut context), Poll::Pending);
        }
        if count > 0 {
            let (threads, kibibytes, _) = process();
            let ticks = process().2;
            thread::sleep(Duration::from_secs(1));
            let bytes = (kibibytes - before.1) * 1024 / count as i64;
            let idle = process().2 - ticks;
            println!(
                "{count} asleep: {} threads more, {bytes} bytes each, {idle} clock ticks a second",
                threads - before.0
            );
        }
        group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
            bencher.iter(|| other.append(Record::new("x")).expect("an append"));
        });
    }
    group.finish();
}

criterion_group!(benches, commits, open_behind_commits, rebalance, asleep);
criterion_main!(benches);
