//! redb 4: a copy-on-write tree of numbers to records, one writer at a time.
//!
//! `Durability::None` keeps what is committed in memory until a durable commit: it is lost with the process. Pages have
//! checksums, which are verified when a database that wasn't closed is repaired, not when it is read.

use ::redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use anyhow::{Context, Result};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const CACHE_BYTES: usize = 1 << 30;

pub(super) struct Redb {
    database: Database,
    durability: Durability,
}

const IN_MEMORY: Guarantee = Guarantee {
    checksum: Some("xxh3 of each page"),
    verified: Verified::OnlyInRecovery,
    durable: false,
    survives_kill: false,
    how: "a transaction a call, Durability::None: in memory until a durable commit",
};
const SYNCED: Guarantee = Guarantee {
    durable: true,
    survives_kill: true,
    how: "a transaction a call, Durability::Immediate; writers wait for each other",
    ..IN_MEMORY
};

impl Subject for Redb {
    const FILL_BATCH: usize = 10_000;

    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let read = Guarantee { how: "one read transaction for all", ..SYNCED };
        let open = Guarantee { how: "reads the header and where free pages are", ..SYNCED };
        cells([W1, W1K, W2, W2K], IN_MEMORY)
            .chain(cells([W2S, W3, W4], SYNCED))
            .chain(cells([W5, W5K, W6], read))
            .chain([Cell::new(W7, open)])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(task.dir.join("redb"))?;
        let durability = if task.is_durable() || task.fills { Durability::Immediate } else { Durability::None };
        Ok(Self { database, durability })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        while let Some(record) = work.record() {
            self.insert(&[record])?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        while let Some(batch) = work.batch() {
            self.insert(batch)?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        for record in self.database.begin_read()?.open_table(TABLE)?.iter()? {
            if !reading.see(record?.1.value()) {
                break;
            }
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        let table = self.database.begin_read()?.open_table(TABLE)?;
        while let Some(number) = reading.draw() {
            reading.found(table.get(number)?.context("a record")?.value());
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        // Makes durable what isn't.
        self.database.begin_write()?.commit()?;
        Ok(())
    }
}

impl Redb {
    fn insert(&self, records: &[&[u8]]) -> Result<()> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(self.durability)?;
        {
            let mut table = transaction.open_table(TABLE)?;
            let last = table.last()?.map(|(number, _)| number.value());
            let first = last.map_or(0, |last| last + 1);
            for (number, record) in (first..).zip(records) {
                table.insert(number, *record)?;
            }
        }
        Ok(transaction.commit()?)
    }
}
