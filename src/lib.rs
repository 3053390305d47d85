//! An embeddable, append-only, segmented log: topics, partitions, consumer groups and replay in a folder, with no
//! server. A mini-Kafka that is a library.
//!
//! A program adds the crate, opens a folder, and appends records to topics. Services, which are threads of the same
//! program, read them as groups; each group commits how far it came, so that a program that is killed comes back and
//! goes on. Appends run at the speed of memory and survive a killed process; each one that asks is on the device when it
//! returns, and survives power loss.
//!
//! # A first program
//! ```standalone_crate
//! use std::time::Duration;
//! use tidelog::{Log, Record, TopicConfig};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # std::env::set_current_dir(dir.path())?;
//! let log = Log::open("data")?; // creates the folder if it is missing
//! let orders = log.ensure_topic("orders", TopicConfig::with_partitions(4))?;
//! orders.append(Record::new("one iPhone").key("customer-42"))?;
//!
//! let mut billing = log.consumer("billing").topic("orders").open()?;
//! for record in &billing.poll(Duration::from_secs(1))? {
//!     let value = record.value_str()?.unwrap_or("(null)");
//!     println!("{}-{} at {}: {value}", record.topic(), record.partition(), record.offset());
//! }
//! billing.commit()?; // the next run goes on behind what this one has seen
//! log.close()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Topics, partitions, keys
//! A [`Topic`] is divided into partitions, each an ordered sequence of records numbered by *offsets*. Records with the
//! same key go to the same partition and so keep their order; the partition is the one where Apache Kafka would put the
//! key. Records without a key stay on one partition for a while and then move on. A [`Record`] can name its partition,
//! and [`Topic::with_partitioner`] brings another rule. Offsets only grow. They may have gaps, so nobody should expect the
//! next one to be one more.
//!
//! # What survives what
//! | level | `append` returns when | survives a killed process | survives power loss |
//! |---|---|---|---|
//! | [`Durability::Written`] | it is in the page cache | yes | what a flush covered |
//! | [`Durability::Interval`] (default, 50 ms) | it is in the page cache, a flush is due within the interval | yes | all but about the last interval and the flush itself |
//! | [`Durability::Synced`] | it is on the device | yes | yes |
//!
//! The level is that of the log ([`LogOptions::durability`]), of the topic ([`TopicConfig::durability`]), or of the one
//! append ([`Topic::append_with`]). [`Log::flush`] makes everything as safe as `Synced`. What power loss takes is always a
//! suffix of a partition, never a hole in it. Threads that wait for the device at the same time share one sync.
//!
//! Most appends never block; [here](Topic#when-an-append-may-block) is when they do.
//!
//! # Groups
//! A [`Consumer`] reads for a group. [`poll`](Consumer::poll) returns what is there, or sleeps until something comes;
//! [`commit`](Consumer::commit) says that it was dealt with. Groups are independent of each other. Consumers of one group
//! [share its partitions](Consumer#several-consumers): open as many as there is work for. Commit *after* the work
//! and a crash makes some records come again (at least once); commit *before* it and a crash may skip some (at most once).
//! For an effect that happens exactly once, write down with the effect which offset it came from, and on a restart
//! [`seek`](Consumer::seek) there. [Each is shown](Consumer#at-least-once) where the consumer is.
//!
//! A consumer reads topics by name and by pattern, which takes up topics that come later
//! ([`ConsumerBuilder::topic_pattern`]). Who doesn't want to block a thread awaits [`Consumer::ready`], on any runtime or
//! none, or takes the consumer as a `Stream` (with the feature `stream`).
//!
//! To read without a group and without commits, for a replay for instance, there is [`Topic::reader`].
//!
//! # When something is wrong
//! Every error is an [`Error`] with an [`ErrorKind`]. Nothing is skipped silently: records that can't be read are an error
//! that tells file, position and offsets ([`ErrorKind::Corruption`]), and where reading can go on
//! ([`Error::resume_offset`]); or a [policy](CorruptionPolicy) goes on there and tells
//! ([`Batch::skipped`]). What opening found and mended after a crash is in [`Log::recovery`]. A full disk is an error of its
//! own kind; reading goes on, and so do appends once there is space.
//!
//! [`Log::verify`] reads everything and tells what isn't as it was written, also while others use the log.
//! [`LogOptions::repair`], which nothing calls but you, sets damaged records aside in files of their own.
//!
//! # Where to look
//! | you want to | see |
//! |---|---|
//! | open, create topics, close | [`Log`], [`LogOptions`], [`TopicConfig`] |
//! | delete, describe and change topics | [`Log::delete_topic`], [`Log::describe_topic`], [`Log::increase_partitions`], [`Log::alter_topic`] |
//! | append | [`Topic::append`], [`Topic::append_batch`], [`Record`] |
//! | append only if nobody else did | [`Partition::append_if`] |
//! | wait until it is on the device, also in a task | [`Topic::durable`], [`Topic::wait_durable`] |
//! | let old records go | [`TopicConfig::retention_age`], [`TopicConfig::retention_bytes`], [`Partition::delete_records`] |
//! | read as a group | [`Log::consumer`], [`ConsumerBuilder`], [`Consumer`] |
//! | read topics that come later | [`ConsumerBuilder::topic_pattern`] |
//! | wait without blocking a thread | [`Consumer::ready`], `ConsumerStream` (with the feature `stream`) |
//! | end a `poll` from another thread | [`Consumer::waker`] |
//! | leave some partitions for later | [`Consumer::pause`] |
//! | go on behind what can't be read | [`CorruptionPolicy`], [`OutOfRangePolicy`], [`Batch::skipped`] |
//! | share the work, and know what moves | [several consumers](Consumer#several-consumers), [`ConsumerBuilder::on_rebalance`] |
//! | know how far a group is behind | [`Consumer::lag`], [`Log::lag`] |
//! | list, describe, set back and delete groups | [`Log::groups`], [`Log::describe_group`], [`Log::reset_offsets`], [`Log::delete_group`] |
//! | read again, or without a group | [`Topic::reader`], [`Partition::read_from`], [`Start`] |
//! | read from a time on | [`Partition::read_from_time`], [`Reader::seek_to_time`], [`Consumer::seek_to_time`], [`Start::Time`] |
//! | keep or send what was read | [`Batch`], [`OwnedRecord`] |
//! | append and read values of your own types | [`Topic::typed`], [`Batch::typed`], [`RecordRef::decode`], [`Encoding`] |
//! | fold all events of a topic | [`TypedTopic::reader`] |
//! | have keys, values and headers as text | [`RecordRef::key_str`], [`RecordRef::value_str`], [`RecordRef::header_str`] |
//! | copy records to another topic, or append them again | [`Record::from`](Record#impl-From<RecordRef<'a>>-for-Record<'a>) |
//! | go on behind a record that can't be dealt with | [`Batch::typed`], [`dead_letter`] |
//! | know what a crash has done | [`Log::recovery`], [`RecoveryReport`] |
//! | check that everything is as it was written | [`Log::verify`], [`LogOptions::verify`], [`VerifyReport`] |
//! | set damaged records aside | [`LogOptions::repair`], [`RepairReport`] |
//! | test without files | [`LogOptions::in_memory`] |
//! | watch a log with Prometheus and Grafana | `doc::metrics`, with the feature `metrics` |
//! | find what you know from Apache Kafka | [`doc::kafka`] |
//! | know what is in the files | [`doc`] |
//!
//! # What it is not for
//! Several machines, clients over a network, request and response, network file systems. One process at a time has a
//! folder open.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(loom, allow(dead_code, unused_imports, reason = "of the tests only the models are there"))]

// In the order of layers: a file uses only what stands above it, or in its own layer (see `tests/layering.rs`).

// Ground.
mod background;
mod changes;
mod clock;
mod config;
mod error;
mod figures;
mod housekeeper;
mod mix;
mod name;
mod pattern;
mod place;
mod random;
mod sync;
mod verification;
mod waiter;

// Files.
mod storage;

// Records and frames as bytes.
mod codec;
mod frame;
mod record;
mod segment_header;

// One partition on disk.
mod partition;

// Topics.
mod durable;
mod json_file;
mod orphan;
mod partition_list;
mod partitioner;
mod report;
mod topic;
mod topics;

// Groups.
mod group;

// Clients.
mod consumer;
mod encoding;
mod reader;

// Root.
mod log;
#[cfg(any(fuzzing, all(test, not(loom))))]
mod simulation;

pub mod doc;

pub use config::{Durability, LogOptions, MAX_PARTITIONS, Start, TopicConfig};
#[cfg(feature = "stream")]
#[cfg_attr(docsrs, doc(cfg(feature = "stream")))]
pub use consumer::ConsumerStream;
pub use consumer::{Consumer, ConsumerBuilder, ConsumerWaker, Lag, PartitionLag, Ready, Rebalance, RebalanceKind};
pub use durable::Durable;
#[cfg(feature = "bincode")]
#[cfg_attr(docsrs, doc(cfg(feature = "bincode")))]
pub use encoding::Bincode;
pub use encoding::{Encoding, EncodingError, Json, TypedReader, TypedTopic, dead_letter};
pub use error::{Error, ErrorKind, Result};
pub use log::{
    CommittedOffset, GroupDescription, Log, MemberDescription, PartitionDescription, RepairReport, Reset,
    TopicDescription, TopicOptions,
};
pub use partition::{Batch, Cut, Opening, PartitionRecovery, Records, RecoveryEvent, Removed, RepairAction, Skipped};
pub use partitioner::{DefaultPartitioner, Partitioner, murmur2};
pub use place::{Appended, AppendedRange};
pub use reader::{CorruptionPolicy, OutOfRangePolicy, PartitionRecords, Reader};
pub use record::{Headers, OwnedRecord, Payload, Record, RecordRef};
pub use report::{Finding, RecoveryReport};
pub use topic::{Partition, Topic};
pub use topics::RetentionStatus;
pub use verification::{VerifyFinding, VerifyProgress, VerifyReport};

/// Handles are shared and sent by users: a change that takes this away doesn't compile.
const _: () = {
    const fn shared<T: Send + Sync + Clone>() {}
    const fn sent<T: Send>() {}
    shared::<Log>();
    shared::<Topic>();
    shared::<Partition>();
    shared::<Batch>();
    shared::<TypedTopic<std::cell::Cell<u8>, Json>>();
    shared::<OwnedRecord>();
    shared::<ConsumerWaker>();
    sent::<Consumer>();
    sent::<Ready<'static>>();
    sent::<Reader>();
    sent::<TypedReader<'static, std::cell::Cell<u8>, Json>>();
    sent::<PartitionRecords>();
    sent::<Durable>();
    sent::<Error>();
};

/// What the fuzz targets call.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::{
        encoding::fuzzing::typed_decode,
        frame::fuzzing::frame_decode,
        group::offsets_open,
        partition::fuzzing::{index_open, segment_open, state_open},
        segment_header::fuzzing::segment_header,
        simulation::fuzzing::{crash_states, operations},
    };
}

/// Compiles the README's program.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
