//! Saying how far the group came.

use super::Consumer;
use crate::{config::Durability, error::Result, record::RecordRef};

impl Consumer {
    /// Commits the position of every partition: everything that [`poll`](Consumer::poll) has returned, or where
    /// [`seek`](Consumer::seek) went since. What hasn't changed isn't appended.
    ///
    /// A group that has committed no longer begins at [`start_if_new`](crate::ConsumerBuilder::start_if_new), in no
    /// partition: it goes on where it is, so records that are appended to a partition that was empty aren't missed.
    ///
    /// The commit is all or nothing (for 3,500 partitions at least: about 1 MiB). It may block as an append does (see
    /// [`Topic`](crate::Topic#when-an-append-may-block)); about every 16 MiB of commits, one waits for the device.
    ///
    /// # Errors
    /// [`Fenced`](crate::ErrorKind::Fenced): the consumer was expelled from its group, and a partition may be another
    /// one's by now. Nothing is committed; the next [`poll`](Consumer::poll) joins the group again.
    ///
    /// [`StorageFull`](crate::ErrorKind::StorageFull), [`Io`](crate::ErrorKind::Io),
    /// [`Poisoned`](crate::ErrorKind::Poisoned), [`Closed`](crate::ErrorKind::Closed).
    pub fn commit(&mut self) -> Result<()> {
        self.core.commit_positions(None)
    }

    /// As [`commit`](Consumer::commit), with a durability: with [`Durability::Synced`] it is on the device when this
    /// returns.
    ///
    /// # Errors
    /// Those of `commit`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn commit_with(&mut self, durability: Durability) -> Result<()> {
        durability.validate()?;
        self.core.commit_positions(Some(durability))
    }

    /// Commits that the partition was dealt with up to and including this record. Other partitions stay as they are. Of
    /// a record that was kept, give [`as_record_ref`](crate::OwnedRecord::as_record_ref).
    ///
    /// # Errors
    /// Those of [`commit`](Consumer::commit), [`Fenced`](crate::ErrorKind::Fenced) also for a partition that this consumer
    /// has given away since; [`NotAssigned`](crate::ErrorKind::NotAssigned) for one that it never had;
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic) for a record that this consumer had of a topic that was deleted, also
    /// where there is another one of that name by now.
    pub fn commit_through(&mut self, record: &RecordRef<'_>) -> Result<()> {
        self.core.check_topic(record)?;
        // Offsets are below 2^63.
        self.commit_offsets([(record.topic(), record.partition(), record.offset() + 1)])
    }

    /// Commits given offsets: topic, partition, and the offset of the next record that the group wants. Either all of
    /// them or, on an error, none (see [`commit`](Consumer::commit)); the last one, if a partition is named more than
    /// once. The consumer's positions stay as they are.
    ///
    /// # Errors
    /// Those of [`commit_through`](Consumer::commit_through);
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) for an offset behind the log end offset;
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic) for one of a topic that was deleted.
    pub fn commit_offsets<T: AsRef<str>>(&mut self, offsets: impl IntoIterator<Item = (T, u32, u64)>) -> Result<()> {
        self.core.commit_offsets(offsets)
    }

    /// What the group has committed for a partition, here or in an earlier run; `None` if it never has.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned).
    pub fn committed(&self, topic: &str, partition: u32) -> Result<Option<u64>> {
        Ok(self.core.committed(&self.core.assigned[self.core.index(topic, partition)?]))
    }
}
