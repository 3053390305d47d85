//! Reading as a group: `poll`, and committed offsets to go on from.
//!
//! # Invariants
//! - What `poll` returns of a partition is in order, and begins where the last `poll` (or `seek`) left it: nothing is
//!   skipped untold, and nothing is committed that the program didn't ask to commit.
//! - A sleeping consumer costs no processor time, and one that sleeps as a future no thread: it is woken by appends, by
//!   topics that come, by its waker, by the log's closing, and by its timeout.
//! - Consumers of a group share its partitions: each is read by one of them at a time. Dropping leaves the group, and
//!   never commits.
//!
//! # Thread safety
//! A consumer belongs to one thread at a time; it can be moved.

mod auto_commit;
mod builder;
mod commits;
mod core;
mod following;
mod lag;
mod positions;
mod ready;
mod rebalance;
#[cfg(feature = "stream")]
mod stream;
mod subscription;
mod waker;
mod watching;

use std::{
    fmt,
    time::{Duration, Instant},
};

use self::core::Core;
use crate::{error::Result, partition::Batch, topic::Keepalive, waiter::remaining};

pub use builder::ConsumerBuilder;
pub(crate) use builder::Context;
pub use lag::{Lag, PartitionLag};
pub use ready::Ready;
pub use rebalance::{Rebalance, RebalanceKind};
#[cfg(feature = "stream")]
pub use stream::ConsumerStream;
pub use waker::ConsumerWaker;

/// The consumer of a group: reads the partitions of one or more topics and commits how far it came.
///
/// Opened by [`Log::consumer`](crate::Log::consumer). Different groups don't know of each other; each sees every record.
///
/// ```
/// # use std::time::Duration;
/// # use tidelog::{Log, Record, Start, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
/// # orders.append(Record::new("tea").key("customer-42"))?;
/// let mut consumer = log.consumer("billing").topic("orders").start_if_new(Start::Earliest).open()?;
/// loop {
///     let batch = consumer.poll(Duration::from_millis(10))?;
///     if batch.is_empty() {
///         break;
///     }
///     for record in &batch {
///         println!("to bill: {}", record.value_str()?.unwrap_or_default());
///     }
///     consumer.commit()?; // now that they are billed
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Several consumers
/// Consumers of the same group share the partitions of their topics, so that each is read by one of them at a time, and
/// as evenly as that is possible: of each topic, their numbers of partitions differ by at most one. When a consumer comes,
/// goes, or doesn't [`poll`](Consumer::poll) in time ([`max_poll_interval`](ConsumerBuilder::max_poll_interval)), a new
/// *generation* of the group begins: partitions move, as few as possible, and the others are read on as if nothing had
/// happened. A partition moves when its owner polls: it gives it away in between two batches, after
/// [`on_rebalance`](ConsumerBuilder::on_rebalance) was called, which may commit. So the next owner begins where the one
/// before has committed; what that had polled and not committed comes again.
///
/// A consumer that was expelled while it was at work can't undo what others have done since: what it commits is refused
/// with kind [`Fenced`](crate::ErrorKind::Fenced).
///
/// ```
/// # use std::time::Duration;
/// # use tidelog::{Log, Record, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # log.create_topic("orders", TopicConfig::with_partitions(4))?;
/// let mut first = log.consumer("billing").topic("orders").open()?;
/// assert_eq!(first.assignment().len(), 4);
/// let mut second = log.consumer("billing").topic("orders").open()?; // on another thread, as a rule
/// assert_eq!(second.assignment().len(), 0);
/// first.poll(Duration::ZERO)?; // gives two of them away
/// second.poll(Duration::ZERO)?; // takes them
/// assert_eq!((first.assignment().len(), second.assignment().len()), (2, 2));
/// # Ok(())
/// # }
/// ```
///
/// # If the group can't be recorded
/// Commits, and who of a group has what, are records in a topic of the log's own, `__offsets`. While it takes none, because
/// the disk is full or a sync of it failed ([`Poisoned`](crate::ErrorKind::Poisoned), until the log is opened again),
/// consumers read on what they have: [`poll`](Consumer::poll) needs no such record, unless it commits by itself, has
/// partitions to give away, or was expelled; then it answers the error, and reads nothing. No other consumer can be opened.
/// What one had that has left or was expelled rests until it can be recorded that it goes to others, which is tried again
/// each second. [`Reader`](crate::Reader)s don't care.
///
/// # At least once
/// Commit *after* the records were dealt with. A program that is killed in between sees some of them again when it
/// comes back: each record is dealt with at least once.
///
/// ```
/// # use std::time::Duration;
/// # use tidelog::{Batch, Log, Record, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
/// orders.append_batch((0..10).map(|i| Record::new(format!("order {i}"))))?;
/// let mut billed = Vec::new();
/// let mut bill = |batch: &Batch| billed.extend(batch.iter().map(|record| record.offset()));
///
/// let mut consumer = log.consumer("billing").topic("orders").max_poll_records(4).open()?;
/// bill(&consumer.poll(Duration::ZERO)?);
/// consumer.commit()?;
/// bill(&consumer.poll(Duration::ZERO)?);
/// drop(consumer); // killed before it could commit
///
/// let mut consumer = log.consumer("billing").topic("orders").open()?;
/// bill(&consumer.poll(Duration::ZERO)?);
/// consumer.commit()?;
/// assert_eq!(billed, [0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7, 8, 9]); // none is missing, some are there twice
/// # Ok(())
/// # }
/// ```
///
/// # At most once
/// Commit *before* the records are dealt with. A program that is killed in between doesn't see the rest of them again.
///
/// ```
/// # use std::time::Duration;
/// # use tidelog::{Log, Record, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
/// orders.append_batch((0..10).map(|i| Record::new(format!("order {i}"))))?;
/// let mut rung = Vec::new(); // a bell for each order: better none than two
///
/// let mut consumer = log.consumer("bell").topic("orders").max_poll_records(4).open()?;
/// let batch = consumer.poll(Duration::ZERO)?;
/// consumer.commit()?;
/// rung.extend(batch.iter().map(|record| record.offset()).take(2));
/// drop(consumer); // killed after the second
///
/// let mut consumer = log.consumer("bell").topic("orders").open()?;
/// let batch = consumer.poll(Duration::ZERO)?;
/// consumer.commit()?;
/// rung.extend(batch.iter().map(|record| record.offset()));
/// assert_eq!(rung, [0, 1, 4, 5, 6, 7, 8, 9]); // none is there twice, some are missing
/// # Ok(())
/// # }
/// ```
///
/// # Exactly once, in effect
/// Where the effect is kept in something that changes in one step (a transaction of a database, a file that is replaced
/// by renaming), keep with it the offset of the next record, in the same step. On a start, [`seek`](Consumer::seek)
/// there: the offset that stands with the effect is the one that counts, and what the group has committed is but a hint
/// for those who look at its lag.
///
/// ```
/// # use std::time::Duration;
/// # use tidelog::{Log, Record, TopicConfig};
/// /// Stands for a database. Its one row changes in one step.
/// #[derive(Clone, Default)]
/// struct Balance { cents: u64, next_offset: u64 }
///
/// fn run(log: &Log, database: &mut Balance, killed_after: usize) -> tidelog::Result<()> {
///     let mut consumer = log.consumer("ledger").topic("payments").open()?;
///     consumer.seek("payments", 0, database.next_offset)?;
///     for record in consumer.poll(Duration::ZERO)?.iter().take(killed_after) {
///         let cents = u64::from_le_bytes(record.value().and_then(|value| value.try_into().ok()).unwrap_or_default());
///         // The transaction: effect and offset together, or neither.
///         *database = Balance { cents: database.cents + cents, next_offset: record.offset() + 1 };
///     }
///     Ok(()) // killed, or out of records; no commit
/// }
///
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("bank")?;
/// # let payments = log.create_topic("payments", TopicConfig::with_partitions(1))?;
/// payments.append_batch((1..=100u64).map(|cents| Record::new(cents.to_le_bytes().to_vec())))?;
/// let mut database = Balance::default();
/// for killed_after in [0, 1, 17, 40, 100] {
///     run(&log, &mut database, killed_after)?;
/// }
/// assert_eq!(database.cents, 5050); // each payment once
/// # Ok(())
/// # }
/// ```
///
/// A commit has the durability of the log, so after power loss a group may also go on from an earlier commit, but never
/// behind one; [`commit_with`](Consumer::commit_with) waits for the device.
pub struct Consumer {
    // Declared, and so dropped, before the keepalive: leaving a group needs no open log, but it is simpler with one.
    core: Core,
    _keepalive: Keepalive,
}

impl Consumer {
    /// The next records of all partitions: at once if there are any, else as soon as some are appended. Empty if none
    /// came within `timeout`, if [`waker`](Consumer::waker) ended it, or if all there was to tell is what a policy
    /// skipped ([`Batch::skipped`]).
    ///
    /// Holds at most [`max_poll_records`](ConsumerBuilder::max_poll_records), and about
    /// [`max_poll_bytes`](ConsumerBuilder::max_poll_bytes). Every partition gets its share, and who is first changes
    /// from call to call. The batch is independent of the consumer: keep it, send it, poll on.
    ///
    /// Here partitions come and go: those that another consumer of the group is to have are given away, those that others
    /// gave away are taken, and [`on_rebalance`](ConsumerBuilder::on_rebalance) is called. Partitions that came to the
    /// topics, and topics that came to the patterns, since the last call are read from their beginning on. If the consumer
    /// has [`auto_commit`](ConsumerBuilder::auto_commit), what earlier calls returned is committed here when it is time.
    ///
    /// # Errors
    /// - [`Corruption`](crate::ErrorKind::Corruption), unless
    ///   [a policy](ConsumerBuilder::on_corruption) says otherwise: records of one partition can't be read. It stays
    ///   there, and is told again, until [`seek`](Consumer::seek) moves on, to
    ///   [`Error::resume_offset`](crate::Error::resume_offset) for instance. Other partitions are read meanwhile, and
    ///   what was read already is returned first.
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), unless
    ///   [a policy](ConsumerBuilder::on_out_of_range) says otherwise: the position, from a commit for instance, isn't
    ///   (or is no longer) in the log; likewise.
    /// - [`UnknownTopic`](crate::ErrorKind::UnknownTopic): a topic that was given by its name was deleted. Told once;
    ///   the others are read on, and so is one of that name that is created later.
    /// - What [`on_rebalance`](ConsumerBuilder::on_rebalance) answers. Nothing was read.
    /// - Those of [`commit`](Consumer::commit), of an auto-commit, and of recording that partitions are given away or that
    ///   the consumer joins its group again. Nothing was read, and the next call tries again.
    /// - [`Io`](crate::ErrorKind::Io); [`Closed`](crate::ErrorKind::Closed), also when the log is closed while `poll`
    ///   sleeps.
    pub fn poll(&mut self, timeout: Duration) -> Result<Batch> {
        let _polling = self.core.member.polling();
        // None: further away than the clock counts.
        let deadline = Instant::now().checked_add(timeout);
        let batch = loop {
            match self.core.poll_now() {
                Ok(polled) if polled.is_something() || remaining(deadline).is_zero() => break Ok(polled.batch),
                Ok(_) => self.core.sleep(deadline),
                Err(error) => break Err(error),
            }
        };
        self.core.count_poll(&batch);
        batch
    }

    /// A handle that ends a [`poll`](Consumer::poll) from another thread.
    #[doc(alias = "wakeup")]
    pub fn waker(&self) -> ConsumerWaker {
        ConsumerWaker::new(&self.core.signal)
    }

    /// Waits, as a future and so without blocking a thread, until there is something for [`poll`](Consumer::poll):
    /// records, an error, or something else to do (a wake, a commit that is due, topics that came). Then call it with
    /// [`Duration::ZERO`]; its batch may be empty all the same, so wait again:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    /// # runtime.block_on(async {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
    /// # orders.append(Record::new("tea").key("customer-42"))?;
    /// let mut consumer = log.consumer("billing").topic("orders").open()?;
    /// loop {
    ///     consumer.ready().await;
    ///     for record in &consumer.poll(Duration::ZERO)? {
    ///         println!("to bill: {}", record.value_str()?.unwrap_or_default());
    ///     }
    ///     consumer.commit()?;
    /// #   break;
    /// }
    /// # Ok::<(), tidelog::Error>(())
    /// # }).expect("it works");
    /// ```
    ///
    /// It needs no runtime, and works on each: whoever appends wakes the task. Dropping it, at any time, loses nothing:
    /// it takes no record. So wait for it and for other things, for the end of the service for instance, whichever comes
    /// first, and then [`close`](Consumer::close) the consumer:
    ///
    /// ```
    /// # use std::{future::Future, pin::pin, time::Duration};
    /// # use tidelog::{Consumer, Log, Record, TopicConfig};
    /// use futures_util::future::{Either, select};
    ///
    /// async fn serve(mut consumer: Consumer, stop: impl Future<Output = ()>) -> tidelog::Result<()> {
    ///     let mut stop = pin!(stop);
    ///     loop {
    ///         // With tokio: `tokio::select! { _ = &mut stop => break, _ = consumer.ready() => {} }`
    ///         if let Either::Left(_) = select(&mut stop, consumer.ready()).await {
    ///             break;
    ///         }
    ///         for record in &consumer.poll(Duration::ZERO)? {
    ///             println!("to bill: {}", record.value_str()?.unwrap_or_default());
    ///         }
    ///         consumer.commit()?;
    ///     }
    ///     consumer.close()
    /// }
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    /// # runtime.block_on(async {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # log.create_topic("orders", TopicConfig::with_partitions(4))?.append(Record::new("tea"))?;
    /// # let consumer = log.consumer("billing").topic("orders").open()?;
    /// # serve(consumer, tokio::time::sleep(Duration::from_millis(50))).await?;
    /// # assert_eq!(log.lag("billing")?.total, 0);
    /// # Ok::<(), tidelog::Error>(())
    /// # }).expect("it works");
    /// ```
    ///
    /// `poll` with [`Duration::ZERO`] reads memory that is mapped, so it blocks where the pages have to come from the disk
    /// first; a commit blocks as an append may (see [`Topic`](crate::Topic#when-an-append-may-block)).
    pub fn ready(&mut self) -> Ready<'_> {
        Ready::new(self)
    }

    /// The partitions that this consumer reads: topic and number, in order. Changes in [`poll`](Consumer::poll) alone.
    pub fn assignment(&self) -> Vec<(String, u32)> {
        self.core.assigned.iter().map(|assigned| (assigned.topic().to_owned(), assigned.number())).collect()
    }

    /// The generation of the group that [`assignment`](Consumer::assignment) goes by: it grows with each rebalance.
    pub fn generation(&self) -> u64 {
        self.core.generation
    }

    /// The random number that this consumer has in its group. Another one after it was expelled and came back.
    pub fn member_id(&self) -> u64 {
        self.core.member.id()
    }

    /// The name of the group.
    pub fn group(&self) -> &str {
        self.core.member.group()
    }

    /// Leaves the group. With [`auto_commit`](ConsumerBuilder::auto_commit) it first commits what `poll` has returned;
    /// else it commits nothing, as dropping never does. Then [`on_rebalance`](ConsumerBuilder::on_rebalance) is told that
    /// the partitions are revoked; or lost, if the consumer was expelled.
    ///
    /// # Errors
    /// Those of [`commit`](Consumer::commit), of an auto-commit; what `on_rebalance` answers. The group is left all the
    /// same.
    pub fn close(mut self) -> Result<()> {
        // Not to be expelled in the middle of it.
        let _polling = self.core.member.polling();
        let committed = self.core.auto_commit_rest();
        let kind = if self.core.member.is_member() { RebalanceKind::Revoked } else { RebalanceKind::Lost };
        committed.and(self.core.tell(kind, |_| true))
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("group", &self.group())
            .field("assignment", &self.assignment())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
