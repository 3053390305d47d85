//! An embeddable, append-only, segmented log: topics, partitions, consumer groups and replay in a folder, with no server.

mod clock;
mod config;
mod error;
mod place;
mod storage;
mod waiter;

pub use config::{Durability, LogOptions, MAX_PARTITIONS, Start, TopicConfig};
pub use error::{Error, ErrorKind, Result};
pub use place::{Appended, AppendedRange};
