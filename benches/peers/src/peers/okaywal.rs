//! okaywal 0.3: entries of chunks; committing an entry syncs, so there is nothing without a sync.
//!
//! - Segments are filled with zeros ahead, here one segment for all: what is checkpointed is gone.
//! - It can be read in order only when it is opened: W5 is a recovery that reads and verifies every chunk.
//! - A recovery has to read every chunk to its end: skipping one goes 4 bytes too far in this version, and all that follows
//!   is lost. So W7, too, reads and verifies everything.
//! - A chunk is found again by the place that the user has kept; each lookup opens the file anew.

use std::{
    io::{self, Read},
    path::Path,
    sync::{Arc, Mutex},
};

use ::okaywal::{
    Configuration, Entry, EntryId, LogManager, LogPosition, ReadChunkResult, SegmentReader, WriteAheadLog,
};
use anyhow::{Context, Result, ensure};

use super::{Cell, Guarantee, Subject, Verified, cells, lacking};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

/// Around each chunk, and a share of its entry.
const CHUNK_BYTES: u64 = 9 + 10;

pub(super) struct Okaywal {
    /// Not while it is read in order.
    log: Option<WriteAheadLog>,
    places: Vec<LogPosition>,
    task: Task,
}

const SYNCED: Guarantee = Guarantee {
    checksum: Some("CRC-32C of each chunk"),
    verified: Verified::Always,
    durable: true,
    survives_kill: true,
    how: "an entry of one chunk; an fdatasync, shared by all who wait; space filled ahead",
};

impl Subject for Okaywal {
    const FILL_BATCH: usize = 1000;

    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let batch = Guarantee { how: "an entry of 100 chunks", ..SYNCED };
        let read = Guarantee { how: "only as a recovery: WriteAheadLog::open, each chunk copied", ..SYNCED };
        let one = Guarantee { how: "read_at a place that the user has kept: opens the file each time", ..SYNCED };
        let open = Guarantee { how: "reads and verifies every chunk", ..SYNCED };
        lacking([W1, W1K, W2, W2K], "a commit always syncs")
            .chain([Cell::new(W2S, batch)])
            .chain(cells([W3, W4], SYNCED))
            .chain(cells([W5, W5K], read))
            .chain([Cell::new(W6, one), Cell::new(W7, open)])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let places = Arc::new(Mutex::new(Vec::new()));
        let finds = Finds { places: (task.workload == Workload::W6).then(|| places.clone()) };
        let reads_in_order = matches!(task.workload, Workload::W5 | Workload::W5K) && !task.fills;
        let log = if reads_in_order { None } else { Some(configuration(task)?.open(finds)?) };
        let places = std::mem::take(&mut *places.lock().expect("no panic"));
        Ok(Self { log, places, task: task.clone() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        let log = self.log.as_ref().context("a log")?;
        while let Some(record) = work.record() {
            let mut entry = log.begin_entry()?;
            entry.write_chunk(record)?;
            entry.commit()?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let log = self.log.as_ref().context("a log")?;
        while let Some(batch) = work.batch() {
            let mut entry = log.begin_entry()?;
            for record in batch {
                entry.write_chunk(record)?;
            }
            entry.commit()?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        // What it hands its chunks to has to outlive this call: so it is one of its own, whose chunks come by a channel
        // that holds as few as possible.
        let (sender, receiver) = std::sync::mpsc::sync_channel(4);
        let configuration = configuration(&self.task)?;
        let opening = std::thread::spawn(move || -> io::Result<()> {
            configuration.open(Hands { sender: Mutex::new(sender) })?.shutdown()
        });
        for chunks in &receiver {
            let chunks: Vec<Vec<u8>> = chunks;
            if !chunks.iter().all(|chunk| reading.see(chunk)) {
                break;
            }
        }
        drop(receiver);
        let opened = opening.join().expect("no panic");
        ensure!(opened.is_ok() || !reading.is_done(), "recovery failed: {opened:?}");
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        let log = self.log.as_ref().context("a log")?;
        let mut record = Vec::new();
        while let Some(number) = reading.draw() {
            let mut chunk = log.read_at(*self.places.get(number as usize).context("a place")?)?;
            record.clear();
            chunk.read_to_end(&mut record)?;
            ensure!(chunk.crc_is_valid()?, "a damaged chunk");
            reading.found(&record);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.log.map_or(Ok(()), |log| Ok(log.shutdown()?))
    }
}

fn configuration(task: &Task) -> Result<Configuration> {
    let bytes = task.room() * (task.workload.payload_bytes() as u64 + CHUNK_BYTES) + (64 << 10);
    let dir: &Path = &task.dir;
    let bytes = u32::try_from(bytes).context("a segment of at most 4 GiB")?;
    Ok(Configuration::default_for(dir).preallocate_bytes(bytes).checkpoint_after_bytes(u64::MAX))
}

/// Reads and verifies all chunks; notes where they are, if anybody wants to know.
#[derive(Debug)]
struct Finds {
    places: Option<Arc<Mutex<Vec<LogPosition>>>>,
}

impl LogManager for Finds {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut data = Vec::new();
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            if let Some(places) = &self.places {
                places.lock().expect("no panic").push(chunk.log_position());
            }
            data.clear();
            chunk.read_to_end(&mut data)?;
            if !chunk.check_crc()? {
                return Err(io::Error::other("a damaged chunk"));
            }
        }
        Ok(())
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}

/// Hands on what it reads.
#[derive(Debug)]
struct Hands {
    sender: Mutex<std::sync::mpsc::SyncSender<Vec<Vec<u8>>>>,
}

impl LogManager for Hands {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let chunks = entry.read_all_chunks()?.unwrap_or_default();
        self.sender.lock().expect("no panic").send(chunks).map_err(io::Error::other)
    }

    fn checkpoint_to(&mut self, _: EntryId, _: &mut SegmentReader, _: &WriteAheadLog) -> io::Result<()> {
        Ok(())
    }
}
