//! Whether the names in the folders of the log and of its topics are known to be on the device.
//!
//! A process that is killed may leave a name that is in the page cache alone: a topic's file that was renamed into place,
//! or the folder of a partition, before the sync behind it. The next process sees the name, builds on it, and would lose
//! what it has built with the next power cut. So an open syncs both folders, which takes longer than all else that it
//! does; unless the *mark* is there, the file `processes/settled`. Then no name has changed since both were synced.
//!
//! # Invariants
//! - Before a name changes in either folder, the mark is removed; where it can't be, nothing changes. (Temporary files come
//!   and go: nothing is built on them.) It is made behind a sync of both folders, by an open or by a close, with no change
//!   in between.
//! - The mark holds its own [identity](FileIdentity), and is believed only while it is that file: not in a copy of the
//!   folder, whose names nobody has synced, and not in another boot or mount.
//! - Behind a sync of either folder that has failed, or a change that may have failed in one, none is made by the same
//!   process: a sync that succeeds then may tell nothing of what the failed one was to write.
//! - The mark is never synced. In the boot that made it, all see it who see the names, and as it was changed.
//!
//! # Thread safety
//! Belongs to who has the log's lock, for itself alone. Who changes names takes turns (see [`Topics`](super::Topics)).

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    error::{Error, Result},
    storage::{EntryKind, FileIdentity, OpenMode, Storage},
};

/// The mark, in the folder of the log's locks.
const MARK: &str = "settled";

/// What is known of the names.
#[derive(Debug)]
pub(crate) struct Settled {
    storage: Arc<dyn Storage>,
    mark: PathBuf,
    is_settled: AtomicBool,
    /// A sync has failed.
    in_doubt: AtomicBool,
}

impl Settled {
    /// Looks for the mark in the folder of the log's locks, of which ours is held.
    pub(crate) fn look(storage: Arc<dyn Storage>, locks: &Path) -> Result<Self> {
        let mark = locks.join(MARK);
        let found = storage.entry_kind(&mark).map_err(|source| Error::io("look at", &mark, source))?;
        // One that can't be read is none.
        let is_settled = found == Some(EntryKind::File) && is_itself(&*storage, &mark).unwrap_or(false);
        Ok(Self { storage, mark, is_settled: is_settled.into(), in_doubt: AtomicBool::new(false) })
    }

    /// Whether there is nothing to sync.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_settled.load(Ordering::Relaxed)
    }

    /// To be called before a name changes; on an error, it mustn't.
    pub(crate) fn unsettle(&self) -> Result<()> {
        // Also where there is none, as far as is known: one that couldn't be made may be there all the same.
        self.storage.remove_if_there(&self.mark).map_err(|source| Error::io("remove", &self.mark, source))?;
        self.is_settled.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// To be called when a sync of one of the folders has failed, or a change that makes one.
    pub(crate) fn doubt(&self) {
        self.in_doubt.store(true, Ordering::Relaxed);
    }

    /// To be called when both folders were synced since a name has changed. Where the mark can't be made, the next open
    /// syncs them again.
    pub(crate) fn settle(&self) {
        if self.is_settled() || self.in_doubt.load(Ordering::Relaxed) {
            return;
        }
        let is_made = self.make().unwrap_or(false);
        if !is_made {
            let _ = self.storage.remove_if_there(&self.mark);
        }
        self.is_settled.store(is_made, Ordering::Relaxed);
    }

    /// False where the system can't tell who a file is.
    fn make(&self) -> io::Result<bool> {
        // One that isn't believed, and another file.
        self.storage.remove_if_there(&self.mark)?;
        let file = self.storage.open(&self.mark, OpenMode::CreateNew)?;
        match file.identity()? {
            Some(identity) => file.write_all_at(&bytes_of(&identity), 0).map(|()| true),
            None => Ok(false),
        }
    }
}

/// Whether a mark is the file that it says it is.
fn is_itself(storage: &dyn Storage, mark: &Path) -> io::Result<bool> {
    let file = storage.open(mark, OpenMode::Read)?;
    let Some(identity) = file.identity()? else { return Ok(false) };
    let expected = bytes_of(&identity);
    let mut found = vec![0; expected.len()];
    Ok(file.len()? == expected.len() as u64 && file.read_at(&mut found, 0)? == found.len() && found == expected)
}

/// What a mark holds. It means nothing to another boot, so its form needs no version.
fn bytes_of(identity: &FileIdentity) -> Vec<u8> {
    let FileIdentity { boot_id, mount_id, device, inode, birth_ns } = identity;
    let numbers = [mount_id, device, inode].into_iter().flat_map(|number| number.to_le_bytes());
    boot_id.iter().copied().chain(numbers).chain(birth_ns.to_le_bytes()).collect()
}
