//! Several partitions in turn, so that none of them starves.
//!
//! # Invariants
//! - What was read of other partitions when one of them failed is handed out first; the error comes next. So is what a
//!   policy passed over.
//! - Every place that has something gets a share before any gets more; who is first changes from call to call.

use super::{
    place::{Bounds, Place, Step},
    policy::Policies,
};
use crate::{
    error::{Error, Result},
    partition::{Batch, Run, Skipped},
};

/// After so many places that were passed over, they are told before more are looked for.
const MAX_SKIPPED: usize = 256;

/// A batch keeps the segments mapped that it lies in. When it has this many runs of frames, each from one segment, no
/// further round begins: segments of a few records are many, and a process has only so many maps.
const LONG_BATCH: usize = 1024;

/// Whose turn it is.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The place that comes first next time.
    next: usize,
    /// Met while something had been read already.
    error: Option<Error>,
}

/// What one call has read so far.
#[derive(Debug)]
struct Taken {
    left: Bounds,
    runs: Vec<Run>,
    skipped: Vec<Skipped>,
}

impl Turns {
    /// Reads from `places` what the bounds allow; at least a record if there is any.
    pub(crate) fn read<P: AsMut<Place>>(
        &mut self,
        places: &mut [P],
        bounds: Bounds,
        policies: Policies,
    ) -> Result<Batch> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let mut taken = Taken { left: bounds, runs: Vec::new(), skipped: Vec::new() };
        let count = places.len();
        let first = self.next;
        let mut more = Vec::new();
        self.round((0..count).map(|step| (first + step) % count), count, places, policies, &mut taken, &mut more);
        while !more.is_empty() && !taken.is_full() && taken.runs.len() < LONG_BATCH && self.error.is_none() {
            let again = std::mem::take(&mut more);
            let count = again.len();
            self.round(again.into_iter(), count, places, policies, &mut taken, &mut more);
        }
        match self.error.take() {
            Some(error) if taken.is_empty() => Err(error),
            error => {
                self.error = error;
                Ok(Batch::with_skipped(taken.runs, taken.skipped))
            }
        }
    }

    /// Gives each of `count` places its share. Those that may have more go into `more`.
    fn round<P: AsMut<Place>>(
        &mut self,
        turns: impl Iterator<Item = usize>,
        count: usize,
        places: &mut [P],
        policies: Policies,
        taken: &mut Taken,
        more: &mut Vec<usize>,
    ) {
        let share = taken.left.share(count);
        for turn in turns {
            if taken.is_full() {
                break;
            }
            let place = places[turn].as_mut();
            if place.is_paused() {
                continue;
            }
            match place.step(share.at_most(taken.left), policies) {
                Ok(Step::End) => continue,
                Ok(Step::Records(run)) => {
                    taken.left.take(&run);
                    place.count(&run);
                    taken.runs.push(run);
                    self.next = turn + 1;
                }
                Ok(Step::Skipped(skipped)) => taken.skipped.push(skipped),
                Err(error) => {
                    self.error = self.error.take().or(Some(error));
                    continue;
                }
            }
            more.push(turn);
        }
    }

    /// Whether there is an error that wasn't told yet.
    pub(crate) fn has_error(&self) -> bool {
        self.error.is_some()
    }

    /// Forgets an error that wasn't told yet: positions were moved. Where it still stands it is met again.
    pub(crate) fn forget_error(&mut self) {
        self.error = None;
    }
}

impl Taken {
    fn is_full(&self) -> bool {
        self.left.bytes == 0 || self.left.records == 0 || self.skipped.len() >= MAX_SKIPPED
    }

    fn is_empty(&self) -> bool {
        self.runs.is_empty() && self.skipped.is_empty()
    }
}

impl Bounds {
    /// An equal part for each of `count`.
    fn share(self, count: usize) -> Self {
        let count = count.max(1);
        Self { bytes: (self.bytes / count).max(1), records: (self.records / count as u64).max(1) }
    }

    fn at_most(self, left: Self) -> Self {
        Self { bytes: self.bytes.min(left.bytes), records: self.records.min(left.records) }
    }

    fn take(&mut self, run: &Run) {
        self.bytes = self.bytes.saturating_sub(run.bytes());
        self.records = self.records.saturating_sub(run.records());
    }
}
