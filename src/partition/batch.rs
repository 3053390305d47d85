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

    /// Of a frame's records, whose first has the offset `base`, those that were asked for, and the offset of their first.
    #[inline(never)]
    fn wanted<'a>(&self, mut views: RecordViews<'a>, base: u64) -> (RecordViews<'a>, u64) {
        let first = base.max(self.from_offset);
        let wanted = self.last_offset.saturating_add(1).saturating_sub(first);
        let passed = usize::try_from(first - base).unwrap_or(usize::MAX);
        if passed > 0 {
            // More than there are leave none.
            let _ = views.nth(passed - 1);
        }
        views.truncate(u16::try_from(wanted).unwrap_or(u16::MAX));
        (views, first)
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
    /// Those of the frame that is begun, and the offset of the next one.
    views: RecordViews<'a>,
    next_offset: u64,
    append_time_ms: i64,
    /// Records behind that frame.
    behind: usize,
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("remaining", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> Records<'a> {
    fn new(runs: &'a [Run], records: usize) -> Self {
        Self {
            runs: runs.iter(),
            run: None,
            bytes: &[],
            views: RecordViews::default(),
            next_offset: 0,
            append_time_ms: 0,
            behind: records,
        }
    }

    /// Steps to the next frame that has records which were asked for; `None` if there is none.
    ///
    /// All of it is inlined where records are walked: a call that is given `self` would have the walk keep in memory what
    /// it has in registers otherwise.
    #[inline(always)]
    fn open_frame(&mut self) -> Option<()> {
        loop {
            while self.bytes.is_empty() {
                let run = self.runs.next()?;
                (self.run, self.bytes) = (Some(run), run.frames());
            }
            let run = self.run?;
            let header = FrameHeader::of_verified(self.bytes)?;
            // One of no bytes isn't what was verified.
            let (frame, rest) = self.bytes.split_at_checked(header.frame_bytes()).filter(|(it, _)| !it.is_empty())?;
            self.bytes = rest;
            let base = run.segment.header.base_offset.saturating_add(header.relative_offset.into());
            let behind = base.saturating_add(header.record_count.into());
            self.views = frame::records(&header, frame);
            self.next_offset = base;
            self.append_time_ms = run.segment.append_time_ms(&header);
            if base < run.from_offset || behind > run.last_offset {
                (self.views, self.next_offset) = run.wanted(self.views.clone(), base);
            }
            let records = self.views.remaining();
            if records > 0 {
                self.behind = self.behind.saturating_sub(records.into());
                return Some(());
            }
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    #[inline(always)]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        if self.views.remaining() == 0 {
            self.open_frame()?;
        }
        let view = self.views.next()?;
        let spec = &*self.run?.spec;
        let offset = self.next_offset;
        self.next_offset = offset + 1;
        Some(RecordRef::new(&spec.topic, spec.number, offset, self.append_time_ms, view))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let records = self.behind + usize::from(self.views.remaining());
        (records, Some(records))
    }
}

impl ExactSizeIterator for Records<'_> {}
