//! A file system in memory: what `in_memory()` logs live on, and what tests make fail.
//!
//! A file's contents are an anonymous map, so that regions, reads and writes all see the same bytes ([`memory`]);
//! folders are tables of names that lead to numbered nodes ([`tree`]); in this crate's tests every operation that
//! changes something can be made to fail, and is written down ([`faults`]). Names and contents are kept apart by those
//! numbers, so that a crash can later be simulated as a second table of names and a second image of contents: what
//! the device would have.
//!
//! # Invariants
//! - Contents that were never stored take no memory, whatever the file's length.
//! - A file that grows beyond the memory it has moves to a greater map. Regions handed out before stay on the old
//!   one and no longer see the file. The crate never relies on that: a file gets its full length before it is mapped.
//! - A cut zeroes what it cuts off, so that growing again reads zeros; what lies below the new end isn't touched.
//! - Space counts by blocks of 4 KiB that were written or reserved, until the last name, handle and region are gone,
//!   as on a real file system. Stores through regions take none: they go where the caller has reserved.
//!
//! # Thread safety
//! Everything may be called from any thread. Reading a file while somebody stores the same bytes through a region is
//! left to the rules that regions have (see [`Region`]): the answer may then be any mix of old and new bytes.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

#[cfg(test)]
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

#[cfg(test)]
pub(crate) use self::faults::{Performed, Repeat};
use self::{
    faults::{Faults, Operation},
    memory::{FileNode, Space},
    tree::Tree,
};
use super::{
    DirEntry, EntryKind, File, FileIdentity, FileSystem, FileSystemClass, LockOutcome, Observer, OpenMode, Region,
    Storage, another_file,
};

pub(crate) mod faults;
mod memory;
#[cfg(test)]
pub(crate) mod power;
mod tree;

/// A file system in memory, empty at first. Clones are the same one.
#[derive(Clone, Default)]
pub(crate) struct SimStorage {
    shared: Arc<Shared>,
}

/// Gets path, position and bytes of a store into a region before it happens.
pub(crate) type StoreObserver = Arc<dyn Fn(&Path, u64, &[u8]) + Send + Sync>;

#[derive(Default)]
struct Shared {
    tree: Mutex<Tree>,
    space: Arc<Space>,
    machine: Mutex<Machine>,
    faults: Faults,
    observer: RwLock<Option<StoreObserver>>,
    /// Files that a handle was closed of behind a write that it didn't sync.
    #[cfg(test)]
    closed_unsynced: Mutex<Vec<PathBuf>>,
}

/// What the simulated machine says of itself.
struct Machine {
    boots: u64,
    mounts: u64,
    file_system: FileSystem,
}

impl Default for Machine {
    fn default() -> Self {
        let file_system = FileSystem { name: "memory".to_owned(), class: FileSystemClass::Local };
        Self { boots: 1, mounts: 1, file_system }
    }
}

impl fmt::Debug for SimStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStorage").finish_non_exhaustive()
    }
}

impl Storage for SimStorage {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::CreateDir, path, || self.shared.tree.lock().create_dir_all(path))
    }

    fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.shared.tree.lock().entry_kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.tree.lock().list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let node = match mode {
            OpenMode::Read => {
                self.shared.faults.check_files()?;
                self.shared.tree.lock().file(path)?
            }
            OpenMode::ReadWrite => self.existing(path)?,
            OpenMode::CreateNew => self.change(Operation::Create, path, || self.create(path, true))?,
            OpenMode::Truncate => self.change(Operation::Create, path, || {
                let node = self.create(path, false)?;
                node.set_len(0)?;
                Ok(node)
            })?,
        };
        Ok(self.handle(node, mode != OpenMode::Read))
    }

    fn reopen(&self, path: &Path, region: &Region) -> io::Result<Arc<dyn File>> {
        let node = self.existing(path)?;
        if !node.is_mapped_by(region.map()) {
            return Err(another_file());
        }
        Ok(self.handle(node, true))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Operation::Rename, to, || self.shared.tree.lock().rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::RemoveFile, path, || self.shared.tree.lock().remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::RemoveDir, path, || self.shared.tree.lock().remove_dir_all(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::SyncDir, path, || self.shared.tree.lock().list(path).map(drop))
    }

    fn lock_exclusive(&self, path: &Path) -> io::Result<LockOutcome> {
        self.change(Operation::Lock, path, || {
            let node = self.create(path, false)?;
            Ok(match node.try_lock(std::process::id()) {
                Ok(()) => LockOutcome::Acquired(Box::new(HeldLock(node))),
                Err(holder) => LockOutcome::Held(Some(holder)),
            })
        })
    }

    fn lock_shared(&self, path: &Path) -> io::Result<LockOutcome> {
        let node = self.shared.tree.lock().file(path)?;
        Ok(match node.try_lock(std::process::id()) {
            Ok(()) => LockOutcome::Acquired(Box::new(HeldLock(node))),
            Err(holder) => LockOutcome::Held(Some(holder)),
        })
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        match self.entry_kind(path)? {
            Some(_) => Ok(self.shared.machine.lock().file_system.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl SimStorage {
    /// Does an operation that changes something, unless it is to fail.
    fn change<T>(&self, operation: Operation, path: &Path, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.shared.faults.run(operation, || path.to_owned(), body)
    }

    /// The file of that name, to be changed.
    fn existing(&self, path: &Path) -> io::Result<Arc<FileNode>> {
        self.change(Operation::Open, path, || self.shared.tree.lock().file(path))
    }

    fn handle(&self, node: Arc<FileNode>, writable: bool) -> Arc<dyn File> {
        #[cfg(test)]
        node.count_handle(writable);
        Arc::new(SimFile {
            storage: self.clone(),
            node,
            writable,
            #[cfg(test)]
            unsynced: AtomicBool::new(false),
        })
    }

    /// The file of that name, made if it is missing; if `new`, an error if it isn't.
    fn create(&self, path: &Path, new: bool) -> io::Result<Arc<FileNode>> {
        self.shared.tree.lock().create(path, new, &self.shared.space)
    }
}

/// What this crate's tests do to a machine.
#[cfg(test)]
impl SimStorage {
    /// Makes the `n`th operation from now on that changes something fail with `kind`; the next one is the first.
    /// Counted is every [`Operation`]. Replaces what an earlier call had asked for.
    pub(crate) fn fail_nth(&self, n: u64, kind: io::ErrorKind, repeat: Repeat) {
        self.shared.faults.fail_nth(n, kind, repeat);
    }

    /// Makes every operation fail for which `choose` gives a kind, by operation and path. It is called with the
    /// faults locked, so it must not use this storage.
    pub(crate) fn fail_if(&self, choose: impl FnMut(Operation, &Path) -> Option<io::ErrorKind> + Send + 'static) {
        self.shared.faults.fail_if(Box::new(choose));
    }

    /// Makes the next `count` calls of `sync_data` and `sync_all` fail, `u64::MAX` for all. What such a call was to
    /// make durable counts as not synced (see [`Performed::succeeded`]), also when a later call succeeds: that is how
    /// kernels behave.
    pub(crate) fn fail_syncs(&self, count: u64) {
        self.shared.faults.fail_syncs(count);
    }

    /// While `true`, the process has no descriptors left: nothing can be opened.
    pub(crate) fn run_out_of_files(&self, out: bool) {
        self.shared.faults.run_out_of_files(out);
    }

    /// Nothing fails any more, and space has no limit.
    pub(crate) fn heal(&self) {
        self.shared.faults.heal();
        self.limit_space(None);
    }

    /// Lets at most so many bytes be written or reserved in all, those that are already counted in.
    pub(crate) fn limit_space(&self, bytes: Option<u64>) {
        self.shared.space.limit(bytes);
    }

    /// Bytes written or reserved, by blocks.
    pub(crate) fn used_space(&self) -> u64 {
        self.shared.space.used()
    }

    /// How many operations there were that change something, failed ones counted in.
    pub(crate) fn operations(&self) -> u64 {
        self.shared.faults.operations()
    }

    /// These operations, in the order in which they ended, since the last call.
    pub(crate) fn take_trace(&self) -> Vec<Performed> {
        self.shared.faults.take_trace()
    }

    /// Files that a handle was closed of, since the last call, behind a write that it didn't sync; or the last handle to
    /// write with, behind a store into a map that wasn't synced. With it goes the kernel's memory of a write that
    /// failed.
    pub(crate) fn take_closed_unsynced(&self) -> Vec<PathBuf> {
        std::mem::take(&mut self.shared.closed_unsynced.lock())
    }

    /// How many handles are open of files that this holds for.
    pub(crate) fn open_handles(&self, wanted: impl Fn(&Path) -> bool) -> usize {
        self.shared.tree.lock().files().iter().filter(|node| wanted(&node.path())).map(|node| node.handles()).sum()
    }

    /// Shows `observer` every store into regions that are mapped from now on. Words that are used as atomics aren't
    /// stores in this sense.
    pub(crate) fn observe(&self, observer: Option<StoreObserver>) {
        *self.shared.observer.write() = observer;
    }

    /// Gives the machine another boot id, as if everything had been in its files when it went down.
    pub(crate) fn reboot(&self) {
        let mut machine = self.shared.machine.lock();
        machine.boots += 1;
        machine.mounts += 1;
    }

    /// Mounts the file system again within the same boot.
    pub(crate) fn remount(&self) {
        self.shared.machine.lock().mounts += 1;
    }

    /// Changes what [`Storage::file_system`] answers.
    pub(crate) fn set_file_system(&self, name: &str, class: FileSystemClass) {
        self.shared.machine.lock().file_system = FileSystem { name: name.to_owned(), class };
    }
}

/// Frees the lock when dropped.
struct HeldLock(Arc<FileNode>);

impl Drop for HeldLock {
    fn drop(&mut self) {
        self.0.unlock();
    }
}

/// An open file.
struct SimFile {
    storage: SimStorage,
    node: Arc<FileNode>,
    writable: bool,
    #[cfg(test)]
    unsynced: AtomicBool,
}

#[cfg(test)]
impl Drop for SimFile {
    fn drop(&mut self) {
        let stored_unsynced = self.node.forget_handle(self.writable);
        if self.unsynced.load(Ordering::Relaxed) || stored_unsynced {
            self.storage.shared.closed_unsynced.lock().push(self.node.path());
        }
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("path", &self.node.path()).finish_non_exhaustive()
    }
}

impl SimFile {
    /// Does an operation that changes something, unless it is to fail.
    fn change<T>(&self, operation: Operation, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.storage.shared.faults.run(operation, || self.node.path(), body)
    }

    /// What was stored before is on the device, or the failure told to this handle.
    #[cfg(test)]
    fn begin_sync(&self) {
        self.unsynced.store(false, Ordering::Relaxed);
        self.node.set_stored(false);
    }

    /// As [`change`](SimFile::change), and an error if the file was opened for reading.
    fn store<T>(&self, operation: Operation, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"));
        }
        self.change(operation, body)
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.node.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.store(Operation::SetLen, || self.node.set_len(len))
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        Ok(self.node.read_at(buffer, position))
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        #[cfg(test)]
        self.unsynced.store(true, Ordering::Relaxed);
        self.store(Operation::Write, || self.node.write_all_at(bytes, position))
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        self.store(Operation::Reserve, || self.node.reserve(range))
    }

    fn start_writeback(&self, _range: Range<u64>) -> io::Result<()> {
        self.change(Operation::StartWriteback, || Ok(()))
    }

    fn sync_data(&self) -> io::Result<()> {
        #[cfg(test)]
        self.begin_sync();
        self.change(Operation::SyncData, || Ok(()))
    }

    fn sync_all(&self) -> io::Result<()> {
        #[cfg(test)]
        self.begin_sync();
        self.change(Operation::SyncAll, || Ok(()))
    }

    fn map(&self, len: u64) -> io::Result<Region> {
        self.change(Operation::Map, || {
            let observer = self.storage.shared.observer.read().clone();
            // Tests want to know of every store.
            let observer = (observer.is_some() || cfg!(test)).then(|| {
                let node = self.node.clone();
                Arc::new(FileObserver { node, observer }) as Arc<dyn Observer>
            });
            FileNode::map(&self.node, len, observer)
        })
    }

    fn identity(&self) -> io::Result<Option<FileIdentity>> {
        let machine = self.storage.shared.machine.lock();
        let inode = self.node.inode();
        Ok(Some(FileIdentity {
            boot_id: u128::from(machine.boots).to_be_bytes(),
            mount_id: machine.mounts,
            device: 1,
            inode,
            // Inode numbers are never used twice here, so this adds nothing; but it is never the same either.
            birth_ns: i128::from(inode),
        }))
    }

    fn next_data(&self, position: u64) -> io::Result<Option<u64>> {
        Ok(self.node.next_data(position))
    }
}

/// Adds the file's path, as it is at that moment, to what an observer is told.
struct FileObserver {
    node: Arc<FileNode>,
    observer: Option<StoreObserver>,
}

impl Observer for FileObserver {
    fn store(&self, position: u64, bytes: &[u8]) {
        #[cfg(test)]
        self.node.set_stored(true);
        if let Some(observer) = &self.observer {
            let path: PathBuf = self.node.path();
            observer(&path, position, bytes);
        }
    }
}

#[cfg(test)]
mod tests;
