//! What stands in for atomics, locks and mapped words where models are checked.
//!
//! Locks keep `parking_lot`'s interface. Waits with a timeout have none: a wake-up that is lost is a deadlock, which
//! `loom` finds, and not a delay.
//!
//! # Mutations
//! A model that can't fail proves nothing. So single atomics of a model can be [weakened](AtomicU64::weaken): the model
//! is run again with the mistake in it, and has to find it.
//!
//! # Thread safety
//! All threads of a model are coroutines of one thread, and change places only inside `loom`'s own calls.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    ops::{Deref, DerefMut, Range},
    ptr::NonNull,
    sync::{Arc, Mutex as PlainMutex, PoisonError},
    time::{Duration, Instant},
};

use loom::{cell::UnsafeCell, sync as modelled};

pub(crate) use loom::thread::ThreadId;

use super::Ordering;

/// A mistake in the use of an atomic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// Sequentially consistent accesses acquire and release, and no more.
    AcquireRelease,
    /// Stores and exchanges release nothing.
    RelaxedStores,
    /// Stores never happen.
    NoStores,
}

/// The orderings that `loom` knows, beside the fence.
fn acquire(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::Acquire } else { ordering }
}

fn release(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::Release } else { ordering }
}

fn acquire_release(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::AcqRel } else { ordering }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        pub(crate) struct $name {
            inner: modelled::atomic::$name,
            mistake: Cell<Option<Mistake>>,
        }

        // SAFETY: the mistake is set before other threads of the model begin, and these are one thread in truth.
        unsafe impl Sync for $name {}

        #[allow(dead_code, reason = "the interface is the same for all")]
        impl $name {
            pub(crate) fn new(value: $value) -> Self {
                Self { inner: modelled::atomic::$name::new(value), mistake: Cell::new(None) }
            }

            /// Has it used wrongly from now on.
            pub(crate) fn weaken(&self, mistake: Mistake) {
                self.mistake.set(Some(mistake));
            }

            pub(crate) fn load(&self, ordering: Ordering) -> $value {
                self.inner.load(acquire(ordering))
            }

            pub(crate) fn store(&self, value: $value, ordering: Ordering) {
                match self.mistake.get() {
                    Some(Mistake::NoStores) => return,
                    Some(Mistake::RelaxedStores) => self.inner.store(value, Ordering::Relaxed),
                    _ => self.inner.store(value, release(ordering)),
                }
                self.fence(ordering);
            }

            pub(crate) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let stored = self.store_ordering(success);
                let outcome = self.inner.compare_exchange(current, new, stored, acquire(failure));
                self.fence(success);
                outcome
            }

            fn store_ordering(&self, ordering: Ordering) -> Ordering {
                match self.mistake.get() {
                    Some(Mistake::RelaxedStores) => Ordering::Relaxed,
                    _ => acquire_release(ordering),
                }
            }

            /// What makes a store sequentially consistent.
            fn fence(&self, ordering: Ordering) {
                if ordering == Ordering::SeqCst && self.mistake.get().is_none() {
                    modelled::atomic::fence(Ordering::SeqCst);
                }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(Default::default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

macro_rules! exchanges {
    ($name:ident, $value:ty, $($exchange:ident),+) => {
        #[allow(dead_code, reason = "the interface is the same for all")]
        impl $name {
            $(pub(crate) fn $exchange(&self, value: $value, ordering: Ordering) -> $value {
                let before = self.inner.$exchange(value, self.store_ordering(ordering));
                self.fence(ordering);
                before
            })+
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU8, u8);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
exchanges!(AtomicBool, bool, swap, fetch_or);
exchanges!(AtomicU8, u8, swap, fetch_max);
exchanges!(AtomicU32, u32, swap, fetch_add);
exchanges!(AtomicU64, u64, swap, fetch_add, fetch_sub, fetch_max, fetch_min);

/// A lock.
#[derive(Default)]
pub(crate) struct Mutex<T>(modelled::Mutex<T>);

/// What a lock guards, while it is held.
pub(crate) struct MutexGuard<'a, T>(Option<modelled::MutexGuard<'a, T>>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(modelled::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok().map(|held| MutexGuard(Some(held)))
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutex").finish_non_exhaustive()
    }
}

impl<'a, T> MutexGuard<'a, T> {
    /// A guard of a part; the guard itself if there is no such part.
    pub(crate) fn try_map<U>(
        mut guard: Self,
        part: impl FnOnce(&mut T) -> Option<&mut U>,
    ) -> Result<MappedMutexGuard<'a, U>, Self> {
        match part(&mut guard).map(NonNull::from) {
            Some(part) => Ok(MappedMutexGuard { part, _whole: Box::new(guard) }),
            None => Err(guard),
        }
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("held but inside a wait")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("held but inside a wait")
    }
}

trait Whole {}

impl<T> Whole for MutexGuard<'_, T> {}

/// A part of what a lock guards, while that is held.
pub(crate) struct MappedMutexGuard<'a, T> {
    part: NonNull<T>,
    _whole: Box<dyn Whole + 'a>,
}

impl<T> Deref for MappedMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the guard of the whole was borrowed for it exclusively, and is held here since.
        unsafe { self.part.as_ref() }
    }
}

impl<T> DerefMut for MappedMutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { self.part.as_mut() }
    }
}

/// A queue of those who wait for something that a lock guards.
#[derive(Debug, Default)]
pub(crate) struct Condvar(modelled::Condvar);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        if let Some(held) = guard.0.take() {
            guard.0 = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        }
    }

    pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _timeout: Duration) {
        self.wait(guard);
    }

    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _deadline: Instant) {
        self.wait(guard);
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A lock that its holder can take again.
#[derive(Debug)]
pub(crate) struct ReentrantMutex<T> {
    lock: Mutex<()>,
    holder: Cell<Option<ThreadId>>,
    value: T,
}

// SAFETY: the threads of a model are one thread in truth, and the holder is asked for and set between their changes.
unsafe impl<T: Send> Sync for ReentrantMutex<T> {}

/// What it guards, while it is held; the guard that took it first has the lock.
pub(crate) struct ReentrantMutexGuard<'a, T> {
    mutex: &'a ReentrantMutex<T>,
    first: Option<MutexGuard<'a, ()>>,
}

impl<T> ReentrantMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { lock: Mutex::default(), holder: Cell::new(None), value }
    }

    pub(crate) fn lock(&self) -> ReentrantMutexGuard<'_, T> {
        let this = super::this_thread();
        let first = (self.holder.get() != Some(this)).then(|| self.lock.lock());
        self.holder.set(Some(this));
        ReentrantMutexGuard { mutex: self, first }
    }
}

impl<T: Default> Default for ReentrantMutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for ReentrantMutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.mutex.value
    }
}

impl<T> Drop for ReentrantMutexGuard<'_, T> {
    fn drop(&mut self) {
        if self.first.is_some() {
            self.mutex.holder.set(None);
        }
    }
}

/// Who borrows which bytes of a region, and who stores into them: two threads of which neither knows of the other, one
/// of them storing, are a data race, which ends the model.
#[derive(Default)]
pub(crate) struct Borrows {
    /// A cell for each piece that was touched.
    pieces: PlainMutex<BTreeMap<usize, UnsafeCell<()>>>,
    watch: PlainMutex<Option<Watch>>,
}

/// Is told of each store into a region, before it happens: of its range.
pub(crate) type Watch = Arc<dyn Fn(Range<usize>) + Send + Sync>;

/// Bytes of a piece: as finely as frames lie.
const PIECE_BYTES: usize = 8;
/// What lies before is one piece (a segment's header), and so is what lies behind (more than models append).
const FINE: Range<usize> = 4 << 10..64 << 10;

impl Borrows {
    /// Somebody looks at these bytes.
    pub(crate) fn read(&self, range: Range<usize>) {
        self.each(range, |piece| piece.with(|_| ()));
    }

    /// Somebody stores into these bytes.
    pub(crate) fn write(&self, range: Range<usize>) {
        let watch = unpoisoned(&self.watch).clone();
        if let Some(watch) = watch {
            watch(range.clone());
        }
        self.each(range, |piece| piece.with_mut(|_| ()));
    }

    /// Has every store told.
    pub(crate) fn watch(&self, watch: Watch) {
        *unpoisoned(&self.watch) = Some(watch);
    }

    fn each(&self, range: Range<usize>, touch: impl Fn(&UnsafeCell<()>)) {
        if range.is_empty() {
            return;
        }
        let piece = |at: usize| at.clamp(FINE.start - 1, FINE.end) / PIECE_BYTES;
        // No thread of the model takes over while a cell is touched.
        let mut pieces = unpoisoned(&self.pieces);
        for at in piece(range.start)..=piece(range.end - 1) {
            touch(pieces.entry(at).or_insert_with(|| UnsafeCell::new(())));
        }
    }
}

fn unpoisoned<T>(mutex: &PlainMutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
