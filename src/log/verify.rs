//! Verifying a log: its own files, its topics' and all of their partitions, and what groups have committed.
//!
//! # Invariants
//! - Nothing is changed, created or removed: not a file, not a length, not a lock that wasn't there.
//! - A sound log has no finding; neither has one that others use meanwhile.
//!
//! # Thread safety
//! Any thread may verify, also several at a time.

use std::{ops::ControlFlow, path::Path, sync::Arc};

use super::{LOCK_FILE, LOCKS_DIR, Log, META_FILE, Meta, read_meta};
use crate::{
    background::Background,
    clock::Clock,
    config::LogOptions,
    error::{Error, ErrorKind, Repr, Result},
    group::{CommitsCheck, OFFSETS_TOPIC, PartitionId},
    housekeeper::Housekeeper,
    partition::Flusher,
    storage::{Lock, LockOutcome, Storage, fs::FsStorage, sim::SimStorage},
    topics::{ClosedPartition, Topics, file_finding, unless_deleted},
    verification::{Verification, VerifyFinding, VerifyProgress, VerifyReport},
};

impl Log {
    /// Reads everything that is there and checks that it is what was written. Changes nothing; others may append, read,
    /// commit, create and delete meanwhile.
    ///
    /// Read are, with plain reads, so that a device that doesn't give something is a finding and no signal: all records
    /// that were appended before this was called, with their checksums, order, times and links between segments; both
    /// indexes of each segment against them; checkpoints; the files of the log and of its topics; and what groups have
    /// committed. The report has what is wrong, each with file, position and offsets. [`LogOptions::repair`] mends what
    /// can be mended.
    ///
    /// What lies behind the end of the records, space of indexes that isn't used, and other files in the folder are
    /// nobody's concern. Memory doesn't grow with what is read.
    ///
    /// # Errors
    /// That something is damaged is no error. [`LimitReached`](crate::ErrorKind::LimitReached),
    /// [`Io`](crate::ErrorKind::Io) for a folder that can't be listed, [`Closed`](crate::ErrorKind::Closed).
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(|_| ControlFlow::Continue(()))
    }

    /// As [`verify`](Log::verify); `progress` is told how far it has come, about once in a mebibyte, and can end it. The
    /// report then has what was found until then ([`VerifyReport::is_complete`]).
    ///
    /// ```
    /// # use std::ops::ControlFlow;
    /// # fn main() -> tidelog::Result<()> {
    /// # let log = tidelog::Log::options().in_memory().open("shop")?;
    /// let report = log.verify_with(|progress| {
    ///     eprintln!("{} of {} bytes, in {}", progress.bytes, progress.total_bytes, progress.topic);
    ///     ControlFlow::Continue(())
    /// })?;
    /// # assert!(report.is_sound());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of `verify`.
    pub fn verify_with(&self, mut progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>) -> Result<VerifyReport> {
        self.check_open()?;
        let (topics, groups) = (&self.shared.topics, &self.shared.groups);
        let mut verification = Verification::new(&mut progress);
        check_meta(&*topics.environment().storage, &self.shared.path, &mut verification)?;
        topics.verify_files(&mut verification)?;
        let plans = topics.plan_verification(&mut verification)?;
        let commits = groups.partition().plan_verification(&mut verification)?;
        for plan in plans {
            if !verification.is_stopped() {
                unless_deleted(plan.run(&mut verification, None))?;
            }
        }
        if !verification.is_stopped() {
            let partition = commits.partition().clone();
            let mut check = CommitsCheck::new(partition.dir().to_owned());
            let was_whole = commits.run(&mut verification, Some(&mut |seen| check.see(seen)))?;
            let needs_snapshot = was_whole && partition.start_offset() > 0;
            let known = topics.select(|_| true);
            let end_of = |place: PartitionId| {
                let topic = known.iter().find(|topic| topic.id == place.topic_id)?;
                let partition = topic.partitions.get(place.partition)?;
                partition.check_exists().ok()?;
                Some((topic.name.to_string(), partition.settled_end_offset()))
            };
            if !verification.is_stopped() {
                check.finish(needs_snapshot, &end_of, &mut verification);
            }
        }
        self.check_open()?;
        verification.tell();
        verification.finish()
    }
}

impl LogOptions {
    /// Verifies the log in a folder that nobody has open; see [`Log::verify`]. The folder is left as it is: it isn't
    /// recovered, and no file is made or changed. While this reads, nobody can open it.
    ///
    /// Told is also what the next open would do: a torn tail that it would cut
    /// ([`VerifyFinding::TornTail`]), a checkpoint of which one slot is lost, a folder that is missing. A log whose process
    /// was killed is sound as long as the machine has kept running.
    ///
    /// ```no_run
    /// # fn main() -> tidelog::Result<()> {
    /// for finding in tidelog::Log::options().verify("data")?.findings() {
    ///     println!("{finding}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// - [`Locked`](crate::ErrorKind::Locked): somebody has it open.
    /// - [`NotADirectory`](crate::ErrorKind::NotADirectory), [`UnsupportedFormat`](crate::ErrorKind::UnsupportedFormat),
    ///   [`InvalidConfig`](crate::ErrorKind::InvalidConfig), as for [`Log::open`].
    /// - [`Io`](crate::ErrorKind::Io): there is no such folder, or a folder in it can't be listed.
    /// - [`LimitReached`](crate::ErrorKind::LimitReached).
    pub fn verify(self, path: impl AsRef<Path>) -> Result<VerifyReport> {
        self.verify_with(path, |_| ControlFlow::Continue(()))
    }

    /// As [`verify`](LogOptions::verify); `progress` is told how far it has come, and can end it.
    ///
    /// # Errors
    /// Those of `verify`.
    pub fn verify_with(
        self,
        path: impl AsRef<Path>,
        mut progress: impl FnMut(&VerifyProgress) -> ControlFlow<()>,
    ) -> Result<VerifyReport> {
        let mut verification = Verification::new(&mut progress);
        let storage = self.storage();
        self.verify_on(path.as_ref(), storage, &mut verification)?;
        verification.finish()
    }

    /// The storage that the options name.
    pub(super) fn storage(&self) -> Arc<dyn Storage> {
        if self.in_memory { Arc::new(SimStorage::default()) } else { Arc::new(FsStorage) }
    }

    /// Verifies a log on the given storage.
    pub(crate) fn verify_on(
        self,
        path: &Path,
        storage: Arc<dyn Storage>,
        verification: &mut Verification<'_>,
    ) -> Result<()> {
        self.validate()?;
        check_folder(&*storage, path)?;
        let _lock = share_lock(&*storage, path)?;
        self.verify_locked(path, storage, verification)
    }

    /// The same where the caller has a lock.
    pub(super) fn verify_locked(
        self,
        path: &Path,
        storage: Arc<dyn Storage>,
        verification: &mut Verification<'_>,
    ) -> Result<()> {
        check_meta(&*storage, path, verification)?;
        let topics = self.closed_topics(path, storage)?;
        let files = topics.check_files(verification)?;
        let plans = topics.plan_closed(&files, verification)?;
        let mut commits = None;
        for ClosedPartition { spec, dir, plan } in &plans {
            if verification.is_stopped() {
                return Ok(());
            }
            if &*spec.topic == OFFSETS_TOPIC {
                let mut check = CommitsCheck::new(dir.clone());
                plan.run(verification, Some(&mut |seen| check.see(seen)));
                commits = Some((check, plan.begins_late()));
            } else {
                plan.run(verification, None);
            }
        }
        if let Some((check, needs_snapshot)) = commits.filter(|_| !verification.is_stopped()) {
            check.finish(needs_snapshot, &|place| end_of(&plans, place), verification);
        }
        verification.tell();
        Ok(())
    }

    /// The topics in a folder that nobody has open.
    pub(super) fn closed_topics(&self, path: &Path, storage: Arc<dyn Storage>) -> Result<Topics> {
        let (flusher, housekeeper) = (Flusher::new(Background::Stepped), Housekeeper::new(Background::Stepped));
        let env = self.environment(path, storage, Clock::System, false, flusher, housekeeper);
        Ok(Topics::closed(env, path, self))
    }
}

/// Name and log end offset of a partition.
fn end_of(plans: &[ClosedPartition], place: PartitionId) -> Option<(String, u64)> {
    let is_it =
        |found: &&ClosedPartition| (found.spec.topic_id, found.spec.number) == (place.topic_id, place.partition);
    plans.iter().find(is_it).map(|found| (found.spec.topic.to_string(), found.plan.end_offset()))
}

/// Refuses what isn't a folder, and the folder of a newer version.
pub(super) fn check_folder(storage: &dyn Storage, path: &Path) -> Result<()> {
    // It may be a link to one.
    storage.list(path).map_err(|source| Error::io("look at", path, source))?;
    match read_meta(storage, path) {
        Err(error) if error.kind() == ErrorKind::UnsupportedFormat => Err(error),
        _ => Ok(()),
    }
}

/// Keeps everybody from opening the log; `None` where nobody ever had it open.
fn share_lock(storage: &dyn Storage, path: &Path) -> Result<Option<Lock>> {
    let file = path.join(LOCKS_DIR).join(LOCK_FILE);
    match storage.lock_shared(&file) {
        Ok(LockOutcome::Acquired(lock)) => Ok(Some(lock)),
        Ok(LockOutcome::Held(process_id)) => Err(Repr::Locked { path: path.into(), process_id }.into()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::io("lock", file, source)),
    }
}

/// Tells what is wrong with the file that says what the folder is.
fn check_meta(storage: &dyn Storage, path: &Path, verification: &mut Verification<'_>) -> Result<()> {
    let file = path.join(META_FILE);
    match read_meta(storage, path) {
        Ok(Some(Meta { .. })) => {}
        Ok(None) => verification.find(VerifyFinding::File { file, detail: "it is missing".into() }),
        Err(error) => verification.find(file_finding(file, error)?),
    }
    Ok(())
}
