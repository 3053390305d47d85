//! One partition on disk: an ordered sequence of records in segments, with one writer and any number of readers.
//!
//! # Invariants
//! - An append becomes visible in one step, by the commit word of the [control page](control); readers take no lock
//!   and never see half a frame.
//! - Offsets are assigned only below a durable ceiling, so that none is used twice, not even one whose record a power
//!   cut took away.
//! - No lock that an append takes is ever held across a sync; but where it needs a file opened, and too many are open,
//!   appends wait for each other and for the sync of some other partition, with no lock of theirs held.
//! - After a failed sync nothing is appended any more: see [`PartitionLog::poison`].
//!
//! # Thread safety
//! Everything is shared freely. Locks are taken in this order: leftovers, torn tail, writer, then sync state, then agenda of the
//! flusher or queue of the [open files](open_files); the checkpoint's is taken with none of these held but the first (and
//! by who poisons, who may have the writer's). Those of the background threads come last of all. With that of a segment's times, or of the flusher's visits, no other one is
//! taken.

mod batch;
mod checkpoint;
mod closing;
mod control;
mod cursor;
mod durable;
#[cfg(feature = "metrics")]
mod flush_lag;
mod flusher;
#[cfg(any(fuzzing, all(test, not(loom))))]
pub(crate) mod fuzzing;
mod gathering;
mod identity;
mod lag;
#[cfg(all(test, loom))]
mod loom;
mod offset_index;
mod open_files;
mod prefaulter;
mod recovery;
mod repair;
mod report;
mod retention;
mod salvage;
mod scan;
mod segment;
mod segment_file;
mod set_aside;
mod settings;
mod skipped;
mod survey;
#[cfg(test)]
#[cfg(not(loom))]
mod tests;
mod time_index;
mod time_lookup;
mod uncut;
mod verify;
mod words;
mod writer;

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;

pub(crate) use batch::Run;
pub use batch::{Batch, Records};
pub(crate) use cursor::Cursor;
pub(crate) use durable::DurableWait;
pub(crate) use flusher::Flusher;
pub(crate) use identity::topic_id_of;
pub(crate) use open_files::OpenFiles;
pub(crate) use prefaulter::Prefaulter;
pub use repair::RepairAction;
pub(crate) use repair::repair;
pub use report::{Cut, Opening, PartitionRecovery, RecoveryEvent};
pub use retention::Removed;
pub(crate) use salvage::LOST_CEILING_GAP;
pub(crate) use segment::RecentSegments;
pub(crate) use settings::{Settings, SettingsValues};
pub use skipped::Skipped;
pub(crate) use verify::{ClosedPlan, OpenPlan, Seen};

use self::{
    checkpoint::{Checkpoint, CheckpointFault, CheckpointState},
    closing::Life,
    control::{ControlPage, LogPosition},
    gathering::Gathering,
    recovery::Recovered,
    segment::{Segment, SegmentSlot},
    set_aside::TornTail,
    time_index::Bond,
    writer::{OFFSET_LIMIT, Writer},
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Repr, Result, is_out_of_files},
    figures::{Figures, Operation, PartitionFigures, Timer},
    random,
    segment_header::{DATA_START, Predecessor, SegmentHeader},
    storage::Storage,
    sync::{
        AtomicBool, AtomicU8, AtomicU64, MappedMutexGuard, Mutex, MutexGuard, Ordering, ReentrantMutex, ThreadId,
        this_thread,
    },
    waiter::{LONGEST_SLEEP, Waiter},
};

/// How far the offset ceiling is raised beyond the next offset. At the fastest that batches go it lasts for tens of
/// milliseconds, many times what raising it takes; after an unclean boot it is the most that offsets jump.
const OFFSET_CEILING_STEP: u64 = 1 << 22;
/// The first step in which a segment's space is reserved, and the last; they double in between.
const RESERVE_STEP_MIN: u64 = 64 << 10;
const RESERVE_STEP_MAX: u64 = 4 << 20;
/// Records of a batch are put into frames of about this size. Where a fuzzer makes the files they are short, as every
/// segment has room for such a frame.
const BATCH_FRAME_BYTES: u64 = if cfg!(fuzzing) { 256 << 10 } else { 1 << 20 };
/// From so many unsynced segments on a flush is due whatever the durability: they stay open until they are synced.
const UNSYNCED_SEGMENTS: usize = 8;
/// When to try again to flush what couldn't be for lack of descriptors.
const FLUSH_RETRY: Duration = Duration::from_millis(100);
/// No flush is pending.
const NOT_PENDING: u64 = u64::MAX;

/// What partitions of one log share. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Environment {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) clock: Clock,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) prefaulter: Arc<Prefaulter>,
    pub(crate) recent_segments: Arc<RecentSegments>,
    pub(crate) open_files: Arc<OpenFiles>,
    pub(crate) figures: Figures,
    /// Appends use `pwrite` instead of stores into the map: for file systems where a store may need new space, which a
    /// map can only answer with a signal. Control page and active indexes live in memory then.
    pub(crate) positional_appends: bool,
    /// While so few bytes aren't durable, appends use `pwrite` as well. See [`LogOptions::mapped_after`].
    ///
    /// [`LogOptions::mapped_after`]: crate::config::LogOptions::mapped_after
    pub(crate) mapped_after: u64,
}

/// Which partition, and its options (the topic's, else the log's).
#[derive(Debug, Clone)]
pub(crate) struct PartitionSpec {
    pub(crate) topic: Arc<str>,
    pub(crate) topic_id: u128,
    pub(crate) number: u32,
    /// Shared by the partitions of the topic.
    pub(crate) settings: Arc<Settings>,
}

impl PartitionSpec {
    /// The length of a segment's file: its size limit, and room for any one frame in an empty one. Sparse, so that only
    /// what is used takes space.
    fn segment_file_bytes(&self) -> u64 {
        let largest_frame = BATCH_FRAME_BYTES.max(self.settings.max_record_bytes()) + 4096;
        self.settings.segment_bytes().max((DATA_START + largest_frame).next_multiple_of(4096))
    }
}

/// One partition's files and state.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    env: Environment,
    figures: PartitionFigures,
    spec: Arc<PartitionSpec>,
    dir: PathBuf,
    control: ControlPage,
    /// `None` once the partition is deleted.
    writer: Mutex<Option<Writer>>,
    /// Oldest first, the active one last. Empty once the partition is deleted.
    segments: ArcSwap<Vec<Arc<SegmentSlot>>>,
    start_offset: AtomicU64,
    /// What the durable checkpoint says; raised only behind it.
    offset_ceiling: AtomicU64,
    ceiling_requested: AtomicBool,
    /// There are many unsynced segments, whose files are all open.
    flush_requested: AtomicBool,
    epoch: u32,
    checkpoint: Mutex<Checkpoint>,
    sync: Mutex<SyncState>,
    synced: Waiter,
    /// Nanoseconds of the interval that the pending flush was scheduled with, or [`NOT_PENDING`].
    pending_interval: AtomicU64,
    /// When the flusher will come to flush, the next time last. An append that can wait that long asks for no other visit:
    /// there would be more and more of them, since each lets the next append ask for one.
    flush_visits: Mutex<Vec<Instant>>,
    waiters: Mutex<Vec<Arc<Waiter>>>,
    waits: durable::Waits,
    /// A [`Life`]; only grows.
    life: AtomicU8,
    /// Nothing is written to the checkpoint any more: its clean mark is, or the partition is deleted. Changed with the
    /// checkpoint's lock held.
    finished: AtomicBool,
    /// Files of segments that are no longer a part of the log and couldn't be removed yet. Locked by who removes
    /// segments, one thread at a time: who does so syncs, and may so wake a task that closes or deletes the partition, or
    /// removes more, before it goes on. The list itself is borrowed for moments only.
    leftovers: ReentrantMutex<RefCell<Vec<PathBuf>>>,
    /// A torn tail that couldn't be set aside yet.
    torn: Mutex<Option<TornTail>>,
    poison: OnceLock<Arc<str>>,
}

/// Whether somebody who wants a sync shares it with others who come again and again, and waits for these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Company {
    Others,
    Alone,
}

/// Who syncs, and what.
#[derive(Debug)]
struct SyncState {
    /// The thread that is at it; others wait for `synced`.
    running: Option<ThreadId>,
    /// Segments with bytes that may not be on the device, oldest first; the active one is always among them.
    unsynced: Vec<Arc<Segment>>,
    /// Names appeared in the folder since it was synced.
    folder_changed: bool,
    gathering: Gathering,
}

impl PartitionLog {
    /// Opens the partition in the folder `dir`; creates it, durably, where there is neither segment nor checkpoint.
    /// Recovers it where it wasn't closed cleanly. The report says what was found.
    pub(crate) fn open(env: &Environment, dir: &Path, spec: PartitionSpec) -> Result<(Arc<Self>, PartitionRecovery)> {
        let recovered = recovery::open(env, dir, &spec)?;
        let poisoned = recovered.poison.is_some();
        let resumed = recovered.report.opening() == Opening::Resumed;
        let control = ControlPage::create(&*env.storage, dir, !env.positional_appends, poisoned, resumed)?;
        let Recovered { active, end, next_offset, ref checkpoint, .. } = recovered;
        let state = *checkpoint.state();
        control.set_segment(end.sequence(), active.header.segment_id, active.file.get().as_deref());
        control.initialize(end, next_offset, state.durable.min(end), state.durable_offset.min(next_offset));
        control.set_reserved(end);
        let behind = next_offset.saturating_sub(active.header.base_offset);
        active.times.begin(end.file_position(), behind, Some(Bond::Epoch(state.epoch)));
        let mut writer = Writer::new(active.clone(), end, next_offset, recovered.last_time_ms);
        writer.uncut = recovered.torn.is_some();
        let partition = Arc::new(Self {
            env: env.clone(),
            figures: env.figures.partition(&spec.topic, spec.number),
            dir: dir.into(),
            writer: Mutex::new(Some(writer)),
            segments: ArcSwap::from_pointee(recovered.slots),
            start_offset: AtomicU64::new(state.log_start_offset),
            offset_ceiling: AtomicU64::new(if checkpoint.allows_appends() {
                state.offset_ceiling
            } else {
                next_offset
            }),
            ceiling_requested: AtomicBool::new(false),
            flush_requested: AtomicBool::new(false),
            epoch: state.epoch,
            checkpoint: Mutex::new(recovered.checkpoint),
            sync: Mutex::new(SyncState {
                running: None,
                unsynced: vec![active],
                folder_changed: false,
                gathering: Gathering::default(),
            }),
            synced: Waiter::default(),
            pending_interval: AtomicU64::new(NOT_PENDING),
            flush_visits: Mutex::default(),
            waiters: Mutex::new(Vec::new()),
            waits: durable::Waits::default(),
            life: AtomicU8::new(Life::Open as u8),
            finished: AtomicBool::new(false),
            leftovers: ReentrantMutex::default(),
            torn: Mutex::new(recovered.torn),
            poison: OnceLock::new(),
            control,
            spec: Arc::new(spec),
        });
        if let Some(reason) = recovered.poison {
            partition.poison(&reason);
        }
        if !partition.has_torn_tail() {
            partition.control.make_valid();
        }
        partition.close_clean_handle();
        env.flusher.add(&partition);
        Ok((partition, recovered.report))
    }

    pub(crate) fn spec(&self) -> &PartitionSpec {
        &self.spec
    }

    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The earliest readable offset.
    pub(crate) fn start_offset(&self) -> u64 {
        self.start_offset.load(Ordering::Acquire)
    }

    /// The next offset to be assigned.
    pub(crate) fn end_offset(&self) -> u64 {
        self.control.next_offset()
    }

    /// As [`end_offset`](PartitionLog::end_offset), which trails what readers see by a moment; this one doesn't, but
    /// waits for the writer.
    pub(crate) fn settled_end_offset(&self) -> u64 {
        self.writer.lock().as_ref().map_or_else(|| self.end_offset(), Writer::next_offset)
    }

    /// Takes the writer lock; kind `UnknownTopic` once the partition is deleted.
    #[inline]
    fn writer(&self) -> Result<MappedMutexGuard<'_, Writer>> {
        MutexGuard::try_map(self.writer.lock(), Option::as_mut).map_err(|_| self.deleted())
    }

    /// Everything below it is on the device.
    pub(crate) fn durable_offset(&self) -> u64 {
        self.control.durable_offset()
    }

    /// Publishing wakes `waiter` from now on, until [`unwatch`](PartitionLog::unwatch).
    pub(crate) fn watch(&self, waiter: &Arc<Waiter>) {
        self.waiters.lock().push(waiter.clone());
        self.control.add_sleeper();
    }

    /// Ends one [`watch`](PartitionLog::watch).
    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>) {
        let mut waiters = self.waiters.lock();
        if let Some(at) = waiters.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            waiters.swap_remove(at);
            self.control.remove_sleeper();
        }
    }

    /// Wakes who watches; answers whether anybody sleeps.
    fn wake_waiters(&self) -> bool {
        let sleepers = self.control.has_sleepers();
        if sleepers {
            // Not under the lock: waking a task runs its executor's code, which may drop the task, and that unwatches.
            let waiters = self.waiters.lock().clone();
            waiters.iter().for_each(|waiter| waiter.wake());
        }
        sleepers
    }

    /// Kind `Closed`, `UnknownTopic` or `Poisoned`, if nothing may be appended.
    fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        self.check_poison()
    }

    fn check_poison(&self) -> Result<()> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(Repr::Poisoned {
                topic: self.spec.topic.to_string(),
                partition: self.spec.number,
                reason: reason.clone(),
            }
            .into()),
        }
    }

    /// Ends all appending, because what was acknowledged may not be on the device and no later sync would tell: the
    /// kernel counts pages as clean that it failed to write. Reading goes on. The mark outlives the process; the next
    /// open writes anew what isn't known to be durable.
    ///
    /// Waits for a checkpoint that is being written, which may not know of the mark.
    pub(crate) fn poison(&self, reason: &str) {
        if self.mark_poisoned(reason) {
            self.write_poison();
        }
    }

    /// Marks in the files that a sync failed, unless they say so.
    fn write_poison(&self) {
        let mut checkpoint = self.checkpoint.lock();
        if checkpoint.says_poisoned() || self.finished.load(Ordering::Acquire) {
            return;
        }
        // The page's mark is lost with the boot, this one isn't; that it can fail too is why there are two.
        let state = CheckpointState { poisoned: true, clean: None, ..*checkpoint.state() };
        if self.write_checkpoint(&mut checkpoint, state).is_err() {
            // Where the page lives in memory alone, for the next process.
            let mark = || ControlPage::leave_poisoned(&*self.env.storage, &self.dir);
            let _ = self.env.open_files.with_spare(is_out_of_files, mark);
        }
    }

    /// As [`poison`](PartitionLog::poison), touching no file but the control page. False if it was done before.
    fn mark_poisoned(&self, reason: &str) -> bool {
        let first = self.poison.set(reason.into()).is_ok();
        self.control.set_poisoned();
        self.synced.wake();
        self.wake_waiters();
        self.wake_all_durable();
        first
    }

    /// Makes a changed checkpoint durable.
    fn update_checkpoint(&self, change: impl FnOnce(&mut CheckpointState)) -> Result<()> {
        let outcome = {
            let mut checkpoint = self.checkpoint.lock();
            if self.finished.load(Ordering::Acquire) {
                self.check_exists()?;
                return Err(Repr::Closed.into());
            }
            let mut state = CheckpointState { clean: None, ..*checkpoint.state() };
            change(&mut state);
            state.poisoned |= self.poison.get().is_some();
            self.write_checkpoint(&mut checkpoint, state)
        };
        outcome.map_err(|fault| match fault {
            CheckpointFault::Write(error) => error,
            CheckpointFault::Sync(error) => {
                self.poison(&error.to_string());
                error
            }
        })
    }

    fn write_checkpoint(&self, checkpoint: &mut Checkpoint, state: CheckpointState) -> Result<(), CheckpointFault> {
        self.env.open_files.with_spare(CheckpointFault::is_limit, || checkpoint.write(&*self.env.storage, state))
    }

    /// Raises the offset ceiling, durably, so that `needed` lies below it.
    fn raise_ceiling(&self, needed: u64) -> Result<()> {
        let raised = needed.saturating_add(OFFSET_CEILING_STEP);
        self.update_checkpoint(|state| state.offset_ceiling = state.offset_ceiling.max(raised))?;
        self.offset_ceiling.fetch_max(raised, Ordering::AcqRel);
        Ok(())
    }

    /// The background visit that was due then: raises the ceiling if it is near, flushes if there is something to flush.
    fn maintain(self: &Arc<Self>, due: Instant) -> Result<()> {
        if self.is_closed() {
            return Ok(());
        }
        self.flush_visits.lock().retain(|&visit| visit > due);
        self.pending_interval.store(NOT_PENDING, Ordering::SeqCst);
        let raised = match self.ceiling_requested.swap(false, Ordering::AcqRel) {
            true => self.raise_ceiling(self.end_offset()),
            false => Ok(()),
        };
        // Whatever came of that: no other visit is due for what was appended up to here.
        let synced = self.sync_through(self.control.committed(), Company::Alone);
        if synced.is_err() && self.check_poison().is_ok() {
            // It couldn't be tried: there was no descriptor for the folder.
            self.flush_within(FLUSH_RETRY);
        }
        self.counted(Operation::Flush, || synced.and(raised))
    }

    /// Lets the device begin on what a flush will wait for.
    fn start_writeback(&self) {
        let (durable, end) = (self.control.durable(), self.control.committed());
        let from = if durable.sequence() == end.sequence() { durable.file_position() } else { 0 };
        let Some(active) = self.sync.lock().unsynced.last().filter(|_| durable < end).cloned() else { return };
        let started = active.file.get().map_or(Ok(()), |file| file.start_writeback(from..end.file_position()));
        if let Err(source) = started {
            // What it has failed to write may count as clean by now, and a sync that comes behind would be none the wiser.
            let _ = self.sync_failed(&active.path, source);
        }
    }

    /// Everything appended so far is on the device when this returns.
    pub(crate) fn flush(&self) -> Result<()> {
        self.counted(Operation::Flush, || {
            self.check_open()?;
            self.sync_through(self.control.committed(), Company::Others)
        })
    }

    /// Those of the log.
    pub(crate) fn log_figures(&self) -> &Figures {
        &self.env.figures
    }

    /// Counts the error if `body` ends with one.
    #[inline(always)]
    fn counted<T>(&self, operation: Operation, body: impl FnOnce() -> Result<T>) -> Result<T> {
        body().inspect_err(|error| self.env.figures.error(operation, error))
    }

    /// Waits until everything up to `target` is on the device. Of all who wait, one syncs for those that came before
    /// it began; the others form the next group meanwhile.
    fn sync_through(&self, target: LogPosition, company: Company) -> Result<()> {
        let mut group = None;
        loop {
            // Before any look at what is waited for.
            let ticket = self.synced.ticket();
            let mut state = self.sync.lock();
            if self.is_synced(target)? {
                return Ok(());
            }
            self.check_exists()?;
            if company == Company::Others {
                group = Some(state.gathering.arrive(group));
            }
            if state.running.is_some() {
                drop(state);
                self.synced.wait(ticket, LONGEST_SLEEP);
                // All who wait are woken at once: most need nothing but this, and don't queue for the lock.
                if self.is_synced(target)? {
                    return Ok(());
                }
                continue;
            }
            state.running = Some(this_thread());
            if company == Company::Others {
                state = self.gather(state);
            }
            let departed = state.gathering.depart();
            let (segments, folder_changed) = (state.unsynced.clone(), std::mem::take(&mut state.folder_changed));
            drop(state);
            let guard = PoisonOnPanic(self);
            let began = Instant::now();
            let outcome = self.sync_now(&segments, folder_changed);
            std::mem::forget(guard);
            let mut state = self.sync.lock();
            state.running = None;
            // Whom a sync has failed for is still there, or comes no more.
            let released = if outcome.is_ok() { departed } else { 0 };
            state.gathering.release(released, began.elapsed(), Instant::now());
            match &outcome {
                Ok(durable) => {
                    state.unsynced.retain(|segment| segment.header.sequence >= durable.sequence().into());
                }
                Err(_) => state.folder_changed |= folder_changed,
            }
            drop(state);
            self.synced.wake();
            self.wake_durable();
            outcome?;
        }
    }

    /// The place below which everything is on the device, and the offset that belongs to it.
    fn durable_mark(&self) -> (LogPosition, u64) {
        let _pair = self.sync.lock();
        (self.control.durable(), self.control.durable_offset())
    }

    /// Whether everything up to `target` is on the device. If so, [`durable_offset`](Self::durable_offset) tells it too.
    fn is_synced(&self, target: LogPosition) -> Result<bool> {
        self.check_poison()?;
        Ok(self.control.durable() >= target)
    }

    /// Lets others come who share the sync that is about to begin.
    fn gather<'a>(&'a self, mut state: MutexGuard<'a, SyncState>) -> MutexGuard<'a, SyncState> {
        let began = Instant::now();
        while state.gathering.goes_on(began, Instant::now()) {
            drop(state);
            thread::yield_now();
            state = self.sync.lock();
        }
        state
    }

    /// Syncs the segments in order, then the folder, and moves the durable mark to what was published before.
    ///
    /// A roll that comes in between is left to the next one: its segment isn't among `segments`, so the mark goes no
    /// further than their end.
    fn sync_now(&self, segments: &[Arc<Segment>], folder_changed: bool) -> Result<LogPosition> {
        let (mut end, mut end_offset) = {
            let mut writer = self.writer()?;
            writer.begin_sync(segments);
            (writer.end(), writer.next_offset())
        };
        if let Some(last) = segments.last().filter(|last| last.header.sequence < end.sequence().into()) {
            let sealed = last.sealed_end().unwrap_or(DATA_START);
            end = recovery::position(last, sealed)?;
            end_offset = self.base_offset_behind(last).unwrap_or(0);
        }
        let timer = Timer::start();
        self.control.set_syncing(true);
        for segment in segments {
            // Where there is no handle, everything is on the device (see `segment_file`).
            if let Some(file) = segment.file.get() {
                file.sync_data().map_err(|source| self.sync_failed(&segment.path, source))?;
            }
        }
        if folder_changed {
            self.sync_folder()?;
        }
        self.control.set_syncing(false);
        self.figures.synced(timer);
        {
            let _pair = self.sync.lock();
            self.control.raise_durable(end, end_offset);
        }
        let sealed = segments.iter().filter(|segment| segment.header.sequence < end.sequence().into());
        let sealed: Vec<_> = sealed.inspect(|segment| self.trim(segment)).collect();
        if !sealed.is_empty() {
            self.release(&sealed);
            // A later scan then need not go back further than this. Where it can't be written, the scan will: what was
            // asked for is on the device. (A sync that fails here poisons like any other.)
            let written = self.update_checkpoint(|state| (state.durable, state.durable_offset) = (end, end_offset));
            if written.is_err() {
                self.check_poison()?;
            }
        }
        Ok(end)
    }

    /// Makes the names in the folder durable. A failure poisons, unless it couldn't be tried for lack of a descriptor.
    fn sync_folder(&self) -> Result<()> {
        let sync = || self.env.storage.sync_dir(&self.dir);
        self.env.open_files.with_spare(is_out_of_files, sync).map_err(|source| match is_out_of_files(&source) {
            true => Error::io("sync the folder", &self.dir, source),
            false => self.sync_failed(&self.dir, source),
        })
    }

    /// Poisons. The error is of kind `Io` also where the device had no space (a thin one, a loop on a full disk): that of
    /// kind `StorageFull` says that nothing has changed.
    fn sync_failed(&self, path: &Path, source: std::io::Error) -> Error {
        let error = Error::from(Repr::Io { operation: "sync", path: path.into(), source });
        self.poison(&error.to_string());
        error
    }

    /// Where offsets go on behind a sealed segment.
    fn base_offset_behind(&self, segment: &Segment) -> Option<u64> {
        let base = segment.header.base_offset;
        self.segments.load().iter().map(|slot| slot.base_offset).find(|&other| other > base)
    }

    /// Gives back the space behind a sealed segment's end, and completes its indexes. It is durable, so nothing of this
    /// needs to be.
    fn trim(&self, segment: &Segment) {
        let Some(end) = segment.sealed_end() else { return };
        segment.trim(&*self.env.storage, end);
        let segments = self.segments.load();
        let at = segments.iter().position(|slot| slot.base_offset == segment.header.base_offset);
        // Unless it was deleted meanwhile.
        let next = at.and_then(|at| segments.get(at + 1)?.header(&*self.env.storage, &self.spec).ok());
        if let Some(next) = next {
            segment.save_times(&*self.env.storage, end, Bond::Successor(next.segment_id));
        }
    }

    /// Leaves segments that need no more syncs to their readers.
    fn release(&self, sealed: &[&Arc<Segment>]) {
        for segment in sealed {
            self.env.recent_segments.keep(Arc::clone(segment));
            self.forget_if_gone(segment);
        }
        self.segments.rcu(|segments| {
            let release = |slot: &Arc<SegmentSlot>| {
                let segment = sealed.iter().find(|segment| segment.header.base_offset == slot.base_offset);
                segment.map_or_else(|| slot.clone(), |segment| Arc::new(slot.released(segment)))
            };
            segments.iter().map(release).collect::<Vec<_>>()
        });
    }

    /// The segment at `at` in a list that may be out of date, opened if it isn't open.
    fn open_segment(&self, segments: &[Arc<SegmentSlot>], at: usize) -> Result<Arc<Segment>> {
        let next = segments.get(at + 1).map(|next| &**next);
        let open = || segments[at].get(&self.env, &self.spec, next);
        let segment = match open() {
            Err(error) if error.kind() == ErrorKind::LimitReached => {
                self.make_room(true);
                open()?
            }
            outcome => outcome?,
        };
        self.forget_if_gone(&segment);
        Ok(segment)
    }

    /// Has files closed, and segments unmapped, that are open for nobody in particular; flushes other partitions if it has
    /// to. To be called with no lock held. `ran_out`: the system has no more of them.
    fn make_room(&self, ran_out: bool) {
        self.env.open_files.make_room(ran_out);
        if ran_out {
            self.env.recent_segments.forget(|_| true);
        }
    }

    /// To be called when a segment was kept: it may have been deleted, or the partition closed, just before.
    fn forget_if_gone(&self, segment: &Segment) {
        let oldest = self.segments.load().first().map_or(u64::MAX, |slot| slot.base_offset);
        if self.is_closed() {
            self.forget_recent_segments(u64::MAX);
        } else if segment.header.base_offset < oldest {
            self.forget_recent_segments(oldest);
        }
    }

    /// Keeps no segment open, for whoever may come, whose base offset is below this.
    fn forget_recent_segments(&self, base_offset: u64) {
        let ours = |segment: &Segment| segment.path.parent() == Some(&*self.dir);
        self.env.recent_segments.forget(|segment| segment.header.base_offset < base_offset && ours(segment));
    }

    /// Base offsets of the segments, oldest first; the last is the active one.
    pub(crate) fn segment_base_offsets(&self) -> Vec<u64> {
        self.segments.load().iter().map(|slot| slot.base_offset).collect()
    }
}

/// What the simulation asks of the files themselves.
#[cfg(any(test, fuzzing))]
impl PartitionLog {
    /// What the frames carry that are appended now.
    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Where in the active segment's file, behind all frames, something else than zeros lies.
    pub(crate) fn dirt_behind_end(&self) -> std::io::Result<Option<u64>> {
        let end = self.control.committed().file_position();
        let Some(path) = self.segments.load().last().map(|slot| slot.path.clone()) else { return Ok(None) };
        let file = self.env.storage.open(&path, crate::storage::OpenMode::Read)?;
        scan::first_nonzero(&mut scan::FileSource::new(file)?, end)
    }
}

/// Poisons the partition and ends the sync if it is dropped, which a panic would do: those who wait for the sync would
/// wait for ever.
struct PoisonOnPanic<'a>(&'a PartitionLog);

impl Drop for PoisonOnPanic<'_> {
    fn drop(&mut self) {
        self.0.mark_poisoned("a panic ended a sync");
        self.0.sync.lock().running = None;
        self.0.synced.wake();
    }
}

/// No offset is left to append at.
fn offsets_used_up(spec: &PartitionSpec) -> Error {
    let (topic, partition) = (spec.topic.to_string(), spec.number);
    Repr::Poisoned { topic, partition, reason: "its offsets are used up".into() }.into()
}

/// The header of a new segment, with a random id.
fn new_segment_header(
    spec: &PartitionSpec,
    sequence: u64,
    base_offset: u64,
    base_timestamp_ms: i64,
    predecessor: Option<Predecessor>,
) -> Result<SegmentHeader> {
    if base_offset >= OFFSET_LIMIT {
        return Err(offsets_used_up(spec));
    }
    let segment_id =
        random::u64().map_err(|source| Error::io("draw a random segment id for", &*spec.topic, source))?.max(1); // 0 stands for no segment.
    Ok(SegmentHeader {
        segment_id,
        topic_id: spec.topic_id.to_le_bytes(),
        partition: spec.number,
        sequence,
        base_offset,
        base_timestamp_ms,
        predecessor,
    })
}
