//! Partitions that end before what groups have committed of them: they lost records, with their folder, or to an older
//! copy of it.
//!
//! No crash leaves that: behind a power cut a partition goes on at its offset ceiling, beyond every offset that was
//! assigned. Were such a partition to go on where it ends, a group would skip what is appended up to its commit.
//!
//! # Invariants
//! - Offsets that a group may have dealt with are never assigned again.
//! - What is done for it can be done again: an open that is killed here leaves the same to the next one.
//!
//! # Thread safety
//! Runs when the log is opened, before anybody appends.

use std::{collections::BTreeMap, sync::Arc};

use super::{Groups, PartitionId};
use crate::{
    partition::{LOST_CEILING_GAP, PartitionLog},
    report::{Finding, RecoveryReport},
};

impl Groups {
    /// Has partitions go on behind what groups have committed of them, and tells of those that had to.
    pub(crate) fn pass_commits(&self, report: &mut RecoveryReport) {
        let committed = self.greatest_commits();
        if committed.is_empty() {
            return;
        }
        let topics = self.topics.select(|_| true);
        for partition in topics.iter().flat_map(|topic| topic.partitions.iter()) {
            let Some(&committed) = committed.get(&PartitionId::of(partition)) else { continue };
            if committed > partition.end_offset() {
                pass(partition, committed, report);
            }
        }
    }

    /// Of all groups, by partition.
    fn greatest_commits(&self) -> BTreeMap<PartitionId, u64> {
        let state = self.state.lock();
        let mut greatest = BTreeMap::new();
        for (place, offset) in state.offsets.table().groups().flat_map(|(_, group)| group.commits()) {
            let known: &mut u64 = greatest.entry(place).or_default();
            *known = offset.max(*known);
        }
        greatest
    }
}

fn pass(partition: &Arc<PartitionLog>, committed: u64, report: &mut RecoveryReport) {
    let (start, end_offset) = (partition.start_offset(), partition.end_offset());
    // Nobody knows how far it went beyond the commit.
    let next_offset = committed.saturating_add(LOST_CEILING_GAP);
    let passed = partition.pass_offsets(next_offset).and_then(|()| match end_offset == start {
        // It is empty: who asks for an offset of before is to be told that it is gone.
        true => partition.delete_records(next_offset).map(drop),
        false => Ok(()),
    });
    report.add(Finding::CommitsBeyondEnd {
        path: partition.dir().into(),
        committed,
        end_offset,
        detail: match passed {
            Ok(()) => format!("appends go on at offset {next_offset}"),
            Err(error) => format!("appends may go on at offsets that were used before: {error}"),
        },
    });
}
