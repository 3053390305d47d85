//! The options of a topic as its partitions use them: they can be changed while all is open.
//!
//! # Invariants
//! Each value is one that `config` allows. Values that are changed together may be seen changed one after the other;
//! none depends on another.
//!
//! # Thread safety
//! Every value is an atomic: whoever appends reads it without a lock, and the next append goes by what was set.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::config::Durability;

/// In place of a value: there is no such limit.
const NONE: u64 = u64::MAX;
/// In the word of the durability: [`Durability::Written`], [`Durability::Synced`]; else nanoseconds.
const WRITTEN: u64 = u64::MAX;
const SYNCED: u64 = 0;

/// The options' values: the topic's, else the log's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SettingsValues {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: Option<u64>,
    pub(crate) max_record_bytes: u64,
    /// Segments whose newest record is older than this go.
    pub(crate) retention_ms: Option<u64>,
    /// The oldest segments go as long as the others are at least this large.
    pub(crate) retention_bytes: Option<u64>,
}

/// The options in use, shared by the partitions of a topic.
#[derive(Debug)]
pub(crate) struct Settings {
    durability: AtomicU64,
    segment_bytes: AtomicU64,
    segment_ms: AtomicU64,
    max_record_bytes: AtomicU64,
    retention_ms: AtomicU64,
    retention_bytes: AtomicU64,
}

impl Settings {
    pub(crate) fn new(values: SettingsValues) -> Self {
        let settings = Self {
            durability: AtomicU64::default(),
            segment_bytes: AtomicU64::default(),
            segment_ms: AtomicU64::default(),
            max_record_bytes: AtomicU64::default(),
            retention_ms: AtomicU64::default(),
            retention_bytes: AtomicU64::default(),
        };
        settings.set(values);
        settings
    }

    /// Sets all values.
    pub(crate) fn set(&self, values: SettingsValues) {
        let optional = |value: Option<u64>| value.unwrap_or(NONE);
        self.durability.store(durability_word(values.durability), Ordering::Relaxed);
        self.segment_bytes.store(values.segment_bytes, Ordering::Relaxed);
        self.segment_ms.store(optional(values.segment_ms), Ordering::Relaxed);
        self.max_record_bytes.store(values.max_record_bytes, Ordering::Relaxed);
        self.retention_ms.store(optional(values.retention_ms), Ordering::Relaxed);
        self.retention_bytes.store(optional(values.retention_bytes), Ordering::Relaxed);
    }

    /// All values.
    pub(crate) fn values(&self) -> SettingsValues {
        SettingsValues {
            durability: self.durability(),
            segment_bytes: self.segment_bytes(),
            segment_ms: self.segment_ms(),
            max_record_bytes: self.max_record_bytes(),
            retention_ms: self.retention_ms(),
            retention_bytes: self.retention_bytes(),
        }
    }

    #[inline]
    pub(crate) fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            WRITTEN => Durability::Written,
            SYNCED => Durability::Synced,
            nanoseconds => Durability::Interval(Duration::from_nanos(nanoseconds)),
        }
    }

    #[inline]
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn segment_ms(&self) -> Option<u64> {
        optional(&self.segment_ms)
    }

    #[inline]
    pub(crate) fn max_record_bytes(&self) -> u64 {
        self.max_record_bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn retention_ms(&self) -> Option<u64> {
        optional(&self.retention_ms)
    }

    pub(crate) fn retention_bytes(&self) -> Option<u64> {
        optional(&self.retention_bytes)
    }
}

#[inline]
fn optional(word: &AtomicU64) -> Option<u64> {
    Some(word.load(Ordering::Relaxed)).filter(|&value| value != NONE)
}

/// An interval is 1 ms at least, by validation, and here some 580 years at most.
fn durability_word(durability: Durability) -> u64 {
    match durability {
        Durability::Written => WRITTEN,
        Durability::Synced => SYNCED,
        Durability::Interval(interval) => {
            u64::try_from(interval.as_nanos()).unwrap_or(WRITTEN - 1).clamp(SYNCED + 1, WRITTEN - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_as_they_were_set() {
        let first = SettingsValues {
            durability: Durability::default(),
            segment_bytes: 1 << 20,
            segment_ms: None,
            max_record_bytes: 1,
            retention_ms: Some(0),
            retention_bytes: None,
        };
        let settings = Settings::new(first);
        assert_eq!(settings.values(), first);
        for durability in [Durability::Written, Durability::Synced, Durability::Interval(Duration::from_millis(1))] {
            let values = SettingsValues { durability, segment_ms: Some(7), retention_bytes: Some(9), ..first };
            settings.set(values);
            assert_eq!(settings.values(), values);
        }
    }
}
