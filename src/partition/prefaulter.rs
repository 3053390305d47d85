//! Makes pages of the page cache ahead of fast streams of appends, in a thread of its own.
//!
//! A store into a page that isn't there yet is a fault, which takes longer than the appends that fill the page: most of it
//! goes into zeroing (`cargo bench --bench append`; see [`crate::doc::performance`]). A processor that has nothing else to
//! do can do that meanwhile.
//!
//! # Invariants
//! - Nothing relies on it. Pages that aren't there in time are made by who stores.
//! - Only what is reserved is made, and no byte is changed.
//! - Segments are held weakly: what is no longer used isn't kept mapped.
//! - The thread begins with the first stream that is fast, so that most logs never have it.
//!
//! # Thread safety
//! Any thread may call anything; [`prefault`](Prefaulter::prefault) takes a short lock and may be called under a partition's
//! writer lock.

use std::{
    ops::Range,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use parking_lot::Mutex;

use super::segment::Segment;
use crate::background::Background;

/// So much is made in one call, which keeps others in the process from mapping and unmapping anything.
const PIECE_BYTES: usize = 256 << 10;

/// So many ranges may wait. When there are more, appends are faster than this thread, and are left alone with the next.
const WAITING: usize = 16;

/// A range of a segment that is reserved.
type Wanted = (Weak<Segment>, Range<usize>);

/// The handle of the thread.
#[derive(Debug, Default)]
pub(crate) struct Prefaulter {
    is_there: Arc<AtomicBool>,
    worker: Mutex<Option<Worker>>,
}

#[derive(Debug)]
struct Worker {
    wanted: SyncSender<Wanted>,
    thread: JoinHandle<()>,
}

impl Prefaulter {
    /// One that has a thread as soon as it needs one; or never, as the default.
    pub(crate) fn new(background: Background) -> Arc<Self> {
        let is_there = cfg!(target_os = "linux") && background == Background::Threads;
        Arc::new(Self { is_there: Arc::new(is_there.into()), worker: Mutex::default() })
    }

    /// Whether it makes any pages, as far as is known.
    pub(super) fn is_there(&self) -> bool {
        self.is_there.load(Ordering::Relaxed)
    }

    /// Has the pages of a range made, which lies in what is reserved of the segment.
    pub(super) fn prefault(&self, segment: &Arc<Segment>, range: Range<usize>) {
        let mut worker = self.worker.lock();
        if worker.is_none() && self.is_there() {
            *worker = self.begin();
        }
        if let Some(worker) = &*worker {
            let _ = worker.wanted.try_send((Arc::downgrade(segment), range));
        }
    }

    /// Starts the thread. If the system has none, so be it.
    fn begin(&self) -> Option<Worker> {
        let (wanted, ranges) = sync_channel(WAITING);
        let is_there = self.is_there.clone();
        let thread = thread::Builder::new().name("tidelog-prefaulter".into()).spawn(move || run(&ranges, &is_there));
        match thread {
            Ok(thread) => Some(Worker { wanted, thread }),
            Err(_) => {
                self.is_there.store(false, Ordering::Relaxed);
                None
            }
        }
    }

    /// Ends the thread, for good, and waits for what it is at.
    pub(crate) fn stop(&self) {
        let worker = {
            let mut worker = self.worker.lock();
            // Under the lock, so that nothing begins behind it.
            self.is_there.store(false, Ordering::Relaxed);
            worker.take()
        };
        if let Some(Worker { wanted, thread }) = worker {
            drop(wanted);
            // It can't panic, and holds nothing whose end would bring us here.
            let _ = thread.join();
        }
    }
}

impl Drop for Prefaulter {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes pages until nobody can want any, or the system can't.
fn run(ranges: &Receiver<Wanted>, is_there: &AtomicBool) {
    for (segment, range) in ranges {
        let Some(segment) = segment.upgrade() else { continue };
        for start in range.clone().step_by(PIECE_BYTES) {
            // What waits when it was stopped isn't needed.
            if !is_there.load(Ordering::Relaxed) {
                return;
            }
            if !segment.region.prefault(start..range.end.min(start + PIECE_BYTES)) {
                is_there.store(false, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::{
        path::Path,
        time::{Duration, Instant},
    };

    use super::{
        super::{Cursor, Environment, Flusher, OpenFiles, PartitionLog, tests::Machine},
        *,
    };
    use crate::{
        config::Durability,
        record::Record,
        storage::{OpenMode, Storage, fs::FsStorage},
    };

    /// A partition of large segments on the file system.
    fn open(dir: &Path, durability: Durability, prefaulter: Arc<Prefaulter>) -> Arc<PartitionLog> {
        let machine = Machine::new();
        machine.change(|settings| (settings.segment_bytes, settings.durability) = (32 << 20, durability));
        let env = Environment {
            storage: Arc::new(FsStorage),
            clock: crate::clock::Clock::System,
            flusher: Flusher::new(Background::Threads),
            prefaulter,
            recent_segments: Arc::default(),
            open_files: OpenFiles::bounded(16, FsStorage),
            figures: Default::default(),
            positional_appends: false,
            mapped_after: 0,
        };
        PartitionLog::open(&env, dir, machine.spec.clone()).unwrap().0
    }

    fn has_begun(prefaulter: &Prefaulter) -> bool {
        prefaulter.worker.lock().is_some()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fast_stream_has_its_pages_made_and_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let prefaulter = Prefaulter::new(Background::Threads);
        let partition = open(dir.path(), Durability::Written, prefaulter.clone());
        let value = vec![7; 100_000];
        let (began, mut count) = (Instant::now(), 0);
        while !has_begun(&prefaulter) || count < 1000 {
            partition.append(&Record::new(&value), None).unwrap();
            count += 1;
            assert!(began.elapsed() < Duration::from_secs(60), "never as fast as a stream");
        }
        let mut cursor = Cursor::new(&partition, 0).unwrap();
        let mut read = 0;
        while let Some(run) = cursor.next_run(1 << 20).unwrap() {
            read += run.iter().filter(|record| record.value() == Some(&value[..])).count();
        }
        assert_eq!(read, count);

        prefaulter.stop();
        let segment = partition.writer().unwrap().segment().clone();
        prefaulter.prefault(&segment, 0..4096);
        assert!(!prefaulter.is_there() && !has_begun(&prefaulter));
        partition.append(&Record::new(&value), None).unwrap();
        drop(segment);
        partition.close().unwrap();
        let partition = open(dir.path(), Durability::Written, Arc::default());
        assert_eq!(partition.end_offset(), count as u64 + 1);
    }

    /// A sync would write what was made, which is then written once more with records.
    #[test]
    fn no_pages_are_made_for_streams_that_are_synced() {
        let value = vec![7; 100_000];
        let records = vec![Record::new(&value); 10];
        for durability in [Durability::Synced, Durability::Interval(Duration::from_millis(50)), Durability::Written] {
            let dir = tempfile::tempdir().unwrap();
            let prefaulter = Prefaulter::new(Background::Threads);
            let partition = open(dir.path(), durability, prefaulter.clone());
            let before = partition.prefaults(&partition.writer().unwrap());
            assert_eq!(before, durability == Durability::Written && cfg!(target_os = "linux"));
            for _ in 0..100 {
                partition.append_batch(&records, None, &mut Vec::new()).unwrap();
                if durability == Durability::Written {
                    partition.flush().unwrap();
                }
            }
            assert!(!has_begun(&prefaulter), "{durability:?}");
            // However fast it was.
            assert!(!partition.prefaults(&partition.writer().unwrap()));
            partition.close().unwrap();
        }
    }

    #[test]
    fn what_is_no_longer_used_is_not_kept_and_too_much_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path(), Durability::Written, Arc::default());
        let segment = partition.writer().unwrap().segment().clone();
        let prefaulter = Prefaulter::default();
        prefaulter.prefault(&segment, 0..4096);
        assert!(!prefaulter.is_there() && !has_begun(&prefaulter), "the default has no thread");

        // One that is at something else.
        let (wanted, ranges) = sync_channel(WAITING);
        *prefaulter.worker.lock() = Some(Worker { wanted, thread: thread::spawn(|| {}) });
        let handles = Arc::strong_count(&segment);
        for page in 0..3 * WAITING {
            prefaulter.prefault(&segment, 4096 * page..4096 * (page + 1));
        }
        assert_eq!(Arc::strong_count(&segment), handles);
        drop(prefaulter);
        let waited: Vec<_> = ranges.iter().map(|(_, range)| range.start / 4096).collect();
        assert_eq!(waited, (0..WAITING).collect::<Vec<_>>());
    }

    #[test]
    fn where_the_system_makes_no_pages_it_is_not_asked_again() {
        let machine = Machine::new();
        let (partition, _) = machine.open();
        let prefaulter = Prefaulter { is_there: Arc::new(true.into()), worker: Mutex::default() };
        let segment = partition.writer().unwrap().segment().clone();
        prefaulter.prefault(&segment, 0..4096);
        let began = Instant::now();
        while prefaulter.is_there() {
            assert!(began.elapsed() < Duration::from_secs(30), "the simulated disk has no pages to make");
            thread::yield_now();
        }
    }

    /// Where a store would end the process.
    #[test]
    fn pages_behind_the_end_of_a_file_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = FsStorage.open(&dir.path().join("file"), OpenMode::CreateNew).unwrap();
        file.set_len(1 << 20).unwrap();
        let region = file.map(1 << 20).unwrap();
        file.write_all_at(b"here", 5000).unwrap();
        file.set_len(8192).unwrap();
        assert_eq!(region.prefault(0..1 << 20), cfg!(target_os = "linux"));
        assert_eq!(region.prefault(1 << 20..1 << 21), cfg!(target_os = "linux"));
        let mut bytes = [0; 4];
        assert_eq!(file.read_at(&mut bytes, 5000).unwrap(), 4);
        assert_eq!((file.len().unwrap(), &bytes), (8192, b"here"));
    }
}
