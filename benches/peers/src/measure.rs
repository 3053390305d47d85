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
//! - Beyond some GiB of dirty pages the kernel slows down every store: a large log is filled in pieces, and each goes to
//!   the device before the next one comes.
//! - The first look at a page of a map costs a fault, and a short warm-up gets round a small log only: where growth is measured,
//!   all of the log is read once before the clock runs.

mod work;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use memmap2::MmapMut;
use rustix::fs::{FallocateFlags, fallocate, syncfs};
use serde::{Deserialize, Serialize};

use work::Pool;
pub(crate) use work::{Reading, Work};

use crate::{
    peers::Subject,
    workload::{Layout, Task, Workload},
};

/// Reading is repeated for so long.
const READ_TIME: Duration = Duration::from_millis(300);
/// Warming up takes no longer, nor more of the cap than this part.
const WARM_UP: Duration = Duration::from_millis(300);
/// Filling a log, or a piece of a large one, takes no longer.
const FILL_TIME: Duration = Duration::from_secs(600);
/// Records of a piece of a large log.
const PIECE_RECORDS: u64 = 1_000_000;
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
    fill_up(&task, &pool, |work| if task.batch == 1 { subject.append(work, 0) } else { subject.append_batches(work) })?;
    subject.close()?;
    if task.grows { sync(&task.dir) } else { Ok(()) }
}

/// Appends all records that the log is to have. Where growth is measured nothing is left to write when it returns.
fn fill_up(task: &Task, pool: &Pool, append: impl Fn(&mut Work<'_>) -> Result<()>) -> Result<()> {
    let piece = if task.grows { PIECE_RECORDS } else { task.records };
    let mut work = Work::new(pool, 0, FILL_TIME, task);
    while work.done < task.records {
        work.go_on(piece.min(task.records - work.done), FILL_TIME);
        append(&mut work)?;
        ensure!(work.is_done(), "{} of {} records were appended in time", work.done, task.records);
        if task.grows {
            sync(&task.dir)?;
        }
    }
    Ok(())
}

fn append<S: Subject>(task: &Task, pool: &Pool, threads: usize) -> Result<Outcome> {
    fs::create_dir_all(&task.dir)?;
    let subject = S::open(task)?;
    let run = |work: &mut Work<'_>, thread| {
        if task.workload.is_batched() { subject.append_batches(work) } else { subject.append(work, thread) }
    };
    if task.grows {
        fill_up(task, pool, |work| run(work, 0))?;
    }
    wake_up(task)?;
    let mut work = Work::new(pool, task.warm_up_records(), WARM_UP.min(task.cap / 4), task);
    run(&mut work, 0)?;
    let warm_up = work.done;
    let outcome = if threads == 1 {
        let mut work = Work::new(pool, task.appends(), task.cap, task);
        let start = Instant::now();
        run(&mut work, 0)?;
        Outcome { records: work.done, seconds: start.elapsed().as_secs_f64(), capped: work.capped, size: None }
    } else {
        append_together(task, pool, threads, &run)?
    };
    ensure!(outcome.records > 0, "nothing was appended in time");
    subject.close()?;
    let payload_bytes = (task.records_before() + warm_up + outcome.records) * task.workload.payload_bytes() as u64;
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
        let mut work = Work::new(pool, task.appends() / threads as u64, task.cap, task);
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
    let pass = |looks_up, wanted, cap, expected| -> Result<_> {
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
    if task.grows {
        let reading = pass(false, task.records, FILL_TIME, Some(pool))?;
        ensure!(!reading.capped, "the first pass didn't end in time");
    }
    if !S::CONSUMES {
        let wanted = if looks_up { LOOKUPS / 30 } else { task.records };
        pass(looks_up, wanted, WARM_UP, Some(pool))?;
    }
    let (mut records, start) = (0, Instant::now());
    let capped = loop {
        let wanted = if looks_up { LOOKUPS } else { task.records };
        let reading = pass(looks_up, wanted, task.cap.saturating_sub(start.elapsed()), None)?;
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
    let bytes = (task.room() - task.records_before()) * (task.workload.payload_bytes() as u64 + 64);
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

/// Has all that is dirty in the file system written to the device.
fn sync(dir: &Path) -> Result<()> {
    Ok(syncfs(File::open(dir)?)?)
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
