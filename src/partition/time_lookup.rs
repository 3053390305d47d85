//! Finding records by time, over the segments of a partition.
//!
//! # Invariants
//! - The answer is that of a walk over all records from the log start offset on, which is what it costs only where
//!   each block holds a record that could be the one.
//! - What may be the answer and can't be read is an error, as it is for who reads it. What lies before the answer, and
//!   can't be it by what the indexes tell, isn't looked at: damage there is no error.
//! - A sealed segment without such a record costs one number in memory; the first time, the headers of its files.
//!
//! # Thread safety
//! Any thread looks up; no lock that an append could wait for is held but for a moment.

use std::sync::Arc;

use super::{
    Batch, Cursor, PartitionLog,
    segment::{SegmentSlot, time_index_path},
    time_index::{self, BLOCK_BYTES, Bond, Coverage, Lookup},
};
use crate::{
    error::{Error, Result},
    frame::FrameHeader,
    segment_header::DATA_START,
};

/// Offsets to look through: none of those before them is the one.
#[derive(Debug)]
struct Stretch {
    from: u64,
    until: u64,
}

/// What a look through a stretch found.
enum Outcome {
    Found(u64),
    /// Nothing before this offset.
    GoOnAt(u64),
    EndOfLog,
}

impl PartitionLog {
    /// The offset of the first record, in the order of offsets, whose timestamp (the client's, else the log's) is at or
    /// behind `time_ms`; `None` if there is none. Clients' times needn't be in order: records behind it may be older.
    ///
    /// Kind `Corruption` where what decides can't be read, with the offset to go on at.
    pub(crate) fn offset_for_time(self: &Arc<Self>, time_ms: i64) -> Result<Option<u64>> {
        let mut position = self.start_offset();
        while let Some(stretch) = self.next_stretch(position, time_ms) {
            match self.look_through(&stretch, time_ms) {
                Ok(Outcome::Found(offset)) => return Ok(Some(offset)),
                Ok(Outcome::GoOnAt(offset)) => position = offset,
                Ok(Outcome::EndOfLog) => return Ok(None),
                // Deleted while we were looking: it doesn't count any more.
                Err(_) if self.start_offset() > stretch.from => position = self.start_offset(),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn look_through(self: &Arc<Self>, stretch: &Stretch, time_ms: i64) -> Result<Outcome> {
        let mut cursor = Cursor::new(self, stretch.from)?;
        loop {
            let Some(run) = cursor.next_run(BLOCK_BYTES as usize)? else { return Ok(Outcome::EndOfLog) };
            let batch = Batch::new(vec![run]);
            if let Some(record) = batch.iter().find(|record| record.timestamp_ms() >= time_ms) {
                return Ok(Outcome::Found(record.offset()));
            }
            if cursor.position() >= stretch.until {
                return Ok(Outcome::GoOnAt(cursor.position()));
            }
        }
    }

    /// The first block at or behind `position` that may hold a time at or behind `time_ms`. Where an index can't be
    /// had, it is the rest of the segment: reading tells why.
    fn next_stretch(&self, position: u64, time_ms: i64) -> Option<Stretch> {
        let segments = self.segments.load_full();
        let base_of = |at: usize| segments.get(at).map_or(u64::MAX, |slot| slot.base_offset);
        let behind = segments.partition_point(|slot| slot.base_offset <= position);
        let Some(first) = behind.checked_sub(1) else {
            // The segments that held it are missing, or deleted just now.
            return Some(Stretch { from: position, until: base_of(0) });
        };
        for at in first..segments.len() {
            if at > first && !self.follows(&segments, at) {
                let from = self.last_frame_offset(&segments, at - 1).unwrap_or(base_of(at - 1));
                return Some(Stretch { from: from.max(position), until: base_of(at) });
            }
            let (from, until) = (position.max(base_of(at)), base_of(at + 1));
            match self.stretch_in(&segments, at, from, time_ms) {
                Ok(None) => {}
                Ok(found) => return found,
                Err(_) => return Some(Stretch { from, until }),
            }
        }
        None
    }

    /// The first such block of one segment, at or behind `from`.
    fn stretch_in(&self, segments: &[Arc<SegmentSlot>], at: usize, from: u64, time_ms: i64) -> Result<Option<Stretch>> {
        let slot = &segments[at];
        let next_base = segments.get(at + 1).map(|next| next.base_offset);
        if next_base.is_some() && self.greatest_time_ms(segments, at)? < time_ms {
            return Ok(None);
        }
        let segment = self.open_segment(segments, at)?;
        segment.complete_times(&*self.env.storage);
        let absolute = |relative: u64| slot.base_offset.saturating_add(relative);
        let until = next_base.unwrap_or(u64::MAX);
        Ok(match segment.times.lookup(from - slot.base_offset, time_ms) {
            Lookup::Block(offsets) => {
                // A file that somebody else has made may name offsets that aren't there, with checks that hold.
                let last = next_base.unwrap_or_else(|| self.end_offset()).max(from);
                let from = from.max(absolute(offsets.start)).min(last);
                Some(Stretch { from, until: until.min(absolute(offsets.end)) })
            }
            // The writer's last frames are in no block yet.
            Lookup::Behind(relative) if next_base.is_none() => {
                Some(Stretch { from: from.max(absolute(relative)), until })
            }
            Lookup::Behind(_) => None,
        })
    }

    /// The greatest time in a segment that isn't the last one.
    fn greatest_time_ms(&self, segments: &[Arc<SegmentSlot>], at: usize) -> Result<i64> {
        let slot = &segments[at];
        if let Some(&known) = slot.greatest_time_ms.get() {
            return Ok(known);
        }
        let storage = &*self.env.storage;
        let greatest_ms = match self.greatest_time_in_file(segments, at) {
            Some(greatest_ms) => greatest_ms,
            None => {
                let segment = self.open_segment(segments, at)?;
                segment.complete_times(storage);
                let unknown = || Error::corruption(&slot.path, DATA_START, "the times in the segment aren't known");
                segment.times.greatest_ms().ok_or_else(unknown)?
            }
        };
        Ok(*slot.greatest_time_ms.get_or_init(|| greatest_ms))
    }

    /// What the file of a segment tells that isn't open.
    fn greatest_time_in_file(&self, segments: &[Arc<SegmentSlot>], at: usize) -> Option<i64> {
        let slot = &segments[at];
        if slot.is_open() {
            return None;
        }
        let header = slot.header(&*self.env.storage, &self.spec).ok()?;
        let next = segments.get(at + 1)?.header(&*self.env.storage, &self.spec).ok()?;
        let end = next.predecessor.filter(|before| before.segment_id == header.segment_id)?.end_position;
        let coverage = Coverage { segment_id: header.segment_id, end, bond: Bond::Successor(next.segment_id) };
        time_index::read_greatest_ms(&*self.env.storage, &time_index_path(&slot.path), coverage)
    }

    /// Whether nothing is missing between a segment and the one before it, by their headers.
    fn follows(&self, segments: &[Arc<SegmentSlot>], at: usize) -> bool {
        let header = |at: usize| segments[at].header(&*self.env.storage, &self.spec).ok();
        match (header(at - 1), header(at)) {
            (Some(before), Some(header)) => {
                header.predecessor.is_some_and(|predecessor| predecessor.segment_id == before.segment_id)
            }
            _ => false,
        }
    }

    /// The offset of about the last frame of a sealed segment: who reads on from there meets what follows.
    fn last_frame_offset(&self, segments: &[Arc<SegmentSlot>], at: usize) -> Option<u64> {
        let segment = self.open_segment(segments, at).ok()?;
        let end = segment.sealed_end()?;
        let position = segment.nearest_frame(&*self.env.storage, u32::MAX, end);
        // SAFETY: the segment is sealed at `end`.
        let bytes = unsafe { segment.published(position, end) };
        let header = FrameHeader::decode(bytes, segment.seed, position).ok()?;
        Some(segment.header.base_offset.saturating_add(header.relative_offset.into()))
    }
}
