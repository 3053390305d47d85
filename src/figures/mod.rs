//! What a log tells of itself: counters, gauges and histograms, through the facade of the crate `metrics`. Names, types
//! and labels are a promise to whoever draws them: see `src/doc/metrics.md`.
//!
//! # Invariants
//! - Without the feature `metrics` nothing here does anything: types have no size, and calls compile to nothing.
//! - Handles are looked up once, when what they are about is opened; who counts pays for an atomic addition and no look-up.
//!   Only errors, which are rare, are looked up when they come.
//! - Every figure is one of [`FIGURES`], and has the labels that are written there.
//!
//! # Thread safety
//! Any thread may call anything.

#[cfg(feature = "metrics")]
mod names;
#[cfg_attr(feature = "metrics", path = "recorded.rs")]
#[cfg_attr(not(feature = "metrics"), path = "nothing.rs")]
mod recorder;

pub(crate) use self::recorder::{Figures, GroupFigures, PartitionFigures, ReadFigures, Timer};
#[cfg(feature = "metrics")]
pub(crate) use self::recorder::{LagGauges, LogGauges, TopicGauges};
#[cfg(feature = "metrics")]
pub(crate) use metrics::Gauge;

/// What somebody was at when an error came: values of the label `operation`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "metrics"), allow(dead_code, reason = "told to nobody"))]
pub(crate) enum Operation {
    Append,
    Flush,
    Poll,
    Commit,
}
