//! What must stay true over the life of the project, written down; and a way in for those who come from Apache Kafka.

#[doc = include_str!("format.md")]
pub mod format {}

#[doc = include_str!("offsets.md")]
pub mod offsets {}

#[doc = include_str!("reliability.md")]
pub mod reliability {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("kafka.md")]
pub mod kafka {}

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
#[doc = include_str!("metrics.md")]
pub mod metrics {}
