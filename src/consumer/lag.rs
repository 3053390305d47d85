//! How far a group is behind.

use super::{
    Consumer,
    core::{Assigned, Core},
};

/// How far a group is behind, from [`Consumer::lag`].
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// The sum over all partitions, in offsets.
    pub total: u64,
    /// In the order of [`Consumer::assignment`].
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
        let partitions: Vec<PartitionLag> =
            self.core.assigned.iter().map(|assigned| self.core.partition_lag(assigned)).collect();
        Lag { total: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.lag)), partitions }
    }
}

impl Core {
    fn partition_lag(&self, assigned: &Assigned) -> PartitionLag {
        let committed = self.committed(assigned);
        let end_offset = assigned.partition().end_offset();
        PartitionLag {
            topic: assigned.topic().to_owned(),
            partition: assigned.number(),
            committed,
            end_offset,
            lag: end_offset.saturating_sub(committed.unwrap_or(assigned.start)),
        }
    }
}
