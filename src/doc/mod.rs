//! What must stay true over the life of the project, written down.

#[doc = include_str!("format.md")]
pub mod format {}

#[doc = include_str!("offsets.md")]
pub mod offsets {}

#[cfg(feature = "metrics")]
#[cfg_attr(docsrs, doc(cfg(feature = "metrics")))]
#[doc = include_str!("metrics.md")]
pub mod metrics {}
