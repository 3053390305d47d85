//! How long single calls take: an append at a steady rate with and without a flusher behind it, and the way from an append
//! to a consumer that is asleep; each beside what the machine does without tidelog, in the same run.
//!
//! Prints lines of percentiles, each the median of some rounds. Let the machine be quiet: whatever else runs is measured as
//! well.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark ends where it can't go on")]

use std::{
    hint,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tidelog::{Durability, Log, Record, TopicConfig};

mod common;
use common::{MappedFile, payload};

/// Bytes of a payload.
const BYTES: usize = 100;
/// Appends in a round, one a microsecond.
const APPENDS: usize = 1_000_000;
const GAP: Duration = Duration::from_micros(1);
/// Times that a sleeper is woken in a round, and how long it is left asleep before.
const WAKES: u32 = 1_000;
const ASLEEP: Duration = Duration::from_micros(500);
/// Rounds of everything, one after the other.
const ROUNDS: usize = 5;
/// Percentiles in units of a hundredth of a percent.
const PERCENTILES: [(&str, usize); 3] = [("p50", 5_000), ("p99", 9_900), ("p999", 9_990)];

fn main() {
    // Asked for by `cargo test --benches`, which wants to know that it runs.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    appends();
    wakes();
    costs_of_a_consumer();
}

/// Nanoseconds at the percentiles.
fn percentiles(mut nanoseconds: Vec<u64>) -> [u64; 3] {
    nanoseconds.sort_unstable();
    PERCENTILES.map(|(_, at)| nanoseconds[(nanoseconds.len() - 1) * at / 10_000])
}

/// One line for a series of rounds.
fn print(what: &str, rounds: &[[u64; 3]]) -> [u64; 3] {
    let medians: Vec<u64> = (0..3).map(|at| median(rounds.iter().map(|round| round[at]).collect())).collect();
    let figures: Vec<_> =
        PERCENTILES.iter().zip(&medians).map(|((name, _), value)| format!("{name}_ns={value}")).collect();
    println!("{what} {}", figures.join(" "));
    [medians[0], medians[1], medians[2]]
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

fn appends() {
    let mut calls: [Vec<[u64; 3]>; 3] = Default::default();
    let mut sends: [Vec<[u64; 3]>; 3] = Default::default();
    const KINDS: [&str; 3] = ["bare map", "without flusher", "flushed every 50 ms"];
    for _ in 0..ROUNDS {
        for (kind, _) in KINDS.iter().enumerate() {
            let dir = tempfile::tempdir().expect("a temporary folder");
            let (call, send) = match kind {
                0 => {
                    let (mut file, payload) = (MappedFile::new(dir.path(), APPENDS, BYTES), payload(BYTES));
                    steadily(|| file.append(&payload))
                }
                1 => steady_appends(dir.path(), Durability::Written),
                _ => steady_appends(dir.path(), Durability::Interval(Duration::from_millis(50))),
            };
            calls[kind].push(call);
            sends[kind].push(send);
        }
    }
    let calls = [0, 1, 2].map(|kind| print(&format!("append=\"{}\" from=call", KINDS[kind]), &calls[kind]));
    for kind in 0..3 {
        print(&format!("append=\"{}\" from=intended", KINDS[kind]), &sends[kind]);
    }
    println!("flusher_adds_at_p999={:.2}", calls[2][2] as f64 / calls[1][2] as f64 - 1.0);
}

fn steady_appends(dir: &Path, durability: Durability) -> ([u64; 3], [u64; 3]) {
    let options = Log::options().durability(durability).segment_bytes(1 << 30);
    let log = options.open(dir).expect("a folder that can be opened");
    let topic = log.create_topic("bench", TopicConfig::with_partitions(1)).expect("a new topic");
    let payload = payload(BYTES);
    let figures = steadily(|| {
        topic.append(Record::new(&payload)).expect("an append");
    });
    log.close().expect("a log that can be closed");
    figures
}

/// Calls `body` at a steady rate: percentiles of what the calls took, and of how long after their time they were done.
fn steadily(mut body: impl FnMut()) -> ([u64; 3], [u64; 3]) {
    let (mut calls, mut sends) = (Vec::with_capacity(APPENDS), Vec::with_capacity(APPENDS));
    let start = Instant::now();
    for number in 0..APPENDS as u32 {
        let intended = start + GAP * number;
        let mut now = Instant::now();
        while now < intended {
            hint::spin_loop();
            now = Instant::now();
        }
        body();
        let done = Instant::now();
        calls.push((done - now).as_nanos() as u64);
        sends.push((done - intended).as_nanos() as u64);
    }
    (percentiles(calls), percentiles(sends))
}

fn wakes() {
    let (mut bare, mut consumer) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        #[cfg(target_os = "linux")]
        bare.push(wake_by_futex());
        consumer.push(wake_by_append());
    }
    if !bare.is_empty() {
        let (bare, consumer) = (print("wake=\"bare futex\"", &bare), print("wake=consumer", &consumer));
        let ratio = |at: usize| consumer[at] as f64 / bare[at] as f64;
        println!("wake_ratio_p50={:.2} wake_ratio_p99={:.2}", ratio(0), ratio(1));
    } else {
        print("wake=consumer", &consumer);
    }
}

/// From the store of a word to the return of who sleeps for it, in this process's shared memory.
#[cfg(target_os = "linux")]
fn wake_by_futex() -> [u64; 3] {
    use rustix::thread::futex;
    let word = AtomicU32::new(0);
    let sleep = |turn: u32| {
        while word.load(Ordering::SeqCst) == turn {
            // Woken, or too late to sleep: the word says which.
            let _ = futex::wait(&word, futex::Flags::empty(), turn, None);
        }
    };
    wake_again_and_again(sleep, |turn| {
        word.store(turn + 1, Ordering::SeqCst);
        let _ = futex::wake(&word, futex::Flags::empty(), 1);
    })
}

/// From the call of an append to the return of `poll` in a consumer that was asleep.
fn wake_by_append() -> [u64; 3] {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = Log::options().durability(Durability::Written).open(dir.path()).expect("a folder that can be opened");
    let topic = log.create_topic("bench", TopicConfig::with_partitions(1)).expect("a new topic");
    let mut consumer = log.consumer("bench").topic("bench").open().expect("a consumer");
    let sleep = |_| while consumer.poll(Duration::from_secs(10)).expect("a batch").is_empty() {};
    wake_again_and_again(sleep, |_| {
        topic.append(Record::new("x")).expect("an append");
    })
}

/// Percentiles of the time from the call of `wake` to the return of `sleep` in another thread, which are given the turn.
fn wake_again_and_again(mut sleep: impl FnMut(u32) + Send, mut wake: impl FnMut(u32)) -> [u64; 3] {
    let (sent, woken, start) = (AtomicU64::new(0), AtomicU32::new(0), Instant::now());
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let mut took = Vec::with_capacity(WAKES as usize);
            for turn in 0..WAKES {
                sleep(turn);
                took.push(start.elapsed().as_nanos() as u64 - sent.load(Ordering::SeqCst));
                woken.store(turn + 1, Ordering::SeqCst);
            }
            took
        });
        for turn in 0..WAKES {
            while woken.load(Ordering::SeqCst) < turn {
                thread::yield_now();
            }
            thread::sleep(ASLEEP);
            sent.store(start.elapsed().as_nanos() as u64, Ordering::SeqCst);
            wake(turn);
        }
        percentiles(sleeper.join().expect("a sleeper that ends"))
    })
}

/// What an append takes beside a consumer that is there and doesn't sleep, and without one.
fn costs_of_a_consumer() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let options = Log::options().durability(Durability::Written).segment_bytes(1 << 30);
    let log = options.open(dir.path()).expect("a folder that can be opened");
    let topics = ["alone", "read"]
        .map(|name| Arc::new(log.create_topic(name, TopicConfig::with_partitions(1)).expect("a new topic")));
    let mut consumer = log.consumer("bench").topic("read").open().expect("a consumer");
    consumer.poll(Duration::ZERO).expect("a batch");
    let payload = payload(BYTES);
    let mut rounds = [Vec::new(), Vec::new()];
    for _ in 0..3 * ROUNDS {
        for (topic, rounds) in topics.iter().zip(&mut rounds) {
            let start = Instant::now();
            for _ in 0..APPENDS / 10 {
                topic.append(Record::new(&payload)).expect("an append");
            }
            rounds.push(start.elapsed().as_nanos() as u64);
        }
    }
    let [alone, read] = rounds.map(median);
    println!("append_beside_a_consumer_awake={:.2}", read as f64 / alone as f64);
}
