//! Steps: the moments at which a process may be stopped, or the power be cut.
//!
//! # Invariants
//! - There is a step behind every operation that changes something or syncs, whether it succeeded or not, and behind
//!   every single `put` of an encode into a region.
//! - Words that are stored through a region are found, and told as a step, when the next ones are asked for or
//!   anything else happens: before that, so in the order in which all was stored.
//! - A step is told with no lock of the storage held.
//!
//! # Thread safety
//! Any thread may call anything. Steps are numbered in the order in which they are told.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};

use super::{FileObserver, SimFile, SimStorage, blocks::BLOCK_BYTES, faults::Operation, node::FileNode};

/// What is called behind each step. It may call [`SimStorage::crash`], and nothing that works on this machine's files.
pub(crate) type StepHook = Arc<dyn Fn(&SimStorage, &Step<'_>) + Send + Sync>;

/// What has just been done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step<'a> {
    pub(crate) operation: Operation,
    pub(crate) path: &'a Path,
    /// Counted from 0 on, since the hook was set.
    pub(crate) number: u64,
}

/// The hook, and how often it was called.
#[derive(Default)]
pub(super) struct Steps {
    hook: RwLock<Option<StepHook>>,
    told: AtomicU64,
    /// Files into which words may be stored without a call.
    watched: Mutex<Vec<Weak<FileNode>>>,
}

impl SimStorage {
    /// Calls `hook` behind each step from now on; see [`StepHook`].
    pub(crate) fn on_step(&self, hook: Option<StepHook>) {
        *self.shared.steps.hook.write() = hook;
        self.shared.steps.told.store(0, Ordering::SeqCst);
    }

    /// Tells the hook of a step, unless nothing can have changed.
    pub(super) fn step(&self, operation: Operation, path: impl FnOnce() -> PathBuf) {
        if matches!(operation, Operation::Open | Operation::Map | Operation::StartWriteback) {
            return;
        }
        let Some(hook) = self.shared.steps.hook.read().clone() else { return };
        let number = self.shared.steps.told.fetch_add(1, Ordering::SeqCst);
        hook(self, &Step { operation, path: &path(), number });
    }

    /// Looks for words that were stored.
    pub(super) fn look(&self) {
        if self.shared.is_tracked {
            let mut watched = self.shared.steps.watched.lock();
            watched.retain(|node| node.strong_count() > 0);
            let nodes: Vec<_> = watched.iter().filter_map(Weak::upgrade).collect();
            drop(watched);
            nodes.iter().for_each(|node| self.look_at(node));
        }
    }

    fn look_at(&self, node: &FileNode) {
        if node.look() {
            self.step(Operation::Word, || node.path());
        }
    }
}

impl SimFile {
    /// Writes page by page, each a step of its own.
    pub(super) fn write_stepwise(&self, mut bytes: &[u8], mut position: u64) -> io::Result<()> {
        loop {
            let in_page = (BLOCK_BYTES - position % BLOCK_BYTES) as usize;
            let Some((page, rest)) = bytes.split_at_checked(in_page).filter(|(_, rest)| !rest.is_empty()) else {
                return self.node.write_all_at(bytes, position);
            };
            self.node.write_all_at(page, position)?;
            self.storage.step(Operation::Write, || self.node.path());
            bytes = rest;
            position = position.saturating_add(in_page as u64);
        }
    }
}

impl FileObserver {
    /// Bytes are going to be stored.
    pub(super) fn begin_put(&self, position: u64, len: usize) {
        self.node.set_stored(true);
        if self.storage.shared.is_tracked {
            self.storage.look();
            self.node.begin_put(position..position + len as u64);
        }
    }

    /// They have been.
    pub(super) fn end_put(&self, position: u64, len: usize) {
        if self.storage.shared.is_tracked {
            self.node.end_put(position..position + len as u64);
        }
        self.storage.step(Operation::Put, || self.node.path());
    }

    /// Words are going to be used. From now on the file is looked at.
    pub(super) fn look_at_words(&self) {
        if self.writable && self.storage.shared.is_tracked {
            self.storage.look_at(&self.node);
            if self.node.watch() {
                self.storage.shared.steps.watched.lock().push(Arc::downgrade(&self.node));
            }
        }
    }
}
