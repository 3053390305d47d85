//! The words of the control page, where they are mapped; where models are checked, in plain memory, because the atomics
//! that a model knows can't lie in a map.
//!
//! # Thread safety
//! Every word is an atomic.

use std::ops::Deref;

use crate::{storage::Region, sync::AtomicU64};

/// A region as words.
#[cfg(not(loom))]
#[derive(Debug)]
pub(super) struct Words(Region);

#[cfg(not(loom))]
impl Words {
    pub(super) fn new(region: Region) -> Self {
        Self(region)
    }
}

#[cfg(not(loom))]
impl Deref for Words {
    type Target = [AtomicU64];

    #[inline]
    fn deref(&self) -> &[AtomicU64] {
        self.0.words()
    }
}

/// What a region held when it was mapped; nothing is written back.
#[cfg(loom)]
#[derive(Debug)]
pub(super) struct Words(Vec<AtomicU64>);

#[cfg(loom)]
impl Words {
    /// So many have a name.
    const USED: usize = 64;

    pub(super) fn new(region: Region) -> Self {
        let words = region.words()[..Self::USED].iter();
        Self(words.map(|word| AtomicU64::new(word.load(std::sync::atomic::Ordering::Relaxed))).collect())
    }
}

#[cfg(loom)]
impl Deref for Words {
    type Target = [AtomicU64];

    fn deref(&self) -> &[AtomicU64] {
        &self.0
    }
}
