//! tidelog: level `Written` where nothing is synced, so that no flusher runs beside; `Synced` where it is. Segments of
//! 1 GiB, as the limit has one file.
//!
//! W6 has three rows: `read_from` an offset, of which one record is taken; a consumer that seeks, whose poll returns one
//! record; a reader that seeks and reads a whole batch, of which only the first record is wanted.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tidelog::{Consumer, Durability, Log, Partition, Record, Start, Topic, TopicConfig};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

const TOPIC: &str = "log";
/// Names of variants.
const FOUR_PARTITIONS: &str = "4 threads, 4 partitions";
const ONE_PARTITION: &str = "4 threads, 1 partition";
const REOPENED: &str = "right after a reopen";
const TAILED: &str = "with a tailing reader";
const LONE: &str = "lone frames";
const POLL: &str = "Consumer::poll";
const ITERATOR: &str = "one-record iterator";
const POLL_ONE: &str = "poll of one";
const SEEK: &str = "Reader::seek";

pub(super) struct Tidelog {
    log: Log,
    topic: Topic,
    partitions: Vec<Partition>,
    consumer: Mutex<Option<Consumer>>,
    task: Task,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("CRC-32 of a frame, and a check of its header"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "Durability::Written: stored into a mapped file",
};
const SYNCED: Guarantee =
    Guarantee { durable: true, how: "Durability::Synced: an fdatasync, shared by all who wait", ..WRITTEN };

impl Subject for Tidelog {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let appends = cells([W1, W1K, W2, W2K], WRITTEN).chain(cells([W2S, W3, W4], SYNCED));
        let batches = Guarantee { how: "Reader::next_batch, frames of 100, borrowed", ..WRITTEN };
        let poll = Guarantee { how: "Consumer::poll, frames of 100, borrowed", ..WRITTEN };
        let iterator = Guarantee { how: "Partition::read_from, frames of 100, each record copied", ..WRITTEN };
        let seek = Guarantee { how: "Reader::seek, next_batch; lone frames", ..WRITTEN };
        let poll_one = Guarantee { how: "Consumer::seek, poll with max_poll_records(1); lone frames", ..WRITTEN };
        let read_from = Guarantee { how: "Partition::read_from, lone frames, copied", ..WRITTEN };
        let reads = [
            Cell::new(W1, WRITTEN).variant(FOUR_PARTITIONS).threads(4),
            Cell::new(W1, WRITTEN).variant(ONE_PARTITION).threads(4),
            Cell::new(W3, SYNCED).variant(REOPENED),
            Cell::new(W3, SYNCED).variant(TAILED),
            Cell::new(W5, batches),
            Cell::new(W5, Guarantee { how: "Reader::next_batch, lone frames, borrowed", ..WRITTEN })
                .variant(LONE)
                .lone(),
            Cell::new(W5, poll).variant(POLL),
            Cell::new(W5, iterator).variant(ITERATOR),
            Cell::new(W5K, batches),
            Cell::new(W6, read_from).lone(),
            Cell::new(W6, seek).variant(SEEK).lone(),
            Cell::new(W6, poll_one).variant(POLL_ONE).lone(),
            Cell::new(W7, Guarantee { how: "believes the mark of a clean close", ..WRITTEN }),
        ];
        appends.chain(reads).collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let partitions = if task.variant == FOUR_PARTITIONS { 4 } else { 1 };
        let (mut log, mut topic) = open(task, partitions)?;
        if task.variant == REOPENED {
            topic.append_batch_with((0..100).map(|_| Record::new(&[7; 100][..])), Durability::Synced)?;
            log.close()?;
            (log, topic) = open(task, partitions)?;
        }
        let consumer = || log.consumer("group").topic(TOPIC).start_if_new(Start::Earliest);
        let consumer = match &*task.variant {
            POLL => Some(consumer().open()?),
            POLL_ONE => Some(consumer().max_poll_records(1).open()?),
            _ => None,
        };
        let partitions = (0..partitions).map(|number| topic.partition(number)).collect::<tidelog::Result<_>>()?;
        Ok(Self { log, topic, partitions, consumer: Mutex::new(consumer), task: task.clone() })
    }

    fn append(&self, work: &mut Work<'_>, thread: usize) -> Result<()> {
        if self.task.variant == TAILED {
            return self.append_tailed(work);
        }
        self.append_to(work, thread)
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        while let Some(batch) = work.batch() {
            self.topic.append_batch(batch.iter().map(|record| Record::new(*record)))?;
        }
        Ok(())
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        match &*self.task.variant {
            POLL => self.poll(reading),
            ITERATOR => {
                for record in self.partitions[0].read_from(0)? {
                    if !reading.see(record?.value().context("a value")?) {
                        break;
                    }
                }
                Ok(())
            }
            _ => {
                let mut reader = self.topic.reader(Start::Earliest)?;
                while let Some(batch) = reader.next_batch()? {
                    for record in &batch {
                        if !reading.see(record.value().context("a value")?) {
                            return Ok(());
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        match &*self.task.variant {
            POLL_ONE => {
                let mut consumer = self.consumer.lock().expect("no panic");
                let consumer = consumer.as_mut().context("a consumer")?;
                while let Some(number) = reading.draw() {
                    consumer.seek(TOPIC, 0, number)?;
                    let batch = consumer.poll(Duration::from_secs(1))?;
                    reading.found(batch.iter().next().and_then(|record| record.value()).context("a record")?);
                }
            }
            SEEK => {
                let mut reader = self.partitions[0].reader(Start::Earliest)?;
                while let Some(number) = reading.draw() {
                    reader.seek(0, number)?;
                    let batch = reader.next_batch()?.context("a batch")?;
                    reading.found(batch.iter().next().and_then(|record| record.value()).context("a record")?);
                }
            }
            _ => {
                while let Some(number) = reading.draw() {
                    let record = self.partitions[0].read_from(number)?.next().context("a record")??;
                    reading.found(record.value().context("a value")?);
                }
            }
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        drop(self.consumer);
        Ok(self.log.close()?)
    }
}

fn open(task: &Task, partitions: u32) -> Result<(Log, Topic)> {
    let durability = if task.is_durable() { Durability::Synced } else { Durability::Written };
    let log = Log::options().durability(durability).segment_bytes(1 << 30).open(&task.dir)?;
    let topic = log.ensure_topic(TOPIC, TopicConfig::with_partitions(partitions))?;
    Ok((log, topic))
}

impl Tidelog {
    fn append_to(&self, work: &mut Work<'_>, thread: usize) -> Result<()> {
        if self.partitions.len() > 1 {
            let partition = &self.partitions[thread];
            while let Some(record) = work.record() {
                partition.append(Record::new(record))?;
            }
            return Ok(());
        }
        while let Some(record) = work.record() {
            self.topic.append(Record::new(record))?;
        }
        Ok(())
    }

    /// Another thread reads what is there again and again.
    fn append_tailed(&self, work: &mut Work<'_>) -> Result<()> {
        let (is_over, mut reader) = (AtomicBool::new(false), self.topic.reader(Start::Earliest)?);
        thread::scope(|scope| {
            let tail = scope.spawn(|| -> Result<()> {
                while !is_over.load(Ordering::Relaxed) {
                    while reader.next_batch()?.is_some() {}
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            });
            let appended = self.append_to(work, 0);
            is_over.store(true, Ordering::Relaxed);
            tail.join().expect("a reader that doesn't panic")?;
            appended
        })
    }

    fn poll(&self, reading: &mut Reading<'_>) -> Result<()> {
        let mut consumer = self.consumer.lock().expect("no panic");
        let consumer = consumer.as_mut().context("a consumer")?;
        consumer.seek(TOPIC, 0, 0)?;
        while !reading.is_done() {
            let batch = consumer.poll(Duration::from_secs(1))?;
            ensure!(!batch.is_empty(), "a poll that brings nothing");
            for record in &batch {
                if !reading.see(record.value().context("a value")?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
