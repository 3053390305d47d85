//! The internal topic `__offsets`: what groups are and have committed, in memory and in the records that it is folded
//! from.
//!
//! # Format
//! Byte by byte in `src/doc/offsets.md`.
//!
//! # Invariants
//! - The table holds what was appended, no more and no less. Both change together, so log order is the order of the
//!   table's changes; and whoever decides by the table what to append decides by all that is appended. (With many
//!   processes the append will have to expect the end offset that the table stands for.)
//! - Records are appended only behind a whole snapshot in the active segment (where a segment was begun by its age in
//!   just that moment, behind one in the segment before).
//! - At any time, also in the middle of making a snapshot, the oldest segment or a later one begins with a whole
//!   snapshot, or nothing was ever removed.
//!
//! # Thread safety
//! Who appends has it alone. Nothing here waits for the device.

use std::{ops::Range, path::Path, sync::Arc};

use super::{
    codec::{self, Decoded, Encoded, Undecodable},
    membership::{Change, Table},
};
use crate::{
    config::Durability,
    error::{Error, ErrorKind, Repr, Result},
    partition::{Batch, Cursor, PartitionLog},
    record::{Record, RecordRef},
};

/// Records of a snapshot that are appended at once.
const SNAPSHOT_CHUNK: usize = 4096;

/// Bytes that are read at once when folding.
const FOLD_BYTES: usize = 1 << 20;

/// The state of all groups of a log.
#[derive(Debug)]
pub(crate) struct Offsets {
    partition: Arc<PartitionLog>,
    table: Table,
    /// Base offset of the newest segment that begins with a whole snapshot.
    snapshot_at: Option<u64>,
    /// Whether records may be appended: the active segment begins with a whole snapshot.
    in_order: bool,
    obsolete: Option<u64>,
}

/// A segment was begun: what came before the one in between can go once the new one is on the device.
#[derive(Debug)]
#[must_use = "segments pile up"]
pub(crate) struct Obsolete {
    partition: Arc<PartitionLog>,
    /// The base offset of the segment in between.
    before: u64,
}

impl Obsolete {
    /// Removes it. Waits for the device, so not to be called with a lock.
    pub(crate) fn remove(self) {
        // Nothing depends on it: what isn't removed now is removed next time, and a sync that failed has poisoned the
        // partition, which says so itself.
        let _ = self.partition.flush().and_then(|()| self.partition.delete_segments_before(self.before));
    }
}

impl Offsets {
    /// Folds what is in the partition. The second value is the damage that was met.
    pub(crate) fn open(partition: Arc<PartitionLog>) -> Result<(Self, Vec<Error>)> {
        let bases = partition.segment_base_offsets();
        let mut fold = Fold::default();
        let mut snapshot_at = None;
        for &base in bases.iter().rev() {
            fold = Fold::read(&partition, base.max(partition.start_offset()))?;
            if fold.snapshot == Snapshot::Whole {
                snapshot_at = Some(base);
                break;
            }
        }
        let in_order = snapshot_at.is_some() && snapshot_at == bases.last().copied();
        let offsets = Self { partition, table: fold.table, snapshot_at, in_order, obsolete: None };
        Ok((offsets, fold.damage))
    }

    pub(crate) fn partition(&self) -> &Arc<PartitionLog> {
        &self.partition
    }

    pub(crate) fn table(&self) -> &Table {
        &self.table
    }

    /// Appends changes of a group, and applies them: all or nothing as far as they fit a frame. Where it fails, what had
    /// been appended is applied. With [`Durability::Synced`], waiting for the device is left to the caller.
    pub(crate) fn append(&mut self, group: &str, changes: Vec<Change>, durability: Durability) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let durability = unsynced(durability);
        let encoded: Vec<Encoded> = changes.iter().map(|change| codec::encode(group, change)).collect();
        let records: Vec<Record<'_>> = encoded.iter().map(record).collect();
        if !self.in_order || self.partition.must_roll_for(&records)? {
            self.begin_segment(durability)?;
        }
        let mut appended: Vec<Range<u64>> = Vec::new();
        let outcome = self.partition.append_batch(&records, Some(durability), &mut appended);
        let count: u64 = appended.iter().map(|range| range.end - range.start).sum();
        // All of them, or those that were appended before it failed.
        for change in changes.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)) {
            self.table.apply(group, change);
        }
        outcome
    }

    /// What can be removed since a segment was begun; each is answered once.
    pub(crate) fn take_obsolete(&mut self) -> Option<Obsolete> {
        let before = self.obsolete.take()?;
        Some(Obsolete { partition: self.partition.clone(), before })
    }

    /// Begins a segment with a snapshot, durably, unless a segment begins with one. To be called before anybody else
    /// appends.
    pub(super) fn mend(&mut self) -> Result<bool> {
        if self.snapshot_at.is_some() || self.partition.start_offset() == 0 {
            return Ok(false);
        }
        self.begin_segment(Durability::Written)?;
        self.partition.flush()?;
        Ok(true)
    }

    /// The next append begins a segment.
    #[cfg(test)]
    pub(super) fn forget_order(&mut self) {
        self.in_order = false;
    }

    /// Begins a segment with a snapshot. If this fails, the next append tries again in yet another segment.
    fn begin_segment(&mut self, durability: Durability) -> Result<()> {
        self.in_order = false;
        self.partition.roll()?;
        let base = self.partition.segment_base_offsets().last().copied();
        let (mut chunk, mut count) = (Vec::with_capacity(SNAPSHOT_CHUNK), 0);
        let mut entries = self.table.entries();
        loop {
            chunk.clear();
            let next = entries.by_ref().take(SNAPSHOT_CHUNK);
            chunk.extend(next.map(|(group, entry)| codec::encode_entry(group, &entry)));
            count += chunk.len() as u64;
            let is_last = chunk.len() < SNAPSHOT_CHUNK;
            if is_last {
                chunk.push(codec::encode_end(count));
            }
            let records: Vec<Record<'_>> = chunk.iter().map(record).collect();
            self.partition.append_batch(&records, Some(durability), &mut Vec::new())?;
            if is_last {
                break;
            }
        }
        let previous = std::mem::replace(&mut self.snapshot_at, base);
        self.obsolete = previous.or(self.obsolete);
        self.in_order = true;
        Ok(())
    }
}

/// The durability to append with, when waiting for the device comes later.
fn unsynced(durability: Durability) -> Durability {
    if durability == Durability::Synced { Durability::Written } else { durability }
}

fn record((key, value): &Encoded) -> Record<'_> {
    match value {
        Some(value) => Record::new(value).key(key),
        None => Record::tombstone(key),
    }
}

/// Whether what is folded began with a whole snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Snapshot {
    /// So far, so many entries and nothing else.
    Entries(u64),
    Whole,
    /// There is none, or it lacks entries.
    Broken,
}

/// A table in the making.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) table: Table,
    pub(super) snapshot: Snapshot,
    pub(super) damage: Vec<Error>,
}

impl Default for Fold {
    fn default() -> Self {
        Self { table: Table::default(), snapshot: Snapshot::Entries(0), damage: Vec::new() }
    }
}

impl Fold {
    /// Folds everything from `offset` on. Goes on behind damage, and notes it.
    fn read(partition: &Arc<PartitionLog>, offset: u64) -> Result<Self> {
        let mut fold = Self::default();
        let mut cursor = Cursor::new(partition, offset)?;
        loop {
            match cursor.next_run(FOLD_BYTES) {
                Ok(None) => return Ok(fold),
                Ok(Some(run)) => {
                    for record in &Batch::new(vec![run]) {
                        fold.add(partition.dir(), &record)?;
                    }
                }
                Err(error) => {
                    // Damage between two frames takes no offset away.
                    let resume = error.resume_offset().filter(|&offset| offset >= cursor.position());
                    match resume {
                        Some(offset) if error.kind() == ErrorKind::Corruption => cursor.seek(offset)?,
                        _ => return Err(error),
                    }
                    fold.damage.push(error);
                }
            }
        }
    }

    /// Folds one record.
    pub(super) fn add(&mut self, dir: &Path, record: &RecordRef<'_>) -> Result<()> {
        match codec::decode(record.key(), record.value()) {
            Ok(Decoded::Entry(group, entry)) => {
                if let Snapshot::Entries(entries) = &mut self.snapshot {
                    *entries += 1;
                }
                self.table.restore(group, entry);
            }
            Ok(Decoded::SnapshotEnd(expected)) => {
                if let Snapshot::Entries(entries) = self.snapshot {
                    self.snapshot = if entries == expected { Snapshot::Whole } else { Snapshot::Broken };
                }
            }
            Ok(Decoded::Change(group, change)) => {
                if matches!(self.snapshot, Snapshot::Entries(_)) {
                    self.snapshot = Snapshot::Broken;
                }
                self.table.apply(group, change);
            }
            Err(Undecodable::Newer(what)) => {
                let path = dir.into();
                return Err(Repr::UnsupportedRecord { path, offset: record.offset(), what }.into());
            }
            Err(Undecodable::Malformed) => {
                let detail = format!("the record at offset {} isn't of a group", record.offset());
                self.damage.push(Error::corruption(dir, 0, detail));
            }
        }
        Ok(())
    }
}

#[cfg(any(fuzzing, all(test, not(loom))))]
pub(crate) mod fuzzing;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
