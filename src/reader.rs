//! Reading without a group: whole topics, single partitions, one record at a time.
//!
//! # Invariants
//! - Nothing is skipped: at damage, and where retention was faster, a position stays until somebody moves it.
//! - What was read of other partitions when one of them failed is handed out first; the error comes next.
//!
//! # Thread safety
//! Readers are moved between threads, not shared. They take no lock that an append could wait for.

use std::{fmt, sync::Arc, vec};

use crate::{
    config::Start,
    error::{Repr, Result},
    partition::{Batch, Cursor, PartitionLog, Run},
    record::OwnedRecord,
    topic::{Keepalive, Partition, Topic},
};

/// About the size of a reader's batch, in bytes: large enough to read at full speed, small enough to stay in the
/// processor's cache.
const BATCH_BYTES: usize = 512 << 10;

/// About the size of what an iterator of owned records copies at once, in bytes.
const RECORDS_BYTES: usize = 64 << 10;

/// A place to read on from that may lie outside the log: then every attempt to read is an error.
#[derive(Debug)]
pub(crate) struct Place {
    partition: Arc<PartitionLog>,
    position: Position,
}

#[derive(Debug)]
enum Position {
    Inside(Cursor),
    Outside(u64),
}

impl Place {
    /// At `offset`, wherever that is.
    pub(crate) fn new(partition: &Arc<PartitionLog>, offset: u64) -> Self {
        let position = Cursor::new(partition, offset).map_or(Position::Outside(offset), Position::Inside);
        Self { partition: partition.clone(), position }
    }

    /// Where `start` is in the partition; kind `OffsetOutOfRange`.
    pub(crate) fn at(partition: &Arc<PartitionLog>, start: Start) -> Result<Self> {
        let cursor = Cursor::new(partition, resolve(partition, start)?)?;
        Ok(Self { partition: partition.clone(), position: Position::Inside(cursor) })
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionLog> {
        &self.partition
    }

    /// The offset of the next record to hand out, or less where offsets have a gap.
    pub(crate) fn position(&self) -> u64 {
        match &self.position {
            Position::Inside(cursor) => cursor.position(),
            Position::Outside(offset) => *offset,
        }
    }

    /// Whether the position is in the log, as far as is known.
    pub(crate) fn is_inside(&self) -> bool {
        matches!(self.position, Position::Inside(_))
    }

    /// Goes to `offset`; kind `OffsetOutOfRange`, and the position stays.
    pub(crate) fn seek(&mut self, offset: u64) -> Result<()> {
        match &mut self.position {
            Position::Inside(cursor) => cursor.seek(offset),
            Position::Outside(_) => {
                self.position = Position::Inside(Cursor::new(&self.partition, offset)?);
                Ok(())
            }
        }
    }

    /// Whether there is nothing to read, nor an error to tell.
    pub(crate) fn at_end(&self) -> bool {
        matches!(&self.position, Position::Inside(cursor) if cursor.at_end())
    }

    /// The next frames; see [`Cursor::next_run`].
    fn next_run(&mut self, max_bytes: usize) -> Result<Option<Run>> {
        if let Position::Outside(offset) = self.position {
            self.position = Position::Inside(Cursor::new(&self.partition, offset)?);
        }
        match &mut self.position {
            Position::Inside(cursor) => cursor.next_run(max_bytes),
            Position::Outside(_) => Ok(None), // was just replaced
        }
    }
}

/// The offset that `start` means in a partition.
pub(crate) fn resolve(partition: &Arc<PartitionLog>, start: Start) -> Result<u64> {
    Ok(match start {
        Start::Earliest => partition.start_offset(),
        Start::Latest => partition.end_offset(),
        Start::Offset(offset) => offset,
        Start::Time(time_ms) => {
            // Looked up first, so that what is appended meanwhile isn't skipped.
            let end_offset = partition.end_offset();
            partition.offset_for_time(time_ms)?.unwrap_or(end_offset)
        }
    })
}

/// A batch keeps the segments mapped that it lies in. After as many runs of frames, each from one segment, it gets none but
/// the rest of a turn: segments of a few records are many, and a process has only so many maps.
const LONG_BATCH: usize = 1024;

/// Reads several partitions in turn, so that none of them starves.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The place that comes first next time.
    next: usize,
    /// Met while something had been read already.
    error: Option<crate::error::Error>,
}

impl Turns {
    /// Reads about `max_bytes` from `places`; at least a frame if there is any. Each place gets a fair share first,
    /// what is left over goes to whoever has more.
    pub(crate) fn read(&mut self, places: &mut [Place], max_bytes: usize) -> Result<Batch> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut runs = Vec::new();
        let mut left = max_bytes.max(1);
        let share = (max_bytes / places.len().max(1)).max(1);
        let first = self.next;
        let mut exhausted = false;
        while left > 0 && !exhausted && runs.len() < LONG_BATCH && self.error.is_none() {
            exhausted = true;
            for step in 0..places.len() {
                let turn = (first + step) % places.len();
                match places[turn].next_run(share.min(left)) {
                    Ok(None) => continue,
                    Ok(Some(run)) => {
                        left = left.saturating_sub(run.bytes());
                        runs.push(run);
                        exhausted = false;
                        self.next = turn + 1;
                    }
                    Err(error) => self.error = self.error.take().or(Some(error)),
                }
                if left == 0 {
                    break;
                }
            }
        }
        match self.error.take() {
            Some(error) if runs.is_empty() => Err(error),
            error => {
                self.error = error;
                Ok(Batch::new(runs))
            }
        }
    }

    /// Forgets an error that wasn't told yet: positions were moved. Where it still stands it is met again.
    pub(crate) fn forget_error(&mut self) {
        self.error = None;
    }
}

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
///         println!("{}-{}: {:?}", record.partition(), record.offset(), record.value());
///         count += 1;
///     }
/// }
/// assert_eq!(count, 100);
/// # Ok(())
/// # }
/// ```
///
/// Order is kept within a partition; how partitions are mixed isn't defined, but none waits for ever.
pub struct Reader {
    places: Vec<Place>,
    turns: Turns,
    _keepalive: Keepalive,
}

impl Topic {
    /// Reads all partitions from `start` on.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) if [`Start::Offset`] lies outside one of the
    /// partitions; [`Closed`](crate::ErrorKind::Closed).
    pub fn reader(&self, start: Start) -> Result<Reader> {
        Reader::new(self.state().partitions.iter(), start, self.keepalive().clone())
    }
}

impl Partition {
    /// Reads this partition from `start` on.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange), [`Closed`](crate::ErrorKind::Closed).
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
        let place = open_place(self.log(), Start::Offset(offset))?;
        Ok(PartitionRecords {
            place,
            copied: Vec::new().into_iter(),
            failed: false,
            _keepalive: self.keepalive().clone(),
        })
    }
}

fn open_place(partition: &Arc<PartitionLog>, start: Start) -> Result<Place> {
    check_open(partition)?;
    Place::at(partition, start)
}

fn check_open(partition: &PartitionLog) -> Result<()> {
    if partition.is_closed() { Err(Repr::Closed.into()) } else { Ok(()) }
}

impl Reader {
    fn new<'a>(
        partitions: impl IntoIterator<Item = &'a Arc<PartitionLog>>,
        start: Start,
        keepalive: Keepalive,
    ) -> Result<Self> {
        let places = partitions.into_iter().map(|partition| open_place(partition, start)).collect::<Result<_>>()?;
        Ok(Self { places, turns: Turns::default(), _keepalive: keepalive })
    }

    /// The next records, about half a MiB of them; `None` if there are no more for now. A later call gives what was
    /// appended meanwhile.
    ///
    /// # Errors
    /// - [`Corruption`](crate::ErrorKind::Corruption): some records can't be read. The reader stays there and tells
    ///   it again, until [`seek`](Reader::seek) moves it on, to [`Error::resume_offset`](crate::Error::resume_offset)
    ///   for instance. Other partitions are read meanwhile.
    /// - [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange): the records were removed before they were read;
    ///   likewise.
    /// - [`Io`](crate::ErrorKind::Io), [`LimitReached`](crate::ErrorKind::LimitReached),
    ///   [`Closed`](crate::ErrorKind::Closed).
    pub fn next_batch(&mut self) -> Result<Option<Batch>> {
        self.places.iter().try_for_each(|place| check_open(place.partition()))?;
        let batch = self.turns.read(&mut self.places, BATCH_BYTES)?;
        Ok(if batch.is_empty() { None } else { Some(batch) })
    }

    /// Goes on reading a partition at `offset`.
    ///
    /// # Errors
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) (and the position stays);
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned) if the reader doesn't read that partition;
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn seek(&mut self, partition: u32, offset: u64) -> Result<()> {
        let index = self.index(partition)?;
        check_open(self.places[index].partition())?;
        self.places[index].seek(offset)?;
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
///         Ok(record) => println!("{:?}", record.value()),
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
        check_open(self.place.partition())?;
        self.place.seek(offset)?;
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
        check_open(self.place.partition())?;
        let Some(run) = self.place.next_run(RECORDS_BYTES)? else { return Ok(None) };
        let records: Vec<OwnedRecord> = Batch::new(vec![run]).iter().map(|record| record.to_owned()).collect();
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
