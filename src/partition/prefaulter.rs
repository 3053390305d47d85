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
    collections::VecDeque,
    ops::Range,
    sync::{Arc, Weak},
    thread::{self, JoinHandle},
};

use super::segment::Segment;
use crate::{
    housekeeper::Background,
    sync::{Condvar, Mutex},
};

/// So many ranges may wait. When there are more, appends are faster than this thread, which then leaves the oldest to them.
const WAITING: usize = 16;

/// The handle of the thread.
#[derive(Debug, Default)]
pub(crate) struct Prefaulter {
    /// Whether there may be a thread.
    is_there: bool,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Agenda {
    waiting: VecDeque<(Weak<Segment>, Range<usize>)>,
    state: State,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    NotBegun,
    Begun,
    /// Or it can't begin.
    Ended,
}

impl Prefaulter {
    /// One that has a thread as soon as it needs one; or never, as the default.
    pub(crate) fn new(background: Background) -> Arc<Self> {
        let is_there = cfg!(target_os = "linux") && background == Background::Threads;
        Arc::new(Self { is_there, shared: Arc::default(), thread: Mutex::default() })
    }

    /// Whether it may do anything.
    pub(super) fn is_there(&self) -> bool {
        self.is_there
    }

    /// Has the pages of a range made, which lies in what is reserved of the segment.
    pub(super) fn prefault(&self, segment: &Arc<Segment>, range: Range<usize>) {
        let mut agenda = self.shared.agenda.lock();
        if agenda.state == State::NotBegun && self.is_there {
            agenda.state = self.begin();
        }
        if agenda.state != State::Begun {
            return;
        }
        if agenda.waiting.len() == WAITING {
            agenda.waiting.pop_front();
        }
        agenda.waiting.push_back((Arc::downgrade(segment), range));
        drop(agenda);
        self.shared.changed.notify_one();
    }

    /// Starts the thread. If the system has none, so be it.
    fn begin(&self) -> State {
        let shared = self.shared.clone();
        let thread = thread::Builder::new().name("tidelog-prefaulter".into()).spawn(move || run(&shared));
        let Ok(thread) = thread else { return State::Ended };
        *self.thread.lock() = Some(thread);
        State::Begun
    }

    /// Ends the thread, for good, and waits for what it is at.
    pub(crate) fn stop(&self) {
        let mut agenda = self.shared.agenda.lock();
        agenda.state = State::Ended;
        agenda.waiting.clear();
        drop(agenda);
        self.shared.changed.notify_one();
        let thread = self.thread.lock().take();
        // It can't panic, and holds nothing whose end would bring us here.
        let _ = thread.map(JoinHandle::join);
    }
}

impl Drop for Prefaulter {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    let mut agenda = shared.agenda.lock();
    while agenda.state == State::Begun {
        let Some((segment, range)) = agenda.waiting.pop_front() else {
            shared.changed.wait(&mut agenda);
            continue;
        };
        drop(agenda);
        if let Some(segment) = segment.upgrade() {
            segment.region.prefault(range);
        }
        agenda = shared.agenda.lock();
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
        record::Record,
        storage::{OpenMode, Storage, fs::FsStorage},
    };

    /// A partition of large segments on the file system.
    fn open(dir: &Path, prefaulter: Arc<Prefaulter>) -> Arc<PartitionLog> {
        let machine = Machine::new();
        machine.change(|settings| settings.segment_bytes = 32 << 20);
        let env = Environment {
            storage: Arc::new(FsStorage),
            clock: crate::clock::Clock::System,
            flusher: Flusher::start(Background::Threads).unwrap(),
            prefaulter,
            recent_segments: Arc::default(),
            open_files: OpenFiles::bounded(16, FsStorage),
            figures: Default::default(),
            positional_appends: false,
            mapped_after: 0,
        };
        PartitionLog::open(&env, dir, machine.spec.clone()).unwrap().0
    }

    fn state(prefaulter: &Prefaulter) -> State {
        prefaulter.shared.agenda.lock().state
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_fast_stream_has_its_pages_made_and_stays_what_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let prefaulter = Prefaulter::new(Background::Threads);
        let partition = open(dir.path(), prefaulter.clone());
        assert_eq!(state(&prefaulter), State::NotBegun);

        let value = vec![7; 100_000];
        let (began, mut count) = (Instant::now(), 0);
        while state(&prefaulter) == State::NotBegun || count < 1000 {
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
        assert_eq!(state(&prefaulter), State::Ended);
        assert!(prefaulter.thread.lock().is_none());
        partition.append(&Record::new(&value), None).unwrap();
        partition.close().unwrap();
        let partition = open(dir.path(), Arc::default());
        assert_eq!(partition.end_offset(), count as u64 + 1);
    }

    #[test]
    fn what_is_no_longer_used_is_not_kept_and_too_much_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let partition = open(dir.path(), Arc::default());
        let segment = partition.writer().unwrap().segment().clone();
        let prefaulter = Prefaulter::default();
        prefaulter.prefault(&segment, 0..4096);
        assert!(prefaulter.shared.agenda.lock().waiting.is_empty(), "the default has no thread");

        // As if the thread were at something else.
        prefaulter.shared.agenda.lock().state = State::Begun;
        let handles = Arc::strong_count(&segment);
        for page in 0..3 * WAITING {
            prefaulter.prefault(&segment, 4096 * page..4096 * (page + 1));
        }
        assert_eq!(Arc::strong_count(&segment), handles);
        let agenda = prefaulter.shared.agenda.lock();
        assert_eq!(agenda.waiting.len(), WAITING);
        assert_eq!(agenda.waiting.back().map(|(_, range)| range.end), Some(4096 * 3 * WAITING));
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
        region.prefault(0..1 << 20);
        region.prefault(1 << 20..1 << 21);
        let mut bytes = [0; 4];
        assert_eq!(file.read_at(&mut bytes, 5000).unwrap(), 4);
        assert_eq!((file.len().unwrap(), &bytes), (8192, b"here"));
    }
}
