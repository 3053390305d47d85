//! One measurement, in a process of its own.
//!
//! # Traps
//! - An idle virtual machine gives free pages back to its host, and files that are made then are up to ten times slower.
//!   So a file of the same size is made and deleted first: by page faults and by writes, as a map whose pages come one by
//!   one gets other pages than big writes do. (By writes alone a map's appends took 55 ns or 240, by luck.)
//! - A sync also waits for what others have left to write: so where syncs are measured, the file system is synced first.
//! - Looking at the clock costs as much as an append: it is looked at once in 256 records, but each time where a sync is
//!   many times slower.
//! - A slow peer would take minutes: a measurement ends after the cap, and its rate is that of what was done till then.

use std::{
    fs::{self, File},
    hint::black_box,
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use rand::{RngCore, SeedableRng, rngs::SmallRng};
use rustix::fs::{FallocateFlags, fallocate, syncfs};
use serde::{Deserialize, Serialize};

use crate::{
    peers::Subject,
    workload::{Layout, Task, Workload},
};

/// Bytes that payloads are taken from: more than a compressor looks back, less than the second-level cache.
const POOL_BYTES: usize = 256 << 10;
/// Reading is repeated for so long.
const READ_TIME: Duration = Duration::from_millis(300);
/// Warming up takes no longer, nor more of the cap than this part.
const WARM_UP: Duration = Duration::from_millis(300);
/// Lookups between two looks at the clock, and appends.
const STRIDE: u64 = 256;
/// Lookups of W6.
const LOOKUPS: u64 = 300_000;
const PAGE_BYTES: u64 = 4096;
/// The most that is written to wake up the file system.
const WAKE_UP_BYTES: u64 = 512 << 20;

/// What was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Appended, read or, opening, found.
    pub(crate) records: u64,
    pub(crate) seconds: f64,
    /// Whether it was ended by the cap.
    pub(crate) capped: bool,
    /// In the folder after a clean close, and of payload in it: of appends.
    pub(crate) size: Option<Size>,
}

impl Outcome {
    /// Records a second, or seconds where opening is measured.
    pub(crate) fn value(&self, workload: Workload) -> f64 {
        if workload == Workload::W7 { self.seconds } else { self.records as f64 / self.seconds }
    }
}

/// What payloads take on the disk.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) disk_bytes: u64,
    pub(crate) payload_bytes: u64,
}

/// Random bytes, of which each record has others than those around it.
pub(crate) struct Pool {
    bytes: Vec<u8>,
    payload: usize,
}

impl Pool {
    pub(crate) fn new(payload: usize) -> Self {
        let mut bytes = vec![0; POOL_BYTES];
        SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
        Self { bytes, payload }
    }

    /// The payload of the record with this number.
    #[inline]
    fn payload(&self, number: u64) -> &[u8] {
        let slots = (POOL_BYTES / self.payload) as u64;
        let start = (number % slots) as usize * self.payload;
        &self.bytes[start..start + self.payload]
    }
}

/// Records to append.
pub(crate) struct Work<'p> {
    pool: &'p Pool,
    batch: Vec<&'p [u8]>,
    batch_records: usize,
    /// In the pool.
    at: usize,
    done: u64,
    wanted: u64,
    stride: u64,
    deadline: Instant,
    capped: bool,
}

impl<'p> Work<'p> {
    fn new(pool: &'p Pool, wanted: u64, cap: Duration, task: &Task) -> Self {
        let stride = if task.is_durable() && !task.fills { 1 } else { STRIDE };
        let batch_records = task.batch;
        let batch = Vec::with_capacity(batch_records);
        let deadline = Instant::now() + cap;
        Self { pool, batch, batch_records, at: 0, done: 0, wanted, stride, deadline, capped: false }
    }

    /// The next record, or `None` when enough was appended.
    #[inline]
    pub(crate) fn record(&mut self) -> Option<&'p [u8]> {
        if self.is_over(1) {
            return None;
        }
        self.done += 1;
        Some(self.payload())
    }

    /// The next batch, or `None` when enough was appended.
    #[inline]
    pub(crate) fn batch(&mut self) -> Option<&[&'p [u8]]> {
        if self.is_over(self.batch_records as u64) {
            return None;
        }
        self.batch.clear();
        for _ in 0..self.batch_records {
            let payload = self.payload();
            self.batch.push(payload);
        }
        self.done += self.batch_records as u64;
        Some(&self.batch)
    }

    pub(crate) fn payload_len(&self) -> usize {
        self.pool.payload
    }

    #[inline]
    fn is_over(&mut self, records: u64) -> bool {
        if self.done + records > self.wanted {
            return true;
        }
        let looks = self.stride == 1 || self.done % self.stride < records;
        self.capped = looks && Instant::now() > self.deadline;
        self.capped
    }

    /// The same as `Pool::payload` of records in order, without a division.
    #[inline]
    fn payload(&mut self) -> &'p [u8] {
        let bytes = self.pool.payload;
        if self.at + bytes > POOL_BYTES {
            self.at = 0;
        }
        let payload = &self.pool.bytes[self.at..self.at + bytes];
        self.at += bytes;
        payload
    }
}

/// Records that are read.
pub(crate) struct Reading<'p> {
    /// Of the log.
    records: u64,
    seen: u64,
    wanted: u64,
    random: SmallRng,
    drawn: u64,
    /// What the records are to be: only while warming up.
    expected: Option<&'p Pool>,
    deadline: Instant,
    capped: bool,
}

impl<'p> Reading<'p> {
    fn new(records: u64, wanted: u64, cap: Duration, expected: Option<&'p Pool>) -> Self {
        let random = SmallRng::seed_from_u64(if expected.is_some() { 2 } else { 3 });
        let deadline = Instant::now() + cap;
        Self { records, seen: 0, wanted, random, drawn: 0, expected, deadline, capped: false }
    }

    /// Whether all of this pass was seen.
    pub(crate) fn is_done(&self) -> bool {
        self.seen >= self.wanted
    }

    /// The number of the next record to look up, or `None` when it was enough.
    #[inline]
    pub(crate) fn draw(&mut self) -> Option<u64> {
        if self.seen == self.wanted || self.is_late() {
            return None;
        }
        self.drawn = ((u128::from(self.random.next_u64()) * u128::from(self.records)) >> 64) as u64;
        Some(self.drawn)
    }

    /// Takes note of a record that was drawn.
    #[inline]
    pub(crate) fn found(&mut self, record: &[u8]) {
        self.check(self.drawn, record);
        black_box(record);
        self.seen += 1;
    }

    /// Takes note of the next record in order; whether to go on.
    #[inline]
    pub(crate) fn see(&mut self, record: &[u8]) -> bool {
        self.check(self.seen, record);
        black_box(record);
        self.seen += 1;
        !self.is_late()
    }

    #[inline]
    fn check(&self, number: u64, record: &[u8]) {
        if let Some(pool) = self.expected {
            assert_eq!(record, pool.payload(number), "record {number} isn't what was appended");
        }
    }

    #[inline]
    fn is_late(&mut self) -> bool {
        self.capped = self.seen.is_multiple_of(STRIDE) && Instant::now() > self.deadline;
        self.capped
    }

    /// For what reads slowly: looks at the clock now.
    pub(crate) fn see_slowly(&mut self, record: &[u8]) -> bool {
        let goes_on = self.see(record);
        self.capped |= Instant::now() > self.deadline;
        goes_on && !self.capped
    }
}

/// Measures a task.
pub(crate) fn measure<S: Subject>(task: &Task, threads: usize) -> Result<Outcome> {
    let pool = Pool::new(task.workload.payload_bytes());
    match task.workload {
        Workload::W7 => open::<S>(task),
        workload if workload.reads() => read::<S>(task, &pool),
        _ => append::<S>(task, &pool, threads),
    }
}

/// Fills a log and closes it cleanly.
pub(crate) fn fill<S: Subject>(task: &Task) -> Result<()> {
    let pool = Pool::new(task.workload.payload_bytes());
    fs::create_dir_all(&task.dir)?;
    let lone = task.layout == Layout::Lone;
    let task = Task { batch: if lone { 1 } else { S::FILL_BATCH }, ..task.clone() };
    ensure!(task.records.is_multiple_of(task.batch as u64), "whole batches of {} records", task.batch);
    let subject = S::open(&task)?;
    let mut work = Work::new(&pool, task.records, Duration::from_secs(600), &task);
    if task.batch == 1 {
        subject.append(&mut work, 0)?
    } else {
        subject.append_batches(&mut work)?
    }
    ensure!(work.done == task.records, "{} of {} records were appended in time", work.done, task.records);
    subject.close()
}

fn append<S: Subject>(task: &Task, pool: &Pool, threads: usize) -> Result<Outcome> {
    wake_up(task)?;
    fs::create_dir_all(&task.dir)?;
    let subject = S::open(task)?;
    let run = |work: &mut Work<'_>, thread| {
        if task.workload.is_batched() { subject.append_batches(work) } else { subject.append(work, thread) }
    };
    let mut work = Work::new(pool, task.warm_up_records(), WARM_UP.min(task.cap / 4), task);
    run(&mut work, 0)?;
    let warm_up = work.done;
    let outcome = if threads == 1 {
        let mut work = Work::new(pool, task.records, task.cap, task);
        let start = Instant::now();
        run(&mut work, 0)?;
        Outcome { records: work.done, seconds: start.elapsed().as_secs_f64(), capped: work.capped, size: None }
    } else {
        append_together(task, pool, threads, &run)?
    };
    ensure!(outcome.records > 0, "nothing was appended in time");
    subject.close()?;
    let payload_bytes = (warm_up + outcome.records) * task.workload.payload_bytes() as u64;
    Ok(Outcome { size: Some(Size { disk_bytes: disk_bytes(&task.dir)?, payload_bytes }), ..outcome })
}

fn append_together(
    task: &Task,
    pool: &Pool,
    threads: usize,
    run: &(impl Fn(&mut Work<'_>, usize) -> Result<()> + Sync),
) -> Result<Outcome> {
    let barrier = Barrier::new(threads);
    let each = |thread| {
        barrier.wait();
        let mut work = Work::new(pool, task.records / threads as u64, task.cap, task);
        let start = Instant::now();
        run(&mut work, thread).map(|()| (work.done, work.capped, start, Instant::now()))
    };
    let done = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|thread| scope.spawn(move || each(thread))).collect();
        let done = handles.into_iter().map(|handle| handle.join().expect("a thread that doesn't panic"));
        done.collect::<Result<Vec<_>>>()
    })?;
    let start = done.iter().map(|done| done.2).min().context("a thread")?;
    let end = done.iter().map(|done| done.3).max().context("a thread")?;
    Ok(Outcome {
        records: done.iter().map(|done| done.0).sum(),
        seconds: (end - start).as_secs_f64(),
        capped: done.iter().any(|done| done.1),
        size: None,
    })
}

fn read<S: Subject>(task: &Task, pool: &Pool) -> Result<Outcome> {
    let subject = S::open(task)?;
    let looks_up = task.workload == Workload::W6;
    let pass = |wanted, cap, expected| -> Result<_> {
        let mut reading = Reading::new(task.records, wanted, cap, expected);
        if looks_up {
            subject.look_up(&mut reading)?
        } else {
            subject.scan(&mut reading)?
        }
        ensure!(reading.seen > 0, "nothing was read in time");
        ensure!(
            reading.seen == wanted || reading.capped,
            "{} of {wanted} records were read, and it wasn't for the cap",
            reading.seen
        );
        Ok(reading)
    };
    if !S::CONSUMES {
        let wanted = if looks_up { LOOKUPS / 30 } else { task.records };
        pass(wanted, WARM_UP, Some(pool))?;
    }
    let (mut records, start) = (0, Instant::now());
    let capped = loop {
        let wanted = if looks_up { LOOKUPS } else { task.records };
        let reading = pass(wanted, task.cap.saturating_sub(start.elapsed()), None)?;
        records += reading.seen;
        if reading.capped || S::CONSUMES || start.elapsed() > READ_TIME.min(task.cap) {
            break reading.capped;
        }
    };
    let outcome = Outcome { records, seconds: start.elapsed().as_secs_f64(), capped, size: None };
    subject.close()?;
    Ok(outcome)
}

fn open<S: Subject>(task: &Task) -> Result<Outcome> {
    let start = Instant::now();
    let subject = S::open(task)?;
    let outcome = Outcome { records: task.records, seconds: start.elapsed().as_secs_f64(), capped: false, size: None };
    subject.close()?;
    Ok(outcome)
}

/// Makes a file of the size to come, by page faults and by writes, and deletes it: those get their pages from different
/// places.
fn wake_up(task: &Task) -> Result<()> {
    let path = task.beside("wake-up");
    let bytes = task.room() * (task.workload.payload_bytes() as u64 + 64);
    let bytes = bytes.clamp(PAGE_BYTES, WAKE_UP_BYTES);
    let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
    fallocate(&file, FallocateFlags::empty(), 0, bytes)?;
    // SAFETY: nobody else has the file.
    let mut map = unsafe { MmapMut::map_mut(&file)? };
    map.iter_mut().step_by(PAGE_BYTES as usize).for_each(|byte| *byte = 1);
    drop(map);
    file.set_len(0)?;
    let block = vec![1; 1 << 20];
    for _ in 0..bytes.div_ceil(block.len() as u64) {
        file.write_all(&block)?;
    }
    fs::remove_file(path)?;
    if task.is_durable() {
        syncfs(&file)?;
    }
    Ok(())
}

/// Blocks of all files below a folder.
fn disk_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { disk_bytes(&entry.path())? } else { metadata.blocks() * 512 };
    }
    Ok(bytes)
}
