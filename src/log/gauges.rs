//! The gauges of a log: what has to be looked up, by a chore in the background and once more when the log is closed.
//!
//! # Invariants
//! - Gauges of topics and groups that went are set to zero, once: a recorder can't be told that they are gone.
//!
//! # Thread safety
//! Any thread may call anything; updates take turns.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::groups::lag_of;
use crate::{
    consumer::PartitionLag,
    figures::{Figures, Gauge, LagGauges, LogGauges, TopicGauges},
    group::Groups,
    housekeeper::Chore,
    partition::{OpenFiles, PartitionLog},
    topics::Topics,
};

pub(super) struct Gauges {
    figures: Figures,
    interval: Duration,
    topics: Weak<Topics>,
    groups: Weak<Groups>,
    open_files: Arc<OpenFiles>,
    of_log: LogGauges,
    shown: Mutex<Shown>,
}

/// The gauges that were looked up.
#[derive(Default)]
struct Shown {
    of_topics: BTreeMap<Series, TopicGauges>,
    /// By group.
    members: BTreeMap<String, Gauge>,
    lags: BTreeMap<(String, Series), LagGauges>,
}

/// A topic; or a partition, where the options give partitions series of their own.
type Series = (Arc<str>, Option<u32>);

/// Gauges that are shown together.
trait Show<V> {
    fn show(&self, values: V);
}

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
        groups: &Arc<Groups>,
        open_files: Arc<OpenFiles>,
    ) -> Arc<Self> {
        let (of_log, shown) = (figures.log_gauges(), Mutex::default());
        let (topics, groups) = (Arc::downgrade(topics), Arc::downgrade(groups));
        Arc::new(Self { figures, interval, topics, groups, open_files, of_log, shown })
    }

    /// Sets all gauges to what is.
    pub(super) fn update(&self) {
        self.of_log.open_files.set(self.open_files.open() as f64);
        self.of_log.max_open_files.set(self.open_files.max() as f64);
        let (Some(topics), Some(groups)) = (self.topics.upgrade(), self.groups.upgrade()) else { return };
        let mut shown = self.shown.lock();
        let Shown { of_topics, members, lags } = &mut *shown;
        let figures = &self.figures;
        update(of_topics, self.look_at_topics(&topics), |(topic, number)| figures.topic_gauges(topic, *number));
        let (found_members, found_lags) = self.look_at_groups(&topics, &groups);
        update(members, found_members, |group| figures.members_gauge(group));
        update(lags, found_lags, |(group, (topic, number))| figures.lag_gauges(group, topic, *number));
    }

    fn look_at_topics(&self, topics: &Topics) -> BTreeMap<Series, Values> {
        let mut found: BTreeMap<Series, Values> = BTreeMap::new();
        for topic in topics.all() {
            for partition in topic.partitions.iter() {
                let series = (topic.name.clone(), self.figures.series_of(partition.spec().number));
                found.entry(series).or_default().add(partition);
            }
        }
        found
    }

    /// How many members groups have, and how far they are behind.
    fn look_at_groups(
        &self,
        topics: &Topics,
        groups: &Groups,
    ) -> (BTreeMap<String, usize>, BTreeMap<(String, Series), LagValues>) {
        let (mut members, mut lags) = (BTreeMap::new(), BTreeMap::new());
        let topics = topics.select(|_| true);
        for group in groups.names() {
            // One that is being deleted is gone.
            let Ok(described) = groups.describe(&group) else { continue };
            members.insert(group.clone(), described.members.len());
            for lag in lag_of(described, &topics) {
                let series = (Arc::from(&*lag.topic), self.figures.series_of(lag.partition));
                lags.entry((group.clone(), series)).or_insert_with(LagValues::default).add(&lag);
            }
        }
        (members, lags)
    }
}

/// Shows what was found, and zeros for what isn't there any more.
fn update<K: Ord + Clone, G: Show<V>, V: Default>(
    shown: &mut BTreeMap<K, G>,
    mut found: BTreeMap<K, V>,
    new: impl Fn(&K) -> G,
) {
    for key in found.keys() {
        if !shown.contains_key(key) {
            shown.insert(key.clone(), new(key));
        }
    }
    shown.retain(|key, gauges| {
        let values = found.remove(key);
        let stays = values.is_some();
        gauges.show(values.unwrap_or_default());
        stays
    });
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
}

impl Show<Values> for TopicGauges {
    fn show(&self, values: Values) {
        self.partitions.set(values.partitions as f64);
        self.poisoned.set(values.poisoned as f64);
        self.segments.set(values.segments as f64);
        self.stored_bytes.set(values.stored_bytes as f64);
        self.flush_lag_bytes.set(values.flush_lag_bytes as f64);
        self.flush_lag_seconds.set(values.flush_lag_ms as f64 / 1000.0);
    }
}

/// The values of a group's gauges in a topic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LagValues {
    records: u64,
    bytes: u64,
    time: Duration,
}

impl LagValues {
    fn add(&mut self, lag: &PartitionLag) {
        self.records = self.records.saturating_add(lag.lag);
        self.bytes = self.bytes.saturating_add(lag.bytes);
        self.time = self.time.max(lag.time);
    }
}

impl Show<LagValues> for LagGauges {
    fn show(&self, values: LagValues) {
        self.records.set(values.records as f64);
        self.bytes.set(values.bytes as f64);
        self.seconds.set(values.time.as_secs_f64());
    }
}

impl Show<usize> for Gauge {
    fn show(&self, members: usize) {
        self.set(members as f64);
    }
}

impl Chore for Gauges {
    fn run(&self) -> Option<Instant> {
        self.update();
        Some(Instant::now() + self.interval)
    }
}
