//! A file system in memory: what `in_memory()` logs live on, and what tests make fail.
//!
//! A file ([`node`]) has [`contents`]: an anonymous map, so that regions, reads and writes all see the same bytes
//! ([`memory`]), and [`blocks`]. Folders are tables of names that lead to numbered nodes ([`tree`]).
//!
//! For this crate's tests it is a disk that can do anything a real one may. Every operation can be made to fail, and is
//! written down ([`faults`]). A machine that was made by [`SimStorage::tracked`] knows what isn't durable: every version
//! that a sector or a length has had since it was synced ([`history`]), and every change of a name ([`journal`]). Behind
//! each step ([`steps`]) it can be asked what a killed process or a cut power line would leave ([`crash`]), by a pattern
//! drawn from a seed ([`pattern`]). In other builds there is none of this.
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

#[cfg(any(test, fuzzing))]
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock};

use self::{
    blocks::Space,
    faults::{Faults, Operation, Reading},
    node::FileNode,
    tree::Tree,
};
#[cfg(any(test, fuzzing))]
pub(crate) use self::{
    crash::Crash,
    faults::{Fault, Performed, Repeat, WillFail},
    steps::{Step, StepHook},
};
use super::{
    DirEntry, EntryKind, File, FileIdentity, FileSystem, FileSystemClass, LockOutcome, Observer, OpenMode, Region,
    Storage, another_file,
};

mod blocks;
mod contents;
pub(crate) mod faults;
mod memory;
mod node;
mod tree;

#[cfg(test)]
pub(crate) mod power;

// What only tests ask for.
#[cfg(any(test, fuzzing))]
mod control;
#[cfg(any(test, fuzzing))]
mod crash;
#[cfg(any(test, fuzzing))]
mod hash;
#[cfg(any(test, fuzzing))]
mod history;
#[cfg(any(test, fuzzing))]
mod journal;
#[cfg(any(test, fuzzing))]
mod pattern;
#[cfg(any(test, fuzzing))]
mod pool;
#[cfg(any(test, fuzzing))]
mod steps;

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
    #[cfg(any(test, fuzzing))]
    closed_unsynced: Mutex<Vec<PathBuf>>,
    #[cfg(any(test, fuzzing))]
    steps: steps::Steps,
    /// Whether tree and files know what isn't durable.
    #[cfg(any(test, fuzzing))]
    is_tracked: bool,
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
        self.change(Operation::CreateDir, path, || {
            let changed = self.shared.tree.lock().create_dir_all(path)?;
            self.step_within(Operation::CreateDir, path);
            changed.into_iter().for_each(|dir| self.shared.tree.lock().make_durable(dir));
            Ok(())
        })
    }

    fn create_dirs(&self, dir: &Path, names: &[String]) -> io::Result<()> {
        for path in names.iter().map(|name| dir.join(name)) {
            self.change(Operation::CreateDir, &path, || self.shared.tree.lock().create_dir_all(&path).map(drop))?;
        }
        self.sync_dir(dir)
    }

    fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.shared.faults.check_read(Reading::EntryKind, || path.to_owned())?;
        self.shared.tree.lock().entry_kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.shared.faults.check_read(Reading::List, || dir.to_owned())?;
        self.shared.tree.lock().list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let node = match mode {
            OpenMode::Read => {
                self.shared.faults.check_read(Reading::Open, || path.to_owned())?;
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

    #[cfg(any(test, fuzzing))]
    fn page_limit(&self) -> u64 {
        self.shared.space.page_limit()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Operation::Rename, to, || self.shared.tree.lock().rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::RemoveFile, path, || self.shared.tree.lock().remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::RemoveDir, path, || {
            let doomed = self.shared.tree.lock().below(path)?;
            for (at, path) in doomed.iter().enumerate() {
                if at > 0 {
                    self.step_within(Operation::RemoveDir, path);
                }
                self.shared.tree.lock().remove(path)?;
            }
            Ok(())
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(Operation::SyncDir, path, || self.shared.tree.lock().sync_dir(path))
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
        match self.shared.tree.lock().entry_kind(path)? {
            Some(_) => Ok(self.shared.machine.lock().file_system.clone()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

impl SimStorage {
    /// Does an operation that changes something, unless it is to fail.
    fn change<T>(&self, operation: Operation, path: &Path, body: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        self.change_or(operation, || path.to_owned(), body, |_| {})
    }

    /// The same; `failed` does what is done all the same where it is to fail, and is told whether that is half of it.
    fn change_or<T>(
        &self,
        operation: Operation,
        path: impl Fn() -> PathBuf,
        body: impl FnOnce() -> io::Result<T>,
        failed: impl FnOnce(bool),
    ) -> io::Result<T> {
        #[cfg(any(test, fuzzing))]
        self.look();
        let outcome = self.shared.faults.run(operation, &path, body, failed);
        #[cfg(any(test, fuzzing))]
        self.step(operation, path);
        outcome
    }

    /// An operation is done in part: a process may be killed here too.
    #[cfg(any(test, fuzzing))]
    fn step_within(&self, operation: Operation, path: &Path) {
        if self.shared.is_tracked {
            self.step(operation, || path.to_owned());
        }
    }

    #[cfg(not(any(test, fuzzing)))]
    fn step_within(&self, _operation: Operation, _path: &Path) {}

    /// The file of that name, to be changed.
    fn existing(&self, path: &Path) -> io::Result<Arc<FileNode>> {
        self.change(Operation::Open, path, || self.shared.tree.lock().file(path))
    }

    fn handle(&self, node: Arc<FileNode>, writable: bool) -> Arc<dyn File> {
        #[cfg(any(test, fuzzing))]
        node.count_handle(writable);
        Arc::new(SimFile {
            storage: self.clone(),
            node,
            writable,
            #[cfg(any(test, fuzzing))]
            unsynced: AtomicBool::new(false),
        })
    }

    /// The file of that name, made if it is missing; if `new`, an error if it isn't.
    fn create(&self, path: &Path, new: bool) -> io::Result<Arc<FileNode>> {
        self.shared.tree.lock().create(path, new, &self.shared.space)
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
    #[cfg(any(test, fuzzing))]
    unsynced: AtomicBool,
}

#[cfg(any(test, fuzzing))]
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
        self.storage.change_or(operation, || self.node.path(), body, |_| {})
    }

    /// What was stored before is on the device, or the failure told to this handle.
    #[cfg(any(test, fuzzing))]
    fn begin_sync(&self) {
        self.unsynced.store(false, Ordering::Relaxed);
        self.node.set_stored(false);
    }

    /// As [`change`](SimFile::change), and an error if the file was opened for reading. `part` does half of it.
    fn store(
        &self,
        operation: Operation,
        body: impl FnOnce() -> io::Result<()>,
        part: impl FnOnce(),
    ) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "opened for reading"));
        }
        let failed = |in_part: bool| {
            if in_part {
                part()
            }
        };
        self.storage.change_or(operation, || self.node.path(), body, failed)
    }

    /// Writes page by page, as a kernel does: it may be killed in between, or find no space.
    fn write_pages(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        #[cfg(any(test, fuzzing))]
        if self.storage.shared.is_tracked {
            return self.write_stepwise(bytes, position);
        }
        self.node.write_all_at(bytes, position)
    }

    fn sync(&self, operation: Operation) -> io::Result<()> {
        #[cfg(any(test, fuzzing))]
        {
            self.begin_sync();
            let drops = self.storage.shared.faults.drops_failed_pages();
            let written = || {
                self.node.end_sync(true, drops);
                Ok(())
            };
            self.storage.change_or(operation, || self.node.path(), written, |_| self.node.end_sync(false, drops))
        }
        #[cfg(not(any(test, fuzzing)))]
        self.change(operation, || Ok(()))
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.node.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.store(Operation::SetLen, || self.node.set_len(len), || {})
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.storage.shared.faults.check_read(Reading::ReadAt, || self.node.path())?;
        Ok(self.node.read_at(buffer, position))
    }

    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        #[cfg(any(test, fuzzing))]
        self.unsynced.store(true, Ordering::Relaxed);
        let half = || drop(self.write_pages(&bytes[..bytes.len() / 2], position));
        self.store(Operation::Write, || self.write_pages(bytes, position), half)
    }

    fn reserve(&self, range: Range<u64>) -> io::Result<()> {
        let half = range.start..range.start + (range.end.saturating_sub(range.start)) / 2;
        self.store(Operation::Reserve, || self.node.reserve(range), || drop(self.node.reserve(half)))
    }

    fn start_writeback(&self, _range: Range<u64>) -> io::Result<()> {
        self.change(Operation::StartWriteback, || Ok(()))
    }

    fn is_on_device(&self, range: Range<u64>) -> io::Result<bool> {
        #[cfg(any(test, fuzzing))]
        let is = self.node.is_on_device(range);
        // Without a device there is nothing that could differ.
        #[cfg(not(any(test, fuzzing)))]
        let is = self.node.len() >= range.start;
        Ok(is)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync(Operation::SyncData)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync(Operation::SyncAll)
    }

    fn map(&self, len: u64) -> io::Result<Region> {
        self.change(Operation::Map, || {
            let observer = self.storage.shared.observer.read().clone();
            // Tests want to know of every store.
            let observer = (observer.is_some() || cfg!(any(test, fuzzing))).then(|| {
                let node = self.node.clone();
                #[cfg(any(test, fuzzing))]
                let storage = self.storage.clone();
                Arc::new(FileObserver {
                    node,
                    observer,
                    #[cfg(any(test, fuzzing))]
                    storage,
                    #[cfg(any(test, fuzzing))]
                    writable: self.writable,
                }) as Arc<dyn Observer>
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
    #[cfg(any(test, fuzzing))]
    storage: SimStorage,
    #[cfg(any(test, fuzzing))]
    writable: bool,
}

impl Observer for FileObserver {
    fn store(&self, position: u64, bytes: &[u8]) {
        #[cfg(any(test, fuzzing))]
        self.begin_put(position, bytes.len());
        if let Some(observer) = &self.observer {
            let path: PathBuf = self.node.path();
            observer(&path, position, bytes);
        }
    }

    #[cfg(any(test, fuzzing))]
    fn stored(&self, position: u64, len: usize) {
        self.end_put(position, len);
    }

    #[cfg(any(test, fuzzing))]
    fn words(&self) {
        self.look_at_words();
    }
}

#[cfg(test)]
mod tests;
