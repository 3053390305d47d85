//! How far a reader is behind: in bytes, and in time.
//!
//! # Invariants
//! - Frames are looked at in one segment alone, and there from an entry of the sparse index on; sealed segments count
//!   by what their successors' headers say of their ends.
//! - What was deleted isn't counted: an offset before the log start offset stands for that.
//!
//! # Thread safety
//! Any thread may call anything.

use std::{sync::Arc, time::Duration};

use super::{Cursor, PartitionLog, segment::SegmentSlot};
use crate::{error::Result, segment_header::DATA_START};

impl PartitionLog {
    /// Bytes in the files that a reader at `from_offset` has still to read: of whole frames, headers of segments not
    /// counted. Zero at the end and behind it.
    pub(crate) fn bytes_between(self: &Arc<Self>, from_offset: u64) -> Result<u64> {
        self.at_log_start_or(from_offset, |offset| self.bytes_from(offset))
    }

    /// The log's time of the first record at or behind `offset`; `None` at the end and behind it. Of its frame only
    /// the header is looked at.
    pub(crate) fn append_time_at(self: &Arc<Self>, offset: u64) -> Result<Option<i64>> {
        self.at_log_start_or(offset, |offset| match offset >= self.end_offset() {
            true => Ok(None),
            false => Cursor::new(self, offset)?.append_time_ms(),
        })
    }

    /// How long ago the first record at or behind `offset` was appended that can be read; zero at the end.
    pub(crate) fn time_behind(self: &Arc<Self>, offset: u64) -> Result<Duration> {
        let mut offset = offset;
        loop {
            match self.append_time_at(offset) {
                Ok(None) => return Ok(Duration::ZERO),
                Ok(Some(time_ms)) => {
                    let behind_ms = self.env.clock.now_ms().saturating_sub(time_ms);
                    return Ok(Duration::from_millis(u64::try_from(behind_ms).unwrap_or(0)));
                }
                Err(error) => match error.resume_offset().filter(|&resume| resume > offset) {
                    Some(resume) => offset = resume,
                    None => return Err(error),
                },
            }
        }
    }

    /// What `of` says of the offset, or of the log start offset if that is greater, also if it is raised meanwhile.
    fn at_log_start_or<T>(&self, offset: u64, of: impl Fn(u64) -> Result<T>) -> Result<T> {
        loop {
            let from = offset.max(self.start_offset());
            match of(from) {
                Err(_) if self.start_offset() > from => {}
                outcome => return outcome,
            }
        }
    }

    fn bytes_from(self: &Arc<Self>, offset: u64) -> Result<u64> {
        if offset >= self.end_offset() {
            return Ok(0);
        }
        let mut cursor = Cursor::new(self, offset)?;
        let (segment, position) = cursor.place()?;
        let mut bytes = self.readable(&segment).end.saturating_sub(position);
        let segments = self.segments.load_full();
        let behind = segments.partition_point(|slot| slot.base_offset <= segment.header.base_offset);
        for at in behind..segments.len() {
            bytes = bytes.saturating_add(self.end_of(&segments, at)?.saturating_sub(DATA_START));
        }
        Ok(bytes)
    }

    /// Where the frames of a segment end.
    fn end_of(&self, segments: &[Arc<SegmentSlot>], at: usize) -> Result<u64> {
        match segments.get(at + 1) {
            Some(next) => segments[at].bytes(&self.env, &self.spec, next),
            None => Ok(self.readable(&*self.open_segment(segments, at)?).end),
        }
    }
}
