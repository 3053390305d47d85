//! Waiting until records are on the device: by any number of tasks, none of which takes a thread.
//!
//! Whoever waits asks the background thread for a flush at once; one flush serves all that wait for what it covers.
//!
//! # Invariants
//! - Protocol: a task's waker is put on the list *before* the task looks whether what it waits for is there; who syncs,
//!   poisons, closes or deletes changes the state first and looks at the list after. So no wake-up is lost.
//! - A waker is on the list as long as its wait lives and is pending, and no longer.
//! - Appends look at the list only while somebody waits who came before what is waited for was appended, and who counts
//!   as one of the sleepers that they look for anyway: else they pay nothing. The first append that looks and finds
//!   nobody waiting for more ends that; until then only the list's last one does who leaves it.
//! - Wakers are other people's code: they are called, and dropped, with no lock of this module held.
//!
//! # Thread safety
//! Any thread may call anything. A wait belongs to one thread at a time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Poll, Waker},
    time::{Duration, Instant},
};

use super::{PartitionLog, closing::Life};
use crate::{
    error::{Repr, Result},
    sync::{Mutex, Ordering},
    waiter::{Waiter, remaining, wake_task},
};

/// Those who wait until something is on the device.
#[derive(Debug, Default)]
pub(super) struct Waits {
    list: Mutex<List>,
}

/// By the offset that is waited for, and a number of one's own.
type Wakers = BTreeMap<(u64, u64), Waker>;

#[derive(Debug, Default)]
struct List {
    wakers: Wakers,
    /// Numbers that were given out.
    numbers: u64,
    /// Somebody may wait who relies on an append to ask for the flush, which counts as a sleeper.
    ahead: bool,
}

/// One wait: until the record at an offset is on the device.
#[derive(Debug)]
pub(crate) struct DurableWait {
    partition: Arc<PartitionLog>,
    offset: u64,
    /// On the list.
    number: Option<u64>,
}

impl DurableWait {
    /// Until everything up to and including `offset` is on the device, which may not be appended yet.
    pub(crate) fn new(partition: Arc<PartitionLog>, offset: u64) -> Self {
        Self { partition, offset, number: None }
    }

    /// Whether it is; if not, `waker` is called once when it may be. Kinds `Poisoned`, `Closed` and `UnknownTopic` if it
    /// won't be, `LimitReached` if there can be no thread that flushes.
    pub(crate) fn poll(&mut self, waker: &Waker) -> Poll<Result<()>> {
        let outcome = self.outcome().or_else(|| {
            self.register(waker);
            self.outcome()
        });
        match outcome {
            Some(outcome) => {
                self.forget();
                Poll::Ready(outcome)
            }
            None => match self.partition.env.flusher.begin() {
                Ok(()) => {
                    self.partition.ask_for_flush(self.offset);
                    Poll::Pending
                }
                Err(error) => {
                    self.forget();
                    Poll::Ready(Err(error))
                }
            },
        }
    }

    fn outcome(&self) -> Option<Result<()>> {
        if self.partition.durable_offset() > self.offset {
            return Some(Ok(()));
        }
        if let Err(error) = self.partition.check_poison() {
            return Some(Err(error));
        }
        match self.partition.life.load(Ordering::Acquire) {
            life if life == Life::Deleted as u8 => Some(Err(self.partition.deleted())),
            // Who is closing syncs first.
            life if life == Life::Closed as u8 => Some(Err(Repr::Closed.into())),
            _ => None,
        }
    }

    /// Puts the waker on the list.
    fn register(&mut self, waker: &Waker) {
        let mut list = self.partition.waits.list.lock();
        let number = *self.number.get_or_insert_with(|| {
            list.numbers += 1;
            list.numbers
        });
        let known = list.wakers.get(&(self.offset, number)).is_some_and(|known| known.will_wake(waker));
        let replaced = if known { None } else { list.wakers.insert((self.offset, number), waker.clone()) };
        drop(list);
        drop(replaced);
    }

    /// Takes the waker off the list, if it is still there.
    fn forget(&mut self) {
        let Some(number) = self.number.take() else { return };
        let mut list = self.partition.waits.list.lock();
        let waker = list.wakers.remove(&(self.offset, number));
        self.partition.stop_unless_awaited(&mut list);
        drop(list);
        drop(waker);
    }
}

impl Drop for DurableWait {
    fn drop(&mut self) {
        self.forget();
    }
}

impl PartitionLog {
    /// Waits until everything up to and including `offset` is on the device; false if it isn't after `timeout`. Kinds as
    /// of [`DurableWait::poll`].
    pub(crate) fn wait_durable(self: &Arc<Self>, offset: u64, timeout: Duration) -> Result<bool> {
        let deadline = Instant::now().checked_add(timeout);
        let sleeper = Arc::new(Waiter::default());
        let waker = Waker::from(sleeper.clone());
        let mut wait = DurableWait::new(self.clone(), offset);
        loop {
            let ticket = sleeper.ticket();
            if let Poll::Ready(outcome) = wait.poll(&waker) {
                return outcome.map(|()| true);
            }
            let remaining = remaining(deadline);
            if remaining.is_zero() {
                return Ok(false);
            }
            sleeper.wait(ticket, remaining);
        }
    }

    /// Has the background thread flush now, or as soon as the offset is appended.
    fn ask_for_flush(self: &Arc<Self>, offset: u64) {
        if offset >= self.end_offset() {
            let mut list = self.waits.list.lock();
            if !list.ahead {
                list.ahead = true;
                self.control.add_sleeper();
            }
        }
        // Behind the sleeper's count: either we see the append, or it sees us.
        if offset < self.end_offset() {
            self.flush_within(Duration::ZERO);
        }
    }

    /// To be called behind an append that has found sleepers.
    pub(super) fn flush_if_awaited(self: &Arc<Self>) {
        let awaited = {
            let mut list = self.waits.list.lock();
            if !list.ahead {
                return;
            }
            let end_offset = self.end_offset();
            let is_appended = |((offset, _), _): (&(u64, u64), &Waker)| *offset < end_offset;
            if list.wakers.last_key_value().is_none_or(is_appended) {
                self.stop_looking(&mut list);
            }
            list.wakers.first_key_value().is_some_and(is_appended)
        };
        if awaited {
            self.flush_within(Duration::ZERO);
        }
    }

    /// Appends need look no more once nobody waits. As long as somebody does, if only for what is appended by now, the
    /// append may still be about to look, and nobody else asks for the flush: then it is left to that one.
    fn stop_unless_awaited(&self, list: &mut List) {
        if list.ahead && list.wakers.is_empty() {
            self.stop_looking(list);
        }
    }

    fn stop_looking(&self, list: &mut List) {
        list.ahead = false;
        self.control.remove_sleeper();
    }

    /// To be called when more is on the device.
    pub(super) fn wake_durable(&self) {
        let durable_offset = self.durable_offset();
        self.wake_some(|wakers| {
            let others = wakers.split_off(&(durable_offset, 0));
            std::mem::replace(wakers, others)
        });
    }

    /// To be called when nothing more will be.
    pub(super) fn wake_all_durable(&self) {
        self.wake_some(std::mem::take);
    }

    /// Wakes those that `take` takes off the list.
    fn wake_some(&self, take: impl FnOnce(&mut Wakers) -> Wakers) {
        let woken = {
            let mut list = self.waits.list.lock();
            let woken = take(&mut list.wakers);
            self.stop_unless_awaited(&mut list);
            woken
        };
        woken.into_values().for_each(wake_task);
    }
}
