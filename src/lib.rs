//! An embeddable, append-only, segmented log: topics, partitions, consumer groups and replay in a folder, with no server.

mod clock;
mod codec;
mod config;
pub mod doc;
mod error;
mod frame;
mod partition;
mod place;
mod record;
mod segment_header;
mod storage;
mod waiter;

pub use config::{Durability, LogOptions, MAX_PARTITIONS, Start, TopicConfig};
pub use error::{Error, ErrorKind, Result};
pub use partition::{Batch, Cut, Opening, PartitionRecovery, Records, RecoveryEvent};
pub use place::{Appended, AppendedRange};
pub use record::{Headers, OwnedRecord, Payload, Record, RecordRef};

/// What the fuzz targets call.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{frame::fuzzing::frame_decode, segment_header::fuzzing::segment_header};
}
