//! Which operations are to fail, and which there were. For this crate's tests; in other builds it is nothing.
//!
//! # Invariant
//! An operation that is made to fail changes nothing, unless it is to be a [`Fault::Short`] one, or a sync: what that
//! was to write counts as clean.
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
    /// Words were stored through a region. As `Put`.
    #[cfg(any(test, fuzzing))]
    Word,
}

/// What only reads, and may fail too. Counted on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reading {
    /// `open` for reading.
    Open,
    ReadAt,
    List,
    EntryKind,
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
        _failed: impl FnOnce(bool),
    ) -> io::Result<T> {
        body()
    }

    /// An error if the reading is to fail.
    pub(super) fn check_read(&self, _reading: Reading, _path: impl FnOnce() -> PathBuf) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(any(test, fuzzing))]
pub(crate) use plan::{Fault, Performed, Repeat, WillFail};

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

    /// How an operation fails.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// Nothing is done.
        Whole(io::ErrorKind),
        /// Half of a write or reservation is done first. What else there is can only fail as a whole.
        Short(io::ErrorKind),
    }

    impl From<io::ErrorKind> for Fault {
        fn from(kind: io::ErrorKind) -> Self {
            Self::Whole(kind)
        }
    }

    /// What may still fail.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub(crate) struct WillFail {
        /// What changes something. Maps count as that, so reads that open a file may fail with it.
        pub(crate) changes: bool,
        pub(crate) readings: bool,
        pub(crate) syncs: bool,
    }

    impl WillFail {
        pub(crate) fn anything(self) -> bool {
            self.changes || self.readings || self.syncs
        }

        /// Whether something may that is done in order to read.
        pub(crate) fn reads(self) -> bool {
            self.changes || self.readings
        }
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
    type Choose<T> = Box<dyn FnMut(T, &Path) -> Option<io::ErrorKind> + Send>;

    #[derive(Default)]
    pub(super) struct Plan {
        nth: Option<Nth>,
        choose: Option<Choose<Operation>>,
        nth_reading: Option<Nth>,
        choose_reading: Option<Choose<Reading>>,
        failing_syncs: u64,
        out_of_files: bool,
        drops_failed_pages: bool,
        operations: u64,
        readings: u64,
        trace: Vec<Performed>,
    }

    struct Nth {
        /// Operations that still succeed.
        before: u64,
        fault: Fault,
        repeat: Repeat,
    }

    /// The fault of the next one, if it is its turn.
    fn next(nth: &mut Option<Nth>) -> Option<Fault> {
        let planned = nth.as_mut()?;
        if planned.before > 0 {
            planned.before -= 1;
            return None;
        }
        let fault = planned.fault;
        if planned.repeat == Repeat::Once {
            *nth = None;
        }
        Some(fault)
    }

    /// What an operation answers that is to fail, and whether half of it is done.
    type Failure = (io::Error, bool);

    impl Plan {
        /// Counts an operation; an error if it is to fail.
        fn begin(&mut self, operation: Operation, path: &Path) -> Result<(), Failure> {
            self.operations += 1;
            if matches!(operation, Operation::Open | Operation::Create | Operation::SyncDir) {
                self.check_files().map_err(|error| (error, false))?;
            }
            let chosen = |choose: &mut Choose<Operation>| choose(operation, path).map(Fault::Whole);
            if let Some(fault) = next(&mut self.nth).or_else(|| self.choose.as_mut().and_then(chosen)) {
                let (Fault::Whole(kind) | Fault::Short(kind)) = fault;
                let error = io::Error::new(kind, format!("simulated failure of {operation:?}"));
                return Err((error, matches!(fault, Fault::Short(_))));
            }
            if matches!(operation, Operation::SyncData | Operation::SyncAll) && self.failing_syncs > 0 {
                if self.failing_syncs != u64::MAX {
                    self.failing_syncs -= 1;
                }
                return Err((io::Error::other("simulated failure of the device"), false));
            }
            Ok(())
        }

        /// Counts a reading; an error if it is to fail.
        fn begin_reading(&mut self, reading: Reading, path: &Path) -> io::Result<()> {
            self.readings += 1;
            if reading == Reading::Open {
                self.check_files()?;
            }
            let chosen = |choose: &mut Choose<Reading>| choose(reading, path).map(Fault::Whole);
            match next(&mut self.nth_reading).or_else(|| self.choose_reading.as_mut().and_then(chosen)) {
                Some(Fault::Whole(kind) | Fault::Short(kind)) => {
                    Err(io::Error::new(kind, format!("simulated failure of {reading:?}")))
                }
                None => Ok(()),
            }
        }

        fn check_files(&self) -> io::Result<()> {
            if self.out_of_files { Err(io::Error::from_raw_os_error(OUT_OF_FILES)) } else { Ok(()) }
        }
    }

    #[cfg_attr(fuzzing, allow(dead_code, reason = "fuzz targets use a part of what tests do"))]
    impl Faults {
        /// Runs the operation unless it is to fail, and writes it down. If it is, `failed` is told whether half of it is
        /// done.
        pub(in super::super) fn run<T>(
            &self,
            operation: Operation,
            path: impl FnOnce() -> PathBuf,
            body: impl FnOnce() -> io::Result<T>,
            failed: impl FnOnce(bool),
        ) -> io::Result<T> {
            let path = path();
            let planned = self.plan.lock().begin(operation, &path);
            let outcome = match planned {
                Ok(()) => body(),
                Err((error, in_part)) => {
                    failed(in_part);
                    Err(error)
                }
            };
            self.plan.lock().trace.push(Performed { operation, path, succeeded: outcome.is_ok() });
            outcome
        }

        /// An error if the reading is to fail.
        pub(in super::super) fn check_read(&self, reading: Reading, path: impl FnOnce() -> PathBuf) -> io::Result<()> {
            self.plan.lock().begin_reading(reading, &path())
        }

        pub(in super::super) fn fail_nth(&self, n: u64, fault: Fault, repeat: Repeat) {
            self.plan.lock().nth = Some(Nth { before: n.saturating_sub(1), fault, repeat });
        }

        pub(in super::super) fn fail_if(&self, choose: Choose<Operation>) {
            self.plan.lock().choose = Some(choose);
        }

        pub(in super::super) fn fail_nth_reading(&self, n: u64, kind: io::ErrorKind, repeat: Repeat) {
            let fault = Fault::Whole(kind);
            self.plan.lock().nth_reading = Some(Nth { before: n.saturating_sub(1), fault, repeat });
        }

        pub(in super::super) fn fail_readings_if(&self, choose: Choose<Reading>) {
            self.plan.lock().choose_reading = Some(choose);
        }

        pub(in super::super) fn drop_failed_pages(&self, drops: bool) {
            self.plan.lock().drops_failed_pages = drops;
        }

        pub(in super::super) fn drops_failed_pages(&self) -> bool {
            self.plan.lock().drops_failed_pages
        }

        pub(in super::super) fn readings(&self) -> u64 {
            self.plan.lock().readings
        }

        pub(in super::super) fn fail_syncs(&self, count: u64) {
            self.plan.lock().failing_syncs = count;
        }

        pub(in super::super) fn run_out_of_files(&self, out: bool) {
            self.plan.lock().out_of_files = out;
        }

        pub(in super::super) fn will_fail(&self) -> WillFail {
            let plan = self.plan.lock();
            let (changes, readings) = (plan.nth.is_some(), plan.nth_reading.is_some());
            WillFail { changes, readings, syncs: plan.failing_syncs > 0 }
        }

        pub(in super::super) fn heal(&self) {
            let mut plan = self.plan.lock();
            plan.out_of_files = false;
            plan.nth = None;
            plan.choose = None;
            plan.nth_reading = None;
            plan.choose_reading = None;
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
