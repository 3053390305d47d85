//! What is measured: the workloads, and one task of a process.
//!
//! W1 to W4 append, W5 to W7 read what another process has appended and closed. "1K" stands for payloads of 1 KiB, all
//! others are of 100 bytes.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::common::{BATCH, SIZES};

/// Threads of W4.
const MANY: usize = 8;
/// Appends that are measured behind a log that has grown.
const GROWN_APPENDS: u64 = 1_000_000;

/// What is done, and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Workload {
    /// Append one record a call, no sync.
    #[value(name = "W1")]
    W1,
    /// The same, 1 KiB.
    #[value(name = "W1-1K")]
    W1K,
    /// Append batches of 100, no sync.
    #[value(name = "W2")]
    W2,
    /// The same, 1 KiB.
    #[value(name = "W2-1K")]
    W2K,
    /// Append batches of 100, each durable when the call returns.
    #[value(name = "W2s")]
    W2S,
    /// Append one record a call, durable when the call returns.
    #[value(name = "W3")]
    W3,
    /// The same from eight threads at once.
    #[value(name = "W4")]
    W4,
    /// Read all records in order.
    #[value(name = "W5")]
    W5,
    /// The same, 1 KiB.
    #[value(name = "W5-1K")]
    W5K,
    /// Read one record by its offset, at random.
    #[value(name = "W6")]
    W6,
    /// Open what was closed cleanly.
    #[value(name = "W7")]
    W7,
}

impl Workload {
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::W1 => "append, one record a call, no sync",
            Self::W1K => "append, one record a call, no sync, 1 KiB",
            Self::W2 => "append batches of 100, no sync",
            Self::W2K => "append batches of 100, no sync, 1 KiB",
            Self::W2S => "append batches of 100, each durable",
            Self::W3 => "append, one record a call, each durable",
            Self::W4 => "append from 8 threads, each record durable",
            Self::W5 => "read all records in order",
            Self::W5K => "read all records in order, 1 KiB",
            Self::W6 => "read one record by its offset, at random",
            Self::W7 => "open after a clean close",
        }
    }

    pub(crate) fn payload_bytes(self) -> usize {
        match self {
            Self::W1K | Self::W2K | Self::W5K => SIZES[1],
            _ => SIZES[0],
        }
    }

    pub(crate) fn is_durable(self) -> bool {
        matches!(self, Self::W2S | Self::W3 | Self::W4)
    }

    pub(crate) fn is_batched(self) -> bool {
        matches!(self, Self::W2 | Self::W2K | Self::W2S)
    }

    /// Whether it is about what another process has appended.
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::W5 | Self::W5K | Self::W6 | Self::W7)
    }

    /// Records to append or to read, where the log is to have `records` of 100 bytes.
    pub(crate) fn records(self, records: u64) -> u64 {
        match self {
            // As many bytes, about.
            Self::W1K | Self::W2K | Self::W5K => (records / 5).max(1),
            Self::W2S => records.min(100_000),
            Self::W3 => records.min(4_000),
            Self::W4 => records.min(16_000),
            _ => records,
        }
    }

    pub(crate) fn threads(self) -> usize {
        if self == Self::W4 { MANY } else { 1 }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}

/// How what is read was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Layout {
    /// One record a call.
    Lone,
    /// Batches of 100.
    Batched,
}

/// What one process does to one peer.
#[derive(Clone, Debug)]
pub(crate) struct Task {
    pub(crate) workload: Workload,
    /// Of several ways in which the peer is measured at the workload.
    pub(crate) variant: String,
    /// The peer's folder; its parent is for what else is needed.
    pub(crate) dir: PathBuf,
    /// That the log has, or gets.
    pub(crate) records: u64,
    /// No measurement takes longer.
    pub(crate) cap: Duration,
    pub(crate) layout: Layout,
    /// Whether the log is only filled, to be read by other processes: then nothing needs to be durable before it is
    /// closed.
    pub(crate) fills: bool,
    /// Records of a batch.
    pub(crate) batch: usize,
    /// Whether the log may be as large as the memory allows, and what is measured is what its size changes: appends come
    /// behind `records` that are there already.
    pub(crate) grows: bool,
}

impl Task {
    pub(crate) fn is_durable(&self) -> bool {
        self.workload.is_durable()
    }

    /// Records whose appends are measured.
    pub(crate) fn appends(&self) -> u64 {
        if self.grows { GROWN_APPENDS } else { self.records }
    }

    /// Records that are there before appends are measured.
    pub(crate) fn records_before(&self) -> u64 {
        if self.grows { self.records } else { 0 }
    }

    /// All records, with those of the warm-up.
    pub(crate) fn room(&self) -> u64 {
        self.records_before() + self.appends() + self.warm_up_records() + BATCH as u64
    }

    /// Records that are appended before the clock runs.
    pub(crate) fn warm_up_records(&self) -> u64 {
        (self.appends() / 50).next_multiple_of(BATCH as u64)
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.dir.parent().unwrap_or(Path::new(".")).join(name)
    }
}
