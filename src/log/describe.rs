//! What there is to know of a topic, as plain values.

use std::time::Duration;

use super::Log;
use crate::{
    config::{Durability, TopicConfig},
    error::Result,
    partition::{PartitionLog, SettingsValues},
};

/// What there is to know of a topic: from [`Log::describe_topic`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// The random number that tells it from others of the same name, before and after it. Its file has it as 32
    /// hexadecimal digits.
    pub id: u128,
    /// What it was created with, and given since.
    pub config: TopicConfig,
    /// The options in use: its own, the log's where it has none.
    pub options: TopicOptions,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionDescription>,
}

/// The options that are in use for a topic: its own, the log's where it has none. In [`TopicDescription::options`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOptions {
    /// See [`TopicConfig::durability`].
    pub durability: Durability,
    /// See [`TopicConfig::segment_bytes`].
    pub segment_bytes: u64,
    /// See [`TopicConfig::segment_age`]. `None`: only the format's limit of 49 days.
    pub segment_age: Option<Duration>,
    /// See [`TopicConfig::max_record_bytes`].
    pub max_record_bytes: u64,
    /// See [`TopicConfig::retention_age`]. `None`: for ever.
    pub retention_age: Option<Duration>,
    /// See [`TopicConfig::retention_bytes`]. `None`: all.
    pub retention_bytes: Option<u64>,
}

/// What there is to know of a partition: in [`TopicDescription::partitions`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionDescription {
    /// Its number in the topic.
    pub number: u32,
    /// The log start offset: the earliest that can be read.
    pub start_offset: u64,
    /// The log end offset: the next to be assigned.
    pub end_offset: u64,
    /// The durable offset: records below it are on the device.
    pub durable_offset: u64,
    /// How many segments there are, the active one included.
    pub segments: usize,
    /// What these hold, in bytes: without indexes, and without space that is set aside for what comes.
    pub bytes: u64,
}

impl TopicDescription {
    /// What all partitions hold, in bytes.
    pub fn bytes(&self) -> u64 {
        self.partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.bytes))
    }
}

impl Log {
    /// Describes a topic and its partitions, as they are now. Each partition is looked at for itself: appends that go
    /// on meanwhile may be in one and not yet in another.
    ///
    /// ```
    /// # use tidelog::{Log, Record, TopicConfig};
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = Log::options().in_memory().open("shop")?;
    /// # log.create_topic("orders", TopicConfig::with_partitions(4))?.append(Record::new("tea"))?;
    /// for name in log.topics() {
    ///     for partition in log.describe_topic(&name)?.partitions {
    ///         println!(
    ///             "{name}-{}: offsets {} to {}, {} bytes",
    ///             partition.number, partition.start_offset, partition.end_offset, partition.bytes
    ///         );
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic), [`InvalidName`](crate::ErrorKind::InvalidName),
    /// [`Closed`](crate::ErrorKind::Closed); [`Io`](crate::ErrorKind::Io) if a segment can't be looked at.
    pub fn describe_topic(&self, name: &str) -> Result<TopicDescription> {
        self.check_open()?;
        let topic = self.shared.topics.get(name)?;
        let partitions = topic.partitions.iter().map(|partition| describe(partition)).collect::<Result<_>>()?;
        Ok(TopicDescription {
            name: name.into(),
            id: topic.id,
            config: topic.config.lock().clone(),
            options: topic.settings.values().into(),
            partitions,
        })
    }
}

fn describe(partition: &PartitionLog) -> Result<PartitionDescription> {
    let stats = partition.stats()?;
    // Looked up in this order, they are in this order.
    let start_offset = partition.start_offset();
    let durable_offset = partition.durable_offset().max(start_offset);
    let end_offset = partition.end_offset().max(durable_offset);
    let (number, segments, bytes) = (partition.spec().number, stats.segments, stats.bytes);
    Ok(PartitionDescription { number, start_offset, end_offset, durable_offset, segments, bytes })
}

impl From<SettingsValues> for TopicOptions {
    fn from(values: SettingsValues) -> Self {
        Self {
            durability: values.durability,
            segment_bytes: values.segment_bytes,
            segment_age: values.segment_ms.map(Duration::from_millis),
            max_record_bytes: values.max_record_bytes,
            retention_age: values.retention_ms.map(Duration::from_millis),
            retention_bytes: values.retention_bytes,
        }
    }
}
