//! kafko 0.3: a topic of one partition; each call is a message to the task that writes, and its answer.
//!
//! - It runs on tokio: one thread, where nothing else is to run at the same time, as that is faster; two in W4.
//! - Durable is an append and `Partition::sync`, which syncs segment and index, one caller after the other.
//! - Reading a record reads the rest of its segment from the index entry on, so reading in order takes the square of the
//!   segment's size: here the segments that are read have 1 MiB.

use std::sync::Arc;

use ::kafko::{Kafko as Broker, LogConfig, Partition, Producer};
use anyhow::{Context, Result};
use bytes::Bytes;
use tokio::runtime::{Builder, Runtime};

use super::{Cell, Guarantee, Subject, Verified, cells};
use crate::{
    measure::{Reading, Work},
    workload::{Task, Workload},
};

const TOPIC: &str = "log";
/// Of segments that are read.
const SEGMENT_BYTES: u64 = 1 << 20;

pub(super) struct Kafko {
    runtime: Runtime,
    broker: Broker,
    producer: Producer,
    partition: Arc<Partition>,
    durable: bool,
}

const WRITTEN: Guarantee = Guarantee {
    checksum: Some("CRC-32 of each record"),
    verified: Verified::Always,
    durable: false,
    survives_kill: true,
    how: "Producer::send: a message to a task, one write(2)",
};
const SYNCED: Guarantee =
    Guarantee { durable: true, how: "Producer::send, then Partition::sync: segment and index", ..WRITTEN };

impl Subject for Kafko {
    fn cells() -> Vec<Cell> {
        use Workload::{W1, W1K, W2, W2K, W2S, W3, W4, W5, W5K, W6, W7};
        let batches = Guarantee { how: "Producer::send_batch: a message to a task, one write(2)", ..WRITTEN };
        let synced = Guarantee { how: "Producer::send_batch, then Partition::sync", ..SYNCED };
        let read = Guarantee { how: "Consumer::next_record: reads the rest of the segment each time", ..WRITTEN };
        let one = Guarantee { how: "Partition::read_record_at: reads the rest of the segment", ..WRITTEN };
        let open = Guarantee { how: "verifies the last segment of 1 MiB", ..WRITTEN };
        cells([W1, W1K], WRITTEN)
            .chain(cells([W2, W2K], batches))
            .chain([Cell::new(W2S, synced)])
            .chain(cells([W3, W4], SYNCED))
            .chain(cells([W5, W5K], read))
            .chain([Cell::new(W6, one), Cell::new(W7, open)])
            .collect()
    }

    fn open(task: &Task) -> Result<Self> {
        let threads = task.workload.threads() > 1;
        let mut runtime = if threads { Builder::new_multi_thread() } else { Builder::new_current_thread() };
        let runtime = runtime.worker_threads(2).enable_time().build()?;
        let segment_size_threshold = if task.workload.reads() { SEGMENT_BYTES } else { 1 << 30 };
        let config = LogConfig { segment_size_threshold, ..LogConfig::default() };
        let (broker, producer, partition) = runtime.block_on(async {
            let broker = Broker::open_with_config(&task.dir, config).await?;
            if !broker.has_topic(TOPIC).await {
                broker.create_topic(TOPIC).await?;
            }
            let producer = broker.producer_for(TOPIC).await?;
            let topic = broker.topic(TOPIC).await.context("a topic")?;
            let partition = topic.partition(0).context("a partition")?.clone();
            anyhow::Ok((broker, producer, partition))
        })?;
        Ok(Self { runtime, broker, producer, partition, durable: task.is_durable() })
    }

    fn append(&self, work: &mut Work<'_>, _thread: usize) -> Result<()> {
        self.runtime.block_on(async {
            while let Some(record) = work.record() {
                self.producer.send(None, Bytes::copy_from_slice(record)).await?;
                if self.durable {
                    self.partition.sync().await?;
                }
            }
            Ok(())
        })
    }

    fn append_batches(&self, work: &mut Work<'_>) -> Result<()> {
        self.runtime.block_on(async {
            while let Some(batch) = work.batch() {
                let batch = batch.iter().map(|record| (None, Bytes::copy_from_slice(record))).collect::<Vec<_>>();
                self.producer.send_batch(batch).await?;
                if self.durable {
                    self.partition.sync().await?;
                }
            }
            Ok(())
        })
    }

    fn scan(&self, reading: &mut Reading<'_>) -> Result<()> {
        self.runtime.block_on(async {
            let mut consumer = self.broker.consumer_for(TOPIC).await?;
            consumer.seek_all(0);
            while !reading.is_done() {
                let record = consumer.next_record().await?;
                if !reading.see_slowly(record.value()) {
                    break;
                }
            }
            Ok(())
        })
    }

    fn look_up(&self, reading: &mut Reading<'_>) -> Result<()> {
        self.runtime.block_on(async {
            while let Some(number) = reading.draw() {
                let record = self.partition.read_record_at(number).await?.context("a record")?;
                reading.found(record.value());
            }
            Ok(())
        })
    }

    fn close(self) -> Result<()> {
        // A topic is shut down when nobody else has it.
        drop((self.producer, self.partition));
        Ok(self.runtime.block_on(self.broker.shutdown())?)
    }
}
