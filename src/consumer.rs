//! Reading as a group: `poll`, and committed offsets to go on from.
//!
//! # Invariants
//! - What `poll` returns of a partition is in order, and begins where the last `poll` (or `seek`) left it: nothing is
//!   skipped and nothing is committed that the program didn't ask to commit.
//! - A sleeping consumer costs no processor time: it is woken by appends, by the log's closing, and by its timeout.
//! - The group is free again when the consumer is dropped. Dropping never commits.
//!
//! # Thread safety
//! A consumer belongs to one thread at a time; it can be moved.

mod builder;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    config::{Durability, Start},
    error::{Repr, Result},
    group::{Member, PartitionId},
    partition::{Batch, PartitionLog},
    reader::{Place, Turns},
    record::RecordRef,
    topic::Keepalive,
    waiter::Waiter,
};

pub use builder::ConsumerBuilder;
pub(crate) use builder::Context;

/// The longest single sleep: the system's calls don't take every duration.
const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);

/// The consumer of a group: reads the partitions of one or more topics and commits how far it came.
///
/// Opened by [`Log::consumer`](crate::Log::consumer). A group has one consumer at a time; different groups don't know
/// of each other.
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
///         println!("to bill: {:?}", record.value());
///     }
///     consumer.commit()?; // now that they are billed
/// }
/// # Ok(())
/// # }
/// ```
///
/// # At least once, at most once
/// Commit *after* the records were dealt with, and a program that is killed in between sees some of them again: at
/// least once. Commit *before*, and it may miss some: at most once. A commit has the durability of the log, so after
/// power loss a group may also go on from an earlier commit, but never behind one; [`commit_with`](Consumer::commit_with)
/// waits for the device.
pub struct Consumer {
    // Declared, and so dropped, before the keepalive: leaving a group needs no open log, but it is simpler with one.
    member: Member,
    assigned: Vec<Assigned>,
    places: Vec<Place>,
    turns: Turns,
    waiter: Arc<Waiter>,
    max_poll_bytes: usize,
    start_if_new: Start,
    _keepalive: Keepalive,
}

/// What is known of `places[i]` beyond its position.
struct Assigned {
    topic: Arc<str>,
    topic_id: u128,
    number: u32,
    /// In which the member owns the partition.
    epoch: u64,
    /// What `start_if_new` meant when the consumer was opened.
    first_position: u64,
}

impl Assigned {
    fn id(&self) -> PartitionId {
        PartitionId { topic_id: self.topic_id, partition: self.number }
    }
}

/// How far a group is behind, from [`Consumer::lag`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The sum over all partitions, in offsets.
    pub total: u64,
    /// In the order of [`Consumer::assignment`].
    pub partitions: Vec<PartitionLag>,
}

/// How far a group is behind in one partition.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// What the group has committed, if it ever has.
    pub committed: Option<u64>,
    /// The log end offset.
    pub end_offset: u64,
    /// Log end offset − committed offset; where nothing was committed, log end offset − the offset at which the group
    /// began (see [`ConsumerBuilder::start_if_new`]). In offsets: where these have gaps, there are fewer records.
    pub lag: u64,
}

impl Consumer {
    /// The next records of all partitions: at once if there are any, else as soon as some are appended. Empty if none
    /// came within `timeout`.
    ///
    /// Holds about [`max_poll_bytes`](ConsumerBuilder::max_poll_bytes). Every partition gets its share, and who is
    /// first changes from call to call. The batch is independent of the consumer: keep it, send it, poll on.
    ///
    /// # Errors
    /// - [`Corruption`](crate::ErrorKind::Corruption): records of one partition can't be read. It stays there, and is
    ///   told again, until [`seek`](Consumer::seek) moves on, to
    ///   [`Error::resume_offset`](crate::Error::resume_offset) for instance. Other partitions are read meanwhile, and
    ///   what was read already is returned first.
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange): the position, from a commit for instance, isn't (or
    ///   is no longer) in the log; likewise.
    /// - [`Io`](crate::ErrorKind::Io); [`Closed`](crate::ErrorKind::Closed), also when the log is closed while `poll`
    ///   sleeps.
    pub fn poll(&mut self, timeout: Duration) -> Result<Batch> {
        // None: further away than the clock counts.
        let deadline = Instant::now().checked_add(timeout);
        loop {
            self.check_open()?;
            let batch = self.turns.read(&mut self.places, self.max_poll_bytes)?;
            if !batch.is_empty() || remaining(deadline).is_zero() {
                return Ok(batch);
            }
            self.sleep(deadline);
        }
    }

    /// Sleeps until there may be something to read, the log was closed, or the time is over.
    fn sleep(&self, deadline: Option<Instant>) {
        // Before looking, so that what is published in between isn't missed (see `waiter`).
        let mut ticket = self.waiter.ticket();
        let _watch = Watch::new(&self.places, &self.waiter);
        while self.check_open().is_ok() && self.places.iter().all(Place::at_end) {
            let remaining = remaining(deadline);
            if remaining.is_zero() {
                return;
            }
            self.waiter.wait(ticket, remaining);
            ticket = self.waiter.ticket();
        }
    }

    /// Commits the position of every partition: everything that [`poll`](Consumer::poll) has returned, or where
    /// [`seek`](Consumer::seek) went since. What hasn't changed isn't appended.
    ///
    /// A group that has committed no longer begins at [`start_if_new`](ConsumerBuilder::start_if_new), in no partition:
    /// it goes on where it is, so records that are appended to a partition that was empty aren't missed.
    ///
    /// The commit is all or nothing (for 3,500 partitions at least: about 1 MiB). It may block as an append does (see
    /// [`Topic`](crate::Topic#when-an-append-may-block)); about every 16 MiB of commits, one waits for the device.
    ///
    /// # Errors
    /// [`StorageFull`](crate::ErrorKind::StorageFull), [`Io`](crate::ErrorKind::Io),
    /// [`Poisoned`](crate::ErrorKind::Poisoned), [`Closed`](crate::ErrorKind::Closed).
    pub fn commit(&mut self) -> Result<()> {
        self.commit_positions(None)
    }

    /// As [`commit`](Consumer::commit), with a durability: with [`Durability::Synced`] it is on the device when this
    /// returns.
    ///
    /// # Errors
    /// Those of `commit`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn commit_with(&mut self, durability: Durability) -> Result<()> {
        durability.validate()?;
        self.commit_positions(Some(durability))
    }

    fn commit_positions(&self, durability: Option<Durability>) -> Result<()> {
        self.check_open()?;
        // One that lies outside the log is what was committed before; it isn't worth committing again.
        let positions = self.assigned.iter().zip(&self.places).filter(|(_, place)| place.is_inside());
        let offsets = positions.map(|(assigned, place)| (assigned.id(), assigned.epoch, place.position()));
        self.member.commit(offsets, durability)
    }

    /// Commits that the partition was dealt with up to and including this record. Other partitions stay as they are.
    ///
    /// # Errors
    /// Those of [`commit`](Consumer::commit); [`NotAssigned`](crate::ErrorKind::NotAssigned) if the record isn't of a
    /// partition that this consumer reads.
    pub fn commit_through(&mut self, record: &RecordRef<'_>) -> Result<()> {
        // Offsets are below 2^63.
        self.commit_offsets([(record.topic(), record.partition(), record.offset() + 1)])
    }

    /// Commits given offsets: topic, partition, and the offset of the next record that the group wants. Either all of
    /// them or, on an error, none (see [`commit`](Consumer::commit)); the last one, if a partition is named more than
    /// once. The consumer's positions stay
    /// as they are.
    ///
    /// # Errors
    /// Those of [`commit`](Consumer::commit); [`NotAssigned`](crate::ErrorKind::NotAssigned);
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) for an offset behind the log end offset.
    pub fn commit_offsets<T: AsRef<str>>(&mut self, offsets: impl IntoIterator<Item = (T, u32, u64)>) -> Result<()> {
        self.check_open()?;
        let mut checked = Vec::new();
        for (topic, partition, offset) in offsets {
            let index = self.index(topic.as_ref(), partition)?;
            let log = self.places[index].partition();
            let end = log.settled_end_offset();
            // One before the log start offset is fine: retention may have been faster than the group.
            if offset > end {
                let valid = log.start_offset()..end;
                return Err(Repr::OffsetOutOfRange { topic: topic.as_ref().into(), partition, offset, valid }.into());
            }
            checked.push((self.assigned[index].id(), self.assigned[index].epoch, offset));
        }
        self.member.commit(checked, None)
    }

    /// Goes on reading a partition at `offset`. Commits nothing.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned); [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), and
    /// the position stays; [`Closed`](crate::ErrorKind::Closed).
    pub fn seek(&mut self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        self.check_open()?;
        let index = self.index(topic, partition)?;
        self.places[index].seek(offset)?;
        self.turns.forget_error();
        Ok(())
    }

    /// Goes back to the committed offsets, as if the program had been started again: records that were polled and not
    /// committed come again. Where nothing was committed, to where the group began.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed). A committed offset outside the log is told by the next
    /// [`poll`](Consumer::poll).
    pub fn rewind(&mut self) -> Result<()> {
        self.check_open()?;
        for index in 0..self.places.len() {
            let offset = self.restart_offset(index);
            let place = &mut self.places[index];
            *place = Place::new(&place.partition().clone(), offset);
        }
        self.turns.forget_error();
        Ok(())
    }

    /// Where a restart would resume.
    fn restart_offset(&self, index: usize) -> u64 {
        let log = self.places[index].partition();
        match (self.committed_at(index), self.start_if_new) {
            (Some(committed), _) => committed,
            // What is the earliest may have changed.
            (None, Start::Earliest) => log.start_offset(),
            (None, _) => self.assigned[index].first_position,
        }
    }

    /// The position in a partition: the next record that `poll` hands out has this offset or, where offsets have a
    /// gap, a greater one.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned).
    pub fn position(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.places[self.index(topic, partition)?].position())
    }

    /// What the group has committed for a partition, here or in an earlier run; `None` if it never has.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned).
    pub fn committed(&self, topic: &str, partition: u32) -> Result<Option<u64>> {
        Ok(self.committed_at(self.index(topic, partition)?))
    }

    fn committed_at(&self, index: usize) -> Option<u64> {
        self.member.committed(self.assigned[index].id())
    }

    /// How far the group is behind, by what it has committed.
    pub fn lag(&self) -> Lag {
        let partitions: Vec<PartitionLag> = (0..self.places.len()).map(|index| self.partition_lag(index)).collect();
        Lag { total: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.lag)), partitions }
    }

    fn partition_lag(&self, index: usize) -> PartitionLag {
        let assigned = &self.assigned[index];
        let committed = self.committed_at(index);
        let end_offset = self.places[index].partition().end_offset();
        PartitionLag {
            topic: assigned.topic.to_string(),
            partition: assigned.number,
            committed,
            end_offset,
            lag: end_offset.saturating_sub(committed.unwrap_or(assigned.first_position)),
        }
    }

    /// The partitions that this consumer reads: topic and number, in the order in which the topics were named.
    pub fn assignment(&self) -> Vec<(String, u32)> {
        self.assigned.iter().map(|assigned| (assigned.topic.to_string(), assigned.number)).collect()
    }

    /// The name of the group.
    pub fn group(&self) -> &str {
        self.member.group()
    }

    /// Leaves the group, without a commit; so does dropping. The result is for what leaving may need to tell in later
    /// versions: so far it is always `Ok`.
    ///
    /// # Errors
    /// None so far.
    pub fn close(self) -> Result<()> {
        Ok(())
    }

    /// The place of a partition; kind `NotAssigned`.
    fn index(&self, topic: &str, partition: u32) -> Result<usize> {
        // Partitions of a topic stand together and in order, so its first one leads to all.
        let first = self.assigned.iter().position(|assigned| &*assigned.topic == topic);
        let index = first.and_then(|first| first.checked_add(partition as usize));
        let found = index.filter(|&index| {
            self.assigned.get(index).is_some_and(|assigned| assigned.number == partition && &*assigned.topic == topic)
        });
        found.ok_or_else(|| Repr::NotAssigned { topic: topic.into(), partition }.into())
    }

    fn check_open(&self) -> Result<()> {
        // All partitions are closed together, so the first one tells for all of them.
        match self.places.first() {
            Some(place) if place.partition().is_closed() => Err(Repr::Closed.into()),
            _ => Ok(()),
        }
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

/// Time until the deadline, or until it is to be looked at again.
fn remaining(deadline: Option<Instant>) -> Duration {
    let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    remaining.map_or(LONGEST_SLEEP, |remaining| remaining.min(LONGEST_SLEEP))
}

/// Partitions wake the waiter while this lives.
struct Watch<'a> {
    partitions: Vec<&'a Arc<PartitionLog>>,
    waiter: &'a Arc<Waiter>,
}

impl<'a> Watch<'a> {
    fn new(places: &'a [Place], waiter: &'a Arc<Waiter>) -> Self {
        let partitions: Vec<_> = places.iter().map(Place::partition).collect();
        partitions.iter().for_each(|partition| partition.watch(waiter));
        Self { partitions, waiter }
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|partition| partition.unwatch(self.waiter));
    }
}
