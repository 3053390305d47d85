//! How far a group is behind.

use super::{Consumer, core::Assigned};
use crate::partition::PartitionLog;

/// How far a group is behind, from [`Consumer::lag`] and [`Log::lag`](crate::Log::lag).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The sum over all partitions, in offsets.
    pub total: u64,
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
}

impl Consumer {
    /// How far the group is behind, by what it has committed.
    pub fn lag(&self) -> Lag {
        let core = &self.core;
        let lag =
            |assigned: &Assigned| PartitionLag::of(assigned.partition(), core.committed(assigned), assigned.start);
        Lag::of(core.assigned.iter().map(lag).collect())
    }
}

impl Lag {
    /// Sums up.
    pub(crate) fn of(partitions: Vec<PartitionLag>) -> Self {
        Self { total: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.lag)), partitions }
    }
}

impl PartitionLag {
    /// Of a group that has committed this in the partition, or else began at `start`.
    pub(crate) fn of(partition: &PartitionLog, committed: Option<u64>, start: u64) -> Self {
        let (spec, end_offset) = (partition.spec(), partition.end_offset());
        Self {
            topic: spec.topic.to_string(),
            partition: spec.number,
            committed,
            end_offset,
            lag: end_offset.saturating_sub(committed.unwrap_or(start)),
        }
    }
}
