//! The figures that there are. `src/doc/metrics.md` lists them for users; a test compares the two.

use metrics::Unit;

/// One figure.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) unit: Unit,
    /// Without those that options add: `log`, and `partition` where there is `topic`.
    #[cfg_attr(not(test), allow(dead_code, reason = "compared with the documentation"))]
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows of the table in the documentation: name, type, labels, what it tells.
    fn documented() -> Vec<(String, String, Vec<String>, String)> {
        let text = include_str!("../doc/metrics.md");
        let rows = text.lines().filter(|line| line.starts_with("| `tidelog_"));
        let cells = |row: &str| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let plain = |text: &str| text.replace('`', "");
        let row = |row| match &cells(row)[..] {
            [name, kind, _unit, labels, help] => {
                let labels = plain(labels).split(", ").filter(|label| !label.is_empty()).map(str::to_owned).collect();
                (plain(name), kind.clone(), labels, help.clone())
            }
            other => panic!("{other:?}"),
        };
        rows.map(row).collect()
    }

    #[test]
    fn the_documentation_lists_what_there_is() {
        let there: Vec<_> = FIGURES
            .iter()
            .map(|figure| {
                let labels = figure.labels.iter().map(|label| label.to_string()).collect();
                (figure.name.to_owned(), format!("{:?}", figure.kind).to_lowercase(), labels, figure.help.to_owned())
            })
            .collect();
        assert_eq!(documented(), there);
    }

    #[test]
    fn names_follow_the_conventions() {
        for figure in FIGURES {
            let name = figure.name;
            assert!(name.starts_with("tidelog_"), "{name}");
            assert!(name.chars().all(|it| it.is_ascii_lowercase() || it == '_'), "{name}");
            assert_eq!(name.ends_with("_total"), figure.kind == Kind::Counter, "{name}");
            let bare = name.trim_end_matches("_total");
            assert_eq!(bare.ends_with("_seconds"), figure.unit == Unit::Seconds, "{name}");
            assert_eq!(bare.ends_with("_bytes"), figure.unit == Unit::Bytes, "{name}");
            assert!(figure.help.ends_with('.'), "{name}");
        }
    }
}
