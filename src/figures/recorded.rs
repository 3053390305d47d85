//! The figures of a build with the feature `metrics`: handles of whatever recorder the program has installed.

use std::{fmt, sync::Arc, time::Instant};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, with_recorder};

use super::{
    Operation,
    names::{self, FIGURES, Figure, Kind},
};
use crate::error::{Error, ErrorKind};

const METADATA: Metadata<'static> = Metadata::new("tidelog", Level::INFO, Some("tidelog"));

/// How a log names its figures.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// Of the label `log`, if the options give it.
    log: Option<Arc<str>>,
    /// Partitions have series of their own.
    by_partition: bool,
}

impl Figures {
    /// Also tells the recorder what the figures mean.
    pub(crate) fn new(log: Option<&str>, by_partition: bool) -> Self {
        with_recorder(|recorder| {
            for figure in FIGURES {
                let (name, unit, help) = (figure.name.into(), Some(figure.unit), figure.help.into());
                match figure.kind {
                    Kind::Counter => recorder.describe_counter(name, unit, help),
                    Kind::Gauge => recorder.describe_gauge(name, unit, help),
                    Kind::Histogram => recorder.describe_histogram(name, unit, help),
                }
            }
        });
        Self { log: log.map(Into::into), by_partition }
    }

    /// Of a partition that is open.
    pub(crate) fn partition(&self, topic: &str, number: u32) -> PartitionFigures {
        let labels = self.labels(&[("topic", topic)], Some(number));
        PartitionFigures {
            appends: counter(&names::APPENDS, &labels),
            records: counter(&names::APPEND_RECORDS, &labels),
            bytes: counter(&names::APPEND_BYTES, &labels),
            rolls: counter(&names::ROLLS, &labels),
            sync_seconds: histogram(&names::SYNC_SECONDS, &labels),
        }
    }

    /// Of a group's consumer.
    pub(crate) fn group(&self, group: &Arc<str>) -> GroupFigures {
        let labels = self.labels(&[("group", group)], None);
        GroupFigures {
            figures: self.clone(),
            group: group.clone(),
            polls: counter(&names::POLLS, &labels),
            commits: counter(&names::COMMITS, &labels),
            rebalances: counter(&names::REBALANCES, &labels),
        }
    }

    /// Counts an error.
    pub(crate) fn error(&self, operation: Operation, error: &Error) {
        let labels = [("operation", operation.label()), ("kind", &*kind_label(error.kind()))];
        counter(&names::ERRORS, &self.labels(&labels, None)).increment(1);
    }

    /// The number that gauges have a series for: all of a topic's partitions share one, if the options don't say else.
    pub(crate) fn series_of(&self, number: u32) -> Option<u32> {
        self.by_partition.then_some(number)
    }

    /// For a series by [`series_of`](Figures::series_of).
    pub(crate) fn lag_gauges(&self, group: &str, topic: &str, number: Option<u32>) -> LagGauges {
        let labels = self.labels(&[("group", group), ("topic", topic)], number);
        LagGauges {
            records: gauge(&names::GROUP_LAG_RECORDS, &labels),
            bytes: gauge(&names::GROUP_LAG_BYTES, &labels),
            seconds: gauge(&names::GROUP_LAG_SECONDS, &labels),
        }
    }

    pub(crate) fn members_gauge(&self, group: &str) -> Gauge {
        gauge(&names::GROUP_MEMBERS, &self.labels(&[("group", group)], None))
    }

    pub(crate) fn log_gauges(&self) -> LogGauges {
        let labels = self.labels(&[], None);
        LogGauges {
            open_files: gauge(&names::OPEN_FILES, &labels),
            max_open_files: gauge(&names::MAX_OPEN_FILES, &labels),
        }
    }

    /// For a series by [`series_of`](Figures::series_of).
    pub(crate) fn topic_gauges(&self, topic: &str, number: Option<u32>) -> TopicGauges {
        let labels = self.labels(&[("topic", topic)], number);
        TopicGauges {
            partitions: gauge(&names::PARTITIONS, &labels),
            poisoned: gauge(&names::POISONED, &labels),
            segments: gauge(&names::SEGMENTS, &labels),
            stored_bytes: gauge(&names::STORED_BYTES, &labels),
            flush_lag_bytes: gauge(&names::FLUSH_LAG_BYTES, &labels),
            flush_lag_seconds: gauge(&names::FLUSH_LAG_SECONDS, &labels),
        }
    }

    /// The labels, with those that the options add.
    fn labels(&self, own: &[(&'static str, &str)], number: Option<u32>) -> Vec<Label> {
        let label = |name, value: &str| Label::new(name, value.to_owned());
        let log = self.log.iter().map(|log| label("log", log));
        let number = number.filter(|_| self.by_partition);
        let number = number.into_iter().map(|number| label("partition", &number.to_string()));
        log.chain(own.iter().map(|(name, value)| label(name, value))).chain(number).collect()
    }
}

fn counter(figure: &Figure, labels: &[Label]) -> Counter {
    with_recorder(|recorder| recorder.register_counter(&key(figure, labels), &METADATA))
}

fn gauge(figure: &Figure, labels: &[Label]) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(&key(figure, labels), &METADATA))
}

fn histogram(figure: &Figure, labels: &[Label]) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(&key(figure, labels), &METADATA))
}

fn key(figure: &Figure, labels: &[Label]) -> Key {
    Key::from_parts(figure.name, labels.to_vec())
}

impl Operation {
    fn label(self) -> &'static str {
        match self {
            Self::Append => "append",
            Self::Flush => "flush",
            Self::Poll => "poll",
            Self::Commit => "commit",
        }
    }
}

/// The name of the kind, as labels are written: `StorageFull` is `storage_full`.
fn kind_label(kind: ErrorKind) -> String {
    let mut label = String::new();
    for character in format!("{kind:?}").chars() {
        if character.is_ascii_uppercase() && !label.is_empty() {
            label.push('_');
        }
        label.push(character.to_ascii_lowercase());
    }
    label
}

/// What a partition counts.
#[derive(Debug)]
pub(crate) struct PartitionFigures {
    appends: Counter,
    records: Counter,
    bytes: Counter,
    rolls: Counter,
    sync_seconds: Histogram,
}

impl PartitionFigures {
    /// A frame was appended.
    #[inline]
    pub(crate) fn appended(&self, records: u64, bytes: u64) {
        self.appends.increment(1);
        self.records.increment(records);
        self.bytes.increment(bytes);
    }

    pub(crate) fn rolled(&self) {
        self.rolls.increment(1);
    }

    /// A sync has succeeded that began with the timer.
    pub(crate) fn synced(&self, timer: Timer) {
        self.sync_seconds.record(timer.0.elapsed());
    }
}

/// What the consumers of a group count.
pub(crate) struct GroupFigures {
    figures: Figures,
    group: Arc<str>,
    polls: Counter,
    commits: Counter,
    rebalances: Counter,
}

impl fmt::Debug for GroupFigures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupFigures").field("group", &self.group).finish_non_exhaustive()
    }
}

impl GroupFigures {
    #[inline]
    pub(crate) fn polled(&self) {
        self.polls.increment(1);
    }

    pub(crate) fn committed(&self) {
        self.commits.increment(1);
    }

    pub(crate) fn rebalanced(&self) {
        self.rebalances.increment(1);
    }

    /// Of a partition that a consumer reads.
    pub(crate) fn reading(&self, topic: &str, number: u32) -> ReadFigures {
        let labels = self.figures.labels(&[("group", &self.group), ("topic", topic)], Some(number));
        ReadFigures { records: counter(&names::POLLED_RECORDS, &labels), bytes: counter(&names::POLLED_BYTES, &labels) }
    }
}

/// What a consumer counts of one partition.
#[derive(Debug)]
pub(crate) struct ReadFigures {
    records: Counter,
    bytes: Counter,
}

impl Default for ReadFigures {
    /// Of who reads without a group: counted nowhere.
    fn default() -> Self {
        Self { records: Counter::noop(), bytes: Counter::noop() }
    }
}

impl ReadFigures {
    #[inline]
    pub(crate) fn read(&self, records: u64, bytes: u64) {
        self.records.increment(records);
        self.bytes.increment(bytes);
    }
}

/// When something began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timer(Instant);

impl Timer {
    #[inline]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }
}

/// Gauges of the log as a whole.
pub(crate) struct LogGauges {
    pub(crate) open_files: Gauge,
    pub(crate) max_open_files: Gauge,
}

/// Gauges of a group in a topic, or in one of its partitions.
pub(crate) struct LagGauges {
    pub(crate) records: Gauge,
    pub(crate) bytes: Gauge,
    pub(crate) seconds: Gauge,
}

/// Gauges of a topic, or of one of its partitions.
pub(crate) struct TopicGauges {
    pub(crate) partitions: Gauge,
    pub(crate) poisoned: Gauge,
    pub(crate) segments: Gauge,
    pub(crate) stored_bytes: Gauge,
    pub(crate) flush_lag_bytes: Gauge,
    pub(crate) flush_lag_seconds: Gauge,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_written_as_labels_are() {
        assert_eq!(kind_label(ErrorKind::Io), "io");
        assert_eq!(kind_label(ErrorKind::StorageFull), "storage_full");
        assert_eq!(kind_label(ErrorKind::OffsetOutOfRange), "offset_out_of_range");
    }
}
