//! Where records went: what an append answers.

use std::ops::Range;

/// The place of one appended record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Appended {
    /// The partition of the topic.
    pub partition: u32,
    /// The record's number in that partition, below 2^63.
    pub offset: u64,
}

/// The places of the records of one batch that went to one partition, in the order of the batch.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppendedRange {
    /// The partition of the topic.
    pub partition: u32,
    /// The records' offsets; the end is exclusive.
    pub offsets: Range<u64>,
}
