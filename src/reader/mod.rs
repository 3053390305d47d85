//! Reading without a group: whole topics, single partitions, one record at a time.
//!
//! # Invariants
//! - Nothing is skipped silently: at damage, and where retention was faster, a position stays until somebody moves it,
//!   or the program's policy does, which is told.
//! - What was read of other partitions when one of them failed is handed out first; the error comes next.
//!
//! # Thread safety
//! Readers are moved between threads, not shared. They take no lock that an append could wait for.

mod place;
mod policy;
mod turns;

use std::{fmt, sync::Arc, vec};

use crate::{
    config::Start,
    error::{Repr, Result},
    partition::{Batch, PartitionLog},
    record::OwnedRecord,
    topic::{Keepalive, Partition, Topic, TopicState},
};

pub(crate) use place::{Bounds, Place, resolve, seek_to_time};
pub(crate) use policy::Policies;
pub use policy::{CorruptionPolicy, OutOfRangePolicy};
pub(crate) use turns::Turns;

/// About the size of a reader's batch, in bytes: large enough to read at full speed, small enough to stay in the
/// processor's cache.
const BATCH_BYTES: usize = 512 << 10;

/// About the size of what an iterator of owned records copies at once, in bytes.
pub(crate) const RECORDS_BYTES: usize = 64 << 10;

/// What one of a partition's copies at first. It grows fourfold with each step.
const FIRST_RECORDS: Bounds = Bounds { bytes: 256, records: 1 };

/// Reads all partitions of a topic, or a single one, without a group and without commits.
///
/// ```
/// # use tidelog::{Log, Record, Start, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(4))?;
/// orders.append_batch((0..100).map(|i| Record::new(format!("order {i}")).key(format!("customer-{i}"))))?;
///
/// let mut reader = orders.reader(Start::Earliest)?;
/// let mut count = 0;
/// while let Some(batch) = reader.next_batch()? {
///     for record in &batch {
///         println!("{}-{}: {:?}", record.partition(), record.offset(), record.value_str()?);
///         count += 1;
///     }
/// }
/// assert_eq!(count, 100);
/// # Ok(())
/// # }
/// ```
///
/// Order is kept within a partition; how partitions are mixed isn't defined, but none waits for ever. Partitions that the
/// topic is [given later](crate::Log::increase_partitions) are read from their beginning on.
pub struct Reader {
    /// Unless it is a single partition's.
    topic: Option<Arc<TopicState>>,
    places: Vec<Place>,
    turns: Turns,
    policies: Policies,
    _keepalive: Keepalive,
}

impl Topic {
    /// Reads all partitions from `start` on.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) if [`Start::Offset`] lies outside one of the
    /// partitions; for [`Start::Time`] those of [`Partition::offset_for_time`]; [`Closed`](crate::ErrorKind::Closed).
    pub fn reader(&self, start: Start) -> Result<Reader> {
        let reader = Reader::new(self.state().partitions.iter(), start, self.keepalive().clone())?;
        Ok(Reader { topic: Some(self.state().clone()), ..reader })
    }
}

impl Partition {
    /// Reads this partition from `start` on.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange); for [`Start::Time`] those of
    /// [`offset_for_time`](Partition::offset_for_time); [`Closed`](crate::ErrorKind::Closed).
    pub fn reader(&self, start: Start) -> Result<Reader> {
        Reader::new([self.log()], start, self.keepalive().clone())
    }

    /// The records from `offset` on, one at a time, copied: the convenient way for few of them.
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// orders.append(Record::new("tea"))?;
    /// for record in orders.partition(0)?.read_from(0)? {
    ///     assert_eq!(record?.value(), Some(&b"tea"[..]));
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), [`Closed`](crate::ErrorKind::Closed).
    pub fn read_from(&self, offset: u64) -> Result<PartitionRecords> {
        self.records(Start::Offset(offset))
    }

    /// As [`read_from`](Partition::read_from), from the first record on whose
    /// [`timestamp_ms`](crate::RecordRef::timestamp_ms) is at or behind `time_ms`; from the log end offset on where there
    /// is none. See [`offset_for_time`](Partition::offset_for_time).
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?.partition(0)?;
    /// orders.append(Record::new("coffee").timestamp_ms(1_000))?;
    /// orders.append(Record::new("tea").timestamp_ms(2_000))?;
    /// let late = orders.read_from_time(1_500)?.next().transpose()?;
    /// assert_eq!(late.as_ref().and_then(|record| record.value()), Some(&b"tea"[..]));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`offset_for_time`](Partition::offset_for_time).
    pub fn read_from_time(&self, time_ms: i64) -> Result<PartitionRecords> {
        self.records(Start::Time(time_ms))
    }

    /// The offset of the first record, in the order of offsets, whose
    /// [`timestamp_ms`](crate::RecordRef::timestamp_ms) is at or behind `time_ms`, in milliseconds since the Unix epoch;
    /// `None` if there is none.
    ///
    /// A record's timestamp is the client's, where it gave one, else the time of the append. Clients' timestamps needn't
    /// be in order, so records behind the one that is found may be older; none before it is as young as `time_ms`. A
    /// sparse index sees to it that only the parts of the log are read that may hold the one.
    ///
    /// # Errors
    /// - [`Corruption`](crate::ErrorKind::Corruption): records that may be the one can't be read;
    ///   [`Error::resume_offset`](crate::Error::resume_offset) is where reading can go on. Damage that can't decide is
    ///   no error here.
    /// - [`Io`](crate::ErrorKind::Io), [`Closed`](crate::ErrorKind::Closed).
    #[doc(alias = "offsetsForTimes")]
    pub fn offset_for_time(&self, time_ms: i64) -> Result<Option<u64>> {
        self.log().check_open()?;
        self.log().offset_for_time(time_ms)
    }

    fn records(&self, start: Start) -> Result<PartitionRecords> {
        let place = open_place(self.log(), start)?;
        Ok(PartitionRecords {
            place,
            bounds: FIRST_RECORDS,
            copied: Vec::new().into_iter(),
            failed: false,
            _keepalive: self.keepalive().clone(),
        })
    }
}

fn open_place(partition: &Arc<PartitionLog>, start: Start) -> Result<Place> {
    partition.check_open()?;
    Place::at(partition, start)
}

impl Reader {
    fn new<'a>(
        partitions: impl IntoIterator<Item = &'a Arc<PartitionLog>>,
        start: Start,
        keepalive: Keepalive,
    ) -> Result<Self> {
        let places = partitions.into_iter().map(|partition| open_place(partition, start)).collect::<Result<_>>()?;
        Ok(Self { topic: None, places, turns: Turns::default(), policies: Policies::default(), _keepalive: keepalive })
    }

    /// What to do at records that can't be read. Default: [`CorruptionPolicy::Fail`].
    pub fn on_corruption(mut self, policy: CorruptionPolicy) -> Self {
        self.policies.corruption = policy;
        self
    }

    /// What to do where the position is no longer in the log: retention was faster than the reader. Default:
    /// [`OutOfRangePolicy::Fail`].
    pub fn on_out_of_range(mut self, policy: OutOfRangePolicy) -> Self {
        self.policies.out_of_range = policy;
        self
    }

    /// The next records, about half a MiB of them; `None` if there are no more for now. A later call gives what was
    /// appended meanwhile.
    ///
    /// The batch has no record if there was nothing but what a policy passed over: [`Batch::skipped`].
    ///
    /// # Errors
    /// - [`Corruption`](crate::ErrorKind::Corruption), unless a policy says otherwise: some records can't be read. The
    ///   reader stays there and tells it again, until [`seek`](Reader::seek) moves it on, to
    ///   [`Error::resume_offset`](crate::Error::resume_offset) for instance. Other partitions are read meanwhile.
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), unless a policy says otherwise: the records were
    ///   removed before they were read; likewise.
    /// - [`Io`](crate::ErrorKind::Io), [`LimitReached`](crate::ErrorKind::LimitReached),
    ///   [`Closed`](crate::ErrorKind::Closed).
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.next_batch_of(BATCH_BYTES)
    }

    /// As [`next_batch`](Reader::next_batch), of about so many bytes.
    pub(crate) fn next_batch_of(&mut self, bytes: usize) -> Result<Option<Batch>> {
        self.places.iter().try_for_each(|place| place.partition().check_open())?;
        self.follow_topic()?;
        let bounds = Bounds { bytes, records: u64::MAX };
        let batch = self.turns.read(&mut self.places, bounds, self.policies)?;
        Ok(if batch.is_empty() && batch.skipped().is_empty() { None } else { Some(batch) })
    }

    /// Takes up partitions that came to the topic.
    fn follow_topic(&mut self) -> Result<()> {
        let Some(topic) = &self.topic else { return Ok(()) };
        // As a reader of a topic it has all of them, by number.
        while let Some(partition) = topic.partitions.get(self.places.len() as u32) {
            self.places.push(open_place(partition, Start::Earliest)?);
        }
        Ok(())
    }

    /// Goes on reading a partition at `offset`.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) (and the position stays);
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned) if the reader doesn't read that partition;
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        self.follow_topic()?;
        let index = self.index(partition)?;
        self.places[index].partition().check_open()?;
        self.places[index].seek(offset)?;
        self.turns.forget_error();
        Ok(())
    }

    /// Goes on reading every partition at the first record whose [`timestamp_ms`](crate::RecordRef::timestamp_ms) is at or
    /// behind `time_ms`, in milliseconds since the Unix epoch; at the log end offset where there is none. See
    /// [`Partition::offset_for_time`].
    ///
    /// # Errors
    /// Those of [`Partition::offset_for_time`], whatever the policies say; all positions stay then.
    pub fn seek_to_time(&mut self, time_ms: i64) -> Result<()> {
        self.places.iter().try_for_each(|place| place.partition().check_open())?;
        self.follow_topic()?;
        seek_to_time(&mut self.places, time_ms)?;
        self.turns.forget_error();
        Ok(())
    }

    /// The position in a partition: the next record handed out has this offset or, where offsets have a gap, a greater
    /// one.
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned) if the reader doesn't read that partition.
    pub fn position(&self, partition: u32) -> Result<u64> {
        Ok(self.places[self.index(partition)?].position())
    }

    /// The place of a partition.
    fn index(&self, partition: u32) -> Result<usize> {
        let found = self.places.iter().position(|place| place.partition().spec().number == partition);
        found.ok_or_else(|| {
            let topic = self.places.first().map(|place| place.partition().spec().topic.to_string());
            Repr::NotAssigned { topic: topic.unwrap_or_default(), partition }.into()
        })
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let positions = self.places.iter().map(|place| (place.partition().spec().number, place.position()));
        f.debug_map().entries(positions).finish()
    }
}

/// The records of a partition, one at a time: from [`Partition::read_from`].
///
/// It ends (`None`) where there are no more records for now, and gives more when more were appended. After an error it
/// ends, too, until [`seek`](PartitionRecords::seek) sets it on again:
///
/// ```
/// # use tidelog::{Log, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let partition = log.create_topic("orders", TopicConfig::with_partitions(1))?.partition(0)?;
/// let mut records = partition.read_from(0)?;
/// while let Some(record) = records.next() {
///     match record {
///         Ok(record) => println!("{:?}", record.value_str()?),
///         Err(error) => match error.resume_offset() {
///             Some(offset) => records.seek(offset)?, // what is damaged is skipped, knowingly
///             None => return Err(error),
///         },
///     }
/// }
/// # Ok(())
/// # }
/// ```
pub struct PartitionRecords {
    place: Place,
    /// How much is copied next: little at first, for who wants one record only, and more and more.
    bounds: Bounds,
    /// Read, and not handed out yet.
    copied: vec::IntoIter<OwnedRecord>,
    failed: bool,
    _keepalive: Keepalive,
}

impl PartitionRecords {
    /// Goes on at `offset`, also after an error.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), and the position stays;
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn seek(&mut self, offset: u64) -> Result<()> {
        self.place.partition().check_open()?;
        self.place.seek(offset)?;
        self.bounds = FIRST_RECORDS;
        self.copied = Vec::new().into_iter();
        self.failed = false;
        Ok(())
    }

    /// The position: the next record has this offset or, where offsets have a gap, a greater one.
    pub fn position(&self) -> u64 {
        self.copied.as_slice().first().map_or_else(|| self.place.position(), OwnedRecord::offset)
    }

    /// Copies the next records; `None` if there are none for now.
    fn copy_more(&mut self) -> Result<Option<()>> {
        self.place.partition().check_open()?;
        let Some(run) = self.place.next_run(self.bounds)? else { return Ok(None) };
        self.bounds = match self.bounds.bytes.saturating_mul(4) {
            bytes if bytes < RECORDS_BYTES => Bounds { bytes, records: self.bounds.records.saturating_mul(4) },
            _ => Bounds { bytes: RECORDS_BYTES, records: u64::MAX },
        };
        let records: Vec<OwnedRecord> = run.iter().map(|record| record.to_owned()).collect();
        self.copied = records.into_iter();
        Ok(Some(()))
    }
}

impl Iterator for PartitionRecords {
    type Item = Result<OwnedRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.copied.next() {
                return Some(Ok(record));
            }
            if self.failed {
                return None;
            }
            match self.copy_more() {
                Ok(Some(())) => {}
                Ok(None) => return None,
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl fmt::Debug for PartitionRecords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionRecords").field("position", &self.position()).finish_non_exhaustive()
    }
}
