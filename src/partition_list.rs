//! The partitions of a topic, by number: a list that grows at its end while others read it.
//!
//! # Invariants
//! What is in the list stays at its number. Partitions that are added together are seen together.
//!
//! # Thread safety
//! Reading takes no lock: appends look their partition up here. Whoever adds holds the lock of the log's topics.

use std::{
    iter,
    sync::{Arc, OnceLock},
};

use crate::partition::PartitionLog;

/// Partitions that were there from the start, and a list of those that came later.
#[derive(Debug, Default)]
pub(crate) struct PartitionList {
    first: Vec<Arc<PartitionLog>>,
    more: OnceLock<Box<PartitionList>>,
}

impl PartitionList {
    pub(crate) fn new(partitions: Vec<Arc<PartitionLog>>) -> Self {
        Self { first: partitions, more: OnceLock::new() }
    }

    /// How many there are.
    #[inline]
    pub(crate) fn len(&self) -> u32 {
        // At most `MAX_PARTITIONS`, by validation of the topic's options.
        self.first.len() as u32 + self.more.get().map_or(0, |more| more.len())
    }

    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Arc<PartitionLog>> {
        let at = number as usize;
        self.first.get(at).or_else(|| self.more.get()?.get((at - self.first.len()) as u32))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<PartitionLog>> {
        iter::successors(Some(self), |list| list.more.get().map(|more| &**more)).flat_map(|list| &list.first)
    }

    /// Adds partitions at the end.
    pub(crate) fn add(&self, partitions: Vec<Arc<PartitionLog>>) {
        let mut rest = Box::new(Self::new(partitions));
        let mut last = self;
        // Only a second one who adds at the same time could have set it in between.
        while let Err(taken) = last.more.set(rest) {
            let Some(more) = last.more.get() else { return };
            (last, rest) = (more, taken);
        }
    }
}
