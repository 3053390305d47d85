//! An embeddable, append-only, segmented log: topics, partitions, consumer groups and replay in a folder, with no server.

mod clock;
mod codec;
mod config;
mod consumer;
pub mod doc;
mod error;
mod frame;
mod group;
mod json_file;
mod log;
mod name;
mod orphan;
mod partition;
mod partitioner;
mod place;
mod reader;
mod record;
mod report;
mod segment_header;
mod storage;
mod topic;
mod topics;
mod waiter;

pub use config::{Durability, LogOptions, MAX_PARTITIONS, Start, TopicConfig};
pub use consumer::{Consumer, ConsumerBuilder, Lag, PartitionLag};
pub use error::{Error, ErrorKind, Result};
pub use log::Log;
pub use partition::{Batch, Cut, Opening, PartitionRecovery, Records, RecoveryEvent};
pub use partitioner::{DefaultPartitioner, Partitioner, murmur2};
pub use place::{Appended, AppendedRange};
pub use reader::{PartitionRecords, Reader};
pub use record::{Headers, OwnedRecord, Payload, Record, RecordRef};
pub use report::{Finding, RecoveryReport};
pub use topic::{Partition, Topic};

/// What the fuzz targets call.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{frame::fuzzing::frame_decode, segment_header::fuzzing::segment_header};
}
