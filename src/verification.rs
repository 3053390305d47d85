//! What verifying a log tells: findings, counts, progress.
//!
//! # Invariants
//! - A report never grows beyond [`MAX_LISTED`] findings; those beyond are counted. Whether something couldn't be read is
//!   known all the same.
//! - A lack of descriptors is an error and no finding: nothing is wrong with the log.
//! - Progress comes to its total, unless whoever watches it ends the verification.
//!
//! # Thread safety
//! Plain values.

use std::{
    fmt, io,
    ops::{ControlFlow, Range},
    path::{Path, PathBuf},
};

use crate::error::{Error, ErrorKind, Result};

/// So many findings are listed, so that the memory of a verification has a bound.
const MAX_LISTED: usize = 10_000;

/// After so many bytes whoever watches is told.
const PROGRESS_BYTES: u64 = 1 << 20;

/// What verifying found: from [`Log::verify`](crate::Log::verify), [`Topic::verify`](crate::Topic::verify),
/// [`Partition::verify`](crate::Partition::verify), [`LogOptions::verify`](crate::LogOptions::verify).
///
/// ```
/// # use tidelog::{Log, Record, TopicConfig};
/// # fn main() -> tidelog::Result<()> {
/// # let log = Log::options().in_memory().open("shop")?;
/// # let orders = log.create_topic("orders", TopicConfig::with_partitions(1))?;
/// orders.append(Record::new("one iPhone"))?;
/// let report = log.verify()?;
/// for finding in report.findings() {
///     eprintln!("{finding}");
/// }
/// assert!(report.is_sound());
/// assert_eq!(report.records(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyReport {
    findings: Vec<VerifyFinding>,
    unlisted: u64,
    stopped: bool,
    partitions: u64,
    segments: u64,
    frames: u64,
    records: u64,
    bytes: u64,
}

impl VerifyReport {
    /// Whether everything was read, and all of it is what was written.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty() && !self.stopped
    }

    /// Whether everything was read: false if the callback of a `verify_with` ended it.
    pub fn is_complete(&self) -> bool {
        !self.stopped
    }

    /// What is wrong: the first 10,000 of it.
    pub fn findings(&self) -> &[VerifyFinding] {
        &self.findings
    }

    /// How many findings there were beyond those that are listed.
    pub fn unlisted(&self) -> u64 {
        self.unlisted
    }

    /// Partitions that were looked through.
    pub fn partitions(&self) -> u64 {
        self.partitions
    }

    /// Segments that were looked through.
    pub fn segments(&self) -> u64 {
        self.segments
    }

    /// Frames that are what was written.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Records in these frames, those of users alone. Records below a log start offset count as long as their file is
    /// there.
    pub fn records(&self) -> u64 {
        self.records
    }

    /// Bytes of the segments that were read.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// How far a verification has come.
#[non_exhaustive]
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyProgress {
    /// The topic that is being read.
    pub topic: String,
    /// The partition.
    pub partition: u32,
    /// Bytes of segments that were dealt with.
    pub bytes: u64,
    /// Of so many.
    pub total_bytes: u64,
    /// Findings so far.
    pub findings: u64,
}

/// One thing that verifying found. More may come. Its `Display` is a sentence.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VerifyFinding {
    /// Bytes that aren't what was written. Reading answers an error there and can go on behind.
    Corruption {
        /// The segment.
        file: PathBuf,
        /// Where in it, in bytes.
        range: Range<u64>,
        /// The offsets that can't be read. Some of them may never have been used.
        offsets: Range<u64>,
        /// What doesn't hold.
        detail: String,
    },
    /// Bytes that the device doesn't give.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        range: Range<u64>,
        /// What the system says.
        detail: String,
    },
    /// Segments that should be there are not; these offsets can't be read.
    SegmentsMissing {
        /// The partition's folder.
        folder: PathBuf,
        /// The offsets.
        offsets: Range<u64>,
    },
    /// The last write of a log that wasn't closed was cut short, or writes had reached the device out of order. Nothing
    /// of it was promised; the next open copies it aside and cuts it.
    TornTail {
        /// The segment that will be cut.
        file: PathBuf,
        /// Where, in bytes.
        position: u64,
        /// The log end offset that is left.
        end_offset: u64,
    },
    /// One of the two copies of a segment's header isn't what was written. The other one serves.
    SegmentHeader {
        /// The segment.
        file: PathBuf,
        /// The copy, in bytes.
        range: Range<u64>,
        /// What is wrong with it.
        detail: String,
    },
    /// A slot of a partition's checkpoint isn't what was written; or both, or the file is gone. The next open makes what
    /// it can of that.
    Checkpoint {
        /// The file.
        file: PathBuf,
        /// The slots, in bytes.
        range: Range<u64>,
        /// What is wrong.
        detail: String,
    },
    /// An index isn't what was written, or leads to no frame. It costs nothing but time: whoever needs it makes it anew.
    Index {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        range: Range<u64>,
        /// What is wrong.
        detail: String,
    },
    /// A file of the log as a whole, or of a topic, isn't what was written, or isn't there. The log may not open.
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A newer version of tidelog wrote it: it can't be checked here.
    NewerFormat {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        position: u64,
        /// What is newer.
        detail: String,
    },
    /// The folder of a topic's partition is gone, or holds nothing. The next open makes it anew, without records.
    MissingPartition {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder of a partition that no topic has.
    OrphanedFolder {
        /// The folder.
        folder: PathBuf,
    },
    /// A sync had failed: what was acknowledged may not be on the device. The next open writes it anew.
    Poisoned {
        /// The partition's folder.
        folder: PathBuf,
        /// What is known of it.
        detail: String,
    },
    /// What groups have committed can't be told in full: groups may go on from earlier commits.
    Commits {
        /// The folder of the log's own topic.
        folder: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A group has committed an offset behind the end of the partition.
    CommitBeyondEnd {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// What is committed.
        committed: u64,
        /// The log end offset.
        end_offset: u64,
    },
}

impl VerifyFinding {
    /// A word for what it is, for programs: `corruption`, `unreadable`, `segments-missing`, `torn-tail`, `segment-header`,
    /// `checkpoint`, `index`, `file`, `newer-format`, `missing-partition`, `orphaned-folder`, `poisoned`, `commits`,
    /// `commit-beyond-end`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Corruption { .. } => "corruption",
            Self::Unreadable { .. } => "unreadable",
            Self::SegmentsMissing { .. } => "segments-missing",
            Self::TornTail { .. } => "torn-tail",
            Self::SegmentHeader { .. } => "segment-header",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Index { .. } => "index",
            Self::File { .. } => "file",
            Self::NewerFormat { .. } => "newer-format",
            Self::MissingPartition { .. } => "missing-partition",
            Self::OrphanedFolder { .. } => "orphaned-folder",
            Self::Poisoned { .. } => "poisoned",
            Self::Commits { .. } => "commits",
            Self::CommitBeyondEnd { .. } => "commit-beyond-end",
        }
    }

    /// The file or folder that it is about, if it is about one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Corruption { file, .. }
            | Self::Unreadable { file, .. }
            | Self::TornTail { file, .. }
            | Self::SegmentHeader { file, .. }
            | Self::Checkpoint { file, .. }
            | Self::Index { file, .. }
            | Self::File { file, .. }
            | Self::NewerFormat { file, .. } => Some(file),
            Self::SegmentsMissing { folder, .. }
            | Self::MissingPartition { folder }
            | Self::OrphanedFolder { folder }
            | Self::Poisoned { folder, .. }
            | Self::Commits { folder, .. } => Some(folder),
            Self::CommitBeyondEnd { .. } => None,
        }
    }

    /// Where in the file, in bytes, if that is known.
    pub fn range(&self) -> Option<Range<u64>> {
        match self {
            Self::Corruption { range, .. }
            | Self::Unreadable { range, .. }
            | Self::SegmentHeader { range, .. }
            | Self::Checkpoint { range, .. }
            | Self::Index { range, .. } => Some(range.clone()),
            _ => None,
        }
    }

    /// The offsets that can't be read, if that is known.
    pub fn offsets(&self) -> Option<Range<u64>> {
        match self {
            Self::Corruption { offsets, .. } | Self::SegmentsMissing { offsets, .. } => Some(offsets.clone()),
            _ => None,
        }
    }
}

impl fmt::Display for VerifyFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corruption { file, range, offsets, detail } => {
                write!(f, "{} is damaged {}: {detail}", file.display(), Bytes(range))?;
                write!(f, "; offsets {} to {} can't be read", offsets.start, offsets.end)
            }
            Self::Unreadable { file, range, detail } => {
                write!(f, "{} can't be read {}: {detail}", file.display(), Bytes(range))
            }
            Self::SegmentsMissing { folder, offsets } => {
                let (folder, Range { start, end }) = (folder.display(), offsets);
                write!(f, "segments are missing in {folder}; offsets {start} to {end} can't be read")
            }
            Self::TornTail { file, position, end_offset } => {
                let file = file.display();
                write!(
                    f,
                    "{file} has a torn tail: the next open cuts it at position {position} (end offset {end_offset})"
                )
            }
            Self::SegmentHeader { file, range, detail } => {
                write!(f, "the copy of the segment header in {} {} is damaged: {detail}", file.display(), Bytes(range))
            }
            Self::Checkpoint { file, range, detail } | Self::Index { file, range, detail } => {
                write!(f, "{} {}: {detail}", file.display(), Bytes(range))
            }
            Self::File { file, detail } => write!(f, "{}: {detail}", file.display()),
            Self::NewerFormat { file, position, detail } => {
                write!(f, "{} at position {position}: {detail}", file.display())
            }
            Self::MissingPartition { folder } => {
                write!(f, "{} is missing or empty; the next open makes it anew, without records", folder.display())
            }
            Self::OrphanedFolder { folder } => write!(f, "{} belongs to no topic", folder.display()),
            Self::Poisoned { folder, detail } => write!(f, "a sync failed in {}: {detail}", folder.display()),
            Self::Commits { folder, detail } => {
                write!(f, "committed offsets may be lost in {}: {detail}", folder.display())
            }
            Self::CommitBeyondEnd { group, topic, partition, committed, end_offset } => write!(
                f,
                "group {group:?} has committed offset {committed} of {topic}-{partition}, which ends at {end_offset}"
            ),
        }
    }
}

/// A range of a file in a message.
struct Bytes<'a>(&'a Range<u64>);

impl fmt::Display for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from position {} to {}", self.0.start, self.0.end)
    }
}

/// Whoever watches; it may end the verification.
pub(crate) type Watch<'w> = &'w mut dyn FnMut(&VerifyProgress) -> ControlFlow<()>;

/// A verification that is going on.
pub(crate) struct Verification<'w> {
    report: VerifyReport,
    progress: VerifyProgress,
    /// Bytes that nobody was told of yet.
    untold: u64,
    watch: Watch<'w>,
    /// The first file that something couldn't be read of, listed or not, and what the system said.
    unreadable: Option<(PathBuf, String)>,
    /// Why there is no report.
    failure: Option<Error>,
}

/// What was found and counted up to some moment, to go back to it.
pub(crate) struct Mark {
    report: (usize, u64),
    findings: u64,
    has_unreadable: bool,
}

impl<'w> Verification<'w> {
    pub(crate) fn new(watch: Watch<'w>) -> Self {
        let (report, progress) = (VerifyReport::default(), VerifyProgress::default());
        Self { report, progress, untold: 0, watch, unreadable: None, failure: None }
    }

    /// There is more to be read.
    pub(crate) fn add_total(&mut self, bytes: u64) {
        self.progress.total_bytes += bytes;
    }

    pub(crate) fn begin_partition(&mut self, topic: &str, partition: u32) {
        topic.clone_into(&mut self.progress.topic);
        self.progress.partition = partition;
        self.report.partitions += 1;
    }

    pub(crate) fn find(&mut self, finding: VerifyFinding) {
        self.progress.findings += 1;
        if let VerifyFinding::Unreadable { file, detail, .. } = &finding {
            self.unreadable.get_or_insert_with(|| (file.clone(), detail.clone()));
        }
        if self.report.findings.len() < MAX_LISTED {
            self.report.findings.push(finding);
        } else {
            self.report.unlisted += 1;
        }
    }

    /// A file can't be opened, or some of it can't be read; `range` is what isn't read then. Answers what is in its place
    /// if that is no file.
    pub(crate) fn refused(&mut self, file: &Path, range: Range<u64>, source: io::Error) -> Option<String> {
        let detail = source.to_string();
        let error = Error::io("verify", file, source);
        match error.kind() {
            ErrorKind::Corruption => return Some(detail),
            // Nothing is wrong with the log: it isn't the one to tell of.
            ErrorKind::LimitReached => drop(self.failure.get_or_insert(error)),
            _ => self.find(VerifyFinding::Unreadable { file: file.to_owned(), range, detail }),
        }
        None
    }

    pub(crate) fn mark(&self) -> Mark {
        let report = (self.report.findings.len(), self.report.unlisted);
        Mark { report, findings: self.progress.findings, has_unreadable: self.unreadable.is_some() }
    }

    /// What was found since the mark was about something that isn't there any more.
    pub(crate) fn forget_since(&mut self, mark: &Mark) {
        self.report.findings.truncate(mark.report.0);
        self.report.unlisted = mark.report.1;
        self.progress.findings = mark.findings;
        if !mark.has_unreadable {
            self.unreadable = None;
        }
    }

    pub(crate) fn count_segment(&mut self, bytes: u64) {
        self.report.segments += 1;
        self.report.bytes += bytes;
    }

    /// Counts a frame that is what was written.
    pub(crate) fn count_frame(&mut self, records: u64) {
        self.report.frames += 1;
        self.report.records += records;
    }

    /// Bytes that were dealt with so far.
    pub(crate) fn done(&self) -> u64 {
        self.progress.bytes
    }

    /// Bytes were dealt with.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.progress.bytes += bytes;
        self.untold += bytes;
        if self.untold >= PROGRESS_BYTES {
            self.tell();
        }
    }

    /// Tells whoever watches, if it doesn't know that it is over.
    pub(crate) fn tell(&mut self) {
        self.untold = 0;
        if !self.is_stopped() && (self.watch)(&self.progress).is_break() {
            self.report.stopped = true;
        }
    }

    /// Whether to end here.
    pub(crate) fn is_stopped(&self) -> bool {
        self.report.stopped || self.failure.is_some()
    }

    /// What was found; kind `LimitReached` if there was no descriptor to look with.
    pub(crate) fn finish(self) -> Result<VerifyReport> {
        self.failure.map_or(Ok(self.report), Err)
    }

    /// The same for who is going to write: kind `Io` if the device didn't give something.
    pub(crate) fn finish_readable(self) -> Result<VerifyReport> {
        match self.unreadable {
            Some((file, detail)) if self.failure.is_none() => Err(Error::io("read", file, io::Error::other(detail))),
            _ => self.failure.map_or(Ok(self.report), Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn unreadable() -> VerifyFinding {
        VerifyFinding::Unreadable { file: "a.log".into(), range: 0..512, detail: "a bad block".into() }
    }

    fn other() -> VerifyFinding {
        VerifyFinding::OrphanedFolder { folder: "b-0".into() }
    }

    #[test]
    fn what_cannot_be_read_is_known_behind_any_number_of_findings() {
        let mut watch = |_: &_| ControlFlow::Continue(());
        let mut verification = Verification::new(&mut watch);
        (0..MAX_LISTED).for_each(|_| verification.find(other()));
        let mark = verification.mark();
        verification.find(unreadable());
        verification.forget_since(&mark);
        assert!(verification.unreadable.is_none(), "of a file that isn't there any more");
        verification.find(unreadable());
        assert_eq!((verification.report.findings.len(), verification.report.unlisted), (MAX_LISTED, 1));
        let error = verification.finish_readable().unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, Some(Path::new("a.log"))));
    }

    #[test]
    fn what_could_not_be_read_before_a_mark_stays_known() {
        let mut watch = |_: &_| ControlFlow::Continue(());
        let mut verification = Verification::new(&mut watch);
        verification.find(unreadable());
        let mark = verification.mark();
        verification.find(unreadable());
        verification.forget_since(&mark);
        assert_eq!(verification.finish_readable().unwrap_err().kind(), ErrorKind::Io);
    }
}
