//! A machine whose power goes: names that weren't synced are lost with it, and the process stops at a chosen operation.
//!
//! What [`SimStorage`] does to contents it does here too; this adds what a file system does to names. A folder that
//! wasn't synced since may be as it was then, while others have all that happened: any mix is possible.
//!
//! # Invariants
//! - The process does nothing more once it was stopped: every operation fails.
//! - [`Storage::create_dir_all`] is durable at once, as its contract says.
//!
//! # Thread safety
//! Everything may be called from any thread. The journal is in the order of changes only if one thread makes them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;

use super::SimStorage;
use crate::storage::{DirEntry, EntryKind, File, FileSystem, LockOutcome, OpenMode, Region, Storage};

/// A [`SimStorage`] that remembers which names aren't durable. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub(crate) struct PowerStorage {
    inner: SimStorage,
    journal: Arc<Mutex<Journal>>,
}

#[derive(Debug, Default)]
struct Journal {
    /// What isn't durable, oldest first.
    changes: Vec<Change>,
    /// Operations on names that still succeed.
    left: Option<u64>,
    /// What was removed or replaced lies here, under numbers.
    kept: u64,
}

/// A change of a name, with all that it takes to undo it.
#[derive(Debug)]
enum Change {
    Created(PathBuf),
    MadeFolder(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<PathBuf> },
    Removed { path: PathBuf, kept: PathBuf },
}

impl Change {
    /// The folder that has the name.
    fn dir(&self) -> &Path {
        let (Self::Created(path)
        | Self::MadeFolder(path)
        | Self::Renamed { to: path, .. }
        | Self::Removed { path, .. }) = self;
        path.parent().unwrap()
    }
}

impl PowerStorage {
    /// Stops the process behind so many more operations on names.
    pub(crate) fn stop_after(&self, operations: u64) {
        self.journal.lock().left = Some(operations);
    }

    /// Whether the process was stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        self.journal.lock().left == Some(0)
    }

    /// Cuts the power, and switches it on again: names are lost that weren't synced, in those folders that `loses`
    /// picks.
    pub(crate) fn cut_power(&self, loses: impl Fn(&Path) -> bool) {
        self.inner.heal();
        self.inner.reboot();
        let mut journal = self.journal.lock();
        journal.left = None;
        for change in std::mem::take(&mut journal.changes).into_iter().rev().filter(|change| loses(change.dir())) {
            // What isn't there any more was in a folder that lost its own name.
            let _ = match change {
                Change::Created(path) => self.inner.remove_file(&path),
                Change::MadeFolder(path) => self.inner.remove_dir_all(&path),
                Change::Removed { path, kept } => self.inner.rename(&kept, &path),
                Change::Renamed { from, to, replaced } => self
                    .inner
                    .rename(&to, &from)
                    .and_then(|()| replaced.map_or(Ok(()), |replaced| self.inner.rename(&replaced, &to))),
            };
        }
    }

    /// Does an operation on names, unless the process was stopped; answers a change to be remembered.
    fn change(&self, body: impl FnOnce(&mut Journal) -> io::Result<Option<Change>>) -> io::Result<()> {
        let mut journal = self.journal.lock();
        match &mut journal.left {
            Some(0) => {
                self.inner.fail_if(|_, _| Some(io::ErrorKind::Other));
                return Err(io::Error::other("the process was stopped"));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        let change = body(&mut journal)?;
        journal.changes.extend(change);
        if journal.left == Some(0) {
            self.inner.fail_if(|_, _| Some(io::ErrorKind::Other));
        }
        Ok(())
    }

    /// Puts something aside, to be there again when that wasn't durable.
    fn keep(&self, journal: &mut Journal, path: &Path) -> io::Result<PathBuf> {
        journal.kept += 1;
        let kept = PathBuf::from(format!("/kept/{}", journal.kept));
        self.inner.create_dir_all(Path::new("/kept"))?;
        self.inner.rename(path, &kept)?;
        Ok(kept)
    }
}

impl Storage for PowerStorage {
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(|_| self.inner.create_dir_all(path).map(|()| None))
    }

    fn create_dirs(&self, dir: &Path, names: &[String]) -> io::Result<()> {
        for path in names.iter().map(|name| dir.join(name)) {
            self.change(|_| {
                let is_new = self.inner.entry_kind(&path)?.is_none();
                self.inner.create_dir_all(&path)?;
                Ok(is_new.then_some(Change::MadeFolder(path)))
            })?;
        }
        self.sync_dir(dir)
    }

    fn entry_kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        self.inner.entry_kind(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(dir)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if matches!(mode, OpenMode::Read | OpenMode::ReadWrite) {
            return self.inner.open(path, mode);
        }
        let mut file = None;
        self.change(|_| {
            let is_new = self.inner.entry_kind(path)?.is_none();
            file = Some(self.inner.open(path, mode)?);
            Ok(is_new.then(|| Change::Created(path.into())))
        })?;
        Ok(file.unwrap())
    }

    fn reopen(&self, path: &Path, region: &Region) -> io::Result<Arc<dyn File>> {
        self.inner.reopen(path, region)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(|journal| {
            let replaced = match self.inner.entry_kind(to)? {
                Some(EntryKind::File) => Some(self.keep(journal, to)?),
                _ => None,
            };
            self.inner.rename(from, to)?;
            Ok(Some(Change::Renamed { from: from.into(), to: to.into(), replaced }))
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.change(|journal| {
            let kept = self.keep(journal, path)?;
            Ok(Some(Change::Removed { path: path.into(), kept }))
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.change(|journal| {
            let kept = self.keep(journal, path)?;
            Ok(Some(Change::Removed { path: path.into(), kept }))
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.change(|journal| {
            self.inner.sync_dir(path)?;
            journal.changes.retain(|change| change.dir() != path);
            Ok(None)
        })
    }

    fn lock_exclusive(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock_exclusive(path)
    }

    fn lock_shared(&self, path: &Path) -> io::Result<LockOutcome> {
        self.inner.lock_shared(path)
    }

    fn file_system(&self, path: &Path) -> io::Result<FileSystem> {
        self.inner.file_system(path)
    }
}

#[test]
fn names_that_were_not_synced_are_lost_by_folder() {
    let storage = PowerStorage::default();
    let (a, b) = (Path::new("/a"), Path::new("/b"));
    for dir in [a, b] {
        storage.create_dir_all(dir).unwrap();
        for name in ["stays", "goes"] {
            storage.open(&dir.join(name), OpenMode::CreateNew).unwrap().write_all_at(name.as_bytes(), 0).unwrap();
        }
        storage.sync_dir(dir).unwrap();
        storage.open(&dir.join("new"), OpenMode::CreateNew).unwrap();
        storage.remove_file(&dir.join("goes")).unwrap();
        storage.rename(&dir.join("stays"), &dir.join("renamed")).unwrap();
        storage.replace(dir, "temporary", "renamed", b"replaced").unwrap();
        storage.rename(&dir.join("renamed"), &dir.join("again")).unwrap();
    }
    let names = |dir| storage.list(dir).unwrap().into_iter().map(|entry| entry.name).collect::<Vec<_>>();
    storage.stop_after(1);
    storage.remove_file(&b.join("again")).unwrap();
    assert!(storage.is_stopped());
    storage.sync_dir(a).unwrap_err();
    storage.cut_power(|dir| dir == b);
    assert_eq!(names(a), ["again", "new"]);
    // What `replace` synced is durable, and all before it.
    assert_eq!(names(b), ["new", "renamed"]);
    assert_eq!(storage.read(&b.join("renamed"), 10).unwrap(), b"replaced");
    storage.rename(&b.join("renamed"), &b.join("new")).unwrap();
    storage.cut_power(|_| true);
    assert_eq!(storage.read(&b.join("new"), 10).unwrap(), b"");
    assert_eq!(storage.read(&b.join("renamed"), 10).unwrap(), b"replaced");
}
