//! A partition that nobody has open: where its log ends by what the next open would do, and the walk up to there.
//!
//! # Invariants
//! - Who may be believed, and what is cut, is decided by the functions of [`recovery`](crate::partition::recovery) and
//!   [`survey`](crate::partition::survey), in the order in which an open asks them. Files are opened for reading alone.
//! - What a torn tail takes isn't walked through: nothing of it was promised.
//!
//! # Thread safety
//! The caller sees to it that nobody has the partition open.

use std::path::{Path, PathBuf};

use super::{
    Damaged, Sink, check_slots,
    headers::{self, Owner},
    walk::{Plan, Planned, Walk, set_ends},
};
use crate::{
    error::{Error, ErrorKind, Result},
    partition::{
        Environment, PartitionSpec,
        checkpoint::{self, Checkpoint, CheckpointState},
        control::{ControlPage, Previous},
        offset_index::{self, Entry},
        recovery::{Ending, Opener, Tail, tail_of},
        salvage::VANISHED,
        scan::{FileSource, Source},
        segment::{base_offset_of, index_path, segment_path},
        survey::survey,
    },
    segment_header::{DATA_START, SegmentHeader},
    storage::{EntryKind, OpenMode, Storage},
    verification::{Verification, VerifyFinding},
};

/// A partition that nobody has open, and what there is to read of it.
pub(crate) struct ClosedPlan {
    plan: Plan,
}

/// One of its segments.
pub(in crate::partition) struct ClosedSegment {
    pub(in crate::partition) path: PathBuf,
    pub(in crate::partition) header: SegmentHeader,
    /// Position behind the last frame.
    pub(in crate::partition) end: u64,
    /// The id of the next segment; `None` if this is the active one.
    pub(in crate::partition) successor: Option<u64>,
}

/// Where a log ends.
struct End {
    /// Position behind the last frame of the active segment.
    position: Option<u64>,
    /// Where appends go on.
    offset: u64,
    /// Set behind a clean close: in which its time index was written.
    epoch: Option<u32>,
}

impl ClosedPlan {
    /// Plans to verify the partition in `dir`; `None` if there is nothing to read.
    pub(crate) fn new(
        env: &Environment,
        dir: &Path,
        spec: &PartitionSpec,
        verification: &mut Verification<'_>,
    ) -> Result<Option<Self>> {
        let storage = &*env.storage;
        let Some(bases) = list(storage, dir, verification)? else { return Ok(None) };
        let mut opener = Opener { env, dir, spec, bases, mode: OpenMode::Read };
        let has_checkpoint = kind_of(storage, &dir.join(checkpoint::FILE_NAME))?.is_some();
        if opener.bases.is_empty() && !has_checkpoint {
            verification.find(VerifyFinding::MissingPartition { folder: dir.into() });
            return Ok(None);
        }
        let was_told = check_slots(storage, dir, verification);
        let (checkpoint, refusal) = match Checkpoint::open(storage, dir) {
            Ok(checkpoint) => (checkpoint, None),
            Err(error) if error.kind() == ErrorKind::UnsupportedFormat => return Ok(None), // That was told.
            Err(error) => (None, Some(error)),
        };
        let checkpoint = checkpoint.filter(|found| is_owned(found.state(), spec, dir, verification));
        let known = checkpoint.as_ref().map(|checkpoint| *checkpoint.state());
        let log_start =
            known.map_or_else(|| opener.bases.first().copied().unwrap_or(0), |state| state.log_start_offset);
        // What an interrupted deletion left.
        let deleted = opener.deleted_segments(log_start)?;
        opener.bases.drain(..deleted);
        let end = match refusal {
            // It may be sound: nothing is to be made of its loss.
            Some(error) => unknown_end(&opener, None, error, (!was_told).then_some(verification))?,
            None => find_end(&mut opener, checkpoint.as_ref(), verification)?,
        };

        let owner = Owner { topic_id: spec.topic_id, number: spec.number };
        let mut segments = Vec::new();
        for &base in &opener.bases {
            if let Some(header) = headers::read(storage, &segment_path(dir, base), base, owner, verification) {
                segments.push(Planned::new(base, header));
            }
        }
        set_ends(&mut segments, end.position);
        verification.add_total(segments.iter().map(|segment| segment.bytes).sum());
        if segments.is_empty() {
            let (folder, offsets) = (dir.to_owned(), log_start..end.offset);
            verification.find(VerifyFinding::SegmentsMissing { folder, offsets });
        }
        let plan = Plan {
            storage: env.storage.clone(),
            dir: dir.into(),
            topic: spec.topic.clone(),
            number: spec.number,
            log_start,
            end_offset: end.offset,
            segments,
            epoch: end.epoch,
            is_open: false,
            is_internal: spec.topic.starts_with(crate::name::RESERVED_PREFIX),
        };
        Ok(Some(Self { plan }))
    }

    /// Reads everything.
    pub(crate) fn run(&self, verification: &mut Verification<'_>, sink: Option<Sink<'_>>) {
        Walk::new(&self.plan, verification, sink).run(&|_| false);
    }

    /// As [`run`](ClosedPlan::run); answers what fillers can replace.
    pub(in crate::partition) fn find_damaged(&self, verification: &mut Verification<'_>) -> Vec<Damaged> {
        Walk::new(&self.plan, verification, None).keep_damaged().run(&|_| false).damaged
    }

    /// Copies of segments' headers that are to be written anew: the file, what belongs there, and where.
    pub(in crate::partition) fn bad_copies(&self) -> impl Iterator<Item = (PathBuf, SegmentHeader, u64)> {
        self.plan.bad_copies()
    }

    /// The segments in order, without those of which isn't known where they end.
    pub(in crate::partition) fn segments(&self) -> impl Iterator<Item = ClosedSegment> {
        self.plan.segments.iter().enumerate().filter_map(|(at, segment)| {
            let path = segment_path(&self.plan.dir, segment.base);
            let next = self.plan.segments.get(at + 1).and_then(|next| next.header);
            let successor = next.map(|next| next.segment_id);
            Some(ClosedSegment { path, header: segment.header?, end: segment.end?, successor })
        })
    }

    /// Where appends go on.
    pub(crate) fn end_offset(&self) -> u64 {
        self.plan.end_offset
    }

    /// Earlier segments were removed.
    pub(crate) fn begins_late(&self) -> bool {
        self.plan.log_start > 0
    }
}

/// The base offsets of the segments there are, ascending; `None` if there is no folder, which is told.
fn list(storage: &dyn Storage, dir: &Path, verification: &mut Verification<'_>) -> Result<Option<Vec<u64>>> {
    if kind_of(storage, dir)? != Some(EntryKind::Dir) {
        verification.find(VerifyFinding::MissingPartition { folder: dir.into() });
        return Ok(None);
    }
    let entries = storage.list(dir).map_err(|source| Error::io("list", dir, source))?;
    let mut bases = Vec::new();
    for entry in entries {
        match base_offset_of(&entry.name) {
            Some(base) if entry.kind == EntryKind::File => bases.push(base),
            Some(_) => {
                let detail = "there is something else in the place of a segment".into();
                verification.find(VerifyFinding::File { file: dir.join(entry.name), detail });
            }
            None => {}
        }
    }
    bases.sort_unstable();
    Ok(Some(bases))
}

fn kind_of(storage: &dyn Storage, path: &Path) -> Result<Option<EntryKind>> {
    storage.entry_kind(path).map_err(|source| Error::io("look at", path, source))
}

fn is_owned(state: &CheckpointState, spec: &PartitionSpec, dir: &Path, verification: &mut Verification<'_>) -> bool {
    let owned = state.topic_id == spec.topic_id && state.partition == spec.number;
    if !owned {
        let (file, detail) = (dir.join(checkpoint::FILE_NAME), "the checkpoint belongs to another partition".into());
        verification.find(VerifyFinding::Checkpoint { file, range: 0..0, detail });
    }
    owned
}

/// Where the log ends, in the order in which an open asks. Segments that it would take away go from the opener's list.
fn find_end(
    opener: &mut Opener<'_>,
    checkpoint: Option<&Checkpoint>,
    verification: &mut Verification<'_>,
) -> Result<End> {
    let page = ControlPage::read_previous(opener.storage(), opener.dir)?;
    let known = checkpoint.map(|checkpoint| *checkpoint.state());
    let poisoned = page.poisoned || known.is_some_and(|state| state.poisoned);
    if poisoned {
        let (folder, detail) =
            (opener.dir.to_owned(), "the next open writes anew what wasn't known to be durable".into());
        verification.find(VerifyFinding::Poisoned { folder, detail });
    }
    let believed = match checkpoint.filter(|_| !poisoned) {
        Some(checkpoint) => believed_end(opener, checkpoint, page.believed.as_ref()),
        None => Ok(None),
    };
    let surveyed = believed.and_then(|end| match end {
        Some(end) => Ok(end),
        None => surveyed_end(opener, checkpoint, page.believed.as_ref(), verification),
    });
    surveyed.or_else(|error| unknown_end(opener, known.as_ref(), error, Some(verification)))
}

/// Where the next open answers an error, which is told to whom it concerns: what there is, is read all the same. But kind
/// `LimitReached` says nothing about the partition.
fn unknown_end(
    opener: &Opener<'_>,
    known: Option<&CheckpointState>,
    error: Error,
    verification: Option<&mut Verification<'_>>,
) -> Result<End> {
    let (file, detail) = (error.path().unwrap_or(opener.dir).to_owned(), error.to_string());
    let finding = match error.kind() {
        ErrorKind::LimitReached => return Err(error),
        ErrorKind::UnsupportedFormat => VerifyFinding::NewerFormat { file, position: 0, detail },
        _ => VerifyFinding::Unreadable { file, range: 0..0, detail },
    };
    if let Some(verification) = verification {
        verification.find(finding);
    }
    let offset = known.map_or(u64::MAX, |state| state.offset_ceiling);
    Ok(End { position: None, offset, epoch: None })
}

/// By the clean mark, else by the control page.
fn believed_end(opener: &Opener<'_>, checkpoint: &Checkpoint, page: Option<&Previous>) -> Result<Option<End>> {
    if let Some((mark, _)) = opener.clean_end(checkpoint)? {
        let epoch = Some(checkpoint.state().epoch);
        return Ok(Some(End { position: Some(mark.end_position), offset: mark.next_offset, epoch }));
    }
    let Some(page) = page else { return Ok(None) };
    let Some(ending) = opener.page_end(page, checkpoint.state())? else { return Ok(None) };
    let tail = last_frames(opener, &ending)?;
    let offset = tail.map(|tail| tail.next_offset.max(page.next_offset));
    Ok(offset.map(|offset| End { position: Some(ending.end.file_position()), offset, epoch: None }))
}

/// The tail of a segment that is said to end here, if its last frames verify.
fn last_frames(opener: &Opener<'_>, ending: &Ending) -> Result<Option<Tail>> {
    let (header, end) = (&ending.header, ending.end.file_position());
    let path = opener.path(header.base_offset);
    let read = || {
        let mut source = FileSource::new(opener.storage().open(&path, OpenMode::Read)?)?.until(end);
        let start = last_entry(opener.storage(), &path, header, &mut source).unwrap_or(DATA_START);
        tail_of(header, &mut source, start, end)
    };
    read().map_err(|source| Error::io("read", &path, source))
}

/// The position of the last frame that an index names, if it does.
fn last_entry(storage: &dyn Storage, path: &Path, header: &SegmentHeader, source: &mut FileSource) -> Option<u64> {
    let file = storage.open(&index_path(path), OpenMode::Read).ok()?;
    let mut entries = FileSource::new(file).ok()?;
    let mut word = |at: u64| {
        let bytes = entries.at(at * offset_index::ENTRY_BYTES, size_of::<u64>()).ok()?;
        bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    };
    if word(0)? != offset_index::MAGIC || word(1)? != header.segment_id {
        return None;
    }
    let entries = (offset_index::HEADER_WORDS as u64..).map_while(|at| word(at).filter(|&word| word != 0));
    let last = entries.map(Entry::from_word).take_while(|entry| entry.position < source.len()).last()?;
    let bytes = source.at(last.position, crate::frame::HEADER_BYTES).ok()?;
    let frame = crate::frame::FrameHeader::decode(bytes, header.frame_seed(), last.position).ok()?;
    (frame.relative_offset == last.relative_offset && last.position >= DATA_START).then_some(last.position)
}

/// By the frames behind the durable mark.
fn surveyed_end(
    opener: &mut Opener<'_>,
    checkpoint: Option<&Checkpoint>,
    page: Option<&Previous>,
    verification: &mut Verification<'_>,
) -> Result<End> {
    let known = checkpoint.map(Checkpoint::presumed_state);
    let found = survey(opener, known.as_ref())?;
    for offsets in found.missing.iter().filter(|offsets| known.is_some() && !offsets.is_empty()) {
        // Those between two segments the walk tells as well.
        if offsets.end >= found.tail.next_offset && found.candidates.last().is_none_or(|last| last.base < offsets.end) {
            let (folder, offsets) = (opener.dir.to_owned(), offsets.clone());
            verification.find(VerifyFinding::SegmentsMissing { folder, offsets });
        }
    }
    let ending = found.ending();
    if let Some(torn) = ending.torn {
        // It is told, and left out.
        let goes: Vec<u64> = found.candidates[ending.keep..].iter().map(|candidate| candidate.base).collect();
        opener.bases.retain(|base| !goes.contains(base));
        let file = found.candidates[torn.candidate].path.clone();
        let (position, end_offset) = (torn.position.unwrap_or(0), ending.tail.next_offset);
        verification.find(VerifyFinding::TornTail { file, position, end_offset });
    }
    // Damage at the end takes the offsets up to where appends go on.
    let is_told = ending.torn.is_some() || found.invalid.iter().any(|invalid| invalid.resume.is_none());
    let last = ending.keep.saturating_sub(1);
    let vanished = page.filter(|_| !is_told).and_then(|page| found.vanished(last, ending.position, page));
    if let Some((range, offsets)) = vanished {
        let (file, detail) = (found.candidates[last].path.clone(), VANISHED.into());
        verification.find(VerifyFinding::Corruption { file, range, offsets, detail });
    }
    let next_offset = ending.tail.next_offset;
    let offset = known.map_or(next_offset, |state| next_offset.max(state.offset_ceiling));
    let position = Some(ending.position).filter(|&end| end >= DATA_START);
    Ok(End { position, offset, epoch: None })
}
