//! The space of a file system: which blocks a file has, and how many all have.
//!
//! # Thread safety
//! [`Blocks`] is plain data. A [`Space`] may be used by any thread.

use std::{collections::BTreeMap, io, ops::Range};

use parking_lot::Mutex;

/// In this unit space is counted, and zeros are looked for.
pub(super) const BLOCK_BYTES: u64 = 4096;

/// Sets of blocks, as ranges (start to end) that neither overlap nor touch.
#[derive(Default, Clone)]
pub(super) struct Blocks(BTreeMap<u64, u64>);

impl Blocks {
    /// How many blocks of the range aren't in the set.
    pub(super) fn missing(&self, range: &Range<u64>) -> u64 {
        let touched = self.0.range(..range.end).rev().take_while(|&(_, &end)| end > range.start);
        let present: u64 = touched.map(|(&start, &end)| end.min(range.end) - start.max(range.start)).sum();
        range.end - range.start - present
    }

    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|(&start, &end)| end - start).sum()
    }

    /// What there is from a block on, in rising order.
    pub(super) fn from(&self, first: u64) -> impl Iterator<Item = Range<u64>> {
        let ends_behind = self.0.iter().skip_while(move |&(_, &end)| end <= first);
        ends_behind.map(move |(&start, &end)| start.max(first)..end)
    }

    pub(super) fn insert(&mut self, mut range: Range<u64>) {
        while let Some((&start, &end)) = self.0.range(..=range.end).next_back() {
            if end < range.start {
                break;
            }
            self.0.remove(&start);
            range = range.start.min(start)..range.end.max(end);
        }
        self.0.insert(range.start, range.end);
    }

    /// Takes out everything from a block on; answers how many that were.
    pub(super) fn truncate(&mut self, first: u64) -> u64 {
        let mut removed = 0;
        while let Some((&start, &end)) = self.0.last_key_value() {
            if end <= first {
                break;
            }
            removed += end - start.max(first);
            self.0.remove(&start);
            if start < first {
                self.0.insert(start, first);
            }
        }
        removed
    }
}

/// The space of a file system, in blocks.
#[derive(Default)]
pub(super) struct Space(Mutex<Usage>);

#[derive(Default)]
struct Usage {
    used: u64,
    limit: Option<u64>,
    /// The largest page in which files are cached, as a power of two.
    #[cfg(any(test, fuzzing))]
    page_order: u32,
}

impl Space {
    pub(super) fn take(&self, blocks: u64) -> io::Result<()> {
        let mut usage = self.0.lock();
        let used = usage.used.saturating_add(blocks);
        // What needs no new block goes on, also on a disk that is over its limit.
        if blocks > 0 && usage.limit.is_some_and(|limit| used > limit) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        usage.used = used;
        Ok(())
    }

    /// Takes blocks, limit or not.
    #[cfg(any(test, fuzzing))]
    pub(super) fn seize(&self, blocks: u64) {
        self.0.lock().used += blocks;
    }

    pub(super) fn give_back(&self, blocks: u64) {
        self.0.lock().used -= blocks;
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn limit(&self, bytes: Option<u64>) {
        self.0.lock().limit = bytes.map(|bytes| bytes / BLOCK_BYTES);
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn set_page_limit(&self, bytes: u64) {
        assert!(bytes.is_power_of_two());
        self.0.lock().page_order = bytes.trailing_zeros();
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn page_limit(&self) -> u64 {
        1 << self.0.lock().page_order
    }

    #[cfg(any(test, fuzzing))]
    pub(super) fn used(&self) -> u64 {
        self.0.lock().used * BLOCK_BYTES
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn blocks_count_as_a_plain_set_does(steps in prop::collection::vec((0u64..40, 0u64..12, any::<bool>()), 1..40)) {
            let (mut blocks, mut model) = (Blocks::default(), BTreeSet::new());
            for (start, len, cut) in steps {
                if cut && len == 0 {
                    prop_assert_eq!(blocks.truncate(start), model.split_off(&start).len() as u64);
                } else if len > 0 {
                    let range = start..start + len;
                    prop_assert_eq!(blocks.missing(&range), range.clone().filter(|b| !model.contains(b)).count() as u64);
                    blocks.insert(range.clone());
                    model.extend(range);
                }
                let listed: BTreeSet<u64> = blocks.0.iter().flat_map(|(&start, &end)| start..end).collect();
                prop_assert_eq!(&listed, &model);
            }
        }
    }
}
