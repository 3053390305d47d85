//! Options: what they mean, their defaults, bounds and units, and their validation.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    background::Background,
    error::{Repr, Result},
};

/// When an append answers, and what its records survive.
///
/// | level | `append` returns when | survives a killed process | survives power loss |
/// |---|---|---|---|
/// | [`Written`](Durability::Written) | it is in the page cache | yes | what a flush covered |
/// | [`Interval`](Durability::Interval) | it is in the page cache, a flush is due within that time | yes | all but about the last interval and the flush itself |
/// | [`Synced`](Durability::Synced) | it is on the device | yes | yes |
///
/// The level is set for a log ([`LogOptions::durability`]), for a topic ([`TopicConfig::durability`]), and for one
/// append ([`Topic::append_with`](crate::Topic::append_with)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// In the page cache when `append` returns; on the device when the system or a later flush puts it there.
    Written,
    /// In the page cache when `append` returns; the background flush is due within this time. One millisecond at
    /// least.
    Interval(Duration),
    /// On the device (`fdatasync`) when `append` returns. Appends that wait at the same time share one sync.
    Synced,
}

impl Default for Durability {
    /// `Interval` of 50 ms.
    fn default() -> Self {
        Self::Interval(Duration::from_millis(50))
    }
}

impl Durability {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::Interval(interval) if interval < Duration::from_millis(1) => {
                invalid("durability", "an interval below 1 ms; use Durability::Synced")
            }
            _ => Ok(()),
        }
    }
}

/// Where to begin reading.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Start {
    /// At the log start offset: everything that is there.
    #[default]
    Earliest,
    /// At the log end offset: only what comes from now on.
    Latest,
    /// At this offset of every partition that is read. An error of kind
    /// [`OffsetOutOfRange`](crate::ErrorKind::OffsetOutOfRange) where that is outside.
    Offset(u64),
    /// In every partition, at the first record whose [`timestamp_ms`](crate::RecordRef::timestamp_ms) is at or behind
    /// this time, in milliseconds since the Unix epoch; at the log end offset where there is none. Client timestamps
    /// needn't be in order: records behind that one can be older.
    Time(i64),
}

/// The most partitions a topic can have.
pub const MAX_PARTITIONS: u32 = 100_000;

/// The least and the most that a segment's size can be set to, in bytes.
pub(crate) const SEGMENT_BYTES_MIN: u64 = 64 << 10;
pub(crate) const SEGMENT_BYTES_MAX: u64 = 16 << 30;
/// The most that the limit of a record's size can be set to, in bytes.
pub(crate) const MAX_RECORD_BYTES_MAX: u64 = 64 << 20;

/// What a topic is created with. Kept on disk with the topic, changed by
/// [`Log::increase_partitions`](crate::Log::increase_partitions) and [`Log::alter_topic`](crate::Log::alter_topic).
///
/// Each option takes a value or `None`: the log's, which is the default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    pub(crate) partitions: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) durability: Option<Durability>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) segment_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) segment_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) max_record_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retention_bytes: Option<u64>,
}

impl TopicConfig {
    /// A topic of `partitions` partitions (1 to [`MAX_PARTITIONS`]) and the log's own settings for the rest.
    pub fn with_partitions(partitions: u32) -> Self {
        Self {
            partitions,
            durability: None,
            segment_bytes: None,
            segment_ms: None,
            max_record_bytes: None,
            retention_ms: None,
            retention_bytes: None,
        }
    }

    /// The durability of appends that don't name one. Default: the log's.
    pub fn durability(mut self, durability: impl Into<Option<Durability>>) -> Self {
        self.durability = durability.into();
        self
    }

    /// The size of a segment file in bytes at which a new one is begun. 64 KiB to 16 GiB. Default: the log's.
    pub fn segment_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.segment_bytes = bytes.into();
        self
    }

    /// The age of a segment at which the next append begins a new one, counted in milliseconds. At least 1 ms.
    /// Default: the log's.
    pub fn segment_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.segment_ms = age.into().map(milliseconds);
        self
    }

    /// The most that a record's key, value and headers may take together, in bytes. 1 byte to 64 MiB. Default: the
    /// log's.
    pub fn max_record_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.max_record_bytes = bytes.into();
        self
    }

    /// How long records are kept, at least, counted in milliseconds: a segment goes once its newest record is older, by
    /// the log's own time (client timestamps don't matter). Whole segments go, so records stay longer by what a segment
    /// spans (see [`segment_age`](TopicConfig::segment_age)). When all records of the active segment are older, it is
    /// ended and goes too. `Duration::MAX`: for ever. Default: the log's.
    ///
    /// Ages are counted by the system's clock. If that jumps while the log is open, ahead or back, none goes early; those
    /// that were appended at a time that lies ahead now stay until that has passed by the age. A jump ahead between two
    /// processes looks like a machine that was off: records are older by as much, and go.
    pub fn retention_age(mut self, age: impl Into<Option<Duration>>) -> Self {
        self.retention_ms = age.into().map(milliseconds);
        self
    }

    /// How many bytes of a partition are kept, at least: its oldest segment goes as long as the others are at least so
    /// large. The active segment never goes for its size. `u64::MAX`: all. Default: the log's.
    pub fn retention_bytes(mut self, bytes: impl Into<Option<u64>>) -> Self {
        self.retention_bytes = bytes.into();
        self
    }

    /// The number of partitions.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if self.partitions == 0 || self.partitions > MAX_PARTITIONS {
            return invalid(
                "partitions",
                format!("{} partitions; 1 to {MAX_PARTITIONS} are possible", self.partitions),
            );
        }
        if let Some(durability) = self.durability {
            durability.validate()?;
        }
        validate_sizes(self.segment_bytes, self.segment_ms, self.max_record_bytes)
    }
}

/// See [`LogOptions::mapped_after`]. Linux alone has been seen to keep files in such pages. What simulates crashes in the
/// middle of a store sees to it that there are stores.
const MAPPED_AFTER: u64 = if cfg!(all(target_os = "linux", not(any(test, fuzzing, loom)))) { 64 << 10 } else { 0 };

/// How a log is opened. Made by [`Log::options`](crate::Log::options).
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub(crate) durability: Durability,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: Option<u64>,
    pub(crate) max_record_bytes: u64,
    pub(crate) retention_ms: Option<u64>,
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) retention_check_interval: Duration,
    pub(crate) max_open_segments: usize,
    /// `None`: half of what the system allows.
    pub(crate) max_open_files: Option<usize>,
    #[cfg(feature = "metrics")]
    pub(crate) metrics: MetricsOptions,
    pub(crate) positional_appends: bool,
    /// Appends to a partition go through the map once so many bytes of it aren't durable, where whole pages are reserved;
    /// else they use `pwrite`.
    ///
    /// A store through a map makes a whole page of the page cache dirty, which may be one of megabytes where somebody has
    /// read the file: the next sync writes all of it. `pwrite` makes blocks dirty. So an append that is synced alone, and
    /// few of them between two flushes, write as little as they are; many of them cost no system call each.
    pub(crate) mapped_after: u64,
    pub(crate) allow_unknown_file_system: bool,
    pub(crate) in_memory: bool,
    pub(crate) background: Background,
}

/// How figures are named, and how often gauges are set.
#[cfg(feature = "metrics")]
#[derive(Debug, Clone)]
pub(crate) struct MetricsOptions {
    pub(crate) interval: Duration,
    pub(crate) log: Option<String>,
    pub(crate) by_partition: bool,
}

#[cfg(feature = "metrics")]
impl Default for MetricsOptions {
    fn default() -> Self {
        Self { interval: Duration::from_secs(5), log: None, by_partition: false }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            segment_bytes: 64 << 20,
            segment_ms: None,
            max_record_bytes: 1 << 20,
            retention_ms: None,
            retention_bytes: None,
            retention_check_interval: Duration::from_secs(60),
            max_open_segments: 256,
            max_open_files: None,
            #[cfg(feature = "metrics")]
            metrics: MetricsOptions::default(),
            positional_appends: cfg!(tidelog_positional),
            mapped_after: MAPPED_AFTER,
            allow_unknown_file_system: false,
            in_memory: false,
            background: Background::default(),
        }
    }
}

impl LogOptions {
    /// The durability of appends where neither the topic nor the append names one. Default: `Interval` of 50 ms.
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The size of a segment file in bytes at which a new one is begun. 64 KiB to 16 GiB, default 64 MiB. The file
    /// has this length from the start but takes only the space that is used, give or take a few MiB.
    pub fn segment_bytes(mut self, bytes: u64) -> Self {
        self.segment_bytes = bytes;
        self
    }

    /// The age of a segment at which the next append begins a new one, counted in milliseconds. At least 1 ms.
    /// Default: none but the format's own limit of 49 days.
    pub fn segment_age(mut self, age: Duration) -> Self {
        self.segment_ms = Some(milliseconds(age));
        self
    }

    /// The most that a record's key, value and headers may take together, in bytes. 1 byte to 64 MiB, default 1 MiB.
    pub fn max_record_bytes(mut self, bytes: u64) -> Self {
        self.max_record_bytes = bytes;
        self
    }

    /// How long records are kept, at least, where the topic doesn't say: see
    /// [`TopicConfig::retention_age`]. Default: for ever.
    pub fn retention_age(mut self, age: Duration) -> Self {
        self.retention_ms = Some(milliseconds(age));
        self
    }

    /// How many bytes of each partition are kept, at least, where the topic doesn't say: see
    /// [`TopicConfig::retention_bytes`]. Default: all.
    pub fn retention_bytes(mut self, bytes: u64) -> Self {
        self.retention_bytes = Some(bytes);
        self
    }

    /// How often a thread in the background looks for segments that retention lets go of; the first time when the log is
    /// opened. At least 1 ms, default one minute. [`Log::enforce_retention`](crate::Log::enforce_retention) looks now.
    pub fn retention_check_interval(mut self, interval: Duration) -> Self {
        self.retention_check_interval = interval;
        self
    }

    /// How many sealed segments are kept mapped for readers that may come, in the whole log. At least 1, default 256.
    ///
    /// # Maps
    /// Linux lets a process have 65,530 maps (`vm.max_map_count`), which all of its libraries share. A log takes
    /// - 3 for each partition, whether it is used or not: the active segment, its index, the control page;
    /// - 2 for each sealed segment that is kept mapped by this option (the segment and its index);
    /// - 2 for each segment that was begun since its partition's last flush (some 10 for each partition at most);
    /// - 2 for each further segment that somebody stands in: a reader or consumer in one of each of its partitions, a
    ///   [`Batch`](crate::Batch) in all that its records are from. Those that read the newest records share the active
    ///   one, which is mapped anyway.
    ///
    /// So 20,000 partitions fit into what Linux allows, at some 3 KiB of memory each. A sealed segment that nobody reads
    /// takes no map and no descriptor, and less than 1 KiB of memory. When there are no more maps, appends that would begin
    /// a segment and reads that would open one are errors of kind [`LimitReached`](crate::ErrorKind::LimitReached).
    ///
    /// Maps take address space of a segment's full length (see [`segment_bytes`](LogOptions::segment_bytes)), but memory
    /// only for what is in use, which the system takes back as it needs it: it is page cache.
    pub fn max_open_segments(mut self, segments: usize) -> Self {
        self.max_open_segments = segments;
        self
    }

    /// How many files the log keeps open, at most: its file descriptors. At least 1. Default: half of what the process may
    /// have when the log is opened (`ulimit -n`; mostly 1,024), or 4,096 where the system doesn't say.
    ///
    /// # Descriptors
    /// - A partition takes one when something is appended to it, until that is on the device and nothing was appended for
    ///   some 10 to 20 seconds; and one more for each segment that was begun since the last flush. Partitions that are
    ///   idle or only read, sealed segments, readers and consumers take none.
    /// - When a partition needs one and as many are open as this says, those are closed that were idle the longest. Where
    ///   all have bytes that aren't on the device, some of them are flushed first, and the append waits for that: set
    ///   this, and the system's limit, at least to the number of partitions that are appended to at the same time.
    /// - Beside these a log has two (its lock, and a spare one), and for moments one for each thread that opens, reads
    ///   from, flushes or closes something.
    ///
    /// When the system has no more of them, what is idle is closed in the same way; if that isn't enough the error is of
    /// kind [`LimitReached`](crate::ErrorKind::LimitReached).
    pub fn max_open_files(mut self, files: usize) -> Self {
        self.max_open_files = Some(files);
        self
    }

    /// Append with `pwrite` instead of storing into a map. Default: no; on file systems where rewriting a block that is
    /// there may take new space (btrfs, zfs, overlayfs, unknown ones) it is done whatever this says.
    ///
    /// Each append is then a system call. Promises are the same ones. A process that was killed costs the next open a
    /// scan of what wasn't flushed.
    ///
    /// Where a store into a map finds no space, or the device fails as the page is read in, the system ends the process
    /// with a signal; space is reserved so that this doesn't happen. Set this where reserving can't be relied on: on thin
    /// provisioned volumes, sparse images, network block devices.
    pub fn positional_appends(mut self, positional: bool) -> Self {
        self.positional_appends = positional;
        self
    }

    /// Also use a file system that tidelog doesn't know (network ones are refused all the same). Default: no.
    ///
    /// It has to keep a lock until the holder dies, share a mapping between all who open the file, and have written
    /// what `fdatasync` says it has.
    pub fn allow_unknown_file_system(mut self, allow: bool) -> Self {
        self.allow_unknown_file_system = allow;
        self
    }

    /// Keep everything in memory, in a file system of its own that is gone when the log is closed: for tests. The
    /// path given to `open` is then a mere name.
    pub fn in_memory(mut self) -> Self {
        self.in_memory = true;
        self
    }

    /// How often gauges are set, by a thread in the background: lags, segments, bytes, open files. At least 1 ms, default
    /// 5 seconds. See [`doc::metrics`](crate::doc::metrics).
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn metrics_interval(mut self, interval: Duration) -> Self {
        self.metrics.interval = interval;
        self
    }

    /// The value of a label `log` that all figures of this log get, for programs that have more than one open. Default:
    /// no such label.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn metrics_label(mut self, log: impl Into<String>) -> Self {
        self.metrics.log = Some(log.into());
        self
    }

    /// Whether figures that have a label `topic` also have one named `partition`. Default: no. Each partition has some ten
    /// series then, and five for each group that reads it: too many for a few thousand partitions.
    #[cfg(feature = "metrics")]
    #[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
    pub fn metrics_by_partition(mut self, by_partition: bool) -> Self {
        self.metrics.by_partition = by_partition;
        self
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.durability.validate()?;
        #[cfg(feature = "metrics")]
        if self.metrics.interval < Duration::from_millis(1) {
            return invalid("metrics_interval", "less than 1 ms");
        }
        if self.retention_check_interval < Duration::from_millis(1) {
            return invalid("retention_check_interval", "less than 1 ms");
        }
        if self.max_open_segments == 0 {
            return invalid("max_open_segments", "at least 1");
        }
        if self.max_open_files == Some(0) {
            return invalid("max_open_files", "at least 1");
        }
        validate_sizes(Some(self.segment_bytes), self.segment_ms, Some(self.max_record_bytes))
    }
}

/// In whole ones.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn validate_sizes(segment_bytes: Option<u64>, segment_ms: Option<u64>, max_record_bytes: Option<u64>) -> Result<()> {
    if let Some(bytes) = segment_bytes {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) {
            let bounds = format!("{bytes} bytes; {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX} are possible");
            return invalid("segment_bytes", bounds);
        }
    }
    if segment_ms == Some(0) {
        return invalid("segment_age", "less than 1 ms");
    }
    if let Some(bytes) = max_record_bytes {
        if bytes == 0 || bytes > MAX_RECORD_BYTES_MAX {
            return invalid("max_record_bytes", format!("{bytes} bytes; 1 to {MAX_RECORD_BYTES_MAX} are possible"));
        }
    }
    Ok(())
}

fn invalid<T>(option: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Repr::InvalidConfig { option, reason: reason.into() }.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn defaults_are_valid() {
        LogOptions::default().validate().unwrap();
        TopicConfig::with_partitions(1).validate().unwrap();
        TopicConfig::with_partitions(MAX_PARTITIONS).validate().unwrap();
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_name() {
        let log = LogOptions::default;
        let topic = || TopicConfig::with_partitions(1);
        for (outcome, option) in [
            (TopicConfig::with_partitions(0).validate(), "partitions"),
            (TopicConfig::with_partitions(MAX_PARTITIONS + 1).validate(), "partitions"),
            (topic().segment_bytes(SEGMENT_BYTES_MIN - 1).validate(), "segment_bytes"),
            (topic().segment_bytes(SEGMENT_BYTES_MAX + 1).validate(), "segment_bytes"),
            (topic().segment_age(Duration::from_micros(999)).validate(), "segment_age"),
            (topic().max_record_bytes(0).validate(), "max_record_bytes"),
            (topic().durability(Durability::Interval(Duration::ZERO)).validate(), "durability"),
            (log().max_record_bytes(MAX_RECORD_BYTES_MAX + 1).validate(), "max_record_bytes"),
            (log().segment_bytes(0).validate(), "segment_bytes"),
            (log().max_open_segments(0).validate(), "max_open_segments"),
            (log().max_open_files(0).validate(), "max_open_files"),
            (log().retention_check_interval(Duration::ZERO).validate(), "retention_check_interval"),
            (log().durability(Durability::Interval(Duration::from_micros(1))).validate(), "durability"),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
