//! SQLite in WAL mode, by rusqlite 0.41 with the SQLite that it bundles: a table of numbers to records.
//!
//! One connection has the database to itself (`locking_mode=EXCLUSIVE`), which spares it locks and shared memory; in W4
//! each thread has its own. Frames of its WAL have checksums, which are verified in recovery; pages of the database have
//! none.

use ::rusqlite::{Connection, TransactionBehavior};
use anyhow::Result;
use std::{sync::Mutex, time::Duration};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

const INSERT: &str = "INSERT INTO log (record) VALUES (?1)";

pub(super) struct Rusqlite {
    connection: Mutex<Connection>,
    task: Task,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("sums of the WAL's frames; none of the database's pages"),
    verified: Verified::OnlyInRecovery,
    durable: false,
    survives_kill: true,
    how: "an INSERT a call, synchronous=OFF: write(2) of whole pages",
};
const SYNCED: Guarantee = Guarantee { durable: true, how: "an INSERT a call, synchronous=FULL", ..WRITTEN };

impl Subject for Rusqlite {
    const FILL_BATCH: usize = 10_000;

    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let batches = Guarantee { how: "a transaction of 100 INSERTs, synchronous=OFF", ..WRITTEN };
        let synced = Guarantee { how: "a transaction of 100 INSERTs, synchronous=FULL", ..SYNCED };
        let many = Guarantee { how: "a connection a thread, which wait for each other", ..SYNCED };
        cells([W1, W1K], WRITTEN)
            .chain(cells([W2, W2K], batches))
            .chain([Cell::new(W2S, synced), Cell::new(W3, SYNCED), Cell::new(W4, many)])
            .chain(cells([W5, W5K], Guarantee { how: "one SELECT by number, mapped", ..WRITTEN }))
            .chain([
                Cell::new(W6, Guarantee { how: "a SELECT of one, prepared, in one transaction, mapped", ..WRITTEN }),
                Cell::new(W7, Guarantee { how: "opens and reads the schema", ..WRITTEN }),
            ])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        Ok(Self { connection: Mutex::new(connect(task)?), task: task.clone() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        if self.task.workload.threads() > 1 {
            return insert_each(&connect(&self.task)?, work);
        }
        insert_each(&self.connection.lock().expect("no panic"), work)
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let mut connection = self.connection.lock().expect("no panic");
        while let Some(batch) = work.batch() {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            {
                let mut insert = transaction.prepare_cached(INSERT)?;
                for record in batch {
                    insert.execute([record])?;
                }
            }
            transaction.commit()?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        let connection = self.connection.lock().expect("no panic");
        let mut select = connection.prepare("SELECT record FROM log ORDER BY number")?;
        let mut rows = select.query([])?;
        while let Some(row) = rows.next()? {
            if !reading.see(row.get_ref(0)?.as_blob()?) {
                break;
            }
        }
        Ok(())
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        let connection = self.connection.lock().expect("no panic");
        let transaction = connection.unchecked_transaction()?;
        let mut select = transaction.prepare("SELECT record FROM log WHERE number = ?1")?;
        while let Some(number) = reading.draw() {
            let mut rows = select.query([number as i64 + 1])?;
            if let Some(row) = rows.next()? {
                reading.found(row.get_ref(0)?.as_blob()?);
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        let connection = self.connection.into_inner().expect("no panic");
        connection.close().map_err(|(_, error)| error.into())
    }
}

fn connect(task: &Task) -> Result<Connection> {
    let connection = Connection::open(task.dir.join("sqlite"))?;
    connection.busy_timeout(Duration::from_secs(60))?;
    if task.workload.threads() == 1 {
        connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", if task.is_durable() { "FULL" } else { "OFF" })?;
    connection.pragma_update(None, "mmap_size", 4_i64 << 30)?;
    connection.execute("CREATE TABLE IF NOT EXISTS log (number INTEGER PRIMARY KEY, record BLOB NOT NULL)", [])?;
    Ok(connection)
}

fn insert_each(connection: &Connection, work: &mut Work<'_>) -> Result<()> {
    let mut insert = connection.prepare_cached(INSERT)?;
    while let Some(record) = work.record() {
        insert.execute([record])?;
    }
    Ok(())
}
