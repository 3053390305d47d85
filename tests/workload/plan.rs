//! What parent and child agree on: topics, calls, records.

use std::{path::Path, time::Duration};

use tidelog::{Durability, Log, Record, TopicConfig};

use super::message::{MESSAGE_BYTES, PIPE_BYTES};
use crate::common::{Random, value_of};

/// A topic that every child uses.
pub(crate) struct TopicPlan {
    pub(crate) name: &'static str,
    pub(crate) partitions: u32,
    pub(crate) keeps: Keeps,
    /// The topic's own level, if it has one.
    durability: Option<Durability>,
}

/// What stays of what was appended to a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeps {
    Everything,
    /// By retention: at least so many bytes of a partition.
    Bytes(u64),
    /// What nobody deletes by its offset.
    Rest,
}

pub(crate) const TOPICS: [TopicPlan; 4] = [
    TopicPlan { name: "orders", partitions: 2, keeps: Keeps::Everything, durability: None },
    TopicPlan { name: "events", partitions: 1, keeps: Keeps::Everything, durability: Some(Durability::Written) },
    TopicPlan { name: "recent", partitions: 1, keeps: Keeps::Bytes(160 << 10), durability: Some(Durability::Synced) },
    TopicPlan { name: "tasks", partitions: 2, keeps: Keeps::Rest, durability: None },
];
/// The topic that comes and goes, of one partition.
pub(crate) const SCRATCH: &str = "scratch";
/// The group that commits.
pub(crate) const GROUP: &str = "auditor";
/// Records of a batch at most: their acknowledgements, and some more messages, are what a pipe takes in one piece.
pub(crate) const MAX_BATCH: u64 = (PIPE_BYTES / MESSAGE_BYTES) as u64 - 8;
/// Bytes before the part of a value that is made up.
const PREFIX: usize = 24;

impl TopicPlan {
    fn config(&self) -> TopicConfig {
        let config = TopicConfig::with_partitions(self.partitions).durability(self.durability);
        match self.keeps {
            Keeps::Bytes(bytes) => config.retention_bytes(bytes),
            Keeps::Everything | Keeps::Rest => config,
        }
    }
}

/// Opens the log in the way that both do. Segments have the least size, so that they are rolled often.
pub(crate) fn open(folder: &Path, positional: bool) -> tidelog::Result<Log> {
    let options = Log::options()
        .segment_bytes(64 << 10)
        .durability(Durability::Interval(Duration::from_millis(3)))
        .retention_check_interval(Duration::from_millis(20))
        .positional_appends(positional);
    let log = options.open(folder)?;
    for topic in &TOPICS {
        log.ensure_topic(topic.name, topic.config())?;
    }
    Ok(log)
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
        let own = u32::try_from(random.below(u64::from(TOPICS[topic].partitions))).unwrap();
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
        self.place().is_some()
    }

    /// Where its records go, if that isn't up to their keys.
    pub(crate) fn place(&self) -> Option<Place> {
        let only = (TOPICS[self.topic].partitions == 1).then_some(0);
        self.partition.or(only).map(|partition| Place { topic: self.topic, partition })
    }

    /// Whether its records are on the device when it returns.
    pub(crate) fn is_synced(&self) -> bool {
        self.durability.or(TOPICS[self.topic].durability) == Some(Durability::Synced)
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

/// A partition of one of [`TOPICS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) topic: usize,
    pub(crate) partition: u32,
}

impl Place {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        (0..TOPICS.len())
            .flat_map(|topic| (0..TOPICS[topic].partitions).map(move |partition| Self { topic, partition }))
    }

    pub(crate) fn of(topic: &str, partition: u32) -> Option<Self> {
        let topic = TOPICS.iter().position(|plan| plan.name == topic)?;
        Some(Self { topic, partition })
    }

    pub(crate) fn topic_name(self) -> &'static str {
        TOPICS[self.topic].name
    }

    pub(crate) fn keeps(self) -> Keeps {
        TOPICS[self.topic].keeps
    }
}
