//! A simulated file: its bytes, its blocks, its lock.
//!
//! # Invariants
//! - The map is at least as long as the file; bytes behind the file's end are zero, and so are those of blocks that were
//!   neither reserved nor written (to store there through a region is a breach of the seam's rules).
//! - Bytes are only ever reached through raw pointers, never through references, since regions alias them.
//! - What a file's blocks take was taken from the [`Space`], and is given back when the file is dropped.
//!
//! # Thread safety
//! Any thread may call anything. The lock over the contents guards length, blocks and the choice of the map, and
//! orders reads and writes of the bytes among each other, but not with stores through regions.

use std::{
    any::Any,
    collections::BTreeMap,
    io,
    ops::Range,
    path::{Path, PathBuf},
    ptr::{self, NonNull},
    sync::Arc,
};

use memmap2::{MmapOptions, MmapRaw};
use parking_lot::{Mutex, RwLock};

use super::super::{Observer, Region};
#[cfg(any(test, fuzzing))]
use {super::hash::bytes_hash, crate::mix::mix64};

/// In this unit space is counted, and zeros are looked for.
const BLOCK_BYTES: u64 = 4096;

/// A file, whatever its names.
pub(super) struct FileNode {
    inode: u64,
    /// Its last name.
    path: Mutex<PathBuf>,
    contents: RwLock<Contents>,
    lock_holder: Mutex<Option<u32>>,
    space: Arc<Space>,
    #[cfg(any(test, fuzzing))]
    handles: handles::Handles,
}

#[derive(Default)]
struct Contents {
    memory: Memory,
    blocks: Blocks,
}

/// Owner of a region: as on a real file system, a mapped file keeps its blocks.
struct Mapped {
    _map: Arc<MmapRaw>,
    node: Arc<FileNode>,
}

impl FileNode {
    pub(super) fn new(inode: u64, path: &Path, space: Arc<Space>) -> Self {
        Self {
            inode,
            path: Mutex::new(path.to_owned()),
            contents: RwLock::default(),
            lock_holder: Mutex::new(None),
            space,
            #[cfg(any(test, fuzzing))]
            handles: handles::Handles::default(),
        }
    }

    pub(super) fn inode(&self) -> u64 {
        self.inode
    }

    pub(super) fn path(&self) -> PathBuf {
        self.path.lock().clone()
    }

    pub(super) fn set_path(&self, path: PathBuf) {
        *self.path.lock() = path;
    }

    /// Another one with the same contents, that nobody has locked.
    #[cfg(any(test, fuzzing))]
    pub(super) fn copy(&self, space: Arc<Space>) -> Self {
        let copy = Self::new(self.inode, &self.path.lock(), space);
        let contents = self.contents.read();
        let mut buffer = [0; BLOCK_BYTES as usize];
        copy.set_len(contents.memory.len).expect("as long as the other");
        for blocks in contents.blocks.from(0) {
            for block in blocks {
                let len = contents.memory.read_at(&mut buffer, block * BLOCK_BYTES);
                copy.write_all_at(&buffer[..len], block * BLOCK_BYTES).expect("as long as the other");
            }
        }
        copy
    }

    /// A hash of length and contents.
    #[cfg(any(test, fuzzing))]
    pub(super) fn hash(&self, seed: u64) -> u64 {
        let contents = self.contents.read();
        let mut hash = mix64(contents.memory.len ^ seed);
        let mut buffer = [0; BLOCK_BYTES as usize];
        for block in contents.blocks.from(0).flatten() {
            if !contents.memory.block_is_zero(block) {
                contents.memory.read_at(&mut buffer, block * BLOCK_BYTES);
                hash = hash.wrapping_add(bytes_hash(&buffer, seed.wrapping_add(block)));
            }
        }
        mix64(hash)
    }

    /// Takes the lock, or tells who has it.
    pub(super) fn try_lock(&self, process_id: u32) -> Result<(), u32> {
        let mut holder = self.lock_holder.lock();
        match *holder {
            Some(holder) => Err(holder),
            None => {
                *holder = Some(process_id);
                Ok(())
            }
        }
    }

    pub(super) fn unlock(&self) {
        *self.lock_holder.lock() = None;
    }

    pub(super) fn len(&self) -> u64 {
        self.contents.read().memory.len
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        let mut contents = self.contents.write();
        let Contents { memory, blocks } = &mut *contents;
        let old_len = memory.len;
        for used in blocks.from(len / BLOCK_BYTES) {
            memory.zero(len.max(used.start * BLOCK_BYTES)..old_len.min(used.end * BLOCK_BYTES));
        }
        memory.set_len(len, len)?;
        self.space.give_back(contents.blocks.truncate(len.div_ceil(BLOCK_BYTES)));
        Ok(())
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> usize {
        self.contents.read().memory.read_at(buffer, position)
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = position.checked_add(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        let mut contents = self.contents.write();
        self.take_blocks(&mut contents, position..end)?;
        if end > contents.memory.len {
            // Doubled, so that a file that is written piece by piece is copied a few times only.
            let capacity = end.max(contents.memory.capacity().saturating_mul(2));
            contents.memory.set_len(end, capacity)?;
        }
        contents.memory.write_at(bytes, position);
        Ok(())
    }

    pub(super) fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let mut contents = self.contents.write();
        if range.end > contents.memory.len {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "beyond the end of the file"));
        }
        self.take_blocks(&mut contents, range)
    }

    /// Counts the blocks of a range that the file doesn't have yet; all or none.
    fn take_blocks(&self, contents: &mut Contents, range: Range<u64>) -> io::Result<()> {
        let blocks = range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES);
        self.space.take(contents.blocks.missing(&blocks))?;
        contents.blocks.insert(blocks);
        Ok(())
    }

    pub(super) fn map(node: &Arc<Self>, len: u64, observer: Option<Arc<dyn Observer>>) -> io::Result<Region> {
        let contents = node.contents.read();
        let (Some(map), true) = (&contents.memory.map, (1..=contents.memory.len).contains(&len)) else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "an empty map, or one longer than the file"));
        };
        let start = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::InvalidData)?;
        let owner = Arc::new(Mapped { _map: map.clone(), node: node.clone() });
        // SAFETY: `map` is a writable mapping of at least `len` bytes (checked to lie in the file, which the map is
        // as long as, so it fits a `usize`) that the owner keeps alive. All else that uses it does so through raw
        // pointers.
        Ok(unsafe { Region::new(start, len as usize, owner, observer) })
    }

    /// Whether a region with that mapping is of this file.
    pub(super) fn is_mapped_by(self: &Arc<Self>, map: &Arc<dyn Any + Send + Sync>) -> bool {
        map.downcast_ref::<Mapped>().is_some_and(|mapped| Arc::ptr_eq(&mapped.node, self))
    }

    /// The first position from `position` on in a block that isn't all zeros.
    pub(super) fn next_data(&self, position: u64) -> Option<u64> {
        let contents = self.contents.read();
        let mut block = position / BLOCK_BYTES;
        while block * BLOCK_BYTES < contents.memory.len {
            if !contents.memory.block_is_zero(block) {
                let found = position.max(block * BLOCK_BYTES);
                return (found < contents.memory.len).then_some(found);
            }
            block += 1;
        }
        None
    }
}

impl Drop for FileNode {
    fn drop(&mut self) {
        self.space.give_back(self.contents.get_mut().blocks.truncate(0));
    }
}

/// What tests want to know of a file's handles.
#[cfg(any(test, fuzzing))]
mod handles {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    #[derive(Default)]
    pub(super) struct Handles {
        all: AtomicUsize,
        writable: AtomicUsize,
        /// Something was stored through a map since a sync began.
        stored: AtomicBool,
    }

    impl super::FileNode {
        pub(in super::super) fn count_handle(&self, writable: bool) {
            self.handles.all.fetch_add(1, Ordering::SeqCst);
            self.handles.writable.fetch_add(writable.into(), Ordering::SeqCst);
        }

        /// Whether this was the last one to write with, and something that was stored wasn't synced.
        pub(in super::super) fn forget_handle(&self, writable: bool) -> bool {
            self.handles.all.fetch_sub(1, Ordering::SeqCst);
            let last = self.handles.writable.fetch_sub(writable.into(), Ordering::SeqCst) == 1;
            writable && last && self.handles.stored.swap(false, Ordering::SeqCst)
        }

        pub(in super::super) fn handles(&self) -> usize {
            self.handles.all.load(Ordering::SeqCst)
        }

        pub(in super::super) fn set_stored(&self, stored: bool) {
            self.handles.stored.store(stored, Ordering::SeqCst);
        }
    }
}

/// A file's bytes.
#[derive(Default)]
struct Memory {
    /// A whole number of blocks; `None` while there never was a byte.
    map: Option<Arc<MmapRaw>>,
    len: u64,
}

impl Memory {
    fn capacity(&self) -> u64 {
        self.map.as_ref().map_or(0, |map| map.len() as u64)
    }

    /// Sets the length; if that takes a new map, one for `capacity` bytes. What is cut off has been zeroed.
    fn set_len(&mut self, len: u64, capacity: u64) -> io::Result<()> {
        if len > self.capacity() {
            self.move_to(capacity)?;
        }
        self.len = len;
        Ok(())
    }

    /// Moves to a greater map.
    fn move_to(&mut self, capacity: u64) -> io::Result<()> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let capacity = capacity.checked_next_multiple_of(BLOCK_BYTES).ok_or_else(too_large)?;
        let capacity = usize::try_from(capacity).map_err(|_| too_large())?;
        // Most of it may never be touched, so the system isn't asked to stand for it.
        let map = MmapRaw::from(MmapOptions::new().len(capacity).no_reserve_swap().map_anon()?);
        for block in 0..self.len.div_ceil(BLOCK_BYTES) {
            if let (Some(old), false) = (&self.map, self.block_is_zero(block)) {
                let at = (block * BLOCK_BYTES) as usize;
                // SAFETY: the block lies in both maps, which are whole numbers of blocks, and are two.
                unsafe {
                    ptr::copy_nonoverlapping(old.as_ptr().add(at), map.as_mut_ptr().add(at), BLOCK_BYTES as usize);
                }
            }
        }
        self.map = Some(Arc::new(map));
        Ok(())
    }

    /// Zeroes a range within the length, block by block, those that aren't zeros already: a store would give memory
    /// to a block that has none.
    fn zero(&mut self, range: Range<u64>) {
        let (Some(map), false) = (&self.map, range.is_empty()) else { return };
        for block in range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES) {
            if self.block_is_zero(block) {
                continue;
            }
            let start = range.start.max(block * BLOCK_BYTES);
            let end = range.end.min((block + 1) * BLOCK_BYTES);
            // SAFETY: within the length, and so within the map.
            unsafe { ptr::write_bytes(map.as_mut_ptr().add(start as usize), 0, (end - start) as usize) };
        }
    }

    /// Whether a block within the length holds zeros only.
    fn block_is_zero(&self, block: u64) -> bool {
        let Some(map) = &self.map else { return true };
        let mut copy = [0; BLOCK_BYTES as usize];
        // SAFETY: the block lies in the map, which is a whole number of blocks. It is copied and not borrowed because
        // somebody may be storing there.
        unsafe {
            ptr::copy_nonoverlapping(map.as_ptr().add((block * BLOCK_BYTES) as usize), copy.as_mut_ptr(), copy.len());
        }
        copy == [0; BLOCK_BYTES as usize]
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> usize {
        let (Some(map), Some(left)) = (&self.map, self.len.checked_sub(position)) else { return 0 };
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        // SAFETY: from `position` on there are at least `len` bytes in the file, and so in the map; the buffer is as
        // long, and elsewhere.
        unsafe { ptr::copy_nonoverlapping(map.as_ptr().add(position as usize), buffer.as_mut_ptr(), len) };
        len
    }

    /// Writes within the length.
    fn write_at(&mut self, bytes: &[u8], position: u64) {
        debug_assert!(position + bytes.len() as u64 <= self.len);
        let Some(map) = &self.map else { return };
        // SAFETY: within the length, which the caller has set, and so within the map. `bytes` may be borrowed from a
        // region of this very file, so the two may overlap.
        unsafe { ptr::copy(bytes.as_ptr(), map.as_mut_ptr().add(position as usize), bytes.len()) };
    }
}

/// Sets of blocks, as ranges (start to end) that neither overlap nor touch.
#[derive(Default)]
struct Blocks(BTreeMap<u64, u64>);

impl Blocks {
    /// How many blocks of the range aren't in the set.
    fn missing(&self, range: &Range<u64>) -> u64 {
        let touched = self.0.range(..range.end).rev().take_while(|&(_, &end)| end > range.start);
        let present: u64 = touched.map(|(&start, &end)| end.min(range.end) - start.max(range.start)).sum();
        range.end - range.start - present
    }

    /// The ranges that reach beyond a block.
    fn from(&self, first: u64) -> impl Iterator<Item = Range<u64>> {
        self.0.iter().rev().take_while(move |&(_, &end)| end > first).map(|(&start, &end)| start..end)
    }

    fn insert(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            self.0.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.0.insert(range.start, range.end);
    }

    /// Takes out everything from a block on; answers how many that were.
    fn truncate(&mut self, first: u64) -> u64 {
        let mut removed = 0;
        while let Some((&start, &end)) = self.0.last_key_value() {
            if end <= first {
                break;
            }
            removed += end - start.max(first);
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, first);
            }
        }
        removed
    }
}

/// The space of a file system, in blocks.
#[derive(Default)]
pub(super) struct Space(Mutex<Usage>);

#[derive(Default)]
struct Usage {
    used: u64,
    limit: Option<u64>,
}

impl Space {
    fn take(&self, blocks: u64) -> io::Result<()> {
        let mut usage = self.0.lock();
        let used = usage.used.saturating_add(blocks);
        // What needs no new block goes on, also on a disk that is over its limit.
        if blocks > 0 && usage.limit.is_some_and(|limit| used > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        usage.used = used;
        Ok(())
    }

    fn give_back(&self, blocks: u64) {
        self.0.lock().used -= blocks;
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn limit(&self, bytes: Option<u64>) {
        self.0.lock().limit = bytes.map(|bytes| bytes / BLOCK_BYTES);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn used(&self) -> u64 {
        self.0.lock().used * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_count_as_a_plain_set_does(steps in prop::collection::vec((0u64..40, 0u64..12, any::<bool>()), 1..40)) {
            let (mut blocks, mut model) = (Blocks::default(), BTreeSet::new());
            for (start, len, cut) in steps {
                if cut && len == 0 {
                    prop_assert_eq!(blocks.truncate(start), model.split_off(&start).len() as u64);
                } else if len > 0 {
                    let range = start..start + len;
                    prop_assert_eq!(blocks.missing(&range), range.clone().filter(|b| !model.contains(b)).count() as u64);
                    blocks.insert(range.clone());
                    model.extend(range);
                }
                let listed: BTreeSet<u64> = blocks.0.iter().flat_map(|(&start, &end)| start..end).collect();
                prop_assert_eq!(&listed, &model);
            }
        }
    }

    #[test]
    fn an_absurd_length_is_an_error() {
        let node = FileNode::new(2, Path::new("a"), Arc::default());
        assert!(node.set_len(u64::MAX).is_err());
        assert!(node.write_all_at(b"x", u64::MAX).is_err());
        assert_eq!(node.len(), 0);
        assert_eq!(node.read_at(&mut [0; 8], u64::MAX), 0);
        assert_eq!(node.next_data(u64::MAX), None);
    }
}
