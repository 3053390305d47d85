//! yaque 0.6: a queue of one sender and one receiver; a write(2) a call, segments of 4 MiB, and never a sync. Only the length
//! before each record has a parity, the payload has no checksum. `QueueIter` reads without consuming.

use std::{path::PathBuf, sync::Mutex};

use ::yaque::{QueueIter, Receiver, Sender, TrySendError};
use anyhow::{Result, anyhow};

use super::{Cell, Guarantee, Subject, Verified, cells, lacking};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

pub(super) struct Yaque {
    sender: Mutex<Sender>,
    /// Opened with the queue in W7 only: a reading takes its place.
    _receiver: Option<Receiver>,
    dir: PathBuf,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: None,
    verified: Verified::Never,
    durable: false,
    survives_kill: true,
    how: "one write(2) a call; its lock files outlive a kill, and want a recovery",
};

impl Subject for Yaque {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        cells([W1, W1K, W2, W2K], WRITTEN)
            .chain(lacking([W2S, W3, W4], "never syncs"))
            .chain(cells([W5, W5K], Guarantee { how: "QueueIter: two read(2) a record, copied", ..WRITTEN }))
            .chain([
                Cell::lacking(W6, "no reading by offset"),
                Cell::new(W7, Guarantee { how: "Sender::open and Receiver::open", ..WRITTEN }),
            ])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let sender = Mutex::new(Sender::open(&task.dir)?);
        let opens = task.workload == Workload::W7 && !task.fills;
        let receiver = if opens { Some(Receiver::open(&task.dir)?) } else { None };
        Ok(Self { sender, _receiver: receiver, dir: task.dir.clone() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        let mut sender = self.sender.lock().expect("no panic");
        while let Some(record) = work.record() {
            sender.try_send(record).map_err(failed)?;
        }
        Ok(())
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        let mut sender = self.sender.lock().expect("no panic");
        while let Some(batch) = work.batch() {
            sender.try_send_batch(batch).map_err(failed)?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        for record in QueueIter::open(&self.dir)? {
            if !reading.see(&record?) {
                break;
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

fn failed<T>(error: TrySendError<T>) -> anyhow::Error {
    match error {
        TrySendError::Io(error) => error.into(),
        TrySendError::QueueFull { .. } => anyhow!("the queue is full"),
    }
}
