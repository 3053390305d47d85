//! Crashes: what the next process finds.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Machine, Shared, SimStorage};
use crate::random::Sequence;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process was killed: everything is as it was stored, same boot, same mount. What wasn't synced isn't: a
    /// power cut that follows may still take it.
    Kill,
    /// The power was cut: another boot. Of what wasn't synced, any part may be there.
    Power,
    /// The file system was shut down by force and mounted again in the same boot: as [`Power`](Crash::Power) but for
    /// the boot id.
    Remount,
}

impl SimStorage {
    /// A machine that keeps what [`Power`](Crash::Power) may take: without it everything counts as durable at once.
    pub(crate) fn tracked() -> Self {
        Self::default()
    }

    /// What the next process finds: a machine of its own, that has nothing in common with this one, which goes on
    /// undisturbed. Locks are free, nothing fails, and no hook is set.
    pub(crate) fn crash(&self, crash: Crash, _choices: &mut Sequence) -> SimStorage {
        let space = Arc::default();
        let tree = Mutex::new(self.shared.tree.lock().copy(&space));
        let machine = Mutex::new(self.shared.machine.lock().after(crash));
        SimStorage { shared: Arc::new(Shared { tree, space, machine, ..Shared::default() }) }
    }

    /// A hash of names, lengths and contents, of the whole machine: equal images have equal hashes.
    pub(crate) fn image_hash(&self) -> u64 {
        self.shared.tree.lock().hash()
    }
}

impl Machine {
    fn after(&self, crash: Crash) -> Self {
        Self {
            boots: self.boots + u64::from(crash == Crash::Power),
            mounts: self.mounts + u64::from(crash != Crash::Kill),
            file_system: self.file_system.clone(),
        }
    }
}
