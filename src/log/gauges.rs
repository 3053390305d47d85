//! The gauges of a log: what has to be looked up, by a chore in the background and once more when the log is closed.
//!
//! # Invariants
//! - Gauges of topics that went are set to zero, once: a recorder can't be told that they are gone.
//!
//! # Thread safety
//! Any thread may call anything; updates take turns.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use crate::{
    figures::{Figures, LogGauges, TopicGauges},
    housekeeper::Chore,
    partition::{OpenFiles, PartitionLog},
    topics::Topics,
};

pub(super) struct Gauges {
    figures: Figures,
    interval: Duration,
    topics: Weak<Topics>,
    open_files: Arc<OpenFiles>,
    of_log: LogGauges,
    of_topics: Mutex<BTreeMap<Series, TopicGauges>>,
}

/// A topic; or a partition, where the options give partitions series of their own.
type Series = (Arc<str>, Option<u32>);

/// The values of a topic's gauges.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Values {
    partitions: u64,
    poisoned: u64,
    segments: u64,
    stored_bytes: u64,
    flush_lag_bytes: u64,
    flush_lag_ms: u64,
}

impl Gauges {
    pub(super) fn new(
        figures: Figures,
        interval: Duration,
        topics: &Arc<Topics>,
        open_files: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let of_log = figures.log_gauges();
        let (topics, of_topics) = (Arc::downgrade(topics), Mutex::default());
        Arc::new(Self { figures, interval, topics, open_files, of_log, of_topics })
    }

    /// Sets all gauges to what is.
    pub(super) fn update(&self) {
        self.of_log.open_files.set(self.open_files.open() as f64);
        self.of_log.max_open_files.set(self.open_files.max() as f64);
        let mut of_topics = self.of_topics.lock();
        let found = self.look();
        for (series, values) in &found {
            let new = || self.figures.topic_gauges(&series.0, series.1);
            values.show(of_topics.entry(series.clone()).or_insert_with(new));
        }
        of_topics.retain(|series, gauges| {
            let stays = found.contains_key(series);
            if !stays {
                Values::default().show(gauges);
            }
            stays
        });
    }

    fn look(&self) -> BTreeMap<Series, Values> {
        let mut found: BTreeMap<Series, Values> = BTreeMap::new();
        let Some(topics) = self.topics.upgrade() else { return found };
        for topic in topics.all() {
            for partition in topic.partitions.iter() {
                let series = (topic.name.clone(), self.figures.series_of(partition.spec().number));
                found.entry(series).or_default().add(partition);
            }
        }
        found
    }
}

impl Values {
    fn add(&mut self, partition: &PartitionLog) {
        self.partitions += 1;
        self.poisoned += u64::from(partition.is_poisoned());
        // Of one whose files can't be looked at right now, as of one that is being deleted, nothing is known.
        if let Ok(stats) = partition.stats() {
            self.segments += stats.segments as u64;
            self.stored_bytes += stats.bytes;
        }
        let lag = partition.flush_lag();
        self.flush_lag_bytes += lag.bytes;
        let age_ms = lag.since_ms.map_or(0, |since_ms| partition.now_ms().saturating_sub(since_ms));
        self.flush_lag_ms = self.flush_lag_ms.max(u64::try_from(age_ms).unwrap_or(0));
    }

    fn show(self, gauges: &TopicGauges) {
        gauges.partitions.set(self.partitions as f64);
        gauges.poisoned.set(self.poisoned as f64);
        gauges.segments.set(self.segments as f64);
        gauges.stored_bytes.set(self.stored_bytes as f64);
        gauges.flush_lag_bytes.set(self.flush_lag_bytes as f64);
        gauges.flush_lag_seconds.set(self.flush_lag_ms as f64 / 1000.0);
    }
}

impl Chore for Gauges {
    fn run(&self) -> Option<Instant> {
        self.update();
        Some(Instant::now() + self.interval)
    }
}
