//! The figures of a build without the feature `metrics`: nothing.

use std::sync::Arc;

use crate::{error::Error, figures::Operation};

const _: () = assert!(
    size_of::<Figures>() + size_of::<PartitionFigures>() + size_of::<GroupFigures>() + size_of::<ReadFigures>() == 0
        && size_of::<Timer>() == 0
);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures;

impl Figures {
    #[inline(always)]
    pub(crate) fn partition(&self, _topic: &str, _number: u32) -> PartitionFigures {
        PartitionFigures
    }

    #[inline(always)]
    pub(crate) fn group(&self, _group: &Arc<str>) -> GroupFigures {
        GroupFigures
    }

    #[inline(always)]
    pub(crate) fn error(&self, _operation: Operation, _error: &Error) {}
}

#[derive(Debug)]
pub(crate) struct PartitionFigures;

impl PartitionFigures {
    #[inline(always)]
    pub(crate) fn appended(&self, _records: u64, _bytes: u64) {}

    #[inline(always)]
    pub(crate) fn rolled(&self) {}

    #[inline(always)]
    pub(crate) fn synced(&self, _timer: Timer) {}
}

#[derive(Debug)]
pub(crate) struct GroupFigures;

impl GroupFigures {
    #[inline(always)]
    pub(crate) fn polled(&self) {}

    #[inline(always)]
    pub(crate) fn committed(&self) {}

    #[inline(always)]
    pub(crate) fn rebalanced(&self) {}

    #[inline(always)]
    pub(crate) fn reading(&self, _topic: &str, _number: u32) -> ReadFigures {
        ReadFigures(())
    }
}

#[derive(Debug, Default)]
pub(crate) struct ReadFigures(());

impl ReadFigures {
    #[inline(always)]
    pub(crate) fn read(&self, _records: u64, _bytes: u64) {}
}

/// No clock is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer;

impl Timer {
    #[inline(always)]
    pub(crate) fn start() -> Self {
        Self
    }
}
