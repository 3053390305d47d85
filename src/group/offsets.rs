//! What groups have committed: a table in memory, and the internal topic `__offsets` that it is folded from.
//!
//! # Format
//! Byte by byte in `src/doc/offsets.md`.
//!
//! # Invariants
//! - The table holds what was appended, no more and no less; both change under one lock, so log order is the order of
//!   the table's changes.
//! - Commits are appended only behind a whole snapshot in the active segment (where a segment was begun by its age in
//!   just that moment, behind one in the segment before).
//! - At any time, also in the middle of making a snapshot, the oldest segment or a later one begins with a whole
//!   snapshot, or nothing was ever removed.
//!
//! # Thread safety
//! Any thread may call anything. Commits take turns; none waits for the device while others wait for it.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use parking_lot::Mutex;

use super::codec::{self, Committed, Decoded, Key, Undecodable};
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

type Table = BTreeMap<Key<Arc<str>>, Committed>;

/// The committed offsets of all groups of a log.
#[derive(Debug)]
pub(crate) struct Offsets {
    partition: Arc<PartitionLog>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: Table,
    /// Base offset of the newest segment that begins with a whole snapshot.
    snapshot_at: Option<u64>,
    /// Whether commits may be appended: the active segment begins with a whole snapshot.
    in_order: bool,
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
        let state = State { table: fold.table, snapshot_at, in_order };
        Ok((Self { partition, state: Mutex::new(state) }, fold.damage))
    }

    /// What the group has committed for the partition.
    pub(crate) fn committed(&self, group: &Arc<str>, topic_id: u128, partition: u32) -> Option<u64> {
        let key = Key { group: group.clone(), topic_id, partition };
        self.state.lock().table.get(&key).map(|committed| committed.offset)
    }

    /// Commits for a group: topic id, partition, offset; the last one for a partition counts. What is unchanged isn't
    /// appended. All or nothing as far as it fits a frame. `durability` overrides the log's.
    pub(crate) fn commit(
        &self,
        group: &Arc<str>,
        offsets: impl IntoIterator<Item = (u128, u32, u64)>,
        durability: Option<Durability>,
    ) -> Result<()> {
        let durability = durability.unwrap_or(self.partition.spec().settings.durability());
        let key = |topic_id, partition| Key { group: group.clone(), topic_id, partition };
        // Groups are independent and have one member, so the epoch of every ownership is 0.
        let offsets =
            offsets.into_iter().map(|(id, partition, offset)| (key(id, partition), Committed { offset, epoch: 0 }));
        self.append(offsets.collect(), unsynced(durability))?;
        // Not under the lock: commits that wait for the device at the same time share one sync.
        if durability == Durability::Synced { self.partition.flush() } else { Ok(()) }
    }

    fn append(&self, commits: Table, durability: Durability) -> Result<()> {
        let mut state = self.state.lock();
        let is_changed = |(key, committed): &(Key<Arc<str>>, Committed)| state.table.get(key) != Some(committed);
        let changed: Vec<_> = commits.into_iter().filter(is_changed).collect();
        if changed.is_empty() {
            return Ok(());
        }
        let encoded: Vec<_> = changed.iter().map(|(key, committed)| codec::commit(key, *committed)).collect();
        let records: Vec<Record<'_>> = encoded.iter().map(record).collect();
        let mut obsolete = None;
        if !state.in_order || self.partition.must_roll_for(&records)? {
            obsolete = self.begin_segment(&mut state, durability)?;
        }
        let mut appended: Vec<Range<u64>> = Vec::new();
        let outcome = self.partition.append_batch(&records, Some(durability), &mut appended);
        let count: u64 = appended.iter().map(|range| range.end - range.start).sum();
        // All of them, or those that were appended before it failed.
        state.table.extend(changed.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)));
        drop(state);
        if let Some(previous) = obsolete {
            // The commit doesn't depend on it: what isn't removed now is removed next time, and a sync that failed
            // has poisoned the partition, which says so itself.
            let _ = self.partition.flush().and_then(|()| self.partition.delete_segments_before(previous));
        }
        outcome
    }

    /// Begins a segment with a snapshot. If this fails, the next commit tries again in yet another segment. Answers the
    /// base offset of the segment before which nothing is needed any more once the snapshot is on the device.
    fn begin_segment(&self, state: &mut State, durability: Durability) -> Result<Option<u64>> {
        state.in_order = false;
        self.partition.roll()?;
        let base = self.partition.segment_base_offsets().last().copied();
        let mut appended = Vec::new();
        let entries: Vec<_> = state.table.iter().collect();
        for chunk in entries.chunks(SNAPSHOT_CHUNK) {
            let encoded: Vec<_> =
                chunk.iter().map(|(key, committed)| codec::snapshot_entry(key, **committed)).collect();
            let records: Vec<Record<'_>> = encoded.iter().map(record).collect();
            self.partition.append_batch(&records, Some(durability), &mut appended)?;
        }
        let (key, value) = codec::snapshot_end(entries.len() as u64);
        self.partition.append(&Record::new(&value).key(&key), Some(durability))?;

        let previous = std::mem::replace(&mut state.snapshot_at, base);
        state.in_order = true;
        Ok(previous)
    }
}

/// The durability to append with, when waiting for the device comes later.
fn unsynced(durability: Durability) -> Durability {
    if durability == Durability::Synced { Durability::Written } else { durability }
}

fn record<'a>((key, value): &'a (Vec<u8>, impl AsRef<[u8]>)) -> Record<'a> {
    Record::new(value.as_ref()).key(key)
}

/// Whether what is folded began with a whole snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Snapshot {
    /// So far, so many entries and nothing else.
    Entries(u64),
    Whole,
    /// There is none, or it lacks entries.
    Broken,
}

/// A table in the making.
#[derive(Debug)]
struct Fold {
    table: Table,
    snapshot: Snapshot,
    damage: Vec<Error>,
}

impl Default for Fold {
    fn default() -> Self {
        Self { table: Table::new(), snapshot: Snapshot::Entries(0), damage: Vec::new() }
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
                        fold.add(partition, &record)?;
                    }
                }
                Err(error) => {
                    let resume = error.resume_offset().filter(|&offset| offset > cursor.position());
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
    fn add(&mut self, partition: &PartitionLog, record: &RecordRef<'_>) -> Result<()> {
        match codec::decode(record.key(), record.value()) {
            Ok(Decoded::SnapshotEntry(key, committed)) => {
                if let Snapshot::Entries(entries) = &mut self.snapshot {
                    *entries += 1;
                }
                self.table.insert(owned(key), committed);
            }
            Ok(Decoded::SnapshotEnd(expected)) => {
                if let Snapshot::Entries(entries) = self.snapshot {
                    self.snapshot = if entries == expected { Snapshot::Whole } else { Snapshot::Broken };
                }
            }
            Ok(Decoded::Commit(key, committed)) => {
                if matches!(self.snapshot, Snapshot::Entries(_)) {
                    self.snapshot = Snapshot::Broken;
                }
                match committed {
                    Some(committed) => self.table.insert(owned(key), committed),
                    None => self.table.remove(&owned(key)),
                };
            }
            Err(Undecodable::Newer(what)) => {
                let path = partition.dir().into();
                return Err(Repr::UnsupportedRecord { path, offset: record.offset(), what }.into());
            }
            Err(Undecodable::Malformed) => {
                let detail = format!("the record at offset {} is no commit", record.offset());
                self.damage.push(Error::corruption(partition.dir(), 0, detail));
            }
        }
        Ok(())
    }
}

fn owned(key: Key<&str>) -> Key<Arc<str>> {
    Key { group: key.group.into(), topic_id: key.topic_id, partition: key.partition }
}

#[cfg(test)]
mod tests;
