//! Reading what lies behind the durable mark, to find out where the log ends: S and X of the rule in
//! [`salvage`](super::salvage). Nothing is changed here.
//!
//! # Invariants
//! - Every byte behind the mark, in every segment, is covered by a valid frame, an [`Invalid`] range, or zeros at the
//!   end of its segment.
//! - One file is open at a time, however many segments there are; but for the one that the log is cut in.
//!
//! # Thread safety
//! Runs before anybody else has the partition.

use std::{ops::Range, path::PathBuf, sync::Arc};

use crate::{
    error::{Error, Result},
    frame::FrameHeader,
    partition::{
        checkpoint::CheckpointState,
        control::{LogPosition, Previous},
        recovery::{Opener, Tail},
        scan::{FileSource, Found, Scan, Source},
    },
    segment_header::{DATA_START, SegmentHeader},
    storage::{File, OpenMode, Storage},
};

/// A segment that is being scanned.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) base: u64,
    pub(super) path: PathBuf,
    /// `None` if neither copy can be believed.
    pub(super) header: Option<SegmentHeader>,
    /// The file's length.
    pub(super) len: u64,
    /// Its header's sequence number, else what it would be.
    pub(super) sequence: u64,
    /// Where frames end by what the next segment says, else the file's length.
    pub(super) limit: u64,
    /// Position behind the last valid frame.
    pub(super) valid_end: u64,
    /// The handle that something was written through: open until that is synced. With it would go the kernel's memory
    /// of a write that failed.
    pub(super) written: Option<Arc<dyn File>>,
}

/// Bytes that aren't what was written.
#[derive(Debug, Clone)]
pub(super) struct Invalid {
    pub(super) candidate: usize,
    pub(super) range: Range<u64>,
    pub(super) detail: String,
    /// The end of the log before them.
    pub(super) before: Tail,
    /// The offset of the first valid frame behind them, if there is one.
    pub(super) resume: Option<u64>,
}

/// How the log ends by the rule.
#[derive(Debug, Clone, Copy)]
pub(super) struct SurveyEnd {
    /// So many of the candidates are kept.
    pub(super) keep: usize,
    /// Position behind the last frame of the last of them; 0 if there is none.
    pub(super) position: u64,
    pub(super) tail: Tail,
    /// X: what goes, if something does.
    pub(super) torn: Option<Torn>,
}

/// Where a torn tail begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Torn {
    pub(super) candidate: usize,
    /// `None` if the candidate goes as a whole; the one before it is then the last.
    pub(super) position: Option<u64>,
    /// Whether there are valid frames behind it.
    pub(super) reordered: bool,
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
pub(super) struct Survey {
    pub(super) candidates: Vec<Candidate>,
    pub(super) invalid: Vec<Invalid>,
    /// Offsets of segments that must have been there.
    pub(super) missing: Vec<Range<u64>>,
    /// S of the rule.
    pub(super) durable: LogPosition,
    pub(super) tail: Tail,
    /// Candidate and position behind the last valid frame.
    pub(super) last_valid: (usize, u64),
}

/// Valid frames one behind another. What they say goes into the survey once, not at each of them; offsets and times are
/// relative to the segment's, as in frames.
#[derive(Debug)]
struct Run {
    /// The segment's.
    sequence: u64,
    /// The greatest offset and time that don't overflow.
    offset_limit: u64,
    time_limit: u64,
    /// Behind the last frame, or what the first must not lie below.
    next_offset: u64,
    /// Of the last frame, or what that of the first must not lie below.
    epoch: u32,
    /// The offset of the first record.
    first: Option<u32>,
    /// The greatest.
    time: u32,
    /// Position behind the last frame; 0 if there is none.
    end: u64,
    /// The furthest position that is claimed to be durable and that a frame can have; one before all, if there is none.
    durable: u64,
}

impl Run {
    /// Adds a frame. `false` if its offset or epoch falls, or its numbers overflow.
    #[inline]
    fn takes(&mut self, frame: &FrameHeader, position: u64) -> bool {
        let (offset, next_offset) = (frame.relative_offset, frame.next_relative_offset());
        // None of these ever holds in a sound log: one branch for all costs less than one for each.
        if (u64::from(offset) < self.next_offset)
            | (frame.epoch < self.epoch)
            | (next_offset > self.offset_limit)
            | (u64::from(frame.relative_time_ms) > self.time_limit)
        {
            return false;
        }
        if self.first.is_none() && !frame.is_filler() {
            self.first = Some(offset);
        }
        self.next_offset = next_offset;
        self.epoch = frame.epoch;
        self.time = self.time.max(frame.relative_time_ms);
        self.end = position + frame.frame_bytes() as u64;
        // Of many frames one claims more than those before it.
        match frame.durable_position(position) {
            Some(claimed) if claimed > self.durable && LogPosition::new(self.sequence, claimed).is_some() => {
                self.durable = claimed;
            }
            _ => {}
        }
        true
    }
}

/// Reads and verifies everything from the durable mark on; everything there is if `known` is `None`, or knows of no mark.
pub(super) fn survey(opener: &Opener<'_>, known: Option<&CheckpointState>) -> Result<Survey> {
    // A checkpoint that was made anew by a recovery that couldn't make anything durable knows of no mark either, and
    // nothing was appended since.
    let known = known.filter(|state| state.durable != LogPosition::START || opener.bases.is_empty());
    let candidates = candidates(opener, known.map(|state| state.durable))?;
    let tail = Tail { next_offset: 0, last_time_ms: i64::MIN, epoch: 0 };
    let mut survey = Survey {
        candidates,
        invalid: Vec::new(),
        missing: Vec::new(),
        durable: known.map_or(LogPosition::START, |state| state.durable),
        tail,
        last_valid: (0, 0),
    };
    for at in 0..survey.candidates.len() {
        survey.visit(opener, at, known)?;
    }
    if let Some(state) = known {
        survey.note_missing_end(state);
    } else {
        // The rule without a durable mark: what lies before the last valid frame's end was durable.
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
        let failed = |source| Error::io("read the length of", &path, source);
        let len = opened.as_ref().map_or(Ok(0), |(file, _)| file.len()).map_err(failed)?;
        let header = opened.map(|(_, header)| header);
        let sequence = header.map(|header| header.sequence);
        let reached = durable.is_some_and(|durable| sequence.is_some_and(|it| it <= durable.sequence().into()));
        let sequence = sequence.unwrap_or(0);
        found.push(Candidate { base, path, header, len, sequence, limit: len, valid_end: 0, written: None });
        if reached {
            break;
        }
    }
    found.reverse();
    let first = durable.map_or(0, |durable| durable.sequence().into());
    for at in 0..found.len() {
        if found[at].header.is_none() {
            found[at].sequence = at.checked_sub(1).map_or(first, |before| found[before].sequence + 1);
        }
        if let Some(end) = found.get(at + 1).and_then(|next| next.end_of_predecessor(&found[at])) {
            found[at].limit = end;
        }
    }
    Ok(found)
}

impl Candidate {
    /// The segment's file.
    pub(super) fn open(&self, storage: &dyn Storage, mode: OpenMode) -> Result<Arc<dyn File>> {
        if let Some(file) = &self.written {
            return Ok(file.clone());
        }
        let open = storage.open(&self.path, mode);
        open.map_err(|source| Error::io("open the segment", &self.path, source))
    }

    /// Where `before` ends by what this segment's header says, if it continues that one.
    fn end_of_predecessor(&self, before: &Candidate) -> Option<u64> {
        let predecessor = self.header?.predecessor?;
        (predecessor.segment_id == before.header?.segment_id).then_some(predecessor.end_position)
    }
}

impl Survey {
    /// Scans one segment.
    fn visit(&mut self, opener: &Opener<'_>, at: usize, known: Option<&CheckpointState>) -> Result<()> {
        let Candidate { header: Some(header), limit, .. } = self.candidates[at] else {
            self.note(at, 0..u64::MAX, "neither copy of the segment header is intact");
            return Ok(());
        };
        match self.link(at, &header) {
            Link::Follows => {}
            // Without a durable mark the end of the last valid frame is S, so the gap lies below it.
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
        let file = self.candidates[at].open(opener.storage(), opener.mode)?;
        let scanned = FileSource::new(file).and_then(|source| {
            if source.len() < start {
                self.note_cut_file(at, &header, source, start)
            } else {
                self.scan(at, &header, source.until(limit), start)
            }
        });
        scanned.map_err(|source| Error::io("read", &self.candidates[at].path, source))
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
        match (header.predecessor, before.header) {
            // Begun anew by an earlier recovery, behind what was lost then and told then.
            (None, _) => Link::Follows,
            (Some(predecessor), Some(before)) if predecessor.segment_id == before.segment_id => Link::Follows,
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
            let mut run = self.run(header);
            let found = scan.pass_frames(&mut source, |position, frame| {
                if !run.takes(frame, position) {
                    self.add(at, header, &run);
                    self.frame(at, header, frame, position);
                    run = self.run(header);
                }
            })?;
            self.add(at, header, &run);
            match found {
                Found::Frame { position, header: frame } => self.frame(at, header, &frame, position),
                Found::Damage { range, fault } => self.note(at, range, &fault.to_string()),
                Found::End { position } => {
                    // Frames were there, by what the next segment or the durable mark says.
                    let next = self.candidates.get(at + 1);
                    let claimed = next.and_then(|next| next.end_of_predecessor(&self.candidates[at])).unwrap_or(0);
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

    /// One frame on its own.
    #[cold]
    fn frame(&mut self, at: usize, header: &SegmentHeader, frame: &FrameHeader, position: u64) {
        let mut run = self.run(header);
        if run.takes(frame, position) {
            self.add(at, header, &run);
        } else {
            let end = position + frame.frame_bytes() as u64;
            self.note(at, position..end, "the frame's offset or epoch falls");
        }
    }

    /// No frame yet, behind those that were found so far.
    fn run(&self, header: &SegmentHeader) -> Run {
        Run {
            sequence: header.sequence,
            offset_limit: u64::MAX - header.base_offset,
            time_limit: i64::MAX.abs_diff(header.base_timestamp_ms),
            next_offset: self.tail.next_offset.saturating_sub(header.base_offset),
            epoch: self.tail.epoch,
            first: None,
            time: 0,
            end: 0,
            durable: DATA_START - 1,
        }
    }

    /// Adds the frames of a run.
    fn add(&mut self, at: usize, header: &SegmentHeader, run: &Run) {
        if run.end == 0 {
            return;
        }
        if let Some(first) = run.first {
            self.resume_at(header.base_offset + u64::from(first));
        }
        self.tail = Tail {
            next_offset: header.base_offset + run.next_offset,
            last_time_ms: self.tail.last_time_ms.max(header.base_timestamp_ms + i64::from(run.time)),
            epoch: run.epoch,
        };
        self.candidates[at].valid_end = run.end;
        self.last_valid = (at, run.end);
        if let Some(durable) = LogPosition::new(run.sequence, run.durable) {
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
    pub(super) fn durable_in(&self, candidate: usize) -> u64 {
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

    /// How the log ends.
    pub(super) fn ending(&self) -> SurveyEnd {
        let last_end = |keep: usize| keep.checked_sub(1).map_or(0, |last| self.end_of(last));
        let Some((invalid, at)) = self.torn() else {
            let keep = self.candidates.len();
            return SurveyEnd { keep, position: last_end(keep), tail: self.tail, torn: None };
        };
        // A segment that is invalid as a whole goes as a whole.
        let candidate = invalid.candidate;
        let (keep, position) = if at < DATA_START { (candidate, None) } else { (candidate + 1, Some(at)) };
        let torn = Torn { candidate, position, reordered: self.last_valid > (candidate, at) };
        let position = position.unwrap_or_else(|| last_end(keep));
        SurveyEnd { keep, position, tail: invalid.before, torn: Some(torn) }
    }

    /// Appends that were published in this boot, by the page, and that lie behind the `end` in the `last` candidate: where
    /// they were, and their offsets. (Behind a power cut there is no such page, and nobody knows of them.)
    pub(super) fn vanished(&self, last: usize, end: u64, previous: &Previous) -> Option<(Range<u64>, Range<u64>)> {
        let header = self.candidates.get(last)?.header?;
        let (bytes, offsets) = (end..previous.committed.file_position(), self.tail.next_offset..previous.next_offset);
        let is_of_page = header.segment_id == previous.segment_id;
        (is_of_page && !bytes.is_empty() && !offsets.is_empty()).then_some((bytes, offsets))
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
