//! What a policy passed over, for the program to know.

use std::ops::Range;

use super::PartitionSpec;
use crate::error::Error;

/// What a consumer or reader passed over, because its policy for the error says so: from
/// [`Batch::skipped`](crate::Batch::skipped).
#[non_exhaustive]
#[derive(Debug)]
pub struct Skipped {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// The position at which there was nothing to read.
    pub offset: u64,
    /// Where reading went on.
    pub resume_offset: u64,
    /// Why.
    pub error: Error,
}

impl Skipped {
    pub(crate) fn new(spec: &PartitionSpec, offsets: Range<u64>, error: Error) -> Self {
        let Range { start, end } = offsets;
        Self { topic: spec.topic.to_string(), partition: spec.number, offset: start, resume_offset: end, error }
    }

    /// The offsets that were passed over; empty where reading went back. Not each of them need have been used: offsets
    /// can have gaps.
    pub fn offsets(&self) -> Range<u64> {
        self.offset..self.resume_offset.max(self.offset)
    }
}
