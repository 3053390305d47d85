//! commitlog 0.2: a write(2) a call, and an entry of a mapped index for each record.
//!
//! Nothing is durable: its `flush` is `File::flush`, which does nothing, and an msync of whole pages of the index. A read
//! finds the range of bytes by the index, reads it at once and verifies the CRC-32C of each message in it.

use std::sync::Mutex;

use ::commitlog::{
    CommitLog, LogOptions, ReadLimit,
    message::{MessageBuf, MessageSet},
};
use anyhow::{Context, Result};

use super::{Cell, Guarantee, Subject, Verified, cells, lacking};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

/// What is read at once.
const READ_BYTES: usize = 256 << 10;
/// Before the payload of each message.
const HEADER_BYTES: usize = 20;

pub(super) struct Commitlog {
    log: Mutex<CommitLog>,
    payload: usize,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("CRC-32C of each record"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "one write(2) a call; an index entry a record in a map",
};

impl Subject for Commitlog {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let read = Guarantee { how: "one read(2) of 256 KiB, all of it verified, then borrowed", ..WRITTEN };
        let one = Guarantee { how: "one index entry, one read(2) of the message", ..WRITTEN };
        let open = Guarantee { how: "finds the end of the index by bisection", ..WRITTEN };
        cells([W1, W1K, W2, W2K], WRITTEN)
            .chain(lacking([W2S, W3, W4], "its flush doesn't sync the segment"))
            .chain(cells([W5, W5K], read))
            .chain([Cell::new(W6, one), Cell::new(W7, open)])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let mut options = LogOptions::new(&task.dir);
        // So that neither rolls nor the index's growth are measured.
        options.segment_max_bytes(3 << 30).index_max_items(task.room() as usize);
        Ok(Self { log: Mutex::new(CommitLog::new(options)?), payload: task.workload.payload_bytes() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        let mut log = self.log.lock().expect("no panic");
        let mut buffer = MessageBuf::default();
        while let Some(record) = work.record() {
            buffer.clear();
            buffer.push(record).ok().context("a message that fits")?;
            log.append(&mut buffer)?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let mut log = self.log.lock().expect("no panic");
        let mut buffer = MessageBuf::default();
        while let Some(batch) = work.batch() {
            buffer.clear();
            for record in batch {
                buffer.push(record).ok().context("a message that fits")?;
            }
            log.append(&mut buffer)?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        let log = self.log.lock().expect("no panic");
        let mut offset = 0;
        while offset < log.next_offset() {
            let messages = log.read(offset, ReadLimit::max_bytes(READ_BYTES))?;
            for message in messages.iter() {
                if !reading.see(message.payload()) {
                    return Ok(());
                }
                offset = message.offset() + 1;
            }
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        let log = self.log.lock().expect("no panic");
        let limit = ReadLimit::max_bytes(HEADER_BYTES + self.payload + 1);
        while let Some(number) = reading.draw() {
            let messages = log.read(number, limit)?;
            reading.found(messages.iter().next().context("a message")?.payload());
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.log.into_inner().expect("no panic").flush()?)
    }
}
