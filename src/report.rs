//! What opening a log found, and what it did about it.

use std::{fmt, path::PathBuf};

use crate::partition::PartitionRecovery;

/// What [`Log::open`](crate::Log::open) found, and what it did about it. From [`Log::recovery`](crate::Log::recovery).
///
/// ```
/// # fn main() -> tidelog::Result<()> {
/// # let log = tidelog::Log::options().in_memory().open("shop")?;
/// for finding in log.recovery().findings() {
///     eprintln!("{finding}");
/// }
/// for partition in log.recovery().partitions() {
///     for event in partition.events() {
///         eprintln!("{}-{}: {event}", partition.topic(), partition.partition());
///     }
/// }
/// assert!(log.recovery().is_clean());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct RecoveryReport {
    partitions: Vec<PartitionRecovery>,
    findings: Vec<Finding>,
}

impl RecoveryReport {
    /// Whether there is nothing to tell.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.partitions.iter().all(PartitionRecovery::is_clean)
    }

    /// How each partition was found, in the order of topic names and numbers; those of the log's own topics last.
    pub fn partitions(&self) -> &[PartitionRecovery] {
        &self.partitions
    }

    /// What concerns the log as a whole.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Takes in what opening one partition told.
    pub(crate) fn add_partition(&mut self, recovery: PartitionRecovery) {
        self.partitions.push(recovery);
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        self.findings.push(finding);
    }
}

/// One thing that opening a log found. More may come. Its `Display` is a sentence.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// There were topics, but `tidelog.meta` was missing; it was written anew.
    MissingMeta {
        /// The file.
        path: PathBuf,
    },
    /// The folder of a partition that no topic has: its topic's file is gone, or has fewer partitions. It isn't
    /// touched. A topic of that name can't be created as long as the folder holds records.
    OrphanedFolder {
        /// The folder.
        path: PathBuf,
    },
    /// The folder of a topic's partition was gone, or held nothing any more. The partition was made anew: it is empty,
    /// and its offsets begin at 0.
    MissingPartition {
        /// The folder.
        path: PathBuf,
    },
    /// The file of one of the log's own topics was missing. It was written anew, from what the files of its partition say.
    MissingTopicFile {
        /// The file.
        path: PathBuf,
    },
    /// A partition ends before an offset that a group has committed: records that were there are gone, as behind a
    /// restored backup of its folder. Offsets that may have been used are not assigned again.
    CommitsBeyondEnd {
        /// The partition's folder.
        path: PathBuf,
        /// The greatest offset that a group has committed.
        committed: u64,
        /// Where the partition ended.
        end_offset: u64,
        /// Where appends go on.
        detail: String,
    },
    /// An earlier process had deleted this topic without coming to its end; now its files are gone too.
    DeletionFinished {
        /// The topic's name.
        topic: String,
    },
    /// A topic was deleted, but files of it are still there, because they couldn't be removed. Another attempt is made by
    /// the next open, and before a topic of that name is created.
    DeletionUnfinished {
        /// The topic's name.
        topic: String,
        /// What kept the files from being removed.
        detail: String,
    },
    /// A file that seems to say that a topic was deleted, but can't be read, or contradicts what is there. It isn't
    /// touched, and nothing is removed for it. A topic of that name can't be created as long as it is there.
    DamagedDeletion {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Committed offsets were damaged: the groups whose latest commits are lost go on from earlier ones.
    DamagedCommits {
        /// The damage: file, position and offsets.
        detail: String,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingMeta { path } => write!(f, "{} was missing and was written anew", path.display()),
            Self::OrphanedFolder { path } => write!(f, "{} belongs to no topic", path.display()),
            Self::MissingPartition { path } => {
                write!(f, "{} was missing or empty; its partition was made anew, without records", path.display())
            }
            Self::MissingTopicFile { path } => {
                write!(f, "{} was missing and was written anew, by its partition's files", path.display())
            }
            Self::CommitsBeyondEnd { path, committed, end_offset, detail } => write!(
                f,
                "{} ended at offset {end_offset}, groups have committed offset {committed}: records are missing; {detail}",
                path.display()
            ),
            Self::DeletionFinished { topic } => {
                write!(f, "topic {topic:?} had been deleted; the rest of its files was removed")
            }
            Self::DeletionUnfinished { topic, detail } => {
                write!(f, "topic {topic:?} was deleted, but files of it are left: {detail}")
            }
            Self::DamagedDeletion { path, detail } => {
                write!(f, "{} doesn't say which topic was deleted, nothing was removed: {detail}", path.display())
            }
            Self::DamagedCommits { detail } => {
                write!(f, "committed offsets may be lost, groups go on from earlier ones: {detail}")
            }
        }
    }
}
