//! What this crate's tests do to a machine, and ask of it.
//!
//! # Thread safety
//! Any thread may call anything.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Performed, Repeat, SimStorage, StoreObserver,
    faults::{Fault, Operation, Reading, WillFail},
};
use crate::storage::{FileSystem, FileSystemClass};

#[cfg_attr(fuzzing, allow(dead_code, reason = "fuzz targets use a part of what tests do"))]
impl SimStorage {
    /// Makes the `n`th operation from now on that changes something fail; the next one is the first. Counted is every
    /// [`Operation`]. Replaces what an earlier call had asked for.
    pub(crate) fn fail_nth(&self, n: u64, fault: impl Into<Fault>, repeat: Repeat) {
        self.shared.faults.fail_nth(n, fault.into(), repeat);
    }

    /// Makes the `n`th [`Reading`] from now on fail with `kind`. Counted apart from what changes something.
    pub(crate) fn fail_nth_reading(&self, n: u64, kind: io::ErrorKind, repeat: Repeat) {
        self.shared.faults.fail_nth_reading(n, kind, repeat);
    }

    /// Makes every reading fail for which `choose` gives a kind, as [`fail_if`](SimStorage::fail_if).
    pub(crate) fn fail_readings_if(
        &self,
        choose: impl FnMut(Reading, &Path) -> Option<io::ErrorKind> + Send + 'static,
    ) {
        self.shared.faults.fail_readings_if(Box::new(choose));
    }

    /// Whether the pages that a failed sync was to write are dropped from the cache: then reads find what the device
    /// had. On a machine that isn't tracked they never are.
    pub(crate) fn drop_failed_pages(&self, drops: bool) {
        self.shared.faults.drop_failed_pages(drops);
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

    /// What may fail from now on of all that was asked for by number; space apart.
    pub(crate) fn will_fail(&self) -> WillFail {
        self.shared.faults.will_fail()
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

    /// Files are cached in pages of so many bytes: a store into a region of a tracked storage takes the space of a whole
    /// one.
    pub(crate) fn set_page_limit(&self, bytes: u64) {
        self.shared.space.set_page_limit(bytes);
    }

    /// Bytes written or reserved, by blocks.
    pub(crate) fn used_space(&self) -> u64 {
        self.shared.space.used()
    }

    /// How many operations there were that change something, failed ones counted in.
    pub(crate) fn operations(&self) -> u64 {
        self.shared.faults.operations()
    }

    /// How many readings there were, failed ones counted in.
    pub(crate) fn readings(&self) -> u64 {
        self.shared.faults.readings()
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
