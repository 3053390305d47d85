//! Atomics, locks and the word that threads sleep on: those of the standard library and `parking_lot`, or, where models
//! are checked (`--cfg loom`), those of `loom`.
//!
//! # Invariants
//! - Without that flag this module is names and nothing else: no code, no cost.
//! - With it, everything that decides what a thread sees goes through `loom`: the atomics and locks of a partition, of
//!   [`Waiter`](crate::waiter::Waiter) and of [`Changes`](crate::changes::Changes), the words of the control page, which
//!   live in plain memory then, and who may touch which bytes of a segment ([`Borrows`](model::Borrows)). What is left
//!   (the storage in memory, the housekeeper, reference counts) is taken to be right: to a model it is one step.
//! - `loom` takes a sequentially consistent access for one that acquires and releases. What it does know is the fence: with
//!   that flag one stands behind each sequentially consistent store or exchange, which is how compilers map them to x86.
//!   A fence orders more than such a store does, so what relies on mixing these with weaker accesses isn't checked.
//!
//! # Thread safety
//! That is what it is for.

#[cfg(loom)]
pub(crate) mod model;

#[cfg(not(loom))]
pub(crate) use parking_lot::{Condvar, MappedMutexGuard, Mutex, MutexGuard, ReentrantMutex};
#[cfg(not(loom))]
pub(crate) use std::{
    sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64},
    thread::ThreadId,
};

#[cfg(loom)]
pub(crate) use self::model::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, Condvar, MappedMutexGuard, Mutex, MutexGuard, ReentrantMutex, ThreadId,
};
pub(crate) use std::sync::atomic::Ordering;

/// Which thread runs.
pub(crate) fn this_thread() -> ThreadId {
    #[cfg(not(loom))]
    let thread = std::thread::current();
    #[cfg(loom)]
    let thread = loom::thread::current();
    thread.id()
}
