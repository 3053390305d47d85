//! wal-db 1.1: one file, a pwrite(2) an append; a record's number is its place in the file. There are no batches: in W2s a
//! hundred appends share one sync, and aren't atomic.

use ::wal_db::{Lsn, Wal};
use anyhow::{Context, Result};

use super::{Cell, Guarantee, Subject, Verified, cells, lacking};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

/// Before each record.
const HEADER_BYTES: u64 = 8;

pub(super) struct WalDb {
    wal: Wal,
    task: Task,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("CRC-32C of each record"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "one pwrite(2) a call",
};
const SYNCED: Guarantee =
    Guarantee { durable: true, how: "append_and_sync: an fdatasync, shared by all who wait", ..WRITTEN };

impl Subject for WalDb {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let batch = Guarantee { how: "100 appends, then one sync; not atomic", ..SYNCED };
        let read = Guarantee { how: "Wal::iter: two pread(2) a record, copied", ..WRITTEN };
        let one = Guarantee { how: "Wal::iter_from a place that the user has kept", ..WRITTEN };
        cells([W1, W1K], WRITTEN)
            .chain(lacking([W2, W2K], "no batches: W1 holds"))
            .chain([Cell::new(W2S, batch)])
            .chain(cells([W3, W4], SYNCED))
            .chain(cells([W5, W5K], read))
            .chain([Cell::new(W6, one), Cell::new(W7, Guarantee { how: "reads and verifies everything", ..WRITTEN })])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        std::fs::create_dir_all(&task.dir)?;
        Ok(Self { wal: Wal::open(task.dir.join("wal"))?, task: task.clone() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        while let Some(record) = work.record() {
            let _place = match self.task.is_durable() {
                true => self.wal.append_and_sync(record)?,
                false => self.wal.append(record)?,
            };
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        while let Some(batch) = work.batch() {
            for record in batch {
                let _place = self.wal.append(record)?;
            }
            if self.task.is_durable() {
                self.wal.sync()?;
            }
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        for record in self.wal.iter()? {
            if !reading.see(record?.data()) {
                break;
            }
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        let frame_bytes = HEADER_BYTES + self.task.workload.payload_bytes() as u64;
        while let Some(number) = reading.draw() {
            let record = self.wal.iter_from(Lsn::new(number * frame_bytes))?.next().context("a record")??;
            reading.found(record.data());
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.wal.sync()?)
    }
}
