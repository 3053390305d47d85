//! The one error of the crate.
//!
//! [`Error`] carries an [`ErrorKind`] to decide on, a message that names the thing (topic, file, limit) to read, and
//! accessors for the places that a program may want to act on: the offset to go on at, the ranges that were appended,
//! the process that holds a lock. It is `Send + Sync` and one pointer wide, so results stay small on the hot path.

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::place::AppendedRange;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, for a program to decide on. More kinds may come.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The operating system refused a file operation.
    Io,
    /// No space is left for what was to be written. Reads go on; appends succeed again once there is space.
    StorageFull,
    /// The process, or the system, has no more file descriptors, threads, maps or memory for maps: see
    /// [`LogOptions::max_open_files`](crate::LogOptions::max_open_files). Nothing is lost, and the same call succeeds
    /// once there are some again.
    LimitReached,
    /// Another process (or another [`Log`](crate::Log) of this one) has the folder open.
    Locked,
    /// The path is there but is not a folder; nor is a link one, within the log's folder.
    NotADirectory,
    /// A topic or group name breaks the naming rule, or is reserved.
    InvalidName,
    /// An option is out of its bounds.
    InvalidConfig,
    /// The folder was written by a newer version of the format than this crate reads.
    UnsupportedFormat,
    /// The folder lies on a file system that is a network one, or unknown and not allowed by the options.
    UnsupportedFileSystem,
    /// A record, its key or its headers exceed their limit.
    RecordTooLarge,
    /// `create_topic` found the topic in place; or another one whose file can't be told from it, on a file system that
    /// ignores case.
    TopicExists,
    /// No topic has that name; or the topic of a handle was deleted, also if there is another one of its name since.
    UnknownTopic,
    /// The topic has no partition with that number.
    UnknownPartition,
    /// The topic exists with another partition count than the one asked for.
    PartitionCountMismatch,
    /// The offset lies outside what the partition holds: see [`Error::valid_offsets`].
    OffsetOutOfRange,
    /// What a file holds is not what was written: see [`Error::path`], [`Error::file_position`] and
    /// [`Error::resume_offset`].
    Corruption,
    /// A sync failed earlier; the partition takes no appends until the log was closed and opened again.
    Poisoned,
    /// The group has members; the operation needs it to have none.
    GroupInUse,
    /// No group has that name.
    UnknownGroup,
    /// The partition was given to another consumer of the group; what this one has of it is out of date.
    Fenced,
    /// The log end offset isn't the one that the append expected: see [`Error::end_offset`]. Nothing was appended.
    Conflict,
    /// The encoding can't make an event of a record's bytes: see [`Error::resume_offset`] and
    /// [`Error::source`](std::error::Error::source).
    Undecodable,
    /// The encoding can't make bytes of an event. Nothing was appended.
    Unencodable,
    /// The partition isn't among those that the consumer reads.
    NotAssigned,
    /// The log was closed.
    Closed,
}

/// Why an operation of this crate failed. See [`ErrorKind`] for the kinds.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Repr>);

#[derive(Debug, thiserror::Error)]
pub(crate) enum Repr {
    #[error("can't {operation} {}: {source}", .path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("can't {operation} {}: no space left on the device", .path.display())]
    StorageFull { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("can't {operation} {}: {source} (a limit of the process or the system)", .path.display())]
    LimitReached { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("the folder {} is open in {}", .path.display(), Holder(.process_id))]
    Locked { path: PathBuf, process_id: Option<u32> },
    #[error("{} is not a folder", .path.display())]
    NotADirectory { path: PathBuf },
    #[error("{what} name {name:?} {reason}")]
    InvalidName { what: &'static str, name: String, reason: &'static str },
    #[error("option {option}: {reason}")]
    InvalidConfig { option: &'static str, reason: String },
    #[error("{} has format version {found}, this version of tidelog reads up to {supported}", .path.display())]
    UnsupportedFormat { path: PathBuf, found: u32, supported: u32 },
    #[error("{} holds {what} at offset {offset}, which this version of tidelog doesn't know", .path.display())]
    UnsupportedRecord { path: PathBuf, offset: u64, what: String },
    #[error("{} lies on {file_system}, {reason}", .path.display())]
    UnsupportedFileSystem { path: PathBuf, file_system: String, reason: &'static str },
    #[error("{what} takes {bytes} bytes, the limit is {limit}")]
    RecordTooLarge { what: &'static str, bytes: u64, limit: u64 },
    #[error("topic {topic:?} exists already")]
    TopicExists { topic: String },
    #[error("topic {topic:?} can't be created: {} is another topic's file, or somebody's", .path.display())]
    TopicFileExists { topic: String, path: PathBuf },
    #[error("there is no topic {topic:?}")]
    UnknownTopic { topic: String },
    #[error("topic {topic:?} has {count} partitions, there is no partition {partition}")]
    UnknownPartition { topic: String, partition: u32, count: u32 },
    #[error("a record for partition {asked} was handed to {topic}-{partition}")]
    OtherPartition { topic: String, partition: u32, asked: u32 },
    #[error("topic {topic:?} has {existing} partitions, {requested} were asked for")]
    PartitionCountMismatch { topic: String, existing: u32, requested: u32 },
    #[error("offset {offset} of {topic}-{partition} is out of range, which is {} to {}", .valid.start, .valid.end)]
    OffsetOutOfRange { topic: String, partition: u32, offset: u64, valid: Range<u64> },
    #[error("{} is damaged at position {position}: {detail}{}", .path.display(), Damaged(.offsets))]
    Corruption { path: PathBuf, position: u64, offsets: Option<Range<u64>>, detail: String },
    #[error("the frame at position {position} of {} has attributes that this version doesn't know ({attributes:#06x})", .path.display())]
    UnknownAttributes { path: PathBuf, position: u64, attributes: u16 },
    #[error("{topic}-{partition} takes no appends until the log is opened again: {reason}")]
    Poisoned { topic: String, partition: u32, reason: Arc<str> },
    #[error("group {group:?} has members; they have to leave first")]
    GroupInUse { group: String },
    #[error("there is no group {group:?}")]
    UnknownGroup { group: String },
    #[error("{topic}-{partition} was given to another consumer of group {group:?}")]
    Fenced { group: String, topic: String, partition: u32 },
    #[error("{topic}-{partition} ends at offset {end_offset}, not at {expected} as the append expected")]
    Conflict { topic: String, partition: u32, expected: u64, end_offset: u64 },
    #[error("the record at offset {offset} of {topic}-{partition} can't be decoded: {source}")]
    Undecodable { topic: String, partition: u32, offset: u64, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("an event for topic {topic:?} can't be encoded: {source}")]
    Unencodable { topic: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("topic {topic:?} was deleted")]
    TopicDeleted { topic: String },
    #[error("{topic}-{partition} is not assigned to this consumer")]
    NotAssigned { topic: String, partition: u32 },
    #[error("the log was closed")]
    Closed,
    #[error("after {} ranges were appended: {source}", .appended.len())]
    PartialAppend { appended: Vec<AppendedRange>, source: Error },
}

/// Names the holder of a lock in a message.
struct Holder<'a>(&'a Option<u32>);

impl fmt::Display for Holder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(id) if *id == std::process::id() => write!(f, "this process ({id}) already"),
            Some(id) => write!(f, "process {id}"),
            None => write!(f, "another process"),
        }
    }
}

/// Names the offsets that damage took, where they are known.
struct Damaged<'a>(&'a Option<Range<u64>>);

impl fmt::Display for Damaged<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(range) => write!(f, "; offsets {} to {} can't be read", range.start, range.end),
            None => Ok(()),
        }
    }
}

impl From<Repr> for Error {
    fn from(repr: Repr) -> Self {
        Self(Box::new(repr))
    }
}

impl Error {
    /// What went wrong, to decide on.
    pub fn kind(&self) -> ErrorKind {
        match &*self.0 {
            Repr::Io { .. } => ErrorKind::Io,
            Repr::StorageFull { .. } => ErrorKind::StorageFull,
            Repr::LimitReached { .. } => ErrorKind::LimitReached,
            Repr::Locked { .. } => ErrorKind::Locked,
            Repr::NotADirectory { .. } => ErrorKind::NotADirectory,
            Repr::InvalidName { .. } => ErrorKind::InvalidName,
            Repr::InvalidConfig { .. } => ErrorKind::InvalidConfig,
            Repr::UnsupportedFormat { .. } | Repr::UnsupportedRecord { .. } | Repr::UnknownAttributes { .. } => {
                ErrorKind::UnsupportedFormat
            }
            Repr::UnsupportedFileSystem { .. } => ErrorKind::UnsupportedFileSystem,
            Repr::RecordTooLarge { .. } => ErrorKind::RecordTooLarge,
            Repr::TopicExists { .. } | Repr::TopicFileExists { .. } => ErrorKind::TopicExists,
            Repr::UnknownTopic { .. } | Repr::TopicDeleted { .. } => ErrorKind::UnknownTopic,
            Repr::UnknownPartition { .. } | Repr::OtherPartition { .. } => ErrorKind::UnknownPartition,
            Repr::PartitionCountMismatch { .. } => ErrorKind::PartitionCountMismatch,
            Repr::OffsetOutOfRange { .. } => ErrorKind::OffsetOutOfRange,
            Repr::Corruption { .. } => ErrorKind::Corruption,
            Repr::Poisoned { .. } => ErrorKind::Poisoned,
            Repr::GroupInUse { .. } => ErrorKind::GroupInUse,
            Repr::UnknownGroup { .. } => ErrorKind::UnknownGroup,
            Repr::Fenced { .. } => ErrorKind::Fenced,
            Repr::Conflict { .. } => ErrorKind::Conflict,
            Repr::Undecodable { .. } => ErrorKind::Undecodable,
            Repr::Unencodable { .. } => ErrorKind::Unencodable,
            Repr::NotAssigned { .. } => ErrorKind::NotAssigned,
            Repr::Closed => ErrorKind::Closed,
            Repr::PartialAppend { source, .. } => source.kind(),
        }
    }

    /// The file or folder that the error is about.
    pub fn path(&self) -> Option<&Path> {
        match &*self.0 {
            Repr::Io { path, .. }
            | Repr::StorageFull { path, .. }
            | Repr::LimitReached { path, .. }
            | Repr::Locked { path, .. }
            | Repr::NotADirectory { path }
            | Repr::TopicFileExists { path, .. }
            | Repr::UnsupportedFormat { path, .. }
            | Repr::UnsupportedRecord { path, .. }
            | Repr::UnknownAttributes { path, .. }
            | Repr::UnsupportedFileSystem { path, .. }
            | Repr::Corruption { path, .. } => Some(path),
            Repr::PartialAppend { source, .. } => source.path(),
            _ => None,
        }
    }

    /// The topic that the error is about, if it is about one.
    pub fn topic(&self) -> Option<&str> {
        match &*self.0 {
            Repr::TopicExists { topic }
            | Repr::TopicFileExists { topic, .. }
            | Repr::UnknownTopic { topic }
            | Repr::TopicDeleted { topic }
            | Repr::Fenced { topic, .. }
            | Repr::Conflict { topic, .. }
            | Repr::Undecodable { topic, .. }
            | Repr::Unencodable { topic, .. }
            | Repr::UnknownPartition { topic, .. }
            | Repr::OtherPartition { topic, .. }
            | Repr::PartitionCountMismatch { topic, .. }
            | Repr::OffsetOutOfRange { topic, .. }
            | Repr::Poisoned { topic, .. }
            | Repr::NotAssigned { topic, .. } => Some(topic),
            Repr::Corruption { path, offsets: Some(_), .. } => partition_of(path).map(|(topic, _)| topic),
            Repr::PartialAppend { source, .. } => source.topic(),
            _ => None,
        }
    }

    /// The group that the error is about, if it is about one.
    pub fn group(&self) -> Option<&str> {
        match &*self.0 {
            Repr::GroupInUse { group } | Repr::UnknownGroup { group } | Repr::Fenced { group, .. } => Some(group),
            _ => None,
        }
    }

    /// The number of the partition that the error is about, if it is about one.
    pub fn partition(&self) -> Option<u32> {
        match &*self.0 {
            Repr::UnknownPartition { partition, .. }
            | Repr::OtherPartition { partition, .. }
            | Repr::Fenced { partition, .. }
            | Repr::Conflict { partition, .. }
            | Repr::Undecodable { partition, .. }
            | Repr::OffsetOutOfRange { partition, .. }
            | Repr::Poisoned { partition, .. }
            | Repr::NotAssigned { partition, .. } => Some(*partition),
            Repr::Corruption { path, offsets: Some(_), .. } => partition_of(path).map(|(_, number)| number),
            Repr::PartialAppend { source, .. } => source.partition(),
            _ => None,
        }
    }

    /// Kind [`Corruption`](ErrorKind::Corruption): where in the file, in bytes.
    pub fn file_position(&self) -> Option<u64> {
        match &*self.0 {
            Repr::Corruption { position, .. } | Repr::UnknownAttributes { position, .. } => Some(*position),
            _ => None,
        }
    }

    /// Kind [`Corruption`](ErrorKind::Corruption) of a partition: the offsets that can't be read. Some of them may
    /// never have been used.
    pub fn damaged_offsets(&self) -> Option<Range<u64>> {
        match &*self.0 {
            Repr::Corruption { offsets, .. } => offsets.clone(),
            _ => None,
        }
    }

    /// Where reading can go on: behind the damage for kind [`Corruption`](ErrorKind::Corruption), behind the record for
    /// kind [`Undecodable`](ErrorKind::Undecodable), the earliest
    /// readable offset for an [`OffsetOutOfRange`](ErrorKind::OffsetOutOfRange) that lies before it, the log end
    /// offset for one that lies behind it.
    pub fn resume_offset(&self) -> Option<u64> {
        match &*self.0 {
            Repr::Corruption { offsets, .. } => offsets.as_ref().map(|range| range.end),
            Repr::OffsetOutOfRange { offset, valid, .. } if *offset < valid.start => Some(valid.start),
            Repr::OffsetOutOfRange { valid, .. } => Some(valid.end),
            Repr::Undecodable { offset, .. } => Some(offset.saturating_add(1)),
            _ => None,
        }
    }

    /// The offset of the record that the error is about, if it is about one.
    pub fn offset(&self) -> Option<u64> {
        match &*self.0 {
            Repr::OffsetOutOfRange { offset, .. } | Repr::Undecodable { offset, .. } => Some(*offset),
            _ => None,
        }
    }

    /// Kind [`Conflict`](ErrorKind::Conflict): the log end offset that was found.
    pub fn end_offset(&self) -> Option<u64> {
        match &*self.0 {
            Repr::Conflict { end_offset, .. } => Some(*end_offset),
            _ => None,
        }
    }

    /// Kind [`OffsetOutOfRange`](ErrorKind::OffsetOutOfRange): the log start offset and the log end offset.
    pub fn valid_offsets(&self) -> Option<Range<u64>> {
        match &*self.0 {
            Repr::OffsetOutOfRange { valid, .. } => Some(valid.clone()),
            _ => None,
        }
    }

    /// Kind [`Locked`](ErrorKind::Locked): the id of the last process that recorded itself as the holder.
    pub fn process_id(&self) -> Option<u32> {
        match &*self.0 {
            Repr::Locked { process_id, .. } => *process_id,
            _ => None,
        }
    }

    /// What a batch had appended before it failed. Empty if nothing was.
    pub fn appended(&self) -> &[AppendedRange] {
        match &*self.0 {
            Repr::PartialAppend { appended, .. } => appended,
            _ => &[],
        }
    }

    /// An I/O error with its place; a full disk becomes kind `StorageFull`, a lack of descriptors or maps
    /// `LimitReached`.
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        if is_out_of_files(&source) || source.kind() == io::ErrorKind::OutOfMemory {
            return Repr::LimitReached { operation, path, source }.into();
        }
        if source.get_ref().is_some_and(|inner| inner.is::<NotAFile>()) || source.kind() == io::ErrorKind::IsADirectory
        {
            return Self::corruption(path, 0, source.to_string());
        }
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Repr::StorageFull { operation, path, source }.into()
            }
            io::ErrorKind::NotADirectory => Repr::NotADirectory { path }.into(),
            _ => Repr::Io { operation, path, source }.into(),
        }
    }

    /// Damage that isn't tied to offsets.
    pub(crate) fn corruption(path: impl Into<PathBuf>, position: u64, detail: impl Into<String>) -> Self {
        Repr::Corruption { path: path.into(), position, offsets: None, detail: detail.into() }.into()
    }

    /// Adds the offsets that can't be read to kind `Corruption`; other kinds stay as they are.
    pub(crate) fn with_damaged_offsets(mut self, range: Range<u64>) -> Self {
        if let Repr::Corruption { offsets, .. } = &mut *self.0 {
            *offsets = Some(range);
        }
        self
    }

    /// Adds what a batch had appended before `self` stopped it.
    pub(crate) fn after_appending(self, appended: Vec<AppendedRange>) -> Self {
        if appended.is_empty() { self } else { Repr::PartialAppend { appended, source: self }.into() }
    }
}

/// Something else stands where a regular file belongs: it isn't opened.
#[derive(Debug, thiserror::Error)]
#[error("there is {0} in the place of a file")]
pub(crate) struct NotAFile(pub(crate) &'static str);

impl From<NotAFile> for io::Error {
    fn from(found: NotAFile) -> Self {
        Self::new(io::ErrorKind::InvalidInput, found)
    }
}

/// Whether a file couldn't be opened because the process or the system has no more descriptors. No call on a file that
/// is open answers so.
pub(crate) fn is_out_of_files(error: &io::Error) -> bool {
    #[cfg(unix)]
    const CODES: [i32; 2] = [libc::EMFILE, libc::ENFILE];
    #[cfg(windows)]
    const CODES: [i32; 1] = [4]; // ERROR_TOO_MANY_OPEN_FILES
    #[cfg(not(any(unix, windows)))]
    const CODES: [i32; 0] = [];
    error.raw_os_error().is_some_and(|code| CODES.contains(&code))
}

/// Topic and number of the partition that a segment belongs to, by the name of its folder: `<topic>-<number>`. Where
/// segments are missing, `path` is the folder itself.
fn partition_of(path: &Path) -> Option<(&str, u32)> {
    let folder = if path.extension().is_some_and(|it| it == "log") { path.parent()? } else { path };
    let (topic, number) = folder.file_name()?.to_str()?.rsplit_once('-')?;
    Some((topic, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_names_the_partition_of_a_segment_and_of_a_folder_that_lacks_some() {
        // The folder above is named like a partition's, and isn't one.
        for path in ["/data/shop-1/orders-7/00000000000000000000.log", "/data/shop-1/orders-7", "/data/shop-1/a.log-7"]
        {
            let error = Error::corruption(path, 0, "missing").with_damaged_offsets(0..5);
            let topic = if path.contains("orders") { "orders" } else { "a.log" };
            assert_eq!((error.topic(), error.partition()), (Some(topic), Some(7)), "{path}");
        }
    }

    #[test]
    fn a_full_disk_has_its_own_kind() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let error = Error::io("reserve space in", "/data/orders-0", kind.into());
            assert_eq!(error.kind(), ErrorKind::StorageFull);
            assert_eq!(error.path(), Some(Path::new("/data/orders-0")));
        }
        assert_eq!(Error::io("open", "/data", io::ErrorKind::PermissionDenied.into()).kind(), ErrorKind::Io);
    }

    #[test]
    fn a_limit_of_the_system_has_its_own_kind() {
        #[cfg(unix)]
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOMEM] {
            let error = Error::io("open", "/data/orders-0", io::Error::from_raw_os_error(code));
            assert_eq!(error.kind(), ErrorKind::LimitReached);
            assert_eq!(error.path(), Some(Path::new("/data/orders-0")));
        }
        assert_eq!(Error::io("map", "/data", io::ErrorKind::OutOfMemory.into()).kind(), ErrorKind::LimitReached);
    }

    #[test]
    fn an_error_is_one_pointer_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn a_partial_append_keeps_the_kind_and_tells_what_was_appended() {
        let ranges = vec![AppendedRange { partition: 1, offsets: 5..9 }];
        let error = Error::from(Repr::Closed).after_appending(ranges.clone());
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert_eq!(error.appended(), ranges);
        assert!(Error::from(Repr::Closed).after_appending(Vec::new()).appended().is_empty());
    }

    #[test]
    fn damage_of_a_segment_tells_the_partition() {
        let error = |path: &str, offsets| {
            Error::from(Repr::Corruption { path: path.into(), position: 0, offsets, detail: String::new() })
        };
        let damaged = error("/data/my-orders-12/00000000000000000000.log", Some(3..5));
        assert_eq!((damaged.topic(), damaged.partition()), (Some("my-orders"), Some(12)));
        let other = error("/data/my-orders-12/partition.checkpoint", None);
        assert_eq!((other.topic(), other.partition()), (None, None));
    }

    #[test]
    fn the_place_to_go_on_at_is_the_nearer_end() {
        let at = |offset| {
            Error::from(Repr::OffsetOutOfRange { topic: "orders".into(), partition: 0, offset, valid: 10..20 })
        };
        assert_eq!(at(3).resume_offset(), Some(10));
        assert_eq!(at(33).resume_offset(), Some(20));
    }
}
