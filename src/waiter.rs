//! Sleeping until something happens: one 32-bit word and the kernel's (or a portable) queue behind it.
//!
//! Protocol. The sleeper takes a [`ticket`](Waiter::ticket), *then* looks whether what it waits for is there, and only
//! if it isn't calls [`wait`](Waiter::wait) with that ticket. The waker changes the state first and calls
//! [`wake`](Waiter::wake) after. A wake between the ticket and the wait makes the wait return at once: no wake-up is
//! lost, and none is needed while nobody sleeps. Any thread may call anything.
//!
//! A future sleeps here too: [`register`](Waiter::register) takes its task's waker, under the same protocol, with the
//! registration in place of the ticket.

use std::{
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    task::{Wake, Waker},
    time::{Duration, Instant},
};

use crate::sync::{AtomicBool, AtomicU32, Mutex, Ordering};

/// Wakes a task, which runs other people's code: if that panics, the panic hook tells it, and neither the others that are
/// to be woken nor the thread that wakes them, which may be the one that flushes, have to do with it.
pub(crate) fn wake_task(task: Waker) {
    let _ = panic::catch_unwind(AssertUnwindSafe(|| task.wake()));
}

/// One place to sleep at.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    wakes: AtomicU32,
    /// Whether there is a task; so that waking threads takes no lock.
    has_task: AtomicBool,
    task: Mutex<Option<Waker>>,
    #[cfg(any(not(target_os = "linux"), loom))]
    queue: (Mutex<()>, crate::sync::Condvar),
}

/// What [`Waiter::wait`] compares to tell whether it was woken since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u32);

impl Waiter {
    /// To be taken before looking at the state that is waited for.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.wakes.load(Ordering::SeqCst))
    }

    /// Sleeps until a wake that came after the ticket, or for `timeout`. May return early.
    #[cfg(all(target_os = "linux", not(loom)))]
    pub(crate) fn wait(&self, ticket: Ticket, timeout: Duration) {
        use rustix::thread::futex;
        let timeout = futex::Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // Every outcome (woken, another value, a signal, the timeout) sends the caller back to look at its state.
        let _ = futex::wait(&self.wakes, futex::Flags::PRIVATE, ticket.0, Some(&timeout));
    }

    /// Sleeps until a wake that came after the ticket, or for `timeout`. May return early.
    #[cfg(any(not(target_os = "linux"), loom))]
    pub(crate) fn wait(&self, ticket: Ticket, timeout: Duration) {
        let mut guard = self.queue.0.lock();
        if self.ticket() == ticket {
            let _ = self.queue.1.wait_for(&mut guard, timeout);
        }
    }

    /// Has the task woken too, once, by the next wake. To be called before looking at the state that is waited for. A
    /// task that was registered before is replaced.
    pub(crate) fn register(&self, waker: &Waker) {
        let mut task = self.task.lock();
        let is_known = task.as_ref().is_some_and(|registered| registered.will_wake(waker));
        let replaced = if is_known { None } else { task.replace(waker.clone()) };
        self.has_task.store(true, Ordering::SeqCst);
        drop(task);
        drop(replaced); // which runs the executor's code, so not under the lock
    }

    /// Forgets the task, if there is one.
    pub(crate) fn unregister(&self) {
        let task = self.task.lock().take();
        drop(task); // which runs the executor's code, so not under the lock
    }

    fn wake_task(&self) {
        if self.has_task.load(Ordering::SeqCst) && self.has_task.swap(false, Ordering::SeqCst) {
            let task = self.task.lock().take();
            if let Some(task) = task {
                wake_task(task);
            }
        }
    }

    /// Has wakes order less than they should.
    #[cfg(all(test, loom))]
    pub(crate) fn weaken(&self, mistake: crate::sync::model::Mistake) {
        self.wakes.weaken(mistake);
    }

    /// Wakes all who sleep here.
    pub(crate) fn wake(&self) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.wake_task();
        #[cfg(all(target_os = "linux", not(loom)))]
        {
            use rustix::thread::futex;
            // Fails only for a bad address, which a reference can't be.
            let _ = futex::wake(&self.wakes, futex::Flags::PRIVATE, i32::MAX as u32);
        }
        #[cfg(any(not(target_os = "linux"), loom))]
        {
            // Taking the lock orders this wake behind a sleeper's check of its ticket.
            drop(self.queue.0.lock());
            self.queue.1.notify_all();
        }
    }
}

/// A thread that sleeps here can be woken as a task is.
impl Wake for Waiter {
    fn wake(self: Arc<Self>) {
        Self::wake(&self);
    }
}

/// The longest single sleep: the system's calls don't take every duration.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(60 * 60);

/// Time until the deadline, or until it is to be looked at again. Without a deadline, it is further away than the clock
/// counts.
pub(crate) fn remaining(deadline: Option<Instant>) -> Duration {
    let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    remaining.map_or(LONGEST_SLEEP, |remaining| remaining.min(LONGEST_SLEEP))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread, time::Instant};

    use super::*;

    #[test]
    fn a_wake_after_the_ticket_ends_the_wait_at_once() {
        let waiter = Waiter::default();
        let ticket = waiter.ticket();
        waiter.wake();
        let start = Instant::now();
        waiter.wait(ticket, Duration::from_secs(60));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_sleeper_is_woken_from_another_thread() {
        let waiter = Arc::new(Waiter::default());
        let sleeper = thread::spawn({
            let waiter = waiter.clone();
            let ticket = waiter.ticket();
            move || {
                while waiter.ticket() == ticket {
                    waiter.wait(ticket, Duration::from_secs(60));
                }
            }
        });
        thread::sleep(Duration::from_millis(20));
        waiter.wake();
        sleeper.join().unwrap();
    }

    /// Counts its wakes.
    #[derive(Default)]
    struct Woken(AtomicU32);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_task_is_woken_once_a_registration() {
        let (waiter, woken) = (Waiter::default(), Arc::new(Woken::default()));
        let waker = Waker::from(woken.clone());
        waiter.wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        for times in 1..3 {
            waiter.register(&waker);
            waiter.wake();
            waiter.wake();
            assert_eq!(woken.0.load(Ordering::SeqCst), times);
        }
        waiter.register(&waker);
        waiter.unregister();
        waiter.wake();
        assert_eq!(woken.0.load(Ordering::SeqCst), 2);
        assert_eq!(Arc::strong_count(&woken), 2);
    }

    /// An executor that is no good.
    struct Panics;

    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("on purpose");
        }
    }

    #[test]
    fn a_task_whose_waker_panics_is_no_harm_to_who_wakes() {
        let waiter = Waiter::default();
        waiter.register(&Waker::from(Arc::new(Panics)));
        let ticket = waiter.ticket();
        waiter.wake();
        assert_ne!(waiter.ticket(), ticket);
    }

    #[test]
    fn an_unwoken_wait_ends_with_its_timeout() {
        let waiter = Waiter::default();
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(10) {
            waiter.wait(waiter.ticket(), Duration::from_millis(10));
        }
    }
}
