//! Which operations are to fail, and which there were. For this crate's tests; in other builds it is nothing.
//!
//! # Invariant
//! An operation that is made to fail changes nothing.
//!
//! # Thread safety
//! Any thread may call anything. The plan's lock isn't held while an operation runs, so what several threads do at
//! once is written down in the order in which it ended.

use std::{io, path::PathBuf};

/// What changes something, or may fail where something was going to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// `create_dir_all`, also of folders that exist.
    CreateDir,
    /// `open` of a file that is there, for writing.
    Open,
    /// `open` that creates or empties.
    Create,
    SetLen,
    Write,
    Reserve,
    StartWriteback,
    SyncData,
    SyncAll,
    Map,
    /// `rename`; its path is the new one.
    Rename,
    RemoveFile,
    /// `remove_dir_all`.
    RemoveDir,
    SyncDir,
    /// `lock_exclusive`, also of a lock that is held.
    Lock,
    /// One `put` of an encode into a region. Told as a step; it can't fail and isn't counted.
    #[cfg(any(test, fuzzing))]
    Put,
}

/// The plan of failures, and the trace.
#[derive(Default)]
pub(super) struct Faults {
    #[cfg(any(test, fuzzing))]
    plan: parking_lot::Mutex<plan::Plan>,
}

#[cfg(not(any(test, fuzzing)))]
impl Faults {
    /// Runs the operation.
    pub(super) fn run<T>(
        &self,
        _operation: Operation,
        _path: impl FnOnce() -> PathBuf,
        body: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        body()
    }

    /// An error if no file can be opened, not even for reading.
    pub(super) fn check_files(&self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) use plan::{Performed, Repeat};

#[cfg(any(test, fuzzing))]
mod plan {
    use std::path::Path;

    use super::*;

    /// How long what began to fail goes on failing.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Repeat {
        Once,
        /// Until [`heal`](super::super::SimStorage::heal).
        Forever,
    }

    /// An operation that there was.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Performed {
        pub(crate) operation: Operation,
        pub(crate) path: PathBuf,
        /// A sync that failed has made nothing durable, and none that follows makes durable what it was to.
        pub(crate) succeeded: bool,
    }

    /// `EMFILE`; `ERROR_TOO_MANY_OPEN_FILES`.
    const OUT_OF_FILES: i32 = if cfg!(windows) { 4 } else { 24 };

    /// Picks operations to fail.
    type Choose = Box<dyn FnMut(Operation, &Path) -> Option<io::ErrorKind> + Send>;

    #[derive(Default)]
    pub(super) struct Plan {
        nth: Option<Nth>,
        choose: Option<Choose>,
        failing_syncs: u64,
        out_of_files: bool,
        operations: u64,
        trace: Vec<Performed>,
    }

    struct Nth {
        /// Operations that still succeed.
        before: u64,
        kind: io::ErrorKind,
        repeat: Repeat,
    }

    impl Plan {
        /// Counts an operation; an error if it is to fail.
        fn begin(&mut self, operation: Operation, path: &Path) -> io::Result<()> {
            self.operations += 1;
            if matches!(operation, Operation::Open | Operation::Create | Operation::SyncDir) {
                self.check_files()?;
            }
            if let Some(kind) = self.nth_failure().or_else(|| self.choose.as_mut()?(operation, path)) {
                return Err(io::Error::new(kind, format!("simulated failure of {operation:?}")));
            }
            if matches!(operation, Operation::SyncData | Operation::SyncAll) && self.failing_syncs > 0 {
                if self.failing_syncs != u64::MAX {
                    self.failing_syncs -= 1;
                }
                return Err(io::Error::other("simulated failure of the device"));
            }
            Ok(())
        }

        fn check_files(&self) -> io::Result<()> {
            if self.out_of_files { Err(io::Error::from_raw_os_error(OUT_OF_FILES)) } else { Ok(()) }
        }

        fn nth_failure(&mut self) -> Option<io::ErrorKind> {
            let nth = self.nth.as_mut()?;
            if nth.before > 0 {
                nth.before -= 1;
                return None;
            }
            let kind = nth.kind;
            if nth.repeat == Repeat::Once {
                self.nth = None;
            }
            Some(kind)
        }
    }

    impl Faults {
        /// Runs the operation unless it is to fail, and writes it down.
        pub(in super::super) fn run<T>(
            &self,
            operation: Operation,
            path: impl FnOnce() -> PathBuf,
            body: impl FnOnce() -> io::Result<T>,
        ) -> io::Result<T> {
            let path = path();
            let planned = self.plan.lock().begin(operation, &path);
            let outcome = planned.and_then(|()| body());
            self.plan.lock().trace.push(Performed { operation, path, succeeded: outcome.is_ok() });
            outcome
        }

        pub(in super::super) fn check_files(&self) -> io::Result<()> {
            self.plan.lock().check_files()
        }

        pub(in super::super) fn fail_nth(&self, n: u64, kind: io::ErrorKind, repeat: Repeat) {
            self.plan.lock().nth = Some(Nth { before: n.saturating_sub(1), kind, repeat });
        }

        pub(in super::super) fn fail_if(&self, choose: Choose) {
            self.plan.lock().choose = Some(choose);
        }

        pub(in super::super) fn fail_syncs(&self, count: u64) {
            self.plan.lock().failing_syncs = count;
        }

        pub(in super::super) fn run_out_of_files(&self, out: bool) {
            self.plan.lock().out_of_files = out;
        }

        pub(in super::super) fn heal(&self) {
            let mut plan = self.plan.lock();
            plan.out_of_files = false;
            plan.nth = None;
            plan.choose = None;
            plan.failing_syncs = 0;
        }

        pub(in super::super) fn operations(&self) -> u64 {
            self.plan.lock().operations
        }

        pub(in super::super) fn take_trace(&self) -> Vec<Performed> {
            std::mem::take(&mut self.plan.lock().trace)
        }
    }
}
