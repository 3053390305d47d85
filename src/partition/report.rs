//! What opening found: the report of [`Log::recovery`](crate::Log::recovery).
//!
//! Nothing that recovery does to a file is silent. What it cut it copied aside first, under the name that the report
//! gives; what it found damaged it left where it is.

use std::{fmt, ops::Range, path::PathBuf};

/// How a partition was found, and what recovery did about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionRecovery {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) opening: Opening,
    pub(crate) events: Vec<RecoveryEvent>,
}

impl PartitionRecovery {
    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The partition's number.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// What told where the log ends.
    pub fn opening(&self) -> Opening {
        self.opening
    }

    /// What was lost, damaged or mended. Empty after every clean close, and after most unclean ones.
    pub fn events(&self) -> &[RecoveryEvent] {
        &self.events
    }

    /// Whether there is nothing to tell.
    pub fn is_clean(&self) -> bool {
        self.events.is_empty()
    }
}

/// What told where a partition's log ends.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opening {
    /// There was nothing: the partition is new.
    Created,
    /// It was closed cleanly.
    Clean,
    /// Its process was killed, and the system has kept running since.
    Resumed,
    /// Neither: the frames behind the durable mark were read and verified.
    Scanned,
}

/// Something that recovery found. More may come.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryEvent {
    /// The last write was cut short. What was left of it was copied aside and cut.
    TornTail(Cut),
    /// Writes had reached the device out of order: valid frames lay behind a hole. So that what is lost is a suffix
    /// and no hole, all behind the hole was copied aside and cut.
    ReorderedTail(Cut),
    /// The tail is torn, and couldn't be copied aside: there was no space, mostly. It was left as it is, and nothing is
    /// read behind `cut.position`; the first append that finds space copies and cuts it.
    ///
    /// Nothing tells of that then. Beside `cut.file`, `00000000000000000000.log` for instance, the copy is named
    /// `00000000000000000000.torn-8192` for a cut at position 8192. Whole segments that lay behind it keep their name
    /// with `.torn` at its end: `00000000000000004096.log.torn`. Where a name is taken by something else, `.1` follows,
    /// or `.2`.
    UncutTail {
        /// What is to be cut; it is kept nowhere else yet.
        cut: Cut,
        /// Why it wasn't.
        detail: String,
    },
    /// Bytes that had been acknowledged as durable are not what was written. They were left as they are; reading
    /// answers an error there and can go on behind.
    Corruption {
        /// The file.
        file: PathBuf,
        /// Where in it, in bytes.
        range: Range<u64>,
        /// The offsets that can't be read.
        offsets: Range<u64>,
        /// What doesn't hold.
        detail: String,
    },
    /// Segments that should be there are not; these offsets can't be read.
    SegmentsMissing {
        /// The offsets.
        offsets: Range<u64>,
    },
    /// Neither slot of the checkpoint could be read. Appends go on in a new segment, far enough behind the last valid
    /// frame that no offset is used twice.
    CheckpointLost {
        /// The next offset to be assigned.
        next_offset: u64,
    },
    /// One of the two slots of the checkpoint can't be read. The other one counts, and no offset is used twice if the
    /// lost one was newer.
    CheckpointSlotLost {
        /// The checkpoint.
        file: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// An earlier sync had failed. What wasn't known to be on the device was written anew.
    Rewritten {
        /// The files.
        files: Vec<PathBuf>,
    },
    /// An earlier sync had failed, and writing anew failed too: the partition can be read and takes no appends.
    StillPoisoned {
        /// Why.
        detail: String,
    },
}

/// What was cut from the end of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The segment that was cut.
    pub file: PathBuf,
    /// Where, in bytes.
    pub position: u64,
    /// The log end offset that was left.
    pub end_offset: u64,
    /// Where what was cut was copied or moved to.
    pub kept_in: Vec<PathBuf>,
}

impl fmt::Display for RecoveryEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TornTail(cut) => write!(f, "torn tail: {cut}"),
            Self::ReorderedTail(cut) => write!(f, "reordered tail: {cut}"),
            Self::UncutTail { cut, detail } => {
                write!(f, "torn tail, left as it is for now: {detail}; to be cut: {cut}")
            }
            Self::CheckpointSlotLost { file, detail } => {
                write!(f, "one slot of {} is lost, the other one counts: {detail}", file.display())
            }
            Self::Corruption { file, range, offsets, detail } => write!(
                f,
                "{} is damaged from position {} to {}: {detail}; offsets {} to {} can't be read",
                file.display(),
                range.start,
                range.end,
                offsets.start,
                offsets.end
            ),
            Self::SegmentsMissing { offsets } => {
                write!(f, "segments are missing; offsets {} to {} can't be read", offsets.start, offsets.end)
            }
            Self::CheckpointLost { next_offset } => {
                write!(f, "the checkpoint was lost; appends go on at offset {next_offset}")
            }
            Self::Rewritten { files } => write!(f, "{} files were written anew after a failed sync", files.len()),
            Self::StillPoisoned { detail } => write!(f, "the partition takes no appends: {detail}"),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} was cut at position {} (end offset {})", self.file.display(), self.position, self.end_offset)?;
        for path in &self.kept_in {
            write!(f, ", kept in {}", path.display())?;
        }
        Ok(())
    }
}
