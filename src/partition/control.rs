//! The control page: the one word that publishes appends, and the hints around it.
//!
//! # Format
//! 4 KiB of 64-bit words, mapped, hot, never synced. See `src/doc/format.md`, section "Control page". The commit word
//! holds the active segment's sequence number (bits 32 to 62), the published end in units of 8 bytes (bits 0 to 31)
//! and a sealed bit (63); see [`LogPosition`].
//!
//! # Invariants
//! - The commit word only grows. What lies below it is complete and never changes; this is the only place where an
//!   append becomes visible.
//! - The page is a cache. It survives its process in the page cache, and nothing else: it is believed only if it
//!   names this boot, this mount, its own inode and the active segment's ([`ControlPage::read_previous`]).
//! - The identity of a segment is stored *before* the commit word names it, in one of two places by the parity of its
//!   sequence number, so that a kill in between leaves a page that is believed all the same.
//!
//! # Thread safety
//! Every word is an atomic. The writer moves the commit word with a sequentially consistent compare-exchange and loads
//! the count of sleepers after it; a sleeper raises the count and loads the word after it. So one sees the other.

use std::{io, path::Path};

use super::words::Words;
use crate::{
    error::{Error, Result, is_out_of_files},
    mix::mix64,
    storage::{File, FileIdentity, OpenMode, Region, Storage},
    sync::{AtomicU64, Ordering},
};

/// The file's name in a partition's folder.
pub(crate) const FILE_NAME: &str = "partition.state";
/// Its length: one page.
const PAGE_BYTES: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"tidectl\x01");
/// In its word after a failed sync. Counts whatever else the page says.
const POISON: u64 = u64::from_le_bytes(*b"poisoned");
/// In its word while a sync runs: if its process is killed then, nobody knows what came of it.
const SYNC_RUNS: u64 = u64::from_le_bytes(*b"syncing\0");

// Positions of the words, each behind the one before it. The hot ones have a cache line of their own.
const MAGIC_WORD: usize = 0;
const CHECK_WORD: usize = MAGIC_WORD + 1;
const PAGE_IDENTITY: usize = CHECK_WORD + 1;
const SEGMENT_IDENTITIES: usize = PAGE_IDENTITY + IDENTITY_WORDS;
const SEGMENT_SLOT_WORDS: usize = 3 + IDENTITY_WORDS;
const POISONED: usize = SEGMENT_IDENTITIES + 2 * SEGMENT_SLOT_WORDS;
const SYNCING: usize = POISONED + 1;
pub(super) const COMMIT: usize = (SYNCING + 1).next_multiple_of(8);
pub(super) const NEXT_OFFSET: usize = COMMIT + 1;
pub(super) const RESERVED: usize = NEXT_OFFSET + 1;
pub(super) const SLEEPERS: usize = (RESERVED + 1).next_multiple_of(8);
const DURABLE: usize = (SLEEPERS + 1).next_multiple_of(8);
pub(super) const DURABLE_OFFSET: usize = DURABLE + 1;
const _: () = assert!((DURABLE_OFFSET + 1) * 8 <= PAGE_BYTES);

/// Words that a [`FileIdentity`] takes.
const IDENTITY_WORDS: usize = 7;

/// A place in a partition: segment sequence number and file position, in one word that orders as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LogPosition(u64);

impl LogPosition {
    /// The greatest sequence number.
    pub(crate) const MAX_SEQUENCE: u32 = (1 << 31) - 1;
    /// Before everything.
    pub(crate) const START: Self = Self(0);
    const SEALED: u64 = 1 << 63;

    /// `None` if the sequence number takes more than 31 bits, or the position isn't a multiple of 8 or takes more
    /// than 32 bits of such.
    pub(crate) fn new(sequence: u64, file_position: u64) -> Option<Self> {
        let fits =
            sequence <= Self::MAX_SEQUENCE.into() && file_position % 8 == 0 && file_position / 8 <= u32::MAX.into();
        fits.then_some(Self((sequence << 32) | (file_position / 8)))
    }

    /// The segment's sequence number.
    pub(crate) fn sequence(self) -> u32 {
        (self.0 >> 32) as u32 & Self::MAX_SEQUENCE
    }

    /// The position in the segment's file, in bytes.
    pub(crate) fn file_position(self) -> u64 {
        (self.0 & u64::from(u32::MAX)) * 8
    }

    fn from_word(word: u64) -> Self {
        Self(word & !Self::SEALED)
    }
}

/// What a believed page of an earlier process says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Previous {
    pub(crate) committed: LogPosition,
    pub(crate) next_offset: u64,
    /// Nothing was ever stored at or behind this place.
    pub(crate) reserved: LogPosition,
    /// The id of the segment that the commit word names, and who its file is.
    pub(crate) segment_id: u64,
    segment_identity: [u64; IDENTITY_WORDS],
}

impl Previous {
    /// Whether the space in use wasn't reserved: a damaged word.
    pub(crate) fn reserved_in_vain(&self) -> bool {
        self.reserved.sequence() == self.committed.sequence() && self.reserved < self.committed
    }

    /// Whether `file` is the very file that the page's process had as its active segment.
    pub(crate) fn is_segment(&self, segment_id: u64, file: &dyn File) -> bool {
        let identity = file.identity().ok().flatten().map(identity_words);
        self.segment_id == segment_id && identity == Some(self.segment_identity)
    }
}

/// What the page of an earlier process is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PreviousPage {
    /// Set if everything but the segment's own identity matches.
    pub(crate) believed: Option<Previous>,
    /// A sync had failed. Believed even where nothing else is: an undeserved repair costs time, a missed one data.
    pub(crate) poisoned: bool,
    /// A sync was running. Believed as well, for the same reason: it may have failed.
    pub(crate) syncing: bool,
}

/// The mapped page of a partition that is open.
#[derive(Debug)]
pub(crate) struct ControlPage {
    words: Words,
}

impl ControlPage {
    /// Reads what an earlier process left, with `pread`. What can't be read isn't there, but where there is no descriptor
    /// to read with: it may be poisoned.
    pub(crate) fn read_previous(storage: &dyn Storage, dir: &Path) -> Result<PreviousPage> {
        let nothing = PreviousPage { believed: None, poisoned: false, syncing: false };
        let path = dir.join(FILE_NAME);
        let file = match storage.open(&path, OpenMode::Read) {
            Ok(file) => file,
            Err(source) if is_out_of_files(&source) => return Err(Error::io("read the control page", path, source)),
            Err(_) => return Ok(nothing),
        };
        let mut bytes = [0; PAGE_BYTES];
        if !file.read_at(&mut bytes, 0).is_ok_and(|read| read == PAGE_BYTES) {
            return Ok(nothing);
        }
        let mut words = [0; PAGE_BYTES / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
        }
        let (poisoned, syncing) = (words[POISONED] == POISON, words[SYNCING] == SYNC_RUNS);
        let page_identity = &words[PAGE_IDENTITY..SEGMENT_IDENTITIES];
        let same_page = words[MAGIC_WORD] == MAGIC
            && file.identity().ok().flatten().is_some_and(|identity| identity_words(identity) == page_identity)
            && words[CHECK_WORD] == check(page_identity);
        if !same_page {
            return Ok(PreviousPage { believed: None, poisoned, syncing });
        }
        Ok(PreviousPage { believed: Self::decode(&words), poisoned, syncing })
    }

    fn decode(words: &[u64; PAGE_BYTES / 8]) -> Option<Previous> {
        let committed = LogPosition::from_word(words[COMMIT]);
        let slot = segment_slot(committed.sequence());
        let slot = &words[slot..slot + SEGMENT_SLOT_WORDS];
        let (sequence, segment_id, identity) = (slot[0], slot[1], &slot[3..]);
        if sequence != u64::from(committed.sequence())
            || slot[2] != check(&[&[sequence, segment_id], identity].concat())
        {
            return None;
        }
        Some(Previous {
            committed,
            next_offset: words[NEXT_OFFSET],
            reserved: LogPosition::from_word(words[RESERVED]),
            segment_id,
            segment_identity: identity.try_into().ok()?,
        })
    }

    /// Maps the page for a partition that was just recovered or created, and fills it anew; a mark of poison goes only
    /// if `poisoned` is unset.
    ///
    /// With `believed` set (this very page told where the log ends) all but the count of sleepers, and that a sync was
    /// running, stays, and so a process that is killed from here on leaves a page to believe. Otherwise nobody believes it until
    /// [`make_valid`](ControlPage::make_valid).
    ///
    /// Where the disk is too full even for this page, it lives in plain memory: a killed process then costs a scan.
    ///
    /// With `persistent` unset (file systems where a store into a reserved page may need new space, which a map can
    /// only answer with a signal) the page lives in plain memory, and the file is left empty.
    pub(crate) fn create(
        storage: &dyn Storage,
        dir: &Path,
        persistent: bool,
        poisoned: bool,
        believed: bool,
    ) -> Result<Self> {
        let path = dir.join(FILE_NAME);
        let region = match Self::map(storage, &path, persistent) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Self::map(storage, &path, false),
            mapped => mapped,
        };
        let region = region.map_err(|source| Error::io("map the control page", &path, source))?;
        let page = Self { words: Words::new(region.0) };
        for (at, word) in page.words.iter().enumerate() {
            let stays = believed && at != SLEEPERS && at != SYNCING || poisoned && at == POISONED;
            if !stays {
                word.store(0, Ordering::SeqCst);
            }
        }
        if let Some(identity) = region.1.map(identity_words) {
            page.fill(PAGE_IDENTITY, &identity);
            page.word(CHECK_WORD).store(check(&identity), Ordering::Relaxed);
        }
        Ok(page)
    }

    /// Marks that a sync failed for the next open, whether there is a page yet or not, and wherever it lives. Where that
    /// fails too, nothing more can be done.
    pub(crate) fn leave_poisoned(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
        Self::leave(storage, dir, POISONED, POISON)
    }

    /// Marks that a sync begins, before there is a page to say so.
    pub(crate) fn leave_syncing(storage: &dyn Storage, dir: &Path) -> io::Result<()> {
        Self::leave(storage, dir, SYNCING, SYNC_RUNS)
    }

    fn leave(storage: &dyn Storage, dir: &Path, at: usize, word: u64) -> io::Result<()> {
        let path = dir.join(FILE_NAME);
        let mode = match storage.entry_kind(&path)? {
            Some(_) => OpenMode::ReadWrite,
            None => OpenMode::CreateNew,
        };
        let file = storage.open(&path, mode)?;
        if file.len()? != PAGE_BYTES as u64 {
            file.set_len(PAGE_BYTES as u64)?;
        }
        file.write_all_at(&word.to_le_bytes(), at as u64 * 8)
    }

    fn map(storage: &dyn Storage, path: &Path, persistent: bool) -> io::Result<(Region, Option<FileIdentity>)> {
        if !persistent {
            // So that no later open finds an old page; if it stays, its identity won't match, or its words are zeros.
            let _ = storage.remove_file(path);
            return Ok((crate::storage::anonymous_region(PAGE_BYTES)?, None));
        }
        let mode = match storage.entry_kind(path)? {
            Some(_) => OpenMode::ReadWrite,
            None => OpenMode::CreateNew,
        };
        let file = storage.open(path, mode)?;
        if file.len()? != PAGE_BYTES as u64 {
            file.set_len(PAGE_BYTES as u64)?;
        }
        file.reserve(0..PAGE_BYTES as u64)?;
        Ok((file.map(PAGE_BYTES as u64)?, file.identity()?))
    }

    /// Lets a later process believe the page. Called once, when all words hold what they should.
    pub(crate) fn make_valid(&self) {
        self.word(MAGIC_WORD).store(MAGIC, Ordering::SeqCst);
    }

    /// Takes the page out of use, once a clean mark stands in its place.
    pub(crate) fn make_invalid(&self) {
        self.word(MAGIC_WORD).store(0, Ordering::SeqCst);
    }

    /// The published end.
    #[inline]
    pub(crate) fn committed(&self) -> LogPosition {
        LogPosition::from_word(self.word(COMMIT).load(Ordering::SeqCst))
    }

    /// Publishes: moves the end from `from` to `to`. False if somebody else moved or sealed it.
    #[inline]
    pub(crate) fn publish(&self, from: LogPosition, to: LogPosition) -> bool {
        self.word(COMMIT).compare_exchange(from.0, to.0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Sets the published end of a partition that nobody reads or writes yet, whose segment was named before
    /// ([`set_segment`](ControlPage::set_segment)).
    pub(crate) fn initialize(&self, end: LogPosition, next_offset: u64, durable: LogPosition, durable_offset: u64) {
        self.word(COMMIT).store(end.0, Ordering::SeqCst);
        self.word(NEXT_OFFSET).store(next_offset, Ordering::SeqCst);
        self.word(DURABLE).store(durable.0, Ordering::SeqCst);
        self.word(DURABLE_OFFSET).store(durable_offset, Ordering::SeqCst);
    }

    /// The log end offset. Trails the commit word by a moment, never leads it.
    #[inline]
    pub(crate) fn next_offset(&self) -> u64 {
        self.word(NEXT_OFFSET).load(Ordering::SeqCst)
    }

    /// Sequentially consistent: who waits for an offset to be durable looks here whether it is there, and the writer looks
    /// behind this whether anybody waits.
    #[inline]
    pub(crate) fn raise_next_offset(&self, next_offset: u64) {
        self.word(NEXT_OFFSET).store(next_offset, Ordering::SeqCst);
    }

    /// The place below which everything is on the device.
    #[inline]
    pub(crate) fn durable(&self) -> LogPosition {
        LogPosition::from_word(self.word(DURABLE).load(Ordering::Acquire))
    }

    pub(crate) fn durable_offset(&self) -> u64 {
        self.word(DURABLE_OFFSET).load(Ordering::Acquire)
    }

    /// Called by whoever syncs, one at a time, with the lock of those who sync. Who sees the position sees the offset as
    /// well, but not the other way round: who needs both takes that lock.
    pub(crate) fn raise_durable(&self, position: LogPosition, offset: u64) {
        self.word(DURABLE_OFFSET).fetch_max(offset, Ordering::AcqRel);
        self.word(DURABLE).fetch_max(position.0, Ordering::AcqRel);
    }

    /// Nothing is stored at or behind this place until it is moved on. To be set before the space is used.
    pub(crate) fn set_reserved(&self, end: LogPosition) {
        self.word(RESERVED).store(end.0, Ordering::SeqCst);
    }

    #[cfg(all(test, loom))]
    pub(super) fn reserved(&self) -> LogPosition {
        LogPosition::from_word(self.word(RESERVED).load(Ordering::SeqCst))
    }

    /// Whether anybody sleeps until the commit word moves.
    #[inline]
    pub(crate) fn has_sleepers(&self) -> bool {
        self.word(SLEEPERS).load(Ordering::SeqCst) != 0
    }

    pub(crate) fn add_sleeper(&self) {
        self.word(SLEEPERS).fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn remove_sleeper(&self) {
        self.word(SLEEPERS).fetch_sub(1, Ordering::SeqCst);
    }

    /// Marks that a sync failed; the mark outlives the process.
    pub(crate) fn set_poisoned(&self) {
        self.word(POISONED).store(POISON, Ordering::SeqCst);
    }

    /// Marks that a sync begins, or has come to its end, whichever. Between the two its failure may be known to the kernel
    /// alone, which tells it once: to a process that doesn't live to hear it.
    pub(crate) fn set_syncing(&self, runs: bool) {
        self.word(SYNCING).store(if runs { SYNC_RUNS } else { 0 }, Ordering::SeqCst);
    }

    /// Tells who the file of the segment `sequence` is. To be called before the commit word names it.
    pub(crate) fn set_segment(&self, sequence: u32, segment_id: u64, file: Option<&dyn File>) {
        let slot = segment_slot(sequence);
        // One that the system can't tell is stored as what no file has, so that the page isn't believed.
        let identity = file.and_then(|file| file.identity().ok().flatten()).map_or([0; IDENTITY_WORDS], identity_words);
        let check = check(&[&[u64::from(sequence), segment_id], &identity[..]].concat());
        self.fill(slot, &[sequence.into(), segment_id, check]);
        self.fill(slot + 3, &identity);
    }

    fn fill(&self, at: usize, values: &[u64]) {
        for (word, value) in self.words[at..].iter().zip(values) {
            word.store(*value, Ordering::SeqCst);
        }
    }

    #[inline]
    pub(super) fn word(&self, at: usize) -> &AtomicU64 {
        // In bounds: the region is a whole page, and every position is a constant that lies within it.
        &self.words[at]
    }
}

/// Where the identity of a segment stands: sequence number, segment id, check, identity.
fn segment_slot(sequence: u32) -> usize {
    SEGMENT_IDENTITIES + (sequence as usize % 2) * SEGMENT_SLOT_WORDS
}

fn identity_words(identity: FileIdentity) -> [u64; IDENTITY_WORDS] {
    let boot = u128::from_le_bytes(identity.boot_id);
    [
        boot as u64,
        (boot >> 64) as u64,
        identity.mount_id,
        identity.device,
        identity.inode,
        identity.birth_ns as u64,
        (identity.birth_ns >> 64) as u64,
    ]
}

fn check(words: &[u64]) -> u64 {
    words.iter().fold(MAGIC, |sum, word| mix64(sum ^ word).rotate_left(1))
}

#[cfg(any(fuzzing, all(test, not(loom))))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_order_as_the_log_does() {
        let at = |sequence, position| LogPosition::new(sequence, position).unwrap();
        assert!(at(0, 80) < at(0, 88));
        assert!(at(0, u64::from(u32::MAX) * 8) < at(1, 0));
        assert_eq!(at(7, 4096).sequence(), 7);
        assert_eq!(at(7, 4096).file_position(), 4096);
        assert_eq!(LogPosition::new(0, 4), None);
        assert_eq!(LogPosition::new(1 << 31, 0), None);
        assert_eq!(LogPosition::new(0, (u64::from(u32::MAX) + 1) * 8), None);
    }
}
