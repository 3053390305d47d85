//! That something changed among a log's topics: for those who read topics that may come later.
//!
//! # Invariants
//! The version grows behind each change: who reads the version first and the topics after misses none that the version
//! doesn't tell of.
//!
//! # Thread safety
//! Any thread may call anything. Sleepers keep to the protocol of [`Waiter`]: ticket (or registration), watch, look,
//! wait. Whoever tells a change holds none of the topics' locks: waking a task runs its executor's code.

use std::sync::Arc;

use crate::{
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
    waiter::Waiter,
};

/// Counts changes, and wakes who waits for them.
#[derive(Debug, Default)]
pub(crate) struct Changes {
    version: AtomicU64,
    closed: AtomicBool,
    watchers: Mutex<Vec<Arc<Waiter>>>,
}

impl Changes {
    /// Another one after each change: topics, or partitions of one, came or went.
    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// Whether the log was closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// To be called behind a change.
    pub(crate) fn tell(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
        let watchers = self.watchers.lock().clone();
        watchers.iter().for_each(|waiter| waiter.wake());
    }

    /// The log is about to be closed.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.tell();
    }

    /// Changes wake `waiter` from now on, until [`unwatch`](Changes::unwatch).
    pub(crate) fn watch(&self, waiter: &Arc<Waiter>) {
        self.watchers.lock().push(waiter.clone());
    }

    /// Ends one [`watch`](Changes::watch).
    pub(crate) fn unwatch(&self, waiter: &Arc<Waiter>) {
        let mut watchers = self.watchers.lock();
        if let Some(at) = watchers.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            watchers.swap_remove(at);
        }
    }
}
