//! How far a group is behind.

use std::{sync::Arc, time::Duration};

use super::{Consumer, core::Assigned};
use crate::partition::PartitionLog;

/// How far a group is behind, from [`Consumer::lag`] and [`Log::lag`](crate::Log::lag).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The sum over all partitions, in offsets.
    pub total: u64,
    /// The sum over all partitions, in bytes.
    pub bytes: u64,
    /// The greatest of all partitions.
    pub time: Duration,
    /// By topic and number.
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
    /// began (see [`ConsumerBuilder::start_if_new`](crate::ConsumerBuilder::start_if_new)). In offsets: where these
    /// have gaps, there are fewer records.
    pub lag: u64,
    /// What there is to read from there to the end, in bytes as they lie in the files. What was appended in one piece
    /// counts as a whole, what was deleted isn't counted.
    pub bytes: u64,
    /// How long ago, by the log's clock, the first record from there on was appended; zero at the end.
    pub time: Duration,
}

impl Consumer {
    /// How far the group is behind in the partitions that this consumer reads, by what it has committed.
    ///
    /// This is for watching, so it never fails; [`poll`](Consumer::poll) is what tells of errors. Damaged records have no
    /// time: [`PartitionLag::time`] is then that of the first one behind them. Where a partition's files can't be read
    /// at all, bytes and time are zero while the lag in offsets, which needs no file, is as always.
    pub fn lag(&self) -> Lag {
        let core = &self.core;
        let lag =
            |assigned: &Assigned| PartitionLag::of(assigned.partition(), core.committed(assigned), assigned.start);
        Lag::of(core.assigned.iter().map(lag).collect())
    }
}

impl Lag {
    /// The part of one topic; nothing where there is none of it.
    pub fn of_topic(&self, topic: &str) -> Lag {
        Self::of(self.partitions.iter().filter(|partition| partition.topic == topic).cloned().collect())
    }

    /// Sums up.
    pub(crate) fn of(partitions: Vec<PartitionLag>) -> Self {
        Self {
            total: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.lag)),
            bytes: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.bytes)),
            time: partitions.iter().map(|partition| partition.time).max().unwrap_or_default(),
            partitions,
        }
    }
}

impl PartitionLag {
    /// Of a group that has committed this in the partition, or else began at `start`.
    pub(crate) fn of(partition: &Arc<PartitionLog>, committed: Option<u64>, start: u64) -> Self {
        let (spec, end_offset) = (partition.spec(), partition.end_offset());
        let from = committed.unwrap_or(start);
        Self {
            topic: spec.topic.to_string(),
            partition: spec.number,
            committed,
            end_offset,
            lag: end_offset.saturating_sub(from),
            bytes: partition.bytes_between(from).unwrap_or_default(),
            time: partition.time_behind(from).unwrap_or_default(),
        }
    }
}
