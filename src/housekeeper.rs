//! The log's second background thread: chores that may take long, such as removing files, kept away from the one that
//! flushes.
//!
//! # Invariants
//! - Chores are held weakly: the thread keeps nothing alive.
//! - A chore that panics is told by the panic hook, doesn't end the others, and is tried again after a while.
//!
//! # Thread safety
//! Any thread may call anything; `schedule` takes a short lock, and `begin` one that is held while the thread is started.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    fmt,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use crate::{
    background::{Background, BackgroundThread},
    error::Result,
};

/// How long a chore rests that panicked.
const PANIC_PAUSE: Duration = if cfg!(test) { Duration::from_millis(1) } else { Duration::from_secs(60) };

/// Something to be done now and then.
pub(crate) trait Chore: Send + Sync {
    /// Does it; answers when it is due again, if it is.
    fn run(&self) -> Option<Instant>;
}

/// The handle of the thread.
pub(crate) struct Housekeeper {
    shared: Arc<Shared>,
    thread: BackgroundThread,
}

#[derive(Default)]
struct Shared {
    agenda: Mutex<Agenda>,
    changed: Condvar,
}

#[derive(Default)]
struct Agenda {
    /// When, and which: by the number that it got when it was scheduled, so that times are unique.
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    chores: BTreeMap<u64, Weak<dyn Chore>>,
    scheduled: u64,
    stopped: bool,
}

impl Housekeeper {
    /// One whose thread hasn't begun.
    pub(crate) fn new(background: Background) -> Arc<Self> {
        let thread = BackgroundThread::new("tidelog-housekeeper", background);
        Arc::new(Self { shared: Arc::default(), thread })
    }

    /// Has the thread, if there is to be one, begin with what is scheduled. To be called by whoever has a chore that isn't
    /// to wait for others to call it. Kind `LimitReached` if there are no more threads.
    pub(crate) fn begin(&self) -> Result<()> {
        self.thread.begin(|| {
            let shared = self.shared.clone();
            move || run(&shared)
        })
    }

    #[cfg(test)]
    pub(crate) fn has_begun(&self) -> bool {
        self.thread.is_started()
    }

    /// Does what is scheduled, once, due or not; only where there is no thread.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn step(&self) {
        assert!(!self.thread.is_started(), "the thread does it");
        let chores: Vec<_> = {
            let mut agenda = self.shared.agenda.lock();
            agenda.due.clear();
            std::mem::take(&mut agenda.chores).into_values().collect()
        };
        for weak in chores {
            if let Some(due) = weak.upgrade().and_then(|chore| chore.run()) {
                self.shared.agenda.lock().add(weak, due);
            }
        }
    }

    /// Has the chore run at `due`, if the thread has [begun](Housekeeper::begin) by then, else as soon as it has; and again
    /// whenever it says. Ignored once stopped.
    pub(crate) fn schedule(&self, chore: Weak<dyn Chore>, due: Instant) {
        self.shared.agenda.lock().add(chore, due);
        self.shared.changed.notify_one();
    }

    /// Ends the thread and waits for what it is at.
    pub(crate) fn stop(&self) {
        self.shared.agenda.lock().stopped = true;
        self.shared.changed.notify_one();
        self.thread.end();
    }
}

impl Drop for Housekeeper {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for Housekeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Housekeeper").finish_non_exhaustive()
    }
}

impl Agenda {
    fn add(&mut self, chore: Weak<dyn Chore>, due: Instant) {
        if !self.stopped {
            self.scheduled += 1;
            self.due.push(Reverse((due, self.scheduled)));
            self.chores.insert(self.scheduled, chore);
        }
    }

    /// What is due now, if anything.
    fn pop_due(&mut self) -> Option<Weak<dyn Chore>> {
        let &Reverse((due, _)) = self.due.peek()?;
        if due > Instant::now() {
            return None;
        }
        let Reverse((_, id)) = self.due.pop()?;
        self.chores.remove(&id)
    }
}

fn run(shared: &Shared) {
    while let Some(weak) = next_due(shared) {
        let Some(chore) = weak.upgrade() else { continue };
        // The state that a chore leaves behind when it panics is guarded by its own locks, which have no poison.
        let again = panic::catch_unwind(AssertUnwindSafe(|| chore.run()));
        drop(chore);
        if let Some(due) = again.unwrap_or_else(|_| Instant::now().checked_add(PANIC_PAUSE)) {
            shared.agenda.lock().add(weak, due);
        }
    }
}

/// Waits until something is due. `None` once stopped.
fn next_due(shared: &Shared) -> Option<Weak<dyn Chore>> {
    let mut agenda = shared.agenda.lock();
    loop {
        if agenda.stopped {
            return None;
        }
        if let Some(chore) = agenda.pop_due() {
            return Some(chore);
        }
        match agenda.due.peek().map(|&Reverse((due, _))| due) {
            Some(next) => {
                let _ = shared.changed.wait_until(&mut agenda, next);
            }
            None => shared.changed.wait(&mut agenda),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    struct Told {
        name: &'static str,
        to: Mutex<mpsc::Sender<&'static str>>,
        times: Mutex<u32>,
    }

    impl Chore for Told {
        fn run(&self) -> Option<Instant> {
            self.to.lock().send(self.name).unwrap();
            let mut times = self.times.lock();
            *times -= 1;
            (*times > 0).then(Instant::now)
        }
    }

    /// Panics the first time.
    struct Panics(Told);

    impl Chore for Panics {
        fn run(&self) -> Option<Instant> {
            let again = self.0.run();
            assert!(again.is_none(), "on purpose");
            again
        }
    }

    fn weak<T: Chore + 'static>(chore: &Arc<T>) -> Weak<dyn Chore> {
        let weak: Weak<T> = Arc::downgrade(chore);
        weak
    }

    #[test]
    fn chores_run_when_they_are_due_and_again_when_they_say_so() {
        let (to, told) = mpsc::channel();
        let chore = |name, times| Arc::new(Told { name, to: Mutex::new(to.clone()), times: Mutex::new(times) });
        let (never, soon, gone) = (chore("never", 1), chore("soon", 3), chore("gone", 1));
        let housekeeper = Housekeeper::new(Background::Threads);
        let now = Instant::now();
        housekeeper.schedule(weak(&never), now + Duration::from_secs(3600));
        let forgotten = weak(&gone);
        drop(gone);
        housekeeper.schedule(forgotten, now);
        housekeeper.schedule(weak(&soon), now + Duration::from_millis(5));
        assert!(told.recv_timeout(Duration::from_millis(30)).is_err(), "nobody has it begin");
        housekeeper.begin().unwrap();
        let order: Vec<_> = (0..3).map(|_| told.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
        assert_eq!(order, ["soon", "soon", "soon"]);
        housekeeper.stop();
        housekeeper.schedule(weak(&never), Instant::now());
        assert!(told.try_recv().is_err());
    }

    #[test]
    fn a_chore_that_panics_is_tried_again_and_keeps_no_other_from_running() {
        let (to, told) = mpsc::channel();
        let chore = |name, times| Told { name, to: Mutex::new(to.clone()), times: Mutex::new(times) };
        let (panics, other) = (Arc::new(Panics(chore("panics", 2))), Arc::new(chore("other", 1)));
        let housekeeper = Housekeeper::new(Background::Threads);
        housekeeper.begin().unwrap();
        housekeeper.schedule(weak(&panics), Instant::now());
        let mut order: Vec<_> = (0..2).map(|_| told.recv_timeout(Duration::from_secs(30)).unwrap()).collect();
        housekeeper.schedule(weak(&other), Instant::now());
        order.push(told.recv_timeout(Duration::from_secs(30)).unwrap());
        assert_eq!(order, ["panics", "panics", "other"]);
    }
}
