//! Waiting for the device: as a future, or as a call that blocks.
//!
//! # Invariants
//! A future that is dropped leaves nothing behind, wherever it was.
//!
//! # Thread safety
//! A future belongs to one task at a time; it can be moved.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    partition::DurableWait,
    place::Appended,
    topic::{Keepalive, Partition, Topic},
};

/// A future that waits until a record is on the device: made by [`Partition::durable`] and [`Topic::durable`].
///
/// It needs no runtime, and works on each. It flushes at once, also where the durability of the records is
/// [`Written`](crate::Durability::Written), and any number of futures share a flush. Dropping it, at any time, has no
/// effect. While it lives it keeps the log open, as other handles do.
///
/// # Errors
/// - [`Poisoned`](crate::ErrorKind::Poisoned): a sync failed, now or earlier. The record may be lost in a power cut.
/// - [`Closed`](crate::ErrorKind::Closed): the log was closed, and never had the offset.
/// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic): the topic was deleted.
/// - [`UnknownPartition`](crate::ErrorKind::UnknownPartition): the topic has no such partition.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Durable {
    wait: Wait,
    // Declared, and so dropped, last.
    _keepalive: Keepalive,
}

enum Wait {
    For(DurableWait),
    /// `None` once it was told.
    Failed(Option<Error>),
}

impl Durable {
    fn new(partition: Result<Partition>, offset: u64, keepalive: Keepalive) -> Self {
        let wait = match partition {
            Ok(partition) => Wait::For(DurableWait::new(partition.log().clone(), offset)),
            Err(error) => Wait::Failed(Some(error)),
        };
        Self { wait, _keepalive: keepalive }
    }
}

impl Future for Durable {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        match &mut self.get_mut().wait {
            Wait::For(wait) => wait.poll(context.waker()),
            Wait::Failed(error) => error.take().map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
        }
    }
}

impl fmt::Debug for Durable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Durable").finish_non_exhaustive()
    }
}

impl Partition {
    /// Waits, as a future and so without blocking a thread, until the [durable offset](Partition::durable_offset) is
    /// beyond `offset`: until the record there, and all before it, are on the device. The record may come later.
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    /// # runtime.block_on(async {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?.partition(0)?;
    /// let at = orders.append(Record::new("tea"))?; // in the page cache
    /// orders.durable(at.offset).await?; // on the device
    /// assert!(orders.durable_offset() > at.offset);
    /// # Ok::<(), tidelog::Error>(())
    /// # }).expect("it works");
    /// ```
    ///
    /// An append with [`Durability::Synced`](crate::Durability::Synced) comes to the same but blocks its thread. Thousands
    /// of tasks that append and then wait here share a few threads, and a sync in common.
    pub fn durable(&self, offset: u64) -> Durable {
        Durable::new(Ok(self.clone()), offset, self.keepalive().clone())
    }

    /// Waits until the [durable offset](Partition::durable_offset) is beyond `offset`, for at most `timeout`: true if it
    /// is. Asks for a flush at once, whatever the durability. The record may come later.
    ///
    /// # Errors
    /// Those of [`Durable`].
    pub fn wait_durable(&self, offset: u64, timeout: Duration) -> Result<bool> {
        self.log().wait_durable(offset, timeout)
    }
}

impl Topic {
    /// Waits, as a future, until the record that an append put there is on the device. See [`Partition::durable`].
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    /// # runtime.block_on(async {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
    /// let at = orders.append(Record::new("tea").key("customer-42"))?;
    /// orders.durable(at).await?;
    /// # Ok::<(), tidelog::Error>(())
    /// # }).expect("it works");
    /// ```
    pub fn durable(&self, at: Appended) -> Durable {
        Durable::new(self.partition(at.partition), at.offset, self.keepalive().clone())
    }

    /// Waits until the record that an append put there is on the device, for at most `timeout`: true if it is. See
    /// [`Partition::wait_durable`].
    ///
    /// # Errors
    /// Those of [`Durable`].
    pub fn wait_durable(&self, at: Appended, timeout: Duration) -> Result<bool> {
        self.partition(at.partition)?.wait_durable(at.offset, timeout)
    }
}
