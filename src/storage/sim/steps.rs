//! Steps: the moments at which a process may be stopped, or the power be cut.
//!
//! # Invariants
//! - There is a step behind every operation that changes something or syncs, whether it succeeded or not, and behind
//!   every single `put` of an encode into a region.
//! - A step is told with no lock of the storage held.
//!
//! # Thread safety
//! Any thread may call anything. Steps are numbered in the order in which they are told.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

use super::{SimStorage, faults::Operation};

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
}

impl SimStorage {
    /// Calls `hook` behind each step from now on; see [`StepHook`].
    pub(crate) fn on_step(&self, hook: Option<StepHook>) {
        *self.shared.steps.hook.write() = hook;
        self.shared.steps.told.store(0, Ordering::SeqCst);
    }

    /// Tells the hook of a step.
    pub(super) fn step(&self, operation: Operation, path: impl FnOnce() -> PathBuf) {
        let Some(hook) = self.shared.steps.hook.read().clone() else { return };
        let number = self.shared.steps.told.fetch_add(1, Ordering::SeqCst);
        hook(self, &Step { operation, path: &path(), number });
    }
}
