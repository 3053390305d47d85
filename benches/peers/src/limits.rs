//! What the machine allows for the same checksum work: the same bytes, behind a header of tidelog's size and with a
//! CRC-32 of the same length, but no index, no clock, no publication.
//!
//! | workload | limit |
//! |---|---|
//! | W1, W2 | encoded into a mapped file whose blocks were reserved; beside it: encoded into a buffer, one write(2) a call |
//! | W2s, W3 | stored into a map, then fdatasync, where the file was written before, so that its length and its blocks don't change; beside it: where the blocks are only reserved, and by pwrite(2) |
//! | W4 | eight times W3 of the same run: the table does that |
//! | W5 | a walk over the map that verifies each frame; the same number of bytes as tidelog's frames |
//! | W6 | a sparse index as tidelog has, then header by header, the frame there verified; beside it: a table of all places |
//! | W7 | open, map, read a page |
//!
//! # Trap
//! Where a file was read or written through the page cache in big pieces, it is there in large folios, and the store of
//! one record makes a whole folio dirty: an fdatasync then writes a megabyte. Dropping it from the cache is no cure: then
//! each page is read from the device before it is stored to. So what was written before was written page by page, and
//! `MADV_RANDOM` keeps what comes by page faults from coming in big pieces.

use std::{fs::File, os::unix::fs::FileExt, sync::Mutex};

use anyhow::{Context, Result, ensure};
use memmap2::{Advice, Mmap, MmapRaw};
use rustix::fs::{FallocateFlags, fallocate};

use crate::{
    common::{BATCH, MappedFile, frame_bytes, write_frame},
    measure::{Reading, Work},
    peers::{Cell, Guarantee, Subject, Verified, cells},
    workload::{Task, Workload},
};

/// Names of variants.
const WRITE: &str = "one write(2) a call";
const RESERVED: &str = "blocks only reserved";
const PWRITE: &str = "pwrite(2)";
const LONE: &str = "lone frames";
const TABLE: &str = "a table of all places";

const PAGE_BYTES: usize = 4096;

pub(crate) struct Limit {
    state: Mutex<State>,
    task: Task,
}

enum State {
    Mapped(MappedFile, Vec<usize>),
    Written(File, u64),
    Durable(DurableFile),
    Opened,
}

const MAPPED: Guarantee = Guarantee {
    checksum: Some("CRC-32 of a frame"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "stored into a mapped file whose blocks are reserved",
};
const SYNCED: Guarantee =
    Guarantee { durable: true, how: "stored into a mapped file that was written before, then fdatasync", ..MAPPED };

impl Subject for Limit {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W5, W5K, W6, W7};
        let written = Guarantee { how: "encoded into a buffer, one write(2)", ..MAPPED };
        let reserved = Guarantee { how: "the same, but the blocks are only reserved", ..SYNCED };
        let pwrite = Guarantee { how: "pwrite(2) to a file that was written before, then fdatasync", ..SYNCED };
        let scan = Guarantee { how: "a walk over the map, frames of 100", ..MAPPED };
        let lone = Guarantee { how: "a walk over the map, frames of one", ..MAPPED };
        let index = Guarantee { how: "an index entry for each 4 KiB, then header by header; frames of one", ..MAPPED };
        let table = Guarantee { how: "the place of each frame in memory; frames of one", ..MAPPED };
        let opened = Guarantee { checksum: None, verified: Verified::Never, how: "open, map, read a page", ..MAPPED };
        let variants = [
            Cell::new(W5, lone).variant(LONE).lone(),
            Cell::new(W6, index).lone(),
            Cell::new(W6, table).variant(TABLE).lone(),
            Cell::new(W7, opened),
        ];
        cells([W1, W1K, W2, W2K], MAPPED)
            .chain(cells([W1, W1K, W2, W2K], written).map(|cell| cell.variant(WRITE)))
            .chain(cells([W2S, W3], SYNCED))
            .chain(cells([W2S, W3], reserved).map(|cell| cell.variant(RESERVED)))
            .chain(cells([W2S, W3], pwrite).map(|cell| cell.variant(PWRITE)))
            .chain(cells([W5, W5K], scan))
            .chain(variants)
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let (room, bytes) = (task.room() as usize, task.workload.payload_bytes());
        let state = match task.workload {
            Workload::W7 if !task.fills => open_bare(task)?,
            workload if workload.reads() && !task.fills => {
                let mut file = MappedFile::open(&task.dir);
                let mut places = Vec::new();
                if task.workload == Workload::W6 {
                    file.note_all();
                }
                if task.variant == TABLE {
                    let next = |at: &usize| Some(file.behind(*at)).filter(|at| *at < file.end());
                    places = std::iter::successors(Some(0), next).collect();
                }
                State::Mapped(file, places)
            }
            _ if task.is_durable() => State::Durable(DurableFile::new(task)?),
            _ if task.variant == WRITE => State::Written(File::create_new(task.dir.join("limit"))?, 0),
            _ => State::Mapped(MappedFile::new(&task.dir, room, bytes), Vec::new()),
        };
        Ok(Self { state: Mutex::new(state), task: task.clone() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        let bytes = work.payload_len();
        match &mut *self.state.lock().expect("no panic") {
            State::Mapped(file, _) => {
                while let Some(record) = work.record() {
                    file.append(record);
                }
            }
            State::Written(file, end) => {
                let mut buffer = Buffer::new(1, bytes);
                while let Some(record) = work.record() {
                    let frame = buffer.frame(&[record]);
                    file.write_all_at(frame, *end)?;
                    *end += frame.len() as u64;
                }
            }
            State::Durable(file) => {
                while let Some(record) = work.record() {
                    file.append(&[record])?;
                }
            }
            State::Opened => {}
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let bytes = work.payload_len();
        match &mut *self.state.lock().expect("no panic") {
            State::Mapped(file, _) => {
                while let Some(batch) = work.batch() {
                    file.append_all(batch.len(), bytes, batch.iter().copied());
                }
            }
            State::Written(file, end) => {
                let mut buffer = Buffer::new(BATCH, bytes);
                while let Some(batch) = work.batch() {
                    let frame = buffer.frame(batch);
                    file.write_all_at(frame, *end)?;
                    *end += frame.len() as u64;
                }
            }
            State::Durable(file) => {
                while let Some(batch) = work.batch() {
                    file.append(batch)?;
                }
            }
            State::Opened => {}
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        if let State::Mapped(file, _) = &*self.state.lock().expect("no panic") {
            file.each_record(|record| reading.see(record));
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        if let State::Mapped(file, places) = &*self.state.lock().expect("no panic") {
            if self.task.variant == TABLE {
                while let Some(number) = reading.draw() {
                    reading.found(file.record_at(*places.get(number as usize).context("a place")?));
                }
            } else {
                while let Some(number) = reading.draw() {
                    reading.found(file.record(number as u32));
                }
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        let state = self.state.into_inner().expect("no panic");
        if let State::Mapped(file, _) = state
            && (!self.task.workload.reads() || self.task.fills)
        {
            file.trim();
        }
        Ok(())
    }
}

/// The least that opening can be.
fn open_bare(task: &Task) -> Result<State> {
    let file = File::options().read(true).write(true).open(task.dir.join("limit"))?;
    // SAFETY: nobody else has the file.
    let map = unsafe { Mmap::map(&file)? };
    std::hint::black_box(map[..PAGE_BYTES].iter().fold(0_u8, |sum, byte| sum ^ byte));
    Ok(State::Opened)
}

/// Frames that go to a file by write(2).
struct Buffer {
    bytes: Vec<u8>,
    records: usize,
    payload: usize,
}

impl Buffer {
    fn new(records: usize, payload: usize) -> Self {
        Self { bytes: vec![0; frame_bytes(records, payload)], records, payload }
    }

    fn frame(&mut self, records: &[&[u8]]) -> &[u8] {
        assert!(records.len() <= self.records && records.iter().all(|record| record.len() <= self.payload));
        // SAFETY: the buffer is as long as a frame of so many records.
        let bytes = unsafe { write_frame(self.bytes.as_mut_ptr(), records.iter().copied()) };
        &self.bytes[..bytes]
    }
}

/// Frames that are on the device when `append` returns.
struct DurableFile {
    file: File,
    /// Unless it goes by pwrite(2).
    map: Option<MmapRaw>,
    buffer: Buffer,
    end: usize,
    len: usize,
}

impl DurableFile {
    fn new(task: &Task) -> Result<Self> {
        let (records, bytes) = if task.workload.is_batched() { (BATCH, BATCH) } else { (1, 1) };
        let buffer = Buffer::new(records, task.workload.payload_bytes());
        let frames = task.room() as usize / bytes;
        let len = (frames * frame_bytes(records, task.workload.payload_bytes())).next_multiple_of(PAGE_BYTES);
        let file = File::options().read(true).write(true).create_new(true).open(task.dir.join("limit"))?;
        if task.variant == RESERVED {
            fallocate(&file, FallocateFlags::empty(), 0, len as u64)?;
        } else {
            for page in 0..len / PAGE_BYTES {
                file.write_all_at(&[0; PAGE_BYTES], (page * PAGE_BYTES) as u64)?;
            }
        }
        file.sync_all()?;
        let map = if task.variant == PWRITE { None } else { Some(MmapRaw::map_raw(&file)?) };
        if let Some(map) = &map {
            map.advise(Advice::Random)?;
        }
        Ok(Self { file, map, buffer, end: 0, len })
    }

    fn append(&mut self, records: &[&[u8]]) -> Result<()> {
        let room = frame_bytes(records.len(), self.buffer.payload);
        ensure!(self.end + room <= self.len, "the file is full");
        if let Some(map) = &self.map {
            // SAFETY: in bounds as just checked; nobody else uses the map.
            self.end += unsafe { write_frame(map.as_mut_ptr().add(self.end), records.iter().copied()) };
        } else {
            let frame = self.buffer.frame(records);
            self.file.write_all_at(frame, self.end as u64)?;
            self.end += frame.len();
        }
        Ok(self.file.sync_data()?)
    }
}
