//! Repairing a log that nobody has open: what a user asks for.
//!
//! # Steps
//! 1. Everything is read, as by a verification. Where the device doesn't give something, nothing is done: what can be read
//!    should be copied to another device first. (Where it fails later on, it ends there.)
//! 2. The log is opened and closed. That recovers it as any open does: a torn tail is cut, after a copy; what wasn't known
//!    to be durable is written anew; a checkpoint is mended. Groups whose commits can't be told in full go on from what is
//!    left of them, and that is written down.
//! 3. Each partition is mended ([`partition::repair`](mod@crate::partition::repair)).
//! 4. Everything is read again: what is left is told.
//!
//! # Invariants
//! - The lock is held from step 2 to step 4.
//! - Stopping anywhere and doing it again comes to the same, as each step does.
//!
//! # Thread safety
//! One at a time, by the lock.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use super::verify::check_folder;
use crate::{
    background::Background,
    clock::Clock,
    config::LogOptions,
    error::Result,
    partition::{RepairAction, repair},
    report::RecoveryReport,
    storage::{Lock, Storage},
    topics::ClosedPartition,
    verification::{Verification, VerifyReport},
};

/// What [`LogOptions::repair`] found and did.
#[derive(Debug, Clone)]
pub struct RepairReport {
    recovery: RecoveryReport,
    actions: Vec<RepairAction>,
    after: VerifyReport,
}

impl RepairReport {
    /// What opening the log found, and did about it.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.recovery
    }

    /// What was done beyond that, in order.
    pub fn actions(&self) -> &[RepairAction] {
        &self.actions
    }

    /// What a verification says now: its findings are what couldn't be mended.
    pub fn after(&self) -> &VerifyReport {
        &self.after
    }

    /// Whether there was nothing to mend.
    pub fn is_idle(&self) -> bool {
        self.actions.is_empty() && self.recovery.is_clean()
    }
}

impl LogOptions {
    /// Mends the log in a folder that nobody has open, as far as that is possible:
    ///
    /// - A torn tail is cut after a copy, and whatever else an open does ([`Log::recovery`](crate::Log::recovery)) is done.
    /// - Damaged records are set aside: their bytes are copied to `<base offset>.damaged-<position>` beside the segment,
    ///   and the place is marked as empty. Their offsets are a gap from then on, which readers and consumers pass over
    ///   without an error. Every other record stays as it is, at its offset.
    /// - A damaged copy of a segment's header is written anew from the other one, damaged indexes are made anew.
    /// - If what groups have committed is damaged, they go on from what could be read, and that is written down.
    ///
    /// What can't be mended stays as it is and is told by [`RepairReport::after`]: a segment of which both headers are
    /// damaged, one that is missing, a topic's file. It can be stopped and repeated at any time; a second repair does
    /// nothing. Copy the folder first if you can.
    ///
    /// ```no_run
    /// # fn main() -> tidelog::Result<()> {
    /// let report = tidelog::Log::options().repair("data")?;
    /// for action in report.actions() {
    ///     println!("{action}");
    /// }
    /// println!("now {}", if report.after().is_sound() { "sound" } else { "not sound" });
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`Locked`](crate::ErrorKind::Locked): somebody has it open.
    /// - Those of [`Log::open`](crate::Log::open): a log that can't be opened, for a topic's file that is damaged, can't be
    ///   repaired either.
    /// - [`Io`](crate::ErrorKind::Io): the device doesn't give something. Nothing was done, unless it gave that at first.
    ///   Or a write or sync failed.
    /// - [`StorageFull`](crate::ErrorKind::StorageFull): there is no space for a copy.
    pub fn repair(self, path: impl AsRef<Path>) -> Result<RepairReport> {
        let storage = self.storage();
        self.repair_on(path.as_ref(), storage, Clock::System)
    }

    /// Repairs a log on the given storage.
    pub(crate) fn repair_on(self, path: &Path, storage: Arc<dyn Storage>, clock: Clock) -> Result<RepairReport> {
        let options = Self { background: Background::Stepped, ..self };
        options.validate()?;
        check_folder(&*storage, path)?;
        let mut ignore = |_: &_| ControlFlow::Continue(());
        let mut before = Verification::new(&mut ignore);
        options.clone().verify_on(path, storage.clone(), &mut before)?;
        before.finish_readable()?;
        let (lock, recovery, mut actions) = options.recover(path, storage.clone(), clock)?;
        let topics = options.closed_topics(path, storage.clone())?;
        let mut found = Verification::new(&mut ignore);
        let files = topics.check_files(&mut found)?;
        let partitions = topics.plan_closed(&files, &mut found)?;
        found.finish_readable()?;
        for ClosedPartition { spec, dir, .. } in partitions {
            actions.extend(repair(topics.environment(), &dir, &spec)?);
        }
        let mut after = Verification::new(&mut ignore);
        options.verify_locked(path, storage, &mut after)?;
        drop(lock);
        Ok(RepairReport { recovery, actions, after: after.finish()? })
    }

    /// Opens and closes the log. Answers its lock, which is still held, what was found, and what was done.
    fn recover(
        &self,
        path: &Path,
        storage: Arc<dyn Storage>,
        clock: Clock,
    ) -> Result<(Option<Lock>, RecoveryReport, Vec<RepairAction>)> {
        let log = self.clone().open_on(path, storage, clock)?;
        let groups = &log.shared.groups;
        let mut actions = Vec::new();
        if groups.mend()? {
            actions.push(RepairAction::CommitsWritten { folder: groups.partition().dir().into() });
        }
        let recovery = log.recovery().clone();
        let (lock, closed) = log.shared.end();
        closed?;
        Ok((lock, recovery, actions))
    }
}
