//! How far a group is behind.

use std::time::Duration;

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
    /// The sum over all partitions, in bytes.
    pub bytes: u64,
    /// The greatest of all partitions.
    pub time: Duration,
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
        let partitions: Vec<PartitionLag> =
            self.core.assigned.iter().map(|assigned| self.core.partition_lag(assigned)).collect();
        Lag {
            total: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.lag)),
            bytes: partitions.iter().fold(0, |sum, partition| sum.saturating_add(partition.bytes)),
            time: partitions.iter().map(|partition| partition.time).max().unwrap_or_default(),
            partitions,
        }
    }
}

impl Core {
    fn partition_lag(&self, assigned: &Assigned) -> PartitionLag {
        let committed = self.committed(assigned);
        let log = assigned.partition();
        let (from, end_offset) = (committed.unwrap_or(assigned.start), log.end_offset());
        PartitionLag {
            topic: assigned.topic().to_owned(),
            partition: assigned.number(),
            committed,
            end_offset,
            lag: end_offset.saturating_sub(from),
            bytes: log.bytes_between(from).unwrap_or_default(),
            time: log.time_behind(from).unwrap_or_default(),
        }
    }
}
