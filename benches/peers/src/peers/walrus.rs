//! walrus-rust 0.2: a topic of a queue. Files of 1 GB are made sparse, and handed out in blocks of 10 MB.
//!
//! - Its folder is a variable of the environment (`WALRUS_DATA_DIR`), which the process that starts this one has set,
//!   as it did `WALRUS_QUIET`, without which it prints.
//! - It stores into a map: the other way, by pwrite(2) and `io_uring`, which is its default, was slower in W1, W2s and W3
//!   (with `SyncEach` it syncs twice, by `O_SYNC` and by fsync).
//! - When a block is full the whole file is synced, whatever the schedule says.
//! - A batch is always synced, whatever the schedule says: so there is no W2.
//! - Reads move a cursor, that of the one consumer which a topic has.
//! - What a process leaves behind in the block it was writing is found again by a scan that verifies every record.

use ::walrus_rust::{FsyncSchedule, ReadConsistency, Walrus as Log, disable_fd_backend};
use anyhow::Result;

use super::{Cell, Guarantee, Subject, Verified, cells, lacking};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

const TOPIC: &str = "log";
const READ_BYTES: usize = 256 << 10;

pub(super) struct Walrus {
    log: Log,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("FNV-1a of each record"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "stored into a map; schedule NoFsync; the file is synced whenever 10 MB are full",
};
const SYNCED: Guarantee = Guarantee { durable: true, ..WRITTEN };

impl Subject for Walrus {
    /// One by one, as its batches sync.
    const FILL_BATCH: usize = 1;
    const CONSUMES: bool = true;

    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let each = Guarantee { how: "schedule SyncEach: stored into a map, then msync", ..SYNCED };
        let batch = Guarantee { how: "stored into a map, one msync a batch", ..SYNCED };
        let read = Guarantee { how: "batch_read_for_topic, each record copied; the cursor isn't kept", ..WRITTEN };
        cells([W1, W1K], WRITTEN)
            .chain(lacking([W2, W2K], "a batch is always synced: see W2s"))
            .chain([Cell::new(W2S, batch)])
            .chain(cells([W3, W4], each))
            .chain(cells([W5, W5K], read))
            .chain([Cell::lacking(W6, "no reading by offset")])
            .chain([Cell::new(W7, Guarantee { how: "reads and verifies every record; makes a new file", ..WRITTEN })])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        disable_fd_backend();
        let each = task.is_durable() && !task.workload.is_batched();
        let schedule = if each { FsyncSchedule::SyncEach } else { FsyncSchedule::NoFsync };
        let consistency = ReadConsistency::AtLeastOnce { persist_every: u32::MAX };
        Ok(Self { log: Log::with_consistency_and_schedule(consistency, schedule)? })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        while let Some(record) = work.record() {
            self.log.append_for_topic(TOPIC, record)?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        while let Some(batch) = work.batch() {
            self.log.batch_append_for_topic(TOPIC, batch)?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        while !reading.is_done() {
            let entries = self.log.batch_read_for_topic(TOPIC, READ_BYTES, true)?;
            for entry in &entries {
                if !reading.see(&entry.data) {
                    return Ok(());
                }
            }
            if entries.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
