//! Retention of all topics, now and then.
//!
//! # Invariants
//! - The log's own topics are never subject to it, whatever the options say.
//! - A check that failed is made again with the next one; what went wrong is kept for who asks
//!   ([`RetentionStatus`]). One partition's failure keeps no other from being checked.
//!
//! # Thread safety
//! Any thread may call anything. The chore takes the housekeeper's thread for a short while at a time: others use it too.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::Topics;
use crate::{
    error::{Error, ErrorKind, Result},
    housekeeper::Chore,
    partition::{PartitionLog, Removed},
};

/// After so long the chore lets others have the thread, and goes on behind them.
const SLICE: Duration = Duration::from_millis(20);

/// How retention fares: from [`Log::retention_status`](crate::Log::retention_status).
#[non_exhaustive]
#[derive(Debug, Clone, Default)]
pub struct RetentionStatus {
    /// What went since the log was opened.
    pub removed: Removed,
    /// How often the check of a partition, in the background, has failed since. It is made again with the next one.
    pub failures: u64,
    /// The last of these failures.
    pub last_error: Option<Arc<Error>>,
}

/// The chore.
pub(crate) struct Retention {
    topics: Weak<Topics>,
    interval: Duration,
    ended: AtomicBool,
    /// Partitions that the check under way hasn't come to.
    rest: Mutex<Option<VecDeque<Weak<PartitionLog>>>>,
    status: Mutex<RetentionStatus>,
}

impl Retention {
    pub(crate) fn new(topics: &Arc<Topics>, interval: Duration) -> Arc<Self> {
        Arc::new(Self {
            topics: Arc::downgrade(topics),
            interval,
            ended: AtomicBool::new(false),
            rest: Mutex::default(),
            status: Mutex::default(),
        })
    }

    /// Checks all partitions now; tells what went, or the first error.
    pub(crate) fn enforce(&self) -> Result<Removed> {
        let mut removed = Removed::default();
        let mut outcome = Ok(());
        for partition in self.partitions() {
            match self.enforce_on(&partition) {
                Ok(more) => removed += more,
                Err(error) => outcome = outcome.and(Err(error)),
            }
        }
        outcome.map(|()| removed)
    }

    /// Whether what is kept of any topic has a bound.
    pub(crate) fn is_awaited(&self) -> bool {
        let topics = self.topics.upgrade().map(|topics| topics.select(|_| true)).unwrap_or_default();
        topics.iter().any(|topic| topic.settings.retention_ms().is_some() || topic.settings.retention_bytes().is_some())
    }

    pub(crate) fn status(&self) -> RetentionStatus {
        self.status.lock().clone()
    }

    /// The log is about to be closed, which waits for the chore: it stops behind the partition that it is at.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// All that are subject to retention.
    fn partitions(&self) -> Vec<Arc<PartitionLog>> {
        let topics = self.topics.upgrade().map(|topics| topics.select(|_| true)).unwrap_or_default();
        topics.iter().flat_map(|topic| topic.partitions.iter()).cloned().collect()
    }

    fn enforce_on(&self, partition: &Arc<PartitionLog>) -> Result<Removed> {
        match partition.enforce_retention() {
            Ok(removed) => {
                self.status.lock().removed += removed;
                Ok(removed)
            }
            // Its topic was deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::UnknownTopic => Ok(Removed::default()),
            Err(error) => Err(error),
        }
    }
}

impl Chore for Retention {
    fn run(&self) -> Option<Instant> {
        let all = || self.partitions().iter().map(Arc::downgrade).collect();
        let mut rest = self.rest.lock().take().unwrap_or_else(all);
        let began = Instant::now();
        while let Some(partition) = rest.pop_front() {
            if self.ended.load(Ordering::Acquire) {
                return None;
            }
            if let Some(Err(error)) = partition.upgrade().map(|partition| self.enforce_on(&partition)) {
                let mut status = self.status.lock();
                status.failures += 1;
                status.last_error = Some(Arc::new(error));
            }
            if began.elapsed() >= SLICE && !rest.is_empty() {
                *self.rest.lock() = Some(rest);
                return Some(Instant::now());
            }
        }
        began.checked_add(self.interval)
    }
}
