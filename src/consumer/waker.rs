//! Waking a consumer from elsewhere.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use crate::{housekeeper::Chore, waiter::Waiter};

/// Where a consumer sleeps, and whether somebody wants it to return.
#[derive(Debug, Default)]
pub(super) struct Signal {
    /// Shared with the partitions and the group, which know no signals.
    pub(super) waiter: Arc<Waiter>,
    woken: AtomicBool,
}

impl Signal {
    /// Whether a wake hasn't ended a `poll` yet.
    pub(super) fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    /// The same; and the wake has ended one now.
    pub(super) fn take_wake(&self) -> bool {
        self.is_woken() && self.woken.swap(false, Ordering::SeqCst)
    }
}

/// Due when a sleeping consumer has something to do; the housekeeper's thread does no more than wake it.
impl Chore for Signal {
    fn run(&self) -> Option<Instant> {
        self.waiter.wake();
        None
    }
}

/// Ends a [`poll`](crate::Consumer::poll) early, from another thread: made by
/// [`Consumer::waker`](crate::Consumer::waker). Cheap to clone; any thread may use it.
///
/// ```
/// # use std::{sync::atomic::{AtomicBool, Ordering}, thread, time::Duration};
/// # use tidelog::{Log, Record, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # log.create_topic("orders", TopicConfig::with_partitions(1))?;
/// let mut consumer = log.consumer("billing").topic("orders").open()?;
/// let waker = consumer.waker();
/// let stop = AtomicBool::new(false);
/// thread::scope(|scope| {
///     let service = scope.spawn(|| {
///         while !stop.load(Ordering::SeqCst) {
///             let batch = consumer.poll(Duration::from_secs(3600))?;
///             // deal with it
/// #           assert!(batch.is_empty());
///         }
///         consumer.close()
///     });
///     stop.store(true, Ordering::SeqCst); // first, so that who is woken finds it
///     waker.wake();
///     service.join().expect("it doesn't panic")
/// })
/// # }
/// ```
#[derive(Clone)]
pub struct ConsumerWaker {
    signal: Arc<Signal>,
}

impl ConsumerWaker {
    pub(super) fn new(signal: &Arc<Signal>) -> Self {
        Self { signal: signal.clone() }
    }

    /// Ends the [`poll`](crate::Consumer::poll) that is running, or else the next one: it returns at once, with an
    /// empty batch, and has read nothing. A running one that has found records by then returns these, and the next one
    /// ends. One wake ends one `poll`; several before that count as one.
    ///
    /// A pending [`ready`](crate::Consumer::ready) ends too; the wake is still there for the `poll` behind it. Of a
    /// consumer that is gone, nothing happens.
    pub fn wake(&self) {
        self.signal.woken.store(true, Ordering::SeqCst);
        self.signal.waiter.wake();
    }
}

impl fmt::Debug for ConsumerWaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerWaker").finish_non_exhaustive()
    }
}
