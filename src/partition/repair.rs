//! Mending a partition that nobody has open and that was closed cleanly: what a user asks for, and nothing does by itself.
//!
//! - Damaged bytes are copied into a file of their own, and [fillers](crate::frame::filler) are written in their place.
//! - A damaged copy of a segment's header is written anew from the other one.
//! - Indexes of segments in which something was mended, and damaged ones, are made anew.
//!
//! # Invariants
//! - Nothing is written where the device doesn't give something: what can't be read for a moment isn't damaged.
//! - Of damaged frames a copy is complete, durable, and was compared with what it was taken from, before a byte of them
//!   changes. Damaged copies of headers and damaged indexes, which can be made anew, aren't kept.
//! - No byte of a segment outside of a damaged range, or of a damaged header copy, is written. No frame moves; no offset
//!   changes.
//! - A crash at any step leaves what was damaged damaged, or mended; doing it again goes on from there. (A range that was
//!   half written then is copied once more, under another name.)
//! - A filler's header is stored behind its body. So what is half written is damage, as before.
//!
//! # Thread safety
//! The caller sees to it that nobody has the partition open.

use std::{
    collections::BTreeSet,
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
};

use super::{
    Environment, PartitionSpec,
    offset_index::{self, Entry, OffsetIndex, replace_file},
    recovery::zero_behind,
    scan::{FileSource, Found, Scan, first_nonzero},
    segment::{index_path, time_index_path},
    set_aside::{copy_aside, is_copy},
    time_index::{self, Bond, Coverage},
    verify::{ClosedPlan, ClosedSegment, Damaged},
};
use crate::{
    error::{Error, Result},
    frame::{self, FramePlace, NO_DURABLE_DISTANCE, filler},
    segment_header::{DATA_START, SEGMENT_HEADER_BYTES, SegmentHeader},
    storage::{EntryKind, OpenMode, Storage},
    verification::{Verification, VerifyFinding},
};

/// Something that a repair did. More may come. Its `Display` is a sentence.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairAction {
    /// Damaged bytes were set aside. Readers step over the place from now on; the offsets are a gap.
    SetAside {
        /// The segment.
        file: PathBuf,
        /// Where in it, in bytes.
        range: Range<u64>,
        /// The offsets that can't be read. Some of them may never have been used.
        offsets: Range<u64>,
        /// The copy of the bytes; `None` if they were zeros, or not there.
        kept_in: Option<PathBuf>,
    },
    /// A damaged copy of a segment's header was written anew from the other one.
    HeaderWritten {
        /// The segment.
        file: PathBuf,
        /// The copy, in bytes.
        range: Range<u64>,
    },
    /// The indexes of a segment were made anew.
    IndexRemade {
        /// The offset index.
        file: PathBuf,
    },
    /// What groups have committed, as far as it could be read, was written down anew: there was no whole snapshot of it.
    CommitsWritten {
        /// The folder of the log's own topic.
        folder: PathBuf,
    },
}

impl fmt::Display for RepairAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SetAside { file, range, offsets, kept_in } => {
                let (file, Range { start, end }) = (file.display(), range);
                write!(f, "{file}: set aside from position {start} to {end}, ")?;
                write!(f, "offsets {} to {}", offsets.start, offsets.end)?;
                kept_in.as_ref().map_or(Ok(()), |copy| write!(f, ", kept in {}", copy.display()))
            }
            Self::HeaderWritten { file, range } => {
                let (file, Range { start, end }) = (file.display(), range);
                write!(f, "{file}: the copy of the segment header from position {start} to {end} was written anew")
            }
            Self::IndexRemade { file } => write!(f, "{} is made anew", file.display()),
            Self::CommitsWritten { folder } => {
                write!(f, "what groups have committed was written down anew in {}", folder.display())
            }
        }
    }
}

/// Mends the partition in `dir`, as far as that is possible.
pub(crate) fn repair(env: &Environment, dir: &Path, spec: &PartitionSpec) -> Result<Vec<RepairAction>> {
    let mut watch = |_: &_| std::ops::ControlFlow::Continue(());
    let mut verification = Verification::new(&mut watch);
    let Some(plan) = ClosedPlan::new(env, dir, spec, &mut verification)? else { return Ok(Vec::new()) };
    let damaged = plan.find_damaged(&mut verification);
    let report = verification.finish_readable()?;

    let mut repair = Repair { storage: &*env.storage, dir, actions: Vec::new() };
    for (file, header, position) in plan.bad_copies() {
        repair.write_header(file, &header.encode(), position)?;
    }
    let mut touched = BTreeSet::new();
    for damaged in &damaged {
        if repair.set_aside(damaged)? {
            touched.insert(damaged.path.clone());
        }
    }
    let is_index = |finding: &VerifyFinding| match finding {
        VerifyFinding::Index { file, .. } => Some(file.with_extension("log")),
        _ => None,
    };
    touched.extend(report.findings().iter().filter_map(is_index));
    for segment in plan.segments().filter(|segment| touched.contains(&segment.path)) {
        repair.remake_indexes(&segment)?;
    }
    Ok(repair.actions)
}

struct Repair<'a> {
    storage: &'a dyn Storage,
    dir: &'a Path,
    actions: Vec<RepairAction>,
}

impl Repair<'_> {
    fn write_header(&mut self, file: PathBuf, header: &[u8; SEGMENT_HEADER_BYTES], position: u64) -> Result<()> {
        let write = || {
            let segment = self.storage.open(&file, OpenMode::ReadWrite)?;
            segment.write_all_at(header, position)?;
            segment.sync_data()
        };
        write().map_err(|source| Error::io("write the header of", &file, source))?;
        let range = position..position + SEGMENT_HEADER_BYTES as u64;
        self.actions.push(RepairAction::HeaderWritten { file, range });
        Ok(())
    }

    /// Copies a damaged range, and writes fillers in its place. False, and nothing is done, if none fit.
    fn set_aside(&mut self, damaged: &Damaged) -> Result<bool> {
        let Some(places) = places(damaged) else { return Ok(false) };
        let Damaged { path, header, range, offsets, .. } = damaged;
        let mend = || -> io::Result<Option<PathBuf>> {
            let file = self.storage.open(path, OpenMode::ReadWrite)?;
            let there = range.start..range.end.min(file.len()?);
            let mut source = FileSource::new(file.clone())?.until(there.end);
            let mut kept_in = None;
            if first_nonzero(&mut source, there.start)?.is_some() {
                let name = format!("{:020}.damaged-{}", header.base_offset, range.start);
                let copy = copy_aside(self.storage, self.dir, &file, there.clone(), &name)?;
                self.storage.sync_dir(self.dir)?;
                if !is_copy(self.storage, &copy, &file, &there)? {
                    return Err(io::Error::other("the copy isn't what was copied"));
                }
                kept_in = Some(copy);
            }
            // Behind the copy: a device that gives the right bytes again may have done so for that.
            refuse_frames(FileSource::new(file.clone())?.until(there.end), header, there.start)?;
            if there.end < range.end {
                // The file was cut: what the next segment says was there is zeros now, and then fillers.
                file.set_len(range.end)?;
            }
            for (place, bytes) in places {
                let body = place.position + frame::HEADER_BYTES as u64;
                zero_behind(&file, body, place.position + bytes)?;
                file.write_all_at(&filler::header(place, bytes), place.position)?;
            }
            file.sync_all()?;
            Ok(kept_in)
        };
        let kept_in = mend().map_err(|source| Error::io("set the damaged bytes aside of", path, source))?;
        let (file, range, offsets) = (path.clone(), range.clone(), offsets.clone());
        self.actions.push(RepairAction::SetAside { file, range, offsets, kept_in });
        Ok(true)
    }

    /// Makes both indexes anew; but for the active segment's time index, which whoever needs it makes.
    fn remake_indexes(&mut self, segment: &ClosedSegment) -> Result<()> {
        for path in [index_path(&segment.path), time_index_path(&segment.path)] {
            let failed = |source| Error::io("remove the index", &path, source);
            match self.storage.entry_kind(&path).map_err(failed)? {
                Some(EntryKind::File) => self.storage.remove_file(&path).map_err(failed)?,
                Some(_) => return Ok(()), // Somebody else's: it stays, and so does what is told of it.
                None => {}
            }
        }
        self.write_indexes(segment)?;
        self.actions.push(RepairAction::IndexRemade { file: index_path(&segment.path) });
        Ok(())
    }

    fn write_indexes(&self, segment: &ClosedSegment) -> Result<()> {
        let (header, end, storage) = (&segment.header, segment.end, self.storage);
        let path = index_path(&segment.path);
        let index = OffsetIndex::create(storage, &path, header.segment_id, end, end, false)?;
        let mut next_entry = DATA_START;
        let mut walk = || {
            let mut source = FileSource::new(storage.open(&segment.path, OpenMode::Read)?)?.until(end);
            time_index::blocks_of_frames(header, &mut source, end, |position, frame| {
                if position >= next_entry {
                    index.append(Entry { relative_offset: frame.relative_offset, position });
                    next_entry = position + offset_index::INTERVAL_BYTES;
                }
            })
        };
        let blocks = walk().map_err(|source: io::Error| Error::io("read", &segment.path, source))?;
        let times = time_index_path(&segment.path);
        let save = || {
            index.save(storage, &path)?;
            let Some(successor) = segment.successor else { return Ok(()) };
            let coverage = Coverage { segment_id: header.segment_id, end, bond: Bond::Successor(successor) };
            let bytes = time_index::encode(coverage, &blocks);
            replace_file(storage, &times, |file| file.write_all_at(&bytes, 0))
        };
        save().map_err(|source| Error::io("write the index", &path, source))
    }
}

/// An error if there is a valid frame from `start` on: whoever found damage there was given other bytes.
fn refuse_frames(mut source: FileSource, header: &SegmentHeader, start: u64) -> io::Result<()> {
    let mut scan = Scan::verified(header.frame_seed(), start);
    loop {
        match scan.next_in(&mut source)? {
            Found::Frame { .. } => return Err(io::Error::other("the device gives other bytes than before")),
            Found::Damage { .. } => {}
            Found::End { .. } => return Ok(()),
        }
    }
}

/// The fillers of a range; `None` if none fit, or a header can't say where they are.
fn places(damaged: &Damaged) -> Option<Vec<(FramePlace, u64)>> {
    let Damaged { header, range, before, .. } = damaged;
    let relative_offset = u32::try_from(before.next_offset.checked_sub(header.base_offset)?).ok()?;
    let relative_time = before.last_time_ms.saturating_sub(header.base_timestamp_ms).max(0);
    let relative_time_ms = u32::try_from(relative_time).ok()?;
    let mut position = range.start;
    let lengths = filler::lengths(range.end.checked_sub(range.start)?)?;
    let place = |bytes: u64| {
        let (seed, epoch, durable_distance) = (header.frame_seed(), before.epoch, NO_DURABLE_DISTANCE);
        let place = FramePlace { seed, position, relative_offset, relative_time_ms, epoch, durable_distance };
        position += bytes;
        (place, bytes)
    };
    Some(lengths.map(place).collect())
}
