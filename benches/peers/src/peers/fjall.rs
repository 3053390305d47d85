//! fjall 3: a log-structured tree of numbers to records, behind a journal. Compression is off (payloads don't compress).
//!
//! An insert writes to the journal and then into a table in memory, which a thread writes out when it is full: reading
//! merges tables. Blocks are verified when they come into the cache of blocks; what is still in memory never.

use std::sync::Mutex;

use ::fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, config::CompressionPolicy};
use anyhow::{Context, Result};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

pub(super) struct Fjall {
    database: Database,
    records: Keyspace,
    next: Mutex<u64>,
    task: Task,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("xxh3 of a batch in the journal, of each block of the tree"),
    verified: Verified::WhenLoaded,
    durable: false,
    survives_kill: true,
    how: "Keyspace::insert, PersistMode::Buffer: one write(2) to the journal",
};
const SYNCED: Guarantee =
    Guarantee { durable: true, how: "an insert, then PersistMode::SyncData; one lock around both", ..WRITTEN };

impl Subject for Fjall {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let batches = Guarantee { how: "a WriteBatch with PersistMode::Buffer: one write(2)", ..WRITTEN };
        let synced = Guarantee { how: "a WriteBatch with PersistMode::SyncData", ..SYNCED };
        let open = Guarantee { how: "replays the journal into memory", ..WRITTEN };
        cells([W1, W1K], WRITTEN)
            .chain(cells([W2, W2K], batches))
            .chain([Cell::new(W2S, synced)])
            .chain(cells([W3, W4], SYNCED))
            .chain(cells([W5, W5K], Guarantee { how: "Keyspace::iter", ..WRITTEN }))
            .chain([Cell::new(W6, Guarantee { how: "Keyspace::get", ..WRITTEN }), Cell::new(W7, open)])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let database = Database::builder(&task.dir)
            .journal_compression(CompressionType::None)
            .manual_journal_persist(task.is_durable())
            .cache_size(1 << 30)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .data_block_compression_policy(CompressionPolicy::disabled())
                .manual_journal_persist(task.is_durable())
        };
        let records = database.keyspace("log", options)?;
        Ok(Self { database, records, next: Mutex::new(0), task: task.clone() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        while let Some(record) = work.record() {
            let number = self.number(1);
            self.records.insert(number.to_be_bytes(), record)?;
            if self.task.is_durable() {
                self.database.persist(PersistMode::SyncData)?;
            }
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let mode = if self.task.is_durable() { PersistMode::SyncData } else { PersistMode::Buffer };
        while let Some(records) = work.batch() {
            let first = self.number(records.len() as u64);
            let mut batch = self.database.batch().durability(Some(mode));
            for (number, record) in (first..).zip(records) {
                batch.insert(&self.records, number.to_be_bytes(), *record);
            }
            batch.commit()?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        for record in self.records.iter() {
            if !reading.see(&record.value()?) {
                break;
            }
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        while let Some(number) = reading.draw() {
            reading.found(&self.records.get(number.to_be_bytes())?.context("a record")?);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl Fjall {
    fn number(&self, count: u64) -> u64 {
        let mut next = self.next.lock().expect("no panic");
        *next += count;
        *next - count
    }
}
