//! Where a consumer reads on, and where it doesn't for now.

use super::{Consumer, core::Core};
use crate::{config::Start, error::Result, reader::seek_to_time};

impl Consumer {
    /// Goes on reading a partition at `offset`. Commits nothing.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned); [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), and
    /// the position stays; [`UnknownTopic`](crate::ErrorKind::UnknownTopic) if the topic was deleted;
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn seek(&mut self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        self.core.seek(topic, partition, Start::Offset(offset))
    }

    /// Goes on reading a partition at its log start offset: everything that is there comes again. Commits nothing.
    ///
    /// # Errors
    /// Those of [`seek`](Consumer::seek), but for an offset that is out of range.
    #[doc(alias = "seekToBeginning")]
    pub fn seek_to_start(&mut self, topic: &str, partition: u32) -> Result<()> {
        self.core.seek(topic, partition, Start::Earliest)
    }

    /// Goes on reading a partition at its log end offset: only what comes from now on. Commits nothing.
    ///
    /// # Errors
    /// Those of [`seek`](Consumer::seek), but for an offset that is out of range.
    #[doc(alias = "seekToEnd")]
    pub fn seek_to_end(&mut self, topic: &str, partition: u32) -> Result<()> {
        self.core.seek(topic, partition, Start::Latest)
    }

    /// Goes on reading every partition at the first record whose [`timestamp_ms`](crate::RecordRef::timestamp_ms) is at or
    /// behind `time_ms`, in milliseconds since the Unix epoch; at the log end offset where there is none. Commits nothing.
    /// See [`Partition::offset_for_time`](crate::Partition::offset_for_time).
    ///
    /// # Errors
    /// Those of [`Partition::offset_for_time`](crate::Partition::offset_for_time), whatever the policies say; all
    /// positions stay then.
    pub fn seek_to_time(&mut self, time_ms: i64) -> Result<()> {
        let core = &mut self.core;
        core.check_open()?;
        seek_to_time(&mut core.assigned, time_ms)?;
        core.turns.forget_error();
        core.positions_moved();
        Ok(())
    }

    /// Goes back to the committed offsets, as if the program had been started again: records that were polled and not
    /// committed come again. Where nothing was committed, to where the group began.
    ///
    /// # Errors
    /// [`Closed`](crate::ErrorKind::Closed). A committed offset outside the log is told by the next
    /// [`poll`](Consumer::poll).
    pub fn rewind(&mut self) -> Result<()> {
        let core = &mut self.core;
        core.check_open()?;
        let offsets: Vec<u64> = core.assigned.iter().map(|assigned| core.restart_offset(assigned)).collect();
        for (assigned, offset) in core.assigned.iter_mut().zip(offsets) {
            assigned.place.restart(offset);
        }
        core.turns.forget_error();
        core.positions_moved();
        Ok(())
    }

    /// The position in a partition: the next record that `poll` hands out has this offset or, where offsets have a
    /// gap, a greater one.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned).
    pub fn position(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.core.assigned[self.core.index(topic, partition)?].place.position())
    }

    /// Reads these partitions (topic and number) no further until [`resume`](Consumer::resume): nothing of them comes
    /// out of [`poll`](Consumer::poll), neither records nor errors, nor does what is appended to them wake it. They
    /// stay assigned, and keep their positions, which can be moved and are committed as others are. All of them or, on
    /// an error, none.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(2))?;
    /// # orders.append(Record::new("tea").partition(0))?;
    /// # orders.append(Record::new("milk").partition(1))?;
    /// let mut consumer = log.consumer("billing").topic("orders").open()?;
    /// consumer.pause([("orders", 0)])?; // its customers can't be reached just now
    /// assert_eq!(consumer.poll(Duration::ZERO)?.len(), 1);
    /// consumer.resume([("orders", 0)])?;
    /// assert_eq!(consumer.poll(Duration::ZERO)?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned), [`Closed`](crate::ErrorKind::Closed).
    pub fn pause<T: AsRef<str>>(&mut self, partitions: impl IntoIterator<Item = (T, u32)>) -> Result<()> {
        self.core.set_paused(partitions, true)
    }

    /// Goes on reading these partitions, at their positions. One that isn't paused stays as it is. All of them or, on
    /// an error, none.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned), [`Closed`](crate::ErrorKind::Closed).
    pub fn resume<T: AsRef<str>>(&mut self, partitions: impl IntoIterator<Item = (T, u32)>) -> Result<()> {
        self.core.set_paused(partitions, false)
    }

    /// The partitions that are paused: topic and number, in the order of [`assignment`](Consumer::assignment).
    pub fn paused(&self) -> Vec<(String, u32)> {
        let paused = self.core.assigned.iter().filter(|assigned| assigned.place.is_paused());
        paused.map(|assigned| (assigned.topic().to_owned(), assigned.number())).collect()
    }
}

impl Core {
    pub(super) fn seek(&mut self, topic: &str, partition: u32, start: Start) -> Result<()> {
        self.check_open()?;
        let index = self.index(topic, partition)?;
        self.assigned[index].place.seek_start(start)?;
        self.turns.forget_error();
        self.positions_moved();
        Ok(())
    }

    fn set_paused<T: AsRef<str>>(
        &mut self,
        partitions: impl IntoIterator<Item = (T, u32)>,
        paused: bool,
    ) -> Result<()> {
        self.check_open()?;
        let indexes = partitions.into_iter().map(|(topic, partition)| self.index(topic.as_ref(), partition));
        for index in indexes.collect::<Result<Vec<_>>>()? {
            self.assigned[index].place.set_paused(paused);
        }
        // Who is still watched is what wasn't paused before; the next wait looks anew.
        self.watching = None;
        // It may be one of theirs; else it is met again.
        self.turns.forget_error();
        Ok(())
    }
}
