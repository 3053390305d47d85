//! A topic and its partitions, as a program uses them.
//!
//! # Invariants
//! - Handles ([`Topic`], [`Partition`]) hold a keepalive, so that the log stays open while any of them lives.
//!   [`TopicState`], which the log itself holds, doesn't: there is no cycle.
//! - Nothing of a batch is appended before all of it was checked.
//!
//! # Thread safety
//! Any thread may call anything.

use std::{
    any::Any,
    fmt,
    ops::{ControlFlow, Range},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    config::{Durability, TopicConfig},
    error::{Error, Repr, Result},
    partition::{PartitionLog, Settings},
    partition_list::PartitionList,
    partitioner::{DefaultPartitioner, Partitioner},
    place::{Appended, AppendedRange},
    record::Record,
    verification::{Verification, VerifyProgress, VerifyReport},
};

/// Keeps the log open, whatever it is, as long as a handle lives.
pub(crate) type Keepalive = Arc<dyn Any + Send + Sync>;

/// What all handles of one topic share.
pub(crate) struct TopicState {
    pub(crate) name: Arc<str>,
    pub(crate) id: u128,
    /// What its file says; changed behind it.
    pub(crate) config: Mutex<TopicConfig>,
    /// Shared by the partitions.
    pub(crate) settings: Arc<Settings>,
    pub(crate) partitions: PartitionList,
    /// Shared, so that keyless records of all handles stay together.
    pub(crate) partitioner: DefaultPartitioner,
}

impl TopicState {
    /// The partition's log; kind `UnknownPartition`.
    pub(crate) fn partition(&self, number: u32) -> Result<&Arc<PartitionLog>> {
        self.partitions.get(number).ok_or_else(|| {
            Repr::UnknownPartition { topic: self.name.to_string(), partition: number, count: self.partitions.len() }
                .into()
        })
    }
}

/// Calls `each` on all partitions, whatever fails; answers the first error.
pub(crate) fn for_all<'a>(
    partitions: impl IntoIterator<Item = &'a Arc<PartitionLog>>,
    each: impl Fn(&PartitionLog) -> Result<()>,
) -> Result<()> {
    partitions.into_iter().map(|partition| each(partition)).fold(Ok(()), Result::and)
}

/// Verifies partitions of one topic.
fn verify<'a>(
    partitions: impl Iterator<Item = &'a Arc<PartitionLog>>,
    mut progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>,
) -> Result<VerifyReport> {
    let mut verification = Verification::new(&mut progress);
    let plans: Vec<_> = partitions.map(|log| log.plan_verification(&mut verification)).collect::<Result<_>>()?;
    for plan in plans {
        if !verification.is_stopped() {
            plan.run(&mut verification, None)?;
        }
    }
    verification.tell();
    verification.finish()
}

/// A named topic: records go to its partitions, by key. Cheap to clone; any thread may use it.
///
/// A topic keeps its log open, also when the [`Log`](crate::Log) was dropped. After
/// [`Log::close`](crate::Log::close), everything that appends or reads answers kind
/// [`Closed`](crate::ErrorKind::Closed); after [`Log::delete_topic`](crate::Log::delete_topic), kind
/// [`UnknownTopic`](crate::ErrorKind::UnknownTopic).
///
/// # When an append may block
/// Most appends are a copy into memory (on Linux, while no more than 64 KiB of the partition aren't durable, by `pwrite`, so
/// that no more goes to the device than was appended). Now and then one waits: for other threads that append to the same
/// partition; to reserve space in the file (about every 64 KiB to a few MiB); to begin a new segment; for another partition's flush
/// when too many files are open (see [`LogOptions::max_open_files`](crate::LogOptions::max_open_files)); and for the
/// device when numbers for new records have to be reserved there, which is done ahead in the background. With
/// [`Durability::Synced`], each waits for the device.
///
/// The first append to a log since it was opened starts two threads, which inherit what threads do inherit of the one that
/// appends: where it may run, and how urgently.
#[derive(Clone)]
pub struct Topic {
    state: Arc<TopicState>,
    /// The user's own, if there is one.
    partitioner: Option<Arc<dyn Partitioner>>,
    keepalive: Keepalive,
}

impl Topic {
    pub(crate) fn new(state: Arc<TopicState>, keepalive: Keepalive) -> Self {
        Self { state, partitioner: None, keepalive }
    }

    pub(crate) fn state(&self) -> &Arc<TopicState> {
        &self.state
    }

    pub(crate) fn keepalive(&self) -> &Keepalive {
        &self.keepalive
    }

    /// The topic's name.
    pub fn name(&self) -> &str {
        &self.state.name
    }

    /// The number of partitions. They are numbered from 0 on.
    pub fn partitions(&self) -> u32 {
        self.state.partitions.len()
    }

    /// The topic's options, as they are now. What isn't set there is the log's.
    pub fn config(&self) -> TopicConfig {
        self.state.config.lock().clone()
    }

    /// One partition, to append to or read from directly.
    ///
    /// # Errors
    /// [`UnknownPartition`](crate::ErrorKind::UnknownPartition) if there is none of that number.
    pub fn partition(&self, number: u32) -> Result<Partition> {
        let log = self.state.partition(number)?.clone();
        Ok(Partition { log, keepalive: self.keepalive.clone() })
    }

    /// A handle of the same topic whose records go where `partitioner` says, unless they name a partition
    /// themselves. Other handles aren't affected.
    pub fn with_partitioner(&self, partitioner: impl Partitioner + 'static) -> Topic {
        Topic { partitioner: Some(Arc::new(partitioner)), ..self.clone() }
    }

    /// Appends a record with the topic's durability; answers where it went.
    ///
    /// The partition is the record's own ([`Record::partition`]), else that of its key, else the one at which keyless
    /// records are at the moment. See [above](Topic#when-an-append-may-block) for when this may block.
    ///
    /// # Errors
    /// - [`RecordTooLarge`](crate::ErrorKind::RecordTooLarge), [`UnknownPartition`](crate::ErrorKind::UnknownPartition):
    ///   nothing was appended.
    /// - [`StorageFull`](crate::ErrorKind::StorageFull): nothing was appended; appends succeed again once there is
    ///   space.
    /// - [`LimitReached`](crate::ErrorKind::LimitReached): the process has no more descriptors, threads or maps; with
    ///   [`Durability::Synced`] the record may have been appended. Appends succeed again once there are some.
    /// - [`Io`](crate::ErrorKind::Io), [`Poisoned`](crate::ErrorKind::Poisoned): a write or sync failed, now or
    ///   earlier; with [`Durability::Synced`] the record may have been appended.
    /// - [`Closed`](crate::ErrorKind::Closed).
    #[doc(alias = "send", alias = "produce")]
    pub fn append(&self, record: Record<'_>) -> Result<Appended> {
        self.append_record(&record, None)
    }

    /// As [`append`](Topic::append), with a durability for this one record.
    ///
    /// # Errors
    /// Those of `append`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn append_with(&self, record: Record<'_>, durability: Durability) -> Result<Appended> {
        durability.validate()?;
        self.append_record(&record, Some(durability))
    }

    /// Appends records, in order within each partition; answers the ranges of offsets that they took.
    ///
    /// Of the records that go to one partition, as many as make about 1 MiB, at most 65,535, are one frame: written and
    /// read all or nothing. Size and partition of every record are checked before the first one is appended.
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
    /// let ranges = orders.append_batch((0..100).map(|i| Record::new(format!("order {i}"))))?;
    /// assert_eq!(ranges.iter().map(|range| range.offsets.end - range.offsets.start).sum::<u64>(), 100);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`append`](Topic::append). What had been appended when a later part failed is told by
    /// [`Error::appended`](crate::Error::appended).
    pub fn append_batch<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Result<Vec<AppendedRange>> {
        self.append_records(records.into_iter().collect(), None)
    }

    /// As [`append_batch`](Topic::append_batch), with a durability for these records.
    ///
    /// # Errors
    /// Those of `append_batch`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn append_batch_with<'a>(
        &self,
        records: impl IntoIterator<Item = Record<'a>>,
        durability: Durability,
    ) -> Result<Vec<AppendedRange>> {
        durability.validate()?;
        self.append_records(records.into_iter().collect(), Some(durability))
    }

    /// Returns when everything that was appended to the topic before is on the device, whatever its durability.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) and [`Poisoned`](crate::ErrorKind::Poisoned) for a sync that failed, now or
    /// earlier; [`Closed`](crate::ErrorKind::Closed). All partitions are tried, the first error is answered.
    pub fn flush(&self) -> Result<()> {
        for_all(self.state.partitions.iter(), PartitionLog::flush)
    }

    /// Reads all records that are there and checks them; see [`Log::verify`](crate::Log::verify).
    ///
    /// # Errors
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic), [`Closed`](crate::ErrorKind::Closed),
    /// [`LimitReached`](crate::ErrorKind::LimitReached).
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(|_| ControlFlow::Continue(()))
    }

    /// As [`verify`](Topic::verify); `progress` is told how far it has come, and can end it.
    ///
    /// # Errors
    /// Those of `verify`.
    pub fn verify_with(&self, progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>) -> Result<VerifyReport> {
        verify(self.state.partitions.iter(), progress)
    }

    fn append_record(&self, record: &Record<'_>, durability: Option<Durability>) -> Result<Appended> {
        let partition = self.choose(record);
        let offset = self.state.partition(partition)?.append(record, durability)?;
        Ok(Appended { partition, offset })
    }

    fn append_records(&self, records: Vec<Record<'_>>, durability: Option<Durability>) -> Result<Vec<AppendedRange>> {
        let numbers: Vec<u32> = records.iter().map(|record| self.choose(record)).collect();
        for run in numbers.chunk_by(u32::eq) {
            self.state.partition(run[0])?; // `chunk_by` makes no empty chunks
        }
        let mut appended = Vec::new();
        // Most often all go to one, and none has to be moved.
        if let Some(&only) = numbers.first().filter(|&first| numbers.iter().all(|number| number == first)) {
            append_to(self.state.partition(only)?, &records, durability, &mut appended)
                .map_err(|error| error.after_appending(appended.clone()))?;
            return Ok(appended);
        }
        let mut placed: Vec<_> = numbers.into_iter().zip(records).collect();
        placed.sort_by_key(|&(partition, _)| partition); // stable: keeps the order within a partition
        let (numbers, records): (Vec<u32>, Vec<Record<'_>>) = placed.into_iter().unzip();
        // A partition checks all that it is given before it appends; over several, nothing else would.
        for (&number, record) in numbers.iter().zip(&records) {
            self.state.partition(number)?.check_record(record)?;
        }

        let mut rest = records.as_slice();
        for run in numbers.chunk_by(u32::eq) {
            let (records, behind) = rest.split_at(run.len());
            rest = behind;
            let partition = run[0];
            append_to(self.state.partition(partition)?, records, durability, &mut appended)
                .map_err(|error| error.after_appending(appended.clone()))?;
        }
        Ok(appended)
    }

    /// The number of the partition that `record` belongs to; may be one that isn't there.
    fn choose(&self, record: &Record<'_>) -> u32 {
        match (record.explicit_partition(), &self.partitioner) {
            (Some(partition), _) => partition,
            (None, Some(own)) => own.partition(record, self.partitions()),
            (None, None) if self.partitions() == 1 => 0,
            (None, None) => self.state.partitioner.partition(record, self.partitions()),
        }
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topic")
            .field("name", &self.name())
            .field("partitions", &self.partitions())
            .finish_non_exhaustive()
    }
}

/// Appends records to one partition; adds the ranges that were appended to `appended`, also when it fails midway.
fn append_to(
    partition: &Arc<PartitionLog>,
    records: &[Record<'_>],
    durability: Option<Durability>,
    appended: &mut Vec<AppendedRange>,
) -> Result<()> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    let outcome = partition.append_batch(records, durability, &mut ranges);
    let number = partition.spec().number;
    appended.extend(ranges.into_iter().map(|offsets| AppendedRange { partition: number, offsets }));
    outcome
}

/// One partition of a topic: an ordered sequence of records. Cheap to clone; any thread may use it.
///
/// It keeps its log open, as a [`Topic`] does.
#[derive(Clone)]
pub struct Partition {
    log: Arc<PartitionLog>,
    keepalive: Keepalive,
}

impl Partition {
    pub(crate) fn log(&self) -> &Arc<PartitionLog> {
        &self.log
    }

    pub(crate) fn keepalive(&self) -> &Keepalive {
        &self.keepalive
    }

    /// The name of its topic.
    pub fn topic(&self) -> &str {
        &self.log.spec().topic
    }

    /// Its number in the topic.
    pub fn number(&self) -> u32 {
        self.log.spec().number
    }

    /// Appends a record here, whatever its key is; answers where it went.
    ///
    /// # Errors
    /// Those of [`Topic::append`]; [`UnknownPartition`](crate::ErrorKind::UnknownPartition) if the record names
    /// another partition.
    pub fn append(&self, record: Record<'_>) -> Result<Appended> {
        self.append_record(&record, None)
    }

    /// As [`append`](Partition::append), with a durability for this one record.
    ///
    /// # Errors
    /// Those of `append`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn append_with(&self, record: Record<'_>, durability: Durability) -> Result<Appended> {
        durability.validate()?;
        self.append_record(&record, Some(durability))
    }

    /// Appends records here, in order. See [`Topic::append_batch`].
    ///
    /// # Errors
    /// Those of [`append`](Partition::append). What had been appended when a later part failed is told by
    /// [`Error::appended`](crate::Error::appended).
    pub fn append_batch<'a>(&self, records: impl IntoIterator<Item = Record<'a>>) -> Result<Vec<AppendedRange>> {
        self.append_records(records.into_iter().collect(), None)
    }

    /// As [`append_batch`](Partition::append_batch), with a durability for these records.
    ///
    /// # Errors
    /// Those of `append_batch`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn append_batch_with<'a>(
        &self,
        records: impl IntoIterator<Item = Record<'a>>,
        durability: Durability,
    ) -> Result<Vec<AppendedRange>> {
        durability.validate()?;
        self.append_records(records.into_iter().collect(), Some(durability))
    }

    /// Appends a record if nothing was appended here since [`end_offset`](Partition::end_offset) answered
    /// `expected_end`: of several writers that act on the same state of the partition, one wins, and the others learn
    /// that they have to look again. Most often the end is where a reader stands who has read everything.
    ///
    /// ```
    /// # use tidelog::{ErrorKind, Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # let seats = log.create_topic("seats", TopicConfig::with_partitions(1))?.partition(0)?;
    /// let end = seats.end_offset();
    /// // ... nobody has taken seat 12, by all the records below `end` ...
    /// match seats.append_if(end, Record::new("seat 12: Ada")) {
    ///     Ok(_) => println!("it is hers"),
    ///     Err(error) if error.kind() == ErrorKind::Conflict => println!("read on to {:?}", error.end_offset()),
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// The record's offset is `expected_end`, or greater: offsets can have gaps, also one that begins at the end of the
    /// log. An `expected_end` that was taken before the log was closed and opened again holds if the end is still the
    /// same.
    ///
    /// # Errors
    /// - [`Conflict`](crate::ErrorKind::Conflict): something was appended since, or the log never ended there; it ends at
    ///   [`Error::end_offset`]. Nothing was appended.
    /// - Those of [`append`](Partition::append). With [`Durability::Synced`], an error other than `Conflict` may come
    ///   behind the append, as it does there.
    pub fn append_if(&self, expected_end: u64, record: Record<'_>) -> Result<Appended> {
        let appended = self.append_records_if(expected_end, &[record], None)?;
        Ok(Appended { partition: appended.partition, offset: appended.offsets.start })
    }

    /// As [`append_if`](Partition::append_if), with a durability for this one record.
    ///
    /// # Errors
    /// Those of `append_if`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn append_if_with(&self, expected_end: u64, record: Record<'_>, durability: Durability) -> Result<Appended> {
        durability.validate()?;
        let appended = self.append_records_if(expected_end, &[record], Some(durability))?;
        Ok(Appended { partition: appended.partition, offset: appended.offsets.start })
    }

    /// As [`append_if`](Partition::append_if), of several records: all of them, as one frame, or none. Of no records it
    /// only checks the end.
    ///
    /// # Errors
    /// Those of `append_if`; [`RecordTooLarge`](crate::ErrorKind::RecordTooLarge) also if they don't fit one frame,
    /// which holds about 1 MiB and at most 65,535 records. Nothing was appended then.
    pub fn append_batch_if<'a>(
        &self,
        expected_end: u64,
        records: impl IntoIterator<Item = Record<'a>>,
    ) -> Result<AppendedRange> {
        self.append_records_if(expected_end, &records.into_iter().collect::<Vec<_>>(), None)
    }

    /// As [`append_batch_if`](Partition::append_batch_if), with a durability for these records.
    ///
    /// # Errors
    /// Those of `append_batch_if`, and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an interval below 1 ms.
    pub fn append_batch_if_with<'a>(
        &self,
        expected_end: u64,
        records: impl IntoIterator<Item = Record<'a>>,
        durability: Durability,
    ) -> Result<AppendedRange> {
        durability.validate()?;
        self.append_records_if(expected_end, &records.into_iter().collect::<Vec<_>>(), Some(durability))
    }

    /// Deletes the records below `before`: raises the log start offset to it, durably, and removes the files of segments
    /// that lie wholly below. Answers the log start offset, which is greater than `before` if those records were gone
    /// before.
    ///
    /// Any offset up to the log end offset will do, also one in the middle of a batch. What is deleted can't be read any
    /// more, but a reader that is in the midst of it may go on to the end of the file that it has mapped; batches stay
    /// valid. The bytes of a record go with the last record of its segment; deleting up to the log end offset leaves none.
    ///
    /// Flushes first, and so may block as [`flush`](Partition::flush) does.
    ///
    /// # Errors
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange): `before` lies behind the log end offset. Nothing was
    ///   deleted.
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull): by
    ///   [`start_offset`](Partition::start_offset), the records are deleted or not. A file that couldn't be removed is
    ///   removed another time.
    /// - [`Poisoned`](crate::ErrorKind::Poisoned), [`Closed`](crate::ErrorKind::Closed).
    pub fn delete_records(&self, before: u64) -> Result<u64> {
        self.log.delete_records(before)
    }

    /// Returns when everything that was appended here before is on the device, whatever its durability.
    ///
    /// # Errors
    /// Those of [`Topic::flush`].
    pub fn flush(&self) -> Result<()> {
        self.log.flush()
    }

    /// Reads all records that are there and checks them; see [`Log::verify`](crate::Log::verify).
    ///
    /// # Errors
    /// Those of [`Topic::verify`].
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(|_| ControlFlow::Continue(()))
    }

    /// As [`verify`](Partition::verify); `progress` is told how far it has come, and can end it.
    ///
    /// # Errors
    /// Those of `verify`.
    pub fn verify_with(&self, progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>) -> Result<VerifyReport> {
        verify(std::iter::once(&self.log), progress)
    }

    /// The log start offset: the earliest that can be read.
    #[doc(alias = "beginningOffsets")]
    pub fn start_offset(&self) -> u64 {
        self.log.start_offset()
    }

    /// The log end offset: greater than that of every record that is there, and where [`Start::Latest`] begins.
    ///
    /// [`Start::Latest`]: crate::Start::Latest
    #[doc(alias = "endOffsets")]
    pub fn end_offset(&self) -> u64 {
        self.log.end_offset()
    }

    /// The durable offset: records below it are on the device.
    pub fn durable_offset(&self) -> u64 {
        self.log.durable_offset()
    }

    fn append_record(&self, record: &Record<'_>, durability: Option<Durability>) -> Result<Appended> {
        self.check_partition(record)?;
        Ok(Appended { partition: self.number(), offset: self.log.append(record, durability)? })
    }

    fn append_records(&self, records: Vec<Record<'_>>, durability: Option<Durability>) -> Result<Vec<AppendedRange>> {
        for record in &records {
            self.check_partition(record)?;
            self.log.check_record(record)?;
        }
        let mut appended = Vec::new();
        append_to(&self.log, &records, durability, &mut appended)
            .map_err(|error: Error| error.after_appending(appended.clone()))?;
        Ok(appended)
    }

    fn append_records_if(
        &self,
        expected_end: u64,
        records: &[Record<'_>],
        durability: Option<Durability>,
    ) -> Result<AppendedRange> {
        for record in records {
            self.check_partition(record)?;
        }
        let offsets = self.log.append_if(expected_end, records, durability)?;
        Ok(AppendedRange { partition: self.number(), offsets })
    }

    /// A record that names another partition was handed to the wrong one.
    fn check_partition(&self, record: &Record<'_>) -> Result<()> {
        match record.explicit_partition() {
            Some(partition) if partition != self.number() => {
                Err(Repr::OtherPartition { topic: self.topic().into(), partition: self.number(), asked: partition }
                    .into())
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Partition")
            .field("topic", &self.topic())
            .field("number", &self.number())
            .finish_non_exhaustive()
    }
}
