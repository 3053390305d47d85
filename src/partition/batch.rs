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

    fn iter(&self) -> RunRecords<'_> {
        // SAFETY: a run lies below the published end.
        let bytes = unsafe { self.segment.published(self.start, self.end) };
        RunRecords { run: self, bytes, position: self.start, frame: None }
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
        Records { runs: self.runs.iter(), current: None, remaining: self.len() }
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
    runs: std::slice::Iter<'a, Run>,
    current: Option<RunRecords<'a>>,
    remaining: usize,
}

impl fmt::Debug for Records<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("remaining", &self.remaining).finish_non_exhaustive()
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        loop {
            if let Some(record) = self.current.as_mut().and_then(Iterator::next) {
                self.remaining = self.remaining.saturating_sub(1);
                return Some(record);
            }
            self.current = Some(self.runs.next()?.iter());
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Records<'_> {}

/// The records of a run.
struct RunRecords<'a> {
    run: &'a Run,
    /// The frames that aren't begun yet, and where they are.
    bytes: &'a [u8],
    position: u64,
    frame: Option<OpenFrame<'a>>,
}

struct OpenFrame<'a> {
    views: RecordViews<'a>,
    next_offset: u64,
    append_time_ms: i64,
}

impl<'a> RunRecords<'a> {
    /// Steps to the next frame.
    fn open_frame(&mut self) -> Option<OpenFrame<'a>> {
        let segment = &self.run.segment;
        let header = FrameHeader::decode(self.bytes, segment.seed, self.position).ok()?;
        let (frame, rest) = self.bytes.split_at_checked(header.frame_bytes())?;
        self.bytes = rest;
        self.position += frame.len() as u64;
        Some(OpenFrame {
            views: frame::records(&header, frame),
            next_offset: segment.header.base_offset.saturating_add(header.relative_offset.into()),
            append_time_ms: segment.append_time_ms(&header),
        })
    }
}

impl<'a> Iterator for RunRecords<'a> {
    type Item = RecordRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<RecordRef<'a>> {
        let spec = &*self.run.spec;
        loop {
            if let Some(frame) = &mut self.frame {
                for view in &mut frame.views {
                    let offset = frame.next_offset;
                    frame.next_offset += 1;
                    if offset > self.run.last_offset {
                        return None;
                    }
                    if offset >= self.run.from_offset {
                        return Some(RecordRef::new(&spec.topic, spec.number, offset, frame.append_time_ms, view));
                    }
                }
            }
            self.frame = Some(self.open_frame()?);
        }
    }
}
