//! The sparse offset index of a segment: from a relative offset to the position of a frame.
//!
//! # Format
//! A header (magic, segment id, and once sealed the number of entries and their CRC-32), then entries of one 64-bit
//! word each: the position in units of 8 bytes below, the relative offset above. See `src/doc/format.md`, section
//! "Sparse offset index".
//!
//! # Invariants
//! - An entry names the start of a frame and its base offset; entries grow in both. No entry is zero.
//! - The index is a cache. An answer is a *hint*: whoever begins to walk at an entry checks that a valid frame with that
//!   offset is there, and calls for a rebuild where it isn't; whoever looks between two relies on the frame that is found
//!   there. So a damaged index costs time and never a record.
//!
//! - An entry is stored only in space that was reserved. Where none can be had the index has a gap, and lookups walk
//!   further.
//!
//! # Thread safety
//! The partition's writer reserves and appends, under its lock. Any thread looks up, without one: an entry is one atomic store,
//! and the count is raised behind it.

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crate::{
    error::{Error, Result, is_out_of_files},
    partition::segment::TEMPORARY_EXTENSION,
    storage::{EntryKind, File, OpenMode, Region, Storage, anonymous_region},
};

/// An entry is made for a frame that begins this many bytes or more behind the last one that has an entry.
pub(crate) const INTERVAL_BYTES: u64 = 4096;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"tideidx\x01");
pub(super) const ENTRY_BYTES: u64 = 8;

// Words of the header, each behind the one before it.
const MAGIC_WORD: usize = 0;
const SEGMENT_ID: usize = MAGIC_WORD + 1;
const SEAL: usize = SEGMENT_ID + 1;
pub(super) const HEADER_WORDS: usize = SEAL + 1;

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The frame's base offset, counted from the segment's.
    pub(crate) relative_offset: u32,
    /// The frame's position in bytes.
    pub(crate) position: u64,
}

impl Entry {
    fn to_word(self) -> u64 {
        // Positions are multiples of 8 with at most 35 bits: what `LogPosition` admits.
        (u64::from(self.relative_offset) << 32) | (self.position / 8)
    }

    pub(super) fn from_word(word: u64) -> Self {
        Self { relative_offset: (word >> 32) as u32, position: (word & u64::from(u32::MAX)) * 8 }
    }
}

/// The index of one segment.
#[derive(Debug)]
pub(crate) struct OffsetIndex {
    region: Region,
    /// Whether there is a file behind the region; it is opened again where it has to be.
    persistent: bool,
    /// So many bytes of the region can be stored into.
    reserved: AtomicU64,
    count: AtomicUsize,
}

impl OffsetIndex {
    /// An empty index for a segment of `segment_bytes`, with space for `used_bytes` of it, replacing what the path holds.
    /// In memory alone unless `persistent`.
    ///
    /// An old file loses its name and keeps its contents: a lookup may still have it mapped, and to load from a page
    /// that was cut off would end the process.
    pub(crate) fn create(
        storage: &dyn Storage,
        path: &Path,
        segment_id: u64,
        segment_bytes: u64,
        used_bytes: u64,
        persistent: bool,
    ) -> Result<Self> {
        let len = index_bytes(segment_bytes);
        let index = if persistent {
            let make = |file: &dyn File| {
                file.set_len(len)?;
                let reserved = pages(index_bytes(used_bytes)).min(len);
                file.reserve(0..reserved)?;
                Ok(Self::new(file.map(len)?, true, reserved))
            };
            replace_file(storage, path, make).map_err(|source| Error::io("create the index", path, source))?
        } else {
            Self::in_memory(segment_bytes).map_err(|source| Error::io("map memory for the index", path, source))?
        };
        index.word(SEGMENT_ID, segment_id);
        index.word(MAGIC_WORD, MAGIC);
        Ok(index)
    }

    fn in_memory(segment_bytes: u64) -> io::Result<Self> {
        let len = index_bytes(segment_bytes);
        let region = anonymous_region(usize::try_from(len).map_err(io::Error::other)?)?;
        Ok(Self::new(region, false, len))
    }

    fn new(region: Region, persistent: bool, reserved: u64) -> Self {
        // Its space is reserved page by page.
        region.expect_random();
        Self { region, persistent, reserved: AtomicU64::new(reserved), count: AtomicUsize::new(0) }
    }

    /// The index that a sealed segment's writer left behind, if it is intact. An error where that can't be told for lack
    /// of descriptors or maps.
    pub(crate) fn open_sealed(storage: &dyn Storage, path: &Path, segment_id: u64) -> io::Result<Option<Self>> {
        let at_limit = |error: &io::Error| is_out_of_files(error) || error.kind() == io::ErrorKind::OutOfMemory;
        match Self::open(storage, path, OpenMode::Read, segment_id) {
            Ok(found) => Ok(found.and_then(|(index, file)| index.check_seal(&*file))),
            Err(error) if at_limit(&error) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn check_seal(self, file: &dyn File) -> Option<Self> {
        let (index, len) = (self, file.len().ok()?);
        let words = index.region.words();
        let count = words[HEADER_WORDS..].len();
        let sealed = words[SEAL].load(Ordering::Relaxed);
        // The count first, so that a file of any length isn't read for nothing.
        let complete = sealed >> 32 == count as u64 + 1 && len % ENTRY_BYTES == 0;
        if !complete || sealed != seal(&words[HEADER_WORDS..]) {
            return None;
        }
        index.count.store(count, Ordering::Release);
        Some(index)
    }

    /// The index of an active segment of which `end` bytes are used, as a killed writer, a clean close or a power cut
    /// left it, with space for these. Entries at or behind `end` go; so do those behind a page that never reached the
    /// device.
    pub(crate) fn open_active(
        storage: &dyn Storage,
        path: &Path,
        segment_id: u64,
        segment_bytes: u64,
        end: u64,
    ) -> Option<Self> {
        let len = index_bytes(segment_bytes);
        let file = Self::regular_file(storage, path, OpenMode::ReadWrite).ok()??;
        if file.len().ok()? != len {
            file.set_len(len).ok()?;
        }
        let index = Self::map(&*file, segment_id).ok()??;
        let count = ascending(&*file, end).ok()?;
        index.clear(&*file, HEADER_WORDS + count).ok()?;
        index.word(SEAL, 0);
        index.count.store(count, Ordering::Release);
        // For those that are there and for those that are missing up to the end; the next append reserves more.
        let behind = index.last().map_or(0, |last| last.position);
        let most = (HEADER_WORDS + count + 1) as u64 + end.saturating_sub(behind) / INTERVAL_BYTES;
        let reserved = pages(most * ENTRY_BYTES).min(len);
        file.reserve(0..reserved).ok()?;
        index.reserved.store(reserved, Ordering::Relaxed);
        Some(index)
    }

    /// Makes all words zero from `at` on.
    fn clear(&self, file: &dyn File, at: usize) -> io::Result<()> {
        let mut bytes = [0; 4096];
        let mut position = at as u64 * ENTRY_BYTES;
        while let Some(data) = file.next_data(position)? {
            let first = data / ENTRY_BYTES;
            let words = usize::try_from(first).ok().and_then(|first| self.region.words().get(first..));
            let read = file.read_at(&mut bytes, first * ENTRY_BYTES)?;
            let found = bytes[..read].chunks_exact(ENTRY_BYTES as usize);
            // What isn't zero isn't in a hole.
            let stale = words.unwrap_or_default().iter().zip(found).filter(|(_, found)| *found != [0; 8]);
            stale.for_each(|(word, _)| word.store(0, Ordering::Relaxed));
            if read < bytes.len() {
                break;
            }
            position = first * ENTRY_BYTES + read as u64;
        }
        Ok(())
    }

    /// A copy in memory of an index as [`seal`](OffsetIndex::seal) leaves it, for the segment of which `end` bytes are used.
    /// Empty if there is none.
    pub(crate) fn load_active(
        storage: &dyn Storage,
        path: &Path,
        segment_id: u64,
        segment_bytes: u64,
        end: u64,
    ) -> Result<Self> {
        let index = Self::create(storage, path, segment_id, segment_bytes, end, false)?;
        if let Ok(Some(sealed)) = Self::open_sealed(storage, path, segment_id) {
            let entries = sealed.entries().iter().map(|word| Entry::from_word(word.load(Ordering::Relaxed)));
            entries.take_while(|entry| entry.position < end).for_each(|entry| index.append(entry));
        }
        Ok(index)
    }

    /// The index in a file, and the handle that it was mapped through; `None` if it isn't this segment's.
    fn open(
        storage: &dyn Storage,
        path: &Path,
        mode: OpenMode,
        segment_id: u64,
    ) -> io::Result<Option<(Self, Arc<dyn File>)>> {
        let Some(file) = Self::regular_file(storage, path, mode)? else { return Ok(None) };
        Ok(Self::map(&*file, segment_id)?.map(|index| (index, file)))
    }

    fn map(file: &dyn File, segment_id: u64) -> io::Result<Option<Self>> {
        let len = file.len()?;
        if len < (HEADER_WORDS as u64) * ENTRY_BYTES {
            return Ok(None);
        }
        let index = Self::new(file.map(len)?, true, 0);
        let words = index.region.words();
        let ours = words[MAGIC_WORD].load(Ordering::Relaxed) == MAGIC
            && words[SEGMENT_ID].load(Ordering::Relaxed) == segment_id;
        Ok(ours.then_some(index))
    }

    fn regular_file(storage: &dyn Storage, path: &Path, mode: OpenMode) -> io::Result<Option<Arc<dyn File>>> {
        let Some(EntryKind::File) = storage.entry_kind(path)? else { return Ok(None) };
        let file = storage.open(path, mode)?;
        file.expect_random();
        Ok(Some(file))
    }

    /// Gives the index the space that it needs once the segment has grown to `log_bytes`, if that can be had. Called by
    /// the writer.
    pub(crate) fn reserve(&self, storage: &dyn Storage, path: &Path, log_bytes: u64) {
        let reserved = self.reserved.load(Ordering::Relaxed);
        let needed = pages(index_bytes(log_bytes)).min(self.region.len() as u64);
        if needed > reserved {
            let file = storage.reopen(path, &self.region);
            if file.and_then(|file| file.reserve(reserved..needed)).is_ok() {
                self.reserved.store(needed, Ordering::Relaxed);
            }
        }
    }

    /// Adds an entry, greater than the last. Called by the writer alone. Does nothing where there is no space for it.
    pub(crate) fn append(&self, entry: Entry) {
        let count = self.count.load(Ordering::Relaxed);
        if (HEADER_WORDS + count + 1) as u64 * ENTRY_BYTES > self.reserved.load(Ordering::Relaxed) {
            return;
        }
        if let Some(word) = self.region.words()[HEADER_WORDS..].get(count) {
            word.store(entry.to_word(), Ordering::Relaxed);
            self.count.store(count + 1, Ordering::Release);
        }
    }

    /// The last entry.
    pub(crate) fn last(&self) -> Option<Entry> {
        self.entries().last().map(|word| Entry::from_word(word.load(Ordering::Relaxed)))
    }

    /// The greatest entry at or below the target, and the one behind that.
    pub(crate) fn lookup(&self, relative_offset: u32) -> (Option<Entry>, Option<Entry>) {
        let entries = self.entries();
        let read = |at: usize| entries.get(at).map(|word| Entry::from_word(word.load(Ordering::Relaxed)));
        let behind = count_up_to(entries, relative_offset);
        (behind.checked_sub(1).and_then(read), read(behind))
    }

    fn entries(&self) -> &[AtomicU64] {
        &self.region.words()[HEADER_WORDS..][..self.count.load(Ordering::Acquire)]
    }

    /// Writes down how many entries there are and cuts the file behind them. Errors don't matter: an unsealed index is
    /// rebuilt by whoever needs it. One that lives in memory is written down.
    pub(crate) fn seal(&self, storage: &dyn Storage, path: &Path) {
        if !self.persistent {
            let _ = self.save(storage, path);
            return;
        }
        let Ok(file) = storage.reopen(path, &self.region) else { return };
        let entries = self.entries();
        self.word(SEAL, seal(entries));
        let _ = file.set_len(((HEADER_WORDS + entries.len()) as u64) * ENTRY_BYTES);
    }

    /// Writes one that lives in memory to a file, sealed. It isn't synced: one that is torn is made anew.
    pub(crate) fn save(&self, storage: &dyn Storage, path: &Path) -> io::Result<()> {
        self.word(SEAL, seal(self.entries()));
        let words = &self.region.words()[..HEADER_WORDS + self.entries().len()];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes()).collect();
        replace_file(storage, path, |file| file.write_all_at(&bytes, 0))
    }

    fn word(&self, at: usize, value: u64) {
        self.region.words()[at].store(value, Ordering::Relaxed);
    }
}

/// How many entries lie at or below the target: looked for from where it lies if records are of one size, in steps that
/// double. So most often a few loads from one place do, and never more than about twice those of a bisection.
fn count_up_to(entries: &[AtomicU64], relative_offset: u32) -> usize {
    let offset_of = |word: &AtomicU64| Entry::from_word(word.load(Ordering::Relaxed)).relative_offset;
    let is_below = |word: &AtomicU64| offset_of(word) <= relative_offset;
    let Some((greatest, others)) = entries.split_last() else { return 0 };
    let greatest = offset_of(greatest);
    if greatest <= relative_offset {
        return entries.len();
    }
    // Less than there are others, or the first of none.
    let guess = (others.len() as u64 * u64::from(relative_offset) / u64::from(greatest)) as usize;
    // Those before the range are at or below the target, and the one that it ends with isn't.
    let mut range = 0..others.len();
    let mut step = 1;
    if is_below(&entries[guess]) {
        range.start = guess + 1;
        while range.len() > step {
            let at = range.start + step;
            if !is_below(&entries[at]) {
                range.end = at;
                break;
            }
            (range.start, step) = (at + 1, step * 2);
        }
    } else {
        range.end = guess;
        while range.len() > step {
            let at = range.end - step;
            if is_below(&entries[at]) {
                range.start = at + 1;
                break;
            }
            (range.end, step) = (at, step * 2);
        }
    }
    range.start + entries.get(range).map_or(0, |entries| entries.partition_point(is_below))
}

/// Puts a new file, made by `fill`, in the place of what the path holds. What is there stays until the new one is
/// complete: an index that can't be made anew, for lack of descriptors or of space, is better than none.
pub(crate) fn replace_file<T>(
    storage: &dyn Storage,
    path: &Path,
    fill: impl FnOnce(&dyn File) -> io::Result<T>,
) -> io::Result<T> {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let temporary = path.with_extension(format!("{extension}.{TEMPORARY_EXTENSION}"));
    // Not emptied, which would follow a link.
    if storage.entry_kind(&temporary)?.is_some() {
        storage.remove_if_there(&temporary)?;
    }
    let make = || {
        let filled = fill(&*storage.open(&temporary, OpenMode::CreateNew)?)?;
        storage.rename(&temporary, path)?;
        Ok(filled)
    };
    // What was written of it takes space for nothing.
    make().inspect_err(|_| drop(storage.remove_file(&temporary)))
}

/// How many entries an unsealed index begins with, that of a segment of which `end` bytes are used: up to the first
/// that isn't greater than the one before it.
///
/// Not through the map: on tmpfs, even looking at a hole there takes space, or ends the process.
fn ascending(file: &dyn File, end: u64) -> io::Result<usize> {
    let mut bytes = [0; 16 << 10];
    let (mut count, mut last) = (0, None::<Entry>);
    loop {
        let read = file.read_at(&mut bytes, (HEADER_WORDS + count) as u64 * ENTRY_BYTES)?;
        if read < ENTRY_BYTES as usize {
            return Ok(count);
        }
        for word in bytes[..read].chunks_exact(ENTRY_BYTES as usize) {
            let entry = Entry::from_word(word.try_into().map_or(0, u64::from_le_bytes));
            let ascends = entry.position != 0
                && entry.position < end
                && last
                    .is_none_or(|last| last.position < entry.position && last.relative_offset < entry.relative_offset);
            if !ascends {
                return Ok(count);
            }
            (count, last) = (count + 1, Some(entry));
        }
    }
}

/// The most that the index of a segment of this size takes, header included.
fn index_bytes(segment_bytes: u64) -> u64 {
    (HEADER_WORDS as u64 + segment_bytes / INTERVAL_BYTES + 1) * ENTRY_BYTES
}

/// What whole pages hold at least that much.
fn pages(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}

/// The checksum of sealed entries, and their number above it. Never zero, as the number of entries is stored plus one.
fn seal(entries: &[AtomicU64]) -> u64 {
    let mut hasher = crc32fast::Hasher::new();
    // Many at a time: word by word the checksum takes ten times as long.
    let mut bytes = [0; 4096];
    for entries in entries.chunks(bytes.len() / ENTRY_BYTES as usize) {
        for (word, entry) in bytes.chunks_exact_mut(ENTRY_BYTES as usize).zip(entries) {
            word.copy_from_slice(&entry.load(Ordering::Relaxed).to_le_bytes());
        }
        hasher.update(&bytes[..size_of_val(entries)]);
    }
    ((entries.len() as u64 + 1) << 32) | u64::from(hasher.finalize())
}

#[cfg(any(fuzzing, all(test, not(loom))))]
pub(crate) mod fuzzing;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::sim::SimStorage;

    #[test]
    fn who_has_an_index_mapped_keeps_it_when_it_is_made_anew() {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/data")).unwrap();
        let path = Path::new("/data/00000000000000000000.index");
        let entry = Entry { relative_offset: 7, position: 4192 };
        let old = OffsetIndex::create(&storage, path, 1, 1 << 20, 0, true).unwrap();
        old.append(entry);
        let new = OffsetIndex::create(&storage, path, 1, 1 << 20, 0, true).unwrap();
        // Sealing cuts the file, which must be its own one.
        old.seal(&storage, path);
        assert_eq!((old.lookup(9).0, new.last()), (Some(entry), None));
        new.append(entry);
        new.seal(&storage, path);
        assert_eq!(OffsetIndex::open_sealed(&storage, path, 1).unwrap().unwrap().last(), Some(entry));
    }

    #[test]
    fn the_entries_around_an_offset_are_found_however_they_are_spread() {
        let spreads: [fn(u32) -> u32; 5] = [
            |at| at * 28,
            |at| at * at,
            |at| if at < 200 { at } else { 4_000_000_000 + at },
            |at| if at < 200 { at * 10_000_000 } else { 2_000_000_000 + at },
            |at| at + 7,
        ];
        for spread in spreads {
            for count in [0, 1, 2, 3, 300] {
                let index = OffsetIndex::in_memory(64 << 20).unwrap();
                let entries: Vec<_> = (0..count)
                    .map(|at| Entry { relative_offset: spread(at), position: (1 + u64::from(at)) * 4200 })
                    .collect();
                entries.iter().for_each(|&entry| index.append(entry));
                let near =
                    entries.iter().flat_map(|entry| [-1_i64, 0, 1].map(|by| i64::from(entry.relative_offset) + by));
                for target in near.chain([0, i64::from(u32::MAX)]).filter_map(|target| u32::try_from(target).ok()) {
                    let below = entries.iter().rev().find(|entry| entry.relative_offset <= target).copied();
                    let above = entries.iter().find(|entry| entry.relative_offset > target).copied();
                    assert_eq!(index.lookup(target), (below, above), "{target} of {count}");
                }
            }
        }
    }

    /// Pages that the device didn't get are zeros, or what was there before.
    #[test]
    fn an_index_with_a_hole_ends_there() {
        const SEGMENT_BYTES: u64 = 64 << 20;
        const PAGE_ENTRIES: usize = 4096 / ENTRY_BYTES as usize;
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/data")).unwrap();
        let path = Path::new("/data/00000000000000000000.index");
        let entry = |at: usize| Entry { relative_offset: at as u32 * 7, position: 4192 + at as u64 * 4200 };
        let count = 3 * PAGE_ENTRIES;
        let open = |end| OffsetIndex::open_active(&storage, path, 1, SEGMENT_BYTES, end).unwrap();
        // A page and where in it the index is no longer what it was; both for the log as it was, and as it was cut.
        for hole in [[0; 4096].as_slice(), &entry(10).to_word().to_le_bytes()] {
            for cut in [count, PAGE_ENTRIES] {
                let index = OffsetIndex::create(&storage, path, 1, SEGMENT_BYTES, SEGMENT_BYTES, true).unwrap();
                (0..count).for_each(|at| index.append(entry(at)));
                storage.open(path, OpenMode::ReadWrite).unwrap().write_all_at(hole, 4096).unwrap();
                let intact = cut.min(PAGE_ENTRIES - HEADER_WORDS);
                let opened = open(entry(cut).position);
                assert_eq!((opened.entries().len(), opened.last()), (intact, Some(entry(intact - 1))));
                // Nothing comes back when it grows again.
                opened.append(entry(intact));
                drop(opened);
                assert_eq!(open(entry(count).position).entries().len(), intact + 1);
                let stored = storage.read(path, u64::MAX).unwrap();
                let behind = (HEADER_WORDS + intact + 1) * ENTRY_BYTES as usize;
                assert!(stored[behind..].iter().all(|&byte| byte == 0));
            }
        }
    }

    #[test]
    fn one_in_memory_can_be_written_down() {
        let storage = SimStorage::default();
        storage.create_dir_all(Path::new("/data")).unwrap();
        let path = Path::new("/data/00000000000000000000.index");
        let index = OffsetIndex::create(&storage, path, 1, 1 << 20, 0, false).unwrap();
        let entries = [4192, 8192].map(|position| Entry { relative_offset: position as u32 / 100, position });
        entries.iter().for_each(|entry| index.append(*entry));
        for _ in 0..2 {
            index.save(&storage, path).unwrap();
            let saved = OffsetIndex::open_sealed(&storage, path, 1).unwrap().unwrap();
            assert_eq!((saved.lookup(80), saved.last()), ((Some(entries[0]), Some(entries[1])), Some(entries[1])));
        }
        assert!(OffsetIndex::open_sealed(&storage, path, 2).unwrap().is_none());
    }
}
