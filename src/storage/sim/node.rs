//! A simulated file: its contents and blocks, its lock.
//!
//! # Invariants
//! - Bytes of blocks that were neither reserved nor written are zero (to store there through a region is a breach of the
//!   seam's rules).
//! - What a file's blocks take was taken from the [`Space`], and is given back when the file is dropped, also if its
//!   contents are kept because the removal of its name isn't durable.
//!
//! # Thread safety
//! Any thread may call anything. The lock over the contents guards length, blocks and the choice of the map, and
//! orders reads and writes of the bytes among each other, but not with stores through regions.

use std::{
    any::Any,
    io,
    ops::Range,
    path::{Path, PathBuf},
    ptr::NonNull,
    sync::Arc,
};

use memmap2::MmapRaw;
use parking_lot::{Mutex, RwLock};

use super::{
    super::{Observer, Region},
    blocks::{BLOCK_BYTES, Space},
    contents::Contents,
};

/// A file, whatever its names.
pub(super) struct FileNode {
    inode: u64,
    /// Its last name.
    path: Mutex<PathBuf>,
    contents: Arc<RwLock<Contents>>,
    lock_holder: Mutex<Option<u32>>,
    space: Arc<Space>,
    #[cfg(any(test, fuzzing))]
    handles: handles::Handles,
}

/// Owner of a region: as on a real file system, a mapped file keeps its blocks.
struct Mapped {
    _map: Arc<MmapRaw>,
    node: Arc<FileNode>,
}

impl FileNode {
    /// The blocks of the contents have been taken.
    pub(super) fn new(inode: u64, path: &Path, contents: Arc<RwLock<Contents>>, space: Arc<Space>) -> Self {
        Self {
            inode,
            path: Mutex::new(path.to_owned()),
            contents,
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
        self.contents.read().len()
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.contents.write().set_len(len, &self.space)
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], position: u64) -> usize {
        self.contents.read().memory().read_at(buffer, position)
    }

    pub(super) fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        self.contents.write().write_all_at(bytes, position, &self.space)
    }

    pub(super) fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        self.contents.write().reserve(range, &self.space)
    }

    pub(super) fn map(node: &Arc<Self>, len: u64, observer: Option<Arc<dyn Observer>>) -> io::Result<Region> {
        let contents = node.contents.read();
        let (Some(map), true) = (contents.memory().map(), (1..=contents.len()).contains(&len)) else {
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
        let mut blocks = contents.blocks().from(position / BLOCK_BYTES).flatten();
        let found = blocks.find(|&block| !contents.memory().block_is_zero(block))?;
        Some(position.max(found * BLOCK_BYTES)).filter(|&found| found < contents.len())
    }
}

impl Drop for FileNode {
    fn drop(&mut self) {
        self.space.give_back(self.contents.read().blocks().count());
    }
}

/// What a machine does that may crash.
#[cfg(any(test, fuzzing))]
impl FileNode {
    pub(super) fn contents(&self) -> &Arc<RwLock<Contents>> {
        &self.contents
    }

    /// Bytes are going to be stored through a region. Where the disk is too full for the blocks of their page, the process
    /// ends.
    pub(super) fn begin_put(&self, range: Range<u64>) {
        let mut contents = self.contents.write();
        let page = self.space.page_limit();
        let dirty = range.start / page * page..range.end.next_multiple_of(page).min(contents.len()).max(range.end);
        let outcome = contents.reserve(dirty, &self.space);
        assert!(outcome.is_ok(), "SIGBUS: a store at {range:?} of {:?}, which wasn't reserved", self.path());
        contents.begin(range);
    }

    /// They have been.
    pub(super) fn end_put(&self, range: Range<u64>) {
        self.contents.write().end(range);
    }

    /// A sync is done, or has failed; what it was to write is then dropped from the cache, if that is so.
    pub(super) fn end_sync(&self, succeeded: bool, drops: bool) {
        self.contents.write().end_sync(succeeded, drops);
    }

    /// Whether the device has just what the cache has in a range.
    pub(super) fn is_on_device(&self, range: Range<u64>) -> bool {
        self.contents.write().is_on_device(range)
    }

    /// Somebody may store words; whether nobody could before.
    pub(super) fn watch(&self) -> bool {
        self.contents.write().watch()
    }

    /// Takes down the words that were stored since the last look; whether there were any.
    pub(super) fn look(&self) -> bool {
        self.contents.write().look()
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

        #[cfg_attr(fuzzing, allow(dead_code, reason = "fuzz targets use a part of what tests do"))]
        pub(in super::super) fn handles(&self) -> usize {
            self.handles.all.load(Ordering::SeqCst)
        }

        pub(in super::super) fn set_stored(&self, stored: bool) {
            self.handles.stored.store(stored, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absurd_length_is_an_error() {
        let node = FileNode::new(2, Path::new("a"), Arc::default(), Arc::default());
        assert!(node.set_len(u64::MAX).is_err());
        assert!(node.write_all_at(b"x", u64::MAX).is_err());
        assert_eq!(node.len(), 0);
        assert_eq!(node.read_at(&mut [0; 8], u64::MAX), 0);
        assert_eq!(node.next_data(u64::MAX), None);
    }
}
