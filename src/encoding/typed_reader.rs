//! Reading the events of a typed topic, one at a time.
//!
//! # Invariants
//! - Every record is told, whatever it holds: as an event, as `None` where its value is null, or as an error that tells
//!   its place.
//! - What was copied of a partition and not handed out yet lies before the reader's position there.
//!
//! # Thread safety
//! As readers: moved between threads, not shared.

use std::{collections::VecDeque, fmt};

use super::{Encoding, Json, TypedTopic};
use crate::{
    config::Start,
    error::Result,
    reader::{RECORDS_BYTES, Reader},
    record::OwnedRecord,
};

/// The events of a [`TypedTopic`], one at a time, each with the record that it is in: made by [`TypedTopic::reader`] and
/// [`TypedTopic::partition_reader`], without a group and without commits. So a fold over all that has happened is a loop:
///
/// ```
/// # use serde::{Deserialize, Serialize};
/// # use tidelog::{Json, Log, Start, TopicConfig};
/// #[derive(Serialize, Deserialize)]
/// struct Posting {
///     account: String,
///     cents: i64,
/// }
///
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("bank")?;
/// let ledger = log.ensure_topic("ledger", TopicConfig::with_partitions(4))?.typed(Json);
/// let ledger = ledger.keyed_by(|posting: &Posting| (&posting.account).into());
/// # for cents in [1000, -200, 500] {
/// #     ledger.append(&Posting { account: "Ada".into(), cents })?;
/// # }
///
/// let mut balance = 0;
/// for event in ledger.reader(Start::Earliest)? {
///     let (record, posting) = event?;
///     match posting {
///         Some(posting) => balance += posting.cents,
///         None => println!("a tombstone at {}-{}", record.partition(), record.offset()),
///     }
/// }
/// assert_eq!(balance, 1300);
/// # Ok(())
/// # }
/// ```
///
/// It ends (`None`) where there are no more records for now, and gives more when more were appended. Order is kept within
/// a partition, and not between them.
///
/// # Errors
/// - [`Undecodable`](crate::ErrorKind::Undecodable): this record's value can't be decoded. The next item is the record
///   behind it, so a program may go on (`continue`), or read the record at the error's topic, partition and offset.
/// - Those of [`Reader::next_batch`]. Behind one of them it ends, until [`seek`](TypedReader::seek) sets it on again, at
///   [`Error::resume_offset`](crate::Error::resume_offset) for instance.
///
/// Each record is copied. Where speed matters, take [`Topic::reader`](crate::Topic::reader) and
/// [`Batch::typed`](crate::Batch::typed), which borrow.
pub struct TypedReader<'a, T, E = Json> {
    topic: &'a TypedTopic<T, E>,
    reader: Reader,
    /// Read, and not handed out yet.
    copied: VecDeque<OwnedRecord>,
    failed: bool,
}

impl<T, E: Encoding<T>> TypedTopic<T, E> {
    /// Reads the events of all partitions from `start` on.
    ///
    /// # Errors
    /// Those of [`Topic::reader`](crate::Topic::reader).
    pub fn reader(&self, start: Start) -> Result<TypedReader<'_, T, E>> {
        Ok(TypedReader::new(self, self.topic().reader(start)?))
    }

    /// Reads the events of one partition from `start` on.
    ///
    /// # Errors
    /// [`UnknownPartition`](crate::ErrorKind::UnknownPartition), and those of
    /// [`Partition::reader`](crate::Partition::reader).
    pub fn partition_reader(&self, partition: u32, start: Start) -> Result<TypedReader<'_, T, E>> {
        Ok(TypedReader::new(self, self.topic().partition(partition)?.reader(start)?))
    }
}

impl<'a, T, E> TypedReader<'a, T, E> {
    fn new(topic: &'a TypedTopic<T, E>, reader: Reader) -> Self {
        Self { topic, reader, copied: VecDeque::new(), failed: false }
    }

    /// Goes on reading a partition at `offset`, also after an error. Other partitions stay where they are.
    ///
    /// # Errors
    /// Those of [`Reader::seek`]; nothing has changed then.
    pub fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.reader.seek(partition, offset)?;
        self.copied.retain(|record| record.partition() != partition);
        self.failed = false;
        Ok(())
    }

    /// The position in a partition: its next record has this offset or, where offsets have a gap, a greater one.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned) if it doesn't read that partition.
    pub fn position(&self, partition: u32) -> Result<u64> {
        let position = self.reader.position(partition)?;
        let next = self.copied.iter().find(|record| record.partition() == partition);
        Ok(next.map_or(position, OwnedRecord::offset))
    }

    /// The next record; copies more where there are none left.
    fn next_record(&mut self) -> Result<Option<OwnedRecord>> {
        if self.copied.is_empty() {
            if let Some(batch) = self.reader.next_batch_of(RECORDS_BYTES)? {
                self.copied.extend(batch.iter().map(|record| record.to_owned()));
            }
        }
        Ok(self.copied.pop_front())
    }
}

impl<T, E: Encoding<T>> Iterator for TypedReader<'_, T, E> {
    type Item = Result<(OwnedRecord, Option<T>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        match self.next_record() {
            Ok(record) => record.map(|record| {
                let event = record.decode(self.topic.encoding())?;
                Ok((record, event))
            }),
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}

impl<T, E> fmt::Debug for TypedReader<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedReader").field("topic", self.topic).finish_non_exhaustive()
    }
}
