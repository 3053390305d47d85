//! Records that were read: verified frames, still in their maps.
//!
//! # Invariants
//! - A run's frames were verified when it was made, lie below the published end, and are never stored to again. So
//!   iterating verifies nothing again and can't fail.
//! - A run keeps its segment mapped, also when retention removes the file.
//!
//! # Thread safety
//! Immutable; `Send`, `Sync`, and cheap to clone.

use std::{fmt, sync::Arc};

use super::{PartitionSpec, Skipped, segment::Segment};
use crate::{
    frame::{self, FrameHeader, RecordViews},
    record::RecordRef,
};

/// Verified frames of one segment.
#[derive(Clone)]
pub(crate) struct Run {
    pub(super) spec: Arc<PartitionSpec>,
    pub(super) segment: Arc<Segment>,
    /// File positions of the first frame and behind the last.
    pub(super) start: u64,
    pub(super) end: u64,
    /// Records below this offset were not asked for.
    pub(super) from_offset: u64,
    /// Records from `from_offset` to `last_offset`.
    pub(super) records: u64,
    /// Records behind this offset come later.
    pub(super) last_offset: u64,
}

impl Run {
    /// How many records there are.
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the frames.
    pub(crate) fn bytes(&self) -> usize {
        usize::try_from(self.end - self.start).unwrap_or(usize::MAX)
    }

    /// The records, in the order of offsets.
    pub(crate) fn iter(&self) -> Records<'_> {
        Records::new(std::slice::from_ref(self), usize::try_from(self.records).unwrap_or(usize::MAX))
    }

    /// The frames.
    fn frames(&self) -> &[u8] {
        // SAFETY: a run lies below the published end.
        unsafe { self.segment.published(self.start, self.end) }
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("topic", &self.spec.topic)
            .field("partition", &self.spec.number)
            .field("from_offset", &self.from_offset)
            .field("last_offset", &self.last_offset)
            .field("records", &self.records)
            .finish()
    }
}

/// Records that a [`Reader`](crate::Reader) or [`Consumer`](crate::Consumer) has read, borrowed from the mapped log.
///
/// Iterate with `for record in &batch`; [`RecordRef::to_owned`] keeps a record beyond the batch. A batch is cheap to
/// clone and can be sent to other threads. It stays valid whatever happens to the log: it keeps the files mapped that
/// it lies in.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    runs: Arc<[Run]>,
    skipped: Option<Arc<[Skipped]>>,
}

impl Batch {
    pub(crate) fn new(runs: Vec<Run>) -> Self {
        Self::with_skipped(runs, Vec::new())
    }

    /// With what was passed over on the way.
    pub(crate) fn with_skipped(runs: Vec<Run>, skipped: Vec<Skipped>) -> Self {
        Self { runs: runs.into(), skipped: (!skipped.is_empty()).then(|| skipped.into()) }
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        usize::try_from(self.runs.iter().map(Run::records).sum::<u64>()).unwrap_or(usize::MAX)
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// What was passed over before or between these records, by the policies of the consumer or reader
    /// ([`CorruptionPolicy`](crate::CorruptionPolicy), [`OutOfRangePolicy`](crate::OutOfRangePolicy)). Empty unless one
    /// of them says so. A batch can hold this and no record.
    pub fn skipped(&self) -> &[Skipped] {
        self.skipped.as_deref().unwrap_or_default()
    }

    /// The records, in offset order within each partition.
    pub fn iter(&self) -> Records<'_> {
        Records::new(&self.runs, self.len())
    }
}

impl<'a> IntoIterator for &'a Batch {
    type Item = RecordRef<'a>;
    type IntoIter = Records<'a>;

    fn into_iter(self) -> Records<'a> {
        self.iter()
    }
}

/// The records of a [`Batch`].
pub struct Records<'a> {
    /// The runs that aren't begun yet, the one that is, and what is left of its frames.
    runs: std::slice::Iter<'a, Run>,
    run: Option<&'a Run>,
    bytes: &'a [u8],
    /// The frame that is begun, how many of its records come, and the offset of the next one.
    views: RecordViews<'a>,
    left: u64,
    next_offset: u64,
    append_time_ms: i64,
    remaining: usize,
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl<'a> Records<'a> {
    fn new(runs: &'a [Run], remaining: usize) -> Self {
        Self {
            runs: runs.iter(),
            run: None,
            bytes: &[],
            views: RecordViews::default(),
            left: 0,
            next_offset: 0,
            append_time_ms: 0,
            remaining,
        }
    }

    /// Steps to the next frame that has records which were asked for. Not a part of [`next`](Records::next), so that what
    /// is done for each record is short.
    #[inline(never)]
    fn open_frame(&mut self) -> Option<()> {
        loop {
            if let Some(run) = self.run {
                if let Some(opened) = self.open_frame_of(run) {
                    return Some(opened);
                }
            }
            let run = self.runs.next()?;
            (self.run, self.bytes) = (Some(run), run.frames());
        }
    }

    #[inline]
    fn open_frame_of(&mut self, run: &'a Run) -> Option<()> {
        let segment = &run.segment;
        loop {
            let header = FrameHeader::of_verified(self.bytes)?;
            // One of no bytes isn't what was verified.
            let (frame, rest) = self.bytes.split_at_checked(header.frame_bytes()).filter(|(it, _)| !it.is_empty())?;
            self.bytes = rest;
            let base = segment.header.base_offset.saturating_add(header.relative_offset.into());
            let behind = base.saturating_add(header.record_count.into()).min(run.last_offset.saturating_add(1));
            let first = base.max(run.from_offset);
            if first < behind {
                self.views = frame::records(&header, frame);
                (base..first).try_for_each(|_| self.views.next().map(drop))?;
                (self.left, self.next_offset) = (behind - first, first);
                self.append_time_ms = segment.append_time_ms(&header);
                return Some(());
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        if self.left == 0 {
            self.open_frame()?;
        }
        let spec = &*self.run?.spec;
        let view = self.views.next()?;
        let offset = self.next_offset;
        (self.left, self.next_offset) = (self.left - 1, offset + 1);
        self.remaining = self.remaining.saturating_sub(1);
        Some(RecordRef::new(&spec.topic, spec.number, offset, self.append_time_ms, view))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Records<'_> {}
