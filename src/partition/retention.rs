//! What goes from the start of a partition: segments, and the log start offset that leads to the first one kept.
//!
//! # Invariants
//! - The log start offset is raised in the durable checkpoint before a file is removed, and only to what is on the
//!   device: a power cut in between leaves files that the next open removes, and no damage.
//! - Whole segments go, oldest first, and never the active one. Who reads in one reads on in what is mapped.
//!
//! # Thread safety
//! Any thread may call anything; who removes segments takes turns.

use std::{
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{
    PartitionLog,
    recovery::remove_segment,
    segment::{Extent, SegmentSlot},
};
use crate::{
    error::{ErrorKind, Result},
    segment_header::{Predecessor, SegmentHeader},
};

/// How large a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionStats {
    /// The active one counts too.
    pub(crate) segments: usize,
    /// Of the segments, up to their ends: without indexes, and without space that is reserved ahead.
    pub(crate) bytes: u64,
}

impl PartitionLog {
    /// How large the partition is. Reads a header for each segment that isn't known yet, once.
    pub(crate) fn stats(&self) -> Result<PartitionStats> {
        self.check_exists()?;
        let segments = self.segments.load_full();
        let mut bytes = self.control.committed().file_position();
        for at in 0..segments.len().saturating_sub(1) {
            bytes += self.extent(&segments, at)?.bytes;
        }
        Ok(PartitionStats { segments: segments.len(), bytes })
    }

    /// How far a sealed segment reaches, by what was known when it was sealed, or by what the segments behind it say.
    pub(super) fn extent(&self, segments: &[Arc<SegmentSlot>], at: usize) -> Result<Extent> {
        if let Some(extent) = segments[at].extent() {
            return Ok(extent);
        }
        let own = self.header_if_intact(&segments[at])?;
        let mut next = None;
        for (distance, slot) in segments[at + 1..].iter().enumerate() {
            next = self.header_if_intact(slot)?.map(|header| (distance, header));
            if next.is_some() {
                break;
            }
        }
        let bytes = match (own, next.and_then(|(distance, header)| header.predecessor.filter(|_| distance == 0))) {
            (Some(own), Some(Predecessor { segment_id, end_position, .. })) if segment_id == own.segment_id => {
                end_position
            }
            // Nobody has written down where it ends: it has to be looked for.
            (Some(_), _) => self.open_segment(segments, at)?.sealed_end().unwrap_or(0),
            // What can't be read counts for nothing.
            (None, _) => 0,
        };
        // Times of frames never fall, nor do those of segments.
        let newest_ms = next.map_or(i64::MAX, |(_, header)| header.base_timestamp_ms);
        let extent = Extent { bytes, newest_ms };
        segments[at].set_extent(extent);
        Ok(extent)
    }

    /// The header of a segment; `None` if it is damaged, or the file isn't there.
    fn header_if_intact(&self, slot: &SegmentSlot) -> Result<Option<SegmentHeader>> {
        match slot.header(&*self.env.storage, &self.spec) {
            Ok(header) => Ok(Some(header)),
            Err(error) if error.kind() == ErrorKind::Corruption => Ok(None),
            Err(error) => match self.env.storage.entry_kind(&slot.path) {
                Ok(None) => Ok(None),
                _ => Err(error),
            },
        }
    }
    /// Raises the log start offset, durably, to the base offset of the segment that holds `offset`, and removes the
    /// segments before it. Who reads in them goes on with what is mapped. Flushes first: a log start that outlives a
    /// power cut which what it leads to doesn't would look like damage.
    pub(crate) fn delete_segments_before(&self, offset: u64) -> Result<()> {
        let mut leftovers = self.leftovers.lock();
        self.check_writable()?;
        let segments = self.segments.load_full();
        let kept = segments.iter().rposition(|slot| slot.base_offset <= offset).unwrap_or(0);
        match segments.get(kept) {
            Some(slot) if kept > 0 => self.raise_log_start(slot.base_offset, &mut leftovers),
            _ => self.remove_leftovers(&mut leftovers),
        }
    }

    /// Raises the log start offset, durably, and removes the segments that lie wholly before it. `leftovers` is locked
    /// by the caller.
    fn raise_log_start(&self, start_offset: u64, leftovers: &mut Vec<PathBuf>) -> Result<()> {
        if start_offset > self.start_offset() {
            self.sync_through(self.control.committed())?;
            let (durable_offset, durable) = (self.control.durable_offset(), self.control.durable());
            self.update_checkpoint(|state| {
                state.log_start_offset = state.log_start_offset.max(start_offset);
                // A later scan begins there, and must not look for a segment that is gone.
                if durable > state.durable {
                    (state.durable, state.durable_offset) = (durable, durable_offset);
                }
            })?;
            self.start_offset.fetch_max(start_offset, Ordering::AcqRel);
        }
        let segments = self.segments.load_full();
        let gone = segments.windows(2).take_while(|pair| pair[1].base_offset <= start_offset).count();
        if gone > 0 {
            let first_kept = segments[gone].base_offset;
            self.segments.rcu(|segments| {
                segments.iter().filter(|slot| slot.base_offset >= first_kept).cloned().collect::<Vec<_>>()
            });
            self.sync.lock().unsynced.retain(|segment| segment.header.base_offset >= first_kept);
            self.forget_recent_segments(first_kept);
            leftovers.extend(segments[..gone].iter().map(|slot| slot.path.clone()));
        }
        self.remove_leftovers(leftovers)
    }

    /// Removes the files of segments that are no longer a part of the log; what fails is tried again the next time.
    fn remove_leftovers(&self, leftovers: &mut Vec<PathBuf>) -> Result<()> {
        if leftovers.is_empty() {
            return Ok(());
        }
        let mut removed = 0;
        let outcome: Result<()> = leftovers.iter().try_for_each(|path| {
            remove_segment(&*self.env.storage, path)?;
            removed += 1;
            Ok(())
        });
        leftovers.drain(..removed);
        outcome?;
        self.sync_folder()
    }
}
