//! What a consumer is told when partitions come and go.

use std::fmt;

use super::core::Core;
use crate::{config::Start, error::Result};

/// What is called when partitions come and go.
pub(super) type Callback = Box<dyn FnMut(&mut Rebalance<'_>) -> Result<()> + Send>;

/// What happens to partitions.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RebalanceKind {
    /// The consumer has them from now on.
    Assigned,
    /// The consumer is about to give them away, to another one of its group. They are still its own: what is committed
    /// now is where the next one begins.
    Revoked,
    /// The consumer had them, and has them no more: it didn't [`poll`](crate::Consumer::poll) in time and was expelled
    /// from the group, or their topic was deleted. Others may have read on. Nothing can be committed any more.
    Lost,
}

/// Partitions that come or go: what [`on_rebalance`](crate::ConsumerBuilder::on_rebalance) is called with.
pub struct Rebalance<'a> {
    core: &'a mut Core,
    kind: RebalanceKind,
    partitions: Vec<(String, u32)>,
}

impl<'a> Rebalance<'a> {
    pub(super) fn new(core: &'a mut Core, kind: RebalanceKind, partitions: Vec<(String, u32)>) -> Self {
        Self { core, kind, partitions }
    }

    /// What happens.
    pub fn kind(&self) -> RebalanceKind {
        self.kind
    }

    /// To which partitions: topic and number, in order. Never none.
    pub fn partitions(&self) -> &[(String, u32)] {
        &self.partitions
    }

    /// The generation of the group, as [`Consumer::generation`](crate::Consumer::generation).
    pub fn generation(&self) -> u64 {
        self.core.generation
    }

    /// Commits the positions of [these](Rebalance::partitions) partitions: everything that
    /// [`poll`](crate::Consumer::poll) has returned of them.
    ///
    /// # Errors
    /// Those of [`Consumer::commit`](crate::Consumer::commit); [`Fenced`](crate::ErrorKind::Fenced) for those that are
    /// lost.
    pub fn commit(&mut self) -> Result<()> {
        let partitions = &self.partitions;
        let is_ours = |topic: &str, number: u32| {
            partitions.binary_search_by(|(name, other)| (name.as_str(), *other).cmp(&(topic, number))).is_ok()
        };
        self.core.commit_positions_of(|assigned| is_ours(assigned.topic(), assigned.number()), None)
    }

    /// Commits given offsets, as [`Consumer::commit_offsets`](crate::Consumer::commit_offsets).
    ///
    /// # Errors
    /// Those of that; [`Fenced`](crate::ErrorKind::Fenced) for partitions that are lost.
    pub fn commit_offsets<T: AsRef<str>>(&mut self, offsets: impl IntoIterator<Item = (T, u32, u64)>) -> Result<()> {
        self.core.commit_offsets(offsets)
    }

    /// Goes on reading a partition at `offset`, as [`Consumer::seek`](crate::Consumer::seek): the place for it is where
    /// partitions are assigned, before anything of them is read.
    ///
    /// # Errors
    /// Those of that.
    pub fn seek(&mut self, topic: &str, partition: u32, offset: u64) -> Result<()> {
        self.core.seek(topic, partition, Start::Offset(offset))
    }

    /// The position in a partition, as [`Consumer::position`](crate::Consumer::position).
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned).
    pub fn position(&self, topic: &str, partition: u32) -> Result<u64> {
        Ok(self.core.assigned[self.core.index(topic, partition)?].place.position())
    }

    /// What the group has committed for a partition, as [`Consumer::committed`](crate::Consumer::committed).
    ///
    /// # Errors
    /// [`NotAssigned`](crate::ErrorKind::NotAssigned).
    pub fn committed(&self, topic: &str, partition: u32) -> Result<Option<u64>> {
        Ok(self.core.committed(&self.core.assigned[self.core.index(topic, partition)?]))
    }
}

impl fmt::Debug for Rebalance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebalance")
            .field("kind", &self.kind)
            .field("partitions", &self.partitions)
            .field("generation", &self.generation())
            .finish()
    }
}
