//! What parent and child agree on: topics, records, messages.

use std::{path::Path, time::Duration};

use tidelog::{Durability, Log, LogOptions, Opening, Record, TopicConfig};

use crate::common::{Random, value_of};

/// Topics that every child uses, and how many partitions they have.
pub(crate) const TOPICS: [(&str, u32); 2] = [("orders", 2), ("events", 1)];
/// The group that commits.
pub(crate) const GROUP: &str = "auditor";
/// Records of a batch at most: as many as acknowledgements that a pipe takes in one piece.
pub(crate) const MAX_BATCH: u64 = 4096 / MESSAGE_BYTES as u64;
/// Bytes before the part of a value that is made up.
const PREFIX: usize = 24;

/// Opens the log in the way that both do.
pub(crate) fn open(folder: &Path) -> tidelog::Result<Log> {
    let log = options().open(folder)?;
    for (name, partitions) in TOPICS {
        log.ensure_topic(name, TopicConfig::with_partitions(partitions))?;
    }
    Ok(log)
}

/// Segments of the least size, so that they are rolled often.
fn options() -> LogOptions {
    Log::options().segment_bytes(64 << 10).durability(Durability::Interval(Duration::from_millis(3)))
}

/// The name of a topic that is created on the way.
pub(crate) fn made_topic(number: u64) -> String {
    format!("made-{number}")
}

/// Who appended a record, and its number among what that thread has appended: unique among all records of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RecordId {
    /// Round and thread.
    pub(crate) writer: u64,
    pub(crate) number: u64,
}

impl RecordId {
    pub(crate) fn to_word(self) -> u64 {
        self.writer << 32 | self.number
    }

    pub(crate) fn from_word(word: u64) -> Self {
        Self { writer: word >> 32, number: word & u64::from(u32::MAX) }
    }
}

/// One call that appends: records from `first` on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) first: RecordId,
    pub(crate) topic: usize,
    /// `None`: where the partitioner says.
    pub(crate) partition: Option<u32>,
    pub(crate) records: u64,
    /// `None`: the log's.
    pub(crate) durability: Option<Durability>,
}

impl Call {
    /// The call that begins with this record; the same whenever it is asked for.
    pub(crate) fn new(first: RecordId) -> Self {
        let mut random = Random(first.to_word());
        let topic = random.below(TOPICS.len() as u64) as usize;
        let own = u32::try_from(random.below(u64::from(TOPICS[topic].1))).unwrap();
        let partition = (random.below(2) == 0).then_some(own);
        let records = if random.below(3) == 0 { 2 + random.below(MAX_BATCH - 1) } else { 1 };
        let durability = match random.below(16) {
            0 => Some(Durability::Synced),
            1..=4 => Some(Durability::Interval(Duration::from_millis(1 + random.below(4)))),
            5..=10 => Some(Durability::Written),
            _ => None,
        };
        Self { first, topic, partition, records, durability }
    }

    /// Whether its records are written and read all or nothing: all in one partition.
    pub(crate) fn is_atomic(&self) -> bool {
        self.partition.is_some() || TOPICS[self.topic].1 == 1
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = RecordId> {
        let Self { first, records, .. } = *self;
        (first.number..first.number + records).map(move |number| RecordId { number, ..first })
    }

    /// The call's record with this id.
    pub(crate) fn record(&self, id: RecordId) -> Record<'static> {
        let mut random = Random(id.to_word() ^ 0x5eed);
        // Mostly small; now and then one that is a fair part of a segment.
        let bytes = if random.below(200) == 0 { 20_000 } else { random.below(400) as usize };
        let mut value = Vec::with_capacity(PREFIX + bytes);
        value.extend_from_slice(&id.to_word().to_le_bytes());
        value.extend_from_slice(&self.first.to_word().to_le_bytes());
        value.extend_from_slice(&self.records.to_le_bytes());
        value.extend_from_slice(&value_of(id.to_word(), bytes));
        let mut record = Record::new(value);
        if random.below(2) == 0 {
            record = record.key(format!("key {}", random.below(9)));
        }
        if random.below(4) == 0 {
            record = record.header("a", "1").null_header("b").header("a", "");
        }
        if random.below(4) == 0 {
            record = record.timestamp_ms(random.below(1 << 40) as i64);
        }
        match self.partition {
            Some(partition) => record.partition(partition),
            None => record,
        }
    }

    /// Id and call of the record with this value; `None` if no child makes such a value.
    pub(crate) fn of_value(value: &[u8]) -> Option<(RecordId, Self)> {
        let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
        let (id, call) = (RecordId::from_word(word(0)?), Self::new(RecordId::from_word(word(8)?)));
        let inside = id.writer == call.first.writer
            && (call.first.number..call.first.number + call.records).contains(&id.number);
        (inside && word(16)? == call.records).then_some((id, call))
    }
}

/// Bytes of a message: four words.
pub(crate) const MESSAGE_BYTES: usize = 32;

/// A partition of one of [`TOPICS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) topic: usize,
    pub(crate) partition: u32,
}

impl Place {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..TOPICS.len()).flat_map(|topic| (0..TOPICS[topic].1).map(move |partition| Self { topic, partition }))
    }

    pub(crate) fn of(topic: &str, partition: u32) -> Option<Self> {
        let topic = TOPICS.iter().position(|(name, _)| *name == topic)?;
        Some(Self { topic, partition })
    }

    pub(crate) fn topic_name(self) -> &'static str {
        TOPICS[self.topic].0
    }
}

/// What a child says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Message {
    /// The log is open, and whatever comes now is work.
    Ready,
    /// This partition was opened so, and ends there.
    Opened(Place, How, u64),
    /// The group was found with this committed offset.
    Committed(Place, Option<u64>),
    /// An append of this record returned.
    Appended(Place, u64, RecordId),
    /// A commit of this offset, which `poll` had reached, is about to be made.
    WillCommit(Place, u64),
    /// It returned.
    DidCommit(Place, u64),
    /// The creation of a topic returned.
    MadeTopic(u64),
    /// The log was closed; it may be opened again.
    DidClose,
}

/// What told where a partition ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Created,
    Clean,
    Resumed,
    Scanned,
}

impl How {
    pub(crate) fn of(opening: Opening) -> Self {
        match opening {
            Opening::Created => Self::Created,
            Opening::Clean => Self::Clean,
            Opening::Resumed => Self::Resumed,
            Opening::Scanned => Self::Scanned,
            other => panic!("an opening that this test doesn't know: {other:?}"),
        }
    }
}

impl Message {
    pub(crate) fn encode(self) -> [u8; MESSAGE_BYTES] {
        let at = |place: Place| (place.topic as u64) << 32 | u64::from(place.partition);
        let words = match self {
            Self::Ready => [1, 0, 0, 0],
            Self::Opened(place, how, end) => [2, at(place), how as u64, end],
            Self::Committed(place, None) => [3, at(place), 0, 0],
            Self::Committed(place, Some(offset)) => [3, at(place), 1, offset],
            Self::Appended(place, offset, id) => [4, at(place), offset, id.to_word()],
            Self::WillCommit(place, offset) => [5, at(place), offset, 0],
            Self::DidCommit(place, offset) => [6, at(place), offset, 0],
            Self::MadeTopic(number) => [7, number, 0, 0],
            Self::DidClose => [8, 0, 0, 0],
        };
        let mut bytes = [0; MESSAGE_BYTES];
        for (bytes, word) in bytes.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; MESSAGE_BYTES]) -> Self {
        let word = |at: usize| u64::from_le_bytes(bytes[at * 8..at * 8 + 8].try_into().unwrap());
        let place = Place { topic: (word(1) >> 32) as usize, partition: word(1) as u32 };
        match word(0) {
            1 => Self::Ready,
            2 => {
                let how = [How::Created, How::Clean, How::Resumed, How::Scanned][word(2) as usize];
                Self::Opened(place, how, word(3))
            }
            3 => Self::Committed(place, (word(2) == 1).then(|| word(3))),
            4 => Self::Appended(place, word(2), RecordId::from_word(word(3))),
            5 => Self::WillCommit(place, word(2)),
            6 => Self::DidCommit(place, word(2)),
            7 => Self::MadeTopic(word(1)),
            8 => Self::DidClose,
            other => panic!("no message has the number {other}"),
        }
    }
}
