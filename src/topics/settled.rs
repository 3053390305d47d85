//! Whether the names in the folders of the log and of its topics are known to be on the device.
//!
//! A process that is killed may leave a name that is in the page cache alone: a topic's file that was renamed into place,
//! or the folder of a partition, before the sync behind it. The next process sees the name, builds on it, and would lose
//! what it has built with the next power cut. So an open syncs both folders, which takes longer than all else that it
//! does; unless the *mark* is there, the empty file `processes/settled`. Then no name has changed since both were synced.
//!
//! # Invariants
//! - Before a name changes in either folder, the mark is removed; where it can't be, nothing changes. It is made when both
//!   folders were synced behind all changes: by an open, or by a close.
//! - The mark is never synced. In the boot that made it, all see it who see the names, and as it was changed. After a
//!   power cut it may be there or not: what names are left come from the device.
//!
//! # Thread safety
//! Belongs to who has the log's lock. Who changes names takes turns (see [`Topics`](super::Topics)).

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    error::{Error, Result},
    storage::{EntryKind, OpenMode, Storage},
};

/// The mark, in the folder of the log's locks.
const MARK: &str = "settled";

/// What is known of the names.
#[derive(Debug)]
pub(crate) struct Settled {
    storage: Arc<dyn Storage>,
    mark: PathBuf,
    is_settled: AtomicBool,
}

impl Settled {
    /// Looks for the mark in the folder of the log's locks, of which ours is held.
    pub(crate) fn look(storage: Arc<dyn Storage>, locks: &Path) -> Result<Self> {
        let mark = locks.join(MARK);
        let found = storage.entry_kind(&mark).map_err(|source| Error::io("look at", &mark, source))?;
        Ok(Self { storage, mark, is_settled: AtomicBool::new(found == Some(EntryKind::File)) })
    }

    /// Whether there is nothing to sync.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    /// To be called before a name changes; on an error, it mustn't.
    pub(crate) fn unsettle(&self) -> Result<()> {
        if self.is_settled() {
            self.storage.remove_if_there(&self.mark).map_err(|source| Error::io("remove", &self.mark, source))?;
            self.is_settled.store(false, Ordering::Relaxed);
        }
        Ok(())
    }

    /// To be called when both folders were synced since a name has changed. Where the mark can't be made, the next open
    /// syncs them again.
    pub(crate) fn settle(&self) {
        if !self.is_settled() {
            let made = self.storage.open(&self.mark, OpenMode::CreateNew);
            self.is_settled.store(made.is_ok(), Ordering::Relaxed);
        }
    }
}
