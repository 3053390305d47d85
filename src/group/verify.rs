//! What `__offsets` means, checked while its segments are verified.
//!
//! The records are folded as an open folds them ([`offsets`](super::offsets)), only from front to back: with each segment
//! another fold begins, and one that turns out to begin with a whole snapshot takes the place of what was before it.
//!
//! # Invariants
//! - What counts in the end is what an open would have.
//! - A group may commit, and segments may go, meanwhile: no commit is compared but with an end that is read later.
//!
//! # Thread safety
//! Belongs to one thread.

use std::path::PathBuf;

use super::{
    PartitionId,
    membership::Change,
    offsets::{Fold, Snapshot},
};
use crate::{
    error::Error,
    partition::Seen,
    verification::{Verification, VerifyFinding},
};

/// So many records that are none of a group are told one by one.
const MAX_TOLD: usize = 100;

/// The records of `__offsets` in the making.
pub(crate) struct CommitsCheck {
    /// The partition's folder.
    dir: PathBuf,
    /// What counts so far.
    current: Fold,
    /// Folds that may begin with a whole snapshot.
    candidates: Vec<Fold>,
    has_snapshot: bool,
    damage: Vec<Error>,
    newer: Option<Error>,
}

impl CommitsCheck {
    pub(crate) fn new(dir: PathBuf) -> Self {
        let (current, candidates, damage) = (Fold::default(), Vec::new(), Vec::new());
        Self { dir, current, candidates, has_snapshot: false, damage, newer: None }
    }

    /// Takes in what a walk meets.
    pub(crate) fn see(&mut self, seen: Seen<'_>) {
        let record = match seen {
            Seen::Segment => return self.candidates.push(Fold::default()),
            Seen::Record(record) => record,
        };
        if let Err(error) = self.current.add(&self.dir, record) {
            self.newer.get_or_insert(error);
        }
        let told = self.damage.len();
        self.damage.extend(self.current.damage.drain(..).take(MAX_TOLD.saturating_sub(told)));
        for fold in &mut self.candidates {
            // Told above.
            let _ = fold.add(&self.dir, record);
            fold.damage.clear();
        }
        if let Some(at) = self.candidates.iter().rposition(|fold| fold.snapshot == Snapshot::Whole) {
            self.current = self.candidates.swap_remove(at);
            self.has_snapshot = true;
        }
        self.candidates.retain(|fold| matches!(fold.snapshot, Snapshot::Entries(_)));
    }

    /// Tells what is wrong. `needs_snapshot`: earlier segments were removed, and all that weren't were read. `end_of` is
    /// the name and the log end offset of a partition that is there.
    pub(crate) fn finish(
        self,
        needs_snapshot: bool,
        end_of: &dyn Fn(PartitionId) -> Option<(String, u64)>,
        verification: &mut Verification<'_>,
    ) {
        let mut tell = |detail: String| {
            verification.find(VerifyFinding::Commits { folder: self.dir.clone(), detail });
        };
        self.damage.iter().for_each(|error| tell(error.to_string()));
        if needs_snapshot && !self.has_snapshot {
            tell("no segment begins with a whole snapshot".into());
        }
        if let Some(error) = self.newer {
            let (file, detail) = (self.dir.clone(), error.to_string());
            verification.find(VerifyFinding::NewerFormat { file, position: 0, detail });
        }
        for (group, change) in self.current.table.entries() {
            let Change::Commit(place, Some(committed)) = change else { continue };
            let Some((topic, end_offset)) = end_of(place) else { continue };
            if committed.offset > end_offset {
                let (group, partition, committed) = (group.to_string(), place.partition, committed.offset);
                verification.find(VerifyFinding::CommitBeyondEnd { group, topic, partition, committed, end_offset });
            }
        }
    }
}
