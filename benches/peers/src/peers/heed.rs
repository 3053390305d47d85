//! LMDB by heed 0.23: a copy-on-write tree of numbers to records in a map; a writer at a time, no checksums.
//!
//! Without sync (`MDB_NOSYNC`) it writes to the map itself (`MDB_WRITEMAP`), which is its fastest. Durable commits write
//! pages and sync them, then the root. Records are put with `MDB_APPEND`, which fills pages.

use std::fs;

use ::heed::{
    CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, PutFlags, WithoutTls,
    byteorder::BigEndian,
    types::{Bytes, U64},
};
use anyhow::{Context, Result};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

const MAP_BYTES: usize = 8 << 30;

pub(super) struct Heed {
    env: Env<WithoutTls>,
    records: Database<'static, U64<BigEndian>, Bytes>,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: None,
    verified: Verified::Never,
    durable: false,
    survives_kill: true,
    how: "a transaction a call, NOSYNC and WRITEMAP: stored into a map; a power cut may break it",
};
const SYNCED: Guarantee = Guarantee {
    durable: true,
    how: "a transaction a call: pages and root synced; writers wait for each other",
    ..WRITTEN
};

impl Subject for Heed {
    const FILL_BATCH: usize = 10_000;

    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        cells([W1, W1K, W2, W2K], WRITTEN)
            .chain(cells([W2S, W3, W4], SYNCED))
            .chain(cells([W5, W5K, W6], Guarantee { how: "one read transaction for all, borrowed", ..WRITTEN }))
            .chain([Cell::new(W7, Guarantee { how: "maps and reads the root", ..WRITTEN })])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        fs::create_dir_all(&task.dir)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_BYTES).max_dbs(1);
        if !task.is_durable() {
            // SAFETY: a power cut isn't part of the measurement, and nobody else has the files.
            unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP) };
        }
        // SAFETY: nobody else has the files.
        let env = unsafe { options.open(&task.dir)? };
        let opened = env.create_databases_and_commit(env.write_txn()?, |databases, transaction| {
            databases.create_database(transaction, Some("log")).map(CommitOrAbort::<_, ()>::Commit)
        });
        let records = opened?.unwrap_commit();
        Ok(Self { env, records })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        while let Some(record) = work.record() {
            self.put(&[record])?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        while let Some(batch) = work.batch() {
            self.put(batch)?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        let transaction = self.env.read_txn()?;
        for record in self.records.iter(&transaction)? {
            if !reading.see(record?.1) {
                break;
            }
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        let transaction = self.env.read_txn()?;
        while let Some(number) = reading.draw() {
            reading.found(self.records.get(&transaction, &number)?.context("a record")?);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.env.force_sync()?;
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

impl Heed {
    fn put(&self, records: &[&[u8]]) -> Result<()> {
        let mut transaction = self.env.write_txn()?;
        let first = self.records.last(&transaction)?.map_or(0, |(number, _)| number + 1);
        for (number, record) in (first..).zip(records) {
            self.records.put_with_flags(&mut transaction, PutFlags::APPEND, &number, record)?;
        }
        Ok(transaction.commit()?)
    }
}
