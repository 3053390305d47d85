//! What must stay true over the life of the project, written down.

#[doc = include_str!("format.md")]
pub mod format {}

#[doc = include_str!("offsets.md")]
pub mod offsets {}
