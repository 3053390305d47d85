//! Who is alive: the consumers of this process, and when they polled last.
//!
//! # Thread safety
//! A [`Pulse`] is shared by the consumer, which stores into it, and whoever looks at it; the rest lies under the groups'
//! lock.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{membership::Situation, subscription::Subscription};
use crate::waiter::Waiter;

/// In place of a deadline: the consumer is inside a poll, which takes as long as it takes.
const POLLING: u64 = u64::MAX;

/// A group with consumers in this process.
#[derive(Debug, Default)]
pub(super) struct LiveGroup {
    /// The generation in which its life began: from then on there has always been a consumer.
    pub(super) since: u64,
    /// Consumers, also those that were expelled and may come back.
    pub(super) consumers: usize,
    pub(super) members: BTreeMap<u64, LiveMember>,
    /// By their last id: what consumers subscribe to that were expelled and haven't come back yet.
    pub(super) expelled: BTreeMap<u64, Subscription>,
    /// What the latest rebalance went by.
    pub(super) situation: Situation,
    /// A rebalance couldn't be appended, or not wholly: it has to be tried again.
    pub(super) is_unsettled: bool,
}

/// A member that is alive.
#[derive(Debug)]
pub(super) struct LiveMember {
    pub(super) subscription: Subscription,
    pub(super) pulse: Arc<Pulse>,
}

impl LiveGroup {
    /// Whether there is nothing to keep of it.
    pub(super) fn is_over(&self) -> bool {
        self.consumers == 0 && !self.is_unsettled
    }
}

/// What a consumer and the groups tell each other without a lock.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Grows with each change of what the group's members own.
    version: AtomicU64,
    /// Nanoseconds on this process's clock by which the consumer has to poll again, or [`POLLING`].
    deadline: AtomicU64,
    pub(super) max_poll_interval: Duration,
    waiter: Arc<Waiter>,
}

impl Pulse {
    /// That of a consumer which has to poll within the interval from now on.
    pub(super) fn new(max_poll_interval: Duration, waiter: Arc<Waiter>) -> Self {
        let pulse = Self { version: AtomicU64::new(0), deadline: AtomicU64::new(POLLING), max_poll_interval, waiter };
        pulse.leave_poll();
        pulse
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Says that there is something new. Who sleeps has to be woken for it.
    pub(super) fn renew(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Wakes the consumer. Not to be called with a lock: it may run an executor's code.
    pub(super) fn wake(&self) {
        self.waiter.wake();
    }

    pub(super) fn enter_poll(&self) {
        self.deadline.store(POLLING, Ordering::Release);
    }

    pub(super) fn leave_poll(&self) {
        let deadline = nanoseconds(Instant::now()).saturating_add(as_nanoseconds(self.max_poll_interval));
        self.deadline.store(deadline.min(POLLING - 1), Ordering::Release);
    }

    /// Whether the consumer should have polled by now. If so, it is told from here on that it does: so it is told once.
    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        let deadline = self.deadline.load(Ordering::Acquire);
        let is_over = deadline != POLLING && deadline <= nanoseconds(now);
        // Not if it has just begun to.
        let exchange = || self.deadline.compare_exchange(deadline, POLLING, Ordering::AcqRel, Ordering::Acquire);
        is_over && exchange().is_ok()
    }

    /// The earliest moment at which it can be overdue. `None`: further away than the clock counts.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        match self.deadline.load(Ordering::Acquire) {
            POLLING => now.checked_add(self.max_poll_interval),
            deadline => origin().checked_add(Duration::from_nanos(deadline)),
        }
    }
}

/// What times count from.
fn origin() -> Instant {
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    *ORIGIN.get_or_init(Instant::now)
}

fn nanoseconds(time: Instant) -> u64 {
    as_nanoseconds(time.saturating_duration_since(origin()))
}

fn as_nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(interval: Duration) -> Pulse {
        Pulse::new(interval, Arc::default())
    }

    #[test]
    fn who_polls_is_never_overdue_and_who_does_not_is_told_once() {
        let (interval, now) = (Duration::from_secs(10), Instant::now());
        let pulse = pulse(interval);
        assert!(!pulse.is_overdue(now));
        assert!(pulse.due(now).unwrap() > now);
        let late = now + 2 * interval;
        pulse.enter_poll();
        assert!(!pulse.is_overdue(late));
        assert_eq!(pulse.due(late), Some(late + interval));
        pulse.leave_poll();
        assert!(pulse.is_overdue(late));
        assert!(!pulse.is_overdue(late));
    }

    #[test]
    fn no_interval_is_too_long() {
        let pulse = pulse(Duration::MAX);
        assert!(!pulse.is_overdue(Instant::now() + Duration::from_secs(1 << 30)));
        assert_eq!(
            pulse.due(Instant::now()).is_some(),
            origin().checked_add(Duration::from_nanos(u64::MAX - 1)).is_some()
        );
        pulse.enter_poll();
        assert_eq!(pulse.due(Instant::now()), None);
    }
}
