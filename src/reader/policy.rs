//! What to do where records can't be read: stop, or go on and tell.

use crate::{
    config::Start,
    error::{Error, ErrorKind},
};

/// What a consumer or reader does at records that can't be read (kind
/// [`Corruption`](crate::ErrorKind::Corruption)).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CorruptionPolicy {
    /// Answer the error, each time, until somebody goes on at [`Error::resume_offset`](crate::Error::resume_offset).
    #[default]
    Fail,
    /// Go on at the next record that can be read, and tell what was passed over in
    /// [`Batch::skipped`](crate::Batch::skipped).
    Skip,
}

/// What a consumer or reader does where its position isn't (or is no longer) in the log (kind
/// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange)): because retention was faster than the group, or because
/// the partition's end is gone.
///
/// Kafka's users know it as `auto.offset.reset`; but this one doesn't say where a *new* group begins, for which there is
/// [`ConsumerBuilder::start_if_new`](crate::ConsumerBuilder::start_if_new).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OutOfRangePolicy {
    /// Answer the error, each time, until somebody goes on elsewhere.
    #[default]
    Fail,
    /// Go on at the log start offset, and tell it in [`Batch::skipped`](crate::Batch::skipped). From a position behind
    /// the log end offset that is *back*: records come again.
    Earliest,
    /// Go on at the log end offset, and tell it in [`Batch::skipped`](crate::Batch::skipped). What lies before it isn't
    /// read.
    Latest,
}

/// Both.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Policies {
    pub(crate) out_of_range: OutOfRangePolicy,
    pub(crate) corruption: CorruptionPolicy,
}

impl Policies {
    /// Where to go on after an error of a partition; `None` if it is to be told.
    pub(super) fn resume(self, error: &Error) -> Option<Start> {
        match (error.kind(), self.out_of_range, self.corruption) {
            (ErrorKind::Corruption, _, CorruptionPolicy::Skip) => error.resume_offset().map(Start::Offset),
            (ErrorKind::OffsetOutOfRange, OutOfRangePolicy::Earliest, _) => Some(Start::Earliest),
            (ErrorKind::OffsetOutOfRange, OutOfRangePolicy::Latest, _) => Some(Start::Latest),
            _ => None,
        }
    }
}
