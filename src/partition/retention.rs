//! What goes from the start of a partition: segments by age and by size, records below an offset that somebody names.
//!
//! # Which segments go
//! Whole ones, oldest first, and never more than is asked for ([`oldest_that_go`]):
//! - by age, once the newest record is older by the *log's own* time, which clients don't set. When that was is known of
//!   a segment that was sealed by this process. Of others it is enough if the segment behind it began too long ago: frame
//!   times don't fall. Only where it didn't is the last frame looked up, once.
//! - by size, as long as what stays is as large as asked for.
//!
//! The active segment never goes for size. Once all of its records are too old it is ended, and goes as well: a topic that
//! nobody writes to forgets too.
//!
//! # When the system's clock jumps
//! Ages are counted by the clock, but for what it has leapt ahead while the log was open: that counts from when it is as
//! long ago as records are kept ([`Clock::expiry_now_ms`](crate::clock::Clock::expiry_now_ms)), so none goes early. A leap
//! between two processes is what no log can tell from a machine that was off as long: who can't rely on the clock then sets a
//! size instead. Behind a jump back records are as old as the clock says; those that were appended at a time that lies
//! ahead now stay until the clock has passed it by the age. While the clock stands still nothing gets older. (Were ages
//! counted from the log's greatest time instead, one moment of a wrong clock would let everything go, for good.)
//!
//! # Invariants
//! - The log start offset is raised in the durable checkpoint before a file is removed, and only to what is on the
//!   device: a power cut in between leaves files that the next open removes, and no damage.
//! - Who reads in a segment that goes reads on in what is mapped.
//!
//! # Thread safety
//! Any thread may call anything; who removes segments takes turns.

use std::{
    cell::RefCell,
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use super::{Company, PartitionLog, recovery::remove_segment, segment::SegmentSlot};
use crate::error::{ErrorKind, Repr, Result};

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

/// Files that are still to be removed.
type Leftovers = RefCell<Vec<PathBuf>>;

/// In place of the time of a segment's newest record: one behind a segment that isn't too old stays as well.
const NOT_ASKED: i64 = i64::MAX;

/// A sealed segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sealed {
    bytes: u64,
    /// When its newest record was appended.
    newest_ms: i64,
}

/// How many of the oldest segments go. `sealed` are all of them but the active one; where there is no limit of bytes, the
/// first that isn't expired may be the last.
fn oldest_that_go(sealed: &[Sealed], active_bytes: u64, limits: Limits, now_ms: i64) -> usize {
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
            bytes += segments[at].bytes(&self.env, &self.spec, &segments[at + 1])?;
        }
        Ok(PartitionStats { segments: segments.len(), bytes })
    }

    /// Removes what is older or more than the options keep; tells what that was.
    pub(crate) fn enforce_retention(self: &Arc<Self>) -> Result<Removed> {
        let settings = &self.spec.settings;
        let limits = Limits { age_ms: settings.retention_ms(), bytes: settings.retention_bytes() };
        // Asked for in any case: so leaps of the clock are noticed from the log's opening on.
        let now_ms = self.env.clock.expiry_now_ms(limits.age_ms.unwrap_or(0));
        let leftovers = self.leftovers.lock();
        if limits.age_ms.is_none() && limits.bytes.is_none() && leftovers.borrow().is_empty() {
            return Ok(Removed::default());
        }
        self.check_writable()?;
        self.roll_for_removal(|_, newest_ms| limits.is_expired(newest_ms, now_ms))?;

        let segments = self.segments.load_full();
        let sealed = self.sealed_segments(&segments, limits, now_ms)?;
        let active_bytes = self.control.committed().file_position();
        let going = oldest_that_go(&sealed, active_bytes, limits, now_ms);
        if going == 0 {
            self.remove_leftovers(&leftovers)?;
            return Ok(Removed::default());
        }
        self.raise_log_start(segments[going].base_offset, &leftovers)?;
        let bytes = sealed[..going].iter().map(|segment| segment.bytes).sum();
        Ok(Removed { segments: going as u64, bytes })
    }

    /// What is to be known of the sealed segments, as far as that is needed: nobody looks into ten thousand files for what
    /// the first few tell.
    fn sealed_segments(&self, segments: &[Arc<SegmentSlot>], limits: Limits, now_ms: i64) -> Result<Vec<Sealed>> {
        let mut sealed = Vec::new();
        let mut all_expired = limits.age_ms.is_some();
        for at in 0..segments.len().saturating_sub(1) {
            if !all_expired && limits.bytes.is_none() {
                break;
            }
            let bytes = segments[at].bytes(&self.env, &self.spec, &segments[at + 1])?;
            let newest_ms = if all_expired { self.newest_ms(segments, at, limits, now_ms)? } else { NOT_ASKED };
            all_expired &= limits.is_expired(newest_ms, now_ms);
            sealed.push(Sealed { bytes, newest_ms });
        }
        Ok(sealed)
    }

    /// When the last frame of a sealed segment was appended, or a later time that is too long ago as well: that a segment
    /// further on began then tells as much, and costs less to know.
    fn newest_ms(&self, segments: &[Arc<SegmentSlot>], at: usize, limits: Limits, now_ms: i64) -> Result<i64> {
        if let Some(known) = segments[at].known_newest_ms() {
            return Ok(known);
        }
        let mut bound = i64::MAX;
        for slot in &segments[at + 1..] {
            if let Some(header) = slot.header_if_intact(&*self.env.storage, &self.spec)? {
                bound = header.base_timestamp_ms;
                break;
            }
        }
        if limits.is_expired(bound, now_ms) {
            return Ok(bound);
        }
        segments[at].newest_ms(&self.env, &self.spec, &segments[at + 1], bound)
    }

    /// Ends the active segment if it has records and `goes` says so of its end offset and newest record; a new one is
    /// begun behind it. Where there is no space for that, or no file can be opened, it stays.
    fn roll_for_removal(self: &Arc<Self>, goes: impl Fn(u64, i64) -> bool) -> Result<()> {
        match self.roll_if(goes) {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::LimitReached) => Ok(()),
            outcome => outcome,
        }
    }

    /// Raises the log start offset, durably, to `before`, and removes the segments that lie wholly below it. Answers the
    /// log start offset, which was beyond that already if `before` lies below it; kind `OffsetOutOfRange` if it lies
    /// behind the log end offset.
    pub(crate) fn delete_records(self: &Arc<Self>, before: u64) -> Result<u64> {
        let leftovers = self.leftovers.lock();
        self.check_writable()?;
        let valid = self.start_offset()..self.settled_end_offset();
        if before > valid.end {
            let (topic, partition) = (self.spec.topic.to_string(), self.spec.number);
            return Err(Repr::OffsetOutOfRange { topic, partition, offset: before, valid }.into());
        }
        if before > valid.start {
            self.roll_for_removal(|end_offset, _| end_offset <= before)?;
        }
        self.raise_log_start(before, &leftovers)?;
        Ok(self.start_offset())
    }

    /// Raises the log start offset, durably, to the base offset of the segment that holds `offset`, and removes the
    /// segments before it.
    pub(crate) fn delete_segments_before(&self, offset: u64) -> Result<()> {
        let leftovers = self.leftovers.lock();
        self.check_writable()?;
        let segments = self.segments.load_full();
        let kept = segments.iter().rposition(|slot| slot.base_offset <= offset).unwrap_or(0);
        match segments.get(kept) {
            Some(slot) if kept > 0 => self.raise_log_start(slot.base_offset, &leftovers),
            _ => self.remove_leftovers(&leftovers),
        }
    }

    /// Raises the log start offset, durably, and removes the segments that lie wholly below it. Flushes first: a log
    /// start, or a removal, that outlives a power cut which what it leads to doesn't would look like damage. `leftovers`
    /// is locked by the caller.
    fn raise_log_start(&self, start_offset: u64, leftovers: &Leftovers) -> Result<()> {
        let segments = self.segments.load_full();
        let gone = segments.windows(2).take_while(|pair| pair[1].base_offset <= start_offset).count();
        let raise = start_offset > self.start_offset();
        if raise || gone > 0 {
            // Behind the look at the segments, so that the one that will be the oldest is on the device too.
            self.sync_through(self.control.committed(), Company::Alone)?;
            // A task that was woken by it may have ended the partition, and others may have files by these names soon.
            self.check_open()?;
        }
        if raise {
            let (durable, durable_offset) = self.durable_mark();
            self.update_checkpoint(|state| {
                state.log_start_offset = state.log_start_offset.max(start_offset);
                // A later scan begins there, and must not look for a segment that is gone.
                if durable > state.durable {
                    (state.durable, state.durable_offset) = (durable, durable_offset);
                }
            })?;
            self.start_offset.fetch_max(start_offset, Ordering::AcqRel);
        }
        if gone > 0 {
            let first_kept = segments[gone].base_offset;
            self.segments.rcu(|segments| {
                segments.iter().filter(|slot| slot.base_offset >= first_kept).cloned().collect::<Vec<_>>()
            });
            self.sync.lock().unsynced.retain(|segment| segment.header.base_offset >= first_kept);
            self.forget_recent_segments(first_kept);
            leftovers.borrow_mut().extend(segments[..gone].iter().map(|slot| slot.path.clone()));
        }
        let removed = self.remove_leftovers(leftovers);
        if !leftovers.borrow().is_empty() {
            // Whose check tries again, of users' topics. Without a thread for it, the next open does.
            let _ = self.env.open_files.housekeeper().begin();
        }
        removed
    }

    /// Removes the files of segments that are no longer a part of the log; what fails is tried again the next time.
    fn remove_leftovers(&self, leftovers: &Leftovers) -> Result<()> {
        let paths = leftovers.take();
        if paths.is_empty() {
            return Ok(());
        }
        let mut removed = 0;
        let outcome: Result<()> = paths.iter().try_for_each(|path| {
            remove_segment(&*self.env.storage, path)?;
            removed += 1;
            Ok(())
        });
        leftovers.borrow_mut().extend_from_slice(&paths[removed..]);
        outcome?;
        self.sync_folder()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule, by the letter: as long as there is a segment to go, the oldest one goes.
    fn by_the_list(mut sealed: Vec<Sealed>, active_bytes: u64, limits: Limits, now_ms: i64) -> usize {
        let count = sealed.len();
        while let Some(oldest) = sealed.first().copied() {
            let too_old = limits.age_ms.is_some_and(|age| now_ms - oldest.newest_ms > age as i64);
            let others = active_bytes + sealed[1..].iter().map(|segment| segment.bytes).sum::<u64>();
            let too_much = limits.bytes.is_some_and(|bytes| others >= bytes);
            if !(too_old || too_much) {
                break;
            }
            sealed.remove(0);
        }
        count - sealed.len()
    }

    proptest! {
        #[test]
        fn what_goes_is_what_goes_from_a_list(
            ages in prop::collection::vec((0..50_u64, 0..20_i64), 0..20),
            active_bytes in 0..50_u64,
            age_ms in prop::option::of(0..200_u64),
            bytes in prop::option::of(0..700_u64),
            now_ms in -50..300_i64,
        ) {
            // Times don't fall.
            let mut newest_ms = -40;
            let sealed: Vec<_> = ages
                .into_iter()
                .map(|(bytes, later)| {
                    newest_ms += later;
                    Sealed { bytes, newest_ms }
                })
                .collect();
            let limits = Limits { age_ms, bytes };
            let going = oldest_that_go(&sealed, active_bytes, limits, now_ms);
            prop_assert_eq!(going, by_the_list(sealed, active_bytes, limits, now_ms));
        }
    }

    #[test]
    fn extremes_go_nowhere() {
        let limits = Limits { age_ms: Some(u64::MAX), bytes: Some(u64::MAX) };
        let sealed = [i64::MIN, 0, i64::MAX].map(|newest_ms| Sealed { bytes: u64::MAX, newest_ms });
        for now_ms in [i64::MIN, 0, i64::MAX] {
            // Of sizes that can't be added up, what is left may look like nothing, but never like more.
            assert!(oldest_that_go(&sealed, u64::MAX, limits, now_ms) <= 2);
            let by_age = Limits { bytes: None, ..limits };
            assert_eq!(oldest_that_go(&sealed, u64::MAX, by_age, now_ms), 0);
        }
    }
}
