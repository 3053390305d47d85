//! One pass over the segments of a partition: headers and their links, frames, indexes.
//!
//! # What is told
//! The bytes between two good frames are one finding, with the offsets that a reader would miss. The offset it ends with
//! is that of the next record that can be read, of the next segment, or the end of the log. Damage that lies wholly below
//! the log start offset concerns nobody and isn't told.
//!
//! # Thread safety
//! Belongs to one thread. The files may be appended to meanwhile, behind where a plan ends.

use std::{ops::Range, path::PathBuf, sync::Arc};

use super::{
    Seen, Sink,
    headers::Header,
    indexes::{IndexChecks, Subject},
    source::TolerantSource,
};
use crate::{
    frame::{self, FrameHeader},
    partition::{
        recovery::Tail,
        scan::{Found, Scan, Source},
        segment::segment_path,
        time_index::{Bond, Coverage},
    },
    record::RecordRef,
    segment_header::{DATA_START, SegmentHeader},
    storage::{OpenMode, Storage},
    verification::{Verification, VerifyFinding},
};

/// A partition's segments, as they are to be walked through.
pub(super) struct Plan {
    pub(super) storage: Arc<dyn Storage>,
    pub(super) dir: PathBuf,
    pub(super) topic: Arc<str>,
    pub(super) number: u32,
    /// The earliest readable offset.
    pub(super) log_start: u64,
    /// Where appends go on.
    pub(super) end_offset: u64,
    /// Oldest first, the active one last.
    pub(super) segments: Vec<Planned>,
    /// In which epoch the active segment's time index was written, if it is to be believed.
    pub(super) epoch: Option<u32>,
    /// Whether others use the partition meanwhile.
    pub(super) is_open: bool,
    /// Whether the log's own records aren't to be counted.
    pub(super) is_internal: bool,
}

/// A segment that is to be walked through.
#[derive(Debug, Clone)]
pub(super) struct Planned {
    pub(super) base: u64,
    /// `None` if neither copy can be believed.
    pub(super) header: Option<SegmentHeader>,
    /// Why not, unless that was told.
    pub(super) refusal: Option<String>,
    /// The position of a copy of the header that is to be written anew.
    pub(super) bad_copy: Option<u64>,
    /// Where its frames end, by who knows; `None`: behind the last of them.
    pub(super) end: Option<u64>,
    /// How much there is to read.
    pub(super) bytes: u64,
}

/// Bytes that are to be replaced by fillers.
#[derive(Debug, Clone)]
pub(in crate::partition) struct Damaged {
    pub(in crate::partition) path: PathBuf,
    pub(in crate::partition) header: SegmentHeader,
    pub(in crate::partition) range: Range<u64>,
    /// Where the frames before it end.
    pub(in crate::partition) before: Tail,
    pub(in crate::partition) offsets: Range<u64>,
}

/// What a walk answers beside its findings.
#[derive(Default)]
pub(super) struct Walked {
    /// What fillers can replace.
    pub(super) damaged: Vec<Damaged>,
    /// Segments weren't there any more.
    pub(super) skipped: bool,
}

/// Bytes that aren't what was written, of which the end isn't known yet.
struct Pending {
    range: Range<u64>,
    before: Tail,
    detail: String,
}

/// A walk that is going on.
pub(super) struct Walk<'p, 'v, 'w, 's> {
    plan: &'p Plan,
    verification: &'v mut Verification<'w>,
    sink: Option<Sink<'s>>,
    /// Whether what fillers can replace is to be kept.
    keep_damaged: bool,
    walked: Walked,
    tail: Tail,
    /// The segment before; `None` if there is none, or its header can't be believed.
    previous: Option<SegmentHeader>,
    pending: Vec<Pending>,
    /// Whether the frame before is as it was written: else its time isn't known.
    knows_time: bool,
}

impl<'p, 'v, 'w, 's> Walk<'p, 'v, 'w, 's> {
    pub(super) fn new(plan: &'p Plan, verification: &'v mut Verification<'w>, sink: Option<Sink<'s>>) -> Self {
        let tail = Tail { next_offset: 0, last_time_ms: i64::MIN, epoch: 0 };
        let walked = Walked::default();
        Self {
            plan,
            verification,
            sink,
            keep_damaged: false,
            walked,
            tail,
            previous: None,
            pending: Vec::new(),
            knows_time: true,
        }
    }

    pub(super) fn keep_damaged(mut self) -> Self {
        self.keep_damaged = true;
        self
    }

    /// Walks through all segments. `is_gone` says of one that can't be opened whether it was deleted meanwhile.
    pub(super) fn run(mut self, is_gone: &dyn Fn(u64) -> bool) -> Walked {
        self.verification.begin_partition(&self.plan.topic, self.plan.number);
        self.verification.tell();
        for at in 0..self.plan.segments.len() {
            if self.verification.is_stopped() {
                break;
            }
            let &Planned { base, bytes, .. } = &self.plan.segments[at];
            let (mark, done) = (self.verification.mark(), self.verification.done());
            self.segment(at);
            if self.plan.is_open && is_gone(base) {
                self.verification.forget_since(&mark);
                self.walked.skipped = true;
            }
            let done = self.verification.done() - done;
            self.verification.advance(bytes.saturating_sub(done));
        }
        self.walked
    }

    fn segment(&mut self, at: usize) {
        let &Planned { base, header, end, bytes, .. } = &self.plan.segments[at];
        if let Some(sink) = &mut self.sink {
            sink(Seen::Segment);
        }
        self.link(at);
        self.tail.next_offset = self.tail.next_offset.max(base);
        let Some(header) = header else {
            self.previous = None;
            if let Some(detail) = self.plan.segments[at].refusal.clone() {
                let (file, offsets) = (segment_path(&self.plan.dir, base), base..self.base_behind(at));
                self.verification.find(VerifyFinding::Corruption { file, range: 0..bytes, offsets, detail });
            }
            return;
        };
        self.tail.last_time_ms = self.tail.last_time_ms.max(header.base_timestamp_ms);
        let path = segment_path(&self.plan.dir, base);
        let opened = self.plan.storage.open(&path, OpenMode::Read);
        match opened.and_then(|file| TolerantSource::new(file, end.unwrap_or(u64::MAX))) {
            Ok(source) => {
                self.verification.count_segment(bytes);
                self.scan(at, &header, source);
            }
            Err(error) => {
                if let Some(detail) = self.verification.refused(&path, 0..bytes, error) {
                    let offsets = base..self.base_behind(at);
                    let range = 0..bytes;
                    self.verification.find(VerifyFinding::Corruption { file: path, range, offsets, detail });
                }
            }
        }
        self.previous = Some(header);
    }

    /// Whether a segment goes on where the one before it ended.
    fn link(&mut self, at: usize) {
        let &Planned { base, header, .. } = &self.plan.segments[at];
        if at == 0 {
            if base > self.plan.log_start {
                self.miss(self.plan.log_start..base);
            }
            return;
        }
        let before_is_damaged = self.previous.is_none();
        let Some(header) = header else { return };
        let contradicts =
            base < self.tail.next_offset || self.previous.is_some_and(|previous| header.sequence <= previous.sequence);
        match header.predecessor {
            _ if contradicts => self.contradict(at, "the segment doesn't follow the one before it"),
            None => {} // Begun anew by a recovery, behind what was lost then.
            Some(_) if before_is_damaged => {}
            Some(before) if Some(before.segment_id) != self.previous.map(|previous| previous.segment_id) => {
                self.miss(self.tail.next_offset..base);
            }
            Some(before) if before.end_offset < self.tail.next_offset => {
                self.contradict(at, "the segment begins before the one before it ends");
            }
            Some(_) => {}
        }
    }

    fn miss(&mut self, offsets: Range<u64>) {
        if !offsets.is_empty() && offsets.end > self.plan.log_start {
            self.verification.find(VerifyFinding::SegmentsMissing { folder: self.plan.dir.clone(), offsets });
        }
    }

    /// A segment that can't be where it is.
    fn contradict(&mut self, at: usize, detail: &str) {
        let &Planned { base, bytes, .. } = &self.plan.segments[at];
        let file = segment_path(&self.plan.dir, base);
        let offsets = base..self.base_behind(at);
        self.verification.find(VerifyFinding::Corruption { file, range: 0..bytes, offsets, detail: detail.into() });
        // It is judged by itself from here on.
        self.tail = Tail { next_offset: base, last_time_ms: i64::MIN, epoch: 0 };
    }

    /// Where offsets go on behind a segment.
    fn base_behind(&self, at: usize) -> u64 {
        self.plan.segments.get(at + 1).map_or(self.plan.end_offset, |next| next.base)
    }

    fn scan(&mut self, at: usize, header: &SegmentHeader, mut source: TolerantSource) {
        let planned = &self.plan.segments[at];
        let path = segment_path(&self.plan.dir, planned.base);
        let subject = Subject {
            storage: &*self.plan.storage,
            segment_path: &path,
            segment_id: header.segment_id,
            end: planned.end.unwrap_or(planned.bytes),
            is_active: at + 1 == self.plan.segments.len(),
            coverage: self.coverage(at, header),
            is_open: self.plan.is_open,
        };
        let mut indexes = IndexChecks::open(&subject, self.verification);
        let mut scan = Scan::verified(header.frame_seed(), DATA_START);
        let mut position = 0;
        while !self.verification.is_stopped() {
            let Ok(found) = scan.next_in(&mut source);
            let behind = match found {
                Found::Frame { position, header: frame } => {
                    let range = position..position + frame.frame_bytes() as u64;
                    self.frame(at, header, &frame, range.clone(), &mut source, &mut indexes);
                    range.end
                }
                Found::Damage { range, fault } => {
                    indexes.damage(&range);
                    self.note(range.clone(), &fault.to_string());
                    range.end
                }
                Found::End { position } => {
                    let end = planned.end.unwrap_or(position);
                    if position < end {
                        indexes.damage(&(position..end));
                        self.note(position..end, "zeros, or nothing, in place of frames");
                    }
                    break;
                }
            };
            self.verification.advance(behind.min(planned.bytes).saturating_sub(position));
            position = behind;
        }
        if self.verification.is_stopped() {
            return;
        }
        self.resume_at(at, header, self.base_behind(at));
        for (range, detail) in source.unreadable() {
            self.verification.find(VerifyFinding::Unreadable { file: path.clone(), range, detail });
        }
        indexes.finish(self.verification);
    }

    /// What a time index of the segment is about, if it is believed.
    fn coverage(&self, at: usize, header: &SegmentHeader) -> Option<Coverage> {
        let end = self.plan.segments[at].end?;
        let bond = match self.plan.segments.get(at + 1) {
            Some(next) => Bond::Successor(next.header?.segment_id),
            None => Bond::Epoch(self.plan.epoch?),
        };
        Some(Coverage { segment_id: header.segment_id, end, bond })
    }

    /// A frame whose checks hold.
    fn frame(
        &mut self,
        at: usize,
        header: &SegmentHeader,
        frame: &FrameHeader,
        range: Range<u64>,
        source: &mut TolerantSource,
        indexes: &mut IndexChecks,
    ) {
        let base = header.base_offset.checked_add(frame.relative_offset.into());
        let valid = base.filter(|&base| base >= self.tail.next_offset && frame.epoch >= self.tail.epoch);
        let (Some(base), Some(behind)) = (valid, Tail::behind(header, frame)) else {
            indexes.damage(&range);
            return self.refuse(at, range, "the frame's offset or epoch falls");
        };
        // Behind damage the clock may have been asked anew, as nobody knew the last time.
        if behind.last_time_ms < self.tail.last_time_ms && self.knows_time {
            self.refuse(at, range.clone(), "the frame's time falls");
        }
        if !frame.is_filler() {
            self.resume_at(at, header, base);
        }
        self.knows_time = !frame.is_filler();
        self.tail = Tail { last_time_ms: behind.last_time_ms.max(self.tail.last_time_ms), ..behind };
        let Ok(bytes) = source.at(range.start, frame.frame_bytes());
        let unknown = frame.unknown_attributes();
        if unknown != 0 {
            let detail = frame::FrameFault::UnknownAttributes(unknown).to_string();
            let (file, position) = (segment_path(&self.plan.dir, header.base_offset), range.start);
            self.verification.find(VerifyFinding::NewerFormat { file, position, detail });
            indexes.frame(range.start, frame, i64::MIN, self.verification);
            return;
        }
        let mut greatest_ms = if frame.has_times_in_body() { i64::MIN } else { behind.last_time_ms };
        if frame.has_times_in_body() || self.sink.is_some() {
            for (offset, view) in (base..).zip(frame::records(frame, bytes)) {
                greatest_ms = greatest_ms.max(view.client_time_ms.unwrap_or(behind.last_time_ms));
                if let Some(sink) = &mut self.sink {
                    let (topic, number) = (&self.plan.topic, self.plan.number);
                    sink(Seen::Record(&RecordRef::new(topic, number, offset, behind.last_time_ms, view)));
                }
            }
        }
        indexes.frame(range.start, frame, greatest_ms, self.verification);
        let records = if self.plan.is_internal { 0 } else { frame.record_count };
        self.verification.count_frame(records.into());
    }

    /// A frame that is what was written and can't be.
    fn refuse(&mut self, at: usize, range: Range<u64>, detail: &str) {
        let file = segment_path(&self.plan.dir, self.plan.segments[at].base);
        let offsets = self.tail.next_offset..self.tail.next_offset;
        self.verification.find(VerifyFinding::Corruption { file, range, offsets, detail: detail.into() });
    }

    /// Notes bytes that aren't what was written; adjacent ones become one range.
    fn note(&mut self, range: Range<u64>, detail: &str) {
        self.knows_time = false;
        match self.pending.last_mut() {
            Some(pending) if pending.range.end == range.start => pending.range.end = range.end,
            // Between two there are fillers, of one repair: they are few.
            _ => self.pending.push(Pending { range, before: self.tail, detail: detail.to_owned() }),
        }
    }

    /// Reading can go on at `offset`: what is pending ends before it.
    fn resume_at(&mut self, at: usize, header: &SegmentHeader, offset: u64) {
        for Pending { range, before, detail } in std::mem::take(&mut self.pending) {
            if offset <= self.plan.log_start {
                continue;
            }
            let file = segment_path(&self.plan.dir, self.plan.segments[at].base);
            let offsets = before.next_offset..offset.max(before.next_offset);
            if self.keep_damaged {
                let (path, range, offsets) = (file.clone(), range.clone(), offsets.clone());
                self.walked.damaged.push(Damaged { path, header: *header, range, before, offsets });
            }
            self.verification.find(VerifyFinding::Corruption { file, range, offsets, detail });
        }
    }
}

impl Planned {
    pub(super) fn new(base: u64, header: Header) -> Self {
        let Header { believed, refusal, bad_copy, file_bytes } = header;
        Self { base, header: believed, refusal, bad_copy, end: None, bytes: file_bytes }
    }
}

/// Says where each segment's frames end, as far as the next one's header tells; `last` is where those of the last one do.
pub(super) fn set_ends(segments: &mut [Planned], last: Option<u64>) {
    for at in 0..segments.len() {
        let end = match segments.get(at + 1) {
            Some(next) => {
                let before = next.header.and_then(|header| header.predecessor);
                let own = segments[at].header.map(|header| header.segment_id);
                before.filter(|before| Some(before.segment_id) == own).map(|before| before.end_position)
            }
            None => last,
        };
        segments[at].end = end;
        segments[at].bytes = segments[at].bytes.min(end.unwrap_or(u64::MAX));
    }
}
