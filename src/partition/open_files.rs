//! The descriptors that a log has open: counted, bounded, closed where they aren't needed.
//!
//! A partition needs one while it has bytes that aren't on the device (see [`segment_file`](super::segment_file)).
//! Afterwards it is kept for a while, for whoever appends next. It goes when nothing was appended for a while, or when
//! another partition needs one and as many are open as the options allow: those that were idle the longest go first,
//! those that have to be flushed before come last.
//!
//! # Invariants
//! - A partition is in the queue exactly as long as its writer says so, which is changed under the writer's lock alone.
//! - At most `max` handles of segments are open, and one more for each thread that is appending just now.
//!
//! # Thread safety
//! Any thread may call anything. The queue's lock is short and comes behind the writers'. [`OpenFiles::make_room`] may
//! flush partitions, so it is called with no lock held.

use std::{
    collections::VecDeque,
    fmt,
    path::PathBuf,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{PartitionLog, control::LogPosition};
use crate::{
    error::Result,
    housekeeper::{Chore, Housekeeper},
    storage::{File, OpenMode, Storage},
    sync::{Mutex, ReentrantMutex},
};

/// A handle is closed when nothing was appended to its partition between two looks that are this far apart.
const IDLE_CHECK: Duration = Duration::from_secs(10);
/// When there is no room, this part of the handles is closed at once, so that the next ones find some.
const ROOM: usize = 8;

/// The descriptors of one log.
pub(crate) struct OpenFiles {
    max: usize,
    open: AtomicUsize,
    queue: Mutex<Queue>,
    /// Held by the thread that makes room: it flushes, and may so wake a task that needs room too before it goes on.
    making_room: ReentrantMutex<()>,
    /// Kept for what shouldn't fail when the process has run out of descriptors: syncing a folder, marking a failed
    /// sync, closing. A handle of any file.
    spare: Mutex<Option<Arc<dyn File>>>,
    spare_path: PathBuf,
    storage: Arc<dyn Storage>,
    housekeeper: Arc<Housekeeper>,
    this: Weak<Self>,
}

/// Partitions whose active segment has an open handle, those first that were looked at the longest ago.
#[derive(Default)]
struct Queue {
    entries: VecDeque<Entry>,
    /// The next look is scheduled.
    scheduled: bool,
}

struct Entry {
    partition: Weak<PartitionLog>,
    /// The partition's end at the last look: if it is still that, nothing was appended.
    end: LogPosition,
}

impl OpenFiles {
    /// At most `max` handles at a time, one at least. `spare_path` names any file that is there.
    pub(crate) fn new(
        max: usize,
        storage: Arc<dyn Storage>,
        spare_path: PathBuf,
        housekeeper: Arc<Housekeeper>,
    ) -> Arc<Self> {
        let open_files = Arc::new_cyclic(|this| Self {
            max,
            open: AtomicUsize::new(0),
            queue: Mutex::default(),
            making_room: ReentrantMutex::new(()),
            spare: Mutex::new(None),
            spare_path,
            storage,
            housekeeper,
            this: this.clone(),
        });
        open_files.keep_spare();
        open_files
    }

    /// For tests: without a spare one.
    #[cfg(test)]
    pub(crate) fn bounded(max: usize, storage: impl Storage + 'static) -> Arc<Self> {
        let housekeeper = Housekeeper::new(Default::default());
        Self::new(max, Arc::new(storage), PathBuf::from("/no such file"), housekeeper)
    }

    /// Who closes them in the background, and does other chores.
    pub(super) fn housekeeper(&self) -> &Housekeeper {
        &self.housekeeper
    }

    /// How many handles of segments are open.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// How many may be.
    #[cfg(feature = "metrics")]
    pub(crate) fn max(&self) -> usize {
        self.max
    }

    /// Whether one more may be opened.
    pub(super) fn has_room(&self) -> bool {
        self.open() < self.max
    }

    /// Takes a partition into the queue that isn't in it. Called with its writer's lock held. Kind `LimitReached` if
    /// there are no more threads, for one that looks at the queue.
    pub(super) fn add(&self, partition: &Arc<PartitionLog>) -> Result<()> {
        self.housekeeper.begin()?;
        let entry = Entry { partition: Arc::downgrade(partition), end: partition.control.committed() };
        let mut queue = self.queue.lock();
        queue.entries.push_back(entry);
        if !queue.scheduled {
            queue.scheduled = true;
            self.housekeeper.schedule(self.this.clone(), Instant::now() + IDLE_CHECK);
        }
        Ok(())
    }

    /// Closes handles until some may be opened, as far as that is possible; flushes partitions if it has to. If
    /// `ran_out` (the system refused to open one) also where there are fewer than the options allow.
    pub(super) fn make_room(&self, ran_out: bool) {
        let _turn = self.making_room.lock();
        if self.has_room() && !ran_out {
            return; // Made by the one before.
        }
        let now = self.open().min(self.max);
        let target = now.saturating_sub((now / ROOM).max(1));
        self.sweep(target);
        // Now those too that were appended to before the first look.
        let unsynced = self.sweep(target);
        let excess = self.open().saturating_sub(target);
        let flushed = &unsynced[..unsynced.len().min(excess)];
        flushed.iter().for_each(|partition| partition.start_writeback());
        for partition in flushed {
            // A failure poisons the partition, which tells its callers; its handle stays open.
            let _ = partition.flush();
        }
        if !flushed.is_empty() {
            self.sweep(target);
        }
    }

    /// Looks once at each partition in the queue, until no more than `target` handles are open: closes the handle where
    /// nothing was appended since the last look. Answers those where it can't be closed before a flush.
    fn sweep(&self, target: usize) -> Vec<Arc<PartitionLog>> {
        let looks = self.queue.lock().entries.len();
        let (mut unsynced, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..looks {
            if self.open() <= target {
                break;
            }
            let Some(mut entry) = self.queue.lock().entries.pop_front() else { break };
            let Some(partition) = entry.partition.upgrade() else { continue };
            let end = partition.control.committed();
            if end != entry.end {
                entry.end = end;
                self.queue.lock().entries.push_back(entry);
            } else if !partition.close_clean_handle() {
                kept.push(entry);
                unsynced.push(partition);
            }
        }
        let mut queue = self.queue.lock();
        kept.into_iter().rev().for_each(|entry| queue.entries.push_front(entry));
        unsynced
    }

    /// Runs `attempt`, and once more without the spare descriptor if there was none left.
    pub(super) fn with_spare<T, E>(
        &self,
        ran_out: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> Result<T, E>,
    ) -> Result<T, E> {
        match attempt() {
            Err(error) if ran_out(&error) => {
                let mut spare = self.spare.lock();
                *spare = None;
                let outcome = attempt();
                *spare = self.open_spare();
                outcome
            }
            outcome => outcome,
        }
    }

    /// Sees to it that there is a spare descriptor, if possible.
    fn keep_spare(&self) {
        let mut spare = self.spare.lock();
        if spare.is_none() {
            *spare = self.open_spare();
        }
    }

    fn open_spare(&self) -> Option<Arc<dyn File>> {
        self.storage.open(&self.spare_path, OpenMode::Read).ok()
    }
}

impl Chore for OpenFiles {
    fn run(&self) -> Option<Instant> {
        self.keep_spare();
        self.sweep(0);
        let mut queue = self.queue.lock();
        queue.scheduled = !queue.entries.is_empty();
        queue.scheduled.then(|| Instant::now() + IDLE_CHECK)
    }
}

impl fmt::Debug for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenFiles").field("open", &self.open()).field("max", &self.max).finish_non_exhaustive()
    }
}

/// Counts an open handle as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<OpenFiles>);

impl Counted {
    pub(super) fn new(open_files: &Arc<OpenFiles>) -> Self {
        open_files.open.fetch_add(1, Ordering::Relaxed);
        Self(open_files.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
