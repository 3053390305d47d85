//! The figures that there are. `src/doc/metrics.md` lists them for users; a test compares the two.

use metrics::Unit;

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    /// Without those that options add: `log`, and `partition` where there is `topic`.
    pub(crate) labels: &'static [&'static str],
    pub(crate) help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const TOPIC: &[&str] = &["topic"];
const GROUP: &[&str] = &["group"];
const GROUP_TOPIC: &[&str] = &["group", "topic"];

macro_rules! figures {
    ($($constant:ident: $kind:ident $name:literal, $unit:ident, $labels:expr, $help:literal;)*) => {
        $(
            pub(crate) const $constant: Figure =
                Figure { name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: $labels, help: $help };
        )*

        /// All of them.
        pub(crate) const FIGURES: &[Figure] = &[$($constant),*];
    };
}

figures! {
    APPENDS: Counter "tidelog_appends_total", Count, TOPIC, "Frames appended: one for each append, some for each batch.";
    APPEND_RECORDS: Counter "tidelog_append_records_total", Count, TOPIC, "Records appended.";
    APPEND_BYTES: Counter "tidelog_append_bytes_total", Bytes, TOPIC, "Bytes appended, of whole frames.";
    ROLLS: Counter "tidelog_rolls_total", Count, TOPIC, "Segments begun behind another one.";
    SYNC_SECONDS: Histogram "tidelog_sync_duration_seconds", Seconds, TOPIC, "How long it took to have a partition on the device.";
    FLUSH_LAG_SECONDS: Gauge "tidelog_flush_lag_seconds", Seconds, TOPIC, "Age of the oldest record that isn't on the device.";
    FLUSH_LAG_BYTES: Gauge "tidelog_flush_lag_bytes", Bytes, TOPIC, "Bytes that aren't on the device.";
    PARTITIONS: Gauge "tidelog_partitions", Count, TOPIC, "Partitions.";
    POISONED: Gauge "tidelog_poisoned_partitions", Count, TOPIC, "Partitions that take no appends because a sync failed.";
    SEGMENTS: Gauge "tidelog_segments", Count, TOPIC, "Segments.";
    STORED_BYTES: Gauge "tidelog_stored_bytes", Bytes, TOPIC, "Bytes of the segments, up to their ends.";
    OPEN_FILES: Gauge "tidelog_open_files", Count, &[], "Segment files that are open.";
    MAX_OPEN_FILES: Gauge "tidelog_max_open_files", Count, &[], "Segment files that may be open.";
    POLLS: Counter "tidelog_polls_total", Count, GROUP, "Calls of poll.";
    POLLED_RECORDS: Counter "tidelog_polled_records_total", Count, GROUP_TOPIC, "Records that poll has returned.";
    POLLED_BYTES: Counter "tidelog_polled_bytes_total", Bytes, GROUP_TOPIC, "Bytes of frames that poll has returned.";
    COMMITS: Counter "tidelog_commits_total", Count, GROUP, "Commits that were appended.";
    REBALANCES: Counter "tidelog_rebalances_total", Count, GROUP, "Generations begun.";
    GROUP_MEMBERS: Gauge "tidelog_group_members", Count, GROUP, "Members of the group.";
    GROUP_LAG_RECORDS: Gauge "tidelog_group_lag_records", Count, GROUP_TOPIC, "Log end offset minus committed offset.";
    GROUP_LAG_BYTES: Gauge "tidelog_group_lag_bytes", Bytes, GROUP_TOPIC, "Bytes behind the committed offset.";
    GROUP_LAG_SECONDS: Gauge "tidelog_group_lag_seconds", Seconds, GROUP_TOPIC, "Age of the first record that isn't committed.";
    ERRORS: Counter "tidelog_errors_total", Count, &["operation", "kind"], "Errors that callers were told, and of flushes in the background.";
}
