//! Groups: which of them are in use in this process, and what they have committed.
//!
//! # Invariants
//! A group has at most one consumer at a time. It has it until the consumer is dropped.
//!
//! # Thread safety
//! Any thread may call anything.

mod codec;
mod offsets;

use std::{
    collections::{BTreeMap, btree_map},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    config::TopicConfig,
    error::{Error, Repr, Result},
    report::{Finding, RecoveryReport},
    topics::Topics,
    waiter::Waiter,
};

pub(crate) use offsets::Offsets;

/// The internal topic of committed offsets.
const OFFSETS_TOPIC: &str = "__offsets";

/// Size of its segments in bytes. Opening folds at most two of them, some 10 ms; a snapshot should be small beside it,
/// and takes about 80 bytes for each group and partition.
const OFFSETS_SEGMENT_BYTES: u64 = 16 << 20;

/// The age in which they end all the same. It doesn't matter; that of the log's other segments could be a second.
const OFFSETS_SEGMENT_AGE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A commit is a few hundred bytes, whatever the limit of the log's other records is.
const OFFSETS_RECORD_BYTES: u64 = 4 << 10;

/// The groups of a log.
#[derive(Debug)]
pub(crate) struct Groups {
    offsets: Offsets,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    closed: bool,
    /// By group: what its consumer sleeps at.
    by_group: BTreeMap<Arc<str>, Arc<Waiter>>,
}

impl Groups {
    /// Opens the topic of committed offsets, creates it if missing. Damage goes into `report`.
    ///
    /// This happens when the log is opened and not when the first group is used: so the report is complete from the
    /// start, and a log that can't keep commits says so at once.
    pub(crate) fn open(topics: &Topics, report: &mut RecoveryReport) -> Result<Self> {
        let config = TopicConfig::with_partitions(1)
            .segment_bytes(OFFSETS_SEGMENT_BYTES)
            .segment_age(OFFSETS_SEGMENT_AGE)
            .max_record_bytes(OFFSETS_RECORD_BYTES);
        let topic = topics.open_internal(OFFSETS_TOPIC, config, report)?;
        let (offsets, damage) = Offsets::open(topic.partition(0)?.clone())?;
        for detail in damage.iter().map(Error::to_string) {
            report.add(Finding::DamagedCommits { detail });
        }
        Ok(Self { offsets, members: Mutex::default() })
    }

    /// Makes the caller the group's consumer, who sleeps at `waiter`, until the answer is dropped. Kind `GroupInUse`.
    pub(crate) fn join(self: &Arc<Self>, group: &str, waiter: &Arc<Waiter>) -> Result<Member> {
        let mut members = self.members.lock();
        if members.closed {
            return Err(Repr::Closed.into());
        }
        match members.by_group.entry(group.into()) {
            btree_map::Entry::Occupied(_) => Err(Repr::GroupInUse { group: group.into() }.into()),
            btree_map::Entry::Vacant(entry) => {
                let group = entry.key().clone();
                entry.insert(waiter.clone());
                Ok(Member { groups: self.clone(), group })
            }
        }
    }

    /// Lets nobody join any more and wakes all who sleep, for them to see that the log was closed.
    pub(crate) fn close(&self) {
        let waiters: Vec<_> = {
            let mut members = self.members.lock();
            members.closed = true;
            members.by_group.values().cloned().collect()
        };
        // Not under the lock: waking a task runs its executor's code, which may drop the consumer, and so leave.
        waiters.iter().for_each(|waiter| waiter.wake());
    }
}

/// A group's consumer, as long as this lives.
#[derive(Debug)]
pub(crate) struct Member {
    groups: Arc<Groups>,
    group: Arc<str>,
}

impl Member {
    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(crate) fn offsets(&self) -> &Offsets {
        &self.groups.offsets
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.groups.members.lock().by_group.remove(&self.group);
    }
}
