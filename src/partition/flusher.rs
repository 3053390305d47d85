//! The log's first background thread: flushes what is due, raises offset ceilings ahead of need.
//!
//! A partition asks for a visit ([`Flusher::schedule`]) when an append makes it dirty, or when its ceiling comes near;
//! an idle log sleeps, and one that nobody appends to has no thread ([`Flusher::begin`]). All that are due together are started first and then synced one by one, so that the device
//! works on all of them at once.
//!
//! # Invariants
//! - Partitions are held weakly: the thread keeps none of them open.
//! - Nothing is appended unless there is the thread.
//! - If the thread dies, every partition is poisoned, also one that is opened later: none goes on promising a flush that won't come.
//!
//! # Thread safety
//! Any thread may call anything; `schedule` takes a short lock and may be called under a partition's writer lock.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Weak},
    time::Instant,
};

use crate::{
    background::{Background, BackgroundThread},
    error::Result,
    partition::PartitionLog,
    sync::{Condvar, Mutex},
};

/// Why partitions are poisoned that nobody flushes any more.
const DIED: &str = "the flusher thread died";

/// The handle of the thread.
#[derive(Debug)]
pub(crate) struct Flusher {
    shared: Arc<Shared>,
    thread: BackgroundThread,
}

#[derive(Debug, Default)]
struct Shared {
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Agenda {
    visits: BinaryHeap<Reverse<Visit>>,
    /// All that are open, to be poisoned should the thread die; and some that no longer are.
    partitions: Vec<Weak<PartitionLog>>,
    /// The number of partitions at which to look for those again: twice what was left the last time.
    sweep_at: usize,
    stopped: bool,
    /// It has panicked.
    died: bool,
}

#[derive(Debug)]
struct Visit {
    due: Instant,
    partition: Weak<PartitionLog>,
}

impl PartialEq for Visit {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}

impl Eq for Visit {}

impl PartialOrd for Visit {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Visit {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

impl Flusher {
    /// One whose thread hasn't begun.
    pub(crate) fn new(background: Background) -> Arc<Self> {
        let thread = BackgroundThread::new("tidelog-flusher", background);
        Arc::new(Self { shared: Arc::default(), thread })
    }

    /// Has the thread begin, if there is to be one. To be called before anything is promised that takes a visit. Kind
    /// `LimitReached` if there are no more threads.
    pub(super) fn begin(&self) -> Result<()> {
        self.thread.begin(|| {
            let shared = self.shared.clone();
            move || run(&shared)
        })
    }

    #[cfg(test)]
    pub(crate) fn has_begun(&self) -> bool {
        self.thread.is_started()
    }

    /// Does what is asked for, once, due or not; only where there is no thread.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn step(&self) {
        assert!(!self.thread.is_started(), "the thread does it");
        let visits = std::mem::take(&mut self.shared.agenda.lock().visits).into_sorted_vec();
        let visits = visits.into_iter().rev();
        visit(&visits.filter_map(|Reverse(visit)| Some((visit.due, visit.partition.upgrade()?))).collect::<Vec<_>>());
    }

    /// Makes a partition known, once.
    pub(crate) fn add(&self, partition: &Arc<PartitionLog>) {
        let mut agenda = self.shared.agenda.lock();
        if agenda.partitions.len() >= agenda.sweep_at {
            agenda.partitions.retain(|partition| partition.strong_count() > 0);
            agenda.sweep_at = 2 * agenda.partitions.len() + 16;
        }
        agenda.partitions.push(Arc::downgrade(partition));
        let died = agenda.died;
        drop(agenda);
        if died {
            partition.poison(DIED);
        }
    }

    /// Asks for a visit ([`PartitionLog::maintain`]) at `due`. Ignored once stopped.
    pub(crate) fn schedule(&self, partition: &Arc<PartitionLog>, due: Instant) {
        let mut agenda = self.shared.agenda.lock();
        if agenda.stopped {
            return;
        }
        let sooner = agenda.visits.peek().is_none_or(|Reverse(next)| due < next.due);
        agenda.visits.push(Reverse(Visit { due, partition: Arc::downgrade(partition) }));
        drop(agenda);
        if sooner {
            self.shared.changed.notify_one();
        }
    }

    /// How many visits are asked for.
    #[cfg(test)]
    pub(super) fn visits(&self) -> usize {
        self.shared.agenda.lock().visits.len()
    }

    /// Ends the thread and waits for it.
    pub(crate) fn stop(&self) {
        self.shared.agenda.lock().stopped = true;
        self.shared.changed.notify_one();
        // A panic in it has been told already: it poisoned the partitions.
        self.thread.end();
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.stop();
    }
}

fn run(shared: &Shared) {
    // The panic itself is told by the panic hook; here it is only kept from going unnoticed by those who append.
    if panic::catch_unwind(AssertUnwindSafe(|| visit_all(shared))).is_err() {
        let partitions = {
            let mut agenda = shared.agenda.lock();
            (agenda.stopped, agenda.died) = (true, true);
            std::mem::take(&mut agenda.partitions)
        };
        for partition in partitions.iter().filter_map(Weak::upgrade) {
            partition.poison(DIED);
        }
    }
}

fn visit_all(shared: &Shared) {
    while let Some(due) = next_due(shared) {
        visit(&due);
    }
}

fn visit(due: &[(Instant, Arc<PartitionLog>)]) {
    for (_, partition) in due {
        partition.start_writeback();
    }
    for (due, partition) in due {
        // A failure poisons the partition, which tells its callers.
        let _ = partition.maintain(*due);
    }
}

/// Waits until something is due: when it was, and whose. `None` once stopped.
fn next_due(shared: &Shared) -> Option<Vec<(Instant, Arc<PartitionLog>)>> {
    let mut agenda = shared.agenda.lock();
    loop {
        if agenda.stopped {
            return None;
        }
        let now = Instant::now();
        let mut due = Vec::new();
        while agenda.visits.peek().is_some_and(|Reverse(visit)| visit.due <= now) {
            let visit = agenda.visits.pop();
            due.extend(visit.and_then(|Reverse(visit)| Some((visit.due, visit.partition.upgrade()?))));
        }
        if !due.is_empty() {
            return Some(due);
        }
        match agenda.visits.peek().map(|Reverse(visit)| visit.due) {
            Some(next) => {
                let _ = shared.changed.wait_until(&mut agenda, next);
            }
            None => shared.changed.wait(&mut agenda),
        }
    }
}
