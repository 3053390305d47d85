//! Verifying: reading all that a partition holds, without changing a byte, and telling what isn't as it was written.
//!
//! Everything is read with `pread`, so that a media error is a finding and not a signal: headers of segments and their
//! links, each frame with both its checks, the order of offsets, epochs and times, both indexes against the frames, the
//! slots of the checkpoint. Frames are found by the same [`Scan`](super::scan::Scan) that recovery uses.
//!
//! A verification has two steps: a *plan* (what is there now, and how much that is to read) and a *walk* through it. For a
//! whole log all plans are made first, so that what is verified is what was published at one time, more or less.
//!
//! # Of a partition that is open
//! Others append, roll, flush, and remove segments meanwhile. What is below the published end never changes, and it is
//! all that is looked at. Names can go: a segment that can't be opened, or whose file is another one by now, and that
//! isn't in the partition's list any more, was deleted; what was found in it is forgotten.
//!
//! # Of a partition that nobody has open
//! No recovery comes first, so it is told what an open would find, by the very functions that the open calls
//! ([`closed`]).
//!
//! # Invariants
//! - Nothing is written, created or removed, and nothing is locked that an append takes.
//! - A sound partition has no finding, whatever happens to it meanwhile.
//! - Memory doesn't grow with what is read: windows, a list of the segments, and at most so many findings.
//!
//! # Thread safety
//! Any thread may verify; the checkpoint's lock is held for two small reads.

mod closed;
mod headers;
mod indexes;
mod source;
mod walk;

use std::{io, path::Path, sync::Arc};

pub(crate) use closed::ClosedPlan;
pub(super) use closed::ClosedSegment;
pub(super) use walk::Damaged;

use self::{
    headers::Owner,
    walk::{Plan, Planned, Walk, set_ends},
};
use super::{
    PartitionLog,
    checkpoint::{self, Checkpoint, SlotFault},
    segment::segment_path,
};
use crate::{
    error::Result,
    record::RecordRef,
    storage::Storage,
    verification::{Mark, Verification, VerifyFinding},
};

/// What a walk meets, for whoever makes sense of the records.
pub(crate) enum Seen<'r> {
    /// A segment begins.
    Segment,
    Record(&'r RecordRef<'r>),
}

/// Who is told of that.
pub(crate) type Sink<'s> = &'s mut dyn FnMut(Seen<'_>);

/// A partition that is open, as it was when its verification began.
pub(crate) struct OpenPlan {
    partition: Arc<PartitionLog>,
    plan: Plan,
    /// Segments weren't there any more when it was made.
    skipped: bool,
}

impl PartitionLog {
    /// Plans to verify what is published now. Kind `UnknownTopic` if the partition was deleted, `Closed`.
    pub(crate) fn plan_verification(self: &Arc<Self>, verification: &mut Verification<'_>) -> Result<OpenPlan> {
        self.check_open()?;
        let mark = verification.mark();
        let slots = self.segments.load_full();
        // In this order: the log start only grows, and a segment goes behind that.
        let log_start = self.start_offset();
        let last_end = match slots.last() {
            Some(_) => Some(self.readable(&*self.open_segment(&slots, slots.len() - 1)?).end),
            None => None,
        };
        let end_offset = self.end_offset();
        self.check_checkpoint(verification);
        let owner = Owner { topic_id: self.spec.topic_id, number: self.spec.number };
        let (mut segments, mut skipped) = (Vec::new(), false);
        for (at, slot) in slots.iter().enumerate() {
            let header = headers::read(&*self.env.storage, &slot.path, slot.base_offset, owner, verification);
            match header {
                Some(header) => segments.push(Planned::new(slot.base_offset, header)),
                None if self.is_gone(slot.base_offset) => skipped = true,
                None => {
                    let behind = slots.get(at + 1).map_or(end_offset, |next| next.base_offset);
                    let offsets = slot.base_offset..behind;
                    verification.find(VerifyFinding::SegmentsMissing { folder: self.dir.clone(), offsets });
                }
            }
        }
        set_ends(&mut segments, last_end);
        verification.add_total(segments.iter().map(|segment| segment.bytes).sum());
        let plan = Plan {
            storage: self.env.storage.clone(),
            dir: self.dir.clone(),
            topic: self.spec.topic.clone(),
            number: self.spec.number,
            log_start: if skipped { segments.first().map_or(0, |first| first.base) } else { log_start },
            end_offset,
            segments,
            epoch: None,
            is_open: true,
            is_internal: self.spec.topic.starts_with(crate::name::RESERVED_PREFIX),
        };
        self.settle_findings(verification, &mark)?;
        Ok(OpenPlan { partition: self.clone(), plan, skipped })
    }

    /// Whether a segment that was in the list isn't there any more.
    fn is_gone(&self, base: u64) -> bool {
        self.segments.load().first().is_none_or(|oldest| base < oldest.base_offset)
    }

    /// Forgets what was found since the mark if the files weren't this partition's any more.
    fn settle_findings(&self, verification: &mut Verification<'_>, mark: &Mark) -> Result<()> {
        self.check_open().inspect_err(|_| verification.forget_since(mark))
    }

    fn check_checkpoint(&self, verification: &mut Verification<'_>) {
        {
            // Nobody writes it meanwhile.
            let _checkpoint = self.checkpoint.lock();
            check_slots(&*self.env.storage, &self.dir, verification);
        }
        if let Some(detail) = self.poison.get() {
            let (folder, detail) = (self.dir.clone(), detail.to_string());
            verification.find(VerifyFinding::Poisoned { folder, detail });
        }
    }
}

impl OpenPlan {
    /// Reads everything. Answers whether all that was planned was still there; kind `UnknownTopic` if the partition was
    /// deleted meanwhile, `Closed`; what was found of it is forgotten then.
    pub(crate) fn run(self, verification: &mut Verification<'_>, sink: Option<Sink<'_>>) -> Result<bool> {
        let mark = verification.mark();
        let walked = Walk::new(&self.plan, verification, sink).run(&|base| self.partition.is_gone(base));
        self.partition.settle_findings(verification, &mark)?;
        Ok(!self.skipped && !walked.skipped)
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionLog> {
        &self.partition
    }
}

/// Tells what is wrong with the slots of a checkpoint; answers whether something is.
fn check_slots(storage: &dyn Storage, dir: &Path, verification: &mut Verification<'_>) -> bool {
    let file = dir.join(checkpoint::FILE_NAME);
    let faults = match Checkpoint::slot_faults(storage, dir) {
        Ok(faults) => faults,
        Err(error) => {
            let detail = match error.kind() {
                io::ErrorKind::NotFound => Some("it is missing".into()),
                _ => verification.refused(&file, 0..0, error),
            };
            if let Some(detail) = detail {
                verification.find(VerifyFinding::Checkpoint { file, range: 0..0, detail });
            }
            return true;
        }
    };
    let something = !faults.is_empty();
    for (range, fault) in faults {
        let (file, position) = (file.clone(), range.start);
        verification.find(match fault {
            SlotFault::Damaged => {
                let detail = "the slot isn't what was written".into();
                VerifyFinding::Checkpoint { file, range, detail }
            }
            SlotFault::Unreadable(error) => VerifyFinding::Unreadable { file, range, detail: error.to_string() },
            SlotFault::Newer(version) => {
                let detail = format!("the checkpoint has format version {version}");
                VerifyFinding::NewerFormat { file, position, detail }
            }
        });
    }
    something
}

impl Plan {
    /// The header of each segment, as far as it is believed, with the position of a copy that isn't.
    fn bad_copies(&self) -> impl Iterator<Item = (std::path::PathBuf, crate::segment_header::SegmentHeader, u64)> {
        self.segments
            .iter()
            .filter_map(|segment| Some((segment_path(&self.dir, segment.base), segment.header?, segment.bad_copy?)))
    }
}
