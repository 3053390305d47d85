//! What goes from the start of a partition: segments by age and by size, records below an offset that somebody names.
//!
//! # Which segments go
//! Whole ones, oldest first, and never more than is asked for ([`oldest_that_go`]):
//! - by age, once the newest record is older by the *log's own* time, which clients don't set. What is known of a sealed
//!   segment's newest record is exact if it was sealed by this process; else it is when the segment behind it began,
//!   which is never earlier: frame times don't fall.
//! - by size, as long as what stays is as large as asked for.
//!
//! The active segment never goes for size. Once all of its records are too old it is ended, and goes as well: a topic that
//! nobody writes to forgets too.
//!
//! # When the system's clock jumps
//! Ages are counted from the clock as it is now. A clock that jumped ahead ages everything by that much, and nothing in a
//! log tells that from a machine that was off as long: who can't rely on the clock sets a size instead. Behind a jump back
//! records are as old as the clock says, so none goes early; those that were appended at a time that lies ahead now stay
//! until the clock has passed it by the age. While the clock stands still nothing gets older. (Were ages counted from the
//! log's greatest time instead, one moment of a wrong clock would let everything go, for good.)
//!
//! # Invariants
//! - The log start offset is raised in the durable checkpoint before a file is removed, and only to what is on the
//!   device: a power cut in between leaves files that the next open removes, and no damage.
//! - Who reads in a segment that goes reads on in what is mapped.
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
    error::{ErrorKind, Repr, Result},
    segment_header::{Predecessor, SegmentHeader},
};

/// What retention has removed.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Segments, over all partitions.
    pub segments: u64,
    /// Their size, in bytes.
    pub bytes: u64,
}

impl std::ops::AddAssign for Removed {
    fn add_assign(&mut self, other: Self) {
        self.segments += other.segments;
        self.bytes += other.bytes;
    }
}

/// How long and how much is kept.
#[derive(Debug, Clone, Copy)]
struct Limits {
    age_ms: Option<u64>,
    bytes: Option<u64>,
}

impl Limits {
    /// Whether a record of this time is older than what is kept.
    fn is_expired(&self, time_ms: i64, now_ms: i64) -> bool {
        self.age_ms.is_some_and(|limit| i128::from(now_ms) - i128::from(time_ms) > i128::from(limit))
    }
}

/// How many of the oldest segments go. `sealed` are all of them but the active one; where there is no limit of bytes, the
/// first that isn't expired may be the last.
fn oldest_that_go(sealed: &[Extent], active_bytes: u64, limits: Limits, now_ms: i64) -> usize {
    let expired = sealed.iter().take_while(|segment| limits.is_expired(segment.newest_ms, now_ms)).count();
    let mut left = sealed.iter().fold(active_bytes, |sum, segment| sum.saturating_add(segment.bytes));
    let surplus = sealed.iter().take_while(|segment| {
        left = left.saturating_sub(segment.bytes);
        limits.bytes.is_some_and(|limit| left >= limit)
    });
    expired.max(surplus.count())
}

/// How large a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(dead_code, reason = "describing topics comes next")]
pub(crate) struct PartitionStats {
    /// The active one counts too.
    pub(crate) segments: usize,
    /// Of the segments, up to their ends: without indexes, and without space that is reserved ahead.
    pub(crate) bytes: u64,
}

impl PartitionLog {
    /// How large the partition is. Reads a header for each segment that isn't known yet, once.
    #[allow(dead_code, reason = "describing topics comes next")]
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
    /// Removes what is older or more than the options keep; tells what that was.
    pub(crate) fn enforce_retention(&self) -> Result<Removed> {
        let settings = &self.spec.settings;
        let limits = Limits { age_ms: settings.retention_ms(), bytes: settings.retention_bytes() };
        let mut leftovers = self.leftovers.lock();
        self.check_writable()?;
        let now_ms = self.env.clock.now_ms();
        self.roll_for_removal(|_, newest_ms| limits.is_expired(newest_ms, now_ms))?;

        let segments = self.segments.load_full();
        let mut sealed = Vec::new();
        for at in 0..segments.len().saturating_sub(1) {
            // What nobody asks for isn't worth a look into ten thousand files.
            let asked = limits.bytes.is_some() || limits.age_ms.is_some();
            let known = |last: &Extent| limits.bytes.is_none() && !limits.is_expired(last.newest_ms, now_ms);
            if !asked || sealed.last().is_some_and(known) {
                break;
            }
            sealed.push(self.extent(&segments, at)?);
        }
        let active_bytes = self.control.committed().file_position();
        let going = oldest_that_go(&sealed, active_bytes, limits, now_ms);
        if going == 0 {
            self.remove_leftovers(&mut leftovers)?;
            return Ok(Removed::default());
        }
        self.raise_log_start(segments[going].base_offset, &mut leftovers)?;
        let bytes = sealed[..going].iter().map(|segment| segment.bytes).sum();
        Ok(Removed { segments: going as u64, bytes })
    }

    /// Ends the active segment if it has records and `goes` says so of its end offset and newest record; a new one is
    /// begun behind it. On a full disk it stays.
    fn roll_for_removal(&self, goes: impl Fn(u64, i64) -> bool) -> Result<()> {
        match self.roll_if(goes) {
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            outcome => outcome,
        }
    }

    /// Raises the log start offset, durably, to `before`, and removes the segments that lie wholly below it. Answers the
    /// log start offset, which was beyond that already if `before` lies below it; kind `OffsetOutOfRange` if it lies
    /// behind the log end offset.
    pub(crate) fn delete_records(&self, before: u64) -> Result<u64> {
        let mut leftovers = self.leftovers.lock();
        self.check_writable()?;
        let valid = self.start_offset()..self.settled_end_offset();
        if before > valid.end {
            let (topic, partition) = (self.spec.topic.to_string(), self.spec.number);
            return Err(Repr::OffsetOutOfRange { topic, partition, offset: before, valid }.into());
        }
        if before > valid.start {
            self.roll_for_removal(|end_offset, _| end_offset <= before)?;
        }
        self.raise_log_start(before, &mut leftovers)?;
        Ok(self.start_offset())
    }

    /// Raises the log start offset, durably, to the base offset of the segment that holds `offset`, and removes the
    /// segments before it.
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

    /// Raises the log start offset, durably, and removes the segments that lie wholly below it. Flushes first: a log
    /// start that outlives a power cut which what it leads to doesn't would look like damage. `leftovers` is locked by
    /// the caller.
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
        self.env.storage.sync_dir(&self.dir).map_err(|source| self.sync_failed(&self.dir, source))
    }
}
