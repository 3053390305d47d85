//! The contents of a simulated file: its bytes, the blocks that it has, and on a machine that may crash its history.
//!
//! # Invariant
//! Whatever changes bytes or length tells the history. Words that are stored through a region can't; files that have
//! such are looked at whenever something else happens (see [`Contents::look`]).
//!
//! # Thread safety
//! Plain data; the file keeps it under a lock.

use std::{io, ops::Range};

#[cfg(any(test, fuzzing))]
use {
    super::{
        hash::bytes_hash,
        history::{History, SECTOR_BYTES},
        pattern::Pattern,
        pool,
    },
    crate::{mix::mix64, random::Sequence},
    std::sync::Arc,
};

use super::{
    blocks::{BLOCK_BYTES, Blocks, Space},
    memory::Memory,
};

/// A file's bytes and blocks.
#[derive(Default)]
pub(super) struct Contents {
    memory: Memory,
    blocks: Blocks,
    /// `None` where nobody asks what a crash would leave.
    #[cfg(any(test, fuzzing))]
    history: Option<History>,
}

impl Contents {
    pub(super) fn len(&self) -> u64 {
        self.memory.len()
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    pub(super) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    pub(super) fn set_len(&mut self, len: u64, space: &Space) -> io::Result<()> {
        let old_len = self.memory.len();
        let cut: Vec<_> = self.blocks.from(len / BLOCK_BYTES).collect();
        for used in cut {
            let range = len.max(used.start * BLOCK_BYTES)..old_len.min(used.end * BLOCK_BYTES);
            self.change(range, |memory, range| memory.zero(range));
        }
        self.resize(len, len)?;
        space.give_back(self.blocks.truncate(len.div_ceil(BLOCK_BYTES)));
        Ok(())
    }

    pub(super) fn write_all_at(&mut self, bytes: &[u8], position: u64, space: &Space) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = position.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.take_blocks(position..end, space)?;
        if end > self.memory.len() {
            // Doubled, so that a file that is written piece by piece is copied a few times only.
            self.resize(end, end.max(self.memory.capacity().saturating_mul(2)))?;
        }
        self.change(position..end, |memory, range| memory.write_at(bytes, range.start));
        Ok(())
    }

    pub(super) fn reserve(&mut self, range: Range<u64>, space: &Space) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        if range.end > self.memory.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the file"));
        }
        self.take_blocks(range, space)
    }

    /// Counts the blocks of a range that the file doesn't have yet; all or none.
    fn take_blocks(&mut self, range: Range<u64>, space: &Space) -> io::Result<()> {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        space.take(self.blocks.missing(&blocks))?;
        self.blocks.insert(blocks);
        Ok(())
    }

    /// Changes the length; what is cut off has been zeroed.
    fn resize(&mut self, len: u64, capacity: u64) -> io::Result<()> {
        self.memory.set_len(len, capacity)?;
        #[cfg(any(test, fuzzing))]
        if let Some(history) = &mut self.history {
            history.set_len(len);
        }
        Ok(())
    }

    /// Changes bytes of a range within the length.
    fn change(&mut self, range: Range<u64>, body: impl FnOnce(&mut Memory, Range<u64>)) {
        #[cfg(any(test, fuzzing))]
        self.begin(range.clone());
        body(&mut self.memory, range.clone());
        #[cfg(any(test, fuzzing))]
        self.end(range);
    }
}

/// What a machine does that may crash.
#[cfg(any(test, fuzzing))]
impl Contents {
    /// Of a new file, on a machine that may crash.
    pub(super) fn tracked() -> Self {
        let mut tracked = Self::default();
        tracked.history = Some(History::new(0));
        tracked
    }

    /// Bytes of that range are going to be stored.
    pub(super) fn begin(&mut self, range: Range<u64>) {
        self.look();
        if let Some(history) = &mut self.history {
            history.begin(&self.memory, range);
        }
    }

    /// They have been.
    pub(super) fn end(&mut self, range: Range<u64>) {
        if let Some(history) = &mut self.history {
            history.end(&self.memory, range);
        }
    }

    /// A sync is done, or has failed; what it was to write is then dropped from the cache, if that is so.
    pub(super) fn end_sync(&mut self, succeeded: bool, drops: bool) {
        self.look();
        let Some(history) = &mut self.history else { return };
        if succeeded {
            return history.synced();
        }
        let lost = history.sync_failed();
        for (sector, durable) in if drops { lost } else { Vec::new() } {
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(self.memory.len());
            if start < end {
                self.memory.write_at(&durable[..(end - start) as usize], start);
                history.reread(&self.memory, start..end);
            }
        }
    }

    /// Somebody may store words; whether nobody could before.
    pub(super) fn watch(&mut self) -> bool {
        match &mut self.history {
            Some(history) if !history.is_watched() => {
                history.watch(&self.memory);
                true
            }
            _ => false,
        }
    }

    /// Takes down the words that were stored since the last look; whether there were any.
    pub(super) fn look(&mut self) -> bool {
        self.history.as_mut().is_some_and(|history| history.look(&self.memory, &self.blocks))
    }

    /// Whether the device has just what the cache has in a range: nothing there is for a power cut to decide.
    pub(super) fn is_on_device(&mut self, range: Range<u64>) -> bool {
        self.look();
        self.history.as_ref().is_none_or(|history| history.is_decided(range))
    }

    /// How many things of this file a power cut decides.
    pub(super) fn undecided(&self) -> u64 {
        self.history
            .as_ref()
            .map_or(0, |history| history.undecided_sectors().count() as u64 + u64::from(history.lengths().len() > 1))
    }

    /// The same, its history included: what another process finds after a kill.
    pub(super) fn copy(&self) -> Self {
        let mut copy = self.copy_bytes(self.memory.len());
        copy.history.clone_from(&self.history);
        if let Some(history) = &mut copy.history {
            history.unwatch();
        }
        copy
    }

    /// What a power cut leaves.
    pub(super) fn survivor(&self, pattern: &mut Pattern, choices: &mut Sequence) -> Self {
        let Some(history) = &self.history else { return self.copy() };
        let lengths = history.lengths();
        let len = if lengths.len() > 1 { lengths[pattern.pick(lengths.len(), choices)] } else { self.memory.len() };
        let mut survivor = self.copy_bytes(len);
        for (sector, versions) in history.undecided_sectors() {
            let version = &versions[pattern.pick(versions.len(), choices)];
            let start = sector * SECTOR_BYTES;
            let end = (start + SECTOR_BYTES).min(len);
            // A sector of zeros needs no block, but the last one may have left something there.
            let has_block = survivor.blocks.missing(&(start / BLOCK_BYTES..start / BLOCK_BYTES + 1)) == 0;
            if start < end && (has_block || **version != [0; SECTOR_BYTES as usize]) {
                survivor.blocks.insert(start / BLOCK_BYTES..start / BLOCK_BYTES + 1);
                survivor.memory.write_at(&version[..(end - start) as usize], start);
            }
        }
        survivor.history = Some(History::new(len));
        survivor
    }

    /// The first `len` bytes as they stand, with their blocks.
    fn copy_bytes(&self, len: u64) -> Self {
        let mut copy = Self::default();
        copy.blocks = self.blocks.clone();
        copy.blocks.truncate(len.div_ceil(BLOCK_BYTES));
        let sized = copy.memory.set_len(len, len);
        assert!(sized.is_ok(), "no memory for {len} bytes, as much as a file had");
        for block in copy.blocks.from(0).flatten() {
            let start = block * BLOCK_BYTES;
            let bytes = self.memory.piece::<{ BLOCK_BYTES as usize }>(start);
            if bytes != [0; BLOCK_BYTES as usize] {
                copy.memory.write_at(&bytes[..(len - start).min(BLOCK_BYTES) as usize], start);
            }
        }
        copy
    }

    /// A hash of length and contents.
    pub(super) fn hash(&self, seed: u64) -> u64 {
        let mut hash = mix64(self.memory.len() ^ seed);
        for block in self.blocks.from(0).flatten() {
            let bytes = self.memory.piece::<{ BLOCK_BYTES as usize }>(block * BLOCK_BYTES);
            if bytes != [0; BLOCK_BYTES as usize] {
                hash = hash.wrapping_add(bytes_hash(&bytes, seed.wrapping_add(block)));
            }
        }
        mix64(hash)
    }
}

/// The map may be used again.
#[cfg(any(test, fuzzing))]
impl Drop for Contents {
    fn drop(&mut self) {
        let Some(history) = &self.history else { return };
        let len = self.memory.len();
        if len == 0 || !pool::wants(self.memory.capacity() as usize) {
            return;
        }
        if history.is_watched() {
            // Words may be anywhere.
            self.memory.zero(0..len);
        }
        for used in self.blocks.from(0) {
            self.memory.zero(used.start * BLOCK_BYTES..len.min(used.end * BLOCK_BYTES));
        }
        if let Some(map) = self.memory.take_map().and_then(Arc::into_inner) {
            pool::give_back(map);
        }
    }
}
