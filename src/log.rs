//! The log as a whole: opening, closing, its topics.
//!
//! # Format
//! `tidelog.meta`, a JSON file: format version, and the time of creation in ms since the Unix epoch. It is read before
//! anything else is touched, so that a folder of a newer version stays as it is.
//!
//! # Invariants
//! - The lock on `processes/exclusive` is held from before the first file is opened until after the last one is closed.
//! - Handles keep [`Shared`] alive; nothing that `Shared` holds does: no cycle.
//!
//! # Thread safety
//! Any thread may call anything.

mod admin;
mod describe;
#[cfg(feature = "metrics")]
mod gauges;
mod groups;
mod repair;
mod verify;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

pub use describe::{PartitionDescription, TopicDescription, TopicOptions};
pub use groups::{CommittedOffset, GroupDescription, MemberDescription, Reset};
use parking_lot::Mutex;
pub use repair::RepairReport;
use serde::{Deserialize, Serialize};

use crate::{
    clock::Clock,
    config::{LogOptions, TopicConfig},
    consumer::{ConsumerBuilder, Context},
    error::{Error, Repr, Result},
    figures::Figures,
    group::Groups,
    housekeeper::{Chore, Housekeeper},
    json_file,
    partition::{Environment, Flusher, OpenFiles, Prefaulter, RecentSegments, Removed},
    report::{Finding, RecoveryReport},
    storage::{EntryKind, FileSystemClass, Lock, LockOutcome, Storage},
    topic::{Topic, TopicState},
    topics::{Retention, RetentionStatus, Settled, TOPICS_DIR, Topics},
};

/// The file that says what the folder is.
const META_FILE: &str = "tidelog.meta";

/// Its temporary name, without the suffix.
const META_TEMPORARY: &str = "meta";

/// The folder of locks, and the lock of the one process that has the log open.
const LOCKS_DIR: &str = "processes";
const LOCK_FILE: &str = "exclusive";

/// The most files that are open by default, where the system doesn't say what it allows.
const UNKNOWN_LIMIT: usize = 4096;

/// The content of `tidelog.meta`.
#[derive(Serialize, Deserialize)]
struct Meta {
    format_version: u32,
    created_ms: i64,
}

/// An open log: a folder of topics. Cheap to clone; any thread may use it.
///
/// The log is open until [`close`](Log::close) is called, or until the last handle of it (log, topic, partition,
/// consumer or reader) is dropped. Both leave the files such that the next open needs no recovery; only `close` tells
/// of errors.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
}

/// What all handles of a log keep alive.
struct Shared {
    path: PathBuf,
    topics: Arc<Topics>,
    groups: Arc<Groups>,
    flusher: Arc<Flusher>,
    housekeeper: Arc<Housekeeper>,
    retention: Arc<Retention>,
    #[cfg(feature = "metrics")]
    gauges: Arc<gauges::Gauges>,
    recovery: RecoveryReport,
    closed: AtomicBool,
    /// Taken out when the log is closed. Whoever closes holds the mutex, so a second one waits and finds it done.
    lock: Mutex<Option<Lock>>,
}

impl Log {
    /// Opens the log in a folder; creates it if it is missing. As [`Log::options`] with nothing set.
    ///
    /// Opening reads what a clean close left, or recovers what a killed process or a power cut left:
    /// [`recovery`](Log::recovery) tells what was found.
    ///
    /// # What is assumed
    /// - The folder lies on a local file system: ext4, xfs, btrfs, zfs, tmpfs, overlayfs, apfs, ntfs, or another one
    ///   that an option allows. Network file systems are refused.
    /// - Nobody but tidelog changes the files. What nothing in the folder can tell: a backup of it that was restored as a
    ///   whole goes on where it was made, and assigns offsets again that were assigned since. (Where the folder of a
    ///   partition alone is an older one, no offset below what a group has committed is assigned again, and that is
    ///   [told](Finding::CommitsBeyondEnd).)
    /// - The folder itself may be a link or a mount. In it links aren't followed, and pipes and devices not opened: one in
    ///   the place of a file or folder is refused, and what it leads to is neither read nor changed.
    /// - The system is Linux, which all of this is tested on. For macOS and Windows the code is type-checked alone:
    ///   they aren't supported yet. On Windows a close leaves no clean mark, as no file is cut there while it is mapped:
    ///   the next open looks for the end as it does behind a kill.
    /// - A media error on a mapped page ends the process: that is how systems report it. Recovery reads files without
    ///   mapping them and reports such errors instead.
    ///
    /// # Errors
    /// - [`Locked`](crate::ErrorKind::Locked): another process, or another `Log` of this one, has the folder open.
    /// - [`NotADirectory`](crate::ErrorKind::NotADirectory): there is something else of that name, or in the place of a
    ///   folder within it.
    /// - [`UnsupportedFormat`](crate::ErrorKind::UnsupportedFormat): a newer version of tidelog wrote it. Nothing was
    ///   changed.
    /// - [`UnsupportedFileSystem`](crate::ErrorKind::UnsupportedFileSystem).
    /// - [`Corruption`](crate::ErrorKind::Corruption): `tidelog.meta` or a topic's file isn't what was written, or a file
    ///   is another partition's, or there is something else in the place of a file.
    ///   (Damaged records don't keep a log from being opened: reading tells them.)
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`LimitReached`](crate::ErrorKind::LimitReached).
    pub fn open(path: impl AsRef<Path>) -> Result<Log> {
        Self::options().open(path)
    }

    /// Options to open a log with.
    ///
    /// ```
    /// # use tidelog::{Durability, Log};
    /// # fn main() -> tidelog::Result<()> {
    /// let log = Log::options().durability(Durability::Synced).segment_bytes(16 << 20).in_memory().open("shop")?;
    /// # log.close()
    /// # }
    /// ```
    pub fn options() -> LogOptions {
        LogOptions::default()
    }

    /// Creates a topic. When this returns, it is durable. What a deleted topic of that name left is removed first.
    ///
    /// # Errors
    /// - [`TopicExists`](crate::ErrorKind::TopicExists).
    /// - [`InvalidName`](crate::ErrorKind::InvalidName): a name is 1 to 249 of `a-z A-Z 0-9 . _ -`, neither `.` nor
    ///   `..`, and doesn't begin with `__`.
    /// - [`InvalidConfig`](crate::ErrorKind::InvalidConfig): no partition, or more than
    ///   [`MAX_PARTITIONS`](crate::MAX_PARTITIONS); other options out of their bounds.
    /// - [`Corruption`](crate::ErrorKind::Corruption): a folder named like one of its partitions is there and may hold
    ///   records. It isn't touched.
    /// - [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull),
    ///   [`LimitReached`](crate::ErrorKind::LimitReached), [`Closed`](crate::ErrorKind::Closed).
    pub fn create_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        self.check_open()?;
        Ok(self.handle(self.shared.topics.create(name, config, &|id| self.shared.forget_topic(id))?))
    }

    /// The topic of that name, created if it isn't there. One that is there keeps its own options.
    ///
    /// # Errors
    /// [`PartitionCountMismatch`](crate::ErrorKind::PartitionCountMismatch) if it is there with another number of
    /// partitions than the one asked for, also where [`increase_partitions`](Log::increase_partitions) gave it more
    /// since it was created; else those of [`create_topic`](Log::create_topic).
    pub fn ensure_topic(&self, name: &str, config: TopicConfig) -> Result<Topic> {
        self.check_open()?;
        Ok(self.handle(self.shared.topics.ensure(name, config, &|id| self.shared.forget_topic(id))?))
    }

    /// The topic of that name.
    ///
    /// # Errors
    /// [`UnknownTopic`](crate::ErrorKind::UnknownTopic), [`InvalidName`](crate::ErrorKind::InvalidName),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn topic(&self, name: &str) -> Result<Topic> {
        self.check_open()?;
        Ok(self.handle(self.shared.topics.get(name)?))
    }

    /// The names of all topics, in order.
    pub fn topics(&self) -> Vec<String> {
        self.shared.topics.names()
    }

    /// Begins to open a consumer of a group. Groups needn't be created; names follow the rule of topics.
    pub fn consumer(&self, group: impl Into<String>) -> ConsumerBuilder {
        let Shared { topics, groups, housekeeper, .. } = &*self.shared;
        let (topics, groups, housekeeper) = (topics.clone(), groups.clone(), housekeeper.clone());
        let context = Context { topics, groups, housekeeper, keepalive: self.shared.clone() };
        ConsumerBuilder::new(context, group.into())
    }

    /// What opening found, and what it did about it.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.shared.recovery
    }

    /// The folder, as it was given to `open`.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Returns when everything that was appended and committed before is on the device.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io) and [`Poisoned`](crate::ErrorKind::Poisoned) for a sync that failed, now or
    /// earlier; [`Closed`](crate::ErrorKind::Closed). All partitions are tried, the first error is answered.
    pub fn flush(&self) -> Result<()> {
        self.check_open()?;
        self.shared.topics.flush()
    }

    /// Removes the segments that retention lets go of, now, and tells what that was. A thread in the background does the
    /// same when the log is opened and then every
    /// [`retention_check_interval`](LogOptions::retention_check_interval).
    ///
    /// What goes is said at [`TopicConfig::retention_age`] and [`TopicConfig::retention_bytes`]. Who reads in a segment
    /// that goes can read on in it; who comes later is told the log start offset, by kind
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange). Flushes the partitions of which something goes.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`StorageFull`](crate::ErrorKind::StorageFull),
    /// [`Poisoned`](crate::ErrorKind::Poisoned), [`Closed`](crate::ErrorKind::Closed). All partitions are checked, the
    /// first error is answered; what it kept from going is tried again with the next check.
    pub fn enforce_retention(&self) -> Result<Removed> {
        self.check_open()?;
        self.shared.retention.enforce()
    }

    /// How retention fares in the background: what it has removed, and the last error that it met.
    pub fn retention_status(&self) -> RetentionStatus {
        self.shared.retention.status()
    }

    /// Flushes and closes the log; it can be opened again at once.
    ///
    /// Other handles needn't be dropped before: what they are asked from now on they answer with kind
    /// [`Closed`](crate::ErrorKind::Closed), and a consumer that sleeps in `poll` wakes up to say so. Batches stay
    /// valid. Closing twice is fine.
    ///
    /// # Errors
    /// [`Io`](crate::ErrorKind::Io), [`Poisoned`](crate::ErrorKind::Poisoned),
    /// [`LimitReached`](crate::ErrorKind::LimitReached): something couldn't be flushed. The log is closed all the same,
    /// and the next open recovers it.
    pub fn close(&self) -> Result<()> {
        self.shared.close()
    }

    fn check_open(&self) -> Result<()> {
        if self.shared.closed.load(Ordering::Acquire) { Err(Repr::Closed.into()) } else { Ok(()) }
    }

    fn handle(&self, topic: Arc<TopicState>) -> Topic {
        Topic::new(topic, self.shared.clone())
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl Shared {
    fn forget_topic(&self, topic_id: u128) -> Result<()> {
        self.groups.forget_topic(topic_id)
    }

    fn close(&self) -> Result<()> {
        self.end().1
    }

    /// Closes the log; answers its lock, which the caller still has, unless it was closed before.
    fn end(&self) -> (Option<Lock>, Result<()>) {
        let mut lock = self.lock.lock();
        let Some(held) = lock.take() else { return (None, Ok(())) };
        self.closed.store(true, Ordering::Release);
        // First, so that no chore meets files that are going.
        self.retention.end();
        self.housekeeper.stop();
        self.topics.environment().prefaulter.stop();
        let outcome = self.topics.close();
        if outcome.is_ok() {
            // So that the next open needn't. What was to be durable is.
            let _ = self.topics.settle();
        }
        // Only now is there nothing to find but that the log was closed.
        self.groups.close();
        self.flusher.stop();
        #[cfg(feature = "metrics")]
        self.gauges.update();
        (Some(held), outcome)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Nobody is left to tell.
        let _ = self.close();
    }
}

impl LogOptions {
    /// Opens the log in a folder; creates it if it is missing.
    ///
    /// # Errors
    /// Those of [`Log::open`], and [`InvalidConfig`](crate::ErrorKind::InvalidConfig) for an option out of its bounds
    /// or an empty path.
    pub fn open(self, path: impl AsRef<Path>) -> Result<Log> {
        let storage = self.storage();
        self.open_on(path.as_ref(), storage, Clock::System)
    }

    /// Opens a log on the given storage, by the given clock.
    pub(crate) fn open_on(self, path: &Path, storage: Arc<dyn Storage>, clock: Clock) -> Result<Log> {
        self.validate()?;
        if path.as_os_str().is_empty() {
            return Err(Repr::InvalidConfig { option: "path", reason: "it is empty".into() }.into());
        }
        make_folder(&*storage, path)?;
        let positional_appends = self.check_file_system(&*storage, path)?;
        // A folder of a newer version isn't to be touched, not even for a lock.
        read_meta(&*storage, path)?;
        let lock = take_lock(&*storage, path)?;
        json_file::remove_temporaries(&*storage, path, |name| name == META_TEMPORARY)?;
        let mut recovery = RecoveryReport::default();
        let settled = Settled::look(storage.clone(), &path.join(LOCKS_DIR))?;
        // Again, because only who holds the lock knows.
        if read_meta(&*storage, path)?.is_none() {
            settled.unsettle()?;
            write_meta(&*storage, path, &clock, &mut recovery)?;
        }

        // From here on leaps of the clock are noticed.
        clock.expiry_now_ms(0);
        let (flusher, housekeeper) = (Flusher::new(self.background), Housekeeper::new(self.background));
        let env = self.environment(path, storage, clock, positional_appends, flusher.clone(), housekeeper.clone());
        #[cfg(feature = "metrics")]
        let (figures, open_files) = (env.figures.clone(), env.open_files.clone());
        match open_topics(env, path, settled, &self, &housekeeper, &mut recovery) {
            Ok((topics, groups)) => {
                let (path, closed, lock) = (path.to_owned(), AtomicBool::new(false), Mutex::new(Some(lock)));
                let retention = Retention::new(&topics, self.retention_check_interval);
                let chore: Weak<Retention> = Arc::downgrade(&retention);
                housekeeper.schedule(chore as Weak<dyn Chore>, Instant::now());
                #[cfg(feature = "metrics")]
                let gauges = {
                    let gauges = gauges::Gauges::new(figures, self.metrics.interval, &topics, &groups, open_files);
                    let chore: Weak<gauges::Gauges> = Arc::downgrade(&gauges);
                    housekeeper.schedule(chore as Weak<dyn Chore>, Instant::now());
                    gauges
                };
                let shared = Shared {
                    path,
                    topics,
                    groups,
                    flusher,
                    housekeeper,
                    retention,
                    #[cfg(feature = "metrics")]
                    gauges,
                    recovery,
                    closed,
                    lock,
                };
                if cfg!(feature = "metrics") || shared.retention.is_awaited() {
                    shared.housekeeper.begin()?;
                }
                Ok(Log { shared: Arc::new(shared) })
            }
            Err(error) => {
                flusher.stop();
                Err(error)
            }
        }
    }

    /// What the partitions share.
    fn environment(
        &self,
        path: &Path,
        storage: Arc<dyn Storage>,
        clock: Clock,
        positional_appends: bool,
        flusher: Arc<Flusher>,
        housekeeper: Arc<Housekeeper>,
    ) -> Environment {
        let recent_segments = Arc::new(RecentSegments::with_capacity(self.max_open_segments));
        let max_open_files = self.max_open_files.unwrap_or_else(|| default_open_files(&*storage));
        let open_files = OpenFiles::new(max_open_files, storage.clone(), path.join(META_FILE), housekeeper);
        #[cfg(feature = "metrics")]
        let figures = Figures::new(self.metrics.log.as_deref(), self.metrics.by_partition);
        #[cfg(not(feature = "metrics"))]
        let figures = Figures;
        Environment {
            storage,
            clock,
            flusher,
            prefaulter: Prefaulter::new(self.background),
            recent_segments,
            open_files,
            figures,
            positional_appends,
            mapped_after: self.mapped_after,
        }
    }

    /// Refuses file systems that can't be relied on; answers whether appends have to go through `pwrite`.
    fn check_file_system(&self, storage: &dyn Storage, path: &Path) -> Result<bool> {
        let found = storage.file_system(path).map_err(|source| Error::io("tell the file system of", path, source))?;
        let reason = match found.class {
            FileSystemClass::Local => return Ok(self.positional_appends),
            FileSystemClass::LocalCopyOnWrite => return Ok(true),
            FileSystemClass::Unknown if self.allow_unknown_file_system => return Ok(true),
            FileSystemClass::Unknown => {
                "which isn't known to be fit; an option (allow_unknown_file_system) uses it anyway"
            }
            FileSystemClass::Network => "a network file system, where locks and mapped files can't be relied on",
        };
        Err(Repr::UnsupportedFileSystem { path: path.into(), file_system: found.name, reason }.into())
    }
}

/// The log's share of the descriptors that the process may have: half of them.
fn default_open_files(storage: &dyn Storage) -> usize {
    let limit = storage.open_files_limit().and_then(|limit| usize::try_from(limit).ok());
    limit.map_or(UNKNOWN_LIMIT, |limit| (limit / 2).max(1))
}

/// Sees to it that there is a folder.
fn make_folder(storage: &dyn Storage, path: &Path) -> Result<()> {
    storage.create_dir_all(path).map_err(|source| match storage.entry_kind(path) {
        // A link that leads nowhere, say.
        Ok(Some(EntryKind::File | EntryKind::Other)) => Repr::NotADirectory { path: path.into() }.into(),
        _ => Error::io("create the folder", path, source),
    })
}

fn take_lock(storage: &dyn Storage, path: &Path) -> Result<Lock> {
    let dir = path.join(LOCKS_DIR);
    storage.create_own_dir(&dir).map_err(|source| Error::io("create the folder", &dir, source))?;
    let file = dir.join(LOCK_FILE);
    match storage.lock_exclusive(&file).map_err(|source| Error::io("lock", &file, source))? {
        LockOutcome::Acquired(lock) => Ok(lock),
        LockOutcome::Held(process_id) => Err(Repr::Locked { path: path.into(), process_id }.into()),
    }
}

fn read_meta(storage: &dyn Storage, path: &Path) -> Result<Option<Meta>> {
    json_file::read(storage, &path.join(META_FILE))
}

/// Marks the folder as a log's, before anything else is created there.
fn write_meta(storage: &dyn Storage, path: &Path, clock: &Clock, recovery: &mut RecoveryReport) -> Result<()> {
    let topics = path.join(TOPICS_DIR);
    if storage.entry_kind(&topics).map_err(|source| Error::io("look at", topics, source))?.is_some() {
        recovery.add(Finding::MissingMeta { path: path.join(META_FILE) });
    }
    let meta = Meta { format_version: json_file::FORMAT_VERSION, created_ms: clock.now_ms() };
    json_file::write(storage, path, META_TEMPORARY, META_FILE, &meta)
}

/// Opens all topics, the internal ones too.
fn open_topics(
    env: Environment,
    path: &Path,
    settled: Settled,
    options: &LogOptions,
    housekeeper: &Arc<Housekeeper>,
    recovery: &mut RecoveryReport,
) -> Result<(Arc<Topics>, Arc<Groups>)> {
    let topics = Arc::new(Topics::open(env, path, settled, options, recovery)?);
    let groups = Groups::open(&topics, housekeeper, recovery).and_then(|groups| {
        groups.pass_commits(recovery);
        topics.finish_opening(&|topic_id| groups.forget_topic(topic_id), recovery)?;
        Ok(groups)
    });
    match groups {
        Ok(groups) => Ok((topics, Arc::new(groups))),
        Err(error) => {
            // The first error is the one to tell.
            let _ = topics.close();
            Err(error)
        }
    }
}

/// The work in the background, step by step ([`Background::Stepped`](crate::background::Background::Stepped)).
#[cfg(any(test, fuzzing))]
impl Log {
    /// Flushes and raises offset ceilings, as far as that was asked for.
    pub(crate) fn step_flusher(&self) {
        self.shared.flusher.step();
    }

    /// Retention, and whatever else is to be done now and then.
    pub(crate) fn step_housekeeper(&self) {
        self.shared.housekeeper.step();
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
