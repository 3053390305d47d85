//! Finding the end of a log when neither a clean mark nor the control page tells: the rule of the crate.
//!
//! The frames behind the checkpoint's durable mark are read with `pread` and verified. Then
//! - **S** is the furthest place known to have been durable: the checkpoint's mark, or what any valid frame says was
//!   durable when it was written.
//! - Invalid bytes *below S* are **corruption**: they had been on the device and are no longer what was written. They
//!   are reported and left alone; reading tells of them and can go on behind.
//! - **X**, the first invalid place *at or above S*, is the **torn tail**: everything from there on goes, valid frames
//!   behind a hole too, because pages reach a device in any order and what is lost has to be a suffix. It is copied
//!   aside first.
//!
//! A frame is valid if both its checks hold, offsets grow, and the epoch doesn't fall. A later segment whose header is
//! gone, or doesn't match its predecessor, is invalid from its start.
//!
//! Without a checkpoint S is the end of the last valid frame, and appends go on in a new segment 2^32 offsets behind.
//!
//! # Invariants
//! - What is cut is copied aside, durably, before a byte of it changes.
//! - A crash anywhere in here leaves a partition for which the same rule finds the same S and X, or for which the cut
//!   is done.
//!
//! # Thread safety
//! Runs before anybody else has the partition.

use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    error::{Error, Result},
    frame::FrameHeader,
    partition::{
        OFFSET_CEILING_STEP,
        checkpoint::{Checkpoint, CheckpointState},
        control::LogPosition,
        recovery::{Opener, Recovered, Tail, Unsettled, position, remove_segment, zero_behind},
        report::{Cut, Opening, RecoveryEvent},
        scan::{FileSource, Found, Scan, Source, end_of_data, first_nonzero},
        segment::{Segment, SegmentSlot, index_path},
    },
    segment_header::{DATA_START, Predecessor, SegmentHeader},
    storage::{EntryKind, File, OpenMode, Storage},
};

/// How far appends leave the last known offset behind when the offset ceiling is lost.
const LOST_CEILING_GAP: u64 = 1 << 32;
/// The name that a segment is rewritten under, and a tail copied.
const REWRITE_NAME: &str = "rewrite.tmp";
/// Bytes that are copied at once.
const COPY_BYTES: usize = 256 << 10;

/// A segment that is being scanned.
struct Candidate {
    base: u64,
    path: PathBuf,
    /// `None` if neither copy of the header can be believed.
    opened: Option<(Arc<dyn File>, SegmentHeader)>,
    /// Its header's sequence number, else what it would be.
    sequence: u64,
    /// Where frames end by what the next segment says, else the file's length.
    limit: u64,
    /// Position behind the last valid frame.
    valid_end: u64,
}

/// Bytes that aren't what was written.
#[derive(Debug, Clone)]
struct Invalid {
    candidate: usize,
    range: Range<u64>,
    detail: String,
    /// The end of the log before them.
    before: Tail,
    /// The offset of the first valid frame behind them, if there is one.
    resume: Option<u64>,
}

/// How a segment continues the ones before it.
enum Link {
    Follows,
    /// Not the one before it; these offsets are missing in between, where that isn't told otherwise.
    Misses(Option<Range<u64>>),
    /// Not at all: its sequence number or base offset falls.
    Contradicts,
}

/// What a scan finds out.
struct Survey {
    candidates: Vec<Candidate>,
    invalid: Vec<Invalid>,
    /// Offsets of segments that must have been there.
    missing: Vec<Range<u64>>,
    /// S of the rule.
    durable: LogPosition,
    tail: Tail,
    /// Candidate and position behind the last valid frame.
    last_valid: (usize, u64),
}

/// Opens a partition by scanning it.
pub(crate) fn open(mut opener: Opener<'_>, checkpoint: Option<Checkpoint>, page_poisoned: bool) -> Result<Recovered> {
    let known = checkpoint.as_ref().map(|checkpoint| *checkpoint.state());
    let mut events = Vec::new();
    let log_start_offset = match &known {
        Some(state) => state.log_start_offset,
        None => opener.bases.first().copied().unwrap_or(0),
    };
    opener.note_missing_start(log_start_offset, &mut events);
    let mut survey = survey(&opener, known.as_ref())?;
    events.extend(survey.missing.iter().map(|offsets| RecoveryEvent::SegmentsMissing { offsets: offsets.clone() }));
    report_corruption(&survey, &mut events);
    let end = cut(&mut opener, &mut survey, &mut events)?;
    let poisoned = page_poisoned || known.is_some_and(|state| state.poisoned);
    let made_durable = if poisoned { rewrite(&opener, &survey, end, &mut events) } else { sync(&opener, &survey) };
    let mut found = activate(&opener, &survey, end, known.as_ref(), events)?;
    if let Err(error) = made_durable {
        found.poison = Some(error.to_string());
    }
    settle(&opener, found, checkpoint, log_start_offset)
}

/// Reads and verifies everything from the durable mark on.
fn survey(opener: &Opener<'_>, known: Option<&CheckpointState>) -> Result<Survey> {
    let candidates = candidates(opener, known.map(|state| state.durable))?;
    let tail = Tail { next_offset: 0, last_time_ms: i64::MIN, epoch: 0 };
    let durable = known.map(|state| state.durable).or_else(|| LogPosition::new(0, 0));
    let mut survey = Survey {
        candidates,
        invalid: Vec::new(),
        missing: Vec::new(),
        durable: durable.ok_or_else(|| Error::corruption(opener.dir, 0, "a place that no log has"))?,
        tail,
        last_valid: (0, 0),
    };
    for at in 0..survey.candidates.len() {
        survey.visit(at, known)?;
    }
    if let Some(state) = known {
        survey.note_missing_end(state);
    } else {
        // The rule without a checkpoint: what lies before the last valid frame's end was durable.
        let (at, end) = survey.last_valid;
        let sequence = survey.candidates.get(at).map_or(0, |candidate| candidate.sequence);
        survey.durable = LogPosition::new(sequence, end).unwrap_or(survey.durable).max(survey.durable);
    }
    Ok(survey)
}

/// The segments from the one that holds the durable mark on, with their limits.
fn candidates(opener: &Opener<'_>, durable: Option<LogPosition>) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for &base in opener.bases.iter().rev() {
        let path = opener.path(base);
        let opened = opener.intact_file(base)?;
        let sequence = opened.as_ref().map(|(_, header)| header.sequence);
        let reached = durable.is_some_and(|durable| sequence.is_some_and(|it| it <= durable.sequence().into()));
        found.push(Candidate { base, path, opened, sequence: sequence.unwrap_or(0), limit: 0, valid_end: 0 });
        if reached {
            break;
        }
    }
    found.reverse();
    let first = durable.map_or(0, |durable| durable.sequence().into());
    for at in 0..found.len() {
        if found[at].opened.is_none() {
            found[at].sequence = at.checked_sub(1).map_or(first, |before| found[before].sequence + 1);
        }
        let next = found.get(at + 1).and_then(|next| next.opened.as_ref()).and_then(|(_, header)| header.predecessor);
        found[at].limit = limit(&found[at], next)?;
    }
    Ok(found)
}

fn limit(candidate: &Candidate, next: Option<Predecessor>) -> Result<u64> {
    let Some((file, header)) = &candidate.opened else { return Ok(0) };
    match next.filter(|predecessor| predecessor.segment_id == header.segment_id) {
        Some(predecessor) => Ok(predecessor.end_position),
        None => file.len().map_err(|source| Error::io("read the length of", &candidate.path, source)),
    }
}

impl Survey {
    /// Scans one segment.
    fn visit(&mut self, at: usize, known: Option<&CheckpointState>) -> Result<()> {
        let Candidate { opened, limit, path, .. } = &self.candidates[at];
        let (opened, limit, path) = (opened.clone(), *limit, path.clone());
        let Some((file, header)) = opened else {
            self.note(at, 0..u64::MAX, "neither copy of the segment header is intact");
            return Ok(());
        };
        match self.link(at, &header) {
            Link::Follows => {}
            // Without a checkpoint the end of the last valid frame is S, so the gap lies below it.
            Link::Misses(offsets) if known.is_none() => self.missing.extend(offsets),
            Link::Misses(_) | Link::Contradicts => {
                self.note(at, 0..u64::MAX, "the segment doesn't follow the one before it");
                return Ok(());
            }
        }
        let mut start = DATA_START;
        if let Some(known) = known.filter(|known| u64::from(known.durable.sequence()) == header.sequence) {
            start = known.durable.file_position().max(DATA_START);
            self.tail.next_offset = self.tail.next_offset.max(known.durable_offset);
        }
        if start == DATA_START {
            self.resume_at(header.base_offset);
            self.tail.next_offset = self.tail.next_offset.max(header.base_offset);
        }
        self.tail.last_time_ms = self.tail.last_time_ms.max(header.base_timestamp_ms);
        self.candidates[at].valid_end = start;
        self.last_valid = (at, start);
        let scanned = FileSource::new(file).and_then(|source| {
            if source.len() < start {
                self.note_cut_file(at, &header, source, start)
            } else {
                self.scan(at, &header, source.until(limit), start)
            }
        });
        scanned.map_err(|source| Error::io("read", &path, source))
    }

    /// The file ends before the durable mark: what is missing was durable.
    fn note_cut_file(
        &mut self,
        at: usize,
        header: &SegmentHeader,
        mut source: FileSource,
        durable: u64,
    ) -> std::io::Result<()> {
        let (behind, mut end) = (self.tail, DATA_START);
        self.tail.next_offset = header.base_offset;
        let mut scan = Scan::headers(header.frame_seed(), DATA_START);
        loop {
            match scan.next_in(&mut source)? {
                Found::Frame { position, header: frame } => {
                    end = position + frame.frame_bytes() as u64;
                    self.tail = Tail::behind(header, &frame).unwrap_or(self.tail);
                }
                Found::Damage { .. } => {}
                Found::End { .. } => break,
            }
        }
        self.note(at, end..durable, "the file ends before its durable mark");
        self.tail = Tail { next_offset: behind.next_offset.max(self.tail.next_offset), ..self.tail };
        self.resume_at(self.tail.next_offset);
        Ok(())
    }

    /// How a segment continues the ones before it.
    fn link(&self, at: usize, header: &SegmentHeader) -> Link {
        let Some(before) = at.checked_sub(1).map(|before| &self.candidates[before]) else { return Link::Follows };
        if header.base_offset < self.tail.next_offset || header.sequence <= before.sequence {
            return Link::Contradicts;
        }
        match (header.predecessor, &before.opened) {
            // Begun anew by an earlier recovery, behind what was lost then and told then.
            (None, _) => Link::Follows,
            (Some(predecessor), Some((_, before))) if predecessor.segment_id == before.segment_id => Link::Follows,
            (Some(_), Some(_)) => Link::Misses(Some(self.tail.next_offset..header.base_offset)),
            // The one before it is there, and told as damaged.
            (Some(_), None) => Link::Misses(None),
        }
    }

    /// Tells if the segment that holds the durable mark is gone, with all behind it.
    fn note_missing_end(&mut self, known: &CheckpointState) {
        match self.candidates.last() {
            None => self.missing.push(known.log_start_offset..known.offset_ceiling),
            Some(last) if last.sequence < known.durable.sequence().into() => {
                self.missing.push(self.tail.next_offset..known.durable_offset.max(self.tail.next_offset));
            }
            Some(_) => {}
        }
        self.tail.next_offset = self.tail.next_offset.max(known.durable_offset);
    }

    fn scan(&mut self, at: usize, header: &SegmentHeader, mut source: FileSource, start: u64) -> std::io::Result<()> {
        let mut scan = Scan::verified(header.frame_seed(), start);
        loop {
            match scan.next_in(&mut source)? {
                Found::Frame { position, header: frame } => self.frame(at, header, &frame, position),
                Found::Damage { range, fault } => self.note(at, range, &fault.to_string()),
                Found::End { position } => {
                    // Frames were there, by what the next segment or the durable mark says.
                    let limit = self.candidates[at].limit;
                    let claimed = if self.has_successor(at) { limit } else { 0 };
                    let durable = if u64::from(self.durable.sequence()) == header.sequence {
                        self.durable.file_position()
                    } else {
                        0
                    };
                    let end = claimed.max(durable);
                    if position < end {
                        self.note(at, position..end, "zeros, or nothing, in place of frames");
                    }
                    return Ok(());
                }
            }
        }
    }

    /// Whether the next segment told this one's limit.
    fn has_successor(&self, at: usize) -> bool {
        let id = self.candidates[at].opened.as_ref().map(|(_, header)| header.segment_id);
        let next = self.candidates.get(at + 1).and_then(|next| next.opened.as_ref());
        next.and_then(|(_, header)| header.predecessor).is_some_and(|before| Some(before.segment_id) == id)
    }

    fn frame(&mut self, at: usize, header: &SegmentHeader, frame: &FrameHeader, position: u64) {
        let end = position + frame.frame_bytes() as u64;
        let base = header.base_offset.checked_add(frame.relative_offset.into());
        let valid = base.filter(|&base| base >= self.tail.next_offset && frame.epoch >= self.tail.epoch);
        let (Some(base), Some(behind)) = (valid, Tail::behind(header, frame)) else {
            self.note(at, position..end, "the frame's offset or epoch falls");
            return;
        };
        self.resume_at(base);
        self.tail = Tail { last_time_ms: behind.last_time_ms.max(self.tail.last_time_ms), ..behind };
        self.candidates[at].valid_end = end;
        self.last_valid = (at, end);
        let claimed = frame.durable_position(position).filter(|&durable| durable >= DATA_START);
        if let Some(durable) = claimed.and_then(|durable| LogPosition::new(header.sequence, durable)) {
            self.durable = self.durable.max(durable);
        }
    }

    /// Notes invalid bytes; adjacent ones become one range.
    fn note(&mut self, candidate: usize, range: Range<u64>, detail: &str) {
        if let Some(last) = self.invalid.last_mut() {
            if last.candidate == candidate && last.range.end == range.start && last.resume.is_none() {
                last.range.end = range.end;
                return;
            }
        }
        let detail = detail.to_owned();
        self.invalid.push(Invalid { candidate, range, detail, before: self.tail, resume: None });
    }

    /// Something valid begins at `offset`: reading can go on there.
    fn resume_at(&mut self, offset: u64) {
        for invalid in self.invalid.iter_mut().rev().take_while(|invalid| invalid.resume.is_none()) {
            invalid.resume = Some(offset);
        }
    }

    /// S as a position in a candidate: 0 if it lies before, the greatest if it lies behind.
    fn durable_in(&self, candidate: usize) -> u64 {
        use std::cmp::Ordering::{Equal, Greater, Less};
        match u64::from(self.durable.sequence()).cmp(&self.candidates[candidate].sequence) {
            Less => 0,
            Equal => self.durable.file_position(),
            Greater => u64::MAX,
        }
    }

    /// Where a candidate's frames end, valid or not, if the log ends in it.
    fn end_of(&self, candidate: usize) -> u64 {
        let Some(Candidate { valid_end, .. }) = self.candidates.get(candidate) else { return 0 };
        match self.durable_in(candidate) {
            u64::MAX => *valid_end,
            durable => durable.max(*valid_end),
        }
    }

    /// X: the first invalid range that reaches beyond S, and the place in it.
    fn torn(&self) -> Option<(&Invalid, u64)> {
        self.invalid.iter().find_map(|invalid| {
            let durable = self.durable_in(invalid.candidate);
            // A whole invalid segment ends nowhere: it is below S only if S lies in a later one.
            let beyond = if invalid.range.start == 0 { durable == 0 } else { invalid.range.end > durable };
            beyond.then(|| (invalid, invalid.range.start.max(durable)))
        })
    }
}

/// Reports the invalid ranges below S.
fn report_corruption(survey: &Survey, events: &mut Vec<RecoveryEvent>) {
    for invalid in &survey.invalid {
        let durable = survey.durable_in(invalid.candidate);
        let end = invalid.range.end.min(durable);
        if invalid.range.start >= end {
            continue;
        }
        let candidate = &survey.candidates[invalid.candidate];
        let file_end = candidate.opened.as_ref().and_then(|(file, _)| file.len().ok()).unwrap_or(end);
        events.push(RecoveryEvent::Corruption {
            file: candidate.path.clone(),
            range: invalid.range.start..if end == u64::MAX { file_end } else { end },
            offsets: invalid.before.next_offset..invalid.resume.unwrap_or(invalid.before.next_offset),
            detail: invalid.detail.clone(),
        });
    }
}

/// Cuts the torn tail, if there is one. Answers the candidate that the log now ends in, and where.
fn cut(opener: &mut Opener<'_>, survey: &mut Survey, events: &mut Vec<RecoveryEvent>) -> Result<(usize, u64)> {
    let Some((invalid, at)) = survey.torn().map(|(invalid, at)| (invalid.clone(), at)) else {
        let last = survey.candidates.len().saturating_sub(1);
        return Ok((last, survey.end_of(last)));
    };
    let reordered = survey.last_valid > (invalid.candidate, at);
    // A segment that is invalid as a whole goes as a whole; the one before it is then the last.
    let whole = at < DATA_START;
    let keep = if whole { invalid.candidate } else { invalid.candidate + 1 };
    let mut kept_in = Vec::new();
    if !whole {
        kept_in.extend(set_tail_aside(opener, &survey.candidates[invalid.candidate], at)?);
    }
    for candidate in survey.candidates.drain(keep..) {
        kept_in.push(set_segment_aside(opener, &candidate)?);
        opener.bases.retain(|&base| base != candidate.base);
    }
    opener.storage().sync_dir(opener.dir).map_err(|source| Error::io("sync the folder", opener.dir, source))?;
    survey.tail = invalid.before;
    let last = keep.saturating_sub(1);
    let end = if whole { survey.end_of(last) } else { at };
    let file = opener.path(survey.candidates.get(last).map_or(0, |candidate| candidate.base));
    let cut = Cut { file, position: end, end_offset: invalid.before.next_offset, kept_in };
    events.push(if reordered { RecoveryEvent::ReorderedTail(cut) } else { RecoveryEvent::TornTail(cut) });
    Ok((last, end))
}

/// Copies what lies behind `position` into a file of its own, and makes it zeros. `None` if it was zeros.
fn set_tail_aside(opener: &Opener<'_>, candidate: &Candidate, position: u64) -> Result<Option<PathBuf>> {
    let Some((file, _)) = &candidate.opened else { return Ok(None) };
    let failed = |source| Error::io("set the torn tail aside of", &candidate.path, source);
    let mut source = FileSource::new(file.clone()).map_err(failed)?;
    if first_nonzero(&mut source, position).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let end = end_of_data(&mut source, position).map_err(failed)?.min(source.len());
    let name = format!("{:020}.torn-{position}", candidate.base);
    let copy = copy_aside(opener.storage(), opener.dir, file, position..end, &name)
        .map_err(|source| Error::io("copy the torn tail aside of", &candidate.path, source))?;
    // Synced with all that is kept: were it synced here, and failed, nobody would know any more what else was lost.
    zero_behind(file, position, end).map_err(failed)?;
    Ok(Some(copy))
}

/// Copies a range of a file to a new file in the same folder, durably. A copy with the same bytes, left by a recovery
/// that was interrupted, serves as well.
///
/// A piece at a time, and holes stay holes: what lies behind the end of a log may be a few bytes at the end of a file of
/// any length.
fn copy_aside(
    storage: &dyn Storage,
    dir: &Path,
    file: &Arc<dyn File>,
    range: Range<u64>,
    name: &str,
) -> std::io::Result<PathBuf> {
    let mut attempt = 0;
    let path = loop {
        let path = dir.join(if attempt == 0 { name.to_owned() } else { format!("{name}.{attempt}") });
        match storage.entry_kind(&path)? {
            None => break path,
            Some(EntryKind::File) if is_copy(storage, &path, file, &range)? => return Ok(path),
            Some(_) => attempt += 1,
        }
    };
    let temporary = dir.join(REWRITE_NAME);
    let copy = storage.open(&temporary, OpenMode::Truncate)?;
    copy.set_len(range.end - range.start)?;
    let mut source = FileSource::new(file.clone())?.until(range.end);
    let mut position = range.start;
    while let Some(data) = first_nonzero(&mut source, position)? {
        let bytes = source.at(data, COPY_BYTES)?;
        copy.write_all_at(bytes, data - range.start)?;
        position = data + bytes.len() as u64;
    }
    copy.sync_all()?;
    storage.rename(&temporary, &path)?;
    storage.sync_dir(dir)?;
    Ok(path)
}

/// Whether the file at `path` holds just what the range does.
fn is_copy(storage: &dyn Storage, path: &Path, file: &Arc<dyn File>, range: &Range<u64>) -> std::io::Result<bool> {
    let mut held = FileSource::new(storage.open(path, OpenMode::Read)?)?;
    let mut source = FileSource::new(file.clone())?.until(range.end);
    if held.len() != range.end - range.start {
        return Ok(false);
    }
    let mut position = 0;
    loop {
        let data = first_nonzero(&mut source, range.start + position)?.map(|data| data - range.start);
        if first_nonzero(&mut held, position)? != data {
            return Ok(false);
        }
        let Some(data) = data else { return Ok(true) };
        let bytes = source.at(range.start + data, COPY_BYTES)?;
        if held.at(data, COPY_BYTES)? != bytes {
            return Ok(false);
        }
        position = data + bytes.len() as u64;
    }
}

/// Takes a whole segment out of the log by giving it another name.
fn set_segment_aside(opener: &Opener<'_>, candidate: &Candidate) -> Result<PathBuf> {
    let storage = opener.storage();
    let failed = |source| Error::io("set the segment aside", &candidate.path, source);
    let mut aside = candidate.path.with_extension("log.torn");
    let mut attempt = 0;
    while storage.entry_kind(&aside).map_err(failed)?.is_some() {
        attempt += 1;
        aside = candidate.path.with_extension(format!("log.torn.{attempt}"));
    }
    storage.rename(&candidate.path, &aside).map_err(failed)?;
    let _ = storage.remove_file(&index_path(&candidate.path)); // A cache; it may never have been there.
    Ok(aside)
}

/// Makes what was kept durable: it may have been read from pages that never reached the device.
fn sync(opener: &Opener<'_>, survey: &Survey) -> Result<()> {
    for candidate in &survey.candidates {
        if let Some((file, _)) = &candidate.opened {
            file.sync_data().map_err(|source| Error::io("sync", &candidate.path, source))?;
        }
    }
    opener.storage().sync_dir(opener.dir).map_err(|source| Error::io("sync the folder", opener.dir, source))
}

/// After a failed sync neither a later success nor a reread is worth anything: the pages count as clean. So what
/// wasn't known to be durable is written into new files, which are synced and take the old ones' names.
fn rewrite(opener: &Opener<'_>, survey: &Survey, end: (usize, u64), events: &mut Vec<RecoveryEvent>) -> Result<()> {
    let mut files = Vec::new();
    for (at, candidate) in survey.candidates.iter().enumerate() {
        let Some((file, _)) = &candidate.opened else { continue };
        let len = if at == end.0 { end.1 } else { candidate.limit };
        let swap = || {
            let temporary = opener.dir.join(REWRITE_NAME);
            let new = opener.storage().open(&temporary, OpenMode::Truncate)?;
            let mut source = FileSource::new(file.clone())?.until(len);
            let mut position = 0;
            while position < source.len() {
                let bytes = source.at(position, COPY_BYTES)?;
                if bytes.is_empty() {
                    break;
                }
                new.write_all_at(bytes, position)?;
                position += bytes.len() as u64;
            }
            new.sync_all()?;
            opener.storage().rename(&temporary, &candidate.path)?;
            opener.storage().sync_dir(opener.dir)
        };
        swap().map_err(|source| Error::io("write anew", &candidate.path, source))?;
        files.push(candidate.path.clone());
    }
    events.push(RecoveryEvent::Rewritten { files });
    Ok(())
}

/// Maps the segment that the log ends in, or begins a new one where nothing can be appended to it.
fn activate(
    opener: &Opener<'_>,
    survey: &Survey,
    end: (usize, u64),
    known: Option<&CheckpointState>,
    mut events: Vec<RecoveryEvent>,
) -> Result<Unsettled> {
    let next_offset = match known {
        Some(state) => survey.tail.next_offset.max(state.offset_ceiling),
        None => survey.tail.next_offset.saturating_add(LOST_CEILING_GAP),
    };
    if known.is_none() {
        events.push(RecoveryEvent::CheckpointLost { next_offset });
    }
    let last = survey.candidates.get(end.0);
    let appendable = last.filter(|_| known.is_some()).filter(|last| {
        last.opened.is_some() && last.sequence >= survey.durable.sequence().into() && end.1 >= DATA_START
    });
    // The handle is taken anew: the file may have been swapped.
    let file = appendable.map_or(Ok(None), |last| opener.intact_file(last.base))?;
    let (active, end_position) = match file.zip(appendable) {
        Some(((file, header), last)) => (opener.map_active(header, last.path.clone(), file, end.1)?, end.1),
        None => (Arc::new(begin_anew(opener, survey, end, next_offset)?), DATA_START),
    };
    let sealed = opener.bases.iter().filter(|&&base| base != active.header.base_offset);
    let mut slots: Vec<_> = sealed.map(|&base| Arc::new(SegmentSlot::unopened(base, opener.path(base)))).collect();
    slots.push(Arc::new(SegmentSlot::opened(active.clone())));
    Ok(Unsettled {
        end: position(&active, end_position)?,
        slots,
        tail: Tail {
            next_offset,
            last_time_ms: survey.tail.last_time_ms.max(active.header.base_timestamp_ms),
            epoch: survey.tail.epoch,
        },
        active,
        opening: Opening::Scanned,
        events,
        poison: None,
    })
}

/// A new active segment behind one that can't be appended to.
fn begin_anew(opener: &Opener<'_>, survey: &Survey, end: (usize, u64), next_offset: u64) -> Result<Segment> {
    let last = survey.candidates.get(end.0);
    let sequence = last.map_or(0, |last| last.sequence).max(survey.durable.sequence().into()) + 1;
    // It follows the last segment only if nothing is missing in between.
    let whole = last.filter(|last| last.sequence + 1 == sequence && end.1 >= DATA_START);
    let predecessor = whole.and_then(|last| last.opened.as_ref()).map(|(_, header)| Predecessor {
        segment_id: header.segment_id,
        end_position: end.1,
        end_offset: survey.tail.next_offset,
    });
    let segment = opener.create_segment(opener.new_header(sequence, next_offset, predecessor)?)?;
    if let Err(source) = segment.file.sync_all() {
        // The next open makes another one; this one would look sound from the page cache.
        let _ = remove_segment(opener.storage(), &segment.path);
        return Err(Error::io("sync the new segment", &segment.path, source));
    }
    opener.storage().sync_dir(opener.dir).map_err(|source| Error::io("sync the folder", opener.dir, source))?;
    Ok(segment)
}

/// Writes down the found end, in a new checkpoint if there is none.
fn settle(
    opener: &Opener<'_>,
    mut found: Unsettled,
    checkpoint: Option<Checkpoint>,
    log_start_offset: u64,
) -> Result<Recovered> {
    let before = checkpoint.as_ref().map(Checkpoint::state);
    let epoch = before.map_or(0, |state| state.epoch).max(found.tail.epoch).saturating_add(1);
    let mut state = CheckpointState {
        topic_id: opener.spec.topic_id,
        partition: opener.spec.number,
        log_start_offset,
        durable: found.end,
        durable_offset: found.tail.next_offset,
        offset_ceiling: found.tail.next_offset.saturating_add(OFFSET_CEILING_STEP),
        epoch,
        poisoned: false,
        clean: None,
    };
    if found.poison.is_some() {
        state.poisoned = true;
        if let Some(before) = before {
            (state.durable, state.durable_offset) = (before.durable, before.durable_offset);
            state.offset_ceiling = before.offset_ceiling;
        }
    }
    let checkpoint = match checkpoint {
        Some(mut checkpoint) => {
            if let Err(error) = checkpoint.write(state) {
                found.poison.get_or_insert(Error::from(error).to_string());
            }
            checkpoint
        }
        None => Checkpoint::create(opener.storage(), opener.dir, state)?,
    };
    Ok(found.with_checkpoint(opener, checkpoint))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{partition::segment::base_offset_of, storage::fs::FsStorage};

    /// On the real storage, which knows holes: the tail is a few bytes, far apart.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_tail_with_a_hole_is_set_aside_and_zeroed_as_one() {
        const LEN: u64 = 1 << 38;
        let root = tempfile::tempdir().unwrap();
        let file = FsStorage.open(&root.path().join("a"), OpenMode::CreateNew).unwrap();
        file.set_len(LEN).unwrap();
        file.write_all_at(b"kept", 5000).unwrap();
        for position in [6000, 1 << 30, LEN - 20] {
            file.write_all_at(b"cut", position).unwrap();
        }
        let blocks = |path: &Path| std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).unwrap());
        let copy = || copy_aside(&FsStorage, root.path(), &file, 5008..LEN, "torn").unwrap();
        let path = copy();
        assert_eq!(path, root.path().join("torn"));
        assert!(std::fs::metadata(&path).unwrap().len() == LEN - 5008 && blocks(&path) * 512 < 16 << 20);
        assert_eq!(copy(), path, "the same bytes are there already");
        file.write_all_at(b"else", 1 << 31).unwrap();
        assert_eq!(copy(), root.path().join("torn.1"));

        zero_behind(&file, 5008, LEN).unwrap();
        assert!(blocks(&root.path().join("a")) * 512 < 16 << 20);
        let mut source = FileSource::new(file.clone()).unwrap();
        assert_eq!(first_nonzero(&mut source, 5004).unwrap(), None);
        assert_eq!(first_nonzero(&mut source, 0).unwrap(), Some(5000));
    }

    #[test]
    fn what_was_set_aside_is_not_a_segment() {
        assert_eq!(base_offset_of("00000000000000000007.log"), Some(7));
        for name in ["00000000000000000007.torn-4096", "00000000000000000007.log.torn", "7.log", "rewrite.tmp"] {
            assert_eq!(base_offset_of(name), None, "{name}");
        }
    }
}
