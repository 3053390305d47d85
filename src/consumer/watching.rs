//! While a consumer sleeps: who wakes it.

use std::sync::Arc;

use super::core::Core;
use crate::{partition::PartitionLog, topics::Topics, waiter::Waiter};

/// Partitions, and changes of the topics, wake the waiter while this lives.
pub(super) struct Watching {
    partitions: Vec<Arc<PartitionLog>>,
    topics: Arc<Topics>,
    waiter: Arc<Waiter>,
}

impl Watching {
    /// Of all partitions that aren't paused.
    pub(super) fn new(core: &Core) -> Self {
        let awake = core.assigned.iter().filter(|assigned| !assigned.place.is_paused());
        let partitions: Vec<_> = awake.map(|assigned| assigned.partition().clone()).collect();
        let waiter = core.signal.waiter.clone();
        partitions.iter().for_each(|partition| partition.watch(&waiter));
        core.topics.changes().watch(&waiter);
        Self { partitions, topics: core.topics.clone(), waiter }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.partitions.iter().for_each(|partition| partition.unwatch(&self.waiter));
        self.topics.changes().unwatch(&self.waiter);
        // If a task sleeps here, it is no longer this consumer's.
        self.waiter.unregister();
    }
}
